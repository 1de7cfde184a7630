#define _GNU_SOURCE
#include "kms/keystore_state.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/cursor.h"
#include "base/hex.h"
#include "base/secret.h"
#include "crypt/note.h"
#include "kms/file_provider.h"
#include "kms/key_files.h"
#include "kms/tombstone.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>

static const struct key_name platform_name = {.kind = KEY_PLATFORM};
static const struct key_name issuer_name = {.kind = KEY_ISSUER};
static const uint8_t platform_id[TENANT_ID_BYTES];

bool keystore_is_platform(const uint8_t id[TENANT_ID_BYTES])
{
    return span_equal((struct span){id, TENANT_ID_BYTES}, SPAN_OF(platform_id));
}

struct key_name kek_name(const uint8_t id[TENANT_ID_BYTES])
{
    struct key_name name = {.kind = KEY_TENANT};
    memcpy(name.id, id, TENANT_ID_BYTES);
    return name;
}

bool anchor_has_history(const struct anchor *anchor)
{
    return anchor->commits > 0 || anchor->map_generation > 0 || anchor->log_size > 0;
}

bool fingerprint_is_known(const uint8_t fingerprint[HASH_BYTES])
{
    static const uint8_t none[HASH_BYTES];
    return !span_equal((struct span){fingerprint, HASH_BYTES}, SPAN_OF(none));
}

static status refuse(const uint8_t id[TENANT_ID_BYTES], const char *why, struct fault *fault)
{
    char text[TENANT_ID_TEXT];
    hex_encode(text, (struct span){id, TENANT_ID_BYTES});
    return FAIL(CORRUPT, fault, "key of tenant %s: %s", text, why);
}

static status find_one(struct key_facts *ret, struct keystore *store, const struct key_name *name,
                       struct fault *fault)
{
    return store->provider->methods->find(ret, store->provider, name, fault);
}

static bool is_named(const struct anchor_record *record, const struct key_facts *facts)
{
    return record && fingerprint_is_known(record->fingerprint)
        && span_equal(SPAN_OF(record->fingerprint), SPAN_OF(facts->fingerprint));
}

status keystore_find_kek(struct kek *ret, struct keystore *store,
                         const uint8_t id[TENANT_ID_BYTES], struct fault *fault)
{
    const struct anchor_record *record = anchors_find(store->anchors, id);
    struct kek kek = {.name = kek_name(id)}, next = {.name = kek_name(id), .rotating = true};
    struct fault why, absent;
    next.name.next = true;
    status found = find_one(&kek.facts, store, &kek.name, &why);
    if (found == OK && (!record || is_named(record, &kek.facts))) {
        *ret = kek;
        return OK;
    }
    status follows = find_one(&next.facts, store, &next.name, &absent);
    if (follows == OK && (is_named(record, &next.facts) || found == NOT_FOUND)) {
        *ret = next;
        return OK;
    }
    if (follows != NOT_FOUND && follows != OK && (found == NOT_FOUND || found == OK)) {
        *fault = absent; /* which of them is in force is not known */
        return follows;
    }
    if (found != OK)
        *fault = why;
    else
        *ret = kek;
    return found;
}

static status create_kek(struct key_facts *ret, struct keystore *store,
                         const uint8_t id[TENANT_ID_BYTES], struct fault *fault)
{
    const struct key_name name = kek_name(id);
    return store->provider->methods->create(ret, store->provider, &name, fault);
}

/* The next one first: found alone, it would be taken for the one in force. */
static status destroy_kek(struct keystore *store, const uint8_t id[TENANT_ID_BYTES],
                          struct fault *fault)
{
    struct provider *provider = store->provider;
    struct key_name name = kek_name(id), next = kek_name(id);
    struct key_facts facts;
    struct fault ignored;
    next.next = true;
    if (provider->methods->usable(provider, &name, &ignored) == UNAVAILABLE
        && provider->methods->withdraw(provider, &name, false, &ignored) != OK)
        ignored = (struct fault){0}; /* of a key that is gone it says nothing any more */
    if (find_one(&facts, store, &next, &ignored) != NOT_FOUND)
        TRY(provider->methods->destroy(provider, &next, fault));
    return provider->methods->destroy(provider, &name, fault);
}

static status read_tombstone(struct tombstone *ret, struct keystore *store,
                             const uint8_t id[TENANT_ID_BYTES], struct fault *fault)
{
    return tombstone_read(ret, store->directory, store->provider, id, fault);
}

