/* connection.c: one client's connection: its bytes, its clock, its back-pressure.
 *
 * What it may do next follows from its state alone (settle), after every event: which list it is
 * on, which timer runs, what it waits for from the kernel. An idle one holds no buffers. */
#define _GNU_SOURCE
#include "base/secret.h"
#include "gateway/state.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    HEAD_READ = 4 * 1024,
    BODY_READ = 32 * 1024,
    SESSION_READ = 16 * 1024,
    OUT_MAX = CELL_RESPONSE_MAX + KIB(64),
    OUT_COMPACT = KIB(64),
    ANSWER_TIMEOUT_MS = 60000,
    WRITE_TIMEOUT_MS = 30000, /* without any progress */
    LINGER_TIMEOUT_MS = 2000,
    LINGER_BYTES_MAX = MIB(8),
};

const int64_t timeouts_ms[TIMER_HANDSHAKE + 1] = {
    [TIMER_IDLE] = HTTP_IDLE_TIMEOUT_MS,   [TIMER_HEAD] = HTTP_HEADER_TIMEOUT_MS,
    [TIMER_BODY] = HTTP_BODY_TIMEOUT_MS,   [TIMER_ANSWER] = ANSWER_TIMEOUT_MS,
    [TIMER_WRITE] = WRITE_TIMEOUT_MS,      [TIMER_LINGER] = LINGER_TIMEOUT_MS,
    [TIMER_HANDSHAKE] = HTTP_HEADER_TIMEOUT_MS,
};

void connection_list_put(struct connection_list *list, struct connection *connection)
{
    connection->list = list;
    connection->next = NULL;
    connection->previous = list->last;
    *(list->last ? &list->last->next : &list->first) = connection;
    list->last = connection;
    list->count++;
}

void connection_list_remove(struct connection *connection)
{
    struct connection_list *list = connection->list;
    if (!list)
        return;
    *(connection->previous ? &connection->previous->next : &list->first) = connection->next;
    *(connection->next ? &connection->next->previous : &list->last) = connection->previous;
    connection->list = NULL;
    list->count--;
}

bool connection_output_waits(const struct connection *connection)
{
    return connection->out_sent < connection->out.length;
}

static void count_open(const struct connection *connection, uint64_t change)
{
    struct stats *stats = connection->gateway->stats;
    if (connection->ops)
        return;
    stats_add(&stats->connections_open, change);
    stats_add(&stats->open_by[connection->http2 ? STATS_HTTP2 : STATS_HTTP1]
                             [connection->gateway->start.tls], change);
}

void connection_close(struct connection *connection)
{
    struct gateway *gateway = connection->gateway;
    if (connection->dead)
        return;
    connection->dead = true;
    if (connection->exchange)
        exchange_end(connection->exchange);
    count_open(connection, UINT64_MAX); /* minus one */
    connection->http2 = http2_close(connection->http2);
    loop_timer_stop(gateway->loop, &connection->timer);
    connection->source = loop_unwatch(gateway->loop, connection->source);
    transport_close(connection);
    if (connection->unframed)
        transport_reset(connection);
    close(connection->fd);
    connection->fd = -1;
    holding_release(&connection->holding, connection->holding.bytes);
    wipe_and_free(&connection->in);
    wipe_and_free(&connection->out);
    gateway->memory -= connection->counted;
    connection_list_remove(connection);
    crowd_leave(gateway, connection->place);
    connection->place = NULL;
    connection->next_dead = gateway->dead;
    gateway->dead = connection;
    listener_resume(connection->ops ? &gateway->ops : &gateway->listener);
}

void connection_ready(struct connection *connection)
{
    struct gateway *gateway = connection->gateway;
    if (connection->ready || connection->dead)
        return;
    connection->ready = true;
    connection->next_ready = NULL;
    *(gateway->ready_last ? &gateway->ready_last->next_ready : &gateway->ready_first) = connection;
    gateway->ready_last = connection;
}

void connection_break(struct connection *connection)
{
    connection->broken = true;
    connection_ready(connection);
}

void connection_restart_timer(struct connection *connection)
{
    connection->timer_kind = TIMER_NONE;
}

static struct span behind(struct span bytes, size_t *sent)
{
    size_t skip = *sent < bytes.length ? *sent : bytes.length;
    *sent -= skip;
    return (struct span){skip ? bytes.data + skip : bytes.data, bytes.length - skip};
}

