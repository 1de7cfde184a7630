/* limits.h: every bound of the system in one list. What a user can make grow has a line here. */
#pragma once

#include <assert.h>
#include <stdint.h>

#define OBJECT_BYTES_MAX (UINT64_C(64) << 30) /* one object */

#define SANDBOX_RATE_MAX (UINT64_C(1) << 40)  /* bytes or operations in one bucket of a sandbox */

#define KIB(n) ((uint32_t)(n) * 1024u)
#define MIB(n) ((uint32_t)(n) * 1024u * 1024u)

enum {
    /* names and ids */
    TENANT_NAME_MAX = 63,    /* a DNS label: [a-z0-9]([a-z0-9-]*[a-z0-9])? */
    TENANT_ID_BYTES = 16,    /* random; 32 hexadecimal digits as text */
    TENANT_ID_TEXT = 33,
    USER_MAX = 255,          /* bytes of a token's sub, act.sub */
    SESSION_MAX = 255,
    HOST_NAME_TEXT = 254,    /* a DNS name of at most 253 bytes (RFC 1035), and NUL */
    ITEM_ID_TEXT = 27,       /* 26 characters, Crockford base32, ordered by creation */
    TRACE_ID_BYTES = 16,

    /* tokens (notes: jwt-verifier 2) */
    TOKEN_MAX = KIB(16),
    TOKEN_HEADER_MAX = KIB(2),
    TOKEN_SCOPES_MAX = 1024, /* bytes of the scope claim */
    TOKEN_SKEW_SECONDS = 60,
    TOKEN_LIFETIME_MAX_SECONDS = 24 * 3600,
    TOKEN_CACHE_ENTRIES = 4096,
    KEY_ID_MAX = 64,

    /* keys */
    DEK_VERSIONS_MAX = 4,    /* of a silo's data key, in use at once */

    /* charters: posture, issuers, revocations (docs/protocols.md) */
    CHARTER_MAX = KIB(28),   /* the document; two of them fit one message */
    CHARTER_ISSUERS_MAX = 16,
    CHARTER_REVOCATIONS_MAX = 512, /* of each sort: what no living token can need is dropped */
    JWKS_MAX = KIB(64),        /* a file of keys, as an operator hands it in */

    /* HTTP */
    HTTP_LINE_MAX = KIB(8),      /* request line */
    HTTP_HEADERS_MAX = KIB(32),  /* all header lines together; a 16 KiB token fits */
    HTTP_HEADER_COUNT_MAX = 64,
    HTTP_BODY_MAX = MIB(1),
    HTTP_CONNECTIONS_MAX = 12000, /* per gateway */
    HTTP_HEADER_TIMEOUT_MS = 10000,
    HTTP_BODY_TIMEOUT_MS = 30000,
    HTTP_IDLE_TIMEOUT_MS = 75000,

    /* JSON */
    JSON_DEPTH_MAX = 32,
    JSON_MEMBERS_MAX = 4096, /* values in one document */

    /* frames between processes */
    IPC_BODY_MAX = KIB(60),
    IPC_FDS_MAX = 4,
    IPC_WAITING_FDS_MAX = 1024, /* that wait for one slow peer: it must not cost all of ours */
    RELAY_FRAGMENT_MAX = KIB(56), /* body bytes in one frame between gateway and cell */
    RELAY_STREAMS_MAX = 1024,     /* requests in flight from one gateway to one cell */
    RELAY_HEADER_MAX = KIB(1),    /* the value of one header that passes between them */
    RELAY_WINDOW = KIB(512),      /* of a streamed body, under way beyond the credit given */

    /* a gateway */
    GATEWAY_LOOKUPS_MAX = 8192,      /* tenants it remembers, each for a second */
    GATEWAY_STANDINGS_MAX = 16384,   /* tenants whose use it remembers */
    GATEWAY_USER_TABLES_MAX = 64,    /* tenants whose users it counts one by one */
    GATEWAY_VOUCHED_MAX = MIB(64),   /* of the charters of the tenants it remembers, about */
    GATEWAY_UNPROVEN_SLOTS = 1024,   /* groups of addresses, for questions of unproven tokens */
    GATEWAY_UNPROVEN_MAX = 2000,     /* such tokens a second, about which control is asked */
    GATEWAY_UNPROVEN_EACH_MAX = 100, /* the same, of one group of addresses */
    GATEWAY_ROUTES_MAX = 100,        /* questions for routes a second: each is in the ledger */
    GATEWAY_CALLS_MAX = 4096,        /* questions to control that wait for their answer */
    GATEWAY_INPUT_MAX = KIB(48),     /* read from one connection and not yet taken */
    GATEWAY_PIPELINED_MAX = KIB(8),  /* the same while a request is in flight */
    GATEWAY_MEMORY_MAX = MIB(256),   /* of all buffers together; then it sheds load */
    GATEWAY_RELAY_HELD_MAX = MIB(32), /* answers of one cell that its clients have not taken yet */
    GATEWAY_OPS_CONNECTIONS_MAX = 64,
    GATEWAY_CONTENT_TYPE_MAX = 255,
    GATEWAY_ALLOW_MAX = 255,
    GATEWAY_IDEMPOTENCY_KEY_MAX = 255,
    TRUSTED_PROXIES_MAX = 64, /* address ranges whose X-Forwarded-* is believed */
    GATEWAY_SKIP_MAX = KIB(64),      /* of a refused body, read for the next request's sake */

