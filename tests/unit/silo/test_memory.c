#include "house.h"

#include <stdlib.h>

static void a_memory_comes_back_as_it_was_written(void **state)
{
    struct house *house = *state;
    const char *id = remember_as(house, &alice,
                                 "{\"text\":\"likes tea \\u00e9\",\"kind\":\"preference\","
                                 "\"session_id\":\"s1\",\"agent_id\":\"a1\","
                                 "\"metadata\":{\"role\":\"user\",\"n\":1.5},"
                                 "\"ttl_seconds\":60,\"classification\":\"public\"}");
    assert_int_equal(strlen(id), 26);
    assert_ok(house, ask(house, &alice, "GET", path_of(house, id, ""), "", NULL));
    const struct json *memory = &house->answer;
    assert_int_equal(house->http_status, 200);
    assert_string_equal(answer_text(house, memory, "id"), id);
    assert_string_equal(answer_text(house, memory, "text"), "likes tea \xc3\xa9");
    assert_string_equal(answer_text(house, memory, "kind"), "preference");
    assert_string_equal(answer_text(house, memory, "user_id"), "alice");
    assert_string_equal(answer_text(house, memory, "session_id"), "s1");
    assert_string_equal(answer_text(house, memory, "agent_id"), "a1");
    assert_string_equal(answer_text(house, memory, "classification"), "public");
    assert_int_equal(answer_integer(memory, "version"), 1);
    assert_string_equal(answer_text(house, memory, "created_at"), "2027-01-15T08:00:00.000000Z");
    assert_string_equal(answer_text(house, memory, "updated_at"), "2027-01-15T08:00:00.000000Z");
    assert_string_equal(answer_text(house, memory, "expires_at"), "2027-01-15T08:01:00.000000Z");
    assert_true(span_is(json_member(memory, "metadata")->source, "{\"role\":\"user\",\"n\":1.5}"));
    assert_int_equal(memory->count, 12);
}

static void what_is_not_said_has_its_default(void **state)
{
    struct house *house = *state;
    remember(house, &alice, "x");
    const struct json *memory = &house->answer;
    assert_string_equal(answer_text(house, memory, "kind"), "event");
    assert_string_equal(answer_text(house, memory, "classification"), "internal");
    assert_true(span_is(json_member(memory, "metadata")->source, "{}"));
    assert_int_equal(json_member(memory, "session_id")->kind, JSON_NULL);
    assert_int_equal(json_member(memory, "agent_id")->kind, JSON_NULL);
    assert_int_equal(json_member(memory, "expires_at")->kind, JSON_NULL);
}

static void the_agent_is_the_tokens(void **state)
{
    struct house *house = *state;
    struct who with_agent = alice;
    with_agent.agent = "agent-7";
    remember(house, &with_agent, "x");
    assert_string_equal(answer_text(house, &house->answer, "agent_id"), "agent-7");
    assert_status(house, ask(house, &with_agent, "POST", "/v1/memories", "",
                             "{\"text\":\"x\",\"agent_id\":\"other\"}"), FORBIDDEN_SCOPE);
}

struct bad_body {
    const char *body;
    status wanted;
    const char *named; /* in the detail */
};

