#include "silo/knowledge.h"

#include "store/words.h"

#define REWRITE_PAUSE_US ((int64_t)60 * 1000000)
#define DAMAGED_PAUSE_US ((int64_t)3600 * 1000000)

enum { REBUILD_STEP = 1000 };

/* Nothing but words: texts are in the chunks, lengths in the numbers. A batch makes a segment a
 * turn; merging ten of them instead of four writes every word a third less often. */
static const char make[] =
    "CREATE VIRTUAL TABLE @ USING fts5(title, heading, text, content='', columnsize=0,"
    " tokenize='" WORDS_TOKENIZER "');"
    "INSERT INTO @(@, rank) VALUES ('automerge', 10);";

static int64_t number_of(enum clearance classification, int64_t n)
{
    return (int64_t)classification << CLASSIFICATION_SHIFT | n;
}

static int64_t within(int64_t n)
{
    return n & ((INT64_C(1) << CLASSIFICATION_SHIFT) - 1);
}

/* In the index a number is without its classification. */
static status next_number(int64_t *ret, struct silo *silo, enum clearance classification,
                          int64_t after, struct fault *fault)
{
    _cleanup_statement_ struct statement *next = NULL;
    TRY(statement_open(&next, silo->store, "SELECT n FROM chunks WHERE n > ?1 AND n <= ?2 "
                       "ORDER BY n LIMIT 1", fault));
    statement_bind_int(next, 1, number_of(classification, after));
    statement_bind_int(next, 2, number_of(classification + 1, 0) - 1);
    TRY(fulltext_step(ret, next, after, fault));
    *ret = within(*ret);
    return OK;
}

static status last_number(int64_t *ret, struct silo *silo, enum clearance classification,
                          struct fault *fault)
{
    TRY(knowledge_know_totals(silo, fault));
    *ret = within(chunk_number(classification, silo->knowledge.totals[classification].next, 0)) -
           1;
    return OK;
}

static status open_rows(struct statement **ret, struct silo *silo, struct fault *fault)
{
    return statement_open(ret, silo->store,
                          "SELECT (SELECT title FROM documents d WHERE d.n <= c.n "
                          "ORDER BY d.n DESC LIMIT 1), c.heading, c.text "
                          "FROM chunks c WHERE c.n = ?1", fault);
}

static status read_row(struct fulltext_row *ret, struct statement *rows,
                       enum clearance classification, int64_t n, struct fault *fault)
{
    statement_reset(rows);
    statement_bind_int(rows, 1, number_of(classification, n));
    TRY(statement_step(rows, fault));
    ret->classification = classification;
    for (int i = 0; i < 3; i++)
        ret->columns[i] = statement_span(rows, i);
    return OK;
}

const struct fulltext_kind knowledge_fulltext = {
    .name = "knowledge_index",
    .make = make,
    .add = "INSERT INTO @ (rowid, title, heading, text) VALUES (?1, ?2, ?3, ?4)",
    .remove = "INSERT INTO @ (@, rowid, title, heading, text) VALUES ('delete', ?1, ?2, ?3, ?4)",
    .search = "SELECT rowid, silo_rank(@, ?2) FROM @ WHERE @ MATCH ?1",
    .count = "SELECT count(*) FROM @ WHERE @ MATCH ?1",
    .gather = "SELECT silo_gather(@, ?2) FROM @ WHERE @ MATCH ?1 LIMIT 1",
    .columns = 3,
    .read_states = "SELECT classification, generation, built_to, stale FROM knowledge_indexes",
    .put_state = "INSERT OR REPLACE INTO knowledge_indexes (classification, generation, "
                 "built_to, stale) VALUES (?1, ?2, ?3, ?4)",
    .next = next_number,
    .last = last_number,
    .open = open_rows,
    .read = read_row,
};

status knowledge_tend(bool *ret_more, struct silo *silo, bool parking, struct fault *fault)
{
    struct fulltext *fulltext = &silo->knowledge.fulltext;
    *ret_more = false;
    TRY(knowledge_know(silo, fault));
    if (!silo->knowledge.exists)
        return OK;
    TRY(fulltext_know(fulltext, silo, fault));
    bool rebuilding = fulltext_is_rebuilding(fulltext);
    bool due = parking || silo->knowledge.rewritten_us + REWRITE_PAUSE_US <= silo->now_us;
    if (!rebuilding && !(due && fulltext_is_stale(fulltext)))
        return OK;
    TRY(silo_write(silo, fault));
    silo->wrote = true;
    if (rebuilding)
        return fulltext_rebuild(ret_more, fulltext, silo, REBUILD_STEP, fault);
    TRY(fulltext_rewrite(ret_more, fulltext, silo, fault));
    if (!*ret_more)
        silo->knowledge.rewritten_us = silo->now_us;
    return OK;
}

int64_t knowledge_due_us(struct silo *silo)
{
    struct fault fault;
    struct fulltext *fulltext = &silo->knowledge.fulltext;
    if (knowledge_know(silo, &fault) != OK || !silo->knowledge.exists)
        return 0;
    if (fulltext_know(fulltext, silo, &fault) != OK)
        return silo->now_us + DAMAGED_PAUSE_US;
    if (fulltext_is_rebuilding(fulltext))
        return 1;
    return fulltext_is_stale(fulltext) ? silo->knowledge.rewritten_us + REWRITE_PAUSE_US : 0;
}
