#define _GNU_SOURCE
#include "supervisor/silos.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/hex.h"
#include "jail/spawn.h"
#include "supervisor/removal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

enum {
    PATH_DEPTH_MAX = 256,
    REMOVED_AT_ONCE_FILES = 256, /* what is more holds up everybody: it goes step by step */
    REMOVED_AT_ONCE_BYTES = MIB(32),
};

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
    TRY(open_directory(&silos.erased, silos.data, "erased", 0700, fault));
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

enum { NAME_SIZE = TENANT_ID_TEXT + 4 };

static void name_of(char name[NAME_SIZE], const uint8_t id[TENANT_ID_BYTES], const char *suffix)
{
    hex_encode(name, (struct span){id, TENANT_ID_BYTES});
    snprintf(name + 2 * TENANT_ID_BYTES, NAME_SIZE - 2 * TENANT_ID_BYTES, "%.4s", suffix);
}

static status make_named(const struct silos *silos, const char *name, uid_t uid,
                         struct fault *fault)
{
    _cleanup_close_ int fd = -1;
    TRY(open_directory(&fd, silos->silos, name, 0700, fault));
    TRY(give(fd, uid, silos->shared_id, name, fault));
    if (fsync(fd) || fsync(silos->silos))
        return FAIL(INTERNAL, fault, "silo %.40s: fsync: %s", name, strerror(errno));
    return OK;
}

status silos_make(const struct silos *silos, const uint8_t id[TENANT_ID_BYTES], uid_t uid,
                  struct fault *fault)
{
    char name[NAME_SIZE];
    name_of(name, id, "");
    return make_named(silos, name, uid, fault);
}

status silos_make_restored(const struct silos *silos, const uint8_t id[TENANT_ID_BYTES],
                           uid_t uid, struct fault *fault)
{
    char name[NAME_SIZE];
    name_of(name, id, ".new");
    return make_named(silos, name, uid, fault);
}

static status mount_named(int *ret, const struct silos *silos, const char *name, uid_t uid,
                          struct fault *fault)
{
    _cleanup_close_ int fd = openat(silos->silos, name,
                                    O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return FAIL(UNAVAILABLE, fault, "silo %.40s: %s", name, strerror(errno));
    struct stat info;
    if (fstat(fd, &info))
        return FAIL(INTERNAL, fault, "silo %.40s: %s", name, strerror(errno));
    if ((!silos->shared_id && info.st_uid != uid) || (info.st_mode & 07777) != 0700)
        return FAIL(CORRUPT, fault, "silo %.40s: its directory is not uid %u's alone (mode 0700)",
                    name, uid);
    return jail_detached(ret, fd, true, fault);
}

status silos_mount(int *ret, const struct silos *silos, const uint8_t id[TENANT_ID_BYTES],
                   uid_t uid, struct fault *fault)
{
    char name[NAME_SIZE];
    name_of(name, id, "");
    return mount_named(ret, silos, name, uid, fault);
}

status silos_mount_restored(int *ret, const struct silos *silos,
                            const uint8_t id[TENANT_ID_BYTES], uid_t uid, struct fault *fault)
{
    char name[NAME_SIZE];
    name_of(name, id, ".new");
    return mount_named(ret, silos, name, uid, fault);
}

/* Into DATA/erased, under a name that nothing there has: silos_clear takes it piece by piece. */
static status set_aside(const struct silos *silos, const char *name, struct fault *fault)
{
    char aside[NAME_SIZE + 24];
    snprintf(aside, sizeof aside, "%s.%lld", name, (long long)clock_wall_us());
    if (renameat(silos->silos, name, silos->erased, aside) && errno != ENOENT)
        return FAIL(INTERNAL, fault, "silo %.40s: rename: %s", name, strerror(errno));
    if (fsync(silos->erased))
        return FAIL(INTERNAL, fault, "silo %.40s: fsync: %s", name, strerror(errno));
    return OK;
}

/* At once, or set aside where it is large. */
static status remove_named(struct silos_removed *removed, const struct silos *silos,
                           const uint8_t id[TENANT_ID_BYTES], const char *suffix,
                           struct fault *fault)
{
    char name[NAME_SIZE];
    struct removal count = {0};
    struct fault deep;
    name_of(name, id, suffix);
    status counted = removal_count(&count, silos->silos, name, &deep);
    if (counted != OK && counted != TOO_LARGE)
        return FAIL(counted, fault, "%s", deep.detail);
    removed->files += count.files;
    removed->bytes += count.bytes;
    if (counted == TOO_LARGE || count.files > REMOVED_AT_ONCE_FILES
        || count.bytes > REMOVED_AT_ONCE_BYTES) {
        removed->later = true;
        return set_aside(silos, name, fault);
    }
    return removal_all(silos->silos, name, fault);
}

static status sync_names(const struct silos *silos, const uint8_t id[TENANT_ID_BYTES],
                         struct fault *fault)
{
    char name[NAME_SIZE];
    name_of(name, id, "");
    if (fsync(silos->silos))
        return FAIL(INTERNAL, fault, "silo %.40s: fsync: %s", name, strerror(errno));
    return OK;
}

static status rename_if_there(const struct silos *silos, const char *from, const char *to,
                              struct fault *fault)
{
    if (renameat(silos->silos, from, silos->silos, to) && errno != ENOENT)
        return FAIL(INTERNAL, fault, "silo %.40s: rename: %s", from, strerror(errno));
    return OK;
}

/* NAME.new says that it is not finished; NAME.old, that only the removal is left. */
status silos_replace(const struct silos *silos, const uint8_t id[TENANT_ID_BYTES],
                     struct fault *fault)
{
    char name[NAME_SIZE], fresh[NAME_SIZE], old[NAME_SIZE];
    struct stat info;
    name_of(name, id, "");
    name_of(fresh, id, ".new");
    name_of(old, id, ".old");
    if (fstatat(silos->silos, fresh, &info, AT_SYMLINK_NOFOLLOW) == 0) {
        if (fstatat(silos->silos, name, &info, AT_SYMLINK_NOFOLLOW) == 0)
            TRY(set_aside(silos, old, fault));
        TRY(rename_if_there(silos, name, old, fault));
        TRY(rename_if_there(silos, fresh, name, fault));
        TRY(sync_names(silos, id, fault));
    } else if (errno != ENOENT) {
        return FAIL(INTERNAL, fault, "silo %.40s: %s", fresh, strerror(errno));
    }
    TRY(set_aside(silos, old, fault)); /* uncounted: nobody waits for the folder of a cell */
    return sync_names(silos, id, fault);
}

status silos_discard(const struct silos *silos, const uint8_t id[TENANT_ID_BYTES],
                     struct fault *fault)
{
    char fresh[NAME_SIZE];
    name_of(fresh, id, ".new");
    TRY(set_aside(silos, fresh, fault));
    return sync_names(silos, id, fault);
}

status silos_remove(struct silos_removed *ret, const struct silos *silos,
                    const uint8_t id[TENANT_ID_BYTES], struct fault *fault)
{
    static const char *const suffixes[] = {"", ".new", ".old"};
    struct silos_removed removed = {0};
    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++)
        TRY(remove_named(&removed, silos, id, suffixes[i], fault));
    TRY(sync_names(silos, id, fault));
    *ret = removed;
    return OK;
}

status silos_clear(bool *ret_more, const struct silos *silos, struct fault *fault)
{
    return removal_step(ret_more, silos->erased, fault);
}
