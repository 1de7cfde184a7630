#include "house.h"
#include "silo/memory.h"

#include <math.h>
#include <stdlib.h>

static const char search_path[] = "/v1/memories/search";

static uint32_t find(struct house *house, const struct who *who, const char *body)
{
    assert_ok(house, ask(house, who, "POST", search_path, "", body));
    assert_int_equal(house->http_status, 200);
    return answer_data(house)->count;
}

static double score_of(struct house *house, uint32_t i)
{
    const struct json *score = json_member(answer_item(house, i), "score");
    assert_non_null(score);
    return score->number;
}

static void any_word_of_the_query_finds_and_more_words_rank_higher(void **state)
{
    struct house *house = *state;
    remember(house, &alice, "the zebra eats grass");
    remember(house, &alice, "a zebra and a lion at the river");
    remember(house, &alice, "nothing of the kind");
    assert_int_equal(find(house, &alice, "{\"query\":\"zebra lion\"}"), 2);
    assert_string_equal(answer_text(house, answer_item(house, 0), "text"),
                        "a zebra and a lion at the river");
    assert_true(score_of(house, 0) > score_of(house, 1));
    assert_int_equal(answer_item(house, 0)->count, 13);
    assert_int_equal(find(house, &alice, "{\"query\":\"giraffe\"}"), 0);
    assert_int_equal(find(house, &alice, "{\"query\":\"ZEBRA, please!\"}"), 2);
}

static void no_query_is_ever_taken_for_query_language(void **state)
{
    static const char *const queries[] = {
        "\\\"", "\\\"zebra", "zebra*", "zebra AND", "NOT zebra", "NEAR(zebra lion)", "who:u1",
        "{who}:zebra", "^zebra", "a - b", "(zebra", "zebra)", "+", "OR", "AND OR NOT", "zebra\\\\",
        "text : zebra", "'; DROP TABLE memories; --", "\xe2\x80\x94", "\xf0\x9f\x90\xb4", "col:",
        "zebra\\u0001lion", "\xd0\xb7\xd0\xb5\xd0\xb1\xd1\x80\xd0\xb0", "e\xcc\x81t\xc3\xa9"};
    struct house *house = *state;
    remember(house, &alice, "zebra lion u1");
    for (size_t i = 0; i < sizeof queries / sizeof *queries; i++) {
        char body[160];
        snprintf(body, sizeof body, "{\"query\":\"%s\"}", queries[i]);
        uint32_t hits = find(house, &alice, body);
        assert_true(hits <= 1);
    }
    remember(house, &bob, "other");
    assert_int_equal(find(house, &bob, "{\"query\":\"u1 OR zebra\"}"), 0);
}

static void a_bad_search_is_refused_by_name(void **state)
{
    static const struct {
        const char *body, *named;
        status wanted;
    } cases[] = {
        {"{}", "query", BAD_FIELD},
        {"{\"query\":\"\"}", "query", BAD_FIELD},
        {"{\"query\":\"x\",\"vector\":[1]}", "vector", NOT_IMPLEMENTED},
        {"{\"query\":\"x\",\"limit\":0}", "limit", BAD_FIELD},
        {"{\"query\":\"x\",\"limit\":501}", "limit", BAD_FIELD},
        {"{\"query\":\"x\",\"kinds\":[]}", "kinds", BAD_FIELD},
        {"{\"query\":\"x\",\"kinds\":[\"dream\"]}", "kinds", BAD_FIELD},
        {"{\"query\":\"x\",\"kinds\":\"fact\"}", "kinds", BAD_FIELD},
        {"{\"query\":\"x\",\"filter\":[]}", "filter", BAD_FIELD},
        {"{\"query\":\"x\",\"filter\":{\"a\":{}}}", "filter", BAD_FIELD},
        {"{\"query\":\"x\",\"filter\":{\"a\":[1]}}", "filter", BAD_FIELD},
        {"{\"query\":\"x\",\"top_k\":3}", "top_k", BAD_FIELD},
        {"{\"query\":\"x\",\"user_id\":\"bob\"}", "memory:any-user", FORBIDDEN_SCOPE},
    };
    struct house *house = *state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        status got = ask(house, &alice, "POST", search_path, "", cases[i].body);
        if (got != cases[i].wanted || strstr(house->fault.detail, cases[i].named) == NULL)
            fail_msg("%s: %s: %s", cases[i].body, status_code(got), house->fault.detail);
    }
    char *body = arena_alloc(&house->arena, SEARCH_QUERY_MAX + 64);
    size_t at = (size_t)sprintf(body, "{\"query\":\"");
    memset(body + at, 'a', SEARCH_QUERY_MAX + 1);
    strcpy(body + at + SEARCH_QUERY_MAX + 1, "\"}");
    assert_status(house, ask(house, &alice, "POST", search_path, "", body), BAD_FIELD);
}

