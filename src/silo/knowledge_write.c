#include "silo/knowledge.h"

#include "base/cursor.h"
#include "silo/fields.h"
#include "wire/json.h"

/* A document as a body brings it. */
struct new_document {
    struct document_row row;
    struct span text;
    struct chunk_options options;
};

static status read_options(struct chunk_options *ret, const struct json *body,
                           struct fault *fault)
{
    static const char *const names[] = {"bytes", "overlap", NULL};
    const struct json *chunk = json_member(body, "chunk");
    int64_t bytes = CHUNK_BYTES_DEFAULT, overlap = -1;
    if (chunk != NULL && chunk->kind != JSON_NULL) {
        TRY(json_need_object(chunk, "chunk", fault));
        TRY(json_only(chunk, names, fault));
        TRY(json_optional_integer(&bytes, chunk, "bytes", CHUNK_BYTES_MIN, CHUNK_BYTES_MAX,
                                  fault));
        TRY(json_optional_integer(&overlap, chunk, "overlap", 0, bytes / 2, fault));
    }
    if (overlap < 0)
        overlap = bytes * CHUNK_OVERLAP_DEFAULT / CHUNK_BYTES_DEFAULT;
    *ret = (struct chunk_options){(uint32_t)bytes, (uint32_t)overlap};
    return OK;
}

static status read_new(struct new_document *ret, const struct call *call,
                       const struct json *body, struct fault *fault)
{
    static const char *const names[] = {"id", "title", "text", "metadata", "classification",
                                        "chunk", NULL};
    const struct envelope *envelope = call->request->envelope;
    struct new_document new = {.row = {.version = 1,
                                       .created_us = call->request->now_us,
                                       .updated_us = call->request->now_us,
                                       .user_id = span_of_text(envelope->user)}};
    TRY(json_only(body, call->request->line == 0 ? names + 1 : names, fault));
    TRY(json_text(&new.text, body, "text", 1, DOCUMENT_TEXT_MAX, fault));
    TRY(json_optional_text(&new.row.title, body, "title", 1, DOCUMENT_TITLE_MAX, fault));
    TRY(field_metadata(&new.row.metadata, body, DOCUMENT_METADATA_MAX, fault));
    TRY(read_options(&new.options, body, fault));
    if (new.text.length / new.options.bytes > DOCUMENT_CHUNKS_MAX)
        return FAIL(BAD_FIELD, fault, "chunk.bytes: too few for so long a text: at most %d chunks",
                    (int)DOCUMENT_CHUNKS_MAX);
    TRY(field_classification_in(&new.row.classification, body, envelope, fault));
    new.row.bytes = (int64_t)new.text.length;
    new.row.id = call->item;
    *ret = new;
    return OK;
}

static status run_on_range(struct silo *silo, const char *sql, int64_t from, int64_t to,
                           struct fault *fault)
{
    _cleanup_statement_ struct statement *statement = NULL;
    TRY(statement_open(&statement, silo->store, sql, fault));
    statement_bind_int(statement, 1, from);
    statement_bind_int(statement, 2, to);
    return statement_run(statement, fault);
}

static status sum_lengths(int64_t *ret, struct silo *silo, const struct document_row *row,
                          struct fault *fault)
{
    _cleanup_statement_ struct statement *sum = NULL;
    TRY(statement_open(&sum, silo->store,
                       "SELECT sum(n & 255) FROM chunks WHERE n BETWEEN ?1 AND ?2", fault));
    statement_bind_int(sum, 1, row->n);
    statement_bind_int(sum, 2, row->last);
    TRY(statement_step(sum, fault));
    *ret = statement_int(sum, 0);
    return OK;
}

/* The row and all that belongs to it, from every table and index. */
static status remove_document(struct silo *silo, const struct document_row *row,
                              struct fault *fault)
{
    enum clearance classification = row->classification;
    int64_t within = chunk_number(0, chunk_place(row->n), 0), lengths;
    int64_t last = chunk_number(0, chunk_place(row->last), 255);
    TRY(knowledge_know_totals(silo, fault));
    TRY(sum_lengths(&lengths, silo, row, fault));
    TRY(fulltext_remove(&silo->knowledge.fulltext, silo, classification, within, last, fault));
    TRY(run_on_range(silo, "DELETE FROM chunks WHERE n BETWEEN ?1 AND ?2", row->n, row->last,
                     fault));
    TRY(run_on_range(silo, "DELETE FROM documents WHERE n = ?1 AND last = ?2", row->n, row->last,
                     fault));
    struct knowledge_totals totals = silo->knowledge.totals[classification];
    totals.chunks -= document_chunks(row);
    totals.lengths -= lengths;
    return knowledge_save_totals(silo, classification, &totals, fault);
}

