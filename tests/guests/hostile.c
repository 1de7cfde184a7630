/* hostile.c: drives every device as no honest driver does. The monitor may refuse, or ask for a
 * reset; after each attack the device is reset and must do honest work again, where it has some
 * that can be seen from inside. Says "hostile: N attacks, M devices" and switches off.
 *
 * Options: seed=, rounds= (of each random attack), thorough=1 (every register and port in every
 * way), only= (number of one device; beyond WINDOWS_MAX: none), connections=0, platform=0, ending=
 * (endings.c). An initramfs that begins with "hostile" has the options in place of the command
 * line, which is not ours where a node boots this. */
#include "attack.h"

enum { BLOCK_READ = 0, BLOCK_WRITE = 1, BLOCK_FLUSH = 4, BLOCK_ID = 8, BLOCK_DISCARD = 11 };
enum { HEAD_BYTES = 16, STATUS_AT = 4095 };

struct device at_hand;
bool has_second;
static volatile uint32_t scribbled_queue;
static uint64_t attacks, failures;
static uint8_t canary[2][4096] __attribute__((aligned(4096))); /* told to no device */

void begin(const char *name)
{
    attacks++;
    say("hostile: ");
    say_number(at_hand.kind);
    say(" ");
    say(name);
    say("\n");
}

void fail(const char *why)
{
    failures++;
    say("FAILED: ");
    say(why);
    say("\n");
}

uint64_t rounds(void)
{
    return option("rounds", 200);
}

bool thorough(void)
{
    return option("thorough", 0) != 0;
}

uint64_t bad_address(void)
{
    const uint64_t bad[] = {
        ARENA, ARENA + 1, ram_end - 1, ram_end - 8, ram_end, ram_end + 1, UINT64_C(0xC0000000),
        WINDOWS, UINT64_C(0xFEE00000), UINT64_C(0xFEC00000), UINT64_C(0xFFFFFFFF),
        UINT64_C(0x100000000), UINT64_C(0x7FFFFFFFFFFFFFFF), UINT64_C(0x8000000000000000),
        UINT64_MAX, UINT64_MAX - 1, UINT64_MAX - 4095, UINT64_MAX - ram_end,
        (uint64_t)rings, (uint64_t)&rings[0].used, (uint64_t)&rings[1].available,
    };
    return bad[random_next() % (sizeof bad / sizeof *bad)];
}

uint32_t bad_length(void)
{
    const uint32_t bad[] = {0, 1, 511, 512, 4096, 65535, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF,
                            0xFFFFF000, (uint32_t)ram_end, 1 << 24};
    return bad[random_next() % (sizeof bad / sizeof *bad)];
}

/* ---- honest work ---- */

static bool block_does(uint32_t what, uint64_t sector)
{
    uint64_t *head = (uint64_t *)buffers[0][0];
    uint8_t *status = &buffers[0][1][STATUS_AT];
    device_bring_up(&at_hand, 0);
    head[0] = what;
    head[1] = sector;
    *status = 0xFF;
    ring_describe(0, 0, (uint64_t)head, HEAD_BYTES, DESC_NEXT, 1);
    ring_describe(0, 1, (uint64_t)buffers[0][2], 512,
                  (uint16_t)(DESC_NEXT | (what == BLOCK_READ ? DESC_WRITE : 0)), 2);
    ring_describe(0, 2, (uint64_t)status, 1, DESC_WRITE, 0);
    ring_offer(0, 0);
    ring_notify(&at_hand, 0);
    return ring_await(&at_hand, 0, 1) && *(volatile uint8_t *)status == 0;
}

static bool rng_fills(void)
{
    device_bring_up(&at_hand, 0);
    ring_describe(0, 0, (uint64_t)buffers[0][0], 64, DESC_WRITE, 0);
    ring_offer(0, 0);
    ring_notify(&at_hand, 0);
    return ring_await(&at_hand, 0, 1) && rings[0].used.entries[0].length > 0;
}

