/* exchange.c: one request from its head to the hand-over to a cell: what is kept of the head, the
 * body piece by piece, the refusal when it comes to that.
 *
 * The first fragment is collected before a cell hears of the request, so a slow client costs its
 * tenant's cell nothing until it has sent a small body whole or a fragment of a large one. */
#include "base/secret.h"
#include "gateway/state.h"
#include "wire/messages.h"

#include <assert.h>
#include <stdlib.h>

#include "base/clock.h"

void exchange_list_put(struct exchange_list *list, struct exchange *exchange)
{
    assert(!exchange->list);
    exchange->list = list;
    exchange->next = NULL;
    exchange->previous = list->last;
    *(list->last ? &list->last->next : &list->first) = exchange;
    list->last = exchange;
    list->count++;
    if (list->total)
        ++*list->total;
}

void exchange_list_remove(struct exchange *exchange)
{
    struct exchange_list *list = exchange->list;
    if (!list)
        return;
    *(exchange->previous ? &exchange->previous->next : &list->first) = exchange->next;
    *(exchange->next ? &exchange->next->previous : &list->last) = exchange->previous;
    exchange->list = NULL;
    list->count--;
    if (list->total)
        --*list->total;
}

void wipe_and_free(struct buffer *buffer)
{
    if (buffer->data)
        secret_wipe(buffer->data, buffer->capacity);
    buffer_free(buffer);
}

struct span exchange_slice(const struct exchange *exchange, struct slice slice)
{
    assert(slice.at + slice.length <= exchange->frame.length);
    return (struct span){exchange->frame.data + slice.at, slice.length};
}

static struct slice put_slice(struct exchange *exchange, struct span bytes)
{
    buffer_put_field(&exchange->frame, bytes);
    uint32_t length = exchange->frame.failed ? 0 : (uint32_t)bytes.length;
    return (struct slice){(uint32_t)exchange->frame.length - length, length};
}

static uint8_t lower(uint8_t byte)
{
    return byte >= 'A' && byte <= 'Z' ? (uint8_t)(byte - 'A' + 'a') : byte;
}

/* RFC 6750 2.1: "Bearer", one blank, the token. Anything else is no token: the empty span. */
static struct span bearer_of(struct span value)
{
    const struct span scheme = SPAN("bearer ");
    if (value.length <= scheme.length)
        return (struct span){0};
    for (size_t i = 0; i < scheme.length; i++)
        if (lower(value.data[i]) != scheme.data[i])
            return (struct span){0};
    struct span token = {value.data + scheme.length, value.length - scheme.length};
    for (size_t i = 0; i < token.length; i++)
        if (token.data[i] <= ' ' || token.data[i] >= 0x7F)
            return (struct span){0};
    return token;
}

static status short_header(struct span *ret, const struct http_head *head, const char *name,
                           uint32_t max, struct fault *fault)
{
    struct span value;
    TRY(http_header(&value, head, name, fault));
    if (value.length > max)
        return FAIL(BAD_REQUEST, fault, "%s: at most %u bytes", name, max);
    *ret = value;
    return OK;
}

static void take_trace(struct exchange *exchange, const struct http_head *head)
{
    struct span parent;
    struct fault ignored;
    if (http_header(&parent, head, "traceparent", &ignored) == OK && parent.data
        && trace_parse(exchange->asked.trace_id, parent))
        return;
    gateway_random(exchange->connection->gateway, exchange->asked.trace_id, TRACE_ID_BYTES);
}

/* A body that somebody before us may have unpacked and we would take as it is (RFC 9110 8.4). */
static status check_content_coding(const struct http_head *head, struct fault *fault)
{
    struct span coding;
    TRY(http_header(&coding, head, "content-encoding", fault));
    if (coding.data && !span_is(coding, "identity"))
        return FAIL(UNSUPPORTED_MEDIA, fault, "content-encoding: none is understood here");
    return OK;
}

static status take_head(struct exchange *exchange, const struct http_head *head,
                        struct fault *fault)
{
    struct span authorization, content_type, idempotency_key;
    struct buffer *frame = &exchange->frame;
    TRY(check_content_coding(head, fault));
    TRY(http_header(&authorization, head, "authorization", fault));
    TRY(short_header(&content_type, head, "content-type", GATEWAY_CONTENT_TYPE_MAX, fault));
    TRY(short_header(&idempotency_key, head, "idempotency-key", GATEWAY_IDEMPOTENCY_KEY_MAX,
                     fault));
    struct span token = bearer_of(authorization);
    exchange->bearer_too_long = token.length > TOKEN_MAX;
    if (exchange->bearer_too_long)
        token.length = 0;
    buffer_put_u8(frame, 0); /* flags: set when it is sent */
    buffer_put(frame, SPAN_OF(exchange->asked.trace_id));
    exchange->method = put_slice(exchange, head->method);
    exchange->path = put_slice(exchange, head->path);
    exchange->query = put_slice(exchange, head->query);
    put_slice(exchange, content_type);
    put_slice(exchange, idempotency_key);
    exchange->token = put_slice(exchange, token);
    return buffer_check(frame, "request", fault);
}

