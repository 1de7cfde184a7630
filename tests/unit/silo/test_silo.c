#include "house.h"

#include "base/hex.h"
#include "silo/audit.h"
#include "silo/state.h"
#include "store/export.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static const uint8_t seed[SIGN_SEED_BYTES] = {7};
static const char origin[] = "bulkhead/silo/616e206964206f66207369787465656e";

static status note_json(void *context, const struct store_log_entry *entry, bool *stop,
                        struct fault *fault)
{
    (void)stop;
    struct house *house = context;
    return json_parse(&house->answer, &house->arena, arena_copy(&house->arena, entry->entry),
                      fault);
}

/* The entry of that index, committed, as JSON in house->answer. */
static const struct json *entry_at(struct house *house, uint64_t index)
{
    assert_ok(house, silo_commit(house->silo, &house->fault));
    assert_ok(house, store_log_read(house->silo->log, index, index + 1, note_json, house,
                                    &house->fault));
    return &house->answer;
}

static uint64_t entries(struct house *house)
{
    assert_ok(house, silo_commit(house->silo, &house->fault));
    return store_log_size(house->silo->log);
}

static void an_empty_silo_has_no_file_until_it_is_used(void **state)
{
    (void)state;
    char folder[] = "/tmp/bulkhead-silo-XXXXXX";
    struct fault fault;
    struct silo *silo;
    struct stat found;
    static const struct store_key key = {.version = 1, .dek = {1}};
    assert_non_null(mkdtemp(folder));
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(fd >= 0);
    const struct silo_opening opening = {.silo_fd = fd, .tenant_id = "an id of sixteen",
                                         .keys = &key, .key_count = 1};
    for (int i = 0; i < 2; i++) {
        struct anchor anchor;
        struct hash_value proof[CONSISTENCY_PROOF_MAX];
        uint32_t count;
        bool more;
        assert_int_equal(silo_open(&silo, &opening, &fault), OK);
        silo_begin(silo, START_US);
        assert_int_equal(silo_expire(&more, silo, START_US, true, &fault), OK);
        assert_false(silo_must_commit(silo));
        assert_int_equal(silo_commit(silo, &fault), OK);
        assert_int_equal(silo_checkpoint(silo, &fault), OK);
        assert_int_equal(silo_anchor(&anchor, proof, &count, silo, 0, &fault), OK);
        assert_int_equal(anchor.commits, 0);
        assert_int_equal(silo_bytes(silo), 0);
        assert_int_equal(silo_next_expiry_us(silo), 0);
        silo = silo_close(silo);
        assert_int_not_equal(fstatat(fd, STORE_DATABASE, &found, 0), 0);
    }
    close(fd);
    assert_int_equal(rmdir(folder), 0); /* so it is empty */
}

static void a_mutation_must_be_committed_and_a_read_need_not(void **state)
{
    struct house *house = *state;
    silo_begin(house->silo, house->now_us);
    assert_ok(house, ask_in_turn(house, &alice, "GET", "/v1/memories", "", NULL));
    assert_false(silo_must_commit(house->silo));
    assert_true(silo_pending_since_us(house->silo) > 0);
    silo_begin(house->silo, house->now_us);
    assert_ok(house, ask_in_turn(house, &alice, "POST", "/v1/memories", "", "{\"text\":\"x\"}"));
    assert_true(silo_must_commit(house->silo));
    assert_ok(house, silo_commit(house->silo, &house->fault));
    assert_false(silo_must_commit(house->silo));
    assert_int_equal(silo_pending_since_us(house->silo), 0);
    assert_int_equal(store_log_size(house->silo->log), 2);
}

static void under_strict_audit_a_read_waits_for_its_entry(void **state)
{
    struct house *house = *state;
    house->opening.posture.audit_strict = true;
    house_reopen(house);
    silo_begin(house->silo, house->now_us);
    assert_status(house, ask_in_turn(house, &alice, "GET",
                                     path_of(house, "01ARZ3NDEKTSV4RRFFQ69G5FAV", ""), "", NULL),
                  NOT_FOUND);
    assert_true(silo_must_commit(house->silo));
    assert_ok(house, silo_commit(house->silo, &house->fault));
    assert_int_equal(store_log_size(house->silo->log), 1);
}

