#include "silo/audit.h"

#include "base/clock.h"
#include "base/hex.h"
#include "wire/json.h"

enum {
    PENDING_BYTES_MAX = MIB(4),
    PENDING_BYTES_URGENT = MIB(1),
    PENDING_URGENT = AUDIT_PENDING_MAX / 2,
    PENDING_BYTES_IDLE = KIB(16), /* more is given back once it is written */
    REQUEST_PARTS = 4 + ACTION_IDS_MAX,
};

enum effect { EFFECT_NONE, EFFECT_WROTE };

static bool is_denial(status why)
{
    switch (why) {
    case UNAUTHENTICATED:
    case FORBIDDEN_SCOPE:
    case FORBIDDEN_POLICY:
    case FORBIDDEN_CLEARANCE:
    case QUOTA_EXCEEDED:
    case WRONG_REGION:
    case TENANT_PAUSED:
        return true;
    default:
        return false;
    }
}

static void put_hash(struct json_writer *writer, const char *name,
                     const uint8_t digest[HASH_BYTES])
{
    char text[2 * HASH_BYTES + 1];
    hex_encode(text, (struct span){digest, HASH_BYTES});
    json_put_text(writer, name, text);
}

static void put_keyed(struct json_writer *writer, const char *name, const struct silo *silo,
                      struct span bytes)
{
    uint8_t digest[HASH_BYTES];
    hash_keyed(digest, SPAN_OF(silo->keys->audit), bytes);
    put_hash(writer, name, digest);
}

/* What was asked: lengths go in, so that two requests never hash alike by moving a boundary. */
static void put_request_hash(struct json_writer *writer, const struct call *call)
{
    const struct envelope *envelope = call->request->envelope;
    struct span parts[REQUEST_PARTS] = {
        span_of_text(envelope->action->name), call->request->query, call->request->body,
        call->request->idempotency_key,
    };
    uint32_t count = 4;
    for (uint32_t i = 0; i < envelope->id_count && count < REQUEST_PARTS; i++)
        parts[count++] = envelope->ids[i];
    uint8_t storage[REQUEST_PARTS * (4 + HASH_BYTES)];
    struct buffer digests = buffer_over(storage, sizeof storage);
    for (uint32_t i = 0; i < count; i++) {
        uint8_t digest[HASH_BYTES];
        buffer_put_u32(&digests, (uint32_t)parts[i].length);
        if (parts[i].length <= HASH_BYTES) {
            buffer_put(&digests, parts[i]);
            continue;
        }
        hash(digest, parts[i]);
        buffer_put(&digests, SPAN_OF(digest));
    }
    put_keyed(writer, "request_hash", call->silo, buffer_span(&digests));
}

static void put_text_or_null(struct json_writer *writer, const char *name, const char *text)
{
    if (text[0] != '\0')
        json_put_text(writer, name, text);
    else
        json_put_null(writer, name);
}

static void put_count(struct json_writer *writer, int64_t count)
{
    if (count >= 0)
        json_put_integer(writer, "count", count);
    else
        json_put_null(writer, "count");
}

static void put_result(struct json_writer *writer, const struct call *call, status why)
{
    if (why == OK && call->response != NULL && call->response->body->length > 0)
        put_keyed(writer, "result_hash", call->silo, buffer_span(call->response->body));
    else
        json_put_null(writer, "result_hash");
}

static void put_time(struct json_writer *writer, int64_t now_us)
{
    char text[CLOCK_TEXT_SIZE];
    clock_text(text, now_us);
    json_put_text(writer, "time", text);
}

