/* The block device (virtio 1.2, 5.2). Requests are served at once, in order, by the host's page
 * cache or disk straight into the guest's memory; a turn is bounded, so that a guest that floods
 * its disk does not keep its other devices waiting. */
#define _GNU_SOURCE
#include "base/clock.h"
#include "vmm/virtio/bucket.h"
#include "vmm/virtio/devices.h"
#include "vmm/virtio/image.h"

#include <assert.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>

enum {
    SECTOR = 512,
    DATA_BYTES_MAX = 16 * 1024 * 1024, /* of one request */
    SEGMENT_BYTES_MAX = 64 * 1024,     /* as the driver is told; more is served as well */
    RANGES_MAX = 8,                    /* of one DISCARD or WRITE_ZEROES */
    RANGE_SECTORS_MAX = 64 * 1024 * 1024 / SECTOR,
    TURN_REQUESTS = 64,
    TURN_BYTES = 4 * 1024 * 1024,
    TURN_US = 1000, /* a slow disk: no request is begun after this */
    AT_ONCE = 1,    /* in place of a time to wait; the loop would sleep a whole millisecond */
    HEAD_BYTES = sizeof(struct virtio_blk_outhdr),
};

static_assert(HEAD_BYTES == 16, "as on the wire");
static_assert(sizeof(struct virtio_blk_discard_write_zeroes) == 16, "as on the wire");

struct block {
    struct virtio_device device;
    struct loop *loop;
    struct loop_timer timer; /* armed: the queue waits for tokens, or for its next turn */
    struct image image;
    struct bucket bytes, ops;
    struct virtio_blk_config config;
    char serial[VIRTIO_BLK_ID_BYTES];
    struct virtqueue_chain chain; /* the one in hand */
};

static struct block *block_of(struct virtio_device *device)
{
    return (struct block *)device;
}

struct request { /* copied from the guest, once */
    uint32_t type;
    uint64_t sector;
    uint64_t out_bytes, in_bytes; /* of data: without head and status */
};

/* ---- one request ---- */

/* False: no head or no place for the status, so there is nobody to answer. */
static bool read_head(struct request *ret, const struct virtqueue_chain *chain)
{
    struct virtio_blk_outhdr head;
    if (virtqueue_read(&head, sizeof head, chain, 0) != sizeof head || chain->in_bytes == 0)
        return false;
    *ret = (struct request){
        .type = head.type,
        .sector = head.sector,
        .out_bytes = chain->out_bytes - HEAD_BYTES,
        .in_bytes = chain->in_bytes - 1,
    };
    return true;
}

static bool in_image(const struct block *block, uint64_t sector, uint64_t bytes)
{
    uint64_t sectors = block->config.capacity;
    return bytes % SECTOR == 0 && sector <= sectors && bytes / SECTOR <= sectors - sector;
}

static bool writable(const struct block *block)
{
    return block->image.overlay >= 0;
}

static uint8_t of_success(bool success)
{
    return success ? VIRTIO_BLK_S_OK : VIRTIO_BLK_S_IOERR;
}

static uint8_t read_data(struct block *block, const struct request *request)
{
    struct virtqueue_chain *chain = &block->chain;
    if (!in_image(block, request->sector, request->in_bytes) || request->out_bytes
        || request->in_bytes > DATA_BYTES_MAX)
        return VIRTIO_BLK_S_IOERR;
    return of_success(image_read(&block->image, request->sector * SECTOR, request->in_bytes,
                                 chain->in, chain->in_count));
}

static uint8_t write_data(struct block *block, const struct request *request)
{
    struct virtqueue_chain *chain = &block->chain;
    if (!writable(block) || !in_image(block, request->sector, request->out_bytes)
        || request->in_bytes || request->out_bytes > DATA_BYTES_MAX)
        return VIRTIO_BLK_S_IOERR;
    struct iovec *data = chain->out;
    size_t head = HEAD_BYTES;
    while (head && head >= data->iov_len)
        head -= (data++)->iov_len;
    data->iov_base = (uint8_t *)data->iov_base + head;
    data->iov_len -= head;
    uint32_t count = chain->out_count - (uint32_t)(data - chain->out);
    return of_success(image_write(&block->image, request->sector * SECTOR, request->out_bytes,
                                  data, count));
}

static uint8_t tell_serial(struct block *block, const struct request *request)
{
    if (request->in_bytes != sizeof block->serial || request->out_bytes)
        return VIRTIO_BLK_S_IOERR;
    virtqueue_write(&block->chain, 0, block->serial, sizeof block->serial);
    return VIRTIO_BLK_S_OK;
}

/* All ranges are judged before the first is touched. Without the unmap flag zeros might be kept
 * allocated; the overlay promises space to nobody, so there is one way for both. */
