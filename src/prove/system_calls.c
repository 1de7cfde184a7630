/* system_calls.c: one forbidden call each. What would do harm if it went through is asked for in
 * its least harmful form: that it is refused at all is the question. */
#define _GNU_SOURCE
#include "prove/hostile.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#define AT(object) ((uintptr_t)(object))
#define NUMBER(value) ((uintptr_t)(value))

static const struct sockaddr_un abstract_address = {.sun_family = AF_UNIX,
                                                    .sun_path = "\0bulkhead"};
static const char text_root[] = "/", text_name[] = "prove", text_type[] = "user",
                  text_proc[] = "proc", text_tmpfs[] = "tmpfs", text_empty[] = "",
                  text_image[] = "prove-image";
static const char *const no_words[] = {NULL};
static uint8_t scratch[4096] __attribute__((aligned(4096)));

static struct got call(struct hostile *self, const struct attempt *attempt)
{
    const uintptr_t *a = attempt->arguments;
    (void)self;
    errno = 0;
    long result = syscall(attempt->call, a[0], a[1], a[2], a[3], a[4], a[5]);
    return result < 0 ? got_survived("the call was made: %s", strerrorname_np(errno))
                      : got_survived("the call was made: %ld", result);
}

static struct got kill_supervisor(struct hostile *self, const struct attempt *attempt)
{
    (void)attempt;
    kill((pid_t)self->target.supervisor_pid, 0);
    return got_survived("the call was made");
}

static struct got read_neighbour(struct hostile *self, const struct attempt *attempt)
{
    const struct iovec here = {scratch, sizeof scratch}, there = {scratch, sizeof scratch};
    (void)attempt;
    syscall(SYS_process_vm_readv, self->target.neighbour_pid, &here, 1, &there, 1, 0);
    return got_survived("the call was made");
}

static struct got trace_neighbour(struct hostile *self, const struct attempt *attempt)
{
    (void)attempt;
    syscall(SYS_ptrace, PTRACE_SEIZE, self->target.neighbour_pid, 0, 0);
    return got_survived("the call was made");
}

static struct got open_neighbour(struct hostile *self, const struct attempt *attempt)
{
    (void)attempt;
    syscall(SYS_pidfd_open, self->target.neighbour_pid, 0);
    return got_survived("the call was made");
}

/* The filter lets a process signal itself, for abort; a thread of another is none of its own. */
static struct got signal_thread_of_kms(struct hostile *self, const struct attempt *attempt)
{
    (void)attempt;
    if (syscall(SYS_tgkill, 1, self->target.kms_pid, SIGKILL) == 0)
        return got_survived("the signal was sent");
    return got_errno(errno);
}

#if defined(__x86_64__)
static struct got call_as_32_bit(struct hostile *self, const struct attempt *attempt)
{
    long result = 20; /* getpid of i386 */
    (void)self, (void)attempt;
    __asm__ volatile("int $0x80" : "+a"(result) : : "memory", "r8", "r9", "r10", "r11");
    return got_survived("the call was made: %ld", result);
}
#endif

#define FORBIDDEN(title, number, ...) \
    {.name = title, .expect = EXPECT_SIGSYS, .run = call, .call = SYS_##number, \
     .arguments = {__VA_ARGS__}}
#define FORBIDDEN_RUN(title, function) {.name = title, .expect = EXPECT_SIGSYS, .run = function}

