/* sandbox.c: `bulkhead sandbox`: untrusted code behind a wall of its own, used like a program of
 * this machine. The node starts the sandbox and hands its stream to us; what the command reads and
 * writes passes through no other process of the node. */
#define _GNU_SOURCE
#include "base/cleanup.h"
#include "base/file.h"
#include "base/hex.h"
#include "cli/sandbox.h"
#include "cli/terminal.h"
#include "crypt/crypt.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { JSON_MAX = 8192, EXIT_KILLED = EXIT_SIGNAL + SIGKILL };

struct ran { /* what is known of it at the end */
    struct arena arena;
    struct buffer started_text, ended_text;
    struct json started, ended; /* of kind JSON_NULL: not known */
    enum pump_end end;
    int signal;
    int code;
    struct fault fault;
};

static int complain(int code, const char *what, const char *detail)
{
    char line[400];
    snprintf(line, sizeof line, "%s%s", what, detail);
    (void)cli_refused(line);
    return code;
}

/* ---- asking for it ---- */

/* The words of the command as they would lie in memory, each with its NUL: what is written down of
 * it is this hash alone. */
static void put_command_hash(struct json_writer *writer, const struct agent_exec *exec)
{
    struct span parts[AGENT_ARGUMENTS_MAX];
    uint8_t hashed[HASH_BYTES];
    char text[2 * HASH_BYTES + 1];
    for (uint32_t i = 0; i < exec->argument_count; i++)
        parts[i] = (struct span){exec->arguments[i].data, exec->arguments[i].length + 1};
    hash_parts(hashed, parts, exec->argument_count);
    hex_encode(text, SPAN_OF(hashed));
    json_put_text(writer, "argv_sha256", text);
}

static void put_rate(struct json_writer *writer, const char *name, int64_t rate)
{
    if (rate)
        json_put_integer(writer, name, rate);
}

static void put_arguments(struct buffer *out, const struct sandbox_run *run)
{
    const struct sandbox_spec *spec = &run->spec;
    struct json_writer writer = json_writer_on(out);
    json_open_object(&writer, NULL);
    if (run->tenant)
        json_put_text(&writer, "tenant", run->tenant);
    if (run->tier)
        json_put_text(&writer, "tier", run->tier);
    json_put_text(&writer, "image", spec->image);
    json_put_text(&writer, "net", spec->net == SANDBOX_NET_NONE ? "none" : "isolated");
    json_put_integer(&writer, "vcpus", spec->vcpus);
    json_put_integer(&writer, "memory_mib", spec->memory_mib);
    json_put_integer(&writer, "disk_mib", spec->disk_mib);
    json_put_integer(&writer, "processes", spec->processes);
    json_put_integer(&writer, "timeout_seconds", run->timeout_s);
    json_put_integer(&writer, "cpu_seconds", spec->cpu_s);
    json_put_bool(&writer, "console", spec->console);
    json_put_bool(&writer, "huge_pages", spec->huge_pages);
    put_rate(&writer, "disk_bytes_per_second", run->disk_rate);
    put_rate(&writer, "disk_operations_per_second", run->disk_operations);
    put_rate(&writer, "net_bytes_per_second", run->net_rate);
    put_rate(&writer, "net_packets_per_second", run->net_packets);
    put_command_hash(&writer, &run->exec);
    json_close_object(&writer);
}

static status read_answer(struct json *ret, struct ran *ran, const struct buffer *text,
                          struct fault *fault)
{
    struct json document;
    TRY(json_parse(&document, &ran->arena, buffer_span(text), fault));
    TRY(json_need_object(&document, "answer", fault));
    *ret = document;
    return OK;
}

struct console {
    const char *path; /* NULL: none */
    int fd;
    bool made;
};

/* What lies there is cut off by the monitor, so a run that is refused changes nothing. Never
 * waiting for a pipe's reader, nor a guest's last words for its room. */
static status console_open(struct console *ret, const char *path, struct fault *fault)
{
    enum { FLAGS = O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC };
    struct stat info;
    struct console console = {.path = path, .fd = -1};
    if (path)
        console.fd = open(path, FLAGS);
    if (path && console.fd < 0 && errno == ENOENT) {
        console.fd = open(path, FLAGS | O_CREAT | O_EXCL, 0600);
        console.made = console.fd >= 0;
    }
    *ret = console;
    if (path && console.fd < 0)
        return FAIL(INTERNAL, fault, "--console: %s",
                    errno == ENXIO ? "nobody reads this pipe" : strerror(errno));
    if (path && (fstat(console.fd, &info) || (!S_ISREG(info.st_mode) && !S_ISFIFO(info.st_mode))))
        return FAIL(INTERNAL, fault, "--console: neither a file nor a pipe");
    return OK;
}

