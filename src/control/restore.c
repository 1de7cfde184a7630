/* restore.c: the silo of a tenant is replaced by one made from backups, and its anchor moved: the
 * one way by which a tenant's time goes back, and each time it is in the ledger.
 *
 * What a crash leaves is decided by three durable facts: the row of table `restore`, the anchor in
 * the kms, the directories of the supervisor.
 *   row without anchor   -> the silo is being made beside the one in place
 *   row with its anchor  -> it is whole and verified; the kms may have been told, or not
 *   anchor of the kms is the row's -> it takes its place; then row away, ledger, in one commit
 * Until the kms has the new anchor, all is undone by removing what was made; from then on, all is
 * done by putting it in place: the anchor always fits one of the two directories, and the row says
 * that there may be two. No cell of the tenant wakes meanwhile. */
#include "base/cleanup.h"
#include "base/hex.h"
#include "base/log.h"
#include "control/control.h"

#include <stdlib.h>
#include <string.h>

enum {
    BLANK_RETRY_US = 20 * 1000,
    BLANK_TRIES = 250,
    SETTLE_RETRY_US = 1000 * 1000,
    TIME_SIZE = 40,
};

static const char *const versions[] = {
    "CREATE TABLE restore("
    " id BLOB PRIMARY KEY CHECK(length(id)=16),"
    " state INTEGER NOT NULL," /* of the tenant, to go back to */
    " operator INTEGER NOT NULL,"
    " anchor BLOB,"            /* of the silo that was made */
    " detail TEXT"             /* of the entry in the ledger */
    ") WITHOUT ROWID;",
};
static const struct store_schema schema = {"restore", versions,
                                           sizeof versions / sizeof versions[0]};

struct restore {
    struct control *control;
    struct tenant tenant; /* its state: the one to go back to */
    int64_t operator_uid;
    int kms_admin;        /* -1: nobody is connected */
    int backups;          /* -1: taken */
    bool made;
    struct anchor anchor; /* of what was made */
    struct buffer detail;
    uint32_t tries;
    status why;           /* of a restore that is undone */
    struct fault fault;
    struct loop_timer timer;
    struct outcome outcome;
    struct restore *next;
};

bool restore_under_way(const struct control *control, const uint8_t id[TENANT_ID_BYTES])
{
    const struct restore *restore = control->restores;
    while (restore && !span_equal(SPAN_OF(restore->tenant.id), (struct span){id, TENANT_ID_BYTES}))
        restore = restore->next;
    return restore != NULL;
}

static struct restore *keep(struct control *control, const struct tenant *tenant)
{
    struct restore *restore = calloc(1, sizeof *restore);
    if (!restore)
        return NULL;
    *restore = (struct restore){.control = control, .tenant = *tenant, .kms_admin = -1,
                                .backups = -1, .operator_uid = -1, .detail = buffer_of(KIB(4)),
                                .next = control->restores};
    control->restores = restore;
    return restore;
}

static void finish(struct restore *restore, status code, const char *detail, struct span json)
{
    struct restore **at = &restore->control->restores;
    while (*at != restore)
        at = &(*at)->next;
    *at = restore->next;
    loop_timer_stop(restore->control->loop, &restore->timer);
    if (restore->backups >= 0)
        close(restore->backups);
    gateways_tell_changed(restore->control, restore->tenant.id);
    if (restore->outcome.done)
        restore->outcome.done(restore->outcome.context, code, detail, json);
    else
        log_event(code == OK ? LOG_INFO : LOG_WARN, "restore.settled", "%s: %s",
                  restore->tenant.name, code == OK ? "the restored silo is in place" : detail);
    buffer_free(&restore->detail);
    free(restore);
}

/* ---- the row ---- */

static status insert_row(const struct restore *restore, struct fault *fault)
{
    _cleanup_statement_ struct statement *insert = NULL;
    struct control *control = restore->control;
    TRY(store_migrate(control->store, &schema, fault));
    TRY(statement_open(&insert, control->store,
                       "INSERT OR REPLACE INTO restore(id, state, operator) VALUES(?1, ?2, ?3)",
                       fault));
    statement_bind_blob(insert, 1, SPAN_OF(restore->tenant.id));
    statement_bind_int(insert, 2, restore->tenant.state);
    statement_bind_int(insert, 3, restore->operator_uid);
    TRY(statement_run(insert, fault));
    return registry_set_state(control, restore->tenant.id, TENANT_PAUSED_STATE, fault);
}

