#define _GNU_SOURCE
#include "vmm/x86_64/boot.h"

#include "vmm/x86_64/vmlinux.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    START_MAGIC = 0x336EC578, START_MODULES = 0x100, START_MAP = 0x200,
    MAP_RAM = 1, MAP_RESERVED = 2, MAP_ENTRIES_MAX = 4,
};

struct start_info { /* hvm_start_info, version 1 */
    uint32_t magic, version, flags, modules;
    uint64_t modules_address, command_line, rsdp, map_address;
    uint32_t map_entries, reserved;
};

struct start_module {
    uint64_t address, bytes, command_line, reserved;
};

struct map_entry {
    uint64_t address, bytes;
    uint32_t type, reserved;
};

static status load_bytes(const struct guest_memory *memory, int fd, uint64_t offset,
                         uint64_t address, uint64_t bytes, struct fault *fault)
{
    uint8_t *at = memory_at(memory, address, bytes);
    if (!at && bytes)
        return FAIL(BAD_REQUEST, fault, "boot: does not fit the guest's memory");
    while (bytes) {
        ssize_t count = pread(fd, at, bytes, (off_t)offset);
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            return FAIL(INTERNAL, fault, "boot: cannot be read: %s",
                        count ? strerror(errno) : "shorter than it was");
        at += count;
        offset += (uint64_t)count;
        bytes -= (uint64_t)count;
    }
    return OK;
}

static status file_bytes(uint64_t *ret, int fd, const char *what, struct fault *fault)
{
    struct stat file;
    if (fstat(fd, &file))
        return FAIL(INTERNAL, fault, "%s: %s", what, strerror(errno));
    if (!S_ISREG(file.st_mode) || file.st_size < 0)
        return FAIL(BAD_REQUEST, fault, "%s: not a regular file", what);
    *ret = (uint64_t)file.st_size;
    return OK;
}

/* A kernel touches most of its own pages and all of its time: the fewer and larger they are, the
 * better. What the host cannot give so it gives otherwise. */
static void ask_huge(const struct guest_memory *memory, uint64_t from, uint64_t to)
{
    uint64_t first = (from + GUEST_HUGE_PAGE - 1) & ~(GUEST_HUGE_PAGE - 1);
    uint64_t bytes = to > first ? (to - first) & ~(GUEST_HUGE_PAGE - 1) : 0;
    void *at = memory_at(memory, first, bytes);
    if (at)
        madvise(at, bytes, MADV_HUGEPAGE);
}

static status load_kernel(struct boot_image *ret, uint64_t *ret_begin,
                          const struct guest_memory *memory, int fd, struct fault *fault)
{
    uint8_t head[VMLINUX_HEAD_BYTES], notes[VMLINUX_NOTES_BYTES_MAX];
    struct vmlinux kernel;
    uint64_t size;
    uint32_t entry;
    TRY(file_bytes(&size, fd, "kernel", fault));
    ssize_t count = pread(fd, head, sizeof head, 0);
    if (count < 0)
        return FAIL(INTERNAL, fault, "kernel: %s", strerror(errno));
    TRY(vmlinux_read(&kernel, (struct span){head, (size_t)count}, size, memory->regions[0].size,
                     fault));
    if (pread(fd, notes, kernel.notes_bytes, (off_t)kernel.notes_offset)
        != (ssize_t)kernel.notes_bytes)
        return FAIL(INTERNAL, fault, "kernel: its notes cannot be read");
    TRY(vmlinux_entry(&entry, &kernel, (struct span){notes, kernel.notes_bytes}, fault));
    const struct vmlinux_segment *last = &kernel.segment[kernel.segments - 1];
    *ret_begin = kernel.segment[0].address;
    *ret = (struct boot_image){.entry = entry, .end = last->address + last->memory_bytes};
    ask_huge(memory, *ret_begin, ret->end);
    for (uint32_t i = 0; i < kernel.segments; i++) {
        const struct vmlinux_segment *segment = &kernel.segment[i];
        TRY(load_bytes(memory, fd, segment->offset, segment->address, segment->file_bytes,
                       fault));
    }
    return OK;
}

/* Below the kernel where there is room, else behind it: in both cases where it can lie before the
 * guest's size is known. */
static status load_initramfs(struct boot_image *image, uint64_t kernel_begin,
                             const struct guest_memory *memory, int fd, struct fault *fault)
{
    uint64_t size;
    TRY(file_bytes(&size, fd, "initramfs", fault));
    uint64_t address = (image->end + GUEST_PAGE - 1) & ~(GUEST_PAGE - 1);
    if (size <= kernel_begin - GUEST_LOADED)
        address = (kernel_begin - size) & ~(GUEST_PAGE - 1);
    if (size == 0 || !memory_at(memory, address, size))
        return FAIL(BAD_REQUEST, fault, "initramfs: empty, or does not fit the guest's memory");
    TRY(load_bytes(memory, fd, 0, address, size, fault));
    image->initramfs = address;
    image->initramfs_bytes = size;
    if (image->end < address + size)
        image->end = address + size;
    return OK;
}

