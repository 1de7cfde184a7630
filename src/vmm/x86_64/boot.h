/* boot.h: puts a kernel, its initramfs and what it must be told into guest memory, by the PVH
 * protocol (Xen's docs/misc/pvh.pandoc): 32-bit protected mode, start_info in ebx. */
#pragma once

#include "vmm/memory.h"
#include "vmm/x86_64/acpi.h"

#include <linux/kvm.h>

struct boot_image { /* what was loaded; entry 0: nothing yet */
    uint64_t entry, end; /* nothing of it lies at end or above */
    uint64_t initramfs, initramfs_bytes; /* 0 bytes: none */
};

/* An ELF vmlinux and an initramfs (-1: none), both read from their start. BAD_REQUEST: no such
 * kernel, or it does not fit. */
MUST_CHECK status boot_load(struct boot_image *ret, const struct guest_memory *memory, int kernel,
                            int initramfs, struct fault *fault);

/* What the kernel is told: start_info, memory map, command line, ACPI. */
MUST_CHECK status boot_describe(const struct guest_memory *memory, const struct boot_image *image,
                                const char *command_line, const struct acpi_machine *machine,
                                struct fault *fault);

/* The registers of a vCPU that enters by PVH at entry. */
void boot_registers(struct kvm_regs *registers, struct kvm_sregs *special, uint64_t entry);
