/* sandbox_options.c: the line of `sandbox run`, read strictly: each complaint says what may be. */
#define _GNU_SOURCE
#include "cli/sandbox.h"
#include "cli/terminal.h"

#include <stdlib.h>
#include <string.h>

/* Digits, then at most one letter; -1 for anything else, 0 for no letter. */
static int number_and_unit(int64_t *ret, const char *text)
{
    enum { DIGITS_MAX = 12 };
    int64_t value = 0;
    size_t digits = strspn(text, "0123456789");
    if (digits == 0 || digits > DIGITS_MAX || (text[digits] && text[digits + 1]))
        return -1;
    for (size_t i = 0; i < digits; i++)
        value = value * 10 + (text[i] - '0');
    *ret = value;
    return text[digits];
}

bool sandbox_mib(uint32_t *ret_mib, const char *text, uint32_t least, uint32_t most)
{
    int64_t value;
    int unit = number_and_unit(&value, text);
    if (unit == 'G')
        value *= 1024;
    else if (unit != 'M' && (unit != 0 || value != 0))
        return false;
    if (value < (int64_t)least || value > (int64_t)most)
        return false;
    *ret_mib = (uint32_t)value;
    return true;
}

bool sandbox_seconds(uint32_t *ret_seconds, const char *text, uint32_t least, uint32_t most)
{
    int64_t value;
    int unit = number_and_unit(&value, text);
    int64_t factor = unit == 0 || unit == 's' ? 1 : unit == 'm' ? 60 : unit == 'h' ? 3600
                   : unit == 'd' ? 86400 : 0;
    if (factor == 0 || value * factor < (int64_t)least || value * factor > (int64_t)most)
        return false;
    *ret_seconds = (uint32_t)(value * factor);
    return true;
}

bool sandbox_bytes(int64_t *ret_bytes, const char *text, int64_t most)
{
    int64_t value;
    int unit = number_and_unit(&value, text);
    int64_t factor = unit == 0 ? 1 : unit == 'K' ? 1 << 10 : unit == 'M' ? 1 << 20
                   : unit == 'G' ? 1 << 30 : 0;
    if (factor == 0 || value < 1 || value > most / factor)
        return false;
    *ret_bytes = value * factor;
    return true;
}

static bool count(uint32_t *ret, const char *text, uint32_t least, uint32_t most)
{
    int64_t value;
    if (number_and_unit(&value, text) != 0 || value < (int64_t)least || value > (int64_t)most)
        return false;
    *ret = (uint32_t)value;
    return true;
}

/* Each returns NULL, or what may be. */

static const char *read_bounds(struct sandbox_run *run, struct cli *cli)
{
    struct sandbox_spec *spec = &run->spec;
    const char *memory = cli_option(cli, "--mem"), *vcpus = cli_option(cli, "--cpus");
    const char *disk = cli_option(cli, "--disk"), *processes = cli_option(cli, "--processes");
    const char *timeout = cli_option(cli, "--timeout"), *cpu = cli_option(cli, "--cpu-time");
    if (memory && !sandbox_mib(&spec->memory_mib, memory, SANDBOX_MEMORY_MIB_MIN,
                               SANDBOX_MEMORY_MIB_MAX))
        return "--mem: a whole number with M or G, such as 128M; 64M to 256G";
    if (vcpus && !count(&spec->vcpus, vcpus, 1, SANDBOX_VCPUS_MAX))
        return "--cpus: 1 to 32";
    if (disk && !sandbox_mib(&spec->disk_mib, disk, 0, SANDBOX_DISK_MIB_MAX))
        return "--disk: a whole number with M or G, such as 256M, at most 1024G; 0 for none";
    if (processes && !count(&spec->processes, processes, 1, SANDBOX_PROCESSES_MAX))
        return "--processes: 1 to 32768";
    if (timeout && !sandbox_seconds(&run->timeout_s, timeout, 1, SANDBOX_LIFETIME_SECONDS_MAX))
        return "--timeout: a whole number with s, m or h, such as 30s; 1s to 24h";
    if (cpu && !sandbox_seconds(&spec->cpu_s, cpu, 1,
                                SANDBOX_LIFETIME_SECONDS_MAX * SANDBOX_VCPUS_MAX))
        return "--cpu-time: a whole number with s, m or h, such as 10s; 1s to 768h";
    static_assert(SANDBOX_MEMORY_MIB_MIN == 64 && SANDBOX_MEMORY_MIB_MAX == 256 * 1024
                  && SANDBOX_VCPUS_MAX == 32 && SANDBOX_DISK_MIB_MAX == 1024 * 1024
                  && SANDBOX_PROCESSES_MAX == 32768 && SANDBOX_LIFETIME_SECONDS_MAX == 86400,
                  "the complaints say the limits");
    return NULL;
}

static const char *read_rates(struct sandbox_run *run, struct cli *cli)
{
    static const struct {
        const char *option, *wrong;
        size_t offset;
    } rates[] = {
        {"--disk-rate", "--disk-rate: bytes a second, such as 50M",
         offsetof(struct sandbox_run, disk_rate)},
        {"--disk-operations", "--disk-operations: a number a second, such as 1000",
         offsetof(struct sandbox_run, disk_operations)},
        {"--net-rate", "--net-rate: bytes a second, such as 10M",
         offsetof(struct sandbox_run, net_rate)},
        {"--net-packets", "--net-packets: a number a second, such as 1000",
         offsetof(struct sandbox_run, net_packets)},
    };
    for (size_t i = 0; i < sizeof rates / sizeof *rates; i++) {
        const char *value = cli_option(cli, rates[i].option);
        int64_t *rate = (int64_t *)((char *)run + rates[i].offset);
        if (value && !sandbox_bytes(rate, value, (int64_t)SANDBOX_RATE_MAX))
            return rates[i].wrong;
    }
    return NULL;
}

