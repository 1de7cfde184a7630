#define _GNU_SOURCE
#include "vmm/inside.h"

#include "base/clock.h"
#include "vmm/virtio/devices.h"
#include "vmm/x86_64/boot.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { API_VERSION = 12, REGISTER_QUEUE_NOTIFY = 0x50 };

static const struct {
    int number;
    const char *name;
} needed[] = {
    {KVM_CAP_USER_MEMORY, "user memory"}, {KVM_CAP_SPLIT_IRQCHIP, "a split irqchip"},
    {KVM_CAP_SIGNAL_MSI, "signalled MSIs"}, {KVM_CAP_IOEVENTFD, "ioeventfd"},
    {KVM_CAP_EXT_CPUID, "CPUID"}, {KVM_CAP_IMMEDIATE_EXIT, "immediate exit"},
    {KVM_CAP_TSC_DEADLINE_TIMER, "the TSC deadline timer"},
};

static status check_host(struct machine *machine, struct fault *fault)
{
    int version = ioctl(machine->kvm, KVM_GET_API_VERSION, 0);
    if (version != API_VERSION)
        return FAIL(UNAVAILABLE, fault, "KVM: API version %d, not %d", version, API_VERSION);
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++)
        if (ioctl(machine->kvm, KVM_CHECK_EXTENSION, (unsigned long)needed[i].number) <= 0)
            return FAIL(UNAVAILABLE, fault, "KVM: it lacks %s", needed[i].name);
    int bytes = ioctl(machine->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (bytes < (int)sizeof(struct kvm_run))
        return FAIL(UNAVAILABLE, fault, "KVM: KVM_GET_VCPU_MMAP_SIZE: %d", bytes);
    machine->run_bytes = (uint32_t)bytes;
    machine->cpuid.head.nent = CPUID_ENTRIES_MAX - 6; /* room for the topology's */
    if (ioctl(machine->kvm, KVM_GET_SUPPORTED_CPUID, &machine->cpuid))
        return FAIL(UNAVAILABLE, fault, "KVM: KVM_GET_SUPPORTED_CPUID: %s", strerror(errno));
    return OK;
}

static status make_vm(struct machine *machine, struct fault *fault)
{
    TRY(check_host(machine, fault));
    do
        machine->vm = ioctl(machine->kvm, KVM_CREATE_VM, 0);
    while (machine->vm < 0 && errno == EINTR);
    if (machine->vm < 0)
        return FAIL(UNAVAILABLE, fault, "KVM: KVM_CREATE_VM: %s", strerror(errno));
    close(machine->kvm); /* no guest runs beside what makes other machines */
    machine->kvm = -1;
    machine->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (machine->wake < 0)
        return FAIL(INTERNAL, fault, "machine: eventfd: %s", strerror(errno));
    return OK;
}

/* A driver that was wrong once may start its device anew; one that attacks it goes on and on. */
static void rule_broken(void *context, const char *device)
{
    struct machine *machine = context;
    char detail[96];
    uint32_t most = machine->config.broken_rules_max;
    if (!most || ++machine->broken_rules < most)
        return;
    snprintf(detail, sizeof detail, "its drivers broke the rules of virtio %u times, at last %s's",
             most, device);
    machine_end(machine, SANDBOX_HOSTILE, detail);
}

status machine_open(struct machine **ret, int kvm, struct fault *fault)
{
    struct machine *machine = calloc(1, sizeof *machine);
    if (!machine) {
        close(kvm);
        return FAIL(INTERNAL, fault, "machine: out of memory");
    }
    machine->kvm = kvm;
    machine->vm = machine->wake = -1;
    machine->timeline.opened = clock_monotonic_us();
    pthread_mutex_init(&machine->lock, NULL);
    pthread_mutex_init(&machine->gate, NULL);
    pthread_cond_init(&machine->turned, NULL);
    pthread_mutex_lock(&machine->lock);
    machine->host = (struct virtio_host){.memory = &machine->memory, .context = machine,
                                         .interrupt = bus_interrupt,
                                         .rule_broken = rule_broken};
    ioapic_reset(&machine->ioapic);
    status made = make_vm(machine, fault);
    if (made != OK)
        machine_free(machine);
    else
        *ret = machine;
    return made;
}

