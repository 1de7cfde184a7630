/* fuzz_jwks: every key that is taken out of a document is a key, and fits an issuer. */
#include "authz/jwks.h"
#include "fuzz.h"

static bool started;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fault fault;
    struct jwks jwks;
    if (!started)
        CHECK(crypt_start(&fault) == OK);
    started = true;
    status code = jwks_read(&jwks, (struct span){data, size}, &fault);
    CHECK(code == OK || code == BAD_FIELD || code == BAD_JSON || code == TOO_LARGE);
    if (code != OK)
        return 0;
    struct token_issuer issuer = token_issuer_builtin(jwks.keys[0].public_key);
    CHECK(jwks.count >= 1 && jwks.count <= TOKEN_ISSUER_KEYS_MAX);
    for (uint32_t i = 0; i < jwks.count; i++) {
        CHECK(token_key_check(&jwks.keys[i], &fault) == OK);
        issuer.keys[i] = jwks.keys[i];
    }
    issuer.key_count = jwks.count;
    CHECK(token_issuer_check(&issuer, &fault) == OK); /* ids of their own, within bounds */
    return 0;
}
