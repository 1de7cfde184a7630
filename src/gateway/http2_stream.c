/* http2_stream.c: a stream carries one exchange: its body comes in DATA frames, bounded by the
 * window that opens as the body is taken, its answer waits here until the client's windows let it
 * out. Each has clocks of its own, the same that a connection of HTTP/1.1 has. */
#include "base/secret.h"
#include "gateway/http2.h"

#include <assert.h>
#include <stdlib.h>

enum {
    OUT_MAX = CELL_RESPONSE_MAX,
    OUT_COMPACT = KIB(64),
    PROGRESS_MIN = 1024, /* bytes: less than that is none, while more waits */
    NAME_VALUES_MAX = FIELDS_MAX + 1,
};

static bool output_waits(const struct http2_stream *stream)
{
    return stream->out_sent < stream->out.length;
}

void http2_stream_ready(struct http2_stream *stream)
{
    struct http2 *http2 = stream->http2;
    connection_ready(http2->connection);
    if (stream->ready)
        return;
    stream->ready = true;
    stream->next_ready = NULL;
    *(http2->ready_last ? &http2->ready_last->next_ready : &http2->ready_first) = stream;
    http2->ready_last = stream;
}

static void remove_ready(struct http2_stream *stream)
{
    struct http2 *http2 = stream->http2;
    struct http2_stream **at = &http2->ready_first, *previous = NULL;
    if (!stream->ready)
        return;
    while (*at != stream) {
        previous = *at;
        at = &(*at)->next_ready;
    }
    *at = stream->next_ready;
    if (http2->ready_last == stream)
        http2->ready_last = previous;
    stream->ready = false;
}

struct http2_stream *http2_stream_open(struct http2 *http2, int32_t id)
{
    struct http2_stream *stream = calloc(1, sizeof *stream);
    if (!stream)
        return NULL;
    *stream = (struct http2_stream){.http2 = http2, .id = id, .next = http2->first,
                                    .in = buffer_of(HTTP2_WINDOW)};
    if (stream->next)
        stream->next->previous = stream;
    http2->first = stream;
    http2->streams++;
    return stream;
}

static void count_memory(struct http2_stream *stream)
{
    const struct exchange *exchange = stream->exchange;
    size_t now = stream->in.capacity + stream->out.capacity;
    if (exchange)
        now += exchange->frame.capacity + exchange->body.capacity;
    stream->http2->counted += now - stream->counted;
    stream->counted = now;
}

/* Of an answer: framed, or dropped. */
static void release(struct http2_stream *stream, size_t length)
{
    if (!stream->streamed)
        stream->http2->held -= length;
    if (stream->holding.relay)
        holding_release(&stream->holding, length);
}

static void drop_output(struct http2_stream *stream)
{
    release(stream, stream->out.length - stream->out_sent);
    wipe_and_free(&stream->out);
    stream->out_sent = 0;
}

void http2_stream_close(struct http2_stream *stream)
{
    struct http2 *http2 = stream->http2;
    if (stream->exchange)
        exchange_end(stream->exchange);
    drop_output(stream);
    wipe_and_free(&stream->in);
    count_memory(stream);
    loop_timer_stop(http2->connection->gateway->loop, &stream->timer);
    remove_ready(stream);
    *(stream->previous ? &stream->previous->next : &http2->first) = stream->next;
    if (stream->next)
        stream->next->previous = stream->previous;
    http2->streams--;
    free(stream);
}

/* ---- answers ---- */

/* Once: the stream lives until the session has written it down, and is looked at until then. */
/* Who is refused while he sends may have filled the stream's window before he knows. */
static void allow_stray(struct http2_stream *stream)
{
    struct http2 *http2 = stream->http2;
    int32_t window = nghttp2_session_get_stream_local_window_size(http2->session, stream->id);
    if (window > 0)
        http2->stray += (size_t)window;
    if (http2->stray > (size_t)HTTP2_STREAMS_MAX * HTTP2_UPLOAD_WINDOW)
        http2->stray = (size_t)HTTP2_STREAMS_MAX * HTTP2_UPLOAD_WINDOW;
}

