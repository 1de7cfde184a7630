/* fuzz_charter: a document that is read holds its bounds and has one spelling: written and read
 * again it is the same. What a verifier trusts of it does not break it. The same bytes as a signed
 * charter off the wire. */
#include "authz/charter.h"
#include "fuzz.h"

#include "base/hex.h"

static struct verifier *platform;
static struct token_verifier *verifier;

static void start(void)
{
    static const uint8_t seed[SIGN_SEED_BYTES] = {7};
    uint8_t public_key[SIGN_PUBLIC_BYTES];
    struct signer *signer;
    struct fault fault;
    CHECK(crypt_start(&fault) == OK);
    CHECK(signer_create(&signer, seed, &fault) == OK);
    signer_public(public_key, signer);
    signer_free(signer);
    CHECK(verifier_create(&platform, public_key, &fault) == OK);
    CHECK(token_verifier_create(&verifier, &fault) == OK);
    struct token_issuer builtin = token_issuer_builtin(public_key);
    CHECK(token_verifier_put(verifier, &builtin, &fault) == OK);
}

static void check(const struct charter *charter)
{
    char tenant[TENANT_ID_TEXT] = "";
    struct fault fault;
    if (!charter_is_platform(charter)) {
        hex_encode(tenant, SPAN_OF(charter->id));
        CHECK(posture_check(&charter->posture, &fault) == OK);
        CHECK(charter->posture.name[0] != '\0');
    }
    CHECK(charter->sequence >= 1);
    CHECK(charter->issuer_count <= CHARTER_ISSUERS_MAX);
    for (uint32_t i = 0; i < charter->issuer_count; i++) {
        CHECK(!charter->issuers[i].builtin);
        CHECK(!span_is(span_of_text(charter->issuers[i].iss), TOKEN_BUILTIN_ISSUER));
        CHECK(span_is(span_of_text(charter->issuers[i].tenant), tenant));
        CHECK(token_issuer_check(&charter->issuers[i], &fault) == OK);
    }
    for (uint32_t i = 0; i < charter->jti_count; i++) {
        struct claims claims = {.user = "nobody at all"};
        for (size_t j = 0; j < REVOKED_JTI_BYTES; j++)
            claims.jti[j] = charter->jtis[i].hash[j];
        claims.jti[HASH_BYTES - 1] = 1;
        CHECK(charter_revokes(charter, &claims));
    }
    for (uint32_t i = 0; i < charter->subject_count; i++) {
        struct claims claims = {.issued_at = charter->subjects[i].at};
        CHECK(span_to_text(claims.user, sizeof claims.user,
                           span_of_text(charter->subjects[i].user)));
        CHECK(charter_revokes(charter, &claims));
    }
}

static void check_again(const struct charter *charter)
{
    _cleanup_buffer_ struct buffer once = buffer_of(CHARTER_MAX), twice = buffer_of(CHARTER_MAX);
    struct charter *read;
    struct fault fault;
    status code = charter_put(&once, charter, &fault);
    if (code == TOO_LARGE)
        return; /* what was read had shorter spellings of its texts */
    CHECK(code == OK);
    CHECK(charter_read(&read, buffer_span(&once), &fault) == OK);
    CHECK(charter_put(&twice, read, &fault) == OK);
    CHECK(span_equal(buffer_span(&once), buffer_span(&twice)));
    charter_free(read);
}

static void off_the_wire(struct span bytes)
{
    struct cursor cursor = cursor_over(bytes);
    struct signed_charter got;
    struct charter *opened;
    struct fault fault;
    if (signed_charter_get(&got, &cursor, &fault) == OK)
        CHECK(signed_charter_open(&opened, platform, &got, &fault) == UNAUTHENTICATED);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct charter *charter;
    struct fault fault;
    if (!verifier)
        start();
    off_the_wire((struct span){data, size});
    status code = charter_read(&charter, (struct span){data, size}, &fault);
    CHECK(code == OK || code == BAD_FIELD);
    if (code != OK)
        return 0;
    check(charter);
    check_again(charter);
    uint64_t generation = token_verifier_generation(verifier);
    code = charter_trust(verifier, charter, &fault);
    CHECK((code == OK) == (token_verifier_generation(verifier) != generation));
    charter->issuer_count = 0; /* the next input begins where this one did */
    CHECK(charter_trust(verifier, charter, &fault) == OK);
    charter_free(charter);
    return 0;
}
