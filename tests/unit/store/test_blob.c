/* Blobs on a simulated disk: what is read is what was written, whatever is done to the files. */
#include "store/blob.h"

#include "support.h"

#include <errno.h>
#include <stdlib.h>

enum { CHUNK = OBJECT_CHUNK_BYTES, SEALED = CHUNK + 16 };

struct shelf {
    struct sim *sim;
    struct blobs *blobs;
    struct fault fault;
};

static int set_up(void **state)
{
    struct shelf *shelf = calloc(1, sizeof *shelf);
    shelf->sim = sim_create(1);
    *state = shelf;
    return blobs_open(&shelf->blobs, -1, silo_id, &shelf->sim->io, &shelf->fault) == OK ? 0 : -1;
}

static int tear_down(void **state)
{
    struct shelf *shelf = *state;
    blobs_close(shelf->blobs);
    sim_free(shelf->sim);
    free(shelf);
    return 0;
}

static uint8_t *text_of(size_t length, uint8_t seed)
{
    uint8_t *text = malloc(length + 1);
    for (size_t i = 0; i < length; i++)
        text[i] = (uint8_t)(i * 7 + i / 251 + seed);
    return text;
}

static struct span keyless(const uint8_t *text, size_t length)
{
    return (struct span){text, length};
}

/* At once, whatever its size. */
static status removed(struct shelf *shelf, const struct blob_id *id)
{
    uint64_t budget = UINT64_MAX;
    bool gone = false;
    status code = blob_remove(&gone, &budget, shelf->blobs, id, &shelf->fault);
    assert_true(gone || code != OK);
    return code;
}

static status write_blob(struct blob *ret, struct shelf *shelf, struct span text, size_t piece)
{
    struct blob_writer *writer;
    status code = blob_create(&writer, shelf->blobs, &shelf->fault);
    if (code != OK)
        return code;
    for (size_t at = 0; at < text.length && code == OK; at += piece) {
        size_t count = text.length - at < piece ? text.length - at : piece;
        code = blob_put(writer, (struct span){text.data + at, count}, &shelf->fault);
    }
    if (code == OK)
        code = blob_end(writer, &shelf->fault);
    if (code == OK)
        blob_told(ret, writer);
    struct blob_id id = blob_name(writer);
    blob_drop(writer);
    if (code != OK && !shelf->sim->off)
        assert_int_equal(removed(shelf, &id), OK);
    return code;
}

static status read_blob(struct buffer *out, struct shelf *shelf, const struct blob *blob,
                        uint64_t from, uint64_t max)
{
    struct blob_reader *reader;
    status code = blob_open(&reader, shelf->blobs, blob, &shelf->fault);
    if (code != OK)
        return code;
    code = blob_read(out, reader, from, max, &shelf->fault);
    blob_close(reader);
    return code;
}

static void name_text(char text[2 * BLOB_ID_BYTES + 1], const struct blob *blob)
{
    for (size_t i = 0; i < BLOB_ID_BYTES; i++)
        snprintf(text + 2 * i, 3, "%02x", blob->id.bytes[i]);
}

static struct sim_bytes *file_of(struct shelf *shelf, const struct blob *blob)
{
    char name[2 * BLOB_ID_BYTES + 1];
    name_text(name, blob);
    return sim_file(shelf->sim, name);
}

static struct blob stored(struct shelf *shelf, size_t length, uint8_t seed)
{
    struct blob blob;
    uint8_t *text = text_of(length, seed);
    struct fault fault = {""};
    assert_ok(write_blob(&blob, shelf, keyless(text, length), 56 * 1024));
    free(text);
    return blob;
}

/* OK must mean the very bytes. */
static status read_all(struct shelf *shelf, const struct blob *blob, size_t length, uint8_t seed)
{
    struct buffer out = buffer_of(MIB(2));
    uint8_t *text = text_of(length, seed);
    status code = read_blob(&out, shelf, blob, 0, UINT64_MAX);
    if (code == OK) {
        assert_int_equal(out.length, length);
        assert_memory_equal(out.data != NULL ? out.data : text, text, length);
    }
    free(text);
    buffer_free(&out);
    return code;
}

static const size_t lengths[] = {0, 1, 15, 16, 17, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK,
                                 2 * CHUNK + 1, 4 * CHUNK, 4 * CHUNK + 1, 5 * CHUNK + 77,
                                 8 * CHUNK};
enum { LENGTHS = sizeof lengths / sizeof *lengths };

