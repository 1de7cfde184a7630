#include "vmm/virtio/devices.h"

#include <assert.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <stdatomic.h>
#include <string.h>

enum {
    MAGIC = 0x74726976,  /* "virt" */
    VERSION = 2,         /* 1 is the legacy interface */
    VENDOR = 0x4b4c5542, /* "BULK" */
    ACCESS_MAX = 8,
    STATE_VERSION = 1,
};

void virtio_init(struct virtio_device *device, const struct virtio_operations *operations,
                 const struct virtio_host *host, uint32_t line, uint64_t features)
{
    assert(operations->queues >= 1 && operations->queues <= VIRTIO_QUEUES_MAX);
    *device = (struct virtio_device){
        .operations = operations,
        .host = host,
        .line = line,
        .offered = features | UINT64_C(1) << VIRTIO_F_VERSION_1,
    };
}

void device_free(struct virtio_device *device)
{
    if (device)
        device->operations->destroy(device);
}

bool virtio_has(const struct virtio_device *device, uint32_t feature_bit)
{
    return feature_bit < 64 && device->accepted >> feature_bit & 1;
}

/* ---- what the device tells the driver ---- */

static void interrupt(struct virtio_device *device, uint32_t reason)
{
    atomic_fetch_or(&device->interrupt_status, reason);
    device->host->interrupt(device->host->context, device->line);
}

void virtio_signal(struct virtio_device *device, uint32_t queue)
{
    assert(queue < device->operations->queues);
    if (device->active && virtqueue_interrupts(&device->queues[queue], device->host->memory))
        interrupt(device, VIRTIO_MMIO_INT_VRING);
}

void virtio_config_changed(struct virtio_device *device)
{
    device->config_generation++;
    if (device->active)
        interrupt(device, VIRTIO_MMIO_INT_CONFIG);
}

void virtio_fail(struct virtio_device *device)
{
    if (device->status & VIRTIO_CONFIG_S_NEEDS_RESET)
        return;
    device->status |= VIRTIO_CONFIG_S_NEEDS_RESET;
    device->active = false;
    if (device->status & VIRTIO_CONFIG_S_DRIVER_OK)
        interrupt(device, VIRTIO_MMIO_INT_CONFIG);
    if (device->host->rule_broken)
        device->host->rule_broken(device->host->context, device->operations->name);
}

bool virtio_pop(struct virtqueue_chain *ret, struct virtio_device *device, uint32_t queue)
{
    assert(queue < device->operations->queues);
    if (!device->active)
        return false;
    if (virtqueue_pop(ret, &device->queues[queue], device->host->memory))
        return true;
    if (device->queues[queue].broken)
        virtio_fail(device);
    return false;
}

static void ask_notify(struct virtio_device *device, uint32_t queue, bool wanted)
{
    if (device->asked[queue] == wanted)
        return;
    device->asked[queue] = wanted;
    virtqueue_ask_notify(&device->queues[queue], device->host->memory, wanted);
}

bool virtio_next(struct virtqueue_chain *ret, struct virtio_device *device, uint32_t queue)
{
    if (!virtio_pop(ret, device, queue)) {
        if (!device->active || device->asked[queue])
            return false;
        ask_notify(device, queue, true);
        if (!virtio_pop(ret, device, queue))
            return false;
    }
    ask_notify(device, queue, false); /* also of one that came just then: the event is behind us */
    return true;
}

void virtio_push(struct virtio_device *device, uint32_t queue, uint16_t head, uint32_t written)
{
    assert(queue < device->operations->queues);
    if (device->active)
        virtqueue_push(&device->queues[queue], device->host->memory, head, written);
}

void virtio_notify(struct virtio_device *device, uint32_t queue)
{
    if (device->active && queue < device->operations->queues && device->queues[queue].ready)
        device->operations->notify(device, queue);
}

void virtio_go_on(struct virtio_device *device, struct loop *loop, struct loop_timer *timer,
                  int64_t after_us, loop_on_time *on_time)
{
    struct fault fault;
    if (loop_timer_start(loop, timer, after_us, on_time, device, &fault) != OK)
        virtio_fail(device);
}

/* ---- status and features ---- */

static void reset(struct virtio_device *device)
{
    /* a driver that was never at work has left nothing behind: resets in a storm cost nothing */
    if (device->status & VIRTIO_CONFIG_S_DRIVER_OK)
        device->operations->reset(device);
    device->active = false;
    device->status = 0;
    device->accepted = 0;
    device->features_page = device->driver_page = device->queue_selected = 0;
    atomic_store(&device->interrupt_status, 0);
    memset(device->queues, 0, sizeof device->queues);
}

static bool features_fit(const struct virtio_device *device)
{
    return (device->accepted & ~device->offered) == 0 && virtio_has(device, VIRTIO_F_VERSION_1);
}

