/* The register window: what each register may do in which state, and that nothing a guest writes to
 * any of them does more. */
#include "guest.h"

#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum { QUEUES = 3, STARTED = 0xf, QUEUE_RESET = 0xc0 };
#define VERSION_1 (UINT64_C(1) << VIRTIO_F_VERSION_1)
#define OFFERED (VERSION_1 | 1 << 3 | UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX)

struct toy { /* a device that counts what it is told */
    struct virtio_device device;
    int activated, resets, notified[QUEUES], destroyed;
    uint8_t config[6];
    uint8_t loaded;
};

static struct guest guest;
static struct toy toy;
static struct virtio_device *device = &toy.device;
static uint32_t broken_rules;

static void toy_activate(struct virtio_device *it)
{
    ((struct toy *)it)->activated++;
}

static void toy_reset(struct virtio_device *it)
{
    ((struct toy *)it)->resets++;
}

static void toy_notify(struct virtio_device *it, uint32_t queue)
{
    ((struct toy *)it)->notified[queue]++;
}

static void toy_read(struct virtio_device *it, uint32_t offset, void *to, uint32_t size)
{
    virtio_config_read(to, size, offset, ((struct toy *)it)->config, sizeof toy.config);
}

static void toy_write(struct virtio_device *it, uint32_t offset, const void *from, uint32_t size)
{
    if (offset <= sizeof toy.config && size <= sizeof toy.config - offset)
        memcpy(((struct toy *)it)->config + offset, from, size);
}

static void toy_destroy(struct virtio_device *it)
{
    ((struct toy *)it)->destroyed++;
}

static void toy_save(const struct virtio_device *it, struct buffer *out)
{
    (void)it;
    buffer_put_u8(out, 77);
}

static status toy_load(struct virtio_device *it, struct cursor *from, struct fault *fault)
{
    TRY(cursor_u8(&((struct toy *)it)->loaded, from, fault));
    return toy.loaded == 77 ? OK : FAIL(CORRUPT, fault, "toy");
}

static const struct virtio_operations operations = {
    .name = "toy", .kind = 42, .queues = QUEUES, .activate = toy_activate, .reset = toy_reset,
    .notify = toy_notify, .read_config = toy_read, .write_config = toy_write,
    .destroy = toy_destroy, .save = toy_save, .load = toy_load,
};

static int set_up(void **state)
{
    (void)state;
    guest_open(&guest);
    toy = (struct toy){.config = {1, 2, 3, 4, 5, 6}};
    virtio_init(device, &operations, &guest.host, 19, OFFERED & ~VERSION_1);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    guest_close(&guest);
    return 0;
}

static uint32_t mmio_get(struct virtio_device *it, uint32_t offset)
{
    uint32_t value;
    virtio_mmio_read(it, offset, &value, sizeof value);
    return value;
}

static void mmio_put(struct virtio_device *it, uint32_t offset, uint32_t value)
{
    virtio_mmio_write(it, offset, &value, sizeof value);
}

