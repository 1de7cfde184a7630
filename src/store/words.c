#include "store/words.h"

#include "base/clock.h"
#include "store/session.h"

#include <stdlib.h>
#include <string.h>

/* Of one connection, from its first use. */
struct words {
    fts5_api *api;
    fts5_tokenizer tokenizer;
    Fts5Tokenizer *made;
    bool ranks;
};

static status find_api(fts5_api **ret, struct store *store, struct fault *fault)
{
    sqlite3_stmt *ask = NULL;
    fts5_api *api = NULL;
    if (sqlite3_prepare_v2(store->db, "SELECT fts5(?1)", -1, &ask, NULL) == SQLITE_OK) {
        sqlite3_bind_pointer(ask, 1, &api, "fts5_api_ptr", NULL);
        sqlite3_step(ask);
    }
    sqlite3_finalize(ask);
    if (api == NULL || api->iVersion < 2)
        return FAIL(INTERNAL, fault, "SQLite has no FTS5");
    *ret = api;
    return OK;
}

static status make(struct words *words, struct store *store, struct fault *fault)
{
    const char *arguments[] = {"remove_diacritics", "2"};
    void *user = NULL;
    TRY(find_api(&words->api, store, fault));
    if (words->api->xFindTokenizer(words->api, "unicode61", &user, &words->tokenizer) !=
            SQLITE_OK ||
        words->tokenizer.xCreate(user, arguments, 2, &words->made) != SQLITE_OK)
        return FAIL(INTERNAL, fault, "FTS5 does not make its tokenizer");
    return OK;
}

static status need_words(struct words **ret, struct store *store, struct fault *fault)
{
    if (store->words == NULL) {
        struct words *words = sqlite3_malloc(sizeof *words);
        if (words == NULL)
            return FAIL(INTERNAL, fault, "out of memory for words");
        *words = (struct words){0};
        status made = make(words, store, fault);
        if (made != OK) {
            sqlite3_free(words);
            return made;
        }
        store->words = words;
    }
    *ret = store->words;
    return OK;
}

void words_drop(struct store *store)
{
    if (store->words == NULL)
        return;
    store->words->tokenizer.xDelete(store->words->made);
    sqlite3_free(store->words);
    store->words = NULL;
}

struct taking {
    words_taker *take;
    void *context;
    struct fault *fault;
    status result;
};

static int take_token(void *context, int flags, const char *token, int length, int from, int to)
{
    struct taking *taking = context;
    (void)flags;
    struct span word = {(const uint8_t *)token, (size_t)length};
    taking->result = taking->take(taking->context, word, (size_t)from, (size_t)to, taking->fault);
    return taking->result == OK ? SQLITE_OK : SQLITE_ABORT;
}

status store_words(struct store *store, struct span text, words_taker *take, void *context,
                   struct fault *fault)
{
    struct words *words;
    struct taking taking = {take, context, fault, OK};
    if (text.length == 0)
        return OK;
    TRY(need_words(&words, store, fault));
    int code = words->tokenizer.xTokenize(words->made, &taking, FTS5_TOKENIZE_AUX,
                                          (const char *)text.data, (int)text.length, take_token);
    if (taking.result != OK || code == SQLITE_OK)
        return taking.result;
    return store_failure(store, code, "words", fault);
}

/* ---- rank ---- */

static status frequencies(double terms[RANK_TERMS_MAX], const struct rank *rank,
                          const Fts5ExtensionApi *api, Fts5Context *index)
{
    int count = api->xPhraseCount(index);
    for (int phrase = 0; phrase < count && phrase < RANK_PHRASES_MAX; phrase++) {
        Fts5PhraseIter at;
        int column, offset;
        uint8_t term = rank->phrases[phrase];
        if (term >= RANK_TERMS_MAX)
            continue;
        if (api->xPhraseFirst(index, phrase, &at, &column, &offset) != SQLITE_OK)
            return CORRUPT;
        for (; column >= 0; api->xPhraseNext(index, &at, &column, &offset))
            if (column < RANK_COLUMNS_MAX)
                terms[term] += rank->columns[column];
    }
    return OK;
}

static double weigh(const double terms[RANK_TERMS_MAX], const struct rank *rank, int64_t n)
{
    double saturation = rank_saturation(rank->mean_length, n), score = 0;
    for (int term = 0; term < RANK_TERMS_MAX; term++)
        if (terms[term] > 0)
            score += rank_term(rank->terms[term], terms[term], saturation);
    return score;
}

