/* A guest's kernel that says anything to the vsock device, and a host that comes and goes: nothing
 * outside of the guest's memory is touched, and who handed in a stream hears of its end, once. */
#define _GNU_SOURCE
#include "hostile_driver.h"

#include "base/limits.h"
#include "vmm/virtio/devices.h"

#include <linux/virtio_vsock.h>
#include <sys/socket.h>
#include <unistd.h>

enum { HOSTS = 6, HEAD = sizeof(struct virtio_vsock_hdr), CID = 3, PORTS = 4 };

struct heard {
    bool given; /* a stream listens here: once */
    int accepted, closed;
};

struct house {
    struct hostile hostile;
    int hosts[HOSTS]; /* our ends; -1: closed */
    struct heard heard[HOSTS];
};

static void on_accepted(void *context)
{
    struct heard *heard = context;
    CHECK(++heard->accepted == 1 && heard->closed == 0);
}

static void on_closed(void *context)
{
    struct heard *heard = context;
    CHECK(++heard->closed == 1);
}

static void hand_in(struct house *house)
{
    struct fault fault;
    int ends[2];
    uint32_t slot = any_u8(&house->hostile) % HOSTS;
    uint8_t how = any_u8(&house->hostile);
    if (house->heard[slot].given)
        return;
    house->heard[slot].given = true;
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0);
    const struct vsock_listener listener = {on_accepted, on_closed, &house->heard[slot]};
    if (vsock_stream(house->hostile.device, ends[1], 1 + how / 2 % PORTS,
                     how % 2 ? VMM_STREAM_ACCEPT : VMM_STREAM_CONNECT, &listener, &fault) == OK)
        house->hosts[slot] = ends[0];
    else
        close(ends[0]);
}

static void host_acts(struct house *house)
{
    static uint8_t bytes[8192];
    uint32_t slot = any_u8(&house->hostile) % HOSTS;
    uint8_t what = any_u8(&house->hostile);
    uint32_t count = 1 + any_u16(&house->hostile) % sizeof bytes;
    int host = house->hosts[slot];
    if (host < 0)
        return;
    switch (what % 6) {
    case 0:
        close(host);
        house->hosts[slot] = -1;
        break;
    case 1:
        shutdown(host, what & 8 ? SHUT_RD : SHUT_WR);
        break;
    case 2:
        (void)!recv(host, bytes, count, 0);
        break;
    default:
        (void)!send(host, bytes, count, MSG_NOSIGNAL);
        break;
    }
}

/* Mostly about a port where something is. */
static void guest_sends(struct house *house)
{
    struct hostile *hostile = &house->hostile;
    uint8_t how = any_u8(hostile);
    struct virtio_vsock_hdr head = {
        .src_cid = how & 1 ? CID : any_u8(hostile),
        .dst_cid = how & 1 ? 2 : any_u8(hostile),
        .src_port = 1 + any_u8(hostile) % PORTS,
        .dst_port = how & 2 ? 1 + any_u8(hostile) % PORTS : 0x80000001 + any_u8(hostile) % HOSTS,
        .type = how & 4 ? any_u8(hostile) % 3 : VIRTIO_VSOCK_TYPE_STREAM,
        .op = any_u8(hostile) % 9,
        .flags = any_u8(hostile) % 4,
        .buf_alloc = how & 8 ? any_u32(hostile) : 1 << 18,
        .fwd_cnt = how & 16 ? any_u32(hostile) : 0,
    };
    uint32_t bytes = head.op == VIRTIO_VSOCK_OP_RW ? any_u16(hostile) : 0;
    head.len = how & 32 ? any_u32(hostile) : bytes;
    hostile_write(hostile, GUEST_DATA, &head, HEAD);
    const struct driver_segment segments[] = {
        {GUEST_DATA, HEAD, false}, {GUEST_DATA + HEAD, bytes, false}};
    hostile_offer(hostile, 1, segments, bytes ? 2 : 1);
    if (!(how & 64))
        virtio_notify(hostile->device, 1);
}

static void guest_offers(struct house *house)
{
    struct hostile *hostile = &house->hostile;
    uint32_t count = 1 + any_u8(hostile) % 16;
    uint32_t size = 1 + any_u16(hostile) % 8192;
    for (uint32_t i = 0; i < count; i++)
        hostile_offer(hostile, 0, &(struct driver_segment){
            GUEST_DATA + 0x20000 + 8192u * i, size, true}, 1);
    virtio_notify(hostile->device, 0);
}

static void run(struct house *house)
{
    struct hostile *hostile = &house->hostile;
    for (int steps = 0; steps < 300 && cursor_left(&hostile->input); steps++) {
        uint8_t step = any_u8(hostile);
        switch (step % 16) {
        case 0: case 1: case 2: guest_sends(house); break;
        case 3: case 4: guest_offers(house); break;
        case 5: hand_in(house); break;
        case 6: case 7: host_acts(house); break;
        case 8: vsock_reset(hostile->device); break;
        case 9: hostile_turn(hostile); break;
        default: hostile_step(hostile, step / 16); break;
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    static struct house house;
    struct fault fault;
    struct device_place place = hostile_open(&house.hostile, (struct span){bytes, length});
    for (int i = 0; i < HOSTS; i++) {
        house.hosts[i] = -1;
        house.heard[i] = (struct heard){0};
    }
    CHECK(vsock_create(&house.hostile.device, CID, &place, &fault) == OK);
    hostile_start(&house.hostile, ~UINT64_C(0));
    run(&house);
    for (int i = 0; i < HOSTS; i++)
        if (house.hosts[i] >= 0)
            close(house.hosts[i]);
    for (int i = 0; i < 3; i++)
        hostile_turn(&house.hostile);
    for (int i = 0; i < HOSTS; i++) /* whoever's end was closed has heard of it */
        CHECK(house.hosts[i] < 0 || house.heard[i].closed == 1);
    hostile_close(&house.hostile);
    return 0;
}
