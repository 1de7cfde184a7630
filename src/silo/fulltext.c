#include "silo/fulltext.h"

#include "base/clock.h"
#include "silo/postings.h"

#include <assert.h>
#include <stdlib.h>

enum {
    REWRITE_STEP_PAGES = 64, /* of one step of a merge */
    NAME_BYTES_MAX = 48,     /* name, two numbers */
    SQL_MAX = 320,
    MAKE_SQL_MAX = 1024,
    WAITING_MAX = 4096,
    ADDITION_BYTES = 9,
    ADDITIONS_BYTES_MAX = MIB(8),
    SEARCH_REBUILD_ROWS = 2000, /* that a search adds to a damaged index before it gives up */
    SEARCH_TIME_MAX_US = 2000 * 1000, /* the cell serves nobody else meanwhile */
};

/* A leaf of an index and its head fit one page of the store. */
static const char page_size[] = "INSERT INTO @(@, rank) VALUES ('pgsz', 3900);";
static const char merge[] = "INSERT INTO @ (@, rank) VALUES ('merge', ?1)";

/* The SQL of one index. A damaged index cannot even be dropped, so the next generation gets a table
 * of its own; and since the store knows statements by the address of their text, texts stay as long
 * as the silo is open. */
struct fulltext_sql {
    struct fulltext_sql *next;
    int classification;
    int64_t generation;
    char add[SQL_MAX], remove[SQL_MAX], merge[SQL_MAX], search[SQL_MAX], count[SQL_MAX],
        gather[SQL_MAX];
};

/* Appends the template with the names filled in. */
static void put_sql(struct buffer *out, const struct fulltext *fulltext, const char *template,
                    int classification, int64_t generation)
{
    for (; *template != '\0'; template++) {
        if (*template == '@')
            buffer_printf(out, "%s_%d_%lld", fulltext->kind->name, classification,
                          (long long)generation);
        else if (*template == '#')
            buffer_printf(out, "%d", classification);
        else
            buffer_put_u8(out, (uint8_t)*template);
    }
}

static void write_sql(char text[SQL_MAX], const struct fulltext *fulltext, const char *template,
                      const struct fulltext_sql *sql)
{
    struct buffer out = buffer_over((uint8_t *)text, SQL_MAX - 1);
    put_sql(&out, fulltext, template != NULL ? template : "", sql->classification,
            sql->generation);
    assert(!out.failed); /* templates are ours */
    text[out.length] = '\0';
}

/* Of the present generation. */
static status sql_of(const struct fulltext_sql **ret, struct fulltext *fulltext,
                     enum clearance classification, struct fault *fault)
{
    int64_t generation = fulltext->indexes[classification].generation;
    struct fulltext_sql *sql = fulltext->sql;
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
    write_sql(sql->add, fulltext, fulltext->kind->add, sql);
    write_sql(sql->remove, fulltext, fulltext->kind->remove, sql);
    write_sql(sql->merge, fulltext, merge, sql);
    write_sql(sql->search, fulltext, fulltext->kind->search, sql);
    write_sql(sql->count, fulltext, fulltext->kind->count, sql);
    write_sql(sql->gather, fulltext, fulltext->kind->gather, sql);
    sql->next = fulltext->sql;
    fulltext->sql = sql;
    *ret = sql;
    return OK;
}

void fulltext_trim(struct fulltext *fulltext)
{
    struct fulltext_additions *additions = &fulltext->additions;
    assert(additions->waiting == 0);
    postings_drop(&fulltext->postings);
    buffer_free(&additions->numbers);
    *additions = (struct fulltext_additions){0};
}

void fulltext_free(struct fulltext *fulltext)
{
    fulltext->additions.waiting = 0;
    fulltext_trim(fulltext);
    while (fulltext->sql != NULL) {
        struct fulltext_sql *sql = fulltext->sql;
        fulltext->sql = sql->next;
        free(sql);
    }
}

