#define _GNU_SOURCE
#include "agent/path.h"
#include "agent/stream.h"
#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { WRITE_APPEND = 1, WRITE_NEW = 2, MODE_BITS = 07777 };

/* ---- read ---- */

struct reading {
    struct request request;
    struct outflow out;
};

static void drop_reading(struct request *request)
{
    struct reading *reading = (struct reading *)request;
    outflow_close(&reading->out);
    request_remove(request);
    free(reading);
}

static void end_reading(struct reading *reading, status code, const struct fault *fault)
{
    outflow_end(&reading->out);
    agent_answer(reading->request.agent, reading->request.id, code, fault, (struct span){0});
    drop_reading(&reading->request);
}

static void on_read_end(struct request *request, struct outflow *flow, int error)
{
    (void)flow;
    struct fault fault;
    end_reading((struct reading *)request, error ? errno_status(error, "read", &fault) : OK,
                &fault);
}

static void cancel_reading(struct request *request)
{
    end_reading((struct reading *)request, OK, NULL);
}

static void resume_reading(struct request *request)
{
    outflow_resume(&((struct reading *)request)->out);
}

static status on_read_piece(struct request *request, uint8_t type,
                            const struct agent_piece *piece, struct fault *fault)
{
    if (type != AGENT_CREDIT || piece->channel != AGENT_OUT)
        return FAIL(BAD_REQUEST, fault, "a piece for a file that is read");
    return outflow_credit(&((struct reading *)request)->out, piece->credit, fault);
}

static status open_to_read(int *ret, const char *path, uint64_t offset, struct fault *fault)
{
    struct stat about;
    _cleanup_close_ int fd = path_openat(path, O_RDONLY | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &about))
        return errno_status(errno, "path", fault);
    if (!S_ISREG(about.st_mode))
        return FAIL(BAD_FIELD, fault, "path: is no file");
    if (offset > INT64_MAX || (offset > 0 && lseek(fd, (off_t)offset, SEEK_SET) < 0))
        return FAIL(RANGE_NOT_SATISFIABLE, fault, "offset: not in this file");
    *ret = take_fd(&fd);
    return OK;
}

status file_read_begin(struct agent *agent, uint32_t id, struct span payload, struct fault *fault)
{
    static const struct request_kind kind = {.on_piece = on_read_piece, .cancel = cancel_reading,
                                             .resume = resume_reading, .drop = drop_reading};
    char path[AGENT_PATH_MAX];
    uint64_t offset, length;
    struct cursor cursor = cursor_over(payload);
    TRY(path_get(path, &cursor, "path", fault));
    TRY(cursor_u64(&offset, &cursor, fault));
    TRY(cursor_u64(&length, &cursor, fault));
    TRY(cursor_end(&cursor, fault));
    _cleanup_close_ int fd = -1;
    TRY(open_to_read(&fd, path, offset, fault));
    struct request *request;
    TRY(request_make(&request, sizeof(struct reading), agent, id, &kind, fault));
    struct reading *reading = (struct reading *)request;
    agent_started(agent, id);
    reading->out.credit = AGENT_WINDOW;
    reading->out.on_end = on_read_end;
    outflow_begin(&reading->out, &reading->request, AGENT_OUT, take_fd(&fd), true, length);
    return OK;
}

/* ---- write: to a file beside, which takes the name when its end has come ---- */

struct writing {
    struct request request;
    struct inflow in; /* its account only */
    uint64_t bytes;
    uint32_t mode;
    uint8_t flags;
    int directory, fd;
    char name[PATH_NAME_SIZE], beside[32];
};

static void drop_writing(struct request *request)
{
    struct writing *writing = (struct writing *)request;
    if (writing->beside[0])
        unlinkat(writing->directory, writing->beside, 0);
    cleanup_close(&writing->fd);
    cleanup_close(&writing->directory);
    inflow_close(&writing->in);
    request_remove(request);
    free(writing);
}

static void end_writing(struct writing *writing, status code, const struct fault *fault)
{
    uint8_t storage[8];
    struct buffer result = buffer_over(storage, sizeof storage);
    buffer_put_u64(&result, writing->bytes);
    agent_answer(writing->request.agent, writing->request.id, code, fault, buffer_span(&result));
    drop_writing(&writing->request);
}

static void cancel_writing(struct request *request)
{
    struct fault fault;
    status done = FAIL(CONFLICT, &fault, "cancelled: nothing was replaced");
    end_writing((struct writing *)request, done, &fault);
}

/* Whose it is: as the file that it replaces, else as the directory. */
static status take_name(struct writing *writing, struct fault *fault)
{
    struct stat about;
    if (writing->beside[0] == '\0')
        return OK;
    bool there = fstatat(writing->directory, writing->name, &about, AT_SYMLINK_NOFOLLOW) == 0;
    if (there && S_ISDIR(about.st_mode))
        return FAIL(CONFLICT, fault, "write: a directory has this name");
    if (!there && fstat(writing->directory, &about))
        return errno_status(errno, "write", fault);
    if ((geteuid() == 0 && fchown(writing->fd, about.st_uid, about.st_gid))
        || fchmod(writing->fd, writing->mode))
        return errno_status(errno, "write", fault);
    if (writing->flags & WRITE_NEW) {
        if (linkat(writing->directory, writing->beside, writing->directory, writing->name, 0))
            return errno_status(errno, "write", fault);
        return OK; /* the other name goes with the request */
    }
    if (renameat(writing->directory, writing->beside, writing->directory, writing->name))
        return errno_status(errno, "write", fault);
    writing->beside[0] = '\0';
    return OK;
}

