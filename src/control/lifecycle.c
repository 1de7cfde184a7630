/* lifecycle.c: create, pause, erase, and what a crash left of them.
 *
 * The order makes every crash decidable at the next start, from two durable facts: the row in the
 * registry and the state of the key in the kms.
 *   create  row "creating" and its first charter -> KEK -> charter signed -> directory -> row
 *           "active", charter with its signature and ledger, in one commit. A row still "creating"
 *           is undone: its key was never released, so the kms lets it be discarded.
 *   update  see charters.c.
 *   erase   row "erasing" -> cell killed -> KEK destroyed -> directory removed -> receipt signed ->
 *           row gone, receipt kept + ledger, in one commit. A row "erasing" whose key still lives
 *           is undone (only an operator's connection can destroy a key); with its key destroyed it
 *           is finished. */
#include "base/hex.h"
#include "base/log.h"
#include "control/control.h"
#include "wire/base64.h"

#include <stdlib.h>
#include <string.h>

enum { RECEIPT_MAX = 4096, LEFTOVERS_MAX = 256, TENANT_JSON_MAX = 4096 };

static const char *const state_names[] = {"creating", "active", "paused", "erasing"};

struct work { /* one create, erase or pause under way */
    struct control *control;
    struct tenant tenant;
    struct key_state key;
    int kms_admin; /* -1: nobody is connected; borrowed from the session, which waits for us */
    int64_t operator_uid;
    uint64_t files, bytes;
    uint8_t signature[SIGNATURE_BYTES]; /* of a created tenant's charter */
    struct outcome outcome;
    struct work *next;
};

/* NULL, and the outcome told, without memory. */
static struct work *begin(struct control *control, const struct tenant *tenant, int kms_admin,
                          int64_t operator_uid, struct outcome outcome)
{
    struct work *work = calloc(1, sizeof *work);
    if (!work) {
        if (outcome.done)
            outcome.done(outcome.context, INTERNAL, "out of memory", (struct span){0});
        return NULL;
    }
    *work = (struct work){.control = control, .tenant = *tenant, .kms_admin = kms_admin,
                          .operator_uid = operator_uid, .outcome = outcome,
                          .next = control->works};
    control->works = work;
    return work;
}

static bool under_way(const struct control *control, const uint8_t id[TENANT_ID_BYTES])
{
    const struct work *work = control->works;
    while (work && !span_equal(SPAN_OF(work->tenant.id), (struct span){id, TENANT_ID_BYTES}))
        work = work->next;
    return work != NULL || restore_under_way(control, id);
}

bool lifecycle_is_busy(const struct control *control, const uint8_t id[TENANT_ID_BYTES])
{
    return under_way(control, id);
}

static void finish(struct work *work, status code, const char *detail, struct span json)
{
    struct outcome outcome = work->outcome;
    struct work **at = &work->control->works;
    while (*at != work)
        at = &(*at)->next;
    *at = work->next;
    if (outcome.done)
        outcome.done(outcome.context, code, detail, json);
    else if (code != OK)
        log_event(LOG_ERROR, "lifecycle.reconcile", "%s: %s", work->tenant.name, detail);
    free(work);
}

static void refuse(struct outcome outcome, status code, const char *detail)
{
    outcome.done(outcome.context, code, detail, (struct span){0});
}

/* Without one its members are null: a tenant that is being erased may have lost it. */
static void put_charter(struct json_writer *writer, struct control *control,
                        const struct tenant *tenant)
{
    static const struct posture nothing;
    struct charter *charter = NULL;
    struct fault fault;
    bool known = charter_newest(&charter, control, tenant->id, &fault) == OK;
    posture_put_json(writer, known ? &charter->posture : &nothing);
    json_put_integer(writer, "charter_sequence", known ? (int64_t)charter->sequence : 0);
    charter_free(charter);
}

