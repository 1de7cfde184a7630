#include "base/secret.h"
#include "silo/memory.h"

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>

enum {
    WHO_TEXT_MAX = 24,       /* "u" and a number */
    REWRITE_STEP_PAGES = 64, /* of one step of a merge */
    NAME_MAX_BYTES = 48,     /* "memory_index_", two numbers */
    SQL_MAX = 256,
    MAKE_SQL_MAX = 1024,
    WAITING_MAX = CELL_TURN_REQUESTS_MAX,
    ADDITIONS_BYTES_MAX = MIB(24), /* more than all requests of a turn can bring */
};

/* The SQL of one index. A damaged index cannot even be dropped, so the next generation gets a table
 * of its own; and since the store knows statements by the address of their text, texts stay as long
 * as the silo is open. */
struct memory_index_sql {
    struct memory_index_sql *next;
    int classification;
    int64_t generation;
    char add[SQL_MAX], remove[SQL_MAX], merge[SQL_MAX], search[SQL_MAX];
};

bool memory_index_is_complete(const struct silo *silo, enum clearance classification)
{
    return silo->memory.indexes[classification].built_to == INT64_MAX;
}

static void write_sql(struct memory_index_sql *sql)
{
    char name[NAME_MAX_BYTES];
    snprintf(name, sizeof name, "memory_index_%d_%lld", sql->classification,
             (long long)sql->generation);
    snprintf(sql->add, SQL_MAX, "INSERT INTO %s (rowid, who, text) VALUES (?1, ?2, ?3)", name);
    snprintf(sql->remove, SQL_MAX, "INSERT INTO %s (%s, rowid, who, text) "
             "VALUES ('delete', ?1, ?2, ?3)", name, name);
    snprintf(sql->merge, SQL_MAX, "INSERT INTO %s (%s, rank) VALUES ('merge', ?1)", name, name);
    snprintf(sql->search, SQL_MAX, "SELECT rowid, rank FROM %s WHERE %s MATCH ?1 ORDER BY rank",
             name, name);
}

/* Of the present generation. */
static status sql_of(const struct memory_index_sql **ret, struct silo *silo,
                     enum clearance classification, struct fault *fault)
{
    int64_t generation = silo->memory.indexes[classification].generation;
    struct memory_index_sql *sql = silo->memory.sql;
    for (; sql != NULL; sql = sql->next) {
        if (sql->classification == (int)classification && sql->generation == generation) {
            *ret = sql;
            return OK;
        }
    }
    sql = calloc(1, sizeof *sql);
    if (sql == NULL)
        return FAIL(INTERNAL, fault, "out of memory");
    sql->classification = (int)classification;
    sql->generation = generation;
    write_sql(sql);
    sql->next = silo->memory.sql;
    silo->memory.sql = sql;
    *ret = sql;
    return OK;
}

void memory_index_trim(struct silo *silo)
{
    struct memory_additions *additions = &silo->memory.additions;
    assert(additions->waiting == 0);
    if (additions->bytes.data != NULL)
        secret_wipe(additions->bytes.data, additions->bytes.capacity); /* texts of items */
    buffer_free(&additions->bytes);
    *additions = (struct memory_additions){0};
}

void memory_index_free(struct silo *silo)
{
    silo->memory.additions.waiting = 0;
    memory_index_trim(silo);
    while (silo->memory.sql != NULL) {
        struct memory_index_sql *sql = silo->memory.sql;
        silo->memory.sql = sql->next;
        free(sql);
    }
}

status memory_index_search(struct statement **ret, struct silo *silo,
                           enum clearance classification, struct fault *fault)
{
    const struct memory_index_sql *sql;
    TRY(sql_of(&sql, silo, classification, fault));
    return statement_open(ret, silo->store, sql->search, fault);
}

static status save(struct silo *silo, enum clearance classification,
                   const struct memory_index *index, struct fault *fault)
{
    _cleanup_statement_ struct statement *put = NULL;
    TRY(statement_open(&put, silo->store,
                       "INSERT OR REPLACE INTO memory_indexes (classification, generation, "
                       "built_to, stale) VALUES (?1, ?2, ?3, ?4)", fault));
    statement_bind_int(put, 1, classification);
    statement_bind_int(put, 2, index->generation);
    statement_bind_int(put, 3, index->built_to);
    statement_bind_int(put, 4, index->stale);
    TRY(statement_run(put, fault));
    silo->memory.indexes[classification] = *index;
    silo->memory.due_known = false;
    return OK;
}

