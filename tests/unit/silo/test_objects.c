/* Objects: bytes under a key; instances by classification; conditions, parts, pages. */
#include "objects.h"

/* ---- what an object is ---- */

static void an_object_is_stored_and_read_back(void **state)
{
    struct house *house = *state;
    static const size_t sizes[] = {0, 1, 1000, OBJECT_CHUNK_BYTES, 3 * OBJECT_CHUNK_BYTES + 7};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct span bytes = many(house, sizes[i] + 1, 1);
        bytes.length--;
        assert_ok(house, put(house, &ada, "a/b.txt", NULL, bytes));
        assert_int_equal(house->http_status, i == 0 ? 201 : 200);
        assert_string_equal(answer_text(house, &house->answer, "key"), "a/b.txt");
        assert_string_equal(answer_text(house, &house->answer, "content_type"), "text/plain");
        assert_string_equal(answer_text(house, &house->answer, "classification"), "internal");
        assert_string_equal(answer_text(house, &house->answer, "user_id"), "ada");
        assert_int_equal(answer_integer(&house->answer, "bytes"), sizes[i]);
        const char *etag = answer_text(house, &house->answer, "etag");
        struct ask ask;
        assert_ok(house, get(house, &ask, &ada, "a/b.txt"));
        assert_string_equal(ask.answer[RELAY_ETAG], etag);
        assert_string_equal(ask.answer[RELAY_CONTENT_TYPE], "text/plain");
        assert_string_equal(ask.answer[RELAY_ACCEPT_RANGES], "bytes");
        assert_string_equal(ask.answer[RELAY_CONTENT_DISPOSITION], "attachment");
        assert_string_equal(ask.answer[RELAY_LAST_MODIFIED], "Fri, 15 Jan 2027 08:00:00 GMT");
        assert_int_equal(ask.length, sizes[i]);
        assert_reads(house, &ada, "a/b.txt", bytes);
        assert_int_equal(files_of(house), 1); /* those it replaced are gone */
    }
    struct ask head = {.method = "HEAD", .key = "a/b.txt", .head_only = true};
    assert_ok(house, do_ask(house, &ada, &head));
    assert_int_equal(head.http_status, 200);
    assert_int_equal(head.length, 3 * OBJECT_CHUNK_BYTES + 7);
    assert_int_equal(head.content.length, 0);
    assert_ok(house, del(house, &ada, "a/b.txt"));
    assert_int_equal(files_of(house), 0);
    struct ask ask;
    assert_status(house, get(house, &ask, &ada, "a/b.txt"), NOT_FOUND);
    assert_status(house, del(house, &ada, "a/b.txt"), NOT_FOUND);
}

static void bytes_without_a_type_are_octets(void **state)
{
    struct house *house = *state;
    struct ask ask = {.method = "PUT", .key = "k", .bytes = SPAN("x")};
    assert_ok(house, do_ask(house, &ada, &ask));
    assert_string_equal(answer_text(house, &house->answer, "content_type"),
                        "application/octet-stream");
    char type[400];
    memset(type, 'a', sizeof type - 1);
    type[sizeof type - 1] = '\0';
    ask = (struct ask){.method = "PUT", .key = "k", .bytes = SPAN("y"), .content_type = type};
    assert_status(house, do_ask(house, &ada, &ask), BAD_FIELD);
    type[255] = '\0';
    assert_ok(house, do_ask(house, &ada, &ask));
    assert_int_equal(files_of(house), 1);
}

static void it_is_there_after_parking_and_after_a_crash(void **state)
{
    struct house *house = *state;
    struct span bytes = many(house, 200000, 4);
    assert_ok(house, put(house, &ada, "k", NULL, bytes));
    house_expire(house, true);
    house_reopen(house);
    assert_null(sim_below(house->sim, 1)); /* no mark: it was left in order */
    assert_reads(house, &ada, "k", bytes);
    assert_ok(house, put(house, &ada, "l", NULL, SPAN("x")));
    house_crash(house);
    assert_reads(house, &ada, "k", bytes);
    assert_reads(house, &ada, "l", SPAN("x"));
    assert_int_equal(files_of(house), 2);
}

/* ---- classification ---- */

