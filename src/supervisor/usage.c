/* usage.c: what a tenant's cell uses, by the kernel's account, which no cell can change; told to
 * control together with what the cell itself counted, which is passed on unread. */
#include "base/clock.h"
#include "base/log.h"
#include "supervisor/supervisor.h"
#include "wire/usage.h"

enum {
    REPORT_MAX = 2 * USAGE_RECORD_MAX + 1,
    ALLOWANCE = 8,                      /* reports of a cell at once; then */
    ALLOWANCE_STEP_US = 10 * 1000 * 1000, /* one more each */
};

static void start(struct child *cell);

static void on_due(void *context)
{
    struct child *cell = context;
    usage_tell(cell, (struct span){0});
    start(cell);
}

/* At midnight, too: what was used is of the day that it was used on. */
static void start(struct child *cell)
{
    struct fault fault;
    int64_t after_us = (int64_t)USAGE_REPORT_SECONDS * 1000 * 1000;
    int64_t left_us = USAGE_DAY_US - clock_wall_us() % USAGE_DAY_US;
    if (loop_timer_start(cell->supervisor->loop, &cell->usage.timer,
                         left_us < after_us ? left_us : after_us, on_due, cell, &fault) != OK)
        log_event(LOG_WARN, "usage.timer", "%s", fault.detail);
}

void usage_begin(struct child *cell)
{
    int64_t now_us = clock_monotonic_us();
    jail_read_used(&cell->usage.used, &cell->jail); /* as a blank it was nobody's */
    cell->usage.told_cpu_us = cell->usage.used.cpu_us;
    cell->usage.told_us = now_us;
    cell->usage.allowance = ALLOWANCE;
    cell->usage.allowance_us = now_us;
    start(cell);
}

void usage_look(struct child *cell)
{
    if (cell->kind == CHILD_CELL && cell->usage.told_us != 0)
        jail_read_used(&cell->usage.used, &cell->jail);
}

void usage_tell(struct child *cell, struct span records)
{
    static uint8_t storage[REPORT_MAX + 128];
    struct child *control = service_control(cell->supervisor);
    struct cell_usage *usage = &cell->usage;
    struct buffer body = buffer_over(storage, sizeof storage);
    if (cell->hostile || usage->told_us == 0 || control->state != CHILD_SERVING)
        return; /* what the kernel counts is told when control is back */
    usage_look(cell);
    int64_t now_us = clock_monotonic_us();
    int64_t awake_us = now_us - usage->told_us;
    buffer_put(&body, SPAN_OF(cell->tenant));
    buffer_put_u32(&body, usage_day_of(clock_wall_us() - awake_us / 2));
    buffer_put_u64(&body, usage->used.cpu_us - usage->told_cpu_us);
    buffer_put_u64(&body, usage->used.peak_kib);
    buffer_put_u64(&body, (uint64_t)awake_us);
    buffer_put_field(&body, records);
    child_send(control, MESSAGE_CELL_USAGE, 0, buffer_span(&body), NULL, 0);
    usage->told_cpu_us = usage->used.cpu_us;
    usage->told_us = now_us;
}

status usage_report(struct child *cell, struct span records, struct fault *fault)
{
    struct cell_usage *usage = &cell->usage;
    int64_t now_us = clock_monotonic_us();
    for (; usage->allowance < ALLOWANCE
           && now_us - usage->allowance_us >= ALLOWANCE_STEP_US; usage->allowance++)
        usage->allowance_us += ALLOWANCE_STEP_US;
    if (usage->allowance == ALLOWANCE)
        usage->allowance_us = now_us;
    if (usage->allowance == 0)
        return FAIL(BAD_REQUEST, fault, "CELL_USAGE too often");
    if (records.length > REPORT_MAX)
        return FAIL(TOO_LARGE, fault, "CELL_USAGE of %zu bytes", records.length);
    usage->allowance--;
    usage_tell(cell, records);
    return OK;
}