void connection_send(struct connection *connection, const struct span *parts, uint32_t count,
                     struct stream *from)
{
    size_t sent = 0, kept = 0;
    if (connection->dead || connection->broken)
        return;
    if (!connection_output_waits(connection)) {
        ssize_t took = transport_write(connection, parts, count);
        if (took < 0) {
            connection_break(connection);
            return;
        }
        sent = (size_t)took;
        connection_restart_timer(connection);
    }
    for (uint32_t i = 0; i < count; i++) {
        struct span left = behind(parts[i], &sent);
        kept += left.length;
        if (left.length)
            connection_put(connection, left);
    }
    if (kept == 0)
        return;
    holding_add(&connection->holding, connection, from, kept);
    connection_ready(connection);
}

void connection_put(struct connection *connection, struct span bytes)
{
    if (connection->out.max == 0)
        connection->out = buffer_of(OUT_MAX);
    buffer_put(&connection->out, bytes);
    if (connection->out.failed)
        connection_break(connection);
}

void connection_flush(struct connection *connection)
{
    if (!connection_output_waits(connection))
        return;
    struct span left = {connection->out.data + connection->out_sent,
                        connection->out.length - connection->out_sent};
    ssize_t sent = transport_write(connection, &left, 1);
    if (sent < 0) {
        connection->broken = true;
        return;
    }
    if (sent > 0 && connection->timer_kind == TIMER_WRITE)
        connection_restart_timer(connection);
    connection->out_sent += (size_t)sent;
    holding_release(&connection->holding, (size_t)sent < connection->holding.bytes
                                              ? (size_t)sent : connection->holding.bytes);
    if (connection->out_sent >= OUT_COMPACT
        && connection->out_sent > connection->out.length / 2
        && connection_output_waits(connection)) {
        buffer_consume(&connection->out, connection->out_sent);
        connection->out_sent = 0;
    }
}

static size_t input_limit(const struct connection *connection)
{
    if (connection->exchange ? exchange_wants_input(connection->exchange)
                             : !connection_output_waits(connection))
        return GATEWAY_INPUT_MAX;
    return GATEWAY_PIPELINED_MAX;
}

static void read_dropping(struct connection *connection)
{
    uint8_t bytes[4096];
    ssize_t got = recv(connection->fd, bytes, sizeof bytes, MSG_DONTWAIT);
    if (got > 0)
        connection->skip += (uint64_t)got;
    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)
        || connection->skip > LINGER_BYTES_MAX)
        connection->broken = true;
}

/* What came of a read; true when it brought something. */
static bool took_input(struct connection *connection, ssize_t got)
{
    if (got == 0)
        connection->peer_done = true;
    else if (got == TRANSPORT_BROKEN)
        connection->broken = true;
    return got > 0;
}

static bool read_some(struct connection *connection)
{
    struct gateway *gateway = connection->gateway;
    size_t limit = input_limit(connection), wanted = connection->exchange ? BODY_READ : HEAD_READ;
    if (connection->in.length >= limit)
        return false;
    if (gateway->memory > GATEWAY_MEMORY_MAX && !connection->exchange) {
        connection->broken = true; /* shedding load: this one had nothing in flight */
        return false;
    }
    if (connection->in.max == 0)
        connection->in = buffer_of(GATEWAY_INPUT_MAX);
    if (connection->in.length >= wanted)
        wanted = connection->in.length; /* double */
    if (wanted > limit - connection->in.length)
        wanted = limit - connection->in.length;
    uint8_t *room = buffer_reserve(&connection->in, wanted);
    if (!room) {
        connection->broken = true;
        return false;
    }
    ssize_t got = transport_read(connection, room, wanted);
    if (got > 0)
        buffer_advance(&connection->in, (size_t)got);
    return took_input(connection, got);
}

static bool read_session(struct connection *connection)
{
    uint8_t bytes[SESSION_READ];
    ssize_t got = transport_read(connection, bytes, sizeof bytes);
    if (got > 0) {
        http2_input(connection->http2, (struct span){bytes, (size_t)got});
        secret_wipe(bytes, (size_t)got);
    }
    return took_input(connection, got);
}

static bool read_input(struct connection *connection)
{
    return connection->http2 ? read_session(connection) : read_some(connection);
}

static enum timer_kind due_timer(const struct connection *connection)
{
    if (connection->lingering)
        return TIMER_LINGER;
    if (connection->transport.shaking)
        return TIMER_HANDSHAKE;
    enum timer_kind session = connection->http2 ? http2_timer(connection->http2) : TIMER_NONE;
    if (session == TIMER_HEAD && !connection->closing)
        return session;
    if (connection_output_waits(connection))
        return TIMER_WRITE;
    if (connection->http2)
        return session;
    if (connection->exchange)
        return exchange_timer(connection->exchange);
    return connection->in.length || connection->skip ? TIMER_HEAD : TIMER_IDLE;
}

