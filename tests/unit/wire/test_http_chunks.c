#include "wire/http.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

struct decoded {
    status status;
    struct buffer body;
    size_t consumed; /* bytes of the text that belonged to the body */
    bool done;
};

/* Gives the first `first` bytes, then `step` at a time. */
static struct decoded decode(struct span text, size_t first, size_t step, uint64_t max)
{
    struct decoded decoded = {.body = buffer_of(MIB(1))};
    struct http_chunks chunks = http_chunks_of(max);
    struct fault fault;
    size_t given = first;
    for (;;) {
        struct span piece, bytes = {text.data + decoded.consumed, given - decoded.consumed};
        size_t used;
        decoded.status = http_chunks_next(&piece, &used, &chunks, bytes, &fault);
        if (decoded.status != OK)
            break;
        buffer_put(&decoded.body, piece);
        decoded.consumed += used;
        if (chunks.done || (given == text.length && used == bytes.length))
            break;
        if (decoded.consumed == given)
            given = given + step < text.length ? given + step : text.length;
    }
    assert_true(chunks.total <= max);
    decoded.done = chunks.done;
    return decoded;
}

/* The answer must not depend on how the bytes were cut. The caller frees the body. */
static struct decoded decode_all_ways(struct span text, uint64_t max)
{
    struct decoded whole = decode(text, text.length, 1, max);
    for (size_t cut = 0; cut <= text.length + 1; cut++) {
        bool single = cut > text.length;
        struct decoded other = decode(text, single ? 0 : cut, single ? 1 : text.length, max);
        assert_int_equal(other.status, whole.status);
        assert_int_equal(other.done, whole.done);
        if (whole.status == OK) {
            assert_int_equal(other.consumed, whole.consumed);
            assert_true(span_equal(buffer_span(&other.body), buffer_span(&whole.body)));
        }
        buffer_free(&other.body);
    }
    return whole;
}

static void assert_body(struct span text, struct span body, size_t left)
{
    struct decoded decoded = decode_all_ways(text, 1000);
    assert_int_equal(decoded.status, OK);
    assert_true(decoded.done);
    assert_true(span_equal(buffer_span(&decoded.body), body));
    assert_int_equal(text.length - decoded.consumed, left);
    buffer_free(&decoded.body);
}

static void chunks_are_joined_and_what_follows_is_left(void **state)
{
    (void)state;
    assert_body(SPAN("0\r\n\r\n"), SPAN(""), 0);
    assert_body(SPAN("5\r\nhello\r\n0\r\n\r\n"), SPAN("hello"), 0);
    assert_body(SPAN("5\r\nhello\r\n00000006\r\n world\r\n000\r\n\r\nGET /"),
                SPAN("hello world"), 5);
    assert_body(SPAN("a\r\n0123456789\r\nB\r\n0\r\n\r\n0\r\n\r\n0\r\n0\r\n\r\n"),
                SPAN("01234567890\r\n\r\n0\r\n\r\n0"), 0);
}

static void trailers_are_checked_and_dropped(void **state)
{
    (void)state;
    assert_body(SPAN("1\r\nx\r\n0\r\nX-Sum: 1\r\nHost: evil\r\nY:\r\n\r\nnext"), SPAN("x"), 4);
}

