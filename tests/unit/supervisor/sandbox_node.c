#define _GNU_SOURCE
#include "sandbox_node.h"

#include "base/cleanup.h"
#include "base/clock.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mount.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmocka.h>

static char base[64];
char fake_path[PATH_MAX];
struct fault fault;
struct supervisor node;
int control_end;
static int open_before, nodes;
static uint8_t packet[IPC_PACKET_MAX];

void must(status code)
{
    if (code != OK)
        fail_msg("%s: %s", status_code(code), fault.detail);
}

/* ---- the node ---- */

static int count_open(void)
{
    int count = 0;
    DIR *entries = opendir("/proc/self/fd");
    assert_non_null(entries);
    while (readdir(entries))
        count++;
    closedir(entries);
    return count;
}

void write_file(int directory, const char *name, const char *content, mode_t mode)
{
    _cleanup_close_ int file = openat(directory, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC,
                                      mode);
    assert_true(file >= 0);
    assert_int_equal(write(file, content, strlen(content)), (ssize_t)strlen(content));
}

void make_image(const char *name)
{
    assert_int_equal(mkdirat(node.sandboxes.images, name, 0755), 0);
    _cleanup_close_ int image = openat(node.sandboxes.images, name, O_RDONLY | O_DIRECTORY);
    assert_true(image >= 0);
    write_file(image, "vmlinux", "kernel", 0644);
    write_file(image, "initramfs", "initramfs", 0644);
    write_file(image, "root.erofs", "root", 0644);
    write_file(image, "scratch.img", "scratch", 0644);
}

static void ignore_event(void *context, uint32_t events)
{
    (void)context, (void)events;
}

/* Control is this test. */
static void make_control(void)
{
    int ends[2];
    struct child *control = &node.services[1];
    must(ipc_pair(ends, &fault));
    *control = (struct child){.supervisor = &node, .kind = CHILD_CONTROL, .state = CHILD_SERVING,
                              .channel = ends[0], .kms_end = -1, .jail = {.pidfd = -1}};
    must(ipc_outbox_create(&control->outbox, control->channel, MIB(1), &fault));
    must(loop_watch(&control->channel_source, node.loop, control->channel, EPOLLIN, ignore_event,
                    NULL, &fault));
    control_end = ends[1];
}

static int open_fake(const char *mode)
{
    char path[128];
    struct stat info;
    snprintf(path, sizeof path, "%s/fake-%s", base, mode);
    unlink(path);
    _cleanup_close_ int from = open(fake_path, O_RDONLY | O_CLOEXEC);
    _cleanup_close_ int to = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);
    assert_true(from >= 0 && to >= 0 && fstat(from, &info) == 0);
    for (off_t left = info.st_size; left > 0;) {
        ssize_t sent = sendfile(to, from, NULL, (size_t)left);
        assert_true(sent > 0);
        left -= sent;
    }
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    return fd;
}

/* A node whose monitors all behave in this way. */
void node_begin(const char *mode, enum microvm_state state)
{
    char path[128];
    node = (struct supervisor){.phase = PHASE_RUN, .options = {.uid_base = UID_BASE,
                                                          .sandbox_boot_seconds = 30}};
    snprintf(path, sizeof path, "%s/data-%d", base, ++nodes);
    must(silos_open(&node.silos, path, false, &fault));
    must(sandboxes_open(&node, &fault));
    snprintf(path, sizeof path, "%s/empty", base);
    must(jail_empty_root(&node.empty_root, path, &fault));
    node.null = open("/dev/null", O_RDWR | O_CLOEXEC);
    node.stats = calloc(1, sizeof *node.stats);
    assert_non_null(node.stats);
    must(loop_create(&node.loop, &fault));
    must(jail_filters(&node.filters[CHILD_VMM], JAIL_VMM, &fault));
    jail_cgroups_open(&node.cgroups);
    node.executables[CHILD_VMM] = open_fake(mode);
    node.executables[CHILD_RUNNER] = node.sandboxes.agent = -1;
    make_control();
    make_image("base");
    node.sandboxes.microvm.state = state;
    open_before = count_open();
}

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *walk)
{
    (void)info, (void)type, (void)walk;
    return remove(path);
}

