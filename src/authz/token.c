#include "authz/claims.h"

#include "base/hex.h"
#include "base/secret.h"
#include "crypt/foreign.h"
#include "wire/base64.h"

#include <assert.h>
#include <stdlib.h>

enum {
    PAYLOAD_MAX = TOKEN_MAX / 4 * 3,
    PARSED_MAX = KIB(192), /* both documents as values; more is no token of anyone's */
};

static const char *const alg_names[TOKEN_ALG_COUNT] = {
    [TOKEN_EDDSA] = "EdDSA",
    [TOKEN_ES256] = "ES256",
    [TOKEN_RS256] = "RS256",
    [TOKEN_PS256] = "PS256",
};

static const enum foreign_alg foreign_algs[TOKEN_ALG_COUNT] = { /* of all but EdDSA */
    [TOKEN_ES256] = FOREIGN_ES256,
    [TOKEN_RS256] = FOREIGN_RS256,
    [TOKEN_PS256] = FOREIGN_PS256,
};

static const char *const reason_names[TOKEN_REASON_COUNT] = {
    [TOKEN_ACCEPTED] = "accepted",
    [TOKEN_TOO_LARGE] = "too_large",
    [TOKEN_NOT_COMPACT] = "not_compact",
    [TOKEN_ENCRYPTED] = "encrypted",
    [TOKEN_BAD_ENCODING] = "bad_encoding",
    [TOKEN_BAD_JSON] = "bad_json",
    [TOKEN_BAD_ALG] = "bad_alg",
    [TOKEN_BAD_CRIT] = "bad_crit",
    [TOKEN_BAD_TYP] = "bad_typ",
    [TOKEN_BAD_KID] = "bad_kid",
    [TOKEN_BAD_ISS] = "bad_iss",
    [TOKEN_BAD_SIGNATURE] = "bad_signature",
    [TOKEN_BAD_AUD] = "bad_aud",
    [TOKEN_BAD_TIME] = "bad_time",
    [TOKEN_EXPIRED] = "expired",
    [TOKEN_NOT_YET] = "not_yet",
    [TOKEN_TOO_LONG_LIVED] = "too_long_lived",
    [TOKEN_BAD_SUB] = "bad_sub",
    [TOKEN_BAD_ACT] = "bad_act",
    [TOKEN_BAD_SCOPE] = "bad_scope",
    [TOKEN_BAD_CLEARANCE] = "bad_clearance",
    [TOKEN_BAD_TENANT] = "bad_tenant",
    [TOKEN_BAD_ROLES] = "bad_roles",
    [TOKEN_BAD_JTI] = "bad_jti",
};

struct key { /* one of the two */
    struct verifier *ours;            /* EdDSA */
    struct foreign_verifier *foreign; /* the others */
};

struct issuer {
    struct token_issuer record;
    struct key keys[TOKEN_ISSUER_KEYS_MAX]; /* of record.keys, in their order */
};

struct token_verifier {
    struct issuer *issuers[TOKEN_ISSUERS_MAX];
    uint32_t issuer_count;
    uint64_t generation;
    struct arena arena;
    uint8_t header[TOKEN_HEADER_MAX], payload[PAYLOAD_MAX];
};

struct segments {
    struct span header, payload, signature; /* as they stand in the token: base64url */
    struct span signed_part;                /* header.payload */
};

struct header {
    enum token_alg alg;
    struct span kid;
};

const char *token_reason_name(enum token_reason reason)
{
    return (unsigned)reason < TOKEN_REASON_COUNT ? reason_names[reason] : "unknown";
}

void token_key_id(char ret[TOKEN_KEY_ID_TEXT], const uint8_t public_key[SIGN_PUBLIC_BYTES])
{
    uint8_t fingerprint[HASH_BYTES];
    hash(fingerprint, (struct span){public_key, SIGN_PUBLIC_BYTES});
    hex_encode(ret, (struct span){fingerprint, (TOKEN_KEY_ID_TEXT - 1) / 2});
}

const char *token_alg_name(enum token_alg alg)
{
    return (unsigned)alg < TOKEN_ALG_COUNT ? alg_names[alg] : "unknown";
}

bool token_alg_named(enum token_alg *ret, struct span name)
{
    for (unsigned i = 0; i < TOKEN_ALG_COUNT; i++) {
        if (span_is(name, alg_names[i])) {
            *ret = (enum token_alg)i;
            return true;
        }
    }
    return false;
}

