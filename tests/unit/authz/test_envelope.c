#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "authz/envelope.h"
#include "silo/actions.h"

static const int64_t NOW = 1800000000;
#define TENANT "00112233445566778899aabbccddeeff"
#define OTHER "ffeeddccbbaa99887766554433221100"

static struct claims good_claims(void)
{
    return (struct claims){
        .tenant = TENANT, .tenant_is_id = true, .user = "ada", .agent = "agent-7",
        .scopes = SCOPE_SET(SCOPE_MEMORY_READ), .clearance = CLEARANCE_CONFIDENTIAL,
        .clearance_given = true, .issued_at = NOW - 10, .expires_at = NOW + 290,
        .usable_from = NOW - 70, .usable_until = NOW + 290,
    };
}

static struct tenant_facts good_tenant(void)
{
    return (struct tenant_facts){.id = TENANT, .name = "acme",
                                 .created_at_us = (NOW - 100) * 1000000};
}

static struct route route_to(const char *method, const char *path)
{
    struct route route;
    char allow[ACTION_ALLOW_MAX];
    struct fault fault;
    assert_int_equal(authz_route(&route, allow, &action_table, span_of_text(method),
                                 span_of_text(path), &fault), OK);
    return route;
}

static status envelop(struct envelope *ret, enum decision *decision, const struct claims *claims,
                      const struct tenant_facts *tenant)
{
    struct route route = route_to("GET", "/v1/memories/01H");
    struct request_facts request = {.trace_id = {1}, .token_hash = {2}, .time_us = NOW * 1000000};
    struct fault fault = {"untouched"};
    *decision = DECISION_COUNT;
    status code = authz_envelope(ret, decision, claims, tenant, &route, &request, &fault);
    assert_string_equal(fault.detail, code == OK ? "untouched" : TOKEN_REFUSED);
    return code;
}

static struct envelope good_envelope(const char *method, const char *path)
{
    struct claims claims = good_claims();
    struct tenant_facts tenant = good_tenant();
    struct route route = route_to(method, path);
    struct request_facts request = {.time_us = NOW * 1000000};
    struct envelope envelope;
    enum decision decision;
    struct fault fault;
    assert_int_equal(authz_envelope(&envelope, &decision, &claims, &tenant, &route, &request,
                                    &fault), OK);
    return envelope;
}

static void an_envelope_is_the_claims_and_the_route(void **state)
{
    (void)state;
    struct claims claims = good_claims();
    struct tenant_facts tenant = good_tenant();
    struct envelope envelope;
    enum decision decision;
    assert_int_equal(envelop(&envelope, &decision, &claims, &tenant), OK);
    assert_int_equal(decision, DECISION_DENIED); /* until it is decided on */
    assert_string_equal(envelope.tenant, TENANT);
    assert_string_equal(envelope.user, "ada");
    assert_string_equal(envelope.agent, "agent-7");
    assert_ptr_equal(envelope.action, &memory_actions[MEMORY_READ]);
    assert_int_equal(envelope.id_count, 1);
    assert_true(span_is(envelope.ids[0], "01H"));
    assert_int_equal(envelope.clearance, CLEARANCE_CONFIDENTIAL);
    assert_true(envelope.scopes == claims.scopes);
    assert_int_equal(envelope.trace_id[0], 1);
    assert_int_equal(envelope.token_hash[0], 2);
    assert_true(envelope.time_us == NOW * 1000000);
}

static void check_18_another_tenant_reads_like_no_token(void **state)
{
    (void)state;
    struct claims claims = good_claims();
    struct tenant_facts other = good_tenant();
    struct envelope envelope, before;
    enum decision decision;
    memset(&before, 0x5A, sizeof before);
    envelope = before;
    snprintf(other.id, sizeof other.id, OTHER);
    snprintf(other.name, sizeof other.name, TENANT); /* an id is never matched against a name */
    assert_int_equal(envelop(&envelope, &decision, &claims, &other), UNAUTHENTICATED);
    assert_int_equal(decision, DECISION_DENIED_TENANT);
    assert_memory_equal(&envelope, &before, sizeof before);
}

static void check_18_an_issuer_of_one_tenant_vouches_for_no_other(void **state)
{
    (void)state;
    struct claims claims = good_claims();
    struct tenant_facts tenant = good_tenant();
    struct envelope envelope;
    enum decision decision;
    snprintf(claims.issuer_tenant, sizeof claims.issuer_tenant, TENANT);
    assert_int_equal(envelop(&envelope, &decision, &claims, &tenant), OK);
    snprintf(claims.issuer_tenant, sizeof claims.issuer_tenant, OTHER);
    assert_int_equal(envelop(&envelope, &decision, &claims, &tenant), UNAUTHENTICATED);
    snprintf(claims.tenant, sizeof claims.tenant, "acme"); /* nor by the other's name */
    claims.tenant_is_id = false;
    assert_int_equal(envelop(&envelope, &decision, &claims, &tenant), UNAUTHENTICATED);
    assert_int_equal(decision, DECISION_DENIED_TENANT);
}