static void the_longest_query_of_the_shortest_words_is_answered(void **state)
{
    struct house *house = *state;
    char *body = arena_alloc(&house->arena, SEARCH_QUERY_MAX + 64);
    size_t at = (size_t)sprintf(body, "{\"query\":\"");
    for (size_t i = 0; i < SEARCH_QUERY_MAX; i++)
        body[at++] = i % 2 == 0 ? (char)('a' + i % 26) : ' ';
    strcpy(body + at, "\"}");
    remember(house, &alice, "zebra a");
    assert_int_equal(find(house, &alice, body), 1);
}

/* A phrase of one word again and again, in items that are nothing but that word. */
static void a_search_that_would_take_minutes_is_ended(void **state)
{
    enum { ITEMS = 60, WORDS = 250 };
    struct house *house = *state;
    char *item = arena_alloc(&house->arena, MEMORY_TEXT_MAX + 64);
    size_t at = (size_t)sprintf(item, "{\"text\":\"");
    memset(item + at, ' ', MEMORY_TEXT_MAX);
    for (size_t i = 0; i < MEMORY_TEXT_MAX; i += 2)
        item[at + i] = 'a';
    strcpy(item + at + MEMORY_TEXT_MAX, "\"}");
    for (int i = 0; i < ITEMS; i++)
        remember_as(house, &alice, item);
    char query[KIB(2)];
    at = (size_t)sprintf(query, "{\"limit\":1,\"query\":\"a");
    for (int i = 1; i < WORDS; i++)
        at += (size_t)sprintf(query + at, "\xe2\x80\x83" "a"); /* an em space parts no words here */
    strcpy(query + at, "\"}");
    assert_status(house, ask(house, &alice, "POST", search_path, "", query), UNAVAILABLE);
    assert_int_equal(find(house, &alice, "{\"limit\":1,\"query\":\"a\"}"), 1);
    remember(house, &alice, "x");
}

static void kinds_session_metadata_and_limit_narrow_a_search(void **state)
{
    struct house *house = *state;
    remember_as(house, &alice, "{\"text\":\"zebra 1\",\"kind\":\"fact\",\"session_id\":\"s\","
                               "\"metadata\":{\"a\":1,\"b\":\"x\",\"c\":true,\"d\":null}}");
    remember_as(house, &alice, "{\"text\":\"zebra 2\",\"metadata\":{\"a\":2}}");
    remember_as(house, &alice, "{\"text\":\"zebra 3\",\"kind\":\"episode\"}");
    assert_int_equal(find(house, &alice, "{\"query\":\"zebra\"}"), 3);
    assert_int_equal(find(house, &alice, "{\"query\":\"zebra\",\"limit\":2}"), 2);
    assert_int_equal(find(house, &alice, "{\"query\":\"zebra\",\"kinds\":[\"fact\"]}"), 1);
    assert_int_equal(find(house, &alice, "{\"query\":\"zebra\",\"kinds\":[\"fact\",\"episode\"]}"),
                     2);
    assert_int_equal(find(house, &alice, "{\"query\":\"zebra\",\"session_id\":\"s\"}"), 1);
    assert_int_equal(find(house, &alice, "{\"query\":\"zebra\",\"filter\":{\"a\":1.0}}"), 1);
    assert_int_equal(find(house, &alice, "{\"query\":\"zebra\",\"filter\":{\"a\":\"1\"}}"), 0);
    assert_int_equal(find(house, &alice,
                          "{\"query\":\"zebra\",\"filter\":{\"b\":\"x\",\"c\":true,\"d\":null}}"),
                     1);
    assert_int_equal(find(house, &alice, "{\"query\":\"zebra\",\"filter\":{\"c\":false}}"), 0);
    assert_int_equal(find(house, &alice, "{\"query\":\"zebra\",\"filter\":{\"e\":null}}"), 0);
    assert_int_equal(find(house, &alice, "{\"query\":\"zebra\",\"filter\":{}}"), 3);
}

