#define _GNU_SOURCE
/* Sandboxes as control decides on them: who may have one, in which tier, what the ledger says, and
 * that none outlives the right to it. The test plays the supervisor. */
#include "node.h"

#include "base/limits.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define HASH "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

struct world {
    struct node node;
    int stream[2];
    status code;
    char detail[256];
    struct buffer json;
};

static int setup(void **state)
{
    static struct world world;
    world = (struct world){.json = buffer_of(1 << 20)};
    node_make(&world.node);
    node_start_control(&world.node);
    world.node.sandboxes.tier = SANDBOX_MICROVM;
    world.node.sandboxes.next_id = 1;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, world.stream), 0);
    *state = &world;
    return 0;
}

static int teardown(void **state)
{
    struct world *world = *state;
    node_remove(&world->node);
    close(world->stream[0]);
    close(world->stream[1]);
    buffer_free(&world->json);
    return 0;
}

static void call(struct world *world, const char *verb, const char *arguments)
{
    assert_true(node_call(&world->node, verb, arguments, &world->code, world->detail,
                          &world->json));
}

static void must_call(struct world *world, const char *verb, const char *arguments)
{
    call(world, verb, arguments);
    if (world->code != OK)
        fail_msg("%s: %s", verb, world->detail);
}

static void run(struct world *world, const char *arguments)
{
    assert_true(node_call_fd(&world->node, "sandbox.run", arguments, world->stream[1],
                             &world->code, world->detail, &world->json));
}

static void must_run(struct world *world, const char *arguments)
{
    run(world, arguments);
    if (world->code != OK)
        fail_msg("sandbox.run %s: %s", arguments, world->detail);
}

static void refused(struct world *world, const char *arguments, status code, const char *why)
{
    run(world, arguments);
    if (world->code != code || !strstr(world->detail, why))
        fail_msg("%s: status %d, \"%s\"", arguments, world->code, world->detail);
}

static bool has(const struct world *world, const char *text)
{
    return memmem(world->json.data, world->json.length, text, strlen(text)) != NULL;
}

static uint32_t asked(const struct world *world, uint32_t type)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < world->node.sandboxes.asked_count; i++)
        count += world->node.sandboxes.asked[i] == type;
    return count;
}

/* How often the ledger has a text. */
static uint32_t ledger_count(struct world *world, const char *text)
{
    static char whole[1 << 20];
    uint32_t count = 0;
    int file = memfd_create("ledger", MFD_CLOEXEC);
    assert_true(node_call_fd(&world->node, "ledger.export", "{}", file, &world->code,
                             world->detail, &world->json));
    assert_int_equal(world->code, OK);
    ssize_t length = pread(file, whole, sizeof whole - 1, 0);
    assert_true(length > 0);
    whole[length] = '\0';
    close(file);
    for (const char *at = whole; (at = strstr(at, text)); at++)
        count++;
    return count;
}

