/* Bodies that stream, in and out, over HTTP/1.1. */
#include "house.h"

#include "gateway/state.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

static uint8_t bytes[RELAY_FRAGMENT_MAX];

static void ask(struct house *house, int client, const char *line, const char *headers)
{
    house_say(house, client, "%s\r\nHost: x\r\nAuthorization: Bearer %s\r\n%s\r\n", line,
              (const char *)house->token.data, headers);
}

/* The same, with a cell awake for the first: its end. */
static int ask_first(struct house *house, int client, const char *line, const char *headers,
                     struct relayed *ret)
{
    ask(house, client, line, headers);
    house_find(house, TENANT, 1);
    int cell = house_wake(house, TENANT);
    *ret = house_request(house, cell);
    return cell;
}

static const char put[] = "PUT /v1/streams/a HTTP/1.1", get[] = "GET /v1/streams/a HTTP/1.1";
static const char post[] = "POST /v1/streams HTTP/1.1";
static const char chunked[] = "Transfer-Encoding: chunked\r\n";

/* What has come of the body; false when nothing more does. ret_end: with the last. */
static bool next_body(struct house *house, int cell, uint32_t id, size_t *ret_length,
                      bool *ret_end)
{
    struct ipc_message message;
    struct cursor cursor;
    struct span fragment;
    struct fault fault;
    uint8_t flags;
    house_turn(house);
    if (ipc_receive(&message, cell, house->storage, &fault) != OK)
        return false;
    assert_int_equal(message.type, MESSAGE_RELAY_BODY);
    assert_int_equal(message.id, id);
    cursor = cursor_over(message.body);
    assert_int_equal(cursor_u8(&flags, &cursor, &fault), OK);
    assert_int_equal(cursor_field(&fragment, &cursor, RELAY_FRAGMENT_MAX, "", &fault), OK);
    assert_int_equal(cursor_end(&cursor, &fault), OK);
    assert_true(fragment.length > 0 || flags & FLAG_END);
    *ret_length += fragment.length;
    *ret_end = flags & FLAG_END;
    return true;
}

/* By a reset: an end would wait behind what was not read yet. */
static void hang_up(int client)
{
    const struct linger none = {.l_onoff = 1};
    assert_int_equal(setsockopt(client, SOL_SOCKET, SO_LINGER, &none, sizeof none), 0);
    close(client);
}

/* The next message that is no credit. */
static struct ipc_message await(struct house *house, int cell, uint32_t type)
{
    struct ipc_message message;
    struct fault fault;
    house_turn(house);
    do
        assert_int_equal(ipc_receive(&message, cell, house->storage, &fault), OK);
    while (message.type == MESSAGE_RELAY_CREDIT);
    assert_int_equal(message.type, type);
    return message;
}

static void expect_line(struct house *house, int cell, uint32_t id, const char *line)
{
    struct ipc_message message = house_next(house, cell, MESSAGE_RELAY_BODY);
    assert_int_equal(message.id, id);
    assert_true(message.body.length > 5);
    assert_true(span_is((struct span){message.body.data + 5, message.body.length - 5}, line));
}

static void expect_cancel(struct house *house, int cell, uint32_t id)
{
    assert_int_equal(house_next(house, cell, MESSAGE_RELAY_CANCEL).id, id);
}

static void begin_answer(int cell, uint32_t id, uint64_t length, const char *text)
{
    cell_respond(cell, id, 0, 200, SPAN("a/b"), (struct span){0}, length, span_of_text(text));
}

/* ---- in ---- */

static void the_cell_hears_of_a_streamed_request_before_its_body(void **state)
{
    struct house *house = *state;
    struct relayed relayed;
    int client = house_dial(house);
    int cell = ask_first(house, client, put, "Content-Length: 5368709120\r\n", &relayed);
    assert_int_equal(relayed.flags, 0);
    assert_int_equal(relayed.fragment.length, 0);
    assert_int_equal(relayed.length, INT64_C(5368709120));
    close(client);
    expect_cancel(house, cell, relayed.id);
    client = house_dial(house);
    ask(house, client, put, chunked);
    assert_int_equal(house_request(house, cell).length, -1);
    close(client);
    close(cell);
}

