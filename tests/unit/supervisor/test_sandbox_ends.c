/* Sandboxes that are to end, and their last words: the console, and monitors that go on. The
 * monitors are real processes in real jails; what they do is fake_monitor.c's. */
#define _GNU_SOURCE
#include "sandbox_node.h"

#include "base/cleanup.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <cmocka.h>

static bool has_last_words(int file)
{
    char text[16] = "";
    return pread(file, text, sizeof text - 1, 0) == 10 && strcmp(text, "last words") == 0;
}

/* Its own end, its owner's, its time, an operator: there are last words each time. */
static void a_console_is_written_however_the_guest_ends(void **state)
{
    (void)state;
    struct sandbox_spec spec = sandbox_spec_default();
    spec.console = true;
    spec.disk_mib = 0;
    for (int way = 0; way < 4; way++) {
        node_begin(way == 0 ? "panics" : "good", MICROVM_WORKS);
        int file = memfd_create("console", MFD_CLOEXEC);
        spec.lifetime_s = way == 2 ? 1 : 1000;
        int owner = start_with(1, &spec, file);
        uint64_t id = started(1);
        if (way == 1)
            close(take_fd(&owner));
        else if (way == 3)
            stop(2, id);
        enum sandbox_end end = way == 0 ? SANDBOX_PANIC
                             : way == 2 ? SANDBOX_LIFETIME : SANDBOX_CLOSED;
        assert_int_equal(gone().end, end);
        assert_true(has_last_words(file));
        struct cursor result;
        if (way == 3)
            must(answered(&result, 2));
        close(file);
        cleanup_close(&owner);
        node_end();
    }
}

static void a_monitor_that_does_not_stop_is_killed(void **state)
{
    (void)state;
    node_begin("deaf", MICROVM_WORKS);
    struct sandbox_spec spec = sandbox_spec_default();
    struct cursor result;
    spec.console = true;
    int file = memfd_create("console", MFD_CLOEXEC);
    int owner = start_with(1, &spec, file);
    uint64_t id = started(1);
    stop(2, id);
    assert_int_equal(gone().end, SANDBOX_CLOSED);
    must(answered(&result, 2));
    close(owner);
    owner = start_with(3, &spec, file);
    id = started(3);
    stop(4, id);
    stop(5, id); /* who asks again does not wait */
    assert_int_equal(gone().end, SANDBOX_CLOSED);
    must(answered(&result, 5));
    must(answered(&result, 4));
    close(owner);
    close(file);
    node_end();
}

static bool one_boots(void)
{
    const struct sandbox *sandbox = node.sandboxes.list;
    return sandbox && sandbox->monitor && sandbox->monitor->state == CHILD_JAILED;
}

/* Long before its lifetime: nobody is left who could want what it does. */
static void a_monitor_that_outlives_who_runs_it_is_ended(void **state)
{
    (void)state;
    static const char *const modes[] = {"deaf", "lets-go", "stuck"};
    struct sandbox_spec spec = sandbox_spec_default();
    spec.lifetime_s = 1000;
    for (int i = 0; i < 4; i++) {
        node_begin(modes[i % 3], MICROVM_WORKS);
        spec.console = i == 3;
        int file = memfd_create("console", MFD_CLOEXEC);
        int owner = start_with(1, &spec, spec.console ? file : -1);
        if (i == 2) {
            turn_until(one_boots);
            close(owner);
            refused(1, UNAVAILABLE, "who ran it is gone");
        } else {
            uint64_t id = started(1);
            close(owner);
            struct gone end_of = gone();
            assert_int_equal(end_of.id, id);
            assert_int_equal(end_of.end, SANDBOX_CLOSED);
            assert_string_equal(end_of.detail, "who ran it is gone, and it went on");
        }
        close(file);
        node_end();
    }
}

