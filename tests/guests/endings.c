/* endings.c: how a hostile guest ends, or does not. */
#include "attack.h"

static volatile bool now;

static void stand(void)
{
    interrupts_off();
    for (;;)
        __asm__ volatile("hlt");
}

static void spin(void)
{
    interrupts_off();
    for (;;)
        __asm__ volatile("" ::: "memory");
}

static void flood_registers(void)
{
    for (uint32_t number = 0; number < WINDOWS_MAX; number++) {
        uint64_t window = WINDOWS + number * WINDOW_BYTES;
        mmio_write(window + REG_STATUS, 0);
        mmio_write(window + 0x100, 0xFFFFFFFF);
        mmio_write(window + REG_STATUS, 15);
        mmio_write(window + REG_NOTIFY, number % 4);
        (void)mmio_read(window + REG_CONFIG);
    }
}

static void flood_serial(void)
{
    static char line[256];
    memset(line, '#', sizeof line - 1);
    say(line);
}

static void panic_soon(void)
{
    while (!now)
        ;
    port_write(0x505, 1);
    stand();
}

/* The first begins anew, where firmware would be. */
static void restart_the_first(void)
{
    mmio_write(LAPIC + 0x310, 0);
    mmio_write(LAPIC + 0x300, 0x4500);
    stand();
}

static void triple_fault(void)
{
    const struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) none = {0};
    __asm__ volatile("lidt %0\n\tint3" : : "m"(none));
}

/* There is no instruction to fetch: KVM can but give up. */
static void run_a_window(void)
{
    ((void (*)(void))(WINDOWS + 0x100))();
}

static void call_vmcall(void *context)
{
    const uint64_t *words = context;
    uint64_t number = words[0];
    __asm__ volatile("vmcall" : "+a"(number)
                     : "b"(words[1]), "c"(words[2]), "d"(words[3]), "S"(words[4]) : "memory");
}

static void call_vmmcall(void *context)
{
    const uint64_t *words = context;
    uint64_t number = words[0];
    __asm__ volatile("vmmcall" : "+a"(number)
                     : "b"(words[1]), "c"(words[2]), "d"(words[3]), "S"(words[4]) : "memory");
}

/* A KVM that mends the wrong one of the two in the guest's code may not come back from it. */
static void hypercalls(void)
{
    for (uint64_t number = 0; number < 32; number++) {
        uint64_t words[5] = {number % 16 == 15 ? random_next() : number % 16, bad_address(),
                             random_next(), bad_address(), random_next() % 4};
        probe(number % 2 ? call_vmcall : call_vmmcall, words);
    }
}

static void power_off_in_a_flood(void)
{
    second_work(flood_registers);
    for (int i = 0; i < 10; i++)
        flood_registers();
    power_off();
}

static void both_at_once(void)
{
    second_work(panic_soon);
    now = true;
    port_write(0x64, 0xFE);
    stand();
}

static void forever(void (*work)(void))
{
    second_work(work);
    for (;;)
        work();
}

void attack_end(uint64_t way)
{
    say("ending\n");
    switch (way) {
    case 1: triple_fault(); break;
    case 2: port_write(0x505, 1); stand(); break;
    case 3: port_write(0x64, 0xFE); stand(); break;
    case 4: port_write(0x600, 1); stand(); break;
    case 5: second_work(stand); stand(); break;
    case 6: second_work(spin); spin(); break;
    case 7: power_off_in_a_flood(); break;
    case 8: both_at_once(); break;
    case 9: run_a_window(); break;
    case 10: forever(flood_serial); break;
    case 11: forever(flood_registers); break;
    case 12: second_work(restart_the_first); stand(); break;
    case 13: hypercalls(); break;
    default: break;
    }
}