/* Rank weighs the text alone: the user's word only narrows a search. A leaf of the index and its
 * head fit one page of the store. */
static status make_table(struct silo *silo, enum clearance classification, int64_t generation,
                         struct fault *fault)
{
    char sql[MAKE_SQL_MAX];
    int k = (int)classification;
    long long g = generation;
    int length = snprintf(
        sql, sizeof sql,
        "CREATE VIEW IF NOT EXISTS memory_indexed_%d AS"
        " SELECT n, 'u' || user AS who, text FROM memories WHERE classification = %d;"
        "CREATE VIRTUAL TABLE memory_index_%d_%lld USING fts5(who, text,"
        " content='memory_indexed_%d', content_rowid='n',"
        " tokenize='unicode61 remove_diacritics 2');"
        "INSERT INTO memory_index_%d_%lld(memory_index_%d_%lld, rank) VALUES ('pgsz', 3900);"
        "INSERT INTO memory_index_%d_%lld(memory_index_%d_%lld, rank)"
        " VALUES ('rank', 'bm25(0.0, 1.0)');",
        k, k, k, g, k, k, g, k, g, k, g, k, g);
    if (length < 0 || (size_t)length >= sizeof sql)
        return FAIL(INTERNAL, fault, "SQL does not fit");
    return store_execute(silo->store, sql, fault);
}

