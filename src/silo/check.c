#include "silo/check.h"

#include "base/clock.h"
#include "base/hex.h"
#include "base/secret.h"
#include "silo/object.h"
#include "store/blob.h"
#include "store/check.h"

#include <stdlib.h>

enum {
    PIECE_US = 4000,
    PROGRESS_US = 500 * 1000,
    PAGES_STEP = 64,
    ENTRIES_STEP = 256,
    BLOB_STEP = 4 * OBJECT_CHUNK_BYTES,
    NAMED_MAX = 1000, /* of what is damaged; more is only counted */
    NAMES_BYTES_MAX = KIB(128),
};

enum phase { PAGES, TABLES, INDEXES, ENTRIES, OBJECTS, FILES, DONE };

static const char *const phase_names[DONE] = {"pages", "tables", "indexes", "entries", "objects",
                                              "files"};

/* What was looked at, and a JSON array of what does not hold. */
struct tally {
    uint64_t seen, damaged;
    struct buffer names;
    struct json_writer writer;
};

struct silo_check {
    struct silo *silo;
    const uint8_t *platform_key;
    enum phase phase;
    int64_t began_us, told_us; /* monotonic */
    struct tally pages, tables, indexes, entries, objects;
    uint64_t chunks, orphans, total; /* total: of the present phase; 0: not known */
    uint32_t page;
    char name[STORE_TABLE_NAME_TEXT]; /* the table that was looked at last */
    bool length_ok, root_ok, checkpoint_ok, has_checkpoint;
    uint64_t log_size;        /* committed when the entries were begun */
    struct merkle_edge edge;
    struct checkpoint checkpoint;
    struct hash_value checkpoint_root; /* by the entries */
    struct blobs *blobs;
    struct blob_reader *reader;
    struct blob blob;
    int64_t object;           /* the row at hand, or the last */
    uint64_t object_at;
    bool object_bad, listed;
};

/* ---- what is found ---- */

static void tally_open(struct tally *tally)
{
    tally->names = buffer_of(NAMES_BYTES_MAX);
    tally->writer = json_writer_on(&tally->names);
    json_open_array(&tally->writer, NULL);
}

static void note_number(struct tally *tally, uint64_t number)
{
    if (tally->damaged++ < NAMED_MAX)
        json_put_integer(&tally->writer, NULL, (int64_t)number);
}

static void note_text(struct tally *tally, const char *text)
{
    if (tally->damaged++ < NAMED_MAX)
        json_put_text(&tally->writer, NULL, text);
}

/* Only damage is counted and passed over: a failing disk or no memory ends the check. */
static bool is_damage(status code)
{
    return code == CORRUPT || code == INTERNAL || code == BAD_FIELD;
}

/* ---- pages, tables, indexes ---- */

static status check_pages(struct silo_check *check, struct fault *fault)
{
    struct store *store = check->silo->store;
    uint32_t from = check->page;
    check->total = store_check_pages(store);
    status read = store_check_read(&check->page, store, from, PAGES_STEP, fault);
    check->pages.seen += check->page - from;
    if (is_damage(read))
        note_number(&check->pages, check->page - 1);
    else
        TRY(read);
    if (check->page <= check->total)
        return OK;
    check->length_ok = store_check_length(store, fault) == OK;
    check->phase = TABLES;
    return OK;
}

static void next_phase(struct silo_check *check)
{
    check->phase++;
    check->name[0] = '\0';
    check->total = 0;
}

/* The list itself may lie on a damaged page. */
static status check_table(struct silo_check *check, bool fulltext, struct fault *fault)
{
    struct tally *tally = fulltext ? &check->indexes : &check->tables;
    struct store *store = check->silo->store;
    status found = store_check_next(check->name, store, check->name, fulltext, fault);
    if (found != OK) {
        if (found != NOT_FOUND)
            note_text(tally, "sqlite_schema");
        next_phase(check);
        return OK;
    }
    tally->seen++;
    status holds = fulltext ? store_check_fulltext(store, check->name, fault)
                            : store_check_table(store, check->name, fault);
    if (holds == CORRUPT)
        note_text(tally, check->name);
    return holds == CORRUPT ? OK : holds;
}

/* ---- the audit log ---- */