bool exchange_begin(const struct exchange_origin *origin, const struct http_head *head)
{
    struct fault fault;
    struct exchange *exchange = calloc(1, sizeof *exchange);
    if (!exchange)
        return false;
    *exchange = (struct exchange){
        .client = origin->client, .connection = origin->client.connection, .slot = origin->slot,
        .input = origin->input, .frame = buffer_of(IPC_BODY_MAX), .chunked = head->chunked,
        .expect_continue = head->expect_continue, .body_left = head->content_length,
        .body_streamed = origin->streamed, .input_ended = origin->ended,
        .body_done = origin->streamed ? origin->ended
                                      : !head->chunked && head->content_length == 0,
        .asked = {.began_us = clock_monotonic_us(), .keep_alive = head->keep_alive,
                  .head_only = span_is(head->method, "HEAD")}};
    *exchange->slot = exchange;
    forwarded_take(exchange, head);
    take_trace(exchange, head);
    status taken = take_head(exchange, head, &fault);
    if (taken != OK)
        exchange_refuse(exchange, taken, fault.detail, NULL);
    else
        exchange_decide(exchange);
    return true;
}

void exchange_end(struct exchange *exchange)
{
    exchange_list_remove(exchange);
    if (exchange->stream)
        relay_cancel(exchange);
    if (exchange->route_call)
        control_forget(exchange->connection->gateway, exchange->route_call);
    standing_leave(exchange);
    wipe_and_free(&exchange->frame);
    wipe_and_free(&exchange->body);
    wipe_and_free(&exchange->question);
    *exchange->slot = NULL;
    free(exchange);
}

static void finish(struct exchange *exchange, bool keep_alive)
{
    struct client client = exchange->client;
    exchange_end(exchange);
    client.carrier->finished(&client, keep_alive);
}

void exchange_ready(struct exchange *exchange)
{
    exchange->client.carrier->ready(&exchange->client);
}

void exchange_answered(struct exchange *exchange)
{
    assert(!exchange->stream && exchange->body_done);
    finish(exchange, exchange->asked.keep_alive);
}

void exchange_refuse(struct exchange *exchange, status code, const char *detail,
                     const char *allow)
{
    struct problem problem;
    if (exchange->phase == EXCHANGE_ANSWER) { /* too late to say so but by breaking off */
        struct client client = exchange->client;
        exchange_end(exchange);
        client.carrier->cut(&client);
        return;
    }
    exchange->client.carrier->refusing(exchange);
    problem_make(&problem, &exchange->asked, code, detail, allow);
    exchange->client.carrier->answer(exchange, &problem.answer, buffer_span(&problem.body), NULL);
    finish(exchange, exchange->asked.keep_alive);
}

enum timer_kind exchange_timer(const struct exchange *exchange)
{
    return exchange_wants_input(exchange) ? TIMER_BODY : TIMER_ANSWER;
}

void exchange_timed_out(struct exchange *exchange, enum timer_kind kind)
{
    if (kind == TIMER_BODY) {
        exchange->asked.keep_alive = false;
        exchange_refuse(exchange, TIMED_OUT, "the body did not come in time", NULL);
    } else {
        exchange_refuse(exchange, UNAVAILABLE, "the answer did not come in time", NULL);
    }
}

static status check_length(const struct exchange *exchange, struct fault *fault)
{
    if (exchange->body_left <= exchange->body_max)
        return OK;
    if (exchange->body_max == 0)
        return FAIL(BAD_REQUEST, fault, "this action takes no body");
    return FAIL(TOO_LARGE, fault, "this action takes a body of at most %llu bytes",
                (unsigned long long)exchange->body_max);
}

/* The first fragment shares its message with the head. */
static size_t first_fragment_max(const struct exchange *exchange)
{
    size_t left = IPC_BODY_MAX - exchange->frame.length - sizeof(uint32_t);
    return left < RELAY_FRAGMENT_MAX ? left : RELAY_FRAGMENT_MAX;
}

