#include "base/stats.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

/* The bucket in which a time is counted. */
static int bucket_of(uint64_t us)
{
    static struct stats stats;
    uint64_t sum = stats.wake_us_sum;
    stats_time(stats.wake_us, &stats.wake_us_sum, us);
    assert_true(stats.wake_us_sum - sum == us);
    int found = -1;
    for (int i = 0; i < STATS_BUCKETS; i++) {
        if (stats.wake_us[i]) {
            assert_int_equal(found, -1);
            found = i;
        }
        stats.wake_us[i] = 0;
    }
    return found;
}

static void a_time_falls_into_the_bucket_that_doubles_from_16_us(void **state)
{
    (void)state;
    assert_int_equal(bucket_of(0), 0);
    assert_int_equal(bucket_of(15), 0);
    assert_int_equal(bucket_of(16), 1);
    assert_int_equal(bucket_of(31), 1);
    assert_int_equal(bucket_of(32), 2);
    for (int i = 1; i < STATS_BUCKETS - 1; i++) {
        assert_int_equal(bucket_of(((uint64_t)16 << i) - 1), i);
        assert_int_equal(bucket_of((uint64_t)16 << i), i + 1);
    }
    assert_int_equal(bucket_of(UINT64_MAX), STATS_BUCKETS - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_time_falls_into_the_bucket_that_doubles_from_16_us),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
