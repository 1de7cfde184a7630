#include "store/files.h"

#include "base/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

static struct seal_place page_place(uint32_t page)
{
    return (struct seal_place){.file = SEAL_PAGES, .kind = 'P', .major = page};
}

static off_t page_at(uint32_t page)
{
    return (off_t)(page - 1) * PAGE_BYTES;
}

status files_open_page(struct files *files, uint32_t page, uint8_t *ret, const uint8_t *sealed,
                       struct fault *fault)
{
    uint8_t trailer[SEAL_BYTES];
    memcpy(trailer, sealed + PAGE_TEXT_BYTES, SEAL_BYTES);
    memset(ret + PAGE_TEXT_BYTES, 0, SEAL_BYTES);
    return seal_get(ret, &files->seal, page_place(page), (struct span){sealed, PAGE_TEXT_BYTES},
                    trailer, fault);
}

static bool has_tag(const uint8_t *sealed, const uint8_t *tag)
{
    return secret_equal((struct span){tag, TAG_BYTES},
                        (struct span){sealed + PAGE_TEXT_BYTES + SEAL_TAG_AT, TAG_BYTES});
}

status files_read_page(struct files *files, uint32_t page, uint8_t *ret, struct fault *fault)
{
    const uint8_t *tag = map_tag(&files->map, page);
    if (tag == NULL) { /* never written: a hole that SQLite left, so it holds nothing */
        memset(ret, 0, PAGE_BYTES);
        return OK;
    }
    ssize_t got = disk_read(&files->disk, files->database_fd, ret, PAGE_BYTES, page_at(page));
    if (got < 0)
        return disk_failure(STORE_DATABASE, fault);
    if (got < PAGE_BYTES)
        return FAIL(CORRUPT, fault, "page %u is missing", page);
    if (has_tag(ret, tag))
        return files_open_page(files, page, ret, ret, fault);
    memset(ret, 0, PAGE_BYTES);
    const uint8_t *pending = reseal_pending(files, page);
    if (pending != NULL && has_tag(pending, tag))
        return files_open_page(files, page, ret, pending, fault);
    return FAIL(CORRUPT, fault, "page %u is not the current one", page);
}

void files_seal_page(struct files *files, uint32_t page, uint8_t *ret_sealed, const uint8_t *text)
{
    seal_put(ret_sealed, ret_sealed + PAGE_TEXT_BYTES, &files->seal, page_place(page),
             (struct span){text, PAGE_TEXT_BYTES});
}

status files_put_page(struct files *files, uint32_t page, const uint8_t *sealed,
                      struct fault *fault)
{
    if (disk_write(&files->disk, files->database_fd, (struct span){sealed, PAGE_BYTES},
                   page_at(page)) != 0)
        return disk_failure(STORE_DATABASE, fault);
    if ((uint64_t)page_at(page + 1) > files->database_bytes)
        files->database_bytes = (uint64_t)page_at(page + 1);
    return OK;
}

status files_write_page(struct files *files, uint32_t page, const uint8_t *text,
                        struct fault *fault)
{
    static const uint8_t reserved[SEAL_BYTES];
    const uint8_t *trailer = files->sealed + PAGE_TEXT_BYTES;
    if (!span_equal((struct span){text + PAGE_TEXT_BYTES, SEAL_BYTES}, SPAN_OF(reserved)))
        return FAIL(INTERNAL, fault, "page %u: the reserved bytes are in use", page);
    files_seal_page(files, page, files->sealed, text);
    TRY(map_set(&files->map, page, trailer + SEAL_TAG_AT, fault));
    return files_put_page(files, page, files->sealed, fault);
}

status files_truncate(struct files *files, uint32_t pages, struct fault *fault)
{
    const struct store_io *io = files->disk.io;
    off_t size = page_at(pages + 1);
    TRY(map_resize(&files->map, pages, fault));
    if (io->truncate(io->context, files->database_fd, size) != 0)
        return disk_failure(STORE_DATABASE, fault);
    files->database_bytes = (uint64_t)size;
    return OK;
}

status files_sync(struct files *files, struct fault *fault)
{
    const struct store_io *io = files->disk.io;
    if (io->sync(io->context, files->database_fd) != 0)
        return disk_failure(STORE_DATABASE, fault);
    return map_save(&files->map, wal_position(&files->wal), fault);
}

status files_check_length(const struct files *files, struct fault *fault)
{
    const struct store_io *io = files->disk.io;
    off_t size = io->size(io->context, files->database_fd);
    if (size < 0)
        return disk_failure(STORE_DATABASE, fault);
    if (size != page_at(files->map.pages + 1))
        return FAIL(CORRUPT, fault, "%s has %lld bytes, %u pages are known", STORE_DATABASE,
                    (long long)size, files->map.pages);
    return OK;
}

uint64_t files_bytes(const struct files *files)
{
    return files->database_bytes + files->wal.bytes + files->map.bytes;
}

