#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "authz/quota.h"

static const int64_t SECOND = 1000000;

static bool take(struct rate *rate, int64_t now)
{
    uint32_t retry_after = 77;
    struct fault fault = {"untouched"};
    status code = rate_take(rate, now, "requests_per_second", &retry_after, &fault);
    if (code == OK) {
        assert_int_equal(retry_after, 77);
        assert_string_equal(fault.detail, "untouched");
        return true;
    }
    assert_int_equal(code, QUOTA_EXCEEDED);
    assert_true(retry_after >= 1);
    assert_non_null(strstr(fault.detail, "requests_per_second"));
    return false;
}

static uint64_t take_many(struct rate *rate, uint64_t tries, int64_t now)
{
    uint64_t granted = 0;
    for (uint64_t i = 0; i < tries; i++)
        granted += take(rate, now);
    return granted;
}

static struct rate rate_of(uint64_t per_second, int64_t now)
{
    struct rate rate = {0};
    rate_set(&rate, per_second, now);
    return rate;
}

static void no_limit_grants_everything(void **state)
{
    (void)state;
    struct rate rate = {0};
    assert_int_equal(take_many(&rate, 100000, 0), 100000);
    rate_set(&rate, 0, 5);
    assert_int_equal(take_many(&rate, 100000, 5), 100000);
}

static void one_turn_grants_one_second_s_worth_exactly(void **state)
{
    (void)state;
    for (uint64_t limit = 1; limit <= 3000; limit = limit * 3 + 1) {
        struct rate rate = rate_of(limit, 12345);
        assert_int_equal(take_many(&rate, 4 * limit, 12345), limit);
    }
}

static void after_a_refusal_the_time_told_is_enough(void **state)
{
    (void)state;
    for (uint64_t limit = 1; limit <= 1000; limit *= 10) {
        struct rate rate = rate_of(limit, 0);
        int64_t now = 0;
        (void)take_many(&rate, limit, now);
        for (int round = 0; round < 5; round++) {
            uint32_t retry_after = 0;
            struct fault fault;
            assert_int_equal(rate_take(&rate, now, "q", &retry_after, &fault), QUOTA_EXCEEDED);
            now += retry_after * SECOND;
            assert_int_equal(take_many(&rate, limit + 1, now), limit);
        }
    }
}

static void a_request_is_earned_to_the_microsecond(void **state)
{
    (void)state;
    struct rate rate = rate_of(3, 0); /* one every 333333 1/3 us */
    assert_int_equal(take_many(&rate, 9, 0), 3);
    assert_false(take(&rate, 333333));
    assert_true(take(&rate, 333334));
    assert_false(take(&rate, 666666));
    assert_true(take(&rate, 666667));
    assert_false(take(&rate, 999999));
    assert_true(take(&rate, 1000000)); /* no part of a microsecond was lost */
}

static uint64_t next_number(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return *seed >> 33;
}

enum { GRANTS_MAX = 6000 };

/* For every two grants i <= j: as many as lie between them fit what that stretch may grant. */
static void check_windows(const int64_t *at, size_t count, uint64_t limit)
{
    for (size_t i = 0; i < count; i++) {
        for (size_t j = i; j < count; j++) {
            unsigned __int128 most = (unsigned __int128)limit * (uint64_t)(at[j] - at[i])
                                   + (unsigned __int128)limit * 1000000u;
            assert_true((unsigned __int128)(j - i + 1) * 1000000u <= most);
        }
    }
}

static void no_stretch_of_time_is_granted_more_than_its_rate_and_one_second(void **state)
{
    (void)state;
    static int64_t at[GRANTS_MAX];
    static const uint64_t limits[] = {1, 2, 3, 7, 50, 997};
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        uint64_t seed = i + 1;
        struct rate rate = rate_of(limits[i], 0);
        int64_t now = 0, newest = 0;
        size_t count = 0;
        for (int turn = 0; turn < 800 && count < GRANTS_MAX - 64; turn++) {
            uint64_t dice = next_number(&seed);
            now += dice % 5 == 0 ? (int64_t)(dice % 3000000) : (int64_t)(dice % 20000);
            for (uint64_t tries = next_number(&seed) % 64; tries > 0; tries--) {
                /* some callers read the clock a little earlier */
                int64_t seen = now - (int64_t)(next_number(&seed) % 3 == 0
                                                   ? next_number(&seed) % 5000 : 0);
                newest = seen > newest ? seen : newest;
                if (take(&rate, seen))
                    at[count++] = newest;
            }
        }
        assert_true(count > 100);
        check_windows(at, count, limits[i]);
    }
}

