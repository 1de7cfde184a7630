/* JSON against a second opinion (jansson), on a corpus of our own: each text has the verdict that
 * RFC 8259 and the choices in wire/json.h give it, and fuzz_json.c's check of one input compares
 * values, limits and what is written anew. */
#include "wire/json.h"

#include "base/limits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

/* fuzz_json.c: aborts where the two differ. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Its own heap copy of exactly these bytes, so that a read past them is found. */
static status judge(struct span text)
{
    struct arena arena = arena_of(MIB(4));
    struct json value;
    struct fault fault;
    uint8_t *bytes = malloc(text.length + (text.length == 0));
    assert_non_null(bytes);
    struct buffer exact = buffer_over(bytes, text.length);
    buffer_put(&exact, text);
    LLVMFuzzerTestOneInput(bytes, text.length);
    status parsed = json_parse(&value, &arena, (struct span){bytes, text.length}, &fault);
    free(bytes);
    arena_free(&arena);
    return parsed;
}

static void assert_all(const struct span *texts, size_t count, status expected)
{
    for (size_t i = 0; i < count; i++) {
        status parsed = judge(texts[i]);
        if (parsed != expected)
            fail_msg("%d instead of %d: %.*s", parsed, expected, SPAN_ARG(texts[i]));
    }
}

#define ASSERT_ALL(expected, ...)                                              \
    do {                                                                       \
        const struct span texts[] = {__VA_ARGS__};                             \
        assert_all(texts, sizeof texts / sizeof *texts, expected);             \
    } while (0)

static void structures(void **state)
{
    (void)state;
    ASSERT_ALL(OK, SPAN("[]"), SPAN("{}"), SPAN("[[]]"), SPAN("[{}]"), SPAN("{\"\":[]}"),
               SPAN(" [ ] "), SPAN("\t\r\n{\n\"a\"\t:\r[ ]\n}\n"), SPAN("[1,2,3]"),
               SPAN("[null,true,false]"), SPAN("{\"a\":1,\"b\":{\"a\":1}}"),
               SPAN("[{\"a\":1},{\"a\":1}]"), SPAN("null"), SPAN("true"), SPAN("false"), SPAN("0"),
               SPAN("\"\""), SPAN(" \"a\" "));
    ASSERT_ALL(BAD_JSON, SPAN(""), SPAN(" "), SPAN("["), SPAN("]"), SPAN("{"), SPAN("}"),
               SPAN("[}"), SPAN("{]"), SPAN("[,]"), SPAN("[1,]"), SPAN("[,1]"), SPAN("[1,,2]"),
               SPAN("[1 2]"), SPAN("[1;2]"), SPAN("[1]]"), SPAN("[1][2]"), SPAN("[[1]"),
               SPAN("{\"a\"}"), SPAN("{\"a\":}"), SPAN("{\"a\":1,}"), SPAN("{,}"),
               SPAN("{\"a\":1,,\"b\":2}"), SPAN("{\"a\" 1}"), SPAN("{\"a\"::1}"),
               SPAN("{\"a\":1 \"b\":2}"), SPAN("{a:1}"), SPAN("{'a':1}"), SPAN("{1:1}"),
               SPAN("{null:1}"), SPAN("{[]:1}"), SPAN("{\"a\":1}}"), SPAN("{\"a\":1}x"),
               SPAN("[] []"), SPAN("null null"), SPAN("nul"), SPAN("nulll"), SPAN("Null"),
               SPAN("TRUE"), SPAN("truefalse"), SPAN("undefined"), SPAN("[1]\0"), SPAN("[\0]"),
               SPAN("\0[]"), SPAN("\v[]"), SPAN("\f[]"), SPAN("[]\xC2\xA0"), SPAN("\xEF\xBB\xBF[]"),
               SPAN("\xFF\xFE[\0]\0"), SPAN("//\n[]"), SPAN("[/**/]"), SPAN("[1] // end"),
               SPAN("[...]"), SPAN("(1)"), SPAN("<a/>"));
}

