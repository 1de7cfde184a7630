/* sandbox_probe.c: whether microVMs work here. Nothing short of booting tells: a host may have
 * /dev/kvm, take every call, and then only emulate what a guest's kernel does. So the kernel of an
 * image is booted once, for real, by the way that every sandbox goes, bounded in CPU time and wall
 * time; what was found is kept while the host runs (sandbox_verdict.c). */
#define _GNU_SOURCE
#include "supervisor/sandboxes.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

enum {
    AGAIN_AFTER_US = 600 * 1000 * 1000, /* of what says more of the moment than of the host */
    APPEARED_AFTER_US = 1000 * 1000,    /* lets what makes the image come to its end */
};

status kvm_open(int *ret, struct fault *fault)
{
    _cleanup_close_ int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC | O_NOCTTY);
    if (kvm < 0 && (errno == EACCES || errno == EPERM))
        return FAIL(UNAVAILABLE, fault, "no permission: /dev/kvm: %s", strerror(errno));
    if (kvm < 0)
        return FAIL(UNAVAILABLE, fault, "absent: /dev/kvm: %s", strerror(errno));
    if (ioctl(kvm, KVM_GET_API_VERSION, 0) != KVM_API_VERSION)
        return FAIL(UNAVAILABLE, fault, "absent: /dev/kvm is not of version %d", KVM_API_VERSION);
    *ret = take_fd(&kvm);
    return OK;
}

/* ---- the probe ---- */

/* What is not up after so much of it is emulated, and would cost that each time. */
static uint32_t probe_cpu_seconds(const struct supervisor *supervisor)
{
    uint32_t seconds = supervisor->options.sandbox_boot_seconds * 2 / 3;
    return seconds > 0 ? seconds : 1;
}

static status begin(struct supervisor *supervisor, const char *image, const char *identity,
                    struct fault *fault)
{
    struct microvm *microvm = &supervisor->sandboxes.microvm;
    int ends[2];
    struct sandbox_spec spec = sandbox_spec_default();
    spec.weakest = SANDBOX_MICROVM;
    spec.cpu_s = probe_cpu_seconds(supervisor);
    span_to_text(spec.image, sizeof spec.image, span_of_text(image));
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends))
        return FAIL(FORBIDDEN_POLICY, fault, "could not be tried: %s", strerror(errno));
    struct sandbox *probe = sandbox_new(supervisor, &spec, ends[1]);
    if (!probe) {
        close(ends[0]);
        return FAIL(FORBIDDEN_POLICY, fault, "could not be tried: out of memory");
    }
    probe->probe = true;
    microvm->probe = probe;
    microvm->probe_end = ends[0];
    microvm->state = MICROVM_PROBING;
    microvm->again_us = 0;
    snprintf(microvm->image, sizeof microvm->image, "%s", identity);
    snprintf(microvm->reason, sizeof microvm->reason, "being found out");
    log_event(LOG_INFO, "microvm.probe", "booting image %s once", image);
    return FAIL(AGAIN, fault, "being found out");
}

status microvm_standing(const struct supervisor *supervisor, struct fault *fault)
{
    const struct microvm *microvm = &supervisor->sandboxes.microvm;
    _cleanup_close_ int kvm = -1;
    if (supervisor->executables[CHILD_VMM] < 0)
        return FAIL(FORBIDDEN_POLICY, fault, "absent: bulkhead-vmm is not installed");
    if (kvm_open(&kvm, fault) != OK)
        return FORBIDDEN_POLICY;
    switch (microvm->state) {
    case MICROVM_WORKS: return OK;
    case MICROVM_PROBING: return FAIL(AGAIN, fault, "being found out");
    case MICROVM_BROKEN: return FAIL(FORBIDDEN_POLICY, fault, "%s", microvm->reason);
    case MICROVM_UNKNOWN: break;
    }
    return FAIL(NOT_FOUND, fault, "not known: no image was booted yet");
}

status microvm_works(struct supervisor *supervisor, const char *image, struct fault *fault)
{
    const struct microvm *microvm = &supervisor->sandboxes.microvm;
    char identity[IMAGE_IDENTITY_TEXT];
    status standing = microvm_standing(supervisor, fault);
    if (standing == OK || standing == AGAIN)
        return standing;
    if (standing == FORBIDDEN_POLICY && microvm->state != MICROVM_BROKEN)
        return standing;
    struct fault why;
    if (image_identity(identity, supervisor, image, &why) != OK)
        return FAIL(FORBIDDEN_POLICY, fault, "%s", why.detail);
    bool believed = microvm->again_us == 0 || clock_monotonic_us() < microvm->again_us;
    if (standing == FORBIDDEN_POLICY && believed && strcmp(identity, microvm->image) == 0)
        return standing;
    return begin(supervisor, image, identity, fault);
}

/* ---- what it found ---- */

