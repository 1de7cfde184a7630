/* The JSON of a charter; docs/file-formats.md describes it. */
#include "authz/charter.h"

#include "authz/claims.h"
#include "base/hex.h"
#include "wire/base64.h"

#include <stdlib.h>

enum {
    DOCUMENT_VERSION = 1,
    DOCUMENT_PARSED_MAX = MIB(2), /* JSON_MEMBERS_MAX values and what the parser needs for them */
};

static const int64_t DATE_MAX = 253402300799; /* the year 9999 */

static const char *const tier_names[] = {
    [TIER_STANDARD] = "standard",
    [TIER_REGULATED] = "regulated",
};

static const struct {
    const char *name;
    size_t offset;
    uint64_t initial; /* of a tenant that is created, and where an older document is silent */
    bool later;       /* documents from before it was do not have it, and remain what they are */
} quota_members[] = {
    {"requests_per_second", offsetof(struct quotas, requests_per_second), 1000, false},
    {"concurrent_requests", offsetof(struct quotas, concurrent_requests), 256, false},
    {"bytes_stored", offsetof(struct quotas, bytes_stored), 10ull << 30, false},
    {"user_requests_per_second", offsetof(struct quotas, user_requests_per_second), 0, false},
    {"sandboxes", offsetof(struct quotas, sandboxes), TENANT_SANDBOXES_DEFAULT, true},
    {"sandbox_memory_mib", offsetof(struct quotas, sandbox_memory_mib),
     TENANT_SANDBOX_MEMORY_MIB_DEFAULT, true},
};
enum { QUOTA_COUNT = sizeof quota_members / sizeof quota_members[0] };

const char *tier_name(enum tier tier)
{
    return (unsigned)tier <= TIER_REGULATED ? tier_names[tier] : "unknown";
}

status tier_read(enum tier *ret, struct span text, struct fault *fault)
{
    for (unsigned i = 0; i <= TIER_REGULATED; i++) {
        if (span_is(text, tier_names[i])) {
            *ret = (enum tier)i;
            return OK;
        }
    }
    return FAIL(BAD_FIELD, fault, "tier: standard or regulated");
}

/* ---- posture ---- */

static uint64_t *quota_at(struct quotas *quotas, size_t member)
{
    return (uint64_t *)((char *)quotas + quota_members[member].offset);
}

struct posture posture_defaults(enum tier tier)
{
    struct posture posture = {
        .tier = tier,
        .audit_strict = tier == TIER_REGULATED,
        .clearance_required = tier == TIER_REGULATED,
        .sandbox = tier == TIER_REGULATED ? SANDBOX_MICROVM : SANDBOX_GVISOR,
        .token_lifetime_max_seconds = tier == TIER_REGULATED ? 300 : 0,
    };
    for (size_t i = 0; i < QUOTA_COUNT; i++)
        *quota_at(&posture.quotas, i) = quota_members[i].initial;
    return posture;
}

static uint64_t quota_value(const struct quotas *quotas, size_t member)
{
    return *(const uint64_t *)((const char *)quotas + quota_members[member].offset);
}

status quota_set(struct quotas *quotas, struct span name, uint64_t value, struct fault *fault)
{
    for (size_t i = 0; i < QUOTA_COUNT; i++) {
        if (!span_is(name, quota_members[i].name))
            continue;
        if (value > QUOTA_MAX)
            return FAIL(BAD_FIELD, fault, "%s: 0 to %lld", quota_members[i].name, QUOTA_MAX);
        *quota_at(quotas, i) = value;
        return OK;
    }
    return FAIL(BAD_FIELD, fault, "quota: requests_per_second, concurrent_requests, bytes_stored, "
                "user_requests_per_second, sandboxes or sandbox_memory_mib");
}

/* The bytes of a fixed array up to its NUL; no NUL: longer than may be. */
static struct span text_in(const char *text, size_t size)
{
    size_t length = 0;
    while (length < size && text[length])
        length++;
    return (struct span){(const uint8_t *)text, length};
}

#define TEXT_IN(array) text_in(array, sizeof(array))

