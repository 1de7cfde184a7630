#include "house.h"

#include "silo/state.h"
#include "store/log.h"

#include <stdlib.h>

enum { ITEMS = 40, PAGE = 4096, WORDS = 60 };

/* Items of several pages, each with a word of its own and one that all share. */
static void fill(struct house *house, const char *ids[ITEMS])
{
    for (int i = 0; i < ITEMS; i++) {
        char body[KIB(2)];
        size_t at = (size_t)snprintf(body, sizeof body, "{\"text\":\"zebra word%d", i);
        for (int j = 0; j < WORDS; j++)
            at += (size_t)snprintf(body + at, sizeof body - at, " filler%dx%d", i, j);
        snprintf(body + at, sizeof body - at, "\"}");
        ids[i] = remember_as(house, &alice, body);
    }
    house_reopen(house);
}

/* The house stands on a copy of the disk with one page spoilt. False: the silo does not even open.
 */
static bool spoil(struct house *house, const struct sim *whole, size_t page)
{
    house->sim = sim_copy(whole);
    house->opening.io = &house->sim->io;
    struct sim_bytes *database = sim_file(house->sim, STORE_DATABASE);
    database->data[page * PAGE + 1000] ^= 1;
    status opened = silo_open(&house->silo, &house->opening, &house->fault);
    if (opened != OK && opened != CORRUPT)
        fail_msg("page %zu: %s", page, house->fault.detail);
    return opened == OK;
}

static uint32_t read_each(struct house *house, const char *const ids[ITEMS])
{
    uint32_t good = 0;
    for (int i = 0; i < ITEMS; i++) {
        char begin[32];
        status got = ask(house, &alice, "GET", path_of(house, ids[i], ""), "", NULL);
        if (got == OK) {
            snprintf(begin, sizeof begin, "zebra word%d ", i);
            assert_true(span_starts_with(json_member(&house->answer, "text")->string,
                                         span_of_text(begin)));
            good++;
        } else if (got != CORRUPT) {
            fail_msg("item %d: %s: %s", i, status_code(got), house->fault.detail);
        }
    }
    return good;
}

static int64_t listed(struct house *house, int64_t *damaged)
{
    status got = ask(house, &alice, "GET", "/v1/memories", "limit=500", NULL);
    *damaged = 0;
    if (got == CORRUPT)
        return -1;
    assert_ok(house, got);
    if (json_member(&house->answer, "damaged") != NULL)
        *damaged = answer_integer(&house->answer, "damaged");
    return answer_data(house)->count;
}

static int64_t searched(struct house *house, const char *body)
{
    status got = ask(house, &alice, "POST", "/v1/memories/search", "", body);
    if (got == CORRUPT)
        return -1;
    assert_ok(house, got);
    return answer_data(house)->count;
}

struct tally {
    uint32_t unopened, items, indexes, lists, lists_of_indexes, unwritable;
};

static void look_at_all(struct house *house, const char *const ids[ITEMS], struct tally *tally)
{
    char where[64];
    int64_t damaged;
    uint32_t good = read_each(house, ids);
    int64_t count = listed(house, &damaged);
    if (count >= 0)
        assert_int_equal(count + damaged, ITEMS);
    if (good == ITEMS && count == ITEMS) {
        bool was_damaged = silo_damage(house->silo, where, sizeof where) > 0;
        int64_t hits = searched(house, "{\"query\":\"zebra\",\"limit\":500}");
        if (hits < 0) { /* the page that says which indexes there are: no search, items are read */
            tally->lists_of_indexes++;
            return;
        }
        int64_t one = searched(house, "{\"query\":\"word7\"}");
        assert_int_equal(hits, ITEMS); /* a damaged index is rebuilt from the items */
        assert_int_equal(one, 1);
        tally->indexes += !was_damaged && silo_damage(house->silo, where, sizeof where) > 0;
        status added = ask(house, &alice, "POST", "/v1/memories", "",
                           "{\"text\":\"zebra after the repair\"}");
        tally->unwritable += added == CORRUPT; /* a free page that SQLite cannot take */
        assert_true(added == OK || added == CORRUPT);
        assert_int_equal(searched(house, "{\"query\":\"repair\"}"), added == OK);
        assert_int_equal(searched(house, "{\"query\":\"word7\"}"), 1);
    } else if (good > 0 && good < ITEMS) {
        tally->items++;
        assert_true(silo_damage(house->silo, where, sizeof where) > 0);
        assert_true(strlen(where) > 0);
    }
    tally->lists += count < 0;
}

static void every_damaged_page_is_an_error_or_repaired_and_never_wrong_data(void **state)
{
    struct house *house = *state;
    const char *ids[ITEMS];
    struct tally tally = {0};
    fill(house, ids);
    house->silo = silo_close(house->silo);
    struct sim *whole = house->sim;
    size_t pages = sim_file(whole, STORE_DATABASE)->length / PAGE;
    for (size_t page = 0; page < pages; page++) {
        if (spoil(house, whole, page)) {
            look_at_all(house, (const char *const *)ids, &tally);
            house->silo = silo_close(house->silo);
        } else {
            tally.unopened++;
        }
        sim_free(house->sim);
    }
    house->sim = whole;
    assert_true(tally.items > 5);   /* the damage did reach items */
    assert_true(tally.indexes > 2); /* and indexes */
    assert_true(tally.unopened < pages / 2);
    assert_true(tally.lists_of_indexes <= 1);
    assert_true(tally.unwritable <= pages / 10);
}

static void an_index_with_more_rows_than_one_step_is_rebuilt_in_turns(void **state)
{
    struct house *house = *state;
    enum { MANY = 5000 };
    house->now_us = START_US;
    silo_begin(house->silo, house->now_us);
    for (int i = 0; i < MANY; i++) {
        assert_ok(house, ask_in_turn(house, &alice, "POST", "/v1/memories", "",
                                     "{\"text\":\"zebra\"}"));
        if (i % 500 == 0) {
            assert_ok(house, silo_commit(house->silo, &house->fault));
            silo_begin(house->silo, house->now_us);
        }
    }
    assert_ok(house, silo_commit(house->silo, &house->fault));
    /* what a damaged page does to an index, without one: its leaves are gone */
    silo_begin(house->silo, house->now_us);
    assert_ok(house, store_begin(house->silo->store, &house->fault));
    assert_ok(house, store_execute(house->silo->store,
                                   "UPDATE memory_indexes SET built_to = 0", &house->fault));
    assert_ok(house, store_execute(house->silo->store,
                                   "INSERT INTO memory_index_1_1 (memory_index_1_1) "
                                   "VALUES ('delete-all')", &house->fault));
    assert_ok(house, store_commit(house->silo->store, &house->fault));
    house_reopen(house);
    assert_status(house, ask(house, &alice, "POST", "/v1/memories/search", "",
                             "{\"query\":\"zebra\"}"), UNAVAILABLE);
    assert_true(silo_next_expiry_us(house->silo) <= house->now_us);
    remember(house, &alice, "zebra while it is rebuilt");
    house_expire(house, false);
    assert_int_equal(searched(house, "{\"query\":\"rebuilt\"}"), 1);
    assert_int_equal(searched(house, "{\"query\":\"zebra\",\"limit\":200}"), 200);
    assert_int_equal(silo_next_expiry_us(house->silo), 0);
}

#define HOUSE_TEST(name) cmocka_unit_test_setup_teardown(name, house_build, house_pull_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        HOUSE_TEST(every_damaged_page_is_an_error_or_repaired_and_never_wrong_data),
        HOUSE_TEST(an_index_with_more_rows_than_one_step_is_rebuilt_in_turns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
