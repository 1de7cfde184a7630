#include "store/map.h"

#include "base/buffer.h"
#include "base/cursor.h"
#include "base/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#define MAP_NEW STORE_MAP ".new"

enum {
    RECORD_HEAD_BYTES = 4,           /* kind, then the length of the sealed text in 24 bits */
    RECORD_TEXT_MAX = KIB(64),
    RECORD_MAX = RECORD_HEAD_BYTES + RECORD_TEXT_MAX + SEAL_BYTES,
    SNAPSHOT_TEXT_BYTES = 8 + HASH_BYTES + 8 + 4 + 4,
    DELTA_HEAD_BYTES = 8 + 8 + 4 + 4 + 4,
    DELTA_ENTRY_BYTES = 4 + TAG_BYTES,
    DELTA_ENTRIES_MAX = (RECORD_TEXT_MAX - DELTA_HEAD_BYTES) / DELTA_ENTRY_BYTES,
    CHUNK_TAGS_MAX = (RECORD_TEXT_MAX - 8) / TAG_BYTES,
    DELTAS_BYTES_MIN = 3 * 1024, /* a small silo's map stays within one block of the disk */

    SNAPSHOT = 'S', /* generation, hash before, WAL position, pages */
    CHUNK = 'T',    /* first page, count, tags: until all pages are told */
    DELTA = 'D',    /* generation, WAL position, pages, count, (page, tag)... */
};

static const uint8_t no_tag[TAG_BYTES];

/* One pass over the file, one record at a time. */
struct reader {
    struct map *map;
    uint8_t *record; /* RECORD_MAX; the text is opened in place */
    uint64_t offset;
    uint8_t before[TAG_BYTES]; /* the tag of the record before */
};

void map_init(struct map *map, const struct disk *disk, struct seal *seal)
{
    *map = (struct map){.disk = disk, .seal = seal, .fd = -1};
}

void map_destroy(struct map *map)
{
    if (map->fd >= 0)
        map->disk->io->close(map->disk->io->context, map->fd);
    free(map->tags);
    free(map->dirty);
    map_init(map, map->disk, map->seal);
}

static struct seal_place record_place(uint8_t kind, size_t length, const uint8_t *before)
{
    return (struct seal_place){
        .file = SEAL_MAP, .kind = kind, .major = length, .minor = 0, .before = before};
}

/* CORRUPT where no whole, authentic record stands at the reader's place; NOT_FOUND at the end. */
static status read_record(uint8_t *ret_kind, struct span *ret_text, struct reader *reader,
                          struct fault *fault)
{
    struct map *map = reader->map;
    uint32_t head;
    ssize_t got = disk_read(map->disk, map->fd, reader->record, RECORD_MAX, (off_t)reader->offset);
    if (got < 0)
        return disk_failure(STORE_MAP, fault);
    if (got == 0)
        return FAIL(NOT_FOUND, fault, "end of %s", STORE_MAP);
    struct cursor cursor = cursor_over((struct span){reader->record, (size_t)got});
    struct span text, trailer;
    status parsed = cursor_u32(&head, &cursor, fault);
    size_t length = head & 0xffffff;
    if (parsed == OK && length > RECORD_TEXT_MAX)
        parsed = CORRUPT;
    if (parsed == OK)
        parsed = cursor_bytes(&text, &cursor, length, fault);
    if (parsed == OK)
        parsed = cursor_bytes(&trailer, &cursor, SEAL_BYTES, fault);
    if (parsed != OK)
        return FAIL(CORRUPT, fault, "%s: a record is cut", STORE_MAP);
    uint8_t kind = (uint8_t)(head >> 24);
    TRY(seal_get(reader->record + RECORD_HEAD_BYTES, map->seal,
                 record_place(kind, length, reader->before), text, trailer.data, fault));
    memcpy(reader->before, trailer.data + SEAL_TAG_AT, TAG_BYTES);
    reader->offset += RECORD_HEAD_BYTES + length + SEAL_BYTES;
    *ret_kind = kind;
    *ret_text = text;
    return OK;
}

