/* The cell under charters: what it takes for one, what follows from it, what is revoked. */
#include "fake_silo.h"
#include "harness.h"

#include "base/clock.h"

#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static struct harness_charter older, other;

static struct harness_request read_with(const char *bearer)
{
    return (struct harness_request){.method = "GET", .path = "/v1/memories", .token = bearer};
}

static struct charter *of_tenant(struct harness *harness)
{
    return &harness->charters[SILO_CHARTER_TENANT];
}

/* Signs what the tenant's (the platform's) charter now says and has it in force in the cell. */
static void change(struct harness *harness, enum silo_charter scope)
{
    harness_sign(harness, scope);
    harness_send_charter(harness, &harness->in_force[scope]);
    char any[2048];
    harness_token(any, harness,
                  (struct harness_token){.tenant = "00112233445566778899aabbccddeeff"});
    harness_ask(harness, read_with(any), 401, NULL); /* a turn later it has been read */
}

static void must_not_serve(struct harness *harness)
{
    harness_begin(harness);
    harness_expect_failed(harness, UNAVAILABLE);
    assert_int_equal(fake_silo->handled, 0);
}

static void sign_twice(struct harness *harness)
{
    older = harness->in_force[SILO_CHARTER_TENANT];
    of_tenant(harness)->posture.retention_days = 7;
    harness_sign(harness, SILO_CHARTER_TENANT);
}

/* ---- waking ---- */

static void keep_copy(const struct harness_charter *charter)
{
    fake_silo->copy_head = charter->head;
    fake_silo->copy_length = charter->length;
    memcpy(fake_silo->copy, charter->bytes, charter->length);
}

static void it_serves_under_the_charter_that_the_kms_names(void **state)
{
    struct harness *harness = *state;
    sign_twice(harness);
    harness_start(harness);
    harness_ask(harness, read_with(token), 200, NULL);
    assert_int_equal(fake_silo->retention_days, 7);
    assert_int_equal(fake_silo->sequence, 2);
}

static void an_older_charter_that_was_once_true_is_not_served_under(void **state)
{
    struct harness *harness = *state;
    sign_twice(harness);
    harness->handed[SILO_CHARTER_TENANT] = &older;
    must_not_serve(harness);
}

static void a_newer_one_than_the_kms_names_is_not_served_under(void **state)
{
    struct harness *harness = *state;
    of_tenant(harness)->posture.retention_days = 9;
    harness_forge(&other, harness, SILO_CHARTER_TENANT, 2, harness->platform);
    harness->handed[SILO_CHARTER_TENANT] = &other;
    must_not_serve(harness);
}

static void other_words_under_the_same_number_are_not_served_under(void **state)
{
    struct harness *harness = *state;
    of_tenant(harness)->posture.retention_days = 9;
    harness_forge(&other, harness, SILO_CHARTER_TENANT, 1, harness->platform);
    harness->handed[SILO_CHARTER_TENANT] = &other;
    must_not_serve(harness);
}

static void the_right_words_need_the_signature_of_the_platform(void **state)
{
    struct harness *harness = *state;
    harness_forge(&other, harness, SILO_CHARTER_TENANT, 1, harness->stranger);
    assert_memory_equal(other.head.hash, harness->in_force[SILO_CHARTER_TENANT].head.hash,
                        HASH_BYTES);
    harness->handed[SILO_CHARTER_TENANT] = &other;
    must_not_serve(harness);
}

/* Its signature was found good when the silo kept it. Other words still are other words. */
static void what_the_silo_has_kept_needs_no_signature_again(void **state)
{
    struct harness *harness = *state;
    keep_copy(&harness->in_force[SILO_CHARTER_TENANT]);
    harness_forge(&other, harness, SILO_CHARTER_TENANT, 1, harness->stranger);
    harness->handed[SILO_CHARTER_TENANT] = &other;
    harness_start(harness);
    harness_ask(harness, read_with(token), 200, NULL);
    assert_int_equal(fake_silo->sequence, 1);
}

static void a_kept_copy_vouches_for_no_other_charter(void **state)
{
    struct harness *harness = *state;
    keep_copy(&harness->in_force[SILO_CHARTER_TENANT]);
    of_tenant(harness)->posture.retention_days = 9;
    harness_forge(&other, harness, SILO_CHARTER_TENANT, 2, harness->stranger);
    harness->in_force[SILO_CHARTER_TENANT].head = other.head;
    harness->handed[SILO_CHARTER_TENANT] = &other;
    must_not_serve(harness);
}

