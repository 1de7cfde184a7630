/* bench-plain-log: what bench-audit does without sealing and without a Merkle tree: the same rows
 * (index, salt, entry) in the same batches into plain SQLite with the store's settings. Prints
 * JSON.
 *
 *     bench-plain-log DIRECTORY ENTRIES BATCH */
#include <sqlite3.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { ENTRY_BYTES = 560, SALT_BYTES = 16 };

static void need(sqlite3 *db, int code, const char *what)
{
    if (code == SQLITE_OK || code == SQLITE_DONE || code == SQLITE_ROW)
        return;
    fprintf(stderr, "bench-plain-log: %s: %s\n", what, db ? sqlite3_errmsg(db) : "failed");
    exit(1);
}

static void run(sqlite3 *db, const char *sql)
{
    need(db, sqlite3_exec(db, sql, NULL, NULL, NULL), sql);
}

static double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void append_batch(sqlite3 *db, sqlite3_stmt *insert, long from, long batch)
{
    static char entry[ENTRY_BYTES], salt[SALT_BYTES];
    memset(entry, 'x', sizeof entry);
    run(db, "BEGIN");
    for (long i = from; i < from + batch; i++) {
        memcpy(entry, &i, sizeof i);
        memcpy(salt, &i, sizeof i);
        sqlite3_bind_int64(insert, 1, i);
        sqlite3_bind_blob(insert, 2, salt, sizeof salt, SQLITE_STATIC);
        sqlite3_bind_blob(insert, 3, entry, sizeof entry, SQLITE_STATIC);
        need(db, sqlite3_step(insert), "insert");
        sqlite3_reset(insert);
    }
    run(db, "COMMIT");
}

int main(int argc, char **argv)
{
    char path[4096];
    sqlite3 *db;
    sqlite3_stmt *insert;
    const char *sql = "INSERT INTO entry VALUES (?1, ?2, ?3)";
    long entries = argc == 4 ? strtol(argv[2], NULL, 10) : 0;
    long batch = argc == 4 ? strtol(argv[3], NULL, 10) : 0;
    if (batch < 1 || entries < batch) {
        fprintf(stderr, "usage: bench-plain-log DIRECTORY ENTRIES BATCH\n");
        return 2;
    }
    snprintf(path, sizeof path, "%s/plain-log.db", argv[1]);
    need(NULL, sqlite3_open(path, &db), path);
    run(db, "PRAGMA page_size = 4096; PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL;"
            "PRAGMA synchronous = FULL; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -256;"
            "CREATE TABLE entry (n INTEGER PRIMARY KEY, salt BLOB NOT NULL, entry BLOB NOT NULL)");
    need(db, sqlite3_prepare_v2(db, sql, -1, &insert, NULL), sql);
    double begin = seconds_now();
    for (long done = 0; done < entries; done += batch)
        append_batch(db, insert, done, batch);
    double seconds = seconds_now() - begin;
    sqlite3_finalize(insert);
    sqlite3_close(db);
    unlink(path);
    printf("{\"entries\": %ld, \"batch\": %ld, \"seconds\": %.3f, "
           "\"durable_entries_per_second\": %.0f}\n",
           entries, batch, seconds, (double)entries / seconds);
    return 0;
}
