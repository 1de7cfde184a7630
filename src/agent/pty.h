/* pty.h: a terminal for a command. */
#pragma once

#include "base/status.h"

#include <stdint.h>
#include <sys/types.h>

/* Both ends, close-on-exec; the master does not block. The slave belongs to uid. */
MUST_CHECK status pty_open(int *ret_master, int *ret_slave, uint16_t rows, uint16_t columns,
                           uid_t uid, struct fault *fault);
MUST_CHECK status pty_resize(int master, uint16_t rows, uint16_t columns, struct fault *fault);
/* What a person types for the end of input, where the terminal takes lines: its characters in
 * text, and how many. */
size_t pty_end_of_input(int master, uint8_t text[2]);