/* No two verifiers ever share one: so that a cache that serves several can tell them apart. */
static uint64_t new_generation(void)
{
    static _Atomic uint64_t newest;
    return ++newest;
}

/* How long a key is; what it is shows when it is loaded. */
static bool has_length_of_alg(const struct token_key *key)
{
    if (key->alg == TOKEN_EDDSA)
        return key->length == SIGN_PUBLIC_BYTES;
    if (key->alg == TOKEN_ES256)
        return key->length == FOREIGN_EC_BYTES;
    return key->length >= 4 + FOREIGN_RSA_MIN_BYTES && key->length <= 4 + FOREIGN_RSA_MAX_BYTES;
}

static status check_key_form(const struct token_key *key, struct fault *fault)
{
    if ((unsigned)key->alg >= TOKEN_ALG_COUNT)
        return FAIL(BAD_FIELD, fault, "alg: not one that is supported");
    if (!has_length_of_alg(key))
        return FAIL(BAD_FIELD, fault, "key: %u bytes are not the length of a key for %s%s",
                    key->length, alg_names[key->alg],
                    key->alg >= TOKEN_RS256 ? " (RSA: 2048 to 4096 bits)" : "");
    return OK;
}

static status key_load(struct key *ret, const struct token_key *record, struct fault *fault)
{
    if (record->alg == TOKEN_EDDSA)
        return verifier_create(&ret->ours, record->public_key, fault);
    return foreign_verifier_create(&ret->foreign, foreign_algs[record->alg],
                                   (struct span){record->public_key, record->length}, fault);
}

static void key_unload(struct key *key)
{
    key->ours = verifier_free(key->ours);
    key->foreign = foreign_verifier_free(key->foreign);
}

status token_key_check(const struct token_key *key, struct fault *fault)
{
    struct key loaded = {0};
    TRY(check_key_form(key, fault));
    TRY(key_load(&loaded, key, fault));
    key_unload(&loaded);
    return OK;
}

static struct issuer *issuer_free(struct issuer *issuer)
{
    for (uint32_t i = 0; issuer && i < TOKEN_ISSUER_KEYS_MAX; i++)
        key_unload(&issuer->keys[i]);
    free(issuer);
    return NULL;
}

status token_verifier_create(struct token_verifier **ret, struct fault *fault)
{
    struct token_verifier *verifier = calloc(1, sizeof *verifier);
    if (!verifier)
        return FAIL(INTERNAL, fault, "token verifier: out of memory");
    verifier->arena = arena_of(PARSED_MAX);
    verifier->generation = new_generation();
    *ret = verifier;
    return OK;
}

struct token_verifier *token_verifier_free(struct token_verifier *verifier)
{
    for (uint32_t i = 0; verifier && i < verifier->issuer_count; i++)
        issuer_free(verifier->issuers[i]);
    if (verifier)
        arena_free(&verifier->arena);
    free(verifier);
    return NULL;
}

uint64_t token_verifier_generation(const struct token_verifier *verifier)
{
    return verifier->generation;
}

/* Is there 1..size - 1 bytes of plain text and a closing NUL in this fixed array? */
static bool is_filled(const char *text, size_t size)
{
    size_t length = 0;
    while (length < size && text[length])
        length++;
    return length >= 1 && length < size
        && span_is_plain_text((struct span){(const uint8_t *)text, length});
}

static status check_keys(const struct token_issuer *issuer, struct fault *fault)
{
    if (issuer->key_count < 1 || issuer->key_count > TOKEN_ISSUER_KEYS_MAX)
        return FAIL(BAD_FIELD, fault, "keys: 1 to %d", TOKEN_ISSUER_KEYS_MAX);
    for (uint32_t i = 0; i < issuer->key_count; i++) {
        const struct token_key *key = &issuer->keys[i];
        if (!is_filled(key->id, sizeof key->id))
            return FAIL(BAD_FIELD, fault, "kid: 1 to %d bytes of text", KEY_ID_MAX);
        TRY(check_key_form(key, fault));
        for (uint32_t j = 0; j < i; j++)
            if (span_is(span_of_text(key->id), issuer->keys[j].id))
                return FAIL(BAD_FIELD, fault, "kid: two keys share one");
    }
    return OK;
}

