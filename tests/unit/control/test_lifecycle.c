#define _GNU_SOURCE
/* Create, erase and changes of a charter with control ended at every message that it sends or gets,
 * before and after it passed. */
#include "node.h"

#include "base/limits.h"
#include "wire/json.h"

#include <string.h>

static const char acme[] = "{\"name\":\"acme\"}";

struct answer {
    status code;
    char detail[256];
    struct buffer json;
};

static bool call(struct node *node, const char *verb, const char *arguments, struct answer *answer)
{
    return node_call(node, verb, arguments, &answer->code, answer->detail, &answer->json);
}

static void must_call(struct node *node, const char *verb, const char *arguments,
                      struct answer *answer)
{
    assert_true(call(node, verb, arguments, answer));
    if (answer->code != OK)
        fail_msg("%s: %s", verb, answer->detail);
}

static bool json_has(const struct answer *answer, const char *text)
{
    return memmem(answer->json.data, answer->json.length, text, strlen(text)) != NULL;
}

static void a_tenant_is_made_shown_and_erased_once_with_one_receipt(void **state)
{
    (void)state;
    struct node node;
    struct answer first = {.json = buffer_of(65536)}, second = {.json = buffer_of(65536)};
    node_make(&node);
    node_start_control(&node);
    must_call(&node, "tenant.create", acme, &first);
    must_call(&node, "tenant.create", acme, &second);
    assert_true(span_equal(buffer_span(&first.json), buffer_span(&second.json)));
    assert_true(node_has_silo(&node));
    assert_true(call(&node, "tenant.create", "{\"name\":\"acme\",\"region\":\"eu\"}", &second));
    assert_int_equal(second.code, CONFLICT);
    must_call(&node, "tenant.erase", acme, &first);
    assert_false(node_has_silo(&node));
    must_call(&node, "tenant.erase", acme, &second);
    assert_true(span_equal(buffer_span(&first.json), buffer_span(&second.json)));
    assert_true(call(&node, "tenant.show", acme, &second));
    assert_int_equal(second.code, NOT_FOUND);
    must_call(&node, "tenant.create", acme, &second);
    assert_true(json_has(&second, "\"state\":\"active\""));
    node_remove(&node);
    buffer_free(&first.json);
    buffer_free(&second.json);
}

/* Whatever point it died at: the tenant is there whole or not at all, and can be made again. */
static void check_after_create(struct node *node, struct answer *answer)
{
    assert_true(call(node, "tenant.show", acme, answer));
    if (answer->code == OK)
        assert_true(json_has(answer, "\"state\":\"active\""));
    else
        assert_int_equal(answer->code, NOT_FOUND);
    assert_int_equal(node_has_silo(node), answer->code == OK);
    must_call(node, "tenant.create", acme, answer);
    assert_true(node_has_silo(node));
    must_call(node, "token.mint", "{\"name\":\"acme\",\"user\":\"u\"}", answer); /* the key lives */
}

/* Erased to the end, or untouched; then erasing again ends it with a receipt. */
static void check_after_erase(struct node *node, struct answer *answer)
{
    assert_true(call(node, "tenant.show", acme, answer));
    bool there = answer->code == OK;
    if (there)
        assert_true(json_has(answer, "\"state\":\"active\""));
    assert_int_equal(node_has_silo(node), there);
    if (there)
        must_call(node, "token.mint", "{\"name\":\"acme\",\"user\":\"u\"}", answer);
    must_call(node, "tenant.erase", acme, answer);
    assert_true(json_has(answer, "\"signature\""));
    assert_false(node_has_silo(node));
}

static const char update[] = "{\"name\":\"acme\",\"retention_days\":30}";
static const char revocation[] = "{\"platform\":true,\"user\":\"eve\"}";

static int64_t number_in(const struct answer *answer, const char *name)
{
    struct arena arena = arena_of(1 << 20);
    struct json parsed;
    struct fault fault;
    assert_int_equal(json_parse(&parsed, &arena, buffer_span(&answer->json), &fault), OK);
    const struct json *member = json_member(&parsed, name);
    assert_non_null(member);
    int64_t number = member->kind == JSON_INTEGER ? member->integer : -1;
    arena_free(&arena);
    return number;
}

/* The old charter or the new one, whole; the number of the kms and that of the registry never part:
 * the next change is taken. */
