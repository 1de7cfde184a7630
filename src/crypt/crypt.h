/* crypt.h: start-up of the room, randomness, hashes, HKDF. The only room that includes OpenSSL. */
#pragma once

#include "base/span.h"
#include "base/status.h"

enum { HASH_BYTES = 32, KEY_BYTES = 32 };

/* Fetches every algorithm of our own once, loads no configuration file, and proves each by known
 * answers (those of foreign.h: at the first key). Call
 * before any other use of OpenSSL (its memory functions are replaced, see openssl.h) and before the
 * jail closes: afterwards the room needs the memory calls, futex and getrandom only. Again: OK.
 * INTERNAL when an algorithm is missing or wrong, or secret memory is refused. */
MUST_CHECK status crypt_start(struct fault *fault);

/* From the kernel; aborts the process if it cannot (nothing can be done safely then). */
void crypt_random(void *bytes, size_t length);

/* SHA-256. hash_parts hashes the concatenation. */
void hash(uint8_t ret[HASH_BYTES], struct span bytes);
void hash_parts(uint8_t ret[HASH_BYTES], const struct span *parts, size_t count);

/* SHA-256 of what comes in pieces; hasher_value may be asked in between. */
struct hasher;
MUST_CHECK status hasher_create(struct hasher **ret, struct fault *fault);
struct hasher *hasher_free(struct hasher *hasher); /* takes NULL */
void hasher_reset(struct hasher *hasher);
void hasher_add(struct hasher *hasher, struct span bytes);
void hasher_value(uint8_t ret[HASH_BYTES], const struct hasher *hasher);

/* HMAC-SHA-256 */
void hash_keyed(uint8_t ret[HASH_BYTES], struct span key, struct span bytes);

/* HKDF-SHA-256 (RFC 5869), one key of 32 bytes; purpose is the info, "bulkhead pages v1". */
void key_derive(uint8_t ret[KEY_BYTES], const uint8_t key[KEY_BYTES], struct span salt,
                const char *purpose);
