/* tenant.c: tenants and their tokens. */
#define _GNU_SOURCE
#include "base/cleanup.h"
#include "base/file.h"
#include "cli/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

enum { MEMBER_WIDTH = 24 };

static void print_text(const struct json *object, const char *name)
{
    printf("%-*s ", MEMBER_WIDTH, name);
    cli_put_text(cli_member(object, name));
    putchar('\n');
}

/* 0 and null: none */
static void print_number(const struct json *object, const char *name, const char *none)
{
    int64_t number = cli_number(object, name);
    if (number)
        printf("%-*s %lld\n", MEMBER_WIDTH, name, (long long)number);
    else
        printf("%-*s %s\n", MEMBER_WIDTH, name, none);
}

static void print_cost(const char *label, const struct json *cost)
{
    const struct json *total = cost ? json_member(cost, "total") : NULL;
    if (!total)
        return;
    printf("%-*s ", MEMBER_WIDTH, label);
    cli_put_text(total->source);
    putchar(' ');
    cli_put_text(cli_member(cost, "currency"));
    putchar('\n');
}

static void print_period(const char *label, const struct json *period)
{
    static const char *const names[] = {"requests", "refused", "cpu_seconds", "awake_seconds",
                                        "peak_memory_bytes", "bytes_in", "bytes_out",
                                        "bytes_stored_peak"};
    if (!period || period->kind != JSON_OBJECT)
        return;
    printf("%s, ", label);
    cli_put_text(cli_member(period, "from"));
    printf(" to ");
    cli_put_text(cli_member(period, "to"));
    putchar('\n');
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const struct json *number = json_member(period, names[i]);
        printf("  %-*s ", MEMBER_WIDTH - 2, names[i]);
        cli_put_text(number ? number->source : SPAN("-"));
        putchar('\n');
    }
    const struct json *actions = json_member(period, "by_action");
    for (uint32_t i = 0; actions && i < actions->count; i++) {
        const struct json *action = &actions->items[i];
        printf("    %-*.*s %lld, refused %lld\n", MEMBER_WIDTH - 4, SPAN_ARG(action->name),
               (long long)cli_number(action, "requests"), (long long)cli_number(action, "refused"));
    }
    print_cost("  cost", json_member(period, "cost"));
}

static void print_days(const struct json *days)
{
    for (uint32_t i = 0; days && i < days->count; i++) {
        const struct json *day = &days->items[i];
        const struct json *cost = json_member(day, "cost");
        const struct json *total = cost ? json_member(cost, "total") : NULL;
        const struct json *cpu = json_member(day, "cpu_seconds");
        if (i == 0)
            printf("%-10s %12s %12s %16s %16s %s\n", "DAY", "REQUESTS", "CPU SECONDS", "BYTES IN",
                   "BYTES OUT", "COST");
        cli_put_text(cli_member(day, "from"));
        printf(" %12lld %12.*s %16lld %16lld ", (long long)cli_number(day, "requests"),
               SPAN_ARG(cpu ? cpu->source : SPAN("-")), (long long)cli_number(day, "bytes_in"),
               (long long)cli_number(day, "bytes_out"));
        cli_put_text(total ? total->source : SPAN("-"));
        putchar('\n');
    }
}

static void print_key(const struct json *key)
{
    if (!key || key->kind != JSON_OBJECT)
        return;
    printf("%-*s %lld%s%s\n", MEMBER_WIDTH, "data key", (long long)cli_number(key, "version"),
           cli_is_true(key, "rotating") ? ", being rotated" : "",
           cli_is_true(key, "withdrawn") ? ", withdrawn" : "");
    print_text(key, "kek_fingerprint");
}

