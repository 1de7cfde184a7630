#include "silo/knowledge.h"

#include "silo/fields.h"
#include "silo/filter.h"
#include "silo/postings.h"
#include "silo/snippet.h"
#include "store/words.h"
#include "wire/json.h"

#include <math.h>

enum {
    MATCH_MAX = KIB(12), /* every word quoted, some twice */
    HITS_MAX = LIST_LIMIT_MAX + 1,
    COMMON_SHARE = 16, /* a word in more than one of so many chunks is common */
};

/* An occurrence in a title or heading is worth so many in the text (docs/adr/0006). */
static const uint32_t column_weights[RANK_COLUMNS_MAX] = {4, 2, 1};

/* One word of the query. */
struct term {
    struct span word;   /* as the query spells it */
    struct span folded; /* as the indexes know it */
    int64_t count;      /* chunks that hold it, of those the caller may see */
    double weight;
};

struct hit {
    int64_t n;
    double score;
};

struct position {
    double score; /* of the last hit of the page before */
    int64_t n;
};

struct search {
    struct call *call;
    struct span text, cursor, scope;
    const struct filter *filter;
    const struct json *filter_source;
    uint32_t limit;
    struct term terms[RANK_TERMS_MAX];
    uint32_t term_count;
    /* what stays the same on every page */
    bool is_begun;
    struct position after;
    double mean_length;
    int64_t chunks;                 /* there are */
    int64_t next[CLEARANCE_COUNT]; /* places from here on were added later */
    /* where the words occur, by classification; NULL: the index is not there for the caller */
    const struct posting_list *lists[CLEARANCE_COUNT][RANK_TERMS_MAX];
    /* the scan */
    struct rank rank;
    char match[MATCH_MAX];
    struct hit hits[HITS_MAX]; /* a heap, the worst on top; in the end the best first */
    uint32_t hit_count, damaged;
    struct arena scratch;
    struct statement *documents;
    int64_t judged_from, judged_to; /* chunks of the document that was looked at last */
    bool judged;                    /* passes the filter */
};

/* ---- the request ---- */

static status refuse_later(const struct json *body, struct fault *fault)
{
    static const char *const members[] = {"vector", "collection", NULL};
    for (size_t i = 0; members[i] != NULL; i++) {
        const struct json *member = json_member(body, members[i]);
        if (member != NULL && member->kind != JSON_NULL)
            return FAIL(NOT_IMPLEMENTED, fault, "%s: documents are searched by words only, not "
                        "yet by vectors", members[i]);
    }
    const struct json *expand = json_member(body, "expand");
    if (expand == NULL || expand->kind == JSON_NULL)
        return OK;
    static const char *const names[] = {"depth", NULL};
    int64_t depth = 0;
    TRY(json_need_object(expand, "expand", fault));
    TRY(json_only(expand, names, fault));
    TRY(json_optional_integer(&depth, expand, "depth", 0, 3, fault));
    if (depth > 0)
        return FAIL(NOT_IMPLEMENTED, fault, "expand: there is no graph to follow yet");
    return OK;
}

static status read_mode(const struct json *body, struct fault *fault)
{
    struct span mode = SPAN("lexical");
    TRY(json_optional_text(&mode, body, "mode", 1, 32, fault));
    if (span_is(mode, "hybrid") || span_is(mode, "vector"))
        return FAIL(NOT_IMPLEMENTED, fault, "mode: only lexical is there yet");
    if (!span_is(mode, "lexical"))
        return FAIL(BAD_FIELD, fault, "mode: must be lexical, hybrid or vector");
    return OK;
}

/* What a cursor is bound to: the caller's reach and the question. */
static status bind_scope(struct search *search, struct fault *fault)
{
    struct span filter = search->filter_source != NULL ? search->filter_source->source
                                                       : (struct span){0};
    size_t size = 64 + search->text.length + filter.length;
    uint8_t *storage = arena_alloc(search->call->request->arena, size);
    if (storage == NULL)
        return FAIL(TOO_LARGE, fault, "the search does not fit the memory of one request");
    struct buffer scope = buffer_over(storage, size);
    buffer_put_text_field(&scope, search->call->request->action->name);
    buffer_put_u8(&scope, (uint8_t)search->call->request->envelope->clearance);
    buffer_put_field(&scope, search->text);
    buffer_put_field(&scope, filter);
    TRY(buffer_check(&scope, "query", fault));
    search->scope = buffer_span(&scope);
    return OK;
}

