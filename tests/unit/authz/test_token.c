#include "vectors.h"

static struct token_verifier *verifier;

static status verify_at(struct claims *ret, enum token_reason *reason, struct span token,
                        int64_t now)
{
    struct fault fault = {"untouched"};
    status code = token_verify(ret, reason, verifier, token, now, &fault);
    /* 29: one detail for every failure, with nothing of the token in it */
    assert_string_equal(fault.detail, code == OK ? "untouched" : TOKEN_REFUSED);
    return code;
}

static status verify(struct claims *ret, enum token_reason *reason, const char *token)
{
    return verify_at(ret, reason, span_of_text(token), VECTOR_NOW);
}

static void run_check(const char *check)
{
    size_t accepts = 0, rejects = 0;
    for (size_t i = 0; i < vectors.count; i++) {
        const struct vector *row = &vectors.rows[i];
        if (strcmp(row->check, check) != 0)
            continue;
        bool accept = strcmp(row->verdict, "accept") == 0;
        struct claims claims, before;
        memset(&claims, 0x5A, sizeof claims);
        before = claims;
        enum token_reason reason = TOKEN_REASON_COUNT;
        status code = verify(&claims, &reason, row->token);
        if (code != (accept ? OK : UNAUTHENTICATED)
            || strcmp(token_reason_name(reason), row->reason) != 0)
            fail_msg("%s %s: %d %s, expected %s", check, row->name, code,
                     token_reason_name(reason), row->reason);
        if (!accept)
            assert_memory_equal(&claims, &before, sizeof claims);
        accepts += accept;
        rejects += !accept;
    }
    assert_true(accepts > 0 && rejects > 0);
}

#define CHECK(name, number)         \
    static void name(void **state)  \
    {                               \
        (void)state;                \
        run_check(number);          \
    }

CHECK(check_01_compact_form_of_three_segments_in_canonical_base64url, "01")
CHECK(check_02_sizes_are_capped, "02")
CHECK(check_03_utf8_and_unique_names, "03")
CHECK(check_04_alg_is_one_of_ours_in_exact_case, "04")
CHECK(check_05_alg_none_is_refused, "05")
CHECK(check_06_kid_picks_the_key_and_its_one_alg, "06")
CHECK(check_07_crit_is_refused, "07")
CHECK(check_08_keys_and_links_in_the_header_are_ignored, "08")
CHECK(check_09_kid_is_an_opaque_bounded_string, "09")
CHECK(check_10_typ_is_absent_jwt_or_at_jwt, "10")
CHECK(check_11_iss_is_exact_and_owns_the_key, "11")
CHECK(check_12_aud_holds_this_resource, "12")
CHECK(check_13_times_and_lifetime, "13")
CHECK(check_14_sub_is_present_and_bounded, "14")
CHECK(check_15_client_id_is_never_taken_for_sub, "15")
CHECK(check_16_jti_is_there_where_the_issuer_asks_for_it, "16")
CHECK(check_17_scope_follows_the_grammar, "17")
CHECK(check_18_tenant_is_well_formed_and_the_issuers, "18")
CHECK(check_19_act_chain_is_bounded, "19")
CHECK(check_23_signatures_of_each_algorithm, "23")
CHECK(check_24_jwe_is_refused, "24")
CHECK(clearance_is_one_of_four, "clearance")
CHECK(roles_are_bounded_text, "roles")
CHECK(jti_is_bounded, "jti")
CHECK(claims_are_read_under_the_names_that_the_issuer_has, "mapping")

static void check_29_every_refusal_reads_alike_and_shows_nothing_of_the_token(void **state)
{
    (void)state;
    for (size_t i = 0; i < vectors.count; i++) {
        struct claims claims;
        enum token_reason reason;
        status code = verify(&claims, &reason, vectors.rows[i].token);
        assert_true(code == OK || code == UNAUTHENTICATED);
        const char *name = token_reason_name(reason);
        assert_true(name[0] != '\0' && strlen(name) < 24);
        assert_string_not_equal(name, "unknown");
    }
}

