#include "silo/object.h"

#include "base/secret.h"
#include "silo/fields.h"
#include "silo/object_upload.h"
#include "wire/http.h"
#include "wire/json.h"

#include <stdlib.h>

static const char octets[] = "application/octet-stream";

struct object_upload {
    struct silo_upload upload;
    struct silo *silo;
    struct blob_writer *writer;
    struct blob_id id;
    uint64_t bytes;             /* taken so far */
    struct object_upload *next; /* of the silo's */
};

static struct object_upload *object_of(struct silo_upload *upload)
{
    return (struct object_upload *)upload; /* it begins with it */
}

/* ---- what a PUT says ---- */

struct put {
    enum clearance classification;
    struct span content_type;
};

static status read_classification(enum clearance *ret, const struct call *call,
                                  struct fault *fault)
{
    struct http_query pairs;
    TRY(http_query_parse(&pairs, call->request->arena, call->request->query, fault));
    TRY(http_query_only(&pairs, call->request->action->query, fault));
    return field_classification(ret, http_query_get(&pairs, "classification"),
                                call->request->envelope, fault);
}

static status read_put(struct put *ret, const struct call *call, struct fault *fault)
{
    struct put put = {.content_type = call->request->content_type};
    TRY(read_classification(&put.classification, call, fault));
    if (put.content_type.length == 0)
        put.content_type = SPAN(octets);
    if (!relay_header_fits(put.content_type) || put.content_type.length >= SILO_HEADER_MAX)
        return FAIL(BAD_FIELD, fault, "Content-Type: at most %d bytes are allowed",
                    SILO_HEADER_MAX - 1);
    *ret = put;
    return OK;
}

/* The instance that is to be replaced; *ret_there: there is one. */
static status look(struct object_row *ret, bool *ret_there, struct statement **ret_statement,
                   struct call *call, struct fault *fault)
{
    struct fault none;
    status found = object_visible(ret, ret_statement, call, &none);
    if (found != OK && found != NOT_FOUND)
        return FAIL(found, fault, "%s", none.detail);
    if (found == NOT_FOUND)
        call->classification = -1;
    call->hidden = false; /* a new instance beside a hidden one is nothing that was denied */
    *ret_there = found == OK;
    return OK;
}

static status check_conditions(const struct call *call, const struct object_row *row,
                               struct fault *fault)
{
    bool unchanged;
    return object_conditions(&unchanged, call, row, fault);
}

/* ---- uploads ---- */

static status check_quota(struct silo *silo, uint64_t more, struct fault *fault)
{
    uint64_t limit = silo->posture.quotas.bytes_stored;
    uint64_t used = silo_bytes(silo) + silo->objects.uploading + silo->objects.going;
    if (limit != 0 && (used > limit || more > limit - used))
        return FAIL(QUOTA_EXCEEDED, fault, "bytes_stored: at most %llu",
                    (unsigned long long)limit);
    return OK;
}

static status check_early(struct silo *silo, const struct silo_request *request,
                          int64_t body_length, struct fault *fault)
{
    struct call call = {.silo = silo, .store = silo->store, .request = request,
                        .classification = -1, .count = -1};
    _cleanup_statement_ struct statement *rows = NULL;
    struct object_row row;
    struct put put;
    bool there;
    if (body_length > 0 && (uint64_t)body_length > OBJECT_BYTES_MAX)
        return FAIL(TOO_LARGE, fault, "an object has at most %llu bytes",
                    (unsigned long long)OBJECT_BYTES_MAX);
    TRY(read_put(&put, &call, fault));
    TRY(look(&row, &there, &rows, &call, fault));
    TRY(check_conditions(&call, there ? &row : NULL, fault));
    return check_quota(silo, body_length > 0 ? blob_file_bytes((uint64_t)body_length) : 0, fault);
}

