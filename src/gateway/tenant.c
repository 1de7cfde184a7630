/* tenant.c: to which cell a request goes: to the tenant's relay, or, while there is none, into a
 * queue while control has the cell woken.
 *
 * What a cell was sent is never sent again: it may have acted on it. Only a request that no cell
 * has seen waits on. */
#include "base/hex.h"
#include "base/log.h"
#include "gateway/state.h"
#include "wire/messages.h"

#include <assert.h>
#include <stdlib.h>
#include <unistd.h>

enum { TRIES_MAX = 3 }; /* a request waits for so many wakes */

static const char not_woken[] = "the tenant's cell could not be woken: try again";

static struct tenant **bucket_of(struct gateway *gateway, const uint8_t id[TENANT_ID_BYTES])
{
    uint64_t number = siphash(gateway->tenants_key, (struct span){id, TENANT_ID_BYTES});
    return &gateway->tenants[number % TENANT_BUCKETS];
}

static struct tenant *find(struct gateway *gateway, const uint8_t id[TENANT_ID_BYTES])
{
    struct tenant *tenant = *bucket_of(gateway, id);
    while (tenant && !span_equal(SPAN_OF(tenant->id), (struct span){id, TENANT_ID_BYTES}))
        tenant = tenant->next_bucket;
    return tenant;
}

/* Pinned until release. */
static struct tenant *get(struct gateway *gateway, const uint8_t id[TENANT_ID_BYTES])
{
    struct tenant *tenant = find(gateway, id);
    if (!tenant) {
        tenant = calloc(1, sizeof *tenant);
        if (!tenant)
            return NULL;
        struct tenant **bucket = bucket_of(gateway, id);
        *tenant = (struct tenant){.gateway = gateway, .next_bucket = *bucket,
                                  .waiting.total = &gateway->wait_wake};
        for (size_t i = 0; i < TENANT_ID_BYTES; i++)
            tenant->id[i] = id[i];
        *bucket = tenant;
    }
    tenant->pins++;
    return tenant;
}

static void free_if_unused(struct tenant *tenant)
{
    if (tenant->pins || tenant->relay || tenant->waiting.first || tenant->wake_call
        || tenant->check_call)
        return;
    struct tenant **at = bucket_of(tenant->gateway, tenant->id);
    while (*at != tenant)
        at = &(*at)->next_bucket;
    *at = tenant->next_bucket;
    free(tenant);
}

static void release(struct tenant *tenant)
{
    assert(tenant->pins > 0);
    tenant->pins--;
    free_if_unused(tenant);
}

static void refuse_waiting(struct tenant *tenant, const char *why)
{
    tenant->pins++;
    while (tenant->waiting.first)
        exchange_refuse(tenant->waiting.first, UNAVAILABLE, why, NULL);
    release(tenant);
}

static void wake(struct tenant *tenant)
{
    struct fault fault;
    if (tenant->wake_call || !tenant->waiting.first)
        return;
    if (control_ask(&tenant->wake_call, tenant->gateway, CALL_WAKE, MESSAGE_TENANT_WAKE,
                    SPAN_OF(tenant->id), tenant, &fault) != OK)
        refuse_waiting(tenant, not_woken);
}

/* Onto the queue, if there is room; the caller then wakes. */
static void enqueue(struct tenant *tenant, struct exchange *exchange)
{
    if (exchange->tries >= TRIES_MAX || tenant->waiting.count >= RELAY_STREAMS_MAX) {
        exchange_refuse(exchange, UNAVAILABLE, not_woken, NULL);
        return;
    }
    exchange->phase = EXCHANGE_WAKE;
    exchange_list_put(&tenant->waiting, exchange);
}

static void send_to_relay(struct tenant *tenant, struct exchange *exchange)
{
    struct fault fault;
    status sent = relay_request(tenant->relay, exchange, &fault);
    if (sent == OK)
        return;
    if (sent != CLOSED) {
        exchange_refuse(exchange, UNAVAILABLE, "too many requests at once", NULL);
        return;
    }
    relay_end(tenant->relay, NULL);
    enqueue(tenant, exchange);
}