static void put_facts(struct json_writer *writer, struct control *control,
                      const struct tenant *tenant)
{
    char id[TENANT_ID_TEXT], created[CLOCK_TEXT_SIZE];
    hex_encode(id, SPAN_OF(tenant->id));
    clock_text(created, tenant->created_at_us);
    json_put_text(writer, "id", id);
    json_put_text(writer, "name", tenant->name);
    json_put_text(writer, "state", state_names[tenant->state]);
    put_charter(writer, control, tenant);
    json_put_text(writer, "created_at", created);
    json_put_integer(writer, "uid", tenant->uid);
    json_put_bool(writer, "awake", wakes_is_awake(control, tenant->id));
    json_open_object(writer, "usage");
    json_put_integer(writer, "bytes_stored", tenant->bytes_stored);
}

struct cost tenant_put_json(struct json_writer *writer, struct control *control,
                            const struct tenant *tenant)
{
    json_open_object(writer, NULL);
    put_facts(writer, control, tenant);
    json_close_object(writer);
    struct cost cost = usage_put_cost(writer, control, tenant);
    json_close_object(writer);
    return cost;
}

void tenant_put_whole(struct json_writer *writer, struct control *control,
                      const struct tenant *tenant, uint32_t days)
{
    json_open_object(writer, NULL);
    put_facts(writer, control, tenant);
    usage_put_month(writer, control, tenant, days);
    json_close_object(writer);
    (void)usage_put_cost(writer, control, tenant);
    keys_put_json(writer, control, tenant);
    json_close_object(writer);
}

static void finish_with_tenant(struct work *work)
{
    uint8_t storage[TENANT_JSON_MAX];
    struct buffer json = buffer_over(storage, sizeof storage);
    struct json_writer writer = json_writer_on(&json);
    tenant_put_json(&writer, work->control, &work->tenant);
    finish(work, OK, "", buffer_span(&json));
}

/* One registry transaction: a change of the row and its entry in the ledger, or neither. */
static status record(struct control *control, const struct tenant *tenant, const char *event,
                     status (*change)(struct control *, const struct tenant *, struct fault *),
                     int64_t operator_uid, struct span detail, struct fault *fault)
{
    TRY(registry_begin(control, fault));
    status result = change(control, tenant, fault);
    if (result == OK && event)
        result = ledger_append(control, event, tenant, operator_uid, detail, fault);
    return registry_end(control, result, fault);
}

static status change_state(struct control *control, const struct tenant *tenant,
                           struct fault *fault)
{
    return registry_set_state(control, tenant->id, tenant->state, fault);
}

static status change_remove(struct control *control, const struct tenant *tenant,
                            struct fault *fault)
{
    return registry_remove(control, tenant->id, fault);
}

static void ask_silo_make(struct work *work, call_on_reply *on_reply)
{
    uint8_t storage[32];
    struct buffer body = buffer_over(storage, sizeof storage);
    buffer_put(&body, SPAN_OF(work->tenant.id));
    buffer_put_u32(&body, work->tenant.uid);
    call_supervisor(work->control, MESSAGE_SILO_MAKE, buffer_span(&body), NULL, 0, on_reply, work);
}

static void ask_silo_remove(struct work *work, call_on_reply *on_reply)
{
    call_supervisor(work->control, MESSAGE_SILO_REMOVE, SPAN_OF(work->tenant.id), NULL, 0,
                    on_reply, work);
}

static void on_undone(void *context, status code, const char *detail, struct cursor *result,
                      struct ipc_message *message)
{
    struct work *work = context;
    struct fault fault = {0};
    (void)result, (void)message;
    if (code == OK)
        code = record(work->control, &work->tenant, NULL, change_remove, -1, (struct span){0},
                      &fault);
    else
        (void)FAIL(code, &fault, "%s", detail);
    /* the caller of a failed create hears no more than that; the log has why */
    finish(work, work->outcome.done ? UNAVAILABLE : code,
           work->outcome.done ? "the tenant could not be created; nothing is left of it"
                              : fault.detail, (struct span){0});
}

/* Of a create: discards the key, removes the directory, forgets the row. */
static void undo_create(struct work *work, const char *why)
{
    struct cursor result;
    struct fault fault;
    log_event(LOG_WARN, "tenant.create.undone", "%s: %s", work->tenant.name, why);
    status discarded = kms_call(&result, work->control->kms, MESSAGE_KEY_DISCARD,
                                SPAN_OF(work->tenant.id), &fault);
    if (discarded != OK && discarded != NOT_FOUND) {
        finish(work, discarded, fault.detail, (struct span){0});
        return;
    }
    ask_silo_remove(work, on_undone);
}

