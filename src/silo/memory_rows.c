#include "silo/memory.h"

#include "base/clock.h"
#include "silo/fields.h"
#include "wire/json.h"

#define US_PER_DAY ((int64_t)24 * 3600 * 1000000)

static const char *const memory_versions_sql[] = {
    "CREATE TABLE memory_users (k INTEGER PRIMARY KEY, user_id TEXT NOT NULL UNIQUE);"
    "CREATE TABLE memories ("
    " n INTEGER PRIMARY KEY, id BLOB NOT NULL, user INTEGER NOT NULL, kind INTEGER NOT NULL,"
    " classification INTEGER NOT NULL, version INTEGER NOT NULL, created_at INTEGER NOT NULL,"
    " updated_at INTEGER NOT NULL, expires_at INTEGER, session_id TEXT, agent_id TEXT,"
    " metadata TEXT, text TEXT NOT NULL);"
    "CREATE UNIQUE INDEX memories_by_id ON memories (id);"
    "CREATE INDEX memories_by_user ON memories (user, id);"
    "CREATE INDEX memories_by_session ON memories (user, session_id, id)"
    " WHERE session_id IS NOT NULL;"
    "CREATE INDEX memories_by_expiry ON memories (expires_at) WHERE expires_at IS NOT NULL;"
    "CREATE TABLE memory_indexes (classification INTEGER PRIMARY KEY,"
    " generation INTEGER NOT NULL, built_to INTEGER NOT NULL, stale INTEGER NOT NULL);",
};
const struct store_schema memory_schema = {"memory", memory_versions_sql, 1};

static const char *const history_sql[] = {
    "CREATE TABLE memory_versions (n INTEGER NOT NULL, version INTEGER NOT NULL,"
    " updated_at INTEGER NOT NULL, expires_at INTEGER, metadata TEXT, text TEXT NOT NULL);"
    "CREATE UNIQUE INDEX memory_versions_by_item ON memory_versions (n, version);",
};
const struct store_schema memory_history_schema = {"memory_versions", history_sql, 1};

static const char *const keys_sql[] = {
    "CREATE TABLE memory_keys (key BLOB NOT NULL, body BLOB NOT NULL, n INTEGER NOT NULL,"
    " id BLOB NOT NULL, made_at INTEGER NOT NULL, PRIMARY KEY (key)) WITHOUT ROWID;"
    "CREATE INDEX memory_keys_by_item ON memory_keys (n);"
    "CREATE INDEX memory_keys_by_time ON memory_keys (made_at);",
    "DROP TABLE memory_keys;", /* idempotency.c keeps them for all kinds */
};
const struct store_schema memory_keys_schema = {"memory_keys", keys_sql, 2};

status memory_know_indexes(struct silo *silo, struct fault *fault)
{
    TRY(memory_know(silo, fault));
    return silo->memory.exists ? fulltext_know(&silo->memory.fulltext, silo, fault) : OK;
}

status memory_know(struct silo *silo, struct fault *fault)
{
    if (silo->memory.known)
        return OK;
    struct memory_state state = silo->memory;
    state.has_versions = state.has_keys = state.exists = false;
    TRY(store_has(&state.exists, silo->store, &memory_schema, fault));
    if (state.exists) {
        TRY(store_migrate(silo->store, &memory_schema, fault));
        TRY(store_has(&state.has_versions, silo->store, &memory_history_schema, fault));
        TRY(store_has(&state.has_keys, silo->store, &memory_keys_schema, fault));
    }
    state.known = true;
    silo->memory = state;
    return OK;
}

void memory_forget(struct silo *silo)
{
    silo->memory.known = false;
    fulltext_forget(&silo->memory.fulltext);
    silo->memory.due_known = false;
}

static status make(bool *has, struct silo *silo, const struct store_schema *schema,
                   struct fault *fault)
{
    TRY(memory_know(silo, fault));
    if (*has)
        return OK;
    TRY(store_migrate(silo->store, schema, fault));
    *has = true;
    return OK;
}

