/* cells.c: from blank to parked. A cell is on one list from its spawn to its end; what it is at is
 * its state: STARTING, BLANK, CLOSING, JAILED, SERVING, PARKING. */
#include "base/clock.h"
#include "base/log.h"
#include "base/hex.h"
#include "supervisor/supervisor.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RESTORE_DEADLINE_US (INT64_C(6) * 3600 * 1000 * 1000) /* it gives up a stream that stops */

enum {
    WAITERS_MAX = 4 * GATEWAYS_MAX,
    WAKE_DEADLINE_US = 20 * 1000 * 1000,
    PARK_DEADLINE_US = 10 * 1000 * 1000,
    REFILL_AFTER_US = 2000, /* lets the wake that took a blank finish first */
    REFILL_RETRY_US = 200 * 1000,
};

static void on_refill(void *context)
{
    cells_refill(context);
}

static void refill_later(struct supervisor *supervisor, int64_t after_us)
{
    struct fault fault;
    if (supervisor->refill_timer.due_us == 0
        && loop_timer_start(supervisor->loop, &supervisor->refill_timer, after_us, on_refill,
                            supervisor, &fault) != OK)
        log_event(LOG_ERROR, "cells.refill", "%s", fault.detail);
}

void cells_count(struct supervisor *supervisor)
{
    struct stats *stats = &supervisor->stats->slots[0];
    uint64_t awake = 0, blanks = 0;
    for (const struct child *cell = supervisor->cells; cell; cell = cell->next) {
        awake += !cell->hostile && cell->state > CHILD_BLANK;
        blanks += !cell->hostile && cell->state == CHILD_BLANK;
    }
    atomic_store_explicit(&stats->cells_awake, awake, memory_order_relaxed);
    atomic_store_explicit(&stats->blanks_ready, blanks, memory_order_relaxed);
}

struct child *cell_spawn(struct supervisor *supervisor, bool hostile)
{
    struct fault fault;
    struct child *cell = calloc(1, sizeof *cell);
    if (!cell)
        return NULL;
    *cell = (struct child){.supervisor = supervisor, .kind = CHILD_CELL, .channel = -1,
                           .kms_end = -1, .index = ++supervisor->cells_made, .hostile = hostile};
    int executable = hostile ? supervisor->hostile_executable
                             : supervisor->executables[CHILD_CELL];
    if (child_spawn(cell, executable, &fault) != OK) {
        log_event(LOG_ERROR, "cell.spawn", "%s", fault.detail);
        free(cell);
        return NULL;
    }
    cell->next = supervisor->cells;
    supervisor->cells = cell;
    return cell;
}

static uint32_t blanks_coming(const struct supervisor *supervisor)
{
    uint32_t count = 0;
    for (const struct child *cell = supervisor->cells; cell; cell = cell->next)
        count += !cell->hostile && cell->state <= CHILD_BLANK;
    return count;
}

void cells_refill(struct supervisor *supervisor)
{
    if (supervisor->phase > PHASE_RUN)
        return;
    if (blanks_coming(supervisor) >= supervisor->options.blank_cells)
        return;
    struct child *blank = cell_spawn(supervisor, false); /* one a turn: wakes go between */
    refill_later(supervisor, blank ? 0 : REFILL_RETRY_US);
}

struct child *cells_find(struct supervisor *supervisor, const uint8_t tenant[TENANT_ID_BYTES])
{
    for (struct child *cell = supervisor->cells; cell; cell = cell->next)
        if (cell->state > CHILD_BLANK && !cell->hostile
            && memcmp(cell->tenant, tenant, TENANT_ID_BYTES) == 0)
            return cell;
    return NULL;
}

static struct child *take_blank(struct supervisor *supervisor)
{
    for (struct child *cell = supervisor->cells; cell; cell = cell->next)
        if (cell->state == CHILD_BLANK && !cell->hostile)
            return cell;
    return NULL;
}

static void answer(struct supervisor *supervisor, uint32_t request, status code,
                   const char *detail)
{
    child_reply(service_control(supervisor), request, code, detail);
}

void cell_answer_waiters(struct child *cell, status code, const char *detail)
{
    while (cell->waiters) {
        struct waiter *waiter = cell->waiters;
        cell->waiters = waiter->next;
        if (code == OK)
            cell_attach(cell, waiter->gateway);
        answer(cell->supervisor, waiter->request, code, detail);
        free(waiter);
    }
}

