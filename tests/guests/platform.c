/* platform.c: attacks on what every machine has: ports, addresses, interrupt controllers, the
 * processor's own registers, and on KVM, which decodes what reaches for them. */
#include "attack.h"

enum { SERIAL = 0x3F8, VECTOR = 0x40, ICR = 0x300, ICR_HIGH = 0x310, SPURIOUS = 0x0F0 };

static uint8_t scratch[16384] __attribute__((aligned(4096)));

/* Ports where what is written ends the machine, at any byte of a doubleword. */
static bool ends(uint32_t port)
{
    return (port >= 0x502 && port <= 0x505) || (port >= 0x61 && port <= 0x64)
        || (port >= 0x5FD && port <= 0x604);
}

static void every_port(void)
{
    begin("ports that nobody listens to");
    for (uint32_t port = 0; port < 65536;
         port += !thorough() ? 1 + (uint32_t)random_next() % 200 : port < 0x1000 ? 1 : 257) {
        uint32_t value;
        __asm__ volatile("inl %w1, %0" : "=a"(value) : "Nd"(port));
        if (ends(port) || (port >= SERIAL - 3 && port < SERIAL + 8))
            continue;
        __asm__ volatile("outl %0, %w1" : : "a"(0xFFFFFFFF), "Nd"(port));
        __asm__ volatile("outb %b0, %w1" : : "a"(0xFF), "Nd"(port));
    }
}

static void every_address(void)
{
    uint64_t step = thorough() ? UINT64_C(0x1230004) : UINT64_C(0x12300004);
    begin("addresses that nobody listens to");
    for (uint64_t at = UINT64_C(0xC0000000); at < IOAPIC; at += step) {
        (void)mmio_read(at);
        if (at < WINDOWS || at >= WINDOWS + WINDOWS_MAX * WINDOW_BYTES)
            mmio_write(at, 0xFFFFFFFF);
    }
}

/* ---- accesses of odd form ---- */

static void touch_wide(void *context)
{
    __asm__ volatile("movups (%0), %%xmm0\n\tmovups %%xmm0, (%0)" : : "r"(context) : "memory");
}

static void touch_locked(void *context)
{
    uint64_t none = 0;
    __asm__ volatile("lock cmpxchgq %1, (%2)" : "+a"(none) : "r"(none), "r"(context) : "memory");
    __asm__ volatile("lock addl $1, (%0)" : : "r"(context) : "memory");
}

static void touch_split(void *context)
{
    volatile uint64_t *at = context;
    (void)*at;
    *at = UINT64_MAX;
}

static void over_the_edge(void)
{
    static const uint64_t edges[] = {
        WINDOWS - 1, WINDOWS - 4, WINDOWS + 0xFFC, WINDOWS + 0xFFF, WINDOWS + 0xFA, WINDOWS + 0xFF,
        WINDOWS + WINDOWS_MAX * WINDOW_BYTES - 3, IOAPIC - 3, IOAPIC + 0xFF, IOAPIC + 0xE,
        LAPIC - 3, LAPIC + 0xFFC, UINT64_C(0xFFFFFFF8),
    };
    uint64_t control;
    __asm__ volatile("mov %%cr4, %0" : "=r"(control));
    __asm__ volatile("mov %0, %%cr4" : : "r"(control | 0x600)); /* movups may be used */
    begin("accesses over an edge, wide and locked");
    for (size_t i = 0; i < sizeof edges / sizeof *edges; i++) {
        probe(touch_split, (void *)edges[i]);
        probe(touch_wide, (void *)edges[i]);
        probe(touch_locked, (void *)edges[i]);
    }
    for (uint64_t back = 1; back < 16; back += 3) { /* half of it is memory */
        probe(touch_split, (void *)(ram_end - back));
        probe(touch_wide, (void *)(ram_end - back));
    }
}

struct strings {
    uint64_t to, from, count;
    uint32_t port, way;
};

static void string(void *context)
{
    struct strings one = *(const struct strings *)context;
    if (one.way & 8)
        __asm__ volatile("std");
    switch (one.way & 7) {
    case 0: __asm__ volatile("rep insb" : "+D"(one.to), "+c"(one.count) : "d"(one.port) : "memory");
        break;
    case 1: __asm__ volatile("rep insl" : "+D"(one.to), "+c"(one.count) : "d"(one.port) : "memory");
        break;
    case 2: __asm__ volatile("rep outsb" : "+S"(one.from), "+c"(one.count) : "d"(one.port));
        break;
    case 3: __asm__ volatile("rep outsl" : "+S"(one.from), "+c"(one.count) : "d"(one.port));
        break;
    case 4: __asm__ volatile("rep movsb" : "+D"(one.to), "+S"(one.from), "+c"(one.count)
                             : : "memory");
        break;
    case 5: __asm__ volatile("rep movsq" : "+D"(one.to), "+S"(one.from), "+c"(one.count)
                             : : "memory");
        break;
    default: __asm__ volatile("rep stosl" : "+D"(one.to), "+c"(one.count) : "a"(~0) : "memory");
        break;
    }
    __asm__ volatile("cld");
}