static status check_claim_name(const char *name, size_t size, const char *what,
                               struct fault *fault)
{
    if (!is_filled(name, size))
        return FAIL(BAD_FIELD, fault, "%s claim: 1 to %zu bytes of text", what, size - 1);
    return OK;
}

static status check_claim_names(const struct token_issuer *issuer, struct fault *fault)
{
    TRY(check_claim_name(issuer->tenant_claim, sizeof issuer->tenant_claim, "tenant", fault));
    TRY(check_claim_name(issuer->user_claim, sizeof issuer->user_claim, "user", fault));
    TRY(check_claim_name(issuer->scope_claim, sizeof issuer->scope_claim, "scope", fault));
    TRY(check_claim_name(issuer->clearance_claim, sizeof issuer->clearance_claim, "clearance",
                         fault));
    /* A client is no user: whoever may register clients could take any user's name (RFC 9068). */
    if (span_is(span_of_text(issuer->user_claim), "client_id")
        || span_is(span_of_text(issuer->user_claim), "azp"))
        return FAIL(BAD_FIELD, fault, "user claim: %s names a client, not a user",
                    issuer->user_claim);
    return OK;
}

status token_issuer_check(const struct token_issuer *issuer, struct fault *fault)
{
    if (!is_filled(issuer->iss, sizeof issuer->iss))
        return FAIL(BAD_FIELD, fault, "iss: 1 to %d bytes of text", TOKEN_ISS_MAX);
    if (!is_filled(issuer->aud, sizeof issuer->aud))
        return FAIL(BAD_FIELD, fault, "aud: 1 to %d bytes of text", TOKEN_ISS_MAX);
    TRY(check_claim_names(issuer, fault));
    if (issuer->tenant[0]
        && (!is_filled(issuer->tenant, sizeof issuer->tenant)
            || !claims_tenant_is_id(span_of_text(issuer->tenant))))
        return FAIL(BAD_FIELD, fault, "tenant: an id of 32 hexadecimal digits, or none");
    if (issuer->builtin && issuer->tenant[0])
        return FAIL(BAD_FIELD, fault, "tenant: the built-in issuer is the platform's");
    if (issuer->lifetime_max_seconds < 1
        || issuer->lifetime_max_seconds > TOKEN_LIFETIME_MAX_SECONDS)
        return FAIL(BAD_FIELD, fault, "lifetime: 1 to %d seconds", TOKEN_LIFETIME_MAX_SECONDS);
    if (issuer->early_seconds < 0 || issuer->early_seconds > TOKEN_SKEW_SECONDS
        || issuer->late_seconds < 0 || issuer->late_seconds > TOKEN_SKEW_SECONDS)
        return FAIL(BAD_FIELD, fault, "skew: 0 to %d seconds", TOKEN_SKEW_SECONDS);
    return check_keys(issuer, fault);
}

static uint32_t find_issuer(const struct token_verifier *verifier, const char *iss,
                            const char *tenant)
{
    uint32_t at = 0;
    while (at < verifier->issuer_count
           && !(span_is(span_of_text(iss), verifier->issuers[at]->record.iss)
                && span_is(span_of_text(tenant), verifier->issuers[at]->record.tenant)))
        at++;
    return at;
}

static void issuer_cleanup(struct issuer **issuer)
{
    *issuer = issuer_free(*issuer);
}

/* ret is the caller's: issuer_free. */
static status issuer_create(struct issuer **ret, const struct token_issuer *record,
                            struct fault *fault)
{
    TRY(token_issuer_check(record, fault));
    __attribute__((cleanup(issuer_cleanup))) struct issuer *issuer = calloc(1, sizeof *issuer);
    if (!issuer)
        return FAIL(INTERNAL, fault, "issuer: out of memory");
    issuer->record = *record;
    for (uint32_t i = 0; i < record->key_count; i++)
        TRY(key_load(&issuer->keys[i], &record->keys[i], fault));
    *ret = issuer;
    issuer = NULL;
    return OK;
}