static void a_clock_that_steps_back_gives_nothing_and_takes_at_most_a_second(void **state)
{
    (void)state;
    struct rate rate = rate_of(10, 100 * SECOND);
    assert_int_equal(take_many(&rate, 20, 100 * SECOND), 10);
    /* a little back and forth, again and again: an older reading, not more time */
    for (int i = 0; i < 1000; i++)
        assert_false(take(&rate, 100 * SECOND - i % 2 * (SECOND / 2)));
    /* far back: nothing for the step itself, then as ever */
    assert_int_equal(take_many(&rate, 20, 5 * SECOND), 0);
    assert_int_equal(take_many(&rate, 20, 5 * SECOND + SECOND / 2), 5);
    assert_int_equal(take_many(&rate, 20, 6 * SECOND + SECOND / 2), 10);
    assert_int_equal(take_many(&rate, 20, INT64_MIN), 0);
    assert_int_equal(take_many(&rate, 20, INT64_MAX), 10); /* the end of time is one second too */
    assert_int_equal(take_many(&rate, 20, INT64_MIN), 0);
}

static void a_long_pause_fills_it_once(void **state)
{
    (void)state;
    struct rate rate = rate_of(5, 0);
    assert_int_equal(take_many(&rate, 9, 0), 5);
    assert_int_equal(take_many(&rate, 99, 1000000 * SECOND), 5);
}

static void a_limit_too_large_to_count_is_bounded_and_still_counts(void **state)
{
    (void)state;
    struct rate rate = rate_of(UINT64_MAX, 0);
    assert_int_equal(take_many(&rate, 1000, 0), 1000);
    assert_int_equal(take_many(&rate, 1000, SECOND), 1000);
    rate = rate_of(QUOTA_MAX, 0);
    assert_int_equal(take_many(&rate, 1000, INT64_MAX), 1000);
}

static void a_new_limit_is_in_force_at_once_and_is_no_gift(void **state)
{
    (void)state;
    struct rate rate = rate_of(1000, 0);
    assert_int_equal(take_many(&rate, 10, 0), 10);
    rate_set(&rate, 3, 0);
    assert_int_equal(take_many(&rate, 10, 0), 3);
    for (int i = 0; i < 100; i++)
        rate_set(&rate, i % 2 ? 3 : 1000, 0);
    assert_int_equal(take_many(&rate, 10, 0), 0);
    rate_set(&rate, 1000, 0);
    assert_int_equal(take_many(&rate, 2000, 0), 0);
    assert_int_equal(take_many(&rate, 2000, SECOND), 1000);
}

/* ---- users ---- */

static bool take_for(struct user_rates *rates, uint64_t limit, unsigned user, int64_t now)
{
    char name[32];
    int length = snprintf(name, sizeof name, "user-%u", user);
    uint32_t retry_after = 0;
    struct fault fault;
    status code = user_rates_take(rates, limit,
                                  (struct span){(const uint8_t *)name, (size_t)length}, now,
                                  &retry_after, &fault);
    assert_true(code == OK || code == QUOTA_EXCEEDED);
    assert_true(code == OK || retry_after >= 1);
    assert_true(code == OK || strncmp(fault.detail, "user_requests_per_second", 24) == 0);
    return code == OK;
}

static struct user_rates *open_rates(void)
{
    struct user_rates *rates = NULL;
    struct fault fault;
    assert_int_equal(user_rates_create(&rates, &fault), OK);
    return rates;
}

static void without_a_limit_no_user_is_remembered(void **state)
{
    (void)state;
    struct user_rates *rates = open_rates();
    for (unsigned i = 0; i < 2 * USER_RATES_MAX; i++)
        assert_true(take_for(rates, 0, i, 0));
    assert_int_equal(user_rates_count(rates), 0);
    user_rates_free(rates);
    assert_null(user_rates_free(NULL));
}

static void each_user_has_a_rate_of_its_own(void **state)
{
    (void)state;
    struct user_rates *rates = open_rates();
    for (unsigned user = 0; user < 100; user++)
        for (int i = 0; i < 8; i++)
            assert_int_equal(take_for(rates, 5, user, 0), i < 5);
    assert_int_equal(user_rates_count(rates), 100);
    for (unsigned user = 0; user < 100; user++)
        assert_true(take_for(rates, 5, user, SECOND / 5));
    user_rates_free(rates);
}

