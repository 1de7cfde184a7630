#include "silo/silo.h"

#include "base/clock.h"
#include "base/hex.h"
#include "base/secret.h"
#include "silo/audit.h"
#include "silo/charters.h"
#include "silo/evidence.h"
#include "silo/idempotency.h"
#include "silo/keys.h"
#include "silo/knowledge.h"
#include "silo/memory.h"
#include "silo/object.h"
#include "silo/object_upload.h"
#include "silo/schema.h"
#include "silo/tenant.h"
#include "silo/usage.h"
#include "silo/used_tokens.h"
#include "store/copy.h"

#include <assert.h>
#include <stdlib.h>

static const char *const state_sql[] = {
    "CREATE TABLE silo_state (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;",
};
const struct store_schema silo_state_schema = {"silo", state_sql, 1};

static silo_handler *const memory_handlers[MEMORY_ACTIONS] = {
    [MEMORY_ADD] = memory_add,
    [MEMORY_LIST] = memory_list,
    [MEMORY_FORGET_USER] = memory_forget_user,
    [MEMORY_SEARCH] = memory_search,
    [MEMORY_READ] = memory_read,
    [MEMORY_UPDATE] = memory_update,
    [MEMORY_DELETE] = memory_delete,
    [MEMORY_HISTORY] = memory_history,
};
static silo_handler *const knowledge_handlers[KNOWLEDGE_ACTIONS] = {
    [KNOWLEDGE_LIST] = knowledge_list,
    [KNOWLEDGE_BATCH] = knowledge_batch,
    [KNOWLEDGE_PUT] = knowledge_put,
    [KNOWLEDGE_READ] = knowledge_read,
    [KNOWLEDGE_DELETE] = knowledge_delete,
    [KNOWLEDGE_SEARCH] = knowledge_search,
};
static silo_handler *const object_handlers[OBJECT_ACTIONS] = {
    [OBJECT_PUT] = object_put,
    [OBJECT_GET] = object_get,
    [OBJECT_DELETE] = object_delete,
    [OBJECT_LIST] = object_list,
};
static silo_handler *const tenant_handlers[TENANT_ACTIONS] = {
    [TENANT_READ] = tenant_read,
};
static silo_handler *const evidence_handlers[EVIDENCE_ACTIONS] = {
    [EVIDENCE_LIST] = evidence_list,
    [EVIDENCE_CHECKPOINT] = evidence_checkpoint,
    [EVIDENCE_PROOF] = evidence_proof,
    [EVIDENCE_CONSISTENCY] = evidence_consistency,
    [EVIDENCE_EXPORT] = evidence_export,
    [EVIDENCE_HASH] = evidence_hash,
};
static silo_handler *const *const handlers[ACTION_KINDS] = {
    [ACTIONS_MEMORY] = memory_handlers,
    [ACTIONS_KNOWLEDGE] = knowledge_handlers,
    [ACTIONS_OBJECTS] = object_handlers,
    [ACTIONS_TENANT] = tenant_handlers,
    [ACTIONS_EVIDENCE] = evidence_handlers,
};

/* Of each POST that mutates. */
static silo_replay *const memory_replays[MEMORY_ACTIONS] = {
    [MEMORY_ADD] = memory_add_again,
};
static silo_replay *const knowledge_replays[KNOWLEDGE_ACTIONS] = {
    [KNOWLEDGE_BATCH] = knowledge_batch_again,
};
static silo_replay *const *const replays[ACTION_KINDS] = {
    [ACTIONS_MEMORY] = memory_replays,
    [ACTIONS_KNOWLEDGE] = knowledge_replays,
};

struct task {
    silo_handler *handler; /* NULL: not a row of the table */
    silo_replay *replay;
};

static struct task find_task(const struct action *action)
{
    for (uint32_t i = 0; i < action_table.count; i++)
        for (uint32_t row = 0; row < action_table.sets[i].count; row++)
            if (&action_table.sets[i].rows[row] == action)
                return (struct task){handlers[i][row], replays[i] ? replays[i][row] : NULL};
    return (struct task){0};
}

