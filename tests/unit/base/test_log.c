#define _GNU_SOURCE
#include "base/log.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char line[4096];
static int read_end, saved_stderr;

static int capture_stderr(void **state)
{
    (void)state;
    int ends[2];
    saved_stderr = dup(STDERR_FILENO);
    if (pipe2(ends, O_NONBLOCK) || dup2(ends[1], STDERR_FILENO) < 0)
        return -1;
    close(ends[1]);
    read_end = ends[0];
    return 0;
}

static int release_stderr(void **state)
{
    (void)state;
    dup2(saved_stderr, STDERR_FILENO);
    close(saved_stderr);
    close(read_end);
    return 0;
}

/* What was written since the last call; "" when nothing was. */
static const char *written(void)
{
    ssize_t length = read(read_end, line, sizeof line - 1);
    line[length > 0 ? length : 0] = '\0';
    return line;
}

static void a_line_is_one_json_object(void **state)
{
    (void)state;
    log_open("kms", LOG_INFO);
    log_event(LOG_WARN, "cell.gone", "pid %d", 42);
    const char *text = written();
    assert_int_equal(strncmp(text, "{\"time\":\"2", 10), 0);
    assert_non_null(strstr(text, "Z\",\"level\":\"warn\",\"process\":\"kms\","
                                 "\"event\":\"cell.gone\",\"detail\":\"pid 42\"}\n"));
    assert_string_equal(written(), "");
}

static void lines_below_the_level_are_dropped(void **state)
{
    (void)state;
    log_open("kms", LOG_ERROR);
    log_event(LOG_WARN, "x", "no");
    assert_string_equal(written(), "");
    log_event(LOG_ERROR, "x", "yes");
    assert_non_null(strstr(written(), "yes"));
    log_open("kms", LOG_DEBUG);
    log_event(LOG_DEBUG, "x", "debug");
    assert_non_null(strstr(written(), "\"level\":\"debug\""));
}

static void what_would_break_the_line_or_the_terminal_is_escaped(void **state)
{
    (void)state;
    log_open("kms", LOG_INFO);
    log_event(LOG_INFO, "x", "%s", "\"}\n{\\\x1B[31m\x7F\xC3");
    assert_non_null(strstr(written(), "\"\\\"}\\u000a{\\\\\\u001b[31m\\u007f\\u00c3\"}\n"));
}

static void a_detail_that_is_too_long_is_cut_and_the_line_stays_whole(void **state)
{
    (void)state;
    char detail[2000];
    static const char fillers[] = {'a', '\n', '"'};
    log_open("kms", LOG_INFO);
    for (size_t i = 0; i < sizeof fillers; i++) {
        memset(detail, fillers[i], sizeof detail - 1);
        detail[sizeof detail - 1] = '\0';
        log_event(LOG_INFO, "x", "%s", detail);
        const char *text = written();
        size_t length = strlen(text);
        assert_true(length > 100 && length <= 1024);
        assert_string_equal(text + length - 3, "\"}\n");
        assert_ptr_equal(strchr(text, '\n'), text + length - 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_line_is_one_json_object, capture_stderr,
                                        release_stderr),
        cmocka_unit_test_setup_teardown(lines_below_the_level_are_dropped, capture_stderr,
                                        release_stderr),
        cmocka_unit_test_setup_teardown(what_would_break_the_line_or_the_terminal_is_escaped,
                                        capture_stderr, release_stderr),
        cmocka_unit_test_setup_teardown(a_detail_that_is_too_long_is_cut_and_the_line_stays_whole,
                                        capture_stderr, release_stderr),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
