/* supervisor.c: what a cell must not say on its channel to the supervisor: it is killed for it. */
#define _GNU_SOURCE
#include "prove/hostile.h"

#include "base/cleanup.h"
#include "jail/jail.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

enum { CHANNEL = 3, FLOOD = 100 * 1000, LIVE_ON_MS = 5000 };

static struct got ended(struct hostile *self)
{
    struct got got = channel_ending(self, CHANNEL);
    return got.kind == GOT_CLOSED ? got_survived("the channel ended, the process lived") : got;
}

static struct got say(struct hostile *self, const struct attempt *attempt)
{
    uint8_t storage[512];
    struct buffer body = buffer_over(storage, sizeof storage);
    if (attempt->put)
        attempt->put(&body, &self->target);
    channel_send(CHANNEL, attempt->type, 7, buffer_span(&body), attempt->fds);
    return ended(self);
}

static void put_neighbour(struct buffer *body, const struct target *target)
{
    buffer_put(body, SPAN_OF(target->neighbour));
}

static void put_neighbour_and_uid(struct buffer *body, const struct target *target)
{
    put_neighbour(body, target);
    buffer_put_u32(body, (uint32_t)target->neighbour_uid);
}

static void put_wake(struct buffer *body, const struct target *target)
{
    put_neighbour_and_uid(body, target);
    buffer_put_u32(body, UINT32_MAX);
    buffer_put_field(body, SPAN("posture"));
}

static void put_stop(struct buffer *body, const struct target *target)
{
    put_neighbour(body, target);
    buffer_put_u8(body, CELL_STOP_KILL);
}

static void put_export(struct buffer *body, const struct target *target)
{
    put_neighbour_and_uid(body, target);
    buffer_put_field(body, SPAN("posture"));
    buffer_put_text_field(body, "audit");
}

static void put_assume(struct buffer *body, const struct target *target)
{
    put_neighbour_and_uid(body, target);
    buffer_put_field(body, SPAN("posture"));
}

static void put_jailed(struct buffer *body, const struct target *target)
{
    (void)target;
    buffer_put_u32(body, 7);
    buffer_put_u8(body, 1);
}

static void put_keys(struct buffer *body, const struct target *target)
{
    static const uint8_t forged[64] = {1};
    (void)target;
    buffer_put(body, SPAN_OF(forged));
}

static void put_operator(struct buffer *body, const struct target *target)
{
    (void)target;
    buffer_put_u32(body, 0); /* root */
    buffer_put_u32(body, 1);
}

static void put_channel(struct buffer *body, const struct target *target)
{
    (void)target;
    buffer_put_u8(body, CHANNEL_KMS);
    buffer_put_u32(body, 0);
}

static void put_four_bytes(struct buffer *body, const struct target *target)
{
    (void)target;
    buffer_put_u32(body, 0);
}

static void put_nine_bytes(struct buffer *body, const struct target *target)
{
    (void)target;
    buffer_put_u64(body, 0);
    buffer_put_u8(body, 0);
}

static void put_sixteen_bytes(struct buffer *body, const struct target *target)
{
    (void)target;
    buffer_put_u64(body, 0);
    buffer_put_u64(body, 0);
}

static void put_status_ok(struct buffer *body, const struct target *target)
{
    (void)target;
    buffer_put_u16(body, OK);
    buffer_put_text_field(body, "");
}

static void put_status_unknown(struct buffer *body, const struct target *target)
{
    (void)target;
    buffer_put_u16(body, 9999);
    buffer_put_text_field(body, "");
}

static void put_long_text(struct buffer *body, const struct target *target)
{
    (void)target;
    buffer_put_u16(body, INTERNAL);
    buffer_put_u32(body, 0x80000000u);
    buffer_put_text(body, "short");
}

static void put_text_with_nul(struct buffer *body, const struct target *target)
{
    (void)target;
    buffer_put_u32(body, 1);
    buffer_put_field(body, SPAN("a\0b"));
}

static void put_prove(struct buffer *body, const struct target *target)
{
    put_assume(body, target);
    buffer_put_field(body, SPAN("{}"));
}

static void put_reply(struct buffer *body, const struct target *target)
{
    (void)target;
    reply_put_head(body, OK, "");
}

static struct got cut_packet(struct hostile *self, const struct attempt *attempt)
{
    (void)attempt;
    channel_send_raw(CHANNEL, SPAN("\0\0\x06"), 0);
    return ended(self);
}

