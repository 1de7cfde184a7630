/* tiny.c: a guest of a sandbox in place of a kernel and its agent: dials the host by vsock and
 * speaks "Host and agent" of docs/protocols.md with a few commands of its own, one at a time. With
 * it the whole way of a microVM is tested where KVM runs no stock kernel.
 *
 * An initramfs that begins with "silent" makes it one that never dials, one with "reset", "panic",
 * "off" or "triple" one that ends so before it does. */
#include "stream.h"
#include "cpu.h"

enum { HELLO = 0x01, EXEC = 0x10, SHUTDOWN = 0x1E, SIGNAL = 0x20,
       RESIZE = 0x21, CANCEL = 0x22, DATA = 0x30, END = 0x31, CREDIT = 0x32, STARTED = 0x40,
       EXITED = 0x41, DONE = 0x42 };
enum { IN, OUT, ERROR };
enum { HOW_CODE = 1, HOW_SIGNAL, HOW_TIMEOUT };
enum { OK = 0, NOT_FOUND = 8, NOT_IMPLEMENTED = 21, UNAVAILABLE = 22 }; /* base/status.h */
enum { AGENT_PORT = 1024, WINDOW = 256 * 1024, PIECE_MAX = 32 * 1024, FRAME_MAX = 32 * 1024 + 64,
       ARGUMENTS_MAX = 16, KILL = 9, NO_MEMORY = 12, MIB = 1 << 20, TOUCH_FROM = 48 * MIB,
       KIND_BLOCK = 2, KIND_VSOCK = 19 };
enum { PORT_PANIC = 0x505, PORT_KEYBOARD = 0x64, PORT_SLEEP = 0x601 };

static struct {
    uint32_t id; /* 0: none */
    uint32_t timeout_ms, window[3];
    uint32_t input_first, input_held;
    bool wants_input, input_ended;
    uint8_t signal;
    uint16_t count;
    char *arguments[ARGUMENTS_MAX];
} command;

static uint8_t frame[FRAME_MAX], words[FRAME_MAX], input[WINDOW], pattern[PIECE_MAX];

static _Noreturn void end(uint16_t port, uint8_t value)
{
    for (;;)
        cpu_port(port, value);
}

static _Noreturn void off(void)
{
    end(PORT_SLEEP, 0x20 | 5 << 2);
}

/* ---- frames ---- */

static uint64_t get(const uint8_t *at, size_t bytes)
{
    uint64_t value = 0;
    while (bytes--)
        value = value << 8 | *at++;
    return value;
}

static uint8_t *put(uint8_t *at, uint64_t value, size_t bytes)
{
    for (size_t i = bytes; i--; value >>= 8)
        at[i] = (uint8_t)value;
    return at + bytes;
}

static size_t length_of(const char *text)
{
    size_t length = 0;
    while (text[length])
        length++;
    return length;
}

static void say_frame(uint8_t type, uint32_t id, const void *head, size_t head_size,
                      const void *body, size_t body_size)
{
    uint8_t first[64], *at = put(first, 5 + head_size + body_size, 4);
    at = put(at, type, 1);
    at = put(at, id, 4);
    memcpy(at, head, head_size);
    at += head_size;
    if (!stream_write(first, (size_t)(at - first), body, body_size) && !timer_is_over())
        off();
}

static void say_done(uint32_t id, uint16_t status, const char *detail)
{
    uint8_t head[6];
    put(put(head, status, 2), length_of(detail), 4);
    say_frame(DONE, id, head, sizeof head, detail, length_of(detail));
}

static void say_credit(uint32_t bytes)
{
    uint8_t head[5];
    put(put(head, IN, 1), bytes, 4);
    say_frame(CREDIT, command.id, head, sizeof head, NULL, 0);
}

/* ---- what the host says ---- */

static const uint8_t *after_texts(const uint8_t *at)
{
    uint64_t count = get(at, 2);
    for (at += 2; count; count--)
        at += 4 + get(at, 4);
    return at;
}

