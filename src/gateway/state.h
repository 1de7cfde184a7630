/* state.h: the state of a gateway and what its files do for each other. Not for other rooms.
 *
 *   serve.c       start, supervisor, stop      exchange.c  one request: head, body, refusal
 *   listen.c      accepting connections        decide.c    token, tenant, route, envelope
 *   connection.c  timers, back-pressure        tenant.c    which cell; waiting for it to wake
 *   http1.c       requests one after another   relay.c     channels to cells, streams
 *   answer.c      answers and their fields     lookup.c    what control said of a tenant
 *   control.c     questions to control         ops.c       health and metrics
 *   denial.c      what was refused, sampled    counts.c    what is counted of answers
 *   whose.c       whose token it is            charters.c  signed charters, opened and kept
 *   standing.c    what a tenant has used       hosts.c     tenants that a host names
 *   routes.c      tenants by a lookup key      crowd.c     connections of one address
 *   holding.c     answers not taken yet
 *
 * Nothing is freed while callbacks run: connections and relays that end are marked dead and freed
 * at the end of the turn. An exchange is freed at once by whoever ends it and must not be touched
 * after. */
#pragma once

#include "authz/action.h"
#include "authz/cache.h"
#include "authz/charter.h"
#include "authz/quota.h"
#include "base/arena.h"
#include "base/siphash.h"
#include "gateway/gateway.h"
#include "wire/http.h"
#include "wire/messages.h"
#include "wire/trace.h"

struct connection;
struct exchange;
struct relay;
struct stream;
struct tenant;
struct lookup;
struct standing;
struct crowd_place;
struct answer;
struct piece;
struct http2;
struct http2_stream;

/* ---- lists ---- */

struct exchange_list {
    struct exchange *first, *last;
    uint32_t count;
    uint32_t *total; /* of all lists of its kind, or NULL */
};

struct connection_list {
    struct connection *first, *last;
    uint32_t count;
};

void exchange_list_put(struct exchange_list *list, struct exchange *exchange);
void exchange_list_remove(struct exchange *exchange); /* from the one it is on, if any */

/* ---- one request (exchange.c) ---- */

/* What an answer needs to know of its request. */
struct asked {
    uint8_t trace_id[TRACE_ID_BYTES];
    uint32_t action;   /* its number; 0: none */
    uint32_t tenant;   /* of count_tenant; 0: none */
    int64_t began_us;  /* monotonic */
    bool keep_alive;   /* the connection lives on */
    bool head_only;    /* HEAD: an answer has no body */
    bool http_1_0;     /* which has no chunks */
    bool uncounted;    /* of operations */
};

enum exchange_phase {
    EXCHANGE_FIND,   /* control is asked for the tenant; on lookup's list */
    EXCHANGE_BODY,   /* the first fragment is collected; what streams does not wait for it */
    EXCHANGE_WAKE,   /* the tenant's cell is awaited; on tenant's list */
    EXCHANGE_ROUTE,  /* control is asked for a route */
    EXCHANGE_UPLOAD, /* the cell has the first fragments; on relay's list */
    EXCHANGE_SENT,   /* all is with the cell */
    EXCHANGE_ANSWER, /* the head of the answer has left; what streams may be uploading still */
};

struct slice { /* of the frame */
    uint32_t at, length;
};

/* Whom an exchange answers: the client of a connection, which carries one at a time (HTTP/1.1), or
 * the client of one stream of many (HTTP/2). Outlives the exchange, until the end of the turn. */
struct client {
    const struct carrier *carrier;
    struct connection *connection;
    struct http2_stream *stream; /* NULL: HTTP/1.1 */
};

struct carrier {
    /* The head and what there is of the body. Never destroys anything. */
    void (*answer)(struct exchange *exchange, const struct answer *answer,
                   const struct piece *piece);
    void (*more)(struct exchange *exchange, const struct piece *piece);
    void (*proceed)(struct exchange *exchange);  /* 100 Continue */
    void (*refusing)(struct exchange *exchange); /* the body is not read on; before the answer,
                                                  * where that is known by then */
    void (*moved)(const struct client *client);  /* its clock begins anew */
    void (*ready)(const struct client *client);  /* looked at again this turn */
    void (*finished)(const struct client *client, bool keep_alive); /* the exchange has ended */
    void (*cut)(const struct client *client);    /* an answer cannot be completed */
};

