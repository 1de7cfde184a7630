/* Bodies on their way out, in shares and within credit; and what waits for the kms's note. */
#include "fake_silo.h"
#include "harness.h"

#include "base/cleanup.h"
#include "base/clock.h"

#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

enum { ROOMY_MS = 10000, QUIET_MS = 50 };

static int setup_two(void **state)
{
    setup(state);
    harness_attach(*state, 1);
    fake_silo->download_bytes = MIB(2) + 3;
    return 0;
}

static struct harness_request getting(void)
{
    return (struct harness_request){.method = "GET", .path = "/v1/objects/a/b", .token = token};
}

/* It is closed behind its last message. */
static void expect_none_open(struct harness *harness)
{
    struct harness_request any = reading();
    any.token = "nonsense";
    for (int i = 0; i < 2; i++)
        harness_ask(harness, any, 401, NULL);
    assert_int_equal(fake_silo->downloads_open, 0);
}

static void check_bytes(const struct harness_answer *answer, uint64_t length)
{
    assert_int_equal(answer->body.length, length);
    for (uint64_t i = 0; i < length; i++)
        if (answer->body.data[i] != fake_byte(i))
            fail_msg("byte %llu", (unsigned long long)i);
}

static void a_download_comes_whole_with_its_headers(void **state)
{
    struct harness *harness = *state;
    const uint64_t lengths[] = {0, 1, RELAY_FRAGMENT_MAX, RELAY_FRAGMENT_MAX + 1, RELAY_WINDOW,
                                MIB(2) + 3};
    for (size_t i = 0; i < 2 * sizeof lengths / sizeof *lengths; i++) {
        struct harness_answer answer = {0};
        fake_silo->download_bytes = lengths[i / 2];
        fake_silo->length_unknown = i % 2;
        harness_send(harness, 1, 1, getting());
        harness_stream(&answer, harness, 1);
        assert_false(answer.broken);
        assert_int_equal(answer.http_status, 200);
        assert_true(answer.length == (i % 2 ? RELAY_LENGTH_UNKNOWN : lengths[i / 2]));
        assert_string_equal(answer.headers[RELAY_CONTENT_TYPE], "application/x-test");
        assert_string_equal(answer.headers[RELAY_ETAG], "\"e\"");
        check_bytes(&answer, lengths[i / 2]);
        harness_answer_free(&answer);
        expect_none_open(harness);
    }
}

/* As much as comes without credit. */
static void read_window(struct harness_answer *answer, struct harness *harness)
{
    while (answer->body.length <= RELAY_WINDOW - KIB(16))
        assert_true(harness_part(answer, harness, 1, ROOMY_MS));
    assert_false(harness_part(answer, harness, 1, QUIET_MS)); /* and no more */
}

static void nothing_is_read_beyond_the_credit(void **state)
{
    struct harness *harness = *state;
    struct harness_answer answer = {0};
    harness_send(harness, 1, 1, getting());
    read_window(&answer, harness);
    assert_in_range(answer.body.length, RELAY_WINDOW - KIB(16), RELAY_WINDOW);
    assert_int_equal(fake_silo->read_bytes, answer.body.length);
    for (int i = 0; i < 20; i++)
        harness_ask(harness, reading(), 200, NULL); /* which wait for nobody */
    assert_int_equal(fake_silo->read_bytes, answer.body.length);
    size_t before = answer.body.length;
    harness_send_credit(harness, 1, 1, KIB(100));
    while (answer.body.length < before + KIB(84))
        assert_true(harness_part(&answer, harness, 1, ROOMY_MS));
    assert_true(answer.body.length <= RELAY_WINDOW + KIB(100));
    harness_send_credit(harness, 1, 1, (uint32_t)answer.body.length - KIB(100));
    harness_stream(&answer, harness, 1);
    check_bytes(&answer, MIB(2) + 3);
    harness_answer_free(&answer);
}

static void expect_only_this_relay_ends(struct harness *harness)
{
    struct ipc_message message;
    status came;
    while ((came = harness_receive(&message, harness, harness->gateways[1], ROOMY_MS)) == OK)
        ;
    assert_int_equal(came, CLOSED);
    expect_none_open(harness);
    harness_attach(harness, 1);
}

