/* transport.c: the bytes of a connection, plain or under TLS. What the caller sees is the same: a
 * read or write that would block is 0 or TRANSPORT_AGAIN, and transport_events says what to wait
 * for. */
#define _GNU_SOURCE
#include "base/log.h"
#include "base/secret.h"
#include "gateway/state.h"

#include <assert.h>
#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>

enum {
    RECORD_MAX = 16 * 1024,
    WRITE_MAX = 256 * 1024, /* at once: others wait */
};

bool transport_open(struct connection *connection)
{
    struct gateway *gateway = connection->gateway;
    struct transport *transport = &connection->transport;
    struct fault fault;
    *transport = (struct transport){0};
    if (!gateway->start.tls || connection->ops)
        return true;
    if (!gateway->tls || gateway->memory > GATEWAY_MEMORY_MAX)
        return false;
    if (tls_session_open(&transport->session, gateway->tls, connection->fd, &fault) != OK) {
        log_event(LOG_WARN, "tls.failed", "%s", fault.detail);
        return false;
    }
    transport->shaking = true;
    transport->read_wants = TLS_WANT_READ;
    return true;
}

static void count_failed(struct connection *connection, status code)
{
    enum stats_handshake why = code == CLOSED    ? STATS_HANDSHAKE_CLOSED
                             : code == TIMED_OUT ? STATS_HANDSHAKE_TIMED_OUT
                                                 : STATS_HANDSHAKE_REFUSED;
    stats_add(&connection->gateway->stats->handshakes_failed[why], 1);
}

bool transport_shake(struct connection *connection)
{
    struct transport *transport = &connection->transport;
    enum tls_want want = TLS_WANT_NOTHING;
    struct fault fault;
    status shaken = tls_handshake(transport->session, &want, &fault);
    transport->read_wants = (uint8_t)want;
    if (shaken == AGAIN && want != TLS_WANT_NOTHING)
        return false;
    transport->shaking = false;
    transport->read_wants = TLS_WANT_READ;
    if (shaken == OK)
        return true;
    count_failed(connection, shaken);
    connection->broken = true;
    return false;
}

void transport_timed_out(struct connection *connection)
{
    count_failed(connection, TIMED_OUT);
    connection_break(connection);
}

static ssize_t read_sealed(struct transport *transport, uint8_t *bytes, size_t size)
{
    enum tls_want want = TLS_WANT_NOTHING;
    ssize_t got = tls_read(transport->session, bytes, size, &want);
    transport->read_wants = (uint8_t)(got < 0 && want == TLS_WANT_WRITE ? TLS_WANT_WRITE
                                                                         : TLS_WANT_READ);
    if (got >= 0)
        return got;
    return want == TLS_WANT_NOTHING ? TRANSPORT_BROKEN : TRANSPORT_AGAIN;
}

ssize_t transport_read(struct connection *connection, uint8_t *bytes, size_t size)
{
    if (connection->transport.session)
        return read_sealed(&connection->transport, bytes, size);
    ssize_t got = recv(connection->fd, bytes, size, MSG_DONTWAIT);
    if (got >= 0)
        return got;
    return errno == EAGAIN || errno == EINTR ? TRANSPORT_AGAIN : TRANSPORT_BROKEN;
}

bool transport_has_input(const struct connection *connection)
{
    const struct transport *transport = &connection->transport;
    return transport->session && !transport->shaking && tls_pending(transport->session) > 0;
}

static ssize_t write_sealed(struct transport *transport, struct span bytes)
{
    enum tls_want want = TLS_WANT_NOTHING;
    if (bytes.length == 0)
        return 0;
    ssize_t sent = tls_write(transport->session, bytes, &want);
    transport->write_wants = (uint8_t)(sent < 0 ? want : TLS_WANT_NOTHING);
    if (sent >= 0)
        return sent;
    return want == TLS_WANT_NOTHING ? TRANSPORT_BROKEN : 0;
}

/* What a record holds, behind the bytes that were sent: a small answer and its head are one. */
static ssize_t write_record(struct transport *transport, const struct span *parts, uint32_t count,
                            size_t sent)
{
    uint8_t storage[RECORD_MAX];
    struct buffer record = buffer_over(storage, sizeof storage);
    for (uint32_t i = 0; i < count; i++) {
        size_t skip = sent < parts[i].length ? sent : parts[i].length;
        size_t left = parts[i].length - skip, room = sizeof storage - record.length;
        sent -= skip;
        if (left)
            buffer_put(&record, (struct span){parts[i].data + skip, left < room ? left : room});
    }
    ssize_t took = write_sealed(transport, buffer_span(&record));
    secret_wipe(storage, record.length);
    return took;
}

static ssize_t write_records(struct transport *transport, const struct span *parts,
                             uint32_t count)
{
    size_t total = 0, sent = 0;
    for (uint32_t i = 0; i < count; i++)
        total += parts[i].length;
    while (sent < total && sent < WRITE_MAX) {
        ssize_t took = write_record(transport, parts, count, sent);
        if (took <= 0)
            return sent ? (ssize_t)sent : took; /* what is broken says so again */
        sent += (size_t)took;
    }
    return (ssize_t)sent;
}

ssize_t transport_write(struct connection *connection, const struct span *parts, uint32_t count)
{
    struct transport *transport = &connection->transport;
    struct iovec vectors[PARTS_MAX];
    struct msghdr message = {.msg_iov = vectors};
    ssize_t sent;
    assert(count <= PARTS_MAX);
    for (uint32_t i = 0; i < count; i++)
        if (parts[i].length)
            vectors[message.msg_iovlen++] = (struct iovec){(void *)parts[i].data, parts[i].length};
    if (transport->session)
        return write_records(transport, parts, count);
    do
        sent = sendmsg(connection->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (sent < 0 && errno == EINTR);
    if (sent < 0)
        return errno == EAGAIN ? 0 : TRANSPORT_BROKEN;
    return sent;
}

void transport_reset(struct connection *connection)
{
    const struct linger none = {.l_onoff = 1};
    (void)setsockopt(connection->fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
}

static uint32_t event_of(uint8_t want)
{
    return want == TLS_WANT_WRITE ? EPOLLOUT : EPOLLIN;
}

uint32_t transport_events(const struct connection *connection, bool reads, bool writes)
{
    const struct transport *transport = &connection->transport;
    if (!transport->session || connection->lingering)
        return (reads ? EPOLLIN : 0u) | (writes ? EPOLLOUT : 0u);
    if (transport->shaking)
        return event_of(transport->read_wants);
    return (reads ? event_of(transport->read_wants) : 0u)
         | (!writes ? 0u : transport->write_wants == TLS_WANT_READ ? EPOLLIN : EPOLLOUT);
}

bool transport_end(struct connection *connection)
{
    if (connection->transport.session)
        tls_shutdown(connection->transport.session);
    return shutdown(connection->fd, SHUT_WR) == 0;
}

void transport_close(struct connection *connection)
{
    connection->transport.session = tls_session_free(connection->transport.session);
}

size_t transport_counted(const struct connection *connection)
{
    const struct transport *transport = &connection->transport;
    if (!transport->session)
        return 0;
    return transport->shaking ? TLS_BUSY_BYTES : 0; /* an idle one is bounded by their number */
}
