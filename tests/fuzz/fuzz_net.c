/* A guest's kernel that sends anything to the network device: what leaves it is a frame of its own
 * address, within its bounds; nothing outside of its memory is touched. */
#define _GNU_SOURCE
#include "hostile_driver.h"

#include "vmm/virtio/devices.h"

#include <linux/if_ether.h>
#include <linux/virtio_net.h>
#include <sys/socket.h>
#include <unistd.h>

enum { HEAD = sizeof(struct virtio_net_hdr_v1) };

static const uint8_t address[ETH_ALEN] = {2, 0, 0, 0, 0, 7};

static void check_wire(int wire)
{
    uint8_t frame[ETH_FRAME_LEN + 100];
    for (;;) {
        ssize_t got = recv(wire, frame, sizeof frame, 0);
        if (got < 0)
            return;
        CHECK(got >= ETH_HLEN && got <= ETH_FRAME_LEN);
        CHECK(memcmp(frame + ETH_ALEN, address, ETH_ALEN) == 0);
        CHECK(!(frame[12] == 0x81 && frame[13] == 0));
    }
}

static void guest_sends(struct hostile *hostile)
{
    uint8_t how = any_u8(hostile);
    uint8_t packet[HEAD + ETH_HLEN] = {0};
    memcpy(packet + HEAD + ETH_ALEN, address, ETH_ALEN);
    uint32_t changes = how % 3;
    for (uint32_t i = 0; i < changes; i++)
        packet[any_u8(hostile) % sizeof packet] = any_u8(hostile);
    hostile_write(hostile, GUEST_DATA, packet, sizeof packet);
    uint32_t length = any_u16(hostile) % (how & 128 ? 70000 : 1600);
    hostile_offer(hostile, 1, &(struct driver_segment){GUEST_DATA, length, false}, 1);
    virtio_notify(hostile->device, 1);
}

static void step(struct hostile *hostile, int wire)
{
    static const uint8_t frame[3000];
    uint8_t what = any_u8(hostile);
    switch (what % 8) {
    case 0:
    case 1:
        guest_sends(hostile);
        break;
    case 2:
        hostile_offer(hostile, 0, &(struct driver_segment){
            GUEST_DATA + 0x20000, 1526u + any_u16(hostile) % 3000, true}, 1);
        virtio_notify(hostile->device, 0);
        break;
    case 3:
        (void)!send(wire, frame, any_u16(hostile) % sizeof frame, MSG_NOSIGNAL);
        break;
    case 4:
        check_wire(wire);
        hostile_turn(hostile);
        break;
    default:
        hostile_step(hostile, what / 8);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    static struct hostile hostile;
    struct fault fault;
    int ends[2];
    struct device_place place = hostile_open(&hostile, (struct span){bytes, length});
    CHECK(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0);
    struct net_config config = {.tap = ends[1]};
    memcpy(config.mac, address, sizeof address);
    if (any_u8(&hostile) % 2)
        config.rate_packets = (struct sandbox_rate){.size = 1 + any_u8(&hostile), .refill_ms = 1};
    if (any_u8(&hostile) % 2)
        config.rate_bytes = (struct sandbox_rate){.size = 1 + any_u16(&hostile), .refill_ms = 1};
    CHECK(net_create(&hostile.device, &config, &place, &fault) == OK);
    hostile_start(&hostile, ~UINT64_C(0));
    for (int steps = 0; steps < 300 && cursor_left(&hostile.input); steps++)
        step(&hostile, ends[0]);
    check_wire(ends[0]);
    close(ends[0]);
    hostile_close(&hostile);
    return 0;
}
