/* What every device must bear alike, whatever it does: hostile rings in each of its queues, resets
 * in storms, every register. It breaks the queue or ignores it; after a reset it is as new. */
#define _GNU_SOURCE
#include "driver.h"
#include "guest.h"

#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

enum { SIZE = 16, NEXT = VRING_DESC_F_NEXT, WRITE = VRING_DESC_F_WRITE,
       INDIRECT = VRING_DESC_F_INDIRECT, TABLE = GUEST_DATA + 0x8000 };

static struct guest guest;
static struct driver driver;
static struct loop *loop;
static struct virtio_device *device;
static int wire = -1;

/* ---- the devices ---- */

static const struct device_place *place(void)
{
    static struct device_place here;
    here = (struct device_place){.host = &driver.host, .loop = loop, .line = 16};
    return &here;
}

static status make_block(struct fault *fault)
{
    const struct block_config config = {
        .base = -1, .overlay = memfd_create("overlay", MFD_CLOEXEC), .bytes = 1 << 20};
    return block_create(&device, &config, place(), fault);
}

static status make_root(struct fault *fault)
{
    const struct block_config config = {
        .base = memfd_create("base", MFD_CLOEXEC), .overlay = -1, .bytes = 1 << 20};
    return block_create(&device, &config, place(), fault);
}

static status make_rng(struct fault *fault)
{
    return rng_create(&device, place(), fault);
}

static status make_balloon(struct fault *fault)
{
    return balloon_create(&device, place(), fault);
}

static status make_vsock(struct fault *fault)
{
    return vsock_create(&device, SANDBOX_GUEST_CID, place(), fault);
}

static status make_net(struct fault *fault)
{
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
    wire = ends[0];
    const struct net_config config = {.tap = ends[1], .mac = {2, 0, 0, 0, 0, 1}};
    return net_create(&device, &config, place(), fault);
}

static const struct {
    const char *name;
    status (*make)(struct fault *fault);
    uint32_t fed; /* a queue from which it takes whatever comes */
} kinds[] = {
    {"block", make_block, 0}, {"root", make_root, 0}, {"rng", make_rng, 0},
    {"balloon", make_balloon, 0}, {"vsock", make_vsock, 1}, {"net", make_net, 1},
};

enum { KINDS = sizeof kinds / sizeof *kinds };

static void open_kind(size_t kind)
{
    struct fault fault;
    guest_open(&guest);
    driver_over(&driver, &guest.memory);
    assert_int_equal(loop_create(&loop, &fault), OK);
    if (kinds[kind].make(&fault) != OK)
        fail_msg("%s: %s", kinds[kind].name, fault.detail);
}

static void close_kind(void)
{
    device_free(device);
    loop = loop_free(loop);
    guest_close(&guest);
    if (wire >= 0)
        close(wire);
    wire = -1;
}

static void start(void)
{
    driver.next_address = 0x1000;
    assert_true(driver_start(&driver, device,
                             ~(UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX), SIZE));
}

static void turn(void)
{
    struct fault fault;
    for (int i = 0; i < 3; i++)
        assert_int_equal(loop_turn(loop, 0, &fault), OK);
}

/* ---- rings ---- */

struct attack {
    const char *what;
    struct vring_desc descriptors[3]; /* 0, 1, 2 of the queue's table */
    struct vring_desc table[3];       /* at TABLE */
    uint16_t head, jump;              /* jump: how far the index moves, 0: by one */
};

