/* child.c: one child process, from its spawn to the end of its last descriptor. */
#define _GNU_SOURCE
#include "base/clock.h"
#include "base/log.h"
#include "supervisor/supervisor.h"

#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum {
    OUTBOX_BYTES = 4 * 1024 * 1024,
    MESSAGES_PER_TURN = 64,
    START_DEADLINE_US = 20 * 1000 * 1000,
};

static const struct {
    const char *name, *executable; /* name: what it calls itself in the log, too */
    enum jail_role role;
} kinds[CHILD_KINDS] = {
    [CHILD_KMS] = {"kms", "bulkhead-kms", JAIL_KMS},
    [CHILD_CONTROL] = {"control", "bulkhead-control", JAIL_CONTROL},
    [CHILD_GATEWAY] = {"gateway", "bulkhead-gateway", JAIL_GATEWAY},
    [CHILD_CELL] = {"cell", "bulkhead-cell", JAIL_CELL},
    [CHILD_VMM] = {"vmm", "bulkhead-vmm", JAIL_VMM},
    [CHILD_RUNNER] = {"runner", "bulkhead-runner", JAIL_RUNNER},
};

const char *child_name(char text[24], const struct child *child)
{
    bool numbered = child->kind >= CHILD_GATEWAY;
    if (numbered)
        snprintf(text, 24, "%s-%u", kinds[child->kind].name, child->index);
    else
        snprintf(text, 24, "%s", kinds[child->kind].name);
    return text;
}

uid_t child_uid(const struct child *child)
{
    static const uint32_t offsets[CHILD_KINDS] = {[CHILD_KMS] = 1, [CHILD_CONTROL] = 2,
                                                  [CHILD_GATEWAY] = 10};
    if (child->supervisor->shared_id)
        return 0;
    if (child->kind == CHILD_CELL || child_runs_sandbox(child))
        return child->uid;
    uint32_t step = child->kind == CHILD_GATEWAY ? child->index : 0;
    return child->supervisor->options.uid_base + offsets[child->kind] + step;
}

void child_fatal(struct child *child, const char *why)
{
    char name[24];
    if (child->state == CHILD_ABSENT)
        return;
    /* nothing that it still says is heard */
    child->channel_source = loop_unwatch(child->supervisor->loop, child->channel_source);
    log_event(LOG_ERROR, "child.killed", "%s (pid %d): %s", child_name(name, child),
              (int)child->jail.pid, why);
    if (!child->detail[0])
        span_to_text(child->detail, sizeof child->detail, span_of_text(why));
    jail_kill(&child->jail);
}

static void watch_writable(struct child *child)
{
    struct fault fault;
    uint32_t events = EPOLLIN | (ipc_outbox_waiting(child->outbox) ? EPOLLOUT : 0);
    if (loop_change(child->supervisor->loop, child->channel_source, events, &fault) != OK)
        child_fatal(child, fault.detail);
}

void child_send(struct child *child, uint32_t type, uint32_t id, struct span body, const int *fds,
                uint32_t fd_count)
{
    struct fault fault;
    if (child->state == CHILD_ABSENT || child->channel < 0 || !child->channel_source)
        return;
    status sent = ipc_outbox_send(child->outbox, type, id, body, fds, fd_count, &fault);
    if (sent == CLOSED)
        return; /* it is ending: the exit event tells */
    if (sent != OK)
        child_fatal(child, fault.detail);
    else if (ipc_outbox_waiting(child->outbox))
        watch_writable(child);
}

void child_reply(struct child *child, uint32_t id, status code, const char *detail)
{
    uint8_t storage[256];
    struct buffer body = buffer_over(storage, sizeof storage);
    if (id == 0)
        return;
    reply_put_head(&body, code, detail);
    child_send(child, MESSAGE_REPLY, id, buffer_span(&body), NULL, 0);
}

/* A restore may have ended before we looked: then what it said before, which is still to be read,
 * tells why. Dead or killed, it is given nothing more. */
static void unverified(struct child *child, const char *why)
{
    if (!child->restoring) {
        child_fatal(child, why);
        return;
    }
    log_event(LOG_WARN, "restore.unverified", "%s", why);
    jail_kill(&child->jail);
}

static void verify(struct child *child, struct ipc_message *message)
{
    char cgroup[160], name[24];
    uint32_t abi;
    uint8_t probe;
    struct fault fault;
    struct cursor body = cursor_over(message->body);
    jail_cgroup_text(cgroup, sizeof cgroup, &child->supervisor->cgroups, child_name(name, child));
    const bool blank_first = child->kind == CHILD_CELL || child_runs_sandbox(child);
    if (child->state != (blank_first ? CHILD_CLOSING : CHILD_STARTING)
        || cursor_u32(&abi, &body, &fault) != OK || cursor_u8(&probe, &body, &fault) != OK
        || cursor_end(&body, &fault) != OK || message->fd_count || !probe) {
        child_fatal(child, "a JAILED message that is malformed, out of turn, or denies its jail");
        return;
    }
    const struct jail_expectation expected = {
        .uid = child_uid(child), .gid = child_uid(child), .landlock_abi = abi, .cgroup = cgroup,
        .threads = child->kind == CHILD_VMM ? monitor_threads(child) : 1,
        .groups_kept = child->supervisor->shared_id};
    if (jail_verify(&child->report, &child->jail, &expected, &fault) != OK) {
        unverified(child, fault.detail);
        return;
    }
    child->state = CHILD_JAILED;
    if (child->kind == CHILD_CELL)
        cell_verified(child);
    else if (child_runs_sandbox(child))
        monitor_verified(child);
}

