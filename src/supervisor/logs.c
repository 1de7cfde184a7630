/* logs.c: what a child writes on its descriptor 2. Each has a pipe of its own, for the log itself
 * is shared: a cell that held it could cut it, read it, write over what others said, or block them
 * all by its flags. Passed on is what has the very form of log_event in the child's own name;
 * anything else is quoted. A child that says too much is cut short, not waited for. */
#define _GNU_SOURCE
#include "base/clock.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "supervisor/logs.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum {
    READS_PER_TURN = 4,
    LINES_PER_SECOND = 200,
    SECOND_US = 1000 * 1000,
    TIME_LENGTH = CLOCK_TEXT_SIZE - 1,
};

static bool take(struct span *text, struct span wanted)
{
    if (!span_starts_with(*text, wanted))
        return false;
    *text = (struct span){text->data + wanted.length, text->length - wanted.length};
    return true;
}

static bool take_time(struct span *text)
{
    static const char form[] = "dddd-dd-ddTdd:dd:dd.ddddddZ";
    static_assert(sizeof form - 1 == TIME_LENGTH, "the form of clock_text");
    if (text->length < TIME_LENGTH)
        return false;
    for (size_t i = 0; i < TIME_LENGTH; i++) {
        uint8_t byte = text->data[i];
        if (form[i] == 'd' ? byte < '0' || byte > '9' : byte != (uint8_t)form[i])
            return false;
    }
    *text = (struct span){text->data + TIME_LENGTH, text->length - TIME_LENGTH};
    return true;
}

static bool take_level(struct span *text)
{
    static const char *const levels[] = {"debug", "info", "warn", "error"};
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++)
        if (take(text, span_of_text(levels[i])))
            return true;
    return false;
}

static bool take_event(struct span *text)
{
    size_t length = 0;
    while (length < text->length
           && ((text->data[length] >= 'a' && text->data[length] <= 'z')
               || text->data[length] == '.' || text->data[length] == '_'))
        length++;
    *text = (struct span){text->data + length, text->length - length};
    return length > 0;
}

/* The inside of a JSON string as log_event writes it: nothing in it ends the string. */
static bool take_escaped(struct span *text)
{
    size_t at = 0;
    while (at < text->length && text->data[at] != '"') {
        size_t step = text->data[at] != '\\' ? 1 : at + 1 < text->length
                    && text->data[at + 1] == 'u' ? 6 : 2;
        if (step > text->length - at)
            return false;
        for (size_t i = 0; i < step; i++)
            if (text->data[at + i] < 0x20 || text->data[at + i] >= 0x7F)
                return false;
        for (size_t i = 2; i < step; i++)
            if (!strchr("0123456789abcdef", text->data[at + i]))
                return false;
        if (step == 2 && text->data[at + 1] != '"' && text->data[at + 1] != '\\')
            return false;
        at += step;
    }
    *text = (struct span){text->data + at, text->length - at};
    return true;
}

bool logs_is_event(struct span line, const char *process)
{
    return take(&line, SPAN("{\"time\":\"")) && take_time(&line)
        && take(&line, SPAN("\",\"level\":\"")) && take_level(&line)
        && take(&line, SPAN("\",\"process\":\"")) && take(&line, span_of_text(process))
        && take(&line, SPAN("\",\"event\":\"")) && take_event(&line)
        && take(&line, SPAN("\",\"detail\":\"")) && take_escaped(&line)
        && span_equal(line, SPAN("\"}"));
}

static void quote(const struct child_log *log, struct span line)
{
    char text[300];
    size_t length = line.length < sizeof text - 1 ? line.length : sizeof text - 1;
    for (size_t i = 0; i < length; i++)
        text[i] = line.data[i] ? (char)line.data[i] : '?';
    text[length] = '\0';
    log_event(LOG_WARN, "child.said", "%s: %s", log->name, text);
}

static bool may_speak(struct child_log *log)
{
    int64_t now_us = clock_monotonic_us();
    if (now_us - log->second_began_us >= SECOND_US) {
        if (log->dropped)
            log_event(LOG_WARN, "child.cut_short", "%s: %u lines dropped", log->name,
                      log->dropped);
        log->second_began_us = now_us;
        log->lines = log->dropped = 0;
    }
    if (log->lines < LINES_PER_SECOND) {
        log->lines++;
        return true;
    }
    log->dropped++;
    return false;
}

/* Ends the line that was collected; its newline is written with it, in one call. */
static void pass_on(struct child_log *log)
{
    struct span line = {log->line, log->length};
    bool whole = !log->too_long;
    log->length = 0;
    log->too_long = false;
    if (line.length == 0 || !may_speak(log))
        return;
    if (!whole || !logs_is_event(line, log->process)) {
        quote(log, line);
        return;
    }
    log->line[line.length] = '\n';
    ssize_t ignored = write(STDERR_FILENO, log->line, line.length + 1);
    (void)ignored;
}

static void collect(struct child_log *log, struct span bytes)
{
    for (size_t i = 0; i < bytes.length; i++) {
        if (bytes.data[i] == '\n')
            pass_on(log);
        else if (log->length < sizeof log->line - 1)
            log->line[log->length++] = bytes.data[i];
        else
            log->too_long = true;
    }
}

static bool is_over(const struct child_log *log)
{
    return log->bound && log->taken >= log->bound;
}

/* False at the end, which is when every copy of the child's end is closed, or its bound is over. */
static bool read_some(struct child_log *log, int reads)
{
    uint8_t bytes[4096];
    for (int i = 0; i < reads && !is_over(log); i++) {
        ssize_t count = read(log->fd, bytes, sizeof bytes);
        if (count < 0)
            return errno == EAGAIN || errno == EINTR;
        if (count == 0)
            return false;
        collect(log, (struct span){bytes, (size_t)count});
        log->taken += (size_t)count;
        if (is_over(log))
            log_event(LOG_WARN, "child.cut_off", "%s: more than %zu bytes", log->name, log->bound);
    }
    return !is_over(log);
}

void logs_bound(struct child_log *log, size_t bytes)
{
    log->bound = bytes;
}

static void on_readable(void *context, uint32_t events)
{
    struct child_log *log = context;
    (void)events;
    if (!read_some(log, READS_PER_TURN))
        log->source = loop_unwatch(log->loop, log->source);
}

status logs_open(struct child_log *log, int *ret_end, struct loop *loop, const char *name,
                 const char *process, struct fault *fault)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK))
        return FAIL(UNAVAILABLE, fault, "log: pipe: %s", strerror(errno));
    *log = (struct child_log){.fd = ends[0], .loop = loop, .process = process};
    snprintf(log->name, sizeof log->name, "%s", name);
    status watched = loop_watch(&log->source, loop, log->fd, EPOLLIN, on_readable, log, fault);
    if (watched != OK) {
        close(ends[0]);
        close(ends[1]);
        log->fd = -1;
        return watched;
    }
    *ret_end = ends[1];
    return OK;
}

void logs_close(struct child_log *log)
{
    if (!log->loop || log->fd < 0)
        return;
    /* its last words: a pipe holds no more than so many */
    if (read_some(log, 32) || log->length)
        pass_on(log);
    if (log->dropped)
        log_event(LOG_WARN, "child.cut_short", "%s: %u lines dropped", log->name, log->dropped);
    log->source = loop_unwatch(log->loop, log->source);
    cleanup_close(&log->fd);
}
