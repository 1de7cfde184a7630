#define _GNU_SOURCE
#include "vmm/virtio/vsock.h"

#include <assert.h>
#include <errno.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

enum {
    HOST_CID = 2,
    HEAD_BYTES = sizeof(struct virtio_vsock_hdr),
    TURN_PACKETS = 256, /* each way, before others have theirs */
};

static_assert(HEAD_BYTES == 44, "virtio 1.2, 5.10.6");
static_assert(LANDINGS * LANDING_PARTS <= VIRTQUEUE_SEGMENTS_MAX, "one read fills them all");
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "packets are read as they are");

struct vsock *vsock_of(struct virtio_device *device)
{
    return (struct vsock *)(void *)device;
}

static void on_again(void *context)
{
    vsock_run(context);
}

static void run_again(struct vsock *vsock)
{
    virtio_go_on(&vsock->device, vsock->loop, &vsock->again, 0, on_again);
}

/* ---- packets to the guest ---- */

/* False: the guest has no buffer for us, and where it is the first of several, tells of the next.
 * One that has no room for a byte is of no honest driver. */
static bool pop_landing(struct landing *ret, struct vsock *vsock, bool first)
{
    struct virtqueue_chain *chain = &vsock->chain;
    if (!(first ? virtio_next(chain, &vsock->device, VSOCK_RX)
                : virtio_pop(chain, &vsock->device, VSOCK_RX)))
        return false;
    uint32_t bytes = 0;
    *ret = (struct landing){.head = chain->head};
    while (ret->parts < chain->in_count && ret->parts < LANDING_PARTS) {
        ret->part[ret->parts] = chain->in[ret->parts];
        bytes += (uint32_t)ret->part[ret->parts++].iov_len;
    }
    if (bytes <= HEAD_BYTES) {
        virtio_fail(&vsock->device);
        return false;
    }
    ret->room = bytes - HEAD_BYTES;
    return true;
}

static void land(struct vsock *vsock, const struct landing *landing,
                 const struct virtio_vsock_hdr *head)
{
    size_t done = 0;
    for (uint16_t i = 0; i < landing->parts && done < HEAD_BYTES; i++) {
        size_t left = HEAD_BYTES - done;
        size_t piece = landing->part[i].iov_len < left ? landing->part[i].iov_len : left;
        memcpy(landing->part[i].iov_base, (const uint8_t *)head + done, piece);
        done += piece;
    }
    virtio_push(&vsock->device, VSOCK_RX, landing->head, HEAD_BYTES + head->len);
}

/* Every packet of a stream carries our credit. */
static struct virtio_vsock_hdr head_of(struct stream *stream, uint16_t op)
{
    stream->told = stream->received - stream->held;
    return (struct virtio_vsock_hdr){
        .src_cid = HOST_CID,
        .dst_cid = stream->vsock->guest_cid,
        .src_port = stream->host_port,
        .dst_port = stream->guest_port,
        .type = VIRTIO_VSOCK_TYPE_STREAM,
        .op = op,
        .buf_alloc = stream_window(stream),
        .fwd_cnt = stream->told,
    };
}

static bool say_refusals(struct vsock *vsock)
{
    struct landing *landing = &vsock->landings[0];
    while (vsock->refusal_count) {
        if (!pop_landing(landing, vsock, true))
            return false;
        const struct refusal *refusal = &vsock->refusals[vsock->refusal_first];
        land(vsock, landing, &(struct virtio_vsock_hdr){
            .src_cid = HOST_CID,
            .dst_cid = vsock->guest_cid,
            .src_port = refusal->host_port,
            .dst_port = refusal->guest_port,
            .type = refusal->type,
            .op = VIRTIO_VSOCK_OP_RST,
        });
        vsock->refusal_first = (vsock->refusal_first + 1) % REFUSALS;
        vsock->refusal_count--;
    }
    return true;
}

static bool say_stream(struct stream *stream)
{
    static const uint16_t operations[] = {
        VIRTIO_VSOCK_OP_REQUEST, VIRTIO_VSOCK_OP_RESPONSE, VIRTIO_VSOCK_OP_CREDIT_UPDATE,
        VIRTIO_VSOCK_OP_CREDIT_REQUEST, VIRTIO_VSOCK_OP_SHUTDOWN, VIRTIO_VSOCK_OP_RST,
    };
    struct landing *landing = &stream->vsock->landings[0];
    while (stream->say) {
        if (!pop_landing(landing, stream->vsock, true))
            return false;
        int which = __builtin_ctz(stream->say);
        stream->say &= (uint8_t)~(1u << which);
        struct virtio_vsock_hdr head = head_of(stream, operations[which]);
        if (head.op == VIRTIO_VSOCK_OP_SHUTDOWN)
            head.flags = stream->host_shut;
        land(stream->vsock, landing, &head);
        if (stream->state == STREAM_OVER)
            stream->vsock->news = true;
    }
    return true;
}

