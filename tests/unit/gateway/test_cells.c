/* Cells that wake, drain, die; clients that go; a control that is lost. */
#define _GNU_SOURCE
#include "house.h"

#include <sys/socket.h>
#include <unistd.h>

static void all_who_wait_share_one_wake(void **state)
{
    struct house *house = *state;
    int clients[5];
    for (int i = 0; i < 5; i++) {
        clients[i] = house_dial(house);
        house_get(house, clients[i], "/v1/memories");
    }
    house_find(house, TENANT, 1); /* and one question */
    int cell = house_wake(house, TENANT);
    for (int i = 0; i < 5; i++) {
        struct relayed relayed = house_request(house, cell);
        cell_answer(cell, relayed.id, 200, "{}");
    }
    for (int i = 0; i < 5; i++) {
        house_expect(house, clients[i], 200, NULL);
        close(clients[i]);
    }
    assert_true(house_quiet(house, house->control));
    close(cell);
}

static void a_cell_that_cannot_be_woken_is_unavailable_and_no_reason_leaks(void **state)
{
    struct house *house = *state;
    int client = house_dial(house);
    house_get(house, client, "/v1/memories");
    house_find(house, TENANT, 1);
    struct ipc_message asked = house_next(house, house->control, MESSAGE_TENANT_WAKE);
    house_reply_to(house, asked.id, UNAVAILABLE);
    const struct reply *reply = house_reply(house, client);
    assert_int_equal(reply->status, 503);
    assert_string_equal(reply_header(reply, "Retry-After"), "1");
    assert_null(memmem(reply->body.data, reply->body.length, "secret", strlen("secret")));
    house_get(house, client, "/v1/memories"); /* asked for anew */
    int cell = house_wake(house, TENANT);
    struct relayed relayed = house_request(house, cell);
    cell_answer(cell, relayed.id, 200, "{}");
    house_expect(house, client, 200, NULL);
    close(client);
    close(cell);
}

static void a_cell_that_never_lasts_is_given_up_on(void **state)
{
    struct house *house = *state;
    int client = house_dial(house);
    house_get(house, client, "/v1/memories");
    house_find(house, TENANT, 1);
    for (int i = 0; i < 3; i++) {
        struct ipc_message asked = house_next(house, house->control, MESSAGE_TENANT_WAKE);
        close(house_give_cell(house, TENANT)); /* dead on arrival: it saw nothing */
        house_reply_to(house, asked.id, OK);
    }
    house_expect(house, client, 503, "unavailable");
    close(client);
}

static void an_ok_without_a_cell_is_asked_again_a_bounded_number_of_times(void **state)
{
    struct house *house = *state;
    int client = house_dial(house);
    house_get(house, client, "/v1/memories");
    house_find(house, TENANT, 1);
    for (int i = 0; i < 3; i++)
        house_reply_to(house, house_next(house, house->control, MESSAGE_TENANT_WAKE).id, OK);
    house_expect(house, client, 503, "unavailable");
    assert_true(house_quiet(house, house->control));
    close(client);
}

static void the_queue_for_a_cell_is_bounded(void **state)
{
    enum { CLIENTS = RELAY_STREAMS_MAX + 3 };
    struct house *house = *state;
    static int clients[CLIENTS];
    uint32_t refused = 0;
    for (int i = 0; i < CLIENTS; i++) {
        clients[i] = house_dial(house);
        house_get(house, clients[i], "/v1/memories");
        if (i == 0)
            house_find(house, TENANT, 1);
    }
    for (int i = 0; i < CLIENTS; i++)
        if (!house_silent(house, clients[i])) {
            house_expect(house, clients[i], 503, "unavailable");
            refused++;
        }
    assert_int_equal(refused, CLIENTS - RELAY_STREAMS_MAX);
    int cell = house_wake(house, TENANT);
    for (int i = 0; i < RELAY_STREAMS_MAX; i++)
        cell_answer(cell, house_request(house, cell).id, 200, "{}");
    for (int i = 0; i < CLIENTS; i++) {
        if (i < RELAY_STREAMS_MAX)
            house_expect(house, clients[i], 200, NULL);
        close(clients[i]);
    }
    close(cell);
}

