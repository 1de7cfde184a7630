#include "wire/base64.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

struct vector {
    const char *bytes, *padded, *url;
};

/* RFC 4648 section 10, and bytes that need the two digits in which the alphabets differ. */
static const struct vector vectors[] = {
    {"", "", ""}, {"f", "Zg==", "Zg"}, {"fo", "Zm8=", "Zm8"}, {"foo", "Zm9v", "Zm9v"},
    {"foob", "Zm9vYg==", "Zm9vYg"}, {"fooba", "Zm9vYmE=", "Zm9vYmE"},
    {"foobar", "Zm9vYmFy", "Zm9vYmFy"}, {"\xFB\xFF\xBF", "+/+/", "-_-_"},
    {"\xFF\xEF", "/+8=", "_-8"},
};

enum { VECTORS = sizeof vectors / sizeof *vectors };

static void the_vectors_of_the_rfc_are_written(void **state)
{
    (void)state;
    for (size_t i = 0; i < VECTORS; i++) {
        uint8_t padded[32], url[32];
        struct buffer out = buffer_over(padded, sizeof padded);
        base64_put(&out, span_of_text(vectors[i].bytes));
        assert_true(span_is(buffer_span(&out), vectors[i].padded));
        out = buffer_over(url, sizeof url);
        base64url_put(&out, span_of_text(vectors[i].bytes));
        assert_true(span_is(buffer_span(&out), vectors[i].url));
    }
}

static void the_vectors_of_the_rfc_are_read(void **state)
{
    (void)state;
    struct fault fault;
    for (size_t i = 0; i < VECTORS; i++) {
        uint8_t storage[32];
        struct buffer out = buffer_over(storage, sizeof storage);
        assert_int_equal(base64_decode(&out, span_of_text(vectors[i].padded), "x", &fault), OK);
        assert_true(span_is(buffer_span(&out), vectors[i].bytes));
        out = buffer_over(storage, sizeof storage);
        assert_int_equal(base64url_decode(&out, span_of_text(vectors[i].url), "x", &fault), OK);
        assert_true(span_is(buffer_span(&out), vectors[i].bytes));
    }
}

typedef status decode_function(struct buffer *, struct span, const char *, struct fault *);

static void assert_refused(decode_function *decode, struct span text)
{
    uint8_t storage[64];
    struct buffer out = buffer_over(storage, sizeof storage);
    struct fault fault = {0};
    assert_int_equal(decode(&out, text, "field", &fault), BAD_FIELD);
    assert_non_null(strstr(fault.detail, "field"));
    assert_int_equal(out.length, 0);
}

static void padding_blanks_foreign_digits_and_stray_bits_are_refused_in_base64url(void **state)
{
    (void)state;
    static const char *const refused[] = {
        "Zg==", "Zg=", "Zm9vYg==", "Z", "A", "Zm9vY", "Zm9vA", "Zh", "Zm9", "Zm+v", "Zm/v", " Zg",
        "Zg ", "Z g", "Zg\n", "Zm9v\r\n", "Zm9v.", "=", "====", "Zm\x80v", "Zm{v", "Zm@v", "Zm[v",
        "Zm`v",
    };
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        assert_refused(base64url_decode, span_of_text(refused[i]));
    assert_refused(base64url_decode, SPAN("Zm\0v"));
}

static void missing_or_misplaced_padding_and_stray_bits_are_refused_in_base64(void **state)
{
    (void)state;
    static const char *const refused[] = {
        "Zg", "Zg=", "Zm8", "Zm8==", "Z===", "A===", "AA=A", "====", "=", "==", "Zg==Zg==",
        "Zg==Zm9v", "Zm=v", "Zh==", "Zm9=", "Zm-v", "Zm_v", "Zm9v\n", "Zg== ", "A=BC", "Zm9v====",
    };
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        assert_refused(base64_decode, span_of_text(refused[i]));
}

static void every_pair_of_digits_is_read_by_its_own_alphabet_only(void **state)
{
    (void)state;
    struct fault fault;
    size_t accepted[2] = {0};
    for (int first = 0; first < 256; first++)
        for (int second = 0; second < 256; second++) {
            const uint8_t url[] = {(uint8_t)first, (uint8_t)second};
            const uint8_t padded[] = {(uint8_t)first, (uint8_t)second, '=', '='};
            uint8_t storage[4];
            struct buffer out = buffer_over(storage, sizeof storage);
            accepted[0] += base64url_decode(&out, SPAN_OF(url), "x", &fault) == OK;
            out = buffer_over(storage, sizeof storage);
            accepted[1] += base64_decode(&out, SPAN_OF(padded), "x", &fault) == OK;
        }
    assert_int_equal(accepted[0], 256); /* one spelling for each byte */
    assert_int_equal(accepted[1], 256);
}

static void every_length_comes_back(void **state)
{
    (void)state;
    uint8_t bytes[70], text[100], back[70];
    struct fault fault;
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * 37 + 11);
    for (size_t length = 0; length <= sizeof bytes; length++) {
        struct span input = {bytes, length};
        struct buffer out = buffer_over(text, sizeof text);
        struct buffer in = buffer_over(back, sizeof back);
        base64url_put(&out, input);
        assert_int_equal(base64url_decode(&in, buffer_span(&out), "x", &fault), OK);
        assert_true(span_equal(buffer_span(&in), input));
        for (size_t cut = 1; cut <= 3 && cut <= out.length; cut++) {
            in = buffer_over(back, sizeof back);
            struct span shorter = {out.data, out.length - cut};
            if (base64url_decode(&in, shorter, "x", &fault) == OK)
                assert_true(in.length < length);
        }
    }
}

static void what_is_decoded_is_appended_and_the_bound_of_the_buffer_holds(void **state)
{
    (void)state;
    uint8_t storage[4];
    struct fault fault = {0};
    struct buffer out = buffer_over(storage, sizeof storage);
    buffer_put_u8(&out, 'x');
    assert_int_equal(base64_decode(&out, SPAN("Zm9v"), "x", &fault), OK);
    assert_true(span_is(buffer_span(&out), "xfoo"));
    assert_int_equal(base64_decode(&out, SPAN("Zg=="), "key", &fault), TOO_LARGE);
    assert_non_null(strstr(fault.detail, "key"));
    assert_int_equal(out.length, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_vectors_of_the_rfc_are_written),
        cmocka_unit_test(the_vectors_of_the_rfc_are_read),
        cmocka_unit_test(padding_blanks_foreign_digits_and_stray_bits_are_refused_in_base64url),
        cmocka_unit_test(missing_or_misplaced_padding_and_stray_bits_are_refused_in_base64),
        cmocka_unit_test(every_pair_of_digits_is_read_by_its_own_alphabet_only),
        cmocka_unit_test(every_length_comes_back),
        cmocka_unit_test(what_is_decoded_is_appended_and_the_bound_of_the_buffer_holds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
