/* Bodies of NDJSON: each line on its own, in order, with bounded memory, and nobody waits for them.
 */
#include "fake_silo.h"
#include "harness.h"

#include "base/clock.h"

#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

enum { ROOMY_MS = 10000, PIECE = 50000 };

static int setup_two(void **state)
{
    setup(state);
    harness_attach(*state, 1);
    return 0;
}

static struct harness_request batch_of(struct span body)
{
    return (struct harness_request){.method = "POST", .path = "/v1/documents/batch",
                                    .token = token, .content_type = "application/x-ndjson",
                                    .body = body, .chunked = true};
}

static struct harness_request open_batch(void)
{
    struct harness_request request = batch_of((struct span){0});
    request.open = true;
    return request;
}

static void expect(struct harness *harness, const char *lines)
{
    struct harness_answer answer = {0};
    harness_stream(&answer, harness, 1);
    assert_int_equal(answer.http_status, 200);
    assert_string_equal(answer.headers[RELAY_CONTENT_TYPE], "application/x-ndjson");
    assert_true(answer.length == RELAY_LENGTH_UNKNOWN);
    assert_string_equal((const char *)answer.body.data, lines);
    harness_answer_free(&answer);
}

static void each_line_has_its_result_in_order(void **state)
{
    struct harness *harness = *state;
    const struct span body = SPAN("one\n\r\n  \t\nfour!\r\nbad\n\nodd\nlast");
    static const char results[] =
        "{\"line\":1,\"bytes\":3}\n{\"line\":4,\"bytes\":5}\n"
        "{\"line\":5,\"status\":400,\"code\":\"bad_field\",\"detail\":\"text: \\\"bad\\\" is what "
        "it is\"}\n"
        "{\"line\":7,\"status\":500,\"code\":\"internal\",\"detail\":\"the request could not be "
        "carried out\"}\n"
        "{\"line\":8,\"bytes\":4}\n";
    for (size_t piece = 1; piece <= body.length; piece++) { /* wherever the body is cut */
        struct harness_request request = batch_of(body);
        request.first = piece;
        fake_silo->last_line = 0;
        harness_send(harness, 1, 1, request);
        expect(harness, results);
    }
    assert_int_equal(fake_silo->lines_out_of_order, 0);
    assert_int_equal(fake_silo->items, 3 * body.length);
}

static void a_body_without_lines_has_an_empty_answer(void **state)
{
    struct harness *harness = *state;
    harness_send(harness, 1, 1, batch_of((struct span){0}));
    expect(harness, "");
    harness_send(harness, 1, 1, batch_of(SPAN("\n \n\r\n")));
    expect(harness, "");
    assert_int_equal(fake_silo->lines, 0);
}

static void expect_problem(struct harness *harness, int http_status, const char *code)
{
    struct harness_answer answer;
    harness_answer(&answer, harness, 1);
    assert_int_equal(answer.http_status, http_status);
    assert_string_equal(answer.headers[RELAY_CONTENT_TYPE], "application/problem+json");
    assert_non_null(strstr((const char *)answer.body.data, code));
    harness_answer_free(&answer);
}

static void another_content_type_is_refused_before_the_body(void **state)
{
    struct harness *harness = *state;
    struct harness_request request = open_batch();
    request.content_type = "application/json";
    harness_send(harness, 1, 1, request);
    expect_problem(harness, 415, "unsupported_media");
    harness_send_body(harness, 1, 1, FLAG_END, SPAN("one\n"));
    request.content_type = "Application/X-NDJSON; charset=utf-8";
    harness_send(harness, 1, 1, request);
    harness_send_body(harness, 1, 1, FLAG_END, SPAN("one\n"));
    expect(harness, "{\"line\":1,\"bytes\":3}\n");
    assert_int_equal(fake_silo->lines, 1);
}

/* So many bytes of one letter, within the credit that comes. */
static void send_letters(struct harness *harness, struct harness_answer *answer, uint32_t id,
                         uint64_t *sent, uint64_t count)
{
    static uint8_t letters[PIECE];
    memset(letters, 'x', sizeof letters);
    for (uint64_t end = *sent + count; *sent < end;) {
        uint64_t left = end - *sent;
        size_t piece = (size_t)(left < PIECE ? left : PIECE);
        if (piece > RELAY_WINDOW + answer->credit - *sent) {
            assert_true(harness_part(answer, harness, 1, ROOMY_MS));
            continue;
        }
        harness_send_body(harness, 1, id, 0, (struct span){letters, piece});
        *sent += piece;
    }
}