static status check_regulated(const struct posture *posture, struct fault *fault)
{
    if (!posture->audit_strict)
        return FAIL(BAD_FIELD, fault, "audit_strict: a regulated tenant's audit is strict");
    if (!posture->clearance_required)
        return FAIL(BAD_FIELD, fault, "clearance_required: a regulated tenant requires it");
    if (posture->token_lifetime_max_seconds < 1 || posture->token_lifetime_max_seconds > 300)
        return FAIL(BAD_FIELD, fault,
                    "token_lifetime_max_seconds: 1 to 300 for a regulated tenant");
    if (posture->retention_days < 1)
        return FAIL(BAD_FIELD, fault, "retention_days: must be set for a regulated tenant");
    if (posture->sandbox != SANDBOX_MICROVM)
        return FAIL(BAD_FIELD, fault, "sandbox: a regulated tenant's code runs in a microvm");
    return OK;
}

status posture_check(const struct posture *posture, struct fault *fault)
{
    struct span region = TEXT_IN(posture->region);
    if ((unsigned)posture->tier > TIER_REGULATED)
        return FAIL(BAD_FIELD, fault, "tier: standard or regulated");
    if (region.length && !claims_tenant_is_label(region))
        return FAIL(BAD_FIELD, fault, "region: a label of at most %d of a-z, 0-9 and -, or empty",
                    TENANT_NAME_MAX);
    if (posture->retention_days > RETENTION_DAYS_MAX)
        return FAIL(BAD_FIELD, fault, "retention_days: 0 to %d", RETENTION_DAYS_MAX);
    if (posture->token_lifetime_max_seconds < 0
        || posture->token_lifetime_max_seconds > TOKEN_LIFETIME_MAX_SECONDS)
        return FAIL(BAD_FIELD, fault, "token_lifetime_max_seconds: 0 to %d",
                    TOKEN_LIFETIME_MAX_SECONDS);
    if (posture->sandbox < SANDBOX_CONTAINER || posture->sandbox > SANDBOX_MICROVM)
        return FAIL(BAD_FIELD, fault, "sandbox: must be container, gvisor or microvm");
    for (size_t i = 0; i < QUOTA_COUNT; i++)
        if (quota_value(&posture->quotas, i) > QUOTA_MAX)
            return FAIL(BAD_FIELD, fault, "%s: 0 to %lld", quota_members[i].name, QUOTA_MAX);
    return posture->tier == TIER_REGULATED ? check_regulated(posture, fault) : OK;
}

/* ---- what reader and writer both demand ---- */

static status check_named_posture(const struct posture *posture, struct fault *fault)
{
    if (!claims_tenant_is_name(TEXT_IN(posture->name)))
        return FAIL(BAD_FIELD, fault, "name: a label of at most %d of a-z, 0-9 and -",
                    TENANT_NAME_MAX);
    if (posture->created_at_us < 1 || posture->created_at_us / 1000000 > DATE_MAX)
        return FAIL(BAD_FIELD, fault, "created_at_us: microseconds since 1970");
    return posture_check(posture, fault);
}

static status check_issuers(const struct charter *charter, struct fault *fault)
{
    char tenant[TENANT_ID_TEXT] = "";
    if (!charter_is_platform(charter))
        hex_encode(tenant, SPAN_OF(charter->id));
    if (charter->issuer_count > CHARTER_ISSUERS_MAX)
        return FAIL(TOO_LARGE, fault, "issuers: at most %d: remove one", CHARTER_ISSUERS_MAX);
    for (uint32_t i = 0; i < charter->issuer_count; i++) {
        const struct token_issuer *issuer = &charter->issuers[i];
        TRY(token_issuer_check(issuer, fault));
        if (issuer->builtin || span_is(span_of_text(issuer->iss), TOKEN_BUILTIN_ISSUER))
            return FAIL(BAD_FIELD, fault, "iss: \"%s\" is the built-in issuer",
                        TOKEN_BUILTIN_ISSUER);
        if (!span_is(span_of_text(issuer->tenant), tenant))
            return FAIL(BAD_FIELD, fault, "issuer: of another scope than its charter");
        for (uint32_t j = 0; j < i; j++)
            if (span_is(span_of_text(issuer->iss), charter->issuers[j].iss))
                return FAIL(BAD_FIELD, fault, "iss: two issuers share one");
    }
    return OK;
}

