/* export.h: everything of a tenant in open formats, as one archive (docs/file-formats.md, "Export
 * of a tenant"): for a tenant that leaves, or wants to hold what is its own. In clear, on purpose:
 * the caller has written down that it leaves. The cell is the only caller.
 *
 * Not of one moment: each item is whole and as it was when it was read; what is there from begin to
 * end is in it exactly once. What is damaged is left out, counted and named in the last member. */
#pragma once

#include "silo/silo.h"

struct silo_export;

/* platform_key: of the checkpoint under which the audit log leaves; borrowed. The silo outlives the
 * export. UNAVAILABLE: there is no checkpoint yet. */
MUST_CHECK status silo_export_begin(struct silo_export **ret, struct silo *silo,
                                    const uint8_t platform_key[32], struct fault *fault);
/* Between turns: some milliseconds of it. Appends at most CARE_PIECE_BYTES (care.h), perhaps
 * nothing; *ret_done with the last. After a failure the archive stays without its end. */
MUST_CHECK status silo_export_piece(struct buffer *out, bool *ret_done,
                                    struct silo_export *export, struct fault *fault);
uint64_t silo_export_damaged(const struct silo_export *export); /* items so far */
struct silo_export *silo_export_end(struct silo_export *export); /* returns NULL; takes NULL */
