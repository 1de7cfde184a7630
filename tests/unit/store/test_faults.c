/* Makes calls to the disk fail, one after the other, and fills the disk: a turn that failed is
 * gone, one that was acknowledged stays, and the store goes on as soon as the disk does. */
#include "support.h"

#include <errno.h>
#include <stdlib.h>

static struct fault fault;

static const char *const versions[] = {
    "CREATE TABLE turn (number INTEGER PRIMARY KEY, data BLOB);"};
static const struct store_schema schema = {"turn", versions, 1};

enum { ATTEMPTS_MAX = 4096 };

struct known {
    uint32_t attempts, acknowledged;
    bool kept[ATTEMPTS_MAX]; /* acknowledged */
    struct store_anchor anchor;
};

static status turn(struct store *store, int64_t number, int64_t bytes)
{
    _cleanup_statement_ struct statement *add = NULL;
    TRY(store_begin(store, &fault));
    TRY(store_migrate(store, &schema, &fault));
    TRY(statement_open(&add, store, "INSERT INTO turn VALUES (?1, randomblob(?2))", &fault));
    statement_bind_int(add, 1, number);
    statement_bind_int(add, 2, bytes);
    TRY(statement_run(add, &fault));
    return store_commit(store, &fault);
}

static status attempt(struct known *known, struct store *store, int64_t bytes)
{
    uint32_t number = known->attempts++;
    assert_true(number < ATTEMPTS_MAX);
    status done = turn(store, number, bytes);
    if (done != OK)
        store_rollback(store);
    known->kept[number] = done == OK;
    known->acknowledged += done == OK;
    known->anchor = store_anchor(store);
    return done;
}

static void expected(status code)
{
    if (code != OK && code != INTERNAL && code != OUT_OF_SPACE)
        fail_msg("%s: %s", status_code(code), fault.detail);
}

/* A life in which anything may fail; nothing is ever damaged by it. */
static void live(struct known *known, struct sim *sim, uint32_t turns)
{
    struct store_options options = options_over(sim);
    struct store *store;
    options.anchor = &known->anchor;
    options.cache_kib = 16;
    options.checkpoint_frames = 12;
    status opened = store_open(&store, &options, &fault);
    expected(opened);
    if (opened != OK)
        return;
    for (uint32_t i = 0; i < turns; i++) {
        expected(attempt(known, store, i % 4 == 3 ? 60000 : 900));
        if (i % 5 == 4)
            expected(store_checkpoint(store, &fault));
    }
    struct store_damage damage = store_damage(store);
    expected(store_close(store, &known->anchor, &fault));
    assert_int_equal(damage.count, 0);
}

static void heal(struct sim *sim)
{
    sim->fail_at = sim->fail_every = 0;
    sim->space = 0;
}

/* Every acknowledged turn is there; a failed one may be, where the failure came at its very end. */
static void check(struct known *known, struct sim *sim, const char *what, uint64_t at)
{
    struct store_options options = options_over(sim);
    struct store *store;
    options.anchor = &known->anchor;
    status opened = store_open(&store, &options, &fault);
    if (opened != OK)
        fail_msg("%s %llu: %s: %s", what, (unsigned long long)at, status_code(opened),
                 fault.detail);
    assert_ok(attempt(known, store, 10));
    {
        _cleanup_statement_ struct statement *rows = NULL, *whole = NULL;
        uint32_t seen = 0;
        assert_ok(statement_open(&rows, store, "SELECT number FROM turn", &fault));
        while (statement_step(rows, &fault) == OK) {
            int64_t number = statement_int(rows, 0);
            assert_in_range(number, 0, known->attempts - 1);
            seen += known->kept[number];
        }
        if (seen != known->acknowledged)
            fail_msg("%s %llu: %u turns of %u", what, (unsigned long long)at, seen,
                     known->acknowledged);
        assert_ok(store_begin(store, &fault));
        assert_ok(statement_open(&whole, store, "PRAGMA integrity_check", &fault));
        assert_ok(statement_step(whole, &fault));
        assert_true(span_is(statement_span(whole, 0), "ok"));
    }
    store_rollback(store);
    assert_ok(store_close(store, &known->anchor, &fault));
}

static uint64_t calls_of_two_lives(void)
{
    struct sim *sim = sim_create(1);
    struct known *known = calloc(1, sizeof *known);
    live(known, sim, 7);
    live(known, sim, 7);
    uint64_t calls = sim->calls;
    assert_int_equal(known->acknowledged, 14);
    sim_free(sim);
    free(known);
    return calls;
}

/* Then: what the process believes is also what a restart, or a power cut at that moment, finds. */
static void fail_each(int error, bool then_power_cut)
{
    uint64_t calls = calls_of_two_lives();
    for (uint64_t at = 1; at <= calls; at++) {
        struct sim *sim = sim_create(at);
        struct known *known = calloc(1, sizeof *known);
        sim->fail_at = at;
        sim->fail_errno = error;
        live(known, sim, 7);
        assert_in_range(known->attempts - known->acknowledged, 0, 1); /* the others went well */
        if (then_power_cut)
            sim_power_cycle(sim);
        live(known, sim, 7);
        heal(sim);
        check(known, sim, "call", at);
        sim_free(sim);
        free(known);
    }
}

