#define _GNU_SOURCE /* strerrordesc_np */
#include "store/io.h"

#include "base/cleanup.h"
#include "base/limits.h"
#include "store/disk.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define UNINTERRUPTED(call)                     \
    (__extension__({                            \
        __typeof__(call) result;                \
        do                                      \
            result = (call);                    \
        while (result == -1 && errno == EINTR); \
        result;                                 \
    }))

static int system_open(void *context, int silo_fd, const char *name, int flags, mode_t mode)
{
    (void)context;
    /* a pipe that somebody has put there is never waited for */
    return UNINTERRUPTED(openat(silo_fd, name, flags | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, mode));
}

static int system_close(void *context, int fd)
{
    (void)context;
    return close(fd);
}

static ssize_t system_read(void *context, int fd, void *bytes, size_t length, off_t offset)
{
    (void)context;
    return UNINTERRUPTED(pread(fd, bytes, length, offset));
}

static ssize_t system_write(void *context, int fd, const void *bytes, size_t length, off_t offset)
{
    (void)context;
    return UNINTERRUPTED(pwrite(fd, bytes, length, offset));
}

static int system_sync(void *context, int fd)
{
    (void)context;
    return UNINTERRUPTED(fdatasync(fd));
}

static int system_truncate(void *context, int fd, off_t size)
{
    (void)context;
    return UNINTERRUPTED(ftruncate(fd, size));
}

static off_t system_size(void *context, int fd)
{
    (void)context;
    struct stat found;
    return fstat(fd, &found) == 0 ? found.st_size : -1;
}

static int system_lock(void *context, int fd)
{
    (void)context;
    return UNINTERRUPTED(flock(fd, LOCK_EX | LOCK_NB));
}

static int system_rename(void *context, int silo_fd, const char *from, const char *to)
{
    (void)context;
    return renameat(silo_fd, from, silo_fd, to);
}

