#include "vmm/x86_64/ioapic.h"

#include <stddef.h>

enum { /* offsets of the window, and registers behind it */
    WINDOW_SELECT = 0x00, WINDOW_DATA = 0x10,
    REGISTER_ID = 0, REGISTER_VERSION = 1, REGISTER_ARBITRATION = 2, REGISTER_REDIRECTION = 0x10,
    VERSION = 0x11,
};

#define ENTRY_DELIVERY_MODE (UINT64_C(7) << 8)
#define ENTRY_LOGICAL (UINT64_C(1) << 11)
#define ENTRY_READ_ONLY (UINT64_C(1) << 12 | UINT64_C(1) << 14) /* delivery status, remote IRR */
#define ENTRY_MASKED (UINT64_C(1) << 16)
#define ENTRY_WRITABLE (UINT64_C(0xFF0000000001FFFF) & ~ENTRY_READ_ONLY)

void ioapic_reset(struct ioapic *ioapic)
{
    *ioapic = (struct ioapic){0};
    for (uint32_t pin = 0; pin < LINES; pin++)
        ioapic->redirection[pin] = ENTRY_MASKED;
}

/* Only fixed (0) and lowest priority (1): a device's interrupt is no NMI, SMI or INIT. */
static bool compose(struct ioapic_message *ret, uint64_t entry)
{
    uint32_t mode = (uint32_t)((entry & ENTRY_DELIVERY_MODE) >> 8);
    uint32_t vector = (uint32_t)(entry & 0xFF), destination = (uint32_t)(entry >> 56);
    if (mode > 1 || vector < 16)
        return false;
    ret->address = (uint32_t)GUEST_LAPIC | destination << 12 | mode << 3
                   | (entry & ENTRY_LOGICAL ? 1u << 2 : 0);
    ret->data = mode << 8 | vector;
    return true;
}

bool ioapic_raise(struct ioapic_message *ret, struct ioapic *ioapic, uint32_t line)
{
    if (line >= LINES)
        return false;
    if (ioapic->redirection[line] & ENTRY_MASKED) {
        ioapic->pending |= 1u << line;
        return false;
    }
    return compose(ret, ioapic->redirection[line]);
}

uint32_t ioapic_read(const struct ioapic *ioapic, uint64_t offset)
{
    if (offset == WINDOW_SELECT)
        return ioapic->select;
    if (offset != WINDOW_DATA)
        return UINT32_MAX;
    uint32_t number = ioapic->select;
    if (number == REGISTER_ID || number == REGISTER_ARBITRATION)
        return ioapic->id;
    if (number == REGISTER_VERSION)
        return VERSION | (LINES - 1) << 16;
    if (number < REGISTER_REDIRECTION || number >= REGISTER_REDIRECTION + 2 * LINES)
        return UINT32_MAX;
    uint64_t entry = ioapic->redirection[(number - REGISTER_REDIRECTION) / 2];
    return (uint32_t)(number & 1 ? entry >> 32 : entry);
}

bool ioapic_write(struct ioapic_message *ret, struct ioapic *ioapic, uint64_t offset,
                  uint32_t value)
{
    if (offset == WINDOW_SELECT)
        ioapic->select = value & 0xFF;
    if (offset != WINDOW_DATA)
        return false;
    uint32_t number = ioapic->select;
    if (number == REGISTER_ID)
        ioapic->id = value & 0x0F000000;
    if (number < REGISTER_REDIRECTION || number >= REGISTER_REDIRECTION + 2 * LINES)
        return false;
    uint32_t pin = (number - REGISTER_REDIRECTION) / 2;
    uint64_t *entry = &ioapic->redirection[pin];
    uint64_t wide = number & 1 ? (uint64_t)value << 32 | (*entry & UINT32_MAX)
                               : (*entry & ~(uint64_t)UINT32_MAX) | value;
    *entry = wide & ENTRY_WRITABLE;
    if (*entry & ENTRY_MASKED || !(ioapic->pending & 1u << pin))
        return false;
    ioapic->pending &= ~(1u << pin);
    return compose(ret, *entry);
}
