#define _GNU_SOURCE
#include "store/copy.h"

#include "base/secret.h"
#include "store/session.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

static_assert((int)COPY_PAGE_BYTES == (int)PAGE_BYTES, "one page");
static_assert((int)COPY_TAG_BYTES == (int)TAG_BYTES, "one tag");

/* ---- reading ---- */

status store_hold(struct store *store, struct fault *fault)
{
    if (store->held)
        return FAIL(CONFLICT, fault, "a backup of this silo is running");
    TRY(store_checkpoint(store, fault));
    store->held = true;
    store->holds++;
    return OK;
}

uint64_t store_hold_number(const struct store *store)
{
    return store->held ? store->holds : 0;
}

void store_let_go(struct store *store)
{
    store->held = false;
}

bool store_is_held(const struct store *store)
{
    return store->held;
}

uint32_t store_page_count(const struct store *store)
{
    return store->files->map.pages;
}

const uint8_t *store_page_tags(const struct store *store)
{
    return (const uint8_t *)store->files->map.tags;
}

bool store_tag_is_zero(const uint8_t tag[COPY_TAG_BYTES])
{
    static const uint8_t zero[TAG_BYTES];
    return span_equal((struct span){tag, TAG_BYTES}, SPAN_OF(zero));
}

/* Opens the page into text, which the caller wipes. */
static status open_page(uint8_t text[PAGE_BYTES], struct seal *seal, uint32_t page,
                        const uint8_t tag[TAG_BYTES], const uint8_t *sealed, struct fault *fault)
{
    const uint8_t *trailer = sealed + PAGE_TEXT_BYTES;
    const struct seal_place place = {.file = SEAL_PAGES, .kind = 'P', .major = page};
    struct fault why;
    if (!span_equal((struct span){tag, TAG_BYTES},
                    (struct span){trailer + SEAL_TAG_AT, TAG_BYTES}))
        return FAIL(CORRUPT, fault, "page %u is not the one that is due", page);
    if (seal_get(text, seal, place, (struct span){sealed, PAGE_TEXT_BYTES}, trailer, &why) != OK)
        return FAIL(CORRUPT, fault, "page %u does not open", page);
    return OK;
}

static off_t place_of(uint32_t page)
{
    return (off_t)(page - 1) * PAGE_BYTES;
}

status store_read_sealed(struct buffer *out, struct store *store, uint32_t first, uint32_t count,
                         struct fault *fault)
{
    struct files *files = store->files;
    size_t bytes = (size_t)count * PAGE_BYTES;
    uint8_t *sealed = buffer_reserve(out, bytes);
    if (sealed == NULL)
        return FAIL(INTERNAL, fault, "out of memory for pages");
    ssize_t got = disk_read(&files->disk, files->database_fd, sealed, bytes, place_of(first));
    if (got < 0)
        return disk_failure(STORE_DATABASE, fault);
    if ((size_t)got != bytes)
        return FAIL(CORRUPT, fault, "%s ends within page %u", STORE_DATABASE,
                    first + (uint32_t)((size_t)got / PAGE_BYTES));
    status opened = OK;
    for (uint32_t i = 0; i < count && opened == OK; i++)
        opened = open_page(files->page, &files->seal, first + i, files->map.tags[first + i - 1],
                           sealed + (size_t)i * PAGE_BYTES, fault);
    secret_wipe(files->page, sizeof files->page);
    TRY(opened);
    buffer_advance(out, bytes);
    return OK;
}

/* ---- making ---- */

struct store_copy {
    struct disk disk;
    struct seal seal;
    struct map map;        /* its tags: of the state that is due */
    uint8_t (*have)[TAG_BYTES]; /* of what stands in the file */
    uint32_t have_count;
    int fd;
    uint8_t text[PAGE_BYTES];
};

struct store_copy *store_copy_free(struct store_copy *copy)
{
    if (copy == NULL)
        return NULL;
    map_destroy(&copy->map);
    if (copy->fd >= 0)
        copy->disk.io->close(copy->disk.io->context, copy->fd);
    seal_destroy(&copy->seal);
    free(copy->have);
    secret_wipe(copy->text, sizeof copy->text);
    free(copy);
    return NULL;
}

