#include "wire/tar.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct fault fault;

struct met {
    uint32_t members;
    uint8_t name[TAR_NAME_MAX];
    size_t name_length;
    uint64_t bytes, content;
};

static void on_member(void *context, struct span name, uint64_t bytes)
{
    struct met *met = context;
    met->members++;
    met->bytes = bytes;
    met->name_length = name.length;
    memcpy(met->name, name.data, name.length);
}

static void on_content(void *context, struct span bytes)
{
    struct met *met = context;
    met->content += bytes.length;
}

static status follow(struct met *met, struct span bytes, size_t piece)
{
    struct tar_follower follower = {0};
    const struct tar_eyes eyes = {on_member, on_content, met};
    *met = (struct met){0};
    for (size_t at = 0; at < bytes.length; at += piece) {
        size_t length = bytes.length - at < piece ? bytes.length - at : piece;
        status done = tar_follow(&follower, &eyes, (struct span){bytes.data + at, length},
                                 &fault);
        if (done != OK)
            return done;
    }
    return tar_follow_end(&follower, &fault);
}

static struct buffer archive_of(struct span name, struct span content)
{
    struct buffer out = buffer_of(1024 * 1024);
    tar_put_header(&out, name, content.length, INT64_C(1800000000) * 1000000 + 5);
    buffer_put(&out, content);
    tar_put_padding(&out, content.length);
    tar_put_end(&out);
    assert_false(out.failed);
    return out;
}

static void a_header_has_the_bytes_of_the_standard(void **state)
{
    (void)state;
    struct buffer out = archive_of(SPAN("a/b.txt"), SPAN("hello"));
    assert_int_equal(out.length, 4 * TAR_BLOCK_BYTES);
    const char *block = (const char *)out.data;
    assert_string_equal(block, "a/b.txt");
    assert_string_equal(block + 100, "0000600");
    assert_string_equal(block + 124, "00000000005");
    assert_string_equal(block + 136, "15322351000"); /* 1800000000 */
    assert_memory_equal(block + 156, "0", 2);
    assert_memory_equal(block + 257, "ustar\00000", 8);
    assert_memory_equal(block + 512, "hello\0", 6);
    uint32_t sum = 0;
    char digits[8];
    for (size_t i = 0; i < 512; i++)
        sum += i >= 148 && i < 156 ? ' ' : out.data[i];
    snprintf(digits, sizeof digits, "%06o", sum);
    assert_memory_equal(block + 148, digits, 7);
    assert_int_equal(block[155], ' ');
    buffer_free(&out);
}

static void a_file_that_fills_its_blocks_is_not_padded(void **state)
{
    (void)state;
    uint8_t full[2 * TAR_BLOCK_BYTES] = {1};
    struct buffer out = archive_of(SPAN("full"), SPAN_OF(full));
    assert_int_equal(out.length, 5 * TAR_BLOCK_BYTES);
    buffer_free(&out);
    out = archive_of(SPAN("empty"), (struct span){0});
    assert_int_equal(out.length, 3 * TAR_BLOCK_BYTES);
    buffer_free(&out);
}

static void names_of_any_length_and_letter_come_back(void **state)
{
    (void)state;
    uint8_t storage[TAR_NAME_MAX];
    static const size_t lengths[] = {1, 89, 99, 100, 101, 989, 990, 991, 992, 993, TAR_NAME_MAX};
    memset(storage, 'n', sizeof storage);
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        struct met met;
        struct span name = {storage, lengths[i]};
        struct buffer out = archive_of(name, SPAN("text"));
        assert_int_equal(out.data[156], lengths[i] > 100 ? 'x' : '0');
        for (size_t piece = 1; piece < 3000; piece = piece * 7 + 1) {
            assert_int_equal(follow(&met, buffer_span(&out), piece), OK);
            assert_int_equal(met.members, 1);
            assert_int_equal(met.name_length, name.length);
            assert_memory_equal(met.name, name.data, name.length);
            assert_int_equal(met.content, 4);
        }
        buffer_free(&out);
    }
    struct met met;
    struct buffer out = archive_of(SPAN("gr\xC3\xBC\xC3\x9F" "e/\xE2\x82\xAC"), SPAN("text"));
    assert_memory_equal(out.data + 512, "20 path=gr\xC3\xBC\xC3\x9F" "e/\xE2\x82\xAC\n", 20);
    assert_string_equal((const char *)out.data + 1024, "gr____e____");
    assert_int_equal(follow(&met, buffer_span(&out), 512), OK);
    assert_int_equal(met.name_length, 11);
    buffer_free(&out);
}

