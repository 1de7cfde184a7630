/* chunk.h: divides a text into chunks that overlap, on the best borders within reach: before a
 * Markdown heading (ATX or setext, CommonMark 0.31 4.2 and 4.3), after a blank line, behind a
 * sentence, a word, a code point. Pure; linear in the text, whatever it says. */
#pragma once

#include "base/span.h"
#include "base/status.h"

enum {
    CHUNK_BYTES_MIN = 200,
    CHUNK_BYTES_MAX = 4000,
    CHUNK_HEADING_MAX = 256, /* bytes of a heading path */
    CHUNK_LEVELS = 6,
};

struct chunk_options {
    uint32_t bytes;   /* CHUNK_BYTES_MIN..CHUNK_BYTES_MAX: no chunk is longer */
    uint32_t overlap; /* at most half of that */
};

/* How far a text was read; an inner struct. */
struct chunk_scanner {
    struct span text;
    size_t at;
    bool in_line, line_blank, blank_before; /* the present line; the one before it */
    bool fenced;
    uint8_t fence;                   /* its character */
    bool stop, after_stop, after_blank; /* a full stop, and blanks behind it */
    struct span headings[CHUNK_LEVELS];
};

struct chunker {
    struct chunk_options options;
    struct chunk_scanner scanner; /* at the beginning of the next chunk's own bytes */
    bool under_heading;           /* a heading stands there: nothing is carried over it */
    char heading[CHUNK_HEADING_MAX];
};

struct chunk {
    struct span text;    /* never empty, valid UTF-8 where the whole is */
    uint32_t overlap;    /* bytes at the front that the chunk before ends with */
    struct span heading; /* "Guide > Install": borrowed until the next call */
};

/* text: valid UTF-8, borrowed. */
struct chunker chunker_of(struct span text, struct chunk_options options);
/* False: that was all. Chunks without their overlaps, one behind the other, are the text. */
bool chunk_next(struct chunk *ret, struct chunker *chunker);