static void check_canary(void)
{
    const void *at = canary;
    uint64_t left = sizeof canary / 8;
    bool same;
    __asm__ volatile("repe scasq" /* an instruction, where each costs a microsecond */
                     : "+D"(at), "+c"(left), "=@cce"(same)
                     : "a"(UINT64_C(0xA5A5A5A5A5A5A5A5)) : "memory");
    if (!same)
        fail("memory that was told to no device has changed");
}

static void check_well(void)
{
    check_canary();
    if (at_hand.kind == KIND_BLOCK && !block_does(BLOCK_READ, 0))
        fail("the block device does not read any more");
    if (at_hand.kind == KIND_RNG && !rng_fills())
        fail("the rng gives nothing any more");
    device_reset(&at_hand);
}

/* ---- registers ---- */

static void try_register(uint32_t offset, uint32_t value)
{
    volatile uint8_t *at = (volatile uint8_t *)(at_hand.window + offset);
    *at = (uint8_t)value;
    (void)*at;
    *(volatile uint32_t *)at = value;
    (void)*(volatile uint32_t *)at;
    if (offset % 8 == 0 || !thorough()) {
        *(volatile uint64_t *)(at_hand.window + (offset & ~UINT32_C(7))) = UINT64_MAX;
        (void)*(volatile uint64_t *)(at_hand.window + (offset & ~UINT32_C(7)));
    }
}

static void every_register(void)
{
    static const uint32_t values[] = {0, 1, 0xFF, 0x80000000, 0xFFFFFFFF, 0x55555555};
    uint32_t all = sizeof values / sizeof *values;
    begin("every register, all sizes");
    for (uint32_t offset = 0; offset < WINDOW_BYTES;
         offset += offset >= 0x140 ? (thorough() ? 61u : 427u) : thorough() ? 1u : 4u) {
        if (!thorough())
            try_register(offset + (random_next() % 8 ? 0 : 2), values[random_next() % all]);
        for (size_t i = 0; thorough() && i < all; i++)
            try_register(offset, values[i]);
    }
    check_well();
}

static void status_out_of_order(void)
{
    begin("status out of order");
    for (uint32_t status = 0; status < 256; status += thorough() ? 1 : 3) {
        mmio_write(at_hand.window + REG_STATUS, status);
        mmio_write(at_hand.window + REG_NOTIFY, status % 5);
        mmio_write(at_hand.window + REG_QUEUE_READY, status & 1);
    }
    check_well();
}

static void features_never_offered(void)
{
    begin("features that were never offered");
    device_reset(&at_hand);
    mmio_write(at_hand.window + REG_STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER);
    for (uint32_t half = 0; half < 4; half++) {
        mmio_write(at_hand.window + REG_DRIVER_SEL, half);
        mmio_write(at_hand.window + REG_DRIVER, 0xFFFFFFFF);
    }
    mmio_write(at_hand.window + REG_STATUS,
               STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES | STATUS_OK);
    if (mmio_read(at_hand.window + REG_STATUS) & (STATUS_FEATURES | STATUS_OK))
        fail("features that were never offered are agreed to");
    ring_notify(&at_hand, 0);
    check_well();
}

static void reset_storm(void)
{
    begin("reset storm");
    for (uint64_t i = 0; i < rounds(); i++) {
        device_bring_up(&at_hand, random_next());
        for (uint32_t queue = 0; queue < at_hand.queues; queue++) {
            ring_describe(queue, 0, (uint64_t)buffers[queue][0], 4096, DESC_WRITE, 0);
            ring_offer(queue, 0);
            ring_notify(&at_hand, queue);
        }
        mmio_write(at_hand.window + REG_STATUS, 0);
    }
    check_well();
}

/* ---- queues ---- */

