#include "silo/memory.h"

#include "base/clock.h"
#include "wire/http.h"
#include "wire/json.h"

enum { LIST_EXAMINED_MAX = 10000 }; /* rows looked at for one page; then the page is cut */

struct list_query {
    bool has_kind, has_user, has_session;
    enum memory_kind kind;
    struct span user_id, session_id;
    int64_t user;
    uint32_t limit;
    struct memory_id before; /* only items older than this */
    struct span scope;       /* what a cursor of this list is bound to */
};

struct page {
    struct json_writer writer;
    uint32_t count, examined, damaged;
    struct memory_id last;
    bool cut;
};

static void put_part(struct buffer *scope, bool has, struct span text)
{
    buffer_put_u8(scope, has);
    buffer_put_field(scope, text);
}

/* The list a cursor belongs to: action, caller's reach, filters. */
static status bind_scope(struct list_query *query, const struct call *call, struct fault *fault)
{
    const struct envelope *envelope = call->request->envelope;
    enum { SCOPE_BYTES_MAX = KIB(2) };
    uint8_t *storage = arena_alloc(call->request->arena, SCOPE_BYTES_MAX);
    if (storage == NULL)
        return FAIL(TOO_LARGE, fault, "the query does not fit the memory of one request");
    struct buffer scope = buffer_over(storage, SCOPE_BYTES_MAX);
    buffer_put_text_field(&scope, envelope->action->name);
    buffer_put_text_field(&scope, envelope->user);
    put_part(&scope, query->has_user, query->user_id);
    put_part(&scope, query->has_session, query->session_id);
    put_part(&scope, query->has_kind, span_of_text(memory_kind_name(query->kind)));
    TRY(buffer_check(&scope, "query", fault));
    query->scope = buffer_span(&scope);
    return OK;
}

/* A position is an id. */
static status read_position(struct memory_id *ret, const struct call *call, struct span text,
                            struct span scope, struct fault *fault)
{
    struct span position;
    TRY(position_get(&position, call, text, scope, fault));
    struct cursor bytes = cursor_over(position);
    return cursor_copy(ret->bytes, &bytes, sizeof ret->bytes, fault);
}

static status read_list_query(struct list_query *ret, const struct call *call,
                              struct fault *fault)
{
    const struct envelope *envelope = call->request->envelope;
    struct list_query query = {0};
    struct http_query pairs;
    TRY(http_query_parse(&pairs, call->request->arena, call->request->query, fault));
    TRY(http_query_only(&pairs, call->request->action->query, fault));
    TRY(read_limit(&query.limit, http_query_get(&pairs, "limit"), fault));
    const struct span *kind = http_query_get(&pairs, "kind");
    const struct span *user_id = http_query_get(&pairs, "user_id");
    const struct span *session_id = http_query_get(&pairs, "session_id");
    const struct span *cursor = http_query_get(&pairs, "cursor");
    query.has_kind = kind != NULL;
    query.has_user = user_id != NULL || !scope_holds(envelope->scopes, SCOPE_MEMORY_ANY_USER);
    query.has_session = session_id != NULL;
    if (kind != NULL)
        TRY(memory_kind_read(&query.kind, *kind, "kind", fault));
    if (query.has_user)
        query.user_id = user_id != NULL ? *user_id : span_of_text(envelope->user);
    if (user_id != NULL)
        TRY(authz_acts_for(envelope, *user_id, fault));
    if (session_id != NULL) {
        if (session_id->length == 0 || session_id->length > SESSION_MAX)
            return FAIL(BAD_FIELD, fault, "session_id: 1 to %d bytes", (int)SESSION_MAX);
        query.session_id = *session_id;
    }
    TRY(bind_scope(&query, call, fault));
    for (size_t i = 0; i < MEMORY_ID_BYTES; i++)
        query.before.bytes[i] = 0xFF;
    if (cursor != NULL)
        TRY(read_position(&query.before, call, *cursor, query.scope, fault));
    *ret = query;
    return OK;
}

/* Numbers of the rows of the list, newest first. Only indexes are read here, so that a damaged row
 * ends nothing. */