status fulltext_step(int64_t *ret, struct statement *next, int64_t after, struct fault *fault)
{
    status stepped = statement_step(next, fault);
    if (stepped == CORRUPT) {
        *ret = after + 1;
        return OK;
    }
    TRY(stepped);
    *ret = statement_int(next, 0);
    return OK;
}

static status read_states(struct fulltext_index indexes[CLEARANCE_COUNT],
                          const struct fulltext *fulltext, struct silo *silo,
                          struct fault *fault)
{
    _cleanup_statement_ struct statement *rows = NULL;
    TRY(statement_open(&rows, silo->store, fulltext->kind->read_states, fault));
    for (;;) {
        status stepped = statement_step(rows, fault);
        if (stepped == NOT_FOUND)
            return OK;
        TRY(stepped);
        int64_t classification = statement_int(rows, 0);
        if (classification < 0 || classification >= CLEARANCE_COUNT)
            return FAIL(CORRUPT, fault, "an index of no classification");
        indexes[classification] = (struct fulltext_index){
            .exists = true,
            .generation = statement_int(rows, 1),
            .built_to = statement_int(rows, 2),
            .stale = statement_int(rows, 3) != 0,
        };
    }
}

status fulltext_know(struct fulltext *fulltext, struct silo *silo, struct fault *fault)
{
    struct fulltext_index indexes[CLEARANCE_COUNT] = {0};
    if (fulltext->known)
        return OK;
    TRY(read_states(indexes, fulltext, silo, fault));
    for (uint32_t k = 0; k < CLEARANCE_COUNT; k++)
        fulltext->indexes[k] = indexes[k];
    fulltext->known = true;
    return OK;
}

void fulltext_forget(struct fulltext *fulltext)
{
    postings_drop(&fulltext->postings);
    fulltext->known = false;
}

static status save(struct fulltext *fulltext, struct silo *silo, enum clearance classification,
                   const struct fulltext_index *index, struct fault *fault)
{
    _cleanup_statement_ struct statement *put = NULL;
    TRY(statement_open(&put, silo->store, fulltext->kind->put_state, fault));
    statement_bind_int(put, 1, classification);
    statement_bind_int(put, 2, index->generation);
    statement_bind_int(put, 3, index->built_to);
    statement_bind_int(put, 4, index->stale);
    TRY(statement_run(put, fault));
    fulltext->indexes[classification] = *index;
    return OK;
}

static status make_table(struct fulltext *fulltext, struct silo *silo,
                         enum clearance classification, int64_t generation, struct fault *fault)
{
    char sql[MAKE_SQL_MAX];
    struct buffer out = buffer_over((uint8_t *)sql, sizeof sql - 1);
    put_sql(&out, fulltext, fulltext->kind->make, (int)classification, generation);
    put_sql(&out, fulltext, page_size, (int)classification, generation);
    TRY(buffer_check(&out, "SQL", fault));
    sql[out.length] = '\0';
    return store_execute(silo->store, sql, fault);
}

static status need_index(struct fulltext *fulltext, struct silo *silo,
                         enum clearance classification, struct fault *fault)
{
    if (fulltext->indexes[classification].exists)
        return OK;
    struct fulltext_index index = {.exists = true, .generation = 1, .built_to = INT64_MAX};
    TRY(make_table(fulltext, silo, classification, index.generation, fault));
    return save(fulltext, silo, classification, &index, fault);
}

/* Dropping the damaged one would read every page of it: it is left behind, and what it held goes
 * with the silo. */
static status renew(struct fulltext *fulltext, struct silo *silo, enum clearance classification,
                    struct fault *fault)
{
    struct fulltext_index index = fulltext->indexes[classification];
    postings_drop(&fulltext->postings);
    index.generation++;
    index.built_to = 0;
    index.stale = false;
    TRY(make_table(fulltext, silo, classification, index.generation, fault));
    return save(fulltext, silo, classification, &index, fault);
}

