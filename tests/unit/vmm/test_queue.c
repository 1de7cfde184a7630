/* Virtqueues: what an honest driver offers comes out whole, whatever a hostile one writes breaks
 * the queue and touches nothing but the guest's memory. */
#include "guest.h"

#include <linux/virtio_ring.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static struct guest guest;
static struct ring rings;
static struct virtqueue queue;
static struct virtqueue_chain chain;

static int set_up(void **state)
{
    (void)state;
    guest_open(&guest);
    rings = ring_of(0, 8);
    queue = (struct virtqueue){.descriptors = rings.descriptors, .available = rings.available,
                               .used = rings.used, .size = rings.size, .indirect = true};
    return virtqueue_activate(&queue, &guest.memory) ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    guest_close(&guest);
    return 0;
}

static bool pop(void)
{
    return virtqueue_pop(&chain, &queue, &guest.memory);
}

static void describe(uint16_t index, uint64_t address, uint32_t length, uint16_t flags,
                     uint16_t next)
{
    ring_describe(&guest, &rings, index, address, length, flags, next);
}

static void put_indirect(uint64_t table, uint16_t index, uint64_t address, uint32_t length,
                         uint16_t flags, uint16_t next)
{
    struct vring_desc descriptor = {.addr = address, .len = length, .flags = flags, .next = next};
    guest_put(&guest, table + index * sizeof descriptor, &descriptor, sizeof descriptor);
}

static void test_a_chain_comes_out_whole(void **state)
{
    (void)state;
    assert_false(pop());
    describe(3, GUEST_DATA, 16, VRING_DESC_F_NEXT, 5);
    describe(5, GUEST_HIGH_AT, 100, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, 1);
    describe(1, GUEST_DATA + 64, 1, VRING_DESC_F_WRITE, 7);
    ring_offer(&guest, &rings, 3);
    assert_true(pop());
    assert_int_equal(chain.head, 3);
    assert_int_equal(chain.out_count, 1);
    assert_int_equal(chain.in_count, 2);
    assert_int_equal(chain.out_bytes, 16);
    assert_int_equal(chain.in_bytes, 101);
    assert_ptr_equal(chain.out[0].iov_base, guest.memory.regions[0].base + GUEST_DATA);
    assert_ptr_equal(chain.in[0].iov_base, guest.memory.regions[1].base);
    assert_int_equal(chain.in[1].iov_len, 1);
    assert_false(pop());
    assert_false(queue.broken);

    virtqueue_unpop(&queue);
    assert_true(pop());
    assert_int_equal(chain.head, 3);
    virtqueue_push(&queue, &guest.memory, chain.head, 42);
    uint32_t head, written;
    assert_true(ring_collect(&guest, &rings, &head, &written));
    assert_int_equal(head, 3);
    assert_int_equal(written, 42);
    assert_false(ring_collect(&guest, &rings, &head, &written));
}

static void test_indices_wrap(void **state)
{
    (void)state;
    rings.next_available = rings.seen_used = 0xfffe;
    queue.next_available = queue.next_used = queue.signalled = 0xfffe;
    guest_put_u16(&guest, rings.used + 2, 0xfffe);
    describe(0, GUEST_DATA, 8, 0, 0);
    for (int round = 0; round < 20; round++) {
        ring_offer(&guest, &rings, 0);
        assert_true(pop());
        virtqueue_push(&queue, &guest.memory, chain.head, 0);
        assert_true(virtqueue_interrupts(&queue, &guest.memory));
        uint32_t head, written;
        assert_true(ring_collect(&guest, &rings, &head, &written));
    }
    assert_int_equal(queue.next_used, 0x12);
}

