/* serve.c: a gateway from START to its end: what the supervisor sends, what a turn ends with, the
 * orderly stop. */
#include "base/clock.h"
#include "base/log.h"
#include "base/secret.h"
#include "gateway/state.h"
#include "wire/messages.h"

#include <stdarg.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/cleanup.h"

enum {
    STOP_US = 10 * 1000 * 1000, /* for what is in flight */
    SCRATCH_MAX = KIB(8),       /* the head of a response: its parts are bounded */
    ARENA_MAX = KIB(128),       /* a path and a query, decoded */
    MESSAGES_PER_READ = 64,
};

static status get_flag(bool *ret, struct cursor *cursor, struct fault *fault)
{
    uint8_t flag;
    TRY(cursor_u8(&flag, cursor, fault));
    if (flag > 1)
        return FAIL(BAD_REQUEST, fault, "START: a flag of %u", flag);
    *ret = flag;
    return OK;
}

static status get_options(struct gateway_start *start, struct cursor *cursor, struct fault *fault)
{
    uint16_t proxies;
    TRY(get_flag(&start->tls, cursor, fault));
    TRY(cursor_text(start->domain, sizeof start->domain, cursor, "domain", fault));
    TRY(cursor_text(start->region, sizeof start->region, cursor, "region", fault));
    TRY(get_flag(&start->tenant_labels, cursor, fault));
    TRY(cursor_u32(&start->connections_per_address, cursor, fault));
    TRY(cursor_u16(&proxies, cursor, fault));
    if (proxies > TRUSTED_PROXIES_MAX)
        return FAIL(BAD_REQUEST, fault, "START: %u trusted proxies", proxies);
    for (uint16_t i = 0; i < proxies; i++)
        TRY(address_range_get(&start->proxies[i], cursor, fault));
    start->proxy_count = proxies;
    return OK;
}

status gateway_start_get(struct gateway_start *ret, struct ipc_message *message,
                         struct fault *fault)
{
    struct cursor cursor = cursor_over(message->body);
    struct gateway_start start = {.ops = -1};
    if (message->type != MESSAGE_START)
        return FAIL(BAD_REQUEST, fault, "message %#x where START was due", message->type);
    TRY(cursor_u32(&start.index, &cursor, fault));
    TRY(cursor_u32(&start.gateways, &cursor, fault));
    TRY(cursor_copy(start.platform_key, &cursor, sizeof start.platform_key, fault));
    TRY(cursor_copy(start.issuer_key, &cursor, sizeof start.issuer_key, fault));
    TRY(get_options(&start, &cursor, fault));
    TRY(cursor_end(&cursor, fault));
    if (start.gateways > GATEWAYS_MAX || start.index >= start.gateways)
        return FAIL(BAD_REQUEST, fault, "START: gateway %u of %u", start.index, start.gateways);
    TRY(ipc_need_fds(message, start.index == 0 ? 4 : 3, fault));
    start.listener = take_fd(&message->fds[0]);
    start.control = take_fd(&message->fds[1]);
    start.stats = take_fd(&message->fds[2]);
    if (start.index == 0)
        start.ops = take_fd(&message->fds[3]);
    *ret = start;
    return OK;
}

void gateway_start_close(struct gateway_start *start)
{
    cleanup_close(&start->listener);
    cleanup_close(&start->control);
    cleanup_close(&start->stats);
    cleanup_close(&start->ops);
}

status gateway_warm_up(const struct gateway_start *start, struct fault *fault)
{
    uint8_t storage[64];
    struct buffer line = buffer_over(storage, sizeof storage);
    http_put_date(&line, clock_wall_us()); /* glibc looks for a time zone at the first use */
    return start->tls ? tls_warm_up(fault) : OK;
}

status gateway_on_tls(struct gateway *gateway, struct ipc_message *message, struct fault *fault)
{
    if (!gateway->start.tls)
        return FAIL(BAD_REQUEST, fault, "GATEWAY_TLS to a gateway without TLS");
    return gateway_tls_take(&gateway->tls, gateway->supervisor, message, fault);
}

void gateway_end(struct gateway *gateway, status why, const char *format, ...)
{
    va_list arguments;
    if (gateway->ended)
        return;
    gateway->ended = true;
    gateway->why = why;
    va_start(arguments, format);
    vsnprintf(gateway->fault.detail, sizeof gateway->fault.detail, format, arguments);
    va_end(arguments);
    loop_stop(gateway->loop);
}

