#define _GNU_SOURCE
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buffer.h"

static struct fault fault;

static const char *const notes_versions[] = {
    "CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE);",
    "ALTER TABLE note ADD COLUMN weight REAL; CREATE INDEX note_weight ON note (weight);",
};
static const struct store_schema notes_1 = {"note", notes_versions, 1};
static const struct store_schema notes_2 = {"note", notes_versions, 2};

static struct store *open_sim(struct sim *sim)
{
    struct store_options options = options_over(sim);
    struct store *store;
    assert_ok(store_open(&store, &options, &fault));
    return store;
}

static status add(struct store *store, int64_t id, const char *text)
{
    _cleanup_statement_ struct statement *insert = NULL;
    TRY(statement_open(&insert, store, "INSERT INTO note (id, text) VALUES (?1, ?2)", &fault));
    statement_bind_int(insert, 1, id);
    statement_bind_text(insert, 2, span_of_text(text));
    return statement_run(insert, &fault);
}

static int64_t count(struct store *store)
{
    _cleanup_statement_ struct statement *read = NULL;
    assert_ok(statement_open(&read, store, "SELECT count(*) FROM note", &fault));
    assert_ok(statement_step(read, &fault));
    return statement_int(read, 0);
}

static void what_is_committed_is_there_after_parking(void **state)
{
    (void)state;
    struct sim *sim = sim_create(1);
    struct store *store = open_sim(sim);
    struct store_anchor anchor;
    assert_ok(store_migrate(store, &notes_1, &fault));
    assert_ok(store_begin(store, &fault));
    assert_ok(add(store, 1, "one"));
    assert_ok(add(store, 2, "two"));
    assert_ok(store_commit(store, &fault));
    assert_ok(store_close(store, &anchor, &fault));
    assert_int_equal(anchor.commits, 2);
    assert_int_equal(sim_file(sim, STORE_WAL)->length, 0);

    struct store_options options = options_over(sim);
    options.anchor = &anchor;
    assert_ok(store_open(&store, &options, &fault));
    assert_int_equal(count(store), 2);
    struct store_anchor now = store_anchor(store);
    assert_memory_equal(&now, &anchor, sizeof now);
    store_abandon(store);
    sim_free(sim);
}

static void a_new_silo_takes_little_room(void **state)
{
    (void)state;
    struct sim *sim = sim_create(1);
    assert_ok(store_close(open_sim(sim), NULL, &fault));
    assert_int_equal(sim_file(sim, STORE_DATABASE)->length, 8192);
    assert_true(sim_file(sim, STORE_MAP)->length < 4096);
    for (int i = 0; i < 200; i++) { /* a silo that wakes often does not grow by it */
        struct store *store = open_sim(sim);
        assert_ok(store_migrate(store, &notes_1, &fault));
        assert_ok(store_begin(store, &fault));
        assert_ok(store_execute(store, "UPDATE store_state SET value = value", &fault));
        assert_ok(store_commit(store, &fault));
        assert_ok(store_close(store, NULL, &fault));
        assert_true(sim_file(sim, STORE_MAP)->length <= 4096);
    }
    assert_null(sim_file(sim, "silo.db-journal"));
    assert_null(sim_file(sim, "silo.db-shm"));
    sim_free(sim);
}

static void a_turn_that_wrote_nothing_costs_no_io(void **state)
{
    (void)state;
    struct sim *sim = sim_create(1);
    struct store *store = open_sim(sim);
    assert_ok(store_migrate(store, &notes_1, &fault));
    uint64_t before = sim->mutations;
    assert_ok(store_begin(store, &fault));
    assert_int_equal(count(store), 0);
    assert_false(store_has_written(store));
    assert_ok(store_commit(store, &fault));
    assert_int_equal(sim->mutations, before);
    assert_int_equal(store_anchor(store).commits, 1);
    assert_ok(store_close(store, NULL, &fault));
    store = open_sim(sim); /* nor does a whole life of them */
    before = sim->mutations;
    assert_int_equal(count(store), 0);
    assert_ok(store_close(store, NULL, &fault));
    assert_int_equal(sim->mutations, before);
    sim_free(sim);
}