status memory_make(struct silo *silo, struct fault *fault)
{
    TRY(make(&silo->memory.exists, silo, &memory_schema, fault));
    return silo->memory.has_keys ? store_migrate(silo->store, &memory_keys_schema, fault) : OK;
}

status memory_make_versions(struct silo *silo, struct fault *fault)
{
    return make(&silo->memory.has_versions, silo, &memory_history_schema, fault);
}

#define ROW_COLUMNS                                                                        \
    "SELECT m.n, m.id, m.user, u.user_id, m.session_id, m.agent_id, m.kind, "              \
    "m.classification, m.version, m.created_at, m.updated_at, m.expires_at, m.metadata, "  \
    "m.text FROM memories m JOIN memory_users u ON u.k = m.user "

enum row_column {
    ROW_N, ROW_ID, ROW_USER, ROW_USER_ID, ROW_SESSION, ROW_AGENT, ROW_KIND, ROW_CLASSIFICATION,
    ROW_VERSION, ROW_CREATED, ROW_UPDATED, ROW_EXPIRES, ROW_METADATA, ROW_TEXT
};

static status damaged(struct fault *fault)
{
    return FAIL(CORRUPT, fault, "the stored item is damaged");
}

static status row_of(struct memory_row *ret, struct statement *rows, struct fault *fault)
{
    struct span id = statement_span(rows, ROW_ID);
    int64_t kind = statement_int(rows, ROW_KIND);
    int64_t classification = statement_int(rows, ROW_CLASSIFICATION);
    if (id.length != MEMORY_ID_BYTES || kind < 0 || kind >= MEMORY_KINDS || classification < 0 ||
        classification >= CLEARANCE_COUNT)
        return damaged(fault);
    struct memory_row row = {
        .n = statement_int(rows, ROW_N),
        .user = statement_int(rows, ROW_USER),
        .user_id = statement_span(rows, ROW_USER_ID),
        .session_id = statement_span(rows, ROW_SESSION),
        .agent_id = statement_span(rows, ROW_AGENT),
        .kind = (enum memory_kind)kind,
        .classification = (enum clearance)classification,
        .version = statement_int(rows, ROW_VERSION),
        .created_us = statement_int(rows, ROW_CREATED),
        .updated_us = statement_int(rows, ROW_UPDATED),
        .expires_us = statement_int(rows, ROW_EXPIRES),
        .metadata = statement_span(rows, ROW_METADATA),
        .text = statement_span(rows, ROW_TEXT),
    };
    for (size_t i = 0; i < MEMORY_ID_BYTES; i++)
        row.id.bytes[i] = id.data[i];
    *ret = row;
    return OK;
}

static status step_row(struct memory_row *ret, struct statement *rows, struct fault *fault)
{
    status stepped = statement_step(rows, fault);
    if (stepped == CORRUPT)
        return damaged(fault);
    TRY(stepped);
    return row_of(ret, rows, fault);
}

status memory_row_open(struct statement **ret, struct silo *silo, struct fault *fault)
{
    return statement_open(ret, silo->store, ROW_COLUMNS "WHERE m.n = ?1", fault);
}

status memory_row_get(struct memory_row *ret, struct statement *rows, int64_t n,
                      struct fault *fault)
{
    statement_reset(rows);
    statement_bind_int(rows, 1, n);
    return step_row(ret, rows, fault);
}

status memory_row_find(struct memory_row *ret, struct statement **ret_statement, struct silo *silo,
                       const struct memory_id *id, struct fault *fault)
{
    struct statement *rows;
    TRY(statement_open(&rows, silo->store, ROW_COLUMNS "WHERE m.id = ?1", fault));
    statement_bind_blob(rows, 1, SPAN_OF(id->bytes));
    status found = step_row(ret, rows, fault);
    if (found != OK) {
        statement_close(rows);
        return found;
    }
    *ret_statement = rows;
    return OK;
}

int64_t memory_row_due_us(const struct silo *silo, const struct memory_row *row)
{
    int64_t due_us = row->expires_us;
    if (silo->posture.retention_days > 0) {
        int64_t kept_to_us = row->created_us + silo->posture.retention_days * US_PER_DAY;
        if (due_us == 0 || kept_to_us < due_us)
            due_us = kept_to_us;
    }
    return due_us;
}