/* A refusal may come after a boot that failed, whose last words are just what is wanted. */
static void console_close(struct console *console, bool refused)
{
    struct stat info;
    if (refused && console->made && fstat(console->fd, &info) == 0 && info.st_size == 0)
        unlink(console->path);
    cleanup_close(&console->fd); /* who reads a pipe is to see the monitor's end of it */
}

/* Until the sandbox runs, a signal ends this process and with it the stream: the node then ends the
 * sandbox. */
static status start_with(int *ret_stream, struct ran *ran, const struct cli *cli,
                         const struct sandbox_run *run, int console, struct fault *fault)
{
    int ends[2];
    _cleanup_buffer_ struct buffer arguments = buffer_of(JSON_MAX);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
        return FAIL(INTERNAL, fault, "socketpair: %s", strerror(errno));
    _cleanup_close_ int ours = ends[0], theirs = ends[1];
    put_arguments(&arguments, run);
    TRY(buffer_check(&arguments, "arguments", fault));
    const int fds[] = {theirs, console};
    TRY(client_call_fds(&ran->started_text, cli, "sandbox.run", buffer_span(&arguments), fds,
                        console >= 0 ? 2 : 1, fault));
    TRY(read_answer(&ran->started, ran, &ran->started_text, fault));
    *ret_stream = take_fd(&ours);
    return OK;
}

static status start(int *ret_stream, struct ran *ran, const struct cli *cli,
                    const struct sandbox_run *run, struct fault *fault)
{
    struct console console;
    status started = console_open(&console, run->console, fault);
    if (started == OK)
        started = start_with(ret_stream, ran, cli, run, console.fd, fault);
    console_close(&console, started != OK);
    return started;
}

/* ---- the end ---- */

/* Told when nothing of the sandbox is left. A node that restarted meanwhile does not know. */
static void learn_end(struct ran *ran, const struct cli *cli)
{
    uint8_t storage[128];
    struct buffer arguments = buffer_over(storage, sizeof storage);
    struct json_writer writer = json_writer_on(&arguments);
    struct fault fault;
    json_open_object(&writer, NULL);
    json_put_string(&writer, "id", cli_member(&ran->started, "id"));
    json_close_object(&writer);
    if (client_call(&ran->ended_text, cli, "sandbox.wait", buffer_span(&arguments), -1, &fault)
        == OK)
        (void)(read_answer(&ran->ended, ran, &ran->ended_text, &fault) == OK);
}

static int status_of_exit(const struct agent_exited *exited)
{
    switch (exited->how) {
    case AGENT_EXIT_CODE: return exited->code;
    case AGENT_EXIT_TIMEOUT: return EXIT_TIMEOUT;
    case AGENT_EXIT_MEMORY: return EXIT_KILLED;
    default: return EXIT_SIGNAL + exited->code;
    }
}

/* Of a sandbox that ended under its command. */
static int status_of_end(const struct ran *ran)
{
    static const struct {
        enum sandbox_end end;
        int code;
        const char *told;
    } ends[] = {
        {SANDBOX_LIFETIME, EXIT_TIMEOUT, "the sandbox's time was over"},
        {SANDBOX_CPU_TIME, EXIT_SIGNAL + SIGXCPU, "the sandbox's CPU time was over"},
        {SANDBOX_MEMORY, EXIT_KILLED, "the sandbox's memory was over"},
        {SANDBOX_CLOSED, EXIT_KILLED, "the sandbox was killed"},
        {SANDBOX_SHUTDOWN, EXIT_SANDBOX, "the guest switched itself off under the command"},
        {SANDBOX_RESET, EXIT_SANDBOX, "the guest restarted under the command"},
        {SANDBOX_PANIC, EXIT_SANDBOX, "the guest's kernel panicked"},
        {SANDBOX_FAULTED, EXIT_SANDBOX, "the guest came to a state that cannot run"},
        {SANDBOX_HOSTILE, EXIT_SANDBOX, "the guest went on breaking rules that no honest driver "
                                        "breaks"},
    };
    enum sandbox_end end = SANDBOX_FAILED;
    struct fault fault;
    char line[300];
    (void)(sandbox_end_of(&end, cli_member(&ran->ended, "end"), &fault) == OK);
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (ends[i].end == end)
            return complain(ends[i].code, ends[i].told, "");
    snprintf(line, sizeof line, "%.*s", SPAN_ARG(cli_member(&ran->ended, "detail")));
    return complain(EXIT_SANDBOX, "the sandbox failed: ", line);
}

