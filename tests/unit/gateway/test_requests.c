/* What clients may send, and what becomes of what they may not. */
#include "house.h"

#include <sys/socket.h>
#include <unistd.h>

static void a_request_reaches_the_cell_as_it_was_sent(void **state)
{
    struct house *house = *state;
    int client = house_dial(house);
    house_say(house, client,
              "GET /v1/memories?limit=2&user_id=a%%20b HTTP/1.1\r\nHost: x\r\n"
              "Authorization: Bearer %s\r\nIdempotency-Key: k-1\r\nContent-Type: a/b\r\n"
              "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n",
              (const char *)house->token.data);
    house_find(house, TENANT, 1);
    int cell = house_wake(house, TENANT);
    struct relayed relayed = house_request(house, cell);
    assert_int_equal(relayed.flags, FLAG_END);
    assert_true(span_is(relayed.method, "GET"));
    assert_true(span_is(relayed.path, "/v1/memories"));
    assert_true(span_is(relayed.query, "limit=2&user_id=a%20b"));
    assert_true(span_is(relayed.headers[RELAY_CONTENT_TYPE], "a/b"));
    assert_true(span_is(relayed.headers[RELAY_IDEMPOTENCY_KEY], "k-1"));
    assert_true(span_is(relayed.token, (const char *)house->token.data));
    assert_int_equal(relayed.fragment.length, 0);
    assert_int_equal(relayed.trace_id[0], 0x0a);
    assert_int_equal(relayed.trace_id[15], 0x9c);
    cell_answer(cell, relayed.id, 200, "{\"data\":[]}");
    const struct reply *reply = house_reply(house, client);
    assert_int_equal(reply->status, 200);
    assert_true(span_is(buffer_span(&reply->body), "{\"data\":[]}"));
    assert_string_equal(reply_header(reply, "Content-Type"), "application/json");
    assert_memory_equal(reply_header(reply, "Traceparent"), "00-0af7651916cd43dd8448eb211c80319c-",
                        36);
    assert_null(reply_header(reply, "Connection"));
    close(client);
    close(cell);
}

static void a_connection_carries_many_requests_and_control_is_asked_once(void **state)
{
    struct house *house = *state;
    int client = house_dial(house);
    struct relayed relayed;
    int cell = house_relayed(house, client, &relayed);
    uint32_t last = 0;
    for (int i = 0; i < 20; i++) {
        assert_int_not_equal(relayed.id, last);
        last = relayed.id;
        cell_answer(cell, relayed.id, 200, "{}");
        house_expect(house, client, 200, NULL);
        house_get(house, client, "/v1/memories");
        relayed = house_request(house, cell);
    }
    assert_true(house_quiet(house, house->control));
    close(client);
    close(cell);
}

static void pipelined_requests_are_answered_in_their_order(void **state)
{
    struct house *house = *state;
    int client = house_dial(house);
    struct buffer three = buffer_of(KIB(16));
    for (int i = 0; i < 3; i++)
        buffer_printf(&three,
                      "POST /v1/memories HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n"
                      "Content-Type: application/json\r\nContent-Length: 1\r\n\r\n%d",
                      (const char *)house->token.data, i);
    house_write(house, client, buffer_span(&three));
    house_find(house, TENANT, 1);
    int cell = house_wake(house, TENANT);
    for (int i = 0; i < 3; i++) {
        struct relayed relayed = house_request(house, cell);
        assert_int_equal(relayed.fragment.length, 1);
        assert_int_equal(relayed.fragment.data[0], '0' + i);
        assert_true(house_quiet(house, cell)); /* one at a time */
        cell_answer(cell, relayed.id, 201, i == 0 ? "0" : i == 1 ? "1" : "2");
        const struct reply *reply = house_reply(house, client);
        assert_int_equal(reply->status, 201);
        assert_int_equal(reply->body.data[0], '0' + i);
    }
    buffer_free(&three);
    close(client);
    close(cell);
}

