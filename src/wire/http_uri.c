#include "wire/http.h"

#include "wire/http_bytes.h"

enum { NAME_SHOWN_MAX = 64 }; /* bytes of a client's name in a fault */

/* How one part of a target is spelled. */
struct spelling {
    bool plus_is_blank;
    const char *what;
};

static const struct spelling path_spelling = {false, "path"};
static const struct spelling query_spelling = {true, "query"};

/* The byte at *at, unescaped, or -1; moves *at behind it. */
static int decode_byte(struct span raw, size_t *at, const struct spelling *spelling)
{
    uint8_t byte = raw.data[(*at)++];
    if (byte == '+' && spelling->plus_is_blank)
        return ' ';
    if (byte != '%')
        return http_is_query_byte(byte) ? byte : -1;
    if (raw.length - *at < 2)
        return -1;
    int high = http_hex_digit(raw.data[*at]), low = http_hex_digit(raw.data[*at + 1]);
    *at += 2;
    int decoded = high * 16 + low;
    bool is_slash = decoded == '/' && !spelling->plus_is_blank; /* would cut a segment in two */
    return high < 0 || low < 0 || is_slash ? -1 : decoded;
}

static status decode(struct span *ret, struct arena *arena, struct span raw,
                     const struct spelling *spelling, struct fault *fault)
{
    uint8_t *decoded = arena_alloc(arena, raw.length + 1); /* never longer than it was escaped */
    if (!decoded)
        return FAIL(TOO_LARGE, fault, "HTTP: the %s does not fit the memory of one request",
                    spelling->what);
    size_t at = 0, length = 0;
    while (at < raw.length) {
        int byte = decode_byte(raw, &at, spelling);
        if (byte < 0)
            return FAIL(BAD_REQUEST, fault, "HTTP: the %s is not properly percent-encoded",
                        spelling->what);
        decoded[length++] = (uint8_t)byte;
    }
    struct span text = {decoded, length};
    if (!span_is_plain_text(text))
        return FAIL(BAD_REQUEST, fault, "HTTP: the %s must be UTF-8 without control characters",
                    spelling->what);
    *ret = text;
    return OK;
}

/* What comes before the next separator, and whether there is one. */
static bool next_part(struct span *ret, struct span *rest, uint8_t separator)
{
    size_t length = span_find(*rest, separator);
    bool more = length < rest->length;
    *ret = (struct span){rest->data, length};
    *rest = (struct span){rest->data + length + more, rest->length - length - more};
    return more;
}

static bool is_normal_path(struct span path)
{
    struct span segment, rest = {path.data + 1, path.length - 1};
    bool more = true;
    while (more) {
        more = next_part(&segment, &rest, '/');
        if (span_is(segment, ".") || span_is(segment, "..") || (more && segment.length == 0))
            return false;
        for (size_t i = 0; i < segment.length; i++)
            if (segment.data[i] == '\\') /* a separator to some */
                return false;
    }
    return true;
}

status http_decode_path(struct span *ret, struct arena *arena, struct span raw,
                        struct fault *fault)
{
    if (raw.length == 0 || raw.data[0] != '/')
        return FAIL(BAD_REQUEST, fault, "HTTP: the path must begin with '/'");
    struct span path;
    for (size_t i = 0; i < raw.length; i++)
        if (!http_is_path_byte(raw.data[i]))
            return FAIL(BAD_REQUEST, fault, "HTTP: a byte in the path that must be escaped");
    TRY(decode(&path, arena, raw, &path_spelling, fault));
    if (!is_normal_path(path))
        return FAIL(BAD_REQUEST, fault,
                    "HTTP: a path with an empty, '.' or '..' segment or a backslash");
    *ret = path;
    return OK;
}

static bool has_pair(const struct http_query *query, struct span name)
{
    for (uint32_t i = 0; i < query->count; i++)
        if (span_equal(query->pairs[i].name, name))
            return true;
    return false;
}

static status parse_pair(struct http_query *query, struct arena *arena, struct span raw,
                         struct fault *fault)
{
    struct span name, value = raw;
    struct http_query_pair pair;
    if (!next_part(&name, &value, '=') || name.length == 0)
        return FAIL(BAD_REQUEST, fault, "HTTP: the query must be name=value pairs between '&'");
    if (query->count == HTTP_QUERY_PAIRS_MAX)
        return FAIL(BAD_REQUEST, fault, "HTTP: more than %d pairs in the query",
                    (int)HTTP_QUERY_PAIRS_MAX);
    TRY(decode(&pair.name, arena, name, &query_spelling, fault));
    TRY(decode(&pair.value, arena, value, &query_spelling, fault));
    if (has_pair(query, pair.name))
        return FAIL(BAD_REQUEST, fault, "HTTP: a name twice in the query");
    query->pairs[query->count++] = pair;
    return OK;
}

status http_query_parse(struct http_query *ret, struct arena *arena, struct span raw,
                        struct fault *fault)
{
    struct http_query query = {0};
    struct span pair, rest = raw;
    bool more = raw.length > 0;
    while (more) {
        more = next_part(&pair, &rest, '&');
        TRY(parse_pair(&query, arena, pair, fault));
    }
    *ret = query;
    return OK;
}

const struct span *http_query_get(const struct http_query *query, const char *name)
{
    for (uint32_t i = 0; i < query->count; i++)
        if (span_is(query->pairs[i].name, name))
            return &query->pairs[i].value;
    return NULL;
}

static bool is_listed(struct span name, const char *const *names)
{
    for (; *names; names++)
        if (span_is(name, *names))
            return true;
    return false;
}

status http_query_only(const struct http_query *query, const char *const *names,
                       struct fault *fault)
{
    for (uint32_t i = 0; i < query->count; i++) {
        struct span name = query->pairs[i].name;
        if (is_listed(name, names))
            continue;
        if (name.length > NAME_SHOWN_MAX)
            name.length = NAME_SHOWN_MAX;
        return FAIL(BAD_FIELD, fault, "%.*s: is not a parameter here", SPAN_ARG(name));
    }
    return OK;
}
