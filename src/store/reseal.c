#include "store/reseal.h"

#include "base/cursor.h"
#include "base/secret.h"
#include "store/files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

enum {
    ENTRY_BYTES = 4 + PAGE_BYTES, /* number of the page, the page as sealed */
    LOOKED_AT_MAX = 512,          /* pages passed in one step that are not to be moved */
};

struct entry {
    uint32_t page;
    bool current;              /* the map says so: it belongs in place */
    uint8_t before[TAG_BYTES]; /* the tag of what it replaces */
};

struct reseal_batch {
    struct entry entries[RESEAL_PAGES_MAX];
    uint8_t bytes[RESEAL_PAGES_MAX * ENTRY_BYTES]; /* as in the file */
    uint32_t count;
};

static uint8_t *sealed_at(struct reseal_batch *batch, uint32_t i)
{
    return batch->bytes + (size_t)i * ENTRY_BYTES + 4;
}

static struct span tag_of(const uint8_t *sealed)
{
    return (struct span){sealed + PAGE_TEXT_BYTES + SEAL_TAG_AT, TAG_BYTES};
}

static bool is_current(struct files *files, uint32_t page, const uint8_t *sealed)
{
    const uint8_t *tag = map_tag(&files->map, page);
    return tag != NULL && secret_equal((struct span){tag, TAG_BYTES}, tag_of(sealed));
}

void reseal_init(struct files *files)
{
    files->reseal = (struct reseal){.fd = -1};
    if (files->seal.key_count > 1)
        reseal_begin(files);
}

void reseal_begin(struct files *files)
{
    files->reseal.active = true;
    files->reseal.next = 1;
}

static void drop_batch(struct reseal *reseal)
{
    free(reseal->batch); /* sealed bytes: nothing to be wiped */
    reseal->batch = NULL;
}

void reseal_destroy(struct files *files)
{
    const struct store_io *io = files->disk.io;
    if (files->reseal.fd >= 0)
        io->close(io->context, files->reseal.fd);
    files->reseal.fd = -1;
    drop_batch(&files->reseal);
}

const uint8_t *reseal_pending(const struct files *files, uint32_t page)
{
    struct reseal_batch *batch = files->reseal.batch;
    for (uint32_t i = 0; batch != NULL && i < batch->count; i++)
        if (batch->entries[i].page == page && batch->entries[i].current)
            return sealed_at(batch, i);
    return NULL;
}

/* ---- after a crash ---- */

/* False where the bytes are no version of that page under a key of this silo. */
static bool opens(struct files *files, uint32_t page, const uint8_t *sealed)
{
    struct fault ignored;
    bool opened = files_open_page(files, page, files->page, sealed, &ignored) == OK;
    secret_wipe(files->page, sizeof files->page);
    return opened;
}

static status recover_one(bool *covers, bool *ret_written, struct files *files,
                          const uint8_t *bytes, struct fault *fault)
{
    struct cursor cursor = cursor_over((struct span){bytes, 4});
    const uint8_t *sealed = bytes + 4;
    uint32_t page;
    TRY(cursor_u32(&page, &cursor, fault));
    if (page == 0 || page > files->map.pages || !opens(files, page, sealed))
        return OK; /* torn, or of a time when the database was longer */
    *covers = true;
    if (!is_current(files, page, sealed))
        return OK;
    *ret_written = true;
    return files_put_page(files, page, sealed, fault);
}

status reseal_recover(bool *ret_covers, struct files *files, struct fault *fault)
{
    const struct store_io *io = files->disk.io;
    uint8_t bytes[ENTRY_BYTES];
    bool written = false;
    *ret_covers = false;
    int fd = io->open(io->context, files->disk.silo_fd, STORE_RESEAL, O_RDWR, 0);
    if (fd < 0 && errno == ENOENT)
        return OK;
    if (fd < 0)
        return disk_failure(STORE_RESEAL, fault);
    files->reseal.fd = fd;
    for (uint32_t i = 0; i < RESEAL_PAGES_MAX; i++) {
        ssize_t got = disk_read(&files->disk, fd, bytes, sizeof bytes, (off_t)i * ENTRY_BYTES);
        if (got < 0)
            return disk_failure(STORE_RESEAL, fault);
        if (got < (ssize_t)sizeof bytes)
            break;
        TRY(recover_one(ret_covers, &written, files, bytes, fault));
    }
    if (written && io->sync(io->context, files->database_fd) != 0)
        return disk_failure(STORE_DATABASE, fault);
    return OK;
}

/* ---- a step ---- */

/* NOT_FOUND: there is nothing to be moved in that place. */
static status read_older(uint8_t *ret_text, struct files *files, uint32_t page,
                         struct fault *fault)
{
    uint8_t stored[4];
    uint32_t version;
    const struct disk *disk = &files->disk;
    off_t end = (off_t)page * PAGE_BYTES;
    if (map_tag(&files->map, page) == NULL)
        return NOT_FOUND;
    ssize_t got = disk_read(disk, files->database_fd, stored, sizeof stored,
                            end - (off_t)sizeof stored);
    if (got < 0)
        return disk_failure(STORE_DATABASE, fault);
    struct cursor cursor = cursor_over(SPAN_OF(stored));
    TRY(cursor_u32(&version, &cursor, fault));
    if (got == sizeof stored && version == files->seal.keys[0].version)
        return NOT_FOUND;
    status read = files_read_page(files, page, ret_text, fault);
    /* a damaged page holds nothing that any key would open; the WAL may have it better */
    return read == CORRUPT ? NOT_FOUND : read;
}

