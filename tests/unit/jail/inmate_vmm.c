#define _GNU_SOURCE
#include "inmate_vmm.h"

#include "base/limits.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/kvm.h>
#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static struct {
    int kvm, machine, vcpu, event;
    void *discarded;
} own;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static enum { IDLE, ORDERED, ANSWERED } state;
static enum inmate_attempt ordered;
static int answer;
static bool entered;
static unsigned sealed;
static pid_t first_vcpu;

static int result_of(long value)
{
    return value < 0 ? errno : 0;
}

static void ignore_signal(int number)
{
    (void)number;
}

/* Where there is no KVM the machine is /dev/null too. */
static status make_machine(int kvm, struct fault *fault)
{
    own.kvm = kvm;
    own.machine = ioctl(kvm, KVM_CREATE_VM, 0);
    own.vcpu = own.machine < 0 ? -1 : ioctl(own.machine, KVM_CREATE_VCPU, 0);
    if (own.machine < 0)
        own.machine = own.vcpu = kvm;
    int size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (size > 0) {
        struct kvm_run *run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED,
                                   own.vcpu, 0);
        if (run == MAP_FAILED)
            return FAIL(INTERNAL, fault, "inmate: kvm_run");
        run->immediate_exit = 1; /* KVM_RUN enters no guest: EINTR */
    }
    own.event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    own.discarded = mmap(NULL, 65536, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    struct sigaction action = {.sa_handler = ignore_signal};
    if (own.event < 0 || own.discarded == MAP_FAILED || sigaction(SIGUSR1, &action, NULL))
        return FAIL(INTERNAL, fault, "inmate: event, memory or handler");
    return OK;
}

static void *be_vcpu(void *seals)
{
    struct fault fault;
    pthread_mutex_lock(&lock);
    while (!entered)
        pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
    if (seals && jail_seal(JAIL_THREAD_VCPU, &fault) != OK)
        _exit(10);
    pthread_mutex_lock(&lock);
    if (sealed++ == 0)
        first_vcpu = gettid();
    bool first = first_vcpu == gettid();
    pthread_cond_broadcast(&changed);
    for (;;) {
        while (!first || state != ORDERED)
            pthread_cond_wait(&changed, &lock);
        answer = inmate_attempt(ordered);
        state = ANSWERED;
        pthread_cond_broadcast(&changed);
    }
    return NULL;
}

static status make_threads(unsigned count, bool last_seals, struct fault *fault)
{
    for (unsigned i = 0; i < count; i++) {
        pthread_t thread;
        bool seals = last_seals || i + 1 < count;
        int error = pthread_create(&thread, NULL, be_vcpu, seals ? &own : NULL);
        if (error)
            return FAIL(UNAVAILABLE, fault, "inmate: thread %u: %d", i + 1, error);
    }
    return OK;
}

static void await_threads(unsigned count)
{
    pthread_mutex_lock(&lock);
    entered = true;
    pthread_cond_broadcast(&changed);
    while (sealed < count)
        pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
}

status inmate_vmm_close(uint32_t *ret_abi, enum inmate_closing how, int kvm, struct fault *fault)
{
    struct jail_proof proof;
    unsigned threads = how == CLOSE_MANY_THREADS ? SANDBOX_VCPUS_MAX + 2 : INMATE_VCPUS;
    TRY(make_machine(kvm, fault));
    if (how == CLOSE_EARLY_THREAD)
        TRY(make_threads(threads, true, fault));
    TRY(jail_enter(&proof, JAIL_VMM, NULL, 0, fault));
    if (how != CLOSE_EARLY_THREAD)
        TRY(make_threads(threads, how != CLOSE_UNSEALED_THREAD, fault));
    await_threads(threads);
    TRY(jail_seal(JAIL_THREAD_MAIN, fault));
    *ret_abi = proof.landlock_abi;
    return OK;
}

static int try_clone3(void)
{
    struct clone_args arguments = {.exit_signal = SIGCHLD};
    return result_of(syscall(SYS_clone3, &arguments, sizeof arguments));
}

static void *nothing(void *unused)
{
    return unused;
}

