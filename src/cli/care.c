/* care.c: backups, restores and exports of whole tenants. This program holds no key and opens
 * nothing: it moves sealed bytes between files and a cell, one file a backup. */
#define _GNU_SOURCE
#include "base/cleanup.h"
#include "base/file.h"
#include "cli/cli.h"
#include "store/backup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

enum {
    PIPE_BYTES = 1024 * 1024,
    WRITE_OUT_BYTES = 4 * PIPE_BYTES,
    TRIES = 3,
    CHAIN_MAX = 100000,
    NAME_SIZE = 24,
};

static void file_name(char name[NAME_SIZE], uint64_t sequence, const char *suffix)
{
    snprintf(name, NAME_SIZE, "%06llu.bhb%.4s", (unsigned long long)sequence, suffix);
}

static double now(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
}

/* A pipe of which the node is given one end. */
static status make_pipe(int ends[2], struct fault *fault)
{
    if (pipe2(ends, O_CLOEXEC))
        return FAIL(INTERNAL, fault, "pipe: %s", strerror(errno));
    (void)fcntl(ends[0], F_SETPIPE_SZ, PIPE_BYTES); /* only faster */
    return OK;
}

/* The disk writes while the next bytes come. A pipe, a terminal do without. */
static void write_out(uint64_t *begun, int to, uint64_t bytes)
{
    if (bytes - *begun < WRITE_OUT_BYTES)
        return;
    (void)sync_file_range(to, (off_t)*begun, (off_t)(bytes - *begun), SYNC_FILE_RANGE_WRITE);
    *begun = bytes;
}

/* Until the writer closes its end; without the bytes passing through here where that can be. */
static status copy_out(uint64_t *ret_bytes, int to, int from, struct fault *fault)
{
    static uint8_t piece[64 * 1024];
    bool splices = true;
    uint64_t bytes = 0, begun = 0;
    for (;;) {
        ssize_t got = splices ? splice(from, NULL, to, NULL, PIPE_BYTES, SPLICE_F_MOVE)
                              : read(from, piece, sizeof piece);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && splices && errno == EINVAL) { /* a terminal, a file that is appended to */
            splices = false;
            continue;
        }
        if (got < 0)
            return FAIL(INTERNAL, fault, "the copy: %s", strerror(errno));
        if (got == 0)
            break;
        if (!splices)
            TRY(file_write(to, (struct span){piece, (size_t)got}, "the copy", fault));
        bytes += (uint64_t)got;
        write_out(&begun, to, bytes);
    }
    *ret_bytes = bytes;
    return OK;
}

/* ---- the files of a tenant's backups ---- */

static status open_directory(int *ret, int parent, const char *name, bool make,
                             struct fault *fault)
{
    if (make && mkdirat(parent, name, 0700) && errno != EEXIST)
        return FAIL(INTERNAL, fault, "%.120s: %s", name, strerror(errno));
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return FAIL(NOT_FOUND, fault, "%.120s: %s", name, strerror(errno));
    *ret = fd;
    return OK;
}

/* NNNNNN.bhb */
static bool read_name(uint64_t *ret, const char *name)
{
    struct span text = span_of_text(name);
    uint64_t number = 0;
    if (text.length != 10 || !span_is((struct span){text.data + 6, 4}, ".bhb"))
        return false;
    for (size_t i = 0; i < 6; i++) {
        if (text.data[i] < '0' || text.data[i] > '9')
            return false;
        number = number * 10 + (uint64_t)(text.data[i] - '0');
    }
    *ret = number;
    return number > 0;
}

/* The highest number that is at most that; 0: there is none. */
static status newest(uint64_t *ret, int directory, uint64_t at_most, struct fault *fault)
{
    int copy = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *entries = copy >= 0 ? fdopendir(copy) : NULL;
    uint64_t found = 0, number;
    if (!entries) {
        if (copy >= 0)
            close(copy);
        return FAIL(INTERNAL, fault, "the directory cannot be read: %s", strerror(errno));
    }
    for (struct dirent *entry; (entry = readdir(entries));)
        if (read_name(&number, entry->d_name) && number > found && number <= at_most)
            found = number;
    closedir(entries);
    *ret = found;
    return OK;
}

