#include "silo/usage.h"

#include "base/clock.h"

#include <stdlib.h>
#include <sys/resource.h>

#define WRITE_EVERY_US ((int64_t)10 * 1000000)

static const char *const usage_sql[] = {
    "CREATE TABLE usage_days (day INTEGER PRIMARY KEY, record BLOB NOT NULL);",
};
const struct store_schema usage_schema = {"usage", usage_sql, 1};

/* ---- counting ---- */

/* Its row's place among all rows, from 1; 0: none was found for the request. */
static uint32_t number_of(const struct action *action)
{
    uint32_t before = 1;
    for (uint32_t i = 0; action != NULL && i < action_table.count; i++) {
        const struct action_set *set = &action_table.sets[i];
        if (action >= set->rows && action < set->rows + set->count)
            return before + (uint32_t)(action - set->rows);
        before += set->count;
    }
    return 0;
}

/* The counts of today; yesterday's stay beside them until they have gone where they belong. */
static struct usage_counts *today_of(struct usage_counts counts[2], uint32_t day)
{
    if (counts[0].day != day) {
        if (counts[0].used)
            counts[1] = counts[0];
        counts[0] = (struct usage_counts){.day = day};
    }
    return &counts[0];
}

static void count(struct usage_counts counts[2], uint32_t day, const struct usage_event *event)
{
    struct usage_counts *today = today_of(counts, day);
    today->used = true;
    today->bytes_in += event->bytes_in;
    today->bytes_out += event->bytes_out;
    today->requests[event->number] += event->answered;
    today->refused[event->number] += event->refused;
}

static void count_event(struct silo *silo, const struct usage_event *event)
{
    uint32_t day = usage_day_of(silo->now_us);
    count(silo->usage.unsaved, day, event);
    count(silo->usage.unreported, day, event);
}

void silo_count(struct silo *silo, const struct action *action, bool refused, uint64_t bytes_in,
                uint64_t bytes_out)
{
    uint32_t number = number_of(action);
    const struct usage_event event = {
        .number = number < USAGE_ACTIONS_MAX ? number : 0, .answered = 1, .refused = refused,
        .bytes_in = bytes_in, .bytes_out = bytes_out};
    count_event(silo, &event);
}

void silo_count_bytes(struct silo *silo, uint64_t bytes_in, uint64_t bytes_out)
{
    const struct usage_event event = {.bytes_in = bytes_in, .bytes_out = bytes_out};
    count_event(silo, &event);
}

/* ---- what the kernel says of this process: for the tenant's eyes; control goes by what the
 *      supervisor sees ---- */

static uint64_t microseconds(struct timeval time)
{
    return (uint64_t)time.tv_sec * 1000000 + (uint64_t)time.tv_usec;
}

struct measured {
    uint64_t cpu_us, awake_us, peak_kib;
};

static struct measured measure(void)
{
    struct rusage used;
    struct measured now = {.awake_us = (uint64_t)clock_monotonic_us()};
    if (getrusage(RUSAGE_SELF, &used) == 0) {
        now.cpu_us = microseconds(used.ru_utime) + microseconds(used.ru_stime);
        now.peak_kib = (uint64_t)used.ru_maxrss;
    }
    return now;
}

void usage_begin(struct silo *silo)
{
    struct measured now = measure();
    silo->usage.cpu_us = now.cpu_us;
    silo->usage.awake_us = now.awake_us;
}

/* ---- records ---- */

static void put_counts(struct usage_day *day, const struct usage_counts *counts)
{
    day->bytes_in += counts->bytes_in;
    day->bytes_out += counts->bytes_out;
    for (uint32_t i = 0; i < USAGE_ACTIONS_MAX; i++) {
        const struct action *action = i > 0 ? action_numbered(&action_table, i) : NULL;
        if (counts->requests[i] > 0)
            usage_day_count(day, action != NULL ? span_of_text(action->name) : SPAN("other"),
                            counts->requests[i], counts->refused[i]);
    }
}