/* At most: the refusals, and the bits of each stream. False: the guest has no buffer. */
static bool say_all(struct vsock *vsock)
{
    if (!say_refusals(vsock))
        return false;
    for (uint32_t i = 0; i < vsock->stream_count; i++)
        if (!say_stream(&vsock->streams[i]))
            return false;
    return true;
}

/* What the guest has room for. One that counts wrongly gets nothing. */
static uint32_t peer_credit(const struct stream *stream)
{
    uint32_t under_way = stream->sent - stream->peer_taken;
    return under_way < stream->peer_window ? stream->peer_window - under_way : 0;
}

/* Buffers of the guest for the next read: as many as the last ones took, and one where it most
 * likely finds nothing. Returns how many. */
static uint32_t gather(size_t *ret_places, struct stream *stream, uint32_t credit)
{
    struct vsock *vsock = stream->vsock;
    uint32_t count = 0;
    size_t places = 0;
    uint32_t most = stream->drained ? 1 : stream->batch;
    while (count < most && credit) {
        struct landing *landing = &vsock->landings[count];
        if (!pop_landing(landing, vsock, count == 0))
            break;
        count++;
        if (landing->room > credit)
            landing->room = credit;
        credit -= landing->room;
        size_t skip = HEAD_BYTES;
        uint32_t left = landing->room;
        for (uint16_t i = 0; i < landing->parts && left; i++) {
            struct iovec part = landing->part[i];
            size_t cut = skip < part.iov_len ? skip : part.iov_len;
            skip -= cut;
            part.iov_base = (uint8_t *)part.iov_base + cut;
            part.iov_len -= cut;
            if (part.iov_len > left)
                part.iov_len = left;
            left -= (uint32_t)part.iov_len;
            if (part.iov_len)
                vsock->places[places++] = part;
        }
    }
    *ret_places = places;
    return count;
}

/* The buffers that bytes fill go to the guest, the others back. */
static void send_gathered(struct stream *stream, uint32_t count, uint32_t bytes)
{
    struct vsock *vsock = stream->vsock;
    uint32_t used = 0;
    stream->sent += bytes;
    while (bytes) {
        assert(used < count);
        const struct landing *landing = &vsock->landings[used++];
        struct virtio_vsock_hdr head = head_of(stream, VIRTIO_VSOCK_OP_RW);
        head.len = bytes < landing->room ? bytes : landing->room;
        bytes -= head.len;
        land(vsock, landing, &head);
        stream->say &= (uint8_t)~SAY_CREDIT;
    }
    for (uint32_t i = used; i < count; i++)
        virtqueue_unpop(&vsock->device.queues[VSOCK_RX]);
    bool filled = used == count;
    if (!filled && used)
        stream->batch = (uint8_t)(used + 1);
    else if (filled && !stream->drained)
        stream->batch = (uint8_t)(count * 2 > LANDINGS ? LANDINGS : count * 2);
    stream->drained = !filled;
}

/* One read from the host straight into the guest's buffers. Returns how many it took; 0: it is
 * some other stream's turn. */
static uint32_t read_host(struct stream *stream)
{
    uint32_t credit = peer_credit(stream);
    if (credit == 0) {
        if (!stream->asked)
            stream->say |= SAY_ASK_CREDIT;
        stream->asked = true;
        return 0;
    }
    stream->asked = false;
    size_t places;
    uint32_t count = gather(&places, stream, credit);
    if (count == 0 || !stream->vsock->device.active)
        return 0;
    struct msghdr message = {.msg_iov = stream->vsock->places, .msg_iovlen = places};
    ssize_t got;
    do
        got = recvmsg(stream->fd, &message, MSG_DONTWAIT);
    while (got < 0 && errno == EINTR);
    bool again = got < 0 && errno == EAGAIN;
    send_gathered(stream, count, got > 0 ? (uint32_t)got : 0);
    if (got <= 0)
        stream->readable = false;
    if (got <= 0 && !again)
        stream_host_shut(stream, VIRTIO_VSOCK_SHUTDOWN_SEND);
    return got > 0 ? count : 0;
}

static bool wants_read(const struct stream *stream)
{
    return stream->state == STREAM_OPEN && stream->readable
        && !(stream->say & (SAY_REQUEST | SAY_RESPONSE));
}

