/* backup.c: a silo's sealed bytes, a piece at a time, while it is in use. */
#define _GNU_SOURCE
#include "silo/care.h"

#include "base/clock.h"
#include "base/hex.h"
#include "base/secret.h"
#include "silo/audit.h"
#include "silo/object.h"
#include "silo/state.h"
#include "store/copy.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    RUN_PAGES = MIB(1) / COPY_PAGE_BYTES,
    TAGS_A_RECORD = MIB(1) / COPY_TAG_BYTES,
    NAMES_MAX = MIB(1024), /* bytes */
    NAMES_A_RECORD = MIB(1) / BACKUP_BLOB_NAME,
    LOOKED_AT_A_PIECE = 1 << 18, /* pages that are as they were */
};

enum phase { PHASE_HEAD, PHASE_TAGS, PHASE_LIST, PHASE_MAC, PHASE_PAGES, PHASE_BLOBS, PHASE_END,
             PHASE_DONE };

/* Names of objects' files, one after another, ascending. */
struct names {
    struct buffer all;
    size_t next; /* of it: told, then written */
};

struct silo_backup {
    struct silo *silo;
    uint64_t hold; /* of the store; another backup's is not ours */
    struct hasher *hasher;
    struct backup_head head;
    struct backup_end end;
    struct buffer wrapped;
    uint8_t *before;       /* tags of the previous backup's pages */
    uint32_t before_pages;
    struct names blobs, blobs_before;
    struct buffer blob_sizes; /* u64 each: of the files of blobs */
    int blob;              /* the file that is being written, -1 */
    uint64_t blob_at, blob_bytes;
    enum phase phase;
    uint32_t next;         /* page, from 1: tags told, then pages written */
};

status silo_note(struct silo *silo, const char *action, int64_t count, struct fault *fault)
{
    return audit_system(silo, action, count, fault);
}

/* ---- the previous one ---- */

struct file_source {
    int fd;
    off_t at;
};

