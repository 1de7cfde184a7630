#include "vmm/monitor.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "vmm/machine.h"
#include "vmm/virtio/devices.h"
#include "wire/messages.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { SEND_WAIT_MS = 5000, SECTOR = 512, ENDED_BODY_MAX = 512 };

/* No console but by choice, nothing probed that is not there, no second thought about a CPU that
 * KVM vouches for. */
#define COMMAND_LINE                                                                             \
    "reboot=k panic=-1 pci=off 8250.nr_uarts=%d %s cryptomgr.notests random.trust_cpu=on "       \
    "swiotlb=noforce no_timer_check tsc=reliable rcupdate.rcu_expedited=1"

struct monitor {
    int supervisor;
    struct loop *loop;
    const struct monitor_jail *jail;
    struct machine *machine;
    struct virtio_device *vsock;
    struct loop_source *source;
    struct sandbox_spec spec;
    uint8_t mac[6];
    int fds[VMM_FDS]; /* by kind; -1: has not come, or was taken */
    bool had[VMM_FDS];
    bool running, told_running, over, stopped;
    bool console_is_file; /* the other kind is a pipe */
    status result; /* of the whole run, when over */
    struct fault fault;
    status early; /* of what a blank did ahead: told when somebody waits for it */
    struct fault early_fault;
    int64_t started; /* VMM_START came */
    uint8_t *storage;
};

static status tell(struct monitor *monitor, uint32_t type, struct span body, struct fault *fault)
{
    return ipc_send_wait(monitor->supervisor, type, 0, body, NULL, 0, SEND_WAIT_MS, fault);
}

static void finish(struct monitor *monitor, status result)
{
    if (monitor->over)
        return;
    monitor->over = true;
    monitor->result = result;
    loop_stop(monitor->loop);
}

static status tell_ended(struct monitor *monitor, enum sandbox_end end, const char *detail,
                         struct fault *fault)
{
    uint8_t storage[ENDED_BODY_MAX];
    struct buffer body = buffer_over(storage, sizeof storage);
    buffer_put_u8(&body, (uint8_t)end);
    buffer_put_text_field(&body, detail);
    TRY(buffer_check(&body, "VMM_ENDED", fault));
    return tell(monitor, MESSAGE_VMM_ENDED, buffer_span(&body), fault);
}

static ssize_t write_console(const struct monitor *monitor, struct span text, size_t at)
{
    int fd = monitor->fds[VMM_FD_CONSOLE];
    struct span rest = {text.data + at, text.length - at};
    const struct iovec part = {(void *)(uintptr_t)rest.data, rest.length};
    return monitor->console_is_file ? pwritev(fd, &part, 1, (off_t)at) /* what a disk needs, too */
                                    : write(fd, rest.data, rest.length);
}

/* After the end was told: from then on a descriptor that holds us up does so for seconds. What a
 * pipe has no room for is lost, and nobody misses a console so much that a run fails. */
static void hand_over_console(struct monitor *monitor)
{
    _cleanup_buffer_ struct buffer text = buffer_of(SANDBOX_CONSOLE_BYTES);
    if (monitor->fds[VMM_FD_CONSOLE] < 0)
        return;
    machine_console(monitor->machine, &text);
    for (size_t at = 0; at < text.length;) {
        ssize_t written = write_console(monitor, buffer_span(&text), at);
        if (written <= 0)
            return;
        at += (size_t)written;
    }
}

static void on_ended(void *context, enum sandbox_end end, const char *detail)
{
    struct monitor *monitor = context;
    status told = tell_ended(monitor, end, detail, &monitor->fault);
    hand_over_console(monitor);
    finish(monitor, told);
}

/* ---- the life line: the agent's stream ---- */