static struct got large_packet(struct hostile *self, const struct attempt *attempt)
{
    (void)attempt;
    _cleanup_free_ uint8_t *packet = calloc(1, IPC_PACKET_MAX + 1);
    if (!packet)
        return got_survived("out of memory");
    channel_send_raw(CHANNEL, (struct span){packet, IPC_PACKET_MAX + 1}, 0);
    return ended(self);
}

static struct got many_descriptors(struct hostile *self, const struct attempt *attempt)
{
    (void)attempt;
    channel_send(CHANNEL, MESSAGE_CELL_READY, 0, SPAN("\0\0\0\0\0\0\0\0"), 16);
    return ended(self);
}

static struct got send_credentials(const struct ucred *who)
{
    union {
        struct cmsghdr head;
        char bytes[CMSG_SPACE(sizeof(struct ucred))];
    } control = {.head = {.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_CREDENTIALS,
                          .cmsg_len = CMSG_LEN(sizeof(struct ucred))}};
    struct iovec part = {(void *)(uintptr_t)"\0", 1};
    const struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control,
                                   .msg_controllen = sizeof control};
    memcpy(CMSG_DATA(&control.head), who, sizeof *who);
    if (sendmsg(CHANNEL, &message, MSG_NOSIGNAL) < 0)
        return got_errno(errno);
    return got_survived("they were sent");
}

static struct got credentials_of_root(struct hostile *self, const struct attempt *attempt)
{
    const struct ucred root = {.pid = 1, .uid = 0, .gid = 0};
    (void)self, (void)attempt;
    return send_credentials(&root);
}

static struct got credentials_of_supervisor(struct hostile *self, const struct attempt *attempt)
{
    const struct ucred other = {.pid = (pid_t)self->target.supervisor_pid, .uid = JAIL_ID,
                                .gid = JAIL_ID};
    (void)attempt;
    return send_credentials(&other);
}

static struct got other_address(struct hostile *self, const struct attempt *attempt)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "\0bulkhead"};
    struct iovec part = {(void *)(uintptr_t)"for another", 11};
    const struct msghdr message = {.msg_name = &address, .msg_namelen = sizeof address,
                                   .msg_iov = &part, .msg_iovlen = 1};
    (void)attempt;
    if (sendmsg(CHANNEL, &message, MSG_NOSIGNAL) < 0)
        return got_survived("refused: %s", strerrorname_np(errno));
    return ended(self);
}

static struct got hang_up(struct hostile *self, const struct attempt *attempt)
{
    (void)attempt;
    (void)self;
    shutdown(CHANNEL, SHUT_RDWR);
    poll(NULL, 0, LIVE_ON_MS);
    return got_survived("it lived on");
}

static struct got flood(struct hostile *self, const struct attempt *attempt)
{
    (void)attempt;
    for (int i = 0; i < FLOOD; i++)
        if (!channel_send(CHANNEL, 0x0fff, (uint32_t)i, SPAN("flood"), 0))
            break;
    return ended(self);
}

/* The one message that a cell may repeat: where it says that pages are damaged. */
static struct got damage_flood(struct hostile *self, const struct attempt *attempt)
{
    uint8_t storage[64];
    struct buffer body = buffer_over(storage, sizeof storage);
    (void)attempt;
    buffer_put_u32(&body, 1);
    buffer_put_text_field(&body, "silo.db, page 1");
    for (int i = 0; i < FLOOD; i++)
        if (!channel_send(CHANNEL, MESSAGE_CELL_DAMAGE, 0, buffer_span(&body), 0))
            break;
    return ended(self);
}

#define FATAL(title, message, body, descriptors) \
    {.name = title, .expect = EXPECT_KILLED, .run = say, .type = message, .put = body, \
     .fds = descriptors}
#define FATAL_RUN(title, function) {.name = title, .expect = EXPECT_KILLED, .run = function}

