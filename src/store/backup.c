#include "store/backup.h"

#include "base/arena.h"
#include "base/hex.h"
#include "base/secret.h"
#include "wire/json.h"

#include <stdlib.h>

/* ---- head ---- */

static void put_hash(struct json_writer *writer, const char *name, const uint8_t value[HASH_BYTES])
{
    char text[2 * HASH_BYTES + 1];
    hex_encode(text, (struct span){value, HASH_BYTES});
    json_put_text(writer, name, text);
}

status backup_put_head(struct buffer *out, const struct backup_head *head, struct fault *fault)
{
    struct json_writer writer = json_writer_on(out);
    json_open_object(&writer, NULL);
    json_put_text(&writer, "format", BACKUP_FORMAT);
    json_put_text(&writer, "tenant_id", head->tenant_id);
    json_put_text(&writer, "name", head->name);
    json_put_integer(&writer, "sequence", (int64_t)head->sequence);
    if (head->full)
        json_put_null(&writer, "previous");
    else
        put_hash(&writer, "previous", head->previous);
    json_put_text(&writer, "time", head->time);
    json_put_integer(&writer, "key_version", head->key_version);
    json_put_integer(&writer, "pages", head->pages);
    json_open_object(&writer, "anchor");
    json_put_integer(&writer, "commits", (int64_t)head->anchor.commits);
    json_put_integer(&writer, "map_generation", (int64_t)head->anchor.map_generation);
    put_hash(&writer, "map_hash", head->anchor.map_hash);
    json_put_integer(&writer, "log_size", (int64_t)head->anchor.log_size);
    put_hash(&writer, "log_root", head->anchor.log_root);
    json_close_object(&writer);
    json_close_object(&writer);
    buffer_put_text(out, "\n");
    return buffer_check(out, "backup", fault);
}

static status get_number(uint64_t *ret, const struct json *object, const char *name, uint64_t max,
                         struct fault *fault)
{
    const struct json *member = json_member(object, name);
    if (!member || member->kind != JSON_INTEGER || member->integer < 0 ||
        (uint64_t)member->integer > max)
        return FAIL(CORRUPT, fault, "%s: must be a number up to %llu", name,
                    (unsigned long long)max);
    *ret = (uint64_t)member->integer;
    return OK;
}

static status get_hash(uint8_t ret[HASH_BYTES], const struct json *object, const char *name,
                       struct fault *fault)
{
    struct span text;
    TRY(json_text(&text, object, name, 2 * HASH_BYTES, 2 * HASH_BYTES, fault));
    return hex_decode(ret, HASH_BYTES, text, name, fault);
}

static status get_text(char *ret, size_t size, const struct json *object, const char *name,
                       struct fault *fault)
{
    struct span text;
    TRY(json_text(&text, object, name, 1, size - 1, fault));
    if (!span_is_plain_text(text) || !span_to_text(ret, size, text))
        return FAIL(CORRUPT, fault, "%s: control characters", name);
    return OK;
}

static status get_anchor(struct anchor *ret, const struct json *head, struct fault *fault)
{
    static const char *const known[] = {"commits", "map_generation", "map_hash", "log_size",
                                        "log_root", NULL};
    const struct json *anchor = json_member(head, "anchor");
    TRY(json_need_object(anchor, "anchor", fault));
    TRY(json_only(anchor, known, fault));
    TRY(get_number(&ret->commits, anchor, "commits", INT64_MAX, fault));
    TRY(get_number(&ret->map_generation, anchor, "map_generation", INT64_MAX, fault));
    TRY(get_hash(ret->map_hash, anchor, "map_hash", fault));
    TRY(get_number(&ret->log_size, anchor, "log_size", INT64_MAX, fault));
    return get_hash(ret->log_root, anchor, "log_root", fault);
}

