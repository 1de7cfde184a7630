/* export_items.c: memories and documents, a line each. The names come from an index alone, so that
 * an item on a damaged page is passed over by its name. */
#include "silo/export_state.h"

#include "base/clock.h"
#include "silo/knowledge.h"
#include "silo/memory.h"

static void stand_behind(struct export_position *position, struct span name)
{
    assert(name.length <= sizeof position->name);
    for (size_t i = 0; i < name.length; i++)
        position->name[i] = name.data[i];
    position->length = name.length;
}

/* Takes back what was written of an item that turned out to be damaged. */
static void cut(struct buffer *part, size_t mark)
{
    part->length = mark;
}

status export_no_more(struct silo_export *export, status why, const char *item, const char *kind)
{
    if (why == CORRUPT)
        export_damage(export, item, (struct span){0}, -1);
    else if (why != NOT_FOUND)
        return why;
    export_flush(export, kind);
    export_next_phase(export);
    return OK;
}

status export_next_name(struct silo_export *export, const char *sql, size_t max,
                        struct fault *fault)
{
    struct export_position *at = &export->position;
    for (; at->classification < CLEARANCE_COUNT; at->classification++, at->length = 0) {
        _cleanup_statement_ struct statement *next = NULL;
        TRY(statement_open(&next, export->silo->store, sql, fault));
        statement_bind_int(next, 1, at->classification);
        statement_bind_text(next, 2, (struct span){at->name, at->length});
        status found = statement_step(next, fault);
        if (found == NOT_FOUND)
            continue;
        TRY(found);
        struct span name = statement_span(next, 0);
        if (name.length == 0 || name.length > max)
            return FAIL(CORRUPT, fault, "a name");
        stand_behind(at, name);
        return OK;
    }
    return NOT_FOUND;
}

/* ---- memories ---- */

static status next_memory(int64_t *ret, struct silo_export *export, struct fault *fault)
{
    struct silo *silo = export->silo;
    TRY(memory_know(silo, fault));
    if (!silo->memory.exists)
        return NOT_FOUND;
    _cleanup_statement_ struct statement *next = NULL;
    TRY(statement_open(&next, silo->store,
                       "SELECT n, id FROM memories INDEXED BY memories_by_id WHERE id > ?1 "
                       "ORDER BY id LIMIT 1", fault));
    statement_bind_blob(next, 1,
                        (struct span){export->position.name, export->position.length});
    TRY(statement_step(next, fault));
    struct span id = statement_span(next, 1);
    if (id.length != MEMORY_ID_BYTES)
        return FAIL(CORRUPT, fault, "an id");
    *ret = statement_int(next, 0);
    stand_behind(&export->position, id);
    return OK;
}

/* NOT_FOUND: it is about to be deleted. */
static status put_memory(struct silo_export *export, int64_t n, struct fault *fault)
{
    struct memory_row row;
    struct silo *silo = export->silo;
    _cleanup_statement_ struct statement *rows = NULL;
    struct json_writer writer = json_writer_on(&export->part);
    TRY(memory_row_open(&rows, silo, fault));
    status read = memory_row_get(&row, rows, n, fault);
    if (read == NOT_FOUND)
        return FAIL(CORRUPT, fault, "a memory without its row");
    TRY(read);
    int64_t due_us = memory_row_due_us(silo, &row);
    if (due_us != 0 && due_us <= clock_wall_us())
        return NOT_FOUND;
    json_open_object(&writer, NULL);
    memory_row_members(&writer, silo, &row);
    json_open_array(&writer, "history");
    TRY(memory_put_versions(&writer, silo, &row, fault));
    json_close_array(&writer);
    json_close_object(&writer);
    return OK;
}

status export_memory(struct silo_export *export, struct fault *fault)
{
    int64_t n;
    size_t mark = export->part.length;
    status found = next_memory(&n, export, fault);
    if (found != OK)
        return export_no_more(export, found, "memory", "memories");
    status put = put_memory(export, n, fault);
    if (put == OK) {
        export_line(export, mark, "memories");
        return OK;
    }
    cut(&export->part, mark);
    if (put == CORRUPT) {
        char id[ITEM_ID_TEXT];
        struct memory_id bytes;
        for (size_t i = 0; i < sizeof bytes.bytes; i++)
            bytes.bytes[i] = export->position.name[i];
        memory_id_text(id, &bytes);
        export_damage(export, "memory", span_of_text(id), -1);
    }
    return put == CORRUPT || put == NOT_FOUND ? OK : put;
}

/* ---- documents ---- */

static status next_document(struct silo_export *export, struct fault *fault)
{
    TRY(knowledge_know(export->silo, fault));
    if (!export->silo->knowledge.exists)
        return NOT_FOUND;
    return export_next_name(export, "SELECT id FROM documents INDEXED BY documents_by_id "
                            "WHERE classification = ?1 AND id > ?2 ORDER BY id LIMIT 1",
                            DOCUMENT_ID_MAX, fault);
}

static status put_document(struct silo_export *export, struct fault *fault)
{
    struct document_row row;
    struct span id = {export->position.name, export->position.length};
    struct json_writer writer = json_writer_on(&export->part);
    _cleanup_statement_ struct statement *rows = NULL;
    status found = document_find(&row, &rows, export->silo, export->position.classification, id,
                                 fault);
    if (found == NOT_FOUND)
        return FAIL(CORRUPT, fault, "a document without its row");
    TRY(found);
    struct buffer text = buffer_of((size_t)row.bytes + 1);
    status read = document_text(&text, export->silo, &row, fault);
    if (read == OK) {
        json_open_object(&writer, NULL);
        document_put_members(&writer, &row);
        json_put_string(&writer, "text", buffer_span(&text));
        json_close_object(&writer);
    }
    export_wipe(&text);
    return read;
}

status export_document(struct silo_export *export, struct fault *fault)
{
    size_t mark = export->part.length;
    struct export_position *at = &export->position;
    status found = next_document(export, fault);
    if (found != OK)
        return export_no_more(export, found, "document", "documents");
    status put = put_document(export, fault);
    if (put == CORRUPT) {
        cut(&export->part, mark);
        export_damage(export, "document", (struct span){at->name, at->length},
                      (int)at->classification);
        return OK;
    }
    TRY(put);
    export_line(export, mark, "documents");
    return OK;
}
