/* restore.c: a silo made again from a chain of backups, each byte of which is hostile until it is
 * verified. */
#include "silo/care.h"

#include "base/clock.h"
#include "base/hex.h"
#include "base/secret.h"
#include "silo/audit.h"
#include "silo/object.h"
#include "silo/state.h"
#include "store/copy.h"
#include "store/io.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { EPOCH_SHIFT = 32, NAMES_MAX = MIB(1024), READ_BYTES = MIB(1), WRITE_OUT_BYTES = MIB(4) };

struct silo_restore {
    struct backup_reader *reader;
    char tenant_id[TENANT_ID_TEXT];
    struct backup_head head;   /* of the file that is being read */
    struct backup_end end;
    uint32_t files;            /* read whole */
    uint64_t pages, blobs_came, blob_bytes; /* of the file, so far */
    struct buffer wrapped;     /* the same in the whole chain */
    struct buffer note;
    struct buffer names;       /* of all sealed objects, ascending */
    struct buffer came;        /* name, u64 sequence of its file: each object of the chain */
    int silo_fd;
    const struct store_io *io;
    struct blobs *blobs;       /* NULL: none has come */
    struct blob_id last;       /* that came in the file */
    int blob;                  /* the file that is being written, -1 */
    uint64_t blob_left, blob_at;
    uint64_t begun;            /* its bytes up to there are being written out */
    uint8_t *tags;
    uint32_t tags_told, tags_room;
    struct store_copy *copy;
    uint8_t key[KEY_BYTES];    /* of the MACs */
};

static status named(const struct silo_restore *restore, status code, const struct fault *why,
                    struct fault *fault)
{
    return FAIL(code, fault, "%06llu.bhb: %.160s", (unsigned long long)restore->head.sequence,
                why->detail);
}

/* ---- the beginning of each file ---- */

static status take_keys(struct silo_restore *restore, struct fault *fault)
{
    struct backup_record record;
    TRY(backup_reader_next(&record, restore->reader, fault));
    if (restore->files > 0)
        return span_equal(record.body, buffer_span(&restore->wrapped))
                   ? OK
                   : FAIL(CORRUPT, fault, "its keys are not those of the chain");
    if (record.body.length == 0)
        return FAIL(CORRUPT, fault, "it has no keys");
    buffer_put(&restore->wrapped, record.body);
    return buffer_check(&restore->wrapped, "its keys", fault);
}

static status check_link(const struct silo_restore *restore, const struct backup_head *head,
                         struct fault *fault)
{
    if (!span_is(span_of_text(head->tenant_id), restore->tenant_id))
        return FAIL(BAD_FIELD, fault, "it is of another tenant (%s)", head->name);
    if (head->pages == 0)
        return FAIL(CORRUPT, fault, "it has no pages");
    if (restore->files == 0)
        return head->full ? OK : FAIL(CORRUPT, fault, "the full backup before it is missing");
    if (head->full || head->sequence <= restore->head.sequence ||
        head->key_version != restore->head.key_version ||
        !span_equal(SPAN_OF(head->previous), SPAN_OF(restore->end.id)))
        return FAIL(CORRUPT, fault, "it does not continue %06llu.bhb",
                    (unsigned long long)restore->head.sequence);
    return OK;
}

/* NOT_FOUND: there is no other file. */
static status next_file(struct silo_restore *restore, struct fault *fault)
{
    struct backup_head head;
    struct fault why;
    status got = backup_reader_head(&head, restore->reader, &why);
    if (got == NOT_FOUND)
        return NOT_FOUND;
    if (got != OK)
        return FAIL(got, fault, "backup %u of the chain: %.150s", restore->files + 1, why.detail);
    got = check_link(restore, &head, &why);
    restore->head = head;
    restore->pages = restore->blobs_came = restore->blob_bytes = 0;
    restore->tags_told = 0;
    buffer_clear(&restore->note);
    buffer_clear(&restore->names);
    if (got == OK)
        got = take_keys(restore, &why);
    return got == OK ? OK : named(restore, got, &why, fault);
}

