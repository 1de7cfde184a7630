/* release.c: versions of keys: which of a tenant's data keys are given out, wrapped under which
 * KEK, and how either is followed by the next.
 *
 * A rotation of the KEK, and what a crash at each step leaves:
 *   1. the next KEK is made; the record names the one before, which is in use: done again
 *   2. the record names the next one: all data keys are wrapped under it from here on, and opened
 *      under either
 *   3. the silo has kept them so (KEY_KEPT): the one before is destroyed
 *   4. the next one takes its place: until then it is found under its own name
 * A rotation of the data key: the number of its newest version is durable before that is given out,
 * so that no number ever stands for two keys in use; the floor is durable before the older ones are
 * left out of what the silo keeps. */
#include "kms/keystore_state.h"

#include "base/cursor.h"
#include "base/secret.h"
#include "crypt/crypt.h"

#include <assert.h>
#include <string.h>

#define DEK_MAGIC SPAN("BHDEK001")

enum {
    DEK_HEAD_BYTES = 8 + 4,
    DEK_AAD_BYTES = DEK_HEAD_BYTES + TENANT_ID_BYTES,
};

/* A live key, about to be released. */
struct releasing {
    struct keystore *store;
    uint8_t id[TENANT_ID_BYTES];
    struct kek kek;
    struct anchor_record record; /* as it is, or is to be */
    bool skipped;                /* some versions lie below the floor */
};

static status begin(struct releasing *ret, struct keystore *store,
                    const uint8_t id[TENANT_ID_BYTES], struct fault *fault)
{
    struct key_status state;
    TRY(keystore_look(&state, store, id, fault));
    if (state.state != KEY_LIVE)
        return FAIL(NOT_FOUND, fault, "there is no live key of this tenant");
    *ret = (struct releasing){.store = store, .record = *anchors_find(store->anchors, id)};
    memcpy(ret->id, id, TENANT_ID_BYTES);
    return keystore_find_kek(&ret->kek, store, id, fault);
}

/* ---- one data key ---- */

/* The AAD binds the DEK to its tenant and version. */
static void put_dek_aad(struct buffer *out, uint32_t version, const uint8_t id[TENANT_ID_BYTES])
{
    buffer_put(out, DEK_MAGIC);
    buffer_put_u32(out, version);
    buffer_put(out, (struct span){id, TENANT_ID_BYTES});
}

static status wrap_one(struct buffer *out, const struct releasing *releasing,
                       const struct released_dek *dek, struct fault *fault)
{
    uint8_t storage[DEK_AAD_BYTES];
    struct buffer aad = buffer_over(storage, sizeof storage);
    struct provider *provider = releasing->store->provider;
    put_dek_aad(&aad, dek->version, releasing->id);
    buffer_put(out, DEK_MAGIC);
    buffer_put_u32(out, dek->version);
    return provider->methods->wrap(out, provider, &releasing->kek.name, SPAN_OF(dek->key),
                                   buffer_span(&aad), fault);
}

/* While the KEK is rotated it may be wrapped under the one before. */
static status unwrap_one(uint8_t ret[KEY_BYTES], const struct releasing *releasing,
                         uint32_t version, struct span sealed, struct fault *fault)
{
    uint8_t storage[DEK_AAD_BYTES];
    struct buffer aad = buffer_over(storage, sizeof storage);
    struct provider *provider = releasing->store->provider;
    struct key_name before = kek_name(releasing->id);
    struct fault other;
    put_dek_aad(&aad, version, releasing->id);
    status opened = provider->methods->unwrap(ret, provider, &releasing->kek.name, sealed,
                                              buffer_span(&aad), fault);
    if (opened == CORRUPT && releasing->kek.rotating
        && provider->methods->unwrap(ret, provider, &before, sealed, buffer_span(&aad), &other)
               == OK)
        return OK;
    return opened;
}

/* ---- all of a silo ---- */

static status wrap_all(struct released_key *key, const struct releasing *releasing,
                       struct fault *fault)
{
    struct buffer wrapped = buffer_over(key->wrapped, sizeof key->wrapped);
    for (uint32_t i = 0; i < key->count; i++)
        TRY(wrap_one(&wrapped, releasing, &key->deks[i], fault));
    assert(!wrapped.failed && wrapped.length == key->count * WRAPPED_DEK_BYTES);
    key->wrapped_length = (uint32_t)wrapped.length;
    memcpy(key->wrapped_under, releasing->kek.facts.fingerprint, HASH_BYTES);
    return OK;
}

