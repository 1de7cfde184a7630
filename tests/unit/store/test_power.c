/* Cuts the power at every step of a silo's life and looks what is left. */
#include "support.h"

#include <stdlib.h>

static struct fault fault;

/* What the process under test knows when the power goes. */
struct known {
    uint64_t acknowledged; /* turns: each adds one row and changes one */
    struct store_anchor anchor;
    uint32_t openings;
    bool dropped; /* nothing is sealed under the first key any more: it is gone */
};

static const struct store_key both[] = {
    {.version = 2, .dek = "the second of the data keys ...."},
    {.version = 1, .dek = "thirty-two bytes of data key ..."},
};

/* Opens, works and closes until something fails; every turn is one commit. */
struct work {
    uint32_t lives;      /* openings */
    uint32_t turns;      /* in each */
    uint32_t row_bytes;
    uint32_t checkpoint_every;  /* turns; 0: only when parked */
    uint32_t checkpoint_frames; /* after which the WAL starts over in place; 0: rarely */
    bool parks;
    uint32_t reseals; /* pages after each turn to a second key, from the second opening on */
};

/* Whoever opens it has what silo.keys holds: not the second key before it was made, not the first
 * once it was dropped. */
static void choose_keys(struct store_options *options, const struct known *known,
                        const struct work *work)
{
    if (work->reseals == 0 || known->openings < 2)
        return;
    options->keys = both;
    options->key_count = known->dropped ? 1 : 2;
}

static status reseal(struct known *known, struct store *store, const struct work *work)
{
    bool more;
    if (work->reseals == 0 || known->openings < 2 || known->dropped)
        return OK;
    TRY(store_reseal(&more, store, work->reseals, &fault));
    if (!more)
        TRY(store_drop_keys(store, &fault));
    known->dropped = !more;
    return OK;
}

static status turn(struct store *store, uint64_t number, uint32_t row_bytes)
{
    _cleanup_statement_ struct statement *add = NULL, *last = NULL;
    TRY(store_begin(store, &fault));
    TRY(statement_open(&add, store, "INSERT INTO turn VALUES (?1, ?2, randomblob(?3))", &fault));
    statement_bind_int(add, 1, (int64_t)number);
    statement_bind_int(add, 2, (int64_t)(number * 7));
    statement_bind_int(add, 3, row_bytes);
    TRY(statement_run(add, &fault));
    TRY(statement_open(&last, store, "UPDATE last SET number = ?1", &fault));
    statement_bind_int(last, 1, (int64_t)number);
    TRY(statement_run(last, &fault));
    return store_commit(store, &fault);
}

static const char *const versions[] = {
    "CREATE TABLE turn (number INTEGER PRIMARY KEY, seven INTEGER, data BLOB);"
    "CREATE TABLE last (number INTEGER); INSERT INTO last VALUES (0);"};
static const struct store_schema schema = {"turn", versions, 1};

static status live(struct known *known, struct sim *sim, const struct work *work)
{
    struct store_options options = options_over(sim);
    struct store *store;
    options.anchor = &known->anchor;
    options.cache_kib = 16; /* so that turns spill */
    options.checkpoint_frames = work->checkpoint_frames;
    known->openings++;
    choose_keys(&options, known, work);
    TRY(store_open(&store, &options, &fault));
    status lived = store_migrate(store, &schema, &fault);
    for (uint32_t i = 0; i < work->turns && lived == OK; i++) {
        lived = turn(store, known->acknowledged + 1, work->row_bytes);
        if (lived != OK)
            break;
        known->acknowledged++;
        known->anchor = store_anchor(store);
        if (work->checkpoint_every != 0 && i % work->checkpoint_every == 0)
            lived = store_checkpoint(store, &fault);
        if (lived == OK)
            lived = reseal(known, store, work);
        if (lived == OK)
            known->anchor = store_anchor(store);
    }
    if (lived != OK || !work->parks) {
        store_abandon(store);
        return lived;
    }
    return store_close(store, &known->anchor, &fault);
}

static int64_t number(struct store *store, const char *sql)
{
    _cleanup_statement_ struct statement *read = NULL;
    assert_ok(statement_open(&read, store, sql, &fault));
    assert_ok(statement_step(read, &fault));
    return statement_int(read, 0);
}

