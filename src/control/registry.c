/* registry.c: the tenants of this node, their states and the receipts of those that are gone. */
#include "base/log.h"
#include "control/control.h"

static const char *const versions[] = {
    "CREATE TABLE tenant("
    " serial INTEGER PRIMARY KEY AUTOINCREMENT," /* the uid follows from it and is never reused */
    " id BLOB NOT NULL UNIQUE CHECK(length(id)=16),"
    " name TEXT NOT NULL UNIQUE,"
    " state INTEGER NOT NULL,"
    " created_at INTEGER NOT NULL,"
    " next_expiry INTEGER NOT NULL DEFAULT 0,"
    " bytes_stored INTEGER NOT NULL DEFAULT 0);"
    "CREATE INDEX tenant_expiry ON tenant(next_expiry) WHERE next_expiry > 0;"
    "CREATE TABLE receipt("
    " serial INTEGER PRIMARY KEY,"
    " name TEXT NOT NULL,"
    " id BLOB NOT NULL UNIQUE,"
    " document TEXT NOT NULL);"
    "CREATE INDEX receipt_name ON receipt(name);"
    "CREATE TABLE charter("
    " id BLOB NOT NULL CHECK(length(id)=16),"
    " pending INTEGER NOT NULL," /* 1: not known to be signed */
    " sequence INTEGER NOT NULL,"
    " document BLOB NOT NULL,"
    " signature BLOB,"
    " event TEXT NOT NULL," /* these three: of its entry in the ledger */
    " detail TEXT NOT NULL,"
    " operator INTEGER NOT NULL,"
    " UNIQUE(id, pending));"
    "CREATE INDEX charter_pending ON charter(pending) WHERE pending = 1;"
    "CREATE TABLE claim(" /* under which issuers of single tenants put the tenant */
    " name TEXT NOT NULL,"
    " tenant BLOB NOT NULL,"
    " PRIMARY KEY(name, tenant)) WITHOUT ROWID;"
    "CREATE INDEX claim_tenant ON claim(tenant);"
    "CREATE TABLE route("
    " kind TEXT NOT NULL,"
    " value TEXT NOT NULL,"
    " tenant BLOB NOT NULL,"
    " PRIMARY KEY(kind, value)) WITHOUT ROWID;"
    "CREATE INDEX route_tenant ON route(tenant);",
    "CREATE TABLE usage_day("
    " tenant BLOB NOT NULL,"
    " day INTEGER NOT NULL,"
    " record BLOB NOT NULL,"
    " PRIMARY KEY(tenant, day)) WITHOUT ROWID;",
};

static const struct store_schema schema = {"registry", versions,
                                           sizeof versions / sizeof versions[0]};

#define COLUMNS "id, name, serial, state, created_at, next_expiry, bytes_stored"
enum {
    UID_OFFSET = 1000,
    STORED_ERASING_PAUSED = 4, /* erasing, and was paused */
};

status registry_migrate(struct control *control, struct fault *fault)
{
    return store_migrate(control->store, &schema, fault);
}

status registry_begin(struct control *control, struct fault *fault)
{
    return store_begin(control->store, fault);
}

void registry_undo(struct control *control)
{
    store_rollback(control->store);
    store_log_rolled_back(control->log);
}

status registry_commit(struct control *control, struct fault *fault)
{
    status committed = store_commit(control->store, fault);
    if (committed != OK) {
        store_log_rolled_back(control->log);
        return committed;
    }
    store_log_committed(control->log);
    struct fault late;
    if (platform_anchor(control, &late) != OK) /* durable already; the next commit anchors both */
        log_event(LOG_WARN, "ledger.anchor", "%s", late.detail);
    return OK;
}

status registry_end(struct control *control, status result, struct fault *fault)
{
    if (result == OK)
        return registry_commit(control, fault);
    registry_undo(control);
    return result;
}

static status row(struct tenant *ret, struct control *control, struct statement *statement,
                  struct fault *fault)
{
    int64_t stored = statement_int(statement, 3);
    struct tenant tenant = {
        .uid = control->uid_base + UID_OFFSET + (uint32_t)statement_int(statement, 2),
        .state = stored == STORED_ERASING_PAUSED ? TENANT_ERASING : (enum tenant_state)stored,
        .was_paused = stored == STORED_ERASING_PAUSED,
        .created_at_us = statement_int(statement, 4),
        .next_expiry_us = statement_int(statement, 5),
        .bytes_stored = statement_int(statement, 6)};
    struct cursor id = cursor_over(statement_span(statement, 0));
    TRY(cursor_copy(tenant.id, &id, TENANT_ID_BYTES, fault));
    if (!span_to_text(tenant.name, sizeof tenant.name, statement_span(statement, 1)))
        return FAIL(CORRUPT, fault, "registry: a row with an impossible name");
    *ret = tenant;
    return OK;
}

status registry_by_id(struct tenant *ret, struct control *control,
                      const uint8_t id[TENANT_ID_BYTES], struct fault *fault)
{
    _cleanup_statement_ struct statement *find = NULL;
    TRY(statement_open(&find, control->store, "SELECT " COLUMNS " FROM tenant WHERE id = ?1",
                       fault));
    statement_bind_blob(find, 1, (struct span){id, TENANT_ID_BYTES});
    TRY(statement_step(find, fault));
    return row(ret, control, find, fault);
}

