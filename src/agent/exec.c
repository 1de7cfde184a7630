#define _GNU_SOURCE
#include "agent/agent.h"
#include "agent/child.h"
#include "agent/launch.h"
#include "agent/pty.h"
#include "agent/stream.h"
#include "agent/tree.h"
#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>

enum {
    ROUND_US = 1000,
    ROUND_SHIFT_MAX = 4,
    LATE_OUTPUT_MAX = 1024 * 1024, /* read after the last process of a tree is gone: a full pipe */
};

struct exec {
    struct request request;
    struct tree *tree;
    struct loop_source *report_source, *line_source;
    struct loop_timer timeout, round;
    struct inflow in;
    struct outflow out, error;
    struct agent_exited exited;
    struct child_report failure;
    pid_t pid, waited; /* the program; what wait(2) tells about: it, or its shepherd */
    int report, line, terminal;
    uint32_t rounds;
    bool started, timed_out, quiet;
    bool ending; /* the tree is being killed */
    bool dead;   /* nothing of it runs */
    bool over;   /* how the program ended is known */
    bool reaped; /* waited is */
};

/* ---- the end ---- */

static void close_all(struct exec *exec)
{
    struct loop *loop = exec->request.agent->loop;
    exec->report_source = loop_unwatch(loop, exec->report_source);
    exec->line_source = loop_unwatch(loop, exec->line_source);
    loop_timer_stop(loop, &exec->timeout);
    loop_timer_stop(loop, &exec->round);
    inflow_close(&exec->in);
    outflow_close(&exec->out);
    outflow_close(&exec->error);
    cleanup_close(&exec->report);
    cleanup_close(&exec->line);
    cleanup_close(&exec->terminal);
}

static void drop(struct request *request)
{
    struct exec *exec = (struct exec *)request;
    close_all(exec);
    request_remove(request);
    free(exec);
}

static void say_exited(struct exec *exec)
{
    uint8_t storage[32];
    struct buffer payload = buffer_over(storage, sizeof storage);
    agent_exited_put(&payload, &exec->exited);
    agent_frame_put(&exec->request.agent->out, AGENT_EXITED, exec->request.id,
                    buffer_span(&payload));
    drop(&exec->request);
}

static void on_out_end(struct request *request, struct outflow *flow, int error)
{
    (void)flow;
    (void)error; /* a pipe that fails has ended */
    struct exec *exec = (struct exec *)request;
    if (exec->tree == NULL && !exec->out.open && !exec->error.open)
        say_exited(exec);
}

static void say_started(struct exec *exec)
{
    uint8_t storage[4];
    struct agent *agent = exec->request.agent;
    struct buffer payload = buffer_over(storage, sizeof storage);
    buffer_put_u32(&payload, (uint32_t)exec->pid);
    agent_frame_put(&agent->out, AGENT_STARTED, exec->request.id, buffer_span(&payload));
    exec->started = true;
}

/* The descriptors were put into the flows when the pipes were made. */
static void begin_output(struct exec *exec)
{
    int error = exec->error.fd;
    if (error < 0)
        agent_put_end(&exec->request.agent->out, exec->request.id, AGENT_ERROR);
    else
        outflow_begin(&exec->error, &exec->request, AGENT_ERROR, error, false, UINT64_MAX);
    outflow_begin(&exec->out, &exec->request, AGENT_OUT, exec->out.fd, false, UINT64_MAX);
}

static void take_report(struct exec *exec);

static void judge(struct exec *exec)
{
    struct agent_exited *exited = &exec->exited;
    if (exec->tree->oom && exited->how == AGENT_EXIT_SIGNAL && exited->code == SIGKILL)
        exited->how = AGENT_EXIT_MEMORY;
    if (exec->timed_out)
        *exited = (struct agent_exited){.how = AGENT_EXIT_TIMEOUT, .code = SIGKILL,
                                        .cpu_us = exited->cpu_us, .peak_kib = exited->peak_kib};
}