static status write_row(const struct restore *restore, struct fault *fault)
{
    TRY(registry_begin(restore->control, fault));
    return registry_end(restore->control, insert_row(restore, fault), fault);
}

static status update_row(const struct restore *restore, struct fault *fault)
{
    _cleanup_statement_ struct statement *update = NULL;
    uint8_t storage[ANCHOR_WIRE_BYTES];
    struct buffer anchor = buffer_over(storage, sizeof storage);
    anchor_put(&anchor, &restore->anchor);
    TRY(statement_open(&update, restore->control->store,
                       "UPDATE restore SET anchor = ?2, detail = ?3 WHERE id = ?1", fault));
    statement_bind_blob(update, 1, SPAN_OF(restore->tenant.id));
    statement_bind_blob(update, 2, buffer_span(&anchor));
    statement_bind_text(update, 3, buffer_span(&restore->detail));
    return statement_run(update, fault);
}

static status write_made(const struct restore *restore, struct fault *fault)
{
    TRY(registry_begin(restore->control, fault));
    return registry_end(restore->control, update_row(restore, fault), fault);
}

static status remove_row(const struct restore *restore, const char *event, struct span detail,
                         struct fault *fault)
{
    _cleanup_statement_ struct statement *remove = NULL;
    struct control *control = restore->control;
    TRY(statement_open(&remove, control->store, "DELETE FROM restore WHERE id = ?1", fault));
    statement_bind_blob(remove, 1, SPAN_OF(restore->tenant.id));
    TRY(statement_run(remove, fault));
    TRY(registry_set_state(control, restore->tenant.id, restore->tenant.state, fault));
    return ledger_append(control, event, &restore->tenant, restore->operator_uid, detail, fault);
}

static status write_settled(const struct restore *restore, const char *event, struct span detail,
                            struct fault *fault)
{
    TRY(registry_begin(restore->control, fault));
    return registry_end(restore->control, remove_row(restore, event, detail, fault), fault);
}

/* ---- settling: what was made takes its place, or goes ---- */

static void settle(void *context);

static void settle_later(struct restore *restore, const char *why)
{
    struct fault fault;
    log_event(LOG_WARN, "restore.waits", "%s: %s", restore->tenant.name, why);
    if (loop_timer_start(restore->control->loop, &restore->timer, SETTLE_RETRY_US, settle, restore,
                         &fault) != OK)
        control_die("restore timer", &fault);
}

static void on_settled(void *context, status code, const char *detail, struct cursor *result,
                       struct ipc_message *message)
{
    struct restore *restore = context;
    struct fault fault;
    (void)result, (void)message;
    if (code != OK) {
        settle_later(restore, detail);
        return;
    }
    code = write_settled(restore, restore->made ? "tenant.restore" : "tenant.restore.undone",
                         buffer_span(&restore->detail), &fault);
    if (code != OK)
        settle_later(restore, fault.detail);
    else if (restore->made)
        finish(restore, OK, "", buffer_span(&restore->detail));
    else
        finish(restore, restore->why, restore->fault.detail, (struct span){0});
}

static void settle(void *context)
{
    struct restore *restore = context;
    call_supervisor(restore->control, restore->made ? MESSAGE_SILO_REPLACE : MESSAGE_SILO_DISCARD,
                    SPAN_OF(restore->tenant.id), NULL, 0, on_settled, restore);
}

static void undo(struct restore *restore, status code, const char *detail)
{
    struct fault why;
    span_to_text(why.detail, sizeof why.detail, span_of_text(detail)); /* it may be our own */
    restore->fault = why;
    restore->made = false;
    restore->why = code;
    buffer_clear(&restore->detail);
    settle(restore);
}

static bool same_state(const struct anchor *left, const struct anchor *right)
{
    return left->commits == right->commits && left->map_generation == right->map_generation
        && left->log_size == right->log_size
        && span_equal(SPAN_OF(left->map_hash), SPAN_OF(right->map_hash))
        && span_equal(SPAN_OF(left->log_root), SPAN_OF(right->log_root));
}

