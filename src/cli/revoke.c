/* revoke.c: whose tokens count no more. */
#define _GNU_SOURCE
#include "base/cleanup.h"
#include "base/file.h"
#include "base/limits.h"
#include "base/secret.h"
#include "cli/cli.h"
#include "wire/base64.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

enum { PARSED_MAX = 1024 * 1024, FILE_MAX = TOKEN_MAX + 2 };

static void print_entries(const struct json *document)
{
    const struct json *revoked = json_member(document, "revoked");
    if (!revoked)
        revoked = json_member(document, "data");
    if (!revoked || revoked->count == 0)
        puts("nothing is revoked");
    for (uint32_t i = 0; revoked && i < revoked->count; i++) {
        const struct json *entry = &revoked->items[i];
        bool user = json_member(entry, "user") != NULL;
        printf(user ? "refused: every token of user " : "refused: the token whose jti hashes to ");
        cli_put_text(cli_member(entry, user ? "user" : "jti_sha256"));
        printf(user ? " issued up to " : "..., until ");
        cli_put_text(cli_member(entry, user ? "issued_until" : "until"));
        putchar('\n');
    }
}

static int list(struct cli *cli)
{
    uint8_t storage[512];
    struct buffer arguments = buffer_over(storage, sizeof storage);
    struct json_writer writer = json_writer_on(&arguments);
    json_open_object(&writer, NULL);
    if (!cli_put_scope(&writer, cli))
        return cli_usage("revoke list: NAME or --platform is needed");
    json_close_object(&writer);
    return cli_end(cli) ? EXIT_USAGE : cli_call(cli, "token.revoked", &arguments, -1,
                                                print_entries);
}

static struct span trimmed(struct span text)
{
    while (text.length && (text.data[text.length - 1] == '\n' || text.data[text.length - 1] == '\r'
                           || text.data[text.length - 1] == ' '))
        text.length--;
    return text;
}

/* The middle segment. It is not verified: it need not be, to be refused. */
static status payload_of(struct buffer *out, struct span token, struct fault *fault)
{
    size_t first = span_find(token, '.');
    if (first == token.length)
        return FAIL(BAD_FIELD, fault, "--token-file: this is no token");
    struct span rest = {token.data + first + 1, token.length - first - 1};
    size_t second = span_find(rest, '.');
    if (second == rest.length)
        return FAIL(BAD_FIELD, fault, "--token-file: this is no token");
    return base64url_decode(out, (struct span){rest.data, second}, "--token-file", fault);
}

static status put_claims(struct json_writer *writer, const struct json *payload,
                         struct fault *fault)
{
    const struct json *jti = json_member(payload, "jti"), *exp = json_member(payload, "exp");
    if (!jti || jti->kind != JSON_STRING)
        return FAIL(BAD_FIELD, fault, "--token-file: the token has no jti: revoke its user");
    json_put_string(writer, "jti", jti->string);
    if (exp && exp->kind == JSON_INTEGER && exp->integer > 0)
        json_put_integer(writer, "expires_at", exp->integer);
    return OK;
}

static status put_token(struct json_writer *writer, struct span token, struct fault *fault)
{
    _cleanup_buffer_ struct buffer payload = buffer_of(TOKEN_MAX);
    struct arena arena = arena_of(PARSED_MAX);
    struct json parsed;
    TRY(payload_of(&payload, token, fault));
    status read = json_parse(&parsed, &arena, buffer_span(&payload), fault);
    if (read == OK)
        read = put_claims(writer, &parsed, fault);
    arena_free(&arena);
    return read;
}

static status put_token_file(struct json_writer *writer, const char *path, struct fault *fault)
{
    _cleanup_buffer_ struct buffer text = buffer_of(FILE_MAX);
    bool standard = strcmp(path, "-") == 0;
    _cleanup_close_ int file = standard ? dup(STDIN_FILENO)
                                        : open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (file < 0)
        return FAIL(NOT_FOUND, fault, "--token-file: %.140s: %s", path, strerror(errno));
    status result = file_read(&text, file, "--token-file", fault);
    if (result == OK)
        result = put_token(writer, trimmed(buffer_span(&text)), fault);
    secret_wipe(text.data, text.capacity);
    return result;
}

static int revoke_one(struct cli *cli)
{
    uint8_t storage[8192];
    struct buffer arguments = buffer_over(storage, sizeof storage);
    struct json_writer writer = json_writer_on(&arguments);
    const char *jti = cli_option(cli, "--jti"), *user = cli_option(cli, "--user");
    const char *file = cli_option(cli, "--token-file");
    struct fault fault;
    json_open_object(&writer, NULL);
    if (!cli_put_scope(&writer, cli) || !!jti + !!user + !!file != 1)
        return cli_usage("revoke: NAME or --platform, and one of --user, --jti and --token-file "
                         "are needed");
    if (cli_end(cli) != EXIT_DONE)
        return EXIT_USAGE;
    if (jti)
        json_put_text(&writer, "jti", jti);
    if (user)
        json_put_text(&writer, "user", user);
    if (file && put_token_file(&writer, file, &fault) != OK)
        return cli_refused(fault.detail);
    json_close_object(&writer);
    return cli_call(cli, "token.revoke", &arguments, -1, print_entries);
}

/* A tenant of the name "list" is reached with --jti and so on before it. */
int command_revoke(struct cli *cli)
{
    if (cli->argc && strcmp(cli->argv[0], "list") == 0) {
        (void)cli_word(cli);
        return list(cli);
    }
    return revoke_one(cli);
}
