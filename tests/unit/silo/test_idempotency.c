/* The same Idempotency-Key again: the first answer, never the effect twice, and nothing that was
 * deleted meanwhile. */
#include "house.h"

#include "silo/idempotency.h"
#include "silo/state.h"

#define MEMORY (SCOPE_SET(SCOPE_MEMORY_READ) | SCOPE_SET(SCOPE_MEMORY_WRITE))
#define WRITE "POST", "/v1/memories", ""
#define SEARCH "POST", "/v1/memories/search", ""
#define ONE "{\"text\":\"one\"}"
#define QUERY "{\"query\":\"one\"}"

static void use_key(struct house *house, const char *key)
{
    house->idempotency_key = span_of_text(key);
}

static int64_t entries(struct house *house, const char *like)
{
    _cleanup_statement_ struct statement *find = NULL;
    assert_ok(house, statement_open(&find, house->silo->store,
                                    "SELECT count(*) FROM log_entries WHERE "
                                    "CAST(entry AS TEXT) LIKE ?1", &house->fault));
    statement_bind_text(find, 1, span_of_text(like));
    assert_ok(house, statement_step(find, &house->fault));
    return statement_int(find, 0);
}

static uint32_t count(struct house *house, const struct who *who)
{
    struct span key = house->idempotency_key;
    house->idempotency_key = (struct span){0};
    assert_ok(house, ask(house, who, "GET", "/v1/memories", "", NULL));
    house->idempotency_key = key;
    return answer_data(house)->count;
}

static void a_repeat_has_no_effect_and_the_first_answer(void **state)
{
    struct house *house = *state;
    use_key(house, "k");
    const char *id = remember(house, &alice, "one");
    assert_false(house->replayed);
    assert_string_equal(remember(house, &alice, "one"), id);
    assert_true(house->replayed);
    assert_int_equal(house->http_status, 201);
    assert_int_equal(count(house, &alice), 1);
}

static void another_request_under_the_same_key_is_a_conflict(void **state)
{
    struct house *house = *state;
    use_key(house, "k");
    remember(house, &alice, "one");
    assert_status(house, ask(house, &alice, WRITE, "{\"text\":\"two\"}"), CONFLICT);
    assert_status(house, ask(house, &alice, SEARCH, ONE), CONFLICT);
    house->content_type = "application/json";
    assert_status(house, ask(house, &alice, WRITE, ONE), CONFLICT);
    house->content_type = NULL;
    assert_int_equal(count(house, &alice), 1);
    assert_ok(house, ask(house, &alice, WRITE, ONE));
}

static void each_user_has_keys_of_its_own(void **state)
{
    struct house *house = *state;
    use_key(house, "k");
    const char *id = remember(house, &alice, "one");
    assert_string_not_equal(remember(house, &bob, "one"), id);
    assert_false(house->replayed);
    assert_ok(house, ask(house, &alice, WRITE, ONE));
    assert_ok(house, ask(house, &bob, WRITE, ONE));
}

static void users_and_keys_cannot_be_shifted_into_each_other(void **state)
{
    struct house *house = *state;
    const struct who ab = {"ab", "", MEMORY, CLEARANCE_INTERNAL};
    const struct who a = {"a", "", MEMORY, CLEARANCE_INTERNAL};
    use_key(house, "c");
    remember(house, &ab, "one");
    use_key(house, "bc");
    remember(house, &a, "one");
    assert_false(house->replayed);
}

static void keys_that_are_none_are_refused_by_name(void **state)
{
    struct house *house = *state;
    static char long_key[257];
    memset(long_key, 'k', 256);
    const char *const bad[] = {long_key, "a b", "tab\t", "\x7f", "caf\xc3\xa9", "line\n"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        use_key(house, bad[i]);
        assert_status(house, ask(house, &alice, WRITE, ONE), BAD_REQUEST);
        assert_non_null(strstr(house->fault.detail, "Idempotency-Key"));
    }
    long_key[255] = '\0';
    use_key(house, long_key);
    assert_ok(house, ask(house, &alice, WRITE, ONE));
    use_key(house, "~!\"#$%&'()*+,-./:;<=>?@[]^_`{|}");
    assert_ok(house, ask(house, &alice, WRITE, ONE));
}

