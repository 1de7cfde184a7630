#define _GNU_SOURCE
#include "vmm/inside.h"

#include "base/clock.h"
#include "vmm/x86_64/boot.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

enum { STACK_BYTES = 64 * 1024 };

enum { /* IA32_MISC_ENABLE: fast strings; IA32_MTRR_DEF_TYPE: enabled, write-back */
    MSR_MISC_ENABLE = 0x1A0, MSR_MTRR_DEFAULT = 0x2FF,
    MISC_FAST_STRINGS = 1, MTRR_ENABLED_WRITE_BACK = 0x806,
};

struct msr_pair { /* what KVM_SET_MSRS takes, for two */
    struct kvm_msrs head;
    struct kvm_msr_entry entries[2];
};

static status set_processor(struct vcpu *vcpu, struct fault *fault)
{
    struct cpuid_table table = vcpu->machine->cpuid;
    struct msr_pair msrs = {
        .head = {.nmsrs = 2},
        .entries = {{.index = MSR_MTRR_DEFAULT, .data = MTRR_ENABLED_WRITE_BACK},
                    {.index = MSR_MISC_ENABLE, .data = MISC_FAST_STRINGS}},
    };
    cpuid_for_vcpu(&table, vcpu->index, vcpu->machine->config.vcpus);
    if (ioctl(vcpu->fd, KVM_SET_CPUID2, &table))
        return FAIL(UNAVAILABLE, fault, "vCPU: KVM_SET_CPUID2: %s", strerror(errno));
    if (ioctl(vcpu->fd, KVM_SET_MSRS, &msrs) < 1)
        return FAIL(UNAVAILABLE, fault, "vCPU: KVM_SET_MSRS: %s", strerror(errno));
    return OK;
}

