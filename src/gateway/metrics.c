/* metrics.c: the counters of all processes in Prometheus' text format, version 0.0.4. */
#include "gateway/state.h"
#include "silo/actions.h"

enum { BUCKET_US = 16 };

static uint64_t value(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

static void put_head(struct buffer *out, const char *name, const char *type, const char *help)
{
    buffer_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void put_value(struct buffer *out, const char *name, const char *type, const char *help,
                      uint64_t number)
{
    put_head(out, name, type, help);
    buffer_printf(out, "%s %llu\n", name, (unsigned long long)number);
}

/* Of all gateways: the counter at this offset of struct stats. */
static uint64_t sum(const struct gateway *gateway, size_t offset)
{
    uint64_t total = 0;
    for (uint32_t i = 0; i < gateway->gateways; i++) {
        const uint8_t *slot = (const uint8_t *)&gateway->page->slots[1 + i];
        total += value((const _Atomic uint64_t *)(const void *)(slot + offset));
    }
    return total;
}

static void put_requests(struct buffer *out, const struct gateway *gateway)
{
    const char *name = "bulkhead_requests_total";
    put_head(out, name, "counter", "Requests answered, by action and class of HTTP status.");
    for (uint32_t action = 0; action < STATS_ACTIONS_MAX; action++) {
        const struct action *row = action_numbered(&action_table, action);
        if (action && !row)
            continue;
        for (uint32_t class = 1; class < 6; class++) {
            uint64_t count = sum(gateway, offsetof(struct stats, requests[action][class]));
            if (count)
                buffer_printf(out, "%s{action=\"%s\",status=\"%uxx\"} %llu\n", name,
                              row ? row->name : "none", class, (unsigned long long)count);
        }
    }
}

static void put_denied(struct buffer *out, const struct gateway *gateway)
{
    const char *name = "bulkhead_denied_total";
    put_head(out, name, "counter", "Requests refused before any cell saw them, by reason.");
    for (uint32_t reason = 0; reason < DENIAL_COUNT; reason++)
        buffer_printf(out, "%s{reason=\"%s\"} %llu\n", name, denial_name(reason),
                      (unsigned long long)sum(gateway, offsetof(struct stats, denied[reason])));
}

static void put_histogram(struct buffer *out, const char *name, const char *help,
                          const uint64_t buckets[STATS_BUCKETS], uint64_t total_us)
{
    uint64_t below = 0;
    put_head(out, name, "histogram", help);
    for (uint32_t i = 0; i < STATS_BUCKETS - 1; i++) {
        below += buckets[i];
        buffer_printf(out, "%s_bucket{le=\"%.6f\"} %llu\n", name,
                      (double)((uint64_t)BUCKET_US << i) / 1e6, (unsigned long long)below);
    }
    below += buckets[STATS_BUCKETS - 1];
    buffer_printf(out, "%s_bucket{le=\"+Inf\"} %llu\n", name, (unsigned long long)below);
    buffer_printf(out, "%s_sum %.6f\n", name, (double)total_us / 1e6);
    buffer_printf(out, "%s_count %llu\n", name, (unsigned long long)below);
}

static void put_latency(struct buffer *out, const struct gateway *gateway)
{
    uint64_t buckets[STATS_BUCKETS];
    for (uint32_t i = 0; i < STATS_BUCKETS; i++)
        buckets[i] = sum(gateway, offsetof(struct stats, request_us[i]));
    put_histogram(out, "bulkhead_request_seconds",
                  "Time from the last byte of a request's head to the head of its answer.", buckets,
                  sum(gateway, offsetof(struct stats, request_us_sum)));
}

static void put_supervisor(struct buffer *out, const struct gateway *gateway)
{
    const struct stats *stats = &gateway->page->slots[0];
    uint64_t buckets[STATS_BUCKETS];
    put_value(out, "bulkhead_wakes_total", "counter", "Cells woken.", value(&stats->wakes));
    put_value(out, "bulkhead_wake_failures_total", "counter", "Cells that could not be woken.",
              value(&stats->wake_failures));
    for (uint32_t i = 0; i < STATS_BUCKETS; i++)
        buckets[i] = value(&stats->wake_us[i]);
    put_histogram(out, "bulkhead_wake_seconds", "Time from the order to wake to a serving cell.",
                  buckets, value(&stats->wake_us_sum));
    put_value(out, "bulkhead_parks_total", "counter", "Cells parked.", value(&stats->parks));
    put_value(out, "bulkhead_cells_awake", "gauge", "Cells awake now.",
              value(&stats->cells_awake));
    put_value(out, "bulkhead_blanks_ready", "gauge", "Blank cells waiting to become a tenant's.",
              value(&stats->blanks_ready));
    put_value(out, "bulkhead_restarts_total", "counter", "Services restarted after they ended.",
              value(&stats->restarts));
}

void metrics_put(struct buffer *out, struct gateway *gateway)
{
    put_requests(out, gateway);
    put_denied(out, gateway);
    put_latency(out, gateway);
    put_value(out, "bulkhead_connections_open", "gauge", "Client connections open now.",
              sum(gateway, offsetof(struct stats, connections_open)));
    put_value(out, "bulkhead_connections_total", "counter", "Client connections accepted.",
              sum(gateway, offsetof(struct stats, connections_total)));
    put_supervisor(out, gateway);
}
