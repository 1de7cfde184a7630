/* Who is turned away, how it reads, and that no cell is woken for it. */
#include "house.h"

#include "base/clock.h"
#include "silo/actions.h"
#include "gateway/state.h"
#include "wire/base64.h"

#include <unistd.h>

static void turned_away_nobody_was_woken(struct house *house)
{
    assert_true(house_quiet(house, house->control));
}

/* A 401's body without what is different in each: the trace id, at its end. */
static void take_401(struct house *house, int client, char text[512])
{
    const struct reply *reply = house_reply(house, client);
    assert_int_equal(reply->status, 401);
    assert_string_equal(reply_header(reply, "WWW-Authenticate"), "Bearer");
    assert_true(span_to_text(text, 512, buffer_span(&reply->body)));
    char *trace = strstr(text, "\"trace_id\"");
    assert_non_null(trace);
    *trace = '\0';
    snprintf(text + strlen(text), 512 - strlen(text), " head of %zu bytes", strlen(reply->head));
}

static void mint_with(struct house *house, const char *tenant, int64_t issued_ago_s,
                      uint8_t *other_seed)
{
    struct token_request request = mint_request();
    struct mint mint = house->mint;
    struct fault fault;
    request.tenant = span_of_text(tenant);
    if (other_seed)
        assert_int_equal(signer_create(&mint.signer, other_seed, &fault), OK);
    mint_token(&house->token, &mint, &request, clock_wall_us() / 1000000 - issued_ago_s);
    buffer_put_u8(&house->token, 0);
    if (other_seed)
        signer_free(mint.signer);
}

static void all_that_do_not_verify_read_alike(void **state)
{
    static const char *const headers[] = {
        "", "Authorization: Basic eDp5\r\n", "Authorization: Bearer\r\n",
        "Authorization: Bearer \r\n", "Authorization: Bearer a.b.c\r\n",
        "Authorization: Bearer a b\r\n", "Authorization: bearer eyJhbGciOiJub25lIn0.e30.\r\n",
        "Authorization: Bearerx.y.z\r\n",
    };
    struct house *house = *state;
    char first[512], text[512];
    uint8_t seed[SIGN_SEED_BYTES] = {9};
    int client = house_dial(house);
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) {
        house_say(house, client, "GET /v1/memories HTTP/1.1\r\nHost: x\r\n%s\r\n", headers[i]);
        take_401(house, client, i == 0 ? first : text);
        assert_string_equal(first, i == 0 ? first : text);
    }
    mint_with(house, TENANT, 3600, NULL); /* expired */
    house_get(house, client, "/v1/memories");
    take_401(house, client, text);
    assert_string_equal(first, text);
    mint_with(house, TENANT, 0, seed); /* another's key */
    house_get(house, client, "/v1/memories");
    take_401(house, client, text);
    assert_string_equal(first, text);
    turned_away_nobody_was_woken(house);
    close(client);
}

static void an_unknown_tenant_reads_like_a_wrong_signature(void **state)
{
    struct house *house = *state;
    char first[512], text[512];
    int client = house_dial(house);
    house_say(house, client, "GET /v1/memories HTTP/1.1\r\nHost: x\r\n"
                             "Authorization: Bearer a.b.c\r\n\r\n");
    take_401(house, client, first);
    house_get(house, client, "/v1/memories");
    house_find(house, TENANT, 0);
    take_401(house, client, text);
    assert_string_equal(first, text);
    house_get(house, client, "/no/such/path"); /* absence is remembered, and says no more here */
    take_401(house, client, text);
    assert_string_equal(first, text);
    house_token(house, OTHER_TENANT, "memory:read");
    house_get(house, client, "/v1/memories");
    house_find(house, OTHER_TENANT, 3); /* erasing */
    take_401(house, client, text);
    assert_string_equal(first, text);
    turned_away_nobody_was_woken(house);
    close(client);
}

