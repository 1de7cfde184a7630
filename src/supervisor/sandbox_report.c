/* sandbox_report.c: what `bulkhead status` shows of sandboxes: what works here and why not, and
 * those that are alive. */
#include "supervisor/sandboxes.h"

#include "base/clock.h"
#include "base/hex.h"

static const char *const places[] = {[SANDBOX_WAITING] = "waiting", [SANDBOX_BOOTING] = "booting",
                                     [SANDBOX_RUNNING] = "running"};

static void put_tier(struct json_writer *writer, struct supervisor *supervisor,
                     enum sandbox_tier tier)
{
    struct fault why = {0};
    char when[CLOCK_TEXT_SIZE];
    const struct microvm *microvm = &supervisor->sandboxes.microvm;
    status works = tier == SANDBOX_MICROVM ? microvm_standing(supervisor, &why)
                                           : runner_standing(supervisor, tier, &why);
    int64_t found_us = tier == SANDBOX_MICROVM ? microvm->found_us
                                               : supervisor->sandboxes.runners[tier].found_us;
    json_open_object(writer, NULL);
    json_put_text(writer, "tier", sandbox_tier_name(tier));
    json_put_bool(writer, "works", works == OK);
    json_put_text(writer, "reason", works == OK ? "" : why.detail);
    if (found_us > 0) {
        clock_text(when, found_us);
        json_put_text(writer, "found", when);
    }
    json_close_object(writer);
}

static void put_sandbox(struct json_writer *writer, const struct sandbox *sandbox)
{
    char id[TENANT_ID_TEXT];
    hex_encode(id, SPAN_OF(sandbox->tenant));
    json_open_object(writer, NULL);
    json_put_integer(writer, "id", (int64_t)sandbox->id);
    json_put_text(writer, "tenant_id", id);
    json_put_text(writer, "image", sandbox->spec.image);
    json_put_text(writer, "state", places[sandbox->at]);
    if (sandbox->monitor) {
        json_put_text(writer, "tier", sandbox_tier_name(sandbox->tier));
        json_put_integer(writer, "monitor", sandbox->monitor->index);
        json_put_integer(writer, "pid", sandbox->monitor->jail.pid);
        report_jail(writer, sandbox->monitor);
    }
    json_put_integer(writer, "vcpus", sandbox->spec.vcpus);
    json_put_integer(writer, "memory_mib", sandbox->spec.memory_mib);
    json_put_integer(writer, "seconds", (clock_monotonic_us() - sandbox->begun_us) / 1000000);
    if (sandbox->at == SANDBOX_RUNNING)
        json_put_integer(writer, "boot_us", sandbox->dialled_us);
    json_close_object(writer);
}

void sandboxes_report(struct json_writer *writer, struct supervisor *supervisor)
{
    const struct sandboxes *sandboxes = &supervisor->sandboxes;
    int64_t alive = 0, memory_mib = 0, blanks = 0;
    json_open_object(writer, "sandboxes");
    json_open_array(writer, "tiers");
    for (int tier = SANDBOX_MICROVM; tier >= SANDBOX_CONTAINER; tier--)
        put_tier(writer, supervisor, (enum sandbox_tier)tier);
    json_close_array(writer);
    json_open_array(writer, "list");
    for (const struct sandbox *at = sandboxes->list; at; at = at->next) {
        if (at->probe)
            continue;
        alive++;
        memory_mib += at->spec.memory_mib;
        put_sandbox(writer, at);
    }
    json_close_array(writer);
    for (const struct child *at = sandboxes->monitors; at; at = at->next)
        blanks += at->state == CHILD_BLANK;
    json_put_integer(writer, "alive", alive);
    json_put_integer(writer, "limit", SANDBOXES_MAX);
    json_put_integer(writer, "memory_mib", memory_mib);
    json_put_integer(writer, "blanks_ready", blanks);
    json_close_object(writer);
}
