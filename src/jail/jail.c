#define _GNU_SOURCE
#include "jail/jail.h"

#include "base/cleanup.h"
#include "base/limits.h"
#include "base/sanitized.h"
#include "jail/filters.h"
#include "jail/landlock.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#define GIB (UINT64_C(1) << 30)

static const struct {
    const char *name, *process; /* process: at most 15 characters, what ps shows */
    rlim_t open_files, data_bytes, locked_bytes, threads; /* threads: 0: no clone at all */
} roles[JAIL_ROLES] = {
    [JAIL_KMS] = {"kms", "bulkhead-kms", CELLS_AWAKE_MAX + 512, GIB / 4, MIB(8), 0},
    [JAIL_CONTROL] = {"control", "bulkhead-contro", CELLS_AWAKE_MAX + 512, GIB, MIB(8), 0},
    [JAIL_GATEWAY] = {"gateway", "bulkhead-gatewa",
                      HTTP_CONNECTIONS_MAX + CELLS_AWAKE_MAX + 512, GIB, MIB(1), 0},
    [JAIL_CELL] = {"cell", "bulkhead-cell", 1024, GIB, MIB(1), 0},
    /* a blank does not know its guest: the supervisor lowers these (jail_bound); from Linux 6.13 on
     * KVM's own thread, which splits huge pages, is one of the process */
    [JAIL_VMM] = {"vmm", "bulkhead-vmm", 1024,
                  (rlim_t)SANDBOX_MEMORY_MIB_MAX * MIB(1) + GIB, 0,
                  SANDBOX_VCPUS_MAX + 2},
    [JAIL_RUNNER] = {"runner", "bulkhead-runner", 0, 0, 0, 0}, /* bounds itself */
};

enum {
    LOCKED_BYTES_MIN = 64 * 1024, /* less cannot hold the keys */
    OPEN_FILES_MIN = 256,
};
static const rlim_t file_bytes = 64 * GIB; /* above any quota; the log on fd 2 counts as well */

/* Between the two halves: what jail_blank read and jail_seal installs, in every thread its own. */
static struct {
    enum jail_role role;
    bool begun, waiting, entered;
    uint32_t instructions[FILTER_STAGES];
    struct sock_filter *programs[FILTER_STAGES];
} blank;

/* So that sanitized programs can be jailed too: AddressSanitizer sets a signal stack, clones for
 * its leak check at exit, and catches SIGSEGV. */
#if SANITIZED
int __lsan_is_turned_off(void);
int __lsan_is_turned_off(void)
{
    return blank.begun;
}
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "use_sigaltstack=0:handle_segv=0";
}
#endif

const char *jail_role_name(enum jail_role role)
{
    return (unsigned)role < JAIL_ROLES ? roles[role].name : "unknown";
}

/* The new root is laid over "/" and becomes the root; the old one, with every mount beneath, goes.
 * The initial RAM disk cannot be pivoted away (pivot_root(2)): there it stays below, out of reach
 * of a process that has no descriptor of it and soon no CAP_SYS_CHROOT. */
static status enter_root(struct fault *fault)
{
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
        return FAIL(INTERNAL, fault, "private root: propagation: %s", strerror(errno));
    if (move_mount(JAIL_FD_ROOT, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH))
        return FAIL(INTERNAL, fault, "private root: move_mount: %s", strerror(errno));
    if (fchdir(JAIL_FD_ROOT))
        return FAIL(INTERNAL, fault, "private root: fchdir: %s", strerror(errno));
    if (syscall(SYS_pivot_root, ".", ".") == 0) {
        if (umount2(".", MNT_DETACH))
            return FAIL(INTERNAL, fault, "private root: umount: %s", strerror(errno));
    } else if (errno != EINVAL || chroot(".")) {
        return FAIL(INTERNAL, fault, "private root: pivot_root: %s", strerror(errno));
    }
    if (chdir("/"))
        return FAIL(INTERNAL, fault, "private root: chdir: %s", strerror(errno));
    close(JAIL_FD_ROOT);
    return OK;
}

static status set_capabilities(uint64_t set, struct fault *fault)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    uint32_t low = (uint32_t)set, high = (uint32_t)(set >> 32);
    struct __user_cap_data_struct data[2] = {{.effective = low, .permitted = low},
                                             {.effective = high, .permitted = high}};
    if (syscall(SYS_capset, &head, data))
        return FAIL(INTERNAL, fault, "capabilities: capset: %s", strerror(errno));
    return OK;
}

