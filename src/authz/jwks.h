/* jwks.h: the keys of a foreign issuer, from the document that it publishes (a JWK Set, RFC 7517
 * section 5; key kinds of RFC 7518 section 6 and RFC 8037). docs/file-formats.md says what of it
 * is taken. */
#pragma once

#include "authz/token.h"

struct jwks {
    struct token_key keys[TOKEN_ISSUER_KEYS_MAX];
    uint32_t count;
    uint32_t skipped; /* of a kind, curve, use or algorithm that is not ours */
};

/* Members that it does not know are passed over, as the RFC asks; else strict. BAD_FIELD, with the
 * number of the key (from 1), for: no JWK Set, two keys of one kid, a key without kid, one that is
 * no key or too weak, a private or symmetric one, none that can be used. TOO_LARGE for more than
 * JWKS_MAX bytes or TOKEN_ISSUER_KEYS_MAX keys that could be used. BAD_JSON. The caller of a
 * document with private keys should know that they have left their place: the fault says so. */
MUST_CHECK status jwks_read(struct jwks *ret, struct span document, struct fault *fault);