static void every_bad_field_is_refused_by_name(void **state)
{
    static const struct bad_body cases[] = {
        {"", BAD_JSON, "JSON"},
        {"[]", BAD_FIELD, "body"},
        {"{}", BAD_FIELD, "text"},
        {"{\"text\":\"\"}", BAD_FIELD, "text"},
        {"{\"text\":7}", BAD_FIELD, "text"},
        {"{\"text\":null}", BAD_FIELD, "text"},
        {"{\"text\":\"a\\u0000b\"}", BAD_FIELD, "text"},
        {"{\"text\":\"x\",\"text\":\"y\"}", BAD_JSON, "JSON"},
        {"{\"text\":\"x\",\"colour\":1}", BAD_FIELD, "colour"},
        {"{\"text\":\"x\",\"id\":\"y\"}", BAD_FIELD, "id"},
        {"{\"text\":\"x\",\"kind\":\"dream\"}", BAD_FIELD, "kind"},
        {"{\"text\":\"x\",\"user_id\":7}", BAD_FIELD, "user_id"},
        {"{\"text\":\"x\",\"user_id\":\"\"}", BAD_FIELD, "user_id"},
        {"{\"text\":\"x\",\"user_id\":\"a\\nb\"}", BAD_FIELD, "user_id"},
        {"{\"text\":\"x\",\"session_id\":\"a\\u0001\"}", BAD_FIELD, "session_id"},
        {"{\"text\":\"x\",\"agent_id\":\"a\\u0001\"}", BAD_FIELD, "agent_id"},
        {"{\"text\":\"x\",\"metadata\":[]}", BAD_FIELD, "metadata"},
        {"{\"text\":\"x\",\"metadata\":\"y\"}", BAD_FIELD, "metadata"},
        {"{\"text\":\"x\",\"ttl_seconds\":0}", BAD_FIELD, "ttl_seconds"},
        {"{\"text\":\"x\",\"ttl_seconds\":1.5}", BAD_FIELD, "ttl_seconds"},
        {"{\"text\":\"x\",\"ttl_seconds\":999999999999}", BAD_FIELD, "ttl_seconds"},
        {"{\"text\":\"x\",\"classification\":\"secret\"}", BAD_FIELD, "classification"},
        {"{\"text\":\"x\",\"classification\":\"confidential\"}", FORBIDDEN_CLEARANCE,
         "classification"},
        {"{\"text\":\"x\",\"user_id\":\"bob\"}", FORBIDDEN_SCOPE, "memory:any-user"},
    };
    struct house *house = *state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        status got = ask(house, &alice, "POST", "/v1/memories", "", cases[i].body);
        if (got != cases[i].wanted || strstr(house->fault.detail, cases[i].named) == NULL)
            fail_msg("%s: %s: %s", cases[i].body, status_code(got), house->fault.detail);
        assert_int_equal(house->body.length, 0);
    }
    assert_ok(house, ask(house, &alice, "GET", "/v1/memories", "", NULL));
    assert_int_equal(answer_data(house)->count, 0);
}

static void a_body_of_another_media_type_is_refused(void **state)
{
    struct house *house = *state;
    assert_status(house, ask(house, &alice, "POST", "/v1/memories", "", NULL),
                  UNSUPPORTED_MEDIA);
}

static char *long_body(struct house *house, size_t text, size_t metadata)
{
    char *body = arena_alloc(&house->arena, text + metadata + 64);
    size_t at = (size_t)sprintf(body, "{\"text\":\"");
    memset(body + at, 'a', text);
    at += text;
    at += (size_t)sprintf(body + at, "\",\"metadata\":{\"k\":\"");
    memset(body + at, 'b', metadata);
    at += metadata;
    sprintf(body + at, "\"}}");
    return body;
}

static void the_longest_memory_fits_and_one_byte_more_does_not(void **state)
{
    struct house *house = *state;
    size_t around = strlen("{\"k\":\"\"}");
    assert_ok(house, ask(house, &alice, "POST", "/v1/memories", "",
                         long_body(house, MEMORY_TEXT_MAX, MEMORY_METADATA_MAX - around)));
    assert_status(house, ask(house, &alice, "POST", "/v1/memories", "",
                             long_body(house, MEMORY_TEXT_MAX + 1, 1)), BAD_FIELD);
    assert_status(house, ask(house, &alice, "POST", "/v1/memories", "",
                             long_body(house, 1, MEMORY_METADATA_MAX - around + 1)), BAD_FIELD);
}

static void an_unknown_or_malformed_id_is_not_found(void **state)
{
    static const char *const ids[] = {"01ARZ3NDEKTSV4RRFFQ69G5FAV", "1", "0",
                                      "81ARZ3NDEKTSV4RRFFQ69G5FAV",
                                      "01arz3ndektsv4rrffq69g5fav",
                                      "01ARZ3NDEKTSV4RRFFQ69G5FAU"};
    struct house *house = *state;
    remember(house, &alice, "x");
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        const char *path = path_of(house, ids[i], "");
        assert_status(house, ask(house, &alice, "GET", path, "", NULL), NOT_FOUND);
        assert_status(house, ask(house, &alice, "PATCH", path, "", "{\"text\":\"y\"}"), NOT_FOUND);
        assert_status(house, ask(house, &alice, "DELETE", path, "", NULL), NOT_FOUND);
        assert_status(house, ask(house, &alice, "GET", path_of(house, ids[i], "/history"), "",
                                 NULL), NOT_FOUND);
    }
}

