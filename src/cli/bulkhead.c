/* bulkhead.c: the table of commands. */
#define _GNU_SOURCE
#include "cli/cli.h"
#include "crypt/crypt.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char help_text[] =
    "bulkhead " BULKHEAD_VERSION ": sealed compartments for the tenants of an AI-agent platform\n"
    "\n"
    "  bulkhead serve  [--data DIR] [--keys DIR] [--listen ADDR:PORT] [--ops ADDR:PORT]\n"
    "                  [--config FILE] [--tls-cert FILE --tls-key FILE] [--domain D] [--region R]\n"
    "                  [--behind-proxy] [--trusted-proxy ADDR|CIDR]... [--no-tenant-labels]\n"
    "                  [--prices FILE]\n"
    "  bulkhead tenant create NAME [--tier standard|regulated] [--region R] [--retention DAYS]\n"
    "                  [--quota K=N]... [--audit strict] [--require-clearance]\n"
    "                  [--token-lifetime 15m] [--sandbox microvm|gvisor|container]\n"
    "  bulkhead tenant update NAME ...  the same; K=0, 0 or \"\" takes away what a tier allows to\n"
    "  bulkhead tenant update NAME --rotate-dek | --rotate-kek   all its backups until then are\n"
    "                  dead: make one afterwards\n"
    "  bulkhead tenant key NAME disable|enable\n"
    "  bulkhead tenant list | show NAME [--days N] | pause NAME | resume NAME\n"
    "  bulkhead tenant erase NAME [--receipt FILE]\n"
    "  bulkhead tenant check NAME|--all   reads and verifies all of a silo that is in use\n"
    "  bulkhead tenant backup NAME|--all --to DIR [--full]\n"
    "  bulkhead tenant restore NAME --from DIR [--at NUMBER]\n"
    "  bulkhead tenant export NAME [-o FILE.tar]   all of it, in clear, open formats\n"
    "  bulkhead token  NAME --user U [--agent A] [--scope \"S S\"] [--clearance C] [--ttl 15m]\n"
    "  bulkhead token  --platform --user U --scope routes:read [--ttl 15m]\n"
    "  bulkhead issuer add NAME|--platform --iss URL --jwks FILE [--aud A] [--tenant-claim C]\n"
    "                  [--user-claim C] [--scope-claim C] [--clearance-claim C] [--skew SECONDS]\n"
    "                  [--max-lifetime 1h] [--once]   again: new keys, the rest stays\n"
    "  bulkhead issuer list NAME|--platform | remove NAME|--platform --iss URL\n"
    "  bulkhead revoke NAME|--platform --user U | --jti J | --token-file FILE|-\n"
    "  bulkhead revoke list NAME|--platform\n"
    "  bulkhead route  add NAME host|phone|customer VALUE | remove KIND VALUE | list [NAME]\n"
    "  bulkhead sandbox run [--tenant NAME] [--image base] [--mem 128M] [--cpus 1] [--disk 256M]\n"
    "                  [--timeout 30s] [--cpu-time 10s] [--processes N] [--net none|isolated]\n"
    "                  [--tier microvm|gvisor|container] [--disk-rate 50M] [--disk-operations N]\n"
    "                  [--net-rate 10M] [--net-packets N] [--user U] [--workdir D] [--env K=V]...\n"
    "                  [--console FILE] [--huge-pages] [--tty] [--verbose] [--report FILE]\n"
    "                  -- COMMAND...   its exit status is the command's; 124 timeout, 125 the\n"
    "                  sandbox was refused or failed. --console: what a microVM's kernel says\n"
    "  bulkhead sandbox ps | kill ID\n"
    "  bulkhead audit  export NAME [-o FILE] | tail NAME\n"
    "  bulkhead audit  verify FILE [--key K] [--checkpoint FILE] [--witness FILE]\n"
    "  bulkhead audit  witness FILE (--tenant NAME | --note FILE) [--key K]\n"
    "  bulkhead receipt verify FILE [--key K]\n"
    "  bulkhead ledger export [-o FILE] | verify FILE [--key K] [--checkpoint FILE]\n"
    "  bulkhead platform-key      the public key that signs checkpoints and receipts\n"
    "  bulkhead image build NAME [--packages DIR]   what sandboxes boot, from Debian's packages\n"
    "  bulkhead image list\n"
    "  bulkhead status            processes and the jails that are really in force\n"
    "  bulkhead prove             the assume-breach battery against this running node\n"
    "\n"
    "--data DIR (or BULKHEAD_DATA; default ./bulkhead-data) and --json go with every command.\n"
    "Exit: 0 done, 1 refused or failed, 2 usage.\n";

