#define _GNU_SOURCE
#include "convict.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <unistd.h>

static int result_of(long value)
{
    return value < 0 ? errno : 0;
}

/* Whatever the host's kernel says to it, it has been asked: that is what may not be. */
static int never_asked(long value)
{
    return value < 0 && (errno == EPERM || errno == ENOSYS) ? errno : 0;
}

static int try_open(const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC);
    return fd < 0 ? errno : (close(fd), 0);
}

static int try_socket(int domain, int type, int protocol)
{
    int fd = socket(domain, type, protocol);
    return fd < 0 ? errno : (close(fd), 0);
}

static int try_dial(void)
{
    struct sockaddr_in host = {.sin_family = AF_INET, .sin_port = htons(22),
                               .sin_addr.s_addr = htonl(0x0a000201)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    return fd < 0 ? errno : result_of(connect(fd, (void *)&host, sizeof host));
}

/* The test listens on this name outside. */
static int try_abstract(void)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX, .sun_path = "\0bulkhead-runner-test"};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    return fd < 0 ? errno : result_of(connect(fd, (void *)&name, sizeof name));
}

static int try_raise_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NPROC, &limit))
        return errno;
    limit.rlim_max = limit.rlim_cur = RLIM_INFINITY;
    return result_of(setrlimit(RLIMIT_NPROC, &limit));
}

static int try_clone3(void)
{
    struct clone_args arguments = {.flags = CLONE_NEWUSER, .exit_signal = SIGCHLD};
    long pid = syscall(SYS_clone3, &arguments, sizeof arguments);
    if (pid == 0)
        _exit(0);
    return result_of(pid);
}

static int try_clone(void)
{
    long pid = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
    if (pid == 0)
        _exit(0);
    return result_of(pid);
}

static int try_unshare(void)
{
    pid_t pid = fork();
    if (pid == 0)
        _exit(unshare(CLONE_NEWUSER) ? errno : 0);
    int code = 0;
    return waitpid(pid, &code, 0) == pid && WIFEXITED(code) ? WEXITSTATUS(code) : EIO;
}

static int try_vm_read(void)
{
    char byte, from;
    struct iovec to = {&byte, 1}, there = {&from, 1};
    return result_of(process_vm_readv(getpid(), &to, 1, &there, 1, 0));
}

static int try_type_keys(void)
{
    int terminal = open("/dev/ptmx", O_RDWR | O_NOCTTY);
    return terminal < 0 ? errno : result_of(ioctl(terminal, TIOCSTI, "x"));
}

/* To the time that it is, lest a hole does harm. */
static int try_clock(void)
{
    struct timeval now;
    return gettimeofday(&now, NULL) ? errno : result_of(settimeofday(&now, NULL));
}

static int try_sysrq(void)
{
    struct stat info;
    int fd = open("/proc/sysrq-trigger", O_WRONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &info))
        return errno;
    return S_ISCHR(info.st_mode) ? EROFS : 0; /* /dev/null lies over it */
}

/* Makes sockets of any family, and with them loads the family's module. */
static int try_pair(void)
{
    int pair[2];
    return never_asked(socketpair(AF_NETLINK, SOCK_RAW, 0, pair));
}

static int try_ulp(void)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    return fd < 0 ? 0 : never_asked(setsockopt(fd, IPPROTO_TCP, TCP_ULP, "tls", 3));
}

static int try_out_of_band(void)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
        return 0;
    char byte = 'x';
    struct iovec part = {&byte, 1};
    const struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    int first = never_asked(send(pair[0], "x", 1, MSG_OOB));
    int second = never_asked(sendmsg(pair[0], &message, MSG_OOB));
    return first && second ? first : 0;
}

/* Memory that stays when nobody has it mapped, so that nobody can count it. */
static int try_shared(int fd, int more)
{
    void *at = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED | more, fd, 0);
    return at == MAP_FAILED ? errno : 0;
}

/* Down to 0, where a handler of the host's would get a core by a pipe. Where this test itself may
 * have no core it is 0 from the first. */
static int try_core_limit(void)
{
    struct rlimit before, core = {0, 0};
    if (getrlimit(RLIMIT_CORE, &before))
        return 0;
    (void)setrlimit(RLIMIT_CORE, &core);
    if (getrlimit(RLIMIT_CORE, &core))
        return 0;
    return core.rlim_cur == before.rlim_cur && core.rlim_max == before.rlim_max
        && before.rlim_max <= 1 ? EPERM : 0;
}

