#include "base/hex.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void every_byte_comes_back(void **state)
{
    (void)state;
    struct fault fault;
    for (unsigned byte = 0; byte < 256; byte++) {
        const uint8_t one[] = {(uint8_t)byte};
        uint8_t back = (uint8_t)~byte;
        char text[3], expected[3];
        snprintf(expected, sizeof expected, "%02x", byte);
        hex_encode(text, SPAN_OF(one));
        assert_string_equal(text, expected);
        assert_int_equal(hex_decode(&back, 1, span_of_text(text), "x", &fault), OK);
        assert_int_equal(back, byte);
    }
    char none[1] = "x";
    hex_encode(none, (struct span){0});
    assert_string_equal(none, "");
}

static void only_lower_case_digits_of_exactly_that_length_are_read(void **state)
{
    (void)state;
    static const struct span refused[] = {
        SPAN(""), SPAN("00"), SPAN("000"), SPAN("00000"), SPAN("0A00"), SPAN("00g0"), SPAN("0x00"),
        SPAN(" 000"), SPAN("00 0"), SPAN("00-1"), SPAN("00\n0"), SPAN("00\0" "0"),
        SPAN("\xB0" "000"),
    };
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        uint8_t bytes[2] = {7, 7};
        struct fault fault = {0};
        assert_int_equal(hex_decode(bytes, 2, refused[i], "fingerprint", &fault), BAD_FIELD);
        assert_true(bytes[0] == 7 && bytes[1] == 7);
        assert_non_null(strstr(fault.detail, "fingerprint"));
    }
    uint8_t bytes[2];
    struct fault fault;
    assert_int_equal(hex_decode(bytes, 2, SPAN("09af"), "x", &fault), OK);
    assert_true(bytes[0] == 0x09 && bytes[1] == 0xAF);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_byte_comes_back),
        cmocka_unit_test(only_lower_case_digits_of_exactly_that_length_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
