/* sandbox_monitor.c: a bulkhead-vmm from its spawn to its end: blank, given a sandbox, its jail
 * read back, running its guest. What it may say in which state is a table in permits.c. */
#define _GNU_SOURCE
#include "supervisor/sandboxes.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum {
    PROBE_BOOTS = 2, /* a probe has the time of so many: a busy host is no proof */
    EXIT_DEADLINE_US = 5 * 1000 * 1000,
    STOP_DEADLINE_US = 2 * 1000 * 1000,
    CUT_DEADLINE_US = 5 * 1000 * 1000,
    REFILL_RETRY_US = 1000 * 1000,
    KILLED = 128 + 9,
    FORBIDDEN_CALL = 128 + 31,
};

/* ---- blanks ---- */

uint32_t monitors_coming(const struct supervisor *supervisor, enum child_kind kind)
{
    uint32_t count = 0;
    for (const struct child *at = supervisor->sandboxes.monitors; at; at = at->next)
        count += at->kind == kind && at->state <= CHILD_BLANK && !at->sandbox;
    return count;
}

static bool spawn(struct supervisor *supervisor, enum child_kind kind)
{
    struct sandboxes *sandboxes = &supervisor->sandboxes;
    struct fault fault;
    struct child *monitor = calloc(1, sizeof *monitor);
    if (!monitor)
        return false;
    *monitor = (struct child){.supervisor = supervisor, .kind = kind, .channel = -1,
                              .kms_end = -1, .index = ++sandboxes->monitors_made};
    if (child_spawn(monitor, supervisor->executables[kind], &fault) != OK) {
        log_event(LOG_ERROR, "monitor.spawn", "%s", fault.detail);
        free(monitor);
        return false;
    }
    monitor->next = sandboxes->monitors;
    sandboxes->monitors = monitor;
    return true;
}

static void on_refill(void *context)
{
    monitors_refill(context);
}

static void refill_later(struct supervisor *supervisor, int64_t after_us)
{
    struct fault fault;
    struct loop_timer *timer = &supervisor->sandboxes.refill_timer;
    if (timer->due_us == 0
        && loop_timer_start(supervisor->loop, timer, after_us, on_refill, supervisor, &fault) != OK)
        log_event(LOG_ERROR, "monitors.refill", "%s", fault.detail);
}

/* One for each sandbox that only waits for one, and some to spare where they are of use. */
static uint32_t wanted(const struct supervisor *supervisor, enum child_kind kind)
{
    bool spare = kind == CHILD_VMM && supervisor->sandboxes.microvm.state == MICROVM_WORKS;
    uint32_t count = spare ? BLANK_MONITORS : 0;
    for (const struct sandbox *at = supervisor->sandboxes.list; at; at = at->next)
        count += at->at == SANDBOX_WAITING && at->wants == kind;
    return count;
}

void monitors_refill(struct supervisor *supervisor)
{
    for (int kind = CHILD_VMM; kind <= CHILD_RUNNER; kind++) {
        if (supervisor->phase > PHASE_RUN || supervisor->executables[kind] < 0
            || monitors_coming(supervisor, (enum child_kind)kind)
                   >= wanted(supervisor, (enum child_kind)kind))
            continue;
        bool spawned = spawn(supervisor, (enum child_kind)kind); /* one a turn */
        refill_later(supervisor, spawned ? 0 : REFILL_RETRY_US);
    }
}

/* One that has this image's kernel, else one that has none yet. */
struct child *monitor_take(const struct sandbox *sandbox)
{
    char identity[IMAGE_IDENTITY_TEXT] = "";
    struct fault fault;
    struct child *fresh = NULL;
    if (sandbox->wants == CHILD_VMM
        && image_identity(identity, sandbox->supervisor, sandbox->spec.image, &fault) != OK)
        identity[0] = '\0'; /* handing the image in fails, too, and says why */
    for (struct child *at = sandbox->supervisor->sandboxes.monitors; at; at = at->next) {
        if (at->kind != sandbox->wants || at->state != CHILD_BLANK || at->sandbox)
            continue;
        if (at->image[0] && strcmp(at->image, identity) == 0)
            return at;
        fresh = at->image[0] ? fresh : at;
    }
    return fresh;
}

static void send_fd(struct child *monitor, enum vmm_fd kind, int fd)
{
    const uint8_t body = (uint8_t)kind;
    child_send(monitor, MESSAGE_VMM_FD, 0, (struct span){&body, 1}, &fd, 1);
}