static void check_after_update(struct node *node, struct answer *answer)
{
    must_call(node, "tenant.show", acme, answer);
    bool happened = number_in(answer, "charter_sequence") == 2;
    assert_int_equal(number_in(answer, "retention_days"), happened ? 30 : -1);
    if (!happened)
        assert_int_equal(number_in(answer, "charter_sequence"), 1);
    must_call(node, "tenant.update", "{\"name\":\"acme\",\"retention_days\":31}", answer);
    assert_int_equal(number_in(answer, "charter_sequence"), happened ? 3 : 2);
    must_call(node, "tenant.show", acme, answer);
    assert_int_equal(number_in(answer, "retention_days"), 31);
}

static void check_after_revocation(struct node *node, struct answer *answer)
{
    must_call(node, "token.revoked", "{\"platform\":true}", answer);
    bool happened = number_in(answer, "charter_sequence") == 1;
    assert_int_equal(json_has(answer, "\"eve\""), happened);
    must_call(node, "token.revoke", "{\"platform\":true,\"user\":\"bob\"}", answer);
    must_call(node, "token.revoked", "{\"platform\":true}", answer);
    assert_int_equal(number_in(answer, "charter_sequence"), happened ? 2 : 1);
    assert_true(json_has(answer, "\"bob\""));
    assert_int_equal(json_has(answer, "\"eve\""), happened);
}

/* Returns false when the operation ended before its n-th message. */
static bool crash_at(uint32_t n, bool before, const char *verb, const char *arguments,
                     bool made_first, void (*check)(struct node *, struct answer *))
{
    struct node node;
    struct answer answer = {.json = buffer_of(65536)};
    node_make(&node);
    node_start_control(&node);
    if (made_first)
        must_call(&node, "tenant.create", acme, &answer);
    node.messages = 0;
    node.die_at = n;
    node.die_before = before;
    bool answered = call(&node, verb, arguments, &answer);
    bool died = node.died;
    assert_true(answered || died);
    node_stop_control(&node);
    node.died = false;
    node.die_at = 0;
    node_start_control(&node);
    check(&node, &answer);
    node_remove(&node);
    buffer_free(&answer.json);
    return died;
}

static void crash_everywhere(const char *verb, const char *arguments, bool made_first,
                             uint32_t points_at_least,
                             void (*check)(struct node *, struct answer *))
{
    uint32_t points = 0;
    for (int before = 0; before < 2; before++) {
        uint32_t n = 1;
        while (crash_at(n, before != 0, verb, arguments, made_first, check))
            n++;
        points += n - 1;
    }
    print_message("%s: ended at %u points\n", verb, points);
    assert_true(points >= points_at_least);
}

static void a_crash_at_any_point_of_create_is_undone_or_finished(void **state)
{
    (void)state;
    crash_everywhere("tenant.create", acme, false, 16, check_after_create);
}

static void a_crash_at_any_point_of_erase_is_undone_or_finished(void **state)
{
    (void)state;
    crash_everywhere("tenant.erase", acme, true, 12, check_after_erase);
}

static void a_crash_at_any_point_of_an_update_leaves_the_old_charter_or_the_new(void **state)
{
    (void)state;
    crash_everywhere("tenant.update", update, true, 10, check_after_update);
}

static void a_crash_at_any_point_of_a_revocation_loses_no_other_and_no_number(void **state)
{
    (void)state;
    crash_everywhere("token.revoke", revocation, false, 10, check_after_revocation);
}

static void must_be_refused_with(struct node *node, const char *verb, const char *arguments,
                                 status code, struct answer *answer)
{
    assert_true(call(node, verb, arguments, answer));
    if (answer->code != code)
        fail_msg("%s %s: status %d, \"%s\"", verb, arguments, answer->code, answer->detail);
}

static void a_tier_is_raised_and_never_lowered_or_loosened(void **state)
{
    (void)state;
    static const struct { const char *arguments; status code; } steps[] = {
        {"{\"name\":\"acme\",\"tier\":\"regulated\"}", BAD_FIELD}, /* without retention */
        {"{\"name\":\"acme\",\"tier\":\"regulated\",\"retention_days\":9}", OK},
        {"{\"name\":\"acme\",\"tier\":\"standard\"}", CONFLICT},
        {"{\"name\":\"acme\",\"audit\":\"standard\"}", BAD_FIELD},
        {"{\"name\":\"acme\",\"clearance_required\":false}", BAD_FIELD},
        {"{\"name\":\"acme\",\"token_lifetime_seconds\":301}", BAD_FIELD},
        {"{\"name\":\"acme\",\"token_lifetime_seconds\":0}", BAD_FIELD},
        {"{\"name\":\"acme\",\"retention_days\":0}", BAD_FIELD},
        {"{\"name\":\"acme\",\"token_lifetime_seconds\":60}", OK},
    };
    struct node node;
    struct answer answer = {.json = buffer_of(65536)};
    node_make(&node);
    node_start_control(&node);
    must_call(&node, "tenant.create", acme, &answer);
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++)
        must_be_refused_with(&node, "tenant.update", steps[i].arguments, steps[i].code, &answer);
    must_call(&node, "tenant.show", acme, &answer);
    assert_true(json_has(&answer, "\"tier\":\"regulated\""));
    assert_true(json_has(&answer, "\"audit\":\"strict\""));
    assert_int_equal(number_in(&answer, "token_lifetime_seconds"), 60);
    assert_int_equal(number_in(&answer, "charter_sequence"), 3);
    must_be_refused_with(&node, "token.mint",
                         "{\"name\":\"acme\",\"user\":\"u\",\"ttl_seconds\":61}", BAD_FIELD,
                         &answer);
    must_call(&node, "token.mint", "{\"name\":\"acme\",\"user\":\"u\"}", &answer);
    node_remove(&node);
    buffer_free(&answer.json);
}

