#include "store/wal.h"

#include "base/buffer.h"
#include "base/cursor.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
              "SQLite's WAL checksums are over words of the machine's order");

enum {
    SLOT_BYTES = 4096, /* so that a torn write of one cannot touch the other */
    SLOT_TEXT_BYTES = WAL_HEADER_BYTES + 8 + 8,
    FRAMES_AT = 2 * SLOT_BYTES,
    HEADER_SALTS_AT = 16,
    FRAME_SALTS_AT = 8,
    FRAME_CHECKSUM_AT = 16,
    SALTS_BYTES = 8,
};

/* Beside the number of the commit. SQLite clears the salts of frames whose checksum it will set at
 * the end of the transaction. */
#define SALTS_ARE_ZERO (UINT64_C(1) << 63)
#define HEADER_NOT_SYNCED (UINT64_C(1) << 62)
#define COMMIT_NUMBER (HEADER_NOT_SYNCED - 1)

void wal_init(struct wal *wal, const struct disk *disk, struct seal *seal)
{
    *wal = (struct wal){.disk = disk, .seal = seal, .fd = -1};
}

static void forget_frames(struct wal *wal)
{
    wal->frames = wal->committed = wal->committed_before = wal->commit_unsynced = 0;
    wal->commits = 0;
    wal->frame_written = wal->header_held = false;
}

void wal_destroy(struct wal *wal)
{
    if (wal->fd >= 0)
        wal->disk->io->close(wal->disk->io->context, wal->fd);
    free(wal->stamps);
    wal_init(wal, wal->disk, wal->seal);
}

static off_t frame_at(uint32_t frame)
{
    return FRAMES_AT + (off_t)frame * WAL_FRAME_BYTES;
}

static struct seal_place frame_place(uint64_t sequence, uint32_t frame)
{
    return (struct seal_place){.file = SEAL_WAL, .kind = 'F', .major = sequence, .minor = frame};
}

static struct seal_place slot_place(uint32_t slot)
{
    return (struct seal_place){.file = SEAL_WAL, .kind = 'H', .major = slot};
}