static struct key_status shredded(const struct tombstone *tombstone)
{
    struct key_status key = {.state = KEY_SHREDDED, .anchor = tombstone->anchor};
    memcpy(key.fingerprint, tombstone->fingerprint, HASH_BYTES);
    return key;
}

static void put_versions(struct key_status *ret, const struct anchor_record *record)
{
    ret->anchor = record->anchor;
    ret->dek_floor = record->dek_floor;
    ret->dek_newest = record->dek_newest;
    ret->restores = record->restores;
}

/* The key as it is where there is no tombstone. */
static status look_at_key(struct key_status *ret, struct keystore *store,
                          const uint8_t id[TENANT_ID_BYTES], struct fault *fault)
{
    struct kek kek;
    struct fault why;
    const struct anchor_record *record = anchors_find(store->anchors, id);
    status found = keystore_find_kek(&kek, store, id, &why);
    if (found == NOT_FOUND && record && record->anchor.epoch > 0)
        return refuse(id, "was released and is now missing", fault);
    if (found == NOT_FOUND) { /* a record at epoch 0 is what an unfinished create left */
        *ret = (struct key_status){.state = KEY_NONE};
        return OK;
    }
    if (found != OK) {
        *fault = why;
        return found;
    }
    if (!record)
        return refuse(id, "its anchor is missing or damaged", fault);
    if (fingerprint_is_known(record->fingerprint) || record->anchor.epoch > 0)
        if (!is_named(record, &kek.facts))
            return refuse(id, "is not the one that its anchor names", fault);
    *ret = (struct key_status){.state = KEY_LIVE, .rotating = kek.rotating};
    put_versions(ret, record);
    memcpy(ret->fingerprint, kek.facts.fingerprint, HASH_BYTES);
    return OK;
}

status keystore_look(struct key_status *ret, struct keystore *store,
                     const uint8_t id[TENANT_ID_BYTES], struct fault *fault)
{
    struct tombstone tombstone;
    struct fault why;
    status buried = read_tombstone(&tombstone, store, id, &why);
    if (buried == NOT_FOUND)
        return look_at_key(ret, store, id, fault);
    if (buried != OK) {
        *fault = why;
        return buried;
    }
    *ret = shredded(&tombstone);
    return OK;
}

status keystore_settle_kek(struct keystore *store, const uint8_t id[TENANT_ID_BYTES],
                           struct fault *fault)
{
    struct key_facts facts;
    TRY(create_kek(&facts, store, id, fault));
    const struct anchor_record *record = anchors_find(store->anchors, id);
    assert(record);
    if (!fingerprint_is_known(record->fingerprint)) {
        struct anchor_record named = *record;
        memcpy(named.fingerprint, facts.fingerprint, HASH_BYTES);
        TRY(anchors_set(store->anchors, &named, fault));
    }
    return OK;
}

status keystore_create(uint8_t ret_fingerprint[HASH_BYTES], struct keystore *store,
                       const uint8_t id[TENANT_ID_BYTES], struct fault *fault)
{
    struct key_status key;
    TRY(keystore_look(&key, store, id, fault));
    if (key.state == KEY_SHREDDED)
        return FAIL(CONFLICT, fault, "the key of this tenant was destroyed; an id is never reused");
    if (key.state == KEY_NONE) {
        /* the record first: a KEK without one reads as a tenant whose anchor was lost. One that is
         * left of an earlier attempt may name another KEK. */
        TRY(anchors_remove(store->anchors, id, fault));
        TRY(anchors_add(store->anchors, id, fault));
    }
    if (!key.rotating) /* else it was durable before its record named it */
        TRY(keystore_settle_kek(store, id, fault));
    memcpy(ret_fingerprint, anchors_find(store->anchors, id)->fingerprint, HASH_BYTES);
    return OK;
}

