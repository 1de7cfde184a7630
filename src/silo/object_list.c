/* object_list.c: the keys of a caller in their order (of bytes), with a prefix, and with a
 * delimiter the keys beneath a common prefix as that prefix. One statement a classification that
 * the caller covers runs through its own part of the index; their least key comes next. */
#include "silo/object.h"

#include "wire/base64.h"
#include "wire/http.h"
#include "wire/json.h"

enum {
    DELIMITER_MAX = 16,
    KEY_MAX = OBJECT_KEY_MAX,
    MARK_BYTES_MAX = 1 + KEY_MAX,       /* of a cursor: what it stands behind */
    CURSOR_BYTES_MAX = AEAD_NONCE_BYTES + AEAD_TAG_BYTES + MARK_BYTES_MAX,
    CURSOR_TEXT_MAX = CURSOR_BYTES_MAX * 4 / 3 + 8,
    PAGE_BYTES_MAX = KIB(512),
};

/* Where a page begins: behind that key, or behind all keys that begin so. */
enum mark_kind { MARK_KEY, MARK_PREFIX };
struct mark {
    enum mark_kind kind;
    struct span text; /* data NULL: at the beginning */
};

struct listing {
    struct span prefix, delimiter;
    uint32_t limit;
    struct mark mark;
    struct span scope; /* what a cursor of this list is bound to */
};

struct lane {
    struct statement *rows;
    bool has_row;
    struct object_row row;
};

struct page {
    struct json_writer data;
    struct buffer prefixes; /* in the request's arena: texts, each as a field */
    uint32_t count;
    bool cut;
    struct mark last;
};

static struct span arena_span(const struct call *call, size_t size)
{
    uint8_t *bytes = arena_alloc(call->request->arena, size);
    return (struct span){bytes, bytes != NULL ? size : 0};
}

static status no_memory(struct fault *fault)
{
    return FAIL(TOO_LARGE, fault, "the query does not fit the memory of one request");
}

/* ---- cursors: sealed, for they are keys ---- */

static status put_cursor(struct json_writer *writer, const struct call *call,
                         const struct mark *mark, struct span scope, struct fault *fault)
{
    uint8_t text[MARK_BYTES_MAX], sealed[CURSOR_BYTES_MAX], cursor[CURSOR_TEXT_MAX];
    uint8_t *nonce = sealed, *tag = sealed + AEAD_NONCE_BYTES, *bytes = tag + AEAD_TAG_BYTES;
    struct buffer plain = buffer_over(text, sizeof text);
    struct buffer encoded = buffer_over(cursor, sizeof cursor);
    buffer_put_u8(&plain, (uint8_t)mark->kind);
    buffer_put(&plain, mark->text);
    TRY(buffer_check(&plain, "cursor", fault));
    aead_seal(bytes, nonce, tag, call->silo->cursor_key, buffer_span(&plain), scope);
    base64url_put(&encoded,
                  (struct span){sealed, AEAD_NONCE_BYTES + AEAD_TAG_BYTES + plain.length});
    TRY(buffer_check(&encoded, "cursor", fault));
    json_put_string(writer, "next_cursor", buffer_span(&encoded));
    return OK;
}

static status bad_cursor(struct fault *fault)
{
    return FAIL(BAD_FIELD, fault, "cursor: only the next_cursor of this very list is allowed");
}

static status get_cursor(struct mark *ret, const struct call *call, struct span text,
                         struct span scope, struct fault *fault)
{
    struct fault inner;
    uint8_t storage[CURSOR_BYTES_MAX];
    const size_t front = AEAD_NONCE_BYTES + AEAD_TAG_BYTES;
    struct buffer bytes = buffer_over(storage, sizeof storage);
    if (base64url_decode(&bytes, text, "cursor", &inner) != OK || bytes.failed ||
        bytes.length < front + 2)
        return bad_cursor(fault);
    struct span sealed = {storage + front, bytes.length - front};
    struct span plain = arena_span(call, sealed.length);
    if (plain.data == NULL)
        return no_memory(fault);
    if (aead_open((uint8_t *)plain.data, call->silo->cursor_key, storage,
                  storage + AEAD_NONCE_BYTES, sealed, scope, &inner) != OK)
        return bad_cursor(fault);
    *ret = (struct mark){plain.data[0] == MARK_PREFIX ? MARK_PREFIX : MARK_KEY,
                         {plain.data + 1, plain.length - 1}};
    return OK;
}

/* ---- the query ---- */