static void what_is_read_is_what_was_written(void **state)
{
    struct shelf *shelf = *state;
    struct fault fault = {""};
    static const size_t pieces[] = {1000, 56 * 1024, CHUNK, 3 * CHUNK + 1};
    for (size_t i = 0; i < LENGTHS; i++) {
        for (size_t j = 0; j < sizeof pieces / sizeof *pieces; j++) {
            struct blob blob;
            uint8_t *text = text_of(lengths[i], 3);
            assert_ok(write_blob(&blob, shelf, keyless(text, lengths[i]), pieces[j]));
            free(text);
            assert_int_equal(blob.bytes, lengths[i]);
            assert_int_equal(file_of(shelf, &blob)->length, blob_file_bytes(lengths[i]));
            assert_ok(read_all(shelf, &blob, lengths[i], 3));
            assert_ok(removed(shelf, &blob.id));
            assert_null(file_of(shelf, &blob));
        }
    }
}

static void a_part_is_read_by_its_chunks_alone(void **state)
{
    struct shelf *shelf = *state;
    struct fault fault = {""};
    enum { LENGTH = 5 * CHUNK + 77 };
    struct blob blob = stored(shelf, LENGTH, 9);
    uint8_t *text = text_of(LENGTH, 9);
    file_of(shelf, &blob)->data[4 * SEALED + 5] ^= 1; /* chunk 4 is bad */
    for (int round = 0; round < 500; round++) {
        struct buffer out = buffer_of(MIB(1));
        uint64_t from = sim_random(shelf->sim, LENGTH + 1);
        uint64_t max = sim_random(shelf->sim, round % 2 ? 200 : 2 * CHUNK);
        uint64_t to = from + max < LENGTH ? from + max : LENGTH;
        bool bad = to > from && from < 5 * CHUNK && to > 4 * CHUNK;
        status code = read_blob(&out, shelf, &blob, from, max);
        assert_int_equal(code, bad ? CORRUPT : OK);
        if (code == OK) {
            assert_int_equal(out.length, to - from);
            assert_memory_equal(out.length ? out.data : text, text + from, to - from);
        }
        buffer_free(&out);
    }
    struct buffer out = buffer_of(64);
    assert_int_equal(read_blob(&out, shelf, &blob, LENGTH + 1, 1), BAD_FIELD);
    assert_ok(read_blob(&out, shelf, &blob, LENGTH, 1));
    assert_int_equal(out.length, 0);
    buffer_free(&out);
    free(text);
}

static void pieces_that_do_not_match_chunks_are_read_on(void **state)
{
    struct shelf *shelf = *state;
    struct fault fault = {""};
    enum { LENGTH = 3 * CHUNK + 5, PIECE = 56 * 1024 };
    struct blob blob = stored(shelf, LENGTH, 1);
    struct blob_reader *reader;
    struct buffer out = buffer_of(MIB(1));
    uint8_t *text = text_of(LENGTH, 1);
    assert_ok(blob_open(&reader, shelf->blobs, &blob, &fault));
    for (uint64_t at = 0; at < LENGTH; at += PIECE)
        assert_ok(blob_read(&out, reader, at, PIECE, &fault));
    assert_int_equal(out.length, LENGTH);
    assert_memory_equal(out.data, text, LENGTH);
    blob_close(reader);
    buffer_free(&out);
    free(text);
}

static void every_flipped_bit_is_found(void **state)
{
    struct shelf *shelf = *state;
    static const size_t small[] = {0, 1, 40};
    for (size_t i = 0; i < 3; i++) {
        struct blob blob = stored(shelf, small[i], 2);
        struct sim_bytes *file = file_of(shelf, &blob);
        for (size_t bit = 0; bit < 8 * file->length; bit++) {
            file->data[bit / 8] ^= (uint8_t)(1 << bit % 8);
            assert_int_equal(read_all(shelf, &blob, small[i], 2), CORRUPT);
            file->data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        }
        assert_int_equal(read_all(shelf, &blob, small[i], 2), OK);
    }
    /* in a long one: about every border, and here and there */
    enum { LENGTH = 2 * CHUNK + 100 };
    struct blob blob = stored(shelf, LENGTH, 2);
    struct sim_bytes *file = file_of(shelf, &blob);
    for (size_t at = 0; at < file->length; at++) {
        size_t within = at % SEALED;
        if (within > 2 && within < SEALED - 18 && at < file->length - 18 && at % 4099 != 0)
            continue;
        uint8_t bit = (uint8_t)(1 << sim_random(shelf->sim, 8));
        file->data[at] ^= bit;
        assert_int_equal(read_all(shelf, &blob, LENGTH, 2), CORRUPT);
        file->data[at] ^= bit;
    }
    assert_int_equal(read_all(shelf, &blob, LENGTH, 2), OK);
}