static status check_charter(const struct charter *charter, struct fault *fault)
{
    if (charter->sequence < 1 || charter->sequence > QUOTA_MAX)
        return FAIL(BAD_FIELD, fault, "sequence: from 1");
    if (charter->issued_at < 1 || charter->issued_at > DATE_MAX)
        return FAIL(BAD_FIELD, fault, "issued_at: seconds since 1970");
    if (!charter_is_platform(charter))
        TRY(check_named_posture(&charter->posture, fault));
    TRY(check_issuers(charter, fault));
    if (charter->jti_count > CHARTER_REVOCATIONS_MAX
        || charter->subject_count > CHARTER_REVOCATIONS_MAX)
        return FAIL(TOO_LARGE, fault, "revocations: at most %d of tokens and of subjects",
                    CHARTER_REVOCATIONS_MAX);
    for (uint32_t i = 0; i < charter->jti_count; i++)
        if (charter->jtis[i].until < 1 || charter->jtis[i].until > DATE_MAX)
            return FAIL(BAD_FIELD, fault, "revoked jti: until when, in seconds since 1970");
    for (uint32_t i = 0; i < charter->subject_count; i++)
        if (!principal_is_valid(TEXT_IN(charter->subjects[i].user))
            || charter->subjects[i].at < 1 || charter->subjects[i].at > DATE_MAX)
            return FAIL(BAD_FIELD, fault, "revoked subject: 1 to %d bytes of text, and when",
                        USER_MAX);
    return OK;
}

/* ---- writing ---- */

static void put_posture(struct json_writer *writer, const struct posture *posture)
{
    json_open_object(writer, "posture");
    json_put_text(writer, "name", posture->name);
    json_put_integer(writer, "created_at_us", posture->created_at_us);
    json_put_text(writer, "tier", tier_name(posture->tier));
    json_put_text(writer, "region", posture->region);
    json_put_integer(writer, "retention_days", posture->retention_days);
    json_put_bool(writer, "audit_strict", posture->audit_strict);
    json_put_bool(writer, "clearance_required", posture->clearance_required);
    json_put_integer(writer, "token_lifetime_max_seconds", posture->token_lifetime_max_seconds);
    json_open_object(writer, "quotas");
    for (size_t i = 0; i < QUOTA_COUNT; i++)
        json_put_integer(writer, quota_members[i].name,
                         (int64_t)quota_value(&posture->quotas, i));
    json_close_object(writer);
    json_put_integer(writer, "key_version", posture->key_version);
    json_put_text(writer, "sandbox", sandbox_tier_name(posture->sandbox));
    json_close_object(writer);
}

static void put_base64url(struct json_writer *writer, const char *name, struct span bytes)
{
    uint8_t storage[KIB(1)];
    struct buffer text = buffer_over(storage, sizeof storage);
    static_assert(TOKEN_KEY_BYTES_MAX * 4 / 3 + 4 <= sizeof storage, "the largest key fits");
    base64url_put(&text, bytes);
    json_put_string(writer, name, buffer_span(&text));
}

static void put_issuer(struct json_writer *writer, const struct token_issuer *issuer)
{
    json_open_object(writer, NULL);
    json_put_text(writer, "iss", issuer->iss);
    json_put_text(writer, "aud", issuer->aud);
    json_put_text(writer, "tenant_claim", issuer->tenant_claim);
    json_put_text(writer, "user_claim", issuer->user_claim);
    json_put_text(writer, "scope_claim", issuer->scope_claim);
    json_put_text(writer, "clearance_claim", issuer->clearance_claim);
    json_put_bool(writer, "jti_once", issuer->jti_once);
    json_put_integer(writer, "lifetime_max_seconds", issuer->lifetime_max_seconds);
    json_put_integer(writer, "early_seconds", issuer->early_seconds);
    json_put_integer(writer, "late_seconds", issuer->late_seconds);
    json_open_array(writer, "keys");
    for (uint32_t i = 0; i < issuer->key_count; i++) {
        const struct token_key *key = &issuer->keys[i];
        json_open_object(writer, NULL);
        json_put_text(writer, "kid", key->id);
        json_put_text(writer, "alg", token_alg_name(key->alg));
        put_base64url(writer, "key", (struct span){key->public_key, key->length});
        json_close_object(writer);
    }
    json_close_array(writer);
    json_close_object(writer);
}

