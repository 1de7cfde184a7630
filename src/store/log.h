/* log.h: an append-only, tamper-evident log inside a store: the audit log of a silo, the platform's
 * ledger. One log a store.
 *
 * An entry is any bytes; its leaf in the Merkle tree (crypt/merkle.h) is H(0x00 || salt || entry),
 * the salt random, so that a leaf's hash says nothing about an entry that could be guessed. Stored
 * are the entries and the roots of complete tiles of 256 (levels 8, 16, ... of the tree); what lies
 * between is hashed again when a proof needs it, at most a few tiles. The right edge is in memory
 * only and made from the entries when the log is opened.
 *
 * Who may call: whoever owns the store, on its thread. */
#pragma once

#include "crypt/merkle.h"
#include "store/store.h"

struct store_log;

extern const struct store_schema store_log_schema;

/* The store outlives the log. No table is made before the first entry. CORRUPT when entries are
 * missing or the roots stored do not fit. */
MUST_CHECK status store_log_open(struct store_log **ret, struct store *store, struct fault *fault);
struct store_log *store_log_close(struct store_log *log); /* returns NULL; takes NULL */

/* Appends inside the open transaction; the entry's index is store_log_next before the call.
 * TOO_LARGE over AUDIT_ENTRY_MAX, else what the store says. After a failure the transaction must be
 * rolled back. */
MUST_CHECK status store_log_append(struct store_log *log, struct span entry, struct fault *fault);

/* The owner's commit succeeded, or everything since the last one was rolled back. */
void store_log_committed(struct store_log *log);
void store_log_rolled_back(struct store_log *log);

/* Entries, those of the open transaction too. */
uint64_t store_log_next(const struct store_log *log);

/* Of what is committed. */
uint64_t store_log_size(const struct store_log *log);
struct hash_value store_log_root(const struct store_log *log);

/* The root when the log had `size` entries. BAD_FIELD when it never had so many. */
MUST_CHECK status store_log_root_at(struct hash_value *ret, struct store_log *log, uint64_t size,
                                    struct fault *fault);

/* ret: room for CONSISTENCY_PROOF_MAX. from 0 gives the empty proof. BAD_FIELD unless from <= to <=
 * size, index < size. */
MUST_CHECK status store_log_consistency(struct hash_value *ret, uint32_t *ret_count,
                                        struct store_log *log, uint64_t from, uint64_t to,
                                        struct fault *fault);
MUST_CHECK status store_log_inclusion(struct hash_value *ret, uint32_t *ret_count,
                                      struct store_log *log, uint64_t index, uint64_t size,
                                      struct fault *fault);

/* The stored root of a complete tile (level 8, 16, ...). NOT_FOUND. */
MUST_CHECK status store_log_node(struct hash_value *ret, struct store_log *log, uint32_t level,
                                 uint64_t index, struct fault *fault);

struct store_log_entry { /* borrowed for the callback */
    uint64_t index;
    struct span salt, entry;
};
/* Set *stop to end the walk early. */
typedef status store_log_each(void *context, const struct store_log_entry *entry, bool *stop,
                              struct fault *fault);

/* Entries from..to-1 in order. CORRUPT where one is missing. */
MUST_CHECK status store_log_read(struct store_log *log, uint64_t from, uint64_t to,
                                 store_log_each *each, void *context, struct fault *fault);
