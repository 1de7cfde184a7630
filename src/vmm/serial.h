/* serial.h: a serial port (16550, what a kernel needs to write to it) whose output ends in a ring
 * of the newest SANDBOX_CONSOLE_BYTES. Nothing is ever received. */
#pragma once

#include "base/buffer.h"
#include "base/limits.h"

struct serial { /* serialisable */
    uint8_t interrupt_enable, line_control, modem_control, scratch, divisor[2], fifo_control;
    bool transmit_pending; /* the interrupt that the holding register is empty */
    uint64_t written;      /* bytes ever */
    uint8_t ring[SANDBOX_CONSOLE_BYTES];
};

uint8_t serial_read(struct serial *serial, uint32_t offset);
/* True: its interrupt line shows an edge. */
bool serial_write(struct serial *serial, uint32_t offset, uint8_t value);
/* Is this write a byte of output? */
bool serial_is_output(const struct serial *serial, uint32_t offset);
void serial_newest(const struct serial *serial, struct buffer *out);