static void one_starts_within_its_limits_and_the_ledger_tells_it(void **state)
{
    struct world *world = *state;
    static const uint8_t nobody[TENANT_ID_BYTES];
    must_run(world, "{\"memory_mib\":256,\"vcpus\":2,\"disk_mib\":0,\"processes\":9,\"net\":"
                    "\"isolated\",\"timeout_seconds\":5,\"cpu_seconds\":4,\"net_bytes_per_second\":"
                    "1000,\"huge_pages\":true,\"argv_sha256\":\"" HASH "\"}");
    const struct sandbox_spec *spec = &world->node.sandboxes.spec;
    assert_true(world->node.sandboxes.had_socket && !world->node.sandboxes.had_console);
    assert_memory_equal(world->node.sandboxes.tenant, nobody, sizeof nobody);
    assert_int_equal(spec->weakest, SANDBOX_GVISOR);
    assert_true(spec->memory_mib == 256 && spec->vcpus == 2 && spec->disk_mib == 0);
    assert_true(spec->processes == 9 && spec->cpu_s == 4 && !spec->console && spec->huge_pages);
    assert_int_equal(spec->net, SANDBOX_NET_ISOLATED);
    assert_int_equal(spec->lifetime_s, 5 + SANDBOX_GRACE_SECONDS);
    assert_true(spec->net_bytes.size == 1000 && spec->net_bytes.refill_ms == 1000);
    assert_int_equal(spec->disk_bytes.size, 0);
    assert_string_equal(spec->image, "base");
    assert_true(has(world, "\"id\":\"0000000000000001\"") && has(world, "\"tier\":\"microvm\""));
    assert_int_equal(ledger_count(world, "\"event\":\"sandbox.start\""), 1);
    assert_int_equal(ledger_count(world, "\"operator_uid\":0,\"detail\":{\"sandbox\":"
                                         "\"0000000000000001\",\"tier\":\"microvm\",\"weakest\":"
                                         "\"gvisor\",\"image\":\"base\",\"vcpus\":2"), 1);
    assert_int_equal(ledger_count(world, "\"argv_sha256\":\"" HASH "\""), 1);
    must_call(world, "sandbox.list", "{}");
    assert_true(has(world, "\"state\":\"running\"") && has(world, "\"tenant\":null"));
    node_sandbox_gone(&world->node, 1, SANDBOX_MEMORY, "words of a guest");
    node_settle(&world->node);
    must_call(world, "sandbox.list", "{}");
    assert_true(has(world, "\"data\":[]"));
    assert_int_equal(ledger_count(world, "\"end\":\"memory\",\"cpu_seconds\":1.5,\"peak_kib\":4096,"
                                         "\"wall_seconds\":2.25"), 1);
    assert_int_equal(ledger_count(world, "words of a guest"), 0);
}

static void a_console_is_a_second_descriptor(void **state)
{
    struct world *world = *state;
    int pipes[2];
    assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
    refused(world, "{\"console\":true}", BAD_FIELD, "console");
    node_second_fd(&world->node, pipes[1]);
    refused(world, "{}", BAD_FIELD, "console");
    assert_int_equal(asked(world, MESSAGE_SANDBOX_START), 0);
    node_second_fd(&world->node, pipes[1]);
    must_run(world, "{\"console\":true}");
    assert_true(world->node.sandboxes.spec.console);
    assert_true(world->node.sandboxes.had_socket && world->node.sandboxes.had_console);
    close(pipes[0]);
    close(pipes[1]);
}

static void an_end_is_told_to_who_waits_and_to_who_asks_later(void **state)
{
    struct world *world = *state;
    must_run(world, "{}");
    node_begin(&world->node, "sandbox.wait", "{\"id\":\"0000000000000001\"}", -1);
    node_settle(&world->node);
    node_sandbox_gone(&world->node, 1, SANDBOX_LIFETIME, "over");
    assert_true(node_finish(&world->node, &world->code, world->detail, &world->json));
    assert_int_equal(world->code, OK);
    assert_true(has(world, "\"end\":\"lifetime\"") && has(world, "\"detail\":\"over\""));
    must_call(world, "sandbox.wait", "{\"id\":\"0000000000000001\"}");
    assert_true(has(world, "\"end\":\"lifetime\""));
    static const char *const none[] = {"0000000000000002", "0000000000000000"};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        char arguments[64];
        snprintf(arguments, sizeof arguments, "{\"id\":\"%s\"}", none[i]);
        call(world, "sandbox.wait", arguments);
        assert_int_equal(world->code, NOT_FOUND);
        call(world, "sandbox.kill", arguments);
        assert_int_equal(world->code, NOT_FOUND);
    }
}

static void a_killed_one_is_gone_and_the_ledger_knows_who_did_it(void **state)
{
    struct world *world = *state;
    must_run(world, "{}");
    must_call(world, "sandbox.kill", "{\"id\":\"0000000000000001\"}");
    assert_int_equal(asked(world, MESSAGE_SANDBOX_STOP), 1);
    assert_int_equal(ledger_count(world, "\"end\":\"closed\""), 1);
    assert_int_equal(ledger_count(world, "\"stopped_by_uid\":0"), 1);
    call(world, "sandbox.kill", "{\"id\":\"0000000000000001\"}");
    assert_int_equal(world->code, NOT_FOUND);
}

