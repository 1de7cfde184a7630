/* The answer to a request does not depend on how its bytes were cut; a head that is accepted,
 * written anew and read again, is the same, with its target as a path and in absolute form; a
 * decoded path is in its normal form. The first byte of the input says where the bytes are cut, the
 * rest is what the client sends. */
#include "fuzz.h"

#include "wire/http.h"
#include "wire/trace.h"

#include <string.h>

struct outcome {
    status status;
    size_t consumed;
    struct http_head head;
};

/* step 0: all at once. text is written to: names are lower-cased. */
static void parse_head(struct outcome *ret, uint8_t *text, size_t length, size_t step)
{
    struct http_scan scan = {0};
    struct fault fault;
    *ret = (struct outcome){0};
    for (size_t given = step ? 0 : length;; given = given + step < length ? given + step : length) {
        ret->status = http_parse_head(&ret->head, &ret->consumed, &scan, text, given, &fault);
        if (ret->status != AGAIN || given == length)
            return;
    }
}

static void check_same(const struct http_head *left, const struct http_head *right)
{
    CHECK(span_equal(left->method, right->method) && span_equal(left->path, right->path));
    CHECK(span_equal(left->query, right->query) && span_equal(left->host, right->host));
    CHECK(left->content_length == right->content_length && left->chunked == right->chunked);
    CHECK(left->keep_alive == right->keep_alive && left->http_1_0 == right->http_1_0);
    CHECK(left->expect_continue == right->expect_continue);
    CHECK(left->header_count == right->header_count);
    for (uint32_t i = 0; i < left->header_count; i++) {
        CHECK(span_equal(left->headers[i].name, right->headers[i].name));
        CHECK(span_equal(left->headers[i].value, right->headers[i].value));
    }
}

/* On 1.0 the target alone may have named it. */
static bool has_host(const struct http_head *head)
{
    struct span host = {0};
    struct fault fault;
    CHECK(http_header(&host, head, "host", &fault) == OK);
    return host.data;
}

static void check_written_anew(const struct http_head *head, const char *scheme)
{
    struct buffer text = buffer_of(MIB(1));
    struct outcome again;
    buffer_put(&text, head->method);
    buffer_put_text(&text, " ");
    buffer_put_text(&text, scheme);
    if (*scheme)
        buffer_put(&text, head->host);
    buffer_put(&text, head->path);
    if (head->query.length)
        buffer_put(&text, SPAN("?"));
    buffer_put(&text, head->query);
    buffer_put_text(&text, head->http_1_0 ? " HTTP/1.0\r\n" : " HTTP/1.1\r\n");
    for (uint32_t i = 0; i < head->header_count; i++) {
        CHECK(http_is_token(head->headers[i].name));
        CHECK(http_is_header_value(head->headers[i].value));
        buffer_put(&text, head->headers[i].name);
        buffer_put(&text, SPAN(":"));
        buffer_put(&text, head->headers[i].value);
        buffer_put(&text, SPAN("\r\n"));
    }
    buffer_put(&text, SPAN("\r\n"));
    parse_head(&again, text.data, text.length, 0);
    if (again.status == HEADERS_TOO_LARGE && *scheme) { /* the host made the line too long */
        buffer_free(&text);
        return;
    }
    CHECK(again.status == OK && again.consumed == text.length);
    check_same(head, &again.head);
    buffer_free(&text);
}

static void check_path(struct span raw)
{
    struct arena arena = arena_of(MIB(1));
    struct span path;
    struct fault fault;
    if (http_decode_path(&path, &arena, raw, &fault) == OK) {
        CHECK(path.length > 0 && path.data[0] == '/' && span_is_utf8(path));
        CHECK(strlen((const char *)path.data) == path.length);
        CHECK(!strstr((const char *)path.data, "//") && !strstr((const char *)path.data, "/../"));
        CHECK(!strstr((const char *)path.data, "/./") && !strchr((const char *)path.data, '\\'));
    }
    arena_free(&arena);
}

static void check_query(struct span raw)
{
    struct arena arena = arena_of(MIB(1));
    struct http_query query;
    struct fault fault;
    if (http_query_parse(&query, &arena, raw, &fault) == OK) {
        CHECK(query.count <= HTTP_QUERY_PAIRS_MAX);
        for (uint32_t i = 0; i < query.count; i++) {
            CHECK(query.pairs[i].name.length > 0 && span_is_utf8(query.pairs[i].name));
            CHECK(span_is_utf8(query.pairs[i].value));
            for (uint32_t j = 0; j < i; j++)
                CHECK(!span_equal(query.pairs[i].name, query.pairs[j].name));
        }
    }
    arena_free(&arena);
}

/* Gives step bytes at a time; *ret_consumed: of the text. */
static status decode_chunks(struct buffer *body, size_t *ret_consumed, struct span text,
                            size_t step)
{
    struct http_chunks chunks = http_chunks_of(HTTP_BODY_MAX);
    struct fault fault;
    size_t at = 0;
    while (at < text.length && !chunks.done) {
        size_t left = text.length - at, used = 0;
        struct span piece = {0}, bytes = {text.data + at, left < step ? left : step};
        TRY(http_chunks_next(&piece, &used, &chunks, bytes, &fault));
        CHECK(used > 0 && used <= bytes.length && piece.length <= used);
        buffer_put(body, piece);
        at += used;
    }
    *ret_consumed = at;
    return chunks.done ? OK : AGAIN;
}

static void check_chunks(struct span text, size_t step)
{
    struct buffer whole = buffer_of(MIB(1)), cut = buffer_of(MIB(1));
    size_t whole_used = 0, cut_used = 0;
    status decoded = decode_chunks(&whole, &whole_used, text, text.length + 1);
    CHECK(decode_chunks(&cut, &cut_used, text, step) == decoded);
    if (decoded == OK || decoded == AGAIN) {
        CHECK(whole_used == cut_used);
        CHECK(span_equal(buffer_span(&whole), buffer_span(&cut)));
    }
    buffer_free(&whole);
    buffer_free(&cut);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct outcome whole, cut;
    if (size == 0)
        return 0;
    size_t step = data[0] % 61 + 1u, length = size - 1;
    struct span text = {data + 1, length};
    uint8_t trace_id[TRACE_ID_BYTES], *first = malloc(size), *second = malloc(size);
    CHECK(first && second);
    memcpy(first, text.data, length);
    memcpy(second, text.data, length);
    parse_head(&whole, first, length, 0);
    parse_head(&cut, second, length, step);
    CHECK(whole.status == cut.status && whole.consumed == cut.consumed);
    if (whole.status == OK) {
        check_same(&whole.head, &cut.head);
        if (whole.head.host.length)
            check_written_anew(&whole.head, "http://");
        if (has_host(&whole.head) || !whole.head.host.length)
            check_written_anew(&whole.head, "");
        check_path(whole.head.path);
        check_query(whole.head.query);
    }
    check_path(text);
    check_query(text);
    check_chunks(text, step);
    (void)trace_parse(trace_id, text);
    free(first);
    free(second);
    return 0;
}
