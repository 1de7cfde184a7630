/* wakes.c: cells on demand, and for what must be deleted on time. */
#include "base/hex.h"
#include "base/log.h"
#include "control/control.h"

#include <stdlib.h>
#include <string.h>

enum {
    RETRY_STEP_US = 3000, /* while no blank is ready; longer each time: thousands may be waiting */
    RETRY_MAX_US = 100 * 1000,
    RETRY_FOR_US = 5 * 1000 * 1000,
    /* A cell that is awake sees to its own expiry and says at parking what comes next. Until then
     * the registry holds this: should everything die, the tenant is woken to look again. */
    LEASE_US = 120 * 1000 * 1000,
    DIED_RETRY_US = 10 * 1000 * 1000,
    REFUSED_RETRY_US = 1800 * 1000 * 1000, /* it waits for an operator */
    UNWRITABLE_RETRY_US = 12 * 1000 * 1000,
    WITHDRAWN_FOR_US = 300 * 1000, /* then the kms is asked again: it may be given back by hand */
    FLUSH_AFTER_US = 500 * 1000, /* one registry commit for all that woke and parked meanwhile */
};

struct awake {
    uint8_t id[TENANT_ID_BYTES];
    bool awake, dirty; /* dirty: the next two are not in the registry yet */
    int64_t next_expiry_us, bytes; /* bytes -1: as they were */
    struct awake *next;
};

struct wake {
    struct control *control;
    struct tenant tenant;
    uint32_t gateway, tries;
    int64_t asked_us; /* monotonic */
    struct loop_timer timer;
    struct outcome outcome;
};

static struct awake *find_awake(const struct control *control, const uint8_t id[TENANT_ID_BYTES])
{
    struct awake *found = control->awake;
    while (found && memcmp(found->id, id, TENANT_ID_BYTES) != 0)
        found = found->next;
    return found;
}

bool wakes_is_awake(const struct control *control, const uint8_t id[TENANT_ID_BYTES])
{
    const struct awake *found = find_awake(control, id);
    return found && found->awake;
}

static status write_note(struct control *control, const struct awake *note, struct fault *fault)
{
    struct tenant tenant;
    status found = registry_by_id(&tenant, control, note->id, fault);
    if (found == NOT_FOUND)
        return OK; /* erased meanwhile */
    TRY(found);
    return registry_set_usage(control, note->id, note->next_expiry_us,
                              note->bytes < 0 ? tenant.bytes_stored : note->bytes, fault);
}

static status write_notes(struct control *control, struct fault *fault)
{
    TRY(registry_begin(control, fault));
    status result = OK;
    for (struct awake *note = control->awake; note && result == OK; note = note->next)
        if (note->dirty)
            result = write_note(control, note, fault);
    return registry_end(control, result, fault);
}

static void on_flush(void *context);

static bool flush(struct control *control)
{
    struct fault fault;
    if (write_notes(control, &fault) != OK) {
        log_event(LOG_WARN, "registry.usage", "%s", fault.detail);
        if (loop_timer_start(control->loop, &control->flush_timer, UNWRITABLE_RETRY_US, on_flush,
                             control, &fault) != OK)
            control_die("flush timer", &fault);
        return false;
    }
    for (struct awake **at = &control->awake; *at;) {
        struct awake *note = *at;
        note->dirty = false;
        if (note->awake) {
            at = &note->next;
        } else {
            *at = note->next;
            free(note);
        }
    }
    return true;
}

static void on_flush(void *context)
{
    if (flush(context))
        wakes_schedule(context);
}

static void keep_note(struct control *control, const uint8_t id[TENANT_ID_BYTES], bool awake,
                      int64_t next_expiry_us, int64_t bytes)
{
    struct fault fault;
    struct awake *note = find_awake(control, id);
    if (!note) {
        note = calloc(1, sizeof *note);
        if (!note)
            return;
        memcpy(note->id, id, TENANT_ID_BYTES);
        note->next = control->awake;
        control->awake = note;
    }
    *note = (struct awake){.awake = awake, .dirty = true, .next_expiry_us = next_expiry_us,
                           .bytes = bytes, .next = note->next};
    memcpy(note->id, id, TENANT_ID_BYTES);
    if (control->flush_timer.due_us == 0
        && loop_timer_start(control->loop, &control->flush_timer, FLUSH_AFTER_US, on_flush,
                            control, &fault) != OK)
        control_die("flush timer", &fault);
}

