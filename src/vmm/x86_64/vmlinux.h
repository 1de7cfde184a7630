/* vmlinux.h: reads the head of an ELF kernel: what to load where, and its PVH entry. The file is
 * the image's, but nothing in it is believed. */
#pragma once

#include "base/span.h"
#include "base/status.h"

enum {
    VMLINUX_SEGMENTS_MAX = 16,
    VMLINUX_PROGRAM_HEADERS_MAX = 64,
    VMLINUX_HEAD_BYTES = 4096, /* ELF header and program headers lie in these */
    VMLINUX_NOTES_BYTES_MAX = 4096,
};

struct vmlinux_segment {
    uint64_t offset, address, file_bytes, memory_bytes;
};

struct vmlinux {
    uint32_t segments;
    uint64_t notes_offset, notes_bytes; /* 0 bytes: no notes */
    struct vmlinux_segment segment[VMLINUX_SEGMENTS_MAX]; /* ascending, disjoint */
};

/* head: the file's first bytes. Segments lie inside file_bytes and between GUEST_LOADED and
 * memory_end. BAD_REQUEST with the reason. */
MUST_CHECK status vmlinux_read(struct vmlinux *ret, struct span head, uint64_t file_bytes,
                               uint64_t memory_end, struct fault *fault);
/* The entry of the Xen note XEN_ELFNOTE_PHYS32_ENTRY; it must lie inside a segment's file bytes. */
MUST_CHECK status vmlinux_entry(uint32_t *ret, const struct vmlinux *kernel, struct span notes,
                                struct fault *fault);
