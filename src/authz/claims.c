#include "authz/claims.h"

#include "base/hex.h"

/* The last second of the year 9999: no sum of two times overflows. */
static const int64_t DATE_MAX = 253402300799;

bool principal_is_valid(struct span text)
{
    return text.length >= 1 && text.length <= USER_MAX && span_is_plain_text(text);
}

static bool has_form_of_id(struct span text)
{
    uint8_t id[TENANT_ID_BYTES];
    struct fault unused;
    return hex_decode(id, sizeof id, text, "tenant", &unused) == OK;
}

bool claims_tenant_is_platform(struct span text)
{
    return span_is(text, "00000000000000000000000000000000");
}

bool claims_tenant_is_id(struct span text)
{
    return has_form_of_id(text) && !claims_tenant_is_platform(text);
}

static bool is_label_character(uint8_t byte)
{
    return (byte >= 'a' && byte <= 'z') || (byte >= '0' && byte <= '9') || byte == '-';
}

bool claims_tenant_is_label(struct span text)
{
    if (text.length < 1 || text.length > TENANT_NAME_MAX)
        return false;
    for (size_t i = 0; i < text.length; i++)
        if (!is_label_character(text.data[i]))
            return false;
    return text.data[0] != '-' && text.data[text.length - 1] != '-';
}

bool claims_tenant_is_name(struct span text)
{
    return claims_tenant_is_label(text) && !has_form_of_id(text);
}

static const struct span *text_member(const struct json *object, const char *name)
{
    const struct json *value = json_member(object, name);
    return value && value->kind == JSON_STRING ? &value->string : NULL;
}

/* An array of at most max texts of 1..size plain bytes each. */
static bool is_text_array(const struct json *value, uint32_t max, size_t size)
{
    if (value->kind != JSON_ARRAY || value->count > max)
        return false;
    for (uint32_t i = 0; i < value->count; i++) {
        const struct json *item = &value->items[i];
        if (item->kind != JSON_STRING || item->string.length < 1 || item->string.length > size
            || !span_is_plain_text(item->string))
            return false;
    }
    return true;
}

static bool is_for(const struct json *payload, const char *audience)
{
    const struct json *aud = json_member(payload, "aud");
    if (aud && aud->kind == JSON_STRING)
        return span_is(aud->string, audience);
    if (!aud || !is_text_array(aud, TOKEN_AUDIENCES_MAX, TOKEN_ISS_MAX))
        return false;
    for (uint32_t i = 0; i < aud->count; i++)
        if (span_is(aud->items[i].string, audience))
            return true;
    return false;
}

/* A NumericDate (RFC 7519 section 2); a fraction of a second is cut off, or rounded up. False also
 * when it is not there. */
static bool read_date(int64_t *ret, const struct json *value, bool up)
{
    if (!value)
        return false;
    int64_t date = 0;
    if (value->kind == JSON_INTEGER) {
        date = value->integer;
    } else if (value->kind == JSON_DOUBLE && value->number > 0
               && value->number < (double)DATE_MAX) {
        date = (int64_t)value->number;
        date += up && (double)date < value->number;
    }
    if (date < 1 || date > DATE_MAX)
        return false;
    *ret = date;
    return true;
}

static bool read_optional_date(int64_t *ret, const struct json *payload, const char *name, bool up)
{
    const struct json *value = json_member(payload, name);
    return !value || read_date(ret, value, up);
}

bool claims_current(const struct claims *claims, int64_t now, enum token_reason *reason)
{
    *reason = now >= claims->usable_until ? TOKEN_EXPIRED
            : now < claims->usable_from   ? TOKEN_NOT_YET
                                          : TOKEN_ACCEPTED;
    return *reason == TOKEN_ACCEPTED;
}

static enum token_reason read_times(struct claims *ret, const struct json *payload,
                                    const struct token_issuer *issuer, int64_t now)
{
    int64_t not_before = 0;
    if (!read_date(&ret->expires_at, json_member(payload, "exp"), false)
        || !read_optional_date(&not_before, payload, "nbf", true)
        || !read_optional_date(&ret->issued_at, payload, "iat", false)
        || ret->expires_at <= ret->issued_at)
        return TOKEN_BAD_TIME;
    int64_t from = not_before > ret->issued_at ? not_before : ret->issued_at;
    ret->usable_from = from - issuer->early_seconds;
    ret->usable_until = ret->expires_at + issuer->late_seconds;
    ret->issuer_early_seconds = issuer->early_seconds;
    enum token_reason reason;
    if (!claims_current(ret, now, &reason))
        return reason;
    /* A token that hides its age is measured from now on. */
    int64_t born = ret->issued_at ? ret->issued_at : now;
    return ret->expires_at - born > issuer->lifetime_max_seconds ? TOKEN_TOO_LONG_LIVED
                                                                 : TOKEN_ACCEPTED;
}

static bool read_principal(char ret[USER_MAX + 1], const struct json *object, const char *name)
{
    const struct span *user = text_member(object, name);
    return user && principal_is_valid(*user) && span_to_text(ret, USER_MAX + 1, *user);
}

