/* relay.c: the channel to one cell. The cell is hostile: whatever it sends is parsed strictly,
 * checked against the stream it names, and can end this relay only. Its words reach a client as
 * checked values of a head that answer.c writes, or as a body of the length announced.
 *
 * A client that takes its answer slowly lets it pile up here, in memory; beyond a bound this cell
 * is not read for a while, and the clients that hold the most are cut off, so that they cost nobody
 * else, not even of their own tenant, more than that (holding.c). Of an answer that streams no more
 * than a window comes before its client has taken what came. */
#include "base/log.h"
#include "base/secret.h"
#include "gateway/state.h"
#include "wire/messages.h"

#include <assert.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

enum {
    OUTBOX_MAX = MIB(4),
    MESSAGES_PER_TURN = 32,
    CREDIT_MIN = RELAY_WINDOW / 4, /* given at once: each is a message */
    RETRY_AFTER_MAX = 24 * 3600,
    HTTP_STATUS_MIN = 200,
    HTTP_STATUS_MAX = 599,
};

void relay_watch(struct relay *relay)
{
    struct fault fault;
    if (relay->dead)
        return;
    uint32_t events = (relay->paused ? 0u : EPOLLIN)
                    | (ipc_outbox_waiting(relay->outbox) ? EPOLLOUT : 0u);
    if (events == relay->events)
        return;
    relay->events = events;
    if (loop_change(relay->gateway->loop, relay->source, events, &fault) != OK)
        relay_end(relay, fault.detail);
}

static void fail_streams(struct relay *relay)
{
    for (size_t i = 0; i < STREAM_BUCKETS; i++) {
        while (relay->buckets[i]) {
            struct stream *stream = relay->buckets[i];
            struct exchange *exchange = stream->exchange;
            stream->exchange = NULL;
            stream_close(stream);
            if (!exchange)
                continue;
            exchange->stream = NULL;
            exchange_refuse(exchange, UNAVAILABLE,
                            "the tenant's cell stopped: whether it acted is not known", NULL);
        }
    }
}

void relay_end(struct relay *relay, const char *why)
{
    struct gateway *gateway = relay->gateway;
    struct tenant *tenant = relay->tenant;
    if (relay->dead)
        return;
    relay->dead = true;
    if (why)
        log_event(LOG_WARN, "relay.ended", "%s", why);
    relay->tenant = NULL;
    relay->source = loop_unwatch(gateway->loop, relay->source);
    relay->outbox = ipc_outbox_free(relay->outbox);
    close(relay->fd);
    relay->fd = -1;
    *(relay->previous ? &relay->previous->next : &gateway->relays) = relay->next;
    if (relay->next)
        relay->next->previous = relay->previous;
    relay->next_dead = gateway->dead_relays;
    gateway->dead_relays = relay;
    fail_streams(relay);
    assert(relay->live == 0 && !relay->uploads.first);
    if (tenant)
        tenant_lost_relay(tenant);
}

/* One that takes nothing new goes when it has answered all. */
static void end_if_done(struct relay *relay)
{
    if (!relay->dead && !relay->tenant && relay->live == 0
        && (!relay->draining || relay->drained))
        relay_end(relay, NULL);
}

/* RELAY_DRAINED is the last message, so it waits for bodies that are under way, and for answers
 * that stand still without credit. */
static void say_drained(struct relay *relay)
{
    struct fault fault;
    if (relay->dead || !relay->draining || relay->drained || relay->talking)
        return;
    relay->drained = true;
    status sent = ipc_outbox_send(relay->outbox, MESSAGE_RELAY_DRAINED, 0, (struct span){0}, NULL,
                                  0, &fault);
    if (sent != OK)
        relay_end(relay, sent == CLOSED ? NULL : fault.detail);
    else
        relay_watch(relay);
}

static void take_no_more(struct relay *relay)
{
    struct tenant *tenant = relay->tenant;
    relay->tenant = NULL;
    if (tenant)
        tenant_lost_relay(tenant);
}

void relay_detach(struct relay *relay)
{
    take_no_more(relay);
    end_if_done(relay);
}

