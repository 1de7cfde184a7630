#include "silo/idempotency.h"

#include <assert.h>

enum {
    NAME_BYTES = 16, /* of HMAC-SHA-256 */
    KEY_MAX = 255,   /* bytes of the header */
    REQUEST_PARTS = 4 + ACTION_IDS_MAX,
    EXPIRE_STEP = 512,
};
#define LIFE_US ((int64_t)24 * 3600 * 1000000)
/* A parked cell is woken for many keys together. */
#define EXPIRE_TOGETHER_US ((int64_t)3600 * 1000000)

/* n grows with time: the oldest are the first, and their number is known without counting. */
static const char *const versions[] = {
    "CREATE TABLE idempotency_keys (n INTEGER PRIMARY KEY, name BLOB NOT NULL,"
    " request BLOB NOT NULL, made_at INTEGER NOT NULL, http_status INTEGER NOT NULL,"
    " clearance INTEGER NOT NULL, scopes INTEGER NOT NULL, reference BLOB, body BLOB);"
    "CREATE UNIQUE INDEX idempotency_by_name ON idempotency_keys (name);"
    "CREATE INDEX idempotency_answers ON idempotency_keys (n) WHERE body IS NOT NULL;",
    "ALTER TABLE idempotency_keys ADD COLUMN user BLOB;"
    "CREATE TABLE idempotency_users (user BLOB PRIMARY KEY, keys INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE INDEX idempotency_shown ON idempotency_keys (clearance) WHERE body IS NOT NULL;",
};
const struct store_schema idempotency_schema = {"idempotency", versions, 2};

/* Keyed hashes: neither key nor request nor user can be guessed at rest. */
struct names {
    uint8_t name[NAME_BYTES], request[NAME_BYTES], user[NAME_BYTES];
};

struct kept {
    int64_t made_us;
    int http_status;
    bool same_request, within_rights, has_body;
    struct span reference, body;
};

static status read_number(int64_t *ret, struct silo *silo, const char *sql, struct fault *fault)
{
    _cleanup_statement_ struct statement *read = NULL;
    TRY(statement_open(&read, silo->store, sql, fault));
    status stepped = statement_step(read, fault);
    if (stepped != OK && stepped != NOT_FOUND)
        return stepped;
    *ret = stepped == OK ? statement_int(read, 0) : 0;
    return OK;
}

static status read_first(struct idempotency_state *state, struct silo *silo, struct fault *fault)
{
    _cleanup_statement_ struct statement *first = NULL;
    TRY(statement_open(&first, silo->store,
                       "SELECT n, made_at FROM idempotency_keys ORDER BY n LIMIT 1", fault));
    status stepped = statement_step(first, fault);
    if (stepped != OK && stepped != NOT_FOUND)
        return stepped;
    state->first = stepped == OK ? statement_int(first, 0) : state->next;
    state->first_made_us = stepped == OK ? statement_int(first, 1) : 0;
    return OK;
}

static status know(struct silo *silo, struct fault *fault)
{
    struct idempotency_state found = {.known = true};
    if (silo->idempotency.known)
        return OK;
    TRY(store_has(&found.exists, silo->store, &idempotency_schema, fault));
    if (found.exists) {
        TRY(store_migrate(silo->store, &idempotency_schema, fault));
        TRY(read_number(&found.next, silo, "SELECT max(n) + 1 FROM idempotency_keys", fault));
        TRY(read_first(&found, silo, fault));
        TRY(read_number(&found.answers, silo,
                        "SELECT count(*) FROM idempotency_keys WHERE body IS NOT NULL", fault));
    }
    silo->idempotency = found;
    return OK;
}

static status make(struct silo *silo, struct fault *fault)
{
    TRY(know(silo, fault));
    if (silo->idempotency.exists)
        return OK;
    TRY(store_migrate(silo->store, &idempotency_schema, fault));
    silo->idempotency.exists = true;
    return OK;
}

void idempotency_forget(struct silo *silo)
{
    silo->idempotency.known = false;
}

bool idempotency_is_asked(const struct silo_request *request)
{
    return request->idempotency_key.length > 0
           && span_is(span_of_text(request->action->method), "POST");
}

/* ---- names ---- */

static status check_key(struct span key, struct fault *fault)
{
    bool ok = key.length <= KEY_MAX;
    for (size_t i = 0; ok && i < key.length; i++)
        ok = key.data[i] > 0x20 && key.data[i] < 0x7f;
    return ok ? OK : FAIL(BAD_REQUEST, fault, "Idempotency-Key: must be 1 to %d visible ASCII "
                          "characters", (int)KEY_MAX);
}

