/* peer.c: guests from the start of their monitors on, timed from outside: the same agent, the same
 * protocol and the same clock, whichever monitor runs them.
 *
 *   bench-vmm-peer [--rounds N [--only EXCHANGE]] ours|qemu MONITOR... [/ ours|qemu MONITOR...]
 *
 * ours: descriptor 3 of MONITOR is the stream to the agent. qemu: the host's vsock is listened to.
 * Two are booted one after the other; in every round each has its turn with every exchange, the
 * other one idle, so that what else the machine does meets both. A line of JSON for each boot
 * (microseconds since the monitor's start, KiB of its own) and for each exchange as soon as it is
 * over (microseconds, or bytes a second): whatever happens then, they have been told. */
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
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    READ_BYTES = KIB(64), ROUNDS_MAX = 100, SIDES = 2, STREAM_FD = 3, PATIENCE_MS = 150000,
    PATIENCE_MAX_MS = 60000, /* with one that has booted */
    ECHOES = 17, SMALL_READS = 1024,
    PAUSE_MS_MAX = 8, /* between two that are not to come in step with what else goes on */
    GUEST_KIB = 100 * 1024, /* none but QEMU's guest has such a mapping; ours is in no dump */
};

struct session {
    int fd;
    uint32_t id;
    struct buffer from;
    uint64_t received; /* on channels 1 and 2 of this id */
    int patience_ms;
    bool started, over;
    bool silent; /* it said nothing for as long as that: nothing more is asked of it */
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

/* Waits as long as patience lasts: one that takes nothing is as silent as one that says nothing. */
static void send_all(struct session *session, struct buffer *out)
{
    struct fault fault;
    session->silent = session->silent
        || file_write(session->fd, buffer_span(out), "agent", &fault) != OK;
    buffer_free(out);
}

static void be_patient(struct session *session, int64_t ms)
{
    const struct timeval time = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
    session->patience_ms = (int)ms;
    if (setsockopt(session->fd, SOL_SOCKET, SO_SNDTIMEO, &time, sizeof time))
        fail("SO_SNDTIMEO");
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
    if (session->silent || poll(&ready, 1, session->patience_ms) <= 0) {
        session->silent = session->started = session->over = true;
        session->received++; /* whatever was awaited, it is over */
        return;
    }
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

/* Words between single spaces, but for what is given to a shell. */
static void begin(struct session *session, const char *command, bool shell, uint8_t flags)
{
    struct buffer payload = buffer_of(AGENT_FRAME_MAX), out = buffer_of(AGENT_FRAME_MAX + 4);
    struct agent_exec exec = {.user = SPAN("root"), .flags = flags};
    struct span *words = exec.arguments;
    if (shell) {
        *words++ = SPAN("sh");
        *words++ = SPAN("-c");
        *words++ = span_of_text(command);
    } else {
        while (*command) {
            size_t length = strcspn(command, " ");
            *words++ = (struct span){(const uint8_t *)command, length};
            command += length + (command[length] == ' ');
        }
    }
    exec.argument_count = (uint32_t)(words - exec.arguments);
    session->id++;
    session->received = 0;
    session->started = session->over = false;
    agent_exec_put(&payload, &exec);
    agent_frame_put(&out, AGENT_EXEC, session->id, buffer_span(&payload));
    buffer_free(&payload);
    send_all(session, &out);
}

/* ---- exchanges: microseconds each ---- */

static int64_t run(struct session *session, const char *command, bool shell)
{
    int64_t begun = clock_monotonic_us();
    begin(session, command, shell, 0);
    while (!session->over)
        turn(session, NULL);
    return clock_monotonic_us() - begun;
}

static int by_size(const void *left, const void *right)
{
    const int64_t *a = left, *b = right;
    return *a < *b ? -1 : *a > *b;
}

static int64_t command(struct session *session)
{
    return run(session, "/bin/true", false);
}

/* A byte to a command and back, so often, in ascending order of time. */
static void echoes(int64_t ret_times[ECHOES], struct session *session, const char *words,
                   bool shell, bool pauses)
{
    begin(session, words, shell, AGENT_EXEC_STDIN);
    while (!session->started)
        turn(session, NULL);
    for (int i = 0; i < ECHOES; i++) {
        struct buffer out = buffer_of(64);
        if (pauses)
            usleep((useconds_t)(1 + i * 5 % PAUSE_MS_MAX) * 1000 + (useconds_t)i * 37);
        uint64_t before = session->received;
        int64_t begun = clock_monotonic_us();
        agent_put_data(&out, session->id, AGENT_IN, SPAN("x"));
        send_all(session, &out);
        while (session->received == before)
            turn(session, NULL);
        ret_times[i] = clock_monotonic_us() - begun;
    }
    struct buffer out = buffer_of(64);
    agent_put_end(&out, session->id, AGENT_IN);
    send_all(session, &out);
    while (!session->over)
        turn(session, NULL);
    qsort(ret_times, ECHOES, sizeof *ret_times, by_size);
}

static int64_t echo(struct session *session)
{
    int64_t times[ECHOES];
    echoes(times, session, "/bin/cat", false, false);
    return times[ECHOES / 2];
}

/* The same while another process of the guest reads its disk as fast as it can. */
static void busy_echoes(int64_t ret_times[ECHOES], struct session *session)
{
    echoes(ret_times, session, "(while dd if=/dev/vdb of=/dev/null bs=1M iflag=direct; do :; done)"
           " </dev/null >/dev/null 2>&1 & loop=$!; cat; kill $loop $(pidof dd)", true, true);
}

static int64_t busy_echo(struct session *session)
{
    int64_t times[ECHOES];
    busy_echoes(times, session);
    return times[ECHOES / 2];
}

static int64_t busy_echo_worst(struct session *session)
{
    int64_t times[ECHOES];
    busy_echoes(times, session);
    return times[ECHOES - 1];
}

/* A command there and back, which costs little beside what it does. */
static int64_t output(struct session *session)
{
    return run(session, "/bin/dd if=/dev/zero bs=64k count=256", false);
}

static int64_t file_write_out(struct session *session)
{
    return run(session, "/bin/dd if=/dev/zero of=/var/f bs=64k count=128 conv=fsync", false);
}

static int64_t file_read_back(struct session *session)
{
    run(session, "echo 3 >/proc/sys/vm/drop_caches", true);
    return run(session, "/bin/dd if=/var/f of=/dev/null bs=64k", false);
}

static int64_t small_reads(struct session *session)
{
    return run(session, "/bin/dd if=/dev/vdb of=/dev/null bs=4k count=1024 iflag=direct", false)
         / SMALL_READS;
}

static const struct exchange {
    const char *name;
    int64_t (*once)(struct session *session);
    uint32_t bytes; /* not 0: a rate is what is told */
} exchanges[] = {
    {"exec_us", command, 0},
    {"echo_us", echo, 0},
    {"stream_bytes_per_second", output, MIB(16)},
    {"write_bytes_per_second", file_write_out, MIB(8)},
    {"read_bytes_per_second", file_read_back, MIB(8)},
    {"read_4k_us", small_reads, 0},
    {"busy_echo_us", busy_echo, 0},
    {"busy_echo_worst_us", busy_echo_worst, 0},
};

enum { EXCHANGES = sizeof exchanges / sizeof *exchanges };

struct side {
    const char *name;
    char **command; /* ends with NULL */
    struct session session;
    pid_t monitor;
    int64_t hello_us;
};

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
    signal(SIGPIPE, SIG_DFL);
    if (stream >= 0 && dup2(stream, STREAM_FD) < 0)
        _exit(126);
    int log = dup(STDERR_FILENO);
    dup2(log, STDOUT_FILENO); /* stdout is the figures' */
    execvp(command[0], command);
    _exit(127);
}

/* Private memory beyond the guest's; a program's own pages are everybody's. */
static long private_kib(pid_t monitor)
{
    char path[64], line[512];
    snprintf(path, sizeof path, "/proc/%d/smaps", monitor);
    FILE *smaps = fopen(path, "re");
    long total = 0, size = 0, anonymous = 0;
    while (smaps && fgets(line, sizeof line, smaps)) {
        if (strncmp(line, "Size:", 5) == 0)
            size = strtol(line + 5, NULL, 10);
        if (strncmp(line, "Anonymous:", 10) == 0)
            anonymous = strtol(line + 10, NULL, 10);
        if (strncmp(line, "VmFlags:", 8) == 0 && !strstr(line, " dd") && size < GUEST_KIB)
            total += anonymous;
    }
    if (smaps)
        fclose(smaps);
    return total;
}

static int accept_agent(int listener)
{
    struct pollfd ready = {.fd = listener, .events = POLLIN};
    if (poll(&ready, 1, PATIENCE_MS) <= 0)
        fail("the guest does not dial");
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    close(listener);
    return fd;
}

static void boot(struct side *side)
{
    struct session *session = &side->session;
    struct agent_hello hello = {0};
    bool qemu = strcmp(side->name, "qemu") == 0;
    int listener = -1, ends[2] = {-1, -1};
    *session = (struct session){.fd = -1, .from = buffer_of(MIB(1)), .patience_ms = PATIENCE_MS};
    if (qemu)
        listener = listen_vsock();
    else if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends)
             || fcntl(ends[1], F_SETFL, O_NONBLOCK))
        fail("socketpair");
    int64_t begun = clock_monotonic_us();
    side->monitor = start_monitor(side->command, ends[1]);
    cleanup_close(&ends[1]);
    session->fd = qemu ? accept_agent(listener) : ends[0];
    if (session->fd < 0)
        fail("accept");
    while (!session->over)
        turn(session, &hello);
    if (session->silent)
        fail("the guest is silent");
    side->hello_us = clock_monotonic_us() - begun;
    int64_t ten_boots_ms = side->hello_us / 100;
    be_patient(session, ten_boots_ms < PATIENCE_MAX_MS ? ten_boots_ms : PATIENCE_MAX_MS);
    printf("{\"monitor\": \"%s\", \"hello_us\": %lld, \"guest_us\": %llu, \"private_kib\": %ld}\n",
           side->name, (long long)side->hello_us, (unsigned long long)hello.boot_us,
           private_kib(side->monitor));
    fflush(stdout);
}

