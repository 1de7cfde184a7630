/* postings.h: where words occur in the full-text indexes of one kind, walked once and then kept in
 * memory until the indexes change, the cell is idle or others need the room. Numbers are those of
 * the index: without the classification. */
#pragma once

#include "silo/fulltext.h"
#include "store/words.h"

enum {
    POSTINGS_ROWS_MAX = 1 << 20, /* of all words together: 8 MiB */
    POSTINGS_LISTS_MAX = 512,
};

struct posting_list {
    struct posting_list *next;
    uint64_t *rows; /* as struct gathered has them */
    uint32_t count;
    bool wanted; /* by the search that goes on */
    enum clearance classification;
    size_t length;
    uint8_t word[];
};

struct posting_word {
    struct span word;   /* as the query spells it */
    struct span folded; /* as the indexes know it: the key */
};

/* A search begins: lists that were found before may be dropped from now on. */
void postings_begin(struct postings *postings);

/* The lists of these words (no word twice, at most RANK_TERMS_MAX) in one index, valid until the
 * next postings_begin or a change of the index. columns: what an occurrence counts, always the same
 * for one kind. *ret_fit: false: they do not fit, and ret is not set. CORRUPT: the index is
 * damaged. TIMED_OUT. */
MUST_CHECK status postings_find(const struct posting_list *ret[], bool *ret_fit,
                                struct fulltext *fulltext, struct silo *silo,
                                enum clearance classification, const struct posting_word *words,
                                uint32_t count, const uint32_t columns[RANK_COLUMNS_MAX],
                                struct fault *fault);

void postings_drop(struct postings *postings); /* all of them */