static status bind_scope(struct listing *listing, const struct call *call, struct fault *fault)
{
    struct span storage = arena_span(call, KIB(2));
    if (storage.data == NULL)
        return no_memory(fault);
    struct buffer scope = buffer_over((uint8_t *)storage.data, storage.length);
    buffer_put_text_field(&scope, call->request->envelope->action->name);
    buffer_put_u8(&scope, (uint8_t)call->request->envelope->clearance);
    buffer_put_field(&scope, listing->prefix);
    buffer_put_field(&scope, listing->delimiter);
    TRY(buffer_check(&scope, "the query", fault));
    listing->scope = buffer_span(&scope);
    return OK;
}

static status read_listing(struct listing *ret, const struct call *call, struct fault *fault)
{
    struct listing listing = {0};
    struct http_query pairs;
    TRY(http_query_parse(&pairs, call->request->arena, call->request->query, fault));
    TRY(http_query_only(&pairs, call->request->action->query, fault));
    TRY(read_limit(&listing.limit, http_query_get(&pairs, "limit"), fault));
    const struct span *prefix = http_query_get(&pairs, "prefix");
    const struct span *delimiter = http_query_get(&pairs, "delimiter");
    const struct span *cursor = http_query_get(&pairs, "cursor");
    if (prefix != NULL)
        listing.prefix = *prefix;
    if (listing.prefix.length > KEY_MAX)
        return FAIL(BAD_FIELD, fault, "prefix: at most %d bytes are allowed", (int)KEY_MAX);
    if (delimiter != NULL && (delimiter->length < 1 || delimiter->length > DELIMITER_MAX))
        return FAIL(BAD_FIELD, fault, "delimiter: 1 to %d bytes", (int)DELIMITER_MAX);
    if (delimiter != NULL)
        listing.delimiter = *delimiter;
    TRY(bind_scope(&listing, call, fault));
    if (cursor != NULL)
        TRY(get_cursor(&listing.mark, call, *cursor, listing.scope, fault));
    *ret = listing;
    return OK;
}

/* ---- lanes ---- */

static status step(struct lane *lane, const struct listing *listing, struct fault *fault)
{
    lane->has_row = false;
    status stepped = statement_step(lane->rows, fault);
    if (stepped == NOT_FOUND)
        return OK;
    TRY(stepped);
    TRY(object_row_of(&lane->row, lane->rows, fault));
    lane->has_row = span_starts_with(lane->row.key, listing->prefix);
    return OK;
}

/* The least text greater than every one that begins so; empty: there is none. In UTF-8 no byte is
 * FF, so the last one can always grow; what comes out is compared, never shown. */
static struct span behind(const struct call *call, struct span prefix)
{
    struct span copy = arena_copy(call->request->arena, prefix);
    if (copy.data != NULL && copy.length > 0)
        ((uint8_t *)copy.data)[copy.length - 1]++;
    return copy;
}

/* To the first key of the lane that is behind the mark. */
static status seek(struct lane *lane, const struct call *call, const struct listing *listing,
                   int classification, const struct mark *mark, struct fault *fault)
{
    static const char from[] = OBJECT_COLUMNS
        "WHERE classification = ?1 AND key >= ?2 ORDER BY key";
    static const char after[] = OBJECT_COLUMNS
        "WHERE classification = ?1 AND key > ?2 ORDER BY key";
    bool behind_key = mark->text.data != NULL && mark->kind == MARK_KEY;
    struct span start = listing->prefix;
    if (behind_key)
        start = mark->text;
    else if (mark->text.data != NULL)
        start = behind(call, mark->text);
    if (mark->text.data != NULL && start.data == NULL)
        return no_memory(fault);
    lane->rows = statement_close(lane->rows);
    TRY(statement_open(&lane->rows, call->store, behind_key ? after : from, fault));
    statement_bind_int(lane->rows, 1, classification);
    statement_bind_text(lane->rows, 2, start);
    return step(lane, listing, fault);
}

static status seek_all(struct lane lanes[CLEARANCE_COUNT], const struct call *call,
                       const struct listing *listing, const struct mark *mark,
                       struct fault *fault)
{
    for (int i = 0; i < CLEARANCE_COUNT; i++)
        if (clearance_covers(call->request->envelope->clearance, (enum clearance)i))
            TRY(seek(&lanes[i], call, listing, i, mark, fault));
    return OK;
}

/* The lane of the least key, of several the highest classification; NULL: the end. */
static struct lane *least(struct lane lanes[CLEARANCE_COUNT])
{
    struct lane *best = NULL;
    for (int i = CLEARANCE_COUNT; i-- > 0;)
        if (lanes[i].has_row && (best == NULL || span_compare(lanes[i].row.key, best->row.key) < 0))
            best = &lanes[i];
    return best;
}