    /* a cell */
    CELL_TURN_REQUESTS_MAX = 256,   /* of each sort (reads, mutations) that share one commit */
    CELL_TURN_BYTES_MAX = MIB(16),  /* of answers held back until their commit */
    CELL_RESPONSE_MAX = MIB(8),     /* one answer */
    CELL_BODIES_MAX = MIB(32),      /* of requests that are still arriving, all gateways together */
    CELL_WRAPPED_MAX = KIB(4),      /* silo.keys */
    CELL_EXPORTS_MAX = 4,           /* running at once */
    CELL_UPLOADS_MAX = 32,          /* streamed bodies that are arriving at once */
    CELL_DOWNLOADS_MAX = 64,        /* streamed answers that are leaving at once */

    /* memory */
    MEMORY_TEXT_MAX = KIB(64),
    MEMORY_METADATA_MAX = KIB(16),
    MEMORY_VERSIONS_MAX = 100, /* kept in history; older ones go */
    SEARCH_QUERY_MAX = KIB(1),
    SEARCH_TERMS_MAX = 32,
    LIST_LIMIT_DEFAULT = 50,
    LIST_LIMIT_MAX = 500,
    RETENTION_DAYS_MAX = 36500,
    TTL_SECONDS_MAX = 10 * 365 * 24 * 3600,

    /* knowledge */
    DOCUMENT_TEXT_MAX = MIB(4),     /* of one document */
    DOCUMENT_BODY_MAX = MIB(6),     /* its JSON: a body, or a line of a batch */
    DOCUMENT_TITLE_MAX = KIB(1),
    DOCUMENT_METADATA_MAX = KIB(16),
    DOCUMENT_CHUNKS_MAX = 8192,     /* about, of one document: they are made in one turn */
    CHUNK_BYTES_DEFAULT = 1200,     /* a chunk ends at the border nearest below this */
    CHUNK_OVERLAP_DEFAULT = 150,
    FILTER_NODES_MAX = 64,
    FILTER_DEPTH_MAX = 8,

    /* objects */
    OBJECT_KEY_MAX = 1024,
    OBJECT_CHUNK_BYTES = KIB(64),   /* sealed apart */

    /* audit */
    AUDIT_ENTRY_MAX = KIB(8),
    AUDIT_SALT_BYTES = 16,
    AUDIT_PENDING_MAX = 4096,       /* entries of reads not yet durable; then reads wait too */
    AUDIT_DELAY_MAX_MS = 100,
    IDEMPOTENCY_KEYS_MAX = 1000000, /* of 24 hours, a line of NDJSON counts as one: then 429 */
    IDEMPOTENCY_REFERENCE_MAX = 64, /* what the answer to a mutation is made of again */
    IDEMPOTENCY_ANSWERS_MAX = 1024, /* of reads; then the oldest go */
    IDEMPOTENCY_ANSWER_MAX = KIB(256), /* a larger one is not kept */
    USED_TOKENS_MAX = 100000,       /* alive, of issuers whose tokens serve once: then 503 */
    CONSISTENCY_PROOF_MAX = 128,    /* hashes */

    /* usage and cost */
    USAGE_ACTIONS_MAX = 96,         /* told apart in the counts of a day */
    USAGE_NAME_TEXT = 40,
    USAGE_RECORD_MAX = KIB(8),      /* bytes of one day */
    USAGE_DAYS_KEPT = 400,
    USAGE_REPORT_SECONDS = 60,      /* a cell that is awake reports so often */
    PRICE_FILE_MAX = KIB(4),
    PRICE_CURRENCY_TEXT = 9,

    /* store */
    STORE_CACHE_KIB_DEFAULT = 2048,   /* SQLite's page cache in a cell */
    STORE_CHECKPOINT_FRAMES = 1000,  /* of the WAL; then a commit moves it into the database */
    STORE_HELD_FRAMES_MAX = 1 << 16, /* of the WAL while a backup runs; then the backup gives way */
    STORE_STATEMENTS_MAX = 96,       /* prepared statements kept */
    STORE_SMALL_FILE_MAX = KIB(64),
    STORE_PAGES_MAX = 1 << 26,       /* 256 GiB */

