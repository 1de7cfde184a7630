/* test_policy.c: the seccomp lists, as people read them, against tests/unit/jail/golden: a
 * list that grows does so in a reviewed file. To write them anew: JAIL_GOLDEN_WRITE=1. */
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/limits.h"
#include "jail/filters.h"
#include "jail/policy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

static const char *folder;

static struct buffer dump_of(enum jail_role role)
{
    struct buffer out = buffer_of(KIB(64));
    buffer_put_text(&out, "# final\n");
    jail_policy_dump(&out, role, JAIL_STAGE_FINAL);
    buffer_put_text(&out, "\n# blank\n");
    jail_policy_dump(&out, role, JAIL_STAGE_BLANK);
    if (role == JAIL_VMM) {
        buffer_put_text(&out, "\n# vcpu\n");
        jail_policy_dump(&out, role, JAIL_STAGE_VCPU);
    }
    return out;
}

static void every_list_is_the_reviewed_one(void **state)
{
    (void)state;
    for (int role = 0; role < JAIL_RUNNER; role++) {
        char path[512];
        static char text[KIB(64)];
        snprintf(path, sizeof path, "%s/%s.txt", folder, jail_role_name((enum jail_role)role));
        _cleanup_buffer_ struct buffer out = dump_of((enum jail_role)role);
        FILE *golden = fopen(path, getenv("JAIL_GOLDEN_WRITE") ? "w+" : "r");
        assert_non_null(golden);
        if (getenv("JAIL_GOLDEN_WRITE")) {
            fwrite(out.data, 1, out.length, golden);
            rewind(golden);
        }
        size_t length = fread(text, 1, sizeof text, golden);
        fclose(golden);
        assert_int_equal(length, out.length);
        assert_memory_equal(text, out.data, length);
    }
}

static bool lists(enum jail_role role, enum jail_stage stage, const char *call)
{
    _cleanup_buffer_ struct buffer out = buffer_of(KIB(64));
    buffer_put_text(&out, "\n");
    jail_policy_dump(&out, role, stage);
    buffer_put_u8(&out, 0);
    char line[64];
    bool found = false;
    for (int i = 0; i < 2; i++) { /* with and without conditions */
        snprintf(line, sizeof line, i ? "\n%s " : "\n%s\n", call);
        found = found || strstr((const char *)out.data, line);
    }
    return found;
}

static void no_list_has_what_leads_out(void **state)
{
    (void)state;
    static const char *const calls[] = {
        "socket", "connect", "bind", "listen", "clone", "clone3", "fork", "vfork", "execve",
        "execveat", "ptrace", "ioctl", "mount", "move_mount", "open_tree", "unshare", "setns",
        "chroot", "pivot_root", "open_by_handle_at", "name_to_handle_at", "bpf", "io_uring_setup",
        "kill", "pidfd_open", "pidfd_getfd", "process_vm_readv", "process_vm_writev", "keyctl",
        "add_key", "userfaultfd", "perf_event_open", "personality", "mknodat", "symlinkat",
        "linkat", "prlimit64", "pkey_mprotect", "shmat", "acct", "modify_ldt"};
    for (int role = 0; role < JAIL_VMM; role++)
        for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
            assert_false(lists((enum jail_role)role, JAIL_STAGE_BLANK, calls[i]));
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        bool made = strcmp(calls[i], "clone") == 0 || strcmp(calls[i], "ioctl") == 0;
        bool used = strcmp(calls[i], "ioctl") == 0;
        if (strcmp(calls[i], "clone3") != 0) /* listed as failing */
            assert_int_equal(lists(JAIL_VMM, JAIL_STAGE_BLANK, calls[i]), made);
        assert_int_equal(lists(JAIL_VMM, JAIL_STAGE_FINAL, calls[i]), used);
        assert_int_equal(lists(JAIL_VMM, JAIL_STAGE_VCPU, calls[i]), used);
    }
    assert_true(lists(JAIL_CELL, JAIL_STAGE_FINAL, "mmap")); /* the search itself works */
    assert_true(lists(JAIL_CELL, JAIL_STAGE_FINAL, "read"));
}

