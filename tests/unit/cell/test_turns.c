/* The cell over a silo that the test steers: requests, turns, relays. */
#include "fake_silo.h"
#include "harness.h"

#include "base/clock.h"
#include "base/cleanup.h"

#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

enum { BURST = 20 };

static struct harness_request read_with(const char *bearer)
{
    return (struct harness_request){.method = "GET", .path = "/v1/memories", .token = bearer};
}

static struct harness_request add_with(const char *bearer)
{
    return (struct harness_request){.method = "POST", .path = "/v1/memories", .token = bearer,
                                    .body = SPAN("{\"text\":\"x\"}")};
}

static void a_request_with_a_good_token_is_answered(void **state)
{
    harness_ask(*state, read_with(token), 200, "\"items\":0");
    harness_ask(*state, add_with(token), 201, "\"items\":1");
    harness_ask(*state, read_with(token), 200, "\"items\":1");
    assert_int_equal(fake_silo->handled, 3);
}

static void an_error_is_a_problem_document_with_the_trace_of_the_request(void **state)
{
    struct harness *harness = *state;
    struct harness_answer answer;
    harness_send(harness, 0, 7, read_with("nonsense"));
    harness_answer(&answer, harness, 0);
    const char *body = (const char *)answer.body.data;
    assert_int_equal(answer.id, 7);
    assert_int_equal(answer.http_status, 401);
    assert_string_equal(answer.headers[RELAY_CONTENT_TYPE], "application/problem+json");
    assert_non_null(strstr(body, "\"code\":\"unauthenticated\""));
    assert_non_null(strstr(body, "\"trace_id\":\"abcd0000000000000000000000000007\""));
    harness_answer_free(&answer);
}

static void a_token_that_is_not_this_tenants_is_refused_before_the_silo(void **state)
{
    struct harness *harness = *state;
    const struct harness_token bad[] = {
        {.forged = true},
        {.tenant = "00112233445566778899aabbccddeeff"},
        {.age_seconds = 1000, .ttl_seconds = 600},
    };
    harness_ask(harness, read_with(""), 401, "unauthenticated");
    for (size_t i = 0; i < 3; i++) {
        char text[2048];
        harness_token(text, harness, bad[i]);
        harness_ask(harness, read_with(text), 401, "unauthenticated");
        harness_ask(harness, add_with(text), 401, "unauthenticated");
    }
    assert_int_equal(fake_silo->handled, 0);
    assert_int_equal(fake_silo->refused, 0); /* nobody we know: no entry in the tenant's log */
    harness_ask(harness, read_with(token), 200, NULL);
}

static void what_exists_is_told_only_to_those_who_belong(void **state)
{
    struct harness *harness = *state;
    char foreign[2048];
    harness_token(foreign, harness,
                  (struct harness_token){.tenant = "00112233445566778899aabbccddeeff"});
    struct harness_request unknown = {.method = "GET", .path = "/v1/nothing", .token = token};
    struct harness_request wrong = {.method = "PUT", .path = "/v1/memories", .token = token};
    harness_ask(harness, unknown, 404, "not_found");
    harness_send(harness, 0, 1, wrong);
    struct harness_answer answer;
    harness_answer(&answer, harness, 0);
    assert_int_equal(answer.http_status, 405);
    assert_non_null(strstr(answer.headers[RELAY_ALLOW], "POST"));
    harness_answer_free(&answer);
    unknown.token = wrong.token = foreign;
    harness_ask(harness, unknown, 401, NULL);
    harness_send(harness, 0, 1, wrong);
    harness_answer(&answer, harness, 0);
    assert_int_equal(answer.http_status, 401);
    assert_string_equal(answer.headers[RELAY_ALLOW], "");
    harness_answer_free(&answer);
    struct harness_request climbing = {.method = "GET", .path = "/v1/../memories", .token = token};
    harness_ask(harness, climbing, 400, "bad_request");
}

static void a_refusal_to_somebody_known_is_in_the_log(void **state)
{
    struct harness *harness = *state;
    char reader[2048];
    harness_token(reader, harness, (struct harness_token){.scope = "memory:read"});
    harness_ask(harness, add_with(reader), 403, "memory:write");
    assert_int_equal(fake_silo->last_refusal, FORBIDDEN_SCOPE);
    struct harness_request odd = read_with(reader);
    odd.query = "limit=3&colour=red";
    harness_ask(harness, odd, 400, "bad_field");
    assert_int_equal(fake_silo->last_refusal, BAD_FIELD);
    assert_int_equal(fake_silo->refused, 2);
    assert_int_equal(fake_silo->handled, 0);
    odd.query = "limit=3";
    harness_ask(harness, odd, 200, NULL);
}

