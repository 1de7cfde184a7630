#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "silo/actions.h"

static status route(struct route *ret, char *allow, const char *method, struct span path)
{
    struct fault fault = {"untouched"};
    memset(allow, 'x', ACTION_ALLOW_MAX);
    status code = authz_route(ret, allow, &action_table, span_of_text(method), path, &fault);
    assert_non_null(memchr(allow, '\0', ACTION_ALLOW_MAX));
    assert_true((allow[0] != '\0') == (code == METHOD_NOT_ALLOWED));
    assert_true((strcmp(fault.detail, "untouched") == 0) == (code == OK));
    return code;
}

static status route_text(struct route *ret, char *allow, const char *method, const char *path)
{
    return route(ret, allow, method, span_of_text(path));
}

static void the_table_is_sound(void **state)
{
    (void)state;
    struct fault fault = {""};
    assert_int_equal(action_table_check(&action_table, &fault), OK);
    uint32_t sum = (uint32_t)MEMORY_ACTIONS + (uint32_t)KNOWLEDGE_ACTIONS +
                   (uint32_t)OBJECT_ACTIONS + (uint32_t)TENANT_ACTIONS +
                   (uint32_t)EVIDENCE_ACTIONS;
    assert_int_equal(action_count(&action_table), sum);
}

static void every_row_is_reached_by_its_own_method_and_path(void **state)
{
    (void)state;
    const struct {
        const char *method, *path, *name, *id;
        enum scope scope;
        bool mutates;
    } expected[] = {
        {"POST", "/v1/memories", "memory.add", NULL, SCOPE_MEMORY_WRITE, true},
        {"GET", "/v1/memories", "memory.list", NULL, SCOPE_MEMORY_READ, false},
        {"DELETE", "/v1/memories", "memory.forget_user", NULL, SCOPE_MEMORY_WRITE, true},
        {"POST", "/v1/memories/search", "memory.search", NULL, SCOPE_MEMORY_READ, false},
        {"GET", "/v1/memories/01H", "memory.read", "01H", SCOPE_MEMORY_READ, false},
        {"PATCH", "/v1/memories/01H", "memory.update", "01H", SCOPE_MEMORY_WRITE, true},
        {"DELETE", "/v1/memories/a b", "memory.delete", "a b", SCOPE_MEMORY_WRITE, true},
        {"GET", "/v1/memories/01H/history", "memory.history", "01H", SCOPE_MEMORY_READ, false},
        {"GET", "/v1/documents", "knowledge.list", NULL, SCOPE_KNOWLEDGE_READ, false},
        {"POST", "/v1/documents/batch", "knowledge.batch", NULL, SCOPE_KNOWLEDGE_WRITE, true},
        {"PUT", "/v1/documents/a b", "knowledge.put", "a b", SCOPE_KNOWLEDGE_WRITE, true},
        {"GET", "/v1/documents/a", "knowledge.read", "a", SCOPE_KNOWLEDGE_READ, false},
        {"DELETE", "/v1/documents/a", "knowledge.delete", "a", SCOPE_KNOWLEDGE_WRITE, true},
        {"POST", "/v1/search", "knowledge.search", NULL, SCOPE_KNOWLEDGE_READ, false},
        {"PUT", "/v1/objects/a/b", "object.put", "a/b", SCOPE_OBJECTS_WRITE, true},
        {"GET", "/v1/objects/a", "object.get", "a", SCOPE_OBJECTS_READ, false},
        {"DELETE", "/v1/objects/a/b/c/d/e/f/g/h", "object.delete", "a/b/c/d/e/f/g/h",
         SCOPE_OBJECTS_WRITE, true},
        {"GET", "/v1/objects", "object.list", NULL, SCOPE_OBJECTS_READ, false},
        {"GET", "/v1/tenant", "tenant.read", NULL, SCOPE_TENANT_READ, false},
        {"GET", "/v1/audit", "audit.list", NULL, SCOPE_AUDIT_READ, false},
        {"GET", "/v1/audit/checkpoint", "audit.checkpoint", NULL, SCOPE_AUDIT_READ, false},
        {"GET", "/v1/audit/proof", "audit.proof", NULL, SCOPE_AUDIT_READ, false},
        {"GET", "/v1/audit/consistency", "audit.consistency", NULL, SCOPE_AUDIT_READ, false},
        {"GET", "/v1/audit/export", "audit.export", NULL, SCOPE_AUDIT_READ, false},
        {"POST", "/v1/audit/hash", "audit.hash", NULL, SCOPE_AUDIT_READ, false},
        {"HEAD", "/v1/memories", "memory.list", NULL, SCOPE_MEMORY_READ, false},
        {"HEAD", "/v1/memories/01H", "memory.read", "01H", SCOPE_MEMORY_READ, false},
    };
    assert_int_equal(sizeof expected / sizeof *expected - 2, action_count(&action_table));
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        struct route found;
        char allow[ACTION_ALLOW_MAX];
        assert_int_equal(route_text(&found, allow, expected[i].method, expected[i].path), OK);
        assert_string_equal(found.action->name, expected[i].name);
        assert_int_equal(found.action->scope, expected[i].scope);
        assert_int_equal(found.action->mutates, expected[i].mutates);
        assert_int_equal(found.id_count, expected[i].id ? 1 : 0);
        if (expected[i].id)
            assert_true(span_is(found.ids[0], expected[i].id));
        assert_ptr_equal(found.action, &action_table.sets[found.set].rows[found.row]);
        assert_ptr_equal(found.action, action_numbered(&action_table, found.number));
    }
}

