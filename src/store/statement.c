#include "store/statement.h"

#include "base/clock.h"
#include "store/session.h"

#include <stdlib.h>
#include <string.h>

enum { STEPS_BETWEEN_LOOKS = 16 }; /* of SQLite's machine; one may match a whole item */

status store_failure(struct store *store, int code, const char *what, struct fault *fault)
{
    status found;
    switch (code & 0xff) {
    case SQLITE_FULL: found = OUT_OF_SPACE; break;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB: found = CORRUPT; break;
    case SQLITE_CONSTRAINT: found = CONFLICT; break;
    case SQLITE_TOOBIG: found = TOO_LARGE; break;
    case SQLITE_INTERRUPT: found = TIMED_OUT; break;
    case SQLITE_IOERR:
        found = code == SQLITE_IOERR_DATA || code == SQLITE_IOERR_SHORT_READ ? CORRUPT : INTERNAL;
        break;
    case SQLITE_ERROR: /* the text of a MATCH is the one syntax that is not ours */
        found = span_starts_with(span_of_text(sqlite3_errmsg(store->db)), SPAN("fts5: "))
                    ? BAD_FIELD
                    : INTERNAL;
        break;
    default: found = INTERNAL; break;
    }
    if (store->in_transaction && sqlite3_get_autocommit(store->db) && store->lost == OK)
        store->lost = found;
    return FAIL(found, fault, "%s (%d) in: %.100s", sqlite3_errstr(code), code, what);
}

/* SQLite keeps a statement whole by itself, but not one that met a damaged page on its way. */
void store_note_write(struct store *store, status ended)
{
    if (ended != CORRUPT || !store->in_transaction || store->lost != OK)
        return;
    if (!store->half_done || store->half_done_in > store->savepoints)
        store->half_done_in = store->savepoints;
    store->half_done = true;
}

static status transaction_is_lost(const struct store *store, struct fault *fault)
{
    return FAIL(store->lost, fault, "the transaction was given up: %s", status_code(store->lost));
}

status store_script(struct store *store, const char *sql, struct fault *fault)
{
    if (store->lost != OK)
        return transaction_is_lost(store, fault);
    int code = sqlite3_exec(store->db, sql, NULL, NULL, NULL);
    return code == SQLITE_OK ? OK : store_failure(store, code, sql, fault);
}

status store_execute(struct store *store, const char *sql, struct fault *fault)
{
    if (!store->in_transaction)
        return FAIL(INTERNAL, fault, "outside of a transaction: %.100s", sql);
    status executed = store_script(store, sql, fault);
    store_note_write(store, executed);
    return executed;
}

/* Takes it out of the list. */
static struct statement *unlink_at(struct store *store, struct statement **at)
{
    struct statement *statement = *at;
    *at = statement->next;
    store->statement_count--;
    return statement;
}

static void link_first(struct store *store, struct statement *statement)
{
    statement->next = store->statements;
    store->statements = statement;
    store->statement_count++;
}

static void finalize(struct statement *statement)
{
    sqlite3_finalize(statement->handle);
    free(statement);
}

static struct statement *find_kept(struct store *store, const char *sql)
{
    for (struct statement **at = &store->statements; *at != NULL; at = &(*at)->next)
        if ((*at)->sql == sql && !(*at)->taken)
            return unlink_at(store, at);
    return NULL;
}

static void drop_oldest(struct store *store)
{
    struct statement **oldest = NULL;
    for (struct statement **at = &store->statements; *at != NULL; at = &(*at)->next)
        if (!(*at)->taken)
            oldest = at;
    if (oldest != NULL)
        finalize(unlink_at(store, oldest));
}

void statements_drop(struct store *store)
{
    struct statement **at = &store->statements;
    while (*at != NULL) {
        if ((*at)->taken)
            at = &(*at)->next;
        else
            finalize(unlink_at(store, at));
    }
}

static status prepare(struct statement **ret, struct store *store, const char *sql,
                      struct fault *fault)
{
    struct statement *statement = calloc(1, sizeof *statement);
    if (statement == NULL)
        return FAIL(INTERNAL, fault, "out of memory for a statement");
    statement->store = store;
    statement->sql = sql;
    int code = sqlite3_prepare_v3(store->db, sql, -1, SQLITE_PREPARE_PERSISTENT,
                                  &statement->handle, NULL);
    if (code != SQLITE_OK || statement->handle == NULL) {
        status failed = store_failure(store, code, sql, fault);
        if ((code & 0xff) == SQLITE_ERROR) /* the SQL is the program's own, so may be told */
            failed = FAIL(INTERNAL, fault, "%.100s in: %.80s", sqlite3_errmsg(store->db), sql);
        free(statement);
        return failed;
    }
    *ret = statement;
    return OK;
}

