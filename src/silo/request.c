#include "silo/state.h"

#include "base/cursor.h"
#include "wire/base64.h"

#include <assert.h>

enum {
    SEAL_HEAD_BYTES = AEAD_NONCE_BYTES + AEAD_TAG_BYTES,
    SEALED_MAX = SEAL_HEAD_BYTES + POSITION_MAX,
    CURSOR_TEXT_MAX = (SEALED_MAX + 2) / 3 * 4,
    LIMIT_DIGITS_MAX = 4,
};

static bool is_blank(uint8_t byte)
{
    return byte == ' ' || byte == '\t';
}

static uint8_t lower(uint8_t byte)
{
    return byte >= 'A' && byte <= 'Z' ? (uint8_t)(byte + 'a' - 'A') : byte;
}

/* application/json, with or without parameters (RFC 9110 8.3.1). */
static bool is_json_media(struct span type)
{
    static const char json[] = "application/json";
    size_t length = sizeof json - 1;
    if (type.length < length)
        return false;
    for (size_t i = 0; i < length; i++)
        if (lower(type.data[i]) != (uint8_t)json[i])
            return false;
    while (length < type.length && is_blank(type.data[length]))
        length++;
    return length == type.length || type.data[length] == ';';
}

status call_body(struct json *ret, const struct call *call, struct fault *fault)
{
    if (!is_json_media(call->request->content_type))
        return FAIL(UNSUPPORTED_MEDIA, fault, "the body must be application/json");
    TRY(json_parse(ret, call->request->arena, call->request->body, fault));
    return json_need_object(ret, "the body", fault);
}

status read_limit(uint32_t *ret, const struct span *text, struct fault *fault)
{
    if (text == NULL) {
        *ret = LIST_LIMIT_DEFAULT;
        return OK;
    }
    uint32_t limit = 0;
    bool ok = text->length > 0 && text->length < LIMIT_DIGITS_MAX && text->data[0] != '0';
    for (size_t i = 0; ok && i < text->length; i++) {
        ok = text->data[i] >= '0' && text->data[i] <= '9';
        limit = limit * 10 + (uint32_t)(text->data[i] - '0');
    }
    if (!ok || limit < 1 || limit > LIST_LIMIT_MAX)
        return FAIL(BAD_FIELD, fault, "limit: must be a whole number from 1 to %d",
                    (int)LIST_LIMIT_MAX);
    *ret = limit;
    return OK;
}

status position_put(struct json_writer *writer, const struct call *call, struct span position,
                    struct span scope, struct fault *fault)
{
    uint8_t nonce[AEAD_NONCE_BYTES], tag[AEAD_TAG_BYTES], sealed[POSITION_MAX];
    assert(position.length <= POSITION_MAX);
    aead_seal(sealed, nonce, tag, call->silo->cursor_key, position, scope);
    uint8_t storage[SEALED_MAX], text_storage[CURSOR_TEXT_MAX];
    struct buffer bytes = buffer_over(storage, sizeof storage);
    buffer_put(&bytes, SPAN_OF(nonce));
    buffer_put(&bytes, SPAN_OF(tag));
    buffer_put(&bytes, (struct span){sealed, position.length});
    struct buffer text = buffer_over(text_storage, sizeof text_storage);
    base64url_put(&text, buffer_span(&bytes));
    TRY(buffer_check(&text, "cursor", fault));
    json_put_string(writer, "next_cursor", buffer_span(&text));
    return OK;
}

static status bad_cursor(struct fault *fault)
{
    return FAIL(BAD_FIELD, fault, "cursor: only the next_cursor of this very list is allowed");
}

status position_get(struct span *ret, const struct call *call, struct span text,
                    struct span scope, struct fault *fault)
{
    uint8_t storage[SEALED_MAX];
    struct buffer bytes = buffer_over(storage, sizeof storage);
    struct fault inner;
    if (base64url_decode(&bytes, text, "cursor", &inner) != OK || bytes.failed ||
        bytes.length <= SEAL_HEAD_BYTES)
        return bad_cursor(fault);
    const uint8_t *nonce = storage, *tag = storage + AEAD_NONCE_BYTES;
    struct span sealed = {tag + AEAD_TAG_BYTES, bytes.length - SEAL_HEAD_BYTES};
    uint8_t *position = arena_alloc(call->request->arena, sealed.length);
    if (position == NULL)
        return FAIL(TOO_LARGE, fault, "the cursor does not fit the memory of one request");
    if (aead_open(position, call->silo->cursor_key, nonce, tag, sealed, scope, &inner) != OK)
        return bad_cursor(fault);
    *ret = (struct span){position, sealed.length};
    return OK;
}
