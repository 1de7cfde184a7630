/* standing.c: what each tenant has used of this gateway, so that what is over its quota is refused
 * here and does not wake or load its cell. The same buckets as the cell's, but one gateway sees a
 * part of the requests only: what it alone finds too much, the cell would as well.
 *
 * An entry is forgotten only when that gives nobody anything: no request of it is in flight, and a
 * second has passed since it was used, in which its buckets have filled. When all of the table is
 * in use, the next tenant is not counted here, and its cell decides alone. */
#include "base/clock.h"
#include "gateway/state.h"

#include <assert.h>
#include <stdlib.h>

enum {
    BUCKETS = 8192,
    FULL_US = 1000 * 1000, /* a bucket holds one second's worth */
    SEARCH_MAX = 16,       /* entries looked at for one to forget */
};

status standings_create(struct standings *standings, struct fault *fault)
{
    *standings = (struct standings){.buckets = calloc(BUCKETS, sizeof(struct standing *))};
    crypt_random(standings->key, sizeof standings->key);
    return standings->buckets ? OK : FAIL(INTERNAL, fault, "standings: out of memory");
}

static struct standing **bucket_of(struct standings *standings, const uint8_t id[TENANT_ID_BYTES])
{
    uint64_t number = siphash(standings->key, (struct span){id, TENANT_ID_BYTES});
    return &standings->buckets[number % BUCKETS];
}

static void unlink_age(struct standings *standings, struct standing *standing)
{
    *(standing->newer ? &standing->newer->older : &standings->newest) = standing->older;
    *(standing->older ? &standing->older->newer : &standings->oldest) = standing->newer;
}

static void link_newest(struct standings *standings, struct standing *standing)
{
    standing->newer = NULL;
    standing->older = standings->newest;
    *(standings->newest ? &standings->newest->newer : &standings->oldest) = standing;
    standings->newest = standing;
}

static void drop_users(struct standings *standings, struct standing *standing)
{
    for (uint32_t i = 0; standing->users && i < GATEWAY_USER_TABLES_MAX; i++)
        if (standings->with_users[i] == standing)
            standings->with_users[i] = NULL;
    standing->users = user_rates_free(standing->users);
}

static void drop(struct standings *standings, struct standing *standing)
{
    struct standing **at = bucket_of(standings, standing->id);
    assert(standing->in_flight == 0);
    while (*at != standing)
        at = &(*at)->next_bucket;
    *at = standing->next_bucket;
    unlink_age(standings, standing);
    drop_users(standings, standing);
    standings->count--;
    free(standing);
}

void standings_free(struct standings *standings)
{
    while (standings->newest)
        drop(standings, standings->newest);
    free(standings->buckets);
    *standings = (struct standings){0};
}

static bool has_room(struct standings *standings, int64_t now_us)
{
    struct standing *at = standings->oldest;
    if (standings->count < GATEWAY_STANDINGS_MAX)
        return true;
    for (uint32_t i = 0; at && i < SEARCH_MAX; i++) {
        struct standing *newer = at->newer;
        if (at->in_flight == 0 && now_us - at->used_us >= FULL_US) {
            drop(standings, at);
            return true;
        }
        at = newer;
    }
    return false;
}

struct standing *standing_of(struct gateway *gateway, const uint8_t id[TENANT_ID_BYTES])
{
    struct standings *standings = &gateway->standings;
    struct standing **bucket = bucket_of(standings, id), *standing = *bucket;
    int64_t now_us = clock_monotonic_us();
    while (standing && !span_equal(SPAN_OF(standing->id), (struct span){id, TENANT_ID_BYTES}))
        standing = standing->next_bucket;
    if (standing) {
        unlink_age(standings, standing);
        link_newest(standings, standing);
        return standing;
    }
    standing = has_room(standings, now_us) ? calloc(1, sizeof *standing) : NULL;
    if (!standing)
        return NULL;
    standing->used_us = now_us;
    standing->counted = count_tenant(gateway, id);
    for (size_t i = 0; i < TENANT_ID_BYTES; i++)
        standing->id[i] = id[i];
    standing->next_bucket = *bucket;
    *bucket = standing;
    link_newest(standings, standing);
    standings->count++;
    return standing;
}

/* One user beyond its own limit must not use up the tenant's here, for it does not in the cell:
 * without a table of users nothing is shed by rate. */
static bool has_users(struct standings *standings, struct standing *standing, int64_t now_us)
{
    struct fault ignored;
    if (standing->users)
        return true;
    for (uint32_t i = 0; i < GATEWAY_USER_TABLES_MAX; i++) {
        struct standing *holder = standings->with_users[i];
        if (holder && now_us - holder->used_us < FULL_US)
            continue;
        if (holder)
            drop_users(standings, holder);
        if (user_rates_create(&standing->users, &ignored) != OK)
            return false;
        standings->with_users[i] = standing;
        return true;
    }
    return false;
}

static status check_concurrent(const struct standing *standing, uint64_t max, struct fault *fault)
{
    if (max == 0 || standing->in_flight < max)
        return OK;
    return FAIL(QUOTA_EXCEEDED, fault, "concurrent_requests: at most %llu",
                (unsigned long long)max);
}

status standing_take(struct gateway *gateway, struct standing *standing,
                     const struct quotas *quotas, struct span user, struct fault *fault)
{
    uint32_t retry_after; /* never more than the second that is said anyway */
    int64_t now_us = clock_monotonic_us();
    TRY(check_concurrent(standing, quotas->concurrent_requests, fault));
    if (quotas->user_requests_per_second) {
        if (!has_users(&gateway->standings, standing, now_us))
            return OK;
        standing->used_us = now_us;
        TRY(user_rates_take(standing->users, quotas->user_requests_per_second, user, now_us,
                            &retry_after, fault));
    }
    standing->used_us = now_us;
    rate_set(&standing->rate, quotas->requests_per_second, now_us);
    return rate_take(&standing->rate, now_us, "requests_per_second", &retry_after, fault);
}

status standing_enter(struct exchange *exchange, struct fault *fault)
{
    struct standing *standing = standing_of(exchange->connection->gateway, exchange->tenant_id);
    if (!standing || exchange->standing)
        return OK;
    TRY(check_concurrent(standing, exchange->concurrent_max, fault));
    standing->in_flight++;
    exchange->standing = standing;
    return OK;
}

void standing_leave(struct exchange *exchange)
{
    if (!exchange->standing)
        return;
    assert(exchange->standing->in_flight > 0);
    exchange->standing->in_flight--;
    exchange->standing = NULL;
}
