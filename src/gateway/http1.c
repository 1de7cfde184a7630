/* http1.c: HTTP/1.1 on a connection: one request after another, each answered before the next is
 * begun. Writes down the heads of answers. */
#include "base/secret.h"
#include "gateway/state.h"

#include <assert.h>

static struct span head_of(struct gateway *gateway, const struct asked *asked,
                           const struct answer *answer)
{
    struct buffer *out = &gateway->scratch;
    struct fields fields;
    answer_fields(&fields, gateway, asked, answer);
    buffer_clear(out);
    http_put_status(out, answer->http_status);
    for (uint32_t i = 0; i < fields.count; i++)
        http_put_header(out, fields.list[i].name, fields.list[i].value);
    if (!asked->keep_alive || gateway->stopping)
        http_put_header(out, "Connection", SPAN("close"));
    http_put_end(out);
    assert(!out->failed); /* its parts are bounded */
    return buffer_span(out);
}

void http1_answer(struct connection *connection, const struct asked *asked,
                  const struct answer *answer, struct span body, struct relay *from)
{
    struct span head = head_of(connection->gateway, asked, answer);
    connection_send(connection, head, asked->head_only ? (struct span){0} : body, from);
}

void http1_finished(struct connection *connection, bool keep_alive)
{
    if (!keep_alive || connection->gateway->stopping)
        connection->closing = true;
    connection_ready(connection);
}

void http1_refuse(struct connection *connection, status code, const char *detail)
{
    struct asked asked = {.uncounted = connection->ops};
    /* where the next request begins is not known: closed */
    gateway_random(connection->gateway, asked.trace_id, sizeof asked.trace_id);
    answer_problem(connection, &asked, code, detail, NULL);
    http1_finished(connection, false);
}

/* ---- what an exchange wants of it ---- */

static void answer(struct exchange *exchange, const struct answer *answer, struct span body,
                   struct relay *from)
{
    http1_answer(exchange->connection, &exchange->asked, answer, body, from);
}

static void more(struct exchange *exchange, struct span body, struct relay *from)
{
    connection_send(exchange->connection, body, (struct span){0}, from);
}

static void proceed(struct exchange *exchange)
{
    connection_send(exchange->connection, SPAN("HTTP/1.1 100 Continue\r\n\r\n"), (struct span){0},
                    NULL);
}

/* May the connection carry another request although this one's body has not been read? The rest of
 * a short one is, for that; a client that waits for "100 Continue" may or may not send it. */
static bool outlives_refusal(const struct exchange *exchange)
{
    if (exchange->body_done)
        return true;
    return !exchange->chunked && !exchange->expect_continue
        && exchange->body_left <= GATEWAY_SKIP_MAX;
}

static void refusing(struct exchange *exchange)
{
    exchange->asked.keep_alive = exchange->asked.keep_alive && outlives_refusal(exchange);
    if (exchange->asked.keep_alive && !exchange->body_done)
        exchange->connection->skip = exchange->body_left;
}

static void moved(const struct client *client)
{
    connection_restart_timer(client->connection);
}

static void ready(const struct client *client)
{
    connection_ready(client->connection);
}

static void finished(const struct client *client, bool keep_alive)
{
    http1_finished(client->connection, keep_alive);
}

static void cut(const struct client *client)
{
    connection_break(client->connection);
}

static const struct carrier carrier = {answer, more,  proceed,  refusing,
                                       moved,  ready, finished, cut};

/* ---- requests ---- */

static bool skip_some(struct connection *connection)
{
    size_t length = connection->in.length < connection->skip ? connection->in.length
                                                             : (size_t)connection->skip;
    buffer_consume(&connection->in, length);
    connection->skip -= length;
    return length > 0;
}

static void begin_exchange(struct connection *connection, const struct http_head *head)
{
    struct exchange_origin origin = {.client = {.carrier = &carrier, .connection = connection},
                                     .slot = &connection->exchange, .input = &connection->in};
    if (!exchange_begin(&origin, head))
        connection_break(connection);
}

/* True when a request has begun. */
static bool begin(struct connection *connection)
{
    struct http_head head;
    size_t consumed;
    struct fault fault;
    if (connection->in.length == 0)
        return false;
    status parsed = http_parse_head(&head, &consumed, &connection->scan, connection->in.data,
                                    connection->in.length, &fault);
    if (parsed == AGAIN)
        return false;
    connection->scan = (struct http_scan){0};
    if (parsed != OK) {
        http1_refuse(connection, parsed, fault.detail);
        return false;
    }
    if (connection->ops)
        ops_answer(connection, &head);
    else
        begin_exchange(connection, &head);
    secret_wipe(connection->in.data, consumed); /* the token */
    buffer_consume(&connection->in, consumed);
    return true;
}

bool http1_step(struct connection *connection)
{
    if (connection->exchange)
        return exchange_step(connection->exchange);
    if (connection_output_waits(connection))
        return false;
    if (connection->skip)
        return skip_some(connection);
    return begin(connection);
}