static status get_members(struct backup_head *ret, const struct json *line, struct fault *fault)
{
    static const char *const known[] = {"format", "tenant_id", "name", "sequence", "previous",
                                        "time", "key_version", "pages", "anchor", NULL};
    struct span format;
    uint8_t id[TENANT_ID_BYTES];
    uint64_t number;
    TRY(json_need_object(line, "head", fault));
    TRY(json_text(&format, line, "format", 1, 64, fault));
    if (!span_is(format, BACKUP_FORMAT)) {
        if (span_starts_with(format, SPAN("bulkhead-backup/")))
            return FAIL(NOT_IMPLEMENTED, fault, "it is of another version of the format (%.*s)",
                        SPAN_ARG(format));
        return FAIL(CORRUPT, fault, "it is no backup");
    }
    TRY(json_only(line, known, fault));
    TRY(get_text(ret->tenant_id, sizeof ret->tenant_id, line, "tenant_id", fault));
    TRY(hex_decode(id, sizeof id, span_of_text(ret->tenant_id), "tenant_id", fault));
    TRY(get_text(ret->name, sizeof ret->name, line, "name", fault));
    TRY(get_text(ret->time, sizeof ret->time, line, "time", fault));
    TRY(get_number(&ret->sequence, line, "sequence", BACKUP_SEQUENCE_MAX, fault));
    const struct json *previous = json_member(line, "previous");
    ret->full = previous && previous->kind == JSON_NULL;
    if (!ret->full)
        TRY(get_hash(ret->previous, line, "previous", fault));
    TRY(get_number(&number, line, "key_version", UINT32_MAX, fault));
    ret->key_version = (uint32_t)number;
    TRY(get_number(&number, line, "pages", STORE_PAGES_MAX, fault));
    ret->pages = (uint32_t)number;
    return get_anchor(&ret->anchor, line, fault);
}

status backup_get_head(struct backup_head *ret, struct span line, struct fault *fault)
{
    struct arena arena = arena_of(KIB(64));
    struct backup_head head = {0};
    struct json document;
    status parsed = json_parse(&document, &arena, line, fault);
    if (parsed == OK)
        parsed = get_members(&head, &document, fault);
    arena_free(&arena);
    if (parsed != OK)
        return parsed == NOT_IMPLEMENTED || parsed == INTERNAL ? parsed : CORRUPT;
    *ret = head;
    return OK;
}

/* ---- records ---- */

static void put_record_head(struct buffer *out, enum backup_kind kind, size_t length)
{
    buffer_put_u8(out, (uint8_t)kind);
    buffer_put_u32(out, (uint32_t)length);
}

void backup_put_record(struct buffer *out, enum backup_kind kind, struct span body)
{
    put_record_head(out, kind, body.length);
    buffer_put(out, body);
}

void backup_close_record(struct buffer *out, size_t at, enum backup_kind kind)
{
    if (out->failed)
        return;
    struct buffer head = buffer_over(out->data + at, BACKUP_RECORD_HEAD);
    put_record_head(&head, kind, out->length - at - BACKUP_RECORD_HEAD);
}

static bool is_sealed(uint8_t kind)
{
    return kind == BACKUP_PAGES || kind == BACKUP_BLOB_BYTES;
}

static void digest_record(struct hasher *hasher, uint8_t kind, struct span head, struct span body)
{
    hasher_add(hasher, head);
    if (!is_sealed(kind))
        hasher_add(hasher, body);
}

void backup_digest(struct hasher *hasher, struct span records)
{
    struct cursor cursor = cursor_over(records);
    struct span head, body;
    struct fault fault;
    while (cursor_left(&cursor) > 0) {
        struct cursor fields = cursor;
        uint8_t kind;
        uint32_t length;
        status whole = cursor_bytes(&head, &cursor, BACKUP_RECORD_HEAD, &fault);
        if (whole == OK)
            whole = cursor_u8(&kind, &fields, &fault);
        if (whole == OK)
            whole = cursor_u32(&length, &fields, &fault);
        if (whole == OK)
            whole = cursor_bytes(&body, &cursor, length, &fault);
        assert(whole == OK);
        digest_record(hasher, kind, head, body);
    }
}

static void put_end_fields(struct buffer *out, const struct backup_end *end)
{
    buffer_put_u64(out, end->length);
    buffer_put_u32(out, end->pages);
    buffer_put_u64(out, end->blobs);
    buffer_put_u64(out, end->blob_bytes);
    buffer_put(out, SPAN_OF(end->id));
}