static void a_cell_that_dies_takes_its_own_requests_only(void **state)
{
    struct house *house = *state;
    struct relayed relayed;
    int mine = house_dial(house), other = house_dial(house);
    int cell = house_relayed(house, mine, &relayed);
    house_token(house, OTHER_TENANT, "memory:read");
    house_get(house, other, "/v1/memories");
    house_find(house, OTHER_TENANT, 1);
    int other_cell = house_wake(house, OTHER_TENANT);
    relayed = house_request(house, other_cell);
    close(cell);
    const struct reply *reply = house_reply(house, mine);
    assert_int_equal(reply->status, 503);
    assert_string_equal(reply_header(reply, "Retry-After"), "1");
    assert_true(house_quiet(house, house->control)); /* it is not sent again */
    cell_answer(other_cell, relayed.id, 200, "{}");
    house_expect(house, other, 200, NULL);
    house_token(house, TENANT, "memory:read");
    house_get(house, mine, "/v1/memories"); /* the connection lives, the next request wakes */
    cell = house_wake(house, TENANT);
    cell_answer(cell, house_request(house, cell).id, 200, "{}");
    house_expect(house, mine, 200, NULL);
    close(mine);
    close(other);
    close(cell);
    close(other_cell);
}

static void a_draining_cell_answers_what_it_has_and_the_next_request_wakes(void **state)
{
    struct house *house = *state;
    struct relayed relayed;
    int first = house_dial(house), second = house_dial(house);
    int cell = house_relayed(house, first, &relayed);
    cell_send(cell, MESSAGE_RELAY_DRAIN, 0, (struct span){0});
    struct ipc_message drained = house_next(house, cell, MESSAGE_RELAY_DRAINED);
    assert_int_equal(drained.body.length, 0);
    house_get(house, second, "/v1/memories");
    struct ipc_message asked = house_next(house, house->control, MESSAGE_TENANT_WAKE);
    assert_true(house_quiet(house, cell));
    cell_answer(cell, relayed.id, 200, "{\"old\":1}");
    house_expect(house, first, 200, NULL);
    assert_true(house_closed(house, cell));
    int fresh = house_give_cell(house, TENANT);
    house_reply_to(house, asked.id, OK);
    cell_answer(fresh, house_request(house, fresh).id, 200, "{}");
    house_expect(house, second, 200, NULL);
    close(first);
    close(second);
    close(cell);
    close(fresh);
}

static void drained_is_said_only_after_the_last_upload(void **state)
{
    struct house *house = *state;
    struct buffer body = buffer_of(KIB(120));
    int client = house_dial(house);
    while (body.length < KIB(100))
        buffer_put_text(&body, "x");
    house_say(house, client,
              "POST /v1/memories HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n"
              "Content-Length: %u\r\n\r\n", (const char *)house->token.data, KIB(100));
    house_find(house, TENANT, 1);
    house_write(house, client, (struct span){body.data, KIB(60)});
    int cell = house_wake(house, TENANT);
    struct relayed relayed = house_request(house, cell);
    cell_send(cell, MESSAGE_RELAY_DRAIN, 0, (struct span){0});
    assert_true(house_quiet(house, cell));
    house_write(house, client, (struct span){body.data, KIB(40)});
    house_next(house, cell, MESSAGE_RELAY_BODY);
    house_next(house, cell, MESSAGE_RELAY_DRAINED);
    cell_answer(cell, relayed.id, 201, "{}");
    house_expect(house, client, 201, NULL);
    assert_true(house_closed(house, cell));
    buffer_free(&body);
    close(client);
    close(cell);
}