static void other_methods_ignore_the_header(void **state)
{
    struct house *house = *state;
    const char *id = remember(house, &alice, "one");
    use_key(house, "a b");
    assert_ok(house, ask(house, &alice, "GET", path_of(house, id, ""), "", NULL));
    use_key(house, "k");
    assert_ok(house, ask(house, &alice, "PATCH", path_of(house, id, ""), "", "{\"text\":\"2\"}"));
    assert_ok(house, ask(house, &alice, "PATCH", path_of(house, id, ""), "", "{\"text\":\"3\"}"));
    assert_int_equal(answer_integer(&house->answer, "version"), 3);
    assert_ok(house, ask(house, &alice, "DELETE", path_of(house, id, ""), "", NULL));
}

static void what_failed_is_not_kept(void **state)
{
    struct house *house = *state;
    use_key(house, "k");
    assert_status(house, ask(house, &alice, WRITE, "{\"text\":1}"), BAD_FIELD);
    assert_ok(house, ask(house, &alice, WRITE, ONE));
    assert_false(house->replayed);
    use_key(house, "s");
    assert_status(house, ask(house, &alice, SEARCH, "{\"query\":1}"), BAD_FIELD);
    assert_ok(house, ask(house, &alice, SEARCH, QUERY));
    assert_false(house->replayed);
}

static void what_was_deleted_is_not_given_again(void **state)
{
    struct house *house = *state;
    use_key(house, "k");
    const char *id = remember(house, &alice, "one");
    assert_ok(house, ask(house, &alice, "DELETE", path_of(house, id, ""), "", NULL));
    assert_status(house, ask(house, &alice, WRITE, ONE), CONFLICT);
    assert_non_null(strstr(house->fault.detail, "gone"));
    assert_int_equal(count(house, &alice), 0);
}

static void a_search_is_answered_again_until_something_goes(void **state)
{
    struct house *house = *state;
    const char *first = remember(house, &alice, "one");
    use_key(house, "s");
    assert_ok(house, ask(house, &alice, SEARCH, QUERY));
    house->idempotency_key = (struct span){0};
    remember(house, &alice, "one more");
    use_key(house, "s");
    assert_ok(house, ask(house, &alice, SEARCH, QUERY));
    assert_true(house->replayed);
    assert_int_equal(answer_data(house)->count, 1);
    house->idempotency_key = (struct span){0};
    assert_ok(house, ask(house, &alice, "DELETE", path_of(house, first, ""), "", NULL));
    use_key(house, "s");
    assert_ok(house, ask(house, &alice, SEARCH, QUERY));
    assert_false(house->replayed);
    assert_int_equal(answer_data(house)->count, 1);
    assert_string_equal(answer_text(house, answer_item(house, 0), "text"), "one more");
}

static void a_search_does_not_show_what_was_replaced(void **state)
{
    struct house *house = *state;
    const char *id = remember(house, &alice, "one");
    use_key(house, "s");
    assert_ok(house, ask(house, &alice, SEARCH, QUERY));
    assert_ok(house, ask(house, &alice, "PATCH", path_of(house, id, ""), "", "{\"text\":\"2\"}"));
    assert_ok(house, ask(house, &alice, SEARCH, QUERY));
    assert_false(house->replayed);
    assert_int_equal(answer_data(house)->count, 0);
}

static void a_search_does_not_show_what_is_past_its_time(void **state)
{
    struct house *house = *state;
    remember_as(house, &alice, "{\"text\":\"one\",\"ttl_seconds\":10}");
    use_key(house, "s");
    assert_ok(house, ask(house, &alice, SEARCH, QUERY));
    assert_int_equal(answer_data(house)->count, 1);
    house->now_us += 11 * SECOND_US; /* gone, and not deleted yet */
    assert_ok(house, ask(house, &alice, SEARCH, QUERY));
    assert_false(house->replayed);
    assert_int_equal(answer_data(house)->count, 0);
    house_expire(house, false);
    assert_ok(house, ask(house, &alice, SEARCH, QUERY));
    assert_int_equal(answer_data(house)->count, 0);
}

static void a_stored_answer_is_not_given_to_a_lower_clearance(void **state)
{
    struct house *house = *state;
    remember_as(house, &cleared, "{\"text\":\"one\",\"classification\":\"restricted\"}");
    use_key(house, "s");
    assert_ok(house, ask(house, &cleared, SEARCH, QUERY));
    assert_int_equal(answer_data(house)->count, 1);
    assert_ok(house, ask(house, &alice, SEARCH, QUERY));
    assert_false(house->replayed);
    assert_int_equal(answer_data(house)->count, 0);
}

