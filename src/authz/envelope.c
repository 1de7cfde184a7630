#include "authz/envelope.h"

#include <assert.h>

static const char *const decision_names[DECISION_COUNT] = {
    [DECISION_DENIED] = "denied",
    [DECISION_DENIED_TENANT] = "denied_tenant",
    [DECISION_DENIED_TIME] = "denied_time",
    [DECISION_DENIED_LIFETIME] = "denied_lifetime",
    [DECISION_DENIED_CLEARANCE] = "denied_clearance",
    [DECISION_DENIED_SCOPE] = "denied_scope",
    [DECISION_ALLOWED] = "allowed",
};

const char *decision_name(enum decision decision)
{
    return (unsigned)decision < DECISION_COUNT ? decision_names[decision] : "unknown";
}

static bool is_of_tenant(const struct claims *claims, const struct tenant_facts *tenant)
{
    struct span claimed = span_of_text(claims->tenant);
    if (tenant->id[0] == '\0' || claimed.length == 0)
        return false;
    if (claims->issuer_tenant[0] && !span_is(span_of_text(claims->issuer_tenant), tenant->id))
        return false;
    if (claims->tenant_is_id)
        return span_is(claimed, tenant->id);
    return tenant->created_at_us > 0 && span_is(claimed, tenant->name)
        && claims->issued_at >= tenant->created_at_us / 1000000;
}

static void copy_route(struct envelope *envelope, const struct route *route)
{
    envelope->action = route->action;
    envelope->id_count = route->id_count;
    for (uint32_t i = 0; i < route->id_count; i++)
        envelope->ids[i] = route->ids[i];
}

status authz_envelope(struct envelope *ret, enum decision *decision, const struct claims *claims,
                      const struct tenant_facts *tenant, const struct route *route,
                      const struct request_facts *request, struct fault *fault)
{
    enum token_reason reason;
    *decision = DECISION_DENIED;
    if (!is_of_tenant(claims, tenant)) {
        *decision = DECISION_DENIED_TENANT;
        return FAIL(UNAUTHENTICATED, fault, TOKEN_REFUSED);
    }
    if (!claims_current(claims, request->time_us / 1000000, &reason)) {
        *decision = DECISION_DENIED_TIME;
        return FAIL(UNAUTHENTICATED, fault, TOKEN_REFUSED);
    }
    struct envelope envelope = {
        .scopes = claims->scopes,
        .clearance = claims->clearance,
        .clearance_given = claims->clearance_given,
        .clearance_required = tenant->clearance_required,
        .lifetime_seconds = claims->issued_at ? claims->expires_at - claims->issued_at : INT64_MAX,
        .lifetime_max_seconds = tenant->token_lifetime_max_seconds,
        .time_us = request->time_us,
    };
    bool copied = span_to_text(envelope.tenant, sizeof envelope.tenant, span_of_text(tenant->id))
               && span_to_text(envelope.user, sizeof envelope.user, span_of_text(claims->user))
               && span_to_text(envelope.agent, sizeof envelope.agent, span_of_text(claims->agent));
    assert(copied && envelope.user[0]);
    for (size_t i = 0; i < TRACE_ID_BYTES; i++)
        envelope.trace_id[i] = request->trace_id[i];
    for (size_t i = 0; i < HASH_BYTES; i++)
        envelope.token_hash[i] = request->token_hash[i];
    copy_route(&envelope, route);
    *ret = envelope;
    return OK;
}

status authz_decide(enum decision *decision, const struct envelope *envelope, struct fault *fault)
{
    *decision = DECISION_DENIED;
    if (!envelope->action || !envelope->tenant[0] || !envelope->user[0])
        return FAIL(FORBIDDEN_POLICY, fault, "the request has no envelope");
    if (envelope->lifetime_max_seconds > 0
        && envelope->lifetime_seconds > envelope->lifetime_max_seconds) {
        *decision = DECISION_DENIED_LIFETIME;
        return FAIL(FORBIDDEN_POLICY, fault, "this tenant takes tokens that live at most %lld s",
                    (long long)envelope->lifetime_max_seconds);
    }
    if (envelope->clearance_required && !envelope->clearance_given) {
        *decision = DECISION_DENIED_CLEARANCE;
        return FAIL(FORBIDDEN_POLICY, fault, "this tenant takes tokens that state a clearance");
    }
    if (!scope_holds(envelope->scopes, envelope->action->scope)) {
        *decision = DECISION_DENIED_SCOPE;
        return FAIL(FORBIDDEN_SCOPE, fault, "%s needs the scope %s", envelope->action->name,
                    scope_name(envelope->action->scope));
    }
    *decision = DECISION_ALLOWED;
    return OK;
}

status authz_acts_for(const struct envelope *envelope, struct span user, struct fault *fault)
{
    if (!principal_is_valid(user))
        return FAIL(BAD_FIELD, fault, "user_id: 1 to %d bytes of text", USER_MAX);
    if (span_is(user, envelope->user) || scope_holds(envelope->scopes, SCOPE_MEMORY_ANY_USER))
        return OK;
    return FAIL(FORBIDDEN_SCOPE, fault, "another user's items need the scope %s",
                scope_name(SCOPE_MEMORY_ANY_USER));
}
