/* Both ends of the agent's protocol. The first byte chooses: even: the rest is what a guest says,
 * read as the host reads it; odd: it is what a host says to a session of the real agent, whose
 * answers must all be frames. No command is run there (a child is a pid that does not exist), no
 * port is dialled, and every path leads below a directory of the fuzzer's own. */
#define _GNU_SOURCE
#include "fuzz.h"

#include "agent/agent.h"
#include "agent/child.h"
#include "agent/path.h"
#include "agent/processes.h"
#include "agent/tree.h"
#include "base/cleanup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { TURNS = 12, CLEAN_EVERY = 64, NOBODY = 0x3fffff00, NOBODIES = 256 };

static char root_path[] = "/tmp/fuzz-agent-XXXXXX";
static int root = -1;
static uint32_t children; /* begun in this run */

/* ---- what must not happen here (linked with --wrap) ---- */

status __wrap_child_start(struct child *ret, const struct child_plan *plan, struct fault *fault);
bool __wrap_processes_signal(struct processes_left *ret, pid_t above, int number,
                             const pid_t *except, size_t except_count);
int __wrap_path_openat(const char *path, int flags);
int __wrap_kill(pid_t pid, int number);
pid_t __wrap_waitpid(pid_t pid, int *how, int options);
int __wrap_connect(int fd, const struct sockaddr *address, socklen_t length);
int __wrap_clock_settime(clockid_t clock, const struct timespec *time);
int __wrap_reboot(int how);

/* Some children begin, some fail, some never say anything. */
status __wrap_child_start(struct child *ret, const struct child_plan *plan, struct fault *fault)
{
    int report[2], line[2];
    CHECK(plan->arguments[0] && plan->user && plan->in >= 0 && plan->out >= 0);
    if (pipe2(report, O_CLOEXEC))
        return errno_status(errno, "pipe", fault);
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, line) == 0);
    uint32_t number = children++ % NOBODIES;
    struct child_report words = {.pid = NOBODY + (pid_t)number};
    if (plan->arguments[0][0] != '-')
        CHECK(write(report[1], &words, sizeof words) == sizeof words);
    words.error = plan->arguments[0][0] == '!' ? ENOENT : 0;
    if (words.error)
        CHECK(write(report[1], &words, sizeof words) == sizeof words);
    close(report[1]);
    close(line[1]);
    if (write(plan->out, root_path, sizeof root_path) < 0)
        CHECK(errno == EAGAIN || errno == EIO);
    *ret = (struct child){.pid = words.pid, .report = report[0], .line = line[0]};
    return OK;
}

bool __wrap_processes_signal(struct processes_left *ret, pid_t above, int number,
                             const pid_t *except, size_t except_count)
{
    (void)above;
    (void)number;
    (void)except;
    (void)except_count;
    *ret = (struct processes_left){0};
    return true;
}

int __wrap_path_openat(const char *path, int flags)
{
    struct open_how how = {.flags = (uint64_t)(unsigned int)flags | O_CLOEXEC | O_NOCTTY,
                           .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
    return (int)syscall(SYS_openat2, root, path, &how, sizeof how);
}

int __wrap_kill(pid_t pid, int number)
{
    (void)number;
    CHECK(pid >= NOBODY || pid <= -NOBODY);
    return 0;
}

pid_t __wrap_waitpid(pid_t pid, int *how, int options)
{
    (void)pid;
    (void)how;
    (void)options;
    errno = ECHILD;
    return -1;
}

int __wrap_connect(int fd, const struct sockaddr *address, socklen_t length)
{
    (void)fd;
    (void)address;
    (void)length;
    errno = ECONNREFUSED;
    return -1;
}

int __wrap_clock_settime(clockid_t clock, const struct timespec *time)
{
    (void)clock;
    (void)time;
    abort(); /* never in a container */
}

int __wrap_reboot(int how)
{
    (void)how;
    abort();
}

/* ---- a directory of its own ---- */

static void empty(int parent, const char *name)
{
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *directory = fd < 0 ? NULL : fdopendir(fd);
    CHECK(directory != NULL);
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (unlinkat(fd, entry->d_name, 0) == 0)
            continue;
        fchmodat(fd, entry->d_name, 0700, 0);
        empty(fd, entry->d_name);
        unlinkat(fd, entry->d_name, AT_REMOVEDIR);
    }
    closedir(directory);
}

static void remove_root(void)
{
    empty(AT_FDCWD, root_path);
    rmdir(root_path);
}

