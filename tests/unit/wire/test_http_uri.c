#include "wire/http.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void assert_path(struct span raw, struct span expected)
{
    struct arena arena = arena_of(KIB(64));
    struct span path = {0};
    struct fault fault;
    if (http_decode_path(&path, &arena, raw, &fault) != OK)
        fail_msg("refused: %.*s: %s", SPAN_ARG(raw), fault.detail);
    assert_true(span_equal(path, expected));
    assert_int_equal(path.data[path.length], 0);
    arena_free(&arena);
}

static void assert_path_refused(struct span raw)
{
    struct arena arena = arena_of(KIB(64));
    struct span path = {0};
    struct fault fault;
    if (http_decode_path(&path, &arena, raw, &fault) != BAD_REQUEST)
        fail_msg("not refused: %.*s", SPAN_ARG(raw));
    assert_null(path.data);
    arena_free(&arena);
}

static void paths_are_decoded_once(void **state)
{
    (void)state;
    assert_path(SPAN("/"), SPAN("/"));
    assert_path(SPAN("/v1/memories"), SPAN("/v1/memories"));
    assert_path(SPAN("/v1/objects/"), SPAN("/v1/objects/"));
    assert_path(SPAN("/%76%31/a%20b"), SPAN("/v1/a b"));
    assert_path(SPAN("/%2525"), SPAN("/%25"));
    assert_path(SPAN("/a+b"), SPAN("/a+b"));
    assert_path(SPAN("/%C3%A9%f0%9f%98%80"), SPAN("/\xC3\xA9\xF0\x9F\x98\x80"));
    assert_path(SPAN("/.a/..b/a./b../..."), SPAN("/.a/..b/a./b../..."));
    assert_path(SPAN("/a-._~!$&'()*+,;=:@"), SPAN("/a-._~!$&'()*+,;=:@"));
    assert_path(SPAN("/%3F%23%25"), SPAN("/?#%"));
}

static void paths_that_are_not_in_their_normal_form_are_refused(void **state)
{
    (void)state;
    static const char *const refused[] = {
        "", "a", "v1/a", "//", "//a", "/a//b", "/a//", "/.", "/..", "/./a", "/a/.", "/a/./b",
        "/a/..", "/../a", "/a/../b", "/%2e", "/%2E%2e/a", "/a/.%2e", "/a/%2e/b", "/%2f", "/a%2Fb",
        "/a%2f..%2fb", "/%5c", "/a%5Cb", "/\\", "/a\\..\\b", "/%00", "/a%00b", "/%0a", "/%0D%0A",
        "/%1f", "/%7f", "/%c2%80", "/%C2%9F", "/%", "/%4", "/%g1", "/%1g", "/%%41", "/a%", "/a%2",
        "/% 1", "/%+1", "/%-1", "/%0x41", "/%u0041", "/%ff", "/%c0%af", "/%c0%80", "/%e0%80%af",
        "/%ed%a0%80", "/%f4%90%80%80", "/%c3", "/%c3/%a9", "/%c3x", "/a b", "/a?b", "/a#b",
        "/\xC3\xA9", "/a\"", "/<", "/{", "/|", "/^", "/`", "/[", "/\x7F", "/\t",
    };
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        assert_path_refused(span_of_text(refused[i]));
    assert_path_refused(SPAN("/a\0b"));
    assert_path_refused((struct span){0});
}

static void an_escape_cut_at_the_end_of_the_bytes_is_not_read_on(void **state)
{
    (void)state;
    struct span text = SPAN("/a%41");
    assert_path(text, SPAN("/aA"));
    text.length = 4;
    assert_path_refused(text);
    text.length = 3;
    assert_path_refused(text);
}

static void every_byte_as_an_escape_is_taken_or_refused_by_the_rules(void **state)
{
    (void)state;
    for (unsigned byte = 0; byte < 256; byte++) {
        uint8_t storage[16];
        struct buffer raw = buffer_over(storage, sizeof storage);
        buffer_printf(&raw, "/a%%%02xb", byte);
        bool allowed = byte >= 0x20 && byte < 0x7F && byte != '/' && byte != '\\';
        const uint8_t decoded[] = {'/', 'a', (uint8_t)byte, 'b'};
        if (allowed)
            assert_path(buffer_span(&raw), SPAN_OF(decoded));
        else
            assert_path_refused(buffer_span(&raw));
    }
}