static void upload_over(struct exchange *exchange)
{
    struct stream *stream = exchange->stream;
    if (!stream->uploading)
        return;
    stream->uploading = false;
    exchange_list_remove(exchange);
    if (!(stream->streams & ACTION_STREAMS_OUT))
        stream_hush(stream);
}

static void sent_request(struct relay *relay, struct exchange *exchange)
{
    struct stream *stream = exchange->stream;
    stream->streams = exchange->streams;
    stream->head_only = exchange->asked.head_only;
    stream->room = RELAY_WINDOW - (uint32_t)exchange->body.length;
    stream->talking = !exchange->body_done || stream->streams & ACTION_STREAMS_OUT;
    relay->talking += stream->talking;
    wipe_and_free(&exchange->frame);
    if (exchange->body_done) {
        wipe_and_free(&exchange->body);
        exchange->phase = EXCHANGE_SENT;
        return;
    }
    secret_wipe(exchange->body.data, exchange->body.length);
    buffer_clear(&exchange->body);
    exchange->body.max = RELAY_FRAGMENT_MAX;
    exchange->frame = buffer_of(IPC_BODY_MAX);
    exchange->phase = EXCHANGE_UPLOAD;
    stream->uploading = true;
    exchange_list_put(&relay->uploads, exchange);
    if (exchange->expect_continue && stream->streams & ACTION_STREAMS_IN)
        exchange->client.carrier->proceed(exchange);
}

status relay_request(struct relay *relay, struct exchange *exchange, struct fault *fault)
{
    struct buffer *frame = &exchange->frame;
    size_t head_length = frame->length;
    assert(span_equal(SPAN_OF(relay->tenant_id), SPAN_OF(exchange->tenant_id))); /* invariant 1 */
    assert(!relay->draining && !exchange->stream);
    if (relay->live >= RELAY_STREAMS_MAX)
        return FAIL(UNAVAILABLE, fault, "more than %u requests in flight",
                    (unsigned)RELAY_STREAMS_MAX);
    struct stream *stream = stream_open(relay, exchange);
    if (!stream)
        return FAIL(UNAVAILABLE, fault, "out of memory");
    buffer_put_field(frame, buffer_span(&exchange->body));
    frame->data[0] = exchange->body_done ? FLAG_END : 0;
    status sent = buffer_check(frame, "frame", fault);
    if (sent == OK)
        sent = ipc_outbox_send(relay->outbox, MESSAGE_RELAY_REQUEST, stream->id,
                               buffer_span(frame), NULL, 0, fault);
    if (sent != OK) {
        stream->exchange = NULL;
        stream_close(stream);
        frame->length = head_length; /* for another relay */
        return sent == CLOSED ? CLOSED : UNAVAILABLE;
    }
    exchange->stream = stream;
    sent_request(relay, exchange);
    relay_watch(relay);
    return OK;
}

uint32_t relay_takes_body(const struct stream *stream)
{
    if (ipc_outbox_waiting(stream->relay->outbox))
        return 0; /* looked at again when the cell has taken what waits */
    return stream->streams & ACTION_STREAMS_IN && stream->room < RELAY_FRAGMENT_MAX
               ? stream->room : (uint32_t)RELAY_FRAGMENT_MAX;
}

void relay_body(struct exchange *exchange)
{
    struct stream *stream = exchange->stream;
    struct relay *relay = stream->relay;
    struct fault fault;
    buffer_clear(&exchange->frame);
    buffer_put_u8(&exchange->frame, exchange->body_done ? FLAG_END : 0);
    buffer_put_field(&exchange->frame, buffer_span(&exchange->body));
    status sent = buffer_check(&exchange->frame, "frame", &fault);
    if (sent == OK)
        sent = ipc_outbox_send(relay->outbox, MESSAGE_RELAY_BODY, stream->id,
                               buffer_span(&exchange->frame), NULL, 0, &fault);
    if (sent != OK) {
        relay_end(relay, sent == CLOSED ? NULL : fault.detail);
        return;
    }
    if (stream->streams & ACTION_STREAMS_IN)
        stream->room -= (uint32_t)exchange->body.length;
    secret_wipe(exchange->body.data, exchange->body.length);
    buffer_clear(&exchange->body);
    if (exchange->body_done) {
        if (exchange->phase == EXCHANGE_UPLOAD)
            exchange->phase = EXCHANGE_SENT;
        upload_over(exchange);
        say_drained(relay);
    }
    relay_watch(relay);
}

