#define _GNU_SOURCE
#include "agent/path.h"
#include "base/cleanup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/stat.h>

enum { EVENTS_BYTES = 4096 }; /* few at a time: each may become a frame with a long path */

#define WANTED (IN_CREATE | IN_MODIFY | IN_ATTRIB | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO \
                | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR | IN_EXCL_UNLINK)

struct place {
    int number; /* of inotify */
    char *path; /* below the watched one: "" or "a/b/" */
};

struct watch {
    struct request request;
    struct loop_source *source;
    struct place *places;
    uint32_t count, capacity;
    int fd;
    bool recursive, over, lost; /* lost: it is still to be told */
    char path[AGENT_PATH_MAX]; /* without a slash at its end */
};

static void forget(struct watch *watch, uint32_t index)
{
    free(watch->places[index].path);
    watch->places[index] = watch->places[--watch->count];
}

static void drop(struct request *request)
{
    struct watch *watch = (struct watch *)request;
    watch->source = loop_unwatch(request->agent->loop, watch->source);
    cleanup_close(&watch->fd);
    while (watch->count > 0)
        forget(watch, watch->count - 1);
    free(watch->places);
    request_remove(request);
    free(watch);
}

static void cancel(struct request *request)
{
    agent_answer(request->agent, request->id, OK, NULL, (struct span){0});
    drop(request);
}

static void tell(struct watch *watch, enum agent_change what, const char *directory,
                 const char *name)
{
    uint8_t storage[AGENT_PATH_MAX + 8];
    char path[AGENT_PATH_MAX];
    struct agent *agent = watch->request.agent;
    struct buffer payload = buffer_over(storage, sizeof storage);
    if (agent->out.length - agent->sent > AGENT_WATCH_QUEUE_MAX) {
        watch->lost = true;
        return;
    }
    int length = snprintf(path, sizeof path, "%s%s", directory, name);
    if (length < 0 || (size_t)length >= sizeof path) {
        what = AGENT_CHANGES_LOST;
        path[0] = '\0';
    }
    const struct agent_event event = {.path = span_of_text(path), .what = (uint8_t)what};
    agent_event_put(&payload, &event);
    agent_frame_put(&agent->out, AGENT_EVENT, watch->request.id,
                    buffer_span(&payload));
}

static struct place *place_of(struct watch *watch, int number)
{
    for (uint32_t i = 0; i < watch->count; i++)
        if (watch->places[i].number == number)
            return &watch->places[i];
    return NULL;
}

static bool keep(struct watch *watch, int number, const char *path)
{
    struct place *place = place_of(watch, number);
    char *copy = strdup(path);
    if (copy == NULL)
        return false;
    if (place) { /* it was moved within what is watched */
        free(place->path);
        place->path = copy;
        return true;
    }
    if (watch->count == watch->capacity) {
        uint32_t capacity = watch->capacity ? watch->capacity * 2 : 16;
        struct place *places = reallocarray(watch->places, capacity, sizeof *places);
        if (places == NULL) {
            free(copy);
            return false;
        }
        watch->places = places;
        watch->capacity = capacity;
    }
    watch->places[watch->count++] = (struct place){.number = number, .path = copy};
    return true;
}

static void add(struct watch *watch, int parent, const char *name, const char *path, int depth,
                bool announce);

/* What was there before it was watched. */
static void add_below(struct watch *watch, DIR *directory, const char *path, int depth,
                      bool announce)
{
    struct dirent *entry;
    while ((entry = readdir(directory)) != NULL) {
        char below[AGENT_PATH_MAX];
        struct stat about;
        const char *name = entry->d_name;
        if (span_is(SPAN("."), name) || span_is(SPAN(".."), name))
            continue;
        if (announce)
            tell(watch, AGENT_CREATED, path, name);
        bool known = entry->d_type != DT_UNKNOWN;
        bool is_directory = known ? entry->d_type == DT_DIR
                                  : fstatat(dirfd(directory), name, &about, AT_SYMLINK_NOFOLLOW)
                                            == 0 && S_ISDIR(about.st_mode);
        if (!is_directory)
            continue;
        int length = snprintf(below, sizeof below, "%s%s/", path, name);
        if (length < 0 || (size_t)length >= sizeof below)
            tell(watch, AGENT_CHANGES_LOST, "", "");
        else
            add(watch, dirfd(directory), name, below, depth + 1, announce);
    }
}

/* By descriptor: a link put in its place leads nowhere. */
static void add(struct watch *watch, int parent, const char *name, const char *path, int depth,
                bool announce)
{
    char itself[32];
    int fd = parent < 0 ? path_openat(name, O_RDONLY | O_DIRECTORY)
                        : openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return; /* it went in between */
    snprintf(itself, sizeof itself, "/proc/self/fd/%d", fd);
    bool fits = watch->count < AGENT_WATCHES_MAX && depth <= AGENT_DEPTH_MAX;
    int number = fits ? inotify_add_watch(watch->fd, itself, WANTED) : -1;
    if (number < 0 || !keep(watch, number, path)) {
        tell(watch, AGENT_CHANGES_LOST, "", "");
        close(fd);
        return;
    }
    DIR *directory = watch->recursive ? fdopendir(fd) : NULL;
    if (directory == NULL) {
        close(fd);
        return;
    }
    add_below(watch, directory, path, depth, announce);
    closedir(directory);
}

static int depth_of(const char *path)
{
    int depth = 0;
    for (; *path; path++)
        depth += *path == '/';
    return depth;
}

