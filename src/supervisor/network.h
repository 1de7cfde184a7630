/* network.h: names and address ranges as an operator writes them. */
#pragma once

#include "base/limits.h"
#include "base/span.h"
#include "base/status.h"

struct network_range {
    uint8_t family;    /* 4 or 6 */
    uint8_t bytes[16]; /* IPv4: the first four, the rest zero */
    uint8_t prefix_bits;
};

/* "10.0.0.0/8", "2001:db8::/32", or one address. BAD_FIELD, beginning with name: not that, bits set
 * behind the prefix, a prefix of 0, an IPv4 address in IPv6 clothes (it is seen as IPv4). */
MUST_CHECK status network_range(struct network_range *ret, const char *text, const char *name,
                                struct fault *fault);

/* [a-z0-9]([a-z0-9-]*[a-z0-9])?, at most 63 bytes; and such labels joined by dots. */
bool network_is_label(struct span text);
bool network_is_domain(struct span text);