/* What begins an upload, by action. */
typedef status silo_upload_opener(struct silo_upload **ret, struct silo *silo,
                                  const struct silo_request *request, int64_t body_length,
                                  struct fault *fault);

static const struct {
    const struct action *action;
    silo_upload_opener *open;
} uploads[] = {{&object_actions[OBJECT_PUT], object_upload_open}};

static silo_upload_opener *find_upload(const struct action *action)
{
    for (size_t i = 0; i < sizeof uploads / sizeof *uploads; i++)
        if (uploads[i].action == action)
            return uploads[i].open;
    return NULL;
}

/* ---- what the kinds remember of the store ---- */

static void free_indexes(struct silo *silo)
{
    fulltext_free(&silo->memory.fulltext);
    fulltext_free(&silo->knowledge.fulltext);
}

static struct silo_marks mark_indexes(const struct silo *silo)
{
    return (struct silo_marks){fulltext_mark(&silo->memory.fulltext),
                               fulltext_mark(&silo->knowledge.fulltext)};
}

static void return_indexes(struct silo *silo, struct silo_marks marks)
{
    fulltext_return(&silo->memory.fulltext, marks.memory);
    fulltext_return(&silo->knowledge.fulltext, marks.knowledge);
}

/* Something was taken back. */
static void forget_kinds(struct silo *silo)
{
    memory_forget(silo);
    knowledge_forget(silo);
}

/* ---- opening ---- */

static status read_state(struct silo *silo, struct fault *fault)
{
    TRY(store_has(&silo->has_state, silo->store, &silo_state_schema, fault));
    silo->had_state = silo->has_state;
    if (!silo->has_state)
        return OK;
    TRY(store_migrate(silo->store, &silo_state_schema, fault));
    _cleanup_statement_ struct statement *read = NULL;
    TRY(statement_open(&read, silo->store,
                       "SELECT value FROM silo_state WHERE name = 'checkpoint'", fault));
    status found = statement_step(read, fault);
    if (found == NOT_FOUND)
        return OK;
    TRY(found);
    silo_keep_checkpoint(silo, statement_span(read, 0));
    silo->note_is_new = false;
    return OK;
}

/* The log must continue the one that was anchored: a store that was never rolled back may still
 * have been rewritten by whoever had its key. */
static status check_log(struct silo *silo, const struct anchor *anchor, struct fault *fault)
{
    struct hash_value root;
    uint64_t size = store_log_size(silo->log);
    if (size < anchor->log_size)
        return FAIL(ROLLED_BACK, fault, "the audit log has %llu entries, anchored were %llu",
                    (unsigned long long)size, (unsigned long long)anchor->log_size);
    if (anchor->log_size == 0)
        return OK;
    TRY(store_log_root_at(&root, silo->log, anchor->log_size, fault));
    if (!span_equal(SPAN_OF(root.bytes), SPAN_OF(anchor->log_root)))
        return FAIL(CORRUPT, fault, "the audit log is not the one that was anchored");
    return OK;
}

/* All tables at once, with the entry that says so. */
static status upgrade(struct silo *silo, const struct schema_plan *plan, struct fault *fault)
{
    TRY(schema_upgrade(silo, plan, fault));
    TRY(store_commit(silo->store, fault));
    store_log_committed(silo->log);
    audit_written(silo);
    return OK;
}

/* Nothing is written by a program that is older than the silo, nor before the silo is known to be
 * the one that was anchored. */
static status read_store(struct silo *silo, const struct anchor *anchor, struct fault *fault)
{
    struct schema_plan plan;
    TRY(schema_look(&plan, silo->store, &schema_rooms, fault));
    if (plan.count > 0)
        TRY(store_begin(silo->store, fault));
    TRY(store_log_open(&silo->log, silo->store, fault));
    TRY(read_state(silo, fault));
    TRY(keys_read(silo, fault));
    if (anchor != NULL)
        TRY(check_log(silo, anchor, fault));
    return plan.count > 0 ? upgrade(silo, &plan, fault) : OK;
}