static void a_streamed_body_keeps_to_the_window_and_its_credit(void **state)
{
    struct house *house = *state;
    struct relayed relayed;
    size_t came = 0, sent = 0;
    bool end = false;
    int client = house_dial(house);
    int cell = ask_first(house, client, put, "Content-Length: 5368709120\r\n", &relayed);
    while (send(client, bytes, sizeof bytes, MSG_DONTWAIT) > 0 || sent < RELAY_WINDOW) {
        sent += sizeof bytes;
        house_turn(house);
        while (next_body(house, cell, relayed.id, &came, &end))
            assert_false(end);
        assert_true(sent < MIB(64)); /* the client is held back */
    }
    assert_int_equal(came, RELAY_WINDOW);
    assert_true(house->gateway->memory <= KIB(256));
    cell_credit(cell, relayed.id, 100);
    while (next_body(house, cell, relayed.id, &came, &end))
        ;
    assert_int_equal(came, RELAY_WINDOW + 100);
    cell_credit(cell, relayed.id, RELAY_WINDOW);
    while (next_body(house, cell, relayed.id, &came, &end))
        ;
    assert_int_equal(came, 2 * RELAY_WINDOW + 100);
    hang_up(client);
    expect_cancel(house, cell, relayed.id);
    close(cell);
}

static void a_streamed_body_of_any_size_arrives_whole(void **state)
{
    struct house *house = *state;
    const size_t total = MIB(9) + 7;
    for (int i = 0; i < 2; i++) {
        struct relayed relayed;
        char length[64];
        size_t came = 0;
        bool end = false;
        int client = house_dial(house), cell;
        snprintf(length, sizeof length, "Content-Length: %zu\r\n", total);
        ask(house, client, put, i ? chunked : length);
        if (i == 0)
            house_find(house, TENANT, 1);
        cell = house_wake(house, TENANT);
        relayed = house_request(house, cell);
        for (size_t at = 0; at < total;) {
            size_t piece = total - at < 50000 ? total - at : 50000, before = came;
            if (i)
                house_say(house, client, "%zx\r\n", piece);
            house_write(house, client, (struct span){bytes, piece});
            if (i)
                house_say(house, client, "\r\n");
            at += piece;
            while (next_body(house, cell, relayed.id, &came, &end))
                ;
            if (came > before)
                cell_credit(cell, relayed.id, (uint32_t)(came - before));
        }
        if (i)
            house_say(house, client, "0\r\n\r\n");
        while (!end && next_body(house, cell, relayed.id, &came, &end))
            ;
        assert_true(end);
        assert_int_equal(came, total);
        cell_answer(cell, relayed.id, 201, "{}");
        house_expect(house, client, 201, NULL);
        assert_true(house_silent(house, client));
        close(client);
        close(cell);
    }
}

static const struct {
    const char *name;
    uint32_t id_offset;
    struct span body;
    bool other; /* of a stream that does not stream in */
} wrong_credits[] = {
    {"none at all", 0, {(const uint8_t *)"\0\0\0\0", 4}, false},
    {"more than was sent", 0, {(const uint8_t *)"\0\0\0\5", 4}, false},
    {"of 4 GiB", 0, {(const uint8_t *)"\377\377\377\377", 4}, false},
    {"cut off", 0, {(const uint8_t *)"\0\0\1", 3}, false},
    {"with surplus", 0, {(const uint8_t *)"\0\0\0\1\0", 5}, false},
    {"for a stream that is to come", 1, {(const uint8_t *)"\0\0\0\1", 4}, false},
    {"for a body that is whole", 0, {(const uint8_t *)"\0\0\0\1", 4}, true},
};

static void credit_that_a_cell_cannot_give_ends_its_relay(void **state)
{
    struct house *house = *state;
    int client = house_dial(house);
    for (size_t i = 0; i < sizeof wrong_credits / sizeof *wrong_credits; i++) {
        ask(house, client, wrong_credits[i].other ? get : put,
            wrong_credits[i].other ? "" : "Content-Length: 4\r\n\r\n1234");
        if (i == 0)
            house_find(house, TENANT, 1);
        int cell = house_wake(house, TENANT);
        struct relayed relayed = house_request(house, cell);
        cell_send(cell, MESSAGE_RELAY_CREDIT, relayed.id + wrong_credits[i].id_offset,
                  wrong_credits[i].body);
        if (!house_closed(house, cell))
            fail_msg("credit %s was taken", wrong_credits[i].name);
        house_expect(house, client, 503, "unavailable");
        close(cell);
    }
    close(client);
}

