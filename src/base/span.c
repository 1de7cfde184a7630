#include "base/span.h"

#include <assert.h>
#include <string.h>

struct span span_of_text(const char *text)
{
    return (struct span){(const uint8_t *)text, text ? strlen(text) : 0};
}

bool span_equal(struct span left, struct span right)
{
    return left.length == right.length
        && (left.length == 0 || memcmp(left.data, right.data, left.length) == 0);
}

bool span_is(struct span bytes, const char *text)
{
    return span_equal(bytes, span_of_text(text));
}

bool span_starts_with(struct span bytes, struct span prefix)
{
    return bytes.length >= prefix.length
        && span_equal((struct span){bytes.data, prefix.length}, prefix);
}

int span_compare(struct span left, struct span right)
{
    size_t shorter = left.length < right.length ? left.length : right.length;
    int order = shorter ? memcmp(left.data, right.data, shorter) : 0;
    return order ? order : (left.length > right.length) - (left.length < right.length);
}

size_t span_find(struct span bytes, uint8_t byte)
{
    const uint8_t *at = bytes.length ? memchr(bytes.data, byte, bytes.length) : NULL;
    return at ? (size_t)(at - bytes.data) : bytes.length;
}

bool span_has_below(struct span bytes, uint8_t bound)
{
    const uint64_t ones = 0x0101010101010101, tops = 0x8080808080808080;
    size_t at = 0;
    assert(bound <= 128);
    for (uint64_t word; at + sizeof word <= bytes.length; at += sizeof word) {
        memcpy(&word, bytes.data + at, sizeof word);
        if ((word - ones * bound) & ~word & tops) /* a byte without its top bit that borrows */
            return true;
    }
    for (; at < bytes.length; at++)
        if (bytes.data[at] < bound)
            return true;
    return false;
}

bool span_to_text(char *text, size_t size, struct span bytes)
{
    text[0] = '\0';
    if (bytes.length >= size || (bytes.length && memchr(bytes.data, 0, bytes.length)))
        return false;
    if (bytes.length)
        memcpy(text, bytes.data, bytes.length);
    text[bytes.length] = '\0';
    return true;
}

/* Ranges: Unicode 15, table 3-7. */
size_t span_utf8_sequence(struct span bytes)
{
    if (bytes.length == 0)
        return 0;
    const uint8_t *at = bytes.data;
    uint8_t lead = at[0], low = 0x80, high = 0xBF;
    size_t length;
    if (lead < 0x80)
        return 1;
    if (lead >= 0xC2 && lead <= 0xDF) {
        length = 2;
    } else if (lead >= 0xE0 && lead <= 0xEF) {
        length = 3;
        low = lead == 0xE0 ? 0xA0 : 0x80;
        high = lead == 0xED ? 0x9F : 0xBF;
    } else if (lead >= 0xF0 && lead <= 0xF4) {
        length = 4;
        low = lead == 0xF0 ? 0x90 : 0x80;
        high = lead == 0xF4 ? 0x8F : 0xBF;
    } else {
        return 0;
    }
    if (bytes.length < length || at[1] < low || at[1] > high)
        return 0;
    for (size_t i = 2; i < length; i++)
        if ((at[i] & 0xC0) != 0x80)
            return 0;
    return length;
}

/* How many bytes at the front are ASCII, counted in whole words. */
static size_t ascii_words(const uint8_t *bytes, size_t length)
{
    size_t at = 0;
    for (uint64_t word; at + sizeof word <= length; at += sizeof word) {
        memcpy(&word, bytes + at, sizeof word);
        if (word & 0x8080808080808080)
            break;
    }
    return at;
}

bool span_is_utf8(struct span bytes)
{
    size_t at = 0;
    while (at < bytes.length) {
        at += ascii_words(bytes.data + at, bytes.length - at);
        if (at == bytes.length)
            break;
        size_t length = span_utf8_sequence((struct span){bytes.data + at, bytes.length - at});
        if (length == 0)
            return false;
        at += length;
    }
    return true;
}

bool span_is_plain_text(struct span bytes)
{
    for (size_t i = 0; i < bytes.length; i++) {
        uint8_t byte = bytes.data[i];
        bool c1 = byte == 0xC2 && i + 1 < bytes.length && bytes.data[i + 1] < 0xA0;
        if (byte < 0x20 || byte == 0x7F || c1)
            return false;
    }
    return span_is_utf8(bytes);
}