static void credit_for_what_was_not_sent_ends_the_relay(void **state)
{
    struct harness *harness = *state;
    const uint32_t lies[] = {RELAY_WINDOW + 1, UINT32_MAX, 0};
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        struct harness_answer answer = {0};
        harness_send(harness, 1, 1, getting());
        assert_true(harness_part(&answer, harness, 1, ROOMY_MS));
        harness_send_credit(harness, 1, 1, lies[i]);
        expect_only_this_relay_ends(harness);
        harness_answer_free(&answer);
    }
}

static void a_fragment_for_a_request_without_a_body_ends_the_relay(void **state)
{
    struct harness *harness = *state;
    harness_send(harness, 1, 1, getting());
    harness_send_body(harness, 1, 1, 0, SPAN("x"));
    expect_only_this_relay_ends(harness);
}

static void a_head_has_the_length_and_no_body(void **state)
{
    struct harness *harness = *state;
    struct harness_answer answer;
    struct harness_request request = getting();
    request.method = "HEAD";
    harness_send(harness, 1, 1, request);
    harness_answer(&answer, harness, 1);
    assert_int_equal(answer.http_status, 200);
    assert_true(answer.length == MIB(2) + 3);
    assert_int_equal(answer.body.length, 0);
    assert_int_equal(answer.fragments, 1);
    assert_string_equal(answer.headers[RELAY_ETAG], "\"e\"");
    harness_answer_free(&answer);
    request.headers[RELAY_IF_NONE_MATCH] = "\"e\"";
    harness_send(harness, 1, 1, request);
    harness_answer(&answer, harness, 1);
    assert_int_equal(answer.http_status, 304);
    assert_int_equal(answer.body.length, 0);
    harness_answer_free(&answer);
    assert_string_equal(fake_silo->header, "\"e\"");
    expect_none_open(harness);
}

static void what_there_is_not_is_an_answer_like_others(void **state)
{
    struct harness *harness = *state;
    struct harness_answer answer;
    struct harness_request request = getting();
    request.path = "/v1/objects/none/such";
    harness_send(harness, 1, 1, request);
    harness_answer(&answer, harness, 1);
    assert_int_equal(answer.http_status, 404);
    assert_string_equal(answer.headers[RELAY_CONTENT_TYPE], "application/problem+json");
    harness_answer_free(&answer);
}

static void what_cannot_be_read_further_is_broken_off(void **state)
{
    struct harness *harness = *state;
    for (int way = 0; way < 3; way++) {
        struct harness_answer answer = {0};
        harness_send(harness, 1, 1, getting());
        assert_true(harness_part(&answer, harness, 1, ROOMY_MS));
        if (way == 0)
            fake_silo->read_fails_at = MIB(1);
        if (way == 1)
            fake_silo->reads_nothing = true;
        if (way == 2)
            fake_silo->download_bytes = MIB(1); /* it has become shorter */
        harness_stream(&answer, harness, 1);
        assert_true(answer.broken);
        assert_true(answer.body.length < answer.length);
        harness_answer_free(&answer);
        fake_silo->read_fails_at = 0;
        fake_silo->reads_nothing = false;
        expect_none_open(harness);
    }
}

static void what_cannot_be_read_at_all_is_a_problem(void **state)
{
    struct harness *harness = *state;
    struct harness_answer answer;
    fake_silo->read_fails_at = 1;
    harness_send(harness, 1, 1, getting());
    harness_answer(&answer, harness, 1);
    assert_int_equal(answer.http_status, 500);
    harness_answer_free(&answer);
    fake_silo->read_fails_at = 0;
    fake_silo->reads_too_much = true;
    fake_silo->download_bytes = 10;
    harness_send(harness, 1, 1, getting());
    harness_answer(&answer, harness, 1);
    assert_int_equal(answer.http_status, 500);
    harness_answer_free(&answer);
    expect_none_open(harness);
}