static void end_mac(uint8_t ret[HASH_BYTES], const struct backup_end *end,
                    const uint8_t key[KEY_BYTES])
{
    static const char context[] = "backup end ";
    uint8_t storage[sizeof context + BACKUP_END_TEXT];
    struct buffer text = buffer_over(storage, sizeof storage);
    buffer_put_text(&text, context);
    put_end_fields(&text, end);
    hash_keyed(ret, (struct span){key, KEY_BYTES}, buffer_span(&text));
}

void backup_put_end(struct buffer *out, struct backup_end *end, const uint8_t key[KEY_BYTES])
{
    end_mac(end->mac, end, key);
    put_record_head(out, BACKUP_END, BACKUP_END_TEXT);
    put_end_fields(out, end);
    buffer_put(out, SPAN_OF(end->mac));
}

void backup_put_failed(struct buffer *out, const char *why)
{
    uint8_t text[BACKUP_END_TEXT] = {0};
    struct span said = span_of_text(why);
    struct buffer cut = buffer_over(text, sizeof text - 1);
    if (said.length > sizeof text - 1)
        said.length = sizeof text - 1;
    buffer_put(&cut, said);
    backup_put_record(out, BACKUP_FAILED, SPAN_OF(text));
}

static status get_end_fields(struct backup_end *ret, struct span body, struct fault *fault)
{
    struct cursor cursor = cursor_over(body);
    TRY(cursor_u64(&ret->length, &cursor, fault));
    TRY(cursor_u32(&ret->pages, &cursor, fault));
    TRY(cursor_u64(&ret->blobs, &cursor, fault));
    TRY(cursor_u64(&ret->blob_bytes, &cursor, fault));
    TRY(cursor_copy(ret->id, &cursor, sizeof ret->id, fault));
    TRY(cursor_copy(ret->mac, &cursor, sizeof ret->mac, fault));
    return cursor_end(&cursor, fault);
}

status backup_get_end(struct backup_end *ret, struct span record, struct fault *fault)
{
    struct cursor cursor = cursor_over(record);
    uint8_t kind;
    struct span body;
    struct fault cut;
    if (cursor_u8(&kind, &cursor, &cut) != OK ||
        cursor_field(&body, &cursor, BACKUP_END_TEXT, "end", &cut) != OK ||
        body.length != BACKUP_END_TEXT || cursor_left(&cursor) != 0)
        return FAIL(CORRUPT, fault, "the file has no end: it was not completed, or was cut");
    if (kind == BACKUP_FAILED)
        return FAIL(UNAVAILABLE, fault, "%.*s", (int)span_find(body, 0), (const char *)body.data);
    if (kind != BACKUP_END || get_end_fields(ret, body, &cut) != OK)
        return FAIL(CORRUPT, fault, "the file has no end: it was not completed, or was cut");
    return OK;
}

static status need_mac(const uint8_t due[HASH_BYTES], struct span mac, struct fault *fault)
{
    if (!secret_equal(mac, (struct span){due, HASH_BYTES}))
        return FAIL(UNAUTHENTICATED, fault, "it was changed, or is of another silo");
    return OK;
}

status backup_check_head(struct span mac, const uint8_t digest[HASH_BYTES],
                         const uint8_t key[KEY_BYTES], struct fault *fault)
{
    uint8_t due[HASH_BYTES];
    hash_keyed(due, (struct span){key, KEY_BYTES}, (struct span){digest, HASH_BYTES});
    return need_mac(due, mac, fault);
}

status backup_check_end(const struct backup_end *end, const uint8_t key[KEY_BYTES],
                        struct fault *fault)
{
    uint8_t due[HASH_BYTES];
    end_mac(due, end, key);
    return need_mac(due, SPAN_OF(end->mac), fault);
}

/* ---- reading ---- */

struct backup_reader {
    backup_read *read;
    void *context;
    struct hasher *hasher;
    uint8_t *storage;      /* BACKUP_RECORD_MAX */
    uint64_t offset;
    uint8_t last;          /* kind; 0: the head */
    bool within;           /* between a head and its end */
};

