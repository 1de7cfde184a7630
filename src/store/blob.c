/* blob.c. A blob's file is its chunks, one behind the other: chunk n at n * (OBJECT_CHUNK_BYTES +
 * 16), its sealed bytes, then its tag of 16; all but the last have OBJECT_CHUNK_BYTES, and an empty
 * text has one empty chunk. Associated data: the silo's id 16, `B`, the blob's id 16. */
#include "store/blob.h"

#include "base/hex.h"
#include "base/secret.h"
#include "crypt/chunk.h"
#include "store/disk.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

enum {
    CHUNK_BYTES = OBJECT_CHUNK_BYTES,
    SEALED_BYTES = CHUNK_BYTES + AEAD_TAG_BYTES,
    BATCH_CHUNKS = 4,            /* written in one call */
    WRITE_OUT_BYTES = MIB(1),    /* then the disk begins with what it has */
    BEHIND_BYTES = MIB(16),      /* and must be done with what is so far back: so it sets the pace,
                                    and the end finds little to wait for */
    REMOVED_MIN = KIB(64),       /* what a file that is removed costs at least */
    ASSOCIATED_BYTES = TENANT_ID_BYTES + 1 + BLOB_ID_BYTES,
    NAME_TEXT = 2 * BLOB_ID_BYTES + 1,
};
static_assert(OBJECT_BYTES_MAX / CHUNK_BYTES < UINT32_MAX, "a chunk's number is a u32");
static_assert((unsigned)NAME_TEXT <= (unsigned)STORE_LISTED_TEXT, "names are listed whole");

static const char mark[] = "open";

struct blobs {
    struct disk disk;
    uint8_t silo_id[TENANT_ID_BYTES];
    struct chunk_cipher *cipher;
    int directory; /* -1: not opened yet */
    int listing;   /* another descriptor, with a place of its own; -1: none */
    struct blob_reader *readers;
    bool marked;
};

struct blob_writer {
    struct blobs *blobs;
    struct blob_id id;
    struct chunk_key *key;
    int fd;
    bool failed, ended;
    uint64_t bytes;         /* of the text, taken so far */
    uint32_t chunks;        /* sealed so far */
    uint32_t waiting;       /* of them: in the batch */
    size_t held;            /* bytes of the present chunk, in the batch behind those */
    uint64_t written, begun, awaited; /* of the file: written, told to the disk, done by it */
    uint8_t *batch;         /* BATCH_CHUNKS * SEALED_BYTES */
};

struct blob_reader {
    struct blobs *blobs;
    struct blob_reader *next;
    struct blob_id id;
    struct chunk_key *key;
    int fd;
    uint64_t bytes;
    bool loaded;
    uint32_t number;        /* of the chunk that is loaded */
    uint8_t chunk[SEALED_BYTES];
};

status blobs_open(struct blobs **ret, int silo_fd, const uint8_t silo_id[TENANT_ID_BYTES],
                  const struct store_io *io, struct fault *fault)
{
    struct blobs *blobs = calloc(1, sizeof *blobs);
    if (blobs == NULL)
        return FAIL(INTERNAL, fault, "out of memory for objects");
    blobs->disk = (struct disk){.io = io != NULL ? io : &store_io_system, .silo_fd = silo_fd};
    blobs->directory = blobs->listing = -1;
    memcpy(blobs->silo_id, silo_id, TENANT_ID_BYTES);
    status made = chunk_cipher_create(&blobs->cipher, fault);
    if (made != OK) {
        free(blobs);
        return made;
    }
    *ret = blobs;
    return OK;
}

static void close_fd(const struct blobs *blobs, int *fd)
{
    if (*fd >= 0)
        blobs->disk.io->close(blobs->disk.io->context, *fd);
    *fd = -1;
}

struct blobs *blobs_close(struct blobs *blobs)
{
    if (blobs == NULL)
        return NULL;
    close_fd(blobs, &blobs->directory);
    close_fd(blobs, &blobs->listing);
    chunk_cipher_free(blobs->cipher);
    free(blobs);
    return NULL;
}

static int open_directory(const struct blobs *blobs)
{
    const struct store_io *io = blobs->disk.io;
    return io->open(io->context, blobs->disk.silo_fd, STORE_BLOBS, O_RDONLY | O_DIRECTORY, 0);
}

