#include "silo/knowledge.h"

#include "wire/http.h"
#include "wire/json.h"

enum { LIST_EXAMINED_MAX = 10000 }; /* ids looked at for one page; then the page is cut */

/* ---- one document ---- */

static status damaged(struct fault *fault)
{
    return FAIL(CORRUPT, fault, "the stored document is damaged");
}

status document_text(struct buffer *out, struct silo *silo, const struct document_row *row,
                     struct fault *fault)
{
    size_t before = out->length;
    _cleanup_statement_ struct statement *chunks = NULL;
    TRY(statement_open(&chunks, silo->store,
                       "SELECT overlap, text FROM chunks WHERE n BETWEEN ?1 AND ?2 ORDER BY n",
                       fault));
    statement_bind_int(chunks, 1, row->n);
    statement_bind_int(chunks, 2, row->last);
    for (;;) {
        status stepped = statement_step(chunks, fault);
        if (stepped == NOT_FOUND)
            break;
        TRY(stepped);
        int64_t overlap = statement_int(chunks, 0);
        struct span chunk = statement_span(chunks, 1);
        if (overlap < 0 || (uint64_t)overlap > chunk.length)
            return damaged(fault);
        buffer_put(out, (struct span){chunk.data + overlap, chunk.length - (size_t)overlap});
    }
    if (out->failed || out->length - before != (size_t)row->bytes)
        return damaged(fault);
    return OK;
}

static status read_text(struct span *ret, struct call *call, const struct document_row *row,
                        struct fault *fault)
{
    uint8_t *storage = arena_alloc(call->request->arena, (size_t)row->bytes + 1);
    if (storage == NULL)
        return FAIL(TOO_LARGE, fault, "the document does not fit the memory of one request");
    struct buffer text = buffer_over(storage, (size_t)row->bytes);
    TRY(document_text(&text, call->silo, row, fault));
    *ret = buffer_span(&text);
    return OK;
}

/* The instance of the highest classification that the caller covers. */
static status find_visible(struct document_row *ret, struct statement **ret_statement,
                           struct call *call, struct fault *fault)
{
    for (int k = CLEARANCE_COUNT - 1; k >= 0 && call->silo->knowledge.exists; k--) {
        if (!clearance_covers(call->request->envelope->clearance, (enum clearance)k))
            continue;
        status found = document_find(ret, ret_statement, call->silo, (enum clearance)k,
                                     call->item, fault);
        if (found != NOT_FOUND)
            return found;
    }
    return no_such_document(call, call->item, fault);
}

status knowledge_read(struct call *call, struct fault *fault)
{
    struct document_row row = {0};
    struct span text;
    _cleanup_statement_ struct statement *rows = NULL;
    call->item = call->request->ids[0];
    TRY(find_visible(&row, &rows, call, fault));
    call->classification = (int)row.classification;
    call->count = 1;
    TRY(read_text(&text, call, &row, fault));
    call->response->http_status = 200;
    struct json_writer writer = json_writer_on(call->response->body);
    json_open_object(&writer, NULL);
    document_put_members(&writer, &row);
    json_put_string(&writer, "text", text);
    json_close_object(&writer);
    return buffer_check(call->response->body, "the answer", fault);
}

/* ---- the list ---- */

struct list_query {
    bool has_classification;
    enum clearance classification;
    struct span prefix, after;
    uint32_t limit;
    struct span scope; /* what a cursor of this list is bound to */
};

/* The documents of one classification, in the order of their ids. */
struct stream {
    struct statement *rows;
    bool has_row;
    struct document_row row;
};

struct list {
    struct call *call;
    struct list_query query;
    struct stream streams[CLEARANCE_COUNT];
    struct json_writer writer;
    uint32_t count;
    uint8_t last[DOCUMENT_ID_MAX]; /* the id that was looked at last */
    size_t last_length;
};

static status bind_scope(struct list_query *query, const struct call *call, struct fault *fault)
{
    enum { SCOPE_BYTES_MAX = KIB(1) };
    uint8_t *storage = arena_alloc(call->request->arena, SCOPE_BYTES_MAX);
    if (storage == NULL)
        return FAIL(TOO_LARGE, fault, "the query does not fit the memory of one request");
    struct buffer scope = buffer_over(storage, SCOPE_BYTES_MAX);
    buffer_put_text_field(&scope, call->request->action->name);
    buffer_put_u8(&scope, (uint8_t)call->request->envelope->clearance);
    buffer_put_u8(&scope, query->has_classification ? 1 + (uint8_t)query->classification : 0);
    buffer_put_field(&scope, query->prefix);
    TRY(buffer_check(&scope, "query", fault));
    query->scope = buffer_span(&scope);
    return OK;
}

