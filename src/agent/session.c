#define _GNU_SOURCE
#include "agent/agent.h"

#include "agent/tree.h"
#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <time.h>

enum {
    READ_BYTES = 64 * 1024,
    IN_MAX = AGENT_FRAME_MAX + 4 + READ_BYTES,
    OUT_HIGH = 256 * 1024,     /* producers wait from here on */
    OUT_MAX = 8 * 1024 * 1024, /* what one turn can add to that, and more */
    FLUSH_MS = 1000,
};

/* ---- requests ---- */

static struct request **place_of(struct agent *agent, uint32_t id)
{
    for (int i = 0; i < AGENT_REQUESTS_MAX; i++)
        if (agent->requests[i] && agent->requests[i]->id == id)
            return &agent->requests[i];
    return NULL;
}

status request_make(struct request **ret, size_t size, struct agent *agent, uint32_t id,
                    const struct request_kind *kind, struct fault *fault)
{
    int place = 0;
    while (place < AGENT_REQUESTS_MAX && agent->requests[place] != NULL)
        place++;
    if (place == AGENT_REQUESTS_MAX)
        return FAIL(QUOTA_EXCEEDED, fault, "%d requests are under way", AGENT_REQUESTS_MAX);
    struct request *request = calloc(1, size);
    if (request == NULL)
        return FAIL(UNAVAILABLE, fault, "out of memory");
    *request = (struct request){.agent = agent, .kind = kind, .id = id};
    agent->requests[place] = request;
    *ret = request;
    return OK;
}

void request_remove(struct request *request)
{
    struct request **place = place_of(request->agent, request->id);
    if (place)
        *place = NULL;
}

void agent_answer(struct agent *agent, uint32_t id, status code, const struct fault *fault,
                  struct span result)
{
    agent_put_done(&agent->out, id, code, code == OK ? "" : fault->detail, result);
}

void agent_started(struct agent *agent, uint32_t id)
{
    agent_frame_put(&agent->out, AGENT_STARTED, id, (struct span){0});
}

/* ---- frames ---- */

static request_handler *handler_of(uint8_t type)
{
    static request_handler *const handlers[] = {
        [AGENT_EXEC] = exec_begin, [AGENT_FILE_READ] = file_read_begin,
        [AGENT_FILE_WRITE] = file_write_begin, [AGENT_FILE_LIST] = file_list,
        [AGENT_FILE_STAT] = file_stat, [AGENT_FILE_MOVE] = file_move,
        [AGENT_FILE_REMOVE] = file_remove, [AGENT_FILE_MAKE] = file_make,
        [AGENT_FILE_WATCH] = watch_begin, [AGENT_PORT_OPEN] = port_begin,
        [AGENT_METRICS] = metrics_tell, [AGENT_CLOCK_SET] = clock_set,
        [AGENT_FREEZE] = freeze_begin, [AGENT_THAW] = thaw, [AGENT_SHUTDOWN] = shutdown_begin};
    return type < sizeof handlers / sizeof *handlers ? handlers[type] : NULL;
}

static status take_signal(struct request *request, struct span payload, struct fault *fault)
{
    struct cursor cursor = cursor_over(payload);
    uint8_t number;
    TRY(cursor_u8(&number, &cursor, fault));
    TRY(cursor_end(&cursor, fault));
    if (number == 0 || number > 64)
        return FAIL(BAD_REQUEST, fault, "%u is no signal", number);
    if (request == NULL)
        return OK;
    if (request->kind->on_signal == NULL)
        return FAIL(BAD_REQUEST, fault, "a signal for what is no process");
    return request->kind->on_signal(request, number, fault);
}

static status take_resize(struct request *request, struct span payload, struct fault *fault)
{
    struct cursor cursor = cursor_over(payload);
    uint16_t rows, columns;
    TRY(cursor_u16(&rows, &cursor, fault));
    TRY(cursor_u16(&columns, &cursor, fault));
    TRY(cursor_end(&cursor, fault));
    if (request == NULL)
        return OK;
    if (request->kind->on_resize == NULL)
        return FAIL(BAD_REQUEST, fault, "a size for what is no terminal");
    return request->kind->on_resize(request, rows, columns, fault);
}