static void a_route_leads_to_one_tenant_and_goes_with_it(void **state)
{
    (void)state;
    static const char beta[] = "{\"name\":\"beta\"}";
    static const char host[] =
        "{\"name\":\"acme\",\"kind\":\"host\",\"value\":\"Acme.Example.COM\"}";
    static const char same[] =
        "{\"name\":\"beta\",\"kind\":\"host\",\"value\":\"acme.example.com\"}";
    struct node node;
    struct answer answer = {.json = buffer_of(65536)};
    node_make(&node);
    node_start_control(&node);
    must_call(&node, "tenant.create", acme, &answer);
    must_call(&node, "tenant.create", beta, &answer);
    must_call(&node, "route.add", host, &answer);
    assert_true(json_has(&answer, "\"value\":\"acme.example.com\""));
    assert_true(json_has(&answer, "\"added\":true"));
    must_call(&node, "route.add", host, &answer);
    assert_true(json_has(&answer, "\"added\":false"));
    must_be_refused_with(&node, "route.add", same, CONFLICT, &answer);
    must_call(&node, "tenant.erase", acme, &answer);
    must_call(&node, "route.list", "{}", &answer);
    assert_false(json_has(&answer, "example"));
    must_call(&node, "route.add", same, &answer);
    must_call(&node, "route.remove", "{\"kind\":\"host\",\"value\":\"acme.example.com\"}", &answer);
    must_be_refused_with(&node, "route.remove",
                         "{\"kind\":\"host\",\"value\":\"acme.example.com\"}", NOT_FOUND, &answer);
    node_remove(&node);
    buffer_free(&answer.json);
}

/* 512 of each sort; the one that is there already is no more. */
static void revocations_are_bounded_and_say_so(void **state)
{
    (void)state;
    struct node node;
    struct answer answer = {.json = buffer_of(1 << 20)};
    char text[128];
    node_make(&node);
    node_start_control(&node);
    for (int i = 0; i < CHARTER_REVOCATIONS_MAX; i++) {
        snprintf(text, sizeof text, "{\"platform\":true,\"jti\":\"%d\"}", i);
        must_call(&node, "token.revoke", text, &answer);
    }
    must_be_refused_with(&node, "token.revoke", "{\"platform\":true,\"jti\":\"more\"}", TOO_LARGE,
                         &answer);
    assert_non_null(strstr(answer.detail, "512 tokens are revoked already"));
    must_call(&node, "token.revoke", "{\"platform\":true,\"jti\":\"0\"}", &answer);
    must_call(&node, "token.revoke", revocation, &answer);
    node_remove(&node);
    buffer_free(&answer.json);
}

static void must_be_refused(struct node *node, const char *verb, uint32_t type,
                            struct answer *answer)
{
    node->refuse = type;
    assert_true(call(node, verb, acme, answer));
    assert_int_not_equal(answer->code, OK);
    assert_non_null(strstr(answer->detail, "refused by the test"));
    node->refuse = 0;
}

static void a_pause_is_answered_when_the_cell_has_ended_and_not_before(void **state)
{
    (void)state;
    struct node node;
    struct answer answer = {.json = buffer_of(65536)};
    node_make(&node);
    node_start_control(&node);
    must_call(&node, "tenant.create", acme, &answer);
    must_be_refused(&node, "tenant.pause", MESSAGE_CELL_STOP, &answer);
    must_call(&node, "tenant.show", acme, &answer);
    assert_true(json_has(&answer, "\"state\":\"paused\"")); /* requests are refused already */
    must_call(&node, "tenant.pause", acme, &answer);
    assert_true(json_has(&answer, "\"state\":\"paused\""));
    must_call(&node, "tenant.resume", acme, &answer);
    assert_true(json_has(&answer, "\"state\":\"active\""));
    node_remove(&node);
    buffer_free(&answer.json);
}