status token_verifier_put(struct token_verifier *verifier, const struct token_issuer *record,
                          struct fault *fault)
{
    struct issuer *issuer;
    uint32_t at = find_issuer(verifier, record->iss, record->tenant);
    if (at == TOKEN_ISSUERS_MAX)
        return FAIL(TOO_LARGE, fault, "at most %d issuers", TOKEN_ISSUERS_MAX);
    TRY(issuer_create(&issuer, record, fault));
    if (at < verifier->issuer_count)
        issuer_free(verifier->issuers[at]);
    else
        verifier->issuer_count++;
    verifier->issuers[at] = issuer;
    verifier->generation = new_generation();
    return OK;
}

status token_verifier_remove(struct token_verifier *verifier, const char *iss, const char *tenant,
                             struct fault *fault)
{
    uint32_t at = find_issuer(verifier, iss, tenant);
    if (at == verifier->issuer_count)
        return FAIL(NOT_FOUND, fault, "there is no such issuer");
    issuer_free(verifier->issuers[at]);
    verifier->issuers[at] = verifier->issuers[--verifier->issuer_count];
    verifier->generation = new_generation();
    return OK;
}

struct issuer_set {
    struct issuer *issuers[TOKEN_ISSUERS_MAX];
    uint32_t count;
};

static void issuer_set_cleanup(struct issuer_set *set)
{
    for (uint32_t i = 0; i < set->count; i++)
        issuer_free(set->issuers[i]);
}

static status issuer_set_fill(struct issuer_set *set, const char *tenant,
                              const struct token_issuer *records, uint32_t count,
                              struct fault *fault)
{
    for (uint32_t i = 0; i < count; i++) {
        if (!span_is(span_of_text(records[i].tenant), tenant))
            return FAIL(BAD_FIELD, fault, "tenant: the issuer is of another scope");
        if (records[i].builtin || span_is(span_of_text(records[i].iss), TOKEN_BUILTIN_ISSUER))
            return FAIL(BAD_FIELD, fault, "iss: \"%s\" is the built-in issuer",
                        TOKEN_BUILTIN_ISSUER);
        for (uint32_t j = 0; j < i; j++)
            if (span_is(span_of_text(records[i].iss), records[j].iss))
                return FAIL(BAD_FIELD, fault, "iss: two issuers share one");
        TRY(issuer_create(&set->issuers[set->count], &records[i], fault));
        set->count++;
    }
    return OK;
}

static bool is_replaced(const struct issuer *issuer, const char *tenant)
{
    return !issuer->record.builtin && span_is(span_of_text(tenant), issuer->record.tenant);
}

status token_verifier_replace(struct token_verifier *verifier, const char *tenant,
                              const struct token_issuer *issuers, uint32_t count,
                              struct fault *fault)
{
    __attribute__((cleanup(issuer_set_cleanup))) struct issuer_set fresh = {.count = 0};
    uint32_t kept = 0;
    for (uint32_t i = 0; i < verifier->issuer_count; i++)
        kept += !is_replaced(verifier->issuers[i], tenant);
    if (count > TOKEN_ISSUERS_MAX - kept)
        return FAIL(TOO_LARGE, fault, "at most %d issuers", TOKEN_ISSUERS_MAX);
    TRY(issuer_set_fill(&fresh, tenant, issuers, count, fault));
    kept = 0;
    for (uint32_t i = 0; i < verifier->issuer_count; i++) {
        if (is_replaced(verifier->issuers[i], tenant))
            issuer_free(verifier->issuers[i]);
        else
            verifier->issuers[kept++] = verifier->issuers[i];
    }
    for (uint32_t i = 0; i < fresh.count; i++)
        verifier->issuers[kept++] = fresh.issuers[i];
    fresh.count = 0; /* the verifier's now */
    verifier->issuer_count = kept;
    verifier->generation = new_generation();
    return OK;
}

struct token_issuer token_issuer_builtin(const uint8_t public_key[SIGN_PUBLIC_BYTES])
{
    struct token_issuer issuer = {
        .iss = TOKEN_BUILTIN_ISSUER,
        .aud = TOKEN_AUDIENCE,
        .tenant_claim = "tenant_id",
        .user_claim = "sub",
        .scope_claim = "scope",
        .clearance_claim = "clearance",
        .builtin = true,
        .lifetime_max_seconds = TOKEN_LIFETIME_MAX_SECONDS,
        .early_seconds = TOKEN_SKEW_SECONDS,
        .late_seconds = 0, /* it is our own clock: expired is expired */
        .key_count = 1,
    };
    token_key_id(issuer.keys[0].id, public_key);
    issuer.keys[0].alg = TOKEN_EDDSA;
    issuer.keys[0].length = SIGN_PUBLIC_BYTES;
    for (size_t i = 0; i < SIGN_PUBLIC_BYTES; i++)
        issuer.keys[0].public_key[i] = public_key[i];
    return issuer;
}