static const struct attempt attempts[] = {
    /* a way out by a socket of its own */
    FORBIDDEN("socket AF_UNIX", socket, AF_UNIX, SOCK_STREAM, 0),
    FORBIDDEN("socket AF_INET", socket, AF_INET, SOCK_STREAM, 0),
    FORBIDDEN("socket AF_INET6", socket, AF_INET6, SOCK_STREAM, 0),
    FORBIDDEN("socket AF_INET raw", socket, AF_INET, SOCK_RAW, 1),
    FORBIDDEN("socket AF_NETLINK", socket, AF_NETLINK, SOCK_RAW, 0),
    FORBIDDEN("socket AF_PACKET", socket, AF_PACKET, SOCK_RAW, 0),
    FORBIDDEN("socket AF_ALG", socket, AF_ALG, SOCK_SEQPACKET, 0),
    FORBIDDEN("socket AF_VSOCK", socket, AF_VSOCK, SOCK_STREAM, 0),
    FORBIDDEN("socketpair", socketpair, AF_UNIX, SOCK_STREAM, 0, AT(scratch)),
    FORBIDDEN("connect to an abstract socket", connect, 3, AT(&abstract_address),
              sizeof abstract_address),
    FORBIDDEN("bind an abstract socket", bind, 3, AT(&abstract_address), sizeof abstract_address),
    FORBIDDEN("listen", listen, 3, 1),
    FORBIDDEN("accept4", accept4, 3, 0, 0, 0),
    FORBIDDEN("sendto with an address", sendto, 3, AT(scratch), 1, 0, AT(&abstract_address),
              sizeof abstract_address),
    FORBIDDEN("recvfrom with an address", recvfrom, 3, AT(scratch), 1, MSG_DONTWAIT, AT(scratch),
              AT(scratch)),
    FORBIDDEN("setsockopt SO_PASSCRED", setsockopt, 3, SOL_SOCKET, SO_PASSCRED, AT(scratch), 4),
    FORBIDDEN("getsockopt SO_PEERCRED", getsockopt, 3, SOL_SOCKET, SO_PEERCRED, AT(scratch),
              AT(scratch)),
    FORBIDDEN("getsockname", getsockname, 3, AT(scratch), AT(scratch)),
    FORBIDDEN("pipe2", pipe2, AT(scratch), 0),

    /* other processes */
    FORBIDDEN_RUN("ptrace the neighbour", trace_neighbour),
    FORBIDDEN("ptrace TRACEME", ptrace, PTRACE_TRACEME, 0, 0, 0),
    FORBIDDEN_RUN("process_vm_readv of the neighbour", read_neighbour),
    FORBIDDEN("process_vm_writev", process_vm_writev, 1, 0, 0, 0, 0, 0),
    FORBIDDEN("kill pid 1", kill, 1, 0),
    FORBIDDEN("kill every process", kill, NUMBER(-1), 0),
    FORBIDDEN_RUN("kill the supervisor", kill_supervisor),
    FORBIDDEN("tkill", tkill, 2, 0),
    FORBIDDEN("tgkill another process", tgkill, 2, 2, 0),
    {.name = "tgkill a thread of the kms", .expect = EXPECT_ERRNO, .value = ESRCH,
     .wall = "own pid namespace", .run = signal_thread_of_kms},
    FORBIDDEN("rt_sigqueueinfo", rt_sigqueueinfo, 1, 0, AT(scratch)),
    FORBIDDEN("rt_tgsigqueueinfo", rt_tgsigqueueinfo, 1, 1, 0, AT(scratch)),
    FORBIDDEN_RUN("pidfd_open the neighbour", open_neighbour),
    FORBIDDEN("pidfd_getfd", pidfd_getfd, 3, 0, 0),
    FORBIDDEN("pidfd_send_signal", pidfd_send_signal, 3, 0, 0, 0),
    FORBIDDEN("process_madvise", process_madvise, 3, AT(scratch), 0, 0, 0),
    FORBIDDEN("kcmp", kcmp, 1, 1, 0, 0, 0),
    FORBIDDEN("setpriority", setpriority, 0, 0, NUMBER(-20)),
    FORBIDDEN("sched_setaffinity", sched_setaffinity, 0, 8, AT(scratch)),
    FORBIDDEN("prlimit64", prlimit64, 0, 0, 0, 0),
    FORBIDDEN("set_robust_list", set_robust_list, 0, 0),

    /* new processes and programs */
    FORBIDDEN("clone", clone, SIGCHLD, 0, 0, 0, 0),
    FORBIDDEN("clone a user namespace", clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0),
    FORBIDDEN("clone3", clone3, 0, 0),
#if defined(SYS_fork)
    FORBIDDEN("fork", fork, 0),
    FORBIDDEN("vfork", vfork, 0),
#endif
    FORBIDDEN("execve", execve, AT(text_root), AT(no_words), AT(no_words)),
    FORBIDDEN("execveat", execveat, 3, AT(text_empty), AT(no_words), AT(no_words), AT_EMPTY_PATH),
    FORBIDDEN("memfd_create, to execute it", memfd_create, AT(text_name), 0),
    FORBIDDEN("mmap PROT_EXEC", mmap, 0, 4096, PROT_READ | PROT_EXEC,
              MAP_PRIVATE | MAP_ANONYMOUS, NUMBER(-1), 0),
    FORBIDDEN("mmap PROT_WRITE and PROT_EXEC", mmap, 0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
              MAP_PRIVATE | MAP_ANONYMOUS, NUMBER(-1), 0),
    FORBIDDEN("mprotect PROT_EXEC", mprotect, AT(scratch), sizeof scratch, PROT_READ | PROT_EXEC),
    FORBIDDEN("pkey_mprotect PROT_EXEC", pkey_mprotect, AT(scratch), sizeof scratch,
              PROT_READ | PROT_EXEC, NUMBER(-1)),
    FORBIDDEN("shmat SHM_EXEC", shmat, 0, 0, 0100000),
    FORBIDDEN("remap_file_pages", remap_file_pages, AT(scratch), 4096, 0, 0, 0),
    FORBIDDEN("mremap to a fixed place", mremap, AT(scratch), 4096, 4096,
              MREMAP_MAYMOVE | MREMAP_FIXED, AT(scratch)),
    FORBIDDEN("userfaultfd", userfaultfd, 0),
    FORBIDDEN("uselib by personality READ_IMPLIES_EXEC", personality, READ_IMPLIES_EXEC),

    /* the jail itself */
    FORBIDDEN("unshare the user namespace", unshare, CLONE_NEWUSER),
    FORBIDDEN("unshare the mount namespace", unshare, CLONE_NEWNS),
    FORBIDDEN("setns", setns, 3, 0),
    FORBIDDEN("mount proc", mount, AT(text_proc), AT(text_root), AT(text_proc), 0, 0),
    FORBIDDEN("mount, to make it writable", mount, 0, AT(text_root), 0, 32 /* MS_REMOUNT */, 0),
    FORBIDDEN("umount2", umount2, AT(text_root), 2),
    FORBIDDEN("move_mount", move_mount, NUMBER(AT_FDCWD), AT(text_root), NUMBER(AT_FDCWD),
              AT(text_root), 0),
    FORBIDDEN("open_tree", open_tree, NUMBER(AT_FDCWD), AT(text_root), 1),
    FORBIDDEN("fsopen", fsopen, AT(text_tmpfs), 0),
    FORBIDDEN("mount_setattr", mount_setattr, NUMBER(AT_FDCWD), AT(text_root), 0, AT(scratch), 32),
    FORBIDDEN("pivot_root", pivot_root, AT(text_root), AT(text_root)),
    FORBIDDEN("chroot", chroot, AT(text_root)),
    FORBIDDEN("chdir", chdir, AT(text_root)),
    FORBIDDEN("fchdir", fchdir, 4),
    FORBIDDEN("setuid 0", setuid, 0),
    FORBIDDEN("setresuid 0", setresuid, 0, 0, 0),
    FORBIDDEN("setgid 0", setgid, 0),
    FORBIDDEN("setgroups", setgroups, 0, 0),
    FORBIDDEN("setfsuid 0", setfsuid, 0),
    FORBIDDEN("capset", capset, AT(scratch), AT(scratch)),
    FORBIDDEN("prctl PR_SET_DUMPABLE", prctl, PR_SET_DUMPABLE, 1, 0, 0, 0),
    FORBIDDEN("prctl PR_SET_NO_NEW_PRIVS 0", prctl, PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0),
    FORBIDDEN("prctl PR_SET_SECCOMP", prctl, PR_SET_SECCOMP, 0, 0, 0, 0),
    FORBIDDEN("prctl PR_SET_PDEATHSIG 0, to outlive the supervisor", prctl, PR_SET_PDEATHSIG, 0, 0,
              0, 0),
    FORBIDDEN("prctl PR_CAP_AMBIENT", prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, 0, 0, 0),
    FORBIDDEN("seccomp, a filter of its own", seccomp, 1, 0, AT(scratch)),
    FORBIDDEN("landlock_create_ruleset", landlock_create_ruleset, AT(scratch), 8, 0),
    FORBIDDEN("landlock_restrict_self", landlock_restrict_self, 3, 0),

    /* the kernel's wider surface */
    FORBIDDEN("bpf", bpf, 0, AT(scratch), 64),
    FORBIDDEN("io_uring_setup", io_uring_setup, 1, AT(scratch)),
    FORBIDDEN("io_uring_enter", io_uring_enter, 3, 0, 0, 0, 0, 0),
    FORBIDDEN("keyctl", keyctl, 0, NUMBER(-3), 1),
    FORBIDDEN("add_key", add_key, AT(text_type), AT(text_name), AT(scratch), 1, NUMBER(-3)),
    FORBIDDEN("request_key", request_key, AT(text_type), AT(text_name), 0, NUMBER(-3)),
    FORBIDDEN("perf_event_open", perf_event_open, AT(scratch), 0, NUMBER(-1), NUMBER(-1), 0),
    FORBIDDEN("reboot", reboot, 0xfee1dead, 672274793, 0, 0),
    FORBIDDEN("swapon", swapon, AT(text_image), 0),
    FORBIDDEN("init_module", init_module, AT(scratch), 0, AT(text_empty)),
    FORBIDDEN("finit_module", finit_module, 3, AT(text_empty), 0),
    FORBIDDEN("delete_module", delete_module, AT(text_name), 0),
    FORBIDDEN("kexec_load", kexec_load, 0, 0, 0, 0),
    FORBIDDEN("quotactl", quotactl, 0, 0, 0, 0),
    FORBIDDEN("acct", acct, AT(text_image)),
    FORBIDDEN("syslog, the kernel's log", syslog, 10, 0, 0),
    FORBIDDEN("settimeofday", settimeofday, 0, 0),
    FORBIDDEN("clock_settime", clock_settime, 0, AT(scratch)),
    FORBIDDEN("adjtimex", adjtimex, AT(scratch)),
    FORBIDDEN("sethostname", sethostname, AT(text_name), 5),
    FORBIDDEN("vhangup", vhangup, 0),
    FORBIDDEN("lookup_dcookie", lookup_dcookie, 0, AT(scratch), 1),
    FORBIDDEN("fanotify_init", fanotify_init, 0, 0),
    FORBIDDEN("inotify_init1", inotify_init1, 0),
    FORBIDDEN("signalfd4", signalfd4, NUMBER(-1), AT(scratch), 8, 0),
    FORBIDDEN("timer_create", timer_create, 0, 0, AT(scratch)),
    FORBIDDEN("migrate_pages", migrate_pages, 0, 0, 0, 0),
    FORBIDDEN("vmsplice", vmsplice, 3, 0, 0, 0),
    FORBIDDEN("splice", splice, 0, 0, 1, 0, 1, 0),
    FORBIDDEN("uname", uname, AT(scratch)),
#if defined(__x86_64__)
    FORBIDDEN("iopl", iopl, 3),
    FORBIDDEN("ioperm", ioperm, 0, 1, 1),
    FORBIDDEN("modify_ldt", modify_ldt, 1, AT(scratch), 16),
    FORBIDDEN("arch_prctl", arch_prctl, 0x1002, AT(scratch)),
    FORBIDDEN("mknod", mknod, AT(text_name), S_IFCHR | 0600, 1 << 8 | 1),
    FORBIDDEN("open, the call of old", open, AT(text_root), 0),
    {.name = "a call by the x32 numbers", .expect = EXPECT_SIGSYS, .run = call,
     .call = 0x40000000 | SYS_getpid},
    {.name = "a call by the 32-bit gate", .expect = EXPECT_NO_32_BIT, .run = call_as_32_bit},
#endif

    /* descriptors */
    FORBIDDEN("ioctl TIOCSTI on the log", ioctl, 2, TIOCSTI, AT(scratch)),
    FORBIDDEN("ioctl FS_IOC_SETFLAGS", ioctl, 4, FS_IOC_SETFLAGS, AT(scratch)),
    FORBIDDEN("dup3 over the supervisor's channel", dup3, 0, 3, 0),
    FORBIDDEN("fcntl F_DUPFD, to leave it open over an exec", fcntl, 0, F_DUPFD, 0),
    FORBIDDEN("fcntl F_SETOWN", fcntl, 3, F_SETOWN, 1),
    FORBIDDEN("fcntl F_NOTIFY", fcntl, 4, F_NOTIFY, 1),
    FORBIDDEN("fcntl F_SETSIG", fcntl, 3, F_SETSIG, 9),
    FORBIDDEN("fcntl F_SETLEASE", fcntl, 4, F_SETLEASE, 0),
    FORBIDDEN("fcntl F_SETPIPE_SZ", fcntl, 2, F_SETPIPE_SZ, 1 << 20),
    FORBIDDEN("fcntl F_ADD_SEALS", fcntl, 2, F_ADD_SEALS, 1),
    FORBIDDEN("flock, shared", flock, 4, LOCK_SH),
    FORBIDDEN("fallocate COLLAPSE_RANGE", fallocate, 4, FALLOC_FL_COLLAPSE_RANGE, 0, 4096),

    /* shared memory and queues of System V and POSIX */
    FORBIDDEN("shmget", shmget, IPC_PRIVATE, 4096, IPC_CREAT | 0600),
    FORBIDDEN("msgget", msgget, IPC_PRIVATE, IPC_CREAT | 0600),
    FORBIDDEN("semget", semget, IPC_PRIVATE, 1, IPC_CREAT | 0600),
    FORBIDDEN("mq_open", mq_open, AT(text_name), O_CREAT | O_RDWR, 0600, 0),

    /* the file system, by other calls than those that Landlock bounds */
    FORBIDDEN("open_by_handle_at", open_by_handle_at, NUMBER(AT_FDCWD), AT(scratch), O_RDONLY),
    FORBIDDEN("name_to_handle_at", name_to_handle_at, NUMBER(AT_FDCWD), AT(text_root), AT(scratch),
              AT(scratch), 0),
    FORBIDDEN("mknodat a disk", mknodat, 4, AT(text_name), S_IFBLK | 0600, 8 << 8),
    FORBIDDEN("mknodat a memory device", mknodat, 4, AT(text_name), S_IFCHR | 0600, 1 << 8 | 1),
    FORBIDDEN("mknodat a FIFO", mknodat, 4, AT(text_name), S_IFIFO | 0600, 0),
    FORBIDDEN("symlinkat", symlinkat, AT(text_root), 4, AT(text_name)),
    FORBIDDEN("linkat", linkat, 4, AT(text_name), 4, AT(text_image), 0),
    FORBIDDEN("fchmodat, to set the setuid bit", fchmodat, 4, AT(text_name), 06777),
    FORBIDDEN("fchmod of the silo", fchmod, 4, 0777),
    FORBIDDEN("fchownat", fchownat, 4, AT(text_name), 0, 0, 0),
    FORBIDDEN("setxattr security.capability", setxattr, AT(text_root), AT(text_name), AT(scratch),
              1, 0),
    FORBIDDEN("truncate by path", truncate, AT(text_root), 0),
    FORBIDDEN("utimensat", utimensat, 4, AT(text_name), 0, 0),
    FORBIDDEN("statfs", statfs, AT(text_root), AT(scratch)),
    FORBIDDEN("sync, of every file system", sync, 0),
    FORBIDDEN("copy_file_range", copy_file_range, 0, 0, 1, 0, 1, 0),
    FORBIDDEN("sendfile", sendfile, 1, 0, 0, 1),
};

const struct battery battery_system_calls =
    BATTERY("system calls", "the seccomp list of cells", attempts);
