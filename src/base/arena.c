#include "base/arena.h"

#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 16, BLOCK_BYTES = 16 * 1024 };

struct arena_block {
    struct arena_block *older;
    size_t capacity, used;
    _Alignas(ALIGNMENT) uint8_t bytes[];
};

struct arena arena_of(size_t max)
{
    return (struct arena){.max = max};
}

void arena_free(struct arena *arena)
{
    arena_reset(arena);
    free(arena->blocks);
    arena->blocks = NULL;
}

void arena_reset(struct arena *arena)
{
    struct arena_block *block = arena->blocks;
    while (block) {
        struct arena_block *older = block->older;
        explicit_bzero(block->bytes, block->used); /* a request's content does not outlive it */
        if (older) {
            free(block);
        } else {
            block->used = 0;
            arena->blocks = block;
        }
        block = older;
    }
    arena->used = 0;
}

static struct arena_block *block_of(size_t size, struct arena_block *older)
{
    size_t capacity = size > BLOCK_BYTES ? size : BLOCK_BYTES;
    struct arena_block *block = malloc(sizeof *block + capacity);
    if (block) {
        block->older = older;
        block->capacity = capacity;
        block->used = 0;
    }
    return block;
}

void *arena_alloc(struct arena *arena, size_t size)
{
    if (size > arena->max)
        return NULL;
    size = (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    if (size == 0)
        size = ALIGNMENT;
    if (size > arena->max - arena->used)
        return NULL;
    struct arena_block *block = arena->blocks;
    if (!block || block->capacity - block->used < size) {
        block = block_of(size, arena->blocks);
        if (!block)
            return NULL;
        arena->blocks = block;
    }
    void *taken = block->bytes + block->used;
    block->used += size;
    arena->used += size;
    memset(taken, 0, size);
    return taken;
}

void *arena_array(struct arena *arena, size_t count, size_t size)
{
    size_t total;
    return __builtin_mul_overflow(count, size, &total) ? NULL : arena_alloc(arena, total);
}

struct span arena_copy(struct arena *arena, struct span bytes)
{
    uint8_t *copy = bytes.length < SIZE_MAX ? arena_alloc(arena, bytes.length + 1) : NULL;
    if (!copy)
        return (struct span){0};
    if (bytes.length)
        memcpy(copy, bytes.data, bytes.length);
    return (struct span){copy, bytes.length};
}
