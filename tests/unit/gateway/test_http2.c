/* HTTP/2: the same requests and answers as over HTTP/1.1, many at once. */
#include "client2.h"

#include "gateway/state.h"

#include <sys/socket.h>
#include <unistd.h>

/* A cell awake; the first request of this client has been relayed to it. */
static int relayed_on(struct client2 *client, int32_t stream, struct relayed *ret)
{
    client2_request(client, stream, "GET", "/v1/memories", true);
    house_find(client->house, TENANT, 1);
    int cell = house_wake(client->house, TENANT);
    *ret = house_request(client->house, cell);
    return cell;
}

static void a_stream_carries_a_request_and_its_answer(void **state)
{
    struct client2 *client = client2_dial(*state);
    struct relayed relayed;
    int cell = relayed_on(client, 1, &relayed);
    assert_int_equal(relayed.flags, FLAG_END);
    assert_true(span_is(relayed.method, "GET"));
    assert_true(span_is(relayed.path, "/v1/memories"));
    assert_true(span_is(relayed.token, (const char *)client->house->token.data));
    cell_answer(cell, relayed.id, 200, "{\"data\":[]}");
    const struct frame *head = client2_await(client, NGHTTP2_HEADERS, 1);
    assert_int_equal(head->status, 200);
    assert_non_null(strstr(head->fields, "content-type: application/json\n"));
    assert_non_null(strstr(head->fields, "content-length: 11\n"));
    assert_non_null(strstr(head->fields, "traceparent: 00-"));
    assert_null(strstr(head->fields, "connection"));
    const struct frame *body = client2_await(client, NGHTTP2_DATA, 1);
    assert_true(span_is(body->payload, "{\"data\":[]}"));
    assert_int_equal(body->flags, NGHTTP2_FLAG_END_STREAM);
    close(cell);
    client2_close(client);
}

static void many_streams_are_answered_in_any_order(void **state)
{
    struct client2 *client = client2_dial(*state);
    struct house *house = client->house;
    struct relayed relayed[50];
    char body[16];
    int cell = relayed_on(client, 1, &relayed[0]);
    for (int i = 1; i < 50; i++) {
        client2_request(client, 1 + 2 * i, "GET", "/v1/memories", true);
        relayed[i] = house_request(house, cell);
    }
    for (int i = 49; i >= 0; i--) {
        snprintf(body, sizeof body, "%d", i);
        cell_answer(cell, relayed[i].id, 200, body);
        client2_expect(client, 1 + 2 * i, 200);
        assert_true(span_is(client2_await(client, NGHTTP2_DATA, 1 + 2 * i)->payload, body));
    }
    assert_true(house_quiet(house, house->control));
    close(cell);
    client2_close(client);
}

static void a_preface_in_pieces_is_one(void **state)
{
    struct house *house = *state;
    int fd = house_dial(house);
    for (const char *at = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"; *at; at++) {
        assert_true(house_silent(house, fd));
        house_say(house, fd, "%c", *at);
    }
    uint8_t settings[9];
    assert_int_equal(recv(fd, settings, sizeof settings, MSG_DONTWAIT), 9);
    assert_int_equal(settings[3], NGHTTP2_SETTINGS);
    close(fd);
}

static void what_only_begins_like_a_preface_is_a_bad_request(void **state)
{
    struct house *house = *state;
    static const char *const wrong[] = {
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\rX", "PRI * HTTP/2.1\r\n\r\nSM\r\n\r\n",
        "PRI / HTTP/2.0\r\n\r\nSM\r\n\r\n",
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        int fd = house_dial(house);
        house_say(house, fd, "%s", wrong[i]);
        house_expect(house, fd, 400, "bad_request");
        assert_true(house_closed(house, fd));
        close(fd);
    }
}

