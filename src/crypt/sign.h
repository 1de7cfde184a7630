/* sign.h: Ed25519 (RFC 8032), pure. */
#pragma once

#include "crypt/crypt.h"

enum { SIGN_PUBLIC_BYTES = 32, SIGN_SEED_BYTES = 32, SIGNATURE_BYTES = 64 };

struct signer;   /* a private key */
struct verifier; /* a public key */

MUST_CHECK status signer_create(struct signer **ret, const uint8_t seed[SIGN_SEED_BYTES],
                                struct fault *fault);
struct signer *signer_free(struct signer *signer);
void signer_public(uint8_t ret[SIGN_PUBLIC_BYTES], const struct signer *signer);
MUST_CHECK status signer_sign(uint8_t ret[SIGNATURE_BYTES], struct signer *signer,
                              struct span message, struct fault *fault);

/* BAD_FIELD when the bytes are no point of the curve. */
MUST_CHECK status verifier_create(struct verifier **ret, const uint8_t key[SIGN_PUBLIC_BYTES],
                                  struct fault *fault);
struct verifier *verifier_free(struct verifier *verifier);
/* UNAUTHENTICATED when the signature is not this key's over this message. */
MUST_CHECK status verifier_check(struct verifier *verifier, struct span message,
                                 const uint8_t signature[SIGNATURE_BYTES], struct fault *fault);
