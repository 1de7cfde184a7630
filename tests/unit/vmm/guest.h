/* guest.h: a small guest for the tests and fuzzers of virtio devices: memory between pages that
 * nobody may touch, and rings written by hand, which driver.h's honest driver never would. */
#pragma once

#include "vmm/virtio/devices.h"

enum {
    GUEST_LOW_BYTES = 0x100000, /* at 0 */
    GUEST_HIGH_BYTES = 0x40000, /* at GUEST_HIGH_AT */
    GUEST_RINGS = 0x10000,      /* queue q: at GUEST_RINGS + q * GUEST_RING_BYTES */
    GUEST_RING_BYTES = 0x4000,
    GUEST_DATA = 0x40000,       /* free from here on */
};
#define GUEST_HIGH_AT UINT64_C(0x100000000)

struct guest {
    struct guest_memory memory;
    struct virtio_host host;
    uint32_t interrupts, line; /* edges since the last look; of the last one */
    void *mapping;
    size_t mapping_bytes;
};

struct ring { /* what a driver knows of its queue */
    uint64_t descriptors, available, used;
    uint16_t size, next_available, seen_used;
};

void guest_open(struct guest *guest);
void guest_close(struct guest *guest);
void guest_put(struct guest *guest, uint64_t address, const void *from, size_t size);
void guest_get(struct guest *guest, uint64_t address, void *to, size_t size);
void guest_put_u16(struct guest *guest, uint64_t address, uint16_t value);
uint16_t guest_get_u16(struct guest *guest, uint64_t address);
uint32_t guest_take_interrupts(struct guest *guest); /* and forgets them */

/* Where the rings of a queue lie in this guest. */
struct ring ring_of(uint32_t queue, uint16_t size);
void ring_describe(struct guest *guest, const struct ring *rings, uint16_t index,
                     uint64_t address, uint32_t length, uint16_t flags, uint16_t next);
/* Writes the next entry of the available ring and moves the index. */
void ring_offer(struct guest *guest, struct ring *rings, uint16_t head);
/* The next used element, if there is one. */
bool ring_collect(struct guest *guest, struct ring *rings, uint32_t *ret_head,
                    uint32_t *ret_written);