/* Of the present day, besides its counts. */
static void put_present(struct usage_day *day, struct silo *silo)
{
    struct measured now = measure();
    uint64_t bytes = silo_bytes(silo);
    day->cpu_us = now.cpu_us - silo->usage.cpu_us;
    day->awake_us = now.awake_us - silo->usage.awake_us;
    day->peak_kib = now.peak_kib;
    day->bytes_end = bytes;
    day->bytes_peak = bytes;
}

/* NOT_FOUND: no such day was stored; ret is then empty. A record that is none counts as such: it is
 * only a display. */
static status read_day(struct usage_day *ret, struct silo *silo, uint32_t day,
                       struct fault *fault)
{
    _cleanup_statement_ struct statement *read = NULL;
    *ret = (struct usage_day){.day = day};
    TRY(statement_open(&read, silo->store, "SELECT record FROM usage_days WHERE day = ?1",
                       fault));
    statement_bind_int(read, 1, day);
    TRY(statement_step(read, fault));
    struct cursor record = cursor_over(statement_span(read, 0));
    if (usage_day_get(ret, &record, fault) != OK || ret->day != day) {
        *ret = (struct usage_day){.day = day};
        return FAIL(NOT_FOUND, fault, "the record of a day cannot be read");
    }
    return OK;
}

static status write_day(struct silo *silo, const struct usage_day *more, struct fault *fault)
{
    struct usage_day day;
    uint8_t storage[USAGE_RECORD_MAX];
    struct buffer record = buffer_over(storage, sizeof storage);
    status found = read_day(&day, silo, more->day, fault);
    if (found != OK && found != NOT_FOUND)
        return found;
    usage_day_add(&day, more);
    usage_day_put(&record, &day);
    TRY(buffer_check(&record, "usage", fault));
    _cleanup_statement_ struct statement *put = NULL;
    TRY(statement_open(&put, silo->store,
                       "INSERT OR REPLACE INTO usage_days (day, record) VALUES (?1, ?2)", fault));
    statement_bind_int(put, 1, day.day);
    statement_bind_blob(put, 2, buffer_span(&record));
    return statement_run(put, fault);
}

static status write_counts(struct silo *silo, struct fault *fault)
{
    struct usage_counts *unsaved = silo->usage.unsaved;
    struct usage_day day = {.day = unsaved[1].day};
    TRY(store_migrate(silo->store, &usage_schema, fault));
    put_counts(&day, &unsaved[1]);
    if (unsaved[1].used)
        TRY(write_day(silo, &day, fault));
    day = (struct usage_day){.day = unsaved[0].day};
    put_counts(&day, &unsaved[0]);
    put_present(&day, silo);
    TRY(write_day(silo, &day, fault));
    _cleanup_statement_ struct statement *drop = NULL;
    TRY(statement_open(&drop, silo->store, "DELETE FROM usage_days WHERE day <= ?1", fault));
    statement_bind_int(drop, 1, (int64_t)day.day - USAGE_DAYS_KEPT);
    return statement_run(drop, fault);
}

static bool is_due(const struct silo *silo)
{
    const struct silo_usage *usage = &silo->usage;
    int64_t since_us = silo->now_us - usage->written_us;
    bool used = usage->unsaved[0].used || usage->unsaved[1].used;
    if (usage->settle) /* the time since what was written last counts, too */
        return used || usage->written_us != 0;
    return used && (since_us >= WRITE_EVERY_US || since_us < 0);
}

/* A damaged page there is no reason to lose what the tenant wrote. */
status usage_write(struct silo *silo, struct fault *fault)
{
    silo->usage.writing = is_due(silo);
    if (!silo->usage.writing)
        return OK;
    (void)today_of(silo->usage.unsaved, usage_day_of(silo->now_us));
    TRY(store_savepoint(silo->store, fault));
    status written = write_counts(silo, fault);
    if (written == CORRUPT)
        return store_undo(silo->store, fault);
    TRY(written);
    return store_release(silo->store, fault);
}