static void put_name(uint8_t ret[NAME_BYTES], const struct silo *silo, const struct buffer *facts)
{
    uint8_t digest[HASH_BYTES];
    hash_keyed(digest, SPAN_OF(silo->keys->idempotency), buffer_span(facts));
    for (size_t i = 0; i < NAME_BYTES; i++)
        ret[i] = digest[i];
}

static status name_user(uint8_t ret[NAME_BYTES], const struct call *call, struct fault *fault)
{
    uint8_t storage[USER_MAX + 8];
    struct buffer facts = buffer_over(storage, sizeof storage);
    buffer_put_u8(&facts, 'U');
    buffer_put_text_field(&facts, call->request->envelope->user);
    TRY(buffer_check(&facts, "user", fault));
    put_name(ret, call->silo, &facts);
    return OK;
}

/* Who, under which key, which line. The first byte parts the sorts of names. */
static status name_key(uint8_t ret[NAME_BYTES], const struct call *call, struct fault *fault)
{
    uint8_t storage[USER_MAX + KEY_MAX + 32];
    struct buffer facts = buffer_over(storage, sizeof storage);
    buffer_put_u8(&facts, 'K');
    buffer_put_text_field(&facts, call->request->envelope->user);
    buffer_put_field(&facts, call->request->idempotency_key);
    buffer_put_u64(&facts, call->request->line);
    TRY(buffer_check(&facts, "Idempotency-Key", fault));
    put_name(ret, call->silo, &facts);
    return OK;
}

/* What was asked: as many digests as there are parts, so that no boundary can be moved. */
static status name_request(uint8_t ret[NAME_BYTES], const struct call *call, struct fault *fault)
{
    const struct silo_request *request = call->request;
    const struct envelope *envelope = request->envelope;
    struct span parts[REQUEST_PARTS] = {span_of_text(request->action->name), request->query,
                                        request->content_type, request->body};
    uint32_t count = 4;
    for (uint32_t i = 0; i < envelope->id_count; i++)
        parts[count++] = envelope->ids[i];
    uint8_t storage[1 + REQUEST_PARTS * HASH_BYTES];
    struct buffer facts = buffer_over(storage, sizeof storage);
    buffer_put_u8(&facts, 'R');
    for (uint32_t i = 0; i < count; i++) {
        uint8_t digest[HASH_BYTES];
        hash(digest, parts[i]);
        buffer_put(&facts, SPAN_OF(digest));
    }
    TRY(buffer_check(&facts, "Idempotency-Key", fault));
    put_name(ret, call->silo, &facts);
    return OK;
}

/* ---- what is kept ---- */

/* What was answered under a higher clearance or a wider scope is not for the caller of now. */
static bool is_within_rights(const struct envelope *now, int64_t clearance, uint64_t scopes)
{
    return clearance >= 0 && clearance < CLEARANCE_COUNT
           && clearance_covers(now->clearance, (enum clearance)clearance)
           && (scopes & ~now->scopes) == 0;
}

static status copy_kept(struct span *ret, const struct call *call, struct span bytes,
                        struct fault *fault)
{
    *ret = (struct span){0};
    if (bytes.length == 0)
        return OK;
    *ret = arena_copy(call->request->arena, bytes);
    return ret->data != NULL ? OK
        : FAIL(TOO_LARGE, fault, "the answer does not fit the memory of one request");
}

/* *ret_found: the key served within the last 24 hours. */
static status find(struct kept *ret, bool *ret_found, const struct call *call,
                   const struct names *names, struct fault *fault)
{
    struct kept kept = {0};
    *ret_found = false;
    TRY(know(call->silo, fault));
    if (!call->silo->idempotency.exists)
        return OK;
    _cleanup_statement_ struct statement *row = NULL;
    TRY(statement_open(&row, call->store,
                       "SELECT request, made_at, http_status, clearance, scopes, reference, body "
                       "FROM idempotency_keys WHERE name = ?1", fault));
    statement_bind_blob(row, 1, SPAN_OF(names->name));
    status stepped = statement_step(row, fault);
    if (stepped == NOT_FOUND)
        return OK;
    TRY(stepped);
    kept.made_us = statement_int(row, 1);
    if (kept.made_us + LIFE_US <= call->request->now_us)
        return OK;
    kept.same_request = span_equal(statement_span(row, 0), SPAN_OF(names->request));
    kept.http_status = (int)statement_int(row, 2);
    kept.within_rights = is_within_rights(call->request->envelope, statement_int(row, 3),
                                          (uint64_t)statement_int(row, 4));
    kept.has_body = !statement_is_null(row, 6);
    TRY(copy_kept(&kept.reference, call, statement_span(row, 5), fault));
    if (kept.same_request && kept.within_rights)
        TRY(copy_kept(&kept.body, call, statement_span(row, 6), fault));
    *ret = kept;
    *ret_found = true;
    return OK;
}

