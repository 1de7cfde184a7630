/* The headers that pass between clients and cells, and those that guard what a tenant stores. */
#include "house.h"

#include <unistd.h>

#define TEXT(text) {(const uint8_t *)(text), sizeof(text) - 1}

static void ask(struct house *house, int client, const char *headers)
{
    house_say(house, client,
              "GET /v1/streams/a HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n%s\r\n",
              (const char *)house->token.data, headers);
}

static void conditions_reach_the_cell_by_kind(void **state)
{
    struct house *house = *state;
    int client = house_dial(house);
    ask(house, client,
        "If-Unmodified-Since: Sat, 29 Oct 1994 19:43:31 GMT\r\nRange: bytes=0-9\r\n"
        "If-Match: \"a\", W/\"b\"\r\nIf-None-Match: *\r\nIf-Range: \"c\"\r\n"
        "If-Modified-Since: now\r\nContent-Type: a/b\r\nIdempotency-Key: k\r\n"
        "X-Other: not for the cell\r\nAllow: nor this\r\nETag: \"nor this\"\r\n");
    house_find(house, TENANT, 1);
    int cell = house_wake(house, TENANT);
    struct relayed relayed = house_request(house, cell);
    static const char *const wanted[RELAY_HEADERS] = {
        [RELAY_CONTENT_TYPE] = "a/b", [RELAY_IDEMPOTENCY_KEY] = "k", [RELAY_RANGE] = "bytes=0-9",
        [RELAY_IF_RANGE] = "\"c\"", [RELAY_IF_MATCH] = "\"a\", W/\"b\"",
        [RELAY_IF_NONE_MATCH] = "*", [RELAY_IF_MODIFIED_SINCE] = "now",
        [RELAY_IF_UNMODIFIED_SINCE] = "Sat, 29 Oct 1994 19:43:31 GMT",
    };
    assert_int_equal(relayed.length, 0);
    for (int kind = 1; kind < RELAY_HEADERS; kind++)
        assert_true(span_is(relayed.headers[kind], wanted[kind] ? wanted[kind] : ""));
    close(client);
    close(cell);
}

static void a_condition_that_could_be_read_twice_is_refused(void **state)
{
    struct house *house = *state;
    static const char *const names[] = {"Range", "If-Range", "If-Match", "If-None-Match",
                                        "If-Modified-Since", "If-Unmodified-Since",
                                        "Content-Type", "Idempotency-Key"};
    char lines[3000], long_value[RELAY_HEADER_MAX + 2];
    int client = house_dial(house);
    memset(long_value, 'a', sizeof long_value - 1);
    long_value[sizeof long_value - 1] = '\0';
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(lines, sizeof lines, "%s: \"a\"\r\n%s: \"b\"\r\n", names[i], names[i]);
        ask(house, client, lines);
        house_expect(house, client, 400, "bad_request");
        snprintf(lines, sizeof lines, "%s:\r\n", names[i]);
        ask(house, client, lines);
        house_expect(house, client, 400, "bad_request");
        snprintf(lines, sizeof lines, "%s: \"\xc3\xa9\"\r\n", names[i]);
        ask(house, client, lines);
        house_expect(house, client, 400, "bad_request");
        snprintf(lines, sizeof lines, "%s: %s\r\n", names[i], long_value);
        ask(house, client, lines);
        house_expect(house, client, 400, "bad_request");
    }
    assert_true(house_quiet(house, house->control));
    close(client);
}

