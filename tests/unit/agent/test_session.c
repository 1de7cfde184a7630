/* The connection: whatever comes, a breach ends it, and with it all that runs. */
#define _GNU_SOURCE
#include "host.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct fault fault;

static void expect_breach(struct host *host)
{
    assert_true(host_has_ended(host));
    assert_int_equal(host_stop(host), 0);
}

static void put_frame(struct host *host, uint32_t length, uint8_t type, uint32_t id)
{
    uint8_t storage[9];
    struct buffer out = buffer_over(storage, sizeof storage);
    buffer_put_u32(&out, length);
    buffer_put_u8(&out, type);
    buffer_put_u32(&out, id);
    host_send(host, buffer_span(&out));
}

static void a_frame_that_is_none_ends_the_connection(void **state)
{
    (void)state;
    static const struct {
        uint32_t length;
        uint8_t type;
        uint32_t id;
    } heads[] = {{UINT32_MAX, AGENT_DATA, 1}, {AGENT_FRAME_MAX + 1, AGENT_EXEC, 1}, {4, 0x10, 1},
                 {0, 0, 0}, {5, 0, 1}, {5, 0xFF, 1}, {5, AGENT_METRICS, 0}, {5, AGENT_HELLO, 0},
                 {5, AGENT_STARTED, 1}, {5, AGENT_EXITED, 1}, {5, AGENT_DONE, 1},
                 {5, AGENT_EVENT, 1}, {5, AGENT_DATA, 1}, {5, AGENT_END, 1}, {5, AGENT_CREDIT, 1},
                 {5, AGENT_SIGNAL, 1}, {5, AGENT_RESIZE, 1}};
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
        struct host host;
        host_start(&host);
        put_frame(&host, heads[i].length, heads[i].type, heads[i].id);
        expect_breach(&host);
    }
}

static void a_request_that_cannot_be_read_is_answered(void **state)
{
    (void)state;
    struct host host;
    host_start(&host);
    for (uint8_t type = AGENT_EXEC; type <= AGENT_SHUTDOWN; type++) {
        assert_int_not_equal(host_ask(&host, type, 1, SPAN("\xff\xff\xff\xff\xff")), OK);
        if (type != AGENT_METRICS && type != AGENT_FREEZE && type != AGENT_THAW)
            assert_int_not_equal(host_ask(&host, type, 1, (struct span){0}), OK);
    }
    assert_int_equal(host_ask(&host, AGENT_METRICS, 1, (struct span){0}), OK);
    assert_int_equal(host_stop(&host), 0);
}

static void an_id_in_use_is_not_begun_again(void **state)
{
    (void)state;
    struct host host;
    struct agent_exec exec = host_shell("sleep 3112");
    host_start(&host);
    host_exec(&host, 1, &exec);
    host_expect(&host, AGENT_STARTED, 1);
    host_request(&host, AGENT_METRICS, 1, (struct span){0});
    expect_breach(&host);
    assert_int_equal(processes_with("3112"), 0);
}

static void bytes_beyond_the_credit_end_the_connection(void **state)
{
    (void)state;
    static uint8_t piece[AGENT_DATA_MAX];
    struct host host;
    struct agent_exec exec = host_shell("sleep 3113");
    exec.flags = AGENT_EXEC_STDIN;
    host_start(&host);
    host_exec(&host, 1, &exec);
    host_expect(&host, AGENT_STARTED, 1);
    /* 64 KiB of it are in the pipe and given back: they count anew only when the host knows */
    uint64_t window = AGENT_WINDOW;
    for (uint64_t sent = 0; sent + sizeof piece <= window; sent += sizeof piece) {
        host_put(&host, 1, AGENT_IN, SPAN_OF(piece));
        if (!host_is_quiet(&host, 100)) {
            struct agent_frame frame = host_expect(&host, AGENT_CREDIT, 1);
            struct agent_piece credit;
            assert_int_equal(agent_piece_get(&credit, &frame, &fault), OK);
            window += credit.credit;
        }
    }
    assert_true(host_is_quiet(&host, 100));
    host_put(&host, 1, AGENT_IN, SPAN_OF(piece));
    host_put(&host, 1, AGENT_IN, SPAN_OF(piece));
    expect_breach(&host);
    assert_int_equal(processes_with("3113"), 0);
}

static void too_much_credit_and_ends_out_of_turn_end_it_too(void **state)
{
    (void)state;
    struct agent_exec exec = host_shell("sleep 3114");
    exec.flags = AGENT_EXEC_STDIN;
    for (int what = 0; what < 6; what++) {
        struct host host;
        host_start(&host);
        host_exec(&host, 1, &exec);
        host_expect(&host, AGENT_STARTED, 1);
        if (what == 0)
            host_credit(&host, 1, AGENT_OUT, AGENT_CREDIT_MAX);
        else if (what == 1)
            host_credit(&host, 1, AGENT_IN, 1);
        else if (what == 2)
            host_end(&host, 1, AGENT_OUT);
        else if (what == 3)
            host_put(&host, 1, AGENT_ERROR, SPAN("x"));
        else if (what == 4)
            host_request(&host, AGENT_RESIZE, 1, SPAN("\0\1\0\1"));
        else
            host_end(&host, 1, AGENT_IN);
        host_end(&host, 1, AGENT_IN); /* of the last: a second end */
        expect_breach(&host);
    }
    assert_int_equal(processes_with("3114"), 0);
}