static void a_posture_is_never_loosened(void **state)
{
    struct world *world = *state;
    must_call(world, "tenant.create", "{\"name\":\"bank\",\"tier\":\"regulated\","
                                      "\"retention_days\":1}");
    must_call(world, "tenant.create", "{\"name\":\"acme\"}");
    refused(world, "{\"tenant\":\"bank\",\"tier\":\"gvisor\"}", FORBIDDEN_POLICY, "microvm");
    refused(world, "{\"tenant\":\"acme\",\"tier\":\"container\"}", FORBIDDEN_POLICY, "gvisor");
    assert_int_equal(asked(world, MESSAGE_SANDBOX_START), 0);
    assert_int_equal(ledger_count(world, "\"event\":\"sandbox.refused\""), 2);
    assert_int_equal(ledger_count(world, "\"tenant_name\":\"bank\",\"operator_uid\":0,\"detail\":"
                                         "{\"code\":\"forbidden_policy\""), 1);
    must_run(world, "{\"tenant\":\"bank\"}");
    assert_int_equal(world->node.sandboxes.spec.weakest, SANDBOX_MICROVM);
    must_run(world, "{\"tenant\":\"acme\"}");
    assert_int_equal(world->node.sandboxes.spec.weakest, SANDBOX_GVISOR);
    must_call(world, "tenant.update", "{\"name\":\"acme\",\"sandbox\":\"container\"}");
    must_run(world, "{\"tenant\":\"acme\"}");
    assert_int_equal(world->node.sandboxes.spec.weakest, SANDBOX_CONTAINER);
    must_run(world, "{\"tenant\":\"acme\",\"tier\":\"microvm\"}");
    assert_int_equal(world->node.sandboxes.spec.weakest, SANDBOX_MICROVM);
    world->node.sandboxes.refuse = FORBIDDEN_POLICY;
    world->node.sandboxes.why = "microvm: KVM cannot boot a stock kernel here";
    refused(world, "{\"tenant\":\"bank\"}", FORBIDDEN_POLICY, "stock kernel");
    assert_int_equal(ledger_count(world, "KVM cannot boot a stock kernel here"), 1);
}

/* The supervisor's word on the tier is compared with what was allowed: a downgrade is not used. */
static void a_weaker_tier_than_was_allowed_is_stopped_and_not_used(void **state)
{
    struct world *world = *state;
    world->node.sandboxes.tier = SANDBOX_CONTAINER;
    refused(world, "{\"tier\":\"microvm\"}", UNAVAILABLE, "weaker");
    node_settle(&world->node);
    assert_int_equal(asked(world, MESSAGE_SANDBOX_STOP), 1);
    assert_int_equal(ledger_count(world, "\"tier\":\"container\",\"weakest\":\"microvm\""), 1);
    must_call(world, "sandbox.list", "{}");
    assert_true(has(world, "\"data\":[]"));
}

static void quotas_count_what_is_alive(void **state)
{
    struct world *world = *state;
    must_call(world, "tenant.create", "{\"name\":\"acme\",\"quotas\":{\"sandboxes\":2,"
                                      "\"sandbox_memory_mib\":300}}");
    must_run(world, "{\"tenant\":\"acme\"}");
    refused(world, "{\"tenant\":\"acme\",\"memory_mib\":173}", QUOTA_EXCEEDED,
            "sandbox_memory_mib: the tenant's sandboxes would have 301, at most 300");
    must_run(world, "{\"tenant\":\"acme\",\"memory_mib\":172}");
    refused(world, "{\"tenant\":\"acme\",\"memory_mib\":64}", QUOTA_EXCEEDED, "sandboxes: ");
    must_run(world, "{}"); /* the operator's own, and another tenant's, count for nobody */
    must_call(world, "tenant.create", "{\"name\":\"other\"}");
    must_run(world, "{\"tenant\":\"other\",\"memory_mib\":4096}");
    node_sandbox_gone(&world->node, 1, SANDBOX_SHUTDOWN, "");
    node_settle(&world->node);
    must_run(world, "{\"tenant\":\"acme\",\"memory_mib\":128}");
    must_call(world, "tenant.update", "{\"name\":\"acme\",\"quotas\":{\"sandboxes\":0,"
                                      "\"sandbox_memory_mib\":0}}");
    must_run(world, "{\"tenant\":\"acme\",\"memory_mib\":8192}");
    world->node.sandboxes.refuse = UNAVAILABLE;
    world->node.sandboxes.why = "no";
    must_call(world, "tenant.update", "{\"name\":\"other\",\"quotas\":{\"sandbox_memory_mib\":0,"
                                      "\"sandboxes\":2}}");
    for (int i = 0; i < 3; i++) /* what did not start is not alive */
        refused(world, "{\"tenant\":\"other\"}", UNAVAILABLE, "no");
    world->node.sandboxes.refuse = OK;
    must_run(world, "{\"tenant\":\"other\"}");
}