status silo_restore_begin(struct silo_restore **ret, const uint8_t tenant_id[TENANT_ID_BYTES],
                          backup_read *read, void *context, struct fault *fault)
{
    struct silo_restore *restore = calloc(1, sizeof *restore);
    if (restore == NULL)
        return FAIL(INTERNAL, fault, "out of memory for a restore");
    hex_encode(restore->tenant_id, (struct span){tenant_id, TENANT_ID_BYTES});
    restore->wrapped = buffer_of(CELL_WRAPPED_MAX);
    restore->note = buffer_of(NOTE_SIGNED_MAX);
    restore->names = buffer_of(NAMES_MAX);
    restore->came = buffer_of(NAMES_MAX);
    restore->blob = -1;
    status begun = backup_reader_create(&restore->reader, read, context, fault);
    if (begun == OK)
        begun = next_file(restore, fault);
    if (begun == NOT_FOUND)
        begun = FAIL(NOT_FOUND, fault, "there is no backup");
    if (begun != OK) {
        silo_restore_end(restore);
        return begun;
    }
    *ret = restore;
    return OK;
}

struct span silo_restore_wrapped(const struct silo_restore *restore)
{
    return buffer_span(&restore->wrapped);
}

uint32_t silo_restore_key_version(const struct silo_restore *restore)
{
    return restore->head.key_version;
}

struct silo_restore *silo_restore_end(struct silo_restore *restore)
{
    if (restore == NULL)
        return NULL;
    restore->reader = backup_reader_free(restore->reader);
    restore->copy = store_copy_free(restore->copy);
    buffer_free(&restore->wrapped);
    buffer_free(&restore->note);
    buffer_free(&restore->names);
    buffer_free(&restore->came);
    if (restore->blob >= 0)
        close(restore->blob);
    restore->blobs = blobs_close(restore->blobs);
    free(restore->tags);
    secret_wipe(restore->key, sizeof restore->key);
    free(restore);
    return NULL;
}

/* ---- records ---- */

/* Room grows with what has come, not with what the head announces. */
static status take_tags(struct silo_restore *restore, struct span body, struct fault *fault)
{
    struct cursor cursor = cursor_over(body);
    uint32_t first;
    TRY(cursor_u32(&first, &cursor, fault));
    size_t count = cursor_left(&cursor) / COPY_TAG_BYTES;
    if (cursor_left(&cursor) % COPY_TAG_BYTES != 0 || first != restore->tags_told + 1 ||
        count > restore->head.pages - restore->tags_told)
        return FAIL(CORRUPT, fault, "its page map is not in order");
    uint32_t told = restore->tags_told + (uint32_t)count;
    if (told > restore->tags_room) {
        uint32_t room = told + told / 2;
        uint8_t *grown = realloc(restore->tags, (size_t)room * COPY_TAG_BYTES);
        if (grown == NULL)
            return FAIL(INTERNAL, fault, "out of memory for a page map");
        restore->tags = grown;
        restore->tags_room = room;
    }
    TRY(cursor_copy(restore->tags + (size_t)restore->tags_told * COPY_TAG_BYTES, &cursor,
                    count * COPY_TAG_BYTES, fault));
    restore->tags_told = told;
    return OK;
}

/* Up to here nothing of the file was believed. */
static status take_head_mac(struct silo_restore *restore, const struct backup_record *record,
                            struct fault *fault)
{
    TRY(backup_check_head(record->body, record->digest, restore->key, fault));
    if (restore->tags_told != restore->head.pages)
        return FAIL(CORRUPT, fault, "its page map is cut");
    return store_copy_state(restore->copy, restore->head.pages, restore->tags, fault);
}

static status take_pages(struct silo_restore *restore, struct span body, struct fault *fault)
{
    struct cursor cursor = cursor_over(body);
    struct span sealed;
    uint32_t first;
    TRY(cursor_u32(&first, &cursor, fault));
    TRY(cursor_bytes(&sealed, &cursor, cursor_left(&cursor), fault));
    restore->pages += sealed.length / COPY_PAGE_BYTES;
    return store_copy_pages(restore->copy, first, sealed, fault);
}

