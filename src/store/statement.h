/* statement.h: typed access to prepared statements.
 *
 *     _cleanup_statement_ struct statement *find = NULL;
 *     TRY(statement_open(&find, store, "SELECT text FROM memory WHERE id = ?1", fault));
 *     statement_bind_text(find, 1, id);
 *     TRY(statement_step(find, fault));            NOT_FOUND: no such row
 *     struct span text = statement_span(find, 0);  borrowed until the next step, reset or close
 *
 * Statements are prepared once and kept by the store, found again by the address of the SQL: it
 * must be a string literal (or otherwise constant for the life of the process). */
#pragma once

#include "store/store.h"

struct statement;

/* Yours until statement_close; two at once of the same SQL are allowed. INTERNAL when the SQL does
 * not compile. CORRUPT when the schema cannot be read. */
MUST_CHECK status statement_open(struct statement **ret, struct store *store, const char *sql,
                                 struct fault *fault);

/* Resets, forgets the bindings, gives the statement back. Takes NULL; returns NULL. */
struct statement *statement_close(struct statement *statement);

static inline void statement_cleanup(struct statement **statement)
{
    *statement = statement_close(*statement);
}
#define _cleanup_statement_ __attribute__((cleanup(statement_cleanup)))

/* Parameters count from 1. Text and blobs are borrowed: they must stay until close or reset. A bind
 * that fails is remembered and fails the next step. Not while a row is current: reset first. */
void statement_bind_int(struct statement *statement, int parameter, int64_t value);
void statement_bind_double(struct statement *statement, int parameter, double value);
void statement_bind_text(struct statement *statement, int parameter, struct span utf8);
void statement_bind_blob(struct statement *statement, int parameter, struct span bytes);
void statement_bind_null(struct statement *statement, int parameter);

/* OK: a row is current. NOT_FOUND: done (also after an INSERT, UPDATE, DELETE without RETURNING).
 * CONFLICT: a constraint. OUT_OF_SPACE. CORRUPT: a damaged page was met. TOO_LARGE: a value or a
 * number of terms over SQLite's limits. BAD_FIELD: the text of a MATCH does not parse. TIMED_OUT:
 * see store_limit_time. INTERNAL: anything else. */
MUST_CHECK status statement_step(struct statement *statement, struct fault *fault);

/* Runs to the end: for statements that yield no row. OK when done. */
MUST_CHECK status statement_run(struct statement *statement, struct fault *fault);

/* Back to before the first row; bindings are forgotten too. */
void statement_reset(struct statement *statement);

/* Columns count from 0. NULL reads as 0, 0.0 or the empty span. The span serves TEXT and BLOB. */
int64_t statement_int(struct statement *statement, int column);
double statement_double(struct statement *statement, int column);
struct span statement_span(struct statement *statement, int column);
bool statement_is_null(struct statement *statement, int column);

/* For SQL without parameters and rows: DDL, pragmas. Several statements allowed. */
MUST_CHECK status store_execute(struct store *store, const char *sql, struct fault *fault);

/* From this moment on (monotonic) a statement that runs ends with TIMED_OUT; 0: no limit, as at
 * first. For statements that read: one that writes would take the whole transaction with it. */
void store_limit_time(struct store *store, int64_t until_us);

int64_t store_last_rowid(const struct store *store); /* of the last INSERT */
int64_t store_changes(const struct store *store);    /* rows touched by the last statement */
