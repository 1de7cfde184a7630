#include "vmm/x86_64/vmlinux.h"

#include "vmm/x86_64/layout.h"

#include <elf.h>
#include <string.h>

enum { NOTE_PHYS32_ENTRY = 18, NOTE_ALIGNMENT = 4 };

static bool is_kernel(const Elf64_Ehdr *header)
{
    return memcmp(header->e_ident, ELFMAG, SELFMAG) == 0
        && header->e_ident[EI_CLASS] == ELFCLASS64 && header->e_ident[EI_DATA] == ELFDATA2LSB
        && header->e_type == ET_EXEC && header->e_machine == EM_X86_64
        && header->e_phentsize == sizeof(Elf64_Phdr);
}

static status add_segment(struct vmlinux *kernel, const Elf64_Phdr *program, uint64_t file_bytes,
                          uint64_t memory_end, struct fault *fault)
{
    uint64_t floor = GUEST_LOADED;
    if (kernel->segments) {
        const struct vmlinux_segment *before = &kernel->segment[kernel->segments - 1];
        floor = before->address + before->memory_bytes;
    }
    if (program->p_memsz == 0)
        return OK;
    if (program->p_filesz > program->p_memsz || program->p_offset > file_bytes
        || program->p_filesz > file_bytes - program->p_offset)
        return FAIL(BAD_REQUEST, fault, "kernel: a segment lies outside its file");
    if (program->p_paddr < floor || program->p_paddr > memory_end
        || program->p_memsz > memory_end - program->p_paddr)
        return FAIL(BAD_REQUEST, fault,
                    "kernel: a segment lies outside the guest's memory, or over another");
    if (kernel->segments == VMLINUX_SEGMENTS_MAX)
        return FAIL(BAD_REQUEST, fault, "kernel: at most %d segments", VMLINUX_SEGMENTS_MAX);
    kernel->segment[kernel->segments++] = (struct vmlinux_segment){
        .offset = program->p_offset, .address = program->p_paddr,
        .file_bytes = program->p_filesz, .memory_bytes = program->p_memsz};
    return OK;
}

static status add_notes(struct vmlinux *kernel, const Elf64_Phdr *program, uint64_t file_bytes,
                        struct fault *fault)
{
    if (kernel->notes_bytes)
        return OK;
    if (program->p_offset > file_bytes || program->p_filesz > file_bytes - program->p_offset
        || program->p_filesz > VMLINUX_NOTES_BYTES_MAX)
        return FAIL(BAD_REQUEST, fault, "kernel: its notes lie outside its file, or are too long");
    kernel->notes_offset = program->p_offset;
    kernel->notes_bytes = program->p_filesz;
    return OK;
}

status vmlinux_read(struct vmlinux *ret, struct span head, uint64_t file_bytes,
                    uint64_t memory_end, struct fault *fault)
{
    Elf64_Ehdr header;
    if (head.length < sizeof header)
        return FAIL(BAD_REQUEST, fault, "kernel: shorter than its header");
    memcpy(&header, head.data, sizeof header);
    if (!is_kernel(&header))
        return FAIL(BAD_REQUEST, fault, "kernel: not an x86-64 ELF executable (vmlinux)");
    if (header.e_phnum < 1 || header.e_phnum > VMLINUX_PROGRAM_HEADERS_MAX
        || header.e_phoff > head.length
        || header.e_phnum * sizeof(Elf64_Phdr) > head.length - header.e_phoff)
        return FAIL(BAD_REQUEST, fault, "kernel: its program headers are not at its beginning");
    struct vmlinux kernel = {0};
    for (uint32_t i = 0; i < header.e_phnum; i++) {
        Elf64_Phdr program;
        memcpy(&program, head.data + header.e_phoff + i * sizeof program, sizeof program);
        if (program.p_type == PT_LOAD)
            TRY(add_segment(&kernel, &program, file_bytes, memory_end, fault));
        if (program.p_type == PT_NOTE)
            TRY(add_notes(&kernel, &program, file_bytes, fault));
    }
    if (kernel.segments == 0)
        return FAIL(BAD_REQUEST, fault, "kernel: nothing to load");
    *ret = kernel;
    return OK;
}

static size_t padded(uint32_t size)
{
    return ((size_t)size + NOTE_ALIGNMENT - 1) & ~(size_t)(NOTE_ALIGNMENT - 1);
}

static bool is_loaded(const struct vmlinux *kernel, uint64_t address)
{
    for (uint32_t i = 0; i < kernel->segments; i++)
        if (address >= kernel->segment[i].address
            && address - kernel->segment[i].address < kernel->segment[i].file_bytes)
            return true;
    return false;
}

/* The note's value: 4 or 8 bytes, below 4 GiB, since it is entered in 32-bit mode. */
static status take_entry(uint32_t *ret, const struct vmlinux *kernel, struct span value,
                         struct fault *fault)
{
    uint64_t entry = 0;
    if (value.length != 4 && value.length != 8)
        return FAIL(BAD_REQUEST, fault, "kernel: the note of its PVH entry is malformed");
    memcpy(&entry, value.data, value.length);
    if (entry > UINT32_MAX || !is_loaded(kernel, entry))
        return FAIL(BAD_REQUEST, fault, "kernel: its PVH entry is not in what is loaded");
    *ret = (uint32_t)entry;
    return OK;
}

status vmlinux_entry(uint32_t *ret, const struct vmlinux *kernel, struct span notes,
                     struct fault *fault)
{
    while (notes.length >= sizeof(Elf64_Nhdr)) {
        Elf64_Nhdr note;
        memcpy(&note, notes.data, sizeof note);
        size_t name = padded(note.n_namesz), value = padded(note.n_descsz);
        size_t left = notes.length - sizeof note;
        if (name > left || note.n_descsz > left - name)
            return FAIL(BAD_REQUEST, fault, "kernel: its notes are malformed");
        const uint8_t *at = notes.data + sizeof note;
        if (note.n_type == NOTE_PHYS32_ENTRY && note.n_namesz == sizeof "Xen"
            && memcmp(at, "Xen", sizeof "Xen") == 0)
            return take_entry(ret, kernel, (struct span){at + name, note.n_descsz}, fault);
        size_t whole = name + (value < left - name ? value : left - name);
        notes = (struct span){at + whole, left - whole};
    }
    return FAIL(BAD_REQUEST, fault, "kernel: it has no PVH entry (CONFIG_PVH)");
}