static void credit_for_a_stream_that_is_over_means_nothing(void **state)
{
    struct house *house = *state;
    struct relayed relayed;
    int client = house_dial(house);
    int cell = ask_first(house, client, put, "Content-Length: 4\r\n\r\n1234", &relayed);
    cell_answer(cell, relayed.id, 201, "{}");
    house_expect(house, client, 201, NULL);
    cell_credit(cell, relayed.id, 4);
    house_get(house, client, "/v1/memories");
    cell_answer(cell, house_request(house, cell).id, 200, "{}");
    house_expect(house, client, 200, NULL);
    close(client);
    close(cell);
}

static void an_answer_before_the_end_of_the_body_reaches_its_client(void **state)
{
    struct house *house = *state;
    struct relayed relayed;
    int client = house_dial(house);
    int cell = ask_first(house, client, put, "Content-Length: 1000000000\r\n", &relayed);
    house_say(house, client, "begun");
    cell_answer(cell, relayed.id, 412, "{}");
    const struct reply *reply = house_reply(house, client);
    assert_int_equal(reply->status, 412);
    assert_string_equal(reply_header(reply, "Connection"), "close");
    expect_line(house, cell, relayed.id, "begun");
    expect_cancel(house, cell, relayed.id);
    house_write(house, client, SPAN_OF(bytes)); /* is read, so that the answer is not lost */
    assert_true(house_closed(house, client));
    close(client);
    assert_true(house_quiet(house, cell));
    close(cell);
}

static void a_short_rest_of_a_body_does_not_cost_the_connection(void **state)
{
    struct house *house = *state;
    struct relayed relayed;
    int client = house_dial(house);
    int cell = ask_first(house, client, put, "Content-Length: 10\r\n", &relayed);
    cell_answer(cell, relayed.id, 412, "{}");
    assert_null(reply_header(house_reply(house, client), "Connection"));
    expect_cancel(house, cell, relayed.id);
    house_say(house, client, "0123456789");
    ask(house, client, get, "");
    cell_answer(cell, house_request(house, cell).id, 404, "{}");
    house_expect(house, client, 404, NULL);
    close(client);
    close(cell);
}

static void continue_is_said_once_the_cell_is_there(void **state)
{
    struct house *house = *state;
    int client = house_dial(house);
    ask(house, client, put, "Content-Length: 5\r\nExpect: 100-continue\r\n");
    house_find(house, TENANT, 1);
    assert_true(house_silent(house, client));
    int cell = house_wake(house, TENANT);
    struct relayed relayed = house_request(house, cell);
    assert_int_equal(house_reply(house, client)->status, 100);
    house_say(house, client, "12345");
    expect_line(house, cell, relayed.id, "12345");
    cell_answer(cell, relayed.id, 201, "{}");
    house_expect(house, client, 201, NULL);
    assert_true(house_silent(house, client));
    close(client);
    close(cell);
}

static void a_chunked_body_ends_where_it_passes_what_the_action_takes(void **state)
{
    struct house *house = *state;
    struct relayed relayed;
    size_t came = 0;
    bool end = false;
    int client = house_dial(house);
    int cell = ask_first(house, client, post, chunked, &relayed);
    for (size_t sent = 0; sent + KIB(32) <= STREAM_BATCH_MAX; sent += KIB(32)) {
        house_say(house, client, "8000\r\n");
        house_write(house, client, (struct span){bytes, KIB(32)});
        house_say(house, client, "\r\n");
        size_t before = came;
        while (next_body(house, cell, relayed.id, &came, &end))
            ;
        if (came > before)
            cell_credit(cell, relayed.id, (uint32_t)(came - before));
    }
    assert_int_equal(came, STREAM_BATCH_MAX);
    house_say(house, client, "1\r\n");
    house_expect(house, client, 413, "too_large");
    assert_true(house_closed(house, client));
    expect_cancel(house, cell, relayed.id);
    close(client);
    close(cell);
}

/* ---- both ---- */

