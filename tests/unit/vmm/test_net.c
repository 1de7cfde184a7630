/* The network device between a guest's driver in memory and a datagram socket that stands for the
 * tap (each write is a frame, as there); the last test uses a tap where the machine lets it. */
#define _GNU_SOURCE
#include "driver.h"

#include "base/loop.h"
#include "vmm/virtio/devices.h"

#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { RX, TX };
enum { HEAD = sizeof(struct virtio_net_hdr_v1), BUFFER = 1526, FRAME_MAX = 1514 };

static struct fault fault;
static const uint8_t address[6] = {0x02, 1, 2, 3, 4, 5};

struct house {
    struct driver driver;
    struct loop *loop;
    struct virtio_device *device;
    int wire; /* what the tap's other end sees */
    uint64_t rx[VIRTQUEUE_SIZE_MAX], tx;
};

static void open_over(struct house *house, int tap, const struct net_config *like)
{
    driver_open(&house->driver);
    assert_int_equal(loop_create(&house->loop, &fault), OK);
    struct device_place place = {.host = &house->driver.host, .loop = house->loop, .line = 21};
    struct net_config config = *like;
    config.tap = tap;
    memcpy(config.mac, address, sizeof address);
    assert_int_equal(net_create(&house->device, &config, &place, &fault), OK);
    assert_true(driver_start(&house->driver, house->device, 0, DRIVER_QUEUE_SIZE));
    house->tx = driver_alloc(&house->driver, 128 * 1024, 4096);
}

static void open_house(struct house *house, const struct net_config *like)
{
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
    open_over(house, ends[1], like);
    house->wire = ends[0];
}

static void close_house(struct house *house)
{
    device_free(house->device);
    house->loop = loop_free(house->loop);
    driver_close(&house->driver);
    close(house->wire);
}

static int setup(void **state)
{
    static struct house house;
    open_house(&house, &(struct net_config){0});
    *state = &house;
    return 0;
}

static int teardown(void **state)
{
    close_house(*state);
    return 0;
}

static void offer_buffer(struct house *house, uint32_t bytes)
{
    uint16_t head;
    struct driver_segment segment = {driver_alloc(&house->driver, bytes, 16), bytes, true};
    assert_true(driver_offer(&head, &house->driver, RX, &segment, 1));
    house->rx[head] = segment.address;
    driver_notify(&house->driver, RX);
}

static void turn(struct house *house)
{
    for (int i = 0; i < 5; i++)
        assert_int_equal(loop_turn(house->loop, 0, &fault), OK);
}

/* The bytes of the next frame that the guest got; 0: none. */
static uint32_t received(struct house *house, uint8_t frame[FRAME_MAX])
{
    uint16_t head;
    uint32_t written;
    turn(house);
    if (!driver_used(&head, &written, &house->driver, RX))
        return 0;
    assert_true(written > HEAD && written <= HEAD + FRAME_MAX);
    const uint8_t *at = driver_at(&house->driver, house->rx[head], written);
    const struct virtio_net_hdr_v1 expected = {.num_buffers = 1};
    assert_memory_equal(at, &expected, HEAD);
    memcpy(frame, at + HEAD, written - HEAD);
    return written - HEAD;
}

struct outgoing {
    struct virtio_net_hdr_v1 head;
    uint8_t frame[2000];
};

static struct outgoing honest(void)
{
    struct outgoing packet = {0};
    memset(packet.frame, 0xFF, 6);
    memcpy(packet.frame + 6, address, 6);
    packet.frame[12] = 8;
    return packet;
}

static void offer_packet(struct house *house, const struct outgoing *packet, uint32_t frame_bytes)
{
    memcpy(driver_at(&house->driver, house->tx, sizeof *packet), packet, sizeof *packet);
    struct driver_segment segment = {.address = house->tx, .length = HEAD + frame_bytes};
    assert_true(driver_offer(NULL, &house->driver, TX, &segment, 1));
    driver_notify(&house->driver, TX);
}

static uint32_t taken_back(struct house *house)
{
    uint16_t head;
    uint32_t written, count = 0;
    while (driver_used(&head, &written, &house->driver, TX))
        count++;
    return count;
}

/* The bytes of the frame on the wire; 0: nothing left the guest. */
static uint32_t on_wire(struct house *house, uint8_t frame[2048])
{
    ssize_t got = recv(house->wire, frame, 2048, 0);
    return got > 0 ? (uint32_t)got : 0;
}

