#include "wire/http.h"

#include "wire/http_bytes.h"

#include <arpa/inet.h>

enum { HOST_MAX = 255, PORT_DIGITS_MAX = 5, PORT_MAX = 65535 };

bool http_is_token(struct span name)
{
    for (size_t i = 0; i < name.length; i++)
        if (!http_is_token_byte(name.data[i]))
            return false;
    return name.length > 0;
}

static bool is_blank(uint8_t byte)
{
    return byte == ' ' || byte == '\t';
}

static bool is_value(struct span value)
{
    for (size_t i = 0; i < value.length; i++)
        if (!http_is_value_byte(value.data[i]))
            return false;
    return true;
}

bool http_is_header_value(struct span value)
{
    bool blank_around = value.length
                     && (is_blank(value.data[0]) || is_blank(value.data[value.length - 1]));
    return !blank_around && is_value(value);
}

static bool same_ignoring_case(struct span left, struct span right)
{
    if (left.length != right.length)
        return false;
    for (size_t i = 0; i < left.length; i++)
        if (http_lower(left.data[i]) != http_lower(right.data[i]))
            return false;
    return true;
}

static bool equals_ignoring_case(struct span bytes, const char *text)
{
    return same_ignoring_case(bytes, span_of_text(text));
}

static struct span trimmed(struct span bytes)
{
    while (bytes.length && is_blank(bytes.data[0]))
        bytes = (struct span){bytes.data + 1, bytes.length - 1};
    while (bytes.length && is_blank(bytes.data[bytes.length - 1]))
        bytes.length--;
    return bytes;
}

/* The part before the first separator, *rest behind it. False when there is none: *ret is all. */
static bool cut(struct span *ret, struct span *rest, struct span bytes, uint8_t separator)
{
    size_t length = span_find(bytes, separator);
    bool found = length < bytes.length;
    *ret = (struct span){bytes.data, length};
    *rest = (struct span){bytes.data + length + found, bytes.length - length - found};
    return found;
}

/* The line feed at scan->searched. *ret_end: the head ends here. */
static status end_line(bool *ret_end, struct http_scan *scan, struct fault *fault)
{
    bool empty = scan->searched - scan->line == 1, first = scan->line == scan->request;
    if (empty && first && scan->request > 0)
        return FAIL(BAD_REQUEST, fault, "HTTP: more than one empty line before the request");
    scan->line = scan->searched + 1;
    if (empty && first)
        scan->request = scan->line;
    else if (first)
        scan->headers = scan->line;
    *ret_end = empty && !first;
    return OK;
}

/* Looks back only, never ahead: so the answer does not depend on how the bytes were cut. */
static status scan_byte(bool *ret_end, struct http_scan *scan, const uint8_t *bytes,
                        struct fault *fault)
{
    size_t at = scan->searched;
    bool after_cr = at > 0 && bytes[at - 1] == '\r';
    if (scan->headers == 0 && at - scan->request >= HTTP_LINE_MAX)
        return FAIL(HEADERS_TOO_LARGE, fault, "HTTP: a request line over %u bytes",
                    (unsigned)HTTP_LINE_MAX);
    if (scan->headers && at - scan->headers >= HTTP_HEADERS_MAX)
        return FAIL(HEADERS_TOO_LARGE, fault, "HTTP: header lines over %u bytes",
                    (unsigned)HTTP_HEADERS_MAX);
    if (after_cr != (bytes[at] == '\n'))
        return FAIL(BAD_REQUEST, fault, "HTTP: a bare %s at byte %zu",
                    after_cr ? "CR" : "LF", at);
    if (after_cr)
        return end_line(ret_end, scan, fault);
    return OK;
}

/* Skips what scan_byte would pass over: neither CR nor LF nor behind a CR nor at a limit. */
static size_t plain_end(const struct http_scan *scan, const uint8_t *bytes, size_t length)
{
    size_t at = scan->searched, limit = scan->headers ? scan->headers + HTTP_HEADERS_MAX
                                                      : scan->request + HTTP_LINE_MAX;
    size_t end = limit < length ? limit : length;
    if (at > 0 && bytes[at - 1] == '\r')
        return at;
    while (at < end && bytes[at] != '\r' && bytes[at] != '\n')
        at++;
    return at;
}