static void an_erasure_that_stopped_half_way_is_taken_up_by_the_next(void **state)
{
    (void)state;
    struct node node;
    struct answer answer = {.json = buffer_of(65536)};
    node_make(&node);
    node_start_control(&node);
    must_call(&node, "tenant.create", acme, &answer);
    must_be_refused(&node, "tenant.erase", MESSAGE_SILO_REMOVE, &answer); /* its key is gone */
    must_call(&node, "tenant.show", acme, &answer);
    assert_true(json_has(&answer, "\"state\":\"erasing\""));
    must_call(&node, "tenant.erase", acme, &answer);
    assert_true(json_has(&answer, "\"signature\""));
    assert_false(node_has_silo(&node));
    node_remove(&node);
    buffer_free(&answer.json);
}

static void a_paused_tenant_is_paused_again_when_its_erasure_is_undone(void **state)
{
    (void)state;
    struct node node;
    struct answer answer = {.json = buffer_of(65536)};
    node_make(&node);
    node_start_control(&node);
    must_call(&node, "tenant.create", acme, &answer);
    must_call(&node, "tenant.pause", acme, &answer);
    must_be_refused(&node, "tenant.erase", MESSAGE_CELL_STOP, &answer); /* its key lives */
    must_call(&node, "tenant.show", acme, &answer);
    assert_true(json_has(&answer, "\"state\":\"paused\""));
    node.messages = 0;
    node.die_at = 1; /* the row says "erasing", nothing else happened */
    assert_false(call(&node, "tenant.erase", acme, &answer));
    node_stop_control(&node);
    node.died = false;
    node.die_at = 0;
    node_start_control(&node);
    must_call(&node, "tenant.show", acme, &answer);
    assert_true(json_has(&answer, "\"state\":\"paused\""));
    node_remove(&node);
    buffer_free(&answer.json);
}

