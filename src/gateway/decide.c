/* decide.c: may this request go to a cell? The same steps in the same order for everybody, so that
 * who may not know a tenant cannot tell it from one that does not exist: token, tenant, envelope
 * (up to here every failure is the one 401), then state, path, scope, query. The cell decides again
 * for itself. */
#include "authz/envelope.h"
#include "base/clock.h"
#include "base/hex.h"
#include "gateway/state.h"
#include "silo/actions.h"

/* For a path that names no action: whose token it is is still asked first. */
static const struct action no_action = {
    .name = "none", .method = "", .path = "", .resource = "none", .scope = SCOPE_TENANT_READ,
};

static status refuse_token(struct exchange *exchange, uint32_t denial, struct fault *fault)
{
    denial_count(exchange->connection, denial);
    return FAIL(UNAUTHENTICATED, fault, TOKEN_REFUSED);
}

static status verify(const struct claims **ret, uint8_t ret_hash[HASH_BYTES],
                     struct exchange *exchange, int64_t now_us, struct fault *fault)
{
    struct gateway *gateway = exchange->connection->gateway;
    enum token_reason reason;
    struct span token = exchange_slice(exchange, exchange->token);
    if (token.length == 0)
        return refuse_token(exchange, exchange->bearer_too_long ? (uint32_t)TOKEN_TOO_LARGE
                                                                : (uint32_t)DENIAL_NO_TOKEN,
                            fault);
    if (token_cache_verify(ret, ret_hash, &reason, gateway->tokens, gateway->verifier, token,
                           now_us / 1000000, fault) != OK)
        return refuse_token(exchange, reason, fault);
    return OK;
}

static status find_route(struct route *ret, char allow[ACTION_ALLOW_MAX],
                         struct exchange *exchange, struct fault *fault)
{
    struct arena *arena = &exchange->connection->gateway->arena;
    struct span path;
    arena_reset(arena);
    TRY(http_decode_path(&path, arena, exchange_slice(exchange, exchange->path), fault));
    return authz_route(ret, allow, &action_table, exchange_slice(exchange, exchange->method), path,
                       fault);
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

static status envelop(struct envelope *ret, const struct claims *claims,
                      const struct lookup *lookup, const struct route *route,
                      const struct request_facts *request, struct exchange *exchange,
                      struct fault *fault)
{
    struct tenant_facts facts = {.created_at_us = lookup->record.created_at_us};
    enum decision decision;
    hex_encode(facts.id, SPAN_OF(lookup->record.id));
    if (!claims->tenant_is_id /* it was found by this very name */
        && !span_to_text(facts.name, sizeof facts.name, span_of_text(lookup->text)))
        return refuse_token(exchange, DENIAL_TENANT_OTHER, fault);
    if (authz_envelope(ret, &decision, claims, &facts, route, request, fault) != OK)
        return refuse_token(exchange,
                            decision == DECISION_DENIED_TIME ? (uint32_t)TOKEN_EXPIRED
                                                             : (uint32_t)DENIAL_TENANT_OTHER,
                            fault);
    return OK;
}

static status permit(const struct envelope *envelope, struct exchange *exchange,
                     struct fault *fault)
{
    enum decision decision;
    status decided = authz_decide(&decision, envelope, fault);
    if (decided != OK)
        denial_count(exchange->connection,
                     decision == DECISION_DENIED_SCOPE ? DENIAL_SCOPE : DENIAL_POLICY);
    return decided;
}

status decide(struct decided *ret, struct exchange *exchange, struct fault *fault)
{
    const struct claims *claims;
    const struct lookup *lookup;
    struct request_facts request = {.time_us = clock_wall_us()};
    struct route route = {0};
    struct envelope envelope;
    struct fault not_routed;
    *ret = (struct decided){.action = NULL};
    TRY(verify(&claims, request.token_hash, exchange, request.time_us, fault));
    TRY(lookup_find(&lookup, exchange, claims->tenant, fault));
    if (lookup->state == LOOKUP_ABSENT)
        return refuse_token(exchange, DENIAL_TENANT_UNKNOWN, fault);
    if (lookup->record.state == RECORD_ERASING)
        return refuse_token(exchange, DENIAL_TENANT_OTHER, fault);
    status routed = find_route(&route, ret->allow, exchange, &not_routed);
    if (routed != OK)
        route = (struct route){.action = &no_action};
    TRY(envelop(&envelope, claims, lookup, &route, &request, exchange, fault));
    if (lookup->record.state != RECORD_ACTIVE) {
        denial_count(exchange->connection, DENIAL_PAUSED);
        return FAIL(TENANT_PAUSED, fault, "the tenant is paused");
    }
    if (routed != OK) {
        *fault = not_routed;
        return routed;
    }
    ret->number = route.number;
    ret->action = route.action;
    for (size_t i = 0; i < TENANT_ID_BYTES; i++)
        ret->tenant_id[i] = lookup->record.id[i];
    TRY(permit(&envelope, exchange, fault));
    return check_query(exchange, route.action, fault);
}
