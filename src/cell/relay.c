/* relay.c: the channels to the gateways. A gateway is not trusted: every stream, byte and turn it
 * takes is bounded here, and a message that is malformed or out of turn ends its channel, and that
 * one only.
 *
 * An answer is sent only after the request's last fragment, but for bodies that are streamed: so a
 * stream's end is known to both sides, and what a refused request still sends is dropped as it
 * comes. */
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
    TAKEN_MAX = MIB(1),      /* of streamed bodies, from one relay in one turn */
    CREDIT_MIN = RELAY_WINDOW / 4, /* what is worth a message */
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

void stream_list_join(struct stream_list *list, struct stream_list *behind)
{
    if (!list->first) {
        *list = *behind;
    } else if (behind->first) {
        *list->last = behind->first;
        list->last = behind->last;
    }
    *behind = (struct stream_list){0};
    if (!list->first)
        list->last = &list->first;
}

void stream_list_remove(struct stream_list *list, struct stream *stream)
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
    struct arena arena = arena_of(REQUEST_ARENA_MAX);
    if (stream) {
        cell->spares = stream->next;
        cell->spare_count--;
        arena = stream->arena;
    } else {
        stream = malloc(sizeof *stream);
        if (!stream)
            return NULL;
    }
    *stream = (struct stream){.relay = relay, .id = id, .arena = arena, .in_open = RELAY_WINDOW};
    stream->last_fragment = &stream->first_fragment;
    stream->next_bucket = *bucket_of(relay, id);
    *bucket_of(relay, id) = stream;
    relay->streams++;
    cell->streams++;
    return stream;
}

/* Gives up what it holds but its number: it was answered. It is on no list but its bucket's. */
static void stream_rest(struct stream *stream)
{
    struct cell *cell = stream->relay->cell;
    streams_let_go(stream);
    assert(cell->bodies_bytes >= stream->body_bytes);
    cell->bodies_bytes -= stream->body_bytes;
    stream->body_bytes = 0;
    if (stream->held.data)
        secret_wipe(stream->held.data, stream->held.length);
    buffer_free(&stream->held);
    quota_leave(&stream->request, cell);
    arena_reset(&stream->arena); /* wipes */
    stream->phase = STREAM_RESTS;
}

