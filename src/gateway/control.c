/* control.c: the channel to control: questions with the id of a slot, answers matched to it, and
 * news of tenants. Control may be gone and come back (CHANNEL): what was asked then fails. A
 * message that control must not send ends this process: whoever took control over gets no
 * gateway that guesses. */
#include "base/clock.h"
#include "base/log.h"
#include "gateway/state.h"
#include "wire/messages.h"

#include <assert.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

enum {
    OUTBOX_MAX = MIB(1),
    MESSAGES_PER_TURN = 64,
    GENERATIONS = UINT32_MAX / GATEWAY_CALLS_MAX - 1,
};

struct result { /* of a question: the one that its kind has */
    struct tenant_record record;
    struct route_told route;
    bool withdrawn; /* UNAVAILABLE, because the tenant's key is */
};

static void finish_call(struct gateway *gateway, uint32_t slot, status code,
                        const struct result *result)
{
    struct control *control = &gateway->control;
    struct call *call = &control->calls[slot];
    enum call_kind kind = call->kind;
    void *subject = call->subject;
    call->kind = CALL_FREE;
    call->subject = NULL;
    call->next_free = control->free;
    control->free = slot + 1;
    control->in_flight--;
    switch (kind) {
    case CALL_FIND:
        lookup_answered(gateway, subject, code, result ? &result->record : NULL);
        break;
    case CALL_WAKE:
        tenant_woken(subject, code, result && result->withdrawn);
        break;
    case CALL_CHECK:
        tenant_checked(subject, code, result ? &result->record : NULL);
        break;
    case CALL_ROUTE:
        if (subject) /* its client is still there */
            route_answered(subject, code, result ? &result->route : NULL);
        break;
    case CALL_FREE:
        assert(false); /* a free slot has no call */
    }
}

void control_close(struct gateway *gateway)
{
    struct control *control = &gateway->control;
    if (control->fd < 0)
        return;
    control->source = loop_unwatch(gateway->loop, control->source);
    control->outbox = ipc_outbox_free(control->outbox);
    close(control->fd);
    control->fd = -1;
    control->lost_us = clock_monotonic_us();
    uint32_t touched = control->touched;
    for (uint32_t slot = 0; slot < touched; slot++)
        if (control->calls[slot].kind != CALL_FREE)
            finish_call(gateway, slot, UNAVAILABLE, NULL);
    assert(control->in_flight == 0); /* nothing can be asked meanwhile */
}

static void watch(struct gateway *gateway)
{
    struct control *control = &gateway->control;
    struct fault fault;
    uint32_t events = EPOLLIN | (ipc_outbox_waiting(control->outbox) ? EPOLLOUT : 0u);
    if (loop_change(gateway->loop, control->source, events, &fault) != OK)
        gateway_end(gateway, INTERNAL, "control: %s", fault.detail);
}

static status send(struct gateway *gateway, uint32_t type, uint32_t id, struct span body,
                   struct fault *fault)
{
    struct control *control = &gateway->control;
    if (control->fd < 0)
        return FAIL(UNAVAILABLE, fault, "control is not there");
    TRY(ipc_outbox_send(control->outbox, type, id, body, NULL, 0, fault));
    if (ipc_outbox_waiting(control->outbox))
        watch(gateway);
    return OK;
}

void control_tell(struct gateway *gateway, uint32_t type, struct span body)
{
    struct fault ignored; /* it is news, and its loss is noticed elsewhere */
    if (send(gateway, type, 0, body, &ignored) != OK)
        return;
}

status control_ask(uint32_t *ret, struct gateway *gateway, enum call_kind kind, uint32_t type,
                   struct span body, void *subject, struct fault *fault)
{
    struct control *control = &gateway->control;
    uint32_t slot = control->free ? control->free - 1 : control->touched;
    if (slot == GATEWAY_CALLS_MAX)
        return FAIL(UNAVAILABLE, fault, "too many questions to control");
    struct call *call = &control->calls[slot];
    uint32_t generation = call->generation % GENERATIONS + 1; /* so that no id is 0 */
    uint32_t id = slot + GATEWAY_CALLS_MAX * generation;
    if (send(gateway, type, id, body, fault) != OK)
        return UNAVAILABLE; /* the end of the channel itself is noticed when reading */
    if (control->free)
        control->free = call->next_free;
    else
        control->touched++;
    *call = (struct call){.kind = kind, .generation = generation, .subject = subject};
    control->in_flight++;
    *ret = id;
    return OK;
}

void control_forget(struct gateway *gateway, uint32_t call)
{
    struct call *forgotten = &gateway->control.calls[call % GATEWAY_CALLS_MAX];
    assert(forgotten->kind == CALL_ROUTE
           && forgotten->generation == call / GATEWAY_CALLS_MAX);
    forgotten->subject = NULL;
}

static status get_charter(struct tenant_record *record, struct cursor *cursor,
                          struct fault *fault)
{
    struct span given;
    TRY(cursor_field(&given, cursor, IPC_BODY_MAX, "charter", fault));
    record->has_charter = given.length > 0;
    if (!record->has_charter)
        return OK;
    struct cursor inner = cursor_over(given);
    TRY(signed_charter_get(&record->charter, &inner, fault));
    return cursor_end(&inner, fault);
}

static status get_record(struct tenant_record *ret, struct cursor *cursor, struct fault *fault)
{
    uint8_t state;
    uint64_t created_at_us;
    struct tenant_record record = {.has_charter = false};
    TRY(cursor_copy(record.id, cursor, sizeof record.id, fault));
    TRY(cursor_u8(&state, cursor, fault));
    TRY(cursor_u64(&created_at_us, cursor, fault));
    TRY(get_charter(&record, cursor, fault));
    if (state < RECORD_ACTIVE || state > RECORD_ERASING || created_at_us > INT64_MAX)
        return FAIL(BAD_REQUEST, fault, "a tenant in the state %u", state);
    record.state = (enum record_state)state;
    record.created_at_us = (int64_t)created_at_us;
    *ret = record;
    return OK;
}

