#include "house.h"

#include "silo/state.h"

#include <stdlib.h>

static status get(struct house *house, const char *id)
{
    return ask(house, &alice, "GET", path_of(house, id, ""), "", NULL);
}

static int64_t rows(struct house *house, const char *sql)
{
    _cleanup_statement_ struct statement *count = NULL;
    assert_ok(house, statement_open(&count, house->silo->store, sql, &house->fault));
    assert_ok(house, statement_step(count, &house->fault));
    return statement_int(count, 0);
}

static uint32_t found(struct house *house, const char *word)
{
    char body[64];
    snprintf(body, sizeof body, "{\"query\":\"%s\"}", word);
    assert_ok(house, ask(house, &alice, "POST", "/v1/memories/search", "", body));
    return answer_data(house)->count;
}

static void a_memory_past_its_ttl_is_deleted_not_hidden(void **state)
{
    struct house *house = *state;
    const char *id = remember_as(house, &alice, "{\"text\":\"zebra\",\"ttl_seconds\":60}");
    const char *stays = remember(house, &alice, "lion");
    assert_ok(house, ask(house, &alice, "PATCH", path_of(house, id, ""), "",
                         "{\"text\":\"giraffe\"}"));
    house_expire(house, true); /* the index forgets the zebra */
    assert_int_equal(silo_next_expiry_us(house->silo), START_US + 60 * SECOND_US);
    house->now_us += 59 * SECOND_US;
    house_expire(house, false);
    assert_ok(house, get(house, id));
    house->now_us += SECOND_US;
    assert_status(house, get(house, id), NOT_FOUND); /* even before it is deleted */
    assert_int_equal(found(house, "giraffe"), 0);
    assert_int_equal(rows(house, "SELECT count(*) FROM memories"), 2);
    house_expire(house, true);
    assert_int_equal(rows(house, "SELECT count(*) FROM memories"), 1);
    assert_int_equal(rows(house, "SELECT count(*) FROM memory_versions"), 0);
    assert_int_equal(rows(house, "SELECT count(*) FROM memory_index_1_1 "
                                 "WHERE memory_index_1_1 MATCH 'giraffe OR zebra'"), 0);
    assert_ok(house, get(house, stays));
    assert_int_equal(silo_next_expiry_us(house->silo), 0);
}

static void a_memory_past_the_retention_is_deleted(void **state)
{
    struct house *house = *state;
    house->opening.posture.retention_days = 30;
    house_reopen(house);
    const char *old = remember(house, &alice, "zebra");
    assert_string_equal(answer_text(house, &house->answer, "expires_at"),
                        "2027-02-14T08:00:00.000000Z");
    assert_int_equal(silo_next_expiry_us(house->silo), START_US + 30 * DAY_US);
    house->now_us += 20 * DAY_US;
    const char *young = remember(house, &alice, "zebra");
    house->now_us += 10 * DAY_US;
    house_expire(house, false);
    assert_status(house, get(house, old), NOT_FOUND);
    assert_ok(house, get(house, young));
    assert_int_equal(rows(house, "SELECT count(*) FROM memories"), 1);
    assert_int_equal(silo_next_expiry_us(house->silo), START_US + 50 * DAY_US);
}

static void a_longer_ttl_does_not_outlive_the_retention(void **state)
{
    struct house *house = *state;
    house->opening.posture.retention_days = 1;
    house_reopen(house);
    const char *id = remember_as(house, &alice, "{\"text\":\"x\",\"ttl_seconds\":1000000}");
    house->now_us += DAY_US;
    house_expire(house, false);
    assert_status(house, get(house, id), NOT_FOUND);
    assert_int_equal(rows(house, "SELECT count(*) FROM memories"), 0);
    assert_int_equal(rows(house, "SELECT count(*) FROM memory_users"), 0);
}

static void many_expire_in_bounded_steps(void **state)
{
    struct house *house = *state;
    for (int i = 0; i < 700; i++)
        remember_as(house, &alice, "{\"text\":\"zebra\",\"ttl_seconds\":1}");
    house->now_us += 2 * SECOND_US;
    silo_begin(house->silo, house->now_us);
    bool more = false;
    assert_ok(house, silo_expire(&more, house->silo, house->now_us, false, &house->fault));
    assert_true(more);
    assert_ok(house, silo_commit(house->silo, &house->fault));
    int64_t left = rows(house, "SELECT count(*) FROM memories");
    assert_true(left > 0 && left < 700);
    house_expire(house, false);
    assert_int_equal(rows(house, "SELECT count(*) FROM memories"), 0);
}

static bool file_holds_word(struct house *house, const char *word)
{
    int64_t blocks = 0;
    _cleanup_statement_ struct statement *read = NULL;
    assert_ok(house, statement_open(&read, house->silo->store,
                                    "SELECT count(*) FROM memory_index_1_1_data "
                                    "WHERE instr(block, CAST(?1 AS BLOB)) > 0", &house->fault));
    statement_bind_text(read, 1, span_of_text(word));
    assert_ok(house, statement_step(read, &house->fault));
    blocks = statement_int(read, 0);
    return blocks > 0;
}

