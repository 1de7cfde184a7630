/* test_runner.c: bulkhead-runner as the supervisor starts it, with Debian's crun and runsc, and a
 * convict inside who tries to get out. Needs root. */
#define _GNU_SOURCE
#include "convict.h"

#include "base/cleanup.h"
#include "jail/policy.h"
#include "jail/spawn.h"
#include "jail/verify.h"
#include "runner/runner.h"
#include "wire/ipc.h"
#include "wire/json.h"
#include "wire/messages.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cmocka.h>

enum { UID_FIRST = 61400, UIDS = 128 };
enum { WAIT_MS = 30000, MEMORY_MIB = 128, DISK_MIB = 24, PROCESSES = 20 };

static const char *runner_path, *convict_path;
static char base[64];
static int runner, null, empty_root, filters, tree, convict;
static struct fault fault;
static uint8_t storage[IPC_PACKET_MAX];
static uid_t next_uid; /* of no other run of this test */

struct sandbox { /* under test */
    uint64_t cpu_us, peak_kib; /* as it told */
    struct jail_child child;
    int channel, stream;
    uid_t uid;
    enum sandbox_end end;
    char detail[160];
};

static void assert_ok(status code)
{
    if (code != OK)
        fail_msg("%s: %s", status_code(code), fault.detail);
}

static void tell(const struct sandbox *sandbox, uint32_t type, struct span body, const int *fd)
{
    assert_ok(ipc_send(sandbox->channel, type, 0, body, fd, fd ? 1 : 0, &fault));
}

static void tell_fd(const struct sandbox *sandbox, enum vmm_fd kind, int fd)
{
    uint8_t byte = (uint8_t)kind;
    tell(sandbox, MESSAGE_VMM_FD, (struct span){&byte, 1}, &fd);
}

static void note_used(struct sandbox *sandbox, const struct ipc_message *message)
{
    struct cursor body = cursor_over(message->body);
    uint64_t cpu_us, peak_kib;
    assert_ok(cursor_u64(&cpu_us, &body, &fault));
    assert_ok(cursor_u64(&peak_kib, &body, &fault));
    assert_true(cpu_us >= sandbox->cpu_us && peak_kib >= sandbox->peak_kib);
    sandbox->cpu_us = cpu_us;
    sandbox->peak_kib = peak_kib;
}

/* The next message but those on what it used; false: it ended instead, and said why. */
static bool heard(struct sandbox *sandbox, uint32_t type)
{
    struct ipc_message message;
    uint8_t end;
    struct span detail;
    do {
        assert_ok(ipc_await(&message, sandbox->channel, storage, WAIT_MS, &fault));
        if (message.type == MESSAGE_VMM_USED)
            note_used(sandbox, &message);
    } while (message.type == MESSAGE_VMM_USED);
    if (message.type == type && type != MESSAGE_VMM_ENDED)
        return true;
    assert_int_equal(message.type, MESSAGE_VMM_ENDED);
    struct cursor body = cursor_over(message.body);
    assert_ok(cursor_u8(&end, &body, &fault));
    assert_ok(cursor_field(&detail, &body, 160, "detail", &fault));
    sandbox->end = (enum sandbox_end)end;
    assert_true(span_to_text(sandbox->detail, sizeof sandbox->detail, detail));
    return type == MESSAGE_VMM_ENDED;
}

static struct sandbox_spec spec_of(enum sandbox_tier tier)
{
    struct sandbox_spec spec = sandbox_spec_default();
    spec.weakest = (uint8_t)tier;
    spec.memory_mib = MEMORY_MIB;
    spec.disk_mib = DISK_MIB;
    spec.processes = PROCESSES;
    return spec;
}

static void spawn(struct sandbox *sandbox)
{
    int ends[2];
    assert_ok(ipc_pair(ends, &fault));
    struct jail_plan plan = {.role = JAIL_RUNNER, .executable = runner, .name = "bulkhead-runner",
                             .null = null, .log = 2, .channel = ends[1], .empty_root = empty_root,
                             .filters = filters, .cgroup = -1};
    *sandbox = (struct sandbox){.channel = ends[0], .uid = next_uid++};
    assert_ok(jail_spawn(&sandbox->child, &plan, &fault));
    close(ends[1]);
    assert_true(heard(sandbox, MESSAGE_VMM_BLANK));
}

