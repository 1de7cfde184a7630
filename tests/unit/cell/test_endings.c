/* How a cell comes to rest or to an end: waking, the kms, parking, exports, a broken supervisor. */
#define _GNU_SOURCE
#include "fake_silo.h"
#include "harness.h"

#include "base/cleanup.h"
#include "base/clock.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static void the_wrapped_key_is_kept_and_shown_at_the_next_waking(void **state)
{
    struct harness *harness = *state;
    harness_park(harness);
    harness_start(harness); /* the kms of the harness compares it */
    assert_int_equal(harness->opens, 2);
    harness_ask(harness, reading(), 200, NULL);
    harness_park(harness);
}

static void what_the_kms_refuses_the_cell_reports(void **state)
{
    struct harness *harness = *state;
    harness->mood = KMS_REFUSES;
    harness_begin(harness);
    harness_expect_failed(harness, ROLLED_BACK);
    assert_false(fake_silo->closed);
}

static void a_kms_that_is_gone_fails_the_waking(void **state)
{
    struct harness *harness = *state;
    harness->mood = KMS_SILENT;
    harness_begin(harness);
    cleanup_close(&harness->kms);
    harness_expect_failed(harness, CLOSED);
}

static void only_a_supervisor_that_makes_sense_is_followed(void **state)
{
    struct harness *harness = *state;
    const struct {
        uint32_t type;
        struct span body;
    } bad[] = {
        {MESSAGE_STOP, SPAN("")},
        {MESSAGE_CELL_PARK, SPAN("x")},
        {MESSAGE_CHANNEL, SPAN("\2\0\0\0\0")}, /* without a descriptor */
        {MESSAGE_CELL_ASSUME, SPAN("")},       /* a second tenant, never */
        {MESSAGE_RELAY_REQUEST, SPAN("")},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        harness_start(harness);
        harness_tell(harness, bad[i].type, bad[i].body, NULL, 0);
        assert_int_equal(harness_end(harness), 1);
    }
    harness_start(harness);
    cleanup_close(&harness->supervisor);
    assert_int_equal(harness_end(harness), 1);
}

static void parking_leaves_the_last_state_anchored(void **state)
{
    struct harness *harness = *state;
    harness_ask(harness, adding(), 201, NULL);
    harness_ask(harness, reading(), 200, NULL);
    fake_silo->expire_batches = 3;
    harness_park(harness);
    assert_true(fake_silo->closed);
    assert_int_equal(fake_silo->expired, 3);
    assert_int_equal(fake_silo->log_size, 5); /* the pending entry of the read too */
    assert_int_equal(fake_silo->checkpoints, 1);
    assert_int_equal(harness->anchor.map_generation, 1); /* of after the checkpoint */
    assert_int_equal(harness->anchor.log_size, 5);
}

static void expect_drain(struct harness *harness, uint32_t gateway)
{
    struct ipc_message message;
    assert_int_equal(harness_receive(&message, harness, harness->gateways[gateway], 5000), OK);
    assert_int_equal(message.type, MESSAGE_RELAY_DRAIN);
}

static void a_cell_without_requests_asks_to_be_parked(void **state)
{
    struct harness *harness = *state;
    struct ipc_message message;
    harness->idle_seconds = 2;
    harness_start(harness);
    int64_t since_us = clock_monotonic_us();
    harness_serve_kms(harness, 1000);
    harness_ask(harness, reading(), 200, NULL); /* then it is not idle */
    harness_expect(&message, harness, MESSAGE_CELL_IDLE);
    assert_int_equal(message.body.length, 0);
    assert_true(clock_monotonic_us() - since_us >= 2900000);
    assert_int_equal(harness_receive(&message, harness, harness->gateways[0], 100), AGAIN);
    harness_ask(harness, reading(), 200, NULL); /* it serves until it is told */
    harness_tell(harness, MESSAGE_CELL_PARK, (struct span){0}, NULL, 0);
    expect_drain(harness, 0);
    assert_true(fake_silo->trims >= 1);
    harness_send_raw(harness, 0, MESSAGE_RELAY_DRAINED, 0, (struct span){0});
    harness_expect(&message, harness, MESSAGE_CELL_PARKED);
    assert_int_equal(message.body.length, 16);
    assert_int_equal(harness_end(harness), 0);
}

static void await_trims(uint32_t count)
{
    for (int waited = 0; fake_silo->trims < count && waited < 1000; waited++)
        usleep(10 * 1000);
    assert_int_equal(fake_silo->trims, count);
}

/* Long before it would park, and each time that it comes to rest. */
static void memory_is_given_back_after_every_piece_of_work(void **state)
{
    struct harness *harness = *state;
    harness->idle_seconds = 3600;
    harness_start(harness);
    harness_serve_kms(harness, 1000);
    for (uint32_t rest = 1; rest <= 3; rest++) {
        harness_ask(harness, reading(), 200, NULL);
        await_trims(rest);
    }
    harness_park(harness);
}

