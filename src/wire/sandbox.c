#include "wire/sandbox.h"

enum { FLAG_CONSOLE = 1, FLAG_HUGE_PAGES = 2, FLAGS_ALL = FLAG_CONSOLE | FLAG_HUGE_PAGES };

/* ---- names ---- */

static const char *const tiers[] = {[SANDBOX_CONTAINER] = "container",
                                    [SANDBOX_GVISOR] = "gvisor",
                                    [SANDBOX_MICROVM] = "microvm"};

const char *sandbox_tier_name(enum sandbox_tier tier)
{
    bool known = tier >= SANDBOX_CONTAINER && tier <= SANDBOX_MICROVM;
    return known ? tiers[tier] : "unknown";
}

status sandbox_tier_of(enum sandbox_tier *ret, struct span text, const char *name,
                       struct fault *fault)
{
    for (int i = SANDBOX_CONTAINER; i <= SANDBOX_MICROVM; i++) {
        if (span_is(text, tiers[i])) {
            *ret = (enum sandbox_tier)i;
            return OK;
        }
    }
    return FAIL(BAD_FIELD, fault, "%s: microvm, gvisor or container", name);
}

static const char *const ends[SANDBOX_ENDS] = {
    [SANDBOX_SHUTDOWN] = "shutdown", [SANDBOX_RESET] = "reset",
    [SANDBOX_PANIC] = "panic",       [SANDBOX_FAULTED] = "faulted",
    [SANDBOX_HOSTILE] = "hostile",   [SANDBOX_CLOSED] = "closed",
    [SANDBOX_LIFETIME] = "lifetime", [SANDBOX_CPU_TIME] = "cpu_time",
    [SANDBOX_MEMORY] = "memory",     [SANDBOX_FAILED] = "failed"};

const char *sandbox_end_name(enum sandbox_end end)
{
    return end >= SANDBOX_SHUTDOWN && end < SANDBOX_ENDS ? ends[end] : "unknown";
}

status sandbox_end_of(enum sandbox_end *ret, struct span text, struct fault *fault)
{
    for (int i = SANDBOX_SHUTDOWN; i < SANDBOX_ENDS; i++) {
        if (span_is(text, ends[i])) {
            *ret = (enum sandbox_end)i;
            return OK;
        }
    }
    return FAIL(BAD_FIELD, fault, "end: not a way in which a sandbox ends");
}

bool sandbox_is_image_name(struct span name)
{
    if (name.length == 0 || name.length >= IMAGE_NAME_TEXT || name.data[0] == '-')
        return false;
    for (size_t i = 0; i < name.length; i++) {
        uint8_t c = name.data[i];
        if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') && c != '-')
            return false;
    }
    return true;
}

/* ---- the specification ---- */

struct sandbox_spec sandbox_spec_default(void)
{
    return (struct sandbox_spec){.weakest = SANDBOX_GVISOR,
                                 .net = SANDBOX_NET_NONE,
                                 .vcpus = 1,
                                 .memory_mib = SANDBOX_MEMORY_MIB_DEFAULT,
                                 .disk_mib = SANDBOX_DISK_MIB_DEFAULT,
                                 .processes = SANDBOX_PROCESSES_DEFAULT,
                                 .lifetime_s = SANDBOX_LIFETIME_SECONDS_DEFAULT,
                                 .image = "base"};
}

static void put_rate(struct buffer *out, const struct sandbox_rate *rate)
{
    buffer_put_u64(out, rate->size);
    buffer_put_u64(out, rate->one_time_burst);
    buffer_put_u32(out, rate->refill_ms);
}

void sandbox_spec_put(struct buffer *out, const struct sandbox_spec *spec)
{
    unsigned flags = (spec->console ? (unsigned)FLAG_CONSOLE : 0u)
                   | (spec->huge_pages ? (unsigned)FLAG_HUGE_PAGES : 0u);
    buffer_put_u8(out, spec->weakest);
    buffer_put_u8(out, spec->net);
    buffer_put_u8(out, (uint8_t)flags);
    buffer_put_u32(out, spec->vcpus);
    buffer_put_u32(out, spec->memory_mib);
    buffer_put_u32(out, spec->disk_mib);
    buffer_put_u32(out, spec->processes);
    buffer_put_u32(out, spec->lifetime_s);
    buffer_put_u32(out, spec->cpu_s);
    put_rate(out, &spec->disk_bytes);
    put_rate(out, &spec->disk_ops);
    put_rate(out, &spec->net_bytes);
    put_rate(out, &spec->net_packets);
    buffer_put_text_field(out, spec->image);
}

