/* What a silo keeps of its charters and of tokens that serve once, and what a changed posture does
 * to what is stored. */
#include "house.h"

#include "silo/state.h"
#include "silo/used_tokens.h"

enum { FIRST = 7, SECOND = 8 };

static struct signed_charter charter_of(struct house *house, uint64_t sequence,
                                        struct span document)
{
    struct signed_charter charter = {.sequence = sequence, .document = document,
                                     .signature = {FIRST, SECOND}};
    memcpy(charter.id, house->opening.tenant_id, sizeof charter.id);
    return charter;
}

static struct charter_head head_in(struct house *house, enum silo_charter scope)
{
    struct charter_head head;
    assert_ok(house, silo_charter_head(&head, house->silo, scope, &house->fault));
    return head;
}

static void must_hold(struct house *house, const struct signed_charter *wanted)
{
    struct buffer bytes = buffer_of(MIB(1));
    struct signed_charter found;
    uint8_t hash[HASH_BYTES];
    struct charter_head head = head_in(house, SILO_CHARTER_TENANT);
    charter_hash(hash, wanted->id, wanted->sequence, wanted->document);
    assert_int_equal(head.sequence, wanted->sequence);
    assert_memory_equal(head.hash, hash, HASH_BYTES);
    assert_ok(house, silo_charter(&bytes, house->silo, SILO_CHARTER_TENANT, &house->fault));
    struct cursor cursor = cursor_over(buffer_span(&bytes));
    assert_ok(house, signed_charter_get(&found, &cursor, &house->fault));
    assert_ok(house, cursor_end(&cursor, &house->fault));
    assert_true(span_equal(found.document, wanted->document));
    assert_memory_equal(found.id, wanted->id, sizeof found.id);
    assert_memory_equal(found.signature, wanted->signature, sizeof found.signature);
    buffer_free(&bytes);
}

static void a_copy_is_stored_with_the_next_commit_and_replaces_the_one_before(void **state)
{
    struct house *house = *state;
    static uint8_t large[CHARTER_MAX];
    memset(large, 'x', sizeof large);
    struct signed_charter first = charter_of(house, 1, SPAN("{\"first\":1}"));
    struct signed_charter second = charter_of(house, 2, SPAN_OF(large));
    remember(house, &alice, "before any charter");
    assert_int_equal(head_in(house, SILO_CHARTER_TENANT).sequence, 0);
    silo_keep_charter(house->silo, SILO_CHARTER_TENANT, &first);
    assert_int_equal(head_in(house, SILO_CHARTER_TENANT).sequence, 0); /* not yet */
    remember(house, &alice, "with it");
    must_hold(house, &first);
    silo_keep_charter(house->silo, SILO_CHARTER_TENANT, &second);
    remember(house, &alice, "with the next");
    must_hold(house, &second);
    house_reopen(house);
    must_hold(house, &second);
    house_crash(house);
    must_hold(house, &second);
    assert_int_equal(head_in(house, SILO_CHARTER_PLATFORM).sequence, 0);
}

static void a_copy_that_no_commit_followed_is_lost_and_nothing_else(void **state)
{
    struct house *house = *state;
    struct signed_charter first = charter_of(house, 1, SPAN("{\"first\":1}"));
    struct signed_charter second = charter_of(house, 2, SPAN("{\"second\":2}"));
    silo_keep_charter(house->silo, SILO_CHARTER_TENANT, &first);
    remember(house, &alice, "x");
    silo_keep_charter(house->silo, SILO_CHARTER_TENANT, &second);
    house_crash(house);
    must_hold(house, &first);
}

static void what_a_shorter_retention_forbids_is_hidden_at_once_and_then_deleted(void **state)
{
    struct house *house = *state;
    struct posture posture = house->opening.posture;
    remember(house, &alice, "of the first day");
    house->now_us += 10 * DAY_US;
    const char *late = remember(house, &alice, "of the tenth day");
    assert_int_equal(silo_next_expiry_us(house->silo), 0);
    posture.retention_days = 5;
    silo_set_posture(house->silo, &posture, 2);
    assert_true(silo_next_expiry_us(house->silo) <= house->now_us);
    assert_ok(house, ask(house, &alice, "GET", "/v1/memories", "", NULL));
    assert_int_equal(answer_data(house)->count, 1);
    house_expire(house, false);
    assert_int_equal(silo_next_expiry_us(house->silo), house->now_us + 5 * DAY_US);
    posture.retention_days = 0;
    silo_set_posture(house->silo, &posture, 3);
    assert_int_equal(silo_next_expiry_us(house->silo), 0);
    assert_ok(house, ask(house, &alice, "GET", "/v1/memories", "", NULL));
    assert_int_equal(answer_data(house)->count, 1); /* the first is gone for good */
    assert_string_equal(answer_text(house, answer_item(house, 0), "id"), late);
    house->opening.posture.retention_days = 5; /* shortened while it slept */
    house->now_us += 6 * DAY_US;
    house_reopen(house);
    house_expire(house, false);
    assert_ok(house, ask(house, &alice, "GET", "/v1/memories", "", NULL));
    assert_int_equal(answer_data(house)->count, 0);
}

/* ---- tokens that serve once ---- */

static status use(struct house *house, uint32_t number, int64_t lives_seconds)
{
    uint8_t id[HASH_BYTES] = {(uint8_t)number, (uint8_t)(number >> 8), (uint8_t)(number >> 16)};
    struct silo_request request = {.token_once = SPAN_OF(id),
                                   .token_until = house->now_us / SECOND_US + lives_seconds};
    house->silo->wrote = true;
    return used_token_take(house->silo, &request, &house->fault);
}

