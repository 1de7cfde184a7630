#include "house.h"

#include "silo/state.h"

static const struct action *const add = &memory_actions[MEMORY_ADD];
static const struct action *const search = &memory_actions[MEMORY_SEARCH];

static const struct json *month(struct house *house, const char *period)
{
    assert_ok(house, ask(house, &platform, "GET", "/v1/tenant", "", NULL));
    const struct json *found = json_member(json_member(&house->answer, "usage"), period);
    assert_non_null(found);
    return found;
}

static int64_t count_of(const struct json *period, const char *action, const char *what)
{
    const struct json *found = json_member(json_member(period, "by_action"), action);
    return found == NULL ? 0 : answer_integer(found, what);
}

static void later(struct house *house, int64_t us)
{
    house->now_us += us;
    silo_begin(house->silo, house->now_us);
}

static void what_is_counted_is_shown_before_and_after_it_is_stored(void **state)
{
    struct house *house = *state;
    remember(house, &alice, "one");
    silo_count(house->silo, add, false, 10, 100);
    silo_count(house->silo, search, true, 5, 50);
    silo_count(house->silo, NULL, true, 1, 2);
    silo_count_bytes(house->silo, 1000, 2000);
    for (int round = 0; round < 3; round++) {
        const struct json *period = month(house, round == 1 ? "today" : "month");
        assert_int_equal(answer_integer(period, "requests"), 3);
        assert_int_equal(answer_integer(period, "refused"), 2);
        assert_int_equal(answer_integer(period, "bytes_in"), 1016);
        assert_int_equal(answer_integer(period, "bytes_out"), 2152);
        assert_int_equal(count_of(period, "memory.add", "requests"), 1);
        assert_int_equal(count_of(period, "memory.search", "refused"), 1);
        assert_int_equal(count_of(period, "other", "requests"), 1);
        assert_true(answer_integer(period, "bytes_stored_peak") > 0);
        assert_true(silo_usage_settle(house->silo) == (round == 0));
        house_reopen(house);
    }
}

static void each_day_has_its_own_counts(void **state)
{
    struct house *house = *state;
    remember(house, &alice, "one");
    silo_count(house->silo, add, false, 1, 1);
    later(house, DAY_US);
    silo_count(house->silo, add, false, 1, 1);
    silo_count(house->silo, add, false, 1, 1);
    assert_int_equal(answer_integer(month(house, "month"), "requests"), 3);
    assert_int_equal(answer_integer(month(house, "today"), "requests"), 2);
    (void)silo_usage_settle(house->silo);
    house_reopen(house);
    later(house, SECOND_US);
    assert_int_equal(answer_integer(month(house, "month"), "requests"), 3);
    assert_int_equal(answer_integer(month(house, "today"), "requests"), 2);
    later(house, 40 * DAY_US); /* another month */
    assert_int_equal(answer_integer(month(house, "month"), "requests"), 0);
    assert_true(answer_integer(month(house, "month"), "bytes_stored") > 0); /* still there */
}

static void counts_go_with_commits_that_happen_anyway_and_not_with_each(void **state)
{
    struct house *house = *state;
    remember(house, &alice, "one");
    silo_count(house->silo, add, false, 1, 1);
    remember(house, &alice, "two"); /* the first is due at once */
    silo_count(house->silo, add, false, 1, 1);
    remember(house, &alice, "three"); /* the second has to wait */
    house_crash(house);
    later(house, 0);
    assert_int_equal(answer_integer(month(house, "month"), "requests"), 1);
    silo_count(house->silo, add, false, 1, 1);
    remember(house, &alice, "four");
    later(house, 11 * SECOND_US);
    silo_count(house->silo, add, false, 1, 1);
    remember(house, &alice, "five");
    house_crash(house);
    later(house, 0);
    assert_int_equal(answer_integer(month(house, "month"), "requests"), 3);
}

static void a_commit_that_fails_loses_no_count(void **state)
{
    struct house *house = *state;
    remember(house, &alice, "one");
    silo_count(house->silo, add, false, 1, 1);
    silo_begin(house->silo, house->now_us);
    assert_ok(house, ask_in_turn(house, &alice, "POST", "/v1/memories", "", "{\"text\":\"two\"}"));
    house->sim->fail_every = 1;
    house->sim->fail_errno = 28; /* ENOSPC */
    assert_int_not_equal(silo_commit(house->silo, &house->fault), OK);
    house->sim->fail_every = 0;
    remember(house, &alice, "three");
    house_crash(house);
    later(house, 0);
    assert_int_equal(answer_integer(month(house, "month"), "requests"), 1);
}

static void a_report_tells_each_count_once_and_of_each_day(void **state)
{
    struct house *house = *state;
    uint8_t storage[2 * USAGE_RECORD_MAX];
    struct buffer out = buffer_over(storage, sizeof storage);
    struct usage_day day;
    silo_begin(house->silo, house->now_us);
    silo_count(house->silo, add, false, 1, 2);
    later(house, DAY_US);
    silo_count(house->silo, search, true, 3, 4);
    assert_int_equal(silo_usage_report(&out, house->silo), 2);
    struct cursor cursor = cursor_over(buffer_span(&out));
    assert_ok(house, usage_day_get(&day, &cursor, &house->fault));
    assert_int_equal(day.day, usage_day_of(START_US));
    assert_int_equal(day.requests, 1);
    assert_ok(house, usage_day_get(&day, &cursor, &house->fault));
    assert_int_equal(day.day, usage_day_of(START_US) + 1);
    assert_string_equal(day.actions[0].name, "memory.search");
    assert_int_equal(day.refused, 1);
    assert_int_equal(cursor_left(&cursor), 0);
    buffer_clear(&out);
    assert_int_equal(silo_usage_report(&out, house->silo), 0);
    assert_int_equal(out.length, 0);
}

static void days_older_than_are_kept_go(void **state)
{
    struct house *house = *state;
    remember(house, &alice, "one");
    for (int round = 0; round < 3; round++) {
        silo_count(house->silo, add, false, 1, 1);
        remember(house, &alice, "more");
        later(house, (int64_t)USAGE_DAYS_KEPT / 2 * DAY_US + DAY_US);
    }
    struct statement *rows;
    assert_ok(house, statement_open(&rows, house->silo->store, "SELECT count(*) FROM usage_days",
                                    &house->fault));
    assert_ok(house, statement_step(rows, &house->fault));
    assert_int_equal(statement_int(rows, 0), 2);
    statement_close(rows);
}

static void a_silo_that_was_never_used_stays_empty(void **state)
{
    struct house *house = *state;
    silo_begin(house->silo, house->now_us);
    silo_count(house->silo, add, true, 1, 1);
    assert_false(silo_usage_settle(house->silo));
    assert_ok(house, silo_commit(house->silo, &house->fault));
    assert_int_equal(silo_bytes(house->silo), 0);
}

#define HOUSE_TEST(name) cmocka_unit_test_setup_teardown(name, house_build, house_pull_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        HOUSE_TEST(what_is_counted_is_shown_before_and_after_it_is_stored),
        HOUSE_TEST(each_day_has_its_own_counts),
        HOUSE_TEST(counts_go_with_commits_that_happen_anyway_and_not_with_each),
        HOUSE_TEST(a_commit_that_fails_loses_no_count),
        HOUSE_TEST(a_report_tells_each_count_once_and_of_each_day),
        HOUSE_TEST(days_older_than_are_kept_go),
        HOUSE_TEST(a_silo_that_was_never_used_stays_empty),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
