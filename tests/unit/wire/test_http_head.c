#include "wire/http.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* One request being read: its own heap copy of exactly the bytes given, so that a read past them is
 * found by the sanitizer. */
struct reading {
    struct http_head head;
    size_t consumed;
    uint8_t *bytes;
};

static size_t sooner(size_t left, size_t right)
{
    return left < right ? left : right;
}

/* Gives the first `first` bytes, then `step` more at a time. */
static status read_in_steps(struct reading *ret, struct span text, size_t first, size_t step)
{
    struct http_scan scan = {0};
    struct fault fault;
    struct reading reading = {.consumed = 12345};
    for (size_t length = first;; length = sooner(length + step, text.length)) {
        reading.bytes = realloc(reading.bytes, length + (length == 0));
        assert_non_null(reading.bytes);
        if (length)
            memcpy(reading.bytes, text.data, length);
        status parsed = http_parse_head(&reading.head, &reading.consumed, &scan, reading.bytes,
                                        length, &fault);
        if (parsed != OK)
            assert_int_equal(reading.consumed, 12345); /* untouched on failure */
        if (parsed != AGAIN || length == text.length) {
            *ret = reading;
            return parsed;
        }
    }
}

/* The answer must not depend on how the bytes were cut. The caller frees ret->bytes. */
static status read_all_ways(struct reading *ret, struct span text)
{
    status whole = read_in_steps(ret, text, text.length, 1);
    size_t cuts = text.length < 600 ? text.length : 600;
    for (size_t cut = 0; cut <= cuts; cut++) {
        struct reading other;
        assert_int_equal(read_in_steps(&other, text, cut, text.length), whole);
        assert_int_equal(other.consumed, ret->consumed);
        assert_int_equal(other.head.header_count, ret->head.header_count);
        free(other.bytes);
    }
    struct reading other;
    assert_int_equal(read_in_steps(&other, text, 0, text.length < 600 ? 1 : 97), whole);
    assert_int_equal(other.consumed, ret->consumed);
    free(other.bytes);
    return whole;
}

static status verdict(struct span text)
{
    struct reading reading;
    status parsed = read_all_ways(&reading, text);
    free(reading.bytes);
    return parsed;
}

static void a_request_is_taken_apart(void **state)
{
    (void)state;
    struct reading reading;
    struct span text = SPAN("POST /v1/memories/search?limit=5&x=%20 HTTP/1.1\r\n"
                            "HOST: api.example.com:8443\r\n"
                            "Authorization:Bearer a.b.c\r\n"
                            "X-Empty:\r\n"
                            "X-Blank: \t a \t b\t \r\n"
                            "Content-Length: 11\r\n"
                            "\r\n"
                            "hello world");
    assert_int_equal(read_all_ways(&reading, text), OK);
    assert_int_equal(reading.consumed, text.length - 11);
    assert_true(span_is(reading.head.method, "POST"));
    assert_true(span_is(reading.head.path, "/v1/memories/search"));
    assert_true(span_is(reading.head.query, "limit=5&x=%20"));
    assert_true(span_is(reading.head.host, "api.example.com:8443"));
    assert_int_equal(reading.head.content_length, 11);
    assert_false(reading.head.chunked);
    assert_true(reading.head.keep_alive);
    assert_false(reading.head.expect_continue);
    assert_int_equal(reading.head.header_count, 5);
    assert_true(span_is(reading.head.headers[0].name, "host"));
    assert_true(span_is(reading.head.headers[1].value, "Bearer a.b.c"));
    assert_int_equal(reading.head.headers[2].value.length, 0);
    assert_true(span_is(reading.head.headers[3].value, "a \t b"));
    free(reading.bytes);
}

static void a_header_is_found_by_name_and_two_are_refused(void **state)
{
    (void)state;
    struct reading reading;
    struct span value;
    struct fault fault = {0};
    assert_int_equal(read_in_steps(&reading, SPAN("GET / HTTP/1.1\r\nHost: a\r\nX-One: 1\r\n"
        "x-two: 2\r\nX-TWO: 2\r\nX-None:\r\n\r\n"), 0, 1), OK);
    assert_int_equal(http_header(&value, &reading.head, "x-one", &fault), OK);
    assert_true(span_is(value, "1"));
    assert_int_equal(http_header(&value, &reading.head, "x-none", &fault), OK);
    assert_non_null(value.data);
    assert_int_equal(value.length, 0);
    assert_int_equal(http_header(&value, &reading.head, "absent", &fault), OK);
    assert_null(value.data);
    assert_int_equal(http_header(&value, &reading.head, "x-two", &fault), BAD_REQUEST);
    assert_non_null(strstr(fault.detail, "x-two"));
    free(reading.bytes);
}