static void what_is_not_a_chunked_body_is_refused(void **state)
{
    (void)state;
    static const char *const refused[] = {
        "\r\n", "x\r\n", " 5\r\nhello\r\n", "5 \r\nhello\r\n", "0x5\r\nhello\r\n",
        "+5\r\nhello\r\n", "-1\r\n", "5\nhello\r\n",
        "5\rhello\r\n", "5\r\r\nhello\r\n", "000000005\r\nhello\r\n", "100000000\r\n",
        "5\r\nhello!\r\n", "5\r\nhello\n0\r\n\r\n", "5\r\nhello\r0\r\n\r\n", "5\r\nhello0\r\n\r\n",
        "0\n\n", "0\r\n\n", "0\r\n\rx", "0\r\n: a\r\n\r\n", "0\r\n a: b\r\n\r\n",
        "0\r\na : b\r\n\r\n", "0\r\na\r\n\r\n", "0\r\na: b\n\r\n", "0\r\na: b\rc\r\n\r\n",
        "0\r\na: \x01\r\n\r\n", "0\r\na: b\r\n c\r\n\r\n", "0\r\n\r\r\n", "5\t\r\nhello\r\n",
        "g\r\n", ";a\r\nhello\r\n", "5;\r\nhello\r\n", "5;;a\r\nhello\r\n",
        "5; a=b\r\nhello\r\n", "5 ;a=b\r\nhello\r\n", "5;a =b\r\nhello\r\n",
        "5;a= b\r\nhello\r\n", "5;a=\r\nhello\r\n", "5;=b\r\nhello\r\n",
        "5;a=b=c\r\nhello\r\n", "5;a=\"b\r\nhello\r\n", "5;a=\"b\"c\r\nhello\r\n",
        "5;a=\"\x01\"\r\nhello\r\n", "5;a=\"\\\r\n\"\r\nhello\r\n",
        "5;a\nhello\r\n", "5;a=b\nhello\r\n", "5;a\rhello\r\n",
        "5;a=\"\n\"\r\nhello\r\n", "5;a\x80\r\nhello\r\n", "5;\"a\"\r\nhello\r\n",
        "0;a\r\n\n", "5;a:b\r\nhello\r\n", "5,a\r\nhello\r\n",
    };
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        struct decoded decoded = decode_all_ways(span_of_text(refused[i]), 1000);
        if (decoded.status != BAD_REQUEST)
            fail_msg("not refused: %s", refused[i]);
        buffer_free(&decoded.body);
    }
    struct decoded decoded = decode_all_ways(SPAN("5\0\r\nhello\r\n"), 1000);
    assert_int_equal(decoded.status, BAD_REQUEST);
    buffer_free(&decoded.body);
}

static void extensions_are_checked_and_ignored(void **state)
{
    (void)state;
    assert_body(SPAN("5;a\r\nhello\r\n0\r\n\r\n"), SPAN("hello"), 0);
    assert_body(SPAN("5;a=b;c=\"d e\\\"\\\\;\xFF\t\";f=\"\";g\r\nhello\r\n"
                     "0;last=1\r\nX: y\r\n\r\nGET"), SPAN("hello"), 3);
    assert_body(SPAN("1;a=2\r\nx\r\n2;2=a\r\nyz\r\n00;!#$%&'*+-.^_`|~\r\n\r\n"), SPAN("xyz"), 0);
}

/* Chunks of one byte, each with an extension of that many: the sum counts, not the single one. */
static status extended_by(uint32_t chunks, size_t bytes)
{
    struct buffer text = buffer_of(MIB(1));
    for (uint32_t i = 0; i < chunks; i++) {
        buffer_put_text(&text, "1;");
        for (size_t filled = 1; filled < bytes; filled++) /* the CR counts */
            buffer_put_u8(&text, 'a');
        buffer_put_text(&text, "\r\nx\r\n");
    }
    buffer_put_text(&text, "0\r\n\r\n");
    struct decoded whole = decode(buffer_span(&text), text.length, 1, 10000);
    struct decoded cut = decode(buffer_span(&text), 1, 7, 10000);
    assert_int_equal(whole.status, cut.status);
    buffer_free(&whole.body);
    buffer_free(&cut.body);
    buffer_free(&text);
    return whole.status;
}

static void extensions_have_a_limit_for_the_whole_body(void **state)
{
    (void)state;
    assert_int_equal(extended_by(1, HTTP_LINE_MAX), OK);
    assert_int_equal(extended_by(1, HTTP_LINE_MAX + 1), HEADERS_TOO_LARGE);
    assert_int_equal(extended_by(HTTP_LINE_MAX / 16, 16), OK);
    assert_int_equal(extended_by(HTTP_LINE_MAX / 16 + 1, 16), HEADERS_TOO_LARGE);
}