status gateway_outcome(const struct gateway *gateway, struct fault *fault)
{
    if (!gateway->ended)
        return FAIL(AGAIN, fault, "the gateway has not ended");
    if (gateway->why != OK)
        *fault = gateway->fault;
    return gateway->why;
}

void gateway_timer(struct gateway *gateway, struct loop_timer *timer, int64_t after_us,
                   loop_on_time *on_time, void *context)
{
    struct fault fault;
    if (loop_timer_start(gateway->loop, timer, after_us, on_time, context, &fault) != OK)
        gateway_end(gateway, INTERNAL, "%s", fault.detail);
}

static void on_stop_time(void *context)
{
    struct gateway *gateway = context;
    log_event(LOG_WARN, "stop.forced", "%u connections were still busy", gateway->busy.count);
    gateway_end(gateway, OK, "stopped");
}

static status on_stop(struct gateway *gateway, struct ipc_message *message, struct fault *fault)
{
    if (message->body.length)
        return FAIL(BAD_REQUEST, fault, "STOP with a body");
    if (gateway->stopping)
        return OK;
    gateway->stopping = true;
    listener_close(&gateway->listener);
    for (struct connection *at = gateway->idle.first, *next; at; at = next) {
        next = at->next;
        if (at->http2)
            connection_ready(at); /* GOAWAY is said */
        else
            connection_close(at);
    }
    for (struct connection *at = gateway->busy.first; at; at = at->next)
        connection_ready(at); /* closes when its answer has left */
    gateway_timer(gateway, &gateway->stop_timer, STOP_US, on_stop_time, gateway);
    return OK;
}

static status on_channel(struct gateway *gateway, struct ipc_message *message,
                         struct fault *fault)
{
    struct cursor cursor = cursor_over(message->body);
    uint8_t kind;
    uint32_t index;
    TRY(cursor_u8(&kind, &cursor, fault));
    TRY(cursor_u32(&index, &cursor, fault));
    TRY(cursor_end(&cursor, fault));
    TRY(ipc_need_fds(message, 1, fault));
    if (kind != CHANNEL_CONTROL || index != 0)
        return FAIL(BAD_REQUEST, fault, "a channel of kind %u to %u", kind, index);
    control_open(gateway, take_fd(&message->fds[0]));
    return OK;
}

static status on_cell(struct gateway *gateway, struct ipc_message *message, struct fault *fault)
{
    struct cursor cursor = cursor_over(message->body);
    uint8_t id[TENANT_ID_BYTES];
    TRY(cursor_copy(id, &cursor, sizeof id, fault));
    TRY(cursor_end(&cursor, fault));
    TRY(ipc_need_fds(message, 1, fault));
    tenant_cell(gateway, id, take_fd(&message->fds[0]));
    return OK;
}

static status dispatch(struct gateway *gateway, struct ipc_message *message, struct fault *fault)
{
    switch (message->type) {
    case MESSAGE_STOP:
        return on_stop(gateway, message, fault);
    case MESSAGE_CHANNEL:
        return on_channel(gateway, message, fault);
    case MESSAGE_GATEWAY_TLS:
        return gateway_on_tls(gateway, message, fault);
    case MESSAGE_GATEWAY_CELL:
        return on_cell(gateway, message, fault);
    default:
        return FAIL(BAD_REQUEST, fault, "message %#x", message->type);
    }
}

/* False when nothing waits any more. */
static bool read_one(struct gateway *gateway)
{
    struct ipc_message message;
    struct fault fault;
    status came = ipc_receive(&message, gateway->supervisor, gateway->storage, &fault);
    if (came == AGAIN)
        return false;
    if (came == OK) {
        came = dispatch(gateway, &message, &fault);
        ipc_message_close(&message);
    }
    if (came != OK)
        gateway_end(gateway, came, "supervisor: %s", fault.detail);
    return came == OK;
}

void gateway_read_supervisor(struct gateway *gateway)
{
    if (gateway->reading_supervisor) /* CHANNEL fails the calls of the older one: not twice */
        return;
    gateway->reading_supervisor = true;
    for (int i = 0; i < MESSAGES_PER_READ && !gateway->ended && read_one(gateway); i++)
        ;
    gateway->reading_supervisor = false;
}

static void on_supervisor(void *context, uint32_t events)
{
    (void)events; /* its end shows when reading */
    gateway_read_supervisor(context);
}

static void on_turn_end(void *context)
{
    struct gateway *gateway = context;
    connections_advance(gateway);
    connections_sweep(gateway);
    relays_sweep(gateway);
    count_queues(gateway);
    if (gateway->stopping && gateway->busy.count + gateway->idle.count == 0)
        gateway_end(gateway, OK, "stopped");
}

