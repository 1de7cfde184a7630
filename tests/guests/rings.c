/* rings.c: attacks by two CPUs on what a device has in use: its rings, its registers, and rings
 * that lie in one another. */
#include "attack.h"

enum { EVERY_STATUS = STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES | STATUS_OK };

/* Writable for the device and readable: whatever it does with them, it does something. */
static void fill(uint32_t queue)
{
    for (uint16_t at = 0; at < 8; at += 2) {
        ring_describe(queue, at, (uint64_t)buffers[queue][at], 64, DESC_NEXT, (uint16_t)(at + 1));
        ring_describe(queue, (uint16_t)(at + 1), (uint64_t)buffers[queue][at + 1], 512,
                      at % 4 ? DESC_WRITE : 0, 0);
        ring_offer(queue, at);
    }
}

static void fill_all(void)
{
    for (uint32_t queue = 0; queue < at_hand.queues; queue++)
        fill(queue);
}

static void notify_all(void)
{
    for (uint32_t queue = 0; queue < at_hand.queues; queue++)
        ring_notify(&at_hand, queue);
}

/* Where a part of a ring lies in another: of the same queue it is refused, of another one, or
 * where a buffer is, it is the guest's own affair. */
static void in_one_another(void)
{
    begin("rings that lie in one another");
    const uint64_t base = (uint64_t)&rings[0];
    const uint64_t parts[] = {base, base + 16, base + 16 * RING_SIZE, base + 16 * RING_SIZE + 2,
                              (uint64_t)&rings[0].used, (uint64_t)&rings[0].used + 4,
                              (uint64_t)&rings[1], (uint64_t)&rings[1].used};
    for (uint64_t round = 0; round < rounds() * 2; round++) {
        device_reset(&at_hand);
        device_negotiate(&at_hand, random_next() % 4 << 28);
        for (uint32_t queue = 0; queue < at_hand.queues; queue++)
            ring_set(&at_hand, queue, RING_SIZE, parts[random_next() % 8] & ~UINT64_C(15),
                     parts[random_next() % 8], parts[random_next() % 8] & ~UINT64_C(3));
        fill(0);
        mmio_write(at_hand.window + REG_STATUS, EVERY_STATUS);
        notify_all();
    }
}

/* All queues on one ring; then its descriptors name the rings themselves. */
static void the_same_ring(void)
{
    begin("one ring for all queues, and buffers that are rings");
    for (uint64_t round = 0; round < rounds(); round++) {
        device_bring_up(&at_hand, random_next() % 4 << 28);
        if (round % 2) {
            device_reset(&at_hand);
            device_negotiate(&at_hand, random_next() % 4 << 28);
            for (uint32_t queue = 0; queue < at_hand.queues; queue++)
                ring_set(&at_hand, queue, RING_SIZE, (uint64_t)&rings[0],
                         (uint64_t)&rings[0].available, (uint64_t)&rings[0].used);
            mmio_write(at_hand.window + REG_STATUS, EVERY_STATUS);
        }
        for (uint32_t queue = 0; queue < at_hand.queues; queue++) {
            for (uint16_t at = 0; at < 16; at++) {
                const uint64_t places[] = {(uint64_t)&rings[queue], (uint64_t)&rings[queue].used,
                                           (uint64_t)&rings[queue].available,
                                           (uint64_t)&rings[(queue + 1) % at_hand.queues]};
                ring_describe(queue, at, places[random_next() % 4], 16 + random_next() % 512,
                              random_next() % 2 ? DESC_WRITE : 0, 0);
                ring_offer(queue, at);
            }
        }
        notify_all();
    }
}

/* ---- with the second CPU ---- */

static void move_indices(void)
{
    static uint16_t by;
    for (uint32_t queue = 0; queue < at_hand.queues; queue++)
        for (int i = 0; i < 16; i++)
            __atomic_store_n(&rings[queue].available.index, by++, __ATOMIC_RELAXED);
}

static void notify_and_move(void)
{
    move_indices();
    mmio_write(at_hand.window + REG_NOTIFY, 0);
    mmio_write(at_hand.window + REG_NOTIFY, 1);
}

