/* stats.h: counters that processes share for /metrics: one memfd page per process, written by that
 * process alone and read by gateway 0. Numbers only: nothing of a tenant but its random id can be
 * put here. */
#pragma once

#include "base/limits.h"

#include <stdatomic.h>
#include <stdbool.h>

enum {
    STATS_ACTIONS_MAX = 64,
    STATS_STATUSES_MAX = 40,
    STATS_REASONS_MAX = 64,
    STATS_TENANTS_MAX = 1024, /* of one gateway; the rest is counted together */
    STATS_BUCKETS = 24, /* bucket i counts what took less than 2^i times 16 us; the last the rest */
};

enum stats_protocol { STATS_HTTP1, STATS_HTTP2, STATS_PROTOCOLS };

/* Why a TLS handshake did not come to its end. */
enum stats_handshake {
    STATS_HANDSHAKE_REFUSED, /* version, cipher, protocol: nothing in common, or no TLS at all */
    STATS_HANDSHAKE_CLOSED,  /* by the client */
    STATS_HANDSHAKE_TIMED_OUT,
    STATS_HANDSHAKES
};

/* What waits now. */
enum stats_queue {
    STATS_QUEUE_LOOKUP,  /* requests: until control has said who the tenant is */
    STATS_QUEUE_WAKE,    /* requests: until their cell is awake */
    STATS_QUEUE_CELLS,   /* requests: with a cell */
    STATS_QUEUE_CONTROL, /* questions to control */
    STATS_QUEUES
};

struct stats_tenant {
    uint8_t id[TENANT_ID_BYTES];
    _Atomic uint64_t requests[6]; /* by status / 100 */
};

struct stats {
    _Atomic uint64_t requests[STATS_ACTIONS_MAX][STATS_STATUSES_MAX]; /* by action (0: no route) and
                                                                       * slot of the status */
    _Atomic uint64_t denied[STATS_REASONS_MAX];       /* by reason of refusal */
    _Atomic uint64_t request_us[STATS_BUCKETS];       /* histogram of time in the gateway */
    _Atomic uint64_t request_us_sum;
    _Atomic uint64_t connections_open, connections_total;
    _Atomic uint64_t open_by[STATS_PROTOCOLS][2];     /* by protocol; 1: over TLS */
    _Atomic uint64_t handshakes_failed[STATS_HANDSHAKES];
    _Atomic uint64_t queued[STATS_QUEUES];
    _Atomic uint64_t wakes, wake_failures, parks, cells_awake, blanks_ready; /* the supervisor's */
    _Atomic uint64_t sandboxes_alive, sandboxes_started, sandboxes_failed, monitors_ready;
    _Atomic uint64_t wake_us[STATS_BUCKETS];
    _Atomic uint64_t wake_us_sum;
    _Atomic uint64_t restarts;
    _Atomic uint32_t tenant_count;                    /* entries before it are complete */
    struct stats_tenant tenants[STATS_TENANTS_MAX];
    _Atomic uint64_t tenants_other[6];
};

/* Slot 0 is the supervisor's, slot 1 + i that of gateway i. */
struct stats_page {
    struct stats slots[1 + GATEWAYS_MAX];
};

static inline void stats_add(_Atomic uint64_t *counter, uint64_t n)
{
    atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

static inline void stats_set(_Atomic uint64_t *gauge, uint64_t n)
{
    atomic_store_explicit(gauge, n, memory_order_relaxed);
}

static inline void stats_time(_Atomic uint64_t *buckets, _Atomic uint64_t *sum, uint64_t us)
{
    unsigned bucket = 0;
    while (bucket < STATS_BUCKETS - 1 && us >= (uint64_t)16 << bucket)
        bucket++;
    stats_add(&buckets[bucket], 1);
    stats_add(sum, us);
}
