/* tar.h: POSIX tar archives (IEEE 1003.1-2017, pax interchange format) as a stream: regular files
 * alone, written by whoever exports, followed by whoever passes the bytes on. Pure: no files.
 *
 * A name that leaves the directory in which it is unpacked cannot be written: no absolute one, no
 * empty, "." or ".." component, no control characters, no backslash. */
#pragma once

#include "base/buffer.h"

enum { TAR_BLOCK_BYTES = 512, TAR_NAME_MAX = 4096 };

/* May it stand in an archive? Well-formed UTF-8 of 1 to TAR_NAME_MAX bytes, and as above. */
bool tar_name_is_safe(struct span name);

/* Asserts that the name is safe. A name beyond ustar's 100 bytes of ASCII, and 8 GiB and more, are
 * told by a pax header before. Then follow exactly so many bytes and tar_put_padding of as many. */
void tar_put_header(struct buffer *out, struct span name, uint64_t bytes, int64_t modified_us);
void tar_put_padding(struct buffer *out, uint64_t bytes);
void tar_put_end(struct buffer *out);

/* ---- following ---- */

/* What is met on the way. Spans are for the call. */
struct tar_eyes {
    void (*member)(void *context, struct span name, uint64_t bytes);
    void (*content)(void *context, struct span bytes); /* of the last member, in pieces */
    void *context;
};

enum { TAR_PAX_MAX = TAR_NAME_MAX + 512 };

/* Only what tar_put_header writes is understood. Zeroed at first. */
struct tar_follower {
    uint8_t block[TAR_BLOCK_BYTES];
    uint32_t in_block;       /* bytes of a header so far */
    uint64_t content, padding; /* bytes of them that are still to come */
    bool is_pax, is_over;
    uint32_t ends;           /* blocks of zeros */
    uint8_t pax[TAR_PAX_MAX];
    uint32_t pax_length;
};

/* The stream in pieces of any size. CORRUPT: no such archive. */
MUST_CHECK status tar_follow(struct tar_follower *follower, const struct tar_eyes *eyes,
                             struct span bytes, struct fault *fault);
/* The stream is over: TRUNCATED when the archive is not. */
MUST_CHECK status tar_follow_end(const struct tar_follower *follower, struct fault *fault);