static void a_batch_is_answered_line_by_line_while_it_comes(void **state)
{
    struct house *house = *state;
    struct relayed relayed;
    int client = house_dial(house);
    int cell = ask_first(house, client, post, chunked, &relayed);
    house_say(house, client, "4\r\none\n\r\n");
    expect_line(house, cell, relayed.id, "one\n");
    begin_answer(cell, relayed.id, RELAY_LENGTH_UNKNOWN, "1\n");
    const struct reply *reply = house_reply(house, client);
    assert_int_equal(reply->status, 200);
    assert_string_equal(reply_header(reply, "Transfer-Encoding"), "chunked");
    assert_null(reply_header(reply, "Content-Length"));
    house_read(house, client, "2\r\n1\n\r\n");
    house_say(house, client, "4\r\ntwo\n\r\n");
    expect_line(house, cell, relayed.id, "two\n");
    cell_more(cell, relayed.id, 0, SPAN("2 is fine\n"));
    house_read(house, client, "a\r\n2 is fine\n\r\n");
    house_say(house, client, "0\r\n\r\n");
    assert_int_equal(house_next(house, cell, MESSAGE_RELAY_BODY).body.data[0], FLAG_END);
    cell_more(cell, relayed.id, FLAG_END, (struct span){0});
    house_read(house, client, "0\r\n\r\n");
    ask(house, client, get, ""); /* the connection is in step */
    cell_answer(cell, house_request(house, cell).id, 404, "{}");
    house_expect(house, client, 404, NULL);
    close(client);
    close(cell);
}

static void an_answer_that_ends_first_is_whole_and_the_connection_is_closed(void **state)
{
    struct house *house = *state;
    struct relayed relayed;
    int client = house_dial(house);
    int cell = ask_first(house, client, post, chunked, &relayed);
    begin_answer(cell, relayed.id, RELAY_LENGTH_UNKNOWN, "");
    assert_int_equal(house_reply(house, client)->status, 200);
    cell_more(cell, relayed.id, FLAG_END, SPAN("enough\n"));
    house_read(house, client, "7\r\nenough\n\r\n0\r\n\r\n");
    expect_cancel(house, cell, relayed.id);
    assert_true(house_closed(house, client));
    close(client);
    cell_send(cell, MESSAGE_RELAY_DRAIN, 0, (struct span){0}); /* the relay is well */
    house_next(house, cell, MESSAGE_RELAY_DRAINED);
    close(cell);
}

static void a_client_that_leaves_a_batch_cancels_it(void **state)
{
    struct house *house = *state;
    struct relayed relayed;
    int client = house_dial(house);
    int cell = ask_first(house, client, post, chunked, &relayed);
    begin_answer(cell, relayed.id, RELAY_LENGTH_UNKNOWN, "1\n");
    assert_int_equal(house_reply(house, client)->status, 200);
    close(client);
    expect_cancel(house, cell, relayed.id);
    cell_more(cell, relayed.id, 0, SPAN("crossed\n"));
    cell_credit(cell, relayed.id, 1); /* nothing was sent: even now */
    assert_true(house_closed(house, cell));
    close(cell);
}

/* ---- out ---- */

static int dial_with_little_room(struct house *house)
{
    const int room = 4096; /* or the kernel would take megabytes for a client that reads none */
    int client = house_dial(house);
    assert_int_equal(setsockopt(client, SOL_SOCKET, SO_RCVBUF, &room, sizeof room), 0);
    return client;
}

/* Sends a window full, less what went before. */
static void fill_window(struct house *house, int cell, uint32_t id, size_t before)
{
    for (size_t sent = before; sent < RELAY_WINDOW;) {
        size_t piece = RELAY_WINDOW - sent < sizeof bytes ? RELAY_WINDOW - sent : sizeof bytes;
        cell_more(cell, id, 0, (struct span){bytes, piece});
        house_turn(house);
        sent += piece;
    }
}

/* All credit that has come. */
static uint64_t take_credit(struct house *house, int cell, uint32_t id)
{
    struct ipc_message message;
    struct fault fault;
    uint64_t total = 0;
    house_turn(house);
    while (ipc_receive(&message, cell, house->storage, &fault) == OK) {
        struct cursor cursor = cursor_over(message.body);
        uint32_t credit;
        assert_int_equal(message.type, MESSAGE_RELAY_CREDIT);
        assert_int_equal(message.id, id);
        assert_int_equal(cursor_u32(&credit, &cursor, &fault), OK);
        assert_int_equal(cursor_end(&cursor, &fault), OK);
        assert_true(credit > 0);
        total += credit;
    }
    return total;
}

