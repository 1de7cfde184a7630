#include "house.h"

#include "silo/check.h"
#include "silo/state.h"
#include "store/seal.h"

static const uint8_t no_key[32];

/* The report of a whole check. */
static const struct json *check(struct house *house)
{
    struct silo_check *running;
    struct buffer out = buffer_of(MIB(1));
    struct json *report = arena_alloc(&house->arena, sizeof *report);
    bool done = false;
    assert_ok(house, silo_check_begin(&running, house->silo, no_key, &house->fault));
    while (!done) {
        buffer_clear(&out);
        assert_ok(house, silo_check_piece(&out, &done, running, &house->fault));
    }
    silo_check_end(running);
    struct span line = arena_copy(&house->arena, buffer_span(&out));
    while (line.length > 0 && memchr(line.data, '\n', line.length - 1) != NULL) { /* progress */
        size_t before = (size_t)((const uint8_t *)memchr(line.data, '\n', line.length)
                                 - line.data) + 1;
        line = (struct span){line.data + before, line.length - before};
    }
    assert_ok(house, json_parse(report, &house->arena, line, &house->fault));
    buffer_free(&out);
    return report;
}

static bool says(const struct json *report, const char *name)
{
    const struct json *found = json_member(report, name);
    assert_non_null(found);
    return found->kind == JSON_TRUE;
}

static bool names(const struct json *report, const char *list, const char *name)
{
    const struct json *found = json_member(report, list);
    assert_non_null(found);
    for (uint32_t i = 0; i < found->count; i++)
        if (span_is(found->items[i].source, name) || span_is(found->items[i].string, name))
            return true;
    return false;
}

static void fill(struct house *house, int items)
{
    for (int i = 0; i < items; i++) {
        char text[64];
        snprintf(text, sizeof text, "memory number %d about the garden", i);
        remember(house, &alice, text);
    }
}

static void a_silo_nobody_used_is_well(void **state)
{
    struct house *house = *state;
    const struct json *report = check(house);
    assert_true(says(report, "ok"));
    assert_int_equal(answer_integer(report, "pages"), 0);
}

static void a_sound_silo_is_well_and_all_of_it_was_looked_at(void **state)
{
    struct house *house = *state;
    fill(house, 600);
    const struct json *report = check(house); /* in use: the newest of it is in the WAL only */
    assert_true(says(report, "ok"));
    house_reopen(house);
    report = check(house);
    assert_true(says(report, "ok") && says(report, "root_ok") && says(report, "length_ok"));
    assert_int_equal(answer_integer(report, "entries"), 600);
    assert_int_equal(answer_integer(report, "indexes"), 1);
    assert_true(answer_integer(report, "tables") >= 6);
    assert_int_equal((uint64_t)answer_integer(report, "pages") * PAGE_BYTES,
                     sim_file(house->sim, STORE_DATABASE)->length);
}

static void every_flipped_page_is_named_and_the_rest_is_read_on(void **state)
{
    struct house *house = *state;
    fill(house, 600);
    house_reopen(house);
    struct sim_bytes *file = sim_file(house->sim, STORE_DATABASE);
    uint64_t pages = file->length / PAGE_BYTES;
    assert_true(pages > 20);
    file->data[(pages - 1) * PAGE_BYTES + 77] ^= 1;
    file->data[(pages - 8) * PAGE_BYTES + PAGE_BYTES - 1] ^= 0x80; /* in its trailer */
    const struct json *report = check(house);
    char last[24], other[24];
    snprintf(last, sizeof last, "%llu", (unsigned long long)pages);
    snprintf(other, sizeof other, "%llu", (unsigned long long)pages - 7);
    assert_false(says(report, "ok"));
    assert_true(names(report, "damaged_pages", last));
    assert_true(names(report, "damaged_pages", other));
    assert_int_equal(json_member(report, "damaged_pages")->count, 2);
    assert_int_equal(answer_integer(report, "pages"), pages);
    assert_true(answer_integer(report, "damaged") >= 3); /* and a table or an index, or an entry */
}

static void an_entry_that_was_rewritten_with_the_key_is_found(void **state)
{
    struct house *house = *state;
    fill(house, 300);
    struct store *store = house->silo->store;
    assert_ok(house, store_begin(store, &house->fault));
    assert_ok(house, store_execute(store, "UPDATE log_entries SET entry = x'7b7d' WHERE idx = 7",
                                   &house->fault));
    assert_ok(house, store_commit(store, &house->fault));
    const struct json *report = check(house);
    assert_false(says(report, "ok"));
    assert_false(says(report, "root_ok"));
    assert_true(names(report, "damaged_entries", "0")); /* the tile that holds it */
}

static void an_entry_that_is_missing_is_named(void **state)
{
    struct house *house = *state;
    fill(house, 300);
    struct store *store = house->silo->store;
    assert_ok(house, store_begin(store, &house->fault));
    assert_ok(house, store_execute(store, "DELETE FROM log_entries WHERE idx = 290",
                                   &house->fault));
    assert_ok(house, store_commit(store, &house->fault));
    const struct json *report = check(house);
    assert_false(says(report, "root_ok"));
    assert_true(names(report, "damaged_entries", "290"));
}

static void a_checkpoint_that_the_platform_did_not_sign_is_told(void **state)
{
    struct house *house = *state;
    fill(house, 3);
    silo_keep_checkpoint(house->silo, SPAN("bulkhead/silo/x\n3\nAAAA\n\nforged\n"));
    const struct json *report = check(house);
    assert_false(says(report, "checkpoint_ok"));
    assert_false(says(report, "ok"));
    assert_true(says(report, "root_ok"));
}

#define HOUSE_TEST(name) cmocka_unit_test_setup_teardown(name, house_build, house_pull_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        HOUSE_TEST(a_silo_nobody_used_is_well),
        HOUSE_TEST(a_sound_silo_is_well_and_all_of_it_was_looked_at),
        HOUSE_TEST(every_flipped_page_is_named_and_the_rest_is_read_on),
        HOUSE_TEST(an_entry_that_was_rewritten_with_the_key_is_found),
        HOUSE_TEST(an_entry_that_is_missing_is_named),
        HOUSE_TEST(a_checkpoint_that_the_platform_did_not_sign_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
