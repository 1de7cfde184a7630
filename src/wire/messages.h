/* messages.h: the types of all messages between processes. docs/protocols.md says who may send
 * which, when, and the layout of each body; this file and that page change together. */
#pragma once

#include "base/cursor.h"
#include "wire/ipc.h"

enum message_type {
    /* every channel: the answer to the request of the same id: u16 status, text detail, result */
    MESSAGE_REPLY = 0x0001,

    /* supervisor -> child, and back: the channel on fd 3 */
    MESSAGE_START = 0x0101,   /* what the role needs; layout per role */
    MESSAGE_READY = 0x0102,
    MESSAGE_STOP = 0x0103,    /* finish what is in flight and exit 0 */
    MESSAGE_JAILED = 0x0105,  /* the jail is closed, look */
    MESSAGE_CHANNEL = 0x0104, /* u8 channel_kind, u32 index, one fd: a new or renewed channel */
    MESSAGE_GATEWAY_TLS = 0x0106, /* to a gateway: ticket keys; certificate and key, or neither */

    /* supervisor -> kms: from here on serve this end, for this party; replied to */
    MESSAGE_KMS_SERVE_CELL = 0x0201,  /* tenant id; fd */
    MESSAGE_KMS_SERVE_ADMIN = 0x0202, /* u32 uid of the operator; fd */

    /* cell (or control, for its own registry) -> kms */
    MESSAGE_KEY_OPEN = 0x0301,
    MESSAGE_ANCHOR_MOVE = 0x0302,
    /* cell -> kms: versions of the data key */
    MESSAGE_KEY_NEXT = 0x0304,
    MESSAGE_KEY_DROP = 0x0305,
    MESSAGE_KEY_KEPT = 0x0306,
    /* kms -> cell */
    MESSAGE_CHARTER = 0x0303, /* a signed charter, in force from now on; no reply */
    /* control -> kms, standing channel */
    MESSAGE_KEY_STATE = 0x0311,
    MESSAGE_KEY_DISCARD = 0x0312,
    MESSAGE_RECEIPT_SIGN = 0x0313,
    /* control -> kms, only on a channel opened for one admin connection */
    MESSAGE_KEY_CREATE = 0x0321,
    MESSAGE_KEY_SHRED = 0x0322,
    MESSAGE_TOKEN_MINT = 0x0323,
    MESSAGE_KEK_ROTATE = 0x0325,
    MESSAGE_KEY_DISABLE = 0x0326,
    MESSAGE_KEY_ENABLE = 0x0327,
    MESSAGE_ANCHOR_RESTORE = 0x0328,
    /* the same; and over the standing channel for the newest one once more */
    MESSAGE_CHARTER_SIGN = 0x0324,

    /* control -> supervisor */
    MESSAGE_SILO_MAKE = 0x0401,
    MESSAGE_SILO_REMOVE = 0x0402,
    MESSAGE_CELL_WAKE = 0x0403,
    MESSAGE_CELL_STOP = 0x0404,
    MESSAGE_CELL_EXPORT = 0x0405, /* also supervisor -> cell */
    MESSAGE_SILO_RESTORE = 0x0408,  /* builds a silo from backups beside the one in place */
    MESSAGE_SILO_REPLACE = 0x0409,  /* that one takes its place */
    MESSAGE_SILO_DISCARD = 0x040A,  /* that one is removed */
    MESSAGE_STATUS = 0x0406,
    MESSAGE_PROVE = 0x0407,
    /* supervisor -> control */
    MESSAGE_ADMIN_OPEN = 0x0411,
    MESSAGE_CELL_GONE = 0x0412,
    MESSAGE_PRICES = 0x0413, /* the price file was read anew */

