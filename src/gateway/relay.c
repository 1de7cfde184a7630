/* relay.c: the channel to one cell. The cell is hostile: whatever it sends is parsed strictly,
 * checked against the stream it names, and can end this relay only. Its words reach a client as
 * checked values of a head that answer.c writes, or as a body of the length announced.
 *
 * A client that takes its answer slowly lets it pile up here, in memory; beyond a bound this cell
 * is not read for a while, and the clients that hold the most are cut off, so that they cost nobody
 * else, not even of their own tenant, more than that. */
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
    HELD_MAX_WHEN_FULL = MIB(1), /* while all buffers together near their bound */
    HEADER_VALUE_MAX = 255,
    RETRY_AFTER_MAX = 24 * 3600,
    HTTP_STATUS_MIN = 200,
    HTTP_STATUS_MAX = 599,
};

static void watch(struct relay *relay)
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

/* RELAY_DRAINED is the last message, so it waits for the uploads. */
static void say_drained(struct relay *relay)
{
    struct fault fault;
    if (relay->dead || !relay->draining || relay->drained || relay->uploading)
        return;
    relay->drained = true;
    status sent = ipc_outbox_send(relay->outbox, MESSAGE_RELAY_DRAINED, 0, (struct span){0}, NULL,
                                  0, &fault);
    if (sent != OK)
        relay_end(relay, sent == CLOSED ? NULL : fault.detail);
    else
        watch(relay);
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
    struct relay *relay = exchange->stream->relay;
    if (!exchange->stream->uploading)
        return;
    exchange->stream->uploading = false;
    exchange_list_remove(exchange);
    relay->uploading--;
}

static void sent_request(struct relay *relay, struct exchange *exchange)
{
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
    exchange->stream->uploading = true;
    relay->uploading++;
    exchange_list_put(&relay->uploads, exchange);
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
    watch(relay);
    return OK;
}

bool relay_takes_body(const struct relay *relay)
{
    return !ipc_outbox_waiting(relay->outbox);
}

void relay_body(struct exchange *exchange)
{
    struct relay *relay = exchange->stream->relay;
    struct fault fault;
    buffer_clear(&exchange->frame);
    buffer_put_u8(&exchange->frame, exchange->body_done ? FLAG_END : 0);
    buffer_put_field(&exchange->frame, buffer_span(&exchange->body));
    status sent = buffer_check(&exchange->frame, "frame", &fault);
    if (sent == OK)
        sent = ipc_outbox_send(relay->outbox, MESSAGE_RELAY_BODY, exchange->stream->id,
                               buffer_span(&exchange->frame), NULL, 0, &fault);
    if (sent != OK) {
        relay_end(relay, sent == CLOSED ? NULL : fault.detail);
        return;
    }
    secret_wipe(exchange->body.data, exchange->body.length);
    buffer_clear(&exchange->body);
    if (exchange->body_done) {
        exchange->phase = EXCHANGE_SENT;
        upload_over(exchange);
        say_drained(relay);
    }
    watch(relay);
}

void relay_cancel(struct exchange *exchange)
{
    struct stream *stream = exchange->stream;
    struct relay *relay = stream->relay;
    struct fault ignored;
    upload_over(exchange);
    exchange->stream = NULL;
    bool told = !relay->drained
             && ipc_outbox_send(relay->outbox, MESSAGE_RELAY_CANCEL, stream->id,
                                (struct span){0}, NULL, 0, &ignored) == OK;
    if (told)
        stream_cancel(stream);
    else
        stream_orphan(stream);
    say_drained(relay);
    watch(relay);
    end_if_done(relay);
}

/* What of a RELAY_RESPONSE may be believed at all. */
struct response {
    uint8_t flags;
    uint16_t http_status;
    uint32_t retry_after, length;
    struct span content_type, allow, fragment;
};

static status get_value(struct span *ret, struct cursor *cursor, const char *name,
                        struct fault *fault)
{
    struct span value;
    TRY(cursor_field(&value, cursor, HEADER_VALUE_MAX, name, fault));
    for (size_t i = 0; i < value.length; i++)
        if (value.data[i] < ' ' || value.data[i] > '~')
            return FAIL(BAD_REQUEST, fault, "%s: a byte that is not text", name);
    if (!http_is_header_value(value))
        return FAIL(BAD_REQUEST, fault, "%s: not the value of a header", name);
    *ret = value;
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
    if (response->length > CELL_RESPONSE_MAX || response->fragment.length > response->length)
        return FAIL(BAD_REQUEST, fault, "%zu of %u bytes in the first fragment",
                    response->fragment.length, response->length);
    if (response->length && (bodiless || response->content_type.length == 0))
        return FAIL(BAD_REQUEST, fault, "a body where there can be none");
    return OK;
}

static status get_response(struct response *ret, struct span body, struct fault *fault)
{
    struct cursor cursor = cursor_over(body);
    struct response response;
    TRY(cursor_u8(&response.flags, &cursor, fault));
    TRY(cursor_u16(&response.http_status, &cursor, fault));
    TRY(cursor_u32(&response.retry_after, &cursor, fault));
    TRY(get_value(&response.content_type, &cursor, "content_type", fault));
    TRY(get_value(&response.allow, &cursor, "allow", fault));
    TRY(cursor_u32(&response.length, &cursor, fault));
    TRY(cursor_field(&response.fragment, &cursor, RELAY_FRAGMENT_MAX, "fragment", fault));
    TRY(cursor_end(&cursor, fault));
    TRY(check_response(&response, fault));
    *ret = response;
    return OK;
}