static void a_full_arena_is_too_large(void **state)
{
    (void)state;
    struct arena arena = arena_of(16);
    struct span path;
    struct http_query query;
    struct fault fault;
    assert_int_equal(http_decode_path(&path, &arena, SPAN("/aaaaaaaaaaaaaaaaaaaa"), &fault),
                     TOO_LARGE);
    assert_int_equal(http_query_parse(&query, &arena, SPAN("a=1&b=2&c=3"), &fault), TOO_LARGE);
    arena_free(&arena);
}

static status parse_query(struct http_query *ret, struct arena *arena, struct span raw)
{
    struct fault fault;
    *arena = arena_of(KIB(64));
    return http_query_parse(ret, arena, raw, &fault);
}

static void queries_are_pairs_of_decoded_names_and_values(void **state)
{
    (void)state;
    struct http_query query;
    struct arena arena;
    assert_int_equal(parse_query(&query, &arena,
        SPAN("user_id=ann+lee&limit=&%61b=%C3%a9%26%3D%2B/?&c=d=e%25")), OK);
    assert_int_equal(query.count, 4);
    assert_true(span_is(*http_query_get(&query, "user_id"), "ann lee"));
    assert_int_equal(http_query_get(&query, "limit")->length, 0);
    assert_true(span_is(*http_query_get(&query, "ab"), "\xC3\xA9&=+/?"));
    assert_true(span_is(*http_query_get(&query, "c"), "d=e%"));
    assert_null(http_query_get(&query, "absent"));
    arena_free(&arena);
    assert_int_equal(parse_query(&query, &arena, (struct span){0}), OK);
    assert_int_equal(query.count, 0);
    arena_free(&arena);
}

static void queries_that_are_not_plain_pairs_are_refused(void **state)
{
    (void)state;
    static const char *const refused[] = {
        "a", "a=1&", "&a=1", "a=1&&b=2", "=1", "&", "a=1&b", "a=1&a=2", "a=1&%61=2", "a=%", "a=%2",
        "a=%gg", "%=1", "a=%00", "a=%0a", "a=%1b", "a=%7f", "a=%c2%85", "a=%ff", "a=%c0%80", "a= ",
        "a=\"", "a=\xC3\xA9", "a#=1", "a=[1]", "a=1;b={", "a%00b=1", "+", "a=%c3&b=%a9",
    };
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        struct http_query query = {.count = 99};
        struct arena arena;
        if (parse_query(&query, &arena, span_of_text(refused[i])) != BAD_REQUEST)
            fail_msg("not refused: %s", refused[i]);
        assert_int_equal(query.count, 99);
        arena_free(&arena);
    }
}

static void the_number_of_pairs_has_a_limit(void **state)
{
    (void)state;
    uint8_t storage[1024];
    for (int count = HTTP_QUERY_PAIRS_MAX; count <= HTTP_QUERY_PAIRS_MAX + 1; count++) {
        struct buffer raw = buffer_over(storage, sizeof storage);
        for (int i = 0; i < count; i++)
            buffer_printf(&raw, "%sn%d=%d", i ? "&" : "", i, i);
        struct http_query query;
        struct arena arena;
        assert_int_equal(parse_query(&query, &arena, buffer_span(&raw)),
                         count == HTTP_QUERY_PAIRS_MAX ? OK : BAD_REQUEST);
        arena_free(&arena);
    }
}

static void a_parameter_that_is_not_in_the_contract_is_named(void **state)
{
    (void)state;
    static const char *const names[] = {"limit", "cursor", NULL};
    struct http_query query;
    struct arena arena;
    struct fault fault = {0};
    assert_int_equal(parse_query(&query, &arena, SPAN("limit=1&cursor=x")), OK);
    assert_int_equal(http_query_only(&query, names, &fault), OK);
    arena_free(&arena);
    assert_int_equal(parse_query(&query, &arena, SPAN("limit=1&tenant=other")), OK);
    assert_int_equal(http_query_only(&query, names, &fault), BAD_FIELD);
    assert_non_null(strstr(fault.detail, "tenant"));
    arena_free(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paths_are_decoded_once),
        cmocka_unit_test(paths_that_are_not_in_their_normal_form_are_refused),
        cmocka_unit_test(an_escape_cut_at_the_end_of_the_bytes_is_not_read_on),
        cmocka_unit_test(every_byte_as_an_escape_is_taken_or_refused_by_the_rules),
        cmocka_unit_test(a_full_arena_is_too_large),
        cmocka_unit_test(queries_are_pairs_of_decoded_names_and_values),
        cmocka_unit_test(queries_that_are_not_plain_pairs_are_refused),
        cmocka_unit_test(the_number_of_pairs_has_a_limit),
        cmocka_unit_test(a_parameter_that_is_not_in_the_contract_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