static void the_next_request_stays_unread(void **state)
{
    (void)state;
    struct reading reading;
    struct span first = SPAN("GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_int_equal(read_all_ways(&reading, SPAN("GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
                                                  "GET /b HTTP/1.1\r\nHost: b\r\n\r\n")), OK);
    assert_int_equal(reading.consumed, first.length);
    assert_true(span_is(reading.head.path, "/a"));
    free(reading.bytes);
}

static void one_empty_line_before_the_request_is_skipped_and_no_more(void **state)
{
    (void)state;
    struct reading reading;
    assert_int_equal(read_all_ways(&reading, SPAN("\r\nGET /a HTTP/1.1\r\nHost: a\r\n\r\n")), OK);
    assert_true(span_is(reading.head.method, "GET"));
    assert_int_equal(reading.consumed, 30);
    free(reading.bytes);
    assert_int_equal(verdict(SPAN("\r\n\r\nGET /a HTTP/1.1\r\nHost: a\r\n\r\n")), BAD_REQUEST);
    assert_int_equal(verdict(SPAN("\nGET /a HTTP/1.1\r\nHost: a\r\n\r\n")), BAD_REQUEST);
}

static void every_truncation_asks_for_more(void **state)
{
    (void)state;
    struct span whole = SPAN("PUT /v1/documents/a?b=c HTTP/1.1\r\nHost: [::1]:80\r\n"
                             "Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n");
    for (size_t length = 0; length < whole.length; length++)
        assert_int_equal(verdict((struct span){whole.data, length}), AGAIN);
    assert_int_equal(verdict(whole), OK);
}

static void request_lines_that_are_not_exactly_that_are_refused(void **state)
{
    (void)state;
    static const char *const refused[] = {
        "GET /", "GET", "", " ", "GET  / HTTP/1.1", "GET /  HTTP/1.1", "GET / HTTP/1.1 ",
        " GET / HTTP/1.1", "GET\t/ HTTP/1.1", "GET /\tHTTP/1.1", "GET / HTTP/1.2", "GET / HTTP/2.0",
        "GET / HTTP/0.9", "GET / http/1.1", "GET / HTTP/1.10", "GET / HTTP/1", "GET / HTTP/1.1\t",
        "GET / HTTP/01.1", "GET / HTTP /1.1", "GET / x HTTP/1.1", "G(T / HTTP/1.1",
        "G\xC3\xA9 / HTTP/1.1", " / HTTP/1.1", "GET * HTTP/1.1", "OPTIONS * HTTP/1.1",
        "CONNECT a:443 HTTP/1.1", "GET // HTTP/1.1 HTTP/1.1", "GET ftp://a/ HTTP/1.1",
        "GET a HTTP/1.1", "GET ?x HTTP/1.1", "GET /a#b HTTP/1.1", "GET /a?b#c HTTP/1.1",
        "GET /\\ HTTP/1.1", "GET /\x7F HTTP/1.1", "GET /\xC3\xA9 HTTP/1.1", "GET /a\x01 HTTP/1.1",
        "GET /<a> HTTP/1.1", "GET /a?\"b\" HTTP/1.1", "GET /{a} HTTP/1.1", "GET /[a] HTTP/1.1",
        "GET /a|b HTTP/1.1", "GET /a^b HTTP/1.1", "PRI * HTTP/2.0", "GET /a`b HTTP/1.1",
        "GET / HTTP/1.1\v", "G\x01T / HTTP/1.1",
    };
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        uint8_t storage[256];
        struct buffer text = buffer_over(storage, sizeof storage);
        buffer_printf(&text, "%s\r\nHost: a\r\n\r\n", refused[i]);
        if (refused[i][0] == '\0') /* the empty line is skipped, the next is no request line */
            assert_int_equal(verdict(buffer_span(&text)), BAD_REQUEST);
        else if (verdict(buffer_span(&text)) != BAD_REQUEST)
            fail_msg("not refused: %s", refused[i]);
    }
    assert_int_equal(verdict(SPAN("GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n")), BAD_REQUEST);
    assert_int_equal(verdict(SPAN("GET\0 / HTTP/1.1\r\nHost: a\r\n\r\n")), BAD_REQUEST);
}

