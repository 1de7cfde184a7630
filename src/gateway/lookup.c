/* lookup.c: what control said of a tenant, for a second, absent ones included. Half a second old,
 * an answer is asked for anew while it is still used, so a busy tenant never waits. Without control
 * nothing can change, so what was known then holds a little longer. */
#include "base/clock.h"
#include "gateway/state.h"
#include "wire/messages.h"

#include <assert.h>
#include <stdlib.h>

enum {
    BUCKETS = 4096,
    FRESH_US = 500 * 1000,
    VALID_US = 1000 * 1000,
    ORPHANED_US = 10 * 1000 * 1000, /* how long after control was lost */
    FINDS_MAX = 3,                  /* a request asks so often, then it is told to come again */
};

status lookups_create(struct lookups *lookups, struct fault *fault)
{
    *lookups = (struct lookups){.buckets = calloc(BUCKETS, sizeof(struct lookup *))};
    crypt_random(lookups->key, sizeof lookups->key);
    return lookups->buckets ? OK : FAIL(INTERNAL, fault, "lookups: out of memory");
}

void lookups_free(struct lookups *lookups)
{
    for (size_t i = 0; lookups->buckets && i < BUCKETS; i++) {
        while (lookups->buckets[i]) {
            struct lookup *lookup = lookups->buckets[i];
            lookups->buckets[i] = lookup->next_bucket;
            free(lookup);
        }
    }
    free(lookups->buckets);
    *lookups = (struct lookups){0};
}

static struct lookup **bucket_of(struct lookups *lookups, const char *text)
{
    return &lookups->buckets[siphash(lookups->key, span_of_text(text)) % BUCKETS];
}

static void unlink_age(struct lookups *lookups, struct lookup *lookup)
{
    *(lookup->newer ? &lookup->newer->older : &lookups->newest) = lookup->older;
    *(lookup->older ? &lookup->older->newer : &lookups->oldest) = lookup->newer;
}

static void link_newest(struct lookups *lookups, struct lookup *lookup)
{
    lookup->newer = NULL;
    lookup->older = lookups->newest;
    *(lookups->newest ? &lookups->newest->newer : &lookups->oldest) = lookup;
    lookups->newest = lookup;
}

static void drop(struct lookups *lookups, struct lookup *lookup)
{
    struct lookup **at = bucket_of(lookups, lookup->text);
    assert(lookup->call == 0 && !lookup->waiting.first);
    while (*at != lookup)
        at = &(*at)->next_bucket;
    *at = lookup->next_bucket;
    unlink_age(lookups, lookup);
    lookups->count--;
    free(lookup);
}

static struct lookup *get(struct lookups *lookups, const char *text)
{
    struct lookup **bucket = bucket_of(lookups, text), *lookup = *bucket;
    while (lookup && !span_is(span_of_text(text), lookup->text))
        lookup = lookup->next_bucket;
    if (lookup)
        return lookup;
    if (lookups->count == GATEWAY_LOOKUPS_MAX && lookups->oldest)
        drop(lookups, lookups->oldest);
    lookup = lookups->count < GATEWAY_LOOKUPS_MAX ? calloc(1, sizeof *lookup) : NULL;
    if (!lookup)
        return NULL;
    bool fits = span_to_text(lookup->text, sizeof lookup->text, span_of_text(text));
    assert(fits); /* a claim has the same bound */
    bucket = bucket_of(lookups, text);
    lookup->next_bucket = *bucket;
    *bucket = lookup;
    link_newest(lookups, lookup);
    lookups->count++;
    return lookup;
}

static status ask(struct gateway *gateway, struct lookup *lookup, struct fault *fault)
{
    uint8_t storage[128];
    struct buffer body = buffer_over(storage, sizeof storage);
    buffer_put_text_field(&body, lookup->text);
    buffer_put_u64(&body, 0); /* none of its charters is kept */
    TRY(control_ask(&lookup->call, gateway, CALL_FIND, MESSAGE_TENANT_FIND, buffer_span(&body),
                    lookup, fault));
    lookup->asked_us = clock_monotonic_us();
    unlink_age(&gateway->lookups, lookup); /* an answer will name it: not to be dropped */
    return OK;
}

/* Age counts from the question: what control knew was not older than that. */
static bool is_valid(struct gateway *gateway, const struct lookup *lookup, int64_t now_us)
{
    int64_t lost_us = gateway->control.lost_us;
    if (lookup->state == LOOKUP_NOTHING)
        return false;
    if (now_us - lookup->answered_us < VALID_US)
        return true;
    return lost_us && lookup->state == LOOKUP_FOUND && lost_us - lookup->answered_us < VALID_US
        && now_us - lost_us < ORPHANED_US && tenant_has_cell(gateway, lookup->record.id);
}

status lookup_find(const struct lookup **ret, struct exchange *exchange, const char *text,
                   struct fault *fault)
{
    struct gateway *gateway = exchange->connection->gateway;
    struct fault ignored;
    struct lookup *lookup = get(&gateway->lookups, text);
    int64_t now_us = clock_monotonic_us();
    if (!lookup)
        return FAIL(UNAVAILABLE, fault, "too many requests at once");
    if (lookup->call == 0) {
        unlink_age(&gateway->lookups, lookup);
        link_newest(&gateway->lookups, lookup);
    }
    if (is_valid(gateway, lookup, now_us)) {
        bool ages = lookup->state == LOOKUP_FOUND && now_us - lookup->answered_us > FRESH_US;
        if (ages && lookup->call == 0 && ask(gateway, lookup, &ignored) != OK)
            ages = false; /* it holds a while yet */
        *ret = lookup;
        return OK;
    }
    if (++exchange->finds > FINDS_MAX
        || (lookup->call == 0 && ask(gateway, lookup, &ignored) != OK))
        return FAIL(UNAVAILABLE, fault, "the tenant could not be looked up: try again");
    exchange_list_put(&lookup->waiting, exchange);
    return FAIL(AGAIN, fault, "control is asked");
}

void lookup_answered(struct gateway *gateway, struct lookup *lookup, status code,
                     const struct tenant_record *record)
{
    struct exchange_list waiting = {0};
    lookup->call = 0;
    link_newest(&gateway->lookups, lookup);
    if (code == OK || code == NOT_FOUND) {
        lookup->state = code == OK ? LOOKUP_FOUND : LOOKUP_ABSENT;
        lookup->answered_us = lookup->asked_us;
        lookup->record = code == OK ? *record : (struct tenant_record){.state = RECORD_ERASING};
    }
    while (lookup->waiting.first) { /* those that must ask again wait for the next answer */
        struct exchange *exchange = lookup->waiting.first;
        exchange_list_remove(exchange);
        exchange_list_put(&waiting, exchange);
    }
    bool answered = code == OK || code == NOT_FOUND;
    while (waiting.first) {
        struct exchange *exchange = waiting.first;
        exchange_list_remove(exchange);
        if (answered)
            exchange_decide(exchange); /* may drop the lookup: it is not touched any more */
        else
            exchange_refuse(exchange, UNAVAILABLE,
                            "the tenant could not be looked up: try again", NULL);
    }
}

void lookups_forget(struct gateway *gateway, const uint8_t id[TENANT_ID_BYTES])
{
    for (size_t i = 0; i < BUCKETS; i++) {
        for (struct lookup *at = gateway->lookups.buckets[i]; at; at = at->next_bucket) {
            bool same = span_equal((struct span){id, TENANT_ID_BYTES}, SPAN_OF(at->record.id));
            if (same || at->state == LOOKUP_ABSENT) /* it may be there now, under that name */
                at->state = LOOKUP_NOTHING;
        }
    }
}
