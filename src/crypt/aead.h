/* aead.h: XAES-256-GCM (C2SP xaes-256-gcm): AES-256-GCM with 192-bit random nonces, so that one key
 * seals any number of pages. Not key-committing: every key of ours has one purpose. */
#pragma once

#include "crypt/crypt.h"

enum {
    AEAD_NONCE_BYTES = 24,
    AEAD_TAG_BYTES = 16,
    AEAD_TEXT_MAX = 1 << 30, /* bytes of one message, and of its associated data; asserted */
};

/* A prepared key: for one thread at a time, and for the process that made it. A forked child has
 * no copy of secret memory: one that tries to seal or open dies. */
struct aead;

/* The key's schedule, and all else that is kept of the key, lives in secret memory of the room.
 * INTERNAL when that is full (64 KiB, some thirty keys at once). The caller wipes its key. */
MUST_CHECK status aead_create(struct aead **ret, const uint8_t key[KEY_BYTES], struct fault *fault);
struct aead *aead_free(struct aead *aead); /* wipes; returns NULL; takes NULL */

/* In place allowed (out == in.data; else they must not overlap). nonce is filled by aead_seal from
 * the kernel's randomness (read ahead, ten at a time); out takes in.length bytes. Aborts the
 * process if OpenSSL fails. */
void aead_seal(uint8_t *out, uint8_t nonce[AEAD_NONCE_BYTES], uint8_t tag[AEAD_TAG_BYTES],
               struct aead *aead, struct span in, struct span associated);

/* CORRUPT when anything differs from what was sealed; out is then wiped. */
MUST_CHECK status aead_open(uint8_t *out, struct aead *aead,
                            const uint8_t nonce[AEAD_NONCE_BYTES],
                            const uint8_t tag[AEAD_TAG_BYTES], struct span in,
                            struct span associated, struct fault *fault);

/* For test vectors only: the nonce is the caller's. */
void aead_seal_with_nonce(uint8_t *out, const uint8_t nonce[AEAD_NONCE_BYTES],
                          uint8_t tag[AEAD_TAG_BYTES], struct aead *aead, struct span in,
                          struct span associated);
