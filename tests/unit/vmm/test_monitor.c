/* test_monitor.c: a monitor's whole life as its supervisor sees it, with real KVM and flat guests,
 * but without the jail (tests/unit/jail has that). */
#define _GNU_SOURCE
#include "flat.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "vmm/monitor.h"
#include "vmm/x86_64/layout.h"
#include "wire/messages.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

enum { WAIT_MS = 30 * 1000 };

struct house { /* the monitor runs in a thread of its own */
    int supervisor, monitor, agent;
    pthread_t thread;
    status ran;
    struct fault fault;
    bool vcpu_refuses;
    _Atomic int sealed_vcpus, sealed_main, entered;
    uint8_t storage[IPC_PACKET_MAX];
    struct ipc_message message;
};

static struct house house;

static status enter(struct jail_proof *ret, struct fault *fault)
{
    (void)fault;
    ret->landlock_abi = 7;
    house.entered++;
    return OK;
}

static status seal(enum jail_thread thread, struct fault *fault)
{
    if (thread == JAIL_THREAD_VCPU && house.vcpu_refuses)
        return FAIL(INTERNAL, fault, "no filter for this thread");
    if (thread == JAIL_THREAD_VCPU)
        house.sealed_vcpus++;
    else
        house.sealed_main = house.sealed_vcpus; /* after all the others */
    return OK;
}

static void *monitor_thread(void *context)
{
    const struct monitor_jail jail = {.enter = enter, .seal = seal};
    struct loop *loop;
    (void)context;
    assert_int_equal(loop_create(&loop, &house.fault), OK);
    house.ran = monitor_run(house.monitor, loop, &jail, &house.fault);
    loop_free(loop);
    close(house.monitor);
    return NULL;
}

static uint32_t expect(void)
{
    struct fault fault;
    ipc_message_close(&house.message);
    status got = ipc_await(&house.message, house.supervisor, house.storage, WAIT_MS, &fault);
    return got == OK ? house.message.type : (uint32_t)0;
}

static void begin(void)
{
    struct fault fault;
    int ends[2];
    house = (struct house){.agent = -1};
    assert_int_equal(ipc_pair(ends, &fault), OK);
    house.supervisor = ends[0];
    house.monitor = ends[1];
    assert_int_equal(pthread_create(&house.thread, NULL, monitor_thread, NULL), 0);
    assert_int_equal(expect(), MESSAGE_VMM_BLANK);
}

static void finish(void)
{
    pthread_join(house.thread, NULL);
    ipc_message_close(&house.message);
    close(house.supervisor);
    if (house.agent >= 0)
        close(house.agent);
}

static void say(uint32_t type, const void *body, size_t length, int fd)
{
    struct fault fault;
    assert_int_equal(ipc_send_wait(house.supervisor, type, 0, (struct span){body, length},
                                   fd >= 0 ? &fd : NULL, fd >= 0, WAIT_MS, &fault), OK);
    if (fd >= 0)
        close(fd);
}

static void give(enum vmm_fd kind, int fd)
{
    const uint8_t body = (uint8_t)kind;
    assert_true(fd >= 0);
    say(MESSAGE_VMM_FD, &body, 1, fd);
}

static void start(const struct sandbox_spec *spec)
{
    uint8_t storage[512];
    struct buffer body = buffer_over(storage, sizeof storage);
    sandbox_spec_put(&body, spec);
    buffer_put(&body, SPAN("\2\0\0\0\0\1"));
    assert_false(body.failed);
    say(MESSAGE_VMM_START, storage, body.length, -1);
}

static struct sandbox_spec small(void)
{
    struct sandbox_spec spec = sandbox_spec_default();
    spec.memory_mib = SANDBOX_MEMORY_MIB_MIN;
    spec.disk_mib = 4;
    spec.vcpus = 2;
    snprintf(spec.image, sizeof spec.image, "base");
    return spec;
}

static void stream(void)
{
    const uint8_t body[] = {VMM_STREAM_ACCEPT, 0, 0, SANDBOX_AGENT_PORT >> 8, 0};
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
    house.agent = ends[0];
    say(MESSAGE_VMM_STREAM, body, sizeof body, ends[1]);
}

/* All that comes before JAILED. */
static void prepare(const uint8_t *code, size_t length)
{
    const struct sandbox_spec spec = small();
    begin();
    give(VMM_FD_KVM, open("/dev/kvm", O_RDWR | O_CLOEXEC));
    give(VMM_FD_KERNEL, flat_kernel(code, length));
    give(VMM_FD_OVERLAY, memfd_create("overlay", MFD_CLOEXEC));
    start(&spec);
    stream();
}

static void expect_end(enum sandbox_end end)
{
    uint32_t type = expect();
    if (type != MESSAGE_VMM_ENDED)
        fail_msg("%#x where VMM_ENDED was due: %s", type, house.fault.detail);
    assert_true(house.message.body.length > 5);
    assert_int_equal(house.message.body.data[0], end);
}

