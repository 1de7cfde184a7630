#define _GNU_SOURCE
#include "cli/image_kernel.h"

#include <elf.h>
#include <string.h>

struct piece { /* of a segment, whole pages but for the last */
    uint64_t from, bytes, address, physical, memory;
    uint32_t flags;
};

struct cut {
    struct piece pieces[KERNEL_SEGMENTS_MAX];
    uint32_t count;
    Elf64_Phdr notes;
    bool has_notes;
};

static bool is_zero(struct span bytes)
{
    for (size_t i = 0; i < bytes.length; i++)
        if (bytes.data[i])
            return false;
    return true;
}

/* Bytes of the page at this offset of the segment; the last page may be short. */
static struct span page_of(struct span segment, uint64_t at)
{
    uint64_t left = segment.length - at;
    return (struct span){segment.data + at, left < KERNEL_PAGE ? left : KERNEL_PAGE};
}

/* The end of the run of pages that begins here and are all empty, or all not. */
static uint64_t run_end(struct span segment, uint64_t at, bool empty)
{
    while (at < segment.length && is_zero(page_of(segment, at)) == empty)
        at += KERNEL_PAGE;
    return at < segment.length ? at : segment.length;
}

/* Where the next piece ends: at a long run of empty pages, or with the last byte that counts. */
static uint64_t piece_end(struct span segment, uint64_t at)
{
    for (;;) {
        uint64_t full = run_end(segment, at, false), next = run_end(segment, full, true);
        if (next == segment.length || next - full >= KERNEL_GAP_PAGES * KERNEL_PAGE)
            return full;
        at = next;
    }
}

static status add_segment(struct cut *cut, struct span whole, const Elf64_Phdr *program,
                          struct fault *fault)
{
    struct span segment = {whole.data + program->p_offset, program->p_filesz};
    uint64_t at = 0;
    if (program->p_paddr % KERNEL_PAGE || program->p_memsz > UINT32_MAX
        || program->p_paddr > UINT32_MAX || program->p_filesz > program->p_memsz)
        return FAIL(BAD_REQUEST, fault, "kernel: a segment that cannot be loaded");
    do {
        uint64_t end = piece_end(segment, at), next = run_end(segment, end, true);
        uint64_t until = next == segment.length ? program->p_memsz : next;
        if (cut->count == KERNEL_SEGMENTS_MAX)
            return FAIL(BAD_REQUEST, fault, "kernel: more than %d segments", KERNEL_SEGMENTS_MAX);
        cut->pieces[cut->count++] = (struct piece){
            .from = program->p_offset + at, .bytes = end - at, .address = program->p_vaddr + at,
            .physical = program->p_paddr + at, .memory = until - at, .flags = program->p_flags};
        at = next;
    } while (at < segment.length);
    return OK;
}

static status read_programs(struct cut *cut, struct span whole, struct fault *fault)
{
    Elf64_Ehdr head;
    if (whole.length < sizeof head)
        return FAIL(BAD_REQUEST, fault, "kernel: no ELF file");
    memcpy(&head, whole.data, sizeof head);
    if (memcmp(head.e_ident, ELFMAG, SELFMAG) != 0 || head.e_ident[EI_CLASS] != ELFCLASS64
        || head.e_ident[EI_DATA] != ELFDATA2LSB || head.e_machine != EM_X86_64
        || head.e_phentsize != sizeof(Elf64_Phdr) || head.e_phoff > whole.length
        || head.e_phnum > (whole.length - head.e_phoff) / sizeof(Elf64_Phdr))
        return FAIL(BAD_REQUEST, fault, "kernel: no ELF file of x86-64");
    for (uint32_t i = 0; i < head.e_phnum; i++) {
        Elf64_Phdr program;
        memcpy(&program, whole.data + head.e_phoff + i * sizeof program, sizeof program);
        if (program.p_offset > whole.length
            || program.p_filesz > whole.length - program.p_offset)
            return FAIL(BAD_REQUEST, fault, "kernel: a segment beyond the file's end");
        if (program.p_type == PT_LOAD)
            TRY(add_segment(cut, whole, &program, fault));
        if (program.p_type == PT_NOTE && !cut->has_notes) {
            cut->notes = program;
            cut->has_notes = true;
        }
    }
    if (cut->count == 0 || !cut->has_notes)
        return FAIL(BAD_REQUEST, fault, "kernel: no segment, or no note of where PVH enters");
    return OK;
}

static uint64_t page_up(uint64_t bytes)
{
    return (bytes + KERNEL_PAGE - 1) / KERNEL_PAGE * KERNEL_PAGE;
}

static void put_zeros(struct buffer *out, uint64_t count)
{
    uint8_t *at = buffer_reserve(out, count);
    if (!at)
        return;
    memset(at, 0, count);
    buffer_advance(out, count);
}

static void put_program(struct buffer *out, const Elf64_Phdr *program)
{
    buffer_put(out, (struct span){(const uint8_t *)program, sizeof *program});
}

/* The notes lie in one of the pieces and are found there. */
static status put_notes(struct buffer *out, const struct cut *cut, struct fault *fault)
{
    uint64_t offset = KERNEL_PAGE;
    for (uint32_t i = 0; i < cut->count; i++) {
        const struct piece *piece = &cut->pieces[i];
        uint64_t into = cut->notes.p_offset - piece->from;
        if (cut->notes.p_offset >= piece->from && into <= piece->bytes
            && cut->notes.p_filesz <= piece->bytes - into) {
            Elf64_Phdr notes = cut->notes;
            notes.p_offset = offset + into;
            put_program(out, &notes);
            return OK;
        }
        offset += page_up(piece->bytes);
    }
    return FAIL(BAD_REQUEST, fault, "kernel: its notes are in no segment");
}

status kernel_cut(struct buffer *out, struct span whole, struct fault *fault)
{
    struct cut cut = {0};
    Elf64_Ehdr head;
    TRY(read_programs(&cut, whole, fault));
    memcpy(&head, whole.data, sizeof head);
    head.e_phoff = sizeof head;
    head.e_phnum = (Elf64_Half)(cut.count + 1);
    head.e_shoff = 0;
    head.e_shentsize = sizeof(Elf64_Shdr);
    head.e_shnum = head.e_shstrndx = 0;
    buffer_put(out, (struct span){(const uint8_t *)&head, sizeof head});
    uint64_t offset = KERNEL_PAGE;
    for (uint32_t i = 0; i < cut.count; i++) {
        const struct piece *piece = &cut.pieces[i];
        put_program(out, &(Elf64_Phdr){
            .p_type = PT_LOAD, .p_flags = piece->flags, .p_offset = offset,
            .p_vaddr = piece->address, .p_paddr = piece->physical, .p_filesz = piece->bytes,
            .p_memsz = piece->memory, .p_align = KERNEL_PAGE});
        offset += page_up(piece->bytes);
    }
    TRY(put_notes(out, &cut, fault));
    put_zeros(out, KERNEL_PAGE - out->length);
    for (uint32_t i = 0; i < cut.count; i++) {
        const struct piece *piece = &cut.pieces[i];
        buffer_put(out, (struct span){whole.data + piece->from, piece->bytes});
        put_zeros(out, page_up(piece->bytes) - piece->bytes);
    }
    return buffer_check(out, "kernel", fault);
}
