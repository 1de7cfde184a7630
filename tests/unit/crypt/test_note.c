#include "crypt/note.h"

#include "wire/base64.h"
#include "crypt_vectors.h"
#include "support.h"

#include <stdlib.h>

/* sum.golang.org's public key and tree heads it has published: a log that is not ours. */
static const char golang_key[] = "ce3372d75ad1ee5ecdaf8727293d4b111d87eb37531d7c86d4d3003f0eb809fc";
#define GOLANG_LINE \
    "\xe2\x80\x94 sum.golang.org Az3grp1rvWOs5NKlr/xR4GLN/CDyzzakmt1o61uSxYKpK1SerqOP2ClbX/pe" \
    "KUZjYnyomH5Xz7GZG3TpB7OeKn4E2ww=\n"
#define WITNESS_LINE \
    "\xe2\x80\x94 test.example.com qTGhC/xIPQ0AXKHK6Y+9ypRfuvMZWPjRXM8NiOg5M1WREn07VQXyuIXM3" \
    "NRNav3ieVFLUqDRK77PWDmL6w8w84UqeAw=\n"
#define GOLANG_BODY \
    "go.sum database tree\n15067302\ngJyioq6dwR9n+NjEWORfYmH+ubeYm3kH42BBQ0bTpYI=\n"

static uint8_t public_key[SIGN_PUBLIC_BYTES];
static struct signer *signer;

static int start_signer(void **state)
{
    uint8_t seed[SIGN_SEED_BYTES];
    struct fault fault;
    count_up(seed, sizeof seed, 0);
    if (start(state) || signer_create(&signer, seed, &fault))
        return -1;
    signer_public(public_key, signer);
    return 0;
}

static int stop_signer(void **state)
{
    (void)state;
    signer = signer_free(signer);
    return 0;
}

static status open_text(struct checkpoint *ret, const char *text)
{
    struct fault fault;
    return checkpoint_open(ret, span_of_text(text), "bulkhead", public_key, &fault);
}

static status open_golang(const char *text)
{
    uint8_t key[SIGN_PUBLIC_BYTES];
    struct checkpoint opened;
    struct fault fault;
    from_hex(key, sizeof key, golang_key);
    return checkpoint_open(&opened, span_of_text(text), "sum.golang.org", key, &fault);
}

/* body as given, an empty line, our signature over that very body, then more. */
static status open_signed(const char *body, const char *more)
{
    uint8_t storage[NOTE_SIGNED_MAX * 2], tagged[4 + SIGNATURE_BYTES];
    struct buffer note = buffer_over(storage, sizeof storage);
    struct checkpoint opened;
    struct fault fault;
    uint8_t id[HASH_BYTES];
    hash_parts(id, (struct span[]){SPAN("bulkhead\n\1"), SPAN_OF(public_key)}, 2);
    memcpy(tagged, id, 4);
    assert_int_equal(signer_sign(tagged + 4, signer, span_of_text(body), &fault), OK);
    buffer_put_text(&note, body);
    buffer_put_text(&note, "\n\xe2\x80\x94 bulkhead ");
    base64_put(&note, SPAN_OF(tagged));
    buffer_put_text(&note, "\n");
    buffer_put_text(&note, more);
    assert_false(note.failed);
    return checkpoint_open(&opened, buffer_span(&note), "bulkhead", public_key, &fault);
}

#define ROOT "X+zrZv/IbzjZUnhsbWlsecLbwjndTpG0ZynXOif7V+k=\n"

static void what_is_signed_is_what_another_implementation_signs(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof note_sizes / sizeof note_sizes[0]; i++) {
        struct checkpoint checkpoint = {.origin = "bulkhead/silo/test", .size = note_sizes[i]};
        char digits[24];
        _cleanup_buffer_ struct buffer note = buffer_of(NOTE_MAX);
        struct fault fault;
        snprintf(digits, sizeof digits, "%ju", (uintmax_t)note_sizes[i]);
        hash(checkpoint.root.bytes, span_of_text(digits));
        assert_int_equal(checkpoint_sign(&note, &checkpoint, PLATFORM_KEY_NAME, signer, &fault),
                         OK);
        assert_true(span_is(buffer_span(&note), notes[i]));
    }
}

