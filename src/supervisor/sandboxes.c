/* sandboxes.c: from SANDBOX_START to SANDBOX_GONE. */
#define _GNU_SOURCE
#include "supervisor/sandboxes.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/hex.h"
#include "base/log.h"

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    STOPS_MAX = 64,
    GONE_MAX = 64 + SANDBOX_REASON_TEXT,
    WAIT_BOOTS = 3, /* a probe fits, and what comes after it */
};

status sandboxes_open(struct supervisor *supervisor, struct fault *fault)
{
    struct sandboxes *sandboxes = &supervisor->sandboxes;
    sandboxes->microvm.probe_end = -1;
    for (int tier = 0; tier < SANDBOX_MICROVM; tier++)
        sandboxes->runners[tier].probe_end = -1;
    /* ids of an earlier run, in the ledger and in people's notes, are not met again */
    sandboxes->next_id = (uint64_t)clock_wall_us() / 1000;
    return images_open(&sandboxes->images, &sandboxes->directory, supervisor, fault);
}

void sandboxes_count(struct supervisor *supervisor)
{
    struct sandboxes *sandboxes = &supervisor->sandboxes;
    struct stats *stats = &supervisor->stats->slots[0];
    uint64_t alive = 0, blanks = 0;
    sandboxes->count = 0;
    for (const struct sandbox *sandbox = sandboxes->list; sandbox; sandbox = sandbox->next) {
        sandboxes->count++;
        alive += !sandbox->probe && sandbox->monitor;
    }
    for (const struct child *monitor = sandboxes->monitors; monitor; monitor = monitor->next)
        blanks += monitor->state == CHILD_BLANK;
    stats_set(&stats->sandboxes_alive, alive);
    stats_set(&stats->monitors_ready, blanks);
}

static void on_waited(void *context)
{
    sandbox_end(context, SANDBOX_FAILED, UNAVAILABLE, "no monitor came in time");
}

struct sandbox *sandbox_new(struct supervisor *supervisor, const struct sandbox_spec *spec,
                            int stream)
{
    struct fault fault;
    struct sandbox *sandbox = calloc(1, sizeof *sandbox);
    if (!sandbox) {
        close(stream);
        return NULL;
    }
    *sandbox = (struct sandbox){.supervisor = supervisor, .spec = *spec, .stream = stream,
                                .console = -1, .overlay = -1,
                                .id = supervisor->sandboxes.next_id++, .slot = SANDBOX_NO_SLOT,
                                .wants = CHILD_KINDS,
                                .begun_us = clock_monotonic_us(), .code = UNAVAILABLE,
                                .next = supervisor->sandboxes.list};
    int64_t wait_us = (int64_t)supervisor->options.sandbox_boot_seconds * WAIT_BOOTS * 1000 * 1000;
    if (loop_timer_start(supervisor->loop, &sandbox->timer, wait_us, on_waited, sandbox, &fault)
        != OK) {
        free(sandbox);
        close(stream);
        return NULL;
    }
    supervisor->sandboxes.list = sandbox;
    sandboxes_count(supervisor);
    sandboxes_advance_later(supervisor);
    return sandbox;
}

static void answer(const struct sandbox *sandbox, uint32_t request, status code,
                   const char *detail)
{
    child_reply(service_control(sandbox->supervisor), request, code, detail);
}

/* ---- the way in ---- */

/* What a caller handed in travels on as it is: anything but a stream of bytes between two processes
 * of this host could do more to the monitor than speak. */
static bool is_stream(int fd)
{
    int type = 0, domain = 0, listens = 1;
    socklen_t length = sizeof type;
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length)
        || getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length)
        || getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &length))
        return false;
    return type == SOCK_STREAM && domain == AF_UNIX && !listens;
}

/* What could not be written to, or would be waited for, is refused before a guest has run. */
static status check_console(int fd, struct fault *fault)
{
    struct stat info;
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fstat(fd, &info) || flags & O_PATH || (flags & O_ACCMODE) == O_RDONLY
        || (!S_ISREG(info.st_mode) && !S_ISFIFO(info.st_mode)))
        return FAIL(BAD_REQUEST, fault, "console: must be a file or a pipe, open for writing");
    if (S_ISFIFO(info.st_mode) && !(flags & O_NONBLOCK))
        return FAIL(BAD_REQUEST, fault, "console: a pipe must be non-blocking");
    return OK;
}

