/* permits.c: what each kind of child may say, in which states, with how many descriptors, and who
 * handles it. What is not in its table ends the child. */
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/hex.h"
#include "base/log.h"
#include "supervisor/supervisor.h"

#include <string.h>
#include <unistd.h>

enum { DAMAGE_LOG_US = 1000 * 1000, ONE_FD_OR_TWO = 100 };

typedef status handler(struct child *child, struct ipc_message *message, struct cursor *body,
                       struct fault *fault);

struct permit {
    uint32_t type;
    enum child_state first, last; /* allowed in these states */
    uint32_t fds;
    handler *handle;
};

static status tenant_of(uint8_t ret[TENANT_ID_BYTES], struct cursor *body, struct fault *fault)
{
    static const uint8_t zeros[TENANT_ID_BYTES];
    TRY(cursor_copy(ret, body, TENANT_ID_BYTES, fault));
    if (memcmp(ret, zeros, TENANT_ID_BYTES) == 0)
        return FAIL(BAD_REQUEST, fault, "the all-zero id is no tenant's");
    return OK;
}

/* No uid below the tenants' range can be asked for: not root's, not a service's. */
static status uid_of(uint32_t *ret, struct child *control, struct cursor *body,
                     struct fault *fault)
{
    uint32_t uid;
    TRY(cursor_u32(&uid, body, fault));
    if (uid < control->supervisor->options.uid_base + 1000 || uid == UINT32_MAX)
        return FAIL(BAD_REQUEST, fault, "uid %u is outside the tenants' range", uid);
    *ret = uid;
    return OK;
}

static status on_ready(struct child *child, struct ipc_message *message, struct cursor *body,
                       struct fault *fault)
{
    (void)body, (void)fault;
    service_ready(child, message);
    return OK;
}

static status on_gateway_reply(struct child *child, struct ipc_message *message,
                               struct cursor *body, struct fault *fault)
{
    (void)body;
    return tls_answered(child, message, fault);
}

/* The kms refuses to serve a cell: no key for that tenant. */
static status on_kms_reply(struct child *child, struct ipc_message *message, struct cursor *body,
                           struct fault *fault)
{
    (void)body;
    struct cursor result;
    status code = reply_get_head(&result, message, fault);
    if (code == OK)
        return OK;
    if (message->id == 0) { /* an operator's channel, or control's: whose it was sees it closed */
        log_event(LOG_WARN, "kms.refused", "%s", fault->detail);
        return OK;
    }
    for (struct child *cell = child->supervisor->cells; cell; cell = cell->next) {
        if (cell->index != message->id)
            continue;
        cell->refused = true;
        cell->refusal = code;
        span_to_text(cell->detail, sizeof cell->detail, span_of_text(fault->detail));
        child_fatal(cell, "the kms refused its key");
    }
    return OK;
}

static status on_silo_make(struct child *child, struct ipc_message *message, struct cursor *body,
                           struct fault *fault)
{
    uint8_t tenant[TENANT_ID_BYTES];
    uint32_t uid;
    TRY(tenant_of(tenant, body, fault));
    TRY(uid_of(&uid, child, body, fault));
    TRY(cursor_end(body, fault));
    struct fault why = {0};
    status made = silos_make(&child->supervisor->silos, tenant, uid, &why);
    child_reply(child, message->id, made, why.detail);
    return OK;
}

static status on_silo_remove(struct child *child, struct ipc_message *message,
                             struct cursor *body, struct fault *fault)
{
    uint8_t tenant[TENANT_ID_BYTES], storage[64];
    struct silos_removed gone;
    struct fault why = {0};
    TRY(tenant_of(tenant, body, fault));
    TRY(cursor_end(body, fault));
    status removed;
    if (cells_find(child->supervisor, tenant))
        removed = FAIL(CONFLICT, &why, "a cell still has this silo");
    else
        removed = silos_remove(&gone, &child->supervisor->silos, tenant, &why);
    if (removed != OK) {
        child_reply(child, message->id, removed, why.detail);
        return OK;
    }
    if (gone.later)
        erased_clear(child->supervisor);
    struct buffer reply = buffer_over(storage, sizeof storage);
    reply_put_head(&reply, OK, NULL);
    buffer_put_u64(&reply, gone.files);
    buffer_put_u64(&reply, gone.bytes);
    child_send(child, MESSAGE_REPLY, message->id, buffer_span(&reply), NULL, 0);
    return OK;
}

