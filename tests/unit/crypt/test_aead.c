#include "crypt/aead.h"

#include "crypt/openssl.h"
#include "crypt_vectors.h"
#include "support.h"

#include <assert.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static struct aead *keyed(uint8_t first, bool counting)
{
    uint8_t key[KEY_BYTES];
    memset(key, first, sizeof key);
    if (counting)
        count_up(key, sizeof key, first);
    struct aead *aead;
    struct fault fault;
    assert_int_equal(aead_create(&aead, key, &fault), OK);
    return aead;
}

/* Ciphertext and tag as the specification prints them: one after the other. */
static void check_vector(uint8_t key, struct span associated, const char *expected)
{
    const struct span text = SPAN("XAES-256-GCM"), nonce = SPAN("ABCDEFGHIJKLMNOPQRSTUVWX");
    struct aead *aead = keyed(key, false);
    uint8_t sealed[12 + AEAD_TAG_BYTES], opened[12];
    struct fault fault;
    aead_seal_with_nonce(sealed, nonce.data, sealed + 12, aead, text, associated);
    assert_hex(SPAN_OF(sealed), expected);
    assert_int_equal(aead_open(opened, aead, nonce.data, sealed + 12, (struct span){sealed, 12},
                               associated, &fault), OK);
    assert_memory_equal(opened, text.data, 12);
    aead_free(aead);
}

static void the_vectors_of_the_specification_hold(void **state)
{
    (void)state;
    check_vector(1, SPAN(""), "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271");
    check_vector(3, SPAN("c2sp.org/XAES-256-GCM"),
                 "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d");
}

struct stream {
    uint8_t *bytes;
    size_t at;
};

static uint8_t *stream_take(struct stream *stream, size_t length)
{
    stream->at += length;
    return stream->bytes + stream->at - length;
}

/* "Accumulated randomized tests" of the specification: one round's ciphertext into the hash. */
static void accumulate(struct stream *random, EVP_MD_CTX *results)
{
    uint8_t sealed[255 + AEAD_TAG_BYTES], opened[255];
    const uint8_t *key = stream_take(random, KEY_BYTES);
    const uint8_t *nonce = stream_take(random, AEAD_NONCE_BYTES);
    struct span text, associated;
    text.length = *stream_take(random, 1);
    text.data = stream_take(random, text.length);
    associated.length = *stream_take(random, 1);
    associated.data = stream_take(random, associated.length);
    struct aead *aead;
    struct fault fault;
    assert_int_equal(aead_create(&aead, key, &fault), OK);
    aead_seal_with_nonce(sealed, nonce, sealed + text.length, aead, text, associated);
    assert_int_equal(EVP_DigestUpdate(results, sealed, text.length + AEAD_TAG_BYTES), 1);
    assert_int_equal(aead_open(opened, aead, nonce, sealed + text.length,
                               (struct span){sealed, text.length}, associated, &fault), OK);
    assert_true(span_equal((struct span){opened, text.length}, text));
    aead_free(aead);
}

static void accumulate_rounds(size_t rounds, const char *expected)
{
    size_t length = rounds * (KEY_BYTES + AEAD_NONCE_BYTES + 2 + 2 * 255);
    struct stream random = {malloc(length), 0};
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    uint8_t result[32];
    assert_non_null(random.bytes);
    assert_int_equal(EVP_DigestInit_ex(context, EVP_shake128(), NULL), 1);
    assert_int_equal(EVP_DigestFinalXOF(context, random.bytes, length), 1);
    assert_hex((struct span){random.bytes, 16}, "7f9c2ba4e88f827d616045507605853e");
    assert_int_equal(EVP_DigestInit_ex(context, EVP_shake128(), NULL), 1);
    for (size_t i = 0; i < rounds; i++)
        accumulate(&random, context);
    assert_int_equal(EVP_DigestFinalXOF(context, result, sizeof result), 1);
    assert_hex(SPAN_OF(result), expected);
    EVP_MD_CTX_free(context);
    free(random.bytes);
}

static void ten_thousand_accumulated_rounds_hold(void **state)
{
    (void)state;
    accumulate_rounds(10000, "e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939");
}