static void undo_takes_back_one_request_and_leaves_the_turn(void **state)
{
    (void)state;
    struct sim *sim = sim_create(1);
    struct store *store = open_sim(sim);
    assert_ok(store_migrate(store, &notes_1, &fault));
    assert_ok(store_begin(store, &fault));
    assert_ok(store_savepoint(store, &fault));
    assert_ok(add(store, 1, "kept"));
    assert_ok(store_release(store, &fault));
    assert_ok(store_savepoint(store, &fault));
    assert_ok(add(store, 2, "undone"));
    assert_ok(store_undo(store, &fault));
    assert_ok(store_commit(store, &fault));
    assert_int_equal(count(store), 1);
    assert_ok(store_begin(store, &fault));
    assert_ok(add(store, 3, "rolled back"));
    store_rollback(store);
    assert_int_equal(count(store), 1);
    assert_int_equal(store_anchor(store).commits, 2);
    store_abandon(store);
    sim_free(sim);
}

/* The savepoint is taken from under the store, as a stand-in for what else makes SQLite fail. */
static void what_could_not_be_undone_is_never_committed(void **state)
{
    (void)state;
    struct fault why;
    for (int undo = 0; undo < 2; undo++) {
        struct sim *sim = sim_create(1);
        struct store *store = open_sim(sim);
        assert_ok(store_migrate(store, &notes_1, &fault));
        assert_ok(store_begin(store, &fault));
        assert_ok(store_savepoint(store, &fault));
        assert_ok(add(store, 1, "of a request that failed"));
        assert_ok(store_execute(store, "RELEASE request", &fault));
        assert_int_equal(undo ? store_undo(store, &why) : store_release(store, &why), INTERNAL);
        assert_int_equal(add(store, 2, "of the next request"), INTERNAL);
        assert_int_equal(store_commit(store, &fault), INTERNAL);
        assert_int_equal(count(store), 0);
        assert_ok(store_begin(store, &fault));
        assert_ok(add(store, 3, "of the next turn"));
        assert_ok(store_commit(store, &fault));
        assert_int_equal(count(store), 1);
        store_abandon(store);
        sim_free(sim);
    }
}

static void writing_outside_of_a_transaction_is_refused(void **state)
{
    (void)state;
    struct sim *sim = sim_create(1);
    struct store *store = open_sim(sim);
    assert_ok(store_migrate(store, &notes_1, &fault));
    assert_int_equal(add(store, 1, "no"), INTERNAL);
    assert_int_equal(store_execute(store, "DELETE FROM note", &fault), INTERNAL);
    assert_int_equal(store_commit(store, &fault), INTERNAL);
    assert_int_equal(store_savepoint(store, &fault), INTERNAL);
    assert_ok(store_begin(store, &fault));
    assert_int_equal(store_begin(store, &fault), INTERNAL);
    assert_int_equal(store_checkpoint(store, &fault), INTERNAL);
    store_rollback(store);
    store_abandon(store);
    sim_free(sim);
}

