/* listen.c: new connections: a bounded number a turn, and in all. At the bound the client that has
 * been idle longest makes room; where none is idle, the kernel's backlog waits. */
#define _GNU_SOURCE
#include "base/log.h"
#include "gateway/state.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ACCEPTS_PER_TURN = 64, PAUSE_US = 100 * 1000 };

static void on_pause_over(void *context);

static void pause_for(struct listener *listener)
{
    struct fault fault;
    if (!listener->paused
        && loop_change(listener->gateway->loop, listener->source, 0, &fault) != OK)
        gateway_end(listener->gateway, INTERNAL, "%s", fault.detail);
    listener->paused = true;
    gateway_timer(listener->gateway, &listener->timer, PAUSE_US, on_pause_over, listener);
}

static void on_pause_over(void *context)
{
    listener_resume(context);
}

void listener_resume(struct listener *listener)
{
    struct fault fault;
    if (listener->fd < 0 || !listener->paused)
        return;
    listener->paused = false;
    loop_timer_stop(listener->gateway->loop, &listener->timer);
    if (loop_change(listener->gateway->loop, listener->source, EPOLLIN, &fault) != OK)
        gateway_end(listener->gateway, INTERNAL, "%s", fault.detail);
}

static bool is_full(const struct gateway *gateway)
{
    return gateway->idle.count + gateway->busy.count >= HTTP_CONNECTIONS_MAX;
}

static bool may_accept(const struct listener *listener)
{
    const struct gateway *gateway = listener->gateway;
    if (listener->ops)
        return gateway->ops_connections.count < GATEWAY_OPS_CONNECTIONS_MAX;
    return !is_full(gateway) || gateway->idle.first;
}

static void open_client(struct listener *listener, int fd)
{
    const int on = 1;
    struct gateway *gateway = listener->gateway;
    struct arrival arrival = {.ops = listener->ops, .address = address_of_peer(fd)};
    if (!listener->ops && !crowd_enter(&arrival.place, gateway, arrival.address)) {
        denial_count_peer(gateway, arrival.address, DENIAL_ADDRESS_CAP);
        close(fd);
        return;
    }
    if (!listener->ops && is_full(gateway)) /* not for one that is refused */
        connection_close(gateway->idle.first);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* speed only */
    connection_open(gateway, fd, &arrival);
}

/* False when this turn is over for the listener. */
static bool accept_one(struct listener *listener)
{
    if (!may_accept(listener)) {
        pause_for(listener);
        return false;
    }
    int fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) {
        if (errno == EAGAIN)
            return false;
        if (errno == EINTR || errno == ECONNABORTED || errno == EPROTO || errno == ENETDOWN
            || errno == EHOSTUNREACH || errno == ENETUNREACH || errno == ETIMEDOUT)
            return true; /* that client's trouble: accept(2) */
        log_event(LOG_WARN, "accept.failed", "%s", strerror(errno));
        pause_for(listener);
        return false;
    }
    open_client(listener, fd);
    return true;
}

static void on_event(void *context, uint32_t events)
{
    struct listener *listener = context;
    if (!(events & EPOLLIN))
        return;
    for (int i = 0; i < ACCEPTS_PER_TURN && listener->fd >= 0 && accept_one(listener); i++)
        ;
}

status listener_open(struct listener *listener, struct gateway *gateway, int fd, bool ops,
                     struct fault *fault)
{
    *listener = (struct listener){.gateway = gateway, .fd = -1, .ops = ops};
    TRY(loop_watch(&listener->source, gateway->loop, fd, EPOLLIN, on_event, listener, fault));
    listener->fd = fd;
    return OK;
}

void listener_close(struct listener *listener)
{
    if (!listener->gateway || listener->fd < 0)
        return;
    loop_timer_stop(listener->gateway->loop, &listener->timer);
    listener->source = loop_unwatch(listener->gateway->loop, listener->source);
    close(listener->fd);
    listener->fd = -1;
}
