/* sandbox_pump.c: four descriptors and the signals of this process against one session. Nothing
 * here waits for one of them alone, so none holds up another; the credit of the session is what
 * slows down the faster side. */
#define _GNU_SOURCE
#include "base/cleanup.h"
#include "cli/sandbox.h"
#include "cli/terminal.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { READ_BYTES = 64 * 1024 };

enum place { STREAM, INPUT, OUTPUT, ERRORS, SIGNALS, PLACES };

struct pump {
    struct agent_session *session;
    int fds[PLACES]; /* -1: not any more */
    bool sockets[PLACES], pipes[PLACES];
    bool dead;       /* the stream takes nothing any more; what it holds is still read */
    uint32_t warned; /* signals passed on: the next one ends it */
    int killed_by;
    bool over;
    enum pump_end end;
    struct fault fault;
};

static void finish(struct pump *pump, enum pump_end end)
{
    if (!pump->over)
        pump->end = end;
    pump->over = true;
}

/* ---- the stream ---- */

static void receive(struct pump *pump)
{
    static uint8_t bytes[READ_BYTES];
    size_t most = agent_session_room(pump->session);
    ssize_t got = recv(pump->fds[STREAM], bytes, most < sizeof bytes ? most : sizeof bytes,
                       MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        finish(pump, PUMP_CLOSED);
        return;
    }
    if (agent_session_take(pump->session, (struct span){bytes, (size_t)got}, &pump->fault) != OK)
        finish(pump, PUMP_BREACH);
}

static void transmit(struct pump *pump)
{
    struct span waiting = agent_session_waiting(pump->session);
    if (waiting.length == 0 || pump->dead)
        return;
    ssize_t sent = send(pump->fds[STREAM], waiting.data, waiting.length,
                        MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent >= 0)
        agent_session_sent(pump->session, (size_t)sent);
    else if (errno != EAGAIN && errno != EINTR)
        pump->dead = true;
}

/* ---- input ---- */

static void read_input(struct pump *pump)
{
    uint8_t bytes[AGENT_DATA_MAX];
    size_t most = agent_session_input_room(pump->session);
    if (most == 0)
        return;
    ssize_t got = read(pump->fds[INPUT], bytes, most);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got > 0) {
        agent_session_input(pump->session, (struct span){bytes, (size_t)got});
        return;
    }
    agent_session_input_end(pump->session); /* a terminal that is gone is an end, too */
    pump->fds[INPUT] = -1;
}

/* ---- output ---- */

/* At most what will not make us wait: descriptors are the caller's, so they stay as they are. */
static ssize_t write_some(const struct pump *pump, enum place place, struct span bytes)
{
    if (pump->sockets[place])
        return send(pump->fds[place], bytes.data, bytes.length, MSG_DONTWAIT | MSG_NOSIGNAL);
    size_t most = pump->pipes[place] ? (size_t)PIPE_BUF : (size_t)READ_BYTES;
    return write(pump->fds[place], bytes.data, bytes.length < most ? bytes.length : most);
}

static bool is_writable(int fd)
{
    struct pollfd polled = {.fd = fd, .events = POLLOUT};
    return poll(&polled, 1, 0) == 1;
}

static void output_failed(struct pump *pump, enum place place)
{
    pump->fds[place] = -1;
    if (place == ERRORS)
        return; /* nobody reads the errors: the command goes on */
    if (errno == EPIPE)
        pump->fault.detail[0] = '\0';
    else
        (void)FAIL(INTERNAL, &pump->fault, "standard output: %s", strerror(errno));
    finish(pump, PUMP_OUTPUT);
}

