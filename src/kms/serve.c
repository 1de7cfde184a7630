#define _GNU_SOURCE
#include "kms/serve.h"

#include "base/cleanup.h"
#include "base/log.h"
#include "base/secret.h"
#include "kms/channel.h"
#include "wire/messages.h"

#include <assert.h>
#include <string.h>
#include <sys/epoll.h>

enum {
    READY_TIMEOUT_MS = 10000,
    WITHDRAWALS_EVERY_US = 300 * 1000, /* a withdrawn key ends its cell within a second */
};

struct reply {
    struct channel *channel; /* NULL: it was closed meanwhile */
    uint32_t id, offset, length;
    bool anchored, opened, secret;
    uint8_t offers[HASH_BYTES];
};

struct push { /* a new charter, for cells */
    uint8_t id[TENANT_ID_BYTES];
    uint32_t length;
    uint8_t body[SIGNED_CHARTER_MAX];
};

struct secrets { /* in secret memory */
    uint8_t replies[REPLIES_BYTES];
    struct released_key scratch;
};

struct kms {
    struct loop *loop;
    struct keystore *store;
    struct secrets *secrets;
    uint8_t *packet; /* IPC_PACKET_MAX: the message being read */
    struct channel *channels;
    uint32_t counts[ROLE_COUNT];
    struct reply replies[REPLIES_A_TURN];
    uint32_t reply_count, reply_bytes;
    struct push pushes[CHARTERS_A_TURN];
    uint32_t push_count;
    bool some_end, stopping, look_due;
    struct loop_timer look_timer;
    status outcome;
    struct fault fault;
};

struct keystore *kms_store(struct kms *kms)
{
    return kms->store;
}

struct released_key *kms_scratch(struct kms *kms)
{
    return &kms->secrets->scratch;
}

uint32_t kms_channels(const struct kms *kms, enum channel_role role)
{
    return kms->counts[role];
}

void kms_stop(struct kms *kms)
{
    kms->stopping = true;
}

/* ---- channels ---- */

static void close_channel(struct channel *channel)
{
    struct kms *kms = channel->kms;
    for (uint32_t i = 0; i < kms->reply_count; i++)
        if (kms->replies[i].channel == channel)
            kms->replies[i].channel = NULL;
    channel->source = loop_unwatch(kms->loop, channel->source);
    channel->outbox = ipc_outbox_free(channel->outbox);
    cleanup_close(&channel->fd);
    *channel->link = channel->next;
    if (channel->next)
        channel->next->link = channel->link;
    kms->counts[channel->role]--;
    if (channel->role == ROLE_SUPERVISOR)
        loop_stop(kms->loop); /* nobody is left to serve for */
    free(channel);
}

/* The peer of a channel that ends this way did what it must not. */
static void refuse_channel(struct channel *channel, uint32_t type, const struct fault *fault)
{
    struct kms *kms = channel->kms;
    log_event(LOG_WARN, "channel.refused", "%s, message %#x: %s",
              kms_permits[channel->role].role, type, fault->detail);
    if (channel->role == ROLE_SUPERVISOR && kms->outcome == OK) {
        kms->outcome = BAD_REQUEST;
        kms->fault = *fault;
    }
    close_channel(channel);
}

static void lose_channel(struct channel *channel)
{
    struct kms *kms = channel->kms;
    if (channel->role == ROLE_SUPERVISOR && !kms->stopping && kms->outcome == OK)
        kms->outcome = FAIL(CLOSED, &kms->fault, "the supervisor is gone");
    close_channel(channel);
}

void kms_close_channels(struct kms *kms, enum channel_role role, const uint8_t *tenant)
{
    struct channel *next;
    for (struct channel *channel = kms->channels; channel; channel = next) {
        next = channel->next;
        if (channel->role == role
            && (!tenant || span_equal(SPAN_OF(channel->tenant),
                                      (struct span){tenant, TENANT_ID_BYTES})))
            close_channel(channel);
    }
}

