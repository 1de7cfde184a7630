#define _GNU_SOURCE
/* `bulkhead sandbox run` from its line to its exit status, with the real agent as an ordinary
 * process at the other end of the stream. The test plays the node: it answers on admin.sock and
 * starts the agent; or it answers as a node whose sandbox ends badly, or whose guest is hostile.
 * Arguments: the executables of the command line and of the agent. */
#include "base/buffer.h"
#include "base/cleanup.h"
#include "wire/agent.h"
#include "wire/messages.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <utmp.h>
#include <unistd.h>

#include <cmocka.h>

enum { PATIENCE_MS = 20000, WORDS_MAX = 32, OUTPUT_MAX = 80 * 1024 * 1024 };

static const char *program, *agent_program;

struct script { /* what the node does */
    const char *refusal;  /* of sandbox.run */
    struct span said;     /* by a guest of ours in the agent's place, which then goes away */
    const char *end;      /* that sandbox.wait tells */
    bool console;         /* a second descriptor is due: says so in it, also before a refusal */
};

struct world {
    char path[64];
    pid_t node;
    int log; /* arguments of each call, as they came */
};

/* ---- the node ---- */

static void answer(int client, uint32_t id, status code, const char *detail, const char *json)
{
    uint8_t storage[1024];
    struct buffer body = buffer_over(storage, sizeof storage);
    struct fault fault;
    reply_put_head(&body, code, detail);
    buffer_put_text_field(&body, json);
    if (ipc_send_wait(client, MESSAGE_ADMIN_RESULT, id, buffer_span(&body), NULL, 0, PATIENCE_MS,
                      &fault) != OK)
        _exit(10);
}

static pid_t start_guest(const struct script *script, int stream)
{
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (script->said.data) {
        for (size_t at = 0; at < script->said.length;) {
            ssize_t sent = send(stream, script->said.data + at, script->said.length - at,
                                MSG_NOSIGNAL);
            if (sent <= 0)
                break;
            at += (size_t)sent;
        }
        shutdown(stream, SHUT_WR);
        char byte;
        while (recv(stream, &byte, 1, 0) > 0)
            ;
        _exit(0);
    }
    int null = open("/dev/null", O_WRONLY);
    dup2(stream, 0);
    dup2(null, 1);
    execl(agent_program, agent_program, "--stream", "0", (char *)NULL);
    _exit(127);
}

static void serve_call(const struct script *script, int client, int log)
{
    static uint8_t storage[IPC_PACKET_MAX];
    static pid_t guest;
    struct ipc_message message;
    struct fault fault;
    struct span arguments;
    char verb[64], json[256];
    if (ipc_await(&message, client, storage, PATIENCE_MS, &fault) != OK)
        return;
    struct cursor body = cursor_over(message.body);
    if (cursor_text(verb, sizeof verb, &body, "verb", &fault) != OK
        || cursor_field(&arguments, &body, 16384, "arguments", &fault) != OK)
        _exit(11);
    if (write(log, arguments.data, arguments.length) < 0)
        _exit(12);
    if (strcmp(verb, "sandbox.run") == 0 && message.fd_count != (script->console ? 2 : 1))
        _exit(14);
    if (script->console && message.fd_count == 2 && script->end
        && (ftruncate(message.fds[1], 0) || write(message.fds[1], "booted\n", 7) != 7))
        _exit(15);
    if (strcmp(verb, "sandbox.run") == 0 && script->refusal) {
        answer(client, message.id, FORBIDDEN_POLICY, script->refusal, "");
    } else if (strcmp(verb, "sandbox.run") == 0) {
        guest = start_guest(script, message.fds[0]);
        ipc_message_close(&message);
        answer(client, message.id, OK, "", "{\"id\":\"00000000000000ab\",\"tier\":\"container\","
                                           "\"image\":\"base\"}");
    } else {
        if (guest > 0)
            waitpid(guest, NULL, 0);
        snprintf(json, sizeof json, "{\"id\":\"00000000000000ab\",\"end\":\"%s\",\"cpu_seconds\":"
                 "0.5,\"peak_kib\":100,\"wall_seconds\":1.5,\"detail\":\"why \x1b it did\"}",
                 script->end ? script->end : "closed");
        json[strcspn(json, "\x1b")] = '?';
        answer(client, message.id, OK, "", json);
    }
    ipc_message_close(&message);
}

