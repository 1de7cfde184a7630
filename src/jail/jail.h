/* jail.h: how a process locks itself in. For the mains of kms, control, gateway and cell.
 *
 * The supervisor starts each of them with jail_spawn (spawn.h): already in namespaces of its own,
 * the user namespace without a single id, with an empty environment and the descriptors below,
 * nothing else. Such a process is a blank. Its main calls, in this order:
 *
 *   jail_blank    first of all: private empty root, no_new_privs, rlimits, not dumpable, no
 *                 capability but to take an id, the first seccomp filter
 *                 ... libraries are initialised, JAIL_FD_SUPERVISOR is awaited; the supervisor then
 *                 calls jail_map and hands in the directories ...
 *   jail_close    takes the one id, drops every capability, Landlock, the final seccomp filter
 *
 * Both fail closed: on a fault the caller must exit. After jail_close the supervisor reads back
 * from the kernel (verify.h) that all of it is in force before it trusts the process with anything.
 *
 * Every jailed process is pid 1 of its own pid namespace: a signal without a handler other than
 * SIGKILL does not end it, so the supervisor stops it by a message or by SIGKILL; abort and a
 * failed assert end it by SIGSEGV, a forbidden call by SIGSYS. It has one
 * thread, but the monitor, which makes its own before jail_seal: after it no filter allows clone.
 * Nothing may be loaded (dlopen) after jail_blank. */
#pragma once

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

/* All but the last lock themselves in. A runner hands its namespaces to a container's runtime,
 * which builds the inner walls: it has an id and namespaces of its own, but mounts too; see
 * verify.h. */
enum jail_role {
    JAIL_KMS, JAIL_CONTROL, JAIL_GATEWAY, JAIL_CELL, JAIL_VMM, JAIL_RUNNER, JAIL_ROLES
};

const char *jail_role_name(enum jail_role role); /* "kms"; "unknown" outside the enum */

enum jail_fd { /* what a blank finds open; 0 and 1 are /dev/null */
    JAIL_FD_LOG = 2,
    JAIL_FD_SUPERVISOR = 3, /* SOCK_SEQPACKET, see wire/ipc.h */
    JAIL_FD_ROOT = 4,       /* taken and closed by jail_blank */
    JAIL_FD_FILTERS = 5,    /* taken and closed by jail_blank */
    JAIL_FD_COUNT = 6
};

/* The only uid and gid inside every jail; outside it is the id that the supervisor mapped. */
#define JAIL_ID 1

MUST_CHECK status jail_blank(enum jail_role role, struct fault *fault);

enum jail_use {
    JAIL_READ = 1,  /* read files, list directories */
    JAIL_WRITE = 2, /* write, create, rename, remove regular files and directories */
};

struct jail_directory {
    int fd;       /* as jail_detached made it (spawn.h); borrowed */
    uint32_t use; /* of enum jail_use */
};

/* What the process can say for itself: the kernel cannot be asked from outside about Landlock, so
 * jail_close opens "/" before and after, and only where the second is refused reports the ABI. */
struct jail_proof {
    uint32_t landlock_abi;
};

/* jail_close in two steps, for the role that has threads (JAIL_VMM): all but the final filter; then
 * the threads are made (SANDBOX_VCPUS_MAX at most), which inherit the rest; then each thread puts
 * on its own filter. The filters of both threads forbid making another. Only the main thread may
 * ask malloc for memory: another would map an arena of its own. */
MUST_CHECK status jail_enter(struct jail_proof *ret, enum jail_role role,
                             const struct jail_directory *directories, size_t count,
                             struct fault *fault);
enum jail_thread { JAIL_THREAD_MAIN, JAIL_THREAD_VCPU };
MUST_CHECK status jail_seal(enum jail_thread thread, struct fault *fault);

/* After this only what is beneath the directories can be named, and only in these uses. */
MUST_CHECK status jail_close(struct jail_proof *ret, enum jail_role role,
                             const struct jail_directory *directories, size_t count,
                             struct fault *fault);
