#define _GNU_SOURCE
#include "jail/spawn.h"

#include "base/cleanup.h"
#include "base/limits.h"
#include "jail/landlock.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static bool root_by_namespace; /* set by jail_become_root */

bool jail_rootless(void)
{
    return root_by_namespace;
}

/* Whether this kernel (or its sysctls, or the container around us) lets us have the namespaces is
 * only known by trying. */
static status try_namespaces(struct fault *fault)
{
    pid_t pid = fork();
    if (pid == 0)
        _exit(unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS
                      | CLONE_NEWNET | CLONE_NEWCGROUP) ? errno : 0);
    int exit_code;
    if (pid < 0 || waitpid(pid, &exit_code, 0) != pid || !WIFEXITED(exit_code))
        return FAIL(UNAVAILABLE, fault, "kernel: fork: %s", strerror(errno));
    if (WEXITSTATUS(exit_code))
        return FAIL(UNAVAILABLE, fault, "kernel: user namespaces are refused: %s "
                    "(see user.max_user_namespaces, kernel.unprivileged_userns_clone)",
                    strerror(WEXITSTATUS(exit_code)));
    return OK;
}

status jail_kernel_check(struct fault *fault)
{
    uint32_t abi;
    TRY(landlock_abi(&abi, fault));
    uint32_t kill_process = SECCOMP_RET_KILL_PROCESS;
    if (syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &kill_process))
        return FAIL(UNAVAILABLE, fault, "kernel: seccomp filters: %s", strerror(errno));
    _cleanup_close_ int pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);
    if (pidfd < 0)
        return FAIL(UNAVAILABLE, fault, "kernel: pidfds: %s", strerror(errno));
    if (syscall(SYS_clone3, NULL, 0) == 0 || errno == ENOSYS)
        return FAIL(UNAVAILABLE, fault, "kernel: clone3: %s", strerror(errno));
    if (mount_setattr(-1, "", 0, &(struct mount_attr){0}, sizeof(struct mount_attr))
        && errno == ENOSYS)
        return FAIL(UNAVAILABLE, fault, "kernel: mount_setattr: %s", strerror(errno));
    return try_namespaces(fault);
}

static status limit(__rlimit_resource_t resource, const char *name, rlim_t wanted,
                    struct fault *fault)
{
    struct rlimit old;
    if (getrlimit(resource, &old))
        return FAIL(INTERNAL, fault, "supervisor: rlimit %s: %s", name, strerror(errno));
    rlim_t hard = old.rlim_max > wanted ? old.rlim_max : wanted;
    if (setrlimit(resource, &(struct rlimit){wanted, hard})
        && setrlimit(resource, &(struct rlimit){old.rlim_max, old.rlim_max}))
        return FAIL(INTERNAL, fault, "supervisor: rlimit %s: %s", name, strerror(errno));
    return OK;
}

/* chown and cleaning of silos, the id maps, open_tree. Over its children the supervisor has every
 * capability as the owner of their namespaces, so neither CAP_KILL nor CAP_SYS_PTRACE is here. */
static uint64_t kept_capabilities(void)
{
    static const unsigned kept[] = {CAP_CHOWN,  CAP_DAC_OVERRIDE, CAP_FOWNER,
                                    CAP_SETUID, CAP_SETGID,       CAP_SYS_ADMIN};
    uint64_t set = 0;
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        set |= UINT64_C(1) << kept[i];
    if (root_by_namespace) /* there the id to map is the namespace's root: user_namespaces(7) */
        set |= UINT64_C(1) << CAP_SETFCAP;
    return set;
}