static void a_name_needs_a_token_not_older_than_the_tenant(void **state)
{
    (void)state;
    struct claims claims = good_claims();
    struct tenant_facts tenant = good_tenant();
    struct envelope envelope;
    enum decision decision;
    snprintf(claims.tenant, sizeof claims.tenant, "acme");
    claims.tenant_is_id = false;
    assert_int_equal(envelop(&envelope, &decision, &claims, &tenant), OK);
    assert_string_equal(envelope.tenant, TENANT);
    tenant.created_at_us = claims.issued_at * 1000000 + 999999; /* the same second */
    assert_int_equal(envelop(&envelope, &decision, &claims, &tenant), OK);
    tenant.created_at_us = (claims.issued_at + 1) * 1000000;
    assert_int_equal(envelop(&envelope, &decision, &claims, &tenant), UNAUTHENTICATED);
    assert_int_equal(decision, DECISION_DENIED_TENANT);
    tenant = good_tenant();
    claims.issued_at = 0; /* a token that does not say */
    assert_int_equal(envelop(&envelope, &decision, &claims, &tenant), UNAUTHENTICATED);
    claims = good_claims();
    claims.issued_at = 0; /* by id it needs none */
    assert_int_equal(envelop(&envelope, &decision, &claims, &tenant), OK);
    snprintf(claims.tenant, sizeof claims.tenant, "acm");
    claims.tenant_is_id = false;
    claims.issued_at = NOW;
    assert_int_equal(envelop(&envelope, &decision, &claims, &tenant), UNAUTHENTICATED);
}

static void zeroed_facts_match_no_token(void **state)
{
    (void)state;
    struct claims claims = good_claims(), empty = {0};
    struct tenant_facts tenant = good_tenant(), unknown = {0};
    struct envelope envelope;
    enum decision decision;
    assert_int_equal(envelop(&envelope, &decision, &claims, &unknown), UNAUTHENTICATED);
    assert_int_equal(envelop(&envelope, &decision, &empty, &tenant), UNAUTHENTICATED);
    assert_int_equal(envelop(&envelope, &decision, &empty, &unknown), UNAUTHENTICATED);
    empty.tenant_is_id = true;
    assert_int_equal(envelop(&envelope, &decision, &empty, &unknown), UNAUTHENTICATED);
}

static void claims_that_have_expired_since_make_no_envelope(void **state)
{
    (void)state;
    struct claims claims = good_claims();
    struct tenant_facts tenant = good_tenant();
    struct envelope envelope;
    enum decision decision;
    claims.usable_until = NOW;
    assert_int_equal(envelop(&envelope, &decision, &claims, &tenant), UNAUTHENTICATED);
    assert_int_equal(decision, DECISION_DENIED_TIME);
    claims = good_claims();
    claims.usable_from = NOW + 1;
    assert_int_equal(envelop(&envelope, &decision, &claims, &tenant), UNAUTHENTICATED);
    assert_int_equal(decision, DECISION_DENIED_TIME);
}

static void check_17_the_action_s_scope_is_needed_and_named(void **state)
{
    (void)state;
    struct envelope envelope = good_envelope("GET", "/v1/memories/01H");
    enum decision decision = DECISION_DENIED;
    struct fault fault = {"untouched"};
    assert_int_equal(authz_decide(&decision, &envelope, &fault), OK);
    assert_int_equal(decision, DECISION_ALLOWED);
    assert_string_equal(fault.detail, "untouched");
    envelope.scopes = SCOPES_KNOWN & ~SCOPE_SET(SCOPE_MEMORY_READ);
    assert_int_equal(authz_decide(&decision, &envelope, &fault), FORBIDDEN_SCOPE);
    assert_int_equal(decision, DECISION_DENIED_SCOPE);
    assert_non_null(strstr(fault.detail, "memory:read"));
    assert_string_equal(decision_name(decision), "denied_scope");
}

static void each_action_is_allowed_by_its_own_scope_only(void **state)
{
    (void)state;
    for (uint32_t number = 1; number <= action_count(&action_table); number++) {
        struct envelope envelope = good_envelope("GET", "/v1/memories/01H");
        envelope.action = action_numbered(&action_table, number);
        for (unsigned i = 0; i < SCOPE_COUNT; i++) {
            enum decision decision;
            struct fault fault;
            envelope.scopes = SCOPE_SET(i);
            assert_int_equal(authz_decide(&decision, &envelope, &fault),
                             envelope.action->scope == i ? OK : FORBIDDEN_SCOPE);
        }
    }
}

