/* ring.h: the driver's side of virtio-mmio, with every field free to be wrong. */
#pragma once

#include "guest.h"

enum { /* registers (virtio 1.2, 4.2.2) */
    REG_MAGIC = 0x000, REG_VERSION = 0x004, REG_DEVICE = 0x008, REG_FEATURES = 0x010,
    REG_FEATURES_SEL = 0x014, REG_DRIVER = 0x020, REG_DRIVER_SEL = 0x024, REG_QUEUE_SEL = 0x030,
    REG_QUEUE_MAX = 0x034, REG_QUEUE_NUM = 0x038, REG_QUEUE_READY = 0x044, REG_NOTIFY = 0x050,
    REG_INTERRUPT = 0x060, REG_ACK = 0x064, REG_STATUS = 0x070, REG_DESC = 0x080,
    REG_AVAIL = 0x090, REG_USED = 0x0A0, REG_CONFIG = 0x100,
};

enum { STATUS_ACKNOWLEDGE = 1, STATUS_DRIVER = 2, STATUS_OK = 4, STATUS_FEATURES = 8,
       STATUS_NEEDS_RESET = 64 };
enum { DESC_NEXT = 1, DESC_WRITE = 2, DESC_INDIRECT = 4 };
enum { RING_SIZE = 64, QUEUES = 4 };

struct descriptor {
    uint64_t address;
    uint32_t length;
    uint16_t flags, next;
};

struct ring { /* where its parts are is told to the device by ring_set */
    struct descriptor descriptors[RING_SIZE];
    struct {
        uint16_t flags, index, entries[RING_SIZE], used_event;
    } available;
    uint8_t gap[4096 - 16 * RING_SIZE - 6 - 2 * RING_SIZE];
    struct {
        uint16_t flags, index;
        struct {
            uint32_t id, length;
        } entries[RING_SIZE];
        uint16_t available_event;
    } used;
} __attribute__((aligned(4096)));

struct device {
    uint64_t window;
    uint32_t kind, queues;
};

/* All that devices are told of lies from here on: what they write there, lawfully, hits no code. */
#define ARENA UINT64_C(0x1000000)

static struct ring *const rings = (struct ring *)ARENA; /* QUEUES of them */
static uint8_t (*const buffers)[RING_SIZE][4096] = (uint8_t (*)[RING_SIZE][4096])(ARENA + 0x100000);

/* False: no device answers there. */
bool device_find(struct device *ret, uint32_t number);
void device_reset(const struct device *device);
/* ACKNOWLEDGE, DRIVER, version 1 and the features of mask that are offered, FEATURES_OK. */
void device_negotiate(const struct device *device, uint64_t mask);
void ring_set(const struct device *device, uint32_t queue, uint32_t size, uint64_t descriptors,
              uint64_t available, uint64_t used);
/* Reset, negotiate, all queues in good order and empty, DRIVER_OK. */
void device_bring_up(const struct device *device, uint64_t features);

void ring_describe(uint32_t queue, uint16_t at, uint64_t address, uint32_t length, uint16_t flags,
                   uint16_t next);
void ring_offer(uint32_t queue, uint16_t head); /* makes it available; notifies nobody */
void ring_notify(const struct device *device, uint32_t queue);
/* Until the device has used so many since it was brought up, or patience is over. */
bool ring_await(const struct device *device, uint32_t queue, uint16_t used);
