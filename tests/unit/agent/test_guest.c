/* What only a guest has: a kernel of its own. Runs in the lab; elsewhere each test is skipped. */
#define _GNU_SOURCE
#include "host.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static struct host host;
static struct outcome outcome;
static struct fault fault;

static int set_up(void **state)
{
    (void)state;
    if (host_is_guest())
        host_start(&host);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    if (host_is_guest())
        assert_int_equal(host_stop(&host), 0);
    return 0;
}

#define ONLY_IN_A_GUEST()     \
    do {                      \
        (void)state;          \
        if (!host_is_guest()) \
            skip();           \
    } while (0)

/* A shell variable that doubles: pages that are really written. */
#define HOG "x=0123456789abcdef; while :; do x=$x$x; done"

static void who_takes_more_memory_than_its_bound_is_ended_and_told(void **state)
{
    ONLY_IN_A_GUEST();
    struct agent_exec exec = host_shell("setsid sleep 3116 & " HOG), other = host_shell("sleep 60");
    exec.memory_bytes = 32 << 20;
    host_exec(&host, 2, &other);
    host_expect(&host, AGENT_STARTED, 2);
    host_run(&host, &exec, &outcome);
    assert_int_equal(outcome.exited.how, AGENT_EXIT_MEMORY);
    assert_int_equal(outcome.exited.code, SIGKILL);
    assert_true(outcome.exited.peak_kib > 16 * 1024 && outcome.exited.peak_kib <= 32 * 1024);
    assert_true(outcome.exited.cpu_us > 0);
    assert_int_equal(processes_with("3116"), 0);
    assert_true(host_is_quiet(&host, 100)); /* the other one lives */
    outcome_free(&outcome);
}

static void who_takes_all_memory_is_ended_and_the_agent_is_not(void **state)
{
    ONLY_IN_A_GUEST();
    /* a little less than there is: the kernel grants that, and cannot give it */
    struct agent_exec exec = host_shell("t=$(sed -n 's/MemTotal: *\\([0-9]*\\) .*/\\1/p' "
                                        "/proc/meminfo); "
                                        "exec dd if=/dev/zero of=/dev/null count=1 "
                                        "bs=$((t - 1024))k");
    host_run(&host, &exec, &outcome);
    assert_int_equal(outcome.exited.how, AGENT_EXIT_MEMORY);
    outcome_free(&outcome);
    assert_int_equal(host_ask(&host, AGENT_METRICS, 3, (struct span){0}), OK);
}

static void a_fork_bomb_of_root_leaves_the_agent_room_to_kill_it(void **state)
{
    ONLY_IN_A_GUEST();
    struct agent_exec exec = host_shell("for i in 1 2 3 4; do setsid sh -c 'while :; do "
                                        "setsid sleep 3117 & done' 2>/dev/null & done; "
                                        "sleep 3117");
    exec.processes = 200;
    host_exec(&host, 1, &exec);
    host_expect(&host, AGENT_STARTED, 1);
    int count = 0;
    for (int i = 0; i < 300 && count < 100; i++) {
        usleep(100 * 1000);
        count = processes_with("3117");
    }
    assert_true(count >= 100 && count <= 200);
    assert_int_equal(host_ask(&host, AGENT_METRICS, 3, (struct span){0}), OK);
    host_cancel(&host, 1);
    host_gather(&host, 1, &outcome);
    assert_int_equal(outcome.exited.how, AGENT_EXIT_SIGNAL);
    assert_int_equal(processes_with("3117"), 0);
    outcome_free(&outcome);
}

