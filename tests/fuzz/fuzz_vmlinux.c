/* A kernel's head: whatever is accepted lies inside its file and inside the guest's memory, in
 * order, and is entered where something was loaded. */
#include "fuzz.h"
#include "vmm/x86_64/layout.h"
#include "vmm/x86_64/vmlinux.h"

enum { MEMORY_END = 64 << 20 };

static void check_segments(const struct vmlinux *kernel, uint64_t file_bytes)
{
    uint64_t floor = GUEST_LOADED;
    CHECK(kernel->segments >= 1 && kernel->segments <= VMLINUX_SEGMENTS_MAX);
    for (uint32_t i = 0; i < kernel->segments; i++) {
        const struct vmlinux_segment *segment = &kernel->segment[i];
        CHECK(segment->file_bytes <= segment->memory_bytes);
        CHECK(segment->offset <= file_bytes);
        CHECK(segment->file_bytes <= file_bytes - segment->offset);
        CHECK(segment->address >= floor && segment->address <= MEMORY_END);
        CHECK(segment->memory_bytes <= MEMORY_END - segment->address);
        floor = segment->address + segment->memory_bytes;
    }
    CHECK(kernel->notes_bytes <= VMLINUX_NOTES_BYTES_MAX);
    CHECK(kernel->notes_bytes == 0 || kernel->notes_offset <= file_bytes);
    CHECK(kernel->notes_bytes == 0 || kernel->notes_bytes <= file_bytes - kernel->notes_offset);
}

static void check_entry(const struct vmlinux *kernel, struct span notes)
{
    struct fault fault;
    uint32_t entry;
    bool loaded = false;
    if (vmlinux_entry(&entry, kernel, notes, &fault) != OK)
        return;
    for (uint32_t i = 0; i < kernel->segments; i++)
        loaded |= entry >= kernel->segment[i].address
               && entry < kernel->segment[i].address + kernel->segment[i].file_bytes;
    CHECK(loaded);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct vmlinux kernel;
    struct fault fault;
    size_t head = size < VMLINUX_HEAD_BYTES ? size : VMLINUX_HEAD_BYTES;
    if (vmlinux_read(&kernel, (struct span){data, head}, size, MEMORY_END, &fault) != OK)
        return 0;
    check_segments(&kernel, size);
    check_entry(&kernel, (struct span){data + kernel.notes_offset, kernel.notes_bytes});
    return 0;
}
