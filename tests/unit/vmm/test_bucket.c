/* Token buckets: what goes through in any span of time is bounded, and nothing is lost to
 * rounding. */
#include "vmm/virtio/bucket.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static const struct sandbox_rate ten_a_second = {.size = 10, .refill_ms = 1000};

static void test_no_limit(void **state)
{
    (void)state;
    static const struct sandbox_rate none[] = {
        {.size = 0, .one_time_burst = 5, .refill_ms = 1000}, {.size = 10, .refill_ms = 0}};
    for (int i = 0; i < 2; i++) {
        struct bucket bucket = bucket_of(&none[i], 0);
        assert_true(bucket_take(&bucket, UINT64_MAX, 0));
        assert_true(bucket_take(&bucket, UINT64_MAX, 0));
        assert_int_equal(bucket_wait_us(&bucket, UINT64_MAX, 0), 0);
        bucket_give_back(&bucket, UINT64_MAX);
    }
}

static void test_taking_and_waiting(void **state)
{
    (void)state;
    struct bucket bucket = bucket_of(&ten_a_second, 1000);
    assert_true(bucket_take(&bucket, 10, 1000));
    assert_false(bucket_take(&bucket, 1, 1000));
    assert_int_equal(bucket_wait_us(&bucket, 1, 1000), 100000);
    assert_int_equal(bucket_wait_us(&bucket, 3, 51000), 250000);
    assert_false(bucket_take(&bucket, 1, 100999));
    assert_true(bucket_take(&bucket, 1, 101000));
    assert_false(bucket_take(&bucket, 11, 101000)); /* more than it holds, and it is not full */
    assert_true(bucket_take(&bucket, 0, 101000));
    assert_true(bucket_take(&bucket, 10, INT64_MAX));
    assert_false(bucket_take(&bucket, 1, 0)); /* time that goes back fills nothing */
}

static void test_fractions_are_kept(void **state)
{
    (void)state;
    struct bucket bucket = bucket_of(&(struct sandbox_rate){.size = 3, .refill_ms = 1}, 0);
    assert_true(bucket_take(&bucket, 3, 0));
    uint64_t taken = 0;
    for (int64_t now_us = 1; now_us <= 1000000; now_us += 7)
        taken += bucket_take(&bucket, 1, now_us);
    /* one each 333 us, asked each 7 us: nothing of the rest may be lost */
    assert_in_range(taken, 2990, 3000);
}

static void test_the_burst_comes_once(void **state)
{
    (void)state;
    const struct sandbox_rate rate = {.size = 10, .one_time_burst = 100, .refill_ms = 1000};
    struct bucket bucket = bucket_of(&rate, 0);
    assert_true(bucket_take(&bucket, 105, 0));
    assert_true(bucket_take(&bucket, 5, 0));
    assert_false(bucket_take(&bucket, 1, 0));
    assert_true(bucket_take(&bucket, 10, 60000000));
    assert_false(bucket_take(&bucket, 1, 60000000));
}

static void test_debts(void **state)
{
    (void)state;
    struct bucket bucket = bucket_of(&ten_a_second, 0);
    assert_true(bucket_take(&bucket, 35, 0)); /* it was full: it has them, and owes 25 */
    assert_int_equal(bucket_wait_us(&bucket, 1, 0), 2600000);
    assert_false(bucket_take(&bucket, 0, 2499999));
    assert_false(bucket_take(&bucket, 1, 2599999));
    assert_true(bucket_take(&bucket, 1, 2600000));
    assert_int_equal(bucket_wait_us(&bucket, 1000, 2600000), 1000000);
    assert_true(bucket_take(&bucket, UINT64_MAX, 3600000));
    assert_int_equal(bucket_wait_us(&bucket, 1, 3600000), BUCKET_WAIT_MAX_US); /* no overflow */
}

static void test_giving_back(void **state)
{
    (void)state;
    struct bucket bucket = bucket_of(&ten_a_second, 0);
    assert_true(bucket_take(&bucket, 10, 0));
    bucket_give_back(&bucket, 4);
    assert_true(bucket_take(&bucket, 4, 0));
    assert_false(bucket_take(&bucket, 1, 0));
    bucket_give_back(&bucket, UINT64_MAX); /* no more than it holds */
    assert_true(bucket_take(&bucket, 10, 0));
    assert_false(bucket_take(&bucket, 1, 0));
}

/* Whatever is asked when: in no window is more than size + rate x time given. */
static void test_bound(void **state)
{
    (void)state;
    const struct sandbox_rate rate = {.size = 1000, .refill_ms = 10};
    struct bucket bucket = bucket_of(&rate, 0);
    uint64_t chance = 88172645463325252U, given = 0, now_us = 0;
    for (int i = 0; i < 200000; i++) {
        chance ^= chance << 13;
        chance ^= chance >> 7;
        chance ^= chance << 17;
        now_us += chance % 50;
        uint64_t count = chance >> 32 & 255;
        int64_t wait_us = bucket_wait_us(&bucket, count, (int64_t)now_us);
        bool got = bucket_take(&bucket, count, (int64_t)now_us);
        assert_int_equal(got, wait_us == 0);
        given += got ? count : 0;
        assert_true(given <= 1000 + now_us / 10);
    }
    assert_true(given > now_us / 10 - 1000); /* and what is due is given */
}

static void test_snapshot(void **state)
{
    (void)state;
    struct fault fault;
    uint8_t storage[64];
    struct buffer saved = buffer_over(storage, sizeof storage);
    struct bucket bucket = bucket_of(&ten_a_second, 0), other = bucket_of(&ten_a_second, 0);
    assert_true(bucket_take(&bucket, 7, 0));
    bucket_save(&bucket, &saved);
    struct cursor cursor = cursor_over(buffer_span(&saved));
    assert_int_equal(bucket_load(&other, &cursor, 500, &fault), OK);
    assert_true(bucket_take(&other, 3, 500));
    assert_false(bucket_take(&other, 1, 500));
    /* a smaller one never holds what it may not */
    struct bucket small = bucket_of(&(struct sandbox_rate){.size = 2, .refill_ms = 1000}, 0);
    cursor = cursor_over(buffer_span(&saved));
    assert_int_equal(bucket_load(&small, &cursor, 0, &fault), OK);
    assert_true(bucket_take(&small, 2, 0));
    assert_false(bucket_take(&small, 1, 0));
    cursor = cursor_over((struct span){storage, 23});
    assert_int_equal(bucket_load(&small, &cursor, 0, &fault), TRUNCATED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_limit), cmocka_unit_test(test_taking_and_waiting),
        cmocka_unit_test(test_fractions_are_kept), cmocka_unit_test(test_the_burst_comes_once),
        cmocka_unit_test(test_debts), cmocka_unit_test(test_giving_back),
        cmocka_unit_test(test_bound), cmocka_unit_test(test_snapshot),
    };
    return cmocka_run_group_tests_name("token buckets", tests, NULL, NULL);
}