static status read_user(int64_t *ret_keys, const struct call *call, const struct names *names,
                        struct fault *fault)
{
    _cleanup_statement_ struct statement *read = NULL;
    TRY(statement_open(&read, call->store, "SELECT keys FROM idempotency_users WHERE user = ?1",
                       fault));
    statement_bind_blob(read, 1, SPAN_OF(names->user));
    status stepped = statement_step(read, fault);
    if (stepped != OK && stepped != NOT_FOUND)
        return stepped;
    *ret_keys = stepped == OK ? statement_int(read, 0) : 0;
    return OK;
}

static status count_user(const struct call *call, const struct names *names, int64_t more,
                         struct fault *fault)
{
    _cleanup_statement_ struct statement *count = NULL;
    TRY(statement_open(&count, call->store,
                       "INSERT INTO idempotency_users (user, keys) VALUES (?1, ?2) "
                       "ON CONFLICT (user) DO UPDATE SET keys = keys + ?2", fault));
    statement_bind_blob(count, 1, SPAN_OF(names->user));
    statement_bind_int(count, 2, more);
    return statement_run(count, fault);
}

/* A user may have as many as there is room left: so none can take all of it from the others. */
static status make_room(const struct call *call, const struct names *names, struct fault *fault)
{
    bool more;
    int64_t keys;
    struct silo *silo = call->silo;
    const struct idempotency_state *state = &silo->idempotency;
    if (state->next - state->first >= IDEMPOTENCY_KEYS_MAX && idempotency_is_due(silo))
        TRY(idempotency_expire(&more, silo, fault));
    TRY(read_user(&keys, call, names, fault));
    if (keys >= IDEMPOTENCY_KEYS_MAX - (state->next - state->first))
        return FAIL(QUOTA_EXCEEDED, fault, "Idempotency-Key: %lld of the last 24 hours are kept "
                    "for this user, no more fit", (long long)keys);
    return OK;
}

/* The oldest go: what a repeat then carries out anew has no effect. */
static status make_room_for_answer(struct silo *silo, struct fault *fault)
{
    if (silo->idempotency.answers < IDEMPOTENCY_ANSWERS_MAX)
        return OK;
    TRY(store_execute(silo->store,
                      "UPDATE idempotency_keys SET body = NULL WHERE n IN (SELECT n FROM "
                      "idempotency_keys WHERE body IS NOT NULL ORDER BY n LIMIT 64)", fault));
    silo->idempotency.answers -= store_changes(silo->store);
    return OK;
}

static bool may_store_answer(const struct call *call)
{
    const struct silo_response *response = call->response;
    return !call->request->action->mutates && response->header_count == 0
           && response->download == NULL && !response->body->failed
           && response->body->length > 0 && response->body->length <= IDEMPOTENCY_ANSWER_MAX;
}

/* A read that was carried out anew under its key: in its place, so that no number is used up. */
static status refresh(bool *ret_done, struct call *call, const struct names *names,
                      bool with_answer, struct fault *fault)
{
    const struct envelope *envelope = call->request->envelope;
    _cleanup_statement_ struct statement *put = NULL;
    TRY(statement_open(&put, call->store,
                       "UPDATE idempotency_keys SET http_status = ?3, clearance = ?4, "
                       "scopes = ?5, body = ?6 WHERE name = ?1 AND made_at > ?2", fault));
    statement_bind_blob(put, 1, SPAN_OF(names->name));
    statement_bind_int(put, 2, call->request->now_us - LIFE_US);
    statement_bind_int(put, 3, call->response->http_status);
    statement_bind_int(put, 4, (int64_t)envelope->clearance);
    statement_bind_int(put, 5, (int64_t)envelope->scopes);
    if (with_answer)
        statement_bind_blob(put, 6, buffer_span(call->response->body));
    TRY(statement_run(put, fault));
    *ret_done = store_changes(call->store) > 0;
    return OK;
}

