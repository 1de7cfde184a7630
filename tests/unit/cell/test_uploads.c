/* Bodies of bytes on their way in: what a gateway may send, and what becomes of it. */
#include "fake_silo.h"
#include "harness.h"

#include "base/cleanup.h"
#include "base/clock.h"

#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

enum { PIECE = 50000, ROOMY_MS = 10000 };

static struct harness_request putting(void)
{
    return (struct harness_request){.method = "PUT", .path = "/v1/objects/a/b", .token = token,
                                    .content_type = "text/plain", .open = true};
}

static void send_piece(struct harness *harness, uint32_t id, uint64_t from, size_t length,
                       uint8_t flags)
{
    static uint8_t piece[RELAY_FRAGMENT_MAX];
    for (size_t i = 0; i < length; i++)
        piece[i] = fake_byte(from + i);
    harness_send_body(harness, 1, id, flags, (struct span){piece, length});
}

/* The body, within the credit that comes for it. */
static void send_all(struct harness *harness, uint32_t id, uint64_t length)
{
    struct harness_answer answer = {0};
    uint64_t sent = 0;
    while (sent < length) {
        uint64_t left = length - sent, open = RELAY_WINDOW + answer.credit - sent;
        size_t piece = (size_t)(left < PIECE ? left : PIECE);
        if (piece > open) {
            assert_true(harness_part(&answer, harness, 1, ROOMY_MS));
            assert_int_equal(answer.fragments, 0);
            assert_true(answer.credit <= sent); /* never for what did not come */
            continue;
        }
        sent += piece;
        send_piece(harness, id, sent - piece, piece, sent == length ? FLAG_END : 0);
    }
}

static void expect(struct harness *harness, uint32_t id, int http_status, const char *text)
{
    struct harness_answer answer;
    harness_answer(&answer, harness, 1);
    const char *body = (const char *)answer.body.data;
    if (answer.id != id || answer.http_status != http_status || !strstr(body, text))
        fail_msg("stream %u: %d %s", answer.id, answer.http_status, body);
    harness_answer_free(&answer);
}

static void an_upload_is_given_on_as_it_comes(void **state)
{
    struct harness *harness = *state;
    harness_attach(harness, 1);
    harness_send(harness, 1, 1, putting());
    send_all(harness, 1, MIB(3) + 17);
    expect(harness, 1, 201, "{\"bytes\":3145745}");
    assert_int_equal(fake_silo->put_odd, 0);
    assert_int_equal(fake_silo->said_length, -1);
    assert_int_equal(fake_silo->uploads_taken, 1);
    assert_int_equal(fake_silo->uploads_open, 0);
    assert_int_equal(fake_silo->items, 1);
    struct harness_request request = putting();
    request.length = PIECE;
    harness_send(harness, 1, 1, request); /* the number is free again */
    send_all(harness, 1, PIECE);
    expect(harness, 1, 201, "{\"bytes\":50000}");
    assert_int_equal(fake_silo->said_length, PIECE);
}

static void an_upload_of_nothing_is_an_upload(void **state)
{
    struct harness *harness = *state;
    struct harness_request request = putting();
    request.open = false;
    harness_attach(harness, 1);
    harness_send(harness, 1, 1, request);
    expect(harness, 1, 201, "{\"bytes\":0}");
}

static void expect_only_this_relay_ends(struct harness *harness)
{
    struct ipc_message message;
    status came;
    while ((came = harness_receive(&message, harness, harness->gateways[1], ROOMY_MS)) == OK)
        assert_int_equal(message.type, MESSAGE_RELAY_CREDIT);
    assert_int_equal(came, CLOSED);
    harness_ask(harness, reading(), 200, NULL);
    assert_int_equal(fake_silo->uploads_open, 0);
    harness_attach(harness, 1);
}

static void bytes_beyond_the_credit_end_the_relay(void **state)
{
    struct harness *harness = *state;
    harness_attach(harness, 1);
    harness_pause(harness); /* no credit comes meanwhile */
    harness_send(harness, 1, 1, putting());
    for (uint64_t sent = 0; sent <= RELAY_WINDOW; sent += PIECE)
        send_piece(harness, 1, sent, PIECE, 0);
    fake_silo->begin_fails = FORBIDDEN_CLEARANCE; /* nor for what is dropped */
    harness_resume(harness);
    expect_only_this_relay_ends(harness);
}