static status read_search(struct search *search, const struct json *body, struct fault *fault)
{
    static const char *const names[] = {"query", "vector", "collection", "limit", "filter", "mode",
                                        "expand", "cursor", NULL};
    int64_t limit = LIST_LIMIT_DEFAULT;
    TRY(json_only(body, names, fault));
    TRY(read_mode(body, fault));
    TRY(refuse_later(body, fault));
    TRY(json_text(&search->text, body, "query", 1, SEARCH_QUERY_MAX, fault));
    TRY(json_optional_integer(&limit, body, "limit", 1, LIST_LIMIT_MAX, fault));
    TRY(json_optional_text(&search->cursor, body, "cursor", 1, KIB(2), fault));
    search->filter_source = json_member(body, "filter");
    TRY(filter_read(&search->filter, search->call->request->arena, search->filter_source, fault));
    search->limit = (uint32_t)limit;
    search->call->prompt = search->text;
    return bind_scope(search, fault);
}

/* The same word again, however it is spelt, counts once. */
static status take_term(void *context, struct span folded, size_t from, size_t to,
                        struct fault *fault)
{
    struct search *search = context;
    for (uint32_t i = 0; i < search->term_count; i++)
        if (span_equal(search->terms[i].folded, folded))
            return OK;
    if (search->term_count == RANK_TERMS_MAX)
        return OK;
    struct span copy = arena_copy(search->call->request->arena, folded);
    if (copy.data == NULL)
        return FAIL(TOO_LARGE, fault, "the search does not fit the memory of one request");
    search->terms[search->term_count++] = (struct term){
        .word = {search->text.data + from, to - from}, .folded = copy};
    return OK;
}

/* ---- statistics ---- */

static bool is_visible(const struct search *search, uint32_t k)
{
    return search->call->silo->knowledge.fulltext.indexes[k].exists &&
           clearance_covers(search->call->request->envelope->clearance, (enum clearance)k);
}

static void put_word(struct buffer *match, struct span word)
{
    buffer_put_u8(match, '"');
    buffer_put(match, word);
    buffer_put_u8(match, '"');
}

static status count_in(int64_t *count, struct search *search, const struct term *term, uint32_t k,
                       struct fault *fault)
{
    struct silo *silo = search->call->silo;
    struct buffer match = buffer_over((uint8_t *)search->match, sizeof search->match);
    put_word(&match, term->word);
    TRY(buffer_check(&match, "query", fault));
    _cleanup_statement_ struct statement *ask = NULL;
    TRY(fulltext_count(&ask, &silo->knowledge.fulltext, silo, (enum clearance)k, fault));
    statement_bind_text(ask, 1, buffer_span(&match));
    TRY(statement_step(ask, fault));
    *count += statement_int(ask, 0);
    return OK;
}

static void weigh(const struct search *search, struct term *term)
{
    double all = (double)search->chunks, with = (double)term->count;
    term->weight = log(1 + (all - with + 0.5) / (with + 0.5));
}

/* Of all that the caller may see, as if it were one collection, and of nothing else. fit: the lists
 * are there. */
static status count_terms(struct search *search, bool fit, enum clearance *ret_damaged,
                          struct fault *fault)
{
    const struct knowledge_totals *totals = search->call->silo->knowledge.totals;
    int64_t lengths = 0;
    search->chunks = 0;
    for (uint32_t k = 0; k < CLEARANCE_COUNT; k++) {
        if (!is_visible(search, k))
            continue;
        search->chunks += totals[k].chunks;
        lengths += totals[k].lengths;
        search->next[k] = totals[k].next;
    }
    search->mean_length = search->chunks > 0 && lengths > 0
                              ? (double)lengths / (double)search->chunks
                              : 1;
    for (uint32_t i = 0; i < search->term_count; i++) {
        search->terms[i].count = 0;
        for (uint32_t k = 0; k < CLEARANCE_COUNT; k++) {
            *ret_damaged = (enum clearance)k;
            if (fit && search->lists[k][i] != NULL)
                search->terms[i].count += search->lists[k][i]->count;
            else if (!fit && is_visible(search, k))
                TRY(count_in(&search->terms[i].count, search, &search->terms[i], k, fault));
        }
        weigh(search, &search->terms[i]);
    }
    return OK;
}