static status may_start(const struct supervisor *supervisor, int stream, int console,
                        struct fault *fault)
{
    if (supervisor->phase > PHASE_RUN)
        return FAIL(UNAVAILABLE, fault, "stopping");
    if (supervisor->sandboxes.count >= SANDBOXES_MAX)
        return FAIL(QUOTA_EXCEEDED, fault, "sandboxes: this node runs at most %d", SANDBOXES_MAX);
    if (!is_stream(stream))
        return FAIL(BAD_REQUEST, fault, "stream: must be one end of a pair of Unix stream "
                    "sockets");
    return console < 0 ? OK : check_console(console, fault);
}

void sandboxes_start(struct supervisor *supervisor, uint32_t request,
                     const uint8_t tenant[TENANT_ID_BYTES], const struct sandbox_spec *spec,
                     int stream, int console)
{
    char identity[IMAGE_IDENTITY_TEXT];
    struct fault fault;
    struct sandbox *sandbox = NULL;
    _cleanup_close_ int terminal = console;
    status may = may_start(supervisor, stream, console, &fault);
    if (may == OK)
        may = image_identity(identity, supervisor, spec->image, &fault);
    if (may != OK)
        close(stream);
    else
        sandbox = sandbox_new(supervisor, spec, stream);
    if (!sandbox) {
        child_reply(service_control(supervisor), request, may == OK ? UNAVAILABLE : may,
                    may == OK ? "out of memory" : fault.detail);
        return;
    }
    memcpy(sandbox->tenant, tenant, TENANT_ID_BYTES);
    sandbox->request = request;
    sandbox->console = take_fd(&terminal);
}

static bool stream_is_shut(const struct sandbox *sandbox)
{
    struct pollfd stream = {.fd = sandbox->stream};
    return poll(&stream, 1, 0) > 0 && stream.revents & (POLLHUP | POLLERR | POLLNVAL);
}

static void advance(struct sandbox *sandbox)
{
    struct supervisor *supervisor = sandbox->supervisor;
    struct fault fault;
    if (stream_is_shut(sandbox)) {
        sandbox_end(sandbox, SANDBOX_CLOSED, UNAVAILABLE, "who asked for it is gone");
        return;
    }
    status works = OK;
    sandbox->tier = (enum sandbox_tier)sandbox->spec.weakest; /* of a probe */
    sandbox->wants = CHILD_KINDS;
    if (!sandbox->probe)
        works = tier_choose(&sandbox->tier, supervisor, &sandbox->spec, &fault);
    if (works == AGAIN)
        return;
    if (works != OK) {
        sandbox_end(sandbox, SANDBOX_FAILED, works, fault.detail);
        return;
    }
    sandbox->wants = sandbox->tier == SANDBOX_MICROVM ? CHILD_VMM : CHILD_RUNNER;
    struct child *monitor = monitor_take(sandbox);
    if (monitor)
        monitor_assume(monitor, sandbox);
}

static void advance_all(void *context)
{
    struct supervisor *supervisor = context;
    struct sandbox *next;
    for (struct sandbox *at = supervisor->sandboxes.list; at; at = next) {
        next = at->next; /* looking at one takes no other off the list */
        if (at->at == SANDBOX_WAITING)
            advance(at);
    }
    monitors_refill(supervisor);
}

void sandboxes_advance_later(struct supervisor *supervisor)
{
    struct fault fault;
    struct loop_timer *timer = &supervisor->sandboxes.advance_timer;
    if (timer->due_us == 0
        && loop_timer_start(supervisor->loop, timer, 0, advance_all, supervisor, &fault) != OK)
        log_event(LOG_ERROR, "sandboxes.timer", "%s", fault.detail);
}

/* ---- running ---- */

static void on_lifetime(void *context)
{
    sandbox_end(context, SANDBOX_LIFETIME, UNAVAILABLE, "its time was over");
}

void sandbox_runs(struct sandbox *sandbox)
{
    struct supervisor *supervisor = sandbox->supervisor;
    uint8_t storage[64];
    struct buffer reply = buffer_over(storage, sizeof storage);
    struct fault fault;
    sandbox->at = SANDBOX_RUNNING;
    if (sandbox->probe) {
        sandbox_end(sandbox, SANDBOX_CLOSED, OK, "");
        return;
    }
    if (loop_timer_start(supervisor->loop, &sandbox->timer,
                         (int64_t)sandbox->spec.lifetime_s * 1000 * 1000, on_lifetime, sandbox,
                         &fault) != OK) {
        sandbox_end(sandbox, SANDBOX_FAILED, UNAVAILABLE, fault.detail);
        return;
    }
    if (sandbox->request == 0)
        return; /* it is being ended */
    reply_put_head(&reply, OK, NULL);
    buffer_put_u64(&reply, sandbox->id);
    buffer_put_u8(&reply, (uint8_t)sandbox->tier);
    child_send(service_control(supervisor), MESSAGE_REPLY, sandbox->request, buffer_span(&reply),
               NULL, 0);
    sandbox->request = 0;
    sandbox->told = true;
    stats_add(&supervisor->stats->slots[0].sandboxes_started, 1);
}

