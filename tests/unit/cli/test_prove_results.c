/* test_prove_results.c: when an attempt of the battery counts as held, and when it must not. */
#include "cli/prove.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define BEGIN \
    "{\"attempt\":0,\"name\":\"n\",\"group\":\"g\",\"wall\":\"w\",\"expect\":\"e\","
#define TO_DIE BEGIN "\"exits\":[159],\"killed_for\":\"\"}"
#define TO_BE_KILLED BEGIN "\"exits\":[137],\"killed_for\":\"protocol\"}"
#define TO_LIVE BEGIN "\"exits\":[0],\"killed_for\":\"\"}"
#define WITH_CLIENT BEGIN "\"exits\":[0],\"killed_for\":\"\",\"client\":\"503\"}"
#define EITHER BEGIN "\"exits\":[159,139],\"killed_for\":\"\"}"
#define HELD "{\"attempt\":0,\"got\":\"EACCES\",\"held\":true}"
#define NOT_HELD "{\"attempt\":0,\"got\":\"it opened\",\"held\":false}"
#define SKIPPED "{\"attempt\":0,\"skipped\":\"it could not be planted\"}"
#define EXIT(code, why) "{\"attempt\":0,\"exit\":" #code ",\"killed_for\":\"" why "\"}"

static struct prove_results results;

static const struct prove_result *after(const char *first, const char *second, const char *third)
{
    const char *const lines[] = {first, second, third};
    enum prove_event event;
    uint32_t attempt;
    struct fault fault;
    memset(&results, 0, sizeof results);
    for (int i = 0; i < 3; i++)
        if (lines[i])
            assert_int_equal(prove_take(&results, &event, &attempt, span_of_text(lines[i]),
                                        &fault), OK);
    assert_int_equal(results.count, 1);
    return &results.attempts[0];
}

static void who_dies_as_he_should_is_held(void **state)
{
    (void)state;
    assert_true(prove_held(after(TO_DIE, EXIT(159, ""), NULL)));
    assert_true(prove_held(after(TO_BE_KILLED, EXIT(137, "protocol"), NULL)));
    assert_true(prove_held(after(EITHER, EXIT(159, ""), NULL)));
    assert_true(prove_held(after(EITHER, EXIT(139, ""), NULL)));
}

static void who_dies_otherwise_is_not(void **state)
{
    (void)state;
    assert_false(prove_held(after(TO_DIE, EXIT(139, ""), NULL)));
    assert_false(prove_held(after(TO_DIE, EXIT(137, "protocol"), NULL)));
    assert_false(prove_held(after(TO_DIE, EXIT(1, ""), NULL)));
    assert_false(prove_held(after(TO_DIE, EXIT(0, ""), NULL)));
    assert_false(prove_held(after(TO_BE_KILLED, EXIT(137, ""), NULL))); /* by somebody else */
    assert_false(prove_held(after(TO_BE_KILLED, EXIT(159, ""), NULL)));
    assert_false(prove_held(after(EITHER, EXIT(137, ""), NULL)));
}

static void who_should_be_dead_and_speaks_is_not_held(void **state)
{
    (void)state;
    assert_false(prove_held(after(TO_DIE, NOT_HELD, EXIT(0, ""))));
    assert_false(prove_held(after(TO_DIE, HELD, EXIT(159, ""))));
}

static void who_lives_is_held_by_word_and_by_end(void **state)
{
    (void)state;
    assert_true(prove_held(after(TO_LIVE, HELD, EXIT(0, ""))));
    assert_false(prove_held(after(TO_LIVE, NOT_HELD, EXIT(0, ""))));
    assert_false(prove_held(after(TO_LIVE, EXIT(0, ""), NULL)));
    assert_false(prove_held(after(TO_LIVE, HELD, EXIT(159, ""))));
    assert_false(prove_held(after(TO_LIVE, HELD, EXIT(0, "protocol"))));
}

static void what_has_no_beginning_or_no_end_is_not_held(void **state)
{
    (void)state;
    assert_false(prove_held(after(TO_LIVE, HELD, NULL)));
    assert_false(prove_held(after(TO_DIE, NULL, NULL)));
    assert_false(prove_held(after(HELD, EXIT(0, ""), NULL)));
    assert_false(prove_held(after(EXIT(159, ""), NULL, NULL)));
}