static uint32_t number32(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

static uint64_t number64(const uint8_t *bytes)
{
    return (uint64_t)number32(bytes) << 32 | number32(bytes + 4);
}

static uint64_t stamp_of(const uint8_t sealed[WAL_FRAME_BYTES])
{
    return number64(sealed + WAL_FRAME_TEXT_BYTES);
}

static uint32_t commit_size(const uint8_t *frame) /* pages of the database; 0: not a commit */
{
    return number32(frame + 4);
}

static status set_stamp(struct wal *wal, uint32_t frame, struct fault *fault)
{
    if (frame >= wal->stamps_capacity) {
        uint32_t capacity = frame + frame / 2 + 64;
        uint64_t *grown = realloc(wal->stamps, capacity * sizeof *grown);
        if (grown == NULL)
            return FAIL(INTERNAL, fault, "out of memory for the WAL");
        wal->stamps = grown;
        wal->stamps_capacity = capacity;
    }
    wal->stamps[frame] = stamp_of(wal->sealed);
    return OK;
}

/* ---- opening: what is on the disk is not trusted ---- */

/* A slot that opens, else sequence 0. */
struct slot {
    uint64_t sequence, map_generation;
    uint8_t header[WAL_HEADER_BYTES];
};

static status read_slot(struct slot *ret, struct wal *wal, uint32_t number, struct fault *fault)
{
    uint8_t sealed[SLOT_TEXT_BYTES + SEAL_BYTES], text[SLOT_TEXT_BYTES];
    struct fault unread;
    *ret = (struct slot){0};
    ssize_t got =
        disk_read(wal->disk, wal->fd, sealed, sizeof sealed, (off_t)number * SLOT_BYTES);
    if (got < 0)
        return disk_failure(STORE_WAL, fault);
    if (got < (ssize_t)sizeof sealed ||
        seal_get(text, wal->seal, slot_place(number), (struct span){sealed, sizeof text},
                 sealed + sizeof text, &unread) != OK)
        return OK;
    struct cursor cursor = cursor_over(SPAN_OF(text));
    TRY(cursor_copy(ret->header, &cursor, WAL_HEADER_BYTES, fault));
    TRY(cursor_u64(&ret->sequence, &cursor, fault));
    return cursor_u64(&ret->map_generation, &cursor, fault);
}

/* SQLite's checksum over native words, for frames: see the walformat document, section 4.2. */
static void checksum(uint32_t sums[2], const uint8_t *bytes, size_t length)
{
    assert(length % 8 == 0);
    for (size_t i = 0; i < length; i += 8) {
        uint32_t pair[2];
        memcpy(pair, bytes + i, 8);
        sums[0] += pair[0] + sums[1];
        sums[1] += pair[1] + sums[0];
    }
}

/* Walks the frames on the disk. */
struct scan {
    uint32_t sums[2];
    uint32_t frame;
    bool broken; /* a frame did not fit; what follows can only be evidence */
};

/* Reads a frame and opens it into text under a sequence; false where there is no such frame. */
static bool open_frame(struct wal *wal, uint64_t sequence, uint32_t frame)
{
    struct fault unread;
    return seal_get(wal->text, wal->seal, frame_place(sequence, frame),
                    (struct span){wal->sealed, WAL_FRAME_TEXT_BYTES},
                    wal->sealed + WAL_FRAME_TEXT_BYTES, &unread) == OK;
}

/* The frame in text continues the chain of SQLite's checksums. */
static bool chains(struct scan *scan, struct wal *wal)
{
    uint32_t sums[2] = {scan->sums[0], scan->sums[1]};
    if ((number64(wal->text + FRAME_SALTS_AT) & SALTS_ARE_ZERO) != 0 || number32(wal->text) == 0)
        return false;
    memset(wal->text + WAL_FRAME_TEXT_BYTES, 0, SEAL_BYTES);
    checksum(sums, wal->text, FRAME_SALTS_AT);
    checksum(sums, wal->text + WAL_FRAME_HEADER_BYTES, PAGE_BYTES);
    if (sums[0] != number32(wal->text + FRAME_CHECKSUM_AT) ||
        sums[1] != number32(wal->text + FRAME_CHECKSUM_AT + 4))
        return false;
    scan->sums[0] = sums[0];
    scan->sums[1] = sums[1];
    return true;
}

/* The frame opened under the sequence in force. Where commits are lost that had been synced, a
 * frame of a later commit is there to tell. */
static status take_frame(struct wal *wal, struct scan *scan, struct fault *fault)
{
    uint64_t commit = number64(wal->text + FRAME_SALTS_AT) & COMMIT_NUMBER;
    wal->frame_written = true;
    if (commit > wal->commits + 1)
        return FAIL(CORRUPT, fault,
                    "WAL tampered with: commit %llu was synced, frame %u before it is gone",
                    (unsigned long long)wal->commits + 1, wal->frames);
    if (scan->broken || commit != wal->commits + 1 || !chains(scan, wal)) {
        scan->broken = true;
        return OK;
    }
    TRY(set_stamp(wal, scan->frame, fault));
    wal->frames = scan->frame + 1;
    if (commit_size(wal->text) != 0) {
        wal->committed_before = wal->committed;
        wal->committed = wal->frames;
        wal->commits++;
    }
    return OK;
}

static status scan_frames(struct wal *wal, struct fault *fault)
{
    struct scan scan = {0};
    if (wal->has_header) {
        scan.sums[0] = number32(wal->header + 24);
        scan.sums[1] = number32(wal->header + 28);
    }
    for (;; scan.frame++) {
        ssize_t got =
            disk_read(wal->disk, wal->fd, wal->sealed, WAL_FRAME_BYTES, frame_at(scan.frame));
        if (got < 0)
            return disk_failure(STORE_WAL, fault);
        if (got < WAL_FRAME_BYTES)
            return OK;
        if (wal->has_header && open_frame(wal, wal->sequence, scan.frame)) {
            TRY(take_frame(wal, &scan, fault));
            continue;
        }
        scan.broken = true;
        if ((open_frame(wal, wal->sequence + 1, scan.frame) ||
             (!wal->has_header && open_frame(wal, wal->sequence, scan.frame))) &&
            (number64(wal->text + FRAME_SALTS_AT) & HEADER_NOT_SYNCED) == 0)
            return FAIL(CORRUPT, fault, "WAL tampered with: frame %u has lost its header",
                        scan.frame);
    }
}

static status load_headers(uint64_t *ret_map_generation, struct wal *wal, const struct map *map,
                           struct fault *fault)
{
    struct slot slots[2];
    TRY(read_slot(&slots[0], wal, 0, fault));
    TRY(read_slot(&slots[1], wal, 1, fault));
    const struct slot *best = &slots[slots[1].sequence > slots[0].sequence];
    *ret_map_generation = best->map_generation;
    wal->sequence = map->wal.sequence;
    if (best->sequence == 0)
        return OK;
    if (best->sequence < map->wal.sequence)
        return FAIL(ROLLED_BACK, fault, "WAL %llu is older than the database, which has WAL %llu",
                    (unsigned long long)best->sequence, (unsigned long long)map->wal.sequence);
    if (best->map_generation > map->generation)
        return FAIL(ROLLED_BACK, fault, "%s: generation %llu is older than the WAL's %llu",
                    STORE_MAP, (unsigned long long)map->generation,
                    (unsigned long long)best->map_generation);
    wal->sequence = best->sequence;
    memcpy(wal->header, best->header, WAL_HEADER_BYTES);
    wal->has_header = wal->header_synced = true;
    return OK;
}

static status open_file(struct wal *wal, struct fault *fault)
{
    const struct store_io *io = wal->disk->io;
    wal->fd = io->open(io->context, wal->disk->silo_fd, STORE_WAL, O_RDWR, 0);
    if (wal->fd < 0 && errno == ENOENT) {
        wal->fd = io->open(io->context, wal->disk->silo_fd, STORE_WAL, O_RDWR | O_CREAT, 0600);
        if (wal->fd >= 0 && io->sync_names(io->context, wal->disk->silo_fd) != 0)
            return disk_failure(STORE_WAL, fault);
    }
    if (wal->fd < 0)
        return disk_failure(STORE_WAL, fault);
    off_t size = io->size(io->context, wal->fd);
    if (size < 0)
        return disk_failure(STORE_WAL, fault);
    wal->bytes = (uint64_t)size;
    wal->empty_synced = size == 0;
    return OK;
}

status wal_load(struct wal *wal, const struct map *map, bool torn_map, struct fault *fault)
{
    uint64_t map_generation;
    TRY(open_file(wal, fault));
    TRY(load_headers(&map_generation, wal, map, fault));
    TRY(scan_frames(wal, fault));
    if (wal->has_header && wal->sequence == map->wal.sequence &&
        wal->committed < map->wal.frames)
        return FAIL(ROLLED_BACK, fault, "WAL has %u frames, the database already had %u",
                    wal->committed, map->wal.frames);
    if (torn_map && wal->committed == 0)
        return FAIL(CORRUPT, fault, "%s: the last record does not open, and no WAL covers it",
                    STORE_MAP);
    return OK;
}

/* ---- running ---- */

uint64_t wal_size(const struct wal *wal)
{
    return wal->has_header ? WAL_HEADER_BYTES + (uint64_t)wal->frames * WAL_FRAME_BYTES : 0;
}

/* Into text, as SQLite knows the frame. */
static status load_frame(struct wal *wal, uint32_t frame, struct fault *fault)
{
    ssize_t got = disk_read(wal->disk, wal->fd, wal->sealed, WAL_FRAME_BYTES, frame_at(frame));
    if (got < 0)
        return disk_failure(STORE_WAL, fault);
    if (got < WAL_FRAME_BYTES || wal->stamps[frame] != stamp_of(wal->sealed) ||
        !open_frame(wal, wal->sequence, frame))
        return FAIL(CORRUPT, fault, "WAL frame %u does not open", frame);
    uint8_t *salts = wal->text + FRAME_SALTS_AT;
    bool zero = (number64(salts) & SALTS_ARE_ZERO) != 0;
    memset(salts, 0, SALTS_BYTES);
    if (!zero)
        memcpy(salts, wal->header + HEADER_SALTS_AT, SALTS_BYTES);
    memset(wal->text + WAL_FRAME_TEXT_BYTES, 0, SEAL_BYTES);
    return OK;
}

/* Seals what stands in text. */
static status store_frame(struct wal *wal, uint32_t frame, struct fault *fault)
{
    static const uint8_t reserved[SEAL_BYTES];
    uint8_t *salts = wal->text + FRAME_SALTS_AT;
    struct span now = {salts, SALTS_BYTES};
    bool zero = number64(salts) == 0;
    if (!zero && !span_equal(now, (struct span){wal->header + HEADER_SALTS_AT, SALTS_BYTES}))
        return FAIL(INTERNAL, fault, "WAL frame %u is not of this WAL", frame);
    if (!span_equal((struct span){wal->text + WAL_FRAME_TEXT_BYTES, SEAL_BYTES}, SPAN_OF(reserved)))
        return FAIL(INTERNAL, fault, "WAL frame %u: the reserved bytes are in use", frame);
    uint32_t commit = commit_size(wal->text);
    struct buffer number = buffer_over(salts, SALTS_BYTES);
    buffer_put_u64(&number, (wal->commits + 1) | (zero ? SALTS_ARE_ZERO : 0) |
                                (wal->header_synced ? 0 : HEADER_NOT_SYNCED));
    seal_put(wal->sealed, wal->sealed + WAL_FRAME_TEXT_BYTES, wal->seal,
             frame_place(wal->sequence, frame), (struct span){wal->text, WAL_FRAME_TEXT_BYTES});
    wal->frame_written = true;
    TRY(set_stamp(wal, frame, fault));
    if (disk_write(wal->disk, wal->fd, SPAN_OF(wal->sealed), frame_at(frame)) != 0)
        return disk_failure(STORE_WAL, fault);
    if (frame >= wal->frames)
        wal->frames = frame + 1;
    if ((uint64_t)frame_at(frame + 1) > wal->bytes)
        wal->bytes = (uint64_t)frame_at(frame + 1);
    if (commit != 0)
        wal->commit_unsynced = frame + 1;
    return OK;
}

/* A frame of the running transaction is written again in part: SQLite does so for pages that left
 * its cache before the commit, and for the checksums behind them. */
static status rewrite_frame(struct wal *wal, uint32_t frame, struct span part, size_t at,
                            struct fault *fault)
{
    if (frame < wal->committed || frame >= wal->frames)
        return FAIL(INTERNAL, fault, "WAL frame %u cannot be written in part", frame);
    TRY(load_frame(wal, frame, fault));
    memcpy(wal->text + at, part.data, part.length);
    return store_frame(wal, frame, fault);
}

static status write_held_header(struct wal *wal, struct fault *fault)
{
    if (!wal->header_held)
        return OK;
    wal->header_held = false;
    if (wal->held_frame >= wal->frames) /* its page never came: the write of the frame had failed */
        return OK;
    return rewrite_frame(wal, wal->held_frame, SPAN_OF(wal->held), 0, fault);
}

static status write_header(struct wal *wal, const struct map *map, struct span bytes,
                           struct fault *fault)
{
    uint8_t text[SLOT_TEXT_BYTES], sealed[SLOT_TEXT_BYTES + SEAL_BYTES];
    if (!map_is_saved(map))
        return FAIL(INTERNAL, fault, "the WAL cannot begin anew before its pages are in the map");
    if (!wal->has_header || wal->header_synced || wal->frame_written)
        wal->sequence++;
    forget_frames(wal);
    wal->has_header = true;
    wal->header_synced = false;
    wal->header_waits = wal->empty_synced;
    wal->empty_synced = false;
    memcpy(wal->header, bytes.data, WAL_HEADER_BYTES);
    struct buffer out = buffer_over(text, sizeof text);
    buffer_put(&out, bytes);
    buffer_put_u64(&out, wal->sequence);
    buffer_put_u64(&out, map->generation);
    uint32_t slot = wal->sequence & 1;
    seal_put(sealed, sealed + sizeof text, wal->seal, slot_place(slot), SPAN_OF(text));
    if (disk_write(wal->disk, wal->fd, SPAN_OF(sealed), (off_t)slot * SLOT_BYTES) != 0)
        return disk_failure(STORE_WAL, fault);
    if (wal->bytes < FRAMES_AT)
        wal->bytes = FRAMES_AT;
    return OK;
}

static status write_page(struct wal *wal, uint32_t frame, struct span page, struct fault *fault)
{
    if (!wal->header_held || wal->held_frame != frame) {
        TRY(write_held_header(wal, fault));
        return rewrite_frame(wal, frame, page, WAL_FRAME_HEADER_BYTES, fault);
    }
    wal->header_held = false;
    if (frame > wal->frames)
        return FAIL(INTERNAL, fault, "WAL frame %u leaves a gap", frame);
    if (frame < wal->committed) { /* SQLite may take back the newest commit (out of memory) */
        if (frame < wal->committed_before)
            return FAIL(INTERNAL, fault, "WAL frame %u is committed", frame);
        wal->committed = wal->committed_before;
        wal->commits--;
    }
    wal->commit_unsynced = 0; /* of a transaction that failed and is overwritten now */
    memcpy(wal->text, wal->held, WAL_FRAME_HEADER_BYTES);
    memcpy(wal->text + WAL_FRAME_HEADER_BYTES, page.data, PAGE_BYTES);
    return store_frame(wal, frame, fault);
}

status wal_write(struct wal *wal, const struct map *map, struct span bytes, uint64_t offset,
                 struct fault *fault)
{
    if (offset == 0 && bytes.length == WAL_HEADER_BYTES)
        return write_header(wal, map, bytes, fault);
    if (!wal->has_header || offset < WAL_HEADER_BYTES)
        return FAIL(INTERNAL, fault, "a WAL without a header");
    uint64_t frame = (offset - WAL_HEADER_BYTES) / WAL_FRAME_BYTES;
    uint64_t within = (offset - WAL_HEADER_BYTES) % WAL_FRAME_BYTES;
    if (frame >= UINT32_MAX)
        return FAIL(TOO_LARGE, fault, "the WAL is too long");
    if (within == 0 && bytes.length == WAL_FRAME_HEADER_BYTES) {
        if (wal->header_held && wal->held_frame != frame)
            TRY(write_held_header(wal, fault));
        memcpy(wal->held, bytes.data, WAL_FRAME_HEADER_BYTES);
        wal->held_frame = (uint32_t)frame;
        wal->header_held = true;
        return OK;
    }
    if (within == WAL_FRAME_HEADER_BYTES && bytes.length == PAGE_BYTES)
        return write_page(wal, (uint32_t)frame, bytes, fault);
    return FAIL(INTERNAL, fault, "a write into the WAL of no known form");
}

status wal_read(struct wal *wal, uint8_t *ret, size_t length, uint64_t offset, struct fault *fault)
{
    TRY(write_held_header(wal, fault));
    uint64_t size = wal_size(wal);
    size_t done = 0;
    while (done < length && offset + done < size) {
        uint64_t at = offset + done;
        const uint8_t *from;
        size_t left;
        if (at < WAL_HEADER_BYTES) {
            from = wal->header + at;
            left = WAL_HEADER_BYTES - at;
        } else {
            uint32_t frame = (uint32_t)((at - WAL_HEADER_BYTES) / WAL_FRAME_BYTES);
            size_t within = (at - WAL_HEADER_BYTES) % WAL_FRAME_BYTES;
            TRY(load_frame(wal, frame, fault));
            from = wal->text + within;
            left = WAL_FRAME_BYTES - within;
            if (frame >= wal->copied && length == PAGE_BYTES)
                wal->copied = frame + 1;
        }
        size_t count = left < length - done ? left : length - done;
        memcpy(ret + done, from, count);
        done += count;
    }
    if (done == length)
        return OK;
    memset(ret + done, 0, length - done);
    return FAIL(TRUNCATED, fault, "the WAL ends before");
}

status wal_sync(struct wal *wal, struct fault *fault)
{
    TRY(write_held_header(wal, fault));
    if (wal->header_waits && !wal->frame_written)
        return OK;
    if (wal->disk->io->sync(wal->disk->io->context, wal->fd) != 0)
        return disk_failure(STORE_WAL, fault);
    wal->header_synced = true;
    wal->header_waits = false;
    if (wal->commit_unsynced != 0) {
        wal->committed_before = wal->committed;
        wal->committed = wal->commit_unsynced;
        wal->commits++;
        wal->commit_unsynced = 0;
    }
    return OK;
}

status wal_empty(struct wal *wal, struct fault *fault)
{
    const struct store_io *io = wal->disk->io;
    if (wal->empty_synced)
        return OK;
    if (io->truncate(io->context, wal->fd, 0) != 0)
        return disk_failure(STORE_WAL, fault);
    forget_frames(wal);
    wal->has_header = wal->header_synced = wal->header_waits = false;
    wal->bytes = 0;
    free(wal->stamps);
    wal->stamps = NULL;
    wal->stamps_capacity = 0;
    wal->empty_synced = io->sync(io->context, wal->fd) == 0;
    return wal->empty_synced ? OK : disk_failure(STORE_WAL, fault);
}

void wal_checkpoint_starts(struct wal *wal)
{
    wal->copied = 0;
}

struct map_wal wal_position(const struct wal *wal)
{
    return (struct map_wal){.sequence = wal->sequence, .frames = wal->copied};
}