status keystore_discard(struct keystore *store, const uint8_t id[TENANT_ID_BYTES],
                        struct fault *fault)
{
    struct tombstone tombstone;
    struct kek kek;
    struct fault why;
    status buried = read_tombstone(&tombstone, store, id, &why);
    if (buried == OK)
        return FAIL(CONFLICT, fault, "the key of this tenant was shredded");
    if (buried != NOT_FOUND) {
        *fault = why;
        return buried;
    }
    const struct anchor_record *record = anchors_find(store->anchors, id);
    if (record && record->anchor.epoch > 0)
        return FAIL(CONFLICT, fault, "the key of this tenant was released: only to be shredded");
    if (!record) {
        status found = keystore_find_kek(&kek, store, id, &why);
        if (found == NOT_FOUND)
            return OK;
        return refuse(id, "its anchor is missing or damaged, so it may have been released", fault);
    }
    TRY(destroy_kek(store, id, fault));
    return anchors_remove(store->anchors, id, fault);
}

/* The tombstone stands; what it announces is done, perhaps once more. */
static status finish_shredding(struct keystore *store, const uint8_t id[TENANT_ID_BYTES],
                               struct fault *fault)
{
    TRY(key_files_settle(store->directory, fault)); /* durable before the destruction */
    TRY(destroy_kek(store, id, fault));
    return anchors_remove(store->anchors, id, fault);
}

/* What the tombstone will say of a key that may be damaged: erasing is not refused for damage, as
 * long as it is known which key is erased. */
static status describe_for_burial(struct tombstone *ret, struct keystore *store,
                                  const uint8_t id[TENANT_ID_BYTES], struct fault *fault)
{
    struct kek kek = {.name.kind = KEY_TENANT};
    struct fault why;
    const struct anchor_record *record = anchors_find(store->anchors, id);
    status found = keystore_find_kek(&kek, store, id, &why);
    bool released = record && record->anchor.epoch > 0;
    if (found == NOT_FOUND && !released)
        return FAIL(NOT_FOUND, fault, "there is no key of this tenant");
    bool named = record && fingerprint_is_known(record->fingerprint);
    if (found != OK && ((found != CORRUPT && found != NOT_FOUND) || !named)) {
        *fault = why;
        return found;
    }
    *ret = (struct tombstone){.anchor = record ? record->anchor : anchor_beginning(),
                              .shredded_at_us = clock_wall_us()};
    memcpy(ret->fingerprint, named ? record->fingerprint : kek.facts.fingerprint, HASH_BYTES);
    return OK;
}

status keystore_shred(struct key_status *ret, struct keystore *store,
                      const uint8_t id[TENANT_ID_BYTES], struct fault *fault)
{
    struct tombstone tombstone;
    struct fault why;
    if (keystore_is_platform(id))
        return FAIL(FORBIDDEN_POLICY, fault, "the platform's own key is not shredded");
    status buried = read_tombstone(&tombstone, store, id, &why);
    if (buried != OK && buried != NOT_FOUND) {
        *fault = why;
        return buried;
    }
    if (buried == NOT_FOUND) {
        TRY(describe_for_burial(&tombstone, store, id, fault));
        TRY(tombstone_write(store->directory, store->provider, id, &tombstone, fault));
    }
    TRY(finish_shredding(store, id, fault));
    *ret = shredded(&tombstone);
    return OK;
}

/* ---- signing ---- */

static const struct {
    const struct key_name *key;
    const char *beginning; /* none is that of another one of the same key */
} purposes[SIGN_PURPOSES] = {
    [SIGN_CHECKPOINT] = {&platform_name, "bulkhead/"},
    [SIGN_RECEIPT] = {&platform_name, "bulkhead receipt v1\n"},
    [SIGN_CHARTER] = {&platform_name, "bulkhead charter v1\n"},
    [SIGN_TOKEN] = {&issuer_name, "eyJ"}, /* {"... */
};

bool keystore_may_sign(enum sign_purpose purpose, struct span message)
{
    struct span due = span_of_text(purposes[purpose].beginning);
    return message.length > due.length
        && span_equal((struct span){message.data, due.length}, due);
}

status keystore_sign(uint8_t ret[SIGNATURE_BYTES], struct keystore *store,
                     enum sign_purpose purpose, struct span message, struct fault *fault)
{
    uint8_t storage[SIGNATURE_BYTES];
    struct buffer signature = buffer_over(storage, sizeof storage);
    assert(keystore_may_sign(purpose, message));
    TRY(store->provider->methods->sign(&signature, store->provider, purposes[purpose].key, message,
                                       fault));
    assert(signature.length == SIGNATURE_BYTES);
    memcpy(ret, storage, sizeof storage);
    return OK;
}

/* ---- anchors ---- */

