/* relay.c: the channels to the gateways. A gateway is not trusted: every stream, byte and turn it
 * takes is bounded here, and a message that is malformed or out of turn ends its channel, and that
 * one only.
 *
 * An answer is sent only after the request's last fragment: so a stream's end is known to both
 * sides, and what a refused request still sends is dropped as it comes. */
#include "base/clock.h"
#include "base/log.h"
#include "base/secret.h"
#include "cell/state.h"
#include "wire/messages.h"

#include <assert.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

enum {
    PACKETS_PER_WAKEUP = 64, /* then the next relay, and the turn's commit */
    OUTBOX_MAX = MIB(64),    /* a relay that waits is not read, so one turn's answers fit */
    SPARES_MAX = 32,
    ARENA_MAX = MIB(8),      /* a body twice, its parsed form, what the handler needs */
};

void stream_list_put(struct stream_list *list, struct stream *stream)
{
    if (!list->first)
        list->last = &list->first;
    stream->next = NULL;
    *list->last = stream;
    list->last = &stream->next;
}

struct stream *stream_list_take(struct stream_list *list)
{
    struct stream *stream = list->first;
    if (stream)
        list->first = stream->next;
    return stream;
}

static void stream_list_remove(struct stream_list *list, struct stream *stream)
{
    struct stream **at = &list->first;
    while (*at && *at != stream)
        at = &(*at)->next;
    if (!*at)
        return;
    *at = stream->next;
    if (list->last == &stream->next)
        list->last = at;
}

static struct stream **bucket_of(struct relay *relay, uint32_t id)
{
    return &relay->buckets[id % STREAM_BUCKETS];
}

static struct stream *stream_find(struct relay *relay, uint32_t id)
{
    struct stream *stream = *bucket_of(relay, id);
    while (stream && stream->id != id)
        stream = stream->next_bucket;
    return stream;
}

static struct stream *stream_new(struct relay *relay, uint32_t id)
{
    struct cell *cell = relay->cell;
    struct stream *stream = cell->spares;
    struct arena arena = arena_of(ARENA_MAX);
    if (stream) {
        cell->spares = stream->next;
        cell->spare_count--;
        arena = stream->arena;
    } else {
        stream = malloc(sizeof *stream);
        if (!stream)
            return NULL;
    }
    *stream = (struct stream){.relay = relay, .id = id, .arena = arena};
    stream->last_fragment = &stream->first_fragment;
    stream->next_bucket = *bucket_of(relay, id);
    *bucket_of(relay, id) = stream;
    relay->streams++;
    cell->streams++;
    return stream;
}

/* Takes a stream that is on no list but its bucket's. */
static void stream_free(struct stream *stream)
{
    struct relay *relay = stream->relay;
    struct cell *cell = relay->cell;
    struct stream **at = bucket_of(relay, stream->id);
    while (*at != stream)
        at = &(*at)->next_bucket;
    *at = stream->next_bucket;
    relay->streams--;
    cell->streams--;
    assert(cell->bodies_bytes >= stream->body_bytes);
    cell->bodies_bytes -= stream->body_bytes;
    if (stream->held.data)
        secret_wipe(stream->held.data, stream->held.length);
    buffer_free(&stream->held);
    quota_leave(&stream->request, cell);
    arena_reset(&stream->arena); /* wipes */
    if (cell->spare_count < SPARES_MAX) {
        stream->next = cell->spares;
        cell->spares = stream;
        cell->spare_count++;
        return;
    }
    arena_free(&stream->arena);
    free(stream);
}

void relay_free_spares(struct cell *cell)
{
    while (cell->spares) {
        struct stream *stream = cell->spares;
        cell->spares = stream->next;
        arena_free(&stream->arena);
        free(stream);
    }
    cell->spare_count = 0;
}

void relay_end(struct relay *relay)
{
    if (relay->dead)
        return;
    relay->dead = true;
    relay->source = loop_unwatch(relay->cell->loop, relay->source);
}

static void relay_fail(struct relay *relay, const char *why)
{
    log_event(LOG_WARN, "relay.ended", "gateway %u: %s", relay->index, why);
    relay_end(relay);
}

