#include "wire/json.h"

#include "base/limits.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Parses into an arena that the caller frees. */
static status parse(struct json *ret, struct arena *arena, struct span text)
{
    struct fault fault = {0};
    *arena = arena_of(MIB(4));
    status parsed = json_parse(ret, arena, text, &fault);
    assert_true((parsed == OK) == (fault.detail[0] == '\0')); /* untouched on success, told else */
    return parsed;
}

static status verdict(struct span text)
{
    struct json value = {.count = 77};
    struct arena arena;
    status parsed = parse(&value, &arena, text);
    if (parsed != OK)
        assert_int_equal(value.count, 77); /* untouched on failure */
    arena_free(&arena);
    return parsed;
}

static void every_kind_is_read_with_its_source(void **state)
{
    (void)state;
    struct json value;
    struct arena arena;
    assert_int_equal(parse(&value, &arena, SPAN(" {\"n\":null, \"t\":true,\"f\":false,"
        "\"i\":-12,\"d\":2.5e1,\"s\":\"x\",\"a\":[1,[],{}] ,\"o\":{\"p\":\"q\"}}\r\n\t")), OK);
    assert_int_equal(value.kind, JSON_OBJECT);
    assert_int_equal(value.count, 8);
    assert_int_equal(json_member(&value, "n")->kind, JSON_NULL);
    assert_int_equal(json_member(&value, "t")->kind, JSON_TRUE);
    assert_int_equal(json_member(&value, "f")->kind, JSON_FALSE);
    assert_int_equal(json_member(&value, "i")->kind, JSON_INTEGER);
    assert_int_equal(json_member(&value, "i")->integer, -12);
    assert_true(json_member(&value, "i")->number == -12.0);
    assert_int_equal(json_member(&value, "d")->kind, JSON_DOUBLE);
    assert_true(json_member(&value, "d")->number == 25.0);
    assert_true(span_is(json_member(&value, "d")->source, "2.5e1"));
    assert_true(span_is(json_member(&value, "s")->source, "\"x\""));
    const struct json *array = json_member(&value, "a");
    assert_int_equal(array->count, 3);
    assert_int_equal(array->items[1].count, 0);
    assert_int_equal(array->items[2].kind, JSON_OBJECT);
    assert_true(span_is(array->source, "[1,[],{}]"));
    assert_true(span_is(json_member(json_member(&value, "o"), "p")->string, "q"));
    assert_null(json_member(&value, "absent"));
    assert_null(json_member(array, "p"));
    arena_free(&arena);
}

static void assert_string(struct span text, struct span expected)
{
    struct json value;
    struct arena arena;
    assert_int_equal(parse(&value, &arena, text), OK);
    assert_int_equal(value.kind, JSON_STRING);
    assert_true(span_equal(value.string, expected));
    assert_int_equal(value.string.data[value.string.length], 0);
    arena_free(&arena);
}

static void strings_are_unescaped(void **state)
{
    (void)state;
    assert_string(SPAN("\"\""), SPAN(""));
    assert_string(SPAN("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\""), SPAN("\"\\/\b\f\n\r\t"));
    assert_string(SPAN("\"\\u0041\\u00e9\\u20AC\\uD83D\\uDE00\""),
                  SPAN("A\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80"));
    assert_string(SPAN("\"\\u0000a\\u007f\\u0080\\u07ff\\u0800\\uffff\""),
                  SPAN("\0a\x7F\xC2\x80\xDF\xBF\xE0\xA0\x80\xEF\xBF\xBF"));
    assert_string(SPAN("\"\\ud800\\udc00\\udbff\\udfff\""),
                  SPAN("\xF0\x90\x80\x80\xF4\x8F\xBF\xBF"));
    assert_string(SPAN("\"\x7F \xF4\x8F\xBF\xBF,[{\""), SPAN("\x7F \xF4\x8F\xBF\xBF,[{"));
}