static void let_go(void *context)
{
    struct machine *machine = context;
    pthread_mutex_unlock(&machine->lock);
}

static void take_again(void *context)
{
    struct machine *machine = context;
    pthread_mutex_lock(&machine->lock);
}

static void wake(struct machine *machine)
{
    uint64_t one = 1;
    if (write(machine->wake, &one, sizeof one) < 0)
        return; /* the counter is full: it will wake in any case */
}

void machine_write_there(struct machine *machine, struct virtio_device *device, uint32_t offset,
                         const uint8_t *bytes, uint32_t size)
{
    struct machine_errand *errand = &machine->errand;
    assert(size <= sizeof errand->bytes);
    pthread_mutex_lock(&machine->gate);
    while (errand->state != ERRAND_NONE)
        pthread_cond_wait(&machine->turned, &machine->gate);
    *errand = (struct machine_errand){.state = ERRAND_ASKED, .device = device, .offset = offset,
                                      .size = size};
    memcpy(errand->bytes, bytes, size);
    pthread_cond_broadcast(&machine->turned);
    wake(machine);
    while (errand->state != ERRAND_DONE)
        pthread_cond_wait(&machine->turned, &machine->gate);
    errand->state = ERRAND_NONE;
    pthread_cond_broadcast(&machine->turned);
    pthread_mutex_unlock(&machine->gate);
}

/* On the device thread, which holds the lock. */
static void do_errand(struct machine *machine)
{
    pthread_mutex_lock(&machine->gate);
    struct machine_errand errand = machine->errand;
    pthread_mutex_unlock(&machine->gate);
    if (errand.state != ERRAND_ASKED)
        return;
    virtio_mmio_write(errand.device, errand.offset, errand.bytes, errand.size);
    pthread_mutex_lock(&machine->gate);
    machine->errand.state = ERRAND_DONE;
    pthread_cond_broadcast(&machine->turned);
    pthread_mutex_unlock(&machine->gate);
}

static void on_wake(void *context, uint32_t events)
{
    struct machine *machine = context;
    uint64_t count;
    (void)events;
    if (read(machine->wake, &count, sizeof count) < 0)
        return;
    do_errand(machine);
    if (!machine->end || machine->told)
        return;
    machine->told = true;
    machine_hold(machine);
    machine->timeline.ended = clock_monotonic_us();
    if (machine->hooks.ended)
        machine->hooks.ended(machine->hooks.context, (enum sandbox_end)machine->end,
                             machine->end_detail.detail);
}

/* Before there is anything else in the VM: KVM would have to wait for it (docs/performance.md). */
static status register_memory(struct machine *machine, struct fault *fault)
{
    for (uint32_t i = 0; i < machine->memory.count; i++) {
        const struct memory_region *region = &machine->memory.regions[i];
        struct kvm_userspace_memory_region slot = {
            .slot = i, .guest_phys_addr = region->address, .memory_size = region->size,
            .userspace_addr = (uintptr_t)region->base};
        if (ioctl(machine->vm, KVM_SET_USER_MEMORY_REGION, &slot))
            return FAIL(UNAVAILABLE, fault, "KVM: KVM_SET_USER_MEMORY_REGION: %s",
                        strerror(errno));
    }
    return OK;
}

static status make_interrupts(struct machine *machine, struct fault *fault)
{
    struct kvm_enable_cap split = {.cap = KVM_CAP_SPLIT_IRQCHIP, .args = {0}};
    if (ioctl(machine->vm, KVM_ENABLE_CAP, &split))
        return FAIL(UNAVAILABLE, fault, "KVM: split irqchip: %s", strerror(errno));
    return OK;
}

status machine_preload(struct machine *machine, int kernel, int initramfs, struct fault *fault)
{
    assert(!machine->memory.count);
    TRY(memory_begin(&machine->memory, fault));
    TRY(boot_load(&machine->image, &machine->memory, kernel, initramfs, fault));
    machine->timeline.preloaded = clock_monotonic_us();
    return OK;
}

static status make_memory(struct machine *machine, struct fault *fault)
{
    const struct machine_config *config = &machine->config;
    if (machine->memory.count)
        return memory_settle(&machine->memory, config->memory_bytes, config->huge_pages, fault);
    return memory_create(&machine->memory, config->memory_bytes, config->huge_pages, fault);
}