static struct relay *relay_free(struct relay *relay)
{
    for (uint32_t i = 0; i < STREAM_BUCKETS; i++)
        while (relay->buckets[i])
            stream_free(relay->buckets[i]);
    assert(relay->streams == 0);
    loop_unwatch(relay->cell->loop, relay->source);
    ipc_outbox_free(relay->outbox);
    close(relay->fd);
    free(relay);
    return NULL;
}

void relay_sweep(struct cell *cell)
{
    while (cell->ending) {
        struct relay *relay = cell->ending;
        cell->ending = relay->next_ending;
        relay_free(relay);
    }
    for (uint32_t i = 0; i < GATEWAYS_MAX; i++) {
        struct relay *relay = cell->relays[i];
        if (relay && relay->drained && relay->streams == 0
            && !ipc_outbox_waiting(relay->outbox))
            relay_end(relay);
        if (relay && relay->dead)
            cell->relays[i] = relay_free(relay);
    }
}

/* A refusal leaves an entry, a token that serves once or an Idempotency-Key a row; a denial that is
 * only counted nothing, and never waits for a commit of others. */
static enum ready_kind kind_of(const struct request *request)
{
    if (request->denial != DENIAL_NONE || !request->known)
        return READY_READ;
    return request->verdict != OK || request->action->mutates || request->serves_once
                   || request_keeps_answer(request) ? READY_MUTATION : READY_READ;
}

/* The request can go to the turn: its body is one piece. */
static void complete(struct stream *stream, int64_t now_us)
{
    struct request *request = &stream->request;
    struct span body = {0};
    stream->complete = true;
    if (stream->first_fragment && !stream->first_fragment->next) {
        body = stream->first_fragment->bytes;
    } else if (stream->first_fragment && request->verdict == OK) {
        uint8_t *storage = arena_alloc(&stream->arena, stream->body_bytes);
        struct buffer joined = buffer_over(storage, storage ? stream->body_bytes : 0);
        for (struct fragment *at = stream->first_fragment; at; at = at->next)
            buffer_put(&joined, at->bytes);
        body = buffer_span(&joined);
        if (joined.failed)
            request_refuse(request, INTERNAL, "out of memory");
    }
    request_complete(request, body, now_us);
    stream_list_put(&stream->relay->ready[kind_of(request)], stream);
    stream->relay->cell->last_request_us = clock_monotonic_us();
}

static void keep_fragment(struct stream *stream, struct span bytes)
{
    struct cell *cell = stream->relay->cell;
    struct request *request = &stream->request;
    if (bytes.length > request->body_max - stream->body_bytes) {
        request_refuse(request, request->body_max ? TOO_LARGE : BAD_REQUEST,
                       request->body_max ? "the body is larger than this action takes"
                                         : "this action takes no body");
        return;
    }
    if (bytes.length > CELL_BODIES_MAX - cell->bodies_bytes) {
        request_refuse(request, UNAVAILABLE, "too many large requests at once");
        return;
    }
    struct fragment *fragment = arena_alloc(&stream->arena, sizeof *fragment);
    struct span copy = fragment ? arena_copy(&stream->arena, bytes) : (struct span){0};
    if (!copy.data) {
        request_refuse(request, INTERNAL, "out of memory");
        return;
    }
    fragment->bytes = copy;
    *stream->last_fragment = fragment;
    stream->last_fragment = &fragment->next;
    stream->body_bytes += bytes.length;
    cell->bodies_bytes += bytes.length;
}

static status take_fragment(struct stream *stream, uint8_t flags, struct span bytes,
                            struct fault *fault)
{
    if (bytes.length > HTTP_BODY_MAX - stream->body_came)
        return FAIL(TOO_LARGE, fault, "a body over %u bytes", (unsigned)HTTP_BODY_MAX);
    stream->body_came += bytes.length;
    if (bytes.length && stream->request.verdict == OK)
        keep_fragment(stream, bytes);
    if (flags & FLAG_END)
        complete(stream, clock_wall_us());
    return OK;
}

static status on_request(struct relay *relay, const struct ipc_message *message,
                         struct fault *fault)
{
    struct request_head head;
    TRY(request_head_get(&head, message->body, fault));
    if (relay->drained)
        return FAIL(BAD_REQUEST, fault, "a request after RELAY_DRAINED");
    if (stream_find(relay, message->id))
        return FAIL(BAD_REQUEST, fault, "stream %u is in flight already", message->id);
    if (relay->streams >= RELAY_STREAMS_MAX)
        return FAIL(TOO_LARGE, fault, "more than %u streams", (unsigned)RELAY_STREAMS_MAX);
    struct stream *stream = stream_new(relay, message->id);
    if (!stream)
        return FAIL(INTERNAL, fault, "out of memory");
    request_open(&stream->request, relay->cell, &stream->arena, &head, clock_wall_us());
    return take_fragment(stream, head.flags, head.fragment, fault);
}