static void a_line_beyond_its_bound_fails_alone(void **state)
{
    struct harness *harness = *state;
    struct harness_answer answer = {0};
    uint64_t sent = 0;
    harness_send(harness, 1, 1, open_batch());
    for (uint64_t over = 0; over < 2; over++) { /* the longest that fits, one byte more */
        send_letters(harness, &answer, 1, &sent, DOCUMENT_BODY_MAX + over);
        harness_send_body(harness, 1, 1, 0, SPAN("\r\n"));
        sent += 2;
    }
    send_letters(harness, &answer, 1, &sent, 3 * DOCUMENT_BODY_MAX);
    harness_send_body(harness, 1, 1, FLAG_END, SPAN("\nlast"));
    harness_stream(&answer, harness, 1);
    const char *body = (const char *)answer.body.data;
    assert_non_null(strstr(body, "{\"line\":1,\"bytes\":6291456}\n"));
    assert_non_null(strstr(body, "{\"line\":2,\"status\":413,\"code\":\"too_large\""));
    assert_non_null(strstr(body, "{\"line\":3,\"status\":413,\"code\":\"too_large\""));
    assert_non_null(strstr(body, "{\"line\":4,\"bytes\":4}\n"));
    harness_answer_free(&answer);
    assert_int_equal(fake_silo->lines, 2);
}

/* All of them together are more than a cell keeps. */
static void lines_that_are_half_there_are_bounded_in_all(void **state)
{
    struct harness *harness = *state;
    enum { BATCHES = 8 };
    struct harness_answer answers[BATCHES] = {0};
    uint64_t sent[BATCHES] = {0};
    uint32_t lost = 0;
    for (uint32_t i = 0; i < BATCHES; i++) {
        harness_send(harness, 1, i, open_batch());
        send_letters(harness, &answers[i], i, &sent[i], MIB(5));
    }
    for (uint32_t i = 0; i < BATCHES; i++) {
        harness_send_body(harness, 1, i, FLAG_END, SPAN("\nlast"));
        harness_stream(&answers[i], harness, 1);
        const char *body = (const char *)answers[i].body.data;
        lost += strstr(body, "{\"line\":1,\"status\":503,\"code\":\"unavailable\"") != NULL;
        assert_non_null(strstr(body, "{\"line\":2,\"bytes\":4}\n"));
        harness_answer_free(&answers[i]);
    }
    assert_in_range(lost, 2, 4);
    assert_int_equal(fake_silo->lines, 2 * BATCHES - lost);
}

static void others_are_answered_between_lines(void **state)
{
    struct harness *harness = *state;
    struct buffer body = buffer_of(MIB(1));
    struct harness_answer answer = {0};
    for (int i = 0; i < 3000; i++)
        buffer_put_text(&body, "line\n");
    fake_silo->line_us = 1000;
    harness_send(harness, 1, 1, batch_of(buffer_span(&body)));
    while (fake_silo->lines == 0)
        harness_ask(harness, reading(), 200, NULL);
    harness_ask(harness, reading(), 200, NULL);
    assert_in_range(fake_silo->lines, 1, 2000); /* it did not wait for them */
    harness_stream(&answer, harness, 1);
    assert_int_equal(fake_silo->lines, 3000);
    assert_int_equal(fake_silo->lines_out_of_order, 0);
    assert_true(fake_silo->commits < 1500); /* many share one */
    harness_answer_free(&answer);
    buffer_free(&body);
}

static void a_client_that_does_not_read_holds_up_its_own_lines(void **state)
{
    struct harness *harness = *state;
    enum { LINES = 60000 };
    struct buffer body = buffer_of(MIB(1));
    struct harness_answer answer = {0};
    for (int i = 0; i < LINES; i++)
        buffer_put_text(&body, "x\n");
    harness_send(harness, 1, 1, batch_of(buffer_span(&body)));
    while (answer.body.length < RELAY_WINDOW)
        assert_true(harness_part(&answer, harness, 1, ROOMY_MS));
    assert_int_equal(answer.body.length, RELAY_WINDOW);
    for (int i = 0; i < 50; i++)
        harness_ask(harness, reading(), 200, NULL);
    assert_in_range(fake_silo->lines, 20000, 35000);
    harness_send_credit(harness, 1, 1, RELAY_WINDOW);
    harness_stream(&answer, harness, 1);
    assert_int_equal(fake_silo->lines, LINES);
    harness_answer_free(&answer);
    buffer_free(&body);
}