/* A reply that fails and one that is malformed look alike to reply_get_head. */
static status get_reply(status *ret_code, bool *ret_withdrawn, struct cursor *ret,
                        const struct ipc_message *message, struct fault *fault)
{
    struct cursor cursor = cursor_over(message->body);
    struct span detail;
    uint16_t code;
    TRY(cursor_u16(&code, &cursor, fault));
    TRY(cursor_field(&detail, &cursor, sizeof fault->detail, "detail", fault));
    if (code >= STATUS_COUNT)
        return FAIL(BAD_REQUEST, fault, "the unknown status %u", code);
    *ret_code = (status)code;
    *ret_withdrawn = code == UNAVAILABLE && span_is(detail, DETAIL_KEY_WITHDRAWN);
    *ret = cursor;
    return OK;
}

static status get_route(struct route_told *ret, struct cursor *cursor, struct fault *fault)
{
    struct route_told told;
    TRY(cursor_copy(told.id, cursor, sizeof told.id, fault));
    TRY(cursor_text(told.name, sizeof told.name, cursor, "tenant", fault));
    *ret = told;
    return OK;
}

static status get_result(struct result *ret, enum call_kind kind, struct cursor *cursor,
                         struct fault *fault)
{
    switch (kind) {
    case CALL_FIND:
    case CALL_CHECK:
        return get_record(&ret->record, cursor, fault);
    case CALL_ROUTE:
        return get_route(&ret->route, cursor, fault);
    case CALL_WAKE:
    case CALL_FREE:
        break;
    }
    return OK;
}

static status on_reply(struct gateway *gateway, const struct ipc_message *message,
                       struct fault *fault)
{
    struct control *control = &gateway->control;
    struct result result = {0};
    struct cursor cursor;
    status code;
    uint32_t slot = message->id % GATEWAY_CALLS_MAX;
    const struct call *call = &control->calls[slot];
    if (slot >= control->touched || call->kind == CALL_FREE
        || message->id / GATEWAY_CALLS_MAX != call->generation)
        return FAIL(BAD_REQUEST, fault, "a reply to no question");
    TRY(get_reply(&code, &result.withdrawn, &cursor, message, fault));
    if (code == OK)
        TRY(get_result(&result, call->kind, &cursor, fault));
    TRY(cursor_end(&cursor, fault));
    finish_call(gateway, slot, code, &result);
    return OK;
}

static status on_changed(struct gateway *gateway, const struct ipc_message *message,
                         struct fault *fault)
{
    struct cursor cursor = cursor_over(message->body);
    uint8_t id[TENANT_ID_BYTES];
    TRY(cursor_copy(id, &cursor, sizeof id, fault));
    TRY(cursor_end(&cursor, fault));
    tenant_changed(gateway, id);
    return OK;
}

static status on_platform(struct gateway *gateway, const struct ipc_message *message,
                          struct fault *fault)
{
    struct cursor cursor = cursor_over(message->body);
    return platform_take(gateway, &cursor, fault);
}

static status dispatch(struct gateway *gateway, const struct ipc_message *message,
                       struct fault *fault)
{
    TRY(ipc_need_fds(message, 0, fault));
    switch (message->type) {
    case MESSAGE_REPLY:
        return on_reply(gateway, message, fault);
    case MESSAGE_TENANT_CHANGED:
        return on_changed(gateway, message, fault);
    case MESSAGE_PLATFORM:
        return on_platform(gateway, message, fault);
    default:
        return FAIL(BAD_REQUEST, fault, "message %#x", message->type);
    }
}

/* False when nothing waits any more. */
static bool read_one(struct gateway *gateway)
{
    struct ipc_message message;
    struct fault fault;
    status came = ipc_receive(&message, gateway->control.fd, gateway->storage, &fault);
    if (came == AGAIN)
        return false;
    if (came == CLOSED) {
        log_event(LOG_WARN, "control.lost", "%s", fault.detail);
        control_close(gateway);
        return false;
    }
    if (came == OK) {
        came = dispatch(gateway, &message, &fault);
        ipc_message_close(&message);
    }
    if (came != OK)
        gateway_end(gateway, came, "control: %s", fault.detail);
    return came == OK;
}

static void on_event(void *context, uint32_t events)
{
    struct gateway *gateway = context;
    struct control *control = &gateway->control;
    struct fault fault;
    if (events & EPOLLOUT) {
        if (ipc_outbox_flush(control->outbox, &fault) != OK) {
            control_close(gateway);
            return;
        }
        watch(gateway);
    }
    int fd = control->fd; /* a new channel may come while one is read */
    for (int i = 0; i < MESSAGES_PER_TURN && control->fd == fd && read_one(gateway); i++)
        if (control->in_flight == 0)
            break; /* more is reported again */
}

void control_open(struct gateway *gateway, int fd)
{
    struct control *control = &gateway->control;
    struct fault fault;
    control_close(gateway);
    status opened = ipc_outbox_create(&control->outbox, fd, OUTBOX_MAX, &fault);
    if (opened == OK)
        opened = loop_watch(&control->source, gateway->loop, fd, EPOLLIN, on_event, gateway,
                            &fault);
    control->fd = fd;
    control->lost_us = 0;
    if (opened != OK)
        gateway_end(gateway, INTERNAL, "control: %s", fault.detail);
}
