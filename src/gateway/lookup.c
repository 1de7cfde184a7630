/* lookup.c: what control said of a tenant, for a second, absent ones included. Half a second old,
 * an answer is asked for anew while it is still used, so a busy tenant never waits. Without control
 * nothing can change, so what was known then holds a little longer.
 *
 * Which tenant a foreign token is of has to be asked before anybody has verified it. Such questions
 * are rationed, so that a flood of invented tokens neither loads control nor displaces what is
 * known; a tenant that is known and in use is not touched by it. */
#include "base/clock.h"
#include "base/hex.h"
#include "gateway/state.h"
#include "wire/messages.h"

#include <assert.h>
#include <stdlib.h>

enum {
    BUCKETS = 4096,
    FRESH_US = 500 * 1000,
    VALID_US = 1000 * 1000,
    ORPHANED_US = 10 * 1000 * 1000, /* how long after control was lost */
    FINDS_MAX = 8,                  /* a request asks so often, then it is told to come again */
};

static const char not_found_out[] = "the tenant could not be looked up: try again";

status lookups_create(struct lookups *lookups, struct fault *fault)
{
    *lookups = (struct lookups){.buckets = calloc(BUCKETS, sizeof(struct lookup *))};
    crypt_random(lookups->key, sizeof lookups->key);
    return lookups->buckets ? OK : FAIL(INTERNAL, fault, "lookups: out of memory");
}

