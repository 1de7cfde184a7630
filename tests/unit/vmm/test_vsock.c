/* The vsock device between a guest's driver in memory and real socketpairs: streams both ways, the
 * credit of both, ends in every order, and what no honest driver sends. */
#define _GNU_SOURCE
#include "vsock_guest.h"

#include "base/limits.h"

#include <errno.h>
#include <linux/virtio_ring.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

enum { PORT = 1024, GUEST_PORT = 5000 };

static struct fault fault;

struct watcher {
    int accepted, closed;
};

static void on_accepted(void *context)
{
    struct watcher *watcher = context;
    watcher->accepted++;
}

static void on_closed(void *context)
{
    struct watcher *watcher = context;
    watcher->closed++;
}

static int setup(void **state)
{
    static struct vsock_guest guest;
    vsock_guest_open(&guest, 16);
    *state = &guest;
    return 0;
}

static int teardown(void **state)
{
    vsock_guest_close(*state);
    return 0;
}

/* Our end of a stream that was handed in. */
static int stream(struct vsock_guest *guest, uint32_t port, enum vmm_stream how,
                  struct watcher *watcher)
{
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
    struct vsock_listener listener = {on_accepted, on_closed, watcher};
    assert_int_equal(vsock_stream(guest->device, ends[1], port, how,
                                  watcher ? &listener : NULL, &fault), OK);
    return ends[0];
}

static struct vsock_packet expect(struct vsock_guest *guest, uint16_t op)
{
    struct vsock_packet packet;
    assert_true(vsock_guest_next(&packet, guest));
    assert_int_equal(packet.head.op, op);
    assert_int_equal(packet.head.src_cid, 2);
    assert_int_equal(packet.head.dst_cid, GUEST_CID);
    assert_int_equal(packet.head.type, VIRTIO_VSOCK_TYPE_STREAM);
    assert_int_equal(packet.written, sizeof packet.head + packet.head.len);
    return packet;
}

static void expect_nothing(struct vsock_guest *guest)
{
    struct vsock_packet packet;
    vsock_guest_turn(guest);
    assert_false(vsock_guest_next(&packet, guest));
}

/* The guest has dialled PORT from guest_port. */
static int dialled(struct vsock_guest *guest, uint32_t guest_port, struct watcher *watcher)
{
    int host = stream(guest, PORT, VMM_STREAM_ACCEPT, watcher);
    vsock_guest_say(guest, PORT, guest_port, VIRTIO_VSOCK_OP_REQUEST);
    struct vsock_packet packet = expect(guest, VIRTIO_VSOCK_OP_RESPONSE);
    assert_int_equal(packet.head.src_port, PORT);
    assert_int_equal(packet.head.dst_port, guest_port);
    assert_true(packet.head.buf_alloc > 0);
    return host;
}

static void guest_writes(struct vsock_guest *guest, uint32_t guest_port, const void *data,
                         uint32_t bytes)
{
    struct virtio_vsock_hdr head = vsock_guest_head(PORT, guest_port, VIRTIO_VSOCK_OP_RW);
    head.len = bytes;
    vsock_guest_send(guest, head, data, bytes);
}

static void guest_shuts(struct vsock_guest *guest, uint32_t guest_port, uint32_t flags)
{
    struct virtio_vsock_hdr head = vsock_guest_head(PORT, guest_port, VIRTIO_VSOCK_OP_SHUTDOWN);
    head.flags = flags;
    vsock_guest_send(guest, head, NULL, 0);
}

static void assert_host_reads(int host, const char *text)
{
    char bytes[64] = {0};
    assert_int_equal(read(host, bytes, sizeof bytes), strlen(text));
    assert_string_equal(bytes, text);
}

static void assert_host_ended(int host)
{
    char byte;
    assert_int_equal(read(host, &byte, 1), 0);
}

static void test_config(void **state)
{
    struct vsock_guest *guest = *state;
    uint64_t cid = 0;
    virtio_mmio_read(guest->device, 0x100, &cid, sizeof cid);
    assert_int_equal(cid, GUEST_CID);
    virtio_mmio_read(guest->device, 0x108, &cid, sizeof cid);
    assert_int_equal(cid, 0);
}