static void each_call_may_fail_once(void **state)
{
    (void)state;
    fail_each(EIO, false);
}

static void each_call_may_fail_once_before_a_power_cut(void **state)
{
    (void)state;
    fail_each(EIO, true);
}

static void each_call_may_find_no_space_once(void **state)
{
    (void)state;
    fail_each(ENOSPC, false);
}

static void every_nth_call_may_fail(void **state)
{
    (void)state;
    for (uint64_t every = 2; every < 120; every++) {
        struct sim *sim = sim_create(every);
        struct known *known = calloc(1, sizeof *known);
        sim->fail_every = every;
        sim->fail_errno = every % 2 ? EIO : EDQUOT;
        for (int i = 0; i < 6; i++)
            live(known, sim, 9);
        heal(sim);
        check(known, sim, "every call", every);
        sim_free(sim);
        free(known);
    }
}

static void a_failed_call_and_a_power_cut_in_any_order(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 400; seed++) {
        struct sim *sim = sim_create(seed);
        struct known *known = calloc(1, sizeof *known);
        for (int i = 0; i < 5; i++) {
            sim->fail_every = 20 + sim_random(sim, 80);
            sim->cut_at = sim->mutations + 1 + sim_random(sim, 150);
            live(known, sim, 9);
            sim_power_cycle(sim);
        }
        heal(sim);
        check(known, sim, "seed", seed);
        sim_free(sim);
        free(known);
    }
}

static void a_full_disk_refuses_writes_serves_reads_and_recovers(void **state)
{
    (void)state;
    for (size_t space = 20000; space < 400000; space += 9973) {
        struct sim *sim = sim_create(space);
        struct known *known = calloc(1, sizeof *known);
        struct store_options options = options_over(sim);
        struct store *store;
        sim->space = space;
        status opened = store_open(&store, &options, &fault);
        assert_ok(opened);
        uint32_t refused = 0;
        for (int i = 0; i < 40; i++) {
            status done = attempt(known, store, 9000);
            if (done == OK)
                continue;
            assert_int_equal(done, OUT_OF_SPACE);
            refused++;
            if (known->acknowledged == 0)
                continue;
            _cleanup_statement_ struct statement *count = NULL;
            assert_ok(statement_open(&count, store, "SELECT count(*) FROM turn", &fault));
            assert_ok(statement_step(count, &fault));
            assert_int_equal(statement_int(count, 0), known->acknowledged);
        }
        assert_true(refused > 0 || space > 300000);
        if (space % 2 == 0) { /* parked, or killed, on a full disk: it opens again all the same */
            expected(store_close(store, &known->anchor, &fault));
        } else {
            store_abandon(store);
        }
        options.anchor = &known->anchor;
        assert_ok(store_open(&store, &options, &fault));
        heal(sim);
        assert_ok(attempt(known, store, 9000));
        assert_ok(store_close(store, &known->anchor, &fault));
        check(known, sim, "space", space);
        sim_free(sim);
        free(known);
    }
}

/* SQLite gives up the whole transaction in the middle: the rest of the turn must not slip through
 * as transactions of their own. */
static void a_transaction_given_up_in_the_middle_takes_the_rest_of_its_turn_along(void **state)
{
    (void)state;
    struct sim *sim = sim_create(1);
    struct store_options options = options_over(sim);
    struct store *store;
    options.cache_kib = 16;
    assert_ok(store_open(&store, &options, &fault));
    assert_ok(store_migrate(store, &schema, &fault));
    assert_ok(store_begin(store, &fault));
    sim->space = 60000;
    {
        _cleanup_statement_ struct statement *add = NULL, *late = NULL;
        assert_ok(statement_open(&add, store, "INSERT INTO turn VALUES (?1, randomblob(2000))",
                                 &fault));
        status done = OK;
        for (int i = 0; i < 200 && done == OK; i++) {
            statement_bind_int(add, 1, i);
            done = statement_run(add, &fault);
            statement_reset(add);
        }
        assert_int_equal(done, OUT_OF_SPACE);
        sim->space = 0;
        assert_int_equal(
            statement_open(&late, store, "INSERT INTO turn VALUES (1000, NULL)", &fault),
            OUT_OF_SPACE);
        assert_int_equal(store_savepoint(store, &fault), OUT_OF_SPACE);
        assert_int_equal(store_execute(store, "DELETE FROM turn", &fault), OUT_OF_SPACE);
    }
    assert_int_equal(store_commit(store, &fault), OUT_OF_SPACE);
    assert_false(store_in_transaction(store));
    assert_ok(turn(store, 1, 10));
    assert_int_equal(store_anchor(store).commits, 2);
    assert_ok(store_close(store, NULL, &fault));
    sim_free(sim);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_call_may_fail_once),
        cmocka_unit_test(each_call_may_fail_once_before_a_power_cut),
        cmocka_unit_test(each_call_may_find_no_space_once),
        cmocka_unit_test(every_nth_call_may_fail),
        cmocka_unit_test(a_failed_call_and_a_power_cut_in_any_order),
        cmocka_unit_test(a_full_disk_refuses_writes_serves_reads_and_recovers),
        cmocka_unit_test(a_transaction_given_up_in_the_middle_takes_the_rest_of_its_turn_along),
    };
    return cmocka_run_group_tests(tests, start_store, NULL);
}