static void pages_of_every_length_agree_with_another_implementation(void **state)
{
    (void)state;
    struct aead *aead = keyed(0, true);
    uint8_t nonce[AEAD_NONCE_BYTES], text[4096], sealed[4096 + AEAD_TAG_BYTES], made[HASH_BYTES];
    count_up(nonce, sizeof nonce, 0x40);
    count_up(text, sizeof text, 0);
    for (size_t i = 0; i < sizeof page_lengths / sizeof page_lengths[0]; i++) {
        size_t length = page_lengths[i];
        aead_seal_with_nonce(sealed, nonce, sealed + length, aead, (struct span){text, length},
                             SPAN("page"));
        hash(made, (struct span){sealed, length + AEAD_TAG_BYTES});
        assert_hex(SPAN_OF(made), page_hashes[i]);
    }
    aead_free(aead);
}

static void a_page_sealed_in_place_opens_in_place(void **state)
{
    (void)state;
    struct aead *aead = keyed(7, false);
    uint8_t page[4096], text[4096], nonce[AEAD_NONCE_BYTES], tag[AEAD_TAG_BYTES];
    struct fault fault;
    count_up(text, sizeof text, 0);
    count_up(page, sizeof page, 0);
    aead_seal(page, nonce, tag, aead, SPAN_OF(page), SPAN("1"));
    assert_memory_not_equal(page, text, sizeof page);
    assert_int_equal(aead_open(page, aead, nonce, tag, SPAN_OF(page), SPAN("1"), &fault), OK);
    assert_memory_equal(page, text, sizeof page);
    aead_free(aead);
}

static void an_empty_page_is_authentic_too(void **state)
{
    (void)state;
    struct aead *aead = keyed(7, false);
    uint8_t nonce[AEAD_NONCE_BYTES], tag[AEAD_TAG_BYTES];
    struct fault fault;
    aead_seal(NULL, nonce, tag, aead, (struct span){0}, (struct span){0});
    assert_int_equal(aead_open(NULL, aead, nonce, tag, (struct span){0}, (struct span){0}, &fault),
                     OK);
    assert_int_equal(aead_open(NULL, aead, nonce, tag, (struct span){0}, SPAN("x"), &fault),
                     CORRUPT);
    aead_free(aead);
}

/* Opens a copy with one bit changed; what comes out must be wiped. */
static void check_flip(struct aead *aead, const uint8_t sealed[106], size_t bit)
{
    enum { TEXT = 48, ASSOCIATED = 18 };
    uint8_t copy[106], opened[TEXT];
    const uint8_t zeros[TEXT] = {0};
    struct fault fault;
    memcpy(copy, sealed, sizeof copy);
    copy[bit / 8] ^= (uint8_t)(1 << bit % 8);
    memset(opened, 0xee, sizeof opened);
    assert_int_equal(aead_open(opened, aead, copy + TEXT + AEAD_TAG_BYTES, copy + TEXT,
                               (struct span){copy, TEXT},
                               (struct span){copy + sizeof copy - ASSOCIATED, ASSOCIATED}, &fault),
                     CORRUPT);
    assert_memory_equal(opened, zeros, sizeof opened);
}

static void every_flipped_bit_of_text_tag_nonce_or_associated_data_is_refused(void **state)
{
    (void)state;
    struct aead *aead = keyed(7, false);
    uint8_t sealed[48 + AEAD_TAG_BYTES + AEAD_NONCE_BYTES + 18] = {0};
    const struct span associated = {sealed + sizeof sealed - 18, 18};
    static_assert(sizeof sealed == 106, "as check_flip lays it out");
    aead_seal(sealed, sealed + 64, sealed + 48, aead, (struct span){sealed, 48}, associated);
    for (size_t bit = 0; bit < 8 * sizeof sealed; bit++)
        check_flip(aead, sealed, bit);
    aead_free(aead);
}

static void another_key_a_shorter_text_and_shorter_associated_data_are_refused(void **state)
{
    (void)state;
    struct aead *aead = keyed(7, false), *other = keyed(8, false);
    uint8_t page[64] = {0}, out[64], nonce[AEAD_NONCE_BYTES], tag[AEAD_TAG_BYTES];
    struct fault fault;
    aead_seal(page, nonce, tag, aead, SPAN_OF(page), SPAN("page 1"));
    assert_int_equal(aead_open(out, other, nonce, tag, SPAN_OF(page), SPAN("page 1"), &fault),
                     CORRUPT);
    assert_int_equal(aead_open(out, aead, nonce, tag, (struct span){page, 63}, SPAN("page 1"),
                               &fault), CORRUPT);
    assert_int_equal(aead_open(out, aead, nonce, tag, SPAN_OF(page), SPAN("page "), &fault),
                     CORRUPT);
    assert_int_equal(aead_open(out, aead, nonce, tag, SPAN_OF(page), SPAN("page 1"), &fault), OK);
    aead_free(aead);
    aead_free(other);
}

