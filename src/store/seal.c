#include "store/seal.h"

#include "base/buffer.h"
#include "base/cursor.h"
#include "base/secret.h"

#include <string.h>

enum { ASSOCIATED_BYTES = TENANT_ID_BYTES + 1 + 4 + 8 + 8 + TAG_BYTES };

static const char *const purposes[SEAL_FILES] = {
    [SEAL_PAGES] = "bulkhead pages v1",
    [SEAL_WAL] = "bulkhead wal v1",
    [SEAL_MAP] = "bulkhead map v1",
};

static status key_create(struct seal_key *key, const struct seal *seal,
                         const struct store_key *from, struct fault *fault)
{
    uint8_t derived[KEY_BYTES];
    struct span salt = SPAN_OF(seal->silo_id);
    status made = OK;
    key->version = from->version;
    for (int file = 0; file < SEAL_FILES && made == OK; file++) {
        key_derive(derived, from->dek, salt, purposes[file]);
        made = aead_create(&key->files[file], derived, fault);
    }
    secret_wipe(derived, sizeof derived);
    return made;
}

status seal_create(struct seal *ret, const struct store_options *options, struct fault *fault)
{
    if (options->key_count == 0 || options->key_count > STORE_KEY_VERSIONS_MAX)
        return FAIL(INTERNAL, fault, "%u key versions, 1 to %d are possible", options->key_count,
                    STORE_KEY_VERSIONS_MAX);
    struct seal seal = {.key_count = options->key_count};
    memcpy(seal.silo_id, options->silo_id, TENANT_ID_BYTES);
    for (uint32_t i = 0; i < seal.key_count; i++) {
        status made = key_create(&seal.keys[i], &seal, &options->keys[i], fault);
        if (made != OK) {
            seal_destroy(&seal);
            return made;
        }
    }
    *ret = seal;
    return OK;
}

static void key_destroy(struct seal_key *key)
{
    for (int file = 0; file < SEAL_FILES; file++)
        key->files[file] = aead_free(key->files[file]);
    key->version = 0;
}

void seal_destroy(struct seal *seal)
{
    for (uint32_t i = 0; i < seal->key_count; i++)
        key_destroy(&seal->keys[i]);
    *seal = (struct seal){0};
}

status seal_add(struct seal *seal, const struct store_key *key, struct fault *fault)
{
    struct seal_key made = {0};
    if (seal->key_count == STORE_KEY_VERSIONS_MAX)
        return FAIL(INTERNAL, fault, "%u key versions, no more are possible", seal->key_count);
    if (key->version <= seal->keys[0].version)
        return FAIL(INTERNAL, fault, "key version %u after %u", key->version,
                    seal->keys[0].version);
    status created = key_create(&made, seal, key, fault);
    if (created != OK) {
        key_destroy(&made);
        return created;
    }
    for (uint32_t i = seal->key_count++; i > 0; i--)
        seal->keys[i] = seal->keys[i - 1];
    seal->keys[0] = made;
    return OK;
}

void seal_keep_newest(struct seal *seal)
{
    for (uint32_t i = 1; i < seal->key_count; i++)
        key_destroy(&seal->keys[i]);
    seal->key_count = 1;
}

/* Fixed length, so that no two places read alike. */
static struct span associated(uint8_t bytes[ASSOCIATED_BYTES], const struct seal *seal,
                              struct seal_place place, uint32_t version)
{
    static const uint8_t none[TAG_BYTES];
    struct buffer out = buffer_over(bytes, ASSOCIATED_BYTES);
    buffer_put(&out, SPAN_OF(seal->silo_id));
    buffer_put_u8(&out, place.kind);
    buffer_put_u32(&out, version);
    buffer_put_u64(&out, place.major);
    buffer_put_u64(&out, place.minor);
    buffer_put(&out, (struct span){place.before != NULL ? place.before : none, TAG_BYTES});
    assert(!out.failed && out.length == ASSOCIATED_BYTES);
    return buffer_span(&out);
}

void seal_put(uint8_t *out, uint8_t trailer[SEAL_BYTES], struct seal *seal,
              struct seal_place place, struct span in)
{
    uint8_t bytes[ASSOCIATED_BYTES];
    const struct seal_key *key = &seal->keys[0];
    struct buffer version = buffer_over(trailer + SEAL_VERSION_AT, SEAL_BYTES - SEAL_VERSION_AT);
    buffer_put_u32(&version, key->version);
    aead_seal(out, trailer, trailer + SEAL_TAG_AT, key->files[place.file], in,
              associated(bytes, seal, place, key->version));
}

status seal_get(uint8_t *out, struct seal *seal, struct seal_place place, struct span in,
                const uint8_t trailer[SEAL_BYTES], struct fault *fault)
{
    uint8_t bytes[ASSOCIATED_BYTES];
    uint32_t version;
    struct cursor cursor = cursor_over((struct span){trailer + SEAL_VERSION_AT, 4});
    TRY(cursor_u32(&version, &cursor, fault));
    for (uint32_t i = 0; i < seal->key_count; i++) {
        const struct seal_key *key = &seal->keys[i];
        if (key->version == version)
            return aead_open(out, key->files[place.file], trailer, trailer + SEAL_TAG_AT, in,
                             associated(bytes, seal, place, version), fault);
    }
    return FAIL(CORRUPT, fault, "sealed under key version %u, which is not at hand", version);
}