static void begin_node(struct world *world, const struct script *script)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(world->path, sizeof world->path, "/tmp/bulkhead-run-XXXXXX");
    assert_non_null(mkdtemp(world->path));
    snprintf(address.sun_path, sizeof address.sun_path, "%s/run", world->path);
    assert_int_equal(mkdir(address.sun_path, 0700), 0);
    snprintf(address.sun_path, sizeof address.sun_path, "%s/log", world->path);
    world->log = open(address.sun_path, O_RDWR | O_CREAT | O_CLOEXEC | O_APPEND, 0600);
    snprintf(address.sun_path, sizeof address.sun_path, "%s/run/admin.sock", world->path);
    int listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listener, (const struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(listener, 8), 0);
    world->node = fork();
    if (world->node == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;) {
            int client = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
            if (client < 0)
                _exit(13);
            serve_call(script, client, world->log);
            close(client);
        }
    }
    close(listener);
}

static void end_node(struct world *world)
{
    char path[128];
    static const char *const names[] = {"run/admin.sock", "run", "log", "report", "console", ""};
    kill(world->node, SIGKILL);
    waitpid(world->node, NULL, 0);
    close(world->log);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", world->path, names[i]);
        (void)remove(path);
    }
}

/* ---- the command line ---- */

struct ran {
    pid_t pid;
    int in, out, err; /* our ends; -1: none */
    int status;       /* as a shell tells it */
    struct buffer output, errors;
};

static void close_end(int *fd)
{
    cleanup_close(fd);
}

static void exec_line(const struct world *world, const char *const *line)
{
    const char *words[WORDS_MAX] = {program, "--data", world->path, "sandbox", "run"};
    size_t count = 5;
    while (*line && count < WORDS_MAX - 1)
        words[count++] = *line++;
    execv(program, (char *const *)(uintptr_t)words);
    _exit(127);
}

static void start(struct ran *ran, const struct world *world, const char *const *line)
{
    int in[2], out[2], err[2];
    assert_int_equal(pipe2(in, O_CLOEXEC) | pipe2(out, O_CLOEXEC) | pipe2(err, O_CLOEXEC), 0);
    *ran = (struct ran){.in = in[1], .out = out[0], .err = err[0],
                        .output = buffer_of(OUTPUT_MAX), .errors = buffer_of(OUTPUT_MAX)};
    ran->pid = fork();
    if (ran->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(in[0], 0);
        dup2(out[1], 1);
        dup2(err[1], 2);
        exec_line(world, line);
    }
    close(in[0]);
    close(out[1]);
    close(err[1]);
}

static void take(struct buffer *out, int *fd)
{
    uint8_t *room = buffer_reserve(out, 65536);
    assert_non_null(room);
    ssize_t got = read(*fd, room, 65536);
    assert_true(got >= 0 || errno == EINTR);
    if (got == 0)
        close_end(fd);
    else if (got > 0)
        buffer_advance(out, (size_t)got);
}

static void feed(struct ran *ran, struct span *input)
{
    ssize_t sent = input->length ? write(ran->in, input->data, input->length < 4096
                                                                   ? input->length : 4096) : 0;
    if (sent > 0)
        *input = (struct span){input->data + sent, input->length - (size_t)sent};
    if (sent < 0 || input->length == 0)
        close_end(&ran->in);
}

static void await(struct ran *ran)
{
    int how;
    assert_int_equal(waitpid(ran->pid, &how, 0), ran->pid);
    ran->status = WIFEXITED(how) ? WEXITSTATUS(how) : 128 + WTERMSIG(how);
}

