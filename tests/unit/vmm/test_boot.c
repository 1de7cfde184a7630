/* test_boot.c: what is put into guest memory, from files and tables that may be hostile. */
#define _GNU_SOURCE
#include "flat.h"

#include "vmm/serial.h"
#include "vmm/x86_64/acpi.h"
#include "vmm/x86_64/boot.h"
#include "vmm/x86_64/cpuid.h"
#include "vmm/x86_64/ioapic.h"
#include "vmm/x86_64/vmlinux.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MEMORY_BYTES = 16 << 20, FILE_BYTES = 1 << 20 };

/* ---- ELF ---- */

struct image {
    Elf64_Ehdr header;
    Elf64_Phdr program[4];
};

static struct image good_image(void)
{
    struct image image = {
        .header = {.e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, 1},
                   .e_type = ET_EXEC, .e_machine = EM_X86_64, .e_phnum = 3,
                   .e_phoff = sizeof(Elf64_Ehdr), .e_phentsize = sizeof(Elf64_Phdr)},
        .program = {{.p_type = PT_LOAD, .p_offset = 0x1000, .p_paddr = 0x100000,
                     .p_filesz = 0x1000, .p_memsz = 0x2000},
                    {.p_type = PT_LOAD, .p_offset = 0x2000, .p_paddr = 0x102000,
                     .p_filesz = 0x1000, .p_memsz = 0x1000},
                    {.p_type = PT_NOTE, .p_offset = 0x400, .p_filesz = 0x40}}};
    return image;
}

static status read_image(struct vmlinux *ret, const struct image *image)
{
    struct fault fault;
    return vmlinux_read(ret, (struct span){(const uint8_t *)image, sizeof *image}, FILE_BYTES,
                        MEMORY_BYTES, &fault);
}

static void test_good_kernel(void **state)
{
    struct image image = good_image();
    struct vmlinux kernel;
    (void)state;
    assert_int_equal(read_image(&kernel, &image), OK);
    assert_int_equal(kernel.segments, 2);
    assert_int_equal(kernel.segment[1].address, 0x102000);
    assert_int_equal(kernel.notes_bytes, 0x40);
}

#define REFUSED(change)                                            \
    do {                                                           \
        struct image image = good_image();                         \
        struct vmlinux kernel;                                     \
        change;                                                    \
        assert_int_equal(read_image(&kernel, &image), BAD_REQUEST); \
    } while (0)

static void test_hostile_kernels(void **state)
{
    (void)state;
    REFUSED(image.header.e_ident[0] = 'X');
    REFUSED(image.header.e_ident[EI_CLASS] = ELFCLASS32);
    REFUSED(image.header.e_machine = EM_AARCH64);
    REFUSED(image.header.e_type = ET_DYN);
    REFUSED(image.header.e_phentsize = 55);
    REFUSED(image.header.e_phnum = 0);
    REFUSED(image.header.e_phnum = UINT16_MAX);
    REFUSED(image.header.e_phnum = 5); /* past what is there */
    REFUSED(image.header.e_phoff = UINT64_MAX);
    REFUSED(image.header.e_phoff = UINT64_MAX - 3 * sizeof(Elf64_Phdr) + 1);
    REFUSED(image.header.e_phoff = sizeof image - sizeof(Elf64_Phdr));
    REFUSED(image.program[0].p_offset = UINT64_MAX);
    REFUSED(image.program[0].p_offset = FILE_BYTES - 0xFFF);
    REFUSED(image.program[0].p_filesz = 0x2001); /* more than it takes in memory */
    REFUSED(image.program[0].p_filesz = UINT64_MAX);
    REFUSED(image.program[0].p_memsz = UINT64_MAX);
    REFUSED(image.program[0].p_memsz = 0x2001);  /* over the next */
    REFUSED(image.program[0].p_paddr = 0);
    REFUSED(image.program[0].p_paddr = GUEST_TABLES);
    REFUSED(image.program[0].p_paddr = 0xFFFFFFFFFFFFF000);
    REFUSED(image.program[1].p_paddr = MEMORY_BYTES - 0xFFF);
    REFUSED(image.program[1].p_paddr = 0x100000);
    REFUSED(image.program[2].p_offset = FILE_BYTES - 0x3F);
    REFUSED(image.program[2].p_filesz = VMLINUX_NOTES_BYTES_MAX + 1);
    REFUSED(image.program[0].p_type = image.program[1].p_type = PT_NULL);
}

