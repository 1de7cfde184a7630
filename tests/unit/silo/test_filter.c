#include "silo/filter.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static struct arena arena;

static status read_filter(const struct filter **ret, const char *text, struct fault *fault)
{
    struct json *value = arena_alloc(&arena, sizeof *value);
    assert_int_equal(json_parse(value, &arena, span_of_text(text), fault), OK);
    return filter_read(ret, &arena, value, fault);
}

static bool passes(const char *text, const char *metadata)
{
    const struct filter *filter;
    struct fault fault;
    struct json value;
    if (read_filter(&filter, text, &fault) != OK)
        fail_msg("%s: %s", text, fault.detail);
    assert_int_equal(json_parse(&value, &arena, span_of_text(metadata), &fault), OK);
    return filter_passes(filter, &value);
}

static void each_condition_holds_where_it_should_and_nowhere_else(void **state)
{
    static const char item[] =
        "{\"s\":\"b\",\"n\":5,\"x\":1.5,\"t\":true,\"z\":null,\"list\":[1,\"two\",[3]],"
        "\"o\":{\"p\":{\"q\":7}},\"people\":[{\"name\":\"ann\"},{\"name\":\"bob\"}],"
        "\"a.b\":\"dotted\",\"at\":\"2026-05-01T00:00:00Z\",\"empty\":[]}";
    static const struct {
        const char *filter;
        bool passes;
    } cases[] = {
        {"null", true}, {"{}", true},
        {"{\"s\":\"b\"}", true}, {"{\"s\":\"c\"}", false}, {"{\"s\":5}", false},
        {"{\"n\":5}", true}, {"{\"n\":5.0}", true}, {"{\"n\":\"5\"}", false},
        {"{\"t\":true}", true}, {"{\"t\":false}", false}, {"{\"z\":null}", true},
        {"{\"none\":null}", false}, {"{\"s\":\"b\",\"n\":6}", false},
        {"{\"n\":{\"$gt\":4}}", true}, {"{\"n\":{\"$gt\":5}}", false},
        {"{\"n\":{\"$gte\":5,\"$lt\":5.5}}", true}, {"{\"n\":{\"$lt\":5}}", false},
        {"{\"n\":{\"$lte\":5}}", true}, {"{\"n\":{\"$gt\":\"1\"}}", false},
        {"{\"s\":{\"$gt\":\"a\"}}", true}, {"{\"none\":{\"$lt\":9}}", false},
        {"{\"at\":{\"$gte\":\"2026-04-01T00:00:00Z\",\"$lt\":\"2026-06-01T00:00:00Z\"}}", true},
        {"{\"s\":{\"$ne\":\"c\"}}", true}, {"{\"s\":{\"$ne\":\"b\"}}", false},
        {"{\"none\":{\"$ne\":1}}", true},
        {"{\"n\":{\"$in\":[1,5]}}", true}, {"{\"n\":{\"$in\":[]}}", false},
        {"{\"n\":{\"$nin\":[1,5]}}", false}, {"{\"none\":{\"$nin\":[1]}}", true},
        {"{\"z\":{\"$exists\":true}}", true}, {"{\"none\":{\"$exists\":true}}", false},
        {"{\"none\":{\"$exists\":false}}", true}, {"{\"empty\":{\"$exists\":true}}", true},
        {"{\"o\":{\"$exists\":true}}", true}, {"{\"o.p\":{\"$exists\":false}}", false},
        {"{\"list\":1}", true}, {"{\"list\":\"two\"}", true}, {"{\"list\":3}", true},
        {"{\"list\":4}", false}, {"{\"list\":{\"$ne\":1}}", false},
        {"{\"o.p.q\":7}", true}, {"{\"o.p\":7}", false}, {"{\"o.p.q.r\":7}", false},
        {"{\"people.name\":\"bob\"}", true}, {"{\"people.name\":\"cid\"}", false},
        {"{\"a.b\":\"dotted\"}", true}, {"{\"o.\":1}", false}, {"{\"\":1}", false},
        {"{\"$and\":[{\"n\":5},{\"s\":\"b\"}]}", true},
        {"{\"$and\":[{\"n\":5},{\"s\":\"c\"}]}", false},
        {"{\"$or\":[{\"n\":6},{\"s\":\"b\"}]}", true},
        {"{\"$or\":[{\"n\":6},{\"s\":\"c\"}]}", false},
        {"{\"$or\":[{\"n\":5,\"s\":\"c\"},{\"n\":6}]}", false},
        {"{\"$not\":{\"n\":5}}", false}, {"{\"$not\":{\"n\":5,\"s\":\"c\"}}", true},
        {"{\"$not\":{\"$or\":[{\"n\":1},{\"n\":2}]}}", true},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (passes(cases[i].filter, item) != cases[i].passes)
            fail_msg("%s", cases[i].filter);
}

static void a_bad_filter_is_refused_and_told_what_is_allowed(void **state)
{
    static const struct {
        const char *filter, *named;
    } cases[] = {
        {"[]", "object"}, {"7", "object"}, {"{\"a\":[1]}", "$in"}, {"{\"a\":{}}", "empty"},
        {"{\"a\":{\"b\":1}}", "$exists"}, {"{\"a\":{\"$regex\":\"x\"}}", "$exists"},
        {"{\"$where\":1}", "$not"}, {"{\"$eq\":1}", "$and"}, {"{\"$and\":{}}", "arrays"},
        {"{\"$or\":[]}", "arrays"}, {"{\"$or\":[1]}", "object"}, {"{\"$not\":[]}", "object"},
        {"{\"a\":{\"$in\":1}}", "array"}, {"{\"a\":{\"$in\":[[]]}}", "array"},
        {"{\"a\":{\"$exists\":1}}", "true or false"}, {"{\"a\":{\"$gt\":null}}", "number"},
        {"{\"a\":{\"$eq\":[]}}", "$in"},
        {"{\"$not\":{\"$not\":{\"$not\":{\"$not\":{\"$not\":{\"$not\":{\"$not\":"
         "{\"$not\":{}}}}}}}}}", "deeper"},
    };
    const struct filter *filter;
    struct fault fault;
    char many[4096] = "{\"$or\":[{\"a\":1}";
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(read_filter(&filter, cases[i].filter, &fault), BAD_FIELD);
        if (strstr(fault.detail, cases[i].named) == NULL)
            fail_msg("%s: %s", cases[i].filter, fault.detail);
    }
    for (int i = 0; i < 40; i++)
        strcat(many, ",{\"a\":1}");
    strcat(many, "]}");
    assert_int_equal(read_filter(&filter, many, &fault), BAD_FIELD);
}

static void damaged_metadata_passes_no_filter(void **state)
{
    const struct filter *filter;
    struct fault fault;
    struct arena scratch = arena_of(FILTER_ARENA_MAX);
    (void)state;
    assert_int_equal(read_filter(&filter, "{\"a\":{\"$ne\":1}}", &fault), OK);
    assert_true(filter_passes_text(filter, &scratch, SPAN("{}")));
    assert_true(filter_passes_text(filter, &scratch, SPAN("")));
    assert_false(filter_passes_text(filter, &scratch, SPAN("{\"a\"")));
    assert_true(filter_passes_text(NULL, &scratch, SPAN("{\"a\"")));
    arena_free(&scratch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_condition_holds_where_it_should_and_nowhere_else),
        cmocka_unit_test(a_bad_filter_is_refused_and_told_what_is_allowed),
        cmocka_unit_test(damaged_metadata_passes_no_filter),
    };
    arena = arena_of(1 << 22);
    int failed = cmocka_run_group_tests_name("silo filter", tests, NULL, NULL);
    arena_free(&arena);
    return failed;
}