static void chain_hash(uint8_t hash_value[HASH_BYTES], const uint8_t tag[TAG_BYTES])
{
    const struct span parts[] = {{hash_value, HASH_BYTES}, {tag, TAG_BYTES}};
    uint8_t next[HASH_BYTES];
    hash_parts(next, parts, 2);
    memcpy(hash_value, next, HASH_BYTES);
}

static status reserve(struct map *map, uint32_t pages, struct fault *fault)
{
    if (pages > STORE_PAGES_MAX)
        return FAIL(TOO_LARGE, fault, "a silo has at most %d pages", STORE_PAGES_MAX);
    if (pages <= map->capacity)
        return OK;
    uint32_t capacity = pages + pages / 4 + 64;
    void *grown = realloc(map->tags, (size_t)capacity * TAG_BYTES);
    if (grown == NULL)
        return FAIL(INTERNAL, fault, "out of memory for the page map");
    map->tags = grown;
    map->capacity = capacity;
    return OK;
}

/* Without noting that anything changed. */
static status set_pages(struct map *map, uint32_t pages, struct fault *fault)
{
    TRY(reserve(map, pages, fault));
    if (pages > map->pages)
        memset(map->tags[map->pages], 0, (size_t)(pages - map->pages) * TAG_BYTES);
    map->pages = pages;
    return OK;
}

static status read_snapshot(struct reader *reader, struct fault *fault)
{
    struct map *map = reader->map;
    uint8_t kind;
    struct span text;
    uint32_t pages, told = 0;
    status found = read_record(&kind, &text, reader, fault);
    if (found == NOT_FOUND || (found == OK && kind != SNAPSHOT))
        return FAIL(CORRUPT, fault, "%s does not begin with a snapshot", STORE_MAP);
    TRY(found);
    struct cursor cursor = cursor_over(text);
    TRY(cursor_u64(&map->generation, &cursor, fault));
    TRY(cursor_copy(map->hash, &cursor, HASH_BYTES, fault));
    TRY(cursor_u64(&map->wal.sequence, &cursor, fault));
    TRY(cursor_u32(&map->wal.frames, &cursor, fault));
    TRY(cursor_u32(&pages, &cursor, fault));
    TRY(set_pages(map, pages, fault));
    while (told < pages) {
        uint32_t first, count;
        found = read_record(&kind, &text, reader, fault);
        if (found == NOT_FOUND || (found == OK && kind != CHUNK))
            return FAIL(CORRUPT, fault, "%s: the snapshot is cut", STORE_MAP);
        TRY(found);
        cursor = cursor_over(text);
        TRY(cursor_u32(&first, &cursor, fault));
        TRY(cursor_u32(&count, &cursor, fault));
        if (first != told || count == 0 || count > pages - told)
            return FAIL(CORRUPT, fault, "%s: the snapshot is not in order", STORE_MAP);
        TRY(cursor_copy(map->tags[told], &cursor, (size_t)count * TAG_BYTES, fault));
        told += count;
    }
    chain_hash(map->hash, reader->before);
    map->snapshot_bytes = reader->offset;
    return OK;
}

static status apply_delta(struct map *map, struct span text, const uint8_t tag[TAG_BYTES],
                          struct fault *fault)
{
    struct cursor cursor = cursor_over(text);
    uint64_t generation;
    uint32_t pages, count;
    TRY(cursor_u64(&generation, &cursor, fault));
    if (generation <= map->generation)
        return FAIL(CORRUPT, fault, "%s: generations do not grow", STORE_MAP);
    map->generation = generation;
    TRY(cursor_u64(&map->wal.sequence, &cursor, fault));
    TRY(cursor_u32(&map->wal.frames, &cursor, fault));
    TRY(cursor_u32(&pages, &cursor, fault));
    TRY(cursor_u32(&count, &cursor, fault));
    TRY(set_pages(map, pages, fault));
    for (uint32_t i = 0; i < count; i++) {
        uint32_t page;
        struct span entry;
        TRY(cursor_u32(&page, &cursor, fault));
        TRY(cursor_bytes(&entry, &cursor, TAG_BYTES, fault));
        if (page == 0 || page > map->pages)
            return FAIL(CORRUPT, fault, "%s: page %u of %u", STORE_MAP, page, map->pages);
        memcpy(map->tags[page - 1], entry.data, TAG_BYTES);
    }
    chain_hash(map->hash, tag);
    return OK;
}

