/* test_backup.c: backups of a silo in use, and silos made of them, on a real disk. */
#define _GNU_SOURCE
#include "objects.h"

#include "silo/care.h"
#include "silo/state.h"
#include "store/copy.h"
#include "store/seal.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdlib.h>
#include <unistd.h>

enum { CHAIN_MAX = 4, KIB_200 = KIB(200) };

static const uint8_t no_key[32];

/* Files of backups in memory, and directories of silos on the disk. */
struct chain {
    struct buffer files[CHAIN_MAX];
    uint32_t count;
};

static char place[64];
static int directory_count;
static struct chain chain;

static int new_directory(void)
{
    char name[96];
    snprintf(name, sizeof name, "%s/%d", place, directory_count++);
    assert_int_equal(mkdir(name, 0700), 0);
    int fd = open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(fd >= 0);
    return fd;
}

static void move_to(struct house *house, int silo_fd, const struct anchor *anchor)
{
    int before = house->opening.silo_fd;
    house->silo = silo_close(house->silo);
    if (before >= 0)
        close(before);
    house->opening.silo_fd = silo_fd;
    house->opening.io = NULL;
    house->opening.anchor = *anchor;
    assert_ok(house, silo_open(&house->silo, &house->opening, &house->fault));
}

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *walk)
{
    (void)info, (void)type, (void)walk;
    return remove(path);
}

static int build(void **state)
{
    snprintf(place, sizeof place, "/tmp/bulkhead-backup-XXXXXX");
    chain = (struct chain){0};
    if (house_build(state) != 0 || mkdtemp(place) == NULL)
        return -1;
    move_to(*state, new_directory(), &(struct anchor){.epoch = 1});
    return 0;
}

static int pull_down(void **state)
{
    struct house *house = *state;
    int fd = house->opening.silo_fd;
    for (uint32_t i = 0; i < chain.count; i++)
        buffer_free(&chain.files[i]);
    int down = house_pull_down(state);
    close(fd);
    return nftw(place, remove_one, 16, FTW_DEPTH | FTW_PHYS) != 0 ? -1 : down;
}

