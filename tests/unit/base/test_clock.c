#include "base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static void assert_text(int64_t wall_us, const char *expected)
{
    char text[CLOCK_TEXT_SIZE];
    clock_text(text, wall_us);
    assert_string_equal(text, expected);
}

static void times_are_written_as_rfc_3339_with_microseconds(void **state)
{
    (void)state;
    assert_text(0, "1970-01-01T00:00:00.000000Z");
    assert_text(1795299022123456, "2026-11-21T22:10:22.123456Z");
    assert_text(951782400000001, "2000-02-29T00:00:00.000001Z");
    assert_text(-1, "1969-12-31T23:59:59.999999Z");
    assert_text(-1000000, "1969-12-31T23:59:59.000000Z");
}

static void times_outside_of_four_digit_years_are_clamped(void **state)
{
    (void)state;
    assert_text(-62135596800000000, "0001-01-01T00:00:00.000000Z");
    assert_text(253402300799999999, "9999-12-31T23:59:59.999999Z");
    char text[CLOCK_TEXT_SIZE];
    clock_text(text, INT64_MAX);
    assert_int_equal(strncmp(text, "9999-12-31T23:59:59.", 20), 0);
    clock_text(text, INT64_MIN);
    assert_int_equal(strncmp(text, "0001-01-01T00:00:00.", 20), 0);
}

static void assert_time(const char *text, int64_t wanted_us)
{
    int64_t wall_us = -1;
    if (!clock_read(&wall_us, span_of_text(text)) || wall_us != wanted_us)
        fail_msg("%s: %lld", text, (long long)wall_us);
}

static void times_of_rfc_3339_are_read(void **state)
{
    (void)state;
    assert_time("1970-01-01T00:00:00Z", 0);
    assert_time("2026-11-21T22:10:22.123456Z", 1795299022123456);
    assert_time("2026-11-21T22:10:22.5Z", 1795299022500000);
    assert_time("2026-11-21T23:10:22+01:00", 1795299022000000);
    assert_time("2026-11-21T16:40:22-05:30", 1795299022000000);
    assert_time("2000-02-29T00:00:00Z", 951782400000000);
    assert_time("9999-12-31T23:59:59.999999Z", 253402300799999999);
    assert_time("1969-12-31T23:30:00-00:30", 0);
}

static void what_is_no_such_time_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "", "2026", "2026-11-21", "2026-11-21T22:10:22", "2026-11-21 22:10:22Z",
        "2026-11-21t22:10:22Z", "2026-11-21T22:10:22z", "2026-11-21T22:10:22.Z",
        "2026-11-21T22:10:22.1234567Z", "2026-11-21T22:10:22ZZ", "2026-11-21T22:10:22Z ",
        "2026-11-21T22:10:60Z", "2026-11-21T24:00:00Z", "2026-11-21T22:60:22Z",
        "2026-13-21T22:10:22Z", "2026-00-21T22:10:22Z", "2026-11-31T22:10:22Z",
        "2026-11-00T22:10:22Z", "2027-02-29T22:10:22Z", "2100-02-29T22:10:22Z",
        "1969-12-31T23:59:59Z", "9999-12-31T23:59:59-00:01", "1970-01-01T00:00:00+00:01",
        "2026-11-21T22:10:22+1:00", "2026-11-21T22:10:22+0100", "2026-11-21T22:10:22+24:00",
        "2026-11-21T22:10:22+01:60", "+026-11-21T22:10:22Z", "2026-11-21T22:10:22+",
        "2026-11-21T22:10:22.5+01:00x",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        int64_t wall_us = -1;
        if (clock_read(&wall_us, span_of_text(bad[i])) || wall_us != -1)
            fail_msg("%s", bad[i]);
    }
}

static void clocks_run_in_microseconds(void **state)
{
    (void)state;
    int64_t before = clock_monotonic_us(), wall = clock_wall_us();
    usleep(2000);
    int64_t passed = clock_monotonic_us() - before;
    assert_true(passed >= 2000 && passed < 60 * 1000000);
    assert_true(wall / 1000000 >= time(NULL) - 60 && wall / 1000000 <= time(NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(times_are_written_as_rfc_3339_with_microseconds),
        cmocka_unit_test(times_outside_of_four_digit_years_are_clamped),
        cmocka_unit_test(times_of_rfc_3339_are_read),
        cmocka_unit_test(what_is_no_such_time_is_refused),
        cmocka_unit_test(clocks_run_in_microseconds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