static void an_action_stands_where_its_kind_says(void **state)
{
    (void)state;
    struct route found;
    char allow[ACTION_ALLOW_MAX];
    assert_int_equal(route_text(&found, allow, "POST", "/v1/memories/search"), OK);
    assert_int_equal(found.set, ACTIONS_MEMORY);
    assert_int_equal(found.row, MEMORY_SEARCH);
    assert_int_equal(route_text(&found, allow, "GET", "/v1/tenant"), OK);
    assert_int_equal(found.set, ACTIONS_TENANT);
    assert_int_equal(found.row, TENANT_READ);
    assert_null(action_numbered(&action_table, 0));
    assert_null(action_numbered(&action_table, action_count(&action_table) + 1));
}

static void what_has_no_row_does_not_exist(void **state)
{
    (void)state;
    const char *paths[] = {
        "", "/", "//", "*", "v1/memories", "/v1", "/v1/", "/v1/memory", "/V1/memories",
        "/v1/memories/", "/v1//memories", "//v1/memories", "/v1/memories/x/",
        "/v1/memories//history", "/v1/memories/.", "/v1/memories/..", "/v1/./memories",
        "/v1/../v1/memories",
        "/v1/memories/../tenant", "/v1/memories/x/histor", "/v1/memories/x/history/y",
        "/v1/memories/x/y/z/a/b/c/d/e/f/g", "/v1/memories?user_id=u", "/v1/memories/a\nb",
        "/v1/memories/\xff", "/v1/memories/\x7f", "/v1/memoriess", "/v1/tenant/x", "/v1/{id}",
    };
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        struct route found = {.row = 77};
        char allow[ACTION_ALLOW_MAX];
        assert_int_equal(route_text(&found, allow, "GET", paths[i]), NOT_FOUND);
        assert_int_equal(found.row, 77);
    }
    struct route found;
    char allow[ACTION_ALLOW_MAX];
    assert_int_equal(route(&found, allow, "GET", SPAN("/v1/memories/a\0b")), NOT_FOUND);
    assert_int_equal(route(&found, allow, "GET", SPAN("/v1/tenant\0")), NOT_FOUND);
    assert_int_equal(route(&found, allow, "GET", (struct span){0}), NOT_FOUND);
}

static void an_id_has_its_bound(void **state)
{
    (void)state;
    char path[64 + ACTION_ID_MAX] = "/v1/memories/";
    size_t head = strlen(path);
    struct route found;
    char allow[ACTION_ALLOW_MAX];
    memset(path + head, 'i', ACTION_ID_MAX + 1);
    struct span longest = {(const uint8_t *)path, head + ACTION_ID_MAX};
    struct span longer = {(const uint8_t *)path, head + ACTION_ID_MAX + 1};
    assert_int_equal(route(&found, allow, "GET", longest), OK);
    assert_int_equal(found.ids[0].length, ACTION_ID_MAX);
    assert_int_equal(route(&found, allow, "GET", longer), NOT_FOUND);
}

static void another_method_is_told_which_are_allowed(void **state)
{
    (void)state;
    const struct {
        const char *method, *path, *allow;
    } expected[] = {
        {"PUT", "/v1/memories", "POST, GET, HEAD, DELETE"},
        {"get", "/v1/memories", "POST, GET, HEAD, DELETE"},
        {"", "/v1/memories", "POST, GET, HEAD, DELETE"},
        {"HEAD", "/v1/memories/search", "POST"},
        {"head", "/v1/tenant", "GET, HEAD"},
        {"POST", "/v1/memories/01H", "GET, HEAD, PATCH, DELETE"},
        {"DELETE", "/v1/memories/01H/history", "GET, HEAD"},
        /* the literal names the path: there is no memory called search */
        {"GET", "/v1/memories/search", "POST"},
        {"DELETE", "/v1/memories/search", "POST"},
    };
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        struct route found = {.row = 77};
        char allow[ACTION_ALLOW_MAX];
        assert_int_equal(route_text(&found, allow, expected[i].method, expected[i].path),
                         METHOD_NOT_ALLOWED);
        assert_string_equal(allow, expected[i].allow);
        assert_int_equal(found.row, 77);
    }
}