static const uint8_t switches_off[] = {0xBA, 0x01, 0x06, 0, 0, 0xB0, 0x34, 0xEE, 0xEB, 0xFE};
static const uint8_t spins[] = {0xEB, 0xFE};

static void test_life(void **state)
{
    (void)state;
    prepare(switches_off, sizeof switches_off);
    assert_int_equal(expect(), MESSAGE_JAILED);
    assert_int_equal(house.message.body.length, 5);
    assert_int_equal(house.message.body.data[3], 7);
    assert_int_equal(house.entered, 1);
    assert_int_equal(house.sealed_vcpus, 2);
    assert_int_equal(house.sealed_main, 2);
    say(MESSAGE_VMM_GO, NULL, 0, -1);
    expect_end(SANDBOX_SHUTDOWN);
    finish();
    assert_int_equal(house.ran, OK);
}

static void test_not_before_go(void **state)
{
    struct fault fault;
    (void)state;
    prepare(switches_off, sizeof switches_off);
    assert_int_equal(expect(), MESSAGE_JAILED);
    ipc_message_close(&house.message);
    assert_int_equal(ipc_await(&house.message, house.supervisor, house.storage, 300, &fault),
                     TIMED_OUT);
    say(MESSAGE_VMM_GO, NULL, 0, -1);
    expect_end(SANDBOX_SHUTDOWN);
    finish();
}

static void test_closed_line_ends_it(void **state)
{
    (void)state;
    prepare(spins, sizeof spins);
    assert_int_equal(expect(), MESSAGE_JAILED);
    say(MESSAGE_VMM_GO, NULL, 0, -1);
    close(house.agent);
    house.agent = -1;
    expect_end(SANDBOX_CLOSED);
    finish();
    assert_int_equal(house.ran, OK);
}

static void test_gone_supervisor_ends_it(void **state)
{
    (void)state;
    prepare(spins, sizeof spins);
    assert_int_equal(expect(), MESSAGE_JAILED);
    say(MESSAGE_VMM_GO, NULL, 0, -1);
    shutdown(house.supervisor, SHUT_RDWR);
    finish();
    assert_int_equal(house.ran, CLOSED);
}

static void test_unsealed_thread_is_told(void **state)
{
    (void)state;
    begin();
    house.vcpu_refuses = true;
    const struct sandbox_spec spec = small();
    give(VMM_FD_KVM, open("/dev/kvm", O_RDWR | O_CLOEXEC));
    give(VMM_FD_KERNEL, flat_kernel(spins, sizeof spins));
    give(VMM_FD_OVERLAY, memfd_create("overlay", MFD_CLOEXEC));
    start(&spec);
    expect_end(SANDBOX_FAILED);
    assert_int_equal(house.sealed_main, 0);
    finish();
}

/* ---- the console ---- */

/* Count bytes to the serial port, each one more than the one before, then what comes after. */
#define PRINTS(count, ...)                                                                       \
    {0xB9, (count) & 0xFF, (count) >> 8 & 0xFF, (count) >> 16, 0, /* mov ecx, count */           \
     0xBA, 0xF8, 0x03, 0, 0,                                      /* mov edx, the port */        \
     0x30, 0xC0,                                                  /* xor al, al */               \
     0xEE, 0xFE, 0xC0, 0xE2, 0xFB,                                /* out; inc al; loop */        \
     __VA_ARGS__}
#define SWITCHES_OFF 0xBA, 0x01, 0x06, 0, 0, 0xB0, 0x34, 0xEE, 0xEB, 0xFE
#define PANICS 0xBA, PORT_PANIC & 0xFF, PORT_PANIC >> 8, 0, 0, 0xB0, 0x01, 0xEE, 0xEB, 0xFE
#define RESETS 0xBA, 0x64, 0, 0, 0, 0xB0, 0xFE, 0xEE, 0xEB, 0xFE
#define SPINS 0xEB, 0xFE

static void prepare_console(const uint8_t *code, size_t length, int console)
{
    struct sandbox_spec spec = small();
    spec.console = true;
    spec.vcpus = 1;
    begin();
    give(VMM_FD_KVM, open("/dev/kvm", O_RDWR | O_CLOEXEC));
    give(VMM_FD_KERNEL, flat_kernel(code, length));
    give(VMM_FD_OVERLAY, memfd_create("overlay", MFD_CLOEXEC));
    give(VMM_FD_CONSOLE, dup(console));
    start(&spec);
    stream();
    assert_int_equal(expect(), MESSAGE_JAILED);
}

