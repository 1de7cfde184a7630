#define _GNU_SOURCE
#include "store/store.h"

#include "store/session.h"
#include "store/vfs.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* One table for what the store itself must keep, so that a new silo is two pages. */
#define FIRST_SCHEMA                                                             \
    "CREATE TABLE store_state (name TEXT PRIMARY KEY, value INTEGER NOT NULL)"   \
    " WITHOUT ROWID;"                                                            \
    "INSERT INTO store_state VALUES ('commits', 0);"

static const char sql_commits[] = "SELECT value FROM store_state WHERE name = 'commits'";
static const char sql_count_commit[] =
    "UPDATE store_state SET value = value + 1 WHERE name = 'commits'";
static const char sql_version[] = "SELECT value FROM store_state WHERE name = 'room ' || ?1";
static const char sql_rooms[] = "SELECT substr(name, 6), value FROM store_state"
                               " WHERE name >= 'room ' AND name < 'room!' ORDER BY name";
static const char sql_set_version[] =
    "INSERT INTO store_state VALUES ('room ' || ?1, ?2)"
    " ON CONFLICT (name) DO UPDATE SET value = excluded.value";

status store_start(struct fault *fault)
{
    static sqlite3_vfs standard; /* the process's default: time and randomness, but no files */
    if (standard.zName != NULL)
        return OK;
    /* one thread per connection; no statistics; statement journals never in files; pages of the
     * cache one by one, so that an idle cell can give them back */
    if (sqlite3_config(SQLITE_CONFIG_MULTITHREAD) != SQLITE_OK ||
        sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0) != SQLITE_OK ||
        sqlite3_config(SQLITE_CONFIG_STMTJRNL_SPILL, -1) != SQLITE_OK ||
        sqlite3_config(SQLITE_CONFIG_PAGECACHE, NULL, 0, 0) != SQLITE_OK ||
        sqlite3_initialize() != SQLITE_OK)
        return FAIL(INTERNAL, fault, "SQLite was in use before store_start");
    standard = vfs_over(NULL, "bulkhead");
    if (sqlite3_vfs_register(&standard, 1) != SQLITE_OK)
        return FAIL(INTERNAL, fault, "SQLite does not take the VFS");
    return OK;
}

bool store_exists(int silo_fd)
{
    static const char *const names[] = {STORE_DATABASE, STORE_WAL, STORE_MAP};
    struct stat found;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (fstatat(silo_fd, names[i], &found, AT_SYMLINK_NOFOLLOW) == 0)
            return true;
    return false;
}

/* ---- opening ---- */

/* The pages of a new silo, made by SQLite in memory; the two version bytes say WAL. */
static status make_first(struct first_pages *ret, struct fault *fault)
{
    sqlite3 *db = NULL;
    int reserved = SEAL_BYTES;
    sqlite3_int64 size = 0;
    uint8_t *made = NULL;
    if (sqlite3_open_v2(":memory:", &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_MEMORY, NULL) ==
            SQLITE_OK &&
        sqlite3_exec(db, "PRAGMA page_size = 4096", NULL, NULL, NULL) == SQLITE_OK &&
        sqlite3_file_control(db, "main", SQLITE_FCNTL_RESERVE_BYTES, &reserved) == SQLITE_OK &&
        sqlite3_exec(db, FIRST_SCHEMA, NULL, NULL, NULL) == SQLITE_OK)
        made = sqlite3_serialize(db, "main", &size, 0);
    uint8_t *text = made != NULL ? malloc((size_t)size) : NULL;
    if (text != NULL) {
        memcpy(text, made, (size_t)size);
        text[18] = text[19] = 2;
    }
    sqlite3_free(made);
    sqlite3_close(db);
    if (text == NULL || size % PAGE_BYTES != 0 || text[20] != SEAL_BYTES) {
        free(text);
        return FAIL(INTERNAL, fault, "SQLite makes no first pages");
    }
    *ret = (struct first_pages){text, (uint32_t)(size / PAGE_BYTES)};
    return OK;
}

