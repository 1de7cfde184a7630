#define _GNU_SOURCE
#include "kms/key_files.h"

#include "base/cleanup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define TEMPORARY ".tmp"
#define DOOMED ".gone"

static status disk_failed(const char *name, const char *call, struct fault *fault)
{
    return FAIL(INTERNAL, fault, "%s: %s: %s", name, call, strerror(errno));
}

static status with_suffix(char ret[KEY_FILE_NAME], const char *name, const char *suffix,
                          struct fault *fault)
{
    int length = snprintf(ret, KEY_FILE_NAME, "%s%s", name, suffix);
    if (length < 0 || length >= KEY_FILE_NAME)
        return FAIL(INTERNAL, fault, "%s: a name too long for the key store", name);
    return OK;
}

bool key_file_has_suffix(const char *name, const char *suffix)
{
    struct span whole = span_of_text(name), end = span_of_text(suffix);
    if (whole.length < end.length)
        return false;
    return span_equal((struct span){whole.data + whole.length - end.length, end.length}, end);
}

static status read_exactly(uint8_t *ret, size_t length, int fd, const char *name,
                           struct fault *fault)
{
    for (size_t done = 0; done < length;) {
        ssize_t got = pread(fd, ret + done, length - done, (off_t)done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return disk_failed(name, "read", fault);
        if (got == 0)
            return FAIL(CORRUPT, fault, "%s: damaged: it ends after %zu of %zu bytes", name, done,
                        length);
        done += (size_t)got;
    }
    return OK;
}

status key_file_read(uint8_t *ret, size_t length, int directory, const char *name,
                     struct fault *fault)
{
    /* O_NONBLOCK: a pipe put in the place of a file must not hold the kms up */
    _cleanup_close_ int fd = openat(directory, name,
                                    O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0 && errno == ENOENT)
        return FAIL(NOT_FOUND, fault, "%s: does not exist", name);
    if (fd < 0 && (errno == ELOOP || errno == ENXIO))
        return FAIL(CORRUPT, fault, "%s: damaged: not a regular file", name);
    if (fd < 0)
        return disk_failed(name, "open", fault);
    struct stat facts;
    if (fstat(fd, &facts))
        return disk_failed(name, "stat", fault);
    if (!S_ISREG(facts.st_mode))
        return FAIL(CORRUPT, fault, "%s: damaged: not a regular file", name);
    if (facts.st_size != (off_t)length)
        return FAIL(CORRUPT, fault, "%s: damaged: %jd bytes where %zu are due", name,
                    (intmax_t)facts.st_size, length);
    return read_exactly(ret, length, fd, name, fault);
}

static status write_exactly(int fd, const char *name, struct span content, struct fault *fault)
{
    for (size_t done = 0; done < content.length;) {
        ssize_t put = pwrite(fd, content.data + done, content.length - done, (off_t)done);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0 && (errno == ENOSPC || errno == EDQUOT))
            return FAIL(OUT_OF_SPACE, fault, "%s: no space in the key store", name);
        if (put <= 0)
            return disk_failed(name, "write", fault);
        done += (size_t)put;
    }
    if (fsync(fd))
        return disk_failed(name, "fsync", fault);
    return OK;
}

status key_files_settle(int directory, struct fault *fault)
{
    if (fsync(directory))
        return disk_failed("key store directory", "fsync", fault);
    return OK;
}

status key_file_write(int directory, const char *name, unsigned mode, struct span content,
                      struct fault *fault)
{
    char temporary[KEY_FILE_NAME];
    struct stat facts;
    TRY(with_suffix(temporary, name, TEMPORARY, fault));
    if (fstatat(directory, name, &facts, AT_SYMLINK_NOFOLLOW) == 0)
        return FAIL(CONFLICT, fault, "%s: exists already", name);
    if (errno != ENOENT)
        return disk_failed(name, "stat", fault);
    if (unlinkat(directory, temporary, 0) && errno != ENOENT)
        return disk_failed(temporary, "unlink", fault);
    _cleanup_close_ int fd = openat(directory, temporary,
                                    O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
    if (fd < 0)
        return disk_failed(temporary, "open", fault);
    status written = write_exactly(fd, temporary, content, fault);
    if (written == OK && renameat(directory, temporary, directory, name))
        written = disk_failed(name, "rename", fault);
    if (written != OK) {
        (void)unlinkat(directory, temporary, 0); /* else key_files_recover does it */
        return written;
    }
    return key_files_settle(directory, fault);
}

static status overwrite(int directory, const char *name, bool *ret_exists, struct fault *fault)
{
    static const uint8_t zeros[512];
    _cleanup_close_ int fd = openat(directory, name,
                                    O_WRONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    struct stat facts;
    *ret_exists = fd >= 0 || errno != ENOENT;
    if (fd < 0)
        return *ret_exists ? disk_failed(name, "open", fault) : OK;
    if (fstat(fd, &facts))
        return disk_failed(name, "stat", fault);
    /* our own files are smaller than this; what follows in a larger one is no key */
    size_t length = facts.st_size < (off_t)sizeof zeros ? (size_t)facts.st_size : sizeof zeros;
    return write_exactly(fd, name, (struct span){zeros, length}, fault);
}

static status finish_destroying(int directory, const char *doomed, struct fault *fault)
{
    bool exists;
    TRY(overwrite(directory, doomed, &exists, fault));
    if (!exists)
        return OK;
    if (unlinkat(directory, doomed, 0) && errno != ENOENT)
        return disk_failed(doomed, "unlink", fault);
    return key_files_settle(directory, fault);
}

status key_file_destroy(int directory, const char *name, struct fault *fault)
{
    char doomed[KEY_FILE_NAME];
    TRY(with_suffix(doomed, name, DOOMED, fault));
    TRY(finish_destroying(directory, doomed, fault)); /* of an attempt that failed half way */
    /* the new name first: a crash while overwriting must not leave what looks like a damaged key */
    if (renameat(directory, name, directory, doomed)) {
        if (errno != ENOENT)
            return disk_failed(name, "rename", fault);
        return key_files_settle(directory, fault);
    }
    TRY(key_files_settle(directory, fault));
    return finish_destroying(directory, doomed, fault);
}

status key_files_each(int directory, key_file_visit *visit, void *context, struct fault *fault)
{
    int fd = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return disk_failed("key store directory", "open", fault);
    DIR *listing = fdopendir(fd);
    if (!listing) {
        status failed = disk_failed("key store directory", "list", fault);
        close(fd);
        return failed;
    }
    status visited = OK;
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(listing);
        if (!entry && errno)
            visited = disk_failed("key store directory", "list", fault);
        if (!entry)
            break;
        struct span name = span_of_text(entry->d_name);
        if (span_is(name, ".") || span_is(name, ".."))
            continue;
        visited = visit(context, entry->d_name, fault);
        if (visited != OK)
            break;
    }
    closedir(listing);
    return visited;
}

static status recover_one(void *context, const char *name, struct fault *fault)
{
    const int *directory = context;
    if (key_file_has_suffix(name, DOOMED))
        return finish_destroying(*directory, name, fault);
    if (key_file_has_suffix(name, TEMPORARY) && unlinkat(*directory, name, 0) && errno != ENOENT)
        return disk_failed(name, "unlink", fault);
    return OK;
}

status key_files_recover(int directory, struct fault *fault)
{
    return key_files_each(directory, recover_one, &directory, fault);
}
