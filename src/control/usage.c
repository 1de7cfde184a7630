/* usage.c: what tenants used, by day, and what that costs. The kernel's figures come from the
 * supervisor, counts from the tenant's own cell: a record of those is a stranger's text. Reports
 * are gathered here and stored together. */
#include "base/log.h"
#include "control/control.h"

#include <stdlib.h>
#include <string.h>

enum {
    FLUSH_AFTER_US = 10 * 1000 * 1000,
    RETRY_AFTER_US = 60 * 1000 * 1000,
    NOTES_MAX = 2 * CELLS_AWAKE_MAX, /* then they are stored at once */
    RECORDS_MAX = 2 * USAGE_RECORD_MAX + 1,
    REPORT_DAYS_MAX = 2,
};

struct usage_note { /* not in the registry yet */
    uint8_t id[TENANT_ID_BYTES];
    struct usage_day day;
    struct usage_note *next;
};

/* ---- the registry ---- */

static status read_day(struct usage_day *ret, struct control *control,
                       const struct usage_note *note, struct fault *fault)
{
    _cleanup_statement_ struct statement *read = NULL;
    *ret = (struct usage_day){.day = note->day.day};
    TRY(statement_open(&read, control->store,
                       "SELECT record FROM usage_day WHERE tenant = ?1 AND day = ?2", fault));
    statement_bind_blob(read, 1, SPAN_OF(note->id));
    statement_bind_int(read, 2, note->day.day);
    TRY(statement_step(read, fault));
    struct cursor record = cursor_over(statement_span(read, 0));
    return usage_day_get(ret, &record, fault);
}

static status drop_old(struct control *control, const struct usage_note *note,
                       struct fault *fault)
{
    _cleanup_statement_ struct statement *drop = NULL;
    TRY(statement_open(&drop, control->store,
                       "DELETE FROM usage_day WHERE tenant = ?1 AND day <= ?2", fault));
    statement_bind_blob(drop, 1, SPAN_OF(note->id));
    statement_bind_int(drop, 2, (int64_t)note->day.day - USAGE_DAYS_KEPT);
    return statement_run(drop, fault);
}

static status write_note(struct control *control, const struct usage_note *note,
                         struct fault *fault)
{
    uint8_t storage[USAGE_RECORD_MAX];
    struct buffer record = buffer_over(storage, sizeof storage);
    struct usage_day day;
    struct tenant tenant;
    status found = registry_by_id(&tenant, control, note->id, fault);
    if (found == NOT_FOUND)
        return OK; /* erased meanwhile */
    TRY(found);
    found = read_day(&day, control, note, fault);
    if (found != OK && found != NOT_FOUND)
        return found;
    usage_day_add(&day, &note->day);
    usage_day_put(&record, &day);
    TRY(buffer_check(&record, "usage", fault));
    _cleanup_statement_ struct statement *put = NULL;
    TRY(statement_open(&put, control->store,
                       "INSERT OR REPLACE INTO usage_day (tenant, day, record)"
                       " VALUES (?1, ?2, ?3)", fault));
    statement_bind_blob(put, 1, SPAN_OF(note->id));
    statement_bind_int(put, 2, day.day);
    statement_bind_blob(put, 3, buffer_span(&record));
    TRY(statement_run(put, fault));
    return found == NOT_FOUND ? drop_old(control, note, fault) : OK;
}

static status write_notes(struct control *control, struct fault *fault)
{
    TRY(registry_begin(control, fault));
    status result = OK;
    for (struct usage_note *note = control->usage_notes; note && result == OK; note = note->next)
        result = write_note(control, note, fault);
    return registry_end(control, result, fault);
}

status usage_remove_of(struct control *control, const uint8_t id[TENANT_ID_BYTES],
                       struct fault *fault)
{
    _cleanup_statement_ struct statement *drop = NULL;
    TRY(statement_open(&drop, control->store, "DELETE FROM usage_day WHERE tenant = ?1", fault));
    statement_bind_blob(drop, 1, (struct span){id, TENANT_ID_BYTES});
    return statement_run(drop, fault);
}

