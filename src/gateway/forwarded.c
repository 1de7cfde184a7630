/* forwarded.c: who the client is and which host it asked for, when a proxy that the operator named
 * says so. Everybody else's X-Forwarded-* is passed over. Of a list the last is what the nearest
 * proxy saw; what stands before an address that is no trusted proxy's is its client's own word. */
#include "gateway/state.h"

static struct span trimmed(struct span text)
{
    while (text.length && (text.data[0] == ' ' || text.data[0] == '\t'))
        text = (struct span){text.data + 1, text.length - 1};
    while (text.length
           && (text.data[text.length - 1] == ' ' || text.data[text.length - 1] == '\t'))
        text.length--;
    return text;
}

/* Takes the last item off a list. False when it has none left. */
static bool take_last(struct span *ret, struct span *list)
{
    size_t at = list->length;
    if (!list->data)
        return false;
    while (at > 0 && list->data[at - 1] != ',')
        at--;
    *ret = trimmed((struct span){list->data + at, list->length - at});
    *list = at ? (struct span){list->data, at - 1} : (struct span){0};
    return true;
}

/* "192.0.2.1", "192.0.2.1:80", "2001:db8::1", "[2001:db8::1]:80" */
static bool read_client(struct address *ret, struct span text)
{
    size_t colon = span_find(text, ':'), end = span_find(text, ']');
    if (text.length && text.data[0] == '[')
        return end < text.length && address_read(ret, (struct span){text.data + 1, end - 1});
    if (address_read(ret, text))
        return true;
    return address_read(ret, (struct span){text.data, colon}) && ret->family == 4;
}

/* True when the client is found, or nothing before this can be believed. */
static bool take_clients(struct address *ret, const struct gateway_start *start, struct span list)
{
    struct span item;
    struct address address;
    while (take_last(&item, &list)) {
        if (!read_client(&address, item))
            return true;
        *ret = address;
        if (!address_in(address, start->proxies, start->proxy_count))
            return true;
    }
    return false;
}

void forwarded_take(struct exchange *exchange, const struct http_head *head)
{
    const struct gateway_start *start = &exchange->connection->gateway->start;
    struct span host = head->host, list, item;
    bool found = false;
    exchange->address = exchange->connection->address;
    if (address_in(exchange->address, start->proxies, start->proxy_count)) {
        for (uint32_t i = head->header_count; i > 0; i--) {
            const struct http_header *header = &head->headers[i - 1];
            if (!found && span_is(header->name, "x-forwarded-for"))
                found = take_clients(&exchange->address, start, header->value);
            list = header->value;
            if (host.data == head->host.data && span_is(header->name, "x-forwarded-host")
                && take_last(&item, &list))
                host = item;
        }
    }
    host_take(exchange->host, host);
}
