/* queue.h: a split virtqueue (virtio 1.2, 2.7) seen from the device's side.
 *
 * All of it lies in guest memory and may change at any moment, also between two reads: each
 * descriptor, index and length is read once, checked, and used from the copy. A queue that breaks
 * a rule is broken: it yields nothing more until the driver resets the device. */
#pragma once

#include "vmm/memory.h"

#include <sys/uio.h>

enum {
    VIRTQUEUE_SIZE_MAX = 256,
    VIRTQUEUE_SEGMENTS_MAX = 130, /* of one chain, in and out together */
    VIRTQUEUE_CHAIN_BYTES_MAX = 1 << 30, /* a report of free pages names up to 128 MiB */
};

struct virtqueue { /* serialisable: no pointer, nothing derived */
    uint64_t descriptors, available, used; /* guest addresses, as the driver wrote them */
    uint16_t size; /* as the driver chose it: a power of two, at most VIRTQUEUE_SIZE_MAX */
    uint16_t next_available, next_used;
    uint16_t signalled; /* next_used at the last interrupt (VIRTIO_F_EVENT_IDX) */
    bool ready, broken;
    bool event_index, indirect; /* as negotiated */
};

/* Where a chain's bytes are in our memory; the guest can change the bytes, not the places. */
struct virtqueue_chain {
    uint16_t head;
    uint16_t out_count, in_count;
    struct iovec out[VIRTQUEUE_SEGMENTS_MAX]; /* the driver's: we read */
    struct iovec in[VIRTQUEUE_SEGMENTS_MAX];  /* ours to write */
    uint32_t out_bytes, in_bytes;
};

/* The three rings lie in memory, aligned, whole and apart: to be called when the driver sets
 * QueueReady. False: broken. */
bool virtqueue_activate(struct virtqueue *queue, const struct guest_memory *memory);

/* The next chain that the driver has made available. False: none, or broken by now; *ret is then
 * worth nothing. Devices use virtio_pop, which also tells the driver. ret is large: it belongs into
 * the device, not on the stack. */
bool virtqueue_pop(struct virtqueue_chain *ret, struct virtqueue *queue,
                   const struct guest_memory *memory);
/* Undoes the last pop: its chain is the next one again. */
void virtqueue_unpop(struct virtqueue *queue);
/* The chain is the driver's again, with so many bytes written to its in segments. */
void virtqueue_push(struct virtqueue *queue, const struct guest_memory *memory, uint16_t head,
                    uint32_t written);
/* Does the driver want an interrupt for what was pushed since the last one? */
bool virtqueue_interrupts(struct virtqueue *queue, const struct guest_memory *memory);
/* Asks the driver to notify us, or not to bother. After switching it on, pop once more. A device
 * that offers VIRTIO_RING_F_EVENT_IDX must ask whenever it has found the queue empty: the driver
 * then says nothing of its own accord. */
void virtqueue_ask_notify(struct virtqueue *queue, const struct guest_memory *memory, bool wanted);

/* Copies between a chain and our memory, from a byte offset on; fewer at the chain's end. */
size_t virtqueue_read(void *to, size_t size, const struct virtqueue_chain *chain, size_t offset);
size_t virtqueue_write(const struct virtqueue_chain *chain, size_t offset, const void *from,
                       size_t size);
