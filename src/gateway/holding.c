/* holding.c: answers that their clients have not taken yet, by the relay that they came by: how
 * much one cell may have us keep, and whose clients pay for it.
 *
 * Whole answers stop the relay when there are too many of them. Those that stream do not: each is
 * bounded by its window, and a cell that keeps to its own bounds never has too many. */
#include "gateway/state.h"

#include <assert.h>

enum {
    HELD_MAX_WHEN_FULL = MIB(1), /* while all buffers together near their bound */
    STREAMED_MAX = 2 * GATEWAY_RELAY_HELD_MAX,
};
static_assert((CELL_UPLOADS_MAX + CELL_DOWNLOADS_MAX) * RELAY_WINDOW < STREAMED_MAX,
              "what a cell may have streaming at once");

/* The clients that take the least would stop all others of their tenant for as long as they
 * please: those that hold the most lose their connections, until half of what may wait is left. */
static void cut_largest(struct relay *relay, bool streamed)
{
    size_t left = streamed ? relay->streamed : relay->held;
    size_t enough = streamed ? STREAMED_MAX / 2 : GATEWAY_RELAY_HELD_MAX / 2;
    while (left > enough) {
        struct holding *largest = NULL;
        for (struct holding *at = relay->holders; at; at = at->next)
            if (!at->connection->broken && at->streamed == streamed
                && (!largest || at->bytes > largest->bytes))
                largest = at;
        if (!largest)
            return;
        connection_break(largest->connection);
        for (struct holding *at = relay->holders; at; at = at->next)
            if (at->connection == largest->connection && at->streamed == streamed)
                left -= at->bytes;
    }
}

static bool is_pressed(const struct relay *relay)
{
    return relay->gateway->memory > GATEWAY_MEMORY_MAX / 2;
}

bool holding_check(struct relay *relay)
{
    bool full = is_pressed(relay) ? relay->held + relay->streamed > HELD_MAX_WHEN_FULL
                                  : relay->held > GATEWAY_RELAY_HELD_MAX;
    if (relay->held > GATEWAY_RELAY_HELD_MAX)
        cut_largest(relay, false);
    if (relay->streamed > STREAMED_MAX)
        cut_largest(relay, true);
    return full;
}

void holding_add(struct holding *holding, struct connection *connection, struct stream *from,
                 size_t bytes)
{
    if (!from || bytes == 0)
        return;
    struct relay *relay = from->relay;
    assert(!holding->relay || holding->relay == relay);
    if (!holding->relay) {
        *holding = (struct holding){.relay = relay, .connection = connection,
                                    .streamed = from->streams & ACTION_STREAMS_OUT,
                                    .next = relay->holders};
        if (relay->holders)
            relay->holders->previous = holding;
        relay->holders = holding;
    }
    holding->bytes += bytes;
    *(holding->streamed ? &relay->streamed : &relay->held) += bytes;
}

static void holding_end(struct holding *holding)
{
    *(holding->previous ? &holding->previous->next : &holding->relay->holders) = holding->next;
    if (holding->next)
        holding->next->previous = holding->previous;
    *holding = (struct holding){0};
}

/* A relay that was paused is read again. */
static bool may_resume(const struct relay *relay)
{
    return is_pressed(relay) ? relay->held + relay->streamed <= HELD_MAX_WHEN_FULL / 2
                             : relay->held <= GATEWAY_RELAY_HELD_MAX / 2;
}

void holding_release(struct holding *holding, size_t bytes)
{
    struct relay *relay = holding->relay;
    if (!relay)
        return;
    size_t *held = holding->streamed ? &relay->streamed : &relay->held;
    assert(bytes <= holding->bytes && bytes <= *held);
    holding->bytes -= bytes;
    *held -= bytes;
    if (holding->bytes == 0)
        holding_end(holding);
    if (!relay->paused || relay->dead || !may_resume(relay))
        return;
    relay->paused = false;
    relay_watch(relay);
}