static status on_silo_restore(struct child *child, struct ipc_message *message,
                              struct cursor *body, struct fault *fault)
{
    uint8_t tenant[TENANT_ID_BYTES];
    uint32_t uid;
    TRY(tenant_of(tenant, body, fault));
    TRY(uid_of(&uid, child, body, fault));
    TRY(cursor_end(body, fault));
    cells_restore(child->supervisor, tenant, uid, message->fds[0], message->id);
    return OK;
}

/* While no cell has either of the two. */
static status settle(struct child *child, struct ipc_message *message, struct cursor *body,
                     status (*act)(const struct silos *, const uint8_t *, struct fault *),
                     struct fault *fault)
{
    uint8_t tenant[TENANT_ID_BYTES];
    struct fault why = {0};
    TRY(tenant_of(tenant, body, fault));
    TRY(cursor_end(body, fault));
    status done;
    if (cells_find(child->supervisor, tenant))
        done = FAIL(CONFLICT, &why, "a cell still has this silo");
    else
        done = act(&child->supervisor->silos, tenant, &why);
    erased_clear(child->supervisor); /* what was there may have been set aside */
    child_reply(child, message->id, done, why.detail);
    return OK;
}

static status on_silo_replace(struct child *child, struct ipc_message *message,
                              struct cursor *body, struct fault *fault)
{
    return settle(child, message, body, silos_replace, fault);
}

static status on_silo_discard(struct child *child, struct ipc_message *message,
                              struct cursor *body, struct fault *fault)
{
    return settle(child, message, body, silos_discard, fault);
}

static status on_cell_wake(struct child *child, struct ipc_message *message, struct cursor *body,
                           struct fault *fault)
{
    uint8_t tenant[TENANT_ID_BYTES];
    uint32_t uid, gateway;
    struct span posture;
    TRY(tenant_of(tenant, body, fault));
    TRY(uid_of(&uid, child, body, fault));
    TRY(cursor_u32(&gateway, body, fault));
    TRY(cursor_field(&posture, body, IPC_BODY_MAX, "posture", fault));
    TRY(cursor_end(body, fault));
    cells_wake(child->supervisor, tenant, uid, posture, gateway, message->id);
    return OK;
}

static status on_cell_stop(struct child *child, struct ipc_message *message, struct cursor *body,
                           struct fault *fault)
{
    uint8_t tenant[TENANT_ID_BYTES], how;
    TRY(tenant_of(tenant, body, fault));
    TRY(cursor_u8(&how, body, fault));
    TRY(cursor_end(body, fault));
    if (how > CELL_STOP_KILL || message->id == 0)
        return FAIL(BAD_REQUEST, fault, "CELL_STOP: unknown way %u or id 0", how);
    cells_stop(child->supervisor, tenant, (enum cell_stop_how)how, message->id);
    return OK;
}

static status on_cell_export(struct child *child, struct ipc_message *message,
                             struct cursor *body, struct fault *fault)
{
    uint8_t tenant[TENANT_ID_BYTES], storage[64];
    uint32_t uid;
    struct span posture;
    char kind[32];
    uint64_t sequence;
    TRY(tenant_of(tenant, body, fault));
    TRY(uid_of(&uid, child, body, fault));
    TRY(cursor_field(&posture, body, IPC_BODY_MAX, "posture", fault));
    TRY(cursor_text(kind, sizeof kind, body, "kind", fault));
    TRY(cursor_u64(&sequence, body, fault));
    TRY(cursor_end(body, fault));
    if (span_is(span_of_text(kind), "tenant") /* in clear: never for control alone */
        && !admin_operator_is_there(child->supervisor)) {
        child_reply(child, message->id, FORBIDDEN_POLICY, "the operator is gone");
        return OK;
    }
    struct child *cell = cells_find(child->supervisor, tenant);
    if (!cell || cell->state != CHILD_SERVING) { /* control wakes it first */
        child_reply(child, message->id, AGAIN, "no cell serves this tenant");
        return OK;
    }
    struct buffer request = buffer_over(storage, sizeof storage);
    buffer_put_text_field(&request, kind);
    buffer_put_u64(&request, sequence);
    child_send(cell, MESSAGE_CELL_EXPORT, 0, buffer_span(&request), message->fds,
               message->fd_count);
    child_reply(child, message->id, OK, NULL);
    return OK;
}

