#include "authz/cache.h"

#include "base/secret.h"
#include "base/siphash.h"

#include <assert.h>
#include <stdlib.h>

static const uint32_t NONE = UINT32_MAX;

struct entry {
    uint8_t hash[HASH_BYTES];
    uint64_t generation; /* of the verifier that accepted it */
    uint32_t bucket, next; /* of the same bucket; also the list of free entries */
    uint32_t newer, older;
    struct claims claims;
};

struct token_cache {
    uint8_t key[SIPHASH_KEY_BYTES];
    uint32_t *buckets; /* first entry of each; a power of two of them */
    uint32_t bucket_mask;
    struct entry *entries;
    uint32_t capacity, touched; /* entries behind touched were never used */
    uint32_t free, newest, oldest;
    struct token_cache_counts counts;
};

status token_cache_create(struct token_cache **ret, uint32_t entries, struct fault *fault)
{
    if (entries < 1 || entries > TOKEN_CACHE_ENTRIES)
        return FAIL(BAD_FIELD, fault, "token cache: 1 to %d entries", TOKEN_CACHE_ENTRIES);
    uint32_t buckets = 1;
    while (buckets < entries)
        buckets *= 2;
    struct token_cache *cache = calloc(1, sizeof *cache);
    if (cache) {
        cache->buckets = malloc(buckets * sizeof *cache->buckets);
        cache->entries = calloc(entries, sizeof *cache->entries);
    }
    if (!cache || !cache->buckets || !cache->entries) {
        token_cache_free(cache);
        return FAIL(INTERNAL, fault, "token cache: out of memory");
    }
    crypt_random(cache->key, sizeof cache->key);
    cache->bucket_mask = buckets - 1;
    cache->capacity = entries;
    token_cache_clear(cache);
    *ret = cache;
    return OK;
}

struct token_cache *token_cache_free(struct token_cache *cache)
{
    if (cache) {
        if (cache->entries)
            secret_wipe(cache->entries, cache->touched * sizeof *cache->entries);
        secret_wipe(cache->key, sizeof cache->key);
        free(cache->entries);
        free(cache->buckets);
    }
    free(cache);
    return NULL;
}

void token_cache_clear(struct token_cache *cache)
{
    for (uint32_t i = 0; i <= cache->bucket_mask; i++)
        cache->buckets[i] = NONE;
    if (cache->touched)
        secret_wipe(cache->entries, cache->touched * sizeof *cache->entries);
    cache->touched = 0;
    cache->free = cache->newest = cache->oldest = NONE;
    cache->counts.entries = 0;
}

struct token_cache_counts token_cache_counts(const struct token_cache *cache)
{
    return cache->counts;
}

static uint32_t bucket_of(const struct token_cache *cache, const uint8_t hash[HASH_BYTES])
{
    return (uint32_t)siphash(cache->key, (struct span){hash, HASH_BYTES}) & cache->bucket_mask;
}

static uint32_t find(const struct token_cache *cache, uint32_t bucket,
                     const uint8_t hash[HASH_BYTES])
{
    uint32_t at = cache->buckets[bucket];
    while (at != NONE && !span_equal(SPAN_OF(cache->entries[at].hash),
                                     (struct span){hash, HASH_BYTES}))
        at = cache->entries[at].next;
    return at;
}

static void unlink_age(struct token_cache *cache, const struct entry *entry)
{
    if (entry->newer == NONE)
        cache->newest = entry->older;
    else
        cache->entries[entry->newer].older = entry->older;
    if (entry->older == NONE)
        cache->oldest = entry->newer;
    else
        cache->entries[entry->older].newer = entry->newer;
}

static void link_newest(struct token_cache *cache, uint32_t at)
{
    struct entry *entry = &cache->entries[at];
    entry->newer = NONE;
    entry->older = cache->newest;
    if (cache->newest == NONE)
        cache->oldest = at;
    else
        cache->entries[cache->newest].newer = at;
    cache->newest = at;
}

