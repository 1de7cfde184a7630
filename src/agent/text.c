#define _GNU_SOURCE
#include "agent/text.h"

#include "agent/agent.h"
#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

enum { SMALL_BYTES = 4096 };

status errno_status(int error, const char *what, struct fault *fault)
{
    static const struct {
        int error;
        status code;
    } codes[] = {
        {ENOENT, NOT_FOUND}, {ENOTDIR, NOT_FOUND}, {ENXIO, NOT_FOUND},
        {EEXIST, CONFLICT}, {ENOTEMPTY, CONFLICT}, {EBUSY, CONFLICT}, {EISDIR, CONFLICT},
        {EXDEV, CONFLICT}, {ETXTBSY, CONFLICT},
        {EACCES, FORBIDDEN_POLICY}, {EPERM, FORBIDDEN_POLICY}, {EROFS, FORBIDDEN_POLICY},
        {ENOSPC, OUT_OF_SPACE}, {EDQUOT, OUT_OF_SPACE},
        {ENAMETOOLONG, BAD_FIELD}, {EINVAL, BAD_FIELD}, {ELOOP, BAD_FIELD}, {E2BIG, TOO_LARGE},
        {EFBIG, TOO_LARGE}, {ENOEXEC, BAD_FIELD}, {ETIMEDOUT, TIMED_OUT},
        {EMFILE, UNAVAILABLE}, {ENFILE, UNAVAILABLE}, {ENOMEM, UNAVAILABLE},
        {EAGAIN, UNAVAILABLE}, {ECONNREFUSED, UNAVAILABLE}, {ECONNRESET, UNAVAILABLE},
        {EPIPE, UNAVAILABLE}};
    status code = INTERNAL;
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
        if (codes[i].error == error)
            code = codes[i].code;
    return FAIL(code, fault, "%.100s: %s", what, strerror(error));
}

status text_file_read(struct buffer *out, int directory, const char *path, struct fault *fault)
{
    struct stat about;
    _cleanup_close_ int fd = openat(directory, path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &about))
        return errno_status(errno, path, fault);
    if (!S_ISREG(about.st_mode))
        return FAIL(BAD_FIELD, fault, "%.100s: is no file", path);
    for (;;) {
        uint8_t piece[SMALL_BYTES];
        ssize_t count = read(fd, piece, sizeof piece);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return errno_status(errno, path, fault);
        if (count == 0)
            return OK;
        buffer_put(out, (struct span){piece, (size_t)count});
        TRY(buffer_check(out, path, fault));
    }
}

bool text_number(uint64_t *ret, struct span digits)
{
    uint64_t value = 0;
    for (size_t i = 0; i < digits.length; i++)
        if (digits.data[i] < '0' || digits.data[i] > '9'
            || __builtin_mul_overflow(value, 10, &value)
            || __builtin_add_overflow(value, digits.data[i] - (uint8_t)'0', &value))
            return false;
    if (digits.length)
        *ret = value;
    return digits.length > 0;
}

bool text_next(struct span *ret, struct span *rest, uint8_t separator)
{
    if (rest->data == NULL)
        return false;
    size_t end = span_find(*rest, separator);
    *ret = (struct span){rest->data, end};
    if (end == rest->length)
        *rest = (struct span){0};
    else
        *rest = (struct span){rest->data + end + 1, rest->length - end - 1};
    return true;
}

bool text_file_number(uint64_t *ret, int directory, const char *path, const char *name)
{
    uint8_t storage[SMALL_BYTES];
    struct fault fault;
    struct span line, begin = span_of_text(name);
    struct buffer text = buffer_over(storage, sizeof storage);
    /* what is longer than that has its numbers at its beginning */
    if (text_file_read(&text, directory, path, &fault) != OK && text.length == 0)
        return false;
    struct span rest = buffer_span(&text);
    while (text_next(&line, &rest, '\n')) {
        if (!span_starts_with(line, begin))
            continue;
        size_t from = begin.length, to;
        while (from < line.length && line.data[from] == ' ')
            from++;
        for (to = from; to < line.length && line.data[to] >= '0' && line.data[to] <= '9';)
            to++;
        return text_number(ret, (struct span){line.data + from, to - from});
    }
    return false;
}
