#include "authz/jwks.h"

#include "base/cursor.h"
#include "crypt/foreign.h"
#include "wire/base64.h"
#include "wire/json.h"

#include <stdlib.h>

enum { PARSED_MAX = MIB(2), EXPONENT_BYTES = 4 };

static const char *const private_members[] = {"d", "p", "q", "dp", "dq", "qi", "oth"};

static bool is_text(const struct json *object, const char *name, const char *text)
{
    const struct json *value = json_member(object, name);
    return value && value->kind == JSON_STRING && span_is(value->string, text);
}

static status refuse_secrets(const struct json *key, uint32_t number, struct fault *fault)
{
    if (is_text(key, "kty", "oct") || json_member(key, "k"))
        return FAIL(BAD_FIELD, fault, "key %u: symmetric; whoever checks tokens with it could "
                    "make them", number);
    for (size_t i = 0; i < sizeof private_members / sizeof private_members[0]; i++)
        if (json_member(key, private_members[i]))
            return FAIL(BAD_FIELD, fault, "key %u: this file holds a private key (\"%s\"): give "
                        "the public one, and take this one out of use", number,
                        private_members[i]);
    return OK;
}

/* kid is what a token names its key by: needed of a key that is used, and never twice. */
static status check_kids(const struct json *keys, struct fault *fault)
{
    for (uint32_t i = 0; i < keys->count; i++) {
        const struct json *kid = json_member(&keys->items[i], "kid");
        if (kid && kid->kind != JSON_STRING)
            return FAIL(BAD_FIELD, fault, "key %u: kid: must be a string", i + 1);
        for (uint32_t j = 0; kid && j < i; j++) {
            const struct json *other = json_member(&keys->items[j], "kid");
            if (other && span_equal(kid->string, other->string))
                return FAIL(BAD_FIELD, fault, "keys %u and %u: share one kid", j + 1, i + 1);
        }
    }
    return OK;
}

static status check_key_ops(bool *ret_verifies, const struct json *key, uint32_t number,
                            struct fault *fault)
{
    const struct json *ops = json_member(key, "key_ops");
    *ret_verifies = !ops;
    if (!ops)
        return OK;
    if (ops->kind != JSON_ARRAY)
        return FAIL(BAD_FIELD, fault, "key %u: key_ops: must be a list", number);
    for (uint32_t i = 0; i < ops->count; i++) {
        if (ops->items[i].kind != JSON_STRING)
            return FAIL(BAD_FIELD, fault, "key %u: key_ops: must be a list of strings", number);
        if (span_is(ops->items[i].string, "verify"))
            *ret_verifies = true;
    }
    return OK;
}

static bool alg_by_kind(enum token_alg *ret, const struct json *key)
{
    if (is_text(key, "kty", "OKP") && is_text(key, "crv", "Ed25519"))
        *ret = TOKEN_EDDSA;
    else if (is_text(key, "kty", "EC") && is_text(key, "crv", "P-256"))
        *ret = TOKEN_ES256;
    else if (is_text(key, "kty", "RSA"))
        *ret = TOKEN_RS256;
    else
        return false;
    return true;
}

/* Whether the key is one of ours, and what for. */
static status find_alg(bool *ret_ours, enum token_alg *ret, const struct json *key,
                       uint32_t number, struct fault *fault)
{
    enum token_alg by_kind, named;
    const struct json *kty = json_member(key, "kty"), *alg = json_member(key, "alg");
    bool verifies;
    if (!kty || kty->kind != JSON_STRING)
        return FAIL(BAD_FIELD, fault, "key %u: kty: is required, a string", number);
    if (alg && alg->kind != JSON_STRING)
        return FAIL(BAD_FIELD, fault, "key %u: alg: must be a string", number);
    TRY(check_key_ops(&verifies, key, number, fault));
    *ret_ours = verifies && (!json_member(key, "use") || is_text(key, "use", "sig"))
             && alg_by_kind(&by_kind, key);
    if (!*ret_ours)
        return OK;
    *ret = by_kind;
    if (!alg)
        return OK;
    *ret_ours = token_alg_named(&named, alg->string)
             && (named == by_kind || (named == TOKEN_PS256 && by_kind == TOKEN_RS256));
    if (*ret_ours)
        *ret = named;
    return OK;
}

static status put_number(struct buffer *out, const struct json *key, const char *name,
                         uint32_t number, struct fault *fault)
{
    const struct json *value = json_member(key, name);
    struct fault unused;
    if (!value || value->kind != JSON_STRING
        || base64url_decode(out, value->string, name, &unused) != OK || out->failed)
        return FAIL(BAD_FIELD, fault, "key %u: %s: base64url without padding, not longer than "
                    "such a key has it", number, name);
    return OK;
}