static void begin(struct virtio_device *device)
{
    memset(device->asked, true, sizeof device->asked); /* as fresh rings have it */
    if (device->operations->activate)
        device->operations->activate(device);
}

/* A step counts only after those before it (3.1.1). Bits are never taken back but by a reset. */
static void set_status(struct virtio_device *device, uint32_t value)
{
    if (value == 0) {
        reset(device);
        return;
    }
    static const uint32_t steps[] = {
        VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_FEATURES_OK,
        VIRTIO_CONFIG_S_DRIVER_OK,
    };
    device->status |= value & VIRTIO_CONFIG_S_FAILED;
    if (device->status & VIRTIO_CONFIG_S_FAILED)
        device->active = false; /* the driver has given up */
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        if (device->status & steps[i])
            continue;
        bool refused = steps[i] == VIRTIO_CONFIG_S_FEATURES_OK && !features_fit(device);
        if (!(value & steps[i]) || refused)
            return;
        device->status |= steps[i];
        if (steps[i] != VIRTIO_CONFIG_S_DRIVER_OK)
            continue;
        device->active = !(device->status
                           & (VIRTIO_CONFIG_S_NEEDS_RESET | VIRTIO_CONFIG_S_FAILED));
        if (device->active)
            begin(device);
    }
}

static uint32_t features_read(const struct virtio_device *device)
{
    return device->features_page == 0 ? (uint32_t)device->offered
         : device->features_page == 1 ? (uint32_t)(device->offered >> 32) : 0;
}

static void features_write(struct virtio_device *device, uint32_t value)
{
    if (!(device->status & VIRTIO_CONFIG_S_DRIVER)
        || device->status & VIRTIO_CONFIG_S_FEATURES_OK || device->driver_page > 1)
        return;
    uint32_t shift = device->driver_page * 32;
    device->accepted &= ~(UINT64_C(0xffffffff) << shift);
    device->accepted |= (uint64_t)value << shift;
}

/* ---- queues ---- */

static struct virtqueue *selected(struct virtio_device *device)
{
    return device->queue_selected < device->operations->queues
        ? &device->queues[device->queue_selected] : NULL;
}

/* Between FEATURES_OK and DRIVER_OK, and each queue only until it is ready. */
static struct virtqueue *to_set_up(struct virtio_device *device)
{
    struct virtqueue *queue = selected(device);
    uint32_t steps = VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK;
    return queue && !queue->ready
        && (device->status & steps) == VIRTIO_CONFIG_S_FEATURES_OK ? queue : NULL;
}

static void queue_ready(struct virtio_device *device, uint32_t value)
{
    struct virtqueue *queue = selected(device);
    if (value == 0 && queue && queue->ready) {
        *queue = (struct virtqueue){0};
        return;
    }
    queue = to_set_up(device);
    if (value != 1 || !queue)
        return;
    queue->event_index = virtio_has(device, VIRTIO_RING_F_EVENT_IDX);
    queue->indirect = virtio_has(device, VIRTIO_RING_F_INDIRECT_DESC);
    if (!virtqueue_activate(queue, device->host->memory))
        virtio_fail(device);
}

static void queue_size(struct virtqueue *queue, uint32_t value)
{
    queue->size = value <= VIRTQUEUE_SIZE_MAX ? (uint16_t)value : 0; /* 0: never ready */
}

static void set_low(uint64_t *address, uint32_t value)
{
    *address = (*address & ~UINT64_C(0xffffffff)) | value;
}

static void set_high(uint64_t *address, uint32_t value)
{
    *address = (uint32_t)*address | (uint64_t)value << 32;
}

static void queue_write(struct virtqueue *queue, uint32_t offset, uint32_t value)
{
    switch (offset) {
    case VIRTIO_MMIO_QUEUE_NUM:
        queue_size(queue, value);
        break;
    case VIRTIO_MMIO_QUEUE_DESC_LOW:
        set_low(&queue->descriptors, value);
        break;
    case VIRTIO_MMIO_QUEUE_DESC_HIGH:
        set_high(&queue->descriptors, value);
        break;
    case VIRTIO_MMIO_QUEUE_AVAIL_LOW:
        set_low(&queue->available, value);
        break;
    case VIRTIO_MMIO_QUEUE_AVAIL_HIGH:
        set_high(&queue->available, value);
        break;
    case VIRTIO_MMIO_QUEUE_USED_LOW:
        set_low(&queue->used, value);
        break;
    case VIRTIO_MMIO_QUEUE_USED_HIGH:
        set_high(&queue->used, value);
        break;
    default:
        break;
    }
}

/* ---- the window ---- */