static void finish(struct ran *ran, struct span input)
{
    signal(SIGPIPE, SIG_IGN);
    while (ran->in >= 0 || ran->out >= 0 || ran->err >= 0) {
        struct pollfd polled[] = {{.fd = ran->in, .events = POLLOUT},
                                  {.fd = ran->out, .events = POLLIN},
                                  {.fd = ran->err, .events = POLLIN}};
        assert_true(poll(polled, 3, PATIENCE_MS) > 0);
        if (polled[0].revents)
            feed(ran, &input);
        if (polled[1].revents)
            take(&ran->output, &ran->out);
        if (polled[2].revents)
            take(&ran->errors, &ran->err);
    }
    await(ran);
    buffer_put_u8(&ran->errors, 0);
}

static void wait_for(struct ran *ran, const char *text)
{
    while (!ran->output.length
           || !memmem(ran->output.data, ran->output.length, text, strlen(text))) {
        struct pollfd polled = {.fd = ran->out, .events = POLLIN};
        assert_true(poll(&polled, 1, PATIENCE_MS) > 0);
        take(&ran->output, &ran->out);
        assert_true(ran->out >= 0);
    }
}

static void release(struct ran *ran)
{
    close_end(&ran->in);
    close_end(&ran->out);
    close_end(&ran->err);
    buffer_free(&ran->output);
    buffer_free(&ran->errors);
}

#define LINE(...) ((const char *const[]){__VA_ARGS__, NULL})
#define SHELL(text) LINE("--", "/bin/sh", "-c", text)

static void run(struct ran *ran, const struct script *script, const char *const *line,
                struct span input)
{
    struct world world;
    begin_node(&world, script);
    start(ran, &world, line);
    finish(ran, input);
    end_node(&world);
}

static void expect(const struct script *script, const char *const *line, int code,
                   const char *output, const char *errors)
{
    struct ran ran;
    run(&ran, script, line, (struct span){0});
    if (ran.status != code || !span_is(buffer_span(&ran.output), output)
        || !strstr((const char *)ran.errors.data, errors) || (!*errors && ran.errors.length > 1))
        fail_msg("status %d, output \"%.*s\", errors \"%s\"", ran.status,
                 (int)ran.output.length, (const char *)ran.output.data,
                 (const char *)ran.errors.data);
    release(&ran);
}

/* ---- with the real agent ---- */

static const struct script honest;

static void the_exit_status_is_the_command_s(void **state)
{
    (void)state;
    expect(&honest, SHELL("exit 0"), 0, "", "");
    expect(&honest, SHELL("exit 3"), 3, "", "");
    expect(&honest, SHELL("exit 255"), 255, "", "");
    expect(&honest, SHELL("kill -9 $$"), 137, "", "");
    expect(&honest, SHELL("kill -15 $$"), 143, "", "");
    expect(&honest, SHELL("echo out; echo err >&2"), 0, "out\n", "err\n");
    expect(&honest, LINE("--", "/no/such/program"), 125, "", "could not be started");
    expect(&honest, LINE("--timeout", "1s", "--", "/bin/sleep", "600"), 124, "", "");
    expect(&honest, LINE("--env", "COLOUR=deep blue", "--workdir", "/usr", "--", "/bin/sh", "-c",
                         "echo $COLOUR; pwd"), 0, "deep blue\n/usr\n", "");
}

static uint8_t byte_at(size_t at)
{
    return (uint8_t)(at * 2654435761u >> 13);
}

static void sixty_four_mebibytes_pass_both_ways_unchanged(void **state)
{
    (void)state;
    enum { BYTES = 64 * 1024 * 1024 };
    struct ran ran;
    uint8_t *bytes = malloc(BYTES);
    assert_non_null(bytes);
    for (size_t i = 0; i < BYTES; i++)
        bytes[i] = byte_at(i);
    run(&ran, &honest, LINE("--timeout", "5m", "--", "/bin/cat"), (struct span){bytes, BYTES});
    assert_string_equal((const char *)ran.errors.data, "");
    assert_int_equal(ran.status, 0);
    assert_true(span_equal(buffer_span(&ran.output), (struct span){bytes, BYTES}));
    release(&ran);
    free(bytes);
}