status backup_reader_create(struct backup_reader **ret, backup_read *read, void *context,
                            struct fault *fault)
{
    struct backup_reader *reader = calloc(1, sizeof *reader);
    if (!reader)
        return FAIL(INTERNAL, fault, "out of memory for a backup");
    reader->read = read;
    reader->context = context;
    reader->storage = malloc(BACKUP_RECORD_MAX);
    status made = hasher_create(&reader->hasher, fault);
    if (made == OK && !reader->storage)
        made = FAIL(INTERNAL, fault, "out of memory for a backup");
    if (made != OK) {
        backup_reader_free(reader);
        return made;
    }
    *ret = reader;
    return OK;
}

struct backup_reader *backup_reader_free(struct backup_reader *reader)
{
    if (!reader)
        return NULL;
    hasher_free(reader->hasher);
    free(reader->storage);
    free(reader);
    return NULL;
}

uint64_t backup_reader_offset(const struct backup_reader *reader)
{
    return reader->offset;
}

static status take(uint8_t *ret, struct backup_reader *reader, size_t length, struct fault *fault)
{
    struct fault why;
    status got = reader->read(reader->context, ret, length, &why);
    if (got == NOT_FOUND || got == TRUNCATED)
        return FAIL(CORRUPT, fault, "it is cut at byte %llu",
                    (unsigned long long)reader->offset);
    if (got != OK)
        return FAIL(got, fault, "%s", why.detail);
    reader->offset += length;
    return OK;
}

status backup_reader_head(struct backup_head *ret, struct backup_reader *reader,
                          struct fault *fault)
{
    size_t length = 0;
    assert(!reader->within);
    hasher_reset(reader->hasher);
    reader->offset = 0;
    reader->last = 0;
    status got = reader->read(reader->context, reader->storage, 1, fault);
    if (got != OK) /* NOT_FOUND: there is no other file */
        return got;
    reader->offset = 1;
    while (reader->storage[length] != '\n') {
        if (++length == BACKUP_HEAD_MAX)
            return FAIL(CORRUPT, fault, "it does not begin as a backup");
        TRY(take(reader->storage + length, reader, 1, fault));
    }
    hasher_add(reader->hasher, (struct span){reader->storage, length + 1});
    TRY(backup_get_head(ret, (struct span){reader->storage, length}, fault));
    reader->within = true;
    return OK;
}

/* Which kinds may come before this one; 0 is the head. */
static bool may_follow(uint8_t kind, uint8_t last)
{
    static const struct {
        uint8_t kind;
        const char *after;
    } rules[] = {
        {BACKUP_NOTE, "K"},          {BACKUP_TAGS, "KCT"}, {BACKUP_LIST, "KCTO"},
        {BACKUP_HEAD_MAC, "KCTO"},   {BACKUP_PAGES, "AP"}, {BACKUP_BLOB, "APBD"},
        {BACKUP_BLOB_BYTES, "BD"},   {BACKUP_END, "APBD"}, {BACKUP_FAILED, "KCTOAPBD"},
    };
    if (kind == BACKUP_KEYS)
        return last == 0;
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++)
        if (rules[i].kind == kind && last != 0) {
            struct span after = span_of_text(rules[i].after);
            return span_find(after, last) < after.length;
        }
    return false;
}

status backup_reader_next(struct backup_record *ret, struct backup_reader *reader,
                          struct fault *fault)
{
    uint8_t head[BACKUP_RECORD_HEAD], kind;
    uint32_t length;
    assert(reader->within);
    TRY(take(head, reader, sizeof head, fault));
    struct cursor cursor = cursor_over(SPAN_OF(head));
    TRY(cursor_u8(&kind, &cursor, fault));
    TRY(cursor_u32(&length, &cursor, fault));
    if (!may_follow(kind, reader->last) || length > BACKUP_RECORD_MAX)
        return FAIL(CORRUPT, fault, "no record can stand at byte %llu",
                    (unsigned long long)(reader->offset - sizeof head));
    TRY(take(reader->storage, reader, length, fault));
    struct span body = {reader->storage, length};
    if (kind == BACKUP_FAILED)
        return FAIL(CORRUPT, fault, "it was never completed");
    if (kind == BACKUP_HEAD_MAC || kind == BACKUP_END)
        hasher_value(ret->digest, reader->hasher);
    digest_record(reader->hasher, kind, SPAN_OF(head), body);
    reader->last = kind;
    reader->within = kind != BACKUP_END;
    ret->kind = (enum backup_kind)kind;
    ret->body = body;
    return OK;
}