/* The same name, past its day. */
static status drop_old(struct call *call, const struct names *names, struct fault *fault)
{
    _cleanup_statement_ struct statement *drop = NULL;
    TRY(statement_open(&drop, call->store, "DELETE FROM idempotency_keys WHERE name = ?1", fault));
    statement_bind_blob(drop, 1, SPAN_OF(names->name));
    TRY(statement_run(drop, fault));
    return store_changes(call->store) > 0 ? count_user(call, names, -1, fault) : OK;
}

static status insert(struct call *call, const struct names *names, bool with_answer,
                     struct fault *fault)
{
    const struct envelope *envelope = call->request->envelope;
    struct idempotency_state *state = &call->silo->idempotency;
    _cleanup_statement_ struct statement *put = NULL;
    TRY(statement_open(&put, call->store,
                       "INSERT INTO idempotency_keys (n, name, request, made_at, http_status, "
                       "clearance, scopes, reference, body, user) "
                       "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)", fault));
    statement_bind_int(put, 1, state->next);
    statement_bind_blob(put, 2, SPAN_OF(names->name));
    statement_bind_blob(put, 3, SPAN_OF(names->request));
    statement_bind_int(put, 4, call->request->now_us);
    statement_bind_int(put, 5, call->response->http_status);
    statement_bind_int(put, 6, (int64_t)envelope->clearance);
    statement_bind_int(put, 7, (int64_t)envelope->scopes);
    if (call->reference.length > 0)
        statement_bind_blob(put, 8, call->reference);
    if (with_answer)
        statement_bind_blob(put, 9, buffer_span(call->response->body));
    statement_bind_blob(put, 10, SPAN_OF(names->user));
    TRY(statement_run(put, fault));
    if (state->next == state->first)
        state->first_made_us = call->request->now_us;
    state->next++;
    return count_user(call, names, 1, fault);
}

static status keep_in_savepoint(struct call *call, const struct names *names,
                                struct fault *fault)
{
    struct silo *silo = call->silo;
    bool with_answer = may_store_answer(call), done;
    TRY(make(silo, fault));
    if (with_answer)
        TRY(make_room_for_answer(silo, fault));
    TRY(refresh(&done, call, names, with_answer, fault));
    if (!done) {
        TRY(make_room(call, names, fault));
        TRY(drop_old(call, names, fault));
        TRY(insert(call, names, with_answer, fault));
    }
    silo->idempotency.answers += with_answer; /* one replaced is counted until it is read again */
    return OK;
}

static status keep(struct call *call, const struct names *names, struct fault *fault)
{
    struct silo *silo = call->silo;
    struct fault undo_fault;
    assert(call->reference.length <= IDEMPOTENCY_REFERENCE_MAX);
    TRY(silo_write(silo, fault));
    TRY(store_savepoint(silo->store, fault));
    status kept = keep_in_savepoint(call, names, fault);
    if (kept == OK) {
        silo->wrote = true;
        return store_release(silo->store, fault);
    }
    idempotency_forget(silo);
    if (store_undo(silo->store, &undo_fault) != OK)
        return FAIL(INTERNAL, fault, "%s", undo_fault.detail);
    /* a read promises nothing that it could break: it is answered, and not kept */
    return kept == QUOTA_EXCEEDED && !call->request->action->mutates ? OK : kept;
}

/* ---- the repeat ---- */

static void mark_replayed(struct call *call)
{
    struct silo_response *response = call->response;
    struct silo_header *header = &response->headers[response->header_count++];
    assert(response->header_count <= sizeof response->headers / sizeof *response->headers);
    header->kind = RELAY_IDEMPOTENT_REPLAYED;
    bool fits = span_to_text(header->value, sizeof header->value, SPAN("true"));
    assert(fits);
    call->replayed = true;
}

static status repeat_mutation(struct call *call, const struct kept *kept, silo_replay *replay,
                              struct fault *fault)
{
    if (!kept->within_rights)
        return FAIL(CONFLICT, fault, "Idempotency-Key: was used with more rights than the caller "
                    "has now");
    TRY(replay(call, kept->http_status, kept->reference, fault));
    mark_replayed(call);
    return OK;
}

/* What is past its time may not be shown again, deleted already or not. */
static bool is_fresh(const struct call *call)
{
    int64_t due_us = silo_content_due_us(call->silo);
    return due_us == 0 || due_us > call->request->now_us;
}

