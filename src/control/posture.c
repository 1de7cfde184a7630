/* posture.c: a tenant's posture as operators say it and read it. */
#include "control/control.h"

const char *const posture_wish_members[] = {
    "name", "tier", "region", "retention_days", "audit", "clearance_required",
    "token_lifetime_seconds", "quotas", "sandbox", NULL,
};

/* ---- what is wished ---- */

static status read_tier(struct posture_wish *wish, const struct json *arguments,
                        struct fault *fault)
{
    struct span tier = {0};
    TRY(json_optional_text(&tier, arguments, "tier", 1, 32, fault));
    wish->has_tier = tier.data != NULL;
    return wish->has_tier ? tier_read(&wish->tier, tier, fault) : OK;
}

/* An empty region takes the label away. */
static status read_region(struct posture_wish *wish, const struct json *arguments,
                          struct fault *fault)
{
    struct span region = {0};
    TRY(json_optional_text(&region, arguments, "region", 0, TENANT_NAME_MAX, fault));
    wish->has_region = region.data != NULL;
    if (!span_to_text(wish->region, sizeof wish->region, region))
        return FAIL(BAD_FIELD, fault, "region: at most %d characters", TENANT_NAME_MAX);
    return OK;
}

static status read_audit(struct posture_wish *wish, const struct json *arguments,
                         struct fault *fault)
{
    struct span audit = {0};
    TRY(json_optional_text(&audit, arguments, "audit", 1, 32, fault));
    wish->has_audit = audit.data != NULL;
    if (wish->has_audit && !span_is(audit, "strict") && !span_is(audit, "standard"))
        return FAIL(BAD_FIELD, fault, "audit: must be strict or standard");
    wish->audit_strict = span_is(audit, "strict");
    return OK;
}

static status read_numbers(struct posture_wish *wish, const struct json *arguments,
                           struct fault *fault)
{
    int64_t days = -1, lifetime = -1;
    TRY(json_optional_integer(&days, arguments, "retention_days", 0, RETENTION_DAYS_MAX, fault));
    TRY(json_optional_integer(&lifetime, arguments, "token_lifetime_seconds", 0,
                              TOKEN_LIFETIME_MAX_SECONDS, fault));
    wish->has_retention = days >= 0;
    wish->retention_days = days >= 0 ? (uint32_t)days : 0;
    wish->has_lifetime = lifetime >= 0;
    wish->token_lifetime_max_seconds = lifetime;
    return OK;
}

static status read_clearance(struct posture_wish *wish, const struct json *arguments,
                             struct fault *fault)
{
    const struct json *given = json_member(arguments, "clearance_required");
    wish->has_clearance = given && given->kind != JSON_NULL;
    return json_optional_bool(&wish->clearance_required, arguments, "clearance_required", fault);
}

static status read_sandbox(struct posture_wish *wish, const struct json *arguments,
                           struct fault *fault)
{
    struct span sandbox = {0};
    TRY(json_optional_text(&sandbox, arguments, "sandbox", 1, 32, fault));
    wish->has_sandbox = sandbox.data != NULL;
    return wish->has_sandbox ? sandbox_tier_of(&wish->sandbox, sandbox, "sandbox", fault) : OK;
}

/* Tried on quotas that are thrown away, so that an unknown name is found here. */
static status read_quotas(struct posture_wish *wish, const struct json *arguments,
                          struct fault *fault)
{
    const struct json *quotas = json_member(arguments, "quotas");
    struct quotas trial = {0};
    if (!quotas || quotas->kind == JSON_NULL)
        return OK;
    TRY(json_need_object(quotas, "quotas", fault));
    for (uint32_t i = 0; i < quotas->count; i++) {
        const struct json *quota = &quotas->items[i];
        if (quota->kind != JSON_INTEGER || quota->integer < 0)
            return FAIL(BAD_FIELD, fault, "quota %.*s: must be a whole number, 0 for none",
                        (int)(quota->name.length < 40 ? quota->name.length : 40),
                        (const char *)quota->name.data);
        TRY(quota_set(&trial, quota->name, (uint64_t)quota->integer, fault));
        struct quota_wish *kept = &wish->quotas[wish->quota_count];
        if (wish->quota_count == sizeof wish->quotas / sizeof *wish->quotas
            || !span_to_text(kept->name, sizeof kept->name, quota->name))
            return FAIL(BAD_FIELD, fault, "quotas: too many");
        kept->value = (uint64_t)quota->integer;
        wish->quota_count++;
    }
    return OK;
}

status posture_wish_read(struct posture_wish *ret, const struct json *arguments,
                         struct fault *fault)
{
    struct posture_wish wish = {0};
    TRY(read_tier(&wish, arguments, fault));
    TRY(read_region(&wish, arguments, fault));
    TRY(read_audit(&wish, arguments, fault));
    TRY(read_numbers(&wish, arguments, fault));
    TRY(read_clearance(&wish, arguments, fault));
    TRY(read_sandbox(&wish, arguments, fault));
    TRY(read_quotas(&wish, arguments, fault));
    *ret = wish;
    return OK;
}

/* What the tier demands holds from here on, what was stricter stays. */
static void raise(struct posture *posture)
{
    const struct posture floor = posture_defaults(TIER_REGULATED);
    int64_t cap = floor.token_lifetime_max_seconds;
    posture->tier = TIER_REGULATED;
    posture->sandbox = floor.sandbox;
    posture->audit_strict = posture->audit_strict || floor.audit_strict;
    posture->clearance_required = posture->clearance_required || floor.clearance_required;
    if (posture->token_lifetime_max_seconds == 0 || posture->token_lifetime_max_seconds > cap)
        posture->token_lifetime_max_seconds = cap;
}

