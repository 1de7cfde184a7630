#include "store/export.h"

#include "base/buffer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { ENTRIES = 9, FILE_MAX = MIB(1) };

static const char origin[] = "bulkhead/silo/0123456789abcdef0123456789abcdef";
static struct signer *signer, *stranger;
static uint8_t public_key[SIGN_PUBLIC_BYTES], strange_key[SIGN_PUBLIC_BYTES];
static struct fault fault;

/* One line an element, as the verifier reads them. */
struct file {
    uint32_t count;
    struct buffer lines[ENTRIES + 4];
};

static void put_note(struct buffer *out, const char *of, const struct merkle_edge *edge,
                     struct signer *by)
{
    struct checkpoint checkpoint = {.size = edge->size, .root = merkle_root(edge)};
    assert_true(span_to_text(checkpoint.origin, sizeof checkpoint.origin, span_of_text(of)));
    assert_int_equal(checkpoint_sign(out, &checkpoint, PLATFORM_KEY_NAME, by, &fault), OK);
}

/* The first `entries` of a log, with the notes at each size on the way. */
static struct file make_file(uint32_t entries, struct buffer notes[ENTRIES + 1])
{
    struct file file = {0};
    struct merkle_edge edge = {0};
    for (uint32_t i = 0; i < ENTRIES + 4; i++)
        file.lines[i] = buffer_of(KIB(64));
    export_put_header(&file.lines[file.count++], origin, public_key);
    for (uint32_t i = 0; i <= entries; i++) {
        uint8_t salt[AUDIT_SALT_BYTES] = {(uint8_t)i, 7};
        char entry[96];
        notes[i] = buffer_of(NOTE_MAX);
        put_note(&notes[i], origin, &edge, signer);
        if (i == entries)
            break;
        snprintf(entry, sizeof entry, "{\"index\":%u,\"subject\":\"u%u\",\"decision\":\"allow\"}",
                 i, i % 3);
        export_put_entry(&file.lines[file.count++], SPAN_OF(salt), span_of_text(entry));
        const struct span parts[] = {SPAN_OF(salt), span_of_text(entry)};
        struct hash_value leaf = merkle_leaf_parts(parts, 2);
        assert_int_equal(merkle_append(&edge, &leaf, NULL, NULL, &fault), OK);
    }
    export_put_checkpoint(&file.lines[file.count++], buffer_span(&notes[entries]));
    return file;
}

static void free_file(struct file *file, uint32_t entries, struct buffer notes[ENTRIES + 1])
{
    for (uint32_t i = 0; i < ENTRIES + 4; i++)
        buffer_free(&file->lines[i]);
    for (uint32_t i = 0; i <= entries; i++)
        buffer_free(&notes[i]);
}

static status verify_bytes(struct span bytes, size_t piece, const struct export_demands *demands,
                           struct export_summary *ret)
{
    struct export_verifier *verifier;
    status done = export_verifier_create(&verifier, demands, &fault);
    if (done != OK)
        return done;
    for (size_t at = 0; done == OK && at < bytes.length; at += piece) {
        size_t length = bytes.length - at < piece ? bytes.length - at : piece;
        done = export_verifier_feed(verifier, (struct span){bytes.data + at, length}, &fault);
    }
    if (done == OK)
        done = export_verifier_end(ret, verifier, &fault);
    export_verifier_free(verifier);
    return done;
}

static struct buffer joined(const struct file *file)
{
    struct buffer all = buffer_of(FILE_MAX);
    for (uint32_t i = 0; i < file->count; i++)
        buffer_put(&all, buffer_span(&file->lines[i]));
    assert_false(all.failed);
    return all;
}

static status verify(const struct file *file, const struct export_demands *demands)
{
    struct export_summary summary;
    struct buffer all = joined(file);
    status done = verify_bytes(buffer_span(&all), 4096, demands, &summary);
    buffer_free(&all);
    return done;
}

static const struct export_demands nothing_demanded;

static int start(void **state)
{
    (void)state;
    static const uint8_t seeds[2][SIGN_SEED_BYTES] = {{1}, {2}};
    if (crypt_start(&fault) != OK || signer_create(&signer, seeds[0], &fault) != OK ||
        signer_create(&stranger, seeds[1], &fault) != OK)
        return -1;
    signer_public(public_key, signer);
    signer_public(strange_key, stranger);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    signer_free(signer);
    signer_free(stranger);
    return 0;
}

