/* decide.c: may this request go to a cell? The same steps in the same order for everybody, so that
 * who may not know a tenant cannot tell it from one that does not exist: token, tenant, host,
 * envelope (up to here every failure is the one 401), then state, region, path, scope, query,
 * quota. The cell decides again for itself. */
#include "authz/envelope.h"
#include "base/clock.h"
#include "base/hex.h"
#include "gateway/state.h"
#include "silo/actions.h"

/* For a path that names no action: whose token it is is still asked first. */
static const struct action no_action = {
    .name = "none", .method = "", .path = "", .resource = "none", .scope = SCOPE_TENANT_READ,
};

static status find_route(struct route *ret, char allow[ACTION_ALLOW_MAX],
                         struct exchange *exchange, struct fault *fault)
{
    struct arena *arena = &exchange->connection->gateway->arena;
    struct span path;
    arena_reset(arena);
    struct span method = exchange_slice(exchange, exchange->method);
    TRY(http_decode_path(&path, arena, exchange_slice(exchange, exchange->path), fault));
    status own = authz_route(ret, allow, &route_table, method, path, fault);
    if (own == OK)
        ret->number += action_count(&action_table);
    return own != NOT_FOUND ? own : authz_route(ret, allow, &action_table, method, path, fault);
}

static status check_query(struct exchange *exchange, const struct action *action,
                          struct fault *fault)
{
    struct http_query query;
    struct span raw = exchange_slice(exchange, exchange->query);
    if (raw.length == 0)
        return OK;
    TRY(http_query_parse(&query, &exchange->connection->gateway->arena, raw, fault));
    return http_query_only(&query, action_query_names(action), fault);
}

static struct tenant_facts facts_of(const struct lookup *lookup)
{
    const struct charter *charter = lookup->vouched.charter;
    struct tenant_facts facts = {.created_at_us = lookup->record.created_at_us};
    bool fits = true;
    hex_encode(facts.id, SPAN_OF(lookup->record.id));
    if (charter) {
        facts.created_at_us = charter->posture.created_at_us;
        facts.clearance_required = charter->posture.clearance_required;
        facts.token_lifetime_max_seconds = charter->posture.token_lifetime_max_seconds;
        fits = span_to_text(facts.name, sizeof facts.name, span_of_text(charter->posture.name));
    } else if (!span_is(span_of_text(lookup->text), facts.id)) { /* found by this very name */
        fits = span_to_text(facts.name, sizeof facts.name, span_of_text(lookup->text));
    }
    if (!fits)
        facts.name[0] = '\0'; /* matches no token */
    return facts;
}

static status envelop(struct envelope *ret, const struct caller *caller,
                      const struct route *route, int64_t now_us, struct exchange *exchange,
                      struct fault *fault)
{
    struct tenant_facts facts = facts_of(caller->lookup);
    struct request_facts request = {.time_us = now_us};
    enum decision decision;
    for (size_t i = 0; i < HASH_BYTES; i++)
        request.token_hash[i] = caller->token_hash[i];
    if (authz_envelope(ret, &decision, caller->claims, &facts, route, &request, fault) != OK)
        return refuse_token(exchange,
                            decision == DECISION_DENIED_TIME ? (uint32_t)TOKEN_EXPIRED
                                                             : (uint32_t)DENIAL_TENANT_OTHER,
                            fault);
    return OK;
}

/* Here and now at all? */
static status check_place(const struct lookup *lookup, struct exchange *exchange,
                          struct fault *fault)
{
    const struct charter *charter = lookup->vouched.charter;
    const char *region = exchange->connection->gateway->start.region;
    if (lookup->record.state != RECORD_ACTIVE) {
        denial_count(exchange, DENIAL_PAUSED);
        return FAIL(TENANT_PAUSED, fault, "the tenant is paused");
    }
    if (charter && charter->posture.region[0] && region[0]
        && !span_is(span_of_text(region), charter->posture.region)) {
        denial_count(exchange, DENIAL_REGION);
        return FAIL(WRONG_REGION, fault, "the tenant's data is served in the region %s",
                    charter->posture.region);
    }
    return OK;
}