static status take_names(struct silo_restore *restore, struct span body, struct fault *fault)
{
    for (size_t at = 0; at + BACKUP_BLOB_NAME <= body.length; at += BACKUP_BLOB_NAME) {
        struct buffer *names = &restore->names;
        struct span name = {body.data + at, BACKUP_BLOB_NAME};
        if (names->length > 0
            && span_compare((struct span){names->data + names->length - BACKUP_BLOB_NAME,
                                          BACKUP_BLOB_NAME}, name) >= 0)
            return FAIL(CORRUPT, fault, "its list of objects is not in order");
        buffer_put(names, name);
    }
    if (body.length % BACKUP_BLOB_NAME != 0)
        return FAIL(CORRUPT, fault, "its list of objects is cut");
    return buffer_check(&restore->names, "its list of objects", fault);
}

static void write_out(struct silo_restore *restore)
{
    const struct store_io *io = restore->io != NULL ? restore->io : &store_io_system;
    if (restore->blob_at > restore->begun)
        io->write_out(io->context, restore->blob, (off_t)restore->begun,
                      (off_t)(restore->blob_at - restore->begun));
    restore->begun = restore->blob_at;
}

static status end_blob(struct silo_restore *restore, struct fault *fault)
{
    if (restore->blob < 0)
        return OK;
    if (restore->blob_left > 0)
        return FAIL(CORRUPT, fault, "an object is cut");
    write_out(restore); /* small ones, too: else each sync would wait for the journal */
    close(restore->blob);
    restore->blob = -1;
    return OK;
}

static status take_blob(struct silo_restore *restore, struct span body, struct fault *fault)
{
    struct cursor cursor = cursor_over(body);
    struct blob_id id;
    uint64_t budget = UINT64_MAX;
    bool gone;
    TRY(end_blob(restore, fault));
    TRY(cursor_copy(id.bytes, &cursor, sizeof id.bytes, fault));
    TRY(cursor_u64(&restore->blob_left, &cursor, fault));
    TRY(cursor_end(&cursor, fault));
    if (restore->blobs_came > 0
        && span_compare(SPAN_OF(restore->last.bytes), SPAN_OF(id.bytes)) >= 0)
        return FAIL(CORRUPT, fault, "its objects are not in order");
    if (restore->blobs == NULL) {
        uint8_t silo_id[TENANT_ID_BYTES];
        TRY(hex_decode(silo_id, sizeof silo_id, span_of_text(restore->tenant_id), "id", fault));
        TRY(blobs_open(&restore->blobs, restore->silo_fd, silo_id, restore->io, fault));
        TRY(blobs_unsettled(restore->blobs, fault));
    }
    /* one that went, and came back with a restore, is in the chain twice */
    TRY(blob_remove(&gone, &budget, restore->blobs, &id, fault));
    if (!gone)
        return FAIL(INTERNAL, fault, "an object of a backup before cannot be replaced");
    TRY(blob_raw_create(&restore->blob, restore->blobs, &id, fault));
    restore->last = id;
    restore->blob_at = restore->begun = 0;
    restore->blobs_came++;
    restore->blob_bytes += restore->blob_left;
    buffer_put(&restore->came, SPAN_OF(id.bytes));
    buffer_put_u64(&restore->came, restore->head.sequence);
    return buffer_check(&restore->came, "its objects", fault);
}

static status take_blob_bytes(struct silo_restore *restore, struct span body, struct fault *fault)
{
    const struct store_io *io = restore->io != NULL ? restore->io : &store_io_system;
    if (restore->blob < 0 || body.length > restore->blob_left)
        return FAIL(CORRUPT, fault, "an object is longer than it says");
    for (size_t done = 0; done < body.length;) {
        ssize_t count = io->write(io->context, restore->blob, body.data + done,
                                  body.length - done, (off_t)restore->blob_at);
        if (count <= 0)
            return FAIL(OUT_OF_SPACE, fault, "an object cannot be written: %s", strerror(errno));
        done += (size_t)count;
        restore->blob_at += (uint64_t)count;
    }
    restore->blob_left -= body.length;
    if (restore->blob_at - restore->begun >= WRITE_OUT_BYTES)
        write_out(restore);
    return OK;
}