static void send_kernel(struct child *monitor, const struct image_files *files)
{
    send_fd(monitor, VMM_FD_KERNEL, files->kernel);
    send_fd(monitor, VMM_FD_INITRAMFS, files->initramfs);
}

/* A spare one makes its VM and loads the kernel of the image that most will want, while nobody
 * waits for it. */
static void warm(struct child *monitor)
{
    char identity[IMAGE_IDENTITY_TEXT];
    struct supervisor *supervisor = monitor->supervisor;
    struct image_files files;
    struct fault fault;
    _cleanup_close_ int kvm = -1;
    if (image_identity(identity, supervisor, SANDBOX_FIRST_IMAGE, &fault) != OK
        || image_open(&files, supervisor, SANDBOX_FIRST_IMAGE, &fault) != OK)
        return; /* there is none: it stays fresh */
    if (kvm_open(&kvm, &fault) == OK) {
        send_fd(monitor, VMM_FD_KVM, kvm);
        send_kernel(monitor, &files);
        snprintf(monitor->image, sizeof monitor->image, "%s", identity);
    }
    image_close(&files);
}

void monitor_blank(struct child *monitor)
{
    struct supervisor *supervisor = monitor->supervisor;
    monitor->state = CHILD_BLANK;
    loop_timer_stop(supervisor->loop, &monitor->timer);
    bool awaited = false;
    for (const struct sandbox *at = supervisor->sandboxes.list; at; at = at->next)
        awaited |= at->at == SANDBOX_WAITING && at->wants == monitor->kind;
    if (monitor->kind == CHILD_VMM && !awaited)
        warm(monitor);
    sandboxes_count(supervisor);
    sandboxes_advance_later(supervisor);
}

void monitors_renew(struct supervisor *supervisor, const char *image)
{
    char identity[IMAGE_IDENTITY_TEXT];
    struct fault fault;
    if (image_identity(identity, supervisor, image, &fault) != OK)
        return;
    for (struct child *at = supervisor->sandboxes.monitors; at; at = at->next)
        if (!at->sandbox && at->image[0] && strcmp(at->image, identity) != 0)
            jail_kill(&at->jail);
}

/* ---- given a sandbox ---- */

static void on_boot_deadline(void *context)
{
    struct child *monitor = context;
    sandbox_end(monitor->sandbox, SANDBOX_FAILED, TIMED_OUT,
                monitor->state == CHILD_CLOSING ? "its monitor did not close its jail in time"
                                                : "its agent did not dial in time");
}

static void on_exit_deadline(void *context)
{
    child_fatal(context, "its guest has ended, but not it");
}

static status set_timer(struct child *monitor, int64_t after_us, loop_on_time *on_time,
                        struct fault *fault)
{
    return loop_timer_start(monitor->supervisor->loop, &monitor->timer, after_us, on_time, monitor,
                            fault);
}

static status take_slot(struct sandbox *sandbox, struct fault *fault)
{
    bool *slots = sandbox->supervisor->sandboxes.slots;
    for (uint32_t i = 0; i < SANDBOXES_MAX; i++) {
        if (slots[i])
            continue;
        slots[i] = true;
        sandbox->slot = i;
        return OK;
    }
    return FAIL(QUOTA_EXCEEDED, fault, "sandboxes: this node runs at most %d", SANDBOXES_MAX);
}

static status send_image(struct child *monitor, const struct sandbox_spec *spec,
                         struct fault *fault)
{
    struct image_files files;
    TRY(image_open(&files, monitor->supervisor, spec->image, fault));
    status fits = image_fits(&files, spec->memory_mib, fault);
    if (fits == OK) {
        if (!monitor->image[0])
            send_kernel(monitor, &files);
        send_fd(monitor, VMM_FD_ROOT, files.root);
        if (spec->disk_mib > 0)
            send_fd(monitor, VMM_FD_SCRATCH, files.scratch);
    }
    image_close(&files);
    return fits;
}

static status send_files(struct child *monitor, struct sandbox *sandbox,
                         struct fault *fault)
{
    const struct sandbox_spec *spec = &sandbox->spec;
    _cleanup_close_ int kvm = -1, tap = -1;
    if (!monitor->image[0]) {
        TRY(kvm_open(&kvm, fault));
        send_fd(monitor, VMM_FD_KVM, kvm);
    }
    TRY(send_image(monitor, spec, fault));
    if (spec->disk_mib > 0) {
        TRY(overlay_make(&sandbox->overlay, monitor->supervisor, child_uid(monitor), fault));
        send_fd(monitor, VMM_FD_OVERLAY, sandbox->overlay);
    }
    if (spec->net == SANDBOX_NET_ISOLATED) {
        TRY(tap_make(&tap, &monitor->jail, fault));
        send_fd(monitor, VMM_FD_TAP, tap);
    }
    if (spec->console) {
        send_fd(monitor, VMM_FD_CONSOLE, sandbox->console);
        cleanup_close(&sandbox->console); /* who reads a pipe is to see its end */
    }
    return OK;
}

