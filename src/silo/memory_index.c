#include "silo/memory.h"

#include <stdint.h>

enum {
    WHO_TEXT_MAX = 24,        /* "u" and a number */
    REWRITE_STEP_PAGES = 64,  /* of one step of a merge */
    TABLE_NAME_SQL_MAX = 160,
};

/* Rank weighs the text alone: the user's word only narrows a search. A leaf of the index and its head
 * fit one page of the store. */
#define INDEX_SQL(k)                                                                           \
    "CREATE VIEW IF NOT EXISTS memory_indexed_" k " AS"                                        \
    " SELECT n, 'u' || user AS who, text FROM memories WHERE classification = " k ";"          \
    "CREATE VIRTUAL TABLE memory_index_" k " USING fts5(who, text,"                            \
    " content='memory_indexed_" k "', content_rowid='n',"                                      \
    " tokenize='unicode61 remove_diacritics 2');"                                              \
    "INSERT INTO memory_index_" k "(memory_index_" k ", rank) VALUES ('pgsz', 3900);"          \
    "INSERT INTO memory_index_" k "(memory_index_" k ", rank)"                                 \
    " VALUES ('rank', 'bm25(0.0, 1.0)');"

static const char *const index_sql[CLEARANCE_COUNT] = {
    INDEX_SQL("0"), INDEX_SQL("1"), INDEX_SQL("2"), INDEX_SQL("3"),
};

#define ADD_SQL(k) "INSERT INTO memory_index_" k " (rowid, who, text) VALUES (?1, ?2, ?3)"
#define REMOVE_SQL(k)                                                                  \
    "INSERT INTO memory_index_" k " (memory_index_" k ", rowid, who, text)"            \
    " VALUES ('delete', ?1, ?2, ?3)"
#define MERGE_SQL(k)                                                                   \
    "INSERT INTO memory_index_" k " (memory_index_" k ", rank) VALUES ('merge', ?1)"

static const struct index_statements {
    const char *add, *remove, *merge;
} statements[CLEARANCE_COUNT] = {
    {ADD_SQL("0"), REMOVE_SQL("0"), MERGE_SQL("0")},
    {ADD_SQL("1"), REMOVE_SQL("1"), MERGE_SQL("1")},
    {ADD_SQL("2"), REMOVE_SQL("2"), MERGE_SQL("2")},
    {ADD_SQL("3"), REMOVE_SQL("3"), MERGE_SQL("3")},
};

bool memory_index_is_complete(const struct silo *silo, enum clearance classification)
{
    return silo->memory.indexes[classification].built_to == INT64_MAX;
}

static status save(struct silo *silo, enum clearance classification,
                   const struct memory_index *index, struct fault *fault)
{
    _cleanup_statement_ struct statement *put = NULL;
    TRY(statement_open(&put, silo->store,
                       "INSERT OR REPLACE INTO memory_indexes (classification, built_to, stale) "
                       "VALUES (?1, ?2, ?3)", fault));
    statement_bind_int(put, 1, classification);
    statement_bind_int(put, 2, index->built_to);
    statement_bind_int(put, 3, index->stale);
    TRY(statement_run(put, fault));
    silo->memory.indexes[classification] = *index;
    silo->memory.due_known = false;
    return OK;
}

static status need_index(struct silo *silo, enum clearance classification, struct fault *fault)
{
    if (silo->memory.indexes[classification].exists)
        return OK;
    TRY(store_execute(silo->store, index_sql[classification], fault));
    struct memory_index index = {.exists = true, .built_to = INT64_MAX};
    return save(silo, classification, &index, fault);
}

static status change(struct silo *silo, const char *sql, const struct memory_row *row,
                     struct fault *fault)
{
    uint8_t storage[WHO_TEXT_MAX];
    struct buffer who = buffer_over(storage, sizeof storage);
    buffer_printf(&who, "u%lld", (long long)row->user);
    TRY(buffer_check(&who, "user", fault));
    _cleanup_statement_ struct statement *put = NULL;
    TRY(statement_open(&put, silo->store, sql, fault));
    statement_bind_int(put, 1, row->n);
    statement_bind_text(put, 2, buffer_span(&who));
    statement_bind_text(put, 3, row->text);
    return statement_run(put, fault);
}

/* A write that meets a damaged page of the index begins the index anew; the row is then found by the
 * rebuilding. */
static status change_or_renew(struct silo *silo, const char *sql, const struct memory_row *row,
                              struct fault *fault)
{
    TRY(store_savepoint(silo->store, fault));
    status changed = change(silo, sql, row, fault);
    if (changed == OK)
        return store_release(silo->store, fault);
    TRY(store_undo(silo->store, fault));
    if (changed != CORRUPT)
        return changed;
    return memory_index_renew(silo, row->classification, fault);
}

status memory_index_add(struct silo *silo, const struct memory_row *row, struct fault *fault)
{
    TRY(need_index(silo, row->classification, fault));
    if (row->n > silo->memory.indexes[row->classification].built_to)
        return OK;
    return change_or_renew(silo, statements[row->classification].add, row, fault);
}

status memory_index_remove(struct silo *silo, const struct memory_row *row, struct fault *fault)
{
    struct memory_index index = silo->memory.indexes[row->classification];
    if (!index.exists || row->n > index.built_to)
        return OK;
    TRY(change_or_renew(silo, statements[row->classification].remove, row, fault));
    index = silo->memory.indexes[row->classification];
    if (index.stale)
        return OK;
    index.stale = true;
    return save(silo, row->classification, &index, fault);
}

