/* object.h: objects: bytes of any kind and size under a key that the caller names. Shared by the
 * files object_*.c; of other files only silo.c includes it.
 *
 * The bytes are blobs (store/blob.h), one an object instance; the row that names a blob holds its
 * key. Objects belong to the tenant, not to a user. A (key, classification) is one instance: a
 * caller reads the highest it covers, and replaces and deletes all it covers, so what is above its
 * clearance can neither be seen nor felt. Listings go through an index that begins with the
 * classification: what is hidden costs no step.
 *
 * A file outlives its row only until the commit that deleted the row is durable, and never the
 * other way round. What a crash leaves is swept once the silo is used again. */
#pragma once

#include "silo/state.h"

/* One instance as stored. Spans are borrowed from its statement. */
struct object_row {
    int64_t n;
    struct span key, content_type, user_id;
    enum clearance classification;
    struct blob_id blob;
    uint64_t bytes;
    int64_t created_us, updated_us;
};

enum { OBJECT_ETAG_TEXT = 2 * BLOB_ID_BYTES + 3 }; /* with its quotes, and NUL */

/* object_rows.c */

extern const struct store_schema object_schema;
MUST_CHECK status objects_know(struct silo *silo, struct fault *fault);
/* Makes the tables, inside the open transaction. */
MUST_CHECK status objects_make(struct silo *silo, struct fault *fault);
/* The directory of the blobs. */
MUST_CHECK status objects_blobs(struct blobs **ret, struct silo *silo, struct fault *fault);

/* A statement of whole rows by classification and key. NOT_FOUND: no such instance. */
MUST_CHECK status object_find(struct object_row *ret, struct statement **ret_statement,
                              struct silo *silo, enum clearance classification, struct span key,
                              struct fault *fault);
/* What is in the row the statement stands on, of the columns below. CORRUPT. */
#define OBJECT_COLUMNS                                                                    \
    "SELECT n, key, classification, blob, bytes, content_type, user_id, created_at, updated_at " \
    "FROM objects "
MUST_CHECK status object_row_of(struct object_row *ret, struct statement *rows,
                                struct fault *fault);
/* The instance of the path that the caller sees: the highest it covers. NOT_FOUND without one;
 * call->hidden then says whether there is one above its clearance. */
MUST_CHECK status object_visible(struct object_row *ret, struct statement **ret_statement,
                                 struct call *call, struct fault *fault);
/* With the key of its blob: to be wiped. */
MUST_CHECK status object_blob(struct blob *ret, struct silo *silo, const struct object_row *row,
                              struct fault *fault);
void object_put_members(struct json_writer *writer, const struct object_row *row);
void object_put_json(struct json_writer *writer, const struct object_row *row);
void object_etag(char text[OBJECT_ETAG_TEXT], const struct blob_id *blob);
void call_header(struct call *call, enum relay_header kind, struct span value);

/* object_conditions.c: RFC 9110, sections 13 and 14. row: what is there, NULL for nothing. */

/* PRECONDITION_FAILED; BAD_FIELD for a header that cannot be read. *ret_unchanged, for GET and
 * HEAD: answer 304. */
MUST_CHECK status object_conditions(bool *ret_unchanged, const struct call *call,
                                    const struct object_row *row, struct fault *fault);

struct object_part {
    bool partial;
    uint64_t from, length;
};
/* The one part that a GET asked for; the whole where it asked for none, for several, for an older
 * state, or in a way that is not understood. RANGE_NOT_SATISFIABLE. */
MUST_CHECK status object_part(struct object_part *ret, const struct call *call,
                              const struct object_row *row, struct fault *fault);

/* object_write.c, object_read.c, object_list.c */
silo_handler object_put, object_delete, object_get, object_list;

/* object_files.c: what happens to files when rows come and go. For silo.c: */

/* A mutation succeeded: its upload, if it has one, is the row's now. */
void objects_take(struct silo *silo, struct silo_upload *upload);
/* Where the lists were when a mutation began; back there: its savepoint was undone. */
size_t objects_mark(const struct silo *silo);
void objects_undone(struct silo *silo, size_t mark);
void objects_committed(struct silo *silo);
void objects_taken_back(struct silo *silo);
/* Removes, for a few milliseconds, files that no row names: large ones piece by piece, and what a
 * crash may have left. */
MUST_CHECK status objects_sweep(bool *ret_more, struct silo *silo, struct fault *fault);
bool objects_sweep_due(struct silo *silo);
uint64_t objects_bytes(struct silo *silo); /* of files, as the open transaction has them */
void objects_close(struct silo *silo);     /* in good order: the store is closed, all is durable */
void objects_free(struct silo *silo);

/* For object_write.c: no row names the file, or ever did. */
void objects_remove_now(struct silo *silo, const struct blob_id *blob);
/* For object_write.c: the row is gone; its file goes when that is durable. */
void objects_remove_later(struct silo *silo, const struct blob_id *blob);
