#include "base/status.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static status fail_with_text(struct fault *fault)
{
    return FAIL(BAD_FIELD, fault, "%s: must be %d", "limit", 5);
}

static status try_twice(int *reached, struct fault *fault)
{
    *reached = 1;
    TRY(OK);
    *reached = 2;
    TRY(fail_with_text(fault));
    *reached = 3;
    return OK;
}

static void a_failure_carries_its_code_and_its_detail_up(void **state)
{
    (void)state;
    struct fault fault = {0};
    int reached = 0;
    assert_int_equal(try_twice(&reached, &fault), BAD_FIELD);
    assert_int_equal(reached, 2);
    assert_string_equal(fault.detail, "limit: must be 5");
}

static void a_long_detail_is_cut(void **state)
{
    (void)state;
    struct fault fault;
    char text[300];
    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = '\0';
    const char *volatile shown = text; /* else the compiler sees, and says, that it is cut */
    assert_int_equal(FAIL(INTERNAL, &fault, "%s", shown), INTERNAL);
    assert_int_equal(strlen(fault.detail), sizeof fault.detail - 1);
}

/* The error table of the HTTP API: a client relies on these pairs. */
static void every_code_has_the_status_of_the_table(void **state)
{
    (void)state;
    static const struct {
        status status;
        int http;
        const char *code;
    } table[] = {
        {BAD_REQUEST, 400, "bad_request"}, {BAD_JSON, 400, "bad_json"},
        {BAD_FIELD, 400, "bad_field"}, {UNAUTHENTICATED, 401, "unauthenticated"},
        {FORBIDDEN_SCOPE, 403, "forbidden_scope"}, {FORBIDDEN_POLICY, 403, "forbidden_policy"},
        {FORBIDDEN_CLEARANCE, 403, "forbidden_clearance"}, {NOT_FOUND, 404, "not_found"},
        {METHOD_NOT_ALLOWED, 405, "method_not_allowed"}, {TIMED_OUT, 408, "timeout"},
        {CONFLICT, 409, "conflict"},
        {PRECONDITION_FAILED, 412, "precondition_failed"},
        {RANGE_NOT_SATISFIABLE, 416, "range_not_satisfiable"}, {TOO_LARGE, 413, "too_large"},
        {UNSUPPORTED_MEDIA, 415, "unsupported_media"}, {WRONG_REGION, 421, "wrong_region"},
        {HEADERS_TOO_LARGE, 431, "headers_too_large"}, {TENANT_PAUSED, 423, "tenant_paused"},
        {QUOTA_EXCEEDED, 429, "quota_exceeded"}, {INTERNAL, 500, "internal"},
        {NOT_IMPLEMENTED, 501, "not_implemented"}, {UNAVAILABLE, 503, "unavailable"},
        {OUT_OF_SPACE, 507, "out_of_space"}, {TRUNCATED, 400, "bad_request"},
        {CORRUPT, 500, "internal"}, {ROLLED_BACK, 503, "unavailable"},
        {AGAIN, 503, "unavailable"}, {CLOSED, 503, "unavailable"},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        assert_int_equal(status_http(table[i].status), table[i].http);
        assert_string_equal(status_code(table[i].status), table[i].code);
    }
}

static void every_code_is_in_the_table_and_what_is_none_reads_as_internal(void **state)
{
    (void)state;
    for (int code = 0; code < STATUS_COUNT; code++) {
        assert_true(status_http((status)code) >= 200);
        assert_non_null(status_code((status)code));
    }
    assert_int_equal(status_http(STATUS_COUNT), 500);
    assert_string_equal(status_code((status)-1), "internal");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_failure_carries_its_code_and_its_detail_up),
        cmocka_unit_test(a_long_detail_is_cut),
        cmocka_unit_test(every_code_has_the_status_of_the_table),
        cmocka_unit_test(every_code_is_in_the_table_and_what_is_none_reads_as_internal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
