#include "vmm/virtio/queue.h"

#include <assert.h>
#include <linux/virtio_ring.h>
#include <string.h>

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "rings are read as they are");
static_assert(VIRTQUEUE_SIZE_MAX < UINT16_MAX / 2, "indices wrap at 16 bits");

/* A driver may put an indirect table anywhere. Volatile: one load, whatever the compiler thinks. */
struct __attribute__((packed, may_alias)) unaligned_u64 {
    uint64_t value;
};

static uint64_t load_u64(const uint8_t *at)
{
    return ((const volatile struct unaligned_u64 *)at)->value;
}

static uint16_t load_u16(const uint16_t *at)
{
    return __atomic_load_n(at, __ATOMIC_RELAXED);
}

static bool broken(struct virtqueue *queue)
{
    queue->broken = true;
    return false;
}

static uint64_t descriptors_bytes(const struct virtqueue *queue)
{
    return (uint64_t)queue->size * sizeof(struct vring_desc);
}

/* Both with the event field at their end, which is there whether it was negotiated or not. */
static uint64_t available_bytes(const struct virtqueue *queue)
{
    return sizeof(struct vring_avail) + (uint64_t)(queue->size + 1) * sizeof(uint16_t);
}

static uint64_t used_bytes(const struct virtqueue *queue)
{
    return sizeof(uint16_t) * 3 + (uint64_t)queue->size * sizeof(struct vring_used_elem);
}

static struct vring_avail *available_ring(const struct virtqueue *queue,
                                          const struct guest_memory *memory)
{
    return memory_at(memory, queue->available, available_bytes(queue));
}

static struct vring_used *used_ring(const struct virtqueue *queue,
                                    const struct guest_memory *memory)
{
    return memory_at(memory, queue->used, used_bytes(queue));
}

/* Neither range wraps: both lie in memory. */
static bool apart(uint64_t left, uint64_t left_bytes, uint64_t right, uint64_t right_bytes)
{
    return left + left_bytes <= right || right + right_bytes <= left;
}

bool virtqueue_activate(struct virtqueue *queue, const struct guest_memory *memory)
{
    bool size_fits = queue->size != 0 && queue->size <= VIRTQUEUE_SIZE_MAX
        && (queue->size & (queue->size - 1)) == 0;
    bool aligned = queue->descriptors % VRING_DESC_ALIGN_SIZE == 0
        && queue->available % VRING_AVAIL_ALIGN_SIZE == 0
        && queue->used % VRING_USED_ALIGN_SIZE == 0;
    if (!size_fits || !aligned
        || !memory_at(memory, queue->descriptors, descriptors_bytes(queue))
        || !available_ring(queue, memory) || !used_ring(queue, memory)
        || !apart(queue->descriptors, descriptors_bytes(queue), queue->available,
                  available_bytes(queue))
        || !apart(queue->descriptors, descriptors_bytes(queue), queue->used, used_bytes(queue))
        || !apart(queue->available, available_bytes(queue), queue->used, used_bytes(queue)))
        return broken(queue);
    queue->ready = true;
    return true;
}

struct table { /* of descriptors: the queue's own, or an indirect one */
    const uint8_t *at;
    uint64_t count;
};

static struct vring_desc descriptor_at(const struct table *table, uint16_t index)
{
    const uint8_t *at = table->at + (size_t)index * sizeof(struct vring_desc);
    uint64_t rest = load_u64(at + sizeof(uint64_t));
    return (struct vring_desc){
        .addr = load_u64(at),
        .len = (uint32_t)rest,
        .flags = (uint16_t)(rest >> 32),
        .next = (uint16_t)(rest >> 48),
    };
}

/* The table that an indirect descriptor names; at: NULL when it is none. */
static struct table indirect_table(const struct vring_desc *descriptor,
                                   const struct guest_memory *memory)
{
    struct table table = {.count = descriptor->len / sizeof(struct vring_desc)};
    if (descriptor->len % sizeof(struct vring_desc) == 0
        && !(descriptor->flags & VRING_DESC_F_NEXT))
        table.at = memory_at(memory, descriptor->addr, descriptor->len);
    return table;
}

/* Segments for us to write come after all those to read (2.7.4.2). */
static bool add_segment(struct virtqueue_chain *chain, const struct vring_desc *descriptor,
                        const struct guest_memory *memory)
{
    void *base = memory_at(memory, descriptor->addr, descriptor->len);
    bool writable = descriptor->flags & VRING_DESC_F_WRITE;
    uint64_t bytes = (uint64_t)chain->out_bytes + chain->in_bytes + descriptor->len;
    if (!base || chain->out_count + chain->in_count == VIRTQUEUE_SEGMENTS_MAX
        || bytes > VIRTQUEUE_CHAIN_BYTES_MAX || (!writable && chain->in_count))
        return false;
    struct iovec segment = {.iov_base = base, .iov_len = descriptor->len};
    if (writable) {
        chain->in[chain->in_count++] = segment;
        chain->in_bytes += descriptor->len;
    } else {
        chain->out[chain->out_count++] = segment;
        chain->out_bytes += descriptor->len;
    }
    return true;
}