/* Roots of complete tiles are stored: they must be those of the entries. */
static status check_node(void *context, uint32_t level, uint64_t index,
                         const struct hash_value *node, struct fault *fault)
{
    struct silo_check *check = context;
    struct hash_value stored;
    if (level == 0 || level % 8 != 0)
        return OK;
    status read = store_log_node(&stored, check->silo->log, level, index, fault);
    if (read != OK || !span_equal(SPAN_OF(stored.bytes), SPAN_OF(node->bytes)))
        note_number(&check->entries, index << level);
    return OK;
}

static status check_entry(void *context, const struct store_log_entry *entry, bool *stop,
                          struct fault *fault)
{
    struct silo_check *check = context;
    const struct span parts[] = {entry->salt, entry->entry};
    struct hash_value leaf = merkle_leaf_parts(parts, 2);
    (void)stop;
    TRY(merkle_append(&check->edge, &leaf, check_node, check, fault));
    check->entries.seen++;
    if (check->has_checkpoint && check->edge.size == check->checkpoint.size)
        check->checkpoint_root = merkle_root(&check->edge);
    return OK;
}

static void begin_entries(struct silo_check *check)
{
    struct silo *silo = check->silo;
    struct fault ignored;
    struct span note = {silo->note, silo->note_length};
    const struct merkle_edge nothing = {0};
    check->log_size = check->total = store_log_size(silo->log);
    check->has_checkpoint = note.length > 0;
    check->checkpoint_root = merkle_root(&nothing);
    if (check->has_checkpoint
        && checkpoint_open(&check->checkpoint, note, PLATFORM_KEY_NAME, check->platform_key,
                           &ignored) != OK)
        check->checkpoint = (struct checkpoint){.size = UINT64_MAX}; /* nobody signed that */
}

/* With the head as of the beginning, which later entries only continue. */
static void end_entries(struct silo_check *check)
{
    struct fault ignored;
    struct hash_value own = merkle_root(&check->edge), root;
    check->root_ok = check->edge.size == check->log_size && check->entries.damaged == 0
        && store_log_root_at(&root, check->silo->log, check->log_size, &ignored) == OK
        && span_equal(SPAN_OF(root.bytes), SPAN_OF(own.bytes));
    check->checkpoint_ok = !check->has_checkpoint
        || (check->checkpoint.size <= check->edge.size
            && span_equal(SPAN_OF(check->checkpoint.root.bytes),
                          SPAN_OF(check->checkpoint_root.bytes)));
    next_phase(check);
}

static status check_entries(struct silo_check *check, struct fault *fault)
{
    if (check->edge.size == 0)
        begin_entries(check);
    uint64_t from = check->edge.size, to = from + ENTRIES_STEP;
    if (to > check->log_size)
        to = check->log_size;
    status read = OK;
    if (from < to)
        read = store_log_read(check->silo->log, from, to, check_entry, check, fault);
    if (is_damage(read)) { /* without its leaf, no root behind it can be known */
        note_number(&check->entries, check->edge.size);
        end_entries(check);
        return OK;
    }
    TRY(read);
    if (check->edge.size == check->log_size)
        end_entries(check);
    return OK;
}

/* ---- objects ---- */

static status has_objects(bool *ret, struct silo_check *check, struct fault *fault)
{
    return store_has(ret, check->silo->store, &object_schema, fault);
}

/* NOT_FOUND: that was the last. */
static status next_object(struct silo_check *check, struct fault *fault)
{
    struct silo *silo = check->silo;
    _cleanup_statement_ struct statement *next = NULL;
    if (check->blobs == NULL)
        TRY(blobs_open(&check->blobs, silo->silo_fd, silo->tenant_id, silo->io, fault));
    TRY(statement_open(&next, silo->store,
                       "SELECT n, blob, blob_key, bytes FROM objects WHERE n > ?1 ORDER BY n "
                       "LIMIT 1", fault));
    statement_bind_int(next, 1, check->object);
    TRY(statement_step(next, fault));
    struct cursor id = cursor_over(statement_span(next, 1));
    struct cursor key = cursor_over(statement_span(next, 2));
    check->object = statement_int(next, 0);
    check->objects.seen++;
    check->object_at = 0;
    check->object_bad = cursor_copy(check->blob.id.bytes, &id, BLOB_ID_BYTES, fault) != OK
                        || cursor_copy(check->blob.key, &key, KEY_BYTES, fault) != OK;
    check->blob.bytes = (uint64_t)statement_int(next, 3);
    objects_hold(silo); /* a file may lose its end before its name */
    if (!check->object_bad) /* removed while it was looked for is not damage: its row goes, too */
        check->object_bad = blob_open(&check->reader, check->blobs, &check->blob, fault) != OK;
    return OK;
}

