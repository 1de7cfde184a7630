/* blob.h: large sealed texts, a file each, beside the database: objects.
 *
 * Each has a random name and a random key of its own. Neither is kept here: whoever writes a blob
 * puts both into a row of the database, where they are sealed with the page; without its row a
 * blob is noise, so deleting the row shreds it. A blob is written once, front to back, and never
 * changed. The bytes are specified in docs/file-formats.md: chunks of OBJECT_CHUNK_BYTES by
 * crypt/chunk.h, bound to the silo and to the name. What is read is what was written: a changed,
 * cut, lengthened or foreign file, or a chunk in another place, is CORRUPT, never data.
 *
 * The directory is made on first use. While there may be files in it that no row names (from the
 * first change of a process until blobs_settled) a mark stands in it, so that a crash is known. */
#pragma once

#include "base/buffer.h"
#include "base/limits.h"
#include "crypt/crypt.h"
#include "store/io.h"

#define STORE_BLOBS "objects"

enum { BLOB_ID_BYTES = 16 };

struct blob_id {
    uint8_t bytes[BLOB_ID_BYTES];
};

/* What a row keeps. Holds a key: to be wiped. */
struct blob {
    struct blob_id id;
    uint8_t key[KEY_BYTES];
    uint64_t bytes; /* of the text */
};

struct blobs;       /* the directory */
struct blob_writer; /* both end before it */
struct blob_reader;

/* False: there never was a blob. */
bool blobs_exist(int silo_fd, const struct store_io *io);

/* Touches no file yet. io: NULL for the system's. silo_fd is borrowed. */
MUST_CHECK status blobs_open(struct blobs **ret, int silo_fd,
                             const uint8_t silo_id[TENANT_ID_BYTES], const struct store_io *io,
                             struct fault *fault);
struct blobs *blobs_close(struct blobs *blobs); /* returns NULL; takes NULL */

uint64_t blob_file_bytes(uint64_t bytes); /* of the file of a text of so many */

/* OUT_OF_SPACE, INTERNAL: as all below. */
MUST_CHECK status blob_create(struct blob_writer **ret, struct blobs *blobs, struct fault *fault);
/* TOO_LARGE past OBJECT_BYTES_MAX. After a failure only blob_drop is of use. */
MUST_CHECK status blob_put(struct blob_writer *writer, struct span bytes, struct fault *fault);
/* All has come: durable, name included, when OK. */
MUST_CHECK status blob_end(struct blob_writer *writer, struct fault *fault);
struct blob_id blob_name(const struct blob_writer *writer);
void blob_told(struct blob *ret, const struct blob_writer *writer); /* after blob_end */
/* The file stays, for blob_remove if it is no good. Returns NULL; takes NULL. */
struct blob_writer *blob_drop(struct blob_writer *writer);

/* CORRUPT when the file is missing or has another length. Stays readable when it is removed by way
 * of the same directory. */
MUST_CHECK status blob_open(struct blob_reader **ret, struct blobs *blobs,
                            const struct blob *blob, struct fault *fault);
/* Appends the bytes of the text from there on, at most max. Only their chunks are opened. */
MUST_CHECK status blob_read(struct buffer *out, struct blob_reader *reader, uint64_t from,
                            uint64_t max, struct fault *fault);
/* For files that blob_raw_create made: their content is there after a power cut. */
MUST_CHECK status blob_sync(struct blob_reader *reader, struct fault *fault);
struct blob_reader *blob_close(struct blob_reader *reader); /* returns NULL; takes NULL */

/* Before the first change that may leave a file without a row: sets the mark. Once a process. */
MUST_CHECK status blobs_unsettled(struct blobs *blobs, struct fault *fault);
/* Every file has its row: takes the mark away. */
void blobs_settled(struct blobs *blobs);
uint64_t blob_size(struct blobs *blobs, const struct blob_id *id); /* of the file; 0: none */

/* Was there a mark when this process came? */
MUST_CHECK status blobs_were_unsettled(bool *ret, struct blobs *blobs, struct fault *fault);

/* To free a gigabyte takes a file system half a second: a file that is larger than what is left of
 * *budget loses so many bytes at its end, and *ret_gone is false; one that is being read, nothing.
 * Takes from the budget what was freed. Also when there is none of that name. */
MUST_CHECK status blob_remove(bool *ret_gone, uint64_t *budget, struct blobs *blobs,
                              const struct blob_id *id, struct fault *fault);
bool blob_is_read(const struct blobs *blobs, const struct blob_id *id);

/* The names of all files, piece by piece: begins anew with from_start. No more: *ret_count is 0. */
MUST_CHECK status blobs_list(struct blob_id ret[STORE_LISTED_MAX], uint32_t *ret_count,
                             struct blobs *blobs, bool from_start, struct fault *fault);

/* ---- sealed files as they lie there: for backups and restores ---- */

/* *ret: the caller's to close. NOT_FOUND. */
MUST_CHECK status blob_raw_open(int *ret, uint64_t *ret_bytes, struct blobs *blobs,
                                const struct blob_id *id, struct fault *fault);
/* One that is not there yet, else CONFLICT. The mark must be set. */
MUST_CHECK status blob_raw_create(int *ret, struct blobs *blobs, const struct blob_id *id,
                                  struct fault *fault);
/* All that was created is there after a power cut; their contents: blob_sync. */
MUST_CHECK status blobs_sync(struct blobs *blobs, struct fault *fault);