static void begin(struct house *house)
{
    silo_begin(house->silo, house->now_us);
    assert_ok(house, silo_write(house->silo, &house->fault));
}

static void a_used_token_stays_used_until_it_has_expired_and_is_then_forgotten(void **state)
{
    struct house *house = *state;
    begin(house);
    assert_ok(house, use(house, 1, 100));
    assert_ok(house, use(house, 2, 200));
    assert_status(house, use(house, 1, 100), UNAUTHENTICATED);
    assert_ok(house, silo_commit(house->silo, &house->fault));
    house_crash(house);
    begin(house);
    assert_status(house, use(house, 1, 100), UNAUTHENTICATED);
    assert_status(house, use(house, 2, 100), UNAUTHENTICATED);
    assert_ok(house, silo_commit(house->silo, &house->fault));
    assert_int_equal(house->silo->used_tokens.count, 2);
    house->now_us += 99 * SECOND_US;
    house_expire(house, true);
    assert_int_equal(house->silo->used_tokens.count, 2);
    house->now_us += SECOND_US;
    house_expire(house, false);
    assert_int_equal(house->silo->used_tokens.count, 1);
    house_reopen(house);
    begin(house);
    assert_status(house, use(house, 2, 100), UNAUTHENTICATED);
    assert_int_equal(house->silo->used_tokens.count, 1);
    assert_ok(house, silo_commit(house->silo, &house->fault));
}

static void a_use_that_was_taken_back_did_not_happen(void **state)
{
    struct house *house = *state;
    begin(house);
    assert_ok(house, use(house, 1, 100));
    assert_ok(house, silo_commit(house->silo, &house->fault));
    begin(house);
    assert_ok(house, use(house, 2, 100));
    house_crash(house);
    begin(house);
    assert_ok(house, use(house, 2, 100));
    assert_status(house, use(house, 1, 100), UNAUTHENTICATED);
    assert_ok(house, silo_commit(house->silo, &house->fault));
}

static void as_many_tokens_as_the_bound_are_remembered_and_no_more_are_served(void **state)
{
    struct house *house = *state;
    begin(house);
    for (uint32_t i = 0; i < USED_TOKENS_MAX; i++)
        assert_ok(house, use(house, i, 100 + i / 1000));
    assert_status(house, use(house, USED_TOKENS_MAX, 100), UNAVAILABLE);
    assert_ok(house, silo_commit(house->silo, &house->fault));
    house_reopen(house);
    begin(house);
    assert_status(house, use(house, USED_TOKENS_MAX, 100), UNAVAILABLE);
    assert_ok(house, silo_commit(house->silo, &house->fault));
    house->now_us += 101 * SECOND_US; /* the first thousand are of no use any more */
    begin(house);
    assert_ok(house, use(house, USED_TOKENS_MAX, 100));
    assert_true(house->silo->used_tokens.count < USED_TOKENS_MAX);
    assert_status(house, use(house, USED_TOKENS_MAX - 1, 100), UNAUTHENTICATED);
    assert_ok(house, silo_commit(house->silo, &house->fault));
    house->now_us += 1000 * SECOND_US;
    house_expire(house, true);
    assert_int_equal(house->silo->used_tokens.count, 0);
}

static void space_that_deletions_left_is_not_counted(void **state)
{
    struct house *house = *state;
    enum { ITEMS = 100 };
    static char text[3000];
    const char *ids[ITEMS];
    memset(text, 'a', sizeof text - 1);
    uint64_t empty = silo_bytes(house->silo);
    for (int i = 0; i < ITEMS; i++)
        ids[i] = remember(house, &alice, text);
    uint64_t full = silo_bytes(house->silo);
    assert_true(full > empty + ITEMS * sizeof text);
    for (int i = 0; i < ITEMS; i++)
        assert_ok(house, ask(house, &alice, "DELETE", path_of(house, ids[i], ""), "", NULL));
    house_expire(house, true);
    assert_true(silo_bytes(house->silo) < full - ITEMS / 2 * sizeof text);
    silo_begin(house->silo, house->now_us); /* what an open turn added counts */
    uint64_t before = silo_bytes(house->silo);
    char body[sizeof text + 32];
    snprintf(body, sizeof body, "{\"text\":\"%s\"}", text);
    for (int i = 0; i < 10; i++)
        assert_ok(house, ask_in_turn(house, &alice, "POST", "/v1/memories", "", body));
    assert_true(silo_bytes(house->silo) >= before + 5 * sizeof text);
    assert_ok(house, silo_commit(house->silo, &house->fault));
}

#define HOUSE_TEST(name) cmocka_unit_test_setup_teardown(name, house_build, house_pull_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        HOUSE_TEST(a_copy_is_stored_with_the_next_commit_and_replaces_the_one_before),
        HOUSE_TEST(a_copy_that_no_commit_followed_is_lost_and_nothing_else),
        HOUSE_TEST(what_a_shorter_retention_forbids_is_hidden_at_once_and_then_deleted),
        HOUSE_TEST(a_used_token_stays_used_until_it_has_expired_and_is_then_forgotten),
        HOUSE_TEST(a_use_that_was_taken_back_did_not_happen),
        HOUSE_TEST(as_many_tokens_as_the_bound_are_remembered_and_no_more_are_served),
        HOUSE_TEST(space_that_deletions_left_is_not_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
