/* http_bytes.h: the character classes of RFC 9110 and RFC 3986, for the files of the HTTP
 * parser. */
#pragma once

#include "base/span.h"

static inline bool http_is_alnum(uint8_t byte)
{
    return (byte >= '0' && byte <= '9') || (byte >= 'a' && byte <= 'z')
        || (byte >= 'A' && byte <= 'Z');
}

static inline bool http_is_one_of(uint8_t byte, const char *set)
{
    for (; *set; set++)
        if (byte == (uint8_t)*set)
            return true;
    return false;
}

/* tchar, RFC 9110 section 5.6.2 */
static inline bool http_is_token_byte(uint8_t byte)
{
    return http_is_alnum(byte) || http_is_one_of(byte, "!#$%&'*+-.^_`|~");
}

/* field-vchar, blank and tab, RFC 9110 section 5.5 */
static inline bool http_is_value_byte(uint8_t byte)
{
    return byte == '\t' || (byte >= 0x20 && byte != 0x7F);
}

/* pchar and '/', RFC 3986 section 3.3: what a path may be spelled with, escapes included */
static inline bool http_is_path_byte(uint8_t byte)
{
    return http_is_alnum(byte) || http_is_one_of(byte, "/%-._~!$&'()*+,;=:@");
}

/* RFC 3986 section 3.4 */
static inline bool http_is_query_byte(uint8_t byte)
{
    return http_is_path_byte(byte) || byte == '?';
}

static inline uint8_t http_lower(uint8_t byte)
{
    return byte >= 'A' && byte <= 'Z' ? (uint8_t)(byte + 32) : byte;
}

/* 0 to 15, or -1 */
static inline int http_hex_digit(uint8_t byte)
{
    uint8_t lower = http_lower(byte);
    if (lower >= '0' && lower <= '9')
        return lower - '0';
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}