/* A read of each stream in turn, until nothing moves. */
static void read_hosts(struct vsock *vsock)
{
    uint32_t budget = TURN_PACKETS, moved;
    do {
        moved = 0;
        for (uint32_t i = 0; i < vsock->stream_count && moved < budget; i++) {
            uint32_t index = (vsock->next_stream + i) % vsock->stream_count;
            if (wants_read(&vsock->streams[index]))
                moved += read_host(&vsock->streams[index]);
        }
        vsock->next_stream++;
        budget -= moved < budget ? moved : budget;
    } while (moved && budget);
    if (budget == 0)
        run_again(vsock);
}

static void tell_transport_reset(struct vsock *vsock)
{
    if (!vsock->transport_reset || !virtio_pop(&vsock->chain, &vsock->device, VSOCK_EVENT))
        return;
    const struct virtio_vsock_event event = {.id = VIRTIO_VSOCK_EVENT_TRANSPORT_RESET};
    if (virtqueue_write(&vsock->chain, 0, &event, sizeof event) != sizeof event) {
        virtio_fail(&vsock->device);
        return;
    }
    vsock->transport_reset = false;
    virtio_push(&vsock->device, VSOCK_EVENT, vsock->chain.head, sizeof event);
    virtio_signal(&vsock->device, VSOCK_EVENT);
}

/* ---- packets from the guest ---- */

/* An RST is never answered: two that refuse each other would not end. */
static void refuse(struct vsock *vsock, const struct virtio_vsock_hdr *head)
{
    if (head->op == VIRTIO_VSOCK_OP_RST)
        return;
    assert(vsock->refusal_count < REFUSALS);
    uint32_t last = (vsock->refusal_first + vsock->refusal_count++) % REFUSALS;
    vsock->refusals[last] = (struct refusal){
        .host_port = head->dst_port, .guest_port = head->src_port, .type = head->type};
}

static void accept_stream(struct stream *stream, const struct virtio_vsock_hdr *head)
{
    stream->state = STREAM_OPEN;
    stream->guest_port = head->src_port;
    stream->peer_window = head->buf_alloc;
    stream->peer_taken = head->fwd_cnt;
    stream->say = SAY_RESPONSE;
    stream->hear |= HEAR_ACCEPTED;
    stream->vsock->news = true;
}

static void on_answer(struct stream *stream, const struct virtio_vsock_hdr *head)
{
    if (head->op != VIRTIO_VSOCK_OP_RESPONSE || stream->say & SAY_REQUEST) {
        stream_end(stream, SAY_RST);
        return;
    }
    stream->state = STREAM_OPEN;
    stream->hear |= HEAR_ACCEPTED;
    stream->vsock->news = true;
}

/* Bytes beyond the credit that we gave are no honest driver's. */
static bool fits(const struct stream *stream, uint32_t length)
{
    return !(stream->guest_shut & VIRTIO_VSOCK_SHUTDOWN_SEND)
        && length <= stream_window(stream) - stream->held;
}

static void on_open(struct stream *stream, const struct virtio_vsock_hdr *head)
{
    switch (head->op) {
    case VIRTIO_VSOCK_OP_RW:
        if (!fits(stream, head->len))
            stream_end(stream, SAY_RST);
        else if (head->len)
            stream_deliver(stream, HEAD_BYTES, head->len);
        return;
    case VIRTIO_VSOCK_OP_SHUTDOWN:
        stream_guest_shut(stream, (uint8_t)head->flags);
        return;
    case VIRTIO_VSOCK_OP_CREDIT_UPDATE:
        return;
    case VIRTIO_VSOCK_OP_CREDIT_REQUEST:
        stream->say |= SAY_CREDIT;
        return;
    default:
        stream_end(stream, SAY_RST);
        return;
    }
}

static void on_stream(struct stream *stream, const struct virtio_vsock_hdr *head, bool whole)
{
    stream->peer_window = head->buf_alloc;
    stream->peer_taken = head->fwd_cnt;
    if (head->op == VIRTIO_VSOCK_OP_RST)
        stream_end(stream, 0);
    else if (stream->state == STREAM_OVER)
        return; /* what crossed our RST */
    else if (!whole)
        stream_end(stream, SAY_RST);
    else if (stream->state == STREAM_DIALLING)
        on_answer(stream, head);
    else
        on_open(stream, head);
}

static void on_packet(struct vsock *vsock)
{
    struct virtio_vsock_hdr head;
    if (virtqueue_read(&head, HEAD_BYTES, &vsock->chain, 0) != HEAD_BYTES
        || head.src_cid != vsock->guest_cid || head.dst_cid != HOST_CID)
        return;
    bool whole = head.len <= vsock->chain.out_bytes - HEAD_BYTES;
    if (head.type != VIRTIO_VSOCK_TYPE_STREAM) {
        refuse(vsock, &head);
        return;
    }
    struct stream *stream = stream_find(vsock, head.dst_port, head.src_port);
    if (stream) {
        on_stream(stream, &head, whole);
        return;
    }
    if (head.op == VIRTIO_VSOCK_OP_REQUEST && whole)
        stream = stream_waiting(vsock, head.dst_port);
    if (stream)
        accept_stream(stream, &head);
    else
        refuse(vsock, &head);
}