static status need_index(struct silo *silo, enum clearance classification, struct fault *fault)
{
    if (silo->memory.indexes[classification].exists)
        return OK;
    struct memory_index index = {.exists = true, .generation = 1, .built_to = INT64_MAX};
    TRY(make_table(silo, classification, index.generation, fault));
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

/* FTS5 collects what it is told and writes it when a savepoint begins: one is begun here, so that
 * what goes wrong then goes wrong now. */
static status change_at_once(struct silo *silo, const char *sql, const struct memory_row *row,
                             struct fault *fault)
{
    TRY(change(silo, sql, row, fault));
    TRY(store_savepoint(silo->store, fault));
    return store_release(silo->store, fault);
}

/* A write that meets a damaged page of the index begins the index anew; the row is then found by
 * the rebuilding. */
static status change_or_renew(struct silo *silo, const char *sql, const struct memory_row *row,
                              struct fault *fault)
{
    struct fault undo_fault;
    TRY(store_savepoint(silo->store, fault));
    status changed = change_at_once(silo, sql, row, fault);
    if (changed == OK)
        return store_release(silo->store, fault);
    if (store_undo(silo->store, &undo_fault) != OK || changed != CORRUPT)
        return changed;
    return memory_index_renew(silo, row->classification, fault);
}

status memory_index_add(struct silo *silo, const struct memory_row *row, struct fault *fault)
{
    struct memory_additions *additions = &silo->memory.additions;
    TRY(memory_know_indexes(silo, fault));
    TRY(need_index(silo, row->classification, fault));
    if (additions->waiting == WAITING_MAX)
        TRY(memory_index_settle(silo, fault));
    if (additions->bytes.data == NULL)
        additions->bytes = buffer_of(ADDITIONS_BYTES_MAX);
    buffer_put_u64(&additions->bytes, (uint64_t)row->n);
    buffer_put_u8(&additions->bytes, (uint8_t)row->classification);
    buffer_put_u64(&additions->bytes, (uint64_t)row->user);
    buffer_put_field(&additions->bytes, row->text);
    additions->waiting++;
    return buffer_check(&additions->bytes, "index", fault);
}

struct memory_mark memory_index_mark(const struct silo *silo)
{
    const struct memory_additions *additions = &silo->memory.additions;
    return (struct memory_mark){additions->bytes.length, additions->settled, additions->waiting};
}

void memory_index_return(struct silo *silo, struct memory_mark mark)
{
    struct memory_additions *additions = &silo->memory.additions;
    assert(mark.settled <= mark.length && mark.length <= additions->bytes.length);
    if (additions->bytes.length > mark.length)
        secret_wipe(additions->bytes.data + mark.length, additions->bytes.length - mark.length);
    additions->bytes.length = mark.length;
    additions->bytes.failed = false;
    additions->settled = mark.settled;
    additions->waiting = mark.waiting;
}

static status next_addition(struct memory_row *ret, struct cursor *cursor, struct fault *fault)
{
    uint64_t n, user;
    uint8_t classification;
    TRY(cursor_u64(&n, cursor, fault));
    TRY(cursor_u8(&classification, cursor, fault));
    TRY(cursor_u64(&user, cursor, fault));
    TRY(cursor_field(&ret->text, cursor, MEMORY_TEXT_MAX, "text", fault));
    ret->n = (int64_t)n;
    ret->classification = (enum clearance)classification;
    ret->user = (int64_t)user;
    return OK;
}

/* Rows behind built_to are left to the rebuilding that goes on. */
static status add_waiting(struct silo *silo, enum clearance classification, struct cursor cursor,
                          struct fault *fault)
{
    const struct memory_index_sql *sql;
    TRY(sql_of(&sql, silo, classification, fault));
    while (cursor_left(&cursor) > 0) {
        struct memory_row row = {0};
        TRY(next_addition(&row, &cursor, fault));
        if (row.classification == classification
            && row.n <= silo->memory.indexes[classification].built_to)
            TRY(change(silo, sql->add, &row, fault));
    }
    TRY(store_savepoint(silo->store, fault));
    return store_release(silo->store, fault);
}

static status settle(struct silo *silo, enum clearance classification, struct cursor waiting,
                     struct fault *fault)
{
    struct fault undo_fault;
    TRY(store_savepoint(silo->store, fault));
    status added = add_waiting(silo, classification, waiting, fault);
    if (added == OK)
        return store_release(silo->store, fault);
    if (store_undo(silo->store, &undo_fault) != OK || added != CORRUPT)
        return added;
    return memory_index_renew(silo, classification, fault);
}

status memory_index_settle(struct silo *silo, struct fault *fault)
{
    struct memory_additions *additions = &silo->memory.additions;
    if (additions->waiting == 0)
        return OK;
    struct span bytes = buffer_span(&additions->bytes);
    struct cursor waiting = cursor_over((struct span){bytes.data + additions->settled,
                                                      bytes.length - additions->settled});
    TRY(memory_know_indexes(silo, fault));
    for (uint32_t k = 0; k < CLEARANCE_COUNT; k++)
        if (silo->memory.indexes[k].exists)
            TRY(settle(silo, (enum clearance)k, waiting, fault));
    additions->settled = bytes.length;
    additions->waiting = 0;
    return OK;
}

status memory_index_remove(struct silo *silo, const struct memory_row *row, struct fault *fault)
{
    const struct memory_index_sql *sql;
    TRY(memory_know_indexes(silo, fault));
    TRY(memory_index_settle(silo, fault));
    struct memory_index index = silo->memory.indexes[row->classification];
    if (!index.exists || row->n > index.built_to)
        return OK;
    TRY(sql_of(&sql, silo, row->classification, fault));
    TRY(change_or_renew(silo, sql->remove, row, fault));
    index = silo->memory.indexes[row->classification];
    if (index.stale)
        return OK;
    index.stale = true;
    return save(silo, row->classification, &index, fault);
}

/* Dropping the damaged one would read every page of it: it is left behind, and what it held goes
 * with the silo. */
status memory_index_renew(struct silo *silo, enum clearance classification, struct fault *fault)
{
    struct memory_index index = silo->memory.indexes[classification];
    index.generation++;
    index.built_to = 0;
    index.stale = false;
    TRY(make_table(silo, classification, index.generation, fault));
    return save(silo, classification, &index, fault);
}

/* The next row from n on, by asking for each number where a damaged page hides which rows there
 * are. NOT_FOUND: none is left. */
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
    const struct memory_index_sql *sql;
    struct memory_row row;
    struct fault inner;
    status found = memory_row_get(&row, rows, n, &inner);
    if (found == NOT_FOUND || found == CORRUPT)
        return OK; /* a damaged item cannot be found; the others can */
    if (found != OK)
        return FAIL(found, fault, "%s", inner.detail);
    if (row.classification != classification)
        return OK;
    TRY(sql_of(&sql, silo, classification, fault));
    return change(silo, sql->add, &row, fault);
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
    TRY(memory_index_settle(silo, fault));
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

/* FTS5's 'merge' with a negative number takes all segments together, one step at a time; a step
 * that changed fewer than two rows found nothing left to do. */
static status rewrite(bool *ret_more, struct silo *silo, enum clearance classification,
                      struct fault *fault)
{
    int64_t before, after;
    const struct memory_index_sql *sql;
    TRY(sql_of(&sql, silo, classification, fault));
    TRY(total_changes(&before, silo, fault));
    _cleanup_statement_ struct statement *merge = NULL;
    TRY(statement_open(&merge, silo->store, sql->merge, fault));
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
