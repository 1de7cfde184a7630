#include "silo/schema.h"

#include "silo/audit.h"
#include "silo/charters.h"
#include "silo/idempotency.h"
#include "silo/keys.h"
#include "silo/knowledge.h"
#include "silo/memory.h"
#include "silo/object.h"
#include "silo/usage.h"
#include "silo/used_tokens.h"

/* A kind of data that is not here does not wake again. */
static const struct store_schema *const rooms[] = {
    &store_log_schema,      &silo_state_schema,  &charters_schema,   &keys_schema,
    &used_tokens_schema,    &idempotency_schema, &usage_schema,      &memory_schema,
    &memory_history_schema, &memory_keys_schema, &knowledge_schema,
    &object_schema,
};
const struct schema_list schema_rooms = {rooms, sizeof rooms / sizeof *rooms};

struct look {
    const struct schema_list *list;
    struct schema_plan *plan;
    struct buffer *newer;
    struct json_writer *changes;
};

static const struct store_schema *find(const struct schema_list *list, struct span room)
{
    for (uint32_t i = 0; i < list->count; i++)
        if (span_is(room, list->rooms[i]->room))
            return list->rooms[i];
    return NULL;
}

static status look_at(void *context, struct span room, int64_t version, struct fault *fault)
{
    struct look *look = context;
    const struct store_schema *known = find(look->list, room);
    int64_t own = known != NULL ? known->count : 0;
    if (version > own) {
        buffer_printf(look->newer, "%s%.*s %lld (known: %lld)", look->newer->length ? ", " : "",
                      (int)(room.length < 40 ? room.length : 40), (const char *)room.data,
                      (long long)version, (long long)own);
        return OK;
    }
    if (version == own)
        return OK;
    if (look->plan->count == SCHEMA_ROOMS_MAX)
        return FAIL(INTERNAL, fault, "more rooms than can be upgraded at once");
    look->plan->rooms[look->plan->count++] = known;
    json_open_object(look->changes, known->room);
    json_put_integer(look->changes, "from", version);
    json_put_integer(look->changes, "to", own);
    json_close_object(look->changes);
    return OK;
}

status schema_look(struct schema_plan *ret, struct store *store, const struct schema_list *list,
                   struct fault *fault)
{
    uint8_t names[150];
    struct schema_plan plan = {0};
    struct buffer newer = buffer_over(names, sizeof names - 1);
    struct buffer text = buffer_over((uint8_t *)plan.changes, sizeof plan.changes - 1);
    struct json_writer changes = json_writer_on(&text);
    struct look look = {list, &plan, &newer, &changes};
    json_open_object(&changes, NULL);
    TRY(store_rooms(store, look_at, &look, fault));
    json_close_object(&changes);
    if (newer.length > 0 || newer.failed) {
        names[newer.length] = '\0';
        return FAIL(CONFLICT, fault, "this silo was written by a newer version: %s",
                    (const char *)names);
    }
    TRY(buffer_check(&text, "changes of tables", fault));
    plan.changes[text.length] = '\0';
    *ret = plan;
    return OK;
}

status schema_upgrade(struct silo *silo, const struct schema_plan *plan, struct fault *fault)
{
    for (uint32_t i = 0; i < plan->count; i++)
        TRY(store_migrate(silo->store, plan->rooms[i], fault));
    TRY(audit_upgrade(silo, span_of_text(plan->changes), plan->count, fault));
    return audit_write(silo, fault);
}
