#include "minted.h"

#include "authz/cache.h"
#include "base/siphash.h"

static const int64_t NOW = 1800000000;
static struct mint mint;

static struct token_cache *new_cache(uint32_t entries)
{
    struct token_cache *cache = NULL;
    struct fault fault;
    assert_int_equal(token_cache_create(&cache, entries, &fault), OK);
    return cache;
}

static status ask(const struct claims **ret, enum token_reason *reason, struct token_cache *cache,
                  struct span token, int64_t now)
{
    uint8_t seen[HASH_BYTES] = {0}, right[HASH_BYTES];
    struct fault fault = {"untouched"};
    *reason = TOKEN_REASON_COUNT;
    status code = token_cache_verify(ret, seen, reason, cache, mint.verifier, token, now, &fault);
    hash(right, token);
    assert_memory_equal(seen, right, sizeof right);
    assert_string_equal(fault.detail, code == OK ? "untouched" : TOKEN_REFUSED);
    assert_true((code == OK) == (*reason == TOKEN_ACCEPTED));
    return code;
}

static void user_token(struct buffer *out, unsigned number, int64_t ttl_seconds)
{
    char user[16];
    snprintf(user, sizeof user, "user-%u", number);
    struct token_request request = mint_request();
    request.user = span_of_text(user);
    request.ttl_seconds = ttl_seconds;
    mint_token(out, &mint, &request, NOW);
}

static void the_second_time_a_token_is_known(void **state)
{
    (void)state;
    struct token_cache *cache = new_cache(4);
    _cleanup_buffer_ struct buffer token = buffer_of(TOKEN_MAX);
    const struct claims *first = NULL, *second = NULL;
    enum token_reason reason;
    user_token(&token, 1, 60);
    assert_int_equal(ask(&first, &reason, cache, buffer_span(&token), NOW), OK);
    assert_int_equal(ask(&second, &reason, cache, buffer_span(&token), NOW + 1), OK);
    assert_ptr_equal(first, second);
    assert_string_equal(second->user, "user-1");
    struct token_cache_counts counts = token_cache_counts(cache);
    assert_int_equal(counts.misses, 1);
    assert_int_equal(counts.hits, 1);
    assert_int_equal(counts.entries, 1);
    token_cache_free(cache);
}

static void time_is_checked_on_every_hit(void **state)
{
    (void)state;
    struct token_cache *cache = new_cache(4);
    _cleanup_buffer_ struct buffer token = buffer_of(TOKEN_MAX);
    const struct claims *claims = NULL;
    enum token_reason reason;
    user_token(&token, 1, 60);
    assert_int_equal(ask(&claims, &reason, cache, buffer_span(&token), NOW + 59), OK);
    claims = NULL;
    assert_int_equal(ask(&claims, &reason, cache, buffer_span(&token), NOW + 60), UNAUTHENTICATED);
    assert_int_equal(reason, TOKEN_EXPIRED);
    assert_null(claims);
    assert_int_equal(token_cache_counts(cache).entries, 0);
    assert_int_equal(token_cache_counts(cache).hits, 0);
    /* a clock set back: not yet usable, though it was kept */
    assert_int_equal(ask(&claims, &reason, cache, buffer_span(&token), NOW), OK);
    assert_int_equal(ask(&claims, &reason, cache, buffer_span(&token), NOW - 61), UNAUTHENTICATED);
    assert_int_equal(reason, TOKEN_NOT_YET);
    token_cache_free(cache);
}

static void a_refused_token_is_never_kept_and_evicts_nothing(void **state)
{
    (void)state;
    struct token_cache *cache = new_cache(1);
    _cleanup_buffer_ struct buffer token = buffer_of(TOKEN_MAX);
    const struct claims *claims = NULL;
    enum token_reason reason;
    user_token(&token, 1, 60);
    assert_int_equal(ask(&claims, &reason, cache, buffer_span(&token), NOW), OK);
    for (unsigned i = 0; i < 50; i++) {
        _cleanup_buffer_ struct buffer forged = buffer_of(TOKEN_MAX);
        user_token(&forged, 2 + i, 60);
        forged.data[forged.length - 10] ^= 1;
        assert_int_equal(ask(&claims, &reason, cache, buffer_span(&forged), NOW), UNAUTHENTICATED);
    }
    assert_int_equal(token_cache_counts(cache).evictions, 0);
    assert_int_equal(ask(&claims, &reason, cache, buffer_span(&token), NOW), OK);
    assert_int_equal(token_cache_counts(cache).hits, 1);
    token_cache_free(cache);
}

static void one_changed_bit_of_a_known_token_is_refused(void **state)
{
    (void)state;
    struct token_cache *cache = new_cache(4);
    _cleanup_buffer_ struct buffer token = buffer_of(TOKEN_MAX);
    const struct claims *claims = NULL;
    enum token_reason reason;
    user_token(&token, 1, 60);
    assert_int_equal(ask(&claims, &reason, cache, buffer_span(&token), NOW), OK);
    for (size_t at = 0; at < token.length; at++) {
        token.data[at] ^= 1;
        assert_int_equal(ask(&claims, &reason, cache, buffer_span(&token), NOW), UNAUTHENTICATED);
        token.data[at] ^= 1;
    }
    token_cache_free(cache);
}