static void finish(struct exec *exec)
{
    struct fault fault;
    struct agent *agent = exec->request.agent;
    take_report(exec);
    tree_usage(exec->tree, &exec->exited.cpu_us, &exec->exited.peak_kib);
    judge(exec);
    exec->tree = tree_free(agent->trees, exec->tree);
    loop_timer_stop(agent->loop, &exec->round);
    if (!exec->started) {
        status code = FAIL(UNAVAILABLE, &fault, "it ended before it began");
        if (exec->failure.error)
            code = errno_status(exec->failure.error, exec->failure.step, &fault);
        agent_answer(agent, exec->request.id, code, &fault, (struct span){0});
        if (exec->out.fd >= 0 && !exec->out.open)
            cleanup_close(&exec->out.fd);
        if (exec->error.fd >= 0 && !exec->error.open)
            cleanup_close(&exec->error.fd);
        drop(&exec->request);
        return;
    }
    inflow_deafen(&exec->in);
    if (exec->quiet) {
        outflow_end(&exec->out);
        outflow_end(&exec->error);
    }
    outflow_finish(&exec->error, LATE_OUTPUT_MAX);
    outflow_finish(&exec->out, LATE_OUTPUT_MAX);
    on_out_end(&exec->request, NULL, 0);
}

static void advance(struct exec *exec)
{
    if (!exec->dead || !exec->over)
        return;
    exec->line_source = loop_unwatch(exec->request.agent->loop, exec->line_source);
    cleanup_close(&exec->line); /* the shepherd may go */
    if (exec->reaped)
        finish(exec);
}

static void on_round(void *context)
{
    struct fault fault;
    struct exec *exec = context;
    uint32_t shift = exec->rounds < ROUND_SHIFT_MAX ? exec->rounds : ROUND_SHIFT_MAX;
    exec->dead = exec->dead || tree_kill(exec->tree);
    if (exec->dead) {
        advance(exec);
        return;
    }
    exec->rounds++;
    /* the heap of timers had this one before: it has room */
    (void)!loop_timer_start(exec->request.agent->loop, &exec->round, ROUND_US << shift, on_round,
                            exec, &fault);
}

static void end(struct exec *exec)
{
    if (exec->ending)
        return;
    exec->ending = true;
    loop_timer_stop(exec->request.agent->loop, &exec->timeout);
    on_round(exec);
}

static void on_timeout(void *context)
{
    struct exec *exec = context;
    exec->timed_out = !exec->over;
    end(exec);
}

static void cancel(struct request *request)
{
    struct exec *exec = (struct exec *)request;
    exec->quiet = true;
    if (exec->tree != NULL) {
        end(exec);
        return;
    }
    outflow_end(&exec->out); /* it has ended, its output only waited for credit */
    outflow_end(&exec->error);
    say_exited(exec);
}

/* ---- what is learnt of the program ---- */

static void note_end(struct exec *exec, int code, int number)
{
    if (exec->over)
        return;
    exec->over = true;
    exec->exited.how = code == CLD_EXITED ? AGENT_EXIT_CODE : AGENT_EXIT_SIGNAL;
    exec->exited.code = (uint8_t)number;
}

static void take_report(struct exec *exec)
{
    struct child_report words;
    if (exec->report < 0)
        return;
    ssize_t count;
    while ((count = read(exec->report, &words, sizeof words)) == sizeof words) {
        exec->pid = words.pid;
        if (words.error == 0)
            continue;
        exec->failure = words;
        exec->failure.step[sizeof exec->failure.step - 1] = '\0';
    }
    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    exec->report_source = loop_unwatch(exec->request.agent->loop, exec->report_source);
    cleanup_close(&exec->report);
    if (exec->failure.error != 0 || exec->pid == 0)
        return;
    say_started(exec);
    begin_output(exec);
}

static void on_report(void *context, uint32_t events)
{
    (void)events;
    struct exec *exec = context;
    take_report(exec);
    if (exec->report < 0 && !exec->started)
        end(exec);
}

static void on_line(void *context, uint32_t events)
{
    (void)events;
    struct exec *exec = context;
    struct child_end words;
    ssize_t count = recv(exec->line, &words, sizeof words, MSG_DONTWAIT);
    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (count == sizeof words)
        note_end(exec, words.code, words.status);
    exec->line_source = loop_unwatch(exec->request.agent->loop, exec->line_source);
    if (count != sizeof words)
        return; /* the shepherd is dead: its reaping tells */
    if (exec->ending)
        advance(exec);
    else
        end(exec);
}

