/* usage.h: what a tenant used on a day (UTC), as a record that travels and is stored, and what it
 * costs by the operator's price file. Sums are integers throughout: no money is ever a double.
 *
 * The record (docs/file-formats.md) is written by the silo for itself, by a cell for control, by
 * control for the registry. Whoever reads one treats it as hostile. */
#pragma once

#include "base/cursor.h"
#include "base/limits.h"
#include "wire/json.h"

#define USAGE_DAY_US ((int64_t)24 * 3600 * 1000000)

struct usage_action {
    char name[USAGE_NAME_TEXT]; /* "memory.search"; "other": what has no action, or no room here */
    uint64_t requests, refused; /* refused: of these, answered with 400 or above */
};

struct usage_day {
    uint32_t day; /* days since 1970 */
    uint64_t requests, refused, bytes_in, bytes_out; /* bytes of bodies */
    uint64_t cpu_us, awake_us, peak_kib;
    uint64_t bytes_peak, bytes_end; /* stored: at its fullest, and as last measured */
    uint32_t action_count;
    struct usage_action actions[USAGE_ACTIONS_MAX];
};

uint32_t usage_day_of(int64_t wall_us);

/* Adds to the counts of one action and of the day. */
void usage_day_count(struct usage_day *day, struct span action, uint64_t requests,
                     uint64_t refused);
/* Sums; the greater of peaks; bytes_end is that of `from`, if it was measured there (then its peak
 * is not 0). The number of the day stays. */
void usage_day_add(struct usage_day *into, const struct usage_day *from);

void usage_day_put(struct buffer *out, const struct usage_day *day);
/* BAD_REQUEST, BAD_FIELD, TRUNCATED: it is no record. */
MUST_CHECK status usage_day_get(struct usage_day *ret, struct cursor *cursor,
                                struct fault *fault);

/* A run of days, of which those without a record count what was stored before. */
struct usage_period {
    uint32_t first_day, last_day, next_day;
    uint32_t month_days;         /* of the month of last_day: what a price per month is cut into */
    uint64_t carried_bytes;      /* stored at the end of the day before next_day */
    struct usage_day sum;
    uint64_t byte_days;          /* of each day at its fullest */
    unsigned __int128 peak_kib_us; /* of each day its peak by its time awake */
};

/* The day that the month of this one began with. */
uint32_t usage_month_begin(uint32_t day);
void usage_period_begin(struct usage_period *ret, uint32_t first_day, uint32_t last_day,
                        uint64_t carried_bytes);
void usage_period_add(struct usage_period *period, const struct usage_day *day); /* ascending */
void usage_period_end(struct usage_period *period);

enum price_of {
    PRICE_REQUEST, /* that was not refused */
    PRICE_CPU_SECOND,
    PRICE_AWAKE_SECOND,
    PRICE_GIB_STORED_MONTH,
    PRICE_GIB_IN,
    PRICE_GIB_OUT,
    PRICE_PEAK_MIB_HOUR, /* awake, at the day's peak */
    PRICES
};

struct prices { /* all zero: there is no price file */
    char currency[PRICE_CURRENCY_TEXT];
    uint64_t pico[PRICES]; /* millionths of a millionth of the currency's unit */
};

/* The price file: {"currency":"EUR","prices":{"request":0.000002, ...}}. BAD_JSON, BAD_FIELD. */
MUST_CHECK status prices_read(struct prices *ret, struct span json, struct fault *fault);
void prices_put(struct buffer *out, const struct prices *prices);
MUST_CHECK status prices_get(struct prices *ret, struct cursor *cursor, struct fault *fault);

struct cost { /* in millionths of the currency's unit, each rounded half up; total: their sum */
    uint64_t total, by[PRICES];
};
struct cost usage_cost(const struct usage_period *period, const struct prices *prices);
/* a += b */
void cost_add(struct cost *into, const struct cost *from);

/* Members of the open object: "from", "to", the counts, "by_action", "cost". */
void usage_put_period(struct json_writer *writer, const struct usage_period *period,
                      const struct prices *prices);
/* {"currency":"EUR","total":1.234567,"by":{"request":...}}; null without prices. */
void cost_put(struct json_writer *writer, const char *name, const struct cost *cost,
              const struct prices *prices);