static status make_file(struct store_copy *copy, struct fault *fault)
{
    const struct store_io *io = copy->disk.io;
    copy->fd = io->open(io->context, copy->disk.silo_fd, STORE_DATABASE, O_RDWR | O_CREAT | O_EXCL,
                        0600);
    if (copy->fd < 0)
        return disk_failure(STORE_DATABASE, fault);
    return io->lock(io->context, copy->fd) == 0 ? OK : disk_failure(STORE_DATABASE, fault);
}

status store_copy_begin(struct store_copy **ret, const struct store_options *options,
                        struct fault *fault)
{
    if (store_exists(options->silo_fd))
        return FAIL(CONFLICT, fault, "the directory holds a silo");
    struct store_copy *copy = calloc(1, sizeof *copy);
    if (copy == NULL)
        return FAIL(INTERNAL, fault, "out of memory for a silo");
    copy->disk.io = options->io != NULL ? options->io : &store_io_system;
    copy->disk.silo_fd = options->silo_fd;
    copy->fd = -1;
    map_init(&copy->map, &copy->disk, &copy->seal);
    status made = seal_create(&copy->seal, options, fault);
    if (made == OK)
        made = make_file(copy, fault);
    if (made != OK) {
        store_copy_free(copy);
        return made;
    }
    *ret = copy;
    return OK;
}

status store_copy_state(struct store_copy *copy, uint32_t pages, const uint8_t *tags,
                        struct fault *fault)
{
    if (pages > STORE_PAGES_MAX)
        return FAIL(TOO_LARGE, fault, "a silo has at most %d pages", STORE_PAGES_MAX);
    if (pages > copy->have_count) {
        void *grown = realloc(copy->have, (size_t)pages * TAG_BYTES);
        if (grown == NULL)
            return FAIL(INTERNAL, fault, "out of memory for a page map");
        copy->have = grown;
        memset(copy->have[copy->have_count], 0, (size_t)(pages - copy->have_count) * TAG_BYTES);
        copy->have_count = pages;
    }
    TRY(map_resize(&copy->map, pages, fault));
    if (pages > 0)
        memcpy(copy->map.tags, tags, (size_t)pages * TAG_BYTES);
    return OK;
}

status store_copy_pages(struct store_copy *copy, uint32_t first, struct span sealed,
                        struct fault *fault)
{
    size_t count = sealed.length / PAGE_BYTES;
    uint32_t pages = copy->map.pages;
    if (sealed.length % PAGE_BYTES != 0 || first == 0 || first > pages ||
        count > pages - first + 1)
        return FAIL(CORRUPT, fault, "pages that the state does not have");
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *tag = copy->map.tags[first + i - 1];
        TRY(open_page(copy->text, &copy->seal, first + i, tag, sealed.data + (size_t)i * PAGE_BYTES,
                      fault));
        memcpy(copy->have[first + i - 1], tag, TAG_BYTES);
    }
    if (disk_write(&copy->disk, copy->fd, sealed, place_of(first)) != 0)
        return disk_failure(STORE_DATABASE, fault);
    return OK;
}

status store_copy_complete(const struct store_copy *copy, struct fault *fault)
{
    for (uint32_t i = 0; i < copy->map.pages; i++)
        if (!store_tag_is_zero(copy->map.tags[i]) &&
            memcmp(copy->map.tags[i], copy->have[i], TAG_BYTES) != 0)
            return FAIL(CORRUPT, fault, "page %u is missing", i + 1);
    return OK;
}

status store_copy_end(struct store_copy *copy, uint64_t beginning, struct fault *fault)
{
    const struct store_io *io = copy->disk.io;
    TRY(store_copy_complete(copy, fault));
    if (beginning == 0 || copy->map.pages == 0)
        return FAIL(INTERNAL, fault, "a silo of no pages");
    if (io->truncate(io->context, copy->fd, place_of(copy->map.pages + 1)) != 0 ||
        io->sync(io->context, copy->fd) != 0 ||
        io->sync_names(io->context, copy->disk.silo_fd) != 0)
        return disk_failure(STORE_DATABASE, fault);
    copy->map.attempt = beginning - 1;
    copy->map.rewrite = true;
    return map_save(&copy->map, (struct map_wal){.sequence = beginning}, fault);
}