static void the_agent_cannot_be_signalled_or_traced_by_those_it_runs(void **state)
{
    ONLY_IN_A_GUEST();
    struct agent_exec exec = host_shell("kill -9 1; kill -STOP 1; kill -TERM 1; "
                                        "cat /proc/1/oom_score_adj; hostname");
    host_run(&host, &exec, &outcome);
    assert_true(outcome_says(&outcome, "-1000\nsandbox\n"));
    outcome_free(&outcome);
    exec = host_shell("kill -9 1 || echo refused; ls /proc/1/fd 2>/dev/null || echo hidden");
    exec.user = SPAN("65534");
    host_run(&host, &exec, &outcome);
    assert_true(outcome_says(&outcome, "refused\nhidden\n"));
    outcome_free(&outcome);
}

static void a_tree_with_groups_below_its_own_goes_whole(void **state)
{
    ONLY_IN_A_GUEST();
    struct agent_exec exec = host_shell("g=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup); "
                                        "mkdir -p $g/a/b && sh -c \"echo \\$\\$ >$g/a/b/"
                                        "cgroup.procs; exec setsid sleep 3118\" & sleep 0.5; "
                                        "echo over");
    host_run(&host, &exec, &outcome);
    assert_true(outcome_says(&outcome, "over\n"));
    assert_int_equal(processes_with("3118"), 0);
    outcome_free(&outcome);
    exec = host_shell("ls -d /sys/fs/cgroup/exec/*/ | wc -l");
    host_run(&host, &exec, &outcome);
    assert_true(outcome_says(&outcome, "1\n")); /* that of this one */
    outcome_free(&outcome);
}

static void the_clock_is_set(void **state)
{
    ONLY_IN_A_GUEST();
    uint8_t storage[8];
    struct buffer payload = buffer_over(storage, sizeof storage);
    buffer_put_u64(&payload, UINT64_C(1900000000) * 1000000 + 5);
    assert_int_equal(host_ask(&host, AGENT_CLOCK_SET, 1, buffer_span(&payload)), OK);
    int64_t now = time(NULL);
    assert_true(now >= 1900000000 && now < 1900000060);
}

static void a_shutdown_is_answered_and_then_it_is_off(void **state)
{
    ONLY_IN_A_GUEST();
    struct agent_exec exec = host_shell("sleep 3119");
    int how;
    host_exec(&host, 1, &exec);
    host_expect(&host, AGENT_STARTED, 1);
    assert_int_equal(host_ask(&host, AGENT_SHUTDOWN, 3, SPAN("\0")), OK);
    assert_int_equal(waitpid(host.agent, &how, 0), host.agent);
    assert_true(WIFSIGNALED(how)); /* of a pid namespace: how its kernel switches it off */
    assert_int_equal(processes_with("3119"), 0);
    close(host.fd);
    buffer_free(&host.in);
    host_start(&host);
}

static void boot_is_told_since_the_kernel_began(void **state)
{
    ONLY_IN_A_GUEST();
    struct agent_metrics metrics;
    host_request(&host, AGENT_METRICS, 1, (struct span){0});
    assert_int_equal(agent_metrics_get(&metrics, host_done(&host, 1).result, &fault), OK);
    assert_true(metrics.uptime_us > 0 && metrics.memory_kib > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_takes_more_memory_than_its_bound_is_ended_and_told),
        cmocka_unit_test(who_takes_all_memory_is_ended_and_the_agent_is_not),
        cmocka_unit_test(a_fork_bomb_of_root_leaves_the_agent_room_to_kill_it),
        cmocka_unit_test(the_agent_cannot_be_signalled_or_traced_by_those_it_runs),
        cmocka_unit_test(a_tree_with_groups_below_its_own_goes_whole),
        cmocka_unit_test(boot_is_told_since_the_kernel_began),
        cmocka_unit_test(a_shutdown_is_answered_and_then_it_is_off),
        cmocka_unit_test(the_clock_is_set),
    };
    struct CMUnitTest each[sizeof tests / sizeof *tests];
    memcpy(each, tests, sizeof each);
    for (size_t i = 0; i < sizeof each / sizeof *each; i++) {
        each[i].setup_func = set_up;
        each[i].teardown_func = tear_down;
    }
    return cmocka_run_group_tests(each, NULL, NULL);
}
