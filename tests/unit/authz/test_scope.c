#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "authz/clearance.h"
#include "authz/token.h"

static void every_scope_has_a_name_of_its_own(void **state)
{
    (void)state;
    struct fault fault;
    for (unsigned i = 0; i < SCOPE_COUNT; i++) {
        scope_set set = 0;
        assert_int_equal(scope_set_read_known(&set, span_of_text(scope_name((enum scope)i)),
                                              &fault), OK);
        assert_true(set == SCOPE_SET(i));
        for (unsigned j = 0; j < SCOPE_COUNT; j++)
            assert_int_equal(scope_holds(set, (enum scope)j), i == j);
    }
    assert_string_equal(scope_name(SCOPE_COUNT), "unknown");
    assert_false(scope_holds(UINT64_MAX, SCOPE_COUNT));
}

static void unknown_scopes_are_passed_over_when_read_and_named_when_granted(void **state)
{
    (void)state;
    struct fault fault = {""};
    scope_set set = 0;
    struct span text = SPAN("openid memory:read memory:rea memory:reads MEMORY:READ");
    assert_int_equal(scope_set_read(&set, text, &fault), OK);
    assert_true(set == SCOPE_SET(SCOPE_MEMORY_READ));
    set = 7;
    assert_int_equal(scope_set_read_known(&set, text, &fault), BAD_FIELD);
    assert_non_null(strstr(fault.detail, "openid"));
    assert_true(set == 7);
}

static void the_grammar_is_kept(void **state)
{
    (void)state;
    const struct span bad[] = {SPAN(""), SPAN(" "), SPAN(" a"), SPAN("a "), SPAN("a  b"),
                               SPAN("a\tb"), SPAN("a\nb"), SPAN("a\"b"), SPAN("a\\b"),
                               SPAN("a\0b"), SPAN("\xc3\xa9"), SPAN("a\x7f")};
    struct fault fault;
    scope_set set;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(scope_set_read(&set, bad[i], &fault), BAD_FIELD);
    assert_int_equal(scope_set_read(&set, SPAN("!#[]~ a"), &fault), OK);
    char text[TOKEN_SCOPES_MAX + 1];
    memset(text, 's', sizeof text);
    assert_int_equal(scope_set_read(&set, (struct span){(uint8_t *)text, TOKEN_SCOPES_MAX},
                                    &fault), OK);
    assert_int_equal(scope_set_read(&set, SPAN_OF(text), &fault), BAD_FIELD);
}

static void clearance_covers_what_is_not_above_it(void **state)
{
    (void)state;
    for (unsigned i = 0; i < CLEARANCE_COUNT; i++)
        for (unsigned j = 0; j < CLEARANCE_COUNT; j++)
            assert_int_equal(clearance_covers((enum clearance)i, (enum clearance)j), j <= i);
    assert_false(clearance_covers(CLEARANCE_RESTRICTED, CLEARANCE_COUNT));
    assert_false(clearance_covers(CLEARANCE_COUNT, CLEARANCE_PUBLIC));
    assert_false(clearance_covers((enum clearance)-1, CLEARANCE_PUBLIC));
}

static void clearance_is_read_by_exact_name(void **state)
{
    (void)state;
    struct fault fault = {""};
    enum clearance clearance = CLEARANCE_COUNT;
    for (unsigned i = 0; i < CLEARANCE_COUNT; i++) {
        assert_int_equal(clearance_read(&clearance, span_of_text(clearance_name((enum clearance)i)),
                                        "classification", &fault), OK);
        assert_int_equal(clearance, i);
    }
    const struct span bad[] = {SPAN(""), SPAN("Public"), SPAN("public "), SPAN("public\0"),
                               SPAN("restricte")};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(clearance_read(&clearance, bad[i], "classification", &fault), BAD_FIELD);
        assert_non_null(strstr(fault.detail, "classification"));
        assert_int_equal(clearance, CLEARANCE_RESTRICTED);
    }
}

static void a_principal_is_bounded_plain_text(void **state)
{
    (void)state;
    char text[USER_MAX + 1];
    memset(text, 'u', sizeof text);
    assert_true(principal_is_valid(SPAN("u")));
    assert_true(principal_is_valid(SPAN("spiffe://x/\xc3\xa9")));
    assert_true(principal_is_valid((struct span){(uint8_t *)text, USER_MAX}));
    assert_false(principal_is_valid(SPAN_OF(text)));
    const struct span bad[] = {SPAN(""), SPAN("a\0b"), SPAN("\n"), SPAN("\x1f"), SPAN("\x7f"),
                               SPAN("\xc2\x80"), SPAN("\xc2\x9f"), SPAN("\xc2"), SPAN("\xff"),
                               SPAN("\xed\xa0\x80")};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(principal_is_valid(bad[i]));
    assert_true(principal_is_valid(SPAN("\xc2\xa0")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_scope_has_a_name_of_its_own),
        cmocka_unit_test(unknown_scopes_are_passed_over_when_read_and_named_when_granted),
        cmocka_unit_test(the_grammar_is_kept),
        cmocka_unit_test(clearance_covers_what_is_not_above_it),
        cmocka_unit_test(clearance_is_read_by_exact_name),
        cmocka_unit_test(a_principal_is_bounded_plain_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