static void reset(struct http2_stream *stream, uint32_t code)
{
    if (stream->reset)
        return;
    stream->reset = true;
    if (code == NGHTTP2_NO_ERROR && !stream->ended)
        allow_stray(stream);
    if (nghttp2_submit_rst_stream(stream->http2->session, NGHTTP2_FLAG_NONE, stream->id, code))
        connection_break(stream->http2->connection);
    http2_stream_ready(stream);
}

/* What the session asks for when the windows are open. */
static ssize_t on_read(nghttp2_session *session, int32_t id, uint8_t *bytes, size_t size,
                       uint32_t *flags, nghttp2_data_source *source, void *context)
{
    struct http2_stream *stream = source->ptr;
    struct span waiting = {stream->out.data + stream->out_sent,
                           stream->out.length - stream->out_sent};
    (void)session;
    (void)id;
    (void)context;
    if (waiting.length == 0 && !stream->whole)
        return NGHTTP2_ERR_DEFERRED;
    size_t length = waiting.length < size ? waiting.length : size;
    if (length) {
        struct buffer frame = buffer_over(bytes, size);
        buffer_put(&frame, (struct span){waiting.data, length});
        stream->out_sent += length;
        release(stream, length);
        if (length == waiting.length || length >= PROGRESS_MIN)
            stream->timer_kind = TIMER_NONE;
        http2_stream_ready(stream);
    }
    if (stream->whole && !output_waits(stream))
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)length;
}

static nghttp2_nv name_value(struct span name, struct span value)
{
    return (nghttp2_nv){.name = (uint8_t *)name.data, .namelen = name.length,
                        .value = (uint8_t *)value.data, .valuelen = value.length,
                        .flags = NGHTTP2_NV_FLAG_NO_COPY_NAME};
}

static void put_output(struct http2_stream *stream, const struct piece *piece)
{
    struct http2 *http2 = stream->http2;
    stream->whole = piece->end;
    if (piece->bytes.length == 0)
        return;
    if (stream->out.max == 0)
        stream->out = buffer_of(OUT_MAX);
    if (stream->out_sent >= OUT_COMPACT && stream->out_sent > stream->out.length / 2) {
        buffer_consume(&stream->out, stream->out_sent);
        stream->out_sent = 0;
    }
    buffer_put(&stream->out, piece->bytes);
    if (stream->out.failed) {
        connection_break(http2->connection);
        return;
    }
    stream->streamed = piece->from && piece->from->streams & ACTION_STREAMS_OUT;
    if (!stream->streamed)
        http2->held += piece->bytes.length;
    holding_add(&stream->holding, http2->connection, piece->from, piece->bytes.length);
    if (http2->held > HTTP2_HELD_MAX)
        http2_end(http2, NGHTTP2_ENHANCE_YOUR_CALM);
    http2_stream_ready(stream);
}

static void send_answer(struct http2_stream *stream, const struct asked *asked,
                        const struct answer *answer, const struct piece *piece)
{
    struct http2 *http2 = stream->http2;
    nghttp2_nv list[NAME_VALUES_MAX];
    nghttp2_data_provider provider = {.source.ptr = stream, .read_callback = on_read};
    struct fields fields;
    char digits[] = {(char)('0' + answer->http_status / 100),
                     (char)('0' + answer->http_status / 10 % 10),
                     (char)('0' + answer->http_status % 10)};
    bool has_body = answer->length && !asked->head_only;
    assert(!stream->answered && answer->http_status >= 200 && answer->http_status <= 599);
    answer_fields(&fields, http2->connection->gateway, asked, answer);
    list[0] = name_value(SPAN(":status"), SPAN_OF(digits));
    for (uint32_t i = 0; i < fields.count; i++)
        list[1 + i] = name_value(span_of_text(fields.list[i].lower), fields.list[i].value);
    stream->answered = true;
    if (nghttp2_submit_response(http2->session, stream->id, list, 1 + fields.count,
                                has_body ? &provider : NULL))
        connection_break(http2->connection);
    if (has_body)
        put_output(stream, piece);
    http2_stream_ready(stream);
}

