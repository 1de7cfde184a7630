/* foreign.h: signatures of other people's keys: the JOSE algorithms ES256, RS256 and PS256
 * (RFC 7518 section 3) over SHA-256. Verification only; our own signatures are sign.h's.
 *
 * Stricter than OpenSSL: one encoding of a key and of a signature, exact lengths, no weak RSA key,
 * PS256 with a salt of exactly 32 bytes and MGF1 over SHA-256. An algorithm is proven by known
 * answers when its first key is loaded, which like all here opens no file: in the jail, too. */
#pragma once

#include "crypt/crypt.h"

enum foreign_alg { FOREIGN_ES256, FOREIGN_RS256, FOREIGN_PS256, FOREIGN_ALG_COUNT };

enum {
    FOREIGN_EC_BYTES = 64,          /* x and y, or r and s, 32 each */
    FOREIGN_RSA_MIN_BYTES = 256,    /* of a modulus: 2048 bits */
    FOREIGN_RSA_MAX_BYTES = 512,    /* 4096 bits */
    FOREIGN_RSA_EXPONENT_MIN = 65537,
    FOREIGN_SIGNATURE_MAX = FOREIGN_RSA_MAX_BYTES,
};

struct foreign_verifier; /* a public key and its one algorithm; for one thread at a time */

/* key: ES256: x and y. RS256, PS256: the exponent (u32, big-endian, odd, at least 65537), then the
 * modulus (odd, no leading zero, 2048 to 4096 bits). BAD_FIELD otherwise, and when the point is not
 * on P-256; INTERNAL when the algorithm itself is missing or wrong. */
MUST_CHECK status foreign_verifier_create(struct foreign_verifier **ret, enum foreign_alg alg,
                                          struct span key, struct fault *fault);
struct foreign_verifier *foreign_verifier_free(struct foreign_verifier *verifier);

/* UNAUTHENTICATED when the signature (ES256: r and s, each in 1..n-1; RSA: as long as the modulus)
 * is not this key's over this message. */
MUST_CHECK status foreign_verifier_check(struct foreign_verifier *verifier, struct span message,
                                         struct span signature, struct fault *fault);
