/* spawn.h: the supervisor's half of the jail: makes blanks, gives them their id and directories.
 *
 * The caller is root, in the initial or in another user namespace, and single-threaded. */
#pragma once

#include "base/status.h"
#include "jail/jail.h"

#include <stdbool.h>
#include <sys/stat.h>
#include <sys/types.h>

enum jail_namespace { /* in the order of the names in /proc/PID/ns */
    JAIL_NS_USER, JAIL_NS_MNT, JAIL_NS_PID, JAIL_NS_IPC, JAIL_NS_UTS, JAIL_NS_NET, JAIL_NS_CGROUP,
    JAIL_NAMESPACES
};

extern const char *const jail_namespace_names[JAIL_NAMESPACES]; /* "user", "mnt", ... */

/* UNAVAILABLE naming what this kernel lacks: user namespaces, seccomp, Landlock, the mount API,
 * pidfds. To be called before anything is promised. */
MUST_CHECK status jail_kernel_check(struct fault *fault);

/* The supervisor's own reduction, at start, before the first spawn: no supplementary groups, only
 * the capabilities that its work needs, in every set; no_new_privs. Works for root only. */
MUST_CHECK status jail_supervisor(struct fault *fault);

/* For a caller that is not root: a user and a mount namespace of its own, in which it is. There all
 * jails share the caller's one id (outside uid and gid 0 for jail_map), which is weaker: processes
 * are apart by namespaces, Landlock and seccomp, not by uid. Before jail_supervisor. */
MUST_CHECK status jail_become_root(struct fault *fault);
bool jail_rootless(void); /* jail_become_root was used */

/* The directory as a detached mount of its own: ".." cannot leave it; nosuid, nodev, noexec,
 * nosymfollow, and read-only unless writable. directory: any fd of it. ret: the caller's, O_PATH,
 * close-on-exec; for Landlock, for openat, to be passed on. */
MUST_CHECK status jail_detached(int *ret, int directory, bool writable, struct fault *fault);

/* Opens PATH as the empty root of all jails, made (mode 0555) where absent. CONFLICT unless it is
 * an empty directory of the caller's that nobody may write. */
MUST_CHECK status jail_empty_root(int *ret, const char *path, struct fault *fault);

struct jail_plan {
    enum jail_role role;
    int executable;   /* of the role; O_PATH or readable, close-on-exec */
    const char *name; /* argv[0], the only argument: "bulkhead-cell" */
    int null;         /* /dev/null, read-write */
    int log;          /* becomes JAIL_FD_LOG */
    int channel;      /* the child's end; becomes JAIL_FD_SUPERVISOR */
    int empty_root;   /* of jail_empty_root */
    int filters;      /* of jail_filters for this role (policy.h) */
    int cgroup;       /* of jail_cgroup_make (cgroup.h), or -1 */
};

struct jail_child {
    enum jail_role role;
    pid_t pid;
    int pidfd;      /* readable when the child has ended; the child still is to be reaped */
    int proc;       /* /proc/PID, bound to this very process */
    int uid_map, gid_map, setgroups; /* opened for jail_map, -1 after it */
    uint64_t namespaces[JAIL_NAMESPACES]; /* inode numbers */
    dev_t root_device;
    ino_t root_inode;
};

/* A new process in its seven namespaces that runs the plan's executable. All descriptors of the
 * plan stay the caller's. A child that fails between here and its main says so in one line on the
 * log and exits with 127. UNAVAILABLE when the kernel refuses (the fault names the step). */
MUST_CHECK status jail_spawn(struct jail_child *ret, const struct jail_plan *plan,
                             struct fault *fault);

/* Gives the blank its one id, once: JAIL_ID inside, uid and gid outside; setgroups is denied.
 * FORBIDDEN_POLICY for uid or gid 0, unless rootless. */
MUST_CHECK status jail_map(struct jail_child *child, uid_t uid, gid_t gid, struct fault *fault);

struct jail_bounds { /* 0: as it is */
    uint64_t data_bytes;  /* private memory, the guest's too: RLIMIT_DATA */
    uint32_t cpu_seconds; /* of all threads; then it is killed */
    uint32_t threads;     /* the main one too */
};

/* Lowers the child's own limits, when it is known what it will be; they are never raised. */
MUST_CHECK status jail_bound(const struct jail_child *child, const struct jail_bounds *bounds,
                             struct fault *fault);

/* SIGKILL; for pid reuse the pidfd is used. Harmless when it has ended. */
void jail_kill(const struct jail_child *child);

/* Collects the exit of an ended child: AGAIN while it lives. ret: as wait(2)'s si_status with
 * signals as 128 + signal. Call before jail_child_close. */
MUST_CHECK status jail_reap(int *ret, const struct jail_child *child, struct fault *fault);

void jail_child_close(struct jail_child *child); /* the descriptors; twice is fine */
