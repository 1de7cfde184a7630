/* Which keys are taken; signatures are in tests/vectors/jwt.tsv (check 23). */
#include "base/buffer.h"
#include "crypt/foreign.h"
#include "crypt/openssl.h"
#include "support.h"

#include <stdlib.h>

#define GENERATOR_X "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"
#define GENERATOR_Y "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"

static status load(enum foreign_alg alg, struct span key)
{
    struct foreign_verifier *verifier = NULL;
    struct fault fault = {"untouched"};
    status code = foreign_verifier_create(&verifier, alg, key, &fault);
    assert_true((code == OK) == (verifier != NULL));
    assert_true((code == OK) == (strcmp(fault.detail, "untouched") == 0));
    foreign_verifier_free(verifier);
    return code;
}

static status load_point(const char *hex)
{
    uint8_t key[FOREIGN_EC_BYTES];
    from_hex(key, sizeof key, hex);
    return load(FOREIGN_ES256, SPAN_OF(key));
}

static void points_of_the_curve_are_keys(void **state)
{
    (void)state;
    assert_int_equal(load_point(GENERATOR_X GENERATOR_Y), OK);
    /* the other point of that x: p - y */
    assert_int_equal(load_point(GENERATOR_X
                     "b01cbd1c01e58065711814b583f061e9d431cca994cea1313449bf97c840ae0a"), OK);
}