static void statements_say_what_went_wrong(void **state)
{
    (void)state;
    struct sim *sim = sim_create(1);
    struct store *store = open_sim(sim);
    struct statement *bad;
    assert_ok(store_migrate(store, &notes_1, &fault));
    assert_ok(store_begin(store, &fault));
    assert_ok(add(store, 1, "same"));
    assert_int_equal(add(store, 2, "same"), CONFLICT);
    assert_int_equal(add(store, 1, "other"), CONFLICT);
    assert_ok(add(store, 2, "other"));
    assert_int_equal(statement_open(&bad, store, "SELECT nothing FROM nowhere", &fault), INTERNAL);
    assert_non_null(strstr(fault.detail, "nowhere"));
    assert_ok(store_execute(store, "CREATE VIRTUAL TABLE words USING fts5 (text)", &fault));
    {
        _cleanup_statement_ struct statement *match = NULL, *none = NULL;
        assert_ok(
            statement_open(&match, store, "SELECT 1 FROM words WHERE words MATCH ?1", &fault));
        statement_bind_text(match, 1, SPAN("\"open AND ("));
        status stepped = statement_step(match, &fault);
        assert_true(stepped == BAD_FIELD || stepped == INTERNAL);
        statement_reset(match);
        statement_bind_text(match, 1, SPAN("a AND ("));
        assert_int_equal(statement_step(match, &fault), BAD_FIELD);
        assert_ok(statement_open(&none, store, "SELECT text FROM note WHERE id = ?1", &fault));
        statement_bind_int(none, 1, 99);
        assert_int_equal(statement_step(none, &fault), NOT_FOUND);
        statement_reset(none);
        statement_bind_int(none, 7, 99); /* there is no such parameter */
        assert_int_equal(statement_step(none, &fault), INTERNAL);
    }
    assert_ok(store_commit(store, &fault));
    store_abandon(store);
    sim_free(sim);
}

static void statements_carry_every_type(void **state)
{
    (void)state;
    struct sim *sim = sim_create(1);
    struct store *store = open_sim(sim);
    const uint8_t blob[] = {0, 1, 255, 0};
    assert_ok(store_begin(store, &fault));
    assert_ok(store_execute(store, "CREATE TABLE t (a, b, c, d, e, f)", &fault));
    {
        _cleanup_statement_ struct statement *put = NULL, *get = NULL, *again = NULL;
        assert_ok(statement_open(&put, store, "INSERT INTO t VALUES (?1,?2,?3,?4,?5,?6)", &fault));
        statement_bind_int(put, 1, INT64_MIN);
        statement_bind_double(put, 2, -0.5);
        statement_bind_text(put, 3, SPAN("text\0with NUL"));
        statement_bind_blob(put, 4, SPAN_OF(blob));
        statement_bind_null(put, 5);
        statement_bind_text(put, 6, (struct span){NULL, 0});
        assert_ok(statement_run(put, &fault));
        assert_int_equal(store_changes(store), 1);
        assert_int_equal(store_last_rowid(store), 1);
        const char *sql = "SELECT * FROM t";
        assert_ok(statement_open(&get, store, sql, &fault));
        assert_ok(statement_open(&again, store, sql, &fault));
        assert_ptr_not_equal(get, again);
        assert_ok(statement_step(get, &fault));
        assert_ok(statement_step(again, &fault));
        assert_int_equal(statement_int(get, 0), INT64_MIN);
        assert_true(statement_double(get, 1) == -0.5);
        assert_true(span_equal(statement_span(get, 2), SPAN("text\0with NUL")));
        assert_true(span_equal(statement_span(get, 3), SPAN_OF(blob)));
        assert_true(statement_is_null(get, 4));
        assert_int_equal(statement_span(get, 4).length, 0);
        assert_false(statement_is_null(get, 5));
        assert_int_equal(statement_span(get, 5).length, 0);
    }
    assert_ok(store_commit(store, &fault));
    store_abandon(store);
    sim_free(sim);
}

static void more_statements_than_are_kept_work_too(void **state)
{
    (void)state;
    static char sql[3 * STORE_STATEMENTS_MAX][32];
    struct sim *sim = sim_create(1);
    struct store *store = open_sim(sim);
    for (int round = 0; round < 2; round++)
        for (int i = 0; i < 3 * STORE_STATEMENTS_MAX; i++) {
            _cleanup_statement_ struct statement *read = NULL;
            snprintf(sql[i], sizeof sql[i], "SELECT %d", i);
            assert_ok(statement_open(&read, store, sql[i], &fault));
            assert_ok(statement_step(read, &fault));
            assert_int_equal(statement_int(read, 0), i);
        }
    store_trim(store);
    assert_int_equal(store_anchor(store).commits, 0);
    store_abandon(store);
    sim_free(sim);
}

