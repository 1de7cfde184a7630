#include "vectors.h"

#include "authz/charter.h"

#define ID_BYTES {0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, \
                  0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff} /* VECTOR_TENANT */

static const uint8_t seed[SIGN_SEED_BYTES] = {9};
static struct signer *signer;
static struct verifier *platform;

struct parts {
    struct token_issuer issuers[2];
    struct revoked_jti jtis[3];
    struct revoked_subject subjects[2];
    struct charter charter;
};

/* Good in every part; revocations out of order and one twice. */
static struct charter *sample(struct parts *parts)
{
    *parts = (struct parts){
        .issuers = {vector_issuer_bound(), vector_issuer_foreign()},
        .jtis = {{{9}, 2000}, {{1}, 3000}, {{9}, 2500}},
        .subjects = {{"zoe", 100}, {"ada \"q\" \xc3\xab", 200}},
        .charter = {
            .id = ID_BYTES, .sequence = 7, .issued_at = 1800000000,
            .posture = posture_defaults(TIER_REGULATED),
            .issuer_count = 2, .jti_count = 3, .subject_count = 2,
        },
    };
    snprintf(parts->issuers[1].tenant, TENANT_ID_TEXT, VECTOR_TENANT);
    struct posture *posture = &parts->charter.posture;
    snprintf(posture->name, sizeof posture->name, "acme");
    snprintf(posture->region, sizeof posture->region, "eu-1");
    posture->created_at_us = 1700000000000000;
    posture->retention_days = 30;
    posture->quotas.user_requests_per_second = 9;
    parts->charter.issuers = parts->issuers;
    parts->charter.jtis = parts->jtis;
    parts->charter.subjects = parts->subjects;
    return &parts->charter;
}

static struct charter *sample_platform(struct parts *parts)
{
    struct charter *charter = sample(parts);
    memset(charter->id, 0, sizeof charter->id);
    charter->posture = (struct posture){.tier = TIER_STANDARD};
    parts->issuers[0].tenant[0] = parts->issuers[1].tenant[0] = '\0';
    return charter;
}

static struct buffer put(const struct charter *charter)
{
    struct buffer out = buffer_of(CHARTER_MAX);
    struct fault fault;
    assert_int_equal(charter_put(&out, charter, &fault), OK);
    return out;
}

static void a_charter_is_read_as_it_was_written(void **state)
{
    (void)state;
    struct parts parts;
    struct fault fault;
    struct charter *made = sample(&parts), *read = NULL;
    _cleanup_buffer_ struct buffer document = put(made);
    assert_int_equal(charter_read(&read, buffer_span(&document), &fault), OK);
    assert_memory_equal(read->id, made->id, sizeof made->id);
    assert_int_equal(read->sequence, 7);
    assert_int_equal(read->issued_at, 1800000000);
    assert_false(charter_is_platform(read));
    const struct posture *posture = &read->posture;
    assert_string_equal(posture->name, "acme");
    assert_string_equal(posture->region, "eu-1");
    assert_int_equal(posture->created_at_us, 1700000000000000);
    assert_int_equal(posture->tier, TIER_REGULATED);
    assert_int_equal(posture->retention_days, 30);
    assert_true(posture->audit_strict && posture->clearance_required);
    assert_int_equal(posture->token_lifetime_max_seconds, 300);
    assert_int_equal(posture->quotas.requests_per_second, 1000);
    assert_int_equal(posture->quotas.concurrent_requests, 256);
    assert_true(posture->quotas.bytes_stored == 10737418240);
    assert_int_equal(posture->quotas.user_requests_per_second, 9);
    assert_int_equal(read->issuer_count, 2);
    const struct token_issuer *foreign = &read->issuers[1];
    assert_string_equal(foreign->iss, "https://foreign.example/");
    assert_string_equal(foreign->tenant, VECTOR_TENANT);
    assert_string_equal(foreign->user_claim, "uid");
    assert_string_equal(foreign->scope_claim, "scp");
    assert_string_equal(foreign->clearance_claim, "level");
    assert_false(foreign->builtin || foreign->jti_once);
    assert_int_equal(foreign->key_count, 6);
    for (uint32_t i = 0; i < 6; i++) {
        assert_string_equal(foreign->keys[i].id, parts.issuers[1].keys[i].id);
        assert_int_equal(foreign->keys[i].alg, parts.issuers[1].keys[i].alg);
        assert_int_equal(foreign->keys[i].length, parts.issuers[1].keys[i].length);
        assert_memory_equal(foreign->keys[i].public_key, parts.issuers[1].keys[i].public_key,
                            foreign->keys[i].length);
    }
    /* sorted, once each, the later time */
    assert_int_equal(read->jti_count, 2);
    assert_int_equal(read->jtis[0].hash[0], 1);
    assert_int_equal(read->jtis[1].hash[0], 9);
    assert_int_equal(read->jtis[1].until, 2500);
    assert_int_equal(read->subject_count, 2);
    assert_string_equal(read->subjects[0].user, "ada \"q\" \xc3\xab");
    assert_int_equal(read->subjects[1].at, 100);
    _cleanup_buffer_ struct buffer again = put(read);
    assert_true(span_equal(buffer_span(&again), buffer_span(&document)));
    charter_free(read);
    assert_null(charter_free(NULL));
}

