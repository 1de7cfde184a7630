#define _GNU_SOURCE
#include "agent/stream.h"

#include "base/cleanup.h"

#include <errno.h>
#include <sys/epoll.h>

/* ---- to the host ---- */

static void stop_watching(struct outflow *flow)
{
    struct loop *loop = flow->request->agent->loop;
    flow->source = loop_unwatch(loop, flow->source);
    loop_timer_stop(loop, &flow->turn);
}

void outflow_close(struct outflow *flow)
{
    if (!flow->open)
        return;
    stop_watching(flow);
    cleanup_close(&flow->fd);
    flow->open = false;
}

void outflow_end(struct outflow *flow)
{
    if (!flow->open)
        return;
    outflow_close(flow);
    agent_put_end(&flow->request->agent->out, flow->request->id, flow->channel);
}

static void over(struct outflow *flow, int error)
{
    outflow_end(flow);
    flow->on_end(flow->request, flow, error);
}

/* One piece. False: it is over, and perhaps its request with it. */
static bool pump(struct outflow *flow)
{
    uint8_t bytes[AGENT_DATA_MAX];
    size_t most = sizeof bytes;
    if (most > flow->credit)
        most = flow->credit;
    if (most > flow->left)
        most = (size_t)flow->left;
    if (flow->left > 0 && most == 0)
        return true;
    ssize_t count = flow->left == 0 ? 0 : read(flow->fd, bytes, most);
    if (count < 0 && errno == EINTR)
        return true;
    if (count < 0 && errno == EAGAIN && !flow->finishing)
        return true;
    if (count <= 0) { /* EIO: nobody has the terminal open */
        bool end = count == 0 || errno == EAGAIN || errno == EIO;
        over(flow, end && !(flow->file && count < 0) ? 0 : errno);
        return false;
    }
    flow->credit -= (uint32_t)count;
    if (flow->left != UINT64_MAX)
        flow->left -= (uint64_t)count;
    agent_put_data(&flow->request->agent->out, flow->request->id, flow->channel,
                   (struct span){bytes, (size_t)count});
    return true;
}

static void on_readable(void *context, uint32_t events)
{
    (void)events;
    struct outflow *flow = context;
    if (pump(flow))
        outflow_resume(flow);
}

static void on_file_turn(void *context)
{
    on_readable(context, 0);
}

static void cannot_watch(struct outflow *flow)
{
    over(flow, ENOMEM);
}

/* Without credit it is not watched at all: epoll would tell of a hangup again and again. */
void outflow_resume(struct outflow *flow)
{
    struct fault fault;
    if (!flow->open)
        return;
    struct agent *agent = flow->request->agent;
    bool wanted = (flow->credit > 0 || flow->left == 0) && !session_is_congested(agent);
    if (!wanted) {
        stop_watching(flow);
        return;
    }
    if (flow->file || flow->finishing || flow->left == 0) {
        flow->source = loop_unwatch(agent->loop, flow->source);
        if (flow->turn.due_us == 0
            && loop_timer_start(agent->loop, &flow->turn, 0, on_file_turn, flow, &fault) != OK)
            cannot_watch(flow);
    } else if (flow->source == NULL
               && loop_watch(&flow->source, agent->loop, flow->fd, EPOLLIN, on_readable, flow,
                             &fault) != OK) {
        cannot_watch(flow);
    }
}

void outflow_begin(struct outflow *flow, struct request *request, enum agent_channel channel,
                   int fd, bool file, uint64_t left)
{
    flow->request = request;
    flow->channel = (uint8_t)channel;
    flow->fd = fd;
    flow->file = file;
    flow->left = left;
    flow->open = true;
    outflow_resume(flow);
}

status outflow_credit(struct outflow *flow, uint32_t bytes, struct fault *fault)
{
    if (bytes > AGENT_CREDIT_MAX || flow->credit > AGENT_CREDIT_MAX - bytes)
        return FAIL(BAD_REQUEST, fault, "more credit than %u bytes", AGENT_CREDIT_MAX);
    flow->credit += bytes;
    outflow_resume(flow);
    return OK;
}

void outflow_finish(struct outflow *flow, uint64_t most)
{
    if (!flow->open)
        return;
    flow->finishing = true;
    flow->left = flow->left < most ? flow->left : most;
    outflow_resume(flow);
}