static const struct {
    const char *name;
    struct said said;
} wrong[] = {
    {"a request's header", {FLAG_END, 200, 0, {{RELAY_RANGE, TEXT("bytes=0-1")}}, {0}}},
    {"an idempotency key", {FLAG_END, 200, 0, {{RELAY_IDEMPOTENCY_KEY, TEXT("a")}}, {0}}},
    {"an unknown kind", {FLAG_END, 200, 0, {{RELAY_HEADERS, TEXT("a")}}, {0}}},
    {"kind 255", {FLAG_END, 200, 0, {{255, TEXT("a")}}, {0}}},
    {"a kind twice", {FLAG_END, 200, 0, {{RELAY_ETAG, TEXT("a")}, {RELAY_ETAG, TEXT("b")}}, {0}}},
    {"descending kinds",
     {FLAG_END, 200, 0, {{RELAY_LAST_MODIFIED, TEXT("a")}, {RELAY_ETAG, TEXT("b")}}, {0}}},
    {"an empty value", {FLAG_END, 200, 0, {{RELAY_ETAG, {0}}}, {0}}},
    {"a header in a tag", {FLAG_END, 200, 0, {{RELAY_ETAG, TEXT("a\r\nSet-Cookie: b")}}, {0}}},
    {"an answer in a disposition",
     {FLAG_END, 200, 0, {{RELAY_CONTENT_DISPOSITION, TEXT("a\r\n\r\nHTTP/1.1 200 OK")}}, {0}}},
    {"a bare line feed", {FLAG_END, 200, 0, {{RELAY_LAST_MODIFIED, TEXT("a\nb: c")}}, {0}}},
    {"a NUL", {FLAG_END, 200, 0, {{RELAY_ACCEPT_RANGES, TEXT("a\0b")}}, {0}}},
    {"beyond ASCII", {FLAG_END, 200, 0, {{RELAY_CONTENT_DISPOSITION, TEXT("\xc3\xa9")}}, {0}}},
    {"blanks around", {FLAG_END, 200, 0, {{RELAY_ETAG, TEXT(" \"a\"")}}, {0}}},
    {"a range of 200", {FLAG_END, 200, 0, {{RELAY_CONTENT_RANGE, TEXT("bytes 0-1/2")}}, {0}}},
    {"206 of no range", {FLAG_END, 206, 2, {{RELAY_CONTENT_TYPE, TEXT("a/b")}}, TEXT("ab")}},
    {"replayed, but not true", {FLAG_END, 200, 0, {{RELAY_IDEMPOTENT_REPLAYED, TEXT("no")}}, {0}}},
    {"304 with a length", {FLAG_END, 304, 2, {{RELAY_CONTENT_TYPE, TEXT("a/b")}}, {0}}},
    {"an endless length",
     {0, 200, UINT64_C(1) << 60, {{RELAY_CONTENT_TYPE, TEXT("a/b")}}, {0}}},
    {"an unknown length of nothing", {0, 200, RELAY_LENGTH_UNKNOWN, {{0}}, {0}}},
    {"more than announced", {0, 200, 1, {{RELAY_CONTENT_TYPE, TEXT("a/b")}}, TEXT("ab")}},
    {"less than announced", {FLAG_END, 200, 3, {{RELAY_CONTENT_TYPE, TEXT("a/b")}}, TEXT("ab")}},
};

static void headers_that_a_cell_cannot_say_end_its_relay(void **state)
{
    struct house *house = *state;
    int client = house_dial(house);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        ask(house, client, "");
        if (i == 0)
            house_find(house, TENANT, 1);
        int cell = house_wake(house, TENANT);
        cell_say(cell, house_request(house, cell).id, &wrong[i].said);
        if (!house_closed(house, cell))
            fail_msg("%s was taken", wrong[i].name);
        house_expect(house, client, 503, "unavailable");
        close(cell);
    }
    close(client);
}

static const struct reply *answered(struct house *house, int client, int *cell,
                                    const struct said *said)
{
    ask(house, client, "");
    if (*cell < 0) {
        house_find(house, TENANT, 1);
        *cell = house_wake(house, TENANT);
    }
    cell_say(*cell, house_request(house, *cell).id, said);
    return house_reply(house, client);
}

