#include "wire/http.h"
#include "wire/json.h"
#include "wire/problem.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static void a_response_head_is_written_line_by_line(void **state)
{
    (void)state;
    uint8_t storage[512];
    struct buffer out = buffer_over(storage, sizeof storage);
    http_put_status(&out, 404);
    http_put_date(&out, 784111777123456);
    http_put_header(&out, "Content-Type", SPAN("application/json"));
    http_put_header(&out, "X-Empty", SPAN(""));
    http_put_length(&out, 18446744073709551615u);
    http_put_end(&out);
    assert_true(span_is(buffer_span(&out), "HTTP/1.1 404 Not Found\r\n"
        "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Type: application/json\r\nX-Empty: \r\n"
        "Content-Length: 18446744073709551615\r\n\r\n"));
}

static void a_chunked_answer_is_read_back_by_our_own_decoder(void **state)
{
    (void)state;
    uint8_t storage[512];
    struct buffer out = buffer_over(storage, sizeof storage);
    http_put_chunk_head(&out, SPAN("data: a long enough event\n\n").length);
    buffer_put(&out, SPAN("data: a long enough event\n\n"));
    http_put_chunk_tail(&out);
    http_put_last_chunk(&out);
    assert_true(span_is(buffer_span(&out),
                        "1b\r\ndata: a long enough event\n\n\r\n0\r\n\r\n"));
    struct http_chunks chunks = http_chunks_of(1000);
    struct span piece;
    struct fault fault;
    size_t used;
    assert_int_equal(http_chunks_next(&piece, &used, &chunks, buffer_span(&out), &fault), OK);
    assert_true(span_is(piece, "data: a long enough event\n\n"));
}

/* True when the call aborts: what would split a response must end the process. */
static bool aborts(const char *name, struct span value)
{
    pid_t child = fork();
    if (child == 0) {
        uint8_t storage[64];
        struct buffer out = buffer_over(storage, sizeof storage);
        signal(SIGABRT, SIG_DFL);
        dup2(open("/dev/null", O_WRONLY), STDERR_FILENO);
        http_put_header(&out, name, value);
        _exit(0);
    }
    int ended = 0;
    assert_int_equal(waitpid(child, &ended, 0), child);
    return WIFSIGNALED(ended) && WTERMSIG(ended) == SIGABRT;
}

static void a_header_that_would_split_the_response_aborts(void **state)
{
    (void)state;
    assert_false(aborts("X", SPAN("fine")));
    assert_true(aborts("X", SPAN("a\r\nSet-Cookie: b")));
    assert_true(aborts("X", SPAN("a\nb")));
    assert_true(aborts("X", SPAN("a\rb")));
    assert_true(aborts("X", SPAN("a\0b")));
    assert_true(aborts("X: y\r\nZ", SPAN("a")));
    assert_true(aborts("", SPAN("a")));
}

static void values_and_names_from_elsewhere_can_be_checked_first(void **state)
{
    (void)state;
    assert_true(http_is_header_value(SPAN("")));
    assert_true(http_is_header_value(SPAN("a \tb\xC3\xA9")));
    assert_false(http_is_header_value(SPAN(" a")));
    assert_false(http_is_header_value(SPAN("a\t")));
    assert_false(http_is_header_value(SPAN("a\x7F")));
    assert_false(http_is_header_value(SPAN("\r\n")));
    assert_true(http_is_token(SPAN("Retry-After")));
    assert_false(http_is_token(SPAN("")));
    assert_false(http_is_token(SPAN("a b")));
    assert_false(http_is_token(SPAN("a:")));
}

static void every_status_of_the_error_table_has_its_reason(void **state)
{
    (void)state;
    for (int code = 0; code < STATUS_COUNT; code++)
        assert_string_not_equal(http_reason(status_http((status)code)), "Unknown");
    assert_string_equal(http_reason(299), "Unknown");
}

static void a_problem_document_is_json_with_its_members(void **state)
{
    (void)state;
    uint8_t storage[512];
    struct buffer out = buffer_over(storage, sizeof storage);
    problem_put(&out, BAD_FIELD, "text: must be \"1\" to 9 bytes",
                "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_true(span_is(buffer_span(&out), "{\"type\":\"about:blank\",\"title\":\"Bad Request\","
        "\"status\":400,\"code\":\"bad_field\",\"detail\":\"text: must be \\\"1\\\" to 9 bytes\","
        "\"trace_id\":\"4bf92f3577b34da6a3ce929d0e0e4736\"}"));
}

static void a_problem_of_every_code_and_any_detail_is_json(void **state)
{
    (void)state;
    for (int code = OK + 1; code < STATUS_COUNT; code++) {
        struct buffer out = buffer_of(1024);
        struct arena arena = arena_of(KIB(16));
        struct json value;
        struct fault fault;
        problem_put(&out, (status)code, code % 2 ? "cut \xC3 \x01\n" : NULL, "00");
        assert_int_equal(json_parse(&value, &arena, buffer_span(&out), &fault), OK);
        assert_int_equal(json_member(&value, "status")->integer, status_http((status)code));
        assert_int_equal(json_member(&value, "detail") != NULL, code % 2);
        arena_free(&arena);
        buffer_free(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_response_head_is_written_line_by_line),
        cmocka_unit_test(a_chunked_answer_is_read_back_by_our_own_decoder),
        cmocka_unit_test(a_header_that_would_split_the_response_aborts),
        cmocka_unit_test(values_and_names_from_elsewhere_can_be_checked_first),
        cmocka_unit_test(every_status_of_the_error_table_has_its_reason),
        cmocka_unit_test(a_problem_document_is_json_with_its_members),
        cmocka_unit_test(a_problem_of_every_code_and_any_detail_is_json),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
