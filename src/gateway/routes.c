/* routes.c: GET /v1/routes/{kind}/{value}: a platform's own back end asks which tenant a phone
 * number or a customer number is of. Control knows, and writes who asked into the ledger. */
#include "base/clock.h"
#include "base/hex.h"
#include "gateway/state.h"
#include "silo/actions.h"
#include "wire/json.h"
#include "wire/messages.h"

#include <assert.h>

enum {
    KIND_MAX = 32,
    QUESTION_MAX = KIB(2),
    ANSWER_MAX = KIB(4),
};

const struct action *gateway_action(uint32_t number)
{
    uint32_t cells = action_count(&action_table);
    return number <= cells ? action_numbered(&action_table, number)
                           : action_numbered(&route_table, number - cells);
}

static bool is_kind(struct span kind)
{
    for (size_t i = 0; i < kind.length; i++) {
        uint8_t byte = kind.data[i];
        if (!((byte >= 'a' && byte <= 'z') || (byte >= '0' && byte <= '9') || byte == '_'
              || byte == '-'))
            return false;
    }
    return kind.length > 0 && kind.length <= KIND_MAX;
}

status route_question(struct exchange *exchange, const struct route *route,
                      const struct caller *caller, struct fault *fault)
{
    assert(route->id_count == 2);
    if (!is_kind(route->ids[0]))
        return FAIL(BAD_FIELD, fault, "kind: 1 to %d of a-z, 0-9, _ and -", (int)KIND_MAX);
    buffer_free(&exchange->question);
    exchange->question = buffer_of(QUESTION_MAX);
    buffer_put_field(&exchange->question, route->ids[0]);
    buffer_put_field(&exchange->question, route->ids[1]);
    buffer_put_text_field(&exchange->question, caller->claims->user);
    buffer_put(&exchange->question, SPAN_OF(caller->token_hash));
    buffer_put(&exchange->question, SPAN_OF(exchange->asked.trace_id));
    return buffer_check(&exchange->question, "route", fault);
}

/* A stolen token of the platform must not fill the ledger. */
static status take_turn(struct gateway *gateway, struct fault *fault)
{
    int64_t now_us = clock_monotonic_us();
    uint32_t retry_after;
    rate_set(&gateway->route_rate, GATEWAY_ROUTES_MAX, now_us);
    return rate_take(&gateway->route_rate, now_us, "routes a second", &retry_after, fault);
}

void route_dispatch(struct exchange *exchange)
{
    struct fault fault;
    exchange->phase = EXCHANGE_ROUTE;
    if (take_turn(exchange->connection->gateway, &fault) != OK) {
        exchange_refuse(exchange, QUOTA_EXCEEDED, fault.detail, NULL);
        return;
    }
    if (control_ask(&exchange->route_call, exchange->connection->gateway, CALL_ROUTE,
                    MESSAGE_ROUTE_FIND, buffer_span(&exchange->question), exchange, &fault) != OK)
        exchange_refuse(exchange, UNAVAILABLE, "the route could not be looked up: try again",
                        NULL);
}

/* kind and value are those that were asked for. */
static status put_answer(struct buffer *out, const struct exchange *exchange,
                         const struct route_told *told, struct fault *fault)
{
    char id[TENANT_ID_TEXT];
    struct cursor question = cursor_over(buffer_span(&exchange->question));
    struct span kind, value;
    TRY(cursor_field(&kind, &question, KIND_MAX, "kind", fault));
    TRY(cursor_field(&value, &question, ACTION_ID_MAX, "value", fault));
    hex_encode(id, SPAN_OF(told->id));
    struct json_writer writer = json_writer_on(out);
    json_open_object(&writer, NULL);
    json_put_string(&writer, "kind", kind);
    json_put_string(&writer, "value", value);
    json_put_text(&writer, "tenant_id", id);
    json_put_text(&writer, "tenant", told->name);
    json_close_object(&writer);
    return buffer_check(out, "route", fault);
}

static void answer(struct exchange *exchange, const struct route_told *told)
{
    uint8_t storage[ANSWER_MAX];
    struct buffer body = buffer_over(storage, sizeof storage);
    struct fault fault;
    if (put_answer(&body, exchange, told, &fault) != OK) {
        exchange_refuse(exchange, INTERNAL, fault.detail, NULL);
        return;
    }
    const struct answer answer = {.http_status = 200, .length = body.length,
                                  .headers = {[RELAY_CONTENT_TYPE] = SPAN("application/json")}};
    const struct piece piece = {.bytes = buffer_span(&body), .end = true};
    exchange->client.carrier->answer(exchange, &answer, &piece);
    exchange_answered(exchange);
}

void route_answered(struct exchange *exchange, status code, const struct route_told *told)
{
    exchange->route_call = 0;
    if (code == OK)
        answer(exchange, told);
    else if (code == NOT_FOUND)
        exchange_refuse(exchange, NOT_FOUND, "there is no such route", NULL);
    else if (code == BAD_FIELD)
        exchange_refuse(exchange, BAD_FIELD,
                        "kind: phone, customer or host; value: must be of its form", NULL);
    else
        exchange_refuse(exchange, UNAVAILABLE, "the route could not be looked up: try again",
                        NULL);
}