static status open_store(struct silo *silo, const struct anchor *anchor, struct fault *fault)
{
    struct store_anchor known = {0};
    if (anchor != NULL) {
        known.commits = anchor->commits;
        known.map_generation = anchor->map_generation;
        for (size_t i = 0; i < sizeof known.map_hash; i++)
            known.map_hash[i] = anchor->map_hash[i];
    }
    const struct store_options options = {
        .silo_fd = silo->silo_fd,
        .silo_id = silo->tenant_id,
        .keys = silo->keys->deks,
        .key_count = silo->keys->dek_count,
        .anchor = &known,
        .io = silo->io,
    };
    TRY(store_open(&silo->store, &options, fault));
    status opened = read_store(silo, anchor, fault);
    if (opened != OK) { /* whole or not at all; the next request tries again, so the key stays */
        silo->log = store_log_close(silo->log);
        silo->store = store_abandon(silo->store);
        return opened;
    }
    keys_forget_data_keys(silo);
    return OK;
}

static status open_silo(struct silo *silo, const struct silo_opening *opening,
                        struct fault *fault)
{
    bool empty = opening->anchor.commits == 0 && opening->anchor.log_size == 0 &&
                 !store_exists(silo->silo_fd);
    TRY(keys_create(silo, opening, empty, fault));
    if (empty)
        return OK;
    return open_store(silo, &opening->anchor, fault);
}

/* Nothing more is written. */
static struct silo *drop(struct silo *silo)
{
    silo->log = store_log_close(silo->log);
    silo->store = store_abandon(silo->store);
    free_indexes(silo);
    keys_free(silo);
    objects_free(silo);
    if (silo->pending.bytes.data != NULL)
        secret_wipe(silo->pending.bytes.data, silo->pending.bytes.length);
    buffer_free(&silo->pending.bytes);
    charters_written(silo);
    free(silo);
    return NULL;
}

status silo_open(struct silo **ret, const struct silo_opening *opening, struct fault *fault)
{
    struct silo *silo = calloc(1, sizeof *silo);
    if (silo == NULL)
        return FAIL(INTERNAL, fault, "out of memory for a silo");
    silo->silo_fd = opening->silo_fd;
    silo->io = opening->io;
    silo->posture = opening->posture;
    silo->epoch = opening->anchor.epoch;
    silo->now_us = clock_wall_us();
    silo->memory.rewritten_us = silo->knowledge.rewritten_us = silo->now_us;
    silo->memory.fulltext.kind = &memory_fulltext;
    silo->knowledge.fulltext.kind = &knowledge_fulltext;
    for (size_t i = 0; i < TENANT_ID_BYTES; i++)
        silo->tenant_id[i] = opening->tenant_id[i];
    silo->has_platform_key = opening->platform_key != NULL;
    for (size_t i = 0; silo->has_platform_key && i < SIGN_PUBLIC_BYTES; i++)
        silo->platform_key[i] = opening->platform_key[i];
    hex_encode(silo->tenant_text, SPAN_OF(silo->tenant_id));
    usage_begin(silo);
    status opened = open_silo(silo, opening, fault);
    if (opened != OK) {
        drop(silo);
        return opened;
    }
    *ret = silo;
    return OK;
}

struct silo *silo_close(struct silo *silo)
{
    struct fault ignored; /* what could not be checkpointed stands in the WAL, durable as it is */
    if (silo == NULL)
        return NULL;
    silo->log = store_log_close(silo->log);
    if (silo->store != NULL) {
        status closed = store_close(silo->store, NULL, &ignored);
        (void)closed;
        silo->store = NULL;
    }
    objects_close(silo);
    return drop(silo);
}

struct silo *silo_abandon(struct silo *silo)
{
    if (silo == NULL)
        return NULL;
    silo->log = store_log_close(silo->log);
    silo->store = store_abandon(silo->store);
    free_indexes(silo);
    return drop(silo);
}

void silo_set_posture(struct silo *silo, const struct posture *posture, uint64_t sequence)
{
    silo->posture = *posture;
    silo->posture_sequence = sequence;
    silo->memory.due_known = false; /* by another retention */
}

/* ---- turns ---- */

