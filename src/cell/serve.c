/* serve.c: the loop of an awake cell, and what the supervisor may tell it. */
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "cell/cell.h"
#include "cell/state.h"
#include "wire/messages.h"

#include <stdarg.h>
#include <sys/epoll.h>

void cell_stop(struct cell *cell, status why, const char *format, ...)
{
    if (cell->ended)
        return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(cell->fault.detail, sizeof cell->fault.detail, format, arguments);
    va_end(arguments);
    cell->ended = true;
    cell->why = why;
    loop_stop(cell->loop);
}

void cell_timer(struct cell *cell, struct loop_timer *timer, int64_t after_us,
                loop_on_time *on_time, void *context)
{
    struct fault fault;
    if (loop_timer_start(cell->loop, timer, after_us, on_time, context, &fault) != OK)
        cell_stop(cell, INTERNAL, "%s", fault.detail);
}

static status on_channel(struct cell *cell, struct ipc_message *message, struct fault *fault)
{
    struct cursor cursor = cursor_over(message->body);
    uint8_t kind;
    uint32_t index;
    TRY(ipc_need_fds(message, 1, fault));
    TRY(cursor_u8(&kind, &cursor, fault));
    TRY(cursor_u32(&index, &cursor, fault));
    TRY(cursor_end(&cursor, fault));
    if (kind == CHANNEL_KMS) {
        kms_replace(cell, take_fd(&message->fds[0]));
        return OK;
    }
    if (kind != CHANNEL_GATEWAY)
        return FAIL(BAD_REQUEST, fault, "a channel of kind %u", kind);
    if (cell->park.phase >= PARK_DRAIN)
        return FAIL(BAD_REQUEST, fault, "a gateway's channel after CELL_PARK");
    return relay_add(cell, index, take_fd(&message->fds[0]), fault);
}

static status on_export(struct cell *cell, struct ipc_message *message, struct fault *fault)
{
    struct cursor cursor = cursor_over(message->body);
    struct export_wish wish = {.fd = -1, .previous = -1};
    if (message->fd_count != 2)
        TRY(ipc_need_fds(message, 1, fault));
    TRY(cursor_text(wish.kind, sizeof wish.kind, &cursor, "kind", fault));
    TRY(cursor_u64(&wish.sequence, &cursor, fault));
    TRY(cursor_end(&cursor, fault));
    wish.fd = message->fds[0];
    if (message->fd_count == 2)
        wish.previous = message->fds[1];
    status begun = export_begin(cell, &wish, fault);
    message->fds[0] = wish.fd; /* -1 when taken */
    if (message->fd_count == 2)
        message->fds[1] = wish.previous;
    return begun;
}

static status dispatch(struct cell *cell, struct ipc_message *message, struct fault *fault)
{
    switch (message->type) {
    case MESSAGE_CHANNEL:
        return on_channel(cell, message, fault);
    case MESSAGE_CELL_EXPORT:
        return on_export(cell, message, fault);
    case MESSAGE_CELL_PARK:
        TRY(ipc_need_fds(message, 0, fault));
        if (message->body.length)
            return FAIL(BAD_REQUEST, fault, "CELL_PARK with a body");
        park_begin(cell);
        return OK;
    default:
        return FAIL(BAD_REQUEST, fault, "message %#x from the supervisor", message->type);
    }
}

static void on_event(void *context, uint32_t events)
{
    struct cell *cell = context;
    struct ipc_message message;
    struct fault fault;
    (void)events;
    status came = ipc_receive(&message, cell->supervisor, cell->storage, &fault);
    if (came == AGAIN)
        return;
    if (came == OK) {
        came = dispatch(cell, &message, &fault);
        ipc_message_close(&message);
    }
    if (came != OK)
        cell_stop(cell, came, "supervisor: %s", fault.detail);
}

status cell_serve(struct cell *cell, struct fault *fault)
{
    TRY(loop_watch(&cell->supervisor_source, cell->loop, cell->supervisor, EPOLLIN, on_event, cell,
                   fault));
    TRY(kms_start(cell, fault));
    park_watch_idle(cell);
    usage_start(cell);
    rotation_look(cell);
    turn_start(cell);
    loop_on_turn_end(cell->loop, turn_end, cell);
    status run = cell->ended ? OK : loop_run(cell->loop, fault);
    loop_on_turn_end(cell->loop, NULL, NULL);
    TRY(run);
    if (cell->why == CLOSED && cell->silo)
        turn_commit_pending(cell); /* the supervisor is gone, but reads were answered */
    if (cell->why != OK)
        *fault = cell->fault;
    return cell->why;
}

status cell_run(int supervisor_fd, struct loop *loop, cell_close_jail *close_jail,
                struct fault *fault)
{
    struct cell *cell;
    TRY(cell_wake(&cell, supervisor_fd, loop, close_jail, fault));
    if (cell->restore_fd >= 0) { /* it is done */
        cell_free(cell);
        return OK;
    }
    status served = cell_serve(cell, fault);
    cell_free(cell);
    return served;
}