/* By hash; of the same one the later first. */
static int order_jtis(const void *left, const void *right)
{
    const struct revoked_jti *a = left, *b = right;
    int order = span_compare(SPAN_OF(a->hash), SPAN_OF(b->hash));
    return order ? order : (a->until < b->until) - (a->until > b->until);
}

static int order_subjects(const void *left, const void *right)
{
    const struct revoked_subject *a = left, *b = right;
    int order = span_compare(span_of_text(a->user), span_of_text(b->user));
    return order ? order : (a->at < b->at) - (a->at > b->at);
}

static status put_jtis(struct json_writer *writer, const struct charter *charter,
                       struct fault *fault)
{
    struct revoked_jti *sorted = calloc(charter->jti_count + 1, sizeof *sorted);
    if (!sorted)
        return FAIL(INTERNAL, fault, "charter: out of memory");
    for (uint32_t i = 0; i < charter->jti_count; i++)
        sorted[i] = charter->jtis[i];
    qsort(sorted, charter->jti_count, sizeof *sorted, order_jtis);
    json_open_array(writer, "jtis");
    for (uint32_t i = 0; i < charter->jti_count; i++) {
        if (i && span_equal(SPAN_OF(sorted[i].hash), SPAN_OF(sorted[i - 1].hash)))
            continue;
        json_open_array(writer, NULL);
        put_base64url(writer, NULL, SPAN_OF(sorted[i].hash));
        json_put_integer(writer, NULL, sorted[i].until);
        json_close_array(writer);
    }
    json_close_array(writer);
    free(sorted);
    return OK;
}

static status put_subjects(struct json_writer *writer, const struct charter *charter,
                           struct fault *fault)
{
    struct revoked_subject *sorted = calloc(charter->subject_count + 1, sizeof *sorted);
    if (!sorted)
        return FAIL(INTERNAL, fault, "charter: out of memory");
    for (uint32_t i = 0; i < charter->subject_count; i++)
        sorted[i] = charter->subjects[i];
    qsort(sorted, charter->subject_count, sizeof *sorted, order_subjects);
    json_open_array(writer, "subjects");
    for (uint32_t i = 0; i < charter->subject_count; i++) {
        if (i && span_is(span_of_text(sorted[i].user), sorted[i - 1].user))
            continue;
        json_open_array(writer, NULL);
        json_put_text(writer, NULL, sorted[i].user);
        json_put_integer(writer, NULL, sorted[i].at);
        json_close_array(writer);
    }
    json_close_array(writer);
    free(sorted);
    return OK;
}

static status put_document(struct buffer *out, const struct charter *charter, struct fault *fault)
{
    char id[TENANT_ID_TEXT];
    hex_encode(id, SPAN_OF(charter->id));
    struct json_writer writer = json_writer_on(out);
    json_open_object(&writer, NULL);
    json_put_integer(&writer, "charter", DOCUMENT_VERSION);
    json_put_text(&writer, "id", id);
    json_put_integer(&writer, "sequence", (int64_t)charter->sequence);
    json_put_integer(&writer, "issued_at", charter->issued_at);
    if (!charter_is_platform(charter))
        put_posture(&writer, &charter->posture);
    json_open_array(&writer, "issuers");
    for (uint32_t i = 0; i < charter->issuer_count; i++)
        put_issuer(&writer, &charter->issuers[i]);
    json_close_array(&writer);
    json_open_object(&writer, "revoked");
    TRY(put_jtis(&writer, charter, fault));
    TRY(put_subjects(&writer, charter, fault));
    json_close_object(&writer);
    json_close_object(&writer);
    return OK;
}