static void test_too_many_segments(void **state)
{
    struct {
        Elf64_Ehdr header;
        Elf64_Phdr program[VMLINUX_SEGMENTS_MAX + 1];
    } image = {.header = good_image().header};
    struct vmlinux kernel;
    struct fault fault;
    (void)state;
    for (uint32_t i = 0; i <= VMLINUX_SEGMENTS_MAX; i++)
        image.program[i] = (Elf64_Phdr){.p_type = PT_LOAD, .p_paddr = 0x100000 + i * 0x1000u,
                                        .p_memsz = 0x1000};
    const struct span head = {(const uint8_t *)&image, sizeof image};
    image.header.e_phnum = VMLINUX_SEGMENTS_MAX;
    assert_int_equal(vmlinux_read(&kernel, head, FILE_BYTES, MEMORY_BYTES, &fault), OK);
    image.header.e_phnum = VMLINUX_SEGMENTS_MAX + 1;
    assert_int_equal(vmlinux_read(&kernel, head, FILE_BYTES, MEMORY_BYTES, &fault), BAD_REQUEST);
}

static status entry_of(uint32_t *ret, const void *notes, size_t length)
{
    struct image image = good_image();
    struct vmlinux kernel;
    struct fault fault;
    assert_int_equal(read_image(&kernel, &image), OK);
    return vmlinux_entry(ret, &kernel, (struct span){notes, length}, &fault);
}

static void test_entry_notes(void **state)
{
    uint32_t entry = 0;
    (void)state;
    const uint32_t xen[] = {4, 4, 18, 0x006E6558, 0x100010};
    assert_int_equal(entry_of(&entry, xen, sizeof xen), OK);
    assert_int_equal(entry, 0x100010);
    const uint32_t second[] = {3, 5, 1, 0x00414141, 0, 0, 4, 8, 18, 0x006E6558, 0x100010, 0};
    assert_int_equal(entry_of(&entry, second, sizeof second), OK);
    const uint32_t other[] = {4, 4, 18, 0x00786558, 0x100010};
    assert_int_equal(entry_of(&entry, other, sizeof other), BAD_REQUEST);
    const uint32_t high[] = {4, 8, 18, 0x006E6558, 0x100010, 1};
    assert_int_equal(entry_of(&entry, high, sizeof high), BAD_REQUEST);
    const uint32_t outside[] = {4, 4, 18, 0x006E6558, 0x101000}; /* not of the file */
    assert_int_equal(entry_of(&entry, outside, sizeof outside), BAD_REQUEST);
    const uint32_t size[] = {4, 3, 18, 0x006E6558, 0x100010};
    assert_int_equal(entry_of(&entry, size, sizeof size), BAD_REQUEST);
    const uint32_t name[] = {UINT32_MAX, 4, 18, 0x006E6558, 0x100010};
    assert_int_equal(entry_of(&entry, name, sizeof name), BAD_REQUEST);
    const uint32_t value[] = {4, UINT32_MAX, 18, 0x006E6558, 0x100010};
    assert_int_equal(entry_of(&entry, value, sizeof value), BAD_REQUEST);
    assert_int_equal(entry_of(&entry, xen, 12), BAD_REQUEST);
    assert_int_equal(entry_of(&entry, xen, 0), BAD_REQUEST);
}

/* ---- what is loaded ---- */

static void load_with(const char *line, off_t initramfs_bytes, uint64_t initramfs_at,
                      status wanted)
{
    static const uint8_t code[0x3000] = {0x90, [0x2FFF] = 0x91};
    const struct acpi_machine machine = {.vcpus = 1};
    struct guest_memory memory;
    struct boot_image image;
    struct fault fault;
    int initramfs = memfd_create("initramfs", MFD_CLOEXEC);
    int kernel = flat_kernel(code, sizeof code);
    assert_int_equal(pwrite(initramfs, "cpio", 4, initramfs_bytes - 4), 4);
    assert_int_equal(memory_create(&memory, MEMORY_BYTES, false, &fault), OK);
    assert_int_equal(boot_load(&image, &memory, kernel, initramfs, &fault), OK);
    assert_int_equal(image.entry, GUEST_LOADED);
    assert_int_equal(image.initramfs, initramfs_at);
    assert_int_equal(image.end, initramfs_at + (uint64_t)initramfs_bytes);
    assert_int_equal(boot_describe(&memory, &image, line, &machine, &fault), wanted);
    const uint8_t *at = memory_at(&memory, GUEST_LOADED, sizeof code);
    assert_int_equal(at[0], 0x90);
    assert_int_equal(at[0x2FFF], 0x91);
    const char *end = memory_at(&memory, image.end - 4, 4);
    assert_memory_equal(end, "cpio", 4);
    close(kernel);
    close(initramfs);
    memory_free(&memory);
}