static void tables_are_made_and_changed_when_first_needed(void **state)
{
    (void)state;
    static const char *const broken_versions[] = {"CREATE TABLE half (a); CREATE NONSENSE;"};
    static const struct store_schema broken = {"broken", broken_versions, 1};
    struct sim *sim = sim_create(1);
    struct store *store = open_sim(sim);
    bool has = true;
    assert_ok(store_has(&has, store, &notes_2, &fault));
    assert_false(has);
    assert_ok(store_migrate(store, &notes_1, &fault));
    assert_ok(store_has(&has, store, &notes_2, &fault));
    assert_true(has);
    assert_ok(store_begin(store, &fault));
    assert_ok(add(store, 1, "before"));
    assert_ok(store_migrate(store, &notes_2, &fault)); /* inside the open transaction */
    assert_ok(store_execute(store, "UPDATE note SET weight = 0.5", &fault));
    assert_int_equal(store_migrate(store, &broken, &fault), INTERNAL);
    assert_ok(store_commit(store, &fault));
    assert_ok(store_has(&has, store, &broken, &fault));
    assert_false(has);
    assert_ok(store_begin(store, &fault));
    assert_int_equal(store_execute(store, "INSERT INTO half VALUES (1)", &fault), INTERNAL);
    store_rollback(store);
    assert_ok(store_close(store, NULL, &fault));
    store = open_sim(sim);
    assert_int_equal(store_migrate(store, &notes_1, &fault), CONFLICT); /* an older program */
    assert_ok(store_migrate(store, &notes_2, &fault));
    store_abandon(store);
    sim_free(sim);
}

static void a_migration_that_is_rolled_back_is_done_again(void **state)
{
    (void)state;
    struct sim *sim = sim_create(1);
    struct store *store = open_sim(sim);
    assert_ok(store_begin(store, &fault));
    assert_ok(store_migrate(store, &notes_1, &fault));
    store_rollback(store);
    assert_ok(store_begin(store, &fault));
    assert_ok(store_savepoint(store, &fault));
    assert_ok(store_migrate(store, &notes_1, &fault));
    assert_ok(store_undo(store, &fault));
    assert_ok(store_migrate(store, &notes_1, &fault));
    assert_ok(add(store, 1, "one"));
    assert_ok(store_commit(store, &fault));
    assert_int_equal(count(store), 1);
    store_abandon(store);
    sim_free(sim);
}

static void no_other_file_can_be_reached_by_sql(void **state)
{
    (void)state;
    struct sim *sim = sim_create(1);
    struct store *store = open_sim(sim);
    assert_ok(store_begin(store, &fault));
    assert_int_not_equal(store_execute(store, "ATTACH 'other.db' AS other", &fault), OK);
    assert_int_not_equal(store_execute(store, "SELECT load_extension('x')", &fault), OK);
    store_rollback(store);
    assert_ok(store_begin(store, &fault));
    assert_int_not_equal(store_execute(store,
                                       "PRAGMA writable_schema = ON;"
                                       "UPDATE sqlite_schema SET sql = ''",
                                       &fault),
                         OK);
    store_rollback(store);
    store_abandon(store);
    sim_free(sim);
}

static void a_large_turn_spills_into_the_wal_and_is_whole(void **state)
{
    (void)state;
    struct sim *sim = sim_create(1);
    struct store *store = open_sim(sim);
    assert_ok(store_begin(store, &fault));
    assert_ok(
        store_execute(store, "CREATE TABLE big (id INTEGER PRIMARY KEY, data BLOB, n)", &fault));
    for (int round = 0; round < 3; round++) /* every page is written several times in one turn */
        assert_ok(store_execute(store,
                                "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c"
                                " WHERE i < 600)"
                                "INSERT INTO big SELECT i, randomblob(900), 0 FROM c WHERE true"
                                " ON CONFLICT (id) DO UPDATE SET n = n + 1",
                                &fault));
    assert_ok(store_commit(store, &fault));
    store_abandon(store);
    store = open_sim(sim); /* as after a crash: from the WAL */
    {
        _cleanup_statement_ struct statement *sum = NULL, *check = NULL;
        assert_ok(statement_open(&sum, store, "SELECT sum(n), sum(length(data)) FROM big", &fault));
        assert_ok(statement_step(sum, &fault));
        assert_int_equal(statement_int(sum, 0), 1200);
        assert_int_equal(statement_int(sum, 1), 540000);
        assert_ok(statement_open(&check, store, "PRAGMA integrity_check", &fault));
        assert_ok(statement_step(check, &fault));
        assert_true(span_is(statement_span(check, 0), "ok"));
    }
    assert_ok(store_close(store, NULL, &fault));
    sim_free(sim);
}

