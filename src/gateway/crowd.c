/* crowd.c: how many connections each address has, so that one client cannot take them all. As large
 * as the number of connections; an address without any is forgotten at once. */
#include "gateway/state.h"

#include <assert.h>
#include <stdlib.h>

enum { BUCKETS = 4096 };

struct crowd_place {
    struct crowd_place *next;
    struct address address;
    uint32_t connections;
};

status crowd_create(struct crowd *crowd, struct fault *fault)
{
    *crowd = (struct crowd){.buckets = calloc(BUCKETS, sizeof(struct crowd_place *))};
    crypt_random(crowd->key, sizeof crowd->key);
    return crowd->buckets ? OK : FAIL(INTERNAL, fault, "addresses: out of memory");
}

void crowd_free(struct crowd *crowd)
{
    for (size_t i = 0; crowd->buckets && i < BUCKETS; i++)
        assert(!crowd->buckets[i]); /* all connections are closed by now */
    free(crowd->buckets);
    *crowd = (struct crowd){0};
}

static struct crowd_place **bucket_of(struct crowd *crowd, struct address address)
{
    return &crowd->buckets[siphash(crowd->key, SPAN_OF(address.bytes)) % BUCKETS];
}

static bool is_same(struct address left, struct address right)
{
    return left.family == right.family && span_equal(SPAN_OF(left.bytes), SPAN_OF(right.bytes));
}

bool crowd_enter(struct crowd_place **ret, struct gateway *gateway, struct address address)
{
    const struct gateway_start *start = &gateway->start;
    *ret = NULL;
    if (start->connections_per_address == 0
        || address_in(address, start->proxies, start->proxy_count))
        return true;
    address = address_for_cap(address);
    struct crowd_place **bucket = bucket_of(&gateway->crowd, address), *place = *bucket;
    while (place && !is_same(place->address, address))
        place = place->next;
    if (place && place->connections >= start->connections_per_address)
        return false;
    if (!place) {
        place = calloc(1, sizeof *place);
        if (!place)
            return false;
        place->address = address;
        place->next = *bucket;
        *bucket = place;
    }
    place->connections++;
    *ret = place;
    return true;
}

void crowd_leave(struct gateway *gateway, struct crowd_place *place)
{
    if (!place)
        return;
    assert(place->connections > 0);
    if (--place->connections > 0)
        return;
    struct crowd_place **at = bucket_of(&gateway->crowd, place->address);
    while (*at != place)
        at = &(*at)->next;
    *at = place->next;
    free(place);
}
