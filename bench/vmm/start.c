/* start.c: monitors from their start over the first instructions of a guest to their end: how many
 * a second, and where the time of one goes. Natively: the guest is a flat one.
 *
 *   bench-vmm-start COUNT JOBS jailed BULKHEAD_VMM GUEST
 *   bench-vmm-start COUNT JOBS any STATUS COMMAND...
 *
 * jailed: as the supervisor starts them: namespaces, an id, the descriptors, VMM_START with all of
 * a sandbox's devices, the jail closed, VMM_GO; only what it reads back from the kernel is left
 * out. GUEST ends by a triple fault when its initramfs says so (tests/guests/tiny.c). any: a
 * command that runs such a guest to its end and exits with STATUS. JOBS rows of COUNT monitors
 * altogether run side by side. One line of JSON; it fails when one monitor does not end as it
 * should. */
#define _GNU_SOURCE
#include "base/cleanup.h"
#include "base/clock.h"
#include "jail/policy.h"
#include "jail/spawn.h"
#include "wire/messages.h"
#include "wire/sandbox.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { COUNT_MAX = 10000, JOBS_MAX = 64, WAIT_MS = 20000, OUTER_ID = 64999 };

enum step { BLANK, JAILED, ENDED, GONE, STEPS };
static const char *const step_names[STEPS] = {"blank", "jailed", "ended", "gone"};

struct sample { /* microseconds since it was started; of a command only the last */
    int64_t at[STEPS];
};

struct jailed { /* what all of them share */
    struct jail_plan plan;
    int kvm, guest, initramfs;
};

_Noreturn static void fail(const char *what)
{
    fprintf(stderr, "bench-vmm-start: %s\n", what);
    exit(1);
}

static void must(status got, const struct fault *fault)
{
    if (got != OK)
        fail(fault->detail);
}

/* ---- one of ours, jailed ---- */

static void say(int channel, uint32_t type, struct span body, const int *fd)
{
    struct fault fault;
    must(ipc_send_wait(channel, type, 0, body, fd, fd != NULL, WAIT_MS, &fault), &fault);
}

static void give(int channel, enum vmm_fd kind, int fd)
{
    const uint8_t body = (uint8_t)kind;
    say(channel, MESSAGE_VMM_FD, (struct span){&body, 1}, &fd);
}

static void give_files(int channel, const struct jailed *jailed)
{
    _cleanup_close_ int overlay = memfd_create("overlay", MFD_CLOEXEC);
    give(channel, VMM_FD_KVM, jailed->kvm);
    give(channel, VMM_FD_KERNEL, jailed->guest);
    give(channel, VMM_FD_INITRAMFS, jailed->initramfs);
    give(channel, VMM_FD_OVERLAY, overlay);
}

static void say_start(int channel)
{
    uint8_t storage[512];
    struct buffer body = buffer_over(storage, sizeof storage);
    const struct sandbox_spec spec = sandbox_spec_default();
    sandbox_spec_put(&body, &spec);
    buffer_put(&body, SPAN("\2\0\0\0\0\1"));
    say(channel, MESSAGE_VMM_START, buffer_span(&body), NULL);
}

/* Returns the caller's end. */
static int say_stream(int channel)
{
    const uint8_t body[] = {VMM_STREAM_ACCEPT, 0, 0, SANDBOX_AGENT_PORT >> 8,
                            SANDBOX_AGENT_PORT & 0xFF};
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends))
        fail("socketpair");
    say(channel, MESSAGE_VMM_STREAM, SPAN_OF(body), &ends[1]);
    close(ends[1]);
    return ends[0];
}

static void await(int channel, uint32_t type, uint8_t first)
{
    static uint8_t storage[IPC_PACKET_MAX];
    struct ipc_message message;
    struct fault fault;
    must(ipc_await(&message, channel, storage, WAIT_MS, &fault), &fault);
    if (message.type != type || (first && message.body.data[0] != first)) {
        fprintf(stderr, "bench-vmm-start: message %#x: %.*s\n", message.type,
                message.type == MESSAGE_VMM_ENDED && message.body.length > 5
                    ? (int)message.body.length - 5 : 0, (const char *)message.body.data + 5);
        exit(1);
    }
    ipc_message_close(&message);
}

