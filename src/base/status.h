/* status.h: how a function says that it failed.
 *
 * A function that can fail returns a status and must be checked. The codes are those of the HTTP
 * API's error table, so the reason found at the bottom of the house is the one the client reads;
 * the last few never leave a process. What a person needs to know beyond the code goes into the
 * fault, always the last parameter, untouched on success. Results come first, named ret or ret_*,
 * untouched on failure. Libraries never log. docs/errors.md has the whole convention. */
#pragma once

#include <stdio.h>

typedef enum status {
    OK = 0,
    BAD_REQUEST,         /* 400: not the protocol */
    BAD_JSON,            /* 400 */
    BAD_FIELD,           /* 400: detail names the field and what is allowed */
    UNAUTHENTICATED,     /* 401 */
    FORBIDDEN_SCOPE,     /* 403 */
    FORBIDDEN_POLICY,    /* 403 */
    FORBIDDEN_CLEARANCE, /* 403 */
    NOT_FOUND,           /* 404 */
    METHOD_NOT_ALLOWED,  /* 405 */
    TIMED_OUT,           /* 408 */
    CONFLICT,            /* 409 */
    PRECONDITION_FAILED, /* 412: If-Match and its like */
    TOO_LARGE,           /* 413: a limit of limits.h was reached */
    UNSUPPORTED_MEDIA,   /* 415 */
    RANGE_NOT_SATISFIABLE, /* 416 */
    WRONG_REGION,        /* 421 */
    HEADERS_TOO_LARGE,   /* 431 */
    TENANT_PAUSED,       /* 423 */
    QUOTA_EXCEEDED,      /* 429 */
    INTERNAL,            /* 500 */
    NOT_IMPLEMENTED,     /* 501 */
    UNAVAILABLE,         /* 503 */
    OUT_OF_SPACE,        /* 507 */
    /* never sent to a client under their own name */
    TRUNCATED,   /* the bytes end before the thing they announce; reads as bad_request */
    CORRUPT,     /* stored bytes are damaged or forged; reads as internal */
    ROLLED_BACK, /* stored bytes are authentic but older than their anchor; reads as unavailable */
    AGAIN,       /* would block */
    CLOSED,      /* the peer is gone */
    STATUS_COUNT
} status;

#define MUST_CHECK __attribute__((warn_unused_result))

struct fault {
    char detail[200]; /* for people: the field and what is allowed, never a secret or content */
};

/* Sets the fault and yields the code. */
#define FAIL(code, fault, ...) \
    (snprintf((fault)->detail, sizeof (fault)->detail, __VA_ARGS__), (code))

#define TRY(expression)                     \
    do {                                    \
        status try_status = (expression);   \
        if (try_status != OK)               \
            return try_status;              \
    } while (0)

/* The HTTP status and the `code` member of the problem document: 400, "bad_field". */
int status_http(status code);
const char *status_code(status code);
