/* test_copy.c: sealed pages out of a store in use, and a store made of them. */
#include "support.h"

#include "store/copy.h"
#include "store/session.h"

#include <stdlib.h>

enum { BEGINNING = 9 };

static struct fault fault;

static struct store *open_over(struct sim *sim, const struct store_anchor *anchor)
{
    struct store_options options = options_over(sim);
    struct store *store;
    options.anchor = anchor;
    assert_ok(store_open(&store, &options, &fault));
    return store;
}

static void run(struct store *store, const char *sql)
{
    assert_ok(store_begin(store, &fault));
    assert_ok(store_execute(store, sql, &fault));
    assert_ok(store_commit(store, &fault));
}

static struct store *filled(struct sim *sim)
{
    struct store *store = open_over(sim, NULL);
    run(store, "CREATE TABLE things (n INTEGER PRIMARY KEY, text TEXT)");
    run(store, "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 500) "
               "INSERT INTO things SELECT n, hex(zeroblob(40)) FROM c");
    return store;
}

static int64_t count(struct store *store)
{
    _cleanup_statement_ struct statement *rows = NULL;
    assert_ok(statement_open(&rows, store, "SELECT count(*) FROM things", &fault));
    assert_ok(statement_step(rows, &fault));
    return statement_int(rows, 0);
}

/* All pages of a held store, and their tags. */
struct taken {
    struct buffer pages;
    uint8_t *tags;
    uint32_t count;
    struct store_anchor anchor;
};

static struct taken take_all(struct store *store)
{
    struct taken taken = {.pages = buffer_of(MIB(8)), .count = store_page_count(store),
                          .anchor = store_anchor(store)};
    taken.tags = malloc((size_t)taken.count * COPY_TAG_BYTES);
    memcpy(taken.tags, store_page_tags(store), (size_t)taken.count * COPY_TAG_BYTES);
    assert_ok(store_read_sealed(&taken.pages, store, 1, taken.count, &fault));
    return taken;
}

static void drop(struct taken *taken)
{
    buffer_free(&taken->pages);
    free(taken->tags);
}

static struct span pages_of(const struct taken *taken, uint32_t first, uint32_t count)
{
    return (struct span){taken->pages.data + (size_t)(first - 1) * COPY_PAGE_BYTES,
                         (size_t)count * COPY_PAGE_BYTES};
}

static struct store_copy *copy_onto(struct sim *sim, const struct taken *taken)
{
    struct store_options options = options_over(sim);
    struct store_copy *copy;
    assert_ok(store_copy_begin(&copy, &options, &fault));
    assert_ok(store_copy_state(copy, taken->count, taken->tags, &fault));
    return copy;
}

static void a_held_store_stands_still_while_commits_go_on(void **state)
{
    struct sim *sim = sim_create(1), *other = sim_create(2);
    struct store *store = filled(sim);
    (void)state;
    assert_ok(store_hold(store, &fault));
    assert_int_equal(store_hold(store, &fault), CONFLICT);
    struct taken before = take_all(store);
    run(store, "DELETE FROM things WHERE n > 100");
    struct taken after = take_all(store);
    assert_int_equal(before.count, after.count);
    assert_memory_equal(before.pages.data, after.pages.data, before.pages.length);
    assert_memory_equal(before.tags, after.tags, (size_t)before.count * COPY_TAG_BYTES);
    assert_true(store_is_held(store));
    store_let_go(store);
    assert_int_equal(count(store), 100);
    struct store_copy *copy = copy_onto(other, &before);
    assert_ok(store_copy_pages(copy, 1, buffer_span(&before.pages), &fault));
    assert_ok(store_copy_end(copy, BEGINNING, &fault));
    store_copy_free(copy);
    struct store_anchor due = before.anchor;
    due.map_generation = 0;
    struct store *made = open_over(other, &due);
    assert_int_equal(count(made), 500);
    run(made, "DELETE FROM things WHERE n > 7");
    assert_int_equal(count(made), 7);
    assert_ok(store_close(made, NULL, &fault));
    assert_ok(store_close(store, NULL, &fault));
    drop(&before);
    drop(&after);
    sim_free(sim);
    sim_free(other);
}

static void a_hold_gives_way_to_a_checkpoint(void **state)
{
    struct sim *sim = sim_create(1);
    struct store *store = filled(sim);
    (void)state;
    assert_ok(store_hold(store, &fault));
    run(store, "DELETE FROM things WHERE n > 100");
    assert_ok(store_checkpoint(store, &fault));
    assert_false(store_is_held(store));
    assert_ok(store_close(store, NULL, &fault));
    sim_free(sim);
}