static const char *read_kinds(struct sandbox_run *run, struct cli *cli)
{
    struct fault fault;
    enum sandbox_tier tier;
    const char *image = cli_option(cli, "--image"), *net = cli_option(cli, "--net");
    run->tier = cli_option(cli, "--tier");
    run->tenant = cli_option(cli, "--tenant");
    run->report = cli_option(cli, "--report");
    run->console = cli_option(cli, "--console");
    run->spec.console = run->console != NULL;
    run->spec.huge_pages = cli_flag(cli, "--huge-pages");
    run->tty = cli_flag(cli, "--tty");
    run->verbose = cli_flag(cli, "--verbose");
    if (run->tier && sandbox_tier_of(&tier, span_of_text(run->tier), "--tier", &fault) != OK)
        return "--tier: microvm, gvisor or container";
    if (run->console && run->console[0] == '\0')
        return "--console: a file, or a pipe that somebody reads";
    if (image && (!sandbox_is_image_name(span_of_text(image))
                  || !span_to_text(run->spec.image, sizeof run->spec.image, span_of_text(image))))
        return "--image: 1 to 32 of a-z, 0-9 and -, no dash in front";
    if (net && strcmp(net, "none") != 0 && strcmp(net, "isolated") != 0)
        return "--net: none or isolated";
    run->spec.net = net && strcmp(net, "isolated") == 0 ? SANDBOX_NET_ISOLATED : SANDBOX_NET_NONE;
    return NULL;
}

static bool put_variable(struct agent_exec *exec, const char *text)
{
    const char *equals = strchr(text, '=');
    if (!equals || equals == text || exec->environment_count == AGENT_ARGUMENTS_MAX)
        return false;
    exec->environment[exec->environment_count++] = span_of_text(text);
    return true;
}

static bool has_terminal(const struct agent_exec *exec)
{
    for (uint32_t i = 0; i < exec->environment_count; i++)
        if (span_starts_with(exec->environment[i], SPAN("TERM=")))
            return true;
    return false;
}

/* A program on a terminal has to know which one; nothing else of ours goes in by itself. */
static void put_terminal(struct sandbox_run *run)
{
    const char *terminal = getenv("TERM");
    int length = terminal ? snprintf(run->terminal, sizeof run->terminal, "TERM=%s", terminal) : 0;
    if (length > 0 && (size_t)length < sizeof run->terminal && !has_terminal(&run->exec))
        (void)put_variable(&run->exec, run->terminal);
}

static const char *read_exec(struct sandbox_run *run, struct cli *cli)
{
    struct agent_exec *exec = &run->exec;
    const char *user = cli_option(cli, "--user"), *directory = cli_option(cli, "--workdir");
    for (const char *one; (one = cli_option(cli, "--env"));)
        if (!put_variable(exec, one))
            return "--env: NAME=VALUE, at most 255 of them";
    exec->user = span_of_text(user);
    exec->directory = span_of_text(directory);
    if (user && (exec->user.length == 0 || exec->user.length > 64))
        return "--user: a name or a number of the image's, at most 64 characters";
    if (directory && (directory[0] != '/' || exec->directory.length >= AGENT_PATH_MAX))
        return "--workdir: an absolute path of the image's, at most 4095 bytes";
    exec->flags = AGENT_EXEC_STDIN;
    exec->timeout_ms = run->timeout_s * 1000;
    exec->processes = run->spec.processes;
    if (!run->tty)
        return NULL;
    exec->flags |= AGENT_EXEC_PTY;
    terminal_size(&exec->rows, &exec->columns);
    put_terminal(run);
    return NULL;
}

static const char *read_command(struct sandbox_run *run, const struct cli *cli)
{
    struct agent_exec *exec = &run->exec;
    for (int i = 1; i < cli->argc; i++) {
        if (exec->argument_count == AGENT_ARGUMENTS_MAX)
            return "sandbox run: the command has at most 256 words";
        exec->arguments[exec->argument_count++] = span_of_text(cli->argv[i]);
    }
    if (exec->argument_count == 0 || exec->arguments[0].length == 0)
        return "sandbox run: a command is needed after --";
    return NULL;
}

int sandbox_run_read(struct sandbox_run *ret, struct cli *cli)
{
    *ret = (struct sandbox_run){.spec = sandbox_spec_default(),
                                .timeout_s = SANDBOX_LIFETIME_SECONDS_DEFAULT};
    const char *wrong = read_bounds(ret, cli);
    if (!wrong)
        wrong = read_rates(ret, cli);
    if (!wrong)
        wrong = read_kinds(ret, cli);
    if (!wrong)
        wrong = read_exec(ret, cli);
    if (wrong)
        return cli_usage(wrong);
    if (cli->argc == 0)
        return cli_usage("sandbox run: -- and a command are needed");
    if (strcmp(cli->argv[0], "--") != 0)
        return cli_end(cli);
    wrong = read_command(ret, cli);
    return wrong ? cli_usage(wrong) : EXIT_DONE;
}
