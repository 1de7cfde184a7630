#include "silo/memory.h"

#include "silo/fields.h"
#include "wire/json.h"

#define US_PER_SECOND ((int64_t)1000000)

/* The members of a body that both writes know. */
struct fields {
    bool has_text, has_metadata, has_ttl;
    struct span text, metadata;
    int64_t expires_us;
};

static status read_metadata(struct fields *fields, const struct json *body, struct fault *fault)
{
    fields->has_metadata = json_member(body, "metadata") != NULL;
    return field_metadata(&fields->metadata, body, MEMORY_METADATA_MAX, fault);
}

static status read_ttl(struct fields *fields, const struct json *body, int64_t now_us,
                       struct fault *fault)
{
    int64_t ttl_seconds = 0;
    fields->has_ttl = json_member(body, "ttl_seconds") != NULL;
    TRY(json_optional_integer(&ttl_seconds, body, "ttl_seconds", 1, TTL_SECONDS_MAX, fault));
    if (ttl_seconds > 0)
        fields->expires_us = now_us + ttl_seconds * US_PER_SECOND;
    return OK;
}

/* A session or agent: a name like a user's, or absent. */
static status read_name(struct span *ret, const struct json *body, const char *name, size_t max,
                        struct fault *fault)
{
    struct span text = {0};
    TRY(json_optional_text(&text, body, name, 1, max, fault));
    if (text.length > 0 && !principal_is_valid(text))
        return FAIL(BAD_FIELD, fault, "%s: 1 to %zu bytes without control characters", name, max);
    *ret = text;
    return OK;
}

/* What a token says of the agent stands; only a platform's own back end may name another. */
static status read_agent(struct span *ret, const struct json *body,
                         const struct envelope *envelope, struct fault *fault)
{
    struct span own = span_of_text(envelope->agent), named = {0};
    TRY(read_name(&named, body, "agent_id", USER_MAX, fault));
    if (named.length > 0 && own.length > 0 && !span_equal(own, named) &&
        !scope_holds(envelope->scopes, SCOPE_MEMORY_ANY_USER))
        return FAIL(FORBIDDEN_SCOPE, fault, "agent_id: another agent than the token's needs the "
                    "scope %s", scope_name(SCOPE_MEMORY_ANY_USER));
    *ret = named.length > 0 ? named : own;
    return OK;
}

static status read_new(struct memory_row *ret, const struct call *call, const struct json *body,
                       struct fault *fault)
{
    static const char *const names[] = {
        "text", "kind", "user_id", "session_id", "agent_id", "metadata", "ttl_seconds",
        "classification", NULL};
    const struct envelope *envelope = call->request->envelope;
    struct memory_row row = {.version = 1, .created_us = call->request->now_us,
                             .updated_us = call->request->now_us,
                             .user_id = span_of_text(envelope->user)};
    struct fields fields = {0};
    struct span kind = {0};
    TRY(json_only(body, names, fault));
    TRY(json_text(&row.text, body, "text", 1, MEMORY_TEXT_MAX, fault));
    TRY(json_optional_text(&kind, body, "kind", 1, 32, fault));
    if (kind.length > 0)
        TRY(memory_kind_read(&row.kind, kind, "kind", fault));
    TRY(json_optional_text(&row.user_id, body, "user_id", 1, USER_MAX, fault));
    TRY(authz_acts_for(envelope, row.user_id, fault));
    TRY(read_name(&row.session_id, body, "session_id", SESSION_MAX, fault));
    TRY(read_agent(&row.agent_id, body, envelope, fault));
    TRY(read_metadata(&fields, body, fault));
    TRY(read_ttl(&fields, body, call->request->now_us, fault));
    TRY(field_classification_in(&row.classification, body, envelope, fault));
    row.metadata = fields.metadata;
    row.expires_us = fields.expires_us;
    *ret = row;
    return OK;
}

static status number_user(int64_t *ret, struct silo *silo, struct span user_id,
                          struct fault *fault)
{
    status found = memory_user_find(ret, silo, user_id, fault);
    if (found != NOT_FOUND)
        return found;
    _cleanup_statement_ struct statement *insert = NULL;
    TRY(statement_open(&insert, silo->store, "INSERT INTO memory_users (user_id) VALUES (?1)",
                       fault));
    statement_bind_text(insert, 1, user_id);
    TRY(statement_run(insert, fault));
    *ret = store_last_rowid(silo->store);
    return OK;
}

static void bind_time_or_null(struct statement *statement, int parameter, int64_t wall_us)
{
    if (wall_us != 0)
        statement_bind_int(statement, parameter, wall_us);
    else
        statement_bind_null(statement, parameter);
}