/* Neither a file, nor a socket, nor memory that outlives a free, nor a second machine. */
static void a_running_monitor_makes_nothing(void **state)
{
    (void)state;
    static const char *const calls[] = {
        "openat", "openat2", "memfd_create", "memfd_secret", "eventfd2", "timerfd_create",
        "epoll_create1", "accept4", "socketpair", "dup", "clone", "clone3", "mprotect", "mlock"};
    static const char *const requests[] = {
        "KVM_CREATE_VM", "KVM_CREATE_VCPU", "KVM_SET_USER_MEMORY_REGION", "KVM_IOEVENTFD",
        "KVM_IRQFD", "KVM_CREATE_IRQCHIP", "KVM_ENABLE_CAP", "KVM_SET_CPUID2", "TUNSETOFFLOAD"};
    for (int stage = JAIL_STAGE_FINAL; stage <= JAIL_STAGE_VCPU; stage++) {
        _cleanup_buffer_ struct buffer out = buffer_of(KIB(64));
        jail_policy_dump(&out, JAIL_VMM, (enum jail_stage)stage);
        buffer_put_u8(&out, 0);
        for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
            assert_false(lists(JAIL_VMM, (enum jail_stage)stage, calls[i]));
        for (size_t i = 0; i < sizeof requests / sizeof *requests; i++)
            assert_null(strstr((const char *)out.data, requests[i]));
        assert_int_equal(!strstr((const char *)out.data, "KVM_RUN"), stage == JAIL_STAGE_FINAL);
    }
}

/* Before a guest is there it makes its machine, and still does nothing but that. */
static void a_blank_monitor_has_a_list_of_its_own(void **state)
{
    (void)state;
    static const char *const calls[] = {
        "lseek", "readv", "pwrite64", "fcntl", "mlock", "memfd_secret", "sysinfo", "sendto",
        "recvfrom", "sendmmsg", "recvmmsg", "clock_nanosleep", "epoll_pwait2"};
    static const char *const lines[] = {"\nnewfstatat\n", "\nmmap\n", "\nmadvise\n",
                                        "\nrt_sigaction\n", "TUN", "LAPIC", "MP_STATE",
                                        "KVM_GET_REGS", "KVM_GET_MSRS", "KVM_IRQFD"};
    _cleanup_buffer_ struct buffer out = buffer_of(KIB(64));
    jail_policy_dump(&out, JAIL_VMM, JAIL_STAGE_BLANK);
    buffer_put_u8(&out, 0);
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
        assert_false(lists(JAIL_VMM, JAIL_STAGE_BLANK, calls[i]));
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        assert_null(strstr((const char *)out.data, lines[i]));
}

static void closing_is_over_after_the_final_stage(void **state)
{
    (void)state;
    static const char *const calls[] = {"setresuid", "setresgid", "capset", "prctl", "seccomp",
                                        "landlock_create_ruleset", "landlock_restrict_self"};
    for (int role = 0; role < JAIL_RUNNER; role++)
        for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
            assert_true(lists((enum jail_role)role, JAIL_STAGE_BLANK, calls[i]));
            assert_false(lists((enum jail_role)role, JAIL_STAGE_FINAL, calls[i]));
        }
}

static void the_programs_come_in_a_file_that_cannot_be_changed(void **state)
{
    (void)state;
    for (int role = 0; role < JAIL_RUNNER; role++) {
        struct fault fault;
        struct filters_head head;
        struct stat info;
        int filters = -1;
        assert_int_equal(jail_filters(&filters, (enum jail_role)role, &fault), OK);
        assert_int_equal(pread(filters, &head, sizeof head, 0), sizeof head);
        assert_int_equal(head.role, role);
        assert_true(head.instructions[JAIL_STAGE_BLANK] > head.instructions[JAIL_STAGE_FINAL]);
        assert_int_equal(head.instructions[JAIL_STAGE_VCPU] > 0, role == JAIL_VMM);
        assert_int_equal(fstat(filters, &info), 0);
        assert_int_equal(info.st_size, sizeof head + sizeof(struct sock_filter)
                         * (head.instructions[0] + head.instructions[1]
                            + head.instructions[2]));
        assert_int_equal(pwrite(filters, "x", 1, 0), -1);
        assert_int_not_equal(ftruncate(filters, 0), 0);
        close(filters);
    }
}

int main(int count, char **arguments)
{
    folder = count > 1 ? arguments[1] : "golden";
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_list_is_the_reviewed_one),
        cmocka_unit_test(no_list_has_what_leads_out),
        cmocka_unit_test(a_running_monitor_makes_nothing),
        cmocka_unit_test(a_blank_monitor_has_a_list_of_its_own),
        cmocka_unit_test(closing_is_over_after_the_final_stage),
        cmocka_unit_test(the_programs_come_in_a_file_that_cannot_be_changed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