static status record_created(struct work *work, struct fault *fault)
{
    struct control *control = work->control;
    TRY(registry_begin(control, fault));
    status result = registry_set_state(control, work->tenant.id, TENANT_ACTIVE, fault);
    if (result == OK)
        result = charter_promote(control, &work->tenant, work->tenant.id, work->signature, fault);
    return registry_end(control, result, fault);
}

static void on_silo_made(void *context, status code, const char *detail, struct cursor *result,
                         struct ipc_message *message)
{
    struct work *work = context;
    struct fault fault = {0};
    (void)result, (void)message;
    if (code == OK) {
        work->tenant.state = TENANT_ACTIVE;
        code = record_created(work, &fault);
        detail = fault.detail;
    }
    if (code != OK) {
        undo_create(work, detail);
        return;
    }
    gateways_tell_changed(work->control, work->tenant.id); /* a "no such name" may be cached */
    finish_with_tenant(work);
}

static status check_wish(const struct tenant_wish *wish, struct fault *fault)
{
    struct span name = wish->name;
    bool valid = name.length >= 1 && name.length <= TENANT_NAME_MAX && name.data[0] != '-'
              && name.data[name.length - 1] != '-';
    for (size_t i = 0; valid && i < name.length; i++) {
        uint8_t character = name.data[i];
        valid = (character >= 'a' && character <= 'z') || (character >= '0' && character <= '9')
             || character == '-';
    }
    uint8_t ignored[TENANT_ID_BYTES];
    struct fault unused;
    if (!valid)
        return FAIL(BAD_FIELD, fault, "name: 1 to %d characters of a-z, 0-9 and -, none of the "
                    "latter at its ends", TENANT_NAME_MAX);
    if (hex_decode(ignored, sizeof ignored, name, "name", &unused) == OK)
        return FAIL(BAD_FIELD, fault, "name: must not look like a tenant id (32 hex digits)");
    return OK;
}

static status posture_wished(struct posture *ret, const struct tenant_wish *wish,
                             struct fault *fault)
{
    struct posture posture = posture_defaults(wish->posture.tier);
    TRY(posture_wish_apply(&posture, &wish->posture, fault));
    *ret = posture;
    return OK;
}

static bool has_posture(struct control *control, const struct tenant *tenant,
                        const struct posture *posture)
{
    struct charter *charter = NULL;
    struct fault fault;
    bool same = charter_newest(&charter, control, tenant->id, &fault) == OK
             && posture_equal(&charter->posture, posture);
    charter_free(charter);
    return same;
}

/* A tenant of that name exists: creating again is no error when it is the same wish. */
static void create_again(struct control *control, const struct tenant *tenant,
                         const struct posture *posture, struct outcome outcome)
{
    if (tenant->state == TENANT_CREATING || tenant->state == TENANT_ERASING) {
        refuse(outcome, CONFLICT, "a tenant of this name is being created or erased");
        return;
    }
    if (!has_posture(control, tenant, posture)) {
        refuse(outcome, CONFLICT, "a tenant of this name exists with other settings");
        return;
    }
    uint8_t storage[TENANT_JSON_MAX];
    struct buffer json = buffer_over(storage, sizeof storage);
    struct json_writer writer = json_writer_on(&json);
    tenant_put_json(&writer, control, tenant);
    outcome.done(outcome.context, OK, "", buffer_span(&json));
}

static void put_posture_detail(struct buffer *out, const struct posture *posture)
{
    struct json_writer writer = json_writer_on(out);
    json_open_object(&writer, NULL);
    json_put_integer(&writer, "charter_sequence", 1);
    posture_put_json(&writer, posture);
    json_close_object(&writer);
}

