/* test_backup.c: the records of a backup file, read from hostile bytes. */
#include "store/backup.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const uint8_t key[KEY_BYTES] = {7};

struct memory {
    struct span bytes;
    size_t at;
};

static status read_memory(void *context, uint8_t *bytes, size_t length, struct fault *fault)
{
    struct memory *memory = context;
    size_t left = memory->bytes.length - memory->at;
    if (left < length)
        return FAIL(left == 0 ? NOT_FOUND : TRUNCATED, fault, "end");
    memcpy(bytes, memory->bytes.data + memory->at, length);
    memory->at += length;
    return OK;
}

static struct backup_head head_of(uint64_t sequence)
{
    struct backup_head head = {.sequence = sequence, .full = true, .key_version = 1, .pages = 3};
    strcpy(head.tenant_id, "00112233445566778899aabbccddeeff");
    strcpy(head.name, "acme");
    strcpy(head.time, "2026-01-01T00:00:00.000000Z");
    head.anchor.commits = 9;
    return head;
}

enum { SEALED_AT = BACKUP_END_BYTES + 6 }; /* from the end: the body of D, six bytes */

/* Head, keys, tags, head MAC, an object, end. */
static struct buffer whole_file(void)
{
    struct buffer out = buffer_of(MIB(1));
    struct backup_head head = head_of(1);
    struct backup_end end = {0};
    uint8_t digest[HASH_BYTES], mac[HASH_BYTES], tags[4 + 48] = {0, 0, 0, 1};
    uint8_t object[BACKUP_BLOB_NAME + 8] = {[BACKUP_BLOB_NAME + 7] = 6};
    struct hasher *hasher;
    struct fault fault;
    assert_int_equal(hasher_create(&hasher, &fault), OK);
    assert_int_equal(backup_put_head(&out, &head, &fault), OK);
    backup_put_record(&out, BACKUP_KEYS, SPAN("keys"));
    backup_put_record(&out, BACKUP_TAGS, SPAN_OF(tags));
    hasher_add(hasher, buffer_span(&out));
    hasher_value(digest, hasher);
    hash_keyed(mac, SPAN_OF(key), SPAN_OF(digest));
    size_t rest = out.length;
    backup_put_record(&out, BACKUP_HEAD_MAC, SPAN_OF(mac));
    backup_put_record(&out, BACKUP_BLOB, SPAN_OF(object));
    backup_put_record(&out, BACKUP_BLOB_BYTES, SPAN("sealed"));
    backup_digest(hasher, (struct span){out.data + rest, out.length - rest});
    hasher_value(end.id, hasher);
    hasher_free(hasher);
    end.length = out.length + BACKUP_END_BYTES;
    backup_put_end(&out, &end, key);
    assert_false(out.failed);
    return out;
}

/* To the end, every MAC checked. */
static status read_whole(struct span bytes, struct fault *fault)
{
    struct memory memory = {.bytes = bytes};
    struct backup_reader *reader;
    struct backup_head head;
    struct backup_record record = {0};
    struct backup_end end;
    assert_int_equal(backup_reader_create(&reader, read_memory, &memory, fault), OK);
    status done = backup_reader_head(&head, reader, fault);
    while (done == OK && record.kind != BACKUP_END) {
        done = backup_reader_next(&record, reader, fault);
        if (done == OK && record.kind == BACKUP_HEAD_MAC)
            done = backup_check_head(record.body, record.digest, key, fault);
    }
    if (done == OK)
        done = backup_get_end(&end, (struct span){bytes.data + bytes.length - BACKUP_END_BYTES,
                                                  BACKUP_END_BYTES}, fault);
    if (done == OK)
        done = backup_check_end(&end, key, fault);
    if (done == OK && memcmp(end.id, record.digest, HASH_BYTES) != 0)
        done = CORRUPT;
    backup_reader_free(reader);
    return done;
}

static void a_whole_file_is_read_to_its_end(void **state)
{
    struct buffer file = whole_file();
    struct fault fault;
    (void)state;
    assert_int_equal(read_whole(buffer_span(&file), &fault), OK);
    buffer_free(&file);
}