/* Never waits, whatever bears the name. */
static status open_backup(int *ret, int directory, uint64_t sequence, struct fault *fault)
{
    char name[NAME_SIZE];
    struct stat facts;
    file_name(name, sequence, "");
    _cleanup_close_ int fd = openat(directory, name,
                                    O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return FAIL(NOT_FOUND, fault, "%s: %s", name, strerror(errno));
    if (fstat(fd, &facts) || !S_ISREG(facts.st_mode))
        return FAIL(BAD_FIELD, fault, "%s: it is no file", name);
    *ret = take_fd(&fd);
    return OK;
}

static status read_end(struct backup_end *ret, int fd, const char *name, struct fault *fault)
{
    uint8_t record[BACKUP_END_BYTES];
    struct stat facts;
    struct fault why;
    if (fstat(fd, &facts) || facts.st_size < BACKUP_END_BYTES
        || pread(fd, record, sizeof record, facts.st_size - BACKUP_END_BYTES)
               != (ssize_t)sizeof record)
        return FAIL(CORRUPT, fault, "%s: the node gave up; its log says why", name);
    status read = backup_get_end(ret, SPAN_OF(record), &why);
    if (read == OK && ret->length != (uint64_t)facts.st_size)
        read = FAIL(CORRUPT, &why, "it is not complete");
    return read == OK ? OK : FAIL(read, fault, "%s: %.160s", name, why.detail);
}

static status read_head(struct backup_head *ret, int directory, uint64_t sequence,
                        struct fault *fault)
{
    static uint8_t line[BACKUP_HEAD_MAX];
    _cleanup_close_ int fd = -1;
    struct fault why;
    TRY(open_backup(&fd, directory, sequence, fault));
    ssize_t got = pread(fd, line, sizeof line, 0);
    size_t length = got > 0 ? span_find((struct span){line, (size_t)got}, '\n') : 0;
    status read = OK;
    if (got < 0)
        read = FAIL(INTERNAL, &why, "%s", strerror(errno));
    else
        read = backup_get_head(ret, (struct span){line, length}, &why);
    if (read == OK && ret->sequence != sequence)
        read = FAIL(CORRUPT, &why, "it is backup %llu", (unsigned long long)ret->sequence);
    if (read != OK)
        return FAIL(read, fault, "%06llu.bhb: %.150s", (unsigned long long)sequence, why.detail);
    return OK;
}

/* ---- backup ---- */

struct made {
    uint64_t sequence, bytes;
    struct backup_head head;
    struct backup_end end;
    double seconds;
};

static status ask_backup(struct cli *cli, const char *tenant, uint64_t sequence, int to,
                         int previous, struct fault *fault)
{
    uint8_t storage[512];
    struct buffer arguments = buffer_over(storage, sizeof storage), answer;
    struct json_writer writer = json_writer_on(&arguments);
    const int fds[2] = {to, previous};
    json_open_object(&writer, NULL);
    json_put_text(&writer, "name", tenant);
    json_put_integer(&writer, "sequence", (int64_t)sequence);
    json_close_object(&writer);
    TRY(buffer_check(&arguments, "name", fault));
    status asked = client_call_fds(&answer, cli, "tenant.backup", buffer_span(&arguments), fds,
                                   previous >= 0 ? 2 : 1, fault);
    buffer_free(&answer);
    return asked;
}

static status fill(struct made *made, struct cli *cli, const char *tenant, int file, int previous,
                   struct fault *fault)
{
    int ends[2];
    char name[NAME_SIZE];
    file_name(name, made->sequence, "");
    TRY(make_pipe(ends, fault));
    status done = ask_backup(cli, tenant, made->sequence, ends[1], previous, fault);
    close(ends[1]);
    if (done == OK)
        done = copy_out(&made->bytes, file, ends[0], fault);
    close(ends[0]);
    TRY(done);
    TRY(read_end(&made->end, file, name, fault));
    if (fsync(file))
        return FAIL(INTERNAL, fault, "%s: %s", name, strerror(errno));
    return OK;
}

/* *ret: locked for as long as it is written; one that nobody has locked is what a crash left. */
static status make_fresh(int *ret, int directory, const char *name, struct fault *fault)
{
    struct stat mine, there;
    _cleanup_close_ int file = openat(directory, name, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK
                                      | O_CLOEXEC, 0600);
    if (file < 0 || fstat(file, &mine))
        return FAIL(CONFLICT, fault, "%s: %s", name, strerror(errno));
    if (!S_ISREG(mine.st_mode) || mine.st_nlink != 1)
        return FAIL(CONFLICT, fault, "%s: it is no file of a backup", name);
    if (flock(file, LOCK_EX | LOCK_NB) || fstatat(directory, name, &there, AT_SYMLINK_NOFOLLOW)
        || there.st_ino != mine.st_ino)
        return FAIL(CONFLICT, fault, "%s: another backup is running", name);
    if (ftruncate(file, 0))
        return FAIL(INTERNAL, fault, "%s: %s", name, strerror(errno));
    *ret = take_fd(&file);
    return OK;
}

/* Under another name until it is whole and durable. */
static status write_backup(struct made *made, struct cli *cli, const char *tenant, int directory,
                           bool full, struct fault *fault)
{
    char name[NAME_SIZE], fresh[NAME_SIZE];
    uint64_t before;
    _cleanup_close_ int previous = -1, file = -1;
    double began = now();
    TRY(newest(&before, directory, BACKUP_SEQUENCE_MAX, fault));
    made->sequence = before + 1;
    if (!full && before > 0)
        TRY(open_backup(&previous, directory, before, fault));
    file_name(name, made->sequence, "");
    file_name(fresh, made->sequence, ".tmp");
    TRY(make_fresh(&file, directory, fresh, fault));
    status filled = fill(made, cli, tenant, file, previous, fault);
    if (filled == OK
        && (renameat2(directory, fresh, directory, name, RENAME_NOREPLACE) || fsync(directory)))
        filled = FAIL(INTERNAL, fault, "%s: %s", name, strerror(errno));
    if (filled != OK) {
        unlinkat(directory, fresh, 0);
        return filled;
    }
    made->seconds = now() - began;
    return read_head(&made->head, directory, made->sequence, fault);
}

static status backup_one(struct made *made, struct cli *cli, const char *tenant, const char *id,
                         int to, bool full, struct fault *fault)
{
    _cleanup_close_ int directory = -1;
    status done = open_directory(&directory, to, id, true, fault);
    if (done == OK && fsync(to))
        done = FAIL(INTERNAL, fault, "%.120s: %s", id, strerror(errno));
    for (int i = 0; i < TRIES && done == OK; i++) { /* so much may be written meanwhile */
        done = write_backup(made, cli, tenant, directory, full, fault);
        if (done != UNAVAILABLE)
            return done;
        done = i + 1 < TRIES ? OK : UNAVAILABLE;
    }
    return done;
}

static void print_made(const struct cli *cli, struct span tenant, const struct made *made)
{
    double rate = made->seconds > 0 ? (double)made->bytes / made->seconds / 1e6 : 0;
    if (!cli->json) {
        cli_put_text(tenant);
        printf(": %06llu.bhb, %s, %u pages, %llu bytes, %.1f MB/s\n",
               (unsigned long long)made->sequence, made->head.full ? "full" : "incremental",
               made->end.pages, (unsigned long long)made->bytes, rate);
        return;
    }
    _cleanup_buffer_ struct buffer text = buffer_of(KIB(4));
    struct json_writer writer = json_writer_on(&text);
    json_open_object(&writer, NULL);
    json_put_string(&writer, "name", tenant);
    json_put_integer(&writer, "sequence", (int64_t)made->sequence);
    json_put_bool(&writer, "full", made->head.full);
    json_put_integer(&writer, "pages", made->end.pages);
    json_put_integer(&writer, "objects", (int64_t)made->end.blobs);
    json_put_integer(&writer, "bytes", (int64_t)made->bytes);
    json_close_object(&writer);
    printf("%.*s\n", SPAN_ARG(buffer_span(&text)));
}

static int report(const struct cli *cli, struct span tenant, status done, const struct made *made,
                  const struct fault *fault)
{
    if (done == OK) {
        print_made(cli, tenant, made);
        return EXIT_DONE;
    }
    char text[320];
    snprintf(text, sizeof text, "%.*s: %s", SPAN_ARG(tenant), fault->detail);
    return cli_refused(text);
}

static int backup_listed(struct cli *cli, const struct json *tenant, int to, bool full)
{
    char name[TENANT_NAME_MAX + 1], id[TENANT_ID_TEXT];
    struct made made = {0};
    struct fault fault;
    struct span named = cli_member(tenant, "name");
    if (!span_to_text(name, sizeof name, named)
        || !span_to_text(id, sizeof id, cli_member(tenant, "id")) || strlen(id) != sizeof id - 1)
        return cli_refused("the node tells of a tenant without name or id");
    status done = backup_one(&made, cli, name, id, to, full, &fault);
    return report(cli, named, done, &made, &fault);
}

/* One after the other; a failure does not keep the next from its backup. */
static int backup_all(struct cli *cli, const struct json *document, int to, bool full)
{
    const struct json *data = json_member(document, "data");
    int code = EXIT_DONE;
    for (uint32_t i = 0; data && i < data->count; i++) {
        const struct json *tenant = &data->items[i];
        if (!span_is(cli_member(tenant, "state"), "active"))
            continue;
        if (backup_listed(cli, tenant, to, full) != EXIT_DONE)
            code = EXIT_REFUSED;
    }
    return code;
}

static status open_target(int *ret, const char *path, bool make, struct fault *fault)
{
    return open_directory(ret, AT_FDCWD, path, make, fault);
}

int tenant_backup(struct cli *cli, const char *name)
{
    const char *to = cli_option(cli, "--to");
    bool full = cli_flag(cli, "--full"), all = cli_flag(cli, "--all");
    struct buffer answer = {0};
    struct arena arena = arena_of(MIB(64));
    struct json document;
    struct fault fault;
    _cleanup_close_ int directory = -1;
    if (!name)
        name = cli_word(cli);
    if (!to || (name != NULL) == all)
        return cli_usage("tenant backup: NAME or --all, and --to DIR");
    if (cli_end(cli) != EXIT_DONE)
        return EXIT_USAGE;
    status asked = open_target(&directory, to, true, &fault);
    if (asked == OK)
        asked = client_call_named(&answer, cli, all ? "tenant.list" : "tenant.show", name, -1,
                                  &fault);
    if (asked == OK)
        asked = json_parse(&document, &arena, buffer_span(&answer), &fault);
    int code = asked != OK ? cli_refused(fault.detail)
             : all         ? backup_all(cli, &document, directory, full)
                           : backup_listed(cli, &document, directory, full);
    buffer_free(&answer);
    arena_free(&arena);
    return code;
}

/* ---- restore ---- */

/* From the full one on which the wanted one stands: *ret_first. */
static status find_chain(uint64_t *ret_first, uint64_t *ret_last, int directory, uint64_t at,
                         struct fault *fault)
{
    struct backup_head head;
    uint64_t sequence;
    TRY(newest(&sequence, directory, at, fault));
    if (sequence == 0 || (at < BACKUP_SEQUENCE_MAX && sequence != at))
        return FAIL(NOT_FOUND, fault, "there is no such backup");
    *ret_last = sequence;
    for (int i = 0; i < CHAIN_MAX; i++) {
        TRY(read_head(&head, directory, sequence, fault));
        *ret_first = sequence;
        if (head.full)
            return OK;
        TRY(newest(&sequence, directory, sequence - 1, fault));
        if (sequence == 0)
            return FAIL(NOT_FOUND, fault, "%06llu.bhb: the backups that it continues are missing",
                        (unsigned long long)*ret_first);
    }
    return FAIL(TOO_LARGE, fault, "more than %d backups without a full one", CHAIN_MAX);
}

/* The files one after the other, unread. */
static status feed_chain(int to, int directory, uint64_t first, uint64_t last,
                         struct fault *fault)
{
    uint64_t ignored;
    for (uint64_t sequence = first; sequence <= last; sequence++) {
        _cleanup_close_ int file = -1;
        status opened = open_backup(&file, directory, sequence, fault);
        if (opened == NOT_FOUND)
            continue; /* the cell says which is missing */
        TRY(opened);
        TRY(copy_out(&ignored, to, file, fault));
    }
    return OK;
}

/* The feeding is another process: we wait for the answer, and the cell for the bytes. */
static status restore(struct buffer *answer, struct cli *cli, const char *tenant, int directory,
                      uint64_t first, uint64_t last, struct fault *fault)
{
    int ends[2], ended;
    TRY(make_pipe(ends, fault));
    pid_t feeder = fork();
    if (feeder == 0) {
        close(ends[0]);
        signal(SIGPIPE, SIG_DFL); /* the cell has seen enough */
        _exit(feed_chain(ends[1], directory, first, last, fault) == OK ? 0 : 1);
    }
    close(ends[1]);
    status done;
    if (feeder < 0)
        done = FAIL(INTERNAL, fault, "fork: %s", strerror(errno));
    else
        done = client_call_named(answer, cli, "tenant.restore", tenant, ends[0], fault);
    close(ends[0]);
    if (feeder > 0) {
        if (done != OK)
            kill(feeder, SIGKILL);
        waitpid(feeder, &ended, 0);
    }
    return done;
}

static void print_restored(const struct json *document)
{
    const struct json *old = json_member(document, "old"), *new = json_member(document, "new");
    cli_put_text(cli_member(document, "name"));
    printf(": restored from %06lld.bhb of ", (long long)cli_number(document, "backup"));
    cli_put_text(cli_member(document, "backup_time"));
    printf("\n  audit entries   %lld, before %lld\n  commits         %lld, before %lld\n",
           (long long)cli_number(new, "audit_entries"), (long long)cli_number(old, "audit_entries"),
           (long long)cli_number(new, "commits"), (long long)cli_number(old, "commits"));
}

/* The directory of the tenant's id; of a directory that is one itself, that. */
static status open_backups(int *ret, struct cli *cli, const char *tenant, const char *from,
                           struct fault *fault)
{
    struct buffer answer = {0};
    struct arena arena = arena_of(MIB(1));
    struct json document;
    char id[TENANT_ID_TEXT];
    _cleanup_close_ int parent = -1;
    status found = open_target(&parent, from, false, fault);
    if (found == OK)
        found = client_call_named(&answer, cli, "tenant.show", tenant, -1, fault);
    if (found == OK)
        found = json_parse(&document, &arena, buffer_span(&answer), fault);
    if (found == OK && !span_to_text(id, sizeof id, cli_member(&document, "id")))
        found = FAIL(CORRUPT, fault, "the node tells of a tenant without an id");
    if (found == OK)
        found = open_directory(ret, parent, id, false, fault);
    buffer_free(&answer);
    arena_free(&arena);
    return found;
}

int tenant_restore(struct cli *cli, const char *name)
{
    const char *from = cli_option(cli, "--from"), *at = cli_option(cli, "--at");
    int64_t wanted = BACKUP_SEQUENCE_MAX;
    uint64_t first, last;
    struct buffer answer = {0};
    struct fault fault;
    _cleanup_close_ int directory = -1;
    if (!from || !name)
        return cli_usage("tenant restore: NAME and --from DIR");
    if (at && (!cli_whole_number(&wanted, at) || wanted < 1 || wanted > BACKUP_SEQUENCE_MAX))
        return cli_usage("--at: the number of a backup");
    if (cli_end(cli) != EXIT_DONE)
        return EXIT_USAGE;
    status done = open_backups(&directory, cli, name, from, &fault);
    if (done == OK)
        done = find_chain(&first, &last, directory, (uint64_t)wanted, &fault);
    if (done == OK)
        done = restore(&answer, cli, name, directory, first, last, &fault);
    int code = done == OK ? cli_show(cli, buffer_span(&answer), print_restored)
                          : cli_refused(fault.detail);
    buffer_free(&answer);
    return code;
}