static status open_next(struct released_key *key, struct releasing *releasing,
                        struct cursor *cursor, uint32_t *version_before, struct fault *fault)
{
    struct span magic, sealed;
    uint32_t version;
    TRY(cursor_bytes(&magic, cursor, DEK_MAGIC.length, fault));
    TRY(cursor_u32(&version, cursor, fault));
    TRY(cursor_bytes(&sealed, cursor, KEY_BYTES + PROVIDER_WRAP_BYTES, fault));
    if (!span_equal(magic, DEK_MAGIC) || version == 0 || version >= *version_before)
        return FAIL(CORRUPT, fault, "wrapped key: not in the form of one");
    *version_before = version;
    if (version < releasing->record.dek_floor) {
        releasing->skipped = true;
        return OK;
    }
    struct released_dek *dek = &key->deks[key->count];
    TRY(unwrap_one(dek->key, releasing, version, sealed, fault));
    dek->version = version;
    key->count++;
    return OK;
}

/* CORRUPT; ROLLED_BACK when none is left that may be opened. */
static status open_all(struct released_key *key, struct releasing *releasing, struct span wrapped,
                       struct fault *fault)
{
    struct cursor cursor = cursor_over(wrapped);
    uint32_t version_before = UINT32_MAX;
    if (wrapped.length == 0 || wrapped.length % WRAPPED_DEK_BYTES
        || wrapped.length > sizeof key->wrapped)
        return FAIL(CORRUPT, fault, "wrapped key: %zu bytes, 1 to %d times %d are due",
                    wrapped.length, DEK_VERSIONS_MAX, (int)WRAPPED_DEK_BYTES);
    while (cursor_left(&cursor))
        TRY(open_next(key, releasing, &cursor, &version_before, fault));
    if (key->count == 0)
        return FAIL(ROLLED_BACK, fault, "silo.keys is older than version %u of the data key, "
                    "below which none is opened any more", releasing->record.dek_floor);
    if (key->deks[0].version > releasing->record.dek_newest)
        releasing->record.dek_newest = key->deks[0].version;
    return OK;
}

static void make_first(struct released_key *key, const struct releasing *releasing)
{
    key->count = 1;
    key->deks[0].version = releasing->record.dek_newest;
    crypt_random(key->deks[0].key, KEY_BYTES);
}

static status keep_record(const struct releasing *releasing, struct fault *fault)
{
    return anchors_set(releasing->store->anchors, &releasing->record, fault);
}

static status release(struct released_key *key, struct releasing *releasing, struct span wrapped,
                      struct fault *fault)
{
    struct keystore *store = releasing->store;
    uint32_t newest = releasing->record.dek_newest;
    bool made = wrapped.length == 0;
    if (made && anchor_has_history(&releasing->record.anchor))
        return FAIL(ROLLED_BACK, fault, "silo.keys is missing, but the silo has %ju commits",
                    (uintmax_t)releasing->record.anchor.commits);
    /* nothing is sealed under a key that a crash could lose */
    if (releasing->record.anchor.epoch == 0 && !releasing->kek.rotating)
        TRY(keystore_settle_kek(store, releasing->id, fault));
    if (made)
        make_first(key, releasing);
    else
        TRY(open_all(key, releasing, wrapped, fault));
    if (made || releasing->skipped || releasing->kek.rotating)
        TRY(wrap_all(key, releasing, fault));
    if (releasing->record.dek_newest != newest)
        TRY(keep_record(releasing, fault));
    assert(fingerprint_is_known(anchors_find(store->anchors, releasing->id)->fingerprint));
    TRY(anchors_raise_epoch(store->anchors, releasing->id, fault));
    key->anchor = anchors_find(store->anchors, releasing->id)->anchor;
    key->restores = releasing->record.restores;
    return OK;
}

status keystore_release(struct released_key *ret, struct keystore *store,
                        const uint8_t id[TENANT_ID_BYTES], struct span wrapped,
                        struct fault *fault)
{
    struct releasing releasing;
    *ret = (struct released_key){0};
    TRY(keystore_usable(store, id, fault));
    TRY(begin(&releasing, store, id, fault));
    status released = release(ret, &releasing, wrapped, fault);
    if (released != OK)
        secret_wipe(ret, sizeof *ret);
    return released;
}

/* ---- the next version, and the end of older ones ---- */

static status add_version(struct released_key *key, struct releasing *releasing,
                          struct span wrapped, struct fault *fault)
{
    TRY(open_all(key, releasing, wrapped, fault));
    if (key->count == DEK_VERSIONS_MAX)
        return FAIL(CONFLICT, fault, "%d versions of the data key are in use", DEK_VERSIONS_MAX);
    if (releasing->record.dek_newest == UINT32_MAX)
        return FAIL(CONFLICT, fault, "the data key was rotated as often as can be");
    for (uint32_t i = key->count++; i > 0; i--)
        key->deks[i] = key->deks[i - 1];
    key->deks[0].version = ++releasing->record.dek_newest;
    crypt_random(key->deks[0].key, KEY_BYTES);
    TRY(wrap_all(key, releasing, fault));
    return keep_record(releasing, fault);
}

