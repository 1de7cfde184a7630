/* words.h: what SQLite's FTS5 offers besides its statements: the words of a text as an index knows
 * them, and a rank whose statistics the caller brings. */
#pragma once

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

/* Makes silo_rank(index, struct rank as a blob) known to SQL; cheap once done. */
MUST_CHECK status store_rank(struct store *store, struct fault *fault);
