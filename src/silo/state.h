/* state.h: what the files of this room share: an open silo, and one request on its way through it.
 * Nobody outside the room includes it. */
#pragma once

#include "crypt/aead.h"
#include "crypt/note.h"
#include "silo/actions.h"
#include "silo/silo.h"
#include "store/blob.h"
#include "store/log.h"
#include "store/statement.h"
#include "wire/usage.h"

#define BACKUP_KEY_PURPOSE "bulkhead backup v1"

/* In secret memory; see keys.h. */
struct silo_keys {
    uint8_t audit[KEY_BYTES];       /* of the hashes in audit entries */
    uint8_t idempotency[KEY_BYTES]; /* of the names of Idempotency-Keys */
    uint8_t cursors[KEY_BYTES];     /* of positions in lists */
    uint8_t backup[KEY_BYTES];      /* of the MACs of backups: of the newest version */
    uint32_t backup_version;
    struct store_key deks[DEK_VERSIONS_MAX]; /* newest first, until the store is open */
    uint32_t dek_count;
    bool outlive, stored; /* these outlive the version they came from; they are in the store */
};

/* Entries that are not in the log yet. bytes: u8 effect, field text, one after another. */
struct audit_pending {
    struct buffer bytes;
    uint32_t count;
    int64_t since_us; /* monotonic, of the oldest; 0: none */
};

enum { FULLTEXT_COLUMNS_MAX = 3 };

/* How far the full-text index of one classification is. */
struct fulltext_index {
    bool exists;      /* has its tables */
    bool stale;       /* holds words of items that were deleted */
    int64_t generation; /* of its tables: a damaged one is replaced by the next */
    int64_t built_to; /* items up to this one are in it; INT64_MAX: all, it is not being rebuilt */
};

/* Items of this turn that the indexes are given together, before the commit or when one of them is
 * asked: one after another u8 classification, i64 n. Up to `settled` they have it. */
struct fulltext_additions {
    struct buffer numbers;
    size_t settled;
    uint32_t waiting; /* items behind that */
};

/* Where the additions were when a request began. */
struct fulltext_mark {
    size_t length, settled;
    uint32_t waiting;
};

/* Where words occur, as far as it is known (postings.h). */
struct postings {
    struct posting_list *lists; /* the last used first */
    uint32_t list_count, rows;  /* of all lists */
    uint32_t rows_max;          /* 0: POSTINGS_ROWS_MAX */
};

/* The indexes of one kind of item (fulltext.h). */
struct fulltext {
    const struct fulltext_kind *kind;
    bool known; /* read from the store */
    struct fulltext_index indexes[CLEARANCE_COUNT];
    struct fulltext_sql *sql; /* of fulltext.c */
    struct postings postings;
    struct fulltext_additions additions;
};

struct memory_state {
    bool known; /* read from the store; forgotten whenever something is taken back */
    bool exists, has_versions; /* their tables */
    bool has_keys;             /* a table of an earlier version was made, and may be there yet */
    struct fulltext fulltext;
    uint8_t last_id[16];      /* the newest this process gave out */
    int64_t rewritten_us;     /* wall: when the indexes were last rewritten, or the silo opened */
    int64_t damaged_until_us; /* wall: rows that could not be deleted are left alone so long */
    bool due_known;
    int64_t due_us;           /* when silo_expire has work; 0 never */
};

/* What documents there are of one classification, by number and together. */
struct knowledge_totals {
    int64_t next;    /* the next chunk's place */
    int64_t chunks;  /* that are there */
    int64_t lengths; /* of them, together, in LENGTH_UNIT bytes (knowledge.h) */
};

struct knowledge_state {
    bool known, exists; /* as of memory_state */
    bool totals_known;
    struct knowledge_totals totals[CLEARANCE_COUNT];
    struct fulltext fulltext;
    int64_t rewritten_us; /* wall: when the indexes were last rewritten, or the silo opened */
};

/* Tokens that serve once and did; what is known of their table. */
struct used_tokens {
    bool known, exists;
    int64_t count, first_until; /* seconds; of the one that expires first */
};

/* What Idempotency-Keys made; what is known of their table. */
struct idempotency_state {
    bool known, exists;
    int64_t first, next;   /* numbers of rows: the oldest, the next */
    int64_t first_made_us; /* of the oldest */
    int64_t answers;       /* stored, at most */
};

/* What was counted of one day, by the number of the action (0: none was found). */
struct usage_counts {
    uint32_t day;
    bool used;
    uint64_t bytes_in, bytes_out;
    uint64_t requests[USAGE_ACTIONS_MAX], refused[USAGE_ACTIONS_MAX];
};

struct usage_event {
    uint32_t number;
    uint64_t answered, refused, bytes_in, bytes_out;
};

struct silo_usage {
    struct usage_counts unsaved[2], unreported[2]; /* of today, of the last day before it */
    uint64_t cpu_us, awake_us; /* this process, when the counts were last stored */
    int64_t written_us;        /* wall */
    bool settle, writing;      /* to be stored now; are in the open transaction */
    struct prices prices;
};

/* Files that no row names: known of since a crash, being removed, or there are none. */
enum object_sweep { SWEEP_UNKNOWN, SWEEP_DUE, SWEEP_RUNNING, SWEEP_DONE };

