/* test_jail_vmm.c: the jail of a monitor, which has threads and a machine: each thread is behind
 * bars of its own. Needs root. */
#define _GNU_SOURCE
#include "prison.h"

#include "base/sanitized.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <sys/wait.h>

static int kvm; /* -1 where there is none */

static uint32_t or_no_tty(uint32_t wanted)
{
    return kvm < 0 ? ENOTTY : wanted;
}

static struct prison closed_as(enum inmate_closing how)
{
    struct prison prison = prison_blank(JAIL_VMM);
    _cleanup_close_ int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    prison_close(&prison, how, kvm < 0 ? &null : &kvm, 1, TENANT_UID);
    return prison;
}

static void its_threads_do_their_daily_work(void **state)
{
    (void)state;
    struct prison prison = prison_jailed(JAIL_VMM);
    assert_int_equal(prison_attempt_by_vcpu(&prison, TRY_RUN), or_no_tty(EINTR));
    assert_int_equal(prison_attempt_by_vcpu(&prison, TRY_INTERRUPT), or_no_tty(EINVAL));
    assert_int_equal(prison_attempt_by_vcpu(&prison, TRY_EVENT), 0);
    assert_int_equal(prison_attempt(&prison, TRY_EVENT), 0);
    assert_int_equal(prison_attempt(&prison, TRY_TAKE_EVENT), 0);
    assert_int_equal(prison_attempt(&prison, TRY_DISCARD), 0);
    assert_int_equal(prison_attempt(&prison, TRY_KICK), 0);
    assert_int_equal(prison_attempt(&prison, TRY_GROW), 0);
    assert_int_equal(prison_attempt(&prison, TRY_RANDOM), 0);
    assert_int_equal(prison_release(&prison), 0);
}

static void each_thread_is_killed_for_what_none_may(void **state)
{
    (void)state;
    for (int what = TRY_OPEN; what < ATTEMPTS; what++) {
        struct prison prison = prison_jailed(JAIL_VMM), other = prison_jailed(JAIL_VMM);
        assert_killed(&prison, INMATE_ATTEMPT, (enum inmate_attempt)what);
        assert_killed(&other, INMATE_THREAD, (enum inmate_attempt)what);
    }
}

static void neither_thread_may_do_the_others_work(void **state)
{
    (void)state;
    struct prison main = prison_jailed(JAIL_VMM), vcpu = prison_jailed(JAIL_VMM);
    assert_killed(&main, INMATE_ATTEMPT, TRY_RUN);
    assert_killed(&vcpu, INMATE_THREAD, TRY_RANDOM);
    if (!SANITIZED) { /* whose malloc may have mapped what it gives long before */
        vcpu = prison_jailed(JAIL_VMM);
        assert_killed(&vcpu, INMATE_THREAD, TRY_GROW);
    }
    vcpu = prison_jailed(JAIL_VMM);
    assert_killed(&vcpu, INMATE_THREAD, TRY_TAKE_EVENT);
}

static void a_thread_too_many_or_too_few_is_refused(void **state)
{
    (void)state;
    struct prison prison = prison_jailed(JAIL_VMM);
    struct jail_expectation expected = prison_expectation(&prison);
    struct jail_report report;
    assert_ok(jail_verify(&report, &prison.child, &expected, &fault));
    assert_int_equal(report.threads, 1 + INMATE_VCPUS);
    expected.threads--;
    assert_refused(&prison, &expected, "threads");
    expected.spare_threads = 1; /* of the kernel's */
    assert_ok(jail_verify(&report, &prison.child, &expected, &fault));
    expected.threads--;
    assert_refused(&prison, &expected, "threads");
    expected.threads += 3;
    assert_refused(&prison, &expected, "threads");
    assert_int_equal(prison_release(&prison), 0);
}

static void a_thread_without_its_filter_is_refused(void **state)
{
    (void)state;
    struct prison prison = closed_as(CLOSE_UNSEALED_THREAD);
    struct jail_expectation expected = prison_expectation(&prison);
    assert_refused(&prison, &expected, "1 seccomp filters");
    assert_int_equal(prison_release(&prison), 0);
}

static status told(struct prison *prison, struct ipc_message *ret)
{
    static uint8_t storage[IPC_PACKET_MAX];
    return ipc_await(ret, prison->channel, storage, WAIT_MS, &fault);
}

static void a_thread_made_before_the_jail_is_shut_cannot_be_sealed(void **state)
{
    (void)state;
    struct prison prison = prison_blank(JAIL_VMM);
    _cleanup_close_ int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    struct ipc_message message;
    assert_ok(jail_map(&prison.child, TENANT_UID, TENANT_UID, &fault));
    prison_order(&prison, INMATE_CLOSE, CLOSE_EARLY_THREAD, &null, 1);
    assert_int_equal(told(&prison, &message), CLOSED);
    assert_int_equal(prison_release(&prison), 10);
}

static void more_threads_than_vcpus_cannot_be_made(void **state)
{
    (void)state;
    struct prison prison = prison_blank(JAIL_VMM);
    _cleanup_close_ int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    struct ipc_message message;
    assert_ok(jail_map(&prison.child, TENANT_UID, TENANT_UID, &fault));
    prison_order(&prison, INMATE_CLOSE, CLOSE_MANY_THREADS, &null, 1);
    assert_ok(told(&prison, &message));
    assert_int_equal(message.type, INMATE_FAULT);
    assert_true(span_starts_with(message.body, SPAN("inmate: thread 34")));
    assert_int_equal(prison_release(&prison), 7);
}

