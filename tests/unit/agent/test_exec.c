/* Commands: how they begin, what they say, how they and all they started end. */
#define _GNU_SOURCE
#include "host.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static struct host host;
static struct outcome outcome;
static char word[64]; /* in the command lines of this test alone */

static int set_up(void **state)
{
    (void)state;
    static int number;
    snprintf(word, sizeof word, "31%d.%d", getpid(), ++number); /* seconds, to a sleep */
    host_start(&host);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    assert_int_equal(host_stop(&host), 0);
    assert_int_equal(processes_with(word), 0);
    return 0;
}

static const char *script(const char *format)
{
    static char text[1024];
    snprintf(text, sizeof text, "%s", format);
    for (char *at; (at = strstr(text, "WORD")) != NULL;) {
        char rest[1024];
        snprintf(rest, sizeof rest, "%s", at + 4);
        snprintf(at, sizeof text - (size_t)(at - text), "%s%s", word, rest);
    }
    return text;
}

static void run_shell(const char *text)
{
    struct agent_exec exec = host_shell(script(text));
    host_run(&host, &exec, &outcome);
}

static void expect_code(uint8_t code)
{
    assert_int_equal(outcome.failed, OK);
    assert_int_equal(outcome.exited.how, AGENT_EXIT_CODE);
    assert_int_equal(outcome.exited.code, code);
}

static void expect_signal(uint8_t number)
{
    assert_int_equal(outcome.failed, OK);
    assert_int_equal(outcome.exited.how, AGENT_EXIT_SIGNAL);
    assert_int_equal(outcome.exited.code, number);
}

static void a_command_runs_and_both_outputs_and_its_status_come_back(void **state)
{
    (void)state;
    run_shell("echo out; echo err >&2; exit 7");
    expect_code(7);
    assert_true(outcome_says(&outcome, "out\n"));
    assert_true(span_is(buffer_span(&outcome.error), "err\n"));
    assert_true(outcome.exited.peak_kib > 0);
    outcome_free(&outcome);
    run_shell("kill -TERM $$");
    expect_signal(SIGTERM);
    outcome_free(&outcome);
}

static void arguments_environment_and_directory_arrive_as_they_are(void **state)
{
    (void)state;
    struct agent_exec exec = {
        .arguments = {SPAN("sh"), SPAN("-c"),
                      SPAN("printf '%s|' \"$@\" \"$A\" \"$HOME\" \"$PWD\" \"$PATH\"; ulimit -c"),
                      SPAN("zero"), SPAN(""), SPAN("a b"), SPAN("\xff\"'$")},
        .argument_count = 7,
        .environment = {SPAN("A=b=c"), SPAN("PATH=/bin:/usr/bin")}, .environment_count = 2,
        .directory = SPAN("/tmp"), .user = SPAN("0")};
    if (geteuid() != 0)
        skip(); /* another home */
    host_run(&host, &exec, &outcome);
    expect_code(0);
    assert_true(outcome_says(&outcome, "|a b|\xff\"'$|b=c|/root|/tmp|/bin:/usr/bin|0\n"));
    outcome_free(&outcome);
}

static void nothing_of_the_agent_is_open_or_blocked_in_a_command(void **state)
{
    (void)state;
    run_shell("ls /proc/self/fd | tr '\\n' ' '; grep -E 'SigBlk|SigIgn|NoNewPrivs' "
              "/proc/self/status | tr -d '\\t' | tr '\\n' ' '; cat /proc/self/oom_score_adj; "
              "cut -d' ' -f19 /proc/self/stat");
    expect_code(0);
    /* in a microVM root is root: the kernel is the guest's own */
    char wanted[128];
    snprintf(wanted, sizeof wanted, "0 1 2 3 SigBlk:0000000000000000 SigIgn:0000000000000000 "
             "NoNewPrivs:%d 0\n0\n", !host_is_guest());
    assert_true(outcome_says(&outcome, wanted));
    outcome_free(&outcome);
}