static void each_caller_reads_the_highest_instance_it_covers(void **state)
{
    struct house *house = *state;
    assert_ok(house, put(house, &chief, "k", "classification=restricted", SPAN("secret")));
    assert_int_equal(house->http_status, 201);
    assert_ok(house, put(house, &ada, "k", NULL, SPAN("inside")));
    assert_int_equal(house->http_status, 201); /* nothing says that there is another */
    assert_ok(house, put(house, &guest, "k", "classification=public", SPAN("open")));
    assert_int_equal(house->http_status, 201);
    assert_reads(house, &chief, "k", SPAN("secret"));
    assert_reads(house, &ada, "k", SPAN("inside"));
    assert_reads(house, &guest, "k", SPAN("open"));
    assert_int_equal(files_of(house), 3);
    assert_ok(house, del(house, &ada, "k")); /* all that ada covers */
    assert_int_equal(files_of(house), 1);
    struct ask ask;
    assert_status(house, get(house, &ask, &ada, "k"), NOT_FOUND);
    assert_status(house, del(house, &ada, "k"), NOT_FOUND);
    assert_reads(house, &chief, "k", SPAN("secret"));
    assert_ok(house, put(house, &chief, "k", "classification=public", SPAN("told")));
    assert_int_equal(house->http_status, 200);
    assert_reads(house, &guest, "k", SPAN("told"));
    assert_int_equal(files_of(house), 1);
}

static void a_classification_above_the_callers_clearance_is_refused(void **state)
{
    struct house *house = *state;
    assert_status(house, put(house, &ada, "k", "classification=confidential", SPAN("x")),
                  FORBIDDEN_CLEARANCE);
    assert_status(house, put(house, &guest, "k", NULL, SPAN("x")), FORBIDDEN_CLEARANCE);
    assert_status(house, put(house, &ada, "k", "classification=secret", SPAN("x")), BAD_FIELD);
    assert_status(house, put(house, &ada, "k", "colour=red", SPAN("x")), BAD_FIELD);
    assert_int_equal(files_of(house), 0);
}

/* Everything that a caller can be told, with and without an instance above its clearance. */
static void what_is_hidden_leaves_no_trace_in_an_answer(void **state)
{
    struct house *house = *state;
    static const struct {
        const char *method, *key, *if_match, *if_none_match;
    } asks[] = {
        {"GET", "k", NULL, NULL}, {"GET", "k", "*", NULL}, {"GET", "k", NULL, "*"},
        {"DELETE", "k", NULL, NULL}, {"DELETE", "k", "*", NULL}, {"GET", NULL, NULL, NULL},
        {"PUT", "k", "*", NULL}, {"PUT", "k", NULL, "*"},
    };
    struct buffer seen[2] = {buffer_of(MIB(1)), buffer_of(MIB(1))};
    for (int hidden = 0; hidden < 2; hidden++) {
        if (hidden)
            assert_ok(house, put(house, &chief, "k", "classification=confidential",
                                 many(house, 100000, 1)));
        for (size_t i = 0; i < sizeof asks / sizeof *asks; i++) {
            struct ask ask = {.method = asks[i].method, .key = asks[i].key, .bytes = SPAN("x"),
                              .headers[RELAY_IF_MATCH] = asks[i].if_match,
                              .headers[RELAY_IF_NONE_MATCH] = asks[i].if_none_match};
            house->fault.detail[0] = '\0';
            status code = do_ask(house, &ada, &ask);
            buffer_printf(&seen[hidden], "%s: %d %d %s %d;", ask.method, code, ask.http_status,
                          code == OK ? "" : house->fault.detail, (int)ask.content.length);
            if (code == OK && !ask.key)
                buffer_put(&seen[hidden], buffer_span(&house->body));
        }
        assert_ok(house, del(house, &ada, "k"));
    }
    assert_true(seen[0].length > 200);
    assert_int_equal(seen[0].length, seen[1].length);
    assert_memory_equal(seen[0].data, seen[1].data, seen[0].length);
    assert_reads(house, &chief, "k", many(house, 100000, 1));
    buffer_free(&seen[0]);
    buffer_free(&seen[1]);
}

