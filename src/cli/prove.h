/* prove.h: the parts of `bulkhead prove`: what the lines of the battery add up to, and the few
 * requests that the command makes itself. */
#pragma once

#include "base/buffer.h"

#include <stdbool.h>

/* ---- prove_results.c: pure ---- */

enum { PROVE_ATTEMPTS_MAX = 1000, PROVE_TEXT = 200 };

struct prove_result {
    char name[96], group[32], wall[96], expect[PROVE_TEXT], got[PROVE_TEXT], skipped[PROVE_TEXT];
    char killed_for_due[16], killed_for[16], client_due[8], client[PROVE_TEXT];
    int exits_due[2], exit_code;
    uint32_t exit_count;
    bool begun;       /* its first line came */
    bool spoken;      /* it lived to say what it got */
    bool held_said;   /* and whether that was as expected */
    bool ended;       /* the supervisor told of its end */
    bool client_held; /* its client got what it should */
};

struct prove_results {
    struct prove_result attempts[PROVE_ATTEMPTS_MAX];
    uint32_t count; /* one more than the highest number seen */
};

enum prove_event { PROVE_OTHER, PROVE_WANTS_REQUEST, PROVE_ENDED };

/* Takes one line in; ret_attempt is the number it is about. BAD_JSON, BAD_FIELD: it is no line of a
 * battery: a hostile process wrote it, so nothing in it is believed. */
MUST_CHECK status prove_take(struct prove_results *results, enum prove_event *ret_event,
                             uint32_t *ret_attempt, struct span line, struct fault *fault);
/* Whether it was stopped by the very thing that should stop it. Not for skipped ones. */
bool prove_held(const struct prove_result *result);
bool prove_skipped(const struct prove_result *result);
/* What happened, for people. */
void prove_describe(char text[2 * PROVE_TEXT], const struct prove_result *result);
/* A client's answer, as raw bytes: whether it is what client_due allows; into the result. */
void prove_judge_client(struct prove_result *result, struct span answer);

/* ---- prove_http.c: requests to the own node, one a connection ---- */

/* address: "127.0.0.1:7117", "[::1]:7117". body empty: none. ret: the connection, with the request
 * sent. */
MUST_CHECK status prove_http_send(int *ret, const char *address, const char *method,
                                  const char *path, const char *token, struct span body,
                                  struct fault *fault);
/* All that comes until the end of the connection, at most timeout_ms. Closes fd. */
MUST_CHECK status prove_http_read(struct buffer *out, int fd, int timeout_ms, struct fault *fault);
int prove_http_status(struct span answer); /* 0: it is no answer */