static void what_cannot_be_run_is_answered_with_the_reason(void **state)
{
    (void)state;
    static const struct {
        struct span program, directory, user;
        status code;
        const char *detail;
    } cases[] = {
        {SPAN("no-such-program"), SPAN(""), SPAN(""), NOT_FOUND, "program: "},
        {SPAN("/etc/passwd"), SPAN(""), SPAN(""), FORBIDDEN_POLICY, "program: "},
        {SPAN("/bin/true"), SPAN("/no/such"), SPAN(""), NOT_FOUND, "directory: "},
        {SPAN("/bin/true"), SPAN(""), SPAN("no-such-user"), NOT_FOUND, "user: "},
        {SPAN("/bin/true"), SPAN(""), SPAN("4294967295"), NOT_FOUND, "user: "}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct agent_exec exec = {.arguments = {cases[i].program}, .argument_count = 1,
                                  .directory = cases[i].directory, .user = cases[i].user};
        host_run(&host, &exec, &outcome);
        assert_int_equal(outcome.failed, cases[i].code);
        assert_true(span_starts_with(span_of_text(outcome.detail),
                                     span_of_text(cases[i].detail)));
        outcome_free(&outcome);
    }
}

static void a_command_runs_as_the_user_that_is_named(void **state)
{
    (void)state;
    if (geteuid() != 0)
        skip();
    struct agent_exec exec = host_shell("id -u; id -g; id -G; grep CapEff /proc/self/status | "
                                        "tr -d '\\t'; kill -9 $PPID; echo $?");
    exec.user = SPAN("12345");
    exec.directory = SPAN("/");
    host_run(&host, &exec, &outcome);
    expect_code(0);
    assert_true(outcome_says(&outcome, "12345\n12345\n12345\nCapEff:0000000000000000\n1\n"));
    outcome_free(&outcome);
    exec = host_shell("id -un");
    exec.user = SPAN("nobody");
    host_run(&host, &exec, &outcome);
    assert_true(outcome_says(&outcome, "nobody\n"));
    outcome_free(&outcome);
}

static void daemons_that_left_every_group_die_with_their_tree(void **state)
{
    (void)state;
    run_shell("(setsid sh -c 'setsid sleep WORD & setsid sh -c \"trap : TERM INT HUP; "
              "sleep WORD; sleep WORD\" &' &) </dev/null >/dev/null 2>&1; sleep 0.2; echo begun");
    expect_code(0);
    assert_true(outcome_says(&outcome, "begun\n"));
    assert_int_equal(processes_with(word), 0);
    outcome_free(&outcome);
}

static void a_daemon_that_holds_the_output_does_not_hold_the_end(void **state)
{
    (void)state;
    run_shell("setsid sleep WORD & echo done");
    expect_code(0);
    assert_true(outcome_says(&outcome, "done\n"));
    outcome_free(&outcome);
}

static void a_signal_reaches_the_group_and_nine_the_whole_tree(void **state)
{
    (void)state;
    struct agent_exec exec = host_shell(script("trap 'echo got; exit 5' USR1; echo up; "
                                               "while :; do sleep 0.05; done"));
    host_exec(&host, 1, &exec);
    host_expect(&host, AGENT_STARTED, 1);
    host_expect(&host, AGENT_DATA, 1);
    host_signal(&host, 1, SIGUSR1);
    host_gather(&host, 1, &outcome);
    expect_code(5);
    assert_true(outcome_says(&outcome, "got\n"));
    outcome_free(&outcome);
    exec = host_shell(script("setsid sleep WORD & echo up; sleep WORD"));
    host_exec(&host, 2, &exec);
    host_expect(&host, AGENT_STARTED, 2);
    host_expect(&host, AGENT_DATA, 2);
    host_signal(&host, 2, SIGKILL);
    host_gather(&host, 2, &outcome);
    expect_signal(SIGKILL);
    assert_int_equal(processes_with(word), 0);
    host_signal(&host, 2, SIGTERM); /* crossed its end */
    outcome_free(&outcome);
}

static void a_timeout_ends_the_tree_and_says_so(void **state)
{
    (void)state;
    struct agent_exec exec = host_shell(script("trap '' TERM INT; setsid sleep WORD & echo up; "
                                               "sleep WORD"));
    exec.timeout_ms = 300;
    host_run(&host, &exec, &outcome);
    assert_int_equal(outcome.exited.how, AGENT_EXIT_TIMEOUT);
    assert_int_equal(outcome.exited.code, SIGKILL);
    assert_true(outcome_says(&outcome, "up\n"));
    assert_int_equal(processes_with(word), 0);
    outcome_free(&outcome);
}