/* ---- the way out ---- */

/* For anything but its monitor's end. */
static void stop_waiting(struct sandbox *sandbox)
{
    struct loop *loop = sandbox->supervisor->loop;
    loop_timer_stop(loop, &sandbox->timer);
    loop_timer_stop(loop, &sandbox->cpu);
    loop_timer_stop(loop, &sandbox->cut);
    sandbox->line = loop_unwatch(loop, sandbox->line);
}

void sandbox_end(struct sandbox *sandbox, enum sandbox_end end, status code, const char *detail)
{
    if (sandbox->end == 0) {
        sandbox->end = end;
        sandbox->code = code;
        snprintf(sandbox->detail, sizeof sandbox->detail, "%s", detail);
    }
    stop_waiting(sandbox);
    if (!sandbox->monitor) {
        sandbox_gone(sandbox);
        return;
    }
    monitor_look(sandbox->monitor);
    if (!monitor_stop(sandbox->monitor))
        jail_kill(&sandbox->monitor->jail);
}

struct owed { /* a SANDBOX_GONE */
    struct owed *next;
    size_t length;
    uint8_t body[GONE_MAX];
};

/* What could not be kept is in the log. */
static void owe(struct supervisor *supervisor, struct span body)
{
    struct owed *owed = malloc(sizeof *owed);
    if (!owed)
        return;
    *owed = (struct owed){.next = supervisor->sandboxes.owed, .length = body.length};
    memcpy(owed->body, body.data, body.length);
    supervisor->sandboxes.owed = owed;
}

void sandboxes_tell_owed(struct supervisor *supervisor)
{
    while (supervisor->sandboxes.owed) {
        struct owed *owed = supervisor->sandboxes.owed;
        supervisor->sandboxes.owed = owed->next;
        child_send(service_control(supervisor), MESSAGE_SANDBOX_GONE, 0,
                   (struct span){owed->body, owed->length}, NULL, 0);
        free(owed);
    }
}

static void tell_gone(const struct sandbox *sandbox)
{
    struct child *control = service_control(sandbox->supervisor);
    uint8_t storage[GONE_MAX];
    struct buffer body = buffer_over(storage, sizeof storage);
    buffer_put_u64(&body, sandbox->id);
    buffer_put_u8(&body, (uint8_t)sandbox->end);
    buffer_put_u64(&body, sandbox->cpu_us);
    buffer_put_u64(&body, sandbox->peak_kib);
    buffer_put_u64(&body, (uint64_t)(clock_monotonic_us() - sandbox->begun_us));
    buffer_put_text_field(&body, sandbox->detail);
    if (control->state == CHILD_SERVING)
        child_send(control, MESSAGE_SANDBOX_GONE, 0, buffer_span(&body), NULL, 0);
    else
        owe(sandbox->supervisor, buffer_span(&body));
}

static void log_gone(const struct sandbox *sandbox)
{
    char tenant[TENANT_ID_TEXT];
    const bool ours = sandbox->end == SANDBOX_FAILED || sandbox->end == SANDBOX_HOSTILE;
    hex_encode(tenant, SPAN_OF(sandbox->tenant));
    log_event(ours && !sandbox->probe ? LOG_WARN : LOG_INFO,
              sandbox->probe ? "probe.gone" : "sandbox.gone",
              "%llu of tenant %s, %s, %llu ms of CPU, %llu KiB: %s%s%s",
              (unsigned long long)sandbox->id, tenant, sandbox_tier_name(sandbox->tier),
              (unsigned long long)sandbox->cpu_us / 1000, (unsigned long long)sandbox->peak_kib,
              sandbox_end_name(sandbox->end), sandbox->detail[0] ? ", " : "", sandbox->detail);
}

static void unlink_sandbox(struct sandbox *sandbox)
{
    struct sandbox **at = &sandbox->supervisor->sandboxes.list;
    while (*at != sandbox)
        at = &(*at)->next;
    *at = sandbox->next;
}

