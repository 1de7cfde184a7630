/* silo.h: an open silo and the way a verified request meets it. The cell is the only caller.
 *
 * The room knows nothing of sockets, tokens or processes: it is given an envelope that the cell
 * made from a verified credential and answers with a status and JSON. Each kind of thing a tenant
 * owns is one file with its schema, its handlers and its rows of the action table. */
#pragma once

#include "authz/charter.h"
#include "authz/envelope.h"
#include "base/arena.h"
#include "crypt/merkle.h"
#include "store/blob.h"
#include "store/store.h"
#include "wire/json.h"
#include "wire/messages.h"
#include "wire/usage.h"

struct silo; /* store, audit log, posture */

/* One request inside a turn. Everything is borrowed for the call. */
struct silo_request {
    const struct envelope *envelope;
    const struct action *action;
    struct span ids[4];         /* from the path pattern, decoded */
    struct span query;          /* raw query string; the row names what is allowed in it */
    struct span content_type, body, idempotency_key;
    const struct span *headers; /* RELAY_HEADERS of them, by kind; empty: not sent. NULL: none */
    bool head_only;             /* HEAD: what the answer would be, without its body */
    uint64_t line;              /* of NDJSON, from 1: body is that line. 0: body is the whole */
    struct silo_upload *upload; /* the body of an action that takes streamed bytes, complete; taken
                                   when the handler succeeds, else still the caller's to drop */
    struct span token_once;     /* names a token that serves one request; empty: any other token */
    int64_t token_until;        /* seconds: it is of no use from then on */
    struct arena *arena;        /* of this request */
    int64_t now_us;             /* wall; the same for the whole turn */
};

enum { SILO_HEADER_MAX = 256 };

struct silo_header {
    uint8_t kind; /* enum relay_header */
    char value[SILO_HEADER_MAX];
};

struct silo_response {
    int http_status;     /* 200, 201, 204 ... when the handler returned OK */
    struct buffer *body; /* JSON unless a Content-Type is among the headers; given empty */
    struct silo_header headers[6]; /* ascending kinds */
    uint32_t header_count;
    struct silo_download *download; /* then body stays empty; the caller's to close */
    uint64_t length;                /* of the download; RELAY_LENGTH_UNKNOWN. With head_only: of
                                       what there would be */
    bool token_used;                /* the token that serves once has: also when the handler failed
                                     */
};

/* ---- bodies that nobody holds whole ----
 *
 * An upload is given its bytes outside of turns, then is the `upload` of a request; what it wrote
 * counts for nothing until that request's turn is committed. A download is opened by a handler and
 * read outside of turns: what it reads is the state of that moment, whatever is changed later. */

/* request: without body. Refuses early what the handler would refuse (scope of the path, clearance,
 * headers, quota with body_length, -1: not known). */
MUST_CHECK status silo_upload_begin(struct silo_upload **ret, struct silo *silo,
                                    const struct silo_request *request, int64_t body_length,
                                    struct fault *fault);
/* TOO_LARGE, QUOTA_EXCEEDED, OUT_OF_SPACE, INTERNAL: then only drop is allowed. */
MUST_CHECK status silo_upload_put(struct silo_upload *upload, struct span bytes,
                                  struct fault *fault);
/* All bytes have come: makes them durable. */
MUST_CHECK status silo_upload_end(struct silo_upload *upload, struct fault *fault);
struct silo_upload *silo_upload_drop(struct silo_upload *upload); /* returns NULL; takes NULL */

/* Appends up to max bytes; *ret_end with the last. CORRUPT: what follows cannot be read. */
MUST_CHECK status silo_download_read(struct buffer *out, bool *ret_end,
                                     struct silo_download *download, size_t max,
                                     struct fault *fault);
struct silo_download *silo_download_close(struct silo_download *download); /* takes NULL */

/* ---- for backups: the files of objects ----
 *
 * A file never changes once its row is committed. While held, none that a row named is removed. */
