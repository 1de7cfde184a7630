#include "base/siphash.h"

struct lanes {
    uint64_t a, b, c, d;
};

static uint64_t rotate(uint64_t value, unsigned bits)
{
    return value << bits | value >> (64 - bits);
}

static uint64_t little_endian(const uint8_t *bytes, size_t length)
{
    uint64_t value = 0;
    for (size_t i = 0; i < length; i++)
        value |= (uint64_t)bytes[i] << 8 * i;
    return value;
}

static void mix(struct lanes *lanes, int rounds)
{
    for (int i = 0; i < rounds; i++) {
        lanes->a += lanes->b;
        lanes->c += lanes->d;
        lanes->b = rotate(lanes->b, 13) ^ lanes->a;
        lanes->d = rotate(lanes->d, 16) ^ lanes->c;
        lanes->a = rotate(lanes->a, 32) + lanes->d;
        lanes->c += lanes->b;
        lanes->b = rotate(lanes->b, 17) ^ lanes->c;
        lanes->d = rotate(lanes->d, 21) ^ lanes->a;
        lanes->c = rotate(lanes->c, 32);
    }
}

static void absorb(struct lanes *lanes, uint64_t word)
{
    lanes->d ^= word;
    mix(lanes, 2);
    lanes->a ^= word;
}

uint64_t siphash(const uint8_t key[SIPHASH_KEY_BYTES], struct span bytes)
{
    uint64_t low = little_endian(key, 8), high = little_endian(key + 8, 8);
    struct lanes lanes = {
        low ^ 0x736f6d6570736575, high ^ 0x646f72616e646f6d,
        low ^ 0x6c7967656e657261, high ^ 0x7465646279746573,
    };
    size_t whole = bytes.length / 8 * 8;
    for (size_t at = 0; at < whole; at += 8)
        absorb(&lanes, little_endian(bytes.data + at, 8));
    uint64_t last = (uint64_t)bytes.length << 56;
    if (bytes.length > whole)
        last |= little_endian(bytes.data + whole, bytes.length - whole);
    absorb(&lanes, last);
    lanes.c ^= 0xFF;
    mix(&lanes, 4);
    return lanes.a ^ lanes.b ^ lanes.c ^ lanes.d;
}
