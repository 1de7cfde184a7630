/* Files: by absolute paths, links never followed where something is removed or replaced. */
#define _GNU_SOURCE
#include "host.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static struct host host;
static struct fault fault;
static char top[64];
static uint8_t storage[AGENT_FRAME_MAX];

static int set_up(void **state)
{
    (void)state;
    snprintf(top, sizeof top, "/tmp/bulkhead-agent-XXXXXX");
    assert_non_null(mkdtemp(top));
    host_start(&host);
    return 0;
}

static char *at(const char *name)
{
    static char paths[4][128];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", top, name);
    return path;
}

static struct buffer payload_of(const char *path)
{
    struct buffer payload = buffer_over(storage, sizeof storage);
    buffer_put_text_field(&payload, path);
    return payload;
}

static status remove_path(uint32_t id, const char *path, bool recursive)
{
    struct buffer payload = payload_of(path);
    buffer_put_u8(&payload, recursive);
    return host_ask(&host, AGENT_FILE_REMOVE, id, buffer_span(&payload));
}

static int tear_down(void **state)
{
    (void)state;
    assert_int_equal(remove_path(99, top, true), OK);
    assert_int_equal(access(top, F_OK), -1);
    assert_int_equal(host_stop(&host), 0);
    return 0;
}

static void begin_write(uint32_t id, const char *path, uint32_t mode, uint8_t flags)
{
    struct buffer payload = payload_of(path);
    buffer_put_u32(&payload, mode);
    buffer_put_u8(&payload, flags);
    host_request(&host, AGENT_FILE_WRITE, id, buffer_span(&payload));
}

static status write_text(const char *path, const char *text, uint32_t mode, uint8_t flags)
{
    begin_write(1, path, mode, flags);
    struct agent_frame frame = host_next(&host);
    if (frame.type == AGENT_DONE) {
        struct agent_done done;
        assert_int_equal(agent_done_get(&done, frame.payload, &fault), OK);
        return done.code;
    }
    assert_int_equal(frame.type, AGENT_STARTED);
    host_put(&host, 1, AGENT_IN, span_of_text(text));
    host_end(&host, 1, AGENT_IN);
    struct agent_done done = host_done(&host, 1);
    struct cursor cursor = cursor_over(done.result);
    uint64_t bytes = 0;
    if (done.code == OK) {
        assert_int_equal(cursor_u64(&bytes, &cursor, &fault), OK);
        assert_int_equal(bytes, strlen(text));
    }
    return done.code;
}

static status read_into(struct buffer *out, const char *path, uint64_t offset, uint64_t length)
{
    struct buffer payload = payload_of(path);
    struct agent_piece piece;
    buffer_put_u64(&payload, offset);
    buffer_put_u64(&payload, length);
    host_request(&host, AGENT_FILE_READ, 2, buffer_span(&payload));
    for (;;) {
        struct agent_frame frame = host_next(&host);
        if (frame.type == AGENT_DONE) {
            struct agent_done done;
            assert_int_equal(agent_done_get(&done, frame.payload, &fault), OK);
            return done.code;
        }
        if (frame.type != AGENT_DATA)
            continue;
        assert_int_equal(agent_piece_get(&piece, &frame, &fault), OK);
        buffer_put(out, piece.bytes);
        host_credit(&host, 2, AGENT_OUT, (uint32_t)piece.bytes.length);
    }
}

static bool reads(const char *path, const char *text, uint64_t offset, uint64_t length)
{
    struct buffer out = buffer_of(1024);
    bool equal = read_into(&out, path, offset, length) == OK && span_is(buffer_span(&out), text);
    buffer_free(&out);
    return equal;
}

static uint32_t entries_here(void)
{
    uint16_t count;
    struct buffer payload = payload_of(top);
    buffer_put_text_field(&payload, "");
    host_request(&host, AGENT_FILE_LIST, 3, buffer_span(&payload));
    struct agent_done done = host_done(&host, 3);
    struct cursor cursor = cursor_over(done.result);
    assert_int_equal(cursor_u16(&count, &cursor, &fault), OK);
    return count;
}

