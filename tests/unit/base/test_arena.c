#include "base/arena.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static bool is_zero(const uint8_t *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (bytes[i])
            return false;
    return true;
}

static void memory_is_zeroed_aligned_and_apart(void **state)
{
    (void)state;
    struct arena arena = arena_of(1 << 20);
    uint8_t *taken[200];
    for (size_t i = 0; i < 200; i++) {
        size_t size = i * 7 % 600;
        taken[i] = arena_alloc(&arena, size);
        assert_non_null(taken[i]);
        assert_int_equal((uintptr_t)taken[i] % _Alignof(max_align_t), 0);
        assert_true(is_zero(taken[i], size));
        memset(taken[i], (int)i, size);
    }
    for (size_t i = 0; i < 200; i++)
        for (size_t at = 0; at < i * 7 % 600; at++)
            assert_int_equal(taken[i][at], (uint8_t)i);
    arena_free(&arena);
}

static void the_maximum_holds_and_what_was_given_stays(void **state)
{
    (void)state;
    struct arena arena = arena_of(64);
    uint8_t *first = arena_alloc(&arena, 48);
    assert_non_null(first);
    assert_null(arena_alloc(&arena, 17));
    assert_null(arena_alloc(&arena, 65));
    assert_null(arena_alloc(&arena, SIZE_MAX));
    assert_null(arena_alloc(&arena, SIZE_MAX - 8)); /* would wrap when aligned */
    assert_null(arena_array(&arena, SIZE_MAX / 2, 3));
    assert_null(arena_array(&arena, SIZE_MAX, SIZE_MAX));
    assert_non_null(arena_alloc(&arena, 16));
    assert_null(arena_alloc(&arena, 1));
    assert_null(arena_alloc(&arena, 0)); /* even nothing takes a place of its own */
    arena_reset(&arena);
    assert_non_null(arena_array(&arena, 4, 16));
    arena_free(&arena);
    struct arena none = {0};
    assert_null(arena_alloc(&none, 1));
    arena_free(&none);
}

static void a_reset_wipes_and_gives_the_same_memory_again(void **state)
{
    (void)state;
    struct arena arena = arena_of(1 << 20);
    uint8_t *first = arena_alloc(&arena, 1000);
    assert_non_null(first);
    memset(first, 0xAA, 1000);
    assert_non_null(arena_alloc(&arena, 100000)); /* a second block, which goes */
    arena_reset(&arena);
    assert_int_equal(arena.used, 0);
    assert_true(is_zero(first, 1000)); /* the kept block, wiped */
    assert_ptr_equal(arena_alloc(&arena, 1000), first);
    arena_reset(&arena);
    arena_reset(&arena);
    arena_free(&arena);
    arena_free(&arena);
}

static void a_copy_has_a_nul_behind_it_and_needs_the_room(void **state)
{
    (void)state;
    struct arena arena = arena_of(64);
    struct span copy = arena_copy(&arena, SPAN("0123456789abcde"));
    assert_true(span_is(copy, "0123456789abcde"));
    assert_int_equal(copy.data[copy.length], 0);
    struct span nothing = arena_copy(&arena, (struct span){0});
    assert_non_null(nothing.data);
    assert_int_equal(nothing.length, 0);
    assert_int_equal(nothing.data[0], 0);
    static const uint8_t long_bytes[64];
    assert_null(arena_copy(&arena, SPAN_OF(long_bytes)).data);
    arena_free(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_zeroed_aligned_and_apart),
        cmocka_unit_test(the_maximum_holds_and_what_was_given_stays),
        cmocka_unit_test(a_reset_wipes_and_gives_the_same_memory_again),
        cmocka_unit_test(a_copy_has_a_nul_behind_it_and_needs_the_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