static status harden(struct store *store, struct fault *fault)
{
    static const struct {
        int option, value;
    } settings[] = {
        {SQLITE_DBCONFIG_DEFENSIVE, 1},
        {SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0},
        {SQLITE_DBCONFIG_ENABLE_FKEY, 1},
        {SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 0},
        {SQLITE_DBCONFIG_DQS_DML, 0},
        {SQLITE_DBCONFIG_DQS_DDL, 0},
        {SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1}, /* store_close does it, and sees whether it worked */
    };
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
        if (sqlite3_db_config(store->db, settings[i].option, settings[i].value, NULL) != SQLITE_OK)
            return FAIL(INTERNAL, fault, "SQLite does not know setting %d", settings[i].option);
    sqlite3_limit(store->db, SQLITE_LIMIT_ATTACHED, 0);
    sqlite3_limit(store->db, SQLITE_LIMIT_WORKER_THREADS, 0);
    sqlite3_wal_autocheckpoint(store->db, 0);
    return OK;
}

static status set_pragmas(struct store *store, uint32_t cache_kib, struct fault *fault)
{
    char text[64];
    snprintf(text, sizeof text, "PRAGMA cache_size = -%u",
             cache_kib != 0 ? cache_kib : STORE_CACHE_KIB_DEFAULT);
    TRY(store_script(store,
                     "PRAGMA locking_mode = EXCLUSIVE;" /* first: then no -shm file is needed */
                     "PRAGMA temp_store = MEMORY;"
                     "PRAGMA mmap_size = 0;"
                     "PRAGMA secure_delete = ON;"
                     "PRAGMA cell_size_check = ON;"
                     "PRAGMA synchronous = FULL;",
                     fault));
    return store_script(store, text, fault);
}

static bool pragma_is(struct store *store, const char *sql, const char *value)
{
    sqlite3_stmt *pragma = NULL;
    bool is = sqlite3_prepare_v2(store->db, sql, -1, &pragma, NULL) == SQLITE_OK &&
              sqlite3_step(pragma) == SQLITE_ROW &&
              span_is(span_of_text((const char *)sqlite3_column_text(pragma, 0)), value);
    sqlite3_finalize(pragma);
    return is;
}

/* What the sealing stands on is read back, not assumed. */
static status check_settings(struct store *store, struct fault *fault)
{
    int reserved = -1;
    sqlite3_file_control(store->db, "main", SQLITE_FCNTL_RESERVE_BYTES, &reserved);
    if (!pragma_is(store, "PRAGMA journal_mode", "wal") ||
        !pragma_is(store, "PRAGMA locking_mode", "exclusive") ||
        !pragma_is(store, "PRAGMA synchronous", "2") || reserved != SEAL_BYTES)
        return FAIL(INTERNAL, fault, "SQLite did not take the settings");
    return OK;
}

static status read_commits(struct store *store, struct fault *fault)
{
    _cleanup_statement_ struct statement *read = NULL;
    TRY(statement_open(&read, store, sql_commits, fault));
    status found = statement_step(read, fault);
    if (found == NOT_FOUND)
        return FAIL(CORRUPT, fault, "the number of commits is missing");
    TRY(found);
    store->commits = (uint64_t)statement_int(read, 0);
    return OK;
}

static status open_connection(struct store *store, const struct store_options *options,
                              struct fault *fault)
{
    snprintf(store->vfs_name, sizeof store->vfs_name, "bulkhead-%p", (void *)store);
    store->vfs = vfs_over(store->files, store->vfs_name);
    if (sqlite3_vfs_register(&store->vfs, 0) != SQLITE_OK)
        return FAIL(INTERNAL, fault, "SQLite does not take the VFS");
    int code = sqlite3_open_v2(STORE_DATABASE, &store->db,
                               SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX |
                                   SQLITE_OPEN_PRIVATECACHE | SQLITE_OPEN_EXRESCODE,
                               store->vfs_name);
    if (code != SQLITE_OK)
        return FAIL(INTERNAL, fault, "SQLite does not open: %s", sqlite3_errstr(code));
    TRY(harden(store, fault));
    TRY(set_pragmas(store, options->cache_kib, fault));
    TRY(read_commits(store, fault));
    return check_settings(store, fault);
}

/* After a crash the WAL begins anew: what was written to it and never acknowledged is left behind
 * in a sequence that no longer counts. Without space for it the silo stays readable as it is. */
static status recover(struct store *store, struct fault *fault)
{
    if (store->files->wal.bytes != 0) {
        struct fault full;
        status moved = store_checkpoint(store, &full);
        if (moved != OK && moved != OUT_OF_SPACE) {
            *fault = full;
            return moved;
        }
    }
    return store->files->wal.bytes == 0 ? files_check_length(store->files, fault) : OK;
}