static status on_status(struct child *child, struct ipc_message *message, struct cursor *body,
                        struct fault *fault)
{
    TRY(cursor_end(body, fault));
    report_status(child, message->id);
    return OK;
}

static status on_prove(struct child *child, struct ipc_message *message, struct cursor *body,
                       struct fault *fault)
{
    struct cursor ahead = *body;
    uint8_t tenant[TENANT_ID_BYTES];
    uint32_t uid;
    TRY(tenant_of(tenant, &ahead, fault));
    TRY(uid_of(&uid, child, &ahead, fault));
    prove_start(child->supervisor, message->id, body, message);
    return OK;
}

static status on_blank(struct child *child, struct ipc_message *message, struct cursor *body,
                       struct fault *fault)
{
    (void)message;
    TRY(cursor_end(body, fault));
    child->state = CHILD_BLANK;
    cells_count(child->supervisor);
    loop_timer_stop(child->supervisor->loop, &child->timer);
    if (child->hostile)
        prove_advance(child);
    return OK;
}

static status on_cell_ready(struct child *child, struct ipc_message *message, struct cursor *body,
                            struct fault *fault)
{
    (void)message;
    struct stats *stats = &child->supervisor->stats->slots[0];
    if (child->restoring)
        return FAIL(BAD_REQUEST, fault, "CELL_READY of a cell that restores");
    TRY(cursor_u64(&child->bytes, body, fault));
    TRY(cursor_end(body, fault));
    stats_add(&stats->wakes, 1);
    stats_time(stats->wake_us, &stats->wake_us_sum,
               (uint64_t)(clock_monotonic_us() - child->wake_started_us));
    cell_ready(child);
    return OK;
}

static status on_cell_failed(struct child *child, struct ipc_message *message,
                             struct cursor *body, struct fault *fault)
{
    (void)message;
    uint16_t code;
    TRY(cursor_u16(&code, body, fault));
    TRY(cursor_text(child->detail, sizeof child->detail, body, "detail", fault));
    TRY(cursor_end(body, fault));
    if (code == OK || code >= STATUS_COUNT)
        return FAIL(BAD_REQUEST, fault, "CELL_FAILED with status %u", code);
    child->refused = true;
    child->refusal = (status)code;
    return OK; /* it exits by itself, or the wake deadline ends it */
}

/* What it made is for control to judge; that it ends well is still to be seen. */
static status on_cell_restored(struct child *child, struct ipc_message *message,
                               struct cursor *body, struct fault *fault)
{
    (void)message;
    size_t length = cursor_left(body);
    if (!child->restoring || child->restored_length || length == 0
        || length > sizeof child->restored)
        return FAIL(BAD_REQUEST, fault, "CELL_RESTORED out of turn, or of %zu bytes", length);
    TRY(cursor_copy(child->restored, body, length, fault));
    child->restored_length = (uint32_t)length;
    return OK;
}

static status on_cell_idle(struct child *child, struct ipc_message *message, struct cursor *body,
                           struct fault *fault)
{
    (void)message;
    TRY(cursor_end(body, fault));
    return cell_idle(child, fault);
}

static status on_cell_parked(struct child *child, struct ipc_message *message,
                             struct cursor *body, struct fault *fault)
{
    (void)message;
    uint64_t expiry;
    TRY(cursor_u64(&expiry, body, fault));
    TRY(cursor_u64(&child->bytes, body, fault));
    TRY(cursor_end(body, fault));
    usage_look(child);
    child->next_expiry_us = (int64_t)expiry;
    cell_parked(child);
    return OK;
}

/* Not a byte of it is read here. It comes just before CELL_PARKED, too: the peak is then known. */
static status on_cell_usage(struct child *child, struct ipc_message *message, struct cursor *body,
                            struct fault *fault)
{
    (void)body;
    return usage_report(child, message->body, fault);
}

static status on_cell_damage(struct child *child, struct ipc_message *message,
                             struct cursor *body, struct fault *fault)
{
    (void)message;
    char id[TENANT_ID_TEXT], where[120];
    uint32_t pages;
    TRY(cursor_u32(&pages, body, fault));
    TRY(cursor_text(where, sizeof where, body, "where", fault));
    TRY(cursor_end(body, fault));
    if (pages <= child->damaged)
        return FAIL(BAD_REQUEST, fault, "CELL_DAMAGE: %u pages after %llu", pages,
                    (unsigned long long)child->damaged);
    child->damaged = pages;
    int64_t now_us = clock_monotonic_us();
    if (now_us - child->damage_logged_us < DAMAGE_LOG_US)
        return OK; /* `status` has the number; a taken-over cell must not fill the log */
    child->damage_logged_us = now_us;
    hex_encode(id, SPAN_OF(child->tenant));
    log_event(LOG_ERROR, "silo.damaged", "tenant %s: %u pages, %s", id, pages, where);
    return OK;
}

