/* care.h: copies of a whole silo: backups (sealed as it lies on the disk, nothing opened for them
 * leaves the process), restores, and the export of everything in open formats.
 *
 * Who may call: the cell, between turns. Each copy is made a piece at a time. */
#pragma once

#include "silo/silo.h"
#include "store/backup.h"

enum { CARE_PIECE_BYTES = MIB(1) + KIB(8) }; /* one piece has at most so many */

/* Something that an operator did to the silo as a whole, "silo.backup", for its audit log:
 * with the next commit. count -1: does not apply. */
MUST_CHECK status silo_note(struct silo *silo, const char *action, int64_t count,
                            struct fault *fault);

/* ---- backups ---- */

struct silo_backup;

struct silo_backup_wish {
    uint64_t sequence;    /* 1.. */
    struct span wrapped;  /* the content of silo.keys; copied */
    int previous;         /* a file of the backup before, borrowed for the call; -1: a full one */
};

/* The state of this moment, whatever is changed later; from here on the store is held. The backup
 * is a full one also where the keys have changed since the previous. CORRUPT, UNAUTHENTICATED: the
 * previous one is damaged or of another silo. CONFLICT: another backup is running. */
MUST_CHECK status silo_backup_begin(struct silo_backup **ret, struct silo *silo,
                                    const struct silo_backup_wish *wish, struct fault *fault);
/* Appends at most CARE_PIECE_BYTES; *ret_done with the last. UNAVAILABLE: so much was written
 * meanwhile that the store is held no more. CORRUPT: a page does not open. */
MUST_CHECK status silo_backup_piece(struct buffer *out, bool *ret_done,
                                    struct silo_backup *backup, struct fault *fault);
/* Lets go of the store; returns NULL; takes NULL. Before silo_close. */
struct silo_backup *silo_backup_end(struct silo_backup *backup);

/* ---- restores ---- */

struct silo_restore;

struct silo_restored {
    struct anchor anchor; /* of the silo that stands there now; its epoch is the opening's */
    uint64_t sequence;    /* of the backup */
    char time[40];        /* when it was made */
    uint64_t bytes;       /* stored */
    uint64_t log_size;    /* of the backup: without the entry that it was restored */
    uint8_t log_root[HASH_BYTES];
};

/* read: the files of a chain one after another, a full one first. Everything in them is hostile.
 * Reads as far as the wrapped keys. BAD_FIELD: it is of another tenant. */
MUST_CHECK status silo_restore_begin(struct silo_restore **ret,
                                     const uint8_t tenant_id[TENANT_ID_BYTES], backup_read *read,
                                     void *context, struct fault *fault);
struct span silo_restore_wrapped(const struct silo_restore *restore);
uint32_t silo_restore_key_version(const struct silo_restore *restore); /* the newest in it */

/* Makes the silo in an empty directory. opening: what the kms released for the wrapped keys; its
 * anchor is the one in force, that of the silo to be replaced. Verifies every page and object, the
 * log, and the checkpoint with the platform's key; writes an entry about it into the log. Whatever
 * fails, the faults name the file by its sequence. */
MUST_CHECK status silo_restore_run(struct silo_restored *ret, struct silo_restore *restore,
                                   const struct silo_opening *opening,
                                   const uint8_t platform_key[32], struct fault *fault);
struct silo_restore *silo_restore_end(struct silo_restore *restore); /* returns NULL; takes NULL */
