/* test_machine.c: flat guests on this machine's own /dev/kvm. */
#define _GNU_SOURCE
#include "flat.h"

#include "vmm/inside.h"
#include "vmm/x86_64/state.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* 32-bit code */
#define IMMEDIATE(n) (uint8_t)(n), (uint8_t)((uint32_t)(n) >> 8), \
                     (uint8_t)((uint32_t)(n) >> 16), (uint8_t)((uint32_t)(n) >> 24)
#define SET_EAX(n) 0xB8, IMMEDIATE(n)
#define SET_EDX(n) 0xBA, IMMEDIATE(n)
#define OUT_AL 0xEE
#define OUT_AX 0x66, 0xEF
#define OUT_EAX 0xEF
#define IN_AL 0xEC
#define IN_EAX 0xED
#define LOAD(address) 0xA1, IMMEDIATE(address)   /* eax */
#define STORE(address) 0xA3, IMMEDIATE(address)
#define TELL SET_EDX(FLAT_PORT), OUT_EAX         /* eax */
#define PORT(port, byte) SET_EDX(port), 0xB0, (byte), OUT_AL
#define OFF PORT(PORT_SLEEP_CONTROL, 0x34)
#define SPIN 0xEB, 0xFE
#define HALT 0xF4

#define RUN(flat, ...)                                      \
    do {                                                    \
        static const uint8_t code[] = {__VA_ARGS__};        \
        flat_make((flat), 1);                               \
        flat_start((flat), code, sizeof code);              \
        machine_go((flat)->machine);                        \
        flat_run((flat), NULL);                             \
    } while (0)

static void test_boot_state(void **state)
{
    struct flat flat;
    (void)state;
    RUN(&flat, 0x8B, 0x03, TELL,             /* the magic, through ebx */
        0x0F, 0x20, 0xC0, TELL,              /* cr0 */
        0xBC, IMMEDIATE(0x9000), 0x9C, 0x58, TELL, /* flags, by a stack */
        OFF, SPIN);
    assert_int_equal(flat.end, SANDBOX_SHUTDOWN);
    assert_int_equal(flat.outs, 3);
    assert_int_equal(flat.out[0], 0x336EC578);
    assert_int_equal(flat.out[1] & 0x80000001, 1);
    assert_int_equal(flat.out[2], 2); /* no interrupts */
    flat_free(&flat);
}

static void test_tables_are_found(void **state)
{
    struct flat flat;
    (void)state;
    RUN(&flat, 0x8B, 0x43, 0x20, TELL,       /* start_info.rsdp */
        0x8B, 0x00, TELL,                    /* "RSD " */
        0x8B, 0x43, 0x18, 0x8B, 0x00, TELL,  /* the command line */
        OFF, SPIN);
    assert_int_equal(flat.end, SANDBOX_SHUTDOWN);
    assert_int_equal(flat.outs, 3);
    assert_int_equal(flat.out[0], GUEST_TABLES);
    assert_memory_equal(&flat.out[1], "RSD ", 4);
    assert_memory_equal(&flat.out[2], "flat", 4);
    flat_free(&flat);
}

static void test_unknown_reads_as_ones(void **state)
{
    struct flat flat;
    (void)state;
    RUN(&flat, SET_EAX(0), SET_EDX(0x1234), IN_EAX, TELL,
        LOAD(0xE0000000), TELL,              /* memory that nobody has */
        LOAD(GUEST_VIRTIO), TELL,            /* a window without a device */
        SET_EAX(0x12345678), STORE(0xE0000000), STORE(GUEST_VIRTIO + 0x70),
        STORE(GUEST_VIRTIO + 0x7FFC), SET_EDX(0x4321), OUT_EAX, OUT_AX,
        SET_EAX(0), SET_EDX(PORT_KEYBOARD), IN_AL, TELL,
        SET_EDX(PORT_SERIAL), 0xEC, 0x25, IMMEDIATE(0xFF), TELL, /* no console */
        OFF, SPIN);
    assert_int_equal(flat.end, SANDBOX_SHUTDOWN);
    assert_int_equal(flat.outs, 5);
    assert_int_equal(flat.out[0], UINT32_MAX);
    assert_int_equal(flat.out[1], UINT32_MAX);
    assert_int_equal(flat.out[2], UINT32_MAX);
    assert_int_equal(flat.out[3], 0);
    assert_int_equal(flat.out[4], 0xFF);
    flat_free(&flat);
}

