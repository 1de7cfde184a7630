/* edges.c: requests as an honest driver makes them, but for one thing: an address a byte too far,
 * an index one too high, a length that is not there. The device has to stop at each of them, and
 * must not at what lies just inside: a monitor that forgets one check is told from one that has
 * all of them, whether it falls over or not. */
#include "attack.h"

enum { LEGS = 3, EVERY_STATUS = STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES | STATUS_OK,
       INDIRECT = 1 << 28, BALLOON_QUEUES = 1 << 1 | 1 << 5, SEGMENTS = 130, NO_LEG = LEGS };
enum { BLOCK_IN = 0, BLOCK_OUT = 1, BLOCK_GET_ID = 8, BLOCK_DISCARD = 11, BLOCK_ZEROES = 13,
       HEAD = 16, SECTOR = 512, VSOCK_HEAD = 44, VSOCK_REQUEST = 1 };

static struct descriptor *const table = (struct descriptor *)(ARENA + 0x80000); /* of a page */
static const char *trying;

struct shape { /* a chain that this queue takes */
    uint32_t kind, queue;
    bool completes; /* now, and not when there is something to tell */
    struct {
        uint16_t length;
        bool written;
    } legs[LEGS];
};

static const struct shape shapes[] = {
    {KIND_BLOCK, 0, true, {{HEAD, false}, {SECTOR, true}, {1, true}}},
    {KIND_RNG, 0, true, {{64, true}}},
    {KIND_NET, 0, false, {{2048, true}}},
    {KIND_NET, 1, true, {{72, false}}},
    {KIND_VSOCK, 0, true, {{4096, true}}},
    {KIND_VSOCK, 1, true, {{VSOCK_HEAD, false}, {64, false}}},
    {KIND_BALLOON, 0, true, {{4, false}}},
    {KIND_BALLOON, 1, true, {{4, false}}},
    {KIND_BALLOON, 2, false, {{10, false}}},
    {KIND_BALLOON, 3, true, {{4096, true}}},
};

static void wrong(const char *why, uint64_t number)
{
    say(trying);
    say(", ");
    say_number(number);
    say(": ");
    fail(why);
}

/* A write behind the configuration is done by the thread that serves the queues, in its turn: after
 * a second one all that was notified before has been looked at. */
static void settle(void)
{
    for (int i = 0; i < 3; i++)
        mmio_write(at_hand.window + WINDOW_BYTES - 4, 0);
}

static bool stopped(void)
{
    settle();
    return mmio_read(at_hand.window + REG_STATUS) & STATUS_NEEDS_RESET;
}

static uint16_t legs_of(const struct shape *shape)
{
    uint16_t count = 0;
    while (count < LEGS && shape->legs[count].length)
        count++;
    return count;
}

static void packet_for_nobody(uint8_t *at)
{
    const uint64_t ids[] = {3, 2}; /* the guest's, the host's */
    const uint32_t ports[] = {7, 7, 0};
    const uint16_t kind[] = {1, VSOCK_REQUEST};
    memset(at, 0, VSOCK_HEAD);
    memcpy(at, ids, sizeof ids);
    memcpy(at + 16, ports, sizeof ports);
    memcpy(at + 28, kind, sizeof kind);
}

/* What the device reads there is harmless. */
static void fill_leg(const struct shape *shape, uint16_t leg, uint64_t address)
{
    uint8_t *at = (uint8_t *)address;
    uint32_t page = (uint32_t)((uint64_t)buffers[3][RING_SIZE - 1] >> 12);
    if (address + shape->legs[leg].length > ram_end || address + shape->legs[leg].length < address)
        return;
    memset(at, 0, shape->legs[leg].length);
    if (shape->kind == KIND_BALLOON && shape->queue < 2)
        memcpy(at, &page, sizeof page);
    if (shape->kind == KIND_VSOCK && leg == 0 && shape->queue == 1)
        packet_for_nobody(at);
}

static uint64_t features_for(const struct shape *shape)
{
    return shape->kind == KIND_BALLOON ? BALLOON_QUEUES : 0;
}