static void the_limit_is_filled_although_better_hits_are_filtered_out(void **state)
{
    struct house *house = *state;
    for (int i = 0; i < 30; i++)
        remember(house, &bob, "zebra zebra zebra");
    for (int i = 0; i < 5; i++) {
        remember_as(house, &alice, "{\"text\":\"zebra zebra\",\"kind\":\"fact\"}");
        remember(house, &alice, "one zebra among many other animals");
    }
    assert_int_equal(find(house, &alice, "{\"query\":\"zebra\",\"limit\":5,\"kinds\":[\"event\"]}"),
                     5);
}

static void hidden_items_do_not_move_visible_scores(void **state)
{
    struct house *house = *state;
    remember(house, &alice, "the zebra eats grass");
    remember(house, &alice, "the lion eats the zebra and more");
    assert_int_equal(find(house, &alice, "{\"query\":\"zebra lion\"}"), 2);
    double first = score_of(house, 0), second = score_of(house, 1);
    for (int i = 0; i < 40; i++)
        remember_as(house, &cleared,
                    "{\"text\":\"zebra lion zebra lion\",\"classification\":\"restricted\"}");
    assert_int_equal(find(house, &alice, "{\"query\":\"zebra lion\"}"), 2);
    assert_true(fabs(score_of(house, 0) - first) < 1e-12);
    assert_true(fabs(score_of(house, 1) - second) < 1e-12);
    assert_int_equal(find(house, &cleared, "{\"query\":\"zebra lion\"}"), 42);
}

static void deleted_and_changed_words_are_not_found(void **state)
{
    struct house *house = *state;
    const char *id = remember(house, &alice, "zebra");
    const char *other = remember(house, &alice, "lion");
    assert_ok(house, ask(house, &alice, "PATCH", path_of(house, id, ""), "",
                         "{\"text\":\"giraffe\"}"));
    assert_int_equal(find(house, &alice, "{\"query\":\"zebra\"}"), 0);
    assert_int_equal(find(house, &alice, "{\"query\":\"giraffe\"}"), 1);
    assert_ok(house, ask(house, &alice, "DELETE", path_of(house, other, ""), "", NULL));
    assert_int_equal(find(house, &alice, "{\"query\":\"lion\"}"), 0);
    house_expire(house, true);
    assert_int_equal(find(house, &alice, "{\"query\":\"giraffe\"}"), 1);
    assert_int_equal(find(house, &alice, "{\"query\":\"lion zebra\"}"), 0);
}

static void a_search_finds_what_the_same_turn_has_added_changed_and_deleted(void **state)
{
    struct house *house = *state;
    const char *gone = remember(house, &alice, "an old zebra");
    silo_begin(house->silo, house->now_us);
    assert_ok(house, ask_in_turn(house, &alice, "POST", "/v1/memories", "",
                                 "{\"text\":\"a lion\"}"));
    const char *made = path_of(house, answer_text(house, &house->answer, "id"), "");
    assert_ok(house, ask_in_turn(house, &alice, "POST", search_path, "", "{\"query\":\"lion\"}"));
    assert_int_equal(answer_data(house)->count, 1);
    assert_ok(house, ask_in_turn(house, &alice, "PATCH", made, "", "{\"text\":\"a tiger\"}"));
    assert_ok(house, ask_in_turn(house, &alice, "DELETE", path_of(house, gone, ""), "", NULL));
    assert_ok(house, ask_in_turn(house, &alice, "POST", search_path, "",
                                 "{\"query\":\"lion tiger zebra\"}"));
    assert_int_equal(answer_data(house)->count, 1);
    assert_ok(house, silo_commit(house->silo, &house->fault));
    house_reopen(house);
    assert_int_equal(find(house, &alice, "{\"query\":\"tiger\"}"), 1);
    assert_int_equal(find(house, &alice, "{\"query\":\"lion zebra\"}"), 0);
}