bool kms_serves_cell(const struct kms *kms, const uint8_t tenant[TENANT_ID_BYTES])
{
    const struct channel *channel = kms->channels;
    while (channel && (channel->role != ROLE_CELL
                       || !span_equal(SPAN_OF(channel->tenant),
                                      (struct span){tenant, TENANT_ID_BYTES})))
        channel = channel->next;
    return channel != NULL;
}

void kms_look_at_withdrawals(struct kms *kms)
{
    kms->look_due = true;
}

static void on_look(void *context)
{
    kms_look_at_withdrawals(context);
}

/* Nothing is looked at while nobody is awake. */
static status look_later(struct kms *kms, struct fault *fault)
{
    if (kms->counts[ROLE_CELL] == 0 || kms->look_timer.due_us != 0)
        return OK;
    return loop_timer_start(kms->loop, &kms->look_timer, WITHDRAWALS_EVERY_US, on_look, kms,
                            fault);
}

void kms_push_charter(struct kms *kms, const struct signed_charter *charter)
{
    assert(kms->push_count < CHARTERS_A_TURN); /* has_room */
    struct push *push = &kms->pushes[kms->push_count++];
    struct buffer body = buffer_over(push->body, sizeof push->body);
    signed_charter_put(&body, charter);
    assert(!body.failed);
    push->length = (uint32_t)body.length;
    memcpy(push->id, charter->id, TENANT_ID_BYTES);
}

/* ---- messages ---- */

static const struct permit *permit_of(const struct channel *channel, uint32_t type)
{
    const struct permits *permits = &kms_permits[channel->role];
    for (size_t i = 0; i < permits->count; i++)
        if (permits->rows[i].type == type)
            return &permits->rows[i];
    return NULL;
}

static bool has_room(const struct kms *kms)
{
    return kms->reply_count < REPLIES_A_TURN && REPLIES_BYTES - kms->reply_bytes >= REPLY_MAX
        && kms->push_count < CHARTERS_A_TURN;
}

static void keep_reply(const struct request *request, const struct buffer *body)
{
    struct kms *kms = request->kms;
    kms->replies[kms->reply_count++] = (struct reply){
        .channel = request->channel, .id = request->message->id, .offset = kms->reply_bytes,
        .length = (uint32_t)body->length, .anchored = request->anchored,
        .opened = request->opened, .secret = request->secret};
    memcpy(kms->replies[kms->reply_count - 1].offers, request->offers, HASH_BYTES);
    kms->reply_bytes += (uint32_t)body->length;
}

/* False: the message was malformed, out of turn or not permitted. */
static bool handle(struct request *request, struct fault *fault)
{
    struct kms *kms = request->kms;
    const struct permit *permit = permit_of(request->channel, request->message->type);
    struct buffer body = buffer_over(kms->secrets->replies + kms->reply_bytes, REPLY_MAX);
    if (!permit) {
        (void)FAIL(BAD_REQUEST, fault, "not permitted here");
        return false;
    }
    if (ipc_need_fds(request->message, permit->fds, fault) != OK)
        return false;
    reply_put_head(&body, OK, "");
    request->body = cursor_over(request->message->body);
    request->result = &body;
    status handled = permit->handler(request, fault);
    if (handled == OK)
        handled = buffer_check(&body, "reply", fault);
    assert(handled != OK || request->read);
    if (!request->read || !permit->answered)
        return handled == OK;
    if (handled != OK) {
        secret_wipe(body.data, body.capacity);
        buffer_clear(&body);
        reply_put_head(&body, handled, fault->detail);
        request->opened = false;
        memset(request->offers, 0, HASH_BYTES);
    }
    keep_reply(request, &body);
    return true;
}

/* False when the channel is no more. */
static bool serve_message(struct channel *channel, struct ipc_message *message)
{
    struct kms *kms = channel->kms;
    struct request request = {.kms = kms, .channel = channel, .message = message};
    struct fault fault = {0};
    bool held = handle(&request, &fault);
    ipc_message_close(message);
    secret_wipe(&kms->secrets->scratch, sizeof kms->secrets->scratch);
    if (!held) {
        refuse_channel(channel, message->type, &fault);
        return false;
    }
    if (channel->ends)
        kms->some_end = true;
    return true;
}

