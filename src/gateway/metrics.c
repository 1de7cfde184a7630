/* metrics.c: the counters of all processes in Prometheus' text format, version 0.0.4. */
#include "base/hex.h"
#include "gateway/state.h"

#include <stdlib.h>

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

static void put_status(struct buffer *out, uint32_t slot)
{
    int http_status = stats_status(slot);
    if (http_status)
        buffer_printf(out, "status=\"%d\"", http_status);
    else
        buffer_put_text(out, "status=\"other\"");
}

static void put_requests(struct buffer *out, const struct gateway *gateway)
{
    const char *name = "bulkhead_requests_total";
    put_head(out, name, "counter", "Requests answered, by action and HTTP status.");
    for (uint32_t action = 0; action < STATS_ACTIONS_MAX; action++) {
        const struct action *row = gateway_action(action);
        if (action && !row)
            continue;
        for (uint32_t slot = 0; stats_status(slot) >= 0; slot++) {
            uint64_t count = sum(gateway, offsetof(struct stats, requests[action][slot]));
            if (count == 0)
                continue;
            buffer_printf(out, "%s{action=\"%s\",", name, row ? row->name : "none");
            put_status(out, slot);
            buffer_printf(out, "} %llu\n", (unsigned long long)count);
        }
    }
}

/* ---- by tenant: ids, never a name ---- */

static const char tenant_requests[] = "bulkhead_tenant_requests_total";

static void put_classes(struct buffer *out, const char *tenant, const uint64_t counts[6])
{
    for (uint32_t class = 1; class < 6; class++)
        if (counts[class])
            buffer_printf(out, "%s{tenant=\"%s\",status=\"%uxx\"} %llu\n", tenant_requests,
                          tenant, class, (unsigned long long)counts[class]);
}

static int compare_tenants(const void *left, const void *right)
{
    const struct stats_tenant *const *one = left, *const *other = right;
    return span_compare(SPAN_OF((*one)->id), SPAN_OF((*other)->id));
}

/* Of all gateways, those of one tenant side by side. NULL: none, or no memory. */
static const struct stats_tenant **list_tenants(size_t *ret_count, const struct gateway *gateway)
{
    size_t count = 0;
    const struct stats_tenant **list =
        calloc((size_t)gateway->gateways * STATS_TENANTS_MAX, sizeof(struct stats_tenant *));
    for (uint32_t i = 0; list && i < gateway->gateways; i++) {
        const struct stats *stats = &gateway->page->slots[1 + i];
        uint32_t used = atomic_load_explicit(&stats->tenant_count, memory_order_acquire);
        for (uint32_t at = 0; at < used && at < STATS_TENANTS_MAX; at++)
            list[count++] = &stats->tenants[at];
    }
    if (list)
        qsort(list, count, sizeof *list, compare_tenants);
    *ret_count = count;
    return list;
}

/* As many tenants as one gateway tells apart; those beyond with the others. */
static void put_tenants(struct buffer *out, const struct gateway *gateway)
{
    uint64_t others[6] = {0};
    size_t count;
    uint32_t written = 0;
    const struct stats_tenant **list = list_tenants(&count, gateway);
    put_head(out, tenant_requests, "counter",
             "Requests of a tenant answered, by its id and class of HTTP status.");
    for (size_t at = 0; list && at < count;) {
        uint64_t counts[6] = {0};
        char id[TENANT_ID_TEXT];
        struct span same = SPAN_OF(list[at]->id);
        hex_encode(id, same);
        for (; at < count && span_equal(same, SPAN_OF(list[at]->id)); at++)
            for (uint32_t class = 0; class < 6; class++)
                counts[class] += value(&list[at]->requests[class]);
        if (written++ < STATS_TENANTS_MAX)
            put_classes(out, id, counts);
        for (uint32_t class = 0; written > STATS_TENANTS_MAX && class < 6; class++)
            others[class] += counts[class];
    }
    for (uint32_t class = 0; class < 6; class++)
        others[class] += sum(gateway, offsetof(struct stats, tenants_other[class]));
    put_classes(out, "other", others);
    free(list);
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
    put_value(out, "bulkhead_sandboxes_alive", "gauge", "Sandboxes that boot or run now.",
              value(&stats->sandboxes_alive));
    put_value(out, "bulkhead_sandboxes_started_total", "counter", "Sandboxes whose agent dialled.",
              value(&stats->sandboxes_started));
    put_value(out, "bulkhead_sandboxes_failed_total", "counter", "Sandboxes that never ran.",
              value(&stats->sandboxes_failed));
    put_value(out, "bulkhead_monitors_ready", "gauge", "Blank monitors waiting for a sandbox.",
              value(&stats->monitors_ready));
    put_value(out, "bulkhead_restarts_total", "counter", "Services restarted after they ended.",
              value(&stats->restarts));
}