static status keep_first_charter(struct control *control, const struct tenant *tenant,
                                 const struct posture *posture, int64_t operator_uid,
                                 struct fault *fault)
{
    uint8_t storage[TENANT_JSON_MAX];
    struct buffer detail = buffer_over(storage, sizeof storage);
    struct charter charter = {.sequence = 1, .issued_at = clock_wall_us() / 1000000,
                              .posture = *posture};
    struct cursor id = cursor_over(SPAN_OF(tenant->id));
    TRY(cursor_copy(charter.id, &id, sizeof charter.id, fault));
    charter.posture.created_at_us = tenant->created_at_us;
    if (!span_to_text(charter.posture.name, sizeof charter.posture.name,
                      span_of_text(tenant->name)))
        return FAIL(INTERNAL, fault, "a name that is longer than names are");
    put_posture_detail(&detail, posture);
    TRY(buffer_check(&detail, "posture", fault));
    const struct ledger_note note = {"tenant.create", buffer_span(&detail), operator_uid};
    return charter_keep_next(control, &charter, &note, fault);
}

/* The row and what its charter is to be. */
static status record_creating(struct work *work, const struct posture *posture,
                              struct fault *fault)
{
    struct control *control = work->control;
    TRY(registry_begin(control, fault));
    status result = registry_insert(&work->tenant, control, fault);
    if (result == OK)
        result = keep_first_charter(control, &work->tenant, posture, work->operator_uid, fault);
    return registry_end(control, result, fault);
}

static status make_key_and_sign(struct work *work, struct fault *fault)
{
    struct cursor fingerprint;
    TRY(kms_call(&fingerprint, work->kms_admin, MESSAGE_KEY_CREATE, SPAN_OF(work->tenant.id),
                 fault));
    return charter_sign_next(work->signature, work->control, work->kms_admin, work->tenant.id,
                             fault);
}

/* When a tenant of this name begins. A token that names its tenant must be of that time or later:
 * where there was another of that name, none that its issuers made may be, their clocks
 * included. */
static status find_beginning(int64_t *ret_us, struct control *control, struct span name,
                             struct fault *fault)
{
    _cleanup_buffer_ struct buffer receipt = buffer_of(RECEIPT_MAX);
    status erased = registry_receipt(&receipt, control, name, fault);
    if (erased != OK && erased != NOT_FOUND)
        return erased;
    *ret_us = clock_wall_us();
    if (erased == OK)
        *ret_us += (TOKEN_SKEW_SECONDS + 1) * INT64_C(1000000);
    return OK;
}

static void create_new(struct control *control, const struct tenant_wish *wish,
                       const struct posture *posture, int kms_admin, struct outcome outcome)
{
    struct fault fault = {0};
    struct tenant tenant = {.state = TENANT_CREATING};
    if (!span_to_text(tenant.name, sizeof tenant.name, wish->name)) {
        refuse(outcome, BAD_FIELD, "name: too long");
        return;
    }
    status result = find_beginning(&tenant.created_at_us, control, wish->name, &fault);
    if (result != OK) {
        refuse(outcome, result, fault.detail);
        return;
    }
    crypt_random(tenant.id, sizeof tenant.id);
    struct work *work = begin(control, &tenant, kms_admin, wish->operator_uid, outcome);
    if (!work)
        return;
    result = record_creating(work, posture, &fault);
    if (result != OK)
        finish(work, result, fault.detail, (struct span){0});
    else if (make_key_and_sign(work, &fault) != OK)
        undo_create(work, fault.detail);
    else
        ask_silo_make(work, on_silo_made);
}

void lifecycle_create(struct control *control, const struct tenant_wish *wish, int kms_admin,
                      struct outcome outcome)
{
    struct fault fault = {0};
    struct posture posture;
    struct tenant existing;
    status result = check_wish(wish, &fault);
    if (result == OK)
        result = posture_wished(&posture, wish, &fault);
    if (result != OK) {
        refuse(outcome, result, fault.detail);
        return;
    }
    status found = registry_by_name(&existing, control, wish->name, &fault);
    if (found == NOT_FOUND)
        create_new(control, wish, &posture, kms_admin, outcome);
    else if (found == OK)
        create_again(control, &existing, &posture, outcome);
    else
        refuse(outcome, found, fault.detail);
}