/* Guesses of branches that this process has taught a processor are not for who runs on it next. */
static int try_teach_branches(void)
{
    int control = prctl(PR_GET_SPECULATION_CTRL, PR_SPEC_INDIRECT_BRANCH, 0, 0, 0);
    unsigned long bits = control > 0 ? (unsigned long)control : 0;
    return bits & PR_SPEC_PRCTL && !(bits & PR_SPEC_FORCE_DISABLE) ? 0 : EPERM;
}

/* How the host was booted. */
static int try_boot_line(void)
{
    char byte;
    int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
    return fd < 0 ? errno : read(fd, &byte, 1) == 1 ? 0 : ENODATA;
}

static int escape(enum attempt attempt)
{
    struct file_handle handle = {0};
    switch (attempt) {
    case TRY_MOUNT: return result_of(mount("tmpfs", "/tmp", "tmpfs", 0, NULL));
    case TRY_MOUNT_API: return result_of(syscall(SYS_fsopen, "tmpfs", 0));
    case TRY_PIVOT: return result_of(syscall(SYS_pivot_root, "/", "/tmp"));
    case TRY_HOST_SHADOW: return try_open("/etc/shadow", O_RDONLY);
    case TRY_HOST_ROOT: return try_open("/bundle/config.json", O_RDONLY);
    case TRY_INIT_ROOT: return try_open("/proc/1/root/bundle/config.json", O_RDONLY);
    case TRY_SYSRQ: return try_sysrq();
    case TRY_CORE_PATTERN: return try_open("/proc/sys/kernel/core_pattern", O_WRONLY);
    case TRY_DEVICE: return result_of(mknod("/tmp/memory", S_IFCHR | 0600, 0x101));
    case TRY_RAW_SOCKET: return try_socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
    case TRY_PACKET: return try_socket(AF_PACKET, SOCK_RAW, 0);
    case TRY_MODULE: return result_of(syscall(SYS_init_module, "", 0, ""));
    case TRY_KEXEC: return result_of(syscall(SYS_kexec_load, 0, 0, NULL, 0));
    case TRY_REBOOT: return result_of(reboot((int)RB_ENABLE_CAD));
    case TRY_CLOCK: return try_clock();
    case TRY_SWAP: return result_of(swapoff("/tmp/none"));
    case TRY_HANDLE: return result_of(syscall(SYS_open_by_handle_at, 0, &handle, O_RDONLY));
    case TRY_SETNS: return result_of(syscall(SYS_setns, 0, 0));
    case TRY_DIAL_HOST: return try_dial();
    case TRY_ABSTRACT: return try_abstract();
    case TRY_BPF: return result_of(syscall(SYS_bpf, 0, NULL, 0));
    case TRY_PERF: return result_of(syscall(SYS_perf_event_open, NULL, 0, -1, -1, 0));
    case TRY_OTHER_SIGNAL: return result_of(kill(4000000, 0));
    case TRY_AGENT_WRITE: return try_open("/.bulkhead-agent", O_WRONLY);
    case TRY_RAISE_LIMIT: return try_raise_limit();
    case TRY_HOST_MEMORY: return try_open("/dev/mem", O_RDONLY);
    case TRY_UNSHARE: return try_unshare();
    case TRY_CLONE_NAMESPACE: return try_clone();
    case TRY_PTRACE: return result_of(ptrace(PTRACE_TRACEME, 0, 0, 0));
    case TRY_VM_READ: return try_vm_read();
    case TRY_KEYCTL: return result_of(syscall(SYS_keyctl, 0, -3, 0));
    case TRY_ADD_KEY: return result_of(syscall(SYS_add_key, "user", "k", "v", 1, -3));
    case TRY_USERFAULTFD: return result_of(syscall(SYS_userfaultfd, 1));
    case TRY_URING: return result_of(syscall(SYS_io_uring_setup, 1, NULL));
    case TRY_NETLINK: return try_socket(AF_NETLINK, SOCK_RAW, 0);
    case TRY_VSOCK: return try_socket(AF_VSOCK, SOCK_STREAM, 0);
    case TRY_ALG: return try_socket(AF_ALG, SOCK_SEQPACKET, 0);
    case TRY_TYPE_KEYS: return try_type_keys();
    case TRY_MEMFD: return result_of(memfd_create("m", 0));
    case TRY_CLONE3_NAMESPACE: return try_clone3();
    case TRY_PAIR: return try_pair();
    case TRY_SCTP: return never_asked(socket(AF_INET, SOCK_STREAM, IPPROTO_SCTP));
    case TRY_DCCP: return never_asked(socket(AF_INET6, SOCK_DCCP, 0));
    case TRY_PING: return never_asked(socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP));
    case TRY_ULP: return try_ulp();
    case TRY_OUT_OF_BAND: return try_out_of_band();
    case TRY_SEMAPHORES: return never_asked(semget(IPC_PRIVATE, 1, 0600));
    case TRY_MESSAGES: return never_asked(msgget(IPC_PRIVATE, 0600));
    case TRY_SHARED: return try_shared(-1, MAP_ANONYMOUS);
    case TRY_SHARED_ZERO: return try_shared(open("/dev/zero", O_RDWR), 0);
    case TRY_CORE_LIMIT: return try_core_limit();
    case TRY_TEACH_BRANCHES: return try_teach_branches();
    case TRY_BOOT_LINE: return try_boot_line();
    case TRY_PRESSURE: return try_open("/proc/pressure/memory", O_RDWR);
    default: return ENOSYS;
    }
}