static void from_guest(struct vsock *vsock)
{
    for (uint32_t packets = 0; packets < TURN_PACKETS; packets++) {
        if (vsock->refusal_count == REFUSALS)
            return; /* it takes no answers: it is not heard until it does */
        if (!virtio_next(&vsock->chain, &vsock->device, VSOCK_TX))
            return;
        uint16_t popped = vsock->chain.head;
        on_packet(vsock);
        virtio_push(&vsock->device, VSOCK_TX, popped, 0);
    }
    run_again(vsock);
}

/* ---- the device ---- */

void vsock_run(struct vsock *vsock)
{
    if (vsock->device.active) {
        tell_transport_reset(vsock);
        from_guest(vsock);
        bool deaf = vsock->refusal_count == REFUSALS;
        if (say_all(vsock)) {
            read_hosts(vsock);
            say_all(vsock);
        }
        if (deaf && vsock->refusal_count < REFUSALS)
            run_again(vsock);
        virtio_signal(&vsock->device, VSOCK_TX);
        virtio_signal(&vsock->device, VSOCK_RX);
    }
    streams_finish(vsock);
}

static void end_streams(struct vsock *vsock)
{
    for (uint32_t i = 0; i < vsock->stream_count; i++) {
        struct stream *stream = &vsock->streams[i];
        bool never_said = stream->state == STREAM_DIALLING && stream->say & SAY_REQUEST;
        if (stream->state != STREAM_FREE && stream->state != STREAM_WAITING && !never_said)
            stream_end(stream, 0);
    }
    vsock->refusal_count = 0;
}

void vsock_reset(struct virtio_device *device)
{
    struct vsock *vsock = vsock_of(device);
    end_streams(vsock);
    vsock->transport_reset = true;
    vsock_run(vsock);
}

static void activate(struct virtio_device *device)
{
    vsock_of(device)->transport_reset = false; /* a driver that starts has no connections */
}

static void reset(struct virtio_device *device)
{
    device->active = false; /* whatever a listener does now */
    end_streams(vsock_of(device));
    streams_finish(vsock_of(device));
}

static void notify(struct virtio_device *device, uint32_t queue)
{
    (void)queue;
    vsock_run(vsock_of(device));
}

static void read_config(struct virtio_device *device, uint32_t offset, void *to, uint32_t size)
{
    const struct virtio_vsock_config config = {.guest_cid = vsock_of(device)->guest_cid};
    virtio_config_read(to, size, offset, &config, sizeof config);
}

static void destroy(struct virtio_device *device)
{
    struct vsock *vsock = vsock_of(device);
    loop_timer_stop(vsock->loop, &vsock->again);
    streams_destroy(vsock);
    munmap(vsock->held, streams_bytes());
    free(vsock);
}

/* Streams do not survive: the guest is told so as soon as it runs. */
static void save(const struct virtio_device *device, struct buffer *out)
{
    buffer_put_u32(out, ((const struct vsock *)(const void *)device)->next_port);
}

static status load(struct virtio_device *device, struct cursor *from, struct fault *fault)
{
    struct vsock *vsock = vsock_of(device);
    TRY(cursor_u32(&vsock->next_port, from, fault));
    vsock->transport_reset = true;
    return OK;
}

static const struct virtio_operations operations = {
    .name = "vsock",
    .kind = VIRTIO_KIND_VSOCK,
    .queues = VSOCK_QUEUES,
    .activate = activate,
    .reset = reset,
    .notify = notify,
    .read_config = read_config,
    .destroy = destroy,
    .save = save,
    .load = load,
};

status vsock_create(struct virtio_device **ret, uint64_t guest_cid,
                    const struct device_place *place, struct fault *fault)
{
    struct vsock *vsock = calloc(1, sizeof *vsock);
    void *held = mmap(NULL, streams_bytes(), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (!vsock || held == MAP_FAILED) {
        if (held != MAP_FAILED)
            munmap(held, streams_bytes());
        free(vsock);
        return FAIL(OUT_OF_SPACE, fault, "vsock: out of memory");
    }
    virtio_init(&vsock->device, &operations, place->host, place->line,
                UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX);
    vsock->loop = place->loop;
    vsock->guest_cid = guest_cid;
    vsock->held = held;
    for (uint32_t i = 0; i < SANDBOX_STREAMS_MAX; i++) {
        vsock->streams[i].vsock = vsock;
        vsock->streams[i].fd = -1;
    }
    *ret = &vsock->device;
    return OK;
}