static void put_connections(struct buffer *out, const struct gateway *gateway)
{
    static const char *const protocols[STATS_PROTOCOLS] = {"http1", "http2"};
    static const char *const reasons[STATS_HANDSHAKES] = {
        [STATS_HANDSHAKE_REFUSED] = "refused",
        [STATS_HANDSHAKE_CLOSED] = "closed",
        [STATS_HANDSHAKE_TIMED_OUT] = "timed_out",
    };
    const char *name = "bulkhead_connections_by_protocol";
    put_value(out, "bulkhead_connections_open", "gauge", "Client connections open now.",
              sum(gateway, offsetof(struct stats, connections_open)));
    put_value(out, "bulkhead_connections_total", "counter", "Client connections accepted.",
              sum(gateway, offsetof(struct stats, connections_total)));
    put_head(out, name, "gauge", "Client connections open now, by protocol, with and without TLS.");
    for (uint32_t i = 0; i < STATS_PROTOCOLS; i++)
        for (uint32_t tls = 0; tls < 2; tls++)
            buffer_printf(out, "%s{protocol=\"%s\",tls=\"%s\"} %llu\n", name, protocols[i],
                          tls ? "yes" : "no",
                          (unsigned long long)sum(gateway,
                                                  offsetof(struct stats, open_by[i][tls])));
    name = "bulkhead_tls_handshakes_failed_total";
    put_head(out, name, "counter", "TLS handshakes that did not come to their end, by reason.");
    for (uint32_t i = 0; i < STATS_HANDSHAKES; i++)
        buffer_printf(out, "%s{reason=\"%s\"} %llu\n", name, reasons[i],
                      (unsigned long long)sum(gateway,
                                              offsetof(struct stats, handshakes_failed[i])));
}

static void put_queues(struct buffer *out, const struct gateway *gateway)
{
    static const char *const queues[STATS_QUEUES] = {
        [STATS_QUEUE_LOOKUP] = "lookup",
        [STATS_QUEUE_WAKE] = "wake",
        [STATS_QUEUE_CELLS] = "cells",
        [STATS_QUEUE_CONTROL] = "control",
    };
    const char *name = "bulkhead_queue_depth";
    put_head(out, name, "gauge",
             "Requests that wait for a lookup, for a wake, for a cell; questions to control.");
    for (uint32_t i = 0; i < STATS_QUEUES; i++)
        buffer_printf(out, "%s{queue=\"%s\"} %llu\n", name, queues[i],
                      (unsigned long long)sum(gateway, offsetof(struct stats, queued[i])));
}

void metrics_put(struct buffer *out, struct gateway *gateway)
{
    put_requests(out, gateway);
    if (gateway->start.tenant_labels)
        put_tenants(out, gateway);
    put_denied(out, gateway);
    put_latency(out, gateway);
    put_connections(out, gateway);
    put_queues(out, gateway);
    put_supervisor(out, gateway);
}
