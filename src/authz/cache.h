/* cache.h: tokens verified before, so that a bearer's signature is checked once, not per request.
 *
 * Bounded, found by the SHA-256 of the whole token (compared in full); the token itself is not
 * kept. The buckets are picked by a hash keyed with randomness of this process, so that nobody can
 * choose tokens that collide. Least recently used goes first. Time and the verifier's generation
 * are checked on every hit. Only accepted tokens are kept: a flood of bad ones evicts nothing. */
#pragma once

#include "authz/token.h"

struct token_cache;

/* entries: 1..TOKEN_CACHE_ENTRIES; about 1 KiB each, touched only when used. crypt_start first. */
MUST_CHECK status token_cache_create(struct token_cache **ret, uint32_t entries,
                                     struct fault *fault);
/* Wipes; returns NULL; takes NULL. */
struct token_cache *token_cache_free(struct token_cache *cache);

/* token_verify through the cache. *ret is borrowed until the next call on this cache. ret_hash (the
 * SHA-256 of the token, what the envelope and the audit log know it by) is set in every case, like
 * reason. */
MUST_CHECK status token_cache_verify(const struct claims **ret, uint8_t ret_hash[HASH_BYTES],
                                     enum token_reason *reason, struct token_cache *cache,
                                     struct token_verifier *verifier, struct span token,
                                     int64_t now, struct fault *fault);

/* For several verifiers behind one cache, where what was claimed says which one is to be asked. The
 * claims that were accepted for this token (by its SHA-256) and under which generation: they mean
 * nothing unless the verifier that answers for them now (of claims->issuer_tenant's issuers) still
 * has that very generation; else verify anew and put. NULL when the token is not here, or its time
 * is over. Borrowed until the next call on this cache. */
const struct claims *token_cache_find(uint64_t *ret_generation, struct token_cache *cache,
                                      const uint8_t token_hash[HASH_BYTES], int64_t now);
/* Keeps what token_verify just accepted under that generation; replaces an older entry. Returns the
 * kept copy, borrowed like the other. */
const struct claims *token_cache_put(struct token_cache *cache,
                                     const uint8_t token_hash[HASH_BYTES], uint64_t generation,
                                     const struct claims *claims);

/* Forgets every token: a revocation came. */
void token_cache_clear(struct token_cache *cache);

struct token_cache_counts {
    uint64_t hits, misses, evictions;
    uint32_t entries;
};
struct token_cache_counts token_cache_counts(const struct token_cache *cache);
