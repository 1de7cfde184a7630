/* bench-seal: what sealing costs. The same SQLite, the same settings, the same rows: once over the
 * store's sealing VFS, once over SQLite's own, in turns, in the same directory. Prints JSON.
 *
 *     bench-seal [DIRECTORY] [ROUNDS]       default: the current one, 5 */
#define _GNU_SOURCE /* O_PATH */
#include "crypt/crypt.h"
#include "store/session.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { ROWS = 10000, ROW_BYTES = 1024, ROWS_A_COMMIT = 100, ROUNDS_MAX = 100 };

/* POINT_READ finds next to nothing in SQLite's cache and reads pages for every row; CACHED_READ is
 * about few enough rows that all is in the cache. */
enum measure { COMMIT, POINT_READ, CACHED_READ, SCAN, MEASURES };
static const char *const measure_names[MEASURES] = {"commit", "point_read", "cached_read", "scan"};
static const int rows_a_sample[MEASURES] = {ROWS_A_COMMIT, 1, 1, ROWS};
enum { CACHED_ROWS = 100 };

struct samples {
    double *us;
    size_t count;
};

static void die(const char *what, const char *why)
{
    fprintf(stderr, "bench-seal: %s: %s\n", what, why);
    exit(1);
}

static void need(sqlite3 *db, int code, const char *what)
{
    if (code != SQLITE_OK && code != SQLITE_ROW && code != SQLITE_DONE)
        die(what, sqlite3_errmsg(db));
}

static void run(sqlite3 *db, const char *sql)
{
    need(db, sqlite3_exec(db, sql, NULL, NULL, NULL), sql);
}

static double now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static void note(struct samples *samples, double since)
{
    samples->us[samples->count++] = now_us() - since;
}

static void write_rows(sqlite3 *db, struct samples *samples)
{
    static uint8_t row[ROW_BYTES];
    sqlite3_stmt *insert;
    const char *sql = "INSERT INTO row VALUES (?1, ?2)";
    need(db, sqlite3_prepare_v2(db, sql, -1, &insert, NULL), sql);
    for (int at = 0; at < ROWS; at += ROWS_A_COMMIT) {
        double since = now_us();
        run(db, "BEGIN");
        for (int i = at; i < at + ROWS_A_COMMIT; i++) {
            memset(row, i, sizeof row);
            sqlite3_bind_int(insert, 1, i);
            sqlite3_bind_blob(insert, 2, row, sizeof row, SQLITE_STATIC);
            need(db, sqlite3_step(insert), "insert");
            sqlite3_reset(insert);
        }
        run(db, "COMMIT");
        note(samples, since);
    }
    sqlite3_finalize(insert);
    run(db, "PRAGMA wal_checkpoint(TRUNCATE)");
}

static void read_rows(sqlite3 *db, uint32_t among, struct samples *samples)
{
    sqlite3_stmt *find;
    uint32_t row = 1;
    need(db, sqlite3_prepare_v2(db, "SELECT data FROM row WHERE id = ?1", -1, &find, NULL), "find");
    for (int i = 0; i < ROWS; i++) {
        row = (row * 1103515245u + 12345u) % 2147483648u;
        double since = now_us();
        sqlite3_bind_int(find, 1, (int)(row / 16 % among));
        need(db, sqlite3_step(find), "find");
        if (sqlite3_column_bytes(find, 0) != ROW_BYTES)
            die("find", "a row is missing");
        sqlite3_reset(find);
        note(samples, since);
    }
    sqlite3_finalize(find);
}

static void scan_rows(sqlite3 *db, struct samples *samples)
{
    sqlite3_stmt *scan;
    need(db, sqlite3_prepare_v2(db, "SELECT sum(length(data)) FROM row", -1, &scan, NULL), "scan");
    double since = now_us();
    need(db, sqlite3_step(scan), "scan");
    note(samples, since);
    if (sqlite3_column_int64(scan, 0) != (int64_t)ROWS * ROW_BYTES)
        die("scan", "rows are missing");
    sqlite3_finalize(scan);
}

static void workload(sqlite3 *db, struct samples samples[MEASURES])
{
    run(db, "CREATE TABLE row (id INTEGER PRIMARY KEY, data BLOB)");
    sqlite3_wal_autocheckpoint(db, STORE_CHECKPOINT_FRAMES);
    write_rows(db, &samples[COMMIT]);
    read_rows(db, ROWS, &samples[POINT_READ]);
    read_rows(db, CACHED_ROWS, &samples[CACHED_READ]);
    scan_rows(db, &samples[SCAN]);
}

