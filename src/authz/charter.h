/* charter.h: what nobody may invent about a tenant or the platform: posture, issuers, revocations
 * (the signed statements of the design; in this source "statement" is SQL's word). One document a
 * scope, the whole present state, signed by the kms; docs/protocols.md says who passes it to whom,
 * docs/file-formats.md how it is written.
 *
 * The document is strict JSON of ours: an unknown member, a missing one, a bound exceeded is
 * BAD_FIELD. A reader never sees half a charter. */
#pragma once

#include "authz/token.h"
#include "base/buffer.h"
#include "base/cursor.h"
#include "base/limits.h"
#include "crypt/sign.h"
#include "wire/sandbox.h"

enum tier { TIER_STANDARD = 0, TIER_REGULATED = 1 };

#define QUOTA_MAX 9007199254740991LL /* 2^53 - 1: exact for every reader of JSON */

/* 0: none. bytes_stored: of the silo's files. sandboxes, sandbox_memory_mib: of those alive at
 * once. */
struct quotas {
    uint64_t requests_per_second, concurrent_requests, bytes_stored, user_requests_per_second;
    uint64_t sandboxes, sandbox_memory_mib;
};

struct posture {
    char name[TENANT_NAME_MAX + 1];
    int64_t created_at_us;
    enum tier tier;
    char region[TENANT_NAME_MAX + 1]; /* "" for any */
    uint32_t retention_days;          /* 0: for ever */
    bool audit_strict, clearance_required;
    enum sandbox_tier sandbox; /* the weakest that may run this tenant's sandboxes */
    int64_t token_lifetime_max_seconds; /* 0: the issuer's cap alone */
    struct quotas quotas;
    uint32_t key_version; /* of the data key: an older one is not to be used; 0: any */
};

enum { REVOKED_JTI_BYTES = 16 }; /* the first of SHA-256 of the jti */

struct revoked_jti {
    uint8_t hash[REVOKED_JTI_BYTES];
    int64_t until; /* seconds: no token of this jti lives longer */
};

struct revoked_subject {
    char user[USER_MAX + 1];
    int64_t at; /* seconds: tokens issued (iat) up to then are void, and those without iat */
};

struct charter {
    uint8_t id[TENANT_ID_BYTES]; /* all zero: the platform; then there is no posture */
    uint64_t sequence;           /* 1.. */
    int64_t issued_at;           /* seconds */
    struct posture posture;
    struct token_issuer *issuers; /* of the platform, or each with .tenant this tenant */
    uint32_t issuer_count;
    struct revoked_jti *jtis;
    uint32_t jti_count;
    struct revoked_subject *subjects;
    uint32_t subject_count;
};

bool charter_is_platform(const struct charter *charter);

/* The defaults of a tier: what `tenant create` starts from. */
struct posture posture_defaults(enum tier tier);
/* BAD_FIELD names what is out of bounds (name and created_at_us are not looked at: charter_put
 * does) or breaks the tier's rule: a regulated tenant has strict audit, clearance required, tokens
 * of at most 300 s, retention set, sandboxes in microVMs. */
MUST_CHECK status posture_check(const struct posture *posture, struct fault *fault);
/* "requests_per_second" and so on: sets the one of that name, 0 to QUOTA_MAX; BAD_FIELD lists the
 * names. */
MUST_CHECK status quota_set(struct quotas *quotas, struct span name, uint64_t value,
                            struct fault *fault);

const char *tier_name(enum tier tier); /* "standard" */
MUST_CHECK status tier_read(enum tier *ret, struct span text, struct fault *fault);

/* Appends the document: one charter has one spelling. Revocations may stand in any order and
 * twice: they are written sorted, the later time of two. BAD_FIELD (also an issuer that says to be
 * the built-in one), TOO_LARGE over CHARTER_MAX or a count over its bound (says what could go). */
MUST_CHECK status charter_put(struct buffer *out, const struct charter *charter,
                              struct fault *fault);
/* ret is the caller's: charter_free. id and sequence are those that the document says. Whether a
 * key is a key shows only when a verifier takes it (charter_trust). */
MUST_CHECK status charter_read(struct charter **ret, struct span document, struct fault *fault);

/* Takes out what cannot matter at this time (seconds): jtis whose time is over, and subjects cut
 * off so long ago that no token with iat from then can live. Tokens without iat are void only as
 * long as their subject's cut-off stands. */
void charter_drop_past(struct charter *charter, int64_t now);

struct charter *charter_free(struct charter *charter); /* NULL; takes NULL */

/* ---- signed ---- */

struct signed_charter { /* borrowed */
    uint8_t id[TENANT_ID_BYTES];
    uint64_t sequence;
    struct span document;
    uint8_t signature[SIGNATURE_BYTES];
};

enum { CHARTER_SIGNED_MAX = CHARTER_MAX + 64 }; /* bytes of what is signed */

/* What is signed: `bulkhead charter v1\n`, id, u64 sequence, document. Appended. */
void charter_signed_bytes(struct buffer *out, const uint8_t id[TENANT_ID_BYTES], uint64_t sequence,
                          struct span document);
/* SHA-256 over those: what the kms keeps of the newest. */
void charter_hash(uint8_t ret[HASH_BYTES], const uint8_t id[TENANT_ID_BYTES], uint64_t sequence,
                  struct span document);
void signed_charter_put(struct buffer *out, const struct signed_charter *charter);
/* TRUNCATED, BAD_FIELD for a document over CHARTER_MAX. The document is borrowed. */
MUST_CHECK status signed_charter_get(struct signed_charter *ret, struct cursor *cursor,
                                     struct fault *fault);
/* Signature, then content; the document must say the id and sequence that were signed.
 * UNAUTHENTICATED, BAD_FIELD. */
MUST_CHECK status signed_charter_open(struct charter **ret, struct verifier *platform,
                                      const struct signed_charter *charter, struct fault *fault);
/* Content only, for bytes whose signature was found good before. BAD_FIELD. */
MUST_CHECK status signed_charter_read(struct charter **ret, const struct signed_charter *charter,
                                      struct fault *fault);

struct charter_head { /* what the kms keeps: sequence 0 and a zero hash when none was signed */
    uint64_t sequence;
    uint8_t hash[HASH_BYTES];
};
enum { CHARTER_HEAD_BYTES = 8 + HASH_BYTES };
void charter_head_put(struct buffer *out, const struct charter_head *head);
MUST_CHECK status charter_head_get(struct charter_head *ret, struct cursor *cursor,
                                   struct fault *fault);

/* ---- in force ---- */

/* Puts every issuer of it into the verifier and takes out those of the same scope that it does not
 * name; the built-in one stays. On failure the verifier trusts what it did before. */
MUST_CHECK status charter_trust(struct token_verifier *verifier, const struct charter *charter,
                                struct fault *fault);

/* Is a token of these claims void? A subject's cut-off is widened by what its issuer's clock may be
 * ahead. NULL: no charter, nothing revoked. */
bool charter_revokes(const struct charter *charter, const struct claims *claims);
