#include "authz/action.h"

#include "base/buffer.h"
#include "base/stats.h"

#include <assert.h>

enum { SEGMENTS_MAX = 8 };

struct segments {
    struct span items[SEGMENTS_MAX];
    uint32_t count;
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
    *ret = (struct segments){0};
    while (at < path.length) {
        if (path.data[at] != '/' || ret->count == SEGMENTS_MAX)
            return false;
        size_t from = ++at;
        while (at < path.length && path.data[at] != '/')
            at++;
        struct span segment = {path.data + from, at - from};
        if (segment.length == 0 || span_is(segment, ".") || span_is(segment, ".."))
            return false;
        ret->items[ret->count++] = segment;
    }
    return ret->count > 0;
}

static bool is_placeholder(struct span segment)
{
    return segment.length > 2 && segment.data[0] == '{'
        && segment.data[segment.length - 1] == '}';
}

static bool is_id(struct span segment)
{
    return segment.length <= ACTION_ID_MAX && span_is_plain_text(segment);
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

/* ret_literals: one bit a literal segment, the first the highest, so that the pattern that is
 * literal earlier is the greater number. */
static bool fits(uint32_t *ret_literals, const char *pattern, const struct segments *path)
{
    uint32_t literals = 0;
    for (uint32_t i = 0; i < path->count; i++) {
        struct span wanted = next_segment(&pattern);
        bool placeholder = is_placeholder(wanted);
        if (placeholder ? !is_id(path->items[i]) : !span_equal(wanted, path->items[i]))
            return false;
        literals |= placeholder ? 0 : UINT32_C(1) << (SEGMENTS_MAX - 1 - i);
    }
    *ret_literals = literals;
    return *pattern == '\0';
}

static void take_ids(struct route *route, const struct segments *path, uint32_t literals)
{
    for (uint32_t i = 0; i < path->count; i++) {
        if (literals & UINT32_C(1) << (SEGMENTS_MAX - 1 - i))
            continue;
        assert(route->id_count < ACTION_IDS_MAX);
        route->ids[route->id_count++] = path->items[i];
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
    uint32_t best = 0, number = 0;
    bool known = split(&segments, path), exists = false;
    allow[0] = '\0';
    for (uint32_t set = 0; known && set < table->count; set++) {
        for (uint32_t row = 0; row < table->sets[set].count; row++) {
            const struct action *action = &table->sets[set].rows[row];
            uint32_t literals;
            number++;
            if (!fits(&literals, action->path, &segments) || (exists && literals < best))
                continue;
            if (!exists || literals > best) { /* a path closer to what was asked */
                buffer_clear(&methods);
                route = (struct route){0};
                best = literals;
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
    take_ids(&route, &segments, best);
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
    if (!split(&segments, span_of_text(path)))
        return "its path is not in normal form";
    for (uint32_t i = 0; i < segments.count; i++) {
        if (!span_is_plain_text(segments.items[i]))
            return "its path is no text";
        ids += is_placeholder(segments.items[i]);
    }
    return ids > ACTION_IDS_MAX ? "its path has too many placeholders" : NULL;
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
        || action->body_max > HTTP_BODY_MAX)
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
        if (!(is_placeholder(one.items[i]) && is_placeholder(other.items[i]))
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