static struct claims claims_of(const char *check, const char *name)
{
    struct claims claims = {0};
    enum token_reason reason;
    assert_int_equal(verify(&claims, &reason, vector_named(check, name)->token), OK);
    return claims;
}

static void claims_are_what_the_token_says(void **state)
{
    (void)state;
    struct claims claims = claims_of("01", "plain");
    uint8_t jti[HASH_BYTES];
    hash(jti, SPAN("j-1"));
    assert_string_equal(claims.tenant, VECTOR_TENANT);
    assert_true(claims.tenant_is_id);
    assert_string_equal(claims.issuer_tenant, "");
    assert_string_equal(claims.user, "ada");
    assert_string_equal(claims.agent, "");
    assert_int_equal(claims.scopes, SCOPE_SET(SCOPE_MEMORY_READ) | SCOPE_SET(SCOPE_MEMORY_WRITE));
    assert_int_equal(claims.clearance, CLEARANCE_INTERNAL);
    assert_false(claims.clearance_given);
    assert_int_equal(claims.issued_at, VECTOR_NOW - 10);
    assert_int_equal(claims.expires_at, VECTOR_NOW + 890);
    assert_memory_equal(claims.jti, jti, sizeof jti);
}

static void optional_claims_are_what_the_token_says(void **state)
{
    (void)state;
    assert_string_equal(claims_of("19", "chain of four").agent, "agent-1");
    assert_string_equal(claims_of("15", "client_id beside sub").user, "ada");
    assert_int_equal(claims_of("17", "no scope").scopes, 0);
    assert_int_equal(claims_of("17", "scopes that are not ours are passed over").scopes,
                     SCOPE_SET(SCOPE_MEMORY_READ));
    assert_int_equal(claims_of("clearance", "restricted").clearance, CLEARANCE_RESTRICTED);
    assert_true(claims_of("clearance", "restricted").clearance_given);
    assert_int_equal(claims_of("clearance", "public").clearance, CLEARANCE_PUBLIC);
    assert_int_equal(claims_of("13", "no iat, short").issued_at, 0);
    struct claims named = claims_of("18", "tenant by name");
    assert_string_equal(named.tenant, "acme-2");
    assert_false(named.tenant_is_id);
    assert_string_equal(claims_of("18", "the one tenant of a tenant's issuer").issuer_tenant,
                        VECTOR_TENANT);
}

static void mapped_claims_are_what_the_token_says(void **state)
{
    (void)state;
    struct claims claims = claims_of("mapping", "all four");
    assert_string_equal(claims.user, "ada");
    assert_string_equal(claims.tenant, "acme");
    assert_int_equal(claims.scopes, SCOPE_SET(SCOPE_MEMORY_READ) | SCOPE_SET(SCOPE_MEMORY_WRITE));
    assert_int_equal(claims.clearance, CLEARANCE_CONFIDENTIAL);
    assert_true(claims.clearance_given);
    assert_int_equal(claims.issuer_early_seconds, 60);
    assert_false(claims.jti_once);
    claims = claims_of("mapping", "the usual names say nothing here");
    assert_string_equal(claims.tenant, "acme");
    assert_int_equal(claims_of("17", "a list").scopes, SCOPE_SET(SCOPE_MEMORY_READ));
    assert_true(claims_of("16", "a jti where it is asked for").jti_once);
    assert_int_equal(claims_of("16", "no jti where it is not asked for").issuer_early_seconds, 0);
}

static void only_the_built_in_issuer_speaks_for_the_platform(void **state)
{
    (void)state;
    struct claims claims = claims_of("18", "the built-in issuer for the platform");
    assert_true(claims.platform);
    assert_string_equal(claims.tenant, "");
    assert_false(claims.tenant_is_id);
    /* routes:read is all that such a token can hold, and nobody else's can hold it */
    assert_int_equal(claims.scopes, SCOPE_SET(SCOPE_ROUTES_READ));
    claims = claims_of("17", "routes:read beside a tenant's scopes");
    assert_false(claims.platform);
    assert_int_equal(claims.scopes, SCOPE_SET(SCOPE_MEMORY_READ));
}

