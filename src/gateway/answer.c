/* answer.c: the heads of responses. Only this file writes them; what a cell wants in one comes here
 * checked, and the writer refuses control bytes once more. */
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

static void put_date(struct buffer *out, struct gateway *gateway)
{
    int64_t now_us = clock_wall_us();
    if (gateway->date_second != now_us / 1000000) {
        struct buffer line = buffer_over((uint8_t *)gateway->date, sizeof gateway->date - 1);
        http_put_date(&line, now_us);
        assert(!line.failed);
        gateway->date[line.length] = '\0';
        gateway->date_second = now_us / 1000000;
    }
    buffer_put_text(out, gateway->date);
}

static void put_number(struct buffer *out, const char *name, uint32_t value)
{
    buffer_printf(out, "%s: %u\r\n", name, value);
}

static void put_trace(struct buffer *out, struct gateway *gateway, const struct asked *asked)
{
    uint8_t span_id[TRACE_SPAN_BYTES];
    char text[TRACE_TEXT_SIZE];
    gateway_random(gateway, span_id, sizeof span_id);
    span_id[0] |= 1; /* all zero is none */
    trace_format(text, asked->trace_id, span_id, 1);
    http_put_header(out, "Traceparent", span_of_text(text));
}

static void count(struct gateway *gateway, const struct asked *asked, int http_status)
{
    uint32_t action = asked->action < STATS_ACTIONS_MAX ? asked->action : 0;
    stats_add(&gateway->stats->requests[action][http_status / 100 % 6], 1);
    if (asked->began_us)
        stats_time(gateway->stats->request_us, &gateway->stats->request_us_sum,
                   (uint64_t)(clock_monotonic_us() - asked->began_us));
}

struct span answer_head(struct gateway *gateway, const struct asked *asked,
                        const struct answer *answer)
{
    struct buffer *out = &gateway->scratch;
    int code = answer->http_status;
    buffer_clear(out);
    http_put_status(out, code);
    put_date(out, gateway);
    put_trace(out, gateway, asked);
    if (answer->content_type.length)
        http_put_header(out, "Content-Type", answer->content_type);
    if (code != 204 && code != 304) /* RFC 9110 8.6 */
        http_put_length(out, answer->length);
    if (code == 401)
        http_put_header(out, "WWW-Authenticate", SPAN("Bearer"));
    if (code == 405)
        http_put_header(out, "Allow", answer->allow);
    if (code == 429 || code == 503)
        put_number(out, "Retry-After",
                   answer->retry_after ? answer->retry_after : RETRY_AFTER_SECONDS);
    if (!asked->keep_alive || gateway->stopping)
        http_put_header(out, "Connection", SPAN("close"));
    http_put_end(out);
    assert(!out->failed); /* its parts are bounded */
    if (!asked->uncounted)
        count(gateway, asked, code);
    return buffer_span(out);
}

/* Reasons of ours are for the log; the client of a failure that is not its own needs none. */
static const char *detail_for_client(status code, const char *detail)
{
    return code == INTERNAL || code == CORRUPT ? "the request could not be carried out" : detail;
}

void answer_problem(struct connection *connection, const struct asked *asked, status code,
                    const char *detail, const char *allow)
{
    char trace[2 * TRACE_ID_BYTES + 1];
    uint8_t storage[2048]; /* a detail, escaped, and constants */
    struct buffer body = buffer_over(storage, sizeof storage);
    hex_encode(trace, SPAN_OF(asked->trace_id));
    problem_put(&body, code, detail_for_client(code, detail), trace);
    assert(!body.failed);
    struct answer answer = {.http_status = status_http(code), .length = (uint32_t)body.length,
                            .content_type = SPAN(PROBLEM_MEDIA_TYPE),
                            .allow = span_of_text(allow)};
    struct span head = answer_head(connection->gateway, asked, &answer);
    connection_send(connection, head, asked->head_only ? (struct span){0} : buffer_span(&body),
                    NULL);
}

void answer_text(struct connection *connection, const struct asked *asked, int http_status,
                 const char *content_type, struct span body)
{
    struct answer answer = {.http_status = http_status, .length = (uint32_t)body.length,
                            .content_type = span_of_text(content_type)};
    struct span head = answer_head(connection->gateway, asked, &answer);
    connection_send(connection, head, asked->head_only ? (struct span){0} : body, NULL);
}