/* ---- the cursor ---- */

static void put_double(struct buffer *out, double value)
{
    union { double value; uint64_t bits; } both = {.value = value};
    buffer_put_u64(out, both.bits);
}

static status get_double(double *ret, struct cursor *cursor, struct fault *fault)
{
    union { double value; uint64_t bits; } both;
    TRY(cursor_u64(&both.bits, cursor, fault));
    *ret = both.value;
    return OK;
}

static status put_position(struct json_writer *writer, const struct search *search,
                           const struct hit *last, struct fault *fault)
{
    uint8_t storage[POSITION_MAX];
    struct buffer position = buffer_over(storage, sizeof storage);
    put_double(&position, last->score);
    buffer_put_u64(&position, (uint64_t)last->n);
    put_double(&position, search->mean_length);
    buffer_put_u64(&position, (uint64_t)search->chunks);
    for (uint32_t k = 0; k < CLEARANCE_COUNT; k++)
        buffer_put_u64(&position, (uint64_t)search->next[k]);
    for (uint32_t i = 0; i < search->term_count; i++)
        buffer_put_u64(&position, (uint64_t)search->terms[i].count);
    TRY(buffer_check(&position, "cursor", fault));
    return position_put(writer, search->call, buffer_span(&position), search->scope, fault);
}

static status get_position(struct search *search, struct fault *fault)
{
    struct span position;
    uint64_t value;
    if (search->cursor.length == 0)
        return OK;
    TRY(position_get(&position, search->call, search->cursor, search->scope, fault));
    struct cursor cursor = cursor_over(position);
    TRY(get_double(&search->after.score, &cursor, fault));
    TRY(cursor_u64(&value, &cursor, fault));
    search->after.n = (int64_t)value;
    TRY(get_double(&search->mean_length, &cursor, fault));
    TRY(cursor_u64(&value, &cursor, fault));
    search->chunks = (int64_t)value;
    for (uint32_t k = 0; k < CLEARANCE_COUNT; k++) {
        TRY(cursor_u64(&value, &cursor, fault));
        search->next[k] = (int64_t)value;
    }
    for (uint32_t i = 0; i < search->term_count; i++) {
        TRY(cursor_u64(&value, &cursor, fault));
        search->terms[i].count = (int64_t)value;
        weigh(search, &search->terms[i]);
    }
    search->is_begun = true;
    return cursor_end(&cursor, fault);
}

/* ---- the scan ---- */

/* Whether left comes before right in the answer. */
static bool is_better(const struct hit *left, const struct hit *right)
{
    if (left->score > right->score || left->score < right->score)
        return left->score > right->score;
    return left->n < right->n;
}

static void swap(struct hit *left, struct hit *right)
{
    struct hit kept = *left;
    *left = *right;
    *right = kept;
}

/* The worst of the first `count` comes to the top again, when only the top is out of place. */
static void sink(struct hit *hits, uint32_t count)
{
    for (uint32_t at = 0, child = 1; child < count; child = 2 * at + 1) {
        if (child + 1 < count && is_better(&hits[child], &hits[child + 1]))
            child++;
        if (is_better(&hits[child], &hits[at]))
            return;
        swap(&hits[at], &hits[child]);
        at = child;
    }
}

static void keep(struct search *search, const struct hit *hit)
{
    if (search->hit_count == search->limit + 1) {
        search->hits[0] = *hit;
        sink(search->hits, search->hit_count);
        return;
    }
    uint32_t at = search->hit_count++;
    search->hits[at] = *hit;
    for (; at > 0 && is_better(&search->hits[(at - 1) / 2], &search->hits[at]); at = (at - 1) / 2)
        swap(&search->hits[at], &search->hits[(at - 1) / 2]);
}