/* The stream has been answered to its end. */
static void complete(struct stream *stream)
{
    struct relay *relay = stream->relay;
    struct exchange *exchange = stream->exchange;
    stream->exchange = NULL;
    stream_close(stream);
    if (exchange) {
        exchange->stream = NULL;
        exchange_answered(exchange);
    }
    end_if_done(relay);
}

static void begin_answer(struct relay *relay, struct exchange *exchange,
                         const struct response *response)
{
    struct answer answer = {.http_status = response->http_status,
                            .content_type = response->content_type, .allow = response->allow,
                            .length = response->length, .retry_after = response->retry_after};
    assert(span_equal(SPAN_OF(relay->tenant_id), SPAN_OF(exchange->tenant_id))); /* invariant 1 */
    exchange->phase = EXCHANGE_ANSWER;
    exchange->client.carrier->answer(exchange, &answer, response->fragment, relay);
}

static void more_answer(struct relay *relay, struct exchange *exchange, struct span fragment)
{
    const struct client *client = &exchange->client;
    if (!exchange->asked.head_only)
        client->carrier->more(exchange, fragment, relay);
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
    if (!stream || stream->uploading || stream->answering)
        return FAIL(BAD_REQUEST, fault, "a response to a stream that awaits none");
    stream->left = response.length - (uint32_t)response.fragment.length;
    bool end = response.flags & FLAG_END;
    if (end != (stream->left == 0))
        return FAIL(BAD_REQUEST, fault, "a response that ends elsewhere than announced");
    if (!stream->cancelled)
        streams_settle(relay, stream->id);
    stream->answering = true;
    if (stream->exchange)
        begin_answer(relay, stream->exchange, &response);
    if (end)
        complete(stream);
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
    if (!stream && stream_forgotten(relay, message->id))
        return OK;
    if (!stream || !stream->answering)
        return FAIL(BAD_REQUEST, fault, "a fragment of no response");
    if (flags & ~FLAG_END || fragment.length == 0 || fragment.length > stream->left)
        return FAIL(BAD_REQUEST, fault, "%zu bytes where %u are left", fragment.length,
                    stream->left);
    stream->left -= (uint32_t)fragment.length;
    bool end = flags & FLAG_END;
    if (end != (stream->left == 0))
        return FAIL(BAD_REQUEST, fault, "a response that ends elsewhere than announced");
    if (stream->exchange)
        more_answer(relay, stream->exchange, fragment);
    if (end)
        complete(stream);
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
    case MESSAGE_RELAY_DRAIN:
        return on_drain(relay, message, fault);
    default:
        return FAIL(BAD_REQUEST, fault, "message %#x", message->type);
    }
}

/* The clients that take the least would stop all others of their tenant for as long as they
 * please: those that hold the most lose their connections, until half of what may wait is left. */
static void cut_largest(struct relay *relay)
{
    size_t left = relay->held;
    while (left > GATEWAY_RELAY_HELD_MAX / 2) {
        struct holding *largest = NULL;
        for (struct holding *at = relay->holders; at; at = at->next)
            if (!at->connection->broken && (!largest || at->bytes > largest->bytes))
                largest = at;
        if (!largest)
            return;
        connection_break(largest->connection);
        for (struct holding *at = relay->holders; at; at = at->next)
            if (at->connection == largest->connection)
                left -= at->bytes;
    }
}

static void pause_if_full(struct relay *relay)
{
    bool pressed = relay->gateway->memory > GATEWAY_MEMORY_MAX / 2;
    relay->paused = relay->held > (pressed ? (size_t)HELD_MAX_WHEN_FULL
                                           : (size_t)GATEWAY_RELAY_HELD_MAX);
    if (relay->held > GATEWAY_RELAY_HELD_MAX)
        cut_largest(relay);
}

void holding_add(struct holding *holding, struct connection *connection, struct relay *from,
                 size_t bytes)
{
    if (!from || bytes == 0)
        return;
    assert(!holding->relay || holding->relay == from);
    if (!holding->relay) {
        *holding = (struct holding){.relay = from, .connection = connection,
                                    .next = from->holders};
        if (from->holders)
            from->holders->previous = holding;
        from->holders = holding;
    }
    holding->bytes += bytes;
    from->held += bytes;
}

static void holding_end(struct holding *holding)
{
    *(holding->previous ? &holding->previous->next : &holding->relay->holders) = holding->next;
    if (holding->next)
        holding->next->previous = holding->previous;
    *holding = (struct holding){0};
}

/* Below this a relay that was paused is read again. */
static size_t resume_below(const struct relay *relay)
{
    return relay->gateway->memory > GATEWAY_MEMORY_MAX / 2 ? HELD_MAX_WHEN_FULL / 2
                                                           : GATEWAY_RELAY_HELD_MAX / 2;
}

void holding_release(struct holding *holding, size_t bytes)
{
    struct relay *relay = holding->relay;
    if (!relay)
        return;
    assert(bytes <= holding->bytes && bytes <= relay->held);
    holding->bytes -= bytes;
    if (holding->bytes == 0)
        holding_end(holding);
    relay->held -= bytes;
    if (!relay->paused || relay->dead || relay->held > resume_below(relay))
        return;
    relay->paused = false;
    watch(relay);
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
        pause_if_full(relay);
        if ((relay->paused && !(events & EPOLLHUP)) || relay->live == 0)
            break; /* nothing more is due: should it come, it is reported */
    }
    watch(relay);
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
