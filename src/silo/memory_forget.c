#include "silo/memory.h"

#include "silo/audit.h"
#include "wire/http.h"
#include "wire/json.h"

#define US_PER_SECOND ((int64_t)1000000)
#define US_PER_DAY (24 * 3600 * US_PER_SECOND)
#define REWRITE_PAUSE_US (60 * US_PER_SECOND)
#define DAMAGED_PAUSE_US (3600 * US_PER_SECOND)

enum {
    EXPIRE_STEP = 256,   /* rows of one call */
    REBUILD_STEP = 1000,
};

static status remove_by_number(struct silo *silo, const char *sql, int64_t number,
                               struct fault *fault)
{
    _cleanup_statement_ struct statement *remove = NULL;
    TRY(statement_open(&remove, silo->store, sql, fault));
    statement_bind_int(remove, 1, number);
    return statement_run(remove, fault);
}

status memory_remove(struct silo *silo, const struct memory_row *row, struct fault *fault)
{
    TRY(fulltext_remove(&silo->memory.fulltext, silo, row->classification, row->n, row->n,
                        fault));
    TRY(remove_by_number(silo, "DELETE FROM memories WHERE n = ?1", row->n, fault));
    if (silo->memory.has_versions)
        TRY(remove_by_number(silo, "DELETE FROM memory_versions WHERE n = ?1", row->n, fault));
    silo->memory.due_known = false;
    return remove_by_number(silo, "DELETE FROM memory_users WHERE k = ?1 AND NOT EXISTS "
                            "(SELECT 1 FROM memories WHERE user = ?1)", row->user, fault);
}

/* Removes one row in a savepoint of its own; a damaged one stays, and is passed over. */
static status remove_one(bool *ret_removed, struct silo *silo, int64_t n, struct fault *fault)
{
    *ret_removed = false;
    TRY(fulltext_settle(&silo->memory.fulltext, silo, fault));
    TRY(store_savepoint(silo->store, fault));
    struct memory_row row;
    struct statement *rows = NULL;
    status removed = memory_row_open(&rows, silo, fault);
    if (removed == OK)
        removed = memory_row_get(&row, rows, n, fault);
    if (removed == OK)
        removed = memory_remove(silo, &row, fault);
    statement_close(rows);
    if (removed == OK) {
        *ret_removed = true;
        return store_release(silo->store, fault);
    }
    memory_forget(silo);
    TRY(store_undo(silo->store, fault));
    TRY(memory_know_indexes(silo, fault));
    return removed == CORRUPT || removed == NOT_FOUND ? OK : removed;
}

/* The items of one user that the caller may see, in order of their ids. */
static status forget_items(int64_t *ret_count, struct call *call, int64_t user,
                           struct fault *fault)
{
    struct memory_id after = {0};
    for (;;) {
        _cleanup_statement_ struct statement *next = NULL;
        TRY(statement_open(&next, call->store,
                           "SELECT n, id, classification FROM memories WHERE user = ?1 AND "
                           "id > ?2 ORDER BY id LIMIT 1", fault));
        statement_bind_int(next, 1, user);
        statement_bind_blob(next, 2, SPAN_OF(after.bytes));
        status stepped = statement_step(next, fault);
        if (stepped == NOT_FOUND)
            return OK;
        TRY(stepped);
        int64_t n = statement_int(next, 0), classification = statement_int(next, 2);
        struct cursor id = cursor_over(statement_span(next, 1));
        struct memory_id found;
        TRY(cursor_copy(found.bytes, &id, sizeof found.bytes, fault));
        after = found;
        next = statement_close(next);
        if (classification < 0 || classification >= CLEARANCE_COUNT ||
            !clearance_covers(call->request->envelope->clearance,
                              (enum clearance)classification))
            continue;
        bool removed;
        TRY(remove_one(&removed, call->silo, n, fault));
        if (!removed)
            return FAIL(CORRUPT, fault, "an item of this user is damaged: nothing was deleted");
        ++*ret_count;
    }
}