static uint8_t clear_ranges(struct block *block, const struct request *request)
{
    struct virtio_blk_discard_write_zeroes ranges[RANGES_MAX];
    bool discard = request->type == VIRTIO_BLK_T_DISCARD;
    uint64_t count = request->out_bytes / sizeof *ranges;
    if (!writable(block) || !block->image.punches || request->in_bytes || count == 0
        || count > RANGES_MAX || request->out_bytes % sizeof *ranges)
        return VIRTIO_BLK_S_IOERR;
    virtqueue_read(ranges, (size_t)request->out_bytes, &block->chain, HEAD_BYTES);
    uint32_t known = discard ? 0 : VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
    for (uint64_t i = 0; i < count; i++) {
        if (ranges[i].flags & ~known)
            return VIRTIO_BLK_S_UNSUPP; /* 5.2.6.2 */
        if (ranges[i].num_sectors > RANGE_SECTORS_MAX
            || !in_image(block, ranges[i].sector, (uint64_t)ranges[i].num_sectors * SECTOR))
            return VIRTIO_BLK_S_IOERR;
    }
    bool done = true;
    for (uint64_t i = 0; i < count && done; i++) {
        uint64_t offset = ranges[i].sector * SECTOR;
        uint64_t bytes = (uint64_t)ranges[i].num_sectors * SECTOR;
        done = discard ? image_discard(&block->image, offset, bytes)
                       : image_zero(&block->image, offset, bytes);
    }
    return of_success(done);
}

static uint8_t serve(struct block *block, const struct request *request)
{
    switch (request->type) {
    case VIRTIO_BLK_T_IN:
        return read_data(block, request);
    case VIRTIO_BLK_T_OUT:
        return write_data(block, request);
    case VIRTIO_BLK_T_FLUSH:
        /* The overlay has no name and ends with this process: nobody can find it after a crash of
         * the host, so there is nothing that a disk would have to keep. */
        return VIRTIO_BLK_S_OK;
    case VIRTIO_BLK_T_GET_ID:
        return tell_serial(block, request);
    case VIRTIO_BLK_T_DISCARD:
    case VIRTIO_BLK_T_WRITE_ZEROES:
        return clear_ranges(block, request);
    default:
        return VIRTIO_BLK_S_UNSUPP;
    }
}

/* The status is the last byte of the last segment; serving uses the segments up. */
static uint8_t *take_status(struct virtqueue_chain *chain)
{
    struct iovec *last = &chain->in[chain->in_count - 1];
    last->iov_len--;
    return (uint8_t *)last->iov_base + last->iov_len;
}

static void answer(struct block *block, const struct request *request)
{
    uint8_t *at = take_status(&block->chain);
    uint8_t result = serve(block, request);
    *(volatile uint8_t *)at = result;
    /* `written` vouches for the bytes from the first on: of a request that failed, for none */
    uint32_t written = result == VIRTIO_BLK_S_OK || request->in_bytes == 0
        ? (uint32_t)request->in_bytes + 1 : 0;
    virtio_push(&block->device, 0, block->chain.head, written);
}

/* ---- the queue ---- */

/* With the blocks that take their other bytes along: of a small write they are most of it. */
static uint64_t cost_bytes(const struct request *request)
{
    const uint64_t block = IMAGE_BLOCK_BYTES / SECTOR;
    bool moves_data = request->type == VIRTIO_BLK_T_IN || request->type == VIRTIO_BLK_T_OUT;
    uint64_t bytes = request->in_bytes + request->out_bytes;
    if (!moves_data || bytes > DATA_BYTES_MAX)
        return 0;
    uint64_t begin = request->sector % block, end = begin + bytes / SECTOR;
    bool cut_begin = begin != 0, cut_end = end % block != 0 && (end > block || !cut_begin);
    uint64_t moved = request->type == VIRTIO_BLK_T_OUT ? (uint64_t)cut_begin + cut_end : 0;
    return bytes + moved * IMAGE_BLOCK_BYTES;
}

/* Each range is a change of the host's file system. */
static uint64_t cost_operations(const struct request *request)
{
    bool clears = request->type == VIRTIO_BLK_T_DISCARD
        || request->type == VIRTIO_BLK_T_WRITE_ZEROES;
    uint64_t ranges = request->out_bytes / sizeof(struct virtio_blk_discard_write_zeroes);
    return clears && ranges > 1 && ranges <= RANGES_MAX ? ranges : 1;
}

/* Microseconds to wait before the request may be served; 0: it has been paid for. */
static int64_t pay(struct block *block, const struct request *request, int64_t now_us)
{
    uint64_t bytes = cost_bytes(request), operations = cost_operations(request);
    if (!bucket_take(&block->ops, operations, now_us))
        return bucket_wait_us(&block->ops, operations, now_us) + 1;
    if (bucket_take(&block->bytes, bytes, now_us))
        return 0;
    bucket_give_back(&block->ops, operations);
    return bucket_wait_us(&block->bytes, bytes, now_us) + 1;
}

/* 0: the queue is empty, or no longer ours; else the time to go on after, and until then the driver
 * need not tell us anything. */
static int64_t turn(struct block *block)
{
    struct virtio_device *device = &block->device;
    int64_t now_us = clock_monotonic_us();
    uint64_t bytes = 0;
    for (int served = 0; served < TURN_REQUESTS && bytes < TURN_BYTES
         && clock_monotonic_us() - now_us < TURN_US;) {
        struct request request;
        if (!virtio_next(&block->chain, device, 0))
            return 0;
        if (!read_head(&request, &block->chain)) {
            virtio_fail(device);
            return 0;
        }
        int64_t wait_us = pay(block, &request, now_us);
        if (wait_us) {
            virtqueue_unpop(&device->queues[0]);
            return wait_us;
        }
        answer(block, &request);
        bytes += cost_bytes(&request);
        served++;
    }
    return AT_ONCE;
}

