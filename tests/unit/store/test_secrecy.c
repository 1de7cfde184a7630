/* Looks at every byte that ever goes to the disk for anything that was known beforehand. */
#define _GNU_SOURCE /* memmem */
#include "support.h"

#include <stdlib.h>

static struct fault fault;

static const char marker[] = "Zebra!9f3c#Quartz|77Vexing*Jumbo~Fjord";
static const char *const formats[] = {"SQLite format 3", "CREATE TABLE", "store_state", "commits",
                                      "diary", "\x37\x7f\x06\x82", "\x37\x7f\x06\x83"};

static uint64_t bytes_seen, found_markers, found_formats;

static bool contains(struct span bytes, const void *what, size_t length)
{
    return memmem(bytes.data, bytes.length, what, length) != NULL;
}

static void look(struct span bytes)
{
    bytes_seen += bytes.length;
    for (size_t at = 0; at + 8 < sizeof marker; at++)
        found_markers += contains(bytes, marker + at, 8);
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        found_formats += strlen(formats[i]) > 4 && contains(bytes, formats[i], strlen(formats[i]));
    /* four bytes can stand anywhere by chance; SQLite's header at the front of a write cannot */
    found_formats += bytes.length >= 4 && (memcmp(bytes.data, formats[5], 4) == 0 ||
                                           memcmp(bytes.data, formats[6], 4) == 0);
}

static void fill(struct store *store, int rows)
{
    _cleanup_statement_ struct statement *put = NULL, *word = NULL;
    assert_ok(
        statement_open(&put, store, "INSERT INTO diary (entry, data) VALUES (?1, ?2)", &fault));
    assert_ok(statement_open(&word, store, "INSERT INTO words (text) VALUES (?1)", &fault));
    for (int i = 0; i < rows; i++) {
        statement_bind_text(put, 1, span_of_text(marker));
        statement_bind_blob(put, 2, (struct span){(const uint8_t *)marker, sizeof marker});
        assert_ok(statement_run(put, &fault));
        statement_reset(put);
        statement_bind_text(word, 1, span_of_text(marker));
        assert_ok(statement_run(word, &fault));
        statement_reset(word);
    }
}

static void nothing_known_ever_reaches_the_disk(void **state)
{
    (void)state;
    static const char *const versions[] = {
        "CREATE TABLE diary (id INTEGER PRIMARY KEY, entry TEXT, data BLOB);"
        "CREATE INDEX diary_entry ON diary (entry);"
        "CREATE VIRTUAL TABLE words USING fts5 (text);"};
    static const struct store_schema schema = {"diary", versions, 1};
    struct sim *sim = sim_create(3);
    struct store_options options = options_over(sim);
    struct store *store;
    sim->on_write = look;
    options.cache_kib = 16; /* so that pages also leave the cache before the commit */
    options.checkpoint_frames = 300;
    for (int life = 0; life < 3; life++) {
        assert_ok(store_open(&store, &options, &fault));
        assert_ok(store_migrate(store, &schema, &fault));
        for (int i = 0; i < 5; i++) {
            assert_ok(store_begin(store, &fault));
            fill(store, 100);
            if (i == 2)
                assert_ok(store_execute(store, "DELETE FROM diary WHERE id % 2 = 0", &fault));
            if (i != 3)
                assert_ok(store_commit(store, &fault));
            else
                store_rollback(store);
        }
        if (life == 1)
            store_abandon(store);
        else
            assert_ok(store_close(store, NULL, &fault));
    }
    assert_true(bytes_seen > 1000000);
    assert_int_equal(found_markers, 0);
    assert_int_equal(found_formats, 0);
    sim_free(sim);
}

static void the_search_would_find_it(void **state)
{
    (void)state;
    look(SPAN("....Quartz|77....SQLite format 3"));
    assert_true(found_markers > 0 && found_formats > 0);
    look(SPAN("\x37\x7f\x06\x82..."));
    assert_int_equal(found_formats, 2);
}

/* The same content in the same place is other bytes each time, and those look like noise. */
static void equal_pages_do_not_look_equal(void **state)
{
    (void)state;
    struct sim *first = sim_create(1), *second = sim_create(1);
    struct sim *both[] = {first, second};
    for (int i = 0; i < 2; i++) {
        struct store_options options = options_over(both[i]);
        struct store *store;
        assert_ok(store_open(&store, &options, &fault));
        assert_ok(store_close(store, NULL, &fault));
    }
    struct sim_bytes *left = sim_file(first, STORE_DATABASE);
    struct sim_bytes *right = sim_file(second, STORE_DATABASE);
    assert_int_equal(left->length, right->length);
    size_t same = 0, counts[256] = {0};
    for (size_t at = 0; at < left->length; at++) {
        same += left->data[at] == right->data[at];
        counts[left->data[at]]++;
    }
    assert_true(same < left->length / 100);
    for (size_t value = 1; value < 256; value++) /* the key version holds a few zeros */
        assert_true(counts[value] < left->length / 64);
    sim_free(first);
    sim_free(second);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_known_ever_reaches_the_disk),
        cmocka_unit_test(the_search_would_find_it),
        cmocka_unit_test(equal_pages_do_not_look_equal),
    };
    return cmocka_run_group_tests(tests, start_store, NULL);
}
