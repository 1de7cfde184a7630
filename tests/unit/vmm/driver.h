/* driver.h: the other side of a virtio device, in memory: negotiates through the window as a driver
 * does, builds rings, and hands out guest memory. Tests write hostile rings by the addresses that
 * it tells. */
#pragma once

#include "vmm/virtio/device.h"

enum { DRIVER_QUEUE_SIZE = 64, DRIVER_MEMORY = 8 << 20 };

struct driver_queue {
    uint64_t descriptors, available, used; /* guest addresses */
    uint16_t size, next_available, seen_used;
    uint16_t free[VIRTQUEUE_SIZE_MAX];
    uint16_t free_count;
};

struct driver {
    struct guest_memory memory;
    struct virtio_host host; /* for the device's place */
    struct virtio_device *device;
    uint64_t next_address;
    uint32_t interrupts;
    bool events_apart; /* before driver_start: where a queue's event stands a page begins */
    struct driver_queue queues[VIRTIO_QUEUES_MAX];
};

struct driver_segment {
    uint64_t address;
    uint32_t length;
    bool device_writes;
};

/* Memory of DRIVER_MEMORY bytes at 0, and a host that counts interrupts. The driver must stay where
 * it is. */
void driver_open(struct driver *driver);
/* The same over memory of the caller's. */
void driver_over(struct driver *driver, const struct guest_memory *memory);
void driver_close(struct driver *driver); /* the memory of driver_open */

/* Resets the device and brings it to DRIVER_OK with what it offers of the wanted features; every
 * queue has size entries. False: the device refused. */
bool driver_start(struct driver *driver, struct virtio_device *device, uint64_t wanted,
                  uint16_t size);
void driver_reset(struct driver *driver);

uint32_t driver_register(struct driver *driver, uint32_t offset);
void driver_set_register(struct driver *driver, uint32_t offset, uint32_t value);

/* Zeroed guest memory, never given back; align: a power of two. */
uint64_t driver_alloc(struct driver *driver, uint32_t bytes, uint32_t align);
void *driver_at(struct driver *driver, uint64_t address, uint32_t bytes);

/* Makes a chain available; ret_head may be NULL. False: no descriptors left. */
bool driver_offer(uint16_t *ret_head, struct driver *driver, uint32_t queue,
                  const struct driver_segment *segments, uint32_t count);
/* Tells the device, as the ioeventfd does. */
void driver_notify(struct driver *driver, uint32_t queue);
/* Whether the device wants to hear of this queue (without VIRTIO_F_EVENT_IDX). */
bool driver_notify_wanted(struct driver *driver, uint32_t queue);
/* The same with it, of a driver that has just offered one chain. */
bool driver_must_notify(struct driver *driver, uint32_t queue);
/* Calls then once, straight before the device writes where its next event of this queue is; needs
 * events_apart. */
void driver_before_event(struct driver *driver, uint32_t queue, void (*then)(void *context),
                         void *context);
/* The next chain that came back; false: none. */
bool driver_used(uint16_t *ret_head, uint32_t *ret_written, struct driver *driver,
                 uint32_t queue);
