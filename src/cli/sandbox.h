/* sandbox.h: the parts of `bulkhead sandbox`. */
#pragma once

#include "cli/agent_session.h"
#include "cli/cli.h"
#include "wire/sandbox.h"

enum { /* of `sandbox run`, besides the command's own and 128 + the signal that ended it */
    EXIT_TIMEOUT = 124,
    EXIT_SANDBOX = 125, /* the sandbox was refused, or failed under the command */
    EXIT_SIGNAL = 128,
};

struct sandbox_run { /* what a line asks for */
    struct agent_exec exec;
    struct sandbox_spec spec;
    const char *tenant, *tier, *report, *console; /* NULL: not said */
    uint32_t timeout_s;
    int64_t disk_rate, disk_operations, net_rate, net_packets; /* a second; 0: no limit */
    bool tty, verbose;
    char terminal[64]; /* TERM=... */
};

/* sandbox_options.c. EXIT_DONE, or it has complained. Texts are the line's own. */
int sandbox_run_read(struct sandbox_run *ret, struct cli *cli);
/* "128M", "1G" in MiB; "30s", "5m", "2h", "1d", "90" in seconds; "100K", "10M", "1G", "4096" in
 * bytes. Digits and one letter, nothing else. */
bool sandbox_mib(uint32_t *ret_mib, const char *text, uint32_t least, uint32_t most);
bool sandbox_seconds(uint32_t *ret_seconds, const char *text, uint32_t least, uint32_t most);
bool sandbox_bytes(int64_t *ret_bytes, const char *text, int64_t most);

/* sandbox_pump.c: standard input, output and error against the session, until one is over. */
enum pump_end {
    PUMP_OVER,   /* the session says how */
    PUMP_CLOSED, /* the sandbox has ended without a word of the command's end */
    PUMP_BREACH, /* the guest broke the protocol: fault says how */
    PUMP_OUTPUT, /* nobody takes the output any more; fault says why, empty for a closed pipe */
    PUMP_KILLED, /* by a second signal, its number in ret_signal */
};
enum pump_end sandbox_pump(struct agent_session *session, int stream, int *ret_signal,
                           struct fault *fault);