static void the_wal_is_moved_into_the_database_as_it_grows(void **state)
{
    (void)state;
    struct sim *sim = sim_create(1);
    struct store *store = open_sim(sim);
    assert_ok(store_migrate(store, &notes_1, &fault));
    uint64_t first = store_anchor(store).map_generation;
    for (int i = 0; i < 1500; i++) {
        char text[16];
        snprintf(text, sizeof text, "note %d", i);
        assert_ok(store_begin(store, &fault));
        assert_ok(add(store, i, text));
        assert_ok(store_commit(store, &fault));
    }
    assert_true(store_anchor(store).map_generation > first);
    assert_true(sim_file(sim, STORE_WAL)->length < 1100 * 4120);
    assert_true(store_bytes(store) >= sim_file(sim, STORE_DATABASE)->length);
    store_abandon(store);
    store = open_sim(sim);
    assert_int_equal(count(store), 1500);
    assert_int_equal(sim_file(sim, STORE_WAL)->length, 0);
    store_abandon(store);
    sim_free(sim);
}

static void a_silo_can_become_smaller(void **state)
{
    (void)state;
    struct sim *sim = sim_create(1);
    struct store *store = open_sim(sim);
    assert_ok(store_migrate(store, &notes_1, &fault));
    assert_ok(store_begin(store, &fault));
    for (int i = 0; i < 3000; i++) {
        char text[64];
        snprintf(text, sizeof text, "a note of a certain length, the number is %d", i);
        assert_ok(add(store, i, text));
    }
    assert_ok(store_commit(store, &fault));
    assert_ok(store_begin(store, &fault));
    assert_ok(store_execute(store, "DELETE FROM note WHERE id > 10", &fault));
    assert_ok(store_commit(store, &fault));
    assert_ok(store_close(store, NULL, &fault));
    store = open_sim(sim);
    assert_int_equal(count(store), 11);
    assert_ok(store_close(store, NULL, &fault));
    sim_free(sim);
}

static void pages_of_an_older_key_are_still_read(void **state)
{
    (void)state;
    static const struct store_key rotated[] = {
        {.version = 2, .dek = "the second of the data keys ...."},
        {.version = 1, .dek = "thirty-two bytes of data key ..."},
    };
    struct sim *sim = sim_create(1);
    struct store *store = open_sim(sim);
    assert_ok(store_migrate(store, &notes_1, &fault));
    assert_ok(store_close(store, NULL, &fault));
    struct store_options options = options_over(sim);
    options.keys = rotated;
    options.key_count = 2;
    assert_ok(store_open(&store, &options, &fault));
    assert_ok(store_begin(store, &fault));
    assert_ok(add(store, 1, "under the new key"));
    assert_ok(store_commit(store, &fault));
    assert_ok(store_close(store, NULL, &fault));
    assert_ok(store_open(&store, &options, &fault));
    assert_int_equal(count(store), 1);
    assert_ok(store_close(store, NULL, &fault));
    options.keys = keys;
    options.key_count = 1;
    assert_int_equal(store_open(&store, &options, &fault), CORRUPT);
    sim_free(sim);
}

/* The version in the trailer of each sealed piece that is on the disk. */
static uint32_t oldest_version(struct sim *sim)
{
    uint32_t oldest = UINT32_MAX;
    const struct sim_bytes *database = sim_file(sim, STORE_DATABASE);
    for (size_t end = 4096; end <= database->length; end += 4096)
        oldest = database->data[end - 1] < oldest ? database->data[end - 1] : oldest;
    return oldest;
}

