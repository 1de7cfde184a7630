#define _GNU_SOURCE
#include "driver.h"

#include <assert.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>

enum { PAGE = 4096 };

static void count_interrupt(void *context, uint32_t line)
{
    struct driver *driver = context;
    (void)line;
    driver->interrupts++;
}

void driver_over(struct driver *driver, const struct guest_memory *memory)
{
    *driver = (struct driver){.memory = *memory, .next_address = 0x1000};
    driver->host = (struct virtio_host){
        .memory = &driver->memory, .interrupt = count_interrupt, .context = driver};
}

void driver_open(struct driver *driver)
{
    struct guest_memory memory;
    struct fault fault;
    status created = memory_create(&memory, DRIVER_MEMORY, false, &fault);
    assert(created == OK);
    (void)created;
    driver_over(driver, &memory);
}

void driver_close(struct driver *driver)
{
    memory_free(&driver->memory);
}

uint32_t driver_register(struct driver *driver, uint32_t offset)
{
    uint32_t value;
    virtio_mmio_read(driver->device, offset, &value, sizeof value);
    return value;
}

void driver_set_register(struct driver *driver, uint32_t offset, uint32_t value)
{
    virtio_mmio_write(driver->device, offset, &value, sizeof value);
}

uint64_t driver_alloc(struct driver *driver, uint32_t bytes, uint32_t align)
{
    uint64_t address = (driver->next_address + align - 1) & ~((uint64_t)align - 1);
    void *at = memory_at(&driver->memory, address, bytes);
    assert(at);
    memset(at, 0, bytes);
    driver->next_address = address + bytes;
    return address;
}

void *driver_at(struct driver *driver, uint64_t address, uint32_t bytes)
{
    void *at = memory_at(&driver->memory, address, bytes);
    assert(at);
    return at;
}

static void set_address(struct driver *driver, uint32_t low, uint64_t address)
{
    driver_set_register(driver, low, (uint32_t)address);
    driver_set_register(driver, low + 4, (uint32_t)(address >> 32));
}

static void start_queue(struct driver *driver, uint32_t index, uint16_t size)
{
    struct driver_queue *queue = &driver->queues[index];
    *queue = (struct driver_queue){.size = size};
    queue->descriptors = driver_alloc(driver, size * (uint32_t)sizeof(struct vring_desc), 16);
    queue->available = driver_alloc(driver, 6 + 2 * (uint32_t)size, 2);
    uint32_t used_bytes = 4 + (uint32_t)sizeof(struct vring_used_elem) * size;
    queue->used = driver_alloc(driver, used_bytes + 2, 4);
    if (driver->events_apart)
        queue->used = driver_alloc(driver, 2 * PAGE, PAGE) + PAGE - used_bytes;
    while (queue->free_count < size) {
        queue->free[queue->free_count] = (uint16_t)(size - 1 - queue->free_count);
        queue->free_count++;
    }
    driver_set_register(driver, VIRTIO_MMIO_QUEUE_SEL, index);
    driver_set_register(driver, VIRTIO_MMIO_QUEUE_NUM, size);
    set_address(driver, VIRTIO_MMIO_QUEUE_DESC_LOW, queue->descriptors);
    set_address(driver, VIRTIO_MMIO_QUEUE_AVAIL_LOW, queue->available);
    set_address(driver, VIRTIO_MMIO_QUEUE_USED_LOW, queue->used);
    driver_set_register(driver, VIRTIO_MMIO_QUEUE_READY, 1);
}

void driver_reset(struct driver *driver)
{
    driver_set_register(driver, VIRTIO_MMIO_STATUS, 0);
}

bool driver_start(struct driver *driver, struct virtio_device *device, uint64_t wanted,
                  uint16_t size)
{
    driver->device = device;
    driver_reset(driver);
    uint32_t steps = VIRTIO_CONFIG_S_ACKNOWLEDGE;
    driver_set_register(driver, VIRTIO_MMIO_STATUS, steps);
    steps |= VIRTIO_CONFIG_S_DRIVER;
    driver_set_register(driver, VIRTIO_MMIO_STATUS, steps);
    wanted |= UINT64_C(1) << VIRTIO_F_VERSION_1;
    for (uint32_t page = 0; page < 2; page++) {
        driver_set_register(driver, VIRTIO_MMIO_DEVICE_FEATURES_SEL, page);
        uint32_t offered = driver_register(driver, VIRTIO_MMIO_DEVICE_FEATURES);
        driver_set_register(driver, VIRTIO_MMIO_DRIVER_FEATURES_SEL, page);
        driver_set_register(driver, VIRTIO_MMIO_DRIVER_FEATURES,
                            offered & (uint32_t)(wanted >> (32 * page)));
    }
    steps |= VIRTIO_CONFIG_S_FEATURES_OK;
    driver_set_register(driver, VIRTIO_MMIO_STATUS, steps);
    for (uint32_t i = 0; i < device->operations->queues; i++)
        start_queue(driver, i, size);
    steps |= VIRTIO_CONFIG_S_DRIVER_OK;
    driver_set_register(driver, VIRTIO_MMIO_STATUS, steps);
    return driver_register(driver, VIRTIO_MMIO_STATUS) == steps && device->active;
}

