/* ops.c: the listener for whoever runs the node: is it alive, is it ready, its counters. Nothing of
 * a tenant is here. */
#include "gateway/state.h"

static void is_alive(struct connection *connection, const struct asked *asked)
{
    answer_text(connection, asked, 200, "text/plain; charset=utf-8", SPAN("ok\n"));
}

static void is_ready(struct connection *connection, const struct asked *asked)
{
    const struct gateway *gateway = connection->gateway;
    if (gateway->control.fd >= 0 && !gateway->stopping)
        answer_text(connection, asked, 200, "text/plain; charset=utf-8", SPAN("ready\n"));
    else
        answer_problem(connection, asked, UNAVAILABLE,
                       gateway->stopping ? "the node is stopping" : "control is not there", NULL);
}

static void metrics(struct connection *connection, const struct asked *asked)
{
    struct buffer body = buffer_of(METRICS_MAX);
    metrics_put(&body, connection->gateway);
    if (body.failed)
        answer_problem(connection, asked, INTERNAL, "the metrics do not fit", NULL);
    else
        answer_text(connection, asked, 200, METRICS_MEDIA_TYPE, buffer_span(&body));
    buffer_free(&body);
}

static const struct {
    const char *path;
    void (*answer)(struct connection *connection, const struct asked *asked);
} pages[] = {{"/healthz", is_alive}, {"/readyz", is_ready}, {"/metrics", metrics}};

void ops_answer(struct connection *connection, const struct http_head *head)
{
    struct asked asked = {.keep_alive = head->keep_alive, .uncounted = true,
                          .head_only = span_is(head->method, "HEAD")};
    bool known = false;
    gateway_random(connection->gateway, asked.trace_id, sizeof asked.trace_id);
    if (head->chunked || head->content_length) {
        asked.keep_alive = false;
        answer_problem(connection, &asked, BAD_REQUEST, "a body where there can be none", NULL);
    } else if (!asked.head_only && !span_is(head->method, "GET")) {
        answer_problem(connection, &asked, METHOD_NOT_ALLOWED, "GET and HEAD only", "GET, HEAD");
    } else {
        for (size_t i = 0; i < sizeof pages / sizeof *pages && !known; i++) {
            known = span_is(head->path, pages[i].path);
            if (known)
                pages[i].answer(connection, &asked);
        }
        if (!known)
            answer_problem(connection, &asked, NOT_FOUND, "there is nothing at this path", NULL);
    }
    http1_finished(connection, asked.keep_alive);
}