bool blobs_exist(int silo_fd, const struct store_io *io)
{
    const struct blobs blobs = {
        .disk = {.io = io != NULL ? io : &store_io_system, .silo_fd = silo_fd}};
    int fd = open_directory(&blobs);
    bool exist = fd >= 0 || errno != ENOENT;
    close_fd(&blobs, &fd);
    return exist;
}

/* NOT_FOUND: there never was a blob. */
static status enter(struct blobs *blobs, struct fault *fault)
{
    if (blobs->directory >= 0)
        return OK;
    blobs->directory = open_directory(blobs);
    if (blobs->directory >= 0)
        return OK;
    return errno == ENOENT ? NOT_FOUND : disk_failure(STORE_BLOBS, fault);
}

/* The name of the directory is synced also when it was there: whoever made it may have died before
 * it could. */
status blobs_unsettled(struct blobs *blobs, struct fault *fault)
{
    const struct store_io *io = blobs->disk.io;
    if (blobs->marked)
        return OK;
    if (io->make_directory(io->context, blobs->disk.silo_fd, STORE_BLOBS) != 0 && errno != EEXIST)
        return disk_failure(STORE_BLOBS, fault);
    if (io->sync_names(io->context, blobs->disk.silo_fd) != 0)
        return disk_failure(STORE_BLOBS, fault);
    status entered = enter(blobs, fault);
    if (entered == NOT_FOUND)
        return FAIL(INTERNAL, fault, "%s went away", STORE_BLOBS);
    TRY(entered);
    int fd = io->open(io->context, blobs->directory, mark, O_RDWR | O_CREAT, 0600);
    if (fd < 0)
        return disk_failure(STORE_BLOBS, fault);
    close_fd(blobs, &fd);
    if (io->sync_names(io->context, blobs->directory) != 0)
        return disk_failure(STORE_BLOBS, fault);
    blobs->marked = true;
    return OK;
}

void blobs_settled(struct blobs *blobs)
{
    const struct store_io *io = blobs->disk.io;
    if (blobs->directory >= 0) /* where it fails it stands, and the next wake looks in vain */
        io->remove(io->context, blobs->directory, mark);
    blobs->marked = false;
}

status blobs_were_unsettled(bool *ret, struct blobs *blobs, struct fault *fault)
{
    const struct store_io *io = blobs->disk.io;
    status entered = enter(blobs, fault);
    if (entered == NOT_FOUND) {
        *ret = false;
        return OK;
    }
    TRY(entered);
    int fd = io->open(io->context, blobs->directory, mark, O_RDONLY, 0);
    if (fd < 0 && errno != ENOENT)
        return disk_failure(STORE_BLOBS, fault);
    *ret = fd >= 0;
    close_fd(blobs, &fd);
    return OK;
}

uint64_t blob_file_bytes(uint64_t bytes)
{
    uint64_t chunks = bytes / CHUNK_BYTES + (bytes % CHUNK_BYTES != 0 || bytes == 0);
    return bytes + chunks * AEAD_TAG_BYTES;
}

static void name_of(char name[NAME_TEXT], const struct blob_id *id)
{
    hex_encode(name, SPAN_OF(id->bytes));
}

static struct span associated(uint8_t bytes[ASSOCIATED_BYTES], const struct blobs *blobs,
                              const struct blob_id *id)
{
    struct buffer out = buffer_over(bytes, ASSOCIATED_BYTES);
    buffer_put(&out, SPAN_OF(blobs->silo_id));
    buffer_put_u8(&out, 'B');
    buffer_put(&out, SPAN_OF(id->bytes));
    assert(!out.failed && out.length == ASSOCIATED_BYTES);
    return buffer_span(&out);
}

/* ---- writing ---- */

static status start_file(struct blob_writer *writer, struct fault *fault)
{
    const struct blobs *blobs = writer->blobs;
    const struct store_io *io = blobs->disk.io;
    char name[NAME_TEXT];
    writer->batch = malloc((size_t)BATCH_CHUNKS * SEALED_BYTES);
    if (writer->batch == NULL)
        return FAIL(INTERNAL, fault, "out of memory for an object");
    TRY(chunk_key_create(&writer->key, NULL, fault));
    crypt_random(writer->id.bytes, sizeof writer->id.bytes);
    name_of(name, &writer->id);
    writer->fd = io->open(io->context, blobs->directory, name, O_RDWR | O_CREAT | O_EXCL, 0600);
    return writer->fd >= 0 ? OK : disk_failure("object", fault);
}