static void what_is_not_json_is_refused(void **state)
{
    (void)state;
    static const char *const refused[] = {
        "", " ", "nul", "nulL", "True", "NaN", "Infinity", "-Infinity", "undefined", "'a'", "{",
        "}", "[", "]", "[1", "[1,", "[1,]", "[,1]", "[,]", "[1 2]", "[1,,2]", "1,2", "[1]]", "[1}",
        "{]", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{,}", "{\"a\" 1}", "{a:1}", "{1:1}",
        "{\"a\":1 \"b\":2}", "{\"a\":1}{", "1 1", "null,", "[] []", "// c\n1", "/**/1",
        "\xEF\xBB\xBF" "1", "\v1", "\f1", "\xC2\xA0" "1", "\"a", "\"a\\\"", "\"\\", "\"\\x41\"",
        "\"\\'\"", "\"\\u12\"", "\"\\u12g4\"", "\"\\U0041\"", "\"\\u 041\"", "\"\n\"", "\"\t\"",
        "\"\x1F\"", "\"\x80\"", "\"\xC0\x80\"", "\"\xED\xA0\x80\"", "\"\xF4\x90\x80\x80\"",
        "\"\xC3\"", "\"\xE2\x82\"", "\"\\ud800\"", "\"\\udc00\"", "\"\\ud800x\"", "\"\\ud800\\n\"",
        "\"\\ud800\\ud800\"", "\"\\ud800\\u0041\"", "\"\\udc00\\ud800\"", "\"a\"b", "[\"a\"b]",
        "\"\\u\"", "\"\\ud800\\u\"", "\"\\ud800\\",
    };
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        if (verdict(span_of_text(refused[i])) != BAD_JSON)
            fail_msg("not refused: %s", refused[i]);
    assert_int_equal(verdict(SPAN("\"\0\"")), BAD_JSON);
    assert_int_equal(verdict(SPAN("1\0")), BAD_JSON);
    assert_int_equal(verdict(SPAN("\0")), BAD_JSON);
    assert_int_equal(verdict((struct span){0}), BAD_JSON);
}

static void numbers_have_one_grammar(void **state)
{
    (void)state;
    static const char *const refused[] = {
        "01", "-01", "00", "-", "+1", ".5", "1.", "1.e5", "1e", "1e+", "1E-", "0x10", "1_000",
        "--1", "- 1", "1.5.5", "1e5e5", "1e1.5", "-a", "1a", "0e", "9223372036854775808",
        "-9223372036854775809", "18446744073709551615", "100000000000000000000", "1e309", "-1e309",
    };
    static const char *const accepted[] = {
        "0", "-0", "0.0", "-0.0", "0e0", "1e5", "1E+05", "1.5e-7", "123456789.987654321", "1e308",
        "4.9e-324", "1e-999", "0.1e1", "9223372036854775807", "-9223372036854775808",
    };
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        if (verdict(span_of_text(refused[i])) != BAD_JSON)
            fail_msg("not refused: %s", refused[i]);
    for (size_t i = 0; i < sizeof accepted / sizeof *accepted; i++)
        if (verdict(span_of_text(accepted[i])) != OK)
            fail_msg("not accepted: %s", accepted[i]);
}

static void numbers_keep_their_value_to_the_last_bit(void **state)
{
    (void)state;
    struct json value;
    struct arena arena;
    assert_int_equal(parse(&value, &arena, SPAN("[9223372036854775807,-9223372036854775808,0.1,"
                                                "1.7976931348623157e308,5e-324,-0,1.0]")), OK);
    assert_true(value.items[0].integer == INT64_MAX);
    assert_true(value.items[1].integer == INT64_MIN);
    assert_true(value.items[2].number == 0.1);
    assert_true(value.items[3].number == 1.7976931348623157e308);
    assert_true(value.items[4].number == 5e-324);
    assert_int_equal(value.items[5].kind, JSON_INTEGER);
    assert_int_equal(value.items[5].integer, 0);
    assert_int_equal(value.items[6].kind, JSON_DOUBLE);
    arena_free(&arena);
}

/* A small generator, so that every run sees the same numbers. */
static uint64_t next_random(void)
{
    static uint64_t state = 88172645463325252;
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

static double pow10_of(int exponent)
{
    double value = 1;
    for (; exponent > 0; exponent--)
        value *= 10;
    for (; exponent < 0; exponent++)
        value /= 10;
    return value;
}

static void every_double_is_the_one_nearest_to_its_text(void **state)
{
    (void)state;
    for (int i = 0; i < 200000; i++) {
        char text[400];
        struct json value;
        struct arena arena;
        double random = (double)next_random() / 0x1p64 * pow10_of((int)(next_random() % 40) - 30);
        int digits = (int)(next_random() % 24);
        int length = i % 3 == 0 ? snprintf(text, sizeof text, "%.*f", digits, random)
                   : i % 3 == 1 ? snprintf(text, sizeof text, "%.*g", digits, random)
                                : snprintf(text, sizeof text, "-%.*e", digits, random);
        if (length >= 120 || !memchr(text, '.', (size_t)length))
            continue;
        double expected = strtod(text, NULL);
        assert_int_equal(parse(&value, &arena, span_of_text(text)), OK);
        assert_memory_equal(&value.number, &expected, sizeof expected);
        arena_free(&arena);
    }
}

static void halves_are_rounded_to_even_by_every_last_digit(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "9007199254740992.5", "9007199254740993.0", "9007199254740993.1", "9007199254740994.9",
        "0.500000000000000166533453694", "0.50000000000000016653", "4503599627370496.5",
        "4503599627370497.5", "4503599627370497.4999", "4503599627370497.5001", "0.1e-5", "1.0e0",
        "18446744073709551615.0", "1844674407370955160.9", "0.0000000000000000000000000001",
        "1.7976931348623158e308", "2.2250738585072011e-308", "123.0e-30", "9.5e-27", "0.0e5",
        "-0.0",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct json value;
        struct arena arena;
        double expected = strtod(texts[i], NULL);
        assert_int_equal(parse(&value, &arena, span_of_text(texts[i])), OK);
        assert_memory_equal(&value.number, &expected, sizeof expected);
        arena_free(&arena);
    }
}

static void a_name_twice_is_refused_in_small_and_large_objects(void **state)
{
    (void)state;
    assert_int_equal(verdict(SPAN("{\"a\":1,\"b\":2,\"a\":3}")), BAD_JSON);
    assert_int_equal(verdict(SPAN("{\"a\":1,\"\\u0061\":2}")), BAD_JSON);
    assert_int_equal(verdict(SPAN("{\"\":1,\"\":2}")), BAD_JSON);
    assert_int_equal(verdict(SPAN("{\"x\":{\"a\":1,\"a\":1}}")), BAD_JSON);
    assert_int_equal(verdict(SPAN("{\"a\":{\"a\":1},\"A\":1,\"a\\u0000\":1}")), OK);
    for (int twice = 0; twice < 2; twice++) {
        struct buffer text = buffer_of(KIB(64));
        buffer_put_text(&text, "{");
        for (int i = 0; i < 1000; i++)
            buffer_printf(&text, "\"name%d\":%d,", i * 7919 % 1000, i);
        buffer_printf(&text, "\"name%d\":0}", twice ? 500 : 1000);
        assert_int_equal(verdict(buffer_span(&text)), twice ? BAD_JSON : OK);
        buffer_free(&text);
    }
}

/* count times open, then count times close. */
static status nested(const char *open, const char *close, int count)
{
    struct buffer text = buffer_of(KIB(64));
    for (int i = 0; i < count; i++)
        buffer_put_text(&text, open);
    for (int i = 0; i < count; i++)
        buffer_put_text(&text, close);
    status parsed = verdict(buffer_span(&text));
    buffer_free(&text);
    return parsed;
}

static void depth_has_a_limit(void **state)
{
    (void)state;
    assert_int_equal(nested("[", "]", JSON_DEPTH_MAX), OK);
    assert_int_equal(nested("[", "]", JSON_DEPTH_MAX + 1), TOO_LARGE);
    assert_int_equal(nested("[", "", 10000), TOO_LARGE);
    assert_int_equal(nested("{\"a\":[", "]}", JSON_DEPTH_MAX / 2), OK);
    assert_int_equal(nested("{\"a\":[", "]}", JSON_DEPTH_MAX / 2 + 1), TOO_LARGE);
}

/* "[x,x,...,x]" of count items. */
static status listed(const char *item, int count)
{
    struct buffer text = buffer_of(KIB(64));
    buffer_put_text(&text, "[");
    for (int i = 0; i < count; i++)
        buffer_printf(&text, "%s%s", i ? "," : "", item);
    buffer_put_text(&text, "]");
    status parsed = verdict(buffer_span(&text));
    buffer_free(&text);
    return parsed;
}

static void the_number_of_values_has_a_limit(void **state)
{
    (void)state;
    assert_int_equal(listed("0", JSON_MEMBERS_MAX - 1), OK); /* the array is a value too */
    assert_int_equal(listed("0", JSON_MEMBERS_MAX), TOO_LARGE);
    assert_int_equal(listed("[]", JSON_MEMBERS_MAX - 1), OK);
    assert_int_equal(listed("[]", JSON_MEMBERS_MAX), TOO_LARGE);
    assert_int_equal(listed("[0]", JSON_MEMBERS_MAX / 2 - 1), OK);
    assert_int_equal(listed("[0]", JSON_MEMBERS_MAX / 2), TOO_LARGE);
    assert_int_equal(listed("", JSON_MEMBERS_MAX * 2), TOO_LARGE);
}

static void a_number_of_endless_digits_is_too_large(void **state)
{
    (void)state;
    char text[300];
    memset(text, '1', sizeof text);
    text[1] = '.';
    assert_int_equal(verdict((struct span){(uint8_t *)text, 127}), OK);
    assert_int_equal(verdict((struct span){(uint8_t *)text, 128}), TOO_LARGE);
}

static void a_small_arena_is_too_large_and_never_overrun(void **state)
{
    (void)state;
    struct span text = SPAN("{\"a\":[1,2,3,{\"b\":\"some text\"}],\"c\":\"more of it\","
                            "\"d\":[[[[]]]]}");
    bool fits = false;
    for (size_t max = 0; max < 2000; max += 16) {
        struct arena arena = arena_of(max);
        struct json value;
        struct fault fault;
        status parsed = json_parse(&value, &arena, text, &fault);
        assert_int_equal(parsed, fits ? OK : parsed == OK ? OK : TOO_LARGE);
        fits = parsed == OK;
        arena_free(&arena);
    }
    assert_true(fits);
}

static void every_truncation_is_refused(void **state)
{
    (void)state;
    struct span whole = SPAN("{\"a\":[1,-2.5e3,true,false,null],"
                             "\"\\u00e9\\ud83d\\ude00\":{\"b\":\"\"}}");
    assert_int_equal(verdict(whole), OK);
    for (size_t length = 0; length < whole.length; length++)
        assert_int_equal(verdict((struct span){whole.data, length}), BAD_JSON);
}

static void every_single_byte_put_anywhere_never_breaks_the_parser(void **state)
{
    (void)state;
    struct span whole = SPAN("{\"a\":[1,-2.5,true],\"b\":{\"c\":\"\\n\"}}");
    uint8_t bytes[64];
    for (size_t at = 0; at < whole.length; at++)
        for (int byte = 0; byte < 256; byte++) {
            memcpy(bytes, whole.data, whole.length);
            bytes[at] = (uint8_t)byte;
            status parsed = verdict((struct span){bytes, whole.length});
            assert_true(parsed == OK || parsed == BAD_JSON);
        }
}

static void typed_access_names_the_member_and_what_is_allowed(void **state)
{
    (void)state;
    struct json value;
    struct arena arena;
    struct fault fault = {0};
    struct span text = SPAN("unset");
    int64_t integer = 42;
    bool truth = true;
    assert_int_equal(parse(&value, &arena, SPAN("{\"s\":\"text\",\"z\":\"a\\u0000b\",\"i\":7,"
                           "\"d\":7.0,\"b\":false,\"n\":null,\"e\":\"\"}")), OK);
    assert_int_equal(json_text(&text, &value, "s", 1, 4, &fault), OK);
    assert_true(span_is(text, "text"));
    assert_int_equal(json_text(&text, &value, "s", 1, 3, &fault), BAD_FIELD);
    assert_int_equal(json_text(&text, &value, "s", 5, 9, &fault), BAD_FIELD);
    assert_int_equal(json_text(&text, &value, "e", 1, 9, &fault), BAD_FIELD);
    assert_int_equal(json_text(&text, &value, "z", 0, 9, &fault), BAD_FIELD);
    assert_int_equal(json_text(&text, &value, "i", 0, 9, &fault), BAD_FIELD);
    assert_int_equal(json_text(&text, &value, "n", 0, 9, &fault), BAD_FIELD);
    assert_int_equal(json_text(&text, &value, "absent", 0, 9, &fault), BAD_FIELD);
    assert_non_null(strstr(fault.detail, "absent"));
    assert_true(span_is(text, "text"));
    assert_int_equal(json_optional_text(&text, &value, "absent", 0, 9, &fault), OK);
    assert_int_equal(json_optional_text(&text, &value, "n", 0, 9, &fault), OK);
    assert_true(span_is(text, "text"));
    assert_int_equal(json_optional_text(&text, &value, "b", 0, 9, &fault), BAD_FIELD);
    assert_int_equal(json_optional_text(&text, &value, "e", 0, 9, &fault), OK);
    assert_int_equal(text.length, 0);
    assert_int_equal(json_optional_integer(&integer, &value, "absent", 0, 9, &fault), OK);
    assert_int_equal(integer, 42);
    assert_int_equal(json_optional_integer(&integer, &value, "i", 8, 9, &fault), BAD_FIELD);
    assert_int_equal(json_optional_integer(&integer, &value, "i", 0, 6, &fault), BAD_FIELD);
    assert_int_equal(json_optional_integer(&integer, &value, "d", 0, 9, &fault), BAD_FIELD);
    assert_int_equal(json_optional_integer(&integer, &value, "i", 7, 7, &fault), OK);
    assert_int_equal(integer, 7);
    assert_int_equal(json_optional_bool(&truth, &value, "i", &fault), BAD_FIELD);
    assert_int_equal(json_optional_bool(&truth, &value, "n", &fault), OK);
    assert_true(truth);
    assert_int_equal(json_optional_bool(&truth, &value, "b", &fault), OK);
    assert_false(truth);
    assert_int_equal(json_need_object(&value, "body", &fault), OK);
    assert_int_equal(json_need_object(&value.items[0], "body", &fault), BAD_FIELD);
    assert_string_equal(fault.detail, "body: must be an object");
    arena_free(&arena);
}

static void a_member_that_is_not_in_the_contract_is_named(void **state)
{
    (void)state;
    static const char *const names[] = {"a", "b", NULL}, *const none[] = {NULL};
    struct json value;
    struct arena arena;
    struct fault fault = {0};
    assert_int_equal(parse(&value, &arena, SPAN("{\"a\":1,\"bogus\":2,\"b\":3}")), OK);
    assert_int_equal(json_only(&value, names, &fault), BAD_FIELD);
    assert_non_null(strstr(fault.detail, "bogus"));
    arena_free(&arena);
    assert_int_equal(parse(&value, &arena, SPAN("{\"a\":[]}")), OK);
    assert_int_equal(json_only(&value, names, &fault), OK);
    assert_int_equal(json_only(&value, none, &fault), BAD_FIELD);
    assert_int_equal(json_only(&value.items[0], names, &fault), BAD_FIELD);
    arena_free(&arena);
}

static void a_document_is_written_with_its_commas(void **state)
{
    (void)state;
    struct buffer out = buffer_of(1024);
    struct json_writer writer = json_writer_on(&out);
    json_open_object(&writer, NULL);
    json_open_array(&writer, "empty");
    json_close_array(&writer);
    json_open_array(&writer, "list");
    json_put_integer(&writer, NULL, INT64_MIN);
    json_put_null(&writer, NULL);
    json_open_object(&writer, NULL);
    json_put_bool(&writer, "yes", true);
    json_put_bool(&writer, "no", false);
    json_close_object(&writer);
    json_close_array(&writer);
    json_put_text(&writer, "text", "plain");
    json_put_raw(&writer, "raw", SPAN("[1,2]"));
    json_close_object(&writer);
    assert_true(span_is(buffer_span(&out), "{\"empty\":[],\"list\":[-9223372036854775808,null,"
                "{\"yes\":true,\"no\":false}],\"text\":\"plain\",\"raw\":[1,2]}"));
    assert_int_equal(verdict(buffer_span(&out)), OK);
    buffer_free(&out);
}

static void written_strings_are_always_json(void **state)
{
    (void)state;
    struct buffer out = buffer_of(1024);
    struct json_writer writer = json_writer_on(&out);
    json_put_string(&writer, NULL, SPAN("\"\\/\n\r\t\b\0\x1F\x7F\xC3\xA9\xF0\x9F\x98\x80"));
    assert_true(span_is(buffer_span(&out),
        "\"\\\"\\\\/\\n\\r\\t\\b\\u0000\\u001f\x7F\xC3\xA9\xF0\x9F\x98\x80\""));
    buffer_clear(&out);
    writer = json_writer_on(&out);
    json_put_string(&writer, NULL, SPAN("a\xFF\xC3" "b\xE2\x82"));
    assert_true(span_is(buffer_span(&out),
                        "\"a\xEF\xBF\xBD\xEF\xBF\xBD" "b\xEF\xBF\xBD\xEF\xBF\xBD\""));
    for (int byte = 0; byte < 256; byte++) {
        const uint8_t one[] = {'x', (uint8_t)byte};
        buffer_clear(&out);
        writer = json_writer_on(&out);
        json_put_string(&writer, NULL, SPAN_OF(one));
        assert_int_equal(verdict(buffer_span(&out)), OK);
    }
    buffer_free(&out);
}

static void written_doubles_read_back_as_they_were(void **state)
{
    (void)state;
    static const double values[] = {0.0, -0.0, 1.0, 0.1, -2.5, 1.0 / 3, 1e15, 1e16, 1e17, 1e300,
        5e-324, 1.7976931348623157e308, 9007199254740993.0, 123456789012345678.0,
        0.30000000000000004};
    struct buffer out = buffer_of(64);
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        struct json_writer writer = json_writer_on(&out);
        struct json value;
        struct arena arena;
        buffer_clear(&out);
        json_put_double(&writer, NULL, values[i]);
        assert_int_equal(parse(&value, &arena, buffer_span(&out)), OK);
        assert_memory_equal(&value.number, &values[i], sizeof(double));
        assert_int_equal(value.kind, JSON_DOUBLE);
        arena_free(&arena);
    }
    static const double none[] = {NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < 3; i++) {
        struct json_writer writer = json_writer_on(&out);
        buffer_clear(&out);
        json_put_double(&writer, NULL, none[i]);
        assert_true(span_is(buffer_span(&out), "null"));
    }
    buffer_free(&out);
}

