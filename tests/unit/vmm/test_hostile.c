/* test_hostile.c: a whole machine with every device, and the guest of tests/guests/hostile.c in it:
 * it attacks, the monitor lives, and honest work is done in between. Also in the lab, where this
 * program is sanitized. HOSTILE_GUEST: the path of the guest; HOSTILE_ROUNDS: how often each
 * random attack; HOSTILE_SEEDS: how many guests. 77: there is no /dev/kvm. */
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

enum { DISK_BYTES = 8 << 20, STREAMS = 4, CONSOLE_MAX = 1 << 20, VCPUS = 2 };
#define MEMORY_BYTES (UINT64_C(64) << 20)
#define DEADLINE_US (INT64_C(300) * 1000 * 1000)

struct attack {
    struct loop *loop;
    struct machine *machine;
    int peers[STREAMS + 1]; /* the hosts' ends of the streams, and of what stands for a tap */
    enum sandbox_end end;
    char detail[200], console[CONSOLE_MAX];
    size_t console_length;
};

static void on_console(void *context, uint8_t byte)
{
    struct attack *attack = context;
    if (attack->console_length < CONSOLE_MAX - 1)
        attack->console[attack->console_length++] = (char)byte;
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
    const struct block_config root = {.base = file_of(DISK_BYTES, 0x5A), .overlay = -1,
                                      .bytes = DISK_BYTES, .serial = "root"};
    assert_int_equal(block_create(&device, &root, &place, &fault), OK);
    add(attack, device);
    const struct block_config scratch = {.base = file_of(DISK_BYTES / 2, 0x77),
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
    const struct net_config config = {.tap = ends[1], .mac = {2, 0, 0, 0, 0, 1}};
    struct device_place place = place_of(attack);
    assert_int_equal(net_create(&device, &config, &place, &fault), OK);
    add(attack, device);
}

static void build(struct attack *attack, int kvm)
{
    const struct machine_config config = {.memory_bytes = MEMORY_BYTES, .vcpus = VCPUS,
                                          .console = true};
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
    struct loop_timer deadline = {0};
    struct fault fault;
    _cleanup_close_ int kernel = open(getenv("HOSTILE_GUEST"), O_RDONLY | O_CLOEXEC);
    const struct machine_source source = {.kernel = kernel, .initramfs = -1,
                                          .command_line = command_line};
    assert_true(kernel >= 0);
    assert_int_equal(machine_load(attack->machine, &source, &fault), OK);
    assert_int_equal(machine_start(attack->machine, &hooks, &fault), OK);
    assert_int_equal(loop_timer_start(attack->loop, &deadline, DEADLINE_US, on_deadline, attack,
                                      &fault), OK);
    machine_go(attack->machine);
    assert_int_equal(loop_run(attack->loop, &fault), OK);
    loop_timer_stop(attack->loop, &deadline);
}

static void attack_with(const char *command_line)
{
    static struct attack attack;
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    assert_true(kvm >= 0);
    attack = (struct attack){0};
    build(&attack, kvm);
    run(&attack, command_line);
    machine_free(attack.machine);
    loop_free(attack.loop);
    for (size_t i = 0; i < sizeof attack.peers / sizeof *attack.peers; i++)
        close(attack.peers[i]);
    if (attack.end != SANDBOX_SHUTDOWN || !strstr(attack.console, " 6 devices, 0 failures"))
        fail_msg("%s: %s\n%s", sandbox_end_name(attack.end), attack.detail, attack.console);
}

static void every_device_outlives_its_attacks(void **state)
{
    const char *rounds = getenv("HOSTILE_ROUNDS"), *seeds = getenv("HOSTILE_SEEDS");
    char command_line[64];
    (void)state;
    for (int seed = 1; seed <= (seeds ? atoi(seeds) : 1); seed++) {
        snprintf(command_line, sizeof command_line, "seed=%d rounds=%s", seed * 7919,
                 rounds ? rounds : "20");
        attack_with(command_line);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_device_outlives_its_attacks)};
    if (access("/dev/kvm", R_OK | W_OK) != 0) {
        fprintf(stderr, "skipped: no /dev/kvm\n");
        return 77;
    }
    return cmocka_run_group_tests_name("vmm hostile", tests, NULL, NULL);
}
