#include "wire/http.h"

#include <assert.h>
#include <time.h>

static const struct {
    int code;
    const char *reason;
} reasons[] = { /* RFC 9110 section 15, RFC 4918, RFC 6585 */
    {100, "Continue"}, {200, "OK"}, {201, "Created"}, {202, "Accepted"}, {204, "No Content"},
    {206, "Partial Content"}, {304, "Not Modified"}, {400, "Bad Request"}, {401, "Unauthorized"},
    {403, "Forbidden"}, {404, "Not Found"}, {405, "Method Not Allowed"}, {406, "Not Acceptable"},
    {408, "Request Timeout"}, {409, "Conflict"}, {410, "Gone"}, {411, "Length Required"},
    {412, "Precondition Failed"}, {413, "Content Too Large"}, {415, "Unsupported Media Type"},
    {416, "Range Not Satisfiable"}, {421, "Misdirected Request"}, {422, "Unprocessable Content"},
    {423, "Locked"}, {429, "Too Many Requests"}, {431, "Request Header Fields Too Large"},
    {500, "Internal Server Error"}, {501, "Not Implemented"}, {502, "Bad Gateway"},
    {503, "Service Unavailable"}, {504, "Gateway Timeout"}, {507, "Insufficient Storage"},
};

const char *http_reason(int code)
{
    for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++)
        if (reasons[i].code == code)
            return reasons[i].reason;
    return "Unknown";
}

void http_put_status(struct buffer *out, int code)
{
    assert(code >= 100 && code <= 999);
    buffer_printf(out, "HTTP/1.1 %d %s\r\n", code, http_reason(code));
}

void http_put_header(struct buffer *out, const char *name, struct span value)
{
    assert(http_is_token(span_of_text(name)) && http_is_header_value(value));
    buffer_put_text(out, name);
    buffer_put(out, SPAN(": "));
    buffer_put(out, value);
    buffer_put(out, SPAN("\r\n"));
}

void http_put_date(struct buffer *out, int64_t wall_us)
{
    time_t seconds = (time_t)(wall_us / 1000000);
    struct tm parts;
    char text[64];
    gmtime_r(&seconds, &parts);
    size_t length = strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", &parts);
    http_put_header(out, "Date", (struct span){(const uint8_t *)text, length});
}

void http_put_length(struct buffer *out, uint64_t length)
{
    buffer_printf(out, "Content-Length: %llu\r\n", (unsigned long long)length);
}

void http_put_end(struct buffer *out)
{
    buffer_put(out, SPAN("\r\n"));
}

void http_put_chunk_head(struct buffer *out, size_t length)
{
    assert(length > 0 && length <= UINT32_MAX); /* an empty one would end the body */
    buffer_printf(out, "%zx\r\n", length);
}

void http_put_chunk_tail(struct buffer *out)
{
    buffer_put(out, SPAN("\r\n"));
}

void http_put_last_chunk(struct buffer *out)
{
    buffer_put(out, SPAN("0\r\n\r\n"));
}