/* From and to memory, windows, and where neither is; what would end the machine is only read. */
static void strings_of_all_kinds(void)
{
    const uint64_t middle = (uint64_t)scratch + sizeof scratch / 2;
    const uint64_t places[] = {middle, WINDOWS + 0x100, WINDOWS + 0xFF0, UINT64_C(0xC0000000),
                               IOAPIC + 0x10, middle};
    static const uint32_t ports[] = {SERIAL, 0x80, 0x500, 0x5F0, 0x3FD, 0xCF8, 0xFFFF};
    static const uint32_t read_only[] = {0x505, 0x64, 0x600, 0x602};
    begin("string instructions between ports, windows and memory");
    for (uint64_t round = 0; round < rounds() * 4; round++) {
        struct strings one = {
            .to = places[random_next() % 6], .from = places[random_next() % 6],
            .count = random_next() % (thorough() ? 600 : 24), .way = (uint32_t)random_next() % 16,
            .port = ports[random_next() % 7],
        };
        if ((one.way & 7) < 2 && random_next() % 2)
            one.port = read_only[random_next() % 4];
        probe(string, &one);
    }
    struct strings much = {.to = (uint64_t)scratch, .from = (uint64_t)scratch,
                           .count = sizeof scratch, .port = 0x80};
    for (much.way = 0; much.way < 3; much.way += 2)
        probe(string, &much);
}

/* ---- the processor ---- */

struct msr {
    uint32_t number;
    uint64_t value;
};

static void write_msr(void *context)
{
    const struct msr *msr = context;
    __asm__ volatile("wrmsr" : : "c"(msr->number), "a"((uint32_t)msr->value),
                     "d"((uint32_t)(msr->value >> 32)));
}

static void read_msr(void *context)
{
    uint32_t low, high;
    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(((const struct msr *)context)->number));
}

/* Without that which only cripples the guest itself: the APIC's base, EFER, FS, GS and the like,
 * and Hyper-V's reset and interrupt command. */
static void model_specific_registers(void)
{
    static const struct {
        uint32_t first, count;
    } ranges[] = {{0x10, 1}, {0x2C, 0x40}, {0x79, 0x80}, {0x174, 0x10}, {0x198, 0x20},
                  {0x200, 0x20}, {0x250, 0x30}, {0x345, 1}, {0x38D, 8}, {0x400, 0x80},
                  {0x480, 0x12}, {0x6E0, 1}, {0x800, 0x40}, {0xDA0, 1}, {0x40000000, 3},
                  {0x40000020, 4}, {0x40000072, 6}, {0x40000080, 0x20}, {0x4B564D00, 9},
                  {0xC0000103, 1}, {0xC0010000, 0x20}, {0xC0010110, 0x10}, {0x11, 2}};
    begin("model-specific registers");
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        for (uint32_t j = 0; j < ranges[i].count;
             j += thorough() ? 1u : 1u + (uint32_t)random_next() % 8) {
            const uint64_t values[] = {0, UINT64_MAX, ARENA | 1, ram_end - 1, random_next()};
            struct msr msr = {ranges[i].first + j, values[random_next() % 5]};
            probe(read_msr, &msr);
            probe(write_msr, &msr);
        }
    static const uint32_t shared[] = {0x11, 0x12, 0x4B564D00, 0x4B564D01, 0x4B564D02, 0x4B564D03,
                                      0x4B564D04};
    for (size_t i = 0; i < sizeof shared / sizeof *shared; i++) /* the host forgets these pages */
        probe(write_msr, &(struct msr){shared[i], 0});
}

static void leaves_of_cpuid(void)
{
    begin("leaves of CPUID that are none");
    for (uint32_t i = 0; i < 64; i++) {
        uint32_t leaf = (uint32_t)random_next(), part = (uint32_t)random_next(), b, d;
        leaf = i < 32 ? i : i < 40 ? 0x40000000 + i : leaf;
        __asm__ volatile("cpuid" : "+a"(leaf), "=b"(b), "+c"(part), "=d"(d));
    }
}

/* ---- interrupts ---- */

static void ioapic_set(uint32_t number, uint32_t value)
{
    mmio_write(IOAPIC, number);
    mmio_write(IOAPIC + 0x10, value);
}

static void ioapic_mask_all(void)
{
    for (uint32_t pin = 0; pin < 24; pin++)
        ioapic_set(0x10 + 2 * pin, 1 << 16);
}

static void ioapic_nonsense(void)
{
    begin("registers of the IOAPIC");
    for (uint32_t i = 0; i < 256; i += thorough() ? 1 : 5) {
        ioapic_set(i, (uint32_t)random_next() | 1 << 16);
        (void)mmio_read(IOAPIC + 0x10);
        mmio_write(IOAPIC + i * 4, (uint32_t)random_next() & 0xFF);
        *(volatile uint8_t *)(IOAPIC + i) = 0xFF;
        *(volatile uint16_t *)(IOAPIC + i) = 0xFFFF;
    }
    ioapic_mask_all();
}

