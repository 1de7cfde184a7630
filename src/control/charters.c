/* charters.c: rows of charters, and how the next one becomes the newest. */
#include "base/log.h"
#include "control/control.h"

#include <string.h>

enum {
    SETTLE_AGAIN_US = 5 * 1000 * 1000,
    PENDING_MAX = 64, /* taken up at once; more at the next time */
    EVENT_MAX = 32,
};

const uint8_t charter_platform_id[TENANT_ID_BYTES];

static bool is_platform(const uint8_t id[TENANT_ID_BYTES])
{
    return span_equal((struct span){id, TENANT_ID_BYTES}, SPAN_OF(charter_platform_id));
}

static struct span id_span(const uint8_t id[TENANT_ID_BYTES])
{
    return (struct span){id, TENANT_ID_BYTES};
}

/* ---- rows ---- */

/* The row's columns: sequence, document, signature, event, detail, operator. */
static status find_row(struct statement **ret, struct control *control,
                       const uint8_t id[TENANT_ID_BYTES], bool pending, struct fault *fault)
{
    struct statement *find = NULL;
    TRY(statement_open(&find, control->store, "SELECT sequence, document, signature, event, detail,"
                       " operator FROM charter WHERE id = ?1 AND pending = ?2", fault));
    statement_bind_blob(find, 1, id_span(id));
    statement_bind_int(find, 2, pending);
    status found = statement_step(find, fault);
    if (found != OK) {
        statement_close(find);
        return found;
    }
    *ret = find;
    return OK;
}

static status drop_row(struct control *control, const uint8_t id[TENANT_ID_BYTES], bool pending,
                       struct fault *fault)
{
    _cleanup_statement_ struct statement *drop = NULL;
    TRY(statement_open(&drop, control->store, "DELETE FROM charter WHERE id = ?1 AND pending = ?2",
                       fault));
    statement_bind_blob(drop, 1, id_span(id));
    statement_bind_int(drop, 2, pending);
    return statement_run(drop, fault);
}

status charter_keep_next(struct control *control, const struct charter *charter,
                         const struct ledger_note *note, struct fault *fault)
{
    _cleanup_statement_ struct statement *insert = NULL;
    _cleanup_buffer_ struct buffer document = buffer_of(CHARTER_MAX);
    TRY(charter_put(&document, charter, fault));
    TRY(drop_row(control, charter->id, true, fault));
    TRY(statement_open(&insert, control->store, "INSERT INTO charter(id, pending, sequence,"
                       " document, event, detail, operator) VALUES(?1, 1, ?2, ?3, ?4, ?5, ?6)",
                       fault));
    statement_bind_blob(insert, 1, id_span(charter->id));
    statement_bind_int(insert, 2, (int64_t)charter->sequence);
    statement_bind_blob(insert, 3, buffer_span(&document));
    statement_bind_text(insert, 4, span_of_text(note->event));
    statement_bind_text(insert, 5, note->detail);
    statement_bind_int(insert, 6, note->operator_uid);
    return statement_run(insert, fault);
}

status charter_sign_next(uint8_t ret[SIGNATURE_BYTES], struct control *control, int channel,
                         const uint8_t id[TENANT_ID_BYTES], struct fault *fault)
{
    _cleanup_statement_ struct statement *row = NULL;
    _cleanup_buffer_ struct buffer body = buffer_of(CHARTER_MAX + 64);
    struct cursor result;
    TRY(find_row(&row, control, id, true, fault));
    buffer_put(&body, id_span(id));
    buffer_put_u64(&body, (uint64_t)statement_int(row, 0));
    buffer_put_field(&body, statement_span(row, 1));
    TRY(buffer_check(&body, "charter", fault));
    TRY(kms_call(&result, channel, MESSAGE_CHARTER_SIGN, buffer_span(&body), fault));
    return cursor_copy(ret, &result, SIGNATURE_BYTES, fault);
}

static status replace_newest(struct control *control, const uint8_t id[TENANT_ID_BYTES],
                             const uint8_t signature[SIGNATURE_BYTES], struct fault *fault)
{
    _cleanup_statement_ struct statement *change = NULL;
    TRY(drop_row(control, id, false, fault));
    TRY(statement_open(&change, control->store, "UPDATE charter SET pending = 0, signature = ?2"
                       " WHERE id = ?1 AND pending = 1", fault));
    statement_bind_blob(change, 1, id_span(id));
    statement_bind_blob(change, 2, (struct span){signature, SIGNATURE_BYTES});
    return statement_run(change, fault);
}