void silo_begin(struct silo *silo, int64_t now_us)
{
    assert(silo->store == NULL || !store_in_transaction(silo->store));
    silo->now_us = now_us;
    silo->wrote = false;
    silo->read_strictly = false;
}

static status use_store(struct silo *silo, struct fault *fault)
{
    return silo->store != NULL ? OK : open_store(silo, NULL, fault);
}

status silo_write(struct silo *silo, struct fault *fault)
{
    TRY(use_store(silo, fault));
    return store_in_transaction(silo->store) ? OK : store_begin(silo->store, fault);
}

/* A transaction in which nothing was kept need not wait for a commit. */
static void end_idle(struct silo *silo)
{
    if (!silo->wrote && silo->store != NULL && store_in_transaction(silo->store)) {
        store_rollback(silo->store);
        return_indexes(silo, (struct silo_marks){0});
        used_tokens_forget(silo);
        idempotency_forget(silo);
        objects_taken_back(silo);
    }
}

/* Did it do more than add? Then no stored answer may show what was there. */
static bool has_replaced(const struct call *call)
{
    return !call->replayed && call->gone < CLEARANCE_COUNT
           && (call->response->http_status != 201
               || !span_is(span_of_text(call->request->action->method), "POST"));
}

static status carry_out(struct call *call, const struct task *task, struct fault *fault)
{
    TRY(idempotency_run(call, task->handler, task->replay, fault));
    return has_replaced(call)
               ? idempotency_drop_answers(call->silo, (enum clearance)call->gone, fault)
               : OK;
}

/* What a mutation did stays only together with its entry. It runs in the savepoint of prepare. */
static status mutate(struct call *call, const struct task *task, struct fault *fault)
{
    struct silo *silo = call->silo;
    struct fault entry_fault;
    status done = carry_out(call, task, fault);
    status noted = audit_request(call, done, &entry_fault);
    if (done == OK && noted == OK) {
        silo->wrote = true;
        TRY(store_release(silo->store, fault));
        if (call->request->upload != NULL)
            objects_take(silo, call->request->upload);
        return OK;
    }
    forget_kinds(silo);
    return_indexes(silo, call->marks);
    idempotency_forget(silo);
    objects_undone(silo, call->objects_mark);
    struct fault undo_fault;
    status undone = store_undo(silo->store, &undo_fault);
    end_idle(silo);
    if (noted != OK)
        return FAIL(noted, fault, "%s", entry_fault.detail);
    return undone == OK || done != OK ? done : FAIL(undone, fault, "%s", undo_fault.detail);
}

static status look(struct call *call, const struct task *task, struct fault *fault)
{
    struct fault entry_fault;
    status done = idempotency_run(call, task->handler, NULL, fault);
    end_idle(call->silo); /* a search may have begun to repair an index, in vain */
    call->silo->read_strictly |= call->silo->posture.audit_strict;
    status noted = audit_request(call, done, &entry_fault);
    if (noted != OK)
        return FAIL(noted, fault, "%s", entry_fault.detail);
    return done;
}

/* Whatever the handler says: the token has served. In a savepoint: no table is left half made. */
static status use_token(const struct call *call, struct fault *fault)
{
    struct silo *silo = call->silo;
    struct fault undo_fault;
    TRY(silo_write(silo, fault));
    TRY(store_savepoint(silo->store, fault));
    status used = used_token_take(silo, call->request, fault);
    if (used == OK) {
        call->response->token_used = true;
        silo->wrote = true;
        return store_release(silo->store, fault);
    }
    used_tokens_forget(silo);
    status undone = store_undo(silo->store, &undo_fault);
    return undone == OK ? used : FAIL(undone, fault, "%s", undo_fault.detail);
}

static status prepare(struct call *call, struct fault *fault)
{
    struct silo *silo = call->silo;
    TRY(use_store(silo, fault));
    call->store = silo->store;
    TRY(memory_know(silo, fault));
    TRY(knowledge_know(silo, fault));
    if (call->request->token_once.length > 0)
        TRY(use_token(call, fault));
    if (!call->request->action->mutates)
        return OK;
    TRY(silo_write(silo, fault));
    call->marks = mark_indexes(silo);
    call->objects_mark = objects_mark(silo);
    return store_savepoint(silo->store, fault);
}

