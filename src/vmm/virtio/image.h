/* image.h: the bytes behind a block device: a base that many share and nobody writes to, and over
 * it a file of this sandbox alone, in whole blocks. For block.c.
 *
 * A bit a block of the base says whether the block lies in the overlay; beyond the base all does,
 * where the overlay's holes are the zeros. */
#pragma once

#include "base/buffer.h"
#include "base/cursor.h"

#include <sys/uio.h>

enum { IMAGE_BLOCK_BYTES = 4096 };

struct image {
    int base, overlay;            /* -1: none */
    uint64_t bytes, base_bytes;   /* the base may be shorter than all of it, or longer */
    uint64_t *moved;              /* bits of the base's blocks that lie in the overlay */
    bool punches;                 /* the overlay's file system gives discarded blocks back */
};

/* Takes the descriptors on success. */
MUST_CHECK status image_open(struct image *ret, int base, int overlay, uint64_t bytes,
                             struct fault *fault);
void image_close(struct image *image);

/* The caller has checked that offset + bytes lies within the image, and that the segments hold so
 * many; they are used up. False: the host could not; what was asked for is then undefined. */
bool image_read(const struct image *image, uint64_t offset, uint64_t bytes, struct iovec *segments,
                uint32_t count);
bool image_write(struct image *image, uint64_t offset, uint64_t bytes, struct iovec *segments,
                 uint32_t count);
/* Reads as zeros from now on; the host gets whole blocks back. */
bool image_zero(struct image *image, uint64_t offset, uint64_t bytes);
/* The same, but edges that are no whole block are left alone. */
bool image_discard(struct image *image, uint64_t offset, uint64_t bytes);

/* Which blocks have moved; the overlay's own bytes are the snapshot's. */
void image_save(const struct image *image, struct buffer *out);
MUST_CHECK status image_load(struct image *image, struct cursor *from, struct fault *fault);