static void sort(struct search *search)
{
    for (uint32_t count = search->hit_count; count > 1; count--) {
        swap(&search->hits[0], &search->hits[count - 1]);
        sink(search->hits, count - 1);
    }
}

/* Chunks of one document come one after another: its metadata is judged once. */
static status judge(bool *ret, struct search *search, int64_t n, struct fault *fault)
{
    struct document_row row;
    struct fault inner;
    if (n >= search->judged_from && n <= search->judged_to) {
        *ret = search->judged;
        return OK;
    }
    status found = document_of(&row, search->documents, n, &inner);
    if (found != OK && found != CORRUPT && found != NOT_FOUND)
        return FAIL(found, fault, "%s", inner.detail);
    *ret = false;
    if (found != OK) {
        search->damaged++;
        return OK;
    }
    search->judged_from = row.n;
    search->judged_to = row.last;
    *ret = search->judged = filter_passes_text(search->filter, &search->scratch, row.metadata);
    return OK;
}

static status consider(struct search *search, uint32_t k, int64_t n, double score,
                       struct fault *fault)
{
    struct hit hit = {chunk_number((enum clearance)k, 0, 0) | n, score};
    const struct hit last = {search->after.n, search->after.score};
    bool passes = true;
    if (chunk_place(n) >= search->next[k] || (search->is_begun && !is_better(&last, &hit)))
        return OK;
    if (search->hit_count == search->limit + 1 && !is_better(&hit, &search->hits[0]))
        return OK;
    if (search->filter != NULL)
        TRY(judge(&passes, search, hit.n, fault));
    if (passes)
        keep(search, &hit);
    return OK;
}

static status scan(struct search *search, struct span match, uint32_t k, struct fault *fault)
{
    struct silo *silo = search->call->silo;
    _cleanup_statement_ struct statement *rows = NULL;
    TRY(fulltext_open(&rows, &silo->knowledge.fulltext, silo, (enum clearance)k, fault));
    statement_bind_text(rows, 1, match);
    statement_bind_blob(rows, 2, (struct span){(const uint8_t *)&search->rank,
                                               sizeof search->rank});
    for (;;) {
        status stepped = statement_step(rows, fault);
        if (stepped == NOT_FOUND)
            return OK;
        TRY(stepped);
        TRY(consider(search, k, statement_int(rows, 0), statement_double(rows, 1), fault));
    }
}

/* Appends the words of one sort, joined by OR; counts: their occurrences make the score. */
static void put_words(struct buffer *match, struct search *search, uint32_t *phrases,
                      bool common, bool counts)
{
    const char *join = "";
    for (uint32_t i = 0; i < search->term_count; i++) {
        const struct term *term = &search->terms[i];
        if ((term->count * COMMON_SHARE > search->chunks) != common)
            continue;
        buffer_put_text(match, join);
        put_word(match, term->word);
        search->rank.phrases[(*phrases)++] = counts ? (uint8_t)i : RANK_TERMS_MAX;
        join = " OR ";
    }
}

/* rare_only: chunks with a rare word alone are found, yet ranked by the common ones they hold, too:
 * "(rare) OR ((rare) AND (common))". */
static struct span write_match(struct search *search, bool rare_only)
{
    struct buffer match = buffer_over((uint8_t *)search->match, sizeof search->match);
    uint32_t phrases = 0;
    search->rank.mean_length = search->mean_length;
    for (uint32_t i = 0; i < RANK_COLUMNS_MAX; i++)
        search->rank.columns[i] = column_weights[i];
    for (uint32_t i = 0; i < search->term_count; i++)
        search->rank.terms[i] = search->terms[i].weight;
    put_words(&match, search, &phrases, false, true);
    if (rare_only) {
        buffer_put_text(&match, " OR ((");
        put_words(&match, search, &phrases, false, false);
        buffer_put_text(&match, ") AND (");
    } else if (match.length > 0) {
        buffer_put_text(&match, " OR ");
    }
    size_t before = match.length;
    put_words(&match, search, &phrases, true, true);
    if (rare_only)
        buffer_put_text(&match, "))");
    else if (match.length == before && before > 0)
        match.length -= sizeof " OR " - 1;
    return buffer_span(&match);
}