/* The kms mints ids only; other issuers' tokens may name the tenant. */
static void mint_name(struct house *house, int64_t issued_at)
{
    char payload[512];
    uint8_t signature[SIGNATURE_BYTES];
    struct fault fault;
    struct buffer body = buffer_of(1024);
    struct buffer *out = &house->token;
    snprintf(payload, sizeof payload,
             "{\"iss\":\"bulkhead\",\"aud\":\"bulkhead\",\"sub\":\"ada\",\"tenant_id\":\"acme\","
             "\"scope\":\"memory:read\",\"iat\":%lld,\"exp\":%lld}", (long long)issued_at,
             (long long)(clock_wall_us() / 1000000 + 600));
    buffer_printf(&body, "{\"alg\":\"EdDSA\",\"typ\":\"at+jwt\",\"kid\":\"%s\"}",
                  house->mint.key_id);
    buffer_clear(out);
    base64url_put(out, buffer_span(&body));
    buffer_put_text(out, ".");
    base64url_put(out, span_of_text(payload));
    assert_int_equal(signer_sign(signature, house->mint.signer, buffer_span(out), &fault), OK);
    token_signature_put(out, signature);
    buffer_put_u8(out, 0);
    buffer_free(&body);
}

static void a_name_counts_only_for_tokens_younger_than_the_tenant(void **state)
{
    struct house *house = *state;
    char first[512], text[512];
    int client = house_dial(house);
    house_say(house, client, "GET /v1/memories HTTP/1.1\r\nHost: x\r\n\r\n");
    take_401(house, client, first);
    int64_t now = clock_wall_us() / 1000000;
    mint_name(house, now);
    house_get(house, client, "/v1/memories");
    house_find(house, "acme", 1); /* made in 1970 */
    int cell = house_wake(house, TENANT);
    struct relayed relayed = house_request(house, cell);
    cell_answer(cell, relayed.id, 200, "{}");
    house_expect(house, client, 200, NULL);
    house_changed(house, TENANT); /* erased, and the name taken again, just now */
    struct ipc_message check = house_next(house, house->control, MESSAGE_TENANT_FIND);
    house_reply_to(house, check.id, NOT_FOUND);
    assert_true(house_closed(house, cell));
    mint_name(house, now - 300);
    house_get(house, client, "/v1/memories");
    struct ipc_message asked = house_next(house, house->control, MESSAGE_TENANT_FIND);
    uint8_t storage[64], id[TENANT_ID_BYTES] = {1};
    struct buffer body = buffer_over(storage, sizeof storage);
    reply_put_head(&body, OK, "");
    buffer_put(&body, SPAN_OF(id));
    buffer_put_u8(&body, 1);
    buffer_put_u64(&body, (uint64_t)(now - 10) * 1000000);
    buffer_put_field(&body, (struct span){0});
    cell_send(house->control, MESSAGE_REPLY, asked.id, buffer_span(&body));
    take_401(house, client, text);
    assert_string_equal(first, text);
    turned_away_nobody_was_woken(house);
    close(client);
    close(cell);
}

static void a_paused_tenant_is_told_so_and_nobody_else_is(void **state)
{
    struct house *house = *state;
    uint8_t seed[SIGN_SEED_BYTES] = {9};
    char text[512];
    int client = house_dial(house);
    house_get(house, client, "/v1/memories");
    house_find(house, TENANT, 2);
    house_expect(house, client, 423, "tenant_paused");
    house_get(house, client, "/no/such/path");
    house_expect(house, client, 423, "tenant_paused");
    mint_with(house, TENANT, 0, seed);
    house_get(house, client, "/v1/memories");
    take_401(house, client, text);
    turned_away_nobody_was_woken(house);
    close(client);
}