/* A secret one that is made plain is told of as if it had been new. */
static void what_was_hidden_does_not_go_on_in_what_is_seen(void **state)
{
    struct house *house = *state;
    assert_ok(house, put(house, &chief, "k", "classification=restricted", SPAN("x")));
    const char *hidden = answer_text(house, &house->answer, "created_at");
    house->now_us += DAY_US;
    assert_ok(house, put(house, &chief, "k", "classification=internal", SPAN("y")));
    assert_int_equal(house->http_status, 200);
    const char *seen = answer_text(house, &house->answer, "created_at");
    assert_string_not_equal(seen, hidden);
    assert_string_equal(seen, answer_text(house, &house->answer, "updated_at"));
    house->now_us += DAY_US;
    assert_ok(house, put(house, &chief, "k", "classification=restricted", SPAN("z")));
    assert_string_equal(answer_text(house, &house->answer, "created_at"), seen);
}

/* ---- conditions and parts ---- */

struct condition {
    enum relay_header header;
    const char *value;
    status put, get;   /* what comes of it */
    int get_status;
};

static void conditions_are_those_of_rfc_9110(void **state)
{
    struct house *house = *state;
    char strong[64], weak[64], list[256];
    assert_ok(house, put(house, &ada, "k", NULL, SPAN("0123456789")));
    const char *etag = answer_text(house, &house->answer, "etag");
    snprintf(strong, sizeof strong, "%s", etag);
    snprintf(weak, sizeof weak, "W/%s", etag);
    snprintf(list, sizeof list, "\"other\", W/\"more\" ,%s", etag);
    const char *before = "Fri, 15 Jan 2027 07:59:59 GMT", *now = "Fri, 15 Jan 2027 08:00:00 GMT";
    const struct condition table[] = {
        {RELAY_IF_MATCH, "*", OK, OK, 200},
        {RELAY_IF_MATCH, strong, OK, OK, 200},
        {RELAY_IF_MATCH, list, OK, OK, 200},
        {RELAY_IF_MATCH, weak, PRECONDITION_FAILED, PRECONDITION_FAILED, 0},
        {RELAY_IF_MATCH, "\"other\"", PRECONDITION_FAILED, PRECONDITION_FAILED, 0},
        {RELAY_IF_MATCH, "other", BAD_FIELD, BAD_FIELD, 0},
        {RELAY_IF_MATCH, "\"other", BAD_FIELD, BAD_FIELD, 0},
        {RELAY_IF_MATCH, "\"a\" \"b\"", BAD_FIELD, BAD_FIELD, 0},
        {RELAY_IF_NONE_MATCH, "*", PRECONDITION_FAILED, OK, 304},
        {RELAY_IF_NONE_MATCH, strong, PRECONDITION_FAILED, OK, 304},
        {RELAY_IF_NONE_MATCH, weak, PRECONDITION_FAILED, OK, 304},
        {RELAY_IF_NONE_MATCH, list, PRECONDITION_FAILED, OK, 304},
        {RELAY_IF_NONE_MATCH, "\"other\"", OK, OK, 200},
        {RELAY_IF_MODIFIED_SINCE, now, OK, OK, 304},
        {RELAY_IF_MODIFIED_SINCE, before, OK, OK, 200},
        {RELAY_IF_MODIFIED_SINCE, "yesterday", OK, OK, 200},
        {RELAY_IF_UNMODIFIED_SINCE, now, OK, OK, 200},
        {RELAY_IF_UNMODIFIED_SINCE, before, PRECONDITION_FAILED, PRECONDITION_FAILED, 0},
        {RELAY_IF_UNMODIFIED_SINCE, "yesterday", OK, OK, 200},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        struct ask ask = {.method = "GET", .key = "k"};
        ask.headers[table[i].header] = table[i].value;
        assert_status(house, do_ask(house, &ada, &ask), table[i].get);
        assert_int_equal(ask.http_status, table[i].get_status);
        if (ask.http_status == 304) {
            assert_int_equal(ask.content.length, 0);
            assert_string_equal(ask.answer[RELAY_ETAG], strong);
        }
        ask = (struct ask){.method = "DELETE", .key = "k", .drops = true};
        ask.headers[table[i].header] = table[i].value;
        if (table[i].put != OK)
            assert_status(house, do_ask(house, &ada, &ask), table[i].put);
        ask = (struct ask){.method = "PUT", .key = "k", .bytes = SPAN("new"), .drops = true};
        ask.headers[table[i].header] = table[i].value;
        assert_status(house, do_ask(house, &ada, &ask),
                      table[i].put == OK ? CLOSED : table[i].put);
    }
    assert_reads(house, &ada, "k", SPAN("0123456789"));
    assert_int_equal(files_of(house), 1);
}