static status change(struct fulltext *fulltext, struct statement *put, int64_t n,
                     const struct fulltext_row *row, struct fault *fault)
{
    postings_drop(&fulltext->postings);
    statement_reset(put);
    statement_bind_int(put, 1, n);
    for (uint32_t i = 0; i < fulltext->kind->columns; i++)
        statement_bind_text(put, 2 + (int)i, row->columns[i]);
    return statement_run(put, fault);
}

/* FTS5 collects what it is told and writes it when a savepoint begins: one is begun here, so that
 * what goes wrong then goes wrong now. */
static status write_collected(struct silo *silo, struct fault *fault)
{
    TRY(store_savepoint(silo->store, fault));
    return store_release(silo->store, fault);
}

/* ---- adding ---- */

status fulltext_add(struct fulltext *fulltext, struct silo *silo, enum clearance classification,
                    int64_t n, struct fault *fault)
{
    struct fulltext_additions *additions = &fulltext->additions;
    TRY(fulltext_know(fulltext, silo, fault));
    TRY(need_index(fulltext, silo, classification, fault));
    if (additions->waiting == WAITING_MAX)
        TRY(fulltext_settle(fulltext, silo, fault));
    if (additions->numbers.max == 0)
        additions->numbers = buffer_of(ADDITIONS_BYTES_MAX);
    buffer_put_u8(&additions->numbers, (uint8_t)classification);
    buffer_put_u64(&additions->numbers, (uint64_t)n);
    additions->waiting++;
    return buffer_check(&additions->numbers, "index", fault);
}

struct fulltext_mark fulltext_mark(const struct fulltext *fulltext)
{
    const struct fulltext_additions *additions = &fulltext->additions;
    return (struct fulltext_mark){additions->numbers.length, additions->settled,
                                  additions->waiting};
}

void fulltext_return(struct fulltext *fulltext, struct fulltext_mark mark)
{
    struct fulltext_additions *additions = &fulltext->additions;
    assert(mark.settled <= mark.length && mark.length <= additions->numbers.length);
    if (mark.settled < additions->settled) /* taken back, perhaps */
        postings_drop(&fulltext->postings);
    additions->numbers.length = mark.length;
    additions->numbers.failed = false;
    additions->settled = mark.settled;
    additions->waiting = mark.waiting;
}

/* An item that cannot be read cannot be found; the others can. */
static status add_item(struct fulltext *fulltext, struct statement *put, struct statement *rows,
                       enum clearance classification, int64_t n, struct fault *fault)
{
    struct fulltext_row row;
    struct fault inner;
    status found = fulltext->kind->read(&row, rows, classification, n, &inner);
    if (found == NOT_FOUND || found == CORRUPT)
        return OK;
    if (found != OK)
        return FAIL(found, fault, "%s", inner.detail);
    if (row.classification != classification)
        return OK;
    return change(fulltext, put, n, &row, fault);
}

/* Items behind built_to are left to the rebuilding that goes on. */
static status add_waiting(struct fulltext *fulltext, struct silo *silo,
                          enum clearance classification, struct cursor cursor,
                          struct fault *fault)
{
    const struct fulltext_sql *sql;
    _cleanup_statement_ struct statement *put = NULL, *rows = NULL;
    TRY(sql_of(&sql, fulltext, classification, fault));
    TRY(statement_open(&put, silo->store, sql->add, fault));
    TRY(fulltext->kind->open(&rows, silo, fault));
    while (cursor_left(&cursor) > 0) {
        uint8_t where;
        uint64_t n;
        TRY(cursor_u8(&where, &cursor, fault));
        TRY(cursor_u64(&n, &cursor, fault));
        if (where == classification &&
            (int64_t)n <= fulltext->indexes[classification].built_to)
            TRY(add_item(fulltext, put, rows, classification, (int64_t)n, fault));
    }
    return write_collected(silo, fault);
}