static bool add_waiter(struct waiter **list, uint32_t gateway, uint32_t request)
{
    struct waiter **end = list;
    uint32_t count = 0;
    for (; *end; end = &(*end)->next)
        count++;
    struct waiter *waiter = count < WAITERS_MAX ? malloc(sizeof *waiter) : NULL;
    if (!waiter)
        return false;
    *waiter = (struct waiter){.request = request, .gateway = gateway};
    *end = waiter;
    return true;
}

void cell_attach(struct child *cell, uint32_t index)
{
    struct child *gateway = service_gateway(cell->supervisor, index);
    int ends[2];
    struct fault fault;
    if (!gateway || gateway->state != CHILD_SERVING || ipc_pair(ends, &fault) != OK)
        return; /* the gateway is gone: nobody waits for this relay any more */
    uint8_t storage[8];
    struct buffer body = buffer_over(storage, sizeof storage);
    buffer_put_u8(&body, CHANNEL_GATEWAY);
    buffer_put_u32(&body, index);
    child_send(cell, MESSAGE_CHANNEL, 0, buffer_span(&body), &ends[0], 1);
    child_send(gateway, MESSAGE_GATEWAY_CELL, 0, SPAN_OF(cell->tenant), &ends[1], 1);
    close(ends[0]);
    close(ends[1]);
}

/* Its ids begin anew with the next control, which must not take these answers for its own. */
static void forget_all(struct waiter **list)
{
    while (*list) {
        struct waiter *waiter = *list;
        *list = waiter->next;
        free(waiter);
    }
}

void cells_forget_requests(struct supervisor *supervisor)
{
    for (struct child *cell = supervisor->cells; cell; cell = cell->next) {
        forget_all(&cell->waiters);
        forget_all(&cell->stops);
        cell->restore_request = 0;
    }
}

static void on_deadline(void *context)
{
    struct child *cell = context;
    child_fatal(cell, cell->state == CHILD_PARKING ? "did not park in time"
                                                   : "did not wake in time");
}

static void set_deadline(struct child *cell, int64_t after_us)
{
    struct fault fault;
    if (loop_timer_start(cell->supervisor->loop, &cell->timer, after_us, on_deadline, cell, &fault)
        != OK)
        child_fatal(cell, fault.detail);
}

static void send_assume(struct child *cell, struct span posture, int silo, int kms)
{
    static uint8_t storage[IPC_BODY_MAX];
    struct buffer body = buffer_over(storage, sizeof storage);
    buffer_put(&body, SPAN_OF(cell->tenant));
    buffer_put_u32(&body, cell->uid);
    buffer_put_field(&body, posture);
    const int fds[2] = {silo, kms};
    child_send(cell, MESSAGE_CELL_ASSUME, 0, buffer_span(&body), fds, 2);
}

status cell_assume(struct child *cell, const uint8_t tenant[TENANT_ID_BYTES], uint32_t uid,
                   struct span posture, struct fault *fault)
{
    struct supervisor *supervisor = cell->supervisor;
    assert(cell->state == CHILD_BLANK); /* one tenant per address space, once */
    if (posture.length > CELL_POSTURE_MAX)
        return FAIL(TOO_LARGE, fault, "posture: more than %d bytes", (int)CELL_POSTURE_MAX);
    memcpy(cell->tenant, tenant, TENANT_ID_BYTES);
    cell->uid = uid;
    cell->state = CHILD_CLOSING;
    cell->wake_started_us = clock_monotonic_us();
    cells_count(supervisor);
    usage_begin(cell);
    int silo, ends[2];
    TRY(jail_map(&cell->jail, child_uid(cell), child_uid(cell), fault));
    TRY(silos_mount(&silo, &supervisor->silos, tenant, child_uid(cell), fault));
    status paired = ipc_pair(ends, fault);
    if (paired == OK) {
        send_assume(cell, posture, silo, ends[0]);
        close(ends[0]);
        cell->kms_end = ends[1];
    }
    close(silo);
    return paired;
}

static void assume(struct child *cell, const uint8_t tenant[TENANT_ID_BYTES], uint32_t uid,
                   struct span posture)
{
    struct fault fault;
    status result = cell_assume(cell, tenant, uid, posture, &fault);
    set_deadline(cell, WAKE_DEADLINE_US);
    if (result == OK)
        return;
    cell->refused = true;
    cell->refusal = result;
    child_fatal(cell, fault.detail);
}

