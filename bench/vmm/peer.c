/* peer.c: one guest from the start of its monitor on, timed from outside: the same agent, the same
 * protocol and the same clock, whichever monitor runs it.
 *
 *   bench-vmm-peer ours|qemu [--rounds N] -- MONITOR...
 *
 * ours: descriptor 3 of MONITOR is the stream to the agent. qemu: the host's vsock is listened to.
 * One line of JSON: microseconds since MONITOR was started, or that an exchange took; bytes a
 * second. The guest's scratch disk gets 16 MiB written and read back. */
#define _GNU_SOURCE
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "wire/agent.h"
#include "wire/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    READ_BYTES = KIB(64), ROUNDS_MAX = 1000, STREAM_MIB = 16, STREAM_FD = 3, PATIENCE_MS = 300000
};

struct session {
    int fd;
    uint32_t id;
    struct buffer from;
    uint64_t received; /* on channels 1 and 2 of this id */
    bool started, over;
};

_Noreturn static void fail(const char *what)
{
    fprintf(stderr, "bench-vmm-peer: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void must(status got, const struct fault *fault)
{
    if (got == OK)
        return;
    fprintf(stderr, "bench-vmm-peer: %s\n", fault->detail);
    exit(1);
}

static void send_all(const struct session *session, struct buffer *out)
{
    struct fault fault;
    must(file_write(session->fd, buffer_span(out), "agent", &fault), &fault);
    buffer_free(out);
}

static void take_frame(struct session *session, const struct agent_frame *frame)
{
    struct agent_piece piece;
    struct fault fault;
    if (frame->id != session->id)
        return;
    session->started |= frame->type == AGENT_STARTED;
    if (frame->type == AGENT_DATA) {
        struct buffer out = buffer_of(64);
        must(agent_piece_get(&piece, frame, &fault), &fault);
        session->received += piece.bytes.length;
        agent_put_credit(&out, session->id, (enum agent_channel)piece.channel,
                         (uint32_t)piece.bytes.length);
        send_all(session, &out);
    }
    if (frame->type == AGENT_EXITED) {
        struct agent_exited exited;
        must(agent_exited_get(&exited, frame->payload, &fault), &fault);
        if (exited.how != AGENT_EXIT_CODE || exited.code != 0) {
            fprintf(stderr, "bench-vmm-peer: a command of the guest failed: %u\n", exited.code);
            exit(1);
        }
        session->over = true;
    }
    if (frame->type == AGENT_DONE) {
        fprintf(stderr, "bench-vmm-peer: a command of the guest was refused\n");
        exit(1);
    }
}

/* Reads once, and takes all whole frames; hello: what is awaited. */
static void turn(struct session *session, struct agent_hello *hello)
{
    struct pollfd ready = {.fd = session->fd, .events = POLLIN};
    if (poll(&ready, 1, PATIENCE_MS) <= 0)
        fail("the guest is silent");
    uint8_t *at = buffer_reserve(&session->from, READ_BYTES);
    ssize_t got = at ? read(session->fd, at, READ_BYTES) : -1;
    if (got <= 0)
        fail("the stream ended");
    buffer_advance(&session->from, (size_t)got);
    for (;;) {
        struct agent_frame frame;
        struct fault fault;
        size_t taken;
        status whole = agent_frame_get(&frame, &taken, buffer_span(&session->from), &fault);
        if (whole == AGAIN)
            return;
        must(whole, &fault);
        if (hello && frame.type == AGENT_HELLO) {
            must(agent_hello_get(hello, frame.payload, &fault), &fault);
            session->over = true;
        }
        take_frame(session, &frame);
        buffer_consume(&session->from, taken);
    }
}

static void begin(struct session *session, const char *command, uint8_t flags)
{
    struct buffer payload = buffer_of(AGENT_FRAME_MAX), out = buffer_of(AGENT_FRAME_MAX + 4);
    struct agent_exec exec = {
        .arguments = {SPAN("sh"), SPAN("-c"), span_of_text(command)}, .argument_count = 3,
        .user = SPAN("root"), .flags = flags};
    if (strchr(command, ' ') == NULL) {
        exec.arguments[0] = span_of_text(command);
        exec.argument_count = 1;
    }
    session->id++;
    session->received = 0;
    session->started = session->over = false;
    agent_exec_put(&payload, &exec);
    agent_frame_put(&out, AGENT_EXEC, session->id, buffer_span(&payload));
    buffer_free(&payload);
    send_all(session, &out);
}

static int64_t run(struct session *session, const char *command)
{
    int64_t begun = clock_monotonic_us();
    begin(session, command, 0);
    while (!session->over)
        turn(session, NULL);
    return clock_monotonic_us() - begun;
}

static int by_size(const void *left, const void *right)
{
    const int64_t *a = left, *b = right;
    return *a < *b ? -1 : *a > *b;
}

static int64_t median(int64_t *times, int count)
{
    qsort(times, (size_t)count, sizeof *times, by_size);
    return times[count / 2];
}

static int64_t commands(struct session *session, int rounds)
{
    static int64_t times[ROUNDS_MAX];
    for (int i = 0; i < rounds; i++)
        times[i] = run(session, "/bin/true");
    return median(times, rounds);
}

/* A byte there and back. */
static int64_t echoes(struct session *session, int rounds)
{
    static int64_t times[ROUNDS_MAX];
    begin(session, "/bin/cat", AGENT_EXEC_STDIN);
    while (!session->started)
        turn(session, NULL);
    for (int i = 0; i < rounds; i++) {
        struct buffer out = buffer_of(64);
        uint64_t before = session->received;
        int64_t begun = clock_monotonic_us();
        agent_put_data(&out, session->id, AGENT_IN, SPAN("x"));
        send_all(session, &out);
        while (session->received == before)
            turn(session, NULL);
        times[i] = clock_monotonic_us() - begun;
    }
    struct buffer out = buffer_of(64);
    agent_put_end(&out, session->id, AGENT_IN);
    send_all(session, &out);
    while (!session->over)
        turn(session, NULL);
    return median(times, rounds);
}

static double rate(int64_t us, int64_t less)
{
    return (double)STREAM_MIB * 1024 * 1024 * 1e6 / (double)(us > less ? us - less : 1);
}

static void measure(struct session *session, int rounds)
{
    int64_t command = commands(session, rounds);
    printf(", \"exec_us\": %lld", (long long)command);
    printf(", \"echo_us\": %lld", (long long)echoes(session, rounds));
    int64_t stream = run(session, "dd if=/dev/zero bs=64k count=256 2>/dev/null");
    printf(", \"stream_bytes_per_second\": %.0f", rate(stream, command));
    int64_t written = run(session,
                          "dd if=/dev/zero of=/var/f bs=64k count=256 conv=fsync 2>/dev/null");
    run(session, "echo 3 >/proc/sys/vm/drop_caches");
    int64_t read_back = run(session, "dd if=/var/f of=/dev/null bs=64k 2>/dev/null");
    int64_t small = run(session,
                        "dd if=/dev/vdb of=/dev/null bs=4k count=256 iflag=direct 2>/dev/null");
    printf(", \"write_bytes_per_second\": %.0f, \"read_bytes_per_second\": %.0f",
           rate(written, command), rate(read_back, command));
    printf(", \"read_4k_us\": %.1f", (double)(small > command ? small - command : 1) / 256);
}

static int listen_vsock(void)
{
    const struct sockaddr_vm place = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY,
                                      .svm_port = SANDBOX_AGENT_PORT};
    int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (const struct sockaddr *)&place, sizeof place) || listen(fd, 1))
        fail("vsock");
    return fd;
}