status machine_build(struct machine *machine, const struct machine_config *config,
                     struct loop *loop, struct fault *fault)
{
    if (config->vcpus < 1 || config->vcpus > SANDBOX_VCPUS_MAX)
        return FAIL(BAD_FIELD, fault, "vcpus: 1 to %d", SANDBOX_VCPUS_MAX);
    machine->config = *config;
    machine->loop = loop;
    TRY(make_memory(machine, fault));
    TRY(register_memory(machine, fault));
    TRY(make_interrupts(machine, fault));
    for (uint32_t i = 0; i < config->vcpus; i++)
        TRY(vcpu_create(machine, i, fault));
    if (config->console && !(machine->serial = calloc(1, sizeof *machine->serial)))
        return FAIL(INTERNAL, fault, "machine: out of memory");
    TRY(loop_watch(&machine->wake_source, loop, machine->wake, EPOLLIN, on_wake, machine, fault));
    loop_around_wait(loop, let_go, take_again, machine);
    machine->timeline.built = clock_monotonic_us();
    return OK;
}

const struct virtio_host *machine_host(struct machine *machine)
{
    return &machine->host;
}

uint32_t machine_next_line(const struct machine *machine)
{
    return LINE_VIRTIO + machine->device_count;
}

static void on_notify(void *context, uint32_t events)
{
    struct machine_queue *queue = context;
    (void)events; /* an edge: the counter is never read */
    virtio_notify(queue->device->device, queue->index);
}

static status listen_to_queue(struct machine *machine, struct machine_device *slot,
                              uint32_t index, struct fault *fault)
{
    struct machine_queue *queue = &slot->queues[index];
    *queue = (struct machine_queue){.device = slot, .index = index,
                                    .event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
    if (queue->event < 0)
        return FAIL(INTERNAL, fault, "machine: eventfd: %s", strerror(errno));
    uint64_t number = (uint64_t)(slot - machine->devices);
    struct kvm_ioeventfd notify = {
        .addr = GUEST_VIRTIO + number * VIRTIO_WINDOW_BYTES + REGISTER_QUEUE_NOTIFY,
        .len = 4, .datamatch = index, .fd = queue->event,
        .flags = KVM_IOEVENTFD_FLAG_DATAMATCH};
    if (ioctl(machine->vm, KVM_IOEVENTFD, &notify))
        return FAIL(UNAVAILABLE, fault, "KVM: KVM_IOEVENTFD: %s", strerror(errno));
    return loop_watch(&queue->source, machine->loop, queue->event, EPOLLIN | EPOLLET, on_notify,
                      queue, fault);
}

status machine_add(struct machine *machine, struct virtio_device *device, struct fault *fault)
{
    if (machine->device_count == MACHINE_DEVICES_MAX) {
        device_free(device);
        return FAIL(TOO_LARGE, fault, "machine: at most %d devices", MACHINE_DEVICES_MAX);
    }
    struct machine_device *slot = &machine->devices[machine->device_count++];
    slot->device = device;
    assert(device->operations->queues <= VIRTIO_QUEUES_MAX);
    for (uint32_t i = 0; i < VIRTIO_QUEUES_MAX; i++)
        slot->queues[i].event = -1;
    for (uint32_t i = 0; i < device->operations->queues; i++)
        TRY(listen_to_queue(machine, slot, i, fault));
    return OK;
}

status machine_load(struct machine *machine, const struct machine_source *source,
                    struct fault *fault)
{
    const struct acpi_machine tables = {.vcpus = machine->config.vcpus,
                                        .devices = machine->device_count,
                                        .console = machine->config.console};
    if (!machine->image.entry)
        TRY(boot_load(&machine->image, &machine->memory, source->kernel, source->initramfs,
                      fault));
    TRY(boot_describe(&machine->memory, &machine->image, source->command_line, &tables, fault));
    TRY(vcpu_enter_at(&machine->vcpus[0], machine->image.entry, fault));
    machine->timeline.loaded = clock_monotonic_us();
    return OK;
}

static uint32_t threads_of(const struct machine *machine)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < machine->vcpu_count; i++)
        count += machine->vcpus[i].has_thread;
    return count;
}

