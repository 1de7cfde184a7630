#define _GNU_SOURCE
#include "inmate.h"
#include "inmate_vmm.h"

#include "base/cursor.h"
#include "base/loop.h"
#include "base/secret.h"
#include "wire/ipc.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int given[IPC_FDS_MAX];
static uint8_t storage[IPC_PACKET_MAX];

static int result_of(long value)
{
    return value < 0 ? errno : 0;
}

static int try_memory(void)
{
    size_t size = 1 << 20;
    void *pages = mmap(NULL, size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return pages == MAP_FAILED ? errno : result_of(mprotect(pages, size, PROT_READ | PROT_WRITE));
}

static int try_secret(void)
{
    uint8_t *secret = secret_alloc(32);
    if (!secret)
        return ENOMEM;
    secret[0] = 1;
    secret_free(secret, 32);
    return 0;
}

static int try_clock(void)
{
    return clock_nanosleep(CLOCK_MONOTONIC, 0, &(struct timespec){.tv_nsec = 1}, NULL);
}

static int try_random(void)
{
    uint8_t bytes[16];
    return result_of(syscall(SYS_getrandom, bytes, sizeof bytes, 0));
}

static int by_value(const void *left, const void *right)
{
    return *(const int *)left - *(const int *)right;
}

static int try_sort(void) /* large enough for qsort to ask for memory */
{
    int *values = calloc(100000, sizeof *values);
    if (!values)
        return ENOMEM;
    for (int i = 0; i < 100000; i++)
        values[i] = (i * 7919) % 100000;
    qsort(values, 100000, sizeof *values, by_value);
    int result = values[500] == 500 ? 0 : EINVAL;
    free(values);
    return result;
}

static int try_grow(void)
{
    uint8_t *block = malloc(1 << 20);
    uint8_t *larger = block ? realloc(block, 1 << 24) : NULL;
    if (!larger)
        return ENOMEM;
    larger[(1 << 24) - 1] = 1;
    free(larger);
    return 0;
}

static int try_loop(void)
{
    struct fault fault;
    struct loop *loop;
    if (loop_create(&loop, &fault) != OK || loop_turn(loop, 0, &fault) != OK)
        return EIO;
    loop_free(loop);
    return 0;
}

static int try_file(void)
{
    int folder = openat(given[0], "folder", O_RDONLY | O_DIRECTORY);
    if (folder < 0 && !mkdirat(given[0], "folder", 0700))
        folder = openat(given[0], "folder", O_RDONLY | O_DIRECTORY);
    int file = openat(given[0], "draft", O_RDWR | O_CREAT | O_EXCL, 0600);
    struct stat info;
    bool good = folder >= 0 && file >= 0 && !flock(file, LOCK_EX | LOCK_NB)
             && pwrite(file, "bytes", 5, 0) == 5 && !fdatasync(file)
             && !ftruncate(file, 3) && !fstat(file, &info) && info.st_size == 3
             && info.st_uid == JAIL_ID && !renameat(given[0], "draft", folder, "kept")
             && !fsync(folder) && !unlinkat(folder, "kept", 0)
             && !unlinkat(given[0], "folder", AT_REMOVEDIR);
    int result = good ? 0 : errno ? errno : EIO;
    close(file);
    close(folder);
    return result;
}

/* ".." of a detached mount's root is that root: the file beside the directory must not be found,
 * the one inside must. */
static int try_climb(void)
{
    int file = openat(given[0], "../outside", O_RDONLY);
    if (file < 0 && errno == ENOENT)
        file = openat(given[0], "../../..", O_PATH | O_DIRECTORY);
    struct stat above, here;
    if (file < 0 || fstat(file, &above) || fstat(given[0], &here))
        return errno;
    return above.st_ino == here.st_ino && above.st_dev == here.st_dev ? ENOENT : 0;
}

static int try_openat(int directory, const char *path, int flags)
{
    return result_of(openat(directory, path, flags | O_CLOEXEC, 0600));
}

static int try_node(void) /* the legacy mknodat is not in any list */
{
    return result_of(syscall(SYS_mknodat, given[0], "null", S_IFCHR | 0600, 0x103));
}

static int try_accept(void)
{
    return result_of(accept4(given[0], NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK));
}

static int try_sockopt(int level, int option)
{
    int one = 1;
    return result_of(setsockopt(given[0], level, option, &one, sizeof one));
}

static int try_named_send(void)
{
    struct sockaddr_in peer = {.sin_family = AF_INET, .sin_port = 9};
    return result_of(sendto(JAIL_FD_SUPERVISOR, "x", 1, MSG_DONTWAIT, (void *)&peer, sizeof peer));
}

static int try_executable(bool change)
{
    void *pages = mmap(NULL, 4096, change ? PROT_READ : PROT_READ | PROT_EXEC,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return pages == MAP_FAILED ? errno : result_of(mprotect(pages, 4096, PROT_READ | PROT_EXEC));
}

static int try_shared(void)
{
    void *pages = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return pages == MAP_FAILED ? errno : 0;
}

static int try_old_abi(void) /* getpid of the 32-bit table is 20; of ours, writev */
{
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(20L) : "memory", "r8", "r9", "r10", "r11");
    return result > 0 ? 0 : (int)-result;
}

static int attempt_allowed(enum inmate_attempt attempt)
{
    switch (attempt) {
    case TRY_MEMORY: return try_memory();
    case TRY_SECRET: return try_secret();
    case TRY_MESSAGE: return 0; /* it got here and its answer gets there */
    case TRY_CLOCK: return try_clock();
    case TRY_RANDOM: return try_random();
    case TRY_SORT: return try_sort();
    case TRY_GROW: return try_grow();
    case TRY_LOOP: return try_loop();
    case TRY_ABORT: abort();
    case TRY_FILE: return try_file();
    case TRY_CLIMB: return try_climb();
    case TRY_SYMLINK: return try_openat(given[0], "link", O_RDONLY);
    case TRY_ABSOLUTE: return try_openat(AT_FDCWD, "/", O_RDONLY | O_DIRECTORY);
    case TRY_WRITE_SECOND: return try_openat(given[1], "new", O_WRONLY | O_CREAT);
    case TRY_READ_SECOND: return try_openat(given[1], "readable", O_RDONLY);
    case TRY_ACCEPT: return try_accept();
    case TRY_NODELAY: return try_sockopt(IPPROTO_TCP, TCP_NODELAY);
    case TRY_MEMFD: return result_of(memfd_create("answer", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    default: return ENOSYS;
    }
}

static int attempt_forbidden(enum inmate_attempt attempt)
{
    switch (attempt) {
    case TRY_MAKE_DEVICE_NODE: return try_node();
    case TRY_SOCKET: return result_of(socket(AF_INET, SOCK_STREAM, 0));
    case TRY_SOCKETPAIR: return result_of(socketpair(AF_UNIX, SOCK_STREAM, 0, (int[2]){0}));
    case TRY_FORK: return result_of(syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0));
    case TRY_EXEC: return result_of(syscall(SYS_execveat, given[0], "file", NULL, NULL, 0));
    case TRY_EXECUTABLE_MAP: return try_executable(false);
    case TRY_MAKE_EXECUTABLE: return try_executable(true);
    case TRY_SHARED_MAP: return try_shared();
    case TRY_PTRACE: return result_of(ptrace(PTRACE_TRACEME, 0, 0, 0));
    case TRY_MOUNT: return result_of(mount("none", "/", "tmpfs", 0, NULL));
    case TRY_UNSHARE: return result_of(unshare(CLONE_NEWUSER));
    case TRY_SETUID: return result_of(syscall(SYS_setresuid, 0, 0, 0));
    case TRY_PRCTL: return result_of(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0));
    case TRY_IOCTL: return result_of(ioctl(JAIL_FD_SUPERVISOR, FIONREAD, &(int){0}));
    case TRY_BPF: return result_of(syscall(SYS_bpf, BPF_PROG_LOAD, NULL, 0));
    case TRY_KEYCTL: return result_of(syscall(SYS_keyctl, 0, 0, 0));
    case TRY_HANDLE: return result_of(syscall(SYS_open_by_handle_at, given[0], NULL, 0));
    case TRY_PIDFD: return result_of(syscall(SYS_pidfd_open, 1, 0));
    case TRY_KILL: return result_of(kill(1, 0));
    case TRY_SIGNAL_OTHER: return result_of(syscall(SYS_tgkill, 2, 2, SIGTERM));
    case TRY_URING: return result_of(syscall(SYS_io_uring_setup, 1, NULL));
    case TRY_USERFAULTFD: return result_of(syscall(SYS_userfaultfd, 0));
    case TRY_CHROOT: return result_of(chroot("/"));
    case TRY_SECCOMP: return result_of(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, NULL));
    case TRY_NAMED_SEND: return try_named_send();
    case TRY_ODD_SOCKOPT: return try_sockopt(SOL_SOCKET, SO_BROADCAST);
    case TRY_OLD_ABI: return try_old_abi();
    case TRY_PERSONALITY: return result_of(personality(READ_IMPLIES_EXEC));
    case TRY_VM_READ: return result_of(process_vm_readv(1, NULL, 0, NULL, 0, 0));
    default: return ENOSYS;
    }
}

