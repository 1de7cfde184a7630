/* Cells are hostile: what of their words reaches a client, and what ends the relay. */
#include "house.h"

#include "gateway/state.h"

#include <sys/socket.h>
#include <unistd.h>

static void each_status_gets_the_headers_it_must_have(void **state)
{
    struct house *house = *state;
    struct relayed relayed;
    int client = house_dial(house);
    int cell = house_relayed(house, client, &relayed);
    cell_respond(cell, relayed.id, FLAG_END, 204, (struct span){0}, (struct span){0}, 0,
                 (struct span){0});
    const struct reply *reply = house_reply(house, client);
    assert_int_equal(reply->status, 204);
    assert_null(reply_header(reply, "Content-Length"));
    assert_null(reply_header(reply, "Content-Type"));
    house_get(house, client, "/v1/memories");
    cell_respond(cell, house_request(house, cell).id, FLAG_END, 405, (struct span){0},
                 SPAN("GET, PUT"), 0, (struct span){0});
    reply = house_reply(house, client);
    assert_string_equal(reply_header(reply, "Allow"), "GET, PUT");
    assert_string_equal(reply_header(reply, "Content-Length"), "0");
    house_get(house, client, "/v1/memories");
    cell_answer(cell, house_request(house, cell).id, 429, "{}");
    assert_string_equal(reply_header(house_reply(house, client), "Retry-After"), "1");
    house_get(house, client, "/v1/memories");
    cell_answer(cell, house_request(house, cell).id, 401, "{}");
    assert_string_equal(reply_header(house_reply(house, client), "WWW-Authenticate"), "Bearer");
    house_get(house, client, "/v1/memories");
    cell_respond(cell, house_request(house, cell).id, FLAG_END, 200, SPAN("a/b"),
                 (struct span){0}, 2, SPAN("{}"));
    reply = house_reply(house, client);
    assert_null(reply_header(reply, "Allow"));
    assert_null(reply_header(reply, "Retry-After"));
    close(client);
    close(cell);
}

struct act { /* what a cell does instead of answering */
    const char *name;
    uint32_t id_offset; /* added to the stream's */
    uint8_t flags;
    int status;
    struct span content_type, allow;
    uint64_t length;
    struct span fragment;
};

#define TEXT(text) {(const uint8_t *)(text), sizeof(text) - 1}

static const struct act acts[] = {
    {"another stream", 1, FLAG_END, 200, TEXT("a/b"), {0}, 2, TEXT("{}")},
    {"a flag too many", 0, 3, 200, TEXT("a/b"), {0}, 2, TEXT("{}")},
    {"an interim status", 0, FLAG_END, 100, {0}, {0}, 0, {0}},
    {"switching protocols", 0, FLAG_END, 101, {0}, {0}, 0, {0}},
    {"no status", 0, FLAG_END, 0, {0}, {0}, 0, {0}},
    {"status 600", 0, FLAG_END, 600, {0}, {0}, 0, {0}},
    {"a header in the content type", 0, FLAG_END, 200, TEXT("a/b\r\nX: y"), {0}, 2, TEXT("{}")},
    {"a line feed in the content type", 0, FLAG_END, 200, TEXT("a/b\nX: y"), {0}, 2, TEXT("{}")},
    {"a NUL in the content type", 0, FLAG_END, 200, TEXT("a\0b"), {0}, 2, TEXT("{}")},
    {"a byte beyond ASCII", 0, FLAG_END, 200, TEXT("a/\xff"), {0}, 2, TEXT("{}")},
    {"blanks around the content type", 0, FLAG_END, 200, TEXT(" a/b"), {0}, 2, TEXT("{}")},
    {"a header in allow", 0, FLAG_END, 405, TEXT("a/b"), TEXT("GET\r\nSet-Cookie: a"), 2,
     TEXT("{}")},
    {"allow of another status", 0, FLAG_END, 200, TEXT("a/b"), TEXT("GET"), 2, TEXT("{}")},
    {"a body without a type", 0, FLAG_END, 200, {0}, {0}, 2, TEXT("{}")},
    {"a body of no content", 0, FLAG_END, 204, TEXT("a/b"), {0}, 2, TEXT("{}")},
    {"a body of not modified", 0, FLAG_END, 304, TEXT("a/b"), {0}, 2, TEXT("{}")},
    {"more than announced", 0, FLAG_END, 200, TEXT("a/b"), {0}, 1, TEXT("{}")},
    {"less than announced", 0, FLAG_END, 200, TEXT("a/b"), {0}, 3, TEXT("{}")},
    {"no end where it ends", 0, 0, 200, TEXT("a/b"), {0}, 2, TEXT("{}")},
    {"a body too large", 0, 0, 200, TEXT("a/b"), {0}, CELL_RESPONSE_MAX + 1, TEXT("{}")},
    {"a body of no known length", 0, 0, 200, TEXT("a/b"), {0}, RELAY_LENGTH_UNKNOWN, TEXT("{}")},
};