/* ---- reports ---- */

static void on_flush(void *context);

static void flush_later(struct control *control, int64_t after_us)
{
    struct fault fault;
    if (control->usage_timer.due_us == 0 && !control->stopping
        && loop_timer_start(control->loop, &control->usage_timer, after_us, on_flush, control,
                            &fault) != OK)
        control_die("usage timer", &fault);
}

void usage_flush(struct control *control)
{
    struct fault fault;
    loop_timer_stop(control->loop, &control->usage_timer);
    if (!control->usage_notes)
        return;
    if (write_notes(control, &fault) != OK) {
        log_event(LOG_WARN, "registry.usage", "%s", fault.detail);
        flush_later(control, RETRY_AFTER_US);
        return;
    }
    while (control->usage_notes) {
        struct usage_note *note = control->usage_notes;
        control->usage_notes = note->next;
        free(note);
    }
    control->usage_note_count = 0;
}

static void on_flush(void *context)
{
    usage_flush(context);
}

/* NULL: no memory; then this report is lost. */
static struct usage_note *note_of(struct control *control, const uint8_t id[TENANT_ID_BYTES],
                                  uint32_t day)
{
    for (struct usage_note *note = control->usage_notes; note; note = note->next)
        if (note->day.day == day && memcmp(note->id, id, TENANT_ID_BYTES) == 0)
            return note;
    if (control->usage_note_count >= NOTES_MAX)
        usage_flush(control);
    struct usage_note *made = control->usage_note_count < NOTES_MAX ? calloc(1, sizeof *made)
                                                                     : NULL;
    if (!made)
        return NULL;
    memcpy(made->id, id, TENANT_ID_BYTES);
    made->day.day = day;
    made->next = control->usage_notes;
    control->usage_notes = made;
    control->usage_note_count++;
    return made;
}

static void keep(struct control *control, const uint8_t id[TENANT_ID_BYTES],
                 const struct usage_day *day)
{
    struct usage_note *note = note_of(control, id, day->day);
    if (note)
        usage_day_add(&note->day, day);
    flush_later(control, FLUSH_AFTER_US);
}

/* The cell's own words: counts are believed, days are not, nor what the kernel knows better. */
static status take_record(struct control *control, const uint8_t id[TENANT_ID_BYTES],
                          struct cursor *records, struct fault *fault)
{
    struct usage_day day;
    uint32_t today = usage_day_of(clock_wall_us());
    TRY(usage_day_get(&day, records, fault));
    if (day.day + 1 != today)
        day.day = today;
    day.cpu_us = day.awake_us = day.peak_kib = 0;
    keep(control, id, &day);
    return OK;
}

static status take_records(struct control *control, const uint8_t id[TENANT_ID_BYTES],
                           struct span bytes, struct fault *fault)
{
    struct cursor records = cursor_over(bytes);
    uint8_t count;
    if (bytes.length == 0)
        return OK;
    TRY(cursor_u8(&count, &records, fault));
    if (count > REPORT_DAYS_MAX)
        return FAIL(BAD_REQUEST, fault, "%u days in one report", count);
    for (uint8_t i = 0; i < count; i++)
        TRY(take_record(control, id, &records, fault));
    return cursor_end(&records, fault);
}

void usage_on_report(struct control *control, struct cursor *body)
{
    uint8_t id[TENANT_ID_BYTES];
    struct usage_day kernel = {0};
    struct span records;
    struct fault fault;
    if (cursor_copy(id, body, sizeof id, &fault) != OK
        || cursor_u32(&kernel.day, body, &fault) != OK
        || cursor_u64(&kernel.cpu_us, body, &fault) != OK
        || cursor_u64(&kernel.peak_kib, body, &fault) != OK
        || cursor_u64(&kernel.awake_us, body, &fault) != OK
        || cursor_field(&records, body, RECORDS_MAX, "records", &fault) != OK
        || cursor_end(body, &fault) != OK)
        control_die("CELL_USAGE", &fault);
    keep(control, id, &kernel);
    if (take_records(control, id, records, &fault) != OK)
        log_event(LOG_WARN, "usage.refused", "%s", fault.detail);
}

