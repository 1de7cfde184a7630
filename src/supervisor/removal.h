/* removal.h: directories of others, and all beneath them, counted and removed. Links are not
 * followed; nothing is read. */
#pragma once

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

struct removal {
    uint64_t files, bytes; /* added to */
};

/* name: in parent; it may be absent. TOO_LARGE: nested deeper than any of ours. */
MUST_CHECK status removal_count(struct removal *count, int parent, const char *name,
                                struct fault *fault);
MUST_CHECK status removal_all(int parent, const char *name, struct fault *fault);
/* Some of what is in that directory: at most some files, and of a large file so many bytes at its
 * end. */
MUST_CHECK status removal_step(bool *ret_more, int directory, struct fault *fault);