static struct vring_desc *descriptor_at(struct driver *driver, struct driver_queue *queue,
                                        uint16_t index)
{
    return driver_at(driver, queue->descriptors + index * sizeof(struct vring_desc),
                     sizeof(struct vring_desc));
}

bool driver_offer(uint16_t *ret_head, struct driver *driver, uint32_t queue_index,
                  const struct driver_segment *segments, uint32_t count)
{
    struct driver_queue *queue = &driver->queues[queue_index];
    if (count > queue->free_count)
        return false;
    uint16_t head = 0, next = 0;
    for (uint32_t i = count; i-- > 0; next = head) { /* from the last one, so that next is known */
        head = queue->free[--queue->free_count];
        uint16_t flags = segments[i].device_writes ? VRING_DESC_F_WRITE : 0;
        *descriptor_at(driver, queue, head) = (struct vring_desc){
            .addr = segments[i].address,
            .len = segments[i].length,
            .flags = (uint16_t)(flags | (i + 1 < count ? VRING_DESC_F_NEXT : 0)),
            .next = next,
        };
    }
    struct vring_avail *available = driver_at(driver, queue->available,
                                              6 + 2 * (uint32_t)queue->size);
    available->ring[queue->next_available % queue->size] = head;
    queue->next_available++;
    __atomic_store_n(&available->idx, queue->next_available, __ATOMIC_RELEASE);
    if (ret_head)
        *ret_head = head;
    return true;
}

void driver_notify(struct driver *driver, uint32_t queue)
{
    virtio_notify(driver->device, queue);
}

static struct vring_used *used_ring(struct driver *driver, struct driver_queue *queue)
{
    return driver_at(driver, queue->used,
                     6 + (uint32_t)sizeof(struct vring_used_elem) * queue->size);
}

bool driver_notify_wanted(struct driver *driver, uint32_t queue)
{
    return !(used_ring(driver, &driver->queues[queue])->flags & VRING_USED_F_NO_NOTIFY);
}

static uint16_t *event_of(struct driver *driver, uint32_t index)
{
    struct driver_queue *queue = &driver->queues[index];
    return (uint16_t *)(void *)&used_ring(driver, queue)->ring[queue->size];
}

bool driver_must_notify(struct driver *driver, uint32_t queue)
{
    uint16_t now = driver->queues[queue].next_available;
    return vring_need_event(*event_of(driver, queue), now, (uint16_t)(now - 1));
}

static struct {
    void *page, *context;
    void (*then)(void *context);
    struct sigaction before;
} event;

static void on_event_written(int number)
{
    (void)number;
    mprotect(event.page, PAGE, PROT_READ | PROT_WRITE);
    sigaction(SIGSEGV, &event.before, NULL);
    event.then(event.context);
}

void driver_before_event(struct driver *driver, uint32_t queue, void (*then)(void *context),
                         void *context)
{
    struct sigaction action = {.sa_handler = on_event_written};
    event.page = event_of(driver, queue);
    event.then = then;
    event.context = context;
    assert((uintptr_t)event.page % PAGE == 0);
    sigaction(SIGSEGV, &action, &event.before);
    mprotect(event.page, PAGE, PROT_READ);
}

bool driver_used(uint16_t *ret_head, uint32_t *ret_written, struct driver *driver,
                 uint32_t queue_index)
{
    struct driver_queue *queue = &driver->queues[queue_index];
    struct vring_used *used = used_ring(driver, queue);
    if (__atomic_load_n(&used->idx, __ATOMIC_ACQUIRE) == queue->seen_used)
        return false;
    struct vring_used_elem element = used->ring[queue->seen_used % queue->size];
    queue->seen_used++;
    uint16_t index = (uint16_t)element.id;
    for (;;) {
        assert(queue->free_count < queue->size);
        queue->free[queue->free_count++] = index;
        const struct vring_desc *descriptor = descriptor_at(driver, queue, index);
        if (!(descriptor->flags & VRING_DESC_F_NEXT))
            break;
        index = descriptor->next;
    }
    *ret_head = (uint16_t)element.id;
    *ret_written = element.len;
    return true;
}