static void a_client_that_goes_is_cancelled_and_a_late_answer_does_no_harm(void **state)
{
    struct house *house = *state;
    struct relayed relayed;
    int client = house_dial(house), second = house_dial(house);
    int cell = house_relayed(house, client, &relayed);
    close(client);
    struct ipc_message cancel = house_next(house, cell, MESSAGE_RELAY_CANCEL);
    assert_int_equal(cancel.id, relayed.id);
    assert_int_equal(cancel.body.length, 0);
    cell_respond(cell, relayed.id, 0, 200, SPAN("a/b"), (struct span){0}, 4, SPAN("ab"));
    cell_more(cell, relayed.id, FLAG_END, SPAN("cd")); /* they crossed */
    house_get(house, second, "/v1/memories");
    cell_answer(cell, house_request(house, cell).id, 200, "{}");
    house_expect(house, second, 200, NULL);
    close(second);
    close(cell);
}

static void once_a_later_request_is_answered_a_cancelled_one_is_over(void **state)
{
    struct house *house = *state;
    struct relayed relayed;
    int client = house_dial(house), second = house_dial(house);
    int cell = house_relayed(house, client, &relayed);
    close(client);
    house_next(house, cell, MESSAGE_RELAY_CANCEL);
    house_get(house, second, "/v1/memories");
    cell_answer(cell, house_request(house, cell).id, 200, "{}");
    house_expect(house, second, 200, NULL);
    cell_answer(cell, relayed.id, 200, "{}"); /* a cell that reads in order cannot do this */
    assert_true(house_closed(house, cell));
    close(second);
    close(cell);
}

static void a_client_that_goes_after_drained_is_not_cancelled_but_awaited(void **state)
{
    struct house *house = *state;
    struct relayed relayed;
    int client = house_dial(house);
    int cell = house_relayed(house, client, &relayed);
    cell_send(cell, MESSAGE_RELAY_DRAIN, 0, (struct span){0});
    house_next(house, cell, MESSAGE_RELAY_DRAINED);
    close(client);
    assert_true(house_quiet(house, cell)); /* DRAINED was the last message */
    cell_answer(cell, relayed.id, 200, "{}");
    assert_true(house_closed(house, cell));
    close(cell);
}

static void a_client_that_goes_while_it_waits_leaves_no_trace(void **state)
{
    struct house *house = *state;
    int client = house_dial(house);
    house_get(house, client, "/v1/memories");
    struct ipc_message asked = house_next(house, house->control, MESSAGE_TENANT_FIND);
    close(client);
    house_turn(house);
    house_found(house, asked.id, TENANT, 1);
    assert_true(house_quiet(house, house->control)); /* nobody is woken for nobody */
    client = house_dial(house);
    house_get(house, client, "/v1/memories");
    asked = house_next(house, house->control, MESSAGE_TENANT_WAKE);
    close(client);
    house_turn(house);
    int cell = house_give_cell(house, TENANT);
    house_reply_to(house, asked.id, OK);
    assert_true(house_quiet(house, cell));
    close(cell);
}

static void a_newer_cell_replaces_an_older_one(void **state)
{
    struct house *house = *state;
    struct relayed relayed;
    int client = house_dial(house), second = house_dial(house);
    int older = house_relayed(house, client, &relayed);
    int newer = house_give_cell(house, TENANT);
    house_turn(house);
    house_get(house, second, "/v1/memories");
    cell_answer(newer, house_request(house, newer).id, 200, "{}");
    house_expect(house, second, 200, NULL);
    cell_answer(older, relayed.id, 200, "{}"); /* what it had, it may answer */
    house_expect(house, client, 200, NULL);
    assert_true(house_closed(house, older));
    close(client);
    close(second);
    close(older);
    close(newer);
}

