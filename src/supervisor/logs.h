/* logs.h: between the descriptor 2 of a child and the log that all share. For child.c. */
#pragma once

#include "base/loop.h"
#include "base/span.h"

enum { LOG_LINE_MAX = 1024 }; /* of log_event, its newline included */

struct child_log { /* zeroed: none */
    int fd;        /* the reading end; -1: closed */
    struct loop *loop;
    struct loop_source *source;
    char name[24];
    const char *process; /* what its lines call themselves */
    uint8_t line[LOG_LINE_MAX];
    size_t length;
    bool too_long;
    int64_t second_began_us; /* monotonic */
    uint32_t lines, dropped; /* in that second */
    size_t bound, taken;     /* bytes ever; bound 0: none */
};

/* log must not move. ret_end: the caller's, for jail_spawn, close-on-exec and non-blocking: a child
 * that is not read loses lines, never time. */
MUST_CHECK status logs_open(struct child_log *log, int *ret_end, struct loop *loop,
                            const char *name, const char *process, struct fault *fault);
/* After so many bytes, however slowly they came, it is not read any more. */
void logs_bound(struct child_log *log, size_t bytes);
/* Takes the last words of a child that has ended. Also when zeroed or closed. */
void logs_close(struct child_log *log);

/* Whether it is, to the byte, what log_event of that process writes: then it can mislead no reader
 * of the log about who said it. */
bool logs_is_event(struct span line, const char *process);
