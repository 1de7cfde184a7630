/* Changes the files of a silo in every way that somebody with the disk could, and opens it: the
 * answer is an error or the truth. Without an anchor the newest commits may be missing, as a whole;
 * a mixture of times is never allowed. */
#include "support.h"

#include <stdlib.h>

static struct fault fault;

enum { ROWS = 60, TIMES_MAX = 24 };

/* The content is a function of the time: every turn rewrites a third of the rows. */
static void value_at(char text[160], uint32_t row, uint32_t time)
{
    uint32_t written = time - (time + 2 * row) % 3;
    if (written > time) /* before the row was ever rewritten */
        written = 0;
    snprintf(text, 160, "row %u as of %u %0*u", row, written, (int)(60 + row), written * 977 + row);
}

static const char *const versions[] = {
    "CREATE TABLE item (row INTEGER PRIMARY KEY, text TEXT NOT NULL);"
    "CREATE INDEX item_text ON item (text);"};
static const struct store_schema schema = {"item", versions, 1};

static void turn(struct store *store, uint32_t time)
{
    assert_ok(store_begin(store, &fault));
    assert_ok(store_migrate(store, &schema, &fault));
    for (uint32_t row = 0; row < ROWS; row++) {
        char text[160];
        _cleanup_statement_ struct statement *put = NULL;
        assert_ok(statement_open(&put, store,
                                 "INSERT INTO item VALUES (?1, ?2) ON CONFLICT (row)"
                                 " DO UPDATE SET text = excluded.text WHERE text <> excluded.text",
                                 &fault));
        value_at(text, row, time);
        statement_bind_int(put, 1, row);
        statement_bind_text(put, 2, span_of_text(text));
        assert_ok(statement_run(put, &fault));
    }
    {
        _cleanup_statement_ struct statement *clock = NULL;
        assert_ok(statement_open(&clock, store,
                                 "INSERT OR REPLACE INTO store_state VALUES ('time', ?1)", &fault));
        statement_bind_int(clock, 1, time);
        assert_ok(statement_run(clock, &fault));
    }
    assert_ok(store_commit(store, &fault));
}

static struct store *open_at(struct sim *sim, const uint8_t *id)
{
    struct store_options options = options_over(sim);
    struct store *store;
    options.silo_id = id;
    assert_ok(store_open(&store, &options, &fault));
    return store;
}

/* The same silo at three times: two parked, and one crashed with commits in the WAL. */
enum { OLD, PARKED, CRASHED, COPIES };

struct silo {
    struct sim *copies[COPIES];
    struct store_anchor anchors[COPIES];
    uint32_t times[COPIES];
};

static struct silo silo, stranger;

static void make_silo(struct silo *made, const uint8_t *id, uint64_t seed)
{
    struct sim *sim = sim_create(seed);
    uint32_t time = 0;
    for (int copy = OLD; copy <= PARKED; copy++) {
        struct store *store = open_at(sim, id);
        for (int i = 0; i < 4; i++)
            turn(store, ++time);
        assert_ok(store_close(store, &made->anchors[copy], &fault));
        made->copies[copy] = sim_copy(sim);
        made->times[copy] = time;
    }
    struct store *store = open_at(sim, id);
    turn(store, ++time);
    assert_ok(store_checkpoint(store, &fault));
    for (int i = 0; i < 4; i++)
        turn(store, ++time);
    made->anchors[CRASHED] = store_anchor(store);
    made->times[CRASHED] = time;
    made->copies[CRASHED] = sim_copy(sim);
    store_abandon(store);
    sim_free(sim);
}

enum verdict { ERROR, TRUTH, LOST_TAIL };

