#include "base/buffer.h"

#include "base/cursor.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void what_is_put_is_read_back_by_a_cursor(void **state)
{
    (void)state;
    struct fault fault;
    struct buffer _cleanup_buffer_ buffer = buffer_of(1000);
    buffer_put_u8(&buffer, 0xFE);
    buffer_put_u16(&buffer, 0xFEDC);
    buffer_put_u32(&buffer, 0xFEDCBA98);
    buffer_put_u64(&buffer, 0xFEDCBA9876543210);
    buffer_put_field(&buffer, SPAN("a\0b"));
    buffer_put_text_field(&buffer, "text");
    buffer_put_text_field(&buffer, NULL);
    assert_int_equal(buffer_check(&buffer, "frame", &fault), OK);
    struct cursor cursor = cursor_over(buffer_span(&buffer));
    uint8_t u8;
    uint16_t u16;
    uint32_t u32;
    uint64_t u64;
    struct span field;
    char text[8];
    assert_int_equal(cursor_u8(&u8, &cursor, &fault), OK);
    assert_int_equal(cursor_u16(&u16, &cursor, &fault), OK);
    assert_int_equal(cursor_u32(&u32, &cursor, &fault), OK);
    assert_int_equal(cursor_u64(&u64, &cursor, &fault), OK);
    assert_true(u8 == 0xFE && u16 == 0xFEDC && u32 == 0xFEDCBA98 && u64 == 0xFEDCBA9876543210);
    assert_int_equal(cursor_field(&field, &cursor, 3, "field", &fault), OK);
    assert_true(span_equal(field, SPAN("a\0b")));
    assert_int_equal(cursor_text(text, sizeof text, &cursor, "text", &fault), OK);
    assert_string_equal(text, "text");
    assert_int_equal(cursor_text(text, sizeof text, &cursor, "text", &fault), OK);
    assert_string_equal(text, "");
    assert_int_equal(cursor_end(&cursor, &fault), OK);
}

static void fill_and_overflow(struct buffer *buffer)
{
    struct fault fault = {0};
    buffer_put_text(buffer, "12345");
    buffer_put_text(buffer, "678");
    assert_int_equal(buffer_check(buffer, "thing", &fault), OK);
    buffer_put(buffer, (struct span){0});
    assert_false(buffer->failed); /* nothing fits into a full one */
    buffer_put_u8(buffer, '9');
    assert_int_equal(buffer_check(buffer, "thing", &fault), TOO_LARGE);
    assert_non_null(strstr(fault.detail, "thing"));
    assert_true(span_is(buffer_span(buffer), "12345678"));
    buffer_consume(buffer, 5);
    buffer_put_u8(buffer, 'x'); /* there would be room, but something is missing before it */
    assert_true(span_is(buffer_span(buffer), "678"));
    buffer_clear(buffer);
    buffer_put_text(buffer, "fresh");
    assert_int_equal(buffer_check(buffer, "thing", &fault), OK);
    assert_true(span_is(buffer_span(buffer), "fresh"));
}

static void heap_and_fixed_storage_refuse_alike_beyond_their_maximum(void **state)
{
    (void)state;
    uint8_t storage[9] = {0};
    struct buffer heap = buffer_of(8), fixed = buffer_over(storage, 8);
    fill_and_overflow(&heap);
    fill_and_overflow(&fixed);
    assert_int_equal(storage[8], 0);
    buffer_free(&heap);
    buffer_free(&fixed);
    assert_null(heap.data);
    assert_null(fixed.data);
    buffer_free(&heap); /* again, zeroed */
}

static void a_heap_buffer_grows_to_exactly_its_maximum(void **state)
{
    (void)state;
    struct buffer _cleanup_buffer_ buffer = buffer_of(1000);
    for (int i = 0; i < 1000; i++)
        buffer_put_u8(&buffer, (uint8_t)i);
    assert_false(buffer.failed);
    assert_int_equal(buffer.length, 1000);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(buffer.data[i], (uint8_t)i);
    buffer_put_u8(&buffer, 0);
    assert_true(buffer.failed);
}

static void a_room_is_kept_only_as_far_as_it_is_advanced(void **state)
{
    (void)state;
    struct buffer _cleanup_buffer_ buffer = buffer_of(16);
    uint8_t *room = buffer_reserve(&buffer, 10);
    assert_non_null(room);
    memcpy(room, "abcdefghij", 10);
    buffer_advance(&buffer, 3);
    assert_true(span_is(buffer_span(&buffer), "abc"));
    assert_null(buffer_reserve(&buffer, 14));
    assert_true(buffer.failed);
    assert_null(buffer_reserve(&buffer, 1));
    buffer_clear(&buffer);
    assert_null(buffer_reserve(&buffer, SIZE_MAX));
    assert_true(buffer.failed);
}

static void consuming_keeps_the_rest_in_order(void **state)
{
    (void)state;
    struct buffer _cleanup_buffer_ buffer = buffer_of(16);
    buffer_put_text(&buffer, "abcdef");
    buffer_consume(&buffer, 0);
    buffer_consume(&buffer, 2);
    buffer_put_text(&buffer, "gh");
    assert_true(span_is(buffer_span(&buffer), "cdefgh"));
    buffer_consume(&buffer, 6);
    assert_int_equal(buffer.length, 0);
}

static void printed_text_is_whole_or_not_there(void **state)
{
    (void)state;
    uint8_t storage[12];
    struct buffer buffer = buffer_over(storage, sizeof storage);
    buffer_printf(&buffer, "%d-%s", 42, "abc");
    assert_true(span_is(buffer_span(&buffer), "42-abc"));
    buffer_printf(&buffer, "%s", "");
    assert_false(buffer.failed);
    buffer_printf(&buffer, "%s", "defghi"); /* to the last byte */
    assert_true(span_is(buffer_span(&buffer), "42-abcdefghi"));
    assert_false(buffer.failed);
    buffer_printf(&buffer, "%c", 'x');
    assert_true(buffer.failed);
    assert_true(span_is(buffer_span(&buffer), "42-abcdefghi"));
    for (int length = 250; length <= 260; length++) {
        struct buffer _cleanup_buffer_ exact = buffer_of((size_t)length), less = buffer_of(249);
        buffer_printf(&exact, "%0*d", length, 7);
        assert_false(exact.failed);
        assert_int_equal(exact.length, length);
        assert_int_equal(exact.data[length - 1], '7');
        buffer_printf(&less, "%0*d", length, 7);
        assert_true(less.failed);
        assert_int_equal(less.length, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_put_is_read_back_by_a_cursor),
        cmocka_unit_test(heap_and_fixed_storage_refuse_alike_beyond_their_maximum),
        cmocka_unit_test(a_heap_buffer_grows_to_exactly_its_maximum),
        cmocka_unit_test(a_room_is_kept_only_as_far_as_it_is_advanced),
        cmocka_unit_test(consuming_keeps_the_rest_in_order),
        cmocka_unit_test(printed_text_is_whole_or_not_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