/* All that was acknowledged is there, in order and whole; at most the turn under way besides. */
static uint64_t check(struct sim *sim, const struct known *known, const struct work *work,
                      const char *where)
{
    struct store_options options = options_over(sim);
    struct store *store;
    options.anchor = &known->anchor;
    choose_keys(&options, known, work);
    status opened = store_open(&store, &options, &fault);
    if (opened != OK)
        fail_msg("%s: %s: %s", where, status_code(opened), fault.detail);
    assert_ok(store_migrate(store, &schema, &fault));
    uint64_t last = (uint64_t)number(store, "SELECT number FROM last");
    assert_in_range(last, known->acknowledged, known->acknowledged + 1);
    assert_int_equal(number(store, "SELECT count(*) FROM turn"), last);
    assert_int_equal(number(store, "SELECT ifnull(max(number), 0) FROM turn"), last);
    assert_int_equal(number(store, "SELECT count(*) FROM turn WHERE seven <> number * 7"), 0);
    {
        _cleanup_statement_ struct statement *whole = NULL;
        assert_ok(store_begin(store, &fault));
        assert_ok(statement_open(&whole, store, "PRAGMA integrity_check", &fault));
        assert_ok(statement_step(whole, &fault));
        assert_true(span_is(statement_span(whole, 0), "ok"));
    }
    assert_ok(store_commit(store, &fault));
    assert_int_equal(store_damage(store).count, 0);
    assert_ok(turn(store, last + 1, 100)); /* and it goes on */
    assert_ok(store_close(store, NULL, &fault));
    return last;
}

static void run_until_cut(struct sim *sim, struct known *known, const struct work *work)
{
    for (uint32_t i = 0; i < work->lives; i++)
        if (live(known, sim, work) != OK)
            return;
}

/* Every cut point of one kind of life, each with several tosses of the coin. */
static void cut_everywhere(const struct work *work, uint32_t tosses)
{
    struct sim *whole = sim_create(1);
    struct known all = {0};
    run_until_cut(whole, &all, work);
    uint64_t steps = whole->mutations;
    assert_int_equal(all.acknowledged, (uint64_t)work->lives * work->turns);
    check(whole, &all, work, "without a cut");
    assert_true(work->reseals == 0 || all.dropped);
    sim_free(whole);
    for (uint64_t cut = 1; cut <= steps; cut++)
        for (uint32_t toss = 0; toss < tosses; toss++) {
            char where[64];
            struct sim *sim = sim_create(cut * 1000 + toss);
            struct known known = {0};
            snprintf(where, sizeof where, "cut %llu of %llu, toss %u", (unsigned long long)cut,
                     (unsigned long long)steps, toss);
            sim->cut_at = cut;
            run_until_cut(sim, &known, work);
            assert_true(sim->off);
            sim_power_cycle(sim);
            check(sim, &known, work, where);
            sim_free(sim);
        }
}

static void no_cut_loses_a_commit_of_small_turns(void **state)
{
    (void)state;
    cut_everywhere(&(struct work){.lives = 3, .turns = 5, .row_bytes = 200, .parks = true}, 3);
}

static void no_cut_loses_a_commit_when_the_wal_is_moved_often(void **state)
{
    (void)state;
    cut_everywhere(&(struct work){.lives = 2, .turns = 8, .row_bytes = 3000,
                                  .checkpoint_every = 2, .parks = true},
                   3);
}

static void no_cut_loses_a_commit_when_the_wal_starts_over_in_place(void **state)
{
    (void)state;
    cut_everywhere(&(struct work){.lives = 1, .turns = 16, .row_bytes = 3000,
                                  .checkpoint_frames = 9, .parks = true},
                   4);
    cut_everywhere(&(struct work){.lives = 2, .turns = 9, .row_bytes = 300,
                                  .checkpoint_frames = 1, .parks = false},
                   3);
}

static void no_cut_loses_a_commit_of_turns_that_spill(void **state)
{
    (void)state;
    cut_everywhere(&(struct work){.lives = 1, .turns = 2, .row_bytes = 60000, .parks = true}, 3);
}