static void numbers(void **state)
{
    (void)state;
    ASSERT_ALL(OK, SPAN("-0"), SPAN("1"), SPAN("-1"), SPAN("10"), SPAN("0.0"), SPAN("-0.0"),
               SPAN("0.1"), SPAN("1e0"), SPAN("1E0"), SPAN("1e+1"), SPAN("1e-1"), SPAN("0e0"),
               SPAN("0E-0"), SPAN("1.5e300"), SPAN("1e308"), SPAN("5e-324"), SPAN("1e-400"),
               SPAN("-1e-400"), SPAN("0e999"), SPAN("2.2250738585072011e-308"),
               SPAN("1.7976931348623157e308"), SPAN("9223372036854775807"),
               SPAN("-9223372036854775808"), SPAN("9223372036854775807.0"),
               SPAN("18446744073709551616.0"), SPAN("123456789012345678e0"),
               SPAN("0.1000000000000000055511151231257827"), SPAN("9007199254740993"),
               SPAN("9007199254740993.0"), SPAN("1e00000000000000000001"),
               SPAN("0.00000000000000000000000000000000000000000000001"));
    ASSERT_ALL(BAD_JSON, SPAN("-"), SPAN("+1"), SPAN("01"), SPAN("-01"), SPAN("00"), SPAN("0x1"),
               SPAN("1."), SPAN(".1"), SPAN("-.1"), SPAN("1.e1"), SPAN("1e"), SPAN("1e+"),
               SPAN("1e-"), SPAN("1e1.5"), SPAN("1.1.1"), SPAN("--1"), SPAN("- 1"), SPAN("1 000"),
               SPAN("1_000"), SPAN("1,000"), SPAN("0b1"), SPAN("0o7"), SPAN("NaN"), SPAN("nan"),
               SPAN("Infinity"), SPAN("-Infinity"), SPAN("inf"), SPAN("1f"), SPAN("1L"), SPAN("1a"),
               SPAN("0e"), SPAN("[1.]"), SPAN("[-]"), SPAN("\xEF\xBC\x91"), SPAN("\xD9\xA1"));
    /* no int64, no finite double (RFC 7493 2.2) */
    ASSERT_ALL(BAD_JSON, SPAN("9223372036854775808"), SPAN("-9223372036854775809"),
               SPAN("18446744073709551616"), SPAN("1e309"), SPAN("-1e309"), SPAN("1e999999999999"),
               SPAN("1.7976931348623159e308"));
}

static void strings(void **state)
{
    (void)state;
    ASSERT_ALL(OK, SPAN("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\""), SPAN("\"\\u0041\\u00e9\\u20AC\""),
               SPAN("\"\\uD83D\\uDE00\""), SPAN("\"\\u0000\""), SPAN("\"\\uFFFF\\uFFFE\""),
               SPAN("\"\x7F\""), SPAN("\"\xC3\xA9\""), SPAN("\"\xE2\x82\xAC\""),
               SPAN("\"\xF0\x9F\x98\x80\""), SPAN("\"\xF4\x8F\xBF\xBF\""), SPAN("\"\xEF\xBB\xBF\""),
               SPAN("\"\xE2\x80\xA8\""), SPAN("\"\xEF\xBF\xBE\""), SPAN("\"//\""),
               SPAN("\"\\u002f\\u0022\""), SPAN("\"\\uDBFF\\uDFFF\""));
    ASSERT_ALL(BAD_JSON, SPAN("\""), SPAN("\"a"), SPAN("a\""), SPAN("'a'"), SPAN("\"\\\""),
               SPAN("\"\\"), SPAN("\"\\x41\""), SPAN("\"\\a\""), SPAN("\"\\v\""), SPAN("\"\\0\""),
               SPAN("\"\\'\""), SPAN("\"\\U0041\""), SPAN("\"\\u\""), SPAN("\"\\u004\""),
               SPAN("\"\\u00g0\""), SPAN("\"\\u+041\""), SPAN("\"\\u 041\""), SPAN("\"\\u{41}\""),
               SPAN("\"\\uD800\""), SPAN("\"\\uDC00\""), SPAN("\"\\uD800\\uD800\""),
               SPAN("\"\\uDC00\\uD800\""), SPAN("\"\\uD800x\""), SPAN("\"\\uD800\\n\""),
               SPAN("\"\\uD800\\u\""), SPAN("\"\\uD83D\\u0041\""), SPAN("\"\n\""), SPAN("\"\t\""),
               SPAN("\"\r\""), SPAN("\"\x01\""), SPAN("\"\x1F\""), SPAN("\"\0\""), SPAN("\"\xFF\""),
               SPAN("\"\x80\""), SPAN("\"\xC3\""), SPAN("\"\xC0\xAF\""), SPAN("\"\xC1\xBF\""),
               SPAN("\"\xE0\x80\xAF\""), SPAN("\"\xE0\x9F\xBF\""), SPAN("\"\xED\xA0\x80\""),
               SPAN("\"\xED\xBF\xBF\""), SPAN("\"\xF0\x80\x80\xAF\""), SPAN("\"\xF4\x90\x80\x80\""),
               SPAN("\"\xF5\x80\x80\x80\""), SPAN("\"\xE2\x82\""), SPAN("\"\xF8\x88\x80\x80\x80\""),
               SPAN("\xE9"), SPAN("[\xE9]"), SPAN("{\"\xE9\":1}"));
}

