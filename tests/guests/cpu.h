/* cpu.h: interrupts, time and the other processors of a program that waits. */
#pragma once

#include "guest.h"

void cpu_begin(void);
/* Sleeps until the next interrupt; one that came before counts. Elsewhere interrupts are off. */
void cpu_wait(void);
void cpu_port(uint16_t port, uint8_t value);
/* A state that no processor can go on from. */
void cpu_triple_fault(void);
/* The other processors each add one to a count and sleep; what it is after a while. */
uint32_t cpu_wake_others(void);

/* A line of the IOAPIC, as edges; all that it does is to end a wait. */
void line_enable(uint32_t line);
/* The same after so many milliseconds, at most 500,000; 0: never. */
void timer_start(uint32_t ms);
bool timer_is_over(void);
