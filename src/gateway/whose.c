/* whose.c: whose token it is. The built-in issuer and the platform's vouch for every tenant; an
 * issuer of one tenant for that tenant alone, so its token has to say first which tenant that is.
 * What it says unverified only picks the verifier, and is compared with what is verified then.
 *
 * Every failure is the one 401: who may not know a tenant cannot tell it from one that does not
 * exist. Where control is gone, or may not be asked so often, what only control could tell is 503,
 * and that again for all alike: those whose tenant is known included. */
#include "base/hex.h"
#include "gateway/state.h"

enum { GUESSES_MAX = 4 }; /* control may be asked for so many tenants on one token's word */

static const char not_looked_up[] = "the tenant could not be looked up: try again";

status refuse_token(struct exchange *exchange, uint32_t denial, struct fault *fault)
{
    denial_count(exchange, denial);
    return FAIL(UNAUTHENTICATED, fault, TOKEN_REFUSED);
}

/* Of a token that would have needed control's word: the same whether its tenant is known or not. */
static status refuse_foreign(struct exchange *exchange, uint32_t denial, struct fault *fault)
{
    bool refused = exchange->ration == RATION_REFUSED;
    if (refused)
        denial_count(exchange, DENIAL_FLOOD);
    if (refused || exchange->connection->gateway->control.fd < 0)
        return FAIL(UNAVAILABLE, fault, not_looked_up);
    return refuse_token(exchange, denial, fault);
}

static bool is_of(const struct claims *claims, const struct lookup *lookup)
{
    const struct charter *charter = lookup->vouched.charter;
    char id[TENANT_ID_TEXT];
    hex_encode(id, SPAN_OF(lookup->record.id));
    if (!charter || !span_is(span_of_text(claims->issuer_tenant), id))
        return false;
    return span_is(span_of_text(claims->tenant),
                   claims->tenant_is_id ? id : charter->posture.name);
}

/* Verified before, under issuers that are the same now. CLOSED: it has to be verified anew. */
static status recall(struct caller *caller, struct exchange *exchange, int64_t now,
                     struct fault *fault)
{
    struct gateway *gateway = exchange->connection->gateway;
    struct lookup *lookup;
    uint64_t generation;
    const struct claims *claims =
        token_cache_find(&generation, gateway->tokens, caller->token_hash, now);
    if (!claims)
        return FAIL(CLOSED, fault, "not verified yet");
    if (claims->issuer_tenant[0] == '\0') {
        if (generation != token_verifier_generation(gateway->verifier))
            return FAIL(CLOSED, fault, "verified under other issuers");
        caller->claims = claims;
        return OK;
    }
    TRY(lookup_find(&lookup, exchange, claims->tenant, true, fault));
    if (lookup->state != LOOKUP_FOUND || !lookup->vouched.verifier
        || generation != token_verifier_generation(lookup->vouched.verifier)
        || !is_of(claims, lookup))
        return FAIL(CLOSED, fault, "verified under other issuers");
    caller->claims = claims;
    caller->lookup = lookup;
    return OK;
}

static status verify_with(struct caller *caller, enum token_reason *reason,
                          struct token_verifier *verifier, struct exchange *exchange, int64_t now,
                          struct fault *fault)
{
    struct token_cache *cache = exchange->connection->gateway->tokens;
    struct claims claims;
    TRY(token_verify(&claims, reason, verifier, exchange_slice(exchange, exchange->token), now,
                     fault));
    caller->claims = token_cache_put(cache, caller->token_hash,
                                     token_verifier_generation(verifier), &claims);
    return OK;
}

/* What may be asked for: an id or a name, nothing that control reads otherwise. */
static bool names_tenant(const char *text)
{
    struct span span = span_of_text(text);
    for (size_t i = 0; i < span.length; i++) {
        uint8_t byte = span.data[i];
        if (!((byte >= 'a' && byte <= 'z') || (byte >= '0' && byte <= '9') || byte == '-'))
            return false;
    }
    return span.length > 0;
}

/* What an unverified token may be naming its tenant by. */
struct guesses {
    const char *texts[GUESSES_MAX]; /* of the peek */
    uint32_t count;
};

static void add_guess(struct guesses *guesses, const char *text)
{
    for (uint32_t i = 0; i < guesses->count; i++)
        if (span_is(span_of_text(text), guesses->texts[i]))
            return;
    if (guesses->count < GUESSES_MAX && names_tenant(text))
        guesses->texts[guesses->count++] = text;
}

static status peek(struct token_peek *ret, struct guesses *ret_guesses,
                   struct exchange *exchange, struct fault *fault)
{
    struct gateway *gateway = exchange->connection->gateway;
    const char *names[1 + CLAIM_NAMES_MAX] = {"tenant_id"};
    uint32_t count = 1;
    for (uint32_t i = 0; i < gateway->platform.claim_count; i++)
        names[count++] = gateway->platform.claims[i];
    TRY(token_peek(ret, gateway->verifier, exchange_slice(exchange, exchange->token), names,
                   count, fault));
    for (uint32_t i = 0; i < count; i++)
        add_guess(ret_guesses, ret->claims[i]);
    return OK;
}