static void what_another_implementation_signed_opens(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof note_sizes / sizeof note_sizes[0]; i++) {
        struct checkpoint opened;
        assert_int_equal(open_text(&opened, notes[i]), OK);
        assert_string_equal(opened.origin, "bulkhead/silo/test");
        assert_int_equal(opened.size, note_sizes[i]);
    }
}

static void a_tree_head_of_a_public_log_opens_with_and_without_a_witness(void **state)
{
    (void)state;
    assert_int_equal(open_golang(GOLANG_BODY "\n" GOLANG_LINE), OK);
    assert_int_equal(open_golang(GOLANG_BODY "\n" GOLANG_LINE WITNESS_LINE), OK);
    assert_int_equal(open_golang(GOLANG_BODY "\n" WITNESS_LINE GOLANG_LINE), OK);
    assert_int_equal(open_golang(GOLANG_BODY "\n" WITNESS_LINE), CORRUPT);
    assert_int_equal(open_golang("go.sum database tree\n6476701\n"
                                 "mb8QLQIs0Z0yP5Cstq6guj87oXWeC9gEM8oVikmm9Wk=\n\n"
                                 "\xe2\x80\x94 sum.golang.org Az3grsLX85Gz+s1SiTbgkuqxgItqFq7gsMUEy"
                                 "Vnrsa9LM7Us9S+1xbFIGu95949rj4nPRYfvimWEPWL+o3GeoWwOoAw=\n"), OK);
}