static void test_guest_dials(void **state)
{
    struct vsock_guest *guest = *state;
    struct watcher watcher = {0};
    int host = dialled(guest, GUEST_PORT, &watcher);
    assert_int_equal(watcher.accepted, 1);

    assert_int_equal(write(host, "hello", 5), 5);
    vsock_guest_turn(guest);
    struct vsock_packet packet = expect(guest, VIRTIO_VSOCK_OP_RW);
    assert_int_equal(packet.head.len, 5);
    assert_memory_equal(packet.data, "hello", 5);

    guest_writes(guest, GUEST_PORT, "world", 5);
    assert_host_reads(host, "world");

    guest_shuts(guest, GUEST_PORT, 3);
    expect(guest, VIRTIO_VSOCK_OP_RST);
    assert_host_ended(host);
    assert_int_equal(watcher.closed, 1);
    close(host);
    expect_nothing(guest);
}

static void test_header_apart(void **state)
{
    (void)state;
    struct vsock_guest guest;
    vsock_guest_open(&guest, 0);
    guest.rx_parts = 2;
    vsock_guest_fill(&guest, 16);
    int host = dialled(&guest, GUEST_PORT, NULL);
    assert_int_equal(write(host, "apart", 5), 5);
    vsock_guest_turn(&guest);
    struct vsock_packet packet = expect(&guest, VIRTIO_VSOCK_OP_RW);
    assert_memory_equal(packet.data, "apart", 5);
    close(host);
    vsock_guest_close(&guest);
}

/* A port that nobody waits at, a second dial to one that waited once, bytes out of nowhere. */
static void test_unknown_is_refused(void **state)
{
    struct vsock_guest *guest = *state;
    vsock_guest_say(guest, 77, GUEST_PORT, VIRTIO_VSOCK_OP_REQUEST);
    struct vsock_packet packet = expect(guest, VIRTIO_VSOCK_OP_RST);
    assert_int_equal(packet.head.src_port, 77);
    assert_int_equal(packet.head.dst_port, GUEST_PORT);

    int host = dialled(guest, GUEST_PORT, NULL);
    vsock_guest_say(guest, PORT, GUEST_PORT + 1, VIRTIO_VSOCK_OP_REQUEST);
    assert_int_equal(expect(guest, VIRTIO_VSOCK_OP_RST).head.dst_port, GUEST_PORT + 1);

    guest_writes(guest, 9, "x", 1);
    expect(guest, VIRTIO_VSOCK_OP_RST);
    vsock_guest_say(guest, PORT, 9, VIRTIO_VSOCK_OP_RST); /* never answered */
    expect_nothing(guest);
    close(host);
}

static void test_host_dials(void **state)
{
    struct vsock_guest *guest = *state;
    struct watcher watcher = {0};
    int host = stream(guest, 80, VMM_STREAM_CONNECT, &watcher);
    struct vsock_packet packet = expect(guest, VIRTIO_VSOCK_OP_REQUEST);
    assert_int_equal(packet.head.dst_port, 80);
    uint32_t host_port = packet.head.src_port;
    assert_int_equal(write(host, "early", 5), 5);
    expect_nothing(guest);
    assert_int_equal(watcher.accepted, 0);
    vsock_guest_say(guest, host_port, 80, VIRTIO_VSOCK_OP_RESPONSE);
    assert_int_equal(watcher.accepted, 1);
    assert_memory_equal(expect(guest, VIRTIO_VSOCK_OP_RW).data, "early", 5);
    close(host);
}

static void test_guest_refuses(void **state)
{
    struct vsock_guest *guest = *state;
    struct watcher watcher = {0};
    int host = stream(guest, 80, VMM_STREAM_CONNECT, &watcher);
    uint32_t host_port = expect(guest, VIRTIO_VSOCK_OP_REQUEST).head.src_port;
    vsock_guest_say(guest, host_port, 80, VIRTIO_VSOCK_OP_RST);
    assert_host_ended(host);
    assert_int_equal(watcher.accepted, 0);
    assert_int_equal(watcher.closed, 1);
    close(host);
}

