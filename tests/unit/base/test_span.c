#include "base/span.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static const struct span empty = {0};

static void spans_are_compared_by_content_and_length(void **state)
{
    (void)state;
    assert_true(span_equal(SPAN("abc"), SPAN("abc")));
    assert_true(span_equal(empty, SPAN("")));
    assert_true(span_equal(SPAN("a\0b"), SPAN("a\0b")));
    assert_false(span_equal(SPAN("a\0b"), SPAN("a\0c")));
    assert_false(span_equal(SPAN("abc"), SPAN("abcd")));
    assert_true(span_is(SPAN("abc"), "abc"));
    assert_false(span_is(SPAN("abc\0"), "abc"));
    assert_true(span_is(empty, NULL));
    assert_int_equal(span_of_text("four").length, 4);
    assert_int_equal(span_of_text(NULL).length, 0);
}

static void a_prefix_is_at_most_as_long_as_the_whole(void **state)
{
    (void)state;
    assert_true(span_starts_with(SPAN("abc"), SPAN("ab")));
    assert_true(span_starts_with(SPAN("abc"), SPAN("abc")));
    assert_true(span_starts_with(empty, empty));
    assert_false(span_starts_with(SPAN("abc"), SPAN("abcd")));
    assert_false(span_starts_with(SPAN("abc"), SPAN("b")));
}

static void the_order_is_that_of_unsigned_bytes_the_shorter_first(void **state)
{
    (void)state;
    static const struct span ordered[] = {{0}, SPAN("\0"), SPAN("A"), SPAN("AB"), SPAN("a"),
                                          SPAN("\x7F"), SPAN("\x80"), SPAN("\xFF\xFF")};
    const int count = sizeof ordered / sizeof *ordered;
    for (int i = 0; i < count; i++)
        for (int j = 0; j < count; j++) {
            int order = span_compare(ordered[i], ordered[j]);
            assert_int_equal((order > 0) - (order < 0), (i > j) - (i < j));
        }
}

static void text_is_copied_only_when_it_fits_and_holds_no_nul(void **state)
{
    (void)state;
    char text[4] = "old";
    assert_true(span_to_text(text, sizeof text, SPAN("abc")));
    assert_string_equal(text, "abc");
    assert_false(span_to_text(text, sizeof text, SPAN("abcd")));
    assert_string_equal(text, "");
    assert_false(span_to_text(text, sizeof text, SPAN("a\0b")));
    assert_string_equal(text, "");
    assert_true(span_to_text(text, sizeof text, empty));
    assert_string_equal(text, "");
    assert_true(span_to_text(text, 1, empty));
    assert_false(span_to_text(text, 1, SPAN("a")));
}

/* The definition, RFC 3629, one code point at a time, to compare with. */
static size_t encode(uint8_t out[4], uint32_t code)
{
    if (code < 0x80) {
        out[0] = (uint8_t)code;
        return 1;
    }
    size_t length = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t i = length - 1; i > 0; i--, code >>= 6)
        out[i] = (uint8_t)(0x80 | (code & 0x3F));
    out[0] = (uint8_t)(0xF00u >> length | code);
    return length;
}

static void every_code_point_but_the_surrogates_is_utf8(void **state)
{
    (void)state;
    uint8_t bytes[4];
    for (uint32_t code = 0; code < 0x110000; code++) {
        struct span text = {bytes, encode(bytes, code)};
        bool surrogate = code >= 0xD800 && code <= 0xDFFF;
        assert_int_equal(span_utf8_sequence(text), surrogate ? 0 : text.length);
        for (size_t length = 1; length < text.length; length++)
            assert_int_equal(span_utf8_sequence((struct span){bytes, length}), 0);
    }
    assert_int_equal(span_utf8_sequence(empty), 0);
}

static void every_two_bytes_are_utf8_or_not_by_the_definition(void **state)
{
    (void)state;
    unsigned accepted = 0;
    for (unsigned i = 0; i < 0x10000; i++) {
        const uint8_t bytes[] = {(uint8_t)(i >> 8), (uint8_t)i};
        accepted += span_is_utf8(SPAN_OF(bytes));
    }
    assert_int_equal(accepted, 0x80 * 0x80 + 0x780); /* two of ASCII, or one of U+0080..U+07FF */
}

