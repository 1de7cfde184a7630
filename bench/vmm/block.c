/* What the block device adds to the host's own reads: requests of a driver in memory, beside plain
 * pread of the same file by the same thread. One line of JSON: ns a request of each. And how long
 * one turn of a busy disk lasts, which is what the guest's other devices wait for at most: us.
 *
 *     bench-vmm-block [MIB [DIR]]     the file's size, default 256; it has no name and lies in
 *                                     memory; with DIR another in there, for turns from the disk */
#define _GNU_SOURCE
#include "base/clock.h"
#include "vmm/virtio/devices.h"

#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    QUEUE = 256, DEPTH_MAX = 32, DATA_MAX = 128 * 1024,
    DESCRIPTORS = 0x1000, AVAILABLE = 0x3000, USED = 0x4000, HEADS = 0x6000, DATA = 0x100000,
    ROUND_US = 400000, TURNS = 101,
};

struct bench {
    struct guest_memory memory;
    struct virtio_host host;
    struct virtio_device *device;
    struct loop *loop;
    uint64_t file_bytes, chance, interrupts;
    uint16_t next_available;
    int file, told;
};

static void die(const char *what, const struct fault *fault)
{
    fprintf(stderr, "bench-vmm-block: %s: %s\n", what, fault->detail);
    exit(1);
}

static void count_interrupt(void *context, uint32_t line)
{
    (void)line;
    ((struct bench *)context)->interrupts++;
}

static void put(struct bench *bench, uint32_t offset, uint32_t value)
{
    virtio_mmio_write(bench->device, offset, &value, sizeof value);
}