/* Reads everything. What is neither an error nor exactly the content of one time fails the test. */
static enum verdict read_all(struct store *store, uint32_t now)
{
    _cleanup_statement_ struct statement *clock = NULL, *rows = NULL, *check = NULL;
    if (statement_open(&clock, store, "SELECT value FROM store_state WHERE name = 'time'",
                       &fault) != OK ||
        statement_step(clock, &fault) != OK)
        return ERROR;
    uint32_t time = (uint32_t)statement_int(clock, 0), seen = 0;
    assert_in_range(time, 1, now);
    if (statement_open(&rows, store, "SELECT row, text FROM item ORDER BY row", &fault) != OK)
        return ERROR;
    status found;
    while ((found = statement_step(rows, &fault)) == OK) {
        char text[160];
        value_at(text, seen, time);
        assert_int_equal(statement_int(rows, 0), seen++);
        assert_true(span_is(statement_span(rows, 1), text));
    }
    if (found != NOT_FOUND)
        return ERROR;
    assert_int_equal(seen, ROWS);
    if (store_begin(store, &fault) != OK ||
        statement_open(&check, store, "PRAGMA integrity_check", &fault) != OK ||
        statement_step(check, &fault) != OK)
        return ERROR;
    if (!span_is(statement_span(check, 0), "ok"))
        return ERROR;
    return time == now ? TRUTH : LOST_TAIL;
}

static enum verdict judge(const struct sim *changed, int copy, bool anchored)
{
    struct sim *sim = sim_copy(changed);
    struct store_options options = options_over(sim);
    struct store *store;
    options.anchor = anchored ? &silo.anchors[copy] : NULL;
    enum verdict verdict = ERROR;
    status opened = store_open(&store, &options, &fault);
    if (opened == OK) {
        verdict = read_all(store, silo.times[copy]);
        store_rollback(store);
        if (verdict == ERROR && store_damage(store).count == 0)
            fail_msg("an error without damage: %s", fault.detail);
        store_abandon(store);
    } else if (opened != CORRUPT && opened != ROLLED_BACK) {
        fail_msg("not a refusal: %s: %s", status_code(opened), fault.detail);
    }
    sim_free(sim);
    return verdict;
}

static void never_believed(const struct sim *changed, int copy, bool tail_may_go)
{
    assert_int_not_equal(judge(changed, copy, true), LOST_TAIL);
    if (judge(changed, copy, false) == LOST_TAIL)
        assert_true(tail_may_go);
}

static void must_fail(const struct sim *changed, int copy)
{
    assert_int_equal(judge(changed, copy, false), ERROR);
    assert_int_equal(judge(changed, copy, true), ERROR);
}

static void flip(struct sim *sim, const char *name, size_t at)
{
    sim_file(sim, name)->data[at] ^= (uint8_t)(1u << sim_random(sim, 8));
}

static int make_silos(void **state)
{
    if (start_store(state) != 0)
        return -1;
    make_silo(&silo, silo_id, 7);
    make_silo(&stranger, other_silo_id, 8);
    return 0;
}

static int free_silos(void **state)
{
    (void)state;
    for (int copy = 0; copy < COPIES; copy++) {
        sim_free(silo.copies[copy]);
        sim_free(stranger.copies[copy]);
    }
    return 0;
}

static void unchanged_copies_are_read(void **state)
{
    (void)state;
    for (int copy = 0; copy < COPIES; copy++) {
        assert_int_equal(judge(silo.copies[copy], copy, false), TRUTH);
        assert_int_equal(judge(silo.copies[copy], copy, true), TRUTH);
    }
}

static void every_flipped_bit_of_a_parked_silo_is_an_error(void **state)
{
    (void)state;
    static const char *const names[] = {STORE_DATABASE, STORE_MAP};
    for (size_t i = 0; i < 2; i++) {
        struct sim *sim = sim_copy(silo.copies[PARKED]);
        size_t length = sim_file(sim, names[i])->length;
        for (size_t at = 0; at < length; at += 1 + sim_random(sim, i == 0 ? 90 : 3)) {
            struct sim *changed = sim_copy(sim);
            flip(changed, names[i], at);
            assert_int_equal(judge(changed, PARKED, false), ERROR);
            sim_free(changed);
            sim_random(sim, 2); /* another bit for the next copy */
        }
        sim_free(sim);
    }
}