bool memory_row_visible(const struct call *call, const struct memory_row *row, bool *hidden)
{
    const struct envelope *envelope = call->request->envelope;
    int64_t due_us = memory_row_due_us(call->silo, row);
    if (due_us != 0 && due_us <= call->request->now_us)
        return false; /* it is about to be deleted */
    bool allowed = (span_is(row->user_id, envelope->user) ||
                    scope_holds(envelope->scopes, SCOPE_MEMORY_ANY_USER)) &&
                   clearance_covers(envelope->clearance, row->classification);
    if (!allowed)
        *hidden = true;
    return allowed;
}

static status no_such_item(struct fault *fault)
{
    return FAIL(NOT_FOUND, fault, "there is no such memory");
}

status memory_item(struct memory_row *ret, struct statement **ret_statement, struct call *call,
                   struct fault *fault)
{
    struct memory_id id;
    struct memory_row row;
    struct statement *rows;
    call->item = call->request->ids[0];
    if (!memory_id_read(&id, call->item) || !call->silo->memory.exists)
        return no_such_item(fault);
    status found = memory_row_find(&row, &rows, call->silo, &id, fault);
    if (found == NOT_FOUND)
        return no_such_item(fault);
    TRY(found);
    call->classification = (int)row.classification;
    if (!memory_row_visible(call, &row, &call->hidden)) {
        statement_close(rows);
        return no_such_item(fault);
    }
    call->count = 1;
    *ret = row;
    *ret_statement = rows;
    return OK;
}

static void put_time(struct json_writer *writer, const char *name, int64_t wall_us)
{
    char text[CLOCK_TEXT_SIZE];
    clock_text(text, wall_us);
    json_put_text(writer, name, text);
}

void memory_row_members(struct json_writer *writer, const struct silo *silo,
                        const struct memory_row *row)
{
    char id[ITEM_ID_TEXT];
    memory_id_text(id, &row->id);
    json_put_text(writer, "id", id);
    json_put_string(writer, "text", row->text);
    json_put_text(writer, "kind", memory_kind_name(row->kind));
    json_put_string(writer, "user_id", row->user_id);
    field_put(writer, "session_id", row->session_id);
    field_put(writer, "agent_id", row->agent_id);
    json_put_raw(writer, "metadata", row->metadata.length > 0 ? row->metadata : SPAN("{}"));
    json_put_text(writer, "classification", clearance_name(row->classification));
    json_put_integer(writer, "version", row->version);
    put_time(writer, "created_at", row->created_us);
    put_time(writer, "updated_at", row->updated_us);
    int64_t due_us = memory_row_due_us(silo, row);
    if (due_us != 0)
        put_time(writer, "expires_at", due_us);
    else
        json_put_null(writer, "expires_at");
}

void memory_row_put(struct json_writer *writer, const struct silo *silo,
                    const struct memory_row *row, const double *score)
{
    json_open_object(writer, NULL);
    memory_row_members(writer, silo, row);
    if (score != NULL)
        json_put_double(writer, "score", *score);
    json_close_object(writer);
}

status memory_user_find(int64_t *ret, struct silo *silo, struct span user_id, struct fault *fault)
{
    _cleanup_statement_ struct statement *find = NULL;
    TRY(statement_open(&find, silo->store, "SELECT k FROM memory_users WHERE user_id = ?1",
                       fault));
    statement_bind_text(find, 1, user_id);
    TRY(statement_step(find, fault));
    *ret = statement_int(find, 0);
    return OK;
}

status memory_count(int64_t *ret, struct silo *silo, struct fault *fault)
{
    TRY(memory_know(silo, fault));
    if (!silo->memory.exists) {
        *ret = 0;
        return OK;
    }
    _cleanup_statement_ struct statement *count = NULL;
    TRY(statement_open(&count, silo->store, "SELECT count(*) FROM memories", fault));
    TRY(statement_step(count, fault));
    *ret = statement_int(count, 0);
    return OK;
}