struct exchange {
    struct client client;
    struct connection *connection; /* the client's */
    struct exchange **slot;        /* the carrier's: NULL again when this ends */
    struct buffer *input;          /* the carrier's: of the body, and what comes behind it */
    struct exchange *next, *previous;
    struct exchange_list *list;
    enum exchange_phase phase;
    struct asked asked;
    struct buffer frame; /* RELAY_REQUEST up to its first fragment */
    struct slice method, path, query, token;
    bool bearer_too_long;
    bool chunked, expect_continue;
    bool body_done;      /* all of it was taken from the input */
    bool body_streamed;  /* it ends where its stream does */
    bool input_ended;    /* the stream has: what is in input is the rest */
    uint64_t body_left;  /* not taken yet; when neither chunked nor streamed */
    uint64_t body_taken; /* when streamed */
    struct http_chunks chunks;
    struct buffer body;  /* the next fragment */
    uint64_t body_max;   /* of the action */
    uint8_t streams;     /* of the action */
    uint32_t progress;   /* bytes taken since its clock began */
    struct address address;    /* of the client, as far as it is known */
    char host[HOST_NAME_TEXT]; /* asked for: lower case, no port; "" for none, or no name */
    uint8_t tenant_id[TENANT_ID_BYTES]; /* once decided; all zero for an action of the gateway's */
    struct standing *standing; /* in which it counts, while it may be with a cell */
    uint64_t concurrent_max;   /* of its tenant; 0: none */
    struct buffer question;    /* ROUTE_FIND */
    uint32_t route_call;
    bool unproven;             /* on a lookup's list: its token was not verified yet */
    uint8_t ration;            /* of enum ration */
    struct stream *stream;
    uint8_t finds, tries;
};

struct exchange_origin {
    struct client client;
    struct exchange **slot;
    struct buffer *input;
    bool streamed, ended; /* the body: exchange.body_streamed, exchange.input_ended */
};

/* Parsed, valid; nothing of head is kept. May have answered already when it returns. False: out of
 * memory. */
MUST_CHECK bool exchange_begin(const struct exchange_origin *origin,
                               const struct http_head *head);
bool exchange_step(struct exchange *exchange); /* takes from the input; true: again */
bool exchange_wants_input(const struct exchange *exchange);
void exchange_decide(struct exchange *exchange); /* in EXCHANGE_FIND: goes on */
/* Answers with a problem and ends it; where the answer has begun, ends the connection. allow: for
 * METHOD_NOT_ALLOWED, else NULL. */
void exchange_refuse(struct exchange *exchange, status code, const char *detail,
                     const char *allow);
enum timer_kind { TIMER_NONE, TIMER_IDLE, TIMER_HEAD, TIMER_BODY, TIMER_ANSWER, TIMER_WRITE,
                  TIMER_LINGER, TIMER_HANDSHAKE };

enum timer_kind exchange_timer(const struct exchange *exchange);
void exchange_timed_out(struct exchange *exchange, enum timer_kind kind);
void exchange_ready(struct exchange *exchange);
void exchange_answered(struct exchange *exchange); /* in full: the connection goes on */
/* Of its answer so many bytes at most wait for the client: a cell that streams may send more. May
 * end it. */
void exchange_taken(struct exchange *exchange, size_t waiting);
void exchange_end(struct exchange *exchange);      /* without an answer: its client is gone */
struct span exchange_slice(const struct exchange *exchange, struct slice slice);
void wipe_and_free(struct buffer *buffer);

/* ---- the decision (decide.c) ---- */

struct decided {
    char allow[ACTION_ALLOW_MAX];
    const struct action *action;
    uint32_t number; /* of the action; 0: none */
    uint8_t tenant_id[TENANT_ID_BYTES]; /* all zero: the gateway answers itself */
};

/* OK: may go to the cell. AGAIN: control was asked; the exchange waits on the lookup. Otherwise the
 * refusal. */
MUST_CHECK status decide(struct decided *ret, struct exchange *exchange, struct fault *fault);

/* ---- connections (connection.c, listen.c) ---- */

extern const int64_t timeouts_ms[];

struct transport {
    struct tls_session *session; /* NULL: plain */
    bool shaking;                /* hands, still */
    uint8_t read_wants, write_wants; /* of enum tls_want, where TLS waits */
};

/* Bytes of a relay's answers in memory, since their client has not taken them yet. */
struct holding {
    struct relay *relay; /* NULL: none */
    struct connection *connection; /* whose they are */
    size_t bytes;
    bool streamed; /* the relay's window bounds it already */
    struct holding *next, *previous; /* of the relay's */
};

