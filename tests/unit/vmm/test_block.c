/* The block device: an honest driver reads what was written; a hostile one gets errors, and nothing
 * of the base or of any other file. */
#define _GNU_SOURCE
#include "driver.h"
#include "guest.h"

#include "base/clock.h"

#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum { SECTOR = 512, BLOCK = 4096, BASE_BYTES = 5 * BLOCK + 1536, DISK_BYTES = 16 * BLOCK + 1024,
       NOTHING = 0x77 };

static struct guest guest;
static struct driver driver;
static struct loop *loop;
static struct virtio_device *device;
static int base, overlay; /* the device's own */
static uint8_t base_bytes[BASE_BYTES];
static int64_t now_us;
static uint64_t chance;

int64_t __wrap_clock_monotonic_us(void);
int64_t __wrap_clock_monotonic_us(void)
{
    return now_us;
}

static uint32_t next_chance(uint32_t bound)
{
    chance ^= chance << 13;
    chance ^= chance >> 7;
    chance ^= chance << 17;
    return (uint32_t)(chance >> 32) % bound;
}

static int a_file(void)
{
    int fd = memfd_create("block", MFD_CLOEXEC);
    assert_true(fd >= 0);
    return fd;
}

static status create(int base_fd, int overlay_fd, uint64_t bytes, struct sandbox_rate rate_bytes,
                     struct sandbox_rate rate_ops)
{
    struct fault fault;
    const struct block_config config = {
        .base = base_fd, .overlay = overlay_fd, .bytes = bytes, .rate_bytes = rate_bytes,
        .rate_ops = rate_ops, .serial = "scratch"};
    const struct device_place place = {.host = &driver.host, .loop = loop, .line = 17};
    return block_create(&device, &config, &place, &fault);
}

static void open_disk(bool writable, struct sandbox_rate rate_bytes, struct sandbox_rate rate_ops)
{
    base = a_file();
    overlay = writable ? a_file() : -1;
    assert_int_equal(pwrite(base, base_bytes, BASE_BYTES, 0), BASE_BYTES);
    assert_int_equal(create(base, overlay, DISK_BYTES, rate_bytes, rate_ops), OK);
}

static const struct sandbox_rate no_limit;

static int set_up(void **state)
{
    (void)state;
    struct fault fault;
    now_us = 1000000;
    chance = 88172645463325252U;
    guest_open(&guest);
    driver_over(&driver, &guest.memory);
    for (size_t i = 0; i < BASE_BYTES; i++)
        base_bytes[i] = (uint8_t)(1 + next_chance(255));
    device = NULL;
    return loop_create(&loop, &fault) == OK ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    device_free(device);
    loop = loop_free(loop);
    guest_close(&guest);
    return 0;
}

static void start_with(uint64_t features)
{
    assert_true(driver_start(&driver, device, features, 128));
}

static void start(void)
{
    start_with(~(UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX));
}

/* ---- requests ---- */

struct asked {
    uint32_t type;
    uint64_t sector;
    const void *out;
    uint32_t out_bytes, in_bytes;
    uint32_t cuts; /* borders in the data, by chance */
};

/* Puts length bytes of data into segments with borders by chance. */
static uint32_t cut(struct driver_segment *segments, uint64_t address, uint32_t length,
                    uint32_t cuts, bool device_writes)
{
    uint32_t count = 0;
    while (length) {
        uint32_t piece = cuts && length > 1 ? 1 + next_chance(length - 1) : length;
        cuts -= cuts ? 1 : 0;
        segments[count++] = (struct driver_segment){address, piece, device_writes};
        address += piece;
        length -= piece;
    }
    return count;
}

static uint64_t data_at, status_at;

