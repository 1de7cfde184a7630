/* Known answers for foreign.c, apart from the others for their length. */
#include "base/hex.h"
#include "crypt/foreign.h"
#include "crypt/openssl.h"

/* RFC 6979, appendix A.2.5: P-256, SHA-256, "sample" */
static const char p256_key[] =
    "60fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6"
    "7903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299";
static const char p256_signature[] =
    "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716"
    "f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8";

/* The key "rs256" of tests/vectors/test_keys.py, and its signatures over "sample"; the salt of the
 * second is 00 01 .. 1f. Made with Python's arithmetic, held against pyca/cryptography. */
static const char rsa_key[] =
    "00010001"
    "b2ce8a66a543296a714d5100e73c37cab64f47e462d6eeb36552fba23077d9e9"
    "65f9ba85c0da6e4b2e33b85f1d03f035bf3056e677f661d8bbaf4918c4a6e3f3"
    "c0eb83f675d0c89466d0c5fc67402a3a80b41c5c453133e1df89fa7ddd4ff4d3"
    "090a7bfa69b9e963a6030a28cf1fc689554d567b62f036051c73fa9796e1fe17"
    "e8397058cf839f8cbec75816c74dd4c4fca70b68eeb966d064751c9c085a1c1d"
    "830742c3cd5c1908a7d01518335bc6b90f862cb2ace3107f8a735053af012fb5"
    "f91f7e94daccc9ef22f654ede357c4a725382574e3fdd524968f5b33d391bd16"
    "291373fcdeaeeaee927ad7cc1f4291dac875b4be8309ffd132ca23a7261c8819";
static const char rs256_signature[] =
    "263409b9a5afa2ccbfe8ce684338c35a1d363a6b6c6bab42cb327f6f2578f246"
    "8b3f802ff77467e7dcb094196e942b8e2112f3f9764c44fba00a728cf7a49cc9"
    "6e04e335f2599536fd1fcc09d9bdf019d90ca64d1fd7a3376e7795b8b1074060"
    "28fc9924c0d30b4a48b03627cdcecac5155a0a30fa46bb4d63de89ae38156d67"
    "973593cd491c6a82e50a03e9f4ce17cfad59ab0083be9c7e7c597d61391db7b8"
    "38b0646396bc8d25648987280ee80cee2debd63966df6e50d6f75c5047eb271a"
    "9e9086f5a81ca95dfa5ba43c1ea0677d3f4284edcc916adf084547779d0d7cba"
    "41954a064dc93df8173760930551a3f9b457bf05717ba001e3f740e86224cc51";
static const char ps256_signature[] =
    "2c42628cc938d63a576ae9f4dff6590356ea66f90066a9c31044c2eadad428be"
    "5349f50a60e2a2a943f1faee1136cfa59ffe43569d6454765a7d0e7e5f93c05c"
    "cf7c7ae1e08aa5d69ac0e3d218b82051678c4f36b928c73528eebe8b2ddc5c48"
    "3cb096ac3000f60ccc29ec09688d43a222f71e07e26773a5eb74bf8fca3d9a62"
    "262182dff8f26abef38a9e77b3a6cfdd063f5d1ec856274f9adc0861ea69dd10"
    "9dacbe6c228f6dc31e68ba9ea928fb4d74e9fae6a8cfbdb46d062fea9bf6b896"
    "7038c928c13283f2a09cc30b0f9646b88059b5fe78e97ca276ca042bb461bfc0"
    "a19570d871c81eddfda9ac5ad20081d2ff75f153d0926843d1627a81a29d5d94";

static const struct {
    const char *name;
    struct span key, signature; /* hexadecimal */
} answers[FOREIGN_ALG_COUNT] = {
    [FOREIGN_ES256] = {"ES256", SPAN(p256_key), SPAN(p256_signature)},
    [FOREIGN_RS256] = {"RS256", SPAN(rsa_key), SPAN(rs256_signature)},
    [FOREIGN_PS256] = {"PS256", SPAN(rsa_key), SPAN(ps256_signature)},
};

static status test_verifier(enum foreign_alg alg, struct foreign_verifier *verifier,
                            struct fault *fault)
{
    uint8_t storage[FOREIGN_SIGNATURE_MAX];
    struct span signature = {storage, answers[alg].signature.length / 2};
    struct fault expected;
    TRY(hex_decode(storage, signature.length, answers[alg].signature, "signature", fault));
    if (foreign_verifier_check(verifier, SPAN("sample"), signature, &expected) != OK)
        return FAIL(INTERNAL, fault, "self-test: %s refuses a right signature", answers[alg].name);
    if (foreign_verifier_check(verifier, SPAN("simple"), signature, &expected) == OK)
        return FAIL(INTERNAL, fault, "self-test: %s takes a wrong signature", answers[alg].name);
    return OK;
}

status foreign_self_test(enum foreign_alg alg, struct fault *fault)
{
    uint8_t key[4 + FOREIGN_RSA_MIN_BYTES];
    size_t length = answers[alg].key.length / 2;
    struct foreign_verifier *verifier;
    struct fault why;
    TRY(hex_decode(key, length, answers[alg].key, "key", fault));
    if (foreign_verifier_make(&verifier, alg, (struct span){key, length}, &why) != OK)
        return FAIL(INTERNAL, fault, "self-test: %s: %.100s", answers[alg].name, why.detail);
    status tested = test_verifier(alg, verifier, fault);
    foreign_verifier_free(verifier);
    return tested;
}