static void read_channel(struct channel *channel)
{
    struct kms *kms = channel->kms;
    struct fault fault = {0};
    for (unsigned i = 0; i < MESSAGES_A_TURN && !channel->ends && has_room(kms); i++) {
        struct ipc_message message;
        status received = ipc_receive(&message, channel->fd, kms->packet, &fault);
        if (received == AGAIN)
            return;
        if (received == CLOSED) {
            lose_channel(channel);
            return;
        }
        if (received != OK) {
            refuse_channel(channel, 0, &fault);
            return;
        }
        if (!serve_message(channel, &message))
            return;
    }
}

/* A peer that does not take its answers is not read either. */
static bool watch_again(struct channel *channel)
{
    struct fault fault;
    uint32_t events = ipc_outbox_waiting(channel->outbox) ? EPOLLOUT : EPOLLIN;
    if (loop_change(channel->kms->loop, channel->source, events, &fault) == OK)
        return true;
    log_event(LOG_ERROR, "channel.failed", "%s", fault.detail);
    close_channel(channel);
    return false;
}

static void on_channel(void *context, uint32_t events)
{
    struct channel *channel = context;
    struct fault fault;
    if (channel->ends)
        return;
    if (ipc_outbox_waiting(channel->outbox)) {
        if (ipc_outbox_flush(channel->outbox, &fault) != OK) {
            lose_channel(channel);
            return;
        }
        if (ipc_outbox_waiting(channel->outbox) && !(events & (EPOLLHUP | EPOLLERR)))
            return;
        if (!watch_again(channel))
            return;
    }
    read_channel(channel);
}

status kms_add_channel(struct kms *kms, const struct channel *model, int fd, struct fault *fault)
{
    _cleanup_close_ int owned = fd;
    struct channel *channel = calloc(1, sizeof *channel);
    if (!channel)
        return FAIL(INTERNAL, fault, "kms: out of memory");
    *channel = (struct channel){.kms = kms, .fd = fd, .role = model->role, .uid = model->uid,
                                .served_as = model->served_as};
    memcpy(channel->tenant, model->tenant, TENANT_ID_BYTES);
    status added = ipc_outbox_create(&channel->outbox, fd, OUTBOX_BYTES, fault);
    if (added == OK)
        added = loop_watch(&channel->source, kms->loop, fd, EPOLLIN, on_channel, channel, fault);
    if (added != OK) {
        ipc_outbox_free(channel->outbox);
        free(channel);
        return added;
    }
    channel->next = kms->channels;
    channel->link = &kms->channels;
    if (kms->channels)
        kms->channels->link = &channel->next;
    kms->channels = channel;
    kms->counts[channel->role]++;
    (void)take_fd(&owned);
    status watched = look_later(kms, fault);
    if (watched != OK)
        close_channel(channel); /* no cell whose key could not be taken away from it */
    return watched;
}

/* ---- the end of a turn ---- */

static status send_body(const struct reply *reply, struct span body, struct fault *fault)
{
    struct channel *channel = reply->channel;
    if (!reply->secret)
        return ipc_outbox_send(channel->outbox, MESSAGE_REPLY, reply->id, body, NULL, 0, fault);
    /* a queue would copy the key out of secret memory: who opens one has taken what came before */
    if (ipc_outbox_waiting(channel->outbox))
        return FAIL(CLOSED, fault, "the peer does not take its answers");
    return ipc_send(channel->fd, MESSAGE_REPLY, reply->id, body, NULL, 0, fault);
}

static bool is_offer(const struct reply *reply)
{
    static const uint8_t none[HASH_BYTES];
    return !span_equal(SPAN_OF(reply->offers), SPAN_OF(none));
}