void objects_hold(struct silo *silo);
void objects_release(struct silo *silo);
/* The first whose n is greater than *n, which is moved on; 0 at first. NOT_FOUND: no more. Holds a
 * key: to be wiped. */
MUST_CHECK status objects_next(struct blob *ret, int64_t *n, struct silo *silo,
                               struct fault *fault);

/* What opening needs from the kms besides the key. */
struct silo_opening {
    int silo_fd;        /* stays open as long as the silo */
    uint8_t tenant_id[TENANT_ID_BYTES];
    const struct store_key *keys; /* newest first, for the call; an empty silo keeps a copy of the
                                     newest, in secret memory, until it is used */
    uint32_t key_count;
    struct anchor anchor;
    struct posture posture; /* zero: silo_set_posture follows before the first turn */
    const struct store_io *io; /* NULL: the system's */
    const uint8_t *platform_key; /* 32 bytes, that sign checkpoints; copied. NULL: none is shown */
};

/* ROLLED_BACK, CORRUPT, OUT_OF_SPACE, INTERNAL. A silo that was never written makes no file here.
 */
MUST_CHECK status silo_open(struct silo **ret, const struct silo_opening *opening,
                            struct fault *fault);
struct silo *silo_close(struct silo *silo); /* checkpoints; returns NULL; takes NULL */
/* Writes nothing any more, as in a crash: for a process that may no longer be the owner. */
struct silo *silo_abandon(struct silo *silo); /* returns NULL; takes NULL */

/* From now on, for what is stored as well: a shorter retention deletes at the next silo_expire.
 * sequence: of the charter that says so. Between turns. */
void silo_set_posture(struct silo *silo, const struct posture *posture, uint64_t sequence);

/* Copies of the charters in force, so that nobody can withhold them. */
enum silo_charter { SILO_CHARTER_TENANT, SILO_CHARTER_PLATFORM, SILO_CHARTERS };

/* Of the copy: sequence 0 when there is none. */
MUST_CHECK status silo_charter_head(struct charter_head *ret, struct silo *silo,
                                    enum silo_charter scope, struct fault *fault);
/* Appends the signed charter. NOT_FOUND. */
MUST_CHECK status silo_charter(struct buffer *out, struct silo *silo, enum silo_charter scope,
                               struct fault *fault);
/* Copied; stored with the next commit, instead of the one before. */
void silo_keep_charter(struct silo *silo, enum silo_charter scope,
                       const struct signed_charter *charter);

/* A turn: begin, any number of silo_handle, commit. silo_begin does nothing until something is
 * written. silo_handle runs the action in a savepoint, appends its audit entry (also for a
 * refusal), and writes the answer. Returns the handler's status; the caller turns a failure into a
 * problem document. */
void silo_begin(struct silo *silo, int64_t now_us);
MUST_CHECK status silo_handle(struct silo_response *response, struct silo *silo,
                              const struct silo_request *request, struct fault *fault);
/* An entry for a request that was refused before it reached a handler (scope, clearance, field). */
MUST_CHECK status silo_refuse(struct silo *silo, const struct silo_request *request, status why,
                              struct fault *fault);

/* One entry for `count` requests that were turned away for the same reason, so that a flood of them
 * is not a flood of entries. subject: the user of one of them. */
MUST_CHECK status silo_note_denials(struct silo *silo, const char *action, status why,
                                    const char *subject, uint64_t count, struct fault *fault);

/* True when the turn wrote (or, under strict audit, read) something: its answers must wait for
 * silo_commit. Otherwise the entries of reads are kept in memory, at most AUDIT_PENDING_MAX, and go
 * with the next commit, due within AUDIT_DELAY_MAX_MS of silo_pending_since. */
bool silo_must_commit(const struct silo *silo);
int64_t silo_pending_since_us(const struct silo *silo); /* monotonic; 0: nothing pending */

/* Durable when OK. Otherwise everything of the turn is rolled back (entries of reads stay pending):
 * OUT_OF_SPACE, CORRUPT, INTERNAL. */