static void names_that_are_twice(void **state)
{
    (void)state;
    ASSERT_ALL(OK, SPAN("{\"a\":1,\"A\":1}"), SPAN("{\"a\":1,\"a \":1}"), SPAN("{\"\":1,\" \":1}"),
               SPAN("{\"e\\u0301\":1,\"\xC3\xA9\":1}"), SPAN("{\"a\":{\"a\":{\"a\":1}}}"),
               SPAN("{\"a\\u0000\":1,\"b\":2}"));
    ASSERT_ALL(BAD_JSON, SPAN("{\"a\":1,\"a\":1}"), SPAN("{\"a\":1,\"b\":2,\"a\":3}"),
               SPAN("{\"\":1,\"\":1}"), SPAN("{\"a\":1,\"\\u0061\":2}"),
               SPAN("{\"\xC3\xA9\":1,\"\\u00e9\":2}"), SPAN("{\"/\":1,\"\\/\":2}"),
               SPAN("[{\"x\":{\"a\":1,\"a\":2}}]"), SPAN("{\"__proto__\":1,\"__proto__\":2}"));
}

static struct span nested(struct buffer *text, uint32_t depth, const char *open, const char *close)
{
    buffer_clear(text);
    for (uint32_t i = 0; i < depth; i++)
        buffer_put_text(text, open);
    buffer_put_text(text, "1");
    for (uint32_t i = 0; i < depth; i++)
        buffer_put_text(text, close);
    return buffer_span(text);
}

static void depth_and_numbers_of_values(void **state)
{
    (void)state;
    struct buffer text = buffer_of(MIB(1));
    assert_int_equal(judge(nested(&text, JSON_DEPTH_MAX, "[", "]")), OK);
    assert_int_equal(judge(nested(&text, JSON_DEPTH_MAX + 1, "[", "]")), TOO_LARGE);
    assert_int_equal(judge(nested(&text, JSON_DEPTH_MAX, "{\"a\":", "}")), OK);
    assert_int_equal(judge(nested(&text, JSON_DEPTH_MAX + 1, "{\"a\":", "}")), TOO_LARGE);
    assert_int_equal(judge(nested(&text, 1000, "[", "]")), TOO_LARGE);
    for (uint32_t count = JSON_MEMBERS_MAX - 1; count <= JSON_MEMBERS_MAX; count++) {
        buffer_clear(&text);
        for (uint32_t i = 0; i < count; i++)
            buffer_put_text(&text, i ? ",0" : "[0");
        buffer_put_text(&text, "]"); /* which is a value itself */
        assert_int_equal(judge(buffer_span(&text)), count < JSON_MEMBERS_MAX ? OK : TOO_LARGE);
    }
    buffer_free(&text);
}

/* Each byte of a document cut off, replaced and put in between: the two agree on all of them. */
static void every_small_change_of_a_document(void **state)
{
    (void)state;
    const struct span whole = SPAN("{\"a\":[-1.5e+3,\"\\u00e9\\n\xC3\xA9\",true],"
                                   "\"b\":{\"c\":null,\"\":0}}");
    static const uint8_t bytes[] = "\0\t \"\\,:[]{}-+.eE019anu/\x1F\x7F\x80\xC3\xA9\xED\xF0\xFF";
    uint8_t storage[128];
    for (size_t at = 0; at <= whole.length; at++) {
        (void)judge((struct span){whole.data, at});
        for (size_t i = 0; i < sizeof bytes - 1; i++) {
            for (size_t skip = 0; skip <= 1 && at + skip <= whole.length; skip++) {
                struct buffer text = buffer_over(storage, sizeof storage);
                buffer_put(&text, (struct span){whole.data, at});
                buffer_put_u8(&text, bytes[i]);
                buffer_put(&text, (struct span){whole.data + at + skip, whole.length - at - skip});
                assert_false(text.failed);
                (void)judge(buffer_span(&text));
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(structures),
        cmocka_unit_test(numbers),
        cmocka_unit_test(strings),
        cmocka_unit_test(names_that_are_twice),
        cmocka_unit_test(depth_and_numbers_of_values),
        cmocka_unit_test(every_small_change_of_a_document),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
