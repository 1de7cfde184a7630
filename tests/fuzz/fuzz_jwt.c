/* fuzz_jwt: a token as strangers send it, and a payload as a trusted issuer may sign it.
 *
 * The first byte picks by its last two bits: 0 or 3, the rest is the token (3: peeked at too);
 * 1, the rest is a payload that is signed first, so that what lies behind the signature is reached;
 * 2, the rest is a byte that picks an algorithm and a signature, of which none can be right. What
 * is accepted must hold its bounds. The seeds come from tests/vectors/jwt_make.py. Links authz. */
#include "authz/jwks.h"
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

/* The public halves of keys of tests/vectors/test_keys.py. */
static const char foreign_keys[] =
    "{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"kid\":\"ed\",\"x\":\"GNjYfFeBENMcmX66qII"
    "UCbcYTDnULWvuCrgc7cO50sA\"},{\"kty\":\"EC\",\"crv\":\"P-256\",\"kid\":\"es\",\"x\":\"-nYDz"
    "sCSbjjNzSfimXdrS_mc_9_3pSCQAQiVZP-Sbp8\",\"y\":\"hvzuEZL2uGVtePgfaEfTqq_pawVTfmHxWPVP96eJE"
    "5w\"},{\"kty\":\"RSA\",\"kid\":\"rs\",\"n\":\"ss6KZqVDKWpxTVEA5zw3yrZPR-Ri1u6zZVL7ojB32ell"
    "-bqFwNpuSy4zuF8dA_A1vzBW5nf2Ydi7r0kYxKbj88Drg_Z10MiUZtDF_GdAKjqAtBxcRTEz4d-J-n3dT_TTCQp7-m"
    "m56WOmAwoozx_GiVVNVnti8DYFHHP6l5bh_hfoOXBYz4OfjL7HWBbHTdTE_KcLaO65ZtBkdRycCFocHYMHQsPNXBkI"
    "p9AVGDNbxrkPhiyyrOMQf4pzUFOvAS-1-R9-lNrMye8i9lTt41fEpyU4JXTj_dUklo9bM9ORvRYpE3P83q7q7pJ618"
    "wfQpHayHW0voMJ_9EyyiOnJhyIGQ\",\"e\":\"AQAB\"},{\"kty\":\"RSA\",\"kid\":\"ps\",\"n\":\"ss6"
    "KZqVDKWpxTVEA5zw3yrZPR-Ri1u6zZVL7ojB32ell-bqFwNpuSy4zuF8dA_A1vzBW5nf2Ydi7r0kYxKbj88Drg_Z10"
    "MiUZtDF_GdAKjqAtBxcRTEz4d-J-n3dT_TTCQp7-mm56WOmAwoozx_GiVVNVnti8DYFHHP6l5bh_hfoOXBYz4OfjL7"
    "HWBbHTdTE_KcLaO65ZtBkdRycCFocHYMHQsPNXBkIp9AVGDNbxrkPhiyyrOMQf4pzUFOvAS-1-R9-lNrMye8i9lTt4"
    "1fEpyU4JXTj_dUklo9bM9ORvRYpE3P83q7q7pJ618wfQpHayHW0voMJ_9EyyiOnJhyIGQ\",\"e\":\"AQAB\",\"a"
    "lg\":\"PS256\"}]}";

static void start_foreign(void)
{
    struct token_issuer issuer = {
        .iss = "https://fuzz.example/", .aud = TOKEN_AUDIENCE, .tenant_claim = "org",
        .user_claim = "uid", .scope_claim = "scp", .clearance_claim = "level", .jti_once = true,
        .lifetime_max_seconds = 3600, .early_seconds = 60, .late_seconds = 60,
    };
    struct jwks jwks;
    struct fault fault;
    MUST(jwks_read(&jwks, SPAN(foreign_keys), &fault) == OK && jwks.count == 4);
    for (uint32_t i = 0; i < jwks.count; i++)
        issuer.keys[i] = jwks.keys[i];
    issuer.key_count = jwks.count;
    MUST(token_verifier_put(verifier, &issuer, &fault) == OK);
}

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
    start_foreign();
}

/* A foreign token with this signature, whatever it is. */
static void compose_foreign(struct buffer *token, struct span rest)
{
    static const char *const headers[] = {
        "{\"alg\":\"ES256\",\"kid\":\"es\"}", "{\"alg\":\"RS256\",\"kid\":\"rs\"}",
        "{\"alg\":\"PS256\",\"kid\":\"ps\"}", "{\"alg\":\"EdDSA\",\"kid\":\"ed\"}",
    };
    if (rest.length == 0)
        return;
    base64url_put(token, span_of_text(headers[rest.data[0] & 3]));
    buffer_put_u8(token, '.');
    base64url_put(token, SPAN("{\"iss\":\"https://fuzz.example/\"}"));
    buffer_put_u8(token, '.');
    base64url_put(token, (struct span){rest.data + 1, rest.length - 1});
}

static void peek(struct span token)
{
    static const char *const names[] = {"tenant_id", "org"};
    struct token_peek seen;
    struct fault fault;
    if (token_peek(&seen, verifier, token, names, 2, &fault) == OK)
        MUST(seen.iss[0] && span_is_plain_text(span_of_text(seen.claims[0])));
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
    MUST(claims->platform ? !claims->tenant[0] : claims->tenant[0] != '\0');
    MUST(claims->platform || !scope_holds(claims->scopes, SCOPE_ROUTES_READ));
    MUST(!claims->platform || (claims->scopes & ~SCOPE_SET(SCOPE_ROUTES_READ)) == 0);
    MUST(span_of_text(claims->tenant).length <= TENANT_NAME_MAX);
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
    bool payload = (data[0] & 3) == 1;
    if (payload)
        compose(&token, rest);
    else if ((data[0] & 3) == 2)
        compose_foreign(&token, rest);
    else
        buffer_put(&token, rest);
    if (token.failed)
        return 0;
    if ((data[0] & 3) == 3)
        peek(buffer_span(&token));
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
