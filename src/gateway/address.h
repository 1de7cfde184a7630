/* address.h: who is at the other end: addresses of clients, and the ranges that an operator named
 * as proxies. An IPv4 address that came over an IPv6 socket is that IPv4 address. */
#pragma once

#include "base/cursor.h"
#include "base/limits.h"

#include <stdbool.h>

enum { ADDRESS_BYTES = 16 };

struct address {
    uint8_t family;               /* 4 or 6; 0: unknown, which is in no range */
    uint8_t bytes[ADDRESS_BYTES]; /* IPv4: the first four, the rest zero */
};

struct address_range {
    struct address address;
    uint8_t prefix_bits; /* at most 32 or 128 */
};

struct address address_of_peer(int fd);
struct address address_of_ipv4(const uint8_t bytes[4]);
struct address address_of_ipv6(const uint8_t bytes[ADDRESS_BYTES]); /* ::ffff:a.b.c.d is IPv4 */
/* What a cap counts by: IPv4 whole; of IPv6 the first 64 bits, which one customer has alone. */
struct address address_for_cap(struct address address);
/* Numeric text without port and brackets. False for anything else. */
bool address_read(struct address *ret, struct span text);

bool address_in(struct address address, const struct address_range *ranges, uint32_t count);
/* u8 4 or 6, 16 bytes, u8 prefix bits. BAD_REQUEST beyond a bound. */
MUST_CHECK status address_range_get(struct address_range *ret, struct cursor *cursor,
                                    struct fault *fault);
