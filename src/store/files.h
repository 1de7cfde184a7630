/* files.h: inner header of the room: the silo's files behind the VFS: opening them, making them,
 * and the pages of silo.db. */
#pragma once

#include "store/map.h"
#include "store/reseal.h"
#include "store/seal.h"
#include "store/wal.h"

enum { DATABASE_FRONT_BYTES = 100 };

struct files {
    struct disk disk;
    struct seal seal;
    struct map map;
    struct wal wal;
    struct reseal reseal;
    int database_fd;
    uint64_t database_bytes;
    struct store_damage damage;
    bool dead; /* nothing more is written */
    uint8_t page[PAGE_BYTES], sealed[PAGE_BYTES];
};

/* What a new silo begins with: whole pages of an SQLite database in WAL mode. */
struct first_pages {
    uint8_t *text;
    uint32_t count;
};
typedef status make_first_pages(struct first_pages *ret, struct fault *fault);

/* Opens, locks and proves the silo's files, or makes them. *ret points into itself: never moved.
 * The codes are those of store_open. */
MUST_CHECK status files_open(struct files **ret, const struct store_options *options,
                             make_first_pages *make, struct fault *fault);
struct files *files_close(struct files *files); /* returns NULL; takes NULL */

/* With the WAL empty: CORRUPT unless the database has the length that the map says. */
MUST_CHECK status files_check_length(const struct files *files, struct fault *fault);

/* Pages count from 1 and are PAGE_BYTES long, the last SEAL_BYTES of them zero.
 * files_read_page: CORRUPT when the page is not the current one of that place. */
MUST_CHECK status files_read_page(struct files *files, uint32_t page, uint8_t *ret,
                                  struct fault *fault);
MUST_CHECK status files_write_page(struct files *files, uint32_t page, const uint8_t *text,
                                   struct fault *fault);
/* The parts of it, for pages that move to another key (reseal.c): sealed is a whole page with its
 * trailer. files_put_page writes it where the map says that it is the current one. */
void files_seal_page(struct files *files, uint32_t page, uint8_t *ret_sealed, const uint8_t *text);
MUST_CHECK status files_open_page(struct files *files, uint32_t page, uint8_t *ret,
                                  const uint8_t *sealed, struct fault *fault);
MUST_CHECK status files_put_page(struct files *files, uint32_t page, const uint8_t *sealed,
                                 struct fault *fault);
MUST_CHECK status files_truncate(struct files *files, uint32_t pages, struct fault *fault);

/* Makes the pages durable, then the map that tells of them: only then may the WAL be reused. */
MUST_CHECK status files_sync(struct files *files, struct fault *fault);

uint64_t files_bytes(const struct files *files);
