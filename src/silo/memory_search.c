#include "silo/memory.h"

#include "silo/filter.h"
#include "wire/json.h"

enum {
    SEARCH_EXAMINED_MAX = 20000, /* rows looked at for one search */
    MATCH_MAX = 4 * SEARCH_QUERY_MAX, /* every term quoted and joined */
};

struct search_query {
    struct span text;
    bool has_user, has_session;
    struct span user_id, session_id;
    uint32_t kinds; /* bit set */
    const struct filter *filter;
    uint32_t limit;
};

/* Hits of one index, best first. */
struct stream {
    struct statement *hits;
    bool has_hit;
    int64_t n;
    double rank; /* of FTS5: the lower the better */
};

struct search {
    struct call *call;
    struct search_query query;
    char match[MATCH_MAX];
    struct stream streams[CLEARANCE_COUNT];
    struct statement *rows;
    struct arena scratch; /* of one item's metadata */
    struct json_writer writer;
    uint32_t count, examined, damaged;
};

static status read_kinds(uint32_t *ret, const struct json *body, struct fault *fault)
{
    const struct json *kinds = json_member(body, "kinds");
    *ret = (1u << MEMORY_KINDS) - 1;
    if (kinds == NULL || kinds->kind == JSON_NULL)
        return OK;
    if (kinds->kind != JSON_ARRAY || kinds->count == 0)
        return FAIL(BAD_FIELD, fault, "kinds: must be an array of kinds, not empty");
    *ret = 0;
    for (uint32_t i = 0; i < kinds->count; i++) {
        enum memory_kind kind;
        if (kinds->items[i].kind != JSON_STRING)
            return FAIL(BAD_FIELD, fault, "kinds: must be an array of kinds, not empty");
        TRY(memory_kind_read(&kind, kinds->items[i].string, "kinds", fault));
        *ret |= 1u << kind;
    }
    return OK;
}

static status read_search(struct search_query *ret, const struct call *call,
                          const struct json *body, struct fault *fault)
{
    static const char *const names[] = {"query", "vector", "user_id", "session_id", "kinds",
                                        "limit", "filter", NULL};
    const struct envelope *envelope = call->request->envelope;
    struct search_query query = {0};
    int64_t limit = LIST_LIMIT_DEFAULT;
    TRY(json_only(body, names, fault));
    const struct json *vector = json_member(body, "vector");
    if (vector != NULL && vector->kind != JSON_NULL)
        return FAIL(NOT_IMPLEMENTED, fault, "vector: memories are searched by words only, not yet "
                    "by vectors");
    TRY(json_text(&query.text, body, "query", 1, SEARCH_QUERY_MAX, fault));
    TRY(json_optional_text(&query.user_id, body, "user_id", 1, USER_MAX, fault));
    if (query.user_id.length > 0)
        TRY(authz_acts_for(envelope, query.user_id, fault));
    else if (!scope_holds(envelope->scopes, SCOPE_MEMORY_ANY_USER))
        query.user_id = span_of_text(envelope->user);
    query.has_user = query.user_id.length > 0;
    TRY(json_optional_text(&query.session_id, body, "session_id", 1, SESSION_MAX, fault));
    query.has_session = query.session_id.length > 0;
    TRY(read_kinds(&query.kinds, body, fault));
    TRY(json_optional_integer(&limit, body, "limit", 1, LIST_LIMIT_MAX, fault));
    TRY(filter_read(&query.filter, call->request->arena, json_member(body, "filter"), fault));
    query.limit = (uint32_t)limit;
    *ret = query;
    return OK;
}

/* Letters and digits, and all beyond ASCII: FTS5's tokenizer folds and divides those. */
static bool is_word_byte(uint8_t byte)
{
    return (byte >= '0' && byte <= '9') || (byte >= 'a' && byte <= 'z') ||
           (byte >= 'A' && byte <= 'Z') || byte >= 0x80;
}

static bool next_word(struct span *ret, struct span *text)
{
    size_t from = 0;
    while (from < text->length && !is_word_byte(text->data[from]))
        from++;
    size_t to = from;
    while (to < text->length && is_word_byte(text->data[to]))
        to++;
    *ret = (struct span){text->data + from, to - from};
    *text = (struct span){text->data + to, text->length - to};
    return to > from;
}

/* FTS5's query language is never given the user's text but as quoted words: any of them may match.
 */
static status put_match(struct search *search, bool has_user, int64_t user, bool *ret_empty,
                        struct fault *fault)
{
    struct span words[SEARCH_TERMS_MAX], text = search->query.text;
    uint32_t count = 0;
    struct span word;
    struct buffer match = buffer_over((uint8_t *)search->match, sizeof search->match);
    if (has_user)
        buffer_printf(&match, "{who} : \"u%lld\" AND ", (long long)user);
    buffer_put_text(&match, "{text} : (");
    while (count < SEARCH_TERMS_MAX && next_word(&word, &text)) {
        bool again = false;
        for (uint32_t i = 0; i < count && !again; i++)
            again = span_equal(words[i], word);
        if (again)
            continue;
        buffer_put_text(&match, count == 0 ? "\"" : " OR \"");
        buffer_put(&match, word);
        buffer_put_text(&match, "\"");
        words[count++] = word;
    }
    buffer_put_text(&match, ")");
    buffer_put_u8(&match, 0);
    *ret_empty = count == 0;
    return buffer_check(&match, "query", fault);
}

static status advance(struct stream *stream, struct fault *fault)
{
    stream->has_hit = false;
    status stepped = statement_step(stream->hits, fault);
    if (stepped == NOT_FOUND)
        return OK;
    TRY(stepped);
    stream->has_hit = true;
    stream->n = statement_int(stream->hits, 0);
    stream->rank = statement_double(stream->hits, 1);
    return OK;
}