static void every_byte_of_a_seals_trailer_counts(void **state)
{
    (void)state;
    struct sim *sim = sim_copy(silo.copies[PARKED]);
    for (size_t at = 2 * 4096 - 44; at < 2 * 4096; at++) {
        flip(sim, STORE_DATABASE, at);
        must_fail(sim, PARKED);
        sim_free(sim);
        sim = sim_copy(silo.copies[PARKED]);
    }
    sim_free(sim);
}

/* Of a live WAL only the last commit can be destroyed without proof; with the anchor, nothing. */
static void flipped_bits_of_a_live_wal_never_change_the_past(void **state)
{
    (void)state;
    struct sim *sim = sim_copy(silo.copies[CRASHED]);
    size_t length = sim_file(sim, STORE_WAL)->length, frames = 2 * 4096;
    uint32_t errors = 0, tails = 0;
    for (size_t at = 0; at < length; at += 1 + sim_random(sim, at < frames ? 40 : 150)) {
        struct sim *changed = sim_copy(sim);
        sim_random(sim, 2);
        flip(changed, STORE_WAL, at);
        enum verdict without = judge(changed, CRASHED, false), with = judge(changed, CRASHED, true);
        assert_int_not_equal(with, LOST_TAIL);
        if (at >= frames)
            assert_int_equal(with, ERROR);
        errors += without == ERROR;
        tails += without == LOST_TAIL;
        sim_free(changed);
    }
    assert_true(errors > 2 * tails && tails > 0);
    sim_free(sim);
}

static void a_wal_that_has_lost_its_header_is_noticed(void **state)
{
    (void)state;
    for (int both = 0; both < 2; both++) {
        struct sim *sim = sim_copy(silo.copies[CRASHED]);
        struct sim_bytes *wal = sim_file(sim, STORE_WAL);
        for (size_t at = 0; at < 2 * 4096; at += both ? 1 : 4096)
            wal->data[at] ^= 1;
        must_fail(sim, CRASHED);
        sim_free(sim);
    }
}

static void flipped_bits_of_a_live_database_and_map_are_never_believed(void **state)
{
    (void)state;
    static const char *const names[] = {STORE_DATABASE, STORE_MAP};
    for (size_t i = 0; i < 2; i++) {
        struct sim *sim = sim_copy(silo.copies[CRASHED]);
        size_t length = sim_file(sim, names[i])->length;
        for (size_t at = 0; at < length; at += 1 + sim_random(sim, i == 0 ? 200 : 6)) {
            struct sim *changed = sim_copy(sim);
            sim_random(sim, 2);
            flip(changed, names[i], at);
            never_believed(changed, CRASHED, false);
            sim_free(changed);
        }
        sim_free(sim);
    }
}

static void swap(struct sim *sim, const char *name, size_t left, size_t right, size_t length)
{
    struct sim_bytes *file = sim_file(sim, name);
    for (size_t i = 0; i < length; i++) {
        uint8_t kept = file->data[left + i];
        file->data[left + i] = file->data[right + i];
        file->data[right + i] = kept;
    }
}

static void swapped_pages_and_frames_are_errors(void **state)
{
    (void)state;
    size_t pages = sim_file(silo.copies[PARKED], STORE_DATABASE)->length / 4096;
    size_t frames = (sim_file(silo.copies[CRASHED], STORE_WAL)->length - 8192) / 4120;
    assert_true(pages >= 6 && frames >= 20);
    for (size_t left = 0; left < pages; left++)
        for (size_t right = left + 1; right < pages; right++) {
            struct sim *sim = sim_copy(silo.copies[PARKED]);
            swap(sim, STORE_DATABASE, left * 4096, right * 4096, 4096);
            must_fail(sim, PARKED);
            sim_free(sim);
        }
    for (size_t left = 0; left < frames; left++)
        for (size_t right = left + 1; right < frames; right += 3) {
            struct sim *sim = sim_copy(silo.copies[CRASHED]);
            swap(sim, STORE_WAL, 8192 + left * 4120, 8192 + right * 4120, 4120);
            assert_int_equal(judge(sim, CRASHED, true), ERROR);
            never_believed(sim, CRASHED, true);
            sim_free(sim);
        }
}