static void offer(const struct asked *asked)
{
    struct driver_segment segments[64];
    struct virtio_blk_outhdr head = {.type = asked->type, .sector = asked->sector};
    uint64_t saved = driver.next_address;
    uint64_t head_at = driver_alloc(&driver, sizeof head, 1);
    memcpy(driver_at(&driver, head_at, sizeof head), &head, sizeof head);
    uint32_t length = asked->out_bytes + asked->in_bytes;
    data_at = length ? driver_alloc(&driver, length, 1) : 0;
    if (asked->out_bytes)
        memcpy(driver_at(&driver, data_at, asked->out_bytes), asked->out, asked->out_bytes);
    status_at = driver_alloc(&driver, 1, 1);
    *(uint8_t *)driver_at(&driver, status_at, 1) = NOTHING;
    uint32_t count = cut(segments, head_at, sizeof head, asked->cuts ? 1 : 0, false);
    count += cut(segments + count, data_at, asked->out_bytes, asked->cuts, false);
    count += cut(segments + count, data_at + asked->out_bytes, asked->in_bytes, asked->cuts, true);
    segments[count++] = (struct driver_segment){status_at, 1, true};
    assert_true(driver_offer(NULL, &driver, 0, segments, count));
    if (driver.next_address > GUEST_LOW_BYTES / 2) /* used again once nobody reads it any more */
        driver.next_address = saved;
}

static uint8_t answered(uint32_t *ret_written)
{
    uint16_t head;
    assert_true(driver_used(&head, ret_written, &driver, 0));
    return *(uint8_t *)driver_at(&driver, status_at, 1);
}

static uint8_t ask(const struct asked *asked)
{
    uint32_t written;
    uint64_t saved = driver.next_address;
    offer(asked);
    driver_notify(&driver, 0);
    uint8_t result = answered(&written);
    uint32_t expected = result == VIRTIO_BLK_S_OK || !asked->in_bytes ? asked->in_bytes + 1 : 0;
    assert_int_equal(written, expected);
    driver.next_address = saved;
    return result;
}

static void assert_reads(uint64_t sector, const uint8_t *expected, uint32_t bytes, uint32_t cuts)
{
    assert_int_equal(ask(&(struct asked){.type = VIRTIO_BLK_T_IN, .sector = sector,
                                         .in_bytes = bytes, .cuts = cuts}), VIRTIO_BLK_S_OK);
    if (bytes)
        assert_memory_equal(driver_at(&driver, data_at, bytes), expected, bytes);
}

static uint8_t write_to(uint64_t sector, const uint8_t *bytes, uint32_t length, uint32_t cuts)
{
    return ask(&(struct asked){.type = VIRTIO_BLK_T_OUT, .sector = sector, .out = bytes,
                               .out_bytes = length, .cuts = cuts});
}

static uint8_t clear(uint32_t type, uint64_t sector, uint32_t sectors, uint32_t flags)
{
    const struct virtio_blk_discard_write_zeroes range = {sector, sectors, flags};
    return ask(&(struct asked){.type = type, .out = &range, .out_bytes = sizeof range});
}

/* ---- what it is for ---- */

static void test_a_base_alone(void **state)
{
    (void)state;
    static uint8_t expected[DISK_BYTES];
    memcpy(expected, base_bytes, BASE_BYTES);
    open_disk(false, no_limit, no_limit);
    start();
    assert_true(virtio_has(device, VIRTIO_BLK_F_RO));
    assert_false(virtio_has(device, VIRTIO_BLK_F_DISCARD));
    assert_int_equal(driver_register(&driver, VIRTIO_MMIO_DEVICE_ID), 2);
    assert_int_equal(driver_register(&driver, VIRTIO_MMIO_CONFIG), DISK_BYTES / SECTOR);
    assert_reads(0, expected, DISK_BYTES, 0);
    assert_reads(0, expected, DISK_BYTES, 40);
    assert_reads(41, expected + 41 * SECTOR, 4 * SECTOR, 7); /* across the end of the base */
    assert_reads(DISK_BYTES / SECTOR, NULL, 0, 0);
    assert_int_equal(write_to(0, expected, SECTOR, 0), VIRTIO_BLK_S_IOERR);
    assert_int_equal(clear(VIRTIO_BLK_T_DISCARD, 0, 8, 0), VIRTIO_BLK_S_IOERR);
    assert_int_equal(clear(VIRTIO_BLK_T_WRITE_ZEROES, 0, 8, 0), VIRTIO_BLK_S_IOERR);
    assert_reads(0, expected, DISK_BYTES, 0);
}

