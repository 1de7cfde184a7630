#include "vmm/inside.h"

#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <string.h>
#include <sys/ioctl.h>

enum {
    KEYBOARD_RESET = 0xFE, PANIC_PANICKED = 1, SLEEP_ENABLE = 0x20, RESET_VALUE = 1,
    IOAPIC_BYTES = 0x100,
};

static void signal_message(struct machine *machine, const struct ioapic_message *message)
{
    struct kvm_msi msi = {.address_lo = message->address, .data = message->data};
    ioctl(machine->vm, KVM_SIGNAL_MSI, &msi);
}

void bus_interrupt(void *context, uint32_t line)
{
    struct machine *machine = context;
    struct ioapic_message message;
    if (ioapic_raise(&message, &machine->ioapic, line))
        signal_message(machine, &message);
}

static uint32_t value_of(const uint8_t *bytes, uint32_t size)
{
    uint32_t value = 0;
    for (uint32_t i = 0; i < size && i < 4; i++)
        value |= (uint32_t)bytes[i] << 8 * i;
    return value;
}

static void port_written(struct machine *machine, uint16_t port, uint32_t value)
{
    if ((port == PORT_KEYBOARD && value == KEYBOARD_RESET)
        || (port == PORT_RESET && value == RESET_VALUE))
        machine_end(machine, SANDBOX_RESET, "the guest reset the machine");
    else if (port == PORT_SLEEP_CONTROL && value & SLEEP_ENABLE)
        machine_end(machine, SANDBOX_SHUTDOWN, "the guest switched the machine off");
    else if (port == PORT_PANIC && value & PANIC_PANICKED)
        machine_end(machine, SANDBOX_PANIC, "the guest's kernel panicked");
    else if (machine->hooks.port_written)
        machine->hooks.port_written(machine->hooks.context, port, value);
}

static bool port_read(uint8_t *ret, uint16_t port)
{
    switch (port) {
    case PORT_KEYBOARD: /* its buffers are empty, so a reset need not wait */
    case PORT_SLEEP_STATUS: *ret = 0; return true;
    case PORT_PANIC: *ret = PANIC_PANICKED; return true;
    default: return false;
    }
}

static bool is_serial(const struct machine *machine, uint16_t port)
{
    return machine->serial && port >= PORT_SERIAL && port < PORT_SERIAL + 8;
}

static void serial_access(struct machine *machine, uint16_t port, uint8_t *byte, bool write)
{
    struct serial *serial = machine->serial;
    uint32_t offset = port - PORT_SERIAL;
    pthread_mutex_lock(&machine->lock);
    if (!write) {
        *byte = serial_read(serial, offset);
    } else {
        bool output = serial_is_output(serial, offset);
        if (serial_write(serial, offset, *byte))
            bus_interrupt(machine, LINE_SERIAL);
        if (output && machine->hooks.console_written)
            machine->hooks.console_written(machine->hooks.context, *byte);
    }
    pthread_mutex_unlock(&machine->lock);
}

void bus_port(struct machine *machine, uint16_t port, uint8_t *bytes, uint32_t size, bool write)
{
    if (size == 1 && is_serial(machine, port))
        serial_access(machine, port, bytes, write);
    else if (write)
        port_written(machine, port, value_of(bytes, size));
    else if (size != 1 || !port_read(bytes, port))
        memset(bytes, 0xFF, size);
}

static void ioapic_access(struct machine *machine, uint64_t offset, uint8_t *bytes, uint32_t size,
                          bool write)
{
    struct ioapic_message message;
    if (size != 4) {
        if (!write)
            memset(bytes, 0xFF, size);
        return;
    }
    pthread_mutex_lock(&machine->lock);
    if (write) {
        if (ioapic_write(&message, &machine->ioapic, offset, value_of(bytes, size)))
            signal_message(machine, &message);
    } else {
        uint32_t value = ioapic_read(&machine->ioapic, offset);
        memcpy(bytes, &value, sizeof value);
    }
    pthread_mutex_unlock(&machine->lock);
}

/* What makes a device start, stop or change: its code may need memory, descriptors and timers,
 * which a vCPU's thread has no right to. */
static bool is_errand(uint32_t offset, const uint8_t *bytes, uint32_t size)
{
    if (offset >= VIRTIO_MMIO_CONFIG)
        return true;
    uint32_t value = value_of(bytes, size);
    return offset == VIRTIO_MMIO_STATUS && (value == 0 || value & VIRTIO_CONFIG_S_DRIVER_OK);
}

static void window_access(struct machine *machine, struct virtio_device *device, uint32_t offset,
                          uint8_t *bytes, uint32_t size, bool write)
{
    if (write && is_errand(offset, bytes, size)) {
        machine_write_there(machine, device, offset, bytes, size);
        return;
    }
    bool locked = !virtio_mmio_needs_no_lock(offset, size);
    if (locked)
        pthread_mutex_lock(&machine->lock);
    if (write)
        virtio_mmio_write(device, offset, bytes, size);
    else
        virtio_mmio_read(device, offset, bytes, size);
    if (locked)
        pthread_mutex_unlock(&machine->lock);
}

void bus_memory(struct machine *machine, uint64_t address, uint8_t *bytes, uint32_t size,
                bool write)
{
    bool whole = size == 1 || size == 2 || size == 4 || size == 8;
    if (address - GUEST_IOAPIC < IOAPIC_BYTES) {
        ioapic_access(machine, address - GUEST_IOAPIC, bytes, size, write);
        return;
    }
    uint64_t index = (address - GUEST_VIRTIO) / VIRTIO_WINDOW_BYTES;
    uint32_t offset = (uint32_t)((address - GUEST_VIRTIO) % VIRTIO_WINDOW_BYTES);
    if (whole && index < machine->device_count && offset + size <= VIRTIO_WINDOW_BYTES)
        window_access(machine, machine->devices[index].device, offset, bytes, size, write);
    else if (!write)
        memset(bytes, 0xFF, size);
}