static void the_earlier_literal_wins_in_any_order_of_rows(void **state)
{
    (void)state;
    const struct action rows[] = {
        {.name = "c", .method = "GET", .path = "/a/{x}/{y}", .resource = "r"},
        {.name = "b", .method = "GET", .path = "/a/{x}/c", .resource = "r"},
        {.name = "a", .method = "GET", .path = "/a/b/{y}", .resource = "r"},
    };
    const char *paths[] = {"/a/b/c", "/a/z/c", "/a/z/z"}, *names[] = {"a", "b", "c"};
    const uint32_t ids[] = {1, 1, 2};
    struct fault fault;
    for (int turned = 0; turned < 2; turned++) {
        const struct action reversed[] = {rows[2], rows[1], rows[0]};
        const struct action_set set = {"r", turned ? reversed : rows, 3};
        const struct action_table table = {&set, 1};
        assert_int_equal(action_table_check(&table, &fault), OK);
        for (size_t i = 0; i < 3; i++) {
            struct route found;
            char allow[ACTION_ALLOW_MAX];
            assert_int_equal(authz_route(&found, allow, &table, SPAN("GET"),
                                         span_of_text(paths[i]), &fault), OK);
            assert_string_equal(found.action->name, names[i]);
            assert_int_equal(found.id_count, ids[i]);
        }
    }
}

static const struct action of_keys[] = {
    {.name = "read", .method = "GET", .path = "/o/{key...}", .resource = "r"},
    {.name = "list", .method = "GET", .path = "/o", .resource = "r"},
    {.name = "one", .method = "DELETE", .path = "/o/{id}", .resource = "r"},
    {.name = "tags", .method = "GET", .path = "/o/{id}/tags", .resource = "r"},
};
static const struct action_set set_of_keys = {"r", of_keys, 4};
static const struct action_table table_of_keys = {&set_of_keys, 1};

static void the_last_placeholder_may_take_the_rest_of_a_path(void **state)
{
    (void)state;
    static const struct {
        const char *path, *name, *id; /* name NULL: there is nothing at this path */
    } expected[] = {
        {"/o/a/b", "read", "a/b"},
        {"/o/a/b/c/d/e/f/g/h/i/j/k", "read", "a/b/c/d/e/f/g/h/i/j/k"},
        {"/o/a b/\xc3\xa9.txt", "read", "a b/\xc3\xa9.txt"},
        {"/o/a/tags", "tags", "a"}, /* more of it is literal */
        {"/o/a/tags/b", "read", "a/tags/b"},
        {"/o", "list", NULL},
        {"/o/", NULL, NULL}, {"/o/a/", NULL, NULL}, {"/o/a//b", NULL, NULL},
        {"/o/a/./b", NULL, NULL}, {"/o/a/..", NULL, NULL}, {"/o/../o/a", NULL, NULL},
        {"/o/a/b/c/d/e/f/g/h/i/j/..", NULL, NULL}, {"/o/a/b/c/d/e/f/g/h/i//k", NULL, NULL},
        {"/o/a/b\n", NULL, NULL}, {"/o/a/\xff", NULL, NULL}, {"/p/a/b", NULL, NULL},
    };
    struct fault fault;
    assert_int_equal(action_table_check(&table_of_keys, &fault), OK);
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        struct route found;
        char allow[ACTION_ALLOW_MAX];
        status code = authz_route(&found, allow, &table_of_keys, SPAN("GET"),
                                  span_of_text(expected[i].path), &fault);
        assert_int_equal(code, expected[i].name ? OK : NOT_FOUND);
        if (!expected[i].name)
            continue;
        assert_string_equal(found.action->name, expected[i].name);
        assert_int_equal(found.id_count, expected[i].id ? 1 : 0);
        if (expected[i].id)
            assert_true(span_is(found.ids[0], expected[i].id));
    }
}

static void a_single_segment_goes_to_the_placeholder_of_one(void **state)
{
    (void)state;
    struct route found;
    struct fault fault;
    char allow[ACTION_ALLOW_MAX];
    assert_int_equal(authz_route(&found, allow, &table_of_keys, SPAN("DELETE"), SPAN("/o/a"),
                                 &fault), OK);
    assert_int_equal(authz_route(&found, allow, &table_of_keys, SPAN("GET"), SPAN("/o/a"),
                                 &fault), METHOD_NOT_ALLOWED);
    assert_string_equal(allow, "DELETE");
}

