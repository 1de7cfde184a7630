/* cgroup.h: memory, CPU and process bounds by cgroup v2, where the host has it. Supervisor only.
 *
 * Where it has not, nothing fails: reason says why, for status, and the rlimits remain. */
#pragma once

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct jail_cgroups {
    int directory;   /* of bulkhead-<pid>, or -1 */
    int mount;       /* of the hierarchy, or -1 */
    char path[64];   /* within the hierarchy: "/bulkhead-123" */
    char reason[128]; /* "" or "none: <why>" */
};

struct jail_limits { /* 0: no limit */
    uint64_t memory_max_bytes;
    uint32_t cpu_percent; /* of one CPU */
    uint32_t cpu_weight;  /* 1..10000 */
    uint32_t pids_max;
};

/* Makes /sys/fs/cgroup/bulkhead-<pid> with the controllers memory, cpu, pids: all three or none. */
void jail_cgroups_open(struct jail_cgroups *ret);
/* Removes it; all children must have ended and their groups be removed. */
void jail_cgroups_close(struct jail_cgroups *cgroups);

/* A group for one process; ret: its descriptor, for struct jail_plan, the caller's; -1 (and OK)
 * where there are no cgroups. name: [a-z0-9-]. */
MUST_CHECK status jail_cgroup_make(int *ret, const struct jail_cgroups *cgroups, const char *name,
                                   const struct jail_limits *limits, struct fault *fault);
/* Other limits for the group that jail_cgroup_make made. OK where there are no cgroups. */
MUST_CHECK status jail_cgroup_limit(const struct jail_cgroups *cgroups, const char *name,
                                    const struct jail_limits *limits, struct fault *fault);
/* A number of its file: of the line "key NUMBER", or with key NULL the first. UNAVAILABLE where
 * there is none, or no cgroups. */
MUST_CHECK status jail_cgroup_number(uint64_t *ret, const struct jail_cgroups *cgroups,
                                     const char *name, const char *file, const char *key,
                                     struct fault *fault);
/* After the process has been reaped. */
void jail_cgroup_remove(const struct jail_cgroups *cgroups, const char *name);

/* Its path as /proc/PID/cgroup has it, or the reason: for struct jail_expectation. */
void jail_cgroup_text(char *text, size_t size, const struct jail_cgroups *cgroups,
                      const char *name);