static struct span vector_token(const char *check, const char *name)
{
    return span_of_text(vector_named(check, name)->token);
}

static void check_26_a_key_that_was_rotated_out_signs_nothing_any_more(void **state)
{
    (void)state;
    struct token_verifier *own = vector_verifier();
    struct fault fault;
    struct claims claims;
    enum token_reason reason;
    struct token_issuer issuer = vector_issuer_ext();
    struct span one = vector_token("11", "registered issuer");
    struct span two = vector_token("06", "the second key of an issuer");
    uint64_t generation = token_verifier_generation(own);
    assert_int_equal(token_verify(&claims, &reason, own, one, VECTOR_NOW, &fault), OK);
    assert_int_equal(token_verify(&claims, &reason, own, two, VECTOR_NOW, &fault), OK);
    issuer.keys[0] = issuer.keys[1]; /* two is left, one is gone */
    issuer.key_count = 1;
    assert_int_equal(token_verifier_replace(own, "", &issuer, 1, &fault), OK);
    assert_true(token_verifier_generation(own) != generation);
    assert_int_equal(token_verify(&claims, &reason, own, one, VECTOR_NOW, &fault),
                     UNAUTHENTICATED);
    assert_int_equal(reason, TOKEN_BAD_KID);
    assert_int_equal(token_verify(&claims, &reason, own, two, VECTOR_NOW, &fault), OK);
    token_verifier_free(own);
}

static void a_scope_s_issuers_are_replaced_all_or_none(void **state)
{
    (void)state;
    struct token_verifier *own = vector_verifier();
    struct fault fault;
    struct claims claims;
    enum token_reason reason;
    struct token_issuer bad[3] = {vector_issuer_foreign(), vector_issuer_ext(),
                                  vector_issuer_ext()};
    struct span ext = vector_token("11", "registered issuer"), bound = vector_token("18",
                                   "the one tenant of a tenant's issuer");
    uint64_t generation = token_verifier_generation(own);
    snprintf(bad[2].iss, sizeof bad[2].iss, TOKEN_BUILTIN_ISSUER);
    assert_int_equal(token_verifier_replace(own, "", bad, 3, &fault), BAD_FIELD);
    bad[2] = bad[1];
    assert_int_equal(token_verifier_replace(own, "", bad, 3, &fault), BAD_FIELD);
    bad[2] = vector_issuer_bound();
    assert_int_equal(token_verifier_replace(own, "", bad, 3, &fault), BAD_FIELD);
    bad[2] = vector_issuer_once();
    memset(bad[2].keys[0].public_key, 0, 32);
    assert_int_equal(token_verifier_replace(own, "", bad, 3, &fault), BAD_FIELD);
    assert_true(token_verifier_generation(own) == generation);
    assert_int_equal(token_verify(&claims, &reason, own, ext, VECTOR_NOW, &fault), OK);
    assert_int_equal(token_verifier_replace(own, "", NULL, 0, &fault), OK);
    assert_int_equal(token_verify(&claims, &reason, own, ext, VECTOR_NOW, &fault),
                     UNAUTHENTICATED);
    assert_int_equal(reason, TOKEN_BAD_ISS);
    /* the tenant's and the built-in one stand */
    assert_int_equal(token_verify(&claims, &reason, own, bound, VECTOR_NOW, &fault), OK);
    assert_int_equal(token_verify(&claims, &reason, own, vector_token("01", "plain"), VECTOR_NOW,
                                  &fault), OK);
    assert_int_equal(token_verifier_replace(own, VECTOR_TENANT, NULL, 0, &fault), OK);
    assert_int_equal(token_verify(&claims, &reason, own, bound, VECTOR_NOW, &fault),
                     UNAUTHENTICATED);
    token_verifier_free(own);
}