static void the_platform_s_has_no_posture(void **state)
{
    (void)state;
    struct parts parts;
    struct fault fault;
    struct charter *read = NULL;
    _cleanup_buffer_ struct buffer document = put(sample_platform(&parts));
    assert_int_equal(charter_read(&read, buffer_span(&document), &fault), OK);
    assert_true(charter_is_platform(read));
    assert_string_equal(read->issuers[0].tenant, "");
    charter_free(read);
}

static void refuse(const char *text, size_t length)
{
    struct charter *read = NULL;
    struct fault fault = {""};
    status code = charter_read(&read, (struct span){(const uint8_t *)text, length}, &fault);
    if (code != BAD_FIELD)
        fail_msg("%d for %.*s", code, (int)length, text);
    assert_null(read);
    assert_true(fault.detail[0] != '\0');
}

static void no_part_of_a_document_and_nothing_behind_it_is_read(void **state)
{
    (void)state;
    struct parts parts;
    _cleanup_buffer_ struct buffer document = put(sample(&parts));
    for (size_t length = 0; length < document.length; length++)
        refuse((const char *)document.data, length);
    buffer_put_text(&document, "x");
    refuse((const char *)document.data, document.length);
}

/* The document with the first `what` made into `with`: must be refused. */
static void refuse_changed(const struct buffer *document, const char *what, const char *with)
{
    char text[CHARTER_MAX + 1024], changed[CHARTER_MAX + 1024];
    assert_true(span_to_text(text, sizeof text, buffer_span(document)));
    char *at = strstr(text, what);
    if (!at)
        fail_msg("no %s", what);
    int length = snprintf(changed, sizeof changed, "%.*s%s%s", (int)(at - text), text, with,
                          at + strlen(what));
    refuse(changed, (size_t)length);
}