/* *ret_done: answered. Else it is to be carried out. */
static status repeat(bool *ret_done, struct call *call, const struct names *names,
                     silo_replay *replay, struct fault *fault)
{
    struct kept kept;
    bool found;
    *ret_done = false;
    TRY(find(&kept, &found, call, names, fault));
    if (!found)
        return OK;
    if (!kept.same_request)
        return FAIL(CONFLICT, fault, "Idempotency-Key: was used with another request");
    if (call->request->action->mutates) {
        *ret_done = true;
        return repeat_mutation(call, &kept, replay, fault);
    }
    if (!kept.has_body || !kept.within_rights || !is_fresh(call))
        return OK;
    buffer_put(call->response->body, kept.body);
    call->response->http_status = kept.http_status;
    mark_replayed(call);
    *ret_done = true;
    return OK;
}

status idempotency_run(struct call *call, silo_handler *handler, silo_replay *replay,
                       struct fault *fault)
{
    struct names names;
    bool done;
    if (!idempotency_is_asked(call->request))
        return handler(call, fault);
    if (replay == NULL && call->request->action->mutates)
        return FAIL(NOT_IMPLEMENTED, fault, "Idempotency-Key: this action takes none");
    TRY(check_key(call->request->idempotency_key, fault));
    TRY(name_user(names.user, call, fault));
    TRY(name_key(names.name, call, fault));
    TRY(name_request(names.request, call, fault));
    TRY(repeat(&done, call, &names, replay, fault));
    if (done)
        return OK;
    TRY(handler(call, fault));
    return keep(call, &names, fault);
}

/* ---- forgetting ---- */

status idempotency_drop_answers(struct silo *silo, enum clearance lowest, struct fault *fault)
{
    TRY(know(silo, fault));
    if (silo->idempotency.answers == 0)
        return OK;
    _cleanup_statement_ struct statement *drop = NULL;
    TRY(statement_open(&drop, silo->store, "UPDATE idempotency_keys SET body = NULL "
                       "WHERE body IS NOT NULL AND clearance >= ?1", fault));
    statement_bind_int(drop, 1, (int64_t)lowest);
    TRY(statement_run(drop, fault));
    silo->idempotency.answers -= store_changes(silo->store);
    silo->wrote = true;
    return OK;
}

int64_t idempotency_due_us(struct silo *silo)
{
    const struct idempotency_state *state = &silo->idempotency;
    struct fault ignored;
    if (know(silo, &ignored) != OK || state->next == state->first)
        return 0;
    return state->first_made_us + LIFE_US + EXPIRE_TOGETHER_US;
}

bool idempotency_has_answers(struct silo *silo)
{
    struct fault ignored;
    return know(silo, &ignored) != OK || silo->idempotency.answers > 0;
}

bool idempotency_is_due(struct silo *silo)
{
    const struct idempotency_state *state = &silo->idempotency;
    struct fault ignored;
    return know(silo, &ignored) == OK && state->next > state->first
           && state->first_made_us + LIFE_US <= silo->now_us;
}

static status run_on_old(struct silo *silo, const char *sql, struct fault *fault)
{
    _cleanup_statement_ struct statement *run = NULL;
    TRY(statement_open(&run, silo->store, sql, fault));
    statement_bind_int(run, 1, silo->now_us - LIFE_US);
    statement_bind_int(run, 2, silo->idempotency.first + EXPIRE_STEP);
    return statement_run(run, fault);
}

/* The oldest first, up to the first that is not due: where the clock was set back, some wait for
 * it, and serve nobody meanwhile. */
status idempotency_expire(bool *ret_more, struct silo *silo, struct fault *fault)
{
    TRY(run_on_old(silo, "UPDATE idempotency_users SET keys = keys - old.count FROM "
                   "(SELECT user, count(*) AS count FROM idempotency_keys "
                   "WHERE n < ?2 AND made_at <= ?1 GROUP BY user) AS old "
                   "WHERE idempotency_users.user = old.user", fault));
    TRY(run_on_old(silo, "DELETE FROM idempotency_users WHERE keys <= 0 AND user IN "
                   "(SELECT user FROM idempotency_keys WHERE n < ?2 AND made_at <= ?1)", fault));
    TRY(run_on_old(silo, "DELETE FROM idempotency_keys WHERE n < ?2 AND made_at <= ?1", fault));
    silo->wrote |= store_changes(silo->store) > 0;
    silo->idempotency.known = false; /* answers went with them */
    TRY(know(silo, fault));
    *ret_more = idempotency_is_due(silo);
    return OK;
}