    /* backups */
    BACKUP_HEAD_MAX = KIB(4),
    BACKUP_RECORD_MAX = MIB(1) + KIB(4),
    BACKUP_SEQUENCE_MAX = 999999,

    /* sandboxes */
    SANDBOXES_MAX = 512,            /* alive on a node */
    SANDBOX_VCPUS_MAX = 32,
    SANDBOX_MEMORY_MIB_MIN = 64,
    SANDBOX_MEMORY_MIB_MAX = 256 * 1024,
    SANDBOX_MEMORY_MIB_DEFAULT = 128,
    SANDBOX_DISK_MIB_DEFAULT = 256,
    SANDBOX_DISK_MIB_MAX = 1024 * 1024,
    SANDBOX_PROCESSES_DEFAULT = 256,
    SANDBOX_PROCESSES_MAX = 32768,
    SANDBOX_LIFETIME_SECONDS_DEFAULT = 30,
    SANDBOX_LIFETIME_SECONDS_MAX = 24 * 3600,
    SANDBOX_BOOT_SECONDS_DEFAULT = 30, /* until the guest's agent dials */
    SANDBOX_REFILL_MS_MAX = 3600 * 1000,
    SANDBOX_STREAMS_MAX = 64,       /* of a guest's vsock, open at once */
    SANDBOX_BROKEN_RULES_MAX = 64,  /* of virtio, by its drivers; an honest one breaks none */
    SANDBOX_CONSOLE_BYTES = KIB(64), /* the newest of a guest's serial console */
    TENANT_SANDBOXES_DEFAULT = 16,  /* of a tenant, alive at once, where its quota is not set */
    TENANT_SANDBOX_MEMORY_MIB_DEFAULT = 4096, /* of them together */
    SANDBOX_LOG_BYTES_MAX = KIB(64), /* that its monitor says in all its life */
    SANDBOX_GRACE_SECONDS = 15,     /* after a command's timeout its sandbox is killed */
    IMAGE_NAME_TEXT = 33,           /* [a-z0-9-], at most 32 */

    /* the guest's agent: a frame is u32 length, then type, id and payload */
    AGENT_FRAME_MAX = KIB(32) + 64, /* all that length counts */
    AGENT_DATA_MAX = KIB(32),       /* bytes of one piece of a stream */
    AGENT_WINDOW = KIB(256),        /* of a stream, under way beyond the credit given */
    AGENT_CREDIT_MAX = MIB(64),     /* of one stream, given and not used: more is a breach */
    AGENT_REQUESTS_MAX = 64,        /* under way at once */
    AGENT_ARGUMENTS_MAX = 256,      /* argv, and env */
    AGENT_PATH_MAX = 4096,
    AGENT_LIST_MAX = 1024,          /* entries that one answer lists: what a frame holds at most */
    AGENT_WATCHES_MAX = 4096,       /* directories below one watched path */
    AGENT_DEPTH_MAX = 64,           /* of a tree that is watched or removed */
    AGENT_WATCH_QUEUE_MAX = MIB(1), /* frames the host has not taken; then changes are lost */

    /* processes */
    GATEWAYS_MAX = 64,
    BLANK_CELLS = 4,
    BLANK_MONITORS = 1,
    IDLE_SECONDS_DEFAULT = 15,
    CELLS_AWAKE_MAX = 4096,
    TENANTS_MAX = 1000000,
    PROVE_TARGET_MAX = KIB(4), /* what the battery is told of the node */
    RESTART_DELAY_MIN_MS = 50,
    RESTART_DELAY_MAX_MS = 10000,
};

static_assert(USAGE_ACTIONS_MAX * (USAGE_NAME_TEXT + 20) + 128 <= USAGE_RECORD_MAX, "a day fits");
static_assert(RELAY_FRAGMENT_MAX + KIB(4) <= IPC_BODY_MAX, "a fragment and its head are one frame");
static_assert(TOKEN_MAX + HTTP_LINE_MAX + KIB(8) <= IPC_BODY_MAX, "a request's head is one frame");
static_assert(2 * CHARTER_MAX + KIB(2) <= IPC_BODY_MAX, "two charters are one message");
static_assert(TOKEN_MAX + KIB(4) <= HTTP_HEADERS_MAX, "the largest token fits a request");
static_assert(MEMORY_TEXT_MAX + MEMORY_METADATA_MAX < HTTP_BODY_MAX, "the largest memory fits");