/* Before the guest's driver is there, a stream that dials waits for it. */
static void test_dials_when_the_driver_comes(void **state)
{
    struct vsock_guest *guest = *state;
    driver_reset(&guest->driver);
    int host = stream(guest, 80, VMM_STREAM_CONNECT, NULL);
    vsock_guest_start(guest);
    vsock_guest_fill(guest, 4);
    assert_int_equal(expect(guest, VIRTIO_VSOCK_OP_REQUEST).head.dst_port, 80);
    close(host);
}

/* What the host sends stays in its socket while the guest has no room for it. */
static void test_credit_of_the_guest(void **state)
{
    struct vsock_guest *guest = *state;
    guest->window = 10;
    int host = dialled(guest, GUEST_PORT, NULL);
    assert_int_equal(write(host, "0123456789abcde", 15), 15);
    vsock_guest_turn(guest);
    assert_int_equal(expect(guest, VIRTIO_VSOCK_OP_RW).head.len, 10);
    expect(guest, VIRTIO_VSOCK_OP_CREDIT_REQUEST);
    expect_nothing(guest); /* asked once */

    struct virtio_vsock_hdr head = vsock_guest_head(PORT, GUEST_PORT,
                                                    VIRTIO_VSOCK_OP_CREDIT_UPDATE);
    head.fwd_cnt = 3;
    vsock_guest_send(guest, head, NULL, 0);
    struct vsock_packet packet = expect(guest, VIRTIO_VSOCK_OP_RW);
    assert_int_equal(packet.head.len, 3);
    assert_memory_equal(packet.data, "abc", 3);
    head.fwd_cnt = 4000; /* more than it ever got */
    vsock_guest_send(guest, head, NULL, 0);
    struct vsock_packet asked;
    while (vsock_guest_next(&asked, guest))
        assert_int_equal(asked.head.op, VIRTIO_VSOCK_OP_CREDIT_REQUEST);
    close(host);
}

/* Sends until the credit is used up. Returns the bytes. */
static uint32_t guest_fills(struct vsock_guest *guest, uint32_t window, uint32_t piece)
{
    static uint8_t data[GUEST_TX_BYTES];
    uint32_t sent = 0;
    while (sent < window) {
        uint32_t next = window - sent < piece ? window - sent : piece;
        for (uint32_t i = 0; i < next; i++)
            data[i] = (uint8_t)((sent + i) * 7);
        guest_writes(guest, GUEST_PORT, data, next);
        sent += next;
    }
    return sent;
}

/* Everything that is in the socket; returns the bytes and checks them. */
static uint32_t host_drains(int host, uint32_t from)
{
    uint8_t data[4096];
    uint32_t got = 0;
    for (;;) {
        ssize_t more = read(host, data, sizeof data);
        if (more <= 0)
            return got;
        for (ssize_t i = 0; i < more; i++)
            assert_int_equal(data[i], (uint8_t)((from + got + (uint32_t)i) * 7));
        got += (uint32_t)more;
    }
}

/* The host reads nothing: the guest may send what the socket takes and one window, not more; then
 * every byte arrives in order. */
static void test_slow_host(void **state)
{
    struct vsock_guest *guest = *state;
    int host = stream(guest, PORT, VMM_STREAM_ACCEPT, NULL);
    vsock_guest_say(guest, PORT, GUEST_PORT, VIRTIO_VSOCK_OP_REQUEST);
    uint32_t window = expect(guest, VIRTIO_VSOCK_OP_RESPONSE).head.buf_alloc;
    uint32_t sent = 0, taken = 0, idle = 0;
    uint8_t piece[8192];
    struct vsock_packet packet;
    while (idle < 2) { /* as an honest driver: within its credit */
        uint32_t room = window - (sent - taken);
        uint32_t next = room < sizeof piece ? room : (uint32_t)sizeof piece;
        for (uint32_t i = 0; i < next; i++)
            piece[i] = (uint8_t)((sent + i) * 7);
        if (next)
            guest_writes(guest, GUEST_PORT, piece, next);
        sent += next;
        while (vsock_guest_next(&packet, guest))
            taken = packet.head.fwd_cnt;
        idle = next ? 0 : idle + 1;
    }
    assert_true(sent > window);
    uint32_t got = 0;
    for (int i = 0; i < 100 && got < sent; i++) {
        got += host_drains(host, got);
        vsock_guest_turn(guest);
    }
    assert_int_equal(got, sent);
    while (vsock_guest_next(&packet, guest))
        taken = packet.head.fwd_cnt;
    assert_true(sent - taken < window / 2);
    close(host);
}

