#include "base/siphash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static const uint8_t key[SIPHASH_KEY_BYTES] = {0, 1, 2,  3,  4,  5,  6,  7,
                                               8, 9, 10, 11, 12, 13, 14, 15};

/* From the reference implementation: the bytes 0, 1, 2, ... of that length. */
static void the_vectors_of_its_authors_hold(void **state)
{
    (void)state;
    static const struct {
        size_t length;
        uint64_t hash;
    } vectors[] = {
        {0, 0x726fdb47dd0e0e31}, {1, 0x74f839c593dc67fd}, {7, 0xab0200f58b01d137},
        {8, 0x93f5f5799a932462}, {15, 0xa129ca6149be45e5}, {16, 0x3f2acc7f57c29bdb},
        {63, 0x958a324ceb064572},
    };
    uint8_t bytes[64];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)i;
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++)
        assert_true(siphash(key, (struct span){bytes, vectors[i].length}) == vectors[i].hash);
    assert_true(siphash(key, (struct span){0}) == vectors[0].hash);
}

static void the_key_and_every_byte_count(void **state)
{
    (void)state;
    uint8_t other[SIPHASH_KEY_BYTES], bytes[20] = {0};
    uint64_t before = siphash(key, SPAN_OF(bytes));
    for (size_t i = 0; i < sizeof other; i++) {
        memcpy(other, key, sizeof other);
        other[i] ^= 0x80;
        assert_true(siphash(other, SPAN_OF(bytes)) != before);
    }
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = 1;
        assert_true(siphash(key, SPAN_OF(bytes)) != before);
        bytes[i] = 0;
    }
    assert_true(siphash(key, (struct span){bytes, sizeof bytes - 1}) != before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_vectors_of_its_authors_hold),
        cmocka_unit_test(the_key_and_every_byte_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