static void pausing_and_erasing_end_a_tenants_sandboxes_first(void **state)
{
    struct world *world = *state;
    static const uint32_t order[] = {MESSAGE_SANDBOX_STOP, MESSAGE_SANDBOX_STOP,
                                     MESSAGE_CELL_STOP};
    static const char *const verbs[] = {"tenant.pause", "tenant.erase"};
    must_call(world, "tenant.create", "{\"name\":\"acme\"}");
    must_call(world, "tenant.create", "{\"name\":\"other\"}");
    must_run(world, "{\"tenant\":\"other\"}");
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++) {
        must_call(world, "tenant.resume", "{\"name\":\"acme\"}");
        must_run(world, "{\"tenant\":\"acme\"}");
        must_run(world, "{\"tenant\":\"acme\"}");
        world->node.sandboxes.asked_count = 0;
        must_call(world, verbs[i], "{\"name\":\"acme\"}");
        assert_true(world->node.sandboxes.asked_count >= 3);
        assert_memory_equal(world->node.sandboxes.asked, order, sizeof order);
        run(world, "{\"tenant\":\"acme\"}");
        assert_int_not_equal(world->code, OK);
    }
    must_call(world, "sandbox.list", "{}");
    assert_true(has(world, "\"tenant\":\"other\"") && !has(world, "\"tenant\":\"acme\""));
    assert_int_equal(ledger_count(world, "\"event\":\"sandbox.end\""), 4);
}

static void one_that_is_being_started_is_ended_before_the_pause_is_done(void **state)
{
    struct world *world = *state;
    must_call(world, "tenant.create", "{\"name\":\"acme\"}");
    world->node.sandboxes.hold = true;
    node_begin(&world->node, "sandbox.run", "{\"tenant\":\"acme\"}", world->stream[1]);
    node_settle(&world->node);
    node_begin(&world->node, "tenant.pause", "{\"name\":\"acme\"}", -1);
    node_settle(&world->node);
    assert_int_equal(asked(world, MESSAGE_CELL_STOP), 0);
    node_answer_start(&world->node);
    assert_true(node_finish(&world->node, &world->code, world->detail, &world->json));
    assert_int_equal(world->code, OK);
    assert_int_equal(asked(world, MESSAGE_SANDBOX_STOP), 1);
    assert_int_equal(asked(world, MESSAGE_CELL_STOP), 1);
    must_call(world, "sandbox.list", "{}");
    assert_true(has(world, "\"data\":[]"));
}

static void a_start_that_fails_lets_the_pause_go_on(void **state)
{
    struct world *world = *state;
    must_call(world, "tenant.create", "{\"name\":\"acme\"}");
    world->node.sandboxes.hold = true;
    world->node.sandboxes.refuse = NOT_FOUND;
    world->node.sandboxes.why = "no such image";
    node_begin(&world->node, "sandbox.run", "{\"tenant\":\"acme\"}", world->stream[1]);
    node_settle(&world->node);
    node_begin(&world->node, "tenant.pause", "{\"name\":\"acme\"}", -1);
    node_settle(&world->node);
    node_answer_start(&world->node);
    assert_true(node_finish(&world->node, &world->code, world->detail, &world->json));
    assert_int_equal(world->code, OK);
    assert_int_equal(asked(world, MESSAGE_SANDBOX_STOP), 0);
}

