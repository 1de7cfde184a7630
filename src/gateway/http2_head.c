/* http2_head.c: the head of a request of HTTP/2 is written down as the head of HTTP/1.1 that means
 * the same, and read by the one parser, so that both are judged alike. No byte goes into a line
 * that could end it: each name is a token, each value free of controls, the target free of
 * blanks. */
#include "base/secret.h"
#include "gateway/http2.h"

#include <stdlib.h>

enum { FIELD_OVERHEAD = 32, /* RFC 9113 6.5.2 */ FIRST_BYTES = 2048 };

/* Of HTTP/1.1's connections alone (RFC 9113 8.2.2). The library refuses them before us. */
static const char *const connection_fields[] = {
    "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade",
};

struct http2_head *http2_head_new(int32_t stream_id, bool trailers)
{
    struct http2_head *head = calloc(1, sizeof *head);
    if (!head)
        return NULL;
    head->stream_id = stream_id;
    head->trailers = trailers;
    head->bytes = buffer_of(2 * (size_t)(HTTP_LINE_MAX + HTTP_HEADERS_MAX) + FIRST_BYTES);
    return head;
}

struct http2_head *http2_head_free(struct http2_head *head)
{
    if (!head)
        return NULL;
    wipe_and_free(&head->bytes);
    free(head);
    return NULL;
}

static struct span in_head(const struct http2_head *head, struct slice slice)
{
    return (struct span){head->bytes.data + slice.at, slice.length};
}

static bool has_upper(struct span name)
{
    for (size_t i = 0; i < name.length; i++)
        if (name.data[i] >= 'A' && name.data[i] <= 'Z')
            return true;
    return false;
}

static uint8_t lower(uint8_t byte)
{
    return byte >= 'A' && byte <= 'Z' ? (uint8_t)(byte - 'A' + 'a') : byte;
}

static bool same_host(struct span left, struct span right)
{
    if (left.length != right.length)
        return false;
    for (size_t i = 0; i < left.length; i++)
        if (lower(left.data[i]) != lower(right.data[i]))
            return false;
    return true;
}

static bool is_line_part(struct span value)
{
    for (size_t i = 0; i < value.length; i++)
        if (value.data[i] <= ' ' || value.data[i] >= 0x7F)
            return false;
    return value.length > 0;
}

static void put_pseudo(struct http2_head *head, struct slice *slice, struct span value)
{
    if (head->line || slice->length)
        head->wrong = "HTTP/2: a pseudo-header out of place";
    else if (value.length > HTTP_LINE_MAX)
        head->too_large = true;
    else if (!is_line_part(value))
        head->wrong = "HTTP/2: a pseudo-header with a byte that must be escaped";
    else
        *slice = (struct slice){(uint32_t)head->bytes.length, (uint32_t)value.length};
    if (slice->length)
        buffer_put(&head->bytes, value);
}

static void put_line(struct http2_head *head, struct span name, struct span value)
{
    buffer_put(&head->bytes, name);
    buffer_put(&head->bytes, SPAN(": "));
    buffer_put(&head->bytes, value);
    buffer_put(&head->bytes, SPAN("\r\n"));
}

/* Behind the pseudo-headers, which it is made of. */
static void begin_lines(struct http2_head *head)
{
    struct buffer *bytes = &head->bytes;
    if (head->line || head->wrong || head->too_large)
        return;
    if (head->method.length == 0 || head->path.length == 0) {
        head->wrong = "HTTP/2: a request without method or path";
        return;
    }
    if (in_head(head, head->path).data[0] != '/') { /* HTTP/1.1 knows other targets */
        head->wrong = "HTTP/2: a path that does not begin with '/'";
        return;
    }
    if (!buffer_reserve(bytes, bytes->length + FIRST_BYTES)) /* it does not move while it is read */
        return;
    head->line = bytes->length;
    buffer_put(bytes, in_head(head, head->method));
    buffer_put(bytes, SPAN(" "));
    buffer_put(bytes, in_head(head, head->path));
    buffer_put(bytes, SPAN(" HTTP/1.1\r\n"));
    if (head->authority.length)
        put_line(head, SPAN("host"), in_head(head, head->authority));
}

static void put_field(struct http2_head *head, struct span name, struct span value)
{
    begin_lines(head);
    if (!http_is_token(name) || has_upper(name) || !http_is_header_value(value))
        head->wrong = "HTTP/2: a field with a byte that it cannot have";
    for (size_t i = 0; i < sizeof connection_fields / sizeof *connection_fields; i++)
        if (span_is(name, connection_fields[i]))
            head->wrong = "HTTP/2: a field of HTTP/1.1's connections";
    if (head->wrong || head->too_large || head->bytes.failed)
        return;
    if (!span_is(name, "host") || head->authority.length == 0)
        put_line(head, name, value);
    else if (!same_host(value, in_head(head, head->authority)))
        head->wrong = "HTTP/2: Host is not the authority";
}

void http2_head_put(struct http2_head *head, struct span name, struct span value)
{
    head->size += name.length + value.length + FIELD_OVERHEAD;
    if (head->size > HTTP_HEADERS_MAX + HTTP_LINE_MAX)
        head->too_large = true;
    if (head->trailers || head->wrong || head->too_large)
        return;
    if (span_is(name, ":method"))
        put_pseudo(head, &head->method, value);
    else if (span_is(name, ":path"))
        put_pseudo(head, &head->path, value);
    else if (span_is(name, ":authority"))
        put_pseudo(head, &head->authority, value);
    else if (!span_is(name, ":scheme"))
        put_field(head, name, value);
    else if (!span_is(value, "http") && !span_is(value, "https"))
        head->wrong = "HTTP/2: the scheme must be http or https";
}

status http2_head_read(struct http_head *ret, struct http2_head *head, bool ended,
                       struct fault *fault)
{
    struct http_head read;
    struct http_scan scan = {0};
    struct span expect;
    size_t consumed;
    begin_lines(head);
    buffer_put(&head->bytes, SPAN("\r\n"));
    if (head->wrong)
        return FAIL(BAD_REQUEST, fault, "%s", head->wrong);
    if (head->too_large || head->bytes.failed)
        return FAIL(HEADERS_TOO_LARGE, fault, "HTTP/2: a header list over %u bytes",
                    (unsigned)HTTP_HEADERS_MAX);
    status parsed = http_parse_head(&read, &consumed, &scan, head->bytes.data + head->line,
                                    head->bytes.length - head->line, fault);
    if (parsed == AGAIN)
        return FAIL(BAD_REQUEST, fault, "HTTP/2: no request");
    TRY(parsed);
    TRY(http_header(&expect, &read, "expect", fault));
    read.expect_continue = expect.data && !ended;
    *ret = read;
    return OK;
}
