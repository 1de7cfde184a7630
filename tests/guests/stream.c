#include "stream.h"

#include "cpu.h"

enum { RX, TX };
enum { HOST_CID = 2, GUEST_CID = 3, GUEST_PORT = 4711, TYPE_STREAM = 1 };
enum { OP_REQUEST = 1, OP_RESPONSE, OP_RST, OP_SHUTDOWN, OP_RW, OP_CREDIT_UPDATE,
       OP_CREDIT_REQUEST };
enum { RX_BYTES = 64 * 1024, TX_BYTES = 64 * 1024, PACKETS = RING_SIZE / 2 };

struct head {
    uint64_t from_cid, to_cid;
    uint32_t from_port, to_port, length;
    uint16_t type, op;
    uint32_t flags, room, taken;
} __attribute__((packed));

static uint8_t (*const rx)[RX_BYTES] = (uint8_t (*)[RX_BYTES])(ARENA + 0x400000);
static uint8_t (*const tx)[TX_BYTES] = (uint8_t (*)[TX_BYTES])(ARENA + 0x800000);
static uint8_t (*const held) = (uint8_t *)(ARENA + 0xC00000); /* a ring of STREAM_ROOM */

static struct device vsock;
static uint32_t host_port, host_room, host_taken, sent; /* bytes, modulo 2^32 */
static uint32_t received, taken, told;
static uint16_t rx_seen, tx_seen, tx_offered;
static bool open, closed;

static void offer_rx(uint16_t slot)
{
    ring_describe(RX, slot, (uint64_t)rx[slot], RX_BYTES, DESC_WRITE, 0);
    ring_offer(RX, slot);
}

static void take_packet(const uint8_t *packet)
{
    struct head head;
    memcpy(&head, packet, sizeof head);
    host_room = head.room;
    host_taken = head.taken;
    if (head.op == OP_RESPONSE)
        open = true;
    if (head.op == OP_RST || head.op == OP_SHUTDOWN)
        closed = true;
    if (head.op != OP_RW)
        return;
    uint32_t at = received % STREAM_ROOM;
    uint32_t first = head.length < STREAM_ROOM - at ? head.length : STREAM_ROOM - at;
    memcpy(held + at, packet + sizeof head, first);
    memcpy(held, packet + sizeof head + first, head.length - first);
    received += head.length;
}

static void take_packets(void)
{
    bool some = false;
    tx_seen = __atomic_load_n(&rings[TX].used.index, __ATOMIC_ACQUIRE);
    while (rx_seen != __atomic_load_n(&rings[RX].used.index, __ATOMIC_ACQUIRE)) {
        uint16_t slot = (uint16_t)rings[RX].used.entries[rx_seen++ % RING_SIZE].id;
        take_packet(rx[slot]);
        offer_rx(slot);
        some = true;
    }
    if (some)
        ring_notify(&vsock, RX);
}

/* False: it was only the timer. */
static bool await(void)
{
    take_packets();
    if (timer_is_over())
        return false;
    cpu_wait();
    mmio_write(vsock.window + REG_ACK, 3);
    take_packets();
    return true;
}

static void send_packet(uint16_t op, const void *head, size_t head_size, const void *body,
                        size_t body_size)
{
    uint16_t slot = tx_offered % PACKETS;
    struct head first = {
        .from_cid = GUEST_CID, .to_cid = HOST_CID, .from_port = GUEST_PORT, .to_port = host_port,
        .length = (uint32_t)(head_size + body_size), .type = TYPE_STREAM, .op = op,
        .room = STREAM_ROOM, .taken = taken,
    };
    for (take_packets(); (uint16_t)(tx_offered - tx_seen) >= PACKETS; take_packets())
        cpu_wait();
    memcpy(tx[slot], &first, sizeof first);
    memcpy(tx[slot] + sizeof first, head, head_size);
    ring_describe(TX, slot, (uint64_t)tx[slot], (uint32_t)(sizeof first + head_size),
                  body_size ? DESC_NEXT : 0, (uint16_t)(slot + PACKETS));
    ring_describe(TX, (uint16_t)(slot + PACKETS), (uint64_t)body, (uint32_t)body_size, 0, 0);
    ring_offer(TX, slot);
    tx_offered++;
    told = taken;
    ring_notify(&vsock, TX);
    for (take_packets(); body_size && tx_offered != tx_seen; take_packets())
        cpu_wait();
}

bool stream_dial(const struct device *device, uint32_t port)
{
    vsock = *device;
    host_port = port;
    device_bring_up(&vsock, 0);
    line_enable(16 + (uint32_t)((vsock.window - WINDOWS) / WINDOW_BYTES));
    for (uint16_t slot = 0; slot < PACKETS; slot++)
        offer_rx(slot);
    ring_notify(&vsock, RX);
    send_packet(OP_REQUEST, NULL, 0, NULL, 0);
    timer_start(300000);
    while (!open && !closed && await())
        ;
    return open;
}

uint32_t stream_held(void)
{
    return received - taken;
}

bool stream_read(void *to, size_t size)
{
    uint8_t *bytes = to;
    while (stream_held() < size)
        if (closed || !await())
            return false;
    uint32_t at = taken % STREAM_ROOM;
    size_t first = size < STREAM_ROOM - at ? size : STREAM_ROOM - at;
    memcpy(bytes, held + at, first);
    memcpy(bytes + first, held, size - first);
    taken += (uint32_t)size;
    if (taken - told >= STREAM_ROOM / 2)
        send_packet(OP_CREDIT_UPDATE, NULL, 0, NULL, 0);
    return true;
}

bool stream_write(const void *head, size_t head_size, const void *body, size_t body_size)
{
    uint32_t length = (uint32_t)(head_size + body_size);
    while (!closed && host_room - (sent - host_taken) < length)
        if (!await())
            return false;
    if (closed)
        return false;
    send_packet(OP_RW, head, head_size, body, body_size);
    sent += length;
    return true;
}
