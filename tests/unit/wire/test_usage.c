#include "wire/usage.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define GIB ((uint64_t)1 << 30)

static struct fault fault;

static status read_prices(struct prices *ret, const char *text)
{
    return prices_read(ret, span_of_text(text), &fault);
}

static uint64_t day_number(const char *wanted)
{
    for (int64_t day = 0; day < 40000; day++) {
        uint8_t storage[KIB(2)];
        struct buffer out = buffer_over(storage, sizeof storage);
        struct json_writer writer = json_writer_on(&out);
        struct usage_period period;
        const struct prices none = {0};
        usage_period_begin(&period, (uint32_t)day, (uint32_t)day, 0);
        json_open_object(&writer, NULL);
        usage_put_period(&writer, &period, &none);
        if (span_starts_with(buffer_span(&out), SPAN("{\"from\":\""))
            && memcmp(out.data + 9, wanted, 10) == 0)
            return (uint64_t)day;
    }
    fail_msg("no day %s", wanted);
    return 0;
}

static void a_record_is_read_back_as_it_was(void **state)
{
    (void)state;
    uint8_t storage[USAGE_RECORD_MAX];
    struct buffer out = buffer_over(storage, sizeof storage);
    struct usage_day day = {.day = 20000, .bytes_in = 7, .bytes_out = 8, .cpu_us = 9,
                            .awake_us = 10, .peak_kib = 11, .bytes_peak = 13, .bytes_end = 12};
    struct usage_day back;
    usage_day_count(&day, SPAN("memory.search"), 5, 2);
    usage_day_count(&day, SPAN("memory.add"), 1, 0);
    usage_day_count(&day, SPAN("memory.search"), 1, 1);
    usage_day_put(&out, &day);
    assert_false(out.failed);
    struct cursor cursor = cursor_over(buffer_span(&out));
    assert_int_equal(usage_day_get(&back, &cursor, &fault), OK);
    assert_int_equal(cursor_left(&cursor), 0);
    assert_int_equal(back.requests, 7);
    assert_int_equal(back.refused, 3);
    assert_int_equal(back.bytes_end, 12);
    assert_int_equal(back.action_count, 2);
    assert_string_equal(back.actions[0].name, "memory.search");
    assert_int_equal(back.actions[0].requests, 6);
    for (size_t length = 0; length < out.length; length++) { /* every truncation */
        cursor = cursor_over((struct span){storage, length});
        assert_int_not_equal(usage_day_get(&back, &cursor, &fault), OK);
    }
}

static void a_record_with_strange_names_is_refused(void **state)
{
    (void)state;
    static const char *const names[] = {"", "A.b", "memory search", "x\"y", "\xc3\xa4"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        uint8_t storage[USAGE_RECORD_MAX];
        struct buffer out = buffer_over(storage, sizeof storage);
        struct usage_day day = {.action_count = 1}, back;
        memcpy(day.actions[0].name, names[i], strlen(names[i]) + 1);
        usage_day_put(&out, &day);
        struct cursor cursor = cursor_over(buffer_span(&out));
        assert_int_equal(usage_day_get(&back, &cursor, &fault), BAD_FIELD);
    }
    uint8_t storage[USAGE_RECORD_MAX];
    struct buffer out = buffer_over(storage, sizeof storage);
    struct usage_day day = {.action_count = 2, .actions = {{"a", 1, 1}, {"a", 1, 1}}}, back;
    usage_day_put(&out, &day);
    struct cursor cursor = cursor_over(buffer_span(&out));
    assert_int_equal(usage_day_get(&back, &cursor, &fault), BAD_FIELD); /* twice */
}

static void more_actions_than_are_told_apart_count_as_others(void **state)
{
    (void)state;
    struct usage_day day = {0};
    for (int i = 0; i < 2 * USAGE_ACTIONS_MAX; i++) {
        char name[24];
        snprintf(name, sizeof name, "kind.action_%d", i);
        usage_day_count(&day, span_of_text(name), 1, 0);
    }
    assert_int_equal(day.action_count, USAGE_ACTIONS_MAX);
    assert_int_equal(day.requests, 2 * USAGE_ACTIONS_MAX);
    assert_string_equal(day.actions[USAGE_ACTIONS_MAX - 1].name, "other");
    assert_int_equal(day.actions[USAGE_ACTIONS_MAX - 1].requests, USAGE_ACTIONS_MAX + 1);
}