status blob_create(struct blob_writer **ret, struct blobs *blobs, struct fault *fault)
{
    TRY(blobs_unsettled(blobs, fault));
    struct blob_writer *writer = calloc(1, sizeof *writer);
    if (writer == NULL)
        return FAIL(INTERNAL, fault, "out of memory for an object");
    writer->blobs = blobs;
    writer->fd = -1;
    status started = start_file(writer, fault);
    if (started != OK) {
        blob_drop(writer);
        return started;
    }
    *ret = writer;
    return OK;
}

static status keep_close(struct blob_writer *writer, struct fault *fault)
{
    const struct store_io *io = writer->blobs->disk.io;
    uint64_t step = writer->written - writer->begun;
    if (step < WRITE_OUT_BYTES)
        return OK;
    io->write_out(io->context, writer->fd, (off_t)writer->begun, (off_t)step);
    writer->begun = writer->written;
    if (writer->begun < BEHIND_BYTES)
        return OK;
    off_t from = (off_t)writer->awaited, to = (off_t)(writer->begun - BEHIND_BYTES);
    if (to > from && io->await_written(io->context, writer->fd, from, to - from) != 0)
        return disk_failure("object", fault);
    writer->awaited = (uint64_t)to;
    return OK;
}

/* The batch begins anew. */
static status write_batch(struct blob_writer *writer, size_t length, struct fault *fault)
{
    const struct disk *disk = &writer->blobs->disk;
    struct span bytes = {writer->batch, length};
    if (disk_write(disk, writer->fd, bytes, (off_t)writer->written) != 0)
        return disk_failure("object", fault);
    writer->written += length;
    writer->waiting = 0;
    return keep_close(writer, fault);
}

static uint8_t *present_chunk(const struct blob_writer *writer)
{
    return writer->batch + (size_t)writer->waiting * SEALED_BYTES;
}

static status seal_chunk(struct blob_writer *writer, bool last, struct fault *fault)
{
    uint8_t bytes[ASSOCIATED_BYTES], *text = present_chunk(writer);
    const struct chunk_place place = {writer->chunks, last};
    size_t length = writer->held;
    chunk_seal(text, text + length, writer->blobs->cipher, writer->key, place,
               (struct span){text, length}, associated(bytes, writer->blobs, &writer->id));
    writer->held = 0;
    writer->chunks++;
    writer->waiting++;
    if (!last && writer->waiting < BATCH_CHUNKS)
        return OK;
    size_t before = (size_t)(writer->waiting - 1) * SEALED_BYTES;
    return write_batch(writer, before + length + AEAD_TAG_BYTES, fault);
}

/* A full chunk waits until more comes: only then it is known not to be the last. */
static status take(struct blob_writer *writer, struct span bytes, struct fault *fault)
{
    while (bytes.length > 0) {
        if (writer->held == CHUNK_BYTES)
            TRY(seal_chunk(writer, false, fault));
        size_t room = CHUNK_BYTES - writer->held;
        size_t count = bytes.length < room ? bytes.length : room;
        memcpy(present_chunk(writer) + writer->held, bytes.data, count);
        writer->held += count;
        writer->bytes += count;
        bytes = (struct span){bytes.data + count, bytes.length - count};
    }
    return OK;
}

static status need_sound(const struct blob_writer *writer, struct fault *fault)
{
    if (writer->failed || writer->ended)
        return FAIL(INTERNAL, fault, "an object that failed, or has ended, takes no more");
    return OK;
}

status blob_put(struct blob_writer *writer, struct span bytes, struct fault *fault)
{
    TRY(need_sound(writer, fault));
    if (bytes.length > OBJECT_BYTES_MAX - writer->bytes)
        return FAIL(TOO_LARGE, fault, "an object has at most %llu bytes",
                    (unsigned long long)OBJECT_BYTES_MAX);
    status taken = take(writer, bytes, fault);
    writer->failed = taken != OK;
    return taken;
}