static void an_erased_tenant_loses_its_relay(void **state)
{
    struct house *house = *state;
    struct relayed relayed;
    int client = house_dial(house);
    int cell = house_relayed(house, client, &relayed);
    house_changed(house, TENANT);
    house_find(house, TENANT, 2);
    cell_answer(cell, relayed.id, 200, "{}"); /* only paused: what runs ends well */
    house_expect(house, client, 200, NULL);
    house_changed(house, TENANT);
    house_find(house, TENANT, 0);
    assert_true(house_closed(house, cell));
    house_get(house, client, "/v1/memories");
    house_find(house, TENANT, 0);
    house_expect(house, client, 401, NULL);
    close(client);
    close(cell);
}

static void without_control_known_tenants_with_a_cell_are_served_on(void **state)
{
    struct house *house = *state;
    struct relayed relayed;
    int client = house_dial(house), waiting = house_dial(house);
    int cell = house_relayed(house, client, &relayed);
    cell_answer(cell, relayed.id, 200, "{}");
    house_expect(house, client, 200, NULL);
    house_token(house, OTHER_TENANT, "memory:read");
    house_get(house, waiting, "/v1/memories");
    house_next(house, house->control, MESSAGE_TENANT_FIND);
    close(house->control);
    house->control = -1;
    house_expect(house, waiting, 503, "unavailable"); /* what was asked fails */
    house_get(house, waiting, "/v1/memories");
    house_expect(house, waiting, 503, "unavailable");
    house_token(house, TENANT, "memory:read");
    house_wait(house, 5000);
    house_get(house, client, "/v1/memories");
    cell_answer(cell, house_request(house, cell).id, 200, "{}");
    house_expect(house, client, 200, NULL);
    house_wait(house, 5001);
    house_get(house, client, "/v1/memories"); /* not for ever */
    house_expect(house, client, 503, "unavailable");
    house_new_control(house);
    house_get(house, client, "/v1/memories");
    house_find(house, TENANT, 1);
    cell_answer(cell, house_request(house, cell).id, 200, "{}");
    house_expect(house, client, 200, NULL);
    close(client);
    close(waiting);
    close(cell);
}

static void a_new_control_is_asked_what_the_old_one_was_not_answering(void **state)
{
    struct house *house = *state;
    int client = house_dial(house);
    house_get(house, client, "/v1/memories");
    house_find(house, TENANT, 1);
    house_next(house, house->control, MESSAGE_TENANT_WAKE);
    house_new_control(house);
    house_expect(house, client, 503, "unavailable");
    house_get(house, client, "/v1/memories");
    int cell = house_wake(house, TENANT);
    cell_answer(cell, house_request(house, cell).id, 200, "{}");
    house_expect(house, client, 200, NULL);
    close(client);
    close(cell);
}

static void control_may_not_say_what_is_not_its_to_say(void **state)
{
    struct house *house = *state;
    status why;
    assert_false(house_ended(house, &why));
    cell_send(house->control, MESSAGE_REPLY, 77, SPAN("\0\0\0\0\0\0")); /* to no question */
    assert_true(house_ended(house, &why));
    assert_int_equal(why, BAD_REQUEST);
}

static void an_answer_that_does_not_come_is_given_up_on(void **state)
{
    struct house *house = *state;
    struct relayed relayed;
    int client = house_dial(house);
    int cell = house_relayed(house, client, &relayed);
    house_wait(house, 59999);
    assert_true(house_silent(house, client));
    house_wait(house, 2);
    house_expect(house, client, 503, "unavailable");
    assert_int_equal(house_next(house, cell, MESSAGE_RELAY_CANCEL).id, relayed.id);
    close(client);
    close(cell);
}

/* As after a pause of the machine: the relay's end and that of the patience are seen at once. */
static void a_cell_that_dies_when_patience_ends_costs_its_own_client_only(void **state)
{
    struct house *house = *state;
    struct relayed relayed;
    int client = house_dial(house), other = house_dial(house);
    int cell = house_relayed(house, client, &relayed);
    cell_respond(cell, relayed.id, 0, 200, SPAN("a/b"), (struct span){0}, 6, SPAN("ab"));
    cell_more(cell, relayed.id, 0, SPAN("cd"));
    house_turn(house); /* begun: it cannot become a refusal any more */
    close(cell);
    house_pass(60001);
    house_get(house, other, "/v1/memories");
    assert_true(house_closed(house, client));
    house_find(house, TENANT, 1);
    cell = house_wake(house, TENANT);
    cell_answer(cell, house_request(house, cell).id, 200, "{}");
    house_expect(house, other, 200, NULL);
    close(client);
    close(other);
    close(cell);
}