static void stream_free(struct stream *stream)
{
    struct relay *relay = stream->relay;
    struct cell *cell = relay->cell;
    struct stream **at = bucket_of(relay, stream->id);
    usage_count(cell, stream);
    if (stream->phase == STREAM_FLOWS)
        stream_list_remove(&cell->flows, stream);
    stream_rest(stream);
    while (*at != stream)
        at = &(*at)->next_bucket;
    *at = stream->next_bucket;
    relay->streams--;
    cell->streams--;
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

void relay_make_ready(struct stream *stream)
{
    if (stream->phase == STREAM_FLOWS)
        stream_list_remove(&stream->relay->cell->flows, stream);
    stream->phase = STREAM_READY;
    stream_list_put(&stream->relay->ready[kind_of(&stream->request)], stream);
    park_note_use(stream->relay->cell);
}

/* The request can go to the turn: its body is one piece. */
static void complete(struct stream *stream, int64_t now_us)
{
    struct request *request = &stream->request;
    struct span body = {0};
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
    relay_make_ready(stream);
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

/* What no gateway that keeps to the protocol sends. */
static status check_fragment(const struct stream *stream, uint8_t flags, struct span bytes,
                             struct fault *fault)
{
    const struct request *request = &stream->request;
    uint64_t came = stream->body_came + bytes.length; /* each at most a fragment more */
    uint64_t most = request->body_max > HTTP_BODY_MAX ? request->body_max : HTTP_BODY_MAX;
    if (stream_takes(stream) && bytes.length > stream->in_open)
        return FAIL(BAD_REQUEST, fault, "stream %u: bytes beyond the credit", stream->id);
    if (!stream_takes(stream) && came > most)
        return FAIL(TOO_LARGE, fault, "a body over %llu bytes", (unsigned long long)most);
    if (request->length >= 0
        && (came > (uint64_t)request->length
            || (flags & FLAG_END && came < (uint64_t)request->length)))
        return FAIL(BAD_REQUEST, fault, "stream %u: a body of another length", stream->id);
    return OK;
}

static status take_fragment(struct stream *stream, uint8_t flags, struct span bytes,
                            struct fault *fault)
{
    TRY(check_fragment(stream, flags, bytes, fault));
    stream->body_came += bytes.length;
    stream->ended = flags & FLAG_END;
    if (stream_takes(stream)) {
        stream->in_open -= (uint32_t)bytes.length;
        stream->relay->taken += (uint32_t)bytes.length;
        if (stream->phase != STREAM_RESTS)
            streams_take(stream, bytes);
        else if (stream->ended)
            stream_free(stream);
        return OK;
    }
    if (bytes.length && stream->request.verdict == OK)
        keep_fragment(stream, bytes);
    if (stream->ended)
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
    if (stream_takes(stream))
        streams_open(stream);
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
    if (flags & ~FLAG_END || !stream || stream->ended)
        return FAIL(BAD_REQUEST, fault, "a fragment out of turn");
    return take_fragment(stream, flags, bytes, fault);
}

static status on_credit(struct relay *relay, const struct ipc_message *message,
                        struct fault *fault)
{
    struct cursor cursor = cursor_over(message->body);
    uint32_t bytes;
    TRY(cursor_u32(&bytes, &cursor, fault));
    TRY(cursor_end(&cursor, fault));
    struct stream *stream = stream_find(relay, message->id);
    if (bytes == 0)
        return FAIL(BAD_REQUEST, fault, "a credit of nothing");
    if (!stream)
        return OK; /* it crossed the end */
    if (!(stream->request.streams & ACTION_STREAMS_OUT)
        || bytes > stream->out_sent - stream->out_credited)
        return FAIL(BAD_REQUEST, fault, "stream %u: credit for what was not sent", stream->id);
    stream->out_credited += bytes;
    return OK;
}

static status on_cancel(struct relay *relay, const struct ipc_message *message,
                        struct fault *fault)
{
    if (message->body.length)
        return FAIL(BAD_REQUEST, fault, "RELAY_CANCEL with a body");
    struct stream *stream = stream_find(relay, message->id);
    if (!stream)
        return OK; /* it crossed the answer */
    if (stream->phase == STREAM_READY)
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
    case MESSAGE_RELAY_CREDIT:
        return on_credit(relay, message, fault);
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
    relay->taken = 0;
    for (int i = 0; i < PACKETS_PER_WAKEUP && relay->taken < TAKEN_MAX && read_one(relay); i++)
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

/* The frame that was built; a relay that does not take it ends. */
static void send_frame(struct stream *stream, uint32_t type)
{
    struct relay *relay = stream->relay;
    struct fault fault;
    if (relay->dead)
        return;
    status sent = send(relay, type, stream->id, &relay->cell->turn.frame, &fault);
    if (sent == CLOSED)
        relay_end(relay);
    else if (sent != OK)
        relay_fail(relay, fault.detail);
    watch(relay);
}

/* The last message of the answer was sent: the number is free when nothing more can come. */
static void finish(struct stream *stream)
{
    if (stream->phase == STREAM_FLOWS)
        stream_list_remove(&stream->relay->cell->flows, stream);
    stream->phase = STREAM_READY; /* on no list */
    if (stream->ended)
        stream_free(stream);
    else
        stream_rest(stream);
}

void relay_send_head(struct stream *stream, struct span fragment, bool end)
{
    struct buffer *frame = &stream->relay->cell->turn.frame;
    const struct answer *answer = &stream->answer;
    buffer_clear(frame);
    buffer_put_u8(frame, end ? FLAG_END : 0);
    buffer_put_u16(frame, (uint16_t)answer->http_status);
    buffer_put_u32(frame, answer->retry_after);
    buffer_put_u64(frame, answer->length);
    relay_headers_put(frame, answer->headers);
    buffer_put_field(frame, fragment);
    send_frame(stream, MESSAGE_RELAY_RESPONSE);
    stream->begun = true;
    stream->out_sent += fragment.length;
    if (end)
        finish(stream);
}

void relay_send_more(struct stream *stream, struct span fragment, bool end)
{
    struct buffer *frame = &stream->relay->cell->turn.frame;
    buffer_clear(frame);
    buffer_put_u8(frame, end ? FLAG_END : 0);
    buffer_put_field(frame, fragment);
    send_frame(stream, MESSAGE_RELAY_MORE);
    stream->out_sent += fragment.length;
    if (end)
        finish(stream);
}

void relay_send_break(struct stream *stream)
{
    buffer_clear(&stream->relay->cell->turn.frame);
    send_frame(stream, MESSAGE_RELAY_BREAK);
    finish(stream);
}

void relay_send_credit(struct stream *stream)
{
    struct buffer *frame = &stream->relay->cell->turn.frame;
    if (stream->ended || stream->in_due < CREDIT_MIN)
        return;
    buffer_clear(frame);
    buffer_put_u32(frame, stream->in_due);
    send_frame(stream, MESSAGE_RELAY_CREDIT);
    stream->in_open += stream->in_due;
    stream->in_due = 0;
}

bool relay_can_send(const struct relay *relay)
{
    return !relay->dead && !relay->blocked;
}

size_t relay_room(const struct stream *stream)
{
    uint64_t under_way = stream->out_sent - stream->out_credited;
    return under_way < RELAY_WINDOW ? (size_t)(RELAY_WINDOW - under_way) : 0;
}

void relay_send_answer(struct stream *stream, struct span body)
{
    if (!stream->answer.head_only)
        stream->answer.length = body.length;
    struct span piece = cut(&body);
    if (body.length == 0) {
        relay_send_head(stream, piece, true);
        return;
    }
    relay_send_head(stream, piece, false);
    while (body.length > RELAY_FRAGMENT_MAX)
        relay_send_more(stream, cut(&body), false);
    relay_send_more(stream, body, true);
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
