/* Whatever a guest writes to the registers of a block or entropy device and to its own memory, with
 * an honest driver's steps in between: nothing outside of the guest's memory is touched, by us or
 * for us by the kernel; the base stays as it is and the overlay as large as it is; a request that
 * an honest driver made is answered. */
#define _GNU_SOURCE
#include "fuzz.h"

#include "driver.h"
#include "guest.h"

#include "base/clock.h"

#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { BASE_BYTES = 3 * 4096 + 700, DISK_BYTES = 64 * 1024 + 512, STEPS_MAX = 256,
       UNANSWERED = 99 };

static struct guest guest;
static struct driver driver;
static struct loop *loop;
static struct virtio_device *device;
static int base = -1, shared, overlay; /* the device's are shared and overlay */
static bool limited;
static int64_t now_us;
static uint32_t starts;

int64_t __wrap_clock_monotonic_us(void);
int64_t __wrap_clock_monotonic_us(void)
{
    return now_us;
}

/* ---- what the kernel is asked to touch ---- */

static bool in_guest(const void *at, size_t bytes)
{
    for (uint32_t i = 0; i < guest.memory.count; i++) {
        uintptr_t first = (uintptr_t)guest.memory.regions[i].base, here = (uintptr_t)at;
        if (here >= first && here - first <= guest.memory.regions[i].size
            && bytes <= guest.memory.regions[i].size - (here - first))
            return true;
    }
    return false;
}

/* A block that moves to the overlay passes through a buffer of ours: one, of a block's size. */
static void check_segments(const struct iovec *segments, int count)
{
    uintptr_t mapping = (uintptr_t)guest.mapping, here = (uintptr_t)segments->iov_base;
    bool ours = count == 1 && segments->iov_len <= 4096
        && (here + segments->iov_len <= mapping || here >= mapping + guest.mapping_bytes);
    for (int i = 0; i < count && !ours; i++)
        CHECK(in_guest(segments[i].iov_base, segments[i].iov_len));
}

ssize_t __real_preadv64(int fd, const struct iovec *segments, int count, off_t offset);
ssize_t __wrap_preadv64(int fd, const struct iovec *segments, int count, off_t offset);
ssize_t __wrap_preadv64(int fd, const struct iovec *segments, int count, off_t offset)
{
    check_segments(segments, count);
    CHECK(fd == shared || fd == overlay);
    return __real_preadv64(fd, segments, count, offset);
}

ssize_t __real_pwritev64(int fd, const struct iovec *segments, int count, off_t offset);
ssize_t __wrap_pwritev64(int fd, const struct iovec *segments, int count, off_t offset);
ssize_t __wrap_pwritev64(int fd, const struct iovec *segments, int count, off_t offset)
{
    check_segments(segments, count);
    CHECK(fd == overlay && offset < DISK_BYTES);
    return __real_pwritev64(fd, segments, count, offset);
}

ssize_t __real_getrandom(void *to, size_t size, unsigned flags);
ssize_t __wrap_getrandom(void *to, size_t size, unsigned flags);
ssize_t __wrap_getrandom(void *to, size_t size, unsigned flags)
{
    CHECK(in_guest(to, size) && flags == GRND_NONBLOCK);
    return __real_getrandom(to, size, flags);
}

/* ---- the input ---- */

struct input {
    const uint8_t *next, *end;
};

static uint64_t take(struct input *input, size_t size)
{
    uint64_t value = 0;
    size_t left = (size_t)(input->end - input->next);
    memcpy(&value, input->next, size < left ? size : left);
    input->next += size < left ? size : left;
    return value;
}

/* Half of them near a border that matters. */
static uint64_t take_address(struct input *input)
{
    static const uint64_t borders[] = {
        0, 0x1000, 0x2000, GUEST_DATA, GUEST_LOW_BYTES, GUEST_HIGH_AT,
        GUEST_HIGH_AT + GUEST_HIGH_BYTES, UINT64_C(0xD0000000), UINT64_MAX - 0x7f};
    uint64_t which = take(input, 1);
    if (which & 0x80)
        return take(input, 8);
    return borders[which % (sizeof borders / sizeof *borders)] + take(input, 2) - 0x80;
}