/* A busy cell reads a cancellation long after it was sent, and answers what it read before. */
static void any_number_of_clients_that_go_does_no_harm_to_those_that_stay(void **state)
{
    enum { GONE = 2 * RELAY_STREAMS_MAX };
    struct house *house = *state;
    struct relayed relayed;
    static uint32_t ids[GONE];
    int first = house_dial(house), last = house_dial(house);
    int cell = house_relayed(house, first, &relayed);
    for (int i = 0; i < GONE; i++) {
        int client = house_dial(house);
        house_get(house, client, "/v1/memories");
        ids[i] = house_request(house, cell).id;
        close(client);
        house_turn(house);
        assert_int_equal(house_next(house, cell, MESSAGE_RELAY_CANCEL).id, ids[i]);
    }
    house_get(house, last, "/v1/memories");
    uint32_t last_id = house_request(house, cell).id;
    cell_answer(cell, relayed.id, 200, "{}");
    for (int i = 0; i < GONE; i++) {
        cell_respond(cell, ids[i], 0, 200, SPAN("a/b"), (struct span){0}, 4, SPAN("ab"));
        cell_more(cell, ids[i], FLAG_END, SPAN("cd"));
        house_turn(house);
    }
    cell_answer(cell, last_id, 200, "{}");
    house_expect(house, first, 200, NULL);
    house_expect(house, last, 200, NULL);
    cell_answer(cell, ids[0], 200, "{}"); /* what came later is answered: this is a lie */
    assert_true(house_closed(house, cell));
    close(first);
    close(last);
    close(cell);
}

#define HOUSE_TEST(name) cmocka_unit_test_setup_teardown(name, house_setup, house_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        HOUSE_TEST(all_who_wait_share_one_wake),
        HOUSE_TEST(a_cell_that_cannot_be_woken_is_unavailable_and_no_reason_leaks),
        HOUSE_TEST(a_cell_that_never_lasts_is_given_up_on),
        HOUSE_TEST(an_ok_without_a_cell_is_asked_again_a_bounded_number_of_times),
        HOUSE_TEST(the_queue_for_a_cell_is_bounded),
        HOUSE_TEST(a_cell_that_dies_takes_its_own_requests_only),
        HOUSE_TEST(a_draining_cell_answers_what_it_has_and_the_next_request_wakes),
        HOUSE_TEST(drained_is_said_only_after_the_last_upload),
        HOUSE_TEST(a_client_that_goes_is_cancelled_and_a_late_answer_does_no_harm),
        HOUSE_TEST(once_a_later_request_is_answered_a_cancelled_one_is_over),
        HOUSE_TEST(a_client_that_goes_after_drained_is_not_cancelled_but_awaited),
        HOUSE_TEST(a_client_that_goes_while_it_waits_leaves_no_trace),
        HOUSE_TEST(a_newer_cell_replaces_an_older_one),
        HOUSE_TEST(an_erased_tenant_loses_its_relay),
        HOUSE_TEST(without_control_known_tenants_with_a_cell_are_served_on),
        HOUSE_TEST(a_new_control_is_asked_what_the_old_one_was_not_answering),
        HOUSE_TEST(control_may_not_say_what_is_not_its_to_say),
        HOUSE_TEST(an_answer_that_does_not_come_is_given_up_on),
        HOUSE_TEST(a_cell_that_dies_when_patience_ends_costs_its_own_client_only),
        HOUSE_TEST(any_number_of_clients_that_go_does_no_harm_to_those_that_stay),
    };
    return cmocka_run_group_tests_name("gateway cells", tests, NULL, NULL);
}
