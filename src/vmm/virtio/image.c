#define _GNU_SOURCE
#include "vmm/virtio/image.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BITS = 64 };

static uint64_t minimum(uint64_t left, uint64_t right)
{
    return left < right ? left : right;
}

/* Blocks that the bits are about; the last one may reach beyond the base, or the image cuts it. */
static uint64_t base_blocks(const struct image *image)
{
    return (image->base_bytes + IMAGE_BLOCK_BYTES - 1) / IMAGE_BLOCK_BYTES;
}

static size_t words(const struct image *image)
{
    return (size_t)((base_blocks(image) + BITS - 1) / BITS);
}

static bool moved(const struct image *image, uint64_t block)
{
    return block >= base_blocks(image) || image->moved[block / BITS] >> (block % BITS) & 1;
}

static void move(struct image *image, uint64_t block)
{
    if (block < base_blocks(image))
        image->moved[block / BITS] |= UINT64_C(1) << (block % BITS);
}

/* ---- opening ---- */

static status file_bytes(uint64_t *ret, int fd, const char *what, struct fault *fault)
{
    struct stat file;
    if (fd < 0) {
        *ret = 0;
        return OK;
    }
    if (fstat(fd, &file))
        return FAIL(INTERNAL, fault, "%s: fstat: %s", what, strerror(errno));
    if (!S_ISREG(file.st_mode))
        return FAIL(BAD_FIELD, fault, "%s: must be a regular file", what);
    *ret = (uint64_t)file.st_size;
    return OK;
}

static int punch(const struct image *image, uint64_t offset, uint64_t bytes)
{
    int done;
    do {
        done = fallocate(image->overlay, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                         (off_t)offset, (off_t)bytes);
    } while (done && errno == EINTR);
    return done;
}

static status open_overlay(struct image *image, struct fault *fault)
{
    uint64_t bytes;
    TRY(file_bytes(&bytes, image->overlay, "overlay", fault));
    if (bytes)
        return FAIL(BAD_FIELD, fault, "overlay: must be empty");
    if (ftruncate(image->overlay, (off_t)image->bytes))
        return FAIL(OUT_OF_SPACE, fault, "overlay: ftruncate: %s", strerror(errno));
    image->punches = punch(image, 0, IMAGE_BLOCK_BYTES) == 0;
    /* pages of it that were never touched cost nothing, however large the base */
    image->moved = calloc(words(image) ? words(image) : 1, sizeof *image->moved);
    if (!image->moved)
        return FAIL(OUT_OF_SPACE, fault, "block device: out of memory");
    return OK;
}

status image_open(struct image *ret, int base, int overlay, uint64_t bytes, struct fault *fault)
{
    struct image image = {.base = base, .overlay = overlay, .bytes = bytes};
    uint64_t base_bytes;
    TRY(file_bytes(&base_bytes, base, "base", fault));
    image.base_bytes = minimum(base_bytes, bytes);
    if (overlay >= 0)
        TRY(open_overlay(&image, fault));
    *ret = image;
    return OK;
}

void image_close(struct image *image)
{
    if (image->base >= 0)
        close(image->base);
    if (image->overlay >= 0)
        close(image->overlay);
    free(image->moved);
    *image = (struct image){.base = -1, .overlay = -1};
}

/* ---- segments ---- */

struct pieces { /* what is left of a chain's segments */
    struct iovec *at;
    uint32_t count;
};

static void skip(struct pieces *pieces, uint64_t bytes)
{
    while (pieces->count && bytes >= pieces->at->iov_len) {
        bytes -= pieces->at->iov_len;
        pieces->at++;
        pieces->count--;
    }
    if (pieces->count) {
        pieces->at->iov_base = (uint8_t *)pieces->at->iov_base + bytes;
        pieces->at->iov_len -= bytes;
    }
}

enum direction { FROM_FILE, TO_FILE };

/* One call where the host takes all of it at once, from and to the guest's memory itself. A file
 * that is shorter than it was ends it. */
static bool move_bytes(struct pieces *pieces, uint64_t bytes, int fd, uint64_t offset,
                       enum direction direction)
{
    while (bytes) {
        uint32_t count = 0;
        uint64_t held = 0;
        while (held < bytes)
            held += pieces->at[count++].iov_len;
        struct iovec *last = &pieces->at[count - 1];
        size_t surplus = (size_t)(held - bytes);
        last->iov_len -= surplus;
        ssize_t done = direction == FROM_FILE
            ? preadv(fd, pieces->at, (int)count, (off_t)offset)
            : pwritev(fd, pieces->at, (int)count, (off_t)offset);
        last->iov_len += surplus;
        if (done == 0 || (done < 0 && errno != EINTR))
            return false;
        if (done < 0)
            continue;
        skip(pieces, (uint64_t)done);
        offset += (uint64_t)done;
        bytes -= (uint64_t)done;
    }
    return true;
}

static void fill_zeros(struct pieces *pieces, uint64_t bytes)
{
    while (bytes) {
        size_t piece = minimum(bytes, pieces->at->iov_len);
        memset(pieces->at->iov_base, 0, piece);
        skip(pieces, piece);
        bytes -= piece;
    }
}

