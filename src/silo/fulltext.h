/* fulltext.h: the full-text indexes of one kind of item: one FTS5 index a classification, so that
 * neither its statistics nor its time mix what callers may and may not see.
 *
 * An index is a derived thing: what is read damaged is begun anew under the next generation's name,
 * from the items. The table of the indexes' states and the items' own are the kind's. */
#pragma once

#include "silo/state.h"

/* Of one item: its words, and room for a column that is not stored as it is indexed. */
struct fulltext_row {
    enum clearance classification;
    struct span columns[FULLTEXT_COLUMNS_MAX];
    uint8_t scratch[24];
};

/* In SQL '@' stands for the name of an index, '#' for its classification. Numbers of items are at
 * least 1 and ascend with time within a classification. */
struct fulltext_kind {
    const char *name;        /* "memory_index": @ is name_<classification>_<generation> */
    const char *make;        /* the index */
    const char *add, *remove; /* ?1 the number, ?2.. the columns */
    const char *search;      /* for fulltext_open */
    const char *count;       /* for fulltext_count; NULL: none */
    const char *gather;      /* for fulltext_gather; NULL: none */
    uint32_t columns;
    const char *read_states; /* classification, generation, built_to, stale */
    const char *put_state;   /* the same, ?1..?4 */
    /* The next number after that one, perhaps of no item where a damaged page hides which there
     * are; NOT_FOUND: none is left. The last one; 0: none. */
    status (*next)(int64_t *ret, struct silo *silo, enum clearance classification, int64_t after,
                   struct fault *fault);
    status (*last)(int64_t *ret, struct silo *silo, enum clearance classification,
                   struct fault *fault);
    /* rows: borrowed by what read yields. NOT_FOUND; CORRUPT: cannot be read. */
    status (*open)(struct statement **ret, struct silo *silo, struct fault *fault);
    status (*read)(struct fulltext_row *ret, struct statement *rows, enum clearance classification,
                   int64_t n, struct fault *fault);
};

/* For a kind's next: steps to the number behind `after`, in column 0. Where a damaged page hides
 * which there are it is after + 1, so that each number is asked for. NOT_FOUND. */
MUST_CHECK status fulltext_step(int64_t *ret, struct statement *next, int64_t after,
                                struct fault *fault);

/* What the store holds; cheap once known. The kind's tables must be there. */
MUST_CHECK status fulltext_know(struct fulltext *fulltext, struct silo *silo, struct fault *fault);
void fulltext_forget(struct fulltext *fulltext); /* something was taken back */

/* What is added waits for fulltext_settle: FTS5 writes a segment at every savepoint, so a turn's
 * items go in together, read again from their tables. A damaged index is met there, and begun
 * anew. */
MUST_CHECK status fulltext_add(struct fulltext *fulltext, struct silo *silo,
                               enum clearance classification, int64_t n, struct fault *fault);
/* Before an index is asked or an item changes, before the commit, and before a savepoint in which
 * either may happen and that may be undone; but the one of a request, for which there are marks. */
MUST_CHECK status fulltext_settle(struct fulltext *fulltext, struct silo *silo,
                                  struct fault *fault);
struct fulltext_mark fulltext_mark(const struct fulltext *fulltext);
/* The request's savepoint was undone. */
void fulltext_return(struct fulltext *fulltext, struct fulltext_mark mark);
/* The items from..to, which are still in their tables as they were indexed. CORRUPT: one of them
 * cannot be read. */
MUST_CHECK status fulltext_remove(struct fulltext *fulltext, struct silo *silo,
                                  enum clearance classification, int64_t from, int64_t to,
                                  struct fault *fault);

MUST_CHECK status fulltext_open(struct statement **ret, struct fulltext *fulltext,
                                struct silo *silo, enum clearance classification,
                                struct fault *fault);
MUST_CHECK status fulltext_count(struct statement **ret, struct fulltext *fulltext,
                                 struct silo *silo, enum clearance classification,
                                 struct fault *fault);

MUST_CHECK status fulltext_gather(struct statement **ret, struct fulltext *fulltext,
                                  struct silo *silo, enum clearance classification,
                                  struct fault *fault);

/* One search: look is called again when it met a damaged index (CORRUPT, *ret_damaged), which is
 * then begun anew, and answers from it where the silo is small enough. look holds no statement when
 * it returns. Only indexes that the clearance covers are looked at. UNAVAILABLE: one is being
 * rebuilt, or the search took too long. */
typedef status fulltext_look(void *context, enum clearance *ret_damaged, struct fault *fault);
MUST_CHECK status fulltext_search(struct fulltext *fulltext, struct silo *silo,
                                  enum clearance clearance, fulltext_look *look, void *context,
                                  struct fault *fault);

/* Before the silo is freed, after its store is closed. */
void fulltext_free(struct fulltext *fulltext);
void fulltext_trim(struct fulltext *fulltext); /* between turns: gives back memory */

/* Adds up to `rows` items to indexes that are being rebuilt. */
MUST_CHECK status fulltext_rebuild(bool *ret_more, struct fulltext *fulltext, struct silo *silo,
                                   uint32_t rows, struct fault *fault);
/* One bounded step of rewriting stale indexes, so that deleted words are gone. */
MUST_CHECK status fulltext_rewrite(bool *ret_more, struct fulltext *fulltext, struct silo *silo,
                                   struct fault *fault);
bool fulltext_is_stale(const struct fulltext *fulltext);
bool fulltext_is_rebuilding(const struct fulltext *fulltext);
