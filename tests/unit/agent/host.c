#define _GNU_SOURCE
#include "host.h"

#include "wire/sandbox.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { PATIENCE_MS = 30 * 1000, IN_MAX = 1024 * 1024 };

static struct fault fault;

bool host_is_guest(void)
{
    return getenv("BULKHEAD_AGENT_GUEST") != NULL;
}

/* Asked before a fork: what fails in the child would go on there with the tests. */
static const char *program(void)
{
    const char *path = getenv("BULKHEAD_AGENT");
    assert_non_null(path);
    return path;
}

static void expect_hello(struct host *host)
{
    struct agent_hello hello;
    struct agent_frame frame = host_expect(host, AGENT_HELLO, 0);
    assert_int_equal(agent_hello_get(&hello, frame.payload, &fault), OK);
}

/* ---- as a guest ---- */

static int listener = -1;

static void listen_for_guests(void)
{
    const struct sockaddr_vm any = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY,
                                    .svm_port = SANDBOX_AGENT_PORT};
    if (listener >= 0)
        return;
    listener = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listener, (const struct sockaddr *)&any, sizeof any), 0);
    assert_int_equal(listen(listener, 4), 0);
}

static void answer_guest(struct host *host)
{
    struct pollfd wait = {.fd = listener, .events = POLLIN};
    assert_int_equal(poll(&wait, 1, PATIENCE_MS), 1);
    host->fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    host->in = buffer_of(IN_MAX);
    host->taken = 0;
    assert_true(host->fd >= 0);
    expect_hello(host);
}

static void start_guest(struct host *host)
{
    const char *path = program();
    listen_for_guests();
    host->agent = (pid_t)syscall(SYS_clone, CLONE_NEWPID | CLONE_NEWNS | SIGCHLD, NULL, NULL, NULL,
                                 0);
    if (host->agent == 0) {
        if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL))
            _exit(125);
        execl(path, "/init", NULL);
        _exit(126);
    }
    answer_guest(host);
}

static int stop_guest(struct host *host)
{
    answer_guest(host);
    assert_int_equal(kill(host->agent, SIGKILL), 0);
    assert_int_equal(waitpid(host->agent, NULL, 0), host->agent);
    close(host->fd); /* not before: it would dial once more */
    buffer_free(&host->in);
    return 0;
}

/* ---- as an ordinary process ---- */

static void start_process(struct host *host)
{
    int ends[2];
    char number[16];
    const char *path = program();
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    host->fd = ends[0];
    host->agent = fork();
    if (host->agent == 0) {
        int end = fcntl(ends[1], F_DUPFD, 10);
        snprintf(number, sizeof number, "%d", end);
        execl(path, "bulkhead-agent", number, NULL);
        _exit(126);
    }
    close(ends[1]);
    expect_hello(host);
}

void host_start(struct host *host)
{
    *host = (struct host){.fd = -1, .in = buffer_of(IN_MAX)};
    if (host_is_guest())
        start_guest(host);
    else
        start_process(host);
}

int host_stop(struct host *host)
{
    int how;
    close(host->fd);
    buffer_free(&host->in);
    if (host_is_guest())
        return stop_guest(host);
    assert_int_equal(waitpid(host->agent, &how, 0), host->agent);
    assert_true(WIFEXITED(how));
    return WEXITSTATUS(how);
}

void host_send(struct host *host, struct span bytes)
{
    while (bytes.length > 0) {
        ssize_t count = send(host->fd, bytes.data, bytes.length, MSG_NOSIGNAL);
        if (count < 0 && errno == EPIPE)
            return; /* it hung up: what it says to that is the test's to judge */
        assert_true(count > 0);
        bytes = (struct span){bytes.data + count, bytes.length - (size_t)count};
    }
}

static void send_all(struct host *host, struct buffer *out)
{
    assert_false(out->failed);
    host_send(host, buffer_span(out));
    buffer_free(out);
}

void host_request(struct host *host, uint8_t type, uint32_t id, struct span payload)
{
    struct buffer out = buffer_of(AGENT_FRAME_MAX + 64);
    agent_frame_put(&out, type, id, payload);
    send_all(host, &out);
}