static void test_beyond_credit(void **state)
{
    struct vsock_guest *guest = *state;
    struct watcher watcher = {0};
    int host = stream(guest, PORT, VMM_STREAM_ACCEPT, &watcher);
    vsock_guest_say(guest, PORT, GUEST_PORT, VIRTIO_VSOCK_OP_REQUEST);
    uint32_t window = expect(guest, VIRTIO_VSOCK_OP_RESPONSE).head.buf_alloc;
    struct vsock_packet packet = {0};
    for (int i = 0; i < 1000 && packet.head.op != VIRTIO_VSOCK_OP_RST; i++) {
        guest_fills(guest, 60000, 60000);
        (void)vsock_guest_next(&packet, guest);
        assert_true(i * 60000 < (int)(4 * window));
    }
    assert_int_equal(packet.head.op, VIRTIO_VSOCK_OP_RST);
    /* what came before still reaches the host, and nothing of what comes after */
    assert_int_equal(watcher.closed, 0);
    char data[65536];
    ssize_t got = 1;
    for (int i = 0; i < 100 && got; i++) {
        while ((got = read(host, data, sizeof data)) > 0)
            ;
        vsock_guest_turn(guest);
    }
    assert_int_equal(got, 0);
    assert_int_equal(watcher.closed, 1);
    close(host);
}

static void test_half_closes(void **state)
{
    struct vsock_guest *guest = *state;
    struct watcher watcher = {0};
    int host = dialled(guest, GUEST_PORT, &watcher);
    assert_int_equal(write(host, "last", 4), 4);
    assert_int_equal(shutdown(host, SHUT_WR), 0);
    vsock_guest_turn(guest);
    expect(guest, VIRTIO_VSOCK_OP_RW);
    assert_int_equal(expect(guest, VIRTIO_VSOCK_OP_SHUTDOWN).head.flags,
                     VIRTIO_VSOCK_SHUTDOWN_SEND);
    assert_int_equal(watcher.closed, 0);
    guest_writes(guest, GUEST_PORT, "answer", 6); /* the other way is open */
    assert_host_reads(host, "answer");
    guest_shuts(guest, GUEST_PORT, VIRTIO_VSOCK_SHUTDOWN_SEND);
    assert_host_ended(host);
    vsock_guest_turn(guest);
    assert_int_equal(expect(guest, VIRTIO_VSOCK_OP_SHUTDOWN).head.flags, 3);
    assert_int_equal(watcher.closed, 1);
    vsock_guest_say(guest, PORT, GUEST_PORT, VIRTIO_VSOCK_OP_RST);
    expect_nothing(guest);
    close(host);
}

static void test_guest_half_closes(void **state)
{
    struct vsock_guest *guest = *state;
    int host = dialled(guest, GUEST_PORT, NULL);
    guest_writes(guest, GUEST_PORT, "end", 3);
    guest_shuts(guest, GUEST_PORT, VIRTIO_VSOCK_SHUTDOWN_SEND);
    assert_host_reads(host, "end");
    assert_host_ended(host);
    assert_int_equal(write(host, "still", 5), 5);
    vsock_guest_turn(guest);
    expect(guest, VIRTIO_VSOCK_OP_RW);
    guest_writes(guest, GUEST_PORT, "x", 1); /* after it said that it would not */
    expect(guest, VIRTIO_VSOCK_OP_RST);
    close(host);
}

static void test_guest_stops_reading(void **state)
{
    struct vsock_guest *guest = *state;
    int host = dialled(guest, GUEST_PORT, NULL);
    guest_shuts(guest, GUEST_PORT, VIRTIO_VSOCK_SHUTDOWN_RCV);
    assert_int_equal(send(host, "x", 1, MSG_NOSIGNAL), -1);
    assert_int_equal(errno, EPIPE);
    guest_writes(guest, GUEST_PORT, "out", 3);
    assert_host_reads(host, "out");
    close(host);
    vsock_guest_turn(guest);
    assert_int_equal(expect(guest, VIRTIO_VSOCK_OP_SHUTDOWN).head.flags, 3);
}

