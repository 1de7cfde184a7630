/* boot.h: puts a kernel, its initramfs and what it must be told into guest memory, by the PVH
 * protocol (Xen's docs/misc/pvh.pandoc): 32-bit protected mode, start_info in ebx. */
#pragma once

#include "vmm/memory.h"
#include "vmm/x86_64/acpi.h"

#include <linux/kvm.h>

struct boot_source {
    int kernel;    /* an ELF vmlinux, read from its start */
    int initramfs; /* -1: none */
    const char *command_line;
    bool map; /* map the kernel's pages privately instead of reading them */
};

/* ret_entry: where the first vCPU begins. BAD_REQUEST: no such kernel, or it does not fit. */
MUST_CHECK status boot_load(uint64_t *ret_entry, struct guest_memory *memory,
                            const struct boot_source *source, const struct acpi_machine *machine,
                            struct fault *fault);

/* The registers of a vCPU that enters by PVH at entry. */
void boot_registers(struct kvm_regs *registers, struct kvm_sregs *special, uint64_t entry);