void host_put(struct host *host, uint32_t id, enum agent_channel channel, struct span bytes)
{
    struct buffer out = buffer_of(AGENT_FRAME_MAX + 64);
    agent_put_data(&out, id, channel, bytes);
    send_all(host, &out);
}

void host_end(struct host *host, uint32_t id, enum agent_channel channel)
{
    struct buffer out = buffer_of(64);
    agent_put_end(&out, id, channel);
    send_all(host, &out);
}

void host_credit(struct host *host, uint32_t id, enum agent_channel channel, uint32_t bytes)
{
    struct buffer out = buffer_of(64);
    agent_put_credit(&out, id, channel, bytes);
    send_all(host, &out);
}

void host_cancel(struct host *host, uint32_t id)
{
    host_request(host, AGENT_CANCEL, id, (struct span){0});
}

void host_signal(struct host *host, uint32_t id, uint8_t number)
{
    host_request(host, AGENT_SIGNAL, id, (struct span){&number, 1});
}

struct agent_frame host_next(struct host *host)
{
    struct agent_frame frame = {0};
    buffer_consume(&host->in, host->taken);
    host->taken = 0;
    for (;;) {
        status done = agent_frame_get(&frame, &host->taken, buffer_span(&host->in), &fault);
        if (done == OK)
            return frame;
        assert_int_equal(done, AGAIN);
        struct pollfd wait = {.fd = host->fd, .events = POLLIN};
        assert_int_equal(poll(&wait, 1, PATIENCE_MS), 1);
        uint8_t *room = buffer_reserve(&host->in, 64 * 1024);
        assert_non_null(room);
        ssize_t count = recv(host->fd, room, 64 * 1024, 0);
        if (count <= 0)
            return (struct agent_frame){0};
        buffer_advance(&host->in, (size_t)count);
    }
}

struct agent_frame host_expect(struct host *host, uint8_t type, uint32_t id)
{
    struct agent_frame frame = host_next(host);
    if (frame.type == AGENT_DONE && type != AGENT_DONE) {
        struct agent_done done;
        assert_int_equal(agent_done_get(&done, frame.payload, &fault), OK);
        fail_msg("done instead: %s", done.detail);
    }
    assert_int_equal(frame.type, type);
    assert_int_equal(frame.id, id);
    return frame;
}

bool host_is_quiet(struct host *host, int timeout_ms)
{
    struct pollfd wait = {.fd = host->fd, .events = POLLIN};
    return host->in.length == host->taken && poll(&wait, 1, timeout_ms) == 0;
}

struct agent_done host_done(struct host *host, uint32_t id)
{
    struct agent_done done;
    struct agent_frame frame = host_expect(host, AGENT_DONE, id);
    assert_int_equal(agent_done_get(&done, frame.payload, &fault), OK);
    return done;
}

status host_ask(struct host *host, uint8_t type, uint32_t id, struct span payload)
{
    host_request(host, type, id, payload);
    return host_done(host, id).code;
}

bool host_has_ended(struct host *host)
{
    return host_next(host).type == 0;
}

/* ---- commands ---- */

void host_exec(struct host *host, uint32_t id, const struct agent_exec *exec)
{
    struct buffer payload = buffer_of(AGENT_FRAME_MAX);
    agent_exec_put(&payload, exec);
    host_request(host, AGENT_EXEC, id, buffer_span(&payload));
    buffer_free(&payload);
}

struct agent_exec host_shell(const char *script)
{
    return (struct agent_exec){.arguments = {SPAN("/bin/sh"), SPAN("-c"), span_of_text(script)},
                               .argument_count = 3};
}