/* The host closes with bytes under way: they arrive, then the end. */
static void test_host_closes(void **state)
{
    struct vsock_guest *guest = *state;
    struct watcher watcher = {0};
    int host = dialled(guest, GUEST_PORT, &watcher);
    assert_int_equal(write(host, "bye", 3), 3);
    close(host);
    vsock_guest_turn(guest);
    assert_int_equal(watcher.closed, 1);
    struct vsock_packet packet;
    assert_true(vsock_guest_next(&packet, guest));
    if (packet.head.op == VIRTIO_VSOCK_OP_SHUTDOWN) { /* that nobody reads may be said first */
        assert_int_equal(packet.head.flags, VIRTIO_VSOCK_SHUTDOWN_RCV);
        assert_true(vsock_guest_next(&packet, guest));
    }
    assert_int_equal(packet.head.op, VIRTIO_VSOCK_OP_RW);
    assert_memory_equal(packet.data, "bye", 3);
    assert_int_equal(expect(guest, VIRTIO_VSOCK_OP_SHUTDOWN).head.flags, 3);
    guest_writes(guest, GUEST_PORT, "into the void", 13);
    vsock_guest_say(guest, PORT, GUEST_PORT, VIRTIO_VSOCK_OP_RST);
    expect_nothing(guest);
}

static void test_host_closes_while_waiting(void **state)
{
    struct vsock_guest *guest = *state;
    struct watcher watcher = {0};
    int host = stream(guest, PORT, VMM_STREAM_ACCEPT, &watcher);
    close(host);
    vsock_guest_turn(guest);
    assert_int_equal(watcher.closed, 1);
    vsock_guest_say(guest, PORT, GUEST_PORT, VIRTIO_VSOCK_OP_REQUEST);
    expect(guest, VIRTIO_VSOCK_OP_RST);
    host = dialled(guest, GUEST_PORT, NULL); /* the port is free again */
    close(host);
}

static void test_bounds(void **state)
{
    struct vsock_guest *guest = *state;
    int hosts[SANDBOX_STREAMS_MAX], ends[2];
    for (uint32_t i = 0; i < SANDBOX_STREAMS_MAX; i++)
        hosts[i] = stream(guest, 1 + i, VMM_STREAM_ACCEPT, NULL);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    assert_int_equal(vsock_stream(guest->device, ends[1], 1, VMM_STREAM_ACCEPT, NULL, &fault),
                     CONFLICT);
    assert_host_ended(ends[0]); /* taken all the same */
    close(ends[0]);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    assert_int_equal(vsock_stream(guest->device, ends[1], 999, VMM_STREAM_ACCEPT, NULL, &fault),
                     TOO_LARGE);
    close(ends[0]);
    uint32_t windows = 0;
    for (uint32_t i = 0; i < SANDBOX_STREAMS_MAX; i++) {
        vsock_guest_say(guest, 1 + i, GUEST_PORT, VIRTIO_VSOCK_OP_REQUEST);
        windows += expect(guest, VIRTIO_VSOCK_OP_RESPONSE).head.buf_alloc;
    }
    assert_true(windows <= 2 << 20);
    for (uint32_t i = 0; i < SANDBOX_STREAMS_MAX; i++)
        close(hosts[i]);
    vsock_guest_turn(guest);
}

