/* usage.c: what this tenant used, told to the supervisor for control's books. What the kernel knows
 * (CPU, memory, time awake) the supervisor takes from the kernel, not from here. */
#include "base/log.h"
#include "cell/state.h"

enum { REPORT_BYTES = 2 * USAGE_RECORD_MAX + 1, ERROR_FROM = 400 };

void usage_count(struct cell *cell, const struct stream *stream)
{
    if (cell->silo)
        silo_count(cell->silo, stream->request.action,
                   stream->answer.http_status >= ERROR_FROM, stream->body_came,
                   stream->out_sent);
}

/* What cannot be sent now is lost: it is counts, and the channel is full only of a dead peer. */
void usage_tell(struct cell *cell)
{
    uint8_t storage[REPORT_BYTES];
    struct fault fault;
    struct buffer records = buffer_over(storage + 1, sizeof storage - 1);
    uint32_t days = silo_usage_report(&records, cell->silo);
    storage[0] = (uint8_t)days;
    if (days == 0)
        return;
    status sent = buffer_check(&records, "CELL_USAGE", &fault);
    if (sent == OK)
        sent = ipc_send(cell->supervisor, MESSAGE_CELL_USAGE, 0,
                        (struct span){storage, 1 + records.length}, NULL, 0, &fault);
    if (sent != OK)
        log_event(LOG_WARN, "usage.lost", "%s", fault.detail);
}

static void on_report(void *context)
{
    struct cell *cell = context;
    usage_tell(cell);
    usage_start(cell);
}

void usage_start(struct cell *cell)
{
    cell_timer(cell, &cell->usage.timer, (int64_t)USAGE_REPORT_SECONDS * 1000 * 1000, on_report,
               cell);
}
