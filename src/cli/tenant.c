/* tenant.c: tenants and their tokens. */
#define _GNU_SOURCE
#include "base/cleanup.h"
#include "base/file.h"
#include "cli/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

static struct span member(const struct json *object, const char *name)
{
    const struct json *found = json_member(object, name);
    return found && found->kind == JSON_STRING ? found->string : SPAN("-");
}

static int64_t number(const struct json *object, const char *name)
{
    const struct json *found = object ? json_member(object, name) : NULL;
    return found && found->kind == JSON_INTEGER ? found->integer : 0;
}

static void print_tenant(const struct json *tenant)
{
    static const char *const texts[] = {"name", "id", "state", "tier", "region", "created_at"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        printf("%-15s ", texts[i]);
        cli_put_text(member(tenant, texts[i]));
        putchar('\n');
    }
    int64_t days = number(tenant, "retention_days");
    if (days)
        printf("%-15s %lld\n", "retention_days", (long long)days);
    else
        printf("%-15s for ever\n", "retention_days");
    printf("%-15s %lld\n", "bytes_stored",
           (long long)number(json_member(tenant, "usage"), "bytes_stored"));
    const struct json *awake = json_member(tenant, "awake");
    printf("%-15s %s\n", "awake", awake && awake->kind == JSON_TRUE ? "yes" : "no (parked)");
}

static void print_list(const struct json *document)
{
    const struct json *data = json_member(document, "data");
    printf("%-24s %-32s %-8s %-9s %12s %s\n", "NAME", "ID", "STATE", "TIER", "BYTES", "AWAKE");
    for (uint32_t i = 0; data && i < data->count; i++) {
        const struct json *tenant = &data->items[i];
        const struct json *awake = json_member(tenant, "awake");
        printf("%-24.*s %-32.*s %-8.*s %-9.*s %12lld %s\n", SPAN_ARG(member(tenant, "name")),
               SPAN_ARG(member(tenant, "id")), SPAN_ARG(member(tenant, "state")),
               SPAN_ARG(member(tenant, "tier")),
               (long long)number(json_member(tenant, "usage"), "bytes_stored"),
               awake && awake->kind == JSON_TRUE ? "yes" : "no");
    }
}

static int call_and_show(struct cli *cli, const char *verb, struct span arguments,
                         cli_print *print)
{
    struct buffer answer;
    struct fault fault;
    status result = client_call(&answer, cli, verb, arguments, -1, &fault);
    int code = result == OK ? cli_show(cli, buffer_span(&answer), print)
                            : cli_refused(fault.detail);
    buffer_free(&answer);
    return code;
}

/* --retention and the like: a whole number, or usage. */
static bool whole_number(int64_t *ret, const char *text)
{
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (errno || end == text || *end)
        return false;
    *ret = value;
    return true;
}

static int tenant_create(struct cli *cli, const char *name)
{
    uint8_t storage[2048];
    struct buffer arguments = buffer_over(storage, sizeof storage);
    struct json_writer writer = json_writer_on(&arguments);
    const char *tier = cli_option(cli, "--tier"), *region = cli_option(cli, "--region");
    const char *retention = cli_option(cli, "--retention");
    int64_t days = 0;
    if (cli_option(cli, "--quota"))
        return cli_refused("--quota: this version does not enforce quotas yet, so it takes none");
    if (retention && !whole_number(&days, retention))
        return cli_usage("--retention: must be a number of days");
    if (cli_end(cli) != EXIT_DONE)
        return EXIT_USAGE;
    json_open_object(&writer, NULL);
    json_put_text(&writer, "name", name);
    if (tier)
        json_put_text(&writer, "tier", tier);
    if (region)
        json_put_text(&writer, "region", region);
    if (retention)
        json_put_integer(&writer, "retention_days", days);
    json_close_object(&writer);
    if (arguments.failed)
        return cli_usage("the words are too long");
    return call_and_show(cli, "tenant.create", buffer_span(&arguments), print_tenant);
}

static bool put_name(struct buffer *arguments, const char *name)
{
    struct json_writer writer = json_writer_on(arguments);
    json_open_object(&writer, NULL);
    json_put_text(&writer, "name", name);
    json_close_object(&writer);
    return !arguments->failed;
}

static status write_file(const char *path, struct span bytes, struct fault *fault)
{
    _cleanup_close_ int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0)
        return FAIL(INTERNAL, fault, "%.150s: %s", path, strerror(errno));
    return file_write(fd, bytes, path, fault);
}