void usage_on_prices(struct control *control, struct cursor *body)
{
    struct fault fault;
    if (prices_get(&control->prices, body, &fault) != OK || cursor_end(body, &fault) != OK)
        control_die("PRICES", &fault);
}

/* ---- what is shown ---- */

/* The newest day before: what was stored then still is on days without a record. */
static status read_carried(uint64_t *ret, struct control *control, const struct tenant *tenant,
                           uint32_t day, struct fault *fault)
{
    struct usage_day before;
    _cleanup_statement_ struct statement *read = NULL;
    *ret = 0;
    TRY(statement_open(&read, control->store,
                       "SELECT record FROM usage_day WHERE tenant = ?1 AND day < ?2"
                       " ORDER BY day DESC LIMIT 1", fault));
    statement_bind_blob(read, 1, SPAN_OF(tenant->id));
    statement_bind_int(read, 2, day);
    status found = statement_step(read, fault);
    if (found != OK)
        return found == NOT_FOUND ? OK : found;
    struct cursor record = cursor_over(statement_span(read, 0));
    TRY(usage_day_get(&before, &record, fault));
    *ret = before.bytes_end;
    return OK;
}

status usage_read(struct usage_period *ret, struct control *control, const struct tenant *tenant,
                  uint32_t first_day, uint32_t last_day, struct fault *fault)
{
    struct usage_day day;
    uint64_t carried;
    _cleanup_statement_ struct statement *rows = NULL;
    TRY(read_carried(&carried, control, tenant, first_day, fault));
    TRY(statement_open(&rows, control->store,
                       "SELECT record FROM usage_day WHERE tenant = ?1 AND day BETWEEN ?2 AND ?3"
                       " ORDER BY day", fault));
    statement_bind_blob(rows, 1, SPAN_OF(tenant->id));
    statement_bind_int(rows, 2, first_day);
    statement_bind_int(rows, 3, last_day);
    usage_period_begin(ret, first_day, last_day, carried);
    for (;;) {
        status step = statement_step(rows, fault);
        if (step == NOT_FOUND)
            break;
        TRY(step);
        struct cursor record = cursor_over(statement_span(rows, 0));
        TRY(usage_day_get(&day, &record, fault));
        usage_period_add(ret, &day);
    }
    usage_period_end(ret);
    return OK;
}

static void put_period(struct json_writer *writer, const char *name, struct control *control,
                       const struct tenant *tenant, uint32_t first, uint32_t last)
{
    struct usage_period period;
    struct fault fault;
    if (usage_read(&period, control, tenant, first, last, &fault) != OK) {
        log_event(LOG_WARN, "registry.usage", "%s", fault.detail);
        json_put_null(writer, name);
        return;
    }
    json_open_object(writer, name);
    usage_put_period(writer, &period, &control->prices);
    json_close_object(writer);
}

void usage_put_month(struct json_writer *writer, struct control *control,
                     const struct tenant *tenant, uint32_t days)
{
    uint32_t today = usage_day_of(clock_wall_us());
    put_period(writer, "month", control, tenant, usage_month_begin(today), today);
    put_period(writer, "today", control, tenant, today, today);
    if (days == 0)
        return;
    json_open_array(writer, "days"); /* the newest first */
    for (uint32_t back = 0; back < days && back < today; back++)
        put_period(writer, NULL, control, tenant, today - back, today - back);
    json_close_array(writer);
}

struct cost usage_put_cost(struct json_writer *writer, struct control *control,
                           const struct tenant *tenant)
{
    uint32_t today = usage_day_of(clock_wall_us());
    struct usage_period period;
    struct cost cost = {0};
    struct fault fault;
    if (control->prices.currency[0] != '\0'
        && usage_read(&period, control, tenant, usage_month_begin(today), today, &fault) == OK)
        cost = usage_cost(&period, &control->prices);
    cost_put(writer, "cost", &cost, &control->prices);
    return cost;
}