void http2_stream_refuse(struct http2_stream *stream, status code, const char *detail)
{
    struct problem problem;
    struct asked asked = {.keep_alive = true};
    gateway_random(stream->http2->connection->gateway, asked.trace_id, sizeof asked.trace_id);
    problem_make(&problem, &asked, code, detail, NULL);
    const struct piece piece = problem_piece(&problem);
    send_answer(stream, &asked, &problem.answer, &piece);
}

/* ---- what an exchange wants of it ---- */

static void answer(struct exchange *exchange, const struct answer *answer,
                   const struct piece *piece)
{
    send_answer(exchange->client.stream, &exchange->asked, answer, piece);
}

static void more(struct exchange *exchange, const struct piece *piece)
{
    struct http2_stream *stream = exchange->client.stream;
    put_output(stream, piece);
    if (nghttp2_session_resume_data(stream->http2->session, stream->id) == NGHTTP2_ERR_NOMEM)
        connection_break(stream->http2->connection);
}

static void proceed(struct exchange *exchange)
{
    struct http2_stream *stream = exchange->client.stream;
    nghttp2_nv list[] = {name_value(SPAN(":status"), SPAN("100"))};
    if (nghttp2_submit_headers(stream->http2->session, NGHTTP2_FLAG_NONE, stream->id, NULL, list,
                               1, NULL))
        connection_break(stream->http2->connection);
}

static void refusing(struct exchange *exchange)
{
    (void)exchange; /* the other streams do not care */
}

static void moved(const struct client *client)
{
    client->stream->timer_kind = TIMER_NONE;
}

static void ready(const struct client *client)
{
    http2_stream_ready(client->stream);
}

static void finished(const struct client *client, bool keep_alive)
{
    (void)keep_alive;
    http2_stream_ready(client->stream);
}

static void cut(const struct client *client)
{
    drop_output(client->stream);
    reset(client->stream, NGHTTP2_INTERNAL_ERROR);
}

static const struct carrier carrier = {answer, more,  proceed,  refusing,
                                       moved,  ready, finished, cut};

/* ---- requests ---- */

static size_t held_max(const struct gateway *gateway)
{
    return gateway->memory > GATEWAY_MEMORY_MAX / 2 ? (size_t)HTTP2_HELD_WHEN_FULL
                                                    : (size_t)HTTP2_HELD_SOFT_MAX;
}

void http2_stream_begin(struct http2_stream *stream, struct http2_head *head)
{
    struct http2 *http2 = stream->http2;
    struct gateway *gateway = http2->connection->gateway;
    struct http_head read;
    struct fault fault;
    struct exchange_origin origin = {
        .client = {.carrier = &carrier, .connection = http2->connection, .stream = stream},
        .slot = &stream->exchange, .input = &stream->in, .streamed = true,
        .ended = stream->ended};
    status code = http2_head_read(&read, head, stream->ended, &fault);
    if (code == OK && http2->held > held_max(gateway))
        code = FAIL(UNAVAILABLE, &fault, "too many answers wait for this client to take them");
    if (code == OK && gateway->memory > GATEWAY_MEMORY_MAX)
        code = FAIL(UNAVAILABLE, &fault, "too many requests at once");
    if (code != OK)
        http2_stream_refuse(stream, code, fault.detail);
    else if (!exchange_begin(&origin, &read))
        reset(stream, NGHTTP2_INTERNAL_ERROR);
    http2_stream_ready(stream);
}

static void consume(struct http2_stream *stream, size_t length)
{
    if (length && nghttp2_session_consume(stream->http2->session, stream->id, length))
        connection_break(stream->http2->connection);
}

/* A client that is still sending has its answer, and a while to notice: some take a reset for
 * the loss of the answer. What it sends is dropped, within bounds; beyond them its window stays
 * shut. */
static void drop(struct http2_stream *stream, size_t length)
{
    stream->dropped += length;
    if (stream->dropped <= HTTP2_DROPPED_MAX)
        consume(stream, length);
    else if (length && nghttp2_session_consume_connection(stream->http2->session, length))
        connection_break(stream->http2->connection);
    if (stream->dropped > HTTP2_DROPPED_MAX && stream->said)
        reset(stream, NGHTTP2_NO_ERROR); /* RFC 9113 8.1 */
}