static void cut_files_are_errors_but_for_the_unanchored_tail(void **state)
{
    (void)state;
    static const char *const names[] = {STORE_DATABASE, STORE_MAP, STORE_WAL};
    for (int copy = PARKED; copy <= CRASHED; copy++)
        for (size_t i = 0; i < 3; i++) {
            size_t length = sim_file(silo.copies[copy], names[i])->length;
            size_t step = length / 150 + 1;
            for (size_t kept = 0; kept < length; kept += step) {
                struct sim *sim = sim_copy(silo.copies[copy]);
                sim_resize(sim, names[i], kept);
                never_believed(sim, copy, i == 2);
                if (i == 2)
                    assert_int_equal(judge(sim, copy, true), ERROR);
                if (copy == PARKED)
                    must_fail(sim, copy);
                sim_free(sim);
            }
        }
}

static void longer_files_are_errors_or_change_nothing(void **state)
{
    (void)state;
    static const char *const names[] = {STORE_DATABASE, STORE_MAP, STORE_WAL};
    for (int copy = PARKED; copy <= CRASHED; copy++)
        for (size_t i = 0; i < 3; i++)
            for (size_t more = 1; more < 20000; more = more * 3 + 1) {
                struct sim *sim = sim_copy(silo.copies[copy]);
                sim_resize(sim, names[i], sim_file(sim, names[i])->length + more);
                never_believed(sim, copy, false);
                if (copy == PARKED && i < 2)
                    must_fail(sim, copy);
                sim_free(sim);
            }
}

static void missing_files_are_errors_but_for_the_unanchored_tail(void **state)
{
    (void)state;
    for (int copy = 0; copy < COPIES; copy++)
        for (int gone = 1; gone < 8; gone++) {
            struct sim *sim = sim_copy(silo.copies[copy]);
            if (gone & 1)
                sim_remove(sim, STORE_WAL);
            if (gone & 2)
                sim_remove(sim, STORE_DATABASE);
            if (gone & 4)
                sim_remove(sim, STORE_MAP);
            struct store_options options = options_over(sim);
            struct store *store;
            options.anchor = &silo.anchors[copy];
            status opened = store_open(&store, &options, &fault);
            if (opened == OK) { /* the empty WAL of a parked silo holds nothing */
                assert_true(gone == 1 && copy != CRASHED);
                store_abandon(store);
            } else {
                assert_true(opened == ROLLED_BACK || opened == CORRUPT);
            }
            sim_free(sim);
        }
}

static void put_from(struct sim *sim, const char *name, const struct sim *from)
{
    struct sim *source = sim_copy(from);
    struct sim_bytes *file = sim_file(source, name);
    sim_set(sim, name, (struct span){file->data, file->length});
    sim_free(source);
}

/* Every mixture of the three files of three times. */
static void files_of_different_times_are_never_believed(void **state)
{
    (void)state;
    uint32_t errors = 0;
    for (int mixture = 0; mixture < 27; mixture++) {
        int database = mixture % 3, map = mixture / 3 % 3, wal = mixture / 9;
        struct sim *sim = sim_copy(silo.copies[CRASHED]);
        put_from(sim, STORE_DATABASE, silo.copies[database]);
        put_from(sim, STORE_MAP, silo.copies[map]);
        put_from(sim, STORE_WAL, silo.copies[wal]);
        enum verdict with = judge(sim, CRASHED, true), without = judge(sim, CRASHED, false);
        assert_int_not_equal(with, LOST_TAIL);
        if (map != CRASHED || wal != CRASHED)
            assert_int_equal(with, ERROR);
        if (without == LOST_TAIL)
            assert_int_equal(database, map);
        errors += without == ERROR;
        sim_free(sim);
    }
    assert_true(errors >= 18);
}