static void a_page_of_another_place_time_or_key_is_refused(void **state)
{
    struct sim *sim = sim_create(1), *other = sim_create(2);
    struct store *store = filled(sim);
    (void)state;
    assert_ok(store_hold(store, &fault));
    struct taken before = take_all(store);
    store_let_go(store);
    run(store, "UPDATE things SET text = 'later'");
    assert_ok(store_hold(store, &fault));
    struct taken after = take_all(store);
    struct store_copy *copy = copy_onto(other, &after);
    assert_int_equal(store_copy_pages(copy, 2, pages_of(&after, 1, 1), &fault), CORRUPT);
    assert_int_equal(store_copy_pages(copy, 1, pages_of(&before, 1, before.count), &fault),
                     CORRUPT);
    assert_int_equal(store_copy_pages(copy, 0, pages_of(&after, 1, 1), &fault), CORRUPT);
    assert_int_equal(store_copy_pages(copy, after.count, pages_of(&after, 1, 2), &fault), CORRUPT);
    assert_int_equal(store_copy_pages(copy, 1, (struct span){after.pages.data, 4095}, &fault),
                     CORRUPT);
    after.pages.data[COPY_PAGE_BYTES + 5] ^= 1;
    assert_int_equal(store_copy_pages(copy, 1, pages_of(&after, 1, 3), &fault), CORRUPT);
    after.pages.data[COPY_PAGE_BYTES + 5] ^= 1;
    /* the tag of its place, and it does not open: of another silo */
    store_copy_free(copy);
    struct sim *third = sim_create(3);
    struct store_options options = options_over(third);
    options.silo_id = other_silo_id;
    assert_ok(store_copy_begin(&copy, &options, &fault));
    assert_ok(store_copy_state(copy, after.count, after.tags, &fault));
    assert_int_equal(store_copy_pages(copy, 1, pages_of(&after, 1, 1), &fault), CORRUPT);
    store_copy_free(copy);
    assert_ok(store_close(store, NULL, &fault));
    drop(&before);
    drop(&after);
    sim_free(sim);
    sim_free(other);
    sim_free(third);
}

static void a_state_that_lacks_a_page_is_not_made(void **state)
{
    struct sim *sim = sim_create(1), *other = sim_create(2);
    struct store *store = filled(sim);
    (void)state;
    assert_ok(store_hold(store, &fault));
    struct taken taken = take_all(store);
    struct store_copy *copy = copy_onto(other, &taken);
    assert_ok(store_copy_pages(copy, 1, pages_of(&taken, 1, taken.count - 1), &fault));
    assert_int_equal(store_copy_complete(copy, &fault), CORRUPT);
    assert_int_equal(store_copy_end(copy, BEGINNING, &fault), CORRUPT);
    assert_ok(store_copy_pages(copy, taken.count, pages_of(&taken, taken.count, 1), &fault));
    assert_ok(store_copy_complete(copy, &fault));
    assert_int_equal(store_copy_end(copy, 0, &fault), INTERNAL);
    store_copy_free(copy);
    assert_ok(store_close(store, NULL, &fault));
    drop(&taken);
    sim_free(sim);
    sim_free(other);
}

static void each_call_of_the_disk_that_fails_fails_the_copy(void **state)
{
    struct sim *sim = sim_create(1);
    struct store *store = filled(sim);
    bool failed = true;
    (void)state;
    assert_ok(store_hold(store, &fault));
    struct taken taken = take_all(store);
    for (uint64_t at = 1; failed; at++) {
        struct sim *other = sim_create(at);
        struct store_options options = options_over(other);
        struct store_copy *copy = NULL;
        other->fail_at = at;
        other->fail_errno = 5;
        status made = store_copy_begin(&copy, &options, &fault);
        if (made == OK)
            made = store_copy_state(copy, taken.count, taken.tags, &fault);
        if (made == OK)
            made = store_copy_pages(copy, 1, buffer_span(&taken.pages), &fault);
        if (made == OK)
            made = store_copy_end(copy, BEGINNING, &fault);
        failed = other->calls >= at;
        bool last_is_a_close = made == OK && failed;
        store_copy_free(copy);
        sim_free(other);
        assert_true(!failed || made != OK || last_is_a_close);
        assert_true(at > 1 || made != OK);
        assert_true(at < 100);
    }
    assert_ok(store_close(store, NULL, &fault));
    drop(&taken);
    sim_free(sim);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_held_store_stands_still_while_commits_go_on),
        cmocka_unit_test(a_hold_gives_way_to_a_checkpoint),
        cmocka_unit_test(a_page_of_another_place_time_or_key_is_refused),
        cmocka_unit_test(a_state_that_lacks_a_page_is_not_made),
        cmocka_unit_test(each_call_of_the_disk_that_fails_fails_the_copy),
    };
    return cmocka_run_group_tests(tests, start_store, NULL);
}