/* The root of an empty log is said as all zero by who has no tree yet. */
struct anchor anchor_normalised(const struct anchor *anchor)
{
    static const uint8_t unsaid[HASH_BYTES];
    struct anchor normal = *anchor;
    const struct anchor beginning = anchor_beginning();
    if (anchor->log_size == 0 && span_equal(SPAN_OF(anchor->log_root), SPAN_OF(unsaid)))
        memcpy(normal.log_root, beginning.log_root, HASH_BYTES);
    return normal;
}

static status check_growth(const struct anchor *from, const struct anchor *to,
                           struct fault *fault)
{
    if (to->commits < from->commits || to->map_generation < from->map_generation
        || to->log_size < from->log_size)
        return FAIL(CORRUPT, fault, "anchor: it would shrink");
    if (anchor_has_history(from) && to->map_generation == from->map_generation
        && !span_equal(SPAN_OF(to->map_hash), SPAN_OF(from->map_hash)))
        return FAIL(CORRUPT, fault, "anchor: another map hash of the same generation");
    if (to->log_size == from->log_size
        && !span_equal(SPAN_OF(to->log_root), SPAN_OF(from->log_root)))
        return FAIL(CORRUPT, fault, "anchor: another root of the same log size");
    return OK;
}

static status check_proof(const struct anchor *from, const struct anchor *to,
                          const struct hash_value *proof, uint32_t count, struct fault *fault)
{
    struct hash_value from_root, to_root;
    if (to->log_size == from->log_size && count != 0)
        return FAIL(CORRUPT, fault, "anchor: a proof where nothing is to be proven");
    memcpy(from_root.bytes, from->log_root, HASH_BYTES);
    memcpy(to_root.bytes, to->log_root, HASH_BYTES);
    return merkle_check_consistency(from->log_size, to->log_size, proof, count, &from_root,
                                    &to_root, fault);
}

static status sign_checkpoint(struct buffer *out, struct keystore *store,
                              const uint8_t id[TENANT_ID_BYTES], const struct anchor *anchor,
                              struct fault *fault)
{
    struct checkpoint checkpoint = {.size = anchor->log_size};
    char text[TENANT_ID_TEXT];
    uint8_t storage[NOTE_MAX], signature[SIGNATURE_BYTES];
    struct buffer body = buffer_over(storage, sizeof storage);
    memcpy(checkpoint.root.bytes, anchor->log_root, HASH_BYTES);
    hex_encode(text, (struct span){id, TENANT_ID_BYTES});
    uint32_t restores = anchors_find(store->anchors, id)->restores;
    if (keystore_is_platform(id))
        snprintf(checkpoint.origin, sizeof checkpoint.origin, "bulkhead/ledger");
    else if (restores == 0)
        snprintf(checkpoint.origin, sizeof checkpoint.origin, "bulkhead/silo/%s", text);
    else /* a log that was put back is another log: its older notes are not of this one */
        snprintf(checkpoint.origin, sizeof checkpoint.origin, "bulkhead/silo/%s+%u", text,
                 restores);
    checkpoint_put_body(&body, &checkpoint);
    TRY(buffer_check(&body, "checkpoint", fault));
    TRY(keystore_sign(signature, store, SIGN_CHECKPOINT, buffer_span(&body), fault));
    buffer_put(out, buffer_span(&body));
    checkpoint_put_signature(out, PLATFORM_KEY_NAME, store->platform_key, signature);
    return buffer_check(out, "checkpoint", fault);
}

status keystore_move(struct buffer *out, struct keystore *store,
                     const uint8_t id[TENANT_ID_BYTES], uint64_t epoch,
                     const struct anchor *anchor, const struct hash_value *proof,
                     uint32_t proof_count, struct fault *fault)
{
    const struct anchor_record *record = anchors_find(store->anchors, id);
    if (!record)
        return FAIL(NOT_FOUND, fault, "there is no live key of this tenant");
    if (anchor->epoch != epoch || record->anchor.epoch != epoch)
        return FAIL(CORRUPT, fault, "anchor: epoch %ju, %ju is in force",
                    (uintmax_t)anchor->epoch, (uintmax_t)record->anchor.epoch);
    struct anchor_record moved = *record;
    moved.anchor = anchor_normalised(anchor);
    TRY(check_growth(&record->anchor, &moved.anchor, fault));
    TRY(check_proof(&record->anchor, &moved.anchor, proof, proof_count, fault));
    TRY(sign_checkpoint(out, store, id, &moved.anchor, fault));
    return anchors_set(store->anchors, &moved, fault);
}