static void what_is_no_point_of_the_curve_is_no_key(void **state)
{
    (void)state;
    static const char *const bad[] = {
        /* y one more */
        GENERATOR_X "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f6",
        /* x and y changed places: on another curve */
        GENERATOR_Y GENERATOR_X,
        /* the point at infinity as some write it */
        "0000000000000000000000000000000000000000000000000000000000000000"
        "0000000000000000000000000000000000000000000000000000000000000000",
        /* x = p, y that of x = 0: a second spelling of a point */
        "ffffffff00000001000000000000000000000000ffffffffffffffffffffffff"
        "66485c780e2f83d72433bd5d84a06bb6541c2af31dae871728bf856a174f93f4",
        "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"
        "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        /* the generator of secp256k1 */
        "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
        "483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(load_point(bad[i]), BAD_FIELD);
    /* and x = 0 itself is one */
    assert_int_equal(load_point(
        "0000000000000000000000000000000000000000000000000000000000000000"
        "66485c780e2f83d72433bd5d84a06bb6541c2af31dae871728bf856a174f93f4"), OK);
}

static void a_point_has_one_length(void **state)
{
    (void)state;
    uint8_t key[FOREIGN_EC_BYTES + 1] = {0};
    from_hex(key, FOREIGN_EC_BYTES, GENERATOR_X GENERATOR_Y);
    for (size_t length = 0; length <= sizeof key; length++)
        assert_int_equal(load(FOREIGN_ES256, (struct span){key, length}),
                         length == FOREIGN_EC_BYTES ? OK : BAD_FIELD);
}

/* An exponent and a modulus of that many bytes: no product of two primes, which nobody asks. */
static struct span rsa(uint8_t key[600], uint32_t exponent, size_t bytes, uint8_t first,
                       uint8_t last)
{
    struct buffer out = buffer_over(key, 600);
    buffer_put_u32(&out, exponent);
    for (size_t i = 0; i < bytes; i++)
        buffer_put_u8(&out, i == 0 ? first : i + 1 == bytes ? last : 0xc5);
    assert_false(out.failed);
    return buffer_span(&out);
}

static void an_rsa_key_has_2048_to_4096_bits(void **state)
{
    (void)state;
    uint8_t key[600];
    for (enum foreign_alg alg = FOREIGN_RS256; alg <= FOREIGN_PS256; alg++) {
        assert_int_equal(load(alg, rsa(key, 65537, 256, 0x80, 1)), OK);
        assert_int_equal(load(alg, rsa(key, 65537, 257, 0x01, 1)), OK);
        assert_int_equal(load(alg, rsa(key, 65537, 512, 0xff, 0xff)), OK);
        assert_int_equal(load(alg, rsa(key, 65537, 256, 0x7f, 1)), BAD_FIELD); /* 2047 bits */
        assert_int_equal(load(alg, rsa(key, 65537, 255, 0xff, 1)), BAD_FIELD);
        assert_int_equal(load(alg, rsa(key, 65537, 128, 0xff, 1)), BAD_FIELD); /* 1024 */
        assert_int_equal(load(alg, rsa(key, 65537, 513, 0xff, 1)), BAD_FIELD);
        assert_int_equal(load(alg, rsa(key, 65537, 0, 0, 0)), BAD_FIELD);
        assert_int_equal(load(alg, (struct span){key, 3}), BAD_FIELD);
        assert_int_equal(load(alg, (struct span){0}), BAD_FIELD);
    }
}

static void an_rsa_key_has_one_spelling_and_a_sound_exponent(void **state)
{
    (void)state;
    uint8_t key[600];
    assert_int_equal(load(FOREIGN_RS256, rsa(key, 65537, 257, 0, 1)), BAD_FIELD);
    assert_int_equal(load(FOREIGN_RS256, rsa(key, 65537, 256, 0x80, 2)), BAD_FIELD);
    for (uint32_t exponent = 0; exponent < 65537; exponent += exponent < 100 ? 1 : 999)
        assert_int_equal(load(FOREIGN_RS256, rsa(key, exponent, 256, 0x80, 1)), BAD_FIELD);
    assert_int_equal(load(FOREIGN_RS256, rsa(key, 65538, 256, 0x80, 1)), BAD_FIELD);
    assert_int_equal(load(FOREIGN_RS256, rsa(key, 65539, 256, 0x80, 1)), OK);
    assert_int_equal(load(FOREIGN_RS256, rsa(key, UINT32_MAX, 256, 0x80, 1)), OK);
}

static void a_key_with_a_weak_modulus_verifies_nothing_by_chance(void **state)
{
    (void)state;
    uint8_t key[600], signature[FOREIGN_SIGNATURE_MAX + 1] = {0};
    struct foreign_verifier *verifier = NULL;
    struct fault fault;
    assert_int_equal(foreign_verifier_create(&verifier, FOREIGN_RS256,
                                             rsa(key, 65537, 256, 0xff, 1), &fault), OK);
    for (size_t length = 0; length <= sizeof signature; length++) {
        signature[0] = (uint8_t)length;
        assert_int_equal(foreign_verifier_check(verifier, SPAN("message"),
                                                (struct span){signature, length}, &fault),
                         UNAUTHENTICATED);
    }
    foreign_verifier_free(verifier);
    assert_null(foreign_verifier_free(NULL));
}

static void known_answers_hold(void **state)
{
    (void)state;
    struct fault fault;
    for (enum foreign_alg alg = 0; alg < FOREIGN_ALG_COUNT; alg++)
        assert_int_equal(foreign_self_test(alg, &fault), OK);
}

static void public_keys_take_no_secret_memory(void **state)
{
    (void)state;
    size_t before = secret_objects_bytes();
    struct foreign_verifier *verifier = NULL;
    struct fault fault;
    uint8_t key[FOREIGN_EC_BYTES];
    from_hex(key, sizeof key, GENERATOR_X GENERATOR_Y);
    assert_int_equal(foreign_verifier_create(&verifier, FOREIGN_ES256, SPAN_OF(key), &fault), OK);
    assert_int_equal(secret_objects_bytes(), before);
    foreign_verifier_free(verifier);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(points_of_the_curve_are_keys),
        cmocka_unit_test(what_is_no_point_of_the_curve_is_no_key),
        cmocka_unit_test(a_point_has_one_length),
        cmocka_unit_test(an_rsa_key_has_2048_to_4096_bits),
        cmocka_unit_test(an_rsa_key_has_one_spelling_and_a_sound_exponent),
        cmocka_unit_test(a_key_with_a_weak_modulus_verifies_nothing_by_chance),
        cmocka_unit_test(known_answers_hold),
        cmocka_unit_test(public_keys_take_no_secret_memory),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