static status forget_claims(struct control *control, const uint8_t id[TENANT_ID_BYTES],
                            struct fault *fault)
{
    _cleanup_statement_ struct statement *drop = NULL;
    TRY(statement_open(&drop, control->store, "DELETE FROM claim WHERE tenant = ?1", fault));
    statement_bind_blob(drop, 1, id_span(id));
    return statement_run(drop, fault);
}

static status keep_claim(struct control *control, const uint8_t id[TENANT_ID_BYTES],
                         const char *name, struct fault *fault)
{
    _cleanup_statement_ struct statement *insert = NULL;
    TRY(statement_open(&insert, control->store, "INSERT OR IGNORE INTO claim(name, tenant)"
                       " VALUES(?1, ?2)", fault));
    statement_bind_text(insert, 1, span_of_text(name));
    statement_bind_blob(insert, 2, id_span(id));
    return statement_run(insert, fault);
}

static status keep_claims(struct control *control, const uint8_t id[TENANT_ID_BYTES],
                          struct fault *fault)
{
    struct charter *charter = NULL;
    if (is_platform(id))
        return OK; /* its own charter names them, to everybody */
    TRY(forget_claims(control, id, fault));
    TRY(charter_newest(&charter, control, id, fault));
    status kept = OK;
    for (uint32_t i = 0; i < charter->issuer_count && kept == OK; i++)
        kept = keep_claim(control, id, charter->issuers[i].tenant_claim, fault);
    charter_free(charter);
    return kept;
}

status charter_promote(struct control *control, const struct tenant *tenant,
                       const uint8_t id[TENANT_ID_BYTES],
                       const uint8_t signature[SIGNATURE_BYTES], struct fault *fault)
{
    char event[EVENT_MAX];
    uint8_t storage[AUDIT_ENTRY_MAX];
    struct buffer detail = buffer_over(storage, sizeof storage);
    struct statement *row = NULL;
    TRY(find_row(&row, control, id, true, fault));
    bool fits = span_to_text(event, sizeof event, statement_span(row, 3));
    buffer_put(&detail, statement_span(row, 4));
    int64_t operator_uid = statement_int(row, 5);
    statement_close(row);
    if (!fits)
        return FAIL(CORRUPT, fault, "registry: a charter with an impossible event");
    TRY(buffer_check(&detail, "ledger entry", fault));
    TRY(replace_newest(control, id, signature, fault));
    TRY(keep_claims(control, id, fault));
    return ledger_append(control, event, tenant, operator_uid, buffer_span(&detail), fault);
}

status charter_remove(struct control *control, const uint8_t id[TENANT_ID_BYTES],
                      struct fault *fault)
{
    TRY(drop_row(control, id, false, fault));
    TRY(drop_row(control, id, true, fault));
    return forget_claims(control, id, fault);
}

/* ---- reading ---- */

status charter_newest(struct charter **ret, struct control *control,
                      const uint8_t id[TENANT_ID_BYTES], struct fault *fault)
{
    struct statement *row = NULL;
    status found = find_row(&row, control, id, false, fault);
    if (found == NOT_FOUND)
        found = find_row(&row, control, id, true, fault);
    TRY(found);
    status read = charter_read(ret, statement_span(row, 1), fault);
    statement_close(row);
    return read;
}

status charter_put_signed(struct buffer *out, struct control *control,
                          const uint8_t id[TENANT_ID_BYTES], uint64_t known, struct fault *fault)
{
    _cleanup_statement_ struct statement *row = NULL;
    TRY(find_row(&row, control, id, false, fault));
    struct signed_charter charter = {.sequence = (uint64_t)statement_int(row, 0),
                                     .document = statement_span(row, 1)};
    struct cursor bytes = cursor_over(id_span(id));
    TRY(cursor_copy(charter.id, &bytes, sizeof charter.id, fault));
    bytes = cursor_over(statement_span(row, 2));
    TRY(cursor_copy(charter.signature, &bytes, sizeof charter.signature, fault));
    if (charter.sequence != known)
        signed_charter_put(out, &charter);
    return buffer_check(out, "charter", fault);
}

status charter_claims(struct control *control, claim_each *each, void *context,
                      struct fault *fault)
{
    _cleanup_statement_ struct statement *all = NULL;
    TRY(statement_open(&all, control->store, "SELECT DISTINCT name FROM claim ORDER BY name",
                       fault));
    for (;;) {
        status step = statement_step(all, fault);
        if (step == NOT_FOUND)
            return OK;
        TRY(step);
        TRY(each(context, statement_span(all, 0), fault));
    }
}

/* ---- a change ---- */

static void on_settle(void *context)
{
    charters_settle(context);
}

static void settle_later(struct control *control)
{
    struct fault fault;
    if (!control->stopping && control->charter_timer.due_us == 0
        && loop_timer_start(control->loop, &control->charter_timer, SETTLE_AGAIN_US, on_settle,
                            control, &fault) != OK)
        control_die("charter timer", &fault);
}