status registry_by_name(struct tenant *ret, struct control *control, struct span name,
                        struct fault *fault)
{
    _cleanup_statement_ struct statement *find = NULL;
    TRY(statement_open(&find, control->store, "SELECT " COLUMNS " FROM tenant WHERE name = ?1",
                       fault));
    statement_bind_text(find, 1, name);
    TRY(statement_step(find, fault));
    return row(ret, control, find, fault);
}

status registry_insert(struct tenant *tenant, struct control *control, struct fault *fault)
{
    _cleanup_statement_ struct statement *insert = NULL;
    TRY(statement_open(&insert, control->store,
                       "INSERT INTO tenant(id, name, state, created_at)"
                       " VALUES(?1, ?2, ?3, ?4)", fault));
    statement_bind_blob(insert, 1, SPAN_OF(tenant->id));
    statement_bind_text(insert, 2, span_of_text(tenant->name));
    statement_bind_int(insert, 3, tenant->state);
    statement_bind_int(insert, 4, tenant->created_at_us);
    TRY(statement_run(insert, fault));
    tenant->uid = control->uid_base + UID_OFFSET + (uint32_t)store_last_rowid(control->store);
    return OK;
}

status registry_set_state(struct control *control, const uint8_t id[TENANT_ID_BYTES],
                          enum tenant_state state, struct fault *fault)
{
    _cleanup_statement_ struct statement *change = NULL;
    TRY(statement_open(&change, control->store,
                       "UPDATE tenant SET state = CASE WHEN ?2 = 3 AND state IN (2, 4) THEN 4"
                       " ELSE ?2 END WHERE id = ?1", fault));
    statement_bind_blob(change, 1, (struct span){id, TENANT_ID_BYTES});
    statement_bind_int(change, 2, state);
    return statement_run(change, fault);
}

status registry_set_usage(struct control *control, const uint8_t id[TENANT_ID_BYTES],
                          int64_t next_expiry_us, int64_t bytes, struct fault *fault)
{
    _cleanup_statement_ struct statement *change = NULL;
    TRY(statement_open(&change, control->store,
                       "UPDATE tenant SET next_expiry = ?2, bytes_stored = ?3 WHERE id = ?1",
                       fault));
    statement_bind_blob(change, 1, (struct span){id, TENANT_ID_BYTES});
    statement_bind_int(change, 2, next_expiry_us);
    statement_bind_int(change, 3, bytes);
    return statement_run(change, fault);
}

status registry_remove(struct control *control, const uint8_t id[TENANT_ID_BYTES],
                       struct fault *fault)
{
    _cleanup_statement_ struct statement *change = NULL;
    TRY(charter_remove(control, id, fault));
    TRY(routes_remove_of(control, id, fault));
    TRY(usage_remove_of(control, id, fault));
    TRY(statement_open(&change, control->store, "DELETE FROM tenant WHERE id = ?1", fault));
    statement_bind_blob(change, 1, (struct span){id, TENANT_ID_BYTES});
    return statement_run(change, fault);
}

status registry_keep_receipt(struct control *control, const struct tenant *tenant,
                             struct span document, struct fault *fault)
{
    _cleanup_statement_ struct statement *insert = NULL;
    TRY(statement_open(&insert, control->store,
                       "INSERT INTO receipt(name, id, document) VALUES(?1, ?2, ?3)", fault));
    statement_bind_text(insert, 1, span_of_text(tenant->name));
    statement_bind_blob(insert, 2, SPAN_OF(tenant->id));
    statement_bind_text(insert, 3, document);
    return statement_run(insert, fault);
}

status registry_receipt(struct buffer *out, struct control *control, struct span name,
                        struct fault *fault)
{
    _cleanup_statement_ struct statement *find = NULL;
    TRY(statement_open(&find, control->store, "SELECT document FROM receipt WHERE name = ?1"
                       " ORDER BY serial DESC LIMIT 1", fault));
    statement_bind_text(find, 1, name);
    TRY(statement_step(find, fault));
    buffer_put(out, statement_span(find, 0));
    return OK;
}

status registry_all(struct control *control, registry_each *each, void *context,
                    struct fault *fault)
{
    _cleanup_statement_ struct statement *all = NULL;
    TRY(statement_open(&all, control->store, "SELECT " COLUMNS " FROM tenant ORDER BY name",
                       fault));
    for (;;) {
        struct tenant tenant;
        status step = statement_step(all, fault);
        if (step == NOT_FOUND)
            return OK;
        TRY(step);
        TRY(row(&tenant, control, all, fault));
        TRY(each(context, &tenant, fault));
    }
}

status registry_next_expiry(struct tenant *ret, struct control *control, struct fault *fault)
{
    _cleanup_statement_ struct statement *next = NULL;
    TRY(statement_open(&next, control->store, "SELECT " COLUMNS " FROM tenant"
                       " WHERE next_expiry > 0 AND state IN (1, 2) ORDER BY next_expiry LIMIT 1",
                       fault));
    TRY(statement_step(next, fault));
    return row(ret, control, next, fault);
}
