/* bulkhead_runner.c: from VMM_BLANK to VMM_ENDED, for a sandbox of a weaker tier. */
#define _GNU_SOURCE
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "jail/jail.h"
#include "runner/runner.h"
#include "wire/ipc.h"
#include "wire/messages.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum {
    LOOK_MS = 50,
    CONTAINER_OVERHEAD_MIB = 16, /* crun and this process */
    GVISOR_OVERHEAD_MIB = 192,   /* its kernel, file server and parent: four Go programs */
    GVISOR_THREADS = 512,        /* of all of them */
    CONTAINER_PROCESSES = 4,     /* crun, its child while it sets up, the agent */
};

static struct {
    struct sandbox_spec spec;
    enum sandbox_tier tier;
    int tree, agent, stream; /* -1: not given yet */
    int said, errors;        /* read ends of the sandbox's descriptors 1 and 2 */
    pid_t runtime;
    int64_t started_us;
    bool go, running;
    struct runner_used most; /* of each look */
    char trouble[RUNNER_DETAIL_TEXT]; /* the last line of the runtime */
} own = {.tree = -1, .agent = -1, .stream = -1};

static uint8_t storage[IPC_PACKET_MAX];

static status say(uint32_t type, struct span body, struct fault *fault)
{
    return ipc_send_wait(JAIL_FD_SUPERVISOR, type, 0, body, NULL, 0, -1, fault);
}

static bool grow(uint64_t *most, uint64_t now)
{
    bool more = now > *most;
    *most = more ? now : *most;
    return more;
}

/* The supervisor cannot see what a process has used that ends with this pid namespace: nobody
 * reaps it. So it is told as it grows. */
static void account(void)
{
    struct fault fault;
    struct runner_used used = {0};
    uint8_t bytes[16];
    struct buffer body = buffer_over(bytes, sizeof bytes);
    runner_look(&used, own.tier);
    grow(&own.most.tasks, used.tasks);
    bool more = grow(&own.most.cpu_us, used.cpu_us);
    more = grow(&own.most.memory_bytes, used.memory_bytes) || more;
    if (!more || !own.running)
        return;
    buffer_put_u64(&body, own.most.cpu_us);
    buffer_put_u64(&body, own.most.memory_bytes / 1024);
    if (say(MESSAGE_VMM_USED, buffer_span(&body), &fault) != OK)
        _exit(1);
}

static _Noreturn void end(enum sandbox_end how, const char *detail)
{
    struct fault ignored;
    uint8_t bytes[RUNNER_DETAIL_TEXT + 16];
    struct buffer body = buffer_over(bytes, sizeof bytes);
    buffer_put_u8(&body, (uint8_t)how);
    buffer_put_text_field(&body, detail);
    if (own.running)
        account();
    status told = say(MESSAGE_VMM_ENDED, buffer_span(&body), &ignored);
    _exit(told == OK ? 0 : 1); /* pid 1: every process of the sandbox ends now */
}

static status take(int *slot, struct ipc_message *message, struct fault *fault)
{
    TRY(ipc_need_fds(message, 1, fault));
    if (*slot >= 0)
        return FAIL(BAD_REQUEST, fault, "supervisor: given twice");
    *slot = take_fd(&message->fds[0]);
    return OK;
}

static status take_descriptor(struct ipc_message *message, struct fault *fault)
{
    struct cursor body = cursor_over(message->body);
    uint8_t kind;
    TRY(cursor_u8(&kind, &body, fault));
    TRY(cursor_end(&body, fault));
    if (kind == VMM_FD_TREE)
        return take(&own.tree, message, fault);
    if (kind == VMM_FD_AGENT)
        return take(&own.agent, message, fault);
    return FAIL(BAD_REQUEST, fault, "supervisor: descriptor of kind %u", kind);
}