static void reap(struct jail_child *child)
{
    struct pollfd process = {.fd = child->pidfd, .events = POLLIN};
    struct fault fault;
    int code;
    if (poll(&process, 1, WAIT_MS) != 1)
        fail("it does not exit");
    must(jail_reap(&code, child, &fault), &fault);
    if (code)
        fail("it did not exit with 0");
    jail_child_close(child);
}

static void run_jailed(struct sample *ret, struct jailed *jailed)
{
    struct jail_child child;
    struct fault fault;
    int ends[2];
    int64_t begun = clock_monotonic_us();
    must(ipc_pair(ends, &fault), &fault);
    jailed->plan.channel = ends[1];
    must(jail_spawn(&child, &jailed->plan, &fault), &fault);
    close(ends[1]);
    await(ends[0], MESSAGE_VMM_BLANK, 0);
    ret->at[BLANK] = clock_monotonic_us() - begun;
    must(jail_map(&child, OUTER_ID, OUTER_ID, &fault), &fault);
    give_files(ends[0], jailed);
    say_start(ends[0]);
    _cleanup_close_ int stream = say_stream(ends[0]);
    await(ends[0], MESSAGE_JAILED, 0);
    ret->at[JAILED] = clock_monotonic_us() - begun;
    say(ends[0], MESSAGE_VMM_GO, (struct span){0}, NULL);
    await(ends[0], MESSAGE_VMM_ENDED, SANDBOX_FAULTED);
    ret->at[ENDED] = clock_monotonic_us() - begun;
    reap(&child);
    ret->at[GONE] = clock_monotonic_us() - begun;
    close(ends[0]);
}

static int open_or_fail(const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC);
    if (fd < 0)
        fail(path);
    return fd;
}

static void prepare(struct jailed *ret, const char *monitor, const char *guest, const char *root)
{
    struct fault fault;
    *ret = (struct jailed){
        .plan = {.role = JAIL_VMM, .executable = open_or_fail(monitor, O_PATH),
                 .name = "bulkhead-vmm", .null = open_or_fail("/dev/null", O_RDWR),
                 .log = STDERR_FILENO, .cgroup = -1},
        .kvm = open_or_fail("/dev/kvm", O_RDWR), .guest = open_or_fail(guest, O_RDONLY),
        .initramfs = memfd_create("initramfs", MFD_CLOEXEC)};
    if (ret->initramfs < 0 || write(ret->initramfs, "triple\n", 7) != 7)
        fail("memfd");
    must(jail_empty_root(&ret->plan.empty_root, root, &fault), &fault);
    must(jail_filters(&ret->plan.filters, JAIL_VMM, &fault), &fault);
}

/* ---- one that is any command ---- */

static void run_command(struct sample *ret, char **command, int expected)
{
    int64_t begun = clock_monotonic_us();
    int state, null = open_or_fail("/dev/null", O_RDWR);
    pid_t child = fork();
    if (child == 0) {
        for (int fd = 0; fd <= 2; fd++)
            dup2(null, fd);
        execv(command[0], command);
        _exit(127);
    }
    close(null);
    struct pollfd process = {.fd = (int)syscall(SYS_pidfd_open, child, 0), .events = POLLIN};
    if (child < 0 || process.fd < 0)
        fail("fork");
    bool ended = poll(&process, 1, WAIT_MS) == 1;
    if (!ended)
        kill(child, SIGKILL);
    waitpid(child, &state, 0);
    close(process.fd);
    if (!ended || !WIFEXITED(state) || WEXITSTATUS(state) != expected) {
        fprintf(stderr, "bench-vmm-start: %s: %s: %d\n", command[0],
                ended ? "it ended otherwise than it should" : "it does not end", state);
        exit(1);
    }
    ret->at[GONE] = clock_monotonic_us() - begun;
}

