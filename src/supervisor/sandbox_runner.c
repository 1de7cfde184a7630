/* sandbox_runner.c: the tiers below microvm: whether they work here, found by really running the
 * agent once in each, and what a runner is given. */
#include "supervisor/sandboxes.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { AGAIN_AFTER_US = 600 * 1000 * 1000 }; /* a package may be installed meanwhile */

static const struct {
    const char *name, *path;
} runtimes[SANDBOX_MICROVM] = {[SANDBOX_CONTAINER] = {"crun", "/usr/bin/crun"},
                               [SANDBOX_GVISOR] = {"runsc", "/usr/bin/runsc"}};

static status begin(struct supervisor *supervisor, enum sandbox_tier tier, const char *image,
                    struct fault *fault)
{
    struct runner_standing *standing = &supervisor->sandboxes.runners[tier];
    struct sandbox_spec spec = sandbox_spec_default();
    int ends[2];
    spec.weakest = (uint8_t)tier;
    span_to_text(spec.image, sizeof spec.image, span_of_text(image));
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends))
        return FAIL(FORBIDDEN_POLICY, fault, "could not be tried: no descriptors");
    struct sandbox *probe = sandbox_new(supervisor, &spec, ends[1]);
    if (!probe) {
        close(ends[0]);
        return FAIL(FORBIDDEN_POLICY, fault, "could not be tried: out of memory");
    }
    probe->probe = true;
    standing->probe_end = ends[0];
    standing->state = MICROVM_PROBING;
    return FAIL(AGAIN, fault, "being found out");
}

status runner_standing(const struct supervisor *supervisor, enum sandbox_tier tier,
                       struct fault *fault)
{
    const struct runner_standing *standing = &supervisor->sandboxes.runners[tier];
    if (supervisor->executables[CHILD_RUNNER] < 0 || supervisor->sandboxes.agent < 0)
        return FAIL(FORBIDDEN_POLICY, fault, "absent: bulkhead-runner or bulkhead-agent is not "
                    "installed");
    if (access(runtimes[tier].path, X_OK))
        return FAIL(FORBIDDEN_POLICY, fault, "absent: %s is not installed", runtimes[tier].name);
    switch (standing->state) {
    case MICROVM_WORKS: return OK;
    case MICROVM_PROBING: return FAIL(AGAIN, fault, "being found out");
    case MICROVM_BROKEN: return FAIL(FORBIDDEN_POLICY, fault, "%s", standing->reason);
    case MICROVM_UNKNOWN: break;
    }
    return FAIL(NOT_FOUND, fault, "not known: no image was run yet");
}

status runner_works(struct supervisor *supervisor, enum sandbox_tier tier, const char *image,
                    struct fault *fault)
{
    const struct runner_standing *standing = &supervisor->sandboxes.runners[tier];
    struct fault why;
    int tree = -1;
    status stands = runner_standing(supervisor, tier, fault);
    bool tried = standing->state == MICROVM_BROKEN && clock_monotonic_us() < standing->again_us;
    if (stands == OK || stands == AGAIN || tried)
        return stands;
    if (stands == FORBIDDEN_POLICY && standing->state != MICROVM_BROKEN)
        return stands; /* what it needs is not installed */
    if (image_tree(&tree, supervisor, image, &why) != OK)
        return FAIL(FORBIDDEN_POLICY, fault, "%s", why.detail);
    close(tree);
    return begin(supervisor, tier, image, fault);
}

void runner_probed(struct sandbox *probe)
{
    const enum sandbox_tier tier = (enum sandbox_tier)probe->spec.weakest;
    struct runner_standing *standing = &probe->supervisor->sandboxes.runners[tier];
    cleanup_close(&standing->probe_end);
    standing->found_us = clock_wall_us();
    standing->reason[0] = '\0';
    if (probe->at == SANDBOX_RUNNING) {
        standing->state = MICROVM_WORKS;
        log_event(LOG_INFO, "runner.works", "%s: agent after %lld ms", sandbox_tier_name(tier),
                  (long long)probe->dialled_us / 1000);
        return;
    }
    standing->state = probe->end == SANDBOX_CLOSED ? MICROVM_UNKNOWN : MICROVM_BROKEN;
    standing->again_us = clock_monotonic_us() + AGAIN_AFTER_US;
    snprintf(standing->reason, sizeof standing->reason, "failed when it was tried: %.12s%s%.60s",
             sandbox_end_name(probe->end), probe->detail[0] ? ", " : "", probe->detail);
    log_event(LOG_WARN, "runner.broken", "%s: %s", sandbox_tier_name(tier), standing->reason);
}

static void send_fd(struct child *runner, enum vmm_fd kind, int fd)
{
    const uint8_t body = (uint8_t)kind;
    child_send(runner, MESSAGE_VMM_FD, 0, (struct span){&body, 1}, &fd, 1);
}

status runner_send_files(struct child *runner, const struct sandbox *sandbox,
                         struct fault *fault)
{
    _cleanup_close_ int tree = -1;
    TRY(image_tree(&tree, runner->supervisor, sandbox->spec.image, fault));
    send_fd(runner, VMM_FD_TREE, tree);
    send_fd(runner, VMM_FD_AGENT, runner->supervisor->sandboxes.agent);
    return OK;
}