static void sums_stop_at_the_greatest_number(void **state)
{
    (void)state;
    struct usage_day all = {.requests = UINT64_MAX - 1}, more = {.requests = 5, .cpu_us = 3};
    usage_day_add(&all, &more);
    assert_int_equal(all.requests, UINT64_MAX);
    assert_int_equal(all.cpu_us, 3);
}

static void a_price_is_read_to_its_last_digit(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t pico;
    } good[] = {
        {"0", 0}, {"1", 1000000000000}, {"0.000002", 2000000}, {"0.000000000001", 1},
        {"0.1", 100000000000}, {"1000000", 1000000000000000000}, {"12.345678901234",
                                                                  12345678901234},
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        char text[128];
        struct prices prices;
        snprintf(text, sizeof text, "{\"currency\":\"EUR\",\"prices\":{\"gib_in\":%s}}",
                 good[i].text);
        if (read_prices(&prices, text) != OK)
            fail_msg("%s: %s", text, fault.detail);
        assert_int_equal(prices.pico[PRICE_GIB_IN], good[i].pico);
        assert_int_equal(prices.pico[PRICE_REQUEST], 0);
        assert_string_equal(prices.currency, "EUR");
    }
}

static void a_bad_price_file_is_refused_and_changes_nothing(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "", "[]", "{}", "{\"currency\":\"EUR\"}", "{\"prices\":{}}",
        "{\"currency\":\"eur\",\"prices\":{}}", "{\"currency\":\"E\",\"prices\":{}}",
        "{\"currency\":\"EUR\",\"prices\":[]}",
        "{\"currency\":\"EUR\",\"prices\":{},\"more\":1}",
        "{\"currency\":\"EUR\",\"prices\":{\"requests\":1}}",
        "{\"currency\":\"EUR\",\"prices\":{\"request\":-1}}",
        "{\"currency\":\"EUR\",\"prices\":{\"request\":\"1\"}}",
        "{\"currency\":\"EUR\",\"prices\":{\"request\":1e-6}}",
        "{\"currency\":\"EUR\",\"prices\":{\"request\":1000001}}",
        "{\"currency\":\"EUR\",\"prices\":{\"request\":1000000.1}}",
        "{\"currency\":\"EUR\",\"prices\":{\"request\":99999999999999999999999}}",
        "{\"currency\":\"EUR\",\"prices\":{\"request\":0.0000000000001}}",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct prices prices = {.currency = "CHF"};
        if (read_prices(&prices, bad[i]) == OK)
            fail_msg("not refused: %s", bad[i]);
        assert_string_equal(prices.currency, "CHF");
    }
}

static void prices_travel_whole(void **state)
{
    (void)state;
    uint8_t storage[128];
    struct buffer out = buffer_over(storage, sizeof storage);
    struct prices prices, back = {0};
    assert_int_equal(read_prices(&prices, "{\"currency\":\"USD\",\"prices\":{\"request\":0.5,"
                                          "\"peak_mib_hour\":0.25}}"), OK);
    prices_put(&out, &prices);
    struct cursor cursor = cursor_over(buffer_span(&out));
    assert_int_equal(prices_get(&back, &cursor, &fault), OK);
    assert_memory_equal(&back, &prices, sizeof back);
    for (size_t length = 0; length < out.length; length++) {
        cursor = cursor_over((struct span){storage, length});
        assert_int_not_equal(prices_get(&back, &cursor, &fault), OK);
    }
}

