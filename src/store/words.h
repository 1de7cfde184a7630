/* words.h: what SQLite's FTS5 offers besides its statements: the words of a text as an index knows
 * them, and a rank whose statistics the caller brings. */
#pragma once

#include "store/statement.h"
#include "store/store.h"

/* The tokenizer of every full-text index, in the words of CREATE VIRTUAL TABLE. */
#define WORDS_TOKENIZER "unicode61 remove_diacritics 2"

/* word: folded; from..to: its bytes in the text. What is not OK ends the walk. */
typedef status words_taker(void *context, struct span word, size_t from, size_t to,
                           struct fault *fault);
MUST_CHECK status store_words(struct store *store, struct span text, words_taker *take,
                              void *context, struct fault *fault);

enum { RANK_TERMS_MAX = 32, RANK_PHRASES_MAX = 96, RANK_COLUMNS_MAX = 4 };
#define RANK_K1 1.2
#define RANK_B 0.75

/* BM25 (Robertson and Zaragoza, "The Probabilistic Relevance Framework", 2009) where an occurrence
 * counts by the weight of its column. The length of a row is the lowest byte of its number, so that
 * nothing has to be looked up. A row's score depends on nothing but the row and this. */
struct rank {
    double columns[RANK_COLUMNS_MAX];
    double terms[RANK_TERMS_MAX];      /* weight: its inverse document frequency */
    uint8_t phrases[RANK_PHRASES_MAX]; /* of the MATCH: its term; RANK_TERMS_MAX: does not count */
    double mean_length;                /* more than 0 */
};

/* What one term adds to the score of a row; added up in the order of terms, so that one row has
 * one score to the last bit. saturation: rank_saturation of the row. count: its weighted
 * occurrences. */
static inline double rank_saturation(double mean_length, int64_t n)
{
    return RANK_K1 * (1 - RANK_B + RANK_B * (double)(n & 0xFF) / mean_length);
}

static inline double rank_term(double weight, double count, double saturation)
{
    return weight * count * (RANK_K1 + 1) / (count + saturation);
}

/* The rows that hold one phrase of a MATCH, ascending: number << GATHERED_COUNT_BITS | weighted
 * occurrences. */
enum { GATHERED_COUNT_BITS = 16, GATHERED_COUNT_MAX = (1 << GATHERED_COUNT_BITS) - 1 };
struct gathered {
    uint64_t *rows; /* malloc'ed: the caller frees it, whatever became of the statement */
    uint32_t count, room;
};

/* For silo_gather, bound by statement_bind_gather: it walks the rows of each phrase, one phrase
 * after another, and yields NULL. */
struct gather {
    uint32_t columns[RANK_COLUMNS_MAX]; /* what an occurrence counts */
    struct gathered phrases[RANK_TERMS_MAX];
    uint32_t rows_max; /* of all phrases together */
    bool overflowed;   /* there are more, or they do not fit their bits: nothing of it counts */
    const struct store *store;
};
void statement_bind_gather(struct statement *statement, int parameter, struct gather *gather);

/* Makes silo_rank(index, struct rank as a blob) and silo_gather(index, struct gather) known to SQL;
 * cheap once done. */
MUST_CHECK status store_rank(struct store *store, struct fault *fault);