static void the_charter_of_another_tenant_is_not_served_under(void **state)
{
    struct harness *harness = *state;
    of_tenant(harness)->id[0] ^= 1;
    harness_forge(&other, harness, SILO_CHARTER_TENANT, 1, harness->platform);
    harness->handed[SILO_CHARTER_TENANT] = &other;
    must_not_serve(harness);
    harness->in_force[SILO_CHARTER_TENANT].head = other.head; /* not even if the kms erred */
    must_not_serve(harness);
}

static void nothing_at_all_or_rubbish_is_not_served_under(void **state)
{
    struct harness *harness = *state;
    memset(&other, 0, sizeof other);
    harness->handed[SILO_CHARTER_TENANT] = &other;
    must_not_serve(harness);
    other.length = 200;
    must_not_serve(harness);
    other = harness->in_force[SILO_CHARTER_TENANT];
    other.length--;
    must_not_serve(harness);
    other.bytes[other.length++] = 0;
    other.length++; /* one byte too many */
    must_not_serve(harness);
}

static void a_tenant_without_any_charter_is_not_served(void **state)
{
    struct harness *harness = *state;
    harness->handed[SILO_CHARTER_TENANT] = &older;
    older = harness->in_force[SILO_CHARTER_TENANT];
    harness->in_force[SILO_CHARTER_TENANT] = (struct harness_charter){0};
    must_not_serve(harness);
}

static void the_platforms_charter_cannot_be_withheld_either(void **state)
{
    struct harness *harness = *state;
    memset(&other, 0, sizeof other);
    harness_sign(harness, SILO_CHARTER_PLATFORM);
    harness->handed[SILO_CHARTER_PLATFORM] = &other;
    must_not_serve(harness);
    harness->handed[SILO_CHARTER_PLATFORM] = &harness->in_force[SILO_CHARTER_TENANT];
    must_not_serve(harness);
    harness->handed[SILO_CHARTER_PLATFORM] = NULL;
    harness_start(harness);
    harness_ask(harness, read_with(token), 200, NULL);
}

static void its_own_copy_serves_when_control_withholds_the_charter(void **state)
{
    struct harness *harness = *state;
    sign_twice(harness);
    keep_copy(&harness->in_force[SILO_CHARTER_TENANT]);
    harness->handed[SILO_CHARTER_TENANT] = &older;
    harness_start(harness);
    harness_ask(harness, read_with(token), 200, NULL);
    assert_int_equal(fake_silo->retention_days, 7);
    assert_int_equal(fake_silo->kept[SILO_CHARTER_TENANT], 0);
}

static void its_own_copy_is_not_used_when_it_is_an_older_one(void **state)
{
    struct harness *harness = *state;
    sign_twice(harness);
    keep_copy(&older);
    harness->handed[SILO_CHARTER_TENANT] = &older;
    must_not_serve(harness);
    fake_silo->copy_head = harness->in_force[SILO_CHARTER_TENANT].head; /* only its head is new */
    must_not_serve(harness);
    harness->handed[SILO_CHARTER_TENANT] = NULL;
    fake_silo->copy_head = older.head;
    harness_start(harness);
    assert_int_equal(fake_silo->kept[SILO_CHARTER_TENANT], 2); /* the copy is replaced */
}

static void a_charter_that_was_signed_while_it_woke_is_taken(void **state)
{
    struct harness *harness = *state;
    struct ipc_message message;
    older = harness->in_force[SILO_CHARTER_TENANT];
    harness->handed[SILO_CHARTER_TENANT] = &older;
    harness->mood = KMS_SILENT;
    harness_begin(harness);
    sign_twice(harness);
    harness_send_charter(harness, &harness->in_force[SILO_CHARTER_TENANT]);
    harness->mood = KMS_ANSWERS;
    harness_expect(&message, harness, MESSAGE_CELL_READY);
    assert_int_equal(fake_silo->retention_days, 7);
}

/* ---- while it is awake ---- */