static void a_file_that_was_cut_or_lengthened_is_refused(void **state)
{
    struct shelf *shelf = *state;
    for (size_t i = 0; i < LENGTHS; i++) {
        struct blob blob = stored(shelf, lengths[i], 4);
        char name[2 * BLOB_ID_BYTES + 1];
        name_text(name, &blob);
        struct sim_bytes *file = sim_file(shelf->sim, name);
        size_t whole = file->length;
        uint8_t *bytes = malloc(whole);
        memcpy(bytes, file->data, whole);
        for (size_t cut = 0; cut < whole; cut += SEALED) {
            sim_resize(shelf->sim, name, cut);
            assert_int_equal(read_all(shelf, &blob, lengths[i], 4), CORRUPT);
            /* also by a row that believes it: the last chunk does not say that it is the last */
            struct blob shorter = blob;
            shorter.bytes = cut / SEALED * CHUNK;
            if (cut > 0 && shorter.bytes < blob.bytes)
                assert_int_equal(read_all(shelf, &shorter, shorter.bytes, 4), CORRUPT);
            sim_set(shelf->sim, name, keyless(bytes, whole));
        }
        sim_resize(shelf->sim, name, whole - 1);
        assert_int_equal(read_all(shelf, &blob, lengths[i], 4), CORRUPT);
        sim_resize(shelf->sim, name, whole + 1);
        assert_int_equal(read_all(shelf, &blob, lengths[i], 4), CORRUPT);
        sim_set(shelf->sim, name, keyless(bytes, whole));
        assert_int_equal(read_all(shelf, &blob, lengths[i], 4), OK);
        free(bytes);
        sim_remove(shelf->sim, name);
        assert_int_equal(read_all(shelf, &blob, lengths[i], 4), CORRUPT);
    }
}

static void chunks_cannot_be_moved_doubled_or_exchanged(void **state)
{
    struct shelf *shelf = *state;
    enum { LENGTH = 3 * CHUNK };
    struct blob blob = stored(shelf, LENGTH, 5), other = stored(shelf, LENGTH, 6);
    struct sim_bytes *file = file_of(shelf, &blob), *foreign = file_of(shelf, &other);
    uint8_t *right = malloc(3 * SEALED);
    memcpy(right, file->data, 3 * SEALED);
    for (size_t to = 0; to < 3; to++) {
        for (size_t from = 0; from < 3; from++) {
            memcpy(file->data + to * SEALED, right + from * SEALED, SEALED);
            assert_int_equal(read_all(shelf, &blob, LENGTH, 5), to == from ? OK : CORRUPT);
            memcpy(file->data + to * SEALED, foreign->data + from * SEALED, SEALED);
            assert_int_equal(read_all(shelf, &blob, LENGTH, 5), CORRUPT);
            memcpy(file->data, right, 3 * SEALED);
        }
    }
    memcpy(file->data, foreign->data, 3 * SEALED); /* the other blob as a whole */
    assert_int_equal(read_all(shelf, &blob, LENGTH, 5), CORRUPT);
    memcpy(file->data, right, 3 * SEALED);
    struct blob forged = blob;
    memcpy(forged.key, other.key, KEY_BYTES);
    assert_int_equal(read_all(shelf, &forged, LENGTH, 5), CORRUPT);
    free(right);
}

static void a_blob_belongs_to_its_silo_and_its_name(void **state)
{
    struct shelf *shelf = *state;
    struct fault fault = {""};
    struct blob blob = stored(shelf, 1000, 7), renamed = blob;
    struct blobs *mine = shelf->blobs;
    struct sim_bytes *file = file_of(shelf, &blob);
    struct buffer copy = buffer_of(KIB(4));
    char name[2 * BLOB_ID_BYTES + 1], new_name[2 * BLOB_ID_BYTES + 1];
    buffer_put(&copy, keyless(file->data, file->length));
    assert_ok(blobs_open(&shelf->blobs, -1, other_silo_id, &shelf->sim->io, &fault));
    assert_int_equal(read_all(shelf, &blob, 1000, 7), CORRUPT);
    blobs_close(shelf->blobs);
    shelf->blobs = mine;
    assert_int_equal(read_all(shelf, &blob, 1000, 7), OK);
    struct blob place = stored(shelf, 1000, 8); /* the same bytes, by another name, with the key */
    renamed.id = place.id;
    name_text(name, &blob);
    name_text(new_name, &renamed);
    sim_set(shelf->sim, new_name, buffer_span(&copy));
    assert_int_equal(read_all(shelf, &renamed, 1000, 7), CORRUPT);
    buffer_free(&copy);
}