static void whatever_a_hostile_cell_says_ends_its_relay_and_nothing_else(void **state)
{
    struct house *house = *state;
    struct relayed relayed, others;
    int other = house_dial(house);
    house_token(house, OTHER_TENANT, "memory:read");
    house_get(house, other, "/v1/memories");
    house_find(house, OTHER_TENANT, 1);
    int other_cell = house_wake(house, OTHER_TENANT);
    others = house_request(house, other_cell);
    house_token(house, TENANT, "memory:read");
    int client = house_dial(house);
    for (size_t i = 0; i < sizeof acts / sizeof *acts; i++) {
        const struct act *act = &acts[i];
        house_get(house, client, "/v1/memories");
        if (i == 0)
            house_find(house, TENANT, 1);
        int cell = house_wake(house, TENANT);
        relayed = house_request(house, cell);
        cell_respond(cell, relayed.id + act->id_offset, act->flags, act->status,
                     act->content_type, act->allow, act->length, act->fragment);
        if (!house_closed(house, cell))
            fail_msg("%s was taken", act->name);
        house_expect(house, client, 503, "unavailable");
        close(cell);
    }
    cell_answer(other_cell, others.id, 200, "{}");
    house_expect(house, other, 200, NULL);
    close(client);
    close(other);
    close(other_cell);
}

static const struct {
    uint32_t type;
    struct span body;
} raw[] = {
    {MESSAGE_RELAY_RESPONSE, TEXT("")},
    {MESSAGE_RELAY_RESPONSE, TEXT("\1\0\310\0\0\0\0")},
    {MESSAGE_RELAY_RESPONSE, TEXT("\1\0\310\0\0\0\0\0\0\0\0\0\0\0\0\1\1\377\377\377\377a/b")},
    {MESSAGE_RELAY_RESPONSE, TEXT("\1\0\314\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0surplus")},
    {MESSAGE_RELAY_MORE, TEXT("\1\0\0\0\1a")},
    {MESSAGE_RELAY_MORE, TEXT("")},
    {MESSAGE_RELAY_DRAIN, TEXT("a")},
    {MESSAGE_RELAY_DRAINED, TEXT("")},
    {MESSAGE_RELAY_REQUEST, TEXT("")},
    {MESSAGE_RELAY_CANCEL, TEXT("")},
    {MESSAGE_REPLY, TEXT("\0\0\0\0\0\0")},
    {MESSAGE_STOP, TEXT("")},
    {MESSAGE_GATEWAY_CELL, TEXT("0123456789abcdef")},
    {MESSAGE_TENANT_CHANGED, TEXT("0123456789abcdef")},
    {0, TEXT("")},
};

static void messages_that_are_not_a_cells_to_send_end_its_relay(void **state)
{
    struct house *house = *state;
    status why;
    int client = house_dial(house);
    for (size_t i = 0; i < sizeof raw / sizeof *raw; i++) {
        house_get(house, client, "/v1/memories");
        if (i == 0)
            house_find(house, TENANT, 1);
        int cell = house_wake(house, TENANT);
        struct relayed relayed = house_request(house, cell);
        cell_send(cell, raw[i].type, relayed.id, raw[i].body);
        if (!house_closed(house, cell))
            fail_msg("message %#x (%zu) was taken", raw[i].type, i);
        house_expect(house, client, 503, "unavailable");
        close(cell);
    }
    assert_false(house_ended(house, &why));
    close(client);
}

static void descriptors_from_a_cell_end_its_relay(void **state)
{
    struct house *house = *state;
    struct relayed relayed;
    struct fault fault;
    int client = house_dial(house);
    int cell = house_relayed(house, client, &relayed);
    assert_int_equal(ipc_send(cell, MESSAGE_RELAY_DRAIN, 0, (struct span){0}, &cell, 1, &fault),
                     OK);
    house_expect(house, client, 503, "unavailable");
    close(client);
    close(cell);
}