static int status_of(const struct ran *ran, const struct agent_session *session)
{
    switch (ran->end) {
    case PUMP_OVER:
        if (session->at == AGENT_SESSION_EXITED)
            return status_of_exit(&session->exited);
        return complain(EXIT_SANDBOX, "the command could not be started: ",
                        session->refused.detail);
    case PUMP_BREACH:
        return complain(EXIT_SANDBOX, "the guest's agent broke its protocol, so the sandbox was "
                        "ended: ", ran->fault.detail);
    case PUMP_OUTPUT:
        return ran->fault.detail[0] ? complain(EXIT_SANDBOX, "", ran->fault.detail)
                                    : EXIT_SIGNAL + SIGPIPE;
    case PUMP_KILLED: return EXIT_SIGNAL + ran->signal;
    default: return status_of_end(ran);
    }
}

static void put_exit(struct json_writer *writer, const struct agent_session *session)
{
    static const char *const hows[] = {
        [AGENT_EXIT_CODE] = "code", [AGENT_EXIT_SIGNAL] = "signal",
        [AGENT_EXIT_TIMEOUT] = "timeout", [AGENT_EXIT_MEMORY] = "memory"};
    if (session->at != AGENT_SESSION_EXITED) {
        json_put_null(writer, "command");
        return;
    }
    json_open_object(writer, "command");
    json_put_text(writer, "how", hows[session->exited.how]);
    json_put_integer(writer, "code", session->exited.code);
    json_put_double(writer, "cpu_seconds", (double)session->exited.cpu_us / 1e6);
    json_put_integer(writer, "peak_kib", (int64_t)(session->exited.peak_kib & INT64_MAX));
    json_close_object(writer);
}

static void put_report(struct buffer *out, const struct ran *ran,
                       const struct agent_session *session)
{
    struct json_writer writer = json_writer_on(out);
    json_open_object(&writer, NULL);
    json_put_integer(&writer, "exit_status", ran->code);
    put_exit(&writer, session);
    if (ran->started.kind == JSON_OBJECT)
        json_put_raw(&writer, "sandbox", ran->started.source);
    if (ran->ended.kind == JSON_OBJECT)
        json_put_raw(&writer, "end", ran->ended.source);
    else
        json_put_null(&writer, "end");
    json_close_object(&writer);
    buffer_put_u8(out, '\n');
}

/* On standard error with --json, because standard output is the command's; a file with --report. */
static int report(const struct ran *ran, const struct agent_session *session,
                  const struct cli *cli, int file)
{
    _cleanup_buffer_ struct buffer text = buffer_of(2 * JSON_MAX);
    struct fault fault;
    put_report(&text, ran, session);
    /* a line of its own, whichever of the two the command's words went to */
    if (cli->json && (session->unfinished[AGENT_OUT] || session->unfinished[AGENT_ERROR]))
        fputc('\n', stderr);
    if (cli->json)
        fwrite(text.data, 1, text.length, stderr);
    if (file >= 0 && file_write(file, buffer_span(&text), "--report", &fault) != OK)
        return complain(EXIT_SANDBOX, "", fault.detail);
    return ran->code;
}

static void tell(const struct ran *ran, const struct sandbox_run *run)
{
    if (run->verbose)
        fprintf(stderr, "bulkhead: sandbox %.*s runs, tier %.*s, image %.*s\n",
                SPAN_ARG(cli_member(&ran->started, "id")),
                SPAN_ARG(cli_member(&ran->started, "tier")),
                SPAN_ARG(cli_member(&ran->started, "image")));
}

static void tell_end(const struct ran *ran, const struct sandbox_run *run)
{
    const struct json *cpu = json_member(&ran->ended, "cpu_seconds");
    const struct json *wall = json_member(&ran->ended, "wall_seconds");
    if (run->verbose && cpu && wall)
        fprintf(stderr, "bulkhead: sandbox %.*s is gone (%.*s): %.2f s of CPU in %.2f s, "
                "%lld KiB at most\n", SPAN_ARG(cli_member(&ran->ended, "id")),
                SPAN_ARG(cli_member(&ran->ended, "end")), cpu->number, wall->number,
                (long long)cli_number(&ran->ended, "peak_kib"));
}

