/* The balloon (virtio 1.2, 5.5): pages that the guest has given up, or says are free, go back to
 * the host. What the guest names is a claim: memory_release checks it, and takes from the guest
 * only what is the guest's. Nothing is remembered of it: a page that is used again comes back
 * zeroed, and the sandbox's cgroup bounds the whole. */
#define _GNU_SOURCE
#include "vmm/virtio/devices.h"

#include <linux/virtio_balloon.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>

enum { QUEUE_INFLATE, QUEUE_DEFLATE, QUEUES_MIN, QUEUES = 4 };
enum {
    PAGE_SHIFT = VIRTIO_BALLOON_PFN_SHIFT,
    BATCH_PAGES = 256,    /* that are sorted and released together: what Linux sends at once */
    TURN_CHAINS = 8,      /* of each queue, before others have their turn */
    CHAIN_PAGES_MAX = 1024, /* that one chain of the inflate queue may name */
    STAT_BYTES = sizeof(struct virtio_balloon_stat),
    STATS_BYTES_MAX = 64 * STAT_BYTES,
};

struct run { /* of guest memory, not released yet */
    uint64_t address, bytes;
};

struct balloon {
    struct virtio_device device; /* first */
    struct loop *loop;
    struct loop_timer again;
    uint32_t target, actual; /* pages of 4 KiB: what we want, what the driver says */
    uint32_t poison;         /* what the guest fills its free pages with */
    bool stats_held;         /* the driver's buffer waits for us to ask */
    bool stats_asked;
    uint16_t stats_head;
    uint16_t stats_known;    /* a bit a tag */
    uint64_t stats[VIRTIO_BALLOON_S_NR];
    uint32_t pages[BATCH_PAGES];
    struct virtqueue_chain chain;
};

static_assert(VIRTIO_BALLOON_S_NR <= 16, "stats_known has a bit for each");

static struct balloon *balloon_of(struct virtio_device *device)
{
    return (struct balloon *)(void *)device;
}

static void run_all(struct balloon *balloon);

static void on_again(void *context)
{
    run_all(context);
}

/* Queues of features that the driver has not accepted are left out, those behind move up (5.5.2).
 * 0: not there. */
static uint32_t stats_queue(const struct balloon *balloon)
{
    return virtio_has(&balloon->device, VIRTIO_BALLOON_F_STATS_VQ) ? QUEUES_MIN : 0;
}

static uint32_t reporting_queue(const struct balloon *balloon)
{
    if (!virtio_has(&balloon->device, VIRTIO_BALLOON_F_REPORTING))
        return 0;
    return stats_queue(balloon) ? QUEUES_MIN + 1 : QUEUES_MIN;
}

/* ---- giving back ---- */

static bool release(struct balloon *balloon, struct run *run)
{
    bool fits = run->bytes == 0
        || memory_release(balloon->device.host->memory, run->address, run->bytes);
    *run = (struct run){0};
    if (!fits)
        virtio_fail(&balloon->device); /* not the guest's: no driver errs like that */
    return fits;
}

/* Neighbours are released in one call of the kernel's. */
static bool extend(struct balloon *balloon, struct run *run, uint64_t address, uint64_t bytes)
{
    if (run->bytes && run->address + run->bytes == address) {
        run->bytes += bytes;
        return true;
    }
    if (!release(balloon, run))
        return false;
    *run = (struct run){address, bytes};
    return true;
}

/* By Shell: qsort asks the host how much memory it has. */
static void sort(uint32_t *pages, size_t count)
{
    for (size_t gap = count / 2; gap; gap /= 2)
        for (size_t i = gap; i < count; i++) {
            uint32_t page = pages[i];
            size_t at = i;
            for (; at >= gap && pages[at - gap] > page; at -= gap)
                pages[at] = pages[at - gap];
            pages[at] = page;
        }
}

/* Each page alone is looked at first: a run over two regions is none. */
static bool release_pages(struct balloon *balloon, size_t count)
{
    const struct guest_memory *memory = balloon->device.host->memory;
    uint32_t *pages = balloon->pages;
    struct run run = {0};
    sort(pages, count);
    for (size_t i = 0; i < count; i++) {
        uint64_t address = (uint64_t)pages[i] << PAGE_SHIFT;
        if (i && pages[i] == pages[i - 1])
            continue;
        if (!memory_at(memory, address, UINT64_C(1) << PAGE_SHIFT)) {
            virtio_fail(&balloon->device);
            return false;
        }
        if (!extend(balloon, &run, address, UINT64_C(1) << PAGE_SHIFT))
            return false;
    }
    return release(balloon, &run);
}