static void pages_move_to_a_new_key_and_then_the_old_one_opens_nothing(void **state)
{
    (void)state;
    static const struct store_key next = {.version = 2, .dek = "the second of the data keys ...."};
    struct sim *sim = sim_create(1);
    struct store *store = open_sim(sim);
    bool more = true;
    uint32_t steps = 0;
    assert_ok(store_migrate(store, &notes_1, &fault));
    for (int64_t id = 1; id <= 100; id++) {
        char text[2001];
        snprintf(text, sizeof text, "%2000lld", (long long)id);
        assert_ok(store_begin(store, &fault));
        assert_ok(add(store, id, text));
        assert_ok(store_commit(store, &fault));
    }
    assert_ok(store_checkpoint(store, &fault));
    assert_int_equal(store_add_key(store, keys, &fault), INTERNAL); /* not a newer one */
    assert_ok(store_add_key(store, &next, &fault));
    assert_int_equal(store_drop_keys(store, &fault), INTERNAL);
    assert_int_equal(oldest_version(sim), 1);
    for (int64_t id = 101; more; id++, steps++) {
        assert_ok(store_begin(store, &fault));
        assert_int_equal(store_reseal(&more, store, 4, &fault), INTERNAL);
        char text[32];
        snprintf(text, sizeof text, "%lld while pages move", (long long)id);
        assert_ok(add(store, id, text));
        assert_ok(store_commit(store, &fault));
        assert_ok(store_reseal(&more, store, 4, &fault));
        assert_int_equal(count(store), id);
    }
    assert_in_range(steps, 10, 60);
    assert_int_equal(oldest_version(sim), 2);
    assert_int_equal(sim_file(sim, STORE_WAL)->length, 0);
    assert_int_equal(sim_file(sim, STORE_RESEAL)->length, 0);
    assert_ok(store_drop_keys(store, &fault));
    assert_int_equal(count(store), 100 + steps);
    assert_int_equal(store_damage(store).count, 0);
    assert_ok(store_close(store, NULL, &fault));
    struct store_options options = options_over(sim);
    assert_int_equal(store_open(&store, &options, &fault), CORRUPT);
    options.keys = &next;
    assert_ok(store_open(&store, &options, &fault));
    assert_int_equal(count(store), 100 + steps);
    assert_ok(store_close(store, NULL, &fault));
    sim_free(sim);
}

/* ---- on the real disk ---- */

struct folder {
    char path[64];
    int fd;
};