static void put_receipt(struct buffer *out, const struct work *work)
{
    char id[TENANT_ID_TEXT], fingerprint[2 * HASH_BYTES + 1], root[2 * HASH_BYTES + 1];
    char created[CLOCK_TEXT_SIZE], erased[CLOCK_TEXT_SIZE];
    struct json_writer writer = json_writer_on(out);
    hex_encode(id, SPAN_OF(work->tenant.id));
    hex_encode(fingerprint, SPAN_OF(work->key.fingerprint));
    hex_encode(root, SPAN_OF(work->key.anchor.log_root));
    clock_text(created, work->tenant.created_at_us);
    clock_text(erased, clock_wall_us());
    json_open_object(&writer, NULL);
    json_put_text(&writer, "format", "bulkhead-receipt/1");
    json_put_text(&writer, "tenant_id", id);
    json_put_text(&writer, "tenant_name", work->tenant.name);
    json_put_text(&writer, "created_at", created);
    json_put_text(&writer, "erased_at", erased);
    json_put_text(&writer, "kek_fingerprint", fingerprint); /* the kms signs for this key only */
    json_open_object(&writer, "destroyed");
    json_put_text(&writer, "key", "tenant KEK");
    json_put_text(&writer, "key_store", "file");
    json_put_integer(&writer, "files", (int64_t)work->files);
    json_put_integer(&writer, "bytes", (int64_t)work->bytes);
    json_close_object(&writer);
    json_open_object(&writer, "last_checkpoint");
    json_put_integer(&writer, "audit_entries", (int64_t)work->key.anchor.log_size);
    json_put_text(&writer, "root", root);
    json_put_integer(&writer, "commits", (int64_t)work->key.anchor.commits);
    json_close_object(&writer);
    json_put_integer(&writer, "ledger_index", (int64_t)store_log_next(work->control->log));
    json_close_object(&writer);
}

static status sign_receipt(struct buffer *document, struct work *work, struct span receipt,
                           struct fault *fault)
{
    uint8_t storage[RECEIPT_MAX + 64];
    struct buffer body = buffer_over(storage, sizeof storage);
    struct cursor result;
    struct span signature;
    buffer_put(&body, SPAN_OF(work->tenant.id));
    buffer_put_field(&body, receipt);
    TRY(buffer_check(&body, "receipt", fault));
    TRY(kms_call(&result, work->control->kms, MESSAGE_RECEIPT_SIGN, buffer_span(&body), fault));
    TRY(cursor_bytes(&signature, &result, SIGNATURE_BYTES, fault));
    buffer_put_text(document, "{\"receipt\":");
    buffer_put(document, receipt);
    buffer_put_text(document, ",\"signature\":\"");
    base64_put(document, signature);
    buffer_put_text(document, "\",\"public_key\":\"");
    base64_put(document, SPAN_OF(work->control->platform_key));
    buffer_put_text(document, "\"}");
    return buffer_check(document, "receipt", fault);
}

static status record_erased(struct work *work, struct span document, struct span receipt,
                            struct fault *fault)
{
    struct control *control = work->control;
    TRY(registry_begin(control, fault));
    status result = registry_remove(control, work->tenant.id, fault);
    if (result == OK)
        result = registry_keep_receipt(control, &work->tenant, document, fault);
    if (result == OK)
        result = ledger_append(control, "tenant.erase", &work->tenant, work->operator_uid, receipt,
                               fault);
    return registry_end(control, result, fault);
}

static void on_silo_removed(void *context, status code, const char *detail,
                            struct cursor *result, struct ipc_message *message)
{
    struct work *work = context;
    struct fault fault = {0};
    uint8_t receipt_bytes[RECEIPT_MAX], document_bytes[2 * RECEIPT_MAX];
    struct buffer receipt = buffer_over(receipt_bytes, sizeof receipt_bytes);
    struct buffer document = buffer_over(document_bytes, sizeof document_bytes);
    (void)message;
    if (code != OK)
        (void)FAIL(code, &fault, "%s", detail);
    if (code == OK && (code = cursor_u64(&work->files, result, &fault)) == OK)
        code = cursor_u64(&work->bytes, result, &fault);
    if (code == OK) {
        put_receipt(&receipt, work);
        code = buffer_check(&receipt, "receipt", &fault);
    }
    if (code == OK)
        code = sign_receipt(&document, work, buffer_span(&receipt), &fault);
    if (code == OK)
        code = record_erased(work, buffer_span(&document), buffer_span(&receipt), &fault);
    gateways_tell_changed(work->control, work->tenant.id);
    gateways_tell_platform(work->control);
    finish(work, code, fault.detail, buffer_span(&document));
}