void cells_wake(struct supervisor *supervisor, const uint8_t tenant[TENANT_ID_BYTES], uint32_t uid,
                struct span posture, uint32_t gateway, uint32_t request)
{
    if (supervisor->phase > PHASE_RUN) {
        answer(supervisor, request, UNAVAILABLE, "stopping");
        return;
    }
    struct child *cell = cells_find(supervisor, tenant);
    if (cell && cell->state == CHILD_SERVING) {
        cell_attach(cell, gateway);
        answer(supervisor, request, OK, NULL);
        return;
    }
    bool fresh = !cell;
    if (fresh && atomic_load_explicit(&supervisor->stats->slots[0].cells_awake,
                                      memory_order_relaxed) >= CELLS_AWAKE_MAX) {
        answer(supervisor, request, UNAVAILABLE, "as many cells are awake as may be");
        return;
    }
    if (fresh)
        cell = take_blank(supervisor);
    if (!cell && blanks_coming(supervisor) == 0)
        cells_refill(supervisor);
    if (!cell || !add_waiter(&cell->waiters, gateway, request)) {
        answer(supervisor, request, AGAIN, "no blank cell is ready yet");
        return;
    }
    if (!fresh)
        return; /* it is waking, or ends: then its end wakes the next */
    assume(cell, tenant, uid, posture);
    refill_later(supervisor, REFILL_AFTER_US);
}

static status restore(struct child *cell, int backups, struct fault *fault)
{
    struct supervisor *supervisor = cell->supervisor;
    uint8_t storage[32];
    struct buffer body = buffer_over(storage, sizeof storage);
    int silo, ends[2];
    TRY(jail_map(&cell->jail, child_uid(cell), child_uid(cell), fault));
    TRY(silos_discard(&supervisor->silos, cell->tenant, fault)); /* of an attempt before */
    TRY(silos_make_restored(&supervisor->silos, cell->tenant, child_uid(cell), fault));
    TRY(silos_mount_restored(&silo, &supervisor->silos, cell->tenant, child_uid(cell), fault));
    status paired = ipc_pair(ends, fault);
    if (paired == OK) {
        const int fds[3] = {silo, ends[0], backups};
        buffer_put(&body, SPAN_OF(cell->tenant));
        buffer_put_u32(&body, cell->uid);
        child_send(cell, MESSAGE_CELL_RESTORE, 0, buffer_span(&body), fds, 3);
        close(ends[0]);
        cell->kms_end = ends[1];
    }
    close(silo);
    return paired;
}

void cells_restore(struct supervisor *supervisor, const uint8_t tenant[TENANT_ID_BYTES],
                   uint32_t uid, int backups, uint32_t request)
{
    struct fault fault;
    if (supervisor->phase > PHASE_RUN || cells_find(supervisor, tenant)) {
        answer(supervisor, request, CONFLICT, "a cell still has this silo");
        return;
    }
    struct child *cell = take_blank(supervisor);
    if (!cell) {
        cells_refill(supervisor);
        answer(supervisor, request, AGAIN, "no blank cell is ready yet");
        return;
    }
    memcpy(cell->tenant, tenant, TENANT_ID_BYTES);
    cell->uid = uid;
    cell->state = CHILD_CLOSING;
    cell->restoring = true;
    cell->restore_request = request;
    cell->wake_started_us = clock_monotonic_us();
    cells_count(supervisor);
    set_deadline(cell, RESTORE_DEADLINE_US);
    status begun = restore(cell, backups, &fault);
    if (begun != OK) {
        cell->refused = true;
        cell->refusal = begun;
        child_fatal(cell, fault.detail);
    }
    refill_later(supervisor, REFILL_AFTER_US);
}

/* Only what says that it is done, and ended well, is done. */
static void answer_restore(struct child *cell, int exit_code)
{
    uint8_t storage[CELL_RESTORED_MAX + 16];
    struct buffer reply = buffer_over(storage, sizeof storage);
    if (cell->restore_request == 0)
        return;
    if (exit_code != 0 || cell->restored_length == 0) {
        answer(cell->supervisor, cell->restore_request, cell->refused ? cell->refusal : UNAVAILABLE,
               cell->detail[0] ? cell->detail : "the cell died while restoring");
        return;
    }
    reply_put_head(&reply, OK, NULL);
    buffer_put(&reply, (struct span){cell->restored, cell->restored_length});
    child_send(service_control(cell->supervisor), MESSAGE_REPLY, cell->restore_request,
               buffer_span(&reply), NULL, 0);
}

