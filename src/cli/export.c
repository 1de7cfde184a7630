/* export.c: `bulkhead tenant export`: everything of a tenant, in clear, from its cell to a file.
 * The archive is followed on its way, so that what was cut short or lacks something is not taken
 * for a whole. */
#define _GNU_SOURCE
#include "base/cleanup.h"
#include "base/file.h"
#include "cli/cli.h"
#include "cli/evidence.h"
#include "wire/tar.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { PIECE_BYTES = 256 * 1024 };

#define LAST_MEMBER "damaged.ndjson"

struct seen {
    uint64_t members, bytes, damaged;
    bool is_last; /* the last member, with which a whole archive ends */
};

static void on_member(void *context, struct span name, uint64_t bytes)
{
    struct seen *seen = context;
    (void)bytes;
    seen->members++;
    seen->is_last = span_is(name, LAST_MEMBER);
}

static void on_content(void *context, struct span bytes)
{
    struct seen *seen = context;
    for (size_t i = 0; seen->is_last && i < bytes.length; i++)
        seen->damaged += bytes.data[i] == '\n';
}

static status copy_archive(struct seen *ret, int to, int from, struct fault *fault)
{
    static uint8_t piece[PIECE_BYTES];
    static struct tar_follower follower;
    const struct tar_eyes eyes = {on_member, on_content, ret};
    for (;;) {
        ssize_t got = read(from, piece, sizeof piece);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return FAIL(INTERNAL, fault, "the export cannot be read: %s", strerror(errno));
        if (got == 0)
            break;
        struct span bytes = {piece, (size_t)got};
        TRY(tar_follow(&follower, &eyes, bytes, fault));
        TRY(file_write(to, bytes, "the export", fault));
        ret->bytes += bytes.length;
    }
    TRY(tar_follow_end(&follower, fault));
    if (!ret->is_last)
        return FAIL(TRUNCATED, fault, "the export has no end");
    return OK;
}

static status export_to(struct seen *ret, struct cli *cli, const char *tenant, int to,
                        struct fault *fault)
{
    int ends[2];
    struct buffer answer;
    if (pipe2(ends, O_CLOEXEC))
        return FAIL(INTERNAL, fault, "pipe: %s", strerror(errno));
    status done = client_call_named(&answer, cli, "tenant.export", tenant, ends[1], fault);
    close(ends[1]);
    buffer_free(&answer);
    if (done == OK)
        done = copy_archive(ret, to, ends[0], fault);
    close(ends[0]);
    if (done == TRUNCATED)
        return FAIL(TRUNCATED, fault, "the export was cut short; the node's log says why");
    return done;
}

/* Under another name until it is whole and durable; what is there stays. */
static status export_to_file(struct seen *ret, struct cli *cli, const char *tenant,
                             const char *path, struct fault *fault)
{
    char fresh[PATH_MAX];
    int length = snprintf(fresh, sizeof fresh, "%s.tmp", path);
    if (length < 0 || (size_t)length >= sizeof fresh)
        return FAIL(BAD_FIELD, fault, "-o: the path is too long");
    if (access(path, F_OK) == 0)
        return FAIL(CONFLICT, fault, "%.150s is there already", path);
    _cleanup_close_ int file = open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (file < 0)
        return FAIL(CONFLICT, fault, "%.150s: %s", fresh, strerror(errno));
    status done = export_to(ret, cli, tenant, file, fault);
    if (done == OK
        && (fsync(file) || renameat2(AT_FDCWD, fresh, AT_FDCWD, path, RENAME_NOREPLACE)))
        done = FAIL(INTERNAL, fault, "%.150s: %s", path, strerror(errno));
    if (done != OK)
        unlink(fresh);
    return done;
}

static void print_seen(const struct cli *cli, const char *tenant, const struct seen *seen)
{
    if (cli->json) {
        printf("{\"name\":\"%s\",\"members\":%llu,\"bytes\":%llu,\"damaged\":%llu}\n", tenant,
               (unsigned long long)seen->members, (unsigned long long)seen->bytes,
               (unsigned long long)seen->damaged);
        return;
    }
    cli_put_text(span_of_text(tenant));
    printf(": %llu files, %llu bytes\n", (unsigned long long)seen->members,
           (unsigned long long)seen->bytes);
}

int tenant_export(struct cli *cli, const char *name)
{
    struct fault fault;
    struct seen seen = {0};
    const char *path = cli_option(cli, "-o");
    if (cli_end(cli) != EXIT_DONE)
        return EXIT_USAGE;
    if (!path && isatty(STDOUT_FILENO))
        return cli_usage("tenant export: -o FILE.tar, or a pipe: no terminal");
    status done = path ? export_to_file(&seen, cli, name, path, &fault)
                       : export_to(&seen, cli, name, STDOUT_FILENO, &fault);
    if (done != OK)
        return cli_refused(fault.detail);
    if (path)
        print_seen(cli, name, &seen);
    if (seen.damaged == 0)
        return EXIT_DONE;
    fprintf(stderr, "bulkhead: %s: %llu damaged items are missing: " LAST_MEMBER " names them\n",
            name, (unsigned long long)seen.damaged);
    return EXIT_REFUSED;
}