static status on_body(struct relay *relay, const struct ipc_message *message, struct fault *fault)
{
    struct cursor cursor = cursor_over(message->body);
    uint8_t flags;
    struct span bytes;
    TRY(cursor_u8(&flags, &cursor, fault));
    TRY(cursor_field(&bytes, &cursor, RELAY_FRAGMENT_MAX, "fragment", fault));
    TRY(cursor_end(&cursor, fault));
    struct stream *stream = stream_find(relay, message->id);
    if (flags & ~FLAG_END || !stream || stream->complete)
        return FAIL(BAD_REQUEST, fault, "a fragment out of turn");
    return take_fragment(stream, flags, bytes, fault);
}

static status on_cancel(struct relay *relay, const struct ipc_message *message,
                        struct fault *fault)
{
    if (message->body.length)
        return FAIL(BAD_REQUEST, fault, "RELAY_CANCEL with a body");
    struct stream *stream = stream_find(relay, message->id);
    if (!stream)
        return OK; /* it crossed the answer */
    for (int kind = 0; kind < READY_KINDS; kind++)
        stream_list_remove(&relay->ready[kind], stream);
    stream_free(stream);
    return OK;
}

static status on_drained(struct relay *relay, const struct ipc_message *message,
                         struct fault *fault)
{
    if (message->body.length || !relay->drain_sent || relay->drained)
        return FAIL(BAD_REQUEST, fault, "RELAY_DRAINED out of turn");
    relay->drained = true;
    return OK;
}

static status dispatch(struct relay *relay, const struct ipc_message *message,
                       struct fault *fault)
{
    TRY(ipc_need_fds(message, 0, fault));
    switch (message->type) {
    case MESSAGE_RELAY_REQUEST:
        return on_request(relay, message, fault);
    case MESSAGE_RELAY_BODY:
        return on_body(relay, message, fault);
    case MESSAGE_RELAY_CANCEL:
        return on_cancel(relay, message, fault);
    case MESSAGE_RELAY_DRAINED:
        return on_drained(relay, message, fault);
    default:
        return FAIL(BAD_REQUEST, fault, "message %#x on a relay", message->type);
    }
}

/* False when nothing waits any more. */
static bool read_one(struct relay *relay)
{
    struct cell *cell = relay->cell;
    struct ipc_message message;
    struct fault fault;
    status came = ipc_receive(&message, relay->fd, cell->storage, &fault);
    if (came == AGAIN)
        return false;
    if (came == CLOSED) {
        relay_end(relay);
        return false;
    }
    if (came == OK) {
        came = dispatch(relay, &message, &fault);
        secret_wipe(cell->storage, IPC_HEADER_BYTES + message.body.length); /* the token */
        ipc_message_close(&message);
    }
    if (came != OK) {
        relay_fail(relay, fault.detail);
        return false;
    }
    return true;
}

static void watch(struct relay *relay)
{
    struct fault fault;
    bool waits = ipc_outbox_waiting(relay->outbox);
    if (relay->dead || waits == relay->blocked)
        return;
    relay->blocked = waits;
    if (loop_change(relay->cell->loop, relay->source, waits ? EPOLLOUT : EPOLLIN, &fault) != OK)
        relay_fail(relay, fault.detail);
}

static void on_event(void *context, uint32_t events)
{
    struct relay *relay = context;
    struct fault fault;
    if (relay->blocked) {
        status sent = ipc_outbox_flush(relay->outbox, &fault);
        if (sent == CLOSED)
            relay_end(relay);
        else if (sent != OK)
            relay_fail(relay, fault.detail);
        watch(relay);
        return; /* what came in is read next turn, if there is room for answers */
    }
    (void)events; /* ends and errors show up when reading */
    kms_listen(relay->cell); /* quotas are taken as requests come: by the newest charter */
    for (int i = 0; i < PACKETS_PER_WAKEUP && read_one(relay); i++)
        ;
}