static void sealed_round(int fd, struct samples samples[MEASURES])
{
    static const uint8_t id[TENANT_ID_BYTES] = "bench-seal";
    struct store_key key = {.version = 1};
    struct store_options options = {
        .silo_fd = fd, .silo_id = id, .keys = &key, .key_count = 1};
    struct store *store;
    struct fault fault;
    crypt_random(key.dek, sizeof key.dek);
    if (store_open(&store, &options, &fault) != OK)
        die("store_open", fault.detail);
    workload(store->db, samples);
    store_abandon(store);
    unlinkat(fd, STORE_DATABASE, 0);
    unlinkat(fd, STORE_WAL, 0);
    unlinkat(fd, STORE_MAP, 0);
}

/* The same settings as the store's. */
static void plain_round(const char *path, struct samples samples[MEASURES])
{
    sqlite3 *db;
    need(NULL, sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE |
                                              SQLITE_OPEN_NOMUTEX, "unix"), "open");
    run(db, "PRAGMA page_size = 4096; PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL;"
            "PRAGMA synchronous = FULL; PRAGMA temp_store = MEMORY; PRAGMA secure_delete = ON;"
            "PRAGMA cell_size_check = ON; PRAGMA foreign_keys = ON; PRAGMA mmap_size = 0;");
    char cache[64];
    snprintf(cache, sizeof cache, "PRAGMA cache_size = -%u", (uint32_t)STORE_CACHE_KIB_DEFAULT);
    run(db, cache);
    workload(db, samples);
    sqlite3_close(db);
    unlink(path);
}

static int by_size(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static double quantile(struct samples *samples, double part)
{
    qsort(samples->us, samples->count, sizeof *samples->us, by_size);
    return samples->us[(size_t)((double)(samples->count - 1) * part)];
}

static void print_side(const char *name, struct samples samples[MEASURES])
{
    printf("  \"%s\": {\n", name);
    for (int i = 0; i < MEASURES; i++) {
        double sum = 0;
        for (size_t j = 0; j < samples[i].count; j++)
            sum += samples[i].us[j];
        printf("    \"%s\": {\"p50_us\": %.2f, \"p99_us\": %.2f, \"rows_per_second\": %.0f}%s\n",
               measure_names[i], quantile(&samples[i], .5), quantile(&samples[i], .99),
               (double)samples[i].count * rows_a_sample[i] / sum * 1e6,
               i + 1 < MEASURES ? "," : "");
    }
    printf("  },\n");
}

static struct samples *make_samples(int rounds)
{
    struct samples *samples = calloc(MEASURES, sizeof *samples);
    for (int i = 0; samples != NULL && i < MEASURES; i++) {
        samples[i].us = calloc((size_t)rounds * ROWS, sizeof(double));
        if (samples[i].us == NULL)
            die("samples", "out of memory");
    }
    return samples;
}

int main(int count, char **arguments)
{
    const char *directory = count > 1 ? arguments[1] : ".";
    int rounds = count > 2 ? (int)strtol(arguments[2], NULL, 10) : 5;
    char path[4096];
    struct fault fault;
    int fd = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || rounds < 1 || rounds > ROUNDS_MAX)
        die(directory, "not a directory, or not 1 to 100 rounds");
    if (crypt_start(&fault) != OK || store_start(&fault) != OK)
        die("start", fault.detail);
    snprintf(path, sizeof path, "%s/bench-seal-plain.db", directory);
    struct samples *sealed = make_samples(rounds), *plain = make_samples(rounds);
    if (sealed == NULL || plain == NULL || store_exists(fd))
        die(directory, "holds a silo, or out of memory");
    for (int round = 0; round < rounds; round++) {
        sealed_round(fd, sealed);
        plain_round(path, plain);
    }
    printf("{\n  \"rows\": %d, \"row_bytes\": %d, \"rows_a_commit\": %d, \"rounds\": %d,\n", ROWS,
           ROW_BYTES, ROWS_A_COMMIT, rounds);
    print_side("sealed", sealed);
    print_side("plain", plain);
    printf("  \"overhead_percent_p50\": {");
    for (int i = 0; i < MEASURES; i++)
        printf("\"%s\": %.1f%s", measure_names[i],
               (quantile(&sealed[i], .5) / quantile(&plain[i], .5) - 1) * 100,
               i + 1 < MEASURES ? ", " : "}\n}\n");
    return 0;
}
