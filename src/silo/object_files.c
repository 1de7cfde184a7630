/* object_files.c: a row and the file it names cannot change in one step. So a file is durable
 * before the row that names it, and is removed after the commit that took its row is: between the
 * two there are only files that nobody can read, and a mark that says so. */
#include "silo/object.h"

#include "base/secret.h"
#include "silo/object_upload.h"

enum {
    IDS_MAX = 4096,
    SWEEP_AT_ONCE = STORE_LISTED_MAX,
    REMOVED_AT_ONCE = MIB(16), /* of files: a few milliseconds */
};

static struct span id_span(const struct blob_id *id)
{
    return SPAN_OF(id->bytes);
}

/* A list that is full leaves the file for a sweep. */
static void note_id(struct object_state *state, struct buffer *list, const struct blob_id *id)
{
    if (list->max == 0)
        *list = buffer_of((size_t)IDS_MAX * BLOB_ID_BYTES);
    buffer_put(list, id_span(id));
    if (!list->failed)
        return;
    list->failed = false;
    state->left_behind = true;
    if (state->sweep == SWEEP_DONE)
        state->sweep = SWEEP_DUE;
}

static bool next_id(struct blob_id *ret, struct cursor *list)
{
    struct fault none;
    return cursor_copy(ret->bytes, list, BLOB_ID_BYTES, &none) == OK;
}

static bool is_listed(const struct buffer *list, const struct blob_id *id)
{
    struct cursor ids = cursor_over(buffer_span(list));
    struct blob_id one;
    while (next_id(&one, &ids))
        if (span_equal(id_span(&one), id_span(id)))
            return true;
    return false;
}

void objects_remove_later(struct silo *silo, const struct blob_id *blob)
{
    note_id(&silo->objects, &silo->objects.removed, blob);
}

/* False: there is more of it. */
static bool remove_some(struct silo *silo, uint64_t *budget, const struct blob_id *id)
{
    struct blobs *blobs;
    struct fault ignored; /* nobody can read it: the next wake tries again */
    bool gone = true;
    if (objects_blobs(&blobs, silo, &ignored) != OK
        || blob_remove(&gone, budget, blobs, id, &ignored) != OK)
        silo->objects.left_behind = true;
    return gone;
}

/* The list becomes what is left of it. */
static void remove_unheld(struct silo *silo)
{
    struct object_state *state = &silo->objects;
    struct buffer list = state->unlinking;
    struct cursor ids = cursor_over(buffer_span(&list));
    struct blob_id id;
    uint64_t budget = REMOVED_AT_ONCE;
    if (state->holds > 0)
        return;
    state->unlinking = (struct buffer){0};
    while (next_id(&id, &ids))
        if (budget == 0 || !remove_some(silo, &budget, &id))
            note_id(state, &state->unlinking, &id);
    uint64_t freed = REMOVED_AT_ONCE - budget;
    state->going = state->unlinking.length == 0 || freed > state->going ? 0
                                                                        : state->going - freed;
    buffer_free(&list);
}

static void unlink_all(struct silo *silo, struct buffer *list)
{
    struct cursor ids = cursor_over(buffer_span(list));
    struct blob_id id;
    struct blobs *blobs;
    struct fault ignored;
    bool open = list->length > 0 && objects_blobs(&blobs, silo, &ignored) == OK;
    while (next_id(&id, &ids)) {
        silo->objects.going += open ? blob_size(blobs, &id) : 0;
        note_id(&silo->objects, &silo->objects.unlinking, &id);
    }
    buffer_free(list);
}

/* Those that are read wait until the silo is used again after that. */
static bool removal_due(const struct silo *silo)
{
    const struct object_state *state = &silo->objects;
    struct cursor ids = cursor_over(buffer_span(&state->unlinking));
    struct blob_id id;
    while (state->blobs != NULL && next_id(&id, &ids))
        if (!blob_is_read(state->blobs, &id))
            return true;
    return false;
}

void objects_remove_now(struct silo *silo, const struct blob_id *blob)
{
    note_id(&silo->objects, &silo->objects.unlinking, blob);
    remove_unheld(silo);
}

void objects_take(struct silo *silo, struct silo_upload *upload)
{
    struct blob_id id;
    upload_give_up(&id, upload);
    note_id(&silo->objects, &silo->objects.added, &id);
}

size_t objects_mark(const struct silo *silo)
{
    return silo->objects.removed.length;
}

void objects_undone(struct silo *silo, size_t mark)
{
    struct object_state *state = &silo->objects;
    state->known = false;
    if (state->removed.length > mark)
        state->removed.length = mark;
}

void objects_committed(struct silo *silo)
{
    unlink_all(silo, &silo->objects.removed);
    buffer_free(&silo->objects.added);
    remove_unheld(silo);
}

/* The rows that were made are not there, so their files go; those that were deleted are. */
void objects_taken_back(struct silo *silo)
{
    struct object_state *state = &silo->objects;
    state->known = false;
    buffer_free(&state->removed);
    unlink_all(silo, &state->added);
    remove_unheld(silo);
}