static void overlong_surrogate_and_too_large_sequences_are_not_utf8(void **state)
{
    (void)state;
    static const struct span refused[] = {
        SPAN("\xC0\x80"), SPAN("\xC1\xBF"), SPAN("\xE0\x80\x80"), SPAN("\xE0\x9F\xBF"),
        SPAN("\xF0\x80\x80\x80"), SPAN("\xF0\x8F\xBF\xBF"), SPAN("\xED\xA0\x80"),
        SPAN("\xED\xBF\xBF"), SPAN("\xF4\x90\x80\x80"), SPAN("\xF5\x80\x80\x80"), SPAN("\xFF"),
        SPAN("\xFE"), SPAN("\x80"), SPAN("a\xC3"), SPAN("\xE2\x82"), SPAN("\xE2\x28\xA1"),
        SPAN("\xF0\x9F\x98"), SPAN("\xF0\x9F\x98\x28"), SPAN("\xC3\xC3\xA9"),
    };
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        assert_false(span_is_utf8(refused[i]));
    assert_true(span_is_utf8(empty));
    assert_true(span_is_utf8(SPAN("a\0\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80")));
}

static void bytes_are_found_and_small_ones_are_noticed_at_every_place(void **state)
{
    (void)state;
    uint8_t bytes[40];
    assert_int_equal(span_find(empty, 'x'), 0);
    assert_false(span_has_below(empty, 128));
    for (size_t length = 1; length <= sizeof bytes; length++)
        for (size_t at = 0; at < length; at++)
            for (int byte = 0; byte < 256; byte += 5) {
                memset(bytes, 0x20, sizeof bytes);
                bytes[at] = (uint8_t)byte;
                assert_int_equal(span_has_below((struct span){bytes, length}, 0x20), byte < 0x20);
                memset(bytes, 0xFF, sizeof bytes);
                bytes[at] = (uint8_t)byte;
                struct span text = {bytes, length};
                assert_int_equal(span_has_below(text, 1), byte < 1);
                assert_int_equal(span_has_below(text, 128), byte < 128);
                assert_int_equal(span_find(text, (uint8_t)byte), byte == 0xFF ? 0 : at);
                assert_int_equal(span_find(text, 1), length);
            }
}

static void utf8_is_judged_alike_at_every_place(void **state)
{
    (void)state;
    uint8_t bytes[40];
    for (size_t at = 0; at + 2 <= sizeof bytes; at++) {
        memset(bytes, 'a', sizeof bytes);
        bytes[at] = 0xC3;
        assert_false(span_is_utf8(SPAN_OF(bytes)));
        bytes[at + 1] = 0xA9;
        assert_true(span_is_utf8(SPAN_OF(bytes)));
        assert_false(span_is_utf8((struct span){bytes, at + 1}));
    }
}

static void plain_text_has_no_control_characters(void **state)
{
    (void)state;
    assert_true(span_is_plain_text(SPAN("caf\xC3\xA9 \xE2\x82\xAC ~")));
    assert_true(span_is_plain_text(SPAN("\xC2\xA0\xC3\x80")));
    assert_true(span_is_plain_text(empty));
    static const struct span refused[] = {SPAN("\0"), SPAN("a\n"), SPAN("\x1F"), SPAN("\x7F"),
                                          SPAN("\xC2\x80"), SPAN("a\xC2\x9F"), SPAN("\xC2"),
                                          SPAN("\xFF")};
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        assert_false(span_is_plain_text(refused[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(spans_are_compared_by_content_and_length),
        cmocka_unit_test(a_prefix_is_at_most_as_long_as_the_whole),
        cmocka_unit_test(the_order_is_that_of_unsigned_bytes_the_shorter_first),
        cmocka_unit_test(text_is_copied_only_when_it_fits_and_holds_no_nul),
        cmocka_unit_test(every_code_point_but_the_surrogates_is_utf8),
        cmocka_unit_test(every_two_bytes_are_utf8_or_not_by_the_definition),
        cmocka_unit_test(overlong_surrogate_and_too_large_sequences_are_not_utf8),
        cmocka_unit_test(bytes_are_found_and_small_ones_are_noticed_at_every_place),
        cmocka_unit_test(utf8_is_judged_alike_at_every_place),
        cmocka_unit_test(plain_text_has_no_control_characters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