static void remove_below(struct watch *watch, const char *path)
{
    for (uint32_t i = watch->count; i-- > 0;) {
        if (!span_starts_with(span_of_text(watch->places[i].path), span_of_text(path)))
            continue;
        inotify_rm_watch(watch->fd, watch->places[i].number);
        forget(watch, i);
    }
}

/* A directory that came is watched, with all it brought; one that went is not. */
static void follow(struct watch *watch, const struct inotify_event *event, const char *directory)
{
    char path[AGENT_PATH_MAX], whole[2 * AGENT_PATH_MAX];
    int length = snprintf(path, sizeof path, "%s%s/", directory, event->name);
    if (!watch->recursive || !(event->mask & IN_ISDIR) || length < 0
        || (size_t)length >= sizeof path)
        return;
    if (event->mask & (IN_MOVED_FROM | IN_DELETE))
        remove_below(watch, path);
    if (!(event->mask & (IN_MOVED_TO | IN_CREATE)))
        return;
    /* by the whole path, as it is now: it may have been moved on */
    length = snprintf(whole, sizeof whole, "%s/%s", watch->path, directory);
    int parent = length < 0 || length >= AGENT_PATH_MAX
               ? -1 : path_openat(whole, O_RDONLY | O_DIRECTORY);
    if (parent < 0)
        return;
    add(watch, parent, event->name, path, depth_of(path), true);
    close(parent);
}

static void take(struct watch *watch, const struct inotify_event *event)
{
    static const struct {
        uint32_t mask;
        enum agent_change what;
    } changes[] = {{IN_CREATE, AGENT_CREATED}, {IN_MODIFY, AGENT_CHANGED},
                   {IN_ATTRIB, AGENT_CHANGED}, {IN_DELETE, AGENT_REMOVED},
                   {IN_MOVED_FROM, AGENT_MOVED_AWAY}, {IN_MOVED_TO, AGENT_MOVED_HERE}};
    struct place *place = place_of(watch, event->wd);
    if (event->mask & IN_Q_OVERFLOW)
        tell(watch, AGENT_CHANGES_LOST, "", "");
    if (place == NULL)
        return;
    if (place->path[0] == '\0' && (event->mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT)))
        watch->over = true;
    if (event->mask & IN_IGNORED) {
        forget(watch, (uint32_t)(place - watch->places));
        return;
    }
    if (event->len == 0)
        return; /* about itself: its parent tells */
    char directory[AGENT_PATH_MAX];
    snprintf(directory, sizeof directory, "%s", place->path);
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++)
        if (event->mask & changes[i].mask)
            tell(watch, changes[i].what, directory, event->name);
    follow(watch, event, directory);
}

static void resume(struct request *request);

static void on_events(void *context, uint32_t events)
{
    (void)events;
    struct watch *watch = context;
    _Alignas(struct inotify_event) uint8_t bytes[EVENTS_BYTES];
    ssize_t count = read(watch->fd, bytes, sizeof bytes);
    for (ssize_t at = 0; at < count;) {
        const struct inotify_event *event = (const void *)(bytes + at);
        take(watch, event);
        at += (ssize_t)(sizeof *event + event->len);
    }
    if (watch->over) {
        struct fault fault;
        status done = FAIL(NOT_FOUND, &fault, "what was watched is gone");
        agent_answer(watch->request.agent, watch->request.id, done, &fault, (struct span){0});
        drop(&watch->request);
        return;
    }
    resume(&watch->request);
}

/* What the host does not take stays in the kernel's queue, which is bounded and says so. */
static void resume(struct request *request)
{
    struct watch *watch = (struct watch *)request;
    struct fault fault;
    bool may = !session_is_congested(request->agent);
    if (may && watch->lost) {
        watch->lost = false;
        tell(watch, AGENT_CHANGES_LOST, "", "");
    }
    if (!may)
        watch->source = loop_unwatch(request->agent->loop, watch->source);
    else if (watch->source == NULL
             && loop_watch(&watch->source, request->agent->loop, watch->fd, EPOLLIN, on_events,
                           watch, &fault) != OK)
        watch->source = NULL; /* tried again when the way is free again */
}

static status begin(struct watch *watch, struct fault *fault)
{
    struct span path = span_of_text(watch->path);
    int fd = path_openat(watch->path, O_RDONLY | O_DIRECTORY);
    if (fd < 0)
        return errno_status(errno, "path", fault);
    close(fd);
    for (size_t end = path.length; end > 1 && watch->path[end - 1] == '/'; end--)
        watch->path[end - 1] = '\0';
    watch->fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (watch->fd < 0)
        return errno_status(errno, "watch", fault);
    agent_started(watch->request.agent, watch->request.id);
    add(watch, -1, watch->path, "", 0, false);
    resume(&watch->request);
    return OK;
}

status watch_begin(struct agent *agent, uint32_t id, struct span payload, struct fault *fault)
{
    static const struct request_kind kind = {.cancel = cancel, .resume = resume, .drop = drop};
    char path[AGENT_PATH_MAX];
    bool recursive;
    TRY(path_get_recursive(path, &recursive, payload, fault));
    struct request *request;
    TRY(request_make(&request, sizeof(struct watch), agent, id, &kind, fault));
    struct watch *watch = (struct watch *)request;
    watch->fd = -1;
    watch->recursive = recursive;
    snprintf(watch->path, sizeof watch->path, "%s", path);
    status done = begin(watch, fault);
    if (done != OK)
        drop(&watch->request);
    return done;
}