static void test_config(void **state)
{
    struct house *house = *state;
    uint8_t seen[8];
    virtio_mmio_read(house->device, 0x100, seen, sizeof seen);
    assert_memory_equal(seen, address, 6);
    assert_int_equal(seen[6] | seen[7], 0);
    uint64_t offloads = UINT64_C(1) << VIRTIO_NET_F_CSUM | UINT64_C(1) << VIRTIO_NET_F_HOST_TSO4
        | UINT64_C(1) << VIRTIO_NET_F_GUEST_TSO4 | UINT64_C(1) << VIRTIO_NET_F_CTRL_VQ;
    assert_int_equal(house->device->offered & offloads, 0);
}

static void test_sends(void **state)
{
    struct house *house = *state;
    uint8_t frame[2048];
    const uint32_t sizes[] = {14, 60, 1000, FRAME_MAX};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct outgoing packet = honest();
        offer_packet(house, &packet, sizes[i]);
        assert_int_equal(taken_back(house), 1);
        assert_int_equal(on_wire(house, frame), sizes[i]);
        assert_memory_equal(frame, packet.frame, sizes[i]);
    }
}

static void test_receives(void **state)
{
    struct house *house = *state;
    uint8_t frame[FRAME_MAX], sent[FRAME_MAX] = {1, 2, 3};
    for (int i = 0; i < 4; i++)
        offer_buffer(house, BUFFER);
    const uint32_t sizes[] = {14, 60, 1000, FRAME_MAX};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        assert_int_equal(send(house->wire, sent, sizes[i], 0), sizes[i]);
        assert_int_equal(received(house, frame), sizes[i]);
        assert_memory_equal(frame, sent, sizes[i]);
    }
    assert_true(house->driver.interrupts >= 4);
}

static void start_with_events(struct house *house)
{
    house->driver.events_apart = true;
    assert_true(driver_start(&house->driver, house->device, UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX,
                             DRIVER_QUEUE_SIZE));
}

/* Without a word to the device, which has to see it or to ask for one. */
static void put_buffer(void *context)
{
    struct house *house = context;
    struct driver_segment segment = {driver_alloc(&house->driver, BUFFER, 16), BUFFER, true};
    assert_true(driver_offer(NULL, &house->driver, RX, &segment, 1));
}

static void put_packet(void *context)
{
    struct house *house = context;
    struct driver_segment segment = {.address = house->tx, .length = HEAD + 60};
    assert_true(driver_offer(NULL, &house->driver, TX, &segment, 1));
}

/* A buffer that comes while the device asks for the next is used, and then it asks anew. */
static void test_hears_of_every_buffer(void **state)
{
    struct house *house = *state;
    const uint8_t sent[60] = {1};
    start_with_events(house);
    put_buffer(house);
    assert_true(driver_must_notify(&house->driver, RX));
    assert_int_equal(send(house->wire, sent, sizeof sent, 0), sizeof sent);
    assert_int_equal(send(house->wire, sent, sizeof sent, 0), sizeof sent);
    driver_before_event(&house->driver, RX, put_buffer, house);
    driver_notify(&house->driver, RX);
    turn(house);
    uint16_t head;
    uint32_t written;
    for (int i = 0; i < 2; i++)
        assert_true(driver_used(&head, &written, &house->driver, RX));
    put_buffer(house);
    assert_true(driver_must_notify(&house->driver, RX));
}

static void test_hears_of_every_packet(void **state)
{
    struct house *house = *state;
    const struct outgoing packet = honest();
    start_with_events(house);
    memcpy(driver_at(&house->driver, house->tx, sizeof packet), &packet, sizeof packet);
    put_packet(house);
    assert_true(driver_must_notify(&house->driver, TX));
    driver_before_event(&house->driver, TX, put_packet, house);
    driver_notify(&house->driver, TX);
    assert_int_equal(taken_back(house), 2);
    put_packet(house);
    assert_true(driver_must_notify(&house->driver, TX));
}

/* Frames wait in the tap until the guest has a buffer. */
static void test_waits_for_buffers(void **state)
{
    struct house *house = *state;
    uint8_t frame[FRAME_MAX], sent[100] = {9};
    offer_buffer(house, BUFFER);
    assert_int_equal(send(house->wire, sent, 100, 0), 100);
    assert_int_equal(send(house->wire, sent, 90, 0), 90);
    assert_int_equal(received(house, frame), 100);
    assert_int_equal(received(house, frame), 0);
    offer_buffer(house, BUFFER);
    assert_int_equal(received(house, frame), 90);
}