/* A guest that takes no answers is not heard until it does; nothing grows, nothing is lost. */
static void test_flood_of_junk(void **state)
{
    (void)state;
    enum { ROUNDS = 40 };
    struct vsock_guest guest;
    vsock_guest_open(&guest, 0);
    uint32_t offered = 0, answers = 0;
    for (int round = 0; round < ROUNDS; round++) {
        struct virtio_vsock_hdr head = vsock_guest_head(7, 1000 + (uint32_t)round,
                                                        VIRTIO_VSOCK_OP_RW);
        head.buf_alloc = 1;
        memcpy(driver_at(&guest.driver, guest.tx, sizeof head), &head, sizeof head);
        struct driver_segment segment = {.address = guest.tx, .length = sizeof head};
        while (driver_offer(NULL, &guest.driver, 1, &segment, 1))
            offered++;
        driver_notify(&guest.driver, 1);
        vsock_guest_turn(&guest);
        uint16_t used;
        uint32_t written;
        while (driver_used(&used, &written, &guest.driver, 1))
            ;
    }
    assert_true(offered <= DRIVER_QUEUE_SIZE + 64); /* the queue stands still, full */
    vsock_guest_fill(&guest, 8);
    struct vsock_packet packet;
    for (int i = 0; i < 200; i++) {
        while (vsock_guest_next(&packet, &guest)) {
            assert_int_equal(packet.head.op, VIRTIO_VSOCK_OP_RST);
            answers++;
        }
        vsock_guest_turn(&guest);
    }
    assert_int_equal(answers, offered);
    vsock_guest_close(&guest);
}

static void test_spoofed(void **state)
{
    struct vsock_guest *guest = *state;
    int host = dialled(guest, GUEST_PORT, NULL);
    struct virtio_vsock_hdr head = vsock_guest_head(PORT, GUEST_PORT, VIRTIO_VSOCK_OP_RW);
    head.len = 1;
    const uint64_t cids[][2] = {{4, 2}, {2, 2}, {0, 2}, {GUEST_CID, 1}, {GUEST_CID, GUEST_CID},
                                {GUEST_CID | UINT64_C(1) << 32, 2}};
    for (size_t i = 0; i < sizeof cids / sizeof *cids; i++) {
        head.src_cid = cids[i][0];
        head.dst_cid = cids[i][1];
        vsock_guest_send(guest, head, "x", 1);
    }
    expect_nothing(guest);
    char byte;
    assert_int_equal(read(host, &byte, 1), -1);
    close(host);
}

/* Each ends the stream with an RST, and the device goes on. */
static void test_hostile_packets(void **state)
{
    struct vsock_guest *guest = *state;
    static const struct {
        uint16_t op;
        uint32_t len, bytes;
    } cases[] = {
        {VIRTIO_VSOCK_OP_RW, 100, 4},          /* longer than its chain */
        {VIRTIO_VSOCK_OP_RW, UINT32_MAX, 4},
        {VIRTIO_VSOCK_OP_RW, UINT32_MAX - 43, 4}, /* which a sum would wrap */
        {VIRTIO_VSOCK_OP_REQUEST, 0, 0},       /* again */
        {VIRTIO_VSOCK_OP_RESPONSE, 0, 0},      /* to nothing */
        {VIRTIO_VSOCK_OP_INVALID, 0, 0},
        {99, 0, 0},
        {UINT16_MAX, 4, 4},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct watcher watcher = {0};
        int host = dialled(guest, GUEST_PORT, &watcher);
        struct virtio_vsock_hdr head = vsock_guest_head(PORT, GUEST_PORT, cases[i].op);
        head.len = cases[i].len;
        vsock_guest_send(guest, head, "data", cases[i].bytes);
        expect(guest, VIRTIO_VSOCK_OP_RST);
        assert_int_equal(watcher.closed, 1);
        assert_host_ended(host);
        close(host);
    }
}

static void test_short_and_strange(void **state)
{
    struct vsock_guest *guest = *state;
    struct driver_segment segment = {.address = guest->tx, .length = 43};
    assert_true(driver_offer(NULL, &guest->driver, 1, &segment, 1));
    driver_notify(&guest->driver, 1);
    struct virtio_vsock_hdr head = vsock_guest_head(PORT, GUEST_PORT, VIRTIO_VSOCK_OP_REQUEST);
    head.type = VIRTIO_VSOCK_TYPE_SEQPACKET;
    vsock_guest_send(guest, head, NULL, 0);
    struct vsock_packet packet;
    assert_true(vsock_guest_next(&packet, guest));
    assert_int_equal(packet.head.op, VIRTIO_VSOCK_OP_RST);
    assert_int_equal(packet.head.type, VIRTIO_VSOCK_TYPE_SEQPACKET);
    expect_nothing(guest);
    assert_true(guest->device->active);
}

