/* vsock.h: inside of the vsock device (virtio 1.2, 5.10): for vsock*.c alone.
 *
 * vsock.c speaks with the guest: queues and packets. vsock_stream.c speaks with the host: the
 * descriptor of a stream, and what it has not taken yet. Nothing here allocates once the device is
 * made, but the loop for each stream's source. */
#pragma once

#include "base/limits.h"
#include "vmm/virtio/devices.h"

#include <linux/virtio_vsock.h>

enum { VSOCK_RX, VSOCK_TX, VSOCK_EVENT, VSOCK_QUEUES };

enum stream_state {
    STREAM_FREE,
    STREAM_WAITING,  /* for the guest to dial */
    STREAM_DIALLING, /* for the guest to answer */
    STREAM_OPEN,
    STREAM_OVER,     /* the guest has no part in it any more; what it sent still goes to the host */
};

enum { /* packets that the guest is to get as soon as it has a buffer; in order of sending */
    SAY_REQUEST = 1, SAY_RESPONSE = 2, SAY_CREDIT = 4, SAY_ASK_CREDIT = 8, SAY_SHUTDOWN = 16,
    SAY_RST = 32,
};

enum { HEAR_ACCEPTED = 1, HEAR_CLOSED = 2 };

struct vsock;

struct stream {
    struct vsock *vsock;
    struct loop_source *source; /* edge-triggered: no call of the kernel's to arm and disarm */
    struct vsock_listener listener;
    int fd; /* -1: closed */
    uint32_t host_port, guest_port;
    uint32_t peer_window, peer_taken; /* the guest's buf_alloc and fwd_cnt */
    uint32_t sent, received;          /* bytes to and from the guest, modulo 2^32 */
    uint32_t told;                    /* the fwd_cnt that the guest knows */
    uint32_t first, held, deepest;    /* what the host has not taken: a ring of window_of() */
    uint8_t state;
    uint8_t say, hear;
    uint8_t guest_shut, host_shut; /* VIRTIO_VSOCK_SHUTDOWN_*: what is over on either side */
    uint8_t batch;                 /* buffers of the guest that the next read may fill */
    bool readable;                 /* since the last EAGAIN */
    bool drained;                  /* the last read left room: EAGAIN is next, most likely */
    bool blocked;                  /* the host takes nothing: EPOLLOUT will tell */
    bool asked;                    /* for credit, since there was some */
};

enum { LANDINGS = 32, LANDING_PARTS = 4, REFUSALS = 64 };

struct landing { /* a buffer of the guest's, popped, for a packet to it */
    uint16_t head, parts;
    uint32_t room; /* for data, behind the header */
    struct iovec part[LANDING_PARTS];
};

struct refusal { /* RST for a connection that there is not */
    uint32_t host_port, guest_port;
    uint16_t type;
};

struct vsock {
    struct virtio_device device; /* first */
    struct loop *loop;
    struct loop_timer again;     /* more is to be done than one turn may */
    uint64_t guest_cid;
    uint32_t next_port;          /* ours, for the next stream that dials */
    uint32_t stream_count;       /* all behind are free */
    uint32_t next_stream;        /* that is served first in the next turn */
    bool transport_reset;        /* the guest is to be told */
    bool news;                   /* a listener is to hear, or a stream may be given back */
    uint8_t *held;               /* of all streams, one mapping; touched only when needed */
    struct stream streams[SANDBOX_STREAMS_MAX];
    uint32_t refusal_first, refusal_count;
    struct refusal refusals[REFUSALS];
    struct landing landings[LANDINGS];
    struct iovec places[VIRTQUEUE_SEGMENTS_MAX];
    struct virtqueue_chain chain;
};

/* Most sandboxes have one stream: the first are wide, and all 64 together are bounded. */
uint32_t stream_window(const struct stream *stream);
uint64_t streams_bytes(void);

struct vsock *vsock_of(struct virtio_device *device);
/* Everything that can be done now: packets both ways, then what listeners are to hear. */
void vsock_run(struct vsock *vsock);

/* ---- vsock_stream.c ---- */

/* The stream that this packet is about; NULL: none. */
struct stream *stream_find(struct vsock *vsock, uint32_t host_port, uint32_t guest_port);
struct stream *stream_waiting(struct vsock *vsock, uint32_t host_port);
/* For the guest it is over; held bytes are flushed, then the descriptor is closed. */
void stream_end(struct stream *stream, uint8_t say);
/* length bytes of vsock->chain, from offset on, which are within the window: to the host. */
void stream_deliver(struct stream *stream, size_t offset, uint32_t length);
/* The guest has said that it will not send, or receive, any more. */
void stream_guest_shut(struct stream *stream, uint8_t flags);
/* VIRTIO_VSOCK_SHUTDOWN_*: the host sends nothing more, or takes nothing more. */
void stream_host_shut(struct stream *stream, uint8_t flags);
/* Calls listeners, gives back what is over. */
void streams_finish(struct vsock *vsock);
/* Tells the guest of bytes that the host has taken, when that is worth a packet. */
void stream_credit(struct stream *stream);
void streams_destroy(struct vsock *vsock);