static void add_to_batch(struct files *files, uint32_t page, const uint8_t *text)
{
    struct reseal_batch *batch = files->reseal.batch;
    struct entry *entry = &batch->entries[batch->count];
    uint8_t *sealed = sealed_at(batch, batch->count++);
    struct buffer number = buffer_over(sealed - 4, 4);
    *entry = (struct entry){.page = page};
    memcpy(entry->before, map_tag(&files->map, page), TAG_BYTES);
    buffer_put_u32(&number, page);
    files_seal_page(files, page, sealed, text);
}

static status collect(struct files *files, uint32_t budget, struct fault *fault)
{
    struct reseal *reseal = &files->reseal;
    uint32_t passed = 0;
    budget = budget < RESEAL_PAGES_MAX ? budget : RESEAL_PAGES_MAX;
    reseal->batch->count = 0;
    status read = OK;
    for (; reseal->next <= files->map.pages && reseal->batch->count < budget
           && passed < LOOKED_AT_MAX; reseal->next++) {
        read = read_older(files->page, files, reseal->next, fault);
        if (read == OK)
            add_to_batch(files, reseal->next, files->page);
        else if (read == NOT_FOUND)
            passed++;
        else
            break;
    }
    secret_wipe(files->page, sizeof files->page);
    return read == NOT_FOUND ? OK : read;
}

static status keep_batch(struct files *files, struct fault *fault)
{
    const struct store_io *io = files->disk.io;
    struct reseal *reseal = &files->reseal;
    struct span bytes = {reseal->batch->bytes, (size_t)reseal->batch->count * ENTRY_BYTES};
    if (reseal->fd < 0) {
        reseal->fd = io->open(io->context, files->disk.silo_fd, STORE_RESEAL, O_RDWR | O_CREAT,
                              0600);
        if (reseal->fd < 0 || io->sync_names(io->context, files->disk.silo_fd) != 0)
            return disk_failure(STORE_RESEAL, fault);
    }
    if (disk_write(&files->disk, reseal->fd, bytes, 0) != 0
        || io->sync(io->context, reseal->fd) != 0)
        return disk_failure(STORE_RESEAL, fault);
    return OK;
}

static status set_tags(struct files *files, bool current, struct fault *fault)
{
    struct reseal_batch *batch = files->reseal.batch;
    for (uint32_t i = 0; i < batch->count; i++) {
        struct entry *entry = &batch->entries[i];
        TRY(map_set(&files->map, entry->page,
                    current ? tag_of(sealed_at(batch, i)).data : entry->before, fault));
        entry->current = current;
    }
    return OK;
}

/* Whether a record that failed is durable is unknown: the pages in place are the current ones, and
 * the next save says so again; should it be durable and that save never come, the file has them. */
static status tell_map(struct files *files, struct fault *fault)
{
    struct fault ignored;
    status saved = set_tags(files, true, fault);
    if (saved == OK)
        saved = map_save(&files->map, files->map.wal, fault);
    if (saved != OK && set_tags(files, false, &ignored) == OK)
        files->reseal.batch->count = 0;
    return saved;
}

/* Also what an earlier step could not; not what a checkpoint has written since. */
static status put_in_place(struct files *files, struct fault *fault)
{
    const struct store_io *io = files->disk.io;
    struct reseal_batch *batch = files->reseal.batch;
    if (batch->count == 0)
        return OK;
    for (uint32_t i = 0; i < batch->count; i++)
        if (is_current(files, batch->entries[i].page, sealed_at(batch, i)))
            TRY(files_put_page(files, batch->entries[i].page, sealed_at(batch, i), fault));
    if (io->sync(io->context, files->database_fd) != 0)
        return disk_failure(STORE_DATABASE, fault);
    batch->count = 0;
    return OK;
}

status reseal_step(bool *ret_more, struct files *files, uint32_t budget, struct fault *fault)
{
    struct reseal *reseal = &files->reseal;
    if (reseal->batch == NULL)
        reseal->batch = calloc(1, sizeof *reseal->batch);
    if (reseal->batch == NULL)
        return FAIL(INTERNAL, fault, "out of memory for pages to be sealed anew");
    TRY(put_in_place(files, fault));
    uint32_t from = reseal->next;
    status moved = collect(files, budget, fault);
    if (moved == OK && reseal->batch->count > 0)
        moved = keep_batch(files, fault);
    if (moved != OK)
        reseal->batch->count = 0;
    if (moved == OK && reseal->batch->count > 0)
        moved = tell_map(files, fault);
    if (moved != OK)
        reseal->next = from;
    TRY(moved);
    TRY(put_in_place(files, fault));
    *ret_more = reseal->next <= files->map.pages;
    return OK;
}

status reseal_end(struct files *files, struct fault *fault)
{
    const struct store_io *io = files->disk.io;
    struct reseal *reseal = &files->reseal;
    if (reseal->batch != NULL)
        TRY(put_in_place(files, fault));
    drop_batch(reseal);
    if (reseal->fd >= 0 && io->truncate(io->context, reseal->fd, 0) != 0)
        return disk_failure(STORE_RESEAL, fault);
    return OK;
}
