#include "silo/filter.h"

#include "base/limits.h"

enum operator {
    OPERATOR_EQ, OPERATOR_NE, OPERATOR_IN, OPERATOR_NIN, OPERATOR_GT, OPERATOR_GTE, OPERATOR_LT,
    OPERATOR_LTE, OPERATOR_EXISTS, OPERATORS,
    OPERATOR_AND, OPERATOR_OR, OPERATOR_NOT, /* of filters, not of a value */
};

struct filter {
    struct filter *next;  /* of the same list */
    enum operator operator;
    struct filter *inner; /* of AND, OR, NOT: a list */
    struct span path;
    const struct json *operand;
};

static const char *const operators[OPERATORS] = {
    [OPERATOR_EQ] = "$eq", [OPERATOR_NE] = "$ne", [OPERATOR_IN] = "$in", [OPERATOR_NIN] = "$nin",
    [OPERATOR_GT] = "$gt", [OPERATOR_GTE] = "$gte", [OPERATOR_LT] = "$lt",
    [OPERATOR_LTE] = "$lte", [OPERATOR_EXISTS] = "$exists",
};

struct reader {
    struct arena *arena;
    uint32_t nodes;
    struct fault *fault;
};

/* ---- reading ---- */

static bool is_value(const struct json *value)
{
    return value->kind != JSON_ARRAY && value->kind != JSON_OBJECT;
}

static status node(struct filter **ret, struct reader *reader, enum operator operator)
{
    if (reader->nodes++ == FILTER_NODES_MAX)
        return FAIL(BAD_FIELD, reader->fault, "filter: at most %d conditions are allowed",
                    (int)FILTER_NODES_MAX);
    struct filter *filter = arena_alloc(reader->arena, sizeof *filter);
    if (filter == NULL)
        return FAIL(TOO_LARGE, reader->fault, "filter: does not fit the memory of one request");
    filter->operator = operator;
    *ret = filter;
    return OK;
}

static status check_operand(const struct reader *reader, enum operator operator,
                            const struct json *operand)
{
    switch (operator) {
    case OPERATOR_IN:
    case OPERATOR_NIN:
        for (uint32_t i = 0; operand->kind == JSON_ARRAY && i < operand->count; i++)
            if (!is_value(&operand->items[i]))
                return FAIL(BAD_FIELD, reader->fault, "filter: %s must be an array of strings, "
                            "numbers, booleans or null", operators[operator]);
        if (operand->kind != JSON_ARRAY)
            return FAIL(BAD_FIELD, reader->fault, "filter: %s must be an array",
                        operators[operator]);
        return OK;
    case OPERATOR_EXISTS:
        if (operand->kind != JSON_TRUE && operand->kind != JSON_FALSE)
            return FAIL(BAD_FIELD, reader->fault, "filter: $exists must be true or false");
        return OK;
    case OPERATOR_EQ:
    case OPERATOR_NE:
        if (!is_value(operand))
            return FAIL(BAD_FIELD, reader->fault, "filter: a value must be a string, a number, "
                        "a boolean or null; of several: $in");
        return OK;
    default:
        if (operand->kind != JSON_STRING && operand->kind != JSON_INTEGER &&
            operand->kind != JSON_DOUBLE)
            return FAIL(BAD_FIELD, reader->fault, "filter: %s must be a number or a string",
                        operators[operator]);
        return OK;
    }
}

static status read_operator(enum operator *ret, const struct reader *reader, struct span name)
{
    for (int i = 0; i < OPERATORS; i++) {
        if (span_is(name, operators[i])) {
            *ret = (enum operator)i;
            return OK;
        }
    }
    return FAIL(BAD_FIELD, reader->fault, "filter: a member is a value, or an object of $eq, $ne, "
                "$in, $nin, $gt, $gte, $lt, $lte, $exists");
}

static status add_condition(struct filter **list, struct reader *reader, struct span path,
                            enum operator operator, const struct json *operand)
{
    struct filter *filter;
    TRY(check_operand(reader, operator, operand));
    TRY(node(&filter, reader, operator));
    filter->path = path;
    filter->operand = operand;
    filter->next = *list;
    *list = filter;
    return OK;
}

