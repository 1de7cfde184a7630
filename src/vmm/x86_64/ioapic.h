/* ioapic.h: the one IOAPIC (Intel 82093AA), in user space: the local APICs are the kernel's, and
 * an interrupt is a message to them. Edges only: what a guest programs as level is an edge too. */
#pragma once

#include "vmm/x86_64/layout.h"

#include <stdbool.h>

struct ioapic { /* serialisable */
    uint64_t redirection[LINES];
    uint32_t select, id, pending; /* pending: edges that came while their pin was masked */
};

/* What the local APICs are to be told; false: nothing. */
struct ioapic_message {
    uint32_t address, data;
};

void ioapic_reset(struct ioapic *ioapic);
uint32_t ioapic_read(const struct ioapic *ioapic, uint64_t offset);
/* True where an edge that was held back must go out now. */
bool ioapic_write(struct ioapic_message *ret, struct ioapic *ioapic, uint64_t offset,
                  uint32_t value);
bool ioapic_raise(struct ioapic_message *ret, struct ioapic *ioapic, uint32_t line);
