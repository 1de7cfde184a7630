#include "wire/usage.h"

#include "base/clock.h"

#include <string.h>

enum { DATE_LENGTH = 10, MONTH_DAYS_MIN = 28, MONTH_DAYS_MAX = 31 };

/* ---- counting ---- */

static void add(uint64_t *into, uint64_t more)
{
    if (__builtin_add_overflow(*into, more, into))
        *into = UINT64_MAX;
}

static uint64_t greater(uint64_t left, uint64_t right)
{
    return left > right ? left : right;
}

uint32_t usage_day_of(int64_t wall_us)
{
    int64_t day = wall_us / USAGE_DAY_US;
    return day < 0 ? 0 : day > UINT32_MAX ? UINT32_MAX : (uint32_t)day;
}

static struct usage_action *find(struct usage_day *day, struct span name)
{
    for (uint32_t i = 0; i < day->action_count; i++)
        if (span_is(name, day->actions[i].name))
            return &day->actions[i];
    return NULL;
}

/* One place is kept for what finds none. */
static struct usage_action *place_of(struct usage_day *day, struct span name)
{
    static const char other[] = "other";
    struct usage_action *found = find(day, name);
    bool full = day->action_count + 1 >= USAGE_ACTIONS_MAX;
    if (found == NULL && (full || name.length >= USAGE_NAME_TEXT)) {
        name = SPAN(other);
        found = find(day, name);
    }
    if (found != NULL)
        return found;
    struct usage_action *made = &day->actions[day->action_count++];
    *made = (struct usage_action){0};
    bool fits = span_to_text(made->name, sizeof made->name, name);
    (void)fits; /* checked above */
    return made;
}

static void count_action(struct usage_day *day, struct span action, uint64_t requests,
                         uint64_t refused)
{
    struct usage_action *place = place_of(day, action);
    add(&place->requests, requests);
    add(&place->refused, refused);
}

void usage_day_count(struct usage_day *day, struct span action, uint64_t requests,
                     uint64_t refused)
{
    count_action(day, action, requests, refused);
    add(&day->requests, requests);
    add(&day->refused, refused);
}

void usage_day_add(struct usage_day *into, const struct usage_day *from)
{
    add(&into->requests, from->requests);
    add(&into->refused, from->refused);
    add(&into->bytes_in, from->bytes_in);
    add(&into->bytes_out, from->bytes_out);
    add(&into->cpu_us, from->cpu_us);
    add(&into->awake_us, from->awake_us);
    into->peak_kib = greater(into->peak_kib, from->peak_kib);
    into->bytes_peak = greater(into->bytes_peak, from->bytes_peak);
    if (from->bytes_peak > 0)
        into->bytes_end = from->bytes_end;
    for (uint32_t i = 0; i < from->action_count; i++)
        count_action(into, span_of_text(from->actions[i].name), from->actions[i].requests,
                     from->actions[i].refused);
}

/* ---- the record ---- */

enum { FORMAT = 1 };

void usage_day_put(struct buffer *out, const struct usage_day *day)
{
    const uint64_t numbers[] = {day->requests, day->refused, day->bytes_in, day->bytes_out,
                                day->cpu_us, day->awake_us, day->peak_kib, day->bytes_peak,
                                day->bytes_end};
    buffer_put_u8(out, FORMAT);
    buffer_put_u32(out, day->day);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        buffer_put_u64(out, numbers[i]);
    buffer_put_u16(out, (uint16_t)day->action_count);
    for (uint32_t i = 0; i < day->action_count; i++) {
        buffer_put_text_field(out, day->actions[i].name);
        buffer_put_u64(out, day->actions[i].requests);
        buffer_put_u64(out, day->actions[i].refused);
    }
}

static bool is_name(struct span name)
{
    for (size_t i = 0; i < name.length; i++) {
        uint8_t c = name.data[i];
        if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') && c != '.' && c != '_')
            return false;
    }
    return name.length > 0;
}

static status get_action(struct usage_day *day, struct cursor *cursor, struct fault *fault)
{
    struct usage_action action;
    TRY(cursor_text(action.name, sizeof action.name, cursor, "action", fault));
    TRY(cursor_u64(&action.requests, cursor, fault));
    TRY(cursor_u64(&action.refused, cursor, fault));
    struct span name = span_of_text(action.name);
    if (!is_name(name) || find(day, name) != NULL)
        return FAIL(BAD_FIELD, fault, "usage: an action without a proper name, or twice");
    day->actions[day->action_count++] = action;
    return OK;
}

static status get_counts(struct usage_day *day, struct cursor *cursor, struct fault *fault)
{
    uint64_t *const numbers[] = {&day->requests, &day->refused, &day->bytes_in, &day->bytes_out,
                                 &day->cpu_us, &day->awake_us, &day->peak_kib, &day->bytes_peak,
                                 &day->bytes_end};
    uint8_t format;
    TRY(cursor_u8(&format, cursor, fault));
    if (format != FORMAT)
        return FAIL(BAD_REQUEST, fault, "usage: a record of format %u", format);
    TRY(cursor_u32(&day->day, cursor, fault));
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        TRY(cursor_u64(numbers[i], cursor, fault));
    return OK;
}

status usage_day_get(struct usage_day *ret, struct cursor *cursor, struct fault *fault)
{
    uint16_t count;
    ret->action_count = 0;
    TRY(get_counts(ret, cursor, fault));
    TRY(cursor_u16(&count, cursor, fault));
    if (count > USAGE_ACTIONS_MAX)
        return FAIL(BAD_REQUEST, fault, "usage: %u actions, at most %d", count,
                    USAGE_ACTIONS_MAX);
    for (uint16_t i = 0; i < count; i++)
        TRY(get_action(ret, cursor, fault));
    return OK;
}