static void a_refused_request_does_not_undo_its_neighbour(void **state)
{
    struct house *house = *state;
    silo_begin(house->silo, house->now_us);
    assert_ok(house, ask_in_turn(house, &alice, "POST", "/v1/memories", "", "{\"text\":\"one\"}"));
    assert_status(house, ask_in_turn(house, &alice, "POST", "/v1/memories", "",
                                     "{\"text\":\"two\",\"user_id\":\"bob\"}"), FORBIDDEN_SCOPE);
    assert_ok(house, ask_in_turn(house, &alice, "POST", "/v1/memories", "", "{\"text\":\"x\"}"));
    assert_ok(house, silo_commit(house->silo, &house->fault));
    assert_ok(house, ask(house, &alice, "GET", "/v1/memories", "", NULL));
    assert_int_equal(answer_data(house)->count, 2);
    assert_int_equal(entries(house), 4);
}

static void an_entry_says_who_did_what_and_holds_no_content(void **state)
{
    static const char *const members[] = {
        "index", "time", "trace_id", "tenant_id", "subject", "agent", "action", "resource",
        "resource_hash", "decision", "code", "clearance", "classification", "count",
        "request_hash", "result_hash"};
    struct house *house = *state;
    struct who agent = alice;
    agent.agent = "agent-7";
    const char *id = remember_as(house, &agent, "{\"text\":\"zebracadabra\",\"session_id\":\"s\"}");
    const struct json *entry = entry_at(house, 0);
    assert_int_equal(entry->count, sizeof members / sizeof *members);
    for (size_t i = 0; i < sizeof members / sizeof *members; i++)
        assert_true(span_is(entry->items[i].name, members[i]));
    assert_int_equal(answer_integer(entry, "index"), 0);
    assert_string_equal(answer_text(house, entry, "time"), "2027-01-15T08:00:00.000000Z");
    assert_string_equal(answer_text(house, entry, "tenant_id"), "616e206964206f66207369787465656e");
    assert_string_equal(answer_text(house, entry, "subject"), "alice");
    assert_string_equal(answer_text(house, entry, "agent"), "agent-7");
    assert_string_equal(answer_text(house, entry, "action"), "memory.add");
    assert_string_equal(answer_text(house, entry, "decision"), "allow");
    assert_string_equal(answer_text(house, entry, "code"), "ok");
    assert_string_equal(answer_text(house, entry, "classification"), "internal");
    const char *text = answer_text(house, entry, "resource_hash");
    assert_int_equal(strlen(text), 64);
    uint8_t plain[HASH_BYTES];
    char plain_text[65];
    hash(plain, span_of_text(id));
    hex_encode(plain_text, SPAN_OF(plain));
    assert_string_not_equal(text, plain_text); /* nobody outside can guess it */
    for (size_t i = 0; i + 5 < entry->source.length; i++)
        assert_false(span_starts_with((struct span){entry->source.data + i, 5}, SPAN("zebra")));
}

static void the_same_item_has_the_same_hash_in_every_entry(void **state)
{
    struct house *house = *state;
    const char *id = remember(house, &alice, "x");
    const char *made = answer_text(house, entry_at(house, 0), "resource_hash");
    assert_ok(house, ask(house, &alice, "GET", path_of(house, id, ""), "", NULL));
    assert_string_equal(answer_text(house, entry_at(house, 1), "resource_hash"), made);
    assert_ok(house, ask(house, &alice, "DELETE", path_of(house, id, ""), "", NULL));
    assert_string_equal(answer_text(house, entry_at(house, 2), "resource_hash"), made);
}

static void what_is_hidden_from_the_caller_is_a_denial_in_the_log(void **state)
{
    struct house *house = *state;
    const char *id = remember(house, &alice, "x");
    assert_status(house, ask(house, &bob, "GET", path_of(house, id, ""), "", NULL), NOT_FOUND);
    const struct json *entry = entry_at(house, 1);
    assert_string_equal(answer_text(house, entry, "decision"), "deny");
    assert_string_equal(answer_text(house, entry, "code"), "not_found");
    assert_string_equal(answer_text(house, entry, "subject"), "bob");
    assert_status(house, ask(house, &bob, "GET", path_of(house, "01ARZ3NDEKTSV4RRFFQ69G5FAV", ""),
                             "", NULL), NOT_FOUND);
    assert_string_equal(answer_text(house, entry_at(house, 2), "decision"), "allow");
}

