/* witness.h: the file in which somebody keeps checkpoints of a log, away from the log: against it a
 * cut tail and a rewritten history of an export are found.
 *
 * NDJSON (docs/file-formats.md, "Witness files"): a header, one line a checkpoint, each of a larger
 * log than the one before. Who may call: the command line, and whoever verifies exports. */
#pragma once

#include "crypt/note.h"

#define WITNESS_FORMAT "bulkhead-witness/1"

enum {
    WITNESS_CHECKPOINTS_MAX = 1 << 16,
    WITNESS_FILE_MAX = MIB(32),
};

struct witnessed {
    uint64_t size, line; /* line: of the file, from 1 */
    struct hash_value root;
};

/* A witness file that was read whole: every checkpoint is signed by its key, for its origin. */
struct witness {
    char origin[ORIGIN_MAX];
    uint8_t key[SIGN_PUBLIC_BYTES];
    uint32_t count, capacity;
    struct witnessed *checkpoints; /* of growing sizes */
};

/* Each appends one line. */
void witness_put_header(struct buffer *out, const char *origin,
                        const uint8_t key[SIGN_PUBLIC_BYTES]);
void witness_put_checkpoint(struct buffer *out, int64_t wall_us, struct span note);

/* CORRUPT: the fault names the line and what is wrong with it. TOO_LARGE: more checkpoints than
 * WITNESS_CHECKPOINTS_MAX. */
MUST_CHECK status witness_read(struct witness **ret, struct span file, struct fault *fault);
struct witness *witness_free(struct witness *witness); /* returns NULL; takes NULL */

/* May this checkpoint follow what is kept? *ret_new: it is of a larger log than the last one;
 * false: it is the last one. CORRUPT: not signed by the key, of another log, of a smaller one, or
 * of another one of the same size. */
MUST_CHECK status witness_check(bool *ret_new, const struct witness *witness, struct span note,
                                struct fault *fault);
