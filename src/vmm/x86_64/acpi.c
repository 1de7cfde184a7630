#include "vmm/x86_64/acpi.h"

#include "base/limits.h"
#include "vmm/virtio/device.h"

#include <assert.h>
#include <string.h>

enum {
    HEADER_BYTES = 36, HEADER_CHECKSUM = 9, HEADER_LENGTH = 4,
    FADT_BYTES = 276, PANIC_EVENT = 0x80,
    SLEEP_TYPE_OFF = 5,
};

enum { /* AML (ACPI 6.4, 20.2) */
    AML_ZERO = 0x00, AML_NAME = 0x08, AML_BYTE = 0x0A, AML_WORD = 0x0B, AML_DWORD = 0x0C,
    AML_STRING = 0x0D, AML_SCOPE = 0x10, AML_BUFFER = 0x11, AML_PACKAGE = 0x12, AML_METHOD = 0x14,
    AML_EXTENDED = 0x5B, AML_DEVICE = 0x82, AML_ARGUMENT_0 = 0x68, AML_NOTIFY = 0x86,
    AML_EQUAL = 0x93, AML_IF = 0xA0,
};

static void put_le(struct buffer *out, uint64_t value, uint32_t bytes)
{
    assert(bytes <= sizeof value);
    for (uint32_t i = 0; i < bytes; i++)
        buffer_put_u8(out, (uint8_t)(value >> 8 * i));
}

static void patch_le(struct buffer *out, size_t at, uint64_t value, uint32_t bytes)
{
    if (out->failed)
        return;
    assert(at + bytes <= out->length);
    for (uint32_t i = 0; i < bytes; i++)
        out->data[at + i] = (uint8_t)(value >> 8 * i);
}

/* So that the bytes from first on sum to zero. */
static void patch_checksum(struct buffer *out, size_t at, size_t first, size_t bytes)
{
    uint8_t sum = 0;
    if (out->failed)
        return;
    for (size_t i = 0; i < bytes; i++)
        sum = (uint8_t)(sum + out->data[first + i]);
    out->data[at] = (uint8_t)-sum;
}

static void align(struct buffer *out)
{
    while (!out->failed && out->length % 16)
        buffer_put_u8(out, 0);
}

static size_t open_table(struct buffer *out, const char *signature, uint8_t revision)
{
    align(out);
    size_t at = out->length;
    buffer_put_text(out, signature);
    put_le(out, 0, 4);
    buffer_put_u8(out, revision);
    buffer_put_u8(out, 0);
    buffer_put(out, SPAN("BLKHD BULKHEAD"));
    put_le(out, 1, 4);
    buffer_put(out, SPAN("BLKH"));
    put_le(out, 1, 4);
    return at;
}

static void close_table(struct buffer *out, size_t at)
{
    patch_le(out, at + HEADER_LENGTH, out->length - at, 4);
    patch_checksum(out, at + HEADER_CHECKSUM, at, out->length - at);
}

/* A package's length counts itself; always written in its form of three bytes. */
static size_t open_package(struct buffer *out)
{
    size_t at = out->length;
    put_le(out, 0, 3);
    return at;
}

static void close_package(struct buffer *out, size_t at)
{
    uint64_t length = out->length - at;
    patch_le(out, at, 0x80 | (length & 0xF) | length >> 4 << 8, 3);
}

static void put_string(struct buffer *out, const char *text)
{
    buffer_put_u8(out, AML_STRING);
    buffer_put_text(out, text);
    buffer_put_u8(out, 0);
}

static void put_named_string(struct buffer *out, const char *name, const char *text)
{
    buffer_put_u8(out, AML_NAME);
    buffer_put_text(out, name);
    put_string(out, text);
}

static void put_dword(struct buffer *out, uint64_t value)
{
    buffer_put_u8(out, AML_DWORD);
    put_le(out, value, 4);
}

static size_t open_device(struct buffer *out, const char *name, const char *hardware_id,
                          uint32_t unique_id)
{
    buffer_put_u8(out, AML_EXTENDED);
    buffer_put_u8(out, AML_DEVICE);
    size_t at = open_package(out);
    buffer_put_text(out, name);
    put_named_string(out, "_HID", hardware_id);
    buffer_put_u8(out, AML_NAME);
    buffer_put_text(out, "_UID");
    put_dword(out, unique_id);
    return at;
}

/* _CRS: a buffer whose size is said twice. */
struct resources {
    size_t package, size, first;
};