static status insert_row(struct memory_row *row, struct silo *silo, struct fault *fault)
{
    _cleanup_statement_ struct statement *insert = NULL;
    TRY(statement_open(&insert, silo->store,
                       "INSERT INTO memories (id, user, kind, classification, version, "
                       "created_at, updated_at, expires_at, session_id, agent_id, metadata, "
                       "text) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
                       fault));
    statement_bind_blob(insert, 1, SPAN_OF(row->id.bytes));
    statement_bind_int(insert, 2, row->user);
    statement_bind_int(insert, 3, row->kind);
    statement_bind_int(insert, 4, row->classification);
    statement_bind_int(insert, 5, row->version);
    statement_bind_int(insert, 6, row->created_us);
    statement_bind_int(insert, 7, row->updated_us);
    bind_time_or_null(insert, 8, row->expires_us);
    field_bind(insert, 9, row->session_id);
    field_bind(insert, 10, row->agent_id);
    field_bind(insert, 11, row->metadata);
    statement_bind_text(insert, 12, row->text);
    TRY(statement_run(insert, fault));
    row->n = store_last_rowid(silo->store);
    return OK;
}

static void answer(struct call *call, int http_status, const struct memory_row *row)
{
    struct json_writer writer = json_writer_on(call->response->body);
    call->response->http_status = http_status;
    call->classification = (int)row->classification;
    call->count = 1;
    memory_row_put(&writer, call->silo, row, NULL);
}

/* For the entry, and for a repeat of the request. */
static status name_item(struct call *call, const struct memory_id *id, struct fault *fault)
{
    char text[ITEM_ID_TEXT];
    memory_id_text(text, id);
    call->item = arena_copy(call->request->arena, span_of_text(text));
    call->reference = arena_copy(call->request->arena, SPAN_OF(id->bytes));
    return call->reference.data != NULL ? OK
        : FAIL(TOO_LARGE, fault, "the item does not fit the memory of one request");
}

/* The answer of the first request: the item as it was made, from the history when it has changed.
 */
static status first_version(struct memory_row *row, struct statement **ret_statement,
                            struct silo *silo, struct fault *fault)
{
    if (row->version == 1 || !silo->memory.has_versions)
        return OK;
    struct statement *first;
    TRY(statement_open(&first, silo->store,
                       "SELECT expires_at, metadata, text FROM memory_versions "
                       "WHERE n = ?1 AND version = 1", fault));
    statement_bind_int(first, 1, row->n);
    status found = statement_step(first, fault);
    if (found != OK) {
        statement_close(first);
        return found == NOT_FOUND ? OK : found;
    }
    row->version = 1;
    row->updated_us = row->created_us;
    row->expires_us = statement_int(first, 0);
    row->metadata = statement_span(first, 1);
    row->text = statement_span(first, 2);
    *ret_statement = first;
    return OK;
}

status memory_add_again(struct call *call, int http_status, struct span reference,
                        struct fault *fault)
{
    _cleanup_statement_ struct statement *rows = NULL, *first = NULL;
    struct cursor stored = cursor_over(reference);
    struct memory_id id;
    struct memory_row row;
    bool hidden = false;
    TRY(cursor_copy(id.bytes, &stored, sizeof id.bytes, fault));
    TRY(cursor_end(&stored, fault));
    status found = memory_row_find(&row, &rows, call->silo, &id, fault);
    if (found != OK && found != NOT_FOUND)
        return found;
    if (found == NOT_FOUND || !memory_row_visible(call, &row, &hidden))
        return FAIL(CONFLICT, fault, "Idempotency-Key: what it made is gone");
    TRY(name_item(call, &id, fault));
    TRY(first_version(&row, &first, call->silo, fault));
    answer(call, http_status, &row);
    return OK;
}

status memory_add(struct call *call, struct fault *fault)
{
    struct json body;
    struct memory_row row;
    TRY(call_body(&body, call, fault));
    TRY(read_new(&row, call, &body, fault));
    TRY(memory_make(call->silo, fault));
    row.id = memory_id_new(call->silo);
    TRY(name_item(call, &row.id, fault));
    TRY(number_user(&row.user, call->silo, row.user_id, fault));
    TRY(insert_row(&row, call->silo, fault));
    TRY(fulltext_add(&call->silo->memory.fulltext, call->silo, row.classification, row.n,
                     fault));
    call->silo->memory.due_known = false;
    answer(call, 201, &row);
    return OK;
}