/* Nobody reads one stream; the other is not held up by it. */
static void one_stream_does_not_stop_another(void **state)
{
    (void)state;
    struct world world;
    struct ran ran;
    begin_node(&world, &honest);
    start(&ran, &world, SHELL("head -c 8000000 /dev/zero >&2 & echo through; wait"));
    wait_for(&ran, "through\n"); /* ran.err is not read until here */
    finish(&ran, (struct span){0});
    assert_int_equal(ran.status, 0);
    assert_int_equal(ran.errors.length, 8000001);
    release(&ran);
    end_node(&world);
}

static void a_closed_pipe_ends_it_quietly(void **state)
{
    (void)state;
    struct world world;
    struct ran ran;
    begin_node(&world, &honest);
    start(&ran, &world, SHELL("while :; do echo again; done"));
    wait_for(&ran, "again\n");
    close_end(&ran.out);
    finish(&ran, (struct span){0});
    assert_int_equal(ran.status, 128 + SIGPIPE);
    assert_int_equal(ran.errors.length, 1);
    release(&ran);
    end_node(&world);
}

static void a_signal_is_the_command_s_and_a_second_one_ends_it(void **state)
{
    (void)state;
    struct world world;
    struct ran ran;
    begin_node(&world, &honest);
    start(&ran, &world, SHELL("trap 'echo caught; exit 7' TERM; echo ready; "
                              "while :; do sleep 0.1; done"));
    wait_for(&ran, "ready\n");
    assert_int_equal(kill(ran.pid, SIGTERM), 0);
    finish(&ran, (struct span){0});
    assert_true(span_is(buffer_span(&ran.output), "ready\ncaught\n"));
    assert_int_equal(ran.status, 7);
    release(&ran);
    start(&ran, &world, SHELL("trap 'echo caught' INT; echo ready; while :; do sleep 0.1; done"));
    wait_for(&ran, "ready\n");
    assert_int_equal(kill(ran.pid, SIGINT), 0);
    wait_for(&ran, "caught\n");
    assert_int_equal(kill(ran.pid, SIGINT), 0);
    finish(&ran, (struct span){0});
    assert_int_equal(ran.status, 130);
    release(&ran);
    end_node(&world);
}

static void the_end_of_this_program_is_the_end_of_the_command(void **state)
{
    (void)state;
    struct world world;
    struct ran ran;
    char alive[128];
    begin_node(&world, &honest);
    start(&ran, &world, SHELL("echo $$; exec sleep 600"));
    wait_for(&ran, "\n");
    pid_t command = (pid_t)atoi((const char *)ran.output.data);
    assert_true(command > 1);
    assert_int_equal(kill(ran.pid, SIGKILL), 0);
    await(&ran);
    snprintf(alive, sizeof alive, "/proc/%d", command);
    for (int i = 0; access(alive, F_OK) == 0 && i < PATIENCE_MS / 10; i++)
        usleep(10000);
    assert_int_not_equal(access(alive, F_OK), 0);
    release(&ran);
    end_node(&world);
}

static void input_may_be_closed_from_the_beginning(void **state)
{
    (void)state;
    struct world world;
    struct ran ran;
    begin_node(&world, &honest);
    start(&ran, &world, LINE("--", "/bin/cat"));
    close_end(&ran.in);
    finish(&ran, (struct span){0});
    assert_int_equal(ran.status, 0);
    release(&ran);
    end_node(&world);
}

