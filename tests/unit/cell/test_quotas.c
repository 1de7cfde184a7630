/* The cell's quotas: exact under many requests at once, cheap to refuse, told as numbers. */
#include "fake_silo.h"
#include "harness.h"

#include "base/clock.h"

#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

enum { BURST = 20, QUOTA = 5 };

static struct harness_request read_with(const char *bearer)
{
    return (struct harness_request){.method = "GET", .path = "/v1/memories", .token = bearer};
}

static struct harness_request add(void)
{
    return (struct harness_request){.method = "POST", .path = "/v1/memories", .token = token,
                                    .body = SPAN("{\"text\":\"x\"}")};
}

static struct quotas *quotas_of(struct harness *harness)
{
    return &harness->charters[SILO_CHARTER_TENANT].posture.quotas;
}

/* Awake under the quotas as they are now, with two gateways. */
static void start(struct harness *harness)
{
    harness_sign(harness, SILO_CHARTER_TENANT);
    harness_start(harness);
    harness_attach(harness, 1);
}

static void change(struct harness *harness)
{
    harness_sign(harness, SILO_CHARTER_TENANT);
    harness_send_charter(harness, &harness->in_force[SILO_CHARTER_TENANT]);
}

struct tally {
    uint32_t passed, refused;
};

/* The answers to a burst over that many gateways; refusals must name the quota. */
static struct tally collect(struct harness *harness, uint32_t gateways, const char *quota,
                            uint32_t retry_after)
{
    struct tally tally = {0};
    for (uint32_t i = 0; i < BURST; i++) {
        struct harness_answer answer;
        harness_answer(&answer, harness, i % gateways);
        const char *body = (const char *)answer.body.data;
        if (answer.http_status == 429) {
            tally.refused++;
            assert_non_null(strstr(body, "\"code\":\"quota_exceeded\""));
            assert_non_null(strstr(body, quota));
            assert_int_equal(answer.retry_after, retry_after);
        } else if (answer.http_status / 100 == 2) {
            tally.passed++;
        } else {
            fail_msg("%d %s", answer.http_status, body);
        }
        harness_answer_free(&answer);
    }
    return tally;
}

/* All of them are there before the cell sees the first. */
static struct tally burst(struct harness *harness, struct harness_request request,
                          const char *quota, uint32_t retry_after)
{
    harness_pause(harness);
    for (uint32_t i = 0; i < BURST; i++)
        harness_send(harness, 0, 100 + i, request);
    harness_resume(harness);
    return collect(harness, 1, quota, retry_after);
}

static void of_many_at_once_as_many_pass_as_may_be_in_flight(void **state)
{
    struct harness *harness = *state;
    quotas_of(harness)->concurrent_requests = QUOTA;
    start(harness);
    for (int round = 0; round < 3; round++) { /* answered ones make room again */
        struct tally tally = burst(harness, add(), "concurrent_requests: at most 5", 1);
        assert_int_equal(tally.passed, QUOTA);
        assert_int_equal(tally.refused, BURST - QUOTA);
    }
    assert_int_equal(fake_silo->items, 3 * QUOTA);
    for (int i = 0; i < BURST; i++)
        harness_ask(harness, read_with(token), 200, NULL);
}

static void slots_are_of_all_gateways_together(void **state)
{
    struct harness *harness = *state;
    struct harness_request unfinished = add();
    quotas_of(harness)->concurrent_requests = QUOTA;
    start(harness);
    unfinished.open = true;
    for (uint32_t i = 0; i < BURST; i++) /* none can be answered, so none makes room */
        harness_send(harness, i % 2, 100 + i, unfinished);
    for (uint32_t i = 0; i < 2; i++) { /* and all have been seen before the first ends */
        struct harness_answer answer;
        harness_send(harness, i, 1, read_with("nobody's"));
        harness_answer(&answer, harness, i);
        assert_int_equal(answer.http_status, 401);
        harness_answer_free(&answer);
    }
    for (uint32_t i = 0; i < BURST; i++)
        harness_send_raw(harness, i % 2, MESSAGE_RELAY_BODY, 100 + i, SPAN("\1\0\0\0\0"));
    struct tally tally = collect(harness, 2, "concurrent_requests: at most 5", 1);
    assert_int_equal(tally.passed, QUOTA);
    assert_int_equal(fake_silo->items, QUOTA);
}

