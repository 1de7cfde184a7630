#include "base/cursor.h"

#include <string.h>

struct cursor cursor_over(struct span bytes)
{
    static const uint8_t nothing; /* no bytes may come with NULL: no arithmetic on it */
    const uint8_t *data = bytes.length ? bytes.data : &nothing;
    return (struct cursor){.next = data, .end = data + bytes.length};
}

size_t cursor_left(const struct cursor *cursor)
{
    return (size_t)(cursor->end - cursor->next);
}

status cursor_bytes(struct span *ret, struct cursor *cursor, size_t length, struct fault *fault)
{
    if (length > cursor_left(cursor))
        return FAIL(TRUNCATED, fault, "%zu bytes announced, %zu left", length, cursor_left(cursor));
    *ret = (struct span){.data = cursor->next, .length = length};
    cursor->next += length;
    return OK;
}

status cursor_copy(uint8_t *ret, struct cursor *cursor, size_t length, struct fault *fault)
{
    struct span bytes;
    TRY(cursor_bytes(&bytes, cursor, length, fault));
    memcpy(ret, bytes.data, length);
    return OK;
}

static status big_endian(uint64_t *ret, struct cursor *cursor, size_t length, struct fault *fault)
{
    struct span bytes;
    TRY(cursor_bytes(&bytes, cursor, length, fault));
    uint64_t value = 0;
    for (size_t i = 0; i < length; i++)
        value = value << 8 | bytes.data[i];
    *ret = value;
    return OK;
}

status cursor_u8(uint8_t *ret, struct cursor *cursor, struct fault *fault)
{
    uint64_t value;
    TRY(big_endian(&value, cursor, 1, fault));
    *ret = (uint8_t)value;
    return OK;
}

status cursor_u16(uint16_t *ret, struct cursor *cursor, struct fault *fault)
{
    uint64_t value;
    TRY(big_endian(&value, cursor, 2, fault));
    *ret = (uint16_t)value;
    return OK;
}

status cursor_u32(uint32_t *ret, struct cursor *cursor, struct fault *fault)
{
    uint64_t value;
    TRY(big_endian(&value, cursor, 4, fault));
    *ret = (uint32_t)value;
    return OK;
}

status cursor_u64(uint64_t *ret, struct cursor *cursor, struct fault *fault)
{
    return big_endian(ret, cursor, 8, fault);
}

status cursor_field(struct span *ret, struct cursor *cursor, uint32_t max, const char *name,
                    struct fault *fault)
{
    struct cursor ahead = *cursor; /* a field refused half way leaves the caller where it was */
    uint32_t length;
    TRY(cursor_u32(&length, &ahead, fault));
    if (length > max)
        return FAIL(TOO_LARGE, fault, "%s: %u bytes, at most %u are allowed", name, length, max);
    TRY(cursor_bytes(ret, &ahead, length, fault));
    *cursor = ahead;
    return OK;
}

status cursor_text(char *ret, size_t size, struct cursor *cursor, const char *name,
                   struct fault *fault)
{
    struct cursor ahead = *cursor;
    struct span bytes;
    TRY(cursor_field(&bytes, &ahead, (uint32_t)size - 1, name, fault));
    if (bytes.length && memchr(bytes.data, 0, bytes.length))
        return FAIL(BAD_FIELD, fault, "%s: holds a NUL byte", name);
    if (!span_to_text(ret, size, bytes))
        return FAIL(BAD_FIELD, fault, "%s: is not text", name);
    *cursor = ahead;
    return OK;
}

status cursor_end(const struct cursor *cursor, struct fault *fault)
{
    if (cursor_left(cursor))
        return FAIL(BAD_REQUEST, fault, "%zu bytes too many", cursor_left(cursor));
    return OK;
}