/* The length of the head, its last empty line included. */
static status scan_head(size_t *ret, struct http_scan *scan, const uint8_t *bytes, size_t length,
                        struct fault *fault)
{
    bool end = false;
    for (; scan->searched < length; scan->searched++) {
        scan->searched = plain_end(scan, bytes, length);
        if (scan->searched == length)
            break;
        TRY(scan_byte(&end, scan, bytes, fault));
        if (end) {
            *ret = scan->searched + 1;
            return OK;
        }
    }
    return FAIL(AGAIN, fault, "HTTP: the head is not complete");
}

static bool starts_ignoring_case(struct span bytes, const char *lower)
{
    size_t length = span_of_text(lower).length;
    return bytes.length >= length && equals_ignoring_case((struct span){bytes.data, length}, lower);
}

/* "http://authority/path": the authority, and *target is what follows it. Empty for a path. */
static struct span take_authority(struct span *target)
{
    size_t scheme = starts_ignoring_case(*target, "https://")  ? SPAN("https://").length
                  : starts_ignoring_case(*target, "http://") ? SPAN("http://").length
                                                               : 0;
    struct span rest = {target->data + scheme, target->length - scheme};
    size_t length = 0;
    if (scheme == 0)
        return (struct span){0};
    while (length < rest.length && rest.data[length] != '/' && rest.data[length] != '?')
        length++;
    *target = (struct span){rest.data + length, rest.length - length};
    return (struct span){rest.data, length};
}

/* ret_authority: of a target in absolute form (RFC 9112 3.2.2), else with data NULL. */
static status parse_target(struct http_head *head, struct span *ret_authority, struct span target,
                           struct fault *fault)
{
    struct span path, query, authority = take_authority(&target);
    bool has_query = cut(&path, &query, target, '?');
    if (path.length == 0 && authority.data)
        path = SPAN("/"); /* RFC 9110 4.2.3: the same */
    if (path.length == 0 || path.data[0] != '/')
        return FAIL(BAD_REQUEST, fault, "HTTP: the target must be a path that begins with '/'");
    for (size_t i = 0; i < path.length; i++)
        if (!http_is_path_byte(path.data[i]))
            return FAIL(BAD_REQUEST, fault, "HTTP: a byte in the path that must be escaped");
    for (size_t i = 0; i < query.length; i++)
        if (!http_is_query_byte(query.data[i]))
            return FAIL(BAD_REQUEST, fault, "HTTP: a byte in the query that must be escaped");
    head->path = path;
    if (has_query)
        head->query = query;
    *ret_authority = authority;
    return OK;
}

static status parse_request_line(struct http_head *head, struct span *ret_authority,
                                 struct span line, struct fault *fault)
{
    struct span target, version;
    if (!cut(&head->method, &target, line, ' ') || !cut(&target, &version, target, ' '))
        return FAIL(BAD_REQUEST, fault, "HTTP: a request line without its three parts");
    if (!http_is_token(head->method))
        return FAIL(BAD_REQUEST, fault, "HTTP: the method is not a token");
    head->http_1_0 = span_is(version, "HTTP/1.0");
    if (!head->http_1_0 && !span_is(version, "HTTP/1.1"))
        return FAIL(BAD_REQUEST, fault, "HTTP: the version must be HTTP/1.1 or HTTP/1.0");
    return parse_target(head, ret_authority, target, fault);
}

static status parse_header_line(struct http_head *head, uint8_t *line, size_t length,
                                struct fault *fault)
{
    struct span name, value;
    if (!cut(&name, &value, (struct span){line, length}, ':') || !http_is_token(name))
        return FAIL(BAD_REQUEST, fault, "HTTP: header %u has no proper name",
                    head->header_count + 1);
    if (!is_value(value))
        return FAIL(BAD_REQUEST, fault, "HTTP: header %u holds a control byte",
                    head->header_count + 1);
    if (head->header_count == HTTP_HEADER_COUNT_MAX)
        return FAIL(HEADERS_TOO_LARGE, fault, "HTTP: more than %d headers",
                    (int)HTTP_HEADER_COUNT_MAX);
    for (size_t i = 0; i < name.length; i++)
        line[i] = http_lower(line[i]);
    head->headers[head->header_count++] = (struct http_header){name, trimmed(value)};
    return OK;
}