static const struct attack attacks[] = {
    {"loop", {{GUEST_DATA, 64, NEXT, 1}, {GUEST_DATA, 64, NEXT, 0}}, {{0}}, 0, 0},
    {"loop of room", {{GUEST_DATA, 64, NEXT | WRITE, 0}}, {{0}}, 0, 0},
    {"head outside", {{0}}, {{0}}, SIZE, 0},
    {"head far outside", {{0}}, {{0}}, UINT16_MAX, 0},
    {"next outside", {{GUEST_DATA, 64, NEXT, SIZE}}, {{0}}, 0, 0},
    {"index jumps", {{GUEST_DATA, 64, 0, 0}}, {{0}}, 0, SIZE + 1},
    {"index goes back", {{GUEST_DATA, 64, 0, 0}}, {{0}}, 0, UINT16_MAX},
    {"nothing", {{GUEST_DATA, 0, 0, 0}}, {{0}}, 0, 0},
    {"past the end", {{GUEST_LOW_BYTES - 32, 64, 0, 0}}, {{0}}, 0, 0},
    {"room past the end", {{GUEST_LOW_BYTES - 32, 64, WRITE, 0}}, {{0}}, 0, 0},
    {"room in the hole", {{UINT64_C(0xD0000000), 64, WRITE, 0}}, {{0}}, 0, 0},
    {"below the high memory", {{GUEST_HIGH_AT - 32, 64, WRITE, 0}}, {{0}}, 0, 0},
    {"past the high memory", {{GUEST_HIGH_AT + GUEST_HIGH_BYTES - 1, 2, WRITE, 0}}, {{0}}, 0, 0},
    {"wraps", {{UINT64_MAX - 31, 64, WRITE, 0}}, {{0}}, 0, 0},
    {"all lengths", {{GUEST_DATA, UINT32_MAX, WRITE, 0}}, {{0}}, 0, 0},
    {"out after in", {{GUEST_DATA, 64, WRITE | NEXT, 1}, {GUEST_DATA, 64, 0, 0}}, {{0}}, 0, 0},
    {"indirect loop", {{TABLE, 16, INDIRECT, 0}}, {{GUEST_DATA, 64, NEXT, 0}}, 0, 0},
    {"indirect twice", {{TABLE, 16, INDIRECT, 0}}, {{TABLE, 16, INDIRECT, 0}}, 0, 0},
    {"indirect and next", {{TABLE, 16, INDIRECT | NEXT, 1}, {GUEST_DATA, 64, 0, 0}},
     {{GUEST_DATA, 64, 0, 0}}, 0, 0},
    {"crooked table", {{TABLE, 17, INDIRECT, 0}}, {{GUEST_DATA, 64, 0, 0}}, 0, 0},
    {"table outside", {{GUEST_LOW_BYTES, 16, INDIRECT, 0}}, {{0}}, 0, 0},
    {"next outside the table", {{TABLE, 16, INDIRECT, 0}}, {{GUEST_DATA, 64, NEXT, 1}}, 0, 0},
};

static void attack_queue(const struct attack *attack, uint32_t index)
{
    struct driver_queue *queue = &driver.queues[index];
    guest_put(&guest, queue->descriptors, attack->descriptors, sizeof attack->descriptors);
    guest_put(&guest, TABLE, attack->table, sizeof attack->table);
    guest_put_u16(&guest, queue->available + 4, attack->head);
    guest_put_u16(&guest, queue->available + 2, attack->jump ? attack->jump : 1);
    driver_notify(&driver, index);
    turn();
}

static void test_hostile_rings(void **state)
{
    (void)state;
    for (size_t kind = 0; kind < KINDS; kind++) {
        open_kind(kind);
        for (size_t i = 0; i < sizeof attacks / sizeof *attacks; i++) {
            for (uint32_t queue = 0; queue < device->operations->queues; queue++) {
                start();
                driver.interrupts = 0;
                attack_queue(&attacks[i], queue);
                bool told = driver_register(&driver, VIRTIO_MMIO_STATUS)
                    & VIRTIO_CONFIG_S_NEEDS_RESET;
                if (told == device->active || (queue == kinds[kind].fed && !told)
                    || guest_get_u16(&guest, driver.queues[queue].used + 2) != 0
                    || driver.interrupts > 2)
                    fail_msg("%s: %s in queue %u", kinds[kind].name, attacks[i].what, queue);
            }
        }
        start();
        close_kind();
    }
}

