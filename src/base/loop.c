#define _GNU_SOURCE
#include "base/loop.h"

#include "base/clock.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { EVENTS_PER_TURN = 128 };

struct loop_source {
    int fd;
    bool removed; /* freed at the end of the turn: events already reported may still name it */
    loop_on_event *on_event;
    void *context;
    struct loop_source *next_removed;
};

struct loop {
    int epoll;
    bool stopping;
    struct loop_source *removed;
    struct loop_timer **heap; /* a binary heap by due_us; slot is the index + 1 */
    uint32_t timers, capacity;
    loop_on_time *turn_end;
    void *turn_end_context;
    loop_on_time *before_wait, *after_wait;
    void *wait_context;
};

status loop_create(struct loop **ret, struct fault *fault)
{
    struct loop *loop = calloc(1, sizeof *loop);
    if (!loop)
        return FAIL(INTERNAL, fault, "event loop: out of memory");
    loop->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (loop->epoll < 0) {
        free(loop);
        return FAIL(INTERNAL, fault, "event loop: epoll_create1: %s", strerror(errno));
    }
    *ret = loop;
    return OK;
}

static void free_removed(struct loop *loop)
{
    while (loop->removed) {
        struct loop_source *source = loop->removed;
        loop->removed = source->next_removed;
        free(source);
    }
}

struct loop *loop_free(struct loop *loop)
{
    if (!loop)
        return NULL;
    free_removed(loop);
    close(loop->epoll);
    free(loop->heap);
    free(loop);
    return NULL;
}

status loop_watch(struct loop_source **ret, struct loop *loop, int fd, uint32_t events,
                  loop_on_event *on_event, void *context, struct fault *fault)
{
    struct loop_source *source = calloc(1, sizeof *source);
    if (!source)
        return FAIL(INTERNAL, fault, "event loop: out of memory");
    *source = (struct loop_source){.fd = fd, .on_event = on_event, .context = context};
    struct epoll_event event = {.events = events, .data.ptr = source};
    if (epoll_ctl(loop->epoll, EPOLL_CTL_ADD, fd, &event)) {
        free(source);
        return FAIL(INTERNAL, fault, "event loop: epoll_ctl: %s", strerror(errno));
    }
    *ret = source;
    return OK;
}

status loop_change(struct loop *loop, struct loop_source *source, uint32_t events,
                   struct fault *fault)
{
    struct epoll_event event = {.events = events, .data.ptr = source};
    if (epoll_ctl(loop->epoll, EPOLL_CTL_MOD, source->fd, &event))
        return FAIL(INTERNAL, fault, "event loop: epoll_ctl: %s", strerror(errno));
    return OK;
}

struct loop_source *loop_unwatch(struct loop *loop, struct loop_source *source)
{
    if (!source)
        return NULL;
    assert(!source->removed);
    epoll_ctl(loop->epoll, EPOLL_CTL_DEL, source->fd, NULL);
    source->removed = true;
    source->next_removed = loop->removed;
    loop->removed = source;
    return NULL;
}

static void place(struct loop *loop, struct loop_timer *timer, uint32_t index)
{
    loop->heap[index] = timer;
    timer->slot = index + 1;
}

static void sift_up(struct loop *loop, uint32_t index)
{
    struct loop_timer *timer = loop->heap[index];
    while (index > 0 && loop->heap[(index - 1) / 2]->due_us > timer->due_us) {
        place(loop, loop->heap[(index - 1) / 2], index);
        index = (index - 1) / 2;
    }
    place(loop, timer, index);
}

static void sift_down(struct loop *loop, uint32_t index)
{
    struct loop_timer *timer = loop->heap[index];
    for (;;) {
        uint32_t child = 2 * index + 1;
        if (child + 1 < loop->timers
            && loop->heap[child + 1]->due_us < loop->heap[child]->due_us)
            child++;
        if (child >= loop->timers || loop->heap[child]->due_us >= timer->due_us)
            break;
        place(loop, loop->heap[child], index);
        index = child;
    }
    place(loop, timer, index);
}

void loop_timer_stop(struct loop *loop, struct loop_timer *timer)
{
    if (timer->due_us == 0)
        return;
    uint32_t index = timer->slot - 1;
    struct loop_timer *last = loop->heap[--loop->timers];
    if (last != timer) {
        place(loop, last, index);
        sift_down(loop, index);
        sift_up(loop, last->slot - 1);
    }
    timer->due_us = 0;
    timer->slot = 0;
}

status loop_timer_start(struct loop *loop, struct loop_timer *timer, int64_t after_us,
                        loop_on_time *on_time, void *context, struct fault *fault)
{
    loop_timer_stop(loop, timer);
    if (loop->timers == loop->capacity) {
        uint32_t capacity = loop->capacity ? loop->capacity * 2 : 16;
        struct loop_timer **heap = reallocarray(loop->heap, capacity, sizeof *heap);
        if (!heap)
            return FAIL(INTERNAL, fault, "event loop: out of memory");
        loop->heap = heap;
        loop->capacity = capacity;
    }
    timer->on_time = on_time;
    timer->context = context;
    timer->due_us = clock_monotonic_us() + (after_us > 0 ? after_us : 0);
    loop->heap[loop->timers] = timer;
    sift_up(loop, loop->timers++);
    return OK;
}

void loop_on_turn_end(struct loop *loop, loop_on_time *hook, void *context)
{
    loop->turn_end = hook;
    loop->turn_end_context = context;
}

void loop_around_wait(struct loop *loop, loop_on_time *before, loop_on_time *after, void *context)
{
    loop->before_wait = before;
    loop->after_wait = after;
    loop->wait_context = context;
}

static void fire_due(struct loop *loop)
{
    int64_t now = clock_monotonic_us();
    while (loop->timers && loop->heap[0]->due_us <= now) {
        struct loop_timer *timer = loop->heap[0];
        loop_timer_stop(loop, timer);
        timer->on_time(timer->context);
    }
}

static int wait_ms(const struct loop *loop, int timeout_ms)
{
    if (loop->timers == 0)
        return timeout_ms;
    int64_t left_us = loop->heap[0]->due_us - clock_monotonic_us();
    int64_t left_ms = left_us <= 0 ? 0 : (left_us + 999) / 1000;
    return timeout_ms >= 0 && timeout_ms < left_ms ? timeout_ms
         : left_ms > INT32_MAX ? INT32_MAX : (int)left_ms;
}

status loop_turn(struct loop *loop, int timeout_ms, struct fault *fault)
{
    struct epoll_event events[EVENTS_PER_TURN];
    int wait = wait_ms(loop, timeout_ms);
    if (loop->before_wait)
        loop->before_wait(loop->wait_context);
    int count = epoll_wait(loop->epoll, events, EVENTS_PER_TURN, wait);
    int reason = errno;
    if (loop->after_wait)
        loop->after_wait(loop->wait_context);
    if (count < 0 && reason != EINTR)
        return FAIL(INTERNAL, fault, "event loop: epoll_wait: %s", strerror(reason));
    for (int i = 0; i < count; i++) {
        struct loop_source *source = events[i].data.ptr;
        if (!source->removed)
            source->on_event(source->context, events[i].events);
    }
    fire_due(loop);
    if (loop->turn_end)
        loop->turn_end(loop->turn_end_context);
    free_removed(loop);
    return OK;
}

status loop_run(struct loop *loop, struct fault *fault)
{
    loop->stopping = false;
    while (!loop->stopping)
        TRY(loop_turn(loop, -1, fault));
    return OK;
}

void loop_stop(struct loop *loop)
{
    loop->stopping = true;
}