static void test_no_file_at_all(void **state)
{
    (void)state;
    static const uint8_t zeros[DISK_BYTES];
    assert_int_equal(create(-1, -1, DISK_BYTES, no_limit, no_limit), OK);
    start();
    memset(memory_at(&guest.memory, 0x80000, 0x80000), 0xaa, 0x80000);
    assert_reads(0, zeros, DISK_BYTES, 9);
}

static void test_small_requests(void **state)
{
    (void)state;
    open_disk(true, no_limit, no_limit);
    start();
    assert_int_equal(ask(&(struct asked){.type = VIRTIO_BLK_T_FLUSH}), VIRTIO_BLK_S_OK);
    assert_int_equal(ask(&(struct asked){.type = VIRTIO_BLK_T_GET_ID, .in_bytes = 20, .cuts = 3}),
                     VIRTIO_BLK_S_OK);
    assert_memory_equal(driver_at(&driver, data_at, 20), "scratch\0\0\0\0\0\0\0\0\0\0\0\0\0", 20);
    assert_int_equal(ask(&(struct asked){.type = VIRTIO_BLK_T_GET_ID, .in_bytes = 19}),
                     VIRTIO_BLK_S_IOERR);
    assert_int_equal(ask(&(struct asked){.type = VIRTIO_BLK_T_SECURE_ERASE}), VIRTIO_BLK_S_UNSUPP);
    assert_int_equal(ask(&(struct asked){.type = UINT32_MAX, .in_bytes = 512}),
                     VIRTIO_BLK_S_UNSUPP);
    assert_int_equal(write_to(3, base_bytes, 0, 0), VIRTIO_BLK_S_OK);
}

/* Everything that can be asked, in any order and cut anywhere, against plain memory. */
static void test_against_plain_memory(void **state)
{
    (void)state;
    static uint8_t disk[DISK_BYTES], data[DISK_BYTES];
    memcpy(disk, base_bytes, BASE_BYTES);
    open_disk(true, no_limit, no_limit);
    start();
    for (int i = 0; i < 6000; i++) {
        uint32_t first = next_chance(DISK_BYTES / SECTOR), cuts = next_chance(5);
        uint32_t count = next_chance(DISK_BYTES / SECTOR - first + 1);
        if (next_chance(3))
            count %= 12;
        uint8_t *at = disk + (size_t)first * SECTOR;
        size_t bytes = (size_t)count * SECTOR;
        switch (next_chance(8)) {
        case 0:
        case 1:
            memset(data, (int)next_chance(256), bytes);
            assert_int_equal(write_to(first, data, (uint32_t)bytes, cuts), VIRTIO_BLK_S_OK);
            memcpy(at, data, bytes);
            break;
        case 2:
            assert_int_equal(clear(VIRTIO_BLK_T_WRITE_ZEROES, first, count, next_chance(2)),
                             VIRTIO_BLK_S_OK);
            memset(at, 0, bytes);
            break;
        case 3: {
            assert_int_equal(clear(VIRTIO_BLK_T_DISCARD, first, count, 0), VIRTIO_BLK_S_OK);
            uint32_t from = (first + 7) / 8 * 8, end = first + count;
            end = end == DISK_BYTES / SECTOR ? end : end / 8 * 8;
            if (from < end)
                memset(disk + (size_t)from * SECTOR, 0, (size_t)(end - from) * SECTOR);
            break;
        }
        default:
            assert_reads(first, at, (uint32_t)bytes, cuts);
            break;
        }
    }
    assert_reads(0, disk, DISK_BYTES, 30);
    static uint8_t kept[BASE_BYTES];
    assert_int_equal(pread(base, kept, BASE_BYTES, 0), BASE_BYTES);
    assert_memory_equal(kept, base_bytes, BASE_BYTES); /* nobody writes to the base */
}