/* All but the index, which is known only when the entry goes into the log. */
static void put_entry(struct buffer *out, const struct call *call, status why)
{
    const struct envelope *envelope = call->request->envelope;
    char trace[2 * TRACE_ID_BYTES + 1];
    hex_encode(trace, SPAN_OF(envelope->trace_id));
    struct json_writer writer = json_writer_on(out);
    json_open_object(&writer, NULL);
    put_time(&writer, call->request->now_us);
    json_put_text(&writer, "trace_id", trace);
    json_put_text(&writer, "tenant_id", call->silo->tenant_text);
    json_put_text(&writer, "subject", envelope->user);
    put_text_or_null(&writer, "agent", envelope->agent);
    json_put_text(&writer, "action", envelope->action->name);
    json_put_text(&writer, "resource", envelope->action->resource);
    if (call->item.length > 0)
        put_keyed(&writer, "resource_hash", call->silo, call->item);
    else
        json_put_null(&writer, "resource_hash");
    json_put_text(&writer, "decision", call->hidden || is_denial(why) ? "deny" : "allow");
    json_put_text(&writer, "code", why == OK ? "ok" : status_code(why));
    json_put_text(&writer, "clearance", clearance_name(envelope->clearance));
    if (call->classification >= 0)
        json_put_text(&writer, "classification",
                      clearance_name((enum clearance)call->classification));
    else
        json_put_null(&writer, "classification");
    put_count(&writer, call->count);
    put_request_hash(&writer, call);
    put_result(&writer, call, why);
    if (call->prompt.length > 0)
        put_keyed(&writer, "prompt_hash", call->silo, call->prompt);
    if (call->replayed)
        json_put_bool(&writer, "replayed", true);
    json_close_object(&writer);
}

status audit_has_room(const struct silo *silo, struct fault *fault)
{
    const struct audit_pending *pending = &silo->pending;
    if (pending->count >= AUDIT_PENDING_MAX ||
        pending->bytes.length + AUDIT_ENTRY_MAX + 8 > PENDING_BYTES_MAX)
        return FAIL(UNAVAILABLE, fault, "the audit log is behind: too many entries wait");
    return OK;
}

static status keep(struct silo *silo, enum effect effect, struct span entry, struct fault *fault)
{
    TRY(audit_has_room(silo, fault));
    struct audit_pending *pending = &silo->pending;
    if (pending->bytes.max == 0)
        pending->bytes = buffer_of(PENDING_BYTES_MAX);
    size_t before = pending->bytes.length;
    buffer_put_u8(&pending->bytes, (uint8_t)effect);
    buffer_put_field(&pending->bytes, entry);
    if (pending->bytes.failed) {
        pending->bytes.failed = false;
        pending->bytes.length = before;
        return FAIL(UNAVAILABLE, fault, "no memory for an audit entry");
    }
    pending->count++;
    if (pending->since_us == 0)
        pending->since_us = clock_monotonic_us();
    return OK;
}

status audit_request(const struct call *call, status why, struct fault *fault)
{
    uint8_t storage[AUDIT_ENTRY_MAX];
    struct buffer entry = buffer_over(storage, sizeof storage - 32);
    put_entry(&entry, call, why);
    TRY(buffer_check(&entry, "audit entry", fault));
    bool wrote = why == OK && call->writes;
    return keep(call->silo, wrote ? EFFECT_WROTE : EFFECT_NONE, buffer_span(&entry), fault);
}

/* What many requests, or none, brought about. */
static void put_summary(struct buffer *out, const struct silo *silo, const char *subject,
                        const char *action, status why, int64_t count)
{
    struct json_writer writer = json_writer_on(out);
    json_open_object(&writer, NULL);
    put_time(&writer, silo->now_us);
    json_put_text(&writer, "tenant_id", silo->tenant_text);
    put_text_or_null(&writer, "subject", subject);
    json_put_text(&writer, "action", action);
    json_put_text(&writer, "decision", why == OK ? "allow" : "deny");
    json_put_text(&writer, "code", why == OK ? "ok" : status_code(why));
    put_count(&writer, count);
    json_close_object(&writer);
}

status audit_system(struct silo *silo, const char *action, int64_t count, struct fault *fault)
{
    uint8_t storage[KIB(1)];
    struct buffer entry = buffer_over(storage, sizeof storage);
    put_summary(&entry, silo, "", action, OK, count);
    TRY(buffer_check(&entry, "audit entry", fault));
    return keep(silo, EFFECT_WROTE, buffer_span(&entry), fault);
}

