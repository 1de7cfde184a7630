/* Bodies that stream, in and out, over HTTP/2. */
#include "client2.h"

#include "gateway/state.h"

#include <sys/socket.h>
#include <unistd.h>

static uint8_t bytes[RELAY_FRAGMENT_MAX];

static int ask_first(struct client2 *client, const char *method, const char *path, bool end,
                     struct relayed *ret)
{
    client2_request(client, 1, method, path, end);
    house_find(client->house, TENANT, 1);
    int cell = house_wake(client->house, TENANT);
    *ret = house_request(client->house, cell);
    return cell;
}

static void begin_answer(int cell, uint32_t id, uint64_t length, const char *text)
{
    cell_respond(cell, id, 0, 200, SPAN("a/b"), (struct span){0}, length, span_of_text(text));
}

static void a_batch_is_answered_line_by_line_while_it_comes(void **state)
{
    struct client2 *client = client2_dial(*state);
    struct house *house = client->house;
    struct relayed relayed;
    int cell = ask_first(client, "POST", "/v1/streams", false, &relayed);
    assert_int_equal(relayed.flags, 0);
    assert_int_equal(relayed.length, -1);
    client2_frame(client, NGHTTP2_DATA, 0, 1, SPAN("one\n"));
    struct ipc_message message = house_next(house, cell, MESSAGE_RELAY_BODY);
    assert_int_equal(message.body.length, 5 + 4);
    begin_answer(cell, relayed.id, RELAY_LENGTH_UNKNOWN, "1\n");
    const struct frame *frame = client2_await(client, NGHTTP2_HEADERS, 1);
    assert_int_equal(frame->status, 200);
    assert_null(strstr(frame->fields, "content-length"));
    assert_null(strstr(frame->fields, "transfer-encoding"));
    assert_true(span_is(client2_await(client, NGHTTP2_DATA, 1)->payload, "1\n"));
    client2_frame(client, NGHTTP2_DATA, NGHTTP2_FLAG_END_STREAM, 1, SPAN("two\n"));
    message = house_next(house, cell, MESSAGE_RELAY_BODY);
    assert_int_equal(message.body.data[0], FLAG_END);
    cell_more(cell, relayed.id, 0, SPAN("2\n"));
    frame = client2_await(client, NGHTTP2_DATA, 1);
    assert_true(span_is(frame->payload, "2\n"));
    assert_int_equal(frame->flags, 0);
    cell_more(cell, relayed.id, FLAG_END, (struct span){0});
    frame = client2_await(client, NGHTTP2_DATA, 1);
    assert_int_equal(frame->payload.length, 0);
    assert_int_equal(frame->flags, NGHTTP2_FLAG_END_STREAM);
    close(cell);
    client2_close(client);
}

static void an_answer_before_the_end_of_the_body_reaches_its_client(void **state)
{
    struct client2 *client = client2_dial(*state);
    struct house *house = client->house;
    struct relayed relayed;
    int cell = ask_first(client, "PUT", "/v1/streams/a", false, &relayed);
    cell_answer(cell, relayed.id, 412, "{}");
    assert_int_equal(client2_await(client, NGHTTP2_HEADERS, 1)->status, 412);
    const struct frame *frame = client2_await(client, NGHTTP2_DATA, 1);
    assert_int_equal(frame->flags, NGHTTP2_FLAG_END_STREAM);
    assert_int_equal(house_next(house, cell, MESSAGE_RELAY_CANCEL).id, relayed.id);
    client2_data(client, 1, FRAME_MAX, false); /* it did not know */
    house_wait(house, 2100);
    client2_expect_reset(client, 1, NGHTTP2_NO_ERROR);
    client2_request(client, 3, "GET", "/v1/streams/a", true);
    house_find(house, TENANT, 1);
    cell_answer(cell, house_request(house, cell).id, 404, "{}");
    client2_expect(client, 3, 404);
    close(cell);
    client2_close(client);
}

static void a_body_of_another_length_than_was_said_never_ends_at_the_cell(void **state)
{
    struct client2 *client = client2_dial(*state);
    struct house *house = client->house;
    char bearer[TOKEN_MAX];
    int cell = -1;
    snprintf(bearer, sizeof bearer, "Bearer %s", (const char *)house->token.data);
    const struct field2 fields[] = {{":method", "PUT"}, {":scheme", "http"},
                                    {":path", "/v1/streams/a"}, {":authority", "x"},
                                    {"authorization", bearer}, {"content-length", "10"}};
    const struct field2 trailer[] = {{"x-sum", "1"}};
    for (int i = 0; i < 3; i++) {
        int32_t stream = 1 + 2 * i;
        client2_fields(client, NGHTTP2_FLAG_END_HEADERS, stream, fields, 6);
        if (i == 0) {
            house_find(house, TENANT, 1);
            cell = house_wake(house, TENANT);
        }
        struct relayed relayed = house_request(house, cell);
        assert_int_equal(relayed.length, 10);
        client2_data(client, stream, i == 1 ? 11 : 9, i == 0);
        if (i == 2)
            client2_fields(client, NGHTTP2_FLAG_END_HEADERS | NGHTTP2_FLAG_END_STREAM, stream,
                           trailer, 1);
        client2_expect_reset(client, stream, NGHTTP2_PROTOCOL_ERROR);
        struct ipc_message message;
        struct fault fault;
        do {
            assert_int_equal(ipc_receive(&message, cell, house->storage, &fault), OK);
            if (message.type == MESSAGE_RELAY_BODY)
                assert_int_equal(message.body.data[0], 0);
        } while (message.type == MESSAGE_RELAY_BODY);
        assert_int_equal(message.type, MESSAGE_RELAY_CANCEL);
    }
    close(cell);
    client2_close(client);
}