static status take(struct silo_upload *upload, struct span bytes, struct fault *fault)
{
    struct object_upload *object = object_of(upload);
    uint64_t more = blob_file_bytes(object->bytes + bytes.length) - blob_file_bytes(object->bytes);
    TRY(check_quota(object->silo, more, fault));
    TRY(blob_put(object->writer, bytes, fault));
    object->bytes += bytes.length;
    object->silo->objects.uploading += more;
    return OK;
}

static status end(struct silo_upload *upload, struct fault *fault)
{
    return blob_end(object_of(upload)->writer, fault);
}

static void leave(struct object_upload *object, bool keep)
{
    struct object_state *state = &object->silo->objects;
    struct object_upload **at = &state->uploads;
    while (*at != object)
        at = &(*at)->next;
    *at = object->next;
    state->uploading -= blob_file_bytes(object->bytes) - blob_file_bytes(0);
    blob_drop(object->writer);
    if (!keep)
        objects_remove_now(object->silo, &object->id);
    free(object);
}

static void drop(struct silo_upload *upload)
{
    leave(object_of(upload), false);
}

status object_upload_open(struct silo_upload **ret, struct silo *silo,
                          const struct silo_request *request, int64_t body_length,
                          struct fault *fault)
{
    struct blobs *blobs;
    TRY(check_early(silo, request, body_length, fault));
    TRY(objects_blobs(&blobs, silo, fault));
    objects_sweep_due(silo); /* before this process leaves a mark of its own */
    struct object_upload *object = calloc(1, sizeof *object);
    if (object == NULL)
        return FAIL(INTERNAL, fault, "out of memory for an upload");
    status created = blob_create(&object->writer, blobs, fault);
    if (created != OK) {
        free(object);
        return created;
    }
    object->upload = (struct silo_upload){take, end, drop};
    object->silo = silo;
    object->id = blob_name(object->writer);
    object->next = silo->objects.uploads;
    silo->objects.uploads = object;
    *ret = &object->upload;
    return OK;
}

void upload_told(struct blob *ret, const struct silo_upload *upload)
{
    blob_told(ret, ((const struct object_upload *)upload)->writer);
}

void upload_give_up(struct blob_id *ret, struct silo_upload *upload)
{
    *ret = object_of(upload)->id;
    leave(object_of(upload), true);
}

bool uploads_have(const struct object_upload *uploads, const struct blob_id *id)
{
    for (; uploads != NULL; uploads = uploads->next)
        if (span_equal(SPAN_OF(uploads->id.bytes), SPAN_OF(id->bytes)))
            return true;
    return false;
}

/* ---- rows ---- */

/* added or taken away: bytes of a file */
static status count_bytes(struct silo *silo, int64_t bytes, struct fault *fault)
{
    _cleanup_statement_ struct statement *count = NULL;
    TRY(statement_open(&count, silo->store,
                       "UPDATE object_totals SET file_bytes = file_bytes + ?1", fault));
    statement_bind_int(count, 1, bytes);
    TRY(statement_run(count, fault));
    silo->objects.bytes += (uint64_t)bytes;
    return OK;
}

static status delete_row(struct silo *silo, const struct object_row *row, struct fault *fault)
{
    _cleanup_statement_ struct statement *gone = NULL;
    TRY(statement_open(&gone, silo->store, "DELETE FROM objects WHERE n = ?1", fault));
    statement_bind_int(gone, 1, row->n);
    TRY(statement_run(gone, fault));
    TRY(count_bytes(silo, -(int64_t)blob_file_bytes(row->bytes), fault));
    objects_remove_later(silo, &row->blob);
    return OK;
}

/* Every instance that the caller covers. *ret_created_us: when the highest was made of those that
 * whoever sees a successor of that classification could see as well; 0 for none. */
