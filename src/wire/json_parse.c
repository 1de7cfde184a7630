#include "wire/json.h"

#include "base/limits.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

/* Two passes: the first counts the commas of every array and object, so that the second, which
 * alone checks the grammar, can give each its items in one piece of the arena. Both cut the bytes
 * into strings and punctuation alike, and the second stops at the first byte where they could
 * differ. */
struct parser {
    struct span text;
    size_t at;
    struct arena *arena;
    uint32_t values, depth;
    uint32_t containers;                /* met so far, in the order of their opening bytes */
    uint16_t commas[JSON_MEMBERS_MAX];  /* of each container */
    struct fault *fault;
};

enum { NUMBER_TEXT_MAX = 128, PAIRWISE_MAX = 16 };

static_assert(JSON_MEMBERS_MAX <= UINT16_MAX, "a count of commas fits");

static status bad_at(const struct parser *parser, const char *what, size_t at)
{
    return FAIL(BAD_JSON, parser->fault, "JSON: %s at byte %zu", what, at);
}

static status bad(const struct parser *parser, const char *what)
{
    return bad_at(parser, what, parser->at);
}

static status too_many(const struct parser *parser)
{
    return FAIL(TOO_LARGE, parser->fault, "JSON: more than %d values", (int)JSON_MEMBERS_MAX);
}

static status too_deep(const struct parser *parser)
{
    return FAIL(TOO_LARGE, parser->fault, "JSON: nested deeper than %d", (int)JSON_DEPTH_MAX);
}

static status no_room(const struct parser *parser)
{
    return FAIL(TOO_LARGE, parser->fault, "JSON: does not fit the memory of one request");
}

static struct span between(struct span text, size_t from, size_t to)
{
    return (struct span){text.data + from, to - from};
}

/* The index of the closing quote, or the end of the text. Linear, however many escapes there
 * are. */
static size_t string_end(struct span text, size_t at)
{
    size_t quote = at + span_find(between(text, at, text.length), '"');
    for (;;) {
        size_t escape = at + span_find(between(text, at, quote), '\\');
        if (escape == quote)
            return quote;
        at = escape + 2;
        if (at > text.length)
            return text.length;
        if (at > quote)
            quote = at + span_find(between(text, at, text.length), '"');
    }
}

static status count_commas(struct parser *parser)
{
    struct span text = parser->text;
    uint32_t open[JSON_DEPTH_MAX], depth = 0, commas = 0;
    for (size_t at = 0; at < text.length; at++) {
        switch (text.data[at]) {
        case '"':
            at = string_end(text, at + 1);
            break;
        case '[':
        case '{':
            if (depth == JSON_DEPTH_MAX)
                return too_deep(parser);
            if (parser->containers == JSON_MEMBERS_MAX)
                return too_many(parser);
            parser->commas[parser->containers] = 0;
            open[depth++] = parser->containers++;
            break;
        case ']':
        case '}':
            if (depth == 0)
                return bad_at(parser, "a closing bracket without its opening one", at);
            depth--;
            break;
        case ',':
            if (depth == 0)
                return bad_at(parser, "a comma outside any array or object", at);
            if (++commas == JSON_MEMBERS_MAX)
                return too_many(parser);
            parser->commas[open[depth - 1]]++;
            break;
        }
    }
    parser->containers = 0;
    return OK;
}

/* The byte at hand, or -1 at the end. */
static int peek(const struct parser *parser)
{
    return parser->at < parser->text.length ? parser->text.data[parser->at] : -1;
}

static void skip_blanks(struct parser *parser)
{
    int byte = peek(parser);
    while (byte == ' ' || byte == '\n' || byte == '\r' || byte == '\t') {
        parser->at++;
        byte = peek(parser);
    }
}

static status parse_word(struct parser *parser, const char *word)
{
    struct span expected = span_of_text(word);
    struct span left = {parser->text.data + parser->at, parser->text.length - parser->at};
    if (!span_starts_with(left, expected))
        return bad(parser, "not a value");
    parser->at += expected.length;
    return OK;
}

static int hex_digit(int byte)
{
    if (byte >= '0' && byte <= '9')
        return byte - '0';
    if (byte >= 'a' && byte <= 'f')
        return byte - 'a' + 10;
    return byte >= 'A' && byte <= 'F' ? byte - 'A' + 10 : -1;
}

/* The four digits behind \u. */
static status parse_unit(struct parser *parser, uint32_t *ret)
{
    uint32_t unit = 0;
    for (int i = 0; i < 4; i++) {
        int digit = hex_digit(peek(parser));
        if (digit < 0)
            return bad(parser, "\\u without four hexadecimal digits");
        unit = unit << 4 | (uint32_t)digit;
        parser->at++;
    }
    *ret = unit;
    return OK;
}

