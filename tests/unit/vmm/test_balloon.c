/* The balloon: what the guest gives up goes back to the host, and nothing else does. */
#define _GNU_SOURCE
#include "driver.h"

#include "base/loop.h"
#include "vmm/virtio/devices.h"

#include <linux/virtio_balloon.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

enum { INFLATE, DEFLATE, STATS, REPORTING };
enum { PAGE = 4096, FIRST = 0x400 /* page number of the memory that is given away */ };
#define ALL (~UINT64_C(0))

static struct fault fault;

struct house {
    struct driver driver;
    struct loop *loop;
    struct virtio_device *device;
    uint64_t names; /* where page numbers are written */
};

static void start(struct house *house, uint64_t features)
{
    assert_true(driver_start(&house->driver, house->device, features, DRIVER_QUEUE_SIZE));
    house->names = driver_alloc(&house->driver, 2 * PAGE, PAGE);
}

static int setup(void **state)
{
    static struct house house;
    driver_open(&house.driver);
    assert_int_equal(loop_create(&house.loop, &fault), OK);
    struct device_place place = {.host = &house.driver.host, .loop = house.loop, .line = 20};
    assert_int_equal(balloon_create(&house.device, &place, &fault), OK);
    start(&house, ALL);
    *state = &house;
    return 0;
}

static int teardown(void **state)
{
    struct house *house = *state;
    device_free(house->device);
    house->loop = loop_free(house->loop);
    driver_close(&house->driver);
    return 0;
}

static uint8_t *page_at(struct house *house, uint32_t page)
{
    return driver_at(&house->driver, (uint64_t)page * PAGE, PAGE);
}

static void fill(struct house *house, uint32_t first, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        memset(page_at(house, first + i), 0xAA, PAGE);
}

static bool is_resident(struct house *house, uint32_t page)
{
    unsigned char resident;
    assert_int_equal(mincore(page_at(house, page), PAGE, &resident), 0);
    return resident & 1;
}

static void assert_used(struct house *house, uint32_t queue)
{
    uint16_t head;
    uint32_t written;
    assert_true(driver_used(&head, &written, &house->driver, queue));
    assert_int_equal(written, 0);
}

static void name_pages(struct house *house, uint32_t queue, const uint32_t *pages, uint32_t count)
{
    uint32_t bytes = count * (uint32_t)sizeof *pages;
    memcpy(driver_at(&house->driver, house->names, bytes), pages, bytes);
    struct driver_segment segment = {.address = house->names, .length = bytes};
    assert_true(driver_offer(NULL, &house->driver, queue, &segment, 1));
    driver_notify(&house->driver, queue);
}

static void test_inflates(void **state)
{
    struct house *house = *state;
    fill(house, FIRST, 16);
    const uint32_t pages[] = {FIRST + 5, FIRST + 3, FIRST + 4, FIRST + 9, FIRST + 3};
    name_pages(house, INFLATE, pages, 5);
    assert_used(house, INFLATE);
    for (uint32_t i = 0; i < 16; i++) {
        bool given = (i >= 3 && i <= 5) || i == 9;
        assert_int_equal(is_resident(house, FIRST + i), !given);
        assert_int_equal(page_at(house, FIRST + i)[100], given ? 0 : 0xAA);
    }
    name_pages(house, DEFLATE, pages, 5);
    assert_used(house, DEFLATE);
    assert_true(house->driver.interrupts > 0);
}

/* The 256 pages of one request in the order in which Linux gives them: from the top. */
static void test_inflates_many(void **state)
{
    struct house *house = *state;
    uint32_t pages[300];
    fill(house, FIRST, 300);
    for (uint32_t i = 0; i < 300; i++)
        pages[i] = FIRST + 299 - i;
    name_pages(house, INFLATE, pages, 300);
    for (uint32_t i = 0; i < 300; i++)
        assert_false(is_resident(house, FIRST + i));
}

