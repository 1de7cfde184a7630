/* answer.c: what is in the head of an answer. Only this file makes the list; what a cell wants in
 * it comes here checked, and who writes it down refuses control bytes once more. */
#include "base/clock.h"
#include "base/hex.h"
#include "gateway/state.h"
#include "wire/problem.h"

#include <assert.h>

enum { RETRY_AFTER_SECONDS = 1 };

void gateway_random(struct gateway *gateway, uint8_t *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if (gateway->random_left == 0) {
            crypt_random(gateway->random, sizeof gateway->random);
            gateway->random_left = sizeof gateway->random;
        }
        bytes[i] = gateway->random[--gateway->random_left];
    }
}

static void put(struct fields *fields, const char *name, const char *lower, struct span value)
{
    assert(fields->count < FIELDS_MAX && http_is_header_value(value));
    fields->list[fields->count++] = (struct field){name, lower, value};
}

/* Of the line that the writer of HTTP/1.1 makes, once a second. */
static struct span date_now(struct gateway *gateway)
{
    const struct span name = SPAN("Date: "), end = SPAN("\r\n");
    int64_t now_us = clock_wall_us();
    if (gateway->date_second != now_us / 1000000) {
        struct buffer line = buffer_over((uint8_t *)gateway->date, sizeof gateway->date);
        http_put_date(&line, now_us);
        assert(!line.failed && span_starts_with(buffer_span(&line), name));
        gateway->date_length = line.length - name.length - end.length;
        gateway->date_second = now_us / 1000000;
    }
    return (struct span){(const uint8_t *)gateway->date + name.length, gateway->date_length};
}

static struct span number(char *storage, size_t size, uint64_t value)
{
    struct buffer out = buffer_over((uint8_t *)storage, size);
    buffer_printf(&out, "%llu", (unsigned long long)value);
    assert(!out.failed);
    return buffer_span(&out);
}

static struct span trace(char text[TRACE_TEXT_SIZE], struct gateway *gateway,
                         const struct asked *asked)
{
    uint8_t span_id[TRACE_SPAN_BYTES];
    gateway_random(gateway, span_id, sizeof span_id);
    span_id[0] |= 1; /* all zero is none */
    trace_format(text, asked->trace_id, span_id, 1);
    return (struct span){(const uint8_t *)text, TRACE_TEXT_SIZE - 1};
}

/* What no browser takes for a page, or nothing. */
static bool is_data(struct span type)
{
    return type.length == 0 || span_starts_with(type, SPAN("application/json"))
        || span_starts_with(type, SPAN("application/problem+json"))
        || span_starts_with(type, SPAN("application/x-ndjson"));
}

/* Whatever a tenant stores comes back from our host: a browser must not take it for a page of
 * ours, nor for another type than it says. */
static void put_guards(struct fields *fields, const struct answer *answer)
{
    if (answer->headers[RELAY_CONTENT_TYPE].length)
        put(fields, "X-Content-Type-Options", "x-content-type-options", SPAN("nosniff"));
    if (answer->headers[RELAY_ETAG].length || !is_data(answer->headers[RELAY_CONTENT_TYPE]))
        put(fields, "Content-Security-Policy", "content-security-policy",
            SPAN("sandbox; default-src 'none'"));
}

static const struct {
    const char *name, *lower;
} header_names[RELAY_HEADERS] = {
    [RELAY_CONTENT_TYPE] = {"Content-Type", "content-type"},
    [RELAY_ALLOW] = {"Allow", "allow"},
    [RELAY_ETAG] = {"ETag", "etag"},
    [RELAY_LAST_MODIFIED] = {"Last-Modified", "last-modified"},
    [RELAY_CONTENT_RANGE] = {"Content-Range", "content-range"},
    [RELAY_ACCEPT_RANGES] = {"Accept-Ranges", "accept-ranges"},
    [RELAY_CONTENT_DISPOSITION] = {"Content-Disposition", "content-disposition"},
    [RELAY_IDEMPOTENT_REPLAYED] = {"Idempotent-Replayed", "idempotent-replayed"},
};

static void put_headers(struct fields *fields, const struct answer *answer)
{
    for (int kind = 1; kind < RELAY_HEADERS; kind++)
        if (header_names[kind].name && answer->headers[kind].length)
            put(fields, header_names[kind].name, header_names[kind].lower, answer->headers[kind]);
}

void answer_fields(struct fields *ret, struct gateway *gateway, const struct asked *asked,
                   const struct answer *answer)
{
    int code = answer->http_status;
    ret->count = 0;
    put(ret, "Date", "date", date_now(gateway));
    put(ret, "Traceparent", "traceparent", trace(ret->trace, gateway, asked));
    put_headers(ret, answer);
    put_guards(ret, answer);
    if (code != 204 && code != 304 && answer->length != RELAY_LENGTH_UNKNOWN) /* RFC 9110 8.6 */
        put(ret, "Content-Length", "content-length",
            number(ret->length, sizeof ret->length, answer->length));
    if (code == 401)
        put(ret, "WWW-Authenticate", "www-authenticate", SPAN("Bearer"));
    if (code == 429 || code == 503)
        put(ret, "Retry-After", "retry-after",
            number(ret->retry_after, sizeof ret->retry_after,
                   answer->retry_after ? answer->retry_after : RETRY_AFTER_SECONDS));
    if (!asked->uncounted)
        count_answer(gateway, asked, code);
}

/* Reasons of ours are for the log; the client of a failure that is not its own needs none. */
static const char *detail_for_client(status code, const char *detail)
{
    return code == INTERNAL || code == CORRUPT ? "the request could not be carried out" : detail;
}

void problem_make(struct problem *ret, const struct asked *asked, status code, const char *detail,
                  const char *allow)
{
    char trace_id[2 * TRACE_ID_BYTES + 1];
    ret->body = buffer_over(ret->storage, sizeof ret->storage);
    hex_encode(trace_id, SPAN_OF(asked->trace_id));
    problem_put(&ret->body, code, detail_for_client(code, detail), trace_id);
    assert(!ret->body.failed);
    ret->answer = (struct answer){
        .http_status = status_http(code), .length = ret->body.length,
        .headers = {[RELAY_CONTENT_TYPE] = SPAN(PROBLEM_MEDIA_TYPE),
                    [RELAY_ALLOW] = span_of_text(code == METHOD_NOT_ALLOWED ? allow : NULL)}};
}

struct piece problem_piece(const struct problem *problem)
{
    return (struct piece){.bytes = buffer_span(&problem->body), .end = true};
}

void answer_problem(struct connection *connection, const struct asked *asked, status code,
                    const char *detail, const char *allow)
{
    struct problem problem;
    problem_make(&problem, asked, code, detail, allow);
    const struct piece piece = problem_piece(&problem);
    http1_answer(connection, asked, &problem.answer, &piece);
}

void answer_text(struct connection *connection, const struct asked *asked, int http_status,
                 const char *content_type, struct span body)
{
    const struct answer answer = {.http_status = http_status, .length = body.length,
                                  .headers = {[RELAY_CONTENT_TYPE] = span_of_text(content_type)}};
    const struct piece piece = {.bytes = body, .end = true};
    http1_answer(connection, asked, &answer, &piece);
}
