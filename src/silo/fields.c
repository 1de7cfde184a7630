#include "silo/fields.h"

status field_metadata(struct span *ret, const struct json *body, size_t max, struct fault *fault)
{
    const struct json *metadata = json_member(body, "metadata");
    if (metadata == NULL || metadata->kind == JSON_NULL)
        return OK;
    if (metadata->kind != JSON_OBJECT)
        return FAIL(BAD_FIELD, fault, "metadata: must be an object");
    if (metadata->source.length > max)
        return FAIL(BAD_FIELD, fault, "metadata: at most %zu bytes of JSON are allowed", max);
    *ret = metadata->source;
    return OK;
}

status field_classification(enum clearance *ret, const struct span *text,
                            const struct envelope *envelope, struct fault *fault)
{
    enum clearance classification = CLEARANCE_INTERNAL;
    if (text != NULL)
        TRY(clearance_read(&classification, *text, "classification", fault));
    if (!clearance_covers(envelope->clearance, classification))
        return FAIL(FORBIDDEN_CLEARANCE, fault, "classification: %s is above the caller's "
                    "clearance %s", clearance_name(classification),
                    clearance_name(envelope->clearance));
    *ret = classification;
    return OK;
}

status field_classification_in(enum clearance *ret, const struct json *body,
                               const struct envelope *envelope, struct fault *fault)
{
    struct span text = {0};
    TRY(json_optional_text(&text, body, "classification", 1, 32, fault));
    return field_classification(ret, text.length > 0 ? &text : NULL, envelope, fault);
}

void field_bind(struct statement *statement, int parameter, struct span text)
{
    if (text.length > 0)
        statement_bind_text(statement, parameter, text);
    else
        statement_bind_null(statement, parameter);
}

void field_put(struct json_writer *writer, const char *name, struct span text)
{
    if (text.length > 0)
        json_put_string(writer, name, text);
    else
        json_put_null(writer, name);
}
