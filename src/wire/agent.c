#include "wire/agent.h"

#include <assert.h>

enum {
    HEAD_COUNTED = AGENT_HEAD_BYTES - 4, /* what length counts of the head */
    NAME_MAX_BYTES = 255,
    USER_NAME_MAX = 64,
    SIGNAL_MAX = 64,
    MODE_MAX = 07777,
};

/* ---- frames ---- */

static bool is_type(uint8_t type)
{
    return type == AGENT_HELLO || (type >= AGENT_EXEC && type <= AGENT_SHUTDOWN)
        || (type >= AGENT_SIGNAL && type <= AGENT_CANCEL)
        || (type >= AGENT_DATA && type <= AGENT_CREDIT)
        || (type >= AGENT_STARTED && type <= AGENT_EVENT);
}

status agent_frame_get(struct agent_frame *ret, size_t *ret_taken, struct span bytes,
                       struct fault *fault)
{
    struct cursor cursor = cursor_over(bytes);
    struct agent_frame frame;
    uint32_t length;
    if (cursor_u32(&length, &cursor, fault) != OK)
        return AGAIN;
    if (length < HEAD_COUNTED || length > AGENT_FRAME_MAX)
        return FAIL(BAD_REQUEST, fault, "agent: a frame of %u bytes", length);
    /* the head is judged as soon as it is there: no waiting for what will be refused */
    if (cursor_u8(&frame.type, &cursor, fault) != OK)
        return AGAIN;
    if (!is_type(frame.type))
        return FAIL(BAD_REQUEST, fault, "agent: a frame of type 0x%02x", frame.type);
    if (cursor_u32(&frame.id, &cursor, fault) != OK)
        return AGAIN;
    if ((frame.type == AGENT_HELLO) != (frame.id == 0))
        return FAIL(BAD_REQUEST, fault, "agent: type 0x%02x with id %u", frame.type, frame.id);
    if (cursor_bytes(&frame.payload, &cursor, length - HEAD_COUNTED, fault) != OK)
        return AGAIN;
    *ret = frame;
    *ret_taken = bytes.length - cursor_left(&cursor);
    return OK;
}

static void put_head(struct buffer *out, uint8_t type, uint32_t id, size_t payload)
{
    assert(payload <= AGENT_FRAME_MAX - HEAD_COUNTED);
    buffer_put_u32(out, (uint32_t)payload + HEAD_COUNTED);
    buffer_put_u8(out, type);
    buffer_put_u32(out, id);
}

void agent_frame_put(struct buffer *out, uint8_t type, uint32_t id, struct span payload)
{
    put_head(out, type, id, payload.length);
    buffer_put(out, payload);
}

/* ---- exec ---- */

static void put_texts(struct buffer *out, const struct span *texts, uint32_t count)
{
    buffer_put_u16(out, (uint16_t)count);
    for (uint32_t i = 0; i < count; i++)
        buffer_put_field(out, texts[i]);
}

void agent_exec_put(struct buffer *out, const struct agent_exec *exec)
{
    put_texts(out, exec->arguments, exec->argument_count);
    put_texts(out, exec->environment, exec->environment_count);
    buffer_put_field(out, exec->directory);
    buffer_put_field(out, exec->user);
    buffer_put_u8(out, exec->flags);
    buffer_put_u16(out, exec->rows);
    buffer_put_u16(out, exec->columns);
    buffer_put_u32(out, exec->timeout_ms);
    buffer_put_u32(out, exec->processes);
    buffer_put_u64(out, exec->memory_bytes);
}

static status get_text(struct span *ret, struct cursor *cursor, uint32_t max, const char *name,
                       struct fault *fault)
{
    struct span text;
    TRY(cursor_field(&text, cursor, max, name, fault));
    if (span_find(text, 0) < text.length)
        return FAIL(BAD_FIELD, fault, "%s: holds a NUL byte", name);
    *ret = text;
    return OK;
}