/* A request that does not come as far as its handler has its entry, too. */
static status turn_away(struct call *call, status why, struct fault *fault)
{
    struct fault entry_fault;
    end_idle(call->silo);
    status noted = audit_request(call, why, &entry_fault);
    return noted == OK ? why : FAIL(noted, fault, "%s", entry_fault.detail);
}

static status handle(struct call *call, struct fault *fault)
{
    const struct task task = find_task(call->request->action);
    assert(task.handler != NULL);
    TRY(audit_has_room(call->silo, fault));
    status ready = prepare(call, fault);
    if (ready != OK)
        return turn_away(call, ready, fault);
    return call->request->action->mutates ? mutate(call, &task, fault)
                                          : look(call, &task, fault);
}

status silo_handle(struct silo_response *response, struct silo *silo,
                   const struct silo_request *request, struct fault *fault)
{
    struct call call = {.silo = silo, .request = request, .response = response,
                        .classification = -1, .count = -1,
                        .writes = request->action->mutates || idempotency_is_asked(request)};
    /* the wall between tenants, once more: an envelope of another tenant must never come so far */
    assert(span_is(span_of_text(request->envelope->tenant), silo->tenant_text));
    assert(request->envelope->action == request->action);
    status done = handle(&call, fault);
    if (done != OK) {
        buffer_clear(response->body);
        response->download = silo_download_close(response->download);
    }
    return done;
}

status silo_refuse(struct silo *silo, const struct silo_request *request, status why,
                   struct fault *fault)
{
    struct call call = {.silo = silo, .request = request, .classification = -1, .count = -1};
    assert(why != OK);
    assert(span_is(span_of_text(request->envelope->tenant), silo->tenant_text));
    if (request->envelope->id_count > 0)
        call.item = request->envelope->ids[0];
    return audit_request(&call, why, fault);
}

status silo_note_denials(struct silo *silo, const char *action, status why, const char *subject,
                         uint64_t count, struct fault *fault)
{
    assert(why != OK);
    return audit_denials(silo, action, why, subject, count, fault);
}

bool silo_must_commit(const struct silo *silo)
{
    return silo->wrote || silo->read_strictly || audit_is_urgent(silo);
}

int64_t silo_pending_since_us(const struct silo *silo)
{
    return silo->pending.since_us;
}

static status write_note(struct silo *silo, struct fault *fault)
{
    if (!silo->note_is_new)
        return OK;
    if (!silo->has_state) {
        TRY(store_migrate(silo->store, &silo_state_schema, fault));
        silo->has_state = true;
    }
    _cleanup_statement_ struct statement *put = NULL;
    TRY(statement_open(&put, silo->store,
                       "INSERT OR REPLACE INTO silo_state (name, value) "
                       "VALUES ('checkpoint', ?1)", fault));
    statement_bind_blob(put, 1, (struct span){silo->note, silo->note_length});
    return statement_run(put, fault);
}

static status write_all(struct silo *silo, struct fault *fault)
{
    TRY(fulltext_settle(&silo->memory.fulltext, silo, fault));
    TRY(fulltext_settle(&silo->knowledge.fulltext, silo, fault));
    TRY(audit_write(silo, fault));
    TRY(write_note(silo, fault));
    TRY(usage_write(silo, fault));
    TRY(charters_write(silo, fault));
    TRY(keys_write(silo, fault));
    return store_commit(silo->store, fault);
}

static void take_back(struct silo *silo)
{
    store_rollback(silo->store);
    store_log_rolled_back(silo->log);
    audit_taken_back(silo);
    forget_kinds(silo);
    return_indexes(silo, (struct silo_marks){0});
    used_tokens_forget(silo);
    idempotency_forget(silo);
    usage_taken_back(silo);
    objects_taken_back(silo);
    silo->has_state = silo->had_state;
}