static status take_end(struct silo_restore *restore, const struct backup_record *record,
                       struct fault *fault)
{
    uint8_t whole[BACKUP_END_BYTES];
    struct buffer text = buffer_over(whole, sizeof whole);
    struct backup_end end;
    TRY(end_blob(restore, fault));
    if (record->body.length != BACKUP_END_TEXT)
        return FAIL(CORRUPT, fault, "its end is malformed");
    backup_put_record(&text, BACKUP_END, record->body);
    TRY(backup_get_end(&end, buffer_span(&text), fault));
    TRY(backup_check_end(&end, restore->key, fault));
    if (!span_equal(SPAN_OF(end.id), SPAN_OF(record->digest)) ||
        end.length != backup_reader_offset(restore->reader) || end.pages != restore->pages ||
        end.blobs != restore->blobs_came || end.blob_bytes != restore->blob_bytes)
        return FAIL(CORRUPT, fault, "it was changed");
    restore->end = end;
    return store_copy_complete(restore->copy, fault);
}

static status take_record(struct silo_restore *restore, const struct backup_record *record,
                          struct fault *fault)
{
    switch (record->kind) {
    case BACKUP_NOTE:
        buffer_put(&restore->note, record->body);
        return buffer_check(&restore->note, "its checkpoint", fault);
    case BACKUP_TAGS: return take_tags(restore, record->body, fault);
    case BACKUP_HEAD_MAC: return take_head_mac(restore, record, fault);
    case BACKUP_PAGES: return take_pages(restore, record->body, fault);
    case BACKUP_LIST: return take_names(restore, record->body, fault);
    case BACKUP_BLOB: return take_blob(restore, record->body, fault);
    case BACKUP_BLOB_BYTES: return take_blob_bytes(restore, record->body, fault);
    case BACKUP_END: return take_end(restore, record, fault);
    default: return FAIL(CORRUPT, fault, "a record of kind %u", record->kind);
    }
}

static status take_file(struct silo_restore *restore, struct fault *fault)
{
    struct backup_record record;
    do {
        TRY(backup_reader_next(&record, restore->reader, fault));
        status taken = take_record(restore, &record, fault);
        if (taken == TRUNCATED || taken == BAD_REQUEST)
            taken = CORRUPT;
        TRY(taken);
    } while (record.kind != BACKUP_END);
    restore->files++;
    return OK;
}

static status take_chain(struct silo_restore *restore, struct fault *fault)
{
    struct fault why;
    for (;;) {
        status taken = take_file(restore, &why);
        if (taken != OK)
            return named(restore, taken, &why, fault);
        taken = next_file(restore, fault);
        if (taken == NOT_FOUND)
            return OK;
        TRY(taken);
    }
}

/* ---- the silo that it makes ---- */

static status check_note(const struct silo_restore *restore, struct silo *silo,
                         const uint8_t platform_key[32], struct fault *fault)
{
    struct checkpoint checkpoint;
    struct hash_value root;
    if (restore->note.length == 0)
        return OK;
    TRY(checkpoint_open(&checkpoint, buffer_span(&restore->note), PLATFORM_KEY_NAME, platform_key,
                        fault));
    TRY(store_log_root_at(&root, silo->log, checkpoint.size, fault));
    if (!span_equal(SPAN_OF(root.bytes), SPAN_OF(checkpoint.root.bytes)))
        return FAIL(CORRUPT, fault, "the checkpoint is not of its log");
    return OK;
}

static void put_tree_head(struct json_writer *writer, const char *name, uint64_t size,
                          const uint8_t root[HASH_BYTES], const uint64_t *sequence)
{
    char text[2 * HASH_BYTES + 1];
    hex_encode(text, (struct span){root, HASH_BYTES});
    json_open_object(writer, name);
    if (sequence != NULL)
        json_put_integer(writer, "sequence", (int64_t)*sequence);
    json_put_integer(writer, "entries", (int64_t)size);
    json_put_text(writer, "root", text);
    json_close_object(writer);
}

