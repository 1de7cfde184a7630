#define _GNU_SOURCE
/* The line of `sandbox run`: what is read, and that the command's own words are left alone. */
#include "cli/sandbox.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static struct sandbox_run run;

static int read_line(const char *line)
{
    static char copy[1024];
    static char *words[64];
    struct cli cli = {.argv = words};
    snprintf(copy, sizeof copy, "%s", line);
    for (char *word = strtok(copy, " "); word; word = strtok(NULL, " "))
        words[cli.argc++] = word;
    return sandbox_run_read(&run, &cli);
}

static void sizes_and_times_are_digits_and_one_letter(void **state)
{
    (void)state;
    static const char *const wrong[] = {"", "M", "1", "1K", "1MB", "1.5G", "-1M", "+1M", " 1M",
                                        "1M ", "0x1M", "1m", "9999999999999M", "63M", "262145M"};
    uint32_t value;
    int64_t bytes;
    assert_true(sandbox_mib(&value, "128M", 64, 262144) && value == 128);
    assert_true(sandbox_mib(&value, "256G", 64, 262144) && value == 262144);
    assert_true(sandbox_mib(&value, "0", 0, 10) && value == 0);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_false(sandbox_mib(&value, wrong[i], 64, 262144));
    assert_true(sandbox_seconds(&value, "90", 1, 86400) && value == 90);
    assert_true(sandbox_seconds(&value, "5m", 1, 86400) && value == 300);
    assert_true(sandbox_seconds(&value, "24h", 1, 86400) && value == 86400);
    assert_false(sandbox_seconds(&value, "25h", 1, 86400));
    assert_false(sandbox_seconds(&value, "0", 1, 86400));
    assert_false(sandbox_seconds(&value, "1ms", 1, 86400));
    assert_true(sandbox_bytes(&bytes, "10M", INT64_MAX) && bytes == 10 << 20);
    assert_true(sandbox_bytes(&bytes, "4096", INT64_MAX) && bytes == 4096);
    assert_false(sandbox_bytes(&bytes, "0", INT64_MAX));
    assert_false(sandbox_bytes(&bytes, "999999999999G", (int64_t)1 << 40));
}

static void a_line_is_read_and_the_command_keeps_its_words(void **state)
{
    (void)state;
    assert_int_equal(read_line("--mem 1G --cpus=2 --disk 0 --timeout 5m --cpu-time 10s "
                               "--processes 7 --net isolated --tier container --tenant acme "
                               "--image tools --user 1000 --workdir /tmp --env A=1 --env B= "
                               "--disk-rate 1M --console log --huge-pages "
                               "-- env --env C=3 --tty -- --mem 2M"),
                     EXIT_DONE);
    assert_true(run.spec.memory_mib == 1024 && run.spec.vcpus == 2 && run.spec.disk_mib == 0);
    assert_true(run.timeout_s == 300 && run.spec.cpu_s == 10 && run.spec.processes == 7);
    assert_true(run.exec.timeout_ms == 300000 && run.exec.processes == 7);
    assert_true(run.spec.net == SANDBOX_NET_ISOLATED && run.disk_rate == 1 << 20);
    assert_true(run.spec.console && run.spec.huge_pages);
    assert_string_equal(run.console, "log");
    assert_string_equal(run.tier, "container");
    assert_string_equal(run.tenant, "acme");
    assert_string_equal(run.spec.image, "tools");
    assert_true(span_is(run.exec.user, "1000") && span_is(run.exec.directory, "/tmp"));
    assert_int_equal(run.exec.environment_count, 2);
    assert_true(span_is(run.exec.environment[1], "B="));
    assert_int_equal(run.exec.argument_count, 7);
    assert_true(span_is(run.exec.arguments[0], "env") && span_is(run.exec.arguments[3], "--tty"));
    assert_true(span_is(run.exec.arguments[6], "2M"));
    assert_false(run.tty);
    assert_int_equal(run.exec.flags, AGENT_EXEC_STDIN);
}

static void what_is_wrong_is_usage(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "", "sh", "--", "--mem 1 -- sh", "--mem 63M -- sh", "--cpus 0 -- sh",
        "--cpus 33 -- sh", "--disk 1K -- sh", "--processes 0 -- sh", "--timeout 0 -- sh",
        "--timeout 25h -- sh", "--timeout -5 -- sh", "--net host -- sh", "--tier vm -- sh",
        "--image .. -- sh", "--env =1 -- sh", "--env A -- sh", "--workdir tmp -- sh",
        "--console= -- sh",
        "--colour -- sh", "sh -- sh", "--disk-rate 1T -- sh", "--user= -- sh", "--cpu-time x -- sh",
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        if (read_line(wrong[i]) != EXIT_USAGE)
            fail_msg("%s", wrong[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_and_times_are_digits_and_one_letter),
        cmocka_unit_test(a_line_is_read_and_the_command_keeps_its_words),
        cmocka_unit_test(what_is_wrong_is_usage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