/* A request with the given lines behind its Host line. */
static status with_lines(struct reading *ret, const char *version, struct span lines)
{
    uint8_t storage[512];
    struct buffer text = buffer_over(storage, sizeof storage);
    buffer_printf(&text, "POST /a HTTP/%s\r\nHost: a\r\n", version);
    buffer_put(&text, lines);
    buffer_put_text(&text, "\r\n");
    struct fault fault;
    assert_int_equal(buffer_check(&text, "test", &fault), OK);
    return read_all_ways(ret, buffer_span(&text));
}

static void assert_lines(struct span lines, status expected)
{
    struct reading reading;
    status parsed = with_lines(&reading, "1.1", lines);
    if (parsed != expected)
        fail_msg("%d instead of %d: %.*s", parsed, expected, SPAN_ARG(lines));
    free(reading.bytes);
}

static void header_lines_that_two_readers_could_understand_differently_are_refused(void **state)
{
    (void)state;
    static const char *const refused[] = {
        "X: a\r\n b\r\n", "X: a\r\n\tb\r\n", " X: a\r\n", "\tX: a\r\n", "X : a\r\n", "X\t: a\r\n",
        "X\r\n", ": a\r\n", "X Y: a\r\n", "X: a\n", "X: a\nY: b\r\n", "X: a\rY: b\r\n",
        "X: a\r\r\n", "X: a\r", "\rX: a\r\n", "X: a\x01\r\n", "X: a\x7F\r\n", "X: a\vb\r\n",
        "X(: a\r\n", "X\xC3\xA9: a\r\n", "\"X\": a\r\n", "X\n: a\r\n", "X: \x1B[31m\r\n",
        "@: a\r\n", "X;: a\r\n", "X{}: 1\r\n", "\n", "X:\n\r\n",
    };
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        assert_lines(span_of_text(refused[i]), BAD_REQUEST);
    assert_lines(SPAN("X: a\0b\r\n"), BAD_REQUEST);
    assert_lines(SPAN("X\0: a\r\n"), BAD_REQUEST);
    assert_lines(SPAN("X: a:b\tc\xC3\xA9\xFF\r\nY:\r\nX!#$%&'*+-.^_`|~9: ok\r\n"), OK);
}

static void content_length_has_one_spelling(void **state)
{
    (void)state;
    static const char *const refused[] = {
        "", " ", "+5", "-5", "05", "00", "0x5", "5 5", "5,5", "5, 5", "5;", "5.0", "1e3", "a", "5a",
        "\xD9\xA5", "18446744073709551616a", "999999999999999999999999a",
    };
    static const char *const too_large[] = {"72057594037927937", "18446744073709551615",
        "18446744073709551617", "99999999999999999999999999999999"};
    uint8_t storage[128];
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        struct buffer line = buffer_over(storage, sizeof storage);
        buffer_printf(&line, "Content-Length: %s\r\n", refused[i]);
        assert_lines(buffer_span(&line), BAD_REQUEST);
    }
    for (size_t i = 0; i < sizeof too_large / sizeof *too_large; i++) {
        struct buffer line = buffer_over(storage, sizeof storage);
        buffer_printf(&line, "Content-Length: %s\r\n", too_large[i]);
        assert_lines(buffer_span(&line), TOO_LARGE);
    }
    assert_lines(SPAN("Content-Length: 5\r\nContent-Length: 5\r\n"), BAD_REQUEST);
    assert_lines(SPAN("Content-Length: 5\r\ncontent-length: 6\r\n"), BAD_REQUEST);
    struct reading reading;
    assert_int_equal(with_lines(&reading, "1.1", SPAN("Content-Length: 72057594037927936\r\n")),
                     OK);
    assert_int_equal(reading.head.content_length, HTTP_LENGTH_MAX);
    free(reading.bytes);
    assert_int_equal(with_lines(&reading, "1.1", SPAN("Content-Length:0\r\n")), OK);
    assert_int_equal(reading.head.content_length, 0);
    free(reading.bytes);
}

