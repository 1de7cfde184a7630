/* The cell and its gateways, of which any may have been taken over. */
#include "fake_silo.h"
#include "harness.h"

#include "base/cleanup.h"
#include "base/clock.h"

#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

/* A RELAY_REQUEST of which one part is wrong. */
struct frame {
    uint8_t flags;
    struct span method, token;
    int64_t length;
    uint32_t header_count;
    struct span headers;
    uint32_t token_length_lie;
    size_t surplus, cut;
};

static void put_frame(struct buffer *out, struct frame frame)
{
    const uint8_t trace_id[TRACE_ID_BYTES] = {0};
    buffer_put_u8(out, frame.flags);
    buffer_put(out, SPAN_OF(trace_id));
    buffer_put_field(out, frame.method);
    buffer_put_text_field(out, "/v1/memories");
    buffer_put_text_field(out, "");
    buffer_put_u64(out, (uint64_t)frame.length);
    buffer_put_u8(out, (uint8_t)frame.header_count);
    buffer_put(out, frame.headers);
    buffer_put_u32(out, (uint32_t)frame.token.length + frame.token_length_lie);
    buffer_put(out, frame.token);
    buffer_put_text_field(out, "");
    for (size_t i = 0; i < frame.surplus; i++)
        buffer_put_u8(out, 0);
    out->length -= frame.cut;
}

static void expect_only_this_relay_ends(struct harness *harness)
{
    harness_expect_closed(harness, harness->gateways[1]);
    harness_ask(harness, reading(), 200, NULL);
    harness_attach(harness, 1); /* and the gateway may come back */
}

static void a_malformed_message_ends_its_relay_and_no_other(void **state)
{
    struct harness *harness = *state;
    static uint8_t long_token[TOKEN_MAX + 1];
    const struct frame bad[] = {
        {.flags = 2, .method = SPAN("GET")},
        {.flags = FLAG_END, .method = SPAN("GE\0T")},
        {.flags = FLAG_END, .method = SPAN("GET"), .surplus = 1},
        {.flags = FLAG_END, .method = SPAN("GET"), .cut = 1},
        {.flags = FLAG_END, .method = SPAN("GET"), .cut = 40},
        {.flags = FLAG_END, .method = SPAN("GET"), .token_length_lie = 1},
        {.flags = FLAG_END, .method = SPAN("GET"), .token_length_lie = 0x7FFFFFFF},
        {.flags = FLAG_END, .method = SPAN("GET"), .token = SPAN_OF(long_token)},
        {.flags = FLAG_END, .method = SPAN("GET"), .length = -2},
        {.flags = FLAG_END, .method = SPAN("GET"), .length = INT64_MIN},
        {.flags = FLAG_END, .method = SPAN("GET"), .header_count = 1},
        {.flags = FLAG_END, .method = SPAN("GET"), .header_count = 1,
         .headers = SPAN("\11\0\0\0\1x")}, /* Allow: of answers only */
        {.flags = FLAG_END, .method = SPAN("GET"), .header_count = 1,
         .headers = SPAN("\1\0\0\0\3a\nb")},
    };
    struct buffer body = buffer_of(IPC_BODY_MAX);
    harness_attach(harness, 1);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        buffer_clear(&body);
        put_frame(&body, bad[i]);
        harness_send_raw(harness, 1, MESSAGE_RELAY_REQUEST, 1, buffer_span(&body));
        expect_only_this_relay_ends(harness);
    }
    buffer_clear(&body);
    put_frame(&body, (struct frame){.flags = FLAG_END, .method = SPAN("GET")});
    harness_send_raw(harness, 1, MESSAGE_RELAY_REQUEST, 1, buffer_span(&body)); /* the good one */
    struct harness_answer answer;
    harness_answer(&answer, harness, 1);
    assert_int_equal(answer.http_status, 401);
    harness_answer_free(&answer);
    buffer_free(&body);
}