static void what_is_unknown_missing_or_of_another_kind_is_refused(void **state)
{
    (void)state;
    struct parts parts;
    _cleanup_buffer_ struct buffer document = put(sample(&parts));
    static const char *const changes[][2] = {
        {"{\"charter\"", "{\"more\":1,\"charter\""}, {"\"charter\":1,", ""},
        {"\"charter\":1", "\"charter\":2"}, {"\"charter\":1", "\"charter\":\"1\""},
        {"\"charter\":1", "\"charter\":1,\"charter\":1"},
        {"\"sequence\":7", "\"sequence\":0"}, {"\"sequence\":7", "\"sequence\":-1"},
        {"\"sequence\":7", "\"sequence\":7.0"}, {"\"sequence\":7", "\"sequence\":null"},
        {"\"sequence\":7", "\"sequence\":9223372036854775807"},
        {"\"issued_at\":1800000000", "\"issued_at\":0"},
        {"0011223344", "00112233"}, {"00112233445566778899aabb", "00112233445566778899AABB"},
        {"00112233445566778899aabbccddeeff", "00000000000000000000000000000000"},
        {"\"posture\":{", "\"posture\":{\"more\":1,"}, {"\"name\":\"acme\",", ""},
        {"\"acme\"", "\"Acme\""}, {"\"acme\"", "\"\""},
        {"\"acme\"", "\"00112233445566778899aabbccddeeff\""},
        {"\"eu-1\"", "\"eu 1\""}, {"\"eu-1\"", "\"-\""}, {"\"eu-1\"", "1"},
        {"\"regulated\"", "\"Regulated\""}, {"\"regulated\"", "1"},
        {"\"retention_days\":30", "\"retention_days\":0"},
        {"\"retention_days\":30", "\"retention_days\":36501"},
        {"\"retention_days\":30", "\"retention_days\":4294967326"},
        {"\"audit_strict\":true", "\"audit_strict\":false"},
        {"\"audit_strict\":true", "\"audit_strict\":1"},
        {"\"audit_strict\":true", "\"audit_strict\":null"},
        {"\"clearance_required\":true", "\"clearance_required\":false"},
        {"max_seconds\":300", "max_seconds\":301"}, {"max_seconds\":300", "max_seconds\":0"},
        {"\"quotas\":{", "\"quotas\":{\"more\":1,"}, {"\"concurrent_requests\":256,", ""},
        {"\"sandboxes\":16", "\"sandboxes\":-1"}, {"\"sandboxes\":16", "\"sandboxes\":null"},
        {"\"sandboxes\":16", "\"sandbox\":16"},
        {"\"sandbox_memory_mib\":4096", "\"sandbox_memory_mib\":9007199254740992"},
        {"\"microvm\"", "\"gvisor\""}, {"\"microvm\"", "\"MicroVM\""},
        {"\"microvm\"", "3"}, {"\"microvm\"", "null"}, {"\"sandbox\":\"", "\"wall\":\""},
        {"\"key_version\":0", "\"key_version\":-1"},
        {"\"key_version\":0", "\"key_version\":4294967296"},
        {"\"key_version\":0", "\"key_version\":null"},
        {"\"key_version\":0", "\"key_versions\":0"},
        {"\"requests_per_second\":1000", "\"requests_per_second\":-1"},
        {"\"requests_per_second\":1000", "\"requests_per_second\":9007199254740992"},
        {"\"iss\":\"https://acme.example/\"", "\"iss\":\"bulkhead\""},
        {"\"iss\":\"https://acme.example/\"", "\"iss\":\"https://foreign.example/\""},
        {"\"iss\":\"https://acme.example/\"", "\"iss\":\"\""},
        {"\"iss\":", "\"builtin\":true,\"iss\":"}, {"\"iss\":", "\"tenant\":\"\",\"iss\":"},
        {"\"user_claim\":\"sub\"", "\"user_claim\":\"client_id\""},
        {"\"user_claim\":\"sub\"", "\"user_claim\":\"azp\""},
        {"\"user_claim\":\"sub\"", "\"user_claim\":\"a\\u0000\""},
        {"\"jti_once\":false", "\"jti_once\":0"}, {"\"jti_once\":false,", ""},
        {"max_seconds\":900", "max_seconds\":86401"}, {"max_seconds\":900", "max_seconds\":0"},
        {"\"early_seconds\":0", "\"early_seconds\":61"},
        {"\"late_seconds\":0", "\"late_seconds\":-1"},
        {"\"EdDSA\"", "\"none\""}, {"\"EdDSA\"", "\"ES256\""}, {"\"kid\":\"one\"", "\"kid\":1"},
        {"\"kid\":\"rs\"", "\"kid\":\"es\""}, {"\"keys\":[", "\"keys\":[1,"},
        {"\"key\":\"", "\"key\":\"="}, {"\"jtis\":[[", "\"jtis\":[1,["},
        {",3000]", ",3000,1]"}, {",3000]", ",\"3000\"]"}, {",3000]", ",0]"},
        {"\"revoked\":{", "\"revoked\":{\"more\":[],"}, {"\"zoe\"", "\"aaa\""},
        {"\"zoe\"", "\"z\\noe\""}, {"\"zoe\"", "\"\""},
    };
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++)
        refuse_changed(&document, changes[i][0], changes[i][1]);
    refuse("[]", 2);
    refuse("{}", 2);
}

static void take_out(struct buffer *document, const char *gone)
{
    size_t length = strlen(gone);
    buffer_put_u8(document, 0);
    char *at = strstr((char *)document->data, gone);
    assert_non_null(at);
    memmove(at, at + length, strlen(at + length));
    document->length -= length + 1;
}

/* Signed documents of the former form have neither quotas nor a tier of sandboxes, and are read
 * with those that a new tenant of their tier begins with. */
static void a_document_from_before_there_were_sandboxes_is_still_one(void **state)
{
    (void)state;
    struct parts parts;
    struct fault fault;
    struct charter *read;
    struct charter *charter = sample(&parts);
    charter->posture.quotas.sandboxes = 3;
    for (int tier = TIER_STANDARD; tier <= TIER_REGULATED; tier++) {
        charter->posture.tier = (enum tier)tier;
        charter->posture.sandbox = SANDBOX_MICROVM;
        _cleanup_buffer_ struct buffer document = put(charter);
        take_out(&document, ",\"sandbox\":\"microvm\"");
        take_out(&document, ",\"sandboxes\":3");
        take_out(&document, ",\"sandbox_memory_mib\":4096");
        assert_int_equal(charter_read(&read, buffer_span(&document), &fault), OK);
        assert_int_equal(read->posture.sandbox, tier == TIER_REGULATED ? SANDBOX_MICROVM
                                                                       : SANDBOX_GVISOR);
        assert_int_equal(read->posture.quotas.sandboxes, TENANT_SANDBOXES_DEFAULT);
        assert_int_equal(read->posture.quotas.sandbox_memory_mib,
                         TENANT_SANDBOX_MEMORY_MIB_DEFAULT);
        charter_free(read);
    }
}

