/* minted.h: tokens of a built-in issuer whose key the test holds. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "authz/token.h"

#define MINT_TENANT "00112233445566778899aabbccddeeff"

struct mint {
    struct signer *signer;
    struct token_verifier *verifier;
    uint8_t public_key[SIGN_PUBLIC_BYTES];
    char key_id[TOKEN_KEY_ID_TEXT];
};

static inline struct mint mint_open(void)
{
    static const uint8_t seed[SIGN_SEED_BYTES] = {7};
    struct mint mint = {0};
    struct fault fault;
    assert_int_equal(signer_create(&mint.signer, seed, &fault), OK);
    signer_public(mint.public_key, mint.signer);
    token_key_id(mint.key_id, mint.public_key);
    struct token_issuer issuer = token_issuer_builtin(mint.public_key);
    assert_int_equal(token_verifier_create(&mint.verifier, &fault), OK);
    assert_int_equal(token_verifier_put(mint.verifier, &issuer, &fault), OK);
    return mint;
}

static inline void mint_close(struct mint *mint)
{
    mint->verifier = token_verifier_free(mint->verifier);
    mint->signer = signer_free(mint->signer);
}

static inline struct token_request mint_request(void)
{
    return (struct token_request){
        .tenant = SPAN(MINT_TENANT), .user = SPAN("ada"), .agent = SPAN("agent-7"),
        .scope = SPAN("memory:read tenant:read"), .clearance = SPAN("confidential"),
        .ttl_seconds = 900, .ttl_max_seconds = 86400,
    };
}

static inline void mint_token(struct buffer *out, struct mint *mint,
                              const struct token_request *request, int64_t now)
{
    uint8_t signature[SIGNATURE_BYTES];
    struct fault fault;
    buffer_clear(out);
    assert_int_equal(token_body_put(out, request, mint->key_id, now, &fault), OK);
    assert_int_equal(signer_sign(signature, mint->signer, buffer_span(out), &fault), OK);
    token_signature_put(out, signature);
    assert_false(out->failed);
}