static void on_time(void *context)
{
    struct connection *connection = context;
    enum timer_kind kind = connection->timer_kind;
    connection_restart_timer(connection);
    if (!connection->exchange && (kind == TIMER_BODY || kind == TIMER_ANSWER))
        ; /* it ended in this very turn */
    else if (kind == TIMER_BODY || kind == TIMER_ANSWER)
        exchange_timed_out(connection->exchange, kind);
    else if (connection->http2 && (kind == TIMER_HEAD || kind == TIMER_IDLE))
        http2_timed_out(connection->http2);
    else if (kind == TIMER_HEAD && connection->skip == 0)
        http1_refuse(connection, TIMED_OUT, "the request did not come in time");
    else if (kind == TIMER_HANDSHAKE)
        transport_timed_out(connection);
    else if (kind != TIMER_NONE) /* none: something moved in this very turn */
        connection_break(connection);
    connection_ready(connection);
}

static void set_timer(struct connection *connection)
{
    enum timer_kind kind = due_timer(connection);
    if (kind == connection->timer_kind)
        return;
    connection->timer_kind = (uint8_t)kind;
    if (kind == TIMER_NONE) /* its streams have clocks of their own */
        loop_timer_stop(connection->gateway->loop, &connection->timer);
    else
        gateway_timer(connection->gateway, &connection->timer, timeouts_ms[kind] * 1000, on_time,
                      connection);
}

static bool wants_input(const struct connection *connection)
{
    if (connection->lingering)
        return true;
    if (connection->closing || connection->peer_done)
        return false;
    return connection->http2 ? http2_reads(connection->http2)
                             : connection->in.length < input_limit(connection);
}

static void set_events(struct connection *connection)
{
    struct fault fault;
    /* while shaking hands a client's end is met by reading; level-triggered, it would spin here */
    bool heeds_end = !connection->peer_done && !connection->lingering
                  && !connection->transport.shaking;
    uint32_t events = transport_events(connection, wants_input(connection),
                                       connection_output_waits(connection))
                    | (heeds_end ? EPOLLRDHUP : 0u);
    if (events == connection->events)
        return;
    connection->events = events;
    if (loop_change(connection->gateway->loop, connection->source, events, &fault) != OK)
        connection_close(connection);
}

/* An answer lies in the client's queue and the client may still be sending: closed now, the kernel
 * would send a reset, which takes the answer away (RFC 9112 9.6). */
static void begin_lingering(struct connection *connection)
{
    connection->lingering = true;
    connection->unframed = false;
    connection->skip = 0;
    wipe_and_free(&connection->in);
    if (!transport_end(connection))
        connection->broken = true;
}

static void free_idle_buffers(struct connection *connection)
{
    struct gateway *gateway = connection->gateway;
    if (connection->in.length == 0 && !connection->exchange)
        wipe_and_free(&connection->in);
    if (!connection_output_waits(connection)) {
        wipe_and_free(&connection->out);
        connection->out_sent = 0;
    }
    size_t now = connection->in.capacity + connection->out.capacity
               + transport_counted(connection);
    if (connection->exchange)
        now += connection->exchange->frame.capacity + connection->exchange->body.capacity;
    if (connection->http2)
        now += http2_counted(connection->http2);
    gateway->memory += now - connection->counted;
    connection->counted = now;
}

static void choose_list(struct connection *connection)
{
    struct gateway *gateway = connection->gateway;
    bool idle = !connection->exchange && connection->in.length == 0 && connection->skip == 0
             && !connection_output_waits(connection) && !connection->closing
             && !connection->transport.shaking
             && (!connection->http2 || http2_idle(connection->http2));
    struct connection_list *list = idle ? &gateway->idle : &gateway->busy;
    if (connection->ops || connection->list == list)
        return;
    connection_list_remove(connection);
    connection_list_put(list, connection);
}

/* What follows from the state that the last event left. */
static void settle(struct connection *connection)
{
    bool drained = !connection_output_waits(connection);
    if (connection->peer_done && (connection->exchange || connection->http2 || drained))
        connection->broken = true; /* nobody to answer, or nothing to answer */
    if (connection->transport.shaking && connection->gateway->stopping)
        connection->broken = true;
    if (drained && !connection->exchange && !connection->http2 && connection->gateway->stopping
        && connection->in.length == 0)
        connection->closing = true;
    if (connection->closing && drained && !connection->lingering && !connection->broken)
        begin_lingering(connection);
    if (connection->broken) {
        connection_close(connection);
        return;
    }
    free_idle_buffers(connection);
    choose_list(connection);
    set_timer(connection);
    set_events(connection);
}