static void a_stored_answer_is_not_given_to_narrower_scopes(void **state)
{
    struct house *house = *state;
    const struct who wide = {"backend", "", MEMORY | SCOPE_SET(SCOPE_MEMORY_ANY_USER),
                             CLEARANCE_INTERNAL};
    const struct who narrow = {"backend", "", MEMORY, CLEARANCE_INTERNAL};
    remember(house, &alice, "one");
    use_key(house, "s");
    assert_ok(house, ask(house, &wide, SEARCH, QUERY));
    assert_int_equal(answer_data(house)->count, 1);
    assert_ok(house, ask(house, &narrow, SEARCH, QUERY));
    assert_false(house->replayed);
    assert_int_equal(answer_data(house)->count, 0);
}

static void a_mutation_is_not_told_to_a_lower_clearance(void **state)
{
    struct house *house = *state;
    static const char body[] = "{\"text\":\"one\",\"classification\":\"restricted\"}";
    use_key(house, "k");
    assert_ok(house, ask(house, &cleared, WRITE, body));
    assert_status(house, ask(house, &alice, WRITE, body), CONFLICT);
    assert_null(strstr(house->fault.detail, "one"));
    assert_ok(house, ask(house, &cleared, WRITE, body));
    assert_true(house->replayed);
}

static void a_key_serves_for_a_day(void **state)
{
    struct house *house = *state;
    use_key(house, "k");
    const char *id = remember(house, &alice, "one");
    house->now_us += DAY_US - SECOND_US;
    assert_string_equal(remember(house, &alice, "one"), id);
    house->now_us += SECOND_US;
    assert_string_not_equal(remember(house, &alice, "one"), id);
    assert_false(house->replayed);
    assert_ok(house, ask(house, &alice, WRITE, ONE));
    assert_true(house->replayed);
}

/* The answer did not leave, but the commit stood. */
static void a_repeat_after_a_crash_gives_the_first_answer(void **state)
{
    struct house *house = *state;
    use_key(house, "k");
    const char *id = remember(house, &alice, "one");
    use_key(house, "s");
    assert_ok(house, ask(house, &alice, SEARCH, QUERY));
    house_crash(house);
    assert_ok(house, ask(house, &alice, SEARCH, QUERY));
    assert_true(house->replayed);
    use_key(house, "k");
    assert_string_equal(remember(house, &alice, "one"), id);
    assert_true(house->replayed);
    assert_int_equal(count(house, &alice), 1);
}

static void what_was_not_committed_is_carried_out_anew(void **state)
{
    struct house *house = *state;
    remember(house, &alice, "zero");
    use_key(house, "k");
    silo_begin(house->silo, house->now_us);
    assert_ok(house, ask_in_turn(house, &alice, WRITE, ONE));
    house_crash(house);
    assert_ok(house, ask(house, &alice, WRITE, ONE));
    assert_false(house->replayed);
    assert_int_equal(count(house, &alice), 2);
}

static void two_of_the_same_key_in_one_turn_have_one_effect(void **state)
{
    struct house *house = *state;
    use_key(house, "k");
    silo_begin(house->silo, house->now_us);
    assert_ok(house, ask_in_turn(house, &alice, WRITE, ONE));
    const char *id = answer_text(house, &house->answer, "id");
    assert_ok(house, ask_in_turn(house, &alice, WRITE, ONE));
    assert_true(house->replayed);
    assert_string_equal(answer_text(house, &house->answer, "id"), id);
    assert_status(house, ask_in_turn(house, &alice, WRITE, "{\"text\":\"two\"}"), CONFLICT);
    assert_ok(house, silo_commit(house->silo, &house->fault));
    assert_int_equal(count(house, &alice), 1);
}

static void run_sql(struct house *house, const char *sql)
{
    silo_begin(house->silo, house->now_us);
    assert_ok(house, silo_write(house->silo, &house->fault));
    assert_ok(house, store_execute(house->silo->store, sql, &house->fault));
    house->silo->wrote = true;
    assert_ok(house, silo_commit(house->silo, &house->fault));
    idempotency_forget(house->silo);
}