static void what_was_written_is_read_in_whole_and_in_part(void **state)
{
    (void)state;
    assert_int_equal(write_text(at("file"), "hello world", 0640, 0), OK);
    assert_true(reads(at("file"), "hello world", 0, UINT64_MAX));
    assert_true(reads(at("file"), "world", 6, UINT64_MAX));
    assert_true(reads(at("file"), "wor", 6, 3));
    assert_true(reads(at("file"), "", 100, UINT64_MAX));
    assert_true(reads(at("file"), "", 0, 0));
    struct stat about;
    assert_int_equal(stat(at("file"), &about), 0);
    assert_int_equal(about.st_mode & 07777, 0640);
    assert_int_equal(write_text(at("file"), ", again", 0600, 1), OK);
    assert_true(reads(at("file"), "hello world, again", 0, UINT64_MAX));
    assert_int_equal(write_text(at("file"), "new", 0600, 2), CONFLICT);
    assert_int_equal(write_text(at("other"), "new", 0600, 2), OK);
    assert_true(reads(at("other"), "new", 0, UINT64_MAX));
    assert_int_equal(entries_here(), 2);
}

static void a_file_is_replaced_whole_or_not_at_all(void **state)
{
    (void)state;
    assert_int_equal(write_text(at("file"), "before", 0600, 0), OK);
    begin_write(5, at("file"), 0600, 0);
    host_expect(&host, AGENT_STARTED, 5);
    host_put(&host, 5, AGENT_IN, SPAN("half"));
    assert_true(reads(at("file"), "before", 0, UINT64_MAX));
    host_cancel(&host, 5);
    assert_int_equal(host_done(&host, 5).code, CONFLICT);
    assert_true(reads(at("file"), "before", 0, UINT64_MAX));
    assert_int_equal(entries_here(), 1);
    begin_write(6, at("file"), 0600, 0); /* and the connection ends: tear_down finds nothing */
    host_expect(&host, AGENT_STARTED, 6);
    host_stop(&host);
    host_start(&host);
    assert_int_equal(entries_here(), 1);
}

static void writing_never_goes_through_a_link(void **state)
{
    (void)state;
    assert_int_equal(write_text(at("target"), "safe", 0600, 0), OK);
    assert_int_equal(symlink("target", at("link")), 0);
    assert_int_equal(write_text(at("link"), "other", 0600, 0), OK);
    assert_true(reads(at("target"), "safe", 0, UINT64_MAX));
    struct stat about;
    assert_int_equal(lstat(at("link"), &about), 0);
    assert_true(S_ISREG(about.st_mode));
    assert_int_equal(mkdir(at("directory"), 0700), 0);
    assert_int_equal(write_text(at("directory"), "x", 0600, 0), CONFLICT);
    assert_int_equal(write_text(at("no/such"), "x", 0600, 0), NOT_FOUND);
}

static void files_belong_to_whom_the_place_belongs(void **state)
{
    (void)state;
    if (geteuid() != 0)
        skip();
    struct stat about;
    assert_int_equal(mkdir(at("yours"), 0700), 0);
    assert_int_equal(chown(at("yours"), 1234, 2345), 0);
    assert_int_equal(write_text(at("yours/file"), "x", 0600, 0), OK);
    assert_int_equal(stat(at("yours/file"), &about), 0);
    assert_int_equal(about.st_uid, 1234);
    assert_int_equal(about.st_gid, 2345);
    assert_int_equal(write_text(at("mine"), "x", 0600, 0), OK);
    assert_int_equal(chown(at("mine"), 77, 78), 0);
    assert_int_equal(write_text(at("mine"), "y", 04755, 0), OK);
    assert_int_equal(stat(at("mine"), &about), 0);
    assert_int_equal(about.st_uid, 77);
    assert_int_equal(about.st_mode & 07777, 04755);
}

static void what_is_no_file_is_not_read(void **state)
{
    (void)state;
    struct buffer out = buffer_of(1024);
    assert_int_equal(mkfifo(at("fifo"), 0600), 0);
    assert_int_equal(read_into(&out, at("fifo"), 0, UINT64_MAX), BAD_FIELD);
    assert_int_equal(read_into(&out, "/dev/zero", 0, UINT64_MAX), BAD_FIELD);
    assert_int_equal(read_into(&out, top, 0, UINT64_MAX), BAD_FIELD);
    assert_int_equal(read_into(&out, at("none"), 0, UINT64_MAX), NOT_FOUND);
    assert_int_equal(read_into(&out, "relative", 0, UINT64_MAX), BAD_FIELD);
    assert_int_equal(write_text(at("fifo"), "x", 0600, 1), NOT_FOUND); /* nobody reads it */
    buffer_free(&out);
}