static status set_quotas(struct posture *posture, const struct posture_wish *wish,
                         struct fault *fault)
{
    for (uint32_t i = 0; i < wish->quota_count; i++)
        TRY(quota_set(&posture->quotas, span_of_text(wish->quotas[i].name), wish->quotas[i].value,
                      fault));
    return OK;
}

status posture_wish_apply(struct posture *posture, const struct posture_wish *wish,
                          struct fault *fault)
{
    struct posture next = *posture;
    if (wish->has_tier && wish->tier < next.tier)
        return FAIL(CONFLICT, fault, "a tier can be raised, not lowered");
    if (wish->has_tier && wish->tier > next.tier)
        raise(&next);
    if (wish->has_region && !span_to_text(next.region, sizeof next.region,
                                          span_of_text(wish->region)))
        return FAIL(BAD_FIELD, fault, "region: at most %d characters", TENANT_NAME_MAX);
    if (wish->has_retention)
        next.retention_days = wish->retention_days;
    if (wish->has_audit)
        next.audit_strict = wish->audit_strict;
    if (wish->has_clearance)
        next.clearance_required = wish->clearance_required;
    if (wish->has_lifetime)
        next.token_lifetime_max_seconds = wish->token_lifetime_max_seconds;
    if (wish->has_sandbox)
        next.sandbox = wish->sandbox;
    TRY(set_quotas(&next, wish, fault));
    TRY(posture_check(&next, fault));
    *posture = next;
    return OK;
}

/* ---- what is ---- */

enum kind { TEXT, NUMBER, BOOLEAN };

struct value { /* of one member; an absent number or text is null */
    enum kind kind;
    bool absent;
    const char *text;
    int64_t number;
};

static struct value text_value(const char *text)
{
    return (struct value){.kind = TEXT, .absent = !text[0], .text = text};
}

static struct value number_value(uint64_t number, bool zero_is_null)
{
    return (struct value){.kind = NUMBER, .absent = zero_is_null && number == 0,
                          .number = (int64_t)number};
}

static struct value boolean_value(bool truth)
{
    return (struct value){.kind = BOOLEAN, .number = truth};
}

enum { OWN_MEMBERS = 7, QUOTA_MEMBERS = 6, MEMBERS = OWN_MEMBERS + QUOTA_MEMBERS };

static const char *const member_names[MEMBERS] = {
    "tier", "region", "retention_days", "audit", "clearance_required", "token_lifetime_seconds",
    "sandbox", "requests_per_second", "concurrent_requests", "bytes_stored",
    "user_requests_per_second", "sandboxes", "sandbox_memory_mib",
};

static void read_members(struct value ret[MEMBERS], const struct posture *posture)
{
    const struct quotas *quotas = &posture->quotas;
    const struct value values[MEMBERS] = {
        text_value(tier_name(posture->tier)),
        text_value(posture->region),
        number_value(posture->retention_days, true),
        text_value(posture->audit_strict ? "strict" : "standard"),
        boolean_value(posture->clearance_required),
        number_value((uint64_t)posture->token_lifetime_max_seconds, true),
        text_value(posture->sandbox ? sandbox_tier_name(posture->sandbox) : ""),
        number_value(quotas->requests_per_second, false),
        number_value(quotas->concurrent_requests, false),
        number_value(quotas->bytes_stored, false),
        number_value(quotas->user_requests_per_second, false),
        number_value(quotas->sandboxes, false),
        number_value(quotas->sandbox_memory_mib, false),
    };
    for (int i = 0; i < MEMBERS; i++)
        ret[i] = values[i];
}

static void put_value(struct json_writer *writer, const char *name, const struct value *value)
{
    if (value->absent)
        json_put_null(writer, name);
    else if (value->kind == TEXT)
        json_put_text(writer, name, value->text);
    else if (value->kind == NUMBER)
        json_put_integer(writer, name, value->number);
    else
        json_put_bool(writer, name, value->number != 0);
}

void posture_put_json(struct json_writer *writer, const struct posture *posture)
{
    struct value values[MEMBERS];
    read_members(values, posture);
    for (int i = 0; i < OWN_MEMBERS; i++)
        put_value(writer, member_names[i], &values[i]);
    json_open_object(writer, "quotas");
    for (int i = OWN_MEMBERS; i < MEMBERS; i++)
        put_value(writer, member_names[i], &values[i]);
    json_close_object(writer);
}

static bool value_equal(const struct value *left, const struct value *right)
{
    if (left->kind == TEXT)
        return span_is(span_of_text(left->text), right->text);
    return left->number == right->number;
}

bool posture_equal(const struct posture *left, const struct posture *right)
{
    struct value lefts[MEMBERS], rights[MEMBERS];
    read_members(lefts, left);
    read_members(rights, right);
    for (int i = 0; i < MEMBERS; i++)
        if (!value_equal(&lefts[i], &rights[i]))
            return false;
    return true;
}

void posture_put_changes(struct buffer *out, uint64_t sequence, const struct posture *old,
                         const struct posture *new)
{
    struct value before[MEMBERS], after[MEMBERS];
    struct json_writer writer = json_writer_on(out);
    read_members(before, old);
    read_members(after, new);
    json_open_object(&writer, NULL);
    json_put_integer(&writer, "charter_sequence", (int64_t)sequence);
    json_open_object(&writer, "changes");
    for (int i = 0; i < MEMBERS; i++) {
        if (value_equal(&before[i], &after[i]))
            continue;
        json_open_object(&writer, member_names[i]);
        put_value(&writer, "old", &before[i]);
        put_value(&writer, "new", &after[i]);
        json_close_object(&writer);
    }
    json_close_object(&writer);
    json_close_object(&writer);
}
