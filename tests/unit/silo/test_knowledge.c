#include "house.h"
#include "silo/knowledge.h"

#include <stdlib.h>

#define KNOWLEDGE (SCOPE_SET(SCOPE_KNOWLEDGE_READ) | SCOPE_SET(SCOPE_KNOWLEDGE_WRITE))

static const struct who ann = {"ann", "", KNOWLEDGE, CLEARANCE_INTERNAL};
static const struct who chief = {"chief", "", KNOWLEDGE, CLEARANCE_RESTRICTED};
static const struct who guest = {"guest", "", KNOWLEDGE, CLEARANCE_PUBLIC};

static const char search_path[] = "/v1/search";

static void put(struct house *house, const struct who *who, const char *id, const char *body,
                int http_status)
{
    char path[300];
    snprintf(path, sizeof path, "/v1/documents/%s", id);
    assert_ok(house, ask(house, who, "PUT", path, "", body));
    assert_int_equal(house->http_status, http_status);
}

static status get(struct house *house, const struct who *who, const char *id)
{
    char path[300];
    snprintf(path, sizeof path, "/v1/documents/%s", id);
    return ask(house, who, "GET", path, "", NULL);
}

static status drop(struct house *house, const struct who *who, const char *id)
{
    char path[300];
    snprintf(path, sizeof path, "/v1/documents/%s", id);
    return ask(house, who, "DELETE", path, "", NULL);
}

static uint32_t find(struct house *house, const struct who *who, const char *body)
{
    assert_ok(house, ask(house, who, "POST", search_path, "", body));
    assert_int_equal(house->http_status, 200);
    return answer_data(house)->count;
}

static uint32_t find_word(struct house *house, const struct who *who, const char *word)
{
    char body[200];
    snprintf(body, sizeof body, "{\"query\":\"%s\"}", word);
    return find(house, who, body);
}

static void a_document_is_put_read_replaced_and_deleted(void **state)
{
    struct house *house = *state;
    put(house, &ann, "guide", "{\"title\":\"Guide\",\"text\":\"Of zebras.\","
        "\"metadata\":{\"team\":\"a\"}}", 201);
    assert_int_equal(answer_integer(&house->answer, "version"), 1);
    assert_null(json_member(&house->answer, "text"));
    assert_ok(house, get(house, &ann, "guide"));
    assert_string_equal(answer_text(house, &house->answer, "text"), "Of zebras.");
    assert_string_equal(answer_text(house, &house->answer, "title"), "Guide");
    assert_string_equal(answer_text(house, &house->answer, "classification"), "internal");
    assert_int_equal(find_word(house, &ann, "zebras"), 1);
    house->now_us += SECOND_US;
    put(house, &ann, "guide", "{\"text\":\"Of lions, now.\"}", 200);
    assert_int_equal(answer_integer(&house->answer, "version"), 2);
    assert_string_not_equal(answer_text(house, &house->answer, "created_at"),
                            answer_text(house, &house->answer, "updated_at"));
    assert_int_equal(find_word(house, &ann, "zebras"), 0);
    assert_int_equal(find_word(house, &ann, "guide"), 0);
    assert_int_equal(find_word(house, &ann, "lions"), 1);
    assert_ok(house, drop(house, &ann, "guide"));
    assert_int_equal(house->http_status, 204);
    assert_status(house, drop(house, &ann, "guide"), NOT_FOUND);
    assert_status(house, get(house, &ann, "guide"), NOT_FOUND);
    assert_int_equal(find_word(house, &ann, "lions"), 0);
}

static void a_hit_says_where_it_stands_and_why(void **state)
{
    struct house *house = *state;
    put(house, &ann, "guide", "{\"title\":\"Guide\",\"text\":\"# Animals\\n\\nThe Zebra eats. "
        "A zebr\\u00e1 sleeps.\",\"metadata\":{\"n\":1}}", 201);
    assert_int_equal(find_word(house, &ann, "ZEBRA?"), 1);
    const struct json *hit = answer_item(house, 0);
    assert_string_equal(answer_text(house, hit, "document_id"), "guide");
    assert_string_equal(answer_text(house, hit, "title"), "Guide");
    assert_string_equal(answer_text(house, hit, "heading"), "Animals");
    assert_int_equal(answer_integer(hit, "hops"), 0);
    assert_int_equal(hit->count, 10);
    const struct json *snippet = json_member(hit, "snippet");
    const struct json *marks = json_member(snippet, "marks");
    const char *text = answer_text(house, snippet, "text");
    assert_int_equal(marks->count, 2);
    const struct json *mark = marks->items[1].items;
    assert_memory_equal(text + mark[0].integer, "zebr\xc3\xa1",
                        (size_t)(mark[1].integer - mark[0].integer));
    assert_int_equal(find_word(house, &ann, "guide"), 1);
    assert_int_equal(find_word(house, &ann, "animals"), 1);
}