static void speak_http2(struct connection *connection)
{
    count_open(connection, UINT64_MAX); /* minus one */
    http2_open(connection);
    count_open(connection, 1);
}

/* RFC 9113 3.4: a client that knows what we speak begins so. True when more must come to tell. */
static bool await_protocol(struct connection *connection)
{
    const struct span preface = SPAN("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    struct span came = buffer_span(&connection->in);
    if (connection->begun || connection->ops || came.length == 0)
        return false;
    if (came.length < preface.length)
        return span_starts_with(preface, came);
    connection->begun = true;
    if (!span_starts_with(came, preface))
        return false;
    speak_http2(connection);
    if (!connection->broken)
        http2_input(connection->http2, came);
    wipe_and_free(&connection->in);
    return false;
}

static void take_input(struct connection *connection)
{
    bool more = !await_protocol(connection);
    while (more && !connection->broken && !connection->closing && !connection->http2)
        more = http1_step(connection);
    if (connection->http2 && !connection->broken && !connection->closing)
        http2_advance(connection->http2);
}

static void advance(struct connection *connection)
{
    if (connection->exchange)
        exchange_taken(connection->exchange, connection->out.length - connection->out_sent);
    take_input(connection);
    while (transport_has_input(connection) && !connection->broken && wants_input(connection)
           && !connection->lingering && read_input(connection))
        take_input(connection);
    settle(connection);
}

void connections_advance(struct gateway *gateway)
{
    while (gateway->ready_first) {
        struct connection *connection = gateway->ready_first;
        gateway->ready_first = connection->next_ready;
        if (!gateway->ready_first)
            gateway->ready_last = NULL;
        connection->ready = false;
        if (!connection->dead)
            advance(connection);
    }
}

static void shake_hands(struct connection *connection)
{
    if (!transport_shake(connection))
        return;
    connection->begun = true; /* ALPN named it */
    if (tls_protocol(connection->transport.session) == TLS_HTTP2)
        speak_http2(connection);
}

static void on_event(void *context, uint32_t events)
{
    struct connection *connection = context;
    if (connection->transport.session && events & (EPOLLIN | EPOLLOUT))
        events |= EPOLLIN | EPOLLOUT; /* TLS may have to write for a read, and the reverse */
    if (events & (EPOLLERR | EPOLLHUP))
        connection->broken = true;
    if (connection->transport.shaking && !connection->broken)
        shake_hands(connection);
    if (connection->transport.shaking) {
        settle(connection);
        return;
    }
    if (events & EPOLLOUT && !connection->broken && !connection->lingering)
        connection_flush(connection);
    if (events & EPOLLIN && !connection->broken && wants_input(connection)) {
        if (connection->lingering)
            read_dropping(connection);
        else
            (void)read_input(connection);
    } else if (events & EPOLLRDHUP) {
        connection->peer_done = true; /* what it sent before is not waited for any more */
    }
    advance(connection);
}

void connection_open(struct gateway *gateway, int fd, const struct arrival *arrival)
{
    struct fault fault;
    bool ops = arrival->ops;
    struct connection *connection = calloc(1, sizeof *connection);
    if (!connection) {
        crowd_leave(gateway, arrival->place);
        close(fd);
        return;
    }
    *connection = (struct connection){.gateway = gateway, .fd = fd, .ops = ops,
                                      .address = arrival->address, .place = arrival->place,
                                      .events = EPOLLIN | EPOLLRDHUP};
    if (loop_watch(&connection->source, gateway->loop, fd, connection->events, on_event,
                   connection, &fault) != OK) {
        crowd_leave(gateway, arrival->place);
        close(fd);
        free(connection);
        return;
    }
    if (ops) {
        connection_list_put(&gateway->ops_connections, connection);
    } else {
        count_open(connection, 1);
        stats_add(&gateway->stats->connections_total, 1);
    }
    if (!transport_open(connection))
        connection->broken = true;
    settle(connection);
}

void connections_sweep(struct gateway *gateway)
{
    while (gateway->dead) {
        struct connection *connection = gateway->dead;
        gateway->dead = connection->next_dead;
        assert(!connection->ready && !connection->exchange);
        free(connection);
    }
}