static void send_reply(struct kms *kms, const struct reply *reply, status durable,
                       const struct fault *why)
{
    struct channel *channel = reply->channel;
    struct span body = {kms->secrets->replies + reply->offset, reply->length};
    uint8_t storage[512];
    struct buffer failure = buffer_over(storage, sizeof storage);
    struct fault fault;
    struct reply sent = *reply;
    if (reply->anchored && durable != OK) {
        reply_put_head(&failure, durable, why->detail);
        body = buffer_span(&failure);
        sent.secret = false;
        if (reply->opened)
            channel->epoch = 0; /* it was not opened, and may be again */
    }
    if (send_body(&sent, body, &fault) != OK) {
        log_event(LOG_WARN, "channel.lost", "%s: %s", kms_permits[channel->role].role,
                  fault.detail);
        lose_channel(channel);
        return;
    }
    if (sent.secret && is_offer(reply)) /* what is told is durable here */
        memcpy(channel->offered, reply->offers, HASH_BYTES);
    if (ipc_outbox_waiting(channel->outbox))
        (void)watch_again(channel);
}

static void close_ended(struct kms *kms)
{
    struct channel *next;
    for (struct channel *channel = kms->channels; channel; channel = next) {
        next = channel->next;
        if (channel->ends)
            close_channel(channel);
    }
    kms->some_end = false;
}

static bool concerns(const struct push *push, const struct channel *channel)
{
    return channel->role == ROLE_CELL && channel->epoch
        && (keystore_is_platform(push->id)
            || span_equal(SPAN_OF(push->id), SPAN_OF(channel->tenant)));
}

static struct channel *find_supervisor(struct kms *kms)
{
    struct channel *channel = kms->channels;
    while (channel && channel->role != ROLE_SUPERVISOR)
        channel = channel->next;
    return channel;
}

/* A cell that cannot be told, or whose key was taken away, must not go on: the supervisor hears
 * that it is served no more, and ends it. */
static void cut_off(struct channel *cell, const char *event, const struct fault *why)
{
    struct kms *kms = cell->kms;
    struct channel *supervisor = find_supervisor(kms);
    uint8_t storage[sizeof why->detail + 16];
    struct buffer body = buffer_over(storage, sizeof storage);
    struct fault fault;
    log_event(LOG_WARN, event, "a cell is cut off: %s", why->detail);
    reply_put_head(&body, UNAVAILABLE, why->detail);
    if (supervisor) {
        status sent = ipc_outbox_send(supervisor->outbox, MESSAGE_REPLY, cell->served_as,
                                      buffer_span(&body), NULL, 0, &fault);
        if (sent == OK && ipc_outbox_waiting(supervisor->outbox))
            sent = loop_change(kms->loop, supervisor->source, EPOLLOUT, &fault);
        if (sent != OK) /* without it no cell could be ended: then the kms ends */
            supervisor->ends = kms->some_end = true;
    }
    close_channel(cell);
}

static void send_push(struct kms *kms, const struct push *push)
{
    struct span body = {push->body, push->length};
    struct channel *next;
    struct fault fault;
    for (struct channel *channel = kms->channels; channel; channel = next) {
        next = channel->next;
        if (!concerns(push, channel))
            continue;
        status sent = ipc_outbox_send(channel->outbox, MESSAGE_CHARTER, 0, body, NULL, 0, &fault);
        if (sent == CLOSED)
            lose_channel(channel); /* it ended, or ends */
        else if (sent != OK)
            cut_off(channel, "charter.undelivered", &fault);
        else if (ipc_outbox_waiting(channel->outbox))
            (void)watch_again(channel);
    }
}

static void look_at_withdrawals(struct kms *kms)
{
    struct channel *next;
    struct fault why;
    kms->look_due = false;
    for (struct channel *channel = kms->channels; channel; channel = next) {
        next = channel->next;
        if (channel->role == ROLE_CELL
            && keystore_usable(kms->store, channel->tenant, &why) != OK)
            cut_off(channel, "key.withdrawn", &why);
    }
    if (look_later(kms, &why) != OK) { /* a withdrawal would go unseen: then the kms ends */
        kms->outcome = FAIL(INTERNAL, &kms->fault, "%s", why.detail);
        loop_stop(kms->loop);
    }
}