static void a_full_buffer_is_found_at_the_end(void **state)
{
    (void)state;
    uint8_t storage[8];
    struct fault fault;
    struct buffer out = buffer_over(storage, sizeof storage);
    struct json_writer writer = json_writer_on(&out);
    json_put_text(&writer, NULL, "much too long");
    json_put_integer(&writer, NULL, 1);
    assert_int_equal(buffer_check(&out, "answer", &fault), TOO_LARGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_is_read_with_its_source),
        cmocka_unit_test(strings_are_unescaped),
        cmocka_unit_test(what_is_not_json_is_refused),
        cmocka_unit_test(numbers_have_one_grammar),
        cmocka_unit_test(numbers_keep_their_value_to_the_last_bit),
        cmocka_unit_test(every_double_is_the_one_nearest_to_its_text),
        cmocka_unit_test(halves_are_rounded_to_even_by_every_last_digit),
        cmocka_unit_test(a_name_twice_is_refused_in_small_and_large_objects),
        cmocka_unit_test(depth_has_a_limit),
        cmocka_unit_test(the_number_of_values_has_a_limit),
        cmocka_unit_test(a_number_of_endless_digits_is_too_large),
        cmocka_unit_test(a_small_arena_is_too_large_and_never_overrun),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(every_single_byte_put_anywhere_never_breaks_the_parser),
        cmocka_unit_test(typed_access_names_the_member_and_what_is_allowed),
        cmocka_unit_test(a_member_that_is_not_in_the_contract_is_named),
        cmocka_unit_test(a_document_is_written_with_its_commas),
        cmocka_unit_test(written_strings_are_always_json),
        cmocka_unit_test(written_doubles_read_back_as_they_were),
        cmocka_unit_test(a_full_buffer_is_found_at_the_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