/* What was there before: of all that the caller covers, and what of it goes on in a successor. */
struct removed {
    int64_t count;
    enum clearance classification;   /* of the highest */
    int lowest;                      /* of all; CLEARANCE_COUNT: there were none */
    int64_t version, created_us;     /* 0: nothing goes on */
};

/* reach: of the successor. Whoever sees that learns only of instances that it could see as well, so
 * only their version and the time when the highest of them was made go on. */
static void take_over(struct removed *removed, const struct document_row *row,
                      enum clearance reach)
{
    if (removed->count++ == 0)
        removed->classification = row->classification;
    removed->lowest = (int)row->classification; /* they come from the highest on */
    if (!clearance_covers(reach, row->classification))
        return;
    if (removed->created_us == 0)
        removed->created_us = row->created_us;
    if (row->version > removed->version)
        removed->version = row->version;
}

/* Removes every instance that the caller covers. */
static status remove_covered(struct removed *ret, struct call *call, enum clearance reach,
                             struct fault *fault)
{
    struct removed removed = {.lowest = CLEARANCE_COUNT};
    for (int k = CLEARANCE_COUNT - 1; k >= 0; k--) {
        struct document_row row;
        struct statement *rows;
        if (!clearance_covers(call->request->envelope->clearance, (enum clearance)k))
            continue;
        status found = document_find(&row, &rows, call->silo, (enum clearance)k, call->item,
                                     fault);
        if (found == NOT_FOUND)
            continue;
        TRY(found);
        statement_close(rows);
        row.id = row.title = row.metadata = row.user_id = (struct span){0};
        TRY(remove_document(call->silo, &row, fault));
        take_over(&removed, &row, reach);
    }
    *ret = removed;
    return OK;
}

static status insert_row(struct silo *silo, const struct document_row *row, struct fault *fault)
{
    _cleanup_statement_ struct statement *insert = NULL;
    TRY(statement_open(&insert, silo->store,
                       "INSERT INTO documents (n, last, id, classification, version, bytes, "
                       "created_at, updated_at, user_id, title, metadata) "
                       "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)", fault));
    statement_bind_int(insert, 1, row->n);
    statement_bind_int(insert, 2, row->last);
    statement_bind_text(insert, 3, row->id);
    statement_bind_int(insert, 4, row->classification);
    statement_bind_int(insert, 5, row->version);
    statement_bind_int(insert, 6, row->bytes);
    statement_bind_int(insert, 7, row->created_us);
    statement_bind_int(insert, 8, row->updated_us);
    statement_bind_text(insert, 9, row->user_id);
    field_bind(insert, 10, row->title);
    field_bind(insert, 11, row->metadata);
    return statement_run(insert, fault);
}

static status insert_chunk(struct statement *insert, int64_t n, const struct chunk *chunk,
                           struct fault *fault)
{
    statement_reset(insert);
    statement_bind_int(insert, 1, n);
    statement_bind_int(insert, 2, chunk->overlap);
    field_bind(insert, 3, chunk->heading);
    statement_bind_text(insert, 4, chunk->text);
    return statement_run(insert, fault);
}

/* Chunks, and their numbers to the index. */
static status insert_chunks(struct knowledge_totals *totals, struct silo *silo,
                            const struct new_document *new, struct fault *fault)
{
    struct fulltext *fulltext = &silo->knowledge.fulltext;
    struct chunker chunker = chunker_of(new->text, new->options);
    struct chunk chunk;
    _cleanup_statement_ struct statement *insert = NULL;
    TRY(statement_open(&insert, silo->store,
                       "INSERT INTO chunks (n, overlap, heading, text) VALUES (?1, ?2, ?3, ?4)",
                       fault));
    while (chunk_next(&chunk, &chunker)) {
        uint32_t length = ((uint32_t)chunk.text.length + LENGTH_UNIT - 1) / LENGTH_UNIT;
        int64_t n = chunk_number(new->row.classification, totals->next, length);
        TRY(insert_chunk(insert, n, &chunk, fault));
        TRY(fulltext_add(fulltext, silo, new->row.classification,
                         chunk_number(0, totals->next, length), fault));
        totals->next++;
        totals->chunks++;
        totals->lengths += length;
    }
    return OK;
}

/* The row comes first, since the index reads the title there, and learns its end when all chunks
 * are in. */
static status insert_document(struct new_document *new, struct silo *silo, struct fault *fault)
{
    enum clearance classification = new->row.classification;
    TRY(knowledge_know_totals(silo, fault));
    struct knowledge_totals totals = silo->knowledge.totals[classification];
    new->row.n = chunk_number(classification, totals.next, 0);
    new->row.last = chunk_number(classification, totals.next, 255);
    int64_t first_last = new->row.last;
    TRY(insert_row(silo, &new->row, fault));
    TRY(insert_chunks(&totals, silo, new, fault));
    new->row.last = chunk_number(classification, totals.next - 1, 255);
    if (new->row.last != first_last)
        TRY(run_on_range(silo, "UPDATE documents SET last = ?2 WHERE n = ?1", new->row.n,
                         new->row.last, fault));
    return knowledge_save_totals(silo, classification, &totals, fault);
}

