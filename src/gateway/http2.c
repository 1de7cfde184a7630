#include "gateway/http2.h"

#include "base/clock.h"
#include "base/secret.h"

#include <assert.h>
#include <malloc.h>
#include <stdlib.h>
#include <sys/socket.h>

enum {
    READ_BYTES = 16 * 1024,
    OUTPUT_ROUND = KIB(64),
    DEFLATE_TABLE = 1024, /* of our answers' fields: few repeat */
    ACKS_MAX = 200,       /* of SETTINGS and PING, not sent yet */
    CONTINUATIONS_MAX = 8,
    /* Frames that move nothing (PING, SETTINGS, WINDOW_UPDATE, empty DATA, ...) and bytes that are
     * no request (of unknown frames, say) are paid for by those that are, and by time. In bytes. */
    NUISANCE_OF_FRAME = 1024,
    NUISANCE_OF_SETTINGS = 20 * NUISANCE_OF_FRAME,
    NUISANCE_MAX = 1000 * NUISANCE_OF_FRAME,
    NUISANCE_PER_SECOND = 200 * NUISANCE_OF_FRAME,
    CREDIT_OF_REQUEST = 2 * NUISANCE_OF_FRAME,
    FRAME_HEAD = 9,
    /* Requests that end before their answer has begun or ended: CVE-2023-44487 and what became of
     * it. */
    RESETS_MAX = 200,
    RESETS_PER_SECOND = 30,
};

/* ---- what a client may not do too often ---- */

static bool spills(struct bucket *bucket, uint64_t cost, uint64_t max, uint64_t per_second)
{
    int64_t now_us = clock_monotonic_us();
    uint64_t leaked = (uint64_t)(now_us - bucket->at_us) * per_second / 1000000;
    if (leaked) {
        bucket->level -= leaked < bucket->level ? leaked : bucket->level;
        bucket->at_us = now_us;
    }
    bucket->level += cost;
    return bucket->level > max;
}

static void credit(struct bucket *bucket, uint64_t amount)
{
    bucket->level -= amount < bucket->level ? amount : bucket->level;
}

void http2_end(struct http2 *http2, uint32_t code)
{
    if (http2->ending)
        return;
    http2->ending = true;
    if (nghttp2_session_terminate_session(http2->session, code))
        http2->failed = true;
    connection_ready(http2->connection);
}

static void nuisance(struct http2 *http2, uint64_t cost)
{
    if (spills(&http2->nuisance, cost, NUISANCE_MAX, NUISANCE_PER_SECOND))
        http2_end(http2, NGHTTP2_ENHANCE_YOUR_CALM);
}

static void was_reset(struct http2 *http2)
{
    if (spills(&http2->resets, 1, RESETS_MAX, RESETS_PER_SECOND))
        http2_end(http2, NGHTTP2_ENHANCE_YOUR_CALM);
}

/* ---- the session's memory: counted, and wiped, for tokens pass through it ---- */

static void *counted(struct http2 *http2, void *memory)
{
    if (memory)
        http2->memory += malloc_usable_size(memory);
    return memory;
}

static void *on_malloc(size_t size, void *context)
{
    return counted(context, malloc(size));
}

static void *on_calloc(size_t count, size_t size, void *context)
{
    return counted(context, calloc(count, size));
}

static void on_free(void *memory, void *context)
{
    struct http2 *http2 = context;
    if (!memory)
        return;
    size_t size = malloc_usable_size(memory);
    http2->memory -= size;
    secret_wipe(memory, size);
    free(memory);
}

static void *on_realloc(void *memory, size_t size, void *context)
{
    size_t had = memory ? malloc_usable_size(memory) : 0;
    void *grown = on_malloc(size, context);
    if (!grown || !memory)
        return grown;
    struct buffer copy = buffer_over(grown, size);
    buffer_put(&copy, (struct span){memory, had < size ? had : size});
    on_free(memory, context);
    return grown;
}

/* ---- frames that come ---- */

static struct http2_stream *stream_of(const struct http2 *http2, int32_t id)
{
    return id ? nghttp2_session_get_stream_user_data(http2->session, id) : NULL;
}

/* A stream that was, or that was passed over and so will never be. */
static bool is_over(const struct http2 *http2, int32_t id)
{
    return !stream_of(http2, id) && id <= nghttp2_session_get_last_proc_stream_id(http2->session);
}

