/* vsock_guest.h: a guest's vsock driver in memory, packet by packet, beside the real device. */
#pragma once

#include "driver.h"

#include "base/loop.h"
#include "vmm/virtio/devices.h"

#include <linux/virtio_vsock.h>

enum { GUEST_CID = 3, GUEST_RX_BYTES = 4096, GUEST_TX_BYTES = 70000, GUEST_WINDOW = 256 * 1024 };

struct vsock_guest {
    struct driver driver;
    struct loop *loop;
    struct virtio_device *device;
    uint64_t rx[VIRTQUEUE_SIZE_MAX]; /* by head: the buffer that hangs on it */
    uint32_t rx_parts;               /* of a buffer: 1, or 2 with the header apart */
    uint64_t tx, event;
    uint32_t window;                 /* the buf_alloc that packets say */
};

struct vsock_packet {
    struct virtio_vsock_hdr head;
    const uint8_t *data; /* in guest memory, until the buffer is offered again */
    uint32_t written;
};

/* A device that runs; the guest has size buffers for it. size 0: none. */
void vsock_guest_open(struct vsock_guest *guest, uint16_t buffers);
void vsock_guest_close(struct vsock_guest *guest);
/* Negotiates anew; no buffer is offered. */
void vsock_guest_start(struct vsock_guest *guest);
void vsock_guest_fill(struct vsock_guest *guest, uint16_t buffers); /* of GUEST_RX_BYTES */
void vsock_guest_put(struct vsock_guest *guest); /* one of them, and no word of it */

/* One packet from the guest, with its head as it is: nothing is filled in but buf_alloc where it is
 * 0. claims: what is in the chain behind the header. */
void vsock_guest_send(struct vsock_guest *guest, struct virtio_vsock_hdr head, const void *data,
                      uint32_t bytes);
/* The head of an honest packet. */
struct virtio_vsock_hdr vsock_guest_head(uint32_t host_port, uint32_t guest_port, uint16_t op);
void vsock_guest_say(struct vsock_guest *guest, uint32_t host_port, uint32_t guest_port,
                     uint16_t op);
/* The next packet of the device's, whose buffer is offered again at once; false: none. */
bool vsock_guest_next(struct vsock_packet *ret, struct vsock_guest *guest);
/* Turns of the loop until nothing happens any more. */
void vsock_guest_turn(struct vsock_guest *guest);