static void inflate(struct balloon *balloon)
{
    size_t bytes = balloon->chain.out_bytes;
    if (bytes % sizeof(uint32_t) || bytes > CHAIN_PAGES_MAX * sizeof(uint32_t)) {
        virtio_fail(&balloon->device);
        return;
    }
    for (size_t offset = 0; offset < bytes; offset += sizeof balloon->pages) {
        size_t got = virtqueue_read(balloon->pages, sizeof balloon->pages, &balloon->chain, offset);
        if (!release_pages(balloon, got / sizeof(uint32_t)))
            return;
    }
}

/* The chain's places are ours already: back to what the guest calls them. */
static uint64_t address_of(const struct guest_memory *memory, const void *at)
{
    for (uint32_t i = 0; i < memory->count; i++) {
        const struct memory_region *region = &memory->regions[i];
        uintptr_t offset = (uintptr_t)at - (uintptr_t)region->base;
        if ((uintptr_t)at >= (uintptr_t)region->base && offset < region->size)
            return region->address + offset;
    }
    return UINT64_MAX;
}

/* Free pages: their content may go (5.5.6.7), unless the guest relies on what it filled them with,
 * and ours read as zero. */
static void report(struct balloon *balloon)
{
    if (virtio_has(&balloon->device, VIRTIO_BALLOON_F_PAGE_POISON) && balloon->poison)
        return;
    struct run run = {0};
    for (uint16_t i = 0; i < balloon->chain.in_count; i++) {
        const struct iovec *place = &balloon->chain.in[i];
        uint64_t address = address_of(balloon->device.host->memory, place->iov_base);
        if (!extend(balloon, &run, address, place->iov_len))
            return;
    }
    release(balloon, &run);
}

/* ---- statistics ---- */

static void keep_stats(struct balloon *balloon)
{
    struct virtio_balloon_stat stat;
    uint32_t bytes = balloon->chain.out_bytes;
    for (size_t at = 0; at + STAT_BYTES <= bytes && at < STATS_BYTES_MAX; at += STAT_BYTES) {
        virtqueue_read(&stat, sizeof stat, &balloon->chain, at);
        if (stat.tag >= VIRTIO_BALLOON_S_NR)
            continue;
        balloon->stats[stat.tag] = stat.val;
        balloon->stats_known |= (uint16_t)(1u << stat.tag);
    }
}

/* The driver puts in one buffer and gets it back when we want to know: never two at a time. */
static void run_stats(struct balloon *balloon)
{
    uint32_t queue = stats_queue(balloon);
    if (!queue || !balloon->device.active)
        return;
    if (!balloon->stats_held && virtio_pop(&balloon->chain, &balloon->device, queue)) {
        keep_stats(balloon);
        balloon->stats_held = true;
        balloon->stats_head = balloon->chain.head;
    }
    if (!balloon->stats_held || !balloon->stats_asked)
        return;
    balloon->stats_held = balloon->stats_asked = false;
    virtio_push(&balloon->device, queue, balloon->stats_head, 0);
    virtio_signal(&balloon->device, queue);
}

void balloon_ask_stats(struct virtio_device *device)
{
    balloon_of(device)->stats_asked = true;
    run_stats(balloon_of(device));
}

bool balloon_stat(uint64_t *ret, const struct virtio_device *device, uint16_t tag)
{
    const struct balloon *balloon = (const struct balloon *)(const void *)device;
    if (tag >= VIRTIO_BALLOON_S_NR || !(balloon->stats_known >> tag & 1))
        return false;
    *ret = balloon->stats[tag];
    return true;
}

/* ---- queues ---- */

/* Returns whether there may be more. */
static bool run_queue(struct balloon *balloon, uint32_t queue,
                      void (*handle)(struct balloon *balloon))
{
    int chains = 0;
    for (; chains < TURN_CHAINS && virtio_pop(&balloon->chain, &balloon->device, queue); chains++) {
        uint16_t head = balloon->chain.head;
        if (handle)
            handle(balloon);
        virtio_push(&balloon->device, queue, head, 0);
    }
    virtio_signal(&balloon->device, queue);
    return chains == TURN_CHAINS;
}

