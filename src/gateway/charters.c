/* charters.c: signed charters as control passes them on. It is taken at its word for nothing: what
 * the platform's key did not sign, or what is older than what this process has seen, is not used,
 * and who would have been let in by it is not. The cell decides anyway: this only refuses early. */
#include "base/clock.h"
#include "base/log.h"
#include "gateway/state.h"

enum {
    LOG_EVERY_US = 60 * 1000 * 1000,
    VERIFIER_BYTES = 48 * 1024, /* about: itself and its memory for parsing */
    KEY_OBJECT_BYTES = 4096,    /* about: what OpenSSL makes of a public key */
};

void charter_distrust(struct gateway *gateway, const char *why)
{
    int64_t now_us = clock_monotonic_us();
    if (gateway->distrust_logged_us && now_us - gateway->distrust_logged_us < LOG_EVERY_US)
        return;
    gateway->distrust_logged_us = now_us;
    log_event(LOG_ERROR, "charter.refused", "%s", why);
}

/* ---- the platform's ---- */

static status get_claims(struct platform *platform, struct cursor *body, struct fault *fault)
{
    uint16_t count;
    TRY(cursor_u16(&count, body, fault));
    if (count > CLAIM_NAMES_MAX)
        return FAIL(BAD_REQUEST, fault, "PLATFORM: %u claim names", count);
    platform->claim_count = count;
    for (uint16_t i = 0; i < count; i++)
        TRY(cursor_text(platform->claims[i], sizeof platform->claims[i], body, "claim", fault));
    return OK;
}

/* Opens it, and trusts its issuers. UNAUTHENTICATED: not to be believed. */
static status open_platform(struct platform *platform, struct gateway *gateway,
                            struct span given, struct fault *fault)
{
    struct cursor cursor = cursor_over(given);
    struct signed_charter charter;
    struct charter *opened;
    if (given.length == 0)
        return platform->sequence == 0 ? OK
                                       : FAIL(UNAUTHENTICATED, fault, "the platform's is withheld");
    TRY(signed_charter_get(&charter, &cursor, fault));
    TRY(cursor_end(&cursor, fault));
    if (charter.sequence < platform->sequence)
        return FAIL(UNAUTHENTICATED, fault, "the platform's is older than one seen before");
    TRY(signed_charter_open(&opened, gateway->platform_key, &charter, fault));
    if (!charter_is_platform(opened)) {
        charter_free(opened);
        return FAIL(UNAUTHENTICATED, fault, "a tenant's as the platform's");
    }
    status trusted = charter_trust(gateway->verifier, opened, fault);
    if (trusted != OK) {
        charter_free(opened);
        return trusted;
    }
    charter_free(platform->charter);
    platform->charter = opened;
    platform->sequence = opened->sequence;
    return OK;
}

status platform_take(struct gateway *gateway, struct cursor *body, struct fault *fault)
{
    struct platform *platform = &gateway->platform, taken = *platform;
    struct fault why;
    struct span given;
    uint8_t host_routes;
    TRY(cursor_field(&given, body, IPC_BODY_MAX, "charter", fault));
    TRY(cursor_u8(&host_routes, body, fault));
    TRY(get_claims(&taken, body, fault));
    TRY(cursor_end(body, fault));
    if (host_routes > 1)
        return FAIL(BAD_REQUEST, fault, "PLATFORM: a flag of %u", host_routes);
    taken.host_routes = host_routes;
    taken.state = PLATFORM_KNOWN;
    if (open_platform(&taken, gateway, given, &why) != OK) {
        charter_distrust(gateway, why.detail);
        taken.state = PLATFORM_BAD;
    }
    *platform = taken;
    return OK;
}

bool platform_has_issuer(const struct gateway *gateway, struct span iss)
{
    const struct charter *charter = gateway->platform.charter;
    if (span_is(iss, TOKEN_BUILTIN_ISSUER))
        return true;
    for (uint32_t i = 0; charter && i < charter->issuer_count; i++)
        if (span_is(iss, charter->issuers[i].iss))
            return true;
    return false;
}

/* ---- a tenant's ---- */

static size_t cost_of(const struct charter *charter)
{
    size_t bytes = sizeof *charter + charter->jti_count * sizeof *charter->jtis
                 + charter->subject_count * sizeof *charter->subjects;
    if (charter->issuer_count)
        bytes += VERIFIER_BYTES;
    for (uint32_t i = 0; i < charter->issuer_count; i++) /* the charter's and the verifier's */
        bytes += 2 * sizeof *charter->issuers
               + charter->issuers[i].key_count * (size_t)KEY_OBJECT_BYTES;
    return bytes;
}

static status trust(struct vouched *vouched, struct fault *fault)
{
    if (vouched->charter->issuer_count == 0)
        return OK;
    TRY(token_verifier_create(&vouched->verifier, fault));
    return charter_trust(vouched->verifier, vouched->charter, fault);
}

status vouched_open(struct vouched *ret, struct gateway *gateway,
                    const uint8_t id[TENANT_ID_BYTES], const struct signed_charter *charter,
                    struct fault *fault)
{
    struct standing *standing = standing_of(gateway, id);
    struct vouched vouched = {0};
    if (!span_equal(SPAN_OF(charter->id), (struct span){id, TENANT_ID_BYTES}))
        return FAIL(UNAUTHENTICATED, fault, "another tenant's");
    if (standing && charter->sequence < standing->sequence)
        return FAIL(UNAUTHENTICATED, fault, "a tenant's is older than one seen before");
    TRY(signed_charter_open(&vouched.charter, gateway->platform_key, charter, fault));
    status trusted = trust(&vouched, fault);
    if (trusted != OK) {
        vouched_close(gateway, &vouched);
        return trusted;
    }
    if (standing)
        standing->sequence = charter->sequence;
    vouched.bytes = cost_of(vouched.charter);
    gateway->vouched_bytes += vouched.bytes;
    *ret = vouched;
    return OK;
}

void vouched_close(struct gateway *gateway, struct vouched *vouched)
{
    gateway->vouched_bytes -= vouched->bytes;
    charter_free(vouched->charter);
    token_verifier_free(vouched->verifier);
    *vouched = (struct vouched){0};
}
