#include "crypt/chunk.h"

#include "crypt/openssl.h"
#include "support.h"

#include <stdlib.h>

struct bench {
    struct chunk_cipher *cipher;
    struct chunk_key *key;
};

static int set_up(void **state)
{
    struct fault fault;
    struct bench *bench = calloc(1, sizeof *bench);
    uint8_t bytes[KEY_BYTES];
    count_up(bytes, sizeof bytes, 0);
    *state = bench;
    return chunk_cipher_create(&bench->cipher, &fault) == OK
        && chunk_key_create(&bench->key, bytes, &fault) == OK ? 0 : -1;
}

static int tear_down(void **state)
{
    struct bench *bench = *state;
    chunk_cipher_free(bench->cipher);
    chunk_key_free(bench->key);
    free(bench);
    return 0;
}

/* AES-256-GCM of another implementation (pyca/cryptography), the nonces put together by hand. */
static void the_nonce_is_seven_zeros_the_number_and_the_last_flag(void **state)
{
    static const struct {
        struct chunk_place place;
        const char *text, *associated, *sealed;
    } vectors[] = {
        {{0, true}, "", "", "367ef8288831557408e102950a16e26a"},
        {{0, false}, "the first chunk", "silo",
         "7ad4d0fed345f1ce7c88ca5d6d42fa802b1c2e60dda048ab545f946f59fc0f"},
        {{1, true}, "the last chunk", "silo",
         "1c65e556a6dbc99a2d19a79e8f960243fdfa93c8dfedba1462180fa7a0f6"},
        {{0x01020304, false}, "", "silo", "ebb7ffcadf51ac505d19cb4e76aa9c7c"},
    };
    struct bench *bench = *state;
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
        uint8_t sealed[64], opened[64];
        struct fault fault;
        struct span text = span_of_text(vectors[i].text);
        struct span associated = span_of_text(vectors[i].associated);
        chunk_seal(sealed, sealed + text.length, bench->cipher, bench->key, vectors[i].place, text,
                   associated);
        assert_hex((struct span){sealed, text.length + AEAD_TAG_BYTES}, vectors[i].sealed);
        assert_int_equal(chunk_open(opened, sealed + text.length, bench->cipher, bench->key,
                                    vectors[i].place, (struct span){sealed, text.length},
                                    associated, &fault), OK);
        assert_memory_equal(opened, text.data, text.length);
    }
}

static status opens_at(struct bench *bench, const struct chunk_key *key, struct chunk_place place,
                       const uint8_t sealed[16 + AEAD_TAG_BYTES], struct span associated)
{
    uint8_t opened[16];
    static const uint8_t nothing[16];
    struct fault fault;
    status code = chunk_open(opened, sealed + 16, bench->cipher, key, place,
                             (struct span){sealed, 16}, associated, &fault);
    if (code != OK)
        assert_memory_equal(opened, nothing, sizeof opened);
    return code;
}

static void a_chunk_opens_at_its_own_place_only(void **state)
{
    struct bench *bench = *state;
    struct fault fault;
    uint8_t sealed[16 + AEAD_TAG_BYTES];
    struct chunk_key *other;
    assert_int_equal(chunk_key_create(&other, NULL, &fault), OK);
    chunk_seal(sealed, sealed + 16, bench->cipher, bench->key, (struct chunk_place){7, false},
               SPAN("sixteen bytes ok"), SPAN("here"));
    struct span here = SPAN("here");
    assert_int_equal(opens_at(bench, bench->key, (struct chunk_place){7, false}, sealed, here), OK);
    assert_int_equal(opens_at(bench, bench->key, (struct chunk_place){7, true}, sealed, here),
                     CORRUPT);
    assert_int_equal(opens_at(bench, bench->key, (struct chunk_place){6, false}, sealed, here),
                     CORRUPT);
    assert_int_equal(opens_at(bench, bench->key, (struct chunk_place){7 << 8, false}, sealed, here),
                     CORRUPT);
    assert_int_equal(opens_at(bench, other, (struct chunk_place){7, false}, sealed, here), CORRUPT);
    assert_int_equal(opens_at(bench, bench->key, (struct chunk_place){7, false}, sealed,
                              SPAN("there")), CORRUPT);
    assert_int_equal(opens_at(bench, bench->key, (struct chunk_place){7, false}, sealed, here), OK);
    for (size_t bit = 0; bit < 8 * sizeof sealed; bit++) {
        sealed[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_int_equal(opens_at(bench, bench->key, (struct chunk_place){7, false}, sealed, here),
                         CORRUPT);
        sealed[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    chunk_key_free(other);
}

static void keys_in_turn_do_not_mix(void **state)
{
    struct bench *bench = *state;
    struct fault fault;
    struct chunk_key *keys[2];
    uint8_t sealed[2][3][16 + AEAD_TAG_BYTES];
    for (int i = 0; i < 2; i++)
        assert_int_equal(chunk_key_create(&keys[i], NULL, &fault), OK);
    assert_memory_not_equal(chunk_key_bytes(keys[0]), chunk_key_bytes(keys[1]), KEY_BYTES);
    for (uint32_t n = 0; n < 3; n++)
        for (int i = 0; i < 2; i++)
            chunk_seal(sealed[i][n], sealed[i][n] + 16, bench->cipher, keys[i],
                       (struct chunk_place){n, n == 2}, SPAN("sixteen bytes ok"), SPAN(""));
    for (uint32_t n = 0; n < 3; n++) {
        for (int i = 0; i < 2; i++) {
            struct chunk_place place = {n, n == 2};
            assert_int_equal(opens_at(bench, keys[i], place, sealed[i][n], SPAN("")), OK);
            assert_int_equal(opens_at(bench, keys[!i], place, sealed[i][n], SPAN("")), CORRUPT);
        }
    }
    /* a key at the address of one that is gone is not taken for it */
    uint8_t again[KEY_BYTES];
    memcpy(again, chunk_key_bytes(keys[0]), KEY_BYTES);
    assert_int_equal(opens_at(bench, keys[1], (struct chunk_place){2, true}, sealed[1][2],
                              SPAN("")), OK);
    keys[1] = chunk_key_free(keys[1]);
    assert_int_equal(chunk_key_create(&keys[1], again, &fault), OK);
    assert_int_equal(opens_at(bench, keys[1], (struct chunk_place){2, true}, sealed[0][2],
                              SPAN("")), OK);
    for (int i = 0; i < 2; i++)
        chunk_key_free(keys[i]);
}

static void a_hundred_keys_fit_and_all_is_given_back(void **state)
{
    struct fault fault;
    struct chunk_key *keys[128];
    size_t before = secret_objects_bytes();
    (void)state;
    for (size_t i = 0; i < 128; i++)
        assert_int_equal(chunk_key_create(&keys[i], NULL, &fault), OK);
    for (size_t i = 0; i < 128; i++)
        assert_null(chunk_key_free(keys[i]));
    assert_int_equal(secret_objects_bytes(), before);
    assert_null(chunk_key_free(NULL));
    assert_null(chunk_cipher_free(NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_nonce_is_seven_zeros_the_number_and_the_last_flag,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_chunk_opens_at_its_own_place_only, set_up, tear_down),
        cmocka_unit_test_setup_teardown(keys_in_turn_do_not_mix, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_hundred_keys_fit_and_all_is_given_back, set_up,
                                        tear_down),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