status audit_upgrade(struct silo *silo, struct span changes, int64_t count, struct fault *fault)
{
    uint8_t storage[KIB(2)];
    struct buffer entry = buffer_over(storage, sizeof storage);
    put_summary(&entry, silo, "", "silo.upgraded", OK, count);
    if (entry.length > 0)
        entry.length--; /* its closing bracket */
    buffer_put_text(&entry, ",\"changes\":");
    buffer_put(&entry, changes);
    buffer_put_text(&entry, "}");
    TRY(buffer_check(&entry, "audit entry", fault));
    return keep(silo, EFFECT_WROTE, buffer_span(&entry), fault);
}

status audit_own(struct silo *silo, struct span entry, struct fault *fault)
{
    return keep(silo, EFFECT_WROTE, entry, fault);
}

status audit_denials(struct silo *silo, const char *action, status why, const char *subject,
                     uint64_t count, struct fault *fault)
{
    uint8_t storage[KIB(4)]; /* a subject may be written as \u escapes */
    struct buffer entry = buffer_over(storage, sizeof storage);
    put_summary(&entry, silo, subject, action, why, (int64_t)count);
    TRY(buffer_check(&entry, "audit entry", fault));
    return keep(silo, EFFECT_NONE, buffer_span(&entry), fault);
}

/* {"index":N, in front of what was kept. */
static status append(struct silo *silo, struct span kept, struct fault *fault)
{
    uint8_t storage[AUDIT_ENTRY_MAX];
    struct buffer entry = buffer_over(storage, sizeof storage);
    buffer_printf(&entry, "{\"index\":%llu,", (unsigned long long)store_log_next(silo->log));
    buffer_put(&entry, (struct span){kept.data + 1, kept.length - 1});
    TRY(buffer_check(&entry, "audit entry", fault));
    return store_log_append(silo->log, buffer_span(&entry), fault);
}

status audit_write(struct silo *silo, struct fault *fault)
{
    struct cursor kept = cursor_over(buffer_span(&silo->pending.bytes));
    while (cursor_left(&kept) > 0) {
        uint8_t effect;
        struct span entry;
        TRY(cursor_u8(&effect, &kept, fault));
        TRY(cursor_field(&entry, &kept, AUDIT_ENTRY_MAX, "audit entry", fault));
        TRY(append(silo, entry, fault));
    }
    return OK;
}

void audit_written(struct silo *silo)
{
    if (silo->pending.bytes.capacity > PENDING_BYTES_IDLE)
        buffer_free(&silo->pending.bytes);
    else
        buffer_clear(&silo->pending.bytes);
    if (silo->pending.bytes.max == 0)
        silo->pending.bytes = buffer_of(PENDING_BYTES_MAX);
    silo->pending.count = 0;
    silo->pending.since_us = 0;
}

void audit_taken_back(struct silo *silo)
{
    struct audit_pending *pending = &silo->pending;
    struct buffer all = pending->bytes;
    struct cursor kept = cursor_over(buffer_span(&all));
    struct fault fault;
    uint8_t effect;
    struct span entry;
    int64_t since_us = pending->since_us;
    *pending = (struct audit_pending){.bytes = buffer_of(PENDING_BYTES_MAX)};
    while (cursor_u8(&effect, &kept, &fault) == OK &&
           cursor_field(&entry, &kept, AUDIT_ENTRY_MAX, "audit entry", &fault) == OK)
        if (effect == EFFECT_NONE && keep(silo, EFFECT_NONE, entry, &fault) != OK)
            break;
    if (pending->count > 0)
        pending->since_us = since_us;
    buffer_free(&all);
}

bool audit_is_urgent(const struct silo *silo)
{
    return silo->pending.count >= PENDING_URGENT ||
           silo->pending.bytes.length >= PENDING_BYTES_URGENT;
}
