#include "wire/json.h"

enum { NAME_SHOWN_MAX = 64 }; /* bytes of a client's name in a fault */

const struct json *json_member(const struct json *object, const char *name)
{
    if (object->kind != JSON_OBJECT)
        return NULL;
    for (uint32_t i = 0; i < object->count; i++)
        if (span_is(object->items[i].name, name))
            return &object->items[i];
    return NULL;
}

/* Absent and null are alike to contracts. */
static const struct json *present(const struct json *object, const char *name)
{
    const struct json *member = json_member(object, name);
    return member && member->kind != JSON_NULL ? member : NULL;
}

status json_need_object(const struct json *value, const char *what, struct fault *fault)
{
    if (value->kind != JSON_OBJECT)
        return FAIL(BAD_FIELD, fault, "%s: must be an object", what);
    return OK;
}

static status check_text(struct span *ret, const struct json *member, const char *name, size_t min,
                         size_t max, struct fault *fault)
{
    if (member->kind != JSON_STRING)
        return FAIL(BAD_FIELD, fault, "%s: must be a string", name);
    if (member->string.length < min || member->string.length > max)
        return FAIL(BAD_FIELD, fault, "%s: must be %zu to %zu bytes of UTF-8", name, min, max);
    if (span_has_below(member->string, 1))
        return FAIL(BAD_FIELD, fault, "%s: must not hold U+0000", name);
    *ret = member->string;
    return OK;
}

status json_text(struct span *ret, const struct json *object, const char *name, size_t min,
                 size_t max, struct fault *fault)
{
    const struct json *member = present(object, name);
    if (!member)
        return FAIL(BAD_FIELD, fault, "%s: is required, a string", name);
    return check_text(ret, member, name, min, max, fault);
}

status json_optional_text(struct span *ret, const struct json *object, const char *name,
                          size_t min, size_t max, struct fault *fault)
{
    const struct json *member = present(object, name);
    return member ? check_text(ret, member, name, min, max, fault) : OK;
}

status json_optional_integer(int64_t *ret, const struct json *object, const char *name, int64_t min,
                             int64_t max, struct fault *fault)
{
    const struct json *member = present(object, name);
    if (!member)
        return OK;
    if (member->kind != JSON_INTEGER || member->integer < min || member->integer > max)
        return FAIL(BAD_FIELD, fault, "%s: must be a whole number from %lld to %lld", name,
                    (long long)min, (long long)max);
    *ret = member->integer;
    return OK;
}

status json_optional_bool(bool *ret, const struct json *object, const char *name,
                          struct fault *fault)
{
    const struct json *member = present(object, name);
    if (!member)
        return OK;
    if (member->kind != JSON_TRUE && member->kind != JSON_FALSE)
        return FAIL(BAD_FIELD, fault, "%s: must be true or false", name);
    *ret = member->kind == JSON_TRUE;
    return OK;
}

static bool is_listed(struct span name, const char *const *names)
{
    for (; *names; names++)
        if (span_is(name, *names))
            return true;
    return false;
}

status json_only(const struct json *object, const char *const *names, struct fault *fault)
{
    if (object->kind != JSON_OBJECT)
        return FAIL(BAD_FIELD, fault, "must be an object");
    for (uint32_t i = 0; i < object->count; i++) {
        struct span name = object->items[i].name;
        if (is_listed(name, names))
            continue;
        if (name.length > NAME_SHOWN_MAX)
            name.length = NAME_SHOWN_MAX;
        return FAIL(BAD_FIELD, fault, "%.*s: is not a member of this object", SPAN_ARG(name));
    }
    return OK;
}