void objects_hold(struct silo *silo)
{
    silo->objects.holds++;
}

void objects_release(struct silo *silo)
{
    assert(silo->objects.holds > 0);
    silo->objects.holds--;
    remove_unheld(silo);
}

/* ---- what a crash left ---- */

/* OK: it has; NOT_FOUND. */
static status has_row(struct silo *silo, const struct blob_id *id, struct fault *fault)
{
    TRY(objects_know(silo, fault));
    if (!silo->objects.exists)
        return NOT_FOUND;
    _cleanup_statement_ struct statement *find = NULL;
    TRY(statement_open(&find, silo->store, "SELECT 1 FROM objects WHERE blob = ?1", fault));
    statement_bind_blob(find, 1, id_span(id));
    return statement_step(find, fault);
}

static bool is_known(const struct silo *silo, const struct blob_id *id)
{
    const struct object_state *state = &silo->objects;
    return uploads_have(state->uploads, id) || is_listed(&state->removed, id) ||
           is_listed(&state->added, id) || is_listed(&state->unlinking, id);
}

bool objects_sweep_due(struct silo *silo)
{
    struct object_state *state = &silo->objects;
    struct blobs *blobs;
    struct fault none;
    bool unsettled = false;
    if (silo->store == NULL) /* without rows there is nothing to hold files against */
        return state->holds == 0 && removal_due(silo);
    if (state->sweep == SWEEP_UNKNOWN && !blobs_exist(silo->silo_fd, silo->io))
        state->sweep = SWEEP_DONE;
    if (state->sweep == SWEEP_UNKNOWN && objects_blobs(&blobs, silo, &none) == OK &&
        blobs_were_unsettled(&unsettled, blobs, &none) == OK)
        state->sweep = unsettled ? SWEEP_DUE : SWEEP_DONE;
    return state->holds == 0 && (state->sweep == SWEEP_DUE || state->sweep == SWEEP_RUNNING
                                 || removal_due(silo));
}

static status sweep_some(bool *ret_more, struct silo *silo, struct blobs *blobs,
                         struct fault *fault)
{
    struct object_state *state = &silo->objects;
    struct blob_id ids[SWEEP_AT_ONCE];
    struct fault unread; /* a row that cannot be read keeps its file */
    uint32_t count;
    TRY(blobs_list(ids, &count, blobs, state->sweep == SWEEP_DUE, fault));
    for (uint32_t i = 0; i < count; i++)
        if (!is_known(silo, &ids[i]) && has_row(silo, &ids[i], &unread) == NOT_FOUND)
            note_id(state, &state->unlinking, &ids[i]);
    remove_unheld(silo);
    state->sweep = count > 0 ? SWEEP_RUNNING : SWEEP_DONE;
    *ret_more = count > 0;
    return OK;
}

status objects_sweep(bool *ret_more, struct silo *silo, struct fault *fault)
{
    struct blobs *blobs;
    struct fault inner;
    *ret_more = false;
    if (!objects_sweep_due(silo))
        return OK;
    TRY(objects_blobs(&blobs, silo, fault));
    if (removal_due(silo)) {
        remove_unheld(silo);
        *ret_more = objects_sweep_due(silo);
        return OK;
    }
    if (sweep_some(ret_more, silo, blobs, &inner) != OK) { /* there is a next wake */
        silo->objects.sweep = SWEEP_DONE;
        silo->objects.left_behind = true;
    }
    return OK;
}

uint64_t objects_bytes(struct silo *silo)
{
    struct fault ignored; /* then what was known last */
    status known = objects_know(silo, &ignored);
    (void)known;
    return silo->objects.bytes;
}

/* ---- the iterator of backups ---- */

status objects_next(struct blob *ret, int64_t *n, struct silo *silo, struct fault *fault)
{
    struct object_row row;
    TRY(objects_know(silo, fault));
    if (!silo->objects.exists)
        return NOT_FOUND;
    _cleanup_statement_ struct statement *rows = NULL;
    TRY(statement_open(&rows, silo->store, OBJECT_COLUMNS "WHERE n > ?1 ORDER BY n LIMIT 1",
                       fault));
    statement_bind_int(rows, 1, *n);
    TRY(statement_step(rows, fault));
    TRY(object_row_of(&row, rows, fault));
    TRY(object_blob(ret, silo, &row, fault));
    *n = row.n;
    return OK;
}

/* ---- the end ---- */

void objects_close(struct silo *silo)
{
    struct object_state *state = &silo->objects;
    if (state->blobs != NULL && state->sweep == SWEEP_DONE && !state->left_behind &&
        state->uploads == NULL && state->unlinking.length == 0 && state->removed.length == 0 &&
        state->added.length == 0)
        blobs_settled(state->blobs);
}

void objects_free(struct silo *silo)
{
    struct object_state *state = &silo->objects;
    buffer_free(&state->removed);
    buffer_free(&state->added);
    buffer_free(&state->unlinking);
    state->blobs = blobs_close(state->blobs);
}
