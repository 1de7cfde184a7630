/* device.h: what all virtio devices have in common, behind a virtio-mmio window (virtio 1.2,
 * 4.2.2, version 2 only).
 *
 * One lock over all devices of a machine is held by whoever calls in here: a vCPU thread for a
 * register, the device thread for everything else. Queue notifications reach the device thread
 * through an ioeventfd, never run on a vCPU. What a device is at stands in its own struct, which
 * begins with struct virtio_device and is written to a snapshot by `save`. */
#pragma once

#include "base/buffer.h"
#include "base/cursor.h"
#include "base/loop.h"
#include "vmm/virtio/queue.h"

enum { VIRTIO_QUEUES_MAX = 8, VIRTIO_WINDOW_BYTES = 0x1000 };

enum virtio_kind { /* virtio 1.2, 5 */
    VIRTIO_KIND_NET = 1, VIRTIO_KIND_BLOCK = 2, VIRTIO_KIND_RNG = 4, VIRTIO_KIND_BALLOON = 5,
    VIRTIO_KIND_VSOCK = 19
};

struct virtio_device;

struct virtio_operations {
    const char *name;
    uint32_t kind;
    uint32_t queues; /* 1..VIRTIO_QUEUES_MAX */
    /* The driver has set DRIVER_OK with these features. NULL: that changes nothing. */
    void (*activate)(struct virtio_device *device);
    /* Status 0 was written: forget all that is under way; queues are cleared by the caller. */
    void (*reset)(struct virtio_device *device);
    /* The driver has notified this queue; may also be called when it has not. The device is active
     * and the queue ready. */
    void (*notify)(struct virtio_device *device, uint32_t queue);
    /* Bytes of the device's configuration space; outside of it reads are 0, writes ignored. */
    void (*read_config)(struct virtio_device *device, uint32_t offset, void *to, uint32_t size);
    void (*write_config)(struct virtio_device *device, uint32_t offset, const void *from,
                         uint32_t size); /* NULL: nothing can be written */
    void (*destroy)(struct virtio_device *device); /* closes what it has, frees it */
    /* The device's own state beyond struct virtio_device, to a snapshot and back; NULL: it has
     * none. load finds the common part in place and arms what activate would have armed; every
     * queue is notified once after it, and its driver asked for notifications before. */
    void (*save)(const struct virtio_device *device, struct buffer *out);
    status (*load)(struct virtio_device *device, struct cursor *from, struct fault *fault);
};

/* What a device can ask of its machine. */
struct virtio_host {
    const struct guest_memory *memory;
    void (*interrupt)(void *context, uint32_t line); /* an edge */
    void (*rule_broken)(void *context, const char *device); /* by the driver; may be NULL */
    void *context;
};

struct virtio_device {
    const struct virtio_operations *operations;
    const struct virtio_host *host;
    uint32_t line;         /* its interrupt, as the ACPI tables say */
    uint64_t offered;      /* features; VIRTIO_F_VERSION_1 is always among them */
    uint64_t accepted;     /* by the driver; from FEATURES_OK on only of those offered */
    uint32_t features_page, driver_page, queue_selected, status;
    _Atomic uint32_t interrupt_status; /* read and acknowledged by a vCPU without the lock */
    uint32_t config_generation;
    bool active;           /* between DRIVER_OK and reset, nothing broken */
    struct virtqueue queues[VIRTIO_QUEUES_MAX];
    bool asked[VIRTIO_QUEUES_MAX]; /* the driver will tell of the next chain: virtio_next's */
};

void virtio_init(struct virtio_device *device, const struct virtio_operations *operations,
                 const struct virtio_host *host, uint32_t line, uint64_t features);

/* An access to its window; size 1, 2, 4 or 8, offset below VIRTIO_WINDOW_BYTES. Reads fill all of
 * size; what the standard does not define reads as 0 and writes nothing. QueueNotify does nothing
 * here: it is the ioeventfds'. */
void virtio_mmio_read(struct virtio_device *device, uint32_t offset, void *to, uint32_t size);
void virtio_mmio_write(struct virtio_device *device, uint32_t offset, const void *from,
                       uint32_t size);

/* InterruptStatus and InterruptACK: these two registers may be accessed without the lock. */
bool virtio_mmio_needs_no_lock(uint32_t offset, uint32_t size);

/* From the queue's ioeventfd. */
void virtio_notify(struct virtio_device *device, uint32_t queue);

bool virtio_has(const struct virtio_device *device, uint32_t feature_bit);
/* virtqueue_pop for devices: nothing while the device is not active; when the driver has broken the
 * queue, virtio_fail. */
bool virtio_pop(struct virtqueue_chain *ret, struct virtio_device *device, uint32_t queue);
/* The same for a queue that is worked off: while there are chains the driver need not tell of more;
 * where there is none it is asked to, and the queue looked at once more. To be used for all chains
 * of a queue, or for the first of each go. */
bool virtio_next(struct virtqueue_chain *ret, struct virtio_device *device, uint32_t queue);
void virtio_push(struct virtio_device *device, uint32_t queue, uint16_t head, uint32_t written);
/* Calls on_time with the device in so long; when there is no memory for that the device fails,
 * which is better than a driver that waits for ever. */
void virtio_go_on(struct virtio_device *device, struct loop *loop, struct loop_timer *timer,
                  int64_t after_us, loop_on_time *on_time);
/* For read_config: the bytes of config that lie in the range, 0 for the others. */
void virtio_config_read(void *to, uint32_t size, uint32_t offset, const void *config,
                        uint32_t config_size);
/* Interrupts the driver if it wants to hear of what was pushed to this queue. */
void virtio_signal(struct virtio_device *device, uint32_t queue);
void virtio_config_changed(struct virtio_device *device);
/* The driver broke a rule: DEVICE_NEEDS_RESET, and nothing more happens until it resets. The host
 * counts how often that comes to pass. */
void virtio_fail(struct virtio_device *device);

/* The common part and what the device has of its own. load: CORRUPT, the device is then reset. */
void virtio_save(const struct virtio_device *device, struct buffer *out);
MUST_CHECK status virtio_load(struct virtio_device *device, struct cursor *from,
                              struct fault *fault);