static void a_body_must_be_wanted_and_json_and_small_enough(void **state)
{
    struct harness *harness = *state;
    static uint8_t large[HTTP_BODY_MAX];
    struct harness_request request = add_with(token);
    request.content_type = "text/plain";
    harness_ask(harness, request, 415, "unsupported_media");
    request.content_type = "Application/JSON; charset=utf-8";
    harness_ask(harness, request, 201, NULL);
    request.content_type = "application/jsonx";
    harness_ask(harness, request, 415, NULL);
    request = add_with(token);
    memset(large, ' ', sizeof large);
    request.body = SPAN_OF(large);
    harness_ask(harness, request, 413, "too_large");
    request = read_with(token);
    request.body = SPAN("{}");
    harness_ask(harness, request, 400, "takes no body");
    assert_int_equal(fake_silo->items, 1);
}

static void a_body_in_pieces_arrives_whole(void **state)
{
    static uint8_t body[200000];
    memset(body, 'b', sizeof body);
    body[0] = 'a';
    struct harness_request request = add_with(token);
    request.body = SPAN_OF(body);
    harness_ask(*state, request, 201, "\"bytes\":200000,\"first\":\"a\"");
    request.first = 1;
    request.body.length = 300;
    harness_ask(*state, request, 201, "\"bytes\":300,\"first\":\"a\"");
}

static void a_long_answer_leaves_in_fragments(void **state)
{
    struct harness *harness = *state;
    struct harness_answer answer;
    fake_silo->answer_bytes = 5 * RELAY_FRAGMENT_MAX;
    harness_send(harness, 0, 3, read_with(token));
    harness_answer(&answer, harness, 0);
    assert_int_equal(answer.http_status, 200);
    assert_int_equal(answer.fragments, 6);
    assert_true(answer.body.length > 5 * RELAY_FRAGMENT_MAX);
    harness_answer_free(&answer);
    fake_silo->answer_bytes = CELL_RESPONSE_MAX + 1;
    harness_ask(harness, read_with(token), 500, "internal");
}

static void mutations_that_arrive_together_share_one_commit(void **state)
{
    struct harness *harness = *state;
    bool seen[BURST] = {0};
    uint32_t before = fake_silo->commits;
    harness_attach(harness, 1);
    harness_ask(harness, read_with(token), 200, NULL); /* both relays are being watched */
    harness_pause(harness);
    for (uint32_t i = 0; i < BURST; i++)
        harness_send(harness, i % 2, i, add_with(token));
    harness_resume(harness);
    for (uint32_t i = 0; i < BURST; i++) {
        struct harness_answer answer;
        harness_answer(&answer, harness, i % 2);
        assert_int_equal(answer.http_status, 201);
        assert_in_range(answer.id, 0, BURST - 1);
        assert_false(seen[answer.id]);
        seen[answer.id] = true;
        harness_answer_free(&answer);
    }
    assert_int_equal(fake_silo->items, BURST);
    assert_in_range(fake_silo->commits - before, 1, 2); /* the entry of the read may come first */
}

static void a_read_does_not_wait_but_its_entry_follows(void **state)
{
    struct harness *harness = *state;
    harness_ask(harness, read_with(token), 200, NULL);
    assert_int_equal(fake_silo->log_size, 0);
    int64_t since_us = clock_monotonic_us();
    while (fake_silo->log_size == 0 && clock_monotonic_us() - since_us < 2000000)
        harness_serve_kms(harness, 5);
    assert_int_equal(fake_silo->log_size, 1);
}

static void under_strict_audit_a_read_waits_for_its_entry(void **state)
{
    fake_silo->strict = true;
    harness_ask(*state, read_with(token), 200, NULL);
    assert_int_equal(fake_silo->log_size, 1);
}

static void pair_at_once(struct harness *harness, int read_status, int mutation_status,
                         const char *mutation_code)
{
    harness_pause(harness);
    harness_send(harness, 0, 1, add_with(token));
    harness_send(harness, 0, 2, read_with(token));
    harness_resume(harness);
    for (int i = 0; i < 2; i++) {
        struct harness_answer answer;
        harness_answer(&answer, harness, 0);
        const char *body = (const char *)answer.body.data;
        if (answer.http_status != (answer.id == 1 ? mutation_status : read_status))
            fail_msg("stream %u: %d %s", answer.id, answer.http_status, body);
        assert_non_null(strstr(body, answer.id == 1 ? mutation_code : "\"items\":0"));
        harness_answer_free(&answer);
    }
}

static void a_full_disk_fails_mutations_and_no_reads(void **state)
{
    fake_silo->fail_status = OUT_OF_SPACE;
    fake_silo->commit_fails = -1;
    pair_at_once(*state, 200, 507, "out_of_space");
    assert_int_equal(fake_silo->refused, 1); /* its own entry went with it */
    assert_int_equal(fake_silo->last_refusal, OUT_OF_SPACE);
    fake_silo->fail_status = CORRUPT;
    pair_at_once(*state, 200, 500, "could not be carried out"); /* no detail of ours */
    fake_silo->commit_fails = 0;
    harness_ask(*state, read_with(token), 200, "\"items\":0"); /* nothing was half done */
    harness_ask(*state, add_with(token), 201, "\"items\":1");
}

