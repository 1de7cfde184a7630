#define _GNU_SOURCE
#include "vmm/virtio/vsock.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    WIDE_STREAMS = 2, WIDE_BYTES = KIB(256),
    MIDDLE_STREAMS = 6, MIDDLE_BYTES = KIB(64),
    NARROW_BYTES = KIB(16),
    DEEP_BYTES = KIB(16), /* held bytes whose pages are worth giving back */
    PORT_FIRST = 0x80000000u, /* of streams that we dial: not where the guest dials us */
};

enum { BOTH_WAYS = VIRTIO_VSOCK_SHUTDOWN_RCV | VIRTIO_VSOCK_SHUTDOWN_SEND };

#define WATCHED ((uint32_t)(EPOLLIN | EPOLLRDHUP) | (uint32_t)EPOLLET)

static uint64_t offset_of(uint32_t index)
{
    uint32_t wide = index < WIDE_STREAMS ? index : WIDE_STREAMS;
    uint32_t middle = index < WIDE_STREAMS + MIDDLE_STREAMS ? index - wide : MIDDLE_STREAMS;
    return (uint64_t)wide * WIDE_BYTES + (uint64_t)middle * MIDDLE_BYTES
        + (uint64_t)(index - wide - middle) * NARROW_BYTES;
}

static uint32_t index_of(const struct stream *stream)
{
    return (uint32_t)(stream - stream->vsock->streams);
}

uint32_t stream_window(const struct stream *stream)
{
    uint32_t index = index_of(stream);
    return (uint32_t)(offset_of(index + 1) - offset_of(index));
}

uint64_t streams_bytes(void)
{
    return offset_of(SANDBOX_STREAMS_MAX);
}

static uint8_t *ring_of(const struct stream *stream)
{
    return stream->vsock->held + offset_of(index_of(stream));
}

/* ---- which stream ---- */

struct stream *stream_find(struct vsock *vsock, uint32_t host_port, uint32_t guest_port)
{
    for (uint32_t i = 0; i < vsock->stream_count; i++) {
        struct stream *stream = &vsock->streams[i];
        bool known = stream->state == STREAM_OPEN || stream->state == STREAM_DIALLING
            || (stream->state == STREAM_OVER && stream->say);
        if (known && stream->host_port == host_port && stream->guest_port == guest_port)
            return stream;
    }
    return NULL;
}

struct stream *stream_waiting(struct vsock *vsock, uint32_t host_port)
{
    for (uint32_t i = 0; i < vsock->stream_count; i++) {
        struct stream *stream = &vsock->streams[i];
        if (stream->state == STREAM_WAITING && stream->host_port == host_port)
            return stream;
    }
    return NULL;
}

static struct stream *free_stream(struct vsock *vsock)
{
    for (uint32_t i = 0; i < SANDBOX_STREAMS_MAX; i++)
        if (vsock->streams[i].state == STREAM_FREE) {
            if (vsock->stream_count <= i)
                vsock->stream_count = i + 1;
            return &vsock->streams[i];
        }
    return NULL;
}

static uint32_t free_port(struct vsock *vsock, uint32_t guest_port)
{
    do {
        vsock->next_port = PORT_FIRST | (vsock->next_port + 1);
    } while (stream_find(vsock, vsock->next_port, guest_port));
    return vsock->next_port;
}

/* ---- the end ---- */

static void hear(struct stream *stream, uint8_t what)
{
    stream->hear |= what;
    stream->vsock->news = true;
}

/* The host takes nothing any more. */
static bool is_deaf(const struct stream *stream)
{
    return stream->host_shut & VIRTIO_VSOCK_SHUTDOWN_RCV;
}

static void forget_held(struct stream *stream)
{
    if (stream->deepest > DEEP_BYTES)
        madvise(ring_of(stream), stream_window(stream), MADV_DONTNEED);
    stream->first = stream->held = stream->deepest = 0;
}

static void close_host(struct stream *stream)
{
    if (stream->fd < 0)
        return;
    stream->source = loop_unwatch(stream->vsock->loop, stream->source);
    close(stream->fd);
    stream->fd = -1;
    stream->readable = stream->blocked = false;
    forget_held(stream);
    hear(stream, HEAR_CLOSED);
}

void stream_end(struct stream *stream, uint8_t say)
{
    stream->state = STREAM_OVER;
    stream->say = say;
    stream->readable = false;
    if (stream->held == 0 || is_deaf(stream))
        close_host(stream);
    stream->vsock->news = true;
}