/* ---- periods ---- */

/* "2026-11-22"; the one calendar that is here. */
static void date_text(char text[CLOCK_TEXT_SIZE], uint32_t day)
{
    clock_text(text, (int64_t)day * USAGE_DAY_US);
    text[DATE_LENGTH] = '\0';
}

static uint32_t day_of_month(uint32_t day)
{
    char text[CLOCK_TEXT_SIZE];
    date_text(text, day);
    return (uint32_t)(text[DATE_LENGTH - 2] - '0') * 10 + (uint32_t)(text[DATE_LENGTH - 1] - '0');
}

uint32_t usage_month_begin(uint32_t day)
{
    uint32_t before = day_of_month(day) - 1;
    return before <= day ? day - before : 0;
}

static uint32_t month_days(uint32_t day)
{
    uint32_t begin = usage_month_begin(day), days = MONTH_DAYS_MIN;
    while (days < MONTH_DAYS_MAX && day_of_month(begin + days) != 1)
        days++;
    return days;
}

void usage_period_begin(struct usage_period *ret, uint32_t first_day, uint32_t last_day,
                        uint64_t carried_bytes)
{
    *ret = (struct usage_period){.first_day = first_day, .last_day = last_day,
                                 .next_day = first_day, .month_days = month_days(last_day),
                                 .carried_bytes = carried_bytes};
    ret->sum.day = last_day;
    ret->sum.bytes_end = carried_bytes;
}

static void pass_days(struct usage_period *period, uint32_t until)
{
    for (; period->next_day < until; period->next_day++) {
        add(&period->byte_days, period->carried_bytes);
        period->sum.bytes_peak = greater(period->sum.bytes_peak, period->carried_bytes);
    }
}

void usage_period_add(struct usage_period *period, const struct usage_day *day)
{
    if (day->day < period->next_day || day->day > period->last_day)
        return;
    pass_days(period, day->day);
    bool measured = day->bytes_peak > 0;
    usage_day_add(&period->sum, day);
    period->peak_kib_us += (unsigned __int128)day->peak_kib * day->awake_us;
    if (!measured) {
        pass_days(period, day->day + 1);
        return;
    }
    add(&period->byte_days, greater(day->bytes_peak, day->bytes_end));
    period->carried_bytes = day->bytes_end;
    period->next_day = day->day + 1;
}

void usage_period_end(struct usage_period *period)
{
    pass_days(period, period->last_day + 1);
}

/* ---- JSON ---- */

/* Microseconds as seconds: exact, as text. */
static void put_millionths(struct json_writer *writer, const char *name, uint64_t millionths)
{
    uint8_t storage[40];
    struct buffer text = buffer_over(storage, sizeof storage);
    buffer_printf(&text, "%llu.%06llu", (unsigned long long)(millionths / 1000000),
                  (unsigned long long)(millionths % 1000000));
    json_put_raw(writer, name, buffer_span(&text));
}

static void put_number(struct json_writer *writer, const char *name, uint64_t number)
{
    json_put_integer(writer, name, number < INT64_MAX ? (int64_t)number : INT64_MAX);
}

static void put_actions(struct json_writer *writer, const struct usage_day *sum)
{
    json_open_object(writer, "by_action");
    for (uint32_t i = 0; i < sum->action_count; i++) {
        json_open_object(writer, sum->actions[i].name);
        put_number(writer, "requests", sum->actions[i].requests);
        put_number(writer, "refused", sum->actions[i].refused);
        json_close_object(writer);
    }
    json_close_object(writer);
}

void cost_put(struct json_writer *writer, const char *name, const struct cost *cost,
              const struct prices *prices)
{
    static const char *const names[PRICES] = {
        [PRICE_REQUEST] = "request", [PRICE_CPU_SECOND] = "cpu_second",
        [PRICE_AWAKE_SECOND] = "awake_second", [PRICE_GIB_STORED_MONTH] = "gib_stored_month",
        [PRICE_GIB_IN] = "gib_in", [PRICE_GIB_OUT] = "gib_out",
        [PRICE_PEAK_MIB_HOUR] = "peak_mib_hour"};
    if (prices->currency[0] == '\0') {
        json_put_null(writer, name);
        return;
    }
    json_open_object(writer, name);
    json_put_text(writer, "currency", prices->currency);
    put_millionths(writer, "total", cost->total);
    json_open_object(writer, "by");
    for (int i = 0; i < PRICES; i++)
        if (prices->pico[i] != 0)
            put_millionths(writer, names[i], cost->by[i]);
    json_close_object(writer);
    json_close_object(writer);
}

void usage_put_period(struct json_writer *writer, const struct usage_period *period,
                      const struct prices *prices)
{
    const struct usage_day *sum = &period->sum;
    struct cost cost = usage_cost(period, prices);
    char from[CLOCK_TEXT_SIZE], to[CLOCK_TEXT_SIZE];
    date_text(from, period->first_day);
    date_text(to, period->last_day);
    json_put_text(writer, "from", from);
    json_put_text(writer, "to", to);
    put_number(writer, "requests", sum->requests);
    put_number(writer, "refused", sum->refused);
    put_millionths(writer, "cpu_seconds", sum->cpu_us);
    put_millionths(writer, "awake_seconds", sum->awake_us);
    put_number(writer, "peak_memory_bytes",
               sum->peak_kib < UINT64_MAX / 1024 ? sum->peak_kib * 1024 : UINT64_MAX);
    put_number(writer, "bytes_in", sum->bytes_in);
    put_number(writer, "bytes_out", sum->bytes_out);
    put_number(writer, "bytes_stored", sum->bytes_end);
    put_number(writer, "bytes_stored_peak", sum->bytes_peak);
    put_actions(writer, sum);
    cost_put(writer, "cost", &cost, prices);
}
