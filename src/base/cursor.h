/* cursor.h: reads untrusted bytes, front to back, and cannot read past their end.
 *
 * Every parser of binary data reads through a cursor; none touches the bytes itself. A cursor
 * borrows its bytes: they must outlive it and whatever it hands out. */
#pragma once

#include "base/span.h"
#include "base/status.h"

struct cursor {
    const uint8_t *next, *end;
};

struct cursor cursor_over(struct span bytes);
size_t cursor_left(const struct cursor *cursor);

/* Big-endian integers, as on the wire. TRUNCATED when too few bytes are left; the cursor then
 * stays. */
MUST_CHECK status cursor_u8(uint8_t *ret, struct cursor *cursor, struct fault *fault);
MUST_CHECK status cursor_u16(uint16_t *ret, struct cursor *cursor, struct fault *fault);
MUST_CHECK status cursor_u32(uint32_t *ret, struct cursor *cursor, struct fault *fault);
MUST_CHECK status cursor_u64(uint64_t *ret, struct cursor *cursor, struct fault *fault);

/* The next length bytes, borrowed. */
MUST_CHECK status cursor_bytes(struct span *ret, struct cursor *cursor, size_t length,
                               struct fault *fault);

/* The next length bytes, copied into a fixed array of exactly that length. */
MUST_CHECK status cursor_copy(uint8_t *ret, struct cursor *cursor, size_t length,
                              struct fault *fault);

/* A u32 length, at most max, then that many bytes: the form of every variable field in our
 * frames. */
MUST_CHECK status cursor_field(struct span *ret, struct cursor *cursor, uint32_t max,
                               const char *name, struct fault *fault);

/* The same field as text in a fixed array (size includes the NUL); a NUL inside is BAD_FIELD. */
MUST_CHECK status cursor_text(char *ret, size_t size, struct cursor *cursor, const char *name,
                              struct fault *fault);

/* BAD_REQUEST unless everything has been read. */
MUST_CHECK status cursor_end(const struct cursor *cursor, struct fault *fault);