/* Signed documents of the former form have no version of the key, and are read as they are. */
static void a_document_from_before_keys_were_rotated_is_still_one(void **state)
{
    (void)state;
    struct parts parts;
    struct fault fault;
    struct charter *read;
    struct charter *charter = sample(&parts);
    charter->posture.key_version = 7;
    _cleanup_buffer_ struct buffer document = put(charter);
    assert_int_equal(charter_read(&read, buffer_span(&document), &fault), OK);
    assert_int_equal(read->posture.key_version, 7);
    charter_free(read);
    take_out(&document, ",\"key_version\":7");
    assert_int_equal(charter_read(&read, buffer_span(&document), &fault), OK);
    assert_int_equal(read->posture.key_version, 0);
    charter_free(read);
}

static void jtis_out_of_order_or_twice_are_refused(void **state)
{
    (void)state;
    struct parts parts;
    _cleanup_buffer_ struct buffer document = put(sample(&parts));
    refuse_changed(&document, "[[\"AQ", "[[\"CQAAAAAAAAAAAAAAAAAAAA\",1],[\"AQ");
    refuse_changed(&document, "[[\"AQ", "[[\"AQAAAAAAAAAAAAAAAAAAAA\",1],[\"AQ");
    refuse_changed(&document, "[[\"AQ", "[[\"AAAAAAAAAAAAAAAAAAAAAB\",1],[\"AQ"); /* stray bits */
    refuse_changed(&document, "[[\"AQ", "[[\"AAAAAAAAAAAAAAAAAAAA\",1],[\"AQ");   /* 15 bytes */
}

static void a_writer_refuses_what_a_reader_would(void **state)
{
    (void)state;
    struct parts parts;
    struct fault fault;
    _cleanup_buffer_ struct buffer out = buffer_of(CHARTER_MAX);
    struct charter *charter = sample(&parts);
    charter->sequence = 0;
    assert_int_equal(charter_put(&out, charter, &fault), BAD_FIELD);
    charter = sample(&parts);
    parts.issuers[0].builtin = true;
    parts.issuers[0].tenant[0] = '\0';
    assert_int_equal(charter_put(&out, charter, &fault), BAD_FIELD);
    charter = sample(&parts);
    parts.issuers[1].tenant[0] = '\0'; /* would vouch for every tenant */
    assert_int_equal(charter_put(&out, charter, &fault), BAD_FIELD);
    charter = sample_platform(&parts);
    snprintf(parts.issuers[0].tenant, TENANT_ID_TEXT, VECTOR_TENANT);
    assert_int_equal(charter_put(&out, charter, &fault), BAD_FIELD);
    charter = sample(&parts);
    memset(charter->posture.name, 'a', sizeof charter->posture.name);
    assert_int_equal(charter_put(&out, charter, &fault), BAD_FIELD);
    charter = sample(&parts);
    memset(parts.subjects[0].user, 'a', sizeof parts.subjects[0].user);
    assert_int_equal(charter_put(&out, charter, &fault), BAD_FIELD);
    charter = sample(&parts);
    charter->posture.audit_strict = false;
    assert_int_equal(charter_put(&out, charter, &fault), BAD_FIELD);
    assert_int_equal(out.length, 0);
}

