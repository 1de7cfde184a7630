#include "silo/memory.h"

/* Rank weighs the text alone: the user's word only narrows a search. */
static const char make[] =
    "CREATE VIEW IF NOT EXISTS memory_indexed_# AS"
    " SELECT n, 'u' || user AS who, text FROM memories WHERE classification = #;"
    "CREATE VIRTUAL TABLE @ USING fts5(who, text,"
    " content='memory_indexed_#', content_rowid='n',"
    " tokenize='unicode61 remove_diacritics 2');"
    "INSERT INTO @(@, rank) VALUES ('rank', 'bm25(0.0, 1.0)');";

/* The next row, of whatever classification. */
static status next_number(int64_t *ret, struct silo *silo, enum clearance classification,
                          int64_t after, struct fault *fault)
{
    (void)classification;
    _cleanup_statement_ struct statement *next = NULL;
    TRY(statement_open(&next, silo->store, "SELECT n FROM memories WHERE n > ?1 ORDER BY n "
                       "LIMIT 1", fault));
    statement_bind_int(next, 1, after);
    return fulltext_step(ret, next, after, fault);
}

static status last_number(int64_t *ret, struct silo *silo, enum clearance classification,
                          struct fault *fault)
{
    (void)classification;
    _cleanup_statement_ struct statement *last = NULL;
    TRY(statement_open(&last, silo->store,
                       "SELECT max(n + 0) FROM memories INDEXED BY memories_by_user", fault));
    TRY(statement_step(last, fault));
    *ret = statement_int(last, 0);
    return OK;
}

static status read_row(struct fulltext_row *ret, struct statement *rows,
                       enum clearance classification, int64_t n, struct fault *fault)
{
    struct memory_row row;
    (void)classification;
    TRY(memory_row_get(&row, rows, n, fault));
    struct buffer who = buffer_over(ret->scratch, sizeof ret->scratch);
    buffer_printf(&who, "u%lld", (long long)row.user);
    TRY(buffer_check(&who, "user", fault));
    ret->classification = row.classification;
    ret->columns[0] = buffer_span(&who);
    ret->columns[1] = row.text;
    return OK;
}

const struct fulltext_kind memory_fulltext = {
    .name = "memory_index",
    .make = make,
    .add = "INSERT INTO @ (rowid, who, text) VALUES (?1, ?2, ?3)",
    .remove = "INSERT INTO @ (@, rowid, who, text) VALUES ('delete', ?1, ?2, ?3)",
    .search = "SELECT rowid, rank FROM @ WHERE @ MATCH ?1 ORDER BY rank",
    .columns = 2,
    .read_states = "SELECT classification, generation, built_to, stale FROM memory_indexes",
    .put_state = "INSERT OR REPLACE INTO memory_indexes (classification, generation, "
                 "built_to, stale) VALUES (?1, ?2, ?3, ?4)",
    .next = next_number,
    .last = last_number,
    .open = memory_row_open,
    .read = read_row,
};
