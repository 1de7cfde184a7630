#include "silo/snippet.h"

#include <assert.h>

enum { LEAD_BYTES = 40, FOUND_MAX = 512 };

/* Where the words stand. */
struct finder {
    const struct span *words;
    uint32_t word_count;
    struct found {
        uint32_t from, to, word;
    } found[FOUND_MAX];
    uint32_t count;
};

static status take(void *context, struct span word, size_t from, size_t to, struct fault *fault)
{
    struct finder *finder = context;
    (void)fault;
    for (uint32_t i = 0; i < finder->word_count && finder->count < FOUND_MAX; i++) {
        if (!span_equal(finder->words[i], word))
            continue;
        finder->found[finder->count++] = (struct found){(uint32_t)from, (uint32_t)to, i};
        break;
    }
    return OK;
}

/* Different words count, then their number. */
static uint32_t worth(const struct finder *finder, uint32_t first)
{
    uint64_t seen = 0;
    uint32_t count = 0;
    for (uint32_t i = first; i < finder->count; i++, count++) {
        if (finder->found[i].to > finder->found[first].from + SNIPPET_BYTES - LEAD_BYTES)
            break;
        seen |= UINT64_C(1) << finder->found[i].word;
    }
    return (uint32_t)__builtin_popcountll(seen) * FOUND_MAX + count;
}

static bool is_blank(uint8_t byte)
{
    return byte == ' ' || byte == '\n' || byte == '\t' || byte == '\r';
}

static bool is_inside(uint8_t byte)
{
    return (byte & 0xC0) == 0x80;
}

/* The beginning of a word at or behind `at`, at most at `last`. */
static size_t word_start(struct span text, size_t at, size_t last)
{
    size_t word = at;
    while (word < last && word > 0 && !is_blank(text.data[word - 1]))
        word++;
    if (word < last || at == 0)
        return word;
    while (at < last && is_inside(text.data[at]))
        at++;
    return at;
}

/* The end of a word at or before `at`, at least `first`. */
static size_t word_end(struct span text, size_t at, size_t first)
{
    size_t word = at;
    if (at >= text.length)
        return text.length;
    while (word > first && !is_blank(text.data[word]))
        word--;
    if (word > first)
        return word;
    while (at > first && is_inside(text.data[at]))
        at--;
    return at;
}

status snippet_of(struct snippet *ret, struct store *store, struct span text,
                  const struct span *words, uint32_t word_count, struct fault *fault)
{
    struct finder finder = {.words = words, .word_count = word_count};
    struct snippet snippet = {0};
    uint32_t best = 0;
    assert(word_count <= RANK_TERMS_MAX);
    TRY(store_words(store, text, take, &finder, fault));
    for (uint32_t i = 1; i < finder.count; i++)
        if (worth(&finder, i) > worth(&finder, best))
            best = i;
    size_t anchor = finder.count > 0 ? finder.found[best].from : 0;
    size_t from = anchor > LEAD_BYTES ? word_start(text, anchor - LEAD_BYTES, anchor) : 0;
    size_t to = word_end(text, from + SNIPPET_BYTES, from);
    snippet.text = (struct span){text.data + from, to - from};
    for (uint32_t i = 0; i < finder.count && snippet.mark_count < SNIPPET_MARKS_MAX; i++) {
        if (finder.found[i].from < from || finder.found[i].to > to)
            continue;
        snippet.marks[snippet.mark_count].from = finder.found[i].from - (uint32_t)from;
        snippet.marks[snippet.mark_count++].to = finder.found[i].to - (uint32_t)from;
    }
    *ret = snippet;
    return OK;
}
