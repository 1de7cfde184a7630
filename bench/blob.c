/* bench-blob: what an object's file costs. The same bytes in the same pieces, through the store's
 * blobs and through plain AES-256-GCM into a plain file, in turns, in the same directory; both
 * durable at the end. Prints JSON.
 *
 *     bench-blob [DIRECTORY] [MEBIBYTES] [ROUNDS]       default: the current one, 256, 3 */
#define _GNU_SOURCE
#include "crypt/chunk.h"
#include "store/blob.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { PIECE = RELAY_FRAGMENT_MAX, CHUNK = OBJECT_CHUNK_BYTES, ROUNDS_MAX = 20 };
enum side { BLOB, PLAIN, SIDES };
static const char *const side_names[SIDES] = {"blob", "plain"};

struct figures {
    double write[SIDES][ROUNDS_MAX], read[SIDES][ROUNDS_MAX]; /* MiB a second */
};

static uint8_t text[CHUNK + AEAD_TAG_BYTES], sealed[CHUNK + AEAD_TAG_BYTES];
static struct fault fault;

static void need(bool held, const char *what)
{
    if (held)
        return;
    fprintf(stderr, "bench-blob: %s: %s\n", what, fault.detail);
    exit(1);
}

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static double rate(uint64_t bytes, double since)
{
    return (double)bytes / (1 << 20) / (now_s() - since);
}

static void blob_round(int fd, uint64_t bytes, double *write_rate, double *read_rate)
{
    static const uint8_t silo_id[TENANT_ID_BYTES] = "bench-blob";
    struct blobs *blobs;
    struct blob_writer *writer;
    struct blob_reader *reader;
    struct blob blob;
    struct buffer out = buffer_of(2 * CHUNK);
    need(blobs_open(&blobs, fd, silo_id, NULL, &fault) == OK, "blobs_open");
    double since = now_s();
    need(blob_create(&writer, blobs, &fault) == OK, "blob_create");
    for (uint64_t at = 0; at < bytes; at += PIECE)
        need(blob_put(writer, (struct span){text, bytes - at < PIECE ? bytes - at : PIECE},
                      &fault) == OK, "blob_put");
    need(blob_end(writer, &fault) == OK, "blob_end");
    *write_rate = rate(bytes, since);
    blob_told(&blob, writer);
    blob_drop(writer);
    since = now_s();
    need(blob_open(&reader, blobs, &blob, &fault) == OK, "blob_open");
    for (uint64_t at = 0; at < bytes; at += PIECE) {
        buffer_clear(&out);
        need(blob_read(&out, reader, at, PIECE, &fault) == OK, "blob_read");
    }
    *read_rate = rate(bytes, since);
    blob_close(reader);
    uint64_t budget = UINT64_MAX;
    bool gone;
    need(blob_remove(&gone, &budget, blobs, &blob.id, &fault) == OK && gone, "blob_remove");
    blobs_settled(blobs);
    blobs_close(blobs);
    buffer_free(&out);
    unlinkat(fd, STORE_BLOBS, AT_REMOVEDIR);
}

/* A chunk, its tag, one write; no more than that. */
static void plain_round(int fd, uint64_t bytes, double *write_rate, double *read_rate)
{
    struct chunk_cipher *cipher;
    struct chunk_key *key;
    const ssize_t whole = CHUNK + AEAD_TAG_BYTES;
    uint32_t count = (uint32_t)(bytes / CHUNK);
    need(chunk_cipher_create(&cipher, &fault) == OK, "cipher");
    need(chunk_key_create(&key, NULL, &fault) == OK, "key");
    int file = openat(fd, "bench-blob-plain", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    need(file >= 0, "open");
    double since = now_s();
    for (uint32_t i = 0; i < count; i++) {
        chunk_seal(sealed, sealed + CHUNK, cipher, key, (struct chunk_place){i, i + 1 == count},
                   (struct span){text, CHUNK}, SPAN(""));
        need(write(file, sealed, (size_t)whole) == whole, "write");
    }
    need(fdatasync(file) == 0 && lseek(file, 0, SEEK_SET) == 0, "sync");
    *write_rate = rate(bytes, since);
    since = now_s();
    for (uint32_t i = 0; i < count; i++) {
        need(read(file, sealed, (size_t)whole) == whole, "read");
        need(chunk_open(sealed, sealed + CHUNK, cipher, key,
                        (struct chunk_place){i, i + 1 == count}, (struct span){sealed, CHUNK},
                        SPAN(""), &fault) == OK, "open");
    }
    *read_rate = rate(bytes, since);
    close(file);
    unlinkat(fd, "bench-blob-plain", 0);
    chunk_key_free(key);
    chunk_cipher_free(cipher);
}

static int by_size(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static double median(double *rates, int count)
{
    qsort(rates, (size_t)count, sizeof *rates, by_size);
    return rates[count / 2];
}

static void print(struct figures *figures, int mebibytes, int rounds)
{
    double write[SIDES], read[SIDES];
    printf("{\"mebibytes\": %d, \"rounds\": %d", mebibytes, rounds);
    for (int side = 0; side < SIDES; side++) {
        write[side] = median(figures->write[side], rounds);
        read[side] = median(figures->read[side], rounds);
        printf(", \"%s\": {\"write_mib_s\": %.0f, \"read_mib_s\": %.0f}", side_names[side],
               write[side], read[side]);
    }
    printf(", \"of_plain_percent\": {\"write\": %.1f, \"read\": %.1f}}\n",
           100 * write[BLOB] / write[PLAIN], 100 * read[BLOB] / read[PLAIN]);
}

int main(int count, char **arguments)
{
    const char *directory = count > 1 ? arguments[1] : ".";
    int mebibytes = count > 2 ? (int)strtol(arguments[2], NULL, 10) : 256;
    int rounds = count > 3 ? (int)strtol(arguments[3], NULL, 10) : 3;
    static struct figures figures;
    int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    need(fd >= 0 && mebibytes > 0 && rounds > 0 && rounds <= ROUNDS_MAX, directory);
    need(crypt_start(&fault) == OK, "start");
    crypt_random(text, sizeof text);
    for (int i = 0; i < rounds; i++) {
        blob_round(fd, (uint64_t)mebibytes << 20, &figures.write[BLOB][i], &figures.read[BLOB][i]);
        plain_round(fd, (uint64_t)mebibytes << 20, &figures.write[PLAIN][i],
                    &figures.read[PLAIN][i]);
    }
    print(&figures, mebibytes, rounds);
    return 0;
}
