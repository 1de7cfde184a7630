/* wal.h: inner header of the room: the sealed write-ahead log, silo.db-wal.
 *
 * SQLite writes and reads a WAL of its own format (sqlite.org/fileformat2.html#walformat) at
 * offsets of its own; on disk its header and each frame are sealed pieces. Every header SQLite
 * writes begins a new sequence, to which all frames are bound. Headers alternate between two slots,
 * so that a torn one never destroys the one in force; a header is synced before the frames behind
 * it, but for the first in an empty file, which is synced with the first commit. Inside each frame
 * stands the number of the commit that it is part of; a frame of a later commit is proof that the
 * earlier one had been synced. */
#pragma once

#include "store/disk.h"
#include "store/map.h"
#include "store/seal.h"

enum {
    WAL_HEADER_BYTES = 32,       /* SQLite's */
    WAL_FRAME_HEADER_BYTES = 24, /* SQLite's */
    WAL_FRAME_BYTES = WAL_FRAME_HEADER_BYTES + PAGE_BYTES,
    WAL_FRAME_TEXT_BYTES = WAL_FRAME_HEADER_BYTES + PAGE_TEXT_BYTES,
};
static_assert(WAL_FRAME_TEXT_BYTES + SEAL_BYTES == WAL_FRAME_BYTES, "frames keep their size");

struct wal {
    const struct disk *disk;
    struct seal *seal;
    int fd;
    uint64_t bytes; /* of the file, as far as this process knows */

    bool empty_synced; /* the file is empty, also after a power cut */
    bool has_header, header_synced, frame_written; /* of the sequence in force */
    bool header_waits; /* nothing older lies behind it: its sync may be that of the first commit */
    uint64_t sequence;
    uint8_t header[WAL_HEADER_BYTES];

    uint32_t frames;           /* that SQLite may see */
    uint32_t committed;        /* frames of synced commits */
    uint32_t committed_before; /* the same, one commit earlier */
    uint64_t commits;          /* synced, in this sequence */
    uint32_t commit_unsynced;  /* frames up to a commit frame that awaits its sync; 0: none */
    uint64_t *stamps;          /* per frame: the front of its nonce, so that no older one passes */
    uint32_t stamps_capacity;

    bool header_held; /* of a frame whose page SQLite is about to write */
    uint32_t held_frame;
    uint8_t held[WAL_FRAME_HEADER_BYTES];

    uint32_t copied; /* frames seen by the checkpoint that runs */
    uint8_t text[WAL_FRAME_BYTES], sealed[WAL_FRAME_BYTES];
};

void wal_init(struct wal *wal, const struct disk *disk, struct seal *seal);
void wal_destroy(struct wal *wal);

/* Opens the file (made when absent) and proves everything in it before SQLite sees any of it.
 * CORRUPT: a frame that had been synced, or a header, is not what was written. ROLLED_BACK: the WAL
 * and the map are not of the same time. torn_map: the map's last record did not open. */
MUST_CHECK status wal_load(struct wal *wal, const struct map *map, bool torn_map,
                           struct fault *fault);

uint64_t wal_size(const struct wal *wal); /* as SQLite sees it */

/* The range as SQLite sees it. TRUNCATED: part of it lies behind the end, and reads as zeros.
 * CORRUPT: a frame that does not open, or is not the one that was written. */
MUST_CHECK status wal_read(struct wal *wal, uint8_t *ret, size_t length, uint64_t offset,
                           struct fault *fault);

/* A header, a frame's header or a frame's page, as SQLite writes them; else INTERNAL. */
MUST_CHECK status wal_write(struct wal *wal, const struct map *map, struct span bytes,
                            uint64_t offset, struct fault *fault);
MUST_CHECK status wal_sync(struct wal *wal, struct fault *fault);
MUST_CHECK status wal_empty(struct wal *wal, struct fault *fault);

/* A checkpoint: from its start to the sync of the database; the position belongs into the map. */
void wal_checkpoint_starts(struct wal *wal);
struct map_wal wal_position(const struct wal *wal);
