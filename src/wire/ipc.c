#define _GNU_SOURCE
#include "wire/ipc.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/cursor.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

/* One descriptor more than allowed fits, so that a surplus is seen (and closed) rather than cut. */
enum { FDS_ROOM = IPC_FDS_MAX + 1, QUEUE_BYTES = MIB(1) };

union control { /* cmsghdr's alignment */
    struct cmsghdr head;
    char bytes[CMSG_SPACE(sizeof(int) * FDS_ROOM)];
};

static void widen_queue(int fd)
{
    int bytes = QUEUE_BYTES;
    /* Forcing needs CAP_NET_ADMIN. Without it the kernel clamps to wmem_max, which still holds
     * three of the largest packets: a smaller queue costs wake-ups, never correctness. */
    if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes))
        (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
}

status ipc_pair(int ret_ends[2], struct fault *fault)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends))
        return FAIL(INTERNAL, fault, "ipc: socketpair: %s", strerror(errno));
    widen_queue(ends[0]);
    widen_queue(ends[1]);
    ret_ends[0] = ends[0];
    ret_ends[1] = ends[1];
    return OK;
}

static status send_error(int error, struct fault *fault)
{
    if (error == EAGAIN)
        return FAIL(AGAIN, fault, "ipc: the peer's queue is full");
    if (error == EPIPE || error == ECONNRESET || error == ENOTCONN)
        return FAIL(CLOSED, fault, "ipc: the peer is gone");
    return FAIL(INTERNAL, fault, "ipc: sendmsg: %s", strerror(error));
}

static status send_packet(int fd, const struct iovec *parts, size_t part_count, size_t length,
                          const int *fds, uint32_t fd_count, struct fault *fault)
{
    union control control = {0};
    struct msghdr message = {.msg_iov = (struct iovec *)parts, .msg_iovlen = part_count};
    if (fd_count) {
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(sizeof(int) * fd_count);
        control.head = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS,
                                        .cmsg_len = CMSG_LEN(sizeof(int) * fd_count)};
        memcpy(CMSG_DATA(&control.head), fds, sizeof(int) * fd_count);
    }
    ssize_t sent;
    do
        sent = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (sent < 0 && errno == EINTR);
    if (sent < 0)
        return send_error(errno, fault);
    assert((size_t)sent == length); /* SOCK_SEQPACKET: all or nothing */
    return OK;
}

static status check_outgoing(struct span body, uint32_t fd_count, struct fault *fault)
{
    if (body.length > IPC_BODY_MAX)
        return FAIL(TOO_LARGE, fault, "ipc: a body of %zu bytes, at most %u", body.length,
                    (unsigned)IPC_BODY_MAX);
    if (fd_count > IPC_FDS_MAX)
        return FAIL(TOO_LARGE, fault, "ipc: %u descriptors, at most %u", fd_count,
                    (unsigned)IPC_FDS_MAX);
    return OK;
}

static void put_head(uint8_t head[IPC_HEADER_BYTES], uint32_t type, uint32_t id)
{
    struct buffer out = buffer_over(head, IPC_HEADER_BYTES);
    buffer_put_u32(&out, type);
    buffer_put_u32(&out, id);
}

status ipc_send(int fd, uint32_t type, uint32_t id, struct span body, const int *fds,
                uint32_t fd_count, struct fault *fault)
{
    TRY(check_outgoing(body, fd_count, fault));
    uint8_t head[IPC_HEADER_BYTES];
    put_head(head, type, id);
    const struct iovec parts[] = {{head, sizeof head}, {(void *)body.data, body.length}};
    return send_packet(fd, parts, 2, sizeof head + body.length, fds, fd_count, fault);
}

/* Takes ownership of every descriptor that came in; those beyond IPC_FDS_MAX are counted and
 * closed. */
static uint32_t take_descriptors(int ret[IPC_FDS_MAX], struct msghdr *message)
{
    uint32_t count = 0;
    for (struct cmsghdr *head = CMSG_FIRSTHDR(message); head; head = CMSG_NXTHDR(message, head)) {
        if (head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_RIGHTS)
            continue;
        size_t here = (head->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < here; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(head) + i * sizeof fd, sizeof fd);
            if (count < IPC_FDS_MAX)
                ret[count] = fd;
            else
                close(fd);
            count++;
        }
    }
    return count;
}

static status receive_error(int error, struct fault *fault)
{
    if (error == EAGAIN)
        return FAIL(AGAIN, fault, "ipc: nothing waits");
    if (error == ECONNRESET || error == ENOTCONN)
        return FAIL(CLOSED, fault, "ipc: the peer is gone");
    return FAIL(INTERNAL, fault, "ipc: recvmsg: %s", strerror(error));
}

