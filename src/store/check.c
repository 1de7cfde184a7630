#include "store/check.h"

#include "base/secret.h"
#include "store/session.h"

uint32_t store_check_pages(const struct store *store)
{
    return store->files->map.pages;
}

status store_check_read(uint32_t *ret_next, struct store *store, uint32_t page, uint32_t count,
                        struct fault *fault)
{
    uint8_t text[PAGE_BYTES];
    uint32_t end = store->files->map.pages + 1;
    status read = OK;
    for (; count > 0 && page < end && read == OK; count--)
        read = files_read_page(store->files, page++, text, fault);
    secret_wipe(text, sizeof text);
    *ret_next = page;
    return read;
}

/* While there is a WAL the map is ahead of nothing: the file is as long as it was when the last
 * checkpoint ended, and a checkpoint that was cut short is made good by the WAL. */
status store_check_length(const struct store *store, struct fault *fault)
{
    if (store->files->wal.frames == 0)
        return files_check_length(store->files, fault);
    if (store->files->database_bytes < (uint64_t)store->files->map.pages * PAGE_BYTES)
        return FAIL(CORRUPT, fault, "%s is shorter than its map says", STORE_DATABASE);
    return OK;
}

status store_check_next(char ret[STORE_TABLE_NAME_TEXT], struct store *store, const char *after,
                        bool fulltext, struct fault *fault)
{
    _cleanup_statement_ struct statement *next = NULL;
    TRY(statement_open(&next, store,
                       "SELECT name FROM sqlite_schema WHERE type = 'table' AND name > ?1"
                       " AND (sql LIKE 'CREATE VIRTUAL TABLE%') = ?2 ORDER BY name LIMIT 1",
                       fault));
    statement_bind_text(next, 1, span_of_text(after));
    statement_bind_int(next, 2, fulltext);
    TRY(statement_step(next, fault));
    if (!span_to_text(ret, STORE_TABLE_NAME_TEXT, statement_span(next, 0)))
        return FAIL(CORRUPT, fault, "a table with an impossible name");
    return OK;
}

/* Runs to the end; the first column of the first row must be "ok", where there is one. */
static status run(struct store *store, char *sql, const char *name, struct fault *fault)
{
    sqlite3_stmt *statement = NULL;
    if (sql == NULL)
        return FAIL(INTERNAL, fault, "out of memory");
    int code = sqlite3_prepare_v2(store->db, sql, -1, &statement, NULL);
    bool fine = true;
    while (code == SQLITE_OK || code == SQLITE_ROW) {
        code = sqlite3_step(statement);
        if (code == SQLITE_ROW)
            fine = fine
                && span_is(span_of_text((const char *)sqlite3_column_text(statement, 0)), "ok");
    }
    sqlite3_finalize(statement);
    sqlite3_free(sql);
    if (code == SQLITE_NOMEM || code == SQLITE_FULL)
        return FAIL(INTERNAL, fault, "%s: %s", name, sqlite3_errstr(code));
    if (code != SQLITE_DONE || !fine)
        return FAIL(CORRUPT, fault, "%s does not hold together", name);
    return OK;
}

status store_check_table(struct store *store, const char *name, struct fault *fault)
{
    return run(store, sqlite3_mprintf("PRAGMA quick_check(%Q)", name), name, fault);
}

/* It has the form of an insertion, and changes nothing. */
status store_check_fulltext(struct store *store, const char *name, struct fault *fault)
{
    if (store->in_transaction)
        return FAIL(INTERNAL, fault, "a check inside a transaction");
    return run(store, sqlite3_mprintf("INSERT INTO \"%w\"(\"%w\") VALUES ('integrity-check')",
                                      name, name), name, fault);
}