static void a_flood_of_users_gives_no_user_a_second_bucket(void **state)
{
    (void)state;
    struct user_rates *rates = open_rates();
    const uint64_t limit = 4;
    uint64_t granted = 0;
    for (unsigned i = 0; i < 9; i++)
        granted += take_for(rates, limit, 0, 0);
    assert_int_equal(granted, limit);
    /* the user mints as many others as it likes, each of which drains its own bucket */
    for (unsigned other = 1; other < 3 * USER_RATES_MAX; other++)
        for (unsigned i = 0; i < limit; i++)
            (void)take_for(rates, limit, other, 1000);
    assert_int_equal(user_rates_count(rates), USER_RATES_MAX);
    assert_false(take_for(rates, limit, 0, 2000));
    /* and others that take one each, later, when some are full again: still not the first's */
    for (unsigned other = 0; other < 3 * USER_RATES_MAX; other++)
        (void)take_for(rates, limit, 100000 + other, SECOND / 8);
    assert_false(take_for(rates, limit, 0, SECOND / 8));
    user_rates_free(rates);
}

static void a_full_table_refuses_newcomers_for_a_second_at_most(void **state)
{
    (void)state;
    struct user_rates *rates = open_rates();
    for (unsigned user = 0; user < USER_RATES_MAX; user++)
        for (int i = 0; i < 2; i++)
            assert_true(take_for(rates, 2, user, 0));
    assert_false(take_for(rates, 2, 99999, 0));
    assert_false(take_for(rates, 2, 99999, SECOND - 1));
    /* those in it were not touched by that */
    assert_true(take_for(rates, 2, 7, SECOND / 2));
    for (unsigned user = 0; user < 1000; user++)
        assert_true(take_for(rates, 2, 100000 + user, SECOND));
    assert_int_equal(user_rates_count(rates), USER_RATES_MAX);
    /* the one that was used in between is the one that is kept, and owes what it owed */
    assert_true(take_for(rates, 2, 7, SECOND));
    assert_false(take_for(rates, 2, 7, SECOND));
    user_rates_free(rates);
}

static void a_user_s_grants_are_exact_through_eviction(void **state)
{
    (void)state;
    static int64_t at[GRANTS_MAX];
    struct user_rates *rates = open_rates();
    uint64_t seed = 5;
    size_t count = 0;
    int64_t now = 0;
    unsigned other = 1;
    for (int turn = 0; turn < 400; turn++) {
        now += (int64_t)(next_number(&seed) % 200000);
        for (int i = 0; i < 40; i++)
            if (count < GRANTS_MAX && take_for(rates, 7, 0, now))
                at[count++] = now;
        for (int i = 0; i < 500; i++) /* thousands of others a second */
            (void)take_for(rates, 7, other++, now);
        now += turn % 40 == 0 ? 2 * SECOND : 0;
    }
    assert_true(count > 100);
    check_windows(at, count, 7);
    user_rates_free(rates);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_limit_grants_everything),
        cmocka_unit_test(one_turn_grants_one_second_s_worth_exactly),
        cmocka_unit_test(after_a_refusal_the_time_told_is_enough),
        cmocka_unit_test(a_request_is_earned_to_the_microsecond),
        cmocka_unit_test(no_stretch_of_time_is_granted_more_than_its_rate_and_one_second),
        cmocka_unit_test(a_clock_that_steps_back_gives_nothing_and_takes_at_most_a_second),
        cmocka_unit_test(a_long_pause_fills_it_once),
        cmocka_unit_test(a_limit_too_large_to_count_is_bounded_and_still_counts),
        cmocka_unit_test(a_new_limit_is_in_force_at_once_and_is_no_gift),
        cmocka_unit_test(without_a_limit_no_user_is_remembered),
        cmocka_unit_test(each_user_has_a_rate_of_its_own),
        cmocka_unit_test(a_flood_of_users_gives_no_user_a_second_bucket),
        cmocka_unit_test(a_full_table_refuses_newcomers_for_a_second_at_most),
        cmocka_unit_test(a_user_s_grants_are_exact_through_eviction),
    };
    struct fault fault;
    return crypt_start(&fault) == OK ? cmocka_run_group_tests(tests, NULL, NULL) : 2;
}