/* ---- from the host ---- */

void inflow_begin(struct inflow *flow, struct request *request, enum agent_channel channel, int fd)
{
    flow->request = request;
    flow->channel = (uint8_t)channel;
    flow->fd = fd;
    flow->window = AGENT_WINDOW;
    flow->pending = buffer_of(AGENT_WINDOW);
    flow->open = true;
    flow->deaf = false;
}

static void let_go(struct inflow *flow)
{
    flow->source = loop_unwatch(flow->request->agent->loop, flow->source);
    cleanup_close(&flow->fd);
}

void inflow_close(struct inflow *flow)
{
    if (!flow->open)
        return;
    let_go(flow);
    buffer_free(&flow->pending);
    flow->open = false;
}

void inflow_deafen(struct inflow *flow)
{
    if (!flow->open || flow->deaf)
        return;
    size_t dropped = flow->pending.length;
    let_go(flow);
    buffer_free(&flow->pending);
    flow->deaf = true;
    inflow_used(flow, dropped);
}

status inflow_account(struct inflow *flow, size_t bytes, struct fault *fault)
{
    if (flow->ended)
        return FAIL(BAD_REQUEST, fault, "data after the end of its channel");
    if (bytes > flow->window)
        return FAIL(BAD_REQUEST, fault, "%zu bytes, where credit is for %u", bytes, flow->window);
    flow->window -= (uint32_t)bytes;
    return OK;
}

/* Given back in large parts: a frame a piece would double the traffic. */
void inflow_used(struct inflow *flow, size_t bytes)
{
    flow->taken += (uint32_t)bytes;
    if (flow->ended || flow->taken < AGENT_WINDOW / 4)
        return;
    agent_put_credit(&flow->request->agent->out, flow->request->id, flow->channel, flow->taken);
    flow->window += flow->taken;
    flow->taken = 0;
}

static void on_writable(void *context, uint32_t events);

/* False: it is over, and perhaps its request with it. */
static bool write_out(struct inflow *flow)
{
    struct fault fault;
    struct loop *loop = flow->request->agent->loop;
    while (flow->pending.length > 0) {
        ssize_t count = write(flow->fd, flow->pending.data, flow->pending.length);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0 && errno == EAGAIN)
            break;
        if (count < 0) {
            int error = errno;
            inflow_deafen(flow);
            flow->on_end(flow->request, flow, error);
            return false;
        }
        buffer_consume(&flow->pending, (size_t)count);
        inflow_used(flow, (size_t)count);
    }
    if (flow->pending.length == 0) {
        flow->source = loop_unwatch(loop, flow->source);
        if (flow->ended)
            flow->on_end(flow->request, flow, 0);
        return !flow->ended;
    }
    if (flow->source == NULL
        && loop_watch(&flow->source, loop, flow->fd, EPOLLOUT, on_writable, flow, &fault) != OK) {
        inflow_deafen(flow);
        flow->on_end(flow->request, flow, ENOMEM);
        return false;
    }
    return true;
}

static void on_writable(void *context, uint32_t events)
{
    (void)events;
    (void)write_out(context);
}

static status take(struct inflow *flow, struct span bytes, struct fault *fault)
{
    TRY(inflow_account(flow, bytes.length, fault));
    if (flow->deaf) {
        inflow_used(flow, bytes.length);
        return OK;
    }
    buffer_put(&flow->pending, bytes);
    if (flow->pending.failed)
        return FAIL(UNAVAILABLE, fault, "out of memory for a stream");
    if (flow->source == NULL && !flow->waits)
        (void)write_out(flow);
    return OK;
}

status inflow_piece(struct inflow *flow, uint8_t type, const struct agent_piece *piece,
                    struct fault *fault)
{
    if (!flow->open || piece->channel != flow->channel)
        return FAIL(BAD_REQUEST, fault, "a piece of channel %u, which is not open",
                    piece->channel);
    if (type == AGENT_DATA)
        return take(flow, piece->bytes, fault);
    if (flow->ended)
        return FAIL(BAD_REQUEST, fault, "two ends of one channel");
    flow->ended = true;
    if (!flow->deaf && !flow->waits)
        (void)write_out(flow);
    return OK;
}

void inflow_go_on(struct inflow *flow)
{
    flow->waits = false;
    (void)write_out(flow);
}
