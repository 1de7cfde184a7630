/* test_jail.c: puts itself behind bars and looks whether they hold. Needs root; runs on a host with
 * or without cgroup v2, and in tests/lab. */
#define _GNU_SOURCE
#include "prison.h"

#include "base/cleanup.h"
#include "base/cursor.h"
#include "jail/cgroup.h"
#include "jail/policy.h"
#include "jail/spawn.h"
#include "jail/verify.h"
#include "wire/ipc.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <cmocka.h>

static void assert_killed_by(enum jail_role role, enum inmate_attempt what)
{
    struct prison prison = prison_jailed(role);
    assert_killed(&prison, INMATE_ATTEMPT, what);
}

static void this_kernel_has_all_that_is_mandatory(void **state)
{
    (void)state;
    assert_ok(jail_kernel_check(&fault));
}

static void a_blank_finds_nothing_around_it(void **state)
{
    (void)state;
    for (int role = 0; role < JAIL_RUNNER; role++) {
        struct prison prison = prison_blank((enum jail_role)role);
        assert_int_equal(prison.found, 0);
        assert_int_equal(prison_release(&prison), 0);
    }
}

static void a_closed_jail_verifies_for_every_role(void **state)
{
    (void)state;
    for (int role = 0; role < JAIL_RUNNER; role++) {
        struct prison prison = prison_jailed((enum jail_role)role);
        struct jail_expectation expected = prison_expectation(&prison);
        struct jail_report report;
        assert_ok(jail_verify(&report, &prison.child, &expected, &fault));
        assert_int_equal(report.pid, prison.child.pid);
        assert_int_equal(report.uids[1], TENANT_UID);
        assert_int_equal(report.seccomp_filters, 2);
        assert_true(report.landlock_abi >= 1);
        assert_int_equal(prison_release(&prison), 0);
    }
}

static void the_report_reads_as_json(void **state)
{
    (void)state;
    struct prison prison = prison_jailed(JAIL_CELL);
    struct jail_expectation expected = prison_expectation(&prison);
    expected.cgroup = "none: for the test";
    struct jail_report report;
    assert_ok(jail_verify(&report, &prison.child, &expected, &fault));
    assert_ok(jail_measure(&report, &prison.child, &fault));
    assert_true(report.private_kib > 0);
    _cleanup_buffer_ struct buffer out = buffer_of(KIB(8));
    struct json_writer writer = json_writer_on(&out);
    jail_report_json(&writer, NULL, &report);
    struct arena arena = arena_of(KIB(64));
    struct json document;
    struct span text;
    assert_ok(json_parse(&document, &arena, buffer_span(&out), &fault));
    assert_ok(json_text(&text, &document, "cgroup", 1, 100, &fault));
    assert_true(span_is(text, "none: for the test"));
    assert_int_equal(json_member(&document, "uid")->integer, TENANT_UID);
    const struct json *capabilities = json_member(&document, "capabilities");
    assert_true(span_is(json_member(capabilities, "bounding")->string, "0000000000000000"));
    assert_int_equal(json_member(&document, "private_kib")->integer, report.private_kib);
    arena_free(&arena);
    assert_int_equal(prison_release(&prison), 0);
}

static void a_blank_that_was_not_closed_is_refused(void **state)
{
    (void)state;
    struct prison prison = prison_blank(JAIL_CELL);
    struct jail_expectation expected = {.uid = TENANT_UID, .gid = TENANT_UID, .landlock_abi = 1};
    assert_refused(&prison, &expected, "uid");
    prison_close(&prison, CLOSE_NOT, NULL, 0, TENANT_UID);
    assert_refused(&prison, &expected, "uid");
    assert_int_equal(prison_release(&prison), 0);
}

static void a_half_closed_jail_is_refused(void **state)
{
    (void)state;
    struct prison prison = prison_blank(JAIL_CELL);
    struct jail_expectation expected = {.uid = TENANT_UID, .gid = TENANT_UID, .landlock_abi = 1};
    prison_close(&prison, CLOSE_BY_ID_ONLY, NULL, 0, TENANT_UID);
    assert_int_equal(prison.abi, 0);
    assert_refused(&prison, &expected, "Cap");
    assert_int_equal(prison_release(&prison), 0);
}