/* The key lives: nothing is lost yet, so the erasure is taken back. */
static void undo_erase(struct work *work, const char *why)
{
    struct fault fault = {0};
    work->tenant.state = work->tenant.was_paused ? TENANT_PAUSED_STATE : TENANT_ACTIVE;
    status result = record(work->control, &work->tenant, "tenant.erase.undone", change_state,
                           work->operator_uid, (struct span){0}, &fault);
    gateways_tell_changed(work->control, work->tenant.id);
    finish(work, result == OK ? UNAVAILABLE : result, why, (struct span){0});
}

static void on_cell_killed(void *context, status code, const char *detail, struct cursor *result,
                           struct ipc_message *message)
{
    struct work *work = context;
    struct cursor shredded;
    struct fault fault = {0};
    (void)result, (void)message;
    if (code != OK) {
        undo_erase(work, detail);
        return;
    }
    status destroyed = kms_call(&shredded, work->kms_admin, MESSAGE_KEY_SHRED,
                                SPAN_OF(work->tenant.id), &fault);
    if (destroyed == OK)
        destroyed = cursor_copy(work->key.fingerprint, &shredded, HASH_BYTES, &fault);
    if (destroyed == OK)
        destroyed = anchor_get(&work->key.anchor, &shredded, &fault);
    if (destroyed != OK) {
        struct key_state now;
        struct fault second;
        if (kms_key_state(&now, work->control, work->tenant.id, &second) == OK && now.state == 1)
            undo_erase(work, fault.detail);
        else /* unknown or destroyed: the next start decides */
            finish(work, destroyed, fault.detail, (struct span){0});
        return;
    }
    ask_silo_remove(work, on_silo_removed);
}

static void ask_cell_stop(struct work *work, enum cell_stop_how how, call_on_reply *on_reply)
{
    uint8_t storage[32];
    struct buffer body = buffer_over(storage, sizeof storage);
    buffer_put(&body, SPAN_OF(work->tenant.id));
    buffer_put_u8(&body, (uint8_t)how);
    call_supervisor(work->control, MESSAGE_CELL_STOP, buffer_span(&body), NULL, 0, on_reply, work);
}

/* Of an erasure: code that still ran could bring about more of what is to be gone. */
static void on_sandboxes_ended(void *context, status code, const char *detail, struct span json)
{
    (void)json;
    if (code != OK)
        undo_erase(context, detail);
    else
        ask_cell_stop(context, CELL_STOP_KILL, on_cell_killed);
}

static void answer_receipt(struct control *control, struct span name, struct outcome outcome)
{
    uint8_t storage[2 * RECEIPT_MAX];
    struct buffer document = buffer_over(storage, sizeof storage);
    struct fault fault;
    if (registry_receipt(&document, control, name, &fault) == OK)
        outcome.done(outcome.context, OK, "", buffer_span(&document)); /* erased before */
    else
        refuse(outcome, NOT_FOUND, "there is no tenant of this name");
}

void lifecycle_erase(struct control *control, struct span name, int kms_admin,
                     int64_t operator_uid, struct outcome outcome)
{
    struct fault fault = {0};
    struct tenant tenant;
    status result = registry_by_name(&tenant, control, name, &fault);
    if (result == NOT_FOUND) {
        answer_receipt(control, name, outcome);
        return;
    }
    /* an erasure that failed half way is taken up again: each step may be done twice */
    if (result == OK && (tenant.state == TENANT_CREATING || under_way(control, tenant.id)))
        result = FAIL(CONFLICT, &fault,
                      "it is being created, paused, erased or restored right now");
    if (result != OK) {
        refuse(outcome, result, fault.detail);
        return;
    }
    tenant.was_paused = tenant.was_paused || tenant.state == TENANT_PAUSED_STATE;
    tenant.state = TENANT_ERASING;
    struct work *work = begin(control, &tenant, kms_admin, operator_uid, outcome);
    if (!work)
        return;
    result = record(control, &tenant, NULL, change_state, -1, (struct span){0}, &fault);
    if (result != OK) {
        finish(work, result, fault.detail, (struct span){0});
        return;
    }
    gateways_tell_changed(control, tenant.id);
    sandboxes_stop_of(control, &tenant, operator_uid,
                      (struct outcome){.done = on_sandboxes_ended, .context = work});
}

