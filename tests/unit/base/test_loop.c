#define _GNU_SOURCE
#include "base/loop.h"

#include "base/clock.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <cmocka.h>

static struct fault fault;

static struct loop *new_loop(void)
{
    struct loop *loop = NULL;
    assert_int_equal(loop_create(&loop, &fault), OK);
    return loop;
}

struct watched {
    struct loop *loop;
    struct loop_source *source, *victim;
    int ends[2];
    uint32_t events;
    int calls;
};

static void watch(struct watched *watched, struct loop *loop, loop_on_event *on_event)
{
    *watched = (struct watched){.loop = loop};
    assert_int_equal(pipe2(watched->ends, O_NONBLOCK | O_CLOEXEC), 0);
    assert_int_equal(loop_watch(&watched->source, loop, watched->ends[0], EPOLLIN, on_event,
                                watched, &fault), OK);
}

static void unwatch(struct watched *watched)
{
    watched->source = loop_unwatch(watched->loop, watched->source);
    close(watched->ends[0]);
    close(watched->ends[1]);
}

static void count_and_read(void *context, uint32_t events)
{
    struct watched *watched = context;
    char byte;
    watched->calls++;
    watched->events = events;
    (void)!read(watched->ends[0], &byte, 1);
}

static void count_and_remove(void *context, uint32_t events)
{
    struct watched *watched = context;
    count_and_read(context, events);
    watched->source = loop_unwatch(watched->loop, watched->source);
    watched->victim = loop_unwatch(watched->loop, watched->victim);
}

static void ring(const struct watched *watched)
{
    assert_int_equal(write(watched->ends[1], "x", 1), 1);
}

static void a_ready_descriptor_calls_its_owner(void **state)
{
    (void)state;
    struct loop *loop = new_loop();
    struct watched watched;
    watch(&watched, loop, count_and_read);
    assert_int_equal(loop_turn(loop, 0, &fault), OK);
    assert_int_equal(watched.calls, 0);
    ring(&watched);
    assert_int_equal(loop_turn(loop, 0, &fault), OK);
    assert_int_equal(watched.calls, 1);
    assert_int_equal(watched.events, EPOLLIN);
    assert_int_equal(loop_change(loop, watched.source, 0, &fault), OK);
    ring(&watched);
    assert_int_equal(loop_turn(loop, 0, &fault), OK);
    assert_int_equal(watched.calls, 1);
    assert_int_equal(loop_change(loop, watched.source, EPOLLIN, &fault), OK);
    assert_int_equal(loop_turn(loop, 0, &fault), OK);
    assert_int_equal(watched.calls, 2);
    unwatch(&watched);
    assert_null(loop_free(loop));
    assert_null(loop_free(NULL));
}

static void a_source_removed_in_a_turn_is_not_called_any_more_in_that_turn(void **state)
{
    (void)state;
    struct loop *loop = new_loop();
    struct watched first, second;
    watch(&first, loop, count_and_remove);
    watch(&second, loop, count_and_remove);
    first.victim = second.source; /* whichever is called first takes the other away */
    second.victim = first.source;
    ring(&first);
    ring(&second);
    assert_int_equal(loop_turn(loop, 0, &fault), OK);
    assert_int_equal(first.calls + second.calls, 1);
    assert_int_equal(loop_turn(loop, 0, &fault), OK);
    assert_int_equal(first.calls + second.calls, 1);
    first.source = second.source = NULL;
    unwatch(&first); /* takes NULL */
    unwatch(&second);
    loop_free(loop);
}

static void a_bad_descriptor_is_refused(void **state)
{
    (void)state;
    struct loop *loop = new_loop();
    struct loop_source *source = NULL;
    assert_int_equal(loop_watch(&source, loop, -1, EPOLLIN, count_and_read, NULL, &fault),
                     INTERNAL);
    assert_null(source);
    loop_free(loop);
}

enum { TIMERS = 100 };

static struct {
    struct loop *loop;
    struct loop_timer timers[TIMERS];
    int64_t due_us[TIMERS]; /* as they were armed: fired ones forget */
    int order[TIMERS], fired;
} clockwork;

static void note_order(void *context)
{
    clockwork.order[clockwork.fired++] = (int)((struct loop_timer *)context - clockwork.timers);
}

static void start(int index, int64_t after_us)
{
    struct loop_timer *timer = &clockwork.timers[index];
    assert_int_equal(loop_timer_start(clockwork.loop, timer, after_us, note_order, timer, &fault),
                     OK);
    clockwork.due_us[index] = timer->due_us;
}