/* spec.weakest: the tier that this is to be. */
static status take_spec(const struct ipc_message *message, struct fault *fault)
{
    struct cursor body = cursor_over(message->body);
    TRY(ipc_need_fds(message, 0, fault));
    TRY(sandbox_spec_get(&own.spec, &body, fault));
    own.tier = (enum sandbox_tier)own.spec.weakest;
    own.started_us = clock_monotonic_us();
    if (own.tier != SANDBOX_CONTAINER && own.tier != SANDBOX_GVISOR)
        return FAIL(BAD_FIELD, fault, "tier: gvisor or container");
    return OK;
}

static status take_message(struct ipc_message *message, struct fault *fault)
{
    switch (message->type) {
    case MESSAGE_VMM_FD: return take_descriptor(message, fault);
    case MESSAGE_VMM_START: return take_spec(message, fault);
    case MESSAGE_VMM_STREAM: return take(&own.stream, message, fault);
    case MESSAGE_VMM_GO: own.go = true; return OK;
    default: return FAIL(BAD_REQUEST, fault, "supervisor: message %#x", message->type);
    }
}

static status await_message(struct fault *fault)
{
    struct ipc_message message;
    TRY(ipc_await(&message, JAIL_FD_SUPERVISOR, storage, -1, fault));
    status code = take_message(&message, fault);
    ipc_message_close(&message);
    return code;
}

/* ---- its own bars ---- */

static void limit(__rlimit_resource_t resource, rlim_t value)
{
    struct rlimit old;
    if (getrlimit(resource, &old))
        _exit(126);
    rlim_t least = value < old.rlim_max ? value : old.rlim_max;
    if (setrlimit(resource, &(struct rlimit){least, least}))
        _exit(126);
}

static status be_blank(struct fault *fault)
{
    close(JAIL_FD_ROOT); /* the runtime needs another root than an empty one, */
    close(JAIL_FD_FILTERS); /* and has filters of its own */
    limit(RLIMIT_CORE, 1); /* profile.c says why not 0 */
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_NAME, "bulkhead-runner"))
        return FAIL(INTERNAL, fault, "no_new_privs: %s", strerror(errno));
    return OK;
}

static status take_id(struct fault *fault)
{
    if (syscall(SYS_setresgid, JAIL_ID, JAIL_ID, JAIL_ID)
        || syscall(SYS_setresuid, JAIL_ID, JAIL_ID, JAIL_ID)
        || prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0))
        return FAIL(INTERNAL, fault, "id: %s", strerror(errno));
    return OK;
}

static rlim_t process_limit(void)
{
    bool gvisor = own.tier == SANDBOX_GVISOR;
    return own.spec.processes + (gvisor ? GVISOR_THREADS : CONTAINER_PROCESSES);
}

/* Of the runtime and all below it. gVisor keeps its guest's memory in one file, which grows by GiB,
 * and has threads where the guest has processes. */
static void limit_runtime(void)
{
    const rlim_t mib = MIB(1), gib = (rlim_t)MIB(1024);
    rlim_t memory = own.spec.memory_mib * mib;
    limit(RLIMIT_NOFILE, 4096);
    limit(RLIMIT_MEMLOCK, mib);
    limit(RLIMIT_MSGQUEUE, mib);
    if (own.spec.cpu_s) /* of each process; the sum is looked at in time to say what was over */
        limit(RLIMIT_CPU, own.spec.cpu_s + 2);
    limit(RLIMIT_NPROC, process_limit());
    if (own.tier == SANDBOX_GVISOR) {
        limit(RLIMIT_FSIZE, (memory / gib + 2) * gib);
    } else {
        limit(RLIMIT_DATA, memory + CONTAINER_OVERHEAD_MIB * mib);
    }
}

static void write_self(const char *path, const char *text)
{
    _cleanup_close_ int file = open(path, O_WRONLY | O_CLOEXEC);
    if (file < 0 || write(file, text, span_of_text(text).length) < 0) {
        dprintf(STDERR_FILENO, "%s: %s\n", path, strerror(errno));
        _exit(126);
    }
}

/* A user namespace within the first: what is root in the sandbox owns none of the namespaces that
 * its walls are made of. */
