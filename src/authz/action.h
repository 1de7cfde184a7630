/* action.h: what can be asked of a silo: the rows of the action table, and the way from a request's
 * method and path to a row. What has no row does not exist: default deny.
 *
 * The rows themselves stand with their kind of data in src/silo (silo/actions.h lists them), so
 * that the gateway knows them without linking a handler. */
#pragma once

#include "authz/scope.h"
#include "base/limits.h"

enum {
    ACTION_IDS_MAX = 2,       /* placeholders in one path */
    ACTION_ID_MAX = 255,      /* bytes of a path segment that names an item */
    ACTION_ALLOW_MAX = 64,    /* bytes of an Allow list, NUL included */
};

enum action_body { ACTION_BODY_NONE, ACTION_BODY_JSON, ACTION_BODY_NDJSON, ACTION_BODY_BYTES };

/* Bodies that no process holds whole (docs/protocols.md, the relay). In: NDJSON, a line at a time,
 * or bytes. */
enum { ACTION_STREAMS_IN = 1, ACTION_STREAMS_OUT = 2 };

struct action {
    const char *name;     /* "memory.search", as policy and the audit log know it */
    const char *method;   /* "POST" */
    const char *path;     /* "/v1/memories/{id}": literal segments and whole-segment placeholders;
                             the last may be {name...}: all that follows, up to OBJECT_KEY_MAX */
    const char *resource; /* the kind it acts on: "memory" */
    const char *const *query; /* the query parameters it knows, NULL-terminated; NULL for none */
    uint64_t body_max;    /* bytes; 0 for ACTION_BODY_NONE */
    enum action_body body;
    enum scope scope;
    bool mutates;         /* evidence before effect; POST then honours Idempotency-Key */
    bool fresh_note;      /* wants the newest signed checkpoint to cover what was before it */
    uint8_t streams;      /* ACTION_STREAMS_IN, ACTION_STREAMS_OUT */
};

struct action_set { /* the rows of one kind */
    const char *kind;
    const struct action *rows;
    uint32_t count;
};

struct action_table {
    const struct action_set *sets;
    uint32_t count;
};

struct route {
    const struct action *action;
    uint32_t set, row; /* table->sets[set].rows[row] is the action: the index of its handler */
    uint32_t number;   /* 1.. through all sets, for counters */
    uint32_t id_count;
    struct span ids[ACTION_IDS_MAX]; /* borrowed from the path, in its order */
};

/* path: percent-decoded once (http_decode_path: an escaped '/' or NUL is refused there), no query.
 * Where a literal and a placeholder both fit, the literal names the path, whatever the method; so
 * does {name} before {name...}.
 * HEAD is served by the row of GET (RFC 9110 9.3.2); whoever writes the answer leaves its body out.
 * NOT_FOUND for an unknown path (also "//", a closing slash, "." or "..", an id that is empty, too
 * long, not UTF-8 or has control characters); METHOD_NOT_ALLOWED where only other methods exist:
 * allow then holds them ("GET, HEAD, DELETE"), else "". ret only on OK. */
MUST_CHECK status authz_route(struct route *ret, char allow[ACTION_ALLOW_MAX],
                              const struct action_table *table, struct span method,
                              struct span path, struct fault *fault);

/* The query parameters it knows, for http_query_only: never NULL. */
const char *const *action_query_names(const struct action *action);

/* The action of a route's number, for the names in /metrics; NULL outside 1..action_count. */
const struct action *action_numbered(const struct action_table *table, uint32_t number);
uint32_t action_count(const struct action_table *table);

/* Is the table sound? Names and (method, path) unique, paths well formed, bodies bounded. A defect
 * is INTERNAL and says which row: for start-up and tests. */
MUST_CHECK status action_table_check(const struct action_table *table, struct fault *fault);