static void each_thing_has_its_price(void **state)
{
    (void)state;
    struct prices prices;
    struct usage_period period;
    uint32_t first = (uint32_t)day_number("2026-11-01");
    struct usage_day day = {.day = first, .requests = 1003, .refused = 3, .cpu_us = 1500000,
                            .awake_us = 3600000000, .peak_kib = 2048, .bytes_in = GIB / 2,
                            .bytes_out = 3 * GIB, .bytes_peak = 30 * GIB, .bytes_end = 30 * GIB};
    assert_int_equal(read_prices(&prices, "{\"currency\":\"EUR\",\"prices\":{\"request\":0.000002,"
        "\"cpu_second\":0.01,\"awake_second\":0.0001,\"gib_stored_month\":0.10,\"gib_in\":0.05,"
        "\"gib_out\":0.09,\"peak_mib_hour\":0.001}}"), OK);
    usage_period_begin(&period, first, first, 0);
    usage_period_add(&period, &day);
    usage_period_end(&period);
    struct cost cost = usage_cost(&period, &prices);
    assert_int_equal(cost.by[PRICE_REQUEST], 2000);          /* 1000 served */
    assert_int_equal(cost.by[PRICE_CPU_SECOND], 15000);      /* 1.5 s */
    assert_int_equal(cost.by[PRICE_AWAKE_SECOND], 360000);   /* an hour */
    assert_int_equal(cost.by[PRICE_GIB_STORED_MONTH], 100000); /* 30 GiB for a day of 30 */
    assert_int_equal(cost.by[PRICE_GIB_IN], 25000);
    assert_int_equal(cost.by[PRICE_GIB_OUT], 270000);
    assert_int_equal(cost.by[PRICE_PEAK_MIB_HOUR], 2000);    /* 2 MiB for an hour */
    assert_int_equal(cost.total, 774000);
}

static void money_is_rounded_half_up_and_never_wraps(void **state)
{
    (void)state;
    struct prices prices = {.currency = "EUR"};
    struct usage_period period = {.month_days = 30};
    period.sum.requests = 1;
    prices.pico[PRICE_REQUEST] = 499999;
    assert_int_equal(usage_cost(&period, &prices).total, 0);
    prices.pico[PRICE_REQUEST] = 500000;
    assert_int_equal(usage_cost(&period, &prices).total, 1);
    period.sum.requests = UINT64_MAX;
    prices.pico[PRICE_REQUEST] = 1000000000000000000;
    prices.pico[PRICE_CPU_SECOND] = 1000000000000000000;
    period.sum.cpu_us = UINT64_MAX;
    assert_int_equal(usage_cost(&period, &prices).total, UINT64_MAX);
    period.peak_kib_us = (unsigned __int128)UINT64_MAX * UINT64_MAX;
    prices.pico[PRICE_PEAK_MIB_HOUR] = 1000000000000000000;
    assert_int_equal(usage_cost(&period, &prices).by[PRICE_PEAK_MIB_HOUR], UINT64_MAX);
}

static void what_is_stored_costs_on_days_without_a_record_too(void **state)
{
    (void)state;
    struct usage_period period;
    uint32_t first = (uint32_t)day_number("2026-02-01");
    struct usage_day third = {.day = first + 2, .bytes_peak = 500, .bytes_end = 300};
    struct usage_day fifth = {.day = first + 4, .awake_us = 5}; /* awake, nothing measured */
    assert_int_equal(usage_month_begin(first + 9), first);
    usage_period_begin(&period, first, first + 9, 100);
    usage_period_add(&period, &third);
    usage_period_add(&period, &fifth);
    usage_period_end(&period);
    assert_int_equal(period.month_days, 28);
    assert_int_equal(period.byte_days, 2 * 100 + 500 + 7 * 300);
    assert_int_equal(period.sum.bytes_end, 300);
    assert_int_equal(period.sum.bytes_peak, 500);
    assert_int_equal(period.sum.awake_us, 5);
}

static void without_prices_the_cost_is_null(void **state)
{
    (void)state;
    uint8_t storage[KIB(2)];
    struct buffer out = buffer_over(storage, sizeof storage);
    struct json_writer writer = json_writer_on(&out);
    const struct prices none = {0};
    const struct cost cost = {.total = 1};
    json_open_object(&writer, NULL);
    cost_put(&writer, "cost", &cost, &none);
    json_close_object(&writer);
    assert_true(span_is(buffer_span(&out), "{\"cost\":null}"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_record_is_read_back_as_it_was),
        cmocka_unit_test(a_record_with_strange_names_is_refused),
        cmocka_unit_test(more_actions_than_are_told_apart_count_as_others),
        cmocka_unit_test(sums_stop_at_the_greatest_number),
        cmocka_unit_test(a_price_is_read_to_its_last_digit),
        cmocka_unit_test(a_bad_price_file_is_refused_and_changes_nothing),
        cmocka_unit_test(prices_travel_whole),
        cmocka_unit_test(each_thing_has_its_price),
        cmocka_unit_test(money_is_rounded_half_up_and_never_wraps),
        cmocka_unit_test(what_is_stored_costs_on_days_without_a_record_too),
        cmocka_unit_test(without_prices_the_cost_is_null),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