void wakes_flush(struct control *control)
{
    loop_timer_stop(control->loop, &control->flush_timer);
    (void)flush(control);
}

status posture_put(struct buffer *out, struct control *control, const struct tenant *tenant,
                   struct fault *fault)
{
    _cleanup_buffer_ struct buffer own = buffer_of(CHARTER_WIRE_MAX);
    _cleanup_buffer_ struct buffer platform = buffer_of(CHARTER_WIRE_MAX);
    TRY(charter_put_signed(&own, control, tenant->id, 0, fault));
    status found = charter_put_signed(&platform, control, charter_platform_id, 0, fault);
    if (found != OK && found != NOT_FOUND)
        return found;
    buffer_put_u32(out, control->idle_seconds);
    buffer_put_text_field(out, control->region);
    buffer_put_field(out, buffer_span(&own));
    buffer_put_field(out, buffer_span(&platform));
    prices_put(out, &control->prices);
    return buffer_check(out, "posture", fault);
}

/* ---- withdrawn keys: whoever floods such a tenant burns a cell now and then, not one each ---- */

static struct withdrawal *find_withdrawal(struct control *control,
                                          const uint8_t id[TENANT_ID_BYTES])
{
    for (uint32_t i = 0; i < WITHDRAWALS_KEPT; i++)
        if (memcmp(control->withdrawals[i].id, id, TENANT_ID_BYTES) == 0)
            return &control->withdrawals[i];
    return NULL;
}

static void keep_withdrawal(struct control *control, const uint8_t id[TENANT_ID_BYTES])
{
    struct withdrawal *kept = find_withdrawal(control, id);
    if (!kept)
        kept = &control->withdrawals[control->next_withdrawal++ % WITHDRAWALS_KEPT];
    memcpy(kept->id, id, TENANT_ID_BYTES);
    kept->until_us = clock_monotonic_us() + WITHDRAWN_FOR_US;
}

static bool is_withdrawn(struct control *control, const uint8_t id[TENANT_ID_BYTES])
{
    const struct withdrawal *kept = find_withdrawal(control, id);
    return kept && clock_monotonic_us() < kept->until_us;
}

void wakes_forget_withdrawal(struct control *control, const uint8_t id[TENANT_ID_BYTES])
{
    struct withdrawal *kept = find_withdrawal(control, id);
    if (kept)
        *kept = (struct withdrawal){0};
}

/* ---- waking ---- */

static void ask(struct wake *wake);

static void finish(struct wake *wake, status code, const char *detail)
{
    struct outcome outcome = wake->outcome;
    loop_timer_stop(wake->control->loop, &wake->timer);
    free(wake);
    outcome.done(outcome.context, code, detail, (struct span){0});
}

/* Paused or erased meanwhile: a stale wish must not wake it again behind CELL_STOP. */
static void on_retry(void *context)
{
    struct wake *wake = context;
    struct tenant now;
    struct fault fault;
    if (registry_by_id(&now, wake->control, wake->tenant.id, &fault) != OK
        || (now.state != TENANT_ACTIVE && now.state != wake->tenant.state)
        || restore_under_way(wake->control, wake->tenant.id)) {
        finish(wake, UNAVAILABLE, "the tenant is not active");
        return;
    }
    wake->tenant = now;
    ask(wake);
}

static bool retry(struct wake *wake)
{
    struct fault fault;
    int64_t after_us = (int64_t)RETRY_STEP_US * (1 + wake->tries++ / 2);
    return clock_monotonic_us() - wake->asked_us < RETRY_FOR_US
        && loop_timer_start(wake->control->loop, &wake->timer,
                            after_us > RETRY_MAX_US ? RETRY_MAX_US : after_us, on_retry, wake,
                            &fault) == OK;
}

static void on_answer(void *context, status code, const char *detail, struct cursor *result,
                      struct ipc_message *message)
{
    struct wake *wake = context;
    (void)result, (void)message;
    if (code == OK && !wakes_is_awake(wake->control, wake->tenant.id))
        keep_note(wake->control, wake->tenant.id, true, clock_wall_us() + LEASE_US, -1);
    if (code == UNAVAILABLE && span_is(span_of_text(detail), DETAIL_KEY_WITHDRAWN))
        keep_withdrawal(wake->control, wake->tenant.id);
    if (code != AGAIN || !retry(wake))
        finish(wake, code, detail);
}