static void no_two_verifiers_share_a_generation(void **state)
{
    (void)state;
    struct token_verifier *left = vector_verifier(), *right = vector_verifier();
    struct fault fault;
    uint64_t first = token_verifier_generation(left), second = token_verifier_generation(right);
    assert_true(first != second);
    assert_int_equal(token_verifier_replace(left, "", NULL, 0, &fault), OK);
    assert_true(token_verifier_generation(left) > second);
    token_verifier_free(left);
    token_verifier_free(right);
}

static void a_peek_reads_without_believing(void **state)
{
    (void)state;
    const char *const names[] = {"tenant_id", "org", "iat", "jti"};
    struct token_peek peek;
    struct fault fault;
    /* a signature that nobody would take: it is read all the same */
    assert_int_equal(token_peek(&peek, verifier, vector_token("06", "a stranger's signature"),
                                names, 4, &fault), OK);
    assert_string_equal(peek.iss, TOKEN_BUILTIN_ISSUER);
    assert_string_equal(peek.claims[0], VECTOR_TENANT);
    assert_string_equal(peek.claims[1], ""); /* not there */
    assert_string_equal(peek.claims[2], ""); /* no text */
    assert_string_equal(peek.claims[3], "j-1");
    assert_int_equal(token_peek(&peek, verifier, vector_token("jti", "255 bytes"), names, 4,
                                &fault), OK);
    assert_string_equal(peek.claims[3], ""); /* longer than any tenant */
    assert_int_equal(token_peek(&peek, verifier, vector_token("23", "ES256"), NULL, 0, &fault),
                     OK);
    assert_string_equal(peek.iss, "https://foreign.example/");
}

static void a_peek_finds_as_many_names_as_it_may_be_asked_for(void **state)
{
    (void)state;
    const char *names[TOKEN_PEEK_MAX];
    struct token_peek peek;
    struct fault fault;
    for (size_t i = 0; i < TOKEN_PEEK_MAX; i++)
        names[i] = i % 2 ? "sub" : "none";
    assert_int_equal(token_peek(&peek, verifier, vector_token("01", "plain"), names,
                                TOKEN_PEEK_MAX, &fault), OK);
    for (size_t i = 0; i < TOKEN_PEEK_MAX; i++)
        assert_string_equal(peek.claims[i], i % 2 ? "ada" : "");
}

static void a_peek_refuses_what_has_not_the_form_of_a_token(void **state)
{
    (void)state;
    static const char *const forms[] = {
        "too_large", "not_compact", "encrypted", "bad_encoding", "bad_json", "bad_alg", "bad_crit",
        "bad_typ",
    };
    for (size_t i = 0; i < vectors.count; i++) {
        struct token_peek peek = {.iss = "untouched"};
        struct fault fault;
        for (size_t j = 0; j < sizeof forms / sizeof *forms; j++) {
            if (strcmp(vectors.rows[i].reason, forms[j]) != 0
                || strcmp(vectors.rows[i].check, "06") == 0) /* an alg of ours, not the key's */
                continue;
            status code = token_peek(&peek, verifier, span_of_text(vectors.rows[i].token), NULL,
                                     0, &fault);
            bool other_alg = strcmp(forms[j], "bad_alg") == 0 && code == OK;
            assert_true(code == UNAUTHENTICATED || other_alg);
            assert_true(other_alg || strcmp(peek.iss, "untouched") == 0);
        }
    }
}

static void no_changed_character_is_accepted(void **state)
{
    (void)state;
    static const char tries[] = "Aa0_-.=+/ \n\xff";
    char token[2048];
    snprintf(token, sizeof token, "%s", vector_named("01", "plain")->token);
    size_t length = strlen(token);
    for (size_t at = 0; at < length; at++) {
        char right = token[at];
        for (size_t i = 0; i < sizeof tries + 2; i++) { /* the NUL of tries is tried as well */
            char flip = i == sizeof tries ? 1 : 2;
            token[at] = i < sizeof tries ? tries[i] : (char)(right ^ flip);
            struct claims claims;
            enum token_reason reason;
            struct span changed = {(const uint8_t *)token, length};
            if (token[at] != right)
                assert_int_equal(verify_at(&claims, &reason, changed, VECTOR_NOW),
                                 UNAUTHENTICATED);
        }
        token[at] = right;
    }
    struct claims claims;
    enum token_reason reason;
    assert_int_equal(verify(&claims, &reason, token), OK);
}

