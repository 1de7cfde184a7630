/* profile.c: the system calls of a container, as data. What is not here fails with EPERM, and what
 * libc only tries with ENOSYS. No call that makes a namespace or a mount, traces or reads another
 * process, loads code into the kernel, or opens a file without a name; each of those has had holes
 * that led out of containers. */
#include "runner/runner.h"

#include "wire/json.h"

#include <errno.h>
#include <linux/sched.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/resource.h>
#include <sys/socket.h>

static const char *const calls[] = {
    /* bytes, files, folders */
    "access", "chdir", "chmod", "chown", "close", "close_range", "copy_file_range", "creat", "dup",
    "dup2", "dup3", "faccessat", "faccessat2", "fadvise64", "fallocate", "fchdir", "fchmod",
    "fchmodat", "fchown", "fchownat", "fcntl", "fdatasync", "fgetxattr", "flistxattr", "flock",
    "fremovexattr", "fsetxattr", "fstat", "fstatfs", "fsync", "ftruncate", "getcwd", "getdents",
    "getdents64", "getxattr", "inotify_add_watch", "inotify_init", "inotify_init1",
    "inotify_rm_watch", "lchown", "lgetxattr", "link", "linkat", "listxattr", "llistxattr",
    "lremovexattr", "lseek", "lsetxattr", "lstat", "mkdir", "mkdirat", "newfstatat", "open",
    "openat", "openat2", "pipe", "pipe2", "pread64", "preadv", "preadv2", "pwrite64", "pwritev",
    "pwritev2", "read", "readahead", "readlink", "readlinkat", "readv", "removexattr", "rename",
    "renameat", "renameat2", "rmdir", "sendfile", "setxattr", "splice", "stat", "statfs", "statx",
    "symlink", "symlinkat", "sync", "sync_file_range", "syncfs", "tee", "truncate", "umask",
    "unlink", "unlinkat", "utime", "utimensat", "utimes", "write", "writev", "mknod",
    "mknodat", /* pipes and sockets by name: a device needs a capability that nobody has */
    /* memory */
    "brk", "madvise", "membarrier", "mincore", "mlock", "mlock2", "mlockall", "mprotect",
    "mremap", "msync", "munlock", "munlockall", "munmap", "pkey_alloc", "pkey_free",
    "pkey_mprotect",
    /* processes and threads */
    "arch_prctl", "capget", "capset", "execve", "execveat", "exit", "exit_group", "fork", "futex",
    "futex_waitv", "get_robust_list", "get_thread_area", "getegid", "geteuid", "getgid",
    "getgroups", "getpgid", "getpgrp", "getpid", "getppid", "getpriority", "getresgid", "getresuid",
    "getrlimit", "getrusage", "getsid", "gettid", "getuid", "ioprio_get", "ioprio_set", "kill",
    "pidfd_open", "pidfd_send_signal", "prctl", "restart_syscall", "rseq",
    "rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigqueueinfo", "rt_sigreturn",
    "rt_sigsuspend", "rt_sigtimedwait", "rt_tgsigqueueinfo", "sched_get_priority_max",
    "sched_get_priority_min", "sched_getaffinity", "sched_getattr", "sched_getparam",
    "sched_getscheduler", "sched_rr_get_interval", "sched_setaffinity", "sched_setattr",
    "sched_setparam", "sched_setscheduler", "sched_yield", "seccomp", "set_robust_list",
    "set_thread_area", "set_tid_address", "setfsgid", "setfsuid", "setgid", "setgroups", "setpgid",
    "setpriority", "setregid", "setresgid", "setresuid", "setreuid", "setsid",
    "setuid", "sigaltstack", "tgkill", "tkill", "vfork", "wait4", "waitid", "landlock_add_rule",
    "landlock_create_ruleset", "landlock_restrict_self",
    /* time and events */
    "alarm", "clock_getres", "clock_gettime", "clock_nanosleep", "epoll_create", "epoll_create1",
    "epoll_ctl", "epoll_pwait", "epoll_pwait2", "epoll_wait", "eventfd", "eventfd2", "getitimer",
    "gettimeofday", "nanosleep", "pause", "poll", "ppoll", "pselect6", "select", "setitimer",
    "signalfd", "signalfd4", "time", "timer_create", "timer_delete", "timer_getoverrun",
    "timer_gettime", "timer_settime", "timerfd_create", "timerfd_gettime", "timerfd_settime",
    "times",
    /* between processes of the container: the network leads nowhere */
    "accept", "accept4", "bind", "connect", "getpeername", "getsockname", "getsockopt", "listen",
    "mq_getsetattr", "mq_notify", "mq_open", "mq_timedreceive", "mq_timedsend", "mq_unlink",
    "recvfrom", "recvmmsg", "recvmsg", "shutdown",
    /* the machine */
    "getcpu", "getrandom", "sysinfo", "uname",
};

enum { COMPARISONS_MAX = 3 };