    /* supervisor -> gateway */
    MESSAGE_GATEWAY_CELL = 0x0501,
    /* gateway -> control */
    MESSAGE_TENANT_FIND = 0x0511,
    MESSAGE_TENANT_WAKE = 0x0512,
    MESSAGE_DENIED = 0x0513, /* no reply */
    MESSAGE_ROUTE_FIND = 0x0514,
    /* control -> gateway */
    MESSAGE_TENANT_CHANGED = 0x0521, /* no reply */
    MESSAGE_PLATFORM = 0x0522,       /* no reply */

    /* supervisor -> cell, and back */
    MESSAGE_CELL_BLANK = 0x0601,  /* <- : in its namespaces, waiting */
    MESSAGE_CELL_ASSUME = 0x0602, /* -> : be this tenant */
    MESSAGE_CELL_RESTORE = 0x060A,  /* -> : instead: make this tenant's silo from backups */
    MESSAGE_CELL_RESTORED = 0x060B, /* <- : done and verified; it exits */
    MESSAGE_CELL_READY = 0x0604,  /* <- : silo open, serving */
    MESSAGE_CELL_FAILED = 0x0605, /* <- : u16 status, text detail; it exits */
    MESSAGE_CELL_PARK = 0x0606,   /* -> : drain, checkpoint, exit */
    MESSAGE_CELL_PARKED = 0x0607, /* <- : i64 next expiry (wall us, 0 none), u64 bytes stored */
    MESSAGE_CELL_DAMAGE = 0x0608, /* <- : u32 pages, text what */
    MESSAGE_CELL_USAGE = 0x060a,  /* <- : what was counted; to control with the kernel's */
    MESSAGE_CELL_IDLE = 0x0609,   /* <- : nobody needs it: may it be parked? */

    /* supervisor -> monitor (bulkhead-vmm), and back */
    MESSAGE_VMM_BLANK = 0x0901,  /* <- : in its namespaces, waiting */
    MESSAGE_VMM_FD = 0x0902,     /* -> : u8 enum vmm_fd; fd: before VMM_START */
    MESSAGE_VMM_START = 0x0903,  /* -> : be this sandbox */
    MESSAGE_VMM_GO = 0x0904,     /* -> : the jail was read back: run the guest */
    MESSAGE_VMM_STREAM = 0x0905, /* -> : a stream of the guest's vsock; fd */
    MESSAGE_VMM_RUNNING = 0x0906, /* <- : the guest's agent has dialled */
    MESSAGE_VMM_ENDED = 0x0907,  /* <- : why the guest ended; it exits */
    MESSAGE_VMM_USED = 0x0908,   /* <- : of a runner: what its processes have used */
    MESSAGE_VMM_STOP = 0x0909,   /* -> : end the guest, as if its line were closed */

    /* control -> supervisor */
    MESSAGE_SANDBOX_START = 0x0911,
    MESSAGE_SANDBOX_STOP = 0x0912,
    /* supervisor -> control */
    MESSAGE_SANDBOX_GONE = 0x0913,

    /* gateway -> cell; id is the stream */
    MESSAGE_RELAY_REQUEST = 0x0701,
    MESSAGE_RELAY_BODY = 0x0702,
    MESSAGE_RELAY_CANCEL = 0x0703,
    MESSAGE_RELAY_DRAINED = 0x0704,
    MESSAGE_RELAY_CREDIT = 0x0705, /* both ways */
    /* cell -> gateway */
    MESSAGE_RELAY_RESPONSE = 0x0711,
    MESSAGE_RELAY_MORE = 0x0712,
    MESSAGE_RELAY_DRAIN = 0x0713,
    MESSAGE_RELAY_BREAK = 0x0714,

    /* CLI -> control, over admin.sock, and back */
    MESSAGE_ADMIN_CALL = 0x0801,
    MESSAGE_ADMIN_RESULT = 0x0802,
};

enum channel_kind {
    CHANNEL_CONTROL_KMS = 1, /* to control: its standing channel to the kms */
    CHANNEL_GATEWAY,         /* to control and to cells: the end of gateway number index */
    CHANNEL_CONTROL,         /* to a gateway and to the kms: the end of control */
    CHANNEL_KMS,             /* to a cell: its channel to the kms */
};