static void a_refusal_before_the_handler_has_its_entry(void **state)
{
    struct house *house = *state;
    struct envelope envelope = {.action = &memory_actions[MEMORY_READ], .id_count = 1,
                                .tenant = "616e206964206f66207369787465656e", .user = "mallory",
                                .ids = {SPAN("01ARZ3NDEKTSV4RRFFQ69G5FAV")}};
    struct silo_request request = {.envelope = &envelope, .action = envelope.action,
                                   .arena = &house->arena, .now_us = house->now_us};
    silo_begin(house->silo, house->now_us);
    assert_ok(house, silo_refuse(house->silo, &request, FORBIDDEN_SCOPE, &house->fault));
    const struct json *entry = entry_at(house, 0);
    assert_string_equal(answer_text(house, entry, "subject"), "mallory");
    assert_string_equal(answer_text(house, entry, "decision"), "deny");
    assert_string_equal(answer_text(house, entry, "code"), "forbidden_scope");
}

static void a_request_that_never_reached_its_handler_has_its_entry(void **state)
{
    struct house *house = *state; /* whose silo was never used: its files cannot be made */
    house->sim->space = 1;
    assert_status(house, ask(house, &alice, "GET", "/v1/memories", "", NULL), OUT_OF_SPACE);
    assert_status(house, ask(house, &alice, "POST", "/v1/memories", "", "{\"text\":\"x\"}"),
                  OUT_OF_SPACE);
    house->sim->space = 0;
    assert_int_equal(entries(house), 2);
    assert_string_equal(answer_text(house, entry_at(house, 0), "code"), "out_of_space");
    assert_string_equal(answer_text(house, entry_at(house, 1), "action"), "memory.add");
}

static void too_many_waiting_entries_stop_reads_not_memory(void **state)
{
    struct house *house = *state;
    remember(house, &alice, "x");
    silo_begin(house->silo, house->now_us);
    bool urgent = false;
    for (int i = 0; i < AUDIT_PENDING_MAX; i++) {
        arena_reset(&house->arena);
        assert_ok(house, ask_in_turn(house, &alice, "GET", "/v1/memories", "limit=1", NULL));
        urgent = silo_must_commit(house->silo);
    }
    assert_true(urgent);
    assert_status(house, ask_in_turn(house, &alice, "GET", "/v1/memories", "", NULL), UNAVAILABLE);
    assert_status(house, ask_in_turn(house, &alice, "POST", "/v1/memories", "", "{\"text\":\"y\"}"),
                  UNAVAILABLE);
    assert_int_equal(entries(house), AUDIT_PENDING_MAX + 1);
    assert_ok(house, ask(house, &alice, "GET", "/v1/memories", "", NULL));
    assert_int_equal(answer_data(house)->count, 1);
}

static void on_a_full_disk_a_turn_is_taken_back_and_reads_go_on(void **state)
{
    struct house *house = *state;
    char *body = arena_alloc(&house->arena, KIB(61));
    size_t at = (size_t)sprintf(body, "{\"text\":\"");
    memset(body + at, 'a', KIB(60));
    strcpy(body + at + KIB(60), "\"}");
    const char *id = remember(house, &alice, "zebra");
    assert_ok(house, ask(house, &alice, "GET", path_of(house, id, ""), "", NULL));
    house->sim->space = 1; /* no byte more */
    silo_begin(house->silo, house->now_us);
    status added = ask_in_turn(house, &alice, "POST", "/v1/memories", "", body);
    status committed = silo_commit(house->silo, &house->fault);
    assert_int_equal(committed, OUT_OF_SPACE);
    assert_true(added == OK || added == OUT_OF_SPACE);
    assert_true(silo_pending_since_us(house->silo) > 0); /* the read's entry waits */
    assert_ok(house, ask(house, &alice, "GET", "/v1/memories", "", NULL));
    assert_int_equal(answer_data(house)->count, 1);
    house->sim->space = 0;
    assert_ok(house, silo_commit(house->silo, &house->fault));
    uint64_t waiting = entries(house);
    assert_true(waiting == 3 || waiting == 4); /* what failed in its handler is told too */
    remember_as(house, &alice, body);
    assert_ok(house, ask(house, &alice, "GET", "/v1/memories", "", NULL));
    assert_int_equal(answer_data(house)->count, 2);
}