static void test_discarded_blocks_go_back_to_the_host(void **state)
{
    (void)state;
    static uint8_t data[8 * BLOCK];
    struct stat full, empty;
    memset(data, 1, sizeof data);
    open_disk(true, no_limit, no_limit);
    start();
    assert_int_equal(write_to(0, data, sizeof data, 0), VIRTIO_BLK_S_OK);
    assert_int_equal(fstat(overlay, &full), 0);
    assert_int_equal(clear(VIRTIO_BLK_T_DISCARD, 0, 64, 0), VIRTIO_BLK_S_OK);
    assert_int_equal(fstat(overlay, &empty), 0);
    assert_true(full.st_blocks >= 64 && empty.st_blocks == 0);
    assert_int_equal(empty.st_size, DISK_BYTES);
}

/* ---- what no honest driver asks ---- */

static void test_hostile_requests(void **state)
{
    (void)state;
    static const uint8_t data[2 * SECTOR];
    static const uint64_t end = DISK_BYTES / SECTOR;
    static const struct virtio_blk_discard_write_zeroes ranges[9] = {{0, 1, 0}};
    const struct {
        const char *what;
        struct asked asked;
        uint8_t result;
    } cases[] = {
        {"read past the end", {VIRTIO_BLK_T_IN, end - 1, NULL, 0, 1024, 0}, 1},
        {"read at the end", {VIRTIO_BLK_T_IN, end, NULL, 0, 512, 0}, 1},
        {"read far away", {VIRTIO_BLK_T_IN, UINT64_MAX, NULL, 0, 512, 0}, 1},
        {"byte offset wraps", {VIRTIO_BLK_T_IN, UINT64_C(1) << 55, NULL, 0, 512, 0}, 1},
        {"read of no sector", {VIRTIO_BLK_T_IN, 0, NULL, 0, 511, 0}, 1},
        {"read with data", {VIRTIO_BLK_T_IN, 0, data, 512, 512, 0}, 1},
        {"write past the end", {VIRTIO_BLK_T_OUT, end - 1, data, 1024, 0, 0}, 1},
        {"write far away", {VIRTIO_BLK_T_OUT, INT64_MAX, data, 512, 0, 0}, 1},
        {"write of no sector", {VIRTIO_BLK_T_OUT, 0, data, 513, 0, 0}, 1},
        {"write with room", {VIRTIO_BLK_T_OUT, 0, data, 512, 512, 0}, 1},
        {"no range", {VIRTIO_BLK_T_DISCARD, 0, NULL, 0, 0, 0}, 1},
        {"half a range", {VIRTIO_BLK_T_DISCARD, 0, ranges, 24, 0, 0}, 1},
        {"too many ranges", {VIRTIO_BLK_T_WRITE_ZEROES, 0, ranges, 144, 0, 0}, 1},
        {"ranges with room", {VIRTIO_BLK_T_WRITE_ZEROES, 0, ranges, 16, 16, 0}, 1},
        {"serial with data", {VIRTIO_BLK_T_GET_ID, 0, data, 1, 20, 0}, 1},
        {"legacy command", {2, 0, data, 64, 64, 0}, 2},
        {"barrier", {0x80000000, 0, NULL, 0, 0, 0}, 2},
    };
    open_disk(true, no_limit, no_limit);
    start();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (ask(&cases[i].asked) != cases[i].result)
            fail_msg("%s", cases[i].what);
    assert_int_equal(clear(VIRTIO_BLK_T_DISCARD, 0, 1, 1), VIRTIO_BLK_S_UNSUPP);
    assert_int_equal(clear(VIRTIO_BLK_T_WRITE_ZEROES, 0, 1, 2), VIRTIO_BLK_S_UNSUPP);
    assert_int_equal(clear(VIRTIO_BLK_T_WRITE_ZEROES, end - 1, 2, 0), VIRTIO_BLK_S_IOERR);
    assert_int_equal(clear(VIRTIO_BLK_T_WRITE_ZEROES, UINT64_MAX, 1, 0), VIRTIO_BLK_S_IOERR);
    assert_int_equal(clear(VIRTIO_BLK_T_WRITE_ZEROES, 0, UINT32_MAX, 0), VIRTIO_BLK_S_IOERR);
    struct stat file;
    assert_int_equal(fstat(overlay, &file), 0);
    assert_int_equal(file.st_blocks, 0); /* none of it was written */
    assert_int_equal(file.st_size, DISK_BYTES);
}