static void no_cut_loses_a_commit_of_lives_that_end_in_crashes(void **state)
{
    (void)state;
    cut_everywhere(&(struct work){.lives = 3, .turns = 4, .row_bytes = 1000, .parks = false}, 4);
}

/* The map is compacted and the WAL starts over inside one life: random cuts in a long one. */
static void no_cut_loses_a_commit_of_a_long_life(void **state)
{
    (void)state;
    const struct work work = {.lives = 1, .turns = 400, .row_bytes = 5000,
                              .checkpoint_every = 60, .parks = true};
    struct sim *whole = sim_create(1);
    struct known all = {0};
    run_until_cut(whole, &all, &work);
    uint64_t steps = whole->mutations;
    sim_free(whole);
    for (uint64_t seed = 1; seed <= 12; seed++) {
        struct sim *sim = sim_create(seed);
        struct known known = {0};
        sim->cut_at = 1 + sim_random(sim, steps);
        run_until_cut(sim, &known, &work);
        sim_power_cycle(sim);
        check(sim, &known, &work, "a long life");
        sim_free(sim);
    }
}

/* The power fails again and again, also while the crash before is being recovered. */
static void no_cut_loses_a_page_that_moves_to_another_key(void **state)
{
    (void)state;
    cut_everywhere(&(struct work){.lives = 3, .turns = 4, .row_bytes = 3000, .reseals = 3,
                                  .parks = true},
                   3);
    cut_everywhere(&(struct work){.lives = 3, .turns = 4, .row_bytes = 2500, .reseals = 2,
                                  .checkpoint_every = 2, .parks = false},
                   3);
    cut_everywhere(&(struct work){.lives = 2, .turns = 12, .row_bytes = 3000, .reseals = 2,
                                  .checkpoint_frames = 6, .parks = true},
                   3);
}

static void cuts_in_a_row_lose_nothing(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        const struct work work = {.lives = 1, .turns = 9, .row_bytes = 2500,
                                  .checkpoint_every = seed % 2 ? 3 : 0,
                                  .checkpoint_frames = seed % 3 ? 7 : 0, .parks = true,
                                  .reseals = seed % 4 ? 2 : 0};
        struct sim *sim = sim_create(seed);
        struct known known = {0};
        for (int crash = 0; crash < 25; crash++) {
            sim->cut_at = sim->mutations + 1 + sim_random(sim, 60);
            status lived = live(&known, sim, &work);
            if (lived == CORRUPT || lived == ROLLED_BACK)
                fail_msg("seed %llu, crash %d: %s", (unsigned long long)seed, crash, fault.detail);
            if (sim->off)
                sim_power_cycle(sim);
            /* what the cut turn left is known only now */
            struct store_options options = options_over(sim);
            struct store *store;
            options.anchor = &known.anchor;
            choose_keys(&options, &known, &work);
            status opened = store_open(&store, &options, &fault);
            if (opened != OK)
                fail_msg("seed %llu, crash %d: %s", (unsigned long long)seed, crash, fault.detail);
            bool has;
            assert_ok(store_has(&has, store, &schema, &fault));
            uint64_t last = has ? (uint64_t)number(store, "SELECT number FROM last") : 0;
            assert_in_range(last, known.acknowledged, known.acknowledged + 1);
            known.acknowledged = last;
            known.anchor = store_anchor(store);
            store_abandon(store);
        }
        check(sim, &known, &work, "after many cuts");
        sim_free(sim);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_cut_loses_a_commit_of_small_turns),
        cmocka_unit_test(no_cut_loses_a_commit_when_the_wal_is_moved_often),
        cmocka_unit_test(no_cut_loses_a_commit_when_the_wal_starts_over_in_place),
        cmocka_unit_test(no_cut_loses_a_commit_of_turns_that_spill),
        cmocka_unit_test(no_cut_loses_a_commit_of_lives_that_end_in_crashes),
        cmocka_unit_test(no_cut_loses_a_commit_of_a_long_life),
        cmocka_unit_test(no_cut_loses_a_page_that_moves_to_another_key),
        cmocka_unit_test(cuts_in_a_row_lose_nothing),
    };
    return cmocka_run_group_tests(tests, start_store, NULL);
}