static void under_strict_audit_nothing_leaves_before_the_commit(void **state)
{
    struct harness *harness = *state;
    struct harness_answer answer = {0};
    fake_silo->strict = true;
    harness_send(harness, 1, 1, getting());
    harness_stream(&answer, harness, 1);
    check_bytes(&answer, MIB(2) + 3);
    harness_answer_free(&answer);
    assert_int_equal(fake_silo->commits, 1);
    fake_silo->commit_fails = -1;
    fake_silo->fail_status = OUT_OF_SPACE;
    fake_silo->read_bytes = 0;
    harness_send(harness, 1, 1, getting());
    harness_answer(&answer, harness, 1);
    assert_int_equal(answer.http_status, 507);
    harness_answer_free(&answer);
    assert_int_equal(fake_silo->read_bytes, 0);
    assert_int_equal(fake_silo->downloads_open, 0);
}

static void a_small_read_does_not_wait_for_large_ones(void **state)
{
    struct harness *harness = *state;
    enum { LARGE = 20 };
    harness_pause(harness);
    for (uint32_t i = 0; i < LARGE; i++)
        harness_send(harness, 1, i, getting());
    harness_send(harness, 0, 1, reading());
    harness_resume(harness);
    struct harness_answer answer;
    harness_answer(&answer, harness, 0);
    assert_int_equal(answer.http_status, 200);
    assert_in_range(fake_silo->read_bytes, 0, MIB(5)); /* of the ten that their windows take */
    harness_answer_free(&answer);
}

static void downloads_at_once_are_bounded_and_end_with_their_stream(void **state)
{
    struct harness *harness = *state;
    struct ipc_message message;
    for (uint32_t i = 0; i < CELL_DOWNLOADS_MAX; i++)
        harness_send(harness, 1, i, getting());
    for (uint64_t came = 0; came < CELL_DOWNLOADS_MAX * (uint64_t)(RELAY_WINDOW - KIB(16));) {
        assert_int_equal(harness_receive(&message, harness, harness->gateways[1], ROOMY_MS), OK);
        came += message.body.length;
    }
    harness_ask(harness, getting(), 503, "unavailable");
    harness_send_raw(harness, 1, MESSAGE_RELAY_CANCEL, 7, (struct span){0});
    harness_send_raw(harness, 1, MESSAGE_RELAY_CANCEL, 8, (struct span){0});
    harness_send(harness, 1, 100, reading());
    while (message.id != 100)
        assert_int_equal(harness_receive(&message, harness, harness->gateways[1], ROOMY_MS), OK);
    assert_int_equal(fake_silo->downloads_open, CELL_DOWNLOADS_MAX - 2);
    struct harness_answer answer = {0};
    harness_send(harness, 0, 1, getting());
    harness_stream(&answer, harness, 0);
    assert_int_equal(answer.http_status, 200);
    harness_answer_free(&answer);
    harness_attach(harness, 1); /* the gateway is gone, and with it what it read */
    expect_none_open(harness);
}

static void a_revoked_token_reads_no_further(void **state)
{
    struct harness *harness = *state;
    static struct revoked_subject revoked = {.user = "alice"};
    struct charter *charter = &harness->charters[SILO_CHARTER_TENANT];
    struct harness_answer answer = {0};
    harness_send(harness, 1, 1, getting());
    read_window(&answer, harness);
    revoked.at = clock_wall_us() / 1000000 + 1;
    charter->subjects = &revoked;
    charter->subject_count = 1;
    harness_sign(harness, SILO_CHARTER_TENANT);
    harness_send_charter(harness, &harness->in_force[SILO_CHARTER_TENANT]);
    harness_send_credit(harness, 1, 1, (uint32_t)answer.body.length);
    harness_stream(&answer, harness, 1);
    assert_true(answer.broken);
    assert_true(answer.body.length <= RELAY_WINDOW);
    harness_answer_free(&answer);
    expect_none_open(harness);
}

static void a_download_outlives_its_token(void **state)
{
    struct harness *harness = *state;
    struct charter *charter = &harness->charters[SILO_CHARTER_TENANT];
    struct harness_request request = getting();
    char short_lived[2048];
    struct harness_answer answer = {0};
    harness_token(short_lived, harness,
                  (struct harness_token){.age_seconds = 99, .ttl_seconds = 100});
    request.token = short_lived;
    harness_send(harness, 1, 1, request);
    while (harness_part(&answer, harness, 1, 1100))
        ;
    charter->posture.retention_days = 7; /* judged again, as of when it was good */
    harness_sign(harness, SILO_CHARTER_TENANT);
    harness_send_charter(harness, &harness->in_force[SILO_CHARTER_TENANT]);
    harness_send_credit(harness, 1, 1, (uint32_t)answer.body.length);
    harness_stream(&answer, harness, 1);
    assert_false(answer.broken);
    check_bytes(&answer, MIB(2) + 3);
    harness_answer_free(&answer);
}

