/* store.h: one tenant's database: SQLite over the sealing VFS, in the silo's directory.
 *
 * Who may call: the cell (through the silo room), which alone holds the tenant's data key. One
 * thread. The files are specified in docs/file-formats.md, the reasons in
 * docs/adr/0002-sealing-vfs.md. What the store promises:
 *  - no plaintext byte, nor one derived from plaintext, reaches the disk;
 *  - what it returns is what was last committed: a changed, moved, foreign or older page, frame or
 *    file is an error (CORRUPT, ROLLED_BACK), never data. The one thing it cannot see alone is that
 *    the newest commits are missing as a whole: that is what the anchor is for;
 *  - a commit that returned OK survives a power cut. */
#pragma once

#include "base/limits.h"
#include "base/span.h"
#include "base/status.h"
#include "store/io.h"

#define STORE_DATABASE "silo.db"
#define STORE_WAL "silo.db-wal"
#define STORE_MAP "silo.db-map"
#define STORE_RESEAL "silo.db-reseal"
#define STORE_KEYS "silo.keys" /* the wrapped data keys: opaque here, see store_read_small */

struct store;

/* The newest state that somebody outside the silo has heard of. The store refuses to open an older
 * one. Grows monotonically; all zero before the first commit. */
struct store_anchor {
    uint64_t commits;
    uint64_t map_generation;
    uint8_t map_hash[32];
};

struct store_key {
    uint32_t version;
    uint8_t dek[32]; /* subkeys are derived from it, one per purpose; it is not kept itself */
};

enum { STORE_KEY_VERSIONS_MAX = DEK_VERSIONS_MAX };

struct store_options {
    int silo_fd;                       /* the directory, O_PATH or O_RDONLY; borrowed while open */
    const uint8_t *silo_id;            /* TENANT_ID_BYTES */
    const struct store_key *keys;      /* newest first; new bytes are sealed under keys[0] */
    uint32_t key_count;
    const struct store_anchor *anchor; /* NULL: nothing is known, any authentic state is accepted */
    uint32_t cache_kib;                /* of SQLite's page cache; 0: STORE_CACHE_KIB_DEFAULT */
    uint32_t checkpoint_frames;        /* a longer WAL is moved; 0: STORE_CHECKPOINT_FRAMES */
    const struct store_io *io;         /* NULL: the system's */
};

/* Once per process, after crypt_start and before the jail closes and before any other use of
 * SQLite in the process: its global settings are made here. Calling it again does nothing. */
MUST_CHECK status store_start(struct fault *fault);

/* True when the silo has been used: a directory without these files is an empty silo. */
bool store_exists(int silo_fd);

/* Opens the silo, or makes it on first use. A crash is recovered here, before this returns.
 * ROLLED_BACK: authentic but older than the anchor, or files are missing. CORRUPT: not authentic.
 * UNAVAILABLE: another process has it open. OUT_OF_SPACE. INTERNAL: the disk fails. */
MUST_CHECK status store_open(struct store **ret, const struct store_options *options,
                             struct fault *fault);

/* Parks the silo: rolls back what is open, moves the WAL into the database, empties it. ret_anchor
 * (may be NULL) is valid whatever is returned: the last durable state. Always frees the store. */
MUST_CHECK status store_close(struct store *store, struct store_anchor *ret_anchor,
                              struct fault *fault);

/* Drops the store as it is, as a crash would: no rollback of files, no checkpoint. Takes NULL. */
struct store *store_abandon(struct store *store);

/* One turn of the loop is one transaction. Writing outside of one is INTERNAL. When SQLite gives up
 * the whole transaction in the middle (disk full, I/O error), every later statement and the commit
 * of that turn fail with the same status until store_rollback: nothing of the turn is kept.
 * store_commit: durable when it returns OK; otherwise rolled back, and the store goes on working.
 * A turn that wrote nothing costs no I/O. May checkpoint after the commit. */
MUST_CHECK status store_begin(struct store *store, struct fault *fault);
MUST_CHECK status store_commit(struct store *store, struct fault *fault);
void store_rollback(struct store *store);
bool store_in_transaction(const struct store *store);
bool store_has_written(const struct store *store); /* in the transaction that is open */

/* One request inside a turn: undo takes back what it wrote since its savepoint. They nest. A write
 * that returned CORRUPT may have happened in part, and must be undone: with it the turn does not
 * commit (CORRUPT). */
MUST_CHECK status store_savepoint(struct store *store, struct fault *fault);
MUST_CHECK status store_release(struct store *store, struct fault *fault);
MUST_CHECK status store_undo(struct store *store, struct fault *fault);

/* As of the last durable commit. */
struct store_anchor store_anchor(const struct store *store);

/* The schema of one kind of thing. versions[0] makes version 1, versions[1] takes it to 2, ... each
 * a script of SQL statements. Never change or remove an entry that was released. */
struct store_schema {
    const char *room; /* "memory": the name of the row that keeps the version */
    const char *const *versions;
    uint32_t count;
};

/* Brings the tables of one kind up to date; call before each first use of the kind, cheap when
 * there is nothing to do. Joins the open transaction, or makes one of its own. CONFLICT when the
 * silo was written by a newer version of the program. */
MUST_CHECK status store_migrate(struct store *store, const struct store_schema *schema,
                                struct fault *fault);

/* The rooms that were ever used here, and the versions of their tables. Not to be changed from
 * within. */
typedef status store_each_room(void *context, struct span room, int64_t version,
                               struct fault *fault);
MUST_CHECK status store_rooms(struct store *store, store_each_room *each, void *context,
                              struct fault *fault);

/* True when that kind was ever used here: lets a read answer "nothing" without making tables. */
MUST_CHECK status store_has(bool *ret, struct store *store, const struct store_schema *schema,
                            struct fault *fault);

/* Pages and frames that did not open, since store_open. */
struct store_damage {
    uint64_t count;
    uint32_t last_page;    /* of the database file; 0 when it was not a page */
    const char *last_file; /* a fixed name, NULL when count is 0 */
};
struct store_damage store_damage(const struct store *store);

uint64_t store_bytes(const struct store *store); /* of all its files */
/* Of the pages that hold something, as the open transaction has them: neither the space that
 * deletions left in the file, which is used again, nor the WAL, which comes and goes. */
uint64_t store_bytes_used(struct store *store);

/* Gives back memory that an idle cell need not hold: page cache, prepared statements. */
void store_trim(struct store *store);

/* A new version of the data key. From here on everything is sealed under the newest; what is sealed
 * under older ones is read as before, until store_reseal has moved all of it, a step at a time: at
 * most `budget` pages, not inside a transaction, after which the state may be anchored anew.
 * *ret_more false: nothing in the store's files is sealed under an older version any more.
 * store_drop_keys then forgets those; before, it is INTERNAL. INTERNAL also for a version that is
 * not newer than all others, or one too many. */
MUST_CHECK status store_add_key(struct store *store, const struct store_key *key,
                                struct fault *fault);
MUST_CHECK status store_reseal(bool *ret_more, struct store *store, uint32_t budget,
                               struct fault *fault);
MUST_CHECK status store_drop_keys(struct store *store, struct fault *fault);

/* Moves the WAL into the database and empties it, as store_close does. Not inside a transaction. */
MUST_CHECK status store_checkpoint(struct store *store, struct fault *fault);