static status get_rate(struct sandbox_rate *ret, struct cursor *cursor, const char *name,
                       struct fault *fault)
{
    TRY(cursor_u64(&ret->size, cursor, fault));
    TRY(cursor_u64(&ret->one_time_burst, cursor, fault));
    TRY(cursor_u32(&ret->refill_ms, cursor, fault));
    if (ret->size == 0 && (ret->one_time_burst != 0 || ret->refill_ms != 0))
        return FAIL(BAD_FIELD, fault, "%s: a rate without a size has nothing else", name);
    if (ret->size > SANDBOX_RATE_MAX || ret->one_time_burst > SANDBOX_RATE_MAX)
        return FAIL(BAD_FIELD, fault, "%s: at most %llu", name,
                    (unsigned long long)SANDBOX_RATE_MAX);
    if (ret->size > 0 && (ret->refill_ms < 1 || ret->refill_ms > SANDBOX_REFILL_MS_MAX))
        return FAIL(BAD_FIELD, fault, "%s: refill of 1 to %d ms", name, SANDBOX_REFILL_MS_MAX);
    return OK;
}

static status get_kinds(struct sandbox_spec *spec, struct cursor *cursor, struct fault *fault)
{
    uint8_t flags;
    TRY(cursor_u8(&spec->weakest, cursor, fault));
    if (spec->weakest < SANDBOX_CONTAINER || spec->weakest > SANDBOX_MICROVM)
        return FAIL(BAD_FIELD, fault, "weakest: not a tier");
    TRY(cursor_u8(&spec->net, cursor, fault));
    if (spec->net > SANDBOX_NET_ISOLATED)
        return FAIL(BAD_FIELD, fault, "net: none or isolated");
    TRY(cursor_u8(&flags, cursor, fault));
    if (flags & ~(unsigned)FLAGS_ALL)
        return FAIL(BAD_FIELD, fault, "flags: unknown ones");
    spec->console = flags & FLAG_CONSOLE;
    spec->huge_pages = flags & FLAG_HUGE_PAGES;
    return OK;
}

static status get_bounds(struct sandbox_spec *spec, struct cursor *cursor, struct fault *fault)
{
    const struct {
        const char *name;
        uint32_t *value, least, most;
    } bounds[] = {
        {"vcpus", &spec->vcpus, 1, SANDBOX_VCPUS_MAX},
        {"memory", &spec->memory_mib, SANDBOX_MEMORY_MIB_MIN, SANDBOX_MEMORY_MIB_MAX},
        {"disk", &spec->disk_mib, 0, SANDBOX_DISK_MIB_MAX},
        {"processes", &spec->processes, 1, SANDBOX_PROCESSES_MAX},
        {"lifetime", &spec->lifetime_s, 1, SANDBOX_LIFETIME_SECONDS_MAX},
        {"cpu time", &spec->cpu_s, 0, SANDBOX_LIFETIME_SECONDS_MAX * SANDBOX_VCPUS_MAX},
    };
    for (size_t i = 0; i < sizeof bounds / sizeof *bounds; i++) {
        TRY(cursor_u32(bounds[i].value, cursor, fault));
        if (*bounds[i].value < bounds[i].least || *bounds[i].value > bounds[i].most)
            return FAIL(BAD_FIELD, fault, "%s: %u to %u", bounds[i].name, bounds[i].least,
                        bounds[i].most);
    }
    return OK;
}

status sandbox_spec_get(struct sandbox_spec *ret, struct cursor *cursor, struct fault *fault)
{
    struct sandbox_spec spec = {0};
    struct cursor at = *cursor;
    TRY(get_kinds(&spec, &at, fault));
    TRY(get_bounds(&spec, &at, fault));
    TRY(get_rate(&spec.disk_bytes, &at, "disk bytes", fault));
    TRY(get_rate(&spec.disk_ops, &at, "disk operations", fault));
    TRY(get_rate(&spec.net_bytes, &at, "net bytes", fault));
    TRY(get_rate(&spec.net_packets, &at, "net packets", fault));
    TRY(cursor_text(spec.image, sizeof spec.image, &at, "image", fault));
    if (!sandbox_is_image_name(span_of_text(spec.image)))
        return FAIL(BAD_FIELD, fault, "image: 1 to %d of a-z, 0-9 and -, no dash in front",
                    IMAGE_NAME_TEXT - 1);
    *cursor = at;
    *ret = spec;
    return OK;
}