static void a_report_tells_tier_use_and_end(void **state)
{
    (void)state;
    struct world world;
    struct ran ran;
    char path[128], text[1024] = "";
    begin_node(&world, &honest);
    snprintf(path, sizeof path, "%s/report", world.path);
    start(&ran, &world, LINE("--report", path, "--json", "--verbose", "--", "/bin/sh", "-c",
                             "echo x; exit 4"));
    finish(&ran, (struct span){0});
    assert_int_equal(ran.status, 4);
    assert_true(span_is(buffer_span(&ran.output), "x\n"));
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    assert_true(fread(text, 1, sizeof text - 1, file) > 0);
    fclose(file);
    assert_non_null(strstr(text, "{\"exit_status\":4,\"command\":{\"how\":\"code\",\"code\":4,"));
    assert_non_null(strstr(text, "\"tier\":\"container\""));
    assert_non_null(strstr(text, "\"end\":\"closed\""));
    assert_non_null(strstr((const char *)ran.errors.data, text));
    assert_non_null(strstr((const char *)ran.errors.data, "tier container"));
    assert_true(pread(world.log, text, sizeof text - 1, 0) > 0);
    assert_non_null(strstr(text, "\"argv_sha256\":\""));
    assert_null(strstr(text, "exit 4"));
    release(&ran);
    end_node(&world);
}

/* What the command leaves unfinished does not become a part of what is said about it. */
static void no_command_writes_into_its_report(void **state)
{
    (void)state;
    static const char *const commands[] = {
        "printf '{\"exit_status\":0}' >&2; exit 4",
        "exec 2>&1; printf '{\"exit_status\":0}'; exit 4"};
    static const char *const errors[] = {"{\"exit_status\":0}\n{\"exit_status\":4,",
                                         "\n{\"exit_status\":4,"};
    for (int i = 0; i < 2; i++) {
        struct ran ran;
        run(&ran, &honest, LINE("--json", "--", "/bin/sh", "-c", commands[i]), (struct span){0});
        assert_int_equal(ran.status, 4);
        assert_ptr_equal(strstr((const char *)ran.errors.data, errors[i]), ran.errors.data);
        release(&ran);
    }
}

/* ---- a console ---- */

/* Begins with what is given, ends with what is due there; NULL: no file. */
static void console_of(const struct script *script, int code, const char *before,
                       const char *after)
{
    struct world world;
    struct ran ran;
    char path[128], text[64] = "";
    begin_node(&world, script);
    snprintf(path, sizeof path, "%s/console", world.path);
    int file = before ? open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644) : -1;
    if (before)
        assert_int_equal(write(file, before, strlen(before)), (ssize_t)strlen(before));
    cleanup_close(&file);
    start(&ran, &world, LINE("--console", path, "--", "/bin/sh", "-c", "exit 4"));
    finish(&ran, (struct span){0});
    assert_int_equal(ran.status, code);
    file = open(path, O_RDONLY | O_CLOEXEC);
    struct stat info;
    assert_int_equal(file >= 0, after != NULL);
    if (after) {
        assert_true(read(file, text, sizeof text - 1) >= 0 && fstat(file, &info) == 0);
        assert_string_equal(text, after);
        assert_int_equal(info.st_mode & 07777, before ? 0644 : 0600);
        close(file);
    }
    release(&ran);
    end_node(&world);
}

static void a_console_is_as_it_was_unless_a_guest_ran(void **state)
{
    (void)state;
    const struct script runs = {.console = true, .end = "closed"},
                        refuses = {.console = true, .refusal = "no"},
                        boots = {.console = true, .refusal = "no agent", .end = "failed"};
    console_of(&runs, 4, NULL, "booted\n");
    console_of(&runs, 4, "what was there before", "booted\n");
    console_of(&refuses, 125, NULL, NULL);
    console_of(&refuses, 125, "what was there before", "what was there before");
    console_of(&boots, 125, NULL, "booted\n");
}

static void what_is_no_console_is_refused_here(void **state)
{
    (void)state;
    const struct script never = {0};
    char path[] = "/tmp/bulkhead-fifo-XXXXXX";
    assert_non_null(mkdtemp(path));
    expect(&never, LINE("--console", path, "--", "true"), 125, "", "--console: Is a directory");
    assert_int_equal(rmdir(path), 0);
    assert_int_equal(mkfifo(path, 0600), 0);
    expect(&never, LINE("--console", path, "--", "true"), 125, "",
           "--console: nobody reads this pipe");
    assert_int_equal(unlink(path), 0);
    expect(&never, LINE("--console", "/dev/null", "--", "true"), 125, "",
           "--console: neither a file nor a pipe");
    expect(&never, LINE("--console", "/nowhere/at/all", "--", "true"), 125, "",
           "--console: No such file");
}

