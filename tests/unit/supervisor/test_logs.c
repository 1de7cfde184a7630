/* test_logs.c: what a child may put into the log that all share, and what becomes of the rest. */
#define _GNU_SOURCE
#include "base/cleanup.h"
#include "base/log.h"
#include "supervisor/logs.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#define HEAD "{\"time\":\"2026-11-21T22:10:22.123456Z\",\"level\":\"info\",\"process\":\"cell\","
#define EVENT "\"event\":\"cell.gone\",\"detail\":"

static struct loop *loop;
static int shared_log, kept_stderr;

/* Standard error becomes a file that the test can read: the log that all share. */
static int begin(void **state)
{
    struct fault fault;
    (void)state;
    kept_stderr = dup(STDERR_FILENO);
    shared_log = memfd_create("log", MFD_CLOEXEC);
    dup2(shared_log, STDERR_FILENO);
    return loop_create(&loop, &fault) == OK ? 0 : -1;
}

static int end(void **state)
{
    (void)state;
    dup2(kept_stderr, STDERR_FILENO);
    close(kept_stderr);
    close(shared_log);
    loop = loop_free(loop);
    return 0;
}

static size_t logged(char text[8192])
{
    ssize_t length = pread(shared_log, text, 8191, 0);
    assert_true(length >= 0);
    text[length] = '\0';
    return (size_t)length;
}

static int open_log(struct child_log *log)
{
    struct fault fault;
    int end_of_child;
    assert_int_equal(logs_open(log, &end_of_child, loop, "cell-7", "cell", &fault), OK);
    return end_of_child;
}

static void say(int fd, const char *text)
{
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
}

static void a_line_of_log_event_is_an_event(void **state)
{
    char text[8192];
    (void)state;
    assert_true(logs_is_event(SPAN(HEAD EVENT "\"tenant 1, exit 0\"}"), "cell"));
    assert_true(logs_is_event(SPAN(HEAD EVENT "\"\"}"), "cell"));
    assert_true(logs_is_event(SPAN(HEAD EVENT "\"a \\\"word\\\" \\\\ \\u001b\"}"), "cell"));
    log_open("cell", LOG_INFO);
    log_event(LOG_WARN, "cell.said", "line\nbreak, \"quotes\", \\, \x1b[2J, \xC3\xA9");
    size_t length = logged(text);
    assert_true(length > 1 && text[length - 1] == '\n');
    assert_true(logs_is_event((struct span){(uint8_t *)text, length - 1}, "cell"));
}

static void nothing_else_is_an_event(void **state)
{
    (void)state;
    static const char *const lines[] = {
        "", "{}", "not JSON",
        HEAD EVENT "\"x\"",                          /* cut */
        HEAD EVENT "\"x\"} ",                        /* a byte more */
        HEAD EVENT "\"x\",\"process\":\"kms\"}",     /* a second name for itself */
        HEAD EVENT "\"x\\\"}",                       /* the string does not end */
        HEAD EVENT "\"x\\",
        HEAD EVENT "\"\\u00\"}",
        HEAD EVENT "\"\\u00ZZ\"}",
        HEAD EVENT "\"\\n\"}",                       /* an escape that log_event never writes */
        HEAD EVENT "\"\x1b[2J\"}",                   /* of a terminal */
        HEAD EVENT "\"\xC3\xA9\"}",
        HEAD "\"event\":\"\",\"detail\":\"x\"}",
        HEAD "\"event\":\"Cell gone\",\"detail\":\"x\"}",
        "{\"time\":\"2026-11-21T22:10:22.12345Z\",\"level\":\"info\",\"process\":\"cell\"," EVENT
        "\"x\"}",
        "{\"time\":\"2026-11-21T22:10:22.123456Z\",\"level\":\"fatal\",\"process\":\"cell\"," EVENT
        "\"x\"}"};
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        assert_false(logs_is_event(span_of_text(lines[i]), "cell"));
    assert_false(logs_is_event(SPAN(HEAD EVENT "\"x\"}"), "kms"));
    assert_false(logs_is_event(SPAN(HEAD EVENT "\"a\0b\"}"), "cell"));
}

static void an_event_passes_as_it_is_and_the_rest_is_quoted(void **state)
{
    char text[8192];
    struct child_log log = {0};
    (void)state;
    _cleanup_close_ int child = open_log(&log);
    log_open("supervisor", LOG_INFO);
    say(child, HEAD EVENT "\"x\"}\n{\"process\":\"kms\"}\nlast words");
    cleanup_close(&child);
    logs_close(&log);
    logged(text);
    assert_ptr_equal(strstr(text, HEAD EVENT "\"x\"}\n"), text);
    assert_non_null(strstr(text, "\"event\":\"child.said\",\"detail\":\"cell-7: "
                                 "{\\\"process\\\":\\\"kms\\\"}\"}\n"));
    assert_non_null(strstr(text, "\"detail\":\"cell-7: last words\"}\n"));
    assert_int_equal(log.fd, -1);
}