static status read_query(struct list_query *ret, const struct call *call, struct fault *fault)
{
    struct list_query query = {0};
    struct http_query pairs;
    TRY(http_query_parse(&pairs, call->request->arena, call->request->query, fault));
    TRY(http_query_only(&pairs, call->request->action->query, fault));
    TRY(read_limit(&query.limit, http_query_get(&pairs, "limit"), fault));
    const struct span *classification = http_query_get(&pairs, "classification");
    const struct span *prefix = http_query_get(&pairs, "prefix");
    const struct span *cursor = http_query_get(&pairs, "cursor");
    query.has_classification = classification != NULL;
    if (classification != NULL)
        TRY(clearance_read(&query.classification, *classification, "classification", fault));
    if (prefix != NULL)
        query.prefix = *prefix;
    if (query.prefix.length > DOCUMENT_ID_MAX)
        return FAIL(BAD_FIELD, fault, "prefix: at most %d bytes are allowed",
                    (int)DOCUMENT_ID_MAX);
    TRY(bind_scope(&query, call, fault));
    if (cursor != NULL)
        TRY(position_get(&query.after, call, *cursor, query.scope, fault));
    *ret = query;
    return OK;
}

static status advance(struct list *list, struct stream *stream, struct fault *fault)
{
    stream->has_row = false;
    status stepped = document_step(&stream->row, stream->rows, fault);
    if (stepped == NOT_FOUND)
        return OK;
    TRY(stepped);
    stream->has_row = span_starts_with(stream->row.id, list->query.prefix);
    return OK;
}

static status open_streams(struct list *list, struct fault *fault)
{
    const struct list_query *query = &list->query;
    bool begun = query->after.length > 0;
    for (uint32_t k = 0; k < CLEARANCE_COUNT; k++) {
        struct stream *stream = &list->streams[k];
        if (!clearance_covers(list->call->request->envelope->clearance, (enum clearance)k))
            continue;
        TRY(document_list(&stream->rows, list->call->silo, (enum clearance)k,
                          begun ? query->after : query->prefix, begun, fault));
        TRY(advance(list, stream, fault));
    }
    return OK;
}

static void close_streams(struct list *list)
{
    for (uint32_t k = 0; k < CLEARANCE_COUNT; k++)
        list->streams[k].rows = statement_close(list->streams[k].rows);
}

/* Of the least id; of several the highest classification, as GET has it. */
static struct stream *next_stream(struct list *list)
{
    struct stream *next = NULL;
    for (uint32_t k = 0; k < CLEARANCE_COUNT; k++) {
        struct stream *stream = &list->streams[k];
        if (stream->has_row &&
            (next == NULL || span_compare(stream->row.id, next->row.id) <= 0))
            next = stream;
    }
    return next;
}

/* All instances of the id are done with. */
static status pass(struct list *list, struct fault *fault)
{
    struct span id = {list->last, list->last_length};
    for (uint32_t k = 0; k < CLEARANCE_COUNT; k++) {
        struct stream *stream = &list->streams[k];
        if (stream->has_row && span_equal(stream->row.id, id))
            TRY(advance(list, stream, fault));
    }
    return OK;
}

/* ret_cut: more follow. */
static status fill(bool *ret_cut, struct list *list, struct fault *fault)
{
    const struct list_query *query = &list->query;
    struct buffer *body = list->call->response->body;
    uint32_t examined = 0;
    for (struct stream *next = next_stream(list); next != NULL; next = next_stream(list)) {
        bool wanted = !query->has_classification ||
                      next->row.classification == query->classification;
        *ret_cut = examined++ == LIST_EXAMINED_MAX ||
                   (wanted && (list->count == query->limit ||
                               body->length >= KNOWLEDGE_PAGE_BYTES));
        if (*ret_cut)
            return OK;
        if (wanted) {
            json_open_object(&list->writer, NULL);
            document_put_members(&list->writer, &next->row);
            json_close_object(&list->writer);
            list->count++;
        }
        struct buffer last = buffer_over(list->last, sizeof list->last);
        buffer_put(&last, next->row.id);
        TRY(buffer_check(&last, "id", fault));
        list->last_length = last.length;
        TRY(pass(list, fault));
    }
    return OK;
}

static status put_list(struct list *list, struct fault *fault)
{
    bool cut = false;
    struct call *call = list->call;
    list->writer = json_writer_on(call->response->body);
    json_open_object(&list->writer, NULL);
    json_open_array(&list->writer, "data");
    if (call->silo->knowledge.exists) {
        status filled = open_streams(list, fault);
        if (filled == OK)
            filled = fill(&cut, list, fault);
        close_streams(list);
        TRY(filled);
    }
    json_close_array(&list->writer);
    if (cut)
        TRY(position_put(&list->writer, call, (struct span){list->last, list->last_length},
                         list->query.scope, fault));
    else
        json_put_null(&list->writer, "next_cursor");
    json_close_object(&list->writer);
    return buffer_check(call->response->body, "the answer", fault);
}

status knowledge_list(struct call *call, struct fault *fault)
{
    struct list *list = arena_alloc(call->request->arena, sizeof *list);
    if (list == NULL)
        return FAIL(TOO_LARGE, fault, "the list does not fit the memory of one request");
    list->call = call;
    TRY(read_query(&list->query, call, fault));
    TRY(put_list(list, fault));
    call->count = list->count;
    call->response->http_status = 200;
    return OK;
}