static void an_older_page_in_its_own_place_is_an_error(void **state)
{
    (void)state;
    struct sim_bytes *old = sim_file(silo.copies[OLD], STORE_DATABASE);
    struct sim_bytes *new = sim_file(silo.copies[PARKED], STORE_DATABASE);
    uint32_t replaced = 0;
    for (size_t at = 0; at + 4096 <= old->length && at + 4096 <= new->length; at += 4096) {
        if (memcmp(old->data + at, new->data + at, 4096) == 0)
            continue;
        struct sim *sim = sim_copy(silo.copies[PARKED]);
        memcpy(sim_file(sim, STORE_DATABASE)->data + at, old->data + at, 4096);
        must_fail(sim, PARKED);
        replaced++;
        sim_free(sim);
    }
    assert_true(replaced >= 4);
}

static void files_and_pages_of_another_silo_are_errors(void **state)
{
    (void)state;
    static const char *const names[] = {STORE_DATABASE, STORE_MAP, STORE_WAL};
    for (int which = 1; which < 8; which++) {
        struct sim *sim = sim_copy(silo.copies[CRASHED]);
        for (int i = 0; i < 3; i++)
            if (which & 1 << i)
                put_from(sim, names[i], stranger.copies[CRASHED]);
        assert_int_equal(judge(sim, CRASHED, true), ERROR);
        never_believed(sim, CRASHED, which == 4);
        sim_free(sim);
    }
    struct sim_bytes *theirs = sim_file(stranger.copies[PARKED], STORE_DATABASE);
    for (size_t at = 0; at + 4096 <= theirs->length; at += 4096) {
        struct sim *sim = sim_copy(silo.copies[PARKED]);
        if (at + 4096 <= sim_file(sim, STORE_DATABASE)->length) {
            memcpy(sim_file(sim, STORE_DATABASE)->data + at, theirs->data + at, 4096);
            must_fail(sim, PARKED);
        }
        sim_free(sim);
    }
}

static void an_older_wal_is_not_replayed(void **state)
{
    (void)state;
    const struct sim *crashed = silo.copies[CRASHED];
    struct sim *sim = sim_copy(crashed);
    struct store_options options = options_over(sim);
    struct store *store = open_at(sim, silo_id); /* recovers and empties the WAL */
    assert_ok(store_close(store, NULL, &fault));

    put_from(sim, STORE_WAL, crashed); /* as if its emptying had not reached the disk */
    store = open_at(sim, silo_id);
    assert_int_equal(read_all(store, silo.times[CRASHED]), TRUTH);
    store_rollback(store);
    assert_ok(store_close(store, NULL, &fault));

    put_from(sim, STORE_WAL, crashed); /* but for less than is in the database, an error */
    sim_resize(sim, STORE_WAL, sim_file(sim, STORE_WAL)->length - 4120);
    assert_int_equal(store_open(&store, &options, &fault), ROLLED_BACK);

    sim_resize(sim, STORE_WAL, 0);
    store = open_at(sim, silo_id);
    turn(store, silo.times[CRASHED] + 1);
    assert_ok(store_close(store, NULL, &fault));
    put_from(sim, STORE_WAL, crashed); /* and so is a WAL from before the last one */
    assert_int_equal(store_open(&store, &options, &fault), ROLLED_BACK);
    sim_free(sim);
}

static void the_anchor_refuses_a_silo_as_a_whole_that_is_older(void **state)
{
    (void)state;
    for (int copy = OLD; copy < CRASHED; copy++) {
        struct sim *sim = sim_copy(silo.copies[copy]);
        struct store_options options = options_over(sim);
        struct store *store;
        for (int anchor = copy + 1; anchor < COPIES; anchor++) {
            options.anchor = &silo.anchors[anchor];
            assert_int_equal(store_open(&store, &options, &fault), ROLLED_BACK);
        }
        struct store_anchor other = silo.anchors[copy];
        options.anchor = &other;
        other.map_hash[5] ^= 1; /* the same generation, but not the same map */
        assert_int_equal(store_open(&store, &options, &fault), ROLLED_BACK);
        other = silo.anchors[copy];
        other.commits++;
        assert_int_equal(store_open(&store, &options, &fault), ROLLED_BACK);
        other.commits -= 2;
        assert_ok(store_open(&store, &options, &fault));
        store_abandon(store);
        sim_free(sim);
    }
}

