#include "ring.h"

enum { MAGIC = 0x74726976, PATIENCE = 200000 };

static uint32_t get(const struct device *device, uint32_t offset)
{
    return mmio_read(device->window + offset);
}

static void set(const struct device *device, uint32_t offset, uint32_t value)
{
    mmio_write(device->window + offset, value);
}

static void set_wide(const struct device *device, uint32_t offset, uint64_t value)
{
    set(device, offset, (uint32_t)value);
    set(device, offset + 4, (uint32_t)(value >> 32));
}

bool device_find(struct device *ret, uint32_t number)
{
    struct device device = {.window = WINDOWS + number * WINDOW_BYTES};
    if (get(&device, REG_MAGIC) != MAGIC || get(&device, REG_VERSION) != 2)
        return false;
    device.kind = get(&device, REG_DEVICE);
    for (; device.queues < QUEUES; device.queues++) {
        set(&device, REG_QUEUE_SEL, device.queues);
        if (get(&device, REG_QUEUE_MAX) == 0)
            break;
    }
    *ret = device;
    return device.kind != 0;
}

void device_reset(const struct device *device)
{
    set(device, REG_STATUS, 0);
    while (get(device, REG_STATUS) != 0)
        ;
}

void device_negotiate(const struct device *device, uint64_t mask)
{
    set(device, REG_STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER);
    mask |= UINT64_C(1) << 32; /* VIRTIO_F_VERSION_1 */
    for (uint32_t half = 0; half < 2; half++) {
        set(device, REG_FEATURES_SEL, half);
        uint32_t offered = get(device, REG_FEATURES);
        set(device, REG_DRIVER_SEL, half);
        set(device, REG_DRIVER, offered & (uint32_t)(mask >> (32 * half)));
    }
    set(device, REG_STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES);
}

void ring_set(const struct device *device, uint32_t queue, uint32_t size, uint64_t descriptors,
              uint64_t available, uint64_t used)
{
    set(device, REG_QUEUE_SEL, queue);
    set(device, REG_QUEUE_NUM, size);
    set_wide(device, REG_DESC, descriptors);
    set_wide(device, REG_AVAIL, available);
    set_wide(device, REG_USED, used);
    set(device, REG_QUEUE_READY, 1);
}

void device_bring_up(const struct device *device, uint64_t features)
{
    device_reset(device);
    device_negotiate(device, features);
    for (uint32_t queue = 0; queue < device->queues; queue++) {
        rings[queue] = (struct ring){0};
        ring_set(device, queue, RING_SIZE, (uint64_t)rings[queue].descriptors,
                 (uint64_t)&rings[queue].available, (uint64_t)&rings[queue].used);
    }
    set(device, REG_STATUS,
        STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES | STATUS_OK);
}

void ring_describe(uint32_t queue, uint16_t at, uint64_t address, uint32_t length, uint16_t flags,
                   uint16_t next)
{
    rings[queue].descriptors[at] = (struct descriptor){address, length, flags, next};
}

void ring_offer(uint32_t queue, uint16_t head)
{
    struct ring *ring = &rings[queue];
    ring->available.entries[ring->available.index % RING_SIZE] = head;
    __atomic_store_n(&ring->available.index, (uint16_t)(ring->available.index + 1),
                     __ATOMIC_RELEASE);
}

void ring_notify(const struct device *device, uint32_t queue)
{
    set(device, REG_NOTIFY, queue);
}

bool ring_await(const struct device *device, uint32_t queue, uint16_t used)
{
    for (uint32_t patience = 0; patience < PATIENCE; patience++) {
        if (__atomic_load_n(&rings[queue].used.index, __ATOMIC_ACQUIRE) == used)
            return true;
        if (patience % 64 == 63) /* an exit: lets a busy monitor in, and ends a broken wait */
            if (get(device, REG_STATUS) & STATUS_NEEDS_RESET)
                return false;
        __asm__ volatile("pause");
    }
    return false;
}
