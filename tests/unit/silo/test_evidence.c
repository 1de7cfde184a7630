/* What a tenant's auditor gets: entries, checkpoints, proofs that hold against them, the export
 * that anyone verifies. */
#include "house.h"

#include "base/hex.h"
#include "silo/state.h"
#include "store/export.h"
#include "wire/base64.h"

#define AUDIT SCOPE_SET(SCOPE_AUDIT_READ)

static const struct who auditor = {"auditor", "", AUDIT, CLEARANCE_INTERNAL};
static const char origin[] = "bulkhead/silo/616e206964206f66207369787465656e";
static struct signer *signer;
static uint8_t platform_key[SIGN_PUBLIC_BYTES];

static int build(void **state)
{
    static const uint8_t seed[SIGN_SEED_BYTES] = {5};
    if (house_build(state) != 0)
        return -1;
    struct house *house = *state;
    if (signer_create(&signer, seed, &house->fault) != OK)
        return -1;
    signer_public(platform_key, signer);
    house->opening.platform_key = platform_key;
    house_reopen(house);
    return 0;
}

static int pull_down(void **state)
{
    signer_free(signer);
    return house_pull_down(state);
}

/* As the kms does at a moved anchor; returns the size. */
static uint64_t sign_as(struct house *house, const char *of)
{
    uint8_t storage[NOTE_MAX];
    struct buffer note = buffer_over(storage, sizeof storage);
    assert_ok(house, silo_commit(house->silo, &house->fault));
    struct anchor anchor = house_anchor(house);
    struct checkpoint checkpoint = {.size = anchor.log_size};
    memcpy(checkpoint.root.bytes, anchor.log_root, HASH_BYTES);
    assert_true(span_to_text(checkpoint.origin, sizeof checkpoint.origin, span_of_text(of)));
    assert_ok(house, checkpoint_sign(&note, &checkpoint, PLATFORM_KEY_NAME, signer,
                                     &house->fault));
    silo_keep_checkpoint(house->silo, buffer_span(&note));
    return anchor.log_size;
}

static uint64_t sign(struct house *house)
{
    return sign_as(house, origin);
}

static void fill(struct house *house, uint32_t count)
{
    char text[32];
    for (uint32_t i = 0; i < count; i++) {
        snprintf(text, sizeof text, "memory %u", i);
        remember(house, i % 2 ? &alice : &bob, text);
    }
}

static status get(struct house *house, const char *path, const char *query)
{
    return ask(house, &auditor, "GET", path, query, NULL);
}

static struct hash_value hash_in(const struct json *value)
{
    struct hash_value hash;
    struct fault fault;
    struct buffer bytes = buffer_over(hash.bytes, sizeof hash.bytes);
    assert_int_equal(value->kind, JSON_STRING);
    assert_int_equal(base64_decode(&bytes, value->string, "hash", &fault), OK);
    assert_int_equal(bytes.length, HASH_BYTES);
    return hash;
}

static uint32_t hashes_in(struct house *house, struct hash_value ret[CONSISTENCY_PROOF_MAX])
{
    const struct json *hashes = json_member(&house->answer, "hashes");
    assert_non_null(hashes);
    assert_true(hashes->count <= CONSISTENCY_PROOF_MAX);
    for (uint32_t i = 0; i < hashes->count; i++)
        ret[i] = hash_in(&hashes->items[i]);
    return hashes->count;
}

/* The leaf, made again from salt and entry alone. */
static struct hash_value leaf_in(const struct json *item)
{
    uint8_t salt[AUDIT_SALT_BYTES];
    struct fault fault;
    struct buffer bytes = buffer_over(salt, sizeof salt);
    const struct json *entry = json_member(item, "entry");
    assert_int_equal(base64_decode(&bytes, json_member(item, "salt")->string, "salt", &fault), OK);
    const struct span parts[] = {buffer_span(&bytes), entry->source};
    struct hash_value leaf = merkle_leaf_parts(parts, 2);
    struct hash_value said = hash_in(json_member(item, "leaf_hash"));
    assert_memory_equal(leaf.bytes, said.bytes, HASH_BYTES);
    return leaf;
}

