/* keys.c: what operators ask about a tenant's keys: the next version of either, and the withdrawal
 * of the KEK. The kms decides and keeps; here is the order, and the ledger.
 *
 * A data key is rotated by the charter: its cell, awake or woken for it, does the rest by itself.
 * A KEK is rotated by the kms; the tenant's cell is parked and woken, and wraps its data keys
 * anew. */
#include "base/hex.h"
#include "base/log.h"
#include "control/control.h"

#include <stdlib.h>

enum { DETAIL_MAX = 512 };

static status only_tenant(struct tenant *ret, struct session *session,
                          const struct json *arguments, struct fault *fault)
{
    static const char *const known[] = {"name", NULL};
    TRY(json_only(arguments, known, fault));
    return verb_tenant(ret, session->control, arguments, fault);
}

static status live_key(struct key_state *ret, struct session *session,
                       const struct tenant *tenant, struct fault *fault)
{
    TRY(kms_key_state(ret, session->control, tenant->id, fault));
    if (ret->state != 1)
        return FAIL(CONFLICT, fault, "there is no live key of this tenant");
    return OK;
}

void keys_put_json(struct json_writer *writer, struct control *control,
                   const struct tenant *tenant)
{
    struct key_state key;
    struct charter *charter = NULL;
    struct fault fault;
    char fingerprint[2 * HASH_BYTES + 1];
    if (kms_key_state(&key, control, tenant->id, &fault) != OK || key.state != 1
        || charter_newest(&charter, control, tenant->id, &fault) != OK) {
        json_put_null(writer, "key");
        return;
    }
    hex_encode(fingerprint, SPAN_OF(key.fingerprint));
    json_open_object(writer, "key");
    json_put_integer(writer, "version", key.dek_newest);
    json_put_bool(writer, "rotating", key.dek_floor < key.dek_newest
                  || key.dek_newest < charter->posture.key_version);
    json_put_text(writer, "kek_fingerprint", fingerprint);
    json_put_bool(writer, "kek_rotating", key.kek_rotating);
    json_put_bool(writer, "withdrawn", key.withdrawn);
    json_close_object(writer);
    charter_free(charter);
}

static status answer_tenant(struct session *session, const struct tenant *tenant,
                            struct fault *fault)
{
    _cleanup_buffer_ struct buffer text = buffer_of(IPC_BODY_MAX);
    struct json_writer writer = json_writer_on(&text);
    tenant_put_whole(&writer, session->control, tenant, 0);
    TRY(buffer_check(&text, "tenant", fault));
    session_answer(session, OK, "", buffer_span(&text));
    return OK;
}

static status note(struct session *session, const struct tenant *tenant, const char *event,
                   struct span detail, struct fault *fault)
{
    struct control *control = session->control;
    TRY(registry_begin(control, fault));
    status noted = ledger_append(control, event, tenant, session->uid, detail, fault);
    return registry_end(control, noted, fault);
}

/* ---- the data key ---- */

static void on_woken(void *context, status code, const char *detail, struct span json)
{
    (void)context, (void)json;
    if (code != OK) /* the next request, or the next expiry, wakes it */
        log_event(LOG_WARN, "rotation.wake", "%s", detail);
}

static status sign_next(struct session *session, const struct tenant *tenant, struct draft *draft,
                        const struct key_state *key, struct fault *fault)
{
    uint8_t storage[DETAIL_MAX];
    struct buffer detail = buffer_over(storage, sizeof storage);
    struct json_writer writer = json_writer_on(&detail);
    if (!draft->newest)
        return FAIL(CORRUPT, fault, "the tenant has no charter");
    if (draft->newest->posture.key_version > key->dek_newest)
        return OK; /* the version that was asked for is not made yet: it will be newer than now */
    if (key->dek_newest - key->dek_floor + 1 >= DEK_VERSIONS_MAX)
        return FAIL(CONFLICT, fault, "a rotation is still running, and %d versions are in use",
                    DEK_VERSIONS_MAX);
    if (key->dek_newest == UINT32_MAX)
        return FAIL(CONFLICT, fault, "the data key was rotated as often as can be");
    draft->next.posture.key_version = key->dek_newest + 1;
    json_open_object(&writer, NULL);
    json_put_integer(&writer, "charter_sequence", (int64_t)draft->next.sequence);
    json_put_integer(&writer, "key_version", draft->next.posture.key_version);
    json_close_object(&writer);
    TRY(buffer_check(&detail, "detail", fault));
    const struct ledger_note entry = {"tenant.rotate_dek", buffer_span(&detail), session->uid};
    return charter_change(session->control, tenant, &draft->next, &entry, session->kms_admin,
                          fault);
}

