#include "wire/json.h"

#include <math.h>
#include <stdlib.h>

struct json_writer json_writer_on(struct buffer *out)
{
    return (struct json_writer){.out = out};
}

/* The length of the run at the front that stands in a JSON string as it is. */
static size_t plain_run(struct span text)
{
    size_t at = 0;
    while (at < text.length) {
        uint8_t byte = text.data[at];
        if (byte < 0x20 || byte == '"' || byte == '\\')
            break;
        size_t length = 1;
        if (byte >= 0x80)
            length = span_utf8_sequence((struct span){text.data + at, text.length - at});
        if (length == 0)
            break;
        at += length;
    }
    return at;
}

static void put_escape(struct buffer *out, uint8_t byte)
{
    switch (byte) {
    case '"': buffer_put(out, SPAN("\\\"")); break;
    case '\\': buffer_put(out, SPAN("\\\\")); break;
    case '\n': buffer_put(out, SPAN("\\n")); break;
    case '\r': buffer_put(out, SPAN("\\r")); break;
    case '\t': buffer_put(out, SPAN("\\t")); break;
    case '\b': buffer_put(out, SPAN("\\b")); break;
    case '\f': buffer_put(out, SPAN("\\f")); break;
    default:
        if (byte < 0x20)
            buffer_printf(out, "\\u%04x", byte);
        else
            buffer_put(out, SPAN("\xEF\xBF\xBD")); /* U+FFFD for what is not UTF-8 */
    }
}

static void put_quoted(struct buffer *out, struct span text)
{
    buffer_put_u8(out, '"');
    while (text.length) {
        size_t run = plain_run(text);
        buffer_put(out, (struct span){text.data, run});
        if (run < text.length)
            put_escape(out, text.data[run++]);
        text = (struct span){text.data + run, text.length - run};
    }
    buffer_put_u8(out, '"');
}

/* What stands before every value: the comma after the one before, and the name. */
static void begin(struct json_writer *writer, const char *name)
{
    if (writer->comma)
        buffer_put_u8(writer->out, ',');
    writer->comma = true;
    if (name) {
        put_quoted(writer->out, span_of_text(name));
        buffer_put_u8(writer->out, ':');
    }
}

static void open_with(struct json_writer *writer, const char *name, uint8_t bracket)
{
    begin(writer, name);
    buffer_put_u8(writer->out, bracket);
    writer->comma = false;
}

static void close_with(struct json_writer *writer, uint8_t bracket)
{
    buffer_put_u8(writer->out, bracket);
    writer->comma = true;
}

void json_open_object(struct json_writer *writer, const char *name)
{
    open_with(writer, name, '{');
}

void json_close_object(struct json_writer *writer)
{
    close_with(writer, '}');
}

void json_open_array(struct json_writer *writer, const char *name)
{
    open_with(writer, name, '[');
}

void json_close_array(struct json_writer *writer)
{
    close_with(writer, ']');
}

void json_put_string(struct json_writer *writer, const char *name, struct span value)
{
    begin(writer, name);
    put_quoted(writer->out, value);
}

void json_put_text(struct json_writer *writer, const char *name, const char *value)
{
    json_put_string(writer, name, span_of_text(value));
}

void json_put_integer(struct json_writer *writer, const char *name, int64_t value)
{
    begin(writer, name);
    buffer_printf(writer->out, "%lld", (long long)value);
}

static bool looks_whole(const char *number)
{
    for (; *number; number++)
        if (*number == '.' || *number == 'e')
            return false;
    return true;
}

void json_put_double(struct json_writer *writer, const char *name, double value)
{
    begin(writer, name);
    if (!isfinite(value)) { /* JSON has no spelling for it */
        buffer_put(writer->out, SPAN("null"));
        return;
    }
    char text[32];
    for (int digits = 15; digits <= 17; digits++) { /* 17 always read back as the same double */
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            break;
    }
    buffer_put_text(writer->out, text);
    if (looks_whole(text)) /* so that it is read back as a double, too */
        buffer_put(writer->out, SPAN(".0"));
}

void json_put_bool(struct json_writer *writer, const char *name, bool value)
{
    begin(writer, name);
    buffer_put_text(writer->out, value ? "true" : "false");
}

void json_put_null(struct json_writer *writer, const char *name)
{
    begin(writer, name);
    buffer_put(writer->out, SPAN("null"));
}

void json_put_raw(struct json_writer *writer, const char *name, struct span json)
{
    begin(writer, name);
    buffer_put(writer->out, json);
}