/* The anchor decides. */
static void decide(void *context)
{
    struct restore *restore = context;
    struct key_state key;
    struct fault fault;
    status asked = kms_key_state(&key, restore->control, restore->tenant.id, &fault);
    if (asked != OK) {
        log_event(LOG_WARN, "restore.waits", "%s: %s", restore->tenant.name, fault.detail);
        if (loop_timer_start(restore->control->loop, &restore->timer, SETTLE_RETRY_US, decide,
                             restore, &fault) != OK)
            control_die("restore timer", &fault);
        return;
    }
    if (same_state(&key.anchor, &restore->anchor)) {
        restore->made = true;
        settle(restore);
    } else {
        undo(restore, restore->why, restore->fault.detail);
    }
}

/* ---- making it ---- */

static void put_side(struct json_writer *writer, const char *name, uint64_t entries,
                     const uint8_t root[HASH_BYTES], uint64_t commits)
{
    char text[2 * HASH_BYTES + 1];
    hex_encode(text, (struct span){root, HASH_BYTES});
    json_open_object(writer, name);
    json_put_integer(writer, "audit_entries", (int64_t)entries);
    json_put_string(writer, "root", span_of_text(text));
    json_put_integer(writer, "commits", (int64_t)commits);
    json_close_object(writer);
}

/* What the cell says that it made; read no further than it goes. */
static status take_made(struct restore *restore, struct cursor *result, struct fault *fault)
{
    struct json_writer writer = json_writer_on(&restore->detail);
    struct anchor replaced;
    uint64_t sequence, log_size, bytes;
    uint8_t log_root[HASH_BYTES];
    char time[TIME_SIZE];
    TRY(anchor_get(&restore->anchor, result, fault));
    TRY(anchor_get(&replaced, result, fault));
    TRY(cursor_u64(&sequence, result, fault));
    TRY(cursor_text(time, sizeof time, result, "time", fault));
    TRY(cursor_u64(&log_size, result, fault));
    TRY(cursor_copy(log_root, result, sizeof log_root, fault));
    TRY(cursor_u64(&bytes, result, fault));
    TRY(cursor_end(result, fault));
    json_open_object(&writer, NULL);
    json_put_string(&writer, "name", span_of_text(restore->tenant.name));
    json_put_integer(&writer, "backup", (int64_t)sequence);
    json_put_string(&writer, "backup_time", span_of_text(time));
    put_side(&writer, "old", replaced.log_size, replaced.log_root, replaced.commits);
    put_side(&writer, "new", restore->anchor.log_size, restore->anchor.log_root,
             restore->anchor.commits);
    json_put_integer(&writer, "entries_of_backup", (int64_t)log_size);
    json_put_integer(&writer, "bytes", (int64_t)bytes);
    json_close_object(&writer);
    return buffer_check(&restore->detail, "restore", fault);
}

static status move_anchor(struct restore *restore, struct fault *fault)
{
    uint8_t storage[TENANT_ID_BYTES + ANCHOR_WIRE_BYTES];
    struct buffer body = buffer_over(storage, sizeof storage);
    struct cursor result;
    buffer_put(&body, SPAN_OF(restore->tenant.id));
    anchor_put(&body, &restore->anchor);
    TRY(buffer_check(&body, "anchor", fault));
    return kms_call(&result, restore->kms_admin, MESSAGE_ANCHOR_RESTORE, buffer_span(&body),
                    fault);
}

static void on_made(void *context, status code, const char *detail, struct cursor *result,
                    struct ipc_message *message);

static void ask_to_make(void *context)
{
    struct restore *restore = context;
    uint8_t storage[32];
    struct buffer body = buffer_over(storage, sizeof storage);
    buffer_put(&body, SPAN_OF(restore->tenant.id));
    buffer_put_u32(&body, restore->tenant.uid);
    call_supervisor(restore->control, MESSAGE_SILO_RESTORE, buffer_span(&body), &restore->backups,
                    1, on_made, restore);
}

static void on_made(void *context, status code, const char *detail, struct cursor *result,
                    struct ipc_message *message)
{
    struct restore *restore = context;
    struct fault fault;
    (void)message;
    if (code == AGAIN && restore->tries++ < BLANK_TRIES) {
        if (loop_timer_start(restore->control->loop, &restore->timer, BLANK_RETRY_US, ask_to_make,
                             restore, &fault) != OK)
            control_die("restore timer", &fault);
        return;
    }
    if (code == OK) {
        code = take_made(restore, result, &fault);
        if (code == OK)
            code = write_made(restore, &fault);
        detail = fault.detail;
    }
    if (code != OK) {
        undo(restore, code, detail);
        return;
    }
    restore->why = UNAVAILABLE;
    if (move_anchor(restore, &restore->fault) == OK) {
        restore->made = true;
        settle(restore);
    } else {
        decide(restore); /* it may have happened */
    }
}