static status open_packet(struct ipc_message *message, struct span packet, int flags,
                          uint32_t fd_count, struct fault *fault)
{
    if (flags & MSG_TRUNC)
        return FAIL(BAD_REQUEST, fault, "ipc: a packet over %u bytes", (unsigned)IPC_PACKET_MAX);
    if (flags & MSG_CTRUNC || fd_count > IPC_FDS_MAX)
        return FAIL(BAD_REQUEST, fault, "ipc: more descriptors than can be taken (%u)",
                    (unsigned)IPC_FDS_MAX);
    if (packet.length == 0 && fd_count == 0)
        return FAIL(CLOSED, fault, "ipc: the peer is gone");
    if (packet.length < IPC_HEADER_BYTES)
        return FAIL(BAD_REQUEST, fault, "ipc: a packet of %zu bytes, shorter than its header",
                    packet.length);
    struct cursor cursor = cursor_over(packet);
    TRY(cursor_u32(&message->type, &cursor, fault));
    TRY(cursor_u32(&message->id, &cursor, fault));
    return cursor_bytes(&message->body, &cursor, cursor_left(&cursor), fault);
}

static ssize_t receive_packet(struct msghdr *header, int fd)
{
    const size_t control_bytes = header->msg_controllen;
    ssize_t length;
    do {
        header->msg_controllen = control_bytes;
        length = recvmsg(fd, header, MSG_DONTWAIT | MSG_NOSIGNAL | MSG_CMSG_CLOEXEC);
    } while (length < 0 && errno == EINTR);
    return length;
}

status ipc_receive(struct ipc_message *ret, int fd, uint8_t *storage, struct fault *fault)
{
    union control control;
    struct iovec part = {storage, IPC_PACKET_MAX};
    struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control,
                            .msg_controllen = sizeof control};
    ssize_t length = receive_packet(&header, fd);
    if (length == 0 && header.msg_controllen == 0) {
        /* The kernel looks at the queue first and at the peer's end second: a last message that
         * came in between is still in the queue. */
        header.msg_controllen = sizeof control;
        length = receive_packet(&header, fd);
        if (length < 0)
            return FAIL(CLOSED, fault, "ipc: the peer sent an empty packet");
    }
    if (length < 0)
        return receive_error(errno, fault);
    struct ipc_message message = {.fds = {-1, -1, -1, -1}};
    static_assert(IPC_FDS_MAX == 4, "as many as there are initialisers above");
    uint32_t came = take_descriptors(message.fds, &header);
    message.fd_count = came < IPC_FDS_MAX ? came : IPC_FDS_MAX;
    struct span packet = {storage, (size_t)length};
    status opened = open_packet(&message, packet, header.msg_flags, came, fault);
    if (opened != OK) {
        ipc_message_close(&message);
        return opened;
    }
    *ret = message;
    return OK;
}

/* OK when fd is ready (or broken: the next call then says how). until_us: monotonic, negative for
 * ever. */
static status wait_ready(int fd, short events, int64_t until_us, struct fault *fault)
{
    for (;;) {
        int timeout_ms = -1;
        if (until_us >= 0) {
            int64_t left_us = until_us - clock_monotonic_us();
            timeout_ms = left_us <= 0 ? 0 : (int)((left_us + 999) / 1000);
        }
        struct pollfd poll_fd = {.fd = fd, .events = events};
        int ready = poll(&poll_fd, 1, timeout_ms);
        if (ready > 0)
            return OK;
        if (ready == 0)
            return FAIL(TIMED_OUT, fault, "ipc: the peer did not answer in time");
        if (errno != EINTR)
            return FAIL(INTERNAL, fault, "ipc: poll: %s", strerror(errno));
    }
}

static int64_t deadline_us(int timeout_ms)
{
    return timeout_ms < 0 ? -1 : clock_monotonic_us() + (int64_t)timeout_ms * 1000;
}

status ipc_await(struct ipc_message *ret, int fd, uint8_t *storage, int timeout_ms,
                 struct fault *fault)
{
    struct fault inner;
    int64_t until_us = deadline_us(timeout_ms);
    for (;;) {
        status received = ipc_receive(ret, fd, storage, &inner);
        if (received != AGAIN) {
            if (received != OK)
                *fault = inner;
            return received;
        }
        TRY(wait_ready(fd, POLLIN, until_us, fault));
    }
}

status ipc_send_wait(int fd, uint32_t type, uint32_t id, struct span body, const int *fds,
                     uint32_t fd_count, int timeout_ms, struct fault *fault)
{
    struct fault inner;
    int64_t until_us = deadline_us(timeout_ms);
    for (;;) {
        status sent = ipc_send(fd, type, id, body, fds, fd_count, &inner);
        if (sent != AGAIN) {
            if (sent != OK)
                *fault = inner;
            return sent;
        }
        TRY(wait_ready(fd, POLLOUT, until_us, fault));
    }
}

void ipc_message_close(struct ipc_message *message)
{
    for (uint32_t i = 0; i < message->fd_count; i++)
        cleanup_close(&message->fds[i]);
    message->fd_count = 0;
}