/* An anchor of a generation that the file still tells must have seen that very record. */
static status check_anchor(const struct map *map, const struct store_anchor *anchor,
                           struct fault *fault)
{
    if (anchor == NULL || anchor->map_generation != map->generation ||
        span_equal(SPAN_OF(anchor->map_hash), SPAN_OF(map->hash)))
        return OK;
    return FAIL(ROLLED_BACK, fault, "%s: generation %llu is not the one that was anchored",
                STORE_MAP, (unsigned long long)map->generation);
}

static status read_all(struct reader *reader, bool *ret_torn, const struct store_anchor *anchor,
                       struct fault *fault)
{
    struct map *map = reader->map;
    uint8_t kind;
    struct span text;
    bool torn = false;
    TRY(read_snapshot(reader, fault));
    TRY(check_anchor(map, anchor, fault));
    for (;;) {
        status found = read_record(&kind, &text, reader, fault);
        if (found == NOT_FOUND)
            break;
        if (found == CORRUPT) {
            torn = true;
            break;
        }
        TRY(found);
        if (kind != DELTA)
            return FAIL(CORRUPT, fault, "%s: a record of kind %u", STORE_MAP, kind);
        TRY(apply_delta(map, text, reader->before, fault));
        TRY(check_anchor(map, anchor, fault));
    }
    memcpy(map->last_tag, reader->before, TAG_BYTES);
    map->bytes = reader->offset;
    map->attempt = map->generation;
    map->rewrite = torn;
    *ret_torn = torn;
    return OK;
}

status map_load(struct map *map, bool *ret_torn, const struct store_anchor *anchor,
                struct fault *fault)
{
    const struct store_io *io = map->disk->io;
    map->fd = io->open(io->context, map->disk->silo_fd, STORE_MAP, O_RDWR, 0);
    if (map->fd < 0 && errno == ENOENT)
        return FAIL(NOT_FOUND, fault, "%s is missing", STORE_MAP);
    if (map->fd < 0)
        return disk_failure(STORE_MAP, fault);
    struct reader reader = {.map = map, .record = malloc(RECORD_MAX)};
    if (reader.record == NULL)
        return FAIL(INTERNAL, fault, "out of memory for the page map");
    status loaded = read_all(&reader, ret_torn, anchor, fault);
    free(reader.record);
    if (loaded == TRUNCATED) /* an authentic record with too few fields: not ours */
        loaded = CORRUPT;
    TRY(loaded);
    if (anchor != NULL && map->generation < anchor->map_generation)
        return FAIL(ROLLED_BACK, fault, "%s: generation %llu, anchored was %llu", STORE_MAP,
                    (unsigned long long)map->generation,
                    (unsigned long long)anchor->map_generation);
    return OK;
}

const uint8_t *map_tag(const struct map *map, uint32_t page)
{
    if (page == 0 || page > map->pages)
        return NULL;
    const uint8_t *tag = map->tags[page - 1];
    return secret_equal((struct span){tag, TAG_BYTES}, SPAN_OF(no_tag)) ? NULL : tag;
}

/* When memory for the list ends, the next save tells all pages instead. */
static void note_dirty(struct map *map, uint32_t page)
{
    if (map->dirty_count == map->dirty_capacity && map->dirty_count < DELTA_ENTRIES_MAX) {
        uint32_t capacity = map->dirty_capacity * 2 + 64;
        uint32_t *grown = realloc(map->dirty, capacity * sizeof *grown);
        if (grown != NULL) {
            map->dirty = grown;
            map->dirty_capacity = capacity;
        }
    }
    if (map->dirty_count < map->dirty_capacity)
        map->dirty[map->dirty_count++] = page;
    else
        map->rewrite = true;
}