static void take_piece(struct host *host, const struct agent_frame *frame, struct outcome *ret,
                       uint32_t ended[AGENT_CHANNELS])
{
    struct agent_piece piece;
    assert_int_equal(agent_piece_get(&piece, frame, &fault), OK);
    if (frame->type == AGENT_CREDIT) {
        assert_int_equal(piece.channel, AGENT_IN);
        return;
    }
    assert_int_not_equal(piece.channel, AGENT_IN);
    assert_int_equal(ended[piece.channel], 0);
    if (frame->type == AGENT_END) {
        ended[piece.channel]++;
        return;
    }
    buffer_put(piece.channel == AGENT_OUT ? &ret->out : &ret->error, piece.bytes);
    host_credit(host, frame->id, piece.channel, (uint32_t)piece.bytes.length);
}

static void take_failure(const struct agent_frame *frame, struct outcome *ret)
{
    struct agent_done done;
    assert_int_equal(agent_done_get(&done, frame->payload, &fault), OK);
    assert_int_not_equal(done.code, OK);
    ret->failed = done.code;
    memcpy(ret->detail, done.detail, sizeof ret->detail);
}

void host_gather(struct host *host, uint32_t id, struct outcome *ret)
{
    uint32_t ended[AGENT_CHANNELS] = {0};
    *ret = (struct outcome){.out = buffer_of(256 * 1024 * 1024), .error = buffer_of(1024 * 1024)};
    for (;;) {
        struct agent_frame frame = host_next(host);
        assert_int_equal(frame.id, id);
        if (frame.type == AGENT_STARTED) {
            struct cursor cursor = cursor_over(frame.payload);
            assert_int_equal(cursor_u32(&ret->pid, &cursor, &fault), OK);
        } else if (frame.type >= AGENT_DATA && frame.type <= AGENT_CREDIT) {
            take_piece(host, &frame, ret, ended);
        } else if (frame.type == AGENT_DONE) {
            take_failure(&frame, ret);
            return;
        } else {
            assert_int_equal(frame.type, AGENT_EXITED);
            assert_int_equal(ended[AGENT_OUT], 1);
            assert_int_equal(ended[AGENT_ERROR], 1);
            assert_int_equal(agent_exited_get(&ret->exited, frame.payload, &fault), OK);
            return;
        }
    }
}

void host_run(struct host *host, const struct agent_exec *exec, struct outcome *ret)
{
    host_exec(host, 1, exec);
    host_gather(host, 1, ret);
}

void outcome_free(struct outcome *outcome)
{
    buffer_free(&outcome->out);
    buffer_free(&outcome->error);
}

bool outcome_says(const struct outcome *outcome, const char *out)
{
    if (span_is(buffer_span(&outcome->out), out))
        return true;
    print_message("not \"%s\" but \"%.*s\"\n", out, SPAN_ARG(buffer_span(&outcome->out)));
    return false;
}

/* ---- processes ---- */

static bool is_of_number(char byte)
{
    return byte == '.' || (byte >= '0' && byte <= '9');
}

/* As a whole number: those of other tests, which run beside this one, may have ours within. */
static bool has_number(const char *text, size_t length, struct span word)
{
    const char *end = text + length;
    for (const char *at = text;
         (at = memmem(at, (size_t)(end - at), word.data, word.length)) != NULL; at++)
        if ((at == text || !is_of_number(at[-1])) && !is_of_number(at[word.length]))
            return true;
    return false;
}

static bool holds(const char *pid, struct span word)
{
    char path[300], bytes[4096];
    snprintf(path, sizeof path, "/proc/%s/cmdline", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? 0 : read(fd, bytes, sizeof bytes - 1);
    if (fd >= 0)
        close(fd);
    if (length <= 0)
        return false;
    bytes[length] = '\0';
    return has_number(bytes, (size_t)length, word);
}

int processes_with(const char *word)
{
    int count = 0;
    DIR *proc = opendir("/proc");
    assert_non_null(proc);
    for (struct dirent *entry; (entry = readdir(proc)) != NULL;)
        if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9')
            count += holds(entry->d_name, span_of_text(word));
    closedir(proc);
    return count;
}

void wait_for_no(const char *word)
{
    for (int i = 0; i < PATIENCE_MS / 10 && processes_with(word) > 0; i++)
        usleep(10 * 1000);
    assert_int_equal(processes_with(word), 0);
}
