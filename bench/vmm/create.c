/* create.c: what making and unmaking a virtual machine costs, by the order of the calls and the
 * place of the interrupt controllers. One line of JSON: medians in microseconds.
 *
 *   bench-vmm-create [ROUNDS [MEMORY_MIB]] */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { ROUNDS_MAX = 1000, NOTIFIERS = 14, STEPS = 8 };

enum step { STEP_VM, STEP_MEMORY, STEP_IRQCHIP, STEP_NOTIFIERS, STEP_VCPU, STEP_CLOSE, STEP_WHOLE };

static const char *const step_names[] = {"vm", "memory", "irqchip", "notifiers", "vcpu", "close",
                                         "whole"};

struct way {
    const char *name;
    bool kernel_irqchip, memory_last;
    enum { NONE, BEFORE_VCPU, AFTER_VCPU } notifiers;
};

static const struct way ways[] = {
    {"split, memory first", false, false, BEFORE_VCPU},
    {"split, memory first, notifiers after the vCPU", false, false, AFTER_VCPU},
    {"split, memory first, no notifiers", false, false, NONE},
    {"split, memory last", false, true, BEFORE_VCPU},
    {"split, memory last, no notifiers", false, true, NONE},
    {"in-kernel, memory first", true, false, BEFORE_VCPU},
    {"in-kernel, memory first, no notifiers", true, false, NONE},
    {"in-kernel, memory last", true, true, BEFORE_VCPU},
    {"in-kernel, memory last, no notifiers", true, true, NONE},
};

static int64_t samples[STEPS][ROUNDS_MAX];

static void need(bool holds, const char *what)
{
    if (holds)
        return;
    perror(what);
    exit(1);
}

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void add_memory(int vm, void *base, uint64_t bytes)
{
    struct kvm_userspace_memory_region slot = {.memory_size = bytes,
                                               .userspace_addr = (uintptr_t)base};
    need(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &slot) == 0, "KVM_SET_USER_MEMORY_REGION");
}

static void add_irqchip(int vm, bool in_kernel)
{
    struct kvm_enable_cap split = {.cap = KVM_CAP_SPLIT_IRQCHIP};
    if (in_kernel)
        need(ioctl(vm, KVM_CREATE_IRQCHIP, 0) == 0, "KVM_CREATE_IRQCHIP");
    else
        need(ioctl(vm, KVM_ENABLE_CAP, &split) == 0, "KVM_CAP_SPLIT_IRQCHIP");
}

static void add_notifiers(int vm, const int *events)
{
    for (uint32_t i = 0; i < NOTIFIERS; i++) {
        struct kvm_ioeventfd notify = {.addr = 0xD0000050 + (uint64_t)i * 0x1000, .len = 4,
                                       .fd = events[i],
                                       .flags = KVM_IOEVENTFD_FLAG_DATAMATCH};
        need(ioctl(vm, KVM_IOEVENTFD, &notify) == 0, "KVM_IOEVENTFD");
    }
}

static void one_round(int kvm, const struct way *way, void *base, uint64_t bytes,
                      const int *events, int round)
{
    int64_t begun = now_ns(), last = begun;
#define STEP(step, call)                                  \
    do {                                                  \
        call;                                             \
        int64_t done = now_ns();                          \
        samples[step][round] = done - last;               \
        last = done;                                      \
    } while (0)
    int vm, vcpu;
    samples[STEP_NOTIFIERS][round] = 0;
    STEP(STEP_VM, vm = ioctl(kvm, KVM_CREATE_VM, 0));
    need(vm >= 0, "KVM_CREATE_VM");
    if (!way->memory_last)
        STEP(STEP_MEMORY, add_memory(vm, base, bytes));
    STEP(STEP_IRQCHIP, add_irqchip(vm, way->kernel_irqchip));
    if (way->notifiers == BEFORE_VCPU)
        STEP(STEP_NOTIFIERS, add_notifiers(vm, events));
    STEP(STEP_VCPU, vcpu = ioctl(vm, KVM_CREATE_VCPU, 0));
    need(vcpu >= 0, "KVM_CREATE_VCPU");
    if (way->notifiers == AFTER_VCPU)
        STEP(STEP_NOTIFIERS, add_notifiers(vm, events));
    if (way->memory_last)
        STEP(STEP_MEMORY, add_memory(vm, base, bytes));
    STEP(STEP_CLOSE, (close(vcpu), close(vm)));
    samples[STEP_WHOLE][round] = last - begun;
}

static int ascending(const void *left, const void *right)
{
    int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;
    return (a > b) - (a < b);
}

static void report(const struct way *way, int rounds, bool first)
{
    printf("%s\"%s\": {", first ? "" : ", ", way->name);
    for (int step = 0; step <= STEP_WHOLE; step++) {
        qsort(samples[step], (size_t)rounds, sizeof **samples, ascending);
        printf("%s\"%s\": %.1f", step ? ", " : "", step_names[step],
               (double)samples[step][rounds / 2] / 1000);
    }
    printf("}");
}

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? (int)strtol(argv[1], NULL, 10) : 50;
    uint64_t bytes = (argc > 2 ? strtoull(argv[2], NULL, 10) : 128) << 20;
    int events[NOTIFIERS], kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    need(kvm >= 0, "/dev/kvm");
    need(rounds > 0 && rounds <= ROUNDS_MAX, "ROUNDS");
    void *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    need(base != MAP_FAILED, "mmap");
    for (int i = 0; i < NOTIFIERS; i++)
        need((events[i] = eventfd(0, EFD_CLOEXEC)) >= 0, "eventfd");
    printf("{");
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        for (int round = 0; round < rounds; round++)
            one_round(kvm, &ways[i], base, bytes, events, round);
        report(&ways[i], rounds, i == 0);
    }
    printf("}\n");
    return 0;
}
