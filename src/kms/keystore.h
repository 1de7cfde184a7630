/* keystore.h: what the kms keeps: KEKs and signing keys (in a provider), anchors, tombstones; and
 * the rules by which keys are made, released and destroyed. Knows nothing of channels.
 *
 * The states of a tenant's key: none, live, shredded; shredded for ever. A damaged file is CORRUPT,
 * names the file, and refuses that tenant alone; nothing damaged is ever replaced. What changes a
 * record of an anchor (create, release, move, charter, versions) is durable only after
 * keystore_sync, which one turn of the loop calls once, before it answers. */
#pragma once

#include "crypt/merkle.h"
#include "kms/anchors.h"
#include "kms/provider.h"

struct keystore;

enum { WRAPPED_DEK_BYTES = 8 + 4 + KEY_BYTES + PROVIDER_WRAP_BYTES };

/* directory: any descriptor of it; borrowed during the call only. An empty one becomes a new store.
 * Finishes what a crash left. report hears of damage that does not stop the start. CORRUPT when the
 * store as a whole cannot be trusted: root key, signing keys or anchors missing or damaged. */
MUST_CHECK status keystore_open(struct keystore **ret, int directory, anchors_report *report,
                                void *context, struct fault *fault);
struct keystore *keystore_close(struct keystore *store); /* NULL; takes NULL; does not sync */

void keystore_public_keys(uint8_t ret_platform[SIGN_PUBLIC_BYTES],
                          uint8_t ret_issuer[SIGN_PUBLIC_BYTES], const struct keystore *store);

enum key_state { KEY_NONE = 0, KEY_LIVE = 1, KEY_SHREDDED = 2 };

struct key_status {
    enum key_state state;
    uint8_t fingerprint[HASH_BYTES]; /* of the KEK */
    struct anchor anchor;            /* of a shredded one: the last */
    uint32_t dek_floor, dek_newest;  /* versions of the data key: see anchors.h */
    uint32_t restores;
    bool rotating;                   /* the KEK before this one is not destroyed yet */
};

MUST_CHECK status keystore_look(struct key_status *ret, struct keystore *store,
                                const uint8_t id[TENANT_ID_BYTES], struct fault *fault);

/* A live one is left as it is. CONFLICT once shredded. */
MUST_CHECK status keystore_create(uint8_t ret_fingerprint[HASH_BYTES], struct keystore *store,
                                  const uint8_t id[TENANT_ID_BYTES], struct fault *fault);

/* Destroys a KEK that was never released, also a damaged one. CONFLICT when it was released or
 * shredded. OK when there is none. Durable when OK. */
MUST_CHECK status keystore_discard(struct keystore *store, const uint8_t id[TENANT_ID_BYTES],
                                   struct fault *fault);

/* Destroys the KEK, also a damaged one; ret is the tombstone. Durable when OK; after a failure the
 * key may already be shredded, and calling again finishes it. NOT_FOUND when there never was
 * one. */
MUST_CHECK status keystore_shred(struct key_status *ret, struct keystore *store,
                                 const uint8_t id[TENANT_ID_BYTES], struct fault *fault);

/* The newest charters: of that tenant, and of the platform. CORRUPT when either is not known. */
MUST_CHECK status keystore_heads(struct charter_head *ret, struct charter_head *ret_platform,
                                 const struct keystore *store, const uint8_t id[TENANT_ID_BYTES],
                                 struct fault *fault);

/* Signs the charter (into its signature), and remembers it as the newest one of its id. *ret_new:
 * it was not before. Its sequence is the one after the newest, or it is the newest itself; anything
 * else, with renew_only also a new one, is CONFLICT. NOT_FOUND unless the key is live. */
MUST_CHECK status keystore_charter(bool *ret_new, struct keystore *store,
                                   struct signed_charter *charter, bool renew_only,
                                   struct fault *fault);

/* ---- release.c: versions of keys ---- */

struct released_key { /* the caller's, in secret memory, wiped by the caller */
    struct released_dek {
        uint32_t version;
        uint8_t key[KEY_BYTES];
    } deks[DEK_VERSIONS_MAX]; /* newest first */
    uint32_t count;
    uint32_t wrapped_length; /* 0: what the silo keeps stays as it is */
    uint8_t wrapped[DEK_VERSIONS_MAX * WRAPPED_DEK_BYTES];
    uint8_t wrapped_under[HASH_BYTES]; /* fingerprint of the KEK */
    struct anchor anchor;              /* of a release: its epoch is new */
    uint32_t restores;                 /* likewise */
};

