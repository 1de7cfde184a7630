/* machine.h: one virtual machine: KVM's side of it, its memory, its vCPUs and its devices.
 *
 * The thread that makes a machine is its device thread. All that it and the devices own is under
 * one lock, which the device thread holds but while its loop waits; a vCPU thread takes it for an
 * access to a register. A guest's exits are hostile input: a port or an address that nothing
 * listens to reads as ones and ignores writes.
 *
 * Order: open, perhaps preload, build, add devices, load, start (threads are made and sealed), go;
 * then the loop runs until `ended` is called; free. */
#pragma once

#include "base/loop.h"
#include "vmm/virtio/device.h"
#include "wire/sandbox.h"

enum { MACHINE_DEVICES_MAX = 8 };

struct machine;

struct machine_config {
    uint64_t memory_bytes; /* whole pages */
    uint32_t vcpus;        /* 1..SANDBOX_VCPUS_MAX */
    bool huge_pages, console;
    uint32_t broken_rules_max; /* of virtio's, then it is SANDBOX_HOSTILE; 0: it may go on */
};

struct machine_source { /* descriptors are borrowed, and not needed after machine_load */
    int kernel, initramfs; /* initramfs -1: none; of no account after machine_preload */
    const char *command_line;
};

struct machine_hooks { /* each but ended may be NULL */
    /* On the device thread, once; the vCPUs stand still. detail is for people. */
    void (*ended)(void *context, enum sandbox_end end, const char *detail);
    /* On each vCPU's thread before machine_start returns: puts on its filter. */
    status (*seal)(void *context, struct fault *fault);
    /* For development: on a vCPU's thread, each write to a port that nothing listens to, and each
     * byte of the console. */
    void (*port_written)(void *context, uint16_t port, uint32_t value);
    void (*console_written)(void *context, uint8_t byte);
    void *context;
};

/* Where the time went; monotonic us, 0: has not happened. */
struct machine_timeline {
    int64_t opened, preloaded, built, loaded, started, entered, first_exit, ended;
};

/* kvm: /dev/kvm, taken. UNAVAILABLE with what the kernel lacks. */
MUST_CHECK status machine_open(struct machine **ret, int kvm, struct fault *fault);
/* Loads both before the guest's size is known: what costs most, done while nobody waits. Between
 * open and build, at most once. */
MUST_CHECK status machine_preload(struct machine *machine, int kernel, int initramfs,
                                  struct fault *fault);
MUST_CHECK status machine_build(struct machine *machine, const struct machine_config *config,
                                struct loop *loop, struct fault *fault);
/* What a device is made with; line of the next device to be added. */
const struct virtio_host *machine_host(struct machine *machine);
uint32_t machine_next_line(const struct machine *machine);
/* Takes the device. TOO_LARGE: MACHINE_DEVICES_MAX. */
MUST_CHECK status machine_add(struct machine *machine, struct virtio_device *device,
                              struct fault *fault);
MUST_CHECK status machine_load(struct machine *machine, const struct machine_source *source,
                               struct fault *fault);
MUST_CHECK status machine_start(struct machine *machine, const struct machine_hooks *hooks,
                                struct fault *fault);
void machine_go(struct machine *machine);
/* From the device thread or a vCPU's; the first one counts. */
void machine_end(struct machine *machine, enum sandbox_end end, const char *detail);
struct machine *machine_free(struct machine *machine); /* returns NULL; joins the threads */

/* From the device thread: when it returns every vCPU stands between two instructions, until
 * machine_go. */
void machine_hold(struct machine *machine);

const struct guest_memory *machine_memory(const struct machine *machine);
const struct machine_timeline *machine_timeline(const struct machine *machine);
/* The newest of what the guest wrote to its console. */
void machine_console(const struct machine *machine, struct buffer *out);
