/* house.h: a gateway in this process, and everybody around it played by the test: supervisor,
 * control, cells, clients. Time stands still until house_wait moves it. */
#pragma once

#include "../authz/minted.h"

#include "authz/charter.h"
#include "gateway/gateway.h"
#include "wire/messages.h"

#define TENANT MINT_TENANT
#define OTHER_TENANT "ffeeddccbbaa99887766554433221100"

struct house {
    struct loop *loop;
    struct gateway *gateway;
    int supervisor, control; /* our ends */
    struct stats_page *stats;
    struct mint mint;
    char port[6], ops_port[6];
    uint8_t storage[IPC_PACKET_MAX]; /* of the message that came last */
    struct buffer token;             /* of TENANT, memory:read memory:write tenant:read */
};

struct house_options { /* of START */
    const char *domain, *region; /* NULL: none */
    bool no_tenant_labels;
    uint32_t connections_per_address;
    bool proxy; /* 127.0.0.1 is a trusted one */
};

int house_setup(void **state); /* without any */
int house_setup_as(void **state, const struct house_options *options);
int house_teardown(void **state);

void house_turn(struct house *house);                  /* until nothing moves */
void house_wait(struct house *house, int64_t ms);      /* time passes, then the same */
void house_pass(int64_t ms);                           /* time passes, and nobody looks */
bool house_ended(struct house *house, status *why);

/* The token of a request; valid until the next call. */
const char *house_token(struct house *house, const char *tenant, const char *scope);

/* An issuer of one tenant (NULL: of the platform) with an Ed25519 key of this number. */
struct token_issuer house_issuer(const char *iss, const char *tenant, uint8_t key);
/* A token of such an issuer: more is JSON members behind iss, aud, exp and iat. */
const char *house_foreign(struct house *house, const char *iss, uint8_t key, const char *more);

/* ---- clients ---- */

struct reply {
    int status;
    char head[4096]; /* lines, CRLF between */
    struct buffer body;
};

int house_dial(struct house *house);
int house_dial_ops(struct house *house);
void house_write(struct house *house, int client, struct span bytes); /* all of it, turning */
void house_say(struct house *house, int client, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* The same, from another host. */
void house_get_host(struct house *house, int client, const char *path, const char *host);
/* "GET PATH" with the usual headers and house->token. */
void house_get(struct house *house, int client, const char *path);
void house_post(struct house *house, int client, const char *path, const char *body);
/* The next reply; fails the test when none comes. The body is valid until the next call. */
const struct reply *house_reply(struct house *house, int client);
void house_expect(struct house *house, int client, int http_status, const char *code);
const char *reply_header(const struct reply *reply, const char *name); /* NULL: there is none */
bool house_silent(struct house *house, int client); /* nothing to read, still open */
bool house_closed(struct house *house, int client); /* by the gateway */
/* Turns until the gateway has no client any more: on a busy machine a reset may be late. */
void house_settle(struct house *house);

/* ---- control and supervisor ---- */

/* The next message on a channel. Fails the test when none comes. */
struct ipc_message house_next(struct house *house, int channel, uint32_t type);
bool house_quiet(struct house *house, int channel);
void house_found(struct house *house, uint32_t id, const char *tenant, uint8_t state);
void house_reply_to(struct house *house, uint32_t id, status code);
/* TENANT_FIND of this text and known sequence: its id. */
uint32_t house_asked(struct house *house, const char *text, uint64_t known);
void house_find(struct house *house, const char *text, uint8_t state); /* asked and answered */
/* The same with this charter, active. */
void house_find_with(struct house *house, const char *text, uint64_t known,
                     const struct charter *charter);
void house_found_with(struct house *house, uint32_t id, const char *tenant, uint8_t state,
                      struct span given);
/* A charter of the defaults; its members may be changed before it is signed. */
struct charter house_charter(const char *tenant, const char *name, uint64_t sequence);
struct charter house_platform_charter(uint64_t sequence);
void house_put_charter(struct buffer *out, struct house *house, const struct charter *charter);
/* PLATFORM; charter NULL: none yet; claim NULL: none. */
void house_platform(struct house *house, const struct charter *charter, bool host_routes,
                    const char *claim);
void house_platform_given(struct house *house, struct span given, bool host_routes,
                          const char *claim);
/* Answers TENANT_FIND (if it is asked) and TENANT_WAKE; the cell's end. */
int house_wake(struct house *house, const char *tenant);
int house_give_cell(struct house *house, const char *tenant);
void house_changed(struct house *house, const char *tenant);
void house_new_control(struct house *house);

/* ---- cells ---- */

struct relayed { /* a RELAY_REQUEST */
    uint32_t id;
    uint8_t flags;
    uint8_t trace_id[TRACE_ID_BYTES];
    struct span method, path, query;
    int64_t length;
    struct span headers[RELAY_HEADERS];
    struct span token, fragment;
};

struct relayed house_request(struct house *house, int cell);
void cell_answer(int cell, uint32_t id, int http_status, const char *body);
/* Any RELAY_RESPONSE, also what no cell should send. */
struct header {
    uint8_t kind; /* 0: none */
    struct span value;
};
enum { SAID_HEADERS_MAX = 8 };
struct said {
    uint8_t flags;
    int http_status;
    uint64_t length;
    struct header headers[SAID_HEADERS_MAX];
    struct span fragment;
};
void cell_say(int cell, uint32_t id, const struct said *said);
/* The same with these headers alone. */
void cell_respond(int cell, uint32_t id, uint8_t flags, int http_status,
                  struct span content_type, struct span allow, uint64_t length,
                  struct span fragment);
void cell_more(int cell, uint32_t id, uint8_t flags, struct span fragment);
void cell_send(int cell, uint32_t type, uint32_t id, struct span body);

void cell_credit(int cell, uint32_t id, uint32_t bytes);

/* ---- actions that stream, beside those of silos: the house has a table of its own ----
 *
 * PUT /v1/streams/{id} takes bytes, GET gives them, POST /v1/streams does both; the scope is
 * memory:write, for GET memory:read. */
#define STREAM_BODY_MAX (UINT64_C(8) << 30)
enum { STREAM_BATCH_MAX = MIB(1) };

/* Exactly these bytes come next. */
void house_read(struct house *house, int client, const char *text);
/* All that comes, until nothing does for a while: how much. */
size_t house_drink(struct house *house, int client);

/* A cell awake, a request of this client relayed to it. */
int house_relayed(struct house *house, int client, struct relayed *ret);