/* To `at`; one of the legs lies elsewhere. Those that link name `first` and what follows it. */
static void describe(struct descriptor *at, const struct shape *shape, uint16_t first,
                     uint16_t elsewhere, uint64_t address)
{
    uint16_t count = legs_of(shape);
    for (uint16_t i = 0; i < count; i++) {
        uint64_t place = i == elsewhere ? address : (uint64_t)buffers[shape->queue][i];
        uint16_t flags = (uint16_t)((i + 1 < count ? DESC_NEXT : 0)
                                    | (shape->legs[i].written ? DESC_WRITE : 0));
        fill_leg(shape, i, place);
        at[i] = (struct descriptor){place, shape->legs[i].length, flags, (uint16_t)(first + i + 1)};
    }
}

/* What makes the device fill this queue. */
static void tell(const struct shape *shape)
{
    ring_notify(&at_hand, shape->queue);
    if (shape->kind != KIND_VSOCK || shape->queue == 1)
        return;
    packet_for_nobody(buffers[1][0]);
    ring_describe(1, 0, (uint64_t)buffers[1][0], VSOCK_HEAD, 0, 0);
    ring_offer(1, 0);
    ring_notify(&at_hand, 1);
}

static void expect(const struct shape *shape, bool good, uint64_t number)
{
    tell(shape);
    bool stop = stopped();
    if (good && stop)
        wrong("the device stopped at what lies inside", number);
    else if (!good && !stop)
        wrong("the device went on", number);
    else if (good && shape->completes && rings[shape->queue].used.index == 0)
        wrong("the device did not serve what lies inside", number);
}

/* ---- buffers ---- */

static void try_leg(const struct shape *shape, uint16_t leg, uint64_t address, bool indirect)
{
    uint32_t queue = shape->queue;
    bool good = address + shape->legs[leg].length <= ram_end
        && address + shape->legs[leg].length > address;
    device_bring_up(&at_hand, features_for(shape) | (indirect ? INDIRECT : 0));
    if (indirect) {
        describe(table, shape, 0, leg, address);
        ring_describe(queue, 0, (uint64_t)table, legs_of(shape) * (uint32_t)sizeof *table,
                      DESC_INDIRECT, 0);
    } else {
        describe(rings[queue].descriptors, shape, 0, leg, address);
    }
    ring_offer(queue, 0);
    expect(shape, good, address);
}

static bool offers(uint64_t feature)
{
    mmio_write(at_hand.window + REG_FEATURES_SEL, 0);
    return mmio_read(at_hand.window + REG_FEATURES) & feature;
}

static void buffers_at_the_end(const struct shape *shape)
{
    trying = "a buffer at the end of memory";
    for (uint16_t leg = 0; leg < legs_of(shape); leg++) {
        uint64_t length = shape->legs[leg].length, inside = ram_end - length;
        const uint64_t places[] = {
            inside, inside + 1, inside + length / 2, ram_end - 1, ram_end, ram_end + 1,
            inside + 4095, inside + 4096, ram_end + 4096, ram_end + (2 << 20),
            UINT64_C(0x100000000) - length, UINT64_C(0x100000000), UINT64_MAX - length + 1,
            UINT64_MAX - length / 2, UINT64_MAX,
        };
        for (size_t i = 0; i < sizeof places / sizeof *places; i++)
            try_leg(shape, leg, places[i], i % 2 && offers(INDIRECT));
        if (offers(INDIRECT)) {
            try_leg(shape, leg, inside, true);
            try_leg(shape, leg, inside + 1, false);
            try_leg(shape, leg, ram_end, true);
        }
    }
}

/* ---- rings ---- */