static status get_texts(struct span texts[AGENT_ARGUMENTS_MAX], uint32_t *ret_count,
                        struct cursor *cursor, const char *name, struct fault *fault)
{
    uint16_t count;
    TRY(cursor_u16(&count, cursor, fault));
    if (count > AGENT_ARGUMENTS_MAX)
        return FAIL(TOO_LARGE, fault, "%s: %u, at most %d", name, count, AGENT_ARGUMENTS_MAX);
    for (uint16_t i = 0; i < count; i++)
        TRY(get_text(&texts[i], cursor, AGENT_FRAME_MAX, name, fault));
    *ret_count = count;
    return OK;
}

static status get_bounds(struct agent_exec *exec, struct cursor *cursor, struct fault *fault)
{
    TRY(cursor_u8(&exec->flags, cursor, fault));
    TRY(cursor_u16(&exec->rows, cursor, fault));
    TRY(cursor_u16(&exec->columns, cursor, fault));
    TRY(cursor_u32(&exec->timeout_ms, cursor, fault));
    TRY(cursor_u32(&exec->processes, cursor, fault));
    TRY(cursor_u64(&exec->memory_bytes, cursor, fault));
    if (exec->flags & ~(AGENT_EXEC_PTY | AGENT_EXEC_STDIN))
        return FAIL(BAD_FIELD, fault, "flags: 0x%02x is unknown", exec->flags);
    return cursor_end(cursor, fault);
}

status agent_exec_get(struct agent_exec *ret, struct span payload, struct fault *fault)
{
    struct cursor cursor = cursor_over(payload);
    TRY(get_texts(ret->arguments, &ret->argument_count, &cursor, "arguments", fault));
    TRY(get_texts(ret->environment, &ret->environment_count, &cursor, "environment", fault));
    TRY(get_text(&ret->directory, &cursor, AGENT_PATH_MAX - 1, "directory", fault));
    TRY(get_text(&ret->user, &cursor, USER_NAME_MAX, "user", fault));
    TRY(get_bounds(ret, &cursor, fault));
    if (ret->argument_count == 0 || ret->arguments[0].length == 0)
        return FAIL(BAD_FIELD, fault, "arguments: no program is named");
    for (uint32_t i = 0; i < ret->environment_count; i++) {
        size_t name = span_find(ret->environment[i], '=');
        if (name == 0 || name == ret->environment[i].length)
            return FAIL(BAD_FIELD, fault, "environment: NAME=value is wanted");
    }
    return OK;
}

void agent_exited_put(struct buffer *out, const struct agent_exited *exited)
{
    buffer_put_u8(out, exited->how);
    buffer_put_u8(out, exited->code);
    buffer_put_u64(out, exited->cpu_us);
    buffer_put_u64(out, exited->peak_kib);
}

status agent_exited_get(struct agent_exited *ret, struct span payload, struct fault *fault)
{
    struct cursor cursor = cursor_over(payload);
    struct agent_exited exited;
    TRY(cursor_u8(&exited.how, &cursor, fault));
    TRY(cursor_u8(&exited.code, &cursor, fault));
    TRY(cursor_u64(&exited.cpu_us, &cursor, fault));
    TRY(cursor_u64(&exited.peak_kib, &cursor, fault));
    TRY(cursor_end(&cursor, fault));
    if (exited.how < AGENT_EXIT_CODE || exited.how > AGENT_EXIT_MEMORY)
        return FAIL(BAD_FIELD, fault, "exit: %u is no way to end", exited.how);
    if (exited.how != AGENT_EXIT_CODE && (exited.code == 0 || exited.code > SIGNAL_MAX))
        return FAIL(BAD_FIELD, fault, "exit: %u is no signal", exited.code);
    *ret = exited;
    return OK;
}

/* ---- streams ---- */

void agent_put_data(struct buffer *out, uint32_t id, enum agent_channel channel,
                    struct span bytes)
{
    assert(bytes.length > 0 && bytes.length <= AGENT_DATA_MAX);
    put_head(out, AGENT_DATA, id, 1 + bytes.length);
    buffer_put_u8(out, (uint8_t)channel);
    buffer_put(out, bytes);
}

