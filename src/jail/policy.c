#define _GNU_SOURCE
#include "jail/policy.h"

#include "base/cleanup.h"
#include "base/sanitized.h"
#include "jail/filters.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/kvm.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <seccomp.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>

static_assert((int)FILTER_STAGES == (int)JAIL_STAGES, "one program a stage");

enum { COMPARISONS_MAX = 3 };

enum who { /* whose rows */
    KMS = 1 << JAIL_KMS,
    CONTROL = 1 << JAIL_CONTROL,
    GATEWAY = 1 << JAIL_GATEWAY,
    CELL = 1 << JAIL_CELL,
    VMM = 1 << JAIL_VMM,
    FILES = KMS | CONTROL | CELL, /* they keep files */
    ALL = FILES | GATEWAY,        /* of one thread */
};

enum when { /* in which stages */
    BLANK = 1 << JAIL_STAGE_BLANK,
    FINAL = 1 << JAIL_STAGE_FINAL,
    VCPU = 1 << JAIL_STAGE_VCPU,
    ALWAYS = BLANK | FINAL,
};

struct comparison {
    const char *text;
    uint32_t argument;
    uint64_t mask, value; /* (argument & mask) == value */
};

struct row {
    int number, error; /* error 0: allowed */
    const char *call;
    struct comparison comparisons[COMPARISONS_MAX];
};

struct section {
    uint32_t who, when;
    const struct row *rows;
    size_t count;
};

#define CALL(name, ...) {SCMP_SYS(name), 0, #name, {__VA_ARGS__}}
#define REFUSED(name, error) {SCMP_SYS(name), error, #name " fails with " #error, {{0}}}
#define IS(n, constant) {"arg" #n " == " #constant, n, UINT64_MAX, (uint64_t)(constant)}
#define NONE_OF(n, bits) {"arg" #n " has no " #bits, n, (uint64_t)(bits), 0}
#define ONLY(n, bits) {"arg" #n " only " #bits, n, ~(uint64_t)(bits), 0}
/* the kernel reads 32 bits of it */
#define IOCTL(request) CALL(ioctl, {"arg1 == " #request, 1, UINT32_MAX, (uint64_t)(request)})
#define ROWS(array) (array), sizeof(array) / sizeof *(array)

static const struct row bytes_and_memory[] = {
    CALL(read), CALL(write), CALL(readv), CALL(writev), CALL(close), CALL(lseek),
    CALL(pread64), CALL(pwrite64), CALL(ftruncate),
    CALL(newfstatat, IS(3, AT_EMPTY_PATH)), /* glibc's fstat */
    CALL(fcntl, IS(1, F_GETFD)), CALL(fcntl, IS(1, F_SETFD)),
    CALL(fcntl, IS(1, F_GETFL)), CALL(fcntl, IS(1, F_SETFL)),
    CALL(fcntl, IS(1, F_DUPFD_CLOEXEC)),
    CALL(brk), CALL(munmap), CALL(madvise), CALL(mlock), CALL(munlock),
    /* never shared and anonymous at once: such memory is of no process, no rlimit counts it */
    CALL(mmap, NONE_OF(2, PROT_EXEC), NONE_OF(3, MAP_SHARED)),
    CALL(mmap, NONE_OF(2, PROT_EXEC), NONE_OF(3, MAP_ANONYMOUS)),
    CALL(mprotect, NONE_OF(2, PROT_EXEC)),
    CALL(mremap, IS(3, MREMAP_MAYMOVE)), /* glibc's realloc of large blocks */
    CALL(memfd_secret, ONLY(0, O_CLOEXEC)),
    CALL(getrandom),
    CALL(sysinfo), /* glibc's qsort sizes its scratch memory by it */
};

static const struct row events_and_messages[] = {
    CALL(epoll_create1), CALL(epoll_ctl), CALL(epoll_wait), CALL(epoll_pwait), CALL(epoll_pwait2),
    CALL(poll), CALL(ppoll),
    CALL(sendmsg), CALL(recvmsg), CALL(sendmmsg), CALL(recvmmsg),
    CALL(sendto, IS(4, 0)), /* connected sockets only: glibc's send */
    CALL(recvfrom, IS(4, 0)),
    CALL(shutdown),
};

static const struct row process[] = {
    CALL(clock_gettime), CALL(clock_nanosleep), CALL(gettimeofday), CALL(sched_yield), CALL(futex),
    CALL(getpid), CALL(gettid),
    CALL(tgkill, IS(0, 1)), /* abort: a jailed process is pid 1 of its namespace */
    CALL(rt_sigaction), CALL(rt_sigprocmask), CALL(rt_sigreturn), CALL(restart_syscall),
    CALL(exit), CALL(exit_group),
};