/* The detail of a failure, for who waits: why, and what it was that ended. */
static void answer_failed(struct sandbox *sandbox)
{
    char detail[SANDBOX_REASON_TEXT + 64];
    if (sandbox->at != SANDBOX_WAITING)
        snprintf(detail, sizeof detail, "the sandbox ended while it booted (%s): %s",
                 sandbox_end_name(sandbox->end), sandbox->detail);
    else
        snprintf(detail, sizeof detail, "%s", sandbox->detail);
    answer(sandbox, sandbox->request, sandbox->code == OK ? UNAVAILABLE : sandbox->code, detail);
    stats_add(&sandbox->supervisor->stats->slots[0].sandboxes_failed, 1);
}

void sandbox_gone(struct sandbox *sandbox)
{
    struct supervisor *supervisor = sandbox->supervisor;
    log_gone(sandbox);
    unlink_sandbox(sandbox);
    stop_waiting(sandbox);
    close(sandbox->stream);
    cleanup_close(&sandbox->console);
    cleanup_close(&sandbox->overlay);
    if (sandbox->slot != SANDBOX_NO_SLOT)
        supervisor->sandboxes.slots[sandbox->slot] = false;
    sandboxes_count(supervisor);
    if (sandbox->probe && sandbox->spec.weakest == SANDBOX_MICROVM)
        microvm_probed(sandbox);
    else if (sandbox->probe)
        runner_probed(sandbox);
    if (sandbox->told)
        tell_gone(sandbox);
    else if (sandbox->request)
        answer_failed(sandbox);
    while (sandbox->stops) {
        struct waiter *stop = sandbox->stops;
        sandbox->stops = stop->next;
        answer(sandbox, stop->request, OK, NULL);
        free(stop);
    }
    free(sandbox);
    sandboxes_advance_later(supervisor);
}

static struct sandbox *find(const struct supervisor *supervisor, uint64_t id)
{
    struct sandbox *sandbox = supervisor->sandboxes.list;
    while (sandbox && (sandbox->id != id || sandbox->probe))
        sandbox = sandbox->next;
    return sandbox;
}

static bool add_stop(struct sandbox *sandbox, uint32_t request)
{
    uint32_t count = 0;
    for (const struct waiter *at = sandbox->stops; at; at = at->next)
        count++;
    struct waiter *stop = count < STOPS_MAX ? malloc(sizeof *stop) : NULL;
    if (!stop)
        return false;
    *stop = (struct waiter){.request = request, .next = sandbox->stops};
    sandbox->stops = stop;
    return true;
}

void sandboxes_stop(struct supervisor *supervisor, uint64_t id, uint32_t request)
{
    struct sandbox *sandbox = find(supervisor, id);
    if (!sandbox) {
        child_reply(service_control(supervisor), request, OK, NULL);
    } else if (add_stop(sandbox, request)) {
        sandbox_end(sandbox, SANDBOX_CLOSED, UNAVAILABLE, "stopped");
    } else {
        answer(sandbox, request, UNAVAILABLE, "too many wait for the end of this sandbox");
    }
}

static void end_all(struct supervisor *supervisor, const char *why, bool probes)
{
    struct sandbox *next;
    for (struct sandbox *at = supervisor->sandboxes.list; at; at = next) {
        next = at->next;
        if (probes || !at->probe)
            sandbox_end(at, SANDBOX_CLOSED, UNAVAILABLE, why);
    }
}

bool sandboxes_stop_all(struct supervisor *supervisor, const char *why)
{
    end_all(supervisor, why, true);
    for (struct child *at = supervisor->sandboxes.monitors; at; at = at->next)
        if (!at->sandbox)
            jail_kill(&at->jail);
    return sandboxes_any(supervisor);
}

bool sandboxes_any(const struct supervisor *supervisor)
{
    return supervisor->sandboxes.list || supervisor->sandboxes.monitors;
}

/* The next control knows none of them: nobody would count them against a quota. That each has ended
 * it hears, for the ledger. */
void sandboxes_forget_requests(struct supervisor *supervisor)
{
    for (struct sandbox *at = supervisor->sandboxes.list; at; at = at->next) {
        at->request = 0;
        while (at->stops) {
            struct waiter *stop = at->stops;
            at->stops = stop->next;
            free(stop);
        }
    }
    end_all(supervisor, "control ended", false);
}
