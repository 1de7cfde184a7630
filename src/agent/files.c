#define _GNU_SOURCE
#include "agent/path.h"
#include "base/cleanup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum {
    LIST_HELD_MAX = 2 * AGENT_LIST_MAX,
    RESULT_MAX = AGENT_DATA_MAX - 64, /* with its head it is one frame */
    MODE_BITS = 07777,
};

/* ---- stat ---- */

static struct agent_entry entry_of(const struct stat *about)
{
    return (struct agent_entry){
        .kind = S_ISREG(about->st_mode)   ? AGENT_FILE
              : S_ISDIR(about->st_mode) ? AGENT_DIRECTORY
              : S_ISLNK(about->st_mode) ? AGENT_LINK
                                          : AGENT_OTHER,
        .mode = about->st_mode & MODE_BITS, .uid = about->st_uid, .gid = about->st_gid,
        .bytes = (uint64_t)about->st_size,
        .changed_us = about->st_mtim.tv_sec * 1000000 + about->st_mtim.tv_nsec / 1000};
}

status file_stat(struct agent *agent, uint32_t id, struct span payload, struct fault *fault)
{
    char path[AGENT_PATH_MAX];
    struct stat about;
    uint8_t storage[64];
    struct cursor cursor = cursor_over(payload);
    struct buffer result = buffer_over(storage, sizeof storage);
    TRY(path_get(path, &cursor, "path", fault));
    TRY(cursor_end(&cursor, fault));
    _cleanup_close_ int fd = path_openat(path, O_PATH | O_NOFOLLOW);
    if (fd < 0 || fstat(fd, &about))
        return errno_status(errno, "path", fault);
    struct agent_entry entry = entry_of(&about);
    agent_entry_put(&result, &entry);
    agent_answer(agent, id, OK, NULL, buffer_span(&result));
    return OK;
}

/* ---- list: the names behind one, in order; never more of them in memory than an answer needs */

struct names {
    char *items[LIST_HELD_MAX];
    uint32_t count;
    bool more;
};

static int by_name(const void *left, const void *right)
{
    return strcmp(*(char *const *)left, *(char *const *)right);
}

static void shorten(struct names *names, uint32_t most)
{
    qsort(names->items, names->count, sizeof *names->items, by_name);
    while (names->count > most) {
        free(names->items[--names->count]);
        names->more = true;
    }
}

static status read_names(struct names *names, DIR *directory, const char *after,
                         struct fault *fault)
{
    struct dirent *entry;
    while ((entry = readdir(directory)) != NULL) {
        const char *name = entry->d_name;
        if (span_is(SPAN("."), name) || span_is(SPAN(".."), name) || strcmp(name, after) <= 0)
            continue;
        if (names->count == LIST_HELD_MAX)
            shorten(names, AGENT_LIST_MAX);
        names->items[names->count] = strdup(name);
        if (names->items[names->count] == NULL)
            return FAIL(UNAVAILABLE, fault, "out of memory");
        names->count++;
    }
    shorten(names, AGENT_LIST_MAX);
    return OK;
}

static uint16_t put_names(struct buffer *out, struct names *names, int directory)
{
    uint16_t count = 0;
    for (uint32_t i = 0; i < names->count; i++) {
        struct stat about;
        if (fstatat(directory, names->items[i], &about, AT_SYMLINK_NOFOLLOW))
            continue; /* it went in between */
        if (out->length + strlen(names->items[i]) + 48 > RESULT_MAX) {
            names->more = true;
            break;
        }
        struct agent_entry entry = entry_of(&about);
        buffer_put_text_field(out, names->items[i]);
        agent_entry_put(out, &entry);
        count++;
    }
    return count;
}

static status list(struct buffer *result, struct names *names, DIR *directory, const char *after,
                   struct fault *fault)
{
    TRY(read_names(names, directory, after, fault));
    buffer_put_u16(result, 0);
    uint16_t count = put_names(result, names, dirfd(directory));
    buffer_put_u8(result, names->more);
    TRY(buffer_check(result, "listing", fault));
    result->data[0] = (uint8_t)(count >> 8);
    result->data[1] = (uint8_t)count;
    return OK;
}

status file_list(struct agent *agent, uint32_t id, struct span payload, struct fault *fault)
{
    char path[AGENT_PATH_MAX], after[PATH_NAME_SIZE];
    struct cursor cursor = cursor_over(payload);
    TRY(path_get(path, &cursor, "path", fault));
    TRY(cursor_text(after, sizeof after, &cursor, "after", fault));
    TRY(cursor_end(&cursor, fault));
    int fd = path_openat(path, O_RDONLY | O_DIRECTORY);
    DIR *directory = fd < 0 ? NULL : fdopendir(fd);
    if (directory == NULL) {
        int error = errno;
        cleanup_close(&fd);
        return errno_status(error, "path", fault);
    }
    struct names *names = calloc(1, sizeof *names);
    struct buffer result = buffer_of(RESULT_MAX);
    status done = FAIL(UNAVAILABLE, fault, "out of memory");
    if (names)
        done = list(&result, names, directory, after, fault);
    if (done == OK)
        agent_answer(agent, id, OK, NULL, buffer_span(&result));
    for (uint32_t i = 0; names && i < names->count; i++)
        free(names->items[i]);
    free(names);
    buffer_free(&result);
    closedir(directory);
    return done;
}

/* ---- move, remove, make ---- */