static void what_was_sent_before_the_drain_was_seen_is_answered(void **state)
{
    struct harness *harness = *state;
    struct harness_answer answer;
    struct harness_request open = adding();
    open.open = true;
    harness_attach(harness, 1);
    harness_send(harness, 1, 1, open);
    harness_tell(harness, MESSAGE_CELL_PARK, (struct span){0}, NULL, 0);
    expect_drain(harness, 0);
    expect_drain(harness, 1);
    harness_ask(harness, adding(), 201, NULL); /* crossed the drain */
    harness_send_raw(harness, 0, MESSAGE_RELAY_DRAINED, 0, (struct span){0});
    harness_send_raw(harness, 1, MESSAGE_RELAY_DRAINED, 0, (struct span){0});
    harness_expect_closed(harness, harness->gateways[0]);
    assert_false(fake_silo->closed);
    harness_send_raw(harness, 1, MESSAGE_RELAY_BODY, 1, SPAN("\1\0\0\0\0"));
    harness_answer(&answer, harness, 1);
    assert_int_equal(answer.http_status, 201);
    harness_answer_free(&answer);
    harness_expect_closed(harness, harness->gateways[1]);
    struct ipc_message message;
    harness_expect(&message, harness, MESSAGE_CELL_PARKED);
    assert_int_equal(harness_end(harness), 0);
    assert_int_equal(fake_silo->items, 2);
    assert_int_equal(harness->anchor.log_size, 2);
}

/* In this order: the cell asks; another gateway is attached, which the cell does not see yet, and
 * sends; the cell is told to park. */
static void a_gateway_that_comes_while_the_cell_asks_is_answered(void **state)
{
    struct harness *harness = *state;
    struct harness_answer answer;
    struct ipc_message message;
    harness->idle_seconds = 1;
    harness_start(harness);
    harness_expect(&message, harness, MESSAGE_CELL_IDLE);
    harness_pause(harness);
    harness_attach(harness, 1);
    harness_send(harness, 1, 1, adding());
    harness_tell(harness, MESSAGE_CELL_PARK, (struct span){0}, NULL, 0);
    harness_resume(harness);
    expect_drain(harness, 0);
    expect_drain(harness, 1);
    harness_send_raw(harness, 0, MESSAGE_RELAY_DRAINED, 0, (struct span){0});
    harness_send_raw(harness, 1, MESSAGE_RELAY_DRAINED, 0, (struct span){0});
    harness_answer(&answer, harness, 1);
    assert_int_equal(answer.http_status, 201);
    harness_answer_free(&answer);
    harness_expect(&message, harness, MESSAGE_CELL_PARKED);
    assert_int_equal(harness_end(harness), 0);
    assert_int_equal(fake_silo->items, 1);
}

static void no_gateway_comes_after_the_word_to_park(void **state)
{
    struct harness *harness = *state;
    harness_tell(harness, MESSAGE_CELL_PARK, (struct span){0}, NULL, 0);
    expect_drain(harness, 0);
    harness_attach(harness, 1);
    harness_expect_closed(harness, harness->gateways[1]);
    assert_int_equal(harness_end(harness), 1);
    assert_false(fake_silo->closed);
}

static void a_kms_that_comes_while_the_cell_parks_takes_its_anchor(void **state)
{
    struct harness *harness = *state;
    struct ipc_message message;
    harness_attach(harness, 1);
    harness_ask(harness, adding(), 201, NULL);
    harness_tell(harness, MESSAGE_CELL_PARK, (struct span){0}, NULL, 0);
    expect_drain(harness, 0);
    expect_drain(harness, 1);
    harness_new_kms(harness);
    harness_send_raw(harness, 0, MESSAGE_RELAY_DRAINED, 0, (struct span){0});
    harness_send_raw(harness, 1, MESSAGE_RELAY_DRAINED, 0, (struct span){0});
    harness_expect(&message, harness, MESSAGE_CELL_PARKED);
    assert_int_equal(harness_end(harness), 0);
}

static void a_kms_that_knows_a_later_state_ends_the_cell(void **state)
{
    struct harness *harness = *state;
    harness_ask(harness, adding(), 201, NULL);
    harness_serve_kms(harness, 1200);
    cleanup_close(&harness->kms);
    harness->anchor.commits += 5; /* somebody else had the silo meanwhile */
    harness_new_kms(harness);
    assert_int_equal(harness_end(harness), 1);
    assert_true(fake_silo->abandoned); /* it writes nothing into what is not its own any more */
    assert_false(fake_silo->closed);
}

static void entries_of_reads_outlive_the_supervisor(void **state)
{
    struct harness *harness = *state;
    harness_ask(harness, reading(), 200, NULL);
    cleanup_close(&harness->supervisor); /* before the entry was due */
    assert_int_equal(harness_end(harness), 1);
    assert_int_equal(fake_silo->log_size, 1);
}