static void print_tenant(const struct json *tenant)
{
    const struct json *usage = json_member(tenant, "usage");
    static const char *const texts[] = {"name", "id", "state", "tier", "region", "created_at",
                                        "audit", "sandbox"};
    static const char *const quotas[] = {"requests_per_second", "concurrent_requests",
                                         "bytes_stored", "user_requests_per_second",
                                         "sandboxes", "sandbox_memory_mib"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        print_text(tenant, texts[i]);
    printf("%-*s %s\n", MEMBER_WIDTH, "clearance",
           cli_is_true(tenant, "clearance_required") ? "required in the token"
                                                     : "as the token says");
    print_number(tenant, "retention_days", "for ever");
    print_number(tenant, "token_lifetime_seconds", "as the issuer allows");
    for (size_t i = 0; i < sizeof quotas / sizeof quotas[0]; i++) {
        char name[40];
        snprintf(name, sizeof name, "quota %s", quotas[i]);
        int64_t quota = cli_number(json_member(tenant, "quotas"), quotas[i]);
        if (quota)
            printf("%-31s %lld\n", name, (long long)quota);
        else
            printf("%-31s none\n", name);
    }
    printf("%-*s %lld\n", MEMBER_WIDTH, "bytes stored",
           (long long)cli_number(json_member(tenant, "usage"), "bytes_stored"));
    printf("%-*s %lld\n", MEMBER_WIDTH, "charter",
           (long long)cli_number(tenant, "charter_sequence"));
    printf("%-*s %s\n", MEMBER_WIDTH, "awake",
           cli_is_true(tenant, "awake") ? "yes" : "no (parked)");
    print_key(json_member(tenant, "key"));
    print_period("this month", usage ? json_member(usage, "month") : NULL);
    print_period("today", usage ? json_member(usage, "today") : NULL);
    print_days(usage ? json_member(usage, "days") : NULL);
}

static void print_list(const struct json *document)
{
    const struct json *data = json_member(document, "data");
    const struct json *total;
    printf("%-24s %-32s %-8s %-9s %12s %-5s %s\n", "NAME", "ID", "STATE", "TIER", "BYTES", "AWAKE",
           "COST OF THE MONTH");
    for (uint32_t i = 0; data && i < data->count; i++) {
        const struct json *tenant = &data->items[i];
        const struct json *cost = json_member(tenant, "cost");
        total = cost ? json_member(cost, "total") : NULL;
        printf("%-24.*s %-32.*s %-8.*s %-9.*s %12lld %-5s %.*s\n",
               SPAN_ARG(cli_member(tenant, "name")),
               SPAN_ARG(cli_member(tenant, "id")), SPAN_ARG(cli_member(tenant, "state")),
               SPAN_ARG(cli_member(tenant, "tier")),
               (long long)cli_number(json_member(tenant, "usage"), "bytes_stored"),
               cli_is_true(tenant, "awake") ? "yes" : "no",
               SPAN_ARG(total ? total->source : SPAN("-")));
    }
    print_cost("all together", json_member(document, "cost"));
}

/* --quota NAME=VALUE, as often as it is there. */
static bool put_quotas(struct json_writer *writer, struct cli *cli)
{
    const char *quota = cli_option(cli, "--quota");
    if (!quota)
        return true;
    json_open_object(writer, "quotas");
    for (; quota; quota = cli_option(cli, "--quota")) {
        char name[64];
        int64_t value;
        size_t length = span_find(span_of_text(quota), '=');
        if (!span_to_text(name, sizeof name, (struct span){(const uint8_t *)quota, length})
            || !quota[length] || !cli_whole_number(&value, quota + length + 1))
            return false;
        json_put_integer(writer, name, value);
    }
    json_close_object(writer);
    return true;
}

/* The options of create and update; NULL, or what is wrong with them. */
static const char *put_posture(struct json_writer *writer, struct cli *cli)
{
    static const struct {
        const char *option, *member;
    } texts[] = {{"--tier", "tier"}, {"--region", "region"}, {"--audit", "audit"},
                 {"--sandbox", "sandbox"}};
    const char *retention = cli_option(cli, "--retention");
    const char *lifetime = cli_option(cli, "--token-lifetime");
    bool required = cli_flag(cli, "--require-clearance");
    bool not_required = cli_flag(cli, "--no-require-clearance");
    int64_t days, seconds;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        const char *value = cli_option(cli, texts[i].option);
        if (value)
            json_put_text(writer, texts[i].member, value);
    }
    if (retention && !cli_whole_number(&days, retention))
        return "--retention: must be a number of days";
    if (lifetime && !cli_duration(&seconds, lifetime, 0))
        return "--token-lifetime: a number with s, m, h or d, such as 15m; 0 for no cap";
    if (required && not_required)
        return "--require-clearance: or not";
    if (retention)
        json_put_integer(writer, "retention_days", days);
    if (lifetime)
        json_put_integer(writer, "token_lifetime_seconds", seconds);
    if (required || not_required)
        json_put_bool(writer, "clearance_required", required);
    return put_quotas(writer, cli) ? NULL : "--quota: NAME=NUMBER, such as bytes_stored=1000000";
}