struct object_state {
    bool known, exists;      /* their tables; forgotten whenever something is taken back */
    uint64_t bytes;          /* of all files, as the open transaction has them */
    struct blobs *blobs;     /* NULL until used */
    struct buffer removed;   /* ids of blobs whose rows this turn deleted */
    struct buffer added;     /* of those whose rows it made */
    struct buffer unlinking; /* of files to be removed as soon as nobody holds them */
    uint32_t holds;
    struct object_upload *uploads; /* that nobody took or dropped */
    uint64_t uploading;      /* bytes of their files */
    uint64_t going;          /* bytes of files to be removed: they still take room */
    enum object_sweep sweep;
    bool left_behind;        /* a file could not be removed: the next wake tries */
};

enum { SIGNED_CHARTER_MAX = CHARTER_MAX + 128 };

struct silo {
    struct store *store; /* NULL until first used: an empty silo has no files */
    int silo_fd;         /* the caller's */
    const struct store_io *io;
    struct store_log *log;
    struct silo_keys *keys;
    struct aead *cursor_key;
    struct posture posture;
    uint64_t posture_sequence; /* of the charter that says it */
    uint8_t tenant_id[TENANT_ID_BYTES];
    char tenant_text[TENANT_ID_TEXT];
    uint64_t epoch;
    int64_t now_us;      /* wall, of the present turn */
    bool wrote;          /* the turn has an effect that must be durable before its answers */
    bool read_strictly;  /* a read under strict audit */
    struct audit_pending pending;
    bool has_platform_key;
    uint8_t platform_key[SIGN_PUBLIC_BYTES]; /* that signs checkpoints */
    bool note_is_new;    /* not stored yet */
    bool has_state, had_state; /* the table of the note; when the turn began */
    uint32_t note_length;
    uint8_t note[NOTE_MAX]; /* the newest signed checkpoint */
    struct buffer charters[SILO_CHARTERS]; /* signed; to be stored with the next commit */
    struct used_tokens used_tokens;
    struct idempotency_state idempotency;
    struct silo_usage usage;
    struct memory_state memory;
    struct knowledge_state knowledge;
    struct object_state objects;
};

/* Where the full-text indexes of every kind were when a request began. */
struct silo_marks {
    struct fulltext_mark memory, knowledge;
};

/* One request. The handler fills in what the audit entry shall say beyond the envelope. */
struct call {
    struct silo *silo;
    struct store *store;
    const struct silo_request *request;
    struct silo_response *response;
    struct span item;       /* the id of the item, as text; empty: none */
    int classification;     /* of the item; -1: none */
    int gone;               /* the lowest classification of what was replaced or deleted;
                               CLEARANCE_COUNT: nothing was. Not said: as if it were public */
    int64_t count;          /* items returned, made, changed or deleted; -1: does not apply */
    struct silo_marks marks; /* of a mutation */
    size_t objects_mark;     /* of a mutation */
    struct span prompt;     /* the text that was asked with, for its hash; empty: none */
    struct span reference;  /* of a POST that mutates: what silo_replay makes its answer of again,
                               at most IDEMPOTENCY_REFERENCE_MAX bytes, no content */
    bool writes;            /* its answer waits for the commit */
    bool replayed;          /* the answer to an earlier request of the same Idempotency-Key */
    bool hidden;            /* not_found because of the caller's clearance or user: a denial */
};

/* Each kind of upload begins with it. */
struct silo_upload {
    status (*put)(struct silo_upload *upload, struct span bytes, struct fault *fault);
    status (*end)(struct silo_upload *upload, struct fault *fault);
    void (*drop)(struct silo_upload *upload); /* frees */
};

/* Each kind of download begins with it. */
struct silo_download {
    status (*read)(struct buffer *out, bool *ret_end, struct silo_download *download, size_t max,
                   struct fault *fault);
    void (*close)(struct silo_download *download); /* frees */
};

typedef status silo_handler(struct call *call, struct fault *fault);

/* The answer to a POST that mutated, once more: it succeeded with http_status and left reference.
 * CONFLICT: what it made is gone, or not for this caller. Writes nothing. */
typedef status silo_replay(struct call *call, int http_status, struct span reference,
                           struct fault *fault);

/* silo.c: when something of the silo's content goes by itself; wall, 0: never. */
int64_t silo_content_due_us(struct silo *silo);

/* silo.c: begins the store's transaction for a turn that writes. */
MUST_CHECK status silo_write(struct silo *silo, struct fault *fault);

/* Lookups that every kind needs (request.c). */

/* The body as a JSON object: UNSUPPORTED_MEDIA, BAD_JSON, BAD_FIELD. */
MUST_CHECK status call_body(struct json *ret, const struct call *call, struct fault *fault);

/* limit: 1..LIST_LIMIT_MAX, LIST_LIMIT_DEFAULT when text is NULL. */
MUST_CHECK status read_limit(uint32_t *ret, const struct span *text, struct fault *fault);

/* Positions in a list, as text that only this silo can make or read: sealed, so that a position
 * says nothing and cannot be invented, and bound to the list (`scope`: action and filters). At most
 * POSITION_MAX bytes. */
enum { POSITION_MAX = 512 };
MUST_CHECK status position_put(struct json_writer *writer, const struct call *call,
                               struct span position, struct span scope, struct fault *fault);
/* Into the request's arena. BAD_FIELD naming `cursor`. */
MUST_CHECK status position_get(struct span *ret, const struct call *call, struct span text,
                               struct span scope, struct fault *fault);

extern const struct store_schema silo_state_schema;