static void a_commit_that_fails_is_told_for_each_line_of_it(void **state)
{
    struct harness *harness = *state;
    fake_silo->commit_fails = 1;
    fake_silo->fail_status = OUT_OF_SPACE;
    harness_send(harness, 1, 1, open_batch());
    harness_send_body(harness, 1, 1, 0, SPAN("one\nbad\nthree\n"));
    struct harness_answer answer = {0};
    while (answer.fragments == 0)
        assert_true(harness_part(&answer, harness, 1, ROOMY_MS));
    for (int i = 1; i <= 3; i++) {
        char line[64];
        snprintf(line, sizeof line, "{\"line\":%d,\"status\":507,\"code\":\"out_of_space\"", i);
        assert_non_null(strstr((const char *)answer.body.data, line));
    }
    assert_int_equal(fake_silo->items, 0);
    assert_int_equal(fake_silo->lines_undone, 2); /* entries: that it was tried */
    harness_send_body(harness, 1, 1, FLAG_END, SPAN("four"));
    harness_stream(&answer, harness, 1);
    assert_non_null(strstr((const char *)answer.body.data, "{\"line\":4,\"bytes\":4}\n"));
    assert_int_equal(fake_silo->items, 1);
    harness_answer_free(&answer);
}

static void revoke_alice(struct harness *harness)
{
    static struct revoked_subject revoked = {.user = "alice"};
    struct charter *charter = &harness->charters[SILO_CHARTER_TENANT];
    revoked.at = clock_wall_us() / 1000000 + 1;
    charter->subjects = &revoked;
    charter->subject_count = 1;
    harness_sign(harness, SILO_CHARTER_TENANT);
    harness_send_charter(harness, &harness->in_force[SILO_CHARTER_TENANT]);
}

static void a_batch_whose_token_is_revoked_ends_with_a_line_that_says_so(void **state)
{
    struct harness *harness = *state;
    struct harness_answer answer = {0};
    harness_send(harness, 1, 1, open_batch());
    harness_send_body(harness, 1, 1, 0, SPAN("one\n"));
    while (answer.fragments == 0)
        assert_true(harness_part(&answer, harness, 1, ROOMY_MS));
    revoke_alice(harness);
    harness_send_body(harness, 1, 1, 0, SPAN("\ntwo\nthree\n"));
    harness_stream(&answer, harness, 1);
    const char *end = strstr((const char *)answer.body.data, "{\"line\":3,\"status\":401,");
    assert_non_null(end);
    assert_null(strstr(end + 1, "{\"line"));
    harness_answer_free(&answer);
    harness_send_body(harness, 1, 1, 0, SPAN("four\n")); /* dropped */
    harness_send_raw(harness, 1, MESSAGE_RELAY_CANCEL, 1, (struct span){0});
    harness_send(harness, 1, 1, open_batch()); /* that has not begun: as any request */
    expect_problem(harness, 401, "unauthenticated");
    assert_int_equal(fake_silo->lines, 1);
}

static void a_batch_that_is_revoked_before_its_first_line_is_refused(void **state)
{
    struct harness *harness = *state;
    harness_send(harness, 1, 1, open_batch());
    harness_ask(harness, reading(), 200, NULL);
    revoke_alice(harness);
    harness_send_body(harness, 1, 1, 0, SPAN("one\ntwo\n"));
    expect_problem(harness, 401, "unauthenticated");
    assert_int_equal(fake_silo->lines, 0);
}

static void the_quota_of_bytes_is_asked_for_each_line(void **state)
{
    struct harness *harness = *state;
    harness->charters[SILO_CHARTER_TENANT].posture.quotas.bytes_stored = 1000;
    fake_silo->item_bytes = 600;
    harness_sign(harness, SILO_CHARTER_TENANT);
    harness_send_charter(harness, &harness->in_force[SILO_CHARTER_TENANT]);
    harness_pause(harness); /* all in one turn */
    harness_send(harness, 1, 1, batch_of(SPAN("one\ntwo\nthree\nfour\n")));
    harness_resume(harness);
    struct harness_answer answer = {0};
    harness_stream(&answer, harness, 1);
    const char *body = (const char *)answer.body.data;
    assert_non_null(strstr(body, "{\"line\":2,\"bytes\":3}\n"));
    assert_non_null(strstr(body, "{\"line\":3,\"status\":429,\"code\":\"quota_exceeded\""));
    assert_non_null(strstr(body, "{\"line\":4,\"status\":429,\"code\":\"quota_exceeded\""));
    harness_answer_free(&answer);
    assert_int_equal(fake_silo->items, 2);
}