static void try_ring(uint32_t queue, uint32_t part, uint64_t over)
{
    static const uint32_t bytes[] = {16 * RING_SIZE, 6 + 2 * RING_SIZE, 6 + 8 * RING_SIZE};
    static const uint32_t aligned[] = {16, 2, 4};
    uint64_t inside = (ram_end - bytes[part]) & ~(uint64_t)(aligned[part] - 1);
    uint64_t at[] = {(uint64_t)rings[queue].descriptors, (uint64_t)&rings[queue].available,
                     (uint64_t)&rings[queue].used};
    at[part] = inside + over * aligned[part];
    rings[queue] = (struct ring){0};
    device_reset(&at_hand);
    device_negotiate(&at_hand, BALLOON_QUEUES);
    memset((void *)inside, 0, bytes[part]);
    ring_set(&at_hand, queue, RING_SIZE, at[0], at[1], at[2]);
    bool ready = mmio_read(at_hand.window + REG_QUEUE_READY);
    bool stop = mmio_read(at_hand.window + REG_STATUS) & STATUS_NEEDS_RESET;
    if (over == 0 && (!ready || stop))
        wrong("a ring that lies inside is refused", part);
    if (over != 0 && !stop)
        wrong("a ring that reaches over the end is taken", at[part]);
    mmio_write(at_hand.window + REG_STATUS, EVERY_STATUS);
    ring_notify(&at_hand, queue);
    if (over == 0 && stopped())
        wrong("an empty ring at the end stops the device", part);
}

static void rings_at_the_end(void)
{
    static const uint64_t overs[] = {0, 1, 2, 4, 16, 33, 64, 256, 1024, 1 << 17};
    trying = "a ring at the end of memory";
    for (uint32_t queue = 0; queue < at_hand.queues; queue++)
        for (uint32_t part = 0; part < 3; part++)
            for (size_t i = 0; i < sizeof overs / sizeof *overs; i++)
                try_ring(queue, part, overs[i]);
}

/* ---- descriptors ---- */

/* The queue's descriptors are those of `table`, and behind the last of them there is a good one. */
static void bring_up_on_table(const struct shape *shape, uint64_t features)
{
    device_reset(&at_hand);
    device_negotiate(&at_hand, features_for(shape) | features);
    for (uint32_t queue = 0; queue < at_hand.queues; queue++) {
        rings[queue] = (struct ring){0};
        ring_set(&at_hand, queue, RING_SIZE,
                 queue == shape->queue ? (uint64_t)table : (uint64_t)rings[queue].descriptors,
                 (uint64_t)&rings[queue].available, (uint64_t)&rings[queue].used);
    }
    mmio_write(at_hand.window + REG_STATUS, EVERY_STATUS);
    describe(table + RING_SIZE, shape, RING_SIZE, NO_LEG, 0);
    describe(table, shape, 0, NO_LEG, 0);
}

static void beyond_the_table(const struct shape *shape)
{
    trying = "a head and a next beyond the table";
    bring_up_on_table(shape, 0);
    ring_offer(shape->queue, 0);
    expect(shape, true, 0);
    bring_up_on_table(shape, 0);
    ring_offer(shape->queue, RING_SIZE);
    expect(shape, false, 1);
    if (legs_of(shape) > 1) {
        bring_up_on_table(shape, 0);
        table[0].next = RING_SIZE + 1;
        ring_offer(shape->queue, 0);
        expect(shape, false, 2);
    }
    trying = "more offered than there are";
    bring_up_on_table(shape, 0);
    for (int i = 0; i <= RING_SIZE; i++)
        ring_offer(shape->queue, 0);
    expect(shape, false, 3);
}

/* Each breaks one rule of indirect tables; number 0 breaks none. */
static void try_indirect(const struct shape *shape, uint32_t number)
{
    uint16_t legs = legs_of(shape);
    struct descriptor *inner = table + 128;
    struct descriptor outer = {(uint64_t)table, legs * (uint32_t)sizeof *table, DESC_INDIRECT, 0};
    bring_up_on_table(shape, number == 1 ? 0 : INDIRECT);
    struct descriptor *first = &table[RING_SIZE - 1];
    outer.address = (uint64_t)inner;
    describe(inner, shape, 0, NO_LEG, 0);
    switch (number) {
    case 2: outer.length += 1; break;
    case 3: outer.length -= (uint32_t)sizeof *table; break; /* the last one is behind its end */
    case 4: outer.flags |= DESC_NEXT; outer.next = 0; break;
    case 5: /* a good table behind a table */
        describe(inner + 8, shape, 0, NO_LEG, 0);
        inner[0] = (struct descriptor){(uint64_t)(inner + 8), outer.length, DESC_INDIRECT, 0};
        break;
    case 6: outer.length = 0; break;
    case 7: outer.address = ram_end - outer.length + 1; break;
    case 8: outer.length = 0xFFFFFFF0; break;
    default: break;
    }
    *first = outer;
    ring_offer(shape->queue, RING_SIZE - 1);
    expect(shape, number == 0, number);
}

