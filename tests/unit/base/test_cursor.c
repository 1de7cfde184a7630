#include "base/cursor.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void integers_are_read_big_endian_one_after_the_other(void **state)
{
    (void)state;
    struct cursor cursor = cursor_over(SPAN("\x01\x02\x03\x04\x05\x06\x07\xFF\x01\x02\x03\x04\x05"
                                            "\x06\x07"));
    struct fault fault;
    uint8_t u8;
    uint16_t u16;
    uint32_t u32;
    uint64_t u64;
    assert_int_equal(cursor_u8(&u8, &cursor, &fault), OK);
    assert_int_equal(u8, 1);
    assert_int_equal(cursor_u16(&u16, &cursor, &fault), OK);
    assert_int_equal(u16, 0x0203);
    assert_int_equal(cursor_u32(&u32, &cursor, &fault), OK);
    assert_int_equal(u32, 0x04050607);
    assert_int_equal(cursor_end(&cursor, &fault), BAD_REQUEST);
    assert_int_equal(cursor_u64(&u64, &cursor, &fault), OK);
    assert_true(u64 == 0xFF01020304050607u);
    assert_int_equal(cursor_end(&cursor, &fault), OK);
}

static void a_read_past_the_end_fails_and_changes_nothing(void **state)
{
    (void)state;
    struct fault fault;
    for (size_t length = 0; length < 8; length++) {
        struct span bytes = {(const uint8_t *)"1234567", length}, span = SPAN("unset");
        struct cursor cursor = cursor_over(bytes);
        uint8_t u8 = 77, copy[8] = "unset";
        uint16_t u16 = 77;
        uint32_t u32 = 77;
        uint64_t u64 = 77;
        if (length < 1)
            assert_int_equal(cursor_u8(&u8, &cursor, &fault), TRUNCATED);
        if (length < 2)
            assert_int_equal(cursor_u16(&u16, &cursor, &fault), TRUNCATED);
        if (length < 4)
            assert_int_equal(cursor_u32(&u32, &cursor, &fault), TRUNCATED);
        assert_int_equal(cursor_u64(&u64, &cursor, &fault), TRUNCATED);
        assert_int_equal(cursor_bytes(&span, &cursor, length + 1, &fault), TRUNCATED);
        assert_int_equal(cursor_bytes(&span, &cursor, SIZE_MAX, &fault), TRUNCATED);
        assert_int_equal(cursor_copy(copy, &cursor, 8, &fault), TRUNCATED);
        assert_true(u8 == 77 && u16 == 77 && u32 == 77 && u64 == 77);
        assert_true(span_is(span, "unset"));
        assert_string_equal((char *)copy, "unset");
        assert_int_equal(cursor_left(&cursor), length);
    }
}

static void nothing_is_read_from_no_bytes(void **state)
{
    (void)state;
    struct cursor cursor = cursor_over((struct span){0});
    struct fault fault;
    struct span none = SPAN("unset");
    uint8_t byte;
    assert_int_equal(cursor_left(&cursor), 0);
    assert_int_equal(cursor_end(&cursor, &fault), OK);
    assert_int_equal(cursor_bytes(&none, &cursor, 0, &fault), OK);
    assert_int_equal(none.length, 0);
    assert_int_equal(cursor_copy(&byte, &cursor, 0, &fault), OK);
    assert_int_equal(cursor_u8(&byte, &cursor, &fault), TRUNCATED);
}

static void a_field_is_its_bytes_and_every_truncation_is_refused(void **state)
{
    (void)state;
    struct span whole = SPAN("\0\0\0\3abc");
    struct fault fault;
    for (size_t length = 0; length <= whole.length; length++) {
        struct cursor cursor = cursor_over((struct span){whole.data, length});
        struct span field = {0};
        status read = cursor_field(&field, &cursor, 3, "name", &fault);
        if (length < whole.length) {
            assert_int_equal(read, TRUNCATED);
            assert_int_equal(cursor_left(&cursor), length);
            assert_null(field.data);
        } else {
            assert_int_equal(read, OK);
            assert_true(span_is(field, "abc"));
        }
    }
}

static void a_field_over_its_limit_is_refused_by_name_and_the_cursor_stays(void **state)
{
    (void)state;
    struct cursor cursor = cursor_over(SPAN("\xFF\xFF\xFF\xFF" "abc"));
    struct span field = {0};
    struct fault fault = {0};
    assert_int_equal(cursor_field(&field, &cursor, UINT32_MAX, "name", &fault), TRUNCATED);
    assert_int_equal(cursor_field(&field, &cursor, UINT32_MAX - 1, "name", &fault), TOO_LARGE);
    assert_non_null(strstr(fault.detail, "name"));
    assert_int_equal(cursor_left(&cursor), 7);
}

static void text_is_bounded_and_without_nul(void **state)
{
    (void)state;
    struct fault fault;
    char text[4] = "old";
    struct cursor cursor = cursor_over(SPAN("\0\0\0\3abc\0\0\0\0\0\0\0\4abcd"));
    assert_int_equal(cursor_text(text, sizeof text, &cursor, "t", &fault), OK);
    assert_string_equal(text, "abc");
    assert_int_equal(cursor_text(text, sizeof text, &cursor, "t", &fault), OK);
    assert_string_equal(text, "");
    assert_int_equal(cursor_text(text, sizeof text, &cursor, "t", &fault), TOO_LARGE);
    assert_int_equal(cursor_left(&cursor), 8);
    cursor = cursor_over(SPAN("\0\0\0\3a\0b"));
    assert_int_equal(cursor_text(text, sizeof text, &cursor, "t", &fault), BAD_FIELD);
    assert_int_equal(cursor_left(&cursor), 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(integers_are_read_big_endian_one_after_the_other),
        cmocka_unit_test(a_read_past_the_end_fails_and_changes_nothing),
        cmocka_unit_test(nothing_is_read_from_no_bytes),
        cmocka_unit_test(a_field_is_its_bytes_and_every_truncation_is_refused),
        cmocka_unit_test(a_field_over_its_limit_is_refused_by_name_and_the_cursor_stays),
        cmocka_unit_test(text_is_bounded_and_without_nul),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
