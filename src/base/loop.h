/* loop.h: the event loop of every process: epoll, timers, and a hook at the end of each turn.
 *
 * One thread, no locks. Callbacks may add, change and remove sources and timers, their own
 * included. A turn handles what epoll reported and the timers that are due, then calls the
 * turn-end hook once: that is where a cell commits and where gateways flush. */
#pragma once

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

struct loop;
struct loop_source; /* a watched fd */

/* events: EPOLLIN and so on. */
typedef void loop_on_event(void *context, uint32_t events);
typedef void loop_on_time(void *context);

/* A timer lives inside its owner, zeroed at first; due_us 0 means not armed. */
struct loop_timer {
    loop_on_time *on_time;
    void *context;
    int64_t due_us; /* monotonic */
    uint32_t slot;  /* of the heap; the loop's own */
};

MUST_CHECK status loop_create(struct loop **ret, struct fault *fault);
struct loop *loop_free(struct loop *loop); /* returns NULL; sources are forgotten, fds stay open */

/* The fd stays the caller's and must be removed before it is closed. */
MUST_CHECK status loop_watch(struct loop_source **ret, struct loop *loop, int fd, uint32_t events,
                             loop_on_event *on_event, void *context, struct fault *fault);
MUST_CHECK status loop_change(struct loop *loop, struct loop_source *source, uint32_t events,
                              struct fault *fault);
/* Returns NULL; takes NULL. */
struct loop_source *loop_unwatch(struct loop *loop, struct loop_source *source);

/* (Re)arms; microseconds from now. */
MUST_CHECK status loop_timer_start(struct loop *loop, struct loop_timer *timer, int64_t after_us,
                                   loop_on_time *on_time, void *context, struct fault *fault);
void loop_timer_stop(struct loop *loop, struct loop_timer *timer); /* also when not armed */

void loop_on_turn_end(struct loop *loop, loop_on_time *hook, void *context);

/* Called straight before and after the wait of each turn: for a thread that shares what its loop
 * serves with others under a lock, and lets go of it only while nothing is to be done. */
void loop_around_wait(struct loop *loop, loop_on_time *before, loop_on_time *after, void *context);

/* Runs until loop_stop. INTERNAL when epoll itself fails. */
MUST_CHECK status loop_run(struct loop *loop, struct fault *fault);
MUST_CHECK status loop_turn(struct loop *loop, int timeout_ms, struct fault *fault);
void loop_stop(struct loop *loop);