static int command_help(struct cli *cli)
{
    (void)cli;
    fputs(help_text, stdout);
    return EXIT_DONE;
}

static int command_version(struct cli *cli)
{
    (void)cli;
    puts(BULKHEAD_VERSION);
    return EXIT_DONE;
}

/* The supervisor is a program of its own: it never shares an address space with this parser. */
int command_serve(struct cli *cli)
{
    char path[PATH_MAX + 16];
    ssize_t length = readlink("/proc/self/exe", path, PATH_MAX);
    char *slash = length > 0 ? memrchr(path, '/', (size_t)length) : NULL;
    if (!slash)
        return cli_refused("/proc is needed");
    snprintf(slash, sizeof path - (size_t)(slash - path), "/bulkheadd");
    char **argv = calloc((size_t)cli->argc + 4, sizeof *argv);
    if (!argv)
        return cli_refused("out of memory");
    int count = 0;
    argv[count++] = path;
    for (int i = 0; i < cli->argc; i++)
        argv[count++] = cli->argv[i];
    if (cli->data_given) {
        argv[count++] = (char *)(uintptr_t)"--data";
        argv[count++] = cli->data;
    }
    execv(path, argv);
    fprintf(stderr, "bulkhead: %s: %s\n", path, strerror(errno));
    free(argv);
    return EXIT_REFUSED;
}

static const struct {
    const char *name;
    int (*run)(struct cli *cli);
} commands[] = {
    {"serve", command_serve},     {"tenant", command_tenant},
    {"token", command_token},     {"audit", command_audit},
    {"issuer", command_issuer},   {"revoke", command_revoke},
    {"route", command_route},     {"sandbox", command_sandbox},
    {"receipt", command_receipt}, {"ledger", command_ledger},
    {"platform-key", command_platform_key},
    {"image", command_image},
    {"status", command_status},   {"prove", command_prove},
    {"help", command_help},       {"--help", command_help},
    {"version", command_version}, {"--version", command_version},
};

/* A descriptor that was closed would be taken by the next file or socket, and the output of a
 * command, or what it reads, would be that. Opened the wrong way round: using it still fails. */
static void hold_standard(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0
            && open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd)
            _exit(EXIT_REFUSED);
}

int main(int argc, char **argv)
{
    hold_standard();
    struct cli cli = {.argc = argc - 1, .argv = argv + 1};
    struct fault fault;
    const char *environment = getenv("BULKHEAD_DATA");
    const char *data = cli_option(&cli, "--data");
    const char *command = cli_word(&cli);
    cli.data_given = data != NULL;
    if (!data)
        data = environment && *environment ? environment : "./bulkhead-data";
    if (!span_to_text(cli.data, sizeof cli.data, span_of_text(data)) || !*data)
        return cli_usage("--data: the path is empty or too long");
    if (!command && cli.argc == 0)
        return cli_usage("a command is needed");
    if (!command) {
        command = cli.argv[0];
        cli.argc = 0;
    }
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        if (strcmp(commands[i].name, command) != 0)
            continue;
        if (commands[i].run != command_serve) {
            cli.json = cli_flag(&cli, "--json");
            if (crypt_start(&fault) != OK)
                return cli_refused(fault.detail);
        }
        return commands[i].run(&cli);
    }
    fprintf(stderr, "bulkhead: \"%.40s\" is no command; see `bulkhead help`\n", command);
    return EXIT_USAGE;
}
