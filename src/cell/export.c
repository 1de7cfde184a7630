/* export.c: what leaves the cell as a whole to a descriptor that the operator's command gave, a
 * piece a turn: the audit log, a backup, what a check found. Its reader may be slow or gone: then
 * the export is dropped, nothing else. */
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/secret.h"
#include "cell/state.h"
#include "silo/care.h"
#include "silo/check.h"
#include "silo/export.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    PIECE_MAX = CARE_PIECE_BYTES + KIB(1),
    ANCHOR_WAIT_US = 3 * 1000 * 1000,
    STALL_US = 60 * 1000 * 1000,
};

/* One kind of export: begin may be NULL; piece appends, and sets export->all with the last; failed
 * appends what tells the reader so, where the kind has such a thing. */
struct kind {
    const char *name, *entry; /* entry: in the silo's log, durable before the first byte; or NULL */
    status (*begin)(struct export *export, struct fault *fault);
    status (*piece)(struct export *export, struct fault *fault);
    void (*failed)(struct export *export, const char *why);
    bool sealed; /* nothing in it is to be wiped */
};

struct export {
    struct export *next;
    struct cell *cell;
    const struct kind *kind;
    uint64_t sequence;   /* of a backup */
    int previous;        /* the backup before, -1 */
    struct silo_backup *backup;
    struct silo_check *check;
    struct silo_export *tenant;
    uint64_t bytes;
    int fd;
    bool is_file;        /* always ready, and not for epoll */
    bool started, all;
    bool over;           /* freed at the end of the turn */
    uint64_t move;       /* the anchor that its last line shall show */
    uint64_t next_index; /* of the audit log */
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
    export->backup = silo_backup_end(export->backup);
    export->check = silo_check_end(export->check);
    export->tenant = silo_export_end(export->tenant);
    export->source = loop_unwatch(export->cell->loop, export->source);
    loop_timer_stop(export->cell->loop, &export->timer);
}

static void export_free(struct export *export)
{
    if (export->out.data)
        secret_wipe(export->out.data, export->out.length);
    buffer_free(&export->out);
    close(export->fd);
    if (export->previous >= 0)
        close(export->previous);
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
        export->bytes += (uint64_t)written;
        cell_timer(export->cell, &export->timer, STALL_US, on_stall, export);
    }
    if (!export->kind->sealed)
        secret_wipe(export->out.data, export->out.length);
    buffer_clear(&export->out);
    export->written = 0;
    return true;
}

static status audit_piece(struct export *export, struct fault *fault)
{
    struct cell *cell = export->cell;
    return silo_export_audit(&export->out, &export->next_index, &export->all, cell->silo,
                             cell->platform_key, fault);
}

static status checkpoint_piece(struct export *export, struct fault *fault)
{
    struct cell *cell = export->cell;
    export->all = true;
    return silo_put_checkpoint(&export->out, cell->silo, cell->platform_key, fault);
}

static status backup_begin(struct export *export, struct fault *fault)
{
    struct cell *cell = export->cell;
    const struct silo_backup_wish wish = {
        .sequence = export->sequence, .wrapped = buffer_span(&cell->wrapped),
        .previous = export->previous,
    };
    return silo_backup_begin(&export->backup, cell->silo, &wish, fault);
}

static status backup_piece(struct export *export, struct fault *fault)
{
    return silo_backup_piece(&export->out, &export->all, export->backup, fault);
}

static void backup_failed(struct export *export, const char *why)
{
    backup_put_failed(&export->out, why);
}

static status check_begin(struct export *export, struct fault *fault)
{
    return silo_check_begin(&export->check, export->cell->silo, export->cell->platform_key, fault);
}

static status check_piece(struct export *export, struct fault *fault)
{
    return silo_check_piece(&export->out, &export->all, export->check, fault);
}

static status tenant_begin(struct export *export, struct fault *fault)
{
    return silo_export_begin(&export->tenant, export->cell->silo, export->cell->platform_key,
                             fault);
}

