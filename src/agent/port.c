#define _GNU_SOURCE
#include "agent/stream.h"
#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>

struct port {
    struct request request;
    struct inflow in;
    struct outflow out;
    struct loop_source *source; /* while it connects */
    uint16_t number;
    int fd;                     /* the same */
    bool second;                /* ::1 is tried, where 127.0.0.1 refused */
    bool in_ended, out_ended;
};

static void drop(struct request *request)
{
    struct port *port = (struct port *)request;
    port->source = loop_unwatch(request->agent->loop, port->source);
    cleanup_close(&port->fd);
    inflow_close(&port->in);
    outflow_close(&port->out);
    request_remove(request);
    free(port);
}

static void end(struct port *port, status code, const struct fault *fault)
{
    outflow_end(&port->out);
    agent_answer(port->request.agent, port->request.id, code, fault, (struct span){0});
    drop(&port->request);
}

static void cancel(struct request *request)
{
    end((struct port *)request, OK, NULL);
}

static void fail(struct port *port, int error)
{
    struct fault fault;
    status code = errno_status(error, "port", &fault);
    end(port, code, &fault);
}

static void on_out_end(struct request *request, struct outflow *flow, int error)
{
    (void)flow;
    struct port *port = (struct port *)request;
    port->out_ended = true;
    if (error)
        fail(port, error);
    else if (port->in_ended)
        end(port, OK, NULL);
}

static void on_in_end(struct request *request, struct inflow *flow, int error)
{
    struct port *port = (struct port *)request;
    port->in_ended = true;
    if (error && !port->out_ended) {
        inflow_deafen(flow); /* what it had said before is still to be read */
        return;
    }
    shutdown(flow->fd, SHUT_WR);
    inflow_deafen(flow);
    if (port->out_ended)
        end(port, OK, NULL);
}

static void connected(struct port *port)
{
    int copy = fcntl(port->fd, F_DUPFD_CLOEXEC, 3);
    if (copy < 0) {
        fail(port, errno);
        return;
    }
    agent_started(port->request.agent, port->request.id);
    port->in.fd = copy;
    outflow_begin(&port->out, &port->request, AGENT_OUT, take_fd(&port->fd), false, UINT64_MAX);
    inflow_go_on(&port->in); /* the host may have sent before it knew */
}

static status dial(struct port *port, struct fault *fault);

static void on_connect(void *context, uint32_t events)
{
    (void)events;
    struct port *port = context;
    struct fault fault;
    int error = 0;
    socklen_t size = sizeof error;
    if (getsockopt(port->fd, SOL_SOCKET, SO_ERROR, &error, &size))
        error = errno;
    port->source = loop_unwatch(port->request.agent->loop, port->source);
    if (error == 0) {
        connected(port);
        return;
    }
    cleanup_close(&port->fd);
    if (port->second || error != ECONNREFUSED) {
        fail(port, error);
        return;
    }
    port->second = true;
    status done = dial(port, &fault);
    if (done != OK)
        end(port, done, &fault);
}

/* The answer always comes by the loop: what connects at once is writable at once. */
static status dial(struct port *port, struct fault *fault)
{
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons(port->number),
                               .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons(port->number),
                               .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    struct agent *agent = port->request.agent;
    port->fd = socket(port->second ? AF_INET6 : AF_INET,
                      SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (port->fd < 0)
        return errno_status(port->second ? ECONNREFUSED : errno, "port", fault);
    const struct sockaddr *address = port->second ? (const struct sockaddr *)&six
                                                  : (const struct sockaddr *)&four;
    socklen_t length = port->second ? sizeof six : sizeof four;
    if (connect(port->fd, address, length) && errno != EINPROGRESS) {
        int error = errno;
        cleanup_close(&port->fd);
        if (error == ECONNREFUSED && !port->second) {
            port->second = true;
            return dial(port, fault);
        }
        return errno_status(error, "port", fault);
    }
    return loop_watch(&port->source, agent->loop, port->fd, EPOLLOUT, on_connect, port, fault);
}

static status on_piece(struct request *request, uint8_t type, const struct agent_piece *piece,
                       struct fault *fault)
{
    struct port *port = (struct port *)request;
    if (type != AGENT_CREDIT)
        return inflow_piece(&port->in, type, piece, fault);
    if (piece->channel != AGENT_OUT)
        return FAIL(BAD_REQUEST, fault, "credit for a channel that is the host's");
    return outflow_credit(&port->out, piece->credit, fault);
}

static void resume(struct request *request)
{
    outflow_resume(&((struct port *)request)->out);
}

status port_begin(struct agent *agent, uint32_t id, struct span payload, struct fault *fault)
{
    static const struct request_kind kind = {.on_piece = on_piece, .cancel = cancel,
                                             .resume = resume, .drop = drop};
    uint16_t number;
    struct cursor cursor = cursor_over(payload);
    TRY(cursor_u16(&number, &cursor, fault));
    TRY(cursor_end(&cursor, fault));
    if (number == 0)
        return FAIL(BAD_FIELD, fault, "port: 1 to 65535");
    struct request *request;
    TRY(request_make(&request, sizeof(struct port), agent, id, &kind, fault));
    struct port *port = (struct port *)request;
    port->number = number;
    port->fd = -1;
    port->out.request = &port->request;
    port->out.credit = AGENT_WINDOW;
    port->out.on_end = on_out_end;
    port->in.on_end = on_in_end;
    inflow_begin(&port->in, &port->request, AGENT_IN, -1);
    port->in.waits = true;
    status done = dial(port, fault);
    if (done != OK)
        drop(&port->request);
    return done;
}