static void a_cancel_ends_it_even_when_nobody_takes_its_output(void **state)
{
    (void)state;
    struct agent_exec exec = host_shell("exec yes");
    uint64_t bytes = 0;
    host_exec(&host, 1, &exec);
    host_expect(&host, AGENT_STARTED, 1);
    while (bytes < AGENT_WINDOW)
        bytes += host_expect(&host, AGENT_DATA, 1).payload.length - 1;
    assert_int_equal(bytes, AGENT_WINDOW);
    assert_true(host_is_quiet(&host, 100)); /* no credit, no bytes */
    host_cancel(&host, 1);
    host_gather(&host, 1, &outcome);
    expect_signal(SIGKILL);
    assert_int_equal(outcome.out.length, 0);
    outcome_free(&outcome);
}

static void the_output_of_a_command_that_is_gone_waits_for_credit(void **state)
{
    (void)state;
    struct agent_exec exec = host_shell("head -c 300000 /dev/zero");
    uint64_t bytes = 0;
    host_exec(&host, 1, &exec);
    host_expect(&host, AGENT_STARTED, 1);
    while (bytes < AGENT_WINDOW) {
        struct agent_frame frame = host_next(&host);
        bytes += frame.type == AGENT_DATA ? frame.payload.length - 1 : 0;
    }
    host_credit(&host, 1, AGENT_OUT, 1000);
    host_credit(&host, 1, AGENT_OUT, 100000);
    host_gather(&host, 1, &outcome);
    expect_code(0);
    assert_int_equal(bytes + outcome.out.length, 300000);
    outcome_free(&outcome);
}

/* As many as its bound allows, each trying to make more, in sessions of their own. */
static void a_fork_bomb_is_bounded_and_killed_to_the_last_process(void **state)
{
    (void)state;
    if (geteuid() != 0)
        skip(); /* nobody to bound it by */
    struct agent_exec exec = host_shell(script("for i in 1 2 3 4 5 6 7 8; do setsid sh -c "
                                               "'while :; do sleep WORD & done' 2>/dev/null & "
                                               "done; sleep 1; exec sleep WORD"));
    exec.user = SPAN("54321");
    exec.directory = SPAN("/");
    exec.processes = 100;
    exec.timeout_ms = 2500;
    host_run(&host, &exec, &outcome);
    assert_int_equal(outcome.exited.how, AGENT_EXIT_TIMEOUT);
    assert_int_equal(processes_with(word), 0);
    outcome_free(&outcome);
    run_shell("echo well");
    assert_true(outcome_says(&outcome, "well\n"));
    outcome_free(&outcome);
}

/* A command of the agent's own user can kill its shepherd: it gains nothing. */
static void who_kills_the_shepherd_dies_with_all_it_started(void **state)
{
    (void)state;
    if (host_is_guest())
        skip(); /* no shepherds there */
    run_shell("setsid sleep WORD & setsid sleep WORD & sleep 0.1; kill -9 $PPID; sleep WORD");
    expect_signal(SIGKILL);
    wait_for_no(word);
    outcome_free(&outcome);
}

static void the_end_of_the_connection_ends_all_that_runs(void **state)
{
    (void)state;
    struct agent_exec exec = host_shell(script("setsid sleep WORD & setsid sleep WORD & "
                                               "trap '' HUP TERM; echo up; sleep WORD"));
    for (uint32_t id = 1; id <= 3; id++) {
        host_exec(&host, id, &exec);
        host_expect(&host, AGENT_STARTED, id);
        host_expect(&host, AGENT_DATA, id);
    }
    assert_true(processes_with(word) >= 6);
}

static void as_many_requests_as_allowed_run_and_one_more_is_refused(void **state)
{
    (void)state;
    struct agent_exec exec = {.arguments = {SPAN("cat")}, .argument_count = 1,
                              .flags = AGENT_EXEC_STDIN};
    for (uint32_t id = 1; id <= AGENT_REQUESTS_MAX; id++) {
        host_exec(&host, id, &exec);
        host_expect(&host, AGENT_STARTED, id);
    }
    host_exec(&host, 1000, &exec);
    assert_int_equal(host_done(&host, 1000).code, QUOTA_EXCEEDED);
    for (uint32_t id = 1; id <= AGENT_REQUESTS_MAX; id++) {
        host_put(&host, id, AGENT_IN, SPAN("hello"));
        host_end(&host, id, AGENT_IN);
        host_gather(&host, id, &outcome);
        expect_code(0);
        assert_true(outcome_says(&outcome, "hello"));
        outcome_free(&outcome);
    }
}