static void an_answer_of_any_size_arrives_whole_as_fast_as_it_is_taken(void **state)
{
    struct house *house = *state;
    struct relayed relayed;
    const uint64_t total = MIB(20);
    uint64_t left = total, credit = RELAY_WINDOW, got = 0;
    int client = house_dial(house);
    int cell = ask_first(house, client, get, "", &relayed);
    cell_respond(cell, relayed.id, 0, 200, SPAN("a/b"), (struct span){0}, total,
                 (struct span){0});
    while (left > 0) {
        uint64_t piece = sizeof bytes < left ? sizeof bytes : left;
        if (piece > credit)
            piece = credit;
        assert_true(piece > 0); /* the client takes all: credit never ends */
        left -= piece;
        credit -= piece;
        cell_more(cell, relayed.id, left ? 0 : FLAG_END, (struct span){bytes, (size_t)piece});
        got += house_drink(house, client);
        if (left)
            credit += take_credit(house, cell, relayed.id);
    }
    got += house_drink(house, client);
    assert_true(got > total && got < total + 1024);
    ask(house, client, get, "");
    cell_answer(cell, house_request(house, cell).id, 404, "{}");
    house_expect(house, client, 404, NULL);
    close(client);
    close(cell);
}

static void a_client_that_takes_nothing_costs_a_window_and_nobody_else(void **state)
{
    enum { CLIENTS = 20 };
    struct house *house = *state;
    struct relayed relayed;
    uint32_t ids[CLIENTS];
    int clients[CLIENTS], cell = -1;
    for (int i = 0; i < CLIENTS; i++) {
        clients[i] = dial_with_little_room(house);
        if (i == 0)
            cell = ask_first(house, clients[i], get, "", &relayed);
        else
            ask(house, clients[i], get, "");
        ids[i] = i ? await(house, cell, MESSAGE_RELAY_REQUEST).id : relayed.id;
        begin_answer(cell, ids[i], 1u << 30, "");
        fill_window(house, cell, ids[i], 0);
    }
    assert_true(house->gateway->relays->streamed <= CLIENTS * (RELAY_WINDOW + 1024));
    assert_int_equal(house->gateway->relays->held, 0);
    assert_false(house->gateway->relays->paused);
    assert_true(house->gateway->memory <= CLIENTS * (2 * RELAY_WINDOW + KIB(64)));
    int other = house_dial(house);
    house_get(house, other, "/v1/memories");
    cell_answer(cell, await(house, cell, MESSAGE_RELAY_REQUEST).id, 200, "{}");
    house_expect(house, other, 200, NULL);
    close(other);
    house_wait(house, 30001);
    house_wait(house, 30001); /* no progress: they are let go */
    assert_int_equal(house->stats->slots[1].connections_open, 0);
    assert_int_equal(house->gateway->relays->streamed, 0);
    for (int i = 0; i < CLIENTS; i++)
        close(clients[i]);
    close(cell);
}

static void bytes_beyond_the_credit_end_the_relay(void **state)
{
    struct house *house = *state;
    struct relayed relayed;
    int client = dial_with_little_room(house);
    int cell = ask_first(house, client, get, "", &relayed);
    begin_answer(cell, relayed.id, 1u << 30, "");
    fill_window(house, cell, relayed.id, 0);
    uint64_t credit;
    while ((credit = take_credit(house, cell, relayed.id)) > 0) /* the kernel takes some, too */
        fill_window(house, cell, relayed.id, RELAY_WINDOW - (size_t)credit);
    cell_more(cell, relayed.id, 0, SPAN("x"));
    assert_true(house_closed(house, cell));
    assert_int_equal(house->stats->slots[1].connections_open, 0);
    close(client);
    close(cell);
}

static void an_answer_that_breaks_off_is_not_taken_for_a_whole_one(void **state)
{
    struct house *house = *state;
    for (int i = 0; i < 2; i++) {
        int client = house_dial(house);
        ask(house, client, get, "");
        if (i == 0)
            house_find(house, TENANT, 1);
        int cell = house_wake(house, TENANT);
        uint32_t id = house_request(house, cell).id;
        begin_answer(cell, id, i ? 100 : RELAY_LENGTH_UNKNOWN, "begun");
        house_turn(house);
        cell_send(cell, MESSAGE_RELAY_BREAK, id, (struct span){0});
        assert_true(house_drink(house, client) > 0);
        assert_true(house_closed(house, client)); /* without the last chunk, or 95 bytes short */
        cell_send(cell, MESSAGE_RELAY_DRAIN, 0, (struct span){0}); /* the relay is well */
        house_next(house, cell, MESSAGE_RELAY_DRAINED);
        close(client);
        close(cell);
    }
}