static void what_comes_in_the_wrong_order_ends_the_relay(void **state)
{
    struct house *house = *state;
    for (int what = 0; what < 5; what++) {
        struct relayed relayed;
        int client = house_dial(house);
        house_get(house, client, "/v1/memories");
        if (what == 0)
            house_find(house, TENANT, 1);
        int cell = house_wake(house, TENANT);
        relayed = house_request(house, cell);
        cell_respond(cell, relayed.id, 0, 200, SPAN("a/b"), (struct span){0}, 8, SPAN("ab"));
        assert_false(house_silent(house, client)); /* it has begun */
        if (what == 0)
            cell_respond(cell, relayed.id, 0, 200, SPAN("a/b"), (struct span){0}, 8, SPAN("ab"));
        else if (what == 1)
            cell_more(cell, relayed.id, FLAG_END, SPAN("cd")); /* too early */
        else if (what == 2)
            cell_more(cell, relayed.id, 0, SPAN("cdefghi")); /* too much */
        else if (what == 3)
            cell_more(cell, relayed.id, 0, (struct span){0}); /* nothing, for ever */
        else
            cell_more(cell, relayed.id, 0, SPAN("cdefgh")); /* no end */
        assert_true(house_closed(house, cell));
        assert_true(house_closed(house, client)); /* cut off: the length tells the client */
        close(client);
        close(cell);
    }
}

static void an_answer_before_the_request_is_complete_is_out_of_turn(void **state)
{
    struct house *house = *state;
    int client = house_dial(house);
    struct buffer body = buffer_of(KIB(64));
    while (body.length < KIB(60))
        buffer_put_text(&body, "x");
    house_say(house, client,
              "POST /v1/memories HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n"
              "Content-Length: %u\r\n\r\n", (const char *)house->token.data, KIB(100));
    house_find(house, TENANT, 1);
    house_write(house, client, buffer_span(&body));
    int cell = house_wake(house, TENANT);
    cell_answer(cell, house_request(house, cell).id, 200, "{}");
    assert_true(house_closed(house, cell));
    house_expect(house, client, 503, "unavailable");
    buffer_free(&body);
    close(client);
    close(cell);
}

static void an_answer_in_many_fragments_arrives_whole(void **state)
{
    struct house *house = *state;
    struct relayed relayed;
    int client = house_dial(house);
    int cell = house_relayed(house, client, &relayed);
    struct buffer fragment = buffer_of(RELAY_FRAGMENT_MAX);
    while (fragment.length < RELAY_FRAGMENT_MAX)
        buffer_put_u8(&fragment, (uint8_t)('a' + fragment.length % 26));
    cell_respond(cell, relayed.id, 0, 200, SPAN("a/b"), (struct span){0}, 10 * RELAY_FRAGMENT_MAX,
                 buffer_span(&fragment));
    for (int i = 1; i < 10; i++) {
        cell_more(cell, relayed.id, i == 9 ? FLAG_END : 0, buffer_span(&fragment));
        house_turn(house);
    }
    const struct reply *reply = house_reply(house, client);
    assert_int_equal(reply->body.length, 10 * RELAY_FRAGMENT_MAX);
    for (size_t i = 0; i < reply->body.length; i++)
        assert_int_equal(reply->body.data[i], 'a' + i % RELAY_FRAGMENT_MAX % 26);
    house_get(house, client, "/v1/memories"); /* the connection is in step */
    cell_answer(cell, house_request(house, cell).id, 200, "{}");
    house_expect(house, client, 200, NULL);
    buffer_free(&fragment);
    close(client);
    close(cell);
}

/* Answers all that are asked with CELL_RESPONSE_MAX bytes, as far as the gateway takes them. */
static size_t pour(struct house *house, int cell, const uint32_t *ids, int count)
{
    static uint8_t bytes[RELAY_FRAGMENT_MAX];
    const uint32_t fragments = CELL_RESPONSE_MAX / RELAY_FRAGMENT_MAX;
    size_t poured = 0;
    struct buffer more = buffer_of(IPC_BODY_MAX);
    struct fault fault;
    for (int i = 0; i < count; i++) {
        cell_respond(cell, ids[i], 0, 200, SPAN("a/b"), (struct span){0},
                     fragments * RELAY_FRAGMENT_MAX, SPAN_OF(bytes));
        for (uint32_t j = 1; j < fragments; j++) {
            buffer_clear(&more);
            buffer_put_u8(&more, j == fragments - 1 ? FLAG_END : 0);
            buffer_put_field(&more, SPAN_OF(bytes));
            for (int patience = 20; patience > 0; patience--) {
                if (ipc_send(cell, MESSAGE_RELAY_MORE, ids[i], buffer_span(&more), NULL, 0,
                             &fault) == OK)
                    break;
                if (patience == 1) {
                    buffer_free(&more);
                    return poured;
                }
                house_turn(house);
            }
            poured += sizeof bytes;
        }
        house_turn(house);
    }
    buffer_free(&more);
    return poured;
}