static void a_line_without_end_is_cut(void **state)
{
    char text[8192], piece[1000];
    struct child_log log = {0};
    struct fault fault;
    (void)state;
    _cleanup_close_ int child = open_log(&log);
    log_open("supervisor", LOG_INFO);
    memset(piece, 'a', sizeof piece);
    for (int i = 0; i < 50; i++)
        assert_int_equal(write(child, piece, sizeof piece), sizeof piece);
    say(child, "\n");
    for (int i = 0; i < 5; i++)
        assert_int_equal(loop_turn(loop, 0, &fault), OK);
    cleanup_close(&child);
    logs_close(&log);
    assert_in_range(logged(text), 100, 1024);
}

static void a_child_with_a_bound_is_heard_no_further(void **state)
{
    char text[8192];
    struct child_log log = {0};
    struct fault fault;
    (void)state;
    _cleanup_close_ int child = open_log(&log);
    log_open("supervisor", LOG_INFO);
    logs_bound(&log, 20);
    say(child, "slow\n");
    assert_int_equal(loop_turn(loop, 0, &fault), OK);
    say(child, "and steady, over it\n");
    assert_int_equal(loop_turn(loop, 0, &fault), OK);
    assert_null(log.source); /* what it says now costs nothing */
    say(child, "unheard\n");
    assert_int_equal(loop_turn(loop, 0, &fault), OK);
    cleanup_close(&child);
    logs_close(&log);
    logged(text);
    assert_non_null(strstr(text, "cell-7: slow\"}\n"));
    assert_non_null(strstr(text, "cell-7: and steady, over it\"}\n"));
    assert_non_null(strstr(text, "\"event\":\"child.cut_off\",\"detail\":\"cell-7: more than"));
    assert_null(strstr(text, "unheard"));
    assert_int_equal(log.fd, -1);
}

static void a_child_that_is_not_read_loses_lines_and_waits_for_nobody(void **state)
{
    struct child_log log = {0};
    (void)state;
    _cleanup_close_ int child = open_log(&log);
    int written = 0;
    while (write(child, "noise\n", 6) == 6 && written < 1000000)
        written++;
    assert_int_equal(errno, EAGAIN);
    assert_in_range(written, 1, 100000);
    cleanup_close(&child);
    logs_close(&log);
}

static void a_child_that_says_too_much_is_cut_short(void **state)
{
    static const char line[] = HEAD EVENT "\"x\"}\n";
    struct child_log log = {0};
    struct fault fault;
    (void)state;
    _cleanup_close_ int child = open_log(&log);
    log_open("supervisor", LOG_ERROR); /* that it was cut short is not wanted here */
    for (int i = 0; i < 1000; i++) {
        say(child, line);
        if (i % 100 == 0)
            assert_int_equal(loop_turn(loop, 0, &fault), OK);
    }
    for (int i = 0; i < 20; i++)
        assert_int_equal(loop_turn(loop, 0, &fault), OK);
    cleanup_close(&child);
    logs_close(&log);
    off_t passed = lseek(shared_log, 0, SEEK_END) / (off_t)(sizeof line - 1);
    assert_in_range(passed, 200, 600); /* a slow machine may need a second or two */
}

static void a_child_can_neither_cut_nor_read_nor_rewrite_the_log(void **state)
{
    char byte;
    struct child_log log = {0};
    (void)state;
    _cleanup_close_ int child = open_log(&log);
    assert_int_equal(ftruncate(child, 0), -1);
    assert_int_equal(errno, EINVAL);
    assert_int_equal(read(child, &byte, 1), -1);
    assert_int_equal(errno, EBADF);
    assert_int_equal(pwrite(child, "x", 1, 0), -1);
    assert_int_equal(errno, ESPIPE);
    cleanup_close(&child);
    logs_close(&log);
    logs_close(&log); /* closed already */
    logs_close(&(struct child_log){0});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_line_of_log_event_is_an_event, begin, end),
        cmocka_unit_test(nothing_else_is_an_event),
        cmocka_unit_test_setup_teardown(an_event_passes_as_it_is_and_the_rest_is_quoted, begin,
                                        end),
        cmocka_unit_test_setup_teardown(a_line_without_end_is_cut, begin, end),
        cmocka_unit_test_setup_teardown(a_child_with_a_bound_is_heard_no_further, begin, end),
        cmocka_unit_test_setup_teardown(
            a_child_that_is_not_read_loses_lines_and_waits_for_nobody, begin, end),
        cmocka_unit_test_setup_teardown(a_child_that_says_too_much_is_cut_short, begin, end),
        cmocka_unit_test_setup_teardown(a_child_can_neither_cut_nor_read_nor_rewrite_the_log,
                                        begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