static status finish(struct blob_writer *writer, struct fault *fault)
{
    const struct store_io *io = writer->blobs->disk.io;
    TRY(seal_chunk(writer, true, fault));
    assert(writer->written == blob_file_bytes(writer->bytes));
    if (io->sync(io->context, writer->fd) != 0 ||
        io->sync_names(io->context, writer->blobs->directory) != 0)
        return disk_failure("object", fault);
    return OK;
}

status blob_end(struct blob_writer *writer, struct fault *fault)
{
    TRY(need_sound(writer, fault));
    status finished = finish(writer, fault);
    writer->failed = finished != OK;
    writer->ended = finished == OK;
    return finished;
}

struct blob_id blob_name(const struct blob_writer *writer)
{
    return writer->id;
}

void blob_told(struct blob *ret, const struct blob_writer *writer)
{
    assert(writer->ended);
    ret->id = writer->id;
    ret->bytes = writer->bytes;
    memcpy(ret->key, chunk_key_bytes(writer->key), sizeof ret->key);
}

struct blob_writer *blob_drop(struct blob_writer *writer)
{
    if (writer == NULL)
        return NULL;
    close_fd(writer->blobs, &writer->fd);
    if (writer->batch != NULL)
        secret_wipe(writer->batch, (size_t)writer->waiting * SEALED_BYTES + writer->held);
    free(writer->batch);
    chunk_key_free(writer->key);
    free(writer);
    return NULL;
}

/* ---- reading ---- */

static status missing(struct fault *fault)
{
    return FAIL(CORRUPT, fault, "the object's bytes are missing");
}

static status open_file(struct blob_reader *reader, const struct blob *blob, struct fault *fault)
{
    const struct store_io *io = reader->blobs->disk.io;
    char name[NAME_TEXT];
    name_of(name, &blob->id);
    TRY(chunk_key_create(&reader->key, blob->key, fault));
    reader->fd = io->open(io->context, reader->blobs->directory, name, O_RDONLY, 0);
    if (reader->fd < 0)
        return errno == ENOENT || errno == ELOOP ? missing(fault) : disk_failure("object", fault);
    off_t size = io->size(io->context, reader->fd);
    if (size < 0)
        return disk_failure("object", fault);
    if ((uint64_t)size != blob_file_bytes(blob->bytes))
        return FAIL(CORRUPT, fault, "the object's file has %lld bytes, not %llu", (long long)size,
                    (unsigned long long)blob_file_bytes(blob->bytes));
    if (blob->bytes > CHUNK_BYTES)
        io->read_ahead(io->context, reader->fd);
    return OK;
}

status blob_open(struct blob_reader **ret, struct blobs *blobs, const struct blob *blob,
                 struct fault *fault)
{
    if (blob->bytes > OBJECT_BYTES_MAX)
        return FAIL(CORRUPT, fault, "an object of a length that none can have");
    status entered = enter(blobs, fault);
    if (entered == NOT_FOUND)
        return missing(fault);
    TRY(entered);
    struct blob_reader *reader = calloc(1, sizeof *reader);
    if (reader == NULL)
        return FAIL(INTERNAL, fault, "out of memory for an object");
    *reader = (struct blob_reader){.blobs = blobs, .id = blob->id, .fd = -1,
                                   .bytes = blob->bytes};
    reader->next = blobs->readers;
    blobs->readers = reader;
    status opened = open_file(reader, blob, fault);
    if (opened != OK) {
        blob_close(reader);
        return opened;
    }
    *ret = reader;
    return OK;
}

struct blob_reader *blob_close(struct blob_reader *reader)
{
    if (reader == NULL)
        return NULL;
    struct blob_reader **at = &reader->blobs->readers;
    while (*at != reader)
        at = &(*at)->next;
    *at = reader->next;
    close_fd(reader->blobs, &reader->fd);
    chunk_key_free(reader->key);
    secret_wipe(reader->chunk, sizeof reader->chunk);
    free(reader);
    return NULL;
}

static size_t text_of_chunk(const struct blob_reader *reader, uint32_t number)
{
    uint64_t left = reader->bytes - (uint64_t)number * CHUNK_BYTES;
    return left < CHUNK_BYTES ? (size_t)left : CHUNK_BYTES;
}