static void on_parked(void *context, status code, const char *detail, struct cursor *result,
                      struct ipc_message *message)
{
    (void)result, (void)message;
    if (code == OK)
        ask_to_make(context);
    else
        undo(context, code, detail);
}

static void stop_cell(struct restore *restore, enum cell_stop_how how, call_on_reply *then)
{
    uint8_t storage[32];
    struct buffer body = buffer_over(storage, sizeof storage);
    buffer_put(&body, SPAN_OF(restore->tenant.id));
    buffer_put_u8(&body, (uint8_t)how);
    call_supervisor(restore->control, MESSAGE_CELL_STOP, buffer_span(&body), NULL, 0, then,
                    restore);
}

status restore_begin(struct session *session, const struct tenant *tenant, int *backups,
                     struct outcome outcome, struct fault *fault)
{
    struct control *control = session->control;
    if (lifecycle_is_busy(control, tenant->id))
        return FAIL(CONFLICT, fault, "it is being paused, erased or restored right now");
    struct restore *restore = keep(control, tenant);
    if (!restore)
        return FAIL(INTERNAL, fault, "out of memory");
    restore->kms_admin = session->kms_admin; /* the session waits for us */
    restore->operator_uid = session->uid;
    status written = write_row(restore, fault);
    if (written != OK) {
        finish(restore, written, fault->detail, (struct span){0});
        return written;
    }
    restore->outcome = outcome;
    restore->backups = take_fd(backups);
    gateways_tell_changed(control, tenant->id);
    stop_cell(restore, CELL_STOP_PARK, on_parked);
    return OK;
}

/* ---- what a crash left ---- */

static void on_stopped(void *context, status code, const char *detail, struct cursor *result,
                       struct ipc_message *message)
{
    struct restore *restore = context;
    static const struct anchor none;
    (void)result, (void)message;
    if (code != OK)
        control_die("restore", &(struct fault){"a cell cannot be stopped"});
    (void)detail;
    if (same_state(&restore->anchor, &none))
        settle(restore);
    else
        decide(restore);
}

static status take_row(struct control *control, struct statement *row, struct fault *fault)
{
    struct tenant tenant;
    uint8_t id[TENANT_ID_BYTES];
    struct cursor cursor = cursor_over(statement_span(row, 0));
    TRY(cursor_copy(id, &cursor, sizeof id, fault));
    status found = registry_by_id(&tenant, control, id, fault);
    if (found == NOT_FOUND || restore_under_way(control, id))
        return OK;
    TRY(found);
    tenant.state = (enum tenant_state)statement_int(row, 1);
    struct restore *restore = keep(control, &tenant);
    if (!restore)
        return FAIL(INTERNAL, fault, "out of memory");
    restore->operator_uid = statement_int(row, 2);
    restore->why = UNAVAILABLE;
    cursor = cursor_over(statement_span(row, 3));
    if (cursor_left(&cursor) > 0)
        TRY(anchor_get(&restore->anchor, &cursor, fault));
    buffer_put(&restore->detail, statement_span(row, 4));
    return buffer_check(&restore->detail, "restore", fault);
}

static status take_rows(struct control *control, struct fault *fault)
{
    _cleanup_statement_ struct statement *rows = NULL;
    bool any;
    TRY(store_has(&any, control->store, &schema, fault));
    if (!any)
        return OK;
    TRY(statement_open(&rows, control->store,
                       "SELECT id, state, operator, anchor, detail FROM restore", fault));
    for (;;) {
        status step = statement_step(rows, fault);
        if (step == NOT_FOUND)
            return OK;
        TRY(step);
        TRY(take_row(control, rows, fault));
    }
}

void restores_reconcile(struct control *control)
{
    struct fault fault;
    struct restore *before = control->restores;
    if (take_rows(control, &fault) != OK)
        control_die("restores", &fault);
    for (struct restore *at = control->restores; at != before;) {
        struct restore *next = at->next; /* it may be settled at once */
        span_to_text(at->fault.detail, sizeof at->fault.detail,
                     SPAN("it was interrupted, and is undone"));
        stop_cell(at, CELL_STOP_KILL, on_stopped);
        at = next;
    }
}
