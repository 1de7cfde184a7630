/* siphash.h: SipHash-2-4 (Aumasson and Bernstein, 2012): for hash tables whose keys strangers
 * choose. With a random key nobody can aim at one bucket. No cipher, no MAC of ours. */
#pragma once

#include "base/span.h"

enum { SIPHASH_KEY_BYTES = 16 };

uint64_t siphash(const uint8_t key[SIPHASH_KEY_BYTES], struct span bytes);