static int64_t read_sql(struct house *house, const char *sql)
{
    _cleanup_statement_ struct statement *read = NULL;
    assert_ok(house, statement_open(&read, house->silo->store, sql, &house->fault));
    assert_ok(house, statement_step(read, &house->fault));
    return statement_int(read, 0);
}

/* As if the first had used half of the keys there are. */
static void no_user_can_take_all_keys_from_the_others(void **state)
{
    struct house *house = *state;
    char sql[160];
    use_key(house, "1");
    remember(house, &alice, "one");
    use_key(house, "2");
    const char *id = remember(house, &alice, "one");
    assert_int_equal(read_sql(house, "SELECT keys FROM idempotency_users"), 2);
    snprintf(sql, sizeof sql, "UPDATE idempotency_keys SET n = %d WHERE n > 0;"
             "UPDATE idempotency_users SET keys = %d", IDEMPOTENCY_KEYS_MAX / 2,
             IDEMPOTENCY_KEYS_MAX / 2);
    run_sql(house, sql);
    use_key(house, "3");
    assert_status(house, ask(house, &alice, WRITE, ONE), QUOTA_EXCEEDED);
    assert_ok(house, ask(house, &alice, SEARCH, QUERY));
    assert_ok(house, ask(house, &alice, SEARCH, QUERY));
    assert_false(house->replayed);
    remember(house, &bob, "one");
    assert_string_equal((remember(house, &bob, "one")), answer_text(house, &house->answer, "id"));
    assert_true(house->replayed);
    use_key(house, "2");
    assert_string_equal(remember(house, &alice, "one"), id);
    house->now_us += DAY_US;
    for (int i = 0; i < 3 && read_sql(house, "SELECT count(*) FROM idempotency_keys") > 0; i++)
        house_expire(house, true);
    assert_int_equal(read_sql(house, "SELECT count(*) FROM idempotency_users WHERE keys < 1000"),
                     0);
    use_key(house, "3");
    assert_ok(house, ask(house, &bob, WRITE, ONE));
    assert_int_equal(read_sql(house, "SELECT min(keys) FROM idempotency_users"), 1);
}

static void a_search_carried_out_anew_uses_up_no_room(void **state)
{
    struct house *house = *state;
    const char *id = remember(house, &alice, "one");
    use_key(house, "s");
    for (int i = 0; i < 3; i++) {
        assert_ok(house, ask(house, &alice, SEARCH, QUERY));
        assert_false(house->replayed);
        assert_ok(house, ask(house, &alice, SEARCH, QUERY));
        assert_true(house->replayed);
        assert_ok(house, ask(house, &alice, "PATCH", path_of(house, id, ""), "",
                             "{\"text\":\"one more\"}"));
        house_expire(house, true); /* indexes that are due make answers stale, too */
    }
    assert_int_equal(read_sql(house, "SELECT max(n) FROM idempotency_keys"),
                     read_sql(house, "SELECT min(n) FROM idempotency_keys"));
    assert_int_equal(read_sql(house, "SELECT keys FROM idempotency_users"), 1);
    house->now_us += DAY_US;
    assert_ok(house, ask(house, &alice, SEARCH, QUERY));
    assert_int_equal(read_sql(house, "SELECT keys FROM idempotency_users"), 1);
}

/* Of a silo that counted no users yet. */
static void older_keys_serve_on_and_go_after_their_day(void **state)
{
    struct house *house = *state;
    use_key(house, "old");
    const char *id = remember(house, &alice, "one");
    run_sql(house, "DROP INDEX idempotency_shown; DROP TABLE idempotency_users;"
            "ALTER TABLE idempotency_keys DROP COLUMN user;"
            "UPDATE store_state SET value = 1 WHERE name = 'room idempotency'");
    house_reopen(house);
    assert_string_equal(remember(house, &alice, "one"), id);
    assert_true(house->replayed);
    assert_int_equal(read_sql(house, "SELECT count(*) FROM idempotency_users"), 0);
    use_key(house, "new");
    remember(house, &alice, "one");
    house->now_us += DAY_US;
    use_key(house, "old");
    remember(house, &alice, "one");
    assert_false(house->replayed);
    for (int i = 0; i < 3; i++)
        house_expire(house, true);
    assert_int_equal(read_sql(house, "SELECT count(*) FROM idempotency_keys"), 1);
}