static void a_charter_has_bounds(void **state)
{
    (void)state;
    static struct revoked_jti jtis[CHARTER_REVOCATIONS_MAX + 1];
    static struct revoked_subject subjects[CHARTER_REVOCATIONS_MAX + 1];
    static struct token_issuer issuers[CHARTER_ISSUERS_MAX + 1];
    struct parts parts;
    struct fault fault = {""};
    struct charter *charter = sample(&parts), *read = NULL;
    for (uint32_t i = 0; i <= CHARTER_REVOCATIONS_MAX; i++) {
        jtis[i] = (struct revoked_jti){{(uint8_t)(i >> 8), (uint8_t)i}, 1800000000};
        subjects[i].at = 1800000000;
        snprintf(subjects[i].user, sizeof subjects[i].user, "%u", i);
    }
    for (uint32_t i = 0; i <= CHARTER_ISSUERS_MAX; i++) {
        issuers[i] = vector_issuer_bound();
        snprintf(issuers[i].iss, sizeof issuers[i].iss, "https://%u", i);
    }
    charter->issuer_count = 0;
    charter->subject_count = 0;
    charter->jtis = jtis;
    charter->jti_count = CHARTER_REVOCATIONS_MAX;
    {
        _cleanup_buffer_ struct buffer document = put(charter);
        assert_int_equal(charter_read(&read, buffer_span(&document), &fault), OK);
        assert_int_equal(read->jti_count, CHARTER_REVOCATIONS_MAX);
        read = charter_free(read);
    }
    _cleanup_buffer_ struct buffer out = buffer_of(2 * CHARTER_MAX);
    charter->jti_count++;
    assert_int_equal(charter_put(&out, charter, &fault), TOO_LARGE);
    charter->jti_count = 0;
    charter->subjects = subjects;
    charter->subject_count = CHARTER_REVOCATIONS_MAX + 1;
    assert_int_equal(charter_put(&out, charter, &fault), TOO_LARGE);
    charter->subject_count--;
    charter->issuers = issuers;
    charter->issuer_count = CHARTER_ISSUERS_MAX;
    assert_int_equal(charter_put(&out, charter, &fault), OK);
    buffer_clear(&out);
    charter->issuer_count++;
    assert_int_equal(charter_put(&out, charter, &fault), TOO_LARGE);
    charter->issuer_count--;
    charter->jti_count = CHARTER_REVOCATIONS_MAX; /* each within its bound, together too long */
    assert_int_equal(charter_put(&out, charter, &fault), TOO_LARGE);
    assert_non_null(strstr(fault.detail, "remove"));
    assert_int_equal(out.length, 0);
}

/* ---- signed ---- */

static struct signed_charter sign(const struct charter *charter, struct span document)
{
    struct signed_charter made = {.sequence = charter->sequence, .document = document};
    _cleanup_buffer_ struct buffer bytes = buffer_of(CHARTER_SIGNED_MAX);
    struct fault fault;
    memcpy(made.id, charter->id, sizeof made.id);
    charter_signed_bytes(&bytes, made.id, made.sequence, document);
    assert_int_equal(signer_sign(made.signature, signer, buffer_span(&bytes), &fault), OK);
    return made;
}

static void a_signed_charter_opens_and_a_changed_one_does_not(void **state)
{
    (void)state;
    struct parts parts;
    struct fault fault;
    struct charter *charter = sample(&parts), *opened = NULL;
    _cleanup_buffer_ struct buffer document = put(charter), wire = buffer_of(2 * CHARTER_MAX);
    struct signed_charter made = sign(charter, buffer_span(&document)), got;
    signed_charter_put(&wire, &made);
    struct cursor cursor = cursor_over(buffer_span(&wire));
    assert_int_equal(signed_charter_get(&got, &cursor, &fault), OK);
    assert_int_equal(cursor_left(&cursor), 0);
    assert_int_equal(signed_charter_open(&opened, platform, &got, &fault), OK);
    assert_int_equal(opened->sequence, 7);
    opened = charter_free(opened);
    for (size_t at = 0; at < wire.length; at++) {
        if (at >= TENANT_ID_BYTES + 8 && at < TENANT_ID_BYTES + 12)
            continue; /* the length of the document: below */
        wire.data[at] ^= 1;
        cursor = cursor_over(buffer_span(&wire));
        assert_int_equal(signed_charter_get(&got, &cursor, &fault), OK);
        assert_int_equal(signed_charter_open(&opened, platform, &got, &fault), UNAUTHENTICATED);
        assert_null(opened);
        wire.data[at] ^= 1;
    }
    for (size_t length = 0; length < wire.length; length++) {
        cursor = cursor_over((struct span){wire.data, length});
        assert_int_equal(signed_charter_get(&got, &cursor, &fault), TRUNCATED);
    }
    wire.data[TENANT_ID_BYTES + 8] = 1; /* 16 MiB */
    cursor = cursor_over(buffer_span(&wire));
    assert_int_not_equal(signed_charter_get(&got, &cursor, &fault), OK);
}

static void a_charter_signed_under_another_name_is_refused(void **state)
{
    (void)state;
    struct parts parts;
    struct fault fault;
    struct charter *charter = sample(&parts), *opened = NULL;
    _cleanup_buffer_ struct buffer document = put(charter);
    charter->sequence = 8;
    struct signed_charter made = sign(charter, buffer_span(&document));
    assert_int_equal(signed_charter_open(&opened, platform, &made, &fault), BAD_FIELD);
    charter->sequence = 7;
    charter->id[0] ^= 1;
    made = sign(charter, buffer_span(&document));
    assert_int_equal(signed_charter_open(&opened, platform, &made, &fault), BAD_FIELD);
    made = sign(charter, SPAN("{}"));
    assert_int_equal(signed_charter_open(&opened, platform, &made, &fault), BAD_FIELD);
    assert_null(opened);
}