struct comparison {
    uint32_t argument;
    enum how { MASKED = 1, EQUAL, OTHER } how;
    uint64_t mask, value; /* EQUAL and OTHER: all 64 bits */
};

/* Of arguments that are an int the kernel reads the lower half, so no more of them is compared. */
#define INT(n, constant) {n, MASKED, UINT32_MAX, (uint32_t)(constant)}
#define NONE_OF(n, bits) {n, MASKED, (uint64_t)(bits), 0}
#define OF_TYPE(n, constant) {n, MASKED, 0xF, (constant)} /* with SOCK_CLOEXEC, SOCK_NONBLOCK */

/* Rows of one call are alternatives. */
static const struct {
    const char *call;
    struct comparison comparisons[COMPARISONS_MAX];
} conditional[] = {
    {"clone", {NONE_OF(0, CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC
                              | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET)}},
    /* never shared and anonymous at once: it stays when nobody has it mapped, so none counts it */
    {"mmap", {NONE_OF(3, MAP_SHARED)}},
    {"mmap", {NONE_OF(3, MAP_ANONYMOUS)}},
    /* nothing that loads a protocol: TCP and UDP are there, and lead nowhere */
    {"socket", {INT(0, AF_UNIX)}},
    {"socket", {INT(0, AF_INET), OF_TYPE(1, SOCK_STREAM), INT(2, 0)}},
    {"socket", {INT(0, AF_INET), OF_TYPE(1, SOCK_STREAM), INT(2, IPPROTO_TCP)}},
    {"socket", {INT(0, AF_INET), OF_TYPE(1, SOCK_DGRAM), INT(2, 0)}},
    {"socket", {INT(0, AF_INET), OF_TYPE(1, SOCK_DGRAM), INT(2, IPPROTO_UDP)}},
    {"socket", {INT(0, AF_INET6), OF_TYPE(1, SOCK_STREAM), INT(2, 0)}},
    {"socket", {INT(0, AF_INET6), OF_TYPE(1, SOCK_STREAM), INT(2, IPPROTO_TCP)}},
    {"socket", {INT(0, AF_INET6), OF_TYPE(1, SOCK_DGRAM), INT(2, 0)}},
    {"socket", {INT(0, AF_INET6), OF_TYPE(1, SOCK_DGRAM), INT(2, IPPROTO_UDP)}},
    {"socketpair", {INT(0, AF_UNIX)}}, /* it makes both before it says that it cannot pair them */
    {"sendto", {NONE_OF(3, MSG_OOB)}},
    {"sendmsg", {NONE_OF(2, MSG_OOB)}},
    {"sendmmsg", {NONE_OF(3, MSG_OOB)}},
    {"setsockopt", {INT(1, SOL_SOCKET)}},
    {"setsockopt", {INT(1, IPPROTO_IP)}},
    {"setsockopt", {INT(1, IPPROTO_IPV6)}},
    /* of TCP's those below 31, TCP_ULP, which loads others: one bit of the five is not set */
    {"setsockopt", {INT(1, IPPROTO_TCP), NONE_OF(2, 0xFFFFFFE1)}},
    {"setsockopt", {INT(1, IPPROTO_TCP), NONE_OF(2, 0xFFFFFFE2)}},
    {"setsockopt", {INT(1, IPPROTO_TCP), NONE_OF(2, 0xFFFFFFE4)}},
    {"setsockopt", {INT(1, IPPROTO_TCP), NONE_OF(2, 0xFFFFFFE8)}},
    {"setsockopt", {INT(1, IPPROTO_TCP), NONE_OF(2, 0xFFFFFFF0)}},
    {"prlimit64", {INT(1, RLIMIT_CORE), {2, EQUAL, 0, 0}}}, /* only asks */
    {"personality", {INT(0, PER_LINUX)}},
    {"personality", {INT(0, ADDR_NO_RANDOMIZE)}},
    {"personality", {INT(0, 0xffffffff)}},
};

/* Of the terminal's requests, 0x5400 to 0x54ff, those that only read or set its modes: not the ones
 * that press keys on behalf of whoever holds its other end (TIOCSTI, TIOCLINUX). */
static const uint32_t terminal_requests[] = {
    TCGETS, TCSETS, TCSETSW, TCSETSF, TCSBRK, TCXONC, TCFLSH, TCSBRKP, TIOCEXCL, TIOCNXCL,
    TIOCSCTTY, TIOCGPGRP, TIOCSPGRP, TIOCOUTQ, TIOCGWINSZ, TIOCSWINSZ, FIONREAD, FIONBIO,
    TIOCNOTTY, TIOCGSID, FIONCLEX, FIOCLEX, FIOASYNC};

/* libc falls back to what can be looked at. Memory that no process has mapped is on no account
 * where there is no cgroup. */
static const char *const absent[] = {"clone3", "io_uring_setup", "process_madvise", "memfd_create",
                                     "msgget", "semget", "shmget"};