static status on_sandbox_start(struct child *child, struct ipc_message *message,
                               struct cursor *body, struct fault *fault)
{
    uint8_t tenant[TENANT_ID_BYTES]; /* all zero: the operator's own */
    struct sandbox_spec spec;
    TRY(cursor_copy(tenant, body, TENANT_ID_BYTES, fault));
    TRY(sandbox_spec_get(&spec, body, fault));
    TRY(cursor_end(body, fault));
    if (message->id == 0)
        return FAIL(BAD_REQUEST, fault, "SANDBOX_START with id 0");
    if (spec.console != (message->fd_count == 2))
        return FAIL(BAD_REQUEST, fault, "SANDBOX_START: a console and its descriptor go together");
    sandboxes_start(child->supervisor, message->id, tenant, &spec, take_fd(&message->fds[0]),
                    spec.console ? take_fd(&message->fds[1]) : -1);
    return OK;
}

static status on_sandbox_stop(struct child *child, struct ipc_message *message,
                              struct cursor *body, struct fault *fault)
{
    uint64_t id;
    TRY(cursor_u64(&id, body, fault));
    TRY(cursor_end(body, fault));
    if (message->id == 0)
        return FAIL(BAD_REQUEST, fault, "SANDBOX_STOP with id 0");
    sandboxes_stop(child->supervisor, id, message->id);
    return OK;
}

static status on_vmm_blank(struct child *child, struct ipc_message *message, struct cursor *body,
                           struct fault *fault)
{
    (void)message;
    TRY(cursor_end(body, fault));
    monitor_blank(child);
    return OK;
}

static status on_vmm_running(struct child *child, struct ipc_message *message,
                             struct cursor *body, struct fault *fault)
{
    (void)message;
    uint64_t entered_us, dialled_us;
    TRY(cursor_u64(&entered_us, body, fault));
    TRY(cursor_u64(&dialled_us, body, fault));
    TRY(cursor_end(body, fault));
    return monitor_running(child, entered_us, dialled_us, fault);
}

static status on_vmm_used(struct child *child, struct ipc_message *message, struct cursor *body,
                          struct fault *fault)
{
    (void)message;
    uint64_t cpu_us, peak_kib;
    TRY(cursor_u64(&cpu_us, body, fault));
    TRY(cursor_u64(&peak_kib, body, fault));
    TRY(cursor_end(body, fault));
    return monitor_used(child, cpu_us, peak_kib, fault);
}

static status on_vmm_ended(struct child *child, struct ipc_message *message, struct cursor *body,
                           struct fault *fault)
{
    (void)message;
    uint8_t end;
    char detail[200];
    TRY(cursor_u8(&end, body, fault));
    TRY(cursor_text(detail, sizeof detail, body, "detail", fault));
    TRY(cursor_end(body, fault));
    return monitor_guest_ended(child, end, detail, fault);
}

static const struct permit kms_permits[] = {
    {MESSAGE_READY, CHILD_JAILED, CHILD_JAILED, 0, on_ready},
    {MESSAGE_REPLY, CHILD_JAILED, CHILD_PARKING, 0, on_kms_reply},
    {0}};

static const struct permit control_permits[] = {
    {MESSAGE_READY, CHILD_JAILED, CHILD_JAILED, 0, on_ready},
    {MESSAGE_SILO_MAKE, CHILD_JAILED, CHILD_SERVING, 0, on_silo_make},
    {MESSAGE_SILO_REMOVE, CHILD_JAILED, CHILD_SERVING, 0, on_silo_remove},
    {MESSAGE_CELL_WAKE, CHILD_SERVING, CHILD_SERVING, 0, on_cell_wake},
    {MESSAGE_CELL_STOP, CHILD_JAILED, CHILD_SERVING, 0, on_cell_stop},
    {MESSAGE_CELL_EXPORT, CHILD_SERVING, CHILD_SERVING, ONE_FD_OR_TWO, on_cell_export},
    {MESSAGE_SILO_RESTORE, CHILD_SERVING, CHILD_SERVING, 1, on_silo_restore},
    {MESSAGE_SILO_REPLACE, CHILD_JAILED, CHILD_SERVING, 0, on_silo_replace},
    {MESSAGE_SILO_DISCARD, CHILD_JAILED, CHILD_SERVING, 0, on_silo_discard},
    {MESSAGE_STATUS, CHILD_SERVING, CHILD_SERVING, 0, on_status},
    {MESSAGE_PROVE, CHILD_SERVING, CHILD_SERVING, 1, on_prove},
    {MESSAGE_SANDBOX_START, CHILD_SERVING, CHILD_SERVING, ONE_FD_OR_TWO, on_sandbox_start},
    {MESSAGE_SANDBOX_STOP, CHILD_SERVING, CHILD_SERVING, 0, on_sandbox_stop},
    {0}};