static void large_files_go_both_ways(void **state)
{
    (void)state;
    enum { BYTES = 20 * 1000 * 1000 };
    static uint8_t piece[AGENT_DATA_MAX];
    uint32_t window = AGENT_WINDOW;
    begin_write(7, at("large"), 0600, 0);
    host_expect(&host, AGENT_STARTED, 7);
    for (uint64_t sent = 0; sent < BYTES;) {
        while (window < sizeof piece) {
            struct agent_piece credit;
            struct agent_frame frame = host_expect(&host, AGENT_CREDIT, 7);
            assert_int_equal(agent_piece_get(&credit, &frame, &fault), OK);
            window += credit.credit;
        }
        size_t length = BYTES - sent < sizeof piece ? BYTES - sent : sizeof piece;
        memset(piece, (int)(sent / sizeof piece), length);
        host_put(&host, 7, AGENT_IN, (struct span){piece, length});
        sent += length;
        window -= (uint32_t)length;
    }
    host_end(&host, 7, AGENT_IN);
    while (host_next(&host).type != AGENT_DONE)
        ;
    struct buffer out = buffer_of(BYTES);
    assert_int_equal(read_into(&out, at("large"), 0, UINT64_MAX), OK);
    assert_int_equal(out.length, BYTES);
    for (size_t i = 0; i < BYTES; i += 4093)
        assert_int_equal(out.data[i], (uint8_t)(i / sizeof piece));
    buffer_free(&out);
}