/* A wall that does not come down: the tenant keeps its key. */
static void an_erasure_is_undone_where_a_sandbox_cannot_be_ended(void **state)
{
    struct world *world = *state;
    must_call(world, "tenant.create", "{\"name\":\"acme\"}");
    must_run(world, "{\"tenant\":\"acme\"}");
    world->node.refuse = MESSAGE_SANDBOX_STOP;
    call(world, "tenant.erase", "{\"name\":\"acme\"}");
    assert_int_equal(world->code, UNAVAILABLE);
    assert_int_equal(asked(world, MESSAGE_CELL_STOP), 0);
    must_call(world, "token.mint", "{\"name\":\"acme\",\"user\":\"u\"}");
    world->node.refuse = 0;
    must_call(world, "tenant.erase", "{\"name\":\"acme\"}");
    assert_false(node_has_silo(&world->node));
}

static void one_that_nobody_here_started_is_in_the_ledger_all_the_same(void **state)
{
    struct world *world = *state;
    node_sandbox_gone(&world->node, 77, SANDBOX_CLOSED, "");
    node_settle(&world->node);
    assert_int_equal(ledger_count(world, "{\"sandbox\":\"000000000000004d\",\"end\":\"closed\""),
                     1);
}

static void arguments_that_are_wrong_are_refused_by_name(void **state)
{
    struct world *world = *state;
    static const char *const wrong[][2] = {
        {"{\"image\":\"../x\"}", "image"}, {"{\"image\":\"\"}", "image"},
        {"{\"net\":\"full\"}", "net"},
        {"{\"tier\":\"vm\"}", "tier"}, {"{\"vcpus\":0}", "vcpus"}, {"{\"vcpus\":33}", "vcpus"},
        {"{\"memory_mib\":63}", "memory_mib"}, {"{\"memory_mib\":262145}", "memory_mib"},
        {"{\"disk_mib\":-1}", "disk_mib"}, {"{\"processes\":0}", "processes"},
        {"{\"timeout_seconds\":0}", "timeout_seconds"},
        {"{\"timeout_seconds\":86401}", "timeout_seconds"}, {"{\"cpu_seconds\":-1}", "cpu_seconds"},
        {"{\"disk_bytes_per_second\":-1}", "disk_bytes"}, {"{\"argv_sha256\":\"00\"}", "argv"},
        {"{\"argv_sha256\":\"zz112233445566778899aabbccddeeff"
         "00112233445566778899aabbccddeeff\"}", "argv"},
        {"{\"command\":\"ls\"}", "command"}, {"{\"tenant\":\"nobody\"}", "no tenant"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        run(world, wrong[i][0]);
        if (world->code == OK || !strstr(world->detail, wrong[i][1]))
            fail_msg("%s: status %d, \"%s\"", wrong[i][0], world->code, world->detail);
    }
    int pipes[2];
    assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
    assert_true(node_call_fd(&world->node, "sandbox.run", "{}", pipes[1], &world->code,
                             world->detail, &world->json));
    assert_int_equal(world->code, BAD_FIELD);
    close(pipes[0]);
    close(pipes[1]);
    call(world, "sandbox.run", "{}");
    assert_int_equal(world->code, BAD_REQUEST);
    call(world, "sandbox.kill", "{\"id\":\"1\"}");
    assert_int_equal(world->code, BAD_FIELD);
    assert_int_equal(asked(world, MESSAGE_SANDBOX_START), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(one_starts_within_its_limits_and_the_ledger_tells_it),
        TEST(a_console_is_a_second_descriptor),
        TEST(an_end_is_told_to_who_waits_and_to_who_asks_later),
        TEST(a_killed_one_is_gone_and_the_ledger_knows_who_did_it),
        TEST(a_posture_is_never_loosened),
        TEST(a_weaker_tier_than_was_allowed_is_stopped_and_not_used),
        TEST(quotas_count_what_is_alive),
        TEST(pausing_and_erasing_end_a_tenants_sandboxes_first),
        TEST(one_that_is_being_started_is_ended_before_the_pause_is_done),
        TEST(a_start_that_fails_lets_the_pause_go_on),
        TEST(an_erasure_is_undone_where_a_sandbox_cannot_be_ended),
        TEST(one_that_nobody_here_started_is_in_the_ledger_all_the_same),
        TEST(arguments_that_are_wrong_are_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
