/* chunk.h: AES-256-GCM of one long text cut in chunks: the STREAM construction (Hoang,
 * Reyhanitabar, Rogaway, Vizar: Online Authenticated-Encryption and its Nonce-Reuse
 * Misuse-Resistance, CRYPTO 2015). The nonce of a chunk is 7 zero bytes, its number (u32,
 * big-endian) and 1 for the last one, else 0: so a key seals one text, once, and a chunk that is
 * left out, added, moved or taken for the last one does not open. */
#pragma once

#include "crypt/aead.h"

/* OpenSSL's part, for any number of keys in turn; one thread. */
struct chunk_cipher;
/* One key, in secret memory of the room. */
struct chunk_key;

struct chunk_place {
    uint32_t number; /* from 0 */
    bool last;
};

/* INTERNAL when secret memory is full. */
MUST_CHECK status chunk_cipher_create(struct chunk_cipher **ret, struct fault *fault);
struct chunk_cipher *chunk_cipher_free(struct chunk_cipher *cipher); /* returns NULL; takes NULL */

/* bytes: NULL for a fresh one. INTERNAL when secret memory is full: some hundred keys fit. */
MUST_CHECK status chunk_key_create(struct chunk_key **ret, const uint8_t *bytes,
                                   struct fault *fault);
struct chunk_key *chunk_key_free(struct chunk_key *key); /* wipes; returns NULL; takes NULL */
const uint8_t *chunk_key_bytes(const struct chunk_key *key); /* KEY_BYTES, valid as long as key */

/* In place allowed; out takes in.length bytes. Aborts the process if OpenSSL fails. */
void chunk_seal(uint8_t *out, uint8_t tag[AEAD_TAG_BYTES], struct chunk_cipher *cipher,
                const struct chunk_key *key, struct chunk_place place, struct span in,
                struct span associated);
/* CORRUPT when anything differs from what was sealed; out is then wiped. */
MUST_CHECK status chunk_open(uint8_t *out, const uint8_t tag[AEAD_TAG_BYTES],
                             struct chunk_cipher *cipher, const struct chunk_key *key,
                             struct chunk_place place, struct span in, struct span associated,
                             struct fault *fault);