/* In the log itself, so that nobody who reads it takes the one time for the other. */
static status note_restored(const struct silo_restore *restore, struct silo *silo,
                            const struct anchor *replaced, struct fault *fault)
{
    uint8_t storage[KIB(1)];
    char now[CLOCK_TEXT_SIZE];
    const struct anchor *anchor = &restore->head.anchor;
    struct buffer entry = buffer_over(storage, sizeof storage);
    struct json_writer writer = json_writer_on(&entry);
    clock_text(now, clock_wall_us());
    json_open_object(&writer, NULL);
    json_put_text(&writer, "time", now);
    json_put_text(&writer, "tenant_id", silo->tenant_text);
    json_put_null(&writer, "subject");
    json_put_text(&writer, "action", "silo.restored");
    json_put_text(&writer, "decision", "allow");
    json_put_text(&writer, "code", "ok");
    json_put_null(&writer, "count");
    put_tree_head(&writer, "backup", anchor->log_size, anchor->log_root, &restore->head.sequence);
    put_tree_head(&writer, "replaced", replaced->log_size, replaced->log_root, NULL);
    json_close_object(&writer);
    TRY(buffer_check(&entry, "audit entry", fault));
    silo_begin(silo, clock_wall_us());
    TRY(silo_write(silo, fault));
    TRY(audit_own(silo, buffer_span(&entry), fault));
    silo->wrote = true;
    TRY(silo_commit(silo, fault));
    return silo_checkpoint(silo, fault);
}

/* Every chunk, under the key that its row holds; and it is durable. The syncs come after all was
 * written: where the disk keeps a journal, one wait serves all. */
static status read_blob(struct blobs *blobs, const struct blob *blob, struct fault *fault)
{
    _cleanup_buffer_ struct buffer text = buffer_of(READ_BYTES);
    struct blob_reader *reader = NULL;
    status read = blob_open(&reader, blobs, blob, fault);
    for (uint64_t at = 0; read == OK && at < blob->bytes; at += text.length) {
        buffer_clear(&text);
        read = blob_read(&text, reader, at, READ_BYTES, fault);
        if (read == OK && text.length == 0)
            read = FAIL(CORRUPT, fault, "it is cut");
    }
    if (read == OK && blob->bytes == 0)
        read = blob_read(&text, reader, 0, READ_BYTES, fault);
    if (read == OK)
        read = blob_sync(reader, fault);
    blob_close(reader);
    if (text.data != NULL)
        secret_wipe(text.data, text.capacity);
    return read;
}

/* 0: no file had it. */
static uint64_t sequence_of(const struct silo_restore *restore, const struct blob *blob)
{
    struct cursor cursor = cursor_over(buffer_span(&restore->came));
    struct fault end;
    struct span name;
    uint64_t sequence;
    while (cursor_bytes(&name, &cursor, BACKUP_BLOB_NAME, &end) == OK &&
           cursor_u64(&sequence, &cursor, &end) == OK)
        if (span_equal(name, SPAN_OF(blob->id.bytes)))
            return sequence;
    return 0;
}

static status check_object(const struct silo_restore *restore, struct silo *silo,
                           struct blobs *blobs, const struct object_row *row, struct fault *fault)
{
    struct fault why;
    struct blob blob;
    TRY(object_blob(&blob, silo, row, fault));
    status read = read_blob(blobs, &blob, &why);
    uint64_t sequence = read == OK ? 0 : sequence_of(restore, &blob);
    secret_wipe(&blob, sizeof blob);
    if (read == OK)
        return OK;
    return FAIL(read, fault, "the object that came with %06llu.bhb: %.120s",
                (unsigned long long)sequence, why.detail);
}

static status check_objects(const struct silo_restore *restore, struct silo *silo,
                            struct fault *fault)
{
    struct blobs *blobs;
    uint64_t count = 0;
    TRY(objects_know(silo, fault));
    if (!silo->objects.exists)
        return restore->names.length == 0 ? OK
                                          : FAIL(CORRUPT, fault, "objects that it has no rows of");
    _cleanup_statement_ struct statement *rows = NULL;
    TRY(objects_blobs(&blobs, silo, fault));
    TRY(statement_open(&rows, silo->store, OBJECT_COLUMNS "ORDER BY blob", fault));
    for (;; count++) {
        struct object_row row;
        status stepped = statement_step(rows, fault);
        if (stepped == NOT_FOUND)
            break;
        TRY(stepped);
        TRY(object_row_of(&row, rows, fault));
        TRY(check_object(restore, silo, blobs, &row, fault));
    }
    if (count != restore->names.length / BACKUP_BLOB_NAME)
        return FAIL(CORRUPT, fault, "its list of objects is not that of its rows");
    return OK;
}