static void resets_against_indices(void)
{
    begin("indices that race while the device resets");
    second_work(notify_and_move);
    for (uint64_t round = 0; round < rounds() * 2; round++) {
        device_bring_up(&at_hand, round % 4 << 28);
        fill_all();
        notify_all();
        if (round % 3 == 0) { /* a queue taken away while the device works */
            mmio_write(at_hand.window + REG_QUEUE_SEL, (uint32_t)round % at_hand.queues);
            mmio_write(at_hand.window + REG_QUEUE_READY, 0);
            notify_all();
        }
    }
    second_work(NULL);
}

static void reset_it(void)
{
    mmio_write(at_hand.window + REG_STATUS, 0);
    mmio_write(at_hand.window + REG_STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER);
}

static void resets_by_both(void)
{
    begin("a reset by each CPU, in the middle of the other's start");
    second_work(reset_it);
    for (uint64_t round = 0; round < rounds(); round++) {
        device_negotiate(&at_hand, round % 4 << 28);
        for (uint32_t queue = 0; queue < at_hand.queues; queue++)
            ring_set(&at_hand, queue, RING_SIZE, (uint64_t)rings[queue].descriptors,
                     (uint64_t)&rings[queue].available, (uint64_t)&rings[queue].used);
        mmio_write(at_hand.window + REG_STATUS, EVERY_STATUS);
        fill_all();
        notify_all();
    }
    second_work(NULL);
}

static void write_config(void)
{
    static uint32_t at;
    at = (at + 3) % 64;
    *(volatile uint8_t *)(at_hand.window + REG_CONFIG + at) = 0xFF;
    *(volatile uint32_t *)(at_hand.window + REG_CONFIG + (at & 0x3C)) = UINT32_MAX - at;
}

static void config_while_active(void)
{
    begin("configuration written by both CPUs while the device works");
    device_bring_up(&at_hand, UINT64_MAX);
    second_work(write_config);
    for (uint64_t round = 0; round < rounds(); round++) {
        volatile uint8_t *at = (volatile uint8_t *)(at_hand.window + REG_CONFIG
                                                    + random_next() % 80);
        *at = (uint8_t)random_next();
        *(volatile uint16_t *)at = (uint16_t)random_next();
        *(volatile uint64_t *)at = random_next();
        (void)*(volatile uint64_t *)at;
        fill_all();
        notify_all();
    }
    second_work(NULL);
}

static void notify_much(void)
{
    for (uint32_t queue = 0; queue < 8; queue++)
        mmio_write(at_hand.window + REG_NOTIFY, queue);
    mmio_write(at_hand.window + REG_NOTIFY, 0x10000);
    *(volatile uint16_t *)(at_hand.window + REG_NOTIFY) = 0;
}

static void notifications_by_both(void)
{
    begin("notifications by both CPUs, of queues that are and that are not");
    device_bring_up(&at_hand, 0);
    second_work(notify_much);
    for (uint64_t round = 0; round < rounds() * 2; round++) {
        fill_all();
        notify_much();
    }
    second_work(NULL);
}

static void change_lengths(void)
{
    volatile struct descriptor *one = rings[1].descriptors;
    for (int i = 0; i < 64; i++) {
        one->length = 64;
        one->length = 1000;
    }
}

/* At the very end of memory: what is looked at twice is found to be longer, and behind the end
 * there is nothing that may be read. */
static void lengths_between_two_looks(void)
{
    if (at_hand.kind != KIND_NET && at_hand.kind != KIND_VSOCK)
        return;
    begin("a length that changes between two looks");
    memset((void *)(ram_end - 64), 0, 64);
    second_work(change_lengths);
    for (uint64_t round = 0; round < rounds() * 20; round++) {
        device_bring_up(&at_hand, 0);
        ring_describe(1, 0, ram_end - 64, 64, 0, 0);
        for (int i = 0; i < 8; i++)
            ring_offer(1, 0);
        ring_notify(&at_hand, 1);
    }
    second_work(NULL);
}

void attack_rings(void)
{
    in_one_another();
    the_same_ring();
    if (!has_second)
        return;
    resets_against_indices();
    resets_by_both();
    config_while_active();
    notifications_by_both();
    lengths_between_two_looks();
}
