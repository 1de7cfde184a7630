/* session.h: inner header of the room: what an open store is made of. */
#pragma once

#include "store/files.h"
#include "store/statement.h"
#include "store/store.h"

#include <sqlite3.h>

struct statement {
    struct store *store;
    sqlite3_stmt *handle;
    const char *sql; /* by address: the key */
    int bind_error;  /* SQLite's, of the first bind that failed */
    bool taken;
    struct statement *next; /* in the store's list, last used first */
};

enum { MIGRATED_MAX = 32 };

struct store {
    struct files *files;
    sqlite3 *db;
    sqlite3_vfs vfs;
    char vfs_name[32];
    struct statement *statements;
    uint32_t statement_count;
    bool in_transaction;
    status lost;       /* OK, or why SQLite gave up the whole transaction */
    uint32_t savepoints; /* open ones */
    bool half_done;      /* a write met damage and may have happened in part: to be undone */
    uint32_t half_done_in; /* that many savepoints were open around it */
    uint64_t commits;  /* durable */
    int64_t until_us;  /* monotonic: of store_limit_time; 0: no limit */
    struct words *words; /* of words.c; NULL until first used */
    uint32_t checkpoint_frames, next_checkpoint;
    bool held; /* the database file stays as it is, see copy.h */
    uint64_t holds; /* so many there were */
    const struct store_schema *migrated[MIGRATED_MAX]; /* known to be up to date */
    uint32_t migrated_count;
};

/* The store's code for one of SQLite's; notices when the transaction is gone. what: for people, no
 * content of the tenant. */
status store_failure(struct store *store, int code, const char *what, struct fault *fault);

/* Runs a script; the caller has seen to the transaction. */
MUST_CHECK status store_script(struct store *store, const char *sql, struct fault *fault);

/* A writing statement ended with this status. */
void store_note_write(struct store *store, status ended);

/* All prepared statements that nobody holds. */
void statements_drop(struct store *store);

/* Before the connection is closed. */
void words_drop(struct store *store);