/* Every call of the disk fails once: what was acknowledged is there, what was not is not. */
static void a_disk_call_that_fails_loses_nothing_acknowledged(void **state)
{
    struct house *house = *state;
    remember(house, &alice, "zebra 0");
    for (uint64_t call = 1; call < 40; call++) {
        house->sim->fail_errno = 5;
        house->sim->fail_at = house->sim->calls + call;
        silo_begin(house->silo, house->now_us);
        status done = ask_in_turn(house, &alice, "POST", "/v1/memories", "",
                                  "{\"text\":\"zebra\"}");
        status committed = silo_commit(house->silo, &house->fault);
        house->sim->fail_at = 0;
        assert_ok(house, ask(house, &alice, "GET", "/v1/memories", "", NULL));
        uint32_t before = answer_data(house)->count;
        house_crash(house);
        assert_ok(house, ask(house, &alice, "GET", "/v1/memories", "limit=500", NULL));
        if (done == OK && committed == OK)
            assert_int_equal(answer_data(house)->count, before);
        assert_ok(house, ask(house, &alice, "DELETE", "/v1/memories", "user_id=alice", NULL));
        remember(house, &alice, "zebra 0");
        assert_ok(house, ask(house, &alice, "POST", "/v1/memories/search", "",
                             "{\"query\":\"zebra\"}"));
        assert_int_equal(answer_data(house)->count, 1);
    }
}

static void sign_anchor(struct house *house, struct signer *signer)
{
    struct anchor anchor = house_anchor(house);
    uint8_t storage[NOTE_MAX];
    struct buffer note = buffer_over(storage, sizeof storage);
    struct checkpoint checkpoint = {.size = anchor.log_size};
    memcpy(checkpoint.root.bytes, anchor.log_root, HASH_BYTES);
    strcpy(checkpoint.origin, origin);
    assert_ok(house, checkpoint_sign(&note, &checkpoint, PLATFORM_KEY_NAME, signer, &house->fault));
    silo_keep_checkpoint(house->silo, buffer_span(&note));
}

static status export_all(struct house *house, const uint8_t key[32], uint32_t *pieces)
{
    struct export_verifier *verifier;
    struct export_summary summary;
    const struct export_demands demands = {.key = key};
    uint64_t next = 0;
    bool done = false;
    assert_ok(house, export_verifier_create(&verifier, &demands, &house->fault));
    status verified = OK;
    for (*pieces = 0; !done && verified == OK; ++*pieces) {
        struct buffer out = buffer_of(MIB(1));
        verified = silo_export_audit(&out, &next, &done, house->silo, key, &house->fault);
        if (verified == OK)
            verified = export_verifier_feed(verifier, buffer_span(&out), &house->fault);
        buffer_free(&out);
    }
    if (verified == OK)
        verified = export_verifier_end(&summary, verifier, &house->fault);
    if (verified == OK)
        assert_int_equal(summary.checkpoint.size, next);
    export_verifier_free(verifier);
    return verified;
}

static void an_export_is_what_the_verifier_accepts(void **state)
{
    struct house *house = *state;
    struct signer *signer, *stranger;
    uint8_t key[SIGN_PUBLIC_BYTES], other[SIGN_SEED_BYTES] = {9};
    uint32_t pieces;
    assert_ok(house, signer_create(&signer, seed, &house->fault));
    assert_ok(house, signer_create(&stranger, other, &house->fault));
    signer_public(key, signer);
    assert_status(house, export_all(house, key, &pieces), UNAVAILABLE);
    sign_anchor(house, signer); /* of the empty silo */
    assert_ok(house, export_all(house, key, &pieces));
    for (int i = 0; i < 900; i++)
        remember(house, &alice, "x");
    sign_anchor(house, signer);
    remember(house, &alice, "not covered by the checkpoint");
    assert_ok(house, export_all(house, key, &pieces));
    assert_true(pieces > 1);
    house_reopen(house); /* the note was stored with the last commit */
    assert_ok(house, export_all(house, key, &pieces));
    sign_anchor(house, stranger);
    assert_status(house, export_all(house, key, &pieces), CORRUPT);
    signer_free(signer);
    signer_free(stranger);
}

static void the_anchor_proves_that_the_log_only_grows(void **state)
{
    struct house *house = *state;
    struct anchor old, new;
    struct hash_value proof[CONSISTENCY_PROOF_MAX], old_root, new_root;
    uint32_t count;
    for (int i = 0; i < 5; i++)
        remember(house, &alice, "x");
    old = house_anchor(house);
    assert_int_equal(old.log_size, 5);
    for (int i = 0; i < 9; i++)
        remember(house, &alice, "x");
    assert_ok(house, silo_anchor(&new, proof, &count, house->silo, old.log_size, &house->fault));
    memcpy(old_root.bytes, old.log_root, HASH_BYTES);
    memcpy(new_root.bytes, new.log_root, HASH_BYTES);
    assert_true(new.commits > old.commits);
    assert_ok(house, merkle_check_consistency(old.log_size, new.log_size, proof, count, &old_root,
                                              &new_root, &house->fault));
}

