/* tombstone.h: what remains of a shredded key, one MACed file a tenant. */
#pragma once

#include "kms/provider.h"
#include "wire/messages.h"

#define TOMBSTONE_SUFFIX ".tombstone"

struct tombstone {
    uint8_t fingerprint[HASH_BYTES];
    struct anchor anchor; /* the last; of epoch 0 when it was never released or had been lost */
    int64_t shredded_at_us;
};

/* NOT_FOUND; CORRUPT. */
MUST_CHECK status tombstone_read(struct tombstone *ret, int directory, struct provider *provider,
                                 const uint8_t id[TENANT_ID_BYTES], struct fault *fault);
/* Durable when OK; never replaces one (CONFLICT). */
MUST_CHECK status tombstone_write(int directory, struct provider *provider,
                                  const uint8_t id[TENANT_ID_BYTES],
                                  const struct tombstone *tombstone, struct fault *fault);
/* The id in a file's name; BAD_FIELD when it is not the name of a tombstone. */
MUST_CHECK status tombstone_id(uint8_t ret[TENANT_ID_BYTES], const char *name,
                               struct fault *fault);