static void fill_root(void)
{
    empty(root, ".");
    CHECK(mkdirat(root, "d", 0755) == 0 && mkdirat(root, "d/e", 0755) == 0);
    CHECK(symlinkat("/d", root, "l") == 0);
    int fd = openat(root, "f", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    CHECK(fd >= 0 && write(fd, root_path, sizeof root_path) > 0);
    close(fd);
}

static void make_root(void)
{
    if (root >= 0)
        return;
    CHECK(mkdtemp(root_path) != NULL);
    root = open(root_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CHECK(root >= 0);
    atexit(remove_root);
    signal(SIGPIPE, SIG_IGN); /* as init_protect has it */
    fill_root();
}

/* ---- the agent's session ---- */

static void check_answers(int fd, struct buffer *in)
{
    struct fault fault;
    for (;;) {
        uint8_t bytes[65536];
        ssize_t count = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT);
        if (count <= 0)
            break;
        buffer_put(in, (struct span){bytes, (size_t)count});
        CHECK(!in->failed);
        struct agent_frame frame;
        size_t taken;
        status done;
        while ((done = agent_frame_get(&frame, &taken, buffer_span(in), &fault)) == OK)
            buffer_consume(in, taken);
        CHECK(done == AGAIN);
    }
}

static void end_children(struct agent *agent, uint32_t turn)
{
    for (uint32_t i = turn % 3; turn > 3 && i < children && i < NOBODIES; i += 3)
        exec_reaped(agent, NOBODY + (pid_t)i, 0, 1, 1);
}

static void serve(struct span input)
{
    static struct trees trees;
    struct fault fault;
    struct agent agent = {.trees = &trees, .connection = -1, .signals = -1};
    struct buffer in = buffer_of(1 << 20);
    int ends[2];
    make_root();
    children = 0;
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
    CHECK(trees_open(&trees, false, &fault) == OK);
    CHECK(loop_create(&agent.loop, &fault) == OK);
    CHECK(session_open(&agent, ends[1], &fault) == OK);
    for (uint32_t turn = 0; turn < TURNS && !agent.broken && !agent.shutdown; turn++) {
        size_t length = input.length < 4096 ? input.length : 4096;
        ssize_t sent = length ? send(ends[0], input.data, length, MSG_NOSIGNAL) : 0;
        input = sent > 0 ? (struct span){input.data + sent, input.length - (size_t)sent} : input;
        CHECK(loop_turn(agent.loop, 0, &fault) == OK);
        end_children(&agent, turn);
        session_turn(&agent);
        check_answers(ends[0], &in);
    }
    session_close(&agent);
    agent.loop = loop_free(agent.loop);
    close(ends[0]);
    buffer_free(&in);
}

/* ---- the host's reading ---- */

static void read_listing(struct span result)
{
    struct fault fault;
    struct cursor cursor = cursor_over(result);
    struct agent_entry entry;
    struct span name;
    uint16_t count = 0;
    if (cursor_u16(&count, &cursor, &fault) != OK)
        return;
    for (; count > 0; count--) {
        if (agent_name_get(&name, &cursor, &fault) != OK
            || agent_entry_get(&entry, &cursor, &fault) != OK)
            return;
        CHECK(name.length > 0 && name.length <= 255 && entry.mode <= 07777);
    }
}

static void read_frame(const struct agent_frame *frame)
{
    static struct agent_exec exec;
    struct fault fault;
    struct agent_piece piece;
    struct agent_done done;
    struct agent_hello hello;
    struct agent_event event;
    struct agent_metrics metrics;
    struct agent_exited exited;
    if (agent_piece_get(&piece, frame, &fault) == OK)
        CHECK(piece.channel < AGENT_CHANNELS && piece.bytes.length <= AGENT_DATA_MAX);
    if (agent_hello_get(&hello, frame->payload, &fault) == OK)
        CHECK(span_is_plain_text(span_of_text(hello.kernel)));
    if (agent_exited_get(&exited, frame->payload, &fault) == OK)
        CHECK(exited.how >= AGENT_EXIT_CODE && exited.how <= AGENT_EXIT_MEMORY);
    if (agent_event_get(&event, frame->payload, &fault) == OK)
        CHECK(event.path.length < AGENT_PATH_MAX);
    if (agent_exec_get(&exec, frame->payload, &fault) == OK)
        CHECK(exec.argument_count > 0 && exec.argument_count <= AGENT_ARGUMENTS_MAX);
    (void)!agent_metrics_get(&metrics, frame->payload, &fault);
    if (agent_done_get(&done, frame->payload, &fault) != OK)
        return;
    CHECK(span_is_plain_text(span_of_text(done.detail)) && done.code < STATUS_COUNT);
    read_listing(done.result);
}

static void read_all(struct span input)
{
    struct fault fault;
    struct agent_frame frame;
    size_t taken;
    while (agent_frame_get(&frame, &taken, input, &fault) == OK) {
        CHECK(taken >= AGENT_HEAD_BYTES && taken <= input.length);
        CHECK((frame.type == AGENT_HELLO) == (frame.id == 0));
        CHECK(frame.payload.length == taken - AGENT_HEAD_BYTES);
        uint8_t storage[AGENT_FRAME_MAX + 8];
        struct buffer again = buffer_over(storage, sizeof storage);
        agent_frame_put(&again, frame.type, frame.id, frame.payload);
        CHECK(span_equal(buffer_span(&again), (struct span){input.data, taken}));
        read_frame(&frame);
        input = (struct span){input.data + taken, input.length - taken};
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint32_t runs;
    if (size == 0)
        return 0;
    struct span input = {data + 1, size - 1};
    if (data[0] % 2 == 0) {
        read_all(input);
        return 0;
    }
    serve(input);
    if (++runs % CLEAN_EVERY == 0)
        fill_root();
    return 0;
}