static void *nothing(void *unused)
{
    return unused;
}

static int work_files(void)
{
    char back[4] = "";
    int fd = open("/tmp/file", O_RDWR | O_CREAT | O_TRUNC, 0600);
    bool good = fd >= 0 && write(fd, "abc", 3) == 3 && pread(fd, back, 3, 0) == 3
             && strcmp(back, "abc") == 0 && !mkdir("/tmp/folder", 0700)
             && !rename("/tmp/file", "/tmp/folder/file") && !unlink("/tmp/folder/file")
             && !rmdir("/tmp/folder");
    return good ? 0 : errno ? errno : EIO;
}

static int work_process(void)
{
    pid_t pid = fork();
    if (pid == 0) {
        execl("/bin/sh", "sh", "-c", "exit 7", NULL);
        _exit(1);
    }
    int code = 0;
    return waitpid(pid, &code, 0) == pid && WIFEXITED(code) && WEXITSTATUS(code) == 7 ? 0 : EIO;
}

static int work_terminal(void)
{
    int terminal = open("/dev/ptmx", O_RDWR | O_NOCTTY);
    struct winsize size = {24, 80, 0, 0};
    return terminal < 0 ? errno : result_of(ioctl(terminal, TIOCSWINSZ, &size));
}

static int work_socket(void)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX, .sun_path = "/tmp/socket"};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    int result = fd < 0 ? errno : result_of(bind(fd, (void *)&name, sizeof name));
    unlink("/tmp/socket");
    return result;
}

/* What the refusals beside them must leave alone. */
static int work_sockets(void)
{
    int pair[2], one = 1;
    int tcp = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP);
    int udp = socket(AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    bool good = tcp >= 0 && udp >= 0
             && !setsockopt(tcp, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one)
             && !setsockopt(tcp, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one)
             && !socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair)
             && send(pair[0], "x", 1, MSG_DONTWAIT | MSG_NOSIGNAL) == 1;
    return good ? 0 : errno ? errno : EIO;
}

static int work_zeros(void)
{
    char bytes[64];
    memset(bytes, 1, sizeof bytes);
    int fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, bytes, sizeof bytes) != sizeof bytes)
        return errno ? errno : EIO;
    for (size_t i = 0; i < sizeof bytes; i++)
        if (bytes[i])
            return EIO;
    return 0;
}

static int work_limits(void)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files))
        return errno;
    files.rlim_cur = files.rlim_max / 2;
    return result_of(setrlimit(RLIMIT_NOFILE, &files));
}

static int count_forks(void)
{
    int count = 0;
    for (pid_t pid; count < 100000; count++) {
        pid = fork();
        if (pid == 0)
            for (;;)
                pause();
        if (pid < 0)
            break;
    }
    kill(-1, SIGKILL); /* all but this one, which is pid 1 */
    while (wait(NULL) > 0)
        ;
    return count;
}

static int fill_disk(void)
{
    static char block[1 << 20];
    int fd = open("/tmp/full", O_WRONLY | O_CREAT, 0600), mib = 0;
    memset(block, 1, sizeof block);
    while (mib < 100000 && write(fd, block, sizeof block) == (ssize_t)sizeof block)
        mib++;
    unlink("/tmp/full");
    close(fd);
    return mib;
}

