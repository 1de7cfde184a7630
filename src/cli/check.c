/* check.c: `bulkhead tenant check`: all of a silo is read and verified by its own cell while it is
 * in use; here is only shown what it says. */
#define _GNU_SOURCE
#include "base/cleanup.h"
#include "base/limits.h"
#include "cli/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LINES_MAX = MIB(64), REPORT_ARENA = MIB(16), LIST_ARENA = MIB(64) };

static const struct {
    const char *seen, *damaged;
} kinds[] = {{"pages", "damaged_pages"},     {"tables", "damaged_tables"},
             {"indexes", "damaged_indexes"}, {"entries", "damaged_entries"},
             {"objects", "damaged_objects"}};

static status read_lines(struct buffer *out, int fd, struct fault *fault)
{
    for (;;) {
        uint8_t *at = buffer_reserve(out, KIB(64));
        if (!at)
            return FAIL(TOO_LARGE, fault, "the report is too long");
        ssize_t got = read(fd, at, KIB(64));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return FAIL(INTERNAL, fault, "reading the report: %s", strerror(errno));
        if (got == 0)
            return OK;
        buffer_advance(out, (size_t)got);
    }
}

static struct span last_line(struct span text)
{
    if (text.length == 0 || text.data[text.length - 1] != '\n')
        return (struct span){0};
    size_t end = text.length - 1, begin = end;
    while (begin > 0 && text.data[begin - 1] != '\n')
        begin--;
    return (struct span){text.data + begin, end - begin};
}

static status ask(struct buffer *lines, struct cli *cli, const char *name, struct fault *fault)
{
    int ends[2];
    struct buffer answer = {0};
    if (pipe2(ends, O_CLOEXEC))
        return FAIL(INTERNAL, fault, "pipe: %s", strerror(errno));
    status asked = client_call_named(&answer, cli, "tenant.check", name, ends[1], fault);
    close(ends[1]);
    buffer_free(&answer);
    if (asked == OK)
        asked = read_lines(lines, ends[0], fault);
    close(ends[0]);
    return asked;
}

static void print_damaged(const struct json *report, const char *list)
{
    const struct json *damaged = json_member(report, list);
    for (uint32_t i = 0; damaged && i < damaged->count; i++) {
        printf("%s", i ? ", " : "");
        cli_put_text(damaged->items[i].kind == JSON_STRING ? damaged->items[i].string
                                                           : damaged->items[i].source);
    }
}

static void print_report(const char *name, const struct json *report)
{
    const struct json *seconds = json_member(report, "seconds");
    printf("%s: %s (", name, cli_is_true(report, "ok") ? "all is well" : "DAMAGED");
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        printf("%lld %s, ", (long long)cli_number(report, kinds[i].seen), kinds[i].seen);
    printf("%lld chunks, ", (long long)cli_number(report, "chunks"));
    cli_put_text(seconds ? seconds->source : SPAN("-"));
    printf(" s)\n");
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        const struct json *damaged = json_member(report, kinds[i].damaged);
        if (!damaged || damaged->count == 0)
            continue;
        printf("  damaged %s: ", kinds[i].seen);
        print_damaged(report, kinds[i].damaged);
        putchar('\n');
    }
    if (!cli_is_true(report, "length_ok"))
        printf("  the database has not the length that its page map says\n");
    if (!cli_is_true(report, "root_ok"))
        printf("  the audit log is not what its tree says\n");
    if (!cli_is_true(report, "checkpoint_ok"))
        printf("  the newest checkpoint is not of this log\n");
    if (cli_number(report, "orphans"))
        printf("  files of objects that no row names: %lld\n",
               (long long)cli_number(report, "orphans"));
}

static int show(const struct cli *cli, const char *name, struct span line)
{
    struct arena arena = arena_of(REPORT_ARENA);
    struct json report;
    struct fault fault;
    int code = EXIT_REFUSED;
    if (line.length == 0 || json_parse(&report, &arena, line, &fault) != OK
        || !json_member(&report, "ok")) {
        code = cli_refused("the check was cut short: the cell has ended or was told to");
    } else {
        if (cli->json)
            printf("{\"name\":\"%s\",\"report\":%.*s}\n", name, SPAN_ARG(line));
        else
            print_report(name, &report);
        if (cli_is_true(&report, "ok"))
            code = EXIT_DONE;
        else
            fprintf(stderr, "bulkhead: %s: the silo is damaged\n", name);
    }
    arena_free(&arena);
    return code;
}

static int check_one(struct cli *cli, const char *name)
{
    _cleanup_buffer_ struct buffer lines = buffer_of(LINES_MAX);
    struct fault fault;
    if (ask(&lines, cli, name, &fault) != OK)
        return cli_refused(fault.detail);
    return show(cli, name, last_line(buffer_span(&lines)));
}

/* One after the other; damage in one does not keep the next from its check. */
static int check_all(struct cli *cli)
{
    _cleanup_buffer_ struct buffer answer = {0};
    struct arena arena = arena_of(LIST_ARENA);
    struct json document;
    struct fault fault;
    status asked = client_call_named(&answer, cli, "tenant.list", NULL, -1, &fault);
    if (asked == OK)
        asked = json_parse(&document, &arena, buffer_span(&answer), &fault);
    int code = asked == OK ? EXIT_DONE : cli_refused(fault.detail);
    const struct json *data = asked == OK ? json_member(&document, "data") : NULL;
    for (uint32_t i = 0; data && i < data->count; i++) {
        char name[TENANT_NAME_MAX + 1];
        if (span_is(cli_member(&data->items[i], "state"), "active")
            && span_to_text(name, sizeof name, cli_member(&data->items[i], "name"))
            && check_one(cli, name) != EXIT_DONE)
            code = EXIT_REFUSED;
    }
    arena_free(&arena);
    return code;
}

int tenant_check(struct cli *cli, const char *name)
{
    bool all = cli_flag(cli, "--all");
    if (!name)
        name = cli_word(cli);
    if ((name != NULL) == all)
        return cli_usage("tenant check: NAME or --all");
    if (cli_end(cli) != EXIT_DONE)
        return EXIT_USAGE;
    return all ? check_all(cli) : check_one(cli, name);
}