status ipc_need_fds(const struct ipc_message *message, uint32_t count, struct fault *fault)
{
    if (message->fd_count != count)
        return FAIL(BAD_REQUEST, fault, "ipc: message %u carries %u descriptors, %u are needed",
                    message->type, message->fd_count, count);
    return OK;
}

/* A packet that waits, its header included, and its own copies of the descriptors. */
struct kept {
    struct kept *next;
    int fds[IPC_FDS_MAX];
    uint32_t fd_count;
    size_t length;
    uint8_t bytes[];
};

struct ipc_outbox {
    int fd;
    size_t waiting_bytes, max_bytes;
    uint32_t waiting_fds;
    struct kept *first, **last; /* last: where the next one is hung */
};

status ipc_outbox_create(struct ipc_outbox **ret, int fd, size_t max_bytes, struct fault *fault)
{
    struct ipc_outbox *outbox = calloc(1, sizeof *outbox);
    if (!outbox)
        return FAIL(INTERNAL, fault, "ipc: out of memory");
    outbox->fd = fd;
    outbox->max_bytes = max_bytes;
    outbox->last = &outbox->first;
    *ret = outbox;
    return OK;
}

static struct kept *kept_free(struct kept *kept)
{
    for (uint32_t i = 0; i < kept->fd_count; i++)
        close(kept->fds[i]);
    explicit_bzero(kept->bytes, kept->length); /* a request's content does not outlive it */
    free(kept);
    return NULL;
}

static struct kept *take_first(struct ipc_outbox *outbox)
{
    struct kept *kept = outbox->first;
    outbox->first = kept->next;
    if (!outbox->first)
        outbox->last = &outbox->first;
    outbox->waiting_bytes -= kept->length;
    outbox->waiting_fds -= kept->fd_count;
    return kept;
}

struct ipc_outbox *ipc_outbox_free(struct ipc_outbox *outbox)
{
    if (!outbox)
        return NULL;
    while (outbox->first)
        kept_free(take_first(outbox));
    free(outbox);
    return NULL;
}

static status keep(struct ipc_outbox *outbox, struct span head, struct span body, const int *fds,
                   uint32_t fd_count, struct fault *fault)
{
    size_t length = head.length + body.length;
    if (length > outbox->max_bytes - outbox->waiting_bytes)
        return FAIL(TOO_LARGE, fault, "ipc: %zu bytes wait for a slow peer, at most %zu may",
                    outbox->waiting_bytes, outbox->max_bytes);
    if (fd_count > IPC_WAITING_FDS_MAX - outbox->waiting_fds)
        return FAIL(TOO_LARGE, fault, "ipc: %u descriptors wait for a slow peer, at most %d may",
                    outbox->waiting_fds, (int)IPC_WAITING_FDS_MAX);
    struct kept *kept = calloc(1, sizeof *kept + length);
    if (!kept)
        return FAIL(INTERNAL, fault, "ipc: out of memory");
    struct buffer bytes = buffer_over(kept->bytes, length);
    buffer_put(&bytes, head);
    buffer_put(&bytes, body);
    kept->length = length;
    for (; kept->fd_count < fd_count; kept->fd_count++) {
        int copy = fcntl(fds[kept->fd_count], F_DUPFD_CLOEXEC, 0);
        if (copy < 0) {
            int error = errno;
            kept_free(kept);
            return FAIL(INTERNAL, fault, "ipc: F_DUPFD_CLOEXEC: %s", strerror(error));
        }
        kept->fds[kept->fd_count] = copy;
    }
    *outbox->last = kept;
    outbox->last = &kept->next;
    outbox->waiting_bytes += length;
    outbox->waiting_fds += fd_count;
    return OK;
}

status ipc_outbox_send(struct ipc_outbox *outbox, uint32_t type, uint32_t id, struct span body,
                       const int *fds, uint32_t fd_count, struct fault *fault)
{
    TRY(check_outgoing(body, fd_count, fault));
    if (!outbox->first) { /* else it would overtake what waits */
        struct fault inner;
        status sent = ipc_send(outbox->fd, type, id, body, fds, fd_count, &inner);
        if (sent != AGAIN) {
            if (sent != OK)
                *fault = inner;
            return sent;
        }
    }
    uint8_t head[IPC_HEADER_BYTES];
    put_head(head, type, id);
    return keep(outbox, (struct span){head, sizeof head}, body, fds, fd_count, fault);
}

status ipc_outbox_flush(struct ipc_outbox *outbox, struct fault *fault)
{
    while (outbox->first) {
        struct kept *kept = outbox->first;
        const struct iovec part = {kept->bytes, kept->length};
        struct fault inner;
        status sent = send_packet(outbox->fd, &part, 1, kept->length, kept->fds, kept->fd_count,
                                  &inner);
        if (sent == AGAIN)
            return OK;
        if (sent != OK) {
            *fault = inner;
            return sent;
        }
        kept_free(take_first(outbox));
    }
    return OK;
}

bool ipc_outbox_waiting(const struct ipc_outbox *outbox)
{
    return outbox->first != NULL;
}