static const char *secret = "the tenant's own words, again and again: ";
static bool seen;

static void look(struct span bytes)
{
    for (size_t i = 0; i + 16 <= bytes.length; i++)
        if (memcmp(bytes.data + i, secret + 4, 16) == 0)
            seen = true;
}

static void no_byte_of_the_text_or_key_is_written(void **state)
{
    struct shelf *shelf = *state;
    struct fault fault = {""};
    struct buffer text = buffer_of(MIB(1));
    struct blob blob;
    while (text.length < 300000)
        buffer_put_text(&text, secret);
    seen = false;
    shelf->sim->on_write = look;
    assert_ok(write_blob(&blob, shelf, buffer_span(&text), 5000));
    assert_false(seen);
    look(buffer_span(&text));
    assert_true(seen); /* it would have been found */
    struct sim_bytes *file = file_of(shelf, &blob);
    for (size_t i = 0; i + KEY_BYTES <= file->length; i++)
        assert_memory_not_equal(file->data + i, blob.key, KEY_BYTES);
    buffer_free(&text);
}

static void two_of_the_same_text_have_nothing_in_common(void **state)
{
    struct shelf *shelf = *state;
    struct blob one = stored(shelf, 4096, 1), two = stored(shelf, 4096, 1);
    assert_memory_not_equal(one.id.bytes, two.id.bytes, BLOB_ID_BYTES);
    assert_memory_not_equal(one.key, two.key, KEY_BYTES);
    const uint8_t *left = file_of(shelf, &one)->data, *right = file_of(shelf, &two)->data;
    for (size_t i = 0; i + 16 <= 4096; i += 16)
        assert_memory_not_equal(left + i, right + i, 16);
}

static void a_dropped_blob_leaves_its_file_to_be_removed(void **state)
{
    struct shelf *shelf = *state;
    struct fault fault = {""};
    struct blob_writer *writer;
    uint8_t *text = text_of(6 * CHUNK, 1);
    for (int ended = 0; ended < 2; ended++) {
        assert_ok(blob_create(&writer, shelf->blobs, &fault));
        assert_ok(blob_put(writer, keyless(text, 6 * CHUNK), &fault));
        if (ended)
            assert_ok(blob_end(writer, &fault));
        struct blob_id id = blob_name(writer);
        assert_null(blob_drop(writer));
        assert_non_null(sim_below(shelf->sim, 1));
        assert_ok(removed(shelf, &id));
    }
    assert_string_equal(sim_below(shelf->sim, 0), "open");
    assert_null(sim_below(shelf->sim, 1));
    blobs_settled(shelf->blobs);
    assert_null(sim_below(shelf->sim, 0));
    assert_null(blob_drop(NULL));
    free(text);
}

static void what_has_ended_takes_no_more(void **state)
{
    struct shelf *shelf = *state;
    struct fault fault = {""};
    struct blob_writer *writer;
    assert_ok(blob_create(&writer, shelf->blobs, &fault));
    assert_ok(blob_put(writer, SPAN("a"), &fault));
    assert_int_equal(blob_put(writer, (struct span){NULL, OBJECT_BYTES_MAX}, &fault), TOO_LARGE);
    assert_ok(blob_end(writer, &fault));
    assert_int_equal(blob_put(writer, SPAN("a"), &fault), INTERNAL);
    assert_int_equal(blob_end(writer, &fault), INTERNAL);
    blob_drop(writer);
}

static void a_reader_keeps_its_bytes_when_the_blob_is_removed(void **state)
{
    struct shelf *shelf = *state;
    struct fault fault = {""};
    struct blob blob = stored(shelf, CHUNK + 10, 3);
    struct blob_reader *reader;
    struct buffer out = buffer_of(MIB(1));
    uint8_t *text = text_of(CHUNK + 10, 3);
    assert_ok(blob_open(&reader, shelf->blobs, &blob, &fault));
    assert_ok(removed(shelf, &blob.id));
    assert_ok(removed(shelf, &blob.id));
    assert_ok(blob_read(&out, reader, 0, UINT64_MAX, &fault));
    assert_int_equal(out.length, CHUNK + 10);
    assert_memory_equal(out.data, text, out.length);
    blob_close(reader);
    buffer_free(&out);
    free(text);
    assert_int_equal(read_all(shelf, &blob, CHUNK + 10, 3), CORRUPT);
}

