/* http1.c: HTTP/1.1 on a connection: one request after another, each answered before the next is
 * begun. Writes down the heads of answers. */
#include "base/secret.h"
#include "gateway/state.h"

#include <assert.h>

static void put_head(struct gateway *gateway, const struct asked *asked,
                     const struct answer *answer, bool chunking)
{
    struct buffer *out = &gateway->scratch;
    struct fields fields;
    answer_fields(&fields, gateway, asked, answer);
    buffer_clear(out);
    http_put_status(out, answer->http_status);
    for (uint32_t i = 0; i < fields.count; i++)
        http_put_header(out, fields.list[i].name, fields.list[i].value);
    if (chunking)
        http_put_header(out, "Transfer-Encoding", SPAN("chunked"));
    if (!asked->keep_alive || gateway->stopping)
        http_put_header(out, "Connection", SPAN("close"));
    http_put_end(out);
}

/* Behind what is in the gateway's scratch. */
static void send_piece(struct connection *connection, const struct piece *piece)
{
    uint8_t storage[16];
    struct buffer *out = &connection->gateway->scratch;
    struct buffer tail = buffer_over(storage, sizeof storage);
    if (connection->chunking && piece->bytes.length) {
        http_put_chunk_head(out, piece->bytes.length);
        http_put_chunk_tail(&tail);
    }
    if (connection->chunking && piece->end)
        http_put_last_chunk(&tail);
    assert(!out->failed && !tail.failed); /* their parts are bounded */
    const struct span parts[] = {buffer_span(out), piece->bytes, buffer_span(&tail)};
    connection_send(connection, parts, sizeof parts / sizeof *parts, piece->from);
}

void http1_answer(struct connection *connection, const struct asked *asked,
                  const struct answer *answer, const struct piece *piece)
{
    const struct piece nothing = {.from = piece->from};
    bool unbounded = answer->length == RELAY_LENGTH_UNKNOWN && !asked->head_only;
    connection->chunking = unbounded && !asked->http_1_0;
    connection->unframed = unbounded && asked->http_1_0; /* such a connection is not kept */
    put_head(connection->gateway, asked, answer, connection->chunking);
    send_piece(connection, asked->head_only ? &nothing : piece);
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

static void answer(struct exchange *exchange, const struct answer *answer,
                   const struct piece *piece)
{
    http1_answer(exchange->connection, &exchange->asked, answer, piece);
}

static void more(struct exchange *exchange, const struct piece *piece)
{
    buffer_clear(&exchange->connection->gateway->scratch);
    send_piece(exchange->connection, piece);
}

static void proceed(struct exchange *exchange)
{
    const struct span line = SPAN("HTTP/1.1 100 Continue\r\n\r\n");
    connection_send(exchange->connection, &line, 1, NULL);
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