status charter_put(struct buffer *out, const struct charter *charter, struct fault *fault)
{
    TRY(check_charter(charter, fault));
    _cleanup_buffer_ struct buffer document = buffer_of(CHARTER_MAX);
    TRY(put_document(&document, charter, fault));
    if (document.failed)
        return FAIL(TOO_LARGE, fault, "charter: over %d bytes: remove an issuer or a key, or wait "
                    "until revocations have run out", CHARTER_MAX);
    buffer_put(out, buffer_span(&document));
    return buffer_check(out, "charter", fault);
}

/* ---- reading ---- */

static status need(const struct json **ret, const struct json *object, const char *name,
                   enum json_kind kind, struct fault *fault)
{
    const struct json *member = json_member(object, name);
    if (!member || member->kind != kind)
        return FAIL(BAD_FIELD, fault, "%s: is missing or of another kind", name);
    *ret = member;
    return OK;
}

static status need_integer(int64_t *ret, const struct json *object, const char *name, int64_t min,
                           int64_t max, struct fault *fault)
{
    const struct json *member;
    TRY(need(&member, object, name, JSON_INTEGER, fault));
    return json_optional_integer(ret, object, name, min, max, fault);
}

static status need_bool(bool *ret, const struct json *object, const char *name,
                        struct fault *fault)
{
    const struct json *member = json_member(object, name);
    if (!member || (member->kind != JSON_TRUE && member->kind != JSON_FALSE))
        return FAIL(BAD_FIELD, fault, "%s: must be true or false", name);
    *ret = member->kind == JSON_TRUE;
    return OK;
}

static status need_text(char *ret, size_t size, const struct json *object, const char *name,
                        struct fault *fault)
{
    struct span text;
    TRY(json_text(&text, object, name, 0, size - 1, fault));
    if (!span_to_text(ret, size, text))
        return FAIL(BAD_FIELD, fault, "%s: at most %zu bytes of text", name, size - 1);
    return OK;
}

#define NEED_TEXT(array, object, name) TRY(need_text(array, sizeof(array), object, name, fault))

/* Exactly these members. */
static status need_members(const struct json *object, const char *what, const char *const *names,
                           struct fault *fault)
{
    uint32_t count = 0;
    TRY(json_need_object(object, what, fault));
    TRY(json_only(object, names, fault));
    while (names[count])
        count++;
    if (object->count != count)
        return FAIL(BAD_FIELD, fault, "%s: a member is missing", what);
    return OK;
}

static status read_base64url(struct buffer *ret, const struct json *value, const char *name,
                             struct fault *fault)
{
    if (value->kind != JSON_STRING)
        return FAIL(BAD_FIELD, fault, "%s: must be a string", name);
    TRY(base64url_decode(ret, value->string, name, fault));
    if (ret->failed)
        return FAIL(BAD_FIELD, fault, "%s: too long", name);
    return OK;
}

static status read_quotas(struct quotas *ret, const struct json *object, struct fault *fault)
{
    const char *names[QUOTA_COUNT + 1] = {NULL};
    size_t count = 0;
    TRY(json_need_object(object, "quotas", fault));
    for (size_t i = 0; i < QUOTA_COUNT; i++)
        if (!quota_members[i].later || json_member(object, quota_members[i].name))
            names[count++] = quota_members[i].name;
    TRY(need_members(object, "quotas", names, fault));
    for (size_t i = 0; i < QUOTA_COUNT; i++) {
        int64_t value = (int64_t)quota_members[i].initial;
        if (!quota_members[i].later || json_member(object, quota_members[i].name))
            TRY(need_integer(&value, object, quota_members[i].name, 0, QUOTA_MAX, fault));
        *quota_at(ret, i) = (uint64_t)value;
    }
    return OK;
}

/* Documents that were signed before data keys were rotated do not have it, and remain what they
 * are. */
