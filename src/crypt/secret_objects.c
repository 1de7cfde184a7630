#include "base/secret.h"
#include "crypt/openssl.h"

#include <assert.h>
#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>

enum { UNIT = 128, UNITS = 512 }; /* 64 KiB: some thirty prepared keys at once */

struct block {
    uint8_t units[UNITS][UNIT];
};

/* The lengths stand apart from the secrets: a stray write into a key cannot move an allocation. */
static struct block *block;
static uint16_t runs[UNITS]; /* at a run's first unit: its length; at the others: INSIDE; 0: free */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static _Thread_local bool placing;
static bool wiping_all;

static const uint16_t INSIDE = UINT16_MAX;

/* There in sanitized programs only. What the block alone points to is not lost. */
void __lsan_register_root_region(const void *start, size_t size) __attribute__((weak));

static bool is_secret_object(const void *object)
{
    uintptr_t at = (uintptr_t)object, start = (uintptr_t)block;
    return block && at >= start && at < start + sizeof *block;
}

static size_t unit_of(const void *object)
{
    size_t offset = (size_t)((const uint8_t *)object - block->units[0]);
    assert(offset % UNIT == 0 && runs[offset / UNIT] != 0 && runs[offset / UNIT] != INSIDE);
    return offset / UNIT;
}

/* First fit; UNITS when there is none. */
static size_t find_free(size_t count)
{
    size_t free_units = 0;
    for (size_t i = 0; i < UNITS; i++) {
        free_units = runs[i] ? 0 : free_units + 1;
        if (free_units == count)
            return i + 1 - count;
    }
    return UNITS;
}

void *secret_object_take(size_t size)
{
    if (!block)
        return calloc(1, size ? size : 1);
    size_t count = size / UNIT + (size % UNIT || !size);
    if (count > UNITS)
        return NULL;
    pthread_mutex_lock(&lock);
    size_t first = find_free(count);
    for (size_t i = 0; first < UNITS && i < count; i++)
        runs[first + i] = i ? INSIDE : (uint16_t)count;
    pthread_mutex_unlock(&lock);
    return first < UNITS ? block->units[first] : NULL;
}

static void give_to_heap(void *object)
{
    if (object && wiping_all)
        secret_wipe(object, malloc_usable_size(object));
    free(object);
}

void secret_object_give(void *object)
{
    if (!is_secret_object(object)) {
        give_to_heap(object);
        return;
    }
    pthread_mutex_lock(&lock);
    size_t first = unit_of(object), count = runs[first];
    secret_wipe(block->units[first], count * UNIT);
    for (size_t i = 0; i < count; i++)
        runs[first + i] = 0;
    pthread_mutex_unlock(&lock);
}

size_t secret_objects_bytes(void)
{
    size_t used = 0;
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < UNITS; i++)
        used += runs[i] ? UNIT : 0;
    pthread_mutex_unlock(&lock);
    return used;
}

static void *hook_malloc(size_t size, const char *file, int line)
{
    (void)file, (void)line;
    if (size == 0)
        return NULL; /* as OpenSSL's own does */
    return placing && block ? secret_object_take(size) : malloc(size);
}

static void hook_free(void *object, const char *file, int line)
{
    (void)file, (void)line;
    secret_object_give(object);
}

static void *hook_realloc(void *object, size_t size, const char *file, int line)
{
    if (!object)
        return hook_malloc(size, file, line);
    if (size == 0) {
        secret_object_give(object);
        return NULL;
    }
    bool secret = is_secret_object(object);
    if (!secret && !wiping_all)
        return realloc(object, size);
    size_t held = secret ? (size_t)runs[unit_of(object)] * UNIT : malloc_usable_size(object);
    uint8_t *moved = secret ? secret_object_take(size) : malloc(size);
    if (!moved)
        return NULL;
    for (size_t i = 0; i < size && i < held; i++)
        moved[i] = ((const uint8_t *)object)[i];
    secret_object_give(object);
    return moved;
}

void secret_objects_wipe_all(void)
{
    wiping_all = true;
}

status secret_objects_hook(struct fault *fault)
{
    if (CRYPTO_set_mem_functions(hook_malloc, hook_realloc, hook_free) != 1)
        return FAIL(INTERNAL, fault, "crypt_start must come before any other use of OpenSSL");
    return OK;
}

status secret_objects_start(struct fault *fault)
{
    static_assert(UNITS < UINT16_MAX, "a run's length is never taken for INSIDE");
    struct block *fresh = secret_alloc(sizeof *fresh);
    if (!fresh)
        return FAIL(INTERNAL, fault, "no secret memory: raise RLIMIT_MEMLOCK to 128 KiB or more");
    if (__lsan_register_root_region)
        __lsan_register_root_region(fresh, sizeof *fresh);
    block = fresh;
    return OK;
}

void secret_objects_begin(void)
{
    assert(!placing);
    placing = true;
}

void secret_objects_end(void)
{
    assert(placing);
    placing = false;
}
