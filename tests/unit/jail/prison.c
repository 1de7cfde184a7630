#define _GNU_SOURCE
#include "prison.h"

#include "base/cursor.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>

static char base[64];
int prison_executable, prison_empty_root;
static int null, filters[JAIL_ROLES];
static uint8_t storage[IPC_PACKET_MAX];
struct fault fault;

void assert_ok(status code)
{
    if (code != OK)
        fail_msg("%s: %s", status_code(code), fault.detail);
}

uint32_t prison_heard(struct prison *prison, enum inmate_message expected)
{
    struct ipc_message message;
    uint32_t value;
    assert_ok(ipc_await(&message, prison->channel, storage, WAIT_MS, &fault));
    if (message.type == INMATE_FAULT)
        fail_msg("inmate: %.*s", SPAN_ARG(message.body));
    assert_int_equal(message.type, expected);
    struct cursor body = cursor_over(message.body);
    assert_ok(cursor_u32(&value, &body, &fault));
    return value;
}

void prison_order(struct prison *prison, enum inmate_message type, int value, const int *fds,
                  uint32_t count)
{
    uint8_t byte = (uint8_t)value;
    assert_ok(ipc_send(prison->channel, type, 0, (struct span){&byte, 1}, fds, count, &fault));
}

status prison_spawn(struct prison *ret, enum jail_role role, int cgroup)
{
    int ends[2];
    assert_ok(ipc_pair(ends, &fault));
    struct jail_plan plan = {
        .role = role, .executable = prison_executable, .name = "inmate", .null = null, .log = 2,
        .channel = ends[1], .empty_root = prison_empty_root, .filters = filters[role],
        .cgroup = cgroup};
    char name[32];
    snprintf(name, sizeof name, "inmate-%s", jail_role_name(role));
    plan.name = name;
    status code = jail_spawn(&ret->child, &plan, &fault);
    close(ends[1]);
    ret->channel = ends[0];
    return code;
}

struct prison prison_blank(enum jail_role role)
{
    struct prison prison = {0};
    assert_ok(prison_spawn(&prison, role, -1));
    prison.found = prison_heard(&prison, INMATE_BLANK);
    return prison;
}

void prison_close(struct prison *prison, enum inmate_closing how, const int *fds,
                         uint32_t count, uid_t uid)
{
    assert_ok(jail_map(&prison->child, uid, uid, &fault));
    prison_order(prison, INMATE_CLOSE, (int)how, fds, count);
    prison->abi = prison_heard(prison, INMATE_CLOSED);
}

int prison_release(struct prison *prison) /* its exit */
{
    struct pollfd process = {.fd = prison->child.pidfd, .events = POLLIN};
    int result = -1;
    close(prison->channel);
    assert_int_equal(poll(&process, 1, WAIT_MS), 1);
    assert_ok(jail_reap(&result, &prison->child, &fault));
    jail_child_close(&prison->child);
    return result;
}

void prison_path(char path[128], const char *name)
{
    snprintf(path, 128, "%s/%s", base, name);
}

static void write_file(const char *name, mode_t mode)
{
    char path[128];
    prison_path(path, name);
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
    assert_true(file >= 0 && write(file, "words", 5) == 5 && !fchmod(file, mode));
    close(file);
}

int prison_detached(const char *name, bool writable)
{
    char path[128];
    int result = -1;
    prison_path(path, name);
    _cleanup_close_ int directory = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    assert_ok(jail_detached(&result, directory, writable, &fault));
    return result;
}

/* A closed jail with the silo as directory 0 and the read-only second one as directory 1. */
static struct prison jailed(enum jail_role role)
{
    struct prison prison = prison_blank(role);
    int fds[2] = {prison_detached("silo", true), prison_detached("second", true)};
    prison_close(&prison, CLOSE_WELL, fds, 2, TENANT_UID);
    close(fds[0]);
    close(fds[1]);
    return prison;
}