struct connection {
    struct gateway *gateway;
    int fd;
    uint32_t events;
    struct loop_source *source;
    struct loop_timer timer;
    uint8_t timer_kind; /* of enum timer_kind */
    bool ops;
    bool dead;          /* closed; freed at the end of the turn */
    bool broken;        /* to be closed: writing failed, or an answer cannot be completed */
    bool closing;       /* to be closed when the output has left */
    bool lingering;     /* only dropping what still comes, so that the answer is not reset away */
    bool peer_done;     /* the client sends no more */
    bool ready;         /* on the gateway's list */
    bool begun;         /* what it speaks is known */
    bool chunking;      /* the answer has no length: it goes out in chunks (HTTP/1.1) */
    bool unframed;      /* the same on HTTP/1.0: it ends where the connection does, so that must
                         * not end in peace before */
    struct transport transport;
    struct http2 *http2; /* NULL: HTTP/1.1 */
    struct buffer in, out;
    size_t out_sent;    /* of out */
    size_t counted;     /* in the gateway's memory */
    struct http_scan scan;
    uint64_t skip;      /* of the input: the rest of a refused request's body; or what lingered */
    struct exchange *exchange;
    struct holding holding; /* in out */
    struct connection *next, *previous;
    struct connection_list *list; /* idle, busy or ops_connections */
    struct address address;       /* of the peer */
    struct crowd_place *place;    /* where that counts */
    struct connection *next_ready, *next_dead;
};

struct arrival {
    bool ops;
    struct address address;
    struct crowd_place *place; /* where it counts */
};

/* Takes fd and the place. */
void connection_open(struct gateway *gateway, int fd, const struct arrival *arrival);
void connection_close(struct connection *connection);
enum { PARTS_MAX = 3 };

/* One after the other; what the socket does not take is kept. Never destroys anything: a failure is
 * found at the end of the turn. from: the stream that they came by, or NULL. */
void connection_send(struct connection *connection, const struct span *parts, uint32_t count,
                     struct stream *from);
void connection_put(struct connection *connection, struct span bytes); /* into the output */
void connection_flush(struct connection *connection); /* as much as the socket takes */
void connection_break(struct connection *connection);  /* closed at the end of the turn */
void connection_ready(struct connection *connection);  /* looked at again this turn */
void connection_restart_timer(struct connection *connection); /* something moved */
bool connection_output_waits(const struct connection *connection);
void connections_advance(struct gateway *gateway);
void connections_sweep(struct gateway *gateway);
void connection_list_put(struct connection_list *list, struct connection *connection);
void connection_list_remove(struct connection *connection);

/* ---- bytes, plain or under TLS (transport.c) ---- */

enum { TRANSPORT_AGAIN = -1, TRANSPORT_BROKEN = -2 };

bool transport_open(struct connection *connection); /* false: no TLS can be had where it is due */
bool transport_shake(struct connection *connection); /* hands; true: done. Breaks what fails */
void transport_timed_out(struct connection *connection); /* while it shakes hands */
/* Bytes, 0 at the end, TRANSPORT_AGAIN or TRANSPORT_BROKEN. */
ssize_t transport_read(struct connection *connection, uint8_t *bytes, size_t size);
bool transport_has_input(const struct connection *connection); /* that epoll does not tell of */
/* At most PARTS_MAX, one after the other: how much was taken, 0 when it would block, or
 * TRANSPORT_BROKEN. */
ssize_t transport_write(struct connection *connection, const struct span *parts, uint32_t count);
void transport_reset(struct connection *connection); /* the client is to see that it was cut */
uint32_t transport_events(const struct connection *connection, bool reads, bool writes);
bool transport_end(struct connection *connection); /* nothing more is written; false: broken */
void transport_close(struct connection *connection);
size_t transport_counted(const struct connection *connection);

/* ---- HTTP/1.1 (http1.c) ---- */

bool http1_step(struct connection *connection); /* takes from the input; true: again */
/* Answers what no exchange came of. The connection ends. */
void http1_refuse(struct connection *connection, status code, const char *detail);
void http1_answer(struct connection *connection, const struct asked *asked,
                  const struct answer *answer, const struct piece *piece);
void http1_finished(struct connection *connection, bool keep_alive); /* its request is answered */

/* ---- HTTP/2 (http2.h) ---- */

