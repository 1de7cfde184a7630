#define _GNU_SOURCE
#include "supervisor/removal.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/span.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    DEPTH_MAX = 16,
    STEP_FILES = 64,
    STEP_BYTES = MIB(16),
};

/* What is done at each entry, what is inside a directory first. */
struct walk {
    struct removal *count;
    bool removes;
    bool bounded;      /* then: */
    int top;           /* what is cleared */
    uint32_t files;    /* may still be removed */
    uint64_t bytes;
    bool more;         /* something had to stay */
};

static status walk_inside(struct walk *walk, int directory, int depth, struct fault *fault);

/* The end of a file that is too large for one step. */
static status shorten(struct walk *walk, int parent, const char *name, uint64_t size,
                      struct fault *fault)
{
    _cleanup_close_ int fd = openat(parent, name, O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 || ftruncate(fd, (off_t)(size - walk->bytes)))
        return FAIL(INTERNAL, fault, "remove: truncate: %s", strerror(errno));
    walk->bytes = 0;
    walk->more = true;
    return OK;
}

/* Holes cost nothing. */
static uint64_t freed_by(const struct stat *info)
{
    uint64_t held = (uint64_t)info->st_blocks * 512, said = (uint64_t)info->st_size;
    return !S_ISREG(info->st_mode) ? 0 : held < said ? held : said;
}

static status remove_entry(struct walk *walk, int parent, const char *name,
                           const struct stat *info, struct fault *fault)
{
    uint64_t size = freed_by(info);
    if (walk->bounded && (walk->files == 0 || walk->bytes == 0)) {
        walk->more = true;
        return OK;
    }
    if (walk->bounded && size > walk->bytes)
        return shorten(walk, parent, name, (uint64_t)info->st_size, fault);
    walk->files -= walk->bounded;
    walk->bytes -= walk->bounded ? size : 0;
    if (unlinkat(parent, name, S_ISDIR(info->st_mode) ? AT_REMOVEDIR : 0) && errno != ENOENT)
        return FAIL(INTERNAL, fault, "remove: unlink: %s", strerror(errno));
    return OK;
}

/* What lies too deep is cleared from the top, by a later step. */
static status lift(struct walk *walk, int parent, const char *name, struct fault *fault)
{
    static uint32_t lifted;
    char fresh[48];
    snprintf(fresh, sizeof fresh, "deep.%lld.%u", (long long)clock_wall_us(), lifted++);
    if (renameat(parent, name, walk->top, fresh))
        return FAIL(INTERNAL, fault, "remove: rename: %s", strerror(errno));
    walk->more = true;
    return OK;
}

static status walk_entry(struct walk *walk, int parent, const char *name, int depth,
                         struct fault *fault)
{
    struct stat info;
    bool more_before = walk->more;
    if (fstatat(parent, name, &info, AT_SYMLINK_NOFOLLOW))
        return errno == ENOENT ? OK : FAIL(INTERNAL, fault, "remove: stat: %s", strerror(errno));
    if (S_ISDIR(info.st_mode)) {
        if (walk->bounded && depth >= DEPTH_MAX)
            return lift(walk, parent, name, fault);
        _cleanup_close_ int fd = openat(parent, name,
                                        O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0)
            return FAIL(INTERNAL, fault, "remove: open: %s", strerror(errno));
        walk->more = false;
        TRY(walk_inside(walk, fd, depth + 1, fault));
        bool emptied = !walk->more;
        walk->more |= more_before;
        if (!emptied)
            return OK;
    } else {
        walk->count->files++;
        walk->count->bytes += (uint64_t)info.st_size;
    }
    return walk->removes ? remove_entry(walk, parent, name, &info, fault) : OK;
}

static status walk_inside(struct walk *walk, int directory, int depth, struct fault *fault)
{
    if (depth > DEPTH_MAX)
        return FAIL(TOO_LARGE, fault, "remove: folders nested deeper than %d", DEPTH_MAX);
    int copy = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *entries = copy >= 0 ? fdopendir(copy) : NULL;
    if (!entries) {
        if (copy >= 0)
            close(copy);
        return FAIL(INTERNAL, fault, "remove: read: %s", strerror(errno));
    }
    status result = OK;
    bool goes_on = walk->bounded && depth == 0; /* one that fails holds up no other */
    for (struct dirent *entry; (result == OK || goes_on) && (entry = readdir(entries));) {
        if (walk->bounded && walk->more && (walk->files == 0 || walk->bytes == 0))
            break;
        if (span_is(SPAN("."), entry->d_name) || span_is(SPAN(".."), entry->d_name))
            continue;
        struct fault why;
        status gone = walk_entry(walk, directory, entry->d_name, depth, &why);
        if (gone != OK && result == OK)
            result = FAIL(gone, fault, "%s", why.detail);
    }
    closedir(entries);
    return result;
}

status removal_count(struct removal *count, int parent, const char *name, struct fault *fault)
{
    struct walk walk = {.count = count};
    return walk_entry(&walk, parent, name, 0, fault);
}

status removal_all(int parent, const char *name, struct fault *fault)
{
    struct removal count = {0};
    struct walk walk = {.count = &count, .removes = true};
    return walk_entry(&walk, parent, name, 0, fault);
}

status removal_step(bool *ret_more, int directory, struct fault *fault)
{
    struct removal count = {0};
    struct walk walk = {.count = &count, .removes = true, .bounded = true, .files = STEP_FILES,
                        .bytes = STEP_BYTES, .top = directory};
    TRY(walk_inside(&walk, directory, 0, fault));
    *ret_more = walk.more;
    return OK;
}
