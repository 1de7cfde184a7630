/* The cell over the real silo and store: what a tenant, and an attacker of its directory, sees. */
#define _GNU_SOURCE
#include "harness.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "crypt/note.h"
#include "store/export.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static char token[2048];

static int setup(void **state)
{
    harness_setup(state);
    harness_start(*state);
    harness_token(token, *state, (struct harness_token){0});
    return 0;
}

static struct harness_request listing(void)
{
    return (struct harness_request){.method = "GET", .path = "/v1/memories", .token = token};
}

static struct harness_request adding(const char *body)
{
    return (struct harness_request){.method = "POST", .path = "/v1/memories", .token = token,
                                    .body = span_of_text(body)};
}

static void what_was_acknowledged_is_there_after_parking_and_after_a_crash(void **state)
{
    struct harness *harness = *state;
    harness_ask(harness, adding("{\"text\":\"the anchor holds\"}"), 201, "the anchor holds");
    harness_park(harness);
    harness_start(harness);
    harness_ask(harness, listing(), 200, "the anchor holds");
    harness_ask(harness, adding("{\"text\":\"through the storm\"}"), 201, "through the storm");
    harness_kill(harness);
    harness_start(harness);
    harness_ask(harness, listing(), 200, "through the storm");
    struct harness_request search = {
        .method = "POST", .path = "/v1/memories/search", .token = token,
        .body = SPAN("{\"query\":\"anchor\"}"),
    };
    harness_ask(harness, search, 200, "the anchor holds");
    harness_park(harness);
    assert_true(harness->anchor.log_size >= 4);
    assert_true(harness->anchor.commits >= 2);
}

static void a_silo_that_was_only_looked_at_can_be_parked(void **state)
{
    struct harness *harness = *state;
    harness_ask(harness, listing(), 200, "\"data\":[]");
    harness_park(harness);
    harness_start(harness);
    harness_park(harness);
}

static void a_user_sees_its_own_items_only(void **state)
{
    struct harness *harness = *state;
    char other[2048];
    harness_token(other, harness, (struct harness_token){.user = "bob"});
    harness_ask(harness, adding("{\"text\":\"of alice\"}"), 201, NULL);
    struct harness_request request = listing();
    request.token = other;
    harness_ask(harness, request, 200, "\"data\":[]");
    request.query = "user_id=alice";
    harness_ask(harness, request, 403, "memory:any-user");
}

static void copy_file(int from_directory, int to_directory, const char *name)
{
    static char bytes[MIB(4)];
    _cleanup_close_ int from = openat(from_directory, name, O_RDONLY | O_CLOEXEC);
    _cleanup_close_ int to = openat(to_directory, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC,
                                    0600);
    ssize_t length = read(from, bytes, sizeof bytes);
    assert_true(length >= 0 && length < (ssize_t)sizeof bytes);
    assert_int_equal(write(to, bytes, (size_t)length), length);
}

