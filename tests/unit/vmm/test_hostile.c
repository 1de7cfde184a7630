/* test_hostile.c: a whole machine with every device, and the guest of tests/guests/hostile.c in it:
 * it attacks, the monitor lives, honest work is done in between, what is read-only is as it was,
 * and the machine ends as it must. Also in the lab, where this program is sanitized. HOSTILE_GUEST:
 * the path of the guest; HOSTILE_ROUNDS: how often each random attack; HOSTILE_SEEDS: how many
 * guests; HOSTILE_OPTIONS: more of their options; HOSTILE_CONSOLE: what they say, as they say it.
 * 77: there is no /dev/kvm. */
#define _GNU_SOURCE
#include "base/cleanup.h"
#include "vmm/machine.h"
#include "vmm/virtio/devices.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

enum { DISK_BYTES = 8 << 20, STREAMS = 20, CONSOLE_MAX = 1 << 20, VCPUS = 2, ROOT = 0x5A,
       SCRATCH = 0x77, OFTEN_US = 20 * 1000, MORE_TURNS = 10 };
#define MEMORY_BYTES (UINT64_C(64) << 20)
#define DEADLINE_US (INT64_C(300) * 1000 * 1000)
static const char at_its_end[] = "ending\n";
static const uint8_t own_address[6] = {2, 0, 0, 0, 0, 1};

struct attack {
    struct loop *loop;
    struct machine *machine;
    int peers[STREAMS + 1]; /* the hosts' ends of the streams, and of what stands for a tap */
    int root, scratch;
    uint32_t broken_rules_max;
    bool shown;   /* the console, as it comes */
    bool endless; /* the guest: it is ended */
    struct loop_timer deadline, often;
    uint32_t frames;        /* that left it */
    uint32_t turns;         /* of often, since the guest came to its end */
    _Atomic size_t console_length;
    enum sandbox_end end;
    char detail[200], console[CONSOLE_MAX];
};

static void on_console(void *context, uint8_t byte)
{
    struct attack *attack = context;
    size_t length = attack->console_length;
    if (attack->shown)
        fputc(byte, stderr);
    if (length < CONSOLE_MAX - 1) {
        attack->console[length] = byte ? (char)byte : '.'; /* it is searched as text */
        attack->console_length = length + 1;
    }
}

static void on_end(void *context, enum sandbox_end end, const char *detail)
{
    struct attack *attack = context;
    attack->end = end;
    snprintf(attack->detail, sizeof attack->detail, "%s", detail);
    loop_stop(attack->loop);
}

static void on_deadline(void *context)
{
    struct attack *attack = context;
    machine_end(attack->machine, SANDBOX_LIFETIME, "the deadline of the test");
}

/* Only what a wire could carry, from the guest's own address. */
static void take_frames(struct attack *attack)
{
    uint8_t frame[2048];
    for (;;) {
        ssize_t got = recv(attack->peers[STREAMS], frame, sizeof frame, MSG_TRUNC);
        if (got < 0)
            return;
        assert_in_range(got, 14, 1514);
        assert_memory_equal(frame + 6, own_address, sizeof own_address);
        attack->frames++;
    }
}

/* What each host's end does: connections.c. */
static void take_all(struct attack *attack)
{
    char bytes[4096];
    for (uint32_t i = 2; i < STREAMS; i += 4)
        while (read(attack->peers[i], bytes, sizeof bytes) > 0)
            ;
    take_frames(attack);
}

static void prepare_peer(struct attack *attack, uint32_t number)
{
    char bytes[4096] = {0};
    if (number % 4 == 1) {
        close(attack->peers[number]);
        attack->peers[number] = -1;
    }
    while (number % 4 == 3 && write(attack->peers[number], bytes, sizeof bytes) > 0)
        ;
}

/* A guest that never ends has some time for what it does then. */
static void on_often(void *context)
{
    struct attack *attack = context;
    struct fault fault;
    size_t length = attack->console_length;
    take_all(attack);
    if (attack->endless
        && (attack->turns || memmem(attack->console, length, at_its_end, sizeof at_its_end - 1)))
        attack->turns++;
    if (attack->turns > MORE_TURNS)
        machine_end(attack->machine, SANDBOX_LIFETIME, "its time was over");
    else
        assert_int_equal(loop_timer_start(attack->loop, &attack->often, OFTEN_US, on_often, attack,
                                          &fault), OK);
}

static void check_file(int fd, size_t bytes, uint8_t fill)
{
    uint8_t block[4096];
    for (size_t at = 0; at < bytes; at += sizeof block) {
        assert_int_equal(pread(fd, block, sizeof block, (off_t)at), sizeof block);
        for (size_t i = 0; i < sizeof block; i++)
            assert_int_equal(block[i], fill);
    }
    close(fd);
}

