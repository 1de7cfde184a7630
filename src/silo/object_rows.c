#include "silo/object.h"

#include "base/clock.h"
#include "base/hex.h"
#include "wire/json.h"

#include <assert.h>

static const char *const objects_sql[] = {
    "CREATE TABLE objects ("
    " n INTEGER PRIMARY KEY, key TEXT NOT NULL, classification INTEGER NOT NULL,"
    " blob BLOB NOT NULL, blob_key BLOB NOT NULL, bytes INTEGER NOT NULL,"
    " content_type TEXT NOT NULL, user_id TEXT NOT NULL, created_at INTEGER NOT NULL,"
    " updated_at INTEGER NOT NULL);"
    "CREATE UNIQUE INDEX objects_by_key ON objects (classification, key);"
    "CREATE UNIQUE INDEX objects_by_blob ON objects (blob);"
    "CREATE TABLE object_totals (one INTEGER PRIMARY KEY CHECK (one = 1),"
    " file_bytes INTEGER NOT NULL);"
    "INSERT INTO object_totals VALUES (1, 0);",
};
const struct store_schema object_schema = {"objects", objects_sql, 1};

static status read_totals(struct object_state *state, struct silo *silo, struct fault *fault)
{
    _cleanup_statement_ struct statement *read = NULL;
    TRY(statement_open(&read, silo->store, "SELECT file_bytes FROM object_totals", fault));
    status found = statement_step(read, fault);
    if (found == NOT_FOUND)
        return FAIL(CORRUPT, fault, "objects: their total is missing");
    TRY(found);
    state->bytes = (uint64_t)statement_int(read, 0);
    return OK;
}

status objects_know(struct silo *silo, struct fault *fault)
{
    struct object_state *state = &silo->objects;
    if (state->known)
        return OK;
    state->exists = false;
    state->bytes = 0;
    if (silo->store != NULL)
        TRY(store_has(&state->exists, silo->store, &object_schema, fault));
    if (state->exists) {
        TRY(store_migrate(silo->store, &object_schema, fault));
        TRY(read_totals(state, silo, fault));
    }
    state->known = true;
    return OK;
}

status objects_make(struct silo *silo, struct fault *fault)
{
    TRY(objects_know(silo, fault));
    if (silo->objects.exists)
        return OK;
    TRY(store_migrate(silo->store, &object_schema, fault));
    silo->objects.exists = true;
    return OK;
}

status objects_blobs(struct blobs **ret, struct silo *silo, struct fault *fault)
{
    struct object_state *state = &silo->objects;
    if (state->blobs == NULL)
        TRY(blobs_open(&state->blobs, silo->silo_fd, silo->tenant_id, silo->io, fault));
    *ret = state->blobs;
    return OK;
}

enum column {
    COLUMN_N, COLUMN_KEY, COLUMN_CLASSIFICATION, COLUMN_BLOB, COLUMN_BYTES, COLUMN_CONTENT_TYPE,
    COLUMN_USER, COLUMN_CREATED, COLUMN_UPDATED
};

static status damaged(struct fault *fault)
{
    return FAIL(CORRUPT, fault, "the stored object is damaged");
}

status object_row_of(struct object_row *ret, struct statement *rows, struct fault *fault)
{
    struct span blob = statement_span(rows, COLUMN_BLOB);
    int64_t classification = statement_int(rows, COLUMN_CLASSIFICATION);
    int64_t bytes = statement_int(rows, COLUMN_BYTES);
    if (blob.length != BLOB_ID_BYTES || classification < 0 || classification >= CLEARANCE_COUNT ||
        bytes < 0 || (uint64_t)bytes > OBJECT_BYTES_MAX)
        return damaged(fault);
    struct object_row row = {
        .n = statement_int(rows, COLUMN_N),
        .key = statement_span(rows, COLUMN_KEY),
        .content_type = statement_span(rows, COLUMN_CONTENT_TYPE),
        .user_id = statement_span(rows, COLUMN_USER),
        .classification = (enum clearance)classification,
        .bytes = (uint64_t)bytes,
        .created_us = statement_int(rows, COLUMN_CREATED),
        .updated_us = statement_int(rows, COLUMN_UPDATED),
    };
    for (size_t i = 0; i < BLOB_ID_BYTES; i++)
        row.blob.bytes[i] = blob.data[i];
    *ret = row;
    return OK;
}

