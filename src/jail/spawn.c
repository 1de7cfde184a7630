#define _GNU_SOURCE
#include "jail/spawn.h"

#include "base/cleanup.h"
#include "base/log.h"
#include "base/span.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <linux/sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

const char *const jail_namespace_names[JAIL_NAMESPACES] = {"user", "mnt", "pid",   "ipc",
                                                           "uts",  "net", "cgroup"};

static const uint64_t new_namespaces = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC
                                     | CLONE_NEWUTS | CLONE_NEWNET | CLONE_NEWCGROUP;

enum { FDS_ABOVE = 16 }; /* where descriptors wait while 0..5 are laid out */

/* Of the child, between clone and exec: it has the supervisor's log, nobody else to tell. */
static _Noreturn void give_up(const char *step)
{
    log_event(LOG_ERROR, "jail.spawn", "%s: %s", step, strerror(errno));
    _exit(127);
}

/* For jail_blank: in a process without an id only the ambient set outlives the exec. */
static void keep_capabilities(void)
{
    static const unsigned kept[] = {CAP_SYS_ADMIN, CAP_SYS_CHROOT, CAP_SETPCAP, CAP_SETUID,
                                    CAP_SETGID};
    uint32_t set = 0;
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        set |= UINT32_C(1) << kept[i];
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {{set, set, set}, {0, 0, 0}};
    if (syscall(SYS_capset, &head, data))
        give_up("capset");
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, kept[i], 0, 0))
            give_up("ambient capabilities");
}

static int lifted(int fd)
{
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, FDS_ABOVE);
    if (copy < 0)
        give_up("descriptors");
    return copy;
}

/* Returns the executable's descriptor; everything but 0..5 closes at the exec. */
static int lay_out_descriptors(const struct jail_plan *plan, int root)
{
    int executable = lifted(plan->executable);
    int sources[JAIL_FD_COUNT] = {lifted(plan->null),    lifted(plan->null), lifted(plan->log),
                                  lifted(plan->channel), lifted(root),       lifted(plan->filters)};
    for (int target = 0; target < JAIL_FD_COUNT; target++)
        if (dup2(sources[target], target) < 0)
            give_up("descriptors");
    if (close_range(JAIL_FD_COUNT, ~0u, CLOSE_RANGE_CLOEXEC))
        give_up("close_range");
    return executable;
}

static _Noreturn void be_child(const struct jail_plan *plan, int root, int gate)
{
    char go;
    if (read(gate, &go, 1) != 1) /* the supervisor has not opened what it needs of /proc */
        _exit(127);
    sigset_t none;
    sigemptyset(&none);
    if (sigprocmask(SIG_SETMASK, &none, NULL) || setsid() < 0)
        give_up("session");
    umask(077);
    keep_capabilities();
    int executable = lay_out_descriptors(plan, root);
    char name[32];
    snprintf(name, sizeof name, "%s", plan->name);
    execveat(executable, "", (char *const[]){name, NULL}, (char *const[]){NULL}, AT_EMPTY_PATH);
    give_up("exec");
}

static status read_namespaces(uint64_t ret[JAIL_NAMESPACES], int proc, struct fault *fault)
{
    for (int i = 0; i < JAIL_NAMESPACES; i++) {
        char path[32];
        struct stat info;
        snprintf(path, sizeof path, "ns/%s", jail_namespace_names[i]);
        if (fstatat(proc, path, &info, 0))
            return FAIL(UNAVAILABLE, fault, "jail: /proc/PID/%s: %s", path, strerror(errno));
        ret[i] = info.st_ino;
    }
    return OK;
}