static status read_member(struct filter **list, struct reader *reader, const struct json *member)
{
    if (member->name.length > 0 && member->name.data[0] == '$')
        return FAIL(BAD_FIELD, reader->fault, "filter: of all operators only $and, $or and $not "
                    "stand where a member does");
    if (member->kind != JSON_OBJECT)
        return add_condition(list, reader, member->name, OPERATOR_EQ, member);
    if (member->count == 0)
        return FAIL(BAD_FIELD, reader->fault, "filter: an object of operators must not be empty");
    for (uint32_t i = 0; i < member->count; i++) {
        enum operator operator;
        TRY(read_operator(&operator, reader, member->items[i].name));
        TRY(add_condition(list, reader, member->name, operator, &member->items[i]));
    }
    return OK;
}

static status read_object(struct filter **list, struct reader *reader, const struct json *object,
                          uint32_t depth);

/* $and and $or: each element becomes an AND of its own members. */
static status read_array(struct filter **list, struct reader *reader, const struct json *array,
                         uint32_t depth)
{
    if (array->kind != JSON_ARRAY || array->count == 0)
        return FAIL(BAD_FIELD, reader->fault,
                    "filter: $and and $or must be arrays of filters, not empty");
    for (uint32_t i = 0; i < array->count; i++) {
        struct filter *element;
        TRY(node(&element, reader, OPERATOR_AND));
        TRY(read_object(&element->inner, reader, &array->items[i], depth));
        element->next = *list;
        *list = element;
    }
    return OK;
}

static status read_object(struct filter **list, struct reader *reader, const struct json *object,
                          uint32_t depth)
{
    if (object->kind != JSON_OBJECT)
        return FAIL(BAD_FIELD, reader->fault, "filter: must be an object of metadata members");
    if (depth == FILTER_DEPTH_MAX)
        return FAIL(BAD_FIELD, reader->fault, "filter: nested deeper than %d",
                    (int)FILTER_DEPTH_MAX);
    for (uint32_t i = 0; i < object->count; i++) {
        const struct json *member = &object->items[i];
        bool is_and = span_is(member->name, "$and"), is_or = span_is(member->name, "$or");
        if (!is_and && !is_or && !span_is(member->name, "$not")) {
            TRY(read_member(list, reader, member));
            continue;
        }
        struct filter *group;
        TRY(node(&group, reader, is_and ? OPERATOR_AND : is_or ? OPERATOR_OR : OPERATOR_NOT));
        if (is_and || is_or)
            TRY(read_array(&group->inner, reader, member, depth + 1));
        else
            TRY(read_object(&group->inner, reader, member, depth + 1));
        group->next = *list;
        *list = group;
    }
    return OK;
}

status filter_read(const struct filter **ret, struct arena *arena, const struct json *value,
                   struct fault *fault)
{
    struct reader reader = {arena, 0, fault};
    struct filter *all;
    if (value == NULL || value->kind == JSON_NULL) {
        *ret = NULL;
        return OK;
    }
    TRY(node(&all, &reader, OPERATOR_AND));
    reader.nodes = 0; /* the outermost is nobody's condition */
    TRY(read_object(&all->inner, &reader, value, 0));
    *ret = all->inner != NULL ? all : NULL;
    return OK;
}

/* ---- passing ---- */

static bool is_number(const struct json *value)
{
    return value->kind == JSON_INTEGER || value->kind == JSON_DOUBLE;
}

/* False: of different kinds, or of kinds without an order. */
static bool compare(int *ret, const struct json *left, const struct json *right)
{
    if (left->kind == JSON_INTEGER && right->kind == JSON_INTEGER)
        *ret = (left->integer > right->integer) - (left->integer < right->integer);
    else if (is_number(left) && is_number(right))
        *ret = (left->number > right->number) - (left->number < right->number);
    else if (left->kind == JSON_STRING && right->kind == JSON_STRING)
        *ret = span_compare(left->string, right->string);
    else
        return false;
    return true;
}