/* wrapped: what an earlier call made, or empty. NOT_FOUND unless the key is live, UNAVAILABLE while
 * it is withdrawn. ROLLED_BACK when wrapped is empty although the silo has a history, or holds no
 * version that may still be opened; CORRUPT when it is not this tenant's. */
MUST_CHECK status keystore_release(struct released_key *ret, struct keystore *store,
                                   const uint8_t id[TENANT_ID_BYTES], struct span wrapped,
                                   struct fault *fault);

/* One more version, deks[0]; wrapped (of both) is what the silo keeps. CONFLICT when there are
 * DEK_VERSIONS_MAX in it already. */
MUST_CHECK status keystore_next(struct released_key *ret, struct keystore *store,
                                const uint8_t id[TENANT_ID_BYTES], struct span wrapped,
                                struct fault *fault);

/* Versions older than this one, which must be among those wrapped (BAD_FIELD), are never opened
 * again. */
MUST_CHECK status keystore_drop(struct released_key *ret, struct keystore *store,
                                const uint8_t id[TENANT_ID_BYTES], struct span wrapped,
                                uint32_t version, struct fault *fault);

/* What was wrapped under that KEK, and was durable here (keystore_sync) when it was given out, is
 * durable in the silo: the KEK before it is destroyed, durably so when OK. */
MUST_CHECK status keystore_kept(struct keystore *store, const uint8_t id[TENANT_ID_BYTES],
                                const uint8_t wrapped_under[HASH_BYTES], struct fault *fault);

/* A new KEK; the one before stays until keystore_kept. While it does, calling again changes
 * nothing. */
MUST_CHECK status keystore_rotate(uint8_t ret_fingerprint[HASH_BYTES], struct keystore *store,
                                  const uint8_t id[TENANT_ID_BYTES], struct fault *fault);

/* UNAVAILABLE while the KEK is withdrawn in the provider. Says nothing of whether there is one. */
MUST_CHECK status keystore_usable(struct keystore *store, const uint8_t id[TENANT_ID_BYTES],
                                  struct fault *fault);
/* Durable when OK. */
MUST_CHECK status keystore_withdraw(struct keystore *store, const uint8_t id[TENANT_ID_BYTES],
                                    bool withdrawn, struct fault *fault);

/* The silo was put back to the state of this anchor (its epoch is not looked at): what was released
 * before moves nothing any more, and the notes of its log are of a new origin. */
MUST_CHECK status keystore_restore(uint32_t *ret_restores, struct keystore *store,
                                   const uint8_t id[TENANT_ID_BYTES], const struct anchor *anchor,
                                   struct fault *fault);

/* Moves the anchor and appends the signed checkpoint to out. epoch: of the caller's release.
 * CORRUPT when the epoch is another, something shrinks, or the consistency proof does not hold. */
MUST_CHECK status keystore_move(struct buffer *out, struct keystore *store,
                                const uint8_t id[TENANT_ID_BYTES], uint64_t epoch,
                                const struct anchor *anchor, const struct hash_value *proof,
                                uint32_t proof_count, struct fault *fault);

/* Makes every change of an anchor durable. When it fails, what was created, released, moved and
 * signed (a charter) since the last must be answered with the failure. */
MUST_CHECK status keystore_sync(struct keystore *store, struct fault *fault);

/* What is signed. Each purpose has a beginning of its own, or a key of its own, so that nothing
 * signed for one is ever good for another; a message that begins otherwise is a defect of ours. */
enum sign_purpose {
    SIGN_CHECKPOINT, /* platform key: `bulkhead/` (the origin of a note) */
    SIGN_RECEIPT,    /* platform key: `bulkhead receipt v1\n` */
    SIGN_CHARTER,    /* platform key: `bulkhead charter v1\n` */
    SIGN_TOKEN,      /* issuer key: base64url of a JOSE header */
    SIGN_PURPOSES
};
MUST_CHECK status keystore_sign(uint8_t ret[SIGNATURE_BYTES], struct keystore *store,
                                enum sign_purpose purpose, struct span message,
                                struct fault *fault);
bool keystore_may_sign(enum sign_purpose purpose, struct span message);

/* The platform's own silo, registry and ledger. */
bool keystore_is_platform(const uint8_t id[TENANT_ID_BYTES]);