static void what_crosses_the_end_of_its_id_means_nothing(void **state)
{
    (void)state;
    struct host host;
    host_start(&host);
    host_put(&host, 9, AGENT_IN, SPAN("x"));
    host_end(&host, 9, AGENT_IN);
    host_credit(&host, 9, AGENT_OUT, 1);
    host_signal(&host, 9, 15);
    host_request(&host, AGENT_RESIZE, 9, SPAN("\0\1\0\1"));
    host_cancel(&host, 9);
    assert_int_equal(host_ask(&host, AGENT_METRICS, 9, (struct span){0}), OK);
    assert_int_equal(host_stop(&host), 0);
}

static void frames_may_come_in_any_pieces_and_many_at_once(void **state)
{
    (void)state;
    struct host host;
    struct buffer out = buffer_of(1 << 20);
    host_start(&host);
    for (uint32_t id = 1; id <= 5000; id++)
        agent_frame_put(&out, AGENT_METRICS, id, (struct span){0});
    for (size_t from = 0; from < 90; from++)
        host_send(&host, (struct span){out.data + from, 1});
    host_send(&host, (struct span){out.data + 90, out.length - 90});
    for (uint32_t id = 1; id <= 5000; id++)
        assert_int_equal(host_done(&host, id).code, OK);
    buffer_free(&out);
    assert_int_equal(host_stop(&host), 0);
}

/* Answers are larger than questions: who asks and never reads must not fill the agent's memory. */
static void who_asks_and_does_not_read_waits(void **state)
{
    (void)state;
    struct host host;
    struct buffer one = buffer_of(1 << 10), all = buffer_of(1 << 20);
    host_start(&host);
    buffer_put_text_field(&one, "/proc");
    buffer_put_text_field(&one, "");
    for (uint32_t id = 1; id <= 300; id++)
        agent_frame_put(&all, AGENT_FILE_LIST, id, buffer_span(&one));
    host_send(&host, buffer_span(&all));
    usleep(300 * 1000);
    for (uint32_t id = 1; id <= 300; id++)
        assert_int_equal(host_done(&host, id).code, OK);
    buffer_free(&one);
    buffer_free(&all);
    assert_int_equal(host_stop(&host), 0);
}

static void metrics_are_true_and_the_clock_is_not_a_containers_to_set(void **state)
{
    (void)state;
    struct host host;
    struct agent_metrics metrics;
    host_start(&host);
    host_request(&host, AGENT_METRICS, 1, (struct span){0});
    assert_int_equal(agent_metrics_get(&metrics, host_done(&host, 1).result, &fault), OK);
    assert_true(metrics.uptime_us > 0 && metrics.cpu_us > 0 && metrics.processes > 1);
    assert_true(metrics.memory_kib > metrics.available_kib && metrics.available_kib > 0);
    assert_true(metrics.disk_kib >= metrics.free_kib && metrics.disk_kib > 0);
    if (!host_is_guest())
        assert_int_equal(host_ask(&host, AGENT_CLOCK_SET, 2, SPAN("\0\0\0\0\0\0\0\1")),
                         FORBIDDEN_POLICY);
    assert_int_equal(host_stop(&host), 0);
}

static void a_shutdown_is_answered_and_done(void **state)
{
    (void)state;
    if (host_is_guest())
        skip(); /* test_guest.c: it ends otherwise */
    struct host host;
    struct agent_exec exec = host_shell("setsid sleep 3115 & sleep 3115");
    host_start(&host);
    host_exec(&host, 1, &exec);
    host_expect(&host, AGENT_STARTED, 1);
    assert_int_equal(host_ask(&host, AGENT_SHUTDOWN, 2, SPAN("\2")), BAD_FIELD);
    assert_int_equal(host_ask(&host, AGENT_SHUTDOWN, 3, SPAN("\0")), OK);
    expect_breach(&host);
    assert_int_equal(processes_with("3115"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_frame_that_is_none_ends_the_connection),
        cmocka_unit_test(a_request_that_cannot_be_read_is_answered),
        cmocka_unit_test(an_id_in_use_is_not_begun_again),
        cmocka_unit_test(bytes_beyond_the_credit_end_the_connection),
        cmocka_unit_test(too_much_credit_and_ends_out_of_turn_end_it_too),
        cmocka_unit_test(what_crosses_the_end_of_its_id_means_nothing),
        cmocka_unit_test(frames_may_come_in_any_pieces_and_many_at_once),
        cmocka_unit_test(who_asks_and_does_not_read_waits),
        cmocka_unit_test(metrics_are_true_and_the_clock_is_not_a_containers_to_set),
        cmocka_unit_test(a_shutdown_is_answered_and_done),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
