/* check.h: reads a store that is in use, piece by piece, and says what does not hold. Nothing is
 * changed. Between transactions. */
#pragma once

#include "store/store.h"

uint32_t store_check_pages(const struct store *store); /* of silo.db */
/* From `page` on, at most `count` pages: *ret_next is the first that was not looked at. CORRUPT:
 * the page before *ret_next does not open, or is not the current one of its place. */
MUST_CHECK status store_check_read(uint32_t *ret_next, struct store *store, uint32_t page,
                                   uint32_t count, struct fault *fault);
/* CORRUPT: the database has not the length that its page map says. */
MUST_CHECK status store_check_length(const struct store *store, struct fault *fault);

/* The next table (or full-text index) after that name; NOT_FOUND: there is none. */
enum { STORE_TABLE_NAME_TEXT = 80 };
MUST_CHECK status store_check_next(char ret[STORE_TABLE_NAME_TEXT], struct store *store,
                                   const char *after, bool fulltext, struct fault *fault);
/* SQLite's quick_check of one table and its indexes; FTS5's integrity-check of one index. */
MUST_CHECK status store_check_table(struct store *store, const char *name, struct fault *fault);
MUST_CHECK status store_check_fulltext(struct store *store, const char *name,
                                       struct fault *fault);
