#include "cell/request.h"

#include "base/hex.h"
#include "base/secret.h"
#include "cell/state.h"
#include "silo/actions.h"
#include "wire/http.h"
#include "wire/problem.h"

#include <assert.h>

enum { RETRY_AFTER_SECONDS = 1 };

/* For a path that names no action: whose token it is is still asked first. */
static const struct action no_action = {
    .name = "none", .method = "", .path = "", .resource = "none", .scope = SCOPE_TENANT_READ,
};

/* A text field: any bytes but NUL; what they mean is checked by who uses them. */
static status get_text(struct span *ret, struct cursor *cursor, const char *name,
                       struct fault *fault)
{
    struct span bytes;
    TRY(cursor_field(&bytes, cursor, HTTP_LINE_MAX, name, fault));
    for (size_t i = 0; i < bytes.length; i++)
        if (bytes.data[i] == 0)
            return FAIL(BAD_REQUEST, fault, "%s: a NUL in a text", name);
    *ret = bytes;
    return OK;
}

status request_head_get(struct request_head *ret, struct span body, struct fault *fault)
{
    struct cursor cursor = cursor_over(body);
    struct request_head head;
    uint64_t length;
    TRY(cursor_u8(&head.flags, &cursor, fault));
    if (head.flags & ~FLAG_END)
        return FAIL(BAD_REQUEST, fault, "flags %#x", head.flags);
    TRY(cursor_copy(head.trace_id, &cursor, sizeof head.trace_id, fault));
    TRY(get_text(&head.method, &cursor, "method", fault));
    TRY(get_text(&head.path, &cursor, "path", fault));
    TRY(get_text(&head.query, &cursor, "query", fault));
    TRY(cursor_u64(&length, &cursor, fault));
    head.length = (int64_t)length;
    if (head.length < -1)
        return FAIL(BAD_REQUEST, fault, "a body of %lld bytes", (long long)head.length);
    TRY(relay_headers_get(head.headers, &cursor, RELAY_REQUEST_HEADERS, fault));
    TRY(cursor_field(&head.token, &cursor, TOKEN_MAX, "token", fault));
    TRY(cursor_field(&head.fragment, &cursor, RELAY_FRAGMENT_MAX, "fragment", fault));
    TRY(cursor_end(&cursor, fault));
    *ret = head;
    return OK;
}

static uint8_t lower(uint8_t character)
{
    return character >= 'A' && character <= 'Z' ? (uint8_t)(character - 'A' + 'a') : character;
}

/* That media type, in any case, with or without parameters (RFC 9110 8.3.1). */
bool request_is_media(const struct request *request, struct span media)
{
    struct span content_type = request->headers[RELAY_CONTENT_TYPE];
    size_t end = media.length;
    if (content_type.length < end)
        return false;
    for (size_t i = 0; i < end; i++)
        if (lower(content_type.data[i]) != media.data[i])
            return false;
    while (end < content_type.length
           && (content_type.data[end] == ' ' || content_type.data[end] == '\t'))
        end++;
    return end == content_type.length || content_type.data[end] == ';';
}

static status keep(struct span *ret, struct arena *arena, struct span bytes, struct fault *fault)
{
    if (bytes.length == 0)
        return OK; /* ret is zeroed */
    struct span copy = arena_copy(arena, bytes);
    if (!copy.data)
        return FAIL(INTERNAL, fault, "out of memory");
    *ret = copy;
    return OK;
}

static status find_route(struct route *ret, struct request *request, struct arena *arena,
                         const struct request_head *head, struct fault *fault)
{
    struct span path;
    TRY(http_decode_path(&path, arena, head->path, fault));
    return authz_route(ret, request->allow, &action_table, head->method, path, fault);
}

static status check_query(const struct request *request, struct arena *arena, struct fault *fault)
{
    struct http_query query;
    if (request->query.length == 0)
        return OK;
    TRY(http_query_parse(&query, arena, request->query, fault));
    return http_query_only(&query, action_query_names(request->action), fault);
}

/* Fills the envelope. What follows it may be refused, but is then refused to somebody we know. */
static status identify(struct request *request, struct cell *cell, const struct route *route,
                       const uint8_t trace_id[TRACE_ID_BYTES], int64_t now_us, struct fault *fault)
{
    const struct claims *claims;
    struct request_facts facts = {.time_us = now_us};
    enum token_reason reason;
    enum decision decision;
    TRY(token_cache_verify(&claims, facts.token_hash, &reason, cell->tokens, cell->verifier,
                           request->token, now_us / 1000000, fault));
    if (claims->platform) /* a back end of the platform's: no tenant is behind it */
        return FAIL(UNAUTHENTICATED, fault, TOKEN_REFUSED);
    struct cursor bytes = cursor_over((struct span){trace_id, TRACE_ID_BYTES});
    TRY(cursor_copy(facts.trace_id, &bytes, sizeof facts.trace_id, fault));
    TRY(authz_envelope(&request->envelope, &decision, claims, &cell->facts, route, &facts, fault));
    /* invariant 1: whatever the layers above believed, this process acts for one tenant only */
    assert(span_equal(span_of_text(request->envelope.tenant), span_of_text(cell->facts.id)));
    request->generation = cell->charters.generation;
    if (charters_revoke(cell, claims)) {
        request->denial = DENIAL_REVOKED;
        return FAIL(UNAUTHENTICATED, fault, TOKEN_REFUSED);
    }
    request->usable_until = claims->usable_until;
    request->serves_once = claims->jti_once;
    bytes = cursor_over(SPAN_OF(claims->jti));
    return cursor_copy(request->token_id, &bytes, sizeof request->token_id, fault);
}