static void on_agent(void *context)
{
    struct monitor *monitor = context;
    uint8_t storage[16];
    struct buffer body = buffer_over(storage, sizeof storage);
    if (monitor->told_running)
        return;
    monitor->told_running = true;
    int64_t entered = machine_timeline(monitor->machine)->entered;
    buffer_put_u64(&body, (uint64_t)(entered - monitor->started));
    buffer_put_u64(&body, (uint64_t)(clock_monotonic_us() - monitor->started));
    if (tell(monitor, MESSAGE_VMM_RUNNING, buffer_span(&body), &monitor->fault) != OK)
        finish(monitor, CLOSED);
}

static void on_line_closed(void *context)
{
    struct monitor *monitor = context;
    machine_end(monitor->machine, SANDBOX_CLOSED, "its stream was closed");
}

static status take_stream(struct monitor *monitor, struct ipc_message *message,
                          struct fault *fault)
{
    struct cursor cursor = cursor_over(message->body);
    const struct vsock_listener line = {.accepted = on_agent, .closed = on_line_closed,
                                        .context = monitor};
    const struct vsock_listener nobody = {0};
    uint8_t how;
    uint32_t port;
    TRY(ipc_need_fds(message, 1, fault));
    TRY(cursor_u8(&how, &cursor, fault));
    TRY(cursor_u32(&port, &cursor, fault));
    TRY(cursor_end(&cursor, fault));
    if (how != VMM_STREAM_ACCEPT && how != VMM_STREAM_CONNECT)
        return FAIL(BAD_REQUEST, fault, "VMM_STREAM: no such way: %u", how);
    bool agent = how == VMM_STREAM_ACCEPT && port == SANDBOX_AGENT_PORT;
    return vsock_stream(monitor->vsock, take_fd(&message->fds[0]), port, (enum vmm_stream)how,
                        agent ? &line : &nobody, fault);
}

/* ---- the machine ---- */

static status file_bytes(uint64_t *ret, int fd, const char *what, struct fault *fault)
{
    struct stat file;
    if (fstat(fd, &file) || !S_ISREG(file.st_mode))
        return FAIL(BAD_REQUEST, fault, "%s: not a regular file", what);
    *ret = (uint64_t)file.st_size;
    return OK;
}

static struct device_place next_place(struct monitor *monitor)
{
    return (struct device_place){.host = machine_host(monitor->machine), .loop = monitor->loop,
                                 .line = machine_next_line(monitor->machine)};
}

static status add_block(struct monitor *monitor, const struct block_config *config,
                        struct fault *fault)
{
    struct virtio_device *device;
    struct device_place place = next_place(monitor);
    TRY(block_create(&device, config, &place, fault));
    return machine_add(monitor->machine, device, fault);
}

static status add_disks(struct monitor *monitor, struct fault *fault)
{
    const struct sandbox_spec *spec = &monitor->spec;
    struct block_config root = {.base = -1, .overlay = -1, .serial = "root",
                                .rate_bytes = spec->disk_bytes, .rate_ops = spec->disk_ops};
    struct block_config scratch = {.base = -1, .overlay = -1, .serial = "scratch",
                                   .bytes = (uint64_t)spec->disk_mib * MIB(1),
                                   .rate_bytes = spec->disk_bytes, .rate_ops = spec->disk_ops};
    if (monitor->fds[VMM_FD_ROOT] >= 0) {
        TRY(file_bytes(&root.bytes, monitor->fds[VMM_FD_ROOT], "root", fault));
        root.bytes -= root.bytes % SECTOR;
        root.base = take_fd(&monitor->fds[VMM_FD_ROOT]);
        TRY(add_block(monitor, &root, fault));
    }
    if (spec->disk_mib == 0)
        return OK;
    if (monitor->fds[VMM_FD_OVERLAY] < 0)
        return FAIL(BAD_REQUEST, fault, "a disk needs VMM_FD_OVERLAY");
    scratch.base = take_fd(&monitor->fds[VMM_FD_SCRATCH]);
    scratch.overlay = take_fd(&monitor->fds[VMM_FD_OVERLAY]);
    return add_block(monitor, &scratch, fault);
}