static void work(void *context)
{
    struct block *block = context;
    int64_t wait_us = turn(block);
    virtio_signal(&block->device, 0);
    if (wait_us)
        virtio_go_on(&block->device, block->loop, &block->timer,
                     wait_us == AT_ONCE ? 0 : wait_us, work);
}

static void block_notify(struct virtio_device *device, uint32_t queue)
{
    (void)queue;
    if (block_of(device)->timer.due_us == 0)
        work(device);
}

/* ---- the device ---- */

static void block_reset(struct virtio_device *device)
{
    struct block *block = block_of(device);
    loop_timer_stop(block->loop, &block->timer);
}

static void block_read_config(struct virtio_device *device, uint32_t offset, void *to,
                              uint32_t size)
{
    virtio_config_read(to, size, offset, &block_of(device)->config,
                       sizeof(struct virtio_blk_config));
}

static void block_destroy(struct virtio_device *device)
{
    block_reset(device);
    image_close(&block_of(device)->image);
    free(device);
}

static void block_save(const struct virtio_device *device, struct buffer *out)
{
    const struct block *block = (const struct block *)device;
    bucket_save(&block->bytes, out);
    bucket_save(&block->ops, out);
    image_save(&block->image, out);
}

static status block_load(struct virtio_device *device, struct cursor *from, struct fault *fault)
{
    struct block *block = block_of(device);
    int64_t now_us = clock_monotonic_us();
    TRY(bucket_load(&block->bytes, from, now_us, fault));
    TRY(bucket_load(&block->ops, from, now_us, fault));
    return image_load(&block->image, from, fault);
}

static const struct virtio_operations operations = {
    .name = "block",
    .kind = VIRTIO_KIND_BLOCK,
    .queues = 1,
    .reset = block_reset,
    .notify = block_notify,
    .read_config = block_read_config,
    .destroy = block_destroy,
    .save = block_save,
    .load = block_load,
};

static uint64_t features(const struct block *block)
{
    uint64_t offered = UINT64_C(1) << VIRTIO_BLK_F_SIZE_MAX | UINT64_C(1) << VIRTIO_BLK_F_SEG_MAX
        | UINT64_C(1) << VIRTIO_BLK_F_BLK_SIZE | UINT64_C(1) << VIRTIO_BLK_F_TOPOLOGY
        | UINT64_C(1) << VIRTIO_BLK_F_FLUSH | UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX
        | UINT64_C(1) << VIRTIO_RING_F_INDIRECT_DESC;
    if (!writable(block))
        offered |= UINT64_C(1) << VIRTIO_BLK_F_RO;
    else if (block->image.punches)
        offered |= UINT64_C(1) << VIRTIO_BLK_F_DISCARD | UINT64_C(1) << VIRTIO_BLK_F_WRITE_ZEROES;
    return offered;
}

static struct virtio_blk_config config_of(uint64_t bytes)
{
    return (struct virtio_blk_config){
        .capacity = bytes / SECTOR,
        .size_max = SEGMENT_BYTES_MAX,
        .seg_max = VIRTQUEUE_SEGMENTS_MAX - 2, /* the head, the status */
        .blk_size = SECTOR,
        .physical_block_exp = 3, /* a smaller write costs a read of its block */
        .min_io_size = IMAGE_BLOCK_BYTES / SECTOR,
        .max_discard_sectors = RANGE_SECTORS_MAX,
        .max_discard_seg = RANGES_MAX,
        .discard_sector_alignment = IMAGE_BLOCK_BYTES / SECTOR,
        .max_write_zeroes_sectors = RANGE_SECTORS_MAX,
        .max_write_zeroes_seg = RANGES_MAX,
        .write_zeroes_may_unmap = 1,
    };
}

status block_create(struct virtio_device **ret, const struct block_config *config,
                    const struct device_place *place, struct fault *fault)
{
    if (config->bytes == 0 || config->bytes % SECTOR || config->bytes > INT64_MAX)
        return FAIL(BAD_FIELD, fault, "block device: whole sectors of %d bytes", SECTOR);
    struct block *block = calloc(1, sizeof *block);
    if (!block)
        return FAIL(INTERNAL, fault, "block device: out of memory");
    status opened = image_open(&block->image, config->base, config->overlay, config->bytes, fault);
    if (opened != OK) {
        free(block);
        return opened;
    }
    int64_t now_us = clock_monotonic_us();
    block->loop = place->loop;
    block->bytes = bucket_of(&config->rate_bytes, now_us);
    block->ops = bucket_of(&config->rate_ops, now_us);
    block->config = config_of(config->bytes);
    memcpy(block->serial, config->serial, sizeof block->serial);
    virtio_init(&block->device, &operations, place->host, place->line, features(block));
    *ret = &block->device;
    return OK;
}