status file_move(struct agent *agent, uint32_t id, struct span payload, struct fault *fault)
{
    char from[AGENT_PATH_MAX], to[AGENT_PATH_MAX];
    char from_name[PATH_NAME_SIZE], to_name[PATH_NAME_SIZE];
    struct cursor cursor = cursor_over(payload);
    TRY(path_get(from, &cursor, "from", fault));
    TRY(path_get(to, &cursor, "to", fault));
    TRY(cursor_end(&cursor, fault));
    _cleanup_close_ int from_parent = -1;
    _cleanup_close_ int to_parent = -1;
    TRY(path_parent(&from_parent, from_name, from, fault));
    TRY(path_parent(&to_parent, to_name, to, fault));
    if (renameat(from_parent, from_name, to_parent, to_name))
        return errno_status(errno, "move", fault);
    agent_answer(agent, id, OK, NULL, (struct span){0});
    return OK;
}

static status remove_entry(int parent, const char *name, dev_t device, int depth,
                           struct fault *fault);

static status empty(DIR *directory, dev_t device, int depth, struct fault *fault)
{
    struct dirent *entry;
    while ((entry = readdir(directory)) != NULL)
        if (!span_is(SPAN("."), entry->d_name) && !span_is(SPAN(".."), entry->d_name))
            TRY(remove_entry(dirfd(directory), entry->d_name, device, depth, fault));
    return OK;
}

/* By descriptors, so that what is renamed meanwhile leads nowhere else; a link is removed, never
 * followed; what is mounted below stays. */
static status remove_tree(int parent, const char *name, dev_t device, int depth,
                          struct fault *fault)
{
    struct stat about;
    if (depth > AGENT_DEPTH_MAX)
        return FAIL(TOO_LARGE, fault, "remove: deeper than %d directories", AGENT_DEPTH_MAX);
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &about)) {
        int error = errno;
        cleanup_close(&fd);
        return errno_status(error, "remove", fault);
    }
    DIR *directory = about.st_dev == device ? fdopendir(fd) : NULL;
    if (directory == NULL) {
        cleanup_close(&fd);
        return FAIL(CONFLICT, fault, "remove: something is mounted there");
    }
    status done = empty(directory, device, depth + 1, fault);
    closedir(directory);
    TRY(done);
    if (unlinkat(parent, name, AT_REMOVEDIR) && errno != ENOENT)
        return errno_status(errno, "remove", fault);
    return OK;
}

static status remove_entry(int parent, const char *name, dev_t device, int depth,
                           struct fault *fault)
{
    if (unlinkat(parent, name, 0) == 0 || errno == ENOENT)
        return OK;
    if (errno != EISDIR && errno != EPERM)
        return errno_status(errno, "remove", fault);
    return remove_tree(parent, name, device, depth, fault);
}

status file_remove(struct agent *agent, uint32_t id, struct span payload, struct fault *fault)
{
    char path[AGENT_PATH_MAX], name[PATH_NAME_SIZE];
    bool recursive;
    struct stat about;
    TRY(path_get_recursive(path, &recursive, payload, fault));
    _cleanup_close_ int parent = -1;
    TRY(path_parent(&parent, name, path, fault));
    if (fstatat(parent, name, &about, AT_SYMLINK_NOFOLLOW))
        return errno_status(errno, "remove", fault);
    if (S_ISDIR(about.st_mode) && recursive)
        TRY(remove_tree(parent, name, about.st_dev, 0, fault));
    else if (unlinkat(parent, name, S_ISDIR(about.st_mode) ? AT_REMOVEDIR : 0))
        return errno_status(errno, "remove", fault);
    agent_answer(agent, id, OK, NULL, (struct span){0});
    return OK;
}

/* It belongs to whom the directory around it belongs: the host makes it for the guest's user. */
static status make_one(int parent, const char *name, uint32_t mode, struct fault *fault)
{
    struct stat about;
    if (mkdirat(parent, name, 0700))
        return errno_status(errno, "make", fault);
    _cleanup_close_ int made =
        openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (made < 0 || fstat(parent, &about)
        || (geteuid() == 0 && fchown(made, about.st_uid, about.st_gid)) || fchmod(made, mode))
        return errno_status(errno, "make", fault);
    return OK;
}

static status make_parents(char *path, uint32_t mode, struct fault *fault)
{
    for (char *slash = path + 1; (slash = strchr(slash, '/')) != NULL; slash++) {
        char name[PATH_NAME_SIZE];
        _cleanup_close_ int parent = -1;
        *slash = '\0';
        status done = path_parent(&parent, name, path, fault);
        if (done == OK) {
            done = make_one(parent, name, mode | 0700, fault);
            if (done == CONFLICT) /* it is there; if it is no directory the next step says so */
                done = OK;
        }
        *slash = '/';
        TRY(done);
    }
    return OK;
}

status file_make(struct agent *agent, uint32_t id, struct span payload, struct fault *fault)
{
    char path[AGENT_PATH_MAX], name[PATH_NAME_SIZE];
    uint32_t mode;
    uint8_t parents;
    struct cursor cursor = cursor_over(payload);
    TRY(path_get(path, &cursor, "path", fault));
    TRY(cursor_u32(&mode, &cursor, fault));
    TRY(cursor_u8(&parents, &cursor, fault));
    TRY(cursor_end(&cursor, fault));
    if (mode > MODE_BITS || parents > 1)
        return FAIL(BAD_FIELD, fault, "mode: at most 07777; with parents: 0 or 1");
    if (parents)
        TRY(make_parents(path, mode, fault));
    _cleanup_close_ int parent = -1;
    TRY(path_parent(&parent, name, path, fault));
    status done = make_one(parent, name, mode, fault);
    struct stat about;
    if (parents && done == CONFLICT && fstatat(parent, name, &about, AT_SYMLINK_NOFOLLOW) == 0
        && S_ISDIR(about.st_mode))
        done = OK;
    TRY(done);
    agent_answer(agent, id, OK, NULL, (struct span){0});
    return OK;
}