enum { FLAG_END = 1 }; /* the last fragment of a body */

/* The headers that pass between gateway and cell: in requests (Q), in answers (A). */
enum relay_header {
    RELAY_CONTENT_TYPE = 1,     /* Q A */
    RELAY_IDEMPOTENCY_KEY,      /* Q */
    RELAY_RANGE,                /* Q */
    RELAY_IF_RANGE,             /* Q */
    RELAY_IF_MATCH,             /* Q */
    RELAY_IF_NONE_MATCH,        /* Q */
    RELAY_IF_MODIFIED_SINCE,    /* Q */
    RELAY_IF_UNMODIFIED_SINCE,  /* Q */
    RELAY_ALLOW,                /* A: of 405 */
    RELAY_ETAG,                 /* A */
    RELAY_LAST_MODIFIED,        /* A */
    RELAY_CONTENT_RANGE,        /* A: of 206 and 416 */
    RELAY_ACCEPT_RANGES,        /* A */
    RELAY_CONTENT_DISPOSITION,  /* A */
    RELAY_IDEMPOTENT_REPLAYED,  /* A: "true": the answer to an earlier request of this key */
    RELAY_HEADERS
};

/* The detail of UNAVAILABLE where that is why a tenant cannot be woken: its clients are told. */
#define DETAIL_KEY_WITHDRAWN "the tenant's encryption key is withdrawn by its owner"

#define RELAY_LENGTH_UNKNOWN UINT64_MAX

/* Sets of kinds: bit 1 << kind. */
enum {
    RELAY_REQUEST_HEADERS = (1 << RELAY_ALLOW) - (1 << RELAY_CONTENT_TYPE),
    RELAY_ANSWER_HEADERS = 1 << RELAY_CONTENT_TYPE | ((1 << RELAY_HEADERS) - (1 << RELAY_ALLOW)),
};

/* May this be the value of one? 1..RELAY_HEADER_MAX bytes of visible ASCII and blanks. */
bool relay_header_fits(struct span value);
/* By kind; empty: not sent. Each must fit. */
void relay_headers_put(struct buffer *out, const struct span headers[RELAY_HEADERS]);
/* Borrowed. BAD_REQUEST, TRUNCATED for anything but kinds of that set in ascending order. */
MUST_CHECK status relay_headers_get(struct span ret[RELAY_HEADERS], struct cursor *cursor,
                                    uint32_t kinds, struct fault *fault);

enum cell_gone_reason {
    CELL_GONE_PARKED = 1,
    CELL_GONE_STOPPED,
    CELL_GONE_DIED,
    CELL_GONE_REFUSED
};
enum cell_stop_how { CELL_STOP_PARK = 0, CELL_STOP_KILL = 1 };

/* The state of a silo that the kms keeps apart from it: ANCHOR_WIRE_BYTES on the wire. */
struct anchor {
    uint64_t epoch;   /* grows each time the key is released */
    uint64_t commits; /* of silo.db */
    uint64_t map_generation;
    uint8_t map_hash[32];
    uint64_t log_size; /* audit entries */
    uint8_t log_root[32];
};

enum { ANCHOR_WIRE_BYTES = 8 * 4 + 64 };

void anchor_put(struct buffer *out, const struct anchor *anchor);
MUST_CHECK status anchor_get(struct anchor *ret, struct cursor *cursor, struct fault *fault);

/* MESSAGE_REPLY: the head of its body; results are put behind it. */
void reply_put_head(struct buffer *out, status code, const char *detail);
/* Reads the head. Returns the peer's status with its detail in the fault when it is not OK; the
 * cursor then stands on the result. A reply that is none is BAD_REQUEST. */
MUST_CHECK status reply_get_head(struct cursor *ret, const struct ipc_message *message,
                                 struct fault *fault);
/* A reply without a result. */
MUST_CHECK status reply_send(int fd, uint32_t id, status code, const char *detail,
                             struct fault *fault);