void stream_host_shut(struct stream *stream, uint8_t flags)
{
    uint8_t fresh = flags & (uint8_t)~stream->host_shut;
    stream->host_shut |= flags;
    if (fresh & VIRTIO_VSOCK_SHUTDOWN_RCV) {
        stream->blocked = false;
        forget_held(stream);
    }
    switch (stream->state) {
    case STREAM_OPEN:
        if (fresh)
            stream->say |= SAY_SHUTDOWN;
        if (stream->host_shut == BOTH_WAYS)
            close_host(stream);
        return;
    case STREAM_DIALLING:
        stream_end(stream, stream->say & SAY_REQUEST ? 0 : SAY_RST);
        return;
    default:
        stream_end(stream, stream->state == STREAM_OVER ? stream->say : 0);
        return;
    }
}

static void give_back(struct stream *stream)
{
    struct vsock *vsock = stream->vsock;
    *stream = (struct stream){.vsock = vsock, .fd = -1};
    while (vsock->stream_count && vsock->streams[vsock->stream_count - 1].state == STREAM_FREE)
        vsock->stream_count--;
}

void streams_finish(struct vsock *vsock)
{
    /* a listener may hand in a stream, and so come in here again */
    while (vsock->news) {
        vsock->news = false;
        for (uint32_t i = 0; i < vsock->stream_count; i++) {
            struct stream *stream = &vsock->streams[i];
            struct vsock_listener listener = stream->listener;
            uint8_t what = stream->hear;
            stream->hear = 0;
            if (what & HEAR_CLOSED)
                stream->listener = (struct vsock_listener){0};
            if (stream->state == STREAM_OVER && !stream->say && stream->fd < 0)
                give_back(stream);
            if (what & HEAR_ACCEPTED && listener.accepted)
                listener.accepted(listener.context);
            if (what & HEAR_CLOSED && listener.closed)
                listener.closed(listener.context);
        }
    }
}

void streams_destroy(struct vsock *vsock)
{
    for (uint32_t i = 0; i < vsock->stream_count; i++)
        close_host(&vsock->streams[i]);
}

/* ---- to the host ---- */

void stream_credit(struct stream *stream)
{
    uint32_t taken = stream->received - stream->held;
    if (stream->state == STREAM_OPEN && taken - stream->told >= stream_window(stream) / 2)
        stream->say |= SAY_CREDIT;
}

/* Edge-triggered: a change also tells at once what is there already. */
static void block(struct stream *stream, bool blocked)
{
    if (stream->blocked == blocked)
        return;
    struct fault fault;
    stream->blocked = blocked;
    if (loop_change(stream->vsock->loop, stream->source,
                    WATCHED | (blocked ? (uint32_t)EPOLLOUT : 0), &fault) != OK)
        virtio_fail(&stream->vsock->device);
}