static void on_parked(void *context, status code, const char *detail, struct cursor *result,
                      struct ipc_message *message)
{
    (void)result, (void)message;
    if (code == OK)
        finish_with_tenant(context);
    else
        finish(context, code, detail, (struct span){0});
}

static void on_sandboxes_paused(void *context, status code, const char *detail, struct span json)
{
    if (code != OK)
        finish(context, code, detail, json);
    else
        ask_cell_stop(context, CELL_STOP_PARK, on_parked);
}

/* Only without a process of the tenant is it paused; also when it was paused before. */
static void park(struct control *control, const struct tenant *tenant, int64_t operator_uid,
                 struct outcome outcome)
{
    struct work *work = begin(control, tenant, -1, operator_uid, outcome);
    if (work)
        sandboxes_stop_of(control, tenant, operator_uid,
                          (struct outcome){.done = on_sandboxes_paused, .context = work});
}

void lifecycle_pause(struct control *control, struct span name, bool pause, int64_t operator_uid,
                     struct outcome outcome)
{
    struct fault fault = {0};
    struct tenant tenant;
    uint8_t storage[TENANT_JSON_MAX];
    status result = registry_by_name(&tenant, control, name, &fault);
    if (result == NOT_FOUND)
        result = FAIL(NOT_FOUND, &fault, "there is no tenant of this name");
    if (result == OK && (tenant.state == TENANT_CREATING || tenant.state == TENANT_ERASING
                         || under_way(control, tenant.id)))
        result = FAIL(CONFLICT, &fault,
                      "it is being created, paused, erased or restored right now");
    enum tenant_state wanted = pause ? TENANT_PAUSED_STATE : TENANT_ACTIVE;
    if (result == OK && tenant.state != wanted) {
        tenant.state = wanted;
        result = record(control, &tenant, pause ? "tenant.pause" : "tenant.resume", change_state,
                        operator_uid, (struct span){0}, &fault);
        gateways_tell_changed(control, tenant.id);
    }
    if (result != OK) {
        refuse(outcome, result, fault.detail);
        return;
    }
    if (pause) {
        park(control, &tenant, operator_uid, outcome);
        return;
    }
    struct buffer json = buffer_over(storage, sizeof storage);
    struct json_writer writer = json_writer_on(&json);
    tenant_put_json(&writer, control, &tenant);
    outcome.done(outcome.context, OK, "", buffer_span(&json));
}

struct leftovers {
    struct control *control;
    struct work *found[LEFTOVERS_MAX]; /* more are taken up at the next start */
    uint32_t count;
};

static status collect(void *context, const struct tenant *tenant, struct fault *fault)
{
    struct leftovers *leftovers = context;
    (void)fault;
    if ((tenant->state != TENANT_CREATING && tenant->state != TENANT_ERASING)
        || leftovers->count == LEFTOVERS_MAX || under_way(leftovers->control, tenant->id))
        return OK;
    struct work *work = begin(leftovers->control, tenant, -1, -1, (struct outcome){0});
    if (work)
        leftovers->found[leftovers->count++] = work;
    return OK;
}

void lifecycle_reconcile(struct control *control)
{
    struct leftovers leftovers = {.control = control};
    struct fault fault;
    if (registry_all(control, collect, &leftovers, &fault) != OK)
        control_die("registry", &fault);
    for (uint32_t i = 0; i < leftovers.count; i++) {
        struct work *work = leftovers.found[i];
        status asked = kms_key_state(&work->key, control, work->tenant.id, &fault);
        if (asked != OK)
            finish(work, asked, fault.detail, (struct span){0});
        else if (work->tenant.state == TENANT_CREATING)
            undo_create(work, "found half made");
        else if (work->key.state == 1)
            undo_erase(work, "found half erased, its key alive");
        else
            ask_silo_remove(work, on_silo_removed);
    }
    restores_reconcile(control);
    charters_settle(control); /* after it: of tenants whose erasure is undone, too */
}