static status keep(struct control *control, const struct charter *charter,
                   const struct ledger_note *note, struct fault *fault)
{
    TRY(registry_begin(control, fault));
    status kept = charter_keep_next(control, charter, note, fault);
    return registry_end(control, kept, fault);
}

static status drop_next(struct control *control, const uint8_t id[TENANT_ID_BYTES],
                        struct fault *fault)
{
    TRY(registry_begin(control, fault));
    status dropped = drop_row(control, id, true, fault);
    return registry_end(control, dropped, fault);
}

/* It is signed, so it is in force already: from here on nothing but the disk can be in the way. */
static status promote(struct control *control, const struct tenant *tenant,
                      const uint8_t id[TENANT_ID_BYTES],
                      const uint8_t signature[SIGNATURE_BYTES], struct fault *fault)
{
    TRY(registry_begin(control, fault));
    status promoted = charter_promote(control, tenant, id, signature, fault);
    if (promoted != OK) {
        registry_undo(control);
        return promoted;
    }
    TRY(registry_commit(control, fault));
    if (tenant)
        gateways_tell_changed(control, id);
    gateways_tell_platform(control);
    return OK;
}

/* Did the kms answer, with a refusal? Then it signed nothing, and will not. */
static bool is_refusal(status code)
{
    return code == CONFLICT || code == NOT_FOUND || code == BAD_FIELD || code == TOO_LARGE;
}

status charter_change(struct control *control, const struct tenant *tenant,
                      const struct charter *charter, const struct ledger_note *note,
                      int kms_admin, struct fault *fault)
{
    uint8_t signature[SIGNATURE_BYTES];
    struct fault why;
    TRY(keep(control, charter, note, fault));
    status result = charter_sign_next(signature, control, kms_admin, charter->id, fault);
    if (result == TIMED_OUT) /* it may sign yet; whoever starts next closes that channel and asks */
        control_die("the kms does not answer", fault);
    if (is_refusal(result) && drop_next(control, charter->id, &why) == OK)
        return result;
    if (result == OK)
        result = promote(control, tenant, charter->id, signature, fault);
    if (result == OK)
        return OK;
    settle_later(control);
    why = *fault;
    return FAIL(UNAVAILABLE, fault, "%.120s: whether it happened is settled shortly", why.detail);
}

/* ---- after a crash, of control or of the kms ---- */

status charter_settle(struct control *control, const uint8_t id[TENANT_ID_BYTES],
                      struct fault *fault)
{
    uint8_t signature[SIGNATURE_BYTES];
    struct tenant tenant;
    struct statement *row = NULL;
    status found = find_row(&row, control, id, true, fault);
    statement_close(row);
    if (found == NOT_FOUND)
        return OK;
    TRY(found);
    bool platform = is_platform(id);
    if (!platform)
        TRY(registry_by_id(&tenant, control, id, fault));
    status result = charter_sign_next(signature, control, control->kms, id, fault);
    if (is_refusal(result))
        return drop_next(control, id, fault);
    TRY(result);
    return promote(control, platform ? NULL : &tenant, id, signature, fault);
}

struct pending {
    uint8_t ids[PENDING_MAX][TENANT_ID_BYTES];
    uint32_t count;
};

/* Not those of tenants in the making or being erased: lifecycle.c finishes or undoes them whole. */
static status find_pending(struct pending *ret, struct control *control, struct fault *fault)
{
    _cleanup_statement_ struct statement *all = NULL;
    ret->count = 0;
    TRY(statement_open(&all, control->store, "SELECT charter.id FROM charter LEFT JOIN tenant ON"
                       " tenant.id = charter.id WHERE pending = 1 AND (tenant.state IS NULL OR"
                       " tenant.state IN (1, 2))", fault));
    while (ret->count < PENDING_MAX) {
        status step = statement_step(all, fault);
        if (step == NOT_FOUND)
            return OK;
        TRY(step);
        struct cursor id = cursor_over(statement_span(all, 0));
        TRY(cursor_copy(ret->ids[ret->count++], &id, TENANT_ID_BYTES, fault));
    }
    return OK;
}

void charters_settle(struct control *control)
{
    struct pending pending;
    struct fault fault;
    if (find_pending(&pending, control, &fault) != OK)
        control_die("registry", &fault);
    bool some_left = pending.count == PENDING_MAX;
    for (uint32_t i = 0; i < pending.count; i++) {
        if (charter_settle(control, pending.ids[i], &fault) == OK)
            continue;
        log_event(LOG_WARN, "charter.pending", "%s", fault.detail);
        some_left = true;
    }
    if (some_left)
        settle_later(control);
}
