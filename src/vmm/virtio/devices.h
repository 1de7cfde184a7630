/* devices.h: how each device is made. All of them live on the device thread's loop, under the
 * machine's lock; each takes its descriptors and closes them when it is freed. */
#pragma once

#include "base/loop.h"
#include "vmm/virtio/device.h"
#include "wire/sandbox.h"

struct device_place { /* what every device needs */
    const struct virtio_host *host;
    struct loop *loop;
    uint32_t line;
};

struct block_config {
    int base;     /* raw image, read-only; -1: zeros */
    int overlay;  /* what is written; an empty regular file; -1: the device is read-only */
    uint64_t bytes; /* of the device, whole sectors of 512; beyond base: zeros */
    struct sandbox_rate rate_bytes, rate_ops;
    char serial[20]; /* VIRTIO_BLK_T_GET_ID; without NUL when full */
};

struct net_config {
    int tap; /* IFF_TAP | IFF_NO_PI, non-blocking: no IFF_VNET_HDR, no offloads (see net.c) */
    uint8_t mac[6];
    struct sandbox_rate rate_bytes, rate_packets; /* each way */
};

/* Takes the descriptors on success only; BAD_FIELD for one that is no regular file. */
MUST_CHECK status block_create(struct virtio_device **ret, const struct block_config *config,
                               const struct device_place *place, struct fault *fault);
MUST_CHECK status net_create(struct virtio_device **ret, const struct net_config *config,
                             const struct device_place *place, struct fault *fault);
MUST_CHECK status rng_create(struct virtio_device **ret, const struct device_place *place,
                             struct fault *fault);
/* With VIRTIO_BALLOON_F_REPORTING, _DEFLATE_ON_OOM, _STATS_VQ. */
MUST_CHECK status balloon_create(struct virtio_device **ret, const struct device_place *place,
                                 struct fault *fault);
void balloon_set_target(struct virtio_device *balloon, uint32_t pages_4k);
uint32_t balloon_actual(const struct virtio_device *balloon); /* 4 KiB pages, as the guest says */
/* The guest's answer comes when it likes; until then the older one stands. */
void balloon_ask_stats(struct virtio_device *balloon);
/* value of VIRTIO_BALLOON_S_*; false: the guest has not said. */
bool balloon_stat(uint64_t *ret, const struct virtio_device *balloon, uint16_t tag);

/* A stream to or from the guest's CID is one end of a SOCK_STREAM socketpair; the device never
 * listens, dials or makes a socket. */
MUST_CHECK status vsock_create(struct virtio_device **ret, uint64_t guest_cid,
                               const struct device_place *place, struct fault *fault);
/* Of one stream. Called on the device thread at the end of what the device does; each at most once.
 * NULL: nobody asks. */
struct vsock_listener {
    void (*accepted)(void *context); /* the guest has dialled (ACCEPT) or answered (CONNECT) */
    /* The host's end is closed, or the guest has ended the stream, refused it, or is reset. */
    void (*closed)(void *context);
    void *context;
};

/* Takes fd, also when it fails. how: of enum vmm_stream. CONFLICT: this port waits already;
 * TOO_LARGE: SANDBOX_STREAMS_MAX are open. A stream that waits (ACCEPT) outlives a reset of the
 * driver. CONNECT: nothing listens there yet, or no more: the guest refuses, fd is closed. */
MUST_CHECK status vsock_stream(struct virtio_device *vsock, int fd, uint32_t port,
                               enum vmm_stream how, const struct vsock_listener *listener,
                               struct fault *fault);
/* Ends every stream that is open and tells the guest (VIRTIO_VSOCK_EVENT_TRANSPORT_RESET): after a
 * snapshot was taken or loaded. */
void vsock_reset(struct virtio_device *vsock);

void device_free(struct virtio_device *device); /* of any kind; NULL is fine */