static void every_flipped_bit_and_every_cut_is_refused(void **state)
{
    (void)state;
    uint8_t copy[NOTE_MAX];
    const size_t length = strlen(notes[4]);
    const struct checkpoint untouched = {.size = 77};
    struct checkpoint opened = untouched;
    struct fault fault;
    memcpy(copy, notes[4], length);
    for (size_t bit = 0; bit < 8 * length; bit++) {
        copy[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_int_equal(checkpoint_open(&opened, (struct span){copy, length}, "bulkhead",
                                         public_key, &fault), CORRUPT);
        copy[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    for (size_t cut = 0; cut < length; cut++)
        assert_int_equal(checkpoint_open(&opened, (struct span){copy, cut}, "bulkhead", public_key,
                                         &fault), CORRUPT);
    assert_memory_equal(&opened, &untouched, sizeof opened);
}

static void another_key_or_key_name_is_refused(void **state)
{
    (void)state;
    struct checkpoint opened;
    struct fault fault;
    uint8_t other[SIGN_PUBLIC_BYTES];
    from_hex(other, sizeof other, golang_key);
    assert_int_equal(checkpoint_open(&opened, span_of_text(notes[1]), "bulkhead2", public_key,
                                     &fault), CORRUPT);
    assert_int_equal(checkpoint_open(&opened, span_of_text(notes[1]), "bulkhead", other, &fault),
                     CORRUPT);
    memset(other, 0, sizeof other);
    assert_int_equal(checkpoint_open(&opened, span_of_text(notes[1]), "bulkhead", other, &fault),
                     BAD_FIELD);
}

/* Each of these bodies bears a signature that holds: it is the form that is refused. */
static void a_signed_text_of_another_form_is_refused(void **state)
{
    (void)state;
    static const char *const bodies[] = {
        "log\n00\n" ROOT, "log\n01\n" ROOT, "log\n+1\n" ROOT, "log\n-1\n" ROOT, "log\n 1\n" ROOT,
        "log\n1 \n" ROOT, "log\n\n" ROOT, "log\n0x1\n" ROOT, "log\n1e3\n" ROOT,
        "log\n18446744073709551616\n" ROOT, "log\n99999999999999999999\n" ROOT,
        "log\n100000000000000000000\n" ROOT, "\n1\n" ROOT, "1\n" ROOT, "log\n1\n", "log\n" ROOT,
        "log\n1\n" ROOT "extension\n", "log\n1\n" ROOT "\n", "log\n1\n\n" ROOT, "log\r\n1\n" ROOT,
        "log\t\n1\n" ROOT, "log\xff\n1\n" ROOT, "log\xed\xa0\x80\n1\n" ROOT,
        "log\n1\nX+zrZv/IbzjZUnhsbWlsecLbwjndTpG0ZynXOif7V+l=\n",  /* stray bits */
        "log\n1\nX+zrZv/IbzjZUnhsbWlsecLbwjndTpG0ZynXOif7V+k\n",   /* no padding */
        "log\n1\nX-zrZv_IbzjZUnhsbWlsecLbwjndTpG0ZynXOif7V-k=\n",  /* the other alphabet */
        "log\n1\nX+zrZv/IbzjZUnhsbWlsecLbwjndTpG0ZynXOif7Vw==\n",  /* 31 bytes */
        "log\n1\nX+zrZv/IbzjZUnhsbWlsecLbwjndTpG0ZynXOif7V+kA\n",  /* 33 bytes */
        "log\n1\nX+zrZv/IbzjZUnhsbWlsecLbwjnd TpG0ZynXOif7V+k=\n",
    };
    assert_int_equal(open_signed("log\n1\n" ROOT, ""), OK);
    assert_int_equal(open_signed("log\n18446744073709551615\n" ROOT, ""), OK);
    assert_int_equal(open_signed("a log, \xc3\xa9lue\n0\n" ROOT, ""), OK);
    for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++)
        assert_int_equal(open_signed(bodies[i], ""), CORRUPT);
}

static void an_origin_is_as_long_as_allowed_and_no_longer(void **state)
{
    (void)state;
    char body[ORIGIN_MAX + 64];
    memset(body, 'o', ORIGIN_MAX);
    snprintf(body + ORIGIN_MAX - 1, 65, "\n1\n%s", ROOT);
    assert_int_equal(open_signed(body, ""), OK);
    memset(body, 'o', ORIGIN_MAX);
    snprintf(body + ORIGIN_MAX, 64, "\n1\n%s", ROOT);
    assert_int_equal(open_signed(body, ""), CORRUPT);
}

static void signatures_of_others_are_passed_over_but_must_be_well_formed(void **state)
{
    (void)state;
    static const char *const good[] = {
        "\xe2\x80\x94 other AAAAAAA=\n",
        "\xe2\x80\x94 bulkhead AAAAAAA=\n", /* our name, another id */
        "\xe2\x80\x94 \xc3\xa9lue AAAAAAA=\n",
    };
    static const char *const bad[] = {
        "\xe2\x80\x94 other AAAAAA==\n",    /* an id and no signature */
        "\xe2\x80\x94 other AAAAAAB=\n",    /* stray bits */
        "\xe2\x80\x94 other AAAAAAA\n", "\xe2\x80\x94 other  AAAAAAA=\n",
        "\xe2\x80\x94 other AAAAAAA= \n", "\xe2\x80\x94 ot+her AAAAAAA=\n",
        "\xe2\x80\x94 ot\xc2\xa0her AAAAAAA=\n", "\xe2\x80\x94 ot\xe2\x80\x83her AAAAAAA=\n",
        "\xe2\x80\x94 ot\xe3\x80\x80her AAAAAAA=\n", "\xe2\x80\x94  AAAAAAA=\n",
        "\xe2\x80\x94 other\n", "- other AAAAAAA=\n", "other AAAAAAA=\n", "\n",
        "\xe2\x80\x94 other AAAAAAA=", "\xe2\x80\x94 other AAAAAAA=\r\n",
    };
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        assert_int_equal(open_signed("log\n1\n" ROOT, good[i]), OK);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(open_signed("log\n1\n" ROOT, bad[i]), CORRUPT);
}

static void a_second_line_of_the_key_that_does_not_verify_spoils_the_note(void **state)
{
    (void)state;
    char line[256];
    const char *of_another_body = strstr(notes[0], "\n\n") + 2;
    snprintf(line, sizeof line, "%s", of_another_body);
    assert_int_equal(open_signed("log\n1\n" ROOT, line), CORRUPT);
    assert_int_equal(open_signed("log\n1\n" ROOT, "\xe2\x80\x94 bulkhead t7RUjQA=\n"), CORRUPT);
}

static void sixteen_signatures_are_allowed_and_seventeen_are_not(void **state)
{
    (void)state;
    char more[17 * 64] = "";
    for (size_t i = 0; i < 15; i++)
        strcat(more, "\xe2\x80\x94 other AAAAAAA=\n");
    assert_int_equal(open_signed("log\n1\n" ROOT, more), OK);
    strcat(more, "\xe2\x80\x94 other AAAAAAA=\n");
    assert_int_equal(open_signed("log\n1\n" ROOT, more), CORRUPT);
}

static void a_note_over_the_limit_is_refused(void **state)
{
    (void)state;
    static char more[NOTE_SIGNED_MAX + 64];
    size_t head = strlen("\xe2\x80\x94 other ");
    memcpy(more, "\xe2\x80\x94 other ", head);
    memset(more + head, 'A', 4 * 1500);
    memcpy(more + head + 4 * 1500, "\n", 2);
    assert_int_equal(open_signed("log\n1\n" ROOT, more), OK);
    memset(more + head, 'A', 4 * 2040);
    memcpy(more + head + 4 * 2040, "\n", 2);
    assert_int_equal(open_signed("log\n1\n" ROOT, more), CORRUPT);
}

static void what_could_not_be_opened_is_not_signed(void **state)
{
    (void)state;
    static const char *const origins[] = {"", "two\nlines", "\t", "\xff"};
    static const char *const names[] = {"", "a b", "a+b", "a\nb", "\xff", "a\xe2\x80\x89z"};
    _cleanup_buffer_ struct buffer note = buffer_of(NOTE_MAX);
    struct checkpoint checkpoint = {.size = 1};
    struct fault fault;
    for (size_t i = 0; i < sizeof origins / sizeof origins[0]; i++) {
        snprintf(checkpoint.origin, sizeof checkpoint.origin, "%s", origins[i]);
        assert_int_equal(checkpoint_sign(&note, &checkpoint, "bulkhead", signer, &fault),
                         BAD_FIELD);
    }
    snprintf(checkpoint.origin, sizeof checkpoint.origin, "log");
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        assert_int_equal(checkpoint_sign(&note, &checkpoint, names[i], signer, &fault), BAD_FIELD);
    memset(checkpoint.origin, 'o', sizeof checkpoint.origin); /* no end */
    assert_int_equal(checkpoint_sign(&note, &checkpoint, "bulkhead", signer, &fault), BAD_FIELD);
    assert_int_equal(note.length, 0);
}

static void a_fingerprint_is_the_hash_of_the_key(void **state)
{
    (void)state;
    char text[2 * HASH_BYTES + 1];
    uint8_t key[SIGN_PUBLIC_BYTES] = {0};
    key_fingerprint(text, key);
    assert_string_equal(text, "66687aadf862bd776c8fc18b8e9f8e20089714856ee233b3902a591d0d5f2925");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_signed_is_what_another_implementation_signs),
        cmocka_unit_test(what_another_implementation_signed_opens),
        cmocka_unit_test(a_tree_head_of_a_public_log_opens_with_and_without_a_witness),
        cmocka_unit_test(every_flipped_bit_and_every_cut_is_refused),
        cmocka_unit_test(another_key_or_key_name_is_refused),
        cmocka_unit_test(a_signed_text_of_another_form_is_refused),
        cmocka_unit_test(an_origin_is_as_long_as_allowed_and_no_longer),
        cmocka_unit_test(signatures_of_others_are_passed_over_but_must_be_well_formed),
        cmocka_unit_test(a_second_line_of_the_key_that_does_not_verify_spoils_the_note),
        cmocka_unit_test(sixteen_signatures_are_allowed_and_seventeen_are_not),
        cmocka_unit_test(a_note_over_the_limit_is_refused),
        cmocka_unit_test(what_could_not_be_opened_is_not_signed),
        cmocka_unit_test(a_fingerprint_is_the_hash_of_the_key),
    };
    return cmocka_run_group_tests(tests, start_signer, stop_signer);
}