static void a_client_of_http_1_0_sees_the_difference_too(void **state)
{
    struct house *house = *state;
    for (int i = 0; i < 2; i++) {
        int client = house_dial(house);
        uint8_t byte;
        ask(house, client, "GET /v1/streams/a HTTP/1.0", "");
        if (i == 0)
            house_find(house, TENANT, 1);
        int cell = house_wake(house, TENANT);
        uint32_t id = house_request(house, cell).id;
        begin_answer(cell, id, RELAY_LENGTH_UNKNOWN, "begun");
        const struct reply *reply = house_reply(house, client);
        assert_null(reply_header(reply, "Transfer-Encoding"));
        assert_null(reply_header(reply, "Content-Length"));
        assert_string_equal(reply_header(reply, "Connection"), "close");
        house_read(house, client, "begun");
        if (i)
            cell_more(cell, id, FLAG_END, (struct span){0});
        else
            cell_send(cell, MESSAGE_RELAY_BREAK, id, (struct span){0});
        house_turn(house);
        ssize_t got = recv(client, &byte, 1, MSG_DONTWAIT);
        assert_int_equal(got, i ? 0 : -1);
        if (!i)
            assert_int_equal(errno, ECONNRESET);
        close(client);
        close(cell);
    }
}

static void a_break_out_of_turn_ends_the_relay(void **state)
{
    struct house *house = *state;
    for (int what = 0; what < 4; what++) {
        int client = house_dial(house);
        ask(house, client, what == 2 ? "GET /v1/memories HTTP/1.1" : get, "");
        if (what == 0)
            house_find(house, TENANT, 1);
        int cell = house_wake(house, TENANT);
        uint32_t id = house_request(house, cell).id;
        if (what > 0)
            begin_answer(cell, id, 100, "begun");
        cell_send(cell, MESSAGE_RELAY_BREAK, what == 1 ? id + 1 : id,
                  what == 3 ? SPAN("why") : (struct span){0});
        if (!house_closed(house, cell))
            fail_msg("break %d was taken", what);
        if (what == 0)
            house_expect(house, client, 503, "unavailable");
        else
            assert_true(house_closed(house, client));
        close(client);
        close(cell);
    }
}

static void a_head_has_the_length_and_no_body(void **state)
{
    struct house *house = *state;
    struct relayed relayed;
    int client = house_dial(house);
    int cell = ask_first(house, client, "HEAD /v1/streams/a HTTP/1.1", "", &relayed);
    cell_respond(cell, relayed.id, FLAG_END, 200, SPAN("a/b"), (struct span){0},
                 UINT64_C(5368709120), (struct span){0});
    house_read(house, client, "HTTP/1.1 200 OK\r\n");
    char head[2048] = "";
    for (size_t i = 0; i < sizeof head - 1 && !strstr(head, "\r\n\r\n"); i++)
        assert_int_equal(recv(client, head + i, 1, MSG_DONTWAIT), 1);
    assert_non_null(strstr(head, "Content-Length: 5368709120\r\n"));
    assert_true(house_silent(house, client));
    ask(house, client, "HEAD /v1/streams/a HTTP/1.1", "");
    cell_respond(cell, house_request(house, cell).id, FLAG_END, 200, SPAN("a/b"),
                 (struct span){0}, RELAY_LENGTH_UNKNOWN, (struct span){0});
    assert_null(reply_header(house_reply(house, client), "Transfer-Encoding"));
    assert_true(house_silent(house, client));
    close(client);
    close(cell);
}

