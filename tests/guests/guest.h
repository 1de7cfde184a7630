/* guest.h: what a guest program of ours stands on: no kernel, no C library, all of memory. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WINDOWS UINT64_C(0xD0000000) /* as src/vmm/x86_64/layout.h has it */
#define WINDOW_BYTES UINT64_C(0x1000)
#define WINDOWS_MAX 8
#define LAPIC UINT64_C(0xFEE00000)
#define IOAPIC UINT64_C(0xFEC00000)

/* Of the start info: bytes of RAM from 0 on, the command line, the bytes of the initramfs. */
extern uint64_t ram_end;
extern const char *command_line, *initramfs;

void guest_main(uint64_t start_info); /* by start.S; calls program_main */
void second_main(void);
void program_main(void);

bool begins(const char *text, const char *with);
/* The value behind "name=" on the command line, else otherwise. */
uint64_t option(const char *name, uint64_t otherwise);

void say(const char *text);       /* to the serial console */
void say_number(uint64_t number);
_Noreturn void power_off(void);

uint64_t random_next(void); /* xorshift64*, seeded by "seed=" */

/* Starts the second CPU, which then calls work over and over; false: there is none. */
bool second_cpu(void (*work)(void));
/* From now on, and no more what it did before; NULL: it waits. */
void second_work(void (*work)(void));

/* Exceptions end a probe, interrupts are counted; also on a second CPU that is started later. */
void interrupts_catch(void);
/* False: it ended in an exception. Of the first CPU alone. */
bool probe(void (*attempt)(void *context), void *context);
void exception_ends_probe(void), nmi_counted(void), interrupt_counted(void);
extern volatile uint64_t interrupts; /* taken by both CPUs, NMIs too */

void *memset(void *to, int byte, size_t size); /* the compiler calls these two by name */
void *memcpy(void *to, const void *from, size_t size);

static inline void port_write(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline void interrupts_on(void)
{
    __asm__ volatile("sti" ::: "memory");
}

static inline void interrupts_off(void)
{
    __asm__ volatile("cli" ::: "memory");
}

static inline uint32_t mmio_read(uint64_t address)
{
    return *(volatile uint32_t *)address;
}

static inline void mmio_write(uint64_t address, uint32_t value)
{
    *(volatile uint32_t *)address = value;
}