static void queues_of_wrong_size(void)
{
    static const uint32_t sizes[] = {0, 1, 3, 255, 257, 512, 32768, 65535, 65536, 0xFFFFFFFF};
    begin("queues of wrong size");
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        device_reset(&at_hand);
        device_negotiate(&at_hand, 0);
        for (uint32_t queue = 0; queue < 9; queue++)
            ring_set(&at_hand, queue, sizes[i], (uint64_t)&rings[0],
                     (uint64_t)&rings[0].available, (uint64_t)&rings[0].used);
        mmio_write(at_hand.window + REG_STATUS, 15);
        for (uint32_t queue = 0; queue < 9; queue++)
            ring_notify(&at_hand, queue);
    }
    check_well();
}

static void rings_out_of_place(void)
{
    begin("rings out of place, overlapping, unaligned");
    for (uint64_t i = 0; i < rounds(); i++) {
        device_reset(&at_hand);
        device_negotiate(&at_hand, random_next());
        for (uint32_t queue = 0; queue < at_hand.queues; queue++)
            ring_set(&at_hand, queue, RING_SIZE,
                     i % 2 ? bad_address() : (uint64_t)&rings[0],
                     i % 3 ? bad_address() : (uint64_t)&rings[0],
                     i % 5 ? bad_address() : (uint64_t)&rings[0]);
        mmio_write(at_hand.window + REG_STATUS, 15);
        for (uint32_t queue = 0; queue < at_hand.queues; queue++)
            ring_notify(&at_hand, queue);
    }
    check_well();
}

static void moved_while_ready(void)
{
    begin("rings moved while ready");
    device_bring_up(&at_hand, 0);
    for (uint32_t queue = 0; queue < at_hand.queues; queue++) {
        ring_offer(queue, 0);
        ring_set(&at_hand, queue, 1u << (random_next() % 16), bad_address(), bad_address(),
                 bad_address());
        ring_notify(&at_hand, queue);
    }
    check_well();
}

/* ---- chains ---- */

static void chain_to_itself(uint32_t queue)
{
    ring_describe(queue, 0, (uint64_t)buffers[queue][0], 16, DESC_NEXT, 0);
}

static void chain_in_a_circle(uint32_t queue)
{
    for (uint16_t i = 0; i < RING_SIZE; i++)
        ring_describe(queue, i, (uint64_t)buffers[queue][i], 4096,
                      DESC_NEXT | (i % 2 ? DESC_WRITE : 0), (uint16_t)((i + 1) % RING_SIZE));
}

static void chain_of_all(uint32_t queue)
{
    for (uint16_t i = 0; i < RING_SIZE; i++)
        ring_describe(queue, i, ARENA, (uint32_t)(ram_end - ARENA),
                      (uint16_t)((i + 1 < RING_SIZE ? DESC_NEXT : 0) | (i ? DESC_WRITE : 0)),
                      (uint16_t)(i + 1));
}

static void chain_elsewhere(uint32_t queue)
{
    ring_describe(queue, 0, (uint64_t)buffers[queue][0], HEAD_BYTES, DESC_NEXT, 1);
    ring_describe(queue, 1, bad_address(), bad_length(), DESC_NEXT | DESC_WRITE, 2);
    ring_describe(queue, 2, bad_address(), bad_length(), DESC_WRITE, 0);
}

static void chain_next_too_far(uint32_t queue)
{
    ring_describe(queue, 0, (uint64_t)buffers[queue][0], 16, DESC_NEXT, 65535);
}

static void chain_writable_first(uint32_t queue)
{
    ring_describe(queue, 0, (uint64_t)buffers[queue][0], 512, DESC_WRITE | DESC_NEXT, 1);
    ring_describe(queue, 1, (uint64_t)buffers[queue][1], 16, 0, 0);
}

static void chain_of_nothing(uint32_t queue)
{
    ring_describe(queue, 0, (uint64_t)buffers[queue][0], 0, DESC_NEXT, 1);
    ring_describe(queue, 1, (uint64_t)buffers[queue][1], 0, DESC_WRITE, 0);
}