static status keep_capabilities(uint64_t kept, struct fault *fault)
{
    for (unsigned capability = 0; prctl(PR_CAPBSET_READ, capability) >= 0; capability++)
        if (!(kept >> capability & 1) && prctl(PR_CAPBSET_DROP, capability, 0, 0, 0))
            return FAIL(INTERNAL, fault, "supervisor: bounding set: %s", strerror(errno));
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))
        return FAIL(INTERNAL, fault, "supervisor: ambient set: %s", strerror(errno));
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    uint32_t low = (uint32_t)kept, high = (uint32_t)(kept >> 32);
    struct __user_cap_data_struct data[2] = {{.effective = low, .permitted = low},
                                             {.effective = high, .permitted = high}};
    if (syscall(SYS_capset, &head, data))
        return FAIL(INTERNAL, fault, "supervisor: capset: %s", strerror(errno));
    return OK;
}

status jail_supervisor(struct fault *fault)
{
    if (geteuid() != 0)
        return FAIL(UNAVAILABLE, fault, "supervisor: must be root, of a user namespace at least");
    /* its blanks lower these for themselves; they could not raise them */
    TRY(limit(RLIMIT_NOFILE, "nofile", 65536, fault));
    TRY(limit(RLIMIT_MEMLOCK, "memlock", MIB(8), fault));
    if (!root_by_namespace && setgroups(0, NULL))
        return FAIL(UNAVAILABLE, fault, "supervisor: setgroups: %s", strerror(errno));
    TRY(keep_capabilities(kept_capabilities(), fault));
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        return FAIL(INTERNAL, fault, "supervisor: no_new_privs: %s", strerror(errno));
    return OK;
}

static status write_self(const char *path, const char *content, struct fault *fault)
{
    _cleanup_close_ int file = open(path, O_WRONLY | O_CLOEXEC);
    if (file < 0 || dprintf(file, "%s", content) < 0)
        return FAIL(UNAVAILABLE, fault, "%s: %s", path, strerror(errno));
    return OK;
}

status jail_become_root(struct fault *fault)
{
    char uid_line[32], gid_line[32];
    snprintf(uid_line, sizeof uid_line, "0 %u 1", geteuid());
    snprintf(gid_line, sizeof gid_line, "0 %u 1", getegid());
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS))
        return FAIL(UNAVAILABLE, fault, "user namespaces are refused: %s", strerror(errno));
    root_by_namespace = true;
    TRY(write_self("/proc/self/setgroups", "deny", fault));
    TRY(write_self("/proc/self/uid_map", uid_line, fault));
    return write_self("/proc/self/gid_map", gid_line, fault);
}

status jail_detached(int *ret, int directory, bool writable, struct fault *fault)
{
    _cleanup_close_ int tree =
        open_tree(directory, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    if (tree < 0)
        return FAIL(UNAVAILABLE, fault, "detached mount: open_tree: %s", strerror(errno));
    struct mount_attr attributes = {
        .attr_set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC
                  | MOUNT_ATTR_NOSYMFOLLOW | (writable ? 0 : MOUNT_ATTR_RDONLY)};
    if (mount_setattr(tree, "", AT_EMPTY_PATH, &attributes, sizeof attributes))
        return FAIL(UNAVAILABLE, fault, "detached mount: mount_setattr: %s", strerror(errno));
    *ret = take_fd(&tree);
    return OK;
}

static bool is_empty(int directory)
{
    int copy = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *entries = copy < 0 ? NULL : fdopendir(copy);
    if (!entries) {
        cleanup_close(&copy);
        return false;
    }
    int count = 0;
    while (readdir(entries))
        count++;
    closedir(entries);
    return count == 2; /* "." and ".." */
}

status jail_empty_root(int *ret, const char *path, struct fault *fault)
{
    if (mkdir(path, 0555) && errno != EEXIST)
        return FAIL(UNAVAILABLE, fault, "empty root: mkdir: %s", strerror(errno));
    _cleanup_close_ int root = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct stat info;
    if (root < 0 || fchmod(root, 0555) || fstat(root, &info))
        return FAIL(UNAVAILABLE, fault, "empty root: %s", strerror(errno));
    if (info.st_uid != geteuid() || !is_empty(root))
        return FAIL(CONFLICT, fault, "empty root: %s is not an empty directory of ours", path);
    *ret = take_fd(&root);
    return OK;
}