static void tables_that_break_a_rule(const struct shape *shape)
{
    trying = "an indirect table";
    for (uint32_t number = 0; number < 9; number++)
        if (offers(INDIRECT))
            try_indirect(shape, number);
}

/* One segment more than a chain may have, then as many as it may; and two that are out of order. */
static void chains_too_long(const struct shape *shape)
{
    if (shape->kind != KIND_BLOCK)
        return;
    trying = "a chain of many segments";
    for (uint16_t many = SEGMENTS; many <= SEGMENTS + 1; many++) {
        bring_up_on_table(shape, INDIRECT);
        struct descriptor *inner = table + 128; /* as many as fit the page, and one page more */
        for (uint16_t i = 0; i < many; i++)
            inner[i] = (struct descriptor){(uint64_t)buffers[0][1] + i, 1,
                                           (uint16_t)(DESC_WRITE | (i + 1 < many ? DESC_NEXT : 0)),
                                           (uint16_t)(i + 1)};
        inner[0] = (struct descriptor){(uint64_t)buffers[0][0], HEAD, DESC_NEXT, 1};
        table[RING_SIZE - 1] = (struct descriptor){(uint64_t)inner, many * (uint32_t)sizeof *inner,
                                                   DESC_INDIRECT, 0};
        ring_offer(0, RING_SIZE - 1);
        expect(shape, many == SEGMENTS, many);
    }
    trying = "a part to be read behind one to be written";
    bring_up_on_table(shape, 0);
    table[2].flags = 0;
    ring_offer(0, 0);
    expect(shape, false, 0);
}

/* ---- what the request itself says ---- */

/* The status of one request, whose data are `length` bytes of a page. */
static uint8_t block_answers(uint32_t what, uint64_t sector, const void *data, uint32_t length,
                             bool written)
{
    uint8_t *head = buffers[0][0], *status = buffers[0][2];
    device_bring_up(&at_hand, 0);
    memset(head, 0, HEAD);
    memcpy(head, &what, sizeof what);
    memcpy(head + 8, &sector, sizeof sector);
    if (data)
        memcpy(buffers[0][1], data, length);
    *status = 0xFF;
    ring_describe(0, 0, (uint64_t)head, HEAD, DESC_NEXT, 1);
    ring_describe(0, 1, (uint64_t)buffers[0][1], length,
                  (uint16_t)(DESC_NEXT | (written ? DESC_WRITE : 0)), 2);
    ring_describe(0, 2, (uint64_t)status, 1, DESC_WRITE, 0);
    ring_offer(0, 0);
    ring_notify(&at_hand, 0);
    settle();
    return *(volatile uint8_t *)status;
}

static void try_range(uint32_t what, uint64_t sector, uint32_t sectors, uint32_t flags, bool good)
{
    struct {
        uint64_t sector;
        uint32_t sectors, flags;
    } range = {sector, sectors, flags};
    if ((block_answers(what, 0, &range, sizeof range, false) == 0) != good)
        wrong(good ? "a range inside is refused" : "a range over the end is cleared", sector);
}