static void test_indirect(void **state)
{
    (void)state;
    const uint64_t table = GUEST_DATA + 0x1003; /* anywhere: the standard names no alignment */
    put_indirect(table, 0, GUEST_DATA, 16, VRING_DESC_F_NEXT, 2);
    put_indirect(table, 2, GUEST_DATA + 512, 512, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, 1);
    put_indirect(table, 1, GUEST_DATA + 2048, 1, VRING_DESC_F_WRITE, 0);
    /* a plain one before it, and a write flag on it that means nothing */
    describe(2, GUEST_DATA + 4096, 4, VRING_DESC_F_NEXT, 6);
    describe(6, table, 48, VRING_DESC_F_INDIRECT | VRING_DESC_F_WRITE, 0);
    ring_offer(&guest, &rings, 2);
    assert_true(pop());
    assert_int_equal(chain.out_count, 2);
    assert_int_equal(chain.out_bytes, 20);
    assert_int_equal(chain.in_count, 2);
    assert_int_equal(chain.in_bytes, 513);
}

static void test_copies(void **state)
{
    (void)state;
    describe(0, GUEST_DATA, 3, VRING_DESC_F_NEXT, 1);
    describe(1, GUEST_DATA + 100, 5, VRING_DESC_F_NEXT, 2);
    describe(2, GUEST_DATA + 200, 2, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, 3);
    describe(3, GUEST_DATA + 300, 4, VRING_DESC_F_WRITE, 0);
    guest_put(&guest, GUEST_DATA, "abc", 3);
    guest_put(&guest, GUEST_DATA + 100, "defgh", 5);
    ring_offer(&guest, &rings, 0);
    assert_true(pop());
    char text[16] = "";
    assert_int_equal(virtqueue_read(text, sizeof text, &chain, 0), 8);
    assert_memory_equal(text, "abcdefgh", 8);
    assert_int_equal(virtqueue_read(text, 3, &chain, 2), 3);
    assert_memory_equal(text, "cde", 3);
    assert_int_equal(virtqueue_read(text, 3, &chain, 7), 1);
    assert_int_equal(virtqueue_read(text, 3, &chain, 8), 0);
    assert_int_equal(virtqueue_read(text, 3, &chain, SIZE_MAX), 0);
    assert_int_equal(virtqueue_write(&chain, 1, "12345678", 8), 5);
    guest_get(&guest, GUEST_DATA + 200, text, 3);
    assert_memory_equal(text, "\0" "1\0", 3);
    guest_get(&guest, GUEST_DATA + 300, text, 5);
    assert_memory_equal(text, "2345\0", 5);
}

static void test_interrupts_are_the_drivers_choice(void **state)
{
    (void)state;
    assert_false(virtqueue_interrupts(&queue, &guest.memory)); /* nothing was pushed */
    virtqueue_push(&queue, &guest.memory, 0, 0);
    assert_true(virtqueue_interrupts(&queue, &guest.memory));
    assert_false(virtqueue_interrupts(&queue, &guest.memory));
    guest_put_u16(&guest, rings.available, VRING_AVAIL_F_NO_INTERRUPT);
    virtqueue_push(&queue, &guest.memory, 0, 0);
    assert_false(virtqueue_interrupts(&queue, &guest.memory));
    virtqueue_ask_notify(&queue, &guest.memory, false);
    assert_int_equal(guest_get_u16(&guest, rings.used), VRING_USED_F_NO_NOTIFY);
    virtqueue_ask_notify(&queue, &guest.memory, true);
    assert_int_equal(guest_get_u16(&guest, rings.used), 0);
}

