#include "silo/tenant.h"

#include "base/clock.h"
#include "silo/memory.h"
#include "silo/usage.h"
#include "wire/json.h"

/* 0 reads as null: no limit. */
static void put_limit(struct json_writer *writer, const char *name, int64_t limit)
{
    if (limit > 0)
        json_put_integer(writer, name, limit);
    else
        json_put_null(writer, name);
}

/* As the command line has them: 0 is no limit. */
static void put_quota(struct json_writer *writer, const char *name, uint64_t quota)
{
    json_put_integer(writer, name, quota < INT64_MAX ? (int64_t)quota : INT64_MAX);
}

static void put_posture(struct json_writer *writer, const struct posture *posture)
{
    const struct quotas *quotas = &posture->quotas;
    json_open_object(writer, "posture");
    json_put_text(writer, "tier", posture->tier == TIER_REGULATED ? "regulated" : "standard");
    json_put_text(writer, "audit", posture->audit_strict ? "strict" : "standard");
    if (posture->region[0] != '\0')
        json_put_text(writer, "region", posture->region);
    else
        json_put_null(writer, "region");
    put_limit(writer, "retention_days", posture->retention_days);
    json_put_bool(writer, "clearance_required", posture->clearance_required);
    put_limit(writer, "token_lifetime_seconds", posture->token_lifetime_max_seconds);
    json_open_object(writer, "quotas");
    put_quota(writer, "requests_per_second", quotas->requests_per_second);
    put_quota(writer, "concurrent_requests", quotas->concurrent_requests);
    put_quota(writer, "bytes_stored", quotas->bytes_stored);
    put_quota(writer, "user_requests_per_second", quotas->user_requests_per_second);
    json_close_object(writer);
    json_close_object(writer);
}

/* A cell serves active tenants only: the state needs no looking up. */
status tenant_put(struct buffer *out, struct silo *silo, struct fault *fault)
{
    const struct posture *posture = &silo->posture;
    int64_t memories;
    char created_at[CLOCK_TEXT_SIZE];
    clock_text(created_at, posture->created_at_us);
    TRY(memory_count(&memories, silo, fault));
    struct json_writer writer = json_writer_on(out);
    json_open_object(&writer, NULL);
    json_put_text(&writer, "id", silo->tenant_text);
    json_put_text(&writer, "name", posture->name);
    json_put_text(&writer, "state", "active");
    json_put_text(&writer, "created_at", created_at);
    json_put_integer(&writer, "charter_sequence", (int64_t)silo->posture_sequence);
    put_posture(&writer, posture);
    json_open_object(&writer, "usage");
    json_put_integer(&writer, "bytes_stored", (int64_t)silo_bytes(silo));
    json_put_integer(&writer, "memories", memories);
    json_put_integer(&writer, "audit_entries", (int64_t)store_log_size(silo->log));
    TRY(usage_put(&writer, silo, fault));
    json_close_object(&writer);
    json_close_object(&writer);
    return OK;
}

status tenant_read(struct call *call, struct fault *fault)
{
    TRY(tenant_put(call->response->body, call->silo, fault));
    call->response->http_status = 200;
    return OK;
}
