/* issuer.c: whose tokens count beside our own. */
#define _GNU_SOURCE
#include "base/cleanup.h"
#include "base/file.h"
#include "base/limits.h"
#include "cli/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

static void print_words(const char *label, const struct json *array)
{
    if (!array || array->count == 0)
        return;
    printf("  %-14s", label);
    for (uint32_t i = 0; i < array->count; i++) {
        putchar(' ');
        cli_put_text(array->items[i].kind == JSON_STRING ? array->items[i].string : SPAN("-"));
    }
    putchar('\n');
}

static void print_change(const struct json *change)
{
    printf("%s ", cli_is_true(change, "replaced") ? "replaced" : "added");
    cli_put_text(cli_member(change, "iss"));
    printf(" (charter %lld)\n", (long long)cli_number(change, "charter_sequence"));
    print_words("keys added", json_member(change, "keys_added"));
    print_words("keys removed", json_member(change, "keys_removed"));
}

static void print_removed(const struct json *change)
{
    printf("removed ");
    cli_put_text(cli_member(change, "iss"));
    printf(" (charter %lld): its tokens are refused from now on\n",
           (long long)cli_number(change, "charter_sequence"));
}

static void print_issuer(const struct json *issuer)
{
    static const char *const texts[] = {"aud", "tenant_claim", "user_claim", "scope_claim",
                                        "clearance_claim"};
    const struct json *keys = json_member(issuer, "keys");
    cli_put_text(cli_member(issuer, "iss"));
    putchar('\n');
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        printf("  %-16s ", texts[i]);
        cli_put_text(cli_member(issuer, texts[i]));
        putchar('\n');
    }
    printf("  %-16s %lld s, clocks may differ by %lld s%s\n", "tokens live",
           (long long)cli_number(issuer, "max_lifetime_seconds"),
           (long long)cli_number(issuer, "skew_seconds"),
           cli_is_true(issuer, "once") ? ", each serves one request" : "");
    for (uint32_t i = 0; keys && i < keys->count; i++) {
        printf("  %-16s ", "key");
        cli_put_text(cli_member(&keys->items[i], "alg"));
        putchar(' ');
        cli_put_text(cli_member(&keys->items[i], "kid"));
        putchar('\n');
    }
}

static void print_list(const struct json *document)
{
    const struct json *data = json_member(document, "data");
    if (!data || data->count == 0)
        puts("none but the built-in one");
    for (uint32_t i = 0; data && i < data->count; i++)
        print_issuer(&data->items[i]);
}

/* A copy in memory, bounded, that the node reads: it opens no path of ours. */
static status copy_of(int *ret, const char *path, struct fault *fault)
{
    _cleanup_buffer_ struct buffer text = buffer_of(JWKS_MAX);
    _cleanup_close_ int file = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (file < 0)
        return FAIL(NOT_FOUND, fault, "--jwks: %.140s: %s", path, strerror(errno));
    TRY(file_read(&text, file, "--jwks", fault));
    _cleanup_close_ int copy = memfd_create("jwks", MFD_CLOEXEC);
    if (copy < 0)
        return FAIL(INTERNAL, fault, "--jwks: no memory for a file");
    TRY(file_write(copy, buffer_span(&text), "--jwks", fault));
    *ret = take_fd(&copy);
    return OK;
}

static bool is_url(const char *text)
{
    return strncmp(text, "https://", 8) == 0 || strncmp(text, "http://", 7) == 0;
}

/* NULL, or what is wrong. */
static const char *put_options(struct json_writer *writer, struct cli *cli)
{
    static const struct {
        const char *option, *member;
    } texts[] = {{"--aud", "aud"},
                 {"--tenant-claim", "tenant_claim"},
                 {"--user-claim", "user_claim"},
                 {"--scope-claim", "scope_claim"},
                 {"--clearance-claim", "clearance_claim"}};
    const char *skew = cli_option(cli, "--skew"), *life = cli_option(cli, "--max-lifetime");
    int64_t seconds;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        const char *value = cli_option(cli, texts[i].option);
        if (value)
            json_put_text(writer, texts[i].member, value);
    }
    if (skew && !cli_duration(&seconds, skew, 0))
        return "--skew: a number of seconds";
    if (skew)
        json_put_integer(writer, "skew_seconds", seconds);
    if (life && !cli_duration(&seconds, life, 1))
        return "--max-lifetime: a number with s, m, h or d, such as 1h";
    if (life)
        json_put_integer(writer, "max_lifetime_seconds", seconds);
    bool once = cli_flag(cli, "--once"), not_once = cli_flag(cli, "--no-once");
    if (once && not_once)
        return "--once: or not";
    if (once || not_once)
        json_put_bool(writer, "once", once);
    return NULL;
}

static int add(struct cli *cli)
{
    uint8_t storage[8192];
    struct buffer arguments = buffer_over(storage, sizeof storage);
    struct json_writer writer = json_writer_on(&arguments);
    const char *iss = cli_option(cli, "--iss"), *jwks = cli_option(cli, "--jwks");
    _cleanup_close_ int file = -1;
    struct fault fault;
    json_open_object(&writer, NULL);
    const char *wrong = put_options(&writer, cli);
    if (wrong)
        return cli_usage(wrong);
    if (!cli_put_scope(&writer, cli) || !iss || !jwks)
        return cli_usage("issuer add: NAME or --platform, --iss and --jwks are needed");
    json_put_text(&writer, "iss", iss);
    json_close_object(&writer);
    if (cli_end(cli) != EXIT_DONE)
        return EXIT_USAGE;
    if (is_url(jwks))
        return cli_refused("--jwks: nothing of a node dials out, so keys come from a file: fetch "
                           "it yourself (curl -fsS URL > keys.json) and add that");
    if (copy_of(&file, jwks, &fault) != OK)
        return cli_refused(fault.detail);
    return cli_call(cli, "issuer.add", &arguments, file, print_change);
}

static int remove_issuer(struct cli *cli)
{
    uint8_t storage[2048];
    struct buffer arguments = buffer_over(storage, sizeof storage);
    struct json_writer writer = json_writer_on(&arguments);
    const char *iss = cli_option(cli, "--iss");
    json_open_object(&writer, NULL);
    if (!cli_put_scope(&writer, cli) || !iss)
        return cli_usage("issuer remove: NAME or --platform, and --iss are needed");
    json_put_text(&writer, "iss", iss);
    json_close_object(&writer);
    return cli_end(cli) ? EXIT_USAGE : cli_call(cli, "issuer.remove", &arguments, -1,
                                                print_removed);
}

static int list(struct cli *cli)
{
    uint8_t storage[512];
    struct buffer arguments = buffer_over(storage, sizeof storage);
    struct json_writer writer = json_writer_on(&arguments);
    json_open_object(&writer, NULL);
    if (!cli_put_scope(&writer, cli))
        return cli_usage("issuer list: NAME or --platform is needed");
    json_close_object(&writer);
    return cli_end(cli) ? EXIT_USAGE : cli_call(cli, "issuer.list", &arguments, -1, print_list);
}

int command_issuer(struct cli *cli)
{
    const char *word = cli_word(cli);
    if (word && strcmp(word, "add") == 0)
        return add(cli);
    if (word && strcmp(word, "remove") == 0)
        return remove_issuer(cli);
    if (word && strcmp(word, "list") == 0)
        return list(cli);
    return cli_usage("issuer: add, list or remove");
}