static void a_strict_read_is_spared_when_only_the_mutation_does_not_fit(void **state)
{
    fake_silo->strict = true;
    fake_silo->fail_status = OUT_OF_SPACE;
    fake_silo->commit_fails = 1;
    pair_at_once(*state, 200, 507, "out_of_space");
    assert_int_equal(fake_silo->log_size, 2);
}

static void a_strict_read_without_its_entry_is_not_answered(void **state)
{
    fake_silo->strict = true;
    fake_silo->fail_status = OUT_OF_SPACE;
    fake_silo->commit_fails = -1;
    harness_ask(*state, read_with(token), 507, "out_of_space");
}

static void reasons_of_ours_stay_in_the_cell(void **state)
{
    struct harness *harness = *state;
    struct harness_answer answer;
    struct harness_request request = {.method = "DELETE", .path = "/v1/memories/abc",
                                      .token = token};
    harness_send(harness, 0, 1, request);
    harness_answer(&answer, harness, 0);
    assert_int_equal(answer.http_status, 500);
    assert_null(strstr((const char *)answer.body.data, "page 17"));
    harness_answer_free(&answer);
}

static void damage_is_reported_once_for_each_growth(void **state)
{
    struct harness *harness = *state;
    struct ipc_message message;
    struct fault fault;
    uint32_t pages;
    char where[64];
    fake_silo->damage = 3;
    harness_ask(harness, read_with(token), 200, NULL);
    harness_ask(harness, read_with(token), 200, NULL);
    harness_expect(&message, harness, MESSAGE_CELL_DAMAGE);
    struct cursor cursor = cursor_over(message.body);
    assert_int_equal(cursor_u32(&pages, &cursor, &fault), OK);
    assert_int_equal(cursor_text(where, sizeof where, &cursor, "where", &fault), OK);
    assert_int_equal(cursor_end(&cursor, &fault), OK);
    assert_int_equal(pages, 3);
    assert_string_equal(where, "silo.db page 17");
    assert_int_equal(harness_receive(&message, harness, harness->supervisor, 100), AGAIN);
}

static void what_is_past_its_time_is_deleted_batch_by_batch(void **state)
{
    struct harness *harness = *state;
    fake_silo->expire_batches = 4;
    fake_silo->next_expiry_us = clock_wall_us() + 1500000;
    harness_ask(harness, add_with(token), 201, NULL); /* what brought that expiry */
    int64_t since_us = clock_monotonic_us();
    while (fake_silo->expire_batches && clock_monotonic_us() - since_us < 5000000)
        harness_serve_kms(harness, 20);
    assert_int_equal(fake_silo->expired, 4);
    assert_true(clock_monotonic_us() - since_us >= 1400000);
    assert_int_equal(fake_silo->log_size, 5);
}

static void anchors_follow_the_commits(void **state)
{
    struct harness *harness = *state;
    harness_ask(harness, add_with(token), 201, NULL);
    int64_t since_us = clock_monotonic_us();
    while (harness->anchor.commits == 0 && clock_monotonic_us() - since_us < 3000000)
        harness_serve_kms(harness, 20);
    assert_int_equal(harness->anchor.commits, 1);
    assert_int_equal(harness->anchor.log_size, 1);
    harness_serve_kms(harness, 1200);
    assert_int_equal(harness->moves, 1); /* none without a commit */
    assert_int_equal(fake_silo->notes, 1);
    for (int i = 0; i < 5; i++)
        harness_ask(harness, add_with(token), 201, NULL);
    harness_serve_kms(harness, 1200);
    assert_int_equal(harness->anchor.log_size, 6);
    assert_in_range(harness->moves, 2, 3);
    assert_false(harness->anchor_broke_rules);
}

int main(int count, char **arguments)
{
    harness_main(count, arguments, fake_silo_attach);
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_request_with_a_good_token_is_answered),
        TEST(an_error_is_a_problem_document_with_the_trace_of_the_request),
        TEST(a_token_that_is_not_this_tenants_is_refused_before_the_silo),
        TEST(what_exists_is_told_only_to_those_who_belong),
        TEST(a_refusal_to_somebody_known_is_in_the_log),
        TEST(a_body_must_be_wanted_and_json_and_small_enough),
        TEST(a_body_in_pieces_arrives_whole),
        TEST(a_long_answer_leaves_in_fragments),
        TEST(mutations_that_arrive_together_share_one_commit),
        TEST(a_read_does_not_wait_but_its_entry_follows),
        TEST(under_strict_audit_a_read_waits_for_its_entry),
        TEST(a_full_disk_fails_mutations_and_no_reads),
        TEST(a_strict_read_is_spared_when_only_the_mutation_does_not_fit),
        TEST(a_strict_read_without_its_entry_is_not_answered),
        TEST(reasons_of_ours_stay_in_the_cell),
        TEST(damage_is_reported_once_for_each_growth),
        TEST(what_is_past_its_time_is_deleted_batch_by_batch),
        TEST(anchors_follow_the_commits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