static void no_other_last_character_spells_the_same_token(void **state)
{
    (void)state;
    char token[2048];
    snprintf(token, sizeof token, "%s", vector_named("01", "plain")->token);
    size_t last = strlen(token) - 1;
    char right = token[last];
    for (int byte = 1; byte < 256; byte++) {
        struct claims claims;
        enum token_reason reason;
        token[last] = (char)byte;
        assert_int_equal(verify(&claims, &reason, token),
                         (char)byte == right ? OK : UNAUTHENTICATED);
    }
}

static void no_truncated_or_doubled_token_is_accepted(void **state)
{
    (void)state;
    const char *token = vector_named("01", "plain")->token;
    char twice[4096];
    snprintf(twice, sizeof twice, "%s%s", token, token);
    for (size_t length = 0; length <= strlen(twice); length++) {
        struct claims claims;
        enum token_reason reason;
        struct span part = {(const uint8_t *)twice, length};
        assert_int_equal(verify_at(&claims, &reason, part, VECTOR_NOW),
                         length == strlen(token) ? OK : UNAUTHENTICATED);
    }
}

static void a_token_is_good_until_its_last_second(void **state)
{
    (void)state;
    struct claims claims;
    enum token_reason reason;
    struct span token = span_of_text(vector_named("01", "plain")->token);
    assert_int_equal(verify_at(&claims, &reason, token, VECTOR_NOW + 889), OK);
    assert_int_equal(verify_at(&claims, &reason, token, VECTOR_NOW + 890), UNAUTHENTICATED);
    assert_int_equal(reason, TOKEN_EXPIRED);
    assert_true(claims_current(&claims, VECTOR_NOW + 889, &reason));
    assert_false(claims_current(&claims, VECTOR_NOW + 890, &reason));
    assert_int_equal(reason, TOKEN_EXPIRED);
    assert_true(claims_current(&claims, VECTOR_NOW - 70, &reason));
    assert_false(claims_current(&claims, VECTOR_NOW - 71, &reason));
    assert_int_equal(reason, TOKEN_NOT_YET);
}

static void a_removed_issuer_is_not_believed_and_a_replaced_key_neither(void **state)
{
    (void)state;
    struct token_verifier *own = vector_verifier();
    struct fault fault;
    struct claims claims;
    enum token_reason reason;
    struct span ext = span_of_text(vector_named("11", "registered issuer")->token);
    uint64_t generation = token_verifier_generation(own);
    assert_int_equal(token_verify(&claims, &reason, own, ext, VECTOR_NOW, &fault), OK);
    struct token_issuer issuer = vector_issuer_ext();
    memcpy(issuer.keys[0].public_key, vectors.stranger, 32);
    assert_int_equal(token_verifier_put(own, &issuer, &fault), OK);
    assert_int_equal(token_verify(&claims, &reason, own, ext, VECTOR_NOW, &fault),
                     UNAUTHENTICATED);
    assert_int_equal(reason, TOKEN_BAD_SIGNATURE);
    assert_int_equal(token_verifier_remove(own, issuer.iss, "", &fault), OK);
    assert_int_equal(token_verify(&claims, &reason, own, ext, VECTOR_NOW, &fault),
                     UNAUTHENTICATED);
    assert_int_equal(reason, TOKEN_BAD_ISS);
    assert_int_equal(token_verifier_remove(own, issuer.iss, "", &fault), NOT_FOUND);
    assert_true(token_verifier_generation(own) == generation + 2);
    token_verifier_free(own);
}