void exec_reaped(struct agent *agent, pid_t pid, int how, uint64_t cpu_us, uint64_t peak_kib)
{
    struct exec *exec = NULL;
    for (int i = 0; i < AGENT_REQUESTS_MAX && exec == NULL; i++) {
        struct request *request = agent->requests[i];
        if (request && request->kind->drop == drop && ((struct exec *)request)->waited == pid
            && !((struct exec *)request)->reaped)
            exec = (struct exec *)request;
    }
    if (exec == NULL)
        return;
    exec->reaped = true;
    exec->exited.cpu_us = cpu_us;
    exec->exited.peak_kib = peak_kib;
    if (exec->tree && exec->tree->cgroup < 0) {
        bool killed = !exec->over || !exec->dead; /* by what it should watch */
        exec->tree->shepherd = 0;
        note_end(exec, CLD_KILLED, SIGKILL);
        if (killed)
            trees_kill_strays(agent->trees);
    } else {
        note_end(exec, WIFEXITED(how) ? CLD_EXITED : CLD_KILLED,
                 WIFEXITED(how) ? WEXITSTATUS(how) : WTERMSIG(how));
    }
    if (exec->ending)
        on_round(exec);
    else
        end(exec);
}

/* ---- what the host says about it ---- */

static status on_piece(struct request *request, uint8_t type, const struct agent_piece *piece,
                       struct fault *fault)
{
    struct exec *exec = (struct exec *)request;
    if (type != AGENT_CREDIT)
        return inflow_piece(&exec->in, type, piece, fault);
    if (piece->channel == AGENT_IN)
        return FAIL(BAD_REQUEST, fault, "credit for a channel that is the host's");
    return outflow_credit(piece->channel == AGENT_OUT ? &exec->out : &exec->error, piece->credit,
                          fault);
}

static status on_signal(struct request *request, uint8_t number, struct fault *fault)
{
    (void)fault;
    struct exec *exec = (struct exec *)request;
    if (number == SIGKILL && exec->tree)
        end(exec);
    else if (exec->started && !exec->over)
        kill(-exec->pid, number);
    return OK;
}

static status on_resize(struct request *request, uint16_t rows, uint16_t columns,
                        struct fault *fault)
{
    struct exec *exec = (struct exec *)request;
    if (exec->terminal < 0)
        return FAIL(BAD_REQUEST, fault, "a size for what has no terminal");
    struct fault minor;
    (void)!pty_resize(exec->terminal, rows, columns, &minor);
    return OK;
}

static void resume(struct request *request)
{
    struct exec *exec = (struct exec *)request;
    if (!exec->started)
        return;
    outflow_resume(&exec->error);
    outflow_resume(&exec->out);
}

static void on_in_end(struct request *request, struct inflow *flow, int error)
{
    struct exec *exec = (struct exec *)request;
    uint8_t text[2];
    size_t count = exec->terminal < 0 || error ? 0 : pty_end_of_input(exec->terminal, text);
    if (count > 0 && write(exec->terminal, text, count) < 0)
        count = 0; /* the terminal takes no more: then nobody reads it either */
    inflow_deafen(flow);
}

/* ---- the beginning ---- */

struct ends { /* the child's */
    int in, out, error;
};

static void close_ends(struct ends *ends)
{
    if (ends->out != ends->in)
        cleanup_close(&ends->out);
    if (ends->error != ends->in)
        cleanup_close(&ends->error);
    cleanup_close(&ends->in);
}

static status make_pipe(int *ret_ours, int *ret_theirs, bool to_child, struct fault *fault)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC))
        return errno_status(errno, "pipe", fault);
    *ret_ours = ends[to_child ? 1 : 0];
    *ret_theirs = ends[to_child ? 0 : 1];
    if (fcntl(*ret_ours, F_SETFL, O_NONBLOCK))
        return errno_status(errno, "pipe", fault);
    return OK;
}

static status make_terminal(struct exec *exec, struct ends *ends, int *in,
                            const struct agent_exec *wanted, uid_t uid, struct fault *fault)
{
    TRY(pty_open(&exec->terminal, &ends->in, wanted->rows, wanted->columns, uid, fault));
    ends->out = ends->error = ends->in;
    exec->out.fd = fcntl(exec->terminal, F_DUPFD_CLOEXEC, 3);
    *in = fcntl(exec->terminal, F_DUPFD_CLOEXEC, 3);
    if (exec->out.fd < 0 || *in < 0)
        return errno_status(errno, "terminal", fault);
    return OK;
}

