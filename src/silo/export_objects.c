/* export_objects.c: objects, a file each, and a line each. Before a byte of one is written all of
 * it is read, since an archive says first how long a file is: a damaged one is left out whole. */
#include "silo/export_state.h"

#include "base/secret.h"

enum {
    STEP_BYTES = 4 * OBJECT_CHUNK_BYTES,
    FILE_NAME_MAX = 200, /* of the 255 that file systems know */
};

void export_object_drop(struct export_object *object)
{
    object->reader = blob_close(object->reader);
    buffer_clear(&object->line);
}

/* ---- names ---- */

static bool is_plain(uint8_t byte, bool first)
{
    return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z')
           || (byte >= '0' && byte <= '9') || byte == '_'
           || (!first && (byte == '-' || byte == '.'));
}

/* No two keys have one name: what is encoded can be decoded, and ~ is in none. It has no /, so that
 * no key is a directory of another; it does not begin with a dot, or like an option. */
static void put_name(struct buffer *out, struct export_object *object, struct span key)
{
    size_t before = out->length;
    for (size_t i = 0; i < key.length && out->length - before <= FILE_NAME_MAX; i++) {
        if (is_plain(key.data[i], i == 0))
            buffer_put_u8(out, key.data[i]);
        else
            buffer_printf(out, "%%%02X", (unsigned)key.data[i]);
    }
    if (out->length - before <= FILE_NAME_MAX)
        return;
    out->length = before;
    buffer_printf(out, "~%06u", ++object->numbered);
}

static void name_file(struct export_object *object, const struct object_row *row)
{
    struct buffer name = buffer_over((uint8_t *)object->file, sizeof object->file - 1);
    buffer_printf(&name, "objects/%s/", clearance_name(row->classification));
    put_name(&name, object, row->key);
    assert(!name.failed);
    object->file[name.length] = '\0';
}

/* ---- the walk ---- */

static status next_object(struct silo_export *export, struct fault *fault)
{
    TRY(objects_know(export->silo, fault));
    if (!export->silo->objects.exists)
        return NOT_FOUND;
    return export_next_name(export, "SELECT key FROM objects INDEXED BY objects_by_key "
                            "WHERE classification = ?1 AND key > ?2 ORDER BY key LIMIT 1",
                            OBJECT_KEY_MAX, fault);
}

static void put_line(struct export_object *object, const struct object_row *row)
{
    struct json_writer writer = json_writer_on(&object->line);
    json_open_object(&writer, NULL);
    object_put_members(&writer, row);
    json_put_text(&writer, "file", object->file);
    json_close_object(&writer);
}

/* From here on its file stays readable, whoever deletes it. */
static status open_object(struct silo_export *export, struct fault *fault)
{
    struct blobs *blobs;
    struct blob blob;
    struct object_row row;
    struct export_object *object = &export->object;
    const struct export_position *at = &export->position;
    _cleanup_statement_ struct statement *rows = NULL;
    status found = object_find(&row, &rows, export->silo, at->classification,
                               (struct span){at->name, at->length}, fault);
    if (found == NOT_FOUND)
        return FAIL(CORRUPT, fault, "an object without its row");
    TRY(found);
    TRY(objects_blobs(&blobs, export->silo, fault));
    status opened = object_blob(&blob, export->silo, &row, fault);
    if (opened == OK)
        opened = blob_open(&object->reader, blobs, &blob, fault);
    secret_wipe(&blob, sizeof blob);
    TRY(opened);
    object->verified = false;
    object->at = 0;
    object->bytes = row.bytes;
    object->updated_us = row.updated_us;
    name_file(object, &row);
    put_line(object, &row);
    return buffer_check(&object->line, "the line of an object", fault);
}

static uint64_t next_bytes(const struct export_object *object)
{
    uint64_t left = object->bytes - object->at;
    return left < STEP_BYTES ? left : STEP_BYTES;
}

static status verify_some(struct export_object *object, struct fault *fault)
{
    struct buffer text = buffer_of(STEP_BYTES);
    uint64_t count = next_bytes(object);
    status read = count > 0 ? blob_read(&text, object->reader, object->at, count, fault) : OK;
    export_wipe(&text);
    TRY(read);
    object->at += count;
    object->verified = object->at == object->bytes;
    return OK;
}

static status write_some(struct silo_export *export, struct fault *fault)
{
    struct export_object *object = &export->object;
    uint64_t count = next_bytes(object);
    if (count > 0)
        TRY(blob_read(&export->out, object->reader, object->at, count, fault));
    object->at += count;
    if (object->at < object->bytes)
        return OK;
    size_t mark = export->part.length;
    tar_put_padding(&export->out, object->bytes);
    buffer_put(&export->part, buffer_span(&object->line));
    export_object_drop(object);
    export_line(export, mark, "objects");
    return OK;
}

static status begin_next(struct silo_export *export, struct fault *fault)
{
    status found = next_object(export, fault);
    return found == OK ? open_object(export, fault)
                       : export_no_more(export, found, "object", "objects");
}

static status verify_or_begin(struct silo_export *export, struct fault *fault)
{
    struct export_object *object = &export->object;
    if (object->reader == NULL)
        return begin_next(export, fault);
    TRY(verify_some(object, fault));
    if (!object->verified)
        return OK;
    object->at = 0;
    tar_put_header(&export->out, span_of_text(object->file), object->bytes, object->updated_us);
    return OK;
}

/* Damage that comes between the two readings ends the export: the file has begun. */
status export_one_object(struct silo_export *export, struct fault *fault)
{
    struct export_object *object = &export->object;
    const struct export_position *at = &export->position;
    if (object->reader != NULL && object->verified)
        return write_some(export, fault);
    status done = verify_or_begin(export, fault);
    if (done != CORRUPT)
        return done;
    export_object_drop(object);
    export_damage(export, "object", (struct span){at->name, at->length},
                  (int)at->classification);
    return OK;
}
