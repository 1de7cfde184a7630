/* http2.h: HTTP/2 (RFC 9113) on a connection, by libnghttp2. Only these files know the library:
 *
 *   http2.c         the session: frames in and out, what a client may not flood us with, the end
 *   http2_head.c    the head of a request, field by field
 *   http2_stream.c  what carries an exchange: body in, answer out, its clocks
 *
 * What a client has us keep is bounded: heads by the limits of HTTP/1.1, bodies by the window of
 * their stream, which opens again only as a cell takes them, answers by what their relays may have
 * held. While the socket does not take what we say, nothing more is read from it. */
#pragma once

#include "gateway/state.h"

#include <nghttp2/nghttp2.h>

enum {
    HTTP2_STREAMS_MAX = 100,
    HTTP2_WINDOW = 65535,              /* of a stream: the protocol's first */
    HTTP2_UPLOAD_WINDOW = KIB(256),    /* of one whose body streams */
    HTTP2_OUTPUT_MAX = KIB(64),        /* framed, and not taken by the socket */
    HTTP2_HELD_SOFT_MAX = CELL_RESPONSE_MAX, /* of answers not framed, as much as HTTP/1.1 may have
                                              * waiting: beyond it new requests get 503 */
    HTTP2_HELD_WHEN_FULL = MIB(1),     /* the same, while all buffers together near their bound */
    HTTP2_HELD_MAX = GATEWAY_RELAY_HELD_MAX, /* the same: beyond it the connection ends */
    HTTP2_TRAILERS_MAX = HTTP_LINE_MAX,
    HTTP2_DROPPED_MAX = KIB(256),      /* of the body of a request that was refused */
    HTTP2_BLOCK_MAX = 4 * HTTP_HEADERS_MAX, /* of a header list, decoded, where it is refused */
    HTTP2_SHED_MAX = KIB(64),          /* of one connection, while all have too much */
};

/* The fields of one header block, in the spelling of HTTP/1.1: the one parser reads them. */
struct http2_head {
    struct buffer bytes;
    struct slice method, path, authority;
    size_t line;     /* where the request line begins; 0: not written down yet */
    size_t size;     /* RFC 9113 6.5.2 */
    int32_t stream_id;
    bool trailers;   /* counted and dropped */
    bool too_large;
    const char *wrong; /* why it is no request; NULL: nothing yet */
};

struct http2_head *http2_head_new(int32_t stream_id, bool trailers); /* NULL: no memory */
struct http2_head *http2_head_free(struct http2_head *head);         /* wipes; NULL; takes NULL */
void http2_head_put(struct http2_head *head, struct span name, struct span value);
/* All fields have come. *ret borrows from head. */
MUST_CHECK status http2_head_read(struct http_head *ret, struct http2_head *head, bool ended,
                                  struct fault *fault);

struct http2_stream {
    struct http2 *http2;
    int32_t id;
    struct http2_stream *next, *previous;
    struct http2_stream *next_ready;
    bool ready;
    bool ended;              /* the client has sent all */
    bool wide;               /* its window is that of uploads */
    bool answered;           /* the head of the answer is with the session */
    bool said;               /* all of the answer has left */
    bool reset;              /* RST_STREAM is with the session */
    size_t dropped;          /* of a body that nobody wants any more */
    struct exchange *exchange;
    struct buffer in;        /* of the body, not taken yet: the window is closed by as much */
    struct buffer out;       /* of the answer, not framed yet */
    size_t out_sent;         /* of out */
    bool whole;              /* all of the answer has come */
    bool streamed;           /* it is bounded by its relay's window, and counts in no other */
    struct holding holding;  /* in out */
    struct loop_timer timer;
    uint8_t timer_kind;      /* of enum timer_kind */
    size_t counted;          /* in http2.counted */
};

struct bucket { /* it leaks; what is over its brim is too much */
    int64_t at_us;
    uint64_t level;
};

struct http2 {
    struct connection *connection;
    nghttp2_session *session;
    struct http2_head *head;    /* of the header block that is being read; NULL: none */
    struct http2_stream *first;
    uint32_t streams;
    struct http2_stream *ready_first, *ready_last;
    struct bucket nuisance, resets;
    size_t stray;               /* bytes of bodies that may still come of streams we ended */
    size_t memory, base;        /* the session's: now, and when it was made */
    size_t counted;             /* of the streams */
    size_t held;                /* of answers: not framed yet */
    bool settled;               /* the client has acknowledged our settings */
    bool leaving;               /* GOAWAY was said; streams end in peace */
    bool ending;                /* GOAWAY with an error was said, or the time is over */
    bool failed;                /* the session can do nothing more */
};

void http2_end(struct http2 *http2, uint32_t code); /* a connection error */

/* ---- http2_stream.c ---- */

struct http2_stream *http2_stream_open(struct http2 *http2, int32_t id); /* NULL: no memory */
void http2_stream_close(struct http2_stream *stream); /* its exchange goes without an answer */
void http2_stream_begin(struct http2_stream *stream, struct http2_head *head);
void http2_stream_data(struct http2_stream *stream, struct span bytes);
void http2_stream_ended(struct http2_stream *stream);
void http2_stream_said(struct http2_stream *stream);
void http2_stream_refuse(struct http2_stream *stream, status code, const char *detail);
void http2_stream_ready(struct http2_stream *stream);
void http2_streams_advance(struct http2 *http2); /* those that are ready */