status relay_add(struct cell *cell, uint32_t index, int fd, struct fault *fault)
{
    if (index >= GATEWAYS_MAX) {
        close(fd);
        return FAIL(BAD_REQUEST, fault, "gateway %u", index);
    }
    struct relay *relay = calloc(1, sizeof *relay);
    if (!relay) {
        close(fd);
        return FAIL(INTERNAL, fault, "relay: out of memory");
    }
    *relay = (struct relay){.cell = cell, .index = index, .fd = fd};
    status made = ipc_outbox_create(&relay->outbox, fd, OUTBOX_MAX, fault);
    if (made == OK)
        made = loop_watch(&relay->source, cell->loop, fd, EPOLLIN, on_event, relay, fault);
    if (made != OK) {
        relay_free(relay);
        return made;
    }
    struct relay *older = cell->relays[index];
    if (older) {
        relay_end(older);
        older->next_ending = cell->ending;
        cell->ending = older;
    }
    cell->relays[index] = relay;
    return OK;
}

static status send(struct relay *relay, uint32_t type, uint32_t id, const struct buffer *body,
                   struct fault *fault)
{
    TRY(buffer_check(body, "frame", fault));
    return ipc_outbox_send(relay->outbox, type, id, buffer_span(body), NULL, 0, fault);
}

void relay_drain(struct relay *relay)
{
    struct fault fault;
    const struct buffer empty = {0};
    if (relay->dead || relay->drain_sent)
        return;
    relay->drain_sent = true;
    status sent = send(relay, MESSAGE_RELAY_DRAIN, 0, &empty, &fault);
    if (sent != OK)
        relay_end(relay);
    watch(relay);
}

static struct span cut(struct span *bytes)
{
    size_t length = bytes->length < RELAY_FRAGMENT_MAX ? bytes->length : RELAY_FRAGMENT_MAX;
    struct span piece = {bytes->data, length};
    *bytes = (struct span){length ? bytes->data + length : bytes->data, bytes->length - length};
    return piece;
}

static status send_answer(struct relay *relay, uint32_t id, const struct answer *answer,
                          struct span body, struct fault *fault)
{
    struct buffer *frame = &relay->cell->turn.frame;
    uint64_t total = body.length;
    struct span piece = cut(&body);
    buffer_clear(frame);
    buffer_put_u8(frame, body.length ? 0 : FLAG_END);
    buffer_put_u16(frame, (uint16_t)answer->http_status);
    buffer_put_u32(frame, answer->retry_after);
    buffer_put_u64(frame, total);
    relay_headers_put(frame, answer->headers);
    buffer_put_field(frame, piece);
    TRY(send(relay, MESSAGE_RELAY_RESPONSE, id, frame, fault));
    while (body.length) {
        piece = cut(&body);
        buffer_clear(frame);
        buffer_put_u8(frame, body.length ? 0 : FLAG_END);
        buffer_put_field(frame, piece);
        TRY(send(relay, MESSAGE_RELAY_MORE, id, frame, fault));
    }
    return OK;
}

void relay_send_answer(struct stream *stream, struct span body)
{
    struct relay *relay = stream->relay;
    struct fault fault;
    if (!relay->dead) {
        status sent = send_answer(relay, stream->id, &stream->answer, body, &fault);
        if (sent == CLOSED)
            relay_end(relay);
        else if (sent != OK)
            relay_fail(relay, fault.detail);
        watch(relay);
    }
    stream_free(stream);
}

static bool may_take(const struct relay *relay, enum ready_kind kind)
{
    return relay && !relay->dead && !relay->blocked && relay->ready[kind].first;
}

struct stream *relay_take_ready(struct cell *cell, enum ready_kind kind)
{
    for (uint32_t i = 0; i < GATEWAYS_MAX; i++) {
        uint32_t index = (cell->relay_next + i) % GATEWAYS_MAX;
        if (may_take(cell->relays[index], kind)) {
            cell->relay_next = (index + 1) % GATEWAYS_MAX; /* one each, in turn */
            return stream_list_take(&cell->relays[index]->ready[kind]);
        }
    }
    return NULL;
}

bool relay_has_ready(const struct cell *cell)
{
    for (uint32_t i = 0; i < GATEWAYS_MAX; i++)
        for (int kind = 0; kind < READY_KINDS; kind++)
            if (may_take(cell->relays[i], (enum ready_kind)kind))
                return true;
    return false;
}