/* Ends however the chain is linked: each step but one takes one of VIRTQUEUE_SEGMENTS_MAX. */
static bool walk(struct virtqueue_chain *chain, const struct virtqueue *queue,
                 const struct guest_memory *memory)
{
    struct table table = {
        .at = memory_at(memory, queue->descriptors, descriptors_bytes(queue)),
        .count = queue->size,
    };
    bool inside = false;
    uint16_t index = chain->head;
    while (table.at && index < table.count) {
        struct vring_desc descriptor = descriptor_at(&table, index);
        if (descriptor.flags & VRING_DESC_F_INDIRECT) {
            if (inside || !queue->indirect)
                return false;
            table = indirect_table(&descriptor, memory);
            inside = true;
            index = 0;
            continue;
        }
        if (!add_segment(chain, &descriptor, memory))
            return false;
        if (!(descriptor.flags & VRING_DESC_F_NEXT))
            return true;
        index = descriptor.next;
    }
    return false;
}

bool virtqueue_pop(struct virtqueue_chain *ret, struct virtqueue *queue,
                   const struct guest_memory *memory)
{
    if (!queue->ready || queue->broken)
        return false;
    const struct vring_avail *available = available_ring(queue, memory);
    if (!available)
        return broken(queue);
    /* what the driver wrote before it moved the index is to be seen: entries, descriptors, data */
    uint16_t index = __atomic_load_n(&available->idx, __ATOMIC_ACQUIRE);
    uint16_t waiting = (uint16_t)(index - queue->next_available);
    if (waiting == 0)
        return false;
    if (waiting > queue->size)
        return broken(queue);
    ret->head = load_u16(&available->ring[queue->next_available & (queue->size - 1)]);
    ret->out_count = ret->in_count = 0;
    ret->out_bytes = ret->in_bytes = 0;
    if (!walk(ret, queue, memory))
        return broken(queue);
    queue->next_available++;
    return true;
}

void virtqueue_unpop(struct virtqueue *queue)
{
    queue->next_available--;
}

void virtqueue_push(struct virtqueue *queue, const struct guest_memory *memory, uint16_t head,
                    uint32_t written)
{
    if (!queue->ready || queue->broken)
        return;
    struct vring_used *used = used_ring(queue, memory);
    if (!used) {
        broken(queue);
        return;
    }
    struct vring_used_elem *element = &used->ring[queue->next_used & (queue->size - 1)];
    __atomic_store_n(&element->id, head, __ATOMIC_RELAXED);
    __atomic_store_n(&element->len, written, __ATOMIC_RELAXED);
    queue->next_used++;
    /* the data and the element are there before the index says so */
    __atomic_store_n(&used->idx, queue->next_used, __ATOMIC_RELEASE);
}

bool virtqueue_interrupts(struct virtqueue *queue, const struct guest_memory *memory)
{
    const struct vring_avail *available = available_ring(queue, memory);
    if (!queue->ready || queue->broken || !available)
        return false;
    uint16_t old = queue->signalled, now = queue->next_used;
    if (now == old)
        return false;
    queue->signalled = now;
    /* The driver says what it wants to hear of, then looks at the used index once more; we move the
     * index, then look at what it wants: one of the two sees the other. */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (queue->event_index)
        return vring_need_event(load_u16(&available->ring[queue->size]), now, old);
    return !(load_u16(&available->flags) & VRING_AVAIL_F_NO_INTERRUPT);
}

void virtqueue_ask_notify(struct virtqueue *queue, const struct guest_memory *memory, bool wanted)
{
    struct vring_used *used = used_ring(queue, memory);
    if (!queue->ready || queue->broken || !used)
        return;
    if (!queue->event_index) {
        uint16_t flags = wanted ? 0 : VRING_USED_F_NO_NOTIFY;
        __atomic_store_n(&used->flags, flags, __ATOMIC_RELAXED);
    } else if (wanted) {
        uint16_t *event = (uint16_t *)(void *)&used->ring[queue->size];
        __atomic_store_n(event, queue->next_available, __ATOMIC_RELAXED);
    } /* else the driver has passed the last event already and says nothing */
    if (wanted) /* the same bargain as above, the other way round */
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

size_t virtqueue_read(void *to, size_t size, const struct virtqueue_chain *chain, size_t offset)
{
    size_t done = 0;
    for (uint16_t i = 0; i < chain->out_count && done < size; i++) {
        const struct iovec *segment = &chain->out[i];
        if (offset >= segment->iov_len) {
            offset -= segment->iov_len;
            continue;
        }
        size_t left = segment->iov_len - offset;
        size_t piece = left < size - done ? left : size - done;
        memcpy((uint8_t *)to + done, (const uint8_t *)segment->iov_base + offset, piece);
        done += piece;
        offset = 0;
    }
    /* whoever reads it judges the copy, not the guest's bytes again */
    __asm__ volatile("" ::: "memory");
    return done;
}

size_t virtqueue_write(const struct virtqueue_chain *chain, size_t offset, const void *from,
                       size_t size)
{
    size_t done = 0;
    for (uint16_t i = 0; i < chain->in_count && done < size; i++) {
        const struct iovec *segment = &chain->in[i];
        if (offset >= segment->iov_len) {
            offset -= segment->iov_len;
            continue;
        }
        size_t left = segment->iov_len - offset;
        size_t piece = left < size - done ? left : size - done;
        memcpy((uint8_t *)segment->iov_base + offset, (const uint8_t *)from + done, piece);
        done += piece;
        offset = 0;
    }
    return done;
}