status map_set(struct map *map, uint32_t page, const uint8_t tag[TAG_BYTES], struct fault *fault)
{
    assert(page != 0);
    if (page > map->pages)
        TRY(map_resize(map, page, fault));
    memcpy(map->tags[page - 1], tag, TAG_BYTES);
    note_dirty(map, page);
    return OK;
}

status map_resize(struct map *map, uint32_t pages, struct fault *fault)
{
    if (pages == map->pages)
        return OK;
    TRY(set_pages(map, pages, fault));
    map->resized = true;
    return OK;
}

bool map_is_saved(const struct map *map)
{
    return map->dirty_count == 0 && !map->resized && !map->rewrite;
}

/* Seals the text that stands in record behind its head; yields the record. before is moved on. */
static struct span seal_record(struct map *map, uint8_t *record, uint8_t kind, size_t length,
                               uint8_t before[TAG_BYTES])
{
    uint8_t *text = record + RECORD_HEAD_BYTES, *trailer = text + length;
    struct buffer head = buffer_over(record, RECORD_HEAD_BYTES);
    assert(length <= RECORD_TEXT_MAX);
    buffer_put_u32(&head, (uint32_t)kind << 24 | (uint32_t)length);
    seal_put(text, trailer, map->seal, record_place(kind, length, before),
             (struct span){text, length});
    memcpy(before, trailer + SEAL_TAG_AT, TAG_BYTES);
    return (struct span){record, RECORD_HEAD_BYTES + length + SEAL_BYTES};
}

/* What the record on disk will make of the map: kept aside until it is durable. */
struct saved {
    uint64_t generation, bytes, snapshot_bytes;
    uint8_t hash[HASH_BYTES], last_tag[TAG_BYTES];
    struct map_wal wal;
};

static void keep_saved(struct map *map, const struct saved *saved)
{
    map->generation = saved->generation;
    map->bytes = saved->bytes;
    map->snapshot_bytes = saved->snapshot_bytes;
    memcpy(map->hash, saved->hash, HASH_BYTES);
    memcpy(map->last_tag, saved->last_tag, TAG_BYTES);
    map->wal = saved->wal;
    map->dirty_count = 0;
    map->resized = false;
    map->rewrite = false;
}

static status append_delta(struct map *map, struct saved *saved, uint8_t *record,
                           struct fault *fault)
{
    const struct store_io *io = map->disk->io;
    struct buffer text = buffer_over(record + RECORD_HEAD_BYTES, RECORD_TEXT_MAX);
    uint32_t count = 0;
    for (uint32_t i = 0; i < map->dirty_count; i++)
        count += map->dirty[i] <= map->pages; /* not what was cut off since */
    buffer_put_u64(&text, saved->generation);
    buffer_put_u64(&text, saved->wal.sequence);
    buffer_put_u32(&text, saved->wal.frames);
    buffer_put_u32(&text, map->pages);
    buffer_put_u32(&text, count);
    for (uint32_t i = 0; i < map->dirty_count; i++) {
        if (map->dirty[i] > map->pages)
            continue;
        buffer_put_u32(&text, map->dirty[i]);
        buffer_put(&text, (struct span){map->tags[map->dirty[i] - 1], TAG_BYTES});
    }
    TRY(buffer_check(&text, "map record", fault));
    memcpy(saved->last_tag, map->last_tag, TAG_BYTES);
    struct span whole = seal_record(map, record, DELTA, text.length, saved->last_tag);
    chain_hash(saved->hash, saved->last_tag);
    saved->bytes = map->bytes + whole.length;
    saved->snapshot_bytes = map->snapshot_bytes;
    if (disk_write(map->disk, map->fd, whole, (off_t)map->bytes) != 0 ||
        io->sync(io->context, map->fd) != 0)
        return disk_failure(STORE_MAP, fault);
    return OK;
}

