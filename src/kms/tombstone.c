#include "kms/tombstone.h"

#include "base/cursor.h"
#include "base/hex.h"
#include "base/secret.h"
#include "kms/key_files.h"

#include <assert.h>

#define TOMBSTONE_MAGIC SPAN("BHTOMB01")

enum {
    TEXT_BYTES = 8 + TENANT_ID_BYTES + HASH_BYTES + ANCHOR_WIRE_BYTES + 8,
    TOMBSTONE_BYTES = TEXT_BYTES + HASH_BYTES, /* the MAC behind it */
};

static const struct key_name records_key = {.kind = KEY_RECORDS};

static void file_of(char ret[KEY_FILE_NAME], const uint8_t id[TENANT_ID_BYTES])
{
    char text[TENANT_ID_TEXT];
    hex_encode(text, (struct span){id, TENANT_ID_BYTES});
    snprintf(ret, KEY_FILE_NAME, "%s" TOMBSTONE_SUFFIX, text);
}

static status put_mac(struct buffer *out, struct provider *provider, struct span text,
                      struct fault *fault)
{
    return provider->methods->sign(out, provider, &records_key, text, fault);
}

static status parse(struct tombstone *ret, struct span text, const uint8_t id[TENANT_ID_BYTES],
                    struct fault *fault)
{
    struct cursor cursor = cursor_over(text);
    struct tombstone tombstone;
    struct span magic, own_id;
    uint64_t time;
    TRY(cursor_bytes(&magic, &cursor, TOMBSTONE_MAGIC.length, fault));
    TRY(cursor_bytes(&own_id, &cursor, TENANT_ID_BYTES, fault));
    TRY(cursor_copy(tombstone.fingerprint, &cursor, HASH_BYTES, fault));
    TRY(anchor_get(&tombstone.anchor, &cursor, fault));
    TRY(cursor_u64(&time, &cursor, fault));
    TRY(cursor_end(&cursor, fault));
    if (!span_equal(magic, TOMBSTONE_MAGIC)
        || !span_equal(own_id, (struct span){id, TENANT_ID_BYTES}) || time > INT64_MAX)
        return FAIL(CORRUPT, fault, "not a tombstone of this tenant");
    tombstone.shredded_at_us = (int64_t)time;
    *ret = tombstone;
    return OK;
}

status tombstone_read(struct tombstone *ret, int directory, struct provider *provider,
                      const uint8_t id[TENANT_ID_BYTES], struct fault *fault)
{
    char file[KEY_FILE_NAME];
    uint8_t bytes[TOMBSTONE_BYTES], storage[HASH_BYTES];
    struct buffer mac = buffer_over(storage, sizeof storage);
    struct span text = {bytes, TEXT_BYTES};
    struct fault why;
    file_of(file, id);
    TRY(key_file_read(bytes, sizeof bytes, directory, file, fault));
    TRY(put_mac(&mac, provider, text, fault));
    if (!secret_equal(buffer_span(&mac), (struct span){bytes + TEXT_BYTES, HASH_BYTES})
        || parse(ret, text, id, &why) != OK)
        return FAIL(CORRUPT, fault, "%s: damaged, or not of this key store", file);
    return OK;
}

status tombstone_write(int directory, struct provider *provider,
                       const uint8_t id[TENANT_ID_BYTES], const struct tombstone *tombstone,
                       struct fault *fault)
{
    char file[KEY_FILE_NAME];
    uint8_t bytes[TOMBSTONE_BYTES];
    struct buffer out = buffer_over(bytes, sizeof bytes);
    file_of(file, id);
    buffer_put(&out, TOMBSTONE_MAGIC);
    buffer_put(&out, (struct span){id, TENANT_ID_BYTES});
    buffer_put(&out, SPAN_OF(tombstone->fingerprint));
    anchor_put(&out, &tombstone->anchor);
    buffer_put_u64(&out, (uint64_t)tombstone->shredded_at_us);
    TRY(put_mac(&out, provider, buffer_span(&out), fault));
    assert(out.length == TOMBSTONE_BYTES && !out.failed);
    return key_file_write(directory, file, 0600, buffer_span(&out), fault);
}

status tombstone_id(uint8_t ret[TENANT_ID_BYTES], const char *name, struct fault *fault)
{
    struct span text = span_of_text(name);
    if (!key_file_has_suffix(name, TOMBSTONE_SUFFIX))
        return FAIL(BAD_FIELD, fault, "not the name of a tombstone");
    text.length -= sizeof TOMBSTONE_SUFFIX - 1;
    return hex_decode(ret, TENANT_ID_BYTES, text, "name of a tombstone", fault);
}