/* e as four bytes: Base64urlUInt has no leading zero (RFC 7518 section 2). */
static status put_exponent(struct buffer *out, const struct json *key, uint32_t number,
                           struct fault *fault)
{
    uint8_t storage[EXPONENT_BYTES];
    struct buffer exponent = buffer_over(storage, sizeof storage);
    TRY(put_number(&exponent, key, "e", number, fault));
    if (exponent.length < 1 || storage[0] == 0)
        return FAIL(BAD_FIELD, fault, "key %u: e: a number without leading zeros", number);
    for (size_t i = exponent.length; i < EXPONENT_BYTES; i++)
        buffer_put_u8(out, 0);
    buffer_put(out, buffer_span(&exponent));
    return OK;
}

static status read_public(struct token_key *ret, const struct json *key, uint32_t number,
                          struct fault *fault)
{
    struct buffer bytes = buffer_over(ret->public_key, sizeof ret->public_key);
    if (ret->alg == TOKEN_RS256 || ret->alg == TOKEN_PS256) {
        TRY(put_exponent(&bytes, key, number, fault));
        TRY(put_number(&bytes, key, "n", number, fault));
    } else {
        TRY(put_number(&bytes, key, "x", number, fault));
        if (ret->alg == TOKEN_ES256 && bytes.length == FOREIGN_EC_BYTES / 2)
            TRY(put_number(&bytes, key, "y", number, fault));
    }
    ret->length = (uint32_t)bytes.length;
    return OK;
}

static status read_key(struct token_key *ret, const struct json *key, enum token_alg alg,
                       uint32_t number, struct fault *fault)
{
    struct token_key made = {.alg = alg};
    const struct json *kid = json_member(key, "kid");
    struct fault reason;
    if (!kid || kid->string.length < 1 || kid->string.length > KEY_ID_MAX
        || !span_is_plain_text(kid->string)
        || !span_to_text(made.id, sizeof made.id, kid->string))
        return FAIL(BAD_FIELD, fault, "key %u: kid: is required, 1 to %d bytes of text", number,
                    KEY_ID_MAX);
    TRY(read_public(&made, key, number, fault));
    if (token_key_check(&made, &reason))
        return FAIL(BAD_FIELD, fault, "key %u: %.150s", number, reason.detail);
    *ret = made;
    return OK;
}

static status read_keys(struct jwks *ret, const struct json *keys, struct fault *fault)
{
    for (uint32_t i = 0; i < keys->count; i++) {
        TRY(json_need_object(&keys->items[i], "keys", fault));
        TRY(refuse_secrets(&keys->items[i], i + 1, fault));
    }
    TRY(check_kids(keys, fault));
    for (uint32_t i = 0; i < keys->count; i++) {
        enum token_alg alg;
        bool ours;
        TRY(find_alg(&ours, &alg, &keys->items[i], i + 1, fault));
        if (!ours) {
            ret->skipped++;
            continue;
        }
        if (ret->count == TOKEN_ISSUER_KEYS_MAX)
            return FAIL(TOO_LARGE, fault, "keys: at most %d", TOKEN_ISSUER_KEYS_MAX);
        TRY(read_key(&ret->keys[ret->count], &keys->items[i], alg, i + 1, fault));
        ret->count++;
    }
    if (ret->count == 0)
        return FAIL(BAD_FIELD, fault, "keys: none is for signatures by EdDSA (Ed25519), ES256, "
                    "RS256 or PS256");
    return OK;
}

static status read_set(struct jwks *ret, struct arena *arena, struct span document,
                       struct fault *fault)
{
    struct json parsed;
    TRY(json_parse(&parsed, arena, document, fault));
    const struct json *keys = json_member(&parsed, "keys");
    if (!keys || keys->kind != JSON_ARRAY)
        return FAIL(BAD_FIELD, fault, "keys: is required, a list: this is no JWK Set");
    return read_keys(ret, keys, fault);
}

status jwks_read(struct jwks *ret, struct span document, struct fault *fault)
{
    if (document.length > JWKS_MAX)
        return FAIL(TOO_LARGE, fault, "a JWK Set: at most %u bytes", JWKS_MAX);
    struct jwks made = {.count = 0};
    struct arena arena = arena_of(PARSED_MAX);
    status code = read_set(&made, &arena, document, fault);
    arena_free(&arena);
    if (code == OK)
        *ret = made;
    return code;
}
