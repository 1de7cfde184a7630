/* arena.h: memory of one request, given back in one call.
 *
 * Bounded: an arena never holds more than its maximum; allocation past it (or out of memory)
 * returns NULL. Blocks are kept between requests so that a steady state does not allocate. */
#pragma once

#include "base/span.h"

struct arena_block;

struct arena {
    struct arena_block *blocks; /* newest first */
    size_t used, max;           /* bytes handed out since the last reset, padding included */
};

struct arena arena_of(size_t max);
void arena_free(struct arena *arena);  /* all of it; also when zeroed */
void arena_reset(struct arena *arena); /* wipes what was handed out and keeps one block */

/* Zeroed, aligned for any type; NULL when the maximum forbids it. */
void *arena_alloc(struct arena *arena, size_t size);
void *arena_array(struct arena *arena, size_t count, size_t size);

/* A copy with a closing NUL behind it (not counted in the length). data is NULL on failure. */
struct span arena_copy(struct arena *arena, struct span bytes);