static void a_condition_is_judged_again_when_all_has_come(void **state)
{
    struct house *house = *state;
    struct ask first = {.method = "PUT", .key = "k", .bytes = SPAN("first"),
                        .headers[RELAY_IF_NONE_MATCH] = "*"};
    struct ask second = first;
    second.bytes = SPAN("second");
    silo_begin(house->silo, house->now_us);
    assert_ok(house, do_in_turn(house, &ada, &first, NULL));
    assert_int_equal(first.http_status, 201);
    assert_status(house, do_in_turn(house, &ada, &second, NULL), PRECONDITION_FAILED);
    assert_ok(house, silo_commit(house->silo, &house->fault));
    assert_reads(house, &ada, "k", SPAN("first"));
    assert_int_equal(files_of(house), 1);
    struct ask missing = {.method = "PUT", .key = "other", .bytes = SPAN("x"),
                          .headers[RELAY_IF_MATCH] = "*"};
    assert_status(house, do_ask(house, &ada, &missing), PRECONDITION_FAILED);
}

static void parts_are_those_of_rfc_9110(void **state)
{
    struct house *house = *state;
    static const struct {
        const char *range;
        status code;
        int http_status;
        const char *content_range, *content;
    } table[] = {
        {"bytes=0-0", OK, 206, "bytes 0-0/10", "0"},
        {"bytes=2-4", OK, 206, "bytes 2-4/10", "234"},
        {"bytes=7-", OK, 206, "bytes 7-9/10", "789"},
        {"bytes=7-99999999999999999999999", OK, 206, "bytes 7-9/10", "789"},
        {"bytes=-3", OK, 206, "bytes 7-9/10", "789"},
        {"bytes=-100", OK, 206, "bytes 0-9/10", "0123456789"},
        {"Bytes=0-1", OK, 206, "bytes 0-1/10", "01"},
        {"bytes=10-", RANGE_NOT_SATISFIABLE, 0, "bytes */10", NULL},
        {"bytes=99999999999999999999999-", RANGE_NOT_SATISFIABLE, 0, "bytes */10", NULL},
        {"bytes=-0", RANGE_NOT_SATISFIABLE, 0, "bytes */10", NULL},
        {"bytes=4-2", OK, 200, "", "0123456789"},
        {"bytes=0-1,3-4", OK, 200, "", "0123456789"},
        {"bytes=", OK, 200, "", "0123456789"},
        {"bytes=-", OK, 200, "", "0123456789"},
        {"bytes=a-b", OK, 200, "", "0123456789"},
        {"bytes=0-1x", OK, 200, "", "0123456789"},
        {"lines=0-1", OK, 200, "", "0123456789"},
        {"bytes", OK, 200, "", "0123456789"},
    };
    assert_ok(house, put(house, &ada, "k", NULL, SPAN("0123456789")));
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        struct ask ask = {.method = "GET", .key = "k", .headers[RELAY_RANGE] = table[i].range};
        assert_status(house, do_ask(house, &ada, &ask), table[i].code);
        assert_int_equal(ask.http_status, table[i].http_status);
        assert_string_equal(ask.answer[RELAY_CONTENT_RANGE], table[i].content_range);
        if (table[i].content)
            assert_true(span_is(ask.content, table[i].content));
        if (table[i].content)
            assert_int_equal(ask.length, ask.content.length);
    }
    assert_ok(house, put(house, &ada, "empty", NULL, (struct span){0}));
    struct ask ask = {.method = "GET", .key = "empty", .headers[RELAY_RANGE] = "bytes=0-"};
    assert_status(house, do_ask(house, &ada, &ask), RANGE_NOT_SATISFIABLE);
    assert_string_equal(ask.answer[RELAY_CONTENT_RANGE], "bytes */0");
    struct ask head = {.method = "HEAD", .key = "k", .head_only = true,
                       .headers[RELAY_RANGE] = "bytes=0-0"};
    assert_ok(house, do_ask(house, &ada, &head));
    assert_int_equal(head.http_status, 200);
}