static status read_file(void *context, uint8_t *bytes, size_t length, struct fault *fault)
{
    struct file_source *source = context;
    size_t done = 0;
    while (done < length) {
        ssize_t got = pread(source->fd, bytes + done, length - done, source->at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return FAIL(INTERNAL, fault, "the previous backup cannot be read");
        if (got == 0)
            return FAIL(done == 0 ? NOT_FOUND : TRUNCATED, fault, "end of file");
        done += (size_t)got;
        source->at += got;
    }
    return OK;
}

static status take_tags(struct silo_backup *backup, struct span body, struct fault *fault)
{
    struct cursor cursor = cursor_over(body);
    uint32_t first;
    TRY(cursor_u32(&first, &cursor, fault));
    size_t count = cursor_left(&cursor) / COPY_TAG_BYTES;
    if (first != backup->next || count > backup->before_pages - (first - 1) ||
        cursor_left(&cursor) % COPY_TAG_BYTES != 0)
        return FAIL(CORRUPT, fault, "its page map is not in order");
    TRY(cursor_copy(backup->before + (size_t)(first - 1) * COPY_TAG_BYTES, &cursor,
                    count * COPY_TAG_BYTES, fault));
    backup->next += (uint32_t)count;
    return OK;
}

/* Sets *ret_usable when it is of the same keys. */
static status read_head(bool *ret_usable, struct silo_backup *backup,
                        struct backup_reader *reader, struct fault *fault)
{
    struct backup_head head;
    struct backup_record record;
    TRY(backup_reader_head(&head, reader, fault));
    if (!span_is(span_of_text(head.tenant_id), backup->silo->tenant_text))
        return FAIL(BAD_FIELD, fault, "it is of another tenant");
    if (head.sequence >= backup->head.sequence)
        return FAIL(CORRUPT, fault, "it has the number %llu", (unsigned long long)head.sequence);
    TRY(backup_reader_next(&record, reader, fault));
    *ret_usable = head.key_version == backup->head.key_version &&
                  span_equal(record.body, buffer_span(&backup->wrapped));
    if (!*ret_usable)
        return OK;
    backup->before_pages = head.pages;
    backup->before = calloc((size_t)head.pages + 1, COPY_TAG_BYTES);
    if (backup->before == NULL)
        return FAIL(INTERNAL, fault, "out of memory for a page map");
    for (backup->next = 1; record.kind != BACKUP_HEAD_MAC;) {
        TRY(backup_reader_next(&record, reader, fault));
        if (record.kind == BACKUP_TAGS)
            TRY(take_tags(backup, record.body, fault));
        if (record.kind == BACKUP_LIST)
            buffer_put(&backup->blobs_before.all, record.body);
        TRY(buffer_check(&backup->blobs_before.all, "its list of objects", fault));
    }
    if (backup->next != head.pages + 1)
        return FAIL(CORRUPT, fault, "its page map is cut");
    return backup_check_head(record.body, record.digest, backup->silo->keys->backup, fault);
}

static status read_end(struct silo_backup *backup, int fd, off_t size, struct fault *fault)
{
    uint8_t record[BACKUP_END_BYTES];
    struct backup_end end;
    struct file_source source = {fd, size - BACKUP_END_BYTES};
    struct fault why;
    if (size < BACKUP_END_BYTES || read_file(&source, record, sizeof record, &why) != OK)
        return FAIL(CORRUPT, fault, "it is cut");
    TRY(backup_get_end(&end, SPAN_OF(record), fault));
    if (end.length != (uint64_t)size)
        return FAIL(CORRUPT, fault, "it has another length than its end says");
    TRY(backup_check_end(&end, backup->silo->keys->backup, fault));
    memcpy(backup->head.previous, end.id, HASH_BYTES);
    return OK;
}

static status look_at_previous(struct silo_backup *backup, int fd, struct fault *fault)
{
    struct file_source source = {.fd = fd};
    struct backup_reader *reader;
    struct stat facts;
    bool usable = false;
    if (fstat(fd, &facts) || !S_ISREG(facts.st_mode))
        return FAIL(BAD_FIELD, fault, "it is no file");
    TRY(backup_reader_create(&reader, read_file, &source, fault));
    status read = read_head(&usable, backup, reader, fault);
    backup_reader_free(reader);
    TRY(read);
    if (usable)
        TRY(read_end(backup, fd, facts.st_size, fault));
    backup->head.full = !usable;
    return OK;
}

/* ---- beginning ---- */

static status describe(struct silo_backup *backup, const struct silo_backup_wish *wish,
                       struct fault *fault)
{
    struct silo *silo = backup->silo;
    struct backup_head *head = &backup->head;
    struct hash_value proof[CONSISTENCY_PROOF_MAX];
    struct fault why;
    uint32_t count;
    TRY(silo_anchor(&head->anchor, proof, &count, silo, 0, fault));
    span_to_text(head->tenant_id, sizeof head->tenant_id, span_of_text(silo->tenant_text));
    span_to_text(head->name, sizeof head->name, span_of_text(silo->posture.name));
    clock_text(head->time, clock_wall_us());
    head->sequence = wish->sequence;
    head->key_version = silo->keys->backup_version;
    head->pages = store_page_count(silo->store);
    head->full = true;
    if (wish->previous < 0)
        return OK;
    status looked = look_at_previous(backup, wish->previous, &why);
    return looked == OK ? OK : FAIL(looked, fault, "the backup before: %.160s", why.detail);
}

/* The rows of this moment; their files stay until the end of the backup. */
static status list_blobs(struct silo_backup *backup, struct fault *fault)
{
    struct silo *silo = backup->silo;
    TRY(objects_know(silo, fault));
    if (!silo->objects.exists)
        return OK;
    _cleanup_statement_ struct statement *rows = NULL;
    TRY(statement_open(&rows, silo->store, "SELECT blob, bytes FROM objects ORDER BY blob", fault));
    for (;;) {
        status stepped = statement_step(rows, fault);
        if (stepped == NOT_FOUND)
            break;
        TRY(stepped);
        struct span name = statement_span(rows, 0);
        if (name.length != BACKUP_BLOB_NAME)
            return FAIL(CORRUPT, fault, "an object's name is damaged");
        buffer_put(&backup->blobs.all, name);
        buffer_put_u64(&backup->blob_sizes, blob_file_bytes((uint64_t)statement_int(rows, 1)));
    }
    TRY(buffer_check(&backup->blob_sizes, "list of objects", fault));
    return buffer_check(&backup->blobs.all, "list of objects", fault);
}

static status begin(struct silo_backup *backup, const struct silo_backup_wish *wish,
                    struct fault *fault)
{
    backup->wrapped = buffer_of(CELL_WRAPPED_MAX);
    buffer_put(&backup->wrapped, wish->wrapped);
    TRY(buffer_check(&backup->wrapped, "wrapped keys", fault));
    backup->blobs.all = buffer_of(NAMES_MAX);
    backup->blobs_before.all = buffer_of(NAMES_MAX);
    backup->blob_sizes = buffer_of(NAMES_MAX);
    TRY(hasher_create(&backup->hasher, fault));
    TRY(list_blobs(backup, fault));
    return describe(backup, wish, fault);
}

status silo_backup_begin(struct silo_backup **ret, struct silo *silo,
                         const struct silo_backup_wish *wish, struct fault *fault)
{
    if (silo->store == NULL)
        return FAIL(INTERNAL, fault, "a backup of an empty silo");
    if (wish->sequence == 0 || wish->sequence > BACKUP_SEQUENCE_MAX)
        return FAIL(BAD_FIELD, fault, "sequence: 1 to %d", BACKUP_SEQUENCE_MAX);
    struct silo_backup *backup = calloc(1, sizeof *backup);
    if (backup == NULL)
        return FAIL(INTERNAL, fault, "out of memory for a backup");
    status held = store_hold(silo->store, fault);
    if (held != OK) { /* perhaps by another backup, which goes on */
        free(backup);
        return held;
    }
    backup->silo = silo;
    backup->hold = store_hold_number(silo->store);
    backup->blob = -1;
    objects_hold(silo);
    status begun = begin(backup, wish, fault);
    if (begun != OK) {
        silo_backup_end(backup);
        return begun;
    }
    backup->next = 1;
    *ret = backup;
    return OK;
}

struct silo_backup *silo_backup_end(struct silo_backup *backup)
{
    if (backup == NULL)
        return NULL;
    if (store_hold_number(backup->silo->store) == backup->hold)
        store_let_go(backup->silo->store);
    objects_release(backup->silo);
    if (backup->blob >= 0)
        close(backup->blob);
    buffer_free(&backup->blobs.all);
    buffer_free(&backup->blobs_before.all);
    buffer_free(&backup->blob_sizes);
    hasher_free(backup->hasher);
    buffer_free(&backup->wrapped);
    free(backup->before);
    free(backup);
    return NULL;
}

/* ---- writing ---- */

static status put_head(struct buffer *out, struct silo_backup *backup, struct fault *fault)
{
    const struct silo *silo = backup->silo;
    TRY(backup_put_head(out, &backup->head, fault));
    backup_put_record(out, BACKUP_KEYS, buffer_span(&backup->wrapped));
    if (silo->note_length > 0)
        backup_put_record(out, BACKUP_NOTE, (struct span){silo->note, silo->note_length});
    backup->phase = PHASE_TAGS;
    return OK;
}

static void put_tags(struct buffer *out, struct silo_backup *backup)
{
    const uint8_t *tags = store_page_tags(backup->silo->store);
    uint32_t left = backup->head.pages - (backup->next - 1);
    uint32_t count = left < TAGS_A_RECORD ? left : TAGS_A_RECORD;
    size_t at = out->length;
    buffer_reserve(out, BACKUP_RECORD_HEAD);
    buffer_advance(out, BACKUP_RECORD_HEAD);
    buffer_put_u32(out, backup->next);
    buffer_put(out, (struct span){tags + (size_t)(backup->next - 1) * COPY_TAG_BYTES,
                                  (size_t)count * COPY_TAG_BYTES});
    backup_close_record(out, at, BACKUP_TAGS);
    backup->next += count;
    if (count == left)
        backup->phase = PHASE_LIST;
}

static void put_list(struct buffer *out, struct silo_backup *backup)
{
    struct names *names = &backup->blobs;
    size_t left = names->all.length - names->next, most = NAMES_A_RECORD * BACKUP_BLOB_NAME;
    size_t length = left < most ? left : most;
    if (length > 0)
        backup_put_record(out, BACKUP_LIST, (struct span){names->all.data + names->next, length});
    names->next += length;
    if (length == left) {
        names->next = 0;
        backup->phase = PHASE_MAC;
    }
}

static void put_mac(struct buffer *out, struct silo_backup *backup)
{
    uint8_t digest[HASH_BYTES], mac[HASH_BYTES];
    hasher_value(digest, backup->hasher);
    hash_keyed(mac, SPAN_OF(backup->silo->keys->backup), SPAN_OF(digest));
    backup_put_record(out, BACKUP_HEAD_MAC, SPAN_OF(mac));
    backup->phase = PHASE_PAGES;
    backup->next = 1;
}

static bool is_due(const struct silo_backup *backup, uint32_t page)
{
    size_t at = (size_t)(page - 1) * COPY_TAG_BYTES;
    const uint8_t *tag = store_page_tags(backup->silo->store) + at;
    if (store_tag_is_zero(tag))
        return false;
    return page > backup->before_pages ||
           !span_equal((struct span){tag, COPY_TAG_BYTES},
                       (struct span){backup->before + at, COPY_TAG_BYTES});
}

static status put_run(struct buffer *out, struct silo_backup *backup, uint32_t most,
                      struct fault *fault)
{
    uint32_t first = backup->next, count = 0;
    while (count < most && first + count <= backup->head.pages && is_due(backup, first + count))
        count++;
    if (count == 0)
        return OK;
    size_t at = out->length;
    buffer_reserve(out, BACKUP_RECORD_HEAD);
    buffer_advance(out, BACKUP_RECORD_HEAD);
    buffer_put_u32(out, first);
    TRY(store_read_sealed(out, backup->silo->store, first, count, fault));
    backup_close_record(out, at, BACKUP_PAGES);
    backup->next = first + count;
    backup->end.pages += count;
    return OK;
}

static status put_pages(struct buffer *out, struct silo_backup *backup, struct fault *fault)
{
    uint32_t looked_at = 0;
    while (backup->next <= backup->head.pages && looked_at < LOOKED_AT_A_PIECE) {
        uint32_t before = backup->next;
        size_t room = out->length < MIB(1) ? (MIB(1) - out->length) / COPY_PAGE_BYTES : 0;
        if (room == 0)
            return OK;
        TRY(put_run(out, backup, room < RUN_PAGES ? (uint32_t)room : RUN_PAGES, fault));
        if (backup->next == before) {
            backup->next++;
            looked_at++;
        }
    }
    if (backup->next > backup->head.pages)
        backup->phase = PHASE_BLOBS;
    return OK;
}

/* Both lists ascend, so the other one is only ever walked forward. */
static bool was_there(struct names *before, struct span name)
{
    while (before->next + BACKUP_BLOB_NAME <= before->all.length) {
        struct span at = {before->all.data + before->next, BACKUP_BLOB_NAME};
        int order = span_compare(at, name);
        if (order >= 0)
            return order == 0;
        before->next += BACKUP_BLOB_NAME;
    }
    return false;
}

/* At its place in the list. What is damaged within is for a check to find, and for the restore. */
static status need_size(const struct silo_backup *backup, size_t place, struct fault *fault)
{
    struct cursor sizes = cursor_over(buffer_span(&backup->blob_sizes));
    struct span before;
    uint64_t due;
    TRY(cursor_bytes(&before, &sizes, place * sizeof due, fault));
    TRY(cursor_u64(&due, &sizes, fault));
    return backup->blob_bytes == due ? OK
                                     : FAIL(CORRUPT, fault, "an object's file has another length "
                                            "than is due: see tenant check");
}

static status open_blob(struct buffer *out, struct silo_backup *backup, struct span name,
                        struct fault *fault)
{
    struct blobs *blobs;
    struct blob_id id;
    struct cursor cursor = cursor_over(name);
    TRY(cursor_copy(id.bytes, &cursor, sizeof id.bytes, fault));
    TRY(objects_blobs(&blobs, backup->silo, fault));
    TRY(blob_raw_open(&backup->blob, &backup->blob_bytes, blobs, &id, fault));
    TRY(need_size(backup, backup->blobs.next / BACKUP_BLOB_NAME - 1, fault));
    backup->blob_at = 0;
    backup->end.blobs++;
    backup->end.blob_bytes += backup->blob_bytes;
    size_t at = out->length;
    buffer_reserve(out, BACKUP_RECORD_HEAD);
    buffer_advance(out, BACKUP_RECORD_HEAD);
    buffer_put(out, name);
    buffer_put_u64(out, backup->blob_bytes);
    backup_close_record(out, at, BACKUP_BLOB);
    return OK;
}

static status put_blob_bytes(struct buffer *out, struct silo_backup *backup, struct fault *fault)
{
    uint64_t left = backup->blob_bytes - backup->blob_at;
    size_t length = left < KIB(512) ? (size_t)left : KIB(512), at = out->length;
    struct file_source source = {backup->blob, (off_t)backup->blob_at};
    struct fault why;
    buffer_reserve(out, BACKUP_RECORD_HEAD);
    buffer_advance(out, BACKUP_RECORD_HEAD);
    uint8_t *bytes = buffer_reserve(out, length);
    if (bytes == NULL)
        return FAIL(INTERNAL, fault, "out of memory for a backup");
    if (read_file(&source, bytes, length, &why) != OK)
        return FAIL(CORRUPT, fault, "an object's file cannot be read");
    buffer_advance(out, length);
    backup_close_record(out, at, BACKUP_BLOB_BYTES);
    backup->blob_at += length;
    return OK;
}

static status put_blobs(struct buffer *out, struct silo_backup *backup, struct fault *fault)
{
    struct names *names = &backup->blobs;
    while (out->length < KIB(512)) {
        if (backup->blob >= 0 && backup->blob_at < backup->blob_bytes) {
            TRY(put_blob_bytes(out, backup, fault));
            continue;
        }
        if (backup->blob >= 0)
            close(backup->blob);
        backup->blob = -1;
        if (names->next == names->all.length) {
            backup->phase = PHASE_END;
            return OK;
        }
        struct span name = {names->all.data + names->next, BACKUP_BLOB_NAME};
        names->next += BACKUP_BLOB_NAME;
        if (!was_there(&backup->blobs_before, name))
            TRY(open_blob(out, backup, name, fault));
    }
    return OK;
}

static void put_end(struct buffer *out, struct silo_backup *backup)
{
    hasher_value(backup->end.id, backup->hasher);
    backup->end.length += BACKUP_END_BYTES;
    backup_put_end(out, &backup->end, backup->silo->keys->backup);
    backup->phase = PHASE_DONE;
}

static status put_piece(struct buffer *out, struct silo_backup *backup, struct fault *fault)
{
    switch (backup->phase) {
    case PHASE_HEAD: return put_head(out, backup, fault);
    case PHASE_TAGS: put_tags(out, backup); return OK;
    case PHASE_LIST: put_list(out, backup); return OK;
    case PHASE_MAC: put_mac(out, backup); return OK;
    case PHASE_PAGES: return put_pages(out, backup, fault);
    case PHASE_BLOBS: return put_blobs(out, backup, fault);
    default: put_end(out, backup); return OK;
    }
}

status silo_backup_piece(struct buffer *out, bool *ret_done, struct silo_backup *backup,
                         struct fault *fault)
{
    size_t before = out->length;
    bool is_head = backup->phase == PHASE_HEAD; /* a line, and records */
    if (store_hold_number(backup->silo->store) != backup->hold)
        return FAIL(UNAVAILABLE, fault, "too much was written while the backup ran: try again");
    if (backup->silo->keys->backup_version != backup->head.key_version)
        return FAIL(UNAVAILABLE, fault, "the key was rotated while the backup ran: try again");
    TRY(put_piece(out, backup, fault));
    TRY(buffer_check(out, "backup", fault));
    struct span fresh = {out->data + before, out->length - before};
    if (backup->phase != PHASE_DONE)
        backup->end.length += fresh.length;
    if (is_head)
        hasher_add(backup->hasher, fresh);
    else
        backup_digest(backup->hasher, fresh);
    *ret_done = backup->phase == PHASE_DONE;
    return OK;
}