static struct prison jailed_gateway(void)
{
    struct prison prison = prison_blank(JAIL_GATEWAY);
    struct sockaddr_in anywhere = {.sin_family = AF_INET,
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    _cleanup_close_ int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_int_equal(bind(listener, (void *)&anywhere, sizeof anywhere), 0);
    assert_int_equal(listen(listener, 1), 0);
    prison_close(&prison, CLOSE_WELL, &listener, 1, TENANT_UID);
    return prison;
}

/* Where there is no KVM, /dev/null stands for it: what is let through then fails otherwise. */
static struct prison jailed_vmm(void)
{
    struct prison prison = prison_blank(JAIL_VMM);
    _cleanup_close_ int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    prison_close(&prison, CLOSE_WELL, kvm < 0 ? &null : &kvm, 1, TENANT_UID);
    return prison;
}

struct prison prison_jailed(enum jail_role role)
{
    return role == JAIL_GATEWAY ? jailed_gateway() : role == JAIL_VMM ? jailed_vmm() : jailed(role);
}

uint32_t prison_attempt(struct prison *prison, enum inmate_attempt attempt)
{
    prison_order(prison, INMATE_ATTEMPT, (int)attempt, NULL, 0);
    return prison_heard(prison, INMATE_RESULT);
}

uint32_t prison_attempt_by_vcpu(struct prison *prison, enum inmate_attempt attempt)
{
    prison_order(prison, INMATE_THREAD, (int)attempt, NULL, 0);
    return prison_heard(prison, INMATE_RESULT);
}

void assert_killed(struct prison *prison, enum inmate_message by, enum inmate_attempt what)
{
    prison_order(prison, by, (int)what, NULL, 0);
    int result = prison_release(prison);
    if (result != 128 + SIGSYS)
        fail_msg("%s, attempt %d by %d: exit %d, expected SIGSYS",
                 jail_role_name(prison->child.role), (int)what, (int)by, result);
}

struct jail_expectation prison_expectation(const struct prison *prison)
{
    return (struct jail_expectation){.uid = TENANT_UID, .gid = TENANT_UID,
                                     .landlock_abi = prison->abi,
                                     .threads = prison->child.role == JAIL_VMM ? 1 + INMATE_VCPUS
                                                                               : 1};
}

void assert_refused(const struct prison *prison, const struct jail_expectation *expected,
                           const char *reason)
{
    struct jail_report report;
    assert_int_equal(jail_verify(&report, &prison->child, expected, &fault), FORBIDDEN_POLICY);
    if (!strstr(fault.detail, reason))
        fail_msg("refused for \"%s\", expected \"%s\"", fault.detail, reason);
}

int prison_prepare(void **state)
{
    (void)state;
    char path[128], to[128];
    snprintf(base, sizeof base, "/tmp/jail-test-XXXXXX");
    if (getuid() != 0 || !mkdtemp(base) || chmod(base, 0755))
        return -1;
    prison_executable = open("/proc/self/exe", O_PATH | O_CLOEXEC);
    null = open("/dev/null", O_RDWR | O_CLOEXEC);
    prison_path(path, "empty");
    if (jail_empty_root(&prison_empty_root, path, &fault) != OK)
        return -1;
    prison_path(to, "link-to-empty");
    if (symlink(path, to))
        return -1;
    for (int i = 0; i < 2; i++) {
        prison_path(path, i ? "second" : "silo");
        if (mkdir(path, 0700) || chown(path, TENANT_UID, TENANT_UID))
            return -1;
    }
    write_file("second/readable", 0644);
    write_file("outside", 0644);
    prison_path(path, "outside");
    prison_path(to, "silo/link");
    if (symlink("../outside", to))
        return -1;
    for (int role = 0; role < JAIL_ROLES; role++)
        if (jail_filters(&filters[role], (enum jail_role)role, &fault) != OK)
            return -1;
    return 0;
}

int prison_clean_up(void **state)
{
    (void)state;
    static const char *const names[] = {"silo/link", "second/readable", "outside", "link-to-empty"};
    static const char *const directories[] = {"silo/folder", "silo/root", "silo", "second",
                                              "empty", ""};
    char path[128];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        prison_path(path, names[i]);
        unlink(path);
    }
    for (size_t i = 0; i < sizeof directories / sizeof *directories; i++) {
        prison_path(path, directories[i]);
        rmdir(path);
    }
    return 0;
}