/* Its network leads nowhere, so the address need only be a local one. */
static void send_start(struct child *monitor, const struct sandbox *sandbox)
{
    uint8_t storage[256];
    struct buffer body = buffer_over(storage, sizeof storage);
    const uint8_t mac[6] = {0x02, 0xb1, 0x4b, 0, (uint8_t)(sandbox->slot >> 8),
                            (uint8_t)sandbox->slot};
    struct sandbox_spec spec = sandbox->spec;
    spec.weakest = (uint8_t)sandbox->tier; /* what a runner is to be */
    sandbox_spec_put(&body, &spec);
    buffer_put(&body, SPAN_OF(mac));
    assert(!body.failed);
    child_send(monitor, MESSAGE_VMM_START, 0, buffer_span(&body), NULL, 0);
}

static void on_cut(void *context)
{
    sandbox_end(context, SANDBOX_CLOSED, UNAVAILABLE, "who ran it is gone, and it went on");
}

/* An honest monitor has seen it as well, and is at its guest's end. */
static void on_hung_up(void *context, uint32_t events)
{
    struct sandbox *sandbox = context;
    struct fault fault;
    (void)events;
    sandbox->line = loop_unwatch(sandbox->supervisor->loop, sandbox->line);
    if (loop_timer_start(sandbox->supervisor->loop, &sandbox->cut, CUT_DEADLINE_US, on_cut,
                         sandbox, &fault) != OK)
        on_cut(sandbox);
}

/* Of a monitor that a guest has taken over nobody knows whether it ends with its stream. */
static status watch_line(struct sandbox *sandbox, struct fault *fault)
{
    return loop_watch(&sandbox->line, sandbox->supervisor->loop, sandbox->stream, EPOLLHUP,
                      on_hung_up, sandbox, fault);
}

static void send_stream(struct child *monitor, const struct sandbox *sandbox)
{
    uint8_t storage[8];
    struct buffer body = buffer_over(storage, sizeof storage);
    buffer_put_u8(&body, VMM_STREAM_ACCEPT);
    buffer_put_u32(&body, SANDBOX_AGENT_PORT);
    child_send(monitor, MESSAGE_VMM_STREAM, 0, buffer_span(&body), &sandbox->stream, 1);
}

static status assume(struct child *monitor, struct sandbox *sandbox, struct fault *fault)
{
    TRY(take_slot(sandbox, fault));
    monitor->uid = monitor->supervisor->options.uid_base + SANDBOX_UID_OFFSET + sandbox->slot;
    TRY(jail_map(&monitor->jail, child_uid(monitor), child_uid(monitor), fault));
    if (monitor->kind == CHILD_RUNNER) {
        TRY(bounds_set_runner(monitor, sandbox, fault));
        TRY(runner_send_files(monitor, sandbox, fault));
    } else {
        TRY(bounds_set(monitor, &sandbox->spec, fault));
        TRY(send_files(monitor, sandbox, fault));
    }
    send_start(monitor, sandbox);
    send_stream(monitor, sandbox);
    TRY(watch_line(sandbox, fault));
    TRY(bounds_watch(sandbox, fault));
    int64_t boots = sandbox->probe ? PROBE_BOOTS : 1;
    int64_t boot_us = (int64_t)monitor->supervisor->options.sandbox_boot_seconds * 1000 * 1000;
    return set_timer(monitor, boots * boot_us, on_boot_deadline, fault);
}

void monitor_assume(struct child *monitor, struct sandbox *sandbox)
{
    struct fault fault;
    assert(monitor->state == CHILD_BLANK && !monitor->sandbox); /* one guest a process, once */
    monitor->sandbox = sandbox;
    monitor->state = CHILD_CLOSING;
    sandbox->monitor = monitor;
    sandbox->at = SANDBOX_BOOTING;
    loop_timer_stop(monitor->supervisor->loop, &sandbox->timer);
    sandboxes_count(monitor->supervisor);
    status assumed = assume(monitor, sandbox, &fault);
    if (assumed != OK)
        sandbox_end(sandbox, SANDBOX_FAILED, assumed, fault.detail);
}