static void a_size_beyond_ustar_is_told_by_pax(void **state)
{
    (void)state;
    const uint64_t most = (UINT64_C(1) << 33) - 1;
    struct tar_follower follower = {0};
    struct met met = {0};
    const struct tar_eyes eyes = {on_member, on_content, &met};
    struct buffer out = buffer_of(8192);
    tar_put_header(&out, SPAN("large"), most, 0);
    assert_int_equal(out.length, 512);
    assert_string_equal((const char *)out.data + 124, "77777777777");
    buffer_clear(&out);
    tar_put_header(&out, SPAN("large"), most + 1, 0);
    assert_int_equal(out.length, 3 * 512);
    assert_memory_equal(out.data + 512, "19 size=8589934592\n", 19);
    assert_int_equal(tar_follow(&follower, &eyes, buffer_span(&out), &fault), OK);
    assert_int_equal(met.bytes, most + 1);
    buffer_free(&out);
}

static void only_names_that_stay_below_are_safe(void **state)
{
    (void)state;
    static const char *const good[] = {"a", "a/b", "..a", "a..", "...", "%2E%2E", "-rf", "~1",
                                       "gr\xC3\xBC"};
    static const char *const bad[] = {"", "/", "/a", "a/", "a//b", ".", "..", "./a", "../a", "a/.",
                                      "a/..", "a/../b", "a\nb", "a\x7F", "a\\b", "\xFF",
                                      "\xC2\x85", "a\x1B[2J"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_true(tar_name_is_safe(span_of_text(good[i])));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(tar_name_is_safe(span_of_text(bad[i])));
    assert_false(tar_name_is_safe(SPAN("a\0b")));
}

static void an_archive_that_was_cut_is_not_whole(void **state)
{
    (void)state;
    struct met met;
    struct buffer out = archive_of(SPAN("gr\xC3\xBC\xC3\x9F" "e"), SPAN("hello"));
    for (size_t length = 0; length < out.length; length++)
        assert_int_equal(follow(&met, (struct span){out.data, length}, 4096), TRUNCATED);
    buffer_put_u8(&out, 0);
    assert_int_equal(follow(&met, buffer_span(&out), 4096), CORRUPT);
    buffer_free(&out);
}

static void no_changed_byte_of_a_header_goes_unseen(void **state)
{
    (void)state;
    struct met met;
    struct buffer out = archive_of(SPAN("name"), SPAN("hello"));
    for (size_t at = 0; at < 512; at++)
        for (uint8_t bit = 1; bit; bit = (uint8_t)(bit << 1)) {
            out.data[at] ^= bit;
            assert_int_not_equal(follow(&met, buffer_span(&out), 512), OK);
            out.data[at] ^= bit;
        }
    assert_int_equal(follow(&met, buffer_span(&out), 512), OK);
    buffer_free(&out);
}

static void hostile_pax_headers_are_refused(void **state)
{
    (void)state;
    static const char *const records[] = {
        "14 path=../xy\n", "11 path=/x\n", "8 path=x\n", "99 path=x\n", "0 path=x\n",
        "10 path=x\t", "path=x    \n", "13 linkpath=x\n", "10 size=-1\n",
        "28 size=99999999999999999999\n",
        "9 pathxx\n", " \n"};
    for (size_t i = 0; i < sizeof records / sizeof *records; i++) {
        struct met met;
        struct buffer out = archive_of(SPAN("\xC3\xBC" "bername"), SPAN("hello"));
        struct span record = span_of_text(records[i]);
        memset(out.data + 512, 0, 512);
        memcpy(out.data + 512, record.data, record.length);
        snprintf((char *)out.data + 124, 12, "%011zo", record.length);
        uint32_t sum = 0;
        for (size_t at = 0; at < 512; at++)
            sum += at >= 148 && at < 156 ? ' ' : out.data[at];
        snprintf((char *)out.data + 148, 7, "%06o", sum);
        assert_int_equal(follow(&met, buffer_span(&out), 4096), CORRUPT);
        assert_int_equal(met.members, 0);
        buffer_free(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_header_has_the_bytes_of_the_standard),
        cmocka_unit_test(a_file_that_fills_its_blocks_is_not_padded),
        cmocka_unit_test(names_of_any_length_and_letter_come_back),
        cmocka_unit_test(a_size_beyond_ustar_is_told_by_pax),
        cmocka_unit_test(only_names_that_stay_below_are_safe),
        cmocka_unit_test(an_archive_that_was_cut_is_not_whole),
        cmocka_unit_test(no_changed_byte_of_a_header_goes_unseen),
        cmocka_unit_test(hostile_pax_headers_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
