#define _GNU_SOURCE
#include "base/buffer.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct buffer buffer_of(size_t max)
{
    return (struct buffer){.max = max};
}

struct buffer buffer_over(uint8_t *storage, size_t size)
{
    return (struct buffer){.data = storage, .capacity = size, .max = size, .fixed = true};
}

void buffer_free(struct buffer *buffer)
{
    if (!buffer->fixed)
        free(buffer->data);
    *buffer = (struct buffer){0};
}

void buffer_clear(struct buffer *buffer)
{
    buffer->length = 0;
    buffer->failed = false;
}

struct span buffer_span(const struct buffer *buffer)
{
    return (struct span){buffer->data, buffer->length};
}

status buffer_check(const struct buffer *buffer, const char *what, struct fault *fault)
{
    if (buffer->failed)
        return FAIL(TOO_LARGE, fault, "%s: more than %zu bytes", what, buffer->max);
    return OK;
}

static bool grow(struct buffer *buffer, size_t needed)
{
    size_t capacity = buffer->capacity ? buffer->capacity : 256;
    while (capacity < needed)
        capacity *= 2;
    if (capacity > buffer->max)
        capacity = buffer->max;
    uint8_t *data = realloc(buffer->data, capacity);
    if (!data)
        return false;
    buffer->data = data;
    buffer->capacity = capacity;
    return true;
}

uint8_t *buffer_reserve(struct buffer *buffer, size_t length)
{
    bool fits = !buffer->failed && buffer->length <= buffer->max
             && length <= buffer->max - buffer->length;
    if (fits && buffer->length + length > buffer->capacity)
        fits = !buffer->fixed && grow(buffer, buffer->length + length);
    if (!fits) {
        buffer->failed = true;
        return NULL;
    }
    return buffer->data + buffer->length;
}

void buffer_advance(struct buffer *buffer, size_t length)
{
    assert(length <= buffer->capacity - buffer->length);
    buffer->length += length;
}

void buffer_consume(struct buffer *buffer, size_t length)
{
    assert(length <= buffer->length);
    buffer->length -= length;
    if (length && buffer->length)
        memmove(buffer->data, buffer->data + length, buffer->length);
}

void buffer_put(struct buffer *buffer, struct span bytes)
{
    if (bytes.length == 0)
        return;
    uint8_t *room = buffer_reserve(buffer, bytes.length);
    if (!room)
        return;
    memcpy(room, bytes.data, bytes.length);
    buffer->length += bytes.length;
}

void buffer_put_text(struct buffer *buffer, const char *text)
{
    buffer_put(buffer, span_of_text(text));
}

/* Long text is printed apart: vsnprintf needs room for a NUL, which the buffer may not have. */
__attribute__((format(printf, 2, 0)))
static void put_long_print(struct buffer *buffer, const char *format, va_list arguments)
{
    char *text = NULL;
    int length = vasprintf(&text, format, arguments);
    if (length < 0) {
        buffer->failed = true;
        return;
    }
    buffer_put(buffer, (struct span){(const uint8_t *)text, (size_t)length});
    free(text);
}

void buffer_printf(struct buffer *buffer, const char *format, ...)
{
    char text[256];
    va_list arguments, again;
    va_start(arguments, format);
    va_copy(again, arguments);
    int length = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (length < 0)
        buffer->failed = true;
    else if ((size_t)length < sizeof text)
        buffer_put(buffer, (struct span){(const uint8_t *)text, (size_t)length});
    else
        put_long_print(buffer, format, again);
    va_end(again);
}

static void put_big_endian(struct buffer *buffer, uint64_t value, size_t length)
{
    uint8_t bytes[8];
    for (size_t i = 0; i < length; i++)
        bytes[i] = (uint8_t)(value >> 8 * (length - 1 - i));
    buffer_put(buffer, (struct span){bytes, length});
}

void buffer_put_u8(struct buffer *buffer, uint8_t value)
{
    put_big_endian(buffer, value, 1);
}

void buffer_put_u16(struct buffer *buffer, uint16_t value)
{
    put_big_endian(buffer, value, 2);
}

void buffer_put_u32(struct buffer *buffer, uint32_t value)
{
    put_big_endian(buffer, value, 4);
}

void buffer_put_u64(struct buffer *buffer, uint64_t value)
{
    put_big_endian(buffer, value, 8);
}

void buffer_put_field(struct buffer *buffer, struct span bytes)
{
    if (bytes.length > UINT32_MAX) {
        buffer->failed = true;
        return;
    }
    buffer_put_u32(buffer, (uint32_t)bytes.length);
    buffer_put(buffer, bytes);
}

void buffer_put_text_field(struct buffer *buffer, const char *text)
{
    buffer_put_field(buffer, span_of_text(text));
}