static void sample(struct side *side, const struct exchange *exchange)
{
    int64_t took = side->session.silent ? 0 : exchange->once(&side->session);
    printf("{\"monitor\": \"%s\", ", side->name);
    if (side->session.silent)
        printf("\"silent\": \"%s\"}\n", exchange->name);
    else
        printf("\"%s\": %.0f}\n", exchange->name,
               exchange->bytes ? exchange->bytes * 1e6 / (double)(took ? took : 1) : (double)took);
    fflush(stdout);
}

static void measure(struct side *sides, int count, int rounds, const char *only)
{
    for (int round = 0; round < rounds; round++)
        for (int i = 0; i < EXCHANGES; i++)
            for (int turn_of = 0; turn_of < count; turn_of++)
                if (!only || strcmp(only, exchanges[i].name) == 0)
                    sample(&sides[(round + turn_of) % count], &exchanges[i]);
}

/* The words up to one that is "/". Returns how many were taken. */
static int parse_side(struct side *side, char **words, int count)
{
    int end = 0;
    while (end < count && strcmp(words[end], "/") != 0)
        end++;
    bool known = end >= 2 && (strcmp(words[0], "ours") == 0 || strcmp(words[0], "qemu") == 0);
    if (!known)
        return 0;
    side->name = words[0];
    side->command = words + 1;
    if (end < count)
        words[end++] = NULL;
    return end;
}

int main(int argc, char **argv)
{
    static struct side sides[SIDES];
    const char *only = NULL;
    int rounds = 0, at = 1, count = 0;
    if (argc > 2 && strcmp(argv[1], "--rounds") == 0) {
        rounds = (int)strtol(argv[2], NULL, 10);
        at = 3;
    }
    if (argc > at + 1 && strcmp(argv[at], "--only") == 0) {
        only = argv[at + 1];
        at += 2;
    }
    for (int taken = 1; at < argc && taken && count < SIDES; at += taken)
        count += (taken = parse_side(&sides[count], argv + at, argc - at)) > 0;
    if (at != argc || count == 0 || rounds < 0 || rounds > ROUNDS_MAX) {
        fprintf(stderr, "bench-vmm-peer [--rounds N [--only EXCHANGE]] ours|qemu MONITOR... "
                "[/ another]\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN); /* a stream that ended is told as one that is silent */
    for (int i = 0; i < count; i++)
        boot(&sides[i]);
    measure(sides, count, rounds, only);
    for (int i = 0; i < count; i++) {
        kill(sides[i].monitor, SIGKILL);
        waitpid(sides[i].monitor, NULL, 0);
    }
    return 0;
}
