/* map.h: inner header of the room: the page map, silo.db-map: which sealed version of each page of
 * silo.db is the current one, by its tag. Without it any older sealed version of a page could be
 * put back in its place.
 *
 * In memory: 16 bytes a page. On disk: a snapshot, then a record per checkpoint, each chained to
 * the one before. A record is durable before the WAL whose pages it covers may be reused. */
#pragma once

#include "store/disk.h"
#include "store/seal.h"

/* Where the WAL stood when its pages were last moved into silo.db: a WAL older than this, or one
 * that is shorter in the same sequence, is not the one this map was written beside. */
struct map_wal {
    uint64_t sequence;
    uint32_t frames;
};

struct map {
    const struct disk *disk;
    struct seal *seal;
    int fd;
    uint8_t (*tags)[TAG_BYTES]; /* of page 1 first; all zero: never written */
    uint32_t pages, capacity;

    /* as durable */
    uint64_t generation;
    uint8_t hash[HASH_BYTES]; /* over the tags of all records ever, see docs/file-formats.md */
    struct map_wal wal;
    uint8_t last_tag[TAG_BYTES];
    uint64_t snapshot_bytes, bytes;

    uint64_t attempt; /* the highest generation ever tried: a number is never used twice */
    uint32_t *dirty;  /* pages set since the last save; with repeats */
    uint32_t dirty_count, dirty_capacity;
    bool resized;
    bool rewrite; /* the end of the file is not as it should be: the next save writes a new one */
};

void map_init(struct map *map, const struct disk *disk, struct seal *seal);
void map_destroy(struct map *map);

/* Reads the file. NOT_FOUND: there is none. ROLLED_BACK: older than the anchor (may be NULL).
 * *ret_torn: the last record did not open: legal only where the WAL still holds its pages. */
MUST_CHECK status map_load(struct map *map, bool *ret_torn, const struct store_anchor *anchor,
                           struct fault *fault);

const uint8_t *map_tag(const struct map *map, uint32_t page); /* NULL: never written */

/* In memory, until map_save. TOO_LARGE, INTERNAL when memory ends. */
MUST_CHECK status map_set(struct map *map, uint32_t page, const uint8_t tag[TAG_BYTES],
                          struct fault *fault);
MUST_CHECK status map_resize(struct map *map, uint32_t pages, struct fault *fault);

bool map_is_saved(const struct map *map);

/* Durable when it returns OK; nothing is written when nothing changed. */
MUST_CHECK status map_save(struct map *map, struct map_wal wal, struct fault *fault);