static void give(struct sandbox *sandbox, const struct sandbox_spec *spec, int agent)
{
    int ends[2];
    uint8_t bytes[512];
    struct buffer body = buffer_over(bytes, sizeof bytes);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    assert_ok(jail_map(&sandbox->child, sandbox->uid, sandbox->uid, &fault));
    tell_fd(sandbox, VMM_FD_TREE, tree);
    tell_fd(sandbox, VMM_FD_AGENT, agent);
    sandbox_spec_put(&body, spec);
    buffer_put(&body, SPAN("macmac"));
    tell(sandbox, MESSAGE_VMM_START, buffer_span(&body), NULL);
    tell(sandbox, MESSAGE_VMM_STREAM, SPAN("\1\0\0\4\0"), &ends[1]);
    close(ends[1]);
    sandbox->stream = ends[0];
}

static void release(struct sandbox *sandbox) /* and no process of its id is left */
{
    struct pollfd process = {.fd = sandbox->child.pidfd, .events = POLLIN};
    int result;
    assert_int_equal(poll(&process, 1, WAIT_MS), 1);
    assert_ok(jail_reap(&result, &sandbox->child, &fault));
    jail_child_close(&sandbox->child);
    close(sandbox->channel);
    close(sandbox->stream);
    DIR *entries = opendir("/proc");
    struct dirent *entry;
    struct stat info;
    while ((entry = readdir(entries)))
        if (fstatat(dirfd(entries), entry->d_name, &info, 0) == 0)
            assert_int_not_equal(info.st_uid, sandbox->uid);
    closedir(entries);
}

static void verify(const struct sandbox *sandbox)
{
    struct jail_report report;
    struct jail_expectation expected = {.uid = sandbox->uid, .gid = sandbox->uid};
    assert_ok(jail_verify(&report, &sandbox->child, &expected, &fault));
}

/* Up to the word of the convict; fails with the reason of a tier that does not work here. */
static struct sandbox running_with(const struct sandbox_spec *spec)
{
    struct sandbox sandbox;
    spawn(&sandbox);
    give(&sandbox, spec, convict);
    if (!heard(&sandbox, MESSAGE_JAILED))
        fail_msg("%s", sandbox.detail);
    verify(&sandbox);
    tell(&sandbox, MESSAGE_VMM_GO, SPAN(""), NULL);
    if (!heard(&sandbox, MESSAGE_VMM_RUNNING))
        fail_msg("%s", sandbox.detail);
    return sandbox;
}

static struct sandbox running(enum sandbox_tier tier)
{
    struct sandbox_spec spec = spec_of(tier);
    return running_with(&spec);
}

static void order(const struct sandbox *sandbox, enum attempt what)
{
    uint8_t byte = (uint8_t)what;
    assert_int_equal(write(sandbox->stream, &byte, 1), 1);
}

static int attempt(const struct sandbox *sandbox, enum attempt what)
{
    int32_t result = -1;
    struct pollfd stream = {.fd = sandbox->stream, .events = POLLIN};
    order(sandbox, what);
    assert_int_equal(poll(&stream, 1, WAIT_MS), 1);
    if (read(sandbox->stream, &result, sizeof result) != sizeof result)
        fail_msg("attempt %d: the sandbox ended", (int)what);
    return result;
}

static void leave(struct sandbox *sandbox)
{
    order(sandbox, TRY_LEAVE);
    assert_true(heard(sandbox, MESSAGE_VMM_ENDED));
    release(sandbox);
}

static int host_socket(void)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX, .sun_path = "\0bulkhead-runner-test"};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(fd, (void *)&name, sizeof name))
        assert_int_equal(errno, EADDRINUSE); /* another run of this test listens */
    else
        assert_int_equal(listen(fd, 8), 0);
    return fd;
}

