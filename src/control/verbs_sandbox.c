/* verbs_sandbox.c: sandboxes, as an operator asks for them. The stream goes to the supervisor as it
 * came: control reads no byte of it. */
#include "base/hex.h"
#include "control/control.h"

#include <sys/stat.h>

static status read_kinds(struct sandbox_wish *wish, const struct json *arguments,
                         struct fault *fault)
{
    struct span image = {0}, net = {0}, tier = {0};
    enum sandbox_tier weakest;
    TRY(json_optional_text(&image, arguments, "image", 1, IMAGE_NAME_TEXT - 1, fault));
    TRY(json_optional_text(&net, arguments, "net", 1, 16, fault));
    TRY(json_optional_text(&tier, arguments, "tier", 1, 16, fault));
    if (image.data && (!sandbox_is_image_name(image)
                       || !span_to_text(wish->spec.image, sizeof wish->spec.image, image)))
        return FAIL(BAD_FIELD, fault, "image: 1 to %d of a-z, 0-9 and -, no dash in front",
                    IMAGE_NAME_TEXT - 1);
    if (net.data && !span_is(net, "none") && !span_is(net, "isolated"))
        return FAIL(BAD_FIELD, fault, "net: none or isolated");
    wish->spec.net = span_is(net, "isolated") ? SANDBOX_NET_ISOLATED : SANDBOX_NET_NONE;
    if (!tier.data)
        return OK;
    TRY(sandbox_tier_of(&weakest, tier, "tier", fault));
    wish->spec.weakest = (uint8_t)weakest;
    wish->has_tier = true;
    return OK;
}

static status read_bounds(struct sandbox_wish *wish, const struct json *arguments,
                          struct fault *fault)
{
    struct sandbox_spec *spec = &wish->spec;
    const struct {
        const char *name;
        uint32_t *value;
        int64_t least, most;
    } bounds[] = {
        {"vcpus", &spec->vcpus, 1, SANDBOX_VCPUS_MAX},
        {"memory_mib", &spec->memory_mib, SANDBOX_MEMORY_MIB_MIN, SANDBOX_MEMORY_MIB_MAX},
        {"disk_mib", &spec->disk_mib, 0, SANDBOX_DISK_MIB_MAX},
        {"processes", &spec->processes, 1, SANDBOX_PROCESSES_MAX},
        {"timeout_seconds", &wish->timeout_s, 1, SANDBOX_LIFETIME_SECONDS_MAX},
        {"cpu_seconds", &spec->cpu_s, 0,
         (int64_t)SANDBOX_LIFETIME_SECONDS_MAX * SANDBOX_VCPUS_MAX},
    };
    for (size_t i = 0; i < sizeof bounds / sizeof *bounds; i++) {
        int64_t value = *bounds[i].value;
        TRY(json_optional_integer(&value, arguments, bounds[i].name, bounds[i].least,
                                  bounds[i].most, fault));
        *bounds[i].value = (uint32_t)value;
    }
    spec->lifetime_s = wish->timeout_s + SANDBOX_GRACE_SECONDS;
    if (spec->lifetime_s > SANDBOX_LIFETIME_SECONDS_MAX)
        spec->lifetime_s = SANDBOX_LIFETIME_SECONDS_MAX;
    return OK;
}

/* So much a second, a second's worth at once. */
static status read_rates(struct sandbox_spec *spec, const struct json *arguments,
                         struct fault *fault)
{
    const struct {
        const char *name;
        struct sandbox_rate *rate;
    } rates[] = {
        {"disk_bytes_per_second", &spec->disk_bytes},
        {"disk_operations_per_second", &spec->disk_ops},
        {"net_bytes_per_second", &spec->net_bytes},
        {"net_packets_per_second", &spec->net_packets},
    };
    for (size_t i = 0; i < sizeof rates / sizeof *rates; i++) {
        int64_t size = 0;
        TRY(json_optional_integer(&size, arguments, rates[i].name, 0, SANDBOX_RATE_MAX, fault));
        if (size)
            *rates[i].rate = (struct sandbox_rate){.size = (uint64_t)size, .refill_ms = 1000};
    }
    return OK;
}