static void an_upload_holds_its_slot_until_it_is_answered_or_gone(void **state)
{
    struct harness *harness = *state;
    struct harness_request unfinished = add();
    struct harness_answer answer;
    quotas_of(harness)->concurrent_requests = 2;
    start(harness);
    unfinished.open = true;
    harness_send(harness, 0, 1, unfinished);
    harness_send(harness, 0, 2, unfinished);
    harness_send(harness, 0, 3, read_with(token));
    harness_answer(&answer, harness, 0);
    assert_int_equal(answer.id, 3);
    assert_int_equal(answer.http_status, 429);
    harness_answer_free(&answer);
    harness_send_raw(harness, 0, MESSAGE_RELAY_CANCEL, 1, (struct span){0});
    harness_ask(harness, read_with(token), 200, NULL);
    harness_send_raw(harness, 0, MESSAGE_RELAY_BODY, 2, SPAN("\1\0\0\0\0"));
    harness_answer(&answer, harness, 0);
    assert_int_equal(answer.http_status, 201);
    harness_answer_free(&answer);
    harness_send(harness, 0, 1, unfinished);
    harness_send(harness, 0, 2, unfinished);
    harness_send(harness, 0, 3, read_with(token));
    harness_answer(&answer, harness, 0);
    assert_int_equal(answer.http_status, 429);
    harness_answer_free(&answer);
    harness_attach(harness, 0); /* the gateway is gone, and what it had in flight */
    harness_send(harness, 0, 9, read_with(token));
    harness_answer(&answer, harness, 0);
    assert_int_equal(answer.http_status, 200);
    harness_answer_free(&answer);
}

static void of_many_at_once_as_many_pass_as_a_second_may_have(void **state)
{
    struct harness *harness = *state;
    quotas_of(harness)->requests_per_second = QUOTA;
    start(harness);
    int64_t since_us = clock_monotonic_us();
    struct tally tally = burst(harness, read_with(token), "requests_per_second: at most 5", 1);
    int64_t passed_us = clock_monotonic_us() - since_us;
    assert_true(tally.passed >= QUOTA); /* and what came due while they were handled */
    assert_true(tally.passed <= QUOTA + (uint64_t)(passed_us * QUOTA / 1000000) + 1);
    assert_int_equal(fake_silo->handled, tally.passed);
}

static void one_user_cannot_use_up_the_rate_of_another(void **state)
{
    struct harness *harness = *state;
    char bob[2048];
    harness_token(bob, harness, (struct harness_token){.user = "bob"});
    quotas_of(harness)->user_requests_per_second = 1;
    quotas_of(harness)->requests_per_second = 1000;
    start(harness);
    struct tally tally = burst(harness, read_with(token), "user_requests_per_second: at most 1", 1);
    assert_in_range(tally.passed, 1, BURST - 1);
    harness_ask(harness, read_with(bob), 200, NULL);
}

static void bytes_are_counted_within_a_turn(void **state)
{
    struct harness *harness = *state;
    quotas_of(harness)->bytes_stored = 1000;
    start(harness);
    fake_silo->bytes = 0;
    fake_silo->item_bytes = 200;
    struct tally tally = burst(harness, add(), "bytes_stored: at most 1000", 60);
    assert_int_equal(tally.passed, QUOTA);
    assert_int_equal(fake_silo->items, QUOTA);
    fake_silo->bytes = 1000;
    harness_ask(harness, add(), 429, "bytes_stored");
    harness_ask(harness, read_with(token), 200, NULL);
    struct harness_request delete = {.method = "DELETE", .path = "/v1/memories/abc",
                                     .token = token};
    harness_ask(harness, delete, 500, "internal"); /* it came as far as the silo */
    fake_silo->bytes = 999;
    harness_ask(harness, add(), 201, NULL);
}

static void no_quota_is_no_limit(void **state)
{
    struct harness *harness = *state;
    start(harness);
    fake_silo->bytes = UINT64_MAX / 2;
    struct tally tally = burst(harness, add(), "", 0);
    assert_int_equal(tally.passed, BURST);
}

