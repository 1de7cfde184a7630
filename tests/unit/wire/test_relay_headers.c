/* The headers between gateway and cell: neither side is trusted by the other. */
#include "wire/messages.h"

#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static status get(struct span ret[RELAY_HEADERS], struct span bytes, uint32_t kinds)
{
    struct cursor cursor = cursor_over(bytes);
    struct fault fault;
    TRY(relay_headers_get(ret, &cursor, kinds, &fault));
    return cursor_end(&cursor, &fault);
}

static void what_was_put_is_got(void **state)
{
    (void)state;
    struct span put[RELAY_HEADERS] = {
        [RELAY_CONTENT_TYPE] = SPAN("text/plain;\tcharset=utf-8"),
        [RELAY_IF_UNMODIFIED_SINCE] = SPAN("Sun, 06 Nov 1994 08:49:37 GMT"),
    };
    struct span got[RELAY_HEADERS];
    struct buffer out = buffer_of(KIB(4));
    relay_headers_put(&out, put);
    assert_int_equal(get(got, buffer_span(&out), RELAY_REQUEST_HEADERS), OK);
    for (int kind = 0; kind < RELAY_HEADERS; kind++)
        assert_true(span_equal(put[kind], got[kind]));
    buffer_free(&out);
}

static void a_kind_that_does_not_pass_that_way_is_refused(void **state)
{
    (void)state;
    struct span got[RELAY_HEADERS];
    for (int kind = 0; kind <= UINT8_MAX; kind++) {
        const uint8_t bytes[] = {1, (uint8_t)kind, 0, 0, 0, 1, 'x'};
        bool asks = kind >= RELAY_CONTENT_TYPE && kind <= RELAY_IF_UNMODIFIED_SINCE;
        bool answers = kind == RELAY_CONTENT_TYPE
                       || (kind >= RELAY_ALLOW && kind < RELAY_HEADERS);
        assert_int_equal(get(got, SPAN_OF(bytes), RELAY_REQUEST_HEADERS) == OK, asks);
        assert_int_equal(get(got, SPAN_OF(bytes), RELAY_ANSWER_HEADERS) == OK, answers);
    }
}

static void a_list_out_of_order_or_cut_is_refused(void **state)
{
    (void)state;
    const struct span bad[] = {
        SPAN(""),
        SPAN("\2\1\0\0\0\1x\1\0\0\0\1y"),  /* twice */
        SPAN("\2\2\0\0\0\1x\1\0\0\0\1y"),  /* descending */
        SPAN("\2\1\0\0\0\1x"),             /* fewer than said */
        SPAN("\1\1\0\0\0\2x"),
        SPAN("\1\1\0\0\0"),
        SPAN("\1\1\377\377\377\377x"),
        SPAN("\0x"),                       /* more than said */
        SPAN("\1\1\0\0\0\0"),              /* without a value */
        SPAN("\1\1\0\0\0\1\n"),
        SPAN("\1\1\0\0\0\1\0"),
        SPAN("\1\1\0\0\0\1\177"),
        SPAN("\1\1\0\0\0\1\200"),
    };
    struct span got[RELAY_HEADERS];
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_not_equal(get(got, bad[i], RELAY_REQUEST_HEADERS), OK);
}

static void the_longest_value_passes_and_none_beyond(void **state)
{
    (void)state;
    static uint8_t value[RELAY_HEADER_MAX + 1];
    memset(value, 'x', sizeof value);
    for (size_t length = RELAY_HEADER_MAX; length <= sizeof value; length++) {
        struct span got[RELAY_HEADERS], long_one = {value, length};
        struct buffer out = buffer_of(KIB(4));
        buffer_put_u8(&out, 1);
        buffer_put_u8(&out, RELAY_RANGE);
        buffer_put_field(&out, long_one);
        status read = get(got, buffer_span(&out), RELAY_REQUEST_HEADERS);
        assert_int_equal(read == OK, length == RELAY_HEADER_MAX);
        assert_int_equal(relay_header_fits(long_one), read == OK);
        buffer_free(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_put_is_got),
        cmocka_unit_test(a_kind_that_does_not_pass_that_way_is_refused),
        cmocka_unit_test(a_list_out_of_order_or_cut_is_refused),
        cmocka_unit_test(the_longest_value_passes_and_none_beyond),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
