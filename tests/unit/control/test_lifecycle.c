#define _GNU_SOURCE
/* Create and erase with control ended at every message that it sends or gets, before and after it
 * passed. */
#include "node.h"

#include "wire/json.h"

#include <string.h>

static const char acme[] = "{\"name\":\"acme\"}";

struct answer {
    status code;
    char detail[256];
    struct buffer json;
};

static bool call(struct node *node, const char *verb, const char *arguments, struct answer *answer)
{
    return node_call(node, verb, arguments, &answer->code, answer->detail, &answer->json);
}

static void must_call(struct node *node, const char *verb, const char *arguments,
                      struct answer *answer)
{
    assert_true(call(node, verb, arguments, answer));
    if (answer->code != OK)
        fail_msg("%s: %s", verb, answer->detail);
}

static bool json_has(const struct answer *answer, const char *text)
{
    return memmem(answer->json.data, answer->json.length, text, strlen(text)) != NULL;
}

static void a_tenant_is_made_shown_and_erased_once_with_one_receipt(void **state)
{
    (void)state;
    struct node node;
    struct answer first = {.json = buffer_of(65536)}, second = {.json = buffer_of(65536)};
    node_make(&node);
    node_start_control(&node);
    must_call(&node, "tenant.create", acme, &first);
    must_call(&node, "tenant.create", acme, &second);
    assert_true(span_equal(buffer_span(&first.json), buffer_span(&second.json)));
    assert_true(node_has_silo(&node));
    assert_true(call(&node, "tenant.create", "{\"name\":\"acme\",\"region\":\"eu\"}", &second));
    assert_int_equal(second.code, CONFLICT);
    must_call(&node, "tenant.erase", acme, &first);
    assert_false(node_has_silo(&node));
    must_call(&node, "tenant.erase", acme, &second);
    assert_true(span_equal(buffer_span(&first.json), buffer_span(&second.json)));
    assert_true(call(&node, "tenant.show", acme, &second));
    assert_int_equal(second.code, NOT_FOUND);
    must_call(&node, "tenant.create", acme, &second);
    assert_true(json_has(&second, "\"state\":\"active\""));
    node_remove(&node);
    buffer_free(&first.json);
    buffer_free(&second.json);
}

/* Whatever point it died at: the tenant is there whole or not at all, and can be made again. */
static void check_after_create(struct node *node, struct answer *answer)
{
    assert_true(call(node, "tenant.show", acme, answer));
    if (answer->code == OK)
        assert_true(json_has(answer, "\"state\":\"active\""));
    else
        assert_int_equal(answer->code, NOT_FOUND);
    assert_int_equal(node_has_silo(node), answer->code == OK);
    must_call(node, "tenant.create", acme, answer);
    assert_true(node_has_silo(node));
    must_call(node, "token.mint", "{\"name\":\"acme\",\"user\":\"u\"}", answer); /* the key lives */
}

/* Erased to the end, or untouched; then erasing again ends it with a receipt. */
static void check_after_erase(struct node *node, struct answer *answer)
{
    assert_true(call(node, "tenant.show", acme, answer));
    bool there = answer->code == OK;
    if (there)
        assert_true(json_has(answer, "\"state\":\"active\""));
    assert_int_equal(node_has_silo(node), there);
    if (there)
        must_call(node, "token.mint", "{\"name\":\"acme\",\"user\":\"u\"}", answer);
    must_call(node, "tenant.erase", acme, answer);
    assert_true(json_has(answer, "\"signature\""));
    assert_false(node_has_silo(node));
}

/* Returns false when the operation ended before its n-th message. */
static bool crash_at(uint32_t n, bool before, const char *verb, bool made_first,
                     void (*check)(struct node *, struct answer *))
{
    struct node node;
    struct answer answer = {.json = buffer_of(65536)};
    node_make(&node);
    node_start_control(&node);
    if (made_first)
        must_call(&node, "tenant.create", acme, &answer);
    node.messages = 0;
    node.die_at = n;
    node.die_before = before;
    bool answered = call(&node, verb, acme, &answer);
    bool died = node.died;
    assert_true(answered || died);
    node_stop_control(&node);
    node.died = false;
    node.die_at = 0;
    node_start_control(&node);
    check(&node, &answer);
    node_remove(&node);
    buffer_free(&answer.json);
    return died;
}

static void crash_everywhere(const char *verb, bool made_first,
                             void (*check)(struct node *, struct answer *))
{
    uint32_t points = 0;
    for (int before = 0; before < 2; before++) {
        uint32_t n = 1;
        while (crash_at(n, before != 0, verb, made_first, check))
            n++;
        points += n - 1;
    }
    print_message("%s: ended at %u points\n", verb, points);
    assert_true(points >= 12);
}

static void a_crash_at_any_point_of_create_is_undone_or_finished(void **state)
{
    (void)state;
    crash_everywhere("tenant.create", false, check_after_create);
}

static void a_crash_at_any_point_of_erase_is_undone_or_finished(void **state)
{
    (void)state;
    crash_everywhere("tenant.erase", true, check_after_erase);
}

static void must_be_refused(struct node *node, const char *verb, uint32_t type,
                            struct answer *answer)
{
    node->refuse = type;
    assert_true(call(node, verb, acme, answer));
    assert_int_not_equal(answer->code, OK);
    assert_non_null(strstr(answer->detail, "refused by the test"));
    node->refuse = 0;
}

