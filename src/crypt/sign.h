/* sign.h: Ed25519 (RFC 8032), pure.
 *
 * Stricter than OpenSSL, which takes any 32 bytes for a public key: a key that is no point of the
 * curve, not the one spelling of its point, or of small order (under which one signature holds for
 * many messages) is refused. OpenSSL itself refuses S >= L and any but the canonical R, and checks
 * without the cofactor: one message and key have one signature that holds. */
#pragma once

#include "crypt/crypt.h"

enum { SIGN_PUBLIC_BYTES = 32, SIGN_SEED_BYTES = 32, SIGNATURE_BYTES = 64 };

struct signer;   /* a private key, in secret memory; for one thread at a time */
struct verifier; /* a public key; for one thread at a time */

/* The caller wipes its seed. INTERNAL when secret memory is full. */
MUST_CHECK status signer_create(struct signer **ret, const uint8_t seed[SIGN_SEED_BYTES],
                                struct fault *fault);
struct signer *signer_free(struct signer *signer);
void signer_public(uint8_t ret[SIGN_PUBLIC_BYTES], const struct signer *signer);
MUST_CHECK status signer_sign(uint8_t ret[SIGNATURE_BYTES], struct signer *signer,
                              struct span message, struct fault *fault);

/* BAD_FIELD when the bytes are no point of the curve, or one of those refused above. */
MUST_CHECK status verifier_create(struct verifier **ret, const uint8_t key[SIGN_PUBLIC_BYTES],
                                  struct fault *fault);
struct verifier *verifier_free(struct verifier *verifier);
/* UNAUTHENTICATED when the signature is not this key's over this message. */
MUST_CHECK status verifier_check(struct verifier *verifier, struct span message,
                                 const uint8_t signature[SIGNATURE_BYTES], struct fault *fault);