static void what_was_not_run_is_neither_held_nor_failed(void **state)
{
    (void)state;
    const struct prove_result *result = after(TO_LIVE, SKIPPED, EXIT(0, ""));
    assert_true(prove_skipped(result));
    assert_false(prove_held(result));
    assert_false(prove_skipped(after(TO_LIVE, SKIPPED, EXIT(159, "")))); /* it was not idle */
    assert_false(prove_skipped(after(SKIPPED, EXIT(0, ""), NULL)));
    assert_false(prove_skipped(after(TO_LIVE, HELD, EXIT(0, ""))));
}

static bool held_with_client(const char *due, const char *answer)
{
    (void)after(WITH_CLIENT, HELD, EXIT(0, ""));
    struct prove_result *result = &results.attempts[0];
    snprintf(result->client_due, sizeof result->client_due, "%s", due);
    if (answer)
        prove_judge_client(result, span_of_text(answer));
    return prove_held(result);
}

static void a_forged_answer_is_held_only_when_its_client_was_spared(void **state)
{
    (void)state;
    assert_true(held_with_client("503", "HTTP/1.1 503 Service Unavailable\r\n\r\n{}"));
    assert_false(held_with_client("503", NULL));
    assert_false(held_with_client("503", ""));
    assert_false(held_with_client("503", "HTTP/1.1 200 OK\r\n\r\n{}"));
    assert_false(held_with_client("503", "HTTP/1.1 503 x\r\nX-Hostile: yes\r\n\r\n"));
    assert_true(held_with_client("cut", "HTTP/1.1 200 OK\r\n\r\n{}"));
    assert_true(held_with_client("cut", ""));
    assert_false(held_with_client("cut", "HTTP/1.1 200 OK\r\n\r\n{}hostile"));
    assert_false(held_with_client("cut", "HTTP/1.1 404 Not Found\r\n\r\n{}"));
}

static void the_events_of_lines_are_told(void **state)
{
    enum prove_event event;
    uint32_t attempt;
    struct fault fault;
    (void)state;
    memset(&results, 0, sizeof results);
    assert_int_equal(prove_take(&results, &event, &attempt,
                                SPAN("{\"attempt\":41,\"wants\":\"request\"}"), &fault), OK);
    assert_int_equal(event, PROVE_WANTS_REQUEST);
    assert_int_equal(attempt, 41);
    assert_int_equal(results.count, 42);
    assert_int_equal(prove_take(&results, &event, &attempt, SPAN(EXIT(0, "")), &fault), OK);
    assert_int_equal(event, PROVE_ENDED);
    assert_int_equal(prove_take(&results, &event, &attempt, SPAN(HELD), &fault), OK);
    assert_int_equal(event, PROVE_OTHER);
}

static void other_lines_are_refused(void **state)
{
    static const char *const lines[] = {
        "", "[]", "{}", "nonsense", "{\"attempt\":-1,\"got\":\"x\",\"held\":true}",
        "{\"attempt\":1000,\"got\":\"x\",\"held\":true}", "{\"attempt\":0}",
        "{\"attempt\":0,\"got\":\"x\"}", "{\"attempt\":0,\"got\":\"x\",\"held\":1}",
        "{\"attempt\":0,\"exit\":999,\"killed_for\":\"\"}", "{\"attempt\":0,\"exit\":0}",
        ("{\"attempt\":0,\"name\":\"n\",\"group\":\"g\",\"wall\":\"w\",\"expect\":\"e\","
         "\"exits\":[],\"killed_for\":\"\"}")};
    enum prove_event event;
    uint32_t attempt;
    struct fault fault;
    (void)state;
    memset(&results, 0, sizeof results);
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        assert_int_not_equal(prove_take(&results, &event, &attempt, span_of_text(lines[i]),
                                        &fault), OK);
    assert_int_equal(results.count, 0);
    (void)after(TO_DIE, NULL, NULL); /* nobody says twice how he is to end */
    assert_int_not_equal(prove_take(&results, &event, &attempt, SPAN(TO_LIVE), &fault), OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_dies_as_he_should_is_held),
        cmocka_unit_test(who_dies_otherwise_is_not),
        cmocka_unit_test(who_should_be_dead_and_speaks_is_not_held),
        cmocka_unit_test(who_lives_is_held_by_word_and_by_end),
        cmocka_unit_test(what_has_no_beginning_or_no_end_is_not_held),
        cmocka_unit_test(what_was_not_run_is_neither_held_nor_failed),
        cmocka_unit_test(a_forged_answer_is_held_only_when_its_client_was_spared),
        cmocka_unit_test(the_events_of_lines_are_told),
        cmocka_unit_test(other_lines_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