static void chain_indirect(uint32_t queue)
{
    static const uint32_t lengths[] = {0, 1, 15, 16, 17, 4096, 0xFFFFFFF0};
    struct descriptor *table = (struct descriptor *)buffers[queue][1];
    for (uint16_t i = 0; i < 4096 / sizeof *table; i++) /* tables that name tables, in a circle */
        table[i] = (struct descriptor){(uint64_t)table, 4096,
                                       DESC_INDIRECT | DESC_NEXT, (uint16_t)((i + 1) % 256)};
    ring_describe(queue, 0, random_next() % 2 ? (uint64_t)table : bad_address(),
                  lengths[random_next() % (sizeof lengths / sizeof *lengths)],
                  DESC_INDIRECT | (random_next() % 2 ? DESC_NEXT | DESC_WRITE : 0), 0);
}

static void chain_of_noise(uint32_t queue)
{
    uint64_t *words = (uint64_t *)rings[queue].descriptors;
    for (size_t i = 0; i < sizeof rings[queue].descriptors / 8; i++)
        words[i] = random_next();
}

static void offer_too_much(uint32_t queue)
{
    chain_of_nothing(queue);
    rings[queue].available.index = (uint16_t)(rings[queue].available.index + 40000);
}

static void offer_what_is_none(uint32_t queue)
{
    rings[queue].available.entries[rings[queue].available.index % RING_SIZE] = 65535;
    rings[queue].available.index++;
}

static void each_chain(void)
{
    static const struct {
        const char *name;
        void (*make)(uint32_t queue);
    } chains[] = {
        {"a chain that is its own next", chain_to_itself}, {"a circle", chain_in_a_circle},
        {"all of memory, many times", chain_of_all}, {"addresses elsewhere", chain_elsewhere},
        {"a next too far", chain_next_too_far}, {"writable first", chain_writable_first},
        {"chains of nothing", chain_of_nothing}, {"tables within tables", chain_indirect},
        {"noise", chain_of_noise}, {"more offered than there are", offer_too_much},
        {"a head that is none", offer_what_is_none},
    };
    uint64_t times = rounds() / 5 + 4; /* with and without indirect tables, event indices */
    for (size_t i = 0; i < sizeof chains / sizeof *chains; i++) {
        begin(chains[i].name);
        for (uint64_t round = 0; round < times; round++) {
            device_bring_up(&at_hand, round % 4 << 28 | (random_next() & 0xFFFFFFF));
            for (uint32_t queue = 0; queue < at_hand.queues; queue++) {
                chains[i].make(queue);
                ring_offer(queue, 0);
                ring_notify(&at_hand, queue);
            }
        }
        check_well();
    }
}

/* ---- requests of the right form that ask for what cannot be ---- */

static void noise_in_good_chains(void)
{
    begin("noise in good chains");
    for (uint64_t round = 0; round < rounds(); round++) {
        if (round % 16 == 0)
            device_bring_up(&at_hand, random_next());
        for (uint32_t queue = 0; queue < at_hand.queues; queue++) {
            uint64_t *words = (uint64_t *)buffers[queue][0];
            for (size_t i = 0; i < 16; i++)
                words[i] = random_next() % 3 ? random_next() % 64 : random_next();
            ring_describe(queue, 0, (uint64_t)words, (uint32_t)(random_next() % 80), DESC_NEXT, 1);
            ring_describe(queue, 1, (uint64_t)buffers[queue][1],
                          (uint32_t)(random_next() % 4097),
                          (uint16_t)(DESC_NEXT | (random_next() % 2 ? DESC_WRITE : 0)), 2);
            ring_describe(queue, 2, (uint64_t)buffers[queue][2], (uint32_t)(random_next() % 20),
                          DESC_WRITE, 0);
            ring_offer(queue, 0);
            ring_notify(&at_hand, queue);
        }
    }
    check_well();
}

