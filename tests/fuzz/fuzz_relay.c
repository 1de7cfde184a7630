/* Whatever a gateway sends as a RELAY_REQUEST: it is refused, or each part is within its bound and
 * lies inside the message, no text holds a NUL, each header is one of a request's and can inject
 * nothing, and the message ends where its last part ends. */
#include "fuzz.h"

#include "cell/request.h"

static size_t size_of(struct span part, struct span message, size_t max)
{
    CHECK(part.length <= max);
    CHECK(part.data >= message.data && part.data + part.length <= message.data + message.length);
    return 4 + part.length;
}

static size_t size_of_headers(const struct span headers[RELAY_HEADERS], struct span message)
{
    size_t total = 1;
    for (int kind = 0; kind < RELAY_HEADERS; kind++) {
        if (headers[kind].length == 0)
            continue;
        CHECK(RELAY_REQUEST_HEADERS >> kind & 1);
        CHECK(relay_header_fits(headers[kind]));
        total += 1 + size_of(headers[kind], message, RELAY_HEADER_MAX);
    }
    return total;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct span message = {bytes, length};
    struct request_head head;
    struct fault fault;
    if (request_head_get(&head, message, &fault) != OK)
        return 0;
    const struct span texts[] = {head.method, head.path, head.query};
    size_t total = 1 + sizeof head.trace_id + sizeof head.length;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        total += size_of(texts[i], message, HTTP_LINE_MAX);
        for (size_t j = 0; j < texts[i].length; j++)
            CHECK(texts[i].data[j] != 0);
    }
    total += size_of_headers(head.headers, message);
    total += size_of(head.token, message, TOKEN_MAX);
    total += size_of(head.fragment, message, RELAY_FRAGMENT_MAX);
    CHECK(head.flags <= 1 && head.length >= -1);
    CHECK(total == length);
    return 0;
}