static const struct {
    const char *scope, *method, *path;
    int status;
    const char *code;
} matrix[] = {
    {"memory:read", "POST", "/v1/memories", 403, "forbidden_scope"},
    {"memory:read", "DELETE", "/v1/memories/x", 403, "forbidden_scope"},
    {"memory:read", "PATCH", "/v1/memories/x", 403, "forbidden_scope"},
    {"memory:write", "GET", "/v1/memories", 403, "forbidden_scope"},
    {"memory:write", "POST", "/v1/memories/search", 403, "forbidden_scope"},
    {"tenant:read", "GET", "/v1/memories", 403, "forbidden_scope"},
    {"memory:read", "GET", "/v1/tenant", 403, "forbidden_scope"},
    {"memory:any-user", "GET", "/v1/memories", 403, "forbidden_scope"},
    {"", "GET", "/v1/memories", 403, "forbidden_scope"},
    {"memory:read", "GET", "/", 404, "not_found"},
    {"memory:read", "GET", "/v1/memories/", 404, "not_found"},
    {"memory:read", "GET", "/v1/memories/a/b", 404, "not_found"},
    {"memory:read", "GET", "/V1/memories", 404, "not_found"},
    {"memory:read", "GET", "/v1/../v1/memories", 400, "bad_request"},
    {"memory:read", "GET", "/v1/%2e%2e/memories", 400, "bad_request"},
    {"memory:read", "GET", "/v1%2fmemories", 400, "bad_request"},
    {"memory:read", "GET", "/v1/memories/%zz", 400, "bad_request"},
    {"memory:read", "GET", "/v1//memories", 400, "bad_request"},
    {"memory:read", "PUT", "/v1/memories", 405, "method_not_allowed"},
    {"memory:read", "get", "/v1/memories", 405, "method_not_allowed"},
    {"memory:read", "GET", "/v1/memories?limti=3", 400, "bad_field"},
    {"memory:read", "GET", "/v1/memories?limit=1&limit=2", 400, "bad_request"},
    {"memory:read", "GET", "/v1/memories/x?limit=1", 400, "bad_field"},
};

static void what_a_token_does_not_allow_is_refused_without_a_cell(void **state)
{
    struct house *house = *state;
    int client = house_dial(house);
    house_get(house, client, "/no");
    house_find(house, TENANT, 1);
    house_expect(house, client, 404, "not_found");
    for (size_t i = 0; i < sizeof matrix / sizeof *matrix; i++) {
        const char *token = house_token(house, TENANT, matrix[i].scope);
        house_say(house, client, "%s %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n",
                  matrix[i].method, matrix[i].path, token);
        const struct reply *reply = house_reply(house, client);
        if (reply->status != matrix[i].status)
            fail_msg("%s %s with %s: %d", matrix[i].method, matrix[i].path, matrix[i].scope,
                     reply->status);
        assert_string_equal(reply_header(reply, "Content-Type"), "application/problem+json");
        if (reply->status == 405)
            assert_string_equal(reply_header(reply, "Allow"), "POST, GET, HEAD, DELETE");
        else
            assert_null(reply_header(reply, "Allow"));
    }
    turned_away_nobody_was_woken(house);
    close(client);
}

static void an_answer_to_head_has_no_body(void **state)
{
    struct house *house = *state;
    int client = house_dial(house);
    house_say(house, client, "HEAD /v1/memories HTTP/1.1\r\nHost: x\r\n\r\n"
                             "GET /v1/memories HTTP/1.1\r\nHost: x\r\n\r\n");
    char head[2048];
    ssize_t got = 0;
    house_turn(house);
    got = read(client, head, sizeof head - 1);
    assert_true(got > 0);
    head[got] = '\0';
    char *second = strstr(head, "\r\n\r\n") + 4;
    assert_memory_equal(second, "HTTP/1.1 401", 12);
    close(client);
}

static void a_tenant_is_asked_for_again_after_a_second_or_when_it_changed(void **state)
{
    struct house *house = *state;
    int client = house_dial(house);
    house_get(house, client, "/no");
    house_find(house, TENANT, 1);
    house_expect(house, client, 404, NULL);
    house_wait(house, 499);
    house_get(house, client, "/no");
    house_expect(house, client, 404, NULL);
    turned_away_nobody_was_woken(house);
    house_wait(house, 200);
    house_get(house, client, "/no"); /* answered from memory, and asked anew beside it */
    house_expect(house, client, 404, NULL);
    house_find(house, TENANT, 2);
    house_get(house, client, "/no");
    house_expect(house, client, 423, NULL);
    house_changed(house, TENANT);
    house_get(house, client, "/no");
    house_find(house, TENANT, 1);
    house_expect(house, client, 404, NULL);
    house_wait(house, 1001);
    house_next(house, house->control, MESSAGE_DENIED); /* of the 423 */
    house_get(house, client, "/no"); /* too old: waits for the answer */
    assert_true(house_silent(house, client));
    house_find(house, TENANT, 1);
    house_expect(house, client, 404, NULL);
    close(client);
}