static status parse_code_point(struct parser *parser, uint32_t *ret)
{
    uint32_t high, low;
    TRY(parse_unit(parser, &high));
    if (high < 0xD800 || high > 0xDFFF) {
        *ret = high;
        return OK;
    }
    if (high > 0xDBFF || peek(parser) != '\\')
        return bad(parser, "a lone surrogate");
    parser->at++;
    if (peek(parser) != 'u')
        return bad(parser, "a lone surrogate");
    parser->at++;
    TRY(parse_unit(parser, &low));
    if (low < 0xDC00 || low > 0xDFFF)
        return bad(parser, "a lone surrogate");
    *ret = 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
    return OK;
}

static void put_utf8(struct buffer *out, uint32_t code_point)
{
    static const uint8_t leads[] = {0, 0xC0, 0xE0, 0xF0};
    if (code_point < 0x80) {
        buffer_put_u8(out, (uint8_t)code_point);
        return;
    }
    int more = code_point < 0x800 ? 1 : code_point < 0x10000 ? 2 : 3;
    buffer_put_u8(out, (uint8_t)(leads[more] | code_point >> 6 * more));
    while (more-- > 0)
        buffer_put_u8(out, (uint8_t)(0x80 | (code_point >> 6 * more & 0x3F)));
}

/* Behind the backslash. */
static status parse_escape(struct parser *parser, struct buffer *out)
{
    uint32_t code_point;
    int byte = peek(parser);
    parser->at++;
    switch (byte) {
    case '"': case '\\': case '/': code_point = (uint32_t)byte; break;
    case 'b': code_point = '\b'; break;
    case 'f': code_point = '\f'; break;
    case 'n': code_point = '\n'; break;
    case 'r': code_point = '\r'; break;
    case 't': code_point = '\t'; break;
    case 'u': TRY(parse_code_point(parser, &code_point)); break;
    default: return bad(parser, "an unknown escape");
    }
    put_utf8(out, code_point);
    return OK;
}

static status parse_string(struct parser *parser, struct span *ret)
{
    size_t begin = ++parser->at, end = string_end(parser->text, begin);
    if (end == parser->text.length)
        return bad(parser, "a string without its closing quote");
    struct span raw = between(parser->text, begin, end);
    if (!span_is_utf8(raw) || span_has_below(raw, 0x20))
        return bad(parser, "a string that is not UTF-8 or holds a control character");
    uint8_t *decoded = arena_alloc(parser->arena, raw.length + 1); /* no escape makes it longer */
    if (!decoded)
        return no_room(parser);
    struct buffer out = buffer_over(decoded, raw.length);
    for (;;) {
        struct span left = between(parser->text, parser->at, end);
        struct span plain = {left.data, span_find(left, '\\')};
        buffer_put(&out, plain);
        parser->at += plain.length;
        if (parser->at == end)
            break;
        parser->at++;
        TRY(parse_escape(parser, &out));
    }
    assert(!out.failed);
    parser->at = end + 1;
    *ret = buffer_span(&out);
    return OK;
}

/* Moves *at behind the digits; false when there are none. */
static bool skip_digits(struct span text, size_t *at)
{
    size_t end = *at;
    while (end < text.length && text.data[end] >= '0' && text.data[end] <= '9')
        end++;
    bool any = end > *at;
    *at = end;
    return any;
}

static bool skip_byte(struct span text, size_t *at, uint8_t byte)
{
    bool there = *at < text.length && text.data[*at] == byte;
    *at += there;
    return there;
}

/* RFC 8259 section 6: its length. ret_whole: neither fraction nor exponent. */
static status scan_number(const struct parser *parser, size_t *ret, bool *ret_whole)
{
    struct span text = parser->text;
    size_t at = parser->at;
    (void)skip_byte(text, &at, '-');
    if (!skip_byte(text, &at, '0') && !skip_digits(text, &at))
        return bad_at(parser, "not a value", at);
    bool fraction = skip_byte(text, &at, '.');
    if (fraction && !skip_digits(text, &at))
        return bad_at(parser, "a number without digits behind its point", at);
    bool exponent = skip_byte(text, &at, 'e') || skip_byte(text, &at, 'E');
    if (exponent) {
        (void)(skip_byte(text, &at, '+') || skip_byte(text, &at, '-'));
        if (!skip_digits(text, &at))
            return bad_at(parser, "a number without digits in its exponent", at);
    }
    *ret = at - parser->at;
    *ret_whole = !fraction && !exponent;
    return OK;
}