static void test_event_index(void **state)
{
    (void)state;
    queue.event_index = true;
    const uint64_t used_event = rings.available + 4 + 2 * 8, avail_event = rings.used + 4 + 8 * 8;
    guest_put_u16(&guest, rings.available, VRING_AVAIL_F_NO_INTERRUPT); /* means nothing now */
    guest_put_u16(&guest, used_event, 2); /* when the third is used */
    for (int i = 0; i < 5; i++) {
        virtqueue_push(&queue, &guest.memory, 0, 0);
        assert_int_equal(virtqueue_interrupts(&queue, &guest.memory), i == 2);
    }
    guest_put_u16(&guest, used_event, 6); /* passed in the middle of a batch */
    for (int i = 0; i < 4; i++)
        virtqueue_push(&queue, &guest.memory, 0, 0);
    assert_true(virtqueue_interrupts(&queue, &guest.memory));

    queue.next_available = 77;
    virtqueue_ask_notify(&queue, &guest.memory, false);
    assert_int_equal(guest_get_u16(&guest, avail_event), 0);
    virtqueue_ask_notify(&queue, &guest.memory, true);
    assert_int_equal(guest_get_u16(&guest, avail_event), 77);
    assert_int_equal(guest_get_u16(&guest, rings.used), 0); /* its flags are not in use */
}