static void a_part_of_an_older_state_is_the_whole(void **state)
{
    struct house *house = *state;
    assert_ok(house, put(house, &ada, "k", NULL, SPAN("0123456789")));
    const char *etag = answer_text(house, &house->answer, "etag");
    char weak[64];
    snprintf(weak, sizeof weak, "W/%s", etag);
    const struct {
        const char *value;
        int64_t later_us;
        int http_status;
    } table[] = {
        {etag, 0, 206}, {"\"other\"", 0, 200}, {weak, 0, 200},
        {"Fri, 15 Jan 2027 08:00:00 GMT", 0, 200}, /* may change within this second */
        {"Fri, 15 Jan 2027 08:00:00 GMT", SECOND_US, 206},
        {"Fri, 15 Jan 2027 08:00:01 GMT", SECOND_US, 200},
        {"nonsense", SECOND_US, 200},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        house->now_us = START_US + table[i].later_us;
        struct ask ask = {.method = "GET", .key = "k", .headers[RELAY_RANGE] = "bytes=1-1",
                          .headers[RELAY_IF_RANGE] = table[i].value};
        assert_ok(house, do_ask(house, &ada, &ask));
        assert_int_equal(ask.http_status, table[i].http_status);
    }
}

/* ---- lists ---- */

static const char *joined(struct house *house, const struct json *list, const char *member)
{
    struct buffer text = buffer_of(KIB(64));
    for (uint32_t i = 0; i < list->count; i++) {
        const struct json *item = &list->items[i];
        buffer_printf(&text, "%s%s", i ? " " : "",
                      member ? answer_text(house, item, member)
                             : (const char *)arena_copy(&house->arena, item->string).data);
    }
    buffer_put_u8(&text, 0);
    const char *copy = (const char *)arena_copy(&house->arena, buffer_span(&text)).data;
    buffer_free(&text);
    return copy;
}

