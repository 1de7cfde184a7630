/* span.h: borrowed bytes with their length, the one way bytes are handed about. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct span {
    const uint8_t *data;
    size_t length;
};

#define SPAN(literal) ((struct span){(const uint8_t *)(literal), sizeof(literal) - 1})
#define SPAN_OF(array) ((struct span){(const uint8_t *)(array), sizeof(array)})

/* For printf: "%.*s", SPAN_ARG(span). Only for bytes known to be text. */
#define SPAN_ARG(span) (int)(span).length, (const char *)(span).data

struct span span_of_text(const char *text); /* without the closing NUL; NULL gives the empty span */

/* Not constant-time: never for secrets (secret.h has secret_equal). */
bool span_equal(struct span left, struct span right);
bool span_is(struct span bytes, const char *text);
bool span_starts_with(struct span bytes, struct span prefix);

/* Order of memcmp, the shorter first where one is the prefix of the other. */
int span_compare(struct span left, struct span right);

/* The index of the first such byte, or the length when there is none. */
size_t span_find(struct span bytes, uint8_t byte);

/* Whether a byte is less than bound, which is at most 128. Eight at a time. */
bool span_has_below(struct span bytes, uint8_t bound);

/* Copies with a closing NUL into a fixed array; false (and "" inside) when it does not fit or holds
 * a NUL. */
bool span_to_text(char *text, size_t size, struct span bytes);

/* Well-formed UTF-8 by RFC 3629 (no surrogates, no overlong forms). */
bool span_is_utf8(struct span bytes);

/* The same, and without control characters (Unicode's Cc: C0, DEL, C1). */
bool span_is_plain_text(struct span bytes);

/* The length of the well-formed UTF-8 sequence at the front, 1 to 4; 0 when there is none. */
size_t span_utf8_sequence(struct span bytes);