static void a_body_of_another_length_than_said_ends_the_relay(void **state)
{
    struct harness *harness = *state;
    struct harness_request request = putting();
    request.length = 1000;
    harness_attach(harness, 1);
    harness_send(harness, 1, 1, request);
    send_piece(harness, 1, 0, 1001, 0);
    expect_only_this_relay_ends(harness);
    harness_send(harness, 1, 1, request);
    send_piece(harness, 1, 0, 999, FLAG_END);
    expect_only_this_relay_ends(harness);
    assert_int_equal(fake_silo->items, 0);
}

static void credit_that_nobody_can_give_ends_the_relay(void **state)
{
    struct harness *harness = *state;
    harness_attach(harness, 1);
    harness_send_credit(harness, 1, 77, 1000); /* of a stream that is over: means nothing */
    for (uint32_t bytes = 0; bytes < 2; bytes++) {
        harness_send(harness, 1, 1, putting()); /* it streams in only */
        harness_send_credit(harness, 1, 1, bytes);
        expect_only_this_relay_ends(harness);
    }
    harness_send_raw(harness, 1, MESSAGE_RELAY_CREDIT, 1, SPAN("\0\0\1"));
    expect_only_this_relay_ends(harness);
}

static void a_refused_head_is_answered_before_its_body(void **state)
{
    struct harness *harness = *state;
    harness_attach(harness, 1);
    fake_silo->begin_fails = FORBIDDEN_CLEARANCE;
    harness_send(harness, 1, 1, putting());
    expect(harness, 1, 403, "forbidden_clearance");
    assert_int_equal(fake_silo->refused, 1);
    send_piece(harness, 1, 0, PIECE, 0); /* was on its way */
    harness_send_raw(harness, 1, MESSAGE_RELAY_CANCEL, 1, (struct span){0});
    struct harness_request request = putting();
    request.token = "nonsense";
    harness_send(harness, 1, 1, request);
    expect(harness, 1, 401, "unauthenticated");
    send_piece(harness, 1, 0, PIECE, FLAG_END); /* over by its end, too */
    request = putting();
    request.length = INT64_C(1) << 40;
    harness_send(harness, 1, 1, request);
    expect(harness, 1, 413, "too_large");
    assert_int_equal(fake_silo->uploads_begun, 0);
}

static void an_upload_that_breaks_is_answered_at_once(void **state)
{
    struct harness *harness = *state;
    harness_attach(harness, 1);
    fake_silo->put_fails = OUT_OF_SPACE;
    fake_silo->put_fails_at = PIECE + 1;
    harness_send(harness, 1, 1, putting());
    send_piece(harness, 1, 0, PIECE, 0);
    send_piece(harness, 1, PIECE, PIECE, 0);
    expect(harness, 1, 507, "out_of_space");
    assert_int_equal(fake_silo->uploads_open, 0);
    send_piece(harness, 1, 2 * PIECE, PIECE, FLAG_END);
    fake_silo->put_fails = 0;
    fake_silo->end_fails = INTERNAL;
    harness_send(harness, 1, 1, putting());
    send_piece(harness, 1, 0, PIECE, FLAG_END);
    expect(harness, 1, 500, "internal");
    assert_int_equal(fake_silo->uploads_open, 0);
    assert_int_equal(fake_silo->items, 0);
}

static void an_upload_that_nobody_ends_is_dropped(void **state)
{
    struct harness *harness = *state;
    harness_attach(harness, 1);
    harness_send(harness, 1, 1, putting());
    send_piece(harness, 1, 0, PIECE, 0);
    harness_send_raw(harness, 1, MESSAGE_RELAY_CANCEL, 1, (struct span){0});
    harness_send(harness, 1, 1, putting());
    send_piece(harness, 1, 0, PIECE, 0);
    harness_send(harness, 1, 2, reading());
    expect(harness, 2, 200, ""); /* all of that has come */
    harness_attach(harness, 1); /* replaced, with what was under way */
    for (int i = 0; i < 2; i++) /* it is swept at the end of a turn */
        harness_ask(harness, reading(), 200, NULL);
    assert_int_equal(fake_silo->uploads_begun, 2);
    assert_int_equal(fake_silo->uploads_open, 0);
    assert_int_equal(fake_silo->items, 0);
}

