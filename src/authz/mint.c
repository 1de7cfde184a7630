#include "authz/claims.h"

#include "base/hex.h"
#include "wire/base64.h"

#include <assert.h>

enum { BODY_MAX = KIB(4), JTI_BYTES = 16 };

static status check_request(scope_set *ret_scopes, enum clearance *ret_clearance,
                            const struct token_request *request, struct fault *fault)
{
    int64_t cap = request->ttl_max_seconds;
    if (cap < 1 || cap > TOKEN_LIFETIME_MAX_SECONDS)
        cap = TOKEN_LIFETIME_MAX_SECONDS;
    bool platform = claims_tenant_is_platform(request->tenant);
    if (!platform && !claims_tenant_is_id(request->tenant))
        return FAIL(BAD_FIELD, fault, "tenant: an id of 32 hexadecimal digits");
    if (!principal_is_valid(request->user))
        return FAIL(BAD_FIELD, fault, "user: 1 to %d bytes of text", USER_MAX);
    if (request->agent.length && !principal_is_valid(request->agent))
        return FAIL(BAD_FIELD, fault, "agent: at most %d bytes of text", USER_MAX);
    if (request->ttl_seconds < 1 || request->ttl_seconds > cap)
        return FAIL(BAD_FIELD, fault, "ttl: 1 to %lld seconds", (long long)cap);
    if (request->scope.length)
        TRY(scope_set_read_known(ret_scopes, request->scope, fault));
    if (platform && *ret_scopes != SCOPE_SET(SCOPE_ROUTES_READ))
        return FAIL(BAD_FIELD, fault, "scope: a platform token has routes:read alone");
    if (!platform && scope_holds(*ret_scopes, SCOPE_ROUTES_READ))
        return FAIL(BAD_FIELD, fault, "scope: routes:read is of platform tokens alone");
    if (request->clearance.length)
        TRY(clearance_read(ret_clearance, request->clearance, "clearance", fault));
    return OK;
}

static void put_header(struct buffer *out, const char *key_id)
{
    struct json_writer writer = json_writer_on(out);
    json_open_object(&writer, NULL);
    json_put_text(&writer, "alg", "EdDSA");
    json_put_text(&writer, "typ", "at+jwt");
    json_put_text(&writer, "kid", key_id);
    json_close_object(&writer);
}

static void put_scopes(struct json_writer *writer, scope_set scopes)
{
    uint8_t storage[TOKEN_SCOPES_MAX];
    struct buffer text = buffer_over(storage, sizeof storage);
    for (unsigned i = 0; i < SCOPE_COUNT; i++) {
        if (scope_holds(scopes, (enum scope)i))
            buffer_printf(&text, "%s%s", text.length ? " " : "", scope_name((enum scope)i));
    }
    assert(!text.failed);
    json_put_string(writer, "scope", buffer_span(&text));
}

static void put_payload(struct buffer *out, const struct token_request *request, scope_set scopes,
                        enum clearance clearance, int64_t now)
{
    uint8_t jti[JTI_BYTES];
    char jti_text[2 * JTI_BYTES + 1];
    crypt_random(jti, sizeof jti);
    hex_encode(jti_text, SPAN_OF(jti));
    struct json_writer writer = json_writer_on(out);
    json_open_object(&writer, NULL);
    json_put_text(&writer, "iss", TOKEN_BUILTIN_ISSUER);
    json_put_text(&writer, "aud", TOKEN_AUDIENCE);
    json_put_string(&writer, "sub", request->user);
    json_put_string(&writer, "tenant_id", request->tenant);
    json_put_integer(&writer, "iat", now);
    json_put_integer(&writer, "exp", now + request->ttl_seconds);
    json_put_text(&writer, "jti", jti_text);
    if (scopes)
        put_scopes(&writer, scopes);
    if (request->clearance.length)
        json_put_text(&writer, "clearance", clearance_name(clearance));
    if (request->agent.length) {
        json_open_object(&writer, "act");
        json_put_string(&writer, "sub", request->agent);
        json_close_object(&writer);
    }
    json_close_object(&writer);
}

status token_body_put(struct buffer *out, const struct token_request *request, const char *key_id,
                      int64_t now, struct fault *fault)
{
    scope_set scopes = 0;
    enum clearance clearance = CLEARANCE_INTERNAL;
    TRY(check_request(&scopes, &clearance, request, fault));
    uint8_t header_storage[KIB(1)], payload_storage[BODY_MAX];
    struct buffer header = buffer_over(header_storage, sizeof header_storage);
    struct buffer payload = buffer_over(payload_storage, sizeof payload_storage);
    put_header(&header, key_id);
    put_payload(&payload, request, scopes, clearance, now);
    TRY(buffer_check(&header, "token header", fault));
    TRY(buffer_check(&payload, "token payload", fault));
    base64url_put(out, buffer_span(&header));
    buffer_put_u8(out, '.');
    base64url_put(out, buffer_span(&payload));
    return buffer_check(out, "token", fault);
}

void token_signature_put(struct buffer *out, const uint8_t signature[SIGNATURE_BYTES])
{
    buffer_put_u8(out, '.');
    base64url_put(out, (struct span){signature, SIGNATURE_BYTES});
}