static void start(struct bench *bench)
{
    put(bench, VIRTIO_MMIO_STATUS, 0);
    put(bench, VIRTIO_MMIO_STATUS, 3);
    put(bench, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
    put(bench, VIRTIO_MMIO_DRIVER_FEATURES, 1U << VIRTIO_RING_F_EVENT_IDX);
    put(bench, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
    put(bench, VIRTIO_MMIO_DRIVER_FEATURES, 1U << (VIRTIO_F_VERSION_1 - 32));
    put(bench, VIRTIO_MMIO_STATUS, 11);
    put(bench, VIRTIO_MMIO_QUEUE_NUM, QUEUE);
    put(bench, VIRTIO_MMIO_QUEUE_DESC_LOW, DESCRIPTORS);
    put(bench, VIRTIO_MMIO_QUEUE_AVAIL_LOW, AVAILABLE);
    put(bench, VIRTIO_MMIO_QUEUE_USED_LOW, USED);
    put(bench, VIRTIO_MMIO_QUEUE_READY, 1);
    put(bench, VIRTIO_MMIO_STATUS, 15);
    bench->next_available = 0;
}

static uint64_t next_offset(struct bench *bench, uint32_t bytes, bool sequential, uint64_t number)
{
    uint64_t slots = bench->file_bytes / bytes;
    if (sequential)
        return number % slots * bytes;
    bench->chance ^= bench->chance << 13;
    bench->chance ^= bench->chance >> 7;
    bench->chance ^= bench->chance << 17;
    return bench->chance % slots * bytes;
}

/* Three descriptors a request: head, data, status. */
static void offer(struct bench *bench, uint32_t slot, uint64_t offset, uint32_t bytes)
{
    uint8_t *low = bench->memory.regions[0].base;
    struct vring_desc *descriptors = (struct vring_desc *)(void *)(low + DESCRIPTORS);
    struct vring_avail *available = (struct vring_avail *)(void *)(low + AVAILABLE);
    uint16_t first = (uint16_t)(slot * 3);
    uint64_t head_at = HEADS + slot * 32;
    *(struct virtio_blk_outhdr *)(void *)(low + head_at) = (struct virtio_blk_outhdr){
        .type = VIRTIO_BLK_T_IN, .sector = offset / 512};
    descriptors[first] = (struct vring_desc){head_at, 16, VRING_DESC_F_NEXT, first + 1};
    descriptors[first + 1] = (struct vring_desc){
        DATA + (uint64_t)slot * DATA_MAX, bytes, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, first + 2};
    descriptors[first + 2] = (struct vring_desc){head_at + 16, 1, VRING_DESC_F_WRITE, 0};
    available->ring[bench->next_available++ % QUEUE] = first;
    __atomic_store_n(&available->idx, bench->next_available, __ATOMIC_RELEASE);
}

static double by_device(struct bench *bench, uint32_t bytes, bool sequential, uint32_t depth)
{
    const uint8_t *low = bench->memory.regions[0].base;
    const struct vring_used *used = (const struct vring_used *)(const void *)(low + USED);
    uint64_t done = 0;
    int64_t began = clock_monotonic_us(), now = began;
    while (now - began < ROUND_US) {
        for (uint32_t i = 0; i < depth; i++)
            offer(bench, i, next_offset(bench, bytes, sequential, done + i), bytes);
        virtio_notify(bench->device, 0);
        struct fault fault;
        while (__atomic_load_n(&used->idx, __ATOMIC_ACQUIRE) != bench->next_available)
            if (loop_turn(bench->loop, -1, &fault) != OK)
                die("loop", &fault);
        for (uint32_t i = 0; i < depth; i++)
            if (low[HEADS + i * 32 + 16] != VIRTIO_BLK_S_OK)
                exit(1);
        done += depth;
        now = clock_monotonic_us();
    }
    return (double)(now - began) * 1000 / (double)done;
}

static double by_pread(struct bench *bench, uint32_t bytes, bool sequential, uint32_t depth)
{
    uint8_t *to = bench->memory.regions[0].base + DATA;
    uint64_t done = 0;
    int64_t began = clock_monotonic_us(), now = began;
    while (now - began < ROUND_US) {
        for (uint32_t i = 0; i < depth; i++) {
            uint64_t offset = next_offset(bench, bytes, sequential, done + i);
            if (pread(bench->file, to + (size_t)i * DATA_MAX, bytes, (off_t)offset)
                != (ssize_t)bytes)
                exit(1);
        }
        done += depth;
        now = clock_monotonic_us();
    }
    return (double)(now - began) * 1000 / (double)done;
}

static void make(struct bench *bench, bool overlay, struct fault *fault)
{
    const struct device_place place = {.host = &bench->host, .loop = bench->loop, .line = 16};
    const struct block_config config = {
        .base = dup(bench->file), .overlay = overlay ? memfd_create("overlay", 0) : -1,
        .bytes = bench->file_bytes};
    if (block_create(&bench->device, &config, &place, fault) != OK)
        die("device", fault);
    start(bench);
}

static void compare(struct bench *bench, const char *name, uint32_t bytes, bool sequential,
                    uint32_t depth)
{
    double device = by_device(bench, bytes, sequential, depth);
    double plain = by_pread(bench, bytes, sequential, depth);
    printf("%s\"%s, depth %u\": {\"device_ns\": %.0f, \"pread_ns\": %.0f}",
           bench->told++ ? ", " : "{", name, depth, device, plain);
}

static int by_size(const void *left, const void *right)
{
    const int64_t *a = left, *b = right;
    return *a < *b ? -1 : *a > *b;
}

/* The longest that the device keeps the thread when it has as many bytes to read as one turn may
 * have: one time each. */
static void turns(struct bench *bench, const char *name, bool cold)
{
    const uint8_t *low = bench->memory.regions[0].base;
    const struct vring_used *used = (const struct vring_used *)(const void *)(low + USED);
    int64_t took[TURNS] = {0};
    make(bench, false, &(struct fault){0});
    for (int i = 0; i < TURNS; i++) {
        for (uint32_t slot = 0; slot < DEPTH_MAX; slot++)
            offer(bench, slot, next_offset(bench, DATA_MAX, false, 0), DATA_MAX);
        if (cold)
            posix_fadvise(bench->file, 0, 0, POSIX_FADV_DONTNEED);
        int64_t began = clock_monotonic_us(), now;
        virtio_notify(bench->device, 0);
        for (;;) {
            struct fault fault;
            now = clock_monotonic_us();
            took[i] = now - began > took[i] ? now - began : took[i];
            if (__atomic_load_n(&used->idx, __ATOMIC_ACQUIRE) == bench->next_available)
                break;
            began = now;
            if (loop_turn(bench->loop, -1, &fault) != OK)
                die("loop", &fault);
        }
    }
    qsort(took, TURNS, sizeof *took, by_size);
    printf(", \"%s\": {\"p50_us\": %lld, \"max_us\": %lld}", name, (long long)took[TURNS / 2],
           (long long)took[TURNS - 1]);
    device_free(bench->device);
}

/* Returns whether it could be written. */
static bool fill(int file, uint64_t mib)
{
    static uint8_t some[1 << 20];
    memset(some, 0x5a, sizeof some);
    for (uint64_t i = 0; i < mib; i++)
        if (pwrite(file, some, sizeof some, (off_t)(i << 20)) != sizeof some)
            return false;
    return fdatasync(file) == 0;
}

static void turns_from_disk(struct bench *bench, const char *directory, uint64_t mib)
{
    close(bench->file);
    bench->file = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (bench->file < 0 || !fill(bench->file, mib))
        exit(1);
    turns(bench, "a turn from the disk", true);
}

int main(int argc, char **argv)
{
    struct fault fault;
    struct bench bench = {.chance = 88172645463325252U};
    uint64_t mib = argc > 1 ? strtoull(argv[1], NULL, 10) : 256;
    bench.file_bytes = mib << 20;
    bench.file = memfd_create("base", MFD_CLOEXEC);
    if (!fill(bench.file, mib))
        return 1;
    if (memory_create(&bench.memory, 16 << 20, false, &fault) != OK
        || loop_create(&bench.loop, &fault) != OK)
        die("set up", &fault);
    memset(bench.memory.regions[0].base, 1, 16 << 20); /* as a guest that has used it */
    bench.host = (struct virtio_host){.memory = &bench.memory,
                                      .interrupt = count_interrupt, .context = &bench};
    for (int overlay = 0; overlay < 2; overlay++) {
        make(&bench, overlay, &fault);
        const char *small = overlay ? "4 KiB under an overlay" : "4 KiB";
        const char *large = overlay ? "128 KiB under an overlay" : "128 KiB";
        compare(&bench, small, 4096, false, 1);
        compare(&bench, small, 4096, false, DEPTH_MAX);
        compare(&bench, large, DATA_MAX, true, 1);
        compare(&bench, large, DATA_MAX, true, DEPTH_MAX);
        device_free(bench.device);
        bench.device = NULL;
    }
    turns(&bench, "a turn from the page cache", false);
    if (argc > 2)
        turns_from_disk(&bench, argv[2], mib);
    printf("}\n");
    loop_free(bench.loop);
    memory_free(&bench.memory);
    close(bench.file);
    return 0;
}