void http2_open(struct connection *connection); /* a failure breaks the connection */
struct http2 *http2_close(struct http2 *http2); /* NULL; takes NULL */
void http2_input(struct http2 *http2, struct span bytes);
bool http2_reads(const struct http2 *http2);    /* more input is wanted */
void http2_advance(struct http2 *http2);        /* exchanges, then output; may set closing */
enum timer_kind http2_timer(const struct http2 *http2);
void http2_timed_out(struct http2 *http2);
bool http2_idle(const struct http2 *http2);
size_t http2_counted(const struct http2 *http2); /* bytes of memory that its client has us keep */

struct listener {
    struct gateway *gateway;
    int fd; /* -1: none */
    bool ops, paused;
    struct loop_source *source;
    struct loop_timer timer;
};

MUST_CHECK status listener_open(struct listener *listener, struct gateway *gateway, int fd,
                                bool ops, struct fault *fault); /* takes fd on success */
void listener_close(struct listener *listener);
void listener_resume(struct listener *listener); /* there is room for connections again */

/* ---- answers (answer.c) ---- */

struct answer {
    int http_status;
    uint64_t length; /* of the body, or RELAY_LENGTH_UNKNOWN */
    uint32_t retry_after;
    struct span headers[RELAY_HEADERS]; /* by kind, checked; empty: none */
};

struct piece { /* of the body of an answer */
    struct span bytes;
    bool end;            /* the last one */
    struct stream *from; /* NULL: the gateway's own */
};

enum { FIELDS_MAX = 16 };

struct fields { /* of an answer; borrow from it and from the gateway */
    struct field {
        const char *name, *lower; /* as HTTP/1.1 writes it, and HTTP/2 */
        struct span value;        /* checked */
    } list[FIELDS_MAX];
    uint32_t count;
    char length[24], retry_after[12], trace[TRACE_TEXT_SIZE];
};

/* What is in the head of an answer, but for the status and what concerns its connection alone.
 * Counts the answer. Not to be copied. */
void answer_fields(struct fields *ret, struct gateway *gateway, const struct asked *asked,
                   const struct answer *answer);

enum { PROBLEM_MAX = 2048 }; /* a detail, escaped, and constants */

struct problem {
    struct answer answer;
    struct buffer body;
    uint8_t storage[PROBLEM_MAX];
};

/* allow: for METHOD_NOT_ALLOWED, else NULL. Not to be copied. */
void problem_make(struct problem *ret, const struct asked *asked, status code, const char *detail,
                  const char *allow);
struct piece problem_piece(const struct problem *problem); /* all of its body */

/* On a connection of HTTP/1.1. */
void answer_problem(struct connection *connection, const struct asked *asked, status code,
                    const char *detail, const char *allow);
void answer_text(struct connection *connection, const struct asked *asked, int http_status,
                 const char *content_type, struct span body);
void gateway_random(struct gateway *gateway, uint8_t *bytes, size_t length); /* for ids */

/* ---- denials (denial.c) ---- */

enum denial { /* after the reasons of tokens; part of the protocol: append only */
    DENIAL_NO_TOKEN = TOKEN_ACCEPTED, /* which is no reason for a denial */
    DENIAL_TENANT_UNKNOWN = TOKEN_REASON_COUNT,
    DENIAL_TENANT_OTHER, /* erasing, or the token is of an earlier tenant of that name */
    DENIAL_PAUSED,
    DENIAL_SCOPE,
    DENIAL_POLICY,
    DENIAL_REVOKED,
    DENIAL_BAD_CHARTER,  /* what control gave is not signed, or older than what was seen */
    DENIAL_HOST,         /* it names another tenant than the token */
    DENIAL_REGION,
    DENIAL_QUOTA,
    DENIAL_FLOOD,        /* too many tokens that nobody has verified: not looked up */
    DENIAL_ADDRESS_CAP,  /* connections: not requests */
    DENIAL_COUNT
};
static_assert((int)DENIAL_COUNT <= (int)STATS_REASONS_MAX, "a counter for each reason");

const char *denial_name(uint32_t denial);
void denial_count(struct exchange *exchange, uint32_t denial);
void denial_count_peer(struct gateway *gateway, struct address address, uint32_t denial);
void denials_stop(struct gateway *gateway);

struct denials {
    uint8_t key[KEY_BYTES];
    uint32_t pending[DENIAL_COUNT];
    uint8_t samples[DENIAL_COUNT][HASH_BYTES];
    uint32_t next;
    struct loop_timer timer;
};