static void remove_data(void)
{
    char path[128];
    snprintf(path, sizeof path, "%s/data-%d", base, nodes);
    nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

void turn_until(bool (*done)(void))
{
    int64_t until_us = clock_monotonic_us() + PATIENCE_US;
    while (!done()) {
        must(loop_turn(node.loop, 50, &fault));
        if (clock_monotonic_us() > until_us)
            fail_msg("waited too long");
    }
}

static bool is_empty(void)
{
    return !sandboxes_any(&node);
}

bool no_sandbox(void)
{
    return !node.sandboxes.list;
}

/* Ends what is left, and looks for whatever a sandbox could leave behind. */
void node_end(void)
{
    close(node.executables[CHILD_VMM]);
    node.executables[CHILD_VMM] = -1; /* no more of them */
    sandboxes_stop_all(&node, "the test is over");
    turn_until(is_empty);
    assert_int_equal(count_open(), open_before - 1);
    for (int i = 0; i < SANDBOXES_MAX; i++)
        assert_false(node.sandboxes.slots[i]);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
    DIR *left = fdopendir(dup(node.sandboxes.directory));
    assert_non_null(left);
    for (const struct dirent *entry; (entry = readdir(left));)
        assert_true(entry->d_name[0] == '.');
    closedir(left);
    jail_cgroups_close(&node.cgroups);
    struct child *control = &node.services[1];
    loop_unwatch(node.loop, control->channel_source);
    ipc_outbox_free(control->outbox);
    loop_free(node.loop);
    free(node.stats);
    const int fds[] = {control->channel, control_end, node.null, node.empty_root,
                       node.filters[CHILD_VMM], node.sandboxes.images, node.sandboxes.directory,
                       node.silos.data, node.silos.silos, node.silos.run, node.silos.erased};
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
        close(fds[i]);
    remove_data();
}

/* ---- control's side ---- */

void from_control(uint32_t type, uint32_t id, struct span body, const int *fds,
                         uint32_t fd_count)
{
    struct ipc_message message = {.type = type, .id = id, .body = body, .fd_count = fd_count};
    for (uint32_t i = 0; i < fd_count; i++)
        message.fds[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 0);
    permits_handle(&node.services[1], &message);
    ipc_message_close(&message);
}

/* Returns who runs it: closing that ends it. */
int start(uint32_t id, const struct sandbox_spec *spec)
{
    return start_with(id, spec, -1);
}

int start_with(uint32_t id, const struct sandbox_spec *spec, int console)
{
    static const uint8_t tenant[TENANT_ID_BYTES] = {7};
    uint8_t storage[256];
    struct buffer body = buffer_over(storage, sizeof storage);
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    buffer_put(&body, SPAN_OF(tenant));
    sandbox_spec_put(&body, spec);
    const int fds[] = {ends[1], console};
    from_control(MESSAGE_SANDBOX_START, id, buffer_span(&body), fds, console >= 0 ? 2 : 1);
    close(ends[1]);
    return ends[0];
}

void stop(uint32_t id, uint64_t sandbox)
{
    uint8_t storage[8];
    struct buffer body = buffer_over(storage, sizeof storage);
    buffer_put_u64(&body, sandbox);
    from_control(MESSAGE_SANDBOX_STOP, id, buffer_span(&body), NULL, 0);
}

static struct ipc_message heard;

bool hears(void)
{
    status got = ipc_receive(&heard, control_end, packet, &fault);
    if (got != AGAIN)
        must(got);
    return got == OK;
}

/* The answer to id: its status; the cursor stands on the result. */
status answered(struct cursor *ret, uint32_t id)
{
    turn_until(hears);
    assert_int_equal(heard.type, MESSAGE_REPLY);
    assert_int_equal(heard.id, id);
    return reply_get_head(ret, &heard, &fault);
}

uint64_t started(uint32_t id)
{
    struct cursor result;
    uint64_t sandbox;
    uint8_t tier;
    must(answered(&result, id));
    must(cursor_u64(&sandbox, &result, &fault));
    must(cursor_u8(&tier, &result, &fault));
    must(cursor_end(&result, &fault));
    assert_int_equal(tier, SANDBOX_MICROVM);
    return sandbox;
}

struct gone gone(void)
{
    struct gone gone;
    turn_until(hears);
    assert_int_equal(heard.type, MESSAGE_SANDBOX_GONE);
    struct cursor body = cursor_over(heard.body);
    must(cursor_u64(&gone.id, &body, &fault));
    must(cursor_u8(&gone.end, &body, &fault));
    must(cursor_u64(&gone.cpu_us, &body, &fault));
    must(cursor_u64(&gone.peak_kib, &body, &fault));
    must(cursor_u64(&gone.wall_us, &body, &fault));
    must(cursor_text(gone.detail, sizeof gone.detail, &body, "detail", &fault));
    must(cursor_end(&body, &fault));
    return gone;
}

void refused(uint32_t id, status code, const char *part)
{
    struct cursor result;
    status said = answered(&result, id);
    if (said != code || !strstr(fault.detail, part))
        fail_msg("%s: %s; expected %s: ...%s...", status_code(said), fault.detail,
                 status_code(code), part);
}

int node_needs(int argc, char **argv)
{
    int kvm;
    if (argc != 2 || !realpath(argv[1], fake_path)) {
        fprintf(stderr, "usage: %s FAKE_MONITOR\n", argv[0]);
        return 2;
    }
    if (geteuid() != 0 || kvm_open(&kvm, &fault) != OK) {
        printf("needs root and /dev/kvm\n");
        return 77;
    }
    close(kvm);
    return 0;
}

int node_set_up(void **state)
{
    (void)state;
    snprintf(base, sizeof base, "/tmp/bulkhead-sandboxes-XXXXXX");
    return mkdtemp(base) && chmod(base, 0755) == 0 ? 0 : 1;
}

int node_tear_down(void **state)
{
    (void)state;
    return nftw(base, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}
