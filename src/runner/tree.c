#define _GNU_SOURCE
#include "runner/runner.h"

#include "base/cleanup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>

enum { DEPTH_MAX = 48, ENTRIES_MAX = 1000000, LINK_MAX = 4096 };

struct copying {
    uint32_t entries;
};

static status refused(const char *name, struct fault *fault)
{
    return FAIL(errno == ENOSPC ? OUT_OF_SPACE : UNAVAILABLE, fault, "image: %.60s: %s", name,
                strerror(errno));
}

status runner_copy_file(int to_directory, const char *name, int from, mode_t mode,
                        struct fault *fault)
{
    _cleanup_close_ int file =
        openat(to_directory, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    off_t at = 0; /* a descriptor that others have too keeps its own */
    ssize_t sent = file < 0 ? -1 : 1;
    while (sent > 0)
        sent = sendfile(file, from, &at, 1 << 20);
    if (sent < 0 || fchmod(file, mode & 0777))
        return refused(name, fault);
    return OK;
}

static status copy_link(int to, int from, const char *name, struct fault *fault)
{
    char target[LINK_MAX];
    ssize_t length = readlinkat(from, name, target, sizeof target - 1);
    if (length < 0)
        return refused(name, fault);
    target[length] = '\0';
    if (symlinkat(target, to, name))
        return refused(name, fault);
    return OK;
}

static status copy_regular(int to, int from, const char *name, mode_t mode, struct fault *fault)
{
    _cleanup_close_ int file = openat(from, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (file < 0)
        return refused(name, fault);
    return runner_copy_file(to, name, file, mode, fault);
}

static status copy_level(struct copying *copying, int to, int from, int depth, struct fault *fault);

static status copy_folder(struct copying *copying, int to, int from, const char *name, mode_t mode,
                          int depth, struct fault *fault)
{
    const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    if (mkdirat(to, name, 0700))
        return refused(name, fault);
    _cleanup_close_ int below_to = openat(to, name, flags);
    _cleanup_close_ int below_from = openat(from, name, flags);
    if (below_to < 0 || below_from < 0)
        return refused(name, fault);
    TRY(copy_level(copying, below_to, below_from, depth + 1, fault));
    if (fchmod(below_to, mode & 01777))
        return refused(name, fault);
    return OK;
}

static status copy_entry(struct copying *copying, int to, int from, const char *name, int depth,
                         struct fault *fault)
{
    struct stat info;
    if (++copying->entries > ENTRIES_MAX)
        return FAIL(TOO_LARGE, fault, "image: more than %d entries", ENTRIES_MAX);
    if (fstatat(from, name, &info, AT_SYMLINK_NOFOLLOW))
        return refused(name, fault);
    if (S_ISDIR(info.st_mode))
        return copy_folder(copying, to, from, name, info.st_mode, depth, fault);
    if (S_ISREG(info.st_mode))
        return copy_regular(to, from, name, info.st_mode, fault);
    return S_ISLNK(info.st_mode) ? copy_link(to, from, name, fault) : OK;
}

static status copy_level(struct copying *copying, int to, int from, int depth, struct fault *fault)
{
    if (depth > DEPTH_MAX)
        return FAIL(TOO_LARGE, fault, "image: more than %d folders deep", DEPTH_MAX);
    int copy = openat(from, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *entries = copy < 0 ? NULL : fdopendir(copy);
    if (!entries) {
        cleanup_close(&copy);
        return refused("folder", fault);
    }
    status code = OK;
    const struct dirent *entry;
    while (code == OK && (entry = readdir(entries)))
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            code = copy_entry(copying, to, from, entry->d_name, depth, fault);
    closedir(entries);
    return code;
}

status runner_copy_tree(int to, int from, struct fault *fault)
{
    struct copying copying = {0};
    return copy_level(&copying, to, from, 0, fault);
}
