#include "base/hex.h"
#include "crypt/aead.h"
#include "crypt/openssl.h"
#include "crypt/sign.h"

/* FIPS 180-2, appendix B.1 */
static status test_hash(struct fault *fault)
{
    static const uint8_t expected[] = "\xba\x78\x16\xbf\x8f\x01\xcf\xea\x41\x41\x40\xde\x5d\xae"
                                      "\x22\x23\xb0\x03\x61\xa3\x96\x17\x7a\x9c\xb4\x10\xff\x61"
                                      "\xf2\x00\x15\xad";
    uint8_t made[HASH_BYTES];
    hash(made, SPAN("abc"));
    if (!span_equal(SPAN_OF(made), (struct span){expected, HASH_BYTES}))
        return FAIL(INTERNAL, fault, "self-test: SHA-256 is wrong");
    return OK;
}

/* RFC 4231, test case 2 */
static status test_hash_keyed(struct fault *fault)
{
    static const uint8_t expected[] = "\x5b\xdc\xc1\x46\xbf\x60\x75\x4e\x6a\x04\x24\x26\x08\x95"
                                      "\x75\xc7\x5a\x00\x3f\x08\x9d\x27\x39\x83\x9d\xec\x58\xb9"
                                      "\x64\xec\x38\x43";
    uint8_t made[HASH_BYTES];
    hash_keyed(made, SPAN("Jefe"), SPAN("what do ya want for nothing?"));
    if (!span_equal(SPAN_OF(made), (struct span){expected, HASH_BYTES}))
        return FAIL(INTERNAL, fault, "self-test: HMAC-SHA-256 is wrong");
    return OK;
}

/* C2SP XAES-256-GCM, second vector; then that a changed tag is refused. */
static status test_aead_key(struct aead *aead, struct fault *fault)
{
    static const struct span nonce = {(const uint8_t *)"ABCDEFGHIJKLMNOPQRSTUVWX", 24};
    static const uint8_t expected[] = "\x98\x6e\xc1\x83\x25\x93\xdf\x54\x43\xa1\x79\x43\x7f\xd0"
                                      "\x83\xbf\x3f\xdb\x41\xab\xd7\x40\xa2\x1f\x71\xeb\x76\x9d";
    uint8_t sealed[12], tag[AEAD_TAG_BYTES], opened[12];
    const struct span associated = SPAN("c2sp.org/XAES-256-GCM");
    struct fault expected_fault;
    aead_seal_with_nonce(sealed, nonce.data, tag, aead, SPAN("XAES-256-GCM"), associated);
    if (!span_equal(SPAN_OF(sealed), (struct span){expected, sizeof sealed})
        || !span_equal(SPAN_OF(tag), (struct span){expected + sizeof sealed, sizeof tag}))
        return FAIL(INTERNAL, fault, "self-test: XAES-256-GCM seals wrongly");
    TRY(aead_open(opened, aead, nonce.data, tag, SPAN_OF(sealed), associated, fault));
    if (!span_equal(SPAN_OF(opened), SPAN("XAES-256-GCM")))
        return FAIL(INTERNAL, fault, "self-test: XAES-256-GCM opens wrongly");
    tag[0] ^= 1;
    if (aead_open(opened, aead, nonce.data, tag, SPAN_OF(sealed), associated, &expected_fault)
        != CORRUPT)
        return FAIL(INTERNAL, fault, "self-test: XAES-256-GCM opens what was not sealed");
    return OK;
}

static status test_aead(struct fault *fault)
{
    static const uint8_t key[KEY_BYTES] = {[0 ... KEY_BYTES - 1] = 3};
    struct aead *aead;
    TRY(aead_create(&aead, key, fault));
    status tested = test_aead_key(aead, fault);
    aead_free(aead);
    return tested;
}

/* RFC 8032 section 7.1, TEST 2 */
static const struct span sign_seed = SPAN(
    "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb");
static const struct span sign_key = SPAN(
    "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c");
static const struct span sign_signature = SPAN(
    "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
    "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00");

static status test_sign(struct fault *fault)
{
    uint8_t seed[SIGN_SEED_BYTES], key[SIGN_PUBLIC_BYTES], made_key[SIGN_PUBLIC_BYTES];
    uint8_t signature[SIGNATURE_BYTES], made[SIGNATURE_BYTES];
    struct signer *signer;
    TRY(hex_decode(seed, sizeof seed, sign_seed, "seed", fault));
    TRY(hex_decode(key, sizeof key, sign_key, "key", fault));
    TRY(hex_decode(signature, sizeof signature, sign_signature, "signature", fault));
    TRY(signer_create(&signer, seed, fault));
    status signed_it = signer_sign(made, signer, SPAN("\x72"), fault);
    signer_public(made_key, signer);
    signer_free(signer);
    TRY(signed_it);
    if (!span_equal(SPAN_OF(made), SPAN_OF(signature))
        || !span_equal(SPAN_OF(made_key), SPAN_OF(key)))
        return FAIL(INTERNAL, fault, "self-test: Ed25519 signs wrongly");
    return OK;
}

static status test_verifier(struct verifier *verifier, struct fault *fault)
{
    uint8_t signature[SIGNATURE_BYTES];
    struct fault expected;
    TRY(hex_decode(signature, sizeof signature, sign_signature, "signature", fault));
    TRY(verifier_check(verifier, SPAN("\x72"), signature, fault));
    if (verifier_check(verifier, SPAN("another"), signature, &expected) != UNAUTHENTICATED)
        return FAIL(INTERNAL, fault, "self-test: Ed25519 takes a wrong signature");
    return OK;
}

static status test_verify(struct fault *fault)
{
    uint8_t key[SIGN_PUBLIC_BYTES];
    struct verifier *verifier;
    TRY(hex_decode(key, sizeof key, sign_key, "key", fault));
    TRY(verifier_create(&verifier, key, fault));
    status tested = test_verifier(verifier, fault);
    verifier_free(verifier);
    return tested;
}

/* RFC 5869 has no vector with a key of 32 bytes: this one is pyca/cryptography's. */
static status test_derive(struct fault *fault)
{
    static const uint8_t key[KEY_BYTES] = {[0 ... KEY_BYTES - 1] = 0x0b};
    static const uint8_t expected[] = "\x89\x5c\xd6\x31\x38\x3f\x39\x26\x4b\x77\x4b\xdb\xc5\xb3"
                                      "\xeb\x41\xa0\xf0\x10\x2b\x07\x04\xca\x3c\x95\x50\xdb\x4b"
                                      "\x67\xd0\x92\x17";
    uint8_t made[KEY_BYTES];
    key_derive(made, key, (struct span){0}, "bulkhead self-test");
    if (!span_equal(SPAN_OF(made), (struct span){expected, KEY_BYTES}))
        return FAIL(INTERNAL, fault, "self-test: HKDF is wrong");
    return OK;
}

status crypt_self_test_keys(struct fault *fault)
{
    TRY(test_derive(fault));
    TRY(test_aead(fault));
    return test_sign(fault);
}

status crypt_self_test(struct fault *fault)
{
    TRY(test_hash(fault));
    TRY(test_hash_keyed(fault));
    TRY(crypt_self_test_keys(fault));
    return test_verify(fault);
}
