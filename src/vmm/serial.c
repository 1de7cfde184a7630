#include "vmm/serial.h"

enum {
    DATA, INTERRUPT_ENABLE, INTERRUPT_IDENTITY, LINE_CONTROL, MODEM_CONTROL, LINE_STATUS,
    MODEM_STATUS, SCRATCH,
    ENABLE_TRANSMIT = 2, DIVISOR_LATCH = 0x80, LOOPBACK = 0x10,
    IDENTITY_NONE = 1, IDENTITY_TRANSMIT = 2, IDENTITY_FIFOS = 0xC0,
    STATUS_EMPTY = 0x60,      /* holding register and transmitter */
    STATUS_CONNECTED = 0xB0,  /* carrier, data set ready, clear to send */
};

static bool latched(const struct serial *serial)
{
    return serial->line_control & DIVISOR_LATCH;
}

/* In loopback the modem lines show what the control register says: how drivers find a port. */
static uint8_t modem_status(const struct serial *serial)
{
    uint8_t control = serial->modem_control;
    if (!(control & LOOPBACK))
        return STATUS_CONNECTED;
    return (uint8_t)((control & 1) << 5 | (control & 2) << 3 | (control & 4) << 4
                     | (control & 8) << 4);
}

static uint8_t identity(struct serial *serial)
{
    uint8_t fifos = serial->fifo_control & 1 ? IDENTITY_FIFOS : 0;
    if (!serial->transmit_pending)
        return fifos | IDENTITY_NONE;
    serial->transmit_pending = false;
    return fifos | IDENTITY_TRANSMIT;
}

uint8_t serial_read(struct serial *serial, uint32_t offset)
{
    switch (offset) {
    case DATA: return latched(serial) ? serial->divisor[0] : 0;
    case INTERRUPT_ENABLE: return latched(serial) ? serial->divisor[1] : serial->interrupt_enable;
    case INTERRUPT_IDENTITY: return identity(serial);
    case LINE_CONTROL: return serial->line_control;
    case MODEM_CONTROL: return serial->modem_control;
    case LINE_STATUS: return STATUS_EMPTY;
    case MODEM_STATUS: return modem_status(serial);
    case SCRATCH: return serial->scratch;
    default: return 0xFF;
    }
}

/* What was written is gone at once, so the register is empty again whenever it is asked for. */
static bool transmit_empty(struct serial *serial)
{
    serial->transmit_pending = serial->interrupt_enable & ENABLE_TRANSMIT;
    return serial->transmit_pending;
}

static bool write_data(struct serial *serial, uint8_t value)
{
    if (!(serial->modem_control & LOOPBACK))
        serial->ring[serial->written++ % SANDBOX_CONSOLE_BYTES] = value;
    return transmit_empty(serial);
}

bool serial_is_output(const struct serial *serial, uint32_t offset)
{
    return offset == DATA && !latched(serial) && !(serial->modem_control & LOOPBACK);
}

bool serial_write(struct serial *serial, uint32_t offset, uint8_t value)
{
    switch (offset) {
    case DATA:
        if (!latched(serial))
            return write_data(serial, value);
        serial->divisor[0] = value;
        return false;
    case INTERRUPT_ENABLE:
        if (latched(serial)) {
            serial->divisor[1] = value;
            return false;
        }
        serial->interrupt_enable = value & 0xF;
        return transmit_empty(serial);
    case INTERRUPT_IDENTITY: serial->fifo_control = value; return false;
    case LINE_CONTROL: serial->line_control = value; return false;
    case MODEM_CONTROL: serial->modem_control = value & 0x1F; return false;
    case SCRATCH: serial->scratch = value; return false;
    default: return false;
    }
}

void serial_newest(const struct serial *serial, struct buffer *out)
{
    uint64_t kept = serial->written < SANDBOX_CONSOLE_BYTES ? serial->written
                                                            : SANDBOX_CONSOLE_BYTES;
    size_t first = (size_t)((serial->written - kept) % SANDBOX_CONSOLE_BYTES);
    size_t before_end = SANDBOX_CONSOLE_BYTES - first;
    size_t head = kept < before_end ? (size_t)kept : before_end;
    buffer_put(out, (struct span){serial->ring + first, head});
    buffer_put(out, (struct span){serial->ring, (size_t)kept - head});
}