static void absence_is_forgotten_when_any_tenant_changes(void **state)
{
    struct house *house = *state;
    int client = house_dial(house);
    house_get(house, client, "/no");
    house_find(house, TENANT, 0);
    house_expect(house, client, 401, NULL);
    house_get(house, client, "/no");
    house_expect(house, client, 401, NULL);
    turned_away_nobody_was_woken(house);
    house_changed(house, OTHER_TENANT);
    house_get(house, client, "/no");
    house_find(house, TENANT, 1);
    house_expect(house, client, 404, NULL);
    close(client);
}

static void denials_are_counted_and_told_once_a_second(void **state)
{
    struct house *house = *state;
    uint8_t sample[HASH_BYTES], again[HASH_BYTES];
    int client = house_dial(house);
    struct fault fault;
    for (int i = 0; i < 5; i++) {
        house_say(house, client, "GET /v1/memories HTTP/1.1\r\nHost: x\r\n\r\n");
        house_expect(house, client, 401, NULL);
    }
    house_say(house, client, "GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer a.b.c\r\n\r\n");
    house_expect(house, client, 401, NULL);
    turned_away_nobody_was_woken(house);
    uint32_t counts[2];
    for (int i = 0; i < 2; i++) {
        house_wait(house, 1000);
        struct ipc_message told = house_next(house, house->control, MESSAGE_DENIED);
        struct cursor cursor = cursor_over(told.body);
        uint8_t reason;
        assert_int_equal(cursor_u8(&reason, &cursor, &fault), OK);
        assert_int_equal(reason, i == 0 ? (int)DENIAL_NO_TOKEN : (int)TOKEN_BAD_ENCODING);
        assert_int_equal(cursor_u32(&counts[i], &cursor, &fault), OK);
        assert_int_equal(cursor_copy(i ? again : sample, &cursor, HASH_BYTES, &fault), OK);
        assert_int_equal(cursor_end(&cursor, &fault), OK);
        assert_true(house_quiet(house, house->control));
    }
    assert_int_equal(counts[0], 5);
    assert_int_equal(counts[1], 1);
    assert_memory_equal(sample, again, HASH_BYTES); /* the same client */
    assert_int_equal(house->stats->slots[1].denied[DENIAL_NO_TOKEN], 5);
    house_wait(house, 5000);
    assert_true(house_quiet(house, house->control));
    close(client);
}

static void every_reason_has_its_name(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < DENIAL_COUNT; i++) {
        assert_string_not_equal(denial_name(i), "unknown");
        for (uint32_t j = 0; j < i; j++)
            assert_string_not_equal(denial_name(i), denial_name(j));
    }
    assert_string_equal(denial_name(DENIAL_COUNT), "unknown");
}

#define HOUSE_TEST(name) cmocka_unit_test_setup_teardown(name, house_setup, house_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        HOUSE_TEST(all_that_do_not_verify_read_alike),
        HOUSE_TEST(an_unknown_tenant_reads_like_a_wrong_signature),
        HOUSE_TEST(a_name_counts_only_for_tokens_younger_than_the_tenant),
        HOUSE_TEST(a_paused_tenant_is_told_so_and_nobody_else_is),
        HOUSE_TEST(what_a_token_does_not_allow_is_refused_without_a_cell),
        HOUSE_TEST(an_answer_to_head_has_no_body),
        HOUSE_TEST(a_tenant_is_asked_for_again_after_a_second_or_when_it_changed),
        HOUSE_TEST(absence_is_forgotten_when_any_tenant_changes),
        HOUSE_TEST(denials_are_counted_and_told_once_a_second),
        cmocka_unit_test(every_reason_has_its_name),
    };
    return cmocka_run_group_tests_name("gateway denials", tests, NULL, NULL);
}