static pid_t start_monitor(char **command, int stream)
{
    pid_t child = fork();
    if (child < 0)
        fail("fork");
    if (child > 0)
        return child;
    if (stream >= 0 && dup2(stream, STREAM_FD) < 0)
        _exit(126);
    int log = dup(STDERR_FILENO);
    dup2(log, STDOUT_FILENO); /* stdout is the figures' */
    execvp(command[0], command);
    _exit(127);
}

int main(int argc, char **argv)
{
    struct session session = {.fd = -1, .from = buffer_of(MIB(1))};
    struct agent_hello hello = {0};
    int rounds = 20, at = 2, ends[2] = {-1, -1}, listener = -1;
    bool qemu = argc > 2 && strcmp(argv[1], "qemu") == 0;
    if (argc > 4 && strcmp(argv[2], "--rounds") == 0) {
        rounds = (int)strtol(argv[3], NULL, 10);
        at = 4;
    }
    if (argc < at + 2 || strcmp(argv[at], "--") != 0 || rounds < 0 || rounds > ROUNDS_MAX) {
        fprintf(stderr, "bench-vmm-peer ours|qemu [--rounds N] -- MONITOR...\n");
        return 2;
    }
    if (qemu)
        listener = listen_vsock();
    else if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
        fail("socketpair");
    if (ends[1] >= 0 && fcntl(ends[1], F_SETFL, O_NONBLOCK))
        fail("socketpair");
    int64_t begun = clock_monotonic_us();
    pid_t monitor = start_monitor(argv + at + 1, ends[1]);
    cleanup_close(&ends[1]);
    session.fd = qemu ? accept4(listener, NULL, NULL, SOCK_CLOEXEC) : ends[0];
    if (session.fd < 0)
        fail("accept");
    while (!session.over)
        turn(&session, &hello);
    printf("{\"monitor\": \"%s\", \"hello_us\": %lld, \"guest_us\": %llu", argv[1],
           (long long)(clock_monotonic_us() - begun), (unsigned long long)hello.boot_us);
    if (rounds)
        measure(&session, rounds);
    printf("}\n");
    kill(monitor, SIGKILL);
    waitpid(monitor, NULL, 0);
    return 0;
}
