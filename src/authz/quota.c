#include "authz/quota.h"

#include "base/secret.h"
#include "base/siphash.h"

#include <stdlib.h>

static const int64_t SECOND_US = 1000000;
static const uint64_t REQUEST = 1000000;                    /* in credit */
static const uint64_t PER_SECOND_MAX = 1000000000000;       /* credit never overflows */
static const uint32_t NONE = UINT32_MAX;

static uint64_t bounded(uint64_t per_second)
{
    return per_second < PER_SECOND_MAX ? per_second : PER_SECOND_MAX;
}

/* A second fills it, whatever the rate: per_second is at least one. */
static uint64_t capacity_of(uint64_t per_second)
{
    return per_second * REQUEST;
}

static void refill(struct rate *rate, int64_t now_us)
{
    int64_t passed = 0;
    if (__builtin_sub_overflow(now_us, rate->at_us, &passed))
        passed = now_us > rate->at_us ? INT64_MAX : INT64_MIN;
    if (passed < 0 && passed >= -SECOND_US)
        return;
    rate->at_us = now_us;
    if (passed <= 0)
        return;
    uint64_t given = (uint64_t)(passed < SECOND_US ? passed : SECOND_US) * rate->per_second;
    uint64_t capacity = capacity_of(rate->per_second), room = capacity - rate->credit;
    rate->credit = given < room ? rate->credit + given : capacity;
}

void rate_set(struct rate *rate, uint64_t per_second, int64_t now_us)
{
    uint64_t limit = bounded(per_second);
    if (rate->per_second == limit)
        return;
    if (rate->per_second == 0) {
        *rate = (struct rate){.per_second = limit, .credit = capacity_of(limit), .at_us = now_us};
        return;
    }
    refill(rate, now_us);
    rate->per_second = limit;
    if (rate->credit > capacity_of(limit))
        rate->credit = capacity_of(limit);
}

status rate_take(struct rate *rate, int64_t now_us, const char *quota, uint32_t *retry_after,
                 struct fault *fault)
{
    if (rate->per_second == 0)
        return OK;
    refill(rate, now_us);
    if (rate->credit >= REQUEST) {
        rate->credit -= REQUEST;
        return OK;
    }
    *retry_after = 1; /* at one request a second, the least there is, one second gives the next */
    return FAIL(QUOTA_EXCEEDED, fault, "%s: at most %llu", quota,
                (unsigned long long)rate->per_second);
}

struct user_rate {
    uint64_t user;         /* keyed hash */
    uint32_t next;         /* of the same bucket */
    uint32_t newer, older; /* by last use */
    struct rate rate;
};

struct user_table {
    uint32_t buckets[USER_RATES_MAX]; /* first entry of each */
    struct user_rate entries[USER_RATES_MAX];
    uint32_t used; /* entries behind it were never used */
    uint32_t newest, oldest;
};

struct user_rates {
    uint8_t key[SIPHASH_KEY_BYTES];
    struct user_table *table; /* NULL before the first user */
};

status user_rates_create(struct user_rates **ret, struct fault *fault)
{
    struct user_rates *rates = calloc(1, sizeof *rates);
    if (!rates)
        return FAIL(INTERNAL, fault, "user rates: out of memory");
    crypt_random(rates->key, sizeof rates->key);
    *ret = rates;
    return OK;
}

struct user_rates *user_rates_free(struct user_rates *rates)
{
    if (rates) {
        secret_wipe(rates->key, sizeof rates->key);
        free(rates->table);
    }
    free(rates);
    return NULL;
}

uint32_t user_rates_count(const struct user_rates *rates)
{
    return rates->table ? rates->table->used : 0;
}

static status table_create(struct user_table **ret, struct fault *fault)
{
    struct user_table *table = calloc(1, sizeof *table);
    if (!table)
        return FAIL(INTERNAL, fault, "user rates: out of memory");
    for (uint32_t i = 0; i < USER_RATES_MAX; i++)
        table->buckets[i] = NONE;
    table->newest = table->oldest = NONE;
    *ret = table;
    return OK;
}

static uint32_t *bucket_of(struct user_table *table, uint64_t user)
{
    static_assert((USER_RATES_MAX & (USER_RATES_MAX - 1)) == 0, "buckets: a power of two");
    return &table->buckets[user & (USER_RATES_MAX - 1)];
}

static uint32_t find(struct user_table *table, uint64_t user)
{
    uint32_t at = *bucket_of(table, user);
    while (at != NONE && table->entries[at].user != user)
        at = table->entries[at].next;
    return at;
}

static void unlink_age(struct user_table *table, uint32_t at)
{
    struct user_rate *entry = &table->entries[at];
    *(entry->newer == NONE ? &table->newest : &table->entries[entry->newer].older) = entry->older;
    *(entry->older == NONE ? &table->oldest : &table->entries[entry->older].newer) = entry->newer;
}

static void link_newest(struct user_table *table, uint32_t at)
{
    struct user_rate *entry = &table->entries[at];
    entry->newer = NONE;
    entry->older = table->newest;
    *(table->newest == NONE ? &table->oldest : &table->entries[table->newest].newer) = at;
    table->newest = at;
}

static void forget(struct user_table *table, uint32_t at)
{
    uint32_t *link = bucket_of(table, table->entries[at].user);
    while (*link != at)
        link = &table->entries[*link].next;
    *link = table->entries[at].next;
    unlink_age(table, at);
}

/* The entry for a user that has none, or NONE: then every bucket is still owed something. */
static uint32_t take_entry(struct user_table *table, uint64_t per_second, int64_t now_us)
{
    if (table->used < USER_RATES_MAX)
        return table->used++;
    uint32_t at = table->oldest;
    struct rate *rate = &table->entries[at].rate;
    rate_set(rate, per_second, now_us);
    refill(rate, now_us);
    if (rate->credit < capacity_of(rate->per_second))
        return NONE;
    forget(table, at);
    return at;
}

static uint32_t admit(struct user_table *table, uint64_t user, uint64_t per_second, int64_t now_us)
{
    uint32_t at = take_entry(table, per_second, now_us);
    if (at == NONE)
        return NONE;
    uint32_t *bucket = bucket_of(table, user);
    table->entries[at] = (struct user_rate){.user = user, .next = *bucket};
    *bucket = at;
    link_newest(table, at);
    return at;
}

status user_rates_take(struct user_rates *rates, uint64_t per_second, struct span user,
                       int64_t now_us, uint32_t *retry_after, struct fault *fault)
{
    if (per_second == 0)
        return OK;
    if (!rates->table)
        TRY(table_create(&rates->table, fault));
    uint64_t hashed = siphash(rates->key, user);
    uint32_t at = find(rates->table, hashed);
    if (at == NONE)
        at = admit(rates->table, hashed, per_second, now_us);
    if (at == NONE) {
        *retry_after = 1;
        return FAIL(QUOTA_EXCEEDED, fault, "user_requests_per_second: too many users at once");
    }
    struct user_rate *entry = &rates->table->entries[at];
    unlink_age(rates->table, at);
    link_newest(rates->table, at);
    rate_set(&entry->rate, per_second, now_us);
    return rate_take(&entry->rate, now_us, "user_requests_per_second", retry_after, fault);
}