static void sectors_at_the_end(void)
{
    uint64_t end = mmio_read(at_hand.window + REG_CONFIG)
        | (uint64_t)mmio_read(at_hand.window + REG_CONFIG + 4) << 32;
    bool read_only = offers(1 << 5);
    trying = "sectors at the end of a disk";
    for (uint32_t many = 1; many <= 8; many += 7)
        for (uint64_t over = 0; over <= 9; over++) {
            uint64_t from = end - many + over;
            uint8_t got = block_answers(BLOCK_IN, from, NULL, many * SECTOR, true);
            if ((got == 0) != (over == 0))
                wrong("what was read", over);
            got = block_answers(BLOCK_OUT, from, NULL, many * SECTOR, false);
            if ((got == 0) != (over == 0 && !read_only))
                wrong("what was written", over);
            try_range(BLOCK_DISCARD, from, many, 0, over == 0 && !read_only);
            try_range(BLOCK_ZEROES, from, many, 1, over == 0 && !read_only);
        }
    if (block_answers(BLOCK_IN, end, NULL, SECTOR - 1, true) == 0
        || block_answers(BLOCK_IN, 0, NULL, SECTOR - 1, true) == 0)
        wrong("a part of a sector was read", end);
    if (block_answers(BLOCK_GET_ID, 0, NULL, 20, true) != 0
        || block_answers(BLOCK_GET_ID, 0, NULL, 19, true) == 0
        || block_answers(BLOCK_GET_ID, 0, NULL, 4096, true) == 0)
        wrong("a serial number of another length", 0);
}

/* A head that is cut short, and a request with no place for its status. */
static void requests_in_part(void)
{
    static const struct shape cut = {KIND_BLOCK, 0, true, {{HEAD - 1, false}, {SECTOR, true},
                                                           {1, true}}};
    static const struct shape mute = {KIND_BLOCK, 0, true, {{HEAD, false}}};
    trying = "a request in part";
    bring_up_on_table(&cut, 0);
    ring_offer(0, 0);
    expect(&cut, false, 0);
    bring_up_on_table(&mute, 0);
    ring_offer(0, 0);
    expect(&mute, false, 1);
}

/* Good ones, many times more than a frame may be, hardly anything, of another sender, tagged: the
 * host looks at what leaves. */
static void frames_that_must_not_leave(void)
{
    static const uint32_t lengths[] = {72, 26, 1, 11, 12, 13, 25, 1526, 1527, 4096, 1 << 18,
                                       1 << 20};
    static const struct shape frame = {KIND_NET, 1, true, {{72, false}}};
    static const uint8_t own[] = {2, 0, 0, 0, 0, 1}, other[] = {2, 0, 0, 0, 0, 2};
    static const uint8_t tag[] = {0x81, 0};
    uint8_t *at = (uint8_t *)(ARENA + 0x200000);
    trying = "a frame that must not leave";
    for (uint32_t kind = 0; kind < 4; kind++)
        for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
            bring_up_on_table(&frame, 0);
            memset(at, 0, 72);
            memcpy(at + 12 + 6, kind == 1 ? other : own, sizeof own);
            if (kind == 2)
                memcpy(at + 12 + 12, tag, sizeof tag);
            at[1] = kind == 3; /* segments to be made of it */
            table[0] = (struct descriptor){(uint64_t)at, lengths[i], 0, 0};
            ring_offer(1, 0);
            expect(&frame, true, lengths[i]);
        }
}

/* For network and vsock: too little to take a packet in. */
static void buffers_too_small(void)
{
    static const struct shape small[] = {
        {KIND_NET, 0, false, {{1525, true}}}, {KIND_VSOCK, 0, false, {{VSOCK_HEAD, true}}},
        {KIND_VSOCK, 0, false, {{1, true}}},
    };
    trying = "a buffer too small for a packet";
    for (size_t i = 0; i < sizeof small / sizeof *small; i++) {
        if (small[i].kind != at_hand.kind)
            continue;
        bring_up_on_table(&small[i], 0);
        ring_offer(0, 0);
        expect(&small[i], false, i);
    }
}

/* Pages that are not there stop it, the last one that is does not, and reads as zeros then; a list
 * that is no whole number of pages, or names more than may be named at once, is not read. */
