#define _GNU_SOURCE
#include "base/file.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

static int file_of(struct span bytes)
{
    struct fault fault;
    int fd = memfd_create("test", MFD_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(file_write(fd, bytes, "test", &fault), OK);
    return fd;
}

static void what_is_written_is_read_back_from_the_beginning(void **state)
{
    (void)state;
    static uint8_t bytes[200000];
    struct fault fault;
    memset(bytes, 'a', sizeof bytes);
    bytes[sizeof bytes - 1] = 'z';
    struct buffer out = buffer_of(sizeof bytes);
    int fd = file_of(SPAN_OF(bytes));
    assert_int_equal(file_read(&out, fd, "test", &fault), OK);
    assert_true(span_equal(buffer_span(&out), SPAN_OF(bytes)));
    buffer_free(&out);
    close(fd);
}

static void a_file_over_the_maximum_is_refused_by_name(void **state)
{
    (void)state;
    struct fault fault;
    struct buffer out = buffer_of(3);
    int fd = file_of(SPAN("four"));
    assert_int_equal(file_read(&out, fd, "the answer", &fault), TOO_LARGE);
    assert_non_null(strstr(fault.detail, "the answer"));
    buffer_free(&out);
    close(fd);
}

static void a_pipe_is_read_to_its_end(void **state)
{
    (void)state;
    int ends[2];
    struct fault fault;
    struct buffer out = buffer_of(16);
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(file_write(ends[1], SPAN("piped"), "test", &fault), OK);
    close(ends[1]);
    assert_int_equal(file_read(&out, ends[0], "test", &fault), OK);
    assert_true(span_is(buffer_span(&out), "piped"));
    buffer_free(&out);
    close(ends[0]);
}

static void failures_say_what_and_why(void **state)
{
    (void)state;
    struct fault fault;
    struct buffer out = buffer_of(16);
    int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
    assert_int_equal(file_write(full, SPAN("x"), "the report", &fault), OUT_OF_SPACE);
    assert_non_null(strstr(fault.detail, "the report"));
    assert_int_equal(file_write(-1, SPAN("x"), "the report", &fault), INTERNAL);
    assert_int_equal(file_read(&out, -1, "the report", &fault), INTERNAL);
    buffer_free(&out);
    close(full);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read_back_from_the_beginning),
        cmocka_unit_test(a_file_over_the_maximum_is_refused_by_name),
        cmocka_unit_test(a_pipe_is_read_to_its_end),
        cmocka_unit_test(failures_say_what_and_why),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