/* What the host took; it may take nothing more after this. */
static size_t send_host(struct stream *stream, struct iovec *places, size_t count)
{
    struct msghdr message = {.msg_iov = places, .msg_iovlen = count};
    ssize_t sent;
    do
        sent = sendmsg(stream->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    if (sent >= 0)
        return (size_t)sent;
    if (errno != EAGAIN)
        stream_host_shut(stream, VIRTIO_VSOCK_SHUTDOWN_RCV);
    return 0;
}

static void flushed(struct stream *stream)
{
    forget_held(stream);
    if (stream->state == STREAM_OVER)
        close_host(stream);
    else if (stream->guest_shut & VIRTIO_VSOCK_SHUTDOWN_SEND)
        shutdown(stream->fd, SHUT_WR);
}

static void flush(struct stream *stream)
{
    uint32_t window = stream_window(stream);
    uint8_t *ring = ring_of(stream);
    while (stream->held) {
        uint32_t straight = window - stream->first;
        struct iovec places[2] = {
            {ring + stream->first, stream->held < straight ? stream->held : straight},
            {ring, stream->held < straight ? 0 : stream->held - straight},
        };
        size_t sent = send_host(stream, places, 2);
        if (is_deaf(stream))
            return;
        if (sent == 0) {
            block(stream, true);
            return;
        }
        stream->first = (uint32_t)((stream->first + sent) % window);
        stream->held -= (uint32_t)sent;
    }
    block(stream, false);
    flushed(stream);
}

static void hold(struct stream *stream, size_t offset, uint32_t length)
{
    uint32_t window = stream_window(stream);
    assert(length <= window - stream->held);
    uint8_t *ring = ring_of(stream);
    while (length) {
        uint32_t end = (stream->first + stream->held) % window;
        uint32_t piece = length < window - end ? length : window - end;
        size_t copied = virtqueue_read(ring + end, piece, &stream->vsock->chain, offset);
        assert(copied == piece);
        offset += piece;
        length -= piece;
        stream->held += piece;
    }
    if (stream->deepest < stream->first + stream->held)
        stream->deepest = stream->first + stream->held;
}

/* From the guest's memory into the socket: no copy of ours while the host keeps up. */
static size_t send_chain(struct stream *stream, size_t offset, size_t length)
{
    const struct virtqueue_chain *chain = &stream->vsock->chain;
    struct iovec *places = stream->vsock->places;
    size_t count = 0;
    for (uint16_t i = 0; i < chain->out_count && length; i++) {
        struct iovec segment = chain->out[i];
        if (offset >= segment.iov_len) {
            offset -= segment.iov_len;
            continue;
        }
        segment.iov_base = (uint8_t *)segment.iov_base + offset;
        segment.iov_len -= offset;
        offset = 0;
        if (segment.iov_len > length)
            segment.iov_len = length;
        length -= segment.iov_len;
        places[count++] = segment;
    }
    return send_host(stream, places, count);
}

void stream_deliver(struct stream *stream, size_t offset, uint32_t length)
{
    stream->received += length;
    uint32_t sent = 0;
    if (stream->held == 0 && !is_deaf(stream))
        sent = (uint32_t)send_chain(stream, offset, length);
    if (is_deaf(stream)) { /* nobody will read it: it counts as taken */
        stream_credit(stream);
        return;
    }
    if (sent < length) {
        hold(stream, offset + sent, length - sent);
        block(stream, true);
    }
    stream_credit(stream);
}

void stream_guest_shut(struct stream *stream, uint8_t flags)
{
    uint8_t before = stream->guest_shut;
    stream->guest_shut |= flags & BOTH_WAYS;
    if (stream->guest_shut == BOTH_WAYS) {
        stream_end(stream, SAY_RST);
        return;
    }
    uint8_t fresh = stream->guest_shut & (uint8_t)~before;
    if (stream->fd < 0 || !fresh)
        return;
    if (fresh & VIRTIO_VSOCK_SHUTDOWN_SEND) {
        if (stream->held == 0)
            shutdown(stream->fd, SHUT_WR);
        return;
    }
    shutdown(stream->fd, SHUT_RD);
    stream->readable = false;
    stream->host_shut |= VIRTIO_VSOCK_SHUTDOWN_SEND; /* it knows */
    if (is_deaf(stream))
        close_host(stream);
}

/* ---- from the loop, and from who hands a stream in ---- */

static void on_host(void *context, uint32_t events)
{
    struct stream *stream = context;
    struct vsock *vsock = stream->vsock;
    if (stream->fd >= 0) {
        if (stream->state != STREAM_OVER && !(stream->host_shut & VIRTIO_VSOCK_SHUTDOWN_SEND))
            stream->readable = true;
        stream->drained = false;
        if (events & (EPOLLHUP | EPOLLERR)) {
            hear(stream, HEAR_CLOSED);
            stream_host_shut(stream, VIRTIO_VSOCK_SHUTDOWN_RCV);
        } else if (events & EPOLLOUT && stream->blocked) {
            flush(stream);
            stream_credit(stream);
        }
    }
    vsock_run(vsock);
}

static status open_stream(struct vsock *vsock, int fd, uint32_t port, enum vmm_stream how,
                          const struct vsock_listener *listener, struct fault *fault)
{
    bool dials = how == VMM_STREAM_CONNECT;
    if (!dials && how != VMM_STREAM_ACCEPT)
        return FAIL(BAD_FIELD, fault, "stream: neither accept nor connect");
    if (!dials && stream_waiting(vsock, port))
        return FAIL(CONFLICT, fault, "stream: port %u waits already", port);
    struct stream *stream = free_stream(vsock);
    if (!stream)
        return FAIL(TOO_LARGE, fault, "streams: at most %d", SANDBOX_STREAMS_MAX);
    struct loop_source *source;
    TRY(loop_watch(&source, vsock->loop, fd, WATCHED, on_host, stream, fault));
    *stream = (struct stream){
        .vsock = vsock,
        .source = source,
        .fd = fd,
        .listener = listener ? *listener : (struct vsock_listener){0},
        .host_port = dials ? free_port(vsock, port) : port,
        .guest_port = dials ? port : 0,
        .state = dials ? STREAM_DIALLING : STREAM_WAITING,
        .say = dials ? SAY_REQUEST : 0,
        .batch = 1,
    };
    return OK;
}

status vsock_stream(struct virtio_device *device, int fd, uint32_t port, enum vmm_stream how,
                    const struct vsock_listener *listener, struct fault *fault)
{
    struct vsock *vsock = vsock_of(device);
    status opened = open_stream(vsock, fd, port, how, listener, fault);
    if (opened != OK)
        close(fd);
    else
        vsock_run(vsock);
    return opened;
}