/* A buffer without room for a byte of data: no driver of this world. */
static void test_tiny_buffer(void **state)
{
    (void)state;
    struct vsock_guest guest;
    vsock_guest_open(&guest, 0);
    struct driver_segment segment = {guest.tx, 44, true};
    assert_true(driver_offer(NULL, &guest.driver, 0, &segment, 1));
    vsock_guest_say(&guest, PORT, GUEST_PORT, VIRTIO_VSOCK_OP_REQUEST);
    assert_false(guest.device->active);
    vsock_guest_close(&guest);
}

static void test_driver_resets(void **state)
{
    struct vsock_guest *guest = *state;
    struct watcher open = {0}, waits = {0};
    int first = dialled(guest, GUEST_PORT, &open);
    int second = stream(guest, PORT, VMM_STREAM_ACCEPT, &waits);
    driver_reset(&guest->driver);
    assert_int_equal(open.closed, 1);
    vsock_guest_start(guest);
    vsock_guest_fill(guest, 8);
    assert_host_ended(first);
    assert_int_equal(waits.closed, 0);
    vsock_guest_say(guest, PORT, GUEST_PORT, VIRTIO_VSOCK_OP_REQUEST);
    expect(guest, VIRTIO_VSOCK_OP_RESPONSE);
    assert_int_equal(waits.accepted, 1);
    close(first);
    close(second);
}

static void test_transport_reset(void **state)
{
    struct vsock_guest *guest = *state;
    struct watcher open = {0}, waits = {0};
    int first = dialled(guest, GUEST_PORT, &open);
    int second = stream(guest, PORT, VMM_STREAM_ACCEPT, &waits);
    vsock_reset(guest->device); /* the guest has no buffer for it yet */
    assert_int_equal(open.closed, 1);
    assert_int_equal(waits.closed, 0);
    struct driver_segment segment = {guest->event, sizeof(struct virtio_vsock_event), true};
    assert_true(driver_offer(NULL, &guest->driver, 2, &segment, 1));
    struct virtio_vsock_event *event = driver_at(&guest->driver, guest->event, sizeof *event);
    event->id = 99;
    driver_notify(&guest->driver, 2);
    uint16_t head;
    uint32_t written;
    assert_true(driver_used(&head, &written, &guest->driver, 2));
    assert_int_equal(written, sizeof *event);
    assert_int_equal(event->id, VIRTIO_VSOCK_EVENT_TRANSPORT_RESET);
    assert_true(driver_offer(NULL, &guest->driver, 2, &segment, 1));
    driver_notify(&guest->driver, 2);
    assert_false(driver_used(&head, &written, &guest->driver, 2)); /* once */
    close(first);
    close(second);
}

static void test_save_and_load(void **state)
{
    struct vsock_guest *guest = *state;
    int host = dialled(guest, GUEST_PORT, NULL);
    _cleanup_buffer_ struct buffer saved = buffer_of(4096);
    virtio_save(guest->device, &saved);
    assert_false(saved.failed);
    struct driver_segment segment = {guest->event, sizeof(struct virtio_vsock_event), true};
    assert_true(driver_offer(NULL, &guest->driver, 2, &segment, 1));

    struct device_place place = {.host = &guest->driver.host, .loop = guest->loop, .line = 16};
    struct virtio_device *other;
    assert_int_equal(vsock_create(&other, GUEST_CID, &place, &fault), OK);
    struct cursor from = cursor_over(buffer_span(&saved));
    assert_int_equal(virtio_load(other, &from, &fault), OK);
    assert_int_equal(cursor_end(&from, &fault), OK);
    device_free(guest->device);
    guest->device = guest->driver.device = other;
    uint16_t head;
    uint32_t written; /* the guest hears that its connections are gone */
    assert_true(driver_used(&head, &written, &guest->driver, 2));
    int again = dialled(guest, GUEST_PORT, NULL);
    assert_int_equal(write(again, "on", 2), 2);
    vsock_guest_turn(guest);
    assert_memory_equal(expect(guest, VIRTIO_VSOCK_OP_RW).data, "on", 2);
    for (size_t i = 0; i < saved.length; i++) { /* cut anywhere: refused, and reset */
        from = cursor_over((struct span){saved.data, i});
        assert_int_not_equal(virtio_load(other, &from, &fault), OK);
        assert_false(other->active);
    }
    close(host);
    close(again);
}