/* at: room for the chunk and its tag. */
static status open_chunk(uint8_t *at, const struct blob_reader *reader, uint32_t number,
                         struct fault *fault)
{
    uint8_t bytes[ASSOCIATED_BYTES];
    size_t length = text_of_chunk(reader, number);
    const struct chunk_place place = {
        number, (uint64_t)number * CHUNK_BYTES + length == reader->bytes};
    ssize_t got = disk_read(&reader->blobs->disk, reader->fd, at, length + AEAD_TAG_BYTES,
                            (off_t)number * SEALED_BYTES);
    if (got < 0)
        return disk_failure("object", fault);
    if ((size_t)got != length + AEAD_TAG_BYTES)
        return FAIL(CORRUPT, fault, "the object's file became shorter");
    return chunk_open(at, at + length, reader->blobs->cipher, reader->key, place,
                      (struct span){at, length},
                      associated(bytes, reader->blobs, &reader->id), fault);
}

/* The chunk as a whole, without a copy on its way. */
static status read_whole(struct buffer *out, struct blob_reader *reader, uint32_t number,
                         struct fault *fault)
{
    uint8_t *at = buffer_reserve(out, text_of_chunk(reader, number) + AEAD_TAG_BYTES);
    if (at == NULL)
        return FAIL(INTERNAL, fault, "no room for a chunk of an object");
    TRY(open_chunk(at, reader, number, fault));
    buffer_advance(out, text_of_chunk(reader, number));
    return OK;
}

static status read_part(struct buffer *out, struct blob_reader *reader, uint32_t number,
                        size_t from, size_t length, struct fault *fault)
{
    if (!reader->loaded || reader->number != number) {
        reader->loaded = false;
        TRY(open_chunk(reader->chunk, reader, number, fault));
        reader->loaded = true;
        reader->number = number;
    }
    buffer_put(out, (struct span){reader->chunk + from, length});
    return buffer_check(out, "a part of an object", fault);
}

status blob_read(struct buffer *out, struct blob_reader *reader, uint64_t from, uint64_t max,
                 struct fault *fault)
{
    if (from > reader->bytes)
        return FAIL(BAD_FIELD, fault, "behind the object's end");
    uint64_t left = reader->bytes - from < max ? reader->bytes - from : max;
    bool empty = reader->bytes == 0; /* it has a chunk, too, that must be the one written */
    while (left > 0 || empty) {
        uint32_t number = (uint32_t)(from / CHUNK_BYTES);
        size_t within = (size_t)(from % CHUNK_BYTES), length = text_of_chunk(reader, number);
        size_t count = left < length - within ? (size_t)left : length - within;
        if (count == CHUNK_BYTES && out->max - out->length >= SEALED_BYTES)
            TRY(read_whole(out, reader, number, fault));
        else
            TRY(read_part(out, reader, number, within, count, fault));
        from += count;
        left -= count;
        empty = false;
    }
    return OK;
}

status blob_sync(struct blob_reader *reader, struct fault *fault)
{
    const struct store_io *io = reader->blobs->disk.io;
    return io->sync(io->context, reader->fd) == 0 ? OK : disk_failure("object", fault);
}

/* ---- the directory ---- */

bool blob_is_read(const struct blobs *blobs, const struct blob_id *id)
{
    const struct blob_reader *reader = blobs->readers;
    while (reader != NULL && !span_equal(SPAN_OF(reader->id.bytes), SPAN_OF(id->bytes)))
        reader = reader->next;
    return reader != NULL;
}

/* *ret_left: what is too much for the budget. What cannot be opened is small enough. */
static status shorten(uint64_t *ret_left, uint64_t *budget, struct blobs *blobs, const char *name,
                      bool may, struct fault *fault)
{
    const struct store_io *io = blobs->disk.io;
    int fd = io->open(io->context, blobs->directory, name, O_RDWR, 0);
    off_t size = fd < 0 ? 0 : io->size(io->context, fd);
    uint64_t bytes = size < REMOVED_MIN ? REMOVED_MIN : (uint64_t)size;
    uint64_t freed = bytes < *budget ? bytes : *budget;
    bool cut = may && freed < bytes && size > (off_t)freed;
    bool failed = cut && io->truncate(io->context, fd, size - (off_t)freed) != 0;
    status code = failed ? disk_failure("object", fault) : OK;
    close_fd(blobs, &fd);
    TRY(code);
    *ret_left = bytes - freed;
    *budget -= may || *ret_left == 0 ? freed : 0;
    return OK;
}