status silo_commit(struct silo *silo, struct fault *fault)
{
    bool open = silo->store != NULL && store_in_transaction(silo->store);
    silo->wrote = false;
    silo->read_strictly = false;
    if (silo->pending.count == 0 && !open && !silo->usage.settle
        && (silo->store == NULL || !keys_unwritten(silo)))
        return OK;
    TRY(silo_write(silo, fault));
    status committed = write_all(silo, fault);
    if (committed != OK) {
        take_back(silo);
        return committed;
    }
    store_log_committed(silo->log);
    return_indexes(silo, (struct silo_marks){0});
    audit_written(silo);
    objects_committed(silo);
    silo->had_state = silo->has_state;
    silo->note_is_new = false;
    usage_written(silo);
    charters_written(silo);
    keys_written(silo);
    return OK;
}

status silo_upload_begin(struct silo_upload **ret, struct silo *silo,
                         const struct silo_request *request, int64_t body_length,
                         struct fault *fault)
{
    silo_upload_opener *const open = find_upload(request->action);
    assert(open != NULL);
    assert(span_is(span_of_text(request->envelope->tenant), silo->tenant_text));
    TRY(use_store(silo, fault));
    return open(ret, silo, request, body_length, fault);
}

status silo_upload_put(struct silo_upload *upload, struct span bytes, struct fault *fault)
{
    return upload->put(upload, bytes, fault);
}

status silo_upload_end(struct silo_upload *upload, struct fault *fault)
{
    return upload->end(upload, fault);
}

struct silo_upload *silo_upload_drop(struct silo_upload *upload)
{
    if (upload != NULL)
        upload->drop(upload);
    return NULL;
}

status silo_download_read(struct buffer *out, bool *ret_end, struct silo_download *download,
                          size_t max, struct fault *fault)
{
    return download->read(out, ret_end, download, max, fault);
}

struct silo_download *silo_download_close(struct silo_download *download)
{
    if (download != NULL)
        download->close(download);
    return NULL;
}

/* ---- anchor, expiry, what the supervisor wants to know ---- */

static status prove(struct hash_value *proof, uint32_t *ret_count, struct silo *silo,
                    uint64_t from, struct fault *fault)
{
    if (silo->store != NULL)
        return store_log_consistency(proof, ret_count, silo->log, from,
                                     store_log_size(silo->log), fault);
    if (from != 0)
        return FAIL(BAD_FIELD, fault, "the log is empty");
    *ret_count = 0;
    return OK;
}

status silo_anchor(struct anchor *ret, struct hash_value *proof, uint32_t *ret_proof_count,
                   struct silo *silo, uint64_t anchored_log_size, struct fault *fault)
{
    const struct merkle_edge nothing = {0};
    struct anchor anchor = {.epoch = silo->epoch};
    struct hash_value root = merkle_root(&nothing);
    TRY(prove(proof, ret_proof_count, silo, anchored_log_size, fault));
    if (silo->store != NULL) {
        struct store_anchor durable = store_anchor(silo->store);
        anchor.commits = durable.commits;
        anchor.map_generation = durable.map_generation;
        for (size_t i = 0; i < sizeof anchor.map_hash; i++)
            anchor.map_hash[i] = durable.map_hash[i];
        anchor.log_size = store_log_size(silo->log);
        root = store_log_root(silo->log);
    }
    for (size_t i = 0; i < HASH_BYTES; i++)
        anchor.log_root[i] = root.bytes[i];
    *ret = anchor;
    return OK;
}

status silo_checkpoint(struct silo *silo, struct fault *fault)
{
    return silo->store != NULL ? store_checkpoint(silo->store, fault) : OK;
}

void silo_keep_checkpoint(struct silo *silo, struct span note)
{
    if (note.length > sizeof silo->note)
        return; /* none of ours is so long: an export without it says so */
    for (size_t i = 0; i < note.length; i++)
        silo->note[i] = note.data[i];
    silo->note_length = (uint32_t)note.length;
    silo->note_is_new = true;
}

int64_t silo_content_due_us(struct silo *silo)
{
    return memory_due_us(silo);
}

