/* token.h: from a bearer token to verified claims, and from a request to a token's body.
 *
 * Compact JWS of RFC 7515/7519 by the rules of RFC 8725; tests/vectors/jwt.tsv has accepts and
 * rejects for each check. Every failure is UNAUTHENTICATED with the detail TOKEN_REFUSED: the
 * reason is for counters and logs, never for the client. Neither reason nor fault holds a byte of
 * the token.
 *
 * The issuer is found by `iss`, its key by `kid`; a key has one algorithm, which the header must
 * name (an issuer that uses two registers two keys). Who adds an algorithm adds a row to the table
 * in token.c and a member to token_key. */
#pragma once

#include "authz/clearance.h"
#include "authz/scope.h"
#include "base/buffer.h"
#include "base/limits.h"
#include "crypt/sign.h"

#define TOKEN_REFUSED "a bearer token that verifies is required"
#define TOKEN_BUILTIN_ISSUER "bulkhead"
#define TOKEN_AUDIENCE "bulkhead"

enum {
    TOKEN_ISS_MAX = 255,      /* bytes */
    TOKEN_ISSUERS_MAX = 1 + 2 * CHARTER_ISSUERS_MAX, /* per verifier */
    TOKEN_ISSUER_KEYS_MAX = 8,
    TOKEN_ACTORS_MAX = 4,     /* act within act */
    TOKEN_AUDIENCES_MAX = 16,
    TOKEN_ROLES_MAX = 64,
    TOKEN_ROLE_MAX = 128,     /* bytes */
    TOKEN_JTI_MAX = 255,
    TOKEN_KEY_ID_TEXT = 17,   /* 16 hexadecimal digits and NUL: of our own keys */
};

enum token_alg { TOKEN_EDDSA, TOKEN_ES256, TOKEN_RS256, TOKEN_PS256, TOKEN_ALG_COUNT };

enum { TOKEN_KEY_BYTES_MAX = 4 + 512 };

struct token_key {
    char id[KEY_ID_MAX + 1]; /* the `kid` */
    enum token_alg alg;
    /* EdDSA: 32 bytes. ES256: x and y, 32 each. RS256, PS256: u32 exponent, modulus (256..512). */
    uint32_t length;
    uint8_t public_key[TOKEN_KEY_BYTES_MAX];
};

struct token_issuer {
    char iss[TOKEN_ISS_MAX + 1];
    char aud[TOKEN_ISS_MAX + 1];
    char tenant_claim[64];         /* "tenant_id" */
    char user_claim[64];           /* "sub"; `client_id` and `azp` are refused */
    char scope_claim[64];          /* "scope" */
    char clearance_claim[64];      /* "clearance" */
    bool builtin;                  /* the platform's own: it alone makes platform tokens */
    bool jti_once;                 /* a token serves one request; then jti is required */
    char tenant[TENANT_ID_TEXT];   /* the one tenant it may vouch for; "" for a platform's issuer */
    int64_t lifetime_max_seconds;  /* exp - iat; 1..TOKEN_LIFETIME_MAX_SECONDS */
    int64_t early_seconds;         /* how far nbf and iat may lie ahead; 0..TOKEN_SKEW_SECONDS */
    int64_t late_seconds;          /* how long exp may be past; 0..TOKEN_SKEW_SECONDS */
    struct token_key keys[TOKEN_ISSUER_KEYS_MAX];
    uint32_t key_count;
};

/* What a verified token says. Holds no pointer into the token. Times: seconds since 1970. */
struct claims {
    char tenant[TENANT_NAME_MAX + 1]; /* an id (32 hexadecimal digits) or a name */
    bool tenant_is_id;
    bool platform;             /* of the platform's own back end: no tenant (then "" above) */
    bool jti_once;             /* of its issuer */
    int64_t issuer_early_seconds; /* how far its issuer's clock may be ahead of ours */
    char issuer_tenant[TENANT_ID_TEXT]; /* the only tenant its issuer may vouch for; "" for any */
    char user[USER_MAX + 1];
    char agent[USER_MAX + 1];  /* "" when the token names none */
    scope_set scopes;
    enum clearance clearance;
    bool clearance_given;      /* false: the default was taken */
    int64_t issued_at;         /* 0 when the token does not say */
    int64_t expires_at;
    int64_t usable_from, usable_until; /* from <= now < until; the issuer's skew is in them */
    uint8_t jti[HASH_BYTES];   /* SHA-256 of it, all zero when there is none */
};

enum token_reason {
    TOKEN_ACCEPTED,
    TOKEN_TOO_LARGE,
    TOKEN_NOT_COMPACT,    /* not three segments */
    TOKEN_ENCRYPTED,      /* a JWE */
    TOKEN_BAD_ENCODING,   /* not the one base64url spelling */
    TOKEN_BAD_JSON,       /* header or payload is no object, or not strict JSON */
    TOKEN_BAD_ALG,        /* unknown, `none`, or not the key's */
    TOKEN_BAD_CRIT,
    TOKEN_BAD_TYP,
    TOKEN_BAD_KID,
    TOKEN_BAD_ISS,
    TOKEN_BAD_SIGNATURE,
    TOKEN_BAD_AUD,
    TOKEN_BAD_TIME,       /* exp missing, or a time that is no number of seconds */
    TOKEN_EXPIRED,
    TOKEN_NOT_YET,        /* nbf or iat lies ahead */
    TOKEN_TOO_LONG_LIVED,
    TOKEN_BAD_SUB,
    TOKEN_BAD_ACT,
    TOKEN_BAD_SCOPE,
    TOKEN_BAD_CLEARANCE,
    TOKEN_BAD_TENANT,
    TOKEN_BAD_ROLES,
    TOKEN_BAD_JTI,
    TOKEN_REASON_COUNT
};