void usage_written(struct silo *silo)
{
    struct silo_usage *usage = &silo->usage;
    if (!usage->writing)
        return;
    usage->unsaved[0] = (struct usage_counts){.day = usage->unsaved[0].day};
    usage->unsaved[1] = (struct usage_counts){0};
    usage_begin(silo);
    usage->written_us = silo->now_us;
    usage->writing = usage->settle = false;
}

void usage_taken_back(struct silo *silo)
{
    silo->usage.writing = false;
}

bool silo_usage_settle(struct silo *silo)
{
    silo->usage.settle = silo->store != NULL;
    return silo->usage.settle && is_due(silo);
}

/* ---- reports ---- */

uint32_t silo_usage_report(struct buffer *out, struct silo *silo)
{
    struct usage_counts *unreported = silo->usage.unreported;
    uint32_t days = 0;
    (void)today_of(unreported, usage_day_of(silo->now_us));
    for (int i = 1; i >= 0; i--) { /* the older first */
        struct usage_day day = {.day = unreported[i].day};
        if (!unreported[i].used)
            continue;
        put_counts(&day, &unreported[i]);
        if (i == 0)
            day.bytes_end = day.bytes_peak = silo_bytes(silo);
        usage_day_put(out, &day);
        unreported[i] = (struct usage_counts){.day = unreported[i].day};
        days++;
    }
    return days;
}

/* ---- GET /v1/tenant ---- */

/* What was stored when the day began. */
static status read_carried(uint64_t *ret, struct silo *silo, uint32_t day, struct fault *fault)
{
    struct usage_day before;
    _cleanup_statement_ struct statement *newest = NULL;
    *ret = 0;
    TRY(statement_open(&newest, silo->store, "SELECT max(day) FROM usage_days WHERE day < ?1",
                       fault));
    statement_bind_int(newest, 1, day);
    TRY(statement_step(newest, fault));
    if (statement_is_null(newest, 0))
        return OK;
    status found = read_day(&before, silo, (uint32_t)statement_int(newest, 0), fault);
    if (found == OK)
        *ret = before.bytes_end;
    return found == NOT_FOUND ? OK : found;
}

static status read_with_unsaved(struct usage_day *ret, struct silo *silo, bool has, uint32_t day,
                                struct fault *fault)
{
    const struct usage_counts *unsaved = silo->usage.unsaved;
    struct usage_day present = {.day = day};
    bool today = day == usage_day_of(silo->now_us);
    status found = NOT_FOUND;
    *ret = (struct usage_day){.day = day};
    if (has)
        found = read_day(ret, silo, day, fault);
    for (int i = 0; i < 2; i++) {
        if (!unsaved[i].used || unsaved[i].day != day)
            continue;
        put_counts(ret, &unsaved[i]);
        found = found == NOT_FOUND ? OK : found;
    }
    if (!today || (found != OK && found != NOT_FOUND))
        return found;
    put_present(&present, silo);
    usage_day_add(ret, &present);
    return OK;
}

static status put_period(struct json_writer *writer, const char *name, struct silo *silo,
                         uint32_t first, uint32_t last, struct fault *fault)
{
    struct usage_period period;
    struct usage_day day;
    uint64_t carried = 0;
    bool has;
    TRY(store_has(&has, silo->store, &usage_schema, fault));
    if (has)
        TRY(read_carried(&carried, silo, first, fault));
    usage_period_begin(&period, first, last, carried);
    for (uint32_t at = first; at <= last; at++) {
        status found = read_with_unsaved(&day, silo, has, at, fault);
        if (found != NOT_FOUND)
            TRY(found);
        if (found == OK)
            usage_period_add(&period, &day);
    }
    usage_period_end(&period);
    json_open_object(writer, name);
    usage_put_period(writer, &period, &silo->usage.prices);
    json_close_object(writer);
    return OK;
}

status usage_put(struct json_writer *writer, struct silo *silo, struct fault *fault)
{
    uint32_t today = usage_day_of(silo->now_us);
    TRY(put_period(writer, "month", silo, usage_month_begin(today), today, fault));
    return put_period(writer, "today", silo, today, today, fault);
}

void silo_set_prices(struct silo *silo, const struct prices *prices)
{
    silo->usage.prices = *prices;
}