static status make_channels(struct exec *exec, struct ends *ends, const struct agent_exec *wanted,
                            uid_t uid, struct fault *fault)
{
    int in = -1;
    status done;
    if (wanted->flags & AGENT_EXEC_PTY) {
        done = make_terminal(exec, ends, &in, wanted, uid, fault);
    } else {
        done = make_pipe(&exec->out.fd, &ends->out, false, fault);
        if (done == OK)
            done = make_pipe(&exec->error.fd, &ends->error, false, fault);
        if (done == OK && (wanted->flags & AGENT_EXEC_STDIN))
            done = make_pipe(&in, &ends->in, true, fault);
        else if (done == OK)
            ends->in = open("/dev/null", O_RDONLY | O_CLOEXEC);
        if (done == OK && ends->in < 0)
            done = errno_status(errno, "/dev/null", fault);
    }
    inflow_begin(&exec->in, &exec->request, AGENT_IN, in);
    if (in < 0)
        exec->in.deaf = true;
    return done;
}

static status start(struct exec *exec, const struct child_plan *plan, struct fault *fault)
{
    struct agent *agent = exec->request.agent;
    struct child child;
    TRY(child_start(&child, plan, fault));
    exec->waited = child.pid;
    exec->report = child.report;
    exec->line = child.line;
    if (exec->tree->cgroup < 0)
        exec->tree->shepherd = child.pid;
    else
        exec->pid = child.pid;
    fcntl(exec->report, F_SETFL, O_NONBLOCK);
    TRY(loop_watch(&exec->report_source, agent->loop, exec->report, EPOLLIN, on_report, exec,
                   fault));
    if (exec->line >= 0)
        TRY(loop_watch(&exec->line_source, agent->loop, exec->line, EPOLLIN, on_line, exec,
                       fault));
    return OK;
}

static status set_up(struct exec *exec, const struct agent_exec *wanted, struct ends *ends,
                     struct fault *fault)
{
    struct agent *agent = exec->request.agent;
    struct user user;
    struct launch launch;
    TRY(user_find(&user, wanted->user, fault));
    TRY(tree_make(&exec->tree, agent->trees, wanted->processes, wanted->memory_bytes, fault));
    TRY(make_channels(exec, ends, wanted, user.uid, fault));
    TRY(launch_make(&launch, wanted, &user, fault));
    const struct child_plan plan = {
        .arguments = launch.arguments, .environment = launch.environment,
        .directory = launch.directory, .user = &user, .memory_bytes = wanted->memory_bytes,
        .processes = wanted->processes, .in = ends->in, .out = ends->out, .error = ends->error,
        .cgroup = exec->tree->cgroup, .terminal = (wanted->flags & AGENT_EXEC_PTY) != 0};
    status done = start(exec, &plan, fault);
    launch_free(&launch);
    TRY(done);
    return loop_timer_start(agent->loop, &exec->timeout,
                            wanted->timeout_ms ? (int64_t)wanted->timeout_ms * 1000
                                               : (int64_t)INT32_MAX * 1000000,
                            on_timeout, exec, fault);
}

static void undo(struct exec *exec)
{
    struct agent *agent = exec->request.agent;
    while (exec->tree && !tree_kill(exec->tree))
        ;
    if (exec->waited > 0) {
        kill(exec->waited, SIGKILL);
        waitpid(exec->waited, NULL, 0);
    }
    exec->tree = tree_free(agent->trees, exec->tree);
    cleanup_close(&exec->out.fd);
    cleanup_close(&exec->error.fd);
    drop(&exec->request);
}

status exec_begin(struct agent *agent, uint32_t id, struct span payload, struct fault *fault)
{
    static const struct request_kind kind = {
        .on_piece = on_piece, .on_signal = on_signal, .on_resize = on_resize, .cancel = cancel,
        .resume = resume, .drop = drop};
    struct agent_exec wanted;
    struct ends ends = {-1, -1, -1};
    TRY(agent_exec_get(&wanted, payload, fault));
    if (agent->frozen)
        return FAIL(CONFLICT, fault, "the sandbox is frozen");
    struct request *request;
    TRY(request_make(&request, sizeof(struct exec), agent, id, &kind, fault));
    struct exec *exec = (struct exec *)request;
    exec->report = exec->line = exec->terminal = exec->out.fd = exec->error.fd = -1;
    exec->in.fd = -1;
    exec->out.credit = exec->error.credit = AGENT_WINDOW;
    exec->out.on_end = exec->error.on_end = on_out_end;
    exec->out.request = exec->error.request = &exec->request;
    exec->in.on_end = on_in_end;
    status done = set_up(exec, &wanted, &ends, fault);
    close_ends(&ends);
    if (done != OK)
        undo(exec);
    return done;
}