/* ---- steps ---- */

static void write_register(struct input *input)
{
    static const uint32_t sizes[] = {4, 4, 4, 4, 4, 1, 2, 8};
    uint8_t bytes[8];
    uint32_t offset = (uint32_t)take(input, 2) % VIRTIO_WINDOW_BYTES;
    uint32_t size = sizes[take(input, 1) % 8];
    uint64_t value = take(input, size);
    memcpy(bytes, &value, sizeof bytes);
    virtio_mmio_write(device, offset, bytes, size);
    virtio_mmio_read(device, offset, bytes, size);
}

static void poke(struct input *input)
{
    uint64_t address = take_address(input);
    uint32_t size = (uint32_t)take(input, 1) % 65;
    uint8_t *at = memory_at(&guest.memory, address, size);
    for (uint32_t i = 0; i < size; i++) {
        uint8_t byte = (uint8_t)take(input, 1);
        if (at)
            at[i] = byte;
    }
}

static void start(struct input *input)
{
    uint64_t features = take(input, 1) & 1 ? 0 : ~UINT64_C(0);
    uint16_t size = (uint16_t)(1U << take(input, 1) % 9);
    if (++starts <= 16)
        CHECK(driver_start(&driver, device, features, size));
}

static void write_descriptor(struct input *input)
{
    const struct driver_queue *queue = &driver.queues[0];
    const struct ring rings = {.descriptors = queue->descriptors, .size = queue->size};
    uint16_t index = (uint16_t)take(input, 1);
    uint64_t address = take_address(input);
    uint32_t length = (uint32_t)take(input, take(input, 1) & 1 ? 4 : 2);
    uint16_t flags = (uint16_t)take(input, 1), next = (uint16_t)take(input, 1);
    if (index < rings.size)
        ring_describe(&guest, &rings, index, address, length, flags, next);
}

static void offer_any(struct input *input)
{
    struct driver_queue *queue = &driver.queues[0];
    if (queue->size == 0)
        return;
    uint64_t entry = queue->available + 4 + 2 * (uint64_t)(queue->next_available % queue->size);
    guest_put_u16(&guest, entry, (uint16_t)take(input, 1));
    queue->next_available = (uint16_t)(queue->next_available + take(input, 1) % 4);
    guest_put_u16(&guest, queue->available + 2, queue->next_available);
    driver_notify(&driver, 0);
}

/* What an honest driver asks, with any numbers in it. */
static void ask(struct input *input)
{
    struct driver_segment segments[8];
    struct virtio_blk_outhdr head = {.type = (uint32_t)take(input, 1)};
    head.sector = take(input, 1) & 1 ? take(input, 8) : take(input, 1);
    uint64_t how = take(input, 1);
    uint32_t count = 0, bytes = 0;
    if (driver.queues[0].size == 0)
        return;
    guest_put(&guest, GUEST_DATA, &head, sizeof head);
    if (device->operations->kind == VIRTIO_KIND_BLOCK)
        segments[count++] = (struct driver_segment){GUEST_DATA, sizeof head, false};
    for (uint64_t i = 0; i < how % 5; i++) {
        uint32_t length = 1 + (uint32_t)take(input, 2) % 8192;
        segments[count++] = (struct driver_segment){
            GUEST_DATA + 0x1000 + bytes, length, how & 0x80};
        bytes += length;
    }
    guest_put(&guest, GUEST_DATA + 64, &(uint8_t){UNANSWERED}, 1);
    segments[count++] = (struct driver_segment){GUEST_DATA + 64, 1, true};
    if (driver_offer(NULL, &driver, 0, segments, count))
        driver_notify(&driver, 0);
}