static status open_map(int *ret, int proc, const char *name, struct fault *fault)
{
    int fd = openat(proc, name, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return FAIL(UNAVAILABLE, fault, "jail: /proc/PID/%s: %s", name, strerror(errno));
    *ret = fd;
    return OK;
}

/* Before the exec: afterwards, being undumpable, the child's files in /proc belong to an id that
 * only a supervisor with capabilities over it may open. */
static status open_child(struct jail_child *child, struct fault *fault)
{
    char path[32];
    snprintf(path, sizeof path, "/proc/%d", (int)child->pid);
    child->proc = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (child->proc < 0)
        return FAIL(UNAVAILABLE, fault, "jail: %s: %s", path, strerror(errno));
    TRY(open_map(&child->setgroups, child->proc, "setgroups", fault));
    TRY(open_map(&child->uid_map, child->proc, "uid_map", fault));
    TRY(open_map(&child->gid_map, child->proc, "gid_map", fault));
    return read_namespaces(child->namespaces, child->proc, fault);
}

static status start(struct jail_child *child, const struct jail_plan *plan, int root, int gate,
                    struct fault *fault)
{
    bool grouped = plan->cgroup >= 0;
    struct clone_args arguments = {
        .flags = new_namespaces | CLONE_PIDFD | CLONE_CLEAR_SIGHAND
               | (grouped ? CLONE_INTO_CGROUP : 0),
        .pidfd = (uint64_t)(uintptr_t)&child->pidfd,
        .exit_signal = SIGCHLD,
        .cgroup = grouped ? (unsigned)plan->cgroup : 0,
    };
    long pid = syscall(SYS_clone3, &arguments, sizeof arguments);
    if (pid == 0)
        be_child(plan, root, gate);
    if (pid < 0)
        return FAIL(UNAVAILABLE, fault, "jail: clone with new namespaces: %s", strerror(errno));
    child->pid = (pid_t)pid;
    return OK;
}

static void abandon(struct jail_child *child)
{
    jail_kill(child);
    waitid(P_PIDFD, (id_t)child->pidfd, &(siginfo_t){0}, WEXITED);
    jail_child_close(child);
}

status jail_spawn(struct jail_child *ret, const struct jail_plan *plan, struct fault *fault)
{
    struct jail_child child = {.role = plan->role, .pidfd = -1, .proc = -1, .uid_map = -1,
                               .gid_map = -1, .setgroups = -1};
    struct stat root_info;
    _cleanup_close_ int root = -1;
    TRY(jail_detached(&root, plan->empty_root, false, fault));
    if (fstat(root, &root_info))
        return FAIL(UNAVAILABLE, fault, "jail: empty root: %s", strerror(errno));
    child.root_device = root_info.st_dev;
    child.root_inode = root_info.st_ino;
    int gate[2];
    if (pipe2(gate, O_CLOEXEC))
        return FAIL(UNAVAILABLE, fault, "jail: pipe: %s", strerror(errno));
    _cleanup_close_ int gate_read = gate[0], gate_write = gate[1];
    TRY(start(&child, plan, root, gate_read, fault));
    status code = open_child(&child, fault);
    if (code == OK && write(gate_write, "", 1) != 1)
        code = FAIL(UNAVAILABLE, fault, "jail: the child is gone before its exec");
    if (code != OK) {
        abandon(&child);
        return code;
    }
    *ret = child;
    return OK;
}

static status write_map(int *fd, const char *name, const char *content, struct fault *fault)
{
    size_t length = span_of_text(content).length;
    _cleanup_close_ int map = take_fd(fd);
    if (write(map, content, length) != (ssize_t)length)
        return FAIL(UNAVAILABLE, fault, "jail: %s: %s", name, strerror(errno));
    return OK;
}

status jail_map(struct jail_child *child, uid_t uid, gid_t gid, struct fault *fault)
{
    assert(child->uid_map >= 0); /* an id is given once */
    if ((uid == 0 || gid == 0) && !jail_rootless())
        return FAIL(FORBIDDEN_POLICY, fault, "jail: uid %u, gid %u: root is never jailed", uid,
                    gid);
    char line[32];
    TRY(write_map(&child->setgroups, "setgroups", "deny", fault));
    snprintf(line, sizeof line, "%u %u 1", JAIL_ID, gid);
    TRY(write_map(&child->gid_map, "gid_map", line, fault));
    snprintf(line, sizeof line, "%u %u 1", JAIL_ID, uid);
    return write_map(&child->uid_map, "uid_map", line, fault);
}

static status lower(const struct jail_child *child, __rlimit_resource_t resource, rlim_t value,
                    struct fault *fault)
{
    struct rlimit old;
    if (!value)
        return OK;
    if (prlimit(child->pid, resource, NULL, &old))
        return FAIL(UNAVAILABLE, fault, "jail: prlimit: %s", strerror(errno));
    rlim_t least = value < old.rlim_max ? value : old.rlim_max;
    if (prlimit(child->pid, resource, &(struct rlimit){least, least}, NULL))
        return FAIL(UNAVAILABLE, fault, "jail: prlimit: %s", strerror(errno));
    return OK;
}

status jail_bound(const struct jail_child *child, const struct jail_bounds *bounds,
                  struct fault *fault)
{
    TRY(lower(child, RLIMIT_DATA, bounds->data_bytes, fault));
    TRY(lower(child, RLIMIT_CPU, bounds->cpu_seconds, fault));
    return lower(child, RLIMIT_NPROC, bounds->threads, fault);
}

void jail_kill(const struct jail_child *child)
{
    if (child->pidfd >= 0)
        syscall(SYS_pidfd_send_signal, child->pidfd, SIGKILL, NULL, 0);
}

status jail_reap(int *ret, const struct jail_child *child, struct fault *fault)
{
    siginfo_t info = {0};
    if (waitid(P_PIDFD, (id_t)child->pidfd, &info, WEXITED | WNOHANG))
        return FAIL(INTERNAL, fault, "jail: waitid: %s", strerror(errno));
    if (info.si_pid == 0)
        return FAIL(AGAIN, fault, "jail: pid %d is still there", (int)child->pid);
    *ret = info.si_code == CLD_EXITED ? info.si_status : 128 + info.si_status;
    return OK;
}

void jail_child_close(struct jail_child *child)
{
    cleanup_close(&child->pidfd);
    cleanup_close(&child->proc);
    cleanup_close(&child->uid_map);
    cleanup_close(&child->gid_map);
    cleanup_close(&child->setgroups);
}