/* ---- rows of them ---- */

static int by_time(const void *left, const void *right)
{
    const int64_t *a = left, *b = right;
    return *a < *b ? -1 : *a > *b;
}

static void report(const struct sample *samples, int count, int jobs, int64_t took_us)
{
    int64_t sorted[COUNT_MAX];
    printf("{\"count\": %d, \"jobs\": %d, \"per_second\": %.1f", count, jobs,
           count * 1e6 / (double)took_us);
    for (int step = 0; step < STEPS; step++) {
        if (!samples[0].at[step])
            continue;
        for (int i = 0; i < count; i++)
            sorted[i] = samples[i].at[step];
        qsort(sorted, (size_t)count, sizeof *sorted, by_time);
        printf(", \"%s_us\": %lld", step_names[step], (long long)sorted[count / 2]);
        if (step == GONE)
            printf(", \"%s_p99_us\": %lld", step_names[step],
                   (long long)sorted[(count - 1) * 99 / 100]);
    }
    printf("}\n");
}

struct run { /* what a row is to do */
    struct jailed *jailed; /* NULL: a command */
    char **command;
    int expected, count, jobs;
};

static void run_row(struct sample *samples, const struct run *run, int row)
{
    for (int i = row; i < run->count; i += run->jobs) {
        if (run->jailed)
            run_jailed(&samples[i], run->jailed);
        else
            run_command(&samples[i], run->command, run->expected);
    }
}

/* A process each: only one without threads may spawn into jails. False: one of them failed. */
static bool run_rows(struct sample *samples, const struct run *run)
{
    pid_t rows[JOBS_MAX];
    bool good = true;
    fflush(stdout);
    for (int row = 0; row < run->jobs; row++) {
        rows[row] = fork();
        if (rows[row] < 0)
            fail("fork");
        if (rows[row] == 0) {
            run_row(samples, run, row);
            _exit(0);
        }
    }
    for (int row = 0; row < run->jobs; row++) {
        int state;
        good &= waitpid(rows[row], &state, 0) == rows[row] && WIFEXITED(state)
             && WEXITSTATUS(state) == 0;
    }
    return good;
}

static int number(const char *text, int most)
{
    char *end;
    long value = strtol(text, &end, 10);
    if (!*text || *end || value < 0 || value > most)
        fail("bench-vmm-start COUNT JOBS jailed BULKHEAD_VMM GUEST | any STATUS COMMAND...");
    return (int)value;
}

int main(int argc, char **argv)
{
    char base[] = "/tmp/bench-vmm-start-XXXXXX", root[sizeof base + 8];
    struct jailed jailed;
    if (argc < 6)
        fail("bench-vmm-start COUNT JOBS jailed BULKHEAD_VMM GUEST | any STATUS COMMAND...");
    struct run run = {.count = number(argv[1], COUNT_MAX), .jobs = number(argv[2], JOBS_MAX)};
    struct sample *samples = mmap(NULL, COUNT_MAX * sizeof *samples, PROT_READ | PROT_WRITE,
                                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (samples == MAP_FAILED || run.count == 0 || run.jobs == 0 || !mkdtemp(base)
        || chmod(base, 0755))
        fail("nothing to do, no memory, or no place in /tmp");
    snprintf(root, sizeof root, "%s/root", base);
    if (strcmp(argv[3], "jailed") == 0) {
        prepare(&jailed, argv[4], argv[5], root);
        run.jailed = &jailed;
    } else {
        run.expected = number(argv[4], 255);
        run.command = argv + 5;
    }
    int64_t begun = clock_monotonic_us();
    bool good = run_rows(samples, &run);
    int64_t took_us = clock_monotonic_us() - begun;
    rmdir(root);
    rmdir(base);
    if (!good)
        return 1;
    report(samples, run.count, run.jobs, took_us);
    return 0;
}