static void a_new_charter_is_in_force_for_the_next_request(void **state)
{
    struct harness *harness = *state;
    harness_start(harness);
    harness_ask(harness, read_with(token), 200, NULL);
    of_tenant(harness)->posture.clearance_required = true;
    of_tenant(harness)->posture.retention_days = 3;
    change(harness, SILO_CHARTER_TENANT);
    harness_ask(harness, read_with(token), 403, "clearance");
    assert_int_equal(fake_silo->retention_days, 3);
    assert_int_equal(fake_silo->kept[SILO_CHARTER_TENANT], 2);
    of_tenant(harness)->posture.clearance_required = false;
    of_tenant(harness)->posture.token_lifetime_max_seconds = 300;
    change(harness, SILO_CHARTER_TENANT);
    harness_ask(harness, read_with(token), 403, "300 s");
    harness_send_charter(harness, &harness->in_force[SILO_CHARTER_TENANT]); /* once more */
    harness_ask(harness, read_with(token), 403, "300 s");
}

static void a_request_that_already_waits_is_judged_by_the_new_charter(void **state)
{
    struct harness *harness = *state;
    struct harness_answer answer;
    struct harness_request unfinished = {.method = "POST", .path = "/v1/memories", .token = token,
                                         .body = SPAN("{\"text\":\"x\"}"), .open = true};
    harness_start(harness);
    harness_ask(harness, read_with(token), 200, NULL);
    harness_send(harness, 0, 9, unfinished);
    harness_pause(harness);
    harness_send(harness, 0, 7, read_with(token));
    of_tenant(harness)->posture.clearance_required = true;
    harness_sign(harness, SILO_CHARTER_TENANT);
    harness_send_charter(harness, &harness->in_force[SILO_CHARTER_TENANT]);
    harness_resume(harness);
    harness_answer(&answer, harness, 0);
    assert_int_equal(answer.id, 7);
    assert_int_equal(answer.http_status, 403);
    harness_answer_free(&answer);
    harness_send_raw(harness, 0, MESSAGE_RELAY_BODY, 9, SPAN("\1\0\0\0\0"));
    harness_answer(&answer, harness, 0);
    assert_int_equal(answer.http_status, 403);
    harness_answer_free(&answer);
    assert_int_equal(fake_silo->items, 0);
}

static void must_end_after(struct harness *harness, const struct harness_charter *charter)
{
    harness_start(harness);
    harness_ask(harness, read_with(token), 200, NULL);
    harness_send_charter(harness, charter);
    assert_int_equal(harness_end(harness), 1);
}

static void a_charter_that_is_none_ends_the_cell(void **state)
{
    struct harness *harness = *state;
    harness_forge(&older, harness, SILO_CHARTER_TENANT, 1, harness->platform);
    harness_sign(harness, SILO_CHARTER_TENANT);
    must_end_after(harness, &older); /* older than the one in force */
    harness_forge(&other, harness, SILO_CHARTER_TENANT, 3, harness->stranger);
    must_end_after(harness, &other);
    of_tenant(harness)->id[3] ^= 1;
    harness_forge(&other, harness, SILO_CHARTER_TENANT, 3, harness->platform);
    of_tenant(harness)->id[3] ^= 1;
    must_end_after(harness, &other);
    of_tenant(harness)->posture.retention_days = 8;
    harness_forge(&other, harness, SILO_CHARTER_TENANT, 2, harness->platform);
    must_end_after(harness, &other); /* other words under the same number */
    harness_forge(&other, harness, SILO_CHARTER_TENANT, 3, harness->platform);
    other.length--;
    must_end_after(harness, &other);
    other.length += 2;
    must_end_after(harness, &other);
    other.length = 0;
    must_end_after(harness, &other);
    harness_forge(&other, harness, SILO_CHARTER_PLATFORM, 1, harness->stranger);
    must_end_after(harness, &other);
}

static void a_renewed_channel_that_names_other_charters_ends_the_cell(void **state)
{
    struct harness *harness = *state;
    harness_start(harness);
    harness_new_kms(harness);
    harness_serve_kms(harness, 50);
    assert_int_equal(harness->opens, 2);
    harness_ask(harness, read_with(token), 200, NULL); /* the same ones */
    harness_sign(harness, SILO_CHARTER_PLATFORM);      /* while its channel was down */
    harness_new_kms(harness);
    assert_int_equal(harness_end(harness), 1);
    harness_start(harness);
    harness_ask(harness, read_with(token), 200, NULL);
}