/* The header lines of bytes[at..end), each closed by CRLF: scan_head has seen to that. */
static status parse_header_lines(struct http_head *head, uint8_t *bytes, size_t at, size_t end,
                                 struct fault *fault)
{
    while (at < end) {
        size_t length = span_find((struct span){bytes + at, end - at}, '\r');
        TRY(parse_header_line(head, bytes + at, length, fault));
        at += length + 2;
    }
    return OK;
}

status http_header(struct span *ret, const struct http_head *head, const char *name,
                   struct fault *fault)
{
    struct span found = {0};
    for (uint32_t i = 0; i < head->header_count; i++) {
        if (!span_is(head->headers[i].name, name))
            continue;
        if (found.data)
            return FAIL(BAD_REQUEST, fault, "HTTP: two headers named %s", name);
        found = head->headers[i].value;
    }
    *ret = found;
    return OK;
}

static bool is_port(struct span port)
{
    uint32_t value = 0;
    for (size_t i = 0; i < port.length; i++) {
        if (port.data[i] < '0' || port.data[i] > '9' || i == PORT_DIGITS_MAX)
            return false;
        value = value * 10 + port.data[i] - '0';
    }
    return port.length > 0 && value <= PORT_MAX;
}

/* Letters, digits, '-', '_' in labels between dots; a dot at the end is allowed, as in DNS. */
static bool is_host_name(struct span host)
{
    bool label = false;
    for (size_t i = 0; i < host.length; i++) {
        uint8_t byte = host.data[i];
        if (byte == '.' ? !label : !http_is_alnum(byte) && byte != '-' && byte != '_')
            return false;
        label = byte != '.';
    }
    return host.length > 0;
}

static bool is_host(struct span value)
{
    struct span host, port;
    if (value.length == 0 || value.length > HOST_MAX)
        return false;
    if (value.data[0] != '[')
        return cut(&host, &port, value, ':') ? is_host_name(host) && is_port(port)
                                             : is_host_name(host);
    value = (struct span){value.data + 1, value.length - 1};
    char text[INET6_ADDRSTRLEN];
    struct in6_addr address;
    if (!cut(&host, &port, value, ']') || !span_to_text(text, sizeof text, host)
        || inet_pton(AF_INET6, text, &address) != 1)
        return false;
    return port.length == 0
        || (port.data[0] == ':' && is_port((struct span){port.data + 1, port.length - 1}));
}

/* RFC 9112 3.2.2 lets the target's authority win over Host. Where they differ, somebody before us
 * may have read the other one. */
static status check_host(struct http_head *head, struct span authority, struct fault *fault)
{
    struct span host;
    TRY(http_header(&host, head, "host", fault));
    if (authority.data && !host.data && head->http_1_0)
        host = authority;
    if (!host.data) {
        if (!head->http_1_0)
            return FAIL(BAD_REQUEST, fault, "HTTP: Host is required");
        return OK;
    }
    if (!is_host(host))
        return FAIL(BAD_REQUEST, fault, "HTTP: Host must be a name or address and maybe a port");
    if (authority.data && !same_ignoring_case(authority, host))
        return FAIL(BAD_REQUEST, fault, "HTTP: the target's authority is not the Host");
    head->host = host;
    return OK;
}

static status parse_content_length(uint64_t *ret, struct span text, struct fault *fault)
{
    uint64_t value = 0;
    bool canonical = text.length == 1 || (text.length > 1 && text.data[0] != '0');
    for (size_t i = 0; canonical && i < text.length; i++) {
        canonical = text.data[i] >= '0' && text.data[i] <= '9';
        if (value <= HTTP_LENGTH_MAX) /* beyond that its size does not matter, only its digits */
            value = value * 10 + (uint64_t)(text.data[i] - '0');
    }
    if (!canonical)
        return FAIL(BAD_REQUEST, fault, "HTTP: Content-Length must be one plain decimal number");
    if (value > HTTP_LENGTH_MAX)
        return FAIL(TOO_LARGE, fault, "HTTP: a body over %llu bytes",
                    (unsigned long long)HTTP_LENGTH_MAX);
    *ret = value;
    return OK;
}