static status read_key_version(uint32_t *ret, const struct json *object, struct fault *fault)
{
    int64_t version = 0;
    if (json_member(object, "key_version"))
        TRY(need_integer(&version, object, "key_version", 0, UINT32_MAX, fault));
    *ret = (uint32_t)version;
    return OK;
}

/* The same of those from before there were sandboxes. */
static status read_sandbox(enum sandbox_tier *ret, const struct json *object, enum tier tier,
                           struct fault *fault)
{
    const struct json *sandbox;
    *ret = posture_defaults(tier).sandbox;
    if (!json_member(object, "sandbox"))
        return OK;
    TRY(need(&sandbox, object, "sandbox", JSON_STRING, fault));
    return sandbox_tier_of(ret, sandbox->string, "sandbox", fault);
}

static status check_posture_members(const struct json *object, struct fault *fault)
{
    static const char *const later[] = {"key_version", "sandbox"};
    const char *names[12] = {
        "name", "created_at_us", "tier", "region", "retention_days", "audit_strict",
        "clearance_required", "token_lifetime_max_seconds", "quotas", NULL,
    };
    size_t count = 9;
    TRY(json_need_object(object, "posture", fault));
    for (size_t i = 0; i < sizeof later / sizeof *later; i++)
        if (json_member(object, later[i]))
            names[count++] = later[i];
    return need_members(object, "posture", names, fault);
}

static status read_posture(struct posture *ret, const struct json *object, struct fault *fault)
{
    const struct json *tier;
    int64_t retention = 0;
    TRY(check_posture_members(object, fault));
    TRY(read_key_version(&ret->key_version, object, fault));
    NEED_TEXT(ret->name, object, "name");
    NEED_TEXT(ret->region, object, "region");
    TRY(need_integer(&ret->created_at_us, object, "created_at_us", 1, INT64_MAX, fault));
    TRY(need(&tier, object, "tier", JSON_STRING, fault));
    TRY(tier_read(&ret->tier, tier->string, fault));
    TRY(read_sandbox(&ret->sandbox, object, ret->tier, fault));
    TRY(need_integer(&retention, object, "retention_days", 0, RETENTION_DAYS_MAX, fault));
    ret->retention_days = (uint32_t)retention;
    TRY(need_bool(&ret->audit_strict, object, "audit_strict", fault));
    TRY(need_bool(&ret->clearance_required, object, "clearance_required", fault));
    TRY(need_integer(&ret->token_lifetime_max_seconds, object, "token_lifetime_max_seconds", 0,
                     TOKEN_LIFETIME_MAX_SECONDS, fault));
    return read_quotas(&ret->quotas, json_member(object, "quotas"), fault);
}

static status read_key(struct token_key *ret, const struct json *object, struct fault *fault)
{
    static const char *const names[] = {"kid", "alg", "key", NULL};
    const struct json *alg;
    TRY(need_members(object, "key", names, fault));
    NEED_TEXT(ret->id, object, "kid");
    TRY(need(&alg, object, "alg", JSON_STRING, fault));
    if (!token_alg_named(&ret->alg, alg->string))
        return FAIL(BAD_FIELD, fault, "alg: not one that is supported");
    struct buffer key = buffer_over(ret->public_key, sizeof ret->public_key);
    TRY(read_base64url(&key, json_member(object, "key"), "key", fault));
    ret->length = (uint32_t)key.length;
    return OK;
}