/* Files without a byte: each is some hundred bytes of the host's. */
static int fill_folder(const char *folder)
{
    char path[64];
    int count = 0;
    for (; count < 100000; count++) {
        snprintf(path, sizeof path, "%s/%d", folder, count);
        int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (fd < 0)
            break;
        close(fd);
    }
    for (int i = 0; i < count; i++) {
        snprintf(path, sizeof path, "%s/%d", folder, i);
        unlink(path);
    }
    return count;
}

/* The host has so many for all that run on it. */
static int count_terminals(void)
{
    int count = 0;
    while (count < 3000 && open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC) >= 0)
        count++;
    return count;
}

static int allocate(void)
{
    int mib = 0;
    for (void *at; mib < 100000; mib++) {
        at = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (at == MAP_FAILED)
            break;
    }
    return mib;
}

/* Many processes, each within its own limit. */
static _Noreturn void hog(void)
{
    for (int i = 0; i < 16; i++)
        if (fork() == 0)
            for (;;) {
                char *at = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
                if (at != MAP_FAILED)
                    memset(at, 1, 1 << 20);
            }
    for (;;)
        pause();
}

/* Kept, and at no time mapped by more than a little of it. */
static _Noreturn void hog_shared(void)
{
    const size_t step = (size_t)16 << 20, bytes = (size_t)1 << 30;
    char *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    for (size_t done = 0; at != MAP_FAILED && done < bytes; done += step) {
        memset(at + done, 1, step);
        (void)madvise(at + done, step, MADV_DONTNEED);
    }
    for (;;)
        pause();
}

/* Without a byte in them. */
static _Noreturn void hog_files(void)
{
    char path[32];
    for (int i = 0; i < 250000; i++) {
        snprintf(path, sizeof path, "/tmp/%d", i);
        int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        if (fd >= 0)
            close(fd);
    }
    for (;;)
        pause();
}

/* A page of zeros every 2 MiB is nobody's memory, but each has a page of a table to itself. */
static _Noreturn void hog_page_tables(void)
{
    for (int passes = 0; passes < 8; passes++) { /* 1 GiB of them, lest nobody ends it */
        const volatile char *at = mmap(NULL, (size_t)64 << 30, PROT_READ,
                                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (at == MAP_FAILED)
            for (;;)
                pause();
        (void)madvise((void *)(uintptr_t)at, (size_t)64 << 30, MADV_NOHUGEPAGE);
        for (size_t offset = 0; offset < (size_t)64 << 30; offset += (size_t)2 << 20)
            (void)at[offset];
    }
    for (;;)
        pause();
}

/* What lies in sockets is in no process. */
static _Noreturn void hog_sockets(void)
{
    static char bytes[1 << 16];
    for (int pair[2]; !socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair);)
        for (int end = 0; end < 2; end++)
            while (write(pair[end], bytes, sizeof bytes) > 0)
                ;
    for (;;)
        pause();
}

static int work(enum attempt attempt)
{
    int pipes[2];
    pthread_t thread;
    switch (attempt) {
    case TRY_FILES: return work_files();
    case TRY_PROCESSES: return work_process();
    case TRY_THREADS: return pthread_create(&thread, NULL, nothing, NULL)
                          || pthread_join(thread, NULL);
    case TRY_PIPE: return result_of(pipe(pipes));
    case TRY_TERMINAL: return work_terminal();
    case TRY_LOCAL_SOCKET: return work_socket();
    case TRY_SOCKETS: return work_sockets();
    case TRY_ZEROS: return work_zeros();
    case TRY_LIMITS: return work_limits();
    case TRY_FORKS: return count_forks();
    case TRY_FILL_DISK: return fill_disk();
    case TRY_ALLOCATE: return allocate();
    case TRY_FILL_DEVICES: return fill_folder("/dev");
    case TRY_FILL_SHARED: return fill_folder("/dev/shm");
    case TRY_TERMINALS: return count_terminals();
    case TRY_HOG: hog();
    case TRY_SHARED_HOG: hog_shared();
    case TRY_FILES_HOG: hog_files();
    case TRY_PAGE_TABLES: hog_page_tables();
    case TRY_SOCKET_MEMORY: hog_sockets();
    case TRY_SPIN:
        for (;;)
            ;
    case TRY_LEAVE: exit(0);
    default: return ENOSYS;
    }
}

int main(void)
{
    uint8_t attempt;
    if (write(1, "", 1) != 1)
        return 1;
    while (read(0, &attempt, 1) == 1) {
        int32_t result = attempt < TRY_FILES ? escape((enum attempt)attempt)
                                             : work((enum attempt)attempt);
        if (write(0, &result, sizeof result) != sizeof result)
            return 2;
    }
    return 0;
}
