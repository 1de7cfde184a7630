/* exchange.c: one request from its head to the hand-over to a cell: what is kept of the head, the
 * body piece by piece, the refusal when it comes to that.
 *
 * The first fragment is collected before a cell hears of the request, so a slow client costs its
 * tenant's cell nothing until it has sent a small body whole or a fragment of a large one. Where
 * the action streams, the cell hears of it at once: it may have something to say before that. */
#include "base/secret.h"
#include "gateway/state.h"
#include "wire/messages.h"

#include <assert.h>
#include <stdlib.h>

#include "base/clock.h"

/* Less than that of a streamed body in the time of a clock is no progress. */
enum { PROGRESS_MIN = 1024 };

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

static const struct {
    const char *name;
    uint8_t kind;
    uint32_t max;
} passed[] = {
    {"content-type", RELAY_CONTENT_TYPE, GATEWAY_CONTENT_TYPE_MAX},
    {"idempotency-key", RELAY_IDEMPOTENCY_KEY, GATEWAY_IDEMPOTENCY_KEY_MAX},
    {"range", RELAY_RANGE, RELAY_HEADER_MAX},
    {"if-range", RELAY_IF_RANGE, RELAY_HEADER_MAX},
    {"if-match", RELAY_IF_MATCH, RELAY_HEADER_MAX},
    {"if-none-match", RELAY_IF_NONE_MATCH, RELAY_HEADER_MAX},
    {"if-modified-since", RELAY_IF_MODIFIED_SINCE, RELAY_HEADER_MAX},
    {"if-unmodified-since", RELAY_IF_UNMODIFIED_SINCE, RELAY_HEADER_MAX},
};

/* The headers that a cell is told. Each once, also those that are lists: whoever reads only the
 * first of two would act on another condition. */
static status take_headers(struct span ret[RELAY_HEADERS], const struct http_head *head,
                           struct fault *fault)
{
    for (size_t i = 0; i < sizeof passed / sizeof *passed; i++) {
        struct span value;
        TRY(http_header(&value, head, passed[i].name, fault));
        if (value.data && (value.length > passed[i].max || !relay_header_fits(value)))
            return FAIL(BAD_REQUEST, fault, "%s: 1 to %u bytes of visible ASCII", passed[i].name,
                        passed[i].max);
        ret[passed[i].kind] = value;
    }
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

/* -1: not known before it ends. */
static int64_t announced_length(const struct exchange *exchange)
{
    if (exchange->body_done)
        return 0;
    bool known = exchange->body_left > 0; /* of a stream that has not ended 0 may mean: not said */
    return exchange->chunked || !known ? -1 : (int64_t)exchange->body_left;
}

static status take_head(struct exchange *exchange, const struct http_head *head,
                        struct fault *fault)
{
    struct span authorization, headers[RELAY_HEADERS] = {0};
    struct buffer *frame = &exchange->frame;
    TRY(check_content_coding(head, fault));
    TRY(http_header(&authorization, head, "authorization", fault));
    TRY(take_headers(headers, head, fault));
    struct span token = bearer_of(authorization);
    exchange->bearer_too_long = token.length > TOKEN_MAX;
    if (exchange->bearer_too_long)
        token.length = 0;
    buffer_put_u8(frame, 0); /* flags: set when it is sent */
    buffer_put(frame, SPAN_OF(exchange->asked.trace_id));
    exchange->method = put_slice(exchange, head->method);
    exchange->path = put_slice(exchange, head->path);
    exchange->query = put_slice(exchange, head->query);
    buffer_put_u64(frame, (uint64_t)announced_length(exchange));
    relay_headers_put(frame, headers);
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
                  .http_1_0 = head->http_1_0, .head_only = span_is(head->method, "HEAD")}};
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
    assert(!exchange->stream);
    if (!exchange->body_done)
        exchange->client.carrier->refusing(exchange);
    finish(exchange, exchange->asked.keep_alive);
}

void exchange_taken(struct exchange *exchange, size_t waiting)
{
    struct stream *stream = exchange->stream;
    if (stream && stream->answering && stream->owed > waiting)
        relay_credit(stream, stream->owed - (uint32_t)waiting);
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
    const struct piece piece = problem_piece(&problem);
    exchange->client.carrier->answer(exchange, &problem.answer, &piece);
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

static bool streams_in(const struct exchange *exchange)
{
    return exchange->streams & ACTION_STREAMS_IN;
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
        exchange->streams = decided.action->streams;
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
    if (exchange->expect_continue && !streams_in(exchange))
        exchange->client.carrier->proceed(exchange); /* else when its cell is there */
    exchange_ready(exchange);
}

static bool is_full(const struct exchange *exchange)
{
    return exchange->body.length == exchange->body.max;
}

static bool is_uploading(const struct exchange *exchange)
{
    return exchange->stream && exchange->stream->uploading;
}

bool exchange_wants_input(const struct exchange *exchange)
{
    if (exchange->body_done || is_full(exchange))
        return false;
    if (is_uploading(exchange))
        return !streams_in(exchange) || relay_takes_body(exchange->stream) > 0;
    return exchange->phase == EXCHANGE_BODY;
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
    uint64_t said = exchange->body_left; /* 0: nothing; the session holds clients to it, too */
    if (said && (exchange->body_done ? exchange->body_taken != said : exchange->body_taken > said))
        return FAIL(BAD_REQUEST, fault, "HTTP/2: a body of another length than was said");
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

static void begin(struct exchange *exchange)
{
    exchange->client.carrier->moved(&exchange->client);
    tenant_dispatch(exchange);
}

static void send_fragment(struct exchange *exchange)
{
    exchange->progress += (uint32_t)exchange->body.length;
    if (!streams_in(exchange) || exchange->body_done || exchange->progress >= PROGRESS_MIN) {
        exchange->client.carrier->moved(&exchange->client);
        exchange->progress = 0;
    }
    relay_body(exchange);
}

/* Is there something to be sent? Whole bodies go in whole fragments; one that streams as it comes:
 * its sender may wait for what it is answered. */
static bool is_due(const struct exchange *exchange)
{
    return exchange->body_done || is_full(exchange)
        || (streams_in(exchange)
            && (exchange->phase == EXCHANGE_BODY || exchange->body.length > 0));
}

bool exchange_step(struct exchange *exchange)
{
    bool upload = is_uploading(exchange);
    if (!upload && exchange->phase != EXCHANGE_BODY)
        return false;
    if (upload) {
        uint32_t takes = relay_takes_body(exchange->stream);
        if (takes == 0)
            return false;
        if (streams_in(exchange))
            exchange->body.max = takes;
    }
    if (!pull(exchange))
        return true;
    if (!is_due(exchange))
        return false;
    if (upload)
        send_fragment(exchange);
    else
        begin(exchange);
    return true;
}