static void send_replies(struct kms *kms, bool to_cells, status durable, const struct fault *why)
{
    for (uint32_t i = 0; i < kms->reply_count; i++) {
        const struct channel *channel = kms->replies[i].channel;
        if (channel && (channel->role == ROLE_CELL) == to_cells)
            send_reply(kms, &kms->replies[i], durable, why);
    }
}

static void on_turn_end(void *context)
{
    struct kms *kms = context;
    struct fault why = {0};
    status durable = keystore_sync(kms->store, &why);
    if (durable != OK)
        log_event(LOG_ERROR, "anchors.failed", "%s", why.detail);
    if (kms->look_due)
        look_at_withdrawals(kms); /* before a key leaves, or an operator hears that it is done */
    send_replies(kms, true, durable, &why); /* a key before the charter that came after it */
    for (uint32_t i = 0; durable == OK && i < kms->push_count; i++)
        send_push(kms, &kms->pushes[i]);
    send_replies(kms, false, durable, &why); /* who signed one hears that all were told */
    secret_wipe(kms->secrets->replies, REPLIES_BYTES);
    kms->reply_count = 0;
    kms->reply_bytes = 0;
    kms->push_count = 0;
    if (kms->some_end)
        close_ended(kms);
    if (kms->stopping)
        loop_stop(kms->loop);
}

/* ---- life ---- */

static status send_ready(struct keystore *store, int fd, struct fault *fault)
{
    uint8_t storage[2 * SIGN_PUBLIC_BYTES];
    keystore_public_keys(storage, storage + SIGN_PUBLIC_BYTES, store);
    return ipc_send_wait(fd, MESSAGE_READY, 0, SPAN_OF(storage), NULL, 0, READY_TIMEOUT_MS, fault);
}

static status start(struct kms *kms, int *supervisor_fd, struct fault *fault)
{
    const struct channel supervisor = {.role = ROLE_SUPERVISOR};
    kms->packet = malloc(IPC_PACKET_MAX);
    if (!kms->packet)
        return FAIL(INTERNAL, fault, "kms: out of memory");
    kms->secrets = secret_alloc(sizeof *kms->secrets);
    if (!kms->secrets)
        return FAIL(INTERNAL, fault, "kms: the kernel refuses secret memory");
    TRY(send_ready(kms->store, *supervisor_fd, fault));
    return kms_add_channel(kms, &supervisor, take_fd(supervisor_fd), fault);
}

status kms_serve(struct kms **ret, struct loop *loop, struct keystore *store, int supervisor_fd,
                 struct fault *fault)
{
    _cleanup_close_ int owned = supervisor_fd;
    struct kms *kms = calloc(1, sizeof *kms);
    if (!kms)
        return FAIL(INTERNAL, fault, "kms: out of memory");
    kms->loop = loop;
    kms->store = store;
    status started = start(kms, &owned, fault);
    if (started != OK) {
        kms_free(kms);
        return started;
    }
    loop_on_turn_end(loop, on_turn_end, kms);
    *ret = kms;
    return OK;
}

struct kms *kms_free(struct kms *kms)
{
    if (!kms)
        return NULL;
    loop_on_turn_end(kms->loop, NULL, NULL);
    loop_timer_stop(kms->loop, &kms->look_timer);
    for (int role = 0; role < ROLE_COUNT; role++)
        kms_close_channels(kms, (enum channel_role)role, NULL);
    secret_free(kms->secrets, sizeof *kms->secrets);
    free(kms->packet);
    free(kms);
    return NULL;
}

status kms_outcome(const struct kms *kms, struct fault *fault)
{
    if (kms->outcome != OK)
        *fault = kms->fault;
    return kms->outcome;
}