static status scan_all(struct search *search, bool rare_only, enum clearance *ret_damaged,
                       struct fault *fault)
{
    struct span match = write_match(search, rare_only);
    search->hit_count = 0;
    search->judged_from = 1;
    search->judged_to = 0;
    for (uint32_t k = 0; k < CLEARANCE_COUNT; k++) {
        *ret_damaged = (enum clearance)k;
        if (is_visible(search, k))
            TRY(scan(search, match, k, fault));
    }
    return OK;
}

/* What a chunk without any rare word can score at most (Turtle and Flood, "Query evaluation:
 * strategies and optimizations", 1995). ret_mixed: the query has words of both sorts. */
static double most_without_rare(bool *ret_mixed, const struct search *search)
{
    double most = 0;
    uint32_t common = 0;
    for (uint32_t i = 0; i < search->term_count; i++) {
        if (search->terms[i].count * COMMON_SHARE > search->chunks) {
            most += search->terms[i].weight * (RANK_K1 + 1);
            common++;
        }
    }
    *ret_mixed = common > 0 && common < search->term_count;
    return most;
}

/* The lists of all words do not fit the memory they may take: the index walks them, once to count
 * them, once or twice to rank. */
static status scan_indexes(struct search *search, enum clearance *ret_damaged,
                           struct fault *fault)
{
    bool mixed;
    double most = most_without_rare(&mixed, search);
    if (mixed) {
        TRY(scan_all(search, true, ret_damaged, fault));
        if (search->hit_count == search->limit + 1 && search->hits[0].score > most)
            return OK;
    }
    return scan_all(search, false, ret_damaged, fault);
}

/* ---- the lists ---- */

/* Where the walk of one list is. */
struct lane {
    const uint64_t *at, *end;
    uint32_t term;
    double most; /* that it can add to a score */
};

static status find_lists(bool *ret_fit, struct search *search, enum clearance *ret_damaged,
                         struct fault *fault)
{
    struct silo *silo = search->call->silo;
    struct posting_word words[RANK_TERMS_MAX];
    for (uint32_t i = 0; i < search->term_count; i++)
        words[i] = (struct posting_word){search->terms[i].word, search->terms[i].folded};
    postings_begin(&silo->knowledge.fulltext.postings);
    *ret_fit = true;
    for (uint32_t k = 0; k < CLEARANCE_COUNT && *ret_fit; k++) {
        *ret_damaged = (enum clearance)k;
        for (uint32_t i = 0; i < RANK_TERMS_MAX; i++)
            search->lists[k][i] = NULL;
        if (is_visible(search, k))
            TRY(postings_find(search->lists[k], ret_fit, &silo->knowledge.fulltext, silo,
                              (enum clearance)k, words, search->term_count, column_weights,
                              fault));
    }
    return OK;
}

/* What adds least first. */
static uint32_t make_lanes(struct lane lanes[RANK_TERMS_MAX], const struct search *search,
                           uint32_t k)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < search->term_count; i++) {
        const struct posting_list *list = search->lists[k][i];
        struct lane lane = {list->rows, list->rows + list->count, i,
                            search->terms[i].weight * (RANK_K1 + 1)};
        if (list->count == 0)
            continue;
        uint32_t at = count++;
        for (; at > 0 && lanes[at - 1].most > lane.most; at--)
            lanes[at] = lanes[at - 1];
        lanes[at] = lane;
    }
    return count;
}

/* To the first row of that number or a greater one: in steps that double, then back in halves. */
static void seek(struct lane *lane, uint64_t n)
{
    uint64_t key = n << GATHERED_COUNT_BITS;
    size_t left = (size_t)(lane->end - lane->at), reach = 1;
    if (left == 0 || lane->at[0] >= key)
        return;
    while (reach < left && lane->at[reach] < key)
        reach *= 2;
    size_t low = reach / 2, high = reach < left ? reach : left;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (lane->at[middle] < key)
            low = middle;
        else
            high = middle;
    }
    lane->at += high;
}

