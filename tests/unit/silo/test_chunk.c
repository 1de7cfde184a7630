#include "silo/chunk.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { TEXT_MAX = 1 << 20 };

/* What must hold of any text: chunks without their overlaps are the text, none is empty or too
 * long, an overlap is the end of the chunk before, a border is no inside of a code point. */
static uint32_t check(struct span text, struct chunk_options options)
{
    struct chunker chunker = chunker_of(text, options);
    struct chunk chunk;
    const uint8_t *at = text.data;
    uint32_t count = 0;
    for (; chunk_next(&chunk, &chunker); count++) {
        assert_true(chunk.text.length > chunk.overlap);
        assert_true(chunk.text.length <= options.bytes);
        assert_true(chunk.overlap <= options.overlap);
        assert_ptr_equal(chunk.text.data + chunk.overlap, at);
        assert_true(span_is_utf8(chunk.text));
        assert_true(chunk.heading.length <= CHUNK_HEADING_MAX && span_is_utf8(chunk.heading));
        at = chunk.text.data + chunk.text.length;
    }
    assert_ptr_equal(at, text.data + text.length);
    assert_true(count <= text.length / (options.bytes / 4) + 1);
    return count;
}

static const struct chunk_options usual = {1200, 150}, small = {200, 100}, plain = {200, 0};

static void a_short_text_is_one_chunk(void **state)
{
    (void)state;
    assert_int_equal(check(SPAN("x"), usual), 1);
    assert_int_equal(check(SPAN("\n"), usual), 1);
    assert_int_equal(check(SPAN(""), usual), 0);
}

static struct span part(struct chunk *chunk, struct chunker *chunker)
{
    assert_true(chunk_next(chunk, chunker));
    return (struct span){chunk->text.data + chunk->overlap, chunk->text.length - chunk->overlap};
}

static void a_heading_is_the_best_border_and_names_what_follows(void **state)
{
    char text[600] = "# Guide\n\n";
    struct chunk chunk;
    (void)state;
    for (int i = 0; i < 13; i++)
        strcat(text, "one sentence. ");
    strcat(text, "\n\n## Install ##\n\n");
    for (int i = 0; i < 15; i++)
        strcat(text, "more words. ");
    struct chunker chunker = chunker_of(span_of_text(text), (struct chunk_options){300, 60});
    struct span first = part(&chunk, &chunker);
    assert_true(span_is(chunk.heading, "Guide"));
    assert_memory_equal(first.data + first.length, "## Install", 10);
    part(&chunk, &chunker);
    assert_int_equal(chunk.overlap, 0);
    assert_true(span_is(chunk.heading, "Guide > Install"));
}

static void an_underlined_heading_counts_and_one_in_code_does_not(void **state)
{
    char text[800] = "Title\n=====\n\n```\n# no heading\n```\n";
    struct chunk chunk;
    (void)state;
    struct chunker chunker = chunker_of(span_of_text(text), plain);
    part(&chunk, &chunker);
    assert_true(span_is(chunk.heading, "Title"));
    for (int i = 0; i < 20; i++)
        strcat(text, "```\n# no heading\n```\n");
    chunker = chunker_of(span_of_text(text), plain);
    while (chunk_next(&chunk, &chunker))
        assert_true(span_is(chunk.heading, "Title"));
}

static void paragraphs_go_before_sentences_and_these_before_words(void **state)
{
    char text[900] = "";
    struct chunk chunk;
    (void)state;
    for (int i = 0; i < 10; i++)
        strcat(text, "Some words! ");
    strcat(text, "end of it\n\nNext");
    for (int i = 0; i < 90; i++)
        strcat(text, " words");
    struct chunker chunker = chunker_of(span_of_text(text), plain);
    struct span first = part(&chunk, &chunker);
    assert_memory_equal(first.data + first.length, "Next", 4);
    struct span second = part(&chunk, &chunker);
    assert_memory_equal(second.data + second.length, "words", 5);
    text[0] = '\0';
    for (int i = 0; i < 30; i++)
        strcat(text, "Is it so? \xe3\x81\xaf\xe3\x81\x84\xe3\x80\x82");
    chunker = chunker_of(span_of_text(text), small);
    first = part(&chunk, &chunker);
    assert_true(first.data[first.length] == 'I' || first.data[first.length] == 0xe3);
    part(&chunk, &chunker);
    assert_true(chunk.overlap > 50);
}