static void a_client_that_sends_byte_by_byte_is_served(void **state)
{
    struct house *house = *state;
    int client = house_dial(house);
    struct buffer bytes = buffer_of(KIB(4));
    buffer_printf(&bytes,
                  "POST /v1/memories HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n"
                  "Transfer-Encoding: chunked\r\n\r\n3\r\n{\"a\r\nA\r\n\":12345678\r\n1\r\n}\r\n"
                  "0\r\n\r\n",
                  (const char *)house->token.data);
    for (size_t i = 0; i < bytes.length; i++) {
        house_write(house, client, (struct span){bytes.data + i, 1});
        if (i == bytes.length - 20)
            house_find(house, TENANT, 1);
    }
    int cell = house_wake(house, TENANT);
    struct relayed relayed = house_request(house, cell);
    assert_int_equal(relayed.flags, FLAG_END);
    assert_true(span_is(relayed.fragment, "{\"a\":12345678}"));
    cell_answer(cell, relayed.id, 201, "{}");
    house_expect(house, client, 201, NULL);
    buffer_free(&bytes);
    close(client);
    close(cell);
}

/* Reads a streamed body to its end; every byte must be the pattern's. */
static size_t take_body(struct house *house, int cell, const struct relayed *first,
                        uint32_t *frames)
{
    size_t total = 0;
    struct span piece = first->fragment;
    uint8_t flags = first->flags;
    for (;;) {
        (*frames)++;
        for (size_t i = 0; i < piece.length; i++)
            assert_int_equal(piece.data[i], 'a' + (total + i) % 23);
        total += piece.length;
        if (flags & FLAG_END)
            return total;
        struct ipc_message message = house_next(house, cell, MESSAGE_RELAY_BODY);
        struct cursor cursor = cursor_over(message.body);
        struct fault fault;
        assert_int_equal(message.id, first->id);
        assert_int_equal(cursor_u8(&flags, &cursor, &fault), OK);
        assert_int_equal(cursor_field(&piece, &cursor, RELAY_FRAGMENT_MAX, "", &fault), OK);
        assert_int_equal(cursor_end(&cursor, &fault), OK);
    }
}

static void send_large(struct house *house, size_t length, bool chunked)
{
    int client = house_dial(house);
    struct buffer body = buffer_of(MIB(2));
    uint32_t frames = 0;
    house_say(house, client,
              "POST /v1/memories HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n",
              (const char *)house->token.data);
    if (chunked)
        house_say(house, client, "Transfer-Encoding: chunked\r\n\r\n");
    else
        house_say(house, client, "Content-Length: %zu\r\n\r\n", length);
    house_find(house, TENANT, 1);
    for (size_t at = 0; at < length;) {
        size_t piece = length - at < 40000 ? length - at : 40000;
        if (chunked)
            buffer_printf(&body, "%zx\r\n", piece);
        for (size_t i = 0; i < piece; i++)
            buffer_put_u8(&body, (uint8_t)('a' + (at + i) % 23));
        if (chunked)
            buffer_put_text(&body, "\r\n");
        at += piece;
    }
    if (chunked)
        buffer_put_text(&body, "0\r\n\r\n");
    size_t before = body.length / 3; /* the cell is woken once a fragment is there */
    house_write(house, client, (struct span){body.data, before});
    int cell = house_wake(house, TENANT);
    house_write(house, client, (struct span){body.data + before, body.length - before});
    struct relayed relayed = house_request(house, cell);
    assert_int_equal(take_body(house, cell, &relayed, &frames), length);
    assert_true(frames > 5);
    cell_answer(cell, relayed.id, 201, "{}");
    house_expect(house, client, 201, NULL);
    buffer_free(&body);
    close(client);
    close(cell);
}

static void large_bodies_are_streamed(void **state)
{
    send_large(*state, 450000, false);
}

static void large_chunked_bodies_are_streamed(void **state)
{
    send_large(*state, 450000, true);
}

static void no_cell_hears_of_a_body_that_is_not_complete(void **state)
{
    struct house *house = *state;
    int client = house_dial(house);
    house_say(house, client,
              "POST /v1/memories HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n"
              "Content-Length: 10\r\n\r\n12345", (const char *)house->token.data);
    house_find(house, TENANT, 1);
    assert_true(house_quiet(house, house->control));
    house_wait(house, HTTP_BODY_TIMEOUT_MS - 1);
    assert_true(house_silent(house, client));
    house_wait(house, 2);
    house_expect(house, client, 408, "timeout");
    assert_true(house_closed(house, client));
    assert_true(house_quiet(house, house->control));
    close(client);
}

