/* profile.c: the system calls of a container, as data. What is not here fails with EPERM, and what
 * libc only tries with ENOSYS. No call that makes a namespace or a mount, traces or reads another
 * process, loads code into the kernel, or opens a file without a name; each of those has had holes
 * that led out of containers. */
#include "runner/runner.h"

#include "wire/json.h"

#include <errno.h>
#include <linux/sched.h>
#include <sys/ioctl.h>
#include <sys/personality.h>
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
    "brk", "madvise", "membarrier", "mincore", "mlock", "mlock2", "mlockall", "mmap", "mprotect",
    "mremap", "msync", "munlock", "munlockall", "munmap", "pkey_alloc", "pkey_free",
    "pkey_mprotect",
    /* processes and threads */
    "arch_prctl", "capget", "capset", "execve", "execveat", "exit", "exit_group", "fork", "futex",
    "futex_waitv", "get_robust_list", "get_thread_area", "getegid", "geteuid", "getgid",
    "getgroups", "getpgid", "getpgrp", "getpid", "getppid", "getpriority", "getresgid", "getresuid",
    "getrlimit", "getrusage", "getsid", "gettid", "getuid", "ioprio_get", "ioprio_set", "kill",
    "pidfd_open", "pidfd_send_signal", "prctl", "prlimit64", "restart_syscall", "rseq",
    "rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigqueueinfo", "rt_sigreturn",
    "rt_sigsuspend", "rt_sigtimedwait", "rt_tgsigqueueinfo", "sched_get_priority_max",
    "sched_get_priority_min", "sched_getaffinity", "sched_getattr", "sched_getparam",
    "sched_getscheduler", "sched_rr_get_interval", "sched_setaffinity", "sched_setattr",
    "sched_setparam", "sched_setscheduler", "sched_yield", "seccomp", "set_robust_list",
    "set_thread_area", "set_tid_address", "setfsgid", "setfsuid", "setgid", "setgroups", "setpgid",
    "setpriority", "setregid", "setresgid", "setresuid", "setreuid", "setrlimit", "setsid",
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
    "msgctl", "msgget", "msgrcv", "msgsnd", "recvfrom", "recvmmsg", "recvmsg", "semctl", "semget",
    "semop", "semtimedop", "sendmmsg", "sendmsg", "sendto", "setsockopt", "shutdown", "socketpair",
    /* the machine */
    "getcpu", "getrandom", "sysinfo", "uname",
};

enum how { MASKED, EQUAL };

/* Rows of one call are alternatives. */
static const struct {
    const char *call;
    uint32_t argument;
    enum how how;
    uint64_t mask, value;
} conditional[] = {
    {"clone", 0, MASKED,
     CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID
         | CLONE_NEWNET, 0},
    {"socket", 0, EQUAL, AF_UNIX, 0},
    {"socket", 0, EQUAL, AF_INET, 0},
    {"socket", 0, EQUAL, AF_INET6, 0},
    {"personality", 0, EQUAL, PER_LINUX, 0},
    {"personality", 0, EQUAL, ADDR_NO_RANDOMIZE, 0},
    {"personality", 0, EQUAL, 0xffffffff, 0},
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
                                     "shmget"};

static void open_rule(struct json_writer *writer, const char *call, const char *action)
{
    json_open_object(writer, NULL);
    json_open_array(writer, "names");
    json_put_text(writer, NULL, call);
    json_close_array(writer);
    json_put_text(writer, "action", action);
}

static void put_comparison(struct json_writer *writer, uint32_t argument, enum how how,
                           uint64_t first, uint64_t second)
{
    static const char *const operations[] = {
        [MASKED] = "SCMP_CMP_MASKED_EQ", [EQUAL] = "SCMP_CMP_EQ"};
    json_open_object(writer, NULL);
    json_put_integer(writer, "index", argument);
    json_put_integer(writer, "value", (int64_t)first);
    json_put_integer(writer, "valueTwo", (int64_t)second);
    json_put_text(writer, "op", operations[how]);
    json_close_object(writer);
}

static void put_conditional(struct json_writer *writer)
{
    for (size_t i = 0; i < sizeof conditional / sizeof *conditional; i++) {
        open_rule(writer, conditional[i].call, "SCMP_ACT_ALLOW");
        json_open_array(writer, "args");
        put_comparison(writer, conditional[i].argument, conditional[i].how, conditional[i].mask,
                       conditional[i].value);
        json_close_array(writer);
        json_close_object(writer);
    }
}

static void put_request(struct json_writer *writer, uint32_t mask, uint32_t value)
{
    open_rule(writer, "ioctl", "SCMP_ACT_ALLOW");
    json_open_array(writer, "args");
    put_comparison(writer, 1, MASKED, mask, value);
    json_close_array(writer);
    json_close_object(writer);
}

/* A list of what is allowed has no "not equal to any of": so a request is let through for each bit
 * by which it is not on the terminal's page. */
static void put_requests(struct json_writer *writer)
{
    for (uint32_t bit = 8; bit < 32; bit++) {
        uint32_t mask = UINT32_C(1) << bit;
        put_request(writer, mask, ~UINT32_C(0x5400) & mask);
    }
    for (size_t i = 0; i < sizeof terminal_requests / sizeof *terminal_requests; i++)
        put_request(writer, UINT32_MAX, terminal_requests[i]);
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
    put_requests(writer);
    for (size_t i = 0; i < sizeof absent / sizeof *absent; i++) {
        open_rule(writer, absent[i], "SCMP_ACT_ERRNO");
        json_put_integer(writer, "errnoRet", ENOSYS);
        json_close_object(writer);
    }
    json_close_array(writer);
    json_close_object(writer);
}
