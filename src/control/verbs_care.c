/* verbs_care.c: what leaves a tenant's cell as a whole: its audit log, backups; and what comes
 * back. The cell writes to the operator's descriptor itself: control sees no byte of it. */
#include "base/cleanup.h"
#include "control/control.h"

#include <stdlib.h>

struct export_work {
    struct session *session;
    struct tenant tenant;
    char kind[16];
    uint64_t sequence;
    int fds[2];
    uint32_t fd_count;
};

static void free_work(struct export_work *work)
{
    for (uint32_t i = 0; i < work->fd_count; i++)
        close(work->fds[i]);
    free(work);
}

static void on_taken(void *context, status code, const char *detail, struct cursor *result,
                     struct ipc_message *message)
{
    (void)result, (void)message;
    session_answer(context, code, detail, SPAN("{}"));
}

static status ask_export(struct export_work *work, struct fault *fault)
{
    struct control *control = work->session->control;
    _cleanup_buffer_ struct buffer body = buffer_of(IPC_BODY_MAX);
    _cleanup_buffer_ struct buffer posture = buffer_of(IPC_BODY_MAX);
    TRY(posture_put(&posture, control, &work->tenant, fault));
    buffer_put(&body, SPAN_OF(work->tenant.id));
    buffer_put_u32(&body, work->tenant.uid);
    buffer_put_field(&body, buffer_span(&posture));
    buffer_put_text_field(&body, work->kind);
    buffer_put_u64(&body, work->sequence);
    TRY(buffer_check(&body, "CELL_EXPORT", fault));
    call_supervisor(control, MESSAGE_CELL_EXPORT, buffer_span(&body), work->fds, work->fd_count,
                    on_taken, work->session);
    return OK;
}

static void on_woken(void *context, status code, const char *detail, struct span json)
{
    struct export_work *work = context;
    struct fault fault;
    (void)json;
    if (code == OK) {
        code = ask_export(work, &fault);
        detail = fault.detail;
    }
    if (code != OK)
        session_answer(work->session, code, detail, (struct span){0});
    free_work(work);
}

/* Takes the descriptors of the message. */
static status begin_export(struct session *session, const struct tenant *tenant, const char *kind,
                           uint64_t sequence, struct ipc_message *message, struct fault *fault)
{
    if (tenant->state != TENANT_ACTIVE)
        return FAIL(UNAVAILABLE, fault, "the tenant is not active");
    struct export_work *work = calloc(1, sizeof *work);
    if (!work)
        return FAIL(INTERNAL, fault, "out of memory");
    *work = (struct export_work){.session = session, .tenant = *tenant, .sequence = sequence,
                                 .fd_count = message->fd_count};
    span_to_text(work->kind, sizeof work->kind, span_of_text(kind));
    for (uint32_t i = 0; i < work->fd_count; i++)
        work->fds[i] = take_fd(&message->fds[i]);
    wake_tenant(session->control, tenant, UINT32_MAX,
                (struct outcome){.done = on_woken, .context = work});
    return OK;
}

static status write_ledger(struct session *session, const char *event, const struct tenant *tenant,
                           struct span detail, struct fault *fault)
{
    TRY(registry_begin(session->control, fault));
    status result = ledger_append(session->control, event, tenant, session->uid, detail, fault);
    return registry_end(session->control, result, fault);
}

/* Of verbs that take a name and one descriptor. */
static status read_tenant(struct tenant *ret, struct session *session,
                          const struct json *arguments, const struct ipc_message *message,
                          struct fault *fault)
{
    static const char *const known[] = {"name", NULL};
    TRY(ipc_need_fds(message, 1, fault));
    TRY(json_only(arguments, known, fault));
    return verb_tenant(ret, session->control, arguments, fault);
}

static status export_of(struct session *session, const char *kind, const struct json *arguments,
                        struct ipc_message *message, struct fault *fault)
{
    struct tenant tenant;
    TRY(read_tenant(&tenant, session, arguments, message, fault));
    return begin_export(session, &tenant, kind, 0, message, fault);
}

status verb_audit_export(struct session *session, const struct json *arguments,
                         struct ipc_message *message, struct fault *fault)
{
    return export_of(session, "audit", arguments, message, fault);
}

status verb_audit_checkpoint(struct session *session, const struct json *arguments,
                             struct ipc_message *message, struct fault *fault)
{
    return export_of(session, "checkpoint", arguments, message, fault);
}

status verb_check(struct session *session, const struct json *arguments,
                  struct ipc_message *message, struct fault *fault)
{
    return export_of(session, "check", arguments, message, fault);
}

static status refuse_withdrawn(struct control *control, const struct tenant *tenant,
                               struct fault *fault)
{
    struct key_state key;
    TRY(kms_key_state(&key, control, tenant->id, fault));
    if (key.withdrawn)
        return FAIL(UNAVAILABLE, fault, "the tenant's key is withdrawn");
    return OK;
}

/* In clear, on purpose: the ledger knows before the tenant's own log does, and that before the
 * first byte. */
status verb_tenant_export(struct session *session, const struct json *arguments,
                          struct ipc_message *message, struct fault *fault)
{
    struct tenant tenant;
    TRY(read_tenant(&tenant, session, arguments, message, fault));
    if (tenant.state != TENANT_ACTIVE)
        return FAIL(UNAVAILABLE, fault, "the tenant is not active");
    TRY(refuse_withdrawn(session->control, &tenant, fault));
    TRY(write_ledger(session, "tenant.export", &tenant, (struct span){0}, fault));
    return begin_export(session, &tenant, "tenant", 0, message, fault);
}

/* Descriptors: where to; and the backup before, for an incremental one. */
status verb_backup(struct session *session, const struct json *arguments,
                   struct ipc_message *message, struct fault *fault)
{
    static const char *const known[] = {"name", "sequence", NULL};
    uint8_t storage[128];
    struct buffer detail = buffer_over(storage, sizeof storage);
    struct tenant tenant;
    int64_t sequence = 0;
    if (message->fd_count != 2)
        TRY(ipc_need_fds(message, 1, fault));
    TRY(json_only(arguments, known, fault));
    TRY(verb_tenant(&tenant, session->control, arguments, fault));
    TRY(json_optional_integer(&sequence, arguments, "sequence", 1, BACKUP_SEQUENCE_MAX, fault));
    if (sequence == 0)
        return FAIL(BAD_FIELD, fault, "sequence: must be 1 to %d", BACKUP_SEQUENCE_MAX);
    if (tenant.state != TENANT_ACTIVE)
        return FAIL(UNAVAILABLE, fault, "the tenant is not active");
    buffer_printf(&detail, "{\"backup\":%lld,\"incremental\":%s}", (long long)sequence,
                  message->fd_count == 2 ? "true" : "false");
    TRY(write_ledger(session, "tenant.backup", &tenant, buffer_span(&detail), fault));
    return begin_export(session, &tenant, "backup", (uint64_t)sequence, message, fault);
}

static void on_done(void *context, status code, const char *detail, struct span json)
{
    session_answer(context, code, detail, json);
}

status verb_restore(struct session *session, const struct json *arguments,
                    struct ipc_message *message, struct fault *fault)
{
    struct tenant tenant;
    TRY(read_tenant(&tenant, session, arguments, message, fault));
    return restore_begin(session, &tenant, &message->fds[0],
                         (struct outcome){.done = on_done, .context = session}, fault);
}