static void the_hash_is_of_what_is_signed(void **state)
{
    (void)state;
    static const uint8_t id[TENANT_ID_BYTES] = ID_BYTES;
    uint8_t got[HASH_BYTES], expected[HASH_BYTES];
    static const char plain[] = "bulkhead charter v1\n"
                                "\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff"
                                "\0\0\0\0\0\0\x01\x02" "{}";
    hash(expected, SPAN(plain));
    charter_hash(got, id, 0x102, SPAN("{}"));
    assert_memory_equal(got, expected, HASH_BYTES);
    struct buffer bytes = buffer_over((uint8_t[64]){0}, 64);
    charter_signed_bytes(&bytes, id, 0x102, SPAN("{}"));
    assert_true(span_equal(buffer_span(&bytes), SPAN(plain)));
}

static void heads_are_read_as_written(void **state)
{
    (void)state;
    struct charter_head head = {.sequence = 3, .hash = {1, 2}}, got;
    struct buffer out = buffer_over((uint8_t[CHARTER_HEAD_BYTES]){0}, CHARTER_HEAD_BYTES);
    struct fault fault;
    charter_head_put(&out, &head);
    assert_int_equal(out.length, CHARTER_HEAD_BYTES);
    struct cursor cursor = cursor_over(buffer_span(&out));
    assert_int_equal(charter_head_get(&got, &cursor, &fault), OK);
    assert_true(got.sequence == 3 && got.hash[1] == 2);
    out.data[7] = 0; /* a hash of nothing */
    cursor = cursor_over(buffer_span(&out));
    assert_int_equal(charter_head_get(&got, &cursor, &fault), BAD_FIELD);
    cursor = cursor_over((struct span){out.data, CHARTER_HEAD_BYTES - 1});
    assert_int_equal(charter_head_get(&got, &cursor, &fault), TRUNCATED);
}

/* ---- in force ---- */

static status verify(struct token_verifier *verifier, const char *check, const char *name)
{
    struct claims claims;
    enum token_reason reason;
    struct fault fault;
    return token_verify(&claims, &reason, verifier, span_of_text(vector_named(check, name)->token),
                        VECTOR_NOW, &fault);
}

static void what_a_charter_names_is_trusted_and_what_it_drops_no_longer(void **state)
{
    (void)state;
    struct parts tenants, platforms;
    struct fault fault;
    struct token_verifier *verifier = NULL;
    struct token_issuer builtin = token_issuer_builtin(vectors.builtin);
    assert_int_equal(token_verifier_create(&verifier, &fault), OK);
    assert_int_equal(token_verifier_put(verifier, &builtin, &fault), OK);
    struct charter *own = sample(&tenants), *all = sample_platform(&platforms);
    platforms.issuers[0] = vector_issuer_ext();
    assert_int_equal(verify(verifier, "18", "the one tenant of a tenant's issuer"),
                     UNAUTHENTICATED);
    assert_int_equal(charter_trust(verifier, own, &fault), OK);
    assert_int_equal(charter_trust(verifier, all, &fault), OK);
    assert_int_equal(verify(verifier, "18", "the one tenant of a tenant's issuer"), OK);
    assert_int_equal(verify(verifier, "11", "registered issuer"), OK);
    assert_int_equal(verify(verifier, "01", "plain"), OK);
    all->issuer_count = 0;
    assert_int_equal(charter_trust(verifier, all, &fault), OK);
    assert_int_equal(verify(verifier, "11", "registered issuer"), UNAUTHENTICATED);
    assert_int_equal(verify(verifier, "18", "the one tenant of a tenant's issuer"), OK);
    /* one bad key among several: everything stays as it was */
    memset(tenants.issuers[1].keys[0].public_key, 0, 64);
    assert_int_equal(charter_trust(verifier, own, &fault), BAD_FIELD);
    assert_int_equal(verify(verifier, "18", "the one tenant of a tenant's issuer"), OK);
    own->issuer_count = 0;
    assert_int_equal(charter_trust(verifier, own, &fault), OK);
    assert_int_equal(verify(verifier, "18", "the one tenant of a tenant's issuer"),
                     UNAUTHENTICATED);
    assert_int_equal(verify(verifier, "01", "plain"), OK);
    token_verifier_free(verifier);
}

