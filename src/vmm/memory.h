/* memory.h: the guest's memory, and the one way from an address that the guest names to a byte of
 * ours. Everything a guest says is checked here: nothing else adds to a base. */
#pragma once

#include "base/limits.h"
#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    MEMORY_REGIONS_MAX = 2, /* below the device hole, and above 4 GiB */
    MEMORY_EARLY_BYTES = SANDBOX_MEMORY_MIB_DEFAULT * 1024 * 1024, /* its bound on data has room */
};

struct memory_region {
    uint64_t address; /* guest-physical */
    uint64_t size;
    uint8_t *base;    /* ours */
};

struct guest_memory {
    struct memory_region regions[MEMORY_REGIONS_MAX];
    uint32_t count;
    bool huge_pages;
    uint64_t reserved; /* bytes of our address space from the first region on */
};

/* Zeroed memory in one mapping, taken from the host when the guest touches it; laid out as
 * x86_64/layout.h says; excluded from core dumps. OUT_OF_SPACE when it cannot be reserved. */
MUST_CHECK status memory_create(struct guest_memory *ret, uint64_t bytes, bool huge_pages,
                                struct fault *fault);
/* The same in two steps: first MEMORY_EARLY_BYTES, to which a kernel can be loaded before the
 * guest's size is known; then all of it, or less. */
MUST_CHECK status memory_begin(struct guest_memory *ret, struct fault *fault);
MUST_CHECK status memory_settle(struct guest_memory *memory, uint64_t bytes, bool huge_pages,
                                struct fault *fault);
void memory_free(struct guest_memory *memory);

/* length bytes at address, all inside one region; NULL otherwise, and for length 0. */
void *memory_at(const struct guest_memory *memory, uint64_t address, uint64_t length);

/* Gives whole host pages inside the range back to the host; they read as zero. False: the range is
 * not the guest's. */
bool memory_release(const struct guest_memory *memory, uint64_t address, uint64_t length);
