#include "silo/used_tokens.h"

#define US_PER_SECOND ((int64_t)1000000)

enum { STEP = 256 };

static const char *const tokens_sql[] = {
    "CREATE TABLE used_tokens (token BLOB PRIMARY KEY, until INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE INDEX used_tokens_by_time ON used_tokens (until);",
};
const struct store_schema used_tokens_schema = {"used_tokens", tokens_sql, 1};

static status read_number(int64_t *ret, struct silo *silo, const char *sql, struct fault *fault)
{
    _cleanup_statement_ struct statement *read = NULL;
    TRY(statement_open(&read, silo->store, sql, fault));
    TRY(statement_step(read, fault));
    *ret = statement_int(read, 0);
    return OK;
}

static status read_first(struct used_tokens *used, struct silo *silo, struct fault *fault)
{
    return read_number(&used->first_until, silo, "SELECT min(until) FROM used_tokens", fault);
}

static status know(struct silo *silo, struct fault *fault)
{
    struct used_tokens found = {.known = true};
    if (silo->used_tokens.known)
        return OK;
    TRY(store_has(&found.exists, silo->store, &used_tokens_schema, fault));
    if (found.exists) {
        TRY(store_migrate(silo->store, &used_tokens_schema, fault));
        TRY(read_number(&found.count, silo, "SELECT count(*) FROM used_tokens", fault));
        TRY(read_first(&found, silo, fault));
    }
    silo->used_tokens = found;
    return OK;
}

void used_tokens_forget(struct silo *silo)
{
    silo->used_tokens.known = false;
}

static int64_t now_seconds(const struct silo *silo)
{
    return silo->now_us / US_PER_SECOND;
}

bool used_tokens_due(struct silo *silo)
{
    const struct used_tokens *used = &silo->used_tokens;
    struct fault ignored;
    return know(silo, &ignored) == OK && used->count > 0
           && used->first_until <= now_seconds(silo);
}

status used_tokens_expire(bool *ret_more, struct silo *silo, struct fault *fault)
{
    _cleanup_statement_ struct statement *drop = NULL;
    TRY(statement_open(&drop, silo->store,
                       "DELETE FROM used_tokens WHERE token IN (SELECT token FROM used_tokens "
                       "WHERE until <= ?1 ORDER BY until LIMIT ?2)", fault));
    statement_bind_int(drop, 1, now_seconds(silo));
    statement_bind_int(drop, 2, STEP);
    TRY(statement_run(drop, fault));
    int64_t gone = store_changes(silo->store);
    *ret_more = gone == STEP;
    silo->used_tokens.count -= gone;
    silo->wrote |= gone > 0;
    return read_first(&silo->used_tokens, silo, fault);
}

static status make_room(struct silo *silo, struct fault *fault)
{
    bool more;
    if (used_tokens_due(silo))
        TRY(used_tokens_expire(&more, silo, fault));
    if (silo->used_tokens.count >= USED_TOKENS_MAX)
        return FAIL(UNAVAILABLE, fault, "too many tokens that serve once are alive");
    return OK;
}

status used_token_take(struct silo *silo, const struct silo_request *request, struct fault *fault)
{
    struct used_tokens *used = &silo->used_tokens;
    TRY(know(silo, fault));
    if (!used->exists) {
        TRY(store_migrate(silo->store, &used_tokens_schema, fault));
        used->exists = true;
    }
    TRY(make_room(silo, fault));
    _cleanup_statement_ struct statement *put = NULL;
    TRY(statement_open(&put, silo->store,
                       "INSERT OR IGNORE INTO used_tokens (token, until) VALUES (?1, ?2)", fault));
    statement_bind_blob(put, 1, request->token_once);
    statement_bind_int(put, 2, request->token_until);
    TRY(statement_run(put, fault));
    if (store_changes(silo->store) == 0)
        return FAIL(UNAUTHENTICATED, fault, "%s", TOKEN_REFUSED);
    if (used->count++ == 0 || request->token_until < used->first_until)
        used->first_until = request->token_until;
    return OK;
}