/* Every way to an item, for a caller who must not see it: as if it were not there. */
static void nothing_reaches(struct house *house, const struct who *who, const char *id,
                            const char *word)
{
    char query[64];
    const char *path = path_of(house, id, "");
    assert_status(house, ask(house, who, "GET", path, "", NULL), NOT_FOUND);
    assert_status(house, ask(house, who, "PATCH", path, "", "{\"text\":\"y\"}"), NOT_FOUND);
    assert_status(house, ask(house, who, "DELETE", path, "", NULL), NOT_FOUND);
    assert_status(house, ask(house, who, "GET", path_of(house, id, "/history"), "", NULL),
                  NOT_FOUND);
    assert_ok(house, ask(house, who, "GET", "/v1/memories", "", NULL));
    assert_int_equal(answer_data(house)->count, 0);
    snprintf(query, sizeof query, "{\"query\":\"%s\"}", word);
    assert_ok(house, ask(house, who, "POST", "/v1/memories/search", "", query));
    assert_int_equal(answer_data(house)->count, 0);
}

static void another_users_items_do_not_exist(void **state)
{
    struct house *house = *state;
    const char *id = remember(house, &alice, "zebra");
    nothing_reaches(house, &bob, id, "zebra");
    assert_status(house, ask(house, &bob, "GET", "/v1/memories", "user_id=alice", NULL),
                  FORBIDDEN_SCOPE);
    assert_status(house, ask(house, &bob, "DELETE", "/v1/memories", "user_id=alice", NULL),
                  FORBIDDEN_SCOPE);
    assert_status(house, ask(house, &bob, "POST", "/v1/memories/search", "",
                             "{\"query\":\"zebra\",\"user_id\":\"alice\"}"), FORBIDDEN_SCOPE);
    assert_ok(house, ask(house, &alice, "GET", path_of(house, id, ""), "", NULL));
}

static void items_above_the_clearance_do_not_exist(void **state)
{
    struct house *house = *state;
    struct who open = alice;
    open.clearance = CLEARANCE_PUBLIC;
    const char *id = remember_as(house, &cleared,
                                 "{\"text\":\"zebra\",\"classification\":\"restricted\"}");
    nothing_reaches(house, &alice, id, "zebra");
    assert_ok(house, ask(house, &alice, "DELETE", "/v1/memories", "user_id=alice", NULL));
    assert_int_equal(answer_integer(&house->answer, "deleted"), 0);
    assert_ok(house, ask(house, &cleared, "GET", path_of(house, id, ""), "", NULL));
    assert_status(house, ask(house, &open, "POST", "/v1/memories", "", "{\"text\":\"x\"}"),
                  FORBIDDEN_CLEARANCE);
}

static void a_last_page_does_not_tell_that_hidden_items_follow(void **state)
{
    static const char *const hidden[] = {
        "{\"text\":\"x\",\"session_id\":\"s\",\"classification\":\"restricted\"}",
        "{\"text\":\"x\",\"session_id\":\"s\",\"kind\":\"fact\",\"ttl_seconds\":1}"};
    static const char *const queries[] = {"limit=1", "limit=1&session_id=s", "limit=1&kind=event"};
    struct house *house = *state;
    for (size_t i = 0; i < 2; i++)
        remember_as(house, &cleared, hidden[i]);
    remember_as(house, &alice, "{\"text\":\"x\",\"session_id\":\"s\"}");
    house->now_us += 2 * SECOND_US;
    for (size_t i = 0; i < sizeof queries / sizeof *queries; i++) {
        assert_ok(house, ask(house, &alice, "GET", "/v1/memories", queries[i], NULL));
        assert_int_equal(answer_data(house)->count, 1);
        assert_int_equal(json_member(&house->answer, "next_cursor")->kind, JSON_NULL);
        assert_ok(house, ask(house, &cleared, "GET", "/v1/memories", queries[i], NULL));
        assert_int_equal(json_member(&house->answer, "next_cursor")->kind, JSON_STRING);
    }
}