static struct checkpoint checkpoint_now(struct house *house)
{
    struct checkpoint checkpoint;
    assert_ok(house, get(house, "/v1/audit/checkpoint", ""));
    assert_string_equal(house->type, "text/plain; charset=utf-8");
    assert_ok(house, checkpoint_open(&checkpoint, buffer_span(&house->body), PLATFORM_KEY_NAME,
                                     platform_key, &house->fault));
    return checkpoint;
}

static void entries_come_as_they_are_in_the_log(void **state)
{
    struct house *house = *state;
    fill(house, 5);
    assert_ok(house, get(house, "/v1/audit", ""));
    assert_int_equal(answer_integer(&house->answer, "size"), 5);
    assert_int_equal(answer_data(house)->count, 5);
    for (uint32_t i = 0; i < 5; i++) {
        const struct json *entry = json_member(answer_item(house, i), "entry");
        assert_int_equal(answer_integer(answer_item(house, i), "index"), i);
        assert_int_equal(answer_integer(entry, "index"), i);
        assert_string_equal(answer_text(house, entry, "action"), "memory.add");
        leaf_in(answer_item(house, i));
    }
    assert_ok(house, get(house, "/v1/audit", "from=3"));
    assert_int_equal(answer_data(house)->count, 2 + (answer_integer(&house->answer, "size") > 5));
    assert_int_equal(answer_integer(answer_item(house, 0), "index"), 3);
    assert_ok(house, get(house, "/v1/audit", "from=9007199254740991"));
    assert_int_equal(answer_data(house)->count, 0);
}

static uint32_t counted(struct house *house, const char *query)
{
    assert_ok(house, get(house, "/v1/audit", query));
    return answer_data(house)->count;
}