static void the_anchor_knows_the_very_first_map(void **state)
{
    (void)state;
    struct sim *sim = sim_create(1);
    struct store_options options = options_over(sim);
    struct store_anchor anchor;
    struct store *store = open_at(sim, silo_id);
    assert_ok(store_close(store, &anchor, &fault));
    assert_int_equal(anchor.commits, 0);
    options.anchor = &anchor;
    assert_ok(store_open(&store, &options, &fault));
    store_abandon(store);
    sim_set(sim, STORE_DATABASE, SPAN("")); /* made anew by somebody else with the key */
    sim_remove(sim, STORE_MAP);
    options.anchor = NULL;
    assert_ok(store_open(&store, &options, &fault));
    store_abandon(store);
    options.anchor = &anchor;
    assert_int_equal(store_open(&store, &options, &fault), ROLLED_BACK);
    sim_free(sim);
}

static void a_wrong_key_opens_nothing(void **state)
{
    (void)state;
    static const struct store_key wrong[] = {
        {.version = 1, .dek = "not the data key of this silo .."}};
    for (int copy = 0; copy < COPIES; copy++) {
        struct sim *sim = sim_copy(silo.copies[copy]);
        struct store_options options = options_over(sim);
        struct store *store;
        options.keys = wrong;
        assert_int_equal(store_open(&store, &options, &fault), CORRUPT);
        sim_free(sim);
    }
}

/* The disk changes while the silo is open: what comes from it is still checked. */
static void changes_under_an_open_silo_are_noticed(void **state)
{
    (void)state;
    struct sim *sim = sim_copy(silo.copies[PARKED]);
    struct store *store = open_at(sim, silo_id);
    struct sim_bytes *old = sim_file(silo.copies[OLD], STORE_DATABASE);
    memcpy(sim_file(sim, STORE_DATABASE)->data + 4096, old->data + 4096, old->length - 4096);
    store_trim(store);
    assert_int_equal(read_all(store, silo.times[PARKED]), ERROR);
    store_rollback(store);
    assert_true(store_damage(store).count > 0);
    assert_string_equal(store_damage(store).last_file, STORE_DATABASE);
    store_abandon(store);
    sim_free(sim);

    sim = sim_copy(silo.copies[PARKED]);
    store = open_at(sim, silo_id);
    turn(store, silo.times[PARKED] + 1);
    struct sim_bytes *wal = sim_file(sim, STORE_WAL);
    for (size_t at = 8192; at < wal->length; at += 4120)
        wal->data[at + 100] ^= 1;
    store_trim(store);
    assert_int_equal(read_all(store, silo.times[PARKED] + 1), ERROR);
    store_rollback(store);
    assert_string_equal(store_damage(store).last_file, STORE_WAL);
    assert_int_not_equal(store_close(store, NULL, &fault), OK);
    sim_free(sim);
}

/* A frame of the same place in the same WAL, sealed for a turn that was rolled back. */
static void a_frame_of_a_turn_that_never_was_is_not_believed(void **state)
{
    (void)state;
    static const char spill[] =
        "UPDATE item SET text = hex(randomblob(1900)) || row;"
        "UPDATE item SET text = hex(randomblob(1900)) || row;";
    struct sim *sim = sim_copy(silo.copies[PARKED]), *before;
    struct store_options options = options_over(sim);
    struct store *store;
    options.cache_kib = 16;
    assert_ok(store_open(&store, &options, &fault));
    turn(store, silo.times[PARKED] + 1);
    size_t committed = sim_file(sim, STORE_WAL)->length;
    assert_ok(store_begin(store, &fault));
    assert_ok(store_execute(store, spill, &fault));
    assert_true(sim_file(sim, STORE_WAL)->length > committed + 4 * 4120);
    before = sim_copy(sim);
    store_rollback(store);
    turn(store, silo.times[PARKED] + 2);
    assert_int_equal(read_all(store, silo.times[PARKED] + 2), TRUTH);
    store_rollback(store);
    memcpy(sim_file(sim, STORE_WAL)->data + committed,
           sim_file(before, STORE_WAL)->data + committed, 4 * 4120);
    store_trim(store);
    assert_int_equal(read_all(store, silo.times[PARKED] + 2), ERROR);
    store_rollback(store);
    assert_true(store_damage(store).count > 0);
    struct store_anchor anchor = store_anchor(store);
    store_abandon(store);
    options.anchor = &anchor;
    assert_int_equal(store_open(&store, &options, &fault), ROLLED_BACK);
    sim_free(before);
    sim_free(sim);
}