static status open_numbers(struct statement **ret, const struct call *call,
                           const struct list_query *query, struct fault *fault)
{
    static const char by_session[] =
        "SELECT n, id FROM memories INDEXED BY memories_by_session "
        "WHERE user = ?2 AND session_id = ?3 AND id < ?1 ORDER BY id DESC";
    static const char by_user[] = "SELECT n, id FROM memories INDEXED BY memories_by_user "
                                  "WHERE user = ?2 AND id < ?1 ORDER BY id DESC";
    static const char all[] = "SELECT n, id FROM memories INDEXED BY memories_by_id "
                              "WHERE id < ?1 ORDER BY id DESC";
    const char *sql = !query->has_user ? all : query->has_session ? by_session : by_user;
    struct statement *numbers;
    TRY(statement_open(&numbers, call->store, sql, fault));
    statement_bind_blob(numbers, 1, SPAN_OF(query->before.bytes));
    if (query->has_user)
        statement_bind_int(numbers, 2, query->user);
    if (query->has_user && query->has_session)
        statement_bind_text(numbers, 3, query->session_id);
    *ret = numbers;
    return OK;
}

static bool is_wanted(const struct call *call, const struct list_query *query,
                      const struct memory_row *row)
{
    bool hidden = false;
    return memory_row_visible(call, row, &hidden) &&
           (!query->has_kind || row->kind == query->kind) &&
           (!query->has_session || span_equal(row->session_id, query->session_id));
}

/* Only a row that the caller may see can end a full page: so no cursor tells that hidden ones
 * follow. */
static status take_row(struct page *page, const struct call *call, const struct list_query *query,
                       struct statement *rows, int64_t n, struct fault *fault)
{
    struct memory_row row;
    struct fault inner;
    status found = memory_row_get(&row, rows, n, &inner);
    if (found == CORRUPT || found == NOT_FOUND) {
        page->damaged++;
        return OK;
    }
    if (found != OK)
        return FAIL(found, fault, "%s", inner.detail);
    if (!is_wanted(call, query, &row))
        return OK;
    page->cut = page->count == query->limit ||
                call->response->body->length >= MEMORY_PAGE_BYTES;
    if (page->cut)
        return OK;
    memory_row_put(&page->writer, call->silo, &row, NULL);
    page->count++;
    return OK;
}

static status fill(struct page *page, const struct call *call, const struct list_query *query,
                   struct fault *fault)
{
    _cleanup_statement_ struct statement *numbers = NULL, *rows = NULL;
    TRY(open_numbers(&numbers, call, query, fault));
    TRY(memory_row_open(&rows, call->silo, fault));
    for (;;) {
        status stepped = statement_step(numbers, fault);
        if (stepped == NOT_FOUND)
            return OK;
        TRY(stepped);
        page->cut = page->examined == LIST_EXAMINED_MAX;
        if (!page->cut)
            TRY(take_row(page, call, query, rows, statement_int(numbers, 0), fault));
        if (page->cut)
            return OK;
        struct cursor id = cursor_over(statement_span(numbers, 1));
        TRY(cursor_copy(page->last.bytes, &id, sizeof page->last.bytes, fault));
        page->examined++;
    }
}

static status close_page(struct page *page, const struct call *call, struct span scope,
                         struct fault *fault)
{
    json_close_array(&page->writer);
    if (page->cut)
        TRY(position_put(&page->writer, call, SPAN_OF(page->last.bytes), scope, fault));
    else
        json_put_null(&page->writer, "next_cursor");
    if (page->damaged > 0)
        json_put_integer(&page->writer, "damaged", page->damaged);
    json_close_object(&page->writer);
    return buffer_check(call->response->body, "the answer", fault);
}

static void open_page(struct page *page, struct call *call)
{
    *page = (struct page){.writer = json_writer_on(call->response->body)};
    call->response->http_status = 200;
    json_open_object(&page->writer, NULL);
    json_open_array(&page->writer, "data");
}

status memory_list(struct call *call, struct fault *fault)
{
    struct list_query query;
    struct page page;
    TRY(read_list_query(&query, call, fault));
    open_page(&page, call);
    status found = !call->silo->memory.exists ? NOT_FOUND
                   : query.has_user ? memory_user_find(&query.user, call->silo, query.user_id,
                                                       fault)
                                    : OK;
    if (found == OK)
        TRY(fill(&page, call, &query, fault));
    else if (found != NOT_FOUND)
        return found;
    call->count = page.count;
    return close_page(&page, call, query.scope, fault);
}

status memory_read(struct call *call, struct fault *fault)
{
    struct memory_row row;
    _cleanup_statement_ struct statement *rows = NULL;
    TRY(memory_item(&row, &rows, call, fault));
    struct json_writer writer = json_writer_on(call->response->body);
    call->response->http_status = 200;
    memory_row_put(&writer, call->silo, &row, NULL);
    return OK;
}