static void open_rule(struct json_writer *writer, const char *call, const char *action)
{
    json_open_object(writer, NULL);
    json_open_array(writer, "names");
    json_put_text(writer, NULL, call);
    json_close_array(writer);
    json_put_text(writer, "action", action);
}

static void put_comparison(struct json_writer *writer, const struct comparison *comparison)
{
    static const char *const operations[] = {
        [MASKED] = "SCMP_CMP_MASKED_EQ", [EQUAL] = "SCMP_CMP_EQ", [OTHER] = "SCMP_CMP_NE"};
    bool masked = comparison->how == MASKED;
    json_open_object(writer, NULL);
    json_put_integer(writer, "index", comparison->argument);
    json_put_integer(writer, "value", (int64_t)(masked ? comparison->mask : comparison->value));
    json_put_integer(writer, "valueTwo", masked ? (int64_t)comparison->value : 0);
    json_put_text(writer, "op", operations[comparison->how]);
    json_close_object(writer);
}

static void put_comparisons(struct json_writer *writer, const struct comparison *comparisons)
{
    json_open_array(writer, "args");
    for (size_t i = 0; i < COMPARISONS_MAX && comparisons[i].how; i++)
        put_comparison(writer, &comparisons[i]);
    json_close_array(writer);
}

static void put_row(struct json_writer *writer, const char *call,
                    const struct comparison comparisons[COMPARISONS_MAX])
{
    open_rule(writer, call, "SCMP_ACT_ALLOW");
    put_comparisons(writer, comparisons);
    json_close_object(writer);
}

static void put_conditional(struct json_writer *writer)
{
    for (size_t i = 0; i < sizeof conditional / sizeof *conditional; i++)
        put_row(writer, conditional[i].call, conditional[i].comparisons);
}

/* Says that it is done, and does nothing. */
static void put_pretended(struct json_writer *writer, const char *call,
                          const struct comparison comparisons[COMPARISONS_MAX])
{
    open_rule(writer, call, "SCMP_ACT_ERRNO");
    json_put_integer(writer, "errnoRet", 0);
    put_comparisons(writer, comparisons);
    json_close_object(writer);
}

/* All but that of a core, which stays at 1: a limit of 0 is none to a handler of the host's that
 * takes cores by a pipe, as root, and parses them (core(5)). Programs want 0 and are told that they
 * have it. */
static void put_limits(struct json_writer *writer)
{
    for (uint32_t limit = 0; limit < RLIM_NLIMITS; limit++) {
        if (limit == RLIMIT_CORE)
            continue;
        put_row(writer, "setrlimit", (struct comparison[COMPARISONS_MAX]){INT(0, limit)});
        put_row(writer, "prlimit64", (struct comparison[COMPARISONS_MAX]){INT(1, limit)});
    }
    put_pretended(writer, "setrlimit",
                  (struct comparison[COMPARISONS_MAX]){INT(0, RLIMIT_CORE)});
    put_pretended(writer, "prlimit64", (struct comparison[COMPARISONS_MAX]){INT(1, RLIMIT_CORE),
                                                                            {2, OTHER, 0, 0}});
}

/* A list of what is allowed has no "not equal to any of": so a request is let through for each bit
 * by which it is not on the terminal's page. */
static void put_requests(struct json_writer *writer)
{
    for (uint32_t bit = 8; bit < 32; bit++) {
        uint32_t mask = UINT32_C(1) << bit;
        const uint32_t other = ~UINT32_C(0x5400) & mask;
        put_row(writer, "ioctl", (struct comparison[COMPARISONS_MAX]){{1, MASKED, mask, other}});
    }
    for (size_t i = 0; i < sizeof terminal_requests / sizeof *terminal_requests; i++)
        put_row(writer, "ioctl",
                (struct comparison[COMPARISONS_MAX]){INT(1, terminal_requests[i])});
}

void runner_profile(struct json_writer *writer)
{
    json_open_object(writer, "seccomp");
    json_put_text(writer, "defaultAction", "SCMP_ACT_ERRNO");
    json_put_integer(writer, "defaultErrnoRet", EPERM);
    json_open_array(writer, "architectures");
    json_put_text(writer, NULL, "SCMP_ARCH_X86_64");
    json_close_array(writer);
    json_open_array(writer, "syscalls");
    json_open_object(writer, NULL);
    json_open_array(writer, "names");
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
        json_put_text(writer, NULL, calls[i]);
    json_close_array(writer);
    json_put_text(writer, "action", "SCMP_ACT_ALLOW");
    json_close_object(writer);
    put_conditional(writer);
    put_limits(writer);
    put_requests(writer);
    for (size_t i = 0; i < sizeof absent / sizeof *absent; i++) {
        open_rule(writer, absent[i], "SCMP_ACT_ERRNO");
        json_put_integer(writer, "errnoRet", ENOSYS);
        json_close_object(writer);
    }
    json_close_array(writer);
    json_close_object(writer);
}