static void take_exec(uint32_t id, size_t size)
{
    uint16_t count = (uint16_t)get(frame, 2);
    if (command.id || count > ARGUMENTS_MAX) {
        say_done(id, UNAVAILABLE, "one command at a time, of at most 16 words");
        return;
    }
    memset(&command, 0, sizeof command);
    memcpy(words, frame, size);
    const uint8_t *rest = after_texts(after_texts(words));
    rest += 4 + get(rest, 4); /* the folder */
    rest += 4 + get(rest, 4); /* the user */
    command.id = id;
    command.wants_input = rest[0] & 2;
    command.timeout_ms = (uint32_t)get(rest + 5, 4);
    command.window[OUT] = command.window[ERROR] = WINDOW;
    command.count = count;
    uint8_t *at = words + 2;
    for (uint16_t i = 0; i < count; i++) { /* each ends where the next one's length begins */
        uint8_t *next = at + 4 + get(at, 4);
        command.arguments[i] = (char *)at + 4;
        if (i > 0)
            *at = '\0';
        at = next;
    }
    *at = '\0';
}

static bool is_data(uint8_t type, uint32_t id, size_t size)
{
    return type == DATA && id == command.id && size > 0
        && size - 1 <= WINDOW - command.input_held && !command.input_ended;
}

/* Straight to where it waits for the command. */
static void take_data(size_t size)
{
    if (!stream_read(frame, 1) || frame[0] != IN)
        off();
    for (size_t left = size - 1; left;) {
        uint32_t to = (command.input_first + command.input_held) % WINDOW;
        size_t piece = left < WINDOW - to ? left : WINDOW - to;
        if (!stream_read(input + to, piece))
            off();
        command.input_held += (uint32_t)piece;
        left -= piece;
    }
}

static void take_of_command(uint8_t type)
{
    if (type == END)
        command.input_ended = true;
    else if (type == CREDIT && frame[0] <= ERROR)
        command.window[frame[0]] += (uint32_t)get(frame + 1, 4);
    else if (type == SIGNAL || type == CANCEL)
        command.signal = type == SIGNAL ? frame[0] : KILL;
}

static void take_other(uint8_t type, uint32_t id)
{
    if (type == SHUTDOWN) {
        say_done(id, OK, "");
        if (frame[0])
            end(PORT_KEYBOARD, 0xFE);
        off();
    }
    if (type < SIGNAL)
        say_done(id, NOT_IMPLEMENTED, "a test guest only runs commands");
}

/* False: time was over before one came. */
static bool take_frame(void)
{
    uint8_t head[9];
    if (stream_held() < sizeof head && timer_is_over())
        return false;
    if (!stream_read(head, sizeof head)) {
        if (timer_is_over())
            return false;
        off(); /* the host is gone */
    }
    size_t size = (size_t)get(head, 4) - 5;
    uint8_t type = head[4];
    uint32_t id = (uint32_t)get(head + 5, 4);
    if (is_data(type, id, size)) {
        take_data(size);
        return true;
    }
    if (size > FRAME_MAX || !stream_read(frame, size))
        off();
    if (type == EXEC)
        take_exec(id, size);
    else if (type >= SIGNAL && command.id && id == command.id)
        take_of_command(type);
    else
        take_other(type, id);
    return true;
}

/* ---- what a command does ---- */

/* False: it is to end. */
static bool more(void)
{
    return !command.signal && !timer_is_over() && take_frame() && !command.signal;
}

static bool output(int channel, const void *bytes, size_t size)
{
    const uint8_t *at = bytes;
    const uint8_t head = (uint8_t)channel;
    while (size) {
        size_t piece = size < PIECE_MAX ? size : PIECE_MAX;
        while (stream_held())
            if (!more())
                return false;
        while (command.window[channel] < piece)
            if (!more())
                return false;
        command.window[channel] -= (uint32_t)piece;
        say_frame(DATA, command.id, &head, 1, at, piece);
        if (timer_is_over())
            return false;
        at += piece;
        size -= piece;
    }
    return true;
}

static bool print(const char *text)
{
    return output(OUT, text, length_of(text));
}

static bool print_number(uint64_t number)
{
    char digits[24];
    size_t at = sizeof digits;
    do
        digits[--at] = (char)('0' + number % 10);
    while ((number /= 10) > 0);
    return output(OUT, digits + at, sizeof digits - at) && print("\n");
}

static uint64_t number_at(uint16_t index)
{
    uint64_t value = 0;
    const char *at = index < command.count ? command.arguments[index] : "";
    for (; *at >= '0' && *at <= '9'; at++)
        value = value * 10 + (uint64_t)(*at - '0');
    return value;
}