static const struct row files[] = { /* what they can name is up to Landlock and the empty root */
    CALL(openat), CALL(openat2), CALL(newfstatat), CALL(statx), CALL(faccessat), CALL(faccessat2),
    CALL(unlinkat), CALL(renameat), CALL(renameat2), CALL(mkdirat), CALL(getdents64),
    CALL(preadv), CALL(pwritev), CALL(fsync), CALL(fdatasync),
    CALL(fallocate, ONLY(1, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE)),
    CALL(flock, ONLY(1, LOCK_EX | LOCK_NB)),
    CALL(fcntl, IS(1, F_GETLK)), CALL(fcntl, IS(1, F_SETLK)),
    CALL(fcntl, IS(1, F_OFD_GETLK)), CALL(fcntl, IS(1, F_OFD_SETLK)),
};

static const struct row large_files[] = { /* hints, and waits for the disk */
    CALL(sync_file_range, IS(3, SYNC_FILE_RANGE_WAIT_BEFORE)),
    CALL(sync_file_range, IS(3, SYNC_FILE_RANGE_WRITE)),
    CALL(fadvise64, IS(3, POSIX_FADV_SEQUENTIAL)),
};

static const struct row own_use[] = { /* what a tenant is shown of itself */
    CALL(getrusage, IS(0, RUSAGE_SELF)),
};

static const struct row results[] = { /* answers too long for a message go out as a memfd */
    CALL(memfd_create, ONLY(1, MFD_CLOEXEC | MFD_ALLOW_SEALING)),
    CALL(fcntl, IS(1, F_ADD_SEALS)),
};

static const struct row connections[] = {
    CALL(accept4, ONLY(3, SOCK_CLOEXEC | SOCK_NONBLOCK)),
    CALL(getsockname), CALL(getpeername),
    CALL(setsockopt, IS(1, IPPROTO_TCP), IS(2, TCP_NODELAY)),
    CALL(setsockopt, IS(1, IPPROTO_TCP), IS(2, TCP_USER_TIMEOUT)),
    CALL(setsockopt, IS(1, IPPROTO_TCP), IS(2, TCP_NOTSENT_LOWAT)),
    CALL(setsockopt, IS(1, SOL_SOCKET), IS(2, SO_LINGER)),
    CALL(setsockopt, IS(1, SOL_SOCKET), IS(2, SO_KEEPALIVE)),
    CALL(setsockopt, IS(1, SOL_SOCKET), IS(2, SO_SNDBUF)),
    CALL(setsockopt, IS(1, SOL_SOCKET), IS(2, SO_RCVBUF)),
    CALL(getsockopt, IS(1, SOL_SOCKET), IS(2, SO_ERROR)),
};

static const struct row closing[] = { /* what jail_close does, up to the final filter */
    CALL(setresgid), CALL(setresuid), CALL(capset),
    CALL(prctl, IS(0, PR_SET_DUMPABLE), IS(1, 0)),
    CALL(prctl, IS(0, PR_SET_PDEATHSIG), IS(1, SIGKILL)),
    CALL(openat), /* the canary */
    CALL(landlock_create_ruleset), CALL(landlock_add_rule), CALL(landlock_restrict_self),
    CALL(seccomp, IS(0, SECCOMP_SET_MODE_FILTER)),
};

/* What a monitor does before the guest's first instruction, never after. */
static const struct row machine_made[] = {
    IOCTL(KVM_GET_API_VERSION), IOCTL(KVM_CHECK_EXTENSION), IOCTL(KVM_GET_VCPU_MMAP_SIZE),
    IOCTL(KVM_GET_SUPPORTED_CPUID), IOCTL(KVM_CREATE_VM),
    IOCTL(KVM_ENABLE_CAP), /* the split interrupt controller */
    IOCTL(KVM_SET_USER_MEMORY_REGION), IOCTL(KVM_IOEVENTFD), IOCTL(KVM_CREATE_VCPU),
    IOCTL(KVM_SET_CPUID2), IOCTL(KVM_SET_MSRS), IOCTL(KVM_SET_REGS), IOCTL(KVM_GET_SREGS),
    IOCTL(KVM_SET_SREGS),
    CALL(eventfd2, ONLY(1, EFD_CLOEXEC | EFD_NONBLOCK)), CALL(epoll_create1),
    CALL(pread64), CALL(ftruncate), /* the kernel; the overlay, the console */
    CALL(newfstatat, IS(3, AT_EMPTY_PATH)), /* glibc's fstat */
    CALL(mmap, NONE_OF(2, PROT_EXEC), NONE_OF(3, MAP_SHARED)), /* memory, stacks */
    CALL(mmap, NONE_OF(2, PROT_EXEC), NONE_OF(3, MAP_ANONYMOUS)), /* a vCPU's run */
    CALL(mprotect, NONE_OF(2, PROT_EXEC)),
    CALL(madvise, IS(2, MADV_DONTDUMP)), CALL(madvise, IS(2, MADV_HUGEPAGE)),
    CALL(rt_sigaction, IS(0, SIGUSR1)), /* a vCPU's kick */
};

