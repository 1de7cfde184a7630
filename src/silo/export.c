#include "silo/export.h"

#include "base/clock.h"
#include "base/hex.h"
#include "base/secret.h"
#include "silo/care.h"
#include "silo/export_state.h"
#include "silo/tenant.h"

#include <assert.h>
#include <stdlib.h>

enum {
    PIECE_US = 4000,
    WAITING_ENOUGH = KIB(256), /* then it is handed on first */
    KEPT_CAPACITY = MIB(4),    /* what one large line made them grow to is given back */
    DAMAGE_BYTES_MAX = MIB(4),
};

static const char about[] =
    "Everything that this tenant has in its silo, in clear and in open formats. Text is\n"
    "UTF-8, *.ndjson is one JSON document a line, times are RFC 3339 in UTC.\n"
    "\n"
    "  tenant.json            the tenant, its posture, what it uses\n"
    "  memories-NNNN.ndjson   memories, all users and classifications; \"history\": the\n"
    "                         earlier versions that are kept, the newest first\n"
    "  documents-NNNN.ndjson  documents with their whole text, each classification of an id\n"
    "  objects-NNNN.ndjson    objects, each classification of a key; \"file\": with its bytes\n"
    "  objects/CLASSIFICATION/...\n"
    "                         their bytes. A name is the key in percent-encoding, or ~ and a\n"
    "                         number for a long key: objects-NNNN.ndjson has the true keys\n"
    "  audit.ndjson           the audit log with its proof, bulkhead-audit/1: to be verified\n"
    "                         with `bulkhead audit verify audit.ndjson`\n"
    "  damaged.ndjson         the last file: what could not be read and is missing here, a line\n"
    "                         each; empty when nothing is\n"
    "\n"
    "Numbered parts belong together in their order; a kind of which there is nothing has none.\n"
    "This is not one moment: each item is whole, as it was when it was read. What was there\n"
    "from the beginning to the end is here exactly once; what was made, changed or deleted\n"
    "meanwhile is here as before or after that, or not. The audit log is that of the\n"
    "beginning, with the entry \"tenant.exported\" of this very export.\n";

void export_wipe(struct buffer *buffer)
{
    if (buffer->data != NULL)
        secret_wipe(buffer->data, buffer->capacity);
    buffer_free(buffer);
}

static void reset(struct buffer *buffer)
{
    size_t max = buffer->max;
    if (buffer->capacity > KEPT_CAPACITY) {
        export_wipe(buffer);
        *buffer = buffer_of(max);
        return;
    }
    if (buffer->data != NULL)
        secret_wipe(buffer->data, buffer->length);
    buffer_clear(buffer);
}

/* ---- members ---- */

void export_member(struct silo_export *export, const char *name, struct span content)
{
    tar_put_header(&export->out, span_of_text(name), content.length, export->began_us);
    buffer_put(&export->out, content);
    tar_put_padding(&export->out, content.length);
}

void export_flush(struct silo_export *export, const char *kind)
{
    char storage[40];
    struct buffer name = buffer_over((uint8_t *)storage, sizeof storage - 1);
    if (export->part.length == 0)
        return;
    buffer_printf(&name, "%s-%04u.ndjson", kind, ++export->parts);
    storage[name.length] = '\0';
    export_member(export, storage, buffer_span(&export->part));
    reset(&export->part);
}

/* JSON that a caller gave may be on several lines: outside of strings these are but spaces, and
 * inside there are none. */
void export_line(struct silo_export *export, size_t mark, const char *kind)
{
    struct buffer *part = &export->part;
    for (size_t i = mark; i < part->length; i++)
        if (part->data[i] == '\n' || part->data[i] == '\r')
            part->data[i] = ' ';
    buffer_put_u8(part, '\n');
    if (part->length >= EXPORT_PART_BYTES && !part->failed)
        export_flush(export, kind);
}

void export_next_phase(struct silo_export *export)
{
    export->phase++;
    export->parts = 0;
    export->position = (struct export_position){0};
}

/* By the hash under which the audit log knows it: this list may be shown to whoever repairs. */
void export_damage(struct silo_export *export, const char *kind, struct span name,
                   int classification)
{
    uint8_t digest[HASH_BYTES];
    char text[2 * HASH_BYTES + 1];
    struct json_writer writer = json_writer_on(&export->damage);
    if (export->damaged++ >= EXPORT_DAMAGED_MAX)
        return;
    json_open_object(&writer, NULL);
    json_put_text(&writer, "kind", kind);
    if (name.length > 0) {
        hash_keyed(digest, SPAN_OF(export->silo->keys->audit), name);
        hex_encode(text, SPAN_OF(digest));
        json_put_text(&writer, "resource_hash", text);
    } else {
        json_put_null(&writer, "resource_hash"); /* and whatever is behind */
    }
    if (classification >= 0)
        json_put_text(&writer, "classification", clearance_name((enum clearance)classification));
    json_close_object(&writer);
    buffer_put_u8(&export->damage, '\n');
}

