/* export.h: the file in which a log leaves the house, and its verification by anyone, offline.
 *
 * NDJSON (docs/file-formats.md, "Audit entries and exports"): a header, one line an entry in order,
 * and last the signed checkpoint that covers exactly these entries. Who may call: the owner of a
 * log for writing, the command line for verifying. Needs no store. */
#pragma once

#include "store/witness.h"

#define EXPORT_FORMAT "bulkhead-audit/1"

enum {
    /* an entry with its salt; a note in which every byte was escaped, with its names */
    EXPORT_LINE_MAX = 6 * NOTE_SIGNED_MAX + KIB(1),
};
static_assert(AUDIT_ENTRY_MAX + KIB(1) <= EXPORT_LINE_MAX, "the largest entry is one line");

/* Each appends one line. origin: of the checkpoints, without control characters. entry: the very
 * bytes of the log, a JSON object with the member "index". */
void export_put_header(struct buffer *out, const char *origin,
                       const uint8_t key[SIGN_PUBLIC_BYTES]);
void export_put_entry(struct buffer *out, struct span salt, struct span entry);
void export_put_checkpoint(struct buffer *out, struct span note);

/* What the file must agree with besides itself. */
struct export_demands {
    /* SIGN_PUBLIC_BYTES: the file must be signed by this very key. NULL: by the key it carries,
     * whose fingerprint a person then compares. */
    const uint8_t *key;
    struct span checkpoint; /* a note kept elsewhere, which the file must continue; empty: none */
    /* Checkpoints kept elsewhere, of the same key and log: the file must continue each. NULL: none.
     * Must live as long as the verifier. */
    const struct witness *witness;
};

struct export_summary {
    struct checkpoint checkpoint; /* origin, entries, root */
    uint8_t key[SIGN_PUBLIC_BYTES];
    uint64_t earlier_size;        /* of the checkpoint demanded; 0 without one */
    bool has_earlier;
    uint32_t witnessed;           /* checkpoints of the witness file that it continues */
};

struct export_verifier;

/* Copies the demands. TOO_LARGE: the checkpoint is over NOTE_SIGNED_MAX. */
MUST_CHECK status export_verifier_create(struct export_verifier **ret,
                                         const struct export_demands *demands,
                                         struct fault *fault);
struct export_verifier *export_verifier_free(struct export_verifier *verifier); /* takes NULL */

/* The file in pieces of any size; memory stays the same however long it is. CORRUPT: the fault
 * names the line and what is wrong with it. After a failure only free is allowed. */
MUST_CHECK status export_verifier_feed(struct export_verifier *verifier, struct span bytes,
                                       struct fault *fault);

/* The file is over. CORRUPT when it was cut. OK only here means that every entry is as it was
 * signed. */
MUST_CHECK status export_verifier_end(struct export_summary *ret, struct export_verifier *verifier,
                                      struct fault *fault);
