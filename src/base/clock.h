/* clock.h: wall time for people and tokens, monotonic time for everything that waits. */
#pragma once

#include "base/span.h"

int64_t clock_wall_us(void);      /* microseconds since 1970, UTC */
int64_t clock_monotonic_us(void); /* never steps */

enum { CLOCK_TEXT_SIZE = 28 }; /* "2026-11-21T22:10:22.123456Z" and NUL */

/* RFC 3339, UTC, microseconds. Times outside year 1..9999 are clamped. */
void clock_text(char text[CLOCK_TEXT_SIZE], int64_t wall_us);

/* RFC 3339, strictly: capital T and Z, any offset, at most six digits of a second, no leap second,
 * from 1970 to 9999 UTC. False when it is none; ret is then untouched. */
bool clock_read(int64_t *ret_wall_us, struct span text);