static int compare_nonces(const void *left, const void *right)
{
    return memcmp(left, right, AEAD_NONCE_BYTES);
}

static void no_nonce_comes_twice(void **state)
{
    (void)state;
    enum { COUNT = 5000 };
    static uint8_t nonces[COUNT][AEAD_NONCE_BYTES];
    struct aead *one = keyed(7, false), *two = keyed(7, false);
    uint8_t byte = 0, tag[AEAD_TAG_BYTES];
    for (size_t i = 0; i < COUNT; i++)
        aead_seal(&byte, nonces[i], tag, i % 3 ? one : two, SPAN("x"), (struct span){0});
    qsort(nonces, COUNT, AEAD_NONCE_BYTES, compare_nonces);
    for (size_t i = 1; i < COUNT; i++)
        assert_memory_not_equal(nonces[i - 1], nonces[i], AEAD_NONCE_BYTES);
    aead_free(one);
    aead_free(two);
}

static void a_forked_child_cannot_seal(void **state)
{
    (void)state;
    struct aead *aead = keyed(7, false);
    uint8_t byte = 0, nonce[AEAD_NONCE_BYTES], tag[AEAD_TAG_BYTES];
    aead_seal(&byte, nonce, tag, aead, SPAN("x"), (struct span){0}); /* nonces are read ahead now */
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        if (!freopen("/dev/null", "w", stderr))
            _exit(0);
        signal(SIGABRT, SIG_DFL);
        signal(SIGSEGV, SIG_DFL);
        aead_seal(&byte, nonce, tag, aead, SPAN("x"), (struct span){0});
        _exit(0);
    }
    int ended;
    assert_int_equal(waitpid(child, &ended, 0), child);
    assert_true(WIFSIGNALED(ended));
    assert_true(WTERMSIG(ended) == SIGABRT || WTERMSIG(ended) == SIGSEGV);
    aead_free(aead);
}

static void keys_live_in_secret_memory_and_are_given_back(void **state)
{
    (void)state;
    size_t before = secret_objects_bytes();
    struct aead *aead = keyed(7, false);
    size_t held = secret_objects_bytes() - before;
    /* two schedules of 15 round keys at least, and GCM's table of 256 bytes */
    assert_in_range(held, 2 * 15 * 16 + 256, 4096);
    aead_free(aead);
    assert_int_equal(secret_objects_bytes(), before);
}

static void a_key_too_many_is_refused_and_nothing_is_lost(void **state)
{
    (void)state;
    enum { MORE_THAN_FIT = 200 };
    size_t before = secret_objects_bytes(), count = 0;
    struct aead *held[MORE_THAN_FIT];
    const uint8_t key[KEY_BYTES] = {0};
    struct fault fault;
    status created = OK;
    while (count < MORE_THAN_FIT && (created = aead_create(&held[count], key, &fault)) == OK)
        count++;
    assert_int_equal(created, INTERNAL);
    assert_in_range(count, 16, MORE_THAN_FIT - 1);
    for (size_t i = 0; i < count; i++)
        aead_free(held[i]);
    assert_int_equal(secret_objects_bytes(), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_vectors_of_the_specification_hold),
        cmocka_unit_test(ten_thousand_accumulated_rounds_hold),
        cmocka_unit_test(pages_of_every_length_agree_with_another_implementation),
        cmocka_unit_test(a_page_sealed_in_place_opens_in_place),
        cmocka_unit_test(an_empty_page_is_authentic_too),
        cmocka_unit_test(every_flipped_bit_of_text_tag_nonce_or_associated_data_is_refused),
        cmocka_unit_test(another_key_a_shorter_text_and_shorter_associated_data_are_refused),
        cmocka_unit_test(no_nonce_comes_twice),
        cmocka_unit_test(a_forked_child_cannot_seal),
        cmocka_unit_test(keys_live_in_secret_memory_and_are_given_back),
        cmocka_unit_test(a_key_too_many_is_refused_and_nothing_is_lost),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
