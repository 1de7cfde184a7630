/* file.h: whole files and whole writes. */
#pragma once

#include "base/buffer.h"

/* All of it, or INTERNAL (OUT_OF_SPACE when the disk is full); the fault begins with what. */
MUST_CHECK status file_write(int fd, struct span bytes, const char *what, struct fault *fault);

/* Appends everything, from the beginning where fd can be rewound. TOO_LARGE past the buffer's
 * maximum. */
MUST_CHECK status file_read(struct buffer *out, int fd, const char *what, struct fault *fault);
