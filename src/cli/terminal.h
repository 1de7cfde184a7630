/* terminal.h: the operator's terminal while a program in a sandbox has it: raw, and given back as
 * it was at every way out of this process that can be caught. One at a time. */
#pragma once

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

/* Raw from here on; false where fd is no terminal: then nothing happens here or below. */
bool terminal_raw(int fd);
void terminal_raw_again(void); /* after the shell had it, such as on SIGCONT */
void terminal_restore(void);   /* also when it is not raw */

/* Of the first of standard input, output and error that is a terminal; else 24 x 80. */
void terminal_size(uint16_t *ret_rows, uint16_t *ret_columns);