static void an_answer_that_breaks_off_is_reset(void **state)
{
    struct client2 *client = client2_dial(*state);
    struct house *house = client->house;
    struct relayed relayed;
    int cell = ask_first(client, "GET", "/v1/streams/a", true, &relayed);
    begin_answer(cell, relayed.id, RELAY_LENGTH_UNKNOWN, "begun");
    client2_expect(client, 1, 200);
    cell_send(cell, MESSAGE_RELAY_BREAK, relayed.id, (struct span){0});
    client2_expect_reset(client, 1, NGHTTP2_INTERNAL_ERROR);
    client2_request(client, 3, "GET", "/v1/streams/a", true);
    cell_answer(cell, house_request(house, cell).id, 404, "{}");
    client2_expect(client, 3, 404);
    close(cell);
    client2_close(client);
}

static void credit_is_given_as_the_window_is_used(void **state)
{
    struct client2 *client = client2_dial(*state);
    struct house *house = client->house;
    static const uint8_t open[] = {0, 8, 0, 0};
    struct relayed relayed;
    struct ipc_message message;
    struct fault fault;
    int cell = ask_first(client, "GET", "/v1/streams/a", true, &relayed);
    begin_answer(cell, relayed.id, MIB(100), "");
    client2_expect(client, 1, 200);
    for (uint32_t sent = 0; sent < RELAY_WINDOW;) {
        uint32_t piece = RELAY_WINDOW - sent < sizeof bytes ? RELAY_WINDOW - sent
                                                            : (uint32_t)sizeof bytes;
        cell_more(cell, relayed.id, 0, (struct span){bytes, piece});
        house_turn(house);
        sent += piece;
    }
    assert_true(house_quiet(house, cell)); /* 64 KiB were taken: not worth a message */
    assert_int_equal(house->gateway->relays->streamed, RELAY_WINDOW - 65535);
    client2_request(client, 3, "GET", "/v1/memories", true); /* nobody waits for it */
    uint32_t other = house_request(house, cell).id;
    cell_answer(cell, other, 200, "");
    client2_frame(client, NGHTTP2_WINDOW_UPDATE, 0, 1, SPAN_OF(open));
    client2_frame(client, NGHTTP2_WINDOW_UPDATE, 0, 0, SPAN_OF(open));
    size_t got = 0;
    while (got < RELAY_WINDOW) {
        const struct frame *frame = client2_read(client);
        assert_non_null(frame);
        if (frame->type == NGHTTP2_DATA && frame->stream == 1)
            got += frame->payload.length;
    }
    uint64_t credit = 0;
    while (ipc_receive(&message, cell, house->storage, &fault) == OK) {
        struct cursor cursor = cursor_over(message.body);
        uint32_t more;
        assert_int_equal(message.type, MESSAGE_RELAY_CREDIT);
        assert_int_equal(cursor_u32(&more, &cursor, &fault), OK);
        credit += more;
    }
    assert_in_range(credit, RELAY_WINDOW / 2, RELAY_WINDOW);
    client2_reset(client, 1, NGHTTP2_CANCEL);
    assert_int_equal(house_next(house, cell, MESSAGE_RELAY_CANCEL).id, relayed.id);
    assert_int_equal(house->gateway->relays->streamed, 0);
    close(cell);
    client2_close(client);
}

static void a_cell_that_dies_resets_what_it_was_giving(void **state)
{
    struct client2 *client = client2_dial(*state);
    struct relayed relayed;
    int cell = ask_first(client, "POST", "/v1/streams", false, &relayed);
    begin_answer(cell, relayed.id, RELAY_LENGTH_UNKNOWN, "1\n");
    client2_expect(client, 1, 200);
    close(cell);
    client2_expect_reset(client, 1, NGHTTP2_INTERNAL_ERROR);
    client2_close(client);
}

#define HOUSE_TEST(name) cmocka_unit_test_setup_teardown(name, house_setup, house_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        HOUSE_TEST(a_batch_is_answered_line_by_line_while_it_comes),
        HOUSE_TEST(an_answer_before_the_end_of_the_body_reaches_its_client),
        HOUSE_TEST(a_body_of_another_length_than_was_said_never_ends_at_the_cell),
        HOUSE_TEST(an_answer_that_breaks_off_is_reset),
        HOUSE_TEST(credit_is_given_as_the_window_is_used),
        HOUSE_TEST(a_cell_that_dies_resets_what_it_was_giving),
    };
    return cmocka_run_group_tests_name("gateway http2 streams", tests, NULL, NULL);
}
