/* image_kernel.h: a kernel cut down to what a monitor loads. */
#pragma once

#include "base/buffer.h"

enum {
    KERNEL_PAGE = 4096,
    KERNEL_SEGMENTS_MAX = 16, /* as a monitor takes them */
    KERNEL_GAP_PAGES = 64,    /* a run of so many empty pages is not worth reading */
};

/* Of an ELF kernel (x86-64): its loaded segments and its notes. Sections, symbols and what stands
 * behind them are gone; each segment begins and ends at a page, so that the file's pages can be
 * mapped; the zeros at a segment's end and long ones inside it (which would be read at each boot)
 * are left to the memory that is zero anyway. BAD_REQUEST with what is wrong. */
MUST_CHECK status kernel_cut(struct buffer *out, struct span whole, struct fault *fault);
