/* openssl.h: what the files of this room share; no other room may include it.
 *
 * OpenSSL keeps expanded keys (AES schedules, Ed25519 private keys) in objects of its own. Between
 * secret_objects_begin and _end all that it allocates on this thread comes from one block of
 * secret memory (base/secret.h) instead of the heap, and is wiped when it gives it back. The block
 * is made once, before the jail closes, and never grows. */
#pragma once

#include "base/span.h"
#include "base/status.h"
#include "crypt/foreign.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>

struct algorithms {
    EVP_MD *sha256;
    EVP_CIPHER *block; /* AES-256-ECB: the bare block function */
    EVP_CIPHER *gcm;   /* AES-256-GCM */
};

extern struct algorithms crypt_algorithms; /* filled by crypt_start, constant afterwards */

/* Before OpenSSL allocates anything: INTERNAL when it is too late. */
MUST_CHECK status secret_objects_hook(struct fault *fault);
/* Until this is called secret objects live in the heap: the self-test's keys are no secrets. */
MUST_CHECK status secret_objects_start(struct fault *fault);

/* From now on what OpenSSL gives back to the heap is wiped, too: keys of sessions, records read. */
void secret_objects_wipe_all(void);

/* They do not nest. */
void secret_objects_begin(void);
void secret_objects_end(void);

/* Zeroed; NULL when the block is full. Wiped when given back; NULL is allowed. */
void *secret_object_take(size_t size);
void secret_object_give(void *object);

/* Of the block, for tests: what is taken must be given back. */
size_t secret_objects_bytes(void);

/* Known answers for every algorithm of our own: INTERNAL names the one that failed. The second is
 * the part of it in which prepared keys are at work. */
MUST_CHECK status crypt_self_test(struct fault *fault);
MUST_CHECK status crypt_self_test_keys(struct fault *fault);
/* One algorithm of foreign.h, by a verifier that is made without having been proven: as
 * foreign_verifier_create otherwise. */
MUST_CHECK status foreign_self_test(enum foreign_alg alg, struct fault *fault);
MUST_CHECK status foreign_verifier_make(struct foreign_verifier **ret, enum foreign_alg alg,
                                        struct span key, struct fault *fault);

/* For calls that fail only when the library is broken or memory is out, where going on could
 * only leak or lose data. */
void demand(bool held);