static void every_difference_is_refused_by_name(void **state)
{
    (void)state;
    struct prison prison = prison_jailed(JAIL_CELL), other = prison_blank(JAIL_CELL);
    struct jail_expectation expected = prison_expectation(&prison), wrong = expected;
    wrong.uid++;
    assert_refused(&prison, &wrong, "uid");
    wrong = expected;
    wrong.gid++;
    assert_refused(&prison, &wrong, "gid");
    wrong = expected;
    wrong.landlock_abi = 0;
    assert_refused(&prison, &wrong, "Landlock");
    wrong = expected;
    wrong.cgroup = "/elsewhere";
    assert_refused(&prison, &wrong, "cgroup");
    for (int i = 0; i < JAIL_NAMESPACES; i++) {
        struct prison mixed = prison;
        mixed.child.namespaces[i] = other.child.namespaces[i];
        assert_refused(&mixed, &expected, jail_namespace_names[i]);
    }
    struct prison moved = prison;
    moved.child.root_inode++;
    assert_refused(&moved, &expected, "root");
    assert_int_equal(prison_release(&other), 0);
    assert_int_equal(prison_release(&prison), 0);
}

static void a_process_in_the_supervisors_namespaces_is_refused(void **state)
{
    (void)state;
    struct prison prison = {.child = {.pid = getpid()}};
    char path[32];
    snprintf(path, sizeof path, "/proc/%d", (int)getpid());
    _cleanup_close_ int proc = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    _cleanup_close_ int pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);
    prison.child.proc = proc;
    prison.child.pidfd = pidfd;
    struct jail_expectation expected = {.landlock_abi = 1, .groups_kept = true};
    assert_refused(&prison, &expected, "uid_map");
}

static void an_ended_process_does_not_verify(void **state)
{
    (void)state;
    struct prison prison = prison_jailed(JAIL_CELL);
    struct jail_expectation expected = prison_expectation(&prison);
    struct jail_report report;
    int result;
    assert_int_equal(jail_reap(&result, &prison.child, &fault), AGAIN);
    jail_kill(&prison.child);
    struct pollfd process = {.fd = prison.child.pidfd, .events = POLLIN};
    assert_int_equal(poll(&process, 1, WAIT_MS), 1);
    assert_int_not_equal(jail_verify(&report, &prison.child, &expected, &fault), OK);
    assert_ok(jail_reap(&result, &prison.child, &fault)); /* now the pid is free */
    assert_int_equal(result, 128 + SIGKILL);
    assert_int_equal(jail_verify(&report, &prison.child, &expected, &fault), CLOSED);
    close(prison.channel);
    jail_child_close(&prison.child);
}

static void every_role_can_do_its_daily_work(void **state)
{
    (void)state;
    for (int role = 0; role < JAIL_VMM; role++) { /* the monitor's: test_jail_vmm.c */
        struct prison prison = prison_jailed((enum jail_role)role);
        for (int what = TRY_MEMORY; what <= TRY_LOOP; what++)
            assert_int_equal(prison_attempt(&prison, (enum inmate_attempt)what), 0);
        assert_int_equal(prison_release(&prison), 0);
    }
}

static void roles_with_files_keep_them_in_their_directory_and_nowhere_else(void **state)
{
    (void)state;
    static const enum jail_role keepers[] = {JAIL_KMS, JAIL_CONTROL, JAIL_CELL};
    for (int i = 0; i < 3; i++) {
        struct prison prison = prison_jailed(keepers[i]);
        assert_int_equal(prison_attempt(&prison, TRY_FILE), 0);
        assert_int_equal(prison_attempt(&prison, TRY_CLIMB), ENOENT);
        assert_int_equal(prison_attempt(&prison, TRY_SYMLINK), ELOOP);
        assert_int_equal(prison_attempt(&prison, TRY_ABSOLUTE), EACCES);
        assert_int_equal(prison_attempt(&prison, TRY_READ_SECOND), 0);
        assert_int_equal(prison_attempt(&prison, TRY_WRITE_SECOND), EACCES);
        assert_int_equal(prison_release(&prison), 0);
    }
}