static void deleted_words_leave_the_index_before_the_cell_parks(void **state)
{
    struct house *house = *state;
    remember(house, &alice, "lion");
    const char *id = remember(house, &alice, "zebracadabra");
    assert_true(file_holds_word(house, "zebracadabra"));
    assert_int_equal(silo_next_expiry_us(house->silo), 0);
    assert_ok(house, ask(house, &alice, "DELETE", path_of(house, id, ""), "", NULL));
    assert_true(silo_next_expiry_us(house->silo) != 0);
    assert_true(file_holds_word(house, "zebracadabra"));
    house_expire(house, true);
    assert_false(file_holds_word(house, "zebracadabra"));
    assert_int_equal(silo_next_expiry_us(house->silo), 0);
    assert_int_equal(found(house, "lion"), 1);
}

static void a_crash_does_not_forget_that_an_index_is_stale(void **state)
{
    struct house *house = *state;
    const char *id = remember(house, &alice, "zebracadabra");
    assert_ok(house, ask(house, &alice, "DELETE", path_of(house, id, ""), "", NULL));
    house_crash(house);
    assert_true(silo_next_expiry_us(house->silo) != 0);
    house_expire(house, true);
    assert_false(file_holds_word(house, "zebracadabra"));
}

static void expiry_is_in_the_audit_log(void **state)
{
    struct house *house = *state;
    remember_as(house, &alice, "{\"text\":\"x\",\"ttl_seconds\":1}");
    house->now_us += 2 * SECOND_US;
    uint64_t before = store_log_size(house->silo->log);
    house_expire(house, false);
    assert_int_equal(store_log_size(house->silo->log), before + 1);
    assert_int_equal(rows(house, "SELECT count(*) FROM log_entries WHERE "
                                 "CAST(entry AS TEXT) LIKE '%\"memory.expire\"%\"count\":1}'"), 1);
}

static void nothing_expires_without_its_entry(void **state)
{
    struct house *house = *state;
    remember_as(house, &alice, "{\"text\":\"x\",\"ttl_seconds\":1}");
    house->now_us += 2 * SECOND_US;
    silo_begin(house->silo, house->now_us);
    for (int i = 0; i < AUDIT_PENDING_MAX; i++) {
        arena_reset(&house->arena);
        assert_ok(house, ask_in_turn(house, &alice, "GET", "/v1/memories", "limit=1", NULL));
    }
    bool more;
    assert_status(house, silo_expire(&more, house->silo, house->now_us, false, &house->fault),
                  UNAVAILABLE);
    assert_ok(house, silo_commit(house->silo, &house->fault));
    assert_int_equal(rows(house, "SELECT count(*) FROM memories"), 1);
    house_expire(house, false);
    assert_int_equal(rows(house, "SELECT count(*) FROM memories"), 0);
    assert_int_equal(rows(house, "SELECT count(*) FROM log_entries WHERE "
                                 "CAST(entry AS TEXT) LIKE '%\"memory.expire\"%\"count\":1}'"), 1);
}

static void expiring_nothing_writes_nothing(void **state)
{
    struct house *house = *state;
    remember(house, &alice, "x");
    assert_ok(house, silo_commit(house->silo, &house->fault));
    struct anchor before = house_anchor(house);
    house_expire(house, true);
    struct anchor after = house_anchor(house);
    assert_int_equal(before.commits, after.commits);
}

static void remembered_idempotency_keys_go_after_a_day(void **state)
{
    struct house *house = *state;
    house->idempotency_key = SPAN("k");
    remember(house, &alice, "x");
    house->idempotency_key = (struct span){0};
    assert_int_equal(silo_next_expiry_us(house->silo), house->now_us + DAY_US + 3600 * SECOND_US);
    house->now_us += DAY_US + 3600 * SECOND_US;
    house_expire(house, false);
    assert_int_equal(silo_next_expiry_us(house->silo), 0);
    assert_int_equal(rows(house, "SELECT count(*) FROM idempotency_keys"), 0);
}

#define HOUSE_TEST(name) cmocka_unit_test_setup_teardown(name, house_build, house_pull_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        HOUSE_TEST(a_memory_past_its_ttl_is_deleted_not_hidden),
        HOUSE_TEST(a_memory_past_the_retention_is_deleted),
        HOUSE_TEST(a_longer_ttl_does_not_outlive_the_retention),
        HOUSE_TEST(many_expire_in_bounded_steps),
        HOUSE_TEST(deleted_words_leave_the_index_before_the_cell_parks),
        HOUSE_TEST(a_crash_does_not_forget_that_an_index_is_stale),
        HOUSE_TEST(expiry_is_in_the_audit_log),
        HOUSE_TEST(nothing_expires_without_its_entry),
        HOUSE_TEST(expiring_nothing_writes_nothing),
        HOUSE_TEST(remembered_idempotency_keys_go_after_a_day),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