/* False when the cell can be told nothing more. */
static bool say_cancel(struct stream *stream)
{
    struct relay *relay = stream->relay;
    struct fault ignored;
    return !relay->drained
        && ipc_outbox_send(relay->outbox, MESSAGE_RELAY_CANCEL, stream->id, (struct span){0},
                           NULL, 0, &ignored) == OK;
}

void relay_cancel(struct exchange *exchange)
{
    struct stream *stream = exchange->stream;
    struct relay *relay = stream->relay;
    upload_over(exchange);
    exchange->stream = NULL;
    if (say_cancel(stream))
        stream_cancel(stream);
    else
        stream_orphan(stream);
    say_drained(relay);
    relay_watch(relay);
    end_if_done(relay);
}

void relay_credit(struct stream *stream, uint32_t bytes)
{
    struct relay *relay = stream->relay;
    uint8_t storage[sizeof bytes];
    struct buffer body = buffer_over(storage, sizeof storage);
    struct fault fault;
    assert(!relay->drained && bytes <= stream->owed);
    if (bytes < CREDIT_MIN)
        return;
    stream->owed -= bytes;
    buffer_put_u32(&body, bytes);
    status sent = ipc_outbox_send(relay->outbox, MESSAGE_RELAY_CREDIT, stream->id,
                                  buffer_span(&body), NULL, 0, &fault);
    if (sent != OK)
        relay_end(relay, sent == CLOSED ? NULL : fault.detail);
    else
        relay_watch(relay);
}

/* What of a RELAY_RESPONSE may be believed at all. */
struct response {
    uint8_t flags;
    uint16_t http_status;
    uint32_t retry_after;
    uint64_t length;
    struct span headers[RELAY_HEADERS], fragment;
};

static status check_headers(const struct response *response, struct fault *fault)
{
    uint16_t code = response->http_status;
    const struct span *headers = response->headers, replayed = headers[RELAY_IDEMPOTENT_REPLAYED];
    for (int kind = 1; kind < RELAY_HEADERS; kind++)
        if (!http_is_header_value(headers[kind]))
            return FAIL(BAD_REQUEST, fault, "header %d: not the value of a header", kind);
    if (headers[RELAY_CONTENT_TYPE].length > GATEWAY_CONTENT_TYPE_MAX
        || headers[RELAY_ALLOW].length > GATEWAY_ALLOW_MAX)
        return FAIL(BAD_REQUEST, fault, "a header too long");
    if (headers[RELAY_ALLOW].length && code != 405)
        return FAIL(BAD_REQUEST, fault, "Allow of %u", code);
    if (headers[RELAY_CONTENT_RANGE].length ? code != 206 && code != 416 : code == 206)
        return FAIL(BAD_REQUEST, fault, "Content-Range of %u", code);
    if (replayed.length && !span_is(replayed, "true"))
        return FAIL(BAD_REQUEST, fault, "Idempotent-Replayed, but not true");
    return OK;
}

static status check_response(const struct response *response, struct fault *fault)
{
    bool bodiless = response->http_status == 204 || response->http_status == 304;
    if (response->flags & ~FLAG_END)
        return FAIL(BAD_REQUEST, fault, "flags %#x", response->flags);
    if (response->http_status < HTTP_STATUS_MIN || response->http_status > HTTP_STATUS_MAX)
        return FAIL(BAD_REQUEST, fault, "the HTTP status %u", response->http_status);
    if (response->retry_after > RETRY_AFTER_MAX)
        return FAIL(BAD_REQUEST, fault, "retry_after %u", response->retry_after);
    if (response->length != RELAY_LENGTH_UNKNOWN && response->length > HTTP_LENGTH_MAX)
        return FAIL(BAD_REQUEST, fault, "a body too large");
    if (response->length && (bodiless || response->headers[RELAY_CONTENT_TYPE].length == 0))
        return FAIL(BAD_REQUEST, fault, "a body where there can be none");
    return check_headers(response, fault);
}

