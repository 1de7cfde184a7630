/* hex.h: lower-case hexadecimal, the spelling of ids, hashes and fingerprints. */
#pragma once

#include "base/span.h"
#include "base/status.h"

/* text must hold 2 * bytes.length + 1. */
void hex_encode(char *text, struct span bytes);

/* Exactly length bytes from exactly 2 * length lower-case digits; BAD_FIELD otherwise. */
MUST_CHECK status hex_decode(uint8_t *ret, size_t length, struct span text, const char *name,
                             struct fault *fault);
