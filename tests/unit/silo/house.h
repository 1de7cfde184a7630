/* house.h: a silo on a simulated disk, and requests to it as the cell would make them. */
#pragma once

#include "silo/actions.h"
#include "silo/silo.h"
#include "sim.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum { ARENA_MAX = MIB(64), BODY_MAX = MIB(8) };
#define SECOND_US ((int64_t)1000000)
#define DAY_US (24 * 3600 * SECOND_US)
#define START_US ((int64_t)1800000000 * SECOND_US)

struct who {
    const char *user, *agent;
    scope_set scopes;
    enum clearance clearance;
};

struct house {
    struct sim *sim;
    struct silo *silo;
    struct silo_opening opening;
    int64_t now_us;
    struct arena arena;
    struct buffer body;
    struct fault fault;
    int http_status;
    bool replayed;      /* the answer says that it was given before */
    struct json answer; /* of the last request that was OK and had a body of JSON */
    char type[SILO_HEADER_MAX]; /* of the answer, where the silo says it: then it is not JSON */
    size_t download_piece;      /* a download is read so many bytes at a time; 0: 4096 */
    struct span idempotency_key;
    uint64_t line;
    const char *content_type; /* of the next bodies; NULL: JSON */
};

extern const struct who alice, bob, platform, cleared;

/* cmocka set-up and teardown: *state is the house. */
int house_build(void **state);
int house_pull_down(void **state);

/* One turn with one request: begun, handled, committed when it must be. body NULL: none. */
status ask(struct house *house, const struct who *who, const char *method, const char *path,
           const char *query, const char *body);
/* The same without beginning and committing. */
status ask_in_turn(struct house *house, const struct who *who, const char *method,
                   const char *path, const char *query, const char *body);

/* Parks and wakes again: the anchor is carried over. */
void house_reopen(struct house *house);
/* As if the process died. */
void house_crash(struct house *house);
struct anchor house_anchor(struct house *house);

/* Of the last answer. Fail the test when it is not there. */
const char *answer_text(struct house *house, const struct json *object, const char *name);
int64_t answer_integer(const struct json *object, const char *name);
const struct json *answer_data(struct house *house);
const struct json *answer_item(struct house *house, uint32_t i);

/* A memory of this text; returns its id, which lives until the end of the test. */
const char *remember(struct house *house, const struct who *who, const char *text);
const char *remember_as(struct house *house, const struct who *who, const char *body);
const char *path_of(struct house *house, const char *id, const char *rest);

/* Runs silo_expire in turns until there is no more. */
void house_expire(struct house *house, bool parking);

#define assert_ok(house, expression)                                                        \
    do {                                                                                    \
        status got_status = (expression);                                                   \
        if (got_status != OK)                                                               \
            fail_msg("%s: %s: %s", #expression, status_code(got_status),                    \
                     (house)->fault.detail);                                                \
    } while (0)
#define assert_status(house, expression, wanted)                                            \
    do {                                                                                    \
        status got_status = (expression);                                                   \
        if (got_status != (wanted))                                                         \
            fail_msg("%s: %s: %s", #expression, status_code(got_status),                    \
                     got_status == OK ? "" : (house)->fault.detail);                        \
    } while (0)
