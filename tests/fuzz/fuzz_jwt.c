/* fuzz_jwt: a token as strangers send it, and a payload as a trusted issuer may sign it.
 *
 * The first byte picks: even, the rest is the token; odd, the rest is a payload that is signed
 * first, so that what lies behind the signature is reached too. What is accepted must hold its
 * bounds. The seeds come from tests/vectors/jwt_make.py. Links authz. */
#include "authz/token.h"
#include "wire/base64.h"

#include <stdlib.h>

static const int64_t NOW = 1800000000;
static struct token_verifier *verifier;
static struct signer *signer;
static char key_id[TOKEN_KEY_ID_TEXT];

#define MUST(condition)  \
    do {                 \
        if (!(condition)) \
            abort();     \
    } while (0)

static void start(void)
{
    static const uint8_t seed[SIGN_SEED_BYTES] = {7};
    uint8_t public_key[SIGN_PUBLIC_BYTES];
    struct fault fault;
    MUST(crypt_start(&fault) == OK);
    MUST(signer_create(&signer, seed, &fault) == OK);
    signer_public(public_key, signer);
    token_key_id(key_id, public_key);
    struct token_issuer issuer = token_issuer_builtin(public_key);
    MUST(token_verifier_create(&verifier, &fault) == OK);
    MUST(token_verifier_put(verifier, &issuer, &fault) == OK);
}

static void compose(struct buffer *token, struct span payload)
{
    _cleanup_buffer_ struct buffer header = buffer_of(256);
    uint8_t signature[SIGNATURE_BYTES];
    struct fault fault;
    buffer_printf(&header, "{\"alg\":\"EdDSA\",\"kid\":\"%s\"}", key_id);
    base64url_put(token, buffer_span(&header));
    buffer_put_u8(token, '.');
    base64url_put(token, payload);
    MUST(signer_sign(signature, signer, buffer_span(token), &fault) == OK);
    token_signature_put(token, signature);
}

static void check(const struct claims *claims)
{
    enum token_reason reason;
    MUST(principal_is_valid(span_of_text(claims->user)));
    MUST(!claims->agent[0] || principal_is_valid(span_of_text(claims->agent)));
    MUST(claims->tenant[0] && span_of_text(claims->tenant).length <= TENANT_NAME_MAX);
    MUST((claims->scopes & ~SCOPES_KNOWN) == 0);
    MUST((unsigned)claims->clearance < CLEARANCE_COUNT);
    MUST(claims_current(claims, NOW, &reason));
    MUST(claims->expires_at > NOW);
    MUST(claims->expires_at - NOW <= TOKEN_LIFETIME_MAX_SECONDS + TOKEN_SKEW_SECONDS);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!verifier)
        start();
    if (size == 0)
        return 0;
    struct span rest = {data + 1, size - 1};
    _cleanup_buffer_ struct buffer token = buffer_of(2 * TOKEN_MAX);
    bool payload = data[0] & 1;
    if (payload)
        compose(&token, rest);
    else
        buffer_put(&token, rest);
    if (token.failed)
        return 0;
    struct claims claims;
    enum token_reason reason;
    struct fault fault;
    status code = token_verify(&claims, &reason, verifier, buffer_span(&token), NOW, &fault);
    MUST((code == OK) == (reason == TOKEN_ACCEPTED));
    MUST(code == OK || code == UNAUTHENTICATED);
    if (code == OK) {
        MUST(payload); /* a token that nobody signed here */
        check(&claims);
    }
    return 0;
}
