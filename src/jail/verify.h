/* verify.h: what is really in force on a jailed process, read back from the kernel. For the
 * supervisor only.
 *
 * Nothing here is the word of the process but landlock_abi, which the kernel does not tell from
 * outside (see jail.h, struct jail_proof). The reads go through the child's own /proc descriptor
 * and end with a look at the pidfd, so a reused pid cannot answer for it. */
#pragma once

#include "jail/jail.h"
#include "jail/spawn.h"
#include "wire/json.h"

enum jail_capability_set {
    JAIL_CAP_INHERITABLE, JAIL_CAP_PERMITTED, JAIL_CAP_EFFECTIVE, JAIL_CAP_BOUNDING,
    JAIL_CAP_AMBIENT, JAIL_CAP_SETS
};

struct jail_report {
    enum jail_role role;
    pid_t pid;
    uint32_t uids[4], gids[4]; /* real, effective, saved, file system; as seen by the supervisor */
    uint32_t groups;           /* how many supplementary groups */
    uint64_t namespaces[JAIL_NAMESPACES];
    uint64_t capabilities[JAIL_CAP_SETS];
    uint32_t no_new_privs, seccomp_mode, seccomp_filters, threads;
    uint32_t landlock_abi; /* probed by the process itself */
    uint32_t mounts;       /* that it can see: 1, its empty root */
    bool dumpable;
    char cgroup[128];      /* path, or "none: <why>" */
    int64_t private_kib;   /* -1 when not measured */
};

struct jail_expectation {
    uid_t uid;
    gid_t gid;
    uint32_t landlock_abi;  /* as the process reported it */
    const char *cgroup;     /* "none: <why>" or NULL: shown only; else must be its cgroup's path */
    uint32_t threads;       /* 0: one */
    uint32_t spare_threads; /* more that there may be: of the kernel's, made since */
    bool groups_kept;       /* only after jail_become_root: the caller's groups cannot be dropped */
};

/* Of a runner: ids, maps, namespaces, no_new_privs, core dumps and cgroup; its capabilities are
 * those of its own user namespace, and its filters and Landlock would be its runtime's as well.
 *
 * FORBIDDEN_POLICY naming the first thing that is not as it must be; ret is then filled as far as
 * it was read, for the log. CLOSED when the process has ended. */
MUST_CHECK status jail_verify(struct jail_report *ret, const struct jail_child *child,
                              const struct jail_expectation *expected, struct fault *fault);

/* Fills private_kib (KiB: Private_Clean + Private_Dirty of smaps_rollup; of a monitor RssAnon);
 * slower, for status only. */
MUST_CHECK status jail_measure(struct jail_report *report, const struct jail_child *child,
                               struct fault *fault);

/* What the process has used so far, by the kernel's account; also when it has ended, until it is
 * reaped. Members that cannot be read stay as they were. */
struct jail_used {
    uint64_t cpu_us;
    uint64_t peak_kib; /* VmHWM: of this program, not of what its process was before exec */
};
void jail_read_used(struct jail_used *used, const struct jail_child *child);
void jail_read_cpu(struct jail_used *used, const struct jail_child *child); /* that alone: 1 us */

/* One object; name as in json.h. */
void jail_report_json(struct json_writer *writer, const char *name,
                      const struct jail_report *report);
