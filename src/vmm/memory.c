#define _GNU_SOURCE
#include "vmm/memory.h"

#include "vmm/x86_64/layout.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

/* The mapping begins at a 2 MiB border of ours as it does of the guest's: else neither side could
 * use pages of that size. */
static uint8_t *reserve(uint64_t bytes)
{
    uint64_t wanted = bytes + GUEST_HUGE_PAGE;
    if (wanted < bytes || wanted > SIZE_MAX / 2)
        return NULL;
    uint8_t *base = mmap(NULL, wanted, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED)
        return NULL;
    uint64_t before = (GUEST_HUGE_PAGE - ((uintptr_t)base & (GUEST_HUGE_PAGE - 1)))
                      & (GUEST_HUGE_PAGE - 1);
    if (before)
        munmap(base, before);
    munmap(base + before + bytes, GUEST_HUGE_PAGE - before);
    return base + before;
}

status memory_create(struct guest_memory *ret, uint64_t bytes, bool huge_pages,
                     struct fault *fault)
{
    if (bytes < GUEST_LOADED || bytes % GUEST_PAGE)
        return FAIL(BAD_FIELD, fault, "guest memory: whole pages, 1 MiB at least");
    uint8_t *base = reserve(bytes);
    if (!base)
        return FAIL(OUT_OF_SPACE, fault, "guest memory: mmap: %s", strerror(errno));
    uint64_t low = bytes < GUEST_HOLE ? bytes : GUEST_HOLE;
    if (madvise(base, bytes, MADV_DONTDUMP)
        || (huge_pages && madvise(base, bytes, MADV_HUGEPAGE) && errno != EINVAL)) {
        int reason = errno;
        munmap(base, bytes);
        return FAIL(INTERNAL, fault, "guest memory: madvise: %s", strerror(reason));
    }
    *ret = (struct guest_memory){.count = 1, .huge_pages = huge_pages};
    ret->regions[0] = (struct memory_region){.address = 0, .size = low, .base = base};
    if (bytes > low)
        ret->regions[ret->count++] = (struct memory_region){
            .address = GUEST_HIGH, .size = bytes - low, .base = base + low};
    return OK;
}

void memory_free(struct guest_memory *memory)
{
    for (uint32_t i = 0; i < memory->count; i++)
        munmap(memory->regions[i].base, memory->regions[i].size);
    *memory = (struct guest_memory){0};
}

void *memory_at(const struct guest_memory *memory, uint64_t address, uint64_t length)
{
    for (uint32_t i = 0; i < memory->count; i++) {
        const struct memory_region *region = &memory->regions[i];
        if (address < region->address || address - region->address >= region->size)
            continue;
        uint64_t offset = address - region->address;
        return length && length <= region->size - offset ? region->base + offset : NULL;
    }
    return NULL;
}

bool memory_release(const struct guest_memory *memory, uint64_t address, uint64_t length)
{
    uint8_t *at = memory_at(memory, address, length);
    if (!at)
        return false;
    uintptr_t first = ((uintptr_t)at + GUEST_PAGE - 1) & ~(uintptr_t)(GUEST_PAGE - 1);
    uintptr_t end = ((uintptr_t)at + length) & ~(uintptr_t)(GUEST_PAGE - 1);
    if (first < end)
        madvise((void *)first, end - first, MADV_DONTNEED);
    return true;
}