static void one_cache_tells_the_tokens_of_several_verifiers_apart(void **state)
{
    (void)state;
    struct token_cache *cache = new_cache(2);
    _cleanup_buffer_ struct buffer token = buffer_of(TOKEN_MAX);
    struct mint other = mint_open(); /* the same issuer and key, known to another verifier */
    struct claims claims;
    enum token_reason reason;
    struct fault fault;
    uint8_t token_hash[HASH_BYTES];
    uint64_t generation = 0;
    user_token(&token, 1, 60);
    hash(token_hash, buffer_span(&token));
    assert_null(token_cache_find(&generation, cache, token_hash, NOW));
    assert_int_equal(token_verify(&claims, &reason, other.verifier, buffer_span(&token), NOW,
                                  &fault), OK);
    const struct claims *kept = token_cache_put(
        cache, token_hash, token_verifier_generation(other.verifier), &claims);
    assert_string_equal(kept->user, claims.user);
    kept = token_cache_find(&generation, cache, token_hash, NOW);
    assert_non_null(kept);
    assert_true(generation == token_verifier_generation(other.verifier));
    assert_true(generation != token_verifier_generation(mint.verifier));
    /* a put of what was found, under another generation: replaced, not doubled */
    kept = token_cache_put(cache, token_hash, generation + 1, kept);
    assert_string_equal(kept->user, claims.user);
    assert_int_equal(token_cache_counts(cache).entries, 1);
    assert_non_null(token_cache_find(&generation, cache, token_hash, NOW));
    assert_true(generation == token_verifier_generation(other.verifier) + 1);
    /* out of time it is gone */
    assert_null(token_cache_find(&generation, cache, token_hash, NOW + 60));
    assert_null(token_cache_find(&generation, cache, token_hash, NOW));
    assert_int_equal(token_cache_counts(cache).entries, 0);
    mint_close(&other);
    token_cache_free(cache);
}

static void what_another_verifier_accepted_is_verified_anew(void **state)
{
    (void)state;
    struct token_cache *cache = new_cache(2);
    _cleanup_buffer_ struct buffer token = buffer_of(TOKEN_MAX);
    struct claims claims = {.user = "eve", .usable_until = INT64_MAX};
    const struct claims *found = NULL;
    enum token_reason reason;
    uint8_t token_hash[HASH_BYTES];
    user_token(&token, 1, 60);
    hash(token_hash, buffer_span(&token));
    (void)token_cache_put(cache, token_hash, token_verifier_generation(mint.verifier) + 1,
                          &claims);
    assert_int_equal(ask(&found, &reason, cache, buffer_span(&token), NOW), OK);
    assert_string_not_equal(found->user, "eve");
    token_cache_free(cache);
}

static void the_least_recently_used_goes_first(void **state)
{
    (void)state;
    struct token_cache *cache = new_cache(3);
    struct buffer tokens[4];
    const struct claims *claims = NULL;
    enum token_reason reason;
    for (unsigned i = 0; i < 4; i++) {
        tokens[i] = buffer_of(TOKEN_MAX);
        user_token(&tokens[i], i, 60);
    }
    const unsigned order[] = {0, 1, 2, 0, 3}; /* then 1 is the oldest and gone */
    for (size_t i = 0; i < 5; i++)
        assert_int_equal(ask(&claims, &reason, cache, buffer_span(&tokens[order[i]]), NOW), OK);
    assert_int_equal(token_cache_counts(cache).evictions, 1);
    assert_int_equal(token_cache_counts(cache).entries, 3);
    uint64_t hits = token_cache_counts(cache).hits;
    const unsigned kept[] = {0, 2, 3};
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(ask(&claims, &reason, cache, buffer_span(&tokens[kept[i]]), NOW), OK);
    assert_int_equal(token_cache_counts(cache).hits, hits + 3);
    assert_int_equal(ask(&claims, &reason, cache, buffer_span(&tokens[1]), NOW), OK);
    assert_int_equal(token_cache_counts(cache).hits, hits + 3);
    for (unsigned i = 0; i < 4; i++)
        buffer_free(&tokens[i]);
    token_cache_free(cache);
}

static void entries_are_used_again_under_pressure_and_answers_stay_right(void **state)
{
    (void)state;
    enum { TOKENS = 40, CAPACITY = 16, TURNS = 4000 };
    struct token_cache *cache = new_cache(CAPACITY);
    struct buffer tokens[TOKENS];
    for (unsigned i = 0; i < TOKENS; i++) {
        tokens[i] = buffer_of(TOKEN_MAX);
        user_token(&tokens[i], i, 10 + i);
    }
    uint32_t random = 1;
    for (unsigned turn = 0; turn < TURNS; turn++) {
        random = random * 1664525 + 1013904223;
        unsigned pick = (random >> 16) % TOKENS;
        int64_t now = NOW + (random >> 8) % 60;
        const struct claims *claims = NULL;
        enum token_reason reason;
        char user[16];
        snprintf(user, sizeof user, "user-%u", pick);
        status code = ask(&claims, &reason, cache, buffer_span(&tokens[pick]), now);
        assert_int_equal(code, now < NOW + 10 + pick ? OK : UNAUTHENTICATED);
        if (code == OK)
            assert_string_equal(claims->user, user);
        assert_true(token_cache_counts(cache).entries <= CAPACITY);
    }
    assert_true(token_cache_counts(cache).evictions > 0 && token_cache_counts(cache).hits > 0);
    for (unsigned i = 0; i < TOKENS; i++)
        buffer_free(&tokens[i]);
    token_cache_free(cache);
}