static int system_sync_names(void *context, int silo_fd)
{
    (void)context;
    /* fsync refuses an O_PATH descriptor, so the directory is opened through it */
    _cleanup_close_ int directory =
        UNINTERRUPTED(openat(silo_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    return directory >= 0 ? UNINTERRUPTED(fsync(directory)) : -1;
}

static int system_make_directory(void *context, int silo_fd, const char *name)
{
    (void)context;
    return mkdirat(silo_fd, name, 0700);
}

static int system_remove(void *context, int directory_fd, const char *name)
{
    (void)context;
    return unlinkat(directory_fd, name, 0);
}

static int system_list(void *context, int directory_fd, struct store_listed *ret)
{
    (void)context;
    /* an entry has at least 24 bytes, so never more of them come than there is room for */
    enum { ENTRY_BYTES_MIN = 24 };
    _Alignas(struct dirent64) char entries[STORE_LISTED_MAX * ENTRY_BYTES_MIN];
    static_assert(sizeof entries > sizeof(struct dirent64), "the longest entry fits");
    ssize_t length = getdents64(directory_fd, entries, sizeof entries);
    ret->count = 0;
    if (length < 0)
        return -1;
    for (ssize_t at = 0; at < length;) {
        const struct dirent64 *entry = (const struct dirent64 *)(entries + at);
        at += entry->d_reclen;
        span_to_text(ret->names[ret->count++], STORE_LISTED_TEXT, span_of_text(entry->d_name));
    }
    return 0;
}

static void system_write_out(void *context, int fd, off_t offset, off_t length)
{
    (void)context;
    sync_file_range(fd, offset, length, SYNC_FILE_RANGE_WRITE);
}

static int system_await_written(void *context, int fd, off_t offset, off_t length)
{
    (void)context;
    return UNINTERRUPTED(sync_file_range(fd, offset, length, SYNC_FILE_RANGE_WAIT_BEFORE));
}

static void system_read_ahead(void *context, int fd)
{
    (void)context;
    posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
}

const struct store_io store_io_system = {
    .open = system_open,
    .close = system_close,
    .read = system_read,
    .write = system_write,
    .sync = system_sync,
    .truncate = system_truncate,
    .size = system_size,
    .lock = system_lock,
    .rename = system_rename,
    .sync_names = system_sync_names,
    .make_directory = system_make_directory,
    .remove = system_remove,
    .list = system_list,
    .await_written = system_await_written,
    .write_out = system_write_out,
    .read_ahead = system_read_ahead,
};

ssize_t disk_read(const struct disk *disk, int fd, uint8_t *bytes, size_t length, off_t offset)
{
    size_t done = 0;
    while (done < length) {
        ssize_t count = disk->io->read(disk->io->context, fd, bytes + done, length - done,
                                       offset + (off_t)done);
        if (count < 0)
            return -1;
        if (count == 0)
            break;
        done += (size_t)count;
    }
    return (ssize_t)done;
}

int disk_write(const struct disk *disk, int fd, struct span bytes, off_t offset)
{
    size_t done = 0;
    while (done < bytes.length) {
        ssize_t count = disk->io->write(disk->io->context, fd, bytes.data + done,
                                        bytes.length - done, offset + (off_t)done);
        if (count < 0)
            return -1;
        if (count == 0) {
            errno = EIO;
            return -1;
        }
        done += (size_t)count;
    }
    return 0;
}

bool disk_is_full(int error)
{
    return error == ENOSPC || error == EDQUOT || error == EFBIG;
}

status disk_failure(const char *what, struct fault *fault)
{
    int error = errno;
    return FAIL(disk_is_full(error) ? OUT_OF_SPACE : INTERNAL, fault, "%s: %s", what,
                strerrordesc_np(error));
}

status store_read_small(struct buffer *ret, int silo_fd, const char *name, struct fault *fault)
{
    const struct disk disk = {.io = &store_io_system, .silo_fd = silo_fd};
    _cleanup_close_ int fd = system_open(NULL, silo_fd, name, O_RDONLY, 0);
    if (fd < 0 && errno == ENOENT)
        return FAIL(NOT_FOUND, fault, "%s does not exist", name);
    off_t size = fd < 0 ? -1 : system_size(NULL, fd);
    if (size < 0)
        return disk_failure(name, fault);
    if (size > STORE_SMALL_FILE_MAX)
        return FAIL(TOO_LARGE, fault, "%s: at most %u bytes are allowed", name,
                    STORE_SMALL_FILE_MAX);
    uint8_t *at = buffer_reserve(ret, (size_t)size);
    if (at == NULL)
        return FAIL(TOO_LARGE, fault, "%s: %lld bytes", name, (long long)size);
    ssize_t count = disk_read(&disk, fd, at, (size_t)size, 0);
    if (count < 0)
        return disk_failure(name, fault);
    if (count != size)
        return FAIL(TRUNCATED, fault, "%s became shorter while it was read", name);
    buffer_advance(ret, (size_t)count);
    return OK;
}

status store_write_small(int silo_fd, const char *name, struct span bytes, struct fault *fault)
{
    const struct disk disk = {.io = &store_io_system, .silo_fd = silo_fd};
    char fresh[NAME_MAX + 1];
    struct buffer text = buffer_over((uint8_t *)fresh, sizeof fresh - 1);
    buffer_put_text(&text, name);
    buffer_put_text(&text, ".new");
    TRY(buffer_check(&text, "file name", fault));
    fresh[text.length] = '\0';
    if (bytes.length > STORE_SMALL_FILE_MAX)
        return FAIL(TOO_LARGE, fault, "%s: at most %u bytes are allowed", name,
                    STORE_SMALL_FILE_MAX);
    _cleanup_close_ int fd = system_open(NULL, silo_fd, fresh, O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || disk_write(&disk, fd, bytes, 0) != 0 || system_sync(NULL, fd) != 0 ||
        system_rename(NULL, silo_fd, fresh, name) != 0 || system_sync_names(NULL, silo_fd) != 0)
        return disk_failure(name, fault);
    return OK;
}
