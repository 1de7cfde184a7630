/* acpi.h: the tables that describe the machine to its kernel (ACPI 6.4): RSDP, XSDT, FADT of a
 * hardware-reduced machine, MADT, and a DSDT with the virtio windows, VMGenID, pvpanic, S5. */
#pragma once

#include "base/buffer.h"
#include "vmm/x86_64/layout.h"

#include <stdbool.h>

struct acpi_machine {
    uint32_t vcpus, devices; /* virtio windows, in order */
    bool console;
};

/* All tables as they lie at guest address GUEST_TABLES, the RSDP first. */
MUST_CHECK status acpi_build(struct buffer *out, const struct acpi_machine *machine,
                             struct fault *fault);
