#include "house.h"

#include "store/log.h"
#include "store/statement.h"

#include <stdlib.h>

/* A log of its own store; beside it the same leaves, for the tree as the standard writes it. */
struct logbook {
    struct fault fault;
    struct sim *sim;
    struct store *store;
    struct store_log *log;
    struct hash_value *leaves;
    uint64_t count;
};

enum { ENTRIES_MAX = 70000 };

static const struct store_key data_key = {1, "thirty-two bytes of data key ..."};

static void open_store(struct logbook *book)
{
    const struct store_options options = {.silo_fd = -1,
                                          .silo_id = (const uint8_t *)"an id of sixteen",
                                          .keys = &data_key, .key_count = 1,
                                          .io = &book->sim->io};
    assert_ok(book, store_open(&book->store, &options, &book->fault));
    assert_ok(book, store_log_open(&book->log, book->store, &book->fault));
}

static int build(void **state)
{
    struct logbook *book = calloc(1, sizeof *book);
    if (crypt_start(&book->fault) != OK || store_start(&book->fault) != OK)
        return -1;
    book->sim = sim_create(1);
    book->leaves = calloc(ENTRIES_MAX, sizeof *book->leaves);
    open_store(book);
    *state = book;
    return 0;
}

static void close_store(struct logbook *book)
{
    book->log = store_log_close(book->log);
    assert_ok(book, store_close(book->store, NULL, &book->fault));
}

static int pull_down(void **state)
{
    struct logbook *book = *state;
    close_store(book);
    sim_free(book->sim);
    free(book->leaves);
    free(book);
    return 0;
}

static status note_leaf(void *context, const struct store_log_entry *entry, bool *stop,
                        struct fault *fault)
{
    (void)stop;
    (void)fault;
    struct logbook *book = context;
    const struct span parts[] = {entry->salt, entry->entry};
    char wanted[32];
    int length = snprintf(wanted, sizeof wanted, "entry %llu", (unsigned long long)entry->index);
    assert_true(span_equal(entry->entry, (struct span){(uint8_t *)wanted, (size_t)length}));
    book->leaves[entry->index] = merkle_leaf_parts(parts, 2);
    return OK;
}

static void append(struct logbook *book, uint64_t count)
{
    assert_ok(book, store_begin(book->store, &book->fault));
    for (uint64_t i = 0; i < count; i++) {
        char text[32];
        int length = snprintf(text, sizeof text, "entry %llu",
                              (unsigned long long)store_log_next(book->log));
        assert_ok(book, store_log_append(book->log, (struct span){(uint8_t *)text, (size_t)length},
                                         &book->fault));
    }
    assert_ok(book, store_commit(book->store, &book->fault));
    store_log_committed(book->log);
    uint64_t from = book->count;
    book->count += count;
    assert_ok(book, store_log_read(book->log, from, book->count, note_leaf, book, &book->fault));
}

/* MTH of RFC 6962 2.1, written as the standard does. */
static struct hash_value tree_hash(const struct hash_value *leaves, uint64_t count)
{
    if (count == 0) {
        struct hash_value empty;
        hash(empty.bytes, SPAN(""));
        return empty;
    }
    if (count == 1)
        return leaves[0];
    uint64_t half = 1;
    while (half * 2 < count)
        half *= 2;
    struct hash_value left = tree_hash(leaves, half);
    struct hash_value right = tree_hash(leaves + half, count - half);
    return merkle_node(&left, &right);
}

static void assert_root(struct logbook *book, uint64_t size)
{
    struct hash_value root, wanted = tree_hash(book->leaves, size);
    assert_ok(book, store_log_root_at(&root, book->log, size, &book->fault));
    assert_memory_equal(root.bytes, wanted.bytes, HASH_BYTES);
}

static void check_proofs(struct logbook *book, uint64_t from, uint64_t to)
{
    struct hash_value proof[CONSISTENCY_PROOF_MAX];
    uint32_t count;
    struct hash_value old = tree_hash(book->leaves, from), new = tree_hash(book->leaves, to);
    assert_ok(book, store_log_consistency(proof, &count, book->log, from, to, &book->fault));
    assert_ok(book, merkle_check_consistency(from, to, proof, count, &old, &new, &book->fault));
    if (from == to)
        return;
    assert_ok(book, store_log_inclusion(proof, &count, book->log, from, to, &book->fault));
    assert_ok(book, merkle_check_inclusion(&book->leaves[from], from, to, proof, count, &new,
                                           &book->fault));
}

static void every_size_has_the_root_of_the_standard_and_its_proofs(void **state)
{
    struct logbook *book = *state;
    assert_root(book, 0);
    for (uint64_t size = 1; size <= 70; size++) {
        append(book, 1);
        assert_int_equal(store_log_size(book->log), size);
        for (uint64_t from = 0; from <= size; from++) {
            assert_root(book, from);
            check_proofs(book, from, size);
        }
    }
}