static void an_export_verifies_in_pieces_of_any_size(void **state)
{
    (void)state;
    for (uint32_t entries = 0; entries <= ENTRIES; entries++) {
        struct buffer notes[ENTRIES + 1];
        struct file file = make_file(entries, notes);
        struct buffer all = joined(&file);
        for (size_t piece = 1; piece <= all.length; piece = piece < 80 ? piece + 1 : piece * 2) {
            struct export_summary summary;
            assert_int_equal(verify_bytes(buffer_span(&all), piece, &nothing_demanded, &summary),
                             OK);
            assert_int_equal(summary.checkpoint.size, entries);
            assert_string_equal(summary.checkpoint.origin, origin);
            assert_memory_equal(summary.key, public_key, sizeof public_key);
            assert_false(summary.has_earlier);
        }
        buffer_free(&all);
        free_file(&file, entries, notes);
    }
}

static void no_byte_can_be_changed(void **state)
{
    (void)state;
    struct buffer notes[ENTRIES + 1];
    struct file file = make_file(3, notes);
    struct buffer all = joined(&file);
    struct export_summary summary;
    for (size_t i = 0; i < all.length; i++) {
        for (int bit = 0; bit < 8; bit++) {
            all.data[i] ^= (uint8_t)(1 << bit);
            if (verify_bytes(buffer_span(&all), all.length, &nothing_demanded, &summary) == OK)
                fail_msg("bit %d of byte %zu does not matter: %.*s", bit, i,
                         SPAN_ARG(buffer_span(&all)));
            all.data[i] ^= (uint8_t)(1 << bit);
        }
    }
    assert_int_equal(verify_bytes(buffer_span(&all), 7, &nothing_demanded, &summary), OK);
    buffer_free(&all);
    free_file(&file, 3, notes);
}

static void no_end_can_be_cut_off(void **state)
{
    (void)state;
    struct buffer notes[ENTRIES + 1];
    struct file file = make_file(3, notes);
    struct buffer all = joined(&file);
    struct export_summary summary;
    for (size_t length = 0; length < all.length; length++)
        assert_int_equal(verify_bytes((struct span){all.data, length}, 64, &nothing_demanded,
                                      &summary), CORRUPT);
    buffer_put_text(&all, "x");
    assert_int_equal(verify_bytes(buffer_span(&all), 64, &nothing_demanded, &summary), CORRUPT);
    buffer_put_text(&all, "\n");
    assert_int_equal(verify_bytes(buffer_span(&all), 64, &nothing_demanded, &summary), CORRUPT);
    buffer_free(&all);
    free_file(&file, 3, notes);
}

static void swap(struct file *file, uint32_t left, uint32_t right)
{
    struct buffer line = file->lines[left];
    file->lines[left] = file->lines[right];
    file->lines[right] = line;
}

static void no_two_lines_can_change_places(void **state)
{
    (void)state;
    struct buffer notes[ENTRIES + 1];
    struct file file = make_file(ENTRIES, notes);
    for (uint32_t left = 0; left < file.count; left++) {
        for (uint32_t right = left + 1; right < file.count; right++) {
            swap(&file, left, right);
            assert_int_equal(verify(&file, &nothing_demanded), CORRUPT);
            swap(&file, left, right);
        }
    }
    assert_int_equal(verify(&file, &nothing_demanded), OK);
    free_file(&file, ENTRIES, notes);
}

static void no_line_can_be_left_out_or_doubled_and_the_fault_names_it(void **state)
{
    (void)state;
    struct buffer notes[ENTRIES + 1];
    struct file file = make_file(ENTRIES, notes);
    for (uint32_t at = 0; at < file.count; at++) {
        struct file changed = {0};
        char line[32];
        for (uint32_t i = 0; i < file.count; i++)
            if (i != at)
                changed.lines[changed.count++] = file.lines[i];
        assert_int_equal(verify(&changed, &nothing_demanded), CORRUPT);
        if (at > 0 && at < ENTRIES) {
            snprintf(line, sizeof line, "line %u:", at + 1);
            assert_non_null(strstr(fault.detail, line));
        }
        changed.count = 0;
        for (uint32_t i = 0; i < file.count; i++) {
            changed.lines[changed.count++] = file.lines[i];
            if (i == at)
                changed.lines[changed.count++] = file.lines[i];
        }
        assert_int_equal(verify(&changed, &nothing_demanded), CORRUPT);
        snprintf(line, sizeof line, "line %u:", at + 2);
        assert_non_null(strstr(fault.detail, line));
    }
    free_file(&file, ENTRIES, notes);
}