/* About an id under way; one that has ended has crossed its end: nothing is to be done. */
static status take_about(struct agent *agent, const struct agent_frame *frame,
                         struct fault *fault)
{
    struct request **place = place_of(agent, frame->id);
    struct request *request = place ? *place : NULL;
    struct agent_piece piece;
    switch (frame->type) {
    case AGENT_SIGNAL:
        return take_signal(request, frame->payload, fault);
    case AGENT_RESIZE:
        return take_resize(request, frame->payload, fault);
    case AGENT_CANCEL:
        if (frame->payload.length)
            return FAIL(BAD_REQUEST, fault, "a cancel that says more");
        if (request)
            request->kind->cancel(request);
        return OK;
    default:
        TRY(agent_piece_get(&piece, frame, fault));
        if (request == NULL)
            return OK;
        if (request->kind->on_piece == NULL)
            return FAIL(BAD_REQUEST, fault, "a stream where there is none");
        return request->kind->on_piece(request, frame->type, &piece, fault);
    }
}

static status take_frame(struct agent *agent, const struct agent_frame *frame,
                         struct fault *fault)
{
    request_handler *handler = handler_of(frame->type);
    if (frame->type >= AGENT_SIGNAL && frame->type <= AGENT_CREDIT)
        return take_about(agent, frame, fault);
    if (handler == NULL)
        return FAIL(BAD_REQUEST, fault, "type 0x%02x is not the host's to send", frame->type);
    if (place_of(agent, frame->id))
        return FAIL(BAD_REQUEST, fault, "id %u is in use", frame->id);
    struct fault why;
    status done = handler(agent, frame->id, frame->payload, &why);
    if (done != OK)
        agent_answer(agent, frame->id, done, &why, (struct span){0});
    return OK;
}

static void break_off(struct agent *agent, const char *why)
{
    fprintf(stderr, "bulkhead-agent: the connection ends: %s\n", why);
    agent->broken = true;
}

static void take_frames(struct agent *agent)
{
    struct fault fault;
    size_t begin = 0;
    while (!agent->broken && !agent->shutdown && !session_is_congested(agent)) {
        struct agent_frame frame;
        size_t taken;
        struct span rest = {agent->in.data + begin, agent->in.length - begin};
        status done = agent_frame_get(&frame, &taken, rest, &fault);
        if (done == AGAIN)
            break;
        if (done == OK)
            done = take_frame(agent, &frame, &fault);
        if (done != OK) {
            break_off(agent, fault.detail);
            break;
        }
        begin += taken;
    }
    buffer_consume(&agent->in, begin);
}

/* ---- the connection ---- */

bool session_is_congested(struct agent *agent)
{
    bool congested = agent->out.length - agent->sent >= OUT_HIGH;
    agent->stalled = agent->stalled || congested;
    return congested;
}

static void receive(struct agent *agent)
{
    size_t most = IN_MAX - agent->in.length;
    if (most > READ_BYTES)
        most = READ_BYTES;
    uint8_t *room = most ? buffer_reserve(&agent->in, most) : NULL;
    if (room == NULL) {
        agent->broken = agent->broken || most > 0;
        return;
    }
    ssize_t count = recv(agent->connection, room, most, MSG_DONTWAIT);
    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (count <= 0) {
        agent->broken = true;
        return;
    }
    buffer_advance(&agent->in, (size_t)count);
}

static void transmit(struct agent *agent)
{
    while (!agent->broken && agent->sent < agent->out.length) {
        ssize_t count = send(agent->connection, agent->out.data + agent->sent,
                             agent->out.length - agent->sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0 && errno == EAGAIN)
            break;
        if (count < 0)
            agent->broken = true;
        else
            agent->sent += (size_t)count;
    }
    if (agent->sent == agent->out.length || agent->sent >= OUT_HIGH) {
        buffer_consume(&agent->out, agent->sent);
        agent->sent = 0;
    }
    if (agent->out.failed)
        break_off(agent, "more to say than there is memory for");
}

