/* counts.c: what is counted of each answer, and what waits: for /metrics. */
#include "base/clock.h"
#include "gateway/state.h"

/* The slot of a status is its place here; the first is for every other. Append only: a gateway that
 * was restarted counts on in the same page. */
static const int statuses[] = {
    0,   100, 200, 201, 202, 204, 206, 301, 302, 303, 304, 307, 308, 400, 401, 403, 404, 405,
    406, 408, 409, 410, 412, 413, 415, 416, 421, 422, 423, 429, 431, 500, 501, 502, 503, 504, 507,
};
enum { STATUSES = sizeof statuses / sizeof *statuses };
static_assert((int)STATUSES <= (int)STATS_STATUSES_MAX, "a counter for each status");

static uint32_t slot_of(int http_status)
{
    for (uint32_t i = 1; i < STATUSES; i++)
        if (statuses[i] == http_status)
            return i;
    return 0;
}

int stats_status(uint32_t slot)
{
    return slot < STATUSES ? statuses[slot] : -1;
}

void count_answer(struct gateway *gateway, const struct asked *asked, int http_status)
{
    struct stats *stats = gateway->stats;
    uint32_t action = asked->action < STATS_ACTIONS_MAX ? asked->action : 0;
    uint32_t class = (uint32_t)http_status / 100 % 6;
    stats_add(&stats->requests[action][slot_of(http_status)], 1);
    if (asked->tenant > STATS_TENANTS_MAX)
        stats_add(&stats->tenants_other[class], 1);
    else if (asked->tenant)
        stats_add(&stats->tenants[asked->tenant - 1].requests[class], 1);
    if (asked->began_us)
        stats_time(stats->request_us, &stats->request_us_sum,
                   (uint64_t)(clock_monotonic_us() - asked->began_us));
}

/* A predecessor's entries are found again: what it counted goes on. */
uint32_t count_tenant(struct gateway *gateway, const uint8_t id[TENANT_ID_BYTES])
{
    struct stats *stats = gateway->stats;
    struct span wanted = {id, TENANT_ID_BYTES};
    uint32_t count = atomic_load_explicit(&stats->tenant_count, memory_order_relaxed);
    if (!gateway->start.tenant_labels)
        return 0;
    for (uint32_t i = 0; i < count && i < STATS_TENANTS_MAX; i++)
        if (span_equal(SPAN_OF(stats->tenants[i].id), wanted))
            return i + 1;
    if (count >= STATS_TENANTS_MAX)
        return STATS_TENANTS_MAX + 1;
    for (size_t i = 0; i < TENANT_ID_BYTES; i++)
        stats->tenants[count].id[i] = id[i];
    atomic_store_explicit(&stats->tenant_count, count + 1, memory_order_release);
    return count + 1;
}

void count_queues(struct gateway *gateway)
{
    _Atomic uint64_t *queued = gateway->stats->queued;
    stats_set(&queued[STATS_QUEUE_LOOKUP], gateway->wait_lookup);
    stats_set(&queued[STATS_QUEUE_WAKE], gateway->wait_wake);
    stats_set(&queued[STATS_QUEUE_CELLS], gateway->with_cells);
    stats_set(&queued[STATS_QUEUE_CONTROL], gateway->control.in_flight);
}

/* What a predecessor left behind is not there any more. */
void counts_start(struct gateway *gateway)
{
    struct stats *stats = gateway->stats;
    stats_set(&stats->connections_open, 0);
    for (uint32_t i = 0; i < STATS_PROTOCOLS; i++)
        for (uint32_t tls = 0; tls < 2; tls++)
            stats_set(&stats->open_by[i][tls], 0);
    count_queues(gateway);
}