static void a_listing_comes_in_order_and_in_pages(void **state)
{
    (void)state;
    enum { FILES = 3000 };
    char name[256], last[256] = "";
    for (int i = 0; i < FILES; i++) {
        snprintf(name, sizeof name, "%s/%04d-%.*s", top, i * 7919 % FILES, i % 200,
                 "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx");
        close(open(name, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    }
    int seen = 0, pages = 0;
    for (uint8_t more = 1; more; pages++) {
        struct buffer payload = payload_of(top);
        buffer_put_text_field(&payload, last);
        host_request(&host, AGENT_FILE_LIST, 4, buffer_span(&payload));
        struct agent_done done = host_done(&host, 4);
        assert_int_equal(done.code, OK);
        struct cursor cursor = cursor_over(done.result);
        uint16_t count;
        assert_int_equal(cursor_u16(&count, &cursor, &fault), OK);
        for (uint16_t i = 0; i < count; i++, seen++) {
            struct span found;
            struct agent_entry entry;
            assert_int_equal(agent_name_get(&found, &cursor, &fault), OK);
            assert_int_equal(agent_entry_get(&entry, &cursor, &fault), OK);
            assert_int_equal(entry.kind, AGENT_FILE);
            assert_true(span_compare(span_of_text(last), found) < 0);
            assert_true(span_to_text(last, sizeof last, found));
        }
        assert_int_equal(cursor_u8(&more, &cursor, &fault), OK);
        assert_int_equal(cursor_end(&cursor, &fault), OK);
    }
    assert_int_equal(seen, FILES);
    assert_true(pages > 3);
}

static void stat_tells_of_the_link_itself(void **state)
{
    (void)state;
    struct agent_entry entry;
    assert_int_equal(symlink("/etc/passwd", at("link")), 0);
    struct buffer payload = payload_of(at("link"));
    host_request(&host, AGENT_FILE_STAT, 4, buffer_span(&payload));
    struct agent_done done = host_done(&host, 4);
    struct cursor cursor = cursor_over(done.result);
    assert_int_equal(agent_entry_get(&entry, &cursor, &fault), OK);
    assert_int_equal(entry.kind, AGENT_LINK);
    assert_int_equal(entry.bytes, 11);
    payload = payload_of("/");
    assert_int_equal(host_ask(&host, AGENT_FILE_STAT, 4, buffer_span(&payload)), OK);
    payload = payload_of(at("none"));
    assert_int_equal(host_ask(&host, AGENT_FILE_STAT, 4, buffer_span(&payload)), NOT_FOUND);
}

static void removing_follows_no_link_and_stops_at_its_depth(void **state)
{
    (void)state;
    char path[4096];
    assert_int_equal(mkdir(at("tree"), 0700), 0);
    assert_int_equal(mkdir(at("kept"), 0700), 0);
    assert_int_equal(write_text(at("kept/file"), "kept", 0600, 0), OK);
    assert_int_equal(symlink(at("kept"), at("tree/link")), 0);
    assert_int_equal(remove_path(4, at("tree"), false), CONFLICT);
    assert_int_equal(remove_path(4, at("tree"), true), OK);
    assert_true(reads(at("kept/file"), "kept", 0, UINT64_MAX));
    assert_int_equal(symlink("kept", at("link")), 0);
    assert_int_equal(remove_path(4, at("link"), true), OK);
    assert_true(reads(at("kept/file"), "kept", 0, UINT64_MAX));
    assert_int_equal(remove_path(4, "/", true), BAD_FIELD);
    assert_int_equal(remove_path(4, at("kept/.."), true), BAD_FIELD);
    assert_int_equal(remove_path(4, at("none"), true), NOT_FOUND);

    snprintf(path, sizeof path, "%s/deep", top);
    for (int i = 0; i < 2 * AGENT_DEPTH_MAX; i++) {
        assert_int_equal(mkdir(path, 0700), 0);
        snprintf(path + strlen(path), sizeof path - strlen(path), "/d");
    }
    assert_int_equal(remove_path(4, at("deep"), true), TOO_LARGE);
    path[strlen(path) - 2] = '\0';
    for (int i = 0; i < 2 * AGENT_DEPTH_MAX; i++) { /* by hand, from below */
        assert_int_equal(rmdir(path), 0);
        *strrchr(path, '/') = '\0';
    }
}

static void moving_and_making(void **state)
{
    (void)state;
    struct stat about;
    struct buffer payload = payload_of(at("a/b/c"));
    buffer_put_u32(&payload, 0750);
    buffer_put_u8(&payload, 0);
    assert_int_equal(host_ask(&host, AGENT_FILE_MAKE, 4, buffer_span(&payload)), NOT_FOUND);
    storage[payload.length - 1] = 1;
    assert_int_equal(host_ask(&host, AGENT_FILE_MAKE, 4, buffer_span(&payload)), OK);
    assert_int_equal(host_ask(&host, AGENT_FILE_MAKE, 4, buffer_span(&payload)), OK);
    assert_int_equal(stat(at("a/b/c"), &about), 0);
    assert_int_equal(about.st_mode & 07777, 0750);
    storage[payload.length - 1] = 0;
    assert_int_equal(host_ask(&host, AGENT_FILE_MAKE, 4, buffer_span(&payload)), CONFLICT);
    payload = payload_of(at("a/b/c"));
    buffer_put_text_field(&payload, at("moved"));
    assert_int_equal(host_ask(&host, AGENT_FILE_MOVE, 4, buffer_span(&payload)), OK);
    assert_int_equal(access(at("moved"), F_OK), 0);
    assert_int_equal(host_ask(&host, AGENT_FILE_MOVE, 4, buffer_span(&payload)), NOT_FOUND);
}

/* ---- watch ---- */

static void begin_watch(uint32_t id, const char *path, uint8_t recursive)
{
    struct buffer payload = payload_of(path);
    buffer_put_u8(&payload, recursive);
    host_request(&host, AGENT_FILE_WATCH, id, buffer_span(&payload));
    host_expect(&host, AGENT_STARTED, id);
}

static void expect_change(uint32_t id, enum agent_change what, const char *path)
{
    struct agent_event event;
    for (;;) { /* others may come in between */
        struct agent_frame frame = host_expect(&host, AGENT_EVENT, id);
        assert_int_equal(agent_event_get(&event, frame.payload, &fault), OK);
        if (event.what == what && span_is(event.path, path))
            return;
        print_message("also: %u %.*s\n", event.what, SPAN_ARG(event.path));
    }
}

static void a_watch_follows_what_is_made_moved_and_removed(void **state)
{
    (void)state;
    assert_int_equal(mkdir(at("old"), 0700), 0);
    begin_watch(8, top, 1);
    assert_int_equal(mkdir(at("old/new"), 0700), 0);
    expect_change(8, AGENT_CREATED, "old/new");
    close(open(at("old/new/file"), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    expect_change(8, AGENT_CREATED, "old/new/file");
    assert_int_equal(rename(at("old/new"), at("here")), 0);
    expect_change(8, AGENT_MOVED_AWAY, "old/new");
    expect_change(8, AGENT_MOVED_HERE, "here");
    assert_int_equal(truncate(at("here/file"), 5), 0);
    expect_change(8, AGENT_CHANGED, "here/file");
    assert_int_equal(unlink(at("here/file")), 0);
    expect_change(8, AGENT_REMOVED, "here/file");
    assert_int_equal(rmdir(at("here")), 0);
    expect_change(8, AGENT_REMOVED, "here");
    host_cancel(&host, 8);
    while (host_next(&host).type != AGENT_DONE)
        ;
}

static void a_watch_that_outlives_its_directory_ends(void **state)
{
    (void)state;
    assert_int_equal(mkdir(at("gone"), 0700), 0);
    begin_watch(8, at("gone"), 1);
    assert_int_equal(rmdir(at("gone")), 0);
    struct agent_frame frame;
    do
        frame = host_next(&host);
    while (frame.type == AGENT_EVENT);
    assert_int_equal(frame.type, AGENT_DONE);
}

/* The kernel keeps 16384 events of one watch; the agent keeps less. */
static void changes_that_nobody_takes_are_lost_but_never_in_silence(void **state)
{
    (void)state;
    struct agent_event event = {0};
    bool lost = false;
    begin_watch(8, top, 0);
    for (int i = 0; i < 40000; i++) {
        char name[128];
        snprintf(name, sizeof name, "%s/%d", top, i);
        close(open(name, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
        unlink(name);
    }
    while (!host_is_quiet(&host, 300)) {
        struct agent_frame frame = host_expect(&host, AGENT_EVENT, 8);
        assert_int_equal(agent_event_get(&event, frame.payload, &fault), OK);
        lost = lost || event.what == AGENT_CHANGES_LOST;
    }
    assert_true(lost);
    close(open(at("after"), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    expect_change(8, AGENT_CREATED, "after");
    host_cancel(&host, 8);
    while (host_next(&host).type != AGENT_DONE)
        ;
}

enum { LONG_NAME = 250, LEVELS = 14, LEAVES = 3000 };

/* Names so long that to tell of all of them would take more than the agent has. */
static void make_long_tree(const char *path)
{
    char name[LONG_NAME + 1];
    int at_level = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    memset(name, 'n', LONG_NAME);
    name[LONG_NAME] = '\0';
    for (int i = 0; i < LEVELS; i++) {
        assert_int_equal(mkdirat(at_level, name, 0700), 0);
        int below = openat(at_level, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        close(at_level);
        at_level = below;
    }
    for (int i = 0; i < LEAVES; i++) {
        snprintf(name, sizeof name, "%d", i);
        close(openat(at_level, name, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    }
    close(at_level);
}

static void a_tree_that_comes_at_once_is_told_as_far_as_there_is_room(void **state)
{
    (void)state;
    struct agent_event event = {0};
    bool lost = false;
    size_t bytes = 0;
    assert_int_equal(mkdir(at("watched"), 0700), 0);
    assert_int_equal(mkdir(at("tree"), 0700), 0);
    make_long_tree(at("tree"));
    begin_watch(8, at("watched"), 1);
    assert_int_equal(rename(at("tree"), at("watched/tree")), 0);
    while (!lost) {
        struct agent_frame frame = host_expect(&host, AGENT_EVENT, 8);
        assert_int_equal(agent_event_get(&event, frame.payload, &fault), OK);
        lost = event.what == AGENT_CHANGES_LOST;
        bytes += frame.payload.length;
    }
    assert_true(bytes <= AGENT_WATCH_QUEUE_MAX + AGENT_PATH_MAX);
    close(open(at("watched/after"), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    expect_change(8, AGENT_CREATED, "after");
    host_cancel(&host, 8);
    while (host_next(&host).type != AGENT_DONE)
        ;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_written_is_read_in_whole_and_in_part),
        cmocka_unit_test(a_file_is_replaced_whole_or_not_at_all),
        cmocka_unit_test(writing_never_goes_through_a_link),
        cmocka_unit_test(files_belong_to_whom_the_place_belongs),
        cmocka_unit_test(what_is_no_file_is_not_read),
        cmocka_unit_test(large_files_go_both_ways),
        cmocka_unit_test(a_listing_comes_in_order_and_in_pages),
        cmocka_unit_test(stat_tells_of_the_link_itself),
        cmocka_unit_test(removing_follows_no_link_and_stops_at_its_depth),
        cmocka_unit_test(moving_and_making),
        cmocka_unit_test(a_watch_follows_what_is_made_moved_and_removed),
        cmocka_unit_test(a_watch_that_outlives_its_directory_ends),
        cmocka_unit_test(changes_that_nobody_takes_are_lost_but_never_in_silence),
        cmocka_unit_test(a_tree_that_comes_at_once_is_told_as_far_as_there_is_room),
    };
    struct CMUnitTest each[sizeof tests / sizeof *tests];
    memcpy(each, tests, sizeof each);
    for (size_t i = 0; i < sizeof each / sizeof *each; i++) {
        each[i].setup_func = set_up;
        each[i].teardown_func = tear_down;
    }
    return cmocka_run_group_tests(each, NULL, NULL);
}