static status check_silo(struct silo_restored *ret, const struct silo_restore *restore,
                         struct silo *silo, const struct silo_opening *opening,
                         const uint8_t platform_key[32], struct fault *fault)
{
    struct hash_value proof[CONSISTENCY_PROOF_MAX];
    struct silo_restored restored = {.sequence = restore->head.sequence,
                                     .log_size = restore->head.anchor.log_size};
    uint32_t count;
    if (store_anchor(silo->store).commits != restore->head.anchor.commits ||
        store_log_size(silo->log) != restored.log_size)
        return FAIL(CORRUPT, fault, "its pages are not of the state that it names");
    TRY(check_note(restore, silo, platform_key, fault));
    TRY(check_objects(restore, silo, fault));
    TRY(note_restored(restore, silo, &opening->anchor, fault));
    TRY(silo_anchor(&restored.anchor, proof, &count, silo, 0, fault));
    memcpy(restored.log_root, restore->head.anchor.log_root, HASH_BYTES);
    span_to_text(restored.time, sizeof restored.time, span_of_text(restore->head.time));
    restored.bytes = silo_bytes(silo);
    *ret = restored;
    return OK;
}

/* Opens it as any silo is opened, under the anchor that the backup names. */
static status open_and_check(struct silo_restored *ret, const struct silo_restore *restore,
                             const struct silo_opening *opening, const uint8_t platform_key[32],
                             struct fault *fault)
{
    struct silo_opening due = *opening;
    struct silo *silo;
    struct fault why;
    due.anchor = restore->head.anchor;
    due.anchor.epoch = opening->anchor.epoch;
    due.anchor.map_generation = 0; /* this one has a new map */
    status opened = silo_open(&silo, &due, &why);
    if (opened == OK) {
        opened = check_silo(ret, restore, silo, opening, platform_key, &why);
        silo_close(silo);
    }
    return opened == OK ? OK : named(restore, opened, &why, fault);
}

static status find_key(struct silo_restore *restore, const struct silo_opening *opening,
                       struct fault *fault)
{
    for (uint32_t i = 0; i < opening->key_count; i++)
        if (opening->keys[i].version == restore->head.key_version) {
            key_derive(restore->key, opening->keys[i].dek,
                       (struct span){opening->tenant_id, TENANT_ID_BYTES}, BACKUP_KEY_PURPOSE);
            return OK;
        }
    return FAIL(CORRUPT, fault, "%06llu.bhb: its keys are of another version than it says",
                (unsigned long long)restore->head.sequence);
}

status silo_restore_run(struct silo_restored *ret, struct silo_restore *restore,
                        const struct silo_opening *opening, const uint8_t platform_key[32],
                        struct fault *fault)
{
    if (opening->anchor.epoch == 0 || opening->anchor.epoch >> EPOCH_SHIFT != 0)
        return FAIL(INTERNAL, fault, "an epoch that no silo has");
    restore->silo_fd = opening->silo_fd;
    restore->io = opening->io;
    TRY(find_key(restore, opening, fault));
    const struct store_options options = {
        .silo_fd = opening->silo_fd, .silo_id = opening->tenant_id, .keys = opening->keys,
        .key_count = opening->key_count, .io = opening->io,
    };
    TRY(store_copy_begin(&restore->copy, &options, fault));
    TRY(take_chain(restore, fault));
    if (restore->blobs != NULL)
        TRY(blobs_sync(restore->blobs, fault));
    TRY(store_copy_end(restore->copy, opening->anchor.epoch << EPOCH_SHIFT, fault));
    restore->copy = store_copy_free(restore->copy);
    TRY(store_write_small(opening->silo_fd, STORE_KEYS, buffer_span(&restore->wrapped), fault));
    return open_and_check(ret, restore, opening, platform_key, fault);
}