/* One page that is not the guest's: the device stops, and nothing of ours was touched. */
static void test_pages_of_nobody(void **state)
{
    struct house *house = *state;
    const uint32_t hostile[] = {DRIVER_MEMORY / PAGE, UINT32_MAX, 0xC0000, 0x100000, 0x80000000};
    for (size_t i = 0; i < sizeof hostile / sizeof *hostile; i++) {
        house->driver.next_address = 0x1000;
        start(house, ALL);
        const uint32_t pages[] = {FIRST, hostile[i]};
        name_pages(house, INFLATE, pages, 2);
        assert_false(house->device->active);
    }
}

static void test_strange_lengths(void **state)
{
    struct house *house = *state;
    const uint32_t lengths[] = {1, 3, 6, 4098, 8192};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        house->driver.next_address = 0x1000;
        start(house, ALL);
        struct driver_segment segment = {.address = house->names, .length = lengths[i]};
        assert_true(driver_offer(NULL, &house->driver, INFLATE, &segment, 1));
        driver_notify(&house->driver, INFLATE);
        assert_false(house->device->active);
    }
}

static void report(struct house *house, uint32_t queue)
{
    fill(house, FIRST, 64);
    const struct driver_segment free[] = {
        {(uint64_t)FIRST * PAGE, 16 * PAGE, true},
        {(uint64_t)(FIRST + 16) * PAGE, 16 * PAGE, true},
        {(uint64_t)(FIRST + 48) * PAGE + 1, 2 * PAGE, true}, /* one whole page in it */
    };
    assert_true(driver_offer(NULL, &house->driver, queue, free, 3));
    driver_notify(&house->driver, queue);
    assert_used(house, queue);
}

static void assert_reported(struct house *house)
{
    for (uint32_t i = 0; i < 64; i++)
        assert_int_equal(is_resident(house, FIRST + i), !(i < 32 || i == 49));
    assert_int_equal(page_at(house, FIRST + 48)[1], 0xAA);
    assert_int_equal(page_at(house, FIRST + 50)[0], 0xAA);
}

static void test_reports(void **state)
{
    struct house *house = *state;
    report(house, REPORTING);
    assert_reported(house);
}

/* Without statistics the queue of reports moves up (5.5.2). */
static void test_reports_without_stats(void **state)
{
    struct house *house = *state;
    house->driver.next_address = 0x1000;
    start(house, ALL & ~(UINT64_C(1) << VIRTIO_BALLOON_F_STATS_VQ));
    report(house, STATS);
    assert_reported(house);
}

/* A guest that fills its free pages must find what it filled them with. */
static void test_poison(void **state)
{
    struct house *house = *state;
    driver_set_register(&house->driver, 0x100 + 12, 0xAAAAAAAA);
    report(house, REPORTING);
    assert_true(is_resident(house, FIRST));
    driver_set_register(&house->driver, 0x100 + 12, 0);
    report(house, REPORTING);
    assert_reported(house);
}

static void put_stats(struct house *house, uint16_t tag, uint64_t value)
{
    const struct virtio_balloon_stat stats[] = {
        {.tag = tag, .val = value}, {.tag = 4242, .val = 1}};
    memcpy(driver_at(&house->driver, house->names, sizeof stats), stats, sizeof stats);
    struct driver_segment segment = {.address = house->names, .length = sizeof stats - 3};
    assert_true(driver_offer(NULL, &house->driver, STATS, &segment, 1));
    driver_notify(&house->driver, STATS);
}

static void test_stats(void **state)
{
    struct house *house = *state;
    uint64_t value = 0;
    uint16_t head;
    uint32_t written;
    assert_false(balloon_stat(&value, house->device, VIRTIO_BALLOON_S_MEMFREE));
    put_stats(house, VIRTIO_BALLOON_S_MEMFREE, 1234);
    assert_true(balloon_stat(&value, house->device, VIRTIO_BALLOON_S_MEMFREE));
    assert_int_equal(value, 1234);
    assert_false(balloon_stat(&value, house->device, VIRTIO_BALLOON_S_MEMTOT));
    assert_false(balloon_stat(&value, house->device, 4242));
    assert_false(driver_used(&head, &written, &house->driver, STATS)); /* kept until we ask */
    put_stats(house, VIRTIO_BALLOON_S_MEMTOT, 1); /* a second one waits */
    assert_false(balloon_stat(&value, house->device, VIRTIO_BALLOON_S_MEMTOT));
    balloon_ask_stats(house->device);
    assert_used(house, STATS);
    driver_notify(&house->driver, STATS);
    assert_true(balloon_stat(&value, house->device, VIRTIO_BALLOON_S_MEMTOT));
}