static void a_preface_behind_a_request_is_none(void **state)
{
    struct house *house = *state;
    int fd = house_dial(house);
    house_say(house, fd, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    house_expect(house, fd, 401, "unauthenticated");
    house_say(house, fd, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    house_expect(house, fd, 400, "bad_request");
    assert_true(house_closed(house, fd));
    close(fd);
}

static void the_operations_listener_speaks_http1_alone(void **state)
{
    struct house *house = *state;
    int fd = house_dial_ops(house);
    house_say(house, fd, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    house_expect(house, fd, 400, "bad_request");
    close(fd);
}

static void bodies_are_streamed_and_the_window_opens_as_the_cell_takes_them(void **state)
{
    struct client2 *client = client2_dial(*state);
    struct house *house = client->house;
    const size_t total = 400 * 1024;
    size_t sent = 0, taken = 0;
    client2_request(client, 1, "POST", "/v1/memories", false);
    while (sent + FRAME_MAX <= 65535 + client->stream_window) {
        client2_data(client, 1, FRAME_MAX, false);
        sent += FRAME_MAX;
    }
    house_find(house, TENANT, 1);
    while (recv(client->fd, &(uint8_t){0}, 1, MSG_DONTWAIT | MSG_PEEK) == 1) {
        assert_non_null(client2_read(client));
        while (sent + FRAME_MAX <= 65535 + client->stream_window) {
            client2_data(client, 1, FRAME_MAX, false);
            sent += FRAME_MAX;
        }
    }
    /* no cell takes anything yet: a fragment and a window, no more */
    assert_true(client->stream_window <= RELAY_FRAGMENT_MAX);
    assert_true(sent <= RELAY_FRAGMENT_MAX + 65535);
    int cell = house_wake(house, TENANT);
    struct relayed relayed = house_request(house, cell);
    uint32_t id = relayed.id;
    assert_int_equal(relayed.flags, 0);
    taken = relayed.fragment.length;
    for (bool end = false; !end;) {
        while (sent < total && sent + FRAME_MAX <= 65535 + client->stream_window) {
            client2_data(client, 1, FRAME_MAX, sent + FRAME_MAX == total);
            sent += FRAME_MAX;
        }
        struct ipc_message message;
        struct fault fault;
        while (!end && ipc_receive(&message, cell, house->storage, &fault) == OK) {
            assert_int_equal(message.type, MESSAGE_RELAY_BODY);
            end = message.body.data[0] & FLAG_END;
            taken += message.body.length - 5;
        }
        if (recv(client->fd, &(uint8_t){0}, 1, MSG_DONTWAIT | MSG_PEEK) == 1)
            assert_non_null(client2_read(client));
        house_turn(house);
    }
    assert_int_equal(taken, total);
    cell_answer(cell, id, 201, "{}");
    client2_expect(client, 1, 201);
    close(cell);
    client2_close(client);
}

static void a_client_that_opens_no_window_gets_no_more_than_a_head(void **state)
{
    struct client2 *client = client2_dial(*state);
    struct house *house = client->house;
    static const uint8_t no_window[] = {0, 4, 0, 0, 0, 0}, bytes[40000], open[] = {0, 0, 0xff, 0};
    struct relayed relayed;
    client2_frame(client, NGHTTP2_SETTINGS, 0, 0, SPAN_OF(no_window));
    int cell = relayed_on(client, 1, &relayed);
    size_t idle = house->gateway->memory;
    cell_respond(cell, relayed.id, FLAG_END, 200, SPAN("a/b"), (struct span){0}, sizeof bytes,
                 SPAN_OF(bytes));
    client2_expect(client, 1, 200);
    assert_null(client2_read(client));
    assert_true(house->gateway->memory >= sizeof bytes);
    assert_int_equal(house->gateway->relays->held, sizeof bytes);
    client2_frame(client, NGHTTP2_WINDOW_UPDATE, 0, 1, SPAN_OF(open));
    size_t got = 0;
    while (got < sizeof bytes)
        got += client2_await(client, NGHTTP2_DATA, 1)->payload.length;
    assert_int_equal(house->gateway->relays->held, 0);
    assert_true(house->gateway->memory <= idle + KIB(8));
    close(cell);
    client2_close(client);
}

static void an_answer_that_is_not_taken_is_dropped_in_time(void **state)
{
    struct client2 *client = client2_dial(*state);
    struct house *house = client->house;
    static const uint8_t no_window[] = {0, 4, 0, 0, 0, 0}, crumb[] = {0, 0, 0, 1}, bytes[40000];
    struct relayed relayed;
    client2_frame(client, NGHTTP2_SETTINGS, 0, 0, SPAN_OF(no_window));
    int cell = relayed_on(client, 1, &relayed);
    cell_respond(cell, relayed.id, FLAG_END, 200, SPAN("a/b"), (struct span){0}, sizeof bytes,
                 SPAN_OF(bytes));
    client2_expect(client, 1, 200);
    for (int i = 0; i < 2; i++) { /* a byte now and then is no progress */
        house_wait(house, 14000);
        client2_frame(client, NGHTTP2_WINDOW_UPDATE, 0, 1, SPAN_OF(crumb));
    }
    house_wait(house, 14000);
    client2_expect_reset(client, 1, NGHTTP2_CANCEL);
    assert_int_equal(house->gateway->relays->held, 0);
    close(cell);
    client2_close(client);
}

static void a_head_is_answered_without_a_body(void **state)
{
    struct client2 *client = client2_dial(*state);
    struct house *house = client->house;
    client2_request(client, 1, "HEAD", "/v1/memories", true);
    house_find(house, TENANT, 1);
    int cell = house_wake(house, TENANT);
    struct relayed relayed = house_request(house, cell);
    cell_answer(cell, relayed.id, 200, "{\"data\":[]}");
    const struct frame *head = client2_await(client, NGHTTP2_HEADERS, 1);
    assert_int_equal(head->status, 200);
    assert_true(head->flags & NGHTTP2_FLAG_END_STREAM);
    assert_non_null(strstr(head->fields, "content-length: 11\n"));
    assert_null(client2_read(client));
    close(cell);
    client2_close(client);
}

static void continue_is_said_when_the_body_is_wanted(void **state)
{
    struct client2 *client = client2_dial(*state);
    struct house *house = client->house;
    char bearer[TOKEN_MAX];
    snprintf(bearer, sizeof bearer, "Bearer %s", (const char *)house->token.data);
    const struct field2 fields[] = {{":method", "POST"},        {":scheme", "http"},
                                    {":path", "/v1/memories"},  {":authority", "x"},
                                    {"authorization", bearer},  {"expect", "100-continue"},
                                    {"content-type", "application/json"}};
    client2_fields(client, NGHTTP2_FLAG_END_HEADERS, 1, fields, 7);
    house_find(house, TENANT, 1);
    client2_expect(client, 1, 100);
    client2_data(client, 1, 10, true);
    int cell = house_wake(house, TENANT);
    struct relayed relayed = house_request(house, cell);
    assert_int_equal(relayed.fragment.length, 10);
    cell_answer(cell, relayed.id, 201, "{}");
    client2_expect(client, 1, 201);
    close(cell);
    client2_close(client);
}

static void trailers_are_dropped(void **state)
{
    struct client2 *client = client2_dial(*state);
    struct house *house = client->house;
    const struct field2 trailer[] = {{"authorization", "Bearer other"}, {"x-sum", "1"}};
    client2_request(client, 1, "POST", "/v1/memories", false);
    client2_data(client, 1, 5, false);
    client2_fields(client, NGHTTP2_FLAG_END_HEADERS | NGHTTP2_FLAG_END_STREAM, 1, trailer, 2);
    house_find(house, TENANT, 1);
    int cell = house_wake(house, TENANT);
    struct relayed relayed = house_request(house, cell);
    assert_int_equal(relayed.flags, FLAG_END);
    assert_int_equal(relayed.fragment.length, 5);
    assert_true(span_is(relayed.token, (const char *)house->token.data));
    close(cell);
    client2_close(client);
}

static void a_body_is_refused_before_it_comes_and_the_other_streams_go_on(void **state)
{
    struct client2 *client = client2_dial(*state);
    struct house *house = client->house;
    const struct field2 fields[] = {{":method", "POST"}, {":scheme", "http"}, {":path", "/x"},
                                    {":authority", "x"}, {"content-length", "1048577"}};
    client2_fields(client, NGHTTP2_FLAG_END_HEADERS, 1, fields, 5);
    client2_expect(client, 1, 401);
    struct relayed relayed;
    int cell = relayed_on(client, 3, &relayed);
    client2_data(client, 1, FRAME_MAX, false); /* still on its way */
    house_wait(house, 2100);
    client2_expect_reset(client, 1, NGHTTP2_NO_ERROR);
    cell_answer(cell, relayed.id, 200, "{}");
    client2_expect(client, 3, 200);
    close(cell);
    client2_close(client);
}

static void a_refused_body_is_dropped_within_bounds(void **state)
{
    struct client2 *client = client2_dial(*state);
    const struct field2 fields[] = {{":method", "POST"}, {":scheme", "http"}, {":path", "/x"},
                                    {":authority", "x"}, {"content-length", "1048577"}};
    size_t sent = 0;
    bool reset = false;
    client2_fields(client, NGHTTP2_FLAG_END_HEADERS, 1, fields, 5);
    client2_expect(client, 1, 401);
    while (!reset) {
        while (sent + FRAME_MAX <= 65535 + client->stream_window) {
            client2_data(client, 1, FRAME_MAX, false);
            sent += FRAME_MAX;
        }
        const struct frame *frame = client2_read(client);
        assert_non_null(frame);
        reset = frame->type == NGHTTP2_RST_STREAM;
    }
    assert_true(sent <= KIB(256) + 2 * 65536);
    client2_close(client);
}

static void a_cell_that_dies_ends_its_streams_alone(void **state)
{
    struct client2 *client = client2_dial(*state);
    struct house *house = client->house;
    struct relayed relayed;
    int cell = relayed_on(client, 1, &relayed);
    client2_request(client, 3, "GET", "/v1/memories", true);
    struct relayed second = house_request(house, cell);
    cell_respond(cell, relayed.id, 0, 200, SPAN("a/b"), (struct span){0}, 100, SPAN("begun"));
    client2_expect(client, 1, 200);
    (void)second;
    close(cell);
    const struct frame *frame;
    bool cut = false, told = false;
    while (!(cut && told) && (frame = client2_read(client))) {
        cut = cut || (frame->type == NGHTTP2_RST_STREAM && frame->stream == 1
                      && frame->code == NGHTTP2_INTERNAL_ERROR);
        told = told || (frame->type == NGHTTP2_HEADERS && frame->stream == 3
                        && frame->status == 503);
    }
    assert_true(cut && told);
    client2_request(client, 5, "GET", "/v1/memories", true);
    cell = house_wake(house, TENANT);
    relayed = house_request(house, cell);
    cell_answer(cell, relayed.id, 200, "{}");
    client2_expect(client, 5, 200);
    close(cell);
    client2_close(client);
}

static void a_stream_that_its_client_resets_is_cancelled(void **state)
{
    struct client2 *client = client2_dial(*state);
    struct relayed relayed;
    int cell = relayed_on(client, 1, &relayed);
    client2_reset(client, 1, NGHTTP2_CANCEL);
    struct ipc_message told = house_next(client->house, cell, MESSAGE_RELAY_CANCEL);
    assert_int_equal(told.id, relayed.id);
    cell_answer(cell, relayed.id, 200, "{}"); /* crosses it */
    for (const struct frame *frame; (frame = client2_read(client));)
        assert_int_equal(frame->stream, 0);
    close(cell);
    client2_close(client);
}

static void a_stop_says_goaway_and_lets_streams_finish(void **state)
{
    struct client2 *client = client2_dial(*state), *idle = client2_dial(*state);
    struct house *house = client->house;
    struct relayed relayed;
    status why;
    int cell = relayed_on(client, 1, &relayed);
    cell_send(house->supervisor, MESSAGE_STOP, 0, (struct span){0});
    client2_expect_end(idle, NGHTTP2_NO_ERROR);
    client2_close(idle);
    assert_int_equal(client2_await(client, NGHTTP2_GOAWAY, 0)->code, NGHTTP2_NO_ERROR);
    client2_request(client, 3, "GET", "/v1/memories", true); /* too late: never taken */
    assert_true(house_quiet(house, cell));
    assert_false(house_ended(house, &why));
    cell_answer(cell, relayed.id, 200, "{}");
    client2_expect(client, 1, 200);
    assert_true(house_closed(house, client->fd));
    client2_close(client);
    assert_true(house_ended(house, &why));
    assert_int_equal(why, OK);
    close(cell);
}

static void clocks_run_for_each_stream(void **state)
{
    struct client2 *client = client2_dial(*state);
    struct house *house = client->house;
    struct relayed relayed;
    int cell = relayed_on(client, 1, &relayed);
    client2_request(client, 3, "POST", "/v1/memories", false);
    client2_data(client, 3, 100, false);
    house_wait(house, 30100);
    client2_expect(client, 3, 408);
    house_wait(house, 30100);
    client2_expect(client, 1, 503);
    close(cell);
    client2_close(client);
}

#define HOUSE_TEST(name) cmocka_unit_test_setup_teardown(name, house_setup, house_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        HOUSE_TEST(a_stream_carries_a_request_and_its_answer),
        HOUSE_TEST(many_streams_are_answered_in_any_order),
        HOUSE_TEST(a_preface_in_pieces_is_one),
        HOUSE_TEST(what_only_begins_like_a_preface_is_a_bad_request),
        HOUSE_TEST(a_preface_behind_a_request_is_none),
        HOUSE_TEST(the_operations_listener_speaks_http1_alone),
        HOUSE_TEST(bodies_are_streamed_and_the_window_opens_as_the_cell_takes_them),
        HOUSE_TEST(a_client_that_opens_no_window_gets_no_more_than_a_head),
        HOUSE_TEST(an_answer_that_is_not_taken_is_dropped_in_time),
        HOUSE_TEST(a_head_is_answered_without_a_body),
        HOUSE_TEST(continue_is_said_when_the_body_is_wanted),
        HOUSE_TEST(trailers_are_dropped),
        HOUSE_TEST(a_body_is_refused_before_it_comes_and_the_other_streams_go_on),
        HOUSE_TEST(a_refused_body_is_dropped_within_bounds),
        HOUSE_TEST(a_cell_that_dies_ends_its_streams_alone),
        HOUSE_TEST(a_stream_that_its_client_resets_is_cancelled),
        HOUSE_TEST(a_stop_says_goaway_and_lets_streams_finish),
        HOUSE_TEST(clocks_run_for_each_stream),
    };
    return cmocka_run_group_tests_name("gateway http2", tests, NULL, NULL);
}