void agent_put_end(struct buffer *out, uint32_t id, enum agent_channel channel)
{
    put_head(out, AGENT_END, id, 1);
    buffer_put_u8(out, (uint8_t)channel);
}

void agent_put_credit(struct buffer *out, uint32_t id, enum agent_channel channel, uint32_t bytes)
{
    assert(bytes > 0);
    put_head(out, AGENT_CREDIT, id, 5);
    buffer_put_u8(out, (uint8_t)channel);
    buffer_put_u32(out, bytes);
}

status agent_piece_get(struct agent_piece *ret, const struct agent_frame *frame,
                       struct fault *fault)
{
    struct cursor cursor = cursor_over(frame->payload);
    struct agent_piece piece = {0};
    TRY(cursor_u8(&piece.channel, &cursor, fault));
    if (piece.channel >= AGENT_CHANNELS)
        return FAIL(BAD_REQUEST, fault, "agent: channel %u", piece.channel);
    if (frame->type == AGENT_CREDIT) {
        TRY(cursor_u32(&piece.credit, &cursor, fault));
        if (piece.credit == 0)
            return FAIL(BAD_REQUEST, fault, "agent: credit of nothing");
    } else if (frame->type == AGENT_DATA) {
        TRY(cursor_bytes(&piece.bytes, &cursor, cursor_left(&cursor), fault));
        if (piece.bytes.length == 0 || piece.bytes.length > AGENT_DATA_MAX)
            return FAIL(BAD_REQUEST, fault, "agent: a piece of %zu bytes", piece.bytes.length);
    }
    TRY(cursor_end(&cursor, fault));
    *ret = piece;
    return OK;
}

/* ---- answers ---- */

void agent_hello_put(struct buffer *out, const struct agent_hello *hello)
{
    buffer_put_u32(out, hello->version);
    buffer_put_text_field(out, hello->kernel);
    buffer_put_u64(out, hello->boot_us);
}

status agent_hello_get(struct agent_hello *ret, struct span payload, struct fault *fault)
{
    struct cursor cursor = cursor_over(payload);
    struct agent_hello hello;
    TRY(cursor_u32(&hello.version, &cursor, fault));
    TRY(cursor_text(hello.kernel, sizeof hello.kernel, &cursor, "kernel", fault));
    TRY(cursor_u64(&hello.boot_us, &cursor, fault));
    TRY(cursor_end(&cursor, fault));
    if (hello.version != AGENT_VERSION)
        return FAIL(BAD_REQUEST, fault, "agent: version %u, not %d", hello.version, AGENT_VERSION);
    if (!span_is_plain_text(span_of_text(hello.kernel)))
        return FAIL(BAD_FIELD, fault, "agent: kernel: is not plain text");
    *ret = hello;
    return OK;
}

void agent_put_done(struct buffer *out, uint32_t id, status code, const char *detail,
                    struct span result)
{
    char text[sizeof ((struct agent_done *)0)->detail];
    size_t length = 0;
    for (; code != OK && detail[length] && length < sizeof text - 1; length++) {
        char c = detail[length];
        text[length] = c >= ' ' && c < 0x7F ? c : '?';
    }
    put_head(out, AGENT_DONE, id, 2 + 4 + length + (code == OK ? result.length : 0));
    buffer_put_u16(out, (uint16_t)code);
    buffer_put_field(out, (struct span){(const uint8_t *)text, length});
    if (code == OK)
        buffer_put(out, result);
}

status agent_done_get(struct agent_done *ret, struct span payload, struct fault *fault)
{
    struct cursor cursor = cursor_over(payload);
    uint16_t code;
    TRY(cursor_u16(&code, &cursor, fault));
    if (code >= STATUS_COUNT)
        return FAIL(BAD_REQUEST, fault, "agent: %u is no status", code);
    struct agent_done done = {.code = (status)code};
    TRY(cursor_text(done.detail, sizeof done.detail, &cursor, "detail", fault));
    if (!span_is_plain_text(span_of_text(done.detail)))
        return FAIL(BAD_FIELD, fault, "agent: detail: is not plain text");
    TRY(cursor_bytes(&done.result, &cursor, cursor_left(&cursor), fault));
    if (done.code != OK && done.result.length)
        return FAIL(BAD_REQUEST, fault, "agent: a failure with a result");
    *ret = done;
    return OK;
}

