/* inside.h: what a machine consists of; for the files of this folder and of the architecture. */
#pragma once

#include "vmm/machine.h"
#include "vmm/serial.h"
#include "vmm/x86_64/boot.h"
#include "vmm/x86_64/cpuid.h"
#include "vmm/x86_64/ioapic.h"

#include <pthread.h>

enum machine_phase { MACHINE_HELD, MACHINE_RUNNING, MACHINE_STOPPED };

struct vcpu {
    struct machine *machine;
    struct kvm_run *run;
    pthread_t thread;
    int fd;
    uint32_t index;
    bool has_thread;
};

struct machine_queue { /* where KVM tells of a notification */
    struct machine_device *device;
    struct loop_source *source;
    int event;
    uint32_t index;
};

struct machine_device {
    struct virtio_device *device;
    struct machine_queue queues[VIRTIO_QUEUES_MAX];
};

/* A write of a vCPU's that changes what a device is at: the device thread does it in its stead. */
struct machine_errand {
    enum { ERRAND_NONE, ERRAND_ASKED, ERRAND_DONE } state;
    uint32_t offset, size;
    struct virtio_device *device;
    uint8_t bytes[8];
};

struct machine {
    int kvm, vm, wake;
    uint32_t run_bytes;
    struct machine_config config;
    struct machine_hooks hooks;
    struct machine_timeline timeline;
    struct guest_memory memory;
    struct boot_image image;
    struct virtio_host host;
    struct loop *loop;
    struct loop_source *wake_source;

    pthread_mutex_t lock; /* over the devices, and the three below */
    struct ioapic ioapic;
    struct serial *serial; /* NULL: no console */
    uint32_t broken_rules; /* of virtio */
    struct machine_device devices[MACHINE_DEVICES_MAX];
    uint32_t device_count, vcpu_count;

    pthread_mutex_t gate; /* over the five below; taken last */
    pthread_cond_t turned;
    uint32_t still; /* vCPU threads that wait at the gate */
    bool refused;   /* one could not seal itself */
    struct fault refusal;
    struct machine_errand errand;
    _Atomic int phase; /* enum machine_phase; read without the gate by running vCPUs */

    _Atomic int end_claimed, end; /* end: enum sandbox_end, after detail was written */
    struct fault end_detail;
    bool told;
    struct cpuid_table cpuid; /* as KVM supports it */
    struct vcpu vcpus[SANDBOX_VCPUS_MAX];
};

/* vcpu.c */
MUST_CHECK status vcpu_create(struct machine *machine, uint32_t index, struct fault *fault);
MUST_CHECK status vcpu_enter_at(struct vcpu *vcpu, uint64_t entry, struct fault *fault);
MUST_CHECK status vcpu_start(struct vcpu *vcpu, struct fault *fault);
void vcpu_kick(struct vcpu *vcpu); /* out of the guest, to the gate */
void vcpu_free(struct vcpu *vcpu); /* waits for its thread, which must have been stopped */

/* bus.c: what lies behind ports and addresses; for vCPU threads, without the lock. */
void bus_port(struct machine *machine, uint16_t port, uint8_t *bytes, uint32_t size, bool write);
void bus_memory(struct machine *machine, uint64_t address, uint8_t *bytes, uint32_t size,
                bool write);
/* An edge on a line; under the lock. */
void bus_interrupt(void *machine, uint32_t line);

/* machine.c. From a vCPU's thread: returns when the device thread has made this write. */
void machine_write_there(struct machine *machine, struct virtio_device *device, uint32_t offset,
                         const uint8_t *bytes, uint32_t size);