void cell_verified(struct child *cell)
{
    if (cell->hostile) {
        prove_advance(cell);
        return;
    }
    child_send(service_kms(cell->supervisor), MESSAGE_KMS_SERVE_CELL, cell->index,
               SPAN_OF(cell->tenant), &cell->kms_end, 1);
    close(cell->kms_end);
    cell->kms_end = -1;
}

void cells_kms_renewed(struct supervisor *supervisor)
{
    struct child *kms = service_kms(supervisor);
    for (struct child *cell = supervisor->cells; cell; cell = cell->next) {
        int ends[2];
        struct fault fault;
        if (cell->state < CHILD_JAILED || cell->parked || cell->hostile || cell->restoring)
            continue; /* one that is still parking needs it for its last anchor */
        if (ipc_pair(ends, &fault) != OK) {
            child_fatal(cell, fault.detail);
            continue;
        }
        uint8_t storage[8];
        struct buffer body = buffer_over(storage, sizeof storage);
        buffer_put_u8(&body, CHANNEL_KMS);
        buffer_put_u32(&body, 0);
        child_send(cell, MESSAGE_CHANNEL, 0, buffer_span(&body), &ends[0], 1);
        child_send(kms, MESSAGE_KMS_SERVE_CELL, cell->index, SPAN_OF(cell->tenant), &ends[1], 1);
        close(ends[0]);
        close(ends[1]);
    }
}

static void park(struct child *cell)
{
    child_send(cell, MESSAGE_CELL_PARK, 0, (struct span){0}, NULL, 0);
    cell->state = CHILD_PARKING;
    set_deadline(cell, PARK_DEADLINE_US);
}

static struct refusal *refusal_place(struct supervisor *supervisor,
                                     const uint8_t tenant[TENANT_ID_BYTES])
{
    struct refusal *oldest = &supervisor->refusals[0];
    for (uint32_t i = 0; i < REFUSALS_KEPT; i++) {
        struct refusal *at = &supervisor->refusals[i];
        if (memcmp(at->tenant, tenant, TENANT_ID_BYTES) == 0)
            return at;
        if (at->wall_us < oldest->wall_us)
            oldest = at;
    }
    return oldest;
}

static void note_refusal(const struct child *cell)
{
    struct refusal *place = refusal_place(cell->supervisor, cell->tenant);
    *place = (struct refusal){.wall_us = clock_wall_us(),
                              .code = cell->refused ? cell->refusal : UNAVAILABLE};
    memcpy(place->tenant, cell->tenant, TENANT_ID_BYTES);
    span_to_text(place->detail, sizeof place->detail, span_of_text(cell->detail));
}

static void forget_refusal(const struct child *cell)
{
    struct refusal *place = refusal_place(cell->supervisor, cell->tenant);
    if (memcmp(place->tenant, cell->tenant, TENANT_ID_BYTES) == 0)
        *place = (struct refusal){0};
}

void cell_ready(struct child *cell)
{
    forget_refusal(cell);
    cell->state = CHILD_SERVING;
    loop_timer_stop(cell->supervisor->loop, &cell->timer);
    cell_answer_waiters(cell, OK, NULL);
    if (cell->stop_wanted || cell->supervisor->phase >= PHASE_STOP_CELLS)
        park(cell); /* that was asked while it was waking */
}

status cell_idle(struct child *cell, struct fault *fault)
{
    if (cell->idle)
        return FAIL(BAD_REQUEST, fault, "CELL_IDLE a second time");
    cell->idle = true;
    if (cell->state == CHILD_SERVING)
        park(cell);
    return OK;
}

void cell_parked(struct child *cell)
{
    cell->parked = true;
    set_deadline(cell, PARK_DEADLINE_US);
}

void cells_stop(struct supervisor *supervisor, const uint8_t tenant[TENANT_ID_BYTES],
                enum cell_stop_how how, uint32_t request)
{
    struct child *cell = cells_find(supervisor, tenant);
    if (!cell) {
        answer(supervisor, request, OK, NULL);
        return;
    }
    if (!add_waiter(&cell->stops, 0, request)) {
        answer(supervisor, request, UNAVAILABLE, "too many wait for the end of this cell");
        return;
    }
    cell->stop_wanted = true; /* a second stop may be harder: an erase while it parks */
    cell_answer_waiters(cell, UNAVAILABLE, "the tenant is being stopped");
    if (how == CELL_STOP_KILL) {
        jail_kill(&cell->jail);
    } else if (cell->state == CHILD_SERVING) {
        park(cell);
    }
}

