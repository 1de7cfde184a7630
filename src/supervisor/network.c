#include "supervisor/network.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

static bool prefix_of(uint8_t *ret, const char *text, uint32_t max)
{
    uint32_t bits = 0;
    size_t length = strlen(text);
    if (length == 0 || length > 3 || text[0] == '0')
        return false;
    for (size_t i = 0; i < length; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        bits = 10 * bits + (uint32_t)(text[i] - '0');
    }
    *ret = (uint8_t)bits;
    return bits <= max;
}

static bool has_bits_behind(const struct network_range *range)
{
    for (uint32_t bit = range->prefix_bits; bit < 128; bit++)
        if (range->bytes[bit / 8] >> (7 - bit % 8) & 1)
            return true;
    return false;
}

static bool is_mapped_ipv4(const struct network_range *range)
{
    struct in6_addr address;
    memcpy(&address, range->bytes, sizeof address);
    return range->family == 6 && IN6_IS_ADDR_V4MAPPED(&address);
}

status network_range(struct network_range *ret, const char *text, const char *name,
                     struct fault *fault)
{
    char host[INET6_ADDRSTRLEN];
    struct network_range range = {0};
    struct span whole = span_of_text(text);
    size_t slash = span_find(whole, '/');
    bool valid = span_to_text(host, sizeof host, (struct span){whole.data, slash});
    if (valid && inet_pton(AF_INET, host, range.bytes) == 1)
        range.family = 4;
    else if (valid && inet_pton(AF_INET6, host, range.bytes) == 1)
        range.family = 6;
    range.prefix_bits = range.family == 4 ? 32 : 128;
    if (range.family && slash < whole.length)
        valid = prefix_of(&range.prefix_bits, text + slash + 1, range.prefix_bits);
    if (!valid || !range.family || is_mapped_ipv4(&range))
        return FAIL(BAD_FIELD, fault, "%s: \"%.80s\" is no address and no range such as "
                    "10.0.0.0/8 or 2001:db8::/32", name, text);
    if (has_bits_behind(&range))
        return FAIL(BAD_FIELD, fault, "%s: \"%.80s\" has bits set behind its prefix", name, text);
    *ret = range;
    return OK;
}

bool network_is_label(struct span text)
{
    if (text.length == 0 || text.length > TENANT_NAME_MAX)
        return false;
    for (size_t i = 0; i < text.length; i++) {
        uint8_t byte = text.data[i];
        bool inside = i > 0 && i + 1 < text.length;
        if (!((byte >= 'a' && byte <= 'z') || (byte >= '0' && byte <= '9')
              || (byte == '-' && inside)))
            return false;
    }
    return true;
}

bool network_is_domain(struct span text)
{
    for (;;) {
        size_t dot = span_find(text, '.');
        if (!network_is_label((struct span){text.data, dot}))
            return false;
        if (dot == text.length)
            return true;
        text = (struct span){text.data + dot + 1, text.length - dot - 1};
    }
}