void exchange_decide(struct exchange *exchange)
{
    struct decided decided;
    struct fault fault;
    exchange->phase = EXCHANGE_FIND;
    status code = decide(&decided, exchange, &fault);
    if (code == AGAIN)
        return;
    exchange->asked.action = decided.number;
    if (code == OK) {
        exchange->body_max = decided.action->body_max;
        code = check_length(exchange, &fault);
    }
    if (code != OK) {
        exchange_refuse(exchange, code, fault.detail, decided.allow);
        return;
    }
    for (size_t i = 0; i < TENANT_ID_BYTES; i++)
        exchange->tenant_id[i] = decided.tenant_id[i];
    exchange->chunks = http_chunks_of(exchange->body_max);
    exchange->body = buffer_of(first_fragment_max(exchange));
    exchange->phase = EXCHANGE_BODY;
    if (exchange->expect_continue)
        exchange->client.carrier->proceed(exchange);
    exchange_ready(exchange);
}

static bool is_full(const struct exchange *exchange)
{
    return exchange->body.length == exchange->body.max;
}

bool exchange_wants_input(const struct exchange *exchange)
{
    return (exchange->phase == EXCHANGE_BODY || exchange->phase == EXCHANGE_UPLOAD)
        && !exchange->body_done && !is_full(exchange);
}

static void pull_plain(struct exchange *exchange, struct buffer *in)
{
    size_t length = exchange->body.max - exchange->body.length;
    if (length > exchange->body_left)
        length = (size_t)exchange->body_left;
    if (length > in->length)
        length = in->length;
    buffer_put(&exchange->body, (struct span){in->data, length});
    buffer_consume(in, length);
    exchange->body_left -= length;
    exchange->body_done = exchange->body_left == 0;
}

/* The rest of a stream that ends within what has come is not waited for. */
static status pull_streamed(struct exchange *exchange, struct buffer *in, struct fault *fault)
{
    size_t length = exchange->body.max - exchange->body.length;
    if (exchange->body_taken + in->length > exchange->body_max)
        return FAIL(TOO_LARGE, fault, "this action takes a body of at most %llu bytes",
                    (unsigned long long)exchange->body_max);
    if (length > in->length)
        length = in->length;
    buffer_put(&exchange->body, (struct span){in->data, length});
    buffer_consume(in, length);
    exchange->body_taken += length;
    exchange->body_done = exchange->input_ended && in->length == 0;
    return OK;
}

static status pull_chunks(struct exchange *exchange, struct buffer *in, struct fault *fault)
{
    size_t at = 0, used = 1;
    while (used && at < in->length && !exchange->chunks.done && !is_full(exchange)) {
        size_t room = exchange->body.max - exchange->body.length;
        struct span piece, bytes = {in->data + at, in->length - at};
        if (bytes.length > room) /* a piece is never longer than what it is cut from */
            bytes.length = room;
        TRY(http_chunks_next(&piece, &used, &exchange->chunks, bytes, fault));
        buffer_put(&exchange->body, piece);
        at += used;
    }
    buffer_consume(in, at);
    exchange->body_done = exchange->chunks.done;
    return OK;
}

/* Takes what fits from the input. False when the request was refused. */
static bool pull(struct exchange *exchange)
{
    struct fault fault;
    struct buffer *in = exchange->input;
    if (exchange->body_done || (in->length == 0 && !exchange->input_ended))
        return true;
    status pulled = OK;
    if (exchange->body_streamed)
        pulled = pull_streamed(exchange, in, &fault);
    else if (exchange->chunked)
        pulled = pull_chunks(exchange, in, &fault);
    else
        pull_plain(exchange, in);
    if (pulled == OK && exchange->body.failed)
        pulled = FAIL(INTERNAL, &fault, "out of memory");
    if (pulled == TOO_LARGE && exchange->body_max == 0)
        pulled = FAIL(BAD_REQUEST, &fault, "this action takes no body");
    if (pulled == OK)
        return true;
    exchange->asked.keep_alive = false;
    exchange_refuse(exchange, pulled, fault.detail, NULL);
    return false;
}

bool exchange_step(struct exchange *exchange)
{
    bool upload = exchange->phase == EXCHANGE_UPLOAD;
    if (!upload && exchange->phase != EXCHANGE_BODY)
        return false;
    if (upload && !relay_takes_body(exchange->stream->relay))
        return false; /* looked at again when the cell has taken what waits */
    if (!pull(exchange))
        return true;
    if (!exchange->body_done && !is_full(exchange))
        return false;
    exchange->client.carrier->moved(&exchange->client);
    if (upload)
        relay_body(exchange);
    else
        tenant_dispatch(exchange);
    return true;
}