static status read_issuer(struct token_issuer *ret, const struct json *object,
                          const char *tenant, struct fault *fault)
{
    static const char *const names[] = {
        "iss", "aud", "tenant_claim", "user_claim", "scope_claim", "clearance_claim", "jti_once",
        "lifetime_max_seconds", "early_seconds", "late_seconds", "keys", NULL,
    };
    const struct json *keys;
    TRY(need_members(object, "issuer", names, fault));
    NEED_TEXT(ret->iss, object, "iss");
    NEED_TEXT(ret->aud, object, "aud");
    NEED_TEXT(ret->tenant_claim, object, "tenant_claim");
    NEED_TEXT(ret->user_claim, object, "user_claim");
    NEED_TEXT(ret->scope_claim, object, "scope_claim");
    NEED_TEXT(ret->clearance_claim, object, "clearance_claim");
    TRY(need_bool(&ret->jti_once, object, "jti_once", fault));
    TRY(need_integer(&ret->lifetime_max_seconds, object, "lifetime_max_seconds", 1,
                     TOKEN_LIFETIME_MAX_SECONDS, fault));
    TRY(need_integer(&ret->early_seconds, object, "early_seconds", 0, TOKEN_SKEW_SECONDS, fault));
    TRY(need_integer(&ret->late_seconds, object, "late_seconds", 0, TOKEN_SKEW_SECONDS, fault));
    if (!span_to_text(ret->tenant, sizeof ret->tenant, span_of_text(tenant)))
        return FAIL(BAD_FIELD, fault, "tenant: no id");
    TRY(need(&keys, object, "keys", JSON_ARRAY, fault));
    if (keys->count < 1 || keys->count > TOKEN_ISSUER_KEYS_MAX)
        return FAIL(BAD_FIELD, fault, "keys: 1 to %d", TOKEN_ISSUER_KEYS_MAX);
    for (uint32_t i = 0; i < keys->count; i++)
        TRY(read_key(&ret->keys[i], &keys->items[i], fault));
    ret->key_count = keys->count;
    return OK;
}

static status read_issuers(struct charter *charter, const struct json *array, struct fault *fault)
{
    char tenant[TENANT_ID_TEXT] = "";
    if (!charter_is_platform(charter))
        hex_encode(tenant, SPAN_OF(charter->id));
    if (array->count > CHARTER_ISSUERS_MAX)
        return FAIL(BAD_FIELD, fault, "issuers: at most %d", CHARTER_ISSUERS_MAX);
    charter->issuers = calloc(array->count + 1, sizeof *charter->issuers);
    if (!charter->issuers)
        return FAIL(INTERNAL, fault, "charter: out of memory");
    for (uint32_t i = 0; i < array->count; i++)
        TRY(read_issuer(&charter->issuers[i], &array->items[i], tenant, fault));
    charter->issuer_count = array->count;
    return OK;
}

/* [what, seconds] */
static status need_pair(const struct json *value, const char *name, int64_t *ret_seconds,
                        struct fault *fault)
{
    if (value->kind != JSON_ARRAY || value->count != 2 || value->items[0].kind != JSON_STRING
        || value->items[1].kind != JSON_INTEGER)
        return FAIL(BAD_FIELD, fault, "%s: each is a text and a time", name);
    *ret_seconds = value->items[1].integer;
    return OK;
}

static status read_jtis(struct charter *charter, const struct json *array, struct fault *fault)
{
    if (array->count > CHARTER_REVOCATIONS_MAX)
        return FAIL(BAD_FIELD, fault, "jtis: at most %d", CHARTER_REVOCATIONS_MAX);
    charter->jtis = calloc(array->count + 1, sizeof *charter->jtis);
    if (!charter->jtis)
        return FAIL(INTERNAL, fault, "charter: out of memory");
    for (uint32_t i = 0; i < array->count; i++) {
        struct revoked_jti *jti = &charter->jtis[i];
        TRY(need_pair(&array->items[i], "jtis", &jti->until, fault));
        struct buffer hash = buffer_over(jti->hash, sizeof jti->hash);
        TRY(read_base64url(&hash, &array->items[i].items[0], "jtis", fault));
        if (hash.length != sizeof jti->hash)
            return FAIL(BAD_FIELD, fault, "jtis: a hash has %d bytes", REVOKED_JTI_BYTES);
        if (i && span_compare(SPAN_OF(jti[-1].hash), SPAN_OF(jti->hash)) >= 0)
            return FAIL(BAD_FIELD, fault, "jtis: not in order");
    }
    charter->jti_count = array->count;
    return OK;
}