static void test_load(void **state)
{
    char line[4096];
    (void)state;
    load_with("quiet", 0x1004, 0x103000, OK);
    load_with("quiet", MEMORY_BYTES - 0x103000, 0x103000, OK); /* to the last byte */
    memset(line, 'x', sizeof line);
    line[2047] = 0;
    load_with(line, 4, 0x103000, OK);
    line[2047] = 'x';
    line[2048] = 0;
    load_with(line, 4, 0x103000, BAD_REQUEST);
}

static void test_large_initramfs(void **state)
{
    static const uint8_t code[0x3000] = {0x90};
    struct guest_memory memory;
    struct boot_image image;
    struct fault fault;
    int initramfs = memfd_create("initramfs", MFD_CLOEXEC);
    int kernel = flat_kernel(code, sizeof code);
    (void)state;
    assert_int_equal(memory_create(&memory, MEMORY_BYTES, false, &fault), OK);
    const off_t sizes[] = {0, MEMORY_BYTES - 0x103000 + 1, MEMORY_BYTES, INT64_MAX};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        assert_int_equal(ftruncate(initramfs, sizes[i]), 0);
        assert_int_equal(boot_load(&image, &memory, kernel, initramfs, &fault), BAD_REQUEST);
    }
    close(initramfs);
    close(kernel);
    memory_free(&memory);
}