/* The least row that one of them is at; UINT64_MAX: all are at their ends. */
static uint64_t least_row(const struct lane *lanes, uint32_t count)
{
    uint64_t least = UINT64_MAX;
    for (uint32_t i = 0; i < count; i++)
        if (lanes[i].at < lanes[i].end && *lanes[i].at >> GATHERED_COUNT_BITS < least)
            least = *lanes[i].at >> GATHERED_COUNT_BITS;
    return least;
}

/* Always added in the order of terms, so that one row has one score to the last bit. */
static double score_of(const struct search *search, struct lane *lanes, uint32_t count, uint64_t n)
{
    double counts[RANK_TERMS_MAX] = {0}, score = 0;
    double saturation = rank_saturation(search->mean_length, (int64_t)n);
    for (uint32_t i = 0; i < count; i++) {
        seek(&lanes[i], n);
        if (lanes[i].at < lanes[i].end && *lanes[i].at >> GATHERED_COUNT_BITS == n)
            counts[lanes[i].term] = (double)(*lanes[i].at++ & GATHERED_COUNT_MAX);
    }
    for (uint32_t i = 0; i < search->term_count; i++)
        if (counts[i] > 0)
            score += rank_term(search->terms[i].weight, counts[i], saturation);
    return score;
}

/* MaxScore (Turtle and Flood, as above): rows that hold only words which together cannot reach the
 * worst hit are passed over; what they add to other rows is looked up there. */
static status rank_lists(struct search *search, uint32_t k, struct fault *fault)
{
    struct lane lanes[RANK_TERMS_MAX];
    uint32_t count = make_lanes(lanes, search, k), first = 0;
    double passed = 0;
    for (;;) {
        bool full = search->hit_count == search->limit + 1;
        while (full && first < count && passed + lanes[first].most < search->hits[0].score)
            passed += lanes[first++].most;
        uint64_t n = least_row(lanes + first, count - first);
        if (n == UINT64_MAX)
            return OK;
        TRY(consider(search, k, (int64_t)n, score_of(search, lanes, count, n), fault));
    }
}

static status find_hits(struct search *search, enum clearance *ret_damaged, struct fault *fault)
{
    bool fit;
    TRY(find_lists(&fit, search, ret_damaged, fault));
    if (!search->is_begun)
        TRY(count_terms(search, fit, ret_damaged, fault));
    if (!fit)
        return scan_indexes(search, ret_damaged, fault);
    search->hit_count = 0;
    search->judged_from = 1;
    search->judged_to = 0;
    for (uint32_t k = 0; k < CLEARANCE_COUNT; k++)
        if (is_visible(search, k))
            TRY(rank_lists(search, k, fault));
    return OK;
}

static status look(void *context, enum clearance *ret_damaged, struct fault *fault)
{
    struct search *search = context;
    search->damaged = 0;
    TRY(document_open(&search->documents, search->call->silo, fault));
    status found = find_hits(search, ret_damaged, fault);
    search->documents = statement_close(search->documents);
    return found;
}

/* ---- the answer ---- */

static status put_snippet(struct json_writer *writer, const struct search *search,
                          struct span text, struct fault *fault)
{
    struct span words[RANK_TERMS_MAX];
    struct snippet snippet;
    for (uint32_t i = 0; i < search->term_count; i++)
        words[i] = search->terms[i].folded;
    TRY(snippet_of(&snippet, search->call->store, text, words, search->term_count, fault));
    json_open_object(writer, "snippet");
    json_put_string(writer, "text", snippet.text);
    json_open_array(writer, "marks");
    for (uint32_t i = 0; i < snippet.mark_count; i++) {
        json_open_array(writer, NULL);
        json_put_integer(writer, NULL, snippet.marks[i].from);
        json_put_integer(writer, NULL, snippet.marks[i].to);
        json_close_array(writer);
    }
    json_close_array(writer);
    json_close_object(writer);
    return OK;
}