static void test_frames_out_of_bounds(void **state)
{
    struct house *house = *state;
    uint8_t frame[FRAME_MAX];
    static const uint8_t sent[4000];
    for (int i = 0; i < 3; i++)
        offer_buffer(house, BUFFER);
    const size_t sizes[] = {1, 13, FRAME_MAX + 1, 4000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        assert_int_equal(send(house->wire, sent, sizes[i], 0), sizes[i]);
    assert_int_equal(send(house->wire, sent, 77, 0), 77);
    assert_int_equal(received(house, frame), 77);
}

static void test_small_buffer(void **state)
{
    struct house *house = *state;
    offer_buffer(house, BUFFER - 1);
    turn(house);
    assert_false(house->device->active);
}

/* Nothing of these reaches the wire; the chains come back, and the device goes on. */
static void test_hostile_frames(void **state)
{
    struct house *house = *state;
    uint8_t frame[2048];
    struct outgoing packet;
    for (int i = 0; i < 12; i++) {
        uint32_t bytes = 100;
        packet = honest();
        switch (i) {
        case 0: bytes = 13; break;
        case 1: bytes = FRAME_MAX + 1; break;
        case 2: bytes = 60000; break;
        case 3: packet.head.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM; break;
        case 4: packet.head.flags = 0x80; break;
        case 5: packet.head.gso_type = VIRTIO_NET_HDR_GSO_TCPV4; break;
        case 6: packet.head.gso_type = VIRTIO_NET_HDR_GSO_UDP; break;
        case 7: packet.head.gso_type = VIRTIO_NET_HDR_GSO_ECN; break;
        case 8: packet.frame[11] ^= 1; break; /* another's address */
        case 9: memset(packet.frame + 6, 0xFF, 6); break;
        case 10: memcpy(packet.frame + 12, (uint8_t[]){0x81, 0}, 2); break; /* another's VLAN */
        default: memcpy(packet.frame + 12, (uint8_t[]){0x88, 0xA8}, 2); break;
        }
        offer_packet(house, &packet, bytes);
        assert_int_equal(taken_back(house), 1);
        assert_int_equal(on_wire(house, frame), 0);
    }
    struct driver_segment tiny = {.address = house->tx, .length = HEAD - 1};
    assert_true(driver_offer(NULL, &house->driver, TX, &tiny, 1));
    driver_notify(&house->driver, TX);
    assert_int_equal(taken_back(house), 1);
    packet = honest();
    offer_packet(house, &packet, 60);
    assert_int_equal(on_wire(house, frame), 60);
}

static void test_rate_of_sending(void **state)
{
    (void)state;
    struct house house;
    struct net_config slow = {.rate_packets = {.size = 3, .refill_ms = 3600 * 1000}};
    open_house(&house, &slow);
    uint8_t frame[2048];
    struct outgoing packet = honest();
    for (int i = 0; i < 10; i++)
        offer_packet(&house, &packet, 60);
    turn(&house);
    assert_int_equal(taken_back(&house), 3); /* the others wait in the queue: nothing is lost */
    for (int i = 0; i < 3; i++)
        assert_int_equal(on_wire(&house, frame), 60);
    assert_int_equal(on_wire(&house, frame), 0);
    close_house(&house);

    struct net_config narrow = {.rate_bytes = {.size = 3000, .refill_ms = 3600 * 1000}};
    open_house(&house, &narrow);
    for (int i = 0; i < 10; i++)
        offer_packet(&house, &packet, 1400);
    turn(&house);
    assert_int_equal(taken_back(&house), 2);
    close_house(&house);
}

/* The rate is refilled: what waited is sent. */
static void test_rate_comes_again(void **state)
{
    (void)state;
    struct house house;
    struct net_config slow = {.rate_packets = {.size = 2, .refill_ms = 4}};
    open_house(&house, &slow);
    struct outgoing packet = honest();
    for (int i = 0; i < 10; i++)
        offer_packet(&house, &packet, 60);
    uint32_t back = taken_back(&house);
    for (int i = 0; i < 1000 && back < 10; i++) {
        assert_int_equal(loop_turn(house.loop, 100, &fault), OK);
        back += taken_back(&house);
    }
    assert_int_equal(back, 10);
    close_house(&house);
}

static void test_rate_of_receiving(void **state)
{
    (void)state;
    struct house house;
    struct net_config slow = {.rate_packets = {.size = 2, .refill_ms = 3600 * 1000}};
    open_house(&house, &slow);
    uint8_t frame[FRAME_MAX], sent[100] = {0};
    for (int i = 0; i < 5; i++) {
        offer_buffer(&house, BUFFER);
        assert_int_equal(send(house.wire, sent, 100, 0), 100);
    }
    assert_int_equal(received(&house, frame), 100);
    assert_int_equal(received(&house, frame), 100);
    assert_int_equal(received(&house, frame), 0);
    close_house(&house);
}

static void test_save_and_load(void **state)
{
    (void)state;
    struct house house;
    struct net_config slow = {.rate_packets = {.size = 3, .refill_ms = 3600 * 1000}};
    open_house(&house, &slow);
    struct outgoing packet = honest();
    offer_packet(&house, &packet, 60);
    offer_packet(&house, &packet, 60);
    assert_int_equal(taken_back(&house), 2);
    _cleanup_buffer_ struct buffer saved = buffer_of(4096);
    virtio_save(house.device, &saved);
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
    slow.tap = ends[1];
    struct device_place place = {.host = &house.driver.host, .loop = house.loop, .line = 21};
    struct virtio_device *other;
    assert_int_equal(net_create(&other, &slow, &place, &fault), OK);
    struct cursor from = cursor_over(buffer_span(&saved));
    assert_int_equal(virtio_load(other, &from, &fault), OK);
    assert_int_equal(cursor_end(&from, &fault), OK);
    device_free(house.device);
    close(house.wire);
    house.device = house.driver.device = other;
    house.wire = ends[0];
    offer_packet(&house, &packet, 60);
    offer_packet(&house, &packet, 60);
    assert_int_equal(taken_back(&house), 1); /* what was spent before stays spent */
    for (size_t i = 0; i < saved.length; i++) {
        from = cursor_over((struct span){saved.data, i});
        assert_int_not_equal(virtio_load(other, &from, &fault), OK);
        assert_false(other->active);
    }
    close_house(&house);
}

/* In a network namespace of its own; 0, or where it failed; 77: this machine does not let us. */
static int with_a_tap(void)
{
    struct ifreq interface = {.ifr_flags = IFF_TAP | IFF_NO_PI, .ifr_name = "guest"};
    if (unshare(CLONE_NEWUSER | CLONE_NEWNET))
        return 77;
    int tap = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    int control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (tap < 0 || control < 0 || ioctl(tap, TUNSETIFF, &interface))
        return 77;
    interface.ifr_flags = IFF_UP;
    if (ioctl(control, SIOCSIFFLAGS, &interface))
        return 77;
    static struct house house;
    house.wire = control;
    open_over(&house, tap, &(struct net_config){0});
    for (int i = 0; i < 32; i++)
        offer_buffer(&house, BUFFER);
    uint8_t frame[FRAME_MAX];
    bool heard = false; /* a fresh interface looks for its neighbours by IPv6 */
    for (int i = 0; i < 100 && !heard; i++) {
        if (loop_turn(house.loop, 50, &fault) != OK)
            return 1;
        heard = received(&house, frame) >= 14;
    }
    struct outgoing packet = honest();
    for (int i = 0; i < 50; i++) {
        offer_packet(&house, &packet, 60);
        if (taken_back(&house) != 1)
            return 2;
    }
    close_house(&house);
    return heard ? 0 : 3;
}

static void test_tap(void **state)
{
    (void)state;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        _exit(with_a_tap());
    int ended;
    assert_int_equal(waitpid(child, &ended, 0), child);
    assert_true(WIFEXITED(ended));
    if (WEXITSTATUS(ended) == 77)
        skip();
    assert_int_equal(WEXITSTATUS(ended), 0);
}

#define IN_HOUSE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_HOUSE(test_config),
        IN_HOUSE(test_sends),
        IN_HOUSE(test_receives),
        IN_HOUSE(test_hears_of_every_buffer),
        IN_HOUSE(test_hears_of_every_packet),
        IN_HOUSE(test_waits_for_buffers),
        IN_HOUSE(test_frames_out_of_bounds),
        IN_HOUSE(test_small_buffer),
        IN_HOUSE(test_hostile_frames),
        cmocka_unit_test(test_rate_of_sending),
        cmocka_unit_test(test_rate_comes_again),
        cmocka_unit_test(test_rate_of_receiving),
        cmocka_unit_test(test_save_and_load),
        cmocka_unit_test(test_tap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