static void a_log_rewritten_under_another_key_is_told_by_the_key(void **state)
{
    (void)state;
    struct buffer notes[ENTRIES + 1];
    const struct export_demands ours = {.key = public_key}, strange = {.key = strange_key};
    struct file file = make_file(4, notes);
    assert_int_equal(verify(&file, &ours), OK);
    assert_int_equal(verify(&file, &strange), CORRUPT);
    assert_non_null(strstr(fault.detail, "line 1:"));
    buffer_clear(&file.lines[0]);
    export_put_header(&file.lines[0], origin, strange_key); /* the note is still ours */
    assert_int_equal(verify(&file, &nothing_demanded), CORRUPT);
    assert_int_equal(verify(&file, &strange), CORRUPT);
    free_file(&file, 4, notes);
}

static void a_checkpoint_of_another_log_does_not_serve(void **state)
{
    (void)state;
    struct buffer notes[ENTRIES + 1];
    struct file file = make_file(4, notes);
    buffer_clear(&file.lines[0]);
    export_put_header(&file.lines[0], "bulkhead/silo/ffffffffffffffffffffffffffffffff", public_key);
    assert_int_equal(verify(&file, &nothing_demanded), CORRUPT);
    free_file(&file, 4, notes);
}

static void every_earlier_checkpoint_holds(void **state)
{
    (void)state;
    struct buffer notes[ENTRIES + 1];
    struct file file = make_file(ENTRIES, notes);
    for (uint32_t size = 0; size <= ENTRIES; size++) {
        const struct export_demands demands = {.checkpoint = buffer_span(&notes[size])};
        struct export_summary summary;
        struct buffer all = joined(&file);
        assert_int_equal(verify_bytes(buffer_span(&all), 50, &demands, &summary), OK);
        assert_true(summary.has_earlier);
        assert_int_equal(summary.earlier_size, size);
        buffer_free(&all);
    }
    free_file(&file, ENTRIES, notes);
}

static void a_cut_tail_with_an_older_checkpoint_is_found_by_one_kept_elsewhere(void **state)
{
    (void)state;
    struct buffer notes[ENTRIES + 1], cut_notes[ENTRIES + 1];
    struct file file = make_file(ENTRIES, notes), cut = make_file(ENTRIES - 2, cut_notes);
    const struct export_demands demands = {.checkpoint = buffer_span(&notes[ENTRIES])};
    assert_int_equal(verify(&cut, &nothing_demanded), OK); /* consistent in itself */
    assert_int_equal(verify(&cut, &demands), CORRUPT);
    assert_non_null(strstr(fault.detail, "cut off"));
    free_file(&cut, ENTRIES - 2, cut_notes);
    free_file(&file, ENTRIES, notes);
}

static void a_checkpoint_kept_elsewhere_of_another_history_is_told_at_its_entry(void **state)
{
    (void)state;
    struct buffer notes[ENTRIES + 1], other = buffer_of(NOTE_MAX);
    struct file file = make_file(ENTRIES, notes);
    struct merkle_edge edge = {0};
    for (int i = 0; i < 5; i++) {
        struct hash_value leaf = merkle_leaf(SPAN("other"));
        assert_int_equal(merkle_append(&edge, &leaf, NULL, NULL, &fault), OK);
    }
    put_note(&other, origin, &edge, signer);
    struct export_demands demands = {.checkpoint = buffer_span(&other)};
    assert_int_equal(verify(&file, &demands), CORRUPT);
    assert_non_null(strstr(fault.detail, "line 6:"));
    buffer_clear(&other);
    put_note(&other, "bulkhead/ledger", &edge, signer);
    demands.checkpoint = buffer_span(&other);
    assert_int_equal(verify(&file, &demands), CORRUPT);
    buffer_clear(&other);
    put_note(&other, origin, &edge, stranger);
    demands.checkpoint = buffer_span(&other);
    assert_int_equal(verify(&file, &demands), CORRUPT);
    demands.checkpoint = SPAN("no note");
    assert_int_equal(verify(&file, &demands), CORRUPT);
    buffer_free(&other);
    free_file(&file, ENTRIES, notes);
}

static void another_spelling_of_the_same_is_refused(void **state)
{
    (void)state;
    struct buffer notes[ENTRIES + 1];
    for (uint32_t at = 0; at < 4; at++) {
        struct file file = make_file(2, notes);
        struct buffer spaced = buffer_of(KIB(4));
        struct span line = buffer_span(&file.lines[at]);
        buffer_put_text(&spaced, at % 2 == 0 ? "{ " : " {");
        buffer_put(&spaced, (struct span){line.data + 1, line.length - 1});
        buffer_free(&file.lines[at]);
        file.lines[at] = spaced;
        assert_int_equal(verify(&file, &nothing_demanded), CORRUPT);
        assert_non_null(strstr(fault.detail, "not written as an export is"));
        free_file(&file, 2, notes);
    }
}

