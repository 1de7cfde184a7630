#include "base/status.h"

static const struct {
    int http;
    const char *code;
} table[STATUS_COUNT] = {
    [OK] = {200, "ok"},
    [BAD_REQUEST] = {400, "bad_request"},
    [BAD_JSON] = {400, "bad_json"},
    [BAD_FIELD] = {400, "bad_field"},
    [UNAUTHENTICATED] = {401, "unauthenticated"},
    [FORBIDDEN_SCOPE] = {403, "forbidden_scope"},
    [FORBIDDEN_POLICY] = {403, "forbidden_policy"},
    [FORBIDDEN_CLEARANCE] = {403, "forbidden_clearance"},
    [NOT_FOUND] = {404, "not_found"},
    [METHOD_NOT_ALLOWED] = {405, "method_not_allowed"},
    [TIMED_OUT] = {408, "timeout"},
    [CONFLICT] = {409, "conflict"},
    [PRECONDITION_FAILED] = {412, "precondition_failed"},
    [TOO_LARGE] = {413, "too_large"},
    [UNSUPPORTED_MEDIA] = {415, "unsupported_media"},
    [RANGE_NOT_SATISFIABLE] = {416, "range_not_satisfiable"},
    [WRONG_REGION] = {421, "wrong_region"},
    [HEADERS_TOO_LARGE] = {431, "headers_too_large"},
    [TENANT_PAUSED] = {423, "tenant_paused"},
    [QUOTA_EXCEEDED] = {429, "quota_exceeded"},
    [INTERNAL] = {500, "internal"},
    [NOT_IMPLEMENTED] = {501, "not_implemented"},
    [UNAVAILABLE] = {503, "unavailable"},
    [OUT_OF_SPACE] = {507, "out_of_space"},
    [TRUNCATED] = {400, "bad_request"},
    [CORRUPT] = {500, "internal"},
    [ROLLED_BACK] = {503, "unavailable"},
    [AGAIN] = {503, "unavailable"},
    [CLOSED] = {503, "unavailable"},
};

int status_http(status code)
{
    return (unsigned)code < STATUS_COUNT ? table[code].http : 500;
}

const char *status_code(status code)
{
    return (unsigned)code < STATUS_COUNT ? table[code].code : "internal";
}
