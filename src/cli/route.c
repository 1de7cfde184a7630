/* route.c: by what else than its name a tenant is found. */
#include "cli/cli.h"

#include <string.h>

static void print_one(const struct json *route, const char *end)
{
    cli_put_text(cli_member(route, "kind"));
    putchar(' ');
    cli_put_text(cli_member(route, "value"));
    printf(" -> ");
    cli_put_text(cli_member(route, "tenant"));
    puts(end);
}

static void print_added(const struct json *route)
{
    print_one(route, cli_is_true(route, "added") ? "" : " (as before)");
}

static void print_removed(const struct json *route)
{
    print_one(route, " (removed)");
}

static void print_list(const struct json *document)
{
    const struct json *data = json_member(document, "data");
    if (!data || data->count == 0)
        puts("no routes");
    for (uint32_t i = 0; data && i < data->count; i++)
        print_one(&data->items[i], "");
}

static int change(struct cli *cli, const char *verb, bool named, cli_print *print)
{
    uint8_t storage[4096];
    struct buffer arguments = buffer_over(storage, sizeof storage);
    struct json_writer writer = json_writer_on(&arguments);
    const char *name = named ? cli_word(cli) : NULL, *kind = cli_word(cli);
    const char *value = cli_word(cli);
    if (!value)
        return cli_usage(named ? "route add: NAME KIND VALUE are needed"
                               : "route remove: KIND VALUE are needed");
    json_open_object(&writer, NULL);
    if (name)
        json_put_text(&writer, "name", name);
    json_put_text(&writer, "kind", kind);
    json_put_text(&writer, "value", value);
    json_close_object(&writer);
    return cli_end(cli) ? EXIT_USAGE : cli_call(cli, verb, &arguments, -1, print);
}

static int list(struct cli *cli)
{
    uint8_t storage[512];
    struct buffer arguments = buffer_over(storage, sizeof storage);
    struct json_writer writer = json_writer_on(&arguments);
    const char *name = cli_word(cli);
    json_open_object(&writer, NULL);
    if (name)
        json_put_text(&writer, "name", name);
    json_close_object(&writer);
    return cli_end(cli) ? EXIT_USAGE : cli_call(cli, "route.list", &arguments, -1, print_list);
}

int command_route(struct cli *cli)
{
    const char *word = cli_word(cli);
    if (word && strcmp(word, "add") == 0)
        return change(cli, "route.add", true, print_added);
    if (word && strcmp(word, "remove") == 0)
        return change(cli, "route.remove", false, print_removed);
    if (word && strcmp(word, "list") == 0)
        return list(cli);
    return cli_usage("route: add, remove or list");
}