static void drop(struct token_cache *cache, uint32_t at)
{
    struct entry *entry = &cache->entries[at];
    uint32_t *link = &cache->buckets[entry->bucket];
    while (*link != at) {
        assert(*link != NONE);
        link = &cache->entries[*link].next;
    }
    *link = entry->next;
    unlink_age(cache, entry);
    secret_wipe(entry, sizeof *entry);
    entry->next = cache->free;
    cache->free = at;
    cache->counts.entries--;
}

static uint32_t take_entry(struct token_cache *cache)
{
    if (cache->free == NONE && cache->touched < cache->capacity)
        return cache->touched++;
    if (cache->free == NONE) {
        drop(cache, cache->oldest);
        cache->counts.evictions++;
    }
    uint32_t at = cache->free;
    cache->free = cache->entries[at].next;
    return at;
}

static const struct claims *keep(struct token_cache *cache, uint32_t bucket,
                                 const uint8_t hash[HASH_BYTES], uint64_t generation,
                                 const struct claims *claims)
{
    uint32_t at = take_entry(cache);
    struct entry *entry = &cache->entries[at];
    for (size_t i = 0; i < HASH_BYTES; i++)
        entry->hash[i] = hash[i];
    entry->generation = generation;
    entry->claims = *claims;
    entry->bucket = bucket;
    entry->next = cache->buckets[bucket];
    cache->buckets[bucket] = at;
    link_newest(cache, at);
    cache->counts.entries++;
    return &entry->claims;
}

status token_cache_verify(const struct claims **ret, uint8_t ret_hash[HASH_BYTES],
                          enum token_reason *reason, struct token_cache *cache,
                          struct token_verifier *verifier, struct span token, int64_t now,
                          struct fault *fault)
{
    hash(ret_hash, token);
    uint64_t generation = token_verifier_generation(verifier);
    uint32_t bucket = bucket_of(cache, ret_hash), at = find(cache, bucket, ret_hash);
    if (at != NONE && cache->entries[at].generation != generation) {
        drop(cache, at);
        at = NONE;
    }
    if (at == NONE) {
        struct claims claims;
        cache->counts.misses++;
        TRY(token_verify(&claims, reason, verifier, token, now, fault));
        *ret = keep(cache, bucket, ret_hash, generation, &claims);
        return OK;
    }
    if (!claims_current(&cache->entries[at].claims, now, reason)) {
        drop(cache, at);
        return FAIL(UNAUTHENTICATED, fault, TOKEN_REFUSED);
    }
    cache->counts.hits++;
    unlink_age(cache, &cache->entries[at]);
    link_newest(cache, at);
    *ret = &cache->entries[at].claims;
    return OK;
}

const struct claims *token_cache_find(uint64_t *ret_generation, struct token_cache *cache,
                                      const uint8_t token_hash[HASH_BYTES], int64_t now)
{
    uint32_t at = find(cache, bucket_of(cache, token_hash), token_hash);
    enum token_reason reason;
    if (at != NONE && !claims_current(&cache->entries[at].claims, now, &reason)) {
        drop(cache, at);
        at = NONE;
    }
    if (at == NONE) {
        cache->counts.misses++;
        return NULL;
    }
    cache->counts.hits++;
    unlink_age(cache, &cache->entries[at]);
    link_newest(cache, at);
    *ret_generation = cache->entries[at].generation;
    return &cache->entries[at].claims;
}

const struct claims *token_cache_put(struct token_cache *cache,
                                     const uint8_t token_hash[HASH_BYTES], uint64_t generation,
                                     const struct claims *claims)
{
    uint32_t bucket = bucket_of(cache, token_hash), at = find(cache, bucket, token_hash);
    struct claims kept = *claims; /* which may be the very entry that goes */
    if (at != NONE)
        drop(cache, at);
    return keep(cache, bucket, token_hash, generation, &kept);
}