static void a_read_only_mount_refuses_what_landlock_would_allow(void **state)
{
    (void)state;
    struct prison prison = prison_blank(JAIL_CELL);
    int fds[2] = {prison_detached("silo", false), prison_detached("second", false)};
    prison_close(&prison, CLOSE_WELL, fds, 2, TENANT_UID);
    assert_int_equal(prison_attempt(&prison, TRY_FILE), EROFS);
    close(fds[0]);
    close(fds[1]);
    assert_int_equal(prison_release(&prison), 0);
}

static void another_tenants_directory_is_closed_by_its_mode_as_well(void **state)
{
    (void)state;
    struct prison prison = prison_blank(JAIL_CELL);
    int fds[2] = {prison_detached("silo", true), prison_detached("second", true)};
    prison_close(&prison, CLOSE_WELL, fds, 2, TENANT_UID + 1);
    assert_int_equal(prison_attempt(&prison, TRY_FILE), EACCES);
    close(fds[0]);
    close(fds[1]);
    assert_int_equal(prison_release(&prison), 0);
}

static void the_gateway_serves_connections_and_opens_no_file(void **state)
{
    (void)state;
    struct prison prison = prison_jailed(JAIL_GATEWAY);
    assert_int_equal(prison_attempt(&prison, TRY_ACCEPT), EAGAIN);
    assert_int_equal(prison_attempt(&prison, TRY_NODELAY), 0);
    assert_int_equal(prison_release(&prison), 0);
    assert_killed_by(JAIL_GATEWAY, TRY_ABSOLUTE);
    assert_killed_by(JAIL_GATEWAY, TRY_MEMFD);
    assert_killed_by(JAIL_GATEWAY, TRY_ODD_SOCKOPT);
}

static void only_control_makes_memfds(void **state)
{
    (void)state;
    struct prison prison = prison_jailed(JAIL_CONTROL);
    assert_int_equal(prison_attempt(&prison, TRY_MEMFD), 0);
    assert_int_equal(prison_release(&prison), 0);
    assert_killed_by(JAIL_CELL, TRY_MEMFD);
    assert_killed_by(JAIL_KMS, TRY_MEMFD);
}

static void what_nobody_may_do_kills_in_every_role(void **state)
{
    (void)state;
    for (int role = 0; role < JAIL_RUNNER; role++)
        for (int what = TRY_SOCKET; what < ATTEMPTS; what++)
            assert_killed_by((enum jail_role)role, (enum inmate_attempt)what);
    assert_killed_by(JAIL_CELL, TRY_MAKE_DEVICE_NODE);
    assert_killed_by(JAIL_CELL, TRY_ACCEPT);
    assert_killed_by(JAIL_CELL, TRY_NODELAY);
}

static void a_failed_assertion_ends_the_process_and_is_told_from_a_forbidden_call(void **state)
{
    (void)state;
    struct prison prison = prison_jailed(JAIL_CELL);
    prison_order(&prison, INMATE_ATTEMPT, TRY_ABORT, NULL, 0);
    int result = prison_release(&prison);
    assert_true(result == 128 + SIGSEGV || result == 128 + SIGABRT);
}

static void root_is_never_the_id_of_a_jail(void **state)
{
    (void)state;
    struct prison prison = prison_blank(JAIL_CELL);
    assert_int_equal(jail_map(&prison.child, 0, TENANT_UID, &fault), FORBIDDEN_POLICY);
    assert_int_equal(jail_map(&prison.child, TENANT_UID, 0, &fault), FORBIDDEN_POLICY);
    assert_ok(jail_map(&prison.child, TENANT_UID, TENANT_UID, &fault));
    assert_int_equal(prison_release(&prison), 0);
}

static void an_inmate_dies_with_its_supervisor(void **state)
{
    (void)state;
    int told[2];
    assert_int_equal(pipe2(told, O_CLOEXEC), 0);
    pid_t supervisor = fork();
    if (supervisor == 0) {
        struct prison prison = prison_jailed(JAIL_CELL);
        ssize_t written = write(told[1], &prison.child.pid, sizeof prison.child.pid);
        for (;;)
            pause();
        (void)written;
    }
    pid_t pid = 0;
    assert_int_equal(read(told[0], &pid, sizeof pid), sizeof pid);
    _cleanup_close_ int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    assert_true(pidfd >= 0);
    struct pollfd inmate = {.fd = pidfd, .events = POLLIN};
    assert_int_equal(poll(&inmate, 1, 0), 0);
    kill(supervisor, SIGKILL);
    assert_int_equal(poll(&inmate, 1, WAIT_MS), 1);
    waitpid(supervisor, NULL, 0);
    close(told[0]);
    close(told[1]);
}