static void block_beyond_its_end(void)
{
    static const uint64_t sectors[] = {UINT64_MAX, UINT64_MAX / 512, UINT64_C(1) << 55,
                                       UINT64_C(1) << 40, UINT64_MAX - 7};
    begin("sectors beyond the end");
    for (size_t i = 0; i < sizeof sectors / sizeof *sectors; i++)
        if (block_does(BLOCK_READ, sectors[i]))
            fail("a sector beyond the end was read");
    check_well();
}

static void block_written_to(void)
{
    uint32_t what[] = {BLOCK_WRITE, BLOCK_DISCARD, 13, BLOCK_WRITE | UINT32_C(1) << 31};
    begin("writes to a device that is read-only, and beyond the end of one that is not");
    device_reset(&at_hand);
    mmio_write(at_hand.window + REG_FEATURES_SEL, 0);
    bool read_only = mmio_read(at_hand.window + REG_FEATURES) & 1 << 5;
    for (size_t i = 0; i < sizeof what / sizeof *what; i++)
        if (block_does(what[i], read_only ? 8 : UINT64_C(1) << 40))
            fail("it said that it was written");
    check_well();
}

/* A flood of packets without a connection, each for another port. */
static void vsock_flood(void)
{
    uint64_t packets = rounds() * 5;
    begin("packets of no connection");
    device_bring_up(&at_hand, 0);
    for (uint64_t i = 0; i < packets; i++) {
        uint16_t at = (uint16_t)(i % RING_SIZE);
        struct {
            uint64_t from, to;
            uint32_t from_port, to_port, length;
            uint16_t type, operation;
            uint32_t flags, allocated, forwarded;
        } __attribute__((packed)) *packet = (void *)buffers[1][at];
        *packet = (typeof(*packet)){3, 2, (uint32_t)i, (uint32_t)random_next() % 2000,
                                    (uint32_t)(random_next() % 2 ? 0 : random_next()), 1,
                                    (uint16_t)(random_next() % 10), 3, 0xFFFFFFFF, 0};
        ring_describe(1, at, (uint64_t)packet, i % 3 ? 44 : 4096, 0, 0);
        ring_offer(1, at);
        if (i % 8 == 7)
            ring_notify(&at_hand, 1);
    }
    check_well();
}

/* Every page there is, several times, and pages that are not. */
static void balloon_takes_all(void)
{
    begin("pages that are not there");
    device_bring_up(&at_hand, random_next());
    for (uint64_t i = 0; i < rounds(); i++) {
        uint32_t *pages = (uint32_t *)buffers[0][i % RING_SIZE];
        for (size_t j = 0; j < 1024; j++)
            pages[j] = UINT32_C(1) << 28 | (uint32_t)(random_next() >> (random_next() % 64));
        for (uint32_t queue = 0; queue < 2; queue++) {
            ring_describe(queue, 0, (uint64_t)pages, (uint32_t)(random_next() % 4097), 0, 0);
            ring_offer(queue, 0);
            ring_notify(&at_hand, queue);
        }
    }
    check_well();
}

/* The pages of its own rings and of its requests: they read as zeros, in the midst of the work. */
static void balloon_takes_its_rings(void)
{
    begin("pages that the balloon's own rings lie in");
    for (uint64_t round = 0; round < rounds() / 4 + 4; round++) {
        uint32_t *pages = (uint32_t *)buffers[0][0];
        device_bring_up(&at_hand, round % 4 << 28 | (random_next() & 0xFFFFFFF));
        for (uint32_t queue = 0; queue < at_hand.queues; queue++) {
            for (uint16_t at = 0; at < 8; at++) { /* read as numbers, or reported as free */
                pages[0] = (uint32_t)((uint64_t)pages >> 12);
                for (uint32_t i = 0; i < 8; i++)
                    pages[1 + i] = (uint32_t)((uint64_t)&rings[0] >> 12) + i % 2 + queue * 2;
                bool free = queue >= 2;
                ring_describe(queue, at, free ? (uint64_t)&rings[queue] : (uint64_t)pages,
                              free ? 8192 : 36, free ? DESC_WRITE : 0, 0);
                ring_offer(queue, at);
            }
            ring_notify(&at_hand, queue);
        }
    }
    check_well();
}