static void nothing_leads_out(enum sandbox_tier tier, enum attempt end)
{
    _cleanup_close_ int outside = host_socket();
    struct sandbox sandbox = running(tier);
    int let_through = 0;
    for (int what = 0; what < (int)end; what++)
        if (attempt(&sandbox, (enum attempt)what) == 0) {
            print_error("attempt %d was let through\n", what);
            let_through++;
        }
    assert_int_equal(let_through, 0);
    for (int what = TRY_FILES; what <= TRY_LOCAL_SOCKET; what++) {
        int result = attempt(&sandbox, (enum attempt)what);
        if (result != 0)
            fail_msg("honest work %d: %s", what, strerror(result));
    }
    leave(&sandbox);
}

static void nothing_leads_out_of_a_container(void **state)
{
    (void)state;
    nothing_leads_out(SANDBOX_CONTAINER, TRY_FILES);
}

static void nothing_leads_out_of_gvisor(void **state)
{
    (void)state;
    nothing_leads_out(SANDBOX_GVISOR, TRY_RAISE_LIMIT);
}

static void a_container_is_bounded(void **state)
{
    (void)state;
    struct sandbox sandbox = running(SANDBOX_CONTAINER);
    int forks = attempt(&sandbox, TRY_FORKS);
    assert_in_range(forks, PROCESSES / 2, PROCESSES + 4);
    int disk = attempt(&sandbox, TRY_FILL_DISK);
    assert_in_range(disk, DISK_MIB / 2, DISK_MIB);
    int memory = attempt(&sandbox, TRY_ALLOCATE);
    assert_in_range(memory, MEMORY_MIB / 2, MEMORY_MIB + 16);
    assert_in_range(attempt(&sandbox, TRY_FILL_DEVICES), 1, 4096);
    assert_in_range(attempt(&sandbox, TRY_FILL_SHARED), 1, 4096);
    assert_in_range(attempt(&sandbox, TRY_TERMINALS), 1, 64);
    leave(&sandbox);
}

static void gvisors_disk_is_bounded(void **state)
{
    (void)state;
    struct sandbox sandbox = running(SANDBOX_GVISOR);
    int disk = attempt(&sandbox, TRY_FILL_DISK);
    assert_in_range(disk, DISK_MIB / 2, DISK_MIB);
    leave(&sandbox);
}

static void ends_with(enum sandbox_tier tier, enum attempt what, enum sandbox_end end)
{
    struct sandbox_spec spec = spec_of(tier);
    spec.cpu_s = what == TRY_SPIN ? 2 : 0;
    spec.disk_mib = what == TRY_FILES_HOG ? 1024 : DISK_MIB; /* a disk for many of them */
    struct sandbox sandbox = running_with(&spec);
    order(&sandbox, what);
    assert_true(heard(&sandbox, MESSAGE_VMM_ENDED));
    assert_string_equal(sandbox_end_name(sandbox.end), sandbox_end_name(end));
    assert_true(sandbox.cpu_us >= (uint64_t)spec.cpu_s * 1000000);
    assert_true(end != SANDBOX_MEMORY || sandbox.peak_kib > (uint64_t)MEMORY_MIB * 1024);
    release(&sandbox);
}

static void memory_of_many_processes_ends_it(void **state)
{
    (void)state;
    ends_with(SANDBOX_CONTAINER, TRY_HOG, SANDBOX_MEMORY);
    ends_with(SANDBOX_GVISOR, TRY_HOG, SANDBOX_MEMORY);
    ends_with(SANDBOX_GVISOR, TRY_SHARED_HOG, SANDBOX_MEMORY);
}

/* Where no cgroup counts what the kernel keeps for a process, we do as far as it tells. */
static void memory_in_the_kernel_ends_it(void **state)
{
    (void)state;
    ends_with(SANDBOX_CONTAINER, TRY_PAGE_TABLES, SANDBOX_MEMORY);
    ends_with(SANDBOX_CONTAINER, TRY_SOCKET_MEMORY, SANDBOX_MEMORY);
    ends_with(SANDBOX_CONTAINER, TRY_FILES_HOG, SANDBOX_MEMORY);
}