status memory_forget_user(struct call *call, struct fault *fault)
{
    struct http_query query;
    int64_t user, count = 0;
    TRY(http_query_parse(&query, call->request->arena, call->request->query, fault));
    TRY(http_query_only(&query, call->request->action->query, fault));
    const struct span *user_id = http_query_get(&query, "user_id");
    if (user_id == NULL)
        return FAIL(BAD_FIELD, fault, "user_id: is required: whose memories shall be deleted");
    TRY(authz_acts_for(call->request->envelope, *user_id, fault));
    call->item = *user_id;
    status found = call->silo->memory.exists
                       ? memory_user_find(&user, call->silo, *user_id, fault)
                       : NOT_FOUND;
    if (found == OK)
        TRY(forget_items(&count, call, user, fault));
    else if (found != NOT_FOUND)
        return found;
    call->count = count;
    call->response->http_status = 200;
    struct json_writer writer = json_writer_on(call->response->body);
    json_open_object(&writer, NULL);
    json_put_integer(&writer, "deleted", count);
    json_close_object(&writer);
    return OK;
}

static status collect(int64_t numbers[EXPIRE_STEP], uint32_t *count, struct statement *due,
                      struct fault *fault)
{
    while (*count < EXPIRE_STEP) {
        status stepped = statement_step(due, fault);
        if (stepped == NOT_FOUND)
            return OK;
        TRY(stepped);
        numbers[(*count)++] = statement_int(due, 0);
    }
    return OK;
}

static status collect_due(int64_t numbers[EXPIRE_STEP], uint32_t *count, struct silo *silo,
                          struct fault *fault)
{
    _cleanup_statement_ struct statement *by_ttl = NULL, *by_age = NULL;
    TRY(statement_open(&by_ttl, silo->store,
                       "SELECT n FROM memories WHERE expires_at <= ?1 ORDER BY expires_at",
                       fault));
    statement_bind_int(by_ttl, 1, silo->now_us);
    TRY(collect(numbers, count, by_ttl, fault));
    if (silo->posture.retention_days == 0)
        return OK;
    struct memory_id oldest =
        memory_id_at(silo->now_us - silo->posture.retention_days * US_PER_DAY + 1000);
    TRY(statement_open(&by_age, silo->store,
                       "SELECT n FROM memories WHERE id < ?1 ORDER BY id", fault));
    statement_bind_blob(by_age, 1, SPAN_OF(oldest.bytes));
    return collect(numbers, count, by_age, fault);
}

/* Rows of both kinds are one list: what is in it twice is gone the second time. */
static status expire_rows(bool *ret_more, struct silo *silo, struct fault *fault)
{
    int64_t numbers[EXPIRE_STEP];
    uint32_t count = 0, removed_count = 0;
    TRY(collect_due(numbers, &count, silo, fault));
    for (uint32_t i = 0; i < count; i++) {
        bool removed;
        TRY(remove_one(&removed, silo, numbers[i], fault));
        removed_count += removed;
    }
    *ret_more = count == EXPIRE_STEP && removed_count > 0;
    if (!*ret_more && removed_count < count)
        silo->memory.damaged_until_us = silo->now_us + DAMAGED_PAUSE_US;
    if (removed_count == 0)
        return OK;
    TRY(audit_system(silo, "memory.expire", removed_count, fault));
    silo->wrote = true;
    return OK;
}

/* What is deleted is deleted together with its entry: else none of it. */
static status expire_in_savepoint(bool *ret_more, struct silo *silo, struct fault *fault)
{
    struct fault undo_fault;
    TRY(fulltext_settle(&silo->memory.fulltext, silo, fault)); /* what was added stays */
    TRY(store_savepoint(silo->store, fault));
    status expired = expire_rows(ret_more, silo, fault);
    if (expired == OK)
        return store_release(silo->store, fault);
    memory_forget(silo);
    status undone = store_undo(silo->store, &undo_fault);
    return undone == OK ? expired : FAIL(undone, fault, "%s", undo_fault.detail);
}