/* ---- revocation ---- */

static void raw(char text[2048], struct harness *harness, bool by_stranger, const char *iss,
                const char *user, const char *jti)
{
    char payload[512];
    long long now = (long long)(clock_wall_us() / 1000000);
    snprintf(payload, sizeof payload,
             "{\"iss\":\"%s\",\"aud\":\"bulkhead\",\"sub\":\"%s\",\"tenant_id\":\"%s\","
             "\"scope\":\"memory:read memory:write\",\"iat\":%lld,\"exp\":%lld,\"jti\":\"%s\"}",
             iss, user, harness->tenant_text, now - 10, now + 300, jti);
    harness_raw_token(text, harness, by_stranger, payload);
}

static void revoke_jti(struct harness *harness, enum silo_charter scope, const char *jti)
{
    static struct revoked_jti revoked;
    uint8_t digest[HASH_BYTES];
    hash(digest, span_of_text(jti));
    memcpy(revoked.hash, digest, sizeof revoked.hash);
    revoked.until = clock_wall_us() / 1000000 + 300;
    harness->charters[scope].jtis = &revoked;
    harness->charters[scope].jti_count = 1;
    change(harness, scope);
}

static void a_revoked_token_is_refused_though_it_is_cached(void **state)
{
    struct harness *harness = *state;
    char first[2048], second[2048];
    harness_start(harness);
    raw(first, harness, false, "bulkhead", "alice", "one");
    raw(second, harness, false, "bulkhead", "alice", "two");
    harness_ask(harness, read_with(first), 200, NULL);
    harness_ask(harness, read_with(second), 200, NULL);
    revoke_jti(harness, SILO_CHARTER_TENANT, "one");
    harness_ask(harness, read_with(first), 401, "a bearer token that verifies is required");
    harness_ask(harness, read_with(second), 200, NULL);
    revoke_jti(harness, SILO_CHARTER_PLATFORM, "two");
    harness_ask(harness, read_with(second), 401, "a bearer token that verifies is required");
    harness_park(harness);
    harness_start(harness);
    harness_ask(harness, read_with(first), 401, NULL);
    harness_ask(harness, read_with(second), 401, NULL);
}

static void a_revoked_user_is_refused_and_nobody_else(void **state)
{
    struct harness *harness = *state;
    static struct revoked_subject revoked = {.user = "mallory"};
    char of_mallory[2048], of_alice[2048];
    harness_start(harness);
    raw(of_mallory, harness, false, "bulkhead", "mallory", "one");
    raw(of_alice, harness, false, "bulkhead", "alice", "two");
    harness_ask(harness, read_with(of_mallory), 200, NULL);
    revoked.at = clock_wall_us() / 1000000;
    of_tenant(harness)->subjects = &revoked;
    of_tenant(harness)->subject_count = 1;
    change(harness, SILO_CHARTER_TENANT);
    harness_ask(harness, read_with(of_mallory), 401, NULL);
    harness_ask(harness, read_with(of_alice), 200, NULL);
}

static void a_flood_with_a_revoked_token_is_one_entry_a_second(void **state)
{
    struct harness *harness = *state;
    char revoked[2048];
    harness_start(harness);
    raw(revoked, harness, false, "bulkhead", "alice", "one");
    revoke_jti(harness, SILO_CHARTER_TENANT, "one");
    for (int i = 0; i < 50; i++)
        harness_ask(harness, read_with(revoked), 401, NULL);
    harness_park(harness);
    assert_int_equal(fake_silo->denied, 50);
    assert_true(fake_silo->denial_entries < 50);
    assert_string_equal(fake_silo->denial, "token.revoked of alice");
    assert_int_equal(fake_silo->refused, 0);
}

/* ---- issuers ---- */

