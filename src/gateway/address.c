#define _GNU_SOURCE
#include "gateway/address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

enum { CAP_BITS_IPV6 = 64 };

static struct address address_of(uint8_t family, const uint8_t *bytes, size_t length)
{
    struct address address = {.family = family};
    for (size_t i = 0; i < length; i++)
        address.bytes[i] = bytes[i];
    return address;
}

struct address address_of_ipv4(const uint8_t bytes[4])
{
    return address_of(4, bytes, 4);
}

struct address address_of_ipv6(const uint8_t bytes[ADDRESS_BYTES])
{
    static const uint8_t mapped[12] = {[10] = 0xFF, [11] = 0xFF};
    if (span_starts_with((struct span){bytes, ADDRESS_BYTES}, SPAN_OF(mapped)))
        return address_of_ipv4(bytes + sizeof mapped);
    return address_of(6, bytes, ADDRESS_BYTES);
}

struct address address_of_peer(int fd)
{
    union {
        struct sockaddr any;
        struct sockaddr_in four;
        struct sockaddr_in6 six;
    } peer = {0};
    socklen_t length = sizeof peer;
    if (getpeername(fd, &peer.any, &length))
        return (struct address){0};
    if (peer.any.sa_family == AF_INET)
        return address_of_ipv4((const uint8_t *)&peer.four.sin_addr);
    if (peer.any.sa_family == AF_INET6)
        return address_of_ipv6(peer.six.sin6_addr.s6_addr);
    return (struct address){0};
}

struct address address_for_cap(struct address address)
{
    for (size_t i = CAP_BITS_IPV6 / 8; address.family == 6 && i < ADDRESS_BYTES; i++)
        address.bytes[i] = 0;
    return address;
}

bool address_read(struct address *ret, struct span text)
{
    char copy[INET6_ADDRSTRLEN];
    uint8_t bytes[ADDRESS_BYTES];
    if (!span_to_text(copy, sizeof copy, text))
        return false;
    if (inet_pton(AF_INET, copy, bytes) == 1)
        *ret = address_of_ipv4(bytes);
    else if (inet_pton(AF_INET6, copy, bytes) == 1)
        *ret = address_of_ipv6(bytes);
    else
        return false;
    return true;
}

static bool is_in(const struct address *address, const struct address_range *range)
{
    uint32_t whole = range->prefix_bits / 8, rest = range->prefix_bits % 8;
    if (address->family == 0 || address->family != range->address.family)
        return false;
    for (uint32_t i = 0; i < whole; i++)
        if (address->bytes[i] != range->address.bytes[i])
            return false;
    return rest == 0 || (address->bytes[whole] ^ range->address.bytes[whole]) >> (8 - rest) == 0;
}

bool address_in(struct address address, const struct address_range *ranges, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        if (is_in(&address, &ranges[i]))
            return true;
    return false;
}

status address_range_get(struct address_range *ret, struct cursor *cursor, struct fault *fault)
{
    struct address_range range;
    TRY(cursor_u8(&range.address.family, cursor, fault));
    TRY(cursor_copy(range.address.bytes, cursor, ADDRESS_BYTES, fault));
    TRY(cursor_u8(&range.prefix_bits, cursor, fault));
    uint8_t family = range.address.family;
    if ((family != 4 && family != 6) || range.prefix_bits > (family == 4 ? 32 : 128))
        return FAIL(BAD_REQUEST, fault, "an address range of family %u with %u bits", family,
                    range.prefix_bits);
    *ret = range;
    return OK;
}
