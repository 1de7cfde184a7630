/* request.h: one relayed request: from the frame's claims about it to the verdict on it, and its
 * answer. */
#pragma once

#include "authz/envelope.h"
#include "base/arena.h"
#include "wire/messages.h"

struct cell;

/* A RELAY_REQUEST as it came; everything borrowed from the message. */
struct request_head {
    uint8_t flags;
    uint8_t trace_id[TRACE_ID_BYTES];
    struct span method, path, query;
    int64_t length; /* of the body; -1: not known */
    struct span headers[RELAY_HEADERS];
    struct span token, fragment;
};

/* What is denied so often that entries only count it (quota.c). */
enum denial {
    DENIAL_REQUESTS,
    DENIAL_USER_REQUESTS,
    DENIAL_CONCURRENT,
    DENIAL_BYTES,
    DENIAL_REVOKED,
    DENIAL_KINDS,
    DENIAL_NONE = DENIAL_KINDS,
};

struct request {
    status verdict;          /* OK: to be handled; else the answer, with fault */
    struct fault fault;
    bool known;              /* the envelope stands: a refusal has a name for the log */
    bool admitted;           /* holds a slot of concurrent_requests */
    bool serves_once;        /* its token does */
    bool head_only;
    uint8_t streams;         /* of the row */
    enum denial denial;      /* then envelope.user is known, and no entry of its own is due */
    uint32_t retry_after;    /* seconds, with QUOTA_EXCEEDED */
    uint64_t generation;     /* of the charters under which it was judged */
    struct span token;       /* to be judged again under newer ones */
    uint8_t token_id[HASH_BYTES]; /* of a token that serves once */
    struct envelope envelope;
    const struct action *action; /* NULL until routed */
    uint32_t id_count;
    struct span ids[ACTION_IDS_MAX]; /* this and the rest live in the stream's arena */
    struct span query, headers[RELAY_HEADERS];
    char allow[ACTION_ALLOW_MAX];
    struct span content_range; /* of 416 */
    char trace_text[2 * TRACE_ID_BYTES + 1];
    int64_t usable_until;    /* of the token, seconds since 1970 */
    int64_t length;          /* of the body, as said; -1: not known */
    uint64_t body_max;
    struct span body;        /* when complete */
};

struct answer {
    int http_status;
    uint32_t retry_after; /* seconds, 0: none */
    struct span headers[RELAY_HEADERS]; /* by kind; they live as long as the request */
    uint64_t length;      /* of the body, where it is not at hand as a whole */
    bool head_only;       /* that length, and no body */
};

/* BAD_REQUEST, TRUNCATED, ... when it is no RELAY_REQUEST: the channel then ends. */
MUST_CHECK status request_head_get(struct request_head *ret, struct span body,
                                   struct fault *fault);

/* Verifies the token and decides, before a byte of the body is kept. The verdict is in ret. */
void request_open(struct request *ret, struct cell *cell, struct arena *arena,
                  const struct request_head *head, int64_t now_us);

/* The body has come: what could not be known before. */
void request_complete(struct request *request, struct span body, int64_t now_us);

/* An answer that is kept for a repeat: durable before it leaves. */
bool request_keeps_answer(const struct request *request);

/* Its turn has come: judges it again when other charters are in force by now. */
MUST_CHECK status request_renew(struct request *request, struct cell *cell, int64_t now_us,
                                struct fault *fault);

/* The same while its answer is under way: that its token expired meanwhile is no matter. */
MUST_CHECK status request_renew_begun(struct request *request, struct cell *cell, int64_t now_us,
                                      struct fault *fault);

/* Whether that media type is its content type, with or without parameters. */
bool request_is_media(const struct request *request, struct span media);

/* A refusal from here on: keeps the first. */
void request_refuse(struct request *request, status why, const char *detail);

/* What a client is told of a failure. */
const char *request_detail(status code, const char *detail);

/* Writes the problem document of a failed request into body (wiped and emptied first). */
struct answer request_problem(struct buffer *body, const struct request *request, status code,
                              const char *detail);