static void check_27_revoked_jtis_are_found_and_no_others(void **state)
{
    (void)state;
    static struct revoked_jti jtis[101];
    struct charter charter = {.jtis = jtis};
    struct claims claims = {.user = "ada", .issued_at = 5};
    assert_false(charter_revokes(NULL, &claims));
    for (charter.jti_count = 0; charter.jti_count <= 101; charter.jti_count++) {
        for (int byte = 0; byte < 256; byte++) {
            memset(claims.jti, 0, sizeof claims.jti);
            claims.jti[15] = (uint8_t)byte;
            claims.jti[16] = 0x77; /* beyond what is kept */
            bool listed = byte % 2 == 0 && byte / 2 < (int)charter.jti_count;
            assert_int_equal(charter_revokes(&charter, &claims), listed);
        }
        if (charter.jti_count < 101) /* even numbers, in order */
            jtis[charter.jti_count].hash[15] = (uint8_t)(2 * charter.jti_count);
    }
    /* a token without jti is none of those, whatever is listed */
    charter.jti_count = 101;
    memset(claims.jti, 0, sizeof claims.jti);
    assert_false(charter_revokes(&charter, &claims));
}

static void check_27_a_subject_is_cut_off_by_time_of_issue(void **state)
{
    (void)state;
    struct revoked_subject subjects[] = {{"ada", 1000}, {"eve", 2000}, {"zoe", 3000}};
    struct charter charter = {.subjects = subjects, .subject_count = 3};
    const struct {
        const char *user;
        int64_t issued_at, early;
        bool revoked;
    } cases[] = {
        {"ada", 1000, 0, true}, {"ada", 1001, 0, false}, {"ada", 1, 0, true},
        {"ada", 0, 0, true}, /* hides its age */
        {"ada", 1060, 60, true}, {"ada", 1061, 60, false},
        {"eve", 2000, 0, true}, {"zoe", 3000, 0, true}, {"zoe", 3001, 0, false},
        {"bob", 1, 0, false}, {"ad", 1, 0, false}, {"adam", 1, 0, false}, {"Ada", 0, 0, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct claims claims = {.issued_at = cases[i].issued_at,
                                .issuer_early_seconds = cases[i].early};
        snprintf(claims.user, sizeof claims.user, "%s", cases[i].user);
        assert_int_equal(charter_revokes(&charter, &claims), cases[i].revoked);
    }
}

static void what_is_past_is_dropped_and_what_can_matter_stays(void **state)
{
    (void)state;
    const int64_t now = 1800000000;
    struct revoked_jti jtis[] = {{{1}, now - 61}, {{2}, now}, {{3}, now + 1}, {{4}, 1}};
    struct revoked_subject subjects[] = {{"ada", now - 86400 - 121}, {"eve", now - 86400},
                                         {"zoe", now}};
    struct charter charter = {.jtis = jtis, .jti_count = 4, .subjects = subjects,
                              .subject_count = 3};
    charter_drop_past(&charter, now);
    assert_int_equal(charter.jti_count, 2);
    assert_true(jtis[0].hash[0] == 2 && jtis[1].hash[0] == 3);
    assert_int_equal(charter.subject_count, 2);
    assert_string_equal(subjects[0].user, "eve");
}

/* ---- posture ---- */

static void the_defaults_of_a_tier_hold_its_rule(void **state)
{
    (void)state;
    struct fault fault = {""};
    struct posture standard = posture_defaults(TIER_STANDARD);
    struct posture regulated = posture_defaults(TIER_REGULATED);
    assert_false(standard.audit_strict || standard.clearance_required);
    assert_int_equal(standard.token_lifetime_max_seconds, 0);
    assert_int_equal(standard.sandbox, SANDBOX_GVISOR);
    assert_int_equal(regulated.sandbox, SANDBOX_MICROVM);
    assert_int_equal(posture_check(&standard, &fault), OK);
    /* but for retention, which somebody has to decide */
    assert_int_equal(posture_check(&regulated, &fault), BAD_FIELD);
    assert_non_null(strstr(fault.detail, "retention_days"));
    regulated.retention_days = 1;
    assert_int_equal(posture_check(&regulated, &fault), OK);
}

static void a_regulated_tenant_can_be_tightened_and_not_loosened(void **state)
{
    (void)state;
    struct fault fault = {""};
    struct posture good = posture_defaults(TIER_REGULATED);
    good.retention_days = 365;
    struct posture posture = good;
    posture.token_lifetime_max_seconds = 60;
    assert_int_equal(posture_check(&posture, &fault), OK);
    posture.token_lifetime_max_seconds = 301;
    assert_int_equal(posture_check(&posture, &fault), BAD_FIELD);
    posture.token_lifetime_max_seconds = 0;
    assert_int_equal(posture_check(&posture, &fault), BAD_FIELD);
    posture = good;
    posture.audit_strict = false;
    assert_int_equal(posture_check(&posture, &fault), BAD_FIELD);
    assert_non_null(strstr(fault.detail, "audit_strict"));
    posture = good;
    posture.sandbox = SANDBOX_GVISOR;
    assert_int_equal(posture_check(&posture, &fault), BAD_FIELD);
    assert_non_null(strstr(fault.detail, "microvm"));
    posture.sandbox = (enum sandbox_tier)0;
    assert_int_equal(posture_check(&posture, &fault), BAD_FIELD);
    posture = good;
    posture.clearance_required = false;
    assert_int_equal(posture_check(&posture, &fault), BAD_FIELD);
    posture.tier = TIER_STANDARD;
    assert_int_equal(posture_check(&posture, &fault), OK);
    posture.tier = (enum tier)2;
    assert_int_equal(posture_check(&posture, &fault), BAD_FIELD);
}

static void quotas_are_set_by_name(void **state)
{
    (void)state;
    struct quotas quotas = {0};
    struct fault fault = {""};
    assert_int_equal(quota_set(&quotas, SPAN("bytes_stored"), 5, &fault), OK);
    assert_int_equal(quota_set(&quotas, SPAN("user_requests_per_second"), QUOTA_MAX, &fault), OK);
    assert_int_equal(quotas.bytes_stored, 5);
    assert_true(quotas.user_requests_per_second == QUOTA_MAX);
    assert_int_equal(quota_set(&quotas, SPAN("requests_per_second"), QUOTA_MAX + 1ull, &fault),
                     BAD_FIELD);
    assert_int_equal(quotas.requests_per_second, 0);
    assert_int_equal(quota_set(&quotas, SPAN("sandboxes"), 2, &fault), OK);
    assert_int_equal(quota_set(&quotas, SPAN("sandbox_memory_mib"), 512, &fault), OK);
    assert_true(quotas.sandboxes == 2 && quotas.sandbox_memory_mib == 512);
    assert_int_equal(quota_set(&quotas, SPAN("bytes"), 5, &fault), BAD_FIELD);
    assert_non_null(strstr(fault.detail, "concurrent_requests"));
    assert_int_equal(quota_set(&quotas, SPAN(""), 5, &fault), BAD_FIELD);
}

int main(int count, char **arguments)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_charter_is_read_as_it_was_written),
        cmocka_unit_test(the_platform_s_has_no_posture),
        cmocka_unit_test(no_part_of_a_document_and_nothing_behind_it_is_read),
        cmocka_unit_test(what_is_unknown_missing_or_of_another_kind_is_refused),
        cmocka_unit_test(a_document_from_before_keys_were_rotated_is_still_one),
        cmocka_unit_test(jtis_out_of_order_or_twice_are_refused),
        cmocka_unit_test(a_writer_refuses_what_a_reader_would),
        cmocka_unit_test(a_charter_has_bounds),
        cmocka_unit_test(a_signed_charter_opens_and_a_changed_one_does_not),
        cmocka_unit_test(a_charter_signed_under_another_name_is_refused),
        cmocka_unit_test(the_hash_is_of_what_is_signed),
        cmocka_unit_test(heads_are_read_as_written),
        cmocka_unit_test(what_a_charter_names_is_trusted_and_what_it_drops_no_longer),
        cmocka_unit_test(check_27_revoked_jtis_are_found_and_no_others),
        cmocka_unit_test(check_27_a_subject_is_cut_off_by_time_of_issue),
        cmocka_unit_test(what_is_past_is_dropped_and_what_can_matter_stays),
        cmocka_unit_test(the_defaults_of_a_tier_hold_its_rule),
        cmocka_unit_test(a_regulated_tenant_can_be_tightened_and_not_loosened),
        cmocka_unit_test(a_document_from_before_there_were_sandboxes_is_still_one),
        cmocka_unit_test(quotas_are_set_by_name),
    };
    struct fault fault;
    uint8_t public_key[SIGN_PUBLIC_BYTES];
    if (count != 2 || crypt_start(&fault) || signer_create(&signer, seed, &fault))
        return 2;
    signer_public(public_key, signer);
    if (verifier_create(&platform, public_key, &fault))
        return 2;
    vectors_load(arguments[1]);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    verifier_free(platform);
    signer_free(signer);
    vectors_free();
    return failed;
}