status boot_load(struct boot_image *ret, const struct guest_memory *memory, int kernel,
                 int initramfs, struct fault *fault)
{
    struct boot_image image;
    uint64_t begin;
    TRY(load_kernel(&image, &begin, memory, kernel, fault));
    if (initramfs >= 0)
        TRY(load_initramfs(&image, begin, memory, initramfs, fault));
    *ret = image;
    return OK;
}

static uint32_t memory_map(struct map_entry map[MAP_ENTRIES_MAX],
                           const struct guest_memory *memory)
{
    uint32_t count = 0;
    map[count++] = (struct map_entry){.bytes = GUEST_LOW_END, .type = MAP_RAM};
    map[count++] = (struct map_entry){.address = GUEST_TABLES, .type = MAP_RESERVED,
                                      .bytes = GUEST_GENERATION + GUEST_PAGE - GUEST_TABLES};
    map[count++] = (struct map_entry){.address = GUEST_LOADED, .type = MAP_RAM,
                                      .bytes = memory->regions[0].size - GUEST_LOADED};
    if (memory->count > 1)
        map[count++] = (struct map_entry){.address = GUEST_HIGH, .type = MAP_RAM,
                                          .bytes = memory->regions[1].size};
    return count;
}

static status put(const struct guest_memory *memory, uint64_t address, const void *bytes,
                  size_t length, struct fault *fault)
{
    void *at = memory_at(memory, address, length);
    if (!at)
        return FAIL(BAD_REQUEST, fault, "boot: the guest has too little memory");
    memcpy(at, bytes, length);
    return OK;
}

static status put_tables(const struct guest_memory *memory, const struct acpi_machine *machine,
                         struct fault *fault)
{
    uint8_t *at = memory_at(memory, GUEST_TABLES, GUEST_TABLES_BYTES);
    if (!at)
        return FAIL(BAD_REQUEST, fault, "boot: the guest has too little memory");
    struct buffer tables = buffer_over(at, GUEST_TABLES_BYTES);
    return acpi_build(&tables, machine, fault);
}

status boot_describe(const struct guest_memory *memory, const struct boot_image *image,
                     const char *command_line, const struct acpi_machine *machine,
                     struct fault *fault)
{
    struct start_info info = {.magic = START_MAGIC, .version = 1, .rsdp = GUEST_TABLES,
                              .command_line = GUEST_COMMAND_LINE,
                              .map_address = GUEST_START_INFO + START_MAP};
    struct start_module module = {.address = image->initramfs, .bytes = image->initramfs_bytes};
    struct map_entry map[MAP_ENTRIES_MAX];
    size_t line_bytes = strlen(command_line) + 1;
    if (line_bytes > GUEST_COMMAND_LINE_BYTES / 2) /* what Linux reads */
        return FAIL(BAD_REQUEST, fault, "boot: the command line is too long");
    if (memory->regions[0].size <= GUEST_LOADED || image->end > memory->regions[0].size)
        return FAIL(BAD_REQUEST, fault, "boot: the guest has too little memory for its kernel");
    if (module.bytes) {
        info.modules = 1;
        info.modules_address = GUEST_START_INFO + START_MODULES;
        TRY(put(memory, info.modules_address, &module, sizeof module, fault));
    }
    info.map_entries = memory_map(map, memory);
    TRY(put(memory, info.map_address, map, info.map_entries * sizeof *map, fault));
    TRY(put(memory, GUEST_START_INFO, &info, sizeof info, fault));
    TRY(put(memory, GUEST_COMMAND_LINE, command_line, line_bytes, fault));
    return put_tables(memory, machine, fault);
}

static struct kvm_segment flat(uint8_t type, uint16_t selector)
{
    return (struct kvm_segment){.base = 0, .limit = UINT32_MAX, .selector = selector,
                                .type = type, .present = 1, .db = 1, .s = 1, .g = 1};
}

void boot_registers(struct kvm_regs *registers, struct kvm_sregs *special, uint64_t entry)
{
    *registers = (struct kvm_regs){.rip = entry, .rbx = GUEST_START_INFO, .rflags = 2};
    special->cs = flat(0xB, 0x08); /* code: execute, read, accessed */
    special->ds = special->es = special->fs = special->gs = special->ss = flat(0x3, 0x10);
    special->tr = (struct kvm_segment){.limit = 0x67, .selector = 0x18, .type = 0xB,
                                       .present = 1};
    special->cr0 = 0x11; /* protected mode, no paging */
    special->cr3 = special->cr4 = special->efer = 0;
}
