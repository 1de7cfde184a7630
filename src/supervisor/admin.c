/* admin.c: DATA/run/admin.sock. The kernel says who connects; control is handed the connection and,
 * for as long as it lasts, a channel on which the kms creates, shreds and mints. */
#define _GNU_SOURCE
#include "base/cleanup.h"
#include "base/log.h"
#include "supervisor/supervisor.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

static bool permitted(const struct supervisor *supervisor, int client, struct ucred *who)
{
    socklen_t length = sizeof *who;
    return getsockopt(client, SOL_SOCKET, SO_PEERCRED, who, &length) == 0
        && (who->uid == 0 || who->uid == supervisor->data_owner);
}

/* Its process, not its connection: that is control's, and ends when control ends it. */
static void keep_operator(struct supervisor *supervisor, pid_t pid)
{
    int *kept = &supervisor->operators[supervisor->operators_next++ % OPERATORS_KEPT];
    int pidfd = pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
    if (*kept > 0)
        close(*kept);
    *kept = pidfd > 0 ? pidfd : 0;
}

bool admin_operator_is_there(const struct supervisor *supervisor)
{
    for (uint32_t i = 0; i < OPERATORS_KEPT; i++) {
        struct pollfd process = {.fd = supervisor->operators[i], .events = POLLIN};
        if (process.fd > 0 && poll(&process, 1, 0) == 0)
            return true;
    }
    return false;
}

static void hand_over(struct supervisor *supervisor, int client, const struct ucred *who)
{
    struct child *control = service_control(supervisor), *kms = service_kms(supervisor);
    struct fault fault;
    int ends[2];
    if (control->state != CHILD_SERVING || kms->state != CHILD_SERVING)
        return; /* closed: the command line says that the node is not ready */
    if (ipc_pair(ends, &fault) != OK) {
        log_event(LOG_ERROR, "admin.failed", "%s", fault.detail);
        return;
    }
    uint8_t storage[8];
    struct buffer body = buffer_over(storage, sizeof storage);
    buffer_put_u32(&body, who->uid);
    child_send(kms, MESSAGE_KMS_SERVE_ADMIN, 0, buffer_span(&body), &ends[0], 1);
    buffer_put_u32(&body, (uint32_t)who->pid);
    keep_operator(supervisor, who->pid);
    const int fds[2] = {client, ends[1]};
    child_send(control, MESSAGE_ADMIN_OPEN, 0, buffer_span(&body), fds, 2);
    close(ends[0]);
    close(ends[1]);
}

static void on_connection(void *context, uint32_t events)
{
    (void)events;
    struct supervisor *supervisor = context;
    struct ucred who;
    _cleanup_close_ int client = accept4(supervisor->admin_listener, NULL, NULL,
                                         SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (client < 0)
        return;
    if (permitted(supervisor, client, &who))
        hand_over(supervisor, client, &who);
    else
        log_event(LOG_WARN, "admin.denied", "uid %u is neither root nor the owner of the data",
                  who.uid);
}

/* Bound through /proc/self/fd: DATA's path may be longer than a socket address holds. */
status admin_listen(struct supervisor *supervisor, struct fault *fault)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/admin.sock",
             supervisor->silos.run);
    _cleanup_close_ int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return FAIL(INTERNAL, fault, "admin.sock: %s", strerror(errno));
    unlinkat(supervisor->silos.run, "admin.sock", 0); /* of an earlier run: the lock is ours */
    if (bind(fd, (const struct sockaddr *)&address, sizeof address) || listen(fd, 64))
        return FAIL(INTERNAL, fault, "admin.sock: %s", strerror(errno));
    TRY(loop_watch(&supervisor->admin_source, supervisor->loop, fd, EPOLLIN, on_connection,
                   supervisor, fault));
    supervisor->admin_listener = take_fd(&fd);
    return OK;
}