static void drained_waits_for_answers_that_need_credit(void **state)
{
    struct house *house = *state;
    struct relayed relayed;
    int client = house_dial(house);
    int cell = ask_first(house, client, get, "", &relayed);
    begin_answer(cell, relayed.id, RELAY_WINDOW + sizeof bytes, "");
    cell_send(cell, MESSAGE_RELAY_DRAIN, 0, (struct span){0});
    house_turn(house);
    assert_true(house_quiet(house, cell));
    fill_window(house, cell, relayed.id, 0);
    house_drink(house, client);
    assert_true(take_credit(house, cell, relayed.id) >= sizeof bytes);
    cell_more(cell, relayed.id, FLAG_END, SPAN_OF(bytes));
    house_drink(house, client);
    await(house, cell, MESSAGE_RELAY_DRAINED);
    assert_true(house_closed(house, cell));
    close(client);
    close(cell);
}

/* ---- time ---- */

static void an_upload_that_stands_still_times_out_one_that_moves_does_not(void **state)
{
    struct house *house = *state;
    struct relayed relayed;
    int client = house_dial(house);
    int cell = ask_first(house, client, put, "Content-Length: 1000000\r\n", &relayed);
    for (int i = 0; i < 10; i++) { /* five minutes */
        house_write(house, client, (struct span){bytes, 1024});
        house_wait(house, HTTP_BODY_TIMEOUT_MS - 1);
        assert_true(house_silent(house, client));
    }
    house_write(house, client, (struct span){bytes, 1}); /* is none */
    house_wait(house, 2);
    house_expect(house, client, 408, "timeout");
    assert_true(house_closed(house, client));
    close(client);
    close(cell);
}

static void an_upload_that_the_cell_holds_back_waits_for_it(void **state)
{
    struct house *house = *state;
    struct relayed relayed;
    size_t came = 0;
    bool end = false;
    int client = house_dial(house);
    int cell = ask_first(house, client, put, "Content-Length: 1000000000\r\n", &relayed);
    for (int i = 0; i < 40; i++) /* more than the window */
        (void)send(client, bytes, sizeof bytes, MSG_DONTWAIT), house_turn(house);
    for (int i = 0; i < 5; i++) {
        while (next_body(house, cell, relayed.id, &came, &end))
            ;
        house_wait(house, 50000);
        assert_true(house_silent(house, client));
        cell_credit(cell, relayed.id, 2048);
    }
    house_wait(house, 60001);
    house_expect(house, client, 503, "unavailable"); /* nothing moved for too long */
    close(client);
    close(cell);
}

#define HOUSE_TEST(name) cmocka_unit_test_setup_teardown(name, house_setup, house_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        HOUSE_TEST(the_cell_hears_of_a_streamed_request_before_its_body),
        HOUSE_TEST(a_streamed_body_keeps_to_the_window_and_its_credit),
        HOUSE_TEST(a_streamed_body_of_any_size_arrives_whole),
        HOUSE_TEST(credit_that_a_cell_cannot_give_ends_its_relay),
        HOUSE_TEST(credit_for_a_stream_that_is_over_means_nothing),
        HOUSE_TEST(an_answer_before_the_end_of_the_body_reaches_its_client),
        HOUSE_TEST(a_short_rest_of_a_body_does_not_cost_the_connection),
        HOUSE_TEST(continue_is_said_once_the_cell_is_there),
        HOUSE_TEST(a_chunked_body_ends_where_it_passes_what_the_action_takes),
        HOUSE_TEST(a_batch_is_answered_line_by_line_while_it_comes),
        HOUSE_TEST(an_answer_that_ends_first_is_whole_and_the_connection_is_closed),
        HOUSE_TEST(a_client_that_leaves_a_batch_cancels_it),
        HOUSE_TEST(an_answer_of_any_size_arrives_whole_as_fast_as_it_is_taken),
        HOUSE_TEST(a_client_that_takes_nothing_costs_a_window_and_nobody_else),
        HOUSE_TEST(bytes_beyond_the_credit_end_the_relay),
        HOUSE_TEST(an_answer_that_breaks_off_is_not_taken_for_a_whole_one),
        HOUSE_TEST(a_client_of_http_1_0_sees_the_difference_too),
        HOUSE_TEST(a_break_out_of_turn_ends_the_relay),
        HOUSE_TEST(a_head_has_the_length_and_no_body),
        HOUSE_TEST(drained_waits_for_answers_that_need_credit),
        HOUSE_TEST(an_upload_that_stands_still_times_out_one_that_moves_does_not),
        HOUSE_TEST(an_upload_that_the_cell_holds_back_waits_for_it),
    };
    return cmocka_run_group_tests_name("gateway streams", tests, NULL, NULL);
}