/* ---- reading ---- */

enum source { ZEROS, BASE, OVERLAY };

/* Where the bytes from offset on lie, and in *ret_end to where they all lie there. */
static enum source source_at(uint64_t *ret_end, const struct image *image, uint64_t offset,
                             uint64_t end)
{
    uint64_t block = offset / IMAGE_BLOCK_BYTES, blocks = base_blocks(image);
    bool in_overlay = image->overlay >= 0 && moved(image, block);
    *ret_end = end;
    if (image->overlay >= 0) {
        while (block < blocks && moved(image, block) == in_overlay
               && block * IMAGE_BLOCK_BYTES < end)
            block++;
        if (block < blocks || !in_overlay)
            *ret_end = minimum(end, block * IMAGE_BLOCK_BYTES);
    }
    if (in_overlay)
        return OVERLAY;
    if (offset >= image->base_bytes)
        return ZEROS;
    *ret_end = minimum(*ret_end, image->base_bytes);
    return BASE;
}

bool image_read(const struct image *image, uint64_t offset, uint64_t bytes, struct iovec *segments,
                uint32_t count)
{
    struct pieces pieces = {segments, count};
    uint64_t end = offset + bytes, next;
    for (; offset < end; offset = next) {
        enum source source = source_at(&next, image, offset, end);
        if (source == ZEROS)
            fill_zeros(&pieces, next - offset);
        else if (!move_bytes(&pieces, next - offset,
                             source == BASE ? image->base : image->overlay, offset, FROM_FILE))
            return false;
    }
    return true;
}

/* ---- writing ---- */

/* A block of which only a part will be written takes its other bytes along. */
static bool move_whole(struct image *image, uint64_t block)
{
    if (moved(image, block))
        return true;
    uint8_t bytes[IMAGE_BLOCK_BYTES];
    uint64_t offset = block * IMAGE_BLOCK_BYTES;
    uint64_t size = minimum(sizeof bytes, image->bytes - offset);
    struct iovec from = {bytes, (size_t)size}, to = {bytes, (size_t)size};
    struct pieces written = {&to, 1};
    if (!image_read(image, offset, size, &from, 1)
        || !move_bytes(&written, size, image->overlay, offset, TO_FILE))
        return false;
    move(image, block);
    return true;
}

static bool move_edges(struct image *image, uint64_t offset, uint64_t end)
{
    if (offset % IMAGE_BLOCK_BYTES && !move_whole(image, offset / IMAGE_BLOCK_BYTES))
        return false;
    return end % IMAGE_BLOCK_BYTES == 0 || end == image->bytes
        || move_whole(image, end / IMAGE_BLOCK_BYTES);
}

static void move_all(struct image *image, uint64_t offset, uint64_t end)
{
    end = minimum(end, base_blocks(image) * IMAGE_BLOCK_BYTES);
    for (uint64_t block = offset / IMAGE_BLOCK_BYTES; block * IMAGE_BLOCK_BYTES < end; block++)
        move(image, block);
}

bool image_write(struct image *image, uint64_t offset, uint64_t bytes, struct iovec *segments,
                 uint32_t count)
{
    struct pieces pieces = {segments, count};
    if (!move_edges(image, offset, offset + bytes)
        || !move_bytes(&pieces, bytes, image->overlay, offset, TO_FILE))
        return false;
    move_all(image, offset, offset + bytes);
    return true;
}

bool image_zero(struct image *image, uint64_t offset, uint64_t bytes)
{
    if (bytes == 0)
        return true;
    if (!move_edges(image, offset, offset + bytes) || punch(image, offset, bytes))
        return false;
    move_all(image, offset, offset + bytes);
    return true;
}

bool image_discard(struct image *image, uint64_t offset, uint64_t bytes)
{
    uint64_t end = offset + bytes;
    uint64_t first = (offset + IMAGE_BLOCK_BYTES - 1) / IMAGE_BLOCK_BYTES * IMAGE_BLOCK_BYTES;
    uint64_t last = end == image->bytes ? end : end / IMAGE_BLOCK_BYTES * IMAGE_BLOCK_BYTES;
    return first >= last || image_zero(image, first, last - first);
}

/* ---- snapshots ---- */

void image_save(const struct image *image, struct buffer *out)
{
    buffer_put_u64(out, image->bytes);
    buffer_put_u64(out, image->base_bytes);
    for (size_t i = 0; image->moved && i < words(image); i++)
        buffer_put_u64(out, image->moved[i]);
}

status image_load(struct image *image, struct cursor *from, struct fault *fault)
{
    uint64_t bytes, base_bytes;
    TRY(cursor_u64(&bytes, from, fault));
    TRY(cursor_u64(&base_bytes, from, fault));
    if (bytes != image->bytes || base_bytes != image->base_bytes)
        return FAIL(CORRUPT, fault, "block: the state is of another image");
    for (size_t i = 0; image->moved && i < words(image); i++)
        TRY(cursor_u64(&image->moved[i], from, fault));
    return OK;
}