static void test_ioapic_is_there(void **state)
{
    struct flat flat;
    (void)state;
    RUN(&flat, SET_EAX(1), STORE(GUEST_IOAPIC), LOAD(GUEST_IOAPIC + 0x10), TELL,
        SET_EAX(0x12), STORE(GUEST_IOAPIC), SET_EAX(0xFFFFFFFF), STORE(GUEST_IOAPIC + 0x10),
        LOAD(GUEST_IOAPIC + 0x10), TELL,
        SET_EAX(0xFF), STORE(GUEST_IOAPIC), STORE(GUEST_IOAPIC + 0x10),
        LOAD(GUEST_IOAPIC + 0x10), TELL, OFF, SPIN);
    assert_int_equal(flat.end, SANDBOX_SHUTDOWN);
    assert_int_equal(flat.out[0], 0x170011);
    assert_int_equal(flat.out[1], 0x1AFFF); /* what can be written */
    assert_int_equal(flat.out[2], UINT32_MAX);
    flat_free(&flat);
}

static void test_ends_are_told_apart(void **state)
{
    struct flat flat;
    (void)state;
    RUN(&flat, OFF, SPIN);
    assert_int_equal(flat.end, SANDBOX_SHUTDOWN);
    flat_free(&flat);
    RUN(&flat, PORT(PORT_KEYBOARD, 0xFE), SPIN);
    assert_int_equal(flat.end, SANDBOX_RESET);
    flat_free(&flat);
    RUN(&flat, PORT(PORT_RESET, 1), SPIN);
    assert_int_equal(flat.end, SANDBOX_RESET);
    flat_free(&flat);
    RUN(&flat, PORT(PORT_PANIC, 1), PORT(PORT_RESET, 1), SPIN); /* as a kernel does: both */
    assert_int_equal(flat.end, SANDBOX_PANIC);
    flat_free(&flat);
    RUN(&flat, 0x0F, 0x0B, SPIN); /* an invalid instruction, and no handler of anything */
    assert_int_equal(flat.end, SANDBOX_FAULTED);
    assert_string_equal(flat.detail, "triple fault");
    flat_free(&flat);
}

static bool has_told(struct flat *flat)
{
    return flat->outs > 0;
}

static void test_spinning_guest_is_held(void **state)
{
    static const uint8_t code[] = {SET_EAX(1), TELL, SPIN};
    struct flat flat;
    (void)state;
    flat_make(&flat, 1);
    flat_start(&flat, code, sizeof code);
    machine_go(flat.machine);
    flat_run(&flat, has_told);
    machine_hold(flat.machine);
    struct kvm_regs registers;
    assert_int_equal(ioctl(flat.machine->vcpus[0].fd, KVM_GET_REGS, &registers), 0);
    assert_int_equal(registers.rip, GUEST_LOADED + sizeof code - 2);
    assert_int_equal(registers.rdx, FLAT_PORT);
    machine_go(flat.machine);
    machine_end(flat.machine, SANDBOX_LIFETIME, "enough");
    flat_run(&flat, NULL);
    assert_int_equal(flat.end, SANDBOX_LIFETIME);
    flat_free(&flat);
}

static void test_halted_guest_is_held(void **state)
{
    static const uint8_t code[] = {SET_EAX(1), TELL, HALT, SPIN};
    struct flat flat;
    (void)state;
    flat_make(&flat, 1);
    flat_start(&flat, code, sizeof code);
    machine_go(flat.machine);
    flat_run(&flat, has_told);
    for (int i = 0; i < 20; i++) {
        machine_hold(flat.machine);
        machine_go(flat.machine);
    }
    flat_free(&flat); /* also without an end */
}

/* What makes machines is not at hand beside a guest. */
static void test_no_way_to_another_machine(void **state)
{
    struct flat flat;
    char path[32], target[64];
    uint32_t seen = 0;
    (void)state;
    flat_make(&flat, 1);
    for (int fd = 0; fd < 64; fd++) {
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        ssize_t length = readlink(path, target, sizeof target - 1);
        if (length < 0)
            continue;
        target[length] = '\0';
        assert_string_not_equal(target, "/dev/kvm");
        seen += strcmp(target, "anon_inode:kvm-vm") == 0;
    }
    assert_int_equal(seen, 1);
    flat_free(&flat);
}