static void store_some(struct house *house)
{
    static const char *const keys[] = {"b/2", "a", "b/1", "b", "b/c/1", "c", "b/c/2", "b-1",
                                       "\xc3\xa9", "b/c"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        assert_ok(house, put(house, &ada, keys[i], "classification=public", SPAN("x")));
    assert_ok(house, put(house, &chief, "b/0", "classification=restricted", SPAN("x")));
    assert_ok(house, put(house, &chief, "z", "classification=confidential", SPAN("x")));
    assert_ok(house, put(house, &ada, "d", NULL, SPAN("x")));
    struct ask above = {.method = "PUT", .key = "c", .query = "classification=restricted",
                        .bytes = SPAN("yy")};
    assert_ok(house, do_ask(house, &chief, &above)); /* chief covered the public one: it is gone */
    assert_ok(house, put(house, &guest, "c", "classification=public", SPAN("x")));
}

static void a_list_has_the_keys_in_order(void **state)
{
    struct house *house = *state;
    list(house, &ada, NULL);
    assert_int_equal(answer_data(house)->count, 0); /* nothing was ever stored */
    store_some(house);
    list(house, &ada, NULL);
    assert_string_equal(joined(house, answer_data(house), "key"),
                        "a b b-1 b/1 b/2 b/c b/c/1 b/c/2 c d \xc3\xa9");
    assert_null(json_member(&house->answer, "prefixes"));
    list(house, &chief, NULL);
    assert_string_equal(joined(house, answer_data(house), "key"),
                        "a b b-1 b/0 b/1 b/2 b/c b/c/1 b/c/2 c d z \xc3\xa9");
    assert_int_equal(answer_integer(answer_item(house, 9), "bytes"), 2); /* the highest */
    list(house, &guest, NULL);
    assert_string_equal(joined(house, answer_data(house), "key"),
                        "a b b-1 b/1 b/2 b/c b/c/1 b/c/2 c \xc3\xa9");
    list(house, &ada, "prefix=b/");
    assert_string_equal(joined(house, answer_data(house), "key"), "b/1 b/2 b/c b/c/1 b/c/2");
    list(house, &ada, "prefix=x");
    assert_int_equal(answer_data(house)->count, 0);
    list(house, &ada, "delimiter=/");
    assert_string_equal(joined(house, answer_data(house), "key"), "a b b-1 c d \xc3\xa9");
    assert_string_equal(joined(house, json_member(&house->answer, "prefixes"), NULL), "b/");
    list(house, &ada, "prefix=b/&delimiter=/");
    assert_string_equal(joined(house, answer_data(house), "key"), "b/1 b/2 b/c");
    assert_string_equal(joined(house, json_member(&house->answer, "prefixes"), NULL), "b/c/");
}

static void pages_join_to_the_whole_list(void **state)
{
    struct house *house = *state;
    static const char *const queries[] = {"", "&prefix=b", "&delimiter=/",
                                          "&prefix=b/&delimiter=/"};
    store_some(house);
    for (int limit = 1; limit < 13; limit++) {
        for (size_t i = 0; i < 4; i++) {
            char query[4096], whole[512], parts[512] = "";
            list(house, &chief, queries[i] + (queries[i][0] == '&'));
            const struct json *prefixes = json_member(&house->answer, "prefixes");
            uint32_t found = 0, count = answer_data(house)->count;
            count += prefixes ? prefixes->count : 0;
            snprintf(whole, sizeof whole, "%s", joined(house, answer_data(house), "key"));
            snprintf(query, sizeof query, "limit=%d%s", limit, queries[i]);
            for (int page = 0;; page++) {
                assert_true(page < 20);
                list(house, &chief, query);
                prefixes = json_member(&house->answer, "prefixes");
                uint32_t here = answer_data(house)->count + (prefixes ? prefixes->count : 0);
                found += here;
                size_t length = strlen(parts);
                if (answer_data(house)->count)
                    snprintf(parts + length, sizeof parts - length, "%s%s", length ? " " : "",
                             joined(house, answer_data(house), "key"));
                const struct json *next = json_member(&house->answer, "next_cursor");
                if (next->kind == JSON_NULL)
                    break;
                assert_int_equal(here, limit);
                snprintf(query, sizeof query, "limit=%d%s&cursor=%.*s", limit, queries[i],
                         SPAN_ARG(next->string));
            }
            assert_int_equal(found, count);
            assert_string_equal(parts, whole);
        }
    }
}

static void a_cursor_belongs_to_its_list(void **state)
{
    struct house *house = *state;
    char query[2048];
    store_some(house);
    list(house, &chief, "limit=2");
    const char *cursor = answer_text(house, &house->answer, "next_cursor");
    static const char *const others[] = {"prefix=b&", "delimiter=/&"};
    for (size_t i = 0; i < 2; i++) {
        struct ask ask = {.method = "GET", .query = query};
        snprintf(query, sizeof query, "%scursor=%s", others[i], cursor);
        assert_status(house, do_ask(house, &chief, &ask), BAD_FIELD);
    }
    struct ask ask = {.method = "GET", .query = query};
    snprintf(query, sizeof query, "cursor=%s", cursor);
    assert_status(house, do_ask(house, &ada, &ask), BAD_FIELD); /* of another clearance */
    assert_ok(house, do_ask(house, &chief, &ask));
    char *middle = query + strlen(query) / 2;
    *middle = *middle == 'A' ? 'B' : 'A';
    assert_status(house, do_ask(house, &chief, &ask), BAD_FIELD);
    ask.query = "delimiter=";
    assert_status(house, do_ask(house, &chief, &ask), BAD_FIELD);
    ask.query = "limit=0";
    assert_status(house, do_ask(house, &chief, &ask), BAD_FIELD);
    ask.query = "cursor=AAAA";
    assert_status(house, do_ask(house, &chief, &ask), BAD_FIELD);
}

int main(void)
{
#define IN_A_HOUSE(name) cmocka_unit_test_setup_teardown(name, house_build, house_pull_down)
    const struct CMUnitTest tests[] = {
        IN_A_HOUSE(an_object_is_stored_and_read_back),
        IN_A_HOUSE(bytes_without_a_type_are_octets),
        IN_A_HOUSE(it_is_there_after_parking_and_after_a_crash),
        IN_A_HOUSE(each_caller_reads_the_highest_instance_it_covers),
        IN_A_HOUSE(a_classification_above_the_callers_clearance_is_refused),
        IN_A_HOUSE(what_is_hidden_leaves_no_trace_in_an_answer),
        IN_A_HOUSE(what_was_hidden_does_not_go_on_in_what_is_seen),
        IN_A_HOUSE(conditions_are_those_of_rfc_9110),
        IN_A_HOUSE(a_condition_is_judged_again_when_all_has_come),
        IN_A_HOUSE(parts_are_those_of_rfc_9110),
        IN_A_HOUSE(a_part_of_an_older_state_is_the_whole),
        IN_A_HOUSE(a_list_has_the_keys_in_order),
        IN_A_HOUSE(pages_join_to_the_whole_list),
        IN_A_HOUSE(a_cursor_belongs_to_its_list),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