static void a_pause_is_answered_when_the_cell_has_ended_and_not_before(void **state)
{
    (void)state;
    struct node node;
    struct answer answer = {.json = buffer_of(65536)};
    node_make(&node);
    node_start_control(&node);
    must_call(&node, "tenant.create", acme, &answer);
    must_be_refused(&node, "tenant.pause", MESSAGE_CELL_STOP, &answer);
    must_call(&node, "tenant.show", acme, &answer);
    assert_true(json_has(&answer, "\"state\":\"paused\"")); /* requests are refused already */
    must_call(&node, "tenant.pause", acme, &answer);
    assert_true(json_has(&answer, "\"state\":\"paused\""));
    must_call(&node, "tenant.resume", acme, &answer);
    assert_true(json_has(&answer, "\"state\":\"active\""));
    node_remove(&node);
    buffer_free(&answer.json);
}

static void an_erasure_that_stopped_half_way_is_taken_up_by_the_next(void **state)
{
    (void)state;
    struct node node;
    struct answer answer = {.json = buffer_of(65536)};
    node_make(&node);
    node_start_control(&node);
    must_call(&node, "tenant.create", acme, &answer);
    must_be_refused(&node, "tenant.erase", MESSAGE_SILO_REMOVE, &answer); /* its key is gone */
    must_call(&node, "tenant.show", acme, &answer);
    assert_true(json_has(&answer, "\"state\":\"erasing\""));
    must_call(&node, "tenant.erase", acme, &answer);
    assert_true(json_has(&answer, "\"signature\""));
    assert_false(node_has_silo(&node));
    node_remove(&node);
    buffer_free(&answer.json);
}

static void a_paused_tenant_is_paused_again_when_its_erasure_is_undone(void **state)
{
    (void)state;
    struct node node;
    struct answer answer = {.json = buffer_of(65536)};
    node_make(&node);
    node_start_control(&node);
    must_call(&node, "tenant.create", acme, &answer);
    must_call(&node, "tenant.pause", acme, &answer);
    must_be_refused(&node, "tenant.erase", MESSAGE_CELL_STOP, &answer); /* its key lives */
    must_call(&node, "tenant.show", acme, &answer);
    assert_true(json_has(&answer, "\"state\":\"paused\""));
    node.messages = 0;
    node.die_at = 1; /* the row says "erasing", nothing else happened */
    assert_false(call(&node, "tenant.erase", acme, &answer));
    node_stop_control(&node);
    node.died = false;
    node.die_at = 0;
    node_start_control(&node);
    must_call(&node, "tenant.show", acme, &answer);
    assert_true(json_has(&answer, "\"state\":\"paused\""));
    node_remove(&node);
    buffer_free(&answer.json);
}

static void arguments_that_are_wrong_are_refused_by_name(void **state)
{
    (void)state;
    static const struct { const char *verb, *arguments, *named; } wrong[] = {
        {"tenant.create", "{}", "name"},
        {"tenant.create", "{\"name\":\"\"}", "name"},
        {"tenant.create", "{\"name\":\"Acme\"}", "name"},
        {"tenant.create", "{\"name\":\"-a\"}", "name"},
        {"tenant.create", "{\"name\":\"a_b\"}", "name"},
        {"tenant.create", "{\"name\":\"0123456789abcdef0123456789abcdef\"}", "name"},
        {"tenant.create", "{\"name\":\"a\",\"tier\":\"gold\"}", "tier"},
        {"tenant.create", "{\"name\":\"a\",\"tier\":\"regulated\"}", "retention"},
        {"tenant.create", "{\"name\":\"a\",\"retention_days\":0}", "retention_days"},
        {"tenant.create", "{\"name\":\"a\",\"colour\":1}", "colour"},
        {"tenant.create", "[]", "arguments"},
        {"tenant.create", "{", ""},
        {"token.mint", "{\"name\":\"acme\"}", "user"},
        {"token.mint", "{\"name\":\"acme\",\"user\":\"u\",\"ttl_seconds\":0}", "ttl_seconds"},
        {"token.mint", "{\"name\":\"acme\",\"user\":\"u\",\"scope\":\"all\"}", "all"},
        {"token.mint", "{\"name\":\"acme\",\"user\":\"u\",\"clearance\":\"top\"}", "clearance"},
        {"tenant.show", "{\"name\":\"nobody\"}", "no tenant"},
        {"tenant.erase", "{\"name\":\"nobody\"}", "no tenant"},
        {"no.such.verb", "{}", "no.such.verb"},
    };
    struct node node;
    struct answer answer = {.json = buffer_of(65536)};
    node_make(&node);
    node_start_control(&node);
    must_call(&node, "tenant.create", acme, &answer);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_true(call(&node, wrong[i].verb, wrong[i].arguments, &answer));
        if (answer.code == OK || !strstr(answer.detail, wrong[i].named))
            fail_msg("%s %s: status %d, \"%s\"", wrong[i].verb, wrong[i].arguments, answer.code,
                     answer.detail);
    }
    node_remove(&node);
    buffer_free(&answer.json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_tenant_is_made_shown_and_erased_once_with_one_receipt),
        cmocka_unit_test(a_crash_at_any_point_of_create_is_undone_or_finished),
        cmocka_unit_test(a_crash_at_any_point_of_erase_is_undone_or_finished),
        cmocka_unit_test(a_pause_is_answered_when_the_cell_has_ended_and_not_before),
        cmocka_unit_test(an_erasure_that_stopped_half_way_is_taken_up_by_the_next),
        cmocka_unit_test(a_paused_tenant_is_paused_again_when_its_erasure_is_undone),
        cmocka_unit_test(arguments_that_are_wrong_are_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