static enum token_reason split(struct segments *ret, struct span token)
{
    size_t dots[4] = {0}, count = 0;
    if (token.length > TOKEN_MAX)
        return TOKEN_TOO_LARGE;
    for (size_t i = 0; i < token.length; i++) {
        if (token.data[i] != '.')
            continue;
        if (count == 4)
            return TOKEN_NOT_COMPACT;
        dots[count++] = i;
    }
    if (count != 2)
        return count == 4 ? TOKEN_ENCRYPTED : TOKEN_NOT_COMPACT;
    *ret = (struct segments){
        .header = {token.data, dots[0]},
        .payload = {token.data + dots[0] + 1, dots[1] - dots[0] - 1},
        .signature = {token.data + dots[1] + 1, token.length - dots[1] - 1},
        .signed_part = {token.data, dots[1]},
    };
    return TOKEN_ACCEPTED;
}

/* A segment that must be a JSON object, through storage of size bytes. */
static enum token_reason read_object(struct json *ret, struct arena *arena, uint8_t *storage,
                                     size_t size, struct span segment)
{
    struct buffer decoded = buffer_over(storage, size);
    struct fault unused;
    if (segment.length / 4 * 3 > size)
        return TOKEN_TOO_LARGE;
    if (base64url_decode(&decoded, segment, "segment", &unused) != OK || decoded.failed)
        return TOKEN_BAD_ENCODING;
    if (json_parse(ret, arena, buffer_span(&decoded), &unused) != OK || ret->kind != JSON_OBJECT)
        return TOKEN_BAD_JSON;
    return TOKEN_ACCEPTED;
}

/* A media type without "application/" is meant with it (RFC 7515 section 4.1.9); in any case. */
static bool typ_is(struct span typ, const char *subtype)
{
    static const char prefix[] = "application/";
    struct buffer lower = buffer_over((uint8_t[64]){0}, 64);
    for (size_t i = 0; i < typ.length && !lower.failed; i++) {
        uint8_t byte = typ.data[i];
        buffer_put_u8(&lower, byte >= 'A' && byte <= 'Z' ? (uint8_t)(byte | 0x20) : byte);
    }
    struct span name = buffer_span(&lower);
    if (span_starts_with(name, SPAN(prefix)))
        name = (struct span){name.data + sizeof prefix - 1, name.length - (sizeof prefix - 1)};
    return !lower.failed && span_is(name, subtype);
}

/* jku, jwk, x5u and x5c are not looked at: no key comes out of a token. */
static enum token_reason read_header(struct header *ret, const struct json *header)
{
    if (json_member(header, "enc"))
        return TOKEN_ENCRYPTED; /* RFC 7516 section 9 tells a JWE by it */
    const struct json *alg = json_member(header, "alg");
    if (!alg || alg->kind != JSON_STRING || !token_alg_named(&ret->alg, alg->string))
        return TOKEN_BAD_ALG;
    if (json_member(header, "crit"))
        return TOKEN_BAD_CRIT; /* no extension is understood here */
    const struct json *typ = json_member(header, "typ");
    if (typ && (typ->kind != JSON_STRING
                || !(typ_is(typ->string, "jwt") || typ_is(typ->string, "at+jwt"))))
        return TOKEN_BAD_TYP;
    const struct json *kid = json_member(header, "kid");
    if (!kid || kid->kind != JSON_STRING || kid->string.length < 1
        || kid->string.length > KEY_ID_MAX)
        return TOKEN_BAD_KID;
    ret->kid = kid->string;
    return TOKEN_ACCEPTED;
}