static void dispatch(struct exchange *exchange)
{
    struct tenant *tenant = get(exchange->connection->gateway, exchange->tenant_id);
    if (!tenant) {
        exchange_refuse(exchange, UNAVAILABLE, "out of memory", NULL);
        return;
    }
    if (tenant->relay)
        send_to_relay(tenant, exchange);
    else
        enqueue(tenant, exchange);
    if (!tenant->relay)
        wake(tenant);
    release(tenant);
}

void tenant_dispatch(struct exchange *exchange)
{
    struct fault fault;
    if (exchange->question.length) {
        route_dispatch(exchange);
    } else if (standing_enter(exchange, &fault) != OK) {
        denial_count(exchange, DENIAL_QUOTA);
        exchange_refuse(exchange, QUOTA_EXCEEDED, fault.detail, NULL);
    } else {
        dispatch(exchange);
    }
}

static void send_waiting(struct tenant *tenant)
{
    while (tenant->relay && tenant->waiting.first) {
        struct exchange *exchange = tenant->waiting.first;
        struct client client = exchange->client;
        exchange_list_remove(exchange);
        send_to_relay(tenant, exchange);
        client.carrier->ready(&client);
    }
}

void tenant_woken(struct tenant *tenant, status code, bool withdrawn)
{
    tenant->pins++;
    tenant->wake_call = 0;
    /* It was handed over before control was told, but on another channel: look there first. */
    if (code == OK && !tenant->relay)
        gateway_read_supervisor(tenant->gateway);
    if (code != OK && !tenant->relay)
        refuse_waiting(tenant, withdrawn ? DETAIL_KEY_WITHDRAWN : not_woken);
    for (uint32_t i = tenant->waiting.count; i > 0 && !tenant->relay; i--) {
        struct exchange *exchange = tenant->waiting.first; /* it came, and has gone already */
        exchange_list_remove(exchange);
        exchange->tries++;
        enqueue(tenant, exchange);
    }
    if (!tenant->relay)
        wake(tenant);
    release(tenant);
}

void tenant_cell(struct gateway *gateway, const uint8_t id[TENANT_ID_BYTES], int fd)
{
    struct fault fault;
    struct relay *relay;
    struct tenant *tenant = get(gateway, id);
    if (!tenant) {
        close(fd);
        return;
    }
    if (tenant->relay)
        relay_detach(tenant->relay);
    if (relay_open(&relay, tenant, fd, &fault) != OK) {
        log_event(LOG_ERROR, "relay.failed", "%s", fault.detail);
        release(tenant);
        return;
    }
    tenant->relay = relay;
    send_waiting(tenant);
    if (!tenant->relay)
        wake(tenant);
    release(tenant);
}

void tenant_lost_relay(struct tenant *tenant)
{
    tenant->relay = NULL;
    free_if_unused(tenant);
}

bool tenant_has_cell(struct gateway *gateway, const uint8_t id[TENANT_ID_BYTES])
{
    struct tenant *tenant = find(gateway, id);
    return tenant && tenant->relay;
}

void tenant_changed(struct gateway *gateway, const uint8_t id[TENANT_ID_BYTES])
{
    char text[TENANT_ID_TEXT];
    uint8_t storage[64];
    struct fault ignored;
    lookups_forget(gateway, id);
    struct tenant *tenant = find(gateway, id);
    if (!tenant || !tenant->relay || tenant->check_call)
        return;
    struct buffer body = buffer_over(storage, sizeof storage);
    const struct standing *standing = standing_of(gateway, id);
    hex_encode(text, SPAN_OF(tenant->id));
    buffer_put_text_field(&body, text);
    buffer_put_u64(&body, standing ? standing->sequence : 0); /* only its state is asked for */
    if (control_ask(&tenant->check_call, gateway, CALL_CHECK, MESSAGE_TENANT_FIND,
                    buffer_span(&body), tenant, &ignored) != OK)
        relay_end(tenant->relay, "the tenant changed and control cannot be asked how");
}

void tenant_checked(struct tenant *tenant, status code, const struct tenant_record *record)
{
    bool gone = code == NOT_FOUND || (code == OK && record->state == RECORD_ERASING);
    tenant->pins++;
    tenant->check_call = 0;
    if (gone && tenant->relay)
        relay_end(tenant->relay, "the tenant is gone");
    release(tenant);
}

void tenants_free(struct gateway *gateway)
{
    for (size_t i = 0; i < TENANT_BUCKETS; i++)
        assert(!gateway->tenants[i]); /* relays, waiting requests and calls are gone by now */
}