static int run_echo(void)
{
    for (uint16_t i = 1; i < command.count; i++)
        (void)(print(command.arguments[i]) && i + 1 < command.count && print(" "));
    print("\n");
    return 0;
}

static int run_cat(void)
{
    uint32_t unread = 0;
    while (command.wants_input) {
        while (!command.input_held && !command.input_ended)
            if (!more())
                return 0;
        if (!command.input_held)
            return 0;
        uint32_t piece = WINDOW - command.input_first;
        piece = command.input_held < piece ? command.input_held : piece;
        piece = piece < PIECE_MAX ? piece : PIECE_MAX;
        if (!output(OUT, input + command.input_first, piece))
            return 0;
        command.input_first = (command.input_first + piece) % WINDOW;
        command.input_held -= piece;
        if ((unread += piece) >= WINDOW / 4) {
            say_credit(unread);
            unread = 0;
        }
    }
    return 0;
}

static int run_flood(void)
{
    for (uint64_t left = number_at(1) * (MIB / PIECE_MAX); left; left--)
        if (!output(OUT, pattern, sizeof pattern))
            return 0;
    return 0;
}

static int run_sleep(void)
{
    uint64_t ms = number_at(1) * 1000;
    bool lasts = ms < command.timeout_ms;
    if (lasts)
        timer_start((uint32_t)ms);
    while (more())
        ;
    if (lasts)
        timer_start(0);
    return 0;
}

static int run_touch(void)
{
    uint64_t last = TOUCH_FROM + number_at(1) * MIB;
    if (last > ram_end)
        return NO_MEMORY;
    for (volatile uint8_t *at = (volatile uint8_t *)(uint64_t)TOUCH_FROM; (uint64_t)at < last;
         at += 4096)
        *at = 0xA5;
    return 0;
}

static _Noreturn int run_spin(void)
{
    for (;;)
        __asm__ volatile("");
}

static int run_cpus(void)
{
    print_number(cpu_wake_others() + 1);
    return 0;
}

