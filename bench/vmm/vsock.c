/* vsock.c: what the vsock device costs between a driver in memory and a socketpair, beside the bare
 * socketpair: bytes a second each way, and a round trip of 64 bytes. One thread does both sides, no
 * guest runs: it is the device's own work. One line of JSON; best of five.
 *
 *   bench-vmm-vsock [MIB] */
#define _GNU_SOURCE
#include "vsock_guest.h"

#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PORT = 1024, GUEST_PORT = 5000, PIECE = 65536, TRIPS = 20000, TRIP = 64, ROUNDS = 5 };

static uint8_t piece[PIECE];

static void must(bool holds, const char *what)
{
    if (holds)
        return;
    fprintf(stderr, "bench-vmm-vsock: %s\n", what);
    exit(1);
}

static void pair(int ends[2])
{
    must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0,
         "socketpair");
}

static uint64_t read_some(int fd)
{
    ssize_t got = read(fd, piece, sizeof piece);
    return got > 0 ? (uint64_t)got : 0;
}

/* ---- the socketpair alone ---- */

static void bare_bytes(uint64_t total)
{
    int ends[2];
    pair(ends);
    for (uint64_t seen = 0; seen < total;) {
        must(write(ends[0], piece, PIECE) > 0, "write");
        for (uint64_t got = read_some(ends[1]); got; got = read_some(ends[1]))
            seen += got;
    }
    close(ends[0]);
    close(ends[1]);
}

static void bare_trips(uint64_t trips)
{
    int ends[2];
    pair(ends);
    for (uint64_t i = 0; i < trips; i++)
        must(write(ends[0], piece, TRIP) == TRIP && read_some(ends[1]) == TRIP
             && write(ends[1], piece, TRIP) == TRIP && read_some(ends[0]) == TRIP, "round trip");
    close(ends[0]);
    close(ends[1]);
}

/* ---- through the device ---- */

static int dialled(struct vsock_guest *guest)
{
    int ends[2];
    struct fault fault;
    struct vsock_packet packet;
    pair(ends);
    must(vsock_stream(guest->device, ends[1], PORT, VMM_STREAM_ACCEPT, NULL, &fault) == OK,
         "stream");
    vsock_guest_say(guest, PORT, GUEST_PORT, VIRTIO_VSOCK_OP_REQUEST);
    must(vsock_guest_next(&packet, guest) && packet.head.op == VIRTIO_VSOCK_OP_RESPONSE, "dial");
    return ends[0];
}

static void turn(struct vsock_guest *guest)
{
    struct fault fault;
    must(loop_turn(guest->loop, 0, &fault) == OK, "loop");
}

/* As a driver does: buffers are taken back, and the device is told of the credit now and then. */
static uint64_t guest_takes(struct vsock_guest *guest, uint32_t *seen, uint32_t *told)
{
    struct vsock_packet packet;
    uint64_t got = 0;
    while (vsock_guest_next(&packet, guest))
        got += packet.head.len;
    *seen += (uint32_t)got;
    if (*seen - *told >= GUEST_WINDOW / 4) {
        struct virtio_vsock_hdr head = vsock_guest_head(PORT, GUEST_PORT,
                                                        VIRTIO_VSOCK_OP_CREDIT_UPDATE);
        head.fwd_cnt = *told = *seen;
        vsock_guest_send(guest, head, NULL, 0);
    }
    return got;
}

static void to_guest(struct vsock_guest *guest, int host, uint64_t total)
{
    uint32_t seen = 0, told = 0;
    for (uint64_t all = 0; all < total;) {
        must(write(host, piece, PIECE) > 0, "write");
        turn(guest);
        for (uint64_t got = guest_takes(guest, &seen, &told); got;
             got = guest_takes(guest, &seen, &told))
            all += got;
    }
}

/* The packet lies in the guest's memory already. */
static void guest_sends(struct vsock_guest *guest, uint32_t bytes, uint32_t taken)
{
    struct virtio_vsock_hdr head = vsock_guest_head(PORT, GUEST_PORT, VIRTIO_VSOCK_OP_RW);
    head.len = bytes;
    head.buf_alloc = GUEST_WINDOW;
    head.fwd_cnt = taken;
    memcpy(driver_at(&guest->driver, guest->tx, sizeof head), &head, sizeof head);
    const struct driver_segment segments[] = {
        {.address = guest->tx, .length = sizeof head},
        {.address = guest->tx + sizeof head, .length = bytes},
    };
    uint16_t used;
    uint32_t written;
    must(driver_offer(NULL, &guest->driver, 1, segments, 2), "offer");
    driver_notify(&guest->driver, 1);
    must(driver_used(&used, &written, &guest->driver, 1), "sent");
}

static void from_guest(struct vsock_guest *guest, int host, uint64_t total)
{
    struct vsock_packet packet;
    for (uint64_t seen = 0; seen < total;) {
        guest_sends(guest, PIECE, 0);
        for (uint64_t got = read_some(host); got; got = read_some(host))
            seen += got;
        while (vsock_guest_next(&packet, guest))
            ;
    }
}

static void trips(struct vsock_guest *guest, int host, uint64_t count)
{
    struct vsock_packet packet;
    for (uint64_t i = 0; i < count; i++) {
        guest_sends(guest, TRIP, (uint32_t)i * TRIP);
        must(read_some(host) == TRIP && write(host, piece, TRIP) == TRIP, "host");
        turn(guest);
        uint32_t got = 0;
        while (vsock_guest_next(&packet, guest))
            got += packet.head.len;
        must(got == TRIP, "round trip");
    }
}

static void through_device(void (*work)(struct vsock_guest *, int, uint64_t), uint64_t amount)
{
    struct vsock_guest guest;
    vsock_guest_open(&guest, DRIVER_QUEUE_SIZE);
    int host = dialled(&guest);
    work(&guest, host, amount);
    close(host);
    vsock_guest_close(&guest);
}

static double best_s(void (*bare)(uint64_t),
                     void (*device)(struct vsock_guest *, int, uint64_t), uint64_t amount)
{
    double best = 1e9;
    for (int i = 0; i < ROUNDS; i++) {
        int64_t began_us = clock_monotonic_us();
        if (bare)
            bare(amount);
        else
            through_device(device, amount);
        double took_s = (double)(clock_monotonic_us() - began_us) / 1e6;
        best = took_s < best ? took_s : best;
    }
    return best;
}

int main(int count, char **arguments)
{
    uint64_t mib = count > 1 ? strtoull(arguments[1], NULL, 10) : 256;
    must(mib > 0 && mib <= 65536, "MIB: 1 to 65536");
    uint64_t total = mib << 20;
    printf("{\"to_guest_mib_s\": %.0f, ", (double)mib / best_s(NULL, to_guest, total));
    printf("\"from_guest_mib_s\": %.0f, ", (double)mib / best_s(NULL, from_guest, total));
    printf("\"socketpair_mib_s\": %.0f, ", (double)mib / best_s(bare_bytes, NULL, total));
    printf("\"round_trip_us\": %.2f, ", best_s(NULL, trips, TRIPS) * 1e6 / (double)TRIPS);
    printf("\"socketpair_round_trip_us\": %.2f}\n",
           best_s(bare_trips, NULL, TRIPS) * 1e6 / (double)TRIPS);
    return 0;
}