static status delete_covered(int64_t *ret_count, int64_t *ret_created_us, struct call *call,
                             enum clearance reach, struct fault *fault)
{
    const struct envelope *envelope = call->request->envelope;
    int64_t count = 0, created_us = 0;
    call->gone = CLEARANCE_COUNT;
    for (int i = 0; i < CLEARANCE_COUNT; i++) {
        struct object_row row;
        struct statement *rows;
        if (!clearance_covers(envelope->clearance, (enum clearance)i))
            continue;
        status found = object_find(&row, &rows, call->silo, (enum clearance)i, call->item, fault);
        if (found == NOT_FOUND)
            continue;
        TRY(found);
        statement_close(rows); /* its spans go; numbers stay */
        TRY(delete_row(call->silo, &row, fault));
        count++;
        call->gone = i < call->gone ? i : call->gone;
        if (clearance_covers(reach, row.classification))
            created_us = row.created_us;
    }
    *ret_count = count;
    *ret_created_us = created_us;
    return OK;
}

static status insert_row(struct silo *silo, const struct object_row *row, const struct blob *blob,
                         struct fault *fault)
{
    _cleanup_statement_ struct statement *insert = NULL;
    TRY(statement_open(&insert, silo->store,
                       "INSERT INTO objects (key, classification, blob, blob_key, bytes, "
                       "content_type, user_id, created_at, updated_at) "
                       "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)", fault));
    statement_bind_text(insert, 1, row->key);
    statement_bind_int(insert, 2, row->classification);
    statement_bind_blob(insert, 3, SPAN_OF(blob->id.bytes));
    statement_bind_blob(insert, 4, SPAN_OF(blob->key));
    statement_bind_int(insert, 5, (int64_t)blob->bytes);
    statement_bind_text(insert, 6, row->content_type);
    statement_bind_text(insert, 7, row->user_id);
    statement_bind_int(insert, 8, row->created_us);
    statement_bind_int(insert, 9, row->updated_us);
    TRY(statement_run(insert, fault));
    return count_bytes(silo, (int64_t)blob_file_bytes(blob->bytes), fault);
}

static status store_row(struct object_row *row, const struct call *call, struct fault *fault)
{
    struct blob blob;
    upload_told(&blob, call->request->upload);
    row->blob = blob.id;
    row->bytes = blob.bytes;
    status stored = insert_row(call->silo, row, &blob, fault);
    secret_wipe(&blob, sizeof blob);
    return stored;
}

status object_put(struct call *call, struct fault *fault)
{
    const struct silo_request *request = call->request;
    struct statement *rows = NULL;
    struct object_row old;
    struct put put;
    bool there;
    int64_t replaced, created_us;
    if (request->upload == NULL)
        return FAIL(INTERNAL, fault, "an object without its bytes");
    TRY(read_put(&put, call, fault));
    TRY(objects_make(call->silo, fault));
    TRY(look(&old, &there, &rows, call, fault));
    status wanted = check_conditions(call, there ? &old : NULL, fault);
    statement_close(rows);
    TRY(wanted);
    TRY(delete_covered(&replaced, &created_us, call, put.classification, fault));
    struct object_row row = {
        .key = call->item, .classification = put.classification,
        .content_type = put.content_type, .user_id = span_of_text(request->envelope->user),
        .created_us = created_us != 0 ? created_us : request->now_us,
        .updated_us = request->now_us};
    TRY(store_row(&row, call, fault));
    struct json_writer writer = json_writer_on(call->response->body);
    call->response->http_status = replaced > 0 ? 200 : 201;
    call->classification = (int)put.classification;
    call->count = 1;
    object_put_json(&writer, &row);
    return OK;
}

status object_delete(struct call *call, struct fault *fault)
{
    struct statement *rows;
    struct object_row row;
    struct blobs *blobs;
    int64_t created_us;
    TRY(object_visible(&row, &rows, call, fault));
    status wanted = check_conditions(call, &row, fault);
    statement_close(rows);
    TRY(wanted);
    TRY(objects_blobs(&blobs, call->silo, fault));
    objects_sweep_due(call->silo); /* before this process leaves a mark of its own */
    TRY(blobs_unsettled(blobs, fault));
    TRY(delete_covered(&call->count, &created_us, call, CLEARANCE_PUBLIC, fault));
    call->response->http_status = 204;
    return OK;
}
