#include "crypt/sign.h"

#include "crypt/openssl.h"
#include "support.h"

#include <stdlib.h>

struct vector {
    const char *seed, *key, *message, *signature;
};

/* RFC 8032 section 7.1: TEST 1, 2, 3 and SHA(abc) */
static const struct vector vectors[] = {
    {"9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
     "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "",
     "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
     "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"},
    {"4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
     "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", "72",
     "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
     "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"},
    {"c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
     "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025", "af82",
     "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
     "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"},
    {"833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
     "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
     "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
     "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
     "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b589"
     "09351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704"},
};

static struct signer *signer_of(const char *seed)
{
    uint8_t bytes[SIGN_SEED_BYTES];
    struct signer *signer;
    struct fault fault;
    from_hex(bytes, sizeof bytes, seed);
    assert_int_equal(signer_create(&signer, bytes, &fault), OK);
    return signer;
}

static status create(struct verifier **ret, const char *key)
{
    uint8_t bytes[SIGN_PUBLIC_BYTES];
    struct fault fault;
    from_hex(bytes, sizeof bytes, key);
    return verifier_create(ret, bytes, &fault);
}

static void the_vectors_of_rfc_8032_hold(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
        uint8_t message[64], key[SIGN_PUBLIC_BYTES], signature[SIGNATURE_BYTES];
        const struct span said = {message, strlen(vectors[i].message) / 2};
        struct signer *signer = signer_of(vectors[i].seed);
        struct verifier *verifier;
        struct fault fault;
        from_hex(message, said.length, vectors[i].message);
        signer_public(key, signer);
        assert_hex(SPAN_OF(key), vectors[i].key);
        assert_int_equal(signer_sign(signature, signer, said, &fault), OK);
        assert_hex(SPAN_OF(signature), vectors[i].signature);
        assert_int_equal(create(&verifier, vectors[i].key), OK);
        assert_int_equal(verifier_check(verifier, said, signature, &fault), OK);
        verifier_free(verifier);
        signer_free(signer);
    }
}

static void every_flipped_bit_of_a_signature_or_message_is_refused(void **state)
{
    (void)state;
    uint8_t whole[SIGNATURE_BYTES + 5] = "", *message = whole + SIGNATURE_BYTES;
    struct signer *signer = signer_of(vectors[0].seed);
    struct verifier *verifier;
    struct fault fault;
    count_up(message, 5, 'a');
    assert_int_equal(signer_sign(whole, signer, (struct span){message, 5}, &fault), OK);
    assert_int_equal(create(&verifier, vectors[0].key), OK);
    for (size_t bit = 0; bit < 8 * sizeof whole; bit++) {
        whole[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_int_equal(verifier_check(verifier, (struct span){message, 5}, whole, &fault),
                         UNAUTHENTICATED);
        whole[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    assert_int_equal(verifier_check(verifier, (struct span){message, 4}, whole, &fault),
                     UNAUTHENTICATED);
    assert_int_equal(verifier_check(verifier, (struct span){message, 5}, whole, &fault), OK);
    verifier_free(verifier);
    signer_free(signer);
}

static void another_key_is_refused(void **state)
{
    (void)state;
    uint8_t signature[SIGNATURE_BYTES];
    struct signer *signer = signer_of(vectors[0].seed);
    struct verifier *verifier;
    struct fault fault;
    assert_int_equal(signer_sign(signature, signer, SPAN("x"), &fault), OK);
    assert_int_equal(create(&verifier, vectors[1].key), OK);
    assert_int_equal(verifier_check(verifier, SPAN("x"), signature, &fault), UNAUTHENTICATED);
    verifier_free(verifier);
    signer_free(signer);
}

static void a_signature_with_the_group_order_added_to_s_is_refused(void **state)
{
    (void)state;
    static const uint8_t order[32] = {0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58,
                                      0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, [31] = 0x10};
    uint8_t signature[SIGNATURE_BYTES];
    unsigned carry = 0;
    struct verifier *verifier;
    struct fault fault;
    from_hex(signature, sizeof signature, vectors[0].signature);
    assert_int_equal(create(&verifier, vectors[0].key), OK);
    assert_int_equal(verifier_check(verifier, SPAN(""), signature, &fault), OK);
    for (size_t i = 0; i < 32; i++) {
        carry += signature[32 + i] + (unsigned)order[i];
        signature[32 + i] = (uint8_t)carry;
        carry >>= 8;
    }
    assert_int_equal(verifier_check(verifier, SPAN(""), signature, &fault), UNAUTHENTICATED);
    verifier_free(verifier);
}

static void points_of_small_order_are_no_keys(void **state)
{
    (void)state;
    static const char *const points[] = {
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000080",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    };
    for (size_t i = 0; i < sizeof points / sizeof points[0]; i++) {
        struct verifier *verifier = NULL;
        assert_int_equal(create(&verifier, points[i]), BAD_FIELD);
        assert_null(verifier);
    }
}

static void second_spellings_of_a_point_are_no_keys(void **state)
{
    (void)state;
    /* y = p .. p + 18, of which each would be reduced to 0 .. 18 */
    for (unsigned low = 0xed; low <= 0xff; low++) {
        uint8_t key[SIGN_PUBLIC_BYTES];
        struct verifier *verifier = NULL;
        struct fault fault;
        memset(key, 0xff, sizeof key);
        key[0] = (uint8_t)low;
        assert_int_equal(verifier_create(&verifier, key, &fault), BAD_FIELD);
        key[31] = 0x7f;
        assert_int_equal(verifier_create(&verifier, key, &fault), BAD_FIELD);
    }
}

/* y = 2 has no x on the curve, y = 3 has (Euler's criterion, computed in Python). The
 * count over the first hundred comes from there too. */
static void what_is_no_point_of_the_curve_is_no_key(void **state)
{
    (void)state;
    size_t points = 0;
    for (uint8_t y = 2; y < 102; y++) {
        uint8_t key[SIGN_PUBLIC_BYTES] = {y};
        struct verifier *verifier = NULL;
        struct fault fault;
        status created = verifier_create(&verifier, key, &fault);
        assert_true(created == OK || created == BAD_FIELD);
        assert_true(y != 2 || created == BAD_FIELD);
        assert_true(y != 3 || created == OK);
        points += created == OK;
        verifier_free(verifier);
    }
    assert_int_equal(points, 57);
}

static void private_keys_live_in_secret_memory_and_are_given_back(void **state)
{
    (void)state;
    size_t before = secret_objects_bytes();
    struct signer *signer = signer_of(vectors[0].seed);
    assert_true(secret_objects_bytes() > before);
    signer_free(signer);
    assert_int_equal(secret_objects_bytes(), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_vectors_of_rfc_8032_hold),
        cmocka_unit_test(every_flipped_bit_of_a_signature_or_message_is_refused),
        cmocka_unit_test(another_key_is_refused),
        cmocka_unit_test(a_signature_with_the_group_order_added_to_s_is_refused),
        cmocka_unit_test(points_of_small_order_are_no_keys),
        cmocka_unit_test(second_spellings_of_a_point_are_no_keys),
        cmocka_unit_test(what_is_no_point_of_the_curve_is_no_key),
        cmocka_unit_test(private_keys_live_in_secret_memory_and_are_given_back),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
