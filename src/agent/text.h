/* text.h: small files of the kernel, and passwd and group of a guest that may lie. */
#pragma once

#include "base/buffer.h"

/* The number behind the first occurrence of name at the beginning of a line ("": the first line);
 * blanks between are skipped. False when there is none. */
bool text_file_number(uint64_t *ret, int directory, const char *path, const char *name);

/* A regular file of at most out's maximum. */
MUST_CHECK status text_file_read(struct buffer *out, int directory, const char *path,
                                 struct fault *fault);

bool text_number(uint64_t *ret, struct span digits); /* nothing but digits, no overflow */
/* Cuts the next part off; false at the end. */
bool text_next(struct span *ret, struct span *rest, uint8_t separator);