static void fill(uint8_t *text, size_t length, const char *pattern)
{
    size_t period = strlen(pattern);
    for (size_t i = 0; i < length; i++)
        text[i] = (uint8_t)pattern[i % period];
}

static void no_text_is_too_strange(void **state)
{
    static const char *const patterns[] = {
        "x", "\n", " ", "# h\n", "#\n", "```\n", "a.\n\n", "=\n", "-\n", "a\n=\n", "\r\n", ". ",
        "    # code\n", "\xf0\x9f\x98\x80", "\xe3\x80\x82", "\xe3\x80\x80", "\x01\x02", "~~~ ",
        "a\n---------------------------------------------------------------------------------\n"};
    uint8_t *text = malloc(TEXT_MAX);
    (void)state;
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
        size_t length = TEXT_MAX - TEXT_MAX % strlen(patterns[i]);
        fill(text, length, patterns[i]);
        check((struct span){text, length}, usual);
        check((struct span){text, length}, small);
    }
    free(text);
}

static void any_mixture_is_divided_as_it_must_be(void **state)
{
    static const char *const pieces[] = {
        "word", " ", "\n", "\n\n", ". ", "! ", "# ", "\n## Title\n", "\n===\n", "\n---\n", "```\n",
        "\xc3\xa9", "\xe3\x80\x82", "\xf0\x9f\x98\x80", "longerwordlongerwordlongerword", "?\" ",
        "\t", "\r\n", "1. ", "~~~\n"};
    enum { LENGTH_MAX = 8192, ROUNDS = 400 };
    uint8_t text[LENGTH_MAX + 64];
    uint64_t seed = 42;
    (void)state;
    for (int round = 0; round < ROUNDS; round++) {
        size_t length = 0;
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        size_t wanted = (seed >> 33) % LENGTH_MAX;
        while (length < wanted) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            const char *piece = pieces[(seed >> 33) % (sizeof pieces / sizeof *pieces)];
            memcpy(text + length, piece, strlen(piece));
            length += strlen(piece);
        }
        uint32_t bytes = CHUNK_BYTES_MIN + (uint32_t)(seed >> 40) % 1000;
        struct chunk_options options = {bytes, (uint32_t)(seed >> 20) % (bytes / 2 + 1)};
        check((struct span){text, length}, options);
    }
}

/* No caller hands such bytes in; a chunk of none of them would never end. */
static void bytes_that_are_no_utf8_are_divided_too(void **state)
{
    uint8_t text[4096];
    struct chunk chunk;
    size_t taken = 0;
    (void)state;
    memset(text, 0xA7, sizeof text);
    struct chunker chunker = chunker_of(SPAN_OF(text), (struct chunk_options){CHUNK_BYTES_MIN, 0});
    while (chunk_next(&chunk, &chunker)) {
        assert_true(chunk.text.length > 0 && chunk.text.length <= CHUNK_BYTES_MIN);
        taken += chunk.text.length;
    }
    assert_int_equal(taken, sizeof text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_short_text_is_one_chunk),
        cmocka_unit_test(a_heading_is_the_best_border_and_names_what_follows),
        cmocka_unit_test(an_underlined_heading_counts_and_one_in_code_does_not),
        cmocka_unit_test(paragraphs_go_before_sentences_and_these_before_words),
        cmocka_unit_test(no_text_is_too_strange),
        cmocka_unit_test(bytes_that_are_no_utf8_are_divided_too),
        cmocka_unit_test(any_mixture_is_divided_as_it_must_be),
    };
    return cmocka_run_group_tests_name("silo chunk", tests, NULL, NULL);
}