/* ---- control (control.c) ---- */

enum call_kind { CALL_FREE, CALL_FIND, CALL_WAKE, CALL_CHECK, CALL_ROUTE };

struct call {
    enum call_kind kind;
    uint32_t generation;
    uint32_t next_free; /* slot + 1; 0: none */
    void *subject;      /* struct lookup, struct tenant or struct exchange; NULL: it is gone */
};

struct control {
    int fd; /* -1: none */
    struct loop_source *source;
    struct ipc_outbox *outbox;
    struct call *calls;
    uint32_t touched, free, in_flight;
    int64_t lost_us; /* monotonic; while there is no channel */
};

void control_open(struct gateway *gateway, int fd); /* takes fd; the older one's calls fail */
void control_close(struct gateway *gateway);
/* The call's id, never 0; UNAVAILABLE when control cannot be asked. */
MUST_CHECK status control_ask(uint32_t *ret, struct gateway *gateway, enum call_kind kind,
                              uint32_t type, struct span body, void *subject,
                              struct fault *fault);
void control_tell(struct gateway *gateway, uint32_t type, struct span body);
void control_forget(struct gateway *gateway, uint32_t call); /* its subject goes: an exchange */

/* ---- charters (charters.c) ---- */

enum { CLAIM_NAMES_MAX = 16, CLAIM_NAME_MAX = 63 };

/* What control said last of the platform. */
enum platform_state { PLATFORM_UNKNOWN, PLATFORM_KNOWN, PLATFORM_BAD };

struct platform {
    enum platform_state state;
    struct charter *charter; /* NULL: none yet */
    uint64_t sequence;       /* the highest seen in this process */
    bool host_routes;
    uint32_t claim_count;    /* what issuers of single tenants call the tenant */
    char claims[CLAIM_NAMES_MAX][CLAIM_NAME_MAX + 1];
};

/* The body of PLATFORM. What is signed wrongly or older than what was seen is not taken: nobody is
 * let in until the next one. BAD_REQUEST: malformed. */
MUST_CHECK status platform_take(struct gateway *gateway, struct cursor *body, struct fault *fault);
/* May a token of this issuer name any tenant? */
bool platform_has_issuer(const struct gateway *gateway, struct span iss);

/* A tenant's charter, and whom it trusts. */
struct vouched {
    struct charter *charter;         /* NULL: control has none */
    struct token_verifier *verifier; /* NULL: it has no issuers */
    size_t bytes;                    /* about what both cost */
};

/* Signature, tenant and age (never older than what this process has seen) are checked.
 * UNAUTHENTICATED: not to be believed. */
MUST_CHECK status vouched_open(struct vouched *ret, struct gateway *gateway,
                               const uint8_t id[TENANT_ID_BYTES],
                               const struct signed_charter *charter, struct fault *fault);
void vouched_close(struct gateway *gateway, struct vouched *vouched);
void charter_distrust(struct gateway *gateway, const char *why); /* logged, not each time */

/* ---- what a tenant has used of this gateway (standing.c) ---- */

struct standing {
    struct standing *next_bucket, *newer, *older;
    uint8_t id[TENANT_ID_BYTES];
    uint64_t sequence;  /* of its newest charter seen */
    struct rate rate;
    struct user_rates *users;
    uint32_t in_flight; /* exchanges that may be with its cell */
    uint32_t counted;   /* of count_tenant */
    int64_t used_us;    /* monotonic: when its rates were asked last */
};

struct standings {
    uint8_t key[SIPHASH_KEY_BYTES];
    struct standing **buckets;
    struct standing *newest, *oldest;
    struct standing *with_users[GATEWAY_USER_TABLES_MAX];
    uint32_t count;
};

MUST_CHECK status standings_create(struct standings *standings, struct fault *fault);
void standings_free(struct standings *standings);
/* NULL when all of the table is in use: then nothing is shed for it, and the cell decides alone. */
struct standing *standing_of(struct gateway *gateway, const uint8_t id[TENANT_ID_BYTES]);
/* QUOTA_EXCEEDED names the quota: what this gateway alone saw is more than the cell would take. */
MUST_CHECK status standing_take(struct gateway *gateway, struct standing *standing,
                                const struct quotas *quotas, struct span user,
                                struct fault *fault);
/* It may go to its cell now, and counts there until it ends. */
MUST_CHECK status standing_enter(struct exchange *exchange, struct fault *fault);
void standing_leave(struct exchange *exchange);