static void a_platforms_back_end_reaches_every_user(void **state)
{
    struct house *house = *state;
    const char *id = remember(house, &alice, "zebra");
    remember_as(house, &platform, "{\"text\":\"of bob\",\"user_id\":\"bob\"}");
    assert_string_equal(answer_text(house, &house->answer, "user_id"), "bob");
    assert_ok(house, ask(house, &platform, "GET", path_of(house, id, ""), "", NULL));
    assert_ok(house, ask(house, &platform, "GET", "/v1/memories", "", NULL));
    assert_int_equal(answer_data(house)->count, 2);
    assert_ok(house, ask(house, &platform, "GET", "/v1/memories", "user_id=bob", NULL));
    assert_int_equal(answer_data(house)->count, 1);
    assert_ok(house, ask(house, &bob, "GET", "/v1/memories", "", NULL));
    assert_int_equal(answer_data(house)->count, 1);
}

static void a_change_is_a_version_and_history_keeps_the_old(void **state)
{
    struct house *house = *state;
    const char *id = remember_as(house, &alice,
                                 "{\"text\":\"one\",\"metadata\":{\"a\":1},\"ttl_seconds\":60}");
    house->now_us += SECOND_US;
    assert_ok(house, ask(house, &alice, "PATCH", path_of(house, id, ""), "",
                         "{\"text\":\"two\",\"ttl_seconds\":null}"));
    assert_int_equal(answer_integer(&house->answer, "version"), 2);
    assert_string_equal(answer_text(house, &house->answer, "updated_at"),
                        "2027-01-15T08:00:01.000000Z");
    assert_int_equal(json_member(&house->answer, "expires_at")->kind, JSON_NULL);
    assert_true(span_is(json_member(&house->answer, "metadata")->source, "{\"a\":1}"));
    assert_ok(house, ask(house, &alice, "PATCH", path_of(house, id, ""), "",
                         "{\"metadata\":null}"));
    assert_ok(house, ask(house, &alice, "GET", path_of(house, id, "/history"), "", NULL));
    assert_int_equal(answer_data(house)->count, 3);
    assert_int_equal(answer_integer(answer_item(house, 0), "version"), 3);
    assert_string_equal(answer_text(house, answer_item(house, 0), "text"), "two");
    assert_true(span_is(json_member(answer_item(house, 0), "metadata")->source, "{}"));
    assert_string_equal(answer_text(house, answer_item(house, 2), "text"), "one");
    assert_string_equal(answer_text(house, answer_item(house, 2), "updated_at"),
                        "2027-01-15T08:00:00.000000Z");
    assert_ok(house, ask(house, &alice, "GET", path_of(house, id, "/history"), "limit=2", NULL));
    assert_int_equal(answer_data(house)->count, 2);
    char query[160];
    snprintf(query, sizeof query, "limit=2&cursor=%s",
             answer_text(house, &house->answer, "next_cursor"));
    assert_ok(house, ask(house, &alice, "GET", path_of(house, id, "/history"), query, NULL));
    assert_int_equal(answer_data(house)->count, 1);
    assert_int_equal(json_member(&house->answer, "next_cursor")->kind, JSON_NULL);
}

static void a_change_of_nothing_or_of_what_is_fixed_is_refused(void **state)
{
    static const char *const bodies[] = {"{}", "{\"kind\":\"fact\"}", "{\"text\":null}",
                                         "{\"user_id\":\"bob\"}", "{\"classification\":\"public\"}",
                                         "{\"text\":\"\"}", "{\"ttl_seconds\":-1}"};
    struct house *house = *state;
    const char *id = remember(house, &alice, "one");
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++)
        assert_status(house, ask(house, &alice, "PATCH", path_of(house, id, ""), "", bodies[i]),
                      BAD_FIELD);
    assert_ok(house, ask(house, &alice, "GET", path_of(house, id, ""), "", NULL));
    assert_int_equal(answer_integer(&house->answer, "version"), 1);
}