static void a_line_without_an_end_stays_within_its_bound(void **state)
{
    (void)state;
    struct export_verifier *verifier;
    uint8_t piece[KIB(4)];
    status done = OK;
    memset(piece, ' ', sizeof piece);
    assert_int_equal(export_verifier_create(&verifier, &nothing_demanded, &fault), OK);
    for (int i = 0; done == OK && i < 1000; i++)
        done = export_verifier_feed(verifier, SPAN_OF(piece), &fault);
    assert_int_equal(done, CORRUPT);
    assert_non_null(strstr(fault.detail, "line 1:"));
    export_verifier_free(verifier);
}

static void strange_lines_are_refused(void **state)
{
    (void)state;
    static const char *const lines[] = {
        "\n", "{}\n", "[]\n", "null\n", "{\"salt\":\"\",\"entry\":{\"index\":0}}\n",
        "{\"salt\":\"AAAAAAAAAAAAAAAAAAAAAA==\"}\n",
        "{\"salt\":\"AAAAAAAAAAAAAAAAAAAAAA==\",\"entry\":7}\n",
        "{\"salt\":\"AAAAAAAAAAAAAAAAAAAAAA==\",\"entry\":{\"index\":0},\"more\":1}\n",
        "{\"salt\":\"AAAAAAAAAAAAAAAAAAAAAA==\",\"entry\":{\"index\":\"0\"}}\n",
        "{\"salt\":\"AAAAAAAAAAAAAAAAAAAAAA==\",\"entry\":{\"index\":-1}}\n",
        "{\"checkpoint\":7}\n", "{\"checkpoint\":\"x\"}\n"};
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        struct buffer notes[ENTRIES + 1];
        struct file file = make_file(0, notes);
        buffer_clear(&file.lines[1]);
        buffer_put_text(&file.lines[1], lines[i]);
        assert_int_equal(verify(&file, &nothing_demanded), CORRUPT);
        assert_non_null(strstr(fault.detail, "line 2:"));
        free_file(&file, 0, notes);
    }
}

/* Every third note of the way, as an auditor keeps them. */
static struct buffer kept_by(const struct buffer notes[ENTRIES + 1], uint32_t upto)
{
    struct buffer file = buffer_of(MIB(1));
    witness_put_header(&file, origin, public_key);
    for (uint32_t i = 0; i <= upto; i += 3)
        witness_put_checkpoint(&file, 1795299022123456 + i, buffer_span(&notes[i]));
    assert_false(file.failed);
    return file;
}

static status verify_with(const struct file *file, const struct buffer *kept)
{
    struct witness *witness;
    status done = witness_read(&witness, buffer_span(kept), &fault);
    if (done != OK)
        return done;
    const struct export_demands demands = {.witness = witness};
    done = verify(file, &demands);
    witness_free(witness);
    return done;
}

static void an_export_continues_every_checkpoint_of_its_witness(void **state)
{
    (void)state;
    struct buffer notes[ENTRIES + 1];
    struct file file = make_file(ENTRIES, notes);
    struct buffer kept = kept_by(notes, ENTRIES);
    assert_int_equal(verify_with(&file, &kept), OK);
    buffer_free(&kept);
    kept = kept_by(notes, 0);
    assert_int_equal(verify_with(&file, &kept), OK);
    buffer_free(&kept);
    free_file(&file, ENTRIES, notes);
}

static void a_witness_finds_a_cut_tail_and_a_rewritten_history(void **state)
{
    (void)state;
    struct buffer notes[ENTRIES + 1], fewer[ENTRIES + 1], others[ENTRIES + 1];
    struct file whole = make_file(ENTRIES, notes);
    struct file cut = make_file(ENTRIES - 2, fewer);
    struct buffer kept = kept_by(notes, ENTRIES);
    assert_int_equal(verify(&cut, &nothing_demanded), OK);
    assert_int_equal(verify_with(&cut, &kept), CORRUPT);
    assert_non_null(strstr(fault.detail, "line 5"));
    buffer_free(&kept);
    /* the platform's own key signs another history: its notes are as good, the file is whole */
    struct merkle_edge edge = {0};
    struct file rewritten = make_file(ENTRIES, others);
    kept = buffer_of(MIB(1));
    witness_put_header(&kept, origin, public_key);
    for (uint32_t i = 0; i < 3; i++) {
        struct hash_value leaf = merkle_leaf(SPAN("another"));
        assert_int_equal(merkle_append(&edge, &leaf, NULL, NULL, &fault), OK);
    }
    struct buffer other = buffer_of(NOTE_MAX);
    put_note(&other, origin, &edge, signer);
    witness_put_checkpoint(&kept, 1, buffer_span(&other));
    assert_int_equal(verify_with(&rewritten, &kept), CORRUPT);
    assert_non_null(strstr(fault.detail, "first 3 entries"));
    buffer_free(&kept);
    buffer_free(&other);
    free_file(&whole, ENTRIES, notes);
    free_file(&cut, ENTRIES - 2, fewer);
    free_file(&rewritten, ENTRIES, others);
}