static void every_truncation_waits_for_more(void **state)
{
    (void)state;
    struct span whole = SPAN("3\r\nabc\r\n1;e=f;g=\"\\h\"\r\nd\r\n0\r\nX: y\r\n\r\n");
    for (size_t length = 0; length < whole.length; length++) {
        struct decoded decoded = decode_all_ways((struct span){whole.data, length}, 1000);
        assert_int_equal(decoded.status, OK);
        assert_false(decoded.done);
        assert_int_equal(decoded.consumed, length);
        buffer_free(&decoded.body);
    }
}

static void the_body_has_a_limit_that_no_sum_of_chunks_escapes(void **state)
{
    (void)state;
    struct decoded decoded = decode_all_ways(SPAN("4\r\nabcd\r\n4\r\nefgh\r\n0\r\n\r\n"), 8);
    assert_int_equal(decoded.status, OK);
    buffer_free(&decoded.body);
    decoded = decode_all_ways(SPAN("4\r\nabcd\r\n5\r\nefghi\r\n0\r\n\r\n"), 8);
    assert_int_equal(decoded.status, TOO_LARGE);
    buffer_free(&decoded.body);
    decoded = decode_all_ways(SPAN("4\r\nabcd\r\nFFFFFFFF\r\n"), 8);
    assert_int_equal(decoded.status, TOO_LARGE);
    buffer_free(&decoded.body);
    decoded = decode_all_ways(SPAN("1\r\na"), 0);
    assert_int_equal(decoded.status, TOO_LARGE);
    buffer_free(&decoded.body);
}

static void trailers_have_a_limit(void **state)
{
    (void)state;
    struct buffer text = buffer_of(KIB(64));
    buffer_put_text(&text, "0\r\n");
    for (unsigned i = 0; i < HTTP_LINE_MAX / 4; i++)
        buffer_put_text(&text, "a:b\r\n");
    buffer_put_text(&text, "\r\n");
    struct decoded decoded = decode(buffer_span(&text), 1, 7, 1000);
    assert_int_equal(decoded.status, HEADERS_TOO_LARGE);
    buffer_free(&decoded.body);
    buffer_free(&text);
}

static void a_decoder_that_failed_stays_failed_and_one_that_is_done_takes_nothing(void **state)
{
    (void)state;
    struct http_chunks chunks = http_chunks_of(10);
    struct span piece;
    struct fault fault;
    size_t used = 0;
    assert_int_equal(http_chunks_next(&piece, &used, &chunks, SPAN("z"), &fault), BAD_REQUEST);
    assert_int_equal(http_chunks_next(&piece, &used, &chunks, SPAN("0\r\n\r\n"), &fault),
                     BAD_REQUEST);
    chunks = http_chunks_of(10);
    assert_int_equal(http_chunks_next(&piece, &used, &chunks, SPAN("0\r\n\r\n"), &fault), OK);
    assert_true(chunks.done);
    assert_int_equal(http_chunks_next(&piece, &used, &chunks, SPAN("5\r\nhello"), &fault), OK);
    assert_int_equal(used, 0);
    assert_int_equal(piece.length, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chunks_are_joined_and_what_follows_is_left),
        cmocka_unit_test(trailers_are_checked_and_dropped),
        cmocka_unit_test(what_is_not_a_chunked_body_is_refused),
        cmocka_unit_test(extensions_are_checked_and_ignored),
        cmocka_unit_test(extensions_have_a_limit_for_the_whole_body),
        cmocka_unit_test(every_truncation_waits_for_more),
        cmocka_unit_test(the_body_has_a_limit_that_no_sum_of_chunks_escapes),
        cmocka_unit_test(trailers_have_a_limit),
        cmocka_unit_test(a_decoder_that_failed_stays_failed_and_one_that_is_done_takes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