status statement_open(struct statement **ret, struct store *store, const char *sql,
                      struct fault *fault)
{
    if (store->lost != OK)
        return transaction_is_lost(store, fault);
    struct statement *statement = find_kept(store, sql);
    if (statement == NULL) {
        if (store->statement_count >= STORE_STATEMENTS_MAX)
            drop_oldest(store);
        TRY(prepare(&statement, store, sql, fault));
    }
    statement->taken = true;
    link_first(store, statement);
    *ret = statement;
    return OK;
}

void statement_reset(struct statement *statement)
{
    sqlite3_reset(statement->handle);
    sqlite3_clear_bindings(statement->handle);
    statement->bind_error = SQLITE_OK;
}

struct statement *statement_close(struct statement *statement)
{
    if (statement != NULL) {
        statement_reset(statement);
        statement->taken = false;
    }
    return NULL;
}

static void note_bind(struct statement *statement, int code)
{
    if (statement->bind_error == SQLITE_OK)
        statement->bind_error = code;
}

void statement_bind_int(struct statement *statement, int parameter, int64_t value)
{
    note_bind(statement, sqlite3_bind_int64(statement->handle, parameter, value));
}

void statement_bind_double(struct statement *statement, int parameter, double value)
{
    note_bind(statement, sqlite3_bind_double(statement->handle, parameter, value));
}

void statement_bind_text(struct statement *statement, int parameter, struct span utf8)
{
    const char *text = utf8.data != NULL ? (const char *)utf8.data : ""; /* NULL would bind NULL */
    note_bind(statement, sqlite3_bind_text64(statement->handle, parameter, text, utf8.length,
                                             SQLITE_STATIC, SQLITE_UTF8));
}

void statement_bind_blob(struct statement *statement, int parameter, struct span bytes)
{
    const void *blob = bytes.data != NULL ? (const void *)bytes.data : "";
    note_bind(statement, sqlite3_bind_blob64(statement->handle, parameter, blob, bytes.length,
                                             SQLITE_STATIC));
}

void statement_bind_null(struct statement *statement, int parameter)
{
    note_bind(statement, sqlite3_bind_null(statement->handle, parameter));
}

status statement_step(struct statement *statement, struct fault *fault)
{
    struct store *store = statement->store;
    if (store->lost != OK)
        return transaction_is_lost(store, fault);
    if (statement->bind_error != SQLITE_OK)
        return store_failure(store, statement->bind_error, statement->sql, fault);
    if (!store->in_transaction && !sqlite3_stmt_readonly(statement->handle))
        return FAIL(INTERNAL, fault, "outside of a transaction: %.100s", statement->sql);
    int code = sqlite3_step(statement->handle);
    if (code == SQLITE_ROW)
        return OK;
    if (code == SQLITE_DONE)
        return FAIL(NOT_FOUND, fault, "no such row");
    status failed = store_failure(store, code, statement->sql, fault);
    sqlite3_reset(statement->handle);
    if (!sqlite3_stmt_readonly(statement->handle))
        store_note_write(store, failed);
    return failed;
}

status statement_run(struct statement *statement, struct fault *fault)
{
    struct fault done;
    status stepped;
    do
        stepped = statement_step(statement, &done);
    while (stepped == OK);
    if (stepped == NOT_FOUND)
        return OK;
    *fault = done;
    return stepped;
}

int64_t statement_int(struct statement *statement, int column)
{
    return sqlite3_column_int64(statement->handle, column);
}

double statement_double(struct statement *statement, int column)
{
    return sqlite3_column_double(statement->handle, column);
}

struct span statement_span(struct statement *statement, int column)
{
    const void *bytes = sqlite3_column_type(statement->handle, column) == SQLITE_BLOB
                            ? sqlite3_column_blob(statement->handle, column)
                            : sqlite3_column_text(statement->handle, column);
    int length = sqlite3_column_bytes(statement->handle, column);
    return (struct span){bytes, bytes != NULL ? (size_t)length : 0};
}

bool statement_is_null(struct statement *statement, int column)
{
    return sqlite3_column_type(statement->handle, column) == SQLITE_NULL;
}

static int is_too_late(void *context)
{
    const struct store *store = context;
    return clock_monotonic_us() >= store->until_us;
}

void store_limit_time(struct store *store, int64_t until_us)
{
    store->until_us = until_us;
    sqlite3_progress_handler(store->db, STEPS_BETWEEN_LOOKS, until_us != 0 ? is_too_late : NULL,
                             store);
}

int64_t store_last_rowid(const struct store *store)
{
    return sqlite3_last_insert_rowid(store->db);
}

int64_t store_changes(const struct store *store)
{
    return sqlite3_changes64(store->db);
}