static status add_net(struct monitor *monitor, struct fault *fault)
{
    const struct sandbox_spec *spec = &monitor->spec;
    struct device_place place = next_place(monitor);
    struct virtio_device *device;
    if (spec->net == SANDBOX_NET_NONE)
        return OK;
    if (monitor->fds[VMM_FD_TAP] < 0)
        return FAIL(BAD_REQUEST, fault, "a network needs VMM_FD_TAP");
    struct net_config net = {.tap = take_fd(&monitor->fds[VMM_FD_TAP]),
                             .rate_bytes = spec->net_bytes, .rate_packets = spec->net_packets};
    memcpy(net.mac, monitor->mac, sizeof net.mac);
    TRY(net_create(&device, &net, &place, fault));
    return machine_add(monitor->machine, device, fault);
}

/* What lay in the file goes now: a run that was refused before has left it as it was. */
static status take_console(struct monitor *monitor, struct fault *fault)
{
    int fd = monitor->fds[VMM_FD_CONSOLE];
    struct stat info;
    if (monitor->spec.console != (fd >= 0))
        return FAIL(BAD_REQUEST, fault, "a console and VMM_FD_CONSOLE go together");
    if (fd < 0)
        return OK;
    if (fstat(fd, &info) || (!S_ISREG(info.st_mode) && !S_ISFIFO(info.st_mode)))
        return FAIL(BAD_REQUEST, fault, "console: neither a file nor a pipe");
    monitor->console_is_file = S_ISREG(info.st_mode);
    if (monitor->console_is_file && ftruncate(fd, 0))
        return FAIL(UNAVAILABLE, fault, "console: %s", strerror(errno));
    return OK;
}

/* In the order that docs/protocols.md gives them. */
static status add_devices(struct monitor *monitor, struct fault *fault)
{
    struct virtio_device *device;
    TRY(add_disks(monitor, fault));
    struct device_place place = next_place(monitor);
    TRY(vsock_create(&monitor->vsock, SANDBOX_GUEST_CID, &place, fault));
    TRY(machine_add(monitor->machine, monitor->vsock, fault));
    place = next_place(monitor);
    TRY(rng_create(&device, &place, fault));
    TRY(machine_add(monitor->machine, device, fault));
    place = next_place(monitor);
    TRY(balloon_create(&device, &place, fault));
    TRY(machine_add(monitor->machine, device, fault));
    return add_net(monitor, fault);
}

static status load(struct monitor *monitor, struct fault *fault)
{
    char line[512];
    bool console = monitor->spec.console;
    snprintf(line, sizeof line, COMMAND_LINE, console ? 1 : 0,
             console ? "console=ttyS0" : "quiet");
    const struct machine_source source = {.kernel = monitor->fds[VMM_FD_KERNEL],
                                          .initramfs = monitor->fds[VMM_FD_INITRAMFS],
                                          .command_line = line};
    if (!monitor->had[VMM_FD_KERNEL])
        return FAIL(BAD_REQUEST, fault, "VMM_FD_KERNEL has not come");
    TRY(machine_load(monitor->machine, &source, fault));
    cleanup_close(&monitor->fds[VMM_FD_KERNEL]);
    cleanup_close(&monitor->fds[VMM_FD_INITRAMFS]);
    return OK;
}

static status build(struct monitor *monitor, struct fault *fault)
{
    const struct machine_config config = {
        .memory_bytes = (uint64_t)monitor->spec.memory_mib * MIB(1), .vcpus = monitor->spec.vcpus,
        .huge_pages = monitor->spec.huge_pages, .console = monitor->spec.console,
        .broken_rules_max = SANDBOX_BROKEN_RULES_MAX};
    if (monitor->early != OK) {
        *fault = monitor->early_fault;
        return monitor->early;
    }
    if (!monitor->machine)
        return FAIL(BAD_REQUEST, fault, "VMM_FD_KVM has not come");
    TRY(take_console(monitor, fault));
    TRY(machine_build(monitor->machine, &config, monitor->loop, fault));
    TRY(add_devices(monitor, fault));
    return load(monitor, fault);
}

