/* keys.h: what a silo derives from its data key, and how that outlives it: hashes in audit entries
 * must stay comparable, and names of Idempotency-Keys be found again, under the next version. So
 * the derived keys are stored, sealed as everything is, before the version that they came from is
 * dropped; from then on they are read from there. */
#pragma once

#include "silo/state.h"

/* In secret memory. Derives them from the oldest version, or for an empty silo, in which nothing is
 * sealed or hashed yet, from the newest, which then is the only one. Keeps the data keys until
 * keys_forget. */
MUST_CHECK status keys_create(struct silo *silo, const struct silo_opening *opening, bool empty,
                              struct fault *fault);
void keys_free(struct silo *silo);

/* The store is open: takes those that are stored. CORRUPT when they are not whole. */
MUST_CHECK status keys_read(struct silo *silo, struct fault *fault);
/* The store has the data keys, or will never be opened. */
void keys_forget_data_keys(struct silo *silo);

/* This version is the newest from here on: backups are under it. */
void keys_take_newest(struct silo *silo, const struct store_key *newest);

/* Of a silo without a store: this one instead; derives anew where nothing was hashed yet. */
MUST_CHECK status keys_replace(struct silo *silo, const struct store_key *key, bool derives,
                               struct fault *fault);

/* A new version is in use: they must be stored. */
void keys_outlive(struct silo *silo);
/* Something is to be stored with the next commit. */
bool keys_unwritten(const struct silo *silo);
/* Inside the open transaction. */
MUST_CHECK status keys_write(struct silo *silo, struct fault *fault);
void keys_written(struct silo *silo); /* it was committed */

extern const struct store_schema keys_schema;
