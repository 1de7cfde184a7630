#define _GNU_SOURCE
#include "supervisor/silos.h"

#include "base/cleanup.h"
#include "base/hex.h"
#include "jail/spawn.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

enum { REMOVE_DEPTH_MAX = 16, PATH_DEPTH_MAX = 256 };

static status open_directory(int *ret, int parent, const char *name, mode_t mode,
                             struct fault *fault)
{
    if (mkdirat(parent, name, mode) && errno != EEXIST)
        return FAIL(errno == ENOSPC ? OUT_OF_SPACE : INTERNAL, fault, "%.120s: mkdir: %s", name,
                    strerror(errno));
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return FAIL(INTERNAL, fault, "%.120s: %s", name, strerror(errno));
    *ret = fd;
    return OK;
}

static status lock(int run, struct fault *fault)
{
    int fd = openat(run, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return FAIL(INTERNAL, fault, "run/lock: %s", strerror(errno));
    if (flock(fd, LOCK_EX | LOCK_NB)) {
        close(fd);
        return FAIL(CONFLICT, fault, "another bulkhead serves this data directory already");
    }
    return OK; /* held until the process ends */
}

status silos_open(struct silos *ret, const char *data, bool shared_id, struct fault *fault)
{
    struct silos silos = {.shared_id = shared_id};
    TRY(open_directory(&silos.data, AT_FDCWD, data, 0700, fault));
    TRY(open_directory(&silos.run, silos.data, "run", 0700, fault));
    TRY(lock(silos.run, fault));
    TRY(open_directory(&silos.silos, silos.data, "silos", 0700, fault));
    *ret = silos;
    return OK;
}

static status give(int fd, uid_t uid, bool shared_id, const char *name, struct fault *fault)
{
    if ((!shared_id && fchown(fd, uid, uid)) || fchmod(fd, 0700))
        return FAIL(INTERNAL, fault, "%.120s: cannot be given to uid %u: %s", name, uid,
                    strerror(errno));
    return OK;
}

status silos_service(int *ret, const char *path, uid_t uid, bool shared_id, struct fault *fault)
{
    _cleanup_close_ int fd = -1;
    TRY(open_directory(&fd, AT_FDCWD, path, 0700, fault));
    TRY(give(fd, uid, shared_id, path, fault));
    *ret = take_fd(&fd);
    return OK;
}

static bool same_directory(const struct stat *one, const struct stat *other)
{
    return one->st_dev == other->st_dev && one->st_ino == other->st_ino;
}

status silos_keep_apart(const struct silos *silos, int keys, struct fault *fault)
{
    struct stat data, here, above;
    _cleanup_close_ int at = openat(keys, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (at < 0 || fstat(silos->data, &data) || fstat(at, &here))
        return FAIL(INTERNAL, fault, "--keys: %s", strerror(errno));
    for (int depth = 0; depth < PATH_DEPTH_MAX; depth++) {
        if (same_directory(&here, &data))
            return FAIL(BAD_FIELD, fault, "--keys: must not be inside --data: a copy of the data "
                        "must never hold its keys");
        int parent = openat(at, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (parent < 0 || fstat(parent, &above)) {
            if (parent >= 0)
                close(parent);
            return FAIL(INTERNAL, fault, "--keys: its parent: %s", strerror(errno));
        }
        close(at);
        at = parent;
        if (same_directory(&here, &above))
            return OK; /* the root */
        here = above;
    }
    return FAIL(BAD_FIELD, fault, "--keys: folders nested deeper than %d", PATH_DEPTH_MAX);
}

static void name_of(char name[TENANT_ID_TEXT], const uint8_t id[TENANT_ID_BYTES])
{
    hex_encode(name, (struct span){id, TENANT_ID_BYTES});
}

status silos_make(const struct silos *silos, const uint8_t id[TENANT_ID_BYTES], uid_t uid,
                  struct fault *fault)
{
    char name[TENANT_ID_TEXT];
    name_of(name, id);
    _cleanup_close_ int fd = -1;
    TRY(open_directory(&fd, silos->silos, name, 0700, fault));
    TRY(give(fd, uid, silos->shared_id, name, fault));
    if (fsync(fd) || fsync(silos->silos))
        return FAIL(INTERNAL, fault, "silo %s: fsync: %s", name, strerror(errno));
    return OK;
}

status silos_mount(int *ret, const struct silos *silos, const uint8_t id[TENANT_ID_BYTES],
                   uid_t uid, struct fault *fault)
{
    char name[TENANT_ID_TEXT];
    name_of(name, id);
    _cleanup_close_ int fd = openat(silos->silos, name,
                                    O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return FAIL(UNAVAILABLE, fault, "silo %s: %s", name, strerror(errno));
    struct stat info;
    if (fstat(fd, &info))
        return FAIL(INTERNAL, fault, "silo %s: %s", name, strerror(errno));
    if ((!silos->shared_id && info.st_uid != uid) || (info.st_mode & 07777) != 0700)
        return FAIL(CORRUPT, fault, "silo %s: its directory is not uid %u's alone (mode 0700)",
                    name, uid);
    return jail_detached(ret, fd, true, fault);
}

struct removal {
    uint64_t files, bytes;
};

static status remove_inside(int directory, struct removal *count, int depth, struct fault *fault);

static status remove_entry(int parent, const char *name, struct removal *count, int depth,
                           struct fault *fault)
{
    struct stat info;
    if (fstatat(parent, name, &info, AT_SYMLINK_NOFOLLOW))
        return errno == ENOENT ? OK : FAIL(INTERNAL, fault, "remove: stat: %s", strerror(errno));
    bool directory = S_ISDIR(info.st_mode);
    if (directory) {
        _cleanup_close_ int fd = openat(parent, name,
                                        O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0)
            return FAIL(INTERNAL, fault, "remove: open: %s", strerror(errno));
        TRY(remove_inside(fd, count, depth + 1, fault));
    } else {
        count->files++;
        count->bytes += (uint64_t)info.st_size;
    }
    if (unlinkat(parent, name, directory ? AT_REMOVEDIR : 0) && errno != ENOENT)
        return FAIL(INTERNAL, fault, "remove: unlink: %s", strerror(errno));
    return OK;
}

static status remove_inside(int directory, struct removal *count, int depth, struct fault *fault)
{
    if (depth > REMOVE_DEPTH_MAX)
        return FAIL(TOO_LARGE, fault, "remove: folders nested deeper than %d", REMOVE_DEPTH_MAX);
    int copy = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *entries = copy >= 0 ? fdopendir(copy) : NULL;
    if (!entries) {
        if (copy >= 0)
            close(copy);
        return FAIL(INTERNAL, fault, "remove: read: %s", strerror(errno));
    }
    status result = OK;
    for (struct dirent *entry; result == OK && (entry = readdir(entries));)
        if (!span_is(SPAN("."), entry->d_name) && !span_is(SPAN(".."), entry->d_name))
            result = remove_entry(directory, entry->d_name, count, depth, fault);
    closedir(entries);
    return result;
}

status silos_remove(uint64_t *ret_files, uint64_t *ret_bytes, const struct silos *silos,
                    const uint8_t id[TENANT_ID_BYTES], struct fault *fault)
{
    char name[TENANT_ID_TEXT];
    name_of(name, id);
    struct removal count = {0};
    TRY(remove_entry(silos->silos, name, &count, 0, fault));
    if (fsync(silos->silos))
        return FAIL(INTERNAL, fault, "silo %s: fsync: %s", name, strerror(errno));
    *ret_files = count.files;
    *ret_bytes = count.bytes;
    return OK;
}
