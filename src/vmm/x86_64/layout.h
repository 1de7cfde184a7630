/* layout.h: where things lie in the guest's physical address space, and on which lines. */
#pragma once

#include <stdint.h>

#define GUEST_PAGE UINT64_C(4096)
#define GUEST_HUGE_PAGE (UINT64_C(2) << 20)

/* RAM: from 0 to at most the hole, the rest from 4 GiB on. */
#define GUEST_HOLE UINT64_C(0xC0000000)
#define GUEST_HIGH UINT64_C(0x100000000)

/* Below 1 MiB. The kernel and all else that is loaded lie above. */
#define GUEST_START_INFO UINT64_C(0x6000)
#define GUEST_COMMAND_LINE UINT64_C(0x7000)
#define GUEST_COMMAND_LINE_BYTES UINT64_C(0x1000)
#define GUEST_LOW_END UINT64_C(0xA0000)  /* RAM below; then what PCs have kept for devices */
#define GUEST_TABLES UINT64_C(0xE0000)   /* ACPI; reserved in the memory map */
#define GUEST_TABLES_BYTES UINT64_C(0x10000)
#define GUEST_GENERATION UINT64_C(0xF0000) /* VMGenID: 16 bytes, in a page of its own; reserved */
#define GUEST_LOADED UINT64_C(0x100000)

#define GUEST_VIRTIO UINT64_C(0xD0000000) /* one window of VIRTIO_WINDOW_BYTES a device */
#define GUEST_IOAPIC UINT64_C(0xFEC00000)
#define GUEST_LAPIC UINT64_C(0xFEE00000)

enum { /* GSIs: pins of the one IOAPIC */
    LINE_SERIAL = 4,
    LINE_EVENT = 9,   /* the generic event device: VMGenID has changed */
    LINE_VIRTIO = 16, /* of the first device */
    LINES = 24,
};

enum { /* ports; every other reads as ones and ignores what is written */
    PORT_PANIC = 0x505, /* pvpanic */
    PORT_SERIAL = 0x3F8, /* eight of them, with a console only */
    PORT_KEYBOARD = 0x64, /* command 0xFE: reset */
    PORT_RESET = 0x600,   /* of the FADT */
    PORT_SLEEP_CONTROL = 0x601,
    PORT_SLEEP_STATUS = 0x602,
};