static int try_thread(void)
{
    pthread_t thread;
    return pthread_create(&thread, NULL, nothing, NULL);
}

/* What a monitor of one step less would have used. */
static int try_unused(enum inmate_attempt attempt)
{
    char byte = 'x';
    switch (attempt) {
    case TRY_READ_FILE: return result_of(pread(own.event, &byte, 1, 0));
    case TRY_SYNC: return result_of(fdatasync(own.event));
    case TRY_SET_FLAGS: return result_of(fcntl(own.event, F_SETFL, 0));
    case TRY_PLAIN_SEND: return result_of(send(JAIL_FD_SUPERVISOR, &byte, 1, MSG_DONTWAIT));
    case TRY_SLEEP: return clock_nanosleep(CLOCK_MONOTONIC, 0, &(struct timespec){0}, NULL);
    default: return ENOSYS;
    }
}

static int try_new(enum inmate_attempt attempt)
{
    struct kvm_userspace_memory_region region = {.memory_size = 4096};
    switch (attempt) {
    case TRY_OPEN: return result_of(open("/dev/kvm", O_RDWR));
    case TRY_NEW_MACHINE: return result_of(ioctl(own.kvm, KVM_CREATE_VM, 0));
    case TRY_NEW_MEMORY:
        return result_of(ioctl(own.machine, KVM_SET_USER_MEMORY_REGION, &region));
    case TRY_NEW_VCPU: return result_of(ioctl(own.machine, KVM_CREATE_VCPU, 1));
    case TRY_NEW_EVENT: return result_of(ioctl(own.machine, KVM_IOEVENTFD, NULL));
    case TRY_NEW_THREAD: return try_thread();
    case TRY_NEW_LINE: return result_of(ioctl(own.machine, KVM_IRQ_LINE, NULL));
    case TRY_NEW_ROUTE: return result_of(ioctl(own.machine, KVM_SET_GSI_ROUTING, NULL));
    case TRY_NEW_CPUID: return result_of(ioctl(own.vcpu, KVM_SET_CPUID2, NULL));
    case TRY_KVM_EXTENSION: return result_of(ioctl(own.kvm, KVM_CHECK_EXTENSION, 0));
    case TRY_TUNNEL: return result_of(ioctl(own.kvm, TUNSETIFF, NULL));
    case TRY_RECORD: return result_of(ioctl(0, TIOCSTI, "x"));
    case TRY_PROTECT: return result_of(mprotect(own.discarded, 4096, PROT_READ));
    case TRY_PROC_MEMORY: return result_of(process_vm_writev(1, NULL, 0, NULL, 0, 0));
    case TRY_CLONE3: return try_clone3();
    default: return try_unused(attempt);
    }
}

int inmate_vmm_attempt(enum inmate_attempt attempt)
{
    struct kvm_msi message = {.address_lo = 0xfee00000, .data = 0x20};
    uint64_t one = 1;
    switch (attempt) {
    case TRY_RUN: return result_of(ioctl(own.vcpu, KVM_RUN, 0));
    case TRY_DISCARD: return result_of(madvise(own.discarded, 65536, MADV_DONTNEED));
    case TRY_KICK: return result_of(syscall(SYS_tgkill, 1, first_vcpu, SIGUSR1));
    case TRY_INTERRUPT: return result_of(ioctl(own.machine, KVM_SIGNAL_MSI, &message));
    case TRY_EVENT: return write(own.event, &one, sizeof one) == sizeof one ? 0 : errno;
    case TRY_TAKE_EVENT: return read(own.event, &one, sizeof one) == sizeof one ? 0 : errno;
    default: return try_new(attempt);
    }
}

int inmate_vmm_attempt_by_vcpu(enum inmate_attempt attempt)
{
    pthread_mutex_lock(&lock);
    ordered = attempt;
    state = ORDERED;
    pthread_cond_broadcast(&changed);
    while (state != ANSWERED)
        pthread_cond_wait(&changed, &lock);
    state = IDLE;
    int result = answer;
    pthread_mutex_unlock(&lock);
    return result;
}