static status write_snapshot(struct map *map, struct saved *saved, uint8_t *record, int fd,
                             struct fault *fault)
{
    memset(saved->last_tag, 0, TAG_BYTES);
    saved->bytes = 0;
    struct buffer text = buffer_over(record + RECORD_HEAD_BYTES, RECORD_TEXT_MAX);
    buffer_put_u64(&text, saved->generation);
    buffer_put(&text, SPAN_OF(map->hash));
    buffer_put_u64(&text, saved->wal.sequence);
    buffer_put_u32(&text, saved->wal.frames);
    buffer_put_u32(&text, map->pages);
    struct span whole = seal_record(map, record, SNAPSHOT, text.length, saved->last_tag);
    for (uint32_t told = 0;;) {
        if (disk_write(map->disk, fd, whole, (off_t)saved->bytes) != 0)
            return disk_failure(MAP_NEW, fault);
        saved->bytes += whole.length;
        if (told == map->pages)
            break;
        uint32_t left = map->pages - told;
        uint32_t count = left < CHUNK_TAGS_MAX ? left : CHUNK_TAGS_MAX;
        buffer_clear(&text);
        buffer_put_u32(&text, told);
        buffer_put_u32(&text, count);
        buffer_put(&text, (struct span){map->tags[told], (size_t)count * TAG_BYTES});
        TRY(buffer_check(&text, "map record", fault));
        whole = seal_record(map, record, CHUNK, text.length, saved->last_tag);
        told += count;
    }
    chain_hash(saved->hash, saved->last_tag);
    saved->snapshot_bytes = saved->bytes;
    return OK;
}

static status replace_file(struct map *map, struct saved *saved, uint8_t *record,
                           struct fault *fault)
{
    const struct store_io *io = map->disk->io;
    int silo_fd = map->disk->silo_fd;
    int fd = io->open(io->context, silo_fd, MAP_NEW, O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (fd < 0)
        return disk_failure(MAP_NEW, fault);
    status written = write_snapshot(map, saved, record, fd, fault);
    if (written == OK &&
        (io->sync(io->context, fd) != 0 ||
         io->rename(io->context, silo_fd, MAP_NEW, STORE_MAP) != 0 ||
         io->sync_names(io->context, silo_fd) != 0))
        written = disk_failure(MAP_NEW, fault);
    if (written != OK) {
        io->close(io->context, fd);
        return written;
    }
    if (map->fd >= 0)
        io->close(io->context, map->fd);
    map->fd = fd;
    return OK;
}

static bool wants_snapshot(const struct map *map)
{
    uint64_t deltas = map->bytes - map->snapshot_bytes;
    uint64_t limit =
        map->snapshot_bytes > DELTAS_BYTES_MIN ? map->snapshot_bytes : DELTAS_BYTES_MIN;
    deltas += RECORD_HEAD_BYTES + DELTA_HEAD_BYTES + SEAL_BYTES +
              (uint64_t)map->dirty_count * DELTA_ENTRY_BYTES;
    return map->rewrite || map->fd < 0 || map->dirty_count > DELTA_ENTRIES_MAX || deltas > limit;
}

status map_save(struct map *map, struct map_wal wal, struct fault *fault)
{
    if (map_is_saved(map))
        return OK;
    struct saved saved = {.generation = map->attempt + 1, .wal = wal};
    memcpy(saved.hash, map->hash, HASH_BYTES);
    uint8_t *record = malloc(RECORD_MAX);
    if (record == NULL)
        return FAIL(INTERNAL, fault, "out of memory for the page map");
    map->attempt = saved.generation;
    status done = wants_snapshot(map) ? replace_file(map, &saved, record, fault)
                                      : append_delta(map, &saved, record, fault);
    free(record);
    if (done == OK)
        keep_saved(map, &saved);
    else
        map->rewrite = true; /* what is on disk behind the last good record is unknown */
    return done;
}