static void end_object(struct silo_check *check)
{
    char name[2 * BLOB_ID_BYTES + 1];
    check->reader = blob_close(check->reader);
    objects_release(check->silo);
    if (check->object_bad) {
        hex_encode(name, SPAN_OF(check->blob.id.bytes));
        note_text(&check->objects, name);
    }
    check->object_bad = false;
    secret_wipe(&check->blob, sizeof check->blob);
}

static status read_object(struct silo_check *check, struct fault *fault)
{
    struct buffer text = buffer_of(BLOB_STEP);
    uint64_t left = check->blob.bytes - check->object_at;
    uint64_t wanted = left < BLOB_STEP ? left : BLOB_STEP;
    status read = blob_read(&text, check->reader, check->object_at, wanted, fault);
    if (text.data != NULL)
        secret_wipe(text.data, text.capacity);
    buffer_free(&text);
    if (read != OK && read != CORRUPT)
        return read;
    check->object_bad = read == CORRUPT;
    check->object_at += wanted;
    check->chunks += (wanted + OBJECT_CHUNK_BYTES - 1) / OBJECT_CHUNK_BYTES;
    if (check->object_bad || check->object_at >= check->blob.bytes)
        end_object(check);
    return OK;
}

static status check_objects(struct silo_check *check, struct fault *fault)
{
    bool has;
    if (check->reader != NULL)
        return read_object(check, fault);
    status next = has_objects(&has, check, fault);
    if (next == OK)
        next = has ? next_object(check, fault) : NOT_FOUND;
    if (next == OK && check->reader == NULL)
        end_object(check);
    if (next != OK) {
        if (is_damage(next))
            note_text(&check->objects, "objects");
        next_phase(check);
    }
    return next == NOT_FOUND || is_damage(next) ? OK : next;
}

static status has_row(bool *ret, struct silo_check *check, const struct blob_id *id,
                      struct fault *fault)
{
    _cleanup_statement_ struct statement *find = NULL;
    TRY(statement_open(&find, check->silo->store, "SELECT 1 FROM objects WHERE blob = ?1",
                       fault));
    statement_bind_blob(find, 1, SPAN_OF(id->bytes));
    status found = statement_step(find, fault);
    *ret = found == OK;
    return found == NOT_FOUND || is_damage(found) ? OK : found;
}

/* Files that no row names: uploads under way, and what a crash left until it is cleared away. */
static status check_files(struct silo_check *check, struct fault *fault)
{
    struct blob_id ids[STORE_LISTED_MAX];
    uint32_t count = 0;
    if (check->blobs != NULL)
        TRY(blobs_list(ids, &count, check->blobs, !check->listed, fault));
    check->listed = true;
    for (uint32_t i = 0; i < count; i++) {
        bool has = false;
        TRY(has_row(&has, check, &ids[i], fault));
        check->orphans += !has;
    }
    if (count == 0)
        next_phase(check);
    return OK;
}

/* ---- pieces ---- */

static status step(struct silo_check *check, struct fault *fault)
{
    switch (check->phase) {
    case PAGES: return check_pages(check, fault);
    case TABLES: return check_table(check, false, fault);
    case INDEXES: return check_table(check, true, fault);
    case ENTRIES: return check_entries(check, fault);
    case OBJECTS: return check_objects(check, fault);
    case FILES: return check_files(check, fault);
    case DONE: break;
    }
    return OK;
}