static void the_rest_of_a_path_has_its_bound(void **state)
{
    (void)state;
    char path[64 + OBJECT_KEY_MAX] = "/o/";
    size_t head = strlen(path);
    struct route found;
    struct fault fault;
    char allow[ACTION_ALLOW_MAX];
    memset(path + head, 'k', OBJECT_KEY_MAX + 1);
    path[head + 1] = '/';
    struct span longest = {(const uint8_t *)path, head + OBJECT_KEY_MAX};
    struct span longer = {(const uint8_t *)path, head + OBJECT_KEY_MAX + 1};
    assert_int_equal(authz_route(&found, allow, &table_of_keys, SPAN("GET"), longest, &fault), OK);
    assert_int_equal(found.ids[0].length, OBJECT_KEY_MAX);
    assert_int_equal(authz_route(&found, allow, &table_of_keys, SPAN("GET"), longer, &fault),
                     NOT_FOUND);
}

static void a_row_knows_its_query_parameters(void **state)
{
    (void)state;
    const char *const *list = action_query_names(&memory_actions[MEMORY_LIST]);
    const char *const *forget = action_query_names(&memory_actions[MEMORY_FORGET_USER]);
    const char *const *none = action_query_names(&memory_actions[MEMORY_ADD]);
    assert_string_equal(list[0], "user_id");
    assert_string_equal(list[4], "cursor");
    assert_null(list[5]);
    assert_string_equal(forget[0], "user_id");
    assert_null(forget[1]);
    assert_null(none[0]);
}

static void a_defect_of_a_table_is_found(void **state)
{
    (void)state;
    const struct action good = {.name = "r.x", .method = "GET", .path = "/v1/x", .resource = "r"};
    struct action bad[14];
    for (size_t i = 0; i < 14; i++)
        bad[i] = good;
    bad[0].name = NULL;
    bad[1].method = "TRACE";
    bad[2].path = "/v1/x/";
    bad[3].path = "/{a}/{b}/{c}";
    bad[4].scope = SCOPE_COUNT;
    bad[5].mutates = true;
    bad[6].body = ACTION_BODY_JSON;
    bad[7].body_max = 1;
    bad[8].path = "/1/2/3/4/5/6/7/8/9";
    bad[9].path = "v1/x";
    bad[10].method = "POST", bad[10].body = ACTION_BODY_JSON;
    bad[10].body_max = DOCUMENT_BODY_MAX + 1;
    bad[11].path = "/v1/\x01";
    bad[12].path = "/v1/{a...}/b";
    bad[13].method = "PUT", bad[13].body = ACTION_BODY_BYTES;
    bad[13].streams = ACTION_STREAMS_IN, bad[13].body_max = OBJECT_BYTES_MAX + 1;
    struct fault fault;
    const struct action_set good_set = {"r", &good, 1};
    assert_int_equal(action_table_check(&(struct action_table){&good_set, 1}, &fault), OK);
    for (size_t i = 0; i < 14; i++) {
        const struct action_set set = {"r", &bad[i], 1};
        assert_int_equal(action_table_check(&(struct action_table){&set, 1}, &fault), INTERNAL);
    }
    struct action same_name = good, same_path = good;
    same_name.path = "/v1/y";
    same_path.name = "r.y";
    const struct action_set one = {"r", &good, 1}, name = {"s", &same_name, 1},
                            path = {"t", &same_path, 1};
    const struct action_set names[] = {one, name}, paths[] = {one, path};
    assert_int_equal(action_table_check(&(struct action_table){names, 2}, &fault), INTERNAL);
    assert_int_equal(action_table_check(&(struct action_table){paths, 2}, &fault), INTERNAL);
    struct action wild[] = {good, good};
    wild[0].path = "/v1/{a}", wild[1].path = "/v1/{b}", wild[1].name = "r.y";
    const struct action_set shapes = {"r", wild, 2};
    assert_int_equal(action_table_check(&(struct action_table){&shapes, 1}, &fault), INTERNAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_table_is_sound),
        cmocka_unit_test(every_row_is_reached_by_its_own_method_and_path),
        cmocka_unit_test(an_action_stands_where_its_kind_says),
        cmocka_unit_test(what_has_no_row_does_not_exist),
        cmocka_unit_test(an_id_has_its_bound),
        cmocka_unit_test(another_method_is_told_which_are_allowed),
        cmocka_unit_test(the_earlier_literal_wins_in_any_order_of_rows),
        cmocka_unit_test(the_last_placeholder_may_take_the_rest_of_a_path),
        cmocka_unit_test(a_single_segment_goes_to_the_placeholder_of_one),
        cmocka_unit_test(the_rest_of_a_path_has_its_bound),
        cmocka_unit_test(a_row_knows_its_query_parameters),
        cmocka_unit_test(a_defect_of_a_table_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