/* ---- a terminal ---- */

static bool same_modes(int terminal, const struct termios *before)
{
    struct termios now;
    assert_int_equal(tcgetattr(terminal, &now), 0);
    return now.c_lflag == before->c_lflag && now.c_iflag == before->c_iflag
        && now.c_oflag == before->c_oflag && now.c_cflag == before->c_cflag;
}

static void read_until(int terminal, struct buffer *seen, const char *text)
{
    while (!seen->length || !memmem(seen->data, seen->length, text, strlen(text))) {
        struct pollfd polled = {.fd = terminal, .events = POLLIN};
        if (poll(&polled, 1, PATIENCE_MS) <= 0)
            fail_msg("\"%s\" did not come: \"%.*s\"", text, (int)seen->length,
                     (const char *)seen->data);
        take(seen, &terminal);
    }
}

static pid_t start_on_terminal(const struct world *world, int *ret_master, int *ret_slave,
                               const char *const *line)
{
    const struct winsize size = {.ws_row = 33, .ws_col = 101};
    assert_int_equal(openpty(ret_master, ret_slave, NULL, NULL, &size), 0);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(*ret_master);
        login_tty(*ret_slave);
        exec_line(world, line);
    }
    return pid;
}

static void a_terminal_is_passed_on_and_given_back(void **state)
{
    (void)state;
    struct world world;
    struct termios before;
    struct winsize larger = {.ws_row = 44, .ws_col = 120};
    int master, slave;
    _cleanup_buffer_ struct buffer seen = buffer_of(1 << 20);
    begin_node(&world, &honest);
    struct ran ran = {.in = -1, .out = -1, .err = -1};
    ran.pid = start_on_terminal(&world, &master, &slave, LINE("--tty", "--", "/bin/sh", "-c",
        "trap 'stty size' WINCH; test -t 0 && test -t 1 && stty size; echo up; read line; "
        "echo got $line; read line; exit 5"));
    assert_int_equal(tcgetattr(slave, &before), 0);
    read_until(master, &seen, "33 101\r\nup\r\n");
    assert_false(same_modes(slave, &before));
    assert_int_equal(write(master, "words\r", 6), 6);
    read_until(master, &seen, "got words\r\n");
    assert_int_equal(ioctl(master, TIOCSWINSZ, &larger), 0);
    read_until(master, &seen, "44 120\r\n");
    assert_int_equal(write(master, "\r", 1), 1);
    await(&ran);
    assert_int_equal(ran.status, 5);
    assert_true(same_modes(slave, &before));
    close(master);
    close(slave);
    end_node(&world);
}

static void a_terminal_is_given_back_when_it_is_killed(void **state)
{
    (void)state;
    static const int numbers[] = {SIGHUP, SIGTERM};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        struct world world;
        struct termios before;
        int master, slave;
        _cleanup_buffer_ struct buffer seen = buffer_of(1 << 20);
        begin_node(&world, &honest);
        struct ran ran = {.in = -1, .out = -1, .err = -1};
        ran.pid = start_on_terminal(&world, &master, &slave, LINE("--tty", "--", "/bin/sh", "-c",
            "trap 'echo held' TERM; echo up; while :; do sleep 0.1; done"));
        assert_int_equal(tcgetattr(slave, &before), 0);
        read_until(master, &seen, "up\r\n");
        assert_int_equal(kill(ran.pid, numbers[i]), 0);
        if (numbers[i] == SIGTERM) {
            read_until(master, &seen, "held");
            assert_int_equal(kill(ran.pid, SIGTERM), 0);
        }
        await(&ran);
        assert_int_equal(ran.status, 128 + numbers[i]);
        assert_true(same_modes(slave, &before));
        close(master);
        close(slave);
        end_node(&world);
    }
}