static const struct attempt attempts[] = {
    FATAL("an unknown type", 0x0fff, NULL, 0),
    FATAL("type 0", 0, NULL, 0),
    FATAL("an answer to nothing", MESSAGE_REPLY, put_reply, 0),
    FATAL("CELL_BLANK again", MESSAGE_CELL_BLANK, NULL, 0),
    FATAL("JAILED again", MESSAGE_JAILED, put_jailed, 0),
    FATAL("CELL_READY, four bytes", MESSAGE_CELL_READY, put_four_bytes, 0),
    FATAL("CELL_READY, a byte too many", MESSAGE_CELL_READY, put_nine_bytes, 0),
    FATAL("CELL_READY with a descriptor", MESSAGE_CELL_READY, put_nine_bytes, 1),
    FATAL("CELL_IDLE before it served", MESSAGE_CELL_IDLE, NULL, 0),
    FATAL("CELL_PARKED before it served", MESSAGE_CELL_PARKED, put_sixteen_bytes, 0),
    FATAL("CELL_FAILED for no reason", MESSAGE_CELL_FAILED, put_status_ok, 0),
    FATAL("CELL_FAILED with an unknown status", MESSAGE_CELL_FAILED, put_status_unknown, 0),
    FATAL("CELL_FAILED with a text of 2 GiB", MESSAGE_CELL_FAILED, put_long_text, 0),
    FATAL("CELL_DAMAGE with a NUL in its text", MESSAGE_CELL_DAMAGE, put_text_with_nul, 0),
    FATAL("the kms's READY with forged keys", MESSAGE_READY, put_keys, 0),
    FATAL("the kms's KMS_SERVE_CELL for the neighbour", MESSAGE_KMS_SERVE_CELL, put_neighbour, 1),
    FATAL("the kms's KMS_SERVE_ADMIN as root", MESSAGE_KMS_SERVE_ADMIN, put_operator, 1),
    FATAL("control's SILO_MAKE", MESSAGE_SILO_MAKE, put_neighbour_and_uid, 0),
    FATAL("control's SILO_REMOVE of the neighbour", MESSAGE_SILO_REMOVE, put_neighbour, 0),
    FATAL("control's CELL_WAKE of the neighbour", MESSAGE_CELL_WAKE, put_wake, 0),
    FATAL("control's CELL_STOP of the neighbour", MESSAGE_CELL_STOP, put_stop, 0),
    FATAL("control's CELL_EXPORT of the neighbour", MESSAGE_CELL_EXPORT, put_export, 1),
    FATAL("control's STATUS", MESSAGE_STATUS, NULL, 0),
    FATAL("control's PROVE", MESSAGE_PROVE, put_prove, 1),
    FATAL("the supervisor's ADMIN_OPEN as root", MESSAGE_ADMIN_OPEN, put_operator, 2),
    FATAL("the supervisor's CELL_ASSUME of the neighbour", MESSAGE_CELL_ASSUME, put_assume, 2),
    FATAL("the supervisor's CELL_GONE of the neighbour", MESSAGE_CELL_GONE, put_neighbour, 0),
    FATAL("the supervisor's GATEWAY_CELL of the neighbour", MESSAGE_GATEWAY_CELL, put_neighbour, 1),
    FATAL("the supervisor's CHANNEL", MESSAGE_CHANNEL, put_channel, 1),
    FATAL("the supervisor's STOP", MESSAGE_STOP, NULL, 0),
    FATAL("the gateway's TENANT_FIND", MESSAGE_TENANT_FIND, put_neighbour, 0),
    FATAL("the operator's ADMIN_CALL", MESSAGE_ADMIN_CALL, put_reply, 0),
    FATAL("KEY_OPEN on the wrong channel", MESSAGE_KEY_OPEN, put_four_bytes, 0),
    FATAL_RUN("a packet of three bytes", cut_packet),
    FATAL_RUN("a packet over the limit", large_packet),
    FATAL_RUN("sixteen descriptors", many_descriptors),
    FATAL_RUN("a message to another address", other_address),
    FATAL_RUN("100,000 messages", flood),
    FATAL_RUN("100,000 times the same damage", damage_flood),
    {.name = "credentials of root", .wall = "root has no id in its user namespace",
     .expect = EXPECT_ERRNO, .value = EINVAL, .run = credentials_of_root},
    {.name = "credentials of the supervisor", .wall = "the kernel lets no one lie about his pid",
     .expect = EXPECT_ERRNO, .value = EPERM, .run = credentials_of_supervisor},
    {.name = "hanging up and living on", .wall = "no process without its channel",
     .expect = EXPECT_LOST, .run = hang_up},
};

const struct battery battery_supervisor =
    BATTERY("supervisor", "the supervisor's table of permits", attempts);
