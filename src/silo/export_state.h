/* export_state.h: what the files of an export share. Nobody else includes it.
 *
 * NDJSON whose length nobody knows before it is made goes into numbered parts: lines gather in
 * `part` until they are EXPORT_PART_BYTES. Everything made waits in `out` for its reader. */
#pragma once

#include "silo/evidence.h"
#include "silo/export.h"
#include "silo/object.h"
#include "wire/tar.h"

enum {
    EXPORT_PART_BYTES = MIB(1),  /* a part ends behind the line with which it has so many */
    EXPORT_LINES_MAX = MIB(48),  /* the largest part: one line, of a memory whose every version is
                                    full of bytes that JSON escapes */
    EXPORT_DAMAGED_MAX = 10000,  /* named; more is only counted */
    EXPORT_POSITION_MAX = OBJECT_KEY_MAX,
};

enum export_phase {
    EXPORT_ABOUT,
    EXPORT_MEMORIES,
    EXPORT_DOCUMENTS,
    EXPORT_OBJECTS,
    EXPORT_AUDIT,
    EXPORT_DAMAGED,
    EXPORT_DONE
};

/* Behind which name, of which classification, the walk stands: a name stays where it is however
 * often its item is replaced. */
struct export_position {
    enum clearance classification;
    size_t length;
    uint8_t name[EXPORT_POSITION_MAX];
};

/* The object at hand: read once to know that all of it can be, and once to be written. */
struct export_object {
    struct blob_reader *reader; /* NULL: none */
    bool verified;
    uint64_t bytes, at;
    int64_t updated_us;
    struct buffer line; /* its line of objects-NNNN.ndjson */
    char file[320];
    uint32_t numbered;  /* files named by a number so far */
};

struct export_log {
    struct evidence_covered covered;
    uint8_t note[NOTE_MAX];
    bool damaged, measured;
    uint64_t next, bytes, written;
};

struct silo_export {
    struct silo *silo;
    enum export_phase phase;
    int64_t began_us; /* wall */
    struct buffer out;
    size_t taken; /* of out */
    struct buffer part;
    uint32_t parts; /* of this phase */
    struct export_position position;
    struct export_object object;
    struct export_log log;
    struct buffer damage; /* lines of damaged.ndjson */
    uint64_t damaged;
};

/* export.c */

/* A whole member. */
void export_member(struct silo_export *export, const char *name, struct span content);
/* A line was appended to part, from `mark` on. */
void export_line(struct silo_export *export, size_t mark, const char *kind);
/* What is in part, as its next; nothing when there is nothing. */
void export_flush(struct silo_export *export, const char *kind);
/* All of this kind is through. */
void export_next_phase(struct silo_export *export);
/* An item (or with an empty name the rest of its kind) cannot be read. classification -1: none. */
void export_damage(struct silo_export *export, const char *kind, struct span name,
                   int classification);
void export_wipe(struct buffer *buffer); /* and frees */

/* One small step each: an item, a part of one, or on to the next phase. Damage is no failure. */
typedef status export_step(struct silo_export *export, struct fault *fault);
export_step export_memory, export_document; /* export_items.c */
export_step export_one_object;              /* export_objects.c */
export_step export_entries;                 /* export_log.c */

/* export_items.c */

/* To the next name of this classification, or of the next that has one. sql: the first name of
 * classification ?1 behind ?2; max: bytes of a name. NOT_FOUND: there is none. CORRUPT. */
MUST_CHECK status export_next_name(struct silo_export *export, const char *sql, size_t max,
                                   struct fault *fault);
/* No next was found: because there is none, because (CORRUPT) the list of names is damaged, or for
 * another reason, which is returned. */
MUST_CHECK status export_no_more(struct silo_export *export, status why, const char *item,
                                 const char *kind);

/* export_objects.c: lets go of the object at hand. */
void export_object_drop(struct export_object *object);
/* export_log.c. A log that is not as it was signed is damage. */
MUST_CHECK status export_log_begin(struct export_log *log, struct silo *silo,
                                   const uint8_t platform_key[SIGN_PUBLIC_BYTES],
                                   struct fault *fault);
