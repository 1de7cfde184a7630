/* What a cell bears, and for how long: each of these waits for seconds. */
#include "fake_silo.h"
#include "harness.h"

#include "base/cleanup.h"
#include "base/clock.h"

#include <assert.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static void a_gateway_that_never_drains_delays_parking_only_so_long(void **state)
{
    struct harness *harness = *state;
    struct ipc_message message;
    harness_ask(harness, adding(), 201, NULL);
    int64_t since_us = clock_monotonic_us();
    harness_tell(harness, MESSAGE_CELL_PARK, (struct span){0}, NULL, 0);
    harness_expect(&message, harness, MESSAGE_CELL_PARKED); /* the harness waits 10 s */
    assert_true(clock_monotonic_us() - since_us > 3000000);
    assert_int_equal(harness_end(harness), 0);
    assert_int_equal(harness->anchor.log_size, 1);
}

static void without_the_kms_changes_stop_and_reads_go_on(void **state)
{
    struct harness *harness = *state;
    harness_ask(harness, adding(), 201, NULL);
    harness_serve_kms(harness, 1200);
    cleanup_close(&harness->kms);
    harness_ask(harness, adding(), 201, NULL); /* a short absence is borne */
    harness_serve_kms(harness, 5300);
    harness_ask(harness, adding(), 503, "unavailable");
    assert_int_equal(fake_silo->last_refusal, UNAVAILABLE);
    harness_ask(harness, reading(), 200, "\"items\":2");
    uint64_t epoch = harness->anchor.epoch;
    harness_new_kms(harness);
    harness_serve_kms(harness, 1300);
    assert_int_equal(harness->anchor.epoch, epoch + 1);
    assert_int_equal(harness->anchor.log_size, 4); /* it caught up */
    harness_ask(harness, adding(), 201, "\"items\":3");
    harness_park(harness);
}

static void a_kms_that_is_silent_stops_changes_like_one_that_is_gone(void **state)
{
    struct harness *harness = *state;
    harness->mood = KMS_SILENT;
    harness_ask(harness, adding(), 201, NULL);
    harness_serve_kms(harness, 6300); /* the move is sent within a second */
    harness_ask(harness, adding(), 503, "unavailable");
    harness_ask(harness, reading(), 200, NULL);
    harness->mood = KMS_ANSWERS;
    harness_serve_kms(harness, 300);
    harness_ask(harness, adding(), 201, NULL);
}

/* One test a run, by its number, so that they wait side by side. */
int main(int count, char **arguments)
{
    harness_main(count, arguments, fake_silo_attach);
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_gateway_that_never_drains_delays_parking_only_so_long),
        TEST(without_the_kms_changes_stop_and_reads_go_on),
        TEST(a_kms_that_is_silent_stops_changes_like_one_that_is_gone),
    };
    size_t number = count == 2 ? (size_t)(arguments[1][0] - '0') : 0;
    assert(number < sizeof tests / sizeof *tests);
    const struct CMUnitTest chosen[] = {tests[number]};
    return cmocka_run_group_tests(chosen, NULL, NULL);
}