static void test_never_run_is_freed(void **state)
{
    static const uint8_t code[] = {SPIN};
    struct flat flat;
    (void)state;
    flat_make(&flat, SANDBOX_VCPUS_MAX);
    flat_start(&flat, code, sizeof code);
    flat_free(&flat);
}

/* ---- state, and what was written ---- */

static bool has_told_thrice(struct flat *flat)
{
    return flat->outs >= 3;
}

/* A guest that counts in a register and in memory goes on counting in another machine. */
static void test_state_moves(void **state)
{
    static const uint8_t code[] = {
        0x43, SET_EDX(FLAT_PORT), 0x89, 0xD8, OUT_EAX, /* inc ebx; tell it */
        0xA3, IMMEDIATE(0x200000), 0xEB, 0xF0};
    static struct vcpu_state moved;
    struct flat from, to;
    struct fault fault;
    (void)state;
    flat_make(&from, 1);
    flat_start(&from, code, sizeof code);
    machine_go(from.machine);
    flat_run(&from, has_told_thrice);
    machine_hold(from.machine);
    uint32_t last = from.out[from.outs - 1];
    if (vcpu_state_save(&moved, from.machine->vcpus[0].fd, &fault) != OK)
        fail_msg("%s", fault.detail);
    assert_in_range(moved.registers.rip, GUEST_LOADED, GUEST_LOADED + sizeof code);
    bool room = from.outs < FLAT_OUTS_MAX; /* else it has told more than was kept */

    flat_make(&to, 1);
    flat_start(&to, code, sizeof code);
    if (vcpu_state_load(to.machine->vcpus[0].fd, &moved, &fault) != OK)
        fail_msg("%s", fault.detail);
    machine_go(to.machine);
    flat_run(&to, has_told);
    machine_hold(to.machine);
    if (room)
        assert_int_equal(to.out[0], last + 1);
    else
        assert_true(to.out[0] > last);
    flat_free(&to);
    flat_free(&from);
}

/* KVM's log of what the guest wrote: what a snapshot after the first is made of. */
static void test_dirty_pages(void **state)
{
    static const uint8_t code[] = {
        SET_EAX(1), STORE(0x201000), STORE(0x203008), STORE(0x3FF000), TELL, SPIN};
    struct flat flat;
    uint64_t bits[16] = {0};
    (void)state;
    flat_make(&flat, 1);
    flat_start(&flat, code, sizeof code);
    const struct memory_region *region = &flat.machine->memory.regions[0];
    struct kvm_userspace_memory_region slot = {
        .memory_size = region->size, .userspace_addr = (uintptr_t)region->base,
        .flags = KVM_MEM_LOG_DIRTY_PAGES};
    assert_int_equal(ioctl(flat.machine->vm, KVM_SET_USER_MEMORY_REGION, &slot), 0);
    machine_go(flat.machine);
    flat_run(&flat, has_told);
    machine_hold(flat.machine);
    struct kvm_dirty_log log = {.dirty_bitmap = bits};
    assert_int_equal(ioctl(flat.machine->vm, KVM_GET_DIRTY_LOG, &log), 0);
    const uint32_t written[] = {0x201, 0x203, 0x3FF}, untouched[] = {0x200, 0x202, 0x3FE};
    for (int i = 0; i < 3; i++) {
        assert_true(bits[written[i] / 64] >> written[i] % 64 & 1);
        assert_false(bits[untouched[i] / 64] >> untouched[i] % 64 & 1);
    }
    flat_free(&flat);
}

/* ---- a device's window, and who does what ---- */

struct probe {
    struct virtio_device common;
    pid_t activated_by, reset_by, notified_by;
    uint32_t notified;
};

static void probe_activate(struct virtio_device *device)
{
    struct probe *probe = (struct probe *)device;
    probe->activated_by = gettid();
}

static void probe_reset(struct virtio_device *device)
{
    struct probe *probe = (struct probe *)device;
    probe->reset_by = gettid();
}

static void probe_notify(struct virtio_device *device, uint32_t queue)
{
    struct probe *probe = (struct probe *)device;
    probe->notified_by = gettid();
    probe->notified |= 1u << queue;
}