/* ---- the first and the last ---- */

static void put_readme(struct silo_export *export)
{
    char time[CLOCK_TEXT_SIZE];
    uint8_t storage[KIB(4)];
    const struct silo *silo = export->silo;
    struct buffer text = buffer_over(storage, sizeof storage);
    clock_text(time, export->began_us);
    buffer_printf(&text, "bulkhead-tenant/1\ntenant %s (%s), export begun %s\n\n",
                  silo->posture.name, silo->tenant_text, time);
    buffer_put_text(&text, about);
    assert(!text.failed);
    export_member(export, "README.txt", buffer_span(&text));
}

static status put_about(struct silo_export *export, struct fault *fault)
{
    _cleanup_buffer_ struct buffer text = buffer_of(KIB(64));
    put_readme(export);
    status put = tenant_put(&text, export->silo, fault);
    if (put == OK) {
        buffer_put_u8(&text, '\n');
        TRY(buffer_check(&text, "tenant.json", fault));
        export_member(export, "tenant.json", buffer_span(&text));
    } else if (put == CORRUPT) {
        export_damage(export, "tenant", (struct span){0}, -1);
    } else {
        return put;
    }
    export_next_phase(export);
    return OK;
}

static status put_damaged(struct silo_export *export, struct fault *fault)
{
    if (export->damaged > EXPORT_DAMAGED_MAX)
        buffer_printf(&export->damage, "{\"kind\":\"more\",\"count\":%llu}\n",
                      (unsigned long long)(export->damaged - EXPORT_DAMAGED_MAX));
    TRY(buffer_check(&export->damage, "damaged.ndjson", fault));
    export_member(export, "damaged.ndjson", buffer_span(&export->damage));
    tar_put_end(&export->out);
    export_next_phase(export);
    return OK;
}

/* ---- pieces ---- */

static export_step *const steps[EXPORT_DONE] = {
    [EXPORT_ABOUT] = put_about,           [EXPORT_MEMORIES] = export_memory,
    [EXPORT_DOCUMENTS] = export_document, [EXPORT_OBJECTS] = export_one_object,
    [EXPORT_AUDIT] = export_entries,      [EXPORT_DAMAGED] = put_damaged,
};

static size_t waiting(const struct silo_export *export)
{
    return export->out.length - export->taken;
}

static void hand_on(struct buffer *out, struct silo_export *export)
{
    size_t length = waiting(export) < CARE_PIECE_BYTES ? waiting(export) : CARE_PIECE_BYTES;
    if (length > 0)
        buffer_put(out, (struct span){export->out.data + export->taken, length});
    export->taken += length;
    if (waiting(export) == 0) {
        reset(&export->out);
        export->taken = 0;
    }
}

status silo_export_piece(struct buffer *out, bool *ret_done, struct silo_export *export,
                         struct fault *fault)
{
    int64_t until_us = clock_monotonic_us() + PIECE_US;
    while (export->phase != EXPORT_DONE && waiting(export) < WAITING_ENOUGH
           && clock_monotonic_us() < until_us) {
        TRY(steps[export->phase](export, fault));
        TRY(buffer_check(&export->part, "a part of the export", fault));
        TRY(buffer_check(&export->out, "the export", fault));
    }
    hand_on(out, export);
    *ret_done = export->phase == EXPORT_DONE && waiting(export) == 0;
    return buffer_check(out, "the export", fault);
}

uint64_t silo_export_damaged(const struct silo_export *export)
{
    return export->damaged;
}

status silo_export_begin(struct silo_export **ret, struct silo *silo,
                         const uint8_t platform_key[32], struct fault *fault)
{
    if (silo->store == NULL) /* nothing may leave that the log does not know of */
        return FAIL(INTERNAL, fault, "an export that is in no log");
    struct silo_export *export = calloc(1, sizeof *export);
    if (export == NULL)
        return FAIL(INTERNAL, fault, "out of memory for an export");
    *export = (struct silo_export){
        .silo = silo, .began_us = clock_wall_us(), .part = buffer_of(EXPORT_LINES_MAX),
        .out = buffer_of(EXPORT_LINES_MAX + MIB(4)), .damage = buffer_of(DAMAGE_BYTES_MAX),
        .object.line = buffer_of(KIB(32)),
    };
    status begun = export_log_begin(&export->log, silo, platform_key, fault);
    if (begun != OK) {
        silo_export_end(export);
        return begun;
    }
    *ret = export;
    return OK;
}

struct silo_export *silo_export_end(struct silo_export *export)
{
    if (export == NULL)
        return NULL;
    export_object_drop(&export->object);
    export_wipe(&export->object.line);
    export_wipe(&export->out);
    export_wipe(&export->part);
    buffer_free(&export->damage);
    free(export);
    return NULL;
}
