/* The entropy device (virtio 1.2, 5.4). The guest's kernel seeds itself by it once and stirs a
 * little in from time to time: a few KiB a second are plenty, and a guest that asks without end
 * must not have the host's CPU for it. */
#define _GNU_SOURCE
#include "base/clock.h"
#include "vmm/virtio/bucket.h"
#include "vmm/virtio/devices.h"

#include <errno.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <sys/random.h>

enum {
    /* of one request. getrandom gives up to so many without a pause in which a signal could cut it
     * short (random(7)); a shorter answer than was asked for is the device's right (5.4.6). */
    REQUEST_BYTES_MAX = 256,
    TURN_REQUESTS = 32,
};

static const struct sandbox_rate rate = {
    .size = 64 * 1024, .one_time_burst = 64 * 1024, .refill_ms = 1000};

struct rng {
    struct virtio_device device;
    struct loop *loop;
    struct loop_timer timer; /* armed: the queue waits for tokens, or for its next turn */
    struct bucket bytes;
    struct virtqueue_chain chain;
};

static struct rng *rng_of(struct virtio_device *device)
{
    return (struct rng *)device;
}

/* Straight into the guest's memory. False: the kernel has none to give. */
static bool serve(struct rng *rng)
{
    const struct virtqueue_chain *chain = &rng->chain;
    uint32_t written = 0;
    for (uint16_t i = 0; i < chain->in_count && written < REQUEST_BYTES_MAX; i++) {
        size_t left = REQUEST_BYTES_MAX - written;
        size_t size = chain->in[i].iov_len < left ? chain->in[i].iov_len : left;
        /* the pool was ready before this process was made, so this can neither block nor fail */
        ssize_t got = getrandom(chain->in[i].iov_base, size, GRND_NONBLOCK);
        if (got < 0)
            return false;
        written += (uint32_t)got;
    }
    virtio_push(&rng->device, 0, chain->head, written);
    return true;
}

/* 0: a turn is over; else so long until the next. */
static int64_t turn(struct rng *rng)
{
    struct virtqueue *queue = &rng->device.queues[0];
    int64_t now_us = clock_monotonic_us();
    for (int served = 0; served < TURN_REQUESTS; served++) {
        if (!virtio_pop(&rng->chain, &rng->device, 0))
            return 0;
        uint32_t cost = rng->chain.in_bytes < REQUEST_BYTES_MAX ? rng->chain.in_bytes
                                                                : REQUEST_BYTES_MAX;
        if (cost == 0 || rng->chain.out_count) { /* a driver only hands buffers to be filled */
            virtio_fail(&rng->device);
            return 0;
        }
        if (!bucket_take(&rng->bytes, cost, now_us)) {
            virtqueue_unpop(queue);
            return bucket_wait_us(&rng->bytes, cost, now_us) + 1;
        }
        if (!serve(rng)) {
            virtio_fail(&rng->device);
            return 0;
        }
    }
    return 1;
}

static void work(void *context)
{
    struct rng *rng = context;
    int64_t wait_us = turn(rng);
    virtio_signal(&rng->device, 0);
    if (wait_us && rng->device.active)
        virtio_go_on(&rng->device, rng->loop, &rng->timer, wait_us, work);
}

static void rng_notify(struct virtio_device *device, uint32_t queue)
{
    (void)queue;
    if (rng_of(device)->timer.due_us == 0)
        work(device);
}

static void rng_reset(struct virtio_device *device)
{
    struct rng *rng = rng_of(device);
    loop_timer_stop(rng->loop, &rng->timer);
}

static void rng_destroy(struct virtio_device *device)
{
    rng_reset(device);
    free(device);
}

static void rng_save(const struct virtio_device *device, struct buffer *out)
{
    bucket_save(&((const struct rng *)device)->bytes, out);
}

static status rng_load(struct virtio_device *device, struct cursor *from, struct fault *fault)
{
    return bucket_load(&rng_of(device)->bytes, from, clock_monotonic_us(), fault);
}

static const struct virtio_operations operations = {
    .name = "rng",
    .kind = VIRTIO_KIND_RNG,
    .queues = 1,
    .reset = rng_reset,
    .notify = rng_notify,
    .destroy = rng_destroy,
    .save = rng_save,
    .load = rng_load,
};

status rng_create(struct virtio_device **ret, const struct device_place *place,
                  struct fault *fault)
{
    struct rng *rng = calloc(1, sizeof *rng);
    if (!rng)
        return FAIL(INTERNAL, fault, "rng: out of memory");
    rng->loop = place->loop;
    rng->bytes = bucket_of(&rate, clock_monotonic_us());
    virtio_init(&rng->device, &operations, place->host, place->line,
                UINT64_C(1) << VIRTIO_RING_F_INDIRECT_DESC);
    *ret = &rng->device;
    return OK;
}