static void an_answer_of_the_kms_that_was_not_asked_for_ends_its_channel(void **state)
{
    struct harness *harness = *state;
    struct fault fault;
    harness_serve_kms(harness, 50);
    assert_int_equal(reply_send(harness->kms, 99, OK, "", &fault), OK);
    int kms = take_fd(&harness->kms);
    harness_expect_closed(harness, kms);
    close(kms);
    harness_ask(harness, reading(), 200, NULL);
    harness_new_kms(harness);
    harness_ask(harness, adding(), 201, NULL);
    harness_park(harness);
}

static size_t read_some(int fd, size_t wanted)
{
    static char bytes[KIB(64)];
    size_t total = 0;
    while (total < wanted) {
        ssize_t got = read(fd, bytes, wanted - total < sizeof bytes ? wanted - total
                                                                   : sizeof bytes);
        if (got <= 0)
            break;
        total += (size_t)got;
    }
    return total;
}

static int begin_export(struct harness *harness, uint32_t pieces)
{
    int ends[2];
    fake_silo->export_pieces = pieces;
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    harness_tell(harness, MESSAGE_CELL_EXPORT, SPAN("\0\0\0\5audit\0\0\0\0\0\0\0\0"), &ends[1], 1);
    close(ends[1]);
    return ends[0];
}

static void wait_for(struct harness *harness, _Atomic uint32_t *counter, uint32_t value)
{
    int64_t since_us = clock_monotonic_us();
    while (*counter < value && clock_monotonic_us() - since_us < 5000000)
        harness_serve_kms(harness, 5);
    assert_true(*counter >= value);
}

static void an_export_is_written_as_its_reader_takes_it(void **state)
{
    struct harness *harness = *state;
    harness_ask(harness, adding(), 201, NULL);
    int reader = begin_export(harness, 20);
    wait_for(harness, &fake_silo->pieces, 1);
    assert_int_equal(harness->anchor.log_size, 1); /* anchored before the first piece */
    for (int i = 0; i < 10; i++)
        harness_ask(harness, reading(), 200, NULL); /* nobody reads: nobody else waits */
    assert_in_range(fake_silo->pieces, 1, 4);
    assert_int_equal(read_some(reader, SIZE_MAX), 20 * KIB(64));
    assert_int_equal(fake_silo->pieces, 20);
    close(reader);
}

static void an_export_can_go_to_a_file(void **state)
{
    struct harness *harness = *state;
    char path[96];
    harness_ask(harness, adding(), 201, NULL);
    snprintf(path, sizeof path, "%s/export", harness->directory);
    int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    fake_silo->export_pieces = 5;
    harness_tell(harness, MESSAGE_CELL_EXPORT, SPAN("\0\0\0\5audit\0\0\0\0\0\0\0\0"), &file, 1);
    wait_for(harness, &fake_silo->pieces, 5);
    harness_park(harness); /* which waits for it */
    assert_int_equal(lseek(file, 0, SEEK_END), 5 * KIB(64));
    close(file);
}

static void an_export_whose_reader_is_gone_is_dropped(void **state)
{
    struct harness *harness = *state;
    harness_ask(harness, adding(), 201, NULL);
    int reader = begin_export(harness, 1000);
    wait_for(harness, &fake_silo->pieces, 1);
    close(reader);
    harness_ask(harness, reading(), 200, NULL);
    harness_park(harness);
    assert_in_range(fake_silo->pieces, 1, 10);
}

int main(int count, char **arguments)
{
    harness_main(count, arguments, fake_silo_attach);
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define TEST_ASLEEP(name) cmocka_unit_test_setup_teardown(name, setup_asleep, teardown)
    const struct CMUnitTest tests[] = {
        TEST(the_wrapped_key_is_kept_and_shown_at_the_next_waking),
        TEST_ASLEEP(what_the_kms_refuses_the_cell_reports),
        TEST_ASLEEP(a_kms_that_is_gone_fails_the_waking),
        TEST_ASLEEP(only_a_supervisor_that_makes_sense_is_followed),
        TEST(parking_leaves_the_last_state_anchored),
        TEST_ASLEEP(a_cell_without_requests_asks_to_be_parked),
        TEST_ASLEEP(memory_is_given_back_after_every_piece_of_work),
        TEST_ASLEEP(a_gateway_that_comes_while_the_cell_asks_is_answered),
        TEST(what_was_sent_before_the_drain_was_seen_is_answered),
        TEST(no_gateway_comes_after_the_word_to_park),
        TEST(a_kms_that_comes_while_the_cell_parks_takes_its_anchor),
        TEST(a_kms_that_knows_a_later_state_ends_the_cell),
        TEST(entries_of_reads_outlive_the_supervisor),
        TEST(an_answer_of_the_kms_that_was_not_asked_for_ends_its_channel),
        TEST(an_export_is_written_as_its_reader_takes_it),
        TEST(an_export_can_go_to_a_file),
        TEST(an_export_whose_reader_is_gone_is_dropped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