/* The outermost act is who acts now, those inside it who acted before (RFC 8693 section 4.1). */
static bool read_actors(char agent[USER_MAX + 1], const struct json *payload)
{
    const struct json *act = json_member(payload, "act");
    for (int depth = 0; act; depth++, act = json_member(act, "act")) {
        char former[USER_MAX + 1];
        if (depth == TOKEN_ACTORS_MAX || act->kind != JSON_OBJECT
            || !read_principal(depth == 0 ? agent : former, act, "sub"))
            return false;
    }
    return true;
}

static bool read_tenant(struct claims *ret, const struct json *payload,
                        const struct token_issuer *issuer)
{
    const struct span *tenant = text_member(payload, issuer->tenant_claim);
    if (!tenant)
        return false;
    if (claims_tenant_is_platform(*tenant)) { /* nobody else's word for it */
        ret->platform = issuer->builtin;
        return issuer->builtin;
    }
    ret->tenant_is_id = claims_tenant_is_id(*tenant);
    if (!ret->tenant_is_id && !claims_tenant_is_name(*tenant))
        return false;
    if (ret->tenant_is_id && issuer->tenant[0] && !span_is(*tenant, issuer->tenant))
        return false;
    return span_to_text(ret->tenant, sizeof ret->tenant, *tenant)
        && span_to_text(ret->issuer_tenant, sizeof ret->issuer_tenant,
                        span_of_text(issuer->tenant));
}

/* An array of scopes (Okta's `scp`): one name an item. */
static bool read_scope_array(scope_set *ret, const struct json *array)
{
    struct fault unused;
    size_t length = 0;
    if (array->kind != JSON_ARRAY)
        return false;
    for (uint32_t i = 0; i < array->count; i++) {
        const struct json *item = &array->items[i];
        scope_set one;
        if (item->kind != JSON_STRING || span_find(item->string, ' ') < item->string.length
            || scope_set_read(&one, item->string, &unused))
            return false;
        length += item->string.length + (i > 0);
        if (length > TOKEN_SCOPES_MAX)
            return false;
        *ret |= one;
    }
    return true;
}

static bool read_scopes(struct claims *ret, const struct json *payload, const char *name)
{
    const struct json *scope = json_member(payload, name);
    struct fault unused;
    if (scope && (scope->kind == JSON_STRING
                      ? scope_set_read(&ret->scopes, scope->string, &unused) != OK
                      : !read_scope_array(&ret->scopes, scope)))
        return false;
    const scope_set platform = SCOPE_SET(SCOPE_ROUTES_READ);
    ret->scopes &= ret->platform ? platform : ~platform;
    return true;
}

static bool read_clearance(struct claims *ret, const struct json *payload, const char *name)
{
    const struct json *clearance = json_member(payload, name);
    struct fault unused;
    ret->clearance = CLEARANCE_INTERNAL;
    ret->clearance_given = clearance != NULL;
    return !clearance
        || (clearance->kind == JSON_STRING
            && clearance_read(&ret->clearance, clearance->string, "clearance", &unused) == OK);
}

static bool read_jti(uint8_t ret[HASH_BYTES], const struct json *payload, bool required)
{
    const struct json *jti = json_member(payload, "jti");
    if (!jti)
        return !required;
    if (jti->kind != JSON_STRING || jti->string.length < 1 || jti->string.length > TOKEN_JTI_MAX)
        return false;
    hash(ret, jti->string);
    return true;
}

static bool roles_are_sound(const struct json *payload)
{
    const struct json *roles = json_member(payload, "roles");
    return !roles || is_text_array(roles, TOKEN_ROLES_MAX, TOKEN_ROLE_MAX);
}

enum token_reason claims_read(struct claims *ret, const struct json *payload,
                              const struct token_issuer *issuer, int64_t now)
{
    struct claims claims = {0};
    if (!is_for(payload, issuer->aud))
        return TOKEN_BAD_AUD;
    enum token_reason reason = read_times(&claims, payload, issuer, now);
    if (reason != TOKEN_ACCEPTED)
        return reason;
    if (!read_principal(claims.user, payload, issuer->user_claim))
        return TOKEN_BAD_SUB;
    if (!read_actors(claims.agent, payload))
        return TOKEN_BAD_ACT;
    if (!read_tenant(&claims, payload, issuer))
        return TOKEN_BAD_TENANT;
    if (!read_scopes(&claims, payload, issuer->scope_claim))
        return TOKEN_BAD_SCOPE;
    if (!read_clearance(&claims, payload, issuer->clearance_claim))
        return TOKEN_BAD_CLEARANCE;
    claims.jti_once = issuer->jti_once;
    if (!read_jti(claims.jti, payload, issuer->jti_once))
        return TOKEN_BAD_JTI;
    if (!roles_are_sound(payload))
        return TOKEN_BAD_ROLES;
    *ret = claims;
    return TOKEN_ACCEPTED;
}