static int file_of(size_t bytes, uint8_t fill)
{
    int fd = memfd_create("disk", MFD_CLOEXEC);
    uint8_t block[4096];
    memset(block, fill, sizeof block);
    assert_true(fd >= 0);
    for (size_t at = 0; fill && at < bytes; at += sizeof block)
        assert_int_equal(pwrite(fd, block, sizeof block, (off_t)at), sizeof block);
    return fd;
}

static struct device_place place_of(struct attack *attack)
{
    return (struct device_place){.host = machine_host(attack->machine), .loop = attack->loop,
                                 .line = machine_next_line(attack->machine)};
}

static void add(struct attack *attack, struct virtio_device *device)
{
    struct fault fault;
    assert_int_equal(machine_add(attack->machine, device, &fault), OK);
}

static void add_disks(struct attack *attack)
{
    struct virtio_device *device;
    struct fault fault;
    struct device_place place = place_of(attack);
    int root_file = file_of(DISK_BYTES, ROOT), scratch_file = file_of(DISK_BYTES / 2, SCRATCH);
    attack->root = dup(root_file);
    attack->scratch = dup(scratch_file);
    const struct block_config root = {.base = root_file, .overlay = -1,
                                      .bytes = DISK_BYTES, .serial = "root"};
    assert_int_equal(block_create(&device, &root, &place, &fault), OK);
    add(attack, device);
    const struct block_config scratch = {.base = scratch_file,
                                         .overlay = file_of(0, 0), .bytes = DISK_BYTES,
                                         .serial = "scratch"};
    place = place_of(attack);
    assert_int_equal(block_create(&device, &scratch, &place, &fault), OK);
    add(attack, device);
}

static void add_streams(struct attack *attack)
{
    struct virtio_device *device;
    struct fault fault;
    const struct vsock_listener nobody = {0};
    struct device_place place = place_of(attack);
    assert_int_equal(vsock_create(&device, SANDBOX_GUEST_CID, &place, &fault), OK);
    for (uint32_t i = 0; i < STREAMS; i++) {
        int ends[2];
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends),
                         0);
        attack->peers[i] = ends[0];
        prepare_peer(attack, i);
        assert_int_equal(vsock_stream(device, ends[1], SANDBOX_AGENT_PORT + i, VMM_STREAM_ACCEPT,
                                      &nobody, &fault), OK);
    }
    add(attack, device);
}

/* The tap is a socket that takes packets, and has some to give. */
static void add_net(struct attack *attack)
{
    struct virtio_device *device;
    struct fault fault;
    uint8_t packet[600] = {2, 0, 0, 0, 0, 1};
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
    attack->peers[STREAMS] = ends[0];
    for (int i = 0; i < 8; i++)
        (void)!send(ends[0], packet, sizeof packet, 0);
    struct net_config config = {.tap = ends[1]};
    memcpy(config.mac, own_address, sizeof own_address);
    struct device_place place = place_of(attack);
    assert_int_equal(net_create(&device, &config, &place, &fault), OK);
    add(attack, device);
}

static void build(struct attack *attack, int kvm)
{
    const struct machine_config config = {.memory_bytes = MEMORY_BYTES, .vcpus = VCPUS,
                                          .console = true,
                                          .broken_rules_max = attack->broken_rules_max};
    struct virtio_device *device;
    struct fault fault;
    assert_int_equal(loop_create(&attack->loop, &fault), OK);
    assert_int_equal(machine_open(&attack->machine, kvm, &fault), OK);
    assert_int_equal(machine_build(attack->machine, &config, attack->loop, &fault), OK);
    add_disks(attack);
    add_streams(attack);
    struct device_place place = place_of(attack);
    assert_int_equal(rng_create(&device, &place, &fault), OK);
    add(attack, device);
    place = place_of(attack);
    assert_int_equal(balloon_create(&device, &place, &fault), OK);
    add(attack, device);
    add_net(attack);
}

static void run(struct attack *attack, const char *command_line)
{
    const struct machine_hooks hooks = {.ended = on_end, .console_written = on_console,
                                        .context = attack};
    struct fault fault;
    _cleanup_close_ int kernel = open(getenv("HOSTILE_GUEST"), O_RDONLY | O_CLOEXEC);
    const struct machine_source source = {.kernel = kernel, .initramfs = -1,
                                          .command_line = command_line};
    assert_true(kernel >= 0);
    assert_int_equal(machine_load(attack->machine, &source, &fault), OK);
    assert_int_equal(machine_start(attack->machine, &hooks, &fault), OK);
    assert_int_equal(loop_timer_start(attack->loop, &attack->deadline, DEADLINE_US, on_deadline,
                                      attack, &fault), OK);
    on_often(attack);
    machine_go(attack->machine);
    assert_int_equal(loop_run(attack->loop, &fault), OK);
    loop_timer_stop(attack->loop, &attack->deadline);
    loop_timer_stop(attack->loop, &attack->often);
}