MUST_CHECK status silo_commit(struct silo *silo, struct fault *fault);

/* The durable state, and the proof from the anchored log size to the present one. */
MUST_CHECK status silo_anchor(struct anchor *ret, struct hash_value *proof,
                              uint32_t *ret_proof_count, struct silo *silo,
                              uint64_t anchored_log_size, struct fault *fault);
/* Folds what was committed into the database, so that the state silo_anchor then describes is the
 * one that silo_close leaves behind: for parking, after the last silo_commit. Once more changes
 * nothing. */
MUST_CHECK status silo_checkpoint(struct silo *silo, struct fault *fault);
/* Keeps the signed note the kms answered with (in memory; stored with the next commit). */
void silo_keep_checkpoint(struct silo *silo, struct span note);

/* Deletes what is past its TTL or the retention, in bounded batches inside the present turn
 * (silo_begin before, silo_commit after); ret_more when another call is due at once. Also rewrites
 * full-text indexes after deletions, so that they forget the deleted words: at most once a minute,
 * unless parking: a cell that parks calls it until there is no more. */
MUST_CHECK status silo_expire(bool *ret_more, struct silo *silo, int64_t now_us, bool parking,
                              struct fault *fault);
int64_t silo_next_expiry_us(struct silo *silo); /* wall: when silo_expire is due; 0: never */

/* A new version of the data key: everything is sealed under it from here on, and what is stored
 * moves to it with silo_reseal, between turns, at most so many pages at a time. *ret_more false:
 * nothing is sealed under an older version, and what was derived from one is stored: then
 * silo_drop_keys forgets them. The next silo_commit stores it, though nothing else may be due. */
MUST_CHECK status silo_add_key(struct silo *silo, const struct store_key *key,
                               struct fault *fault);
MUST_CHECK status silo_reseal(bool *ret_more, struct silo *silo, uint32_t pages,
                              struct fault *fault);
bool silo_keys_wait(const struct silo *silo); /* for that commit */
MUST_CHECK status silo_drop_keys(struct silo *silo, struct fault *fault);

void silo_trim(struct silo *silo); /* gives back memory that an idle cell need not hold */
uint64_t silo_bytes(struct silo *silo); /* stored, what the open turn added and deleted included */
uint32_t silo_damage(struct silo *silo, char *where, size_t size); /* damaged pages met so far */

/* What the tenant uses (usage.c). Counting is a few additions; the day is that of the last turn.
 * silo_count: one request was answered; action NULL: there is none such. silo_count_bytes: pieces
 * of bodies that nobody holds whole. */
void silo_count(struct silo *silo, const struct action *action, bool refused, uint64_t bytes_in,
                uint64_t bytes_out);
void silo_count_bytes(struct silo *silo, uint64_t bytes_in, uint64_t bytes_out);
/* Appends the records of what was counted since the last call, at most two; how many. */
uint32_t silo_usage_report(struct buffer *out, struct silo *silo);
/* For parking: what was counted goes with the next commit. True when one is needed for it. */
bool silo_usage_settle(struct silo *silo);
void silo_set_prices(struct silo *silo, const struct prices *prices); /* for display only */

/* The audit export (store/export.h), piece by piece: appends lines to out until about 256 KiB;
 * ret_done at the end. from_index is the caller's cursor, 0 at first. It ends with the newest
 * checkpoint that was kept, so the caller moves the anchor just before the first piece. UNAVAILABLE
 * when there is no checkpoint, CORRUPT when it is not the platform's or not of this log. */
MUST_CHECK status silo_export_audit(struct buffer *out, uint64_t *from_index, bool *ret_done,
                                    struct silo *silo, const uint8_t platform_key[32],
                                    struct fault *fault);
/* That newest checkpoint alone; the same codes. */
MUST_CHECK status silo_put_checkpoint(struct buffer *out, struct silo *silo,
                                      const uint8_t platform_key[32], struct fault *fault);