/* ---- charters ---- */

static status find_head(struct charter_head *ret, const struct keystore *store,
                        const uint8_t id[TENANT_ID_BYTES], struct fault *fault)
{
    const struct anchor_record *record = anchors_find(store->anchors, id);
    if (!record)
        return refuse(id, "its anchor is missing or damaged", fault);
    *ret = record->charter;
    return OK;
}

status keystore_heads(struct charter_head *ret, struct charter_head *ret_platform,
                      const struct keystore *store, const uint8_t id[TENANT_ID_BYTES],
                      struct fault *fault)
{
    struct charter_head own;
    TRY(find_head(&own, store, id, fault));
    TRY(find_head(ret_platform, store, platform_id, fault));
    *ret = own;
    return OK;
}

static bool same_charter(const struct charter_head *left, const struct charter_head *right)
{
    return left->sequence == right->sequence
        && span_equal(SPAN_OF(left->hash), SPAN_OF(right->hash));
}

static status sign_charter(struct signed_charter *charter, struct keystore *store,
                           struct fault *fault)
{
    _cleanup_buffer_ struct buffer message = buffer_of(CHARTER_SIGNED_MAX);
    charter_signed_bytes(&message, charter->id, charter->sequence, charter->document);
    TRY(buffer_check(&message, "charter", fault));
    return keystore_sign(charter->signature, store, SIGN_CHARTER, buffer_span(&message), fault);
}

status keystore_charter(bool *ret_new, struct keystore *store, struct signed_charter *charter,
                        bool renew_only, struct fault *fault)
{
    struct key_status key;
    struct charter_head newest, head = {.sequence = charter->sequence};
    TRY(keystore_look(&key, store, charter->id, fault));
    if (key.state != KEY_LIVE)
        return FAIL(NOT_FOUND, fault, "there is no live key of this tenant");
    TRY(find_head(&newest, store, charter->id, fault));
    charter_hash(head.hash, charter->id, charter->sequence, charter->document);
    bool again = same_charter(&head, &newest);
    if (!again && (renew_only || head.sequence == 0 || head.sequence - 1 != newest.sequence))
        return FAIL(CONFLICT, fault, "charter: sequence %ju, the newest signed is %ju%s",
                    (uintmax_t)head.sequence, (uintmax_t)newest.sequence,
                    head.sequence == newest.sequence ? ", another one" : "");
    TRY(sign_charter(charter, store, fault));
    if (!again) {
        struct anchor_record record = *anchors_find(store->anchors, charter->id);
        record.charter = head;
        TRY(anchors_set(store->anchors, &record, fault));
    }
    *ret_new = !again;
    return OK;
}

status keystore_sync(struct keystore *store, struct fault *fault)
{
    return anchors_flush(store->anchors, fault);
}

void keystore_public_keys(uint8_t ret_platform[SIGN_PUBLIC_BYTES],
                          uint8_t ret_issuer[SIGN_PUBLIC_BYTES], const struct keystore *store)
{
    memcpy(ret_platform, store->platform_key, SIGN_PUBLIC_BYTES);
    memcpy(ret_issuer, store->issuer_key, SIGN_PUBLIC_BYTES);
}

/* ---- opening ---- */

static status find_tombstone(void *context, const char *name, struct fault *fault)
{
    bool *found = context;
    (void)fault;
    *found = *found || key_file_has_suffix(name, TOMBSTONE_SUFFIX);
    return OK;
}

/* A store whose anchors file is not there is new, or one whose anchors were lost: then every silo
 * could be rolled back, so nothing is released. */
static status initialise(struct keystore *store, anchors_report *report, void *context,
                         struct fault *fault)
{
    struct provider *provider = store->provider;
    struct key_facts facts;
    bool used, buried = false;
    TRY(provider->methods->holds(&used, provider, KEY_TENANT, fault));
    TRY(key_files_each(store->directory, find_tombstone, &buried, fault));
    if (used || buried)
        return FAIL(CORRUPT, fault, "anchors: missing in a key store that is in use: restore it");
    TRY(provider->methods->create(&facts, provider, &platform_name, fault));
    TRY(provider->methods->create(&facts, provider, &issuer_name, fault));
    TRY(anchors_make(store->directory, provider, fault));
    return anchors_open(&store->anchors, store->directory, provider, report, context, fault);
}