/* Everything but the right to take the one id, in the sets that survive an exec too. */
static status drop_capabilities(struct fault *fault)
{
    for (unsigned long capability = 0; prctl(PR_CAPBSET_READ, capability) >= 0; capability++)
        if (prctl(PR_CAPBSET_DROP, capability, 0, 0, 0))
            return FAIL(INTERNAL, fault, "capabilities: bounding set: %s", strerror(errno));
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))
        return FAIL(INTERNAL, fault, "capabilities: ambient set: %s", strerror(errno));
    return set_capabilities(UINT64_C(1) << CAP_SETUID | UINT64_C(1) << CAP_SETGID, fault);
}

static status limit(__rlimit_resource_t resource, const char *name, rlim_t wanted, rlim_t least,
                    struct fault *fault)
{
    struct rlimit old;
    if (getrlimit(resource, &old))
        return FAIL(INTERNAL, fault, "rlimits: %s: %s", name, strerror(errno));
    rlim_t value = wanted < old.rlim_max ? wanted : old.rlim_max;
    if (value < least)
        return FAIL(UNAVAILABLE, fault, "rlimits: %s: the hard limit is %llu, at least %llu needed",
                    name, (unsigned long long)value, (unsigned long long)least);
    if (setrlimit(resource, &(struct rlimit){value, value}))
        return FAIL(INTERNAL, fault, "rlimits: %s: %s", name, strerror(errno));
    return OK;
}

static status limit_resources(enum jail_role role, struct fault *fault)
{
    TRY(limit(RLIMIT_CORE, "core", 1, 0, fault)); /* none: core(5) on 1, and on 0 and pipes */
    TRY(limit(RLIMIT_NPROC, "nproc", roles[role].threads, roles[role].threads, fault));
    TRY(limit(RLIMIT_FSIZE, "fsize", file_bytes, 0, fault));
    TRY(limit(RLIMIT_MSGQUEUE, "msgqueue", 0, 0, fault));
    if (!SANITIZED)
        TRY(limit(RLIMIT_DATA, "data", roles[role].data_bytes, MIB(16), fault));
    TRY(limit(RLIMIT_NOFILE, "nofile", roles[role].open_files, OPEN_FILES_MIN, fault));
    rlim_t locked = roles[role].locked_bytes;
    return limit(RLIMIT_MEMLOCK, "memlock", locked, locked ? LOCKED_BYTES_MIN : 0, fault);
}

static status install(struct sock_filter *program, uint32_t instructions, struct fault *fault)
{
    struct sock_fprog filter = {.len = (unsigned short)instructions, .filter = program};
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter))
        return FAIL(INTERNAL, fault, "seccomp: %s", strerror(errno));
    return OK;
}

static status read_program(struct sock_filter **ret, uint32_t instructions, uint32_t skipped,
                           struct fault *fault)
{
    size_t size = instructions * sizeof(struct sock_filter);
    off_t offset = (off_t)(sizeof(struct filters_head) + skipped * sizeof(struct sock_filter));
    struct sock_filter *program = malloc(size);
    if (!program || pread(JAIL_FD_FILTERS, program, size, offset) != (ssize_t)size) {
        free(program);
        return FAIL(INTERNAL, fault, "seccomp: the program cannot be read");
    }
    *ret = program;
    return OK;
}

static bool has_stage(enum jail_role role, int stage)
{
    return stage < FILTER_STAGES - 1 || roles[role].threads;
}

/* The first stage comes into force; the others are kept until jail_seal. */
static status take_filters(enum jail_role role, struct fault *fault)
{
    struct filters_head head;
    uint32_t skipped = 0;
    if (pread(JAIL_FD_FILTERS, &head, sizeof head, 0) != sizeof head || head.role != role)
        return FAIL(INTERNAL, fault, "seccomp: no program of %s", jail_role_name(role));
    for (int stage = 0; stage < FILTER_STAGES; stage++) {
        uint32_t count = head.instructions[stage];
        if (count > FILTER_INSTRUCTIONS_MAX || !count == has_stage(role, stage))
            return FAIL(INTERNAL, fault, "seccomp: %u instructions", count);
        if (count)
            TRY(read_program(&blank.programs[stage], count, skipped, fault));
        blank.instructions[stage] = count;
        skipped += count;
    }
    close(JAIL_FD_FILTERS);
    TRY(install(blank.programs[0], blank.instructions[0], fault));
    free(take_ptr(blank.programs[0]));
    blank.role = role;
    blank.waiting = true;
    return OK;
}

