/* support.h: what the tests of this room share. */
#pragma once

#include "base/hex.h"
#include "crypt/crypt.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static inline int start(void **state)
{
    (void)state;
    struct fault fault;
    return crypt_start(&fault) == OK ? 0 : -1;
}

static inline void assert_hex(struct span bytes, const char *hex)
{
    char text[1024];
    assert_true(2 * bytes.length + 1 <= sizeof text);
    hex_encode(text, bytes);
    assert_string_equal(text, hex);
}

static inline void from_hex(uint8_t *ret, size_t length, const char *hex)
{
    struct fault fault;
    assert_int_equal(hex_decode(ret, length, span_of_text(hex), "vector", &fault), OK);
}

/* 00 01 02 ... */
static inline void count_up(uint8_t *bytes, size_t length, uint8_t first)
{
    for (size_t i = 0; i < length; i++)
        bytes[i] = (uint8_t)(first + i);
}