static void close_streams(struct search *search)
{
    for (uint32_t k = 0; k < CLEARANCE_COUNT; k++) {
        search->streams[k].hits = statement_close(search->streams[k].hits);
        search->streams[k].has_hit = false;
    }
}

/* CORRUPT: *ret_damaged is the index that could not be read. Indexes above the caller's clearance
 * are not even opened. */
static status open_streams(struct search *search, enum clearance *ret_damaged, struct fault *fault)
{
    struct silo *silo = search->call->silo;
    enum clearance clearance = search->call->request->envelope->clearance;
    for (uint32_t k = 0; k < CLEARANCE_COUNT; k++) {
        struct stream *stream = &search->streams[k];
        if (!silo->memory.fulltext.indexes[k].exists ||
            !clearance_covers(clearance, (enum clearance)k))
            continue;
        *ret_damaged = (enum clearance)k;
        TRY(fulltext_open(&stream->hits, &silo->memory.fulltext, silo, (enum clearance)k, fault));
        statement_bind_text(stream->hits, 1, span_of_text(search->match));
        TRY(advance(stream, fault));
    }
    return OK;
}

static struct stream *best_stream(struct search *search)
{
    struct stream *best = NULL;
    for (uint32_t k = 0; k < CLEARANCE_COUNT; k++) {
        struct stream *stream = &search->streams[k];
        if (stream->has_hit && (best == NULL || stream->rank < best->rank))
            best = stream;
    }
    return best;
}

static bool is_wanted(struct search *search, const struct memory_row *row)
{
    const struct search_query *query = &search->query;
    bool hidden = false;
    return memory_row_visible(search->call, row, &hidden) &&
           (!query->has_user || span_equal(row->user_id, query->user_id)) &&
           (!query->has_session || span_equal(row->session_id, query->session_id)) &&
           (query->kinds >> row->kind & 1) != 0 &&
           filter_passes_text(query->filter, &search->scratch, row->metadata);
}

static status take_hit(struct search *search, const struct stream *hit, struct fault *fault)
{
    struct memory_row row;
    struct fault inner;
    status found = memory_row_get(&row, search->rows, hit->n, &inner);
    if (found == CORRUPT || found == NOT_FOUND) {
        search->damaged++;
        return OK;
    }
    if (found != OK)
        return FAIL(found, fault, "%s", inner.detail);
    if (!is_wanted(search, &row))
        return OK;
    double score = -hit->rank;
    memory_row_put(&search->writer, search->call->silo, &row, &score);
    search->count++;
    return OK;
}

/* The best hits of all indexes. Where two indexes rank alike, the lower classification is first. */
static status collect(struct search *search, enum clearance *ret_damaged, struct fault *fault)
{
    TRY(open_streams(search, ret_damaged, fault));
    for (;;) {
        struct stream *best = best_stream(search);
        bool full = search->count == search->query.limit ||
                    search->examined == SEARCH_EXAMINED_MAX ||
                    search->call->response->body->length >= MEMORY_PAGE_BYTES;
        if (best == NULL || full)
            return OK;
        search->examined++;
        TRY(take_hit(search, best, fault));
        *ret_damaged = (enum clearance)(best - search->streams);
        TRY(advance(best, fault));
    }
}

static void begin_answer(struct search *search)
{
    buffer_clear(search->call->response->body);
    search->writer = json_writer_on(search->call->response->body);
    search->count = search->examined = search->damaged = 0;
    json_open_object(&search->writer, NULL);
    json_open_array(&search->writer, "data");
}

static status look(void *context, enum clearance *ret_damaged, struct fault *fault)
{
    struct search *search = context;
    begin_answer(search);
    status done = collect(search, ret_damaged, fault);
    close_streams(search);
    return done;
}

static status search_rows(struct search *search, struct fault *fault)
{
    struct silo *silo = search->call->silo;
    const struct search_query *query = &search->query;
    int64_t user = 0;
    bool empty;
    begin_answer(search);
    if (!silo->memory.exists)
        return OK;
    TRY(memory_know_indexes(silo, fault));
    if (query->has_user) {
        status found = memory_user_find(&user, silo, query->user_id, fault);
        if (found == NOT_FOUND)
            return OK;
        TRY(found);
    }
    TRY(put_match(search, query->has_user, user, &empty, fault));
    if (empty)
        return OK;
    search->scratch = arena_of(FILTER_ARENA_MAX);
    status done = memory_row_open(&search->rows, silo, fault);
    if (done == OK)
        done = fulltext_search(&silo->memory.fulltext, silo,
                               search->call->request->envelope->clearance, look, search, fault);
    search->rows = statement_close(search->rows);
    arena_free(&search->scratch);
    return done;
}

status memory_search(struct call *call, struct fault *fault)
{
    struct json body;
    struct search *search = arena_alloc(call->request->arena, sizeof *search);
    if (search == NULL)
        return FAIL(TOO_LARGE, fault, "the search does not fit the memory of one request");
    search->call = call;
    TRY(call_body(&body, call, fault));
    TRY(read_search(&search->query, call, &body, fault));
    call->prompt = search->query.text;
    TRY(search_rows(search, fault));
    json_close_array(&search->writer);
    json_put_null(&search->writer, "next_cursor");
    if (search->damaged > 0)
        json_put_integer(&search->writer, "damaged", search->damaged);
    json_close_object(&search->writer);
    call->count = search->count;
    call->response->http_status = 200;
    return buffer_check(call->response->body, "the answer", fault);
}