static status write_all(struct writing *writing, struct span bytes, struct fault *fault)
{
    while (bytes.length > 0) {
        ssize_t count = write(writing->fd, bytes.data, bytes.length);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return errno_status(errno, "write", fault);
        writing->bytes += (uint64_t)count;
        bytes = (struct span){bytes.data + count, bytes.length - (size_t)count};
    }
    return OK;
}

static status on_write_piece(struct request *request, uint8_t type,
                             const struct agent_piece *piece, struct fault *fault)
{
    struct writing *writing = (struct writing *)request;
    struct fault why;
    if (type == AGENT_CREDIT || piece->channel != AGENT_IN)
        return FAIL(BAD_REQUEST, fault, "such a piece is not for a file that is written");
    status done;
    if (type == AGENT_END) {
        done = take_name(writing, &why);
        end_writing(writing, done, &why);
        return OK;
    }
    TRY(inflow_account(&writing->in, piece->bytes.length, fault));
    done = write_all(writing, piece->bytes, &why);
    if (done != OK)
        end_writing(writing, done, &why);
    else
        inflow_used(&writing->in, piece->bytes.length);
    return OK;
}

static status open_to_append(struct writing *writing, const char *path, struct fault *fault)
{
    struct stat about;
    _cleanup_close_ int fd = path_openat(path, O_WRONLY | O_APPEND | O_NONBLOCK);
    if (fd < 0 && errno == ENOENT)
        fd = openat(writing->directory, writing->name,
                    O_WRONLY | O_APPEND | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    else
        writing->mode = UINT32_MAX; /* that one keeps its own */
    if (fd < 0 || fstat(fd, &about))
        return errno_status(errno, "path", fault);
    if (!S_ISREG(about.st_mode))
        return FAIL(BAD_FIELD, fault, "path: is no file");
    if (writing->mode != UINT32_MAX
        && (fstat(writing->directory, &about)
            || (geteuid() == 0 && fchown(fd, about.st_uid, about.st_gid))
            || fchmod(fd, writing->mode)))
        return errno_status(errno, "path", fault);
    writing->fd = take_fd(&fd);
    return OK;
}

static status open_beside(struct writing *writing, struct fault *fault)
{
    static uint32_t number;
    struct stat about;
    if ((writing->flags & WRITE_NEW)
        && fstatat(writing->directory, writing->name, &about, AT_SYMLINK_NOFOLLOW) == 0)
        return FAIL(CONFLICT, fault, "path: it is there");
    for (int tries = 0; tries < 16 && writing->fd < 0; tries++) {
        snprintf(writing->beside, sizeof writing->beside, ".bulkhead-%d-%u", getpid(), number++);
        writing->fd = openat(writing->directory, writing->beside,
                             O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (writing->fd < 0 && errno != EEXIST)
            break;
    }
    if (writing->fd < 0) {
        writing->beside[0] = '\0';
        return errno_status(errno, "path", fault);
    }
    return OK;
}

static status begin_writing(struct writing *writing, const char *path, struct fault *fault)
{
    TRY(path_parent(&writing->directory, writing->name, path, fault));
    TRY(writing->flags & WRITE_APPEND ? open_to_append(writing, path, fault)
                                      : open_beside(writing, fault));
    inflow_begin(&writing->in, &writing->request, AGENT_IN, -1);
    agent_started(writing->request.agent, writing->request.id);
    return OK;
}

status file_write_begin(struct agent *agent, uint32_t id, struct span payload,
                        struct fault *fault)
{
    static const struct request_kind kind = {.on_piece = on_write_piece, .cancel = cancel_writing,
                                             .drop = drop_writing};
    char path[AGENT_PATH_MAX];
    uint32_t mode;
    uint8_t flags;
    struct cursor cursor = cursor_over(payload);
    TRY(path_get(path, &cursor, "path", fault));
    TRY(cursor_u32(&mode, &cursor, fault));
    TRY(cursor_u8(&flags, &cursor, fault));
    TRY(cursor_end(&cursor, fault));
    if (mode > MODE_BITS || flags > WRITE_NEW)
        return FAIL(BAD_FIELD, fault, "mode: at most 07777; flags: 0, 1 or 2");
    struct request *request;
    TRY(request_make(&request, sizeof(struct writing), agent, id, &kind, fault));
    struct writing *writing = (struct writing *)request;
    writing->mode = mode;
    writing->flags = flags;
    writing->directory = writing->fd = -1;
    status done = begin_writing(writing, path, fault);
    if (done != OK)
        drop_writing(&writing->request);
    return done;
}
