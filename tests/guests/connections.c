/* connections.c: the guest's end of vsock (virtio 1.2, 5.10), first honest, then not. The host has
 * a stream waiting on each of PORTS ports: number % 4 tells what its end does: 0 nothing at all, 1
 * it is closed already, 2 it takes all, 3 it has sent much. */
#include "attack.h"

enum { RX, TX, HOST = 2, GUEST = 3, FIRST_PORT = 1024, PORTS = 20, STREAM = 1, HEAD = 44 };
enum { REQUEST = 1, RESPONSE, RST, SHUTDOWN, RW, CREDIT_UPDATE, CREDIT_REQUEST };

struct packet {
    uint64_t from, to;
    uint32_t from_port, to_port, length;
    uint16_t type, operation;
    uint32_t flags, allocated, forwarded;
} __attribute__((packed));

static uint16_t seen; /* of what the device has used of RX */
static uint16_t sent; /* packets; each has a descriptor, which is free again by then */

static void refill(uint16_t at)
{
    ring_describe(RX, at, (uint64_t)buffers[RX][at], 4096, DESC_WRITE, 0);
    ring_offer(RX, at);
}

static void start(uint64_t features)
{
    device_bring_up(&at_hand, features);
    seen = sent = 0;
    for (uint16_t i = 0; i < RING_SIZE; i++)
        refill(i);
    ring_notify(&at_hand, RX);
}

/* length: what the head says; bytes: what there is behind it, in one piece from ARENA on. */
static void send(uint32_t port, uint16_t operation, uint32_t length, uint32_t bytes, uint32_t flags,
                 uint32_t allocated, uint32_t forwarded)
{
    uint16_t at = (uint16_t)(sent % (RING_SIZE / 2) * 2);
    struct packet *packet = (struct packet *)buffers[TX][at];
    *packet = (struct packet){GUEST, HOST, 5000 + port, port, length, STREAM, operation, flags,
                              allocated, forwarded};
    ring_describe(TX, at, (uint64_t)packet, HEAD, bytes ? DESC_NEXT : 0, (uint16_t)(at + 1));
    ring_describe(TX, (uint16_t)(at + 1), ARENA, bytes, 0, 0);
    ring_offer(TX, at);
    ring_notify(&at_hand, TX);
    sent++;
    ring_await(&at_hand, TX, sent);
}

/* Takes what came; true: one of these operations was among it, for this port. */
static bool heard(uint32_t port, unsigned operations)
{
    bool found = false;
    while (__atomic_load_n(&rings[RX].used.index, __ATOMIC_ACQUIRE) != seen) {
        uint32_t at = rings[RX].used.entries[seen++ % RING_SIZE].id;
        if (at >= RING_SIZE) {
            fail("a buffer that was never offered came back");
            return false;
        }
        const struct packet *packet = (const struct packet *)buffers[RX][at];
        found |= packet->from_port == port && packet->operation < 32
            && operations >> packet->operation & 1;
        refill((uint16_t)at);
    }
    return found;
}

static bool hear(uint32_t port, unsigned operations)
{
    for (int patience = 0; patience < 2000; patience++) {
        if (heard(port, operations))
            return true;
        (void)mmio_read(at_hand.window + REG_STATUS); /* an exit: the monitor may run */
        ring_notify(&at_hand, RX);
    }
    return false;
}

static void connect(uint32_t port)
{
    send(port, REQUEST, 0, 0, 0, 65536, 0);
    /* a host's end that is closed may have been noticed before */
    if (!hear(port, 1u << RESPONSE | (port % 4 == 1 ? 1u << RST : 0)))
        fail("a stream that waits was not given");
}

static void beyond_credit(uint32_t port)
{
    send(port, RW, 1000, 1000, 0, 65536, 0);
    for (int i = 0; i < 24; i++)
        send(port, RW, 0x10000, 0x10000, 0, 65536, 0);
    send(port, RW, 0x2000000, 0x2000000, 0, 65536, 0);
    if (!hear(port, 1u << RST))
        fail("more than there was credit for, and no RST");
}

static void twice(uint32_t port)
{
    send(port, REQUEST, 0, 0, 0, 65536, 0);
    if (!hear(port, 1u << RST))
        fail("a second REQUEST, and no RST");
    send(port, REQUEST, 0, 0, 0, 65536, 0);
    send(port, RESPONSE, 0, 0, 0, 65536, 0);
    for (int i = 0; i < 100; i++)
        send(port, RST, 0, 0, 0, 65536, 0);
}

static void half_closed(uint32_t port)
{
    send(port, RW, 100, 100, 0, 65536, 0);
    send(port, SHUTDOWN, 0, 0, 2, 65536, 0); /* it sends no more */
    send(port, RW, 100, 100, 0, 65536, 0);   /* it does */
    send(port, SHUTDOWN, 0, 0, 0xFFFFFFFC, 65536, 0);
    send(port, SHUTDOWN, 0, 0, 3, 65536, 0);
    send(port, SHUTDOWN, 0, 0, 1, 65536, 0);
}

static void lies(uint32_t port)
{
    static const uint32_t numbers[] = {0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 44};
    for (uint64_t i = 0; i < rounds() * 2; i++) {
        uint32_t allocated = numbers[random_next() % 6], forwarded = numbers[random_next() % 6];
        send(port, i % 3 ? CREDIT_UPDATE : CREDIT_REQUEST, 0, 0, 0, allocated, forwarded);
        send(port, RW, (uint32_t)random_next() % 64, 64, 0, allocated, (uint32_t)random_next());
        heard(port, 1u << RST);
    }
    send(port, RW, 4096, 64, 0, 65536, 0); /* more than there is */
    send(port, RW, 0xFFFFFFFF, 64, 0, 65536, 0);
}

/* The host would have to make up the rest. */
static void longer_than_it_is(uint32_t port)
{
    send(port, RW, 64, 64, 0, 65536, 0);
    send(port, RW, 65, 64, 0, 65536, 0);
    if (!hear(port, 1u << RST))
        fail("a packet that is longer than it is, and no RST");
}

void attack_connections(void)
{
    static void (*const attacks[])(uint32_t port) = {beyond_credit, twice, half_closed, lies,
                                                     longer_than_it_is};
    begin("connections: beyond their credit, twice, half closed, with lies about credit");
    memset((void *)ARENA, 0, 4096);
    for (uint32_t i = 0; i < PORTS; i++) {
        if (i % 4 == 0)
            start((uint64_t)(i / 4) << 28); /* indirect tables, event indices, in all ways */
        connect(FIRST_PORT + i);
        attacks[i / 4](FIRST_PORT + i);
    }
    device_reset(&at_hand);
}