static void a_message_out_of_turn_ends_its_relay(void **state)
{
    struct harness *harness = *state;
    const struct {
        uint32_t type;
        struct span body;
    } bad[] = {
        {MESSAGE_RELAY_BODY, SPAN("\1\0\0\0\0")},   /* of no stream */
        {MESSAGE_RELAY_BODY, SPAN("\1\0\0\0")},
        {MESSAGE_RELAY_CANCEL, SPAN("x")},
        {MESSAGE_RELAY_DRAINED, SPAN("")},          /* nobody asked */
        {MESSAGE_RELAY_DRAIN, SPAN("")},
        {MESSAGE_RELAY_RESPONSE, SPAN("")},
        {MESSAGE_REPLY, SPAN("")},
        {MESSAGE_CELL_PARK, SPAN("")},              /* a gateway is no supervisor */
        {MESSAGE_KEY_OPEN, SPAN("")},
        {0, SPAN("")},
        {UINT32_MAX, SPAN("")},
    };
    harness_attach(harness, 1);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        harness_send_raw(harness, 1, bad[i].type, 9, bad[i].body);
        expect_only_this_relay_ends(harness);
    }
}

static void a_stream_number_in_flight_cannot_be_used_again(void **state)
{
    struct harness *harness = *state;
    struct harness_request open = adding();
    open.open = true;
    harness_attach(harness, 1);
    harness_send(harness, 1, 5, open);
    harness_send(harness, 1, 5, open);
    expect_only_this_relay_ends(harness);
    harness_send(harness, 1, 5, adding()); /* on a new relay numbers begin anew */
    struct harness_answer answer;
    harness_answer(&answer, harness, 1);
    assert_int_equal(answer.http_status, 201);
    assert_int_equal(answer.id, 5);
    harness_answer_free(&answer);
    assert_int_equal(fake_silo->items, 1);
}

static void descriptors_on_a_relay_end_it(void **state)
{
    struct harness *harness = *state;
    struct fault fault;
    harness_attach(harness, 1);
    int fd = harness->supervisor;
    assert_int_equal(ipc_send(harness->gateways[1], MESSAGE_RELAY_CANCEL, 1, (struct span){0}, &fd,
                              1, &fault), OK);
    expect_only_this_relay_ends(harness);
}

static void streams_of_a_gateway_are_bounded(void **state)
{
    struct harness *harness = *state;
    struct harness_request open = adding();
    open.open = true;
    harness_attach(harness, 1);
    for (uint32_t i = 0; i < RELAY_STREAMS_MAX; i++)
        harness_send(harness, 1, i, open);
    harness_ask(harness, reading(), 200, NULL);
    harness_send_raw(harness, 1, MESSAGE_RELAY_CANCEL, 77, (struct span){0});
    harness_send(harness, 1, 77, adding()); /* all but one are open still */
    struct harness_answer answer;
    harness_answer(&answer, harness, 1);
    assert_int_equal(answer.id, 77);
    harness_answer_free(&answer);
    harness_send(harness, 1, 77, open);
    harness_send(harness, 1, RELAY_STREAMS_MAX, open);
    expect_only_this_relay_ends(harness);
}

static void bodies_that_are_arriving_are_bounded_in_all(void **state)
{
    struct harness *harness = *state;
    static uint8_t body[400000];
    struct harness_request open = adding();
    memset(body, 'x', sizeof body);
    open.body = SPAN_OF(body);
    open.open = true;
    uint32_t fitting = CELL_BODIES_MAX / sizeof body;
    for (uint32_t i = 0; i <= fitting; i++)
        harness_send(harness, 0, 100 + i, open);
    for (uint32_t i = 0; i <= fitting; i++) {
        struct harness_answer answer;
        harness_send_raw(harness, 0, MESSAGE_RELAY_BODY, 100 + i, SPAN("\1\0\0\0\0"));
        harness_answer(&answer, harness, 0);
        assert_int_equal(answer.http_status, i < fitting ? 201 : 503);
        harness_answer_free(&answer);
    }
    assert_int_equal(fake_silo->items, fitting);
    open.open = false;
    harness_ask(harness, open, 201, NULL); /* and the room is there again */
}

