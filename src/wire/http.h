/* http.h: the server's half of HTTP/1.1 (RFC 9112, RFC 9110), strictly, from bytes already read.
 *
 * No I/O, no allocation but in the caller's arena. Whatever two readers could understand
 * differently is refused, not repaired: obs-fold, bare CR or LF, blanks before a colon, a second
 * Host, any Transfer-Encoding but "chunked" (alone, on HTTP/1.1), repeated or odd Content-Length,
 * paths that are not in their normal form (docs/http.md has the whole list). Codes: BAD_REQUEST,
 * HEADERS_TOO_LARGE (a limit of limits.h on line, head or header count), TOO_LARGE (the body),
 * NOT_IMPLEMENTED (another transfer coding before "chunked"); AGAIN: more bytes are needed. After
 * any other failure the connection is to be answered and closed, never read on: where the next
 * message begins is not known.
 *
 * The caller's loop:
 *   struct http_scan scan = {0};                              once a request
 *   http_parse_head(&head, &consumed, &scan, bytes, fault)    until it is not AGAIN, bytes growing
 *   buffer_consume(in, consumed) only when the head is done with: it borrows from bytes
 *   body: content_length bytes as they come, or http_chunks_next until .done */
#pragma once

#include "base/arena.h"
#include "base/buffer.h"
#include "base/limits.h"

/* Of a body, as far as HTTP goes: what an action takes is less. */
#define HTTP_LENGTH_MAX (UINT64_C(1) << 56)

struct http_header {
    struct span name;  /* lower-cased, in the given bytes: a token (RFC 9110 5.6.2) */
    struct span value; /* without the blanks around it; visible ASCII, blank, tab, obs-text */
};

struct http_head {
    struct span method;      /* a token, as sent: methods are case-sensitive */
    struct span path;        /* raw, begins with '/': http_decode_path. Of a target in absolute
                              * form what follows the authority, which is the Host */
    struct span query;       /* raw, without the '?'; empty when there is none: http_query_parse */
    struct span host;        /* the value of Host: a checked uri-host[:port]; empty only on 1.0 */
    uint64_t content_length; /* 0 when chunked or absent; at most HTTP_LENGTH_MAX */
    bool chunked;            /* the body comes through http_chunks_next */
    bool keep_alive;         /* after this request the connection may carry another */
    bool expect_continue;    /* the client waits for "100 Continue" before its body */
    bool http_1_0;
    uint32_t header_count;
    struct http_header headers[HTTP_HEADER_COUNT_MAX];
};

/* Where the search for the end of the head goes on: zeroed for each request. */
struct http_scan {
    size_t searched; /* bytes known to hold no end of a head */
    size_t line;     /* where the line being read begins */
    size_t request;  /* where the request line begins: behind the empty line that is skipped */
    size_t headers;  /* where the header lines begin; 0 before the request line has ended */
};

/* bytes: everything of this request read so far, from its first byte; the same bytes and more at
 * the next call with the same scan. Header names are lower-cased in place, which is why it is not
 * a span. Linear in the size of the head over all calls together. *ret borrows from bytes. One
 * empty line before the request is skipped (RFC 9112 2.2). ret_consumed: up to the first byte of
 * the body. */
MUST_CHECK status http_parse_head(struct http_head *ret, size_t *ret_consumed,
                                  struct http_scan *scan, uint8_t *bytes, size_t length,
                                  struct fault *fault);

/* The value of the only header of that (lower-case) name. An absent one is the empty span with data
 * NULL; BAD_REQUEST when there are two: no guess which one counts. */
MUST_CHECK status http_header(struct span *ret, const struct http_head *head, const char *name,
                              struct fault *fault);

/* Percent-decodes once. BAD_REQUEST: invalid escapes, an encoded '/' or NUL, '.' or '..' segments
 * (encoded ones too), empty segments but the last, backslashes, controls, not UTF-8. TOO_LARGE
 * when the arena is full. The result begins with '/', lives in the arena and has a NUL behind
 * it. */
MUST_CHECK status http_decode_path(struct span *ret, struct arena *arena, struct span raw,
                                   struct fault *fault);

/* application/x-www-form-urlencoded pairs, '+' is a blank; names and values are UTF-8 without
 * controls, names not empty, each name at most once. The empty query has no pairs. */
enum { HTTP_QUERY_PAIRS_MAX = 32 };
struct http_query {
    uint32_t count;
    struct http_query_pair {
        struct span name, value;
    } pairs[HTTP_QUERY_PAIRS_MAX];
};
MUST_CHECK status http_query_parse(struct http_query *ret, struct arena *arena, struct span raw,
                                   struct fault *fault);
/* NULL when there is no such pair. */
const struct span *http_query_get(const struct http_query *query, const char *name);
/* BAD_FIELD naming the first pair that is not in the NULL-terminated list. */
MUST_CHECK status http_query_only(const struct http_query *query, const char *const *names,
                                  struct fault *fault);

/* The chunked coding (RFC 9112 7.1), piece by piece. Extensions and trailers are checked byte by
 * byte, each sort bounded by HTTP_LINE_MAX in one body, and dropped. */
struct http_chunks {
    uint64_t total;   /* bytes of the body so far; over max_total: TOO_LARGE */
    uint64_t max_total;
    uint64_t left;    /* of the present chunk */
    uint32_t digits;  /* of the present size line */
    uint32_t extension, trailer; /* bytes of each so far */
    uint8_t state;
    bool done;        /* the whole body has been read; what follows is the next request */
};
struct http_chunks http_chunks_of(uint64_t max_total);

/* Reads from the front of bytes; *ret is the next piece of the body (borrowed; empty when these
 * bytes gave none), *ret_consumed the bytes used up. Call it again while it consumes something and
 * is not done. OK even when more bytes are needed: then *ret_consumed is bytes.length. */
MUST_CHECK status http_chunks_next(struct span *ret, size_t *ret_consumed,
                                   struct http_chunks *chunks, struct span bytes,
                                   struct fault *fault);

/* The head of a response, piece by piece: status line, headers, then the end. Names and values are
 * ours or checked before: a control byte in one of them aborts the process (response splitting). */
void http_put_status(struct buffer *out, int code);
void http_put_header(struct buffer *out, const char *name, struct span value);
void http_put_date(struct buffer *out, int64_t wall_us);  /* Date: IMF-fixdate, GMT */
void http_put_length(struct buffer *out, uint64_t length); /* Content-Length */
void http_put_end(struct buffer *out);                     /* the empty line */
/* One chunk of a chunked answer: the head, 1 to 2^32 - 1 bytes of body, the tail; then the last
 * one. */
void http_put_chunk_head(struct buffer *out, size_t length);
void http_put_chunk_tail(struct buffer *out);
void http_put_last_chunk(struct buffer *out);

/* "Not Found"; "Unknown" for codes not in the list. */
const char *http_reason(int code);

/* True when value (from a cell) may stand in a header: no control byte but tab, no blanks
 * around. */
bool http_is_header_value(struct span value);
/* The same for a name: a token. */
bool http_is_token(struct span name);
