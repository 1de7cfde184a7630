#include "silo/tenant.h"

#include "base/clock.h"
#include "silo/memory.h"
#include "wire/json.h"

/* A cell serves active tenants only: the state needs no looking up. */
status tenant_read(struct call *call, struct fault *fault)
{
    struct silo *silo = call->silo;
    const struct silo_posture *posture = &silo->posture;
    int64_t memories;
    char created_at[CLOCK_TEXT_SIZE];
    clock_text(created_at, posture->created_at_us);
    TRY(memory_count(&memories, silo, fault));
    struct json_writer writer = json_writer_on(call->response->body);
    json_open_object(&writer, NULL);
    json_put_text(&writer, "id", silo->tenant_text);
    json_put_text(&writer, "name", posture->tenant_name);
    json_put_text(&writer, "state", "active");
    json_put_text(&writer, "created_at", created_at);
    json_open_object(&writer, "posture");
    json_put_text(&writer, "tier", posture->strict_audit ? "regulated" : "standard");
    json_put_text(&writer, "audit", posture->strict_audit ? "strict" : "standard");
    if (posture->retention_days > 0)
        json_put_integer(&writer, "retention_days", posture->retention_days);
    else
        json_put_null(&writer, "retention_days");
    json_close_object(&writer);
    json_open_object(&writer, "usage");
    json_put_integer(&writer, "bytes_stored", (int64_t)store_bytes(silo->store));
    json_put_integer(&writer, "memories", memories);
    json_put_integer(&writer, "audit_entries", (int64_t)store_log_size(silo->log));
    json_close_object(&writer);
    json_close_object(&writer);
    call->response->http_status = 200;
    return OK;
}
