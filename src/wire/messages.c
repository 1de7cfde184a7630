#include "wire/messages.h"

#include <assert.h>

void anchor_put(struct buffer *out, const struct anchor *anchor)
{
    buffer_put_u64(out, anchor->epoch);
    buffer_put_u64(out, anchor->commits);
    buffer_put_u64(out, anchor->map_generation);
    buffer_put(out, SPAN_OF(anchor->map_hash));
    buffer_put_u64(out, anchor->log_size);
    buffer_put(out, SPAN_OF(anchor->log_root));
}

status anchor_get(struct anchor *ret, struct cursor *cursor, struct fault *fault)
{
    struct anchor anchor;
    TRY(cursor_u64(&anchor.epoch, cursor, fault));
    TRY(cursor_u64(&anchor.commits, cursor, fault));
    TRY(cursor_u64(&anchor.map_generation, cursor, fault));
    TRY(cursor_copy(anchor.map_hash, cursor, sizeof anchor.map_hash, fault));
    TRY(cursor_u64(&anchor.log_size, cursor, fault));
    TRY(cursor_copy(anchor.log_root, cursor, sizeof anchor.log_root, fault));
    *ret = anchor;
    return OK;
}

void reply_put_head(struct buffer *out, status code, const char *detail)
{
    buffer_put_u16(out, (uint16_t)code);
    buffer_put_text_field(out, detail ? detail : "");
}

status reply_get_head(struct cursor *ret, const struct ipc_message *message, struct fault *fault)
{
    struct cursor cursor = cursor_over(message->body);
    struct fault said = {0};
    uint16_t code;
    if (message->type != MESSAGE_REPLY)
        return FAIL(BAD_REQUEST, fault, "message %#x where a reply was due", message->type);
    TRY(cursor_u16(&code, &cursor, fault));
    TRY(cursor_text(said.detail, sizeof said.detail, &cursor, "detail", fault));
    if (code >= STATUS_COUNT)
        return FAIL(BAD_REQUEST, fault, "a reply with the unknown status %u", code);
    *ret = cursor;
    if (code != OK)
        *fault = said;
    return (status)code;
}

status reply_send(int fd, uint32_t id, status code, const char *detail, struct fault *fault)
{
    uint8_t storage[256];
    struct buffer body = buffer_over(storage, sizeof storage);
    reply_put_head(&body, code, detail);
    TRY(buffer_check(&body, "reply", fault));
    return ipc_send(fd, MESSAGE_REPLY, id, buffer_span(&body), NULL, 0, fault);
}

/* A tab is a blank (RFC 9110 5.5). */
bool relay_header_fits(struct span value)
{
    for (size_t i = 0; i < value.length; i++)
        if ((value.data[i] < ' ' && value.data[i] != '\t') || value.data[i] > '~')
            return false;
    return value.length > 0 && value.length <= RELAY_HEADER_MAX;
}

void relay_headers_put(struct buffer *out, const struct span headers[RELAY_HEADERS])
{
    uint8_t count = 0;
    for (int kind = 1; kind < RELAY_HEADERS; kind++)
        if (headers[kind].length)
            count++;
    buffer_put_u8(out, count);
    for (int kind = 1; kind < RELAY_HEADERS; kind++) {
        if (headers[kind].length == 0)
            continue;
        assert(relay_header_fits(headers[kind]));
        buffer_put_u8(out, (uint8_t)kind);
        buffer_put_field(out, headers[kind]);
    }
}

status relay_headers_get(struct span ret[RELAY_HEADERS], struct cursor *cursor, uint32_t kinds,
                         struct fault *fault)
{
    struct span headers[RELAY_HEADERS] = {0};
    uint8_t count, kind, before = 0;
    TRY(cursor_u8(&count, cursor, fault));
    for (uint8_t i = 0; i < count; i++, before = kind) {
        TRY(cursor_u8(&kind, cursor, fault));
        if (kind <= before || kind >= RELAY_HEADERS || !(kinds & (UINT32_C(1) << kind)))
            return FAIL(BAD_REQUEST, fault, "a header of kind %u", kind);
        TRY(cursor_field(&headers[kind], cursor, RELAY_HEADER_MAX, "header", fault));
        if (!relay_header_fits(headers[kind]))
            return FAIL(BAD_REQUEST, fault, "header %u: what no header can be", kind);
    }
    for (int i = 0; i < RELAY_HEADERS; i++)
        ret[i] = headers[i];
    return OK;
}
