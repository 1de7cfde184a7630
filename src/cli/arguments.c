/* arguments.c: the words of the line, and what every command prints. */
#include "cli/cli.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static bool is_control(struct span text, size_t at)
{
    uint8_t character = text.data[at];
    bool c1 = character == 0xC2 && at + 1 < text.length && text.data[at + 1] >= 0x80
           && text.data[at + 1] < 0xA0;
    return character < 0x20 || character == 0x7F || c1;
}

static void put_safely(FILE *to, struct span text)
{
    for (size_t i = 0; i < text.length; i++) {
        if (is_control(text, i))
            fprintf(to, "\\x%02x", text.data[i]);
        else
            putc(text.data[i], to);
    }
}

void cli_put_text(struct span text)
{
    put_safely(stdout, text);
}

int cli_refused(const char *detail)
{
    fputs("bulkhead: ", stderr);
    put_safely(stderr, span_of_text(detail));
    putc('\n', stderr);
    return EXIT_REFUSED;
}

int cli_usage(const char *detail)
{
    fprintf(stderr, "bulkhead: %s; see `bulkhead help`\n", detail);
    return EXIT_USAGE;
}

static void take_off(struct cli *cli, int at, int count)
{
    for (int i = at; i + count < cli->argc; i++)
        cli->argv[i] = cli->argv[i + count];
    cli->argc -= count;
}

const char *cli_option(struct cli *cli, const char *name)
{
    size_t length = strlen(name);
    for (int i = 0; i < cli->argc && strcmp(cli->argv[i], "--") != 0; i++) {
        char *word = cli->argv[i];
        if (strncmp(word, name, length) != 0 || (word[length] && word[length] != '='))
            continue;
        if (word[length] == '=') {
            take_off(cli, i, 1);
            return word + length + 1;
        }
        if (i + 1 >= cli->argc || strcmp(cli->argv[i + 1], "--") == 0) {
            fprintf(stderr, "bulkhead: %s needs a value; see `bulkhead help`\n", name);
            exit(EXIT_USAGE);
        }
        const char *value = cli->argv[i + 1];
        take_off(cli, i, 2);
        return value;
    }
    return NULL;
}

bool cli_flag(struct cli *cli, const char *name)
{
    for (int i = 0; i < cli->argc && strcmp(cli->argv[i], "--") != 0; i++) {
        if (strcmp(cli->argv[i], name) != 0)
            continue;
        take_off(cli, i, 1);
        return true;
    }
    return false;
}

const char *cli_word(struct cli *cli)
{
    if (cli->argc == 0 || cli->argv[0][0] == '-')
        return NULL;
    const char *word = cli->argv[0];
    take_off(cli, 0, 1);
    return word;
}

int cli_end(struct cli *cli)
{
    if (cli->argc == 0)
        return EXIT_DONE;
    fprintf(stderr, "bulkhead: \"%.80s\" is not understood here; see `bulkhead help`\n",
            cli->argv[0]);
    return EXIT_USAGE;
}

int cli_show(const struct cli *cli, struct span json, cli_print *print)
{
    struct fault fault;
    struct json document;
    if (cli->json) {
        fwrite(json.data, 1, json.length, stdout);
        putchar('\n');
        return EXIT_DONE;
    }
    struct arena arena = arena_of(64 * json.length + 65536);
    if (json_parse(&document, &arena, json, &fault) != OK) {
        arena_free(&arena);
        fwrite(json.data, 1, json.length, stdout); /* larger than the reader's limits: as it came */
        putchar('\n');
        return EXIT_DONE;
    }
    print(&document);
    arena_free(&arena);
    return EXIT_DONE;
}

struct span cli_member(const struct json *object, const char *name)
{
    const struct json *found = object ? json_member(object, name) : NULL;
    return found && found->kind == JSON_STRING ? found->string : SPAN("-");
}

int64_t cli_number(const struct json *object, const char *name)
{
    const struct json *found = object ? json_member(object, name) : NULL;
    return found && found->kind == JSON_INTEGER ? found->integer : 0;
}

bool cli_is_true(const struct json *object, const char *name)
{
    const struct json *found = object ? json_member(object, name) : NULL;
    return found && found->kind == JSON_TRUE;
}

bool cli_whole_number(int64_t *ret, const char *text)
{
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (errno || end == text || *end)
        return false;
    *ret = value;
    return true;
}

bool cli_duration(int64_t *ret_seconds, const char *text, int64_t min)
{
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    int64_t unit = *end == '\0' || strcmp(end, "s") == 0 ? 1 : strcmp(end, "m") == 0 ? 60
                 : strcmp(end, "h") == 0 ? 3600 : strcmp(end, "d") == 0 ? 86400 : 0;
    if (errno || end == text || unit == 0 || value < min || value > 366 * 86400)
        return false;
    *ret_seconds = value * unit;
    return true;
}

bool cli_put_scope(struct json_writer *writer, struct cli *cli)
{
    bool platform = cli_flag(cli, "--platform");
    const char *name = cli_word(cli);
    if (platform)
        json_put_bool(writer, "platform", true);
    if (name)
        json_put_text(writer, "name", name);
    return platform != (name != NULL);
}