static status read_rest(struct sandbox_wish *wish, struct control *control,
                        const struct json *arguments, struct fault *fault)
{
    struct span name = {0}, hash = {0};
    uint8_t bytes[HASH_BYTES];
    TRY(json_optional_bool(&wish->spec.console, arguments, "console", fault));
    TRY(json_optional_bool(&wish->spec.huge_pages, arguments, "huge_pages", fault));
    TRY(json_optional_text(&hash, arguments, "argv_sha256", 2 * HASH_BYTES, 2 * HASH_BYTES,
                           fault));
    if (hash.data)
        TRY(hex_decode(bytes, sizeof bytes, hash, "argv_sha256", fault));
    (void)span_to_text(wish->argv_hash, sizeof wish->argv_hash, hash);
    TRY(json_optional_text(&name, arguments, "tenant", 1, TENANT_NAME_MAX, fault));
    wish->has_tenant = name.data != NULL;
    if (!wish->has_tenant)
        return OK;
    status found = registry_by_name(&wish->tenant, control, name, fault);
    if (found == NOT_FOUND)
        return FAIL(NOT_FOUND, fault, "there is no tenant of this name");
    return found;
}

status verb_sandbox_run(struct session *session, const struct json *arguments,
                        struct ipc_message *message, struct fault *fault)
{
    static const char *const known[] = {
        "tenant", "image", "net", "tier", "vcpus", "memory_mib", "disk_mib", "processes",
        "timeout_seconds", "cpu_seconds", "disk_bytes_per_second", "disk_operations_per_second",
        "net_bytes_per_second", "net_packets_per_second", "console", "huge_pages", "argv_sha256",
        NULL,
    };
    struct stat info;
    struct sandbox_wish wish = {.spec = sandbox_spec_default(), .operator_uid = session->uid,
                                .timeout_s = SANDBOX_LIFETIME_SECONDS_DEFAULT};
    if (message->fd_count != 2)
        TRY(ipc_need_fds(message, 1, fault));
    if (fstat(message->fds[0], &info) || !S_ISSOCK(info.st_mode))
        return FAIL(BAD_FIELD, fault, "sandbox.run: its stream must be a socket");
    TRY(json_only(arguments, known, fault));
    TRY(read_kinds(&wish, arguments, fault));
    TRY(read_bounds(&wish, arguments, fault));
    TRY(read_rates(&wish.spec, arguments, fault));
    TRY(read_rest(&wish, session->control, arguments, fault));
    if (wish.spec.console != (message->fd_count == 2))
        return FAIL(BAD_FIELD, fault, "console: a second descriptor comes with it, to write to");
    return sandbox_start(session, &wish, message->fds, fault);
}

static status only_id(uint64_t *ret, const struct json *arguments, struct fault *fault)
{
    static const char *const known[] = {"id", NULL};
    struct span id;
    TRY(json_only(arguments, known, fault));
    TRY(json_text(&id, arguments, "id", 1, 64, fault));
    return sandbox_id_read(ret, id, fault);
}

static void on_killed(void *context, status code, const char *detail, struct span json)
{
    (void)json;
    session_answer(context, code, detail, SPAN("{}"));
}

status verb_sandbox_kill(struct session *session, const struct json *arguments,
                         struct ipc_message *message, struct fault *fault)
{
    uint64_t id;
    (void)message;
    TRY(only_id(&id, arguments, fault));
    return sandbox_kill(session->control, id, session->uid,
                        (struct outcome){.done = on_killed, .context = session}, fault);
}

status verb_sandbox_wait(struct session *session, const struct json *arguments,
                         struct ipc_message *message, struct fault *fault)
{
    uint64_t id;
    (void)message;
    TRY(only_id(&id, arguments, fault));
    return sandbox_wait(session, id, fault);
}

status verb_sandbox_list(struct session *session, const struct json *arguments,
                         struct ipc_message *message, struct fault *fault)
{
    static const char *const known[] = {NULL};
    _cleanup_buffer_ struct buffer text = buffer_of(MIB(2));
    struct json_writer writer = json_writer_on(&text);
    (void)message;
    TRY(json_only(arguments, known, fault));
    sandboxes_put_json(&writer, session->control);
    TRY(buffer_check(&text, "list", fault));
    session_answer(session, OK, "", buffer_span(&text));
    return OK;
}
