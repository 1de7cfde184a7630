/* disk.h: inner header of the room: whole reads and writes over the table of calls. */
#pragma once

#include "store/io.h"

struct disk {
    const struct store_io *io;
    int silo_fd;
};

/* Bytes read: fewer than length only at the end of the file; -1 and errno. */
ssize_t disk_read(const struct disk *disk, int fd, uint8_t *bytes, size_t length, off_t offset);

/* All of it or -1 and errno (then any part may have been written). */
int disk_write(const struct disk *disk, int fd, struct span bytes, off_t offset);

bool disk_is_full(int error); /* an errno that means: no space, by disk or quota */

/* OUT_OF_SPACE or INTERNAL from errno. */
status disk_failure(const char *what, struct fault *fault);