static void cpu_time_ends_it(void **state)
{
    (void)state;
    ends_with(SANDBOX_CONTAINER, TRY_SPIN, SANDBOX_CPU_TIME);
    ends_with(SANDBOX_GVISOR, TRY_SPIN, SANDBOX_CPU_TIME);
}

static void it_ends_when_the_caller_is_gone(void **state)
{
    (void)state;
    for (int tier = SANDBOX_CONTAINER; tier <= SANDBOX_GVISOR; tier++) {
        struct sandbox sandbox = running((enum sandbox_tier)tier);
        order(&sandbox, TRY_HOG);
        shutdown(sandbox.stream, SHUT_RDWR);
        close(sandbox.stream);
        sandbox.stream = -1;
        assert_true(heard(&sandbox, MESSAGE_VMM_ENDED));
        assert_true(sandbox.end == SANDBOX_CLOSED || sandbox.end == SANDBOX_MEMORY);
        release(&sandbox);
    }
}

/* At each step of its life; release looks for what is left. */
static void killed_at_any_moment_it_leaves_nothing(void **state)
{
    (void)state;
    for (int tier = SANDBOX_CONTAINER; tier <= SANDBOX_GVISOR; tier++)
        for (int step = 0; step < 8; step++) {
            struct sandbox sandbox;
            struct sandbox_spec spec = spec_of((enum sandbox_tier)tier);
            spawn(&sandbox);
            if (step > 0)
                give(&sandbox, &spec, convict);
            if (step > 1 && !heard(&sandbox, MESSAGE_JAILED))
                fail_msg("%s", sandbox.detail);
            if (step > 2)
                tell(&sandbox, MESSAGE_VMM_GO, SPAN(""), NULL);
            if (step > 2 && step < 7)
                usleep((useconds_t)(1 << (step + 10))); /* 8 to 64 ms into the runtime's start */
            if (step == 7 && !heard(&sandbox, MESSAGE_VMM_RUNNING))
                fail_msg("%s", sandbox.detail);
            jail_kill(&sandbox.child);
            if (step == 0)
                sandbox.stream = -1;
            release(&sandbox);
        }
    char mounts[64];
    snprintf(mounts, sizeof mounts, "/tmp/bundle");
    assert_int_not_equal(access(mounts, F_OK), 0);
}

static void what_is_no_agent_is_told_as_a_reason(void **state)
{
    (void)state;
    struct sandbox sandbox;
    struct sandbox_spec spec = spec_of(SANDBOX_CONTAINER);
    _cleanup_close_ int none = open("/etc/passwd", O_RDONLY | O_CLOEXEC); /* no program */
    spawn(&sandbox);
    give(&sandbox, &spec, none);
    assert_true(heard(&sandbox, MESSAGE_JAILED));
    tell(&sandbox, MESSAGE_VMM_GO, SPAN(""), NULL);
    assert_false(heard(&sandbox, MESSAGE_VMM_RUNNING));
    assert_int_equal(sandbox.end, SANDBOX_FAILED);
    assert_non_null(strstr(sandbox.detail, "container exits with"));
    release(&sandbox);
}

static void an_image_that_does_not_fit_is_refused(void **state)
{
    (void)state;
    struct sandbox sandbox;
    struct sandbox_spec spec = spec_of(SANDBOX_CONTAINER);
    char path[128];
    snprintf(path, sizeof path, "%s/tree/huge", base);
    int file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    assert_int_equal(ftruncate(file, (off_t)DISK_MIB * 2 << 20), 0);
    close(file);
    spawn(&sandbox);
    give(&sandbox, &spec, convict);
    assert_false(heard(&sandbox, MESSAGE_JAILED));
    assert_int_equal(sandbox.end, SANDBOX_FAILED);
    assert_non_null(strstr(sandbox.detail, "No space"));
    unlink(path);
    release(&sandbox);
}

static const struct json *member(const struct json *object, const char *name)
{
    const struct json *value = json_member(object, name);
    assert_non_null(value);
    return value;
}