static status check_region(const struct cell *cell, struct fault *fault)
{
    const char *tenant = charters_posture(cell)->region, *node = cell->charters.region;
    if (!tenant[0] || !node[0] || span_equal(span_of_text(tenant), span_of_text(node)))
        return OK;
    return FAIL(WRONG_REGION, fault, "this tenant is served in the region %s", tenant);
}

/* May this caller, whom we know? */
static status decide(const struct request *request, const struct cell *cell, struct fault *fault)
{
    enum decision decision;
    TRY(check_region(cell, fault));
    TRY(authz_decide(&decision, &request->envelope, fault));
    assert(decision == DECISION_ALLOWED);
    return OK;
}

static status open_request(struct request *request, struct cell *cell, struct arena *arena,
                           const struct request_head *head, int64_t now_us, struct fault *fault)
{
    struct fault not_routed;
    struct route route = {0};
    status routed = find_route(&route, request, arena, head, &not_routed);
    if (routed != OK)
        route = (struct route){.action = &no_action};
    request->body_max = route.action->body_max;
    request->streams = route.action->streams;
    TRY(keep(&request->token, arena, head->token, fault));
    TRY(identify(request, cell, &route, head->trace_id, now_us, fault));
    TRY(quota_admit(request, cell, fault));
    if (routed != OK) {
        TRY(check_region(cell, fault));
        *fault = not_routed;
        return routed;
    }
    request->action = route.action;
    request->id_count = route.id_count;
    for (uint32_t i = 0; i < route.id_count; i++)
        request->ids[i] = route.ids[i];
    TRY(keep(&request->query, arena, head->query, fault));
    for (int kind = 1; kind < RELAY_HEADERS; kind++)
        TRY(keep(&request->headers[kind], arena, head->headers[kind], fault));
    request->known = true;
    TRY(decide(request, cell, fault));
    return check_query(request, arena, fault);
}

status request_renew(struct request *request, struct cell *cell, int64_t now_us,
                     struct fault *fault)
{
    if (request->generation == cell->charters.generation)
        return OK;
    struct route route = {.action = request->action, .id_count = request->id_count};
    for (uint32_t i = 0; i < route.id_count; i++)
        route.ids[i] = request->ids[i];
    struct envelope before = request->envelope;
    TRY(identify(request, cell, &route, before.trace_id, now_us, fault));
    assert(span_equal(span_of_text(request->envelope.user), span_of_text(before.user)));
    return decide(request, cell, fault);
}

status request_renew_begun(struct request *request, struct cell *cell, int64_t now_us,
                           struct fault *fault)
{
    if (now_us / 1000000 >= request->usable_until)
        now_us = (request->usable_until - 1) * 1000000;
    return request_renew(request, cell, now_us, fault);
}

void request_open(struct request *ret, struct cell *cell, struct arena *arena,
                  const struct request_head *head, int64_t now_us)
{
    *ret = (struct request){.verdict = INTERNAL, /* until proven otherwise */
                            .denial = DENIAL_NONE};
    hex_encode(ret->trace_text, SPAN_OF(head->trace_id));
    ret->length = head->length;
    ret->head_only = span_is(head->method, "HEAD");
    ret->verdict = open_request(ret, cell, arena, head, now_us, &ret->fault);
    if (ret->verdict == UNAUTHENTICATED)
        ret->allow[0] = '\0'; /* not even which paths exist */
}

void request_refuse(struct request *request, status why, const char *detail)
{
    if (request->verdict != OK)
        return;
    request->verdict = FAIL(why, &request->fault, "%s", detail);
}

void request_complete(struct request *request, struct span body, int64_t now_us)
{
    request->body = body;
    if (request->verdict != OK)
        return;
    if (now_us / 1000000 >= request->usable_until) { /* it expired while the body came */
        request_refuse(request, UNAUTHENTICATED, TOKEN_REFUSED);
        return;
    }
    if (request->action->body == ACTION_BODY_JSON && body.length
        && !request_is_media(request, SPAN("application/json")))
        request_refuse(request, UNSUPPORTED_MEDIA, "content-type must be application/json");
}

bool request_keeps_answer(const struct request *request)
{
    return request->headers[RELAY_IDEMPOTENCY_KEY].length > 0
           && span_is(span_of_text(request->action->method), "POST");
}

/* Reasons of ours are for the log; the client of a failure that is not its own needs none. */
const char *request_detail(status code, const char *detail)
{
    switch (code) {
    case INTERNAL:
    case CORRUPT:
        return "the request could not be carried out";
    case OUT_OF_SPACE:
        return "no space is left to store this";
    default:
        return detail;
    }
}

struct answer request_problem(struct buffer *body, const struct request *request, status code,
                              const char *detail)
{
    if (body->length)
        secret_wipe(body->data, body->length);
    buffer_clear(body);
    problem_put(body, code, request_detail(code, detail), request->trace_text);
    int http = status_http(code);
    struct answer answer = {
        .http_status = http,
        .retry_after = code == QUOTA_EXCEEDED && request->retry_after ? request->retry_after
                     : http == 503 || http == 429 ? RETRY_AFTER_SECONDS : 0,
        .headers[RELAY_CONTENT_TYPE] = SPAN(PROBLEM_MEDIA_TYPE),
    };
    if (code == METHOD_NOT_ALLOWED)
        answer.headers[RELAY_ALLOW] = span_of_text(request->allow);
    if (code == RANGE_NOT_SATISFIABLE)
        answer.headers[RELAY_CONTENT_RANGE] = request->content_range;
    return answer;
}
