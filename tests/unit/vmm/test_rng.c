/* The entropy device: random bytes where the driver asked for them, no more than the limits, and
 * nothing for a chain that asks for anything else. */
#include "driver.h"
#include "guest.h"

#include "base/clock.h"

#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static struct guest guest;
static struct driver driver;
static struct loop *loop;
static struct virtio_device *device;
static int64_t now_us;

int64_t __wrap_clock_monotonic_us(void);
int64_t __wrap_clock_monotonic_us(void)
{
    return now_us;
}

static int set_up(void **state)
{
    (void)state;
    struct fault fault;
    now_us = 1000000;
    guest_open(&guest);
    driver_over(&driver, &guest.memory);
    if (loop_create(&loop, &fault) != OK)
        return -1;
    const struct device_place place = {.host = &driver.host, .loop = loop, .line = 19};
    return rng_create(&device, &place, &fault) == OK
        && driver_start(&driver, device, ~UINT64_C(0), 64) ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    device_free(device);
    loop = loop_free(loop);
    guest_close(&guest);
    return 0;
}

static bool is_zero(uint64_t address, uint32_t bytes)
{
    static const uint8_t zeros[4096];
    return memcmp(driver_at(&driver, address, bytes), zeros, bytes) == 0;
}

static void test_bytes_come(void **state)
{
    (void)state;
    const struct driver_segment segments[] = {
        {GUEST_DATA, 64, true}, {GUEST_HIGH_AT, 64, true}, {GUEST_LOW_BYTES - 64, 64, true}};
    assert_int_equal(driver_register(&driver, VIRTIO_MMIO_DEVICE_ID), 4);
    assert_true(driver_offer(NULL, &driver, 0, segments, 3));
    driver.interrupts = 0;
    driver_notify(&driver, 0);
    uint16_t head;
    uint32_t written;
    assert_true(driver_used(&head, &written, &driver, 0));
    assert_int_equal(written, 192);
    assert_int_equal(driver.interrupts, 1);
    for (int i = 0; i < 3; i++)
        assert_false(is_zero(segments[i].address, 64));
    assert_memory_not_equal(driver_at(&driver, GUEST_DATA, 64),
                            driver_at(&driver, GUEST_HIGH_AT, 64), 64);
    assert_true(is_zero(GUEST_DATA + 64, 4096));
    assert_true(is_zero(GUEST_HIGH_AT + 64, 4096));
}

static void test_a_large_request_gets_a_part(void **state)
{
    (void)state;
    const struct driver_segment segments[] = {{GUEST_DATA, 200, true}, {0x80000, 0x80000, true}};
    assert_true(driver_offer(NULL, &driver, 0, segments, 2));
    driver_notify(&driver, 0);
    uint16_t head;
    uint32_t written;
    assert_true(driver_used(&head, &written, &driver, 0));
    assert_int_equal(written, 256);
    assert_false(is_zero(0x80000, 56));
    assert_true(is_zero(0x80000 + 56, 4096));
}

static uint32_t flood(void) /* asks for more until the device makes it wait */
{
    const struct driver_segment segment = {GUEST_DATA, 256, true};
    struct fault fault;
    uint32_t served = 0, before;
    do {
        uint16_t head;
        uint32_t written;
        before = served;
        while (driver_offer(NULL, &driver, 0, &segment, 1))
            continue;
        driver_notify(&driver, 0);
        now_us += 2; /* a turn that is over goes on in the next */
        assert_int_equal(loop_turn(loop, 0, &fault), OK);
        while (driver_used(&head, &written, &driver, 0))
            served++;
    } while (served != before);
    return served;
}

static void test_a_flood_is_slowed_down(void **state)
{
    (void)state;
    assert_in_range(flood(), 512, 513); /* 64 KiB, and 64 KiB once */
    assert_int_equal(flood(), 0);
    now_us += 1000000;
    assert_in_range(flood(), 255, 257);
    driver_reset(&driver);
    now_us += 1000000;
    struct fault fault;
    assert_int_equal(loop_turn(loop, 0, &fault), OK);
}

static void test_a_turn_is_bounded(void **state)
{
    (void)state;
    const struct driver_segment segment = {GUEST_DATA, 1, true};
    struct fault fault;
    while (driver_offer(NULL, &driver, 0, &segment, 1))
        continue;
    driver_notify(&driver, 0);
    assert_int_equal(device->queues[0].next_used, 32);
    driver_notify(&driver, 0); /* telling it again does not make it hurry */
    assert_int_equal(device->queues[0].next_used, 32);
    now_us += 2;
    assert_int_equal(loop_turn(loop, 0, &fault), OK);
    assert_int_equal(device->queues[0].next_used, 64);
}

static void test_other_chains_break_it(void **state)
{
    (void)state;
    const struct driver_segment chains[][2] = {
        {{GUEST_DATA, 64, false}, {0}},
        {{GUEST_DATA, 1, false}, {GUEST_DATA, 64, true}},
        {{GUEST_LOW_BYTES - 1, 2, true}, {0}},
        {{GUEST_DATA, 0, true}, {0}},
    };
    for (size_t i = 0; i < sizeof chains / sizeof *chains; i++) {
        assert_true(driver_start(&driver, device, 0, 8));
        assert_true(driver_offer(NULL, &driver, 0, chains[i], chains[i][1].length ? 2 : 1));
        driver_notify(&driver, 0);
        assert_true(driver_register(&driver, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET);
        assert_true(is_zero(GUEST_DATA, 64));
    }
    assert_true(driver_start(&driver, device, 0, 8));
}

static void test_a_snapshot_does_not_fill_the_bucket(void **state)
{
    (void)state;
    struct fault fault;
    uint8_t storage[256];
    struct buffer saved = buffer_over(storage, sizeof storage);
    assert_true(flood() > 0);
    virtio_save(device, &saved);
    assert_false(saved.failed);
    struct cursor cursor = cursor_over(buffer_span(&saved));
    assert_int_equal(virtio_load(device, &cursor, &fault), OK);
    uint16_t head;
    uint32_t written;
    assert_false(driver_used(&head, &written, &driver, 0));
    now_us += 1000000;
    assert_int_equal(loop_turn(loop, 0, &fault), OK);
    assert_true(driver_used(&head, &written, &driver, 0));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_bytes_come), TEST(test_a_large_request_gets_a_part),
        TEST(test_a_flood_is_slowed_down), TEST(test_a_turn_is_bounded),
        TEST(test_other_chains_break_it),
        TEST(test_a_snapshot_does_not_fill_the_bucket),
    };
    return cmocka_run_group_tests_name("entropy device", tests, NULL, NULL);
}