static void a_large_blob_is_removed_piece_by_piece(void **state)
{
    struct shelf *shelf = *state;
    struct fault fault = {""};
    struct blob blob = stored(shelf, 10 * CHUNK, 3);
    uint64_t whole = blob_file_bytes(10 * CHUNK), budget;
    bool gone = false;
    for (uint64_t left = whole; left > 4 * CHUNK; left -= 4 * CHUNK) {
        assert_int_equal(file_of(shelf, &blob)->length, left);
        budget = 4 * CHUNK;
        assert_ok(blob_remove(&gone, &budget, shelf->blobs, &blob.id, &fault));
        assert_false(gone);
        assert_int_equal(budget, 0);
    }
    budget = 4 * CHUNK;
    assert_ok(blob_remove(&gone, &budget, shelf->blobs, &blob.id, &fault));
    assert_true(gone);
    assert_null(file_of(shelf, &blob));
    assert_in_range(budget, CHUNK, 3 * CHUNK);
    uint64_t before = budget;
    assert_ok(blob_remove(&gone, &budget, shelf->blobs, &blob.id, &fault));
    assert_true(gone);
    assert_in_range(budget, before - CHUNK, before);
}

static void a_large_blob_that_is_read_is_not_shortened(void **state)
{
    struct shelf *shelf = *state;
    struct fault fault = {""};
    struct blob blob = stored(shelf, 10 * CHUNK, 3);
    struct blob_reader *reader;
    struct buffer out = buffer_of(MIB(1));
    uint64_t budget = 4 * CHUNK;
    bool gone = true;
    assert_ok(blob_open(&reader, shelf->blobs, &blob, &fault));
    assert_true(blob_is_read(shelf->blobs, &blob.id));
    assert_ok(blob_remove(&gone, &budget, shelf->blobs, &blob.id, &fault));
    assert_false(gone);
    assert_int_equal(budget, 4 * CHUNK);
    assert_ok(blob_read(&out, reader, 0, UINT64_MAX, &fault));
    assert_int_equal(out.length, 10 * CHUNK);
    blob_close(reader);
    assert_false(blob_is_read(shelf->blobs, &blob.id));
    assert_ok(blob_remove(&gone, &budget, shelf->blobs, &blob.id, &fault));
    assert_int_equal(budget, 0);
    buffer_free(&out);
}

static void every_file_is_listed_and_nothing_else(void **state)
{
    struct shelf *shelf = *state;
    struct fault fault = {""};
    enum { BLOBS = 20 };
    struct blob blobs[BLOBS];
    struct blob_id ids[STORE_LISTED_MAX];
    uint32_t count, found[BLOBS] = {0};
    bool unsettled;
    assert_ok(blobs_list(ids, &count, shelf->blobs, true, &fault));
    assert_int_equal(count, 0); /* there is no directory */
    assert_ok(blobs_were_unsettled(&unsettled, shelf->blobs, &fault));
    assert_false(unsettled);
    for (int i = 0; i < BLOBS; i++)
        blobs[i] = stored(shelf, 10, 0);
    for (bool first = true;; first = false) {
        assert_ok(blobs_list(ids, &count, shelf->blobs, first, &fault));
        for (uint32_t i = 0; i < count; i++)
            for (int j = 0; j < BLOBS; j++)
                found[j] += memcmp(ids[i].bytes, blobs[j].id.bytes, BLOB_ID_BYTES) == 0;
        if (count == 0)
            break;
    }
    for (int i = 0; i < BLOBS; i++)
        assert_int_equal(found[i], 1);
    assert_ok(blobs_were_unsettled(&unsettled, shelf->blobs, &fault));
    assert_true(unsettled);
}

