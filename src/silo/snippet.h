/* snippet.h: the part of a text that says best why it was found. */
#pragma once

#include "store/words.h"

enum { SNIPPET_BYTES = 240, SNIPPET_MARKS_MAX = 32 };

struct snippet {
    struct span text; /* part of the whole, at most SNIPPET_BYTES, cut at words where it can be */
    struct {
        uint32_t from, to; /* bytes of that part: a word that was asked for */
    } marks[SNIPPET_MARKS_MAX];
    uint32_t mark_count;
};

/* words: folded, at most RANK_TERMS_MAX. */
MUST_CHECK status snippet_of(struct snippet *ret, struct store *store, struct span text,
                             const struct span *words, uint32_t word_count, struct fault *fault);