static struct resources open_resources(struct buffer *out)
{
    struct resources open;
    buffer_put_u8(out, AML_NAME);
    buffer_put_text(out, "_CRS");
    buffer_put_u8(out, AML_BUFFER);
    open.package = open_package(out);
    buffer_put_u8(out, AML_WORD);
    open.size = out->length;
    put_le(out, 0, 2);
    open.first = out->length;
    return open;
}

static void close_resources(struct buffer *out, const struct resources *open)
{
    put_le(out, 0x0079, 2); /* end tag, without a checksum */
    patch_le(out, open->size, out->length - open->first, 2);
    close_package(out, open->package);
}

static void put_memory(struct buffer *out, uint64_t address, uint64_t bytes)
{
    put_le(out, 0x86, 1); /* 32-bit fixed memory range */
    put_le(out, 9, 2);
    put_le(out, 1, 1); /* writable */
    put_le(out, address, 4);
    put_le(out, bytes, 4);
}

static void put_ports(struct buffer *out, uint32_t port, uint32_t count)
{
    put_le(out, 0x47, 1); /* I/O port descriptor, 16-bit decode */
    put_le(out, 1, 1);
    put_le(out, port, 2);
    put_le(out, port, 2);
    put_le(out, 1, 1);
    put_le(out, count, 1);
}

static void put_line(struct buffer *out, uint32_t line)
{
    put_le(out, 0x89, 1); /* extended interrupt */
    put_le(out, 6, 2);
    put_le(out, 1 | 2, 1); /* consumer, edge; active high, exclusive */
    put_le(out, 1, 1);
    put_le(out, line, 4);
}

static void put_windows(struct buffer *out, uint32_t devices)
{
    for (uint32_t i = 0; i < devices; i++) {
        char name[5] = {'V', 'I', 'O', (char)('0' + i), 0};
        size_t device = open_device(out, name, "LNRO0005", i);
        struct resources resources = open_resources(out);
        put_memory(out, GUEST_VIRTIO + (uint64_t)i * VIRTIO_WINDOW_BYTES, VIRTIO_WINDOW_BYTES);
        put_line(out, LINE_VIRTIO + i);
        close_resources(out, &resources);
        close_package(out, device);
    }
}

/* Microsoft's "Virtual Machine Generation ID": ADDR says where the 16 bytes lie. */
static void put_generation(struct buffer *out)
{
    size_t device = open_device(out, "VGEN", "QEMUVGID", 0);
    put_named_string(out, "_CID", "VM_Gen_Counter");
    put_named_string(out, "_DDN", "VM_Gen_Counter");
    buffer_put_u8(out, AML_NAME);
    buffer_put_text(out, "ADDR");
    buffer_put_u8(out, AML_PACKAGE);
    size_t package = open_package(out);
    buffer_put_u8(out, 2);
    put_dword(out, GUEST_GENERATION & UINT32_MAX);
    put_dword(out, GUEST_GENERATION >> 32);
    close_package(out, package);
    close_package(out, device);
}

/* The generic event device hands an edge of its line on as a notification. */
static void put_events(struct buffer *out)
{
    size_t device = open_device(out, "GED0", "ACPI0013", 0);
    struct resources resources = open_resources(out);
    put_line(out, LINE_EVENT);
    close_resources(out, &resources);
    buffer_put_u8(out, AML_METHOD);
    size_t method = open_package(out);
    buffer_put_text(out, "_EVT");
    buffer_put_u8(out, 1); /* argument */
    buffer_put_u8(out, AML_IF);
    size_t condition = open_package(out);
    buffer_put_u8(out, AML_EQUAL);
    buffer_put_u8(out, AML_ARGUMENT_0);
    buffer_put_u8(out, AML_BYTE);
    buffer_put_u8(out, LINE_EVENT);
    buffer_put_u8(out, AML_NOTIFY);
    buffer_put_text(out, "VGEN");
    buffer_put_u8(out, AML_BYTE);
    buffer_put_u8(out, 0x80);
    close_package(out, condition);
    close_package(out, method);
    close_package(out, device);
}

static void put_port_device(struct buffer *out, const char *name, const char *hardware_id,
                            uint32_t port, uint32_t count, uint32_t line)
{
    size_t device = open_device(out, name, hardware_id, 0);
    struct resources resources = open_resources(out);
    put_ports(out, port, count);
    if (line)
        put_line(out, line);
    close_resources(out, &resources);
    close_package(out, device);
}

/* \_S5: how to switch off. */
static void put_sleep(struct buffer *out)
{
    buffer_put_u8(out, AML_NAME);
    buffer_put_text(out, "\\_S5_");
    buffer_put_u8(out, AML_PACKAGE);
    size_t package = open_package(out);
    buffer_put_u8(out, 4);
    buffer_put_u8(out, AML_BYTE);
    buffer_put_u8(out, SLEEP_TYPE_OFF);
    for (int i = 0; i < 3; i++)
        buffer_put_u8(out, AML_ZERO);
    close_package(out, package);
}