/* clone3's flags are in memory, where no filter can look: without it libc uses clone. */
static const struct row threads_made[] = {
    CALL(clone, {"arg0 == the flags of pthread_create", 0, UINT64_MAX,
                 CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM
                     | CLONE_SETTLS | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID}),
    REFUSED(clone3, ENOSYS),
    CALL(set_robust_list), CALL(rseq),
    CALL(rt_sigaction, IS(0, __SIGRTMIN + 1)), /* libc's own, when the first is made */
};

static const struct row every_thread[] = {
    CALL(write), /* eventfds */
    CALL(futex), CALL(clock_gettime), CALL(sched_yield),
    CALL(getpid), CALL(gettid), CALL(tgkill, IS(0, 1)), /* abort; a vCPU that is to stop */
    CALL(rt_sigaction, IS(0, SIGABRT)), CALL(rt_sigprocmask), CALL(rt_sigreturn),
    CALL(restart_syscall), CALL(exit), CALL(exit_group),
    CALL(madvise, IS(2, MADV_DONTNEED)), /* a thread's stack when it ends; the balloon */
    IOCTL(KVM_SIGNAL_MSI),
};

static const struct row vcpu[] = {
    IOCTL(KVM_RUN),
};

static const struct row devices[] = {
    CALL(read), CALL(preadv), CALL(pwritev), CALL(close),
    CALL(writev), /* libc's words when it finds its heap or a stack broken */
    CALL(fallocate, IS(1, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE)),
    CALL(sendmsg), CALL(recvmsg), CALL(shutdown),
    CALL(epoll_ctl), CALL(epoll_wait), CALL(poll),
    CALL(getrandom),
};

static const struct row devices_memory[] = { /* malloc's of the main thread, none else */
    CALL(brk), CALL(munmap), CALL(mremap, IS(3, MREMAP_MAYMOVE)),
    CALL(mmap, IS(2, PROT_READ | PROT_WRITE), IS(3, MAP_PRIVATE | MAP_ANONYMOUS)),
};

static const struct section sections[] = {
    {ALL, ALWAYS, ROWS(bytes_and_memory)},
    {ALL, ALWAYS, ROWS(events_and_messages)},
    {ALL, ALWAYS, ROWS(process)},
    {FILES, ALWAYS, ROWS(files)},
    {CELL, ALWAYS, ROWS(large_files)},
    {CELL, ALWAYS, ROWS(own_use)},
    {CONTROL, ALWAYS, ROWS(results)},
    {GATEWAY, ALWAYS, ROWS(connections)},
    {ALL | VMM, BLANK, ROWS(closing)},
    {VMM, BLANK, ROWS(machine_made)},
    {VMM, BLANK, ROWS(threads_made)},
    {VMM, BLANK | FINAL, ROWS(devices)},
    {VMM, BLANK | FINAL, ROWS(devices_memory)},
    {VMM, BLANK | FINAL | VCPU, ROWS(every_thread)},
    {VMM, BLANK | VCPU, ROWS(vcpu)},
};

/* AddressSanitizer asks for the signal stack before every call that does not return, and for the
 * bounds of a new thread's stack, has small pages for its own, and says where its heap is to be. */
static const struct row sanitizer[] = {CALL(sigaltstack, IS(0, 0)), CALL(sched_getaffinity),
                                       CALL(madvise, IS(2, MADV_NOHUGEPAGE)),
                                       CALL(madvise, IS(2, MADV_DONTDUMP)),
                                       CALL(mmap, IS(2, PROT_READ | PROT_WRITE),
                                            ONLY(3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED
                                                        | MAP_NORESERVE))};

static bool applies(const struct section *section, enum jail_role role, enum jail_stage stage)
{
    return section->who & 1u << role && section->when & 1u << stage;
}