/* Each call of the disk fails in turn, for want of space or for good. */
static void a_failing_disk_fails_the_blob_and_leaves_others_alone(void **state)
{
    (void)state;
    static const int errors[] = {EIO, ENOSPC};
    for (int i = 0; i < 2; i++) {
        bool failed = true;
        for (uint64_t at = 1; failed; at++) {
            assert_true(at < 100);
            struct shelf *shelf;
            assert_int_equal(set_up((void **)&shelf), 0);
            struct fault fault = {""};
            struct blob kept = stored(shelf, CHUNK + 1, 1), blob;
            uint8_t *text = text_of(5 * CHUNK, 2);
            blobs_close(shelf->blobs); /* the directory is entered anew, with every call of it */
            assert_ok(blobs_open(&shelf->blobs, -1, silo_id, &shelf->sim->io, &fault));
            shelf->sim->fail_errno = errors[i];
            shelf->sim->fail_at = shelf->sim->calls + at;
            status code = write_blob(&blob, shelf, keyless(text, 5 * CHUNK), 3 * CHUNK);
            failed = shelf->sim->calls >= shelf->sim->fail_at;
            shelf->sim->fail_at = 0;
            if (failed)
                assert_int_equal(code, errors[i] == ENOSPC ? OUT_OF_SPACE : INTERNAL);
            else
                assert_ok(read_all(shelf, &blob, 5 * CHUNK, 2));
            assert_ok(read_all(shelf, &kept, CHUNK + 1, 1));
            if (code != OK) { /* the file of the failed one is gone: the mark and the other stand */
                assert_non_null(sim_below(shelf->sim, 1));
                assert_null(sim_below(shelf->sim, 2));
            }
            free(text);
            tear_down((void **)&shelf);
        }
    }
}

static void a_blob_that_ended_survives_a_power_cut(void **state)
{
    (void)state;
    uint32_t survived = 0, lost = 0;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        struct shelf *shelf;
        assert_int_equal(set_up((void **)&shelf), 0);
        struct fault fault = {""};
        struct blob blobs[4];
        size_t ended = 0;
        shelf->sim->random = seed;
        shelf->sim->cut_at = 1 + sim_random(shelf->sim, 30);
        for (size_t i = 0; i < 4; i++) {
            uint8_t *text = text_of(5 * CHUNK + i, (uint8_t)i);
            status code = write_blob(&blobs[i], shelf, keyless(text, 5 * CHUNK + i), CHUNK);
            free(text);
            if (code != OK)
                break;
            ended++;
        }
        shelf->blobs = blobs_close(shelf->blobs);
        sim_power_cycle(shelf->sim);
        assert_ok(blobs_open(&shelf->blobs, -1, silo_id, &shelf->sim->io, &fault));
        for (size_t i = 0; i < ended; i++)
            assert_ok(read_all(shelf, &blobs[i], 5 * CHUNK + i, (uint8_t)i));
        uint32_t files = 0;
        while (sim_below(shelf->sim, files) != NULL)
            files++;
        if (files > ended) { /* more than those, so the mark must be there */
            bool unsettled;
            assert_ok(blobs_were_unsettled(&unsettled, shelf->blobs, &fault));
            assert_true(unsettled);
        }
        survived += (uint32_t)ended;
        lost += ended < 4;
        tear_down((void **)&shelf);
    }
    assert_true(survived > 20 && lost > 20);
}

int main(void)
{
#define ON_A_SHELF(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        ON_A_SHELF(what_is_read_is_what_was_written),
        ON_A_SHELF(a_part_is_read_by_its_chunks_alone),
        ON_A_SHELF(pieces_that_do_not_match_chunks_are_read_on),
        ON_A_SHELF(every_flipped_bit_is_found),
        ON_A_SHELF(a_file_that_was_cut_or_lengthened_is_refused),
        ON_A_SHELF(chunks_cannot_be_moved_doubled_or_exchanged),
        ON_A_SHELF(a_blob_belongs_to_its_silo_and_its_name),
        ON_A_SHELF(no_byte_of_the_text_or_key_is_written),
        ON_A_SHELF(two_of_the_same_text_have_nothing_in_common),
        ON_A_SHELF(a_dropped_blob_leaves_its_file_to_be_removed),
        ON_A_SHELF(what_has_ended_takes_no_more),
        ON_A_SHELF(a_reader_keeps_its_bytes_when_the_blob_is_removed),
        ON_A_SHELF(a_large_blob_is_removed_piece_by_piece),
        ON_A_SHELF(a_large_blob_that_is_read_is_not_shortened),
        ON_A_SHELF(every_file_is_listed_and_nothing_else),
        cmocka_unit_test(a_failing_disk_fails_the_blob_and_leaves_others_alone),
        cmocka_unit_test(a_blob_that_ended_survives_a_power_cut),
    };
    return cmocka_run_group_tests(tests, start_store, NULL);
}