static void a_cell_that_must_park_breaks_off_what_does_not_end(void **state)
{
    struct harness *harness = *state;
    struct harness_answer answer = {0};
    struct ipc_message message;
    cleanup_close(&harness->gateways[0]);
    harness_send(harness, 1, 1, getting());
    read_window(&answer, harness);
    harness_tell(harness, MESSAGE_CELL_PARK, (struct span){0}, NULL, 0);
    assert_int_equal(harness_receive(&message, harness, harness->gateways[1], ROOMY_MS), OK);
    assert_int_equal(message.type, MESSAGE_RELAY_DRAIN);
    assert_true(harness_part(&answer, harness, 1, ROOMY_MS)); /* its client takes nothing more */
    assert_true(answer.broken);
    harness_answer_free(&answer);
    harness_expect(&message, harness, MESSAGE_CELL_PARKED);
    assert_int_equal(harness_end(harness), 0);
    assert_int_equal(fake_silo->downloads_open, 0);
}

static struct harness_request asking_for_the_note(void)
{
    return (struct harness_request){.method = "GET", .path = "/v1/audit/checkpoint",
                                    .token = token};
}

static void what_needs_a_note_is_handled_when_it_is_there(void **state)
{
    struct harness *harness = *state;
    harness_ask(harness, reading(), 200, NULL);
    harness_ask(harness, asking_for_the_note(), 200, NULL);
    assert_int_equal(fake_silo->notes_at_checkpoint, 1);
    assert_int_equal(harness->anchor.log_size, 1); /* the read before it is in it */
    harness_ask(harness, asking_for_the_note(), 200, NULL);
    assert_int_equal(fake_silo->notes_at_checkpoint, 2);
    assert_int_equal(harness->anchor.log_size, 2);
}

static void a_silent_kms_does_not_hold_it_for_ever(void **state)
{
    struct harness *harness = *state;
    harness->mood = KMS_SILENT;
    harness_ask(harness, asking_for_the_note(), 200, NULL);
    assert_int_equal(fake_silo->notes_at_checkpoint, 0);
}

static void what_waits_for_a_note_can_be_cancelled(void **state)
{
    struct harness *harness = *state;
    harness->mood = KMS_SILENT;
    harness_send(harness, 1, 1, asking_for_the_note());
    harness_ask(harness, reading(), 200, NULL);
    harness_send_raw(harness, 1, MESSAGE_RELAY_CANCEL, 1, (struct span){0});
    harness->mood = KMS_ANSWERS;
    harness_ask(harness, asking_for_the_note(), 200, NULL);
    assert_int_equal(fake_silo->handled, 2);
}

int main(int count, char **arguments)
{
    harness_main(count, arguments, fake_silo_attach);
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup_two, teardown)
    const struct CMUnitTest tests[] = {
        TEST(nothing_is_read_beyond_the_credit),
        TEST(credit_for_what_was_not_sent_ends_the_relay),
        TEST(a_fragment_for_a_request_without_a_body_ends_the_relay),
        TEST(what_cannot_be_read_further_is_broken_off),
        TEST(what_cannot_be_read_at_all_is_a_problem),
        TEST(under_strict_audit_nothing_leaves_before_the_commit),
        TEST(downloads_at_once_are_bounded_and_end_with_their_stream),
        TEST(a_revoked_token_reads_no_further),
        TEST(a_small_read_does_not_wait_for_large_ones),
        TEST(a_cell_that_must_park_breaks_off_what_does_not_end),
        TEST(a_download_outlives_its_token),
        TEST(a_download_comes_whole_with_its_headers),
        TEST(a_head_has_the_length_and_no_body),
        TEST(what_there_is_not_is_an_answer_like_others),
        TEST(what_needs_a_note_is_handled_when_it_is_there),
        TEST(a_silent_kms_does_not_hold_it_for_ever),
        TEST(what_waits_for_a_note_can_be_cancelled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
