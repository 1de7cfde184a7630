/* status.c: `bulkhead status`: what the supervisor read from the kernel a moment ago. */
#include "cli/cli.h"

static struct span text_of(const struct json *object, const char *name)
{
    const struct json *found = object ? json_member(object, name) : NULL;
    return found && found->kind == JSON_STRING ? found->string : SPAN("-");
}

static int64_t number_of(const struct json *object, const char *name)
{
    const struct json *found = object ? json_member(object, name) : NULL;
    return found && found->kind == JSON_INTEGER ? found->integer : -1;
}

static void print_process(const struct json *process)
{
    const struct json *jail = json_member(process, "jail");
    printf("%-12.*s %-9.*s %7lld  %-9.*s", SPAN_ARG(text_of(process, "name")),
           SPAN_ARG(text_of(process, "state")), (long long)number_of(process, "pid"),
           SPAN_ARG(text_of(process, "jail_state")));
    if (jail)
        printf(" uid %-10lld %lld KiB private, landlock %.*s, seccomp filters %lld, cgroup %.*s",
               (long long)number_of(jail, "uid"), (long long)number_of(jail, "private_kib"),
               SPAN_ARG(text_of(jail, "landlock")),
               (long long)number_of(jail, "seccomp_filters"), SPAN_ARG(text_of(jail, "cgroup")));
    if (number_of(process, "damaged_pages") > 0)
        printf("  DAMAGED: %lld pages", (long long)number_of(process, "damaged_pages"));
    if (text_of(process, "tenant_id").length > 1)
        printf("  tenant %.*s", SPAN_ARG(text_of(process, "tenant_id")));
    putchar('\n');
}

static void print_list(const struct json *document, const char *name)
{
    const struct json *list = json_member(document, name);
    for (uint32_t i = 0; list && i < list->count; i++)
        print_process(&list->items[i]);
}

static void print_refused(const struct json *document)
{
    const struct json *list = json_member(document, "refused");
    for (uint32_t i = 0; list && i < list->count; i++) {
        const struct json *refusal = &list->items[i];
        printf("REFUSED      tenant ");
        cli_put_text(text_of(refusal, "tenant_id"));
        printf(" at ");
        cli_put_text(text_of(refusal, "time"));
        printf(": ");
        cli_put_text(text_of(refusal, "detail"));
        putchar('\n');
    }
}

/* Which wall can stand here, and why another cannot. */
static void print_sandboxes(const struct json *sandboxes)
{
    const struct json *tiers = sandboxes ? json_member(sandboxes, "tiers") : NULL;
    if (!sandboxes)
        return;
    printf("%-18s %lld of %lld alive, %lld MiB, %lld blank and ready\n", "sandboxes",
           (long long)number_of(sandboxes, "alive"), (long long)number_of(sandboxes, "limit"),
           (long long)number_of(sandboxes, "memory_mib"),
           (long long)number_of(sandboxes, "blanks_ready"));
    for (uint32_t i = 0; tiers && i < tiers->count; i++) {
        const struct json *works = json_member(&tiers->items[i], "works");
        printf("  %-16.*s ", SPAN_ARG(text_of(&tiers->items[i], "tier")));
        if (works && works->kind == JSON_TRUE)
            printf("works");
        else
            cli_put_text(text_of(&tiers->items[i], "reason"));
        putchar('\n');
    }
    putchar('\n');
}

static void print_status(const struct json *document)
{
    static const char *const lines[] = {"version", "kernel", "listen", "ops", "tls", "identity",
                                        "cgroup", "key_store", "key_store_promise"};
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        printf("%-18s ", lines[i]);
        cli_put_text(text_of(document, lines[i]));
        putchar('\n');
    }
    printf("%-18s %lld awake, %lld blank and ready\n", "cells",
           (long long)number_of(document, "cells_awake"),
           (long long)number_of(document, "blanks_ready"));
    print_sandboxes(json_member(document, "sandboxes"));
    print_list(document, "services");
    print_list(document, "cells");
    print_refused(document);
}

int command_status(struct cli *cli)
{
    struct buffer answer;
    struct fault fault;
    if (cli_end(cli) != EXIT_DONE)
        return EXIT_USAGE;
    status result = client_call(&answer, cli, "status", SPAN("{}"), -1, &fault);
    int code = result == OK ? cli_show(cli, buffer_span(&answer), print_status)
                            : cli_refused(fault.detail);
    buffer_free(&answer);
    return code;
}