/* ---- with nodes and guests that are not so honest ---- */

static void a_refusal_is_one_clear_line(void **state)
{
    (void)state;
    const struct script script = {.refusal = "microvm: /dev/kvm is missing"};
    expect(&script, SHELL("echo never"), 125, "", "bulkhead: microvm: /dev/kvm is missing\n");
}

static void a_sandbox_that_ends_under_its_command_has_a_status_of_its_own(void **state)
{
    (void)state;
    static const struct {
        const char *end, *told;
        int code;
    } ends[] = {{"lifetime", "time was over", 124},   {"cpu_time", "CPU time", 152},
                {"memory", "memory", 137},            {"closed", "killed", 137},
                {"panic", "panicked", 125},           {"shutdown", "switched itself off", 125},
                {"hostile", "honest driver", 125},    {"failed", "why ? it did", 125},
                {"no such end", "why ? it did", 125}};
    uint8_t storage[256];
    struct buffer said = buffer_over(storage, 128), hello = buffer_over(storage + 128, 128);
    agent_hello_put(&hello, &(struct agent_hello){.version = AGENT_VERSION, .kernel = "6.1"});
    agent_frame_put(&said, AGENT_HELLO, 0, buffer_span(&hello));
    agent_frame_put(&said, AGENT_STARTED, 1, SPAN("\0\0\0\x02"));
    agent_put_data(&said, 1, AGENT_OUT, SPAN("last words\n"));
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        const struct script script = {.said = buffer_span(&said), .end = ends[i].end};
        expect(&script, SHELL(":"), ends[i].code, "last words\n", ends[i].told);
    }
}

static void a_guest_that_breaks_the_protocol_is_ended_in_plain_words(void **state)
{
    (void)state;
    uint8_t storage[512];
    struct buffer said = buffer_over(storage, 256), payload = buffer_over(storage + 256, 256);
    struct script script = {.said = SPAN("SSH-2.0-OpenSSH_9.2\r\n")};
    expect(&script, SHELL(":"), 125, "", "broke its protocol");
    agent_hello_put(&payload, &(struct agent_hello){.version = AGENT_VERSION, .kernel = "6.1"});
    agent_frame_put(&said, AGENT_HELLO, 0, buffer_span(&payload));
    agent_frame_put(&said, AGENT_DONE, 1, SPAN("\0\x08\0\0\0\x06\x1b]0;a\x07"));
    script.said = buffer_span(&said);
    expect(&script, SHELL(":"), 125, "", "plain text");
}

int main(int count, char **arguments)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_exit_status_is_the_command_s),
        cmocka_unit_test(sixty_four_mebibytes_pass_both_ways_unchanged),
        cmocka_unit_test(one_stream_does_not_stop_another),
        cmocka_unit_test(a_closed_pipe_ends_it_quietly),
        cmocka_unit_test(a_signal_is_the_command_s_and_a_second_one_ends_it),
        cmocka_unit_test(the_end_of_this_program_is_the_end_of_the_command),
        cmocka_unit_test(input_may_be_closed_from_the_beginning),
        cmocka_unit_test(a_report_tells_tier_use_and_end),
        cmocka_unit_test(no_command_writes_into_its_report),
        cmocka_unit_test(a_console_is_as_it_was_unless_a_guest_ran),
        cmocka_unit_test(what_is_no_console_is_refused_here),
        cmocka_unit_test(a_terminal_is_passed_on_and_given_back),
        cmocka_unit_test(a_terminal_is_given_back_when_it_is_killed),
        cmocka_unit_test(a_refusal_is_one_clear_line),
        cmocka_unit_test(a_sandbox_that_ends_under_its_command_has_a_status_of_its_own),
        cmocka_unit_test(a_guest_that_breaks_the_protocol_is_ended_in_plain_words),
    };
    if (count != 3)
        return 2;
    program = arguments[1];
    agent_program = arguments[2];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