static status get_response(struct response *ret, struct span body, struct fault *fault)
{
    struct cursor cursor = cursor_over(body);
    struct response response;
    TRY(cursor_u8(&response.flags, &cursor, fault));
    TRY(cursor_u16(&response.http_status, &cursor, fault));
    TRY(cursor_u32(&response.retry_after, &cursor, fault));
    TRY(cursor_u64(&response.length, &cursor, fault));
    TRY(relay_headers_get(response.headers, &cursor, RELAY_ANSWER_HEADERS, fault));
    TRY(cursor_field(&response.fragment, &cursor, RELAY_FRAGMENT_MAX, "fragment", fault));
    TRY(cursor_end(&cursor, fault));
    TRY(check_response(&response, fault));
    *ret = response;
    return OK;
}

/* The stream has been answered to its end, whole or broken off. */
static void complete(struct stream *stream, bool whole)
{
    struct relay *relay = stream->relay;
    struct exchange *exchange = stream->exchange;
    if (exchange && stream->uploading) {
        upload_over(exchange);
        (void)say_cancel(stream);
    }
    stream->exchange = NULL;
    stream_close(stream);
    if (exchange) {
        exchange->stream = NULL;
        if (whole)
            exchange_answered(exchange);
        else
            exchange_refuse(exchange, INTERNAL, "the answer broke off", NULL);
    }
    say_drained(relay);
    relay_watch(relay);
    end_if_done(relay);
}

/* The next bytes of an answer: within what was announced, within what credit was given for, and
 * the end where it is due. */
static status take_answer(struct stream *stream, struct span fragment, bool end,
                          struct fault *fault)
{
    bool streamed = stream->streams & ACTION_STREAMS_OUT;
    if (streamed && fragment.length > RELAY_WINDOW - stream->owed)
        return FAIL(BAD_REQUEST, fault, "%zu bytes beyond its credit", fragment.length);
    stream->owed += streamed ? (uint32_t)fragment.length : 0;
    if (stream->left == RELAY_LENGTH_UNKNOWN)
        return OK;
    if (fragment.length > stream->left)
        return FAIL(BAD_REQUEST, fault, "%zu bytes where %llu are left", fragment.length,
                    (unsigned long long)stream->left);
    stream->left -= fragment.length;
    if (end != (stream->left == 0))
        return FAIL(BAD_REQUEST, fault, "a response that ends elsewhere than announced");
    return OK;
}

static status open_answer(struct stream *stream, const struct response *response,
                          struct fault *fault)
{
    bool streamed = stream->streams & ACTION_STREAMS_OUT, end = response->flags & FLAG_END;
    if ((stream->uploading && !(stream->streams & ACTION_STREAMS_IN)) || stream->answering)
        return FAIL(BAD_REQUEST, fault, "a response to a stream that awaits none");
    if (!streamed && response->length > CELL_RESPONSE_MAX)
        return FAIL(BAD_REQUEST, fault, "a response over %u bytes", (unsigned)CELL_RESPONSE_MAX);
    stream->left = response->length;
    if (streamed && stream->head_only && end && response->fragment.length == 0)
        return OK; /* what GET would give, without it */
    return take_answer(stream, response->fragment, end, fault);
}

static void begin_answer(struct stream *stream, const struct response *response)
{
    struct exchange *exchange = stream->exchange;
    struct answer answer = {.http_status = response->http_status, .length = response->length,
                            .retry_after = response->retry_after};
    const struct piece piece = {.bytes = response->fragment, .end = response->flags & FLAG_END,
                                .from = stream};
    assert(span_equal(SPAN_OF(stream->relay->tenant_id),
                      SPAN_OF(exchange->tenant_id))); /* invariant 1 */
    for (int kind = 0; kind < RELAY_HEADERS; kind++)
        answer.headers[kind] = response->headers[kind];
    if (piece.end && !exchange->body_done)
        exchange->client.carrier->refusing(exchange);
    exchange->phase = EXCHANGE_ANSWER;
    exchange->client.carrier->answer(exchange, &answer, &piece);
}