static void put_progress(struct buffer *out, struct silo_check *check)
{
    const uint64_t done[DONE] = {check->pages.seen, check->tables.seen, check->indexes.seen,
                                 check->entries.seen, check->objects.seen, 0};
    int64_t now_us = clock_monotonic_us();
    struct json_writer writer = json_writer_on(out);
    if (check->phase == DONE || now_us - check->told_us < PROGRESS_US)
        return;
    check->told_us = now_us;
    json_open_object(&writer, NULL);
    json_put_text(&writer, "progress", phase_names[check->phase]);
    json_put_integer(&writer, "done", (int64_t)done[check->phase]);
    if (check->total > 0)
        json_put_integer(&writer, "of", (int64_t)check->total);
    json_close_object(&writer);
    buffer_put_u8(out, '\n');
}

static void put_tally(struct json_writer *writer, const char *name, const char *damaged,
                      struct tally *tally)
{
    json_close_array(&tally->writer);
    json_put_integer(writer, name, (int64_t)tally->seen);
    json_put_raw(writer, damaged, buffer_span(&tally->names));
}

static void put_report(struct buffer *out, struct silo_check *check)
{
    struct json_writer writer = json_writer_on(out);
    uint64_t damaged = check->pages.damaged + check->tables.damaged + check->indexes.damaged
                       + check->entries.damaged + check->objects.damaged;
    int64_t took_us = clock_monotonic_us() - check->began_us;
    json_open_object(&writer, NULL);
    json_put_bool(&writer, "ok", damaged == 0 && check->length_ok && check->root_ok
                                     && check->checkpoint_ok);
    json_put_integer(&writer, "damaged", (int64_t)damaged);
    put_tally(&writer, "pages", "damaged_pages", &check->pages);
    json_put_bool(&writer, "length_ok", check->length_ok);
    put_tally(&writer, "tables", "damaged_tables", &check->tables);
    put_tally(&writer, "indexes", "damaged_indexes", &check->indexes);
    put_tally(&writer, "entries", "damaged_entries", &check->entries);
    json_put_bool(&writer, "root_ok", check->root_ok);
    json_put_bool(&writer, "checkpoint_ok", check->checkpoint_ok);
    put_tally(&writer, "objects", "damaged_objects", &check->objects);
    json_put_integer(&writer, "chunks", (int64_t)check->chunks);
    json_put_integer(&writer, "orphans", (int64_t)check->orphans);
    json_put_double(&writer, "seconds", (double)took_us / 1e6);
    json_close_object(&writer);
    buffer_put_u8(out, '\n');
}

status silo_check_piece(struct buffer *out, bool *ret_done, struct silo_check *check,
                        struct fault *fault)
{
    int64_t until_us = clock_monotonic_us() + PIECE_US;
    while (check->phase != DONE && clock_monotonic_us() < until_us)
        TRY(step(check, fault));
    put_progress(out, check);
    *ret_done = check->phase == DONE;
    if (*ret_done)
        put_report(out, check);
    return buffer_check(out, "check", fault);
}

status silo_check_begin(struct silo_check **ret, struct silo *silo,
                        const uint8_t platform_key[32], struct fault *fault)
{
    struct silo_check *check = calloc(1, sizeof *check);
    if (check == NULL)
        return FAIL(INTERNAL, fault, "out of memory for a check");
    *check = (struct silo_check){.silo = silo, .platform_key = platform_key, .page = 1,
                                 .began_us = clock_monotonic_us()};
    check->told_us = check->began_us;
    struct tally *const tallies[] = {&check->pages, &check->tables, &check->indexes,
                                     &check->entries, &check->objects};
    for (size_t i = 0; i < sizeof tallies / sizeof *tallies; i++)
        tally_open(tallies[i]);
    if (silo->store == NULL) { /* nothing was ever written: there is nothing that could be wrong */
        check->phase = DONE;
        check->length_ok = check->root_ok = check->checkpoint_ok = true;
    }
    *ret = check;
    return OK;
}

struct silo_check *silo_check_end(struct silo_check *check)
{
    if (check == NULL)
        return NULL;
    struct tally *const tallies[] = {&check->pages, &check->tables, &check->indexes,
                                     &check->entries, &check->objects};
    for (size_t i = 0; i < sizeof tallies / sizeof *tallies; i++)
        buffer_free(&tallies[i]->names);
    if (check->reader != NULL)
        objects_release(check->silo);
    check->reader = blob_close(check->reader);
    check->blobs = blobs_close(check->blobs);
    secret_wipe(&check->blob, sizeof check->blob);
    free(check);
    return NULL;
}
