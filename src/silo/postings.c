#include "silo/postings.h"

#include <assert.h>
#include <stdlib.h>

enum { MATCH_MAX = KIB(8) };

static uint32_t rows_max(const struct postings *postings)
{
    return postings->rows_max != 0 ? postings->rows_max : POSTINGS_ROWS_MAX;
}

static void free_at(struct postings *postings, struct posting_list **at)
{
    struct posting_list *list = *at;
    *at = list->next;
    postings->list_count--;
    postings->rows -= list->count;
    free(list->rows);
    free(list);
}

void postings_drop(struct postings *postings)
{
    while (postings->lists != NULL)
        free_at(postings, &postings->lists);
}

void postings_begin(struct postings *postings)
{
    for (struct posting_list *list = postings->lists; list != NULL; list = list->next)
        list->wanted = false;
}

/* The one used longest ago that nobody wants. */
static bool drop_oldest(struct postings *postings)
{
    struct posting_list **oldest = NULL;
    for (struct posting_list **at = &postings->lists; *at != NULL; at = &(*at)->next)
        if (!(*at)->wanted)
            oldest = at;
    if (oldest == NULL)
        return false;
    free_at(postings, oldest);
    return true;
}

static uint32_t wanted_rows(const struct postings *postings)
{
    uint32_t rows = 0;
    for (const struct posting_list *list = postings->lists; list != NULL; list = list->next)
        if (list->wanted)
            rows += list->count;
    return rows;
}

/* It moves to the front; NULL: not known. */
static struct posting_list *find(struct postings *postings, enum clearance classification,
                                 struct span folded)
{
    for (struct posting_list **at = &postings->lists; *at != NULL; at = &(*at)->next) {
        struct posting_list *list = *at;
        if (list->classification != classification ||
            !span_equal((struct span){list->word, list->length}, folded))
            continue;
        *at = list->next;
        list->next = postings->lists;
        postings->lists = list;
        list->wanted = true;
        return list;
    }
    return NULL;
}

/* Takes over the rows. NULL: out of memory. */
static struct posting_list *keep(struct postings *postings, enum clearance classification,
                                 struct span folded, struct gathered *found)
{
    struct posting_list *list = malloc(sizeof *list + folded.length);
    if (list == NULL)
        return NULL;
    *list = (struct posting_list){.next = postings->lists, .rows = found->rows,
                                  .count = found->count, .wanted = true,
                                  .classification = classification, .length = folded.length};
    for (size_t i = 0; i < folded.length; i++)
        list->word[i] = folded.data[i];
    if (found->count > 0) {
        uint64_t *fitted = realloc(list->rows, found->count * sizeof *fitted);
        list->rows = fitted != NULL ? fitted : list->rows;
    }
    *found = (struct gathered){0};
    postings->lists = list;
    postings->list_count++;
    postings->rows += list->count;
    return list;
}

static status walk(struct gather *gather, struct fulltext *fulltext, struct silo *silo,
                   enum clearance classification, const struct posting_word *words,
                   const uint8_t *missing, uint32_t count, struct fault *fault)
{
    uint8_t storage[MATCH_MAX];
    struct buffer match = buffer_over(storage, sizeof storage);
    for (uint32_t i = 0; i < count; i++) {
        buffer_put_text(&match, i > 0 ? " OR \"" : "\"");
        buffer_put(&match, words[missing[i]].word);
        buffer_put_u8(&match, '"');
    }
    TRY(buffer_check(&match, "query", fault));
    _cleanup_statement_ struct statement *ask = NULL;
    TRY(fulltext_gather(&ask, fulltext, silo, classification, fault));
    statement_bind_text(ask, 1, buffer_span(&match));
    statement_bind_gather(ask, 2, gather);
    status stepped = statement_step(ask, fault);
    return stepped == NOT_FOUND ? OK : stepped; /* none of the words occurs */
}

static status keep_all(struct postings *postings, enum clearance classification,
                       const struct posting_word *words, const uint8_t *missing, uint32_t count,
                       struct gather *gather, const struct posting_list *ret[],
                       struct fault *fault)
{
    for (uint32_t i = 0; i < count; i++) {
        uint32_t word = missing[i];
        while (postings->list_count >= POSTINGS_LISTS_MAX ||
               postings->rows + gather->phrases[i].count > rows_max(postings))
            if (!drop_oldest(postings))
                break;
        ret[word] = keep(postings, classification, words[word].folded, &gather->phrases[i]);
        if (ret[word] == NULL)
            return FAIL(INTERNAL, fault, "out of memory for words");
    }
    return OK;
}

status postings_find(const struct posting_list *ret[], bool *ret_fit, struct fulltext *fulltext,
                     struct silo *silo, enum clearance classification,
                     const struct posting_word *words, uint32_t count,
                     const uint32_t columns[RANK_COLUMNS_MAX], struct fault *fault)
{
    struct postings *postings = &fulltext->postings;
    struct gather gather = {0};
    uint8_t missing[RANK_TERMS_MAX];
    uint32_t missing_count = 0;
    assert(count <= RANK_TERMS_MAX);
    for (uint32_t i = 0; i < count; i++) {
        ret[i] = find(postings, classification, words[i].folded);
        if (ret[i] == NULL)
            missing[missing_count++] = (uint8_t)i;
    }
    *ret_fit = true;
    if (missing_count == 0)
        return OK;
    for (uint32_t i = 0; i < RANK_COLUMNS_MAX; i++)
        gather.columns[i] = columns[i];
    uint32_t wanted = wanted_rows(postings), most = rows_max(postings);
    gather.rows_max = wanted < most ? most - wanted : 0;
    status done = walk(&gather, fulltext, silo, classification, words, missing, missing_count,
                       fault);
    *ret_fit = !gather.overflowed;
    if (done == OK && !gather.overflowed)
        done = keep_all(postings, classification, words, missing, missing_count, &gather, ret,
                        fault);
    for (uint32_t i = 0; i < RANK_TERMS_MAX; i++)
        free(gather.phrases[i].rows);
    return done;
}
