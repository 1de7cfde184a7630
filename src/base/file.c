#include "base/file.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

enum { PIECE_BYTES = 64 * 1024 };

status file_write(int fd, struct span bytes, const char *what, struct fault *fault)
{
    while (bytes.length) {
        ssize_t count = write(fd, bytes.data, bytes.length);
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            return FAIL(errno == ENOSPC || errno == EDQUOT ? OUT_OF_SPACE : INTERNAL, fault,
                        "%.120s: %s", what, strerror(errno));
        bytes = (struct span){bytes.data + count, bytes.length - (size_t)count};
    }
    return OK;
}

status file_read(struct buffer *out, int fd, const char *what, struct fault *fault)
{
    if (lseek(fd, 0, SEEK_SET) < 0 && errno != ESPIPE)
        return FAIL(INTERNAL, fault, "%.120s: %s", what, strerror(errno));
    for (;;) {
        uint8_t piece[PIECE_BYTES];
        ssize_t count = read(fd, piece, sizeof piece);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return FAIL(INTERNAL, fault, "%.120s: %s", what, strerror(errno));
        if (count == 0)
            return buffer_check(out, what, fault);
        buffer_put(out, (struct span){piece, (size_t)count});
        TRY(buffer_check(out, what, fault));
    }
}
