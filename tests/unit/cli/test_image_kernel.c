/* A kernel that was cut loads to the very memory that the whole one does, and no file makes the
 * cutting go wrong. */
#define _GNU_SOURCE
#include "cli/image_kernel.h"

#include <elf.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { FILE_BYTES = 4 << 20, MEMORY_BYTES = 8 << 20, CUT_MAX = 8 << 20, FIRST = 1 << 20 };

struct kernel {
    Elf64_Ehdr head;
    Elf64_Phdr programs[4];
};

/* Two segments, the first with a long hole and zeros at its end, with the notes in it. */
static uint8_t *make(void)
{
    uint8_t *file = calloc(1, FILE_BYTES);
    assert_non_null(file);
    struct kernel kernel = {
        .head = {.e_type = ET_EXEC, .e_machine = EM_X86_64, .e_version = 1, .e_entry = FIRST,
                 .e_phoff = sizeof(Elf64_Ehdr), .e_ehsize = sizeof(Elf64_Ehdr),
                 .e_phentsize = sizeof(Elf64_Phdr), .e_phnum = 3},
        .programs = {{.p_type = PT_LOAD, .p_offset = 8192, .p_paddr = FIRST, .p_vaddr = FIRST,
                      .p_filesz = 2 << 20, .p_memsz = 2 << 20},
                     {.p_type = PT_LOAD, .p_offset = (3 << 20) + 5, .p_paddr = 4 << 20,
                      .p_filesz = 5001, .p_memsz = 1 << 20},
                     {.p_type = PT_NOTE, .p_offset = 8192 + 100, .p_filesz = 64}}};
    memcpy(kernel.head.e_ident, ELFMAG, SELFMAG);
    kernel.head.e_ident[EI_CLASS] = ELFCLASS64;
    kernel.head.e_ident[EI_DATA] = ELFDATA2LSB;
    memcpy(file, &kernel, sizeof kernel);
    for (uint32_t i = 0; i < 40000; i++)
        file[8192 + i] = (uint8_t)(i * 7 + 1);
    file[8192 + (1 << 20)] = 0xAB; /* behind the hole */
    for (uint32_t i = 0; i < 5001; i++)
        file[(3 << 20) + 5 + i] = (uint8_t)(i | 1);
    return file;
}

static struct kernel *of(uint8_t *file)
{
    return (struct kernel *)(void *)file;
}

/* As a monitor loads it: what is not in the file is zero. */
static uint8_t *load(struct span file)
{
    uint8_t *memory = calloc(1, MEMORY_BYTES);
    Elf64_Ehdr head;
    assert_non_null(memory);
    memcpy(&head, file.data, sizeof head);
    for (uint32_t i = 0; i < head.e_phnum; i++) {
        Elf64_Phdr program;
        memcpy(&program, file.data + head.e_phoff + i * sizeof program, sizeof program);
        assert_true(program.p_offset + program.p_filesz <= file.length);
        if (program.p_type == PT_LOAD) {
            assert_true(program.p_paddr + program.p_memsz <= MEMORY_BYTES);
            memcpy(memory + program.p_paddr, file.data + program.p_offset, program.p_filesz);
        }
    }
    return memory;
}

static void cut_loads_the_same(void **state)
{
    (void)state;
    uint8_t *file = make();
    struct span whole = {file, FILE_BYTES};
    struct buffer cut = buffer_of(CUT_MAX);
    struct fault fault;
    assert_int_equal(kernel_cut(&cut, whole, &fault), OK);
    assert_true(cut.length < 80000);
    assert_int_equal(cut.length % KERNEL_PAGE, 0);
    uint8_t *before = load(whole), *after = load(buffer_span(&cut));
    assert_memory_equal(before, after, MEMORY_BYTES);
    struct kernel *kernel = of(cut.data);
    assert_int_equal(kernel->head.e_shnum, 0);
    assert_int_equal(kernel->head.e_entry, FIRST);
    assert_int_equal(kernel->head.e_phnum, 4); /* the hole has divided one */
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(kernel->programs[i].p_offset % KERNEL_PAGE, 0);
    const Elf64_Phdr *notes = &kernel->programs[3];
    assert_int_equal(notes->p_type, PT_NOTE);
    assert_memory_equal(cut.data + notes->p_offset, file + 8192 + 100, 64);
    free(before);
    free(after);
    free(file);
    buffer_free(&cut);
}

static void refused(uint8_t *file, size_t length)
{
    struct buffer cut = buffer_of(CUT_MAX);
    struct fault fault;
    assert_int_equal(kernel_cut(&cut, (struct span){file, length}, &fault), BAD_REQUEST);
    buffer_free(&cut);
    free(file);
}

static void what_is_no_kernel_is_refused(void **state)
{
    (void)state;
    refused(make(), 0);
    refused(make(), sizeof(Elf64_Ehdr) - 1);
    refused(make(), 1 << 20); /* segments beyond its end */
    uint8_t *file = make();
    of(file)->head.e_machine = EM_AARCH64;
    refused(file, FILE_BYTES);
    file = make();
    of(file)->head.e_phoff = UINT64_MAX - 8;
    refused(file, FILE_BYTES);
    file = make();
    of(file)->head.e_phnum = UINT16_MAX;
    of(file)->head.e_phoff = FILE_BYTES - 100;
    refused(file, FILE_BYTES);
    file = make();
    of(file)->programs[0].p_filesz = UINT64_MAX;
    refused(file, FILE_BYTES);
    file = make();
    of(file)->programs[0].p_offset = UINT64_MAX;
    refused(file, FILE_BYTES);
    file = make();
    of(file)->programs[1].p_memsz = 1; /* less than the file has */
    refused(file, FILE_BYTES);
    file = make();
    of(file)->programs[0].p_paddr += 1;
    refused(file, FILE_BYTES);
    file = make();
    of(file)->programs[2].p_offset = 100; /* notes that are not loaded */
    refused(file, FILE_BYTES);
    file = make();
    of(file)->head.e_phnum = 2; /* none */
    refused(file, FILE_BYTES);
}

/* Every other 64 pages empty: more pieces than a monitor takes. */
static void too_many_pieces(void **state)
{
    (void)state;
    uint8_t *file = make();
    of(file)->programs[0].p_memsz = of(file)->programs[0].p_filesz = 3 << 20;
    of(file)->programs[0].p_offset = 8192;
    memset(file + 8192, 0, 3 << 20);
    uint8_t *larger = realloc(file, 16 << 20);
    assert_non_null(larger);
    memset(larger + FILE_BYTES, 0, (16 << 20) - FILE_BYTES);
    of(larger)->programs[0].p_memsz = of(larger)->programs[0].p_filesz = 15 << 20;
    for (uint32_t i = 0; i < 20; i++)
        larger[8192 + i * (KERNEL_GAP_PAGES + 1) * KERNEL_PAGE] = 1;
    refused(larger, 16 << 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cut_loads_the_same),
        cmocka_unit_test(what_is_no_kernel_is_refused),
        cmocka_unit_test(too_many_pieces),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