static void an_executable_that_is_none_ends_with_127(void **state)
{
    (void)state;
    struct prison prison = {0};
    int kept = prison_executable;
    prison_executable = open("/dev/null", O_PATH | O_CLOEXEC);
    int log = dup(2), quiet = open("/dev/null", O_WRONLY);
    dup2(quiet, 2);
    status code = prison_spawn(&prison, JAIL_CELL, -1);
    close(prison_executable);
    prison_executable = kept;
    int result = code == OK ? prison_release(&prison) : -1;
    dup2(log, 2);
    close(log);
    close(quiet);
    assert_int_equal(result, 127);
}

static void wait_for_success(pid_t pid)
{
    int exit_code = -1;
    assert_int_equal(waitpid(pid, &exit_code, 0), pid);
    assert_true(WIFEXITED(exit_code));
    assert_int_equal(WEXITSTATUS(exit_code), 0);
}

static bool jail_holds(uid_t uid, bool groups_kept)
{
    struct prison prison = prison_blank(JAIL_CELL);
    int fds[2] = {prison_detached("silo", true), prison_detached("second", true)};
    prison_close(&prison, CLOSE_WELL, fds, 2, uid);
    struct jail_expectation expected = {.uid = uid, .gid = uid, .landlock_abi = prison.abi,
                                        .groups_kept = groups_kept};
    struct jail_report report;
    status code = jail_verify(&report, &prison.child, &expected, &fault);
    if (code == OK)
        code = jail_measure(&report, &prison.child, &fault);
    if (code != OK)
        print_message("%s\n", fault.detail);
    return prison_release(&prison) == 0 && code == OK;
}

static void a_supervisor_of_few_capabilities_can_still_do_all_of_it(void **state)
{
    (void)state;
    pid_t pid = fork();
    if (pid == 0) {
        bool good = jail_supervisor(&fault) == OK && prctl(PR_CAPBSET_READ, 19 /* ptrace */) == 0
                 && prctl(PR_CAPBSET_READ, 21 /* admin */) == 1
                 && prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 && jail_holds(TENANT_UID, false);
        _exit(good ? 0 : 1);
    }
    wait_for_success(pid);
}

static void a_caller_without_root_gets_jails_of_its_own_id(void **state)
{
    (void)state;
    struct stat top;
    assert_int_equal(stat("/", &top), 0);
    if (!(top.st_mode & S_IXOTH)) {
        print_message("\"/\" is closed to all but root here\n");
        skip();
    }
    pid_t pid = fork();
    if (pid == 0) {
        /* both directories were made for this id; the program and the empty root are readable */
        if (setresgid(TENANT_UID, TENANT_UID, TENANT_UID)
            || setresuid(TENANT_UID, TENANT_UID, TENANT_UID) || prctl(PR_SET_DUMPABLE, 1))
            _exit(2);
        bool good = jail_become_root(&fault) == OK && jail_supervisor(&fault) == OK;
        if (!good)
            print_message("%s\n", fault.detail);
        char path[128];
        prison_path(path, "silo/root");
        close(prison_empty_root);
        good = good && jail_empty_root(&prison_empty_root, path, &fault) == OK
            && jail_holds(0, true);
        rmdir(path);
        _exit(good ? 0 : 1);
    }
    wait_for_success(pid);
}

static void an_empty_root_must_be_empty(void **state)
{
    (void)state;
    char path[128];
    int root = -1;
    prison_path(path, "second");
    assert_int_equal(jail_empty_root(&root, path, &fault), CONFLICT);
    prison_path(path, "link-to-empty");
    assert_int_equal(jail_empty_root(&root, path, &fault), UNAVAILABLE);
    assert_int_equal(root, -1);
}

static void read_group(char text[64], const char *path, const char *name)
{
    char full[256];
    snprintf(full, sizeof full, "/sys/fs/cgroup%s/%s", path, name);
    _cleanup_close_ int file = open(full, O_RDONLY | O_CLOEXEC);
    ssize_t length = file < 0 ? -1 : read(file, text, 63);
    text[length < 0 ? 0 : length] = '\0';
}