static void a_search_with_a_key_waits_for_the_commit(void **state)
{
    struct house *house = *state;
    remember(house, &alice, "one");
    silo_begin(house->silo, house->now_us);
    assert_ok(house, ask_in_turn(house, &alice, SEARCH, QUERY));
    assert_false(silo_must_commit(house->silo));
    use_key(house, "s");
    assert_ok(house, ask_in_turn(house, &alice, SEARCH, QUERY));
    assert_true(silo_must_commit(house->silo));
    assert_ok(house, silo_commit(house->silo, &house->fault));
}

static void lines_of_one_key_are_apart(void **state)
{
    struct house *house = *state;
    const char *ids[3];
    use_key(house, "k");
    for (uint32_t i = 0; i < 3; i++) {
        house->line = i + 1;
        ids[i] = remember(house, &alice, "one");
        assert_false(house->replayed);
    }
    for (uint32_t i = 0; i < 3; i++) {
        house->line = i + 1;
        assert_string_equal(remember(house, &alice, "one"), ids[i]);
    }
    house->line = 2;
    assert_status(house, ask(house, &alice, WRITE, "{\"text\":\"two\"}"), CONFLICT);
    house->line = 4; /* where the batch broke off */
    remember(house, &alice, "two");
    assert_false(house->replayed);
    house->line = 0;
}

static void the_log_says_that_an_answer_was_a_repeat(void **state)
{
    struct house *house = *state;
    use_key(house, "k");
    remember(house, &alice, "one");
    remember(house, &alice, "one");
    assert_int_equal(entries(house, "%\"replayed\":true}"), 1);
    assert_int_equal(entries(house, "%\"action\":\"memory.add\"%"), 2);
}

static void every_post_that_mutates_knows_its_repeat(void **state)
{
    struct house *house = *state;
    struct who all = {"all", "", SCOPES_KNOWN, CLEARANCE_RESTRICTED};
    use_key(house, "k");
    for (uint32_t number = 1; number <= action_count(&action_table); number++) {
        const struct action *action = action_numbered(&action_table, number);
        if (strcmp(action->method, "POST") != 0)
            continue;
        house->line = (action->streams & ACTION_STREAMS_IN) != 0;
        if (ask(house, &all, "POST", action->path, "", "{\"none\":1}") == NOT_IMPLEMENTED)
            fail_msg("%s: %s", action->name, house->fault.detail);
    }
    house->line = 0;
}

#define HOUSE_TEST(name) cmocka_unit_test_setup_teardown(name, house_build, house_pull_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        HOUSE_TEST(a_repeat_has_no_effect_and_the_first_answer),
        HOUSE_TEST(another_request_under_the_same_key_is_a_conflict),
        HOUSE_TEST(each_user_has_keys_of_its_own),
        HOUSE_TEST(users_and_keys_cannot_be_shifted_into_each_other),
        HOUSE_TEST(keys_that_are_none_are_refused_by_name),
        HOUSE_TEST(other_methods_ignore_the_header),
        HOUSE_TEST(what_failed_is_not_kept),
        HOUSE_TEST(what_was_deleted_is_not_given_again),
        HOUSE_TEST(a_search_is_answered_again_until_something_goes),
        HOUSE_TEST(a_search_does_not_show_what_was_replaced),
        HOUSE_TEST(a_search_does_not_show_what_is_past_its_time),
        HOUSE_TEST(a_stored_answer_is_not_given_to_a_lower_clearance),
        HOUSE_TEST(a_stored_answer_is_not_given_to_narrower_scopes),
        HOUSE_TEST(a_mutation_is_not_told_to_a_lower_clearance),
        HOUSE_TEST(a_key_serves_for_a_day),
        HOUSE_TEST(a_repeat_after_a_crash_gives_the_first_answer),
        HOUSE_TEST(what_was_not_committed_is_carried_out_anew),
        HOUSE_TEST(two_of_the_same_key_in_one_turn_have_one_effect),
        HOUSE_TEST(no_user_can_take_all_keys_from_the_others),
        HOUSE_TEST(a_search_carried_out_anew_uses_up_no_room),
        HOUSE_TEST(older_keys_serve_on_and_go_after_their_day),
        HOUSE_TEST(a_search_with_a_key_waits_for_the_commit),
        HOUSE_TEST(lines_of_one_key_are_apart),
        HOUSE_TEST(the_log_says_that_an_answer_was_a_repeat),
        HOUSE_TEST(every_post_that_mutates_knows_its_repeat),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
