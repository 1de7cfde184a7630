#include "vsock_guest.h"

#include <assert.h>
#include <string.h>

enum { HEAD = sizeof(struct virtio_vsock_hdr), RX = 0, TX = 1 };

void vsock_guest_start(struct vsock_guest *guest)
{
    guest->driver.next_address = 0x1000;
    bool started = driver_start(&guest->driver, guest->device, 0, DRIVER_QUEUE_SIZE);
    assert(started);
    (void)started;
    guest->tx = driver_alloc(&guest->driver, GUEST_TX_BYTES, 4096);
    guest->event = driver_alloc(&guest->driver, sizeof(struct virtio_vsock_event), 4);
}

void vsock_guest_open(struct vsock_guest *guest, uint16_t buffers)
{
    struct fault fault;
    *guest = (struct vsock_guest){.window = GUEST_WINDOW, .rx_parts = 1};
    driver_open(&guest->driver);
    status made = loop_create(&guest->loop, &fault);
    assert(made == OK);
    struct device_place place = {.host = &guest->driver.host, .loop = guest->loop, .line = 16};
    made = vsock_create(&guest->device, GUEST_CID, &place, &fault);
    assert(made == OK);
    (void)made;
    vsock_guest_start(guest);
    vsock_guest_fill(guest, buffers);
}

void vsock_guest_close(struct vsock_guest *guest)
{
    device_free(guest->device);
    guest->loop = loop_free(guest->loop);
    driver_close(&guest->driver);
}

static void offer(struct vsock_guest *guest, uint64_t buffer)
{
    struct driver_segment segments[2] = {
        {.address = buffer, .length = GUEST_RX_BYTES, .device_writes = true}};
    if (guest->rx_parts == 2) {
        segments[0].length = HEAD;
        segments[1] = (struct driver_segment){buffer + HEAD, GUEST_RX_BYTES - HEAD, true};
    }
    uint16_t head;
    bool offered = driver_offer(&head, &guest->driver, RX, segments, guest->rx_parts);
    assert(offered);
    (void)offered;
    guest->rx[head] = buffer;
}

void vsock_guest_put(struct vsock_guest *guest)
{
    offer(guest, driver_alloc(&guest->driver, GUEST_RX_BYTES, 4096));
}

void vsock_guest_fill(struct vsock_guest *guest, uint16_t buffers)
{
    for (uint16_t i = 0; i < buffers; i++)
        vsock_guest_put(guest);
    if (buffers)
        driver_notify(&guest->driver, RX);
}

void vsock_guest_send(struct vsock_guest *guest, struct virtio_vsock_hdr head, const void *data,
                      uint32_t bytes)
{
    assert(HEAD + bytes <= GUEST_TX_BYTES);
    if (head.buf_alloc == 0)
        head.buf_alloc = guest->window;
    uint8_t *at = driver_at(&guest->driver, guest->tx, HEAD + bytes);
    memcpy(at, &head, HEAD);
    if (bytes)
        memcpy(at + HEAD, data, bytes);
    const struct driver_segment segments[] = {
        {.address = guest->tx, .length = HEAD},
        {.address = guest->tx + HEAD, .length = bytes},
    };
    bool offered = driver_offer(NULL, &guest->driver, TX, segments, bytes ? 2 : 1);
    assert(offered);
    (void)offered;
    driver_notify(&guest->driver, TX);
    uint16_t used;
    uint32_t written;
    while (driver_used(&used, &written, &guest->driver, TX))
        assert(written == 0);
}

struct virtio_vsock_hdr vsock_guest_head(uint32_t host_port, uint32_t guest_port, uint16_t op)
{
    return (struct virtio_vsock_hdr){
        .src_cid = GUEST_CID, .dst_cid = 2, .src_port = guest_port, .dst_port = host_port,
        .type = VIRTIO_VSOCK_TYPE_STREAM, .op = op};
}

void vsock_guest_say(struct vsock_guest *guest, uint32_t host_port, uint32_t guest_port,
                     uint16_t op)
{
    vsock_guest_send(guest, vsock_guest_head(host_port, guest_port, op), NULL, 0);
}

bool vsock_guest_next(struct vsock_packet *ret, struct vsock_guest *guest)
{
    uint16_t head;
    if (!driver_used(&head, &ret->written, &guest->driver, RX))
        return false;
    const uint8_t *at = driver_at(&guest->driver, guest->rx[head], GUEST_RX_BYTES);
    memcpy(&ret->head, at, HEAD);
    ret->data = at + HEAD;
    offer(guest, guest->rx[head]);
    if (driver_notify_wanted(&guest->driver, RX))
        driver_notify(&guest->driver, RX);
    return true;
}

void vsock_guest_turn(struct vsock_guest *guest)
{
    struct fault fault;
    for (int i = 0; i < 20; i++) {
        status turned = loop_turn(guest->loop, 0, &fault);
        assert(turned == OK);
        (void)turned;
    }
}
