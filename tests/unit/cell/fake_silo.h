/* fake_silo.h: a silo that the test steers, linked in the place of the real one: its disk is full
 * or damaged when the test says so, and it counts what the cell asks of it. It lives in memory
 * shared between the test and the cell's process.
 *
 * POST /v1/memories adds an item and answers {"items":n,"bytes":b,"first":"c"}; GET /v1/memories
 * answers the same without adding, filled up to answer_bytes; DELETE fails. The log has one entry
 * for each of them.
 *
 * It has an action table of its own: the memories', and rows whose bodies are streamed. Byte n of a
 * download is fake_byte(n); an upload must be the same. A line of a batch is answered with
 * {"line":n,"bytes":b}, but for "bad" and "odd". */
#pragma once

#include "harness.h"

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
    _Atomic uint32_t key_version;   /* the newest that was added */
    _Atomic uint32_t reseal_steps, keys_dropped;
    _Atomic uint32_t expire_batches;
    _Atomic uint32_t export_pieces; /* of 64 KiB */
    _Atomic uint64_t bytes, item_bytes; /* stored; added by each item, before its commit too */
    struct charter_head copy_head;  /* of the tenant's charter, as the silo has it */
    size_t copy_length;
    uint8_t copy[CHARTER_MAX + 128];

    _Atomic uint32_t report_bytes;  /* of each report of usage */

    /* counted by the silo */
    _Atomic uint32_t counted, counted_refused;
    _Atomic uint64_t bytes_in, bytes_out;
    _Atomic uint32_t handled, refused, last_refusal, commits, checkpoints, notes, trims, expired;
    _Atomic uint32_t items;         /* committed */
    _Atomic uint32_t log_size;      /* committed */
    _Atomic uint32_t pieces;        /* exported */
    _Atomic bool closed, abandoned;
    _Atomic uint32_t retention_days, sequence; /* of the posture */
    _Atomic uint32_t kept[2];       /* sequence of the charter to be stored, by scope */
    _Atomic uint32_t denial_entries, denied;
    /* set by the test: of streamed bodies */
    _Atomic int begin_fails, end_fails;      /* status; 0: no */
    _Atomic int put_fails;                   /* status, with the byte */
    _Atomic uint64_t put_fails_at;
    _Atomic uint64_t download_bytes;
    _Atomic bool length_unknown, reads_nothing, reads_too_much;
    _Atomic uint64_t read_fails_at;          /* 0: never */
    _Atomic uint32_t line_us;                /* that handling one takes */

    /* counted by the silo */
    _Atomic uint32_t uploads_open, uploads_begun, uploads_ended, uploads_taken, downloads_open;
    _Atomic int64_t said_length;             /* of the last upload */
    _Atomic uint64_t put_bytes, put_odd;     /* all of them; not those of fake_byte */
    _Atomic uint64_t read_bytes;
    _Atomic uint32_t lines, last_line, lines_out_of_order, lines_undone, tokens_used;
    _Atomic uint64_t line_bytes;
    _Atomic uint32_t notes_at_checkpoint;    /* when it was asked for */
    char header[256];                        /* If-None-Match of the last request */
    char denial[512];               /* the last: "action of user" */
};

extern struct fake_silo *fake_silo; /* shared memory */
uint8_t fake_byte(uint64_t position);
void fake_silo_make(void);          /* fresh, all zero */
void fake_silo_attach(void);        /* in the cell's process: the one that the test made */
void fake_silo_drop(void);

/* What most programs begin with: a cell over such a silo, awake or not yet, and alice's token. */
extern char token[2048];
int setup_asleep(void **state);
int setup(void **state);
int teardown(void **state);
struct harness_request reading(void); /* GET /v1/memories */
struct harness_request adding(void);  /* POST: one more item */