static void uploads_at_once_are_bounded(void **state)
{
    struct harness *harness = *state;
    harness_attach(harness, 1);
    for (uint32_t i = 0; i < CELL_UPLOADS_MAX; i++)
        harness_send(harness, 1, i, putting());
    harness_send(harness, 1, 100, putting());
    expect(harness, 100, 503, "unavailable");
    send_piece(harness, 3, 0, PIECE, FLAG_END);
    expect(harness, 3, 201, "50000");
    harness_send(harness, 1, 101, putting());
    send_piece(harness, 101, 0, PIECE, FLAG_END);
    expect(harness, 101, 201, "50000");
}

static void an_upload_whose_token_is_revoked_ends(void **state)
{
    struct harness *harness = *state;
    static struct revoked_subject revoked = {.user = "alice"};
    struct charter *charter = &harness->charters[SILO_CHARTER_TENANT];
    harness_attach(harness, 1);
    harness_send(harness, 1, 1, putting());
    send_piece(harness, 1, 0, PIECE, 0);
    harness_ask(harness, reading(), 200, NULL);
    revoked.at = clock_wall_us() / 1000000 + 1;
    charter->subjects = &revoked;
    charter->subject_count = 1;
    harness_sign(harness, SILO_CHARTER_TENANT);
    harness_send_charter(harness, &harness->in_force[SILO_CHARTER_TENANT]);
    send_piece(harness, 1, PIECE, PIECE, 0);
    expect(harness, 1, 401, "unauthenticated");
    assert_int_equal(fake_silo->uploads_open, 0);
}

static void an_upload_over_the_quota_is_not_begun(void **state)
{
    struct harness *harness = *state;
    harness->charters[SILO_CHARTER_TENANT].posture.quotas.bytes_stored = 1000;
    fake_silo->bytes = 1000;
    harness_sign(harness, SILO_CHARTER_TENANT);
    harness_send_charter(harness, &harness->in_force[SILO_CHARTER_TENANT]);
    harness_attach(harness, 1);
    harness_send(harness, 1, 1, putting());
    expect(harness, 1, 429, "bytes_stored");
    assert_int_equal(fake_silo->uploads_begun, 0);
}

static void an_upload_whose_commit_fails_did_not_happen(void **state)
{
    struct harness *harness = *state;
    harness_attach(harness, 1);
    fake_silo->commit_fails = 1;
    fake_silo->fail_status = OUT_OF_SPACE;
    harness_send(harness, 1, 1, putting());
    send_piece(harness, 1, 0, PIECE, FLAG_END);
    expect(harness, 1, 507, "out_of_space");
    assert_int_equal(fake_silo->items, 0);
    assert_int_equal(fake_silo->uploads_open, 0);
}

static void the_largest_document_is_taken_whole(void **state)
{
    struct harness *harness = *state;
    uint8_t *body = malloc(DOCUMENT_BODY_MAX + 1);
    struct harness_request request = {
        .method = "PUT", .path = "/v1/documents/d", .token = token,
        .body = {body, DOCUMENT_BODY_MAX},
    };
    memset(body, 'x', DOCUMENT_BODY_MAX + 1);
    harness_ask(harness, request, 201, "\"bytes\":6291456");
    harness_attach(harness, 1);
    request.body.length++;
    harness_send(harness, 1, 1, request);
    harness_expect_closed(harness, harness->gateways[1]);
    free(body);
}

int main(int count, char **arguments)
{
    harness_main(count, arguments, fake_silo_attach);
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(bytes_beyond_the_credit_end_the_relay),
        TEST(a_body_of_another_length_than_said_ends_the_relay),
        TEST(credit_that_nobody_can_give_ends_the_relay),
        TEST(a_refused_head_is_answered_before_its_body),
        TEST(an_upload_that_breaks_is_answered_at_once),
        TEST(an_upload_that_nobody_ends_is_dropped),
        TEST(uploads_at_once_are_bounded),
        TEST(an_upload_whose_token_is_revoked_ends),
        TEST(an_upload_over_the_quota_is_not_begun),
        TEST(an_upload_whose_commit_fails_did_not_happen),
        TEST(an_upload_is_given_on_as_it_comes),
        TEST(an_upload_of_nothing_is_an_upload),
        TEST(the_largest_document_is_taken_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