uint32_t monitor_threads(const struct child *monitor)
{
    return monitor->sandbox ? monitor->sandbox->spec.vcpus + 1 : 1;
}

void monitor_verified(struct child *monitor)
{
    child_send(monitor, MESSAGE_VMM_GO, 0, (struct span){0}, NULL, 0);
}

static void on_stop_deadline(void *context)
{
    struct child *monitor = context;
    jail_kill(&monitor->jail);
}

/* One whose guest has ended is at its last words already, with a deadline of its own. */
bool monitor_stop(struct child *monitor)
{
    struct fault fault;
    struct sandbox *sandbox = monitor->sandbox;
    if (!sandbox->spec.console || sandbox->stopping || monitor->state < CHILD_JAILED)
        return false;
    sandbox->stopping = true;
    if (monitor->state == CHILD_PARKING)
        return true;
    child_send(monitor, MESSAGE_VMM_STOP, 0, (struct span){0}, NULL, 0);
    return set_timer(monitor, STOP_DEADLINE_US, on_stop_deadline, &fault) == OK;
}

/* ---- what it says ---- */

status monitor_running(struct child *monitor, uint64_t entered_us, uint64_t dialled_us,
                       struct fault *fault)
{
    struct sandbox *sandbox = monitor->sandbox;
    if (entered_us > dialled_us || dialled_us > INT64_MAX)
        return FAIL(BAD_REQUEST, fault, "VMM_RUNNING: dialled before it was entered");
    if (sandbox->stopping)
        return OK; /* that crossed ours */
    sandbox->entered_us = (int64_t)entered_us;
    sandbox->dialled_us = (int64_t)dialled_us;
    monitor->state = CHILD_SERVING;
    loop_timer_stop(monitor->supervisor->loop, &monitor->timer);
    sandbox_runs(sandbox);
    return OK;
}

/* Time, CPU time and memory are bounds of ours: whether one was over is not its word. */
static bool may_say(enum child_kind kind, uint8_t end)
{
    if (kind == CHILD_RUNNER && (end == SANDBOX_CPU_TIME || end == SANDBOX_MEMORY))
        return true; /* it has not run a byte of the guest, and looks where no cgroup does */
    return end >= SANDBOX_SHUTDOWN && end < SANDBOX_ENDS && end != SANDBOX_LIFETIME
        && end != SANDBOX_CPU_TIME && end != SANDBOX_MEMORY;
}

status monitor_guest_ended(struct child *monitor, uint8_t end, const char *detail,
                           struct fault *fault)
{
    struct sandbox *sandbox = monitor->sandbox;
    if (!may_say(monitor->kind, end) || !span_is_plain_text(span_of_text(detail)))
        return FAIL(BAD_REQUEST, fault, "VMM_ENDED: what no monitor may say (%u)", end);
    monitor_look(monitor);
    sandbox->said = (enum sandbox_end)end;
    snprintf(monitor->detail, sizeof monitor->detail, "%s", detail);
    monitor->state = CHILD_PARKING;
    return set_timer(monitor, EXIT_DEADLINE_US, on_exit_deadline, fault);
}

/* ---- its end ---- */

static uint64_t whole_us(const struct rusage *rusage)
{
    return (uint64_t)(rusage->ru_utime.tv_sec + rusage->ru_stime.tv_sec) * 1000000
         + (uint64_t)(rusage->ru_utime.tv_usec + rusage->ru_stime.tv_usec);
}

static void note_used(struct sandbox *sandbox, uint64_t cpu_us, uint64_t peak_kib)
{
    if (cpu_us > sandbox->cpu_us)
        sandbox->cpu_us = cpu_us;
    if (peak_kib > sandbox->peak_kib)
        sandbox->peak_kib = peak_kib;
}

status monitor_used(struct child *runner, uint64_t cpu_us, uint64_t peak_kib, struct fault *fault)
{
    if (cpu_us > INT64_MAX || peak_kib > INT64_MAX)
        return FAIL(BAD_REQUEST, fault, "VMM_USED: more than there can be");
    note_used(runner->sandbox, cpu_us, peak_kib);
    return OK;
}

void monitor_look(struct child *monitor)
{
    siginfo_t info = {0};
    struct rusage rusage;
    struct jail_used used = {0};
    if (!child_runs_sandbox(monitor) || !monitor->sandbox)
        return;
    struct sandbox *sandbox = monitor->sandbox;
    jail_read_used(&used, &monitor->jail);
    /* VmHWM is gone when a process has ended; what waits to be reaped has its rusage */
    if (syscall(SYS_waitid, P_PIDFD, monitor->jail.pidfd, &info, WEXITED | WNOHANG | WNOWAIT,
                &rusage) == 0 && info.si_pid != 0 && rusage.ru_maxrss > 0) {
        used.peak_kib = (uint64_t)rusage.ru_maxrss;
        used.cpu_us = whole_us(&rusage); /* of a runner: with all that it has reaped */
    }
    note_used(sandbox, used.cpu_us, used.peak_kib);
}