static bool is_equal(const struct json *left, const struct json *right)
{
    int order;
    if (is_value(left) && left->kind == right->kind && !is_number(left) &&
        left->kind != JSON_STRING)
        return true;
    return compare(&order, left, right) && order == 0;
}

static bool is_in(const struct json *value, const struct json *list)
{
    for (uint32_t i = 0; i < list->count; i++)
        if (is_equal(value, &list->items[i]))
            return true;
    return false;
}

static bool value_holds(const struct filter *filter, const struct json *value)
{
    int order;
    switch (filter->operator) {
    case OPERATOR_EXISTS:
        return true;
    case OPERATOR_EQ:
    case OPERATOR_NE:
        return is_equal(value, filter->operand);
    case OPERATOR_IN:
    case OPERATOR_NIN:
        return is_in(value, filter->operand);
    default:
        break;
    }
    if (!compare(&order, value, filter->operand))
        return false;
    switch (filter->operator) {
    case OPERATOR_GT: return order > 0;
    case OPERATOR_GTE: return order >= 0;
    case OPERATOR_LT: return order < 0;
    default: return order <= 0;
    }
}

static const struct json *member_named(const struct json *object, struct span name)
{
    if (object->kind != JSON_OBJECT)
        return NULL;
    for (uint32_t i = 0; i < object->count; i++)
        if (span_equal(object->items[i].name, name))
            return &object->items[i];
    return NULL;
}

/* Whether one of the values that the path leads to holds. As deep as metadata is. */
static bool any_holds(const struct filter *filter, const struct json *value, struct span path)
{
    if (value->kind == JSON_ARRAY) {
        if (filter->operator == OPERATOR_EXISTS && path.length == 0)
            return true;
        for (uint32_t i = 0; i < value->count; i++)
            if (any_holds(filter, &value->items[i], path))
                return true;
        return false;
    }
    if (path.length == 0)
        return value_holds(filter, value);
    const struct json *whole = member_named(value, path);
    if (whole != NULL) /* a name with a dot in it */
        return any_holds(filter, whole, (struct span){path.data, 0});
    size_t dot = span_find(path, '.');
    if (dot == path.length)
        return false;
    const struct json *member = member_named(value, (struct span){path.data, dot});
    struct span rest = {path.data + dot + 1, path.length - dot - 1};
    return member != NULL && rest.length > 0 && any_holds(filter, member, rest);
}

static bool holds(const struct filter *filter, const struct json *metadata)
{
    bool any = false;
    switch (filter->operator) {
    case OPERATOR_AND:
    case OPERATOR_NOT:
        for (const struct filter *inner = filter->inner; inner != NULL; inner = inner->next)
            if (!holds(inner, metadata))
                return filter->operator == OPERATOR_NOT;
        return filter->operator == OPERATOR_AND;
    case OPERATOR_OR:
        for (const struct filter *inner = filter->inner; inner != NULL; inner = inner->next)
            if (holds(inner, metadata))
                return true;
        return false;
    default:
        break;
    }
    const struct json *whole = member_named(metadata, filter->path);
    if (whole != NULL)
        any = any_holds(filter, whole, (struct span){filter->path.data, 0});
    else if (filter->path.length > 0)
        any = any_holds(filter, metadata, filter->path);
    if (filter->operator == OPERATOR_EXISTS)
        return any == (filter->operand->kind == JSON_TRUE);
    return any != (filter->operator == OPERATOR_NE || filter->operator == OPERATOR_NIN);
}

bool filter_passes(const struct filter *filter, const struct json *metadata)
{
    return filter == NULL || holds(filter, metadata);
}

bool filter_passes_text(const struct filter *filter, struct arena *scratch, struct span metadata)
{
    struct json value = {.kind = JSON_OBJECT};
    struct fault none;
    if (filter == NULL)
        return true;
    arena_reset(scratch);
    if (metadata.length > 0 && json_parse(&value, scratch, metadata, &none) != OK)
        return false;
    return filter_passes(filter, &value);
}