static uint32_t register_read(struct virtio_device *device, uint32_t offset)
{
    const struct virtqueue *queue = selected(device);
    switch (offset) {
    case VIRTIO_MMIO_MAGIC_VALUE:
        return MAGIC;
    case VIRTIO_MMIO_VERSION:
        return VERSION;
    case VIRTIO_MMIO_DEVICE_ID:
        return device->operations->kind;
    case VIRTIO_MMIO_VENDOR_ID:
        return VENDOR;
    case VIRTIO_MMIO_DEVICE_FEATURES:
        return features_read(device);
    case VIRTIO_MMIO_QUEUE_NUM_MAX:
        return queue ? VIRTQUEUE_SIZE_MAX : 0;
    case VIRTIO_MMIO_QUEUE_READY:
        return queue && queue->ready;
    case VIRTIO_MMIO_STATUS:
        return device->status;
    case VIRTIO_MMIO_SHM_LEN_LOW: /* no such region: all ones (4.2.2.1) */
    case VIRTIO_MMIO_SHM_LEN_HIGH:
    case VIRTIO_MMIO_SHM_BASE_LOW:
    case VIRTIO_MMIO_SHM_BASE_HIGH:
        return UINT32_MAX;
    case VIRTIO_MMIO_CONFIG_GENERATION:
        return device->config_generation;
    default:
        return 0;
    }
}

static void register_write(struct virtio_device *device, uint32_t offset, uint32_t value)
{
    struct virtqueue *queue = NULL;
    switch (offset) {
    case VIRTIO_MMIO_DEVICE_FEATURES_SEL:
        device->features_page = value;
        break;
    case VIRTIO_MMIO_DRIVER_FEATURES:
        features_write(device, value);
        break;
    case VIRTIO_MMIO_DRIVER_FEATURES_SEL:
        device->driver_page = value;
        break;
    case VIRTIO_MMIO_QUEUE_SEL:
        device->queue_selected = value;
        break;
    case VIRTIO_MMIO_QUEUE_READY:
        queue_ready(device, value);
        break;
    case VIRTIO_MMIO_STATUS:
        set_status(device, value);
        break;
    default:
        queue = to_set_up(device);
        if (queue)
            queue_write(queue, offset, value);
        break;
    }
}

bool virtio_mmio_needs_no_lock(uint32_t offset, uint32_t size)
{
    return size == sizeof(uint32_t)
        && (offset == VIRTIO_MMIO_INTERRUPT_STATUS || offset == VIRTIO_MMIO_INTERRUPT_ACK);
}

void virtio_mmio_read(struct virtio_device *device, uint32_t offset, void *to, uint32_t size)
{
    assert(size <= ACCESS_MAX);
    memset(to, 0, size);
    if (offset >= VIRTIO_MMIO_CONFIG) {
        if (offset < VIRTIO_WINDOW_BYTES && device->operations->read_config)
            device->operations->read_config(device, offset - VIRTIO_MMIO_CONFIG, to, size);
        return;
    }
    uint32_t value = 0;
    if (size != sizeof value) /* registers are whole words, nothing else (4.2.2.2) */
        return;
    if (offset == VIRTIO_MMIO_INTERRUPT_STATUS)
        value = atomic_load(&device->interrupt_status);
    else
        value = register_read(device, offset);
    memcpy(to, &value, sizeof value);
}

void virtio_mmio_write(struct virtio_device *device, uint32_t offset, const void *from,
                       uint32_t size)
{
    assert(size <= ACCESS_MAX);
    if (offset >= VIRTIO_MMIO_CONFIG) {
        if (offset < VIRTIO_WINDOW_BYTES && device->operations->write_config
            && device->status & VIRTIO_CONFIG_S_DRIVER)
            device->operations->write_config(device, offset - VIRTIO_MMIO_CONFIG, from, size);
        return;
    }
    uint32_t value;
    if (size != sizeof value)
        return;
    memcpy(&value, from, sizeof value);
    if (offset == VIRTIO_MMIO_INTERRUPT_ACK)
        atomic_fetch_and(&device->interrupt_status, ~value);
    else
        register_write(device, offset, value);
}

void virtio_config_read(void *to, uint32_t size, uint32_t offset, const void *config,
                        uint32_t config_size)
{
    memset(to, 0, size);
    if (offset >= config_size)
        return;
    uint32_t left = config_size - offset;
    memcpy(to, (const uint8_t *)config + offset, size < left ? size : left);
}

/* ---- snapshots ---- */

static void queue_save(const struct virtqueue *queue, struct buffer *out)
{
    buffer_put_u64(out, queue->descriptors);
    buffer_put_u64(out, queue->available);
    buffer_put_u64(out, queue->used);
    buffer_put_u16(out, queue->size);
    buffer_put_u16(out, queue->next_available);
    buffer_put_u16(out, queue->next_used);
    buffer_put_u16(out, queue->signalled);
    buffer_put_u8(out, queue->ready);
    buffer_put_u8(out, queue->broken);
}