static void what_is_above_the_clearance_leaves_no_trace(void **state)
{
    struct house *house = *state;
    put(house, &chief, "plan", "{\"text\":\"the secret zebra\","
        "\"classification\":\"restricted\"}", 201);
    assert_status(house, get(house, &ann, "plan"), NOT_FOUND);
    assert_status(house, drop(house, &ann, "plan"), NOT_FOUND);
    put(house, &ann, "plan", "{\"text\":\"a plain zebra\"}", 201);
    assert_int_equal(answer_integer(&house->answer, "version"), 1);
    put(house, &ann, "plan", "{\"text\":\"a plain zebra!\"}", 200);
    assert_int_equal(find_word(house, &ann, "zebra"), 1);
    assert_int_equal(find_word(house, &chief, "zebra"), 2);
    assert_int_equal(find_word(house, &guest, "zebra"), 0);
    assert_ok(house, get(house, &chief, "plan"));
    assert_string_equal(answer_text(house, &house->answer, "classification"), "restricted");
    assert_ok(house, get(house, &ann, "plan"));
    assert_string_equal(answer_text(house, &house->answer, "text"), "a plain zebra!");
    assert_status(house, ask(house, &ann, "PUT", "/v1/documents/x", "",
                             "{\"text\":\"t\",\"classification\":\"restricted\"}"),
                  FORBIDDEN_CLEARANCE);
    put(house, &chief, "plan", "{\"text\":\"one zebra\"}", 200);
    assert_int_equal(find_word(house, &chief, "zebra"), 1);
    assert_ok(house, drop(house, &ann, "plan"));
    assert_status(house, get(house, &chief, "plan"), NOT_FOUND);
}

/* A secret one that is made plain is told of as if it had been new. */
static void what_was_hidden_does_not_go_on_in_what_is_seen(void **state)
{
    struct house *house = *state;
    const char *plain = "{\"text\":\"now plain\",\"classification\":\"internal\"}";
    put(house, &chief, "plan", "{\"text\":\"a\",\"classification\":\"restricted\"}", 201);
    put(house, &chief, "plan", "{\"text\":\"b\",\"classification\":\"restricted\"}", 200);
    const char *hidden = answer_text(house, &house->answer, "created_at");
    house->now_us += DAY_US;
    put(house, &chief, "plan", plain, 200);
    assert_ok(house, get(house, &ann, "plan"));
    assert_int_equal(answer_integer(&house->answer, "version"), 1);
    const char *seen = answer_text(house, &house->answer, "created_at");
    assert_string_not_equal(seen, hidden);
    assert_string_equal(seen, answer_text(house, &house->answer, "updated_at"));
    house->now_us += DAY_US;
    put(house, &chief, "plan", "{\"text\":\"c\",\"classification\":\"restricted\"}", 200);
    assert_int_equal(answer_integer(&house->answer, "version"), 2);
    assert_string_equal(answer_text(house, &house->answer, "created_at"), seen);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_document_is_put_read_replaced_and_deleted, house_build,
                                        house_pull_down),
        cmocka_unit_test_setup_teardown(a_hit_says_where_it_stands_and_why, house_build,
                                        house_pull_down),
        cmocka_unit_test_setup_teardown(what_is_above_the_clearance_leaves_no_trace, house_build,
                                        house_pull_down),
        cmocka_unit_test_setup_teardown(what_was_hidden_does_not_go_on_in_what_is_seen,
                                        house_build, house_pull_down),
    };
    return cmocka_run_group_tests_name("silo knowledge", tests, NULL, NULL);
}