/* The seconds that a command writes, one a line; whatever is between two of them is a gap. */
static void read_seconds(const struct agent_frame *frame, int64_t frozen, int64_t thawed,
                         int64_t *last)
{
    static int64_t second;
    for (size_t i = 1; i < frame->payload.length; i++) {
        uint8_t c = frame->payload.data[i];
        if (c >= '0' && c <= '9') {
            second = second * 10 + (c - '0');
            continue;
        }
        assert_false(second > frozen && second < thawed);
        *last = second;
        second = 0;
    }
}

static void freezing_stops_all_of_it_and_thawing_lets_it_go_on(void **state)
{
    (void)state;
    struct agent_exec exec = host_shell("while :; do date +%s; sleep 0.05; done");
    struct agent_frame frame;
    int64_t last = 0, frozen = INT64_MAX;
    host_exec(&host, 1, &exec);
    host_expect(&host, AGENT_STARTED, 1);
    frame = host_expect(&host, AGENT_DATA, 1);
    read_seconds(&frame, frozen, 0, &last);
    host_request(&host, AGENT_FREEZE, 2, (struct span){0});
    while ((frame = host_next(&host)).type == AGENT_DATA)
        read_seconds(&frame, frozen, 0, &last);
    assert_int_equal(frame.id, 2);
    assert_int_equal(frame.type, AGENT_DONE);
    frozen = time(NULL);
    host_exec(&host, 3, &exec);
    while ((frame = host_next(&host)).type == AGENT_DATA)
        read_seconds(&frame, frozen, 0, &last);
    struct agent_done done;
    assert_int_equal(agent_done_get(&done, frame.payload, &(struct fault){0}), OK);
    assert_int_equal(done.code, CONFLICT);
    sleep(3);
    int64_t thawed = time(NULL);
    host_request(&host, AGENT_THAW, 4, (struct span){0});
    while (last < thawed) {
        frame = host_next(&host);
        if (frame.type == AGENT_DATA)
            read_seconds(&frame, frozen, thawed, &last);
        else
            assert_int_equal(frame.type, AGENT_DONE);
    }
    host_request(&host, AGENT_FREEZE, 5, (struct span){0});
    host_cancel(&host, 1); /* what is frozen can be killed */
    while (host_next(&host).type != AGENT_EXITED)
        ;
}

/* As one finds it below some runners of commands: one of ours, and one that the C library keeps for
 * itself, which signal() does not reach. */
static void inherit_ignored_signals(void)
{
    const uint64_t ignored[] = {(uint64_t)(uintptr_t)SIG_IGN, 0, 0, 0}; /* as the kernel has it */
    assert_int_equal(syscall(SYS_rt_sigaction, SIGUSR2, ignored, NULL, sizeof(uint64_t)), 0);
    assert_int_equal(syscall(SYS_rt_sigaction, 32, ignored, NULL, sizeof(uint64_t)), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_command_runs_and_both_outputs_and_its_status_come_back),
        cmocka_unit_test(arguments_environment_and_directory_arrive_as_they_are),
        cmocka_unit_test(nothing_of_the_agent_is_open_or_blocked_in_a_command),
        cmocka_unit_test(what_cannot_be_run_is_answered_with_the_reason),
        cmocka_unit_test(a_command_runs_as_the_user_that_is_named),
        cmocka_unit_test(daemons_that_left_every_group_die_with_their_tree),
        cmocka_unit_test(a_daemon_that_holds_the_output_does_not_hold_the_end),
        cmocka_unit_test(a_signal_reaches_the_group_and_nine_the_whole_tree),
        cmocka_unit_test(a_timeout_ends_the_tree_and_says_so),
        cmocka_unit_test(a_cancel_ends_it_even_when_nobody_takes_its_output),
        cmocka_unit_test(the_output_of_a_command_that_is_gone_waits_for_credit),
        cmocka_unit_test(a_fork_bomb_is_bounded_and_killed_to_the_last_process),
        cmocka_unit_test(who_kills_the_shepherd_dies_with_all_it_started),
        cmocka_unit_test(the_end_of_the_connection_ends_all_that_runs),
        cmocka_unit_test(as_many_requests_as_allowed_run_and_one_more_is_refused),
        cmocka_unit_test(freezing_stops_all_of_it_and_thawing_lets_it_go_on),
    };
    inherit_ignored_signals();
    struct CMUnitTest each[sizeof tests / sizeof *tests];
    memcpy(each, tests, sizeof each);
    for (size_t i = 0; i < sizeof each / sizeof *each; i++) {
        each[i].setup_func = set_up;
        each[i].teardown_func = tear_down;
    }
    return cmocka_run_group_tests(each, NULL, NULL);
}
