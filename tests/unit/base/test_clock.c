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
        cmocka_unit_test(clocks_run_in_microseconds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