static void a_witness_of_another_log_or_key_is_refused(void **state)
{
    (void)state;
    struct buffer notes[ENTRIES + 1];
    struct file file = make_file(ENTRIES, notes);
    struct buffer kept = buffer_of(KIB(64));
    witness_put_header(&kept, "bulkhead/silo/0123456789abcdef0123456789abcdef+1", public_key);
    assert_int_equal(verify_with(&file, &kept), CORRUPT);
    assert_non_null(strstr(fault.detail, "another log"));
    buffer_clear(&kept);
    witness_put_header(&kept, origin, strange_key);
    assert_int_equal(verify_with(&file, &kept), CORRUPT);
    assert_non_null(strstr(fault.detail, "another key"));
    buffer_free(&kept);
    free_file(&file, ENTRIES, notes);
}

static void a_bad_line_of_a_witness_file_is_named(void **state)
{
    (void)state;
    struct buffer notes[ENTRIES + 1];
    struct file file = make_file(ENTRIES, notes);
    struct buffer good = kept_by(notes, ENTRIES);
    struct witness *witness;
    for (size_t at = 0; at < good.length; at++) { /* any byte changed, any cut */
        uint32_t line = 1;
        size_t begin = 0;
        for (size_t i = 0; i < at; i++)
            if (good.data[i] == '\n') {
                line++;
                begin = i + 1;
            }
        if (line > 1 && at >= begin + 9 && at < begin + 9 + 26)
            continue; /* the time is the auditor's own note, which nobody signed */
        char named[16];
        snprintf(named, sizeof named, "line %u", line);
        good.data[at] ^= 1;
        assert_int_not_equal(witness_read(&witness, buffer_span(&good), &fault), OK);
        if (good.data[at] != ('\n' ^ 1))
            assert_non_null(strstr(fault.detail, line == 1 ? "line" : named));
        good.data[at] ^= 1;
        if (at == 0 || good.data[at - 1] != '\n')
            assert_int_not_equal(witness_read(&witness, (struct span){good.data, at}, &fault), OK);
    }
    assert_int_equal(witness_read(&witness, buffer_span(&good), &fault), OK);
    assert_int_equal(witness->count, 4);
    bool new;
    assert_int_equal(witness_check(&new, witness, buffer_span(&notes[ENTRIES]), &fault), OK);
    assert_false(new);
    assert_int_equal(witness_check(&new, witness, buffer_span(&notes[2]), &fault), CORRUPT);
    assert_non_null(strstr(fault.detail, "shrunk"));
    witness_free(witness);
    witness_put_checkpoint(&good, 5, buffer_span(&notes[ENTRIES])); /* once more */
    assert_int_equal(witness_read(&witness, buffer_span(&good), &fault), CORRUPT);
    buffer_free(&good);
    free_file(&file, ENTRIES, notes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_export_verifies_in_pieces_of_any_size),
        cmocka_unit_test(no_byte_can_be_changed),
        cmocka_unit_test(no_end_can_be_cut_off),
        cmocka_unit_test(no_two_lines_can_change_places),
        cmocka_unit_test(no_line_can_be_left_out_or_doubled_and_the_fault_names_it),
        cmocka_unit_test(a_log_rewritten_under_another_key_is_told_by_the_key),
        cmocka_unit_test(a_checkpoint_of_another_log_does_not_serve),
        cmocka_unit_test(every_earlier_checkpoint_holds),
        cmocka_unit_test(a_cut_tail_with_an_older_checkpoint_is_found_by_one_kept_elsewhere),
        cmocka_unit_test(a_checkpoint_kept_elsewhere_of_another_history_is_told_at_its_entry),
        cmocka_unit_test(another_spelling_of_the_same_is_refused),
        cmocka_unit_test(a_line_without_an_end_stays_within_its_bound),
        cmocka_unit_test(strange_lines_are_refused),
        cmocka_unit_test(an_export_continues_every_checkpoint_of_its_witness),
        cmocka_unit_test(a_witness_finds_a_cut_tail_and_a_rewritten_history),
        cmocka_unit_test(a_witness_of_another_log_or_key_is_refused),
        cmocka_unit_test(a_bad_line_of_a_witness_file_is_named),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