/* On a device as new, where nothing hostile has been written: this one is answered. */
static void ask_honestly(struct input *input)
{
    if (++starts > 16 || device->operations->kind != VIRTIO_KIND_BLOCK)
        return;
    CHECK(driver_start(&driver, device, ~UINT64_C(0), 64));
    ask(input);
    uint8_t result;
    guest_get(&guest, GUEST_DATA + 64, &result, 1);
    CHECK(result <= VIRTIO_BLK_S_UNSUPP || (limited && result == UNANSWERED));
    CHECK(device->active);
}

static void pass_time(struct input *input)
{
    struct fault fault;
    now_us += (int64_t)(take(input, 1) * 1000 + 2);
    CHECK(loop_turn(loop, 0, &fault) == OK);
}

static void save_and_load(struct input *input)
{
    struct fault fault;
    uint8_t storage[1024];
    struct buffer saved = buffer_over(storage, sizeof storage);
    virtio_save(device, &saved);
    CHECK(!saved.failed);
    uint64_t at = take(input, 2);
    if (at & 1)
        storage[(at >> 1) % saved.length] ^= (uint8_t)take(input, 1);
    struct cursor cursor = cursor_over(buffer_span(&saved));
    status loaded = virtio_load(device, &cursor, &fault);
    CHECK(loaded == OK || loaded == CORRUPT);
    CHECK(loaded != OK || cursor_left(&cursor) == 0);
    CHECK(loaded == OK || at & 1 || device->status == 0);
}

static void notify(struct input *input)
{
    virtio_notify(device, (uint32_t)take(input, 1));
}

static void (*const steps[])(struct input *input) = {
    write_register, poke, start, write_descriptor, offer_any, ask, ask_honestly, pass_time,
    save_and_load, notify,
};

/* ---- one run ---- */

static void check_files(void)
{
    static uint8_t found[BASE_BYTES + 1];
    struct stat file;
    CHECK(pread(base, found, sizeof found, 0) == BASE_BYTES);
    for (size_t i = 0; i < BASE_BYTES; i++)
        CHECK(found[i] == 0xb5);
    CHECK(overlay < 0 || (fstat(overlay, &file) == 0 && file.st_size == DISK_BYTES));
}

static void make_base(void)
{
    static uint8_t bytes[BASE_BYTES];
    memset(bytes, 0xb5, sizeof bytes);
    base = memfd_create("base", MFD_CLOEXEC);
    CHECK(base >= 0 && pwrite(base, bytes, sizeof bytes, 0) == sizeof bytes);
    guest_open(&guest);
}

static void make_device(uint64_t which)
{
    struct fault fault;
    const struct device_place place = {.host = &driver.host, .loop = loop, .line = 16};
    shared = dup(base);
    limited = which % 4 == 1;
    overlay = which % 4 ? memfd_create("overlay", MFD_CLOEXEC) : -1;
    struct block_config config = {
        .base = shared, .overlay = overlay, .bytes = DISK_BYTES, .serial = "fuzz"};
    if (limited)
        config.rate_ops = (struct sandbox_rate){.size = 3, .refill_ms = 10};
    if (which % 4 == 2) {
        close(shared);
        close(overlay);
        shared = overlay = -1;
        CHECK(rng_create(&device, &place, &fault) == OK);
    } else {
        CHECK(block_create(&device, &config, &place, &fault) == OK);
    }
    driver.device = device;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct fault fault;
    struct input input = {bytes, bytes + length};
    if (base < 0)
        make_base();
    for (uint32_t i = 0; i < guest.memory.count; i++)
        madvise(guest.memory.regions[i].base, guest.memory.regions[i].size, MADV_DONTNEED);
    driver_over(&driver, &guest.memory);
    CHECK(loop_create(&loop, &fault) == OK);
    now_us = 1000000;
    starts = 0;
    make_device(take(&input, 1));
    for (int i = 0; i < STEPS_MAX && input.next < input.end; i++)
        steps[take(&input, 1) % (sizeof steps / sizeof *steps)](&input);
    check_files();
    device_free(device);
    loop = loop_free(loop);
    return 0;
}
