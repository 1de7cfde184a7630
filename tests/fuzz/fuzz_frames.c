/* Whatever a peer sends: a cursor stays inside its bytes and does not move on failure; a packet is
 * taken or refused by its size and its descriptors, and no descriptor is ever left open. The first
 * byte of the input says how many descriptors come along and whether the packet is blown up over
 * its maximum; the rest is the packet, and also the program of reads that is run on it. */
#include "fuzz.h"

#include "base/cursor.h"
#include "wire/ipc.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { FDS_SENT_MAX = 8 };

static status read_one(struct cursor *cursor, uint8_t operation, struct fault *fault)
{
    struct span bytes = {0};
    uint8_t copy[7];
    uint64_t value;
    char text[9];
    switch (operation % 8) {
    case 0: return cursor_u8(copy, cursor, fault);
    case 1: return cursor_u16((uint16_t[]){0}, cursor, fault);
    case 2: return cursor_u32((uint32_t[]){0}, cursor, fault);
    case 3: return cursor_u64(&value, cursor, fault);
    case 4: return cursor_copy(copy, cursor, sizeof copy, fault);
    case 5: TRY(cursor_text(text, sizeof text, cursor, "text", fault));
        CHECK(strlen(text) < sizeof text);
        return OK;
    case 6: TRY(cursor_field(&bytes, cursor, 5, "field", fault));
        CHECK(bytes.length <= 5);
        break;
    default: TRY(cursor_bytes(&bytes, cursor, operation, fault));
        CHECK(bytes.length == operation);
    }
    for (size_t i = 0; i < bytes.length; i++) /* the sanitizer sees a byte that is not there */
        *(volatile uint8_t *)copy = bytes.data[i];
    return OK;
}

static void check_cursor(struct span input)
{
    struct cursor cursor = cursor_over(input);
    struct fault fault;
    for (size_t i = 0; i < input.length && i < 64; i++) {
        struct cursor before = cursor;
        status read = read_one(&cursor, input.data[i], &fault);
        CHECK(cursor.end == before.end && cursor.next >= before.next && cursor.next <= cursor.end);
        CHECK(read == OK || cursor.next == before.next);
        CHECK(read == OK || read == TRUNCATED || read == TOO_LARGE || read == BAD_FIELD);
    }
    CHECK((cursor_end(&cursor, &fault) == OK) == (cursor_left(&cursor) == 0));
}

static void send_packet(int fd, struct span packet, size_t fd_count)
{
    union {
        struct cmsghdr head;
        char bytes[CMSG_SPACE(sizeof(int) * FDS_SENT_MAX)];
    } control = {0};
    struct iovec part = {(void *)packet.data, packet.length};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (fd_count) {
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(sizeof(int) * fd_count);
        control.head.cmsg_level = SOL_SOCKET;
        control.head.cmsg_type = SCM_RIGHTS;
        control.head.cmsg_len = CMSG_LEN(sizeof(int) * fd_count);
        for (size_t i = 0; i < fd_count; i++)
            memcpy(CMSG_DATA(&control.head) + i * sizeof fd, &fd, sizeof fd);
    }
    CHECK(sendmsg(fd, &message, 0) == (ssize_t)packet.length);
}

/* The number that the next descriptor would get: it grows when one was left open. */
static int next_fd(int any)
{
    int fd = dup(any);
    CHECK(fd >= 0);
    close(fd);
    return fd;
}

static void check_message(const struct ipc_message *message, struct span packet, size_t fd_count)
{
    struct cursor cursor = cursor_over(packet);
    struct fault fault;
    uint32_t type, id;
    CHECK(cursor_u32(&type, &cursor, &fault) == OK && type == message->type);
    CHECK(cursor_u32(&id, &cursor, &fault) == OK && id == message->id);
    CHECK(span_equal(message->body, (struct span){cursor.next, cursor_left(&cursor)}));
    CHECK(message->fd_count == fd_count);
}

static void check_ipc(struct span packet, size_t fd_count)
{
    static uint8_t storage[IPC_PACKET_MAX];
    static int ends[2] = {-1, -1};
    struct ipc_message message;
    struct fault fault;
    if (ends[0] < 0)
        CHECK(ipc_pair(ends, &fault) == OK);
    int before = next_fd(ends[0]);
    send_packet(ends[0], packet, fd_count);
    status received = ipc_receive(&message, ends[1], storage, &fault);
    bool fits = packet.length >= IPC_HEADER_BYTES && packet.length <= IPC_PACKET_MAX
             && fd_count <= IPC_FDS_MAX;
    if (packet.length == 0 && fd_count == 0)
        CHECK(received == CLOSED);
    else
        CHECK(received == (fits ? OK : BAD_REQUEST));
    if (received == OK) {
        check_message(&message, packet, fd_count);
        ipc_message_close(&message);
    }
    CHECK(ipc_receive(&message, ends[1], storage, &fault) == AGAIN);
    CHECK(next_fd(ends[0]) == before);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t large[IPC_PACKET_MAX + 2];
    if (size == 0)
        return 0;
    struct span packet = {data + 1, size - 1};
    check_cursor(packet);
    size_t fd_count = data[0] % FDS_SENT_MAX;
    if (data[0] >= 250) /* around the maximum: from two bytes below to two above */
        packet = (struct span){large, IPC_PACKET_MAX - 2 + (data[0] - 250u) % 5};
    check_ipc(packet, fd_count);
    return 0;
}
