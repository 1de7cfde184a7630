#include "silo/charters.h"

#include "silo/audit.h"

/* The document last: its head is read without it. */
static const char *const charters_sql[] = {
    "CREATE TABLE charters (scope INTEGER PRIMARY KEY, sequence INTEGER NOT NULL,"
    " hash BLOB NOT NULL, signature BLOB NOT NULL, document BLOB NOT NULL);",
};
const struct store_schema charters_schema = {"charters", charters_sql, 1};

static status find(struct statement **ret, struct silo *silo, const char *sql,
                   enum silo_charter scope, struct fault *fault)
{
    bool has;
    if (silo->store == NULL)
        return FAIL(NOT_FOUND, fault, "the silo is empty");
    TRY(store_has(&has, silo->store, &charters_schema, fault));
    if (!has)
        return FAIL(NOT_FOUND, fault, "the silo holds no charter");
    TRY(store_migrate(silo->store, &charters_schema, fault));
    struct statement *read;
    TRY(statement_open(&read, silo->store, sql, fault));
    statement_bind_int(read, 1, scope);
    status found = statement_step(read, fault);
    if (found != OK) {
        statement_close(read);
        return found;
    }
    *ret = read;
    return OK;
}

status silo_charter_head(struct charter_head *ret, struct silo *silo, enum silo_charter scope,
                         struct fault *fault)
{
    _cleanup_statement_ struct statement *read = NULL;
    struct charter_head head = {0};
    status found = find(&read, silo, "SELECT sequence, hash FROM charters WHERE scope = ?1",
                        scope, fault);
    if (found == OK) {
        struct cursor hash = cursor_over(statement_span(read, 1));
        head.sequence = (uint64_t)statement_int(read, 0);
        TRY(cursor_copy(head.hash, &hash, sizeof head.hash, fault));
    } else if (found != NOT_FOUND) {
        return found;
    }
    *ret = head;
    return OK;
}

status silo_charter(struct buffer *out, struct silo *silo, enum silo_charter scope,
                    struct fault *fault)
{
    _cleanup_statement_ struct statement *read = NULL;
    struct signed_charter copy = {0};
    TRY(find(&read, silo, "SELECT sequence, signature, document FROM charters WHERE scope = ?1",
             scope, fault));
    struct cursor signature = cursor_over(statement_span(read, 1));
    TRY(cursor_copy(copy.signature, &signature, sizeof copy.signature, fault));
    if (scope == SILO_CHARTER_TENANT)
        for (size_t i = 0; i < TENANT_ID_BYTES; i++)
            copy.id[i] = silo->tenant_id[i];
    copy.sequence = (uint64_t)statement_int(read, 0);
    copy.document = statement_span(read, 2);
    signed_charter_put(out, &copy);
    return buffer_check(out, "charter", fault);
}

void silo_keep_charter(struct silo *silo, enum silo_charter scope,
                       const struct signed_charter *charter)
{
    struct buffer *kept = &silo->charters[scope];
    if (kept->max == 0)
        *kept = buffer_of(SIGNED_CHARTER_MAX);
    buffer_clear(kept);
    signed_charter_put(kept, charter);
    if (kept->failed) /* no memory for a copy: then the next waking needs control's */
        buffer_free(kept);
}

static status write_one(struct silo *silo, enum silo_charter scope, struct fault *fault)
{
    struct cursor cursor = cursor_over(buffer_span(&silo->charters[scope]));
    struct signed_charter charter;
    uint8_t hash[HASH_BYTES];
    TRY(signed_charter_get(&charter, &cursor, fault));
    charter_hash(hash, charter.id, charter.sequence, charter.document);
    TRY(store_migrate(silo->store, &charters_schema, fault));
    _cleanup_statement_ struct statement *put = NULL;
    TRY(statement_open(&put, silo->store,
                       "INSERT OR REPLACE INTO charters (scope, sequence, hash, signature, "
                       "document) VALUES (?1, ?2, ?3, ?4, ?5)", fault));
    statement_bind_int(put, 1, scope);
    statement_bind_int(put, 2, (int64_t)charter.sequence);
    statement_bind_blob(put, 3, SPAN_OF(hash));
    statement_bind_blob(put, 4, SPAN_OF(charter.signature));
    statement_bind_blob(put, 5, charter.document);
    return statement_run(put, fault);
}

/* A damaged page there is no reason to lose what the tenant wrote: it is only a copy. */
static status write_in_savepoint(struct silo *silo, enum silo_charter scope, struct fault *fault)
{
    TRY(store_savepoint(silo->store, fault));
    status written = write_one(silo, scope, fault);
    if (written != CORRUPT) {
        TRY(written);
        return store_release(silo->store, fault);
    }
    buffer_free(&silo->charters[scope]);
    return store_undo(silo->store, fault);
}

status charters_write(struct silo *silo, struct fault *fault)
{
    for (int scope = 0; scope < SILO_CHARTERS; scope++)
        if (silo->charters[scope].length > 0)
            TRY(write_in_savepoint(silo, (enum silo_charter)scope, fault));
    return OK;
}

void charters_written(struct silo *silo)
{
    for (int scope = 0; scope < SILO_CHARTERS; scope++)
        buffer_free(&silo->charters[scope]);
}
