/* A guest's kernel that gives away anything: only memory of its own goes, and the device answers
 * each chain once. */
#define _GNU_SOURCE
#include "hostile_driver.h"

#include "vmm/virtio/devices.h"

enum { NAMES = GUEST_DATA + 0x8000 };

/* Page numbers: runs, gaps, the same one twice, and some of nobody. */
static void guest_names(struct hostile *hostile, uint32_t queue)
{
    uint32_t pages[64];
    uint32_t count = 1 + any_u8(hostile) % 64;
    uint8_t how = any_u8(hostile);
    for (uint32_t i = 0; i < count; i++)
        pages[i] = how % 8 == 0 ? any_u32(hostile)
                 : how % 8 == 1 ? (uint32_t)(GUEST_HIGH_AT >> 12) + any_u8(hostile)
                                : any_u8(hostile);
    hostile_write(hostile, NAMES, pages, sizeof pages);
    uint32_t bytes = count * 4 + (how & 128 ? any_u8(hostile) : 0);
    hostile_offer(hostile, queue, &(struct driver_segment){NAMES, bytes, false}, 1);
    virtio_notify(hostile->device, queue);
}

static void step(struct hostile *hostile)
{
    uint64_t value;
    uint8_t what = any_u8(hostile);
    switch (what % 8) {
    case 0:
    case 1:
        guest_names(hostile, what / 8 % 4);
        break;
    case 2:
        balloon_set_target(hostile->device, any_u32(hostile));
        break;
    case 3:
        balloon_ask_stats(hostile->device);
        (void)balloon_stat(&value, hostile->device, any_u16(hostile));
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
    struct device_place place = hostile_open(&hostile, (struct span){bytes, length});
    CHECK(balloon_create(&hostile.device, &place, &fault) == OK);
    hostile_start(&hostile, ~UINT64_C(0));
    for (int steps = 0; steps < 300 && cursor_left(&hostile.input); steps++)
        step(&hostile);
    hostile_close(&hostile);
    return 0;
}