static void only_a_file_or_a_pipe_to_write_to_is_a_console(void **state)
{
    (void)state;
    node_begin("good", MICROVM_WORKS);
    struct sandbox_spec spec = sandbox_spec_default();
    int sockets[2], blocking[2], pipes[2];
    spec.console = true;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets), 0);
    assert_int_equal(pipe2(blocking, O_CLOEXEC) | pipe2(pipes, O_CLOEXEC | O_NONBLOCK), 0);
    const int wrong[] = {node.null, sockets[0], blocking[1], blocking[0], pipes[0],
                         node.sandboxes.images, open("/proc/self/exe", O_RDONLY | O_CLOEXEC),
                         open("/proc/self/exe", O_PATH | O_CLOEXEC), control_end};
    for (uint32_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        close(start_with(i + 1, &spec, wrong[i]));
        refused(i + 1, BAD_REQUEST, "console: ");
    }
    close(wrong[6]);
    close(wrong[7]);
    int owner = start_with(20, &spec, pipes[1]);
    close(pipes[1]);
    (void)started(20);
    close(owner);
    (void)gone();
    char text[16] = "";
    assert_int_equal(read(pipes[0], text, sizeof text - 1), 10);
    assert_int_equal(read(pipes[0], text, sizeof text), 0); /* nobody has the other end */
    const int rest[] = {sockets[0], sockets[1], blocking[0], blocking[1], pipes[0]};
    for (size_t i = 0; i < sizeof rest / sizeof *rest; i++)
        close(rest[i]);
    node_end();
}

static void a_console_without_its_descriptor_ends_control(void **state)
{
    (void)state;
    for (int console = 0; console < 2; console++) {
        node_begin("good", MICROVM_WORKS);
        struct sandbox_spec spec = sandbox_spec_default();
        spec.console = console;
        close(start_with(1, &spec, console ? -1 : node.null));
        assert_null(node.services[1].channel_source);
        assert_int_equal(node.sandboxes.list, NULL);
        node_end();
    }
}

static void what_only_a_microvm_has_is_not_left_out_in_silence(void **state)
{
    (void)state;
    if (access("/usr/bin/crun", X_OK))
        skip();
    node_begin("good", MICROVM_BROKEN);
    struct sandbox_spec spec = sandbox_spec_default();
    enum sandbox_tier tier;
    spec.weakest = SANDBOX_CONTAINER;
    node.executables[CHILD_RUNNER] = node.sandboxes.agent = node.null;
    node.sandboxes.runners[SANDBOX_GVISOR].state = MICROVM_BROKEN;
    node.sandboxes.runners[SANDBOX_GVISOR].again_us = INT64_MAX;
    node.sandboxes.runners[SANDBOX_CONTAINER].state = MICROVM_WORKS;
    must(image_identity(node.sandboxes.microvm.image, &node, "base", &fault));
    must(tier_choose(&tier, &node, &spec, &fault));
    assert_int_equal(tier, SANDBOX_CONTAINER);
    spec.huge_pages = true;
    assert_int_equal(tier_choose(&tier, &node, &spec, &fault), FORBIDDEN_POLICY);
    assert_non_null(strstr(fault.detail, "huge pages: a microvm's only, tier container has none"));
    spec.console = true;
    assert_int_equal(tier_choose(&tier, &node, &spec, &fault), FORBIDDEN_POLICY);
    assert_non_null(strstr(fault.detail, "console: a microvm's only, tier container has none"));
    node.executables[CHILD_RUNNER] = node.sandboxes.agent = -1;
    node_end();
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_console_is_written_however_the_guest_ends),
        cmocka_unit_test(a_monitor_that_does_not_stop_is_killed),
        cmocka_unit_test(a_monitor_that_outlives_who_runs_it_is_ended),
        cmocka_unit_test(only_a_file_or_a_pipe_to_write_to_is_a_console),
        cmocka_unit_test(a_console_without_its_descriptor_ends_control),
        cmocka_unit_test(what_only_a_microvm_has_is_not_left_out_in_silence),
    };
    int unable = node_needs(argc, argv);
    return unable ? unable : cmocka_run_group_tests(tests, node_set_up, node_tear_down);
}