static int on_begin_frame(nghttp2_session *session, const nghttp2_frame_hd *header, void *context)
{
    struct http2 *http2 = context;
    (void)session;
    if (header->type != NGHTTP2_CONTINUATION)
        http2->head = http2_head_free(http2->head); /* of a block that was given up */
    switch (header->type) {
    case NGHTTP2_HEADERS:
        if (is_over(http2, header->stream_id)) /* ignored, but for its block */
            nuisance(http2, NUISANCE_OF_FRAME + header->length);
        break;
    case NGHTTP2_PRIORITY:
        if (header->stream_id == 0) /* RFC 9113 6.3: the session ignores them all */
            http2_end(http2, NGHTTP2_PROTOCOL_ERROR);
        nuisance(http2, NUISANCE_OF_FRAME);
        break;
    case NGHTTP2_DATA:
        if (header->length == 0 && !(header->flags & NGHTTP2_FLAG_END_STREAM))
            nuisance(http2, NUISANCE_OF_FRAME);
        break;
    case NGHTTP2_SETTINGS:
        nuisance(http2, header->flags & NGHTTP2_FLAG_ACK ? NUISANCE_OF_FRAME
                                                                 : NUISANCE_OF_SETTINGS);
        break;
    default:
        nuisance(http2, NUISANCE_OF_FRAME);
    }
    return 0;
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *context)
{
    struct http2 *http2 = context;
    int32_t id = frame->hd.stream_id;
    bool request = frame->headers.cat == NGHTTP2_HCAT_REQUEST;
    http2->head = http2_head_new(id, !request);
    if (!http2->head)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    if (http2->settled)
        connection_restart_timer(http2->connection);
    if (!request)
        return 0;
    struct http2_stream *stream = http2_stream_open(http2, id);
    if (!stream)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    if (nghttp2_session_set_stream_user_data(session, id, stream)) {
        http2_stream_close(stream);
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    }
    return 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_length, const uint8_t *value, size_t value_length, uint8_t flags,
                     void *context)
{
    struct http2 *http2 = context;
    struct http2_head *head = http2->head;
    (void)session;
    (void)flags;
    if (!head || head->stream_id != frame->hd.stream_id)
        return 0;
    http2_head_put(head, (struct span){name, name_length}, (struct span){value, value_length});
    if (head->size <= HTTP2_BLOCK_MAX)
        return 0;
    http2_end(http2, NGHTTP2_ENHANCE_YOUR_CALM); /* what is packed so small is meant to burst */
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

static int on_invalid_header(nghttp2_session *session, const nghttp2_frame *frame,
                             nghttp2_rcbuf *name, nghttp2_rcbuf *value, uint8_t flags,
                             void *context)
{
    (void)session;
    (void)frame;
    (void)name;
    (void)value;
    (void)flags;
    (void)context;
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE; /* else it would be left out in silence */
}

static void on_headers(struct http2 *http2, const nghttp2_frame *frame)
{
    struct http2_stream *stream = stream_of(http2, frame->hd.stream_id);
    struct http2_head *head = http2->head;
    http2->head = NULL;
    if (http2->settled)
        connection_restart_timer(http2->connection);
    if (stream && head)
        credit(&http2->nuisance, FRAME_HEAD + 2 * frame->hd.length);
    if (stream && head) {
        if (frame->hd.flags & NGHTTP2_FLAG_END_STREAM)
            http2_stream_ended(stream);
        if (!head->trailers)
            http2_stream_begin(stream, head);
        else if (head->size > HTTP2_TRAILERS_MAX && stream->exchange)
            exchange_refuse(stream->exchange, HEADERS_TOO_LARGE, "HTTP/2: too large trailers",
                            NULL);
    }
    http2_head_free(head);
}

static void on_data(struct http2 *http2, const nghttp2_frame *frame)
{
    struct http2_stream *stream = stream_of(http2, frame->hd.stream_id);
    bool end = frame->hd.flags & NGHTTP2_FLAG_END_STREAM;
    size_t length = frame->hd.length - frame->data.padlen;
    if (length == 0 && frame->hd.length && !end)
        nuisance(http2, NUISANCE_OF_FRAME);
    credit(&http2->nuisance, 2 * length + (length ? FRAME_HEAD : 0));
    if (stream && end)
        http2_stream_ended(stream);
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *context)
{
    struct http2 *http2 = context;
    (void)session;
    if (frame->hd.type == NGHTTP2_HEADERS)
        on_headers(http2, frame);
    else if (frame->hd.type == NGHTTP2_DATA)
        on_data(http2, frame);
    else if (frame->hd.type == NGHTTP2_SETTINGS && frame->hd.flags & NGHTTP2_FLAG_ACK)
        http2->settled = true;
    return 0;
}

static int on_chunk(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *bytes,
                    size_t length, void *context)
{
    struct http2 *http2 = context;
    struct http2_stream *stream = stream_of(http2, id);
    (void)flags;
    if (stream)
        http2_stream_data(stream, (struct span){bytes, length});
    else if (nghttp2_session_consume(session, id, length))
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    return 0;
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t code, void *context)
{
    struct http2 *http2 = context;
    struct http2_stream *stream = stream_of(http2, id);
    (void)code;
    if (!stream)
        return 0;
    if (stream->exchange || !stream->said)
        was_reset(http2);
    else
        credit(&http2->nuisance, CREDIT_OF_REQUEST);
    size_t untaken = stream->in.length;
    http2_stream_close(stream);
    connection_ready(http2->connection);
    if (untaken && nghttp2_session_consume_connection(session, untaken))
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    return 0;
}

/* ---- frames that leave ---- */

static int on_sent(nghttp2_session *session, const nghttp2_frame *frame, void *context)
{
    struct http2 *http2 = context;
    (void)session;
    bool end = frame->hd.flags & NGHTTP2_FLAG_END_STREAM;
    if (frame->hd.type == NGHTTP2_RST_STREAM && frame->rst_stream.error_code != NGHTTP2_NO_ERROR)
        nuisance(http2, NUISANCE_OF_FRAME);
    if (frame->hd.type == NGHTTP2_DATA)
        credit(&http2->nuisance, frame->hd.length);
    if (!end || (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA))
        return 0;
    struct http2_stream *stream = stream_of(http2, frame->hd.stream_id);
    if (stream)
        http2_stream_said(stream);
    return 0;
}

static bool is_flushing(const struct connection *connection)
{
    return connection->out.length - connection->out_sent >= HTTP2_OUTPUT_MAX;
}

/* What the session has to say, as long as the socket takes it. */
static void put_output(struct http2 *http2)
{
    struct connection *connection = http2->connection;
    bool more = true;
    while (more && !connection->broken && !is_flushing(connection)) {
        more = false;
        while (!is_flushing(connection)) {
            const uint8_t *bytes;
            ssize_t length = nghttp2_session_mem_send(http2->session, &bytes);
            if (length < 0)
                http2->failed = true;
            if (length <= 0)
                break;
            connection_put(connection, (struct span){bytes, (size_t)length});
            more = true;
        }
        connection_flush(connection);
    }
}

/* ---- for the connection ---- */

static int set_callbacks(nghttp2_session_callbacks **ret)
{
    if (nghttp2_session_callbacks_new(ret))
        return -1;
    nghttp2_session_callbacks_set_on_begin_frame_callback(*ret, on_begin_frame);
    nghttp2_session_callbacks_set_on_begin_headers_callback(*ret, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(*ret, on_header);
    nghttp2_session_callbacks_set_on_invalid_header_callback2(*ret, on_invalid_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(*ret, on_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(*ret, on_chunk);
    nghttp2_session_callbacks_set_on_stream_close_callback(*ret, on_stream_close);
    nghttp2_session_callbacks_set_on_frame_send_callback(*ret, on_sent);
    return 0;
}

static int set_options(nghttp2_option **ret)
{
    if (nghttp2_option_new(ret))
        return -1;
    nghttp2_option_set_no_auto_window_update(*ret, 1);
    nghttp2_option_set_no_closed_streams(*ret, 1);
    nghttp2_option_set_max_deflate_dynamic_table_size(*ret, DEFLATE_TABLE);
    nghttp2_option_set_max_outbound_ack(*ret, ACKS_MAX);
    nghttp2_option_set_max_continuations(*ret, CONTINUATIONS_MAX);
    nghttp2_option_set_stream_reset_rate_limit(*ret, 5 * RESETS_MAX, 5 * RESETS_PER_SECOND);
    return 0;
}

static int make_session(struct http2 *http2)
{
    nghttp2_mem memory = {http2, on_malloc, on_free, on_calloc, on_realloc};
    nghttp2_session_callbacks *callbacks = NULL;
    nghttp2_option *options = NULL;
    int made = -1;
    if (!set_callbacks(&callbacks) && !set_options(&options))
        made = nghttp2_session_server_new3(&http2->session, callbacks, http2, options, &memory);
    nghttp2_option_del(options);
    nghttp2_session_callbacks_del(callbacks);
    return made;
}

static int say_hello(struct http2 *http2)
{
    const nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, HTTP2_STREAMS_MAX},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, HTTP_HEADERS_MAX},
        {NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1},
    };
    if (nghttp2_submit_settings(http2->session, NGHTTP2_FLAG_NONE, settings,
                                sizeof settings / sizeof *settings))
        return -1;
    /* No stream waits for another's window: each has its own, and that is the bound. */
    return nghttp2_session_set_local_window_size(http2->session, NGHTTP2_FLAG_NONE, 0,
                                                 HTTP2_STREAMS_MAX * HTTP2_UPLOAD_WINDOW);
}

void http2_open(struct connection *connection)
{
    struct http2 *http2 = calloc(1, sizeof *http2);
    if (!http2) {
        connection_break(connection);
        return;
    }
    *http2 = (struct http2){.connection = connection};
    connection->http2 = http2;
    if (make_session(http2) || say_hello(http2))
        connection_break(connection);
    http2->base = http2->memory;
    connection_ready(connection);
}

static void close_streams(struct http2 *http2)
{
    while (http2->first) { /* the session must not find them again */
        (void)nghttp2_session_set_stream_user_data(http2->session, http2->first->id, NULL);
        http2_stream_close(http2->first);
    }
}

struct http2 *http2_close(struct http2 *http2)
{
    if (!http2)
        return NULL;
    http2->ending = true;
    close_streams(http2);
    http2_head_free(http2->head);
    if (http2->session)
        nghttp2_session_del(http2->session);
    assert(http2->counted == 0 && http2->held == 0);
    free(http2);
    return NULL;
}

/* While all connections together have too much, those go that have the most, and the idle ones. */
static bool is_shed(const struct http2 *http2)
{
    const struct connection *connection = http2->connection;
    return connection->gateway->memory > GATEWAY_MEMORY_MAX
        && (http2->streams == 0 || connection->counted > HTTP2_SHED_MAX);
}

/* The session says nothing of bodies that come for streams that were reset: so what was allowed of
 * them pays for any bytes, but for bytes only, and not before there are many. */
static size_t bytes_beyond_stray(struct http2 *http2, size_t bytes)
{
    size_t taken = bytes < http2->stray ? bytes : http2->stray;
    if (http2->nuisance.level + bytes <= NUISANCE_MAX / 2)
        return bytes;
    http2->stray -= taken;
    return bytes - taken;
}

void http2_input(struct http2 *http2, struct span bytes)
{
    if (http2->failed)
        return;
    nuisance(http2, bytes_beyond_stray(http2, bytes.length)); /* until known to be of use */
    if (is_shed(http2))
        http2_end(http2, NGHTTP2_ENHANCE_YOUR_CALM);
    ssize_t took = nghttp2_session_mem_recv(http2->session, bytes.data, bytes.length);
    if (took == NGHTTP2_ERR_FLOODED || took == NGHTTP2_ERR_TOO_MANY_CONTINUATIONS)
        http2_end(http2, NGHTTP2_ENHANCE_YOUR_CALM);
    else if (took < 0)
        http2_end(http2, took == NGHTTP2_ERR_BAD_CLIENT_MAGIC ? NGHTTP2_PROTOCOL_ERROR
                                                              : NGHTTP2_INTERNAL_ERROR);
    if (took < 0 && !nghttp2_session_want_write(http2->session))
        http2->failed = true;
    connection_ready(http2->connection);
}

bool http2_reads(const struct http2 *http2)
{
    return !http2->ending && !http2->failed && !is_flushing(http2->connection);
}

static void leave(struct http2 *http2)
{
    if (http2->leaving || http2->ending)
        return;
    http2->leaving = true;
    if (nghttp2_submit_goaway(http2->session, NGHTTP2_FLAG_NONE,
                              nghttp2_session_get_last_proc_stream_id(http2->session),
                              NGHTTP2_NO_ERROR, NULL, 0))
        http2->failed = true;
}

void http2_advance(struct http2 *http2)
{
    struct connection *connection = http2->connection;
    if (connection->gateway->stopping)
        leave(http2);
    http2_streams_advance(http2);
    put_output(http2);
    if (http2->ready_first)
        http2_streams_advance(http2); /* what has left makes room, and ends streams */
    bool over = !nghttp2_session_want_read(http2->session)
             && !nghttp2_session_want_write(http2->session);
    bool left = http2->leaving && http2->streams == 0
             && !nghttp2_session_want_write(http2->session);
    if (over || left || http2->failed) {
        http2->ending = true;
        close_streams(http2);
        connection->closing = true;
    }
}

enum timer_kind http2_timer(const struct http2 *http2)
{
    if (http2->ending)
        return TIMER_NONE; /* but for what has to leave */
    if (http2->head || !http2->settled)
        return TIMER_HEAD;
    return http2->streams ? TIMER_NONE : TIMER_IDLE;
}

void http2_timed_out(struct http2 *http2)
{
    http2_end(http2, !http2->settled ? NGHTTP2_SETTINGS_TIMEOUT
                     : http2->head   ? NGHTTP2_ENHANCE_YOUR_CALM
                                     : NGHTTP2_NO_ERROR);
}

bool http2_idle(const struct http2 *http2)
{
    return http2->streams == 0 && !http2->head && http2->settled && !http2->ending;
}

size_t http2_counted(const struct http2 *http2)
{
    size_t session = http2->memory > http2->base ? http2->memory - http2->base : 0;
    return session + http2->counted + (http2->head ? http2->head->bytes.capacity : 0);
}