/* Whether how it ended is a fact about this host and this image, not about the moment. */
static bool is_lasting(const struct sandbox *probe)
{
    const uint64_t starved_below_us = (uint64_t)probe->spec.cpu_s * 1000 * 1000 / 2;
    switch (probe->end) {
    case SANDBOX_SHUTDOWN:
    case SANDBOX_RESET:
    case SANDBOX_PANIC:
    case SANDBOX_FAULTED:
    case SANDBOX_CPU_TIME: return true;
    default: return probe->code == TIMED_OUT && probe->cpu_us >= starved_below_us;
    }
}

static void found_broken(struct microvm *microvm, const struct sandbox *probe)
{
    bool lasting = is_lasting(probe);
    microvm->state = MICROVM_BROKEN;
    microvm->again_us = lasting ? 0 : clock_monotonic_us() + AGAIN_AFTER_US;
    const char *verdict = lasting ? "does not boot a stock kernel" : "failed when it was tried";
    if (probe->end == SANDBOX_CPU_TIME || probe->code == TIMED_OUT)
        snprintf(microvm->reason, sizeof microvm->reason,
                 "%s: no agent after %llu s, %llu s of them CPU time", verdict,
                 (unsigned long long)(clock_monotonic_us() - probe->begun_us) / 1000000,
                 (unsigned long long)probe->cpu_us / 1000000);
    else
        snprintf(microvm->reason, sizeof microvm->reason, "%s: %.12s%s%.60s", verdict,
                 sandbox_end_name(probe->end), probe->detail[0] ? ", " : "", probe->detail);
}

void microvm_probed(struct sandbox *probe)
{
    struct supervisor *supervisor = probe->supervisor;
    struct microvm *microvm = &supervisor->sandboxes.microvm;
    cleanup_close(&microvm->probe_end);
    microvm->probe = NULL;
    microvm->reason[0] = '\0';
    microvm->found_us = clock_wall_us();
    if (probe->at == SANDBOX_RUNNING) {
        microvm->state = MICROVM_WORKS;
        log_event(LOG_INFO, "microvm.works", "agent after %lld ms",
                  (long long)probe->dialled_us / 1000);
    } else if (probe->end == SANDBOX_CLOSED) { /* the node stops */
        microvm->state = MICROVM_UNKNOWN;
        return;
    } else {
        found_broken(microvm, probe);
        log_event(LOG_WARN, "microvm.broken", "%s", microvm->reason);
    }
    if (microvm->again_us == 0)
        verdict_keep(supervisor);
}

/* ---- images appear ---- */

static void look(void *context)
{
    struct supervisor *supervisor = context;
    struct fault fault;
    monitors_renew(supervisor, SANDBOX_FIRST_IMAGE);
    status works = microvm_works(supervisor, SANDBOX_FIRST_IMAGE, &fault);
    if (works != OK && works != AGAIN)
        log_event(LOG_INFO, "microvm.standing", "%s", fault.detail);
    for (int tier = SANDBOX_GVISOR; tier >= SANDBOX_CONTAINER; tier--) {
        works = runner_works(supervisor, (enum sandbox_tier)tier, SANDBOX_FIRST_IMAGE, &fault);
        if (works != OK && works != AGAIN)
            log_event(LOG_INFO, "runner.standing", "%s: %s",
                      sandbox_tier_name((enum sandbox_tier)tier), fault.detail);
    }
}

static void on_image(void *context, uint32_t events)
{
    (void)events;
    struct supervisor *supervisor = context;
    char storage[4096];
    struct fault fault;
    while (read(supervisor->sandboxes.images_changed, storage, sizeof storage) > 0)
        ;
    if (loop_timer_start(supervisor->loop, &supervisor->sandboxes.look_timer, APPEARED_AFTER_US,
                         look, supervisor, &fault) != OK)
        log_event(LOG_ERROR, "images.timer", "%s", fault.detail);
}

static status watch_images(struct supervisor *supervisor, struct fault *fault)
{
    struct sandboxes *sandboxes = &supervisor->sandboxes;
    char path[32];
    snprintf(path, sizeof path, "/proc/self/fd/%d", sandboxes->images);
    sandboxes->images_changed = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (sandboxes->images_changed < 0
        || inotify_add_watch(sandboxes->images_changed, path, IN_CREATE | IN_MOVED_TO) < 0)
        return FAIL(UNAVAILABLE, fault, "images: %s", strerror(errno));
    return loop_watch(&sandboxes->images_source, supervisor->loop, sandboxes->images_changed,
                      EPOLLIN, on_image, supervisor, fault);
}

void microvm_begin(struct supervisor *supervisor)
{
    struct fault fault;
    struct microvm *microvm = &supervisor->sandboxes.microvm;
    if (verdict_recall(microvm, supervisor))
        log_event(LOG_INFO, "microvm.recalled", "%s", microvm->state == MICROVM_WORKS
                  ? "works" : microvm->reason);
    if (watch_images(supervisor, &fault) != OK) /* then the first start finds out */
        log_event(LOG_WARN, "images.watch", "%s", fault.detail);
    look(supervisor);
    sandboxes_advance_later(supervisor);
}