static bool whole_value(int64_t *ret, struct span text)
{
    bool negative = text.data[0] == '-';
    int64_t value = 0;
    for (size_t i = negative; i < text.length; i++) {
        int digit = text.data[i] - '0';
        if (__builtin_mul_overflow(value, (int64_t)10, &value)
            || __builtin_add_overflow(value, negative ? -digit : digit, &value))
            return false;
    }
    *ret = value;
    return true;
}

/* What a number is made of: digits / 10^scale. */
struct decimal {
    uint64_t digits;
    int64_t scale;
    bool negative, exact; /* exact: digits holds all of them */
};

/* text has the grammar of a number and is shorter than NUMBER_TEXT_MAX. */
static struct decimal take_apart(struct span text)
{
    struct decimal decimal = {.negative = text.data[0] == '-', .exact = true};
    size_t at = decimal.negative;
    bool fraction = false, small;
    for (; at < text.length && text.data[at] != 'e' && text.data[at] != 'E'; at++) {
        if (text.data[at] == '.') {
            fraction = true;
            continue;
        }
        decimal.exact = decimal.exact && decimal.digits < UINT64_MAX / 10 - 1;
        decimal.digits = decimal.digits * 10 + (uint64_t)(text.data[at] - '0');
        decimal.scale += fraction;
    }
    if (at == text.length)
        return decimal;
    small = text.data[++at] == '-';
    int64_t exponent = 0;
    for (at += small || text.data[at] == '+'; at < text.length; at++)
        if (exponent < INT32_MAX) /* far beyond any double: more digits change nothing */
            exponent = exponent * 10 + (text.data[at] - '0');
    decimal.scale += small ? exponent : -exponent;
    return decimal;
}

/* The nearest double for the numbers that embeddings are made of, without the multiple precision of
 * strtod. digits / 5^scale is divided to at least 63 bits, the remainder becomes a sticky bit, and
 * so the only rounding is that of the conversion to double; 2^scale goes into the exponent, which
 * here stays far from a double's ends. False: not such a number. */
static bool quick_double(double *ret, struct span text)
{
    static const uint64_t powers_of_5[] = {
        1, 5, 25, 125, 625, 3125, 15625, 78125, 390625, 1953125, 9765625, 48828125, 244140625,
        1220703125, 6103515625, 30517578125, 152587890625, 762939453125, 3814697265625,
        19073486328125, 95367431640625, 476837158203125, 2384185791015625, 11920928955078125,
        59604644775390625, 298023223876953125, 1490116119384765625, 7450580596923828125,
    };
    const int64_t scale_max = sizeof powers_of_5 / sizeof *powers_of_5 - 1;
    struct decimal decimal = take_apart(text);
    if (!decimal.exact || !decimal.digits || decimal.scale < 0 || decimal.scale > scale_max)
        return false;
    uint64_t power = powers_of_5[decimal.scale];
    int digits_shift = __builtin_clzll(decimal.digits), power_shift = __builtin_clzll(power);
    uint64_t divisor = power << power_shift;
    unsigned __int128 dividend = (unsigned __int128)(decimal.digits << digits_shift) << 63;
    uint64_t quotient = (uint64_t)(dividend / divisor); /* 2^62 to 2^64 */
    quotient |= quotient * divisor != (uint64_t)dividend; /* is there a remainder? */
    double value = ldexp((double)quotient, power_shift - digits_shift - 63 - (int)decimal.scale);
    *ret = decimal.negative ? -value : value;
    return true;
}

static double slow_double(struct span text)
{
    char copy[NUMBER_TEXT_MAX];
    (void)span_to_text(copy, sizeof copy, text); /* it fits: the caller has looked */
    return strtod(copy, NULL); /* no process of ours leaves the C locale */
}

static status parse_number(struct parser *parser, struct json *ret)
{
    struct span text = {parser->text.data + parser->at, 0};
    bool whole;
    TRY(scan_number(parser, &text.length, &whole));
    if (text.length >= NUMBER_TEXT_MAX)
        return FAIL(TOO_LARGE, parser->fault, "JSON: a number of %zu characters at byte %zu",
                    text.length, parser->at);
    ret->kind = whole ? JSON_INTEGER : JSON_DOUBLE;
    if (whole && !whole_value(&ret->integer, text))
        return bad(parser, "a whole number beyond 64 bits");
    if (whole)
        ret->number = (double)ret->integer;
    else if (!quick_double(&ret->number, text))
        ret->number = slow_double(text);
    if (!isfinite(ret->number))
        return bad(parser, "a number beyond a double");
    parser->at += text.length;
    return OK;
}