status verb_rotate_dek(struct session *session, const struct json *arguments,
                       struct ipc_message *message, struct fault *fault)
{
    struct tenant tenant;
    struct key_state key;
    struct draft draft = {0};
    (void)message;
    TRY(only_tenant(&tenant, session, arguments, fault));
    TRY(live_key(&key, session, &tenant, fault));
    TRY(draft_open(&draft, session->control, tenant.id, fault));
    status signed_next = sign_next(session, &tenant, &draft, &key, fault);
    draft_close(&draft);
    TRY(signed_next);
    wake_tenant(session->control, &tenant, UINT32_MAX, (struct outcome){.done = on_woken});
    return answer_tenant(session, &tenant, fault);
}

/* ---- the KEK ---- */

struct rewrapping {
    struct session *session;
    struct tenant tenant;
};

static void finish(struct rewrapping *work, status code, const char *detail)
{
    struct fault fault = {0};
    struct session *session = work->session;
    if (code == OK)
        code = answer_tenant(session, &work->tenant, &fault);
    else
        (void)FAIL(code, &fault, "the new key is made; the tenant's keys are wrapped under it "
                   "when it wakes: %.120s", detail);
    if (code != OK)
        session_answer(session, code, fault.detail, (struct span){0});
    free(work);
}

static void on_rewrapped(void *context, status code, const char *detail, struct span json)
{
    (void)json;
    finish(context, code, detail);
}

static void on_parked(void *context, status code, const char *detail, struct cursor *result,
                      struct ipc_message *message)
{
    struct rewrapping *work = context;
    (void)result, (void)message;
    if (code != OK)
        finish(work, code, detail);
    else
        wake_tenant(work->session->control, &work->tenant, UINT32_MAX,
                    (struct outcome){.done = on_rewrapped, .context = work});
}

static status note_rotated(struct session *session, const struct tenant *tenant,
                           struct cursor *result, struct fault *fault)
{
    uint8_t fingerprint[HASH_BYTES], storage[DETAIL_MAX];
    char text[2 * HASH_BYTES + 1];
    struct buffer detail = buffer_over(storage, sizeof storage);
    struct json_writer writer = json_writer_on(&detail);
    TRY(cursor_copy(fingerprint, result, sizeof fingerprint, fault));
    hex_encode(text, SPAN_OF(fingerprint));
    json_open_object(&writer, NULL);
    json_put_text(&writer, "kek_fingerprint", text);
    json_close_object(&writer);
    return note(session, tenant, "tenant.rotate_kek", buffer_span(&detail), fault);
}

status verb_rotate_kek(struct session *session, const struct json *arguments,
                       struct ipc_message *message, struct fault *fault)
{
    struct tenant tenant;
    struct key_state key;
    struct cursor result;
    uint8_t storage[32];
    struct buffer body = buffer_over(storage, sizeof storage);
    (void)message;
    TRY(only_tenant(&tenant, session, arguments, fault));
    TRY(live_key(&key, session, &tenant, fault));
    struct rewrapping *work = malloc(sizeof *work);
    if (!work)
        return FAIL(INTERNAL, fault, "out of memory");
    *work = (struct rewrapping){session, tenant};
    status rotated = kms_call(&result, session->kms_admin, MESSAGE_KEK_ROTATE,
                              SPAN_OF(tenant.id), fault);
    if (rotated == OK)
        rotated = note_rotated(session, &tenant, &result, fault);
    if (rotated != OK) {
        free(work);
        return rotated;
    }
    buffer_put(&body, SPAN_OF(tenant.id));
    buffer_put_u8(&body, CELL_STOP_PARK);
    call_supervisor(session->control, MESSAGE_CELL_STOP, buffer_span(&body), NULL, 0, on_parked,
                    work);
    return OK;
}

/* ---- withdrawal ---- */

/* The entry first: what is done to a tenant's key is never done unseen. */
static status withdraw(struct session *session, const struct json *arguments, bool withdrawn,
                       struct fault *fault)
{
    struct tenant tenant;
    struct key_state key;
    struct cursor result;
    TRY(only_tenant(&tenant, session, arguments, fault));
    TRY(live_key(&key, session, &tenant, fault));
    TRY(note(session, &tenant, withdrawn ? "tenant.key.disable" : "tenant.key.enable",
             (struct span){0}, fault));
    TRY(kms_call(&result, session->kms_admin, withdrawn ? MESSAGE_KEY_DISABLE : MESSAGE_KEY_ENABLE,
                 SPAN_OF(tenant.id), fault));
    if (!withdrawn)
        wakes_forget_withdrawal(session->control, tenant.id);
    return answer_tenant(session, &tenant, fault);
}

status verb_key_disable(struct session *session, const struct json *arguments,
                        struct ipc_message *message, struct fault *fault)
{
    (void)message;
    return withdraw(session, arguments, true, fault);
}

status verb_key_enable(struct session *session, const struct json *arguments,
                       struct ipc_message *message, struct fault *fault)
{
    (void)message;
    return withdraw(session, arguments, false, fault);
}