static void the_configuration_gives_no_power(void **state)
{
    (void)state;
    for (int tier = SANDBOX_CONTAINER; tier <= SANDBOX_GVISOR; tier++) {
        _cleanup_buffer_ struct buffer out = buffer_of(RUNNER_CONFIG_MAX);
        struct sandbox_spec spec = spec_of((enum sandbox_tier)tier);
        struct arena arena = arena_of(MIB(1));
        struct json config;
        runner_config(&out, (enum sandbox_tier)tier, &spec);
        assert_ok(buffer_check(&out, "config", &fault));
        assert_ok(json_parse(&config, &arena, buffer_span(&out), &fault));
        const struct json *process = member(&config, "process");
        assert_true(member(process, "noNewPrivileges")->kind == JSON_TRUE);
        const struct json *capabilities = member(process, "capabilities");
        static const char *const sets[] = {"bounding", "effective", "inheritable", "permitted",
                                           "ambient"};
        for (int i = 0; i < 5; i++)
            assert_int_equal(member(capabilities, sets[i])->count, 0);
        const struct json *kernel = member(&config, "linux");
        assert_int_equal(member(kernel, "namespaces")->count, 6);
        assert_int_equal(!json_member(kernel, "seccomp"), tier == SANDBOX_GVISOR);
        arena_free(&arena);
    }
}

static int prepare(void **state)
{
    (void)state;
    char path[160], to[160];
    static const char *const folders[] = {"tree", "tree/bin", "tree/tmp", "tree/etc", "tree/root"};
    snprintf(base, sizeof base, "/tmp/runner-test-XXXXXX");
    next_uid = UID_FIRST + (uid_t)getpid() * UIDS;
    if (getuid() != 0 || !mkdtemp(base) || chmod(base, 0755))
        return -1;
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        snprintf(path, sizeof path, "%s/%s", base, folders[i]);
        if (mkdir(path, 0755))
            return -1;
    }
    snprintf(path, sizeof path, "%s/tree/bin", base);
    _cleanup_close_ int bin = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    _cleanup_close_ int busybox = open("/bin/busybox", O_RDONLY | O_CLOEXEC);
    if (busybox < 0 || runner_copy_file(bin, "busybox", busybox, 0755, &fault) != OK
        || symlinkat("busybox", bin, "sh"))
        return -1;
    snprintf(path, sizeof path, "%s/tree", base);
    snprintf(to, sizeof to, "%s/empty", base);
    runner = open(runner_path, O_PATH | O_CLOEXEC);
    convict = open(convict_path, O_RDONLY | O_CLOEXEC);
    null = open("/dev/null", O_RDWR | O_CLOEXEC);
    tree = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return runner < 0 || convict < 0 || jail_empty_root(&empty_root, to, &fault) != OK
        || jail_filters(&filters, JAIL_RUNNER, &fault) != OK ? -1 : 0;
}

static int clean_up(void **state)
{
    (void)state;
    static const char *const names[] = {"tree/bin/sh", "tree/bin/busybox", "tree/huge"};
    static const char *const folders[] = {"tree/bin", "tree/tmp", "tree/etc", "tree/root", "tree",
                                          "empty", ""};
    char path[160];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", base, names[i]);
        unlink(path);
    }
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        snprintf(path, sizeof path, "%s/%s", base, folders[i]);
        rmdir(path);
    }
    return 0;
}

int main(int count, char **arguments)
{
    if (count != 3)
        return 2;
    runner_path = arguments[1];
    convict_path = arguments[2];
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_configuration_gives_no_power),
        cmocka_unit_test(nothing_leads_out_of_a_container),
        cmocka_unit_test(nothing_leads_out_of_gvisor),
        cmocka_unit_test(a_container_is_bounded),
        cmocka_unit_test(gvisors_disk_is_bounded),
        cmocka_unit_test(memory_of_many_processes_ends_it),
        cmocka_unit_test(memory_in_the_kernel_ends_it),
        cmocka_unit_test(cpu_time_ends_it),
        cmocka_unit_test(it_ends_when_the_caller_is_gone),
        cmocka_unit_test(killed_at_any_moment_it_leaves_nothing),
        cmocka_unit_test(what_is_no_agent_is_told_as_a_reason),
        cmocka_unit_test(an_image_that_does_not_fit_is_refused),
    };
    return cmocka_run_group_tests(tests, prepare, clean_up);
}
