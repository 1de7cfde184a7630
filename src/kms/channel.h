/* channel.h: what serve.c (channels and turns) and handlers.c (what may be asked) share. */
#pragma once

#include "authz/charter.h"
#include "base/cursor.h"
#include "kms/serve.h"
#include "wire/ipc.h"

enum {
    MESSAGES_A_TURN = 4,   /* of one channel */
    REPLY_MAX = 8 * 1024,  /* bytes of one answer; the largest is a token */
    REPLIES_BYTES = 40 * 1024,
    REPLIES_A_TURN = 256,
    OUTBOX_BYTES = 64 * 1024, /* that may wait for one slow peer */
    ADMINS_MAX = 64,
    CHANNELS_MAX = CELLS_AWAKE_MAX + ADMINS_MAX + 2,
    RECEIPT_MAX = 4096,
    CHARTERS_A_TURN = 4,
    SIGNED_CHARTER_MAX = TENANT_ID_BYTES + 8 + 4 + CHARTER_MAX + SIGNATURE_BYTES,
};

enum channel_role { ROLE_SUPERVISOR, ROLE_STANDING, ROLE_ADMIN, ROLE_CELL, ROLE_COUNT };

struct channel {
    struct channel *next, **link; /* of all channels */
    struct kms *kms;
    struct loop_source *source;
    struct ipc_outbox *outbox;
    int fd;
    enum channel_role role;
    uint8_t tenant[TENANT_ID_BYTES]; /* ROLE_CELL; all zero for the others: the platform's silo */
    uint32_t uid;                    /* ROLE_ADMIN: of the operator */
    uint32_t served_as;              /* ROLE_CELL: id of the supervisor's message */
    uint64_t epoch;                  /* of its KEY_OPEN; 0 before */
    uint8_t offered[HASH_BYTES];     /* under which KEK what it is to keep was wrapped last */
    bool ends;                       /* closed when this turn's answers have left */
};

/* One message while it is handled. */
struct request {
    struct kms *kms;
    struct channel *channel;
    struct ipc_message *message;
    struct cursor body;
    struct buffer *result; /* behind the head of the reply */
    bool read;     /* the body was what it must be; a failure before is a malformed message */
    bool anchored; /* the answer holds only when the turn's anchors are durable */
    bool opened;   /* it was this channel's KEY_OPEN */
    bool secret;   /* the answer must not wait outside of secret memory */
    uint8_t offers[HASH_BYTES]; /* it holds keys wrapped under this KEK; all zero: none */
};

typedef status request_handler(struct request *request, struct fault *fault);

struct permit {
    uint32_t type;
    uint32_t fds;   /* exactly so many */
    bool answered;
    request_handler *handler;
};

struct permits {
    const char *role;
    const struct permit *rows;
    size_t count;
};

extern const struct permits kms_permits[ROLE_COUNT];

/* ---- serve.c, for the handlers ---- */

struct keystore *kms_store(struct kms *kms);
struct released_key *kms_scratch(struct kms *kms); /* secret; wiped after every message */
uint32_t kms_channels(const struct kms *kms, enum channel_role role);

/* fd becomes the room's own, also on failure. model: role, tenant, uid. */
MUST_CHECK status kms_add_channel(struct kms *kms, const struct channel *model, int fd,
                                  struct fault *fault);
/* Closes every channel of the role (and, of ROLE_CELL, of that tenant; NULL: any). */
void kms_close_channels(struct kms *kms, enum channel_role role, const uint8_t *tenant);
/* For the cells that it concerns and that have opened their key, once it is durable. */
void kms_push_charter(struct kms *kms, const struct signed_charter *charter);
bool kms_serves_cell(const struct kms *kms, const uint8_t tenant[TENANT_ID_BYTES]);
/* At the end of this turn, and from then on now and again as long as there are cells. */
void kms_look_at_withdrawals(struct kms *kms);
void kms_stop(struct kms *kms);