/* No INIT and no STARTUP that would reach this CPU. */
static void interprocessor_nonsense(void)
{
    static const uint32_t shorthands[] = {0, 1 << 18, 2 << 18, 3 << 18};
    begin("interrupts between processors: to nobody, to oneself, of every kind");
    interrupts_on();
    for (uint64_t round = 0; round < rounds() * 8; round++) {
        uint32_t command = (uint32_t)random_next() & 0xDFFF, target = (uint32_t)random_next();
        uint32_t mode = command >> 8 & 7;
        if (mode == 2 || mode == 3 || mode == 5 || mode == 6) {
            target = 0x70; /* nobody */
            command &= ~UINT32_C(0x0800);
        } else {
            command |= shorthands[random_next() % 4];
        }
        mmio_write(LAPIC + ICR_HIGH, target << 24);
        mmio_write(LAPIC + ICR, command);
    }
    for (uint64_t round = 0; round < rounds() * 8; round++)
        mmio_write(LAPIC + ICR, 1 << 18 | 1 << 14 | VECTOR | (uint32_t)round % 2 << 4);
    interrupts_off();
}

static void local_apic_nonsense(void)
{
    begin("registers of the local APIC");
    for (uint64_t round = 0; round < rounds() * 4; round++) {
        uint32_t at = (uint32_t)random_next() % 0x40 << 4;
        if (at == ICR)
            continue;
        mmio_write(LAPIC + at, (uint32_t)random_next());
        (void)mmio_read(LAPIC + at + (uint32_t)round % 5);
    }
    for (uint32_t at = 0x320; at <= 0x370; at += 0x10)
        mmio_write(LAPIC + at, 1 << 16);
    mmio_write(LAPIC + 0x380, 0);
    mmio_write(LAPIC + 0x0D0, 1 << 24); /* logical id, flat model, no priority */
    mmio_write(LAPIC + 0x0E0, 0xFFFFFFFF);
    mmio_write(LAPIC + 0x080, 0);
    mmio_write(LAPIC + SPURIOUS, 0x1FF);
}

static void acknowledge(void)
{
    for (uint32_t bits = 0; bits < 4; bits++)
        mmio_write(at_hand.window + REG_ACK, bits);
    (void)mmio_read(at_hand.window + REG_INTERRUPT);
    mmio_write(at_hand.window + REG_ACK, 0xFFFFFFFF);
}

/* A device that always has something to tell, on a line that is masked, moved, of either trigger,
 * and never acknowledged, or by both. */
static void interrupt_storm(void)
{
    begin("a storm of interrupts: masked and not, moved, acknowledged by both CPUs");
    uint64_t before = interrupts;
    interrupts_on();
    for (uint32_t number = 0; number < WINDOWS_MAX; number++) {
        if (!device_find(&at_hand, number))
            continue;
        second_work(acknowledge);
        device_bring_up(&at_hand, 0);
        for (uint64_t round = 0; round < rounds(); round++) {
            uint32_t entry = 0x10 + 2 * (16 + number);
            ioapic_set(entry, (uint32_t)random_next() & 0x1AF00 & ~UINT32_C(0x0600));
            ioapic_set(entry + 1, (uint32_t)(random_next() % 3) << 24);
            ring_describe(0, 0, (uint64_t)buffers[0][0], 64, DESC_WRITE, 0);
            ring_offer(0, 0);
            ring_notify(&at_hand, 0);
            ioapic_set(entry, VECTOR + number);
            if (round % 4 == 0)
                device_bring_up(&at_hand, 0);
        }
        second_work(NULL);
        device_reset(&at_hand);
    }
    interrupts_off();
    ioapic_mask_all();
    if (interrupts == before)
        fail("no interrupt came at all");
}

static void serial_floods(void)
{
    const struct {
        uint32_t offset;
        uint8_t value;
    } steps[] = {{3, 0x80}, {0, 1}, {1, 0}, {3, 3}, {1, 0xFF}, {4, 0x1F}, {2, 0xC7}};
    begin("the serial port: more than it keeps, and every register");
    interrupts_on();
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++)
        port_write((uint16_t)(SERIAL + steps[i].offset), steps[i].value);
    for (uint32_t i = 0; i < 64; i++)
        port_write((uint16_t)(SERIAL + random_next() % 8), (uint8_t)random_next());
    port_write(SERIAL + 3, 3); /* no divisor latch, no loopback, no interrupts */
    port_write(SERIAL + 4, 0);
    port_write(SERIAL + 1, 0);
    interrupts_off();
    memset(scratch, '.', sizeof scratch);
    for (int i = 0; i < (thorough() ? 6 : 1); i++)
        probe(string, &(struct strings){.from = (uint64_t)scratch, .count = sizeof scratch,
                                        .port = SERIAL, .way = 2});
    say("\n");
}

void attack_platform(void)
{
    at_hand = (struct device){0};
    every_port();
    every_address();
    over_the_edge();
    strings_of_all_kinds();
    model_specific_registers();
    leaves_of_cpuid();
    ioapic_nonsense();
    interprocessor_nonsense();
    local_apic_nonsense();
    interrupt_storm();
    serial_floods();
}
