#include "authz/claims.h"

#include "base/hex.h"
#include "base/secret.h"
#include "wire/base64.h"

#include <stdlib.h>

enum {
    PAYLOAD_MAX = TOKEN_MAX / 4 * 3,
    PARSED_MAX = KIB(192), /* both documents as values; more is no token of anyone's */
};

static const char *const alg_names[TOKEN_ALG_COUNT] = {
    [TOKEN_EDDSA] = "EdDSA",
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

struct issuer {
    struct token_issuer record;
    struct verifier *verifiers[TOKEN_ISSUER_KEYS_MAX]; /* of record.keys, in their order */
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

static struct issuer *issuer_free(struct issuer *issuer)
{
    for (uint32_t i = 0; issuer && i < TOKEN_ISSUER_KEYS_MAX; i++)
        issuer->verifiers[i] = verifier_free(issuer->verifiers[i]);
    free(issuer);
    return NULL;
}

status token_verifier_create(struct token_verifier **ret, struct fault *fault)
{
    struct token_verifier *verifier = calloc(1, sizeof *verifier);
    if (!verifier)
        return FAIL(INTERNAL, fault, "token verifier: out of memory");
    verifier->arena = arena_of(PARSED_MAX);
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
        if ((unsigned)key->alg >= TOKEN_ALG_COUNT)
            return FAIL(BAD_FIELD, fault, "alg: not one that is supported");
        for (uint32_t j = 0; j < i; j++)
            if (span_is(span_of_text(key->id), issuer->keys[j].id))
                return FAIL(BAD_FIELD, fault, "kid: two keys share one");
    }
    return OK;
}

static status check_issuer(const struct token_issuer *issuer, struct fault *fault)
{
    if (!is_filled(issuer->iss, sizeof issuer->iss))
        return FAIL(BAD_FIELD, fault, "iss: 1 to %d bytes of text", TOKEN_ISS_MAX);
    if (!is_filled(issuer->aud, sizeof issuer->aud))
        return FAIL(BAD_FIELD, fault, "aud: 1 to %d bytes of text", TOKEN_ISS_MAX);
    if (!is_filled(issuer->tenant_claim, sizeof issuer->tenant_claim))
        return FAIL(BAD_FIELD, fault, "tenant claim: 1 to %zu bytes of text",
                    sizeof issuer->tenant_claim - 1);
    if (issuer->tenant[0]
        && (!is_filled(issuer->tenant, sizeof issuer->tenant)
            || !claims_tenant_is_id(span_of_text(issuer->tenant))))
        return FAIL(BAD_FIELD, fault, "tenant: an id of 32 hexadecimal digits, or none");
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

status token_verifier_put(struct token_verifier *verifier, const struct token_issuer *record,
                          struct fault *fault)
{
    TRY(check_issuer(record, fault));
    uint32_t at = find_issuer(verifier, record->iss, record->tenant);
    if (at == TOKEN_ISSUERS_MAX)
        return FAIL(TOO_LARGE, fault, "at most %d issuers", TOKEN_ISSUERS_MAX);
    __attribute__((cleanup(issuer_cleanup))) struct issuer *issuer = calloc(1, sizeof *issuer);
    if (!issuer)
        return FAIL(INTERNAL, fault, "issuer: out of memory");
    issuer->record = *record;
    for (uint32_t i = 0; i < record->key_count; i++)
        TRY(verifier_create(&issuer->verifiers[i], record->keys[i].public_key, fault));
    struct issuer *former = at < verifier->issuer_count ? verifier->issuers[at] : NULL;
    verifier->issuers[at] = issuer;
    verifier->issuer_count += former == NULL;
    verifier->generation++;
    issuer = former; /* freed at the end of the scope */
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
    verifier->generation++;
    return OK;
}

struct token_issuer token_issuer_builtin(const uint8_t public_key[SIGN_PUBLIC_BYTES])
{
    struct token_issuer issuer = {
        .iss = TOKEN_BUILTIN_ISSUER,
        .aud = TOKEN_AUDIENCE,
        .tenant_claim = "tenant_id",
        .lifetime_max_seconds = TOKEN_LIFETIME_MAX_SECONDS,
        .early_seconds = TOKEN_SKEW_SECONDS,
        .late_seconds = 0, /* it is our own clock: expired is expired */
        .key_count = 1,
    };
    token_key_id(issuer.keys[0].id, public_key);
    issuer.keys[0].alg = TOKEN_EDDSA;
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

static bool read_alg(enum token_alg *ret, const struct json *header)
{
    const struct json *alg = json_member(header, "alg");
    for (unsigned i = 0; alg && alg->kind == JSON_STRING && i < TOKEN_ALG_COUNT; i++) {
        if (span_is(alg->string, alg_names[i])) {
            *ret = (enum token_alg)i;
            return true;
        }
    }
    return false;
}

/* jku, jwk, x5u and x5c are not looked at: no key comes out of a token. */
static enum token_reason read_header(struct header *ret, const struct json *header)
{
    if (json_member(header, "enc"))
        return TOKEN_ENCRYPTED; /* RFC 7516 section 9 tells a JWE by it */
    if (!read_alg(&ret->alg, header))
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

static bool signature_holds(struct verifier *key, const struct segments *token)
{
    uint8_t storage[SIGNATURE_BYTES + 2] = {0}; /* so that a longer one is seen as such */
    struct buffer signature = buffer_over(storage, sizeof storage);
    struct fault unused;
    bool holds = base64url_decode(&signature, token->signature, "signature", &unused) == OK
              && !signature.failed && signature.length == SIGNATURE_BYTES
              && verifier_check(key, token->signed_part, storage, &unused) == OK;
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
    if (!signature_holds(issuer->verifiers[key], token))
        return TOKEN_BAD_SIGNATURE;
    return claims_read(ret, payload, &issuer->record, now);
}

static enum token_reason check(struct claims *ret, struct token_verifier *verifier,
                               struct span token, int64_t now)
{
    struct segments segments;
    struct json document, payload;
    struct header header;
    enum token_reason reason = split(&segments, token);
    if (reason == TOKEN_ACCEPTED)
        reason = read_object(&document, &verifier->arena, verifier->header,
                             sizeof verifier->header, segments.header);
    if (reason == TOKEN_ACCEPTED)
        reason = read_header(&header, &document);
    if (reason == TOKEN_ACCEPTED)
        reason = read_object(&payload, &verifier->arena, verifier->payload,
                             sizeof verifier->payload, segments.payload);
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
