/* reseal.h: inner header of the room: pages sealed under an older version of the data key move to
 * the newest, a few at a time, in place.
 *
 * A page and the map that says which of its versions is the current one are in two files. So the
 * new versions are first kept in a third, silo.db-reseal, durably; then the map says that they are
 * the current ones; then they are written in place. What a crash leaves is finished from that file
 * when the silo is opened: a page of it counts where its tag is the one that the map has, and
 * nowhere else, so the file needs no proof of its own and may be as old as it likes. */
#pragma once

#include "store/seal.h"

struct files;

enum { RESEAL_PAGES_MAX = 32 }; /* at once */

struct reseal {
    bool active;            /* some pages may be sealed under an older version */
    uint32_t next;          /* page to be looked at */
    int fd;                 /* -1: not open */
    struct reseal_batch *batch; /* while active */
};

void reseal_init(struct files *files);    /* active where there is more than one key */
void reseal_destroy(struct files *files);

/* After the map was read. *ret_covers: pages are kept, so a torn end of the map may be of them. */
MUST_CHECK status reseal_recover(bool *ret_covers, struct files *files, struct fault *fault);

/* From the first page on. */
void reseal_begin(struct files *files);
/* At most budget pages. The map is saved. *ret_more false: the last page was passed. */
MUST_CHECK status reseal_step(bool *ret_more, struct files *files, uint32_t budget,
                              struct fault *fault);
/* No page is needed any more: empties the file. */
MUST_CHECK status reseal_end(struct files *files, struct fault *fault);

/* Of a page that the map knows and that could not be written in place: as sealed. NULL: none. */
const uint8_t *reseal_pending(const struct files *files, uint32_t page);