static int by_name(const void *left, const void *right)
{
    const struct json *const *l = left, *const *r = right;
    return span_compare((*l)->name, (*r)->name);
}

/* Sorting keeps a body of thousands of names from costing millions of comparisons. */
static status check_names_sorted(const struct parser *parser, const struct json *object)
{
    const struct json **sorted = arena_array(parser->arena, object->count, sizeof *sorted);
    if (!sorted)
        return no_room(parser);
    for (uint32_t i = 0; i < object->count; i++)
        sorted[i] = &object->items[i];
    qsort(sorted, object->count, sizeof *sorted, by_name);
    for (uint32_t i = 1; i < object->count; i++)
        if (span_equal(sorted[i - 1]->name, sorted[i]->name))
            return bad(parser, "an object with the same name twice, ending");
    return OK;
}

static status check_names(const struct parser *parser, const struct json *object)
{
    if (object->count > PAIRWISE_MAX)
        return check_names_sorted(parser, object);
    for (uint32_t i = 1; i < object->count; i++)
        for (uint32_t j = 0; j < i; j++)
            if (span_equal(object->items[i].name, object->items[j].name))
                return bad(parser, "an object with the same name twice, ending");
    return OK;
}

static status parse_value(struct parser *parser, struct json *ret);

static status parse_name(struct parser *parser, struct json *ret)
{
    if (peek(parser) != '"')
        return bad(parser, "a member without a name");
    TRY(parse_string(parser, &ret->name));
    skip_blanks(parser);
    if (peek(parser) != ':')
        return bad(parser, "a name without a colon");
    parser->at++;
    skip_blanks(parser);
    return OK;
}

static status parse_items(struct parser *parser, struct json *ret, int closing, uint32_t room)
{
    ret->items = arena_array(parser->arena, room, sizeof *ret->items);
    if (!ret->items)
        return no_room(parser);
    for (;;) {
        assert(ret->count < room); /* the first pass has seen the comma before this item */
        struct json *item = &ret->items[ret->count];
        if (ret->kind == JSON_OBJECT)
            TRY(parse_name(parser, item));
        TRY(parse_value(parser, item));
        ret->count++;
        skip_blanks(parser);
        if (peek(parser) == closing)
            break;
        if (peek(parser) != ',')
            return bad(parser, "neither a comma nor the closing bracket");
        parser->at++;
        skip_blanks(parser);
    }
    return ret->kind == JSON_OBJECT ? check_names(parser, ret) : OK;
}

static status parse_container(struct parser *parser, struct json *ret, int closing)
{
    if (parser->depth == JSON_DEPTH_MAX)
        return too_deep(parser);
    parser->depth++;
    uint32_t room = parser->commas[parser->containers++] + 1u;
    parser->at++;
    skip_blanks(parser);
    ret->kind = closing == '}' ? JSON_OBJECT : JSON_ARRAY;
    if (peek(parser) != closing)
        TRY(parse_items(parser, ret, closing, room));
    parser->at++;
    parser->depth--;
    return OK;
}

/* ret is zeroed but for its name. Recursion is bounded by JSON_DEPTH_MAX. */
static status parse_value(struct parser *parser, struct json *ret)
{
    size_t begin = parser->at;
    if (++parser->values > JSON_MEMBERS_MAX)
        return too_many(parser);
    switch (peek(parser)) {
    case '{': TRY(parse_container(parser, ret, '}')); break;
    case '[': TRY(parse_container(parser, ret, ']')); break;
    case '"':
        ret->kind = JSON_STRING;
        TRY(parse_string(parser, &ret->string));
        break;
    case 't':
        ret->kind = JSON_TRUE;
        TRY(parse_word(parser, "true"));
        break;
    case 'f':
        ret->kind = JSON_FALSE;
        TRY(parse_word(parser, "false"));
        break;
    case 'n':
        ret->kind = JSON_NULL;
        TRY(parse_word(parser, "null"));
        break;
    case -1: return bad(parser, "the text ends");
    default: TRY(parse_number(parser, ret));
    }
    ret->source = (struct span){parser->text.data + begin, parser->at - begin};
    return OK;
}

status json_parse(struct json *ret, struct arena *arena, struct span text, struct fault *fault)
{
    struct parser parser = {.text = text, .arena = arena, .fault = fault};
    struct json value = {0};
    TRY(count_commas(&parser));
    skip_blanks(&parser);
    TRY(parse_value(&parser, &value));
    skip_blanks(&parser);
    if (parser.at != text.length)
        return bad(&parser, "something behind the document");
    *ret = value;
    return OK;
}