static void on_connection(void *context, uint32_t events)
{
    struct agent *agent = context;
    if (agent->connection < 0)
        return;
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
        receive(agent);
}

static void resume_all(struct agent *agent)
{
    for (int i = 0; i < AGENT_REQUESTS_MAX; i++) {
        struct request *request = agent->requests[i];
        if (request && request->kind->resume && !session_is_congested(agent))
            request->kind->resume(request);
    }
}

static void watch_connection(struct agent *agent)
{
    struct fault fault;
    uint32_t events = (session_is_congested(agent) || agent->in.length == IN_MAX ? 0 : EPOLLIN)
                    | (agent->sent < agent->out.length ? EPOLLOUT : 0);
    if (events == agent->watched)
        return;
    if (loop_change(agent->loop, agent->connection_source, events, &fault) != OK)
        break_off(agent, fault.detail);
    agent->watched = events;
}

void session_turn(struct agent *agent)
{
    while (agent->connection >= 0 && !agent->broken) {
        take_frames(agent);
        transmit(agent);
        if (!agent->stalled || session_is_congested(agent))
            break;
        agent->stalled = false; /* whoever had to wait may go on */
        resume_all(agent);
    }
    if (agent->connection >= 0 && !agent->broken)
        watch_connection(agent);
}

void session_flush(struct agent *agent)
{
    struct pollfd wait = {.fd = agent->connection, .events = POLLOUT};
    transmit(agent);
    while (!agent->broken && agent->sent < agent->out.length && poll(&wait, 1, FLUSH_MS) > 0)
        transmit(agent);
}

static void say_hello(struct agent *agent)
{
    struct agent_hello hello = {.version = AGENT_VERSION};
    struct utsname kernel;
    struct timespec since;
    uint8_t storage[128];
    struct buffer payload = buffer_over(storage, sizeof storage);
    if (uname(&kernel) == 0)
        snprintf(hello.kernel, sizeof hello.kernel, "%.64s", kernel.release);
    if (clock_gettime(CLOCK_BOOTTIME, &since) == 0)
        hello.boot_us = (uint64_t)since.tv_sec * 1000000 + (uint64_t)since.tv_nsec / 1000;
    agent_hello_put(&payload, &hello);
    agent_frame_put(&agent->out, AGENT_HELLO, 0, buffer_span(&payload));
}

status session_open(struct agent *agent, int connection, struct fault *fault)
{
    int flags = fcntl(connection, F_GETFL);
    if (flags < 0 || fcntl(connection, F_SETFL, flags | O_NONBLOCK)
        || fcntl(connection, F_SETFD, FD_CLOEXEC))
        return errno_status(errno, "connection", fault);
    TRY(loop_watch(&agent->connection_source, agent->loop, connection, EPOLLIN, on_connection,
                   agent, fault));
    agent->connection = connection;
    agent->watched = EPOLLIN;
    agent->broken = false;
    agent->sent = 0;
    agent->in = buffer_of(IN_MAX);
    agent->out = buffer_of(OUT_MAX);
    say_hello(agent);
    transmit(agent);
    return OK;
}

void session_close(struct agent *agent)
{
    if (agent->connection < 0)
        return;
    trees_kill_all(agent->trees);
    for (int i = 0; i < AGENT_REQUESTS_MAX; i++) {
        struct request *request = agent->requests[i];
        agent->requests[i] = NULL;
        if (request)
            request->kind->drop(request);
    }
    agent->frozen = false;
    agent->connection_source = loop_unwatch(agent->loop, agent->connection_source);
    cleanup_close(&agent->connection);
    buffer_free(&agent->in);
    buffer_free(&agent->out);
}