static const struct attack *attack_with(const char *command_line, bool endless,
                                        uint32_t broken_rules_max)
{
    static struct attack attack;
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    assert_true(kvm >= 0);
    attack = (struct attack){.shown = getenv("HOSTILE_CONSOLE") != NULL, .endless = endless,
                             .broken_rules_max = broken_rules_max};
    build(&attack, kvm);
    run(&attack, command_line);
    machine_free(attack.machine);
    loop_free(attack.loop);
    take_frames(&attack);
    for (size_t i = 0; i < sizeof attack.peers / sizeof *attack.peers; i++)
        if (attack.peers[i] >= 0)
            close(attack.peers[i]);
    check_file(attack.root, DISK_BYTES, ROOT);
    check_file(attack.scratch, DISK_BYTES / 2, SCRATCH);
    return &attack;
}

static void complain(const char *what, const struct attack *attack)
{
    fprintf(stderr, "%s\n", attack->console); /* cmocka keeps but a part of a message */
    fail_msg("%s: %s: %s", what, sandbox_end_name(attack->end), attack->detail);
}

static void every_device_outlives_its_attacks(void **state)
{
    const char *rounds = getenv("HOSTILE_ROUNDS"), *seeds = getenv("HOSTILE_SEEDS");
    const char *options = getenv("HOSTILE_OPTIONS");
    char command_line[160];
    (void)state;
    for (int seed = 1; seed <= (seeds ? atoi(seeds) : 1); seed++) {
        snprintf(command_line, sizeof command_line, "seed=%d rounds=%s %s", seed * 7919,
                 rounds ? rounds : "4", options ? options : "");
        const struct attack *attack = attack_with(command_line, false, 0);
        if (attack->end != SANDBOX_SHUTDOWN || attack->frames == 0
            || !strstr(attack->console, " 6 devices, 0 failures"))
            complain(command_line, attack);
    }
}

/* What a guest may come to, and what is then said of it: any of `ends`. */
static void every_end_is_told(void **state)
{
    static const struct {
        const char *what;
        unsigned ends; /* bits */
    } ways[] = {
        {"power off", 1u << SANDBOX_SHUTDOWN},
        {"a triple fault", 1u << SANDBOX_FAULTED},
        {"a panic", 1u << SANDBOX_PANIC},
        {"a reset by the keyboard's controller", 1u << SANDBOX_RESET},
        {"a reset by the reset register", 1u << SANDBOX_RESET},
        {"both CPUs halted without interrupts", 1u << SANDBOX_LIFETIME},
        {"both CPUs in a loop", 1u << SANDBOX_LIFETIME},
        {"power off while the other CPU floods registers", 1u << SANDBOX_SHUTDOWN},
        {"a panic and a reset at once", 1u << SANDBOX_PANIC | 1u << SANDBOX_RESET},
        {"code in a device's window", 1u << SANDBOX_FAULTED},
        {"a flood of the console by both CPUs", 1u << SANDBOX_LIFETIME},
        {"a flood of resets by both CPUs", 1u << SANDBOX_LIFETIME},
        {"a CPU that restarts the other where there is no firmware", 1u << SANDBOX_FAULTED},
        {"hypercalls", 1u << SANDBOX_SHUTDOWN | 1u << SANDBOX_LIFETIME},
    };
    char command_line[64];
    (void)state;
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        snprintf(command_line, sizeof command_line, "only=99 platform=0 ending=%zu", i);
        const struct attack *attack = attack_with(command_line,
                                                  ways[i].ends >> SANDBOX_LIFETIME & 1, 0);
        if (!(ways[i].ends >> attack->end & 1))
            complain(ways[i].what, attack);
    }
}

/* As a sandbox has it: after so many the rest of the attacks is not waited for. */
static void a_guest_that_goes_on_breaking_rules_is_ended(void **state)
{
    (void)state;
    const struct attack *attack = attack_with("rounds=1 connections=0 platform=0", false,
                                              SANDBOX_BROKEN_RULES_MAX);
    if (attack->end != SANDBOX_HOSTILE)
        complain("rules broken", attack);
    assert_string_equal(attack->detail,
                        "its drivers broke the rules of virtio 64 times, at last block's");
    assert_null(strstr(attack->console, "failures"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_end_is_told),
        cmocka_unit_test(every_device_outlives_its_attacks),
        cmocka_unit_test(a_guest_that_goes_on_breaking_rules_is_ended),
    };
    if (access("/dev/kvm", R_OK | W_OK) != 0) {
        fprintf(stderr, "skipped: no /dev/kvm\n");
        return 77;
    }
    return cmocka_run_group_tests_name("vmm hostile", tests, NULL, NULL);
}