void lookups_free(struct gateway *gateway)
{
    struct lookups *lookups = &gateway->lookups;
    for (size_t i = 0; lookups->buckets && i < BUCKETS; i++) {
        while (lookups->buckets[i]) {
            struct lookup *lookup = lookups->buckets[i];
            lookups->buckets[i] = lookup->next_bucket;
            vouched_close(gateway, &lookup->vouched);
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

static void drop(struct gateway *gateway, struct lookup *lookup)
{
    struct lookups *lookups = &gateway->lookups;
    struct lookup **at = bucket_of(lookups, lookup->text);
    assert(lookup->call == 0 && !lookup->waiting.first);
    while (*at != lookup)
        at = &(*at)->next_bucket;
    *at = lookup->next_bucket;
    unlink_age(lookups, lookup);
    lookups->count--;
    vouched_close(gateway, &lookup->vouched);
    free(lookup);
}

static struct lookup *find(struct lookups *lookups, const char *text)
{
    struct lookup *lookup = *bucket_of(lookups, text);
    while (lookup && !span_is(span_of_text(text), lookup->text))
        lookup = lookup->next_bucket;
    return lookup;
}

static struct lookup *make(struct gateway *gateway, const char *text)
{
    struct lookups *lookups = &gateway->lookups;
    if (lookups->count == GATEWAY_LOOKUPS_MAX && lookups->oldest)
        drop(gateway, lookups->oldest);
    struct lookup *lookup = lookups->count < GATEWAY_LOOKUPS_MAX ? calloc(1, sizeof *lookup) : NULL;
    if (!lookup)
        return NULL;
    bool fits = span_to_text(lookup->text, sizeof lookup->text, span_of_text(text));
    assert(fits); /* claims and hosts have the same bounds */
    lookup->waiting.total = &gateway->wait_lookup;
    struct lookup **bucket = bucket_of(lookups, text);
    lookup->next_bucket = *bucket;
    *bucket = lookup;
    link_newest(lookups, lookup);
    lookups->count++;
    return lookup;
}

static status ask(struct gateway *gateway, struct lookup *lookup, struct fault *fault)
{
    uint8_t storage[LOOKUP_TEXT_SIZE + 16];
    const struct charter *charter = lookup->vouched.charter;
    struct buffer body = buffer_over(storage, sizeof storage);
    buffer_put_text_field(&body, lookup->text);
    buffer_put_u64(&body, charter ? charter->sequence : 0);
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
    if (!lookup || lookup->state == LOOKUP_NOTHING)
        return false;
    if (now_us - lookup->answered_us < VALID_US)
        return true;
    return lost_us && lookup->state == LOOKUP_FOUND && lost_us - lookup->answered_us < VALID_US
        && now_us - lost_us < ORPHANED_US && tenant_has_cell(gateway, lookup->record.id);
}

bool lookup_has_issuers(struct exchange *exchange, const char *text)
{
    struct gateway *gateway = exchange->connection->gateway;
    const struct lookup *lookup = find(&gateway->lookups, text);
    return is_valid(gateway, lookup, clock_monotonic_us()) && lookup->state == LOOKUP_FOUND
        && lookup->vouched.verifier;
}

void lookup_ration(struct exchange *exchange)
{
    struct lookups *lookups = &exchange->connection->gateway->lookups;
    struct address address = address_for_cap(exchange->address);
    uint64_t slot = siphash(lookups->key, SPAN_OF(address.bytes)) % GATEWAY_UNPROVEN_SLOTS;
    int64_t now_us = clock_monotonic_us();
    struct fault ignored;
    uint32_t retry_after;
    if (exchange->ration != RATION_NONE)
        return;
    rate_set(&lookups->unproven_by[slot], GATEWAY_UNPROVEN_EACH_MAX, now_us);
    rate_set(&lookups->unproven, GATEWAY_UNPROVEN_MAX, now_us);
    bool granted =
        rate_take(&lookups->unproven_by[slot], now_us, "", &retry_after, &ignored) == OK
        && rate_take(&lookups->unproven, now_us, "", &retry_after, &ignored) == OK;
    exchange->ration = granted ? RATION_GRANTED : RATION_REFUSED;
}

/* While it is still used. Its failure is nothing: the lookup holds a while yet. */
static void refresh(struct gateway *gateway, struct lookup *lookup, int64_t now_us)
{
    struct fault ignored;
    if (lookup->state != LOOKUP_FOUND || now_us - lookup->answered_us <= FRESH_US || lookup->call)
        return;
    if (ask(gateway, lookup, &ignored) != OK)
        return;
}

status lookup_find(struct lookup **ret, struct exchange *exchange, const char *text, bool proven,
                   struct fault *fault)
{
    struct gateway *gateway = exchange->connection->gateway;
    struct fault ignored;
    struct lookup *lookup = find(&gateway->lookups, text);
    int64_t now_us = clock_monotonic_us();
    bool valid = is_valid(gateway, lookup, now_us);
    bool may_ask = proven || exchange->ration == RATION_GRANTED;
    if (!valid && !may_ask && !(lookup && lookup->call)) {
        denial_count(exchange, DENIAL_FLOOD);
        return FAIL(UNAVAILABLE, fault, not_found_out);
    }
    if (!lookup)
        lookup = make(gateway, text);
    if (!lookup)
        return FAIL(UNAVAILABLE, fault, "too many requests at once");
    if (lookup->call == 0) {
        unlink_age(&gateway->lookups, lookup);
        link_newest(&gateway->lookups, lookup);
    }
    if (valid) {
        if (may_ask)
            refresh(gateway, lookup, now_us);
        *ret = lookup;
        return OK;
    }
    if (++exchange->finds > FINDS_MAX
        || (lookup->call == 0 && ask(gateway, lookup, &ignored) != OK))
        return FAIL(UNAVAILABLE, fault, not_found_out);
    exchange->unproven = !proven;
    exchange_list_put(&lookup->waiting, exchange);
    return FAIL(AGAIN, fault, "control is asked");
}

/* Is the answer about what was asked? What control signs nothing of is checked against the charter;
 * a host is control's own to say. */
static status check_answer(const struct lookup *lookup, const struct tenant_record *record,
                           const struct vouched *vouched, struct fault *fault)
{
    char id[TENANT_ID_TEXT];
    struct span asked = span_of_text(lookup->text);
    uint8_t ignored_id[TENANT_ID_BYTES];
    struct fault ignored;
    hex_encode(id, SPAN_OF(record->id));
    if (span_starts_with(asked, SPAN(LOOKUP_HOST)))
        return OK;
    if (hex_decode(ignored_id, sizeof ignored_id, asked, "id", &ignored) == OK)
        return span_is(asked, id) ? OK : FAIL(UNAUTHENTICATED, fault, "another tenant's id");
    if (vouched->charter && !span_is(asked, vouched->charter->posture.name))
        return FAIL(UNAUTHENTICATED, fault, "another tenant's name");
    return OK;
}

/* What this process has, for an answer without a charter: control was told its sequence. */
static status keep_vouched(struct lookup *lookup, struct gateway *gateway,
                           const struct tenant_record *record, struct fault *fault)
{
    const struct standing *standing = standing_of(gateway, record->id);
    const struct charter *charter = lookup->vouched.charter;
    if (charter && !span_equal(SPAN_OF(charter->id), SPAN_OF(record->id))) {
        vouched_close(gateway, &lookup->vouched); /* the name has become another tenant's */
        return FAIL(AGAIN, fault, "control has to be asked again");
    }
    if (standing && (charter ? charter->sequence : 0) < standing->sequence)
        return FAIL(UNAUTHENTICATED, fault, "a tenant's is withheld");
    return check_answer(lookup, record, &lookup->vouched, fault);
}

static void make_room(struct gateway *gateway)
{
    while (gateway->vouched_bytes > GATEWAY_VOUCHED_MAX && gateway->lookups.oldest)
        drop(gateway, gateway->lookups.oldest);
}

/* UNAUTHENTICATED: not to be believed; AGAIN: to be asked again. */
static status take_vouched(struct lookup *lookup, struct gateway *gateway,
                           const struct tenant_record *record, struct fault *fault)
{
    struct vouched vouched;
    if (!record->has_charter)
        return keep_vouched(lookup, gateway, record, fault);
    make_room(gateway); /* this one is not on the list: a call was out for it */
    if (gateway->vouched_bytes > GATEWAY_VOUCHED_MAX)
        return FAIL(UNAVAILABLE, fault, "too many charters at once");
    TRY(vouched_open(&vouched, gateway, record->id, &record->charter, fault));
    status answers = check_answer(lookup, record, &vouched, fault);
    if (answers != OK) {
        vouched_close(gateway, &vouched);
        return answers;
    }
    vouched_close(gateway, &lookup->vouched);
    lookup->vouched = vouched;
    return OK;
}

static status take_answer(struct lookup *lookup, struct gateway *gateway, status code,
                          const struct tenant_record *record)
{
    struct fault fault;
    if (code == OK)
        code = take_vouched(lookup, gateway, record, &fault);
    if (code == UNAUTHENTICATED || code == BAD_FIELD) {
        charter_distrust(gateway, fault.detail);
        return UNAUTHENTICATED;
    }
    if (code == AGAIN)
        lookup->state = LOOKUP_NOTHING;
    if (code != OK && code != NOT_FOUND)
        return code;
    lookup->state = code == OK ? LOOKUP_FOUND : LOOKUP_ABSENT;
    lookup->answered_us = lookup->asked_us;
    lookup->record = code == OK ? *record : (struct tenant_record){.state = RECORD_ERASING};
    lookup->record.charter = (struct signed_charter){0}; /* it was borrowed */
    if (code == NOT_FOUND)
        vouched_close(gateway, &lookup->vouched);
    return OK;
}

/* Whose token is not verified yet learns nothing, not even that control cannot be believed. */
static void refuse_waiting(struct exchange *exchange, status why)
{
    bool distrusted = why == UNAUTHENTICATED;
    if (distrusted)
        denial_count(exchange, DENIAL_BAD_CHARTER);
    if (distrusted && exchange->unproven)
        exchange_refuse(exchange, UNAUTHENTICATED, TOKEN_REFUSED, NULL);
    else
        exchange_refuse(exchange, UNAVAILABLE, not_found_out, NULL);
}

void lookup_answered(struct gateway *gateway, struct lookup *lookup, status code,
                     const struct tenant_record *record)
{
    struct exchange_list waiting = {.total = &gateway->wait_lookup};
    status taken = take_answer(lookup, gateway, code, record);
    lookup->call = 0;
    link_newest(&gateway->lookups, lookup);
    while (lookup->waiting.first) { /* those that must ask again wait for the next answer */
        struct exchange *exchange = lookup->waiting.first;
        exchange_list_remove(exchange);
        exchange_list_put(&waiting, exchange);
    }
    while (waiting.first) {
        struct exchange *exchange = waiting.first;
        exchange_list_remove(exchange);
        if (taken == OK || taken == AGAIN)
            exchange_decide(exchange); /* may drop the lookup: it is not touched any more */
        else
            refuse_waiting(exchange, taken);
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