/* What goes now may stand in an answer. */
static status drop_stale_answers(struct silo *silo, struct fault *fault)
{
    int64_t due_us = silo_content_due_us(silo);
    if (due_us == 0 || due_us > silo->now_us || !idempotency_has_answers(silo))
        return OK;
    TRY(silo_write(silo, fault));
    return idempotency_drop_answers(silo, CLEARANCE_PUBLIC, fault);
}

static status expire_rows(bool *ret_more, struct silo *silo, bool parking, struct fault *fault)
{
    status done = drop_stale_answers(silo, fault);
    if (done == OK)
        done = memory_expire(ret_more, silo, parking, fault);
    if (done == OK && !*ret_more)
        done = knowledge_tend(ret_more, silo, parking, fault);
    if (done == OK && !*ret_more && used_tokens_due(silo)) {
        done = silo_write(silo, fault);
        if (done == OK)
            done = used_tokens_expire(ret_more, silo, fault);
    }
    if (done == OK && !*ret_more && idempotency_is_due(silo)) {
        done = silo_write(silo, fault);
        if (done == OK)
            done = idempotency_expire(ret_more, silo, fault);
    }
    return done;
}

status silo_expire(bool *ret_more, struct silo *silo, int64_t now_us, bool parking,
                   struct fault *fault)
{
    silo->now_us = now_us;
    *ret_more = false;
    status done = silo->store != NULL ? expire_rows(ret_more, silo, parking, fault) : OK;
    if (done == OK && !*ret_more)
        done = objects_sweep(ret_more, silo, fault);
    end_idle(silo);
    return done;
}

status silo_add_key(struct silo *silo, const struct store_key *key, struct fault *fault)
{
    if (silo->store != NULL)
        TRY(store_add_key(silo->store, key, fault));
    else
        TRY(keys_replace(silo, key, silo->pending.count == 0, fault));
    keys_take_newest(silo, key);
    keys_outlive(silo);
    return OK;
}

status silo_reseal(bool *ret_more, struct silo *silo, uint32_t pages, struct fault *fault)
{
    bool more = false;
    if (silo->store != NULL && store_is_held(silo->store)) { /* by a backup: after it */
        *ret_more = true;
        return OK;
    }
    if (silo->store != NULL)
        TRY(store_reseal(&more, silo->store, pages, fault));
    /* without a store nothing is sealed, but entries that wait may hold what was derived */
    bool derived = silo->store != NULL || silo->pending.count > 0;
    *ret_more = more || (derived && keys_unwritten(silo));
    return OK;
}

bool silo_keys_wait(const struct silo *silo)
{
    return silo->store != NULL && keys_unwritten(silo);
}

status silo_drop_keys(struct silo *silo, struct fault *fault)
{
    return silo->store != NULL ? store_drop_keys(silo->store, fault) : OK;
}

/* 0: never. */
static int64_t earlier(int64_t left_us, int64_t right_us)
{
    if (left_us == 0 || right_us == 0)
        return left_us + right_us;
    return left_us < right_us ? left_us : right_us;
}

int64_t silo_next_expiry_us(struct silo *silo)
{
    if (objects_sweep_due(silo))
        return 1; /* at once */
    if (silo->store == NULL)
        return 0;
    int64_t due_us = earlier(silo_content_due_us(silo), idempotency_due_us(silo));
    return earlier(due_us, knowledge_due_us(silo));
}

void silo_trim(struct silo *silo)
{
    fulltext_trim(&silo->memory.fulltext);
    fulltext_trim(&silo->knowledge.fulltext);
    if (silo->store != NULL)
        store_trim(silo->store);
}

uint64_t silo_bytes(struct silo *silo)
{
    return silo->store != NULL ? store_bytes_used(silo->store) + objects_bytes(silo) : 0;
}

uint32_t silo_damage(struct silo *silo, char *where, size_t size)
{
    struct buffer text = buffer_over((uint8_t *)where, size - 1);
    struct store_damage damage = {0};
    if (silo->store != NULL)
        damage = store_damage(silo->store);
    if (damage.count > 0)
        buffer_printf(&text, "%s page %u", damage.last_file, damage.last_page);
    where[text.length] = '\0';
    return damage.count < UINT32_MAX ? (uint32_t)damage.count : UINT32_MAX;
}