/* A write that meets a damaged page may have happened in part: it is undone or the turn fails. */
static void a_write_that_met_damage_is_not_committed_in_part(void **state)
{
    (void)state;
    static const char write[] = "UPDATE item SET text = text || 'x'";
    struct sim *sim = sim_copy(silo.copies[PARKED]);
    struct store *store = open_at(sim, silo_id);
    assert_ok(store_migrate(store, &schema, &fault));
    size_t pages = sim_file(sim, STORE_DATABASE)->length / 4096;
    store_trim(store);
    for (size_t page = 3; page < pages; page++) /* the first two hold the schema and the counters */
        flip(sim, STORE_DATABASE, page * 4096 - 4096 + 7);
    for (int undone = 0; undone < 2; undone++) {
        assert_ok(store_begin(store, &fault));
        assert_ok(store_savepoint(store, &fault));
        assert_ok(store_execute(store, "INSERT INTO store_state VALUES ('other', 1)", &fault));
        assert_ok(store_savepoint(store, &fault));
        assert_int_equal(store_execute(store, write, &fault), CORRUPT);
        if (undone) {
            assert_ok(store_undo(store, &fault));
        } else {
            assert_ok(store_savepoint(store, &fault)); /* undoing something else does not help */
            assert_ok(store_undo(store, &fault));
            assert_ok(store_release(store, &fault));
        }
        assert_ok(store_release(store, &fault));
        assert_int_equal(store_release(store, &fault), INTERNAL);
        {
            _cleanup_statement_ struct statement *read = NULL; /* leaves nothing half done */
            assert_ok(statement_open(&read, store, "SELECT sum(length(text)) FROM item", &fault));
            assert_int_equal(statement_step(read, &fault), CORRUPT);
        }
        if (undone)
            assert_ok(store_commit(store, &fault));
        else
            assert_int_equal(store_commit(store, &fault), CORRUPT);
        assert_false(store_in_transaction(store));
    }
    store_abandon(store);
    sim_free(sim);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unchanged_copies_are_read),
        cmocka_unit_test(every_flipped_bit_of_a_parked_silo_is_an_error),
        cmocka_unit_test(every_byte_of_a_seals_trailer_counts),
        cmocka_unit_test(flipped_bits_of_a_live_wal_never_change_the_past),
        cmocka_unit_test(a_wal_that_has_lost_its_header_is_noticed),
        cmocka_unit_test(flipped_bits_of_a_live_database_and_map_are_never_believed),
        cmocka_unit_test(swapped_pages_and_frames_are_errors),
        cmocka_unit_test(cut_files_are_errors_but_for_the_unanchored_tail),
        cmocka_unit_test(longer_files_are_errors_or_change_nothing),
        cmocka_unit_test(missing_files_are_errors_but_for_the_unanchored_tail),
        cmocka_unit_test(files_of_different_times_are_never_believed),
        cmocka_unit_test(an_older_page_in_its_own_place_is_an_error),
        cmocka_unit_test(files_and_pages_of_another_silo_are_errors),
        cmocka_unit_test(an_older_wal_is_not_replayed),
        cmocka_unit_test(the_anchor_refuses_a_silo_as_a_whole_that_is_older),
        cmocka_unit_test(the_anchor_knows_the_very_first_map),
        cmocka_unit_test(a_wrong_key_opens_nothing),
        cmocka_unit_test(changes_under_an_open_silo_are_noticed),
        cmocka_unit_test(a_frame_of_a_turn_that_never_was_is_not_believed),
        cmocka_unit_test(a_write_that_met_damage_is_not_committed_in_part),
    };
    return cmocka_run_group_tests(tests, make_silos, free_silos);
}
