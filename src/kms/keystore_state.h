/* keystore_state.h: what keystore.c (keys, anchors, signing) and release.c (versions) share.
 * Not for others. */
#pragma once

#include "kms/keystore.h"

struct keystore {
    int directory; /* own, readable, so that it can be synced */
    struct provider *provider;
    struct anchors *anchors;
    uint8_t platform_key[SIGN_PUBLIC_BYTES], issuer_key[SIGN_PUBLIC_BYTES];
};

struct key_name kek_name(const uint8_t id[TENANT_ID_BYTES]);
bool anchor_has_history(const struct anchor *anchor);
struct anchor anchor_normalised(const struct anchor *anchor);
bool fingerprint_is_known(const uint8_t fingerprint[HASH_BYTES]);

struct kek {
    struct key_name name;
    struct key_facts facts;
    bool rotating; /* it is the next one: the one before may still be there */
};

/* The KEK that the record names; where it names none of those that are there, the first of them.
 * NOT_FOUND, CORRUPT. */
MUST_CHECK status keystore_find_kek(struct kek *ret, struct keystore *store,
                                    const uint8_t id[TENANT_ID_BYTES], struct fault *fault);

/* The KEK exists durably and its record names it; the latter in memory. Not while it is rotated. */
MUST_CHECK status keystore_settle_kek(struct keystore *store, const uint8_t id[TENANT_ID_BYTES],
                                      struct fault *fault);