static status begin(struct silo_backup **ret, struct house *house)
{
    struct silo_backup_wish wish = {.sequence = chain.count + 1, .wrapped = SPAN("wrapped keys"),
                                    .previous = -1};
    assert_ok(house, silo_commit(house->silo, &house->fault));
    if (chain.count > 0) {
        struct span bytes = buffer_span(&chain.files[chain.count - 1]);
        wish.previous = open(place, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
        assert_int_equal(write(wish.previous, bytes.data, bytes.length), bytes.length);
    }
    status begun = silo_backup_begin(ret, house->silo, &wish, &house->fault);
    if (wish.previous >= 0)
        close(wish.previous);
    return begun;
}

/* The rest of it becomes the next file of the chain, where it is OK. */
static status finish(struct house *house, struct silo_backup *backup)
{
    struct buffer *out = &chain.files[chain.count];
    status made = OK;
    *out = buffer_of(MIB(64));
    for (bool done = false; made == OK && !done;) {
        struct buffer piece = buffer_of(CARE_PIECE_BYTES);
        made = silo_backup_piece(&piece, &done, backup, &house->fault);
        buffer_put(out, buffer_span(&piece));
        buffer_free(&piece);
    }
    assert_null(silo_backup_end(backup));
    if (made == OK)
        chain.count++;
    else
        buffer_free(out);
    return made;
}

static void back_up(struct house *house)
{
    struct silo_backup *backup;
    assert_ok(house, begin(&backup, house));
    assert_ok(house, finish(house, backup));
}

struct stream {
    uint32_t file;
    size_t at;
};

static status read_chain(void *context, uint8_t *bytes, size_t length, struct fault *fault)
{
    struct stream *stream = context;
    if (stream->file < chain.count && stream->at == chain.files[stream->file].length)
        *stream = (struct stream){stream->file + 1, 0};
    if (stream->file == chain.count)
        return FAIL(NOT_FOUND, fault, "end");
    struct span left = buffer_span(&chain.files[stream->file]);
    if (left.length - stream->at < length)
        return FAIL(TRUNCATED, fault, "cut");
    memcpy(bytes, left.data + stream->at, length);
    stream->at += length;
    return OK;
}

static status restore_into(struct silo_restored *ret, struct house *house, int silo_fd,
                           const struct store_key *key)
{
    struct stream stream = {0};
    struct silo_restore *restore;
    struct silo_opening opening = house->opening;
    opening.silo_fd = silo_fd;
    opening.anchor.epoch++;
    opening.keys = key;
    status done = silo_restore_begin(&restore, opening.tenant_id, read_chain, &stream,
                                     &house->fault);
    if (done != OK)
        return done;
    assert_true(span_equal(silo_restore_wrapped(restore), SPAN("wrapped keys")));
    done = silo_restore_run(ret, restore, &opening, no_key, &house->fault);
    assert_null(silo_restore_end(restore));
    return done;
}

static status restore(struct house *house)
{
    struct silo_restored restored;
    int fd = new_directory();
    status done = restore_into(&restored, house, fd, house->opening.keys);
    if (done == OK)
        move_to(house, fd, &restored.anchor);
    else
        close(fd);
    return done;
}

static void assert_refused(struct house *house)
{
    status done = restore(house);
    assert_true(done == CORRUPT || done == UNAUTHENTICATED || done == NOT_IMPLEMENTED
                || done == BAD_FIELD);
}

static void assert_memories(struct house *house, uint32_t count)
{
    assert_ok(house, ask(house, &alice, "GET", "/v1/memories", "limit=500", NULL));
    assert_int_equal(answer_data(house)->count, count);
}

static void fill(struct house *house, int from, int to)
{
    for (int i = from; i < to; i++) {
        char text[64];
        snprintf(text, sizeof text, "memory number %d about the harbour", i);
        remember(house, &alice, text);
    }
}

/* The next record of that kind from there on; *ret_body its body. False: there is none. */
static bool find_record(struct span *ret_body, size_t *at, const struct buffer *file, uint8_t kind)
{
    struct fault fault;
    if (*at == 0)
        *at = span_find(buffer_span(file), '\n') + 1;
    while (*at < file->length) {
        struct cursor cursor = cursor_over((struct span){file->data + *at, file->length - *at});
        uint8_t found;
        uint32_t length;
        assert_int_equal(cursor_u8(&found, &cursor, &fault), OK);
        assert_int_equal(cursor_u32(&length, &cursor, &fault), OK);
        assert_int_equal(cursor_bytes(ret_body, &cursor, length, &fault), OK);
        *at += BACKUP_RECORD_HEAD + length;
        if (found == kind)
            return true;
    }
    return false;
}

static struct backup_end end_of(uint32_t file)
{
    struct backup_end end;
    struct fault fault;
    const struct buffer *bytes = &chain.files[file];
    const struct span last = {bytes->data + bytes->length - BACKUP_END_BYTES, BACKUP_END_BYTES};
    assert_int_equal(backup_get_end(&end, last, &fault), OK);
    return end;
}

static void what_is_changed_while_a_backup_runs_is_not_in_it(void **state)
{
    struct house *house = *state;
    struct silo_backup *backup;
    struct span bytes = many(house, KIB_200, 1);
    fill(house, 0, 40);
    assert_ok(house, put(house, &ada, "kept", "", bytes));
    assert_ok(house, begin(&backup, house));
    fill(house, 40, 60);
    assert_ok(house, del(house, &ada, "kept"));
    assert_ok(house, put(house, &ada, "later", "", bytes));
    assert_ok(house, finish(house, backup));
    assert_memories(house, 60);
    assert_ok(house, restore(house));
    assert_memories(house, 40);
    assert_reads(house, &ada, "kept", bytes);
    assert_status(house, get(house, &(struct ask){0}, &ada, "later"), NOT_FOUND);
}

static void the_next_backup_has_what_changed_and_no_more(void **state)
{
    struct house *house = *state;
    struct span first = many(house, KIB_200, 1), second = many(house, KIB_200, 2);
    fill(house, 0, 300);
    assert_ok(house, put(house, &ada, "first", "", first));
    assert_ok(house, put(house, &ada, "gone", "", first));
    back_up(house);
    fill(house, 300, 302);
    assert_ok(house, put(house, &ada, "second", "", second));
    assert_ok(house, del(house, &ada, "gone"));
    back_up(house);
    back_up(house);
    assert_int_equal(end_of(0).blobs, 2);
    assert_int_equal(end_of(1).blobs, 1);
    assert_int_equal(end_of(2).blobs, 0);
    assert_true(end_of(1).pages < end_of(0).pages);
    assert_int_equal(end_of(2).pages, 0);
    assert_ok(house, restore(house));
    assert_memories(house, 302);
    assert_reads(house, &ada, "first", first);
    assert_reads(house, &ada, "second", second);
    assert_status(house, get(house, &(struct ask){0}, &ada, "gone"), NOT_FOUND);
    remember(house, &alice, "life goes on");
    house_reopen(house);
    assert_memories(house, 303);
}

static void a_bit_changed_in_any_record_is_refused(void **state)
{
    struct house *house = *state;
    static const uint8_t kinds[] = "KTOAPBDE";
    fill(house, 0, 20);
    assert_ok(house, put(house, &ada, "object", "", many(house, KIB_200, 1)));
    back_up(house);
    for (const uint8_t *kind = kinds; *kind != 0; kind++) {
        struct span body;
        size_t at = 0;
        assert_true(find_record(&body, &at, &chain.files[0], *kind));
        uint8_t *bytes = chain.files[0].data + (body.data - chain.files[0].data);
        const size_t places[] = {0, body.length / 2, body.length - 1};
        for (size_t i = 0; i < 3; i++) {
            bytes[places[i]] ^= 4;
            if (*kind == BACKUP_KEYS) { /* the kms would not know them, and the MAC neither */
                struct silo_restore *opened;
                struct stream stream = {0};
                assert_ok(house, silo_restore_begin(&opened, house->opening.tenant_id, read_chain,
                                                    &stream, &house->fault));
                assert_false(span_equal(silo_restore_wrapped(opened), SPAN("wrapped keys")));
                silo_restore_end(opened);
            } else {
                assert_refused(house);
            }
            bytes[places[i]] ^= 4;
        }
    }
    assert_ok(house, restore(house));
}

static void bodies_that_change_places_are_refused(void **state)
{
    struct house *house = *state;
    struct span one, other;
    size_t at = 0;
    uint8_t swap[64];
    fill(house, 0, 20);
    assert_ok(house, put(house, &ada, "a", "", many(house, KIB(40), 1)));
    assert_ok(house, put(house, &ada, "b", "", many(house, KIB(40), 2)));
    back_up(house);
    uint8_t *data = chain.files[0].data;
    assert_true(find_record(&one, &at, &chain.files[0], BACKUP_PAGES));
    uint8_t *page = data + (one.data - data) + 4;
    for (size_t i = 0; i < COPY_PAGE_BYTES; i += sizeof swap) { /* the first two pages */
        memcpy(swap, page + i, sizeof swap);
        memcpy(page + i, page + COPY_PAGE_BYTES + i, sizeof swap);
        memcpy(page + COPY_PAGE_BYTES + i, swap, sizeof swap);
    }
    assert_refused(house);
    for (size_t i = 0; i < COPY_PAGE_BYTES; i += sizeof swap) {
        memcpy(swap, page + i, sizeof swap);
        memcpy(page + i, page + COPY_PAGE_BYTES + i, sizeof swap);
        memcpy(page + COPY_PAGE_BYTES + i, swap, sizeof swap);
    }
    assert_true(find_record(&one, &at, &chain.files[0], BACKUP_BLOB_BYTES));
    assert_true(find_record(&other, &at, &chain.files[0], BACKUP_BLOB_BYTES));
    assert_int_equal(one.length, other.length);
    uint8_t *to = data + (one.data - data);
    struct span kept = arena_copy(&house->arena, one);
    memcpy(to, other.data, other.length);
    assert_refused(house);
    memcpy(to, kept.data, kept.length);
    assert_ok(house, restore(house));
}

static void a_damaged_object_is_said_to_be_of_the_file_it_came_in(void **state)
{
    struct house *house = *state;
    struct span body;
    size_t at = 0;
    assert_ok(house, put(house, &ada, "a", "", many(house, KIB_200, 1)));
    back_up(house);
    fill(house, 0, 3);
    back_up(house);
    assert_true(find_record(&body, &at, &chain.files[0], BACKUP_BLOB_BYTES));
    chain.files[0].data[body.data - chain.files[0].data + 1000] ^= 1;
    assert_status(house, restore(house), CORRUPT);
    assert_non_null(strstr(house->fault.detail, "came with 000001.bhb"));
}

static void bytes_of_an_object_that_the_chain_deletes_reach_no_silo(void **state)
{
    struct house *house = *state;
    struct span body;
    size_t at = 0;
    assert_ok(house, put(house, &ada, "a", "", many(house, KIB_200, 1)));
    back_up(house);
    assert_ok(house, del(house, &ada, "a"));
    back_up(house);
    assert_true(find_record(&body, &at, &chain.files[0], BACKUP_BLOB_BYTES));
    chain.files[0].data[body.data - chain.files[0].data + 1000] ^= 1;
    assert_ok(house, restore(house));
    assert_status(house, get(house, &(struct ask){0}, &ada, "a"), NOT_FOUND);
}

static void a_chain_with_a_link_missing_twice_or_in_another_order_is_refused(void **state)
{
    struct house *house = *state;
    for (int i = 0; i < 3; i++) {
        fill(house, i, i + 1);
        back_up(house);
    }
    const struct chain whole = chain;
    static const uint8_t orders[][3] = {{0, 2, 2}, {0, 0, 1}, {0, 1, 1}, {1, 2, 2}, {0, 2, 1}};
    for (size_t i = 0; i < sizeof orders / sizeof orders[0]; i++) {
        for (int at = 0; at < 3; at++)
            chain.files[at] = whole.files[orders[i][at]];
        assert_status(house, restore(house), CORRUPT);
    }
    chain = whole;
    assert_ok(house, restore(house));
    assert_memories(house, 3);
}

static void other_keys_another_tenant_and_a_silo_in_place_are_refused(void **state)
{
    struct house *house = *state;
    static const struct store_key other = {1, "thirty-two bytes of another ...."};
    static const struct store_key newer = {2, "thirty-two bytes of data key ..."};
    struct silo_restored restored;
    struct silo_restore *opened;
    struct stream stream = {0};
    uint8_t id[TENANT_ID_BYTES] = "another tenant..";
    fill(house, 0, 3);
    back_up(house);
    int fd = new_directory();
    assert_status(house, restore_into(&restored, house, fd, &other), UNAUTHENTICATED);
    assert_status(house, restore_into(&restored, house, new_directory(), &newer), CORRUPT);
    assert_status(house, restore_into(&restored, house, house->opening.silo_fd,
                                      house->opening.keys), CONFLICT);
    assert_status(house, silo_restore_begin(&opened, id, read_chain, &stream, &house->fault),
                  BAD_FIELD);
    close(fd);
    assert_memories(house, 3);
}

static void a_page_that_does_not_open_fails_the_backup_when_it_is_made(void **state)
{
    struct house *house = *state;
    struct silo_backup *backup;
    uint8_t byte;
    fill(house, 0, 300);
    house_reopen(house);
    int file = openat(house->opening.silo_fd, STORE_DATABASE, O_RDWR | O_CLOEXEC);
    assert_int_equal(pread(file, &byte, 1, 5 * PAGE_BYTES + 9), 1);
    byte ^= 1;
    assert_int_equal(pwrite(file, &byte, 1, 5 * PAGE_BYTES + 9), 1);
    assert_ok(house, begin(&backup, house));
    assert_status(house, finish(house, backup), CORRUPT);
    assert_non_null(strstr(house->fault.detail, "page 6 "));
    byte ^= 1;
    assert_int_equal(pwrite(file, &byte, 1, 5 * PAGE_BYTES + 9), 1);
    close(file);
    back_up(house);
}

static void one_backup_runs_at_a_time_and_gives_way_to_a_checkpoint(void **state)
{
    struct house *house = *state;
    struct silo_backup *first, *second;
    fill(house, 0, 3);
    assert_ok(house, begin(&first, house));
    assert_status(house, begin(&second, house), CONFLICT);
    assert_true(store_is_held(house->silo->store));
    fill(house, 3, 6);
    assert_ok(house, silo_commit(house->silo, &house->fault));
    assert_ok(house, store_checkpoint(house->silo->store, &house->fault));
    assert_status(house, finish(house, first), UNAVAILABLE);
    back_up(house);
    assert_ok(house, restore(house));
    assert_memories(house, 6);
}

static void the_previous_one_must_be_whole_and_of_this_silo(void **state)
{
    struct house *house = *state;
    struct silo_backup *backup;
    fill(house, 0, 3);
    back_up(house);
    struct buffer *file = &chain.files[0];
    size_t last = file->length - 1;
    file->data[last] ^= 1;
    assert_status(house, begin(&backup, house), UNAUTHENTICATED);
    file->data[last] ^= 1;
    file->length--;
    assert_status(house, begin(&backup, house), CORRUPT);
    file->length++;
    assert_false(store_is_held(house->silo->store));
    back_up(house);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, build, pull_down)
    const struct CMUnitTest tests[] = {
        TEST(what_is_changed_while_a_backup_runs_is_not_in_it),
        TEST(the_next_backup_has_what_changed_and_no_more),
        TEST(a_bit_changed_in_any_record_is_refused),
        TEST(bodies_that_change_places_are_refused),
        TEST(a_damaged_object_is_said_to_be_of_the_file_it_came_in),
        TEST(bytes_of_an_object_that_the_chain_deletes_reach_no_silo),
        TEST(a_chain_with_a_link_missing_twice_or_in_another_order_is_refused),
        TEST(other_keys_another_tenant_and_a_silo_in_place_are_refused),
        TEST(a_page_that_does_not_open_fails_the_backup_when_it_is_made),
        TEST(one_backup_runs_at_a_time_and_gives_way_to_a_checkpoint),
        TEST(the_previous_one_must_be_whole_and_of_this_silo),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