/* Much more than any buffer, both ways, through few buffers of the guest's. */
static void test_many_bytes(void **state)
{
    struct vsock_guest *guest = *state;
    enum { TOTAL = 3 << 20 };
    int host = dialled(guest, GUEST_PORT, NULL);
    uint32_t written = 0, seen = 0;
    uint8_t piece[16384];
    struct virtio_vsock_hdr head = vsock_guest_head(PORT, GUEST_PORT,
                                                    VIRTIO_VSOCK_OP_CREDIT_UPDATE);
    struct vsock_packet packet;
    while (seen < TOTAL) {
        uint32_t next = TOTAL - written < sizeof piece ? TOTAL - written : (uint32_t)sizeof piece;
        for (uint32_t i = 0; i < next; i++)
            piece[i] = (uint8_t)((written + i) * 13);
        ssize_t sent = next ? write(host, piece, next) : 0;
        written += sent > 0 ? (uint32_t)sent : 0;
        vsock_guest_turn(guest);
        while (vsock_guest_next(&packet, guest)) {
            for (uint32_t i = 0; i < packet.head.len; i++)
                assert_int_equal(packet.data[i], (uint8_t)((seen + i) * 13));
            seen += packet.head.len;
        }
        head.fwd_cnt = seen;
        vsock_guest_send(guest, head, NULL, 0);
    }
    assert_int_equal(seen, TOTAL);
    close(host);
}

#define WITH_GUEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

static void put_buffer(void *guest)
{
    vsock_guest_put(guest);
}

/* A buffer that comes while the device asks for the next is used, and then it asks anew. */
static void test_hears_of_every_buffer(void **state)
{
    (void)state;
    struct vsock_guest guest;
    vsock_guest_open(&guest, 0);
    guest.driver.events_apart = true;
    assert_true(driver_start(&guest.driver, guest.device, UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX,
                             DRIVER_QUEUE_SIZE));
    vsock_guest_fill(&guest, 1);
    driver_before_event(&guest.driver, 0, put_buffer, &guest);
    for (uint32_t i = 0; i < 3; i++) /* each is refused: a packet for the guest */
        vsock_guest_say(&guest, PORT, GUEST_PORT + i, VIRTIO_VSOCK_OP_REQUEST);
    uint16_t head;
    uint32_t written;
    for (int i = 0; i < 2; i++)
        assert_true(driver_used(&head, &written, &guest.driver, 0));
    assert_false(driver_used(&head, &written, &guest.driver, 0));
    vsock_guest_put(&guest);
    assert_true(driver_must_notify(&guest.driver, 0));
    vsock_guest_close(&guest);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_GUEST(test_config),
        WITH_GUEST(test_guest_dials),
        cmocka_unit_test(test_header_apart),
        cmocka_unit_test(test_hears_of_every_buffer),
        WITH_GUEST(test_unknown_is_refused),
        WITH_GUEST(test_host_dials),
        WITH_GUEST(test_guest_refuses),
        WITH_GUEST(test_dials_when_the_driver_comes),
        WITH_GUEST(test_credit_of_the_guest),
        WITH_GUEST(test_slow_host),
        WITH_GUEST(test_beyond_credit),
        WITH_GUEST(test_half_closes),
        WITH_GUEST(test_guest_half_closes),
        WITH_GUEST(test_guest_stops_reading),
        WITH_GUEST(test_host_closes),
        WITH_GUEST(test_host_closes_while_waiting),
        WITH_GUEST(test_bounds),
        cmocka_unit_test(test_flood_of_junk),
        WITH_GUEST(test_spoofed),
        WITH_GUEST(test_hostile_packets),
        WITH_GUEST(test_short_and_strange),
        cmocka_unit_test(test_tiny_buffer),
        WITH_GUEST(test_driver_resets),
        WITH_GUEST(test_transport_reset),
        WITH_GUEST(test_save_and_load),
        WITH_GUEST(test_many_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