status vcpu_create(struct machine *machine, uint32_t index, struct fault *fault)
{
    struct vcpu *vcpu = &machine->vcpus[index];
    *vcpu = (struct vcpu){.machine = machine, .index = index};
    vcpu->fd = ioctl(machine->vm, KVM_CREATE_VCPU, (unsigned long)index);
    if (vcpu->fd < 0)
        return FAIL(UNAVAILABLE, fault, "vCPU: KVM_CREATE_VCPU: %s", strerror(errno));
    machine->vcpu_count = index + 1;
    void *run = mmap(NULL, machine->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
    if (run == MAP_FAILED)
        return FAIL(INTERNAL, fault, "vCPU: mmap: %s", strerror(errno));
    vcpu->run = run;
    return set_processor(vcpu, fault);
}

status vcpu_enter_at(struct vcpu *vcpu, uint64_t entry, struct fault *fault)
{
    struct kvm_regs registers;
    struct kvm_sregs special;
    if (ioctl(vcpu->fd, KVM_GET_SREGS, &special))
        return FAIL(INTERNAL, fault, "vCPU: KVM_GET_SREGS: %s", strerror(errno));
    boot_registers(&registers, &special, entry);
    if (ioctl(vcpu->fd, KVM_SET_SREGS, &special) || ioctl(vcpu->fd, KVM_SET_REGS, &registers))
        return FAIL(INTERNAL, fault, "vCPU: KVM_SET_SREGS, KVM_SET_REGS: %s", strerror(errno));
    return OK;
}

static void port_exit(struct vcpu *vcpu)
{
    const struct kvm_run *run = vcpu->run;
    uint64_t offset = run->io.data_offset, size = run->io.size, count = run->io.count;
    bool write = run->io.direction == KVM_EXIT_IO_OUT;
    if (size > 4 || offset > vcpu->machine->run_bytes
        || size * count > vcpu->machine->run_bytes - offset)
        return;
    uint8_t *bytes = (uint8_t *)vcpu->run + offset;
    for (uint64_t i = 0; i < count; i++)
        bus_port(vcpu->machine, run->io.port, bytes + i * size, (uint32_t)size, write);
}

static void memory_exit(struct vcpu *vcpu)
{
    struct kvm_run *run = vcpu->run;
    if (run->mmio.len >= 1 && run->mmio.len <= sizeof run->mmio.data)
        bus_memory(vcpu->machine, run->mmio.phys_addr, run->mmio.data, run->mmio.len,
                   run->mmio.is_write);
}

static void system_exit(struct vcpu *vcpu)
{
    switch (vcpu->run->system_event.type) {
    case KVM_SYSTEM_EVENT_SHUTDOWN:
        machine_end(vcpu->machine, SANDBOX_SHUTDOWN, "the guest switched the machine off");
        break;
    case KVM_SYSTEM_EVENT_RESET:
        machine_end(vcpu->machine, SANDBOX_RESET, "the guest reset the machine");
        break;
    case KVM_SYSTEM_EVENT_CRASH:
        machine_end(vcpu->machine, SANDBOX_PANIC, "the guest's kernel panicked");
        break;
    default: break;
    }
}

static void unknown_exit(struct vcpu *vcpu)
{
    const struct kvm_run *run = vcpu->run;
    char detail[64];
    uint64_t why = run->exit_reason == KVM_EXIT_INTERNAL_ERROR ? run->internal.suberror
                 : run->exit_reason == KVM_EXIT_FAIL_ENTRY
                     ? run->fail_entry.hardware_entry_failure_reason
                     : 0;
    snprintf(detail, sizeof detail, "KVM cannot run the guest: exit %u, %#llx", run->exit_reason,
             (unsigned long long)why);
    machine_end(vcpu->machine, SANDBOX_FAULTED, detail);
}

static void handle_exit(struct vcpu *vcpu)
{
    switch (vcpu->run->exit_reason) {
    case KVM_EXIT_IO: port_exit(vcpu); break;
    case KVM_EXIT_MMIO: memory_exit(vcpu); break;
    case KVM_EXIT_SHUTDOWN:
        machine_end(vcpu->machine, SANDBOX_FAULTED, "triple fault");
        break;
    case KVM_EXIT_SYSTEM_EVENT: system_exit(vcpu); break;
    case KVM_EXIT_INTR:
    case KVM_EXIT_IRQ_WINDOW_OPEN:
    case KVM_EXIT_IOAPIC_EOI: /* all its lines are edges */
    case KVM_EXIT_SET_TPR: break;
    default: unknown_exit(vcpu); break;
    }
}

/* KVM reads it when it is entered; another thread may write it at any moment. */
static void set_immediate_exit(struct vcpu *vcpu, uint8_t wanted)
{
    __atomic_store_n(&vcpu->run->immediate_exit, wanted, __ATOMIC_SEQ_CST);
}

static bool enter(struct vcpu *vcpu)
{
    struct machine *machine = vcpu->machine;
    int failed = ioctl(vcpu->fd, KVM_RUN, 0);
    if (vcpu->index == 0 && machine->timeline.first_exit == 0)
        machine->timeline.first_exit = clock_monotonic_us();
    if (!failed) {
        handle_exit(vcpu);
        return true;
    }
    if (errno == EINTR || errno == EAGAIN)
        return false;
    char detail[64];
    snprintf(detail, sizeof detail, "KVM_RUN: %s", strerror(errno));
    machine_end(machine, SANDBOX_FAILED, detail);
    return false;
}

/* When it is held, the access that was answered last still waits for KVM to complete it: only then
 * are the vCPU's registers those after the instruction. */
static void run_guest(struct vcpu *vcpu)
{
    while (vcpu->machine->phase == MACHINE_RUNNING)
        enter(vcpu);
    set_immediate_exit(vcpu, 1);
    while (vcpu->machine->phase == MACHINE_HELD && enter(vcpu))
        ;
}

/* Waits until the machine runs; false when it will not any more. */
static bool pass_gate(struct vcpu *vcpu)
{
    struct machine *machine = vcpu->machine;
    pthread_mutex_lock(&machine->gate);
    machine->still++;
    pthread_cond_broadcast(&machine->turned);
    while (machine->phase == MACHINE_HELD)
        pthread_cond_wait(&machine->turned, &machine->gate);
    bool passed = machine->phase == MACHINE_RUNNING;
    if (passed) {
        machine->still--;
        set_immediate_exit(vcpu, 0);
    }
    pthread_mutex_unlock(&machine->gate);
    return passed;
}

static bool seal(struct machine *machine)
{
    struct fault fault;
    if (!machine->hooks.seal || machine->hooks.seal(machine->hooks.context, &fault) == OK)
        return true;
    pthread_mutex_lock(&machine->gate);
    machine->refused = true;
    machine->refusal = fault;
    machine->still++;
    pthread_cond_broadcast(&machine->turned);
    pthread_mutex_unlock(&machine->gate);
    return false;
}

static void *vcpu_thread(void *context)
{
    struct vcpu *vcpu = context;
    if (!seal(vcpu->machine))
        return NULL;
    while (pass_gate(vcpu)) {
        if (vcpu->index == 0 && vcpu->machine->timeline.entered == 0)
            vcpu->machine->timeline.entered = clock_monotonic_us();
        run_guest(vcpu);
    }
    return NULL;
}

static void on_kick(int signal_number)
{
    (void)signal_number; /* KVM_RUN has returned: that is all it is for */
}

static status catch_kicks(struct fault *fault)
{
    struct sigaction action = {.sa_handler = on_kick}; /* without SA_RESTART */
    if (sigaction(SIGUSR1, &action, NULL))
        return FAIL(INTERNAL, fault, "vCPU: sigaction: %s", strerror(errno));
    return OK;
}

status vcpu_start(struct vcpu *vcpu, struct fault *fault)
{
    pthread_attr_t attributes;
    TRY(catch_kicks(fault));
    if (pthread_attr_init(&attributes))
        return FAIL(INTERNAL, fault, "vCPU: out of memory");
    int failed = pthread_attr_setstacksize(&attributes, STACK_BYTES);
    if (!failed)
        failed = pthread_create(&vcpu->thread, &attributes, vcpu_thread, vcpu);
    pthread_attr_destroy(&attributes);
    if (failed)
        return FAIL(INTERNAL, fault, "vCPU: thread: %s", strerror(failed));
    vcpu->has_thread = true;
    return OK;
}

void vcpu_kick(struct vcpu *vcpu)
{
    if (!vcpu->has_thread)
        return;
    set_immediate_exit(vcpu, 1);
    pthread_kill(vcpu->thread, SIGUSR1);
}

void vcpu_free(struct vcpu *vcpu)
{
    if (vcpu->has_thread)
        pthread_join(vcpu->thread, NULL);
    if (vcpu->run)
        munmap(vcpu->run, vcpu->machine->run_bytes);
    if (vcpu->fd >= 0)
        close(vcpu->fd);
    *vcpu = (struct vcpu){.fd = -1};
}
