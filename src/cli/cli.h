/* cli.h: the operator's command line. It holds no secret and decides nothing: it speaks to
 * DATA/run/admin.sock or reads files, and prints. Exit: 0 done, 1 refused or failed (one line on
 * stderr), 2 usage. */
#pragma once

#include "base/arena.h"
#include "base/buffer.h"
#include "wire/json.h"

#include <limits.h>

struct cli {
    char data[PATH_MAX]; /* --data, BULKHEAD_DATA, ./bulkhead-data */
    bool data_given;     /* --data: only that overrides a configuration file's */
    bool json;           /* --json */
    int argc;            /* what is left of the line: command, words, options of the command */
    char **argv;
};

enum { EXIT_DONE = 0, EXIT_REFUSED = 1, EXIT_USAGE = 2 };

/* Prints "bulkhead: ..." on stderr and yields the exit status. */
int cli_refused(const char *detail);
int cli_usage(const char *detail);

/* The value of `--name VALUE` (or --name=VALUE), taken off the line; NULL when absent. A word that
 * is missing is usage. What follows a word "--" is somebody else's line: not looked at. */
const char *cli_option(struct cli *cli, const char *name);
bool cli_flag(struct cli *cli, const char *name);
/* The next plain word, taken off; NULL at the end. Unknown options are told by cli_end. */
const char *cli_word(struct cli *cli);
/* EXIT_DONE when nothing is left, else it complains. */
int cli_end(struct cli *cli);

/* client.c: one call over admin.sock. fd: passed along, or -1. The result's JSON goes to out. The
 * peer's status and detail on refusal; UNAVAILABLE when nobody serves DATA. */
MUST_CHECK status client_call(struct buffer *out, const struct cli *cli, const char *verb,
                              struct span arguments, int fd, struct fault *fault);

/* The same with several descriptors. */
MUST_CHECK status client_call_fds(struct buffer *out, const struct cli *cli, const char *verb,
                                  struct span arguments, const int *fds, uint32_t fd_count,
                                  struct fault *fault);

/* The same for a verb on one tenant: {"name":...}; name NULL: {}. */
MUST_CHECK status client_call_named(struct buffer *out, const struct cli *cli, const char *verb,
                                    const char *name, int fd, struct fault *fault);

/* Prints JSON as it is with --json, else calls print with the parsed document. */
typedef void cli_print(const struct json *document);
int cli_show(const struct cli *cli, struct span json, cli_print *print);
/* Prints text safely: control characters of a hostile value (a cell's own words, a file's) never
 * reach a terminal, those of C1 in UTF-8 (U+0080 to U+009F) included. */
void cli_put_text(struct span text);

/* Members of an answer, for printing: "-" where the text is missing, 0 where the number is. */
struct span cli_member(const struct json *object, const char *name);
int64_t cli_number(const struct json *object, const char *name);
bool cli_is_true(const struct json *object, const char *name);

/* "90", "90s", "15m", "2h", "1d"; from zero or one second to a year. */
bool cli_duration(int64_t *ret_seconds, const char *text, int64_t min);
bool cli_whole_number(int64_t *ret, const char *text);

/* The scope that a line names, put into the arguments: --platform, else its next word, a tenant's
 * name. False when it names none, or both. */
bool cli_put_scope(struct json_writer *writer, struct cli *cli);
/* Calls and prints; the exit status. */
int cli_call(struct cli *cli, const char *verb, const struct buffer *arguments, int fd,
             cli_print *print);

/* The commands. */
int command_serve(struct cli *cli);
int command_tenant(struct cli *cli);
int command_token(struct cli *cli);
int command_issuer(struct cli *cli);
int command_revoke(struct cli *cli);
int command_route(struct cli *cli);
int command_audit(struct cli *cli);
int command_receipt(struct cli *cli);
int command_ledger(struct cli *cli);
int command_platform_key(struct cli *cli);
int command_image(struct cli *cli);
int command_sandbox(struct cli *cli);
int command_status(struct cli *cli);
int command_prove(struct cli *cli);

/* care.c: of `tenant`. */
int tenant_check(struct cli *cli, const char *name);  /* NULL: --all */
int tenant_backup(struct cli *cli, const char *name); /* NULL: --all */
int tenant_restore(struct cli *cli, const char *name);
int tenant_export(struct cli *cli, const char *name); /* export.c */