static status rewrite_indexes(bool *ret_more, struct silo *silo, struct fault *fault)
{
    silo->wrote = true;
    TRY(fulltext_rewrite(ret_more, &silo->memory.fulltext, silo, fault));
    if (!*ret_more)
        silo->memory.rewritten_us = silo->now_us;
    return OK;
}

status memory_expire(bool *ret_more, struct silo *silo, bool parking, struct fault *fault)
{
    *ret_more = false;
    TRY(memory_know(silo, fault));
    if (!silo->memory.exists)
        return OK;
    TRY(memory_know_indexes(silo, fault));
    int64_t due_us = memory_due_us(silo);
    if ((due_us == 0 || due_us > silo->now_us) &&
        !(parking && fulltext_is_stale(&silo->memory.fulltext)))
        return OK;
    TRY(silo_write(silo, fault));
    silo->memory.due_known = false;
    if (fulltext_is_rebuilding(&silo->memory.fulltext)) {
        silo->wrote = true;
        return fulltext_rebuild(ret_more, &silo->memory.fulltext, silo, REBUILD_STEP, fault);
    }
    TRY(expire_in_savepoint(ret_more, silo, fault));
    bool due = parking || silo->memory.rewritten_us + REWRITE_PAUSE_US <= silo->now_us;
    if (*ret_more || !fulltext_is_stale(&silo->memory.fulltext) || !due)
        return OK;
    return rewrite_indexes(ret_more, silo, fault);
}

static int64_t earlier(int64_t left_us, int64_t right_us)
{
    if (left_us == 0 || right_us == 0)
        return left_us + right_us;
    return left_us < right_us ? left_us : right_us;
}

/* 0: no row will ever go by itself. */
static status first_due(int64_t *ret, struct silo *silo, struct fault *fault)
{
    _cleanup_statement_ struct statement *by_ttl = NULL, *by_age = NULL;
    int64_t due_us = 0;
    TRY(statement_open(&by_ttl, silo->store,
                       "SELECT min(expires_at) FROM memories WHERE expires_at IS NOT NULL",
                       fault));
    TRY(statement_step(by_ttl, fault));
    due_us = statement_int(by_ttl, 0);
    if (silo->posture.retention_days > 0) {
        TRY(statement_open(&by_age, silo->store,
                           "SELECT min(id) FROM memories", fault));
        TRY(statement_step(by_age, fault));
        struct cursor bytes = cursor_over(statement_span(by_age, 0));
        struct memory_id oldest;
        struct fault none;
        if (cursor_copy(oldest.bytes, &bytes, sizeof oldest.bytes, &none) == OK)
            due_us = earlier(due_us, memory_id_us(&oldest) +
                                         silo->posture.retention_days * US_PER_DAY);
    }
    *ret = due_us;
    return OK;
}

int64_t memory_due_us(struct silo *silo)
{
    struct memory_state *memory = &silo->memory;
    struct fault fault;
    if (memory_know(silo, &fault) != OK || !memory->exists)
        return 0;
    if (memory_know_indexes(silo, &fault) != OK)
        return silo->now_us + DAMAGED_PAUSE_US;
    if (fulltext_is_rebuilding(&silo->memory.fulltext))
        return 1;
    if (!memory->due_known) {
        int64_t due_us = 0;
        /* a damaged index hides what is due: look again later */
        if (first_due(&due_us, silo, &fault) != OK)
            due_us = silo->now_us + DAMAGED_PAUSE_US;
        if (due_us != 0 && due_us < memory->damaged_until_us)
            due_us = memory->damaged_until_us;
        memory->due_us = due_us;
        memory->due_known = true;
    }
    int64_t rewrite_us = memory->rewritten_us + REWRITE_PAUSE_US;
    return fulltext_is_stale(&silo->memory.fulltext) ? earlier(memory->due_us, rewrite_us)
                                                     : memory->due_us;
}