static void rank_row(const Fts5ExtensionApi *api, Fts5Context *index, sqlite3_context *result,
                     int count, sqlite3_value **values)
{
    struct rank rank;
    double terms[RANK_TERMS_MAX] = {0};
    if (count != 1 || sqlite3_value_type(values[0]) != SQLITE_BLOB ||
        sqlite3_value_bytes(values[0]) != sizeof rank) {
        sqlite3_result_error(result, "silo_rank: one struct rank", -1);
        return;
    }
    memcpy(&rank, sqlite3_value_blob(values[0]), sizeof rank);
    if (frequencies(terms, &rank, api, index) != OK)
        sqlite3_result_error_code(result, SQLITE_CORRUPT);
    else
        sqlite3_result_double(result, weigh(terms, &rank, api->xRowid(index)));
}

/* ---- gather ---- */

static const char gather_type[] = "struct gather";

enum { ROWS_FIRST = 256, ROWS_BETWEEN_LOOKS = 1024 };

/* One phrase as it is walked. */
struct walk {
    struct gather *gather;
    struct gathered *found;
};

void statement_bind_gather(struct statement *statement, int parameter, struct gather *gather)
{
    gather->store = statement->store;
    int code = sqlite3_bind_pointer(statement->handle, parameter, gather, gather_type, NULL);
    if (statement->bind_error == SQLITE_OK)
        statement->bind_error = code;
}

static int make_room(struct walk *walk)
{
    struct gathered *found = walk->found;
    if (found->count == walk->gather->rows_max) {
        walk->gather->overflowed = true;
        return SQLITE_DONE;
    }
    if (found->count < found->room)
        return SQLITE_OK;
    uint32_t room = found->room == 0 ? ROWS_FIRST : 2 * found->room;
    uint64_t *rows = realloc(found->rows, room * sizeof *rows);
    if (rows == NULL)
        return SQLITE_NOMEM;
    found->rows = rows;
    found->room = room;
    return SQLITE_OK;
}

static int gather_row(const Fts5ExtensionApi *api, Fts5Context *index, void *context)
{
    struct walk *walk = context;
    struct gather *gather = walk->gather;
    Fts5PhraseIter at;
    int column, offset;
    uint64_t n = (uint64_t)api->xRowid(index), count = 0;
    int64_t until_us = gather->store->until_us;
    if (walk->found->count % ROWS_BETWEEN_LOOKS == 0 && until_us != 0 &&
        clock_monotonic_us() >= until_us)
        return SQLITE_INTERRUPT;
    int code = make_room(walk);
    if (code != SQLITE_OK)
        return code;
    code = api->xPhraseFirst(index, 0, &at, &column, &offset);
    if (code != SQLITE_OK)
        return code;
    for (; column >= 0; api->xPhraseNext(index, &at, &column, &offset))
        if (column < RANK_COLUMNS_MAX)
            count += gather->columns[column];
    if (count > GATHERED_COUNT_MAX || n >> (64 - GATHERED_COUNT_BITS) != 0) {
        gather->overflowed = true;
        return SQLITE_DONE;
    }
    walk->found->rows[walk->found->count++] = n << GATHERED_COUNT_BITS | count;
    return SQLITE_OK;
}

static void gather_rows(const Fts5ExtensionApi *api, Fts5Context *index, sqlite3_context *result,
                        int count, sqlite3_value **values)
{
    struct gather *gather = count == 1 ? sqlite3_value_pointer(values[0], gather_type) : NULL;
    int phrases = api->xPhraseCount(index), code = SQLITE_OK;
    if (gather == NULL || phrases > RANK_TERMS_MAX) {
        sqlite3_result_error(result, "silo_gather: one struct gather", -1);
        return;
    }
    for (int i = 0; i < phrases && code == SQLITE_OK && !gather->overflowed; i++) {
        struct walk walk = {gather, &gather->phrases[i]};
        code = api->xQueryPhrase(index, i, &walk, gather_row);
        gather->rows_max -= walk.found->count;
    }
    if (code != SQLITE_OK)
        sqlite3_result_error_code(result, code);
}

status store_rank(struct store *store, struct fault *fault)
{
    struct words *words;
    TRY(need_words(&words, store, fault));
    if (words->ranks)
        return OK;
    if (words->api->xCreateFunction(words->api, "silo_rank", NULL, rank_row, NULL) != SQLITE_OK ||
        words->api->xCreateFunction(words->api, "silo_gather", NULL, gather_rows, NULL) !=
            SQLITE_OK)
        return FAIL(INTERNAL, fault, "FTS5 does not take the rank");
    words->ranks = true;
    return OK;
}