static status put_chunk(struct json_writer *writer, const struct search *search,
                        const struct hit *hit, const struct document_row *row,
                        struct statement *chunks, struct fault *fault)
{
    char id[2 * sizeof hit->n + 1];
    snprintf(id, sizeof id, "%016llx", (unsigned long long)hit->n);
    struct span text = statement_span(chunks, 1);
    json_open_object(writer, NULL);
    json_put_text(writer, "id", id);
    json_put_string(writer, "document_id", row->id);
    field_put(writer, "title", row->title);
    json_put_string(writer, "text", text);
    TRY(put_snippet(writer, search, text, fault));
    json_put_double(writer, "score", hit->score);
    json_put_text(writer, "classification", clearance_name(row->classification));
    json_put_raw(writer, "metadata", row->metadata.length > 0 ? row->metadata : SPAN("{}"));
    field_put(writer, "heading", statement_span(chunks, 0));
    json_put_integer(writer, "hops", 0);
    json_close_object(writer);
    return OK;
}

/* A chunk that cannot be read is counted; the others can. */
static status put_hit(struct json_writer *writer, struct search *search, const struct hit *hit,
                      struct statement *documents, struct statement *chunks, struct fault *fault)
{
    struct document_row row;
    struct fault inner;
    statement_reset(chunks);
    statement_bind_int(chunks, 1, hit->n);
    status found = document_of(&row, documents, hit->n, &inner);
    if (found == OK)
        found = statement_step(chunks, &inner);
    if (found == OK) {
        search->call->count++;
        return put_chunk(writer, search, hit, &row, chunks, fault);
    }
    if (found != CORRUPT && found != NOT_FOUND)
        return FAIL(found, fault, "%s", inner.detail);
    search->damaged++;
    return OK;
}

static status put_hits(uint32_t *ret_next, struct json_writer *writer, struct search *search,
                       struct fault *fault)
{
    struct silo *silo = search->call->silo;
    _cleanup_statement_ struct statement *documents = NULL, *chunks = NULL;
    uint32_t at = 0;
    TRY(document_open(&documents, silo, fault));
    TRY(statement_open(&chunks, silo->store, "SELECT heading, text FROM chunks WHERE n = ?1",
                       fault));
    sort(search);
    for (; at < search->hit_count && at < search->limit; at++) {
        if (search->call->response->body->length >= KNOWLEDGE_PAGE_BYTES)
            break;
        TRY(put_hit(writer, search, &search->hits[at], documents, chunks, fault));
    }
    *ret_next = at;
    return OK;
}

static status put_answer(struct search *search, struct fault *fault)
{
    struct call *call = search->call;
    struct json_writer writer = json_writer_on(call->response->body);
    uint32_t next = 0;
    call->count = 0;
    json_open_object(&writer, NULL);
    json_open_array(&writer, "data");
    if (search->hit_count > 0)
        TRY(put_hits(&next, &writer, search, fault));
    json_close_array(&writer);
    if (next < search->hit_count)
        TRY(put_position(&writer, search, &search->hits[next - 1], fault));
    else
        json_put_null(&writer, "next_cursor");
    if (search->damaged > 0)
        json_put_integer(&writer, "damaged", search->damaged);
    json_close_object(&writer);
    call->response->http_status = 200;
    return buffer_check(call->response->body, "the answer", fault);
}

static status find(struct search *search, struct fault *fault)
{
    struct silo *silo = search->call->silo;
    TRY(store_words(silo->store, search->text, take_term, search, fault));
    TRY(get_position(search, fault));
    if (!silo->knowledge.exists || search->term_count == 0)
        return OK;
    TRY(knowledge_know_totals(silo, fault));
    TRY(store_rank(silo->store, fault));
    search->scratch = arena_of(FILTER_ARENA_MAX);
    status found = fulltext_search(&silo->knowledge.fulltext, silo,
                                   search->call->request->envelope->clearance, look, search,
                                   fault);
    arena_free(&search->scratch);
    return found;
}

status knowledge_search(struct call *call, struct fault *fault)
{
    struct json body;
    struct search *search = arena_alloc(call->request->arena, sizeof *search);
    if (search == NULL)
        return FAIL(TOO_LARGE, fault, "the search does not fit the memory of one request");
    search->call = call;
    TRY(call_body(&body, call, fault));
    TRY(read_search(search, &body, fault));
    TRY(find(search, fault));
    return put_answer(search, fault);
}
