/* evidence.h: what a tenant's auditor can ask for over HTTP: entries of the log, signed
 * checkpoints, the proofs of RFC 6962 between them, the export that is verified offline, and the
 * hash under which a text of the tenant's stands in entries. Nothing here needs trust in the cell:
 * what it answers is checked against the platform's signature. */
#pragma once

#include "silo/state.h"

silo_handler evidence_list, evidence_checkpoint, evidence_proof, evidence_consistency,
    evidence_hash; /* evidence.c */
silo_handler evidence_export; /* evidence_export.c: a download */

/* evidence_export.c: the newest checkpoint, if `key` signed it for this very log. UNAVAILABLE:
 * there is none yet. */
MUST_CHECK status evidence_note(struct checkpoint *ret, struct silo *silo,
                                const uint8_t key[SIGN_PUBLIC_BYTES], struct fault *fault);

/* What an export covers, as it was when it began. Borrowed. */
struct evidence_covered {
    struct checkpoint checkpoint;
    struct span note;
    const uint8_t *key;
};

/* Its lines from *next on, which is moved on, until about `bytes` more are in out: for the same
 * covered always the same lines. */
MUST_CHECK status evidence_lines(struct buffer *out, uint64_t *next, bool *ret_done,
                                 struct silo *silo, const struct evidence_covered *covered,
                                 size_t bytes, struct fault *fault);
