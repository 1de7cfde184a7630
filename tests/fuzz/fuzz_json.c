/* Against a second opinion: what our reader accepts, jansson accepts with the same value, and what
 * our writer makes of it is that value again. What jansson accepts and ours does not is over one
 * of our limits, which is looked up in jansson's tree. */
#include "fuzz.h"

#include "base/limits.h"

/* jansson's kinds have the same names as ours: in this file ours are called OUR_. */
#define JSON_NULL OUR_NULL
#define JSON_FALSE OUR_FALSE
#define JSON_TRUE OUR_TRUE
#define JSON_INTEGER OUR_INTEGER
#define JSON_DOUBLE OUR_DOUBLE
#define JSON_STRING OUR_STRING
#define JSON_ARRAY OUR_ARRAY
#define JSON_OBJECT OUR_OBJECT
#include "wire/json.h"
#undef JSON_NULL
#undef JSON_FALSE
#undef JSON_TRUE
#undef JSON_INTEGER
#undef JSON_DOUBLE
#undef JSON_STRING
#undef JSON_ARRAY
#undef JSON_OBJECT

#include <jansson.h>

enum { NUMBER_TEXT_MAX = 128 };

static bool has_nul(struct span text)
{
    for (size_t i = 0; i < text.length; i++)
        if (text.data[i] == 0)
            return true;
    return false;
}

/* jansson cannot hold U+0000 in a name; RFC 8259 allows it. */
static bool has_nul_name(const struct json *value)
{
    for (uint32_t i = 0; i < value->count; i++) {
        struct span name = value->items[i].name;
        if (has_nul(name) || has_nul_name(&value->items[i]))
            return true;
    }
    return false;
}

static void check_same(const struct json *ours, const json_t *theirs)
{
    switch (ours->kind) {
    case OUR_NULL: CHECK(json_is_null(theirs)); break;
    case OUR_FALSE: CHECK(json_is_false(theirs)); break;
    case OUR_TRUE: CHECK(json_is_true(theirs)); break;
    case OUR_INTEGER:
        CHECK(json_is_integer(theirs) && json_integer_value(theirs) == ours->integer);
        break;
    case OUR_DOUBLE:
        CHECK(json_is_real(theirs) && json_real_value(theirs) == ours->number);
        break;
    case OUR_STRING:
        CHECK(json_is_string(theirs));
        CHECK(span_equal(ours->string, (struct span){(const uint8_t *)json_string_value(theirs),
                                                     json_string_length(theirs)}));
        break;
    case OUR_ARRAY:
        CHECK(json_is_array(theirs) && json_array_size(theirs) == ours->count);
        for (uint32_t i = 0; i < ours->count; i++)
            check_same(&ours->items[i], json_array_get(theirs, i));
        break;
    case OUR_OBJECT:
        CHECK(json_is_object(theirs) && json_object_size(theirs) == ours->count);
        for (uint32_t i = 0; i < ours->count; i++) {
            struct span name = ours->items[i].name;
            check_same(&ours->items[i],
                       json_object_getn(theirs, (const char *)name.data, name.length));
        }
    }
}

/* Names here are the client's, so they go through the writer as strings and a colon. */
static void write_value(struct json_writer *writer, const struct json *value)
{
    switch (value->kind) {
    case OUR_NULL: json_put_null(writer, NULL); return;
    case OUR_FALSE: json_put_bool(writer, NULL, false); return;
    case OUR_TRUE: json_put_bool(writer, NULL, true); return;
    case OUR_INTEGER: json_put_integer(writer, NULL, value->integer); return;
    case OUR_DOUBLE: json_put_double(writer, NULL, value->number); return;
    case OUR_STRING: json_put_string(writer, NULL, value->string); return;
    case OUR_ARRAY: json_open_array(writer, NULL); break;
    case OUR_OBJECT: json_open_object(writer, NULL); break;
    }
    for (uint32_t i = 0; i < value->count; i++) {
        if (value->kind == OUR_OBJECT) {
            json_put_string(writer, NULL, value->items[i].name);
            buffer_put_u8(writer->out, ':');
            writer->comma = false;
        }
        write_value(writer, &value->items[i]);
    }
    if (value->kind == OUR_ARRAY)
        json_close_array(writer);
    else
        json_close_object(writer);
}

static void check_written_anew(const struct json *ours, const json_t *theirs)
{
    struct buffer text = buffer_of(MIB(1));
    struct json_writer writer = json_writer_on(&text);
    write_value(&writer, ours);
    CHECK(!text.failed);
    json_t *again = json_loadb((const char *)text.data, text.length,
                               JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    CHECK(again && json_equal(again, (json_t *)theirs));
    json_decref(again);
    buffer_free(&text);
}

/* Values in the tree; *ret_depth: of arrays and objects in each other. */
static size_t count_values(json_t *value, size_t depth, size_t *ret_depth)
{
    size_t count = 1, i;
    const char *name;
    json_t *item;
    if (json_is_array(value) || json_is_object(value))
        depth++;
    if (depth > *ret_depth)
        *ret_depth = depth;
    json_array_foreach(value, i, item)
        count += count_values(item, depth, ret_depth);
    json_object_foreach(value, name, item)
        count += count_values(item, depth, ret_depth);
    return count;
}

static bool has_long_number(struct span text)
{
    size_t run = 0;
    for (size_t i = 0; i < text.length; i++) {
        uint8_t byte = text.data[i];
        bool part = (byte >= '0' && byte <= '9') || byte == '.' || byte == '-' || byte == '+'
                 || byte == 'e' || byte == 'E';
        run = part ? run + 1 : 0;
        if (run >= NUMBER_TEXT_MAX)
            return true;
    }
    return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct span text = {data, size};
    struct arena arena = arena_of(MIB(16)); /* more than any input of a fuzzer needs */
    struct fault fault;
    struct json ours;
    status parsed = json_parse(&ours, &arena, text, &fault);
    json_t *theirs = json_loadb((const char *)data, size,
                                JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    if (has_nul(text)) { /* which jansson takes for the end of the text */
        CHECK(parsed != OK);
    } else if (parsed == OK && !has_nul_name(&ours)) {
        CHECK(theirs);
        check_same(&ours, theirs);
        check_written_anew(&ours, theirs);
    } else if (parsed != OK && theirs) {
        size_t depth = 0, values = count_values(theirs, 0, &depth);
        CHECK(parsed == TOO_LARGE);
        CHECK(depth > JSON_DEPTH_MAX || values > JSON_MEMBERS_MAX || has_long_number(text));
    }
    json_decref(theirs);
    arena_free(&arena);
    return 0;
}