static size_t put_dsdt(struct buffer *out, const struct acpi_machine *machine)
{
    size_t table = open_table(out, "DSDT", 2);
    buffer_put_u8(out, AML_SCOPE);
    size_t scope = open_package(out);
    buffer_put_text(out, "\\_SB_");
    put_windows(out, machine->devices);
    put_generation(out);
    put_events(out);
    put_port_device(out, "PEVT", "QEMU0001", PORT_PANIC, 1, 0);
    if (machine->console)
        put_port_device(out, "COM1", "PNP0501", PORT_SERIAL, 8, LINE_SERIAL);
    close_package(out, scope);
    put_sleep(out);
    close_table(out, table);
    return table;
}

static void patch_register(struct buffer *out, size_t at, uint32_t port)
{
    patch_le(out, at, 1 | 8 << 8 | 1u << 24, 4); /* I/O space, 8 bits wide, byte access */
    patch_le(out, at + 4, port, 8);
}

static size_t put_fadt(struct buffer *out, size_t dsdt)
{
    size_t table = open_table(out, "FACP", 6);
    for (int i = HEADER_BYTES; i < FADT_BYTES; i++)
        buffer_put_u8(out, 0);
    patch_le(out, table + 40, GUEST_TABLES + dsdt, 4);
    /* no VGA, no CMOS clock, no keyboard controller */
    patch_le(out, table + 109, 1 << 2 | 1 << 5, 2);
    /* WBINVD works, no fixed power or sleep button, reset register, hardware-reduced */
    patch_le(out, table + 112, 1 << 0 | 1 << 4 | 1 << 5 | 1 << 10 | 1 << 20, 4);
    patch_register(out, table + 116, PORT_RESET);
    patch_le(out, table + 128, 1, 1); /* what is to be written there */
    patch_le(out, table + 131, 4, 1); /* minor revision */
    patch_le(out, table + 140, GUEST_TABLES + dsdt, 8);
    patch_register(out, table + 244, PORT_SLEEP_CONTROL);
    patch_register(out, table + 256, PORT_SLEEP_STATUS);
    close_table(out, table);
    return table;
}

static size_t put_madt(struct buffer *out, uint32_t vcpus)
{
    size_t table = open_table(out, "APIC", 5);
    put_le(out, GUEST_LAPIC, 4);
    put_le(out, 0, 4); /* no 8259 beside it */
    for (uint32_t i = 0; i < vcpus; i++) {
        put_le(out, 0, 1); /* local APIC */
        put_le(out, 8, 1);
        put_le(out, i, 1);
        put_le(out, i, 1);
        put_le(out, 1, 4); /* enabled */
    }
    put_le(out, 1, 1); /* IOAPIC */
    put_le(out, 12, 1);
    put_le(out, 0, 2);
    put_le(out, GUEST_IOAPIC, 4);
    put_le(out, 0, 4); /* its first GSI */
    close_table(out, table);
    return table;
}

enum { RSDP_BYTES = 36, RSDP_OLD_BYTES = 20, RSDP_CHECKSUM = 8, RSDP_XSDT = 24, RSDP_FULL = 32 };

status acpi_build(struct buffer *out, const struct acpi_machine *machine, struct fault *fault)
{
    assert(out->length == 0 && machine->vcpus <= SANDBOX_VCPUS_MAX && machine->devices <= 8);
    buffer_put(out, SPAN("RSD PTR \0BLKHD \2"));
    put_le(out, 0, 4);
    put_le(out, RSDP_BYTES, 4);
    put_le(out, 0, 8); /* where the XSDT lies */
    put_le(out, 0, RSDP_BYTES - RSDP_FULL);
    size_t dsdt = put_dsdt(out, machine);
    size_t fadt = put_fadt(out, dsdt);
    size_t madt = put_madt(out, machine->vcpus);
    size_t xsdt = open_table(out, "XSDT", 1);
    put_le(out, GUEST_TABLES + fadt, 8);
    put_le(out, GUEST_TABLES + madt, 8);
    close_table(out, xsdt);
    patch_le(out, RSDP_XSDT, GUEST_TABLES + xsdt, 8);
    patch_checksum(out, RSDP_CHECKSUM, 0, RSDP_OLD_BYTES);
    patch_checksum(out, RSDP_FULL, 0, RSDP_BYTES);
    return buffer_check(out, "ACPI tables", fault);
}
