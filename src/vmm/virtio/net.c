/* The network device (virtio 1.2, 5.1) on a tap. No offloads are offered and the tap has no virtio
 * header: a frame is at most 1514 bytes as it would be on a wire, and the host's kernel never
 * parses a header that a guest made. Each frame is copied once, judged, and sent from the copy. */
#define _GNU_SOURCE
#include "vmm/virtio/bucket.h"
#include "vmm/virtio/devices.h"

#include "base/clock.h"

#include <assert.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { RX, TX, QUEUES };
enum {
    HEAD_BYTES = sizeof(struct virtio_net_hdr_v1),
    BUFFER_BYTES_MIN = 1526,     /* of every receive buffer (5.1.6.3.1) */
    TURN_FRAMES = 128,           /* each way */
    MAC_BYTES = ETH_ALEN,
    ETHERTYPE_AT = 2 * ETH_ALEN,
};

static_assert(HEAD_BYTES == 12, "virtio 1.2, 5.1.6");
static_assert(HEAD_BYTES + ETH_FRAME_LEN <= BUFFER_BYTES_MIN, "a frame fits every buffer");

struct rate { /* of one direction */
    struct bucket bytes, packets;
    struct loop_timer timer; /* armed: its turn has not come yet */
};

struct packet {
    struct virtio_net_hdr_v1 head;
    uint8_t frame[ETH_FRAME_LEN + 1]; /* one more: a longer one is seen to be longer */
};

struct net {
    struct virtio_device device; /* first */
    struct loop *loop;
    struct loop_source *source;  /* NULL: the tap is gone */
    struct loop_timer again;
    int tap;
    bool armed;                  /* frames from the tap are waited for */
    uint8_t address[MAC_BYTES];
    struct rate rx, tx;
    struct packet packet;
    struct virtqueue_chain chain;
};

static struct net *net_of(struct virtio_device *device)
{
    return (struct net *)(void *)device;
}

static void from_tap(struct net *net);
static void to_tap(struct net *net);

/* A frame of so many bytes may pass now; else the timer comes when it may. */
static bool is_due(struct net *net, struct rate *rate, uint64_t bytes, int64_t now_us,
                   loop_on_time *on_time)
{
    int64_t packets_us = bucket_wait_us(&rate->packets, 1, now_us);
    int64_t bytes_us = bucket_wait_us(&rate->bytes, bytes, now_us);
    int64_t wait_us = packets_us > bytes_us ? packets_us : bytes_us;
    if (wait_us > 0)
        virtio_go_on(&net->device, net->loop, &rate->timer, wait_us, on_time);
    return wait_us == 0;
}

/* To be called when it is due: then there are tokens. */
static void spend(struct rate *rate, uint64_t bytes, int64_t now_us)
{
    (void)bucket_take(&rate->packets, 1, now_us);
    (void)bucket_take(&rate->bytes, bytes, now_us);
}

/* ---- from the tap ---- */

static void arm(struct net *net, bool armed)
{
    struct fault fault;
    if (!net->source || net->armed == armed)
        return;
    net->armed = armed;
    if (loop_change(net->loop, net->source, armed ? EPOLLIN : 0, &fault) != OK)
        virtio_fail(&net->device);
}

static void on_rx_time(void *context)
{
    from_tap(context);
}

/* What the tap yields goes into net->packet. Returns the bytes of the frame; 0: one that is
 * dropped; -1: there is none. */
static ssize_t read_frame(struct net *net)
{
    ssize_t got;
    do
        got = read(net->tap, net->packet.frame, sizeof net->packet.frame);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return -1;
    return got < ETH_HLEN || got > ETH_FRAME_LEN ? 0 : got;
}

/* False: nothing more now. How long the next frame is nobody knows yet: it must be due whatever its
 * length. */
static bool receive(struct net *net)
{
    int64_t now_us = clock_monotonic_us();
    if (!is_due(net, &net->rx, ETH_FRAME_LEN, now_us, on_rx_time)
        || !virtio_next(&net->chain, &net->device, RX)) {
        arm(net, false);
        return false;
    }
    if (net->chain.in_bytes < BUFFER_BYTES_MIN) {
        virtio_fail(&net->device);
        return false;
    }
    arm(net, true);
    ssize_t got = read_frame(net);
    if (got >= 0)
        spend(&net->rx, (uint64_t)got, now_us);
    if (got <= 0) {
        virtqueue_unpop(&net->device.queues[RX]);
        return got == 0;
    }
    net->packet.head = (struct virtio_net_hdr_v1){.num_buffers = 1};
    uint32_t bytes = HEAD_BYTES + (uint32_t)got;
    virtqueue_write(&net->chain, 0, &net->packet, bytes);
    virtio_push(&net->device, RX, net->chain.head, bytes);
    return true;
}

static void from_tap(struct net *net)
{
    if (net->rx.timer.due_us || !net->source)
        return;
    if (!net->device.active) {
        arm(net, false);
        return;
    }
    for (int frames = 0; frames < TURN_FRAMES && receive(net); frames++)
        ; /* what is left after that many, the loop tells of in its next turn */
    virtio_signal(&net->device, RX);
}

static void on_tap(void *context, uint32_t events)
{
    struct net *net = context;
    if (events & (EPOLLERR | EPOLLHUP)) /* it would be told for ever */
        net->source = loop_unwatch(net->loop, net->source);
    else
        from_tap(net);
}

/* ---- to the tap ---- */

