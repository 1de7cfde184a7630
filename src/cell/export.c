/* export.c: the audit log to a descriptor that the operator's command gave, a piece a turn. Its
 * reader may be slow or gone: then the export is dropped, nothing else. */
#include "base/log.h"
#include "base/secret.h"
#include "cell/state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    PIECE_MAX = MIB(1),
    ANCHOR_WAIT_US = 3 * 1000 * 1000,
    STALL_US = 60 * 1000 * 1000,
};

struct export {
    struct export *next;
    struct cell *cell;
    int fd;
    bool is_file;        /* always ready, and not for epoll */
    bool started, all;
    bool over;           /* freed at the end of the turn */
    uint64_t move;       /* the anchor that its last line shall show */
    uint64_t next_index;
    struct buffer out;
    size_t written;      /* of out */
    struct loop_source *source;
    struct loop_timer timer; /* first for the anchor, then for a reader that stands still */
};

bool export_active(const struct cell *cell)
{
    return cell->exports != NULL;
}

static void end(struct export *export, const char *why)
{
    if (why)
        log_event(LOG_WARN, "export.dropped", "%s", why);
    export->over = true;
    export->source = loop_unwatch(export->cell->loop, export->source);
    loop_timer_stop(export->cell->loop, &export->timer);
}

static void export_free(struct export *export)
{
    if (export->out.data)
        secret_wipe(export->out.data, export->out.length);
    buffer_free(&export->out);
    close(export->fd);
    free(export);
}

static void on_stall(void *context)
{
    end(context, "its reader stands still");
}

/* Gives the reader what it takes now; false when it takes no more. */
static bool write_out(struct export *export)
{
    while (export->written < export->out.length) {
        ssize_t written = write(export->fd, export->out.data + export->written,
                                export->out.length - export->written);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0 && errno == EAGAIN)
            return false;
        if (written < 0) {
            end(export, strerror(errno));
            return false;
        }
        export->written += (size_t)written;
        cell_timer(export->cell, &export->timer, STALL_US, on_stall, export);
    }
    secret_wipe(export->out.data, export->out.length);
    buffer_clear(&export->out);
    export->written = 0;
    return true;
}

static void step(struct export *export)
{
    struct cell *cell = export->cell;
    struct fault fault;
    if (export->out.length && !write_out(export))
        return;
    if (export->all) {
        log_event(LOG_INFO, "export.done", "%llu entries", (unsigned long long)export->next_index);
        end(export, NULL);
        return;
    }
    status made = silo_export_audit(&export->out, &export->next_index, &export->all, cell->silo,
                                    cell->platform_key, &fault);
    if (made == OK)
        made = buffer_check(&export->out, "export", &fault);
    if (made != OK)
        end(export, fault.detail);
}

static void on_writable(void *context, uint32_t events)
{
    (void)events; /* an error shows when writing */
    step(context);
}

static void on_file(void *context)
{
    struct export *export = context;
    step(export);
    if (!export->over)
        cell_timer(export->cell, &export->timer, 0, on_file, export);
}

static void start(struct export *export)
{
    struct cell *cell = export->cell;
    struct fault fault;
    export->started = true;
    if (export->is_file)
        cell_timer(cell, &export->timer, 0, on_file, export);
    else if (loop_watch(&export->source, cell->loop, export->fd, EPOLLOUT, on_writable, export,
                        &fault) != OK)
        end(export, fault.detail);
    else
        cell_timer(cell, &export->timer, STALL_US, on_stall, export);
}

static void on_no_anchor(void *context)
{
    start(context); /* with the checkpoint before */
}

void export_continue(struct cell *cell)
{
    for (struct export **at = &cell->exports; *at;) {
        struct export *export = *at;
        if (!export->started && kms_moved(cell, export->move))
            start(export);
        if (export->over) {
            *at = export->next;
            export_free(export);
        } else {
            at = &export->next;
        }
    }
}

void export_drop_all(struct cell *cell)
{
    for (struct export *export = cell->exports; export; export = export->next)
        if (!export->over)
            end(export, "the cell parks");
    export_continue(cell);
}

static status prepare(struct export *export, struct fault *fault)
{
    struct stat facts;
    int flags = fcntl(export->fd, F_GETFL);
    if (flags < 0 || fcntl(export->fd, F_SETFL, flags | O_NONBLOCK) || fstat(export->fd, &facts))
        return FAIL(INTERNAL, fault, "export: %s", strerror(errno));
    export->is_file = S_ISREG(facts.st_mode);
    return OK;
}

void export_begin(struct cell *cell, int fd)
{
    struct fault fault;
    uint32_t running = 0;
    for (const struct export *at = cell->exports; at; at = at->next)
        running++;
    struct export *export = running < CELL_EXPORTS_MAX ? calloc(1, sizeof *export) : NULL;
    if (!export) {
        log_event(LOG_WARN, "export.dropped", "%u are running", running);
        close(fd);
        return;
    }
    *export = (struct export){.cell = cell, .fd = fd, .out = buffer_of(PIECE_MAX)};
    if (prepare(export, &fault) != OK) {
        log_event(LOG_WARN, "export.dropped", "%s", fault.detail);
        export_free(export);
        return;
    }
    export->next = cell->exports;
    cell->exports = export;
    export->move = turn_ask_note(cell);
    cell_timer(cell, &export->timer, ANCHOR_WAIT_US, on_no_anchor, export);
}