static status read_subjects(struct charter *charter, const struct json *array,
                            struct fault *fault)
{
    if (array->count > CHARTER_REVOCATIONS_MAX)
        return FAIL(BAD_FIELD, fault, "subjects: at most %d", CHARTER_REVOCATIONS_MAX);
    charter->subjects = calloc(array->count + 1, sizeof *charter->subjects);
    if (!charter->subjects)
        return FAIL(INTERNAL, fault, "charter: out of memory");
    for (uint32_t i = 0; i < array->count; i++) {
        struct revoked_subject *subject = &charter->subjects[i];
        TRY(need_pair(&array->items[i], "subjects", &subject->at, fault));
        if (!span_to_text(subject->user, sizeof subject->user, array->items[i].items[0].string))
            return FAIL(BAD_FIELD, fault, "subjects: 1 to %d bytes of text", USER_MAX);
        if (i && span_compare(span_of_text(subject[-1].user), span_of_text(subject->user)) >= 0)
            return FAIL(BAD_FIELD, fault, "subjects: not in order");
    }
    charter->subject_count = array->count;
    return OK;
}

static status read_head(struct charter *charter, const struct json *document, struct fault *fault)
{
    static const char *const platform_names[] = {
        "charter", "id", "sequence", "issued_at", "issuers", "revoked", NULL,
    };
    static const char *const tenant_names[] = {
        "charter", "id", "sequence", "issued_at", "posture", "issuers", "revoked", NULL,
    };
    const struct json *id;
    int64_t version = 0, sequence = 0;
    TRY(json_need_object(document, "charter", fault));
    TRY(need_integer(&version, document, "charter", DOCUMENT_VERSION, DOCUMENT_VERSION, fault));
    TRY(need(&id, document, "id", JSON_STRING, fault));
    TRY(hex_decode(charter->id, sizeof charter->id, id->string, "id", fault));
    TRY(need_members(document, "charter",
                     charter_is_platform(charter) ? platform_names : tenant_names, fault));
    TRY(need_integer(&sequence, document, "sequence", 1, QUOTA_MAX, fault));
    charter->sequence = (uint64_t)sequence;
    return need_integer(&charter->issued_at, document, "issued_at", 1, DATE_MAX, fault);
}

static status read_document(struct charter *charter, const struct json *document,
                            struct fault *fault)
{
    static const char *const names[] = {"jtis", "subjects", NULL};
    const struct json *issuers, *revoked, *jtis, *subjects;
    TRY(read_head(charter, document, fault));
    if (!charter_is_platform(charter))
        TRY(read_posture(&charter->posture, json_member(document, "posture"), fault));
    TRY(need(&issuers, document, "issuers", JSON_ARRAY, fault));
    TRY(read_issuers(charter, issuers, fault));
    TRY(need(&revoked, document, "revoked", JSON_OBJECT, fault));
    TRY(need_members(revoked, "revoked", names, fault));
    TRY(need(&jtis, revoked, "jtis", JSON_ARRAY, fault));
    TRY(need(&subjects, revoked, "subjects", JSON_ARRAY, fault));
    TRY(read_jtis(charter, jtis, fault));
    TRY(read_subjects(charter, subjects, fault));
    return check_charter(charter, fault);
}

static status as_bad_field(status code)
{
    return code == BAD_JSON || code == TOO_LARGE ? BAD_FIELD : code;
}

status charter_read(struct charter **ret, struct span document, struct fault *fault)
{
    if (document.length > CHARTER_MAX)
        return FAIL(BAD_FIELD, fault, "charter: at most %d bytes", CHARTER_MAX);
    struct charter *charter = calloc(1, sizeof *charter);
    if (!charter)
        return FAIL(INTERNAL, fault, "charter: out of memory");
    struct arena arena = arena_of(DOCUMENT_PARSED_MAX);
    struct json parsed;
    status code = json_parse(&parsed, &arena, document, fault);
    if (code == OK)
        code = read_document(charter, &parsed, fault);
    arena_free(&arena);
    if (code == OK)
        *ret = charter;
    else
        charter_free(charter);
    return as_bad_field(code);
}