static void probe_read(struct virtio_device *device, uint32_t offset, void *to, uint32_t size)
{
    (void)device;
    memset(to, (int)offset, size);
}

static void probe_destroy(struct virtio_device *device)
{
    (void)device;
}

static const struct virtio_operations probe_operations = {
    .name = "probe", .kind = VIRTIO_KIND_RNG, .queues = 2, .activate = probe_activate,
    .reset = probe_reset, .notify = probe_notify, .read_config = probe_read,
    .destroy = probe_destroy};

#define REGISTER(n) ((uint32_t)GUEST_VIRTIO + (n))
#define WRITE(offset, value) SET_EAX(value), STORE(REGISTER(offset))

static bool is_notified(struct flat *flat)
{
    struct probe *probe = (struct probe *)flat->machine->devices[0].device;
    return probe->notified == 2;
}

static void go_with(struct flat *flat, struct probe *probe, struct span code)
{
    struct fault fault;
    flat_make(flat, 1);
    virtio_init(&probe->common, &probe_operations, machine_host(flat->machine),
                machine_next_line(flat->machine), 0);
    assert_int_equal(machine_add(flat->machine, &probe->common, &fault), OK);
    flat_start(flat, code.data, code.length);
    machine_go(flat->machine);
}

static void test_device_thread_does_the_work(void **state)
{
    static const uint8_t code[] = {
        LOAD(REGISTER(0)), TELL, LOAD(REGISTER(8)), TELL, LOAD(REGISTER(0x104)), TELL,
        WRITE(0x70, 0), WRITE(0x70, 1), WRITE(0x70, 3),
        WRITE(0x24, 1), WRITE(0x20, 1), WRITE(0x70, 11),       /* VERSION_1, FEATURES_OK */
        WRITE(0x30, 1), WRITE(0x38, 8),                        /* queue 1 of 8 */
        WRITE(0x80, 0x200000), WRITE(0x90, 0x201000), WRITE(0xA0, 0x202000),
        WRITE(0x44, 1), WRITE(0x70, 15), LOAD(REGISTER(0x70)), TELL,
        WRITE(0x50, 1), SPIN};
    struct probe probe = {0};
    struct flat flat;
    (void)state;
    go_with(&flat, &probe, (struct span){code, sizeof code});
    flat_run(&flat, is_notified);
    machine_hold(flat.machine);
    assert_int_equal(flat.outs, 4);
    assert_int_equal(flat.out[0], 0x74726976);
    assert_int_equal(flat.out[1], VIRTIO_KIND_RNG);
    assert_int_equal(flat.out[2], 0x04040404);
    assert_int_equal(flat.out[3], 15);
    assert_int_equal(probe.activated_by, gettid());
    assert_int_equal(probe.notified_by, gettid());
    flat_free(&flat);
}

/* Two vCPUs would be the least to show it; one and a hold suffice: the errand is asked for while
 * the device thread waits for the vCPU to stand still. */
static void test_held_during_an_errand(void **state)
{
    static const uint8_t code[] = {SET_EAX(1), TELL, WRITE(0x70, 0), 0xEB, 0xF4};
    struct probe probe = {0};
    struct flat flat;
    struct fault fault;
    (void)state;
    go_with(&flat, &probe, (struct span){code, sizeof code});
    flat_run(&flat, has_told);
    for (int i = 0; i < 200; i++) {
        machine_hold(flat.machine);
        machine_go(flat.machine);
        assert_int_equal(loop_turn(flat.loop, 0, &fault), OK);
    }
    flat_free(&flat);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_boot_state),
        cmocka_unit_test(test_tables_are_found),
        cmocka_unit_test(test_unknown_reads_as_ones),
        cmocka_unit_test(test_ioapic_is_there),
        cmocka_unit_test(test_ends_are_told_apart),
        cmocka_unit_test(test_spinning_guest_is_held),
        cmocka_unit_test(test_halted_guest_is_held),
        cmocka_unit_test(test_no_way_to_another_machine),
        cmocka_unit_test(test_never_run_is_freed),
        cmocka_unit_test(test_state_moves),
        cmocka_unit_test(test_dirty_pages),
        cmocka_unit_test(test_device_thread_does_the_work),
        cmocka_unit_test(test_held_during_an_errand),
    };
    if (!flat_has_kvm()) {
        printf("skipped: this machine has no /dev/kvm that may be opened\n");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
