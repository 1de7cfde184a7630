/* io.h: the few calls by which the store touches the disk, as a table, so that tests can cut the
 * power, fill the disk or break the n-th call. Every name is one of the fixed names of store.h,
 * looked up in the silo's directory, or one of blob.h, looked up in the directory of the blobs; no
 * link is followed. */
#pragma once

#include "base/buffer.h"
#include "base/status.h"

#include <sys/types.h>

/* Names of a directory, piece by piece, in no order; "" for one that is longer. */
enum { STORE_LISTED_MAX = 64, STORE_LISTED_TEXT = 64 };
struct store_listed {
    uint32_t count;
    char names[STORE_LISTED_MAX][STORE_LISTED_TEXT];
};

struct store_io {
    void *context;
    /* -1 and errno on failure, as the system calls of these names; none is ever interrupted */
    int (*open)(void *context, int silo_fd, const char *name, int flags, mode_t mode);
    int (*close)(void *context, int fd);
    ssize_t (*read)(void *context, int fd, void *bytes, size_t length, off_t offset);
    ssize_t (*write)(void *context, int fd, const void *bytes, size_t length, off_t offset);
    int (*sync)(void *context, int fd); /* content and size; not the name */
    int (*truncate)(void *context, int fd, off_t size);
    off_t (*size)(void *context, int fd);
    int (*lock)(void *context, int fd); /* exclusive, never waits; given up by close */
    int (*rename)(void *context, int silo_fd, const char *from, const char *to);
    int (*sync_names)(void *context, int silo_fd); /* creations and renames in the directory */
    /* directories: open takes O_DIRECTORY, sync_names and close a descriptor of one */
    int (*make_directory)(void *context, int silo_fd, const char *name);
    int (*remove)(void *context, int directory_fd, const char *name); /* a file */
    int (*list)(void *context, int directory_fd, struct store_listed *ret); /* none: the end */
    /* waits for what was begun of that part; an error is told only once: here or by sync */
    int (*await_written)(void *context, int fd, off_t offset, off_t length);
    /* hints: begin to write that part out; it will be read from front to back */
    void (*write_out)(void *context, int fd, off_t offset, off_t length);
    void (*read_ahead)(void *context, int fd);
};

extern const struct store_io store_io_system;

/* Small records (at most STORE_SMALL_FILE_MAX) that are replaced whole or not at all: the wrapped
 * data key is one. write: a new file, synced, renamed over the old one, directory synced.
 * read: NOT_FOUND when there is none, TOO_LARGE past the buffer's maximum. silo_fd may be an O_PATH
 * descriptor. */
MUST_CHECK status store_read_small(struct buffer *ret, int silo_fd, const char *name,
                                   struct fault *fault);
MUST_CHECK status store_write_small(int silo_fd, const char *name, struct span bytes,
                                    struct fault *fault);