static void two_issuers_of_one_name_are_told_apart_by_their_tenants(void **state)
{
    (void)state;
    struct token_verifier *own = vector_verifier();
    struct fault fault;
    struct claims claims;
    enum token_reason reason;
    struct token_issuer rival = vector_issuer_bound();
    snprintf(rival.tenant, sizeof rival.tenant, "ffeeddccbbaa99887766554433221100");
    memcpy(rival.keys[0].public_key, vectors.stranger, 32);
    struct span token = span_of_text(
        vector_named("18", "the one tenant of a tenant's issuer")->token);
    assert_int_equal(token_verifier_put(own, &rival, &fault), OK);
    assert_int_equal(token_verify(&claims, &reason, own, token, VECTOR_NOW, &fault), OK);
    assert_string_equal(claims.issuer_tenant, VECTOR_TENANT);
    assert_int_equal(token_verifier_remove(own, rival.iss, VECTOR_TENANT, &fault), OK);
    assert_int_equal(token_verify(&claims, &reason, own, token, VECTOR_NOW, &fault),
                     UNAUTHENTICATED);
    token_verifier_free(own);
}

static void without_an_issuer_nothing_is_accepted(void **state)
{
    (void)state;
    struct token_verifier *own = NULL;
    struct fault fault;
    struct claims claims;
    enum token_reason reason;
    assert_int_equal(token_verifier_create(&own, &fault), OK);
    assert_int_equal(token_verify(&claims, &reason, own,
                                  span_of_text(vector_named("01", "plain")->token), VECTOR_NOW,
                                  &fault), UNAUTHENTICATED);
    token_verifier_free(own);
    assert_null(token_verifier_free(NULL));
}

static void an_issuer_outside_its_bounds_is_refused_by_field(void **state)
{
    (void)state;
    struct token_issuer good = vector_issuer_ext(), bad[20];
    const char *field[] = {
        "iss", "aud", "tenant claim", "tenant", "lifetime", "lifetime", "skew", "skew", "keys",
        "kid", "kid", "user claim", "user claim", "user claim", "scope claim", "clearance claim",
        "key", "key", "alg", "tenant",
    };
    for (size_t i = 0; i < 20; i++)
        bad[i] = good;
    bad[0].iss[0] = '\0';
    memset(bad[1].aud, 'a', sizeof bad[1].aud);
    bad[2].tenant_claim[0] = '\n';
    snprintf(bad[3].tenant, sizeof bad[3].tenant, "acme");
    bad[4].lifetime_max_seconds = 0;
    bad[5].lifetime_max_seconds = TOKEN_LIFETIME_MAX_SECONDS + 1;
    bad[6].early_seconds = TOKEN_SKEW_SECONDS + 1;
    bad[7].late_seconds = -1;
    bad[8].key_count = 0;
    bad[9].keys[0].id[0] = '\0';
    memcpy(bad[10].keys[1].id, bad[10].keys[0].id, sizeof bad[10].keys[1].id);
    bad[11].user_claim[0] = '\0';
    snprintf(bad[12].user_claim, sizeof bad[12].user_claim, "client_id");
    snprintf(bad[13].user_claim, sizeof bad[13].user_claim, "azp");
    memset(bad[14].scope_claim, 's', sizeof bad[14].scope_claim);
    snprintf(bad[15].clearance_claim, sizeof bad[15].clearance_claim, "a\tb");
    bad[16].keys[0].length = 33;
    bad[17].keys[0].alg = TOKEN_ES256;
    bad[18].keys[0].alg = TOKEN_ALG_COUNT;
    bad[19].builtin = true;
    snprintf(bad[19].tenant, sizeof bad[19].tenant, VECTOR_TENANT);
    for (size_t i = 0; i < 20; i++) {
        struct fault fault = {""};
        uint64_t generation = token_verifier_generation(verifier);
        assert_int_equal(token_verifier_put(verifier, &bad[i], &fault), BAD_FIELD);
        assert_true(strncmp(fault.detail, field[i], strlen(field[i])) == 0);
        assert_true(token_verifier_generation(verifier) == generation);
    }
}

static void a_key_id_is_the_head_of_the_fingerprint(void **state)
{
    (void)state;
    char id[TOKEN_KEY_ID_TEXT], text[2 * HASH_BYTES + 1];
    uint8_t fingerprint[HASH_BYTES];
    hash(fingerprint, SPAN_OF(vectors.builtin));
    hex_encode(text, SPAN_OF(fingerprint));
    token_key_id(id, vectors.builtin);
    assert_int_equal(strlen(id), 16);
    assert_memory_equal(id, text, 16);
}