/* A blank that is given these early makes its VM and loads its kernel while nobody waits. */
static status preload(struct monitor *monitor, struct fault *fault)
{
    int *kernel = &monitor->fds[VMM_FD_KERNEL], *initramfs = &monitor->fds[VMM_FD_INITRAMFS];
    if (!monitor->machine || *kernel < 0 || *initramfs < 0)
        return OK;
    TRY(machine_preload(monitor->machine, *kernel, *initramfs, fault));
    cleanup_close(kernel);
    cleanup_close(initramfs);
    return OK;
}

/* A blank has nothing to say: one that could not be given a VM, or a kernel that can be loaded,
 * waits like any other, or the next would be made in its place, and fail like it, without end. */
static void act_ahead(struct monitor *monitor, enum vmm_fd kind)
{
    struct fault *fault = &monitor->early_fault;
    if (monitor->early == OK && kind == VMM_FD_KVM)
        monitor->early = machine_open(&monitor->machine, take_fd(&monitor->fds[VMM_FD_KVM]),
                                      fault);
    if (monitor->early == OK)
        monitor->early = preload(monitor, fault);
}

/* ---- the order of things ---- */

static status take_fd_message(struct monitor *monitor, struct ipc_message *message,
                              struct fault *fault)
{
    struct cursor cursor = cursor_over(message->body);
    uint8_t kind;
    TRY(ipc_need_fds(message, 1, fault));
    TRY(cursor_u8(&kind, &cursor, fault));
    TRY(cursor_end(&cursor, fault));
    if (kind < VMM_FD_KVM || kind > VMM_FD_CONSOLE || monitor->had[kind])
        return FAIL(BAD_REQUEST, fault, "VMM_FD: no such kind, or again: %u", kind);
    monitor->had[kind] = true;
    monitor->fds[kind] = take_fd(&message->fds[0]);
    act_ahead(monitor, (enum vmm_fd)kind);
    return OK;
}

static status take_start(struct monitor *monitor, struct ipc_message *message,
                         struct fault *fault)
{
    struct cursor cursor = cursor_over(message->body);
    monitor->started = clock_monotonic_us();
    TRY(ipc_need_fds(message, 0, fault));
    TRY(sandbox_spec_get(&monitor->spec, &cursor, fault));
    TRY(cursor_copy(monitor->mac, &cursor, sizeof monitor->mac, fault));
    return cursor_end(&cursor, fault);
}

static status await_start(struct monitor *monitor, struct fault *fault)
{
    TRY(tell(monitor, MESSAGE_VMM_BLANK, (struct span){0}, fault));
    while (!monitor->started) {
        struct ipc_message message;
        status taken;
        TRY(ipc_await(&message, monitor->supervisor, monitor->storage, -1, fault));
        if (message.type == MESSAGE_VMM_FD)
            taken = take_fd_message(monitor, &message, fault);
        else if (message.type == MESSAGE_VMM_START)
            taken = take_start(monitor, &message, fault);
        else
            taken = FAIL(BAD_REQUEST, fault, "message %#x before VMM_START", message.type);
        ipc_message_close(&message);
        TRY(taken);
    }
    return OK;
}

static status take_message(struct monitor *monitor, struct ipc_message *message,
                           struct fault *fault)
{
    switch (message->type) {
    case MESSAGE_VMM_STREAM: return take_stream(monitor, message, fault);
    case MESSAGE_VMM_GO:
        if (monitor->running || message->body.length || message->fd_count)
            return FAIL(BAD_REQUEST, fault, "VMM_GO: malformed, or again");
        monitor->running = true;
        machine_go(monitor->machine);
        return OK;
    case MESSAGE_VMM_STOP:
        if (!monitor->running || monitor->stopped || message->body.length || message->fd_count)
            return FAIL(BAD_REQUEST, fault, "VMM_STOP: malformed, early, or again");
        monitor->stopped = true;
        machine_end(monitor->machine, SANDBOX_CLOSED, "stopped");
        return OK;
    default: return FAIL(BAD_REQUEST, fault, "message %#x after VMM_START", message->type);
    }
}