static status open_store(struct store *store, const struct store_options *options,
                         struct fault *fault)
{
    const struct store_anchor *anchor = options->anchor;
    TRY(files_open(&store->files, options, make_first, fault));
    TRY(open_connection(store, options, fault));
    if (anchor != NULL && store->commits < anchor->commits)
        return FAIL(ROLLED_BACK, fault, "the silo has %llu commits, anchored were %llu",
                    (unsigned long long)store->commits, (unsigned long long)anchor->commits);
    return recover(store, fault);
}

status store_open(struct store **ret, const struct store_options *options, struct fault *fault)
{
    struct store *store = calloc(1, sizeof *store);
    if (store == NULL)
        return FAIL(INTERNAL, fault, "out of memory for a silo");
    store->checkpoint_frames = options->checkpoint_frames != 0 ? options->checkpoint_frames
                                                               : STORE_CHECKPOINT_FRAMES;
    store->next_checkpoint = store->checkpoint_frames;
    status opened = open_store(store, options, fault);
    if (opened != OK) {
        store_abandon(store);
        return opened;
    }
    *ret = store;
    return OK;
}

/* ---- closing ---- */

struct store *store_abandon(struct store *store)
{
    if (store == NULL)
        return NULL;
    if (store->files != NULL)
        store->files->dead = true;
    statements_drop(store);
    assert(store->statements == NULL);
    words_drop(store);
    int closed = sqlite3_close(store->db);
    assert(closed == SQLITE_OK);
    if (store->vfs.zName != NULL)
        sqlite3_vfs_unregister(&store->vfs);
    files_close(store->files);
    free(store);
    return NULL;
}

status store_close(struct store *store, struct store_anchor *ret_anchor, struct fault *fault)
{
    store_rollback(store);
    statements_drop(store);
    status closed = store_checkpoint(store, fault);
    if (closed == OK && map_is_saved(&store->files->map))
        closed = reseal_end(store->files, fault);
    if (ret_anchor != NULL)
        *ret_anchor = store_anchor(store);
    store_abandon(store);
    return closed;
}