static void write_output(struct pump *pump, enum place place, enum agent_channel channel)
{
    enum { ROUNDS = 16 };
    for (int i = 0; i < ROUNDS; i++) {
        struct span waiting = agent_session_output(pump->session, channel);
        if (waiting.length == 0 || (i > 0 && !is_writable(pump->fds[place])))
            return;
        ssize_t written = write_some(pump, place, waiting);
        if (written < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (written < 0) {
            output_failed(pump, place);
            return;
        }
        agent_session_written(pump->session, channel, (size_t)written);
    }
}

/* What nobody can read is taken all the same, so that the command is not held up. */
static void drop_unread(struct pump *pump)
{
    if (pump->fds[OUTPUT] < 0)
        agent_session_written(pump->session, AGENT_OUT,
                              agent_session_output(pump->session, AGENT_OUT).length);
    if (pump->fds[ERRORS] < 0)
        agent_session_written(pump->session, AGENT_ERROR,
                              agent_session_output(pump->session, AGENT_ERROR).length);
}

/* ---- signals ---- */

static void resize(struct pump *pump)
{
    uint16_t rows, columns;
    terminal_size(&rows, &columns);
    agent_session_resize(pump->session, rows, columns);
}

static void take_signal(struct pump *pump, int number)
{
    if (number == SIGWINCH) {
        resize(pump);
    } else if (number == SIGCONT) {
        terminal_raw_again();
        resize(pump);
    } else if (pump->warned++ || number == SIGHUP || pump->session->at < AGENT_SESSION_ASKED) {
        pump->killed_by = number;
        finish(pump, PUMP_KILLED);
    } else {
        agent_session_signal(pump->session, (uint8_t)number);
    }
}

static void read_signal(struct pump *pump)
{
    struct signalfd_siginfo info;
    if (read(pump->fds[SIGNALS], &info, sizeof info) == (ssize_t)sizeof info)
        take_signal(pump, (int)info.ssi_signo);
}

/* Blocked until sandbox_pump returns: then each has its usual meaning again. */
static int open_signals(sigset_t *ret_before)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH, SIGCONT};
    sigset_t wanted;
    sigemptyset(&wanted);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        sigaddset(&wanted, numbers[i]);
    signal(SIGPIPE, SIG_IGN);
    sigprocmask(SIG_BLOCK, &wanted, ret_before);
    return signalfd(-1, &wanted, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* ---- turns ---- */

static short wanted_of(const struct pump *pump, enum place place)
{
    const struct agent_session *session = pump->session;
    bool sends = agent_session_waiting(session).length && !pump->dead;
    switch (place) {
    case STREAM:
        if (agent_session_is_over(session))
            return 0;
        return sends ? POLLIN | POLLOUT : POLLIN;
    case INPUT: return agent_session_input_room(session) ? POLLIN : 0;
    case OUTPUT: return agent_session_output(session, AGENT_OUT).length ? POLLOUT : 0;
    case ERRORS: return agent_session_output(session, AGENT_ERROR).length ? POLLOUT : 0;
    default: return POLLIN;
    }
}

static bool is_drained(const struct pump *pump)
{
    return agent_session_output(pump->session, AGENT_OUT).length == 0
        && agent_session_output(pump->session, AGENT_ERROR).length == 0;
}

static void turn(struct pump *pump)
{
    struct pollfd polled[PLACES];
    for (enum place place = STREAM; place < PLACES; place++) {
        short wanted = wanted_of(pump, place);
        polled[place] = (struct pollfd){.fd = wanted ? pump->fds[place] : -1, .events = wanted};
    }
    if (poll(polled, PLACES, -1) < 0)
        return; /* a signal that was not for us */
    if (polled[SIGNALS].revents)
        read_signal(pump);
    if (polled[STREAM].revents & ~POLLOUT && !pump->over)
        receive(pump);
    if (polled[OUTPUT].revents && !pump->over)
        write_output(pump, OUTPUT, AGENT_OUT);
    if (polled[ERRORS].revents && !pump->over)
        write_output(pump, ERRORS, AGENT_ERROR);
    if (polled[INPUT].revents && !pump->over)
        read_input(pump);
    drop_unread(pump);
    transmit(pump);
    if (pump->session->to_guest.failed) {
        (void)FAIL(BAD_REQUEST, &pump->fault, "it takes nothing that is sent to it");
        finish(pump, PUMP_BREACH);
    }
    if (agent_session_is_over(pump->session) && is_drained(pump))
        finish(pump, PUMP_OVER);
}

/* A sandbox that ends in the middle has its last words printed. */
static void drain(struct pump *pump)
{
    pump->over = false;
    while (!pump->over && !is_drained(pump)) {
        struct pollfd polled[] = {
            {.fd = wanted_of(pump, OUTPUT) ? pump->fds[OUTPUT] : -1, .events = POLLOUT},
            {.fd = wanted_of(pump, ERRORS) ? pump->fds[ERRORS] : -1, .events = POLLOUT},
            {.fd = pump->fds[SIGNALS], .events = POLLIN},
        };
        if (poll(polled, 3, -1) < 0)
            continue;
        if (polled[0].revents)
            write_output(pump, OUTPUT, AGENT_OUT);
        if (polled[1].revents)
            write_output(pump, ERRORS, AGENT_ERROR);
        if (polled[2].revents)
            read_signal(pump);
        drop_unread(pump);
    }
}

static void know(struct pump *pump, enum place place, int fd)
{
    struct stat info;
    pump->fds[place] = fstat(fd, &info) ? -1 : fd;
    pump->sockets[place] = pump->fds[place] >= 0 && S_ISSOCK(info.st_mode);
    pump->pipes[place] = pump->fds[place] >= 0 && S_ISFIFO(info.st_mode);
}

enum pump_end sandbox_pump(struct agent_session *session, int stream, int *ret_signal,
                           struct fault *fault)
{
    struct pump pump = {.session = session};
    sigset_t before;
    know(&pump, STREAM, stream);
    know(&pump, INPUT, STDIN_FILENO);
    know(&pump, OUTPUT, STDOUT_FILENO);
    know(&pump, ERRORS, STDERR_FILENO);
    _cleanup_close_ int signals = open_signals(&before);
    pump.fds[SIGNALS] = signals;
    if (pump.fds[INPUT] < 0)
        agent_session_input_end(session);
    while (!pump.over)
        turn(&pump);
    if (pump.end == PUMP_CLOSED || pump.end == PUMP_BREACH) {
        enum pump_end end = pump.end;
        struct fault why = pump.fault;
        drain(&pump);
        pump.end = pump.killed_by ? PUMP_KILLED : end;
        pump.fault = why;
    }
    sigprocmask(SIG_SETMASK, &before, NULL);
    *ret_signal = pump.killed_by;
    *fault = pump.fault;
    return pump.end;
}