static void run_all(struct balloon *balloon)
{
    bool more = run_queue(balloon, QUEUE_INFLATE, inflate);
    more |= run_queue(balloon, QUEUE_DEFLATE, NULL); /* pages come back when they are touched */
    if (reporting_queue(balloon))
        more |= run_queue(balloon, reporting_queue(balloon), report);
    run_stats(balloon);
    if (more)
        virtio_go_on(&balloon->device, balloon->loop, &balloon->again, 0, on_again);
}

static void reset(struct virtio_device *device)
{
    struct balloon *balloon = balloon_of(device);
    balloon->actual = balloon->poison = 0;
    balloon->stats_held = balloon->stats_asked = false;
    balloon->stats_known = 0;
}

static void notify(struct virtio_device *device, uint32_t queue)
{
    (void)queue;
    if (!balloon_of(device)->again.due_us) /* else what is left has its turn then */
        run_all(balloon_of(device));
}

/* ---- configuration ---- */

static struct virtio_balloon_config config_of(const struct balloon *balloon)
{
    return (struct virtio_balloon_config){
        .num_pages = balloon->target, .actual = balloon->actual, .poison_val = balloon->poison};
}

static void read_config(struct virtio_device *device, uint32_t offset, void *to, uint32_t size)
{
    const struct virtio_balloon_config config = config_of(balloon_of(device));
    virtio_config_read(to, size, offset, &config, sizeof config);
}

static void write_config(struct virtio_device *device, uint32_t offset, const void *from,
                         uint32_t size)
{
    struct balloon *balloon = balloon_of(device);
    uint32_t value;
    if (size != sizeof value)
        return;
    memcpy(&value, from, sizeof value);
    if (offset == offsetof(struct virtio_balloon_config, actual))
        balloon->actual = value;
    else if (offset == offsetof(struct virtio_balloon_config, poison_val))
        balloon->poison = value;
}

void balloon_set_target(struct virtio_device *device, uint32_t pages_4k)
{
    balloon_of(device)->target = pages_4k;
    virtio_config_changed(device);
}

uint32_t balloon_actual(const struct virtio_device *device)
{
    return ((const struct balloon *)(const void *)device)->actual;
}

/* ---- the device ---- */

static void destroy(struct virtio_device *device)
{
    struct balloon *balloon = balloon_of(device);
    loop_timer_stop(balloon->loop, &balloon->again);
    free(balloon);
}

static void save(const struct virtio_device *device, struct buffer *out)
{
    const struct balloon *balloon = (const struct balloon *)(const void *)device;
    buffer_put_u32(out, balloon->target);
    buffer_put_u32(out, balloon->actual);
    buffer_put_u32(out, balloon->poison);
    buffer_put_u8(out, balloon->stats_held);
    buffer_put_u16(out, balloon->stats_head);
}

static status load(struct virtio_device *device, struct cursor *from, struct fault *fault)
{
    struct balloon *balloon = balloon_of(device);
    uint8_t held;
    TRY(cursor_u32(&balloon->target, from, fault));
    TRY(cursor_u32(&balloon->actual, from, fault));
    TRY(cursor_u32(&balloon->poison, from, fault));
    TRY(cursor_u8(&held, from, fault));
    TRY(cursor_u16(&balloon->stats_head, from, fault));
    balloon->stats_held = held == 1;
    return held <= 1 ? OK : FAIL(CORRUPT, fault, "balloon: flags");
}

static const struct virtio_operations operations = {
    .name = "balloon",
    .kind = VIRTIO_KIND_BALLOON,
    .queues = QUEUES,
    .reset = reset,
    .notify = notify,
    .read_config = read_config,
    .write_config = write_config,
    .destroy = destroy,
    .save = save,
    .load = load,
};

status balloon_create(struct virtio_device **ret, const struct device_place *place,
                      struct fault *fault)
{
    struct balloon *balloon = calloc(1, sizeof *balloon);
    if (!balloon)
        return FAIL(OUT_OF_SPACE, fault, "balloon: out of memory");
    virtio_init(&balloon->device, &operations, place->host, place->line,
                UINT64_C(1) << VIRTIO_BALLOON_F_STATS_VQ
                    | UINT64_C(1) << VIRTIO_BALLOON_F_DEFLATE_ON_OOM
                    | UINT64_C(1) << VIRTIO_BALLOON_F_REPORTING
                    | UINT64_C(1) << VIRTIO_BALLOON_F_PAGE_POISON);
    balloon->loop = place->loop;
    *ret = &balloon->device;
    return OK;
}
