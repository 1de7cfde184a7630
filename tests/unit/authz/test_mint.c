#include "minted.h"

#define PLATFORM "00000000000000000000000000000000"

static const int64_t NOW = 1800000000;
static struct mint mint;

static void a_minted_token_verifies_and_says_what_was_asked(void **state)
{
    (void)state;
    struct token_request request = mint_request();
    _cleanup_buffer_ struct buffer token = buffer_of(TOKEN_MAX);
    struct claims claims = {0};
    enum token_reason reason;
    struct fault fault;
    mint_token(&token, &mint, &request, NOW);
    assert_int_equal(token_verify(&claims, &reason, mint.verifier, buffer_span(&token), NOW,
                                  &fault), OK);
    assert_string_equal(claims.tenant, MINT_TENANT);
    assert_true(claims.tenant_is_id);
    assert_string_equal(claims.user, "ada");
    assert_string_equal(claims.agent, "agent-7");
    assert_int_equal(claims.scopes, SCOPE_SET(SCOPE_MEMORY_READ) | SCOPE_SET(SCOPE_TENANT_READ));
    assert_int_equal(claims.clearance, CLEARANCE_CONFIDENTIAL);
    assert_true(claims.clearance_given);
    assert_int_equal(claims.issued_at, NOW);
    assert_int_equal(claims.expires_at, NOW + 900);
}

static void what_was_not_asked_is_not_claimed(void **state)
{
    (void)state;
    struct token_request request = mint_request();
    request.agent = request.scope = request.clearance = (struct span){0};
    _cleanup_buffer_ struct buffer token = buffer_of(TOKEN_MAX);
    struct claims claims = {0};
    enum token_reason reason;
    struct fault fault;
    mint_token(&token, &mint, &request, NOW);
    assert_int_equal(token_verify(&claims, &reason, mint.verifier, buffer_span(&token), NOW,
                                  &fault), OK);
    assert_string_equal(claims.agent, "");
    assert_int_equal(claims.scopes, 0);
    assert_false(claims.clearance_given);
}

static void every_scope_and_the_longest_names_fit(void **state)
{
    (void)state;
    char name[USER_MAX], scopes[TOKEN_SCOPES_MAX];
    size_t length = 0;
    memset(name, '"', sizeof name); /* each becomes two bytes in JSON */
    for (unsigned i = 0; i < SCOPE_ROUTES_READ; i++) /* the last: the platform's alone */
        length += (size_t)snprintf(scopes + length, sizeof scopes - length, "%s%s", i ? " " : "",
                                   scope_name((enum scope)i));
    struct token_request request = mint_request();
    request.user = request.agent = SPAN_OF(name);
    request.scope = (struct span){(const uint8_t *)scopes, length};
    _cleanup_buffer_ struct buffer token = buffer_of(TOKEN_MAX);
    struct claims claims = {0};
    enum token_reason reason;
    struct fault fault;
    mint_token(&token, &mint, &request, NOW);
    assert_int_equal(token_verify(&claims, &reason, mint.verifier, buffer_span(&token), NOW,
                                  &fault), OK);
    assert_int_equal(claims.scopes, SCOPES_KNOWN & ~SCOPE_SET(SCOPE_ROUTES_READ));
    assert_memory_equal(claims.agent, name, sizeof name);
}

static void a_platform_token_reads_routes_and_nothing_else(void **state)
{
    (void)state;
    struct token_request request = mint_request();
    request.tenant = SPAN(PLATFORM);
    request.scope = SPAN("routes:read");
    _cleanup_buffer_ struct buffer token = buffer_of(TOKEN_MAX);
    struct claims claims = {0};
    enum token_reason reason;
    struct fault fault;
    mint_token(&token, &mint, &request, NOW);
    assert_int_equal(token_verify(&claims, &reason, mint.verifier, buffer_span(&token), NOW,
                                  &fault), OK);
    assert_true(claims.platform);
    assert_int_equal(claims.scopes, SCOPE_SET(SCOPE_ROUTES_READ));
    request.scope = (struct span){0};
    buffer_clear(&token);
    assert_int_equal(token_body_put(&token, &request, mint.key_id, NOW, &fault), BAD_FIELD);
}

static void two_tokens_of_one_request_differ(void **state)
{
    (void)state;
    struct token_request request = mint_request();
    _cleanup_buffer_ struct buffer one = buffer_of(TOKEN_MAX), other = buffer_of(TOKEN_MAX);
    mint_token(&one, &mint, &request, NOW);
    mint_token(&other, &mint, &request, NOW);
    assert_false(span_equal(buffer_span(&one), buffer_span(&other)));
}