static void test_chains_that_cannot_be_answered(void **state)
{
    (void)state;
    const struct driver_segment chains[][2] = {
        {{GUEST_DATA, 16, false}, {0}}, {{GUEST_DATA, 15, false}, {GUEST_DATA, 1, true}},
        {{GUEST_DATA, 512, true}, {0}}, {{GUEST_LOW_BYTES - 1, 16, false}, {GUEST_DATA, 1, true}},
    };
    open_disk(true, no_limit, no_limit);
    for (size_t i = 0; i < sizeof chains / sizeof *chains; i++) {
        start();
        driver.interrupts = 0;
        assert_true(driver_offer(NULL, &driver, 0, chains[i], chains[i][1].length ? 2 : 1));
        driver_notify(&driver, 0);
        assert_true(driver_register(&driver, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET);
        assert_int_equal(driver.interrupts, 1);
        driver_notify(&driver, 0);
        assert_false(device->active);
    }
    start();
    assert_reads(0, base_bytes, SECTOR, 0);
}

/* Data over the status, the head, the rings: the guest only fools itself. */
static void test_data_over_everything(void **state)
{
    (void)state;
    open_disk(true, no_limit, no_limit);
    start();
    struct driver_queue *queue = &driver.queues[0];
    const struct driver_segment over[] = {
        {queue->descriptors, 16, false}, {queue->descriptors & ~UINT64_C(0xfff), 8192, true},
        {queue->used, 1, true}};
    assert_true(driver_offer(NULL, &driver, 0, over, 3));
    driver_notify(&driver, 0);
    start();
    assert_reads(0, base_bytes, SECTOR, 0);
}

static void test_a_base_that_shrinks(void **state)
{
    (void)state;
    open_disk(true, no_limit, no_limit);
    start();
    assert_int_equal(ftruncate(base, 2 * BLOCK), 0);
    assert_reads(0, base_bytes, 2 * BLOCK, 0);
    struct asked asked = {.type = VIRTIO_BLK_T_IN, .in_bytes = 3 * BLOCK};
    assert_int_equal(ask(&asked), VIRTIO_BLK_S_IOERR);
    /* a write of a part needs the rest of its block, a whole one does not */
    static const uint8_t data[BLOCK];
    assert_int_equal(write_to(17, data, SECTOR, 0), VIRTIO_BLK_S_IOERR);
    assert_int_equal(write_to(16, data, BLOCK, 0), VIRTIO_BLK_S_OK);
    assert_reads(16, data, BLOCK, 0);
}

/* ---- turns, limits, notifications ---- */

static uint32_t collect(void)
{
    uint16_t head;
    uint32_t written, count = 0;
    while (driver_used(&head, &written, &driver, 0))
        count++;
    return count;
}

static void turn_after(int64_t after_us)
{
    struct fault fault;
    now_us += after_us;
    assert_int_equal(loop_turn(loop, 0, &fault), OK);
}

static void offer_reads(uint32_t count, uint32_t bytes)
{
    uint64_t saved = driver.next_address;
    for (uint32_t i = 0; i < count; i++) {
        driver.next_address = saved;
        offer(&(struct asked){.type = VIRTIO_BLK_T_IN, .in_bytes = bytes});
    }
    driver_notify(&driver, 0);
}

static void test_a_flood_goes_turn_by_turn(void **state)
{
    (void)state;
    open_disk(true, no_limit, no_limit);
    assert_true(driver_start(&driver, device, 0, 256));
    driver.interrupts = 0;
    offer_reads(80, 512); /* three descriptors each */
    assert_int_equal(collect(), 64);
    assert_int_equal(driver.interrupts, 1);
    assert_false(driver_notify_wanted(&driver, 0)); /* we come back without being told */
    driver_notify(&driver, 0);
    assert_int_equal(collect(), 0);
    turn_after(2);
    assert_int_equal(collect(), 16);
    assert_int_equal(driver.interrupts, 2);
    assert_true(driver_notify_wanted(&driver, 0));
}

static void test_operations_are_limited(void **state)
{
    (void)state;
    open_disk(true, no_limit, (struct sandbox_rate){.size = 10, .refill_ms = 1000});
    start();
    offer_reads(15, 512);
    assert_int_equal(collect(), 10);
    turn_after(99000);
    assert_int_equal(collect(), 0);
    turn_after(1002);
    assert_int_equal(collect(), 1);
    turn_after(1000000);
    assert_int_equal(collect(), 4);
    assert_true(driver_notify_wanted(&driver, 0));
    driver_reset(&driver);
    turn_after(1000000);
}

static void test_bytes_are_limited(void **state)
{
    (void)state;
    open_disk(true, (struct sandbox_rate){.size = 2048, .refill_ms = 1000}, no_limit);
    start();
    offer_reads(3, 1024);
    assert_int_equal(collect(), 2);
    offer(&(struct asked){.type = VIRTIO_BLK_T_FLUSH});
    turn_after(500002);
    assert_int_equal(collect(), 2);
    turn_after(1000000);
    offer_reads(2, 16384); /* larger than the bucket: served when it is full, and paid for later */
    assert_int_equal(collect(), 1);
    turn_after(7000000);
    assert_int_equal(collect(), 0);
    turn_after(1000002);
    assert_int_equal(collect(), 1);
}

/* What a request makes the host do, not what its driver counts. */
static void test_what_costs_more_is_paid_for(void **state)
{
    (void)state;
    static const uint8_t data[SECTOR];
    static const struct virtio_blk_discard_write_zeroes ranges[8] = {{.num_sectors = 8}};
    open_disk(true, (struct sandbox_rate){.size = 2 * (BLOCK + SECTOR), .refill_ms = 1000},
              (struct sandbox_rate){.size = 12, .refill_ms = 1000});
    start();
    uint64_t saved = driver.next_address;
    for (uint32_t i = 0; i < 3; i++) { /* each takes the rest of its block along */
        driver.next_address = saved;
        offer(&(struct asked){.type = VIRTIO_BLK_T_OUT, .sector = 1, .out = data,
                              .out_bytes = sizeof data});
    }
    driver_notify(&driver, 0);
    assert_int_equal(collect(), 2);
    turn_after(1000002);
    assert_int_equal(collect(), 1);
    turn_after(1000002);
    for (uint32_t i = 0; i < 2; i++)
        offer(&(struct asked){.type = VIRTIO_BLK_T_DISCARD, .out = ranges,
                              .out_bytes = sizeof ranges}); /* eight operations each */
    driver_notify(&driver, 0);
    assert_int_equal(collect(), 1);
    turn_after(1000002);
    assert_int_equal(collect(), 1);
}

static void test_a_reset_ends_the_wait(void **state)
{
    (void)state;
    open_disk(true, no_limit, (struct sandbox_rate){.size = 1, .refill_ms = 1000});
    start();
    offer_reads(3, 512);
    assert_int_equal(collect(), 1);
    driver_reset(&driver);
    turn_after(5000000);
    start();
    offer_reads(1, 512);
    assert_int_equal(collect(), 1);
}

static void test_event_index(void **state)
{
    (void)state;
    open_disk(true, no_limit, no_limit);
    start_with(~UINT64_C(0));
    assert_true(virtio_has(device, VIRTIO_RING_F_EVENT_IDX));
    struct driver_queue *queue = &driver.queues[0];
    uint64_t avail_event = queue->used + 4 + 8 * (uint64_t)queue->size;
    uint64_t used_event = queue->available + 4 + 2 * (uint64_t)queue->size;
    driver.interrupts = 0;
    offer_reads(5, 512);
    assert_int_equal(collect(), 5);
    assert_int_equal(driver.interrupts, 1);
    assert_int_equal(guest_get_u16(&guest, avail_event), 5);
    guest_put_u16(&guest, used_event, 7);
    offer_reads(2, 512);
    assert_int_equal(driver.interrupts, 1);
    offer_reads(1, 512);
    assert_int_equal(driver.interrupts, 2);
    assert_int_equal(guest_get_u16(&guest, avail_event), 8);
}

/* ---- the rest ---- */

static void test_a_snapshot_goes_on(void **state)
{
    (void)state;
    struct fault fault;
    static uint8_t data[BLOCK];
    memset(data, 9, sizeof data);
    open_disk(true, no_limit, (struct sandbox_rate){.size = 2, .refill_ms = 1000});
    start();
    assert_int_equal(write_to(9, data, SECTOR, 0), VIRTIO_BLK_S_OK);
    offer_reads(2, 2 * BLOCK);
    assert_int_equal(collect(), 1);
    _cleanup_buffer_ struct buffer saved = buffer_of(65536);
    virtio_save(device, &saved);

    /* the same files' bytes under a new device */
    struct virtio_device *old = device;
    int other_base = a_file(), other_overlay = a_file();
    static uint8_t bytes[DISK_BYTES];
    assert_int_equal(pwrite(other_base, base_bytes, BASE_BYTES, 0), BASE_BYTES);
    assert_int_equal(create(other_base, other_overlay, DISK_BYTES, no_limit,
                            (struct sandbox_rate){.size = 2, .refill_ms = 1000}), OK);
    assert_int_equal(pread(overlay, bytes, DISK_BYTES, 0), DISK_BYTES);
    assert_int_equal(pwrite(other_overlay, bytes, DISK_BYTES, 0), DISK_BYTES);
    device_free(old);
    driver.device = device;
    struct cursor cursor = cursor_over(buffer_span(&saved));
    assert_int_equal(virtio_load(device, &cursor, &fault), OK);
    assert_int_equal(cursor_left(&cursor), 0);
    assert_int_equal(collect(), 0);
    turn_after(500002);
    assert_int_equal(collect(), 1);
    now_us += 1000000;
    memcpy(bytes, base_bytes, BASE_BYTES);
    memset(bytes + 9 * SECTOR, 9, SECTOR);
    assert_reads(0, bytes, 4 * BLOCK, 0);

    ((uint8_t *)saved.data)[saved.length - 17] ^= 1; /* of the base's length */
    cursor = cursor_over(buffer_span(&saved));
    assert_int_equal(virtio_load(device, &cursor, &fault), CORRUPT);
}

static void test_what_is_refused(void **state)
{
    (void)state;
    int file = a_file(), full = a_file(), pipes[2];
    assert_int_equal(pipe(pipes), 0);
    assert_int_equal(write(full, "x", 1), 1);
    assert_int_equal(create(file, -1, 0, no_limit, no_limit), BAD_FIELD);
    assert_int_equal(create(file, -1, 513, no_limit, no_limit), BAD_FIELD);
    assert_int_equal(create(file, -1, UINT64_C(1) << 63, no_limit, no_limit), BAD_FIELD);
    assert_int_equal(create(pipes[0], -1, 512, no_limit, no_limit), BAD_FIELD);
    assert_int_equal(create(file, pipes[1], 512, no_limit, no_limit), BAD_FIELD);
    assert_int_equal(create(-1, full, 512, no_limit, no_limit), BAD_FIELD);
    assert_null(device);
    close(pipes[0]);
    close(pipes[1]);
    close(full);
    assert_int_equal(close(file), 0); /* still the caller's */
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_base_alone), TEST(test_no_file_at_all), TEST(test_small_requests),
        TEST(test_against_plain_memory), TEST(test_discarded_blocks_go_back_to_the_host),
        TEST(test_hostile_requests), TEST(test_chains_that_cannot_be_answered),
        TEST(test_data_over_everything), TEST(test_a_base_that_shrinks),
        TEST(test_a_flood_goes_turn_by_turn), TEST(test_operations_are_limited),
        TEST(test_bytes_are_limited), TEST(test_what_costs_more_is_paid_for),
        TEST(test_a_reset_ends_the_wait), TEST(test_event_index),
        TEST(test_a_snapshot_goes_on), TEST(test_what_is_refused),
    };
    return cmocka_run_group_tests_name("block device", tests, NULL, NULL);
}
