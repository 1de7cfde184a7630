#include "guest.h"

#define SECOND_AT UINT64_C(0x8000)

enum { SERIAL = 0x3F8, SLEEP_CONTROL = 0x601, SLEEP_NOW = 0x20 | 5 << 2, LINE_STATUS_READY = 0x20 };

struct start_info { /* Xen's hvm_start_info, version 1 */
    uint32_t magic, version, flags, modules;
    uint64_t module_list, command_line, rsdp, memory_map;
    uint32_t memory_entries, reserved;
};

struct memory_entry {
    uint64_t address, size;
    uint32_t type, reserved;
};

struct module {
    uint64_t address, size, command_line, reserved;
};

uint64_t ram_end;
const char *command_line = "", *initramfs = "";

struct gate { /* of the interrupt descriptor table, Intel SDM 3A, 6.14.1 */
    uint16_t low, selector, kind, middle;
    uint32_t high, reserved;
};

volatile uint64_t interrupts;
static struct gate gates[256];
static bool gates_made;
static uint64_t seed;
static void (*volatile second_job)(void), (*volatile second_at)(void); /* wanted, and at work */
static volatile bool second_alive;

extern const uint8_t second_start[], second_end[];

void *memset(void *to, int byte, size_t size)
{
    void *at = to;
    __asm__ volatile("rep stosb" : "+D"(at), "+c"(size) : "a"(byte) : "memory");
    return to;
}

void *memcpy(void *to, const void *from, size_t size)
{
    void *at = to;
    size_t words = size / 8;
    size %= 8;
    /* some hosts emulate each step of these */
    __asm__ volatile("rep movsq" : "+D"(at), "+S"(from), "+c"(words) : : "memory");
    __asm__ volatile("rep movsb" : "+D"(at), "+S"(from), "+c"(size) : : "memory");
    return to;
}

/* One exit, not one a character. */
void say(const char *text)
{
    size_t length = 0;
    while (text[length])
        length++;
    __asm__ volatile("rep outsb" : "+S"(text), "+c"(length) : "d"(SERIAL) : "memory");
}

void say_number(uint64_t number)
{
    char digits[24];
    size_t at = sizeof digits - 1;
    digits[at] = '\0';
    do
        digits[--at] = (char)('0' + number % 10);
    while ((number /= 10) > 0);
    say(digits + at);
}

void power_off(void)
{
    for (;;) {
        port_write(SLEEP_CONTROL, SLEEP_NOW);
        __asm__ volatile("hlt");
    }
}

uint64_t random_next(void)
{
    seed ^= seed >> 12;
    seed ^= seed << 25;
    seed ^= seed >> 27;
    return seed * UINT64_C(2685821657736338717);
}

bool begins(const char *text, const char *with)
{
    for (; *with; text++, with++)
        if (*text != *with)
            return false;
    return true;
}

uint64_t option(const char *name, uint64_t otherwise)
{
    for (const char *at = command_line; *at; at++) {
        if ((at != command_line && at[-1] != ' ') || !begins(at, name))
            continue;
        uint64_t value = 0;
        while (*at && *at != '=')
            at++;
        while (*at && *++at >= '0' && *at <= '9')
            value = value * 10 + (uint64_t)(*at - '0');
        return value;
    }
    return otherwise;
}

static void pause_a_while(void)
{
    for (int i = 0; i < 20000; i++)
        __asm__ volatile("pause");
}

static void gate_set(uint32_t vector, void (*to)(void))
{
    uint64_t at = (uint64_t)to;
    gates[vector] = (struct gate){(uint16_t)at, 8, 0x8E00, (uint16_t)(at >> 16),
                                  (uint32_t)(at >> 32), 0};
}

static void gates_load(void)
{
    const struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) table = {sizeof gates - 1, (uint64_t)gates};
    __asm__ volatile("lidt %0" : : "m"(table));
}

void interrupts_catch(void)
{
    for (uint32_t vector = 0; vector < 256; vector++)
        gate_set(vector, vector == 2 ? nmi_counted
                         : vector < 16 ? exception_ends_probe : interrupt_counted);
    gates_made = true;
    gates_load();
}

void second_main(void)
{
    if (gates_made)
        gates_load();
    second_alive = true;
    for (;;) {
        void (*job)(void) = second_job;
        second_at = job;
        if (job)
            job();
        else
            __asm__ volatile("pause");
    }
}

/* INIT, then STARTUP twice (Intel SDM 3A, 9.4). */
bool second_cpu(void (*work)(void))
{
    memcpy((void *)SECOND_AT, second_start, (size_t)(second_end - second_start));
    second_job = work;
    mmio_write(LAPIC + 0x0F0, mmio_read(LAPIC + 0x0F0) | 0x1FF);
    mmio_write(LAPIC + 0x310, UINT32_C(1) << 24);
    mmio_write(LAPIC + 0x300, 0x4500);
    pause_a_while();
    for (int i = 0; i < 2 && !second_alive; i++) {
        mmio_write(LAPIC + 0x310, UINT32_C(1) << 24);
        mmio_write(LAPIC + 0x300, 0x4600 | (uint32_t)(SECOND_AT >> 12));
        for (int wait = 0; wait < 50 && !second_alive; wait++)
            pause_a_while();
    }
    return second_alive;
}

void second_work(void (*work)(void))
{
    second_job = work;
    while (second_alive && second_at != work)
        __asm__ volatile("pause");
}

void guest_main(uint64_t start_info)
{
    const struct start_info *info = (const struct start_info *)start_info;
    const struct memory_entry *entries = (const struct memory_entry *)info->memory_map;
    if (info->command_line)
        command_line = (const char *)info->command_line;
    if (info->modules)
        initramfs = (const char *)((const struct module *)info->module_list)->address;
    for (uint32_t i = 0; i < info->memory_entries; i++)
        if (entries[i].type == 1 && entries[i].address <= UINT64_C(0x200000))
            ram_end = entries[i].address + entries[i].size;
    seed = option("seed", 42) | 1;
    program_main();
    power_off();
}