static void the_only_transfer_encoding_is_chunked_alone_on_1_1(void **state)
{
    (void)state;
    static const char *const refused[] = {
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked, gzip\r\n", "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: gzip;q=1, chunked\r\n", "Transfer-Encoding: , chunked\r\n",
        "Transfer-Encoding: gzip chunked\r\n", "Transfer-Encoding: gzip,\r\n",
        "Transfer-Encoding: gzip, xchunked\r\n", "Transfer-Encoding: chunked chunked\r\n",
        "Transfer-Encoding: identity\r\n", "Transfer-Encoding:\r\n",
        "Transfer-Encoding: chunked,\r\n", "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding: xchunked\r\n", "Transfer-Encoding: chunked;q=1\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding:\vchunked\r\n", "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding: chunke\r\n", "Transfer-Encoding\r\n : chunked\r\n",
    };
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        assert_lines(span_of_text(refused[i]), BAD_REQUEST);
    struct reading reading;
    assert_int_equal(with_lines(&reading, "1.1", SPAN("transfer-encoding:\tchunked \r\n")), OK);
    assert_true(reading.head.chunked);
    free(reading.bytes);
    assert_int_equal(with_lines(&reading, "1.1", SPAN("Transfer-Encoding: ChunkeD\r\n")), OK);
    assert_true(reading.head.chunked); /* RFC 9112 7: names of codings have no case */
    free(reading.bytes);
    assert_int_equal(with_lines(&reading, "1.0", SPAN("Transfer-Encoding: chunked\r\n")),
                     BAD_REQUEST);
    free(reading.bytes);
    assert_lines(SPAN("Transfer-Encoding: gzip, chunked\r\n"), NOT_IMPLEMENTED);
    assert_lines(SPAN("Transfer-Encoding: gzip ,\tdeflate,Chunked\r\n"), NOT_IMPLEMENTED);
}

static status with_host_lines(struct reading *ret, const char *version, const char *lines)
{
    uint8_t storage[600];
    struct buffer text = buffer_over(storage, sizeof storage);
    buffer_printf(&text, "GET / HTTP/%s\r\n%s\r\n", version, lines);
    return read_all_ways(ret, buffer_span(&text));
}

static void host_is_required_once_and_well_formed(void **state)
{
    (void)state;
    static const char *const refused[] = {
        "", "Host:\r\n", "Host: a\r\nHost: a\r\n", "Host: a\r\nhost: b\r\n", "Host: a b\r\n",
        "Host: a,b\r\n", "Host: http://a\r\n", "Host: a/\r\n", "Host: u@a\r\n", "Host: a:\r\n",
        "Host: a:b\r\n", "Host: a:65536\r\n", "Host: a:000080\r\n", "Host: :80\r\n",
        "Host: a:1:2\r\n", "Host: .\r\n", "Host: .a\r\n", "Host: a..b\r\n", "Host: [::1\r\n",
        "Host: ::1\r\n", "Host: [::1]a\r\n", "Host: [::1]:\r\n", "Host: [g::1]\r\n", "Host: []\r\n",
        "Host: [1.2.3.4]\r\n", "Host: [fe80::1%25eth0]\r\n", "Host: [v1.a]\r\n", "Host: %61\r\n",
        "Host: a%2Fb\r\n", "Host: \xC3\xA9\r\n", "Host: a\\b\r\n", "Host: a?b\r\n", "Host: *\r\n",
        "Host: [::1]:99999\r\n", "Host: [::1]:8o\r\n", "Host: [:::1]\r\n", "Host: a:-1\r\n",
    };
    static const char *const accepted[] = {
        "Host: a\r\n", "Host: A.Example.COM.\r\n", "Host: a_b-c.d:0\r\n",
        "Host: 127.0.0.1:7117\r\n", "Host: [::1]\r\n", "Host: [::ffff:1.2.3.4]:65535\r\n",
        "Host:\t a \t\r\n", "Host: a:00080\r\n",
    };
    struct reading reading;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        if (with_host_lines(&reading, "1.1", refused[i]) != BAD_REQUEST)
            fail_msg("not refused: %s", refused[i]);
        free(reading.bytes);
    }
    for (size_t i = 0; i < sizeof accepted / sizeof *accepted; i++) {
        if (with_host_lines(&reading, "1.1", accepted[i]) != OK)
            fail_msg("not accepted: %s", accepted[i]);
        free(reading.bytes);
    }
    uint8_t storage[600];
    for (int length = 255; length <= 256; length++) {
        struct buffer line = buffer_over(storage, sizeof storage);
        buffer_printf(&line, "Host: %0*d\r\n", length, 1);
        buffer_put_u8(&line, 0);
        assert_int_equal(with_host_lines(&reading, "1.1", (char *)storage),
                         length == 255 ? OK : BAD_REQUEST);
        free(reading.bytes);
    }
}

