/* serve.c: from START to a running loop, and the table of what the supervisor says. */
#include "base/cleanup.h"
#include "base/log.h"
#include "control/serve.h"
#include "control/control.h"
#include "jail/jail.h"

#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { OUTBOX_BYTES = 8 * 1024 * 1024, MESSAGES_PER_TURN = 64, START_WAIT_MS = 20000 };

static struct control control;

/* After the last turn: until then others of the same turn may still need the store. */
static void end(void)
{
    struct fault fault;
    wakes_flush(&control);
    usage_flush(&control);
    gateways_flush(&control);
    routes_flush(&control);
    struct store_anchor ignored;
    control.log = store_log_close(control.log);
    if (store_close(control.store, &ignored, &fault) != OK)
        log_event(LOG_WARN, "registry.close", "%s", fault.detail);
    control.store = NULL;
}

static void on_channel(struct cursor *body, struct ipc_message *message)
{
    uint8_t kind;
    uint32_t index;
    struct fault fault;
    if (ipc_need_fds(message, 1, &fault) != OK || cursor_u8(&kind, body, &fault) != OK
        || cursor_u32(&index, body, &fault) != OK || cursor_end(body, &fault) != OK)
        control_die("CHANNEL", &fault);
    if (kind == CHANNEL_GATEWAY && index < control.gateway_count) {
        gateway_link_open(&control, index, take_fd(&message->fds[0]));
    } else if (kind == CHANNEL_CONTROL_KMS) {
        if (platform_renew(&control, take_fd(&message->fds[0]), &fault) != OK)
            control_die("the kms after its restart", &fault);
        lifecycle_reconcile(&control);
    }
}

static void dispatch(struct ipc_message *message)
{
    struct cursor body = cursor_over(message->body);
    switch (message->type) {
    case MESSAGE_REPLY: call_answered(&control, message); break;
    case MESSAGE_CHANNEL: on_channel(&body, message); break;
    case MESSAGE_ADMIN_OPEN: admin_open(&control, &body, message); break;
    case MESSAGE_CELL_GONE: wakes_on_gone(&control, &body); break;
    case MESSAGE_CELL_USAGE: usage_on_report(&control, &body); break;
    case MESSAGE_SANDBOX_GONE: sandboxes_on_gone(&control, &body); break;
    case MESSAGE_PRICES: usage_on_prices(&control, &body); break;
    case MESSAGE_STOP:
        control.stopping = true;
        loop_stop(control.loop);
        break;
    default: log_event(LOG_WARN, "supervisor.message", "unknown type %#x", message->type);
    }
}

static void on_supervisor(void *context, uint32_t events)
{
    static uint8_t storage[IPC_PACKET_MAX];
    struct fault fault;
    (void)context;
    if (events & EPOLLOUT) {
        if (ipc_outbox_flush(control.supervisor_outbox, &fault) != OK)
            control_die("supervisor channel", &fault);
    }
    for (int i = 0; i < MESSAGES_PER_TURN && !control.stopping; i++) {
        struct ipc_message message;
        status got = ipc_receive(&message, control.supervisor, storage, &fault);
        if (got == AGAIN)
            break;
        if (got != OK)
            control_die("supervisor channel", &fault);
        dispatch(&message);
        ipc_message_close(&message);
    }
    uint32_t wanted = EPOLLIN | (ipc_outbox_waiting(control.supervisor_outbox) ? EPOLLOUT : 0);
    if (!control.stopping
        && loop_change(control.loop, control.supervisor_source, wanted, &fault) != OK)
        control_die("supervisor channel", &fault);
}

/* What was sent outside of on_supervisor may have to wait for room, too. */
static void on_turn_end(void *context)
{
    struct fault fault;
    (void)context;
    if (!control.stopping && ipc_outbox_waiting(control.supervisor_outbox)
        && loop_change(control.loop, control.supervisor_source, EPOLLIN | EPOLLOUT, &fault) != OK)
        control_die("supervisor channel", &fault);
}

static status take_start(struct ipc_message *message, struct fault *fault)
{
    struct cursor body = cursor_over(message->body);
    if (message->type != MESSAGE_START)
        return FAIL(BAD_REQUEST, fault, "message %#x where START was due", message->type);
    TRY(ipc_need_fds(message, 2, fault));
    TRY(cursor_copy(control.platform_key, &body, SIGN_PUBLIC_BYTES, fault));
    TRY(cursor_copy(control.issuer_key, &body, SIGN_PUBLIC_BYTES, fault));
    TRY(cursor_u32(&control.gateway_count, &body, fault));
    TRY(cursor_u32(&control.uid_base, &body, fault));
    TRY(cursor_u32(&control.idle_seconds, &body, fault));
    TRY(cursor_text(control.region, sizeof control.region, &body, "region", fault));
    TRY(prices_get(&control.prices, &body, fault));
    TRY(cursor_end(&body, fault));
    if (control.gateway_count > GATEWAYS_MAX)
        return FAIL(BAD_REQUEST, fault, "%u gateways", control.gateway_count);
    control.directory = take_fd(&message->fds[0]);
    control.kms = take_fd(&message->fds[1]);
    return OK;
}

static status close_jail(struct fault *fault)
{
    const struct jail_directory directory = {control.directory, JAIL_READ | JAIL_WRITE};
    struct jail_proof proof;
    uint8_t storage[8];
    struct buffer body = buffer_over(storage, sizeof storage);
    TRY(jail_close(&proof, JAIL_CONTROL, &directory, 1, fault));
    buffer_put_u32(&body, proof.landlock_abi);
    buffer_put_u8(&body, 1);
    return ipc_send_wait(control.supervisor, MESSAGE_JAILED, 0, buffer_span(&body), NULL, 0, 1000,
                         fault);
}

static status begin(struct fault *fault)
{
    TRY(platform_open(&control, fault));
    TRY(loop_create(&control.loop, fault));
    TRY(ipc_outbox_create(&control.supervisor_outbox, control.supervisor, OUTBOX_BYTES, fault));
    TRY(loop_watch(&control.supervisor_source, control.loop, control.supervisor, EPOLLIN,
                   on_supervisor, NULL, fault));
    loop_on_turn_end(control.loop, on_turn_end, NULL);
    for (uint32_t i = 0; i < GATEWAYS_MAX; i++)
        control.gateways[i] = (struct gateway_link){.control = &control, .index = i, .fd = -1};
    lifecycle_reconcile(&control);
    wakes_schedule(&control);
    return ipc_outbox_send(control.supervisor_outbox, MESSAGE_READY, 0, (struct span){0}, NULL, 0,
                           fault);
}

status control_serve(int supervisor, bool jailed, struct fault *fault)
{
    static uint8_t storage[IPC_PACKET_MAX];
    struct ipc_message message;
    control.supervisor = supervisor;
    TRY(ipc_await(&message, supervisor, storage, START_WAIT_MS, fault));
    status result = take_start(&message, fault);
    ipc_message_close(&message);
    TRY(result);
    if (jailed)
        TRY(close_jail(fault));
    TRY(begin(fault));
    TRY(loop_run(control.loop, fault));
    end();
    return OK;
}