static const struct permit gateway_permits[] = {
    {MESSAGE_READY, CHILD_JAILED, CHILD_JAILED, 0, on_ready},
    {MESSAGE_REPLY, CHILD_JAILED, CHILD_PARKING, 0, on_gateway_reply},
    {0}};

static const struct permit cell_permits[] = {
    {MESSAGE_CELL_BLANK, CHILD_STARTING, CHILD_STARTING, 0, on_blank},
    {MESSAGE_CELL_READY, CHILD_JAILED, CHILD_JAILED, 0, on_cell_ready},
    {MESSAGE_CELL_FAILED, CHILD_CLOSING, CHILD_JAILED, 0, on_cell_failed},
    {MESSAGE_CELL_RESTORED, CHILD_JAILED, CHILD_JAILED, 0, on_cell_restored},
    {MESSAGE_CELL_IDLE, CHILD_SERVING, CHILD_PARKING, 0, on_cell_idle}, /* may cross CELL_PARK */
    {MESSAGE_CELL_PARKED, CHILD_PARKING, CHILD_PARKING, 0, on_cell_parked},
    {MESSAGE_CELL_USAGE, CHILD_SERVING, CHILD_PARKING, 0, on_cell_usage},
    {MESSAGE_CELL_DAMAGE, CHILD_JAILED, CHILD_PARKING, 0, on_cell_damage},
    {0}};

static const struct permit vmm_permits[] = {
    {MESSAGE_VMM_BLANK, CHILD_STARTING, CHILD_STARTING, 0, on_vmm_blank},
    {MESSAGE_VMM_RUNNING, CHILD_JAILED, CHILD_JAILED, 0, on_vmm_running},
    {MESSAGE_VMM_ENDED, CHILD_CLOSING, CHILD_SERVING, 0, on_vmm_ended},
    {0}};

static const struct permit runner_permits[] = {
    {MESSAGE_VMM_BLANK, CHILD_STARTING, CHILD_STARTING, 0, on_vmm_blank},
    {MESSAGE_VMM_RUNNING, CHILD_JAILED, CHILD_JAILED, 0, on_vmm_running},
    {MESSAGE_VMM_USED, CHILD_SERVING, CHILD_SERVING, 0, on_vmm_used},
    {MESSAGE_VMM_ENDED, CHILD_CLOSING, CHILD_SERVING, 0, on_vmm_ended},
    {0}};

static const struct permit *const tables[CHILD_KINDS] = {
    [CHILD_KMS] = kms_permits, [CHILD_CONTROL] = control_permits,
    [CHILD_GATEWAY] = gateway_permits, [CHILD_CELL] = cell_permits,
    [CHILD_VMM] = vmm_permits, [CHILD_RUNNER] = runner_permits};

void permits_handle(struct child *child, struct ipc_message *message)
{
    struct fault fault;
    struct cursor body = cursor_over(message->body);
    for (const struct permit *permit = tables[child->kind]; permit->type; permit++) {
        if (permit->type != message->type)
            continue;
        if (child->state < permit->first || child->state > permit->last)
            break;
        uint32_t fds = permit->fds;
        if (fds == ONE_FD_OR_TWO)
            fds = message->fd_count == 2 ? 2 : 1;
        status handled = ipc_need_fds(message, fds, &fault);
        if (handled == OK)
            handled = permit->handle(child, message, &body, &fault);
        if (handled != OK)
            child_fatal(child, fault.detail);
        return;
    }
    (void)FAIL(FORBIDDEN_POLICY, &fault, "message %#x is not permitted here", message->type);
    child_fatal(child, fault.detail);
}