static void describe_death(char detail[SANDBOX_REASON_TEXT], const struct child *monitor,
                           int exit_code)
{
    if (monitor->detail[0])
        snprintf(detail, SANDBOX_REASON_TEXT, "%.*s", SANDBOX_REASON_TEXT - 1, monitor->detail);
    else if (exit_code == FORBIDDEN_CALL)
        snprintf(detail, SANDBOX_REASON_TEXT, "its monitor made a system call that its jail "
                 "forbids");
    else if (exit_code > 128)
        snprintf(detail, SANDBOX_REASON_TEXT, "its monitor died of signal %d", exit_code - 128);
    else
        snprintf(detail, SANDBOX_REASON_TEXT, "its monitor exited with %d", exit_code);
}

static bool cpu_time_was_over(const struct sandbox *sandbox)
{
    return sandbox->spec.cpu_s && sandbox->cpu_us >= (uint64_t)sandbox->spec.cpu_s * 1000000;
}

/* Our own decision is first, then what the kernel says, then what the monitor said. */
static void judge(struct sandbox *sandbox, const struct child *monitor, int exit_code)
{
    char name[24];
    const bool failed = sandbox->end == SANDBOX_FAILED;
    if ((sandbox->end == 0 || failed) && exit_code == KILLED && bounds_memory_was_over(monitor)) {
        sandbox->end = SANDBOX_MEMORY;
        snprintf(sandbox->detail, sizeof sandbox->detail, "its memory was over");
    } else if (sandbox->end == 0 && exit_code == KILLED && cpu_time_was_over(sandbox)) {
        sandbox->end = SANDBOX_CPU_TIME; /* RLIMIT_CPU was before our own look at it */
        snprintf(sandbox->detail, sizeof sandbox->detail, "its CPU time was over");
    } else if (sandbox->end == 0) {
        sandbox->end = sandbox->said ? sandbox->said : SANDBOX_FAILED;
        if (!sandbox->said || monitor->detail[0])
            describe_death(sandbox->detail, monitor, exit_code);
    }
    if (exit_code != 0 && exit_code != KILLED)
        log_event(LOG_ERROR, "monitor.died", "%s of sandbox %llu: exit %d, %s",
                  child_name(name, monitor), (unsigned long long)sandbox->id, exit_code,
                  monitor->detail[0] ? monitor->detail : "-");
}

/* Where even the blanks die, nobody waits for one. */
static void refuse_waiting(struct supervisor *supervisor, enum child_kind kind,
                           const char *detail)
{
    struct sandbox *next;
    for (struct sandbox *at = supervisor->sandboxes.list; at; at = next) {
        next = at->next;
        if (at->at == SANDBOX_WAITING && at->wants == kind)
            sandbox_end(at, SANDBOX_FAILED, UNAVAILABLE, detail);
    }
}

static void blank_ended(struct child *monitor, int exit_code)
{
    char detail[SANDBOX_REASON_TEXT];
    struct supervisor *supervisor = monitor->supervisor;
    if (supervisor->phase > PHASE_RUN)
        return;
    describe_death(detail, monitor, exit_code);
    log_event(LOG_ERROR, "monitor.died", "blank vmm-%u: exit %d, %s", monitor->index, exit_code,
              detail);
    refuse_waiting(supervisor, monitor->kind, detail);
}

void monitor_ended(struct child *monitor, int exit_code)
{
    struct supervisor *supervisor = monitor->supervisor;
    struct sandbox *sandbox = monitor->sandbox;
    struct child **at = &supervisor->sandboxes.monitors;
    while (*at != monitor)
        at = &(*at)->next;
    *at = monitor->next;
    if (sandbox) {
        judge(sandbox, monitor, exit_code);
        sandbox->monitor = NULL;
    }
    child_forget(monitor); /* the cgroup and every descriptor */
    if (sandbox)
        sandbox_gone(sandbox);
    else
        blank_ended(monitor, exit_code);
    free(monitor);
    sandboxes_count(supervisor);
    if (supervisor->phase > PHASE_RUN)
        phases_advance(supervisor);
    else
        refill_later(supervisor, sandbox ? 0 : REFILL_RETRY_US);
}