static void continue_is_said_when_the_body_is_wanted(void **state)
{
    struct house *house = *state;
    int client = house_dial(house);
    house_say(house, client,
              "POST /v1/memories HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n"
              "Content-Length: 2\r\nExpect: 100-continue\r\n\r\n",
              (const char *)house->token.data);
    assert_true(house_silent(house, client));
    house_find(house, TENANT, 1);
    assert_int_equal(house_reply(house, client)->status, 100);
    house_say(house, client, "{}");
    int cell = house_wake(house, TENANT);
    struct relayed relayed = house_request(house, cell);
    cell_answer(cell, relayed.id, 201, "{}");
    house_expect(house, client, 201, NULL);
    assert_true(house_silent(house, client));
    close(client);
    close(cell);
}

static void continue_is_not_said_to_who_is_refused(void **state)
{
    struct house *house = *state;
    int client = house_dial(house);
    house_say(house, client,
              "POST /v1/memories HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
              "Expect: 100-continue\r\n\r\n");
    house_expect(house, client, 401, "unauthenticated");
    assert_true(house_closed(house, client)); /* the body may or may not follow */
    close(client);
}

static void a_refused_request_does_not_lose_its_connection_over_a_short_body(void **state)
{
    struct house *house = *state;
    int client = house_dial(house);
    house_say(house, client,
              "POST /v1/memories HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n123");
    house_expect(house, client, 401, "unauthenticated");
    assert_true(house_silent(house, client));
    house_say(house, client, "4567890GET /v1/memories HTTP/1.1\r\nHost: x\r\n\r\n");
    house_expect(house, client, 401, "unauthenticated");
    close(client);
}

static void a_body_over_the_limit_is_refused_before_it_comes(void **state)
{
    struct house *house = *state;
    int client = house_dial(house);
    struct buffer body = buffer_of(MIB(1));
    house_say(house, client,
              "POST /v1/memories/search HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n"
              "Content-Length: %u\r\n\r\n", (const char *)house->token.data, KIB(128) + 1);
    house_find(house, TENANT, 1);
    while (body.length < KIB(128) + 1)
        buffer_put_text(&body, "0123456789");
    house_write(house, client, buffer_span(&body)); /* the answer must survive this */
    house_expect(house, client, 413, "too_large");
    assert_true(house_closed(house, client));
    assert_true(house_quiet(house, house->control)); /* nobody was woken */
    buffer_free(&body);
    close(client);
}

static void a_chunked_body_over_the_limit_ends_where_it_passes_it(void **state)
{
    struct house *house = *state;
    int client = house_dial(house);
    struct buffer chunk = buffer_of(KIB(64));
    house_say(house, client,
              "POST /v1/memories/search HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n"
              "Transfer-Encoding: chunked\r\n\r\n", (const char *)house->token.data);
    house_find(house, TENANT, 1);
    buffer_put_text(&chunk, "8000\r\n");
    while (chunk.length < 6 + 0x8000)
        buffer_put_u8(&chunk, 'a');
    buffer_put_text(&chunk, "\r\n");
    for (int i = 0; i < 5; i++)
        house_write(house, client, buffer_span(&chunk));
    int cell = house_wake(house, TENANT);
    house_expect(house, client, 413, "too_large");
    assert_true(house_closed(house, client));
    struct relayed relayed = house_request(house, cell); /* it had a fragment already */
    assert_int_equal(relayed.flags, 0);
    struct ipc_message message = house_next(house, cell, MESSAGE_RELAY_BODY);
    message = house_next(house, cell, MESSAGE_RELAY_CANCEL);
    assert_int_equal(message.id, relayed.id);
    buffer_free(&chunk);
    close(client);
    close(cell);
}

static void an_action_without_a_body_takes_none(void **state)
{
    struct house *house = *state;
    int client = house_dial(house);
    house_say(house, client,
              "GET /v1/memories HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n"
              "Content-Length: 2\r\n\r\n{}", (const char *)house->token.data);
    house_find(house, TENANT, 1);
    house_expect(house, client, 400, "bad_request");
    house_say(house, client,
              "GET /v1/memories HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n"
              "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
              (const char *)house->token.data);
    house_expect(house, client, 400, "bad_request");
    assert_true(house_closed(house, client));
    assert_true(house_quiet(house, house->control));
    close(client);
}