static void a_token_that_serves_once_serves_one_batch(void **state)
{
    struct harness *harness = *state;
    char once[2048], payload[512];
    static struct token_issuer issuer;
    struct charter *charter = &harness->charters[SILO_CHARTER_TENANT];
    issuer = harness_issuer(harness);
    issuer.jti_once = true;
    snprintf(issuer.tenant, sizeof issuer.tenant, "%s", harness->tenant_text);
    charter->issuers = &issuer;
    charter->issuer_count = 1;
    harness_sign(harness, SILO_CHARTER_TENANT);
    harness_send_charter(harness, &harness->in_force[SILO_CHARTER_TENANT]);
    long long now = clock_wall_us() / 1000000;
    snprintf(payload, sizeof payload,
             "{\"iss\":\"https://idp.example\",\"aud\":\"bulkhead\",\"sub\":\"carol\","
             "\"tenant_id\":\"%s\",\"iat\":%lld,\"exp\":%lld,\"jti\":\"a\","
             "\"scope\":\"memory:write\"}", harness->tenant_text, now, now + 100);
    harness_raw_token(once, harness, true, payload);
    struct harness_request request = open_batch();
    request.token = once;
    fake_silo->commit_fails = 1; /* the first turn is taken back, and the token with it */
    fake_silo->fail_status = OUT_OF_SPACE;
    harness_send(harness, 1, 1, request);
    harness_send_body(harness, 1, 1, 0, SPAN("one\ntwo\n"));
    struct harness_answer answer = {0};
    while (answer.fragments == 0)
        assert_true(harness_part(&answer, harness, 1, ROOMY_MS));
    assert_int_equal(fake_silo->tokens_used, 1);
    harness_send_body(harness, 1, 1, 0, SPAN("bad\nfour\n"));
    while (!strstr((const char *)answer.body.data, "\"line\":4"))
        assert_true(harness_part(&answer, harness, 1, ROOMY_MS));
    assert_int_equal(fake_silo->tokens_used, 2);
    harness_send_body(harness, 1, 1, FLAG_END, SPAN("five\n"));
    harness_stream(&answer, harness, 1);
    assert_int_equal(fake_silo->tokens_used, 2);
    assert_int_equal(fake_silo->items, 2);
    harness_answer_free(&answer);
}

static void a_batch_that_is_cancelled_stops_where_it_is(void **state)
{
    struct harness *harness = *state;
    harness_send(harness, 1, 1, open_batch());
    harness_send_body(harness, 1, 1, 0, SPAN("one\n"));
    struct harness_answer answer = {0};
    while (answer.fragments == 0)
        assert_true(harness_part(&answer, harness, 1, ROOMY_MS));
    harness_send_body(harness, 1, 1, 0, SPAN("half a li"));
    harness_send_raw(harness, 1, MESSAGE_RELAY_CANCEL, 1, (struct span){0});
    harness_send(harness, 1, 1, batch_of(SPAN("new")));
    harness_answer_free(&answer);
    expect(harness, "{\"line\":1,\"bytes\":3}\n");
    assert_int_equal(fake_silo->items, 2);
}

static void batches_at_once_are_bounded(void **state)
{
    struct harness *harness = *state;
    for (uint32_t i = 0; i < CELL_UPLOADS_MAX; i++)
        harness_send(harness, 1, i, open_batch());
    harness_send(harness, 1, 100, open_batch());
    expect_problem(harness, 503, "unavailable");
    for (uint32_t i = 0; i < CELL_UPLOADS_MAX; i++) {
        harness_send_body(harness, 1, i, FLAG_END, SPAN("one"));
        expect(harness, "{\"line\":1,\"bytes\":3}\n");
    }
}

int main(int count, char **arguments)
{
    harness_main(count, arguments, fake_silo_attach);
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup_two, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_line_beyond_its_bound_fails_alone),
        TEST(lines_that_are_half_there_are_bounded_in_all),
        TEST(others_are_answered_between_lines),
        TEST(a_client_that_does_not_read_holds_up_its_own_lines),
        TEST(batches_at_once_are_bounded),
        TEST(another_content_type_is_refused_before_the_body),
        TEST(a_batch_whose_token_is_revoked_ends_with_a_line_that_says_so),
        TEST(a_batch_that_is_revoked_before_its_first_line_is_refused),
        TEST(a_batch_that_is_cancelled_stops_where_it_is),
        TEST(a_token_that_serves_once_serves_one_batch),
        TEST(a_commit_that_fails_is_told_for_each_line_of_it),
        TEST(the_quota_of_bytes_is_asked_for_each_line),
        TEST(each_line_has_its_result_in_order),
        TEST(a_body_without_lines_has_an_empty_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