status keystore_next(struct released_key *ret, struct keystore *store,
                     const uint8_t id[TENANT_ID_BYTES], struct span wrapped, struct fault *fault)
{
    struct releasing releasing;
    *ret = (struct released_key){0};
    TRY(begin(&releasing, store, id, fault));
    status added = add_version(ret, &releasing, wrapped, fault);
    if (added != OK)
        secret_wipe(ret, sizeof *ret);
    return added;
}

static status drop_versions(struct released_key *key, struct releasing *releasing,
                            struct span wrapped, uint32_t version, struct fault *fault)
{
    uint32_t kept = 0;
    TRY(open_all(key, releasing, wrapped, fault));
    while (kept < key->count && key->deks[kept].version >= version)
        kept++;
    if (kept == 0 || key->deks[kept - 1].version != version)
        return FAIL(BAD_FIELD, fault, "version %u of the data key is not among those of silo.keys",
                    version);
    key->count = kept;
    releasing->record.dek_floor = version;
    TRY(wrap_all(key, releasing, fault));
    return keep_record(releasing, fault);
}

status keystore_drop(struct released_key *ret, struct keystore *store,
                     const uint8_t id[TENANT_ID_BYTES], struct span wrapped, uint32_t version,
                     struct fault *fault)
{
    struct releasing releasing;
    *ret = (struct released_key){0};
    TRY(begin(&releasing, store, id, fault));
    status dropped = drop_versions(ret, &releasing, wrapped, version, fault);
    if (dropped != OK)
        secret_wipe(ret, sizeof *ret);
    return dropped;
}

status keystore_kept(struct keystore *store, const uint8_t id[TENANT_ID_BYTES],
                     const uint8_t wrapped_under[HASH_BYTES], struct fault *fault)
{
    struct releasing releasing;
    const struct key_name kek = kek_name(id);
    TRY(begin(&releasing, store, id, fault));
    const struct key_facts *present = &releasing.kek.facts;
    if (!releasing.kek.rotating
        || !span_equal(SPAN_OF(present->fingerprint), (struct span){wrapped_under, HASH_BYTES}))
        return OK; /* nothing is to be destroyed, or it is wrapped under what is */
    return store->provider->methods->succeed(store->provider, &kek, fault);
}

/* ---- the KEK, for operators ---- */

static status make_next_kek(struct releasing *releasing, struct fault *fault)
{
    struct provider *provider = releasing->store->provider;
    struct key_name next = kek_name(releasing->id);
    struct key_facts facts;
    next.next = true;
    /* one that is there is taken: a record whose sync failed may name it all the same */
    status made = provider->methods->create(&facts, provider, &next, fault);
    if (made == CORRUPT) {
        TRY(provider->methods->destroy(provider, &next, fault));
        made = provider->methods->create(&facts, provider, &next, fault);
    }
    TRY(made);
    memcpy(releasing->record.fingerprint, facts.fingerprint, HASH_BYTES);
    return keep_record(releasing, fault);
}

status keystore_rotate(uint8_t ret_fingerprint[HASH_BYTES], struct keystore *store,
                       const uint8_t id[TENANT_ID_BYTES], struct fault *fault)
{
    struct releasing releasing;
    TRY(begin(&releasing, store, id, fault));
    if (!releasing.kek.rotating)
        TRY(make_next_kek(&releasing, fault));
    memcpy(ret_fingerprint, releasing.record.fingerprint, HASH_BYTES);
    return OK;
}

status keystore_usable(struct keystore *store, const uint8_t id[TENANT_ID_BYTES],
                       struct fault *fault)
{
    const struct key_name kek = kek_name(id);
    return store->provider->methods->usable(store->provider, &kek, fault);
}

status keystore_withdraw(struct keystore *store, const uint8_t id[TENANT_ID_BYTES],
                         bool withdrawn, struct fault *fault)
{
    struct releasing releasing;
    const struct key_name kek = kek_name(id);
    TRY(begin(&releasing, store, id, fault));
    return store->provider->methods->withdraw(store->provider, &kek, withdrawn, fault);
}

status keystore_restore(uint32_t *ret_restores, struct keystore *store,
                        const uint8_t id[TENANT_ID_BYTES], const struct anchor *anchor,
                        struct fault *fault)
{
    struct releasing releasing;
    TRY(begin(&releasing, store, id, fault));
    struct anchor_record *record = &releasing.record;
    if (record->restores == UINT32_MAX)
        return FAIL(CONFLICT, fault, "this silo was restored as often as can be");
    uint64_t epoch = record->anchor.epoch;
    assert(epoch < UINT64_MAX);
    record->anchor = anchor_normalised(anchor);
    record->anchor.epoch = epoch + 1;
    record->restores++;
    TRY(keep_record(&releasing, fault));
    *ret_restores = record->restores;
    return OK;
}