static rlim_t limit_of(const struct prison *prison, __rlimit_resource_t resource)
{
    struct rlimit limit;
    assert_int_equal(prlimit(prison->child.pid, resource, NULL, &limit), 0);
    assert_int_equal(limit.rlim_cur, limit.rlim_max);
    return limit.rlim_max;
}

static void its_bounds_are_lowered_and_never_raised(void **state)
{
    (void)state;
    struct prison prison = prison_blank(JAIL_VMM);
    struct jail_bounds bounds = {.data_bytes = 1 << 28, .cpu_seconds = 60, .threads = 2};
    assert_ok(jail_bound(&prison.child, &bounds, &fault));
    assert_int_equal(limit_of(&prison, RLIMIT_DATA), 1 << 28);
    assert_int_equal(limit_of(&prison, RLIMIT_CPU), 60);
    assert_int_equal(limit_of(&prison, RLIMIT_NPROC), 2);
    bounds = (struct jail_bounds){.data_bytes = 1 << 30, .cpu_seconds = 61};
    assert_ok(jail_bound(&prison.child, &bounds, &fault));
    assert_int_equal(limit_of(&prison, RLIMIT_DATA), 1 << 28);
    assert_int_equal(limit_of(&prison, RLIMIT_CPU), 60);
    assert_int_equal(limit_of(&prison, RLIMIT_NPROC), 2);
    assert_int_equal(prison_release(&prison), 0);
}

/* A process of another tenant's id; 0: it was let in. */
static int looks_from_outside(pid_t target, bool written)
{
    pid_t pid = fork();
    if (pid == 0) {
        char path[32];
        if (setresgid(TENANT_UID + 1, TENANT_UID + 1, TENANT_UID + 1)
            || setresuid(TENANT_UID + 1, TENANT_UID + 1, TENANT_UID + 1))
            _exit(99);
        struct iovec one = {path, 1};
        snprintf(path, sizeof path, "/proc/%d/mem", (int)target);
        if (written)
            _exit(open(path, O_RDWR) < 0 ? errno : 0);
        _exit(process_vm_readv(target, &one, 1, &one, 1, 0) < 0 ? errno : 0);
    }
    int code = -1;
    assert_int_equal(waitpid(pid, &code, 0), pid);
    assert_true(WIFEXITED(code));
    return WEXITSTATUS(code);
}

/* Never page by page, which takes as long as its guest likes. */
static void its_memory_is_counted_by_the_kernel(void **state)
{
    (void)state;
    struct prison prison = prison_jailed(JAIL_VMM);
    struct jail_report report = {.private_kib = -1};
    char text[4096];
    assert_ok(jail_measure(&report, &prison.child, &fault));
    _cleanup_close_ int file = openat(prison.child.proc, "status", O_RDONLY | O_CLOEXEC);
    ssize_t length = read(file, text, sizeof text - 1);
    assert_true(length > 0);
    text[length] = '\0';
    const char *counted = strstr(text, "RssAnon:");
    assert_non_null(counted);
    assert_int_equal(report.private_kib, strtoll(counted + 8, NULL, 10));
    struct jail_used all = {0}, cpu = {0};
    jail_read_used(&all, &prison.child);
    jail_read_cpu(&cpu, &prison.child);
    assert_true(all.peak_kib > 0 && cpu.peak_kib == 0);
    assert_true(all.cpu_us > 0 && cpu.cpu_us >= all.cpu_us);
    assert_int_equal(prison_release(&prison), 0);
}

static void another_tenant_cannot_look_into_it(void **state)
{
    (void)state;
    struct prison prison = prison_jailed(JAIL_VMM);
    assert_int_equal(looks_from_outside(prison.child.pid, true), EACCES);
    assert_int_equal(looks_from_outside(prison.child.pid, false), EPERM);
    assert_int_equal(prison_release(&prison), 0);
}

int main(int count, char **arguments)
{
    if (count == 1 && strncmp(arguments[0], "inmate-", 7) == 0)
        return inmate_main(arguments[0] + 7);
    if (count > 1) /* one to leave out: an emulated host takes minutes for the longest */
        cmocka_set_skip_filter(arguments[1]);
    kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (kvm < 0)
        print_message("no /dev/kvm: ioctls that are let through end with ENOTTY\n");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(its_threads_do_their_daily_work),
        cmocka_unit_test(each_thread_is_killed_for_what_none_may),
        cmocka_unit_test(neither_thread_may_do_the_others_work),
        cmocka_unit_test(a_thread_too_many_or_too_few_is_refused),
        cmocka_unit_test(a_thread_without_its_filter_is_refused),
        cmocka_unit_test(a_thread_made_before_the_jail_is_shut_cannot_be_sealed),
        cmocka_unit_test(more_threads_than_vcpus_cannot_be_made),
        cmocka_unit_test(its_bounds_are_lowered_and_never_raised),
        cmocka_unit_test(its_memory_is_counted_by_the_kernel),
        cmocka_unit_test(another_tenant_cannot_look_into_it),
    };
    return cmocka_run_group_tests(tests, prison_prepare, prison_clean_up);
}