static void begin_clockwork(void)
{
    memset(&clockwork, 0, sizeof clockwork);
    clockwork.loop = new_loop();
}

static void timers_fire_in_the_order_they_are_due_also_when_some_were_stopped(void **state)
{
    (void)state;
    begin_clockwork();
    for (int i = 0; i < TIMERS; i++)
        start(i, 300000 + i * 37 % TIMERS * 100);
    for (int i = 0; i < TIMERS; i += 3) {
        loop_timer_stop(clockwork.loop, &clockwork.timers[i]);
        loop_timer_stop(clockwork.loop, &clockwork.timers[i]);
    }
    int stopped = (TIMERS + 2) / 3;
    for (int i = 1; i < TIMERS; i += 3) /* armed anew, earlier */
        start(i, i * 37 % TIMERS * 20);
    for (int turn = 0; clockwork.fired < TIMERS - stopped && turn < 2000; turn++)
        assert_int_equal(loop_turn(clockwork.loop, -1, &fault), OK);
    assert_int_equal(clockwork.fired, TIMERS - stopped);
    for (int i = 0; i < clockwork.fired; i++)
        assert_int_not_equal(clockwork.order[i] % 3, 0);
    for (int i = 1; i < clockwork.fired; i++)
        assert_true(clockwork.due_us[clockwork.order[i - 1]]
                    <= clockwork.due_us[clockwork.order[i]]);
    loop_free(clockwork.loop);
}

static void a_timer_is_not_early_and_a_turn_waits_for_it(void **state)
{
    (void)state;
    begin_clockwork();
    int64_t began = clock_monotonic_us();
    start(0, 20000);
    assert_int_equal(loop_turn(clockwork.loop, 0, &fault), OK);
    assert_int_equal(clockwork.fired, 0);
    while (clockwork.fired == 0)
        assert_int_equal(loop_turn(clockwork.loop, -1, &fault), OK);
    assert_true(clock_monotonic_us() - began >= 20000);
    assert_int_equal(clockwork.timers[0].due_us, 0);
    loop_free(clockwork.loop);
}

struct repeated {
    struct loop *loop;
    struct loop_timer timer;
    int left;
};

static void again(void *context)
{
    struct repeated *repeated = context;
    if (--repeated->left == 0)
        loop_stop(repeated->loop);
    else
        assert_int_equal(loop_timer_start(repeated->loop, &repeated->timer, 100, again, repeated,
                                          &fault), OK);
}

static void a_timer_may_arm_itself_again_and_stop_the_loop(void **state)
{
    (void)state;
    struct repeated repeated = {.loop = new_loop(), .left = 5};
    assert_int_equal(loop_timer_start(repeated.loop, &repeated.timer, -5, again, &repeated, &fault),
                     OK);
    assert_int_equal(loop_run(repeated.loop, &fault), OK);
    assert_int_equal(repeated.left, 0);
    loop_free(repeated.loop);
}

static struct watched *hooked[2];
static int hook_calls, calls_before_hook;

static void on_turn_end(void *context)
{
    assert_ptr_equal(context, hooked);
    hook_calls++;
    calls_before_hook = hooked[0]->calls + hooked[1]->calls;
}

static void the_hook_runs_once_after_everything_of_a_turn(void **state)
{
    (void)state;
    struct loop *loop = new_loop();
    struct watched first, second;
    watch(&first, loop, count_and_read);
    watch(&second, loop, count_and_read);
    hooked[0] = &first;
    hooked[1] = &second;
    loop_on_turn_end(loop, on_turn_end, hooked);
    ring(&first);
    ring(&second);
    assert_int_equal(loop_turn(loop, 0, &fault), OK);
    assert_int_equal(hook_calls, 1);
    assert_int_equal(calls_before_hook, 2);
    unwatch(&first);
    unwatch(&second);
    loop_free(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_ready_descriptor_calls_its_owner),
        cmocka_unit_test(a_source_removed_in_a_turn_is_not_called_any_more_in_that_turn),
        cmocka_unit_test(a_bad_descriptor_is_refused),
        cmocka_unit_test(timers_fire_in_the_order_they_are_due_also_when_some_were_stopped),
        cmocka_unit_test(a_timer_is_not_early_and_a_turn_waits_for_it),
        cmocka_unit_test(a_timer_may_arm_itself_again_and_stop_the_loop),
        cmocka_unit_test(the_hook_runs_once_after_everything_of_a_turn),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
