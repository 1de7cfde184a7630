#define _GNU_SOURCE
#include "flat.h"

#include "vmm/x86_64/layout.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <elf.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { NOTE_AT = 0x200, CODE_AT = 0x1000, MEMORY_BYTES = 4 << 20, DEADLINE_US = 60 * 1000 * 1000 };

struct entry_note {
    Elf64_Nhdr head;
    char name[4];
    uint32_t entry, padding;
};

int flat_kernel(const uint8_t *code, size_t length)
{
    const Elf64_Ehdr header = {
        .e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
        .e_type = ET_EXEC, .e_machine = EM_X86_64, .e_version = EV_CURRENT,
        .e_phoff = sizeof header, .e_phentsize = sizeof(Elf64_Phdr), .e_phnum = 2};
    const Elf64_Phdr programs[2] = {
        {.p_type = PT_LOAD, .p_offset = CODE_AT, .p_paddr = GUEST_LOADED, .p_filesz = length,
         .p_memsz = length},
        {.p_type = PT_NOTE, .p_offset = NOTE_AT, .p_filesz = sizeof(struct entry_note)}};
    const struct entry_note note = {.head = {.n_namesz = 4, .n_descsz = 8, .n_type = 18},
                                    .name = "Xen", .entry = (uint32_t)GUEST_LOADED};
    int fd = memfd_create("flat", MFD_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, &header, sizeof header, 0), sizeof header);
    assert_int_equal(pwrite(fd, programs, sizeof programs, sizeof header), sizeof programs);
    assert_int_equal(pwrite(fd, &note, sizeof note, NOTE_AT), sizeof note);
    assert_int_equal(pwrite(fd, code, length, CODE_AT), length);
    return fd;
}

bool flat_has_kvm(void)
{
    return access("/dev/kvm", R_OK | W_OK) == 0;
}

static void on_end(void *context, enum sandbox_end end, const char *detail)
{
    struct flat *flat = context;
    flat->ended = true;
    flat->end = end;
    snprintf(flat->detail, sizeof flat->detail, "%s", detail);
}

static void on_port(void *context, uint16_t port, uint32_t value)
{
    struct flat *flat = context;
    uint32_t count = flat->outs;
    if (port != FLAT_PORT || count == FLAT_OUTS_MAX)
        return;
    flat->out[count] = value;
    flat->outs = count + 1;
}

static void on_deadline(void *context)
{
    struct flat *flat = context;
    flat->late = true;
}

void flat_make(struct flat *flat, uint32_t vcpus)
{
    const struct machine_config config = {.memory_bytes = MEMORY_BYTES, .vcpus = vcpus};
    struct fault fault;
    *flat = (struct flat){.loop = NULL};
    assert_int_equal(loop_create(&flat->loop, &fault), OK);
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    assert_true(kvm >= 0);
    status made = machine_open(&flat->machine, kvm, &fault);
    if (made == OK)
        made = machine_build(flat->machine, &config, flat->loop, &fault);
    if (made != OK)
        fail_msg("%s", fault.detail);
}

void flat_start(struct flat *flat, const uint8_t *code, size_t length)
{
    const struct machine_hooks hooks = {.ended = on_end, .port_written = on_port,
                                        .context = flat};
    struct machine_source source = {.initramfs = -1, .command_line = "flat"};
    struct fault fault;
    source.kernel = flat_kernel(code, length);
    status started = machine_load(flat->machine, &source, &fault);
    if (started == OK)
        started = machine_start(flat->machine, &hooks, &fault);
    if (started != OK)
        fail_msg("%s", fault.detail);
    close(source.kernel);
    assert_int_equal(loop_timer_start(flat->loop, &flat->deadline, DEADLINE_US, on_deadline, flat,
                                      &fault), OK);
}

void flat_run(struct flat *flat, bool (*condition)(struct flat *flat))
{
    struct fault fault;
    while (!flat->ended && !flat->late && !(condition && condition(flat)))
        assert_int_equal(loop_turn(flat->loop, condition ? 1 : -1, &fault), OK);
    if (flat->late)
        fail_msg("the guest neither ended nor did what it should in a minute");
}

void flat_free(struct flat *flat)
{
    loop_timer_stop(flat->loop, &flat->deadline);
    machine_free(flat->machine);
    loop_free(flat->loop);
}