static status queue_load(struct virtqueue *ret, struct cursor *from, struct fault *fault)
{
    uint8_t ready, is_broken;
    TRY(cursor_u64(&ret->descriptors, from, fault));
    TRY(cursor_u64(&ret->available, from, fault));
    TRY(cursor_u64(&ret->used, from, fault));
    TRY(cursor_u16(&ret->size, from, fault));
    TRY(cursor_u16(&ret->next_available, from, fault));
    TRY(cursor_u16(&ret->next_used, from, fault));
    TRY(cursor_u16(&ret->signalled, from, fault));
    TRY(cursor_u8(&ready, from, fault));
    TRY(cursor_u8(&is_broken, from, fault));
    ret->ready = ready == 1;
    ret->broken = is_broken == 1;
    return ready <= 1 && is_broken <= 1 ? OK : FAIL(CORRUPT, fault, "a queue's flags");
}

void virtio_save(const struct virtio_device *device, struct buffer *out)
{
    buffer_put_u8(out, STATE_VERSION);
    buffer_put_u32(out, device->operations->kind);
    buffer_put_u32(out, device->operations->queues);
    buffer_put_u64(out, device->accepted);
    buffer_put_u32(out, device->features_page);
    buffer_put_u32(out, device->driver_page);
    buffer_put_u32(out, device->queue_selected);
    buffer_put_u32(out, device->status);
    buffer_put_u32(out, atomic_load(&device->interrupt_status));
    buffer_put_u32(out, device->config_generation);
    for (uint32_t i = 0; i < device->operations->queues; i++)
        queue_save(&device->queues[i], out);
    if (device->operations->save)
        device->operations->save(device, out);
}

static status load_head(struct virtio_device *device, struct cursor *from, struct fault *fault)
{
    const char *name = device->operations->name;
    uint8_t version;
    uint32_t kind, queues, interrupts;
    TRY(cursor_u8(&version, from, fault));
    TRY(cursor_u32(&kind, from, fault));
    TRY(cursor_u32(&queues, from, fault));
    TRY(cursor_u64(&device->accepted, from, fault));
    TRY(cursor_u32(&device->features_page, from, fault));
    TRY(cursor_u32(&device->driver_page, from, fault));
    TRY(cursor_u32(&device->queue_selected, from, fault));
    TRY(cursor_u32(&device->status, from, fault));
    TRY(cursor_u32(&interrupts, from, fault));
    TRY(cursor_u32(&device->config_generation, from, fault));
    if (version != STATE_VERSION)
        return FAIL(CORRUPT, fault, "%s: state of version %u", name, version);
    if (kind != device->operations->kind || queues != device->operations->queues)
        return FAIL(CORRUPT, fault, "%s: the state is of another device", name);
    bool agreed = device->status & VIRTIO_CONFIG_S_FEATURES_OK;
    bool working = device->status & VIRTIO_CONFIG_S_DRIVER_OK;
    if ((agreed && !features_fit(device)) || (working && !agreed))
        return FAIL(CORRUPT, fault, "%s: features that this device does not offer", name);
    atomic_store(&device->interrupt_status, interrupts);
    return OK;
}

static status load_queues(struct virtio_device *device, struct cursor *from, struct fault *fault)
{
    for (uint32_t i = 0; i < device->operations->queues; i++) {
        struct virtqueue *queue = &device->queues[i];
        TRY(queue_load(queue, from, fault));
        queue->event_index = virtio_has(device, VIRTIO_RING_F_EVENT_IDX);
        queue->indirect = virtio_has(device, VIRTIO_RING_F_INDIRECT_DESC);
        if (queue->ready && !virtqueue_activate(queue, device->host->memory))
            return FAIL(CORRUPT, fault, "%s: queue %u is not in the guest's memory",
                        device->operations->name, i);
    }
    return OK;
}

static status load_all(struct virtio_device *device, struct cursor *from, struct fault *fault)
{
    TRY(load_head(device, from, fault));
    TRY(load_queues(device, from, fault));
    uint32_t stopped = VIRTIO_CONFIG_S_NEEDS_RESET | VIRTIO_CONFIG_S_FAILED;
    device->active = device->status & VIRTIO_CONFIG_S_DRIVER_OK && !(device->status & stopped);
    for (uint32_t i = 0; i < device->operations->queues; i++) {
        device->asked[i] = false;
        ask_notify(device, i, true);
    }
    if (device->operations->load)
        TRY(device->operations->load(device, from, fault));
    for (uint32_t i = 0; i < device->operations->queues; i++)
        virtio_notify(device, i);
    return OK;
}

status virtio_load(struct virtio_device *device, struct cursor *from, struct fault *fault)
{
    reset(device);
    status loaded = load_all(device, from, fault);
    if (loaded != OK)
        reset(device);
    return loaded;
}