/* ---- what is known of tenants (lookup.c) ---- */

enum lookup_state { LOOKUP_NOTHING, LOOKUP_FOUND, LOOKUP_ABSENT };
enum record_state { RECORD_ACTIVE = 1, RECORD_PAUSED, RECORD_ERASING };

struct tenant_record { /* as control tells it */
    uint8_t id[TENANT_ID_BYTES];
    enum record_state state;
    int64_t created_at_us;
    bool has_charter;              /* false: it is the one that the gateway has, or there is none */
    struct signed_charter charter; /* borrowed from the message */
};

#define LOOKUP_HOST "host:"
enum { LOOKUP_TEXT_SIZE = sizeof LOOKUP_HOST - 1 + HOST_NAME_TEXT };
static_assert((int)LOOKUP_TEXT_SIZE > (int)TENANT_NAME_MAX, "a name or an id fits");

struct lookup {
    struct lookup *next_bucket;
    struct lookup *newer, *older; /* when no call is out for it */
    char text[LOOKUP_TEXT_SIZE];
    enum lookup_state state;
    struct tenant_record record;
    struct vouched vouched;
    int64_t asked_us, answered_us; /* monotonic */
    uint32_t call;
    struct exchange_list waiting;
};

struct lookups {
    uint8_t key[SIPHASH_KEY_BYTES];
    struct lookup **buckets;
    struct lookup *newest, *oldest;
    uint32_t count;
    struct rate unproven;  /* questions on the word of tokens that nobody has verified */
    struct rate unproven_by[GATEWAY_UNPROVEN_SLOTS]; /* the same, by address */
};

/* May control be asked on the word of a token that nobody has verified? Once a request. */
enum ration { RATION_NONE, RATION_GRANTED, RATION_REFUSED };
void lookup_ration(struct exchange *exchange);

MUST_CHECK status lookups_create(struct lookups *lookups, struct fault *fault);
void lookups_free(struct gateway *gateway);
/* proven: the token that names it was verified; else after lookup_ration. OK: known, absent
 * included (ret->state). AGAIN: the exchange is on its waiting list. Otherwise the refusal. */
MUST_CHECK status lookup_find(struct lookup **ret, struct exchange *exchange, const char *text,
                              bool proven, struct fault *fault);
/* Known without asking control, to be there, with issuers of its own? */
bool lookup_has_issuers(struct exchange *exchange, const char *text);
/* code is OK, NOT_FOUND or why it is not known. */
void lookup_answered(struct gateway *gateway, struct lookup *lookup, status code,
                     const struct tenant_record *record);
void lookups_forget(struct gateway *gateway, const uint8_t id[TENANT_ID_BYTES]);

/* ---- whose token it is (whose.c) ---- */

struct caller {
    const struct claims *claims; /* valid until the next decision */
    uint8_t token_hash[HASH_BYTES];
    const struct lookup *lookup; /* the tenant's, LOOKUP_FOUND; NULL for a platform token */
};

/* OK: the claims hold, are not revoked, and the tenant they name is known and not being erased.
 * Nothing says yet that they are of that very tenant: authz_envelope. Otherwise like decide. */
MUST_CHECK status whose(struct caller *ret, struct exchange *exchange, int64_t now_us,
                        struct fault *fault);
MUST_CHECK status refuse_token(struct exchange *exchange, uint32_t denial, struct fault *fault);

/* ---- behind proxies (forwarded.c) ---- */

/* exchange->address and exchange->host: of the connection and the head, or, where the peer is a
 * trusted proxy, what it says of its client. */
void forwarded_take(struct exchange *exchange, const struct http_head *head);

/* ---- tenants that a host names (hosts.c) ---- */

/* For exchange->host, from the value of Host or of a trusted X-Forwarded-Host. */
void host_take(char ret[HOST_NAME_TEXT], struct span value);
/* OK unless the host names another tenant than the caller's. Otherwise like decide. */
MUST_CHECK status host_permits(struct exchange *exchange, const struct caller *caller,
                               struct fault *fault);

/* ---- tenants by a lookup key (routes.c) ---- */

extern const struct action_table route_table; /* what the gateway answers itself */
const struct action *gateway_action(uint32_t number); /* of both tables; NULL: none */
/* Writes the question into the exchange. BAD_FIELD. */
MUST_CHECK status route_question(struct exchange *exchange, const struct route *route,
                                 const struct caller *caller, struct fault *fault);