bool cells_park_all(struct supervisor *supervisor)
{
    bool any = false;
    for (struct child *cell = supervisor->cells; cell; cell = cell->next) {
        any = true;
        if (cell->state == CHILD_SERVING) {
            park(cell);
        } else if (cell->state <= CHILD_BLANK || cell->hostile || cell->restoring) {
            jail_kill(&cell->jail);
        }
    }
    return any;
}

static enum cell_gone_reason reason_of(const struct child *cell)
{
    return cell->stop_wanted ? CELL_GONE_STOPPED : cell->parked ? CELL_GONE_PARKED
         : cell->refused ? CELL_GONE_REFUSED : CELL_GONE_DIED;
}

static void tell_gone(const struct child *cell)
{
    uint8_t storage[320];
    struct buffer body = buffer_over(storage, sizeof storage);
    buffer_put(&body, SPAN_OF(cell->tenant));
    buffer_put_u8(&body, (uint8_t)reason_of(cell));
    buffer_put_u64(&body, (uint64_t)cell->next_expiry_us);
    buffer_put_u64(&body, cell->bytes);
    buffer_put_text_field(&body, cell->detail);
    child_send(service_control(cell->supervisor), MESSAGE_CELL_GONE, 0, buffer_span(&body), NULL,
               0);
}

static void unlink_cell(struct child *cell)
{
    struct child **at = &cell->supervisor->cells;
    while (*at != cell)
        at = &(*at)->next;
    *at = cell->next;
}

/* Who asked for the tenant while its cell was ending asks again at once, with the charters that are
 * the newest then: that there are newer ones may be why it ended. */
static void wake_again(struct child *cell)
{
    while (cell->waiters) {
        struct waiter *waiter = cell->waiters;
        cell->waiters = waiter->next;
        answer(cell->supervisor, waiter->request, AGAIN, "its cell was ending");
        free(waiter);
    }
}

void cell_ended(struct child *cell, int exit_code)
{
    struct supervisor *supervisor = cell->supervisor;
    struct stats *stats = &supervisor->stats->slots[0];
    char id[TENANT_ID_TEXT] = "-";
    bool tenant = cell->state > CHILD_BLANK && !cell->hostile && !cell->restoring;
    unlink_cell(cell);
    cells_count(supervisor);
    if (tenant) {
        bool was_waking = cell->state == CHILD_CLOSING || cell->state == CHILD_JAILED;
        hex_encode(id, SPAN_OF(cell->tenant));
        stats_add(was_waking ? &stats->wake_failures : &stats->parks, 1);
        if (was_waking && !cell->detail[0])
            snprintf(cell->detail, sizeof cell->detail, "the cell died while waking (exit %d)",
                     exit_code);
        log_event(cell->parked || cell->stop_wanted ? LOG_INFO : LOG_ERROR, "cell.gone",
                  "tenant %s, exit %d, %s", id, exit_code, cell->detail[0] ? cell->detail : "-");
        usage_tell(cell, (struct span){0});
        tell_gone(cell);
        for (const struct waiter *stop = cell->stops; stop; stop = stop->next)
            answer(supervisor, stop->request, OK, NULL);
        if (was_waking && !cell->stop_wanted)
            note_refusal(cell);
        if (was_waking)
            cell_answer_waiters(cell, cell->refused ? cell->refusal : UNAVAILABLE, cell->detail);
    } else if (cell->restoring) {
        for (const struct waiter *stop = cell->stops; stop; stop = stop->next)
            answer(supervisor, stop->request, OK, NULL);
        answer_restore(cell, exit_code);
    } else if (!cell->hostile && supervisor->phase <= PHASE_RUN) {
        log_event(LOG_ERROR, "blank.died", "exit %d", exit_code);
    }
    bool hostile = cell->hostile, was_restoring = cell->restoring;
    if (hostile)
        prove_cell_ended(cell, exit_code);
    child_forget(cell);
    wake_again(cell);
    forget_all(&cell->stops);
    free(cell);
    if (supervisor->phase > PHASE_RUN)
        phases_advance(supervisor);
    else if (!hostile)
        refill_later(supervisor, tenant || was_restoring ? REFILL_AFTER_US : REFILL_RETRY_US);
}