static void the_tenant_s_own_rules_are_kept(void **state)
{
    (void)state;
    struct claims claims = good_claims();
    struct tenant_facts tenant = good_tenant();
    struct envelope envelope;
    enum decision decision;
    struct fault fault;
    tenant.clearance_required = true;
    tenant.token_lifetime_max_seconds = 300;
    assert_int_equal(envelop(&envelope, &decision, &claims, &tenant), OK);
    assert_int_equal(authz_decide(&decision, &envelope, &fault), OK);
    tenant.token_lifetime_max_seconds = 299;
    assert_int_equal(envelop(&envelope, &decision, &claims, &tenant), OK);
    assert_int_equal(authz_decide(&decision, &envelope, &fault), FORBIDDEN_POLICY);
    assert_int_equal(decision, DECISION_DENIED_LIFETIME);
    tenant.token_lifetime_max_seconds = 300;
    claims.issued_at = 0; /* an unknown age is too old */
    assert_int_equal(envelop(&envelope, &decision, &claims, &tenant), OK);
    assert_int_equal(authz_decide(&decision, &envelope, &fault), FORBIDDEN_POLICY);
    claims = good_claims();
    claims.clearance_given = false;
    assert_int_equal(envelop(&envelope, &decision, &claims, &tenant), OK);
    assert_int_equal(authz_decide(&decision, &envelope, &fault), FORBIDDEN_POLICY);
    assert_int_equal(decision, DECISION_DENIED_CLEARANCE);
    tenant.clearance_required = false;
    assert_int_equal(envelop(&envelope, &decision, &claims, &tenant), OK);
    assert_int_equal(authz_decide(&decision, &envelope, &fault), OK);
}

static void what_is_no_envelope_is_denied(void **state)
{
    (void)state;
    struct envelope envelope = {.scopes = UINT64_MAX};
    enum decision decision = DECISION_ALLOWED;
    struct fault fault;
    assert_int_equal(authz_decide(&decision, &envelope, &fault), FORBIDDEN_POLICY);
    assert_int_equal(decision, DECISION_DENIED);
    assert_string_equal(decision_name(DECISION_COUNT), "unknown");
}

static void another_user_s_items_need_the_scope_for_any_user(void **state)
{
    (void)state;
    struct envelope envelope = good_envelope("GET", "/v1/memories/01H");
    struct fault fault = {""};
    assert_int_equal(authz_acts_for(&envelope, SPAN("ada"), &fault), OK);
    assert_int_equal(authz_acts_for(&envelope, SPAN("adam"), &fault), FORBIDDEN_SCOPE);
    assert_non_null(strstr(fault.detail, "memory:any-user"));
    assert_int_equal(authz_acts_for(&envelope, SPAN("ad"), &fault), FORBIDDEN_SCOPE);
    assert_int_equal(authz_acts_for(&envelope, SPAN("agent-7"), &fault), FORBIDDEN_SCOPE);
    assert_int_equal(authz_acts_for(&envelope, SPAN(""), &fault), BAD_FIELD);
    assert_int_equal(authz_acts_for(&envelope, SPAN("ada\0"), &fault), BAD_FIELD);
    envelope.scopes |= SCOPE_SET(SCOPE_MEMORY_ANY_USER);
    assert_int_equal(authz_acts_for(&envelope, SPAN("bob"), &fault), OK);
    assert_int_equal(authz_acts_for(&envelope, SPAN("b\nb"), &fault), BAD_FIELD);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_envelope_is_the_claims_and_the_route),
        cmocka_unit_test(check_18_another_tenant_reads_like_no_token),
        cmocka_unit_test(check_18_an_issuer_of_one_tenant_vouches_for_no_other),
        cmocka_unit_test(a_name_needs_a_token_not_older_than_the_tenant),
        cmocka_unit_test(zeroed_facts_match_no_token),
        cmocka_unit_test(claims_that_have_expired_since_make_no_envelope),
        cmocka_unit_test(check_17_the_action_s_scope_is_needed_and_named),
        cmocka_unit_test(each_action_is_allowed_by_its_own_scope_only),
        cmocka_unit_test(the_tenant_s_own_rules_are_kept),
        cmocka_unit_test(what_is_no_envelope_is_denied),
        cmocka_unit_test(another_user_s_items_need_the_scope_for_any_user),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