static status make_verifier(struct gateway *gateway, const struct gateway_start *start,
                            struct fault *fault)
{
    struct token_issuer builtin = token_issuer_builtin(start->issuer_key);
    TRY(token_verifier_create(&gateway->verifier, fault));
    TRY(token_verifier_put(gateway->verifier, &builtin, fault));
    TRY(verifier_create(&gateway->platform_key, start->platform_key, fault));
    return token_cache_create(&gateway->tokens, TOKEN_CACHE_ENTRIES, fault);
}

static status make(struct gateway *gateway, struct gateway_start *start, struct fault *fault)
{
    crypt_random(gateway->tenants_key, sizeof gateway->tenants_key);
    crypt_random(gateway->denials.key, sizeof gateway->denials.key);
    TRY(make_verifier(gateway, start, fault));
    TRY(lookups_create(&gateway->lookups, fault));
    TRY(standings_create(&gateway->standings, fault));
    TRY(crowd_create(&gateway->crowd, fault));
    gateway->storage = malloc(IPC_PACKET_MAX);
    gateway->control.calls = calloc(GATEWAY_CALLS_MAX, sizeof *gateway->control.calls);
    if (!gateway->storage || !gateway->control.calls)
        return FAIL(INTERNAL, fault, "gateway: out of memory");
    TRY(loop_watch(&gateway->supervisor_source, gateway->loop, gateway->supervisor, EPOLLIN,
                   on_supervisor, gateway, fault));
    TRY(listener_open(&gateway->listener, gateway, start->listener, false, fault));
    start->listener = -1;
    if (start->ops >= 0) {
        TRY(listener_open(&gateway->ops, gateway, start->ops, true, fault));
        start->ops = -1;
    }
    control_open(gateway, take_fd(&start->control));
    if (gateway->ended)
        return gateway_outcome(gateway, fault);
    loop_on_turn_end(gateway->loop, on_turn_end, gateway);
    return OK;
}

status gateway_create(struct gateway **ret, struct loop *loop, int supervisor,
                      struct gateway_start *start, struct stats_page *stats, struct fault *fault)
{
    struct gateway *gateway = calloc(1, sizeof *gateway);
    if (!gateway)
        return FAIL(INTERNAL, fault, "gateway: out of memory");
    *gateway = (struct gateway){
        .loop = loop, .supervisor = supervisor, .index = start->index,
        .gateways = start->gateways, .page = stats, .stats = &stats->slots[1 + start->index],
        .control.fd = -1, .listener.fd = -1, .ops.fd = -1, .arena = arena_of(ARENA_MAX),
        .scratch = buffer_of(SCRATCH_MAX), .date_second = -1};
    gateway->start = *start;
    gateway->start.listener = gateway->start.control = -1;
    gateway->start.stats = gateway->start.ops = -1;
    counts_start(gateway);
    status made = make(gateway, start, fault);
    if (made != OK) {
        gateway_free(gateway);
        return made;
    }
    *ret = gateway;
    return OK;
}

static void close_all(struct gateway *gateway)
{
    while (gateway->idle.first)
        connection_close(gateway->idle.first);
    while (gateway->busy.first)
        connection_close(gateway->busy.first);
    while (gateway->ops_connections.first)
        connection_close(gateway->ops_connections.first);
    control_close(gateway);
    while (gateway->relays)
        relay_end(gateway->relays, NULL);
    connections_advance(gateway); /* those that are ready are dead by now */
    connections_sweep(gateway);
    relays_sweep(gateway);
}

struct gateway *gateway_free(struct gateway *gateway)
{
    if (!gateway)
        return NULL;
    listener_close(&gateway->listener);
    listener_close(&gateway->ops);
    close_all(gateway);
    denials_stop(gateway);
    loop_timer_stop(gateway->loop, &gateway->stop_timer);
    loop_on_turn_end(gateway->loop, NULL, NULL);
    gateway->supervisor_source = loop_unwatch(gateway->loop, gateway->supervisor_source);
    tenants_free(gateway);
    lookups_free(gateway);
    standings_free(&gateway->standings);
    crowd_free(&gateway->crowd);
    charter_free(gateway->platform.charter);
    verifier_free(gateway->platform_key);
    token_cache_free(gateway->tokens);
    tls_server_free(gateway->tls);
    token_verifier_free(gateway->verifier);
    arena_free(&gateway->arena);
    buffer_free(&gateway->scratch);
    free(gateway->control.calls);
    free(gateway->storage);
    secret_wipe(gateway, sizeof *gateway);
    free(gateway);
    return NULL;
}