static void put_version(struct json_writer *writer, int64_t version, int64_t updated_us,
                        struct span metadata, struct span text)
{
    char time[CLOCK_TEXT_SIZE];
    clock_text(time, updated_us);
    json_open_object(writer, NULL);
    json_put_integer(writer, "version", version);
    json_put_string(writer, "text", text);
    json_put_raw(writer, "metadata", metadata.length > 0 ? metadata : SPAN("{}"));
    json_put_text(writer, "updated_at", time);
    json_close_object(writer);
}

/* A version as a position: the low eight bytes. */
static void version_position(struct page *page, int64_t version)
{
    for (size_t i = MEMORY_ID_BYTES; i-- > 0; version >>= 8)
        page->last.bytes[i] = (uint8_t)version;
}

/* Versions before that one, the newest first. */
static status open_versions(struct statement **ret, struct silo *silo,
                            const struct memory_row *row, int64_t before, struct fault *fault)
{
    TRY(statement_open(ret, silo->store,
                       "SELECT version, updated_at, metadata, text FROM memory_versions "
                       "WHERE n = ?1 AND version < ?2 ORDER BY version DESC", fault));
    statement_bind_int(*ret, 1, row->n);
    statement_bind_int(*ret, 2, before);
    return OK;
}

static void put_stored_version(struct json_writer *writer, struct statement *versions)
{
    put_version(writer, statement_int(versions, 0), statement_int(versions, 1),
                statement_span(versions, 2), statement_span(versions, 3));
}

status memory_put_versions(struct json_writer *writer, struct silo *silo,
                           const struct memory_row *row, struct fault *fault)
{
    _cleanup_statement_ struct statement *versions = NULL;
    TRY(memory_know(silo, fault));
    if (!silo->memory.has_versions)
        return OK;
    TRY(open_versions(&versions, silo, row, row->version, fault));
    for (;;) {
        status stepped = statement_step(versions, fault);
        if (stepped == NOT_FOUND)
            return OK;
        TRY(stepped);
        put_stored_version(writer, versions);
    }
}

static status put_older(struct page *page, struct call *call, const struct memory_row *row,
                        int64_t before, uint32_t limit, struct fault *fault)
{
    _cleanup_statement_ struct statement *versions = NULL;
    TRY(open_versions(&versions, call->silo, row, before, fault));
    for (;;) {
        status stepped = statement_step(versions, fault);
        if (stepped == NOT_FOUND)
            return OK;
        TRY(stepped);
        page->cut = page->count == limit || call->response->body->length >= MEMORY_PAGE_BYTES;
        if (page->cut)
            return OK;
        version_position(page, statement_int(versions, 0));
        put_stored_version(&page->writer, versions);
        page->count++;
    }
}

/* A cursor of a history is bound to the item by its id. */
static status read_history_query(uint32_t *ret_limit, int64_t *before, const struct call *call,
                                 struct fault *fault)
{
    struct http_query pairs;
    TRY(http_query_parse(&pairs, call->request->arena, call->request->query, fault));
    TRY(http_query_only(&pairs, call->request->action->query, fault));
    TRY(read_limit(ret_limit, http_query_get(&pairs, "limit"), fault));
    const struct span *cursor = http_query_get(&pairs, "cursor");
    if (cursor == NULL)
        return OK;
    struct memory_id position;
    TRY(read_position(&position, call, *cursor, call->item, fault));
    uint64_t version = 0;
    for (size_t i = MEMORY_ID_BYTES - sizeof version; i < MEMORY_ID_BYTES; i++)
        version = version << 8 | position.bytes[i];
    *before = (int64_t)version;
    return OK;
}

status memory_history(struct call *call, struct fault *fault)
{
    struct memory_row row;
    struct page page;
    uint32_t limit;
    int64_t before = INT64_MAX;
    _cleanup_statement_ struct statement *rows = NULL;
    TRY(memory_item(&row, &rows, call, fault));
    TRY(read_history_query(&limit, &before, call, fault));
    open_page(&page, call);
    if (row.version < before) {
        version_position(&page, row.version);
        put_version(&page.writer, row.version, row.updated_us, row.metadata, row.text);
        page.count++;
    }
    if (call->silo->memory.has_versions)
        TRY(put_older(&page, call, &row, before, limit, fault));
    call->count = page.count;
    return close_page(&page, call, call->item, fault);
}