static status open_database(struct files *files, int flags, struct fault *fault)
{
    const struct store_io *io = files->disk.io;
    files->database_fd =
        io->open(io->context, files->disk.silo_fd, STORE_DATABASE, O_RDWR | flags, 0600);
    if (files->database_fd < 0 && errno == ENOENT)
        return FAIL(NOT_FOUND, fault, "%s is missing", STORE_DATABASE);
    if (files->database_fd < 0)
        return disk_failure(STORE_DATABASE, fault);
    if (io->lock(io->context, files->database_fd) != 0) {
        if (errno != EWOULDBLOCK)
            return disk_failure(STORE_DATABASE, fault);
        return FAIL(UNAVAILABLE, fault, "the silo is open in another process");
    }
    off_t size = io->size(io->context, files->database_fd);
    if (size < 0)
        return disk_failure(STORE_DATABASE, fault);
    files->database_bytes = (uint64_t)size;
    return OK;
}

/* By size: 0 for a file that is not there. */
static status other_file_size(off_t *ret, const struct files *files, const char *name,
                              struct fault *fault)
{
    const struct store_io *io = files->disk.io;
    off_t size = 0;
    int fd = io->open(io->context, files->disk.silo_fd, name, O_RDONLY, 0);
    if (fd >= 0) {
        size = io->size(io->context, fd);
        io->close(io->context, fd);
    }
    if (size < 0 || (fd < 0 && errno != ENOENT))
        return disk_failure(name, fault);
    *ret = size;
    return OK;
}

/* The map is written last and makes the silo. Whatever stands there without it is either what a
 * crash left of a silo that nothing was ever committed to, or a silo that has lost its map. */
static status make_files(struct files *files, make_first_pages *make, struct fault *fault)
{
    const struct store_io *io = files->disk.io;
    struct first_pages first = {0};
    off_t wal_bytes;
    TRY(other_file_size(&wal_bytes, files, STORE_WAL, fault));
    if (wal_bytes != 0)
        return FAIL(CORRUPT, fault, "%s is missing, %s is not", STORE_MAP, STORE_WAL);
    TRY(make(&first, fault));
    status made = OK;
    if (files->database_bytes > (uint64_t)first.count * PAGE_BYTES)
        made = FAIL(CORRUPT, fault, "%s is missing, %s is not", STORE_MAP, STORE_DATABASE);
    if (made == OK)
        made = files_truncate(files, 0, fault);
    for (uint32_t page = 1; page <= first.count && made == OK; page++)
        made = files_write_page(files, page, first.text + page_at(page), fault);
    free(first.text);
    TRY(made);
    TRY(wal_load(&files->wal, &files->map, false, fault));
    if (io->sync(io->context, files->database_fd) != 0 ||
        io->sync_names(io->context, files->disk.silo_fd) != 0)
        return disk_failure(STORE_DATABASE, fault);
    return map_save(&files->map, (struct map_wal){0}, fault);
}

static status open_or_create_database(struct files *files, bool was_used, struct fault *fault)
{
    off_t map_bytes;
    status opened = open_database(files, 0, fault);
    if (opened != NOT_FOUND)
        return opened;
    if (was_used)
        return ROLLED_BACK;
    TRY(other_file_size(&map_bytes, files, STORE_MAP, fault));
    if (map_bytes != 0)
        return FAIL(CORRUPT, fault, "%s is missing, %s is not", STORE_DATABASE, STORE_MAP);
    return open_database(files, O_CREAT, fault);
}

static status open_files(struct files *files, const struct store_options *options,
                         make_first_pages *make, struct fault *fault)
{
    const struct store_anchor *anchor = options->anchor;
    bool was_used = anchor != NULL && (anchor->commits != 0 || anchor->map_generation != 0);
    bool torn_map = false, covered = false;
    TRY(open_or_create_database(files, was_used, fault)); /* has the lock: all else comes after */
    status loaded = map_load(&files->map, &torn_map, anchor, fault);
    if (loaded == NOT_FOUND)
        return was_used ? ROLLED_BACK : make_files(files, make, fault);
    TRY(loaded);
    TRY(reseal_recover(&covered, files, fault));
    TRY(wal_load(&files->wal, &files->map, torn_map && !covered, fault));
    if (torn_map && files->wal.committed == 0) /* what covers it does so only once */
        TRY(map_save(&files->map, files->map.wal, fault));
    return OK;
}

status files_open(struct files **ret, const struct store_options *options, make_first_pages *make,
                  struct fault *fault)
{
    struct files *files = calloc(1, sizeof *files);
    if (files == NULL)
        return FAIL(INTERNAL, fault, "out of memory for a silo");
    files->disk.io = options->io != NULL ? options->io : &store_io_system;
    files->disk.silo_fd = options->silo_fd;
    files->database_fd = -1;
    map_init(&files->map, &files->disk, &files->seal);
    wal_init(&files->wal, &files->disk, &files->seal);
    status opened = seal_create(&files->seal, options, fault);
    reseal_init(files);
    if (opened == OK)
        opened = open_files(files, options, make, fault);
    if (opened != OK) {
        files_close(files);
        return opened;
    }
    *ret = files;
    return OK;
}

struct files *files_close(struct files *files)
{
    if (files == NULL)
        return NULL;
    reseal_destroy(files);
    wal_destroy(&files->wal);
    map_destroy(&files->map);
    if (files->database_fd >= 0) /* last: it carries the lock */
        files->disk.io->close(files->disk.io->context, files->database_fd);
    seal_destroy(&files->seal);
    secret_wipe(files, sizeof *files);
    free(files);
    return NULL;
}
