/* arguments.c: the words of the line, and what every command prints. */
#include "cli/cli.h"

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
    for (int i = 0; i < cli->argc; i++) {
        char *word = cli->argv[i];
        if (strncmp(word, name, length) != 0 || (word[length] && word[length] != '='))
            continue;
        if (word[length] == '=') {
            take_off(cli, i, 1);
            return word + length + 1;
        }
        if (i + 1 >= cli->argc) {
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
    for (int i = 0; i < cli->argc; i++) {
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