static status tenant_piece(struct export *export, struct fault *fault)
{
    return silo_export_piece(&export->out, &export->all, export->tenant, fault);
}

static const struct kind kinds[] = {
    {.name = "audit", .piece = audit_piece},
    {.name = "checkpoint", .piece = checkpoint_piece},
    {"backup", "silo.backup", backup_begin, backup_piece, backup_failed, .sealed = true},
    {.name = "check", .entry = "silo.check", .begin = check_begin, .piece = check_piece},
    {.name = "tenant", .entry = "tenant.exported", .begin = tenant_begin,
     .piece = tenant_piece},
};

/* Its reader is told, where that can be, and then it ends. */
static void fail(struct export *export, const char *why)
{
    if (!export->kind->failed) {
        end(export, why);
        return;
    }
    log_event(LOG_WARN, "export.failed", "%s: %s", export->kind->name, why);
    export->backup = silo_backup_end(export->backup);
    buffer_clear(&export->out);
    export->kind->failed(export, why);
    export->all = true;
}

static void step(struct export *export)
{
    struct fault fault;
    if (export->out.length && !write_out(export))
        return;
    if (export->all) {
        log_event(LOG_INFO, "export.done", "%s, %llu bytes", export->kind->name,
                  (unsigned long long)export->bytes);
        end(export, NULL);
        return;
    }
    status made = export->kind->piece(export, &fault);
    if (made == OK)
        made = buffer_check(&export->out, "export", &fault);
    if (made != OK)
        fail(export, fault.detail);
    else if (export->out.length == 0 && !export->is_file) /* it is we who take long */
        cell_timer(export->cell, &export->timer, STALL_US, on_stall, export);
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
    if (export->kind->begin && export->kind->begin(export, &fault) != OK)
        fail(export, fault.detail);
    if (export->over)
        return;
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

/* Nothing leaves before the log says that it does. */
static status note(struct export *export, struct fault *fault)
{
    struct cell *cell = export->cell;
    turn_commit_pending(cell); /* what was answered before the export was asked for is in it */
    if (!export->kind->entry)
        return OK;
    silo_begin(cell->silo, clock_wall_us());
    TRY(silo_note(cell->silo, export->kind->entry,
                  export->sequence ? (int64_t)export->sequence : -1, fault));
    TRY(silo_commit(cell->silo, fault));
    kms_note_commit(cell);
    return OK;
}

static status find_kind(const struct kind **ret, const struct export_wish *wish,
                        struct fault *fault)
{
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (span_is(span_of_text(wish->kind), kinds[i].name)) {
            *ret = &kinds[i];
            return OK;
        }
    return FAIL(BAD_REQUEST, fault, "an export of kind %s", wish->kind);
}

static void begin(struct export *export)
{
    struct cell *cell = export->cell;
    struct fault fault;
    status ready = prepare(export, &fault);
    if (ready == OK)
        ready = note(export, &fault);
    if (ready != OK) {
        log_event(LOG_WARN, "export.dropped", "%s", fault.detail);
        export_free(export);
        return;
    }
    export->next = cell->exports;
    cell->exports = export;
    export->move = turn_ask_note(cell);
    cell_timer(cell, &export->timer, ANCHOR_WAIT_US, on_no_anchor, export);
}

status export_begin(struct cell *cell, struct export_wish *wish, struct fault *fault)
{
    const struct kind *kind;
    uint32_t running = 0;
    TRY(find_kind(&kind, wish, fault));
    for (const struct export *at = cell->exports; at; at = at->next)
        running++;
    struct export *export = running < CELL_EXPORTS_MAX ? calloc(1, sizeof *export) : NULL;
    if (!export) {
        log_event(LOG_WARN, "export.dropped", "%u are running", running);
        return OK;
    }
    *export = (struct export){.cell = cell, .kind = kind, .sequence = wish->sequence,
                              .fd = take_fd(&wish->fd), .previous = take_fd(&wish->previous),
                              .out = buffer_of(PIECE_MAX)};
    begin(export);
    return OK;
}