/* Dropping would read every page of it, the damaged one too; so it is only moved out of the way. */
status memory_index_renew(struct silo *silo, enum clearance classification, struct fault *fault)
{
    uint8_t random[8];
    uint64_t number = 0;
    crypt_random(random, sizeof random);
    for (size_t i = 0; i < sizeof random; i++)
        number = number << 8 | random[i];
    uint8_t storage[TABLE_NAME_SQL_MAX];
    struct buffer rename = buffer_over(storage, sizeof storage);
    buffer_printf(&rename, "ALTER TABLE memory_index_%d RENAME TO memory_damaged_%llx",
                  (int)classification, (unsigned long long)number);
    buffer_put_u8(&rename, 0);
    TRY(buffer_check(&rename, "name", fault));
    TRY(store_execute(silo->store, (const char *)storage, fault));
    TRY(store_execute(silo->store, index_sql[classification], fault));
    struct memory_index index = {.exists = true, .built_to = 0};
    return save(silo, classification, &index, fault);
}

/* The next row from n on, by asking for each number where a damaged page hides which rows there are.
 * NOT_FOUND: none is left. */
static status next_number(int64_t *ret, struct silo *silo, int64_t after, struct fault *fault)
{
    _cleanup_statement_ struct statement *next = NULL;
    TRY(statement_open(&next, silo->store, "SELECT n FROM memories WHERE n > ?1 ORDER BY n "
                       "LIMIT 1", fault));
    statement_bind_int(next, 1, after);
    status stepped = statement_step(next, fault);
    if (stepped == CORRUPT) {
        *ret = after + 1;
        return OK;
    }
    TRY(stepped);
    *ret = statement_int(next, 0);
    return OK;
}

static status last_number(int64_t *ret, struct silo *silo, struct fault *fault)
{
    _cleanup_statement_ struct statement *last = NULL;
    TRY(statement_open(&last, silo->store,
                       "SELECT max(n + 0) FROM memories INDEXED BY memories_by_user", fault));
    TRY(statement_step(last, fault));
    *ret = statement_int(last, 0);
    return OK;
}

static status rebuild_row(struct silo *silo, enum clearance classification,
                          struct statement *rows, int64_t n, struct fault *fault)
{
    struct memory_row row;
    struct fault inner;
    status found = memory_row_get(&row, rows, n, &inner);
    if (found == NOT_FOUND || found == CORRUPT)
        return OK; /* a damaged item cannot be found; the others can */
    if (found != OK)
        return FAIL(found, fault, "%s", inner.detail);
    if (row.classification != classification)
        return OK;
    return change(silo, statements[classification].add, &row, fault);
}

static status rebuild(bool *ret_more, struct silo *silo, enum clearance classification,
                      uint32_t budget, struct fault *fault)
{
    struct memory_index index = silo->memory.indexes[classification];
    int64_t last;
    TRY(last_number(&last, silo, fault));
    _cleanup_statement_ struct statement *rows = NULL;
    TRY(memory_row_open(&rows, silo, fault));
    for (; budget > 0 && index.built_to < last; budget--) {
        int64_t n;
        status next = next_number(&n, silo, index.built_to, fault);
        if (next == NOT_FOUND)
            break;
        TRY(next);
        TRY(rebuild_row(silo, classification, rows, n, fault));
        index.built_to = n;
    }
    *ret_more = budget == 0 && index.built_to < last;
    if (!*ret_more)
        index.built_to = INT64_MAX;
    return save(silo, classification, &index, fault);
}

status memory_index_rebuild(bool *ret_more, struct silo *silo, uint32_t budget,
                            struct fault *fault)
{
    *ret_more = false;
    for (uint32_t k = 0; k < CLEARANCE_COUNT && !*ret_more; k++) {
        const struct memory_index *index = &silo->memory.indexes[k];
        if (index->exists && index->built_to != INT64_MAX)
            TRY(rebuild(ret_more, silo, (enum clearance)k, budget, fault));
    }
    return OK;
}

static status total_changes(int64_t *ret, struct silo *silo, struct fault *fault)
{
    _cleanup_statement_ struct statement *total = NULL;
    TRY(statement_open(&total, silo->store, "SELECT total_changes()", fault));
    TRY(statement_step(total, fault));
    *ret = statement_int(total, 0);
    return OK;
}

/* FTS5's 'merge' with a negative number takes all segments together, one step at a time; a step that
 * changed fewer than two rows found nothing left to do. */
static status rewrite(bool *ret_more, struct silo *silo, enum clearance classification,
                      struct fault *fault)
{
    int64_t before, after;
    TRY(total_changes(&before, silo, fault));
    _cleanup_statement_ struct statement *merge = NULL;
    TRY(statement_open(&merge, silo->store, statements[classification].merge, fault));
    statement_bind_int(merge, 1, -REWRITE_STEP_PAGES);
    TRY(statement_run(merge, fault));
    TRY(total_changes(&after, silo, fault));
    *ret_more = after - before >= 2;
    if (*ret_more)
        return OK;
    struct memory_index index = silo->memory.indexes[classification];
    index.stale = false;
    return save(silo, classification, &index, fault);
}

status memory_index_rewrite(bool *ret_more, struct silo *silo, struct fault *fault)
{
    *ret_more = false;
    for (uint32_t k = 0; k < CLEARANCE_COUNT && !*ret_more; k++) {
        const struct memory_index *index = &silo->memory.indexes[k];
        if (index->exists && index->stale)
            TRY(rewrite(ret_more, silo, (enum clearance)k, fault));
    }
    return OK;
}