/* ---- the second CPU changes what the device reads ---- */

static void scribble(void)
{
    static uint64_t noise = 88172645463325252;
    volatile struct ring *ring = &rings[scribbled_queue];
    for (int i = 0; i < 64; i++) {
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        volatile struct descriptor *one = &ring->descriptors[noise % 4];
        switch (noise >> 8 & 7) {
        case 0: one->address = (noise & 0xFFFFFFFFFFF) | ARENA; break;
        case 1: one->length = (uint32_t)noise; break;
        case 2: one->flags = (uint16_t)(noise >> 16 & 7); break;
        case 3: one->next = (uint16_t)(noise >> 16 & 0x7F); break;
        case 4: one->address = (uint64_t)buffers[0][1]; break;
        case 5: one->length = 512; break;
        case 6: buffers[0][0][noise >> 16 & 15] = (uint8_t)(noise >> 24); break;
        default: ring->available.entries[noise >> 16 & 63] = (uint16_t)(noise >> 24 & 0x7F);
        }
    }
}

static void changed_meanwhile(void)
{
    uint64_t times = rounds() * 4;
    begin("descriptors changed by a second CPU");
    for (uint64_t i = 0; i < times; i++) {
        uint32_t queue = (uint32_t)(i % at_hand.queues);
        if (i % 8 == 0 || mmio_read(at_hand.window + REG_STATUS) & STATUS_NEEDS_RESET)
            device_bring_up(&at_hand, 0);
        scribbled_queue = queue;
        second_work(scribble);
        ring_describe(queue, 0, (uint64_t)buffers[0][0], HEAD_BYTES, DESC_NEXT, 1);
        ring_describe(queue, 1, (uint64_t)buffers[0][1], 512, DESC_WRITE | DESC_NEXT, 2);
        ring_describe(queue, 2, (uint64_t)&buffers[0][2][STATUS_AT], 1, DESC_WRITE, 0);
        for (int j = 0; j < 8; j++)
            ring_offer(queue, 0);
        ring_notify(&at_hand, queue);
    }
    second_work(NULL);
    check_well();
}

static void attack_device(void)
{
    if (at_hand.kind == KIND_VSOCK && option("connections", 1))
        attack_connections();
    attack_edges();
    every_register();
    status_out_of_order();
    features_never_offered();
    reset_storm();
    queues_of_wrong_size();
    rings_out_of_place();
    moved_while_ready();
    each_chain();
    noise_in_good_chains();
    if (at_hand.kind == KIND_BLOCK) {
        block_beyond_its_end();
        block_written_to();
    }
    if (at_hand.kind == KIND_VSOCK)
        vsock_flood();
    if (at_hand.kind == KIND_BALLOON) {
        balloon_takes_all();
        balloon_takes_its_rings();
    }
    if (has_second)
        changed_meanwhile();
    attack_rings();
    check_well();
}

void program_main(void)
{
    if (begins(initramfs, "hostile"))
        command_line = initramfs;
    uint64_t only = option("only", WINDOWS_MAX), devices = 0, ending = option("ending", 0);
    interrupts_catch();
    has_second = second_cpu(NULL);
    say(has_second ? "hostile: two CPUs\n" : "hostile: one CPU\n");
    memset(canary, 0xA5, sizeof canary);
    for (uint32_t i = 0; i < WINDOWS_MAX; i++) {
        if ((only != WINDOWS_MAX && only != i) || !device_find(&at_hand, i))
            continue;
        devices++;
        attack_device();
    }
    if (only >= WINDOWS_MAX && option("platform", 1))
        attack_platform();
    say("hostile: ");
    say_number(attacks);
    say(" attacks, ");
    say_number(devices);
    say(" devices, ");
    say_number(failures);
    say(" failures\n");
    attack_end(ending);
}