static void test_places_of_rings(void **state)
{
    (void)state;
    const uint64_t end = GUEST_LOW_BYTES;
    static const struct virtqueue good = {.descriptors = GUEST_RINGS, .available = GUEST_DATA,
                                          .used = GUEST_DATA + 0x1000, .size = 8};
    const struct {
        const char *what;
        uint64_t descriptors, available, used;
        uint16_t size;
        bool fits;
    } cases[] = {
        {"as it should be", good.descriptors, good.available, good.used, 8, true},
        {"above 4 GiB", GUEST_HIGH_AT, GUEST_HIGH_AT + 128, GUEST_HIGH_AT + 152, 8, true},
        {"of one", good.descriptors, good.available, good.used, 1, true},
        {"up to the last byte", end - 128, 0, 1024, 8, true},
        {"no size", good.descriptors, good.available, good.used, 0, false},
        {"no power of two", good.descriptors, good.available, good.used, 7, false},
        {"too large", good.descriptors, good.available, good.used, 512, false},
        {"largest number", good.descriptors, good.available, good.used, 0x8000, false},
        {"descriptors crooked", good.descriptors + 8, good.available, good.used, 8, false},
        {"available crooked", good.descriptors, good.available + 1, good.used, 8, false},
        {"used crooked", good.descriptors, good.available, good.used + 2, 8, false},
        {"descriptors past the end", end - 112, good.available, good.used, 8, false},
        {"available past the end", good.descriptors, end - 20, good.used, 8, false},
        {"used past the end", good.descriptors, good.available, end - 68, 8, false},
        {"in the hole", UINT64_C(0xD0000000), good.available, good.used, 8, false},
        {"wraps", UINT64_MAX - 15, good.available, good.used, 8, false},
        {"used at the very end", good.descriptors, good.available, UINT64_MAX - 3, 8, false},
        {"all in one place", good.descriptors, good.descriptors, good.descriptors, 8, false},
        {"used over descriptors", good.descriptors, good.available, good.descriptors + 124, 8,
         false},
        {"available over used", good.descriptors, good.used + 68, good.used, 8, false},
        {"descriptors over available", good.descriptors, good.descriptors - 4, good.used, 8,
         false},
        {"side by side", good.descriptors, good.descriptors + 128, good.descriptors + 152, 8, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct virtqueue tried = {.descriptors = cases[i].descriptors,
                                  .available = cases[i].available, .used = cases[i].used,
                                  .size = cases[i].size};
        if (virtqueue_activate(&tried, &guest.memory) != cases[i].fits
            || tried.ready != cases[i].fits || tried.broken == cases[i].fits)
            fail_msg("%s", cases[i].what);
    }
}

/* ---- chains that no honest driver makes: each breaks the queue ---- */

static void offer_first(void)
{
    ring_offer(&guest, &rings, 0);
}

static void loops(void)
{
    describe(0, GUEST_DATA, 1, VRING_DESC_F_NEXT, 1);
    describe(1, GUEST_DATA, 1, VRING_DESC_F_NEXT, 0);
    offer_first();
}

static void names_itself(void)
{
    describe(0, GUEST_DATA, 1, VRING_DESC_F_NEXT, 0);
    offer_first();
}

static void head_outside(void)
{
    ring_offer(&guest, &rings, 8);
}

static void head_far_outside(void)
{
    ring_offer(&guest, &rings, 0xffff);
}

static void next_outside(void)
{
    describe(0, GUEST_DATA, 1, VRING_DESC_F_NEXT, 8);
    offer_first();
}

static void index_jumps(void)
{
    describe(0, GUEST_DATA, 1, 0, 0);
    guest_put_u16(&guest, rings.available + 2, 9);
}

static void index_goes_back(void)
{
    describe(0, GUEST_DATA, 1, 0, 0);
    guest_put_u16(&guest, rings.available + 2, 0xffff);
}

static void empty_segment(void)
{
    describe(0, GUEST_DATA, 0, 0, 0);
    offer_first();
}

static void past_the_end(void)
{
    describe(0, GUEST_LOW_BYTES - 1, 2, VRING_DESC_F_WRITE, 0);
    offer_first();
}

static void in_the_hole(void)
{
    describe(0, GUEST_LOW_BYTES, 1, VRING_DESC_F_WRITE, 0);
    offer_first();
}

static void just_below_the_high_memory(void)
{
    describe(0, GUEST_HIGH_AT - 1, 2, VRING_DESC_F_WRITE, 0);
    offer_first();
}

static void address_wraps(void)
{
    describe(0, UINT64_MAX, 2, VRING_DESC_F_WRITE, 0);
    offer_first();
}

static void length_wraps(void)
{
    describe(0, GUEST_DATA, UINT32_MAX, VRING_DESC_F_WRITE, 0);
    offer_first();
}

static void out_after_in(void)
{
    describe(0, GUEST_DATA, 1, VRING_DESC_F_WRITE | VRING_DESC_F_NEXT, 1);
    describe(1, GUEST_DATA, 1, 0, 0);
    offer_first();
}

static void indirect_in_indirect(void)
{
    put_indirect(GUEST_DATA, 0, GUEST_DATA, 16, VRING_DESC_F_INDIRECT, 0);
    describe(0, GUEST_DATA, 16, VRING_DESC_F_INDIRECT, 0);
    offer_first();
}

static void indirect_with_next(void)
{
    put_indirect(GUEST_DATA, 0, GUEST_DATA, 1, 0, 0);
    describe(0, GUEST_DATA, 16, VRING_DESC_F_INDIRECT | VRING_DESC_F_NEXT, 1);
    offer_first();
}

static void indirect_crooked(void)
{
    put_indirect(GUEST_DATA, 0, GUEST_DATA, 1, 0, 0);
    describe(0, GUEST_DATA, 24, VRING_DESC_F_INDIRECT, 0);
    offer_first();
}

static void indirect_empty(void)
{
    describe(0, GUEST_DATA, 0, VRING_DESC_F_INDIRECT, 0);
    offer_first();
}

static void indirect_outside(void)
{
    describe(0, GUEST_LOW_BYTES - 16, 32, VRING_DESC_F_INDIRECT, 0);
    offer_first();
}

static void indirect_next_outside(void)
{
    put_indirect(GUEST_DATA, 0, GUEST_DATA, 1, VRING_DESC_F_NEXT, 1);
    describe(0, GUEST_DATA, 16, VRING_DESC_F_INDIRECT, 0);
    offer_first();
}

static void indirect_loop(void)
{
    put_indirect(GUEST_DATA, 0, GUEST_DATA, 1, VRING_DESC_F_NEXT, 0);
    describe(0, GUEST_DATA, 16, VRING_DESC_F_INDIRECT, 0);
    offer_first();
}

static void indirect_not_agreed(void)
{
    queue.indirect = false;
    put_indirect(GUEST_DATA, 0, GUEST_DATA, 1, 0, 0);
    describe(0, GUEST_DATA, 16, VRING_DESC_F_INDIRECT, 0);
    offer_first();
}

static void one_segment_too_many(void)
{
    for (uint16_t i = 0; i <= VIRTQUEUE_SEGMENTS_MAX; i++)
        put_indirect(GUEST_DATA, i, GUEST_DATA, 1,
                     i < VIRTQUEUE_SEGMENTS_MAX ? VRING_DESC_F_NEXT : 0, (uint16_t)(i + 1));
    describe(0, GUEST_DATA, 16 * (VIRTQUEUE_SEGMENTS_MAX + 1), VRING_DESC_F_INDIRECT, 0);
    offer_first();
}

static void rings_gone(void) /* as a forged snapshot might have it */
{
    queue.available = GUEST_LOW_BYTES;
    offer_first();
}

static void table_gone(void)
{
    queue.descriptors = GUEST_LOW_BYTES;
    offer_first();
}

static const struct {
    const char *what;
    void (*write)(void);
} hostile[] = {
    {"a loop", loops}, {"itself next", names_itself}, {"head outside", head_outside},
    {"head far outside", head_far_outside}, {"next outside", next_outside},
    {"index jumps", index_jumps}, {"index goes back", index_goes_back},
    {"empty segment", empty_segment}, {"past the end", past_the_end},
    {"in the hole", in_the_hole}, {"across regions", just_below_the_high_memory},
    {"address wraps", address_wraps}, {"length wraps", length_wraps},
    {"out after in", out_after_in}, {"indirect in indirect", indirect_in_indirect},
    {"indirect with next", indirect_with_next}, {"indirect crooked", indirect_crooked},
    {"indirect empty", indirect_empty}, {"indirect outside", indirect_outside},
    {"indirect next outside", indirect_next_outside}, {"indirect loop", indirect_loop},
    {"indirect not agreed", indirect_not_agreed}, {"too many segments", one_segment_too_many},
    {"no available ring", rings_gone}, {"no descriptors", table_gone},
};

static void test_hostile_chains_break_the_queue(void **state)
{
    for (size_t i = 0; i < sizeof hostile / sizeof *hostile; i++) {
        tear_down(state);
        set_up(state);
        hostile[i].write();
        if (pop() || !queue.broken || pop())
            fail_msg("%s", hostile[i].what);
        /* and nothing more is written to it */
        virtqueue_push(&queue, &guest.memory, 0, 0);
        virtqueue_ask_notify(&queue, &guest.memory, true);
        assert_int_equal(guest_get_u16(&guest, rings.used + 2), 0);
        assert_false(virtqueue_interrupts(&queue, &guest.memory));
    }
}

static void test_the_longest_chain(void **state)
{
    (void)state;
    for (uint16_t i = 0; i < VIRTQUEUE_SEGMENTS_MAX; i++) {
        uint16_t more = i + 1 < VIRTQUEUE_SEGMENTS_MAX ? VRING_DESC_F_NEXT : 0;
        put_indirect(GUEST_DATA, i, GUEST_DATA, 1, more | VRING_DESC_F_WRITE, (uint16_t)(i + 1));
    }
    describe(0, GUEST_DATA, 16 * VIRTQUEUE_SEGMENTS_MAX, VRING_DESC_F_INDIRECT, 0);
    offer_first();
    assert_true(pop());
    assert_int_equal(chain.in_count, VIRTQUEUE_SEGMENTS_MAX);
    assert_int_equal(chain.in_bytes, VIRTQUEUE_SEGMENTS_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_chain_comes_out_whole, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_indices_wrap, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_indirect, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_copies, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_interrupts_are_the_drivers_choice, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_event_index, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_places_of_rings, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_hostile_chains_break_the_queue, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_longest_chain, set_up, tear_down),
    };
    return cmocka_run_group_tests_name("virtqueues", tests, NULL, NULL);
}