/* How many bytes there are; each is one more than the one before. */
static uint32_t held(int fd, uint8_t first)
{
    static uint8_t text[2 * SANDBOX_CONSOLE_BYTES];
    ssize_t got = 0, more;
    while ((more = read(fd, text + got, sizeof text - (size_t)got)) > 0)
        got += more;
    for (ssize_t i = 0; i < got; i++)
        if (text[i] != (uint8_t)(first + i))
            fail_msg("byte %zd is %u", i, text[i]);
    return (uint32_t)got;
}

static void test_console_has_the_newest_however_it_ends(void **state)
{
    (void)state;
    enum { LONG = SANDBOX_CONSOLE_BYTES + 1234 };
    static const uint8_t off[] = PRINTS(300, SWITCHES_OFF), longer[] = PRINTS(LONG, SWITCHES_OFF),
                         panic[] = PRINTS(300, PANICS), reset[] = PRINTS(300, RESETS);
    const struct {
        const uint8_t *code;
        size_t length;
        enum sandbox_end end;
        uint32_t count, kept;
    } cases[] = {{off, sizeof off, SANDBOX_SHUTDOWN, 300, 300},
                 {longer, sizeof longer, SANDBOX_SHUTDOWN, LONG, SANDBOX_CONSOLE_BYTES},
                 {panic, sizeof panic, SANDBOX_PANIC, 300, 300},
                 {reset, sizeof reset, SANDBOX_RESET, 300, 300}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int file = memfd_create("console", MFD_CLOEXEC);
        assert_int_equal(ftruncate(file, 1 << 20), 0); /* of an earlier run */
        prepare_console(cases[i].code, cases[i].length, file);
        say(MESSAGE_VMM_GO, NULL, 0, -1);
        expect_end(cases[i].end);
        finish();
        assert_int_equal(house.ran, OK);
        assert_int_equal(held(file, (uint8_t)(cases[i].count - cases[i].kept)), cases[i].kept);
        close(file);
    }
}

static uint32_t talk_for(unsigned seconds, bool closes)
{
    static const uint8_t talks[] = PRINTS(300, SPINS);
    int file = memfd_create("console", MFD_CLOEXEC);
    prepare_console(talks, sizeof talks, file);
    say(MESSAGE_VMM_GO, NULL, 0, -1);
    sleep(seconds);
    if (closes)
        close(take_fd(&house.agent));
    else
        say(MESSAGE_VMM_STOP, NULL, 0, -1);
    expect_end(SANDBOX_CLOSED);
    finish();
    assert_int_equal(house.ran, OK);
    uint32_t bytes = held(file, 0);
    close(file);
    return bytes;
}

/* A guest that runs is ended from outside: by its line, and by the supervisor's word. Where it had
 * no time to say anything it gets more. */
static void test_console_of_a_guest_that_is_ended(void **state)
{
    (void)state;
    for (int closes = 0; closes < 2; closes++) {
        unsigned seconds = 0;
        while (talk_for(seconds, closes) == 0)
            assert_true(++seconds < 30);
    }
}