status blob_remove(bool *ret_gone, uint64_t *budget, struct blobs *blobs, const struct blob_id *id,
                   struct fault *fault)
{
    const struct store_io *io = blobs->disk.io;
    char name[NAME_TEXT];
    uint64_t left = 0;
    status entered = enter(blobs, fault);
    if (entered == NOT_FOUND) {
        *ret_gone = true;
        return OK;
    }
    TRY(entered);
    name_of(name, id);
    TRY(shorten(&left, budget, blobs, name, !blob_is_read(blobs, id), fault));
    if (left == 0 && io->remove(io->context, blobs->directory, name) != 0 && errno != ENOENT)
        return disk_failure("object", fault);
    *ret_gone = left == 0;
    return OK;
}

static status start_listing(struct blobs *blobs, struct fault *fault)
{
    close_fd(blobs, &blobs->listing);
    blobs->listing = open_directory(blobs);
    return blobs->listing >= 0 || errno == ENOENT ? OK : disk_failure(STORE_BLOBS, fault);
}

status blobs_list(struct blob_id ret[STORE_LISTED_MAX], uint32_t *ret_count, struct blobs *blobs,
                  bool from_start, struct fault *fault)
{
    const struct store_io *io = blobs->disk.io;
    struct store_listed listed = {.count = 1};
    struct fault other;
    uint32_t count = 0;
    if (from_start)
        TRY(start_listing(blobs, fault));
    while (blobs->listing >= 0 && listed.count > 0 && count == 0) {
        if (io->list(io->context, blobs->listing, &listed) != 0)
            return disk_failure(STORE_BLOBS, fault);
        for (uint32_t i = 0; i < listed.count; i++)
            if (hex_decode(ret[count].bytes, BLOB_ID_BYTES, span_of_text(listed.names[i]), "name",
                           &other) == OK)
                count++;
    }
    if (count == 0)
        close_fd(blobs, &blobs->listing);
    *ret_count = count;
    return OK;
}

/* ---- sealed files as they lie there ---- */

status blob_raw_open(int *ret, uint64_t *ret_bytes, struct blobs *blobs, const struct blob_id *id,
                     struct fault *fault)
{
    const struct store_io *io = blobs->disk.io;
    char name[NAME_TEXT];
    status entered = enter(blobs, fault);
    if (entered == NOT_FOUND)
        return FAIL(NOT_FOUND, fault, "there are no objects");
    TRY(entered);
    name_of(name, id);
    int fd = io->open(io->context, blobs->directory, name, O_RDONLY, 0);
    if (fd < 0 && errno == ENOENT)
        return FAIL(NOT_FOUND, fault, "an object's file is missing");
    off_t size = fd < 0 ? -1 : io->size(io->context, fd);
    if (size < 0) {
        close_fd(blobs, &fd);
        return disk_failure("object", fault);
    }
    *ret = fd;
    *ret_bytes = (uint64_t)size;
    return OK;
}

status blob_raw_create(int *ret, struct blobs *blobs, const struct blob_id *id,
                       struct fault *fault)
{
    const struct store_io *io = blobs->disk.io;
    char name[NAME_TEXT];
    assert(blobs->marked && blobs->directory >= 0);
    name_of(name, id);
    int fd = io->open(io->context, blobs->directory, name, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (fd < 0 && errno == EEXIST)
        return FAIL(CONFLICT, fault, "an object's file is there already");
    if (fd < 0)
        return disk_failure("object", fault);
    *ret = fd;
    return OK;
}

status blobs_sync(struct blobs *blobs, struct fault *fault)
{
    const struct store_io *io = blobs->disk.io;
    assert(blobs->directory >= 0);
    return io->sync_names(io->context, blobs->directory) == 0 ? OK
                                                              : disk_failure(STORE_BLOBS, fault);
}

uint64_t blob_size(struct blobs *blobs, const struct blob_id *id)
{
    const struct store_io *io = blobs->disk.io;
    char name[NAME_TEXT];
    struct fault ignored;
    if (enter(blobs, &ignored) != OK)
        return 0;
    name_of(name, id);
    int fd = io->open(io->context, blobs->directory, name, O_RDONLY, 0);
    if (fd < 0)
        return 0;
    off_t size = io->size(io->context, fd);
    close_fd(blobs, &fd);
    return size > 0 ? (uint64_t)size : 0;
}