/* The whole text; ret is valid until the next call. */
static status read_text(const struct http_head **ret, const char *text)
{
    static struct reading reading;
    free(reading.bytes);
    status parsed = read_all_ways(&reading, span_of_text(text));
    *ret = &reading.head;
    if (parsed == OK)
        return OK;
    free(reading.bytes);
    reading.bytes = NULL;
    return parsed;
}

static void an_absolute_target_must_name_the_host(void **state)
{
    (void)state;
    static const char *const refused[] = {
        "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\n\r\n",
        "GET http://a:80/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\nHost: a:80\r\n\r\n",
        "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://u@a/ HTTP/1.1\r\nHost: u@a\r\n\r\n",
        "GET http:/// HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http:///a HTTP/1.0\r\n\r\n",
        "GET http:/a HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http:a HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://a#/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://a\\@b/ HTTP/1.1\r\nHost: b\r\n\r\n",
        "GET http://a HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET http://b/ HTTP/1.0\r\nHost: a\r\n\r\n",
        "GET ws://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "CONNECT http://a/ HTTP/1.1\r\nHost: b\r\n\r\n",
    };
    const struct http_head *head;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        if (read_text(&head, refused[i]) != BAD_REQUEST)
            fail_msg("not refused: %s", refused[i]);
    assert_int_equal(read_text(&head, "GET HTTPS://A.example:1/x?y=//b HTTP/1.1\r\n"
                                      "Host: a.EXAMPLE:1\r\n\r\n"), OK);
    assert_true(span_is(head->host, "a.EXAMPLE:1"));
    assert_true(span_is(head->path, "/x") && span_is(head->query, "y=//b"));
    assert_int_equal(read_text(&head, "GET http://[::1]?a=b HTTP/1.1\r\nHost: [::1]\r\n\r\n"),
                     OK);
    assert_true(span_is(head->path, "/") && span_is(head->query, "a=b"));
    assert_int_equal(read_text(&head, "GET http://a HTTP/1.0\r\n\r\n"), OK);
    assert_true(span_is(head->host, "a") && span_is(head->path, "/"));
    assert_int_equal(read_text(&head, "GET http://a HTTP/0.9\r\n\r\n"), BAD_REQUEST);
}

static void http_1_0_is_served_once_a_connection(void **state)
{
    (void)state;
    struct reading reading;
    assert_int_equal(with_host_lines(&reading, "1.0", "Connection: keep-alive\r\n"), OK);
    assert_true(reading.head.http_1_0);
    assert_false(reading.head.keep_alive);
    assert_int_equal(reading.head.host.length, 0);
    free(reading.bytes);
    assert_int_equal(with_host_lines(&reading, "1.0", "Host: a/b\r\n"), BAD_REQUEST);
    free(reading.bytes);
    assert_int_equal(with_host_lines(&reading, "1.0", "Host: a\r\nHost: a\r\n"), BAD_REQUEST);
    free(reading.bytes);
}

static void assert_keep_alive(struct span lines, bool expected)
{
    struct reading reading;
    assert_int_equal(with_lines(&reading, "1.1", lines), OK);
    assert_int_equal(reading.head.keep_alive, expected);
    free(reading.bytes);
}

static void connection_close_is_found_in_any_list_and_case(void **state)
{
    (void)state;
    assert_keep_alive(SPAN("Connection: close\r\n"), false);
    assert_keep_alive(SPAN("Connection: Keep-Alive ,\tCLOSE\r\n"), false);
    assert_keep_alive(SPAN("Connection: te\r\nConnection: close\r\n"), false);
    assert_keep_alive(SPAN("Connection: keep-alive\r\n"), true);
    assert_keep_alive(SPAN("Connection: closed, upgrade\r\n"), true);
    assert_keep_alive(SPAN("Connection:\r\n"), true); /* RFC 9110 5.6.1.2: empty places */
    assert_keep_alive(SPAN("Connection: close,\r\n"), false);
    assert_keep_alive(SPAN("Connection: , ,close\r\n"), false);
    assert_lines(SPAN("Connection: a b\r\n"), BAD_REQUEST);
    assert_lines(SPAN("Connection: \"close\"\r\n"), BAD_REQUEST);
}

