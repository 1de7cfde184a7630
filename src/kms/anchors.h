/* anchors.h: what the kms knows of every silo's newest state and newest charter, in one file of
 * fixed slots.
 *
 * All of it is in memory; the file is written ahead of every answer. A slot has two copies, each in
 * a sector of its own and MACed, written in turn: a torn write costs the newest change, which
 * nobody was told of, never the one before. anchors_set is cheap and only remembered; one
 * anchors_flush makes all that were set since the last durable with one fdatasync. Format:
 * docs/file-formats.md. */
#pragma once

#include "authz/charter.h"
#include "kms/provider.h"
#include "wire/messages.h"

struct anchors;

enum { DEK_VERSION_FIRST = 1 };

struct anchor_record {
    uint8_t id[TENANT_ID_BYTES];
    uint8_t fingerprint[HASH_BYTES]; /* of the KEK; all zero: not known yet, only at epoch 0 */
    struct anchor anchor;
    struct charter_head charter; /* the newest one signed */
    uint32_t dek_floor;  /* older versions of the data key are never opened again; from 1 */
    uint32_t dek_newest; /* the newest version ever given out */
    uint32_t restores;   /* how often the silo was put back to an older state */
};

/* What a person should know and what does not stop the start. */
typedef void anchors_report(void *context, const char *text);

/* The file in its first state. CONFLICT when it exists. */
MUST_CHECK status anchors_make(int directory, struct provider *provider, struct fault *fault);

/* NOT_FOUND when there is no file; CORRUPT when it is not ours. Damaged slots are reported and stay
 * out of use: their tenants are not known here. */
MUST_CHECK status anchors_open(struct anchors **ret, int directory, struct provider *provider,
                               anchors_report *report, void *context, struct fault *fault);
struct anchors *anchors_close(struct anchors *anchors); /* drops what was not flushed; NULL */

/* NULL when there is none. Valid until the next call that is not a find. */
const struct anchor_record *anchors_find(const struct anchors *anchors,
                                         const uint8_t id[TENANT_ID_BYTES]);

/* Durable when OK, on their own; otherwise nothing changed. The new record has an anchor at its
 * beginning and no fingerprint. CONFLICT when there is one; QUOTA_EXCEEDED when all are in use. */
MUST_CHECK status anchors_add(struct anchors *anchors, const uint8_t id[TENANT_ID_BYTES],
                              struct fault *fault);
/* Also when there is none. */
MUST_CHECK status anchors_remove(struct anchors *anchors, const uint8_t id[TENANT_ID_BYTES],
                                 struct fault *fault);

/* The record of its id, which must exist. In memory until anchors_flush. */
MUST_CHECK status anchors_set(struct anchors *anchors, const struct anchor_record *record,
                              struct fault *fault);

/* One more release of its key. Not synced by the next flush, except for the first: an epoch tells
 * live cells apart, and a power cut leaves none; what a crash of this process alone leaves is in
 * the file. */
MUST_CHECK status anchors_raise_epoch(struct anchors *anchors, const uint8_t id[TENANT_ID_BYTES],
                                      struct fault *fault);

/* When it fails, every record is again what it was at the last flush that did not. */
MUST_CHECK status anchors_flush(struct anchors *anchors, struct fault *fault);

/* Visits the records that were never released (epoch 0); removing the visited one is allowed. */
typedef status anchors_visit(void *context, const struct anchor_record *record,
                             struct fault *fault);
MUST_CHECK status anchors_each_unreleased(struct anchors *anchors, anchors_visit *visit,
                                          void *context, struct fault *fault);

/* Of a silo of which nothing is known: all zero, the root that of the empty tree. */
struct anchor anchor_beginning(void);