static void history_keeps_a_bounded_number_of_versions(void **state)
{
    struct house *house = *state;
    const char *id = remember(house, &alice, "version 1");
    for (int i = 2; i <= MEMORY_VERSIONS_MAX + 20; i++) {
        char body[64];
        snprintf(body, sizeof body, "{\"text\":\"version %d\"}", i);
        assert_ok(house, ask(house, &alice, "PATCH", path_of(house, id, ""), "", body));
    }
    assert_ok(house, ask(house, &alice, "GET", path_of(house, id, "/history"), "limit=500", NULL));
    assert_int_equal(answer_data(house)->count, MEMORY_VERSIONS_MAX);
    assert_int_equal(answer_integer(answer_item(house, MEMORY_VERSIONS_MAX - 1), "version"), 21);
}

static void a_deleted_memory_is_gone_with_its_history(void **state)
{
    struct house *house = *state;
    const char *id = remember(house, &alice, "one");
    assert_ok(house, ask(house, &alice, "PATCH", path_of(house, id, ""), "", "{\"text\":\"two\"}"));
    assert_ok(house, ask(house, &alice, "DELETE", path_of(house, id, ""), "", NULL));
    assert_int_equal(house->http_status, 204);
    assert_int_equal(house->body.length, 0);
    assert_status(house, ask(house, &alice, "GET", path_of(house, id, ""), "", NULL), NOT_FOUND);
    assert_status(house, ask(house, &alice, "GET", path_of(house, id, "/history"), "", NULL),
                  NOT_FOUND);
    assert_status(house, ask(house, &alice, "DELETE", path_of(house, id, ""), "", NULL),
                  NOT_FOUND);
    /* the next row takes the number of the deleted one: nothing of it may come back */
    const char *next = remember(house, &alice, "three");
    assert_ok(house, ask(house, &alice, "GET", path_of(house, next, "/history"), "", NULL));
    assert_int_equal(answer_data(house)->count, 1);
}

static void a_list_is_newest_first_in_pages_without_gap_or_double(void **state)
{
    struct house *house = *state;
    enum { ITEMS = 23 };
    const char *ids[ITEMS];
    char query[200] = "limit=5";
    uint32_t seen = 0;
    for (int i = 0; i < ITEMS; i++)
        ids[i] = remember(house, &alice, "x");
    remember(house, &bob, "x");
    for (;;) {
        assert_ok(house, ask(house, &alice, "GET", "/v1/memories", query, NULL));
        for (uint32_t i = 0; i < answer_data(house)->count; i++, seen++)
            assert_string_equal(answer_text(house, answer_item(house, i), "id"),
                                ids[ITEMS - 1 - seen]);
        if (json_member(&house->answer, "next_cursor")->kind == JSON_NULL)
            break;
        snprintf(query, sizeof query, "limit=5&cursor=%s",
                 answer_text(house, &house->answer, "next_cursor"));
    }
    assert_int_equal(seen, ITEMS);
}

static void a_list_is_filtered_by_session_and_kind(void **state)
{
    struct house *house = *state;
    remember_as(house, &alice, "{\"text\":\"a\",\"session_id\":\"s 1\",\"kind\":\"fact\"}");
    remember_as(house, &alice, "{\"text\":\"b\",\"session_id\":\"s 1\"}");
    remember_as(house, &alice, "{\"text\":\"c\",\"session_id\":\"s2\",\"kind\":\"fact\"}");
    assert_ok(house, ask(house, &alice, "GET", "/v1/memories", "session_id=s+1", NULL));
    assert_int_equal(answer_data(house)->count, 2);
    assert_ok(house, ask(house, &alice, "GET", "/v1/memories", "session_id=s%201&kind=fact", NULL));
    assert_int_equal(answer_data(house)->count, 1);
    assert_string_equal(answer_text(house, answer_item(house, 0), "text"), "a");
    assert_ok(house, ask(house, &platform, "GET", "/v1/memories", "session_id=s2", NULL));
    assert_int_equal(answer_data(house)->count, 1);
}