/* The gateway and the monitor may not even look for files by name: their lists say so. */
static uint32_t look_for_files(void)
{
    struct stat info;
    uint32_t found = 0;
    if (fstatat(AT_FDCWD, "/usr", &info, 0) == 0 || fstatat(AT_FDCWD, "/tmp", &info, 0) == 0)
        found |= FOUND_FILES;
    if (fstatat(AT_FDCWD, "/proc", &info, 0) == 0)
        found |= FOUND_PROC;
    if (openat(AT_FDCWD, "/new", O_WRONLY | O_CREAT, 0600) >= 0)
        found |= FOUND_WRITABLE_ROOT;
    return found;
}

static uint32_t look_around(enum jail_role role, char **environment)
{
    struct stat info;
    uint32_t found = environment[0] ? FOUND_ENVIRONMENT : 0;
    for (int fd = 0; fd < 1024; fd++)
        if ((fstat(fd, &info) == 0) != (fd <= JAIL_FD_SUPERVISOR))
            found |= FOUND_DESCRIPTORS;
    if (getpid() != 1)
        found |= FOUND_OTHER_PID;
    return role == JAIL_GATEWAY || role == JAIL_VMM ? found : found | look_for_files();
}

static void tell(enum inmate_message type, uint32_t value)
{
    struct fault fault;
    uint8_t bytes[4];
    struct buffer body = buffer_over(bytes, sizeof bytes);
    buffer_put_u32(&body, value);
    if (ipc_send_wait(JAIL_FD_SUPERVISOR, type, 0, buffer_span(&body), NULL, 0, 1000, &fault) != OK)
        _exit(5);
}

