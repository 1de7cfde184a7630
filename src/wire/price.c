/* price.c: the operator's price file, and what a period costs by it. */
#include "wire/usage.h"

enum {
    DECIMALS = 12,          /* of a price: pico */
    UNITS_MAX = 1000000,    /* a price is at most so many of the currency's unit */
    CURRENCY_MIN = 3,
    PICO_PER_MICRO = 1000000,
};
#define GIB (UINT64_C(1) << 30)

typedef unsigned __int128 wide;

static const char *const members[] = {
    "request", "cpu_second", "awake_second", "gib_stored_month", "gib_in", "gib_out",
    "peak_mib_hour", NULL};
static_assert(sizeof members / sizeof *members == PRICES + 1, "a name for each price");

/* ---- the file ---- */

static status bad_price(const char *name, struct fault *fault)
{
    return FAIL(BAD_FIELD, fault, "prices.%s: must be a decimal number of 0 to %d, with at most "
                "%d digits behind the point", name, UNITS_MAX, DECIMALS);
}

/* Digits, then perhaps a point and digits: read from the text itself, so nothing is rounded. */
static status read_decimal(uint64_t *ret_pico, struct span text, const char *name,
                           struct fault *fault)
{
    uint64_t pico = 0;
    int decimals = -1; /* no point yet */
    for (size_t i = 0; i < text.length; i++) {
        uint8_t c = text.data[i];
        if (c == '.' && decimals < 0 && i > 0) {
            decimals = 0;
            continue;
        }
        if (c < '0' || c > '9' || decimals == DECIMALS || (decimals < 0 && pico > UNITS_MAX))
            return bad_price(name, fault);
        pico = pico * 10 + (uint64_t)(c - '0');
        decimals += decimals >= 0;
    }
    for (int i = decimals > 0 ? decimals : 0; i < DECIMALS; i++)
        if (__builtin_mul_overflow(pico, 10, &pico))
            return bad_price(name, fault);
    if (pico > (uint64_t)UNITS_MAX * PICO_PER_MICRO * PICO_PER_MICRO)
        return bad_price(name, fault);
    *ret_pico = pico;
    return OK;
}

static status read_currency(struct prices *prices, const struct json *file, struct fault *fault)
{
    struct span currency;
    TRY(json_text(&currency, file, "currency", CURRENCY_MIN, PRICE_CURRENCY_TEXT - 1, fault));
    for (size_t i = 0; i < currency.length; i++)
        if (currency.data[i] < 'A' || currency.data[i] > 'Z')
            return FAIL(BAD_FIELD, fault, "currency: must be capital letters, such as EUR");
    bool fits = span_to_text(prices->currency, sizeof prices->currency, currency);
    return fits ? OK : FAIL(BAD_FIELD, fault, "currency: too long");
}

static status read_file(struct prices *ret, const struct json *file, struct fault *fault)
{
    static const char *const known[] = {"currency", "prices", NULL};
    struct prices prices = {0};
    TRY(json_need_object(file, "price file", fault));
    TRY(json_only(file, known, fault));
    TRY(read_currency(&prices, file, fault));
    const struct json *list = json_member(file, "prices");
    if (list == NULL)
        return FAIL(BAD_FIELD, fault, "prices: missing");
    TRY(json_need_object(list, "prices", fault));
    TRY(json_only(list, members, fault));
    for (int i = 0; i < PRICES; i++) {
        const struct json *price = json_member(list, members[i]);
        if (price == NULL)
            continue;
        if (price->kind != JSON_INTEGER && price->kind != JSON_DOUBLE)
            return bad_price(members[i], fault);
        TRY(read_decimal(&prices.pico[i], price->source, members[i], fault));
    }
    *ret = prices;
    return OK;
}

status prices_read(struct prices *ret, struct span json, struct fault *fault)
{
    struct arena arena = arena_of(16 * (size_t)PRICE_FILE_MAX);
    struct json file;
    status result = OK;
    if (json.length > PRICE_FILE_MAX)
        result = FAIL(TOO_LARGE, fault, "more than %u bytes", (unsigned)PRICE_FILE_MAX);
    if (result == OK)
        result = json_parse(&file, &arena, json, fault);
    if (result == OK)
        result = read_file(ret, &file, fault);
    arena_free(&arena);
    return result;
}

void prices_put(struct buffer *out, const struct prices *prices)
{
    buffer_put_text_field(out, prices->currency);
    for (int i = 0; i < PRICES; i++)
        buffer_put_u64(out, prices->pico[i]);
}

status prices_get(struct prices *ret, struct cursor *cursor, struct fault *fault)
{
    struct prices prices = {0};
    TRY(cursor_text(prices.currency, sizeof prices.currency, cursor, "currency", fault));
    for (int i = 0; i < PRICES; i++) {
        TRY(cursor_u64(&prices.pico[i], cursor, fault));
        if (prices.pico[i] > (uint64_t)UNITS_MAX * PICO_PER_MICRO * PICO_PER_MICRO)
            return bad_price(members[i], fault);
    }
    *ret = prices;
    return OK;
}

/* ---- money ---- */

/* amount / per units at a price, in millionths, half up. amount is below 2^67 times a price of at
 * most 10^18 < 2^60: for what no tenant could use up, the cost is what fits. */
static uint64_t priced(wide amount, uint64_t pico, wide per)
{
    wide product;
    if (pico == 0)
        return 0;
    if (__builtin_mul_overflow(amount, (wide)pico, &product))
        return UINT64_MAX;
    wide divisor = per * PICO_PER_MICRO;
    wide rounded = product / divisor + (product % divisor >= (divisor + 1) / 2);
    return rounded > UINT64_MAX ? UINT64_MAX : (uint64_t)rounded;
}

void cost_add(struct cost *into, const struct cost *from)
{
    if (__builtin_add_overflow(into->total, from->total, &into->total))
        into->total = UINT64_MAX;
    for (int i = 0; i < PRICES; i++)
        if (__builtin_add_overflow(into->by[i], from->by[i], &into->by[i]))
            into->by[i] = UINT64_MAX;
}

struct cost usage_cost(const struct usage_period *period, const struct prices *prices)
{
    const wide second = 1000000, hour = 3600 * second;
    const struct usage_day *sum = &period->sum;
    const uint64_t served = sum->requests > sum->refused ? sum->requests - sum->refused : 0;
    const struct {
        wide amount, per;
    } used[PRICES] = {
        [PRICE_REQUEST] = {served, 1},
        [PRICE_CPU_SECOND] = {sum->cpu_us, second},
        [PRICE_AWAKE_SECOND] = {sum->awake_us, second},
        [PRICE_GIB_STORED_MONTH] = {period->byte_days, (wide)GIB * period->month_days},
        [PRICE_GIB_IN] = {sum->bytes_in, GIB},
        [PRICE_GIB_OUT] = {sum->bytes_out, GIB},
        [PRICE_PEAK_MIB_HOUR] = {period->peak_kib_us, 1024 * hour},
    };
    struct cost cost = {0};
    for (int i = 0; i < PRICES; i++) {
        cost.by[i] = priced(used[i].amount, prices->pico[i], used[i].per);
        if (__builtin_add_overflow(cost.total, cost.by[i], &cost.total))
            cost.total = UINT64_MAX;
    }
    return cost;
}