static void a_body_beyond_every_limit_ends_the_relay(void **state)
{
    struct harness *harness = *state;
    static uint8_t body[HTTP_BODY_MAX + 1];
    struct harness_request request = adding();
    request.body = SPAN_OF(body);
    harness_attach(harness, 1);
    harness_send(harness, 1, 1, request);
    expect_only_this_relay_ends(harness);
}

static void a_cancelled_request_that_had_not_begun_does_nothing(void **state)
{
    struct harness *harness = *state;
    struct harness_request open = adding();
    open.open = true;
    harness_send(harness, 0, 5, open);
    harness_send_raw(harness, 0, MESSAGE_RELAY_CANCEL, 5, (struct span){0});
    harness_ask(harness, reading(), 200, "\"items\":0");
    harness_pause(harness);
    harness_send(harness, 0, 6, adding());
    harness_send(harness, 0, 7, adding());
    harness_send(harness, 0, 8, adding());
    harness_send_raw(harness, 0, MESSAGE_RELAY_CANCEL, 7, (struct span){0});
    harness_resume(harness);
    for (int i = 0; i < 2; i++) {
        struct harness_answer answer;
        harness_answer(&answer, harness, 0);
        assert_int_not_equal(answer.id, 7);
        harness_answer_free(&answer);
    }
    harness_send_raw(harness, 0, MESSAGE_RELAY_CANCEL, 8, (struct span){0}); /* crossed */
    harness_ask(harness, reading(), 200, "\"items\":2");
}

static void a_gateway_that_does_not_read_holds_up_nobody_else(void **state)
{
    struct harness *harness = *state;
    enum { REQUESTS = 60 };
    fake_silo->answer_bytes = MIB(1);
    harness_attach(harness, 1);
    for (uint32_t i = 0; i < REQUESTS; i++)
        harness_send(harness, 1, i, reading());
    for (int i = 0; i < 5; i++)
        harness_ask(harness, reading(), 200, NULL);
    assert_in_range(fake_silo->handled, 6, 40); /* the rest waits for room, not in memory */
    for (uint32_t i = 0; i < REQUESTS; i++) { /* at last it reads: nothing was lost */
        struct harness_answer answer;
        harness_answer(&answer, harness, 1);
        assert_int_equal(answer.http_status, 200);
        assert_true(answer.body.length >= MIB(1));
        harness_answer_free(&answer);
    }
}

static void requests_of_a_gateway_that_is_gone_are_forgotten(void **state)
{
    struct harness *harness = *state;
    struct harness_request open = adding();
    open.open = true;
    harness_attach(harness, 1);
    harness_send(harness, 1, 1, open);
    cleanup_close(&harness->gateways[1]);
    harness_attach(harness, 1);
    harness_send(harness, 1, 1, reading());
    struct harness_answer answer;
    harness_answer(&answer, harness, 1);
    assert_int_equal(answer.http_status, 200);
    harness_answer_free(&answer);
    int older = harness->gateways[1];
    harness->gateways[1] = -1;
    harness_attach(harness, 1); /* a newer relay replaces an older one */
    harness_expect_closed(harness, older);
    cleanup_close(&older);
    assert_int_equal(fake_silo->items, 0);
}

int main(int count, char **arguments)
{
    harness_main(count, arguments, fake_silo_attach);
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_malformed_message_ends_its_relay_and_no_other),
        TEST(a_message_out_of_turn_ends_its_relay),
        TEST(a_stream_number_in_flight_cannot_be_used_again),
        TEST(descriptors_on_a_relay_end_it),
        TEST(streams_of_a_gateway_are_bounded),
        TEST(bodies_that_are_arriving_are_bounded_in_all),
        TEST(a_body_beyond_every_limit_ends_the_relay),
        TEST(a_cancelled_request_that_had_not_begun_does_nothing),
        TEST(a_gateway_that_does_not_read_holds_up_nobody_else),
        TEST(requests_of_a_gateway_that_is_gone_are_forgotten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
