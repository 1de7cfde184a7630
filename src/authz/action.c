#include "authz/action.h"

#include "base/buffer.h"
#include "base/stats.h"

#include <assert.h>

enum { SEGMENTS_MAX = 8 };

struct segments {
    struct span path;
    struct span items[SEGMENTS_MAX]; /* the first of them */
    uint32_t count;                  /* of all: those beyond are only {name...}'s to take */
};

const char *const *action_query_names(const struct action *action)
{
    static const char *const none[] = {NULL};
    return action->query ? action->query : none;
}

uint32_t action_count(const struct action_table *table)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < table->count; i++)
        count += table->sets[i].count;
    return count;
}

const struct action *action_numbered(const struct action_table *table, uint32_t number)
{
    for (uint32_t i = 0; i < table->count && number > 0; i++) {
        if (number <= table->sets[i].count)
            return &table->sets[i].rows[number - 1];
        number -= table->sets[i].count;
    }
    return NULL;
}

/* "/a/b" is a, b. False for what is no absolute path in its normal form. */
static bool split(struct segments *ret, struct span path)
{
    size_t at = 0;
    *ret = (struct segments){.path = path};
    while (at < path.length) {
        if (path.data[at] != '/')
            return false;
        size_t from = ++at;
        while (at < path.length && path.data[at] != '/')
            at++;
        struct span segment = {path.data + from, at - from};
        if (segment.length == 0 || span_is(segment, ".") || span_is(segment, ".."))
            return false;
        if (ret->count < SEGMENTS_MAX)
            ret->items[ret->count] = segment;
        ret->count++;
    }
    return ret->count > 0;
}

static bool is_placeholder(struct span segment)
{
    return segment.length > 2 && segment.data[0] == '{'
        && segment.data[segment.length - 1] == '}';
}

/* {name...}: the last of a pattern. */
static bool takes_the_rest(struct span segment)
{
    static const struct span dots = {(const uint8_t *)"...}", 4};
    return is_placeholder(segment) && segment.length > dots.length + 1
        && span_equal((struct span){segment.data + segment.length - dots.length, dots.length},
                      dots);
}

/* What the path has from that segment on. */
static struct span rest_from(const struct segments *path, uint32_t segment)
{
    const uint8_t *from = path->items[segment].data, *end = path->path.data + path->path.length;
    return (struct span){from, (size_t)(end - from)};
}

static bool is_text(struct span bytes, size_t max)
{
    return bytes.length <= max && span_is_plain_text(bytes);
}

/* The next segment of a row's pattern, which is a constant of ours; empty at its end. */
static struct span next_segment(const char **pattern)
{
    const char *from = *pattern + (**pattern == '/'), *to = from;
    while (*to && *to != '/')
        to++;
    *pattern = to;
    return (struct span){(const uint8_t *)from, (size_t)(to - from)};
}

/* How close a pattern is to a path. */
struct fit {
    uint32_t literals; /* one bit a literal segment, the first the highest, so that the pattern that
                          is literal earlier is the greater number */
    bool whole;        /* every segment of the path has its own in the pattern */
};

static bool is_closer(struct fit one, struct fit other)
{
    return one.literals != other.literals ? one.literals > other.literals
                                          : one.whole && !other.whole;
}

static bool fits(struct fit *ret, const char *pattern, const struct segments *path)
{
    struct fit fit = {.whole = true};
    for (uint32_t i = 0; i < path->count && i < SEGMENTS_MAX; i++) {
        struct span wanted = next_segment(&pattern);
        if (takes_the_rest(wanted)) {
            fit.whole = false;
            *ret = fit;
            return is_text(rest_from(path, i), OBJECT_KEY_MAX);
        }
        bool placeholder = is_placeholder(wanted);
        if (placeholder ? !is_text(path->items[i], ACTION_ID_MAX)
                        : !span_equal(wanted, path->items[i]))
            return false;
        fit.literals |= placeholder ? 0 : UINT32_C(1) << (SEGMENTS_MAX - 1 - i);
    }
    *ret = fit;
    return *pattern == '\0' && path->count <= SEGMENTS_MAX;
}

static void take_ids(struct route *route, const struct segments *path)
{
    const char *pattern = route->action->path;
    for (uint32_t i = 0; i < SEGMENTS_MAX && *pattern; i++) {
        struct span wanted = next_segment(&pattern);
        if (!is_placeholder(wanted))
            continue;
        assert(route->id_count < ACTION_IDS_MAX);
        route->ids[route->id_count++] =
            takes_the_rest(wanted) ? rest_from(path, i) : path->items[i];
    }
}

static bool answers_head(const struct action *action)
{
    return span_is(span_of_text(action->method), "GET");
}

static bool serves(const struct action *action, struct span method)
{
    return span_is(method, action->method) || (span_is(method, "HEAD") && answers_head(action));
}

static void put_methods(struct buffer *methods, const struct action *action)
{
    buffer_printf(methods, "%s%s%s", methods->length ? ", " : "", action->method,
                  answers_head(action) ? ", HEAD" : "");
}