static void test_target(void **state)
{
    struct house *house = *state;
    uint32_t before = house->driver.interrupts;
    balloon_set_target(house->device, 77);
    assert_int_equal(house->driver.interrupts, before + 1);
    assert_int_equal(driver_register(&house->driver, 0x100), 77);
    driver_set_register(&house->driver, 0x104, 33);
    assert_int_equal(balloon_actual(house->device), 33);
    driver_set_register(&house->driver, 0x100, 5); /* ours, not the driver's */
    assert_int_equal(driver_register(&house->driver, 0x100), 77);
}

/* More than a turn takes: the rest comes in the next ones, and the guest cannot make it one. */
static void test_bounded_turn(void **state)
{
    struct house *house = *state;
    struct driver_segment segment = {.address = house->names, .length = 4};
    *(uint32_t *)driver_at(&house->driver, house->names, 4) = FIRST;
    uint32_t offered = 0, returned = 0;
    while (driver_offer(NULL, &house->driver, INFLATE, &segment, 1))
        offered++;
    uint16_t head;
    uint32_t written;
    for (int i = 0; i < 3; i++)
        driver_notify(&house->driver, INFLATE);
    while (driver_used(&head, &written, &house->driver, INFLATE))
        returned++;
    assert_true(returned > 0 && returned < offered);
    for (uint32_t turn = 0; turn < offered && returned < offered; turn++) {
        assert_int_equal(loop_turn(house->loop, 0, &fault), OK);
        while (driver_used(&head, &written, &house->driver, INFLATE))
            returned++;
    }
    assert_int_equal(returned, offered);
}

static void test_save_and_load(void **state)
{
    struct house *house = *state;
    balloon_set_target(house->device, 99);
    driver_set_register(&house->driver, 0x104, 44);
    put_stats(house, VIRTIO_BALLOON_S_MEMFREE, 1);
    _cleanup_buffer_ struct buffer saved = buffer_of(4096);
    virtio_save(house->device, &saved);
    struct device_place place = {.host = &house->driver.host, .loop = house->loop, .line = 20};
    struct virtio_device *other;
    assert_int_equal(balloon_create(&other, &place, &fault), OK);
    struct cursor from = cursor_over(buffer_span(&saved));
    assert_int_equal(virtio_load(other, &from, &fault), OK);
    assert_int_equal(cursor_end(&from, &fault), OK);
    device_free(house->device);
    house->device = house->driver.device = other;
    assert_int_equal(driver_register(&house->driver, 0x100), 99);
    assert_int_equal(balloon_actual(other), 44);
    balloon_ask_stats(other); /* the buffer that was held before */
    assert_used(house, STATS);
    report(house, REPORTING);
    assert_reported(house);
    for (size_t i = 0; i < saved.length; i++) {
        from = cursor_over((struct span){saved.data, i});
        assert_int_not_equal(virtio_load(other, &from, &fault), OK);
        assert_false(other->active);
    }
}

#define IN_HOUSE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_HOUSE(test_inflates),
        IN_HOUSE(test_inflates_many),
        IN_HOUSE(test_pages_of_nobody),
        IN_HOUSE(test_strange_lengths),
        IN_HOUSE(test_reports),
        IN_HOUSE(test_reports_without_stats),
        IN_HOUSE(test_poison),
        IN_HOUSE(test_stats),
        IN_HOUSE(test_target),
        IN_HOUSE(test_bounded_turn),
        IN_HOUSE(test_save_and_load),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
