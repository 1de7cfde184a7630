#include "wire/trace.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define TRACE "4bf92f3577b34da6a3ce929d0e0e4736"
#define PARENT "00f067aa0ba902b7"

static const uint8_t expected[TRACE_ID_BYTES] = {0x4b, 0xf9, 0x2f, 0x35, 0x77, 0xb3, 0x4d, 0xa6,
                                                 0xa3, 0xce, 0x92, 0x9d, 0x0e, 0x0e, 0x47, 0x36};

static void a_traceparent_gives_its_trace_id(void **state)
{
    (void)state;
    static const char *const accepted[] = {
        "00-" TRACE "-" PARENT "-01", "00-" TRACE "-" PARENT "-00", "00-" TRACE "-" PARENT "-ff",
        "01-" TRACE "-" PARENT "-01", "cc-" TRACE "-" PARENT "-01-what-the-future-adds",
    };
    for (size_t i = 0; i < sizeof accepted / sizeof *accepted; i++) {
        uint8_t id[TRACE_ID_BYTES] = {0};
        assert_true(trace_parse(id, span_of_text(accepted[i])));
        assert_memory_equal(id, expected, sizeof id);
    }
}

static void what_the_specification_calls_invalid_is_refused(void **state)
{
    (void)state;
    static const char *const refused[] = {
        "", "00", "00-" TRACE "-" PARENT, "00-" TRACE "-" PARENT "-", "00-" TRACE "-" PARENT "-1",
        "00-" TRACE "-" PARENT "-01-", "00-" TRACE "-" PARENT "-01x", "00-" TRACE "-" PARENT "-01 ",
        "ff-" TRACE "-" PARENT "-01", "cc-" TRACE "-" PARENT "-01.what",
        "0-" TRACE "-" PARENT "-011", "00-00000000000000000000000000000000-" PARENT "-01",
        "00-" TRACE "-0000000000000000-01", "00-4BF92F3577B34DA6A3CE929D0E0E4736-" PARENT "-01",
        "00-" TRACE "-" PARENT "-0A", "00_" TRACE "-" PARENT "-01", "00-" TRACE "_" PARENT "-01",
        "00-" TRACE "-" PARENT "_01", "0g-" TRACE "-" PARENT "-01", " 00-" TRACE "-" PARENT "-0",
        "00-4bf92f3577b34da6a3ce929d0e0e473g-" PARENT "-01", "00-" TRACE "-00f067aa0ba902bg-01",
    };
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        uint8_t id[TRACE_ID_BYTES] = {1, 2, 3}, before[TRACE_ID_BYTES] = {1, 2, 3};
        if (trace_parse(id, span_of_text(refused[i])))
            fail_msg("not refused: %s", refused[i]);
        assert_memory_equal(id, before, sizeof id);
    }
}

static void every_truncation_is_refused(void **state)
{
    (void)state;
    struct span whole = SPAN("00-" TRACE "-" PARENT "-01");
    uint8_t id[TRACE_ID_BYTES];
    for (size_t length = 0; length < whole.length; length++)
        assert_false(trace_parse(id, (struct span){whole.data, length}));
    assert_true(trace_parse(id, whole));
}

static void what_is_written_is_read_back(void **state)
{
    (void)state;
    static const uint8_t span_id[TRACE_SPAN_BYTES] = {0, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7};
    char text[TRACE_TEXT_SIZE];
    trace_format(text, expected, span_id, 1);
    assert_string_equal(text, "00-" TRACE "-" PARENT "-01");
    uint8_t id[TRACE_ID_BYTES];
    assert_true(trace_parse(id, span_of_text(text)));
    assert_memory_equal(id, expected, sizeof id);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_traceparent_gives_its_trace_id),
        cmocka_unit_test(what_the_specification_calls_invalid_is_refused),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(what_is_written_is_read_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