static void a_bad_query_is_refused(void **state)
{
    static const char *const queries[] = {
        "limit=0", "limit=501", "limit=-1", "limit=1e2", "limit=", "limit=01", "limit=4294967297",
        "kind=dream", "colour=red", "session_id=", "cursor=", "cursor=AAAA",
        "cursor=01ARZ3NDEKTSV4RRFFQ69G5FAV", "user_id=", "limit=1&limit=2"};
    struct house *house = *state;
    for (size_t i = 0; i < sizeof queries / sizeof *queries; i++) {
        status got = ask(house, &alice, "GET", "/v1/memories", queries[i], NULL);
        if (got != BAD_FIELD && got != BAD_REQUEST)
            fail_msg("%s: %s", queries[i], status_code(got));
    }
}

static void a_cursor_serves_only_its_own_list(void **state)
{
    struct house *house = *state;
    for (int i = 0; i < 3; i++) {
        remember(house, &alice, "x");
        remember(house, &bob, "x");
    }
    assert_ok(house, ask(house, &alice, "GET", "/v1/memories", "limit=1", NULL));
    const char *cursor = answer_text(house, &house->answer, "next_cursor");
    char query[200], broken[200];
    snprintf(query, sizeof query, "limit=1&cursor=%s", cursor);
    assert_ok(house, ask(house, &alice, "GET", "/v1/memories", query, NULL));
    assert_status(house, ask(house, &bob, "GET", "/v1/memories", query, NULL), BAD_FIELD);
    snprintf(broken, sizeof broken, "kind=fact&cursor=%s", cursor);
    assert_status(house, ask(house, &alice, "GET", "/v1/memories", broken, NULL), BAD_FIELD);
    for (size_t i = strlen("limit=1&cursor="); i < strlen(query); i++) {
        strcpy(broken, query);
        broken[i] = broken[i] == 'A' ? 'B' : 'A';
        assert_status(house, ask(house, &alice, "GET", "/v1/memories", broken, NULL), BAD_FIELD);
    }
}

static void a_page_of_large_items_is_cut_before_it_is_too_large(void **state)
{
    struct house *house = *state;
    enum { ITEMS = 12 };
    for (int i = 0; i < ITEMS; i++)
        remember_as(house, &alice, long_body(house, MEMORY_TEXT_MAX, 1));
    uint32_t seen = 0, pages = 0;
    char query[200] = "limit=500";
    for (;; pages++) {
        assert_ok(house, ask(house, &alice, "GET", "/v1/memories", query, NULL));
        assert_true(house->body.length < MIB(1));
        seen += answer_data(house)->count;
        if (json_member(&house->answer, "next_cursor")->kind == JSON_NULL)
            break;
        snprintf(query, sizeof query, "limit=500&cursor=%s",
                 answer_text(house, &house->answer, "next_cursor"));
    }
    assert_int_equal(seen, ITEMS);
    assert_true(pages > 0);
}

static void forgetting_a_user_deletes_all_of_one_and_none_of_another(void **state)
{
    struct house *house = *state;
    for (int i = 0; i < 7; i++)
        remember(house, &alice, "zebra");
    remember(house, &bob, "zebra");
    assert_status(house, ask(house, &alice, "DELETE", "/v1/memories", "", NULL), BAD_FIELD);
    assert_ok(house, ask(house, &platform, "DELETE", "/v1/memories", "user_id=alice", NULL));
    assert_int_equal(answer_integer(&house->answer, "deleted"), 7);
    assert_ok(house, ask(house, &platform, "GET", "/v1/memories", "", NULL));
    assert_int_equal(answer_data(house)->count, 1);
    assert_ok(house, ask(house, &platform, "DELETE", "/v1/memories", "user_id=nobody", NULL));
    assert_int_equal(answer_integer(&house->answer, "deleted"), 0);
}

static void the_same_idempotency_key_gives_the_first_answer(void **state)
{
    struct house *house = *state;
    house->idempotency_key = SPAN("key-1");
    const char *first = remember(house, &alice, "one");
    house->now_us += 3600 * SECOND_US;
    assert_string_equal(remember(house, &alice, "one"), first);
    assert_string_equal(answer_text(house, &house->answer, "created_at"),
                        "2027-01-15T08:00:00.000000Z");
    assert_status(house, ask(house, &alice, "POST", "/v1/memories", "", "{\"text\":\"two\"}"),
                  CONFLICT);
    assert_string_not_equal(remember(house, &bob, "one"), first);
    house->idempotency_key = (struct span){0};
    assert_ok(house, ask(house, &alice, "PATCH", path_of(house, first, ""), "",
                         "{\"text\":\"changed\"}"));
    house->idempotency_key = SPAN("key-1");
    assert_string_equal(remember(house, &alice, "one"), first);
    assert_string_equal(answer_text(house, &house->answer, "text"), "one");
    assert_int_equal(answer_integer(&house->answer, "version"), 1);
    house->now_us += 24 * 3600 * SECOND_US;
    assert_string_not_equal(remember(house, &alice, "one"), first);
}