static void an_issuer_is_trusted_as_long_as_a_charter_names_it(void **state)
{
    struct harness *harness = *state;
    static struct token_issuer issuer;
    char foreign[2048];
    harness_start(harness);
    raw(foreign, harness, true, "https://idp.example", "alice", "one");
    harness_ask(harness, read_with(foreign), 401, NULL);
    issuer = harness_issuer(harness);
    snprintf(issuer.tenant, sizeof issuer.tenant, "%s", harness->tenant_text);
    of_tenant(harness)->issuers = &issuer;
    of_tenant(harness)->issuer_count = 1;
    change(harness, SILO_CHARTER_TENANT);
    harness_ask(harness, read_with(foreign), 200, NULL);
    of_tenant(harness)->issuer_count = 0;
    change(harness, SILO_CHARTER_TENANT);
    harness_ask(harness, read_with(foreign), 401, NULL); /* it was cached */
    issuer.tenant[0] = '\0';
    harness->charters[SILO_CHARTER_PLATFORM].issuers = &issuer;
    harness->charters[SILO_CHARTER_PLATFORM].issuer_count = 1;
    change(harness, SILO_CHARTER_PLATFORM);
    harness_ask(harness, read_with(foreign), 200, NULL);
}

static void a_token_of_the_platforms_own_back_end_opens_no_cell(void **state)
{
    struct harness *harness = *state;
    char platforms[2048];
    harness_start(harness);
    harness_token(platforms, harness,
                  (struct harness_token){.tenant = "00000000000000000000000000000000",
                                         .scope = "routes:read"});
    harness_ask(harness, read_with(platforms), 401, NULL);
}

/* ---- region ---- */

static void a_tenant_of_another_region_is_told_so_once_its_token_verifies(void **state)
{
    struct harness *harness = *state;
    char forged[2048];
    snprintf(of_tenant(harness)->posture.region, TENANT_NAME_MAX, "eu");
    snprintf(harness->region, sizeof harness->region, "us");
    harness_sign(harness, SILO_CHARTER_TENANT);
    harness_start(harness);
    harness_ask(harness, read_with(token), 421, "wrong_region");
    struct harness_request unknown = {.method = "GET", .path = "/v1/nothing", .token = token};
    harness_ask(harness, unknown, 421, "wrong_region");
    harness_token(forged, harness, (struct harness_token){.forged = true});
    harness_ask(harness, read_with(forged), 401, NULL);
    assert_int_equal(fake_silo->handled, 0);
    snprintf(of_tenant(harness)->posture.region, TENANT_NAME_MAX, "us");
    change(harness, SILO_CHARTER_TENANT);
    harness_ask(harness, read_with(token), 200, NULL);
    of_tenant(harness)->posture.region[0] = '\0';
    change(harness, SILO_CHARTER_TENANT);
    harness_ask(harness, read_with(token), 200, NULL);
}

int main(int count, char **arguments)
{
    harness_main(count, arguments, fake_silo_attach);
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup_asleep, teardown)
    const struct CMUnitTest tests[] = {
        TEST(it_serves_under_the_charter_that_the_kms_names),
        TEST(an_older_charter_that_was_once_true_is_not_served_under),
        TEST(a_newer_one_than_the_kms_names_is_not_served_under),
        TEST(other_words_under_the_same_number_are_not_served_under),
        TEST(the_right_words_need_the_signature_of_the_platform),
        TEST(what_the_silo_has_kept_needs_no_signature_again),
        TEST(a_kept_copy_vouches_for_no_other_charter),
        TEST(the_charter_of_another_tenant_is_not_served_under),
        TEST(nothing_at_all_or_rubbish_is_not_served_under),
        TEST(a_tenant_without_any_charter_is_not_served),
        TEST(the_platforms_charter_cannot_be_withheld_either),
        TEST(its_own_copy_serves_when_control_withholds_the_charter),
        TEST(its_own_copy_is_not_used_when_it_is_an_older_one),
        TEST(a_charter_that_was_signed_while_it_woke_is_taken),
        TEST(a_new_charter_is_in_force_for_the_next_request),
        TEST(a_request_that_already_waits_is_judged_by_the_new_charter),
        TEST(a_charter_that_is_none_ends_the_cell),
        TEST(a_renewed_channel_that_names_other_charters_ends_the_cell),
        TEST(a_revoked_token_is_refused_though_it_is_cached),
        TEST(a_revoked_user_is_refused_and_nobody_else),
        TEST(a_flood_with_a_revoked_token_is_one_entry_a_second),
        TEST(an_issuer_is_trusted_as_long_as_a_charter_names_it),
        TEST(a_token_of_the_platforms_own_back_end_opens_no_cell),
        TEST(a_tenant_of_another_region_is_told_so_once_its_token_verifies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