/* The second request had the index take what the first one added, and is then undone. */
static void what_a_request_takes_back_does_not_take_another_s_words(void **state)
{
    struct house *house = *state;
    struct fault *fault = &house->fault;
    struct silo *silo = house->silo;
    struct memory_id id;
    struct memory_row old;
    const char *kept = remember(house, &alice, "an old zebra");
    silo_begin(silo, house->now_us);
    assert_ok(house, ask_in_turn(house, &alice, "POST", "/v1/memories", "",
                                 "{\"text\":\"a lion\"}"));
    struct fulltext *index = &silo->memory.fulltext;
    struct fulltext_mark mark = fulltext_mark(index);
    assert_int_equal(mark.waiting, 1);
    assert_true(memory_id_read(&id, span_of_text(kept)));
    _cleanup_statement_ struct statement *rows = NULL;
    assert_ok(house, memory_row_find(&old, &rows, silo, &id, fault));
    assert_ok(house, store_savepoint(silo->store, fault));
    assert_ok(house, fulltext_remove(index, silo, old.classification, old.n, old.n, fault));
    assert_int_equal(index->additions.waiting, 0);
    rows = statement_close(rows);
    memory_forget(silo);
    fulltext_return(index, mark);
    assert_ok(house, store_undo(silo->store, fault));
    assert_ok(house, memory_know(silo, fault));
    assert_ok(house, silo_commit(silo, fault));
    assert_int_equal(find(house, &alice, "{\"query\":\"lion\"}"), 1);
    assert_int_equal(find(house, &alice, "{\"query\":\"zebra\"}"), 1);
}

/* A turn may bring more than the list of additions holds. */
static void every_item_of_a_long_turn_is_found(void **state)
{
    struct house *house = *state;
    char body[64];
    silo_begin(house->silo, house->now_us);
    for (int i = 0; i < 2 * CELL_TURN_REQUESTS_MAX + 1; i++) {
        snprintf(body, sizeof body, "{\"text\":\"zebra number%d\"}", i);
        assert_ok(house, ask_in_turn(house, &alice, "POST", "/v1/memories", "", body));
    }
    assert_ok(house, silo_commit(house->silo, &house->fault));
    for (int i = 0; i < 2 * CELL_TURN_REQUESTS_MAX + 1; i += CELL_TURN_REQUESTS_MAX / 2) {
        snprintf(body, sizeof body, "{\"query\":\"number%d\"}", i);
        assert_int_equal(find(house, &alice, body), 1);
    }
}

static void a_silo_without_memories_finds_nothing(void **state)
{
    struct house *house = *state;
    assert_int_equal(find(house, &alice, "{\"query\":\"zebra\"}"), 0);
}

#define HOUSE_TEST(name) cmocka_unit_test_setup_teardown(name, house_build, house_pull_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        HOUSE_TEST(any_word_of_the_query_finds_and_more_words_rank_higher),
        HOUSE_TEST(no_query_is_ever_taken_for_query_language),
        HOUSE_TEST(a_bad_search_is_refused_by_name),
        HOUSE_TEST(the_longest_query_of_the_shortest_words_is_answered),
        HOUSE_TEST(a_search_that_would_take_minutes_is_ended),
        HOUSE_TEST(kinds_session_metadata_and_limit_narrow_a_search),
        HOUSE_TEST(the_limit_is_filled_although_better_hits_are_filtered_out),
        HOUSE_TEST(hidden_items_do_not_move_visible_scores),
        HOUSE_TEST(deleted_and_changed_words_are_not_found),
        HOUSE_TEST(a_search_finds_what_the_same_turn_has_added_changed_and_deleted),
        HOUSE_TEST(what_a_request_takes_back_does_not_take_another_s_words),
        HOUSE_TEST(every_item_of_a_long_turn_is_found),
        HOUSE_TEST(a_silo_without_memories_finds_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