static _Noreturn void confess(const struct fault *fault)
{
    struct fault ignored;
    if (ipc_send(JAIL_FD_SUPERVISOR, INMATE_FAULT, 0, span_of_text(fault->detail), NULL, 0,
                 &ignored) != OK)
        _exit(6);
    _exit(7);
}

static uint32_t await(enum inmate_message *ret_type, enum inmate_message expected)
{
    struct ipc_message message;
    struct fault fault;
    uint8_t value = 0;
    status code = ipc_await(&message, JAIL_FD_SUPERVISOR, storage, -1, &fault);
    if (code == CLOSED)
        _exit(0);
    bool thread = expected == INMATE_ATTEMPT && message.type == INMATE_THREAD;
    if (code != OK || (message.type != expected && !thread))
        _exit(8);
    struct cursor body = cursor_over(message.body);
    if (cursor_u8(&value, &body, &fault) != OK)
        _exit(9);
    for (uint32_t i = 0; i < message.fd_count; i++)
        given[i] = message.fds[i];
    *ret_type = (enum inmate_message)message.type;
    return value;
}

static uint32_t close_jail(enum jail_role role, enum inmate_closing how)
{
    struct jail_directory directories[2] = {{given[0], JAIL_READ | JAIL_WRITE},
                                            {given[1], JAIL_READ}};
    struct jail_proof proof = {0};
    struct fault fault;
    if (how == CLOSE_BY_ID_ONLY)
        return (uint32_t)result_of(syscall(SYS_setresgid, JAIL_ID, JAIL_ID, JAIL_ID)
                                   | syscall(SYS_setresuid, JAIL_ID, JAIL_ID, JAIL_ID));
    if (how == CLOSE_NOT)
        return 0;
    if (role == JAIL_VMM) {
        if (inmate_vmm_close(&proof.landlock_abi, how, given[0], &fault) != OK)
            confess(&fault);
        return proof.landlock_abi;
    }
    if (jail_close(&proof, role, directories, role == JAIL_GATEWAY ? 0 : 2, &fault) != OK)
        confess(&fault);
    return proof.landlock_abi;
}

int inmate_attempt(enum inmate_attempt attempt)
{
    int result = attempt_allowed(attempt);
    if (result == ENOSYS)
        result = inmate_vmm_attempt(attempt);
    return result == ENOSYS ? attempt_forbidden(attempt) : result;
}

int inmate_main(const char *name)
{
    struct fault fault;
    enum inmate_message type;
    enum jail_role role = JAIL_KMS;
    while (role < JAIL_ROLES && strcmp(name, jail_role_name(role)) != 0)
        role++;
    if (jail_blank(role, &fault) != OK)
        confess(&fault);
    tell(INMATE_BLANK, look_around(role, environ));
    tell(INMATE_CLOSED, close_jail(role, (enum inmate_closing)await(&type, INMATE_CLOSE)));
    for (;;) {
        enum inmate_attempt attempt = (enum inmate_attempt)await(&type, INMATE_ATTEMPT);
        bool by_vcpu = type == INMATE_THREAD;
        tell(INMATE_RESULT, (uint32_t)(by_vcpu ? inmate_vmm_attempt_by_vcpu(attempt)
                                               : inmate_attempt(attempt)));
    }
}
