#define _GNU_SOURCE
#include "vmm/memory.h"

#include "base/limits.h"
#include "vmm/x86_64/layout.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

/* Before and behind the guest's memory, never to be touched: whoever misses it is stopped. */
#define GUARD_BYTES GUEST_HUGE_PAGE

/* The mapping begins at a 2 MiB border of ours as it does of the guest's: else neither side could
 * use pages of that size. Nothing of it can be touched yet. */
static uint8_t *reserve(uint64_t bytes)
{
    uint64_t wanted = bytes + 2 * GUARD_BYTES + GUEST_HUGE_PAGE;
    if (wanted < bytes || wanted > SIZE_MAX / 2)
        return NULL;
    uint8_t *base = mmap(NULL, wanted, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
                         0);
    if (base == MAP_FAILED)
        return NULL;
    uint64_t before = (GUEST_HUGE_PAGE - ((uintptr_t)base & (GUEST_HUGE_PAGE - 1)))
                      & (GUEST_HUGE_PAGE - 1);
    if (before)
        munmap(base, before);
    munmap(base + before + bytes + 2 * GUARD_BYTES, GUEST_HUGE_PAGE - before);
    return base + before + GUARD_BYTES;
}

/* The first bytes of what is reserved become the guest's. */
static status commit(struct guest_memory *memory, uint64_t bytes, struct fault *fault)
{
    uint8_t *base = memory->regions[0].base;
    if (mprotect(base, bytes, PROT_READ | PROT_WRITE) || madvise(base, bytes, MADV_DONTDUMP))
        return FAIL(OUT_OF_SPACE, fault, "guest memory: %s", strerror(errno));
    uint64_t low = bytes < GUEST_HOLE ? bytes : GUEST_HOLE;
    memory->count = 1;
    memory->regions[0] = (struct memory_region){.address = 0, .size = low, .base = base};
    if (bytes > low)
        memory->regions[memory->count++] = (struct memory_region){
            .address = GUEST_HIGH, .size = bytes - low, .base = base + low};
    return OK;
}

static status begin(struct guest_memory *ret, uint64_t reserved, uint64_t bytes,
                    struct fault *fault)
{
    struct guest_memory memory = {.count = 1, .reserved = reserved};
    memory.regions[0].base = reserve(reserved);
    if (!memory.regions[0].base)
        return FAIL(OUT_OF_SPACE, fault, "guest memory: mmap: %s", strerror(errno));
    status committed = commit(&memory, bytes, fault);
    if (committed != OK)
        memory_free(&memory);
    else
        *ret = memory;
    return committed;
}

status memory_begin(struct guest_memory *ret, struct fault *fault)
{
    return begin(ret, (uint64_t)SANDBOX_MEMORY_MIB_MAX * MIB(1), MEMORY_EARLY_BYTES, fault);
}

static status check_size(uint64_t bytes, struct fault *fault)
{
    if (bytes < GUEST_LOADED || bytes % GUEST_PAGE)
        return FAIL(BAD_FIELD, fault, "guest memory: whole pages, 1 MiB at least");
    return OK;
}

static void advise(struct guest_memory *memory, uint64_t bytes, bool huge_pages)
{
    memory->huge_pages = huge_pages
        && madvise(memory->regions[0].base, bytes, MADV_HUGEPAGE) == 0; /* where there are any */
}

status memory_settle(struct guest_memory *memory, uint64_t bytes, bool huge_pages,
                     struct fault *fault)
{
    TRY(check_size(bytes, fault));
    if (bytes > memory->reserved)
        return FAIL(OUT_OF_SPACE, fault, "guest memory: more than was reserved");
    TRY(commit(memory, bytes, fault));
    uint8_t *end = memory->regions[0].base + bytes; /* ours went on, if it is less */
    if (mmap(end, GUARD_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED,
             -1, 0) == MAP_FAILED)
        return FAIL(OUT_OF_SPACE, fault, "guest memory: %s", strerror(errno));
    munmap(end + GUARD_BYTES, memory->reserved - bytes);
    memory->reserved = bytes;
    advise(memory, bytes, huge_pages);
    return OK;
}

status memory_create(struct guest_memory *ret, uint64_t bytes, bool huge_pages,
                     struct fault *fault)
{
    TRY(check_size(bytes, fault));
    TRY(begin(ret, bytes, bytes, fault));
    advise(ret, bytes, huge_pages);
    return OK;
}

void memory_free(struct guest_memory *memory)
{
    if (memory->reserved)
        munmap(memory->regions[0].base - GUARD_BYTES, memory->reserved + 2 * GUARD_BYTES);
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
