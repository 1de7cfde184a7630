/* stats.h: counters that processes share for /metrics: one memfd page per process, written by that
 * process alone and read by gateway 0. Numbers only: nothing of a tenant can be put here. */
#pragma once

#include "base/limits.h"

#include <stdatomic.h>

enum {
    STATS_ACTIONS_MAX = 64,
    STATS_REASONS_MAX = 32,
    STATS_BUCKETS = 24, /* bucket i counts what took less than 2^i times 16 us; the last the rest */
};

struct stats {
    _Atomic uint64_t requests[STATS_ACTIONS_MAX][6];  /* by action (0: no route) and status / 100 */
    _Atomic uint64_t denied[STATS_REASONS_MAX];       /* by reason of refusal */
    _Atomic uint64_t request_us[STATS_BUCKETS];       /* histogram of time in the gateway */
    _Atomic uint64_t request_us_sum;
    _Atomic uint64_t connections_open, connections_total;
    _Atomic uint64_t wakes, wake_failures, parks, cells_awake, blanks_ready; /* the supervisor's */
    _Atomic uint64_t wake_us[STATS_BUCKETS];
    _Atomic uint64_t wake_us_sum;
    _Atomic uint64_t restarts;
};

/* Slot 0 is the supervisor's, slot 1 + i that of gateway i. */
struct stats_page {
    struct stats slots[1 + GATEWAYS_MAX];
};

static inline void stats_add(_Atomic uint64_t *counter, uint64_t n)
{
    atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

static inline void stats_time(_Atomic uint64_t *buckets, _Atomic uint64_t *sum, uint64_t us)
{
    unsigned bucket = 0;
    while (bucket < STATS_BUCKETS - 1 && us >= (uint64_t)16 << bucket)
        bucket++;
    stats_add(&buckets[bucket], 1);
    stats_add(sum, us);
}
