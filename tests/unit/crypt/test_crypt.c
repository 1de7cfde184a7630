#include "crypt/crypt.h"

#include "crypt/openssl.h"
#include "crypt_vectors.h"
#include "support.h"

static void hashes_are_those_of_the_standard(void **state)
{
    (void)state;
    uint8_t made[HASH_BYTES];
    hash(made, SPAN(""));
    assert_hex(SPAN_OF(made), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    hash(made, SPAN("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"));
    assert_hex(SPAN_OF(made), "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    hash(made, (struct span){0});
    assert_hex(SPAN_OF(made), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

static void parts_hash_as_their_concatenation(void **state)
{
    (void)state;
    uint8_t whole[HASH_BYTES], parts[HASH_BYTES];
    hash(whole, SPAN("abc"));
    hash_parts(parts, (struct span[]){SPAN("a"), {0}, SPAN("bc")}, 3);
    assert_memory_equal(whole, parts, HASH_BYTES);
    hash_parts(parts, (struct span[]){SPAN("a"), SPAN("cb")}, 2);
    assert_memory_not_equal(whole, parts, HASH_BYTES);
}

static void keyed_hashes_are_those_of_rfc_4231(void **state)
{
    (void)state;
    uint8_t made[HASH_BYTES], key[131];
    memset(key, 0x0b, 20);
    hash_keyed(made, (struct span){key, 20}, SPAN("Hi There"));
    assert_hex(SPAN_OF(made), "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
    memset(key, 0xaa, sizeof key); /* longer than a block: hashed first */
    hash_keyed(made, SPAN_OF(key), SPAN("Test Using Larger Than Block-Size Key - Hash Key First"));
    assert_hex(SPAN_OF(made), "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
    hash_keyed(made, (struct span){0}, SPAN(""));
    assert_hex(SPAN_OF(made), "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad");
}

static void derived_keys_are_those_of_another_implementation(void **state)
{
    (void)state;
    uint8_t key[KEY_BYTES], made[KEY_BYTES];
    count_up(key, sizeof key, 0);
    key_derive(made, key, (struct span){0}, "bulkhead pages v1");
    assert_hex(SPAN_OF(made), derived[0]);
    key_derive(made, key, SPAN("salt"), "bulkhead pages v1");
    assert_hex(SPAN_OF(made), derived[1]);
}

static void another_purpose_or_salt_gives_another_key(void **state)
{
    (void)state;
    uint8_t key[KEY_BYTES] = {1}, one[KEY_BYTES], other[KEY_BYTES];
    key_derive(one, key, SPAN("silo"), "bulkhead pages v1");
    key_derive(other, key, SPAN("silo"), "bulkhead audit v1");
    assert_memory_not_equal(one, other, KEY_BYTES);
    key_derive(other, key, SPAN("olis"), "bulkhead pages v1");
    assert_memory_not_equal(one, other, KEY_BYTES);
}

static void randomness_fills_all_it_is_given_and_no_more(void **state)
{
    (void)state;
    uint8_t bytes[1002] = {0};
    size_t seen[256] = {0}, different = 0;
    crypt_random(bytes + 1, sizeof bytes - 2);
    assert_int_equal(bytes[0], 0);
    assert_int_equal(bytes[sizeof bytes - 1], 0);
    for (size_t i = 1; i + 1 < sizeof bytes; i++)
        seen[bytes[i]]++;
    for (size_t i = 0; i < 256; i++)
        different += seen[i] > 0;
    assert_true(different > 200); /* of 1000 bytes: 251 expected */
}

static void secret_objects_fill_their_block_and_all_of_it_comes_back(void **state)
{
    (void)state;
    size_t before = secret_objects_bytes();
    uint8_t *taken[64] = {0};
    size_t count = 0;
    while (count < 64 && (taken[count] = secret_object_take(2000)) != NULL)
        memset(taken[count++], 0xee, 2000);
    assert_in_range(count, 20, 33); /* of 64 KiB */
    assert_null(secret_object_take(1 << 20));
    uint8_t *reused = taken[count / 2];
    secret_object_give(reused);
    uint8_t *again = secret_object_take(1900);
    assert_ptr_equal(again, reused);
    for (size_t i = 0; i < 2000; i++)
        assert_int_equal(again[i], 0);
    for (size_t i = 0; i < count; i++)
        secret_object_give(taken[i]);
    assert_int_equal(secret_objects_bytes(), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hashes_are_those_of_the_standard),
        cmocka_unit_test(parts_hash_as_their_concatenation),
        cmocka_unit_test(keyed_hashes_are_those_of_rfc_4231),
        cmocka_unit_test(derived_keys_are_those_of_another_implementation),
        cmocka_unit_test(another_purpose_or_salt_gives_another_key),
        cmocka_unit_test(randomness_fills_all_it_is_given_and_no_more),
        cmocka_unit_test(secret_objects_fill_their_block_and_all_of_it_comes_back),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