void agent_entry_put(struct buffer *out, const struct agent_entry *entry)
{
    buffer_put_u8(out, entry->kind);
    buffer_put_u32(out, entry->mode);
    buffer_put_u32(out, entry->uid);
    buffer_put_u32(out, entry->gid);
    buffer_put_u64(out, entry->bytes);
    buffer_put_u64(out, (uint64_t)entry->changed_us);
}

status agent_entry_get(struct agent_entry *ret, struct cursor *cursor, struct fault *fault)
{
    struct agent_entry entry;
    uint64_t changed;
    TRY(cursor_u8(&entry.kind, cursor, fault));
    TRY(cursor_u32(&entry.mode, cursor, fault));
    TRY(cursor_u32(&entry.uid, cursor, fault));
    TRY(cursor_u32(&entry.gid, cursor, fault));
    TRY(cursor_u64(&entry.bytes, cursor, fault));
    TRY(cursor_u64(&changed, cursor, fault));
    if (entry.kind < AGENT_FILE || entry.kind > AGENT_OTHER)
        return FAIL(BAD_FIELD, fault, "agent: %u is no kind of file", entry.kind);
    if (entry.mode > MODE_MAX)
        return FAIL(BAD_FIELD, fault, "agent: mode 0%o", entry.mode);
    entry.changed_us = (int64_t)changed;
    *ret = entry;
    return OK;
}

status agent_name_get(struct span *ret, struct cursor *cursor, struct fault *fault)
{
    struct span name;
    TRY(cursor_field(&name, cursor, NAME_MAX_BYTES, "name", fault));
    if (name.length == 0 || span_is(name, ".") || span_is(name, "..")
        || span_find(name, '/') < name.length || span_find(name, 0) < name.length)
        return FAIL(BAD_FIELD, fault, "agent: a name that no directory holds");
    *ret = name;
    return OK;
}

void agent_event_put(struct buffer *out, const struct agent_event *event)
{
    buffer_put_u8(out, event->what);
    buffer_put_field(out, event->path);
}

status agent_event_get(struct agent_event *ret, struct span payload, struct fault *fault)
{
    struct cursor cursor = cursor_over(payload);
    struct agent_event event;
    TRY(cursor_u8(&event.what, &cursor, fault));
    TRY(get_text(&event.path, &cursor, AGENT_PATH_MAX - 1, "path", fault));
    TRY(cursor_end(&cursor, fault));
    if (event.what < AGENT_CREATED || event.what > AGENT_CHANGES_LOST)
        return FAIL(BAD_FIELD, fault, "agent: %u is no change", event.what);
    *ret = event;
    return OK;
}

void agent_metrics_put(struct buffer *out, const struct agent_metrics *metrics)
{
    const uint64_t numbers[] = {metrics->uptime_us, metrics->cpu_us, metrics->memory_kib,
                                metrics->available_kib, metrics->disk_kib, metrics->free_kib};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        buffer_put_u64(out, numbers[i]);
    buffer_put_u32(out, metrics->processes);
}

status agent_metrics_get(struct agent_metrics *ret, struct span payload, struct fault *fault)
{
    struct cursor cursor = cursor_over(payload);
    struct agent_metrics metrics;
    uint64_t *const numbers[] = {&metrics.uptime_us, &metrics.cpu_us, &metrics.memory_kib,
                                 &metrics.available_kib, &metrics.disk_kib, &metrics.free_kib};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        TRY(cursor_u64(numbers[i], &cursor, fault));
    TRY(cursor_u32(&metrics.processes, &cursor, fault));
    TRY(cursor_end(&cursor, fault));
    *ret = metrics;
    return OK;
}