/* Only what a wire could carry, from the address that the guest was given, untagged. */
static bool may_leave(const struct net *net, size_t frame_bytes)
{
    const struct virtio_net_hdr_v1 *head = &net->packet.head;
    const uint8_t *frame = net->packet.frame;
    uint16_t type = (uint16_t)(frame[ETHERTYPE_AT] << 8 | frame[ETHERTYPE_AT + 1]);
    return frame_bytes >= ETH_HLEN && frame_bytes <= ETH_FRAME_LEN
        && head->flags == 0 && head->gso_type == VIRTIO_NET_HDR_GSO_NONE
        && span_equal((struct span){frame + MAC_BYTES, MAC_BYTES}, SPAN_OF(net->address))
        && type != ETH_P_8021Q && type != ETH_P_8021AD;
}

static void on_tx_time(void *context)
{
    to_tap(context);
}

static void send_chain(struct net *net)
{
    uint32_t bytes = net->chain.out_bytes;
    if (bytes < HEAD_BYTES || bytes > HEAD_BYTES + ETH_FRAME_LEN)
        return;
    virtqueue_read(&net->packet, bytes, &net->chain, 0);
    if (!may_leave(net, bytes - HEAD_BYTES))
        return;
    /* a tap that is full, down or gone loses frames, as a wire does */
    if (write(net->tap, net->packet.frame, bytes - HEAD_BYTES) < 0)
        return;
}

static void to_tap(struct net *net)
{
    if (net->tx.timer.due_us || !net->device.active)
        return;
    int frames = 0;
    for (; frames < TURN_FRAMES && virtio_next(&net->chain, &net->device, TX); frames++) {
        uint32_t bytes = net->chain.out_bytes; /* junk costs what a frame does */
        uint64_t cost = bytes < ETH_FRAME_LEN ? bytes : ETH_FRAME_LEN;
        int64_t now_us = clock_monotonic_us();
        if (!is_due(net, &net->tx, cost, now_us, on_tx_time)) {
            virtqueue_unpop(&net->device.queues[TX]);
            break;
        }
        spend(&net->tx, cost, now_us);
        send_chain(net);
        virtio_push(&net->device, TX, net->chain.head, 0);
    }
    if (frames == TURN_FRAMES)
        virtio_go_on(&net->device, net->loop, &net->again, 0, on_tx_time);
    virtio_signal(&net->device, TX);
}

/* ---- the device ---- */

static void reset(struct virtio_device *device)
{
    (void)device; /* nothing is under way between two turns */
}

static void notify(struct virtio_device *device, uint32_t queue)
{
    if (queue == TX)
        to_tap(net_of(device));
    else
        from_tap(net_of(device));
}

static void read_config(struct virtio_device *device, uint32_t offset, void *to, uint32_t size)
{
    virtio_config_read(to, size, offset, net_of(device)->address, MAC_BYTES);
}

static void destroy(struct virtio_device *device)
{
    struct net *net = net_of(device);
    loop_timer_stop(net->loop, &net->again);
    loop_timer_stop(net->loop, &net->rx.timer);
    loop_timer_stop(net->loop, &net->tx.timer);
    net->source = loop_unwatch(net->loop, net->source);
    close(net->tap);
    free(net);
}

static void save(const struct virtio_device *device, struct buffer *out)
{
    const struct net *net = (const struct net *)(const void *)device;
    buffer_put(out, SPAN_OF(net->address));
    bucket_save(&net->rx.bytes, out);
    bucket_save(&net->rx.packets, out);
    bucket_save(&net->tx.bytes, out);
    bucket_save(&net->tx.packets, out);
}

static status load(struct virtio_device *device, struct cursor *from, struct fault *fault)
{
    struct net *net = net_of(device);
    int64_t now_us = clock_monotonic_us();
    TRY(cursor_copy(net->address, from, MAC_BYTES, fault));
    TRY(bucket_load(&net->rx.bytes, from, now_us, fault));
    TRY(bucket_load(&net->rx.packets, from, now_us, fault));
    TRY(bucket_load(&net->tx.bytes, from, now_us, fault));
    TRY(bucket_load(&net->tx.packets, from, now_us, fault));
    return OK;
}

static const struct virtio_operations operations = {
    .name = "net",
    .kind = VIRTIO_KIND_NET,
    .queues = QUEUES,
    .reset = reset,
    .notify = notify,
    .read_config = read_config,
    .destroy = destroy,
    .save = save,
    .load = load,
};

static struct rate rate_of(const struct net_config *config)
{
    int64_t now_us = clock_monotonic_us();
    return (struct rate){
        .bytes = bucket_of(&config->rate_bytes, now_us),
        .packets = bucket_of(&config->rate_packets, now_us),
    };
}

status net_create(struct virtio_device **ret, const struct net_config *config,
                  const struct device_place *place, struct fault *fault)
{
    struct net *net = calloc(1, sizeof *net);
    if (!net) {
        close(config->tap);
        return FAIL(OUT_OF_SPACE, fault, "net: out of memory");
    }
    virtio_init(&net->device, &operations, place->host, place->line,
                UINT64_C(1) << VIRTIO_NET_F_MAC | UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX);
    net->loop = place->loop;
    net->tap = config->tap;
    memcpy(net->address, config->mac, MAC_BYTES);
    net->rx = rate_of(config);
    net->tx = rate_of(config);
    status watched = loop_watch(&net->source, net->loop, net->tap, 0, on_tap, net, fault);
    if (watched != OK) {
        close(net->tap);
        free(net);
        return watched;
    }
    *ret = &net->device;
    return OK;
}