static status settle(struct fulltext *fulltext, struct silo *silo, enum clearance classification,
                     struct cursor waiting, struct fault *fault)
{
    struct fault undo_fault;
    postings_drop(&fulltext->postings);
    TRY(store_savepoint(silo->store, fault));
    status added = add_waiting(fulltext, silo, classification, waiting, fault);
    if (added == OK)
        return store_release(silo->store, fault);
    if (store_undo(silo->store, &undo_fault) != OK || added != CORRUPT)
        return added;
    return renew(fulltext, silo, classification, fault);
}

status fulltext_settle(struct fulltext *fulltext, struct silo *silo, struct fault *fault)
{
    struct fulltext_additions *additions = &fulltext->additions;
    bool wanted[CLEARANCE_COUNT] = {0};
    if (additions->waiting == 0)
        return OK;
    struct span bytes = buffer_span(&additions->numbers);
    struct span waiting = {bytes.data + additions->settled, bytes.length - additions->settled};
    for (size_t at = 0; at < waiting.length; at += ADDITION_BYTES)
        wanted[waiting.data[at]] = true;
    TRY(fulltext_know(fulltext, silo, fault));
    for (uint32_t k = 0; k < CLEARANCE_COUNT; k++)
        if (wanted[k] && fulltext->indexes[k].exists)
            TRY(settle(fulltext, silo, (enum clearance)k, cursor_over(waiting), fault));
    additions->settled = bytes.length;
    additions->waiting = 0;
    return OK;
}

/* ---- removing ---- */

/* ret_unreadable: it is an item that is damaged, not the index. */
static status remove_items(bool *ret_unreadable, struct fulltext *fulltext, struct silo *silo,
                           enum clearance classification, int64_t from, int64_t to,
                           struct fault *fault)
{
    const struct fulltext_sql *sql;
    _cleanup_statement_ struct statement *put = NULL, *rows = NULL;
    TRY(sql_of(&sql, fulltext, classification, fault));
    TRY(statement_open(&put, silo->store, sql->remove, fault));
    TRY(fulltext->kind->open(&rows, silo, fault));
    for (int64_t n = from - 1;;) {
        struct fulltext_row row;
        *ret_unreadable = true;
        status next = fulltext->kind->next(&n, silo, classification, n, fault);
        if (next == NOT_FOUND || (next == OK && n > to))
            break;
        TRY(next);
        TRY(fulltext->kind->read(&row, rows, classification, n, fault));
        *ret_unreadable = false;
        TRY(change(fulltext, put, n, &row, fault));
    }
    *ret_unreadable = false;
    return write_collected(silo, fault);
}

/* A damaged page of the index begins the index anew; what is left is then found by the
 * rebuilding. */
static status remove_or_renew(struct fulltext *fulltext, struct silo *silo,
                              enum clearance classification, int64_t from, int64_t to,
                              struct fault *fault)
{
    struct fault undo_fault;
    bool unreadable = false;
    TRY(store_savepoint(silo->store, fault));
    status removed = remove_items(&unreadable, fulltext, silo, classification, from, to, fault);
    if (removed == OK)
        return store_release(silo->store, fault);
    if (store_undo(silo->store, &undo_fault) != OK || removed != CORRUPT || unreadable)
        return removed;
    return renew(fulltext, silo, classification, fault);
}

status fulltext_remove(struct fulltext *fulltext, struct silo *silo,
                       enum clearance classification, int64_t from, int64_t to,
                       struct fault *fault)
{
    TRY(fulltext_know(fulltext, silo, fault));
    TRY(fulltext_settle(fulltext, silo, fault));
    struct fulltext_index index = fulltext->indexes[classification];
    if (!index.exists || from > index.built_to)
        return OK;
    if (to > index.built_to)
        to = index.built_to;
    TRY(remove_or_renew(fulltext, silo, classification, from, to, fault));
    index = fulltext->indexes[classification];
    if (index.stale)
        return OK;
    index.stale = true;
    return save(fulltext, silo, classification, &index, fault);
}