static const struct {
    const char *bytes;
    int status;
    const char *code;
} malformed[] = {
    {"\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", 400, "bad_request"},
    {"GET / HTTP/1.1\nHost: x\n\n", 400, "bad_request"},
    {"GET / HTTP/1.1\r\n\r\n", 400, "bad_request"},
    {"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 400, "bad_request"},
    {"GET /\r\nHost: x\r\n\r\n", 400, "bad_request"},
    {"GET  / HTTP/1.1\r\nHost: x\r\n\r\n", 400, "bad_request"},
    {"G(T / HTTP/1.1\r\nHost: x\r\n\r\n", 400, "bad_request"},
    {"GET http://y/ HTTP/1.1\r\nHost: x\r\n\r\n", 400, "bad_request"},
    {"GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", 400, "bad_request"},
    {"GET / HTTP/1.1\r\nHost: x y\r\n\r\n", 400, "bad_request"},
    {"GET / HTTP/1.1\r\nHost: x\r\nA : b\r\n\r\n", 400, "bad_request"},
    {"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n", 400, "bad_request"},
    {"GET / HTTP/1.1\r\nHost: x\r\nA: b\001c\r\n\r\n", 400, "bad_request"},
    {"GET / HTTP/1.1\r\nHost: x\r\nA: b\rc\r\n\r\n", 400, "bad_request"},
    {"GET / HTTP/1.1\r\nHost: x\r\n: b\r\n\r\n", 400, "bad_request"},
    {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na", 400,
     "bad_request"},
    {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\na", 400, "bad_request"},
    {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1, 1\r\n\r\na", 400, "bad_request"},
    {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\na", 400, "bad_request"},
    {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0x1\r\n\r\na", 400, "bad_request"},
    {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400,
     "bad_request"},
    {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501,
     "not_implemented"},
    {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n", 400, "bad_request"},
    {"POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "bad_request"},
    {"POST / HTTP/1.1\r\nHost: x\r\nExpect: 200-ok\r\n\r\n", 400, "bad_request"},
    {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n", 413,
     "too_large"},
    {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 72057594037927937\r\n\r\n", 413, "too_large"},
};

static void malformed_requests_are_answered_and_the_connection_ends(void **state)
{
    struct house *house = *state;
    for (size_t i = 0; i < sizeof malformed / sizeof *malformed; i++) {
        int client = house_dial(house);
        house_say(house, client, "%s", malformed[i].bytes);
        house_expect(house, client, malformed[i].status, malformed[i].code);
        assert_true(house_closed(house, client));
        close(client);
    }
    assert_true(house_quiet(house, house->control));
}

static void bytes_of_all_kinds_do_not_harm(void **state)
{
    struct house *house = *state;
    uint32_t seed = 7;
    for (int round = 0; round < 200; round++) {
        uint8_t bytes[64];
        int client = house_dial(house);
        for (size_t i = 0; i < sizeof bytes; i++) {
            seed = seed * 1664525 + 1013904223;
            bytes[i] = (uint8_t)(seed >> 24);
        }
        house_write(house, client, SPAN_OF(bytes));
        house_say(house, client, "\r\n\r\n");
        house_expect(house, client, 400, "bad_request");
        close(client);
    }
    house_turn(house);
    assert_int_equal(house->stats->slots[1].connections_open, 0);
}

static void too_long_a_head_is_refused(void **state)
{
    struct house *house = *state;
    char line[1001];
    memset(line, 'a', sizeof line - 1);
    line[sizeof line - 1] = '\0';
    int client = house_dial(house);
    house_say(house, client, "GET /");
    for (int i = 0; i < 9; i++)
        house_say(house, client, "%s", line);
    house_expect(house, client, 431, "headers_too_large");
    assert_true(house_closed(house, client));
    close(client);
    client = house_dial(house);
    house_say(house, client, "GET / HTTP/1.1\r\nHost: x\r\n");
    for (int i = 0; i < 40; i++)
        house_say(house, client, "a: %s\r\n", line);
    house_expect(house, client, 431, "headers_too_large");
    assert_true(house_closed(house, client));
    close(client);
}

static void headers_that_count_may_be_there_once_and_short(void **state)
{
    static const char *const extra[] = {
        "Authorization: Bearer x\r\nAuthorization: Bearer x\r\n",
        "Content-Type: a\r\nContent-Type: b\r\n",
        "Idempotency-Key: a\r\nIdempotency-Key: b\r\n",
    };
    struct house *house = *state;
    char key[300];
    memset(key, 'k', sizeof key - 1);
    key[sizeof key - 1] = '\0';
    int client = house_dial(house);
    for (size_t i = 0; i < sizeof extra / sizeof *extra; i++) {
        house_say(house, client, "GET /v1/memories HTTP/1.1\r\nHost: x\r\n%s\r\n", extra[i]);
        house_expect(house, client, 400, "bad_request");
    }
    house_say(house, client, "GET /v1/memories HTTP/1.1\r\nHost: x\r\nIdempotency-Key: %s\r\n\r\n",
              key);
    house_expect(house, client, 400, "bad_request");
    close(client);
}

static void old_and_closing_clients_are_closed_after_the_answer(void **state)
{
    struct house *house = *state;
    int client = house_dial(house);
    house_say(house, client, "GET /v1/memories HTTP/1.0\r\n\r\n");
    const struct reply *reply = house_reply(house, client);
    assert_int_equal(reply->status, 401);
    assert_string_equal(reply_header(reply, "Connection"), "close");
    assert_true(house_closed(house, client));
    close(client);
    client = house_dial(house);
    house_say(house, client,
              "GET /v1/memories HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
              "GET /v1/memories HTTP/1.1\r\nHost: x\r\n\r\n");
    reply = house_reply(house, client);
    assert_string_equal(reply_header(reply, "Connection"), "close");
    assert_true(house_closed(house, client)); /* the second is not answered */
    close(client);
}

static void slow_heads_and_idle_connections_time_out(void **state)
{
    struct house *house = *state;
    int slow = house_dial(house), idle = house_dial(house);
    house_say(house, slow, "GET / HT");
    house_wait(house, HTTP_HEADER_TIMEOUT_MS / 2);
    house_say(house, slow, "TP/1.1\r\n"); /* a trickle does not help */
    house_wait(house, HTTP_HEADER_TIMEOUT_MS / 2 + 1);
    house_expect(house, slow, 408, "timeout");
    assert_true(house_closed(house, slow));
    house_wait(house, HTTP_IDLE_TIMEOUT_MS - HTTP_HEADER_TIMEOUT_MS - 2);
    assert_true(house_silent(house, idle));
    house_wait(house, 2);
    assert_true(house_closed(house, idle));
    close(slow);
    close(idle);
}

#define HOUSE_TEST(name) cmocka_unit_test_setup_teardown(name, house_setup, house_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        HOUSE_TEST(a_request_reaches_the_cell_as_it_was_sent),
        HOUSE_TEST(a_connection_carries_many_requests_and_control_is_asked_once),
        HOUSE_TEST(pipelined_requests_are_answered_in_their_order),
        HOUSE_TEST(a_client_that_sends_byte_by_byte_is_served),
        HOUSE_TEST(large_bodies_are_streamed),
        HOUSE_TEST(large_chunked_bodies_are_streamed),
        HOUSE_TEST(no_cell_hears_of_a_body_that_is_not_complete),
        HOUSE_TEST(continue_is_said_when_the_body_is_wanted),
        HOUSE_TEST(continue_is_not_said_to_who_is_refused),
        HOUSE_TEST(a_refused_request_does_not_lose_its_connection_over_a_short_body),
        HOUSE_TEST(a_body_over_the_limit_is_refused_before_it_comes),
        HOUSE_TEST(a_chunked_body_over_the_limit_ends_where_it_passes_it),
        HOUSE_TEST(an_action_without_a_body_takes_none),
        HOUSE_TEST(malformed_requests_are_answered_and_the_connection_ends),
        HOUSE_TEST(bytes_of_all_kinds_do_not_harm),
        HOUSE_TEST(too_long_a_head_is_refused),
        HOUSE_TEST(headers_that_count_may_be_there_once_and_short),
        HOUSE_TEST(old_and_closing_clients_are_closed_after_the_answer),
        HOUSE_TEST(slow_heads_and_idle_connections_time_out),
    };
    return cmocka_run_group_tests_name("gateway requests", tests, NULL, NULL);
}