static void a_request_out_of_bounds_is_refused_by_field_and_nothing_is_written(void **state)
{
    (void)state;
    static char long_name[USER_MAX + 1], long_scope[TOKEN_SCOPES_MAX + 1];
    memset(long_name, 'u', sizeof long_name);
    memset(long_scope, 's', sizeof long_scope);
    const struct {
        const char *field;
        struct token_request change; /* what is set in it replaces the good one's */
    } cases[] = {
        {"tenant", {.tenant = SPAN("acme")}},
        {"scope", {.tenant = SPAN(PLATFORM)}},
        {"scope", {.tenant = SPAN(PLATFORM), .scope = SPAN("routes:read memory:read")}},
        {"scope", {.scope = SPAN("routes:read")}},
        {"scope", {.scope = SPAN("memory:read routes:read")}},
        {"tenant", {.tenant = SPAN("0000000000000000000000000000000")}},
        {"tenant", {.tenant = SPAN("00112233445566778899AABBCCDDEEFF")}},
        {"user", {.user = SPAN_OF(long_name)}},
        {"user", {.user = SPAN("a\nb")}},
        {"user", {.user = SPAN("\xff")}},
        {"agent", {.agent = SPAN_OF(long_name)}},
        {"agent", {.agent = SPAN("a\0b")}},
        {"scope", {.scope = SPAN("memory:read memory:everything")}},
        {"scope", {.scope = SPAN("memory:read,memory:write")}},
        {"scope", {.scope = SPAN(" ")}},
        {"scope", {.scope = SPAN_OF(long_scope)}},
        {"clearance", {.clearance = SPAN("secret")}},
        {"ttl", {.ttl_seconds = -1}},
        {"ttl", {.ttl_seconds = 86401}},
        {"ttl", {.ttl_seconds = INT64_MAX}},
        {"ttl", {.ttl_seconds = 301, .ttl_max_seconds = 300}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct token_request *change = &cases[i].change;
        struct token_request request = mint_request();
        request.tenant = change->tenant.data ? change->tenant : request.tenant;
        request.user = change->user.data ? change->user : request.user;
        request.agent = change->agent.data ? change->agent : request.agent;
        request.scope = change->scope.data ? change->scope : request.scope;
        request.clearance = change->clearance.data ? change->clearance : request.clearance;
        if (change->ttl_seconds)
            request.ttl_seconds = change->ttl_seconds;
        if (change->ttl_max_seconds)
            request.ttl_max_seconds = change->ttl_max_seconds;
        _cleanup_buffer_ struct buffer out = buffer_of(TOKEN_MAX);
        struct fault fault = {""};
        assert_int_equal(token_body_put(&out, &request, mint.key_id, NOW, &fault), BAD_FIELD);
        assert_true(strncmp(fault.detail, cases[i].field, strlen(cases[i].field)) == 0);
        assert_int_equal(out.length, 0);
    }
}

static void empty_user_and_zero_ttl_are_refused(void **state)
{
    (void)state;
    _cleanup_buffer_ struct buffer out = buffer_of(TOKEN_MAX);
    struct fault fault;
    struct token_request request = mint_request();
    request.user = (struct span){0};
    assert_int_equal(token_body_put(&out, &request, mint.key_id, NOW, &fault), BAD_FIELD);
    request = mint_request();
    request.ttl_seconds = 0;
    assert_int_equal(token_body_put(&out, &request, mint.key_id, NOW, &fault), BAD_FIELD);
}

static void the_cap_is_a_day_whatever_the_tenant_says(void **state)
{
    (void)state;
    _cleanup_buffer_ struct buffer out = buffer_of(TOKEN_MAX);
    struct fault fault;
    struct token_request request = mint_request();
    request.ttl_max_seconds = INT64_MAX;
    request.ttl_seconds = 24 * 3600;
    assert_int_equal(token_body_put(&out, &request, mint.key_id, NOW, &fault), OK);
    request.ttl_seconds = 24 * 3600 + 1;
    assert_int_equal(token_body_put(&out, &request, mint.key_id, NOW, &fault), BAD_FIELD);
    request.ttl_max_seconds = 0;
    assert_int_equal(token_body_put(&out, &request, mint.key_id, NOW, &fault), BAD_FIELD);
}

static void a_buffer_that_is_too_small_is_said_so(void **state)
{
    (void)state;
    _cleanup_buffer_ struct buffer out = buffer_of(64);
    struct fault fault;
    struct token_request request = mint_request();
    assert_int_equal(token_body_put(&out, &request, mint.key_id, NOW, &fault), TOO_LARGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_minted_token_verifies_and_says_what_was_asked),
        cmocka_unit_test(what_was_not_asked_is_not_claimed),
        cmocka_unit_test(every_scope_and_the_longest_names_fit),
        cmocka_unit_test(a_platform_token_reads_routes_and_nothing_else),
        cmocka_unit_test(two_tokens_of_one_request_differ),
        cmocka_unit_test(a_request_out_of_bounds_is_refused_by_field_and_nothing_is_written),
        cmocka_unit_test(empty_user_and_zero_ttl_are_refused),
        cmocka_unit_test(the_cap_is_a_day_whatever_the_tenant_says),
        cmocka_unit_test(a_buffer_that_is_too_small_is_said_so),
    };
    struct fault fault;
    if (crypt_start(&fault) != OK)
        return 2;
    mint = mint_open();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    mint_close(&mint);
    return failed;
}