static int tenant_set(struct cli *cli, const char *verb, const char *name)
{
    uint8_t storage[4096];
    struct buffer arguments = buffer_over(storage, sizeof storage);
    struct json_writer writer = json_writer_on(&arguments);
    json_open_object(&writer, NULL);
    json_put_text(&writer, "name", name);
    const char *wrong = put_posture(&writer, cli);
    json_close_object(&writer);
    if (wrong)
        return cli_usage(wrong);
    if (cli_end(cli) != EXIT_DONE)
        return EXIT_USAGE;
    return cli_call(cli, verb, &arguments, -1, print_tenant);
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
    cli_put_text(cli_member(receipt, "tenant_name"));
    printf(" (");
    cli_put_text(cli_member(receipt, "tenant_id"));
    printf(") at ");
    cli_put_text(cli_member(receipt, "erased_at"));
    printf("\n  key destroyed   ");
    cli_put_text(cli_member(receipt, "kek_fingerprint"));
    printf("\n  removed         %lld files, %lld bytes\n",
           (long long)cli_number(destroyed, "files"),
           (long long)cli_number(destroyed, "bytes"));
    printf("  audit entries   %lld at the end\n  ledger index    %lld\n",
           (long long)cli_number(last, "audit_entries"),
           (long long)cli_number(receipt, "ledger_index"));
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

static int tenant_list(struct cli *cli)
{
    uint8_t storage[8];
    struct buffer arguments = buffer_over(storage, sizeof storage);
    buffer_put_text(&arguments, "{}");
    return cli_end(cli) ? EXIT_USAGE : cli_call(cli, "tenant.list", &arguments, -1, print_list);
}

static int tenant_show(struct cli *cli, const char *name)
{
    uint8_t storage[512];
    struct buffer arguments = buffer_over(storage, sizeof storage);
    struct json_writer writer = json_writer_on(&arguments);
    const char *days = cli_option(cli, "--days");
    int64_t count;
    if (days && !cli_whole_number(&count, days))
        return cli_usage("--days: must be a number of days");
    json_open_object(&writer, NULL);
    json_put_text(&writer, "name", name);
    if (days)
        json_put_integer(&writer, "days", count);
    json_close_object(&writer);
    return cli_end(cli) ? EXIT_USAGE : cli_call(cli, "tenant.show", &arguments, -1, print_tenant);
}

static int tenant_plain(struct cli *cli, const char *verb, const char *name)
{
    uint8_t storage[512];
    struct buffer arguments = buffer_over(storage, sizeof storage);
    return cli_end(cli) || !put_name(&arguments, name) ? EXIT_USAGE
         : cli_call(cli, verb, &arguments, -1, print_tenant);
}

/* One of the two, and nothing besides. */
static int tenant_update(struct cli *cli, const char *name)
{
    bool dek = cli_flag(cli, "--rotate-dek"), kek = cli_flag(cli, "--rotate-kek");
    if (dek && kek)
        return cli_usage("tenant update: --rotate-dek or --rotate-kek, one after the other");
    if (!dek && !kek)
        return tenant_set(cli, "tenant.update", name);
    return tenant_plain(cli, dek ? "tenant.rotate_dek" : "tenant.rotate_kek", name);
}

static int tenant_key(struct cli *cli, const char *name)
{
    const char *word = cli_word(cli);
    if (word && strcmp(word, "disable") == 0)
        return tenant_plain(cli, "tenant.key.disable", name);
    if (word && strcmp(word, "enable") == 0)
        return tenant_plain(cli, "tenant.key.enable", name);
    return cli_usage("tenant key NAME: disable or enable");
}

int command_tenant(struct cli *cli)
{
    static const struct {
        const char *word, *verb;
    } plain[] = {{"pause", "tenant.pause"}, {"resume", "tenant.resume"}};
    static const char words[] =
        "tenant: create, list, show, update, key, pause, resume, check, backup, restore, export or "
        "erase";
    const char *word = cli_word(cli);
    if (!word)
        return cli_usage(words);
    if (strcmp(word, "list") == 0)
        return tenant_list(cli);
    const char *name = cli_word(cli);
    if (strcmp(word, "backup") == 0)
        return tenant_backup(cli, name);
    if (strcmp(word, "check") == 0)
        return tenant_check(cli, name);
    if (!name)
        return cli_usage("tenant: a name is needed");
    if (strcmp(word, "restore") == 0)
        return tenant_restore(cli, name);
    if (strcmp(word, "export") == 0)
        return tenant_export(cli, name);
    if (strcmp(word, "create") == 0)
        return tenant_set(cli, "tenant.create", name);
    if (strcmp(word, "update") == 0)
        return tenant_update(cli, name);
    if (strcmp(word, "key") == 0)
        return tenant_key(cli, name);
    if (strcmp(word, "show") == 0)
        return tenant_show(cli, name);
    if (strcmp(word, "erase") == 0)
        return tenant_erase(cli, name);
    for (size_t i = 0; i < sizeof plain / sizeof plain[0]; i++)
        if (strcmp(word, plain[i].word) == 0)
            return tenant_plain(cli, plain[i].verb, name);
    return cli_usage(words);
}

static void print_token(const struct json *document)
{
    struct span token = cli_member(document, "token");
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
    if (ttl && !cli_duration(&seconds, ttl, 1))
        return cli_usage("--ttl: a number with s, m, h or d, such as 15m");
    if (ttl)
        json_put_integer(&writer, "ttl_seconds", seconds);
    if (!cli_put_scope(&writer, cli) || !user)
        return cli_usage("token: NAME or --platform, and --user are needed");
    json_close_object(&writer);
    if (cli_end(cli) != EXIT_DONE)
        return EXIT_USAGE;
    return cli_call(cli, "token.mint", &arguments, -1, print_token);
}