static void filters_are_exact(void **state)
{
    struct house *house = *state;
    const struct who odd = {"a\"\\,\"decision\":\"deny\"", "", SCOPES_KNOWN, CLEARANCE_INTERNAL};
    fill(house, 4);
    house->now_us += 10 * SECOND_US;
    remember(house, &odd, "x");
    assert_status(house, ask(house, &alice, "POST", "/v1/memories", "",
                             "{\"text\":\"x\",\"classification\":\"restricted\"}"),
                  FORBIDDEN_CLEARANCE);
    assert_ok(house, silo_commit(house->silo, &house->fault));
    assert_int_equal(counted(house, "subject=alice"), 3);
    assert_int_equal(counted(house, "subject=alic"), 0);
    assert_int_equal(counted(house, "subject=a%22%5C%2C%22decision%22%3A%22deny%22"), 1);
    assert_int_equal(counted(house, "decision=deny"), 1);
    assert_int_equal(counted(house, "decision=deny&subject=bob"), 0);
    assert_int_equal(counted(house, "action=memory.add"), 6);
    assert_int_equal(counted(house, "action=memory.a"), 0);
    assert_int_equal(counted(house, "action=memory.*"), 6);
    assert_int_equal(counted(house, "since=2027-01-15T08:00:10Z"), 2);
    assert_int_equal(counted(house, "since=2027-01-15T09:00:10%2B01:00"), 2);
    assert_int_equal(counted(house, "until=2027-01-15T08:00:10Z"), 4);
    assert_int_equal(counted(house, "until=2027-01-15T08:00:10.000001Z&subject=alice"), 3);
    const char *const bad[] = {
        "since=yesterday", "since=2027-01-15", "since=2027-02-30T00:00:00Z",
        "since=2027-01-15t08:00:10z", "since=2027-01-15T08:00:10", "until=", "subject=",
        "action=", "action=*", "action=memory*", "action=Memory.add", "decision=maybe", "from=-1",
        "from=01", "from=1e3", "from=99999999999999999", "limit=0", "limit=501", "cursor=AAAA",
        "colour=red",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_status(house, get(house, "/v1/audit", bad[i]), BAD_FIELD);
}

static void pages_follow_each_other(void **state)
{
    struct house *house = *state;
    char query[256];
    uint32_t seen = 0, pages = 0;
    fill(house, 25);
    snprintf(query, sizeof query, "limit=4&subject=bob");
    for (bool more = true; more; pages++) {
        assert_ok(house, get(house, "/v1/audit", query));
        for (uint32_t i = 0; i < answer_data(house)->count; i++, seen++)
            assert_int_equal(answer_integer(answer_item(house, i), "index"), 2 * seen);
        more = json_member(&house->answer, "next_cursor")->kind == JSON_STRING;
        if (more)
            snprintf(query, sizeof query, "limit=4&subject=bob&cursor=%s",
                     answer_text(house, &house->answer, "next_cursor"));
    }
    assert_int_equal(seen, 13);
    assert_true(pages >= 4);
    assert_ok(house, get(house, "/v1/audit", "limit=4&subject=bob"));
    snprintf(query, sizeof query, "limit=4&subject=alice&cursor=%s",
             answer_text(house, &house->answer, "next_cursor"));
    assert_status(house, get(house, "/v1/audit", query), BAD_FIELD);
}

static void every_inclusion_proof_holds_against_the_checkpoint(void **state)
{
    struct house *house = *state;
    struct hash_value hashes[CONSISTENCY_PROOF_MAX];
    char query[64];
    fill(house, 300); /* more than one tile */
    sign(house);
    struct checkpoint checkpoint = checkpoint_now(house);
    assert_string_equal(checkpoint.origin, origin);
    for (uint64_t index = 0; index < checkpoint.size; index += 7) {
        snprintf(query, sizeof query, "index=%llu", (unsigned long long)index);
        assert_ok(house, get(house, "/v1/audit/proof", query));
        assert_int_equal(answer_integer(&house->answer, "size"), checkpoint.size);
        uint32_t count = hashes_in(house, hashes);
        struct hash_value leaf = leaf_in(&house->answer);
        assert_ok(house, merkle_check_inclusion(&leaf, index, checkpoint.size, hashes, count,
                                                &checkpoint.root, &house->fault));
        leaf.bytes[0] ^= 1;
        assert_int_equal(merkle_check_inclusion(&leaf, index, checkpoint.size, hashes, count,
                                                &checkpoint.root, &house->fault), CORRUPT);
    }
}

static void every_consistency_proof_holds_between_checkpoints(void **state)
{
    struct house *house = *state;
    struct hash_value hashes[CONSISTENCY_PROOF_MAX];
    struct checkpoint before[8];
    char query[64];
    for (uint32_t i = 0; i < 8; i++) {
        fill(house, 41);
        sign(house);
        before[i] = checkpoint_now(house);
    }
    for (uint32_t i = 0; i < 8; i++) {
        snprintf(query, sizeof query, "from=%llu&to=%llu", (unsigned long long)before[i].size,
                 (unsigned long long)before[7].size);
        assert_ok(house, get(house, "/v1/audit/consistency", query));
        uint32_t count = hashes_in(house, hashes);
        assert_ok(house, merkle_check_consistency(before[i].size, before[7].size, hashes, count,
                                                  &before[i].root, &before[7].root,
                                                  &house->fault));
    }
    assert_ok(house, get(house, "/v1/audit/consistency", "from=0"));
    assert_int_equal(hashes_in(house, hashes), 0);
}

static void proofs_of_what_is_not_there_name_the_range(void **state)
{
    struct house *house = *state;
    assert_status(house, get(house, "/v1/audit/checkpoint", ""), UNAVAILABLE);
    assert_status(house, get(house, "/v1/audit/export", ""), UNAVAILABLE);
    assert_status(house, get(house, "/v1/audit/proof", "index=0"), UNAVAILABLE);
    char query[64], range[64];
    fill(house, 3);
    unsigned long long size = sign(house);
    fill(house, 2);
    snprintf(query, sizeof query, "index=%llu", size);
    snprintf(range, sizeof range, "index: must be below %llu, the size of the newest", size);
    assert_status(house, get(house, "/v1/audit/proof", query), BAD_FIELD);
    assert_non_null(strstr(house->fault.detail, range));
    snprintf(query, sizeof query, "index=%llu&size=%llu", size, size + 1);
    assert_ok(house, get(house, "/v1/audit/proof", query));
    const char *const bad[] = {"", "index=x", "index=3&size=3", "index=0&size=0",
                               "index=0&size=1000", "index=0&size=01", "size=3"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_status(house, get(house, "/v1/audit/proof", bad[i]), BAD_FIELD);
    const char *const wrong[] = {"", "to=2", "from=3&to=2", "from=1&to=1000", "from=-1&to=2"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_status(house, get(house, "/v1/audit/consistency", wrong[i]), BAD_FIELD);
}

static void a_note_of_another_key_or_log_is_not_passed_on(void **state)
{
    struct house *house = *state;
    fill(house, 3);
    sign(house);
    struct checkpoint other = {.origin = "bulkhead/silo/616e206964206f66207369787465656e",
                               .size = 2};
    uint8_t storage[NOTE_MAX];
    struct buffer note = buffer_over(storage, sizeof storage);
    assert_ok(house, checkpoint_sign(&note, &other, PLATFORM_KEY_NAME, signer, &house->fault));
    silo_keep_checkpoint(house->silo, buffer_span(&note));
    assert_status(house, get(house, "/v1/audit/checkpoint", ""), CORRUPT);
    assert_status(house, get(house, "/v1/audit/export", ""), CORRUPT);
    silo_keep_checkpoint(house->silo, SPAN("no note at all\n"));
    assert_status(house, get(house, "/v1/audit/checkpoint", ""), CORRUPT);
    assert_status(house, get(house, "/v1/audit/proof", "index=0"), CORRUPT);
}

static status verify(struct house *house, struct span file, struct export_summary *ret)
{
    const struct export_demands demands = {.key = platform_key};
    struct export_verifier *verifier;
    assert_ok(house, export_verifier_create(&verifier, &demands, &house->fault));
    status done = export_verifier_feed(verifier, file, &house->fault);
    if (done == OK)
        done = export_verifier_end(ret, verifier, &house->fault);
    export_verifier_free(verifier);
    return done;
}

static void an_export_downloaded_in_any_pieces_verifies(void **state)
{
    struct house *house = *state;
    static const size_t pieces[] = {1, 7, 4096, KIB(56), MIB(4)};
    fill(house, 120);
    uint64_t size = sign(house);
    struct span first = {0};
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        struct export_summary summary;
        house->download_piece = pieces[i];
        assert_ok(house, get(house, "/v1/audit/export", ""));
        assert_string_equal(house->type, "application/x-ndjson");
        assert_ok(house, verify(house, buffer_span(&house->body), &summary));
        assert_int_equal(summary.checkpoint.size, size);
        if (i == 0)
            first = arena_copy(&house->arena, buffer_span(&house->body));
        assert_true(span_equal(first, buffer_span(&house->body)));
    }
}

static void an_export_is_of_the_moment_it_was_asked_for(void **state)
{
    struct house *house = *state;
    struct silo_response response = {.body = &house->body};
    struct export_summary summary;
    fill(house, 50);
    uint64_t size = sign(house);
    struct route route;
    char allow[ACTION_ALLOW_MAX];
    assert_ok(house, authz_route(&route, allow, &action_table, SPAN("GET"),
                                 SPAN("/v1/audit/export"), &house->fault));
    struct envelope envelope = {.action = route.action, .scopes = AUDIT, .user = "auditor"};
    hex_encode(envelope.tenant, SPAN_OF(house->opening.tenant_id));
    const struct silo_request request = {.envelope = &envelope, .action = route.action,
                                         .arena = &house->arena, .now_us = house->now_us};
    buffer_clear(&house->body);
    silo_begin(house->silo, house->now_us);
    assert_ok(house, silo_handle(&response, house->silo, &request, &house->fault));
    struct buffer file = buffer_of(MIB(4));
    bool end = false;
    assert_ok(house, silo_download_read(&file, &end, response.download, 1000, &house->fault));
    fill(house, 20);
    sign(house);
    while (!end)
        assert_ok(house, silo_download_read(&file, &end, response.download, 1000, &house->fault));
    assert_null(silo_download_close(response.download));
    assert_ok(house, verify(house, buffer_span(&file), &summary));
    assert_int_equal(summary.checkpoint.size, size);
    buffer_free(&file);
}

static void a_restored_log_is_exported_under_its_own_origin(void **state)
{
    struct house *house = *state;
    struct export_summary summary;
    fill(house, 5);
    sign_as(house, "bulkhead/silo/616e206964206f66207369787465656e+2");
    assert_string_equal(checkpoint_now(house).origin,
                        "bulkhead/silo/616e206964206f66207369787465656e+2");
    assert_ok(house, get(house, "/v1/audit/export", ""));
    assert_ok(house, verify(house, buffer_span(&house->body), &summary));
}

static void a_prompt_is_found_by_its_hash_and_only_by_it(void **state)
{
    struct house *house = *state;
    remember(house, &alice, "the secret word is xylophone");
    assert_ok(house, ask(house, &alice, "POST", "/v1/memories/search", "",
                         "{\"query\":\"xylo\\u0070hone\",\"limit\":3}"));
    struct span result = arena_copy(&house->arena, buffer_span(&house->body));
    assert_ok(house, silo_commit(house->silo, &house->fault));
    assert_ok(house, ask(house, &auditor, "POST", "/v1/audit/hash", "",
                         "{\"text\":\"xylophone\"}"));
    const char *hash = answer_text(house, &house->answer, "hash");
    assert_ok(house, ask(house, &auditor, "POST", "/v1/audit/hash", "",
                         "{\"base64\":\"eHlsb3Bob25l\"}"));
    assert_string_equal(answer_text(house, &house->answer, "hash"), hash);
    assert_ok(house, get(house, "/v1/audit", "action=memory.search"));
    const struct json *entry = json_member(answer_item(house, 0), "entry");
    assert_string_equal(answer_text(house, entry, "prompt_hash"), hash);
    const char *result_hash = answer_text(house, entry, "result_hash");
    uint8_t body[KIB(8)];
    struct buffer asked = buffer_over(body, sizeof body - 1);
    buffer_put_text(&asked, "{\"base64\":\"");
    base64_put(&asked, result);
    buffer_put_text(&asked, "\"}");
    body[asked.length] = 0;
    assert_ok(house, ask(house, &auditor, "POST", "/v1/audit/hash", "", (const char *)body));
    assert_string_equal(answer_text(house, &house->answer, "hash"), result_hash);
    assert_ok(house, get(house, "/v1/audit", ""));
    for (uint32_t i = 0; i < answer_data(house)->count; i++) {
        const struct json *one = json_member(answer_item(house, i), "entry");
        bool search = span_is(json_member(one, "action")->string, "memory.search");
        assert_int_equal(json_member(one, "prompt_hash") != NULL, search);
    }
    const char *const bad[] = {"{}", "{\"text\":\"\"}", "{\"text\":\"a\",\"base64\":\"YQ==\"}",
                               "{\"base64\":\"Y\"}", "{\"base64\":\"YR==\"}", "{\"text\":1}",
                               "{\"text\":\"a\",\"more\":1}"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_status(house, ask(house, &auditor, "POST", "/v1/audit/hash", "", bad[i]),
                      BAD_FIELD);
}

#define HOUSE_TEST(name) cmocka_unit_test_setup_teardown(name, build, pull_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        HOUSE_TEST(entries_come_as_they_are_in_the_log),
        HOUSE_TEST(filters_are_exact),
        HOUSE_TEST(pages_follow_each_other),
        HOUSE_TEST(every_inclusion_proof_holds_against_the_checkpoint),
        HOUSE_TEST(every_consistency_proof_holds_between_checkpoints),
        HOUSE_TEST(proofs_of_what_is_not_there_name_the_range),
        HOUSE_TEST(a_note_of_another_key_or_log_is_not_passed_on),
        HOUSE_TEST(an_export_downloaded_in_any_pieces_verifies),
        HOUSE_TEST(an_export_is_of_the_moment_it_was_asked_for),
        HOUSE_TEST(a_restored_log_is_exported_under_its_own_origin),
        HOUSE_TEST(a_prompt_is_found_by_its_hash_and_only_by_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
