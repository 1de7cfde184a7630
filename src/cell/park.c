/* park.c: how a cell comes to rest: memory is given back when it is quiet; when it stays idle it
 * says so; when it is told to park, it drains, puts the silo in its final form, has the kms anchor
 * that, says so, ends.
 *
 * It never parks untold: a gateway's channel that is still on its way here, and the requests in
 * it, would end with it unread. What the supervisor sent before CELL_PARK is read before it. */
#include "base/clock.h"
#include "base/log.h"
#include "cell/state.h"

#include <malloc.h>

enum {
    QUIET_US = 1000 * 1000,
    DRAIN_MAX_US = 5 * 1000 * 1000, /* the supervisor waits for ten seconds in all */
    ANCHOR_MAX_US = 3 * 1000 * 1000,
};

static void trim(struct cell *cell)
{
    relay_free_spares(cell);
    arena_free(&cell->line_arena);
    buffer_free(&cell->turn.body);
    buffer_free(&cell->turn.frame);
    cell->turn.body = buffer_of(CELL_RESPONSE_MAX);
    cell->turn.frame = buffer_of(IPC_BODY_MAX);
    silo_trim(cell->silo);
    malloc_trim(0);
}

static void on_idle(void *context);

static void look_again(struct cell *cell, int64_t after_us)
{
    cell_timer(cell, &cell->park.idle_timer, after_us, on_idle, cell);
}

/* An idle cell can wait for room in the channel. */
static void ask_to_park(struct cell *cell)
{
    struct fault ignored;
    if (ipc_send(cell->supervisor, MESSAGE_CELL_IDLE, 0, (struct span){0}, NULL, 0, &ignored)
        == OK)
        cell->park.phase = PARK_ASKED;
    else
        look_again(cell, QUIET_US);
}

static void on_idle(void *context)
{
    struct cell *cell = context;
    struct park_state *park = &cell->park;
    int64_t idle_us = clock_monotonic_us() - cell->last_request_us;
    int64_t limit_us = (int64_t)cell->charters.idle_seconds * 1000 * 1000;
    if (park->phase != PARK_NOT)
        return;
    if (cell->streams || export_active(cell) || cell->rotation.phase != ROTATION_NONE) {
        look_again(cell, QUIET_US);
        return;
    }
    if (idle_us >= QUIET_US && !park->trimmed) {
        trim(cell);
        park->trimmed = true;
    }
    if (idle_us < QUIET_US)
        look_again(cell, QUIET_US - idle_us);
    else if (idle_us < limit_us)
        look_again(cell, limit_us - idle_us);
    else if (cell->kms.trouble_since_us)
        look_again(cell, QUIET_US); /* without the kms the last state could not be anchored */
    else
        ask_to_park(cell);
}

void park_watch_idle(struct cell *cell)
{
    cell->last_request_us = clock_monotonic_us();
    look_again(cell, QUIET_US);
}

/* A cell that rests looks again only when it could park: what this use fills must be given back
 * long before. */
void park_note_use(struct cell *cell)
{
    cell->last_request_us = clock_monotonic_us();
    if (cell->park.trimmed && cell->park.phase == PARK_NOT)
        look_again(cell, QUIET_US);
    cell->park.trimmed = false;
}

static void on_deadline(void *context)
{
    struct cell *cell = context;
    log_event(LOG_WARN, "park.late", cell->park.phase == PARK_DRAIN
              ? "gateways or exports did not finish" : "the kms did not take the last anchor");
    cell->park.forced = true;
}

static void set_deadline(struct cell *cell, int64_t after_us)
{
    cell->park.forced = false;
    cell_timer(cell, &cell->park.deadline_timer, after_us, on_deadline, cell);
}

void park_begin(struct cell *cell)
{
    if (cell->park.phase >= PARK_DRAIN)
        return;
    cell->park.phase = PARK_DRAIN;
    loop_timer_stop(cell->loop, &cell->park.idle_timer);
    set_deadline(cell, DRAIN_MAX_US);
    for (uint32_t i = 0; i < GATEWAYS_MAX; i++)
        if (cell->relays[i])
            relay_drain(cell->relays[i]);
    turn_again(cell); /* there may be none to wait for */
}

static bool drained(struct cell *cell)
{
    bool any = export_active(cell);
    for (uint32_t i = 0; i < GATEWAYS_MAX && !any; i++)
        any = cell->relays[i] != NULL;
    if (!any || !cell->park.forced)
        return !any;
    export_drop_all(cell);
    streams_break(cell);
    for (uint32_t i = 0; i < GATEWAYS_MAX; i++)
        if (cell->relays[i])
            relay_end(cell->relays[i]);
    relay_sweep(cell);
    return true;
}

static void anchor_last(struct cell *cell)
{
    struct fault fault;
    if (silo_checkpoint(cell->silo, &fault) != OK)
        log_event(LOG_ERROR, "park.checkpoint", "%s", fault.detail); /* the log stays beside it */
    cell->park.phase = PARK_ANCHOR;
    cell->park.move = kms_move_now(cell);
    set_deadline(cell, ANCHOR_MAX_US);
}

static void leave(struct cell *cell)
{
    uint8_t storage[16];
    struct fault fault;
    struct buffer body = buffer_over(storage, sizeof storage);
    buffer_put_u64(&body,
                   (uint64_t)rotation_wake_us(cell, silo_next_expiry_us(cell->silo)));
    buffer_put_u64(&body, silo_bytes(cell->silo));
    usage_tell(cell);
    cell->silo = silo_close(cell->silo);
    cell->park.phase = PARK_DONE;
    status sent = ipc_send_wait(cell->supervisor, MESSAGE_CELL_PARKED, 0, buffer_span(&body),
                                NULL, 0, 1000, &fault);
    if (sent == OK)
        cell_stop(cell, OK, "parked");
    else
        cell_stop(cell, sent, "%s", fault.detail);
}

void park_continue(struct cell *cell)
{
    struct park_state *park = &cell->park;
    if (cell->ended)
        return;
    if (park->phase == PARK_DRAIN && drained(cell)) {
        if (turn_finish(cell) || park->forced)
            anchor_last(cell);
        else
            turn_again(cell);
    }
    if (park->phase == PARK_ANCHOR && (kms_moved(cell, park->move) || park->forced))
        leave(cell);
}