static void a_silo_older_than_its_anchor_or_of_another_history_is_refused(void **state)
{
    struct house *house = *state;
    struct silo *silo;
    remember(house, &alice, "x");
    struct sim *old = sim_copy(house->sim);
    remember(house, &alice, "y");
    struct silo_opening opening = house->opening;
    opening.anchor = house_anchor(house);
    opening.io = &old->io;
    assert_int_equal(silo_open(&silo, &opening, &house->fault), ROLLED_BACK);
    struct sim *present = sim_copy(house->sim);
    opening.io = &present->io;
    opening.anchor.log_root[0] ^= 1;
    assert_int_equal(silo_open(&silo, &opening, &house->fault), CORRUPT);
    opening.anchor.log_root[0] ^= 1;
    opening.anchor.log_size++;
    assert_int_equal(silo_open(&silo, &opening, &house->fault), ROLLED_BACK);
    opening.anchor.log_size--;
    assert_int_equal(silo_open(&silo, &opening, &house->fault), OK);
    silo_close(silo);
    sim_free(old);
    sim_free(present);
}

static void the_files_of_a_used_silo_may_not_vanish(void **state)
{
    struct house *house = *state;
    struct silo *silo;
    remember(house, &alice, "x");
    struct silo_opening opening = house->opening;
    struct sim *empty = sim_create(2);
    opening.anchor = house_anchor(house);
    opening.io = &empty->io;
    assert_int_equal(silo_open(&silo, &opening, &house->fault), ROLLED_BACK);
    sim_free(empty);
}

static void a_tenant_may_know_itself(void **state)
{
    struct house *house = *state;
    house->opening.posture.retention_days = 30;
    house->opening.posture.audit_strict = true;
    house->opening.posture.tier = TIER_REGULATED;
    house_reopen(house);
    remember(house, &alice, "x");
    assert_ok(house, ask(house, &platform, "GET", "/v1/tenant", "", NULL));
    const struct json *tenant = &house->answer;
    assert_string_equal(answer_text(house, tenant, "id"), "616e206964206f66207369787465656e");
    assert_string_equal(answer_text(house, tenant, "name"), "acme");
    assert_string_equal(answer_text(house, tenant, "state"), "active");
    const struct json *posture = json_member(tenant, "posture");
    assert_string_equal(answer_text(house, posture, "tier"), "regulated");
    assert_int_equal(answer_integer(posture, "retention_days"), 30);
    const struct json *usage = json_member(tenant, "usage");
    assert_int_equal(answer_integer(usage, "memories"), 1);
    assert_true(answer_integer(usage, "bytes_stored") > 0);
}

#define HOUSE_TEST(name) cmocka_unit_test_setup_teardown(name, house_build, house_pull_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        HOUSE_TEST(an_empty_silo_has_no_file_until_it_is_used),
        HOUSE_TEST(a_mutation_must_be_committed_and_a_read_need_not),
        HOUSE_TEST(under_strict_audit_a_read_waits_for_its_entry),
        HOUSE_TEST(a_refused_request_does_not_undo_its_neighbour),
        HOUSE_TEST(an_entry_says_who_did_what_and_holds_no_content),
        HOUSE_TEST(the_same_item_has_the_same_hash_in_every_entry),
        HOUSE_TEST(what_is_hidden_from_the_caller_is_a_denial_in_the_log),
        HOUSE_TEST(a_refusal_before_the_handler_has_its_entry),
        HOUSE_TEST(a_request_that_never_reached_its_handler_has_its_entry),
        HOUSE_TEST(too_many_waiting_entries_stop_reads_not_memory),
        HOUSE_TEST(on_a_full_disk_a_turn_is_taken_back_and_reads_go_on),
        HOUSE_TEST(a_disk_call_that_fails_loses_nothing_acknowledged),
        HOUSE_TEST(an_export_is_what_the_verifier_accepts),
        HOUSE_TEST(the_anchor_proves_that_the_log_only_grows),
        HOUSE_TEST(a_silo_older_than_its_anchor_or_of_another_history_is_refused),
        HOUSE_TEST(the_files_of_a_used_silo_may_not_vanish),
        HOUSE_TEST(a_tenant_may_know_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