/* What the item said so far becomes history, the oldest beyond the limit goes. */
static status keep_version(struct silo *silo, const struct memory_row *row, struct fault *fault)
{
    TRY(memory_make_versions(silo, fault));
    _cleanup_statement_ struct statement *insert = NULL, *drop = NULL;
    TRY(statement_open(&insert, silo->store,
                       "INSERT INTO memory_versions (n, version, updated_at, expires_at, "
                       "metadata, text) VALUES (?1, ?2, ?3, ?4, ?5, ?6)", fault));
    statement_bind_int(insert, 1, row->n);
    statement_bind_int(insert, 2, row->version);
    statement_bind_int(insert, 3, row->updated_us);
    bind_time_or_null(insert, 4, row->expires_us);
    field_bind(insert, 5, row->metadata);
    statement_bind_text(insert, 6, row->text);
    TRY(statement_run(insert, fault));
    if (row->version + 1 < MEMORY_VERSIONS_MAX)
        return OK;
    TRY(statement_open(&drop, silo->store,
                       "DELETE FROM memory_versions WHERE n = ?1 AND version <= ?2", fault));
    statement_bind_int(drop, 1, row->n);
    statement_bind_int(drop, 2, row->version + 1 - MEMORY_VERSIONS_MAX);
    return statement_run(drop, fault);
}

static status read_changes(struct fields *ret, const struct call *call, const struct json *body,
                           struct fault *fault)
{
    static const char *const names[] = {"text", "metadata", "ttl_seconds", NULL};
    struct fields fields = {0};
    TRY(json_only(body, names, fault));
    if (json_member(body, "text") != NULL) {
        fields.has_text = true;
        TRY(json_text(&fields.text, body, "text", 1, MEMORY_TEXT_MAX, fault));
    }
    TRY(read_metadata(&fields, body, fault));
    TRY(read_ttl(&fields, body, call->request->now_us, fault));
    if (!fields.has_text && !fields.has_metadata && !fields.has_ttl)
        return FAIL(BAD_FIELD, fault, "text, metadata or ttl_seconds: one of them is needed");
    *ret = fields;
    return OK;
}

static status update_row(struct silo *silo, const struct memory_row *row, struct fault *fault)
{
    _cleanup_statement_ struct statement *update = NULL;
    TRY(statement_open(&update, silo->store,
                       "UPDATE memories SET version = ?2, updated_at = ?3, expires_at = ?4, "
                       "metadata = ?5, text = ?6 WHERE n = ?1", fault));
    statement_bind_int(update, 1, row->n);
    statement_bind_int(update, 2, row->version);
    statement_bind_int(update, 3, row->updated_us);
    bind_time_or_null(update, 4, row->expires_us);
    field_bind(update, 5, row->metadata);
    statement_bind_text(update, 6, row->text);
    return statement_run(update, fault);
}

/* A row whose statement may be given back: its texts move into the request's arena. */
static status own_row(struct memory_row *row, const struct call *call, struct fault *fault)
{
    struct span *const texts[] = {&row->user_id, &row->session_id, &row->agent_id, &row->metadata,
                                  &row->text};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        if (texts[i]->length == 0)
            continue;
        *texts[i] = arena_copy(call->request->arena, *texts[i]);
        if (texts[i]->data == NULL)
            return FAIL(TOO_LARGE, fault, "the item does not fit the memory of one request");
    }
    return OK;
}

status memory_update(struct call *call, struct fault *fault)
{
    struct json body;
    struct fields fields;
    struct memory_row row;
    struct fulltext *index = &call->silo->memory.fulltext;
    _cleanup_statement_ struct statement *rows = NULL;
    TRY(memory_item(&row, &rows, call, fault));
    TRY(call_body(&body, call, fault));
    TRY(read_changes(&fields, call, &body, fault));
    TRY(own_row(&row, call, fault));
    rows = statement_close(rows);
    TRY(keep_version(call->silo, &row, fault));
    struct memory_row changed = row;
    changed.version++;
    changed.updated_us = call->request->now_us;
    if (fields.has_text)
        changed.text = fields.text;
    if (fields.has_metadata)
        changed.metadata = fields.metadata;
    if (fields.has_ttl)
        changed.expires_us = fields.expires_us;
    if (fields.has_text) /* the old words leave the index before the row changes under it */
        TRY(fulltext_remove(index, call->silo, row.classification, row.n, row.n, fault));
    TRY(update_row(call->silo, &changed, fault));
    call->gone = (int)row.classification;
    if (fields.has_text)
        TRY(fulltext_add(index, call->silo, row.classification, row.n, fault));
    call->silo->memory.due_known = false;
    answer(call, 200, &changed);
    return OK;
}

status memory_delete(struct call *call, struct fault *fault)
{
    struct memory_row row;
    _cleanup_statement_ struct statement *rows = NULL;
    TRY(memory_item(&row, &rows, call, fault));
    TRY(own_row(&row, call, fault));
    rows = statement_close(rows);
    TRY(memory_remove(call->silo, &row, fault));
    call->gone = (int)row.classification;
    call->response->http_status = 204;
    return OK;
}