/* ---- the commands ---- */

static void run_on(struct ran *ran, const struct sandbox_run *run, struct agent_session *session,
                   int stream)
{
    tell(ran, run);
    if (run->tty)
        (void)terminal_raw(STDIN_FILENO);
    ran->end = sandbox_pump(session, stream, &ran->signal, &ran->fault);
    terminal_restore();
}

static int run_sandbox(struct cli *cli, const struct sandbox_run *run, int file)
{
    struct agent_session session = {0};
    struct ran ran = {.arena = arena_of(16 * JSON_MAX)};
    int stream = -1, code;
    struct fault fault;
    if (agent_session_begin(&session, &run->exec, &fault) != OK
        || start(&stream, &ran, cli, run, &fault) != OK) {
        code = complain(EXIT_SANDBOX, "", fault.detail);
    } else {
        run_on(&ran, run, &session, stream);
        close(stream); /* the sandbox ends with it */
        learn_end(&ran, cli);
        ran.code = status_of(&ran, &session);
        tell_end(&ran, run);
        code = report(&ran, &session, cli, file);
    }
    agent_session_free(&session);
    buffer_free(&ran.started_text);
    buffer_free(&ran.ended_text);
    arena_free(&ran.arena);
    return code;
}

static int sandbox_run(struct cli *cli)
{
    static struct sandbox_run run; /* kilobytes of spans */
    int wrong = sandbox_run_read(&run, cli);
    if (wrong != EXIT_DONE)
        return wrong;
    _cleanup_close_ int file = -1;
    if (run.report)
        file = open(run.report, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY, 0600);
    if (run.report && file < 0)
        return complain(EXIT_SANDBOX, "--report: ", strerror(errno));
    return run_sandbox(cli, &run, file);
}

static void print_sandboxes(const struct json *document)
{
    const struct json *data = json_member(document, "data");
    printf("%-16s %-8s %-9s %-20s %-12s %5s %10s %s\n", "ID", "STATE", "TIER", "TENANT", "IMAGE",
           "CPUS", "MEMORY", "SINCE");
    for (uint32_t i = 0; data && i < data->count; i++) {
        const struct json *one = &data->items[i];
        printf("%-16.*s %-8.*s %-9.*s %-20.*s %-12.*s %5lld %6lld MiB %.*s\n",
               SPAN_ARG(cli_member(one, "id")), SPAN_ARG(cli_member(one, "state")),
               SPAN_ARG(cli_member(one, "tier")), SPAN_ARG(cli_member(one, "tenant")),
               SPAN_ARG(cli_member(one, "image")), (long long)cli_number(one, "vcpus"),
               (long long)cli_number(one, "memory_mib"), SPAN_ARG(cli_member(one, "since")));
    }
}

static int sandbox_ps(struct cli *cli)
{
    uint8_t storage[8];
    struct buffer arguments = buffer_over(storage, sizeof storage);
    buffer_put_text(&arguments, "{}");
    return cli_end(cli) ? EXIT_USAGE
                        : cli_call(cli, "sandbox.list", &arguments, -1, print_sandboxes);
}

static void print_nothing(const struct json *document)
{
    (void)document;
}

static int sandbox_kill(struct cli *cli)
{
    uint8_t storage[512];
    struct buffer arguments = buffer_over(storage, sizeof storage);
    struct json_writer writer = json_writer_on(&arguments);
    const char *id = cli_word(cli);
    if (!id)
        return cli_usage("sandbox kill: an id is needed, as `sandbox ps` shows it");
    json_open_object(&writer, NULL);
    json_put_text(&writer, "id", id);
    json_close_object(&writer);
    return cli_end(cli) ? EXIT_USAGE
                        : cli_call(cli, "sandbox.kill", &arguments, -1, print_nothing);
}

int command_sandbox(struct cli *cli)
{
    const char *word = cli_word(cli);
    if (word && strcmp(word, "run") == 0)
        return sandbox_run(cli);
    if (word && strcmp(word, "ps") == 0)
        return sandbox_ps(cli);
    if (word && strcmp(word, "kill") == 0)
        return sandbox_kill(cli);
    return cli_usage("sandbox: run, ps or kill");
}
