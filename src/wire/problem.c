#include "wire/problem.h"

#include "wire/http.h"
#include "wire/json.h"

#include <assert.h>

void problem_put(struct buffer *out, status code, const char *detail, const char *trace_id)
{
    assert(code != OK);
    int http = status_http(code);
    struct json_writer writer = json_writer_on(out);
    json_open_object(&writer, NULL);
    json_put_text(&writer, "type", "about:blank"); /* `code` tells more than a type would */
    json_put_text(&writer, "title", http_reason(http));
    json_put_integer(&writer, "status", http);
    json_put_text(&writer, "code", status_code(code));
    if (detail)
        json_put_text(&writer, "detail", detail);
    json_put_text(&writer, "trace_id", trace_id);
    json_close_object(&writer);
}