status store_checkpoint(struct store *store, struct fault *fault)
{
    if (store->in_transaction)
        return FAIL(INTERNAL, fault, "a checkpoint inside a transaction");
    store->held = false;
    int code = sqlite3_wal_checkpoint_v2(store->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
    store->next_checkpoint = store->checkpoint_frames;
    return code == SQLITE_OK ? OK : store_failure(store, code, "checkpoint", fault);
}

/* ---- versions of the data key ---- */

status store_add_key(struct store *store, const struct store_key *key, struct fault *fault)
{
    TRY(seal_add(&store->files->seal, key, fault));
    reseal_begin(store->files);
    return OK;
}

/* A checkpoint or a step that failed has left pages whose map is not durable. */
static status settle_map(struct store *store, struct fault *fault)
{
    struct files *files = store->files;
    const struct store_io *io = files->disk.io;
    if (map_is_saved(&files->map))
        return OK;
    TRY(store_checkpoint(store, fault));
    if (map_is_saved(&files->map))
        return OK;
    if (io->sync(io->context, files->database_fd) != 0)
        return disk_failure(STORE_DATABASE, fault);
    return map_save(&files->map, files->map.wal, fault);
}

/* All pages are moved: so do what is left in the WAL and the map itself. */
static status reseal_rest(struct store *store, struct fault *fault)
{
    struct files *files = store->files;
    TRY(store_checkpoint(store, fault));
    if (files->wal.bytes != 0)
        return FAIL(INTERNAL, fault, "the WAL is not empty after its checkpoint");
    files->map.rewrite = true;
    TRY(map_save(&files->map, files->map.wal, fault));
    TRY(reseal_end(files, fault));
    files->reseal.active = false;
    return OK;
}

status store_reseal(bool *ret_more, struct store *store, uint32_t budget, struct fault *fault)
{
    bool more = false;
    if (store->in_transaction)
        return FAIL(INTERNAL, fault, "pages cannot move inside a transaction");
    if (store->files->reseal.active) {
        TRY(settle_map(store, fault));
        TRY(reseal_step(&more, store->files, budget, fault));
        if (!more)
            TRY(reseal_rest(store, fault));
    }
    *ret_more = more;
    return OK;
}

status store_drop_keys(struct store *store, struct fault *fault)
{
    if (store->files->reseal.active)
        return FAIL(INTERNAL, fault, "an older key is still in use");
    seal_keep_newest(&store->files->seal);
    return OK;
}

void store_trim(struct store *store)
{
    statements_drop(store);
    sqlite3_db_release_memory(store->db);
}

/* ---- transactions ---- */

status store_begin(struct store *store, struct fault *fault)
{
    if (store->in_transaction)
        return FAIL(INTERNAL, fault, "a transaction inside a transaction");
    TRY(store_script(store, "BEGIN", fault));
    store->in_transaction = true;
    return OK;
}

void store_rollback(struct store *store)
{
    /* it cannot fail in a way that keeps the transaction: SQLite forgets its pages in any case */
    if (store->in_transaction && !sqlite3_get_autocommit(store->db))
        sqlite3_exec(store->db, "ROLLBACK", NULL, NULL, NULL);
    store->in_transaction = false;
    store->lost = OK;
    store->savepoints = 0;
    store->half_done = false;
    store->migrated_count = 0;
}

bool store_in_transaction(const struct store *store)
{
    return store->in_transaction;
}

bool store_has_written(const struct store *store)
{
    return store->in_transaction && sqlite3_txn_state(store->db, "main") == SQLITE_TXN_WRITE;
}

static status count_commit(struct store *store, struct fault *fault)
{
    _cleanup_statement_ struct statement *count = NULL;
    TRY(statement_open(&count, store, sql_count_commit, fault));
    return statement_run(count, fault);
}

/* A failure is not the commit's: the WAL goes on growing, and the next try comes later. */
static void checkpoint_when_due(struct store *store)
{
    uint32_t frames = store->files->wal.committed;
    if (store->held && frames < STORE_HELD_FRAMES_MAX)
        return;
    store->held = false;
    if (frames < store->checkpoint_frames)
        store->next_checkpoint = store->checkpoint_frames;
    if (frames >= store->next_checkpoint) {
        sqlite3_wal_checkpoint_v2(store->db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
        store->next_checkpoint = frames + store->checkpoint_frames;
    }
}

status store_commit(struct store *store, struct fault *fault)
{
    if (!store->in_transaction)
        return FAIL(INTERNAL, fault, "a commit outside of a transaction");
    bool written = store_has_written(store);
    status committed = written ? count_commit(store, fault) : OK;
    if (committed == OK && store->half_done)
        committed = FAIL(CORRUPT, fault, "a write met a damaged page and was not undone");
    if (committed == OK)
        committed = store_script(store, "COMMIT", fault);
    if (committed != OK) {
        store_rollback(store);
        return committed;
    }
    store->in_transaction = false;
    store->savepoints = 0;
    if (written) {
        store->commits++;
        checkpoint_when_due(store);
    }
    return OK;
}

status store_savepoint(struct store *store, struct fault *fault)
{
    if (!store->in_transaction)
        return FAIL(INTERNAL, fault, "a savepoint outside of a transaction");
    TRY(store_script(store, "SAVEPOINT request", fault));
    store->savepoints++;
    return OK;
}

static status need_savepoint(const struct store *store, struct fault *fault)
{
    if (store->savepoints == 0 && store->lost == OK)
        return FAIL(INTERNAL, fault, "no savepoint is open");
    return OK;
}

/* What should be gone may stand: nothing of this transaction is committed any more. */
static status give_up(struct store *store, status why)
{
    if (store->lost == OK)
        store->lost = why;
    return why;
}

status store_release(struct store *store, struct fault *fault)
{
    TRY(need_savepoint(store, fault));
    status released = store_script(store, "RELEASE request", fault);
    store->savepoints--; /* SQLite forgets it also where a virtual table then refuses */
    if (released != OK && store->savepoints == 0)
        return give_up(store, released);
    bool stood = store->half_done;
    if (released != OK) /* the caller undoes the one around it */
        store->half_done = true;
    if (!stood || store->half_done_in > store->savepoints)
        store->half_done_in = store->savepoints;
    return released;
}

status store_undo(struct store *store, struct fault *fault)
{
    TRY(need_savepoint(store, fault));
    store->migrated_count = 0;
    status undone = store_script(store, "ROLLBACK TO request; RELEASE request", fault);
    if (undone != OK)
        return give_up(store, undone);
    if (store->half_done_in >= store->savepoints)
        store->half_done = false;
    store->savepoints--;
    return OK;
}

struct store_anchor store_anchor(const struct store *store)
{
    struct store_anchor anchor = {
        .commits = store->commits,
        .map_generation = store->files->map.generation,
    };
    memcpy(anchor.map_hash, store->files->map.hash, sizeof anchor.map_hash);
    return anchor;
}

struct store_damage store_damage(const struct store *store)
{
    return store->files->damage;
}

uint64_t store_bytes(const struct store *store)
{
    return files_bytes(store->files);
}

static int64_t read_count(struct store *store, const char *pragma)
{
    struct statement *read;
    struct fault ignored;
    int64_t count = -1;
    if (statement_open(&read, store, pragma, &ignored) != OK)
        return count;
    if (statement_step(read, &ignored) == OK)
        count = statement_int(read, 0);
    statement_close(read);
    return count;
}

uint64_t store_bytes_used(struct store *store)
{
    int64_t pages = read_count(store, "PRAGMA page_count");
    int64_t unused = read_count(store, "PRAGMA freelist_count");
    if (pages < 0 || unused < 0 || unused > pages)
        return store_bytes(store); /* its first page is damaged */
    return (uint64_t)(pages - unused) * PAGE_BYTES;
}

/* ---- migrations ---- */

static status read_version(int64_t *ret, struct store *store, const struct store_schema *schema,
                           struct fault *fault)
{
    _cleanup_statement_ struct statement *read = NULL;
    TRY(statement_open(&read, store, sql_version, fault));
    statement_bind_text(read, 1, span_of_text(schema->room));
    status found = statement_step(read, fault);
    if (found != OK && found != NOT_FOUND)
        return found;
    *ret = found == OK ? statement_int(read, 0) : 0;
    return OK;
}

static status write_version(struct store *store, const struct store_schema *schema,
                            struct fault *fault)
{
    _cleanup_statement_ struct statement *write = NULL;
    TRY(statement_open(&write, store, sql_set_version, fault));
    statement_bind_text(write, 1, span_of_text(schema->room));
    statement_bind_int(write, 2, schema->count);
    return statement_run(write, fault);
}

static bool is_migrated(const struct store *store, const struct store_schema *schema)
{
    for (uint32_t i = 0; i < store->migrated_count; i++)
        if (store->migrated[i] == schema)
            return true;
    return false;
}

static status apply_versions(struct store *store, const struct store_schema *schema, int64_t have,
                             struct fault *fault)
{
    for (int64_t version = have; version < schema->count; version++)
        TRY(store_script(store, schema->versions[version], fault));
    return write_version(store, schema, fault);
}

static status migrate(struct store *store, const struct store_schema *schema, struct fault *fault)
{
    int64_t have;
    TRY(read_version(&have, store, schema, fault));
    if (have > schema->count)
        return FAIL(CONFLICT, fault, "%s: tables of version %lld, this program knows %u",
                    schema->room, (long long)have, schema->count);
    if (have < schema->count) {
        struct fault undone;
        TRY(store_savepoint(store, fault));
        status applied = apply_versions(store, schema, have, fault);
        if (applied != OK) {
            if (store->lost == OK && store_undo(store, &undone) != OK)
                store->lost = applied; /* half a migration must not be committed */
            return applied;
        }
        TRY(store_release(store, fault));
    }
    if (store->migrated_count < MIGRATED_MAX)
        store->migrated[store->migrated_count++] = schema;
    return OK;
}

status store_migrate(struct store *store, const struct store_schema *schema, struct fault *fault)
{
    if (is_migrated(store, schema))
        return OK;
    if (store->in_transaction)
        return migrate(store, schema, fault);
    TRY(store_begin(store, fault));
    status migrated = migrate(store, schema, fault);
    if (migrated != OK) {
        store_rollback(store);
        return migrated;
    }
    return store_commit(store, fault);
}

status store_rooms(struct store *store, store_each_room *each, void *context,
                   struct fault *fault)
{
    _cleanup_statement_ struct statement *rows = NULL;
    TRY(statement_open(&rows, store, sql_rooms, fault));
    for (;;) {
        status found = statement_step(rows, fault);
        if (found == NOT_FOUND)
            return OK;
        TRY(found);
        TRY(each(context, statement_span(rows, 0), statement_int(rows, 1), fault));
    }
}

status store_has(bool *ret, struct store *store, const struct store_schema *schema,
                 struct fault *fault)
{
    int64_t have = 1;
    if (!is_migrated(store, schema))
        TRY(read_version(&have, store, schema, fault));
    *ret = have > 0;
    return OK;
}