static void a_cgroup_bounds_its_inmate_or_says_why_there_is_none(void **state)
{
    (void)state;
    struct jail_cgroups cgroups;
    struct jail_limits limits = {.memory_max_bytes = 1 << 26, .cpu_percent = 50, .cpu_weight = 10,
                                 .pids_max = 1};
    int group = -1;
    jail_cgroups_open(&cgroups);
    assert_int_equal(jail_cgroup_make(&group, &cgroups, "../up", &limits, &fault), BAD_FIELD);
    assert_ok(jail_cgroup_make(&group, &cgroups, "cell-1", &limits, &fault));
    char path[128], text[64];
    jail_cgroup_text(path, sizeof path, &cgroups, "cell-1");
    if (group < 0) {
        assert_int_equal(strncmp(path, "none: ", 6), 0);
        print_message("cgroup %s\n", path);
        jail_cgroups_close(&cgroups);
        return;
    }
    struct prison prison = {0};
    assert_ok(prison_spawn(&prison, JAIL_CELL, group));
    close(group);
    prison.found = prison_heard(&prison, INMATE_BLANK);
    int fds[2] = {prison_detached("silo", true), prison_detached("second", true)};
    prison_close(&prison, CLOSE_WELL, fds, 2, TENANT_UID);
    close(fds[0]);
    close(fds[1]);
    struct jail_expectation expected = prison_expectation(&prison);
    struct jail_report report;
    expected.cgroup = path;
    assert_ok(jail_verify(&report, &prison.child, &expected, &fault));
    assert_string_equal(report.cgroup, path);
    read_group(text, path, "memory.max");
    assert_string_equal(text, "67108864\n");
    read_group(text, path, "cpu.max");
    assert_string_equal(text, "50000 100000\n");
    assert_int_equal(prison_release(&prison), 0);
    jail_cgroup_remove(&cgroups, "cell-1");
    jail_cgroups_close(&cgroups);
    char full[200];
    snprintf(full, sizeof full, "/sys/fs/cgroup%s", path);
    assert_int_not_equal(access(full, F_OK), 0);
}

int main(int count, char **arguments)
{
    if (count == 1 && strncmp(arguments[0], "inmate-", 7) == 0)
        return inmate_main(arguments[0] + 7);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(this_kernel_has_all_that_is_mandatory),
        cmocka_unit_test(a_blank_finds_nothing_around_it),
        cmocka_unit_test(a_closed_jail_verifies_for_every_role),
        cmocka_unit_test(the_report_reads_as_json),
        cmocka_unit_test(a_blank_that_was_not_closed_is_refused),
        cmocka_unit_test(a_half_closed_jail_is_refused),
        cmocka_unit_test(every_difference_is_refused_by_name),
        cmocka_unit_test(a_process_in_the_supervisors_namespaces_is_refused),
        cmocka_unit_test(an_ended_process_does_not_verify),
        cmocka_unit_test(every_role_can_do_its_daily_work),
        cmocka_unit_test(roles_with_files_keep_them_in_their_directory_and_nowhere_else),
        cmocka_unit_test(a_read_only_mount_refuses_what_landlock_would_allow),
        cmocka_unit_test(another_tenants_directory_is_closed_by_its_mode_as_well),
        cmocka_unit_test(the_gateway_serves_connections_and_opens_no_file),
        cmocka_unit_test(only_control_makes_memfds),
        cmocka_unit_test(what_nobody_may_do_kills_in_every_role),
        cmocka_unit_test(a_failed_assertion_ends_the_process_and_is_told_from_a_forbidden_call),
        cmocka_unit_test(root_is_never_the_id_of_a_jail),
        cmocka_unit_test(an_inmate_dies_with_its_supervisor),
        cmocka_unit_test(an_executable_that_is_none_ends_with_127),
        cmocka_unit_test(a_supervisor_of_few_capabilities_can_still_do_all_of_it),
        cmocka_unit_test(a_caller_without_root_gets_jails_of_its_own_id),
        cmocka_unit_test(an_empty_root_must_be_empty),
        cmocka_unit_test(a_cgroup_bounds_its_inmate_or_says_why_there_is_none),
    };
    return cmocka_run_group_tests(tests, prison_prepare, prison_clean_up);
}