/* By the issuers of this tenant. NOT_FOUND: none of them made it, for the reason ret_denial. */
static status verify_for(struct caller *caller, uint32_t *ret_denial, const char *tenant,
                         struct exchange *exchange, int64_t now, struct fault *fault)
{
    struct lookup *lookup;
    enum token_reason reason;
    struct claims claims;
    TRY(lookup_find(&lookup, exchange, tenant, false, fault));
    struct token_verifier *verifier = lookup->vouched.verifier;
    *ret_denial = lookup->state != LOOKUP_FOUND ? (uint32_t)DENIAL_TENANT_UNKNOWN
                                                : (uint32_t)TOKEN_BAD_ISS;
    if (lookup->state != LOOKUP_FOUND || !verifier)
        return FAIL(NOT_FOUND, fault, "no issuers");
    if (token_verify(&claims, &reason, verifier, exchange_slice(exchange, exchange->token), now,
                     fault) != OK) {
        *ret_denial = reason;
        return FAIL(NOT_FOUND, fault, "not of these issuers");
    }
    if (!is_of(&claims, lookup)) /* one tenant's issuer about another tenant */
        return refuse_foreign(exchange, DENIAL_TENANT_OTHER, fault);
    caller->claims = token_cache_put(exchange->connection->gateway->tokens, caller->token_hash,
                                     token_verifier_generation(verifier), &claims);
    caller->lookup = lookup;
    return OK;
}

/* By the issuers of the tenant that the token says it is of. Which claim says so only its issuer
 * knows: a claim by which another tenant is named elsewhere must not stand in the way. Those that
 * are in use come first, so that they are found without control. */
static status verify_foreign(struct caller *caller, const struct guesses *guesses,
                             struct exchange *exchange, int64_t now, struct fault *fault)
{
    uint32_t denial = TOKEN_BAD_ISS;
    lookup_ration(exchange);
    for (int round = 0; round < 2; round++) {
        for (uint32_t i = 0; i < guesses->count; i++) {
            if (lookup_has_issuers(exchange, guesses->texts[i]) != (round == 0))
                continue;
            status tried =
                verify_for(caller, &denial, guesses->texts[i], exchange, now, fault);
            if (tried != NOT_FOUND)
                return tried;
        }
    }
    return refuse_foreign(exchange, denial, fault);
}

static status verify(struct caller *caller, struct exchange *exchange, int64_t now,
                     struct fault *fault)
{
    struct gateway *gateway = exchange->connection->gateway;
    enum token_reason reason;
    struct token_peek said;
    struct guesses guesses = {.count = 0};
    struct span iss = {0};
    if (peek(&said, &guesses, exchange, fault) == OK)
        iss = span_of_text(said.iss);
    if (iss.length && !platform_has_issuer(gateway, iss))
        return guesses.count ? verify_foreign(caller, &guesses, exchange, now, fault)
                             : refuse_token(exchange, TOKEN_BAD_ISS, fault);
    if (verify_with(caller, &reason, gateway->verifier, exchange, now, fault) == OK)
        return OK;
    /* A tenant may have an issuer of the same name as the platform's, with other keys, or the same
     * for another audience. */
    bool other = reason == TOKEN_BAD_KID || reason == TOKEN_BAD_SIGNATURE
              || reason == TOKEN_BAD_ALG || reason == TOKEN_BAD_AUD;
    if (guesses.count && other && !span_is(iss, TOKEN_BUILTIN_ISSUER))
        return verify_foreign(caller, &guesses, exchange, now, fault);
    return refuse_token(exchange, reason, fault);
}

static status find_tenant(struct caller *caller, struct exchange *exchange, struct fault *fault)
{
    struct lookup *lookup;
    if (caller->claims->platform || caller->lookup)
        return OK;
    TRY(lookup_find(&lookup, exchange, caller->claims->tenant, true, fault));
    caller->lookup = lookup;
    return OK;
}

status whose(struct caller *ret, struct exchange *exchange, int64_t now_us, struct fault *fault)
{
    struct platform *platform = &exchange->connection->gateway->platform;
    struct caller caller = {0};
    struct span token = exchange_slice(exchange, exchange->token);
    if (token.length == 0)
        return refuse_token(exchange, exchange->bearer_too_long ? (uint32_t)TOKEN_TOO_LARGE
                                                                : (uint32_t)DENIAL_NO_TOKEN,
                            fault);
    hash(caller.token_hash, token);
    status known = recall(&caller, exchange, now_us / 1000000, fault);
    if (known == CLOSED)
        known = verify(&caller, exchange, now_us / 1000000, fault);
    if (known != OK)
        return known;
    if (platform->state == PLATFORM_BAD) {
        denial_count(exchange, DENIAL_BAD_CHARTER);
        return FAIL(UNAVAILABLE, fault, not_looked_up);
    }
    /* No cell asks behind us whether it is revoked. (Of a tenant control says nothing before it has
     * told of the platform.) */
    if (platform->state == PLATFORM_UNKNOWN && caller.claims->platform)
        return FAIL(UNAVAILABLE, fault, not_looked_up);
    TRY(find_tenant(&caller, exchange, fault));
    const struct lookup *lookup = caller.lookup;
    if (lookup && lookup->state == LOOKUP_ABSENT)
        return refuse_token(exchange, DENIAL_TENANT_UNKNOWN, fault);
    if (lookup && lookup->record.state == RECORD_ERASING)
        return refuse_token(exchange, DENIAL_TENANT_OTHER, fault);
    if (charter_revokes(platform->charter, caller.claims)
        || (lookup && charter_revokes(lookup->vouched.charter, caller.claims)))
        return refuse_token(exchange, DENIAL_REVOKED, fault);
    *ret = caller;
    return OK;
}