/* It takes what it has room for; the run ends all the same. */
static void test_console_that_nobody_empties(void **state)
{
    (void)state;
    enum { LONG = SANDBOX_CONSOLE_BYTES };
    static const uint8_t longer[] = PRINTS(LONG, SWITCHES_OFF);
    int ends[2];
    for (int readers = 0; readers < 2; readers++) {
        assert_int_equal(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
        assert_int_equal(fcntl(ends[1], F_SETPIPE_SZ, 8192), 8192);
        if (readers == 0)
            close(ends[0]);
        prepare_console(longer, sizeof longer, ends[1]);
        close(ends[1]);
        say(MESSAGE_VMM_GO, NULL, 0, -1);
        expect_end(SANDBOX_SHUTDOWN);
        finish();
        assert_int_equal(house.ran, OK);
        if (readers == 0)
            continue;
        assert_int_equal(held(ends[0], 0), 8192); /* the beginning of what there was */
        close(ends[0]);
    }
}

static void test_console_that_is_none(void **state)
{
    (void)state;
    struct sandbox_spec spec = small();
    for (int way = 0; way < 3; way++) {
        begin();
        spec.console = way != 1;
        give(VMM_FD_KVM, open("/dev/kvm", O_RDWR | O_CLOEXEC));
        give(VMM_FD_KERNEL, flat_kernel(spins, sizeof spins));
        give(VMM_FD_OVERLAY, memfd_create("overlay", MFD_CLOEXEC));
        if (way == 1)
            give(VMM_FD_CONSOLE, memfd_create("console", MFD_CLOEXEC));
        if (way == 2)
            give(VMM_FD_CONSOLE, open("/dev/null", O_WRONLY | O_CLOEXEC));
        start(&spec);
        expect_end(SANDBOX_FAILED);
        finish();
    }
}

static void test_stop_before_go_is_a_breach(void **state)
{
    (void)state;
    prepare(spins, sizeof spins);
    assert_int_equal(expect(), MESSAGE_JAILED);
    say(MESSAGE_VMM_STOP, NULL, 0, -1);
    finish();
    assert_int_equal(house.ran, BAD_REQUEST);
}

static void test_missing_files_are_told(void **state)
{
    struct sandbox_spec spec = small();
    (void)state;
    begin();
    start(&spec); /* not even KVM */
    expect_end(SANDBOX_FAILED);
    finish();
    begin();
    give(VMM_FD_KVM, open("/dev/kvm", O_RDWR | O_CLOEXEC));
    give(VMM_FD_KERNEL, flat_kernel(spins, sizeof spins));
    start(&spec); /* no overlay */
    expect_end(SANDBOX_FAILED);
    finish();
    begin();
    give(VMM_FD_KVM, open("/dev/kvm", O_RDWR | O_CLOEXEC));
    spec.disk_mib = 0;
    start(&spec); /* no kernel */
    expect_end(SANDBOX_FAILED);
    finish();
    begin();
    give(VMM_FD_KVM, open("/dev/kvm", O_RDWR | O_CLOEXEC));
    give(VMM_FD_KERNEL, open("/dev/zero", O_RDONLY | O_CLOEXEC)); /* no regular file */
    start(&spec);
    expect_end(SANDBOX_FAILED);
    finish();
}

/* What a blank is given ahead may be of no use: it says so to who waits for it, not before. */
static void test_blank_says_nothing(void **state)
{
    struct sandbox_spec spec = small();
    struct fault fault;
    (void)state;
    for (int broken = 0; broken < 2; broken++) {
        begin();
        give(VMM_FD_KVM, open(broken ? "/dev/kvm" : "/dev/null", O_RDWR | O_CLOEXEC));
        give(VMM_FD_KERNEL, open("/dev/zero", O_RDONLY | O_CLOEXEC)); /* no regular file */
        give(VMM_FD_INITRAMFS, open("/dev/zero", O_RDONLY | O_CLOEXEC));
        assert_int_equal(ipc_await(&house.message, house.supervisor, house.storage, 100, &fault),
                         TIMED_OUT);
        start(&spec);
        expect_end(SANDBOX_FAILED);
        assert_non_null(memmem(house.message.body.data, house.message.body.length,
                               broken ? "kernel: " : "KVM: ", broken ? 8 : 5));
        finish();
    }
}

static void refused(uint32_t type, const void *body, size_t length, int fd)
{
    begin();
    say(type, body, length, fd);
    expect_end(SANDBOX_FAILED);
    finish();
}

static void test_malformed_messages(void **state)
{
    (void)state;
    refused(MESSAGE_VMM_GO, NULL, 0, -1);
    refused(MESSAGE_VMM_STREAM, "\1\0\0\4\0", 5, open("/dev/null", O_RDWR));
    refused(MESSAGE_VMM_FD, "\1", 1, -1);
    refused(MESSAGE_VMM_FD, "", 0, open("/dev/null", O_RDWR));
    refused(MESSAGE_VMM_FD, "\0", 1, open("/dev/null", O_RDWR));
    refused(MESSAGE_VMM_FD, "\11", 1, open("/dev/null", O_RDWR)); /* a runner's */
    refused(MESSAGE_VMM_FD, "\377", 1, open("/dev/null", O_RDWR));
    refused(MESSAGE_VMM_FD, "\2\0", 2, open("/dev/null", O_RDWR));
    refused(MESSAGE_VMM_START, "\1\1", 2, -1);
    refused(0xFFFF, NULL, 0, -1);
    begin();
    give(VMM_FD_INITRAMFS, open("/dev/null", O_RDONLY | O_CLOEXEC));
    give(VMM_FD_INITRAMFS, open("/dev/null", O_RDONLY | O_CLOEXEC));
    expect_end(SANDBOX_FAILED);
    finish();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_life),
        cmocka_unit_test(test_not_before_go),
        cmocka_unit_test(test_closed_line_ends_it),
        cmocka_unit_test(test_gone_supervisor_ends_it),
        cmocka_unit_test(test_unsealed_thread_is_told),
        cmocka_unit_test(test_console_has_the_newest_however_it_ends),
        cmocka_unit_test(test_console_of_a_guest_that_is_ended),
        cmocka_unit_test(test_console_that_nobody_empties),
        cmocka_unit_test(test_console_that_is_none),
        cmocka_unit_test(test_stop_before_go_is_a_breach),
        cmocka_unit_test(test_missing_files_are_told),
        cmocka_unit_test(test_blank_says_nothing),
        cmocka_unit_test(test_malformed_messages),
    };
    signal(SIGPIPE, SIG_IGN);
    if (!flat_has_kvm()) {
        printf("skipped: this machine has no /dev/kvm that may be opened\n");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