static void more_answer(struct stream *stream, struct span fragment, bool end)
{
    struct exchange *exchange = stream->exchange;
    const struct client *client = &exchange->client;
    const struct piece piece = {.bytes = fragment, .end = end, .from = stream};
    if (!exchange->asked.head_only)
        client->carrier->more(exchange, &piece);
    client->carrier->moved(client);
    client->carrier->ready(client);
}

static status on_response(struct relay *relay, const struct ipc_message *message,
                          struct fault *fault)
{
    struct response response;
    TRY(get_response(&response, message->body, fault));
    struct stream *stream = stream_find(relay, message->id);
    if (!stream && stream_forgotten(relay, message->id))
        return OK;
    if (!stream)
        return FAIL(BAD_REQUEST, fault, "a response to a stream that awaits none");
    TRY(open_answer(stream, &response, fault));
    if (!stream->cancelled)
        streams_settle(relay, stream->id);
    stream->answering = true;
    if (stream->exchange)
        begin_answer(stream, &response);
    if (response.flags & FLAG_END)
        complete(stream, true);
    return OK;
}

static status on_more(struct relay *relay, const struct ipc_message *message,
                      struct fault *fault)
{
    struct cursor cursor = cursor_over(message->body);
    struct span fragment;
    uint8_t flags;
    TRY(cursor_u8(&flags, &cursor, fault));
    TRY(cursor_field(&fragment, &cursor, RELAY_FRAGMENT_MAX, "fragment", fault));
    TRY(cursor_end(&cursor, fault));
    struct stream *stream = stream_find(relay, message->id);
    bool end = flags & FLAG_END;
    if (!stream && stream_forgotten(relay, message->id))
        return OK;
    if (!stream || !stream->answering)
        return FAIL(BAD_REQUEST, fault, "a fragment of no response");
    if (flags & ~FLAG_END
        || (fragment.length == 0 && !(end && stream->left == RELAY_LENGTH_UNKNOWN)))
        return FAIL(BAD_REQUEST, fault, "a fragment of nothing");
    TRY(take_answer(stream, fragment, end, fault));
    if (stream->exchange)
        more_answer(stream, fragment, end);
    if (end)
        complete(stream, true);
    return OK;
}

static status on_break(struct relay *relay, const struct ipc_message *message,
                       struct fault *fault)
{
    struct stream *stream = stream_find(relay, message->id);
    if (message->body.length)
        return FAIL(BAD_REQUEST, fault, "RELAY_BREAK with a body");
    if (!stream && stream_forgotten(relay, message->id))
        return OK;
    if (!stream || !stream->answering || !(stream->streams & ACTION_STREAMS_OUT))
        return FAIL(BAD_REQUEST, fault, "RELAY_BREAK out of turn");
    complete(stream, false);
    return OK;
}

static status on_credit(struct relay *relay, const struct ipc_message *message,
                        struct fault *fault)
{
    struct cursor cursor = cursor_over(message->body);
    struct stream *stream = stream_find(relay, message->id);
    uint32_t bytes;
    TRY(cursor_u32(&bytes, &cursor, fault));
    TRY(cursor_end(&cursor, fault));
    if (!stream && bytes && (int32_t)(message->id - relay->next_id) <= 0) /* ids wrap */
        return OK; /* it crossed the end */
    if (!stream || !(stream->streams & ACTION_STREAMS_IN))
        return FAIL(BAD_REQUEST, fault, "credit for a body that does not stream");
    if (bytes == 0 || bytes > RELAY_WINDOW - stream->room)
        return FAIL(BAD_REQUEST, fault, "credit of %u for %u bytes", bytes,
                    (unsigned)RELAY_WINDOW - stream->room);
    stream->room += bytes;
    if (stream->exchange)
        exchange_ready(stream->exchange);
    return OK;
}

static status on_drain(struct relay *relay, const struct ipc_message *message,
                       struct fault *fault)
{
    if (message->body.length || relay->draining)
        return FAIL(BAD_REQUEST, fault, "RELAY_DRAIN out of turn");
    relay->draining = true;
    take_no_more(relay);
    say_drained(relay);
    end_if_done(relay);
    return OK;
}