int main(int count, char **arguments)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(check_01_compact_form_of_three_segments_in_canonical_base64url),
        cmocka_unit_test(check_02_sizes_are_capped),
        cmocka_unit_test(check_03_utf8_and_unique_names),
        cmocka_unit_test(check_04_alg_is_one_of_ours_in_exact_case),
        cmocka_unit_test(check_05_alg_none_is_refused),
        cmocka_unit_test(check_06_kid_picks_the_key_and_its_one_alg),
        cmocka_unit_test(check_07_crit_is_refused),
        cmocka_unit_test(check_08_keys_and_links_in_the_header_are_ignored),
        cmocka_unit_test(check_09_kid_is_an_opaque_bounded_string),
        cmocka_unit_test(check_10_typ_is_absent_jwt_or_at_jwt),
        cmocka_unit_test(check_11_iss_is_exact_and_owns_the_key),
        cmocka_unit_test(check_12_aud_holds_this_resource),
        cmocka_unit_test(check_13_times_and_lifetime),
        cmocka_unit_test(check_14_sub_is_present_and_bounded),
        cmocka_unit_test(check_15_client_id_is_never_taken_for_sub),
        cmocka_unit_test(check_16_jti_is_there_where_the_issuer_asks_for_it),
        cmocka_unit_test(check_17_scope_follows_the_grammar),
        cmocka_unit_test(check_18_tenant_is_well_formed_and_the_issuers),
        cmocka_unit_test(check_19_act_chain_is_bounded),
        cmocka_unit_test(check_23_signatures_of_each_algorithm),
        cmocka_unit_test(check_24_jwe_is_refused),
        cmocka_unit_test(clearance_is_one_of_four),
        cmocka_unit_test(roles_are_bounded_text),
        cmocka_unit_test(jti_is_bounded),
        cmocka_unit_test(claims_are_read_under_the_names_that_the_issuer_has),
        cmocka_unit_test(mapped_claims_are_what_the_token_says),
        cmocka_unit_test(only_the_built_in_issuer_speaks_for_the_platform),
        cmocka_unit_test(check_26_a_key_that_was_rotated_out_signs_nothing_any_more),
        cmocka_unit_test(a_scope_s_issuers_are_replaced_all_or_none),
        cmocka_unit_test(no_two_verifiers_share_a_generation),
        cmocka_unit_test(a_peek_reads_without_believing),
        cmocka_unit_test(a_peek_finds_as_many_names_as_it_may_be_asked_for),
        cmocka_unit_test(a_peek_refuses_what_has_not_the_form_of_a_token),
        cmocka_unit_test(check_29_every_refusal_reads_alike_and_shows_nothing_of_the_token),
        cmocka_unit_test(claims_are_what_the_token_says),
        cmocka_unit_test(optional_claims_are_what_the_token_says),
        cmocka_unit_test(no_changed_character_is_accepted),
        cmocka_unit_test(no_other_last_character_spells_the_same_token),
        cmocka_unit_test(no_truncated_or_doubled_token_is_accepted),
        cmocka_unit_test(a_token_is_good_until_its_last_second),
        cmocka_unit_test(a_removed_issuer_is_not_believed_and_a_replaced_key_neither),
        cmocka_unit_test(two_issuers_of_one_name_are_told_apart_by_their_tenants),
        cmocka_unit_test(without_an_issuer_nothing_is_accepted),
        cmocka_unit_test(an_issuer_outside_its_bounds_is_refused_by_field),
        cmocka_unit_test(a_key_id_is_the_head_of_the_fingerprint),
    };
    struct fault fault;
    if (count != 2 || crypt_start(&fault) != OK)
        return 2;
    vectors_load(arguments[1]);
    verifier = vector_verifier();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    token_verifier_free(verifier);
    vectors_free();
    return failed;
}
