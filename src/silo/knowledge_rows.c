#include "silo/knowledge.h"

#include "base/clock.h"
#include "wire/json.h"

static const char *const versions_sql[] = {
    "CREATE TABLE documents ("
    " n INTEGER PRIMARY KEY, last INTEGER NOT NULL, id TEXT NOT NULL,"
    " classification INTEGER NOT NULL, version INTEGER NOT NULL, bytes INTEGER NOT NULL,"
    " created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL, user_id TEXT NOT NULL,"
    " title TEXT, metadata TEXT);"
    "CREATE UNIQUE INDEX documents_by_id ON documents (classification, id);"
    "CREATE TABLE chunks (n INTEGER PRIMARY KEY, overlap INTEGER NOT NULL, heading TEXT,"
    " text TEXT NOT NULL);"
    "CREATE TABLE knowledge_totals (classification INTEGER PRIMARY KEY, next INTEGER NOT NULL,"
    " chunks INTEGER NOT NULL, lengths INTEGER NOT NULL);"
    "CREATE TABLE knowledge_indexes (classification INTEGER PRIMARY KEY,"
    " generation INTEGER NOT NULL, built_to INTEGER NOT NULL, stale INTEGER NOT NULL);",
};
const struct store_schema knowledge_schema = {"knowledge", versions_sql, 1};

status knowledge_know(struct silo *silo, struct fault *fault)
{
    bool exists;
    if (silo->knowledge.known)
        return OK;
    TRY(store_has(&exists, silo->store, &knowledge_schema, fault));
    if (exists)
        TRY(store_migrate(silo->store, &knowledge_schema, fault));
    silo->knowledge.exists = exists;
    silo->knowledge.known = true;
    return OK;
}

status knowledge_make(struct silo *silo, struct fault *fault)
{
    TRY(knowledge_know(silo, fault));
    if (silo->knowledge.exists)
        return OK;
    TRY(store_migrate(silo->store, &knowledge_schema, fault));
    silo->knowledge.exists = true;
    return OK;
}

void knowledge_forget(struct silo *silo)
{
    silo->knowledge.known = false;
    silo->knowledge.totals_known = false;
    fulltext_forget(&silo->knowledge.fulltext);
}

status knowledge_know_totals(struct silo *silo, struct fault *fault)
{
    struct knowledge_totals totals[CLEARANCE_COUNT] = {{1, 0, 0}, {1, 0, 0}, {1, 0, 0}, {1, 0, 0}};
    if (silo->knowledge.totals_known)
        return OK;
    _cleanup_statement_ struct statement *rows = NULL;
    TRY(statement_open(&rows, silo->store,
                       "SELECT classification, next, chunks, lengths FROM knowledge_totals",
                       fault));
    for (;;) {
        status stepped = statement_step(rows, fault);
        if (stepped == NOT_FOUND)
            break;
        TRY(stepped);
        int64_t k = statement_int(rows, 0);
        if (k < 0 || k >= CLEARANCE_COUNT)
            return FAIL(CORRUPT, fault, "documents of no classification");
        totals[k] = (struct knowledge_totals){statement_int(rows, 1), statement_int(rows, 2),
                                              statement_int(rows, 3)};
    }
    for (uint32_t k = 0; k < CLEARANCE_COUNT; k++)
        silo->knowledge.totals[k] = totals[k];
    silo->knowledge.totals_known = true;
    return OK;
}

status knowledge_save_totals(struct silo *silo, enum clearance classification,
                             const struct knowledge_totals *totals, struct fault *fault)
{
    _cleanup_statement_ struct statement *put = NULL;
    TRY(statement_open(&put, silo->store,
                       "INSERT OR REPLACE INTO knowledge_totals (classification, next, chunks, "
                       "lengths) VALUES (?1, ?2, ?3, ?4)", fault));
    statement_bind_int(put, 1, classification);
    statement_bind_int(put, 2, totals->next);
    statement_bind_int(put, 3, totals->chunks);
    statement_bind_int(put, 4, totals->lengths);
    TRY(statement_run(put, fault));
    silo->knowledge.totals[classification] = *totals;
    return OK;
}

int64_t chunk_number(enum clearance classification, int64_t place, uint32_t length)
{
    return (int64_t)classification << CLASSIFICATION_SHIFT | place << LENGTH_BITS | length;
}

int64_t chunk_place(int64_t n)
{
    return (n & ((INT64_C(1) << CLASSIFICATION_SHIFT) - 1)) >> LENGTH_BITS;
}

int64_t document_chunks(const struct document_row *row)
{
    return chunk_place(row->last) - chunk_place(row->n) + 1;
}

#define ROW_COLUMNS                                                                   \
    "SELECT n, last, id, classification, version, bytes, created_at, updated_at, "    \
    "user_id, title, metadata FROM documents "

enum row_column {
    ROW_N, ROW_LAST, ROW_ID, ROW_CLASSIFICATION, ROW_VERSION, ROW_BYTES, ROW_CREATED, ROW_UPDATED,
    ROW_USER, ROW_TITLE, ROW_METADATA
};