static status dispatch(struct relay *relay, const struct ipc_message *message,
                       struct fault *fault)
{
    TRY(ipc_need_fds(message, 0, fault));
    switch (message->type) {
    case MESSAGE_RELAY_RESPONSE:
        return on_response(relay, message, fault);
    case MESSAGE_RELAY_MORE:
        return on_more(relay, message, fault);
    case MESSAGE_RELAY_CREDIT:
        return on_credit(relay, message, fault);
    case MESSAGE_RELAY_BREAK:
        return on_break(relay, message, fault);
    case MESSAGE_RELAY_DRAIN:
        return on_drain(relay, message, fault);
    default:
        return FAIL(BAD_REQUEST, fault, "message %#x", message->type);
    }
}

/* False when nothing waits any more. */
static bool read_one(struct relay *relay)
{
    struct gateway *gateway = relay->gateway;
    struct ipc_message message;
    struct fault fault;
    char why[sizeof fault.detail + 16];
    status came = ipc_receive(&message, relay->fd, gateway->storage, &fault);
    if (came == AGAIN)
        return false;
    if (came == CLOSED) {
        relay_end(relay, NULL);
        return false;
    }
    if (came == OK) {
        came = dispatch(relay, &message, &fault);
        secret_wipe(gateway->storage, IPC_HEADER_BYTES + message.body.length);
        ipc_message_close(&message);
    }
    if (came != OK) {
        snprintf(why, sizeof why, "a cell sent %s", fault.detail);
        relay_end(relay, why);
    }
    return came == OK && !relay->dead;
}

static void on_event(void *context, uint32_t events)
{
    struct relay *relay = context;
    struct fault fault;
    if (events & EPOLLOUT) {
        status flushed = ipc_outbox_flush(relay->outbox, &fault);
        if (flushed != OK) {
            relay_end(relay, flushed == CLOSED ? NULL : fault.detail);
            return;
        }
        for (struct exchange *at = relay->uploads.first; at; at = at->next)
            exchange_ready(at);
    }
    /* A paused relay whose cell is gone holds no more than its socket did. */
    bool reads = events & (EPOLLIN | EPOLLHUP | EPOLLERR);
    for (int i = 0; reads && i < MESSAGES_PER_TURN && read_one(relay); i++) {
        relay->paused = holding_check(relay);
        if ((relay->paused && !(events & EPOLLHUP)) || relay->live == 0)
            break; /* nothing more is due: should it come, it is reported */
    }
    relay_watch(relay);
}

status relay_open(struct relay **ret, struct tenant *tenant, int fd, struct fault *fault)
{
    struct gateway *gateway = tenant->gateway;
    struct relay *relay = calloc(1, sizeof *relay);
    if (!relay) {
        close(fd);
        return FAIL(INTERNAL, fault, "relay: out of memory");
    }
    *relay = (struct relay){.gateway = gateway, .tenant = tenant, .fd = fd, .events = EPOLLIN};
    for (size_t i = 0; i < TENANT_ID_BYTES; i++)
        relay->tenant_id[i] = tenant->id[i];
    status made = ipc_outbox_create(&relay->outbox, fd, OUTBOX_MAX, fault);
    if (made == OK)
        made = loop_watch(&relay->source, gateway->loop, fd, EPOLLIN, on_event, relay, fault);
    if (made != OK) {
        ipc_outbox_free(relay->outbox);
        free(relay);
        close(fd);
        return made;
    }
    relay->next = gateway->relays;
    if (relay->next)
        relay->next->previous = relay;
    gateway->relays = relay;
    *ret = relay;
    return OK;
}

void relays_sweep(struct gateway *gateway)
{
    struct relay **at = &gateway->dead_relays;
    while (*at) {
        struct relay *relay = *at;
        if (relay->holders) { /* its last answers are still on their way to clients */
            at = &relay->next_dead;
            continue;
        }
        *at = relay->next_dead;
        free(relay);
    }
}