static void folder_make(struct folder *folder)
{
    strcpy(folder->path, "/tmp/test-store-XXXXXX");
    assert_non_null(mkdtemp(folder->path));
    folder->fd = open(folder->path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    assert_true(folder->fd >= 0);
}

static void folder_remove(struct folder *folder)
{
    static const char *const names[] = {STORE_DATABASE,    STORE_WAL, STORE_MAP, STORE_KEYS,
                                        STORE_MAP ".new", "target"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        unlinkat(folder->fd, names[i], 0);
    close(folder->fd);
    assert_int_equal(rmdir(folder->path), 0); /* nothing else was left behind */
}

static struct store_options options_in(const struct folder *folder)
{
    return (struct store_options){
        .silo_fd = folder->fd, .silo_id = silo_id, .keys = keys, .key_count = 1};
}

static void it_works_in_a_real_directory_and_only_once_at_a_time(void **state)
{
    (void)state;
    struct folder folder;
    folder_make(&folder);
    struct store_options options = options_in(&folder);
    struct store *store, *second;
    assert_false(store_exists(folder.fd));
    assert_ok(store_open(&store, &options, &fault));
    assert_true(store_exists(folder.fd));
    assert_ok(store_migrate(store, &notes_1, &fault));
    assert_int_equal(store_open(&second, &options, &fault), UNAVAILABLE);
    assert_ok(store_begin(store, &fault));
    assert_ok(add(store, 1, "one"));
    assert_ok(store_commit(store, &fault));
    store_abandon(store);
    assert_ok(store_open(&store, &options, &fault));
    assert_int_equal(count(store), 1);
    assert_ok(store_close(store, NULL, &fault));
    struct stat found;
    assert_int_equal(fstatat(folder.fd, STORE_DATABASE, &found, 0), 0);
    assert_int_equal(found.st_mode & 0777, 0600);
    folder_remove(&folder);
}

static void links_are_not_followed(void **state)
{
    (void)state;
    struct folder folder;
    folder_make(&folder);
    struct store_options options = options_in(&folder);
    struct store *store;
    assert_int_equal(symlinkat("target", folder.fd, STORE_DATABASE), 0);
    assert_int_equal(store_open(&store, &options, &fault), INTERNAL);
    assert_int_equal(faccessat(folder.fd, "target", F_OK, 0), -1);
    assert_int_equal(unlinkat(folder.fd, STORE_DATABASE, 0), 0);
    assert_int_equal(symlinkat("target", folder.fd, STORE_WAL), 0);
    assert_int_equal(store_open(&store, &options, &fault), INTERNAL);
    assert_int_equal(faccessat(folder.fd, "target", F_OK, 0), -1);
    folder_remove(&folder);
}

static void small_files_are_replaced_whole(void **state)
{
    (void)state;
    struct folder folder;
    folder_make(&folder);
    _cleanup_buffer_ struct buffer read = buffer_of(64);
    assert_int_equal(store_read_small(&read, folder.fd, STORE_KEYS, &fault), NOT_FOUND);
    assert_ok(store_write_small(folder.fd, STORE_KEYS, SPAN("the first, longer one"), &fault));
    assert_ok(store_write_small(folder.fd, STORE_KEYS, SPAN("second"), &fault));
    assert_ok(store_read_small(&read, folder.fd, STORE_KEYS, &fault));
    assert_true(span_is(buffer_span(&read), "second"));
    assert_int_equal(faccessat(folder.fd, STORE_KEYS ".new", F_OK, 0), -1);
    struct buffer small = buffer_of(3);
    assert_int_equal(store_read_small(&small, folder.fd, STORE_KEYS, &fault), TOO_LARGE);
    static uint8_t large[STORE_SMALL_FILE_MAX + 1];
    assert_int_equal(store_write_small(folder.fd, STORE_KEYS, SPAN_OF(large), &fault), TOO_LARGE);
    buffer_free(&small);
    folder_remove(&folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_committed_is_there_after_parking),
        cmocka_unit_test(a_new_silo_takes_little_room),
        cmocka_unit_test(a_turn_that_wrote_nothing_costs_no_io),
        cmocka_unit_test(undo_takes_back_one_request_and_leaves_the_turn),
        cmocka_unit_test(what_could_not_be_undone_is_never_committed),
        cmocka_unit_test(writing_outside_of_a_transaction_is_refused),
        cmocka_unit_test(statements_say_what_went_wrong),
        cmocka_unit_test(statements_carry_every_type),
        cmocka_unit_test(more_statements_than_are_kept_work_too),
        cmocka_unit_test(tables_are_made_and_changed_when_first_needed),
        cmocka_unit_test(a_migration_that_is_rolled_back_is_done_again),
        cmocka_unit_test(no_other_file_can_be_reached_by_sql),
        cmocka_unit_test(a_large_turn_spills_into_the_wal_and_is_whole),
        cmocka_unit_test(the_wal_is_moved_into_the_database_as_it_grows),
        cmocka_unit_test(a_silo_can_become_smaller),
        cmocka_unit_test(pages_of_an_older_key_are_still_read),
        cmocka_unit_test(pages_move_to_a_new_key_and_then_the_old_one_opens_nothing),
        cmocka_unit_test(it_works_in_a_real_directory_and_only_once_at_a_time),
        cmocka_unit_test(links_are_not_followed),
        cmocka_unit_test(small_files_are_replaced_whole),
    };
    return cmocka_run_group_tests(tests, start_store, NULL);
}