static void ask(struct wake *wake)
{
    _cleanup_buffer_ struct buffer body = buffer_of(IPC_BODY_MAX);
    _cleanup_buffer_ struct buffer posture = buffer_of(IPC_BODY_MAX);
    struct fault fault;
    status result = posture_put(&posture, wake->control, &wake->tenant, &fault);
    buffer_put(&body, SPAN_OF(wake->tenant.id));
    buffer_put_u32(&body, wake->tenant.uid);
    buffer_put_u32(&body, wake->gateway);
    buffer_put_field(&body, buffer_span(&posture));
    if (result == OK)
        result = buffer_check(&body, "CELL_WAKE", &fault);
    if (result != OK) {
        finish(wake, result == NOT_FOUND ? INTERNAL : result,
               result == NOT_FOUND ? "the tenant has no charter" : fault.detail);
        return;
    }
    call_supervisor(wake->control, MESSAGE_CELL_WAKE, buffer_span(&body), NULL, 0, on_answer,
                    wake);
}

void wake_tenant(struct control *control, const struct tenant *tenant, uint32_t gateway,
                 struct outcome outcome)
{
    if (restore_under_way(control, tenant->id)) {
        outcome.done(outcome.context, UNAVAILABLE, "it is being restored", (struct span){0});
        return;
    }
    if (is_withdrawn(control, tenant->id)) {
        outcome.done(outcome.context, UNAVAILABLE, DETAIL_KEY_WITHDRAWN, (struct span){0});
        return;
    }
    struct wake *wake = calloc(1, sizeof *wake);
    if (!wake) {
        outcome.done(outcome.context, INTERNAL, "out of memory", (struct span){0});
        return;
    }
    *wake = (struct wake){.control = control, .tenant = *tenant, .gateway = gateway,
                          .asked_us = clock_monotonic_us(), .outcome = outcome};
    ask(wake);
}

static void on_expiry_woken(void *context, status code, const char *detail, struct span json)
{
    (void)context, (void)json;
    if (code != OK) /* such as a silo that was refused: the lease brings the next try */
        log_event(LOG_WARN, "expiry.wake", "%s", detail);
}

static void on_expiry(void *context)
{
    struct control *control = context;
    struct tenant tenant;
    struct fault fault;
    if (registry_next_expiry(&tenant, control, &fault) == OK
        && tenant.next_expiry_us <= clock_wall_us()) {
        keep_note(control, tenant.id, wakes_is_awake(control, tenant.id),
                  clock_wall_us() + LEASE_US, -1);
        loop_timer_stop(control->loop, &control->flush_timer);
        if (!flush(control))
            return; /* the same tenant would be found again, at once: the next flush goes on */
        wake_tenant(control, &tenant, UINT32_MAX, (struct outcome){.done = on_expiry_woken});
    }
    wakes_schedule(control);
}

void wakes_schedule(struct control *control)
{
    struct tenant tenant;
    struct fault fault;
    status next = registry_next_expiry(&tenant, control, &fault);
    if (next == NOT_FOUND) {
        loop_timer_stop(control->loop, &control->expiry_timer);
        return;
    }
    int64_t after_us = next == OK ? tenant.next_expiry_us - clock_wall_us() : LEASE_US;
    const int64_t longest_us = (int64_t)3600 * 1000000; /* the wall clock may be set meanwhile */
    if (loop_timer_start(control->loop, &control->expiry_timer,
                         after_us > longest_us ? longest_us : after_us, on_expiry, control, &fault)
        != OK)
        control_die("expiry timer", &fault);
}

void wakes_on_gone(struct control *control, struct cursor *body)
{
    uint8_t id[TENANT_ID_BYTES], reason;
    uint64_t expiry, bytes;
    char detail[200];
    struct fault fault;
    if (cursor_copy(id, body, sizeof id, &fault) != OK || cursor_u8(&reason, body, &fault) != OK
        || cursor_u64(&expiry, body, &fault) != OK || cursor_u64(&bytes, body, &fault) != OK
        || cursor_text(detail, sizeof detail, body, "detail", &fault) != OK)
        control_die("CELL_GONE", &fault);
    bool orderly = reason == CELL_GONE_PARKED || (reason == CELL_GONE_STOPPED && bytes);
    int64_t again_us = reason == CELL_GONE_REFUSED ? REFUSED_RETRY_US : DIED_RETRY_US;
    int64_t next = orderly ? (int64_t)expiry : clock_wall_us() + again_us;
    keep_note(control, id, false, next, bytes ? (int64_t)bytes : -1);
}