static void what_an_idempotency_key_made_and_is_deleted_stays_deleted(void **state)
{
    struct house *house = *state;
    house->idempotency_key = SPAN("key-1");
    const char *id = remember(house, &alice, "one");
    assert_ok(house, ask(house, &alice, "DELETE", path_of(house, id, ""), "", NULL));
    assert_status(house, ask(house, &alice, "POST", "/v1/memories", "", "{\"text\":\"one\"}"),
                  CONFLICT);
    assert_status(house, ask(house, &alice, "GET", path_of(house, id, ""), "", NULL), NOT_FOUND);
}

static void ids_grow_within_one_millisecond(void **state)
{
    struct house *house = *state;
    const char *before = remember(house, &alice, "x");
    for (int i = 0; i < 50; i++) {
        const char *next = remember(house, &alice, "x");
        assert_true(strcmp(next, before) > 0);
        before = next;
    }
}

static void all_is_there_again_after_parking_and_after_a_crash(void **state)
{
    struct house *house = *state;
    const char *id = remember(house, &alice, "zebra");
    house_reopen(house);
    assert_ok(house, ask(house, &alice, "GET", path_of(house, id, ""), "", NULL));
    const char *second = remember(house, &alice, "zebra again");
    house_crash(house);
    assert_ok(house, ask(house, &alice, "GET", path_of(house, second, ""), "", NULL));
    assert_ok(house, ask(house, &alice, "POST", "/v1/memories/search", "",
                         "{\"query\":\"zebra\"}"));
    assert_int_equal(answer_data(house)->count, 2);
}

#define HOUSE_TEST(name) cmocka_unit_test_setup_teardown(name, house_build, house_pull_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        HOUSE_TEST(a_memory_comes_back_as_it_was_written),
        HOUSE_TEST(what_is_not_said_has_its_default),
        HOUSE_TEST(the_agent_is_the_tokens),
        HOUSE_TEST(every_bad_field_is_refused_by_name),
        HOUSE_TEST(a_body_of_another_media_type_is_refused),
        HOUSE_TEST(the_longest_memory_fits_and_one_byte_more_does_not),
        HOUSE_TEST(an_unknown_or_malformed_id_is_not_found),
        HOUSE_TEST(another_users_items_do_not_exist),
        HOUSE_TEST(items_above_the_clearance_do_not_exist),
        HOUSE_TEST(a_last_page_does_not_tell_that_hidden_items_follow),
        HOUSE_TEST(a_platforms_back_end_reaches_every_user),
        HOUSE_TEST(a_change_is_a_version_and_history_keeps_the_old),
        HOUSE_TEST(a_change_of_nothing_or_of_what_is_fixed_is_refused),
        HOUSE_TEST(history_keeps_a_bounded_number_of_versions),
        HOUSE_TEST(a_deleted_memory_is_gone_with_its_history),
        HOUSE_TEST(a_list_is_newest_first_in_pages_without_gap_or_double),
        HOUSE_TEST(a_list_is_filtered_by_session_and_kind),
        HOUSE_TEST(a_bad_query_is_refused),
        HOUSE_TEST(a_cursor_serves_only_its_own_list),
        HOUSE_TEST(a_page_of_large_items_is_cut_before_it_is_too_large),
        HOUSE_TEST(forgetting_a_user_deletes_all_of_one_and_none_of_another),
        HOUSE_TEST(the_same_idempotency_key_gives_the_first_answer),
        HOUSE_TEST(what_an_idempotency_key_made_and_is_deleted_stays_deleted),
        HOUSE_TEST(ids_grow_within_one_millisecond),
        HOUSE_TEST(all_is_there_again_after_parking_and_after_a_crash),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