void route_dispatch(struct exchange *exchange);
struct route_told {
    uint8_t id[TENANT_ID_BYTES];
    char name[TENANT_NAME_MAX + 1];
};
void route_answered(struct exchange *exchange, status code, const struct route_told *told);

/* ---- tenants with a cell, or waiting for one (tenant.c) ---- */

enum { TENANT_BUCKETS = 4096 };

struct tenant {
    struct gateway *gateway;
    struct tenant *next_bucket;
    uint8_t id[TENANT_ID_BYTES];
    struct relay *relay; /* takes new requests; NULL: none */
    struct exchange_list waiting;
    uint32_t wake_call, check_call;
    uint32_t pins;       /* it is in use up the stack */
};

void tenant_dispatch(struct exchange *exchange); /* its first fragment is complete */
void tenant_woken(struct tenant *tenant, status code, bool withdrawn);
void tenant_checked(struct tenant *tenant, status code, const struct tenant_record *record);
void tenant_cell(struct gateway *gateway, const uint8_t id[TENANT_ID_BYTES], int fd); /* takes fd */
void tenant_changed(struct gateway *gateway, const uint8_t id[TENANT_ID_BYTES]);
void tenant_lost_relay(struct tenant *tenant); /* it ended, or drains */
bool tenant_has_cell(struct gateway *gateway, const uint8_t id[TENANT_ID_BYTES]);
void tenants_free(struct gateway *gateway);

/* ---- connections of one address (crowd.c) ---- */

struct crowd { /* addresses, and how many connections each has */
    uint8_t key[SIPHASH_KEY_BYTES];
    struct crowd_place **buckets;
};

MUST_CHECK status crowd_create(struct crowd *crowd, struct fault *fault);
void crowd_free(struct crowd *crowd);
/* False: this address has as many as it may. ret: for crowd_leave; NULL when it is not counted. */
bool crowd_enter(struct crowd_place **ret, struct gateway *gateway, struct address address);
void crowd_leave(struct gateway *gateway, struct crowd_place *place); /* takes NULL */

/* ---- what is counted (counts.c) ---- */

void counts_start(struct gateway *gateway);
void count_answer(struct gateway *gateway, const struct asked *asked, int http_status);
/* What asked.tenant is for this tenant; 0 when tenants are not to be told apart. */
uint32_t count_tenant(struct gateway *gateway, const uint8_t id[TENANT_ID_BYTES]);
void count_queues(struct gateway *gateway);
int stats_status(uint32_t slot); /* 0: all others; -1: no such slot */

/* ---- relays (relay.c, stream.c) ---- */

enum { STREAM_BUCKETS = 64 };

struct stream {
    struct stream *next_bucket;
    struct relay *relay;
    uint32_t id;
    struct exchange *exchange; /* NULL: its client is gone */
    bool uploading, answering, cancelled;
    bool talking;              /* the cell may have to be told more: counted in the relay */
    bool head_only;
    uint8_t streams;           /* of its action */
    uint32_t room;             /* bytes of a streamed body that the cell takes */
    uint32_t owed;             /* bytes of a streamed answer that credit was not given for */
    uint64_t left;             /* of the answer's body, while answering; RELAY_LENGTH_UNKNOWN */
    uint32_t mark;             /* when cancelled: the first id that was opened later */
    struct stream *next_cancelled;
};

struct relay {
    struct gateway *gateway;
    struct tenant *tenant;      /* NULL: takes no new requests */
    uint8_t tenant_id[TENANT_ID_BYTES];
    int fd;
    uint32_t events;
    struct loop_source *source;
    struct ipc_outbox *outbox;
    bool dead, draining, drained, paused;
    uint32_t next_id;
    uint32_t live;              /* streams that will be answered */
    uint32_t talking;           /* of them: bodies in progress, answers that need credit */
    uint32_t cancelled;
    struct stream *first_cancelled, *last_cancelled;
    bool forgotten;             /* cancelled ones, of too many */
    uint32_t forgotten_id;      /* the highest of theirs */
    uint32_t forgotten_mark;    /* like stream.mark: of the last of them */
    struct stream *buckets[STREAM_BUCKETS];
    struct exchange_list uploads;
    size_t held;                /* bytes of its answers that its clients have not taken */
    size_t streamed;            /* the same of those that stream */
    struct holding *holders;    /* those of some: they keep it in memory */
    struct relay *next, *previous, *next_dead;
};

