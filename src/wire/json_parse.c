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

static status bad(const struct parser *parser, const char *what)
{
    return FAIL(BAD_JSON, parser->fault, "JSON: %s at byte %zu", what, parser->at);
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

/* The index of the closing quote, or the end of the text. */
static size_t string_end(struct span text, size_t at)
{
    while (at < text.length && text.data[at] != '"')
        at += text.data[at] == '\\' ? 2 : 1;
    return at < text.length ? at : text.length;
}

static status count_commas(struct parser *parser)
{
    uint32_t open[JSON_DEPTH_MAX], depth = 0, commas = 0;
    for (parser->at = 0; parser->at < parser->text.length; parser->at++) {
        switch (parser->text.data[parser->at]) {
        case '"':
            parser->at = string_end(parser->text, parser->at + 1);
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
                return bad(parser, "a closing bracket without its opening one");
            depth--;
            break;
        case ',':
            if (depth == 0)
                return bad(parser, "a comma outside any array or object");
            if (++commas == JSON_MEMBERS_MAX)
                return too_many(parser);
            parser->commas[open[depth - 1]]++;
            break;
        }
    }
    parser->at = 0;
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

static uint8_t *put_utf8(uint8_t *out, uint32_t code_point)
{
    if (code_point < 0x80) {
        *out++ = (uint8_t)code_point;
        return out;
    }
    int more = code_point < 0x800 ? 1 : code_point < 0x10000 ? 2 : 3;
    static const uint8_t leads[] = {0, 0xC0, 0xE0, 0xF0};
    *out++ = (uint8_t)(leads[more] | code_point >> 6 * more);
    while (more-- > 0)
        *out++ = (uint8_t)(0x80 | (code_point >> 6 * more & 0x3F));
    return out;
}

/* Behind the backslash. */
static status parse_escape(struct parser *parser, uint8_t **out)
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
    *out = put_utf8(*out, code_point);
    return OK;
}

static status parse_string(struct parser *parser, struct span *ret)
{
    size_t begin = ++parser->at, end = string_end(parser->text, begin);
    if (end == parser->text.length)
        return bad(parser, "a string without its closing quote");
    struct span raw = {parser->text.data + begin, end - begin};
    if (!span_is_utf8(raw))
        return bad(parser, "a string that is not UTF-8");
    uint8_t *decoded = arena_alloc(parser->arena, raw.length + 1); /* no escape makes it longer */
    if (!decoded)
        return no_room(parser);
    uint8_t *out = decoded;
    while (parser->at < end) {
        uint8_t byte = parser->text.data[parser->at];
        if (byte < 0x20)
            return bad(parser, "a control character in a string");
        parser->at++;
        if (byte == '\\')
            TRY(parse_escape(parser, &out));
        else
            *out++ = byte;
    }
    parser->at = end + 1;
    *ret = (struct span){decoded, (size_t)(out - decoded)};
    return OK;
}

static bool skip_digits(struct parser *parser)
{
    size_t begin = parser->at;
    while (peek(parser) >= '0' && peek(parser) <= '9')
        parser->at++;
    return parser->at > begin;
}

/* RFC 8259 section 6. ret_whole: neither fraction nor exponent. */
static status scan_number(struct parser *parser, bool *ret_whole)
{
    bool whole = true;
    if (peek(parser) == '-')
        parser->at++;
    if (peek(parser) == '0')
        parser->at++;
    else if (!skip_digits(parser))
        return bad(parser, "not a value");
    if (peek(parser) == '.') {
        whole = false;
        parser->at++;
        if (!skip_digits(parser))
            return bad(parser, "a number without digits behind its point");
    }
    if (peek(parser) == 'e' || peek(parser) == 'E') {
        whole = false;
        parser->at++;
        if (peek(parser) == '+' || peek(parser) == '-')
            parser->at++;
        if (!skip_digits(parser))
            return bad(parser, "a number without digits in its exponent");
    }
    *ret_whole = whole;
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

static status parse_number(struct parser *parser, struct json *ret)
{
    size_t begin = parser->at;
    bool whole;
    TRY(scan_number(parser, &whole));
    struct span text = {parser->text.data + begin, parser->at - begin};
    char copy[NUMBER_TEXT_MAX];
    parser->at = begin; /* where a fault points to */
    if (!span_to_text(copy, sizeof copy, text))
        return FAIL(TOO_LARGE, parser->fault, "JSON: a number of %zu characters at byte %zu",
                    text.length, begin);
    if (whole && !whole_value(&ret->integer, text))
        return bad(parser, "a whole number beyond 64 bits");
    ret->kind = whole ? JSON_INTEGER : JSON_DOUBLE;
    ret->number = strtod(copy, NULL); /* no process of ours leaves the C locale */
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