static int run_lie(void)
{
    static const uint8_t too_long[] = {0x7F, 0xFF, 0xFF, 0xFF, DATA, 0, 0, 0, 1};
    const uint8_t channel = OUT;
    const char *how = command.count > 1 ? command.arguments[1] : "";
    if (begins(how, "id"))
        say_frame(DATA, command.id + 1, &channel, 1, "x", 1);
    else if (begins(how, "twice"))
        say_frame(HELLO, 0, "\0\0\0\1\0\0\0\1x\0\0\0\0\0\0\0", 17, NULL, 0);
    else if (begins(how, "length"))
        stream_write(too_long, sizeof too_long, NULL, 0);
    else
        say_frame(EXITED, command.id, "\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 18, NULL, 0);
    while (more())
        ;
    return 0;
}

/* ---- the disk ---- */

static uint8_t sector[512] __attribute__((aligned(512)));

/* One request, in the ring that the stream leaves free. */
static bool disk_moves(const struct device *disk, uint32_t what, uint64_t at)
{
    enum { FREE = 3 };
    uint64_t *head = (uint64_t *)buffers[FREE][0];
    uint8_t *status = buffers[FREE][1];
    device_reset(disk);
    device_negotiate(disk, 0);
    rings[FREE] = (struct ring){0};
    ring_set(disk, 0, RING_SIZE, (uint64_t)rings[FREE].descriptors,
             (uint64_t)&rings[FREE].available, (uint64_t)&rings[FREE].used);
    mmio_write(disk->window + REG_STATUS, 15);
    head[0] = what;
    head[1] = at;
    *status = 0xFF;
    ring_describe(FREE, 0, (uint64_t)head, 16, DESC_NEXT, 1);
    ring_describe(FREE, 1, (uint64_t)sector, sizeof sector,
                  (uint16_t)(DESC_NEXT | (what ? 0 : DESC_WRITE)), 2);
    ring_describe(FREE, 2, (uint64_t)status, 1, DESC_WRITE, 0);
    ring_offer(FREE, 0);
    ring_notify(disk, 0);
    while (!ring_await(disk, FREE, 1))
        if (mmio_read(disk->window + REG_STATUS) & STATUS_NEEDS_RESET)
            return false;
    return *(volatile uint8_t *)status == 0;
}

/* The second disk: what it holds at first, a byte of it, and that what is written is read back. */
static bool disk_works(char *ret_first)
{
    struct device disk, first;
    bool found = false;
    for (uint32_t i = 0; i < WINDOWS_MAX && !found; i++)
        if (device_find(&disk, i) && disk.kind == KIND_BLOCK && i > 0)
            found = device_find(&first, i - 1) && first.kind == KIND_BLOCK;
    if (!found || !disk_moves(&disk, 0, 0))
        return false;
    *ret_first = (char)sector[0];
    uint64_t sectors = mmio_read(disk.window + REG_CONFIG);
    for (uint64_t at = 0; at < sectors; at += sectors / 8) {
        memset(sector, (int)(at * 7 + 1) & 0xFF, sizeof sector);
        if (!disk_moves(&disk, 1, at))
            return false;
    }
    for (uint64_t at = 0; at < sectors; at += sectors / 8) {
        memset(sector, 0, sizeof sector);
        if (!disk_moves(&disk, 0, at) || sector[511] != ((at * 7 + 1) & 0xFF))
            return false;
    }
    return true;
}

static int run_disk(void)
{
    char first[2] = "";
    if (!disk_works(first))
        return 1;
    (void)(print(first) && print("\n"));
    return 0;
}

/* ---- all of them ---- */

static int run_exit(void)
{
    return (int)(number_at(1) & 0xFF);
}

static int run_panic(void)
{
    end(PORT_PANIC, 1);
}

static int run_reset(void)
{
    end(PORT_KEYBOARD, 0xFE);
}

static int run_off(void)
{
    off();
}

static int run_triple(void)
{
    cpu_triple_fault();
    return 0;
}

static const struct {
    const char *name;
    int (*run)(void);
} commands[] = {
    {"echo", run_echo}, {"cat", run_cat}, {"exit", run_exit}, {"spin", run_spin},
    {"flood", run_flood}, {"sleep", run_sleep}, {"touch-memory", run_touch}, {"disk", run_disk},
    {"cpus", run_cpus}, {"lie", run_lie}, {"panic", run_panic}, {"reset", run_reset},
    {"off", run_off}, {"triple", run_triple},
};

static bool same(const char *left, const char *right)
{
    return begins(left, right) && begins(right, left);
}

static void run(int (*what)(void))
{
    static const uint8_t pid[4] = {0, 0, 0, 1}, channels[] = {OUT, ERROR};
    uint8_t exited[18] = {HOW_CODE};
    say_frame(STARTED, command.id, pid, sizeof pid, NULL, 0);
    timer_start(command.timeout_ms < 500000 ? command.timeout_ms : 500000);
    exited[1] = (uint8_t)what();
    if (timer_is_over()) {
        exited[0] = HOW_TIMEOUT;
        exited[1] = KILL;
    } else if (command.signal) {
        exited[0] = HOW_SIGNAL;
        exited[1] = command.signal;
    }
    timer_start(0);
    for (size_t i = 0; i < sizeof channels; i++)
        say_frame(END, command.id, &channels[i], 1, NULL, 0);
    say_frame(EXITED, command.id, exited, sizeof exited, NULL, 0);
    command.id = 0;
}

static void serve(void)
{
    int (*what)(void) = NULL;
    while (!command.id)
        (void)take_frame();
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        if (same(commands[i].name, command.arguments[0]))
            what = commands[i].run;
    if (what) {
        run(what);
        return;
    }
    say_done(command.id, NOT_FOUND, "a test guest has no such command");
    command.id = 0;
}

void program_main(void)
{
    static const uint8_t hello[] = {0, 0, 0, 1, 0, 0, 0, 4, 't', 'i', 'n', 'y',
                                    0, 0, 0, 0, 0, 0, 0, 0};
    struct device device;
    uint32_t number = 0;
    cpu_begin();
    say("a tiny guest\n");
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        if (commands[i].run != run_echo && begins(initramfs, commands[i].name))
            commands[i].run();
    while (begins(initramfs, "silent"))
        cpu_wait();
    while (number < WINDOWS_MAX && !(device_find(&device, number) && device.kind == KIND_VSOCK))
        number++;
    if (number == WINDOWS_MAX || !stream_dial(&device, AGENT_PORT))
        off();
    timer_start(0);
    say_frame(HELLO, 0, hello, sizeof hello, NULL, 0);
    for (;;)
        serve();
}
