/* harness.h: everyone a cell talks to, played by a test: supervisor, kms and gateways over real
 * channels, with real signed tokens, anchors checked as the kms checks them, and a silo's directory
 * on disk. The cell itself runs in a child process without its jail. */
#pragma once

#include "crypt/merkle.h"
#include "crypt/sign.h"
#include "silo/silo.h"
#include "wire/messages.h"

#include <sys/types.h>

enum { HARNESS_GATEWAYS = 3 };

/* What the fake kms does with what it is asked. */
enum kms_mood { KMS_ANSWERS, KMS_SILENT, KMS_REFUSES };

struct harness_charter { /* length 0: none; head of sequence 0 then */
    uint8_t bytes[CHARTER_MAX + 128];
    size_t length;
    struct charter_head head;
};

struct harness {
    char directory[64];
    uint8_t tenant_id[TENANT_ID_BYTES];
    char tenant_text[TENANT_ID_TEXT];
    struct signer *platform, *issuer, *stranger;
    uint8_t platform_key[SIGN_PUBLIC_BYTES], issuer_key[SIGN_PUBLIC_BYTES];
    uint8_t dek[KEY_BYTES];
    enum kms_mood mood;
    bool made;               /* the key exists */
    struct anchor anchor;    /* as the kms holds it */
    uint32_t moves, opens;
    bool anchor_broke_rules;
    uint32_t idle_seconds;
    char region[TENANT_NAME_MAX + 1]; /* of the node */
    struct charter charters[SILO_CHARTERS]; /* what the next ones say; issuers and so on borrowed */
    struct harness_charter in_force[SILO_CHARTERS]; /* in force, as the kms knows it */
    const struct harness_charter *handed[SILO_CHARTERS]; /* by control; NULL: those in force */
    pid_t pid;
    int supervisor, kms, gateways[HARNESS_GATEWAYS];
    uint8_t *storage;        /* IPC_PACKET_MAX */
};

/* Signs harness->charters[scope] as it now is, with the next sequence: in force from here on (for a
 * cell that is awake only once it is sent). */
void harness_sign(struct harness *harness, enum silo_charter scope);
/* The same by another key and with any sequence, in force nowhere. */
void harness_forge(struct harness_charter *ret, struct harness *harness, enum silo_charter scope,
                   uint64_t sequence, struct signer *signer);
void harness_send_charter(struct harness *harness, const struct harness_charter *charter);

/* First of all in every main: a test is also the executable of its cell, started anew, because the
 * memory of keys does not survive a fork. attach (or NULL) is called in that process. */
void harness_main(int count, char **arguments, void (*attach)(void));

int harness_setup(void **state);    /* cmocka */
int harness_teardown(void **state);

/* To CELL_READY, with gateway 0 attached. */
void harness_start(struct harness *harness);
/* To CELL_JAILED; then the caller goes on. */
void harness_begin(struct harness *harness);
void harness_attach(struct harness *harness, uint32_t index); /* replaces */
void harness_new_kms(struct harness *harness);                /* CHANNEL of kind KMS */
int harness_end(struct harness *harness);   /* waits: the exit code, 128 + signal */
void harness_kill(struct harness *harness); /* as a crash */
void harness_park(struct harness *harness); /* CELL_PARK to PARKED, drained by every gateway */
void harness_pause(struct harness *harness);  /* the cell sees nothing of what follows ... */
void harness_resume(struct harness *harness); /* ... and then all at once */

void harness_tell(struct harness *harness, uint32_t type, struct span body, const int *fds,
                  uint32_t fd_count); /* as the supervisor */

/* The next message on fd; the kms is served meanwhile. AGAIN after timeout_ms, CLOSED. */
status harness_receive(struct ipc_message *ret, struct harness *harness, int fd, int timeout_ms);
void harness_serve_kms(struct harness *harness, int for_ms);
void harness_expect(struct ipc_message *ret, struct harness *harness, uint32_t type);
void harness_expect_closed(struct harness *harness, int fd);
void harness_expect_failed(struct harness *harness, status why);

/* A token of the built-in issuer; scope of the API, e.g. "memory:read memory:write". */
struct harness_token {
    const char *user, *scope, *clearance;
    const char *tenant;    /* NULL: ours */
    int64_t age_seconds;   /* issued so long ago */
    int64_t ttl_seconds;   /* 0: 600 */
    bool forged;           /* signed by a stranger */
};
void harness_token(char text[2048], struct harness *harness, struct harness_token wanted);

/* Any payload (JSON) under EdDSA, by the issuer or, with kid "k1", by the stranger. */
void harness_raw_token(char text[2048], struct harness *harness, bool by_stranger,
                       const char *payload);
/* The stranger as an issuer named "https://idp.example". */
struct token_issuer harness_issuer(struct harness *harness);

struct harness_request {
    const char *method, *path, *query, *content_type, *token;
    const char *headers[RELAY_HEADERS]; /* by kind; content_type is also here */
    struct span body;
    size_t first;   /* bytes of the body in RELAY_REQUEST and each RELAY_BODY; 0: as many as fit */
    bool open;      /* no FLAG_END: the body stays unfinished */
    bool chunked;   /* its length is not said, as when open */
    int64_t length; /* said instead of the body's; 0: that */
};
void harness_send(struct harness *harness, uint32_t gateway, uint32_t id,
                  struct harness_request request);
void harness_send_raw(struct harness *harness, uint32_t gateway, uint32_t type, uint32_t id,
                      struct span body);

void harness_send_body(struct harness *harness, uint32_t gateway, uint32_t id, uint8_t flags,
                       struct span fragment);
void harness_send_credit(struct harness *harness, uint32_t gateway, uint32_t id, uint32_t bytes);

struct harness_answer {
    uint32_t id;
    int http_status;
    uint32_t retry_after;
    char headers[RELAY_HEADERS][SILO_HEADER_MAX];
    uint64_t length; /* as announced */
    uint32_t fragments;
    bool over, broken;
    uint64_t credit;    /* that came for the request's body meanwhile */
    struct buffer body; /* NUL behind it */
};
/* The next whole answer on that gateway; to be freed. */
void harness_answer(struct harness_answer *ret, struct harness *harness, uint32_t gateway);
/* The next message of one stream's answer, into an answer that was zero at first: over at its end.
 * False when none comes for that long. */
bool harness_part(struct harness_answer *answer, struct harness *harness, uint32_t gateway,
                  int timeout_ms);
/* The whole of a streamed answer; gives credit as it comes. */
void harness_stream(struct harness_answer *answer, struct harness *harness, uint32_t gateway);
void harness_answer_free(struct harness_answer *answer);
/* Sends, receives; checks the status and that body holds text (NULL: anything). */
void harness_ask(struct harness *harness, struct harness_request request, int http_status,
                 const char *text);
