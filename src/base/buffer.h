/* buffer.h: the one growing byte string, with a maximum that its owner declares.
 *
 * Writing past the maximum (or out of memory) marks the buffer failed and writes nothing more, so
 * a run of puts is checked once, by buffer_check. Fixed storage and heap storage behave alike. */
#pragma once

#include "base/span.h"
#include "base/status.h"

struct buffer {
    uint8_t *data;
    size_t length, capacity, max;
    bool failed, fixed;
};

struct buffer buffer_of(size_t max);                       /* heap, grown by doubling */
struct buffer buffer_over(uint8_t *storage, size_t size);  /* fixed: never allocates */
void buffer_free(struct buffer *buffer);                   /* also when zeroed or fixed */
void buffer_clear(struct buffer *buffer);                  /* keeps storage, forgets failure */

struct span buffer_span(const struct buffer *buffer);
MUST_CHECK status buffer_check(const struct buffer *buffer, const char *what, struct fault *fault);

void buffer_put(struct buffer *buffer, struct span bytes);
void buffer_put_text(struct buffer *buffer, const char *text);
void buffer_printf(struct buffer *buffer, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void buffer_put_u8(struct buffer *buffer, uint8_t value);
void buffer_put_u16(struct buffer *buffer, uint16_t value);
void buffer_put_u32(struct buffer *buffer, uint32_t value);
void buffer_put_u64(struct buffer *buffer, uint64_t value);
void buffer_put_field(struct buffer *buffer, struct span bytes); /* u32 length, then the bytes */
void buffer_put_text_field(struct buffer *buffer, const char *text);

/* Room for length more bytes at the end, to be filled by the caller and then kept with
 * buffer_advance; NULL (and failed) where the maximum forbids it. */
uint8_t *buffer_reserve(struct buffer *buffer, size_t length);
void buffer_advance(struct buffer *buffer, size_t length);

/* Drops bytes from the front: what a socket has taken. */
void buffer_consume(struct buffer *buffer, size_t length);

#define _cleanup_buffer_ __attribute__((cleanup(buffer_free)))