static void a_change_of_issuers_voids_what_was_verified_before(void **state)
{
    (void)state;
    struct token_cache *cache = new_cache(4);
    _cleanup_buffer_ struct buffer token = buffer_of(TOKEN_MAX);
    const struct claims *claims = NULL;
    enum token_reason reason;
    struct fault fault;
    user_token(&token, 1, 60);
    assert_int_equal(ask(&claims, &reason, cache, buffer_span(&token), NOW), OK);
    assert_int_equal(token_verifier_remove(mint.verifier, TOKEN_BUILTIN_ISSUER, "", &fault), OK);
    assert_int_equal(ask(&claims, &reason, cache, buffer_span(&token), NOW), UNAUTHENTICATED);
    assert_int_equal(reason, TOKEN_BAD_ISS);
    struct token_issuer issuer = token_issuer_builtin(mint.public_key);
    assert_int_equal(token_verifier_put(mint.verifier, &issuer, &fault), OK);
    assert_int_equal(ask(&claims, &reason, cache, buffer_span(&token), NOW), OK);
    assert_int_equal(token_cache_counts(cache).hits, 0);
    token_cache_free(cache);
}

static void a_cleared_cache_knows_nothing(void **state)
{
    (void)state;
    struct token_cache *cache = new_cache(2);
    _cleanup_buffer_ struct buffer token = buffer_of(TOKEN_MAX);
    const struct claims *claims = NULL;
    enum token_reason reason;
    for (unsigned i = 0; i < 3; i++) {
        user_token(&token, i, 60);
        assert_int_equal(ask(&claims, &reason, cache, buffer_span(&token), NOW), OK);
        token_cache_clear(cache);
        assert_int_equal(token_cache_counts(cache).entries, 0);
        assert_int_equal(ask(&claims, &reason, cache, buffer_span(&token), NOW), OK);
    }
    assert_int_equal(token_cache_counts(cache).hits, 0);
    assert_int_equal(token_cache_counts(cache).misses, 6);
    token_cache_free(cache);
}

static void a_size_out_of_bounds_is_refused(void **state)
{
    (void)state;
    struct token_cache *cache = NULL;
    struct fault fault;
    assert_int_equal(token_cache_create(&cache, 0, &fault), BAD_FIELD);
    assert_int_equal(token_cache_create(&cache, TOKEN_CACHE_ENTRIES + 1, &fault), BAD_FIELD);
    assert_null(cache);
    assert_int_equal(token_cache_create(&cache, TOKEN_CACHE_ENTRIES, &fault), OK);
    assert_null(token_cache_free(cache));
    assert_null(token_cache_free(NULL));
}

/* vectors.h of the reference implementation: key 00..0f, message 00.., at these lengths. */
static void siphash_is_the_published_function(void **state)
{
    (void)state;
    const struct {
        size_t length;
        uint64_t value;
    } expected[] = {
        {0, 0x726fdb47dd0e0e31}, {1, 0x74f839c593dc67fd}, {7, 0xab0200f58b01d137},
        {8, 0x93f5f5799a932462}, {15, 0xa129ca6149be45e5}, {63, 0x958a324ceb064572},
    };
    uint8_t key[SIPHASH_KEY_BYTES], message[64];
    for (uint8_t i = 0; i < 64; i++)
        message[i] = i;
    memcpy(key, message, sizeof key);
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++)
        assert_true(siphash(key, (struct span){message, expected[i].length}) == expected[i].value);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_second_time_a_token_is_known),
        cmocka_unit_test(time_is_checked_on_every_hit),
        cmocka_unit_test(a_refused_token_is_never_kept_and_evicts_nothing),
        cmocka_unit_test(one_changed_bit_of_a_known_token_is_refused),
        cmocka_unit_test(one_cache_tells_the_tokens_of_several_verifiers_apart),
        cmocka_unit_test(what_another_verifier_accepted_is_verified_anew),
        cmocka_unit_test(the_least_recently_used_goes_first),
        cmocka_unit_test(entries_are_used_again_under_pressure_and_answers_stay_right),
        cmocka_unit_test(a_change_of_issuers_voids_what_was_verified_before),
        cmocka_unit_test(a_cleared_cache_knows_nothing),
        cmocka_unit_test(a_size_out_of_bounds_is_refused),
        cmocka_unit_test(siphash_is_the_published_function),
    };
    struct fault fault;
    if (crypt_start(&fault) != OK)
        return 2;
    mint = mint_open();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    mint_close(&mint);
    return failed;
}
