/* bulkhead-agent [FD]: /init of a microVM, which dials its host; or the first process of a
 * container, whose host is at the other end of FD (0). */
#define _GNU_SOURCE
#include "agent/agent.h"
#include "agent/tree.h"
#include "base/cleanup.h"
#include "wire/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>

enum { REDIAL_MS_MAX = 250 };

static struct trees trees;

static void on_child(void *context, uint32_t events)
{
    (void)events;
    struct agent *agent = context;
    struct signalfd_siginfo about;
    struct rusage usage;
    int how;
    pid_t pid;
    while (read(agent->signals, &about, sizeof about) > 0)
        ; /* one may stand for several */
    while ((pid = wait4(-1, &how, WNOHANG, &usage)) > 0)
        exec_reaped(agent, pid, how,
                    (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000
                        + (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec),
                    (uint64_t)usage.ru_maxrss);
}

static status watch_children(struct agent *agent, struct fault *fault)
{
    sigset_t children;
    sigemptyset(&children);
    sigaddset(&children, SIGCHLD);
    sigprocmask(SIG_BLOCK, &children, NULL);
    agent->signals = signalfd(-1, &children, SFD_CLOEXEC | SFD_NONBLOCK);
    if (agent->signals < 0)
        return errno_status(errno, "signalfd", fault);
    return loop_watch(&agent->signal_source, agent->loop, agent->signals, EPOLLIN, on_child,
                      agent, fault);
}

/* ---- the host of a microVM ---- */

static status dial(struct agent *agent, struct fault *fault)
{
    const struct sockaddr_vm host = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST,
                                     .svm_port = SANDBOX_AGENT_PORT};
    _cleanup_close_ int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&host, sizeof host))
        return errno_status(errno, "dialling the host", fault);
    TRY(session_open(agent, fd, fault));
    (void)take_fd(&fd);
    return OK;
}

static void dial_again(void *context)
{
    struct agent *agent = context;
    struct fault fault;
    if (dial(agent, &fault) == OK) {
        agent->redial_ms = 1;
        return;
    }
    uint32_t wait_ms = agent->redial_ms ? agent->redial_ms : 1;
    agent->redial_ms = wait_ms < REDIAL_MS_MAX / 2 ? wait_ms * 2 : REDIAL_MS_MAX;
    if (loop_timer_start(agent->loop, &agent->redial, (int64_t)wait_ms * 1000, dial_again, agent,
                         &fault) != OK)
        loop_stop(agent->loop);
}

static bool announced; /* the runner of a container hears, by a byte on 1, that HELLO was said */

/* ---- turns ---- */

static void on_turn_end(void *context)
{
    struct agent *agent = context;
    session_turn(agent);
    if (agent->shutdown) {
        session_flush(agent);
        trees_kill_all(agent->trees);
        power_down(agent, agent->shutdown == 2);
    }
    if (!agent->broken || agent->connection < 0)
        return;
    session_close(agent);
    if (agent->guest)
        dial_again(agent);
    else
        loop_stop(agent->loop);
}

static void on_pressure(void *context, uint32_t events)
{
    struct agent *agent = context;
    if (events & (EPOLLERR | EPOLLHUP)) /* it would be told for ever */
        agent->pressure_source = loop_unwatch(agent->loop, agent->pressure_source);
    else
        trees_relieve(agent->trees);
}

static status serve(struct agent *agent, int connection, struct fault *fault)
{
    TRY(trees_open(agent->trees, agent->guest, fault));
    TRY(loop_create(&agent->loop, fault));
    TRY(watch_children(agent, fault));
    if (agent->trees->pressure >= 0)
        TRY(loop_watch(&agent->pressure_source, agent->loop, agent->trees->pressure, EPOLLPRI,
                       on_pressure, agent, fault));
    loop_on_turn_end(agent->loop, on_turn_end, agent);
    if (agent->guest)
        dial_again(agent);
    else
        TRY(session_open(agent, connection, fault));
    if (announced && write(STDOUT_FILENO, "", 1) != 1)
        return FAIL(UNAVAILABLE, fault, "nobody hears that it runs");
    return loop_run(agent->loop, fault);
}

static void release(struct agent *agent)
{
    if (!agent->loop)
        return;
    loop_timer_stop(agent->loop, &agent->redial);
    loop_unwatch(agent->loop, agent->signal_source);
    loop_unwatch(agent->loop, agent->pressure_source);
    agent->loop = loop_free(agent->loop);
}

/* The connection is not to be anybody's standard input. */
static status move_connection(int *ret, const char *word, struct fault *fault)
{
    char *end = NULL;
    errno = 0;
    unsigned long number = word ? strtoul(word, &end, 10) : 0;
    if (word && (*word == '\0' || *end != '\0' || number > INT32_MAX || errno))
        return FAIL(BAD_FIELD, fault, "usage: bulkhead-agent [[--stream] FD]");
    int moved = fcntl((int)number, F_DUPFD_CLOEXEC, 3);
    if (moved < 0)
        return errno_status(errno, "connection", fault);
    close((int)number);
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null >= 0 && null != 0 && number == 0)
        dup2(null, 0);
    if (null > 2)
        close(null);
    *ret = moved;
    return OK;
}

int main(int count, char **words)
{
    struct fault fault;
    struct agent agent = {.trees = &trees, .connection = -1, .signals = -1};
    announced = count == 3 && strcmp(words[1], "--stream") == 0;
    const char *number = count > 1 ? words[count - 1] : NULL;
    int connection = -1;
    agent.guest = getpid() == 1 && count > 0 && strcmp(words[0], "/init") == 0;
    status done = agent.guest ? init_guest(&fault)
                              : move_connection(&connection, number, &fault);
    if (done == OK) {
        init_protect(agent.guest);
        done = serve(&agent, connection, &fault);
        release(&agent);
    }
    if (done == OK)
        return 0; /* the host has gone */
    fprintf(stderr, "bulkhead-agent: %s\n", fault.detail);
    return 1; /* of a guest: the kernel panics, and its monitor sees that */
}
