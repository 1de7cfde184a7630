/* check.h: everything of a silo is read and verified while it is in use: pages, tables, full-text
 * indexes, chunks of objects, the audit log up to its signed checkpoint. Damage is counted and the
 * check goes on. The cell is the only caller. */
#pragma once

#include "silo/silo.h"

struct silo_check;

/* platform_key: of the checkpoint; borrowed. The silo outlives the check. */
MUST_CHECK status silo_check_begin(struct silo_check **ret, struct silo *silo,
                                   const uint8_t platform_key[32], struct fault *fault);
/* Between turns: some milliseconds of it, but that one table or one full-text index is one piece.
 * Appends lines of JSON: progress now and then, the report with *ret_done. */
MUST_CHECK status silo_check_piece(struct buffer *out, bool *ret_done, struct silo_check *check,
                                   struct fault *fault);
struct silo_check *silo_check_end(struct silo_check *check); /* returns NULL; takes NULL */