/* What is sealed is refused by who opens it: tests/unit/silo/test_backup.c. */
static void a_bit_changed_anywhere_but_in_what_is_sealed_is_refused(void **state)
{
    struct buffer file = whole_file();
    struct fault fault;
    (void)state;
    for (size_t i = 0; i < file.length; i++) {
        bool sealed = i >= file.length - SEALED_AT && i < file.length - BACKUP_END_BYTES;
        file.data[i] ^= 1;
        assert_int_equal(read_whole(buffer_span(&file), &fault) == OK, sealed);
        file.data[i] ^= 1;
    }
    buffer_free(&file);
}

static void a_file_cut_anywhere_is_refused(void **state)
{
    struct buffer file = whole_file();
    struct fault fault;
    (void)state;
    for (size_t i = 0; i + 1 < file.length; i++) {
        struct memory memory = {.bytes = {file.data, i}};
        struct backup_reader *reader;
        struct backup_head head;
        struct backup_record record = {0};
        assert_int_equal(backup_reader_create(&reader, read_memory, &memory, &fault), OK);
        status done = backup_reader_head(&head, reader, &fault);
        while (done == OK && record.kind != BACKUP_END)
            done = backup_reader_next(&record, reader, &fault);
        assert_int_equal(done, i == 0 ? NOT_FOUND : CORRUPT);
        backup_reader_free(reader);
    }
    buffer_free(&file);
}

static void records_out_of_order_are_refused(void **state)
{
    static const char *const orders[] = {"T", "A", "KAO", "KP", "KTP", "KK", "KAA", "KAE!", "KAD",
                                         "KABP", "KATP", "?"};
    struct fault fault;
    (void)state;
    for (size_t i = 0; i < sizeof orders / sizeof orders[0]; i++) {
        struct buffer out = buffer_of(KIB(64));
        struct backup_head head = head_of(1);
        struct memory memory;
        struct backup_reader *reader;
        struct backup_record record;
        size_t read = 0, count = strlen(orders[i]);
        assert_int_equal(backup_put_head(&out, &head, &fault), OK);
        for (size_t at = 0; at < count; at++)
            backup_put_record(&out, (enum backup_kind)orders[i][at], SPAN("body"));
        memory = (struct memory){.bytes = buffer_span(&out)};
        assert_int_equal(backup_reader_create(&reader, read_memory, &memory, &fault), OK);
        assert_int_equal(backup_reader_head(&head, reader, &fault), OK);
        while (read < count && backup_reader_next(&record, reader, &fault) == OK
               && record.kind != BACKUP_END)
            read++;
        assert_true(read < count);
        backup_reader_free(reader);
        buffer_free(&out);
    }
}

static void a_head_of_another_format_or_form_is_refused(void **state)
{
    struct backup_head head = head_of(2), got;
    struct buffer line = buffer_of(KIB(4));
    struct fault fault;
    (void)state;
    assert_int_equal(backup_put_head(&line, &head, &fault), OK);
    struct span good = {line.data, line.length - 1};
    assert_int_equal(backup_get_head(&got, good, &fault), OK);
    assert_int_equal(got.sequence, 2);
    line.data[27] = '7'; /* bulkhead-backup/7 */
    assert_int_equal(backup_get_head(&got, good, &fault), NOT_IMPLEMENTED);
    assert_int_equal(backup_get_head(&got, SPAN("{}"), &fault), CORRUPT);
    assert_int_equal(backup_get_head(&got, SPAN("[]"), &fault), CORRUPT);
    assert_int_equal(backup_get_head(&got, SPAN("\0\0"), &fault), CORRUPT);
    buffer_free(&line);
}

static void what_a_writer_gave_up_says_why(void **state)
{
    struct buffer out = buffer_of(KIB(1));
    struct backup_end end;
    struct fault fault;
    (void)state;
    backup_put_failed(&out, "page 7 does not open");
    assert_int_equal(out.length, BACKUP_END_BYTES);
    assert_int_equal(backup_get_end(&end, buffer_span(&out), &fault), UNAVAILABLE);
    assert_string_equal(fault.detail, "page 7 does not open");
    buffer_free(&out);
}

static int start(void **state)
{
    struct fault fault;
    (void)state;
    return crypt_start(&fault) == OK ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_whole_file_is_read_to_its_end),
        cmocka_unit_test(a_bit_changed_anywhere_but_in_what_is_sealed_is_refused),
        cmocka_unit_test(a_file_cut_anywhere_is_refused),
        cmocka_unit_test(records_out_of_order_are_refused),
        cmocka_unit_test(a_head_of_another_format_or_form_is_refused),
        cmocka_unit_test(what_a_writer_gave_up_says_why),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