MUST_CHECK status relay_open(struct relay **ret, struct tenant *tenant, int fd,
                             struct fault *fault); /* takes fd in any case */
/* Sends the request with its first fragment. CLOSED: the cell is gone and has seen nothing of it;
 * UNAVAILABLE: too much waits already. The exchange stays the caller's on failure. */
MUST_CHECK status relay_request(struct relay *relay, struct exchange *exchange,
                                struct fault *fault);
/* Bytes of body that may be sent now. */
uint32_t relay_takes_body(const struct stream *stream);
void relay_body(struct exchange *exchange);   /* the next fragment */
void relay_credit(struct stream *stream, uint32_t bytes); /* may end the relay */
void relay_cancel(struct exchange *exchange); /* its client is gone, or was refused */
void relay_end(struct relay *relay, const char *why); /* its requests get 503; NULL: not logged */
void relay_detach(struct relay *relay);       /* no new requests; closed when it has answered all */
void relay_watch(struct relay *relay); /* for what it waits for now; may end it */
void relays_sweep(struct gateway *gateway);

/* What clients have not taken yet (holding.c). */
void holding_add(struct holding *holding, struct connection *connection, struct stream *from,
                 size_t bytes); /* from: NULL too */
void holding_release(struct holding *holding, size_t bytes); /* taken, or dropped; at most all */
/* Cuts off who holds too much. True: the relay is not to be read for now; holding_release goes on
 * with it. */
bool holding_check(struct relay *relay);

/* The streams of a relay (stream.c): bookkeeping only. */
struct stream *stream_open(struct relay *relay, struct exchange *exchange); /* NULL: no memory */
struct stream *stream_find(struct relay *relay, uint32_t id);
void stream_cancel(struct stream *stream); /* an answer may still cross, or not */
void stream_orphan(struct stream *stream); /* its answer will come and is dropped */
void stream_close(struct stream *stream);
void stream_hush(struct stream *stream); /* the cell need not be told more of it */
bool stream_forgotten(const struct relay *relay, uint32_t id); /* it may be one of these */
void streams_settle(struct relay *relay, uint32_t answered); /* what was cancelled before is over */

/* ---- the gateway (serve.c) ---- */

struct gateway {
    struct loop *loop;
    int supervisor;
    struct loop_source *supervisor_source;
    uint32_t index, gateways;
    struct gateway_start start; /* what it was told; its descriptors are elsewhere */
    struct stats_page *page;
    struct stats *stats; /* our own slot */
    struct listener listener, ops;
    struct token_verifier *verifier; /* of the built-in issuer and the platform's */
    struct token_cache *tokens;
    struct tls_server *tls; /* NULL: none, or none yet */
    struct verifier *platform_key;
    struct platform platform;
    size_t vouched_bytes;
    int64_t distrust_logged_us;
    struct control control;
    struct lookups lookups;
    struct rate route_rate; /* of questions for routes */
    struct standings standings;
    struct crowd crowd;
    uint32_t wait_lookup, wait_wake, with_cells; /* exchanges */
    struct tenant *tenants[TENANT_BUCKETS];
    uint8_t tenants_key[SIPHASH_KEY_BYTES];
    struct denials denials;
    struct arena arena;  /* of one decision */
    uint8_t *storage;    /* IPC_PACKET_MAX: the message being read */
    struct buffer scratch; /* the head being written */
    uint8_t random[512];
    size_t random_left;
    char date[64];       /* the value of Date */
    size_t date_length;
    int64_t date_second;
    struct connection_list idle, busy, ops_connections;
    size_t memory;       /* of all connections' buffers */
    struct connection *ready_first, *ready_last, *dead;
    struct relay *relays, *dead_relays;
    bool reading_supervisor;
    bool stopping, ended;
    struct loop_timer stop_timer;
    status why;
    struct fault fault;
};

void gateway_end(struct gateway *gateway, status why, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void gateway_read_supervisor(struct gateway *gateway);
/* Arms or ends the gateway: without timers it cannot bound anything. */
void gateway_timer(struct gateway *gateway, struct loop_timer *timer, int64_t after_us,
                   loop_on_time *on_time, void *context);

/* ---- operations (ops.c, metrics.c) ---- */

void ops_answer(struct connection *connection, const struct http_head *head);
void metrics_put(struct buffer *out, struct gateway *gateway);
#define METRICS_MEDIA_TYPE "text/plain; version=0.0.4; charset=utf-8"
enum { METRICS_MAX = MIB(1) };
