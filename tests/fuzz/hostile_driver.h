/* hostile_driver.h: a driver made of the fuzzer's bytes, between walls that nobody may touch: it
 * starts a device as an honest one does and then writes whatever it likes wherever it likes. For
 * the targets of virtio devices; each adds what its device has beyond queues. */
#pragma once

#include "driver.h"
#include "fuzz.h"
#include "guest.h"

#include "base/loop.h"

#include <linux/virtio_ring.h>
#include <string.h>

struct hostile {
    struct guest guest;
    struct driver driver;
    struct loop *loop;
    struct virtio_device *device;
    struct cursor input;
    uint16_t next[VIRTIO_QUEUES_MAX], descriptor[VIRTIO_QUEUES_MAX];
};

static inline uint8_t any_u8(struct hostile *hostile)
{
    uint8_t value = 0;
    struct fault fault;
    return cursor_u8(&value, &hostile->input, &fault) == OK ? value : 0;
}

static inline uint16_t any_u16(struct hostile *hostile)
{
    return (uint16_t)(any_u8(hostile) | any_u8(hostile) << 8);
}

static inline uint32_t any_u32(struct hostile *hostile)
{
    return any_u16(hostile) | (uint32_t)any_u16(hostile) << 16;
}

/* Mostly the guest's own, often at a border, at times nobody's. */
static inline uint64_t any_address(struct hostile *hostile)
{
    uint8_t where = any_u8(hostile);
    uint32_t at = any_u16(hostile);
    switch (where % 8) {
    case 0: return GUEST_LOW_BYTES - at % 600;
    case 1: return GUEST_HIGH_AT + at;
    case 2: return GUEST_HIGH_AT + GUEST_HIGH_BYTES - at % 600;
    case 3: return at; /* its own rings are there */
    case 4: return (uint64_t)any_u32(hostile) << 32 | any_u32(hostile);
    default: return GUEST_DATA + at * 8;
    }
}

static inline void hostile_start(struct hostile *hostile, uint64_t features)
{
    hostile->driver.next_address = 0x1000;
    memset(hostile->next, 0, sizeof hostile->next);
    CHECK(driver_start(&hostile->driver, hostile->device, features, 16));
}

static inline struct device_place hostile_open(struct hostile *hostile, struct span bytes)
{
    struct fault fault;
    *hostile = (struct hostile){.input = cursor_over(bytes)};
    guest_open(&hostile->guest);
    driver_over(&hostile->driver, &hostile->guest.memory);
    CHECK(loop_create(&hostile->loop, &fault) == OK);
    return (struct device_place){
        .host = &hostile->driver.host, .loop = hostile->loop, .line = 16};
}

static inline void hostile_close(struct hostile *hostile)
{
    device_free(hostile->device);
    hostile->loop = loop_free(hostile->loop);
    guest_close(&hostile->guest);
}

static inline void hostile_turn(struct hostile *hostile)
{
    struct fault fault;
    CHECK(loop_turn(hostile->loop, 0, &fault) == OK);
}

/* As much of it as is the guest's. */
static inline void hostile_write(struct hostile *hostile, uint64_t address, const void *from,
                                 uint32_t bytes)
{
    void *at = memory_at(&hostile->guest.memory, address, bytes);
    if (at)
        memcpy(at, from, bytes);
}

/* Makes what it likes available, without a thought for what is under way. */
static inline void hostile_offer(struct hostile *hostile, uint32_t queue,
                                 const struct driver_segment *segments, uint32_t count)
{
    const struct driver_queue *rings = &hostile->driver.queues[queue];
    uint16_t mask = (uint16_t)(rings->size - 1);
    uint16_t head = hostile->descriptor[queue] & mask;
    for (uint32_t i = 0; i < count; i++) {
        uint16_t index = hostile->descriptor[queue]++ & mask;
        uint16_t flags = segments[i].device_writes ? VRING_DESC_F_WRITE : 0;
        struct vring_desc descriptor = {
            .addr = segments[i].address,
            .len = segments[i].length,
            .flags = (uint16_t)(flags | (i + 1 < count ? VRING_DESC_F_NEXT : 0)),
            .next = (uint16_t)((index + 1) & mask),
        };
        hostile_write(hostile, rings->descriptors + index * sizeof descriptor, &descriptor,
                      sizeof descriptor);
    }
    uint16_t next = hostile->next[queue]++;
    hostile_write(hostile, rings->available + 4 + 2u * (next & mask), &head, sizeof head);
    next++;
    hostile_write(hostile, rings->available + 2, &next, sizeof next);
}

static inline void offer_anything(struct hostile *hostile, uint32_t queue)
{
    struct driver_segment segments[4];
    uint32_t count = 1 + any_u8(hostile) % 4;
    for (uint32_t i = 0; i < count; i++) {
        uint8_t how = any_u8(hostile);
        segments[i].address = any_address(hostile);
        segments[i].length = how & 2 ? any_u32(hostile) : any_u16(hostile);
        segments[i].device_writes = how & 1;
    }
    hostile_offer(hostile, queue, segments, count);
}

static inline void write_anything(struct hostile *hostile)
{
    uint8_t bytes[64];
    uint32_t count = 1 + any_u8(hostile) % 64;
    uint64_t address = any_address(hostile);
    for (uint32_t i = 0; i < count; i++)
        bytes[i] = any_u8(hostile);
    hostile_write(hostile, address, bytes, count);
}

/* A snapshot of whatever state this is can be loaded, or is refused; never more. */
static inline void save_and_load(struct hostile *hostile)
{
    struct fault fault;
    _cleanup_buffer_ struct buffer saved = buffer_of(4096);
    virtio_save(hostile->device, &saved);
    CHECK(!saved.failed);
    if (any_u8(hostile) % 2) /* one that was tampered with */
        saved.data[any_u16(hostile) % saved.length] ^= any_u8(hostile);
    struct cursor from = cursor_over(buffer_span(&saved));
    if (virtio_load(hostile->device, &from, &fault) != OK)
        CHECK(!hostile->device->active);
}

/* One step that any device knows. */
static inline void hostile_step(struct hostile *hostile, uint8_t step)
{
    uint32_t queue = any_u8(hostile) % hostile->device->operations->queues;
    uint32_t offset, value;
    switch (step % 8) {
    case 0:
        offer_anything(hostile, queue);
        break;
    case 1:
        virtio_notify(hostile->device, queue);
        break;
    case 2:
        write_anything(hostile);
        break;
    case 3:
        offset = any_u8(hostile) % 2 ? any_u16(hostile) % VIRTIO_WINDOW_BYTES
                                     : any_u8(hostile) & 0xFCu;
        value = any_u32(hostile);
        virtio_mmio_write(hostile->device, offset, &value, sizeof value);
        virtio_mmio_read(hostile->device, offset, &value, sizeof value);
        break;
    case 4:
        hostile_start(hostile, any_u8(hostile) % 4 ? ~UINT64_C(0) : any_u32(hostile));
        break;
    case 5:
        save_and_load(hostile);
        break;
    default:
        hostile_turn(hostile);
        break;
    }
}
