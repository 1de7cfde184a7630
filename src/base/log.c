#include "base/log.h"

#include "base/buffer.h"
#include "base/clock.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

static const char *process_name = "bulkhead";
static enum log_level least_level = LOG_INFO;

void log_open(const char *process, enum log_level least)
{
    process_name = process;
    least_level = least;
}

static void put_escaped(struct buffer *line, const char *text)
{
    for (; *text; text++) {
        unsigned char character = (unsigned char)*text;
        if (character == '"' || character == '\\')
            buffer_printf(line, "\\%c", character);
        else if (character < 0x20 || character >= 0x7F)
            buffer_printf(line, "\\u%04x", character);
        else
            buffer_put_u8(line, character);
    }
}

void log_event(enum log_level level, const char *event, const char *format, ...)
{
    static const char *const names[] = {"debug", "info", "warn", "error"};
    if (level < least_level)
        return;
    char detail[400], now[CLOCK_TEXT_SIZE];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(detail, sizeof detail, format, arguments);
    va_end(arguments);
    clock_text(now, clock_wall_us());
    uint8_t storage[1024];
    struct buffer line = buffer_over(storage, sizeof storage - 3);
    buffer_printf(&line, "{\"time\":\"%s\",\"level\":\"%s\",\"process\":\"%s\",\"event\":\"%s\","
                  "\"detail\":\"", now, names[level], process_name, event);
    put_escaped(&line, detail); /* a detail too long for the line is cut, never the JSON */
    storage[line.length++] = '"';
    storage[line.length++] = '}';
    storage[line.length++] = '\n';
    ssize_t ignored = write(STDERR_FILENO, storage, line.length);
    (void)ignored;
}