static bool signature_holds(const struct key *key, const struct segments *token)
{
    uint8_t storage[FOREIGN_SIGNATURE_MAX + 2] = {0}; /* so that a longer one is seen as such */
    struct buffer signature = buffer_over(storage, sizeof storage);
    struct fault unused;
    bool holds = base64url_decode(&signature, token->signature, "signature", &unused) == OK
              && !signature.failed;
    if (holds && key->ours)
        holds = signature.length == SIGNATURE_BYTES
             && verifier_check(key->ours, token->signed_part, storage, &unused) == OK;
    else if (holds)
        holds = foreign_verifier_check(key->foreign, token->signed_part, buffer_span(&signature),
                                       &unused) == OK;
    secret_wipe(storage, sizeof storage);
    return holds;
}

static enum token_reason check_under(struct claims *ret, const struct issuer *issuer,
                                     const struct header *header, const struct segments *token,
                                     const struct json *payload, int64_t now)
{
    uint32_t key = 0;
    while (key < issuer->record.key_count && !span_is(header->kid, issuer->record.keys[key].id))
        key++;
    if (key == issuer->record.key_count)
        return TOKEN_BAD_KID;
    if (issuer->record.keys[key].alg != header->alg)
        return TOKEN_BAD_ALG;
    if (!signature_holds(&issuer->keys[key], token))
        return TOKEN_BAD_SIGNATURE;
    return claims_read(ret, payload, &issuer->record, now);
}

/* What can be said of a token without any key. The payload lives in the verifier's arena. */
static enum token_reason read_token(struct segments *ret_segments, struct header *ret_header,
                                    struct json *ret_payload, struct token_verifier *verifier,
                                    struct span token)
{
    struct json header;
    enum token_reason reason = split(ret_segments, token);
    if (reason == TOKEN_ACCEPTED)
        reason = read_object(&header, &verifier->arena, verifier->header,
                             sizeof verifier->header, ret_segments->header);
    if (reason == TOKEN_ACCEPTED)
        reason = read_header(ret_header, &header);
    if (reason == TOKEN_ACCEPTED)
        reason = read_object(ret_payload, &verifier->arena, verifier->payload,
                             sizeof verifier->payload, ret_segments->payload);
    return reason;
}

static enum token_reason check(struct claims *ret, struct token_verifier *verifier,
                               struct span token, int64_t now)
{
    struct segments segments;
    struct json payload;
    struct header header;
    enum token_reason reason = read_token(&segments, &header, &payload, verifier, token);
    if (reason != TOKEN_ACCEPTED)
        return reason;
    const struct json *iss = json_member(&payload, "iss");
    reason = TOKEN_BAD_ISS;
    for (uint32_t i = 0; i < verifier->issuer_count; i++) {
        const struct issuer *issuer = verifier->issuers[i];
        if (!iss || iss->kind != JSON_STRING || !span_is(iss->string, issuer->record.iss))
            continue;
        reason = check_under(ret, issuer, &header, &segments, &payload, now);
        if (reason == TOKEN_ACCEPTED)
            break;
    }
    return reason;
}

status token_verify(struct claims *ret, enum token_reason *reason, struct token_verifier *verifier,
                    struct span token, int64_t now, struct fault *fault)
{
    *reason = check(ret, verifier, token, now);
    arena_reset(&verifier->arena);
    return *reason == TOKEN_ACCEPTED ? OK : FAIL(UNAUTHENTICATED, fault, TOKEN_REFUSED);
}

static bool peek_text(char *ret, size_t size, const struct json *payload, const char *name)
{
    const struct json *value = json_member(payload, name);
    ret[0] = '\0';
    return value && value->kind == JSON_STRING && value->string.length >= 1
        && span_is_plain_text(value->string) && span_to_text(ret, size, value->string);
}

status token_peek(struct token_peek *ret, struct token_verifier *scratch, struct span token,
                  const char *const *names, uint32_t count, struct fault *fault)
{
    struct segments segments;
    struct header header;
    struct json payload;
    struct token_peek peek = {0};
    assert(count <= TOKEN_PEEK_MAX);
    bool read = read_token(&segments, &header, &payload, scratch, token) == TOKEN_ACCEPTED
             && peek_text(peek.iss, sizeof peek.iss, &payload, "iss");
    for (uint32_t i = 0; read && i < count; i++)
        (void)peek_text(peek.claims[i], sizeof peek.claims[i], &payload, names[i]);
    arena_reset(&scratch->arena);
    if (!read)
        return FAIL(UNAUTHENTICATED, fault, TOKEN_REFUSED);
    *ret = peek;
    return OK;
}