static void copy_directory(const char *from, const char *to)
{
    _cleanup_close_ int target = open(to, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *source = opendir(from);
    assert_non_null(source);
    for (struct dirent *entry; (entry = readdir(source));)
        if (entry->d_type == DT_REG)
            copy_file(dirfd(source), target, entry->d_name);
    closedir(source);
}

static void an_older_copy_of_the_silo_is_refused(void **state)
{
    struct harness *harness = *state;
    char copy[] = "/tmp/bulkhead-copy-XXXXXX", command[128];
    assert_non_null(mkdtemp(copy));
    harness_ask(harness, adding("{\"text\":\"first\"}"), 201, NULL);
    harness_park(harness);
    copy_directory(harness->directory, copy);
    harness_start(harness);
    harness_ask(harness, adding("{\"text\":\"second\"}"), 201, NULL);
    harness_park(harness);
    copy_directory(copy, harness->directory);
    harness_begin(harness);
    harness_expect_failed(harness, ROLLED_BACK);
    snprintf(command, sizeof command, "rm -r %s", copy);
    assert_int_equal(system(command), 0);
}

static void an_item_past_its_time_is_gone(void **state)
{
    struct harness *harness = *state;
    harness_ask(harness, adding("{\"text\":\"soon gone\",\"ttl_seconds\":1}"), 201, NULL);
    harness_ask(harness, adding("{\"text\":\"stays\"}"), 201, NULL);
    harness_ask(harness, listing(), 200, "soon gone");
    harness_serve_kms(harness, 2500);
    harness_send(harness, 0, 1, listing());
    struct harness_answer answer;
    harness_answer(&answer, harness, 0);
    assert_non_null(strstr((const char *)answer.body.data, "stays"));
    assert_null(strstr((const char *)answer.body.data, "soon gone"));
    harness_answer_free(&answer);
    harness_park(harness);
}

static void a_regulated_tenant_asks_more_of_a_token(void **state)
{
    struct harness *harness = *state;
    char text[2048];
    harness_park(harness);
    struct posture *posture = &harness->charters[SILO_CHARTER_TENANT].posture;
    posture->tier = TIER_REGULATED;
    posture->sandbox = SANDBOX_MICROVM;
    posture->audit_strict = posture->clearance_required = true;
    posture->token_lifetime_max_seconds = 300;
    posture->retention_days = 30;
    harness_sign(harness, SILO_CHARTER_TENANT);
    harness_start(harness);
    harness_token(text, harness, (struct harness_token){.ttl_seconds = 200});
    struct harness_request request = listing();
    request.token = text;
    harness_ask(harness, request, 403, "clearance");
    harness_token(text, harness,
                  (struct harness_token){.ttl_seconds = 600, .clearance = "internal"});
    harness_ask(harness, request, 403, "300");
    harness_token(text, harness,
                  (struct harness_token){.ttl_seconds = 200, .clearance = "internal"});
    harness_ask(harness, request, 200, NULL);
    harness_park(harness);
    assert_true(harness->anchor.log_size >= 3); /* the refusals too */
}

static void an_export_verifies_offline(void **state)
{
    struct harness *harness = *state;
    struct fault fault;
    struct export_verifier *verifier;
    struct export_summary summary;
    const struct export_demands demands = {.key = harness->platform_key};
    int ends[2];
    for (int i = 0; i < 30; i++)
        harness_ask(harness, adding("{\"text\":\"entry\"}"), 201, NULL);
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    harness_tell(harness, MESSAGE_CELL_EXPORT, SPAN("\0\0\0\5audit\0\0\0\0\0\0\0\0"), &ends[1], 1);
    close(ends[1]);
    assert_int_equal(export_verifier_create(&verifier, &demands, &fault), OK);
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    for (;;) {
        uint8_t bytes[4096];
        ssize_t got = read(ends[0], bytes, sizeof bytes);
        if (got == 0)
            break;
        if (got < 0)
            harness_serve_kms(harness, 5);
        else if (export_verifier_feed(verifier, (struct span){bytes, (size_t)got}, &fault) != OK)
            fail_msg("%s", fault.detail);
    }
    close(ends[0]);
    if (export_verifier_end(&summary, verifier, &fault) != OK)
        fail_msg("%s", fault.detail);
    assert_int_equal(summary.checkpoint.size, 30);
    export_verifier_free(verifier);
    harness_park(harness);
}

static void a_wrapped_key_that_is_gone_is_not_made_anew(void **state)
{
    struct harness *harness = *state;
    char path[96];
    harness_ask(harness, adding("{\"text\":\"x\"}"), 201, NULL);
    harness_park(harness);
    snprintf(path, sizeof path, "%s/silo.keys", harness->directory);
    assert_int_equal(truncate(path, 0), 0);
    harness_begin(harness);
    harness_expect_failed(harness, CORRUPT);
    assert_int_equal(unlink(path), 0);
    harness->mood = KMS_REFUSES; /* as the real one does for an empty key with commits */
    harness_begin(harness);
    harness_expect_failed(harness, ROLLED_BACK);
}

/* ---- charters, over the real silo ---- */

static struct harness_charter older;

static void in_force(struct harness *harness)
{
    harness_sign(harness, SILO_CHARTER_TENANT);
    harness_send_charter(harness, &harness->in_force[SILO_CHARTER_TENANT]);
}

static void the_silo_keeps_the_charter_that_control_may_withhold(void **state)
{
    struct harness *harness = *state;
    struct posture *posture = &harness->charters[SILO_CHARTER_TENANT].posture;
    older = harness->in_force[SILO_CHARTER_TENANT];
    posture->quotas.bytes_stored = 123456789;
    in_force(harness);
    harness_ask(harness, adding("{\"text\":\"kept\"}"), 201, NULL);
    harness_park(harness);
    harness->handed[SILO_CHARTER_TENANT] = &older;
    for (int i = 0; i < 2; i++) { /* from what is parked, then from what a crash left */
        harness_start(harness);
        struct harness_request tenant = {.method = "GET", .path = "/v1/tenant", .token = token};
        harness_ask(harness, tenant, 200, "\"bytes_stored\":123456789");
        harness_ask(harness, tenant, 200, "\"charter_sequence\":2");
        harness_ask(harness, adding("{\"text\":\"kept\"}"), 201, NULL);
        harness_kill(harness);
    }
    posture->retention_days = 1; /* changed while it slept: its copy is an older one now */
    harness_sign(harness, SILO_CHARTER_TENANT);
    harness_begin(harness);
    harness_expect_failed(harness, UNAVAILABLE);
    harness->handed[SILO_CHARTER_TENANT] = NULL;
    harness_start(harness);
    harness_ask(harness, listing(), 200, "kept");
}

static void a_retention_that_changes_moves_the_next_expiry(void **state)
{
    struct harness *harness = *state;
    struct posture *posture = &harness->charters[SILO_CHARTER_TENANT].posture;
    struct ipc_message message;
    harness_ask(harness, adding("{\"text\":\"a day old tomorrow\"}"), 201, NULL);
    posture->retention_days = 1;
    in_force(harness);
    harness_ask(harness, listing(), 200, "a day old tomorrow");
    harness_tell(harness, MESSAGE_CELL_PARK, (struct span){0}, NULL, 0);
    cleanup_close(&harness->gateways[0]);
    harness_expect(&message, harness, MESSAGE_CELL_PARKED);
    struct cursor body = cursor_over(message.body);
    uint64_t next_us = 0;
    struct fault fault;
    assert_int_equal(cursor_u64(&next_us, &body, &fault), OK);
    int64_t in_us = (int64_t)next_us - clock_wall_us(), day_us = INT64_C(86400) * 1000000;
    assert_true(in_us > day_us - INT64_C(60) * 1000000 && in_us <= day_us);
    assert_int_equal(harness_end(harness), 0);
}

static void once(char text[2048], struct harness *harness, const char *jti)
{
    char payload[512];
    long long now = (long long)(clock_wall_us() / 1000000);
    snprintf(payload, sizeof payload,
             "{\"iss\":\"https://idp.example\",\"aud\":\"bulkhead\",\"sub\":\"alice\","
             "\"tenant_id\":\"%s\",\"scope\":\"memory:read memory:write\",\"iat\":%lld,"
             "\"exp\":%lld,\"jti\":\"%s\"}", harness->tenant_text, now - 10, now + 300, jti);
    harness_raw_token(text, harness, true, payload);
}

static void trust_once(struct harness *harness)
{
    static struct token_issuer issuer;
    struct charter *charter = &harness->charters[SILO_CHARTER_TENANT];
    issuer = harness_issuer(harness);
    issuer.jti_once = true;
    snprintf(issuer.tenant, sizeof issuer.tenant, "%s", harness->tenant_text);
    charter->issuers = &issuer;
    charter->issuer_count = 1;
    in_force(harness);
    harness_ask(harness, listing(), 200, NULL);
}

static void a_token_that_serves_once_serves_once_whatever_it_was_for(void **state)
{
    struct harness *harness = *state;
    static char first[2048], second[2048], third[2048];
    struct harness_request read = listing(), write = adding("{\"text\":\"once\"}");
    trust_once(harness);
    once(first, harness, "first");
    once(second, harness, "second");
    once(third, harness, "third");
    read.token = write.token = first;
    harness_ask(harness, write, 201, NULL);
    harness_ask(harness, write, 401, "a bearer token that verifies is required");
    harness_ask(harness, read, 401, NULL);
    read.token = write.token = second;
    harness_ask(harness, read, 200, "once");
    harness_ask(harness, read, 401, NULL);
    harness_ask(harness, write, 401, NULL);
    write.token = third; /* an attempt that fails is one, too */
    write.body = SPAN("{\"text\":7}");
    harness_ask(harness, write, 400, NULL);
    write.body = SPAN("{\"text\":\"once\"}");
    harness_ask(harness, write, 401, NULL);
    harness_kill(harness);
    harness_start(harness); /* what was answered is remembered by the disk */
    for (int i = 0; i < 3; i++) {
        read.token = i == 0 ? first : i == 1 ? second : third;
        harness_ask(harness, read, 401, NULL);
    }
    harness_park(harness);
    harness_start(harness);
    harness_ask(harness, read, 401, NULL);
}

static void of_many_at_once_with_one_token_that_serves_once_one_is_served(void **state)
{
    struct harness *harness = *state;
    static char token_once[2048];
    struct harness_request write = adding("{\"text\":\"once\"}");
    uint32_t passed = 0;
    trust_once(harness);
    harness_attach(harness, 1);
    once(token_once, harness, "replayed");
    write.token = token_once;
    harness_pause(harness);
    for (uint32_t i = 0; i < 16; i++)
        harness_send(harness, i % 2, 10 + i, write);
    harness_resume(harness);
    for (uint32_t i = 0; i < 16; i++) {
        struct harness_answer answer;
        harness_answer(&answer, harness, i % 2);
        assert_true(answer.http_status == 201 || answer.http_status == 401);
        passed += answer.http_status == 201;
        harness_answer_free(&answer);
    }
    assert_int_equal(passed, 1);
    harness_park(harness);
}

int main(int count, char **arguments)
{
    harness_main(count, arguments, NULL);
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, harness_teardown)
    const struct CMUnitTest tests[] = {
        TEST(what_was_acknowledged_is_there_after_parking_and_after_a_crash),
        TEST(a_silo_that_was_only_looked_at_can_be_parked),
        TEST(a_user_sees_its_own_items_only),
        TEST(an_older_copy_of_the_silo_is_refused),
        TEST(an_item_past_its_time_is_gone),
        TEST(a_regulated_tenant_asks_more_of_a_token),
        TEST(the_silo_keeps_the_charter_that_control_may_withhold),
        TEST(a_retention_that_changes_moves_the_next_expiry),
        TEST(a_token_that_serves_once_serves_once_whatever_it_was_for),
        TEST(of_many_at_once_with_one_token_that_serves_once_one_is_served),
        TEST(an_export_verifies_offline),
        TEST(a_wrapped_key_that_is_gone_is_not_made_anew),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