static void print_receipt(const struct json *document)
{
    const struct json *receipt = json_member(document, "receipt");
    const struct json *destroyed = receipt ? json_member(receipt, "destroyed") : NULL;
    const struct json *last = receipt ? json_member(receipt, "last_checkpoint") : NULL;
    if (!destroyed || !last)
        return;
    printf("erased ");
    cli_put_text(member(receipt, "tenant_name"));
    printf(" (");
    cli_put_text(member(receipt, "tenant_id"));
    printf(") at ");
    cli_put_text(member(receipt, "erased_at"));
    printf("\n  key destroyed   ");
    cli_put_text(member(receipt, "kek_fingerprint"));
    printf("\n  removed         %lld files, %lld bytes\n", (long long)number(destroyed, "files"),
           (long long)number(destroyed, "bytes"));
    printf("  audit entries   %lld at the end\n  ledger index    %lld\n",
           (long long)number(last, "audit_entries"), (long long)number(receipt, "ledger_index"));
}

static int tenant_erase(struct cli *cli, const char *name)
{
    uint8_t storage[512];
    struct buffer arguments = buffer_over(storage, sizeof storage), answer;
    struct fault fault;
    const char *path = cli_option(cli, "--receipt");
    if (cli_end(cli) != EXIT_DONE || !put_name(&arguments, name))
        return EXIT_USAGE;
    status result = client_call(&answer, cli, "tenant.erase", buffer_span(&arguments), -1, &fault);
    if (result == OK && path)
        result = write_file(path, buffer_span(&answer), &fault);
    int code = result == OK ? cli_show(cli, buffer_span(&answer), print_receipt)
                            : cli_refused(fault.detail);
    buffer_free(&answer);
    return code;
}

int command_tenant(struct cli *cli)
{
    static const struct {
        const char *word, *verb;
    } plain[] = {{"show", "tenant.show"}, {"pause", "tenant.pause"}, {"resume", "tenant.resume"}};
    uint8_t storage[512];
    struct buffer arguments = buffer_over(storage, sizeof storage);
    const char *word = cli_word(cli);
    if (!word)
        return cli_usage("tenant: create, list, show, pause, resume or erase");
    if (strcmp(word, "list") == 0)
        return cli_end(cli) ? EXIT_USAGE
                            : call_and_show(cli, "tenant.list", SPAN("{}"), print_list);
    const char *name = cli_word(cli);
    if (!name)
        return cli_usage("tenant: a name is needed");
    if (strcmp(word, "create") == 0)
        return tenant_create(cli, name);
    if (strcmp(word, "erase") == 0)
        return tenant_erase(cli, name);
    for (size_t i = 0; i < sizeof plain / sizeof plain[0]; i++)
        if (strcmp(word, plain[i].word) == 0)
            return cli_end(cli) || !put_name(&arguments, name) ? EXIT_USAGE
                 : call_and_show(cli, plain[i].verb, buffer_span(&arguments), print_tenant);
    if (strcmp(word, "update") == 0)
        return cli_refused("tenant update: not in this version; create takes tier, region and "
                           "retention");
    return cli_usage("tenant: create, list, show, pause, resume or erase");
}

/* "90", "90s", "15m", "2h", "1d" */
static bool duration_seconds(int64_t *ret, const char *text)
{
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    int64_t unit = *end == '\0' || strcmp(end, "s") == 0 ? 1 : strcmp(end, "m") == 0 ? 60
                 : strcmp(end, "h") == 0 ? 3600 : strcmp(end, "d") == 0 ? 86400 : 0;
    if (errno || end == text || unit == 0 || value < 1 || value > 366 * 86400)
        return false;
    *ret = value * unit;
    return true;
}

static void print_token(const struct json *document)
{
    struct span token = member(document, "token");
    printf("%.*s\n", SPAN_ARG(token));
}

int command_token(struct cli *cli)
{
    static const struct {
        const char *option, *field;
    } texts[] = {{"--user", "user"}, {"--agent", "agent"}, {"--scope", "scope"},
                 {"--clearance", "clearance"}};
    uint8_t storage[8192];
    struct buffer arguments = buffer_over(storage, sizeof storage);
    struct json_writer writer = json_writer_on(&arguments);
    const char *ttl = cli_option(cli, "--ttl");
    int64_t seconds;
    json_open_object(&writer, NULL);
    bool user = false;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        const char *value = cli_option(cli, texts[i].option);
        if (value)
            json_put_text(&writer, texts[i].field, value);
        user = user || (value && i == 0);
    }
    if (ttl && !duration_seconds(&seconds, ttl))
        return cli_usage("--ttl: a number with s, m, h or d, such as 15m");
    if (ttl)
        json_put_integer(&writer, "ttl_seconds", seconds);
    const char *name = cli_word(cli);
    if (!name || !user)
        return cli_usage("token: NAME and --user are needed");
    json_put_text(&writer, "name", name);
    json_close_object(&writer);
    if (cli_end(cli) != EXIT_DONE)
        return EXIT_USAGE;
    if (arguments.failed)
        return cli_usage("token: the words are too long");
    return call_and_show(cli, "token.mint", buffer_span(&arguments), print_token);
}