/* ---- rebuilding and rewriting ---- */

bool fulltext_is_stale(const struct fulltext *fulltext)
{
    for (uint32_t k = 0; k < CLEARANCE_COUNT; k++)
        if (fulltext->indexes[k].exists && fulltext->indexes[k].stale)
            return true;
    return false;
}

static bool is_complete(const struct fulltext *fulltext, enum clearance clearance)
{
    for (uint32_t k = 0; k < CLEARANCE_COUNT; k++)
        if (fulltext->indexes[k].exists && clearance_covers(clearance, (enum clearance)k) &&
            fulltext->indexes[k].built_to != INT64_MAX)
            return false;
    return true;
}

bool fulltext_is_rebuilding(const struct fulltext *fulltext)
{
    return !is_complete(fulltext, CLEARANCE_COUNT - 1);
}

static status rebuild(bool *ret_more, struct fulltext *fulltext, struct silo *silo,
                      enum clearance classification, uint32_t budget, struct fault *fault)
{
    struct fulltext_index index = fulltext->indexes[classification];
    const struct fulltext_sql *sql;
    int64_t last;
    _cleanup_statement_ struct statement *rows = NULL, *put = NULL;
    TRY(fulltext->kind->last(&last, silo, classification, fault));
    TRY(sql_of(&sql, fulltext, classification, fault));
    TRY(statement_open(&put, silo->store, sql->add, fault));
    TRY(fulltext->kind->open(&rows, silo, fault));
    for (; budget > 0 && index.built_to < last; budget--) {
        int64_t n;
        status next = fulltext->kind->next(&n, silo, classification, index.built_to, fault);
        if (next == NOT_FOUND)
            break;
        TRY(next);
        TRY(add_item(fulltext, put, rows, classification, n, fault));
        index.built_to = n;
    }
    *ret_more = budget == 0 && index.built_to < last;
    if (!*ret_more)
        index.built_to = INT64_MAX;
    return save(fulltext, silo, classification, &index, fault);
}