status object_find(struct object_row *ret, struct statement **ret_statement, struct silo *silo,
                   enum clearance classification, struct span key, struct fault *fault)
{
    struct statement *rows;
    TRY(statement_open(&rows, silo->store,
                       OBJECT_COLUMNS "WHERE classification = ?1 AND key = ?2", fault));
    statement_bind_int(rows, 1, classification);
    statement_bind_text(rows, 2, key);
    status found = statement_step(rows, fault);
    if (found == CORRUPT)
        found = damaged(fault);
    if (found == OK)
        found = object_row_of(ret, rows, fault);
    if (found != OK) {
        statement_close(rows);
        return found;
    }
    *ret_statement = rows;
    return OK;
}

static status no_such_object(struct fault *fault)
{
    return FAIL(NOT_FOUND, fault, "there is no such object");
}

/* The same four looks whatever is there, so that what is hidden takes no time of its own. */
status object_visible(struct object_row *ret, struct statement **ret_statement, struct call *call,
                      struct fault *fault)
{
    const struct envelope *envelope = call->request->envelope;
    struct statement *kept = NULL;
    int hidden = -1;
    call->item = call->request->ids[0];
    TRY(objects_know(call->silo, fault));
    for (int i = CLEARANCE_COUNT; call->silo->objects.exists && i-- > 0;) {
        struct object_row row;
        struct statement *rows;
        status found = object_find(&row, &rows, call->silo, (enum clearance)i, call->item, fault);
        if (found == NOT_FOUND)
            continue;
        bool covered = clearance_covers(envelope->clearance, (enum clearance)i);
        if (found != OK && covered && kept == NULL)
            return found; /* of the one that would have been seen */
        if (found != OK)
            continue;
        if (covered && kept == NULL) {
            *ret = row;
            kept = rows;
            continue;
        }
        hidden = covered || hidden >= 0 ? hidden : i;
        statement_close(rows);
    }
    if (kept == NULL) {
        call->hidden = hidden >= 0;
        call->classification = hidden;
        return no_such_object(fault);
    }
    call->classification = (int)ret->classification;
    call->count = 1;
    *ret_statement = kept;
    return OK;
}

status object_blob(struct blob *ret, struct silo *silo, const struct object_row *row,
                   struct fault *fault)
{
    _cleanup_statement_ struct statement *read = NULL;
    TRY(statement_open(&read, silo->store, "SELECT blob_key FROM objects WHERE n = ?1", fault));
    statement_bind_int(read, 1, row->n);
    status found = statement_step(read, fault);
    if (found == NOT_FOUND || found == CORRUPT)
        return damaged(fault);
    TRY(found);
    struct span key = statement_span(read, 0);
    if (key.length != sizeof ret->key)
        return damaged(fault);
    ret->id = row->blob;
    ret->bytes = row->bytes;
    for (size_t i = 0; i < sizeof ret->key; i++)
        ret->key[i] = key.data[i];
    return OK;
}

/* By the blob, which never changes: of two states of a key no two have one, and it says nothing of
 * the bytes. */
void object_etag(char text[OBJECT_ETAG_TEXT], const struct blob_id *blob)
{
    text[0] = '"';
    hex_encode(text + 1, SPAN_OF(blob->bytes));
    text[OBJECT_ETAG_TEXT - 2] = '"';
    text[OBJECT_ETAG_TEXT - 1] = '\0';
}

static void put_time(struct json_writer *writer, const char *name, int64_t wall_us)
{
    char text[CLOCK_TEXT_SIZE];
    clock_text(text, wall_us);
    json_put_text(writer, name, text);
}

void object_put_members(struct json_writer *writer, const struct object_row *row)
{
    char etag[OBJECT_ETAG_TEXT];
    object_etag(etag, &row->blob);
    json_put_string(writer, "key", row->key);
    json_put_integer(writer, "bytes", (int64_t)row->bytes);
    json_put_text(writer, "etag", etag);
    json_put_string(writer, "content_type", row->content_type);
    json_put_text(writer, "classification", clearance_name(row->classification));
    put_time(writer, "created_at", row->created_us);
    put_time(writer, "updated_at", row->updated_us);
    json_put_string(writer, "user_id", row->user_id);
}

void object_put_json(struct json_writer *writer, const struct object_row *row)
{
    json_open_object(writer, NULL);
    object_put_members(writer, row);
    json_close_object(writer);
}

void call_header(struct call *call, enum relay_header kind, struct span value)
{
    struct silo_response *response = call->response;
    assert(response->header_count < sizeof response->headers / sizeof *response->headers);
    assert(response->header_count == 0 ||
           response->headers[response->header_count - 1].kind < kind);
    struct silo_header *header = &response->headers[response->header_count++];
    header->kind = (uint8_t)kind;
    bool fits = span_to_text(header->value, sizeof header->value, value);
    assert(fits);
}