static void pages_at_the_end(void)
{
    static const uint32_t lengths[] = {4, 3, 5, 4096};
    uint64_t last = (ram_end >> 12) - 1;
    const uint64_t pages[] = {last, last + 1, last + 2, last + 512, UINT32_MAX, 1 << 20,
                              UINT64_C(0xD0000), UINT64_C(0xFEE00)};
    trying = "a page at the end of memory";
    for (size_t i = 0; i < sizeof pages / sizeof *pages; i++) {
        struct shape one = {KIND_BALLOON, 0, true, {{4, false}}};
        uint32_t page = (uint32_t)pages[i];
        bring_up_on_table(&one, 0);
        *(volatile uint64_t *)(ram_end - 8) = 1;
        memcpy(buffers[0][0], &page, sizeof page);
        ring_offer(0, 0);
        expect(&one, i == 0, pages[i]);
        if (i == 0 && *(volatile uint64_t *)(ram_end - 8) != 0)
            wrong("a page that was given up still holds its bytes", page);
    }
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        struct shape list = {KIND_BALLOON, 0, true, {{(uint16_t)lengths[i], false}}};
        bring_up_on_table(&list, 0);
        for (size_t j = 0; j < 1024; j++)
            ((uint32_t *)buffers[0][0])[j] = (uint32_t)((uint64_t)buffers[3][RING_SIZE - 1] >> 12);
        ring_offer(0, 0);
        expect(&list, lengths[i] % 4 == 0, lengths[i]);
    }
}

/* Each of these packets is to be answered, and nobody takes an answer: it is not heard any more,
 * until somebody does. */
static void answers_that_nobody_takes(void)
{
    static const struct shape packet = {KIND_VSOCK, 1, true, {{VSOCK_HEAD, false}}};
    uint16_t sent = 0;
    trying = "answers that nobody takes";
    bring_up_on_table(&packet, 0);
    packet_for_nobody(buffers[1][0]);
    for (int lap = 0; lap < 3; lap++) {
        for (int i = 0; i < RING_SIZE && sent - rings[1].used.index < RING_SIZE; i++, sent++)
            ring_offer(1, 0);
        expect(&packet, true, sent);
    }
    if (rings[1].used.index == sent)
        wrong("the device keeps an answer to all of them", sent);
    for (uint16_t i = 0; i < RING_SIZE; i++) {
        ring_describe(0, i, (uint64_t)buffers[0][i], 4096, DESC_WRITE, 0);
        ring_offer(0, i);
    }
    expect(&packet, true, sent);
    ring_notify(&at_hand, 0);
    settle();
    if (rings[0].used.index != RING_SIZE)
        wrong("the device does not answer", rings[0].used.index);
}

/* Tags that are none, in a list that is longer than all tags. */
static void statistics_that_are_none(void)
{
    static const struct shape list = {KIND_BALLOON, 2, false, {{2000, false}}};
    trying = "statistics";
    bring_up_on_table(&list, 0);
    for (uint32_t i = 0; i < 200; i++) {
        uint16_t tag = (uint16_t)(i < 20 ? i : i < 100 ? 1u << i % 16 : 65535 - i);
        memcpy(buffers[2][0] + 10 * i, &tag, sizeof tag);
    }
    ring_offer(2, 0);
    expect(&list, true, 0);
}

void attack_edges(void)
{
    begin("one byte too far: buffers, rings, descriptors, and what they say");
    rings_at_the_end();
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const struct shape *shape = &shapes[i];
        if (shape->kind != at_hand.kind)
            continue;
        buffers_at_the_end(shape);
        beyond_the_table(shape);
        tables_that_break_a_rule(shape);
        chains_too_long(shape);
    }
    if (at_hand.kind == KIND_BLOCK) {
        sectors_at_the_end();
        requests_in_part();
    }
    if (at_hand.kind == KIND_BALLOON) {
        pages_at_the_end();
        statistics_that_are_none();
    }
    if (at_hand.kind == KIND_VSOCK)
        answers_that_nobody_takes();
    if (at_hand.kind == KIND_NET)
        frames_that_must_not_leave();
    buffers_too_small();
    device_reset(&at_hand);
}