static int dial_with_little_room(struct house *house)
{
    const int bytes = 4096; /* or the kernel would take megabytes for a client that reads none */
    int client = house_dial(house);
    assert_int_equal(setsockopt(client, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes), 0);
    return client;
}

static uint32_t cancelled(struct house *house, int cell)
{
    struct ipc_message message;
    struct fault fault;
    uint32_t count = 0;
    while (ipc_receive(&message, cell, house->storage, &fault) == OK) {
        assert_int_equal(message.type, MESSAGE_RELAY_CANCEL);
        count++;
    }
    return count;
}

/* One request of that tenant, from a client that reads. */
static int ask_and_read(struct house *house, int cell)
{
    int client = house_dial(house);
    house_get(house, client, "/v1/memories");
    cell_answer(cell, house_request(house, cell).id, 200, "{}");
    house_expect(house, client, 200, NULL);
    return client;
}

static void clients_that_do_not_read_are_cut_off_before_they_stop_the_others(void **state)
{
    enum { CLIENTS = 14 };
    struct house *house = *state;
    struct relayed relayed;
    int clients[CLIENTS];
    uint32_t ids[CLIENTS];
    const size_t fragments = CELL_RESPONSE_MAX / RELAY_FRAGMENT_MAX;
    clients[0] = dial_with_little_room(house);
    int cell = house_relayed(house, clients[0], &relayed);
    ids[0] = relayed.id;
    for (int i = 1; i < CLIENTS; i++) {
        clients[i] = dial_with_little_room(house);
        house_get(house, clients[i], "/v1/memories");
        ids[i] = house_request(house, cell).id;
    }
    assert_int_equal(pour(house, cell, ids, CLIENTS),
                     CLIENTS * (fragments - 1) * RELAY_FRAGMENT_MAX);
    house_turn(house);
    assert_true(house->gateway->relays->held <= GATEWAY_RELAY_HELD_MAX + RELAY_FRAGMENT_MAX);
    uint64_t open = house->stats->slots[1].connections_open;
    assert_in_range(open, 1, CLIENTS - 1);
    assert_in_range(cancelled(house, cell), 0, CLIENTS - open);
    int other = ask_and_read(house, cell); /* while the rest still holds what it does not take */
    assert_true(house->gateway->relays->held > 0);
    close(other);
    for (int i = 0; i < 10; i++) /* no progress: those are let go, too */
        house_wait(house, 30001);
    assert_int_equal(house->stats->slots[1].connections_open, 0);
    assert_int_equal(house->gateway->relays->held, 0);
    for (int i = 0; i < CLIENTS; i++)
        close(clients[i]);
    close(cell);
}

static void a_cell_that_dies_before_it_is_read_out_still_answered(void **state)
{
    struct house *house = *state;
    struct relayed relayed;
    int client = house_dial(house);
    int cell = house_relayed(house, client, &relayed);
    cell_answer(cell, relayed.id, 200, "{\"last\":1}");
    close(cell);
    house_expect(house, client, 200, NULL);
    close(client);
}

#define HOUSE_TEST(name) cmocka_unit_test_setup_teardown(name, house_setup, house_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        HOUSE_TEST(each_status_gets_the_headers_it_must_have),
        HOUSE_TEST(whatever_a_hostile_cell_says_ends_its_relay_and_nothing_else),
        HOUSE_TEST(messages_that_are_not_a_cells_to_send_end_its_relay),
        HOUSE_TEST(descriptors_from_a_cell_end_its_relay),
        HOUSE_TEST(what_comes_in_the_wrong_order_ends_the_relay),
        HOUSE_TEST(an_answer_before_the_request_is_complete_is_out_of_turn),
        HOUSE_TEST(an_answer_in_many_fragments_arrives_whole),
        HOUSE_TEST(clients_that_do_not_read_are_cut_off_before_they_stop_the_others),
        HOUSE_TEST(a_cell_that_dies_before_it_is_read_out_still_answered),
    };
    return cmocka_run_group_tests_name("gateway answers", tests, NULL, NULL);
}