static _Noreturn void be_runtime(int stream, int output, int error)
{
    static const char *const crun[] = {"crun", "--root", "/run", "--cgroup-manager=disabled", "run",
                                 "--bundle", RUNNER_BUNDLE, "sandbox", NULL};
    static const char *const runsc[] = {
        "runsc", "--rootless", "--root", "/run", "--platform=ptrace", "--network=none",
        "--ignore-cgroups", "run", "--bundle", RUNNER_BUNDLE, "sandbox", NULL};
    static const char *const environment[] = {"PATH=/", "HOME=/run", "XDG_RUNTIME_DIR=/run", NULL};
    if (dup2(stream, 0) < 0 || dup2(output, 1) < 0 || dup2(error, 2) < 0
        || close_range(3, ~0u, CLOSE_RANGE_CLOEXEC) || setsid() < 0)
        _exit(126);
    if (prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) /* or its maps in /proc are not its own */
        || unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET)) {
        dprintf(2, "a user namespace within: %s\n", strerror(errno));
        _exit(126);
    }
    /* where the host leaves it to each process, guesses of branches stay in the sandbox */
    prctl(PR_SET_SPECULATION_CTRL, PR_SPEC_INDIRECT_BRANCH, PR_SPEC_FORCE_DISABLE, 0, 0);
    write_self("/proc/self/setgroups", "deny");
    write_self("/proc/self/gid_map", "0 1 1");
    write_self("/proc/self/uid_map", "0 1 1");
    limit_runtime();
    const char *const *arguments = own.tier == SANDBOX_GVISOR ? runsc : crun;
    execve(RUNNER_RUNTIME, (char *const *)arguments, (char *const *)environment);
    dprintf(2, "exec: %s\n", strerror(errno));
    _exit(126);
}

static status start_runtime(struct fault *fault)
{
    int output[2], error[2];
    if (pipe2(output, O_CLOEXEC | O_NONBLOCK) || pipe2(error, O_CLOEXEC | O_NONBLOCK))
        return FAIL(UNAVAILABLE, fault, "pipes: %s", strerror(errno));
    own.runtime = fork();
    if (own.runtime == 0)
        be_runtime(own.stream, output[1], error[1]);
    if (own.runtime < 0)
        return FAIL(UNAVAILABLE, fault, "fork: %s", strerror(errno));
    close(output[1]);
    close(error[1]);
    own.said = output[0];
    own.errors = error[0];
    return OK;
}

/* ---- while it runs ---- */

/* The agent writes one byte to descriptor 1 when it has said HELLO; whatever else comes is the
 * guest's and means nothing. */
static void hear_output(void)
{
    uint8_t bytes[512];
    ssize_t got = read(own.said, bytes, sizeof bytes);
    if (got == 0 || (got < 0 && errno != EAGAIN))
        cleanup_close(&own.said);
    if (got <= 0 || own.running)
        return;
    struct fault fault;
    struct buffer body = buffer_over(bytes, sizeof bytes);
    uint64_t now_us = (uint64_t)(clock_monotonic_us() - own.started_us);
    own.running = true;
    buffer_put_u64(&body, now_us);
    buffer_put_u64(&body, now_us);
    if (say(MESSAGE_VMM_RUNNING, buffer_span(&body), &fault) != OK)
        _exit(1);
}

/* Only what the runtime says before the agent runs is told on; letters of ASCII. */
static void hear_errors(void)
{
    char bytes[4096];
    ssize_t got = read(own.errors, bytes, sizeof bytes);
    if (got == 0 || (got < 0 && errno != EAGAIN))
        cleanup_close(&own.errors);
    if (got <= 0 || own.running)
        return;
    while (got > 0 && bytes[got - 1] == '\n')
        got--;
    ssize_t begin = got;
    while (begin > 0 && bytes[begin - 1] != '\n')
        begin--;
    if (got - begin > RUNNER_DETAIL_TEXT - 1)
        begin = got - (RUNNER_DETAIL_TEXT - 1);
    size_t length = 0;
    for (ssize_t i = begin; i < got; i++)
        own.trouble[length++] = bytes[i] >= ' ' && bytes[i] <= '~' ? bytes[i] : '?';
    own.trouble[length] = '\0';
}