/* Names of codings, "chunked" last and only there (RFC 9112 6.1): well-formed, but not decoded
 * here. */
static bool is_other_coding(struct span codings)
{
    struct span coding;
    bool others = false;
    while (cut(&coding, &codings, codings, ',')) {
        coding = trimmed(coding);
        if (!http_is_token(coding) || equals_ignoring_case(coding, "chunked"))
            return false;
        others = true;
    }
    return others && equals_ignoring_case(trimmed(coding), "chunked");
}

static status check_coding(const struct http_head *head, struct span coding, struct fault *fault)
{
    if (head->http_1_0)
        return FAIL(BAD_REQUEST, fault, "HTTP: Transfer-Encoding on HTTP/1.0");
    if (equals_ignoring_case(coding, "chunked"))
        return OK;
    if (is_other_coding(coding))
        return FAIL(NOT_IMPLEMENTED, fault, "HTTP: no transfer coding but \"chunked\"");
    return FAIL(BAD_REQUEST, fault, "HTTP: Transfer-Encoding must be \"chunked\"");
}

static status check_framing(struct http_head *head, struct fault *fault)
{
    struct span coding, length;
    TRY(http_header(&coding, head, "transfer-encoding", fault));
    TRY(http_header(&length, head, "content-length", fault));
    if (coding.data && length.data)
        return FAIL(BAD_REQUEST, fault, "HTTP: Transfer-Encoding together with Content-Length");
    if (coding.data)
        TRY(check_coding(head, coding, fault));
    head->chunked = coding.data != NULL;
    return length.data ? parse_content_length(&head->content_length, length, fault) : OK;
}

static status check_connection(struct http_head *head, struct fault *fault)
{
    head->keep_alive = !head->http_1_0;
    for (uint32_t i = 0; i < head->header_count; i++) {
        struct span option, rest = head->headers[i].value;
        if (!span_is(head->headers[i].name, "connection"))
            continue;
        bool more = true;
        while (more) {
            more = cut(&option, &rest, rest, ',');
            option = trimmed(option);
            if (option.length == 0) /* RFC 9110 5.6.1.2: lists may have empty places */
                continue;
            if (!http_is_token(option))
                return FAIL(BAD_REQUEST, fault, "HTTP: Connection must be a list of tokens");
            if (equals_ignoring_case(option, "close"))
                head->keep_alive = false;
        }
    }
    return OK;
}

static status check_expect(struct http_head *head, struct fault *fault)
{
    struct span expect;
    TRY(http_header(&expect, head, "expect", fault));
    if (!expect.data || head->http_1_0) /* RFC 9110 10.1.1: ignored on 1.0 */
        return OK;
    if (!equals_ignoring_case(expect, "100-continue"))
        return FAIL(BAD_REQUEST, fault, "HTTP: Expect must be 100-continue");
    head->expect_continue = head->chunked || head->content_length > 0;
    return OK;
}

status http_parse_head(struct http_head *ret, size_t *ret_consumed, struct http_scan *scan,
                       uint8_t *bytes, size_t length, struct fault *fault)
{
    size_t end = 0;
    TRY(scan_head(&end, scan, bytes, length, fault));
    struct http_head head = {0};
    struct span line = {bytes + scan->request, scan->headers - 2 - scan->request};
    struct span authority = {0};
    TRY(parse_request_line(&head, &authority, line, fault));
    TRY(parse_header_lines(&head, bytes, scan->headers, end - 2, fault));
    TRY(check_host(&head, authority, fault));
    TRY(check_framing(&head, fault));
    TRY(check_connection(&head, fault));
    TRY(check_expect(&head, fault));
    *ret = head;
    *ret_consumed = end;
    return OK;
}
