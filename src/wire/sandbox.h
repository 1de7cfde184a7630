/* sandbox.h: what a sandbox is to be and why it ended, as it goes between control, supervisor and
 * monitor. docs/protocols.md has the bytes. */
#pragma once

#include "base/buffer.h"
#include "base/cursor.h"
#include "base/limits.h"

#include <stdbool.h>

/* What stands between untrusted code and the host; a larger value is the stronger wall. */
enum sandbox_tier { SANDBOX_CONTAINER = 1, SANDBOX_GVISOR, SANDBOX_MICROVM };

const char *sandbox_tier_name(enum sandbox_tier tier); /* "container", "gvisor", "microvm" */
/* BAD_FIELD naming what is allowed; name: of the member or option. */
MUST_CHECK status sandbox_tier_of(enum sandbox_tier *ret, struct span text, const char *name,
                                  struct fault *fault);

enum sandbox_net {
    SANDBOX_NET_NONE,     /* no network device */
    SANDBOX_NET_ISOLATED, /* a tap in a network namespace of its own that leads nowhere */
};

/* A token bucket: size and one_time_burst in bytes or operations, each at most SANDBOX_RATE_MAX,
 * refilled whole in refill_ms, 1..SANDBOX_REFILL_MS_MAX. size 0: no limit, and all three are 0. */
struct sandbox_rate {
    uint64_t size, one_time_burst;
    uint32_t refill_ms;
};

struct sandbox_spec {
    uint8_t weakest;       /* enum sandbox_tier: nothing below it may run this */
    uint8_t net;           /* enum sandbox_net */
    bool console;          /* a serial console, kept in a ring; VMM_FD_CONSOLE takes its end */
    bool huge_pages;       /* guest memory in 2 MiB pages where the host gives them */
    uint32_t vcpus;        /* 1..SANDBOX_VCPUS_MAX */
    uint32_t memory_mib, disk_mib;
    uint32_t processes;    /* in the guest */
    uint32_t lifetime_s;   /* wall clock; then it is killed */
    uint32_t cpu_s;        /* vCPU seconds; then it is killed; 0: no bound but lifetime x vcpus */
    struct sandbox_rate disk_bytes, disk_ops, net_bytes, net_packets; /* net: each way */
    char image[IMAGE_NAME_TEXT];
};

/* 1..IMAGE_NAME_TEXT - 1 of [a-z0-9-], the first no dash: so it is one harmless path component. */
bool sandbox_is_image_name(struct span name);

/* What applies where the caller says nothing: SANDBOX_*_DEFAULT, one vCPU, no net, gvisor. */
struct sandbox_spec sandbox_spec_default(void);

void sandbox_spec_put(struct buffer *out, const struct sandbox_spec *spec);
/* BAD_FIELD for a value out of its range, TRUNCATED. */
MUST_CHECK status sandbox_spec_get(struct sandbox_spec *ret, struct cursor *cursor,
                                   struct fault *fault);

enum sandbox_end { /* why a sandbox ended */
    SANDBOX_SHUTDOWN = 1, /* the guest switched itself off, or the run's command is done */
    SANDBOX_RESET,        /* the guest rebooted */
    SANDBOX_PANIC,        /* the guest's kernel panicked */
    SANDBOX_FAULTED,      /* triple fault, or a state that KVM cannot run */
    SANDBOX_HOSTILE,      /* its drivers broke virtio's rules SANDBOX_BROKEN_RULES_MAX times */
    SANDBOX_CLOSED,       /* who ran it went away, or stopped it */
    SANDBOX_LIFETIME,     /* its time was over */
    SANDBOX_CPU_TIME,
    SANDBOX_MEMORY,       /* its cgroup's memory was over */
    SANDBOX_FAILED,       /* the monitor could not run it, or died */
    SANDBOX_ENDS
};

const char *sandbox_end_name(enum sandbox_end end); /* "shutdown"; "unknown" outside the enum */
/* BAD_FIELD for a name that sandbox_end_name never yields. */
MUST_CHECK status sandbox_end_of(enum sandbox_end *ret, struct span text, struct fault *fault);

/* The descriptors of a monitor, by VMM_FD. */
enum vmm_fd {
    VMM_FD_KVM = 1,   /* /dev/kvm */
    VMM_FD_KERNEL,    /* vmlinux, read-only */
    VMM_FD_INITRAMFS, /* read-only */
    VMM_FD_ROOT,      /* raw image, read-only: the first block device */
    VMM_FD_SCRATCH,   /* raw image, read-only: what the second block device holds at first */
    VMM_FD_OVERLAY,   /* an empty file without a name: what is written to the second */
    VMM_FD_TAP,       /* of SANDBOX_NET_ISOLATED */
    VMM_FD_CONSOLE,   /* a file or a pipe, for writing: the caller's */
    VMM_FD_TREE,      /* to a runner: the image's root as a directory */
    VMM_FD_AGENT,     /* to a runner: the agent's program */
    VMM_FDS
};

enum { /* ports of the guest's vsock on the host's side (CID 2) */
    SANDBOX_AGENT_PORT = 1024, /* where the agent dials */
    SANDBOX_GUEST_CID = 3,
};

enum vmm_stream {
    VMM_STREAM_ACCEPT = 1, /* for the guest that dials this port of the host; one connection */
    VMM_STREAM_CONNECT,    /* dials this port of the guest */
};