static status damaged(struct fault *fault)
{
    return FAIL(CORRUPT, fault, "the stored document is damaged");
}

status document_step(struct document_row *ret, struct statement *rows, struct fault *fault)
{
    status stepped = statement_step(rows, fault);
    if (stepped == CORRUPT)
        return damaged(fault);
    TRY(stepped);
    struct document_row row = {
        .n = statement_int(rows, ROW_N),
        .last = statement_int(rows, ROW_LAST),
        .id = statement_span(rows, ROW_ID),
        .classification = (enum clearance)statement_int(rows, ROW_CLASSIFICATION),
        .version = statement_int(rows, ROW_VERSION),
        .bytes = statement_int(rows, ROW_BYTES),
        .created_us = statement_int(rows, ROW_CREATED),
        .updated_us = statement_int(rows, ROW_UPDATED),
        .user_id = statement_span(rows, ROW_USER),
        .title = statement_span(rows, ROW_TITLE),
        .metadata = statement_span(rows, ROW_METADATA),
    };
    if (row.n < 0 || row.last <= row.n || row.bytes < 0 || row.bytes > DOCUMENT_TEXT_MAX ||
        row.n >> CLASSIFICATION_SHIFT != row.last >> CLASSIFICATION_SHIFT ||
        statement_int(rows, ROW_CLASSIFICATION) != row.n >> CLASSIFICATION_SHIFT)
        return damaged(fault);
    *ret = row;
    return OK;
}

status document_find(struct document_row *ret, struct statement **ret_statement,
                     struct silo *silo, enum clearance classification, struct span id,
                     struct fault *fault)
{
    struct statement *rows;
    TRY(statement_open(&rows, silo->store, ROW_COLUMNS "WHERE classification = ?1 AND id = ?2",
                       fault));
    statement_bind_int(rows, 1, classification);
    statement_bind_text(rows, 2, id);
    status found = document_step(ret, rows, fault);
    if (found != OK) {
        statement_close(rows);
        return found;
    }
    *ret_statement = rows;
    return OK;
}

status document_open(struct statement **ret, struct silo *silo, struct fault *fault)
{
    return statement_open(ret, silo->store,
                          ROW_COLUMNS "WHERE n <= ?1 ORDER BY n DESC LIMIT 1", fault);
}

status document_of(struct document_row *ret, struct statement *rows, int64_t n,
                   struct fault *fault)
{
    struct document_row row;
    statement_reset(rows);
    statement_bind_int(rows, 1, n);
    TRY(document_step(&row, rows, fault));
    if (n > row.last)
        return damaged(fault);
    *ret = row;
    return OK;
}

status document_list(struct statement **ret, struct silo *silo, enum clearance classification,
                     struct span from, bool after, struct fault *fault)
{
    static const char begin[] = ROW_COLUMNS "INDEXED BY documents_by_id "
                                "WHERE classification = ?1 AND id >= ?2 ORDER BY id";
    static const char go_on[] = ROW_COLUMNS "INDEXED BY documents_by_id "
                                "WHERE classification = ?1 AND id > ?2 ORDER BY id";
    TRY(statement_open(ret, silo->store, after ? go_on : begin, fault));
    statement_bind_int(*ret, 1, classification);
    statement_bind_text(*ret, 2, from);
    return OK;
}

static void put_time(struct json_writer *writer, const char *name, int64_t wall_us)
{
    char text[CLOCK_TEXT_SIZE];
    clock_text(text, wall_us);
    json_put_text(writer, name, text);
}

void document_put_members(struct json_writer *writer, const struct document_row *row)
{
    json_put_string(writer, "id", row->id);
    if (row->title.length > 0)
        json_put_string(writer, "title", row->title);
    else
        json_put_null(writer, "title");
    json_put_text(writer, "classification", clearance_name(row->classification));
    json_put_raw(writer, "metadata", row->metadata.length > 0 ? row->metadata : SPAN("{}"));
    json_put_integer(writer, "version", row->version);
    json_put_integer(writer, "chunks", document_chunks(row));
    json_put_integer(writer, "bytes", row->bytes);
    put_time(writer, "created_at", row->created_us);
    put_time(writer, "updated_at", row->updated_us);
    json_put_string(writer, "user_id", row->user_id);
}

/* The entry of the audit log knows whether it is there for others. All are looked for, whatever is
 * found: the time says nothing. */
status no_such_document(struct call *call, struct span id, struct fault *fault)
{
    for (uint32_t k = 0; k < CLEARANCE_COUNT && call->silo->knowledge.exists; k++) {
        struct document_row row;
        struct statement *rows = NULL;
        struct fault none;
        if (clearance_covers(call->request->envelope->clearance, (enum clearance)k))
            continue;
        status found = document_find(&row, &rows, call->silo, (enum clearance)k, id, &none);
        call->hidden |= found == OK || found == CORRUPT;
        if (call->hidden)
            call->classification = (int)k;
        statement_close(rows);
    }
    return FAIL(NOT_FOUND, fault, "there is no such document");
}