/* Until every vCPU's thread stands at the gate. On its way there one may need the lock, or an
 * errand done. */
static void await_still(struct machine *machine)
{
    uint32_t threads = threads_of(machine);
    let_go(machine);
    pthread_mutex_lock(&machine->gate);
    while (machine->still < threads) {
        if (machine->errand.state != ERRAND_ASKED) {
            pthread_cond_wait(&machine->turned, &machine->gate);
            continue;
        }
        pthread_mutex_unlock(&machine->gate);
        take_again(machine);
        do_errand(machine);
        let_go(machine);
        pthread_mutex_lock(&machine->gate);
    }
    pthread_mutex_unlock(&machine->gate);
    take_again(machine);
}

status machine_start(struct machine *machine, const struct machine_hooks *hooks,
                     struct fault *fault)
{
    machine->hooks = *hooks;
    for (uint32_t i = 0; i < machine->vcpu_count; i++)
        TRY(vcpu_start(&machine->vcpus[i], fault));
    await_still(machine);
    if (machine->refused)
        return FAIL(INTERNAL, fault, "%s", machine->refusal.detail);
    machine->timeline.started = clock_monotonic_us();
    return OK;
}

static void set_phase(struct machine *machine, enum machine_phase phase)
{
    pthread_mutex_lock(&machine->gate);
    if (machine->phase != MACHINE_STOPPED)
        machine->phase = phase;
    if (phase != MACHINE_RUNNING)
        for (uint32_t i = 0; i < machine->vcpu_count; i++)
            vcpu_kick(&machine->vcpus[i]);
    pthread_cond_broadcast(&machine->turned);
    pthread_mutex_unlock(&machine->gate);
}

void machine_go(struct machine *machine)
{
    if (!machine->end_claimed)
        set_phase(machine, MACHINE_RUNNING);
}

void machine_hold(struct machine *machine)
{
    set_phase(machine, MACHINE_HELD);
    await_still(machine);
}

void machine_end(struct machine *machine, enum sandbox_end end, const char *detail)
{
    int nobody = 0, running = MACHINE_RUNNING;
    if (!atomic_compare_exchange_strong(&machine->end_claimed, &nobody, 1))
        return;
    snprintf(machine->end_detail.detail, sizeof machine->end_detail.detail, "%s", detail);
    machine->end = (int)end;
    atomic_compare_exchange_strong(&machine->phase, &running, MACHINE_HELD);
    wake(machine);
}

static void free_device(struct machine *machine, struct machine_device *slot)
{
    for (uint32_t i = 0; i < VIRTIO_QUEUES_MAX; i++) {
        loop_unwatch(machine->loop, slot->queues[i].source);
        if (slot->queues[i].event >= 0)
            close(slot->queues[i].event);
    }
    device_free(slot->device);
}

static void close_if_open(int fd)
{
    if (fd >= 0)
        close(fd);
}

struct machine *machine_free(struct machine *machine)
{
    if (!machine)
        return NULL;
    set_phase(machine, MACHINE_STOPPED);
    await_still(machine);
    let_go(machine);
    for (uint32_t i = 0; i < machine->vcpu_count; i++)
        vcpu_free(&machine->vcpus[i]);
    for (uint32_t i = 0; i < machine->device_count; i++)
        free_device(machine, &machine->devices[i]);
    if (machine->loop) {
        loop_unwatch(machine->loop, machine->wake_source);
        loop_around_wait(machine->loop, NULL, NULL, NULL);
    }
    close_if_open(machine->vm);
    close_if_open(machine->kvm);
    close_if_open(machine->wake);
    memory_free(&machine->memory);
    pthread_cond_destroy(&machine->turned);
    pthread_mutex_destroy(&machine->gate);
    pthread_mutex_destroy(&machine->lock);
    free(machine->serial);
    free(machine);
    return NULL;
}

const struct guest_memory *machine_memory(const struct machine *machine)
{
    return &machine->memory;
}

const struct machine_timeline *machine_timeline(const struct machine *machine)
{
    return &machine->timeline;
}

void machine_console(const struct machine *machine, struct buffer *out)
{
    if (machine->serial)
        serial_newest(machine->serial, out);
}