static void on_supervisor(void *context, uint32_t events)
{
    struct monitor *monitor = context;
    struct ipc_message message;
    (void)events;
    while (!monitor->over) {
        status got = ipc_receive(&message, monitor->supervisor, monitor->storage,
                                 &monitor->fault);
        if (got == AGAIN)
            return;
        if (got == OK) {
            got = take_message(monitor, &message, &monitor->fault);
            ipc_message_close(&message);
        }
        if (got != OK)
            finish(monitor, got);
    }
}

static status seal_vcpu(void *context, struct fault *fault)
{
    const struct monitor *monitor = context;
    return monitor->jail->seal(JAIL_THREAD_VCPU, fault);
}

static status tell_jailed(struct monitor *monitor, const struct jail_proof *proof,
                          struct fault *fault)
{
    uint8_t storage[8];
    struct buffer body = buffer_over(storage, sizeof storage);
    buffer_put_u32(&body, proof->landlock_abi);
    buffer_put_u8(&body, proof->landlock_abi > 0);
    return tell(monitor, MESSAGE_JAILED, buffer_span(&body), fault);
}

static status close_jail(struct monitor *monitor, struct fault *fault)
{
    const struct machine_hooks hooks = {.ended = on_ended, .seal = seal_vcpu,
                                        .context = monitor};
    struct jail_proof proof;
    TRY(monitor->jail->enter(&proof, fault));
    TRY(machine_start(monitor->machine, &hooks, fault));
    TRY(monitor->jail->seal(JAIL_THREAD_MAIN, fault));
    return tell_jailed(monitor, &proof, fault);
}

static status prepare(struct monitor *monitor, struct fault *fault)
{
    TRY(await_start(monitor, fault));
    TRY(build(monitor, fault));
    TRY(loop_watch(&monitor->source, monitor->loop, monitor->supervisor, EPOLLIN, on_supervisor,
                   monitor, fault));
    return close_jail(monitor, fault);
}

static void release(struct monitor *monitor)
{
    loop_unwatch(monitor->loop, monitor->source);
    machine_free(monitor->machine);
    for (int kind = 0; kind < VMM_FDS; kind++)
        cleanup_close(&monitor->fds[kind]);
    free(monitor->storage);
}

/* What is on its way to us would, unread, cut off what we have said. */
static void drain(struct monitor *monitor)
{
    struct ipc_message message;
    struct fault fault;
    while (ipc_receive(&message, monitor->supervisor, monitor->storage, &fault) == OK)
        ipc_message_close(&message);
}

static status run(struct monitor *monitor, struct fault *fault)
{
    status prepared = prepare(monitor, fault);
    if (prepared == CLOSED)
        return CLOSED;
    if (prepared != OK) {
        status told = tell_ended(monitor, SANDBOX_FAILED, fault->detail, fault);
        drain(monitor);
        return told;
    }
    TRY(loop_run(monitor->loop, fault));
    if (monitor->result != OK)
        *fault = monitor->fault;
    return monitor->result;
}

status monitor_run(int supervisor, struct loop *loop, const struct monitor_jail *jail,
                   struct fault *fault)
{
    struct monitor monitor = {.supervisor = supervisor, .loop = loop, .jail = jail};
    for (int kind = 0; kind < VMM_FDS; kind++)
        monitor.fds[kind] = -1;
    monitor.storage = malloc(IPC_PACKET_MAX);
    if (!monitor.storage)
        return FAIL(INTERNAL, fault, "monitor: out of memory");
    status ran = run(&monitor, fault);
    release(&monitor);
    return ran;
}
