/* provider.h: where the long-lived keys are. The store above (keystore.h) never sees one.
 *
 * The shape is that of PKCS#11, so that an HSM is another file and no other change: a key object is
 * found by class and id (CKA_CLASS, CKA_ID), its value never comes out, and what is asked of it is
 * wrap, unwrap (an AEAD with associated data, as C_EncryptInit with CKM_AES_GCM) and sign (C_Sign
 * with CKM_EDDSA or CKM_SHA256_HMAC). Every key has one purpose. */
#pragma once

#include "base/buffer.h"
#include "base/limits.h"
#include "crypt/sign.h"

enum key_kind {
    KEY_TENANT = 1, /* a KEK: wraps and unwraps; one per tenant, two while it is rotated */
    KEY_PLATFORM,   /* signs checkpoints and receipts; one, id all zero */
    KEY_ISSUER,     /* signs tokens; one, id all zero */
    KEY_RECORDS,    /* HMAC-SHA-256 over the store's own records; one, always there */
};

struct key_name {
    enum key_kind kind;
    uint8_t id[TENANT_ID_BYTES];
    bool next; /* of KEY_TENANT: the one that is to take the other's place */
};

struct key_facts {
    uint32_t version;                      /* of KEY_TENANT; the next one's is one more */
    uint8_t fingerprint[HASH_BYTES];       /* of KEY_TENANT: SHA-256 over a value derived from it */
    uint8_t public_key[SIGN_PUBLIC_BYTES]; /* of KEY_PLATFORM, KEY_ISSUER */
};

enum { PROVIDER_WRAP_BYTES = 40 }; /* what wrapping adds: nonce and tag */

struct provider;

struct provider_methods {
    /* Durable when OK. A sound key of that name is made durable and kept; CORRUPT when it is
     * damaged: it is never replaced. */
    status (*create)(struct key_facts *ret, struct provider *provider, const struct key_name *name,
                     struct fault *fault);
    /* Gone for ever, and durably so, when OK; also when there is none, or only a damaged one. */
    status (*destroy)(struct provider *provider, const struct key_name *name, struct fault *fault);
    /* KEY_TENANT: the one of the name is destroyed, then the next one takes its place. Durable when
     * OK; after a failure it is called again. NOT_FOUND when there is no next one. */
    status (*succeed)(struct provider *provider, const struct key_name *name, struct fault *fault);
    /* KEY_TENANT: UNAVAILABLE while its owner has withdrawn it. Cheap: it is asked for every awake
     * cell, over and over. */
    status (*usable)(struct provider *provider, const struct key_name *name, struct fault *fault);
    /* KEY_TENANT: withdraws it, or gives it back. Durable when OK, also when it was so before. */
    status (*withdraw)(struct provider *provider, const struct key_name *name, bool withdrawn,
                       struct fault *fault);
    /* NOT_FOUND; CORRUPT naming what is damaged. */
    status (*find)(struct key_facts *ret, struct provider *provider, const struct key_name *name,
                   struct fault *fault);
    /* True when there is any key of the kind, sound or not. */
    status (*holds)(bool *ret, struct provider *provider, enum key_kind kind, struct fault *fault);
    /* KEY_TENANT: appends plain.length + PROVIDER_WRAP_BYTES bytes. */
    status (*wrap)(struct buffer *out, struct provider *provider, const struct key_name *name,
                   struct span plain, struct span associated, struct fault *fault);
    /* KEY_TENANT: ret takes wrapped.length - PROVIDER_WRAP_BYTES bytes, and should be secret
     * memory. CORRUPT when wrapped is not what wrap made with this key and associated data. */
    status (*unwrap)(uint8_t *ret, struct provider *provider, const struct key_name *name,
                     struct span wrapped, struct span associated, struct fault *fault);
    /* Appends SIGNATURE_BYTES (Ed25519), of KEY_RECORDS HASH_BYTES. */
    status (*sign)(struct buffer *out, struct provider *provider, const struct key_name *name,
                   struct span message, struct fault *fault);
    void (*close)(struct provider *provider); /* wipes and frees */
};

struct provider { /* each provider's own struct begins with it */
    const struct provider_methods *methods;
};