static void arguments_that_are_wrong_are_refused_by_name(void **state)
{
    (void)state;
    static const struct { const char *verb, *arguments, *named; } wrong[] = {
        {"tenant.create", "{}", "name"},
        {"tenant.create", "{\"name\":\"\"}", "name"},
        {"tenant.create", "{\"name\":\"Acme\"}", "name"},
        {"tenant.create", "{\"name\":\"-a\"}", "name"},
        {"tenant.create", "{\"name\":\"a_b\"}", "name"},
        {"tenant.create", "{\"name\":\"0123456789abcdef0123456789abcdef\"}", "name"},
        {"tenant.create", "{\"name\":\"a\",\"tier\":\"gold\"}", "tier"},
        {"tenant.create", "{\"name\":\"a\",\"tier\":\"regulated\"}", "retention"},
        {"tenant.create", "{\"name\":\"a\",\"retention_days\":0}", "retention_days"},
        {"tenant.create", "{\"name\":\"a\",\"colour\":1}", "colour"},
        {"tenant.create", "[]", "arguments"}, {"tenant.create", "{", ""},
        {"tenant.create", "{\"name\":\"a\",\"region\":\"E U\"}", "region"},
        {"tenant.create", "{\"name\":\"a\",\"audit\":\"lax\"}", "audit"},
        {"tenant.create", "{\"name\":\"a\",\"quotas\":{\"colour\":1}}", "requests_per_second"},
        {"tenant.create", "{\"name\":\"a\",\"quotas\":{\"bytes_stored\":-1}}", "bytes_stored"},
        {"tenant.create", "{\"name\":\"a\",\"quotas\":7}", "quotas"},
        {"tenant.create", "{\"name\":\"a\",\"token_lifetime_seconds\":86401}", "token_lifetime"},
        {"tenant.create", "{\"name\":\"a\",\"clearance_required\":1}", "clearance_required"},
        {"tenant.update", "{\"name\":\"nobody\"}", "no tenant"},
        {"tenant.update", "{\"name\":\"acme\",\"colour\":1}", "colour"},
        {"token.mint", "{\"platform\":true,\"user\":\"u\",\"name\":\"acme\"}", "either"},
        {"token.mint", "{\"platform\":true,\"user\":\"u\"}", "routes:read"},
        {"token.mint", "{\"platform\":true,\"user\":\"u\",\"scope\":\"memory:read\"}",
         "routes:read"},
        {"token.revoke", "{\"name\":\"acme\"}", "jti"},
        {"token.revoke", "{\"name\":\"acme\",\"jti\":\"a\",\"user\":\"b\"}", "jti"},
        {"token.revoke", "{\"name\":\"acme\",\"user\":\"a\\u0007\"}", "user"},
        {"token.revoke", "{\"name\":\"acme\",\"platform\":true,\"user\":\"a\"}", "either"},
        {"token.revoke", "{\"user\":\"a\"}", "name"},
        {"token.revoke", "{\"name\":\"acme\",\"jti\":\"a\",\"expires_at\":99999999999}",
         "expires_at"},
        {"issuer.remove", "{\"name\":\"acme\",\"iss\":\"x\"}", "no such issuer"},
        {"issuer.add", "{\"name\":\"acme\",\"iss\":\"x\"}", ""}, /* without a file of keys */
        {"route.add", "{\"name\":\"acme\",\"kind\":\"mail\",\"value\":\"a\"}", "kind"},
        {"route.add", "{\"name\":\"acme\",\"kind\":\"host\",\"value\":\"acme\"}", "host"},
        {"route.add", "{\"name\":\"acme\",\"kind\":\"host\",\"value\":\"a..b\"}", "host"},
        {"route.add", "{\"name\":\"acme\",\"kind\":\"host\",\"value\":\"a.b.\"}", "host"},
        {"route.add", "{\"name\":\"acme\",\"kind\":\"host\",\"value\":\"-a.b\"}", "host"},
        {"route.add", "{\"name\":\"acme\",\"kind\":\"host\",\"value\":\"10.0.0.1\"}", "host"},
        {"route.add", "{\"name\":\"acme\",\"kind\":\"phone\",\"value\":\"4915112345\"}", "phone"},
        {"route.add", "{\"name\":\"acme\",\"kind\":\"phone\",\"value\":\"+0151123456\"}", "phone"},
        {"route.add", "{\"name\":\"acme\",\"kind\":\"phone\",\"value\":\"+1234567\"}", "phone"},
        {"route.add", "{\"name\":\"acme\",\"kind\":\"customer\",\"value\":\"a b\"}", "customer"},
        {"route.add", "{\"name\":\"nobody\",\"kind\":\"customer\",\"value\":\"a\"}", "no tenant"},
        {"token.mint", "{\"name\":\"acme\"}", "user"},
        {"token.mint", "{\"name\":\"acme\",\"user\":\"u\",\"ttl_seconds\":0}", "ttl_seconds"},
        {"token.mint", "{\"name\":\"acme\",\"user\":\"u\",\"scope\":\"all\"}", "all"},
        {"token.mint", "{\"name\":\"acme\",\"user\":\"u\",\"clearance\":\"top\"}", "clearance"},
        {"tenant.show", "{\"name\":\"nobody\"}", "no tenant"},
        {"tenant.erase", "{\"name\":\"nobody\"}", "no tenant"},
        {"no.such.verb", "{}", "no.such.verb"},
    };
    struct node node;
    struct answer answer = {.json = buffer_of(65536)};
    node_make(&node);
    node_start_control(&node);
    must_call(&node, "tenant.create", acme, &answer);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_true(call(&node, wrong[i].verb, wrong[i].arguments, &answer));
        if (answer.code == OK || !strstr(answer.detail, wrong[i].named))
            fail_msg("%s %s: status %d, \"%s\"", wrong[i].verb, wrong[i].arguments, answer.code,
                     answer.detail);
    }
    node_remove(&node);
    buffer_free(&answer.json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_tenant_is_made_shown_and_erased_once_with_one_receipt),
        cmocka_unit_test(a_crash_at_any_point_of_create_is_undone_or_finished),
        cmocka_unit_test(a_crash_at_any_point_of_erase_is_undone_or_finished),
        cmocka_unit_test(a_crash_at_any_point_of_an_update_leaves_the_old_charter_or_the_new),
        cmocka_unit_test(a_crash_at_any_point_of_a_revocation_loses_no_other_and_no_number),
        cmocka_unit_test(a_tier_is_raised_and_never_lowered_or_loosened),
        cmocka_unit_test(a_route_leads_to_one_tenant_and_goes_with_it),
        cmocka_unit_test(revocations_are_bounded_and_say_so),
        cmocka_unit_test(a_pause_is_answered_when_the_cell_has_ended_and_not_before),
        cmocka_unit_test(an_erasure_that_stopped_half_way_is_taken_up_by_the_next),
        cmocka_unit_test(a_paused_tenant_is_paused_again_when_its_erasure_is_undone),
        cmocka_unit_test(arguments_that_are_wrong_are_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