/* "bad_signature": for counters and logs */
const char *token_reason_name(enum token_reason reason);

struct token_verifier;

MUST_CHECK status token_verifier_create(struct token_verifier **ret, struct fault *fault);
struct token_verifier *token_verifier_free(struct token_verifier *verifier); /* NULL; takes NULL */

/* Adds an issuer, or replaces the one of the same (iss, tenant), the built-in one too. Copied.
 * BAD_FIELD where the record breaks a bound, two keys share an id, or a key is no key; TOO_LARGE
 * beyond TOKEN_ISSUERS_MAX. */
MUST_CHECK status token_verifier_put(struct token_verifier *verifier,
                                     const struct token_issuer *issuer, struct fault *fault);
/* NOT_FOUND when there is none. */
MUST_CHECK status token_verifier_remove(struct token_verifier *verifier, const char *iss,
                                        const char *tenant, struct fault *fault);

/* Exactly these of that scope (tenant, "" for the platform's) from now on; those of other scopes
 * and the built-in one stay. On failure nothing has changed. */
MUST_CHECK status token_verifier_replace(struct token_verifier *verifier, const char *tenant,
                                         const struct token_issuer *issuers, uint32_t count,
                                         struct fault *fault);

/* Is this record within its bounds? What token_verifier_put asks, but for the keys' being keys. */
MUST_CHECK status token_issuer_check(const struct token_issuer *issuer, struct fault *fault);

/* Is it a key of its alg? (Its id is not looked at.) BAD_FIELD, INTERNAL. */
MUST_CHECK status token_key_check(const struct token_key *key, struct fault *fault);

const char *token_alg_name(enum token_alg alg); /* "ES256" */
/* Exact case. */
bool token_alg_named(enum token_alg *ret, struct span name);

/* Changes with every change of the issuers: what was verified under another one is void. No two
 * verifiers of a process ever have the same. */
uint64_t token_verifier_generation(const struct token_verifier *verifier);

/* The issuer that every platform has: EdDSA, its key in the kms. */
struct token_issuer token_issuer_builtin(const uint8_t public_key[SIGN_PUBLIC_BYTES]);

/* now: seconds since 1970. reason is always set; ret only on OK. */
MUST_CHECK status token_verify(struct claims *ret, enum token_reason *reason,
                               struct token_verifier *verifier, struct span token, int64_t now,
                               struct fault *fault);

enum { TOKEN_PEEK_MAX = 1 + 16 };

struct token_peek {
    char iss[TOKEN_ISS_MAX + 1];
    char claims[TOKEN_PEEK_MAX][TENANT_NAME_MAX + 1]; /* of the names asked for, in their order */
};

/* NOTHING MAY BE DECIDED ON WHAT THIS SAYS: nobody's signature was checked. Anyone can write such a
 * token about any tenant. It serves to find out whose issuers a token should be verified with, and
 * what it says must be found again in the claims that are verified then.
 *
 * iss, and those of up to TOKEN_PEEK_MAX named members of the payload that are texts no longer than
 * a tenant's name ("" for the others). Reads as strictly as token_verify, in the bounded memory of
 * the verifier. UNAUTHENTICATED where token_verify would refuse the form, or there is no iss. */
MUST_CHECK status token_peek(struct token_peek *ret, struct token_verifier *scratch,
                             struct span token, const char *const *names, uint32_t count,
                             struct fault *fault);

/* Has the time of these claims come, and not gone? What is asked again on every hit of a cache. */
bool claims_current(const struct claims *claims, int64_t now, enum token_reason *reason);

/* 1..USER_MAX bytes of UTF-8 without control characters: a sub, an act.sub, a user_id. */
bool principal_is_valid(struct span text);

/* The kid of one of our keys: the first 16 digits of its fingerprint. */
void token_key_id(char ret[TOKEN_KEY_ID_TEXT], const uint8_t public_key[SIGN_PUBLIC_BYTES]);

/* What the kms is asked to sign. The spans may come from anyone who may ask; all are checked. */
struct token_request {
    struct span tenant;    /* the immutable id, 32 hexadecimal digits; all zero: the platform, then
                            * the scope is routes:read and nothing else */
    struct span user;      /* principal_is_valid */
    struct span agent;     /* the same, or empty for none */
    struct span scope;     /* known scopes, space separated, or empty for none */
    struct span clearance; /* one of the four, or empty: the claim is left out */
    int64_t ttl_seconds;   /* 1..ttl_max_seconds */
    int64_t ttl_max_seconds; /* the tenant's cap; never above TOKEN_LIFETIME_MAX_SECONDS */
};

/* Appends the bytes to be signed (header.payload) with a fresh random jti; then the signature is
 * appended with token_signature_put. BAD_FIELD names the field and what is allowed. */
MUST_CHECK status token_body_put(struct buffer *out, const struct token_request *request,
                                 const char *key_id, int64_t now, struct fault *fault);
void token_signature_put(struct buffer *out, const uint8_t signature[SIGNATURE_BYTES]);
