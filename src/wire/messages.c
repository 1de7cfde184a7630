#include "wire/messages.h"

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