status fulltext_rebuild(bool *ret_more, struct fulltext *fulltext, struct silo *silo,
                        uint32_t budget, struct fault *fault)
{
    *ret_more = false;
    TRY(fulltext_settle(fulltext, silo, fault));
    for (uint32_t k = 0; k < CLEARANCE_COUNT && !*ret_more; k++) {
        const struct fulltext_index *index = &fulltext->indexes[k];
        if (index->exists && index->built_to != INT64_MAX)
            TRY(rebuild(ret_more, fulltext, silo, (enum clearance)k, budget, fault));
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
static status rewrite(bool *ret_more, struct fulltext *fulltext, struct silo *silo,
                      enum clearance classification, struct fault *fault)
{
    int64_t before, after;
    const struct fulltext_sql *sql;
    TRY(sql_of(&sql, fulltext, classification, fault));
    TRY(total_changes(&before, silo, fault));
    _cleanup_statement_ struct statement *step = NULL;
    TRY(statement_open(&step, silo->store, sql->merge, fault));
    statement_bind_int(step, 1, -REWRITE_STEP_PAGES);
    TRY(statement_run(step, fault));
    TRY(total_changes(&after, silo, fault));
    *ret_more = after - before >= 2;
    if (*ret_more)
        return OK;
    struct fulltext_index index = fulltext->indexes[classification];
    index.stale = false;
    return save(fulltext, silo, classification, &index, fault);
}

/* A damaged page begins the index anew, else the turn could not commit, and what was deleted would
 * stay. */
static status rewrite_or_renew(bool *ret_more, struct fulltext *fulltext, struct silo *silo,
                               enum clearance classification, struct fault *fault)
{
    struct fault undo_fault;
    TRY(store_savepoint(silo->store, fault));
    status done = rewrite(ret_more, fulltext, silo, classification, fault);
    if (done == OK)
        return store_release(silo->store, fault);
    if (store_undo(silo->store, &undo_fault) != OK || done != CORRUPT)
        return done;
    *ret_more = true; /* it is to be rebuilt */
    return renew(fulltext, silo, classification, fault);
}

status fulltext_rewrite(bool *ret_more, struct fulltext *fulltext, struct silo *silo,
                        struct fault *fault)
{
    *ret_more = false;
    for (uint32_t k = 0; k < CLEARANCE_COUNT && !*ret_more; k++) {
        const struct fulltext_index *index = &fulltext->indexes[k];
        if (index->exists && index->stale)
            TRY(rewrite_or_renew(ret_more, fulltext, silo, (enum clearance)k, fault));
    }
    return OK;
}

/* ---- searching ---- */

status fulltext_open(struct statement **ret, struct fulltext *fulltext, struct silo *silo,
                     enum clearance classification, struct fault *fault)
{
    const struct fulltext_sql *sql;
    TRY(sql_of(&sql, fulltext, classification, fault));
    return statement_open(ret, silo->store, sql->search, fault);
}

status fulltext_count(struct statement **ret, struct fulltext *fulltext, struct silo *silo,
                      enum clearance classification, struct fault *fault)
{
    const struct fulltext_sql *sql;
    TRY(sql_of(&sql, fulltext, classification, fault));
    return statement_open(ret, silo->store, sql->count, fault);
}

status fulltext_gather(struct statement **ret, struct fulltext *fulltext, struct silo *silo,
                       enum clearance classification, struct fault *fault)
{
    const struct fulltext_sql *sql;
    TRY(sql_of(&sql, fulltext, classification, fault));
    return statement_open(ret, silo->store, sql->gather, fault);
}

/* Begins the damaged index anew in this turn (renewed: NULL when it was begun before), and adds
 * what one step may. */
static status repair(struct fulltext *fulltext, struct silo *silo, const enum clearance *damaged,
                     struct fault *fault)
{
    struct fault undo_fault;
    bool more;
    TRY(silo_write(silo, fault));
    TRY(store_savepoint(silo->store, fault));
    status repaired = damaged != NULL ? renew(fulltext, silo, *damaged, fault) : OK;
    if (repaired == OK)
        repaired = fulltext_rebuild(&more, fulltext, silo, SEARCH_REBUILD_ROWS, fault);
    if (repaired != OK) {
        fulltext_forget(fulltext);
        if (store_undo(silo->store, &undo_fault) != OK)
            *fault = undo_fault;
        return repaired;
    }
    silo->wrote = true;
    return store_release(silo->store, fault);
}

status fulltext_search(struct fulltext *fulltext, struct silo *silo, enum clearance clearance,
                       fulltext_look *look, void *context, struct fault *fault)
{
    enum clearance damaged = CLEARANCE_PUBLIC;
    TRY(fulltext_know(fulltext, silo, fault));
    TRY(fulltext_settle(fulltext, silo, fault));
    if (!is_complete(fulltext, clearance))
        TRY(repair(fulltext, silo, NULL, fault));
    for (uint32_t repairs = 0;; repairs++) {
        if (!is_complete(fulltext, clearance))
            return FAIL(UNAVAILABLE, fault, "the full-text index is being rebuilt");
        store_limit_time(silo->store, clock_monotonic_us() + SEARCH_TIME_MAX_US);
        status done = look(context, &damaged, fault);
        store_limit_time(silo->store, 0);
        if (done == TIMED_OUT)
            return FAIL(UNAVAILABLE, fault, "the search takes too long: ask for fewer words");
        if (done != CORRUPT || repairs == CLEARANCE_COUNT)
            return done;
        TRY(repair(fulltext, silo, &damaged, fault));
    }
}
