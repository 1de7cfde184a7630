#define _GNU_SOURCE
#include "guest.h"

#include <assert.h>
#include <linux/virtio_ring.h>
#include <string.h>
#include <sys/mman.h>

enum { WALL = 0x10000 }; /* bytes before, between and behind the regions that nobody may touch */

static void count_interrupt(void *context, uint32_t line)
{
    struct guest *guest = context;
    guest->interrupts++;
    guest->line = line;
}

void guest_open(struct guest *guest)
{
    *guest = (struct guest){.mapping_bytes = WALL * 3 + GUEST_LOW_BYTES + GUEST_HIGH_BYTES};
    uint8_t *base = mmap(NULL, guest->mapping_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert(base != MAP_FAILED);
    guest->mapping = base;
    guest->memory.count = 2;
    guest->memory.regions[0] = (struct memory_region){
        .address = 0, .size = GUEST_LOW_BYTES, .base = base + WALL};
    guest->memory.regions[1] = (struct memory_region){
        .address = GUEST_HIGH_AT, .size = GUEST_HIGH_BYTES,
        .base = base + 2 * WALL + GUEST_LOW_BYTES};
    for (uint32_t i = 0; i < guest->memory.count; i++) {
        int opened = mprotect(guest->memory.regions[i].base, guest->memory.regions[i].size,
                              PROT_READ | PROT_WRITE);
        assert(opened == 0);
    }
    guest->host = (struct virtio_host){
        .memory = &guest->memory, .interrupt = count_interrupt, .context = guest};
}

void guest_close(struct guest *guest)
{
    munmap(guest->mapping, guest->mapping_bytes);
    *guest = (struct guest){0};
}

void guest_put(struct guest *guest, uint64_t address, const void *from, size_t size)
{
    void *at = memory_at(&guest->memory, address, size);
    assert(at);
    memcpy(at, from, size);
}

void guest_get(struct guest *guest, uint64_t address, void *to, size_t size)
{
    const void *at = memory_at(&guest->memory, address, size);
    assert(at);
    memcpy(to, at, size);
}

void guest_put_u16(struct guest *guest, uint64_t address, uint16_t value)
{
    guest_put(guest, address, &value, sizeof value);
}

uint16_t guest_get_u16(struct guest *guest, uint64_t address)
{
    uint16_t value;
    guest_get(guest, address, &value, sizeof value);
    return value;
}

uint32_t guest_take_interrupts(struct guest *guest)
{
    uint32_t interrupts = guest->interrupts;
    guest->interrupts = 0;
    return interrupts;
}

struct ring ring_of(uint32_t queue, uint16_t size)
{
    uint64_t at = GUEST_RINGS + (uint64_t)queue * GUEST_RING_BYTES;
    return (struct ring){
        .descriptors = at, .available = at + 0x1000, .used = at + 0x2000, .size = size};
}

void ring_describe(struct guest *guest, const struct ring *rings, uint16_t index,
                     uint64_t address, uint32_t length, uint16_t flags, uint16_t next)
{
    struct vring_desc descriptor = {
        .addr = address, .len = length, .flags = flags, .next = next};
    guest_put(guest, rings->descriptors + index * sizeof descriptor, &descriptor,
              sizeof descriptor);
}

void ring_offer(struct guest *guest, struct ring *rings, uint16_t head)
{
    uint64_t entry = rings->available + 4 + (uint64_t)(rings->next_available % rings->size) * 2;
    guest_put_u16(guest, entry, head);
    guest_put_u16(guest, rings->available + 2, ++rings->next_available);
}

bool ring_collect(struct guest *guest, struct ring *rings, uint32_t *ret_head,
                    uint32_t *ret_written)
{
    if (guest_get_u16(guest, rings->used + 2) == rings->seen_used)
        return false;
    struct vring_used_elem element;
    guest_get(guest, rings->used + 4 + (rings->seen_used % rings->size) * sizeof element, &element,
              sizeof element);
    rings->seen_used++;
    *ret_head = element.id;
    *ret_written = element.len;
    return true;
}
