/* sandbox_bounds.c: what the kernel holds a monitor to, and what it says was over. */
#define _GNU_SOURCE
#include "supervisor/sandboxes.h"

#include <errno.h>
#include <string.h>
#include <sys/resource.h>

enum {
    OVERHEAD_MIB = 32,   /* the monitor's own; guest memory is no cache of files */
    OVERHEAD_SHARE = 32, /* and 1/32 of the guest's: page tables of both, the kernel's maps of it */
    THREADS_MORE = 4,    /* than vCPUs */
};

static status lower(const struct child *monitor, __rlimit_resource_t resource, const char *name,
                    rlim_t wanted, struct fault *fault)
{
    struct rlimit old, fresh = {wanted, wanted};
    if (prlimit(monitor->jail.pid, resource, NULL, &old))
        return FAIL(UNAVAILABLE, fault, "%s of the monitor: %s", name, strerror(errno));
    if (old.rlim_max < wanted)
        return FAIL(UNAVAILABLE, fault, "%s: this node allows at most %llu", name,
                    (unsigned long long)old.rlim_max);
    if (prlimit(monitor->jail.pid, resource, &fresh, NULL))
        return FAIL(UNAVAILABLE, fault, "%s of the monitor: %s", name, strerror(errno));
    return OK;
}

status bounds_set(const struct child *monitor, const struct sandbox_spec *spec,
                  struct fault *fault)
{
    char name[24];
    uint64_t memory_mib = (uint64_t)spec->memory_mib + spec->memory_mib / OVERHEAD_SHARE
                        + OVERHEAD_MIB;
    const struct jail_limits limits = {.memory_max_bytes = memory_mib << 20,
                                       .cpu_percent = 100 * spec->vcpus, .cpu_weight = 100,
                                       .pids_max = spec->vcpus + THREADS_MORE};
    TRY(jail_cgroup_limit(&monitor->supervisor->cgroups, child_name(name, monitor), &limits,
                          fault));
    TRY(lower(monitor, RLIMIT_FSIZE, "disk", (rlim_t)spec->disk_mib << 20, fault));
    if (spec->cpu_s > 0)
        TRY(lower(monitor, RLIMIT_CPU, "CPU time", spec->cpu_s, fault));
    return OK;
}

bool bounds_broken(enum sandbox_end *ret, const struct child *monitor,
                   const struct sandbox *sandbox)
{
    char name[24];
    uint64_t kills = 0;
    struct fault ignored;
    if (jail_cgroup_number(&kills, &monitor->supervisor->cgroups, child_name(name, monitor),
                           "memory.events", "oom_kill", &ignored) == OK && kills > 0) {
        *ret = SANDBOX_MEMORY;
        return true;
    }
    if (sandbox->spec.cpu_s == 0
        || sandbox->cpu_us < (uint64_t)sandbox->spec.cpu_s * 1000 * 1000)
        return false;
    *ret = SANDBOX_CPU_TIME;
    return true;
}