static status set_undumpable(struct fault *fault)
{
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))
        return FAIL(INTERNAL, fault, "PR_SET_DUMPABLE: %s", strerror(errno));
    return OK;
}

status jail_blank(enum jail_role role, struct fault *fault)
{
    assert((unsigned)role < JAIL_RUNNER && !blank.begun);
    blank.begun = true;
    TRY(set_undumpable(fault));
    TRY(enter_root(fault));
    TRY(drop_capabilities(fault));
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_NAME, roles[role].process))
        return FAIL(INTERNAL, fault, "no_new_privs: %s", strerror(errno));
    TRY(limit_resources(role, fault));
    return take_filters(role, fault);
}

/* After the uid change, which clears it. The supervisor may have died before: then its end of the
 * channel is closed (a dying process closes its files before it signals its children). */
static status die_with_supervisor(struct fault *fault)
{
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0))
        return FAIL(INTERNAL, fault, "PR_SET_PDEATHSIG: %s", strerror(errno));
    struct pollfd channel = {.fd = JAIL_FD_SUPERVISOR};
    if (poll(&channel, 1, 0) < 0 || channel.revents & (POLLHUP | POLLERR | POLLNVAL))
        return FAIL(CLOSED, fault, "the supervisor is gone");
    return OK;
}

static status take_id(struct fault *fault)
{
    if (syscall(SYS_setresgid, JAIL_ID, JAIL_ID, JAIL_ID))
        return FAIL(INTERNAL, fault, "setresgid: %s", strerror(errno));
    if (syscall(SYS_setresuid, JAIL_ID, JAIL_ID, JAIL_ID))
        return FAIL(INTERNAL, fault, "setresuid: %s", strerror(errno));
    return set_capabilities(0, fault);
}

/* "/" is open to all by its mode; that it no longer opens is Landlock's doing alone. */
static bool root_opens(void)
{
    _cleanup_close_ int root = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return root >= 0;
}

static status close_file_system(uint32_t *ret, const struct jail_directory *directories,
                                size_t count, struct fault *fault)
{
    uint32_t abi;
    TRY(landlock_abi(&abi, fault));
    if (!root_opens())
        return FAIL(INTERNAL, fault, "Landlock: the canary \"/\" is shut before: %s",
                    strerror(errno));
    TRY(landlock_restrict(abi, directories, count, fault));
    if (root_opens() || errno != EACCES)
        return FAIL(INTERNAL, fault, "Landlock: the canary \"/\" is not refused");
    *ret = abi;
    return OK;
}

status jail_enter(struct jail_proof *ret, enum jail_role role,
                  const struct jail_directory *directories, size_t count, struct fault *fault)
{
    assert(blank.waiting && !blank.entered && blank.role == role);
    struct jail_proof proof;
    TRY(take_id(fault));
    TRY(set_undumpable(fault));
    TRY(die_with_supervisor(fault));
    TRY(close_file_system(&proof.landlock_abi, directories, count, fault));
    blank.entered = true;
    *ret = proof;
    return OK;
}

/* Landlock and no_new_privs came with the clone; a thread made too early would be without. */
status jail_seal(enum jail_thread thread, struct fault *fault)
{
    assert(blank.waiting && blank.entered);
    if (root_opens() || errno != EACCES)
        return FAIL(INTERNAL, fault, "Landlock: the canary \"/\" is not refused in a thread");
    int stage = thread == JAIL_THREAD_VCPU ? 2 : 1;
    assert(blank.programs[stage]);
    return install(blank.programs[stage], blank.instructions[stage], fault);
}

status jail_close(struct jail_proof *ret, enum jail_role role,
                  const struct jail_directory *directories, size_t count, struct fault *fault)
{
    struct jail_proof proof;
    TRY(jail_enter(&proof, role, directories, count, fault));
    TRY(jail_seal(JAIL_THREAD_MAIN, fault));
    blank.waiting = false;
    free(take_ptr(blank.programs[1]));
    *ret = proof;
    return OK;
}