static void tiles_and_their_edges_are_right(void **state)
{
    static const uint64_t sizes[] = {1, 255, 256, 257, 511, 512, 513, 1000, 65535, 65536, 65537,
                                     66000, 69000};
    struct logbook *book = *state;
    append(book, 69000);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        assert_root(book, sizes[i]);
        for (size_t j = i; j < sizeof sizes / sizeof *sizes; j++)
            check_proofs(book, sizes[i], sizes[j]);
    }
}

static void the_edge_is_found_again_at_every_size(void **state)
{
    struct logbook *book = *state;
    for (uint64_t size = 0; size < 600; size += 1 + size / 3) {
        append(book, size - book->count);
        close_store(book);
        open_store(book);
        assert_int_equal(store_log_size(book->log), size);
        struct hash_value root = store_log_root(book->log), wanted = tree_hash(book->leaves, size);
        assert_memory_equal(root.bytes, wanted.bytes, HASH_BYTES);
    }
}

static void what_is_rolled_back_leaves_no_trace(void **state)
{
    struct logbook *book = *state;
    for (int round = 0; round < 2; round++) { /* the first before there are tables */
        struct hash_value before = store_log_root(book->log);
        uint64_t size = store_log_size(book->log);
        assert_ok(book, store_begin(book->store, &book->fault));
        for (int i = 0; i < 300; i++)
            assert_ok(book, store_log_append(book->log, SPAN("gone"), &book->fault));
        assert_int_equal(store_log_size(book->log), size);
        store_rollback(book->store);
        store_log_rolled_back(book->log);
        struct hash_value after = store_log_root(book->log);
        assert_int_equal(store_log_next(book->log), size);
        assert_memory_equal(before.bytes, after.bytes, HASH_BYTES);
        append(book, 300);
        check_proofs(book, 1, book->count);
    }
}

static void what_was_never_there_is_refused(void **state)
{
    struct logbook *book = *state;
    struct hash_value proof[CONSISTENCY_PROOF_MAX], root;
    uint32_t count;
    append(book, 5);
    assert_int_equal(store_log_root_at(&root, book->log, 6, &book->fault), BAD_FIELD);
    assert_int_equal(store_log_consistency(proof, &count, book->log, 3, 6, &book->fault),
                     BAD_FIELD);
    assert_int_equal(store_log_consistency(proof, &count, book->log, 4, 3, &book->fault),
                     BAD_FIELD);
    assert_int_equal(store_log_inclusion(proof, &count, book->log, 5, 5, &book->fault), BAD_FIELD);
    assert_int_equal(store_log_read(book->log, 0, 6, note_leaf, book, &book->fault), BAD_FIELD);
    static uint8_t large[AUDIT_ENTRY_MAX + 1];
    assert_ok(book, store_begin(book->store, &book->fault));
    assert_int_equal(store_log_append(book->log, SPAN_OF(large), &book->fault), TOO_LARGE);
    store_rollback(book->store);
    store_log_rolled_back(book->log);
}

static void change(struct logbook *book, const char *sql)
{
    assert_ok(book, store_begin(book->store, &book->fault));
    assert_ok(book, store_execute(book->store, sql, &book->fault));
    assert_ok(book, store_commit(book->store, &book->fault));
    book->log = store_log_close(book->log);
}

static void a_missing_entry_or_root_is_corrupt(void **state)
{
    static const char *const changes[] = {"DELETE FROM log_entries WHERE idx = 600",
                                          "DELETE FROM log_nodes WHERE place & 255 = 1",
                                          "UPDATE log_entries SET salt = x'00' WHERE idx = 599"};
    struct logbook *book = *state;
    append(book, 610);
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        struct sim *copy = sim_copy(book->sim), *whole = book->sim;
        close_store(book);
        book->sim = copy;
        open_store(book);
        change(book, changes[i]);
        assert_int_equal(store_log_open(&book->log, book->store, &book->fault), CORRUPT);
        assert_ok(book, store_close(book->store, NULL, &book->fault));
        sim_free(copy);
        book->sim = whole;
        open_store(book);
    }
}

#define BOOK_TEST(name) cmocka_unit_test_setup_teardown(name, build, pull_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOOK_TEST(every_size_has_the_root_of_the_standard_and_its_proofs),
        BOOK_TEST(tiles_and_their_edges_are_right),
        BOOK_TEST(the_edge_is_found_again_at_every_size),
        BOOK_TEST(what_is_rolled_back_leaves_no_trace),
        BOOK_TEST(what_was_never_there_is_refused),
        BOOK_TEST(a_missing_entry_or_root_is_corrupt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
