/* sandbox_bounds.c: what the kernel holds a monitor to, and what it says was over. */
#define _GNU_SOURCE
#include "supervisor/sandboxes.h"

#include "base/sanitized.h"

#include <errno.h>
#include <string.h>
#include <sys/resource.h>

enum {
    OVERHEAD_MIB = 32,   /* the monitor's own; guest memory is no cache of files */
    OVERHEAD_SHARE = 32, /* and 1/32 of the guest's: page tables of both, the kernel's maps of it */
    LOOK_AT_LEAST_US = 10 * 1000,
    CPU_MARGIN_S = 5,    /* RLIMIT_CPU counts by ticks, far off at times: the last resort */
    STACK_MIB = 9,       /* of a thread, and its guard */
    KVM_THREADS = 1,     /* of the kernel's, counted as one of who makes a VM, or runs it (6.13) */
    GVISOR_OVERHEAD_MIB = 256, /* four Go programs */
    GVISOR_THREADS = 520, /* of all of them */
    RUNNER_PROCESSES = 8, /* runner, crun, agent */
};

/* What it can write is what its device has; a disk that its limit would cut is refused. */
static status bound_files(const struct child *monitor, const struct sandbox_spec *spec,
                          struct fault *fault)
{
    const rlim_t disk = (rlim_t)spec->disk_mib << 20;
    const rlim_t console = spec->console ? (rlim_t)SANDBOX_CONSOLE_BYTES : 0;
    const rlim_t wanted = disk > console ? disk : console;
    const struct rlimit fresh = {wanted, wanted};
    struct rlimit old;
    if (prlimit(monitor->jail.pid, RLIMIT_FSIZE, NULL, &old))
        return FAIL(UNAVAILABLE, fault, "bounds of the monitor: %s", strerror(errno));
    if (old.rlim_max < wanted)
        return FAIL(UNAVAILABLE, fault, "disk: at most %llu MiB on this node",
                    (unsigned long long)old.rlim_max >> 20);
    if (prlimit(monitor->jail.pid, RLIMIT_FSIZE, &fresh, NULL))
        return FAIL(UNAVAILABLE, fault, "bounds of the monitor: %s", strerror(errno));
    return OK;
}

status bounds_set(const struct child *monitor, const struct sandbox_spec *spec,
                  struct fault *fault)
{
    char name[24];
    uint64_t memory_mib = (uint64_t)spec->memory_mib + spec->memory_mib / OVERHEAD_SHARE
                        + OVERHEAD_MIB;
    const uint32_t threads = spec->vcpus + 1;
    /* a blank that was given its kernel early may only now map what it begins with */
    const uint64_t data_mib = spec->memory_mib < SANDBOX_MEMORY_MIB_DEFAULT
                            ? memory_mib + SANDBOX_MEMORY_MIB_DEFAULT - spec->memory_mib
                            : memory_mib;
    const struct jail_bounds bounds = {
        .data_bytes = SANITIZED ? 0 : (data_mib + (uint64_t)threads * STACK_MIB) << 20,
        .cpu_seconds = spec->cpu_s ? 2 * spec->cpu_s + CPU_MARGIN_S : 0,
        .threads = threads + KVM_THREADS};
    const struct jail_limits limits = {.memory_max_bytes = memory_mib << 20,
                                       .cpu_percent = 100 * spec->vcpus, .cpu_weight = 100,
                                       .pids_max = threads + KVM_THREADS};
    TRY(jail_cgroup_limit(&monitor->supervisor->cgroups, child_name(name, monitor), &limits,
                          fault));
    TRY(jail_bound(&monitor->jail, &bounds, fault));
    return bound_files(monitor, spec, fault);
}

/* Its disk is memory too, and not on top: both together are what its memory is. */
status bounds_set_runner(const struct child *runner, const struct sandbox *sandbox,
                         struct fault *fault)
{
    char name[24];
    const bool gvisor = sandbox->tier == SANDBOX_GVISOR;
    const uint64_t memory_mib = (uint64_t)sandbox->spec.memory_mib
                              + (gvisor ? GVISOR_OVERHEAD_MIB : OVERHEAD_MIB);
    const struct jail_limits limits = {
        .memory_max_bytes = memory_mib << 20, .cpu_percent = 100 * sandbox->spec.vcpus,
        .cpu_weight = 100,
        .pids_max = sandbox->spec.processes + (gvisor ? GVISOR_THREADS : RUNNER_PROCESSES)};
    return jail_cgroup_limit(&runner->supervisor->cgroups, child_name(name, runner), &limits,
                             fault);
}

static void look(void *context)
{
    struct sandbox *sandbox = context;
    struct fault fault;
    if (bounds_watch(sandbox, &fault) != OK)
        sandbox_end(sandbox, SANDBOX_FAILED, UNAVAILABLE, fault.detail);
}

/* As soon as it could be over, were all threads to run. */
status bounds_watch(struct sandbox *sandbox, struct fault *fault)
{
    const uint64_t bound_us = (uint64_t)sandbox->spec.cpu_s * 1000 * 1000;
    const uint32_t threads = sandbox->spec.vcpus + 1;
    if (bound_us == 0 || sandbox->monitor->kind != CHILD_VMM)
        return OK;
    /* not its memory too: a guest may stay just below its bound, and be looked at so often */
    struct jail_used used = {0};
    jail_read_cpu(&used, &sandbox->monitor->jail);
    if (used.cpu_us > sandbox->cpu_us)
        sandbox->cpu_us = used.cpu_us;
    if (sandbox->cpu_us >= bound_us) {
        sandbox_end(sandbox, SANDBOX_CPU_TIME, UNAVAILABLE, "its CPU time was over");
        return OK;
    }
    uint64_t after_us = (bound_us - sandbox->cpu_us) / threads;
    if (after_us < LOOK_AT_LEAST_US)
        after_us = LOOK_AT_LEAST_US;
    return loop_timer_start(sandbox->supervisor->loop, &sandbox->cpu, (int64_t)after_us, look,
                            sandbox, fault);
}

bool bounds_memory_was_over(const struct child *monitor)
{
    char name[24];
    uint64_t kills = 0;
    struct fault ignored;
    return jail_cgroup_number(&kills, &monitor->supervisor->cgroups, child_name(name, monitor),
                              "memory.events", "oom_kill", &ignored) == OK && kills > 0;
}