static void dump_row(struct buffer *out, const struct row *row)
{
    buffer_put_text(out, row->call);
    for (size_t i = 0; i < COMPARISONS_MAX && row->comparisons[i].text; i++) {
        const struct comparison *comparison = &row->comparisons[i];
        buffer_printf(out, "%s%s (& %#llx == %#llx)", i ? ", " : "  ", comparison->text,
                      (unsigned long long)comparison->mask,
                      (unsigned long long)comparison->value);
    }
    buffer_put_text(out, "\n");
}

void jail_policy_dump(struct buffer *out, enum jail_role role, enum jail_stage stage)
{
    for (size_t i = 0; i < sizeof sections / sizeof *sections; i++)
        if (applies(&sections[i], role, stage))
            for (size_t j = 0; j < sections[i].count; j++)
                dump_row(out, &sections[i].rows[j]);
}

static status add_row(scmp_filter_ctx context, const struct row *row, struct fault *fault)
{
    struct scmp_arg_cmp comparisons[COMPARISONS_MAX];
    unsigned count = 0;
    for (; count < COMPARISONS_MAX && row->comparisons[count].text; count++) {
        const struct comparison *comparison = &row->comparisons[count];
        comparisons[count] = SCMP_CMP(comparison->argument, SCMP_CMP_MASKED_EQ, comparison->mask,
                                      comparison->value);
    }
    uint32_t action = row->error ? SCMP_ACT_ERRNO((uint32_t)row->error) : SCMP_ACT_ALLOW;
    int error = seccomp_rule_add_array(context, action, row->number, count, comparisons);
    if (error && error != -EEXIST)
        return FAIL(INTERNAL, fault, "seccomp: %s: %s", row->call, strerror(-error));
    return OK;
}

static status add_rows(scmp_filter_ctx context, enum jail_role role, enum jail_stage stage,
                       struct fault *fault)
{
    int error = seccomp_attr_set(context, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
    if (!error)
        error = seccomp_attr_set(context, SCMP_FLTATR_CTL_OPTIMIZE, 2); /* a tree, not a list */
    if (error)
        return FAIL(INTERNAL, fault, "seccomp: %s", strerror(-error));
    if (SANITIZED)
        for (size_t i = 0; i < sizeof sanitizer / sizeof *sanitizer; i++)
            TRY(add_row(context, &sanitizer[i], fault));
    for (size_t i = 0; i < sizeof sections / sizeof *sections; i++)
        if (applies(&sections[i], role, stage))
            for (size_t j = 0; j < sections[i].count; j++)
                TRY(add_row(context, &sections[i].rows[j], fault));
    return OK;
}

/* Appends the program to the file and says how many instructions it has. */
static status compile(uint32_t *ret, int file, enum jail_role role, enum jail_stage stage,
                      struct fault *fault)
{
    off_t before = lseek(file, 0, SEEK_END);
    scmp_filter_ctx context = seccomp_init(SCMP_ACT_KILL_PROCESS);
    if (!context)
        return FAIL(INTERNAL, fault, "seccomp: out of memory");
    status code = add_rows(context, role, stage, fault);
    int error = code == OK ? seccomp_export_bpf(context, file) : 0;
    seccomp_release(context);
    TRY(code);
    off_t size = lseek(file, 0, SEEK_END) - before;
    if (error || size <= 0 || size % (off_t)sizeof(struct sock_filter))
        return FAIL(INTERNAL, fault, "seccomp: export: %s", strerror(-error));
    *ret = (uint32_t)(size / (off_t)sizeof(struct sock_filter));
    if (*ret > FILTER_INSTRUCTIONS_MAX)
        return FAIL(TOO_LARGE, fault, "seccomp: %u instructions", *ret);
    return OK;
}

status jail_filters(int *ret, enum jail_role role, struct fault *fault)
{
    _cleanup_close_ int file = memfd_create("seccomp", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    struct filters_head head = {.role = role};
    if (file < 0 || write(file, &head, sizeof head) != sizeof head)
        return FAIL(INTERNAL, fault, "seccomp: memfd: %s", strerror(errno));
    int stages = role == JAIL_RUNNER ? 0 : role == JAIL_VMM ? JAIL_STAGES : JAIL_STAGE_VCPU;
    for (int stage = 0; stage < stages; stage++)
        TRY(compile(&head.instructions[stage], file, role, (enum jail_stage)stage, fault));
    if (pwrite(file, &head, sizeof head, 0) != sizeof head
        || fcntl(file, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE))
        return FAIL(INTERNAL, fault, "seccomp: memfd: %s", strerror(errno));
    *ret = take_fd(&file);
    return OK;
}