/* Whoever misses the guest's memory by a byte is stopped. */
static void assert_guarded(const struct guest_memory *memory)
{
    const uint8_t *base = memory->regions[0].base;
    int ends[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    assert_int_equal(write(ends[1], base, 1), 1);
    assert_int_equal(write(ends[1], base - 1, 1), -1);
    assert_int_equal(errno, EFAULT);
    assert_int_equal(write(ends[1], base + memory->reserved, 1), -1);
    assert_int_equal(errno, EFAULT);
    close(ends[0]);
    close(ends[1]);
}

/* Loaded before its size is known, then made smaller than what was loaded, or larger. */
static void test_preloaded(void **state)
{
    static const uint8_t code[] = {0x90};
    const struct acpi_machine machine = {.vcpus = 1};
    (void)state;
    for (int round = 0; round < 3; round++) {
        const uint64_t sizes[] = {GUEST_LOADED + 0x2000, 64 << 20, GUEST_HIGH + 0x10000000};
        struct guest_memory memory;
        struct boot_image image;
        struct fault fault;
        int kernel = flat_kernel(code, sizeof code), initramfs = memfd_create("i", MFD_CLOEXEC);
        assert_int_equal(pwrite(initramfs, "cpio", 4, 0x1800), 4);
        assert_int_equal(memory_begin(&memory, &fault), OK);
        assert_int_equal(boot_load(&image, &memory, kernel, initramfs, &fault), OK);
        assert_int_equal(memory_settle(&memory, sizes[round], false, &fault), OK);
        assert_int_equal(boot_describe(&memory, &image, "", &machine, &fault),
                         round == 0 ? BAD_REQUEST : OK);
        assert_int_equal(memory.count, round == 2 ? 2 : 1);
        uint64_t low = memory.regions[0].size;
        assert_non_null(memory_at(&memory, low - 1, 1));
        assert_null(memory_at(&memory, low, 1));
        *(uint8_t *)memory_at(&memory, low - 1, 1) = 1; /* it is there */
        assert_memory_equal(memory_at(&memory, GUEST_LOADED, 1), code, 1);
        assert_guarded(&memory);
        close(kernel);
        close(initramfs);
        memory_free(&memory);
    }
}

/* ---- guest memory ---- */

static void test_memory_bounds(void **state)
{
    struct guest_memory memory;
    struct fault fault;
    (void)state;
    assert_int_equal(memory_create(&memory, GUEST_HOLE + 0x10000000, false, &fault), OK);
    assert_int_equal(memory.count, 2);
    assert_int_equal((uintptr_t)memory.regions[0].base & (GUEST_HUGE_PAGE - 1), 0);
    uint8_t *base = memory.regions[0].base;
    assert_ptr_equal(memory_at(&memory, 0, 1), base);
    assert_ptr_equal(memory_at(&memory, GUEST_HOLE - 1, 1), base + GUEST_HOLE - 1);
    assert_ptr_equal(memory_at(&memory, GUEST_HIGH, 0x10000000), base + GUEST_HOLE);
    assert_null(memory_at(&memory, 0, 0));
    assert_null(memory_at(&memory, GUEST_HOLE - 1, 2)); /* our mapping goes on, the guest's not */
    assert_null(memory_at(&memory, GUEST_HOLE, 1));
    assert_null(memory_at(&memory, GUEST_HIGH - 1, 2));
    assert_null(memory_at(&memory, GUEST_HIGH + 0x10000000, 1));
    assert_null(memory_at(&memory, GUEST_HIGH, 0x10000001));
    assert_null(memory_at(&memory, 1, UINT64_MAX));
    assert_null(memory_at(&memory, UINT64_MAX, 1));
    assert_null(memory_at(&memory, UINT64_MAX, UINT64_MAX));
    memory_free(&memory);
    assert_int_equal(memory_create(&memory, 0, false, &fault), BAD_FIELD);
    assert_int_equal(memory_create(&memory, GUEST_LOADED + 1, false, &fault), BAD_FIELD);
    assert_int_equal(memory_create(&memory, UINT64_C(1) << 62, false, &fault), OUT_OF_SPACE);
}

static void test_memory_release(void **state)
{
    struct guest_memory memory;
    struct fault fault;
    (void)state;
    assert_int_equal(memory_create(&memory, MEMORY_BYTES, false, &fault), OK);
    uint8_t *base = memory_at(&memory, 0, 0x4000);
    memset(base, 7, 0x4000);
    assert_true(memory_release(&memory, 0x800, 0x2000)); /* one whole page lies inside */
    assert_int_equal(base[0xFFF], 7);
    assert_int_equal(base[0x1000], 0);
    assert_int_equal(base[0x1FFF], 0);
    assert_int_equal(base[0x2000], 7);
    assert_true(memory_release(&memory, 0x2800, 0x100));
    assert_int_equal(base[0x2800], 7);
    assert_false(memory_release(&memory, MEMORY_BYTES - 0x1000, 0x2000));
    assert_false(memory_release(&memory, UINT64_MAX - 0xFFF, 0x2000));
    memory_free(&memory);
}

/* ---- ACPI ---- */

static uint8_t sum(const uint8_t *bytes, size_t length)
{
    uint8_t total = 0;
    for (size_t i = 0; i < length; i++)
        total = (uint8_t)(total + bytes[i]);
    return total;
}

static uint64_t le(const uint8_t *bytes, uint32_t size)
{
    uint64_t value = 0;
    for (uint32_t i = 0; i < size; i++)
        value |= (uint64_t)bytes[i] << 8 * i;
    return value;
}

static const uint8_t *table_at(const struct buffer *tables, uint64_t address, const char *name)
{
    assert_true(address >= GUEST_TABLES && address - GUEST_TABLES + 36 <= tables->length);
    const uint8_t *table = tables->data + (address - GUEST_TABLES);
    uint64_t length = le(table + 4, 4);
    assert_memory_equal(table, name, 4);
    assert_true(length <= tables->length - (address - GUEST_TABLES));
    assert_int_equal(sum(table, length), 0);
    return table;
}

static void test_tables(void **state)
{
    static uint8_t storage[GUEST_TABLES_BYTES];
    (void)state;
    for (uint32_t vcpus = 1; vcpus <= SANDBOX_VCPUS_MAX; vcpus++) {
        const struct acpi_machine machine = {.vcpus = vcpus, .devices = vcpus % 9,
                                             .console = vcpus & 1};
        struct buffer tables = buffer_over(storage, sizeof storage);
        struct fault fault;
        assert_int_equal(acpi_build(&tables, &machine, &fault), OK);
        assert_memory_equal(tables.data, "RSD PTR ", 8);
        assert_int_equal(sum(tables.data, 20), 0);
        assert_int_equal(sum(tables.data, 36), 0);
        const uint8_t *xsdt = table_at(&tables, le(tables.data + 24, 8), "XSDT");
        assert_int_equal(le(xsdt + 4, 4), 36 + 2 * 8);
        const uint8_t *fadt = table_at(&tables, le(xsdt + 36, 8), "FACP");
        const uint8_t *madt = table_at(&tables, le(xsdt + 44, 8), "APIC");
        table_at(&tables, le(fadt + 140, 8), "DSDT");
        assert_int_equal(le(fadt + 40, 4), le(fadt + 140, 8));
        assert_int_equal(le(madt + 4, 4), 36 + 8 + vcpus * 8 + 12);
    }
}

static void test_tables_that_do_not_fit(void **state)
{
    uint8_t storage[256];
    const struct acpi_machine machine = {.vcpus = 1, .devices = 6};
    struct fault fault;
    (void)state;
    for (size_t size = 1; size < sizeof storage; size++) {
        struct buffer tables = buffer_over(storage, size);
        assert_int_not_equal(acpi_build(&tables, &machine, &fault), OK);
    }
}

static int run_iasl(const char *directory)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        int null = open("/dev/null", O_WRONLY);
        if (chdir(directory) || dup2(null, 1) < 0 || dup2(null, 2) < 0)
            _exit(126);
        execlp("iasl", "iasl", "-p", "out", "-d", "dsdt.aml", (char *)NULL);
        _exit(errno == ENOENT ? 127 : 126);
    }
    int how;
    assert_int_equal(waitpid(child, &how, 0), child);
    return WIFEXITED(how) ? WEXITSTATUS(how) : 126;
}

