/* sandbox_tiers.c: which walls this node can put around a sandbox.
 *
 * The seam of the tiers below microvm: a runner is a process of its own that speaks the monitor's
 * side of the protocol (VMM_BLANK, FD, START, STREAM, JAILED, GO, RUNNING, ENDED) with its child
 * kind, its executable and its jail; instead of KVM, kernel, initramfs and root it is handed the
 * tree of the image as a detached read-only mount and the agent's program, and the
 * stream is what the agent of the container is born with. Limits, slots, lifetime, ends and the
 * report are what they are for a monitor. */
#include "supervisor/sandboxes.h"

#include <string.h>

status tier_works(struct supervisor *supervisor, enum sandbox_tier tier, const char *image,
                  struct fault *fault)
{
    switch (tier) {
    case SANDBOX_MICROVM:
        return microvm_works(supervisor, image, fault);
    case SANDBOX_GVISOR:
    case SANDBOX_CONTAINER:
        return runner_works(supervisor, tier, image, fault);
    }
    return FAIL(BAD_FIELD, fault, "not a tier");
}

/* What only a virtual machine has is never left out in silence. */
static status refuse_for_want(enum sandbox_tier tier, const struct sandbox_spec *spec,
                              struct span reasons, struct fault *fault)
{
    return FAIL(FORBIDDEN_POLICY, fault, "%s: a microvm's only, tier %s has none (%.*s)",
                spec->console ? "console" : "huge pages", sandbox_tier_name(tier),
                SPAN_ARG(reasons));
}

static void add_reason(struct buffer *text, enum sandbox_tier tier, const char *reason)
{
    buffer_printf(text, "%s%s: %s", text->length > 0 ? "; " : "", sandbox_tier_name(tier), reason);
}

status tier_choose(enum sandbox_tier *ret, struct supervisor *supervisor,
                   const struct sandbox_spec *spec, struct fault *fault)
{
    uint8_t storage[512];
    struct buffer reasons = buffer_over(storage, sizeof storage);
    static const enum sandbox_tier tiers[] = {SANDBOX_MICROVM, SANDBOX_GVISOR, SANDBOX_CONTAINER};
    for (size_t i = 0; i < sizeof tiers / sizeof *tiers && tiers[i] >= spec->weakest; i++) {
        enum sandbox_tier tier = tiers[i];
        struct fault why = {0};
        status works = tier_works(supervisor, tier, spec->image, &why);
        if (works == OK && tier < SANDBOX_MICROVM && (spec->console || spec->huge_pages))
            return refuse_for_want(tier, spec, buffer_span(&reasons), fault);
        if (works == OK)
            *ret = tier;
        if (works == OK || works == AGAIN)
            return works;
        add_reason(&reasons, tier, why.detail);
    }
    return FAIL(FORBIDDEN_POLICY, fault, "%.*s", SPAN_ARG(buffer_span(&reasons)));
}