status authz_route(struct route *ret, char allow[ACTION_ALLOW_MAX],
                   const struct action_table *table, struct span method, struct span path,
                   struct fault *fault)
{
    struct segments segments;
    struct route route = {0};
    struct buffer methods = buffer_over((uint8_t *)allow, ACTION_ALLOW_MAX - 1);
    struct fit best = {0};
    uint32_t number = 0;
    bool known = split(&segments, path), exists = false;
    allow[0] = '\0';
    for (uint32_t set = 0; known && set < table->count; set++) {
        for (uint32_t row = 0; row < table->sets[set].count; row++) {
            const struct action *action = &table->sets[set].rows[row];
            struct fit fit;
            number++;
            if (!fits(&fit, action->path, &segments) || (exists && is_closer(best, fit)))
                continue;
            if (!exists || is_closer(fit, best)) { /* a path closer to what was asked */
                buffer_clear(&methods);
                route = (struct route){0};
                best = fit;
                exists = true;
            }
            put_methods(&methods, action);
            if (serves(action, method))
                route = (struct route){
                    .action = action, .set = set, .row = row, .number = number};
        }
    }
    allow[exists && !route.action && !methods.failed ? methods.length : 0] = '\0';
    if (!exists)
        return FAIL(NOT_FOUND, fault, "there is nothing at this path");
    if (!route.action)
        return FAIL(METHOD_NOT_ALLOWED, fault, "this path allows %s", allow);
    take_ids(&route, &segments);
    *ret = route;
    return OK;
}

static bool is_method(const char *method)
{
    static const char *const known[] = {"GET", "POST", "PUT", "PATCH", "DELETE", NULL};
    for (size_t i = 0; known[i]; i++)
        if (span_is(span_of_text(method), known[i]))
            return true;
    return false;
}

static const char *path_defect(const char *path)
{
    struct segments segments;
    uint32_t ids = 0;
    if (!split(&segments, span_of_text(path)) || segments.count > SEGMENTS_MAX)
        return "its path is not in normal form";
    for (uint32_t i = 0; i < segments.count; i++) {
        if (!span_is_plain_text(segments.items[i]))
            return "its path is no text";
        if (takes_the_rest(segments.items[i]) && i + 1 < segments.count)
            return "its path goes on behind the rest";
        ids += is_placeholder(segments.items[i]);
    }
    return ids > ACTION_IDS_MAX ? "its path has too many placeholders" : NULL;
}

/* What is held whole is small; what streams is as long as an object. */
static uint64_t body_limit(const struct action *action)
{
    if (action->streams & ACTION_STREAMS_IN)
        return OBJECT_BYTES_MAX;
    return DOCUMENT_BODY_MAX > HTTP_BODY_MAX ? DOCUMENT_BODY_MAX : HTTP_BODY_MAX;
}

static const char *row_defect(const struct action *action)
{
    if (!action->name || !action->method || !action->path || !action->resource)
        return "a column is empty";
    if (!is_method(action->method))
        return "its method is unknown";
    if ((unsigned)action->scope >= SCOPE_COUNT)
        return "its scope is unknown";
    if ((action->body == ACTION_BODY_NONE) != (action->body_max == 0)
        || action->body_max > body_limit(action))
        return "its body has no bound";
    struct span method = span_of_text(action->method);
    if ((span_is(method, "GET") || span_is(method, "HEAD"))
        && (action->mutates || action->body != ACTION_BODY_NONE))
        return "a safe method with an effect or a body";
    return path_defect(action->path);
}

static bool same_shape(const char *left, const char *right)
{
    struct segments one, other;
    if (!split(&one, span_of_text(left)) || !split(&other, span_of_text(right))
        || one.count != other.count)
        return false;
    for (uint32_t i = 0; i < one.count; i++)
        if (!(is_placeholder(one.items[i]) && is_placeholder(other.items[i])
              && takes_the_rest(one.items[i]) == takes_the_rest(other.items[i]))
            && !span_equal(one.items[i], other.items[i]))
            return false;
    return true;
}

static const char *pair_defect(const struct action *action, const struct action *earlier)
{
    if (span_is(span_of_text(action->name), earlier->name))
        return "its name is taken";
    if (span_is(span_of_text(action->method), earlier->method)
        && same_shape(action->path, earlier->path))
        return "its method and path are taken";
    return NULL;
}

status action_table_check(const struct action_table *table, struct fault *fault)
{
    uint32_t count = action_count(table);
    if (count >= STATS_ACTIONS_MAX)
        return FAIL(INTERNAL, fault, "actions: more rows than counters for them");
    for (uint32_t i = 1; i <= count; i++) {
        const struct action *action = action_numbered(table, i);
        const char *defect = row_defect(action);
        for (uint32_t j = 1; !defect && j < i; j++)
            defect = pair_defect(action, action_numbered(table, j));
        if (defect)
            return FAIL(INTERNAL, fault, "action %u (%s): %s", i,
                        action->name ? action->name : "unnamed", defect);
    }
    return OK;
}