static void receive(struct child *child)
{
    static uint8_t storage[IPC_PACKET_MAX];
    for (int i = 0; i < MESSAGES_PER_TURN && child->channel_source; i++) {
        struct ipc_message message;
        struct fault fault;
        status got = ipc_receive(&message, child->channel, storage, &fault);
        if (got == AGAIN)
            return;
        if (got == CLOSED) { /* alive or not, without its channel it is of no use */
            bool stopping = child->kind != CHILD_CELL && child->state == CHILD_PARKING;
            child->channel_source = loop_unwatch(child->supervisor->loop, child->channel_source);
            if (!stopping) /* else it finishes, and the phase has a deadline */
                jail_kill(&child->jail);
            return;
        }
        if (got != OK) {
            child_fatal(child, fault.detail);
            return;
        }
        if (message.type == MESSAGE_JAILED)
            verify(child, &message);
        else
            permits_handle(child, &message);
        ipc_message_close(&message);
    }
}

static void on_channel(void *context, uint32_t events)
{
    struct child *child = context;
    struct fault fault;
    if (events & EPOLLOUT) {
        status flushed = ipc_outbox_flush(child->outbox, &fault);
        if (flushed == OK)
            watch_writable(child);
        else if (flushed != CLOSED) /* which reading tells */
            child_fatal(child, fault.detail);
    }
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
        receive(child);
}

static void on_exit_event(void *context, uint32_t events)
{
    (void)events;
    struct child *child = context;
    struct fault fault;
    usage_look(child);
    monitor_look(child);
    int code = -1; /* reaped by nobody else: an error of waitid itself is an end, too */
    if (jail_reap(&code, &child->jail, &fault) == AGAIN)
        return;
    receive(child); /* its last words may still be in the channel */
    if (child->kind == CHILD_CELL)
        cell_ended(child, code);
    else if (child_runs_sandbox(child))
        monitor_ended(child, code);
    else
        service_ended(child, code);
}

static void on_deadline(void *context)
{
    struct child *child = context;
    child_fatal(child, "did not start in time");
}

void child_forget(struct child *child)
{
    char name[24];
    struct loop *loop = child->supervisor->loop;
    child->channel_source = loop_unwatch(loop, child->channel_source);
    child->exit_source = loop_unwatch(loop, child->exit_source);
    loop_timer_stop(loop, &child->timer);
    loop_timer_stop(loop, &child->usage.timer);
    child->outbox = ipc_outbox_free(child->outbox);
    if (child->channel >= 0)
        close(child->channel);
    if (child->kms_end >= 0)
        close(child->kms_end);
    child->channel = child->kms_end = -1;
    logs_close(&child->log);
    jail_child_close(&child->jail);
    jail_cgroup_remove(&child->supervisor->cgroups, child_name(name, child));
    child->state = CHILD_ABSENT;
}

static status start_in_jail(struct child *child, int executable, int channel, struct fault *fault)
{
    struct supervisor *supervisor = child->supervisor;
    char name[24];
    const struct jail_limits limits = {
        .memory_max_bytes = child->kind == CHILD_CELL
                          ? (uint64_t)supervisor->options.cell_memory_mib << 20 : 0,
        .cpu_weight = 100, .pids_max = 4};
    _Static_assert((int)CHILD_KINDS == (int)JAIL_ROLES, "every kind of child has a role");
    const char *process = child->hostile ? "hostile" : kinds[child->kind].name;
    int cgroup = -1, log;
    TRY(jail_cgroup_make(&cgroup, &supervisor->cgroups, child_name(name, child), &limits, fault));
    status opened = logs_open(&child->log, &log, supervisor->loop, name, process, fault);
    if (opened != OK) {
        if (cgroup >= 0)
            close(cgroup);
        return opened;
    }
    if (child_runs_sandbox(child))
        logs_bound(&child->log, SANDBOX_LOG_BYTES_MAX);
    const struct jail_plan plan = {
        .role = kinds[child->kind].role, .executable = executable,
        .name = kinds[child->kind].executable, .null = supervisor->null, .log = log,
        .channel = channel, .empty_root = supervisor->empty_root,
        .filters = supervisor->filters[child->kind], .cgroup = cgroup};
    status spawned = jail_spawn(&child->jail, &plan, fault);
    close(log);
    if (spawned != OK)
        logs_close(&child->log);
    if (cgroup >= 0)
        close(cgroup);
    return spawned;
}

static status watch(struct child *child, struct fault *fault)
{
    struct loop *loop = child->supervisor->loop;
    TRY(ipc_outbox_create(&child->outbox, child->channel, OUTBOX_BYTES, fault));
    TRY(loop_watch(&child->channel_source, loop, child->channel, EPOLLIN, on_channel, child,
                   fault));
    TRY(loop_watch(&child->exit_source, loop, child->jail.pidfd, EPOLLIN, on_exit_event, child,
                   fault));
    return loop_timer_start(loop, &child->timer, START_DEADLINE_US, on_deadline, child, fault);
}

status child_spawn(struct child *child, int executable, struct fault *fault)
{
    int ends[2];
    TRY(ipc_pair(ends, fault));
    status spawned = start_in_jail(child, executable, ends[1], fault);
    close(ends[1]);
    if (spawned != OK) {
        close(ends[0]);
        return spawned;
    }
    child->channel = ends[0];
    child->kms_end = -1;
    child->state = CHILD_STARTING;
    child->started_us = clock_monotonic_us();
    status watched = watch(child, fault);
    if (watched != OK) { /* out of memory or descriptors: nobody would ever reap it */
        jail_kill(&child->jail);
        int code;
        struct fault ignored;
        while (jail_reap(&code, &child->jail, &ignored) == AGAIN)
            usleep(1000);
        child_forget(child);
    }
    return watched;
}
