/* copy.h: the sealed pages of a store as they lie on the disk, and a store made of such pages: for
 * backups and restores. No page is sealed anew, and none is taken that does not open.
 *
 * Who may call: the silo room, in the cell that has the store, or that restores one. */
#pragma once

#include "store/store.h"

enum {
    COPY_PAGE_BYTES = 4096,
    COPY_TAG_BYTES = 16, /* of the page's trailer: which version of the page it is */
};

/* Moves the WAL into the database; from here on neither that nor the page map changes until
 * store_let_go, while commits go on into the WAL. It lets go by itself when the WAL becomes longer
 * than STORE_HELD_FRAMES_MAX, or with store_checkpoint: whoever copies asks store_is_held after
 * each piece. CONFLICT when it is held already. Not inside a transaction. */
MUST_CHECK status store_hold(struct store *store, struct fault *fault);
void store_let_go(struct store *store); /* also when it is not held */
bool store_is_held(const struct store *store);
uint64_t store_hold_number(const struct store *store); /* of the one in force; 0: none is */

/* Pages count from 1. The tag is all zero for a page that was never written: it holds nothing. */
uint32_t store_page_count(const struct store *store);
const uint8_t *store_page_tags(const struct store *store); /* COPY_TAG_BYTES each; while held */
bool store_tag_is_zero(const uint8_t tag[COPY_TAG_BYTES]);

/* Appends sealed pages, none of which has the zero tag. CORRUPT when one does not open. */
MUST_CHECK status store_read_sealed(struct buffer *out, struct store *store, uint32_t first,
                                    uint32_t count, struct fault *fault);

/* ---- a store made of sealed pages ---- */

struct store_copy;

/* In a directory without a store, else CONFLICT. anchor, cache and checkpoints of the options are
 * not looked at. */
MUST_CHECK status store_copy_begin(struct store_copy **ret, const struct store_options *options,
                                   struct fault *fault);
struct store_copy *store_copy_free(struct store_copy *copy); /* returns NULL; takes NULL */

/* A state of the store: so many pages, and these tags (copied). What follows are pages of it. */
MUST_CHECK status store_copy_state(struct store_copy *copy, uint32_t pages, const uint8_t *tags,
                                   struct fault *fault);

/* Whole pages of that state. CORRUPT unless each has the tag of its place and opens. */
MUST_CHECK status store_copy_pages(struct store_copy *copy, uint32_t first, struct span sealed,
                                   struct fault *fault);

/* CORRUPT unless every page of the state has come, now or with a state before. */
MUST_CHECK status store_copy_complete(const struct store_copy *copy, struct fault *fault);

/* Makes the state durable as a store that store_open takes. beginning: its map generation and WAL
 * sequence, higher than any that this silo ever had, so that no file of before fits it. */
MUST_CHECK status store_copy_end(struct store_copy *copy, uint64_t beginning, struct fault *fault);