static void a_flood_of_refusals_is_no_flood_of_entries_and_needs_no_commit(void **state)
{
    struct harness *harness = *state;
    quotas_of(harness)->concurrent_requests = 1;
    start(harness);
    struct harness_request unfinished = add();
    unfinished.open = true;
    harness_send(harness, 0, 1, unfinished);
    int64_t since_us = clock_monotonic_us();
    uint32_t refused = 0;
    for (int i = 0; i < 10; i++)
        refused += burst(harness, read_with(token), "concurrent_requests", 1).refused;
    int64_t seconds = (clock_monotonic_us() - since_us) / 1000000;
    assert_int_equal(refused, 10 * BURST);
    assert_int_equal(fake_silo->handled, 0);
    assert_int_equal(fake_silo->refused, 0);
    assert_in_range(fake_silo->denial_entries, 1, (uint32_t)seconds + 2);
    assert_in_range(fake_silo->commits, 0, fake_silo->denial_entries);
    harness_send_raw(harness, 0, MESSAGE_RELAY_CANCEL, 1, (struct span){0});
    harness_park(harness);
    assert_int_equal(fake_silo->denied, refused); /* none is forgotten */
    assert_string_equal(fake_silo->denial, "quota.concurrent_requests of alice");
}

static void what_was_counted_is_told_within_a_second(void **state)
{
    struct harness *harness = *state;
    quotas_of(harness)->bytes_stored = 1;
    start(harness);
    fake_silo->bytes = 1;
    for (int i = 0; i < 3; i++)
        harness_ask(harness, add(), 429, "bytes_stored");
    int64_t since_us = clock_monotonic_us();
    while (fake_silo->denied < 3 && clock_monotonic_us() - since_us < 5000000)
        harness_serve_kms(harness, 10);
    assert_int_equal(fake_silo->denied, 3);
    assert_in_range(fake_silo->denial_entries, 1, 2);
}

static void a_denied_token_takes_nothing_from_the_quota(void **state)
{
    struct harness *harness = *state;
    char forged[2048];
    harness_token(forged, harness, (struct harness_token){.forged = true});
    quotas_of(harness)->requests_per_second = 1;
    start(harness);
    for (int i = 0; i < BURST; i++)
        harness_ask(harness, read_with(forged), 401, NULL);
    harness_ask(harness, read_with(token), 200, NULL);
}

static void a_quota_that_changes_holds_for_the_next_request(void **state)
{
    struct harness *harness = *state;
    start(harness);
    assert_int_equal(burst(harness, read_with(token), "", 0).passed, BURST);
    quotas_of(harness)->concurrent_requests = QUOTA;
    change(harness);
    assert_int_equal(burst(harness, read_with(token), "concurrent_requests", 1).passed, QUOTA);
    quotas_of(harness)->concurrent_requests = QUOTA + 2;
    change(harness);
    assert_int_equal(burst(harness, read_with(token), "concurrent_requests", 1).passed, QUOTA + 2);
    quotas_of(harness)->concurrent_requests = 0;
    change(harness);
    assert_int_equal(burst(harness, read_with(token), "", 0).passed, BURST);
}

int main(int count, char **arguments)
{
    harness_main(count, arguments, fake_silo_attach);
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup_asleep, teardown)
    const struct CMUnitTest tests[] = {
        TEST(of_many_at_once_as_many_pass_as_may_be_in_flight),
        TEST(slots_are_of_all_gateways_together),
        TEST(an_upload_holds_its_slot_until_it_is_answered_or_gone),
        TEST(of_many_at_once_as_many_pass_as_a_second_may_have),
        TEST(one_user_cannot_use_up_the_rate_of_another),
        TEST(bytes_are_counted_within_a_turn),
        TEST(no_quota_is_no_limit),
        TEST(a_flood_of_refusals_is_no_flood_of_entries_and_needs_no_commit),
        TEST(what_was_counted_is_told_within_a_second),
        TEST(a_denied_token_takes_nothing_from_the_quota),
        TEST(a_quota_that_changes_holds_for_the_next_request),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
