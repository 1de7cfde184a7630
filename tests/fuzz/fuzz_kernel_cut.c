/* The kernel of an image: what is accepted comes out whole, in pages, and each byte of it is one of
 * the input's, at the same address. */
#include "cli/image_kernel.h"
#include "fuzz.h"

#include <elf.h>
#include <string.h>

enum { CUT_MAX = 1 << 20 };

static Elf64_Phdr program(struct span file, uint32_t index)
{
    Elf64_Phdr found;
    Elf64_Ehdr head;
    memcpy(&head, file.data, sizeof head);
    memcpy(&found, file.data + head.e_phoff + index * sizeof found, sizeof found);
    return found;
}

static uint32_t programs(struct span file)
{
    Elf64_Ehdr head;
    memcpy(&head, file.data, sizeof head);
    return head.e_phnum;
}

/* Is this piece part of a segment of the input, byte for byte? */
static bool is_of(struct span cut, const Elf64_Phdr *piece, struct span whole)
{
    for (uint32_t i = 0; i < programs(whole); i++) {
        Elf64_Phdr from = program(whole, i);
        uint64_t into = piece->p_paddr - from.p_paddr;
        if (from.p_type == PT_LOAD && into <= from.p_filesz
            && piece->p_filesz <= from.p_filesz - into
            && memcmp(cut.data + piece->p_offset, whole.data + from.p_offset + into,
                      piece->p_filesz) == 0)
            return true;
    }
    return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buffer cut = buffer_of(CUT_MAX);
    struct span whole = {data, size};
    struct fault fault;
    if (kernel_cut(&cut, whole, &fault) == OK) {
        CHECK(cut.length % KERNEL_PAGE == 0);
        CHECK(programs(buffer_span(&cut)) <= KERNEL_SEGMENTS_MAX + 1);
        for (uint32_t i = 0; i < programs(buffer_span(&cut)); i++) {
            Elf64_Phdr piece = program(buffer_span(&cut), i);
            CHECK(piece.p_offset <= cut.length && piece.p_filesz <= cut.length - piece.p_offset);
            if (piece.p_type != PT_LOAD)
                continue;
            CHECK(piece.p_offset % KERNEL_PAGE == 0 && piece.p_filesz <= piece.p_memsz);
            CHECK(is_of(buffer_span(&cut), &piece, whole));
        }
    }
    buffer_free(&cut);
    return 0;
}