/* call->item names it. */
static status put(struct new_document *new, struct call *call, const struct json *body,
                  struct fault *fault)
{
    struct removed removed;
    TRY(read_new(new, call, body, fault));
    TRY(knowledge_make(call->silo, fault));
    TRY(remove_covered(&removed, call, new->row.classification, fault));
    if (removed.version > 0) {
        new->row.version = removed.version + 1;
        new->row.created_us = removed.created_us;
    }
    TRY(insert_document(new, call->silo, fault));
    call->classification = (int)new->row.classification;
    call->gone = removed.lowest;
    call->count = 1;
    call->response->http_status = removed.count > 0 ? 200 : 201;
    return OK;
}

status knowledge_put(struct call *call, struct fault *fault)
{
    struct json body;
    struct new_document new;
    call->item = call->request->ids[0];
    TRY(call_body(&body, call, fault));
    TRY(put(&new, call, &body, fault));
    struct json_writer writer = json_writer_on(call->response->body);
    json_open_object(&writer, NULL);
    document_put_members(&writer, &new.row);
    json_close_object(&writer);
    return OK;
}

/* What a path can name. */
static status read_id(struct span *ret, const struct json *body, struct fault *fault)
{
    struct span id;
    TRY(json_text(&id, body, "id", 1, DOCUMENT_ID_MAX, fault));
    if (!span_is_plain_text(id) || span_find(id, '/') < id.length || span_is(id, ".") ||
        span_is(id, "..") || span_is(id, "batch"))
        return FAIL(BAD_FIELD, fault, "id: 1 to %d bytes without control characters and '/', "
                    "and neither '.' nor '..' nor 'batch'", (int)DOCUMENT_ID_MAX);
    *ret = id;
    return OK;
}

/* What a repeat of a line is answered from: u64 version, u64 chunks. */
enum { REFERENCE_BYTES = 16 };

static status refer(struct call *call, const struct document_row *row, struct fault *fault)
{
    uint8_t storage[REFERENCE_BYTES];
    struct buffer bytes = buffer_over(storage, sizeof storage);
    buffer_put_u64(&bytes, (uint64_t)row->version);
    buffer_put_u64(&bytes, (uint64_t)document_chunks(row));
    call->reference = arena_copy(call->request->arena, buffer_span(&bytes));
    return call->reference.data != NULL
               ? OK
               : FAIL(TOO_LARGE, fault, "the document does not fit the memory of one request");
}

static void answer_line(struct call *call, int http_status, int64_t version, int64_t chunks)
{
    struct json_writer writer = json_writer_on(call->response->body);
    call->response->http_status = http_status;
    json_open_object(&writer, NULL);
    json_put_integer(&writer, "line", (int64_t)call->request->line);
    json_put_string(&writer, "id", call->item);
    json_put_integer(&writer, "status", http_status);
    json_put_integer(&writer, "version", version);
    json_put_integer(&writer, "chunks", chunks);
    json_close_object(&writer);
}

static status read_line(struct json *ret, struct call *call, struct fault *fault)
{
    if (call->request->line == 0)
        return FAIL(UNSUPPORTED_MEDIA, fault, "the body must be application/x-ndjson");
    TRY(json_parse(ret, call->request->arena, call->request->body, fault));
    TRY(json_need_object(ret, "the line", fault));
    return read_id(&call->item, ret, fault);
}

status knowledge_batch(struct call *call, struct fault *fault)
{
    struct json body;
    struct new_document new;
    TRY(read_line(&body, call, fault));
    TRY(put(&new, call, &body, fault));
    TRY(refer(call, &new.row, fault));
    answer_line(call, call->response->http_status, new.row.version, document_chunks(&new.row));
    return OK;
}

status knowledge_batch_again(struct call *call, int http_status, struct span reference,
                             struct fault *fault)
{
    struct json body;
    uint64_t version, chunks;
    struct cursor cursor = cursor_over(reference);
    TRY(read_line(&body, call, fault));
    TRY(cursor_u64(&version, &cursor, fault));
    TRY(cursor_u64(&chunks, &cursor, fault));
    call->count = 1;
    answer_line(call, http_status, (int64_t)version, (int64_t)chunks);
    return OK;
}

status knowledge_delete(struct call *call, struct fault *fault)
{
    struct removed removed = {0};
    call->item = call->request->ids[0];
    if (call->silo->knowledge.exists)
        TRY(remove_covered(&removed, call, CLEARANCE_PUBLIC, fault));
    if (removed.count == 0)
        return no_such_document(call, call->item, fault);
    call->classification = (int)removed.classification;
    call->gone = removed.lowest;
    call->count = 1;
    call->response->http_status = 204;
    return OK;
}