/* gVisor's kernel falls over when the host refuses it a thread, which many processes bring about:
 * more of them than may be is the likely reason then. */
static _Noreturn void end_failed(int code)
{
    char detail[RUNNER_DETAIL_TEXT];
    const char *name = sandbox_tier_name(own.tier);
    if (!own.running)
        snprintf(detail, sizeof detail, "%.20s exits with %d: %.80s", name, code, own.trouble);
    else if (own.most.tasks >= process_limit() / 2)
        snprintf(detail, sizeof detail, "%.20s ended with %d at its limit of %llu threads: too "
                 "many processes at once", name, code, (unsigned long long)process_limit());
    else
        snprintf(detail, sizeof detail, "%.20s ended with %d under the command", name, code);
    end(SANDBOX_FAILED, detail);
}

static void reap(void)
{
    int how;
    pid_t ended;
    while ((ended = waitpid(-1, &how, WNOHANG)) > 0) {
        if (ended != own.runtime)
            continue;
        hear_errors();
        if (own.running && WIFEXITED(how) && WEXITSTATUS(how) == 0)
            end(SANDBOX_SHUTDOWN, "");
        end_failed(WIFEXITED(how) ? WEXITSTATUS(how) : 128 + WTERMSIG(how));
    }
}

static void look(void)
{
    uint64_t overhead = own.tier == SANDBOX_GVISOR ? GVISOR_OVERHEAD_MIB : CONTAINER_OVERHEAD_MIB;
    account();
    if (own.most.memory_bytes > (own.spec.memory_mib + overhead) * MIB(1))
        end(SANDBOX_MEMORY, "");
    if (own.spec.cpu_s && own.most.cpu_us > (uint64_t)own.spec.cpu_s * 1000000)
        end(SANDBOX_CPU_TIME, "");
}

static void turn(void)
{
    struct pollfd waits[] = {{.fd = JAIL_FD_SUPERVISOR, .events = POLLIN}, {.fd = own.stream},
                             {.fd = own.said, .events = POLLIN},
                             {.fd = own.errors, .events = POLLIN}};
    if (poll(waits, 4, LOOK_MS) < 0 && errno != EINTR)
        end(SANDBOX_FAILED, "poll");
    if (waits[0].revents) /* nothing is left to be said to a sandbox that runs */
        _exit(0);
    if (waits[3].revents)
        hear_errors();
    if (waits[2].revents)
        hear_output();
    if (waits[1].revents & (POLLHUP | POLLERR))
        end(SANDBOX_CLOSED, "");
    reap();
    look();
}

static status serve(struct fault *fault)
{
    uint8_t proof[5] = {0}; /* no Landlock: it would refuse the runtime its mounts */
    TRY(be_blank(fault));
    TRY(say(MESSAGE_VMM_BLANK, SPAN(""), fault));
    while (own.tree < 0 || own.agent < 0 || own.stream < 0 || !own.tier)
        TRY(await_message(fault));
    TRY(take_id(fault));
    TRY(runner_root(own.tier, &own.spec, own.tree, own.agent, fault));
    cleanup_close(&own.tree);
    cleanup_close(&own.agent);
    proof[4] = access("/etc", F_OK) != 0 && access("/usr/bin", F_OK) != 0; /* the host is gone */
    TRY(say(MESSAGE_JAILED, (struct span){proof, sizeof proof}, fault));
    while (!own.go)
        TRY(await_message(fault));
    TRY(start_runtime(fault));
    for (;;)
        turn();
}

int main(void)
{
    struct fault fault = {0};
    log_open("runner", LOG_INFO);
    status code = serve(&fault);
    if (code == CLOSED)
        return 0;
    log_event(LOG_ERROR, "runner.failed", "%s", fault.detail);
    fault.detail[RUNNER_DETAIL_TEXT - 1] = '\0';
    end(SANDBOX_FAILED, fault.detail);
}