void http2_stream_said(struct http2_stream *stream)
{
    stream->said = true;
    http2_stream_ready(stream);
}

void http2_stream_data(struct http2_stream *stream, struct span bytes)
{
    if (!stream->exchange) {
        drop(stream, bytes.length);
        return;
    }
    if (stream->in.length + bytes.length > stream->in.max) { /* the session says so after us */
        if (nghttp2_session_consume_connection(stream->http2->session, bytes.length))
            connection_break(stream->http2->connection);
        reset(stream, NGHTTP2_FLOW_CONTROL_ERROR);
        return;
    }
    buffer_put(&stream->in, bytes);
    if (stream->in.failed)
        connection_break(stream->http2->connection);
    http2_stream_ready(stream);
}

void http2_stream_ended(struct http2_stream *stream)
{
    stream->ended = true;
    if (stream->exchange)
        stream->exchange->input_ended = true;
    http2_stream_ready(stream);
}

/* ---- its clocks ---- */

static enum timer_kind due_timer(const struct http2_stream *stream)
{
    if (stream->reset)
        return TIMER_NONE;
    if (output_waits(stream))
        return TIMER_WRITE;
    if (stream->said)
        return TIMER_LINGER;
    return stream->exchange ? exchange_timer(stream->exchange) : TIMER_NONE;
}

static void on_time(void *context)
{
    struct http2_stream *stream = context;
    enum timer_kind kind = stream->timer_kind;
    stream->timer_kind = TIMER_NONE;
    if (kind == TIMER_WRITE)
        reset(stream, NGHTTP2_CANCEL);
    else if (kind == TIMER_LINGER)
        reset(stream, NGHTTP2_NO_ERROR);
    else if (kind != TIMER_NONE && stream->exchange) /* none: something moved in this very turn */
        exchange_timed_out(stream->exchange, kind);
    http2_stream_ready(stream);
}

static void set_timer(struct http2_stream *stream)
{
    struct gateway *gateway = stream->http2->connection->gateway;
    enum timer_kind kind = due_timer(stream);
    if (kind == stream->timer_kind)
        return;
    stream->timer_kind = (uint8_t)kind;
    if (kind == TIMER_NONE)
        loop_timer_stop(gateway->loop, &stream->timer);
    else
        gateway_timer(gateway, &stream->timer, timeouts_ms[kind] * 1000, on_time, stream);
}

/* With the first window an upload from far away would crawl. */
static void widen(struct http2_stream *stream)
{
    if (stream->wide || stream->ended || !(stream->exchange->streams & ACTION_STREAMS_IN))
        return;
    stream->wide = true;
    stream->in.max = HTTP2_UPLOAD_WINDOW;
    if (nghttp2_session_set_local_window_size(stream->http2->session, NGHTTP2_FLAG_NONE,
                                              stream->id, HTTP2_UPLOAD_WINDOW))
        connection_break(stream->http2->connection);
}

static void advance(struct http2_stream *stream)
{
    bool again = true;
    if (stream->exchange)
        widen(stream);
    if (stream->exchange)
        exchange_taken(stream->exchange, stream->out.length - stream->out_sent);
    while (again && stream->exchange) {
        size_t before = stream->in.length;
        again = exchange_step(stream->exchange);
        consume(stream, before - stream->in.length);
    }
    if (!stream->exchange && stream->in.data) {
        drop(stream, stream->in.length);
        wipe_and_free(&stream->in);
    }
    if (!output_waits(stream) && stream->out.data) {
        wipe_and_free(&stream->out);
        stream->out_sent = 0;
    }
    count_memory(stream);
    set_timer(stream);
}

void http2_streams_advance(struct http2 *http2)
{
    while (http2->ready_first) {
        struct http2_stream *stream = http2->ready_first;
        http2->ready_first = stream->next_ready;
        if (!http2->ready_first)
            http2->ready_last = NULL;
        stream->ready = false;
        advance(stream);
    }
}