/* The reference compiler reads our DSDT and finds in it what we meant. */
static void test_dsdt_by_iasl(void **state)
{
    static uint8_t storage[GUEST_TABLES_BYTES];
    static char text[64 * 1024];
    const struct acpi_machine machine = {.vcpus = 2, .devices = 6, .console = true};
    struct buffer tables = buffer_over(storage, sizeof storage);
    struct fault fault;
    char directory[] = "/tmp/bulkhead-acpi-XXXXXX", path[64];
    (void)state;
    assert_int_equal(acpi_build(&tables, &machine, &fault), OK);
    const uint8_t *dsdt = memmem(tables.data, tables.length, "DSDT", 4);
    assert_non_null(dsdt);
    assert_non_null(mkdtemp(directory));
    snprintf(path, sizeof path, "%s/dsdt.aml", directory);
    int fd = open(path, O_CREAT | O_RDWR, 0600);
    size_t length = (size_t)le(dsdt + 4, 4);
    assert_int_equal(write(fd, dsdt, length), length);
    close(fd);
    int how = run_iasl(directory);
    unlink(path);
    snprintf(path, sizeof path, "%s/out.dsl", directory);
    fd = open(path, O_RDONLY);
    ssize_t count = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;
    if (fd >= 0)
        close(fd);
    unlink(path);
    rmdir(directory);
    if (how == 127) {
        printf("skipped: iasl (acpica-tools) is not installed\n");
        skip();
    }
    assert_int_equal(how, 0);
    assert_true(count > 0);
    const char *const found[] = {
        "Device (VIO5)", "\"LNRO0005\"", "0xD0005000",
        "Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive", "0x00000015",
        "\"VM_Gen_Counter\"", "0x000F0000", "\"QEMU0001\"", "\"ACPI0013\"",
        "Method (_EVT, 1", "Notify (VGEN, 0x80)", "\"PNP0501\"",
        "Name (\\_S5, Package (0x04)"};
    for (size_t i = 0; i < sizeof found / sizeof *found; i++)
        if (!strstr(text, found[i]))
            fail_msg("not in the disassembly: %s", found[i]);
}

/* ---- interrupts, processors, console ---- */

static void select_and_write(struct ioapic *ioapic, uint32_t number, uint32_t value, bool wanted)
{
    struct ioapic_message message;
    assert_false(ioapic_write(&message, ioapic, 0, number));
    assert_int_equal(ioapic_write(&message, ioapic, 0x10, value), wanted);
}