/* All lanes beyond that key, which is one lane's own: that one last. */
static status pass(struct lane lanes[CLEARANCE_COUNT], struct lane *own,
                   const struct listing *listing, struct fault *fault)
{
    for (int i = 0; i < CLEARANCE_COUNT; i++)
        if (&lanes[i] != own && lanes[i].has_row && span_equal(lanes[i].row.key, own->row.key))
            TRY(step(&lanes[i], listing, fault));
    return step(own, listing, fault);
}

/* ---- the page ---- */

/* Empty: the key is shown itself. */
static struct span common_prefix(const struct listing *listing, struct span key)
{
    struct span delimiter = listing->delimiter;
    for (size_t at = listing->prefix.length; delimiter.length > 0 && at < key.length; at++) {
        struct span rest = {key.data + at, key.length - at};
        if (span_starts_with(rest, delimiter))
            return (struct span){key.data, at + delimiter.length};
    }
    return (struct span){0};
}

static status keep_mark(struct page *page, const struct call *call, enum mark_kind kind,
                        struct span text, struct fault *fault)
{
    struct span copy = arena_copy(call->request->arena, text);
    if (copy.data == NULL)
        return no_memory(fault);
    page->last = (struct mark){kind, copy};
    return OK;
}

static status take_next(struct page *page, struct lane lanes[CLEARANCE_COUNT], struct lane *next,
                        const struct call *call, const struct listing *listing,
                        struct fault *fault)
{
    struct span prefix = common_prefix(listing, next->row.key);
    page->count++;
    if (prefix.length == 0) {
        object_put_json(&page->data, &next->row);
        TRY(keep_mark(page, call, MARK_KEY, next->row.key, fault));
        return pass(lanes, next, listing, fault);
    }
    buffer_put_field(&page->prefixes, prefix);
    TRY(keep_mark(page, call, MARK_PREFIX, prefix, fault));
    return seek_all(lanes, call, listing, &page->last, fault);
}

static status fill(struct page *page, struct lane lanes[CLEARANCE_COUNT], const struct call *call,
                   const struct listing *listing, struct fault *fault)
{
    TRY(seek_all(lanes, call, listing, &listing->mark, fault));
    for (struct lane *next = least(lanes); next != NULL; next = least(lanes)) {
        size_t length = call->response->body->length + page->prefixes.length;
        page->cut = page->count == listing->limit || length >= PAGE_BYTES_MAX;
        if (page->cut)
            return OK;
        TRY(take_next(page, lanes, next, call, listing, fault));
    }
    return OK;
}

static status put_prefixes(struct page *page, struct fault *fault)
{
    struct cursor texts = cursor_over(buffer_span(&page->prefixes));
    TRY(buffer_check(&page->prefixes, "the answer", fault));
    json_open_array(&page->data, "prefixes");
    while (cursor_left(&texts) > 0) {
        struct span text;
        TRY(cursor_field(&text, &texts, KEY_MAX, "prefix", fault));
        json_put_string(&page->data, NULL, text);
    }
    json_close_array(&page->data);
    return OK;
}

static status put_page(struct page *page, struct lane lanes[CLEARANCE_COUNT], struct call *call,
                       const struct listing *listing, struct fault *fault)
{
    json_open_object(&page->data, NULL);
    json_open_array(&page->data, "data");
    if (call->silo->objects.exists)
        TRY(fill(page, lanes, call, listing, fault));
    json_close_array(&page->data);
    if (listing->delimiter.length > 0)
        TRY(put_prefixes(page, fault));
    if (page->cut)
        TRY(put_cursor(&page->data, call, &page->last, listing->scope, fault));
    else
        json_put_null(&page->data, "next_cursor");
    json_close_object(&page->data);
    return buffer_check(call->response->body, "the answer", fault);
}

status object_list(struct call *call, struct fault *fault)
{
    struct listing listing;
    struct lane lanes[CLEARANCE_COUNT] = {0};
    TRY(read_listing(&listing, call, fault));
    TRY(objects_know(call->silo, fault));
    struct page page = {.data = json_writer_on(call->response->body),
                        .prefixes = buffer_of(MIB(1))};
    status put = put_page(&page, lanes, call, &listing, fault);
    for (int i = 0; i < CLEARANCE_COUNT; i++)
        statement_close(lanes[i].rows);
    buffer_free(&page.prefixes);
    TRY(put);
    call->response->http_status = 200;
    call->count = page.count;
    return OK;
}