static status find_signing_key(uint8_t ret[SIGN_PUBLIC_BYTES], struct keystore *store,
                               const struct key_name *name, struct fault *fault)
{
    struct key_facts facts;
    struct fault why;
    status found = store->provider->methods->find(&facts, store->provider, name, &why);
    if (found == OK)
        memcpy(ret, facts.public_key, SIGN_PUBLIC_BYTES);
    else if (found == NOT_FOUND)
        return FAIL(CORRUPT, fault, "%.120s in a key store that is in use: restore it",
                    why.detail);
    else
        *fault = why;
    return found;
}

struct start {
    struct keystore *store;
    anchors_report *report;
    void *context;
};

/* A tombstone beside a KEK or an anchor: the shredding was cut short. */
static status finish_burial(void *context, const char *name, struct fault *fault)
{
    struct start *start = context;
    struct keystore *store = start->store;
    uint8_t id[TENANT_ID_BYTES];
    struct tombstone tombstone;
    struct kek kek;
    struct fault why;
    if (tombstone_id(id, name, &why) != OK)
        return OK;
    bool kept = keystore_find_kek(&kek, store, id, &why) != NOT_FOUND
             || anchors_find(store->anchors, id) != NULL;
    if (!kept)
        return OK;
    status buried = read_tombstone(&tombstone, store, id, &why);
    if (buried == CORRUPT) { /* not proof enough to destroy a key; the tenant is refused */
        start->report(start->context, why.detail);
        return OK;
    }
    if (buried != OK) {
        *fault = why;
        return buried;
    }
    return finish_shredding(store, id, fault);
}

/* A record without a KEK, never released: a create or a discard was cut short. */
static status finish_create(void *context, const struct anchor_record *record,
                            struct fault *fault)
{
    struct keystore *store = context;
    struct kek kek;
    struct fault why;
    if (keystore_find_kek(&kek, store, record->id, &why) != NOT_FOUND)
        return OK;
    return anchors_remove(store->anchors, record->id, fault);
}

/* The registry's KEK is made at the first start. One that is damaged refuses the registry alone. */
static status make_platform_kek(struct start *start, struct fault *fault)
{
    uint8_t fingerprint[HASH_BYTES];
    struct fault why;
    status made = keystore_create(fingerprint, start->store, platform_id, &why);
    if (made == CORRUPT)
        start->report(start->context, why.detail);
    else if (made != OK)
        *fault = why;
    return made == CORRUPT ? OK : made;
}

static status open_store(struct start *start, struct fault *fault)
{
    struct keystore *store = start->store;
    TRY(file_provider_open(&store->provider, store->directory, fault));
    TRY(key_files_recover(store->directory, fault));
    struct fault why;
    status opened = anchors_open(&store->anchors, store->directory, store->provider,
                                 start->report, start->context, &why);
    if (opened == NOT_FOUND) {
        TRY(initialise(store, start->report, start->context, fault));
    } else if (opened != OK) {
        *fault = why;
        return opened;
    }
    TRY(find_signing_key(store->platform_key, store, &platform_name, fault));
    TRY(find_signing_key(store->issuer_key, store, &issuer_name, fault));
    TRY(key_files_each(store->directory, finish_burial, start, fault));
    TRY(anchors_each_unreleased(store->anchors, finish_create, store, fault));
    TRY(make_platform_kek(start, fault));
    return keystore_sync(store, fault);
}

status keystore_open(struct keystore **ret, int directory, anchors_report *report, void *context,
                     struct fault *fault)
{
    struct keystore *store = calloc(1, sizeof *store);
    if (!store)
        return FAIL(INTERNAL, fault, "key store: out of memory");
    struct start start = {store, report, context};
    store->directory = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    status opened = OK;
    if (store->directory < 0)
        opened = FAIL(INTERNAL, fault, "key store directory: open: %s", strerror(errno));
    if (opened == OK)
        opened = open_store(&start, fault);
    if (opened != OK) {
        keystore_close(store);
        return opened;
    }
    *ret = store;
    return OK;
}

struct keystore *keystore_close(struct keystore *store)
{
    if (!store)
        return NULL;
    store->anchors = anchors_close(store->anchors);
    if (store->provider)
        store->provider->methods->close(store->provider);
    cleanup_close(&store->directory);
    free(store);
    return NULL;
}
