/* sandbox_verdict.c: DATA/run/microvm.json: what a probe found. It holds for one boot of one
 * kernel; a negative one for one image. A file that is not as we write it counts for nothing. */
#define _GNU_SOURCE
#include "supervisor/sandboxes.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "wire/json.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/utsname.h>

enum { VERDICT_MAX = 2048, BOOT_TEXT = 128 };

static const char name[] = "microvm.json", fresh_name[] = "microvm.json.new";

/* Kernel and boot: "6.1.0-18-cloud-amd64 0e4a...". */
static bool this_boot(char text[BOOT_TEXT])
{
    struct utsname host;
    uint8_t storage[64];
    struct buffer id = buffer_over(storage, sizeof storage);
    struct fault ignored;
    _cleanup_close_ int file = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (file < 0 || uname(&host) || file_read(&id, file, "boot id", &ignored) != OK)
        return false;
    struct span line = {id.data, span_find(buffer_span(&id), '\n')};
    int length = snprintf(text, BOOT_TEXT, "%s %.*s", host.release, SPAN_ARG(line));
    return line.length > 0 && length < BOOT_TEXT;
}

static status keep(const struct supervisor *supervisor, struct fault *fault)
{
    const struct microvm *microvm = &supervisor->sandboxes.microvm;
    int run = supervisor->silos.run;
    char boot[BOOT_TEXT];
    uint8_t storage[VERDICT_MAX];
    struct buffer text = buffer_over(storage, sizeof storage);
    struct json_writer writer = json_writer_on(&text);
    if (!this_boot(boot))
        return FAIL(UNAVAILABLE, fault, "this host does not say which boot this is");
    json_open_object(&writer, NULL);
    json_put_text(&writer, "boot", boot);
    json_put_text(&writer, "image", microvm->image);
    json_put_bool(&writer, "works", microvm->state == MICROVM_WORKS);
    json_put_text(&writer, "reason", microvm->reason);
    json_put_integer(&writer, "found_us", microvm->found_us);
    json_close_object(&writer);
    TRY(buffer_check(&text, name, fault));
    _cleanup_close_ int file = openat(run, fresh_name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW
                                      | O_CLOEXEC, 0600);
    if (file < 0)
        return FAIL(INTERNAL, fault, "%s: %s", name, strerror(errno));
    TRY(file_write(file, buffer_span(&text), name, fault));
    if (renameat(run, fresh_name, run, name))
        return FAIL(INTERNAL, fault, "%s: %s", name, strerror(errno));
    return OK;
}

void verdict_keep(const struct supervisor *supervisor)
{
    struct fault fault;
    if (keep(supervisor, &fault) != OK)
        log_event(LOG_WARN, "microvm.keep", "%s", fault.detail);
}

static status read_member(char *ret, size_t size, const struct json *document, const char *member,
                          struct fault *fault)
{
    struct span text;
    TRY(json_text(&text, document, member, 0, size - 1, fault));
    if (!span_to_text(ret, size, text) || !span_is_plain_text(text))
        return FAIL(BAD_FIELD, fault, "%s: %s: not plain text", name, member);
    return OK;
}

static status read_verdict(struct microvm *ret, struct span text, struct arena *arena,
                           struct fault *fault)
{
    static const char *const known[] = {"boot", "image", "works", "reason", "found_us", NULL};
    struct microvm microvm = {.probe_end = -1};
    struct json document;
    char now[BOOT_TEXT], boot[BOOT_TEXT];
    bool works = false;
    TRY(json_parse(&document, arena, text, fault));
    TRY(json_need_object(&document, name, fault));
    TRY(json_only(&document, known, fault));
    TRY(read_member(boot, sizeof boot, &document, "boot", fault));
    TRY(read_member(microvm.image, sizeof microvm.image, &document, "image", fault));
    TRY(read_member(microvm.reason, sizeof microvm.reason, &document, "reason", fault));
    TRY(json_optional_bool(&works, &document, "works", fault));
    TRY(json_optional_integer(&microvm.found_us, &document, "found_us", 0, INT64_MAX, fault));
    if (!this_boot(now) || strcmp(now, boot) != 0)
        return FAIL(NOT_FOUND, fault, "%s: of another boot", name);
    microvm.state = works ? MICROVM_WORKS : MICROVM_BROKEN;
    *ret = microvm;
    return OK;
}

bool verdict_recall(struct microvm *ret, const struct supervisor *supervisor)
{
    struct fault fault;
    uint8_t storage[VERDICT_MAX];
    struct buffer text = buffer_over(storage, sizeof storage);
    _cleanup_close_ int file = openat(supervisor->silos.run, name,
                                      O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (file < 0)
        return false;
    struct arena arena = arena_of(16 * (size_t)VERDICT_MAX);
    status result = file_read(&text, file, name, &fault);
    if (result == OK)
        result = read_verdict(ret, buffer_span(&text), &arena, &fault);
    arena_free(&arena);
    if (result != OK && result != NOT_FOUND)
        log_event(LOG_WARN, "microvm.recall", "%s", fault.detail);
    return result == OK;
}
