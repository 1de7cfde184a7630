/* guest.h: what a guest program of ours stands on: no kernel, no C library, all of memory. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WINDOWS UINT64_C(0xD0000000) /* as src/vmm/x86_64/layout.h has it */
#define WINDOW_BYTES UINT64_C(0x1000)
#define WINDOWS_MAX 8

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
void second_work(void (*work)(void)); /* from now on; NULL: it waits */

void *memset(void *to, int byte, size_t size); /* the compiler calls these two by name */
void *memcpy(void *to, const void *from, size_t size);

static inline uint32_t mmio_read(uint64_t address)
{
    return *(volatile uint32_t *)address;
}

static inline void mmio_write(uint64_t address, uint32_t value)
{
    *(volatile uint32_t *)address = value;
}