static void what_a_tenant_stores_cannot_act_in_a_browser(void **state)
{
    struct house *house = *state;
    int client = house_dial(house), cell = -1;
    const struct said object = {
        FLAG_END, 200, 2,
        {{RELAY_CONTENT_TYPE, TEXT("text/html")}, {RELAY_ETAG, TEXT("\"e\"")},
         {RELAY_LAST_MODIFIED, TEXT("Sat, 29 Oct 1994 19:43:31 GMT")},
         {RELAY_ACCEPT_RANGES, TEXT("bytes")},
         {RELAY_CONTENT_DISPOSITION, TEXT("attachment; filename=\"a\"")}},
        TEXT("<>")};
    const struct reply *reply = answered(house, client, &cell, &object);
    assert_string_equal(reply_header(reply, "Content-Type"), "text/html");
    assert_string_equal(reply_header(reply, "ETag"), "\"e\"");
    assert_string_equal(reply_header(reply, "Last-Modified"), "Sat, 29 Oct 1994 19:43:31 GMT");
    assert_string_equal(reply_header(reply, "Accept-Ranges"), "bytes");
    assert_string_equal(reply_header(reply, "Content-Disposition"), "attachment; filename=\"a\"");
    assert_string_equal(reply_header(reply, "X-Content-Type-Options"), "nosniff");
    assert_string_equal(reply_header(reply, "Content-Security-Policy"),
                        "sandbox; default-src 'none'");
    const struct said json = {FLAG_END, 201, 2,
                              {{RELAY_CONTENT_TYPE, TEXT("application/json")},
                               {RELAY_IDEMPOTENT_REPLAYED, TEXT("true")}}, TEXT("{}")};
    reply = answered(house, client, &cell, &json);
    assert_string_equal(reply_header(reply, "X-Content-Type-Options"), "nosniff");
    assert_string_equal(reply_header(reply, "Idempotent-Replayed"), "true");
    assert_null(reply_header(reply, "Content-Security-Policy"));
    close(client);
    close(cell);
}

static void parts_and_things_not_modified_are_answered_as_such(void **state)
{
    struct house *house = *state;
    int client = house_dial(house), cell = -1;
    const struct said part = {FLAG_END, 206, 2,
                              {{RELAY_CONTENT_TYPE, TEXT("a/b")}, {RELAY_ETAG, TEXT("\"e\"")},
                               {RELAY_CONTENT_RANGE, TEXT("bytes 3-4/10")}}, TEXT("de")};
    const struct reply *reply = answered(house, client, &cell, &part);
    assert_int_equal(reply->status, 206);
    assert_string_equal(reply_header(reply, "Content-Range"), "bytes 3-4/10");
    assert_string_equal(reply_header(reply, "Content-Length"), "2");
    assert_true(span_is(buffer_span(&reply->body), "de"));
    const struct said same = {FLAG_END, 304, 0, {{RELAY_ETAG, TEXT("\"e\"")}}, {0}};
    reply = answered(house, client, &cell, &same);
    assert_int_equal(reply->status, 304);
    assert_string_equal(reply_header(reply, "ETag"), "\"e\"");
    assert_null(reply_header(reply, "Content-Length"));
    assert_null(reply_header(reply, "Content-Type"));
    assert_null(reply_header(reply, "Transfer-Encoding"));
    const struct said beyond = {FLAG_END, 416, 2,
                                {{RELAY_CONTENT_TYPE, TEXT("application/problem+json")},
                                 {RELAY_CONTENT_RANGE, TEXT("bytes */10")}}, TEXT("{}")};
    reply = answered(house, client, &cell, &beyond);
    assert_int_equal(reply->status, 416);
    assert_string_equal(reply_header(reply, "Content-Range"), "bytes */10");
    close(client);
    close(cell);
}

#define HOUSE_TEST(name) cmocka_unit_test_setup_teardown(name, house_setup, house_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        HOUSE_TEST(conditions_reach_the_cell_by_kind),
        HOUSE_TEST(a_condition_that_could_be_read_twice_is_refused),
        HOUSE_TEST(headers_that_a_cell_cannot_say_end_its_relay),
        HOUSE_TEST(what_a_tenant_stores_cannot_act_in_a_browser),
        HOUSE_TEST(parts_and_things_not_modified_are_answered_as_such),
    };
    return cmocka_run_group_tests_name("gateway headers", tests, NULL, NULL);
}
