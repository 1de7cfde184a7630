/* fake_silo.h: a silo that the test steers, linked in the place of the real one: its disk is full
 * or damaged when the test says so, and it counts what the cell asks of it. It lives in memory
 * shared between the test and the cell's process.
 *
 * POST /v1/memories adds an item and answers {"items":n,"bytes":b,"first":"c"}; GET /v1/memories
 * answers the same without adding, filled up to answer_bytes; DELETE fails. The log has one entry
 * for each of them. */
#pragma once

#include "authz/charter.h"
#include "base/limits.h"
#include "base/status.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fake_silo {
    /* set by the test */
    _Atomic int commit_fails;       /* so many commits, with fail_status; -1: all */
    _Atomic int fail_status;
    _Atomic bool strict;            /* reads must be committed too */
    _Atomic uint32_t answer_bytes;
    _Atomic uint32_t damage;
    _Atomic int64_t next_expiry_us; /* wall */
    _Atomic uint32_t expire_batches;
    _Atomic uint32_t export_pieces; /* of 64 KiB */
    _Atomic uint64_t bytes, item_bytes; /* stored; added by each item, before its commit too */
    struct charter_head copy_head;  /* of the tenant's charter, as the silo has it */
    size_t copy_length;
    uint8_t copy[CHARTER_MAX + 128];

    /* counted by the silo */
    _Atomic uint32_t handled, refused, last_refusal, commits, checkpoints, notes, trims, expired;
    _Atomic uint32_t items;         /* committed */
    _Atomic uint32_t log_size;      /* committed */
    _Atomic uint32_t pieces;        /* exported */
    _Atomic bool closed, abandoned;
    _Atomic uint32_t retention_days, sequence; /* of the posture */
    _Atomic uint32_t kept[2];       /* sequence of the charter to be stored, by scope */
    _Atomic uint32_t denial_entries, denied;
    char denial[512];               /* the last: "action of user" */
};

extern struct fake_silo *fake_silo; /* shared memory */
void fake_silo_make(void);          /* fresh, all zero */
void fake_silo_attach(void);        /* in the cell's process: the one that the test made */
void fake_silo_drop(void);
