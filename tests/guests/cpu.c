#include "cpu.h"

#define LAPIC UINT64_C(0xFEE00000)
#define IOAPIC UINT64_C(0xFEC00000)
#define OTHERS_AT UINT64_C(0x8000)
#define OTHERS_COUNT UINT64_C(0x8800)

enum { VECTOR = 0x40, GATE = 0x8E00 };
enum { LAPIC_EOI = 0x0B0, LAPIC_SPURIOUS = 0x0F0, LAPIC_COMMAND = 0x300, LAPIC_TIMER = 0x320,
       LAPIC_INITIAL = 0x380, LAPIC_CURRENT = 0x390, LAPIC_DIVIDE = 0x3E0 };
enum { BY_128 = 0xA, PER_MS = 1000000 / 128 }; /* of KVM's: a nanosecond a tick */

struct gate {
    uint16_t low, selector, flags, middle;
    uint32_t high, zero;
};

struct pointer {
    uint16_t limit;
    uint64_t base;
} __attribute__((packed));

static bool timed;
static struct gate gates[256];

extern const uint8_t others_start[], others_end[];

__asm__(".global others_start, others_end\n"
        ".code16\n"
        "others_start:\n"
        "  xor %ax, %ax\n"
        "  mov %ax, %ds\n"
        "  lock incl 0x8800\n"
        "1: hlt\n"
        "  jmp 1b\n"
        "others_end:\n"
        ".code64\n");

__attribute__((interrupt)) static void on_interrupt(void *frame)
{
    (void)frame;
    mmio_write(LAPIC + LAPIC_EOI, 0);
}

void cpu_begin(void)
{
    const struct pointer idt = {sizeof gates - 1, (uint64_t)gates};
    const uint64_t handler = (uint64_t)on_interrupt;
    gates[VECTOR] = (struct gate){(uint16_t)handler, 0x08, GATE, (uint16_t)(handler >> 16),
                                  (uint32_t)(handler >> 32), 0};
    mmio_write(LAPIC + LAPIC_SPURIOUS, mmio_read(LAPIC + LAPIC_SPURIOUS) | 0x1FF);
    mmio_write(LAPIC + LAPIC_DIVIDE, BY_128);
    mmio_write(LAPIC + LAPIC_TIMER, VECTOR);
    __asm__ volatile("lidt %0" : : "m"(idt));
}

void cpu_wait(void)
{
    __asm__ volatile("sti; hlt; cli" : : : "memory");
}

void cpu_port(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %b0, %w1" : : "a"(value), "Nd"(port));
}

void cpu_triple_fault(void)
{
    const struct pointer nothing = {0};
    __asm__ volatile("lidt %0; ud2" : : "m"(nothing));
}

uint32_t cpu_wake_others(void)
{
    static const uint32_t commands[] = {0xC4500, 0xC4600 | OTHERS_AT >> 12,
                                        0xC4600 | OTHERS_AT >> 12}; /* all but this one */
    memcpy((void *)OTHERS_AT, others_start, (size_t)(others_end - others_start));
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        mmio_write(LAPIC + LAPIC_COMMAND, commands[i]);
        timer_start(i == 2 ? 500 : 10);
        while (!timer_is_over())
            cpu_wait();
    }
    timer_start(0);
    return *(volatile uint32_t *)OTHERS_COUNT;
}

void line_enable(uint32_t line)
{
    mmio_write(IOAPIC, 0x11 + 2 * line);
    mmio_write(IOAPIC + 0x10, 0); /* to the first processor */
    mmio_write(IOAPIC, 0x10 + 2 * line);
    mmio_write(IOAPIC + 0x10, VECTOR);
}

void timer_start(uint32_t ms)
{
    timed = ms > 0;
    mmio_write(LAPIC + LAPIC_INITIAL, ms * PER_MS);
}

bool timer_is_over(void)
{
    return timed && mmio_read(LAPIC + LAPIC_CURRENT) == 0;
}
