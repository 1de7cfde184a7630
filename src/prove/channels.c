/* channels.c: packets that a well-meaning process would not send, and what comes of them. */
#define _GNU_SOURCE
#include "prove/hostile.h"

#include "base/clock.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

enum { FDS_ROOM = 16, SEND_WAIT_MS = 5000, END_WAIT_MS = 5000 };

static bool wait_writable(int fd)
{
    struct pollfd writable = {.fd = fd, .events = POLLOUT};
    return poll(&writable, 1, SEND_WAIT_MS) > 0 && !(writable.revents & POLLHUP);
}

static bool send_parts(int fd, const struct iovec *parts, size_t count, uint32_t fds)
{
    union {
        struct cmsghdr head;
        char bytes[CMSG_SPACE(sizeof(int) * FDS_ROOM)];
    } control = {0};
    struct msghdr message = {.msg_iov = (struct iovec *)(uintptr_t)parts, .msg_iovlen = count};
    if (fds > FDS_ROOM)
        fds = FDS_ROOM;
    if (fds) {
        int copies[FDS_ROOM] = {0}; /* of /dev/null: what else could be sent is worth less */
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(sizeof(int) * fds);
        control.head = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS,
                                        .cmsg_len = CMSG_LEN(sizeof(int) * fds)};
        memcpy(CMSG_DATA(&control.head), copies, sizeof(int) * fds);
    }
    for (;;) {
        if (sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0)
            return true;
        if (errno != EAGAIN || !wait_writable(fd))
            return false;
    }
}

bool channel_send(int fd, uint32_t type, uint32_t id, struct span body, uint32_t fds)
{
    uint8_t storage[IPC_HEADER_BYTES];
    struct buffer head = buffer_over(storage, sizeof storage);
    buffer_put_u32(&head, type);
    buffer_put_u32(&head, id);
    const struct iovec parts[] = {{storage, sizeof storage},
                                  {(void *)(uintptr_t)body.data, body.length}};
    return send_parts(fd, parts, 2, fds);
}

bool channel_send_raw(int fd, struct span packet, uint32_t fds)
{
    const struct iovec part = {(void *)(uintptr_t)packet.data, packet.length};
    return send_parts(fd, &part, 1, fds);
}

struct got channel_ending(struct hostile *self, int fd)
{
    struct ipc_message message;
    struct fault fault;
    status received = ipc_await(&message, fd, self->storage, END_WAIT_MS, &fault);
    if (received == OK) {
        uint32_t type = message.type, fds = message.fd_count;
        size_t length = message.body.length;
        ipc_message_close(&message);
        return got_survived("an answer of type %#x, %zu bytes, %u descriptors", type, length, fds);
    }
    if (received == CLOSED) {
        struct got got = {.kind = GOT_CLOSED};
        snprintf(got.text, sizeof got.text, "the channel ended");
        return got;
    }
    return got_survived("%s", received == TIMED_OUT ? "nothing happened" : fault.detail);
}