static void test_ioapic(void **state)
{
    struct ioapic ioapic;
    struct ioapic_message message = {0};
    (void)state;
    ioapic_reset(&ioapic);
    assert_false(ioapic_raise(&message, &ioapic, 16)); /* masked: kept */
    assert_false(ioapic_raise(&message, &ioapic, LINES));
    assert_false(ioapic_raise(&message, &ioapic, UINT32_MAX));
    select_and_write(&ioapic, 0x31, 3u << 24, false);
    select_and_write(&ioapic, 0x30, 0x41, true); /* and goes out when unmasked */
    select_and_write(&ioapic, 0x30, 0x41, false);
    assert_true(ioapic_raise(&message, &ioapic, 16));
    assert_int_equal(message.address, 0xFEE03000);
    assert_int_equal(message.data, 0x41);
    select_and_write(&ioapic, 0x30, 0x941, false); /* logical, lowest priority */
    assert_true(ioapic_raise(&message, &ioapic, 16));
    assert_int_equal(message.address, 0xFEE0300C);
    assert_int_equal(message.data, 0x141);
    for (uint32_t mode = 2; mode < 8; mode++) { /* SMI, NMI, INIT, ExtINT */
        select_and_write(&ioapic, 0x30, mode << 8 | 0x41, false);
        assert_false(ioapic_raise(&message, &ioapic, 16));
    }
    for (uint32_t number = 0; number <= UINT8_MAX; number++) { /* every register, and none */
        assert_false(ioapic_write(&message, &ioapic, 0, number));
        ioapic_write(&message, &ioapic, 0x10, UINT32_MAX);
        ioapic_read(&ioapic, 0x10);
        ioapic_read(&ioapic, number);
    }
}

static void test_cpuid(void **state)
{
    (void)state;
    for (uint32_t vcpus = 1; vcpus <= SANDBOX_VCPUS_MAX; vcpus++) {
        struct cpuid_table table = {.head = {.nent = 4}, .entries = {
            {.function = 0, .eax = 0x1F},
            {.function = 1, .ecx = UINT32_MAX, .edx = UINT32_MAX},
            {.function = 0xB, .eax = 99, .edx = 99}, {.function = 0x80000001, .ecx = UINT32_MAX}}};
        cpuid_for_vcpu(&table, vcpus - 1, vcpus);
        assert_int_equal(table.head.nent, 3 + 6);
        assert_int_equal(table.entries[1].ebx >> 24, vcpus - 1);
        assert_int_equal(table.entries[1].ecx & 1 << 5, 0);        /* VMX */
        assert_int_equal(table.entries[1].ecx >> 31, 1);           /* hypervisor */
        assert_int_equal(table.entries[1].edx >> 28 & 1, vcpus > 1);
        assert_int_equal(table.entries[2].ecx & 1 << 2, 0);        /* SVM */
        assert_int_equal(table.entries[3].edx, vcpus - 1);
        assert_int_equal(table.entries[4].ebx, vcpus);
        assert_true(1u << table.entries[4].eax >= vcpus);
    }
}

static void test_console_is_bounded(void **state)
{
    struct serial *serial = calloc(1, sizeof *serial);
    struct buffer out = buffer_of(SANDBOX_CONSOLE_BYTES);
    (void)state;
    serial_newest(serial, &out);
    assert_int_equal(out.length, 0);
    for (uint32_t i = 0; i < SANDBOX_CONSOLE_BYTES + 5; i++)
        assert_false(serial_write(serial, 0, (uint8_t)('a' + i % 26)));
    serial_newest(serial, &out);
    assert_int_equal(out.length, SANDBOX_CONSOLE_BYTES);
    assert_int_equal(out.data[0], 'a' + 5);
    assert_int_equal(out.data[SANDBOX_CONSOLE_BYTES - 1],
                     'a' + (SANDBOX_CONSOLE_BYTES + 4) % 26);
    assert_false(out.failed);
    assert_true(serial_write(serial, 1, 2)); /* an interrupt as soon as it is asked for */
    assert_int_equal(serial_read(serial, 2) & 0xF, 2);
    assert_int_equal(serial_read(serial, 2) & 0xF, 1);
    for (uint32_t offset = 0; offset < 8; offset++) {
        serial_write(serial, offset, 0xFF);
        serial_read(serial, offset);
    }
    buffer_free(&out);
    free(serial);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_kernel),      cmocka_unit_test(test_hostile_kernels),
        cmocka_unit_test(test_too_many_segments), cmocka_unit_test(test_entry_notes),
        cmocka_unit_test(test_load),             cmocka_unit_test(test_large_initramfs),
        cmocka_unit_test(test_preloaded),
        cmocka_unit_test(test_memory_bounds),    cmocka_unit_test(test_memory_release),
        cmocka_unit_test(test_tables),           cmocka_unit_test(test_tables_that_do_not_fit),
        cmocka_unit_test(test_dsdt_by_iasl),     cmocka_unit_test(test_ioapic),
        cmocka_unit_test(test_cpuid),            cmocka_unit_test(test_console_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