static status permit(const struct envelope *envelope, struct exchange *exchange,
                     struct fault *fault)
{
    enum decision decision;
    status decided = authz_decide(&decision, envelope, fault);
    if (decided != OK)
        denial_count(exchange,
                     decision == DECISION_DENIED_SCOPE ? DENIAL_SCOPE : DENIAL_POLICY);
    return decided;
}

static status refuse_own(struct exchange *exchange, const struct action *action,
                         struct fault *fault)
{
    denial_count(exchange, DENIAL_SCOPE);
    return FAIL(FORBIDDEN_SCOPE, fault, "%s needs the scope %s, of a token of the platform",
                action->name, scope_name(action->scope));
}

/* What this gateway alone finds over the quota, the cell would as well. */
static status shed(const struct caller *caller, struct standing *standing,
                   struct exchange *exchange, struct fault *fault)
{
    const struct charter *charter = caller->lookup->vouched.charter;
    if (!charter || !standing)
        return OK;
    exchange->concurrent_max = charter->posture.quotas.concurrent_requests;
    status taken = standing_take(exchange->connection->gateway, standing,
                                 &charter->posture.quotas, span_of_text(caller->claims->user),
                                 fault);
    if (taken == QUOTA_EXCEEDED)
        denial_count(exchange, DENIAL_QUOTA);
    return taken;
}

/* A token of the platform itself serves the gateway's own actions, and nothing else. */
static status decide_platform(struct decided *ret, const struct caller *caller,
                              const struct route *route, struct exchange *exchange,
                              struct fault *fault)
{
    bool own = action_numbered(&route_table, route->number - action_count(&action_table))
            == route->action;
    ret->number = route->number;
    ret->action = route->action;
    if (!own || !scope_holds(caller->claims->scopes, route->action->scope)) {
        denial_count(exchange, DENIAL_SCOPE);
        return FAIL(FORBIDDEN_SCOPE, fault, "a token of the platform has the scope %s alone",
                    scope_name(SCOPE_ROUTES_READ));
    }
    TRY(check_query(exchange, route->action, fault));
    return route_question(exchange, route, caller, fault);
}

static status decide_tenant(struct decided *ret, const struct caller *caller,
                            const struct route *route, status routed, int64_t now_us,
                            struct exchange *exchange, struct fault *fault)
{
    struct envelope envelope;
    struct fault not_routed = *fault; /* what find_route had to say, if it had */
    TRY(envelop(&envelope, caller, route, now_us, exchange, fault));
    struct standing *standing =
        standing_of(exchange->connection->gateway, caller->lookup->record.id);
    exchange->asked.tenant = standing ? standing->counted : 0;
    TRY(check_place(caller->lookup, exchange, fault));
    if (routed != OK) {
        *fault = not_routed;
        return routed;
    }
    ret->number = route->number;
    ret->action = route->action;
    for (size_t i = 0; i < TENANT_ID_BYTES; i++)
        ret->tenant_id[i] = caller->lookup->record.id[i];
    if (route->number > action_count(&action_table))
        return refuse_own(exchange, route->action, fault);
    TRY(permit(&envelope, exchange, fault));
    TRY(check_query(exchange, route->action, fault));
    return shed(caller, standing, exchange, fault);
}

status decide(struct decided *ret, struct exchange *exchange, struct fault *fault)
{
    struct caller caller;
    struct route route = {0};
    struct fault not_routed = {0};
    int64_t now_us = clock_wall_us();
    *ret = (struct decided){.action = NULL};
    TRY(whose(&caller, exchange, now_us, fault));
    TRY(host_permits(exchange, &caller, fault));
    status routed = find_route(&route, ret->allow, exchange, &not_routed);
    if (routed != OK)
        route = (struct route){.action = &no_action};
    if (!caller.claims->platform) {
        *fault = not_routed;
        return decide_tenant(ret, &caller, &route, routed, now_us, exchange, fault);
    }
    if (routed != OK) {
        *fault = not_routed;
        return routed;
    }
    return decide_platform(ret, &caller, &route, exchange, fault);
}