/* As far as FEATURES_OK; false: refused. */
static bool agree(struct virtio_device *it, uint64_t features)
{
    mmio_put(it, VIRTIO_MMIO_STATUS, 0);
    mmio_put(it, VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_ACKNOWLEDGE);
    mmio_put(it, VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
    for (uint32_t page = 0; page < 2; page++) {
        mmio_put(it, VIRTIO_MMIO_DRIVER_FEATURES_SEL, page);
        mmio_put(it, VIRTIO_MMIO_DRIVER_FEATURES, (uint32_t)(features >> page * 32));
    }
    uint32_t steps = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER
        | VIRTIO_CONFIG_S_FEATURES_OK;
    mmio_put(it, VIRTIO_MMIO_STATUS, steps);
    return mmio_get(it, VIRTIO_MMIO_STATUS) == steps;
}

static void set_up_queue(struct virtio_device *it, uint32_t queue, const struct ring *rings)
{
    mmio_put(it, VIRTIO_MMIO_QUEUE_SEL, queue);
    mmio_put(it, VIRTIO_MMIO_QUEUE_NUM, rings->size);
    mmio_put(it, VIRTIO_MMIO_QUEUE_DESC_LOW, (uint32_t)rings->descriptors);
    mmio_put(it, VIRTIO_MMIO_QUEUE_DESC_HIGH, (uint32_t)(rings->descriptors >> 32));
    mmio_put(it, VIRTIO_MMIO_QUEUE_AVAIL_LOW, (uint32_t)rings->available);
    mmio_put(it, VIRTIO_MMIO_QUEUE_AVAIL_HIGH, (uint32_t)(rings->available >> 32));
    mmio_put(it, VIRTIO_MMIO_QUEUE_USED_LOW, (uint32_t)rings->used);
    mmio_put(it, VIRTIO_MMIO_QUEUE_USED_HIGH, (uint32_t)(rings->used >> 32));
    mmio_put(it, VIRTIO_MMIO_QUEUE_READY, 1);
}

static void bring_up(void)
{
    assert_true(agree(device, OFFERED));
    for (uint32_t i = 0; i < QUEUES; i++) {
        struct ring rings = ring_of(i, 8);
        memset(memory_at(&guest.memory, rings.descriptors, GUEST_RING_BYTES), 0,
               GUEST_RING_BYTES);
        set_up_queue(device, i, &rings);
    }
    mmio_put(device, VIRTIO_MMIO_STATUS, STARTED);
}

static void start(void)
{
    bring_up();
    assert_int_equal(mmio_get(device, VIRTIO_MMIO_STATUS), STARTED);
}

static void test_who_it_is(void **state)
{
    (void)state;
    assert_int_equal(mmio_get(device, VIRTIO_MMIO_MAGIC_VALUE), 0x74726976);
    assert_int_equal(mmio_get(device, VIRTIO_MMIO_VERSION), 2);
    assert_int_equal(mmio_get(device, VIRTIO_MMIO_DEVICE_ID), 42);
    assert_int_equal(mmio_get(device, VIRTIO_MMIO_SHM_LEN_LOW), 0xffffffff);
    mmio_put(device, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 0);
    assert_int_equal(mmio_get(device, VIRTIO_MMIO_DEVICE_FEATURES), (uint32_t)OFFERED);
    mmio_put(device, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 1);
    assert_int_equal(mmio_get(device, VIRTIO_MMIO_DEVICE_FEATURES), 1);
    mmio_put(device, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 0x80000001);
    assert_int_equal(mmio_get(device, VIRTIO_MMIO_DEVICE_FEATURES), 0);
}

static void test_features_are_agreed(void **state)
{
    (void)state;
    assert_true(agree(device, OFFERED));
    assert_true(virtio_has(device, 3));
    assert_false(virtio_has(device, 64));
    assert_true(agree(device, VERSION_1));
    assert_false(agree(device, OFFERED & ~VERSION_1)); /* a driver of the legacy kind */
    assert_false(agree(device, OFFERED | 1 << 4));
    assert_false(agree(device, OFFERED | UINT64_C(1) << 63));
    assert_int_equal(mmio_get(device, VIRTIO_MMIO_STATUS), 3);
    /* refused is refused: no queue, no DRIVER_OK */
    struct ring rings = ring_of(0, 8);
    set_up_queue(device, 0, &rings);
    assert_int_equal(mmio_get(device, VIRTIO_MMIO_QUEUE_READY), 0);
    mmio_put(device, VIRTIO_MMIO_STATUS, STARTED);
    assert_int_equal(mmio_get(device, VIRTIO_MMIO_STATUS), 3);
    assert_int_equal(toy.activated, 0);
}

static void test_features_stay(void **state)
{
    (void)state;
    mmio_put(device, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
    mmio_put(device, VIRTIO_MMIO_DRIVER_FEATURES, 8); /* before DRIVER */
    assert_int_equal(device->accepted, 0);
    assert_true(agree(device, VERSION_1));
    mmio_put(device, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
    mmio_put(device, VIRTIO_MMIO_DRIVER_FEATURES, 8);
    assert_int_equal(device->accepted, VERSION_1);
    mmio_put(device, VIRTIO_MMIO_STATUS, 0);
    assert_int_equal(device->accepted, 0);
}

static void test_status_goes_forward_only(void **state)
{
    (void)state;
    mmio_put(device, VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_DRIVER);
    assert_int_equal(mmio_get(device, VIRTIO_MMIO_STATUS), 0);
    mmio_put(device, VIRTIO_MMIO_STATUS, 0xffffff40); /* none of these is a driver's to set */
    assert_int_equal(mmio_get(device, VIRTIO_MMIO_STATUS), VIRTIO_CONFIG_S_FAILED & 0x40);
    start();
    assert_int_equal(toy.activated, 1);
    mmio_put(device, VIRTIO_MMIO_STATUS, STARTED);
    mmio_put(device, VIRTIO_MMIO_STATUS, 1); /* bits are not taken back */
    assert_int_equal(mmio_get(device, VIRTIO_MMIO_STATUS), STARTED);
    assert_int_equal(toy.activated, 1);
    mmio_put(device, VIRTIO_MMIO_STATUS, STARTED | VIRTIO_CONFIG_S_FAILED);
    assert_false(device->active);
    mmio_put(device, VIRTIO_MMIO_STATUS, 0);
    assert_int_equal(toy.resets, 1);
    assert_int_equal(mmio_get(device, VIRTIO_MMIO_STATUS), 0);
}

static void test_a_storm_of_resets_is_cheap(void **state)
{
    (void)state;
    start();
    for (int i = 0; i < 1000; i++)
        mmio_put(device, VIRTIO_MMIO_STATUS, 0);
    assert_int_equal(toy.resets, 1);
    start();
    assert_int_equal(toy.activated, 2);
}

static void test_queues_are_set_up_in_time(void **state)
{
    (void)state;
    struct ring rings = ring_of(0, 8);
    set_up_queue(device, 0, &rings); /* before FEATURES_OK */
    assert_int_equal(device->queues[0].descriptors, 0);
    assert_int_equal(mmio_get(device, VIRTIO_MMIO_QUEUE_READY), 0);
    assert_true(agree(device, OFFERED));
    set_up_queue(device, 0, &rings);
    assert_int_equal(mmio_get(device, VIRTIO_MMIO_QUEUE_READY), 1);
    assert_true(device->queues[0].event_index);
    mmio_put(device, VIRTIO_MMIO_QUEUE_DESC_LOW, 0x7000); /* ready already */
    assert_int_equal(device->queues[0].descriptors, rings.descriptors);
    mmio_put(device, VIRTIO_MMIO_QUEUE_READY, 0); /* and again */
    assert_int_equal(mmio_get(device, VIRTIO_MMIO_QUEUE_READY), 0);
    set_up_queue(device, 0, &rings);
    assert_int_equal(mmio_get(device, VIRTIO_MMIO_QUEUE_READY), 1);
    mmio_put(device, VIRTIO_MMIO_STATUS, STARTED);
    set_up_queue(device, 1, &rings); /* after DRIVER_OK */
    assert_int_equal(mmio_get(device, VIRTIO_MMIO_QUEUE_READY), 0);
    mmio_put(device, VIRTIO_MMIO_QUEUE_SEL, 0);
    mmio_put(device, VIRTIO_MMIO_QUEUE_READY, 0); /* stopping it is always allowed */
    virtio_notify(device, 0);
    assert_int_equal(toy.notified[0], 0);
    assert_true(device->active);
}

static void test_queues_that_are_not(void **state)
{
    (void)state;
    static const uint32_t none[] = {QUEUES, 8, 0xffff, 0x80000000, 0xffffffff};
    assert_true(agree(device, OFFERED));
    mmio_put(device, VIRTIO_MMIO_QUEUE_SEL, 2);
    assert_int_equal(mmio_get(device, VIRTIO_MMIO_QUEUE_NUM_MAX), VIRTQUEUE_SIZE_MAX);
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        struct ring rings = ring_of(0, 8);
        set_up_queue(device, none[i], &rings);
        assert_int_equal(mmio_get(device, VIRTIO_MMIO_QUEUE_NUM_MAX), 0);
        assert_int_equal(mmio_get(device, VIRTIO_MMIO_QUEUE_READY), 0);
    }
    mmio_put(device, VIRTIO_MMIO_STATUS, STARTED);
    virtio_notify(device, QUEUES);
    virtio_notify(device, UINT32_MAX);
    assert_true(device->active);
}

static void test_sizes_are_not_cut(void **state)
{
    (void)state;
    assert_true(agree(device, OFFERED));
    struct ring rings = ring_of(0, 8);
    mmio_put(device, VIRTIO_MMIO_QUEUE_SEL, 0);
    set_up_queue(device, 0, &rings);
    mmio_put(device, VIRTIO_MMIO_QUEUE_READY, 0);
    mmio_put(device, VIRTIO_MMIO_QUEUE_NUM, 0x10008); /* 8 in its low half */
    mmio_put(device, VIRTIO_MMIO_QUEUE_DESC_LOW, (uint32_t)rings.descriptors);
    mmio_put(device, VIRTIO_MMIO_QUEUE_AVAIL_LOW, (uint32_t)rings.available);
    mmio_put(device, VIRTIO_MMIO_QUEUE_USED_LOW, (uint32_t)rings.used);
    mmio_put(device, VIRTIO_MMIO_QUEUE_READY, 1);
    assert_int_equal(mmio_get(device, VIRTIO_MMIO_QUEUE_READY), 0);
    assert_true(mmio_get(device, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET);
    mmio_put(device, VIRTIO_MMIO_STATUS, STARTED); /* no work before the reset */
    assert_int_equal(toy.activated, 0);
    assert_false(device->active);
}

static void count_broken(void *context, const char *name)
{
    (void)context;
    assert_string_equal(name, operations.name);
    broken_rules++;
}

static void test_a_broken_queue_is_told(void **state)
{
    (void)state;
    start();
    broken_rules = 0;
    guest.host.rule_broken = count_broken;
    struct ring rings = ring_of(1, 8);
    ring_offer(&guest, &rings, 8);
    struct virtqueue_chain chain;
    assert_false(virtio_pop(&chain, device, 1));
    assert_int_equal(mmio_get(device, VIRTIO_MMIO_STATUS), STARTED | VIRTIO_CONFIG_S_NEEDS_RESET);
    assert_int_equal(mmio_get(device, VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_CONFIG);
    assert_int_equal(guest_take_interrupts(&guest), 1);
    assert_int_equal(guest.line, 19);
    assert_false(virtio_pop(&chain, device, 0));
    virtio_push(device, 0, 0, 0);
    virtio_signal(device, 0);
    virtio_notify(device, 0);
    virtio_config_changed(device);
    virtio_fail(device);
    assert_int_equal(guest_take_interrupts(&guest), 0);
    assert_int_equal(toy.notified[0], 0);
    assert_int_equal(broken_rules, 1); /* once for each start, however often it errs */
    guest.host.rule_broken = NULL;
    start();
    ring_offer(&guest, &rings, 0); /* at index 2 now: rings.next_available goes on */
    assert_true(device->active);
}

static void test_interrupts(void **state)
{
    (void)state;
    start();
    virtio_signal(device, 0);
    assert_int_equal(guest_take_interrupts(&guest), 0);
    virtio_push(device, 0, 0, 0);
    virtio_signal(device, 0);
    uint32_t generation = mmio_get(device, VIRTIO_MMIO_CONFIG_GENERATION);
    virtio_config_changed(device);
    assert_int_not_equal(mmio_get(device, VIRTIO_MMIO_CONFIG_GENERATION), generation);
    assert_int_equal(guest_take_interrupts(&guest), 2);
    assert_int_equal(mmio_get(device, VIRTIO_MMIO_INTERRUPT_STATUS), 3);
    mmio_put(device, VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INT_VRING);
    assert_int_equal(mmio_get(device, VIRTIO_MMIO_INTERRUPT_STATUS), 2);
    mmio_put(device, VIRTIO_MMIO_INTERRUPT_STATUS, 0);
    mmio_put(device, VIRTIO_MMIO_INTERRUPT_ACK, ~2U);
    assert_int_equal(mmio_get(device, VIRTIO_MMIO_INTERRUPT_STATUS), 2);
    mmio_put(device, VIRTIO_MMIO_STATUS, 0);
    assert_int_equal(mmio_get(device, VIRTIO_MMIO_INTERRUPT_STATUS), 0);
    assert_true(virtio_mmio_needs_no_lock(VIRTIO_MMIO_INTERRUPT_ACK, 4));
    assert_false(virtio_mmio_needs_no_lock(VIRTIO_MMIO_INTERRUPT_ACK, 8));
    assert_false(virtio_mmio_needs_no_lock(VIRTIO_MMIO_STATUS, 4));
}

static void test_config_space(void **state)
{
    (void)state;
    uint8_t bytes[8];
    const uint32_t config = VIRTIO_MMIO_CONFIG;
    virtio_mmio_read(device, config, bytes, 8);
    assert_memory_equal(bytes, "\1\2\3\4\5\6\0\0", 8);
    virtio_mmio_read(device, config + 5, bytes, 4);
    assert_memory_equal(bytes, "\6\0\0\0", 4);
    virtio_mmio_read(device, config + 3, bytes, 1);
    assert_int_equal(bytes[0], 4);
    virtio_mmio_read(device, VIRTIO_WINDOW_BYTES - 1, bytes, 8);
    assert_memory_equal(bytes, "\0\0\0\0\0\0\0\0", 8);
    virtio_mmio_write(device, config, "z", 1); /* nobody drives it yet */
    assert_int_equal(toy.config[0], 1);
    start();
    virtio_mmio_write(device, config + 1, "xy", 2);
    assert_memory_equal(toy.config, "\1xy\4\5\6", 6);
}

static void test_widths_that_are_none(void **state)
{
    (void)state;
    static const uint32_t widths[] = {1, 2, 8};
    for (size_t i = 0; i < 3; i++) {
        uint8_t bytes[8];
        memset(bytes, 0xff, sizeof bytes);
        virtio_mmio_read(device, VIRTIO_MMIO_MAGIC_VALUE, bytes, widths[i]);
        for (uint32_t j = 0; j < widths[i]; j++)
            assert_int_equal(bytes[j], 0);
        virtio_mmio_write(device, VIRTIO_MMIO_STATUS, "\1\0\0\0\0\0\0\0", widths[i]);
        assert_int_equal(mmio_get(device, VIRTIO_MMIO_STATUS), 0);
    }
    assert_int_equal(mmio_get(device, VIRTIO_MMIO_MAGIC_VALUE + 1), 0);
    assert_int_equal(mmio_get(device, VIRTIO_MMIO_CONFIG - 2), 0);
}

/* Every offset, in every state, with numbers that break things: the device stays one that works
 * after a reset. */
static void test_every_register(void **state)
{
    (void)state;
    static const uint32_t values[] = {0, 1, 2, 7, 0xff, 0xffff, 0x10000, 0x80000000, 0xffffffff};
    for (int stage = 0; stage < 3; stage++) {
        for (uint32_t offset = 0; offset < VIRTIO_WINDOW_BYTES; offset++) {
            for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
                if (stage == 1)
                    agree(device, OFFERED);
                else if (stage == 2)
                    start();
                mmio_put(device, offset, values[i]);
                mmio_get(device, offset);
                virtio_mmio_write(device, offset, "\xff\xff\xff\xff\xff\xff\xff\xff", 8);
                virtio_notify(device, values[i]);
            }
        }
    }
    mmio_put(device, VIRTIO_MMIO_STATUS, 0);
    start();
    assert_true(device->active);
}

static void save(struct buffer *out)
{
    buffer_clear(out);
    virtio_save(device, out);
    assert_false(out->failed);
}

static void test_a_snapshot_goes_on(void **state)
{
    (void)state;
    struct fault fault;
    _cleanup_buffer_ struct buffer saved = buffer_of(4096);
    start();
    struct ring rings = ring_of(1, 8);
    ring_describe(&guest, &rings, 0, GUEST_DATA, 5, 0, 0);
    ring_offer(&guest, &rings, 0);
    ring_offer(&guest, &rings, 0);
    struct virtqueue_chain chain;
    assert_true(virtio_pop(&chain, device, 1));
    save(&saved);

    toy = (struct toy){0};
    virtio_init(device, &operations, &guest.host, 19, OFFERED);
    struct cursor cursor = cursor_over(buffer_span(&saved));
    assert_int_equal(virtio_load(device, &cursor, &fault), OK);
    assert_int_equal(cursor_left(&cursor), 0);
    assert_int_equal(toy.loaded, 77);
    assert_int_equal(toy.notified[0] + toy.notified[1] + toy.notified[2], 3);
    assert_int_equal(mmio_get(device, VIRTIO_MMIO_STATUS), STARTED);
    assert_true(virtio_pop(&chain, device, 1));
    assert_int_equal(chain.out_bytes, 5);
    assert_false(virtio_pop(&chain, device, 1));
    assert_true(device->active);
}

static void test_a_forged_snapshot(void **state)
{
    (void)state;
    struct fault fault;
    _cleanup_buffer_ struct buffer saved = buffer_of(4096);
    start();
    save(&saved);
    for (size_t cut = 0; cut < saved.length; cut++) {
        struct cursor cursor = cursor_over((struct span){saved.data, cut});
        assert_int_equal(virtio_load(device, &cursor, &fault), TRUNCATED);
        assert_int_equal(mmio_get(device, VIRTIO_MMIO_STATUS), 0);
    }
    for (size_t at = 0; at < saved.length; at++) {
        saved.data[at] ^= 0xff;
        struct cursor cursor = cursor_over(buffer_span(&saved));
        status loaded = virtio_load(device, &cursor, &fault);
        assert_true(loaded == OK || loaded == CORRUPT);
        if (loaded == CORRUPT)
            assert_int_equal(mmio_get(device, VIRTIO_MMIO_STATUS), 0);
        saved.data[at] ^= 0xff;
    }
}

static void test_freeing(void **state)
{
    (void)state;
    device_free(NULL);
    device_free(device);
    assert_int_equal(toy.destroyed, 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_who_it_is), TEST(test_features_are_agreed), TEST(test_features_stay),
        TEST(test_status_goes_forward_only), TEST(test_a_storm_of_resets_is_cheap),
        TEST(test_queues_are_set_up_in_time), TEST(test_queues_that_are_not),
        TEST(test_sizes_are_not_cut), TEST(test_a_broken_queue_is_told), TEST(test_interrupts),
        TEST(test_config_space), TEST(test_widths_that_are_none), TEST(test_every_register),
        TEST(test_a_snapshot_goes_on), TEST(test_a_forged_snapshot), TEST(test_freeing),
    };
    return cmocka_run_group_tests_name("virtio over mmio", tests, NULL, NULL);
}