static void expect_is_100_continue_or_refused(void **state)
{
    (void)state;
    struct reading reading;
    assert_int_equal(with_lines(&reading, "1.1",
                                SPAN("Expect: 100-Continue\r\nContent-Length: 3\r\n")), OK);
    assert_true(reading.head.expect_continue);
    free(reading.bytes);
    assert_int_equal(with_lines(&reading, "1.1", SPAN("Expect: 100-continue\r\n")), OK);
    assert_false(reading.head.expect_continue); /* there is no body to wait for */
    free(reading.bytes);
    assert_int_equal(with_lines(&reading, "1.0",
                                SPAN("Expect: 100-continue\r\nContent-Length: 3\r\n")), OK);
    assert_false(reading.head.expect_continue);
    free(reading.bytes);
    assert_lines(SPAN("Expect: 200-ok\r\n"), BAD_REQUEST);
    assert_lines(SPAN("Expect: 100-continue\r\nExpect: 100-continue\r\n"), BAD_REQUEST);
}

/* "GET /aaa... HTTP/1.1" of length bytes with its CRLF, one header line of that many, the end. */
static status sized(size_t line, size_t header, uint32_t headers)
{
    struct buffer text = buffer_of(MIB(1));
    buffer_put_text(&text, "GET /");
    for (size_t i = SPAN("GET / HTTP/1.1\r\n").length; i < line; i++)
        buffer_put_u8(&text, 'a');
    buffer_put_text(&text, " HTTP/1.1\r\nHost: a\r\n");
    for (uint32_t i = 0; i < headers; i++) {
        buffer_put_text(&text, "X:");
        for (size_t filled = 4; filled < header; filled++)
            buffer_put_u8(&text, 'v');
        buffer_put_text(&text, "\r\n");
    }
    buffer_put_text(&text, "\r\n");
    status parsed = verdict(buffer_span(&text));
    buffer_free(&text);
    return parsed;
}

static void lines_headers_and_their_number_have_limits(void **state)
{
    (void)state;
    size_t other_lines = SPAN("Host: a\r\n\r\n").length;
    assert_int_equal(sized(HTTP_LINE_MAX, 4, 1), OK);
    assert_int_equal(sized(HTTP_LINE_MAX + 1, 4, 1), HEADERS_TOO_LARGE);
    assert_int_equal(sized(20, HTTP_HEADERS_MAX - other_lines, 1), OK);
    assert_int_equal(sized(20, HTTP_HEADERS_MAX - other_lines + 1, 1), HEADERS_TOO_LARGE);
    assert_int_equal(sized(20, 4, HTTP_HEADER_COUNT_MAX - 1), OK); /* Host is one */
    assert_int_equal(sized(20, 4, HTTP_HEADER_COUNT_MAX), HEADERS_TOO_LARGE);
}

static void a_flood_without_any_line_end_is_refused_at_the_limit(void **state)
{
    (void)state;
    static uint8_t flood[HTTP_LINE_MAX + 1];
    memset(flood, 'A', sizeof flood);
    struct reading reading;
    assert_int_equal(read_in_steps(&reading, (struct span){flood, HTTP_LINE_MAX}, 0, 1), AGAIN);
    free(reading.bytes);
    assert_int_equal(read_in_steps(&reading, (struct span){flood, HTTP_LINE_MAX + 1}, 0, 1),
                     HEADERS_TOO_LARGE);
    free(reading.bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_is_taken_apart),
        cmocka_unit_test(a_header_is_found_by_name_and_two_are_refused),
        cmocka_unit_test(the_next_request_stays_unread),
        cmocka_unit_test(one_empty_line_before_the_request_is_skipped_and_no_more),
        cmocka_unit_test(every_truncation_asks_for_more),
        cmocka_unit_test(request_lines_that_are_not_exactly_that_are_refused),
        cmocka_unit_test(header_lines_that_two_readers_could_understand_differently_are_refused),
        cmocka_unit_test(content_length_has_one_spelling),
        cmocka_unit_test(the_only_transfer_encoding_is_chunked_alone_on_1_1),
        cmocka_unit_test(host_is_required_once_and_well_formed),
        cmocka_unit_test(an_absolute_target_must_name_the_host),
        cmocka_unit_test(http_1_0_is_served_once_a_connection),
        cmocka_unit_test(connection_close_is_found_in_any_list_and_case),
        cmocka_unit_test(expect_is_100_continue_or_refused),
        cmocka_unit_test(lines_headers_and_their_number_have_limits),
        cmocka_unit_test(a_flood_without_any_line_end_is_refused_at_the_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