/* The rings themselves where they cannot be. */
static void test_rings_out_of_place(void **state)
{
    (void)state;
    static const uint64_t places[] = {
        GUEST_LOW_BYTES - 16, GUEST_LOW_BYTES, UINT64_C(0xD0000000), UINT64_MAX - 15, 8,
        GUEST_HIGH_AT - 16, GUEST_HIGH_AT + GUEST_HIGH_BYTES - 16};
    static const uint32_t registers[] = {
        VIRTIO_MMIO_QUEUE_DESC_LOW, VIRTIO_MMIO_QUEUE_AVAIL_LOW, VIRTIO_MMIO_QUEUE_USED_LOW};
    for (size_t kind = 0; kind < KINDS; kind++) {
        open_kind(kind);
        for (size_t i = 0; i < 3 * sizeof places / sizeof *places; i++) {
            uint64_t at = places[i / 3];
            driver.device = device;
            start();
            driver_reset(&driver);
            static const uint32_t steps[] = {1, 3};
            for (int j = 0; j < 2; j++)
                driver_set_register(&driver, VIRTIO_MMIO_STATUS, steps[j]);
            driver_set_register(&driver, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
            driver_set_register(&driver, VIRTIO_MMIO_DRIVER_FEATURES, 1);
            driver_set_register(&driver, VIRTIO_MMIO_STATUS, 11);
            driver_set_register(&driver, VIRTIO_MMIO_QUEUE_NUM, SIZE);
            for (int j = 0; j < 3; j++)
                driver_set_register(&driver, registers[j], 0x10000 + 0x1000 * (uint32_t)j);
            driver_set_register(&driver, registers[i % 3], (uint32_t)at);
            driver_set_register(&driver, registers[i % 3] + 4, (uint32_t)(at >> 32));
            driver_set_register(&driver, VIRTIO_MMIO_QUEUE_READY, 1);
            driver_set_register(&driver, VIRTIO_MMIO_STATUS, 15);
            bool aligned_at_8 = at == 8 && i % 3 != 0; /* 8 is a good place for the others */
            assert_int_equal(device->active, aligned_at_8);
            for (uint32_t queue = 0; queue < device->operations->queues; queue++)
                driver_notify(&driver, queue);
            turn();
        }
        close_kind();
    }
}

static void test_storms(void **state)
{
    (void)state;
    static const uint32_t values[] = {0, 1, 15, 0xff, 0x10000, 0x80000000, 0xffffffff};
    uint8_t bytes[8];
    for (size_t kind = 0; kind < KINDS; kind++) {
        open_kind(kind);
        for (int i = 0; i < 2000; i++) {
            start();
            driver_reset(&driver);
        }
        for (uint32_t offset = 0; offset < 0x200; offset++) {
            start();
            for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
                driver_set_register(&driver, offset, values[i]);
                virtio_mmio_write(device, offset, "\1\2\3\4\5\6\7\xff", 8);
                virtio_mmio_read(device, offset, bytes, 8);
                driver_notify(&driver, values[i]);
            }
            turn();
        }
        start();
        close_kind();
    }
}

/* A second vCPU that hands every chain back as soon as it is used. */
struct feeder {
    const uint16_t *used;
    uint16_t *available;
    atomic_bool stop;
};

static void *feed(void *context)
{
    struct feeder *feeder = context;
    while (!atomic_load(&feeder->stop)) {
        uint16_t used = __atomic_load_n(feeder->used, __ATOMIC_ACQUIRE);
        __atomic_store_n(feeder->available, (uint16_t)(used + SIZE), __ATOMIC_RELEASE);
    }
    return NULL;
}

/* The ring never runs empty: a notification ends all the same, and the other devices get theirs. */
static void test_an_endless_ring(void **state)
{
    (void)state;
    for (size_t kind = 0; kind < KINDS; kind++) {
        open_kind(kind);
        for (uint32_t index = 0; index < device->operations->queues; index++) {
            start();
            struct driver_queue *queue = &driver.queues[index];
            /* a flush for a block device; every entry of the ring names it */
            const struct vring_desc chain[] = {
                {GUEST_DATA, 16, NEXT, 1}, {GUEST_DATA + 64, 1, WRITE, 0}};
            const struct vring_desc room = {GUEST_DATA, 1, WRITE, 0};
            guest_put(&guest, GUEST_DATA, "\4\0\0\0", 4);
            if (kinds[kind].make == make_rng)
                guest_put(&guest, queue->descriptors, &room, sizeof room);
            else
                guest_put(&guest, queue->descriptors, chain, sizeof chain);
            struct feeder feeder = {.used = driver_at(&driver, queue->used + 2, 2),
                                    .available = driver_at(&driver, queue->available + 2, 2)};
            pthread_t thread;
            assert_int_equal(pthread_create(&thread, NULL, feed, &feeder), 0);
            while (!__atomic_load_n(feeder.available, __ATOMIC_ACQUIRE))
                sched_yield();
            for (int i = 0; i < 20; i++) {
                uint16_t before = device->queues[index].next_used;
                driver_notify(&driver, index);
                assert_true((uint16_t)(device->queues[index].next_used - before) <= 256);
                turn();
            }
            atomic_store(&feeder.stop, true);
            pthread_join(thread, NULL);
        }
        start();
        close_kind();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hostile_rings), cmocka_unit_test(test_rings_out_of_place),
        cmocka_unit_test(test_storms), cmocka_unit_test(test_an_endless_ring),
    };
    return cmocka_run_group_tests_name("every virtio device", tests, NULL, NULL);
}
