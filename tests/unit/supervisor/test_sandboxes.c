/* Sandboxes against monitors that do wrong at every step. The monitors are real processes in real
 * jails; what they do is fake_monitor.c's. */
#define _GNU_SOURCE
#include "sandbox_node.h"

#include "base/cleanup.h"

#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/un.h>

#include <cmocka.h>

/* ---- what is right ---- */

static void one_runs_until_its_owner_hangs_up(void **state)
{
    (void)state;
    node_begin("good", MICROVM_WORKS);
    struct sandbox_spec spec = sandbox_spec_default();
    int owner = start(5, &spec);
    uint64_t id = started(5);
    struct child *monitor = node.sandboxes.list->monitor;
    assert_int_equal(monitor->uid, UID_BASE + 100);
    assert_int_equal(monitor->report.threads, 2);
    assert_int_equal(monitor->report.uids[0], UID_BASE + 100);
    assert_int_equal(atomic_load(&node.stats->slots[0].sandboxes_alive), 1);
    close(owner);
    struct gone end_of = gone();
    assert_int_equal(end_of.id, id);
    assert_int_equal(end_of.end, SANDBOX_CLOSED);
    assert_true(end_of.peak_kib > 0);
    turn_until(no_sandbox);
    assert_int_equal(atomic_load(&node.stats->slots[0].sandboxes_alive), 0);
    node_end();
}

static void several_have_uids_of_their_own_and_more_vcpus_more_threads(void **state)
{
    (void)state;
    node_begin("good", MICROVM_WORKS);
    struct sandbox_spec spec = sandbox_spec_default();
    int owners[4];
    uint64_t ids[4];
    for (uint32_t i = 0; i < 4; i++) {
        spec.vcpus = i + 1;
        spec.disk_mib = i % 2 ? 0 : 64;
        owners[i] = start(i + 1, &spec);
        ids[i] = started(i + 1);
    }
    for (const struct sandbox *one = node.sandboxes.list; one; one = one->next) {
        assert_int_equal(one->monitor->report.threads, one->spec.vcpus + 1);
        for (const struct sandbox *other = one->next; other; other = other->next)
            assert_int_not_equal(one->monitor->uid, other->monitor->uid);
    }
    for (uint32_t i = 0; i < 4; i++) {
        close(owners[i]);
        assert_int_equal(gone().id, ids[i]);
    }
    node_end();
}

static bool a_spare_is_warm(void)
{
    for (const struct child *at = node.sandboxes.monitors; at; at = at->next)
        if (at->state == CHILD_BLANK && at->image[0])
            return true;
    return false;
}

static bool no_spare_is_warm(void)
{
    return !a_spare_is_warm();
}

/* Each descriptor comes once, early or late: the monitor looks. */
static void a_spare_has_the_kernel_of_base_and_of_no_other_image(void **state)
{
    (void)state;
    node_begin("good", MICROVM_WORKS);
    struct sandbox_spec spec = sandbox_spec_default();
    make_image("other");
    sandboxes_advance_later(&node);
    turn_until(a_spare_is_warm);
    const struct child *spare = node.sandboxes.monitors;
    int first = start(1, &spec);
    (void)started(1);
    assert_ptr_equal(node.sandboxes.list->monitor, spare);
    turn_until(a_spare_is_warm);
    snprintf(spec.image, sizeof spec.image, "other");
    int second = start(2, &spec);
    (void)started(2);
    assert_true(a_spare_is_warm());
    assert_string_equal(node.sandboxes.list->monitor->image, "");
    assert_int_equal(unlinkat(node.sandboxes.images, "base/vmlinux", 0), 0);
    _cleanup_close_ int image = openat(node.sandboxes.images, "base", O_RDONLY | O_DIRECTORY);
    write_file(image, "vmlinux", "a newer one", 0644);
    cleanup_close(&image);
    monitors_renew(&node, "base"); /* what has loaded the old one is of no use any more */
    turn_until(no_spare_is_warm);
    turn_until(a_spare_is_warm);
    close(first);
    close(second);
    (void)gone();
    (void)gone();
    node_end();
}

static void bounds_are_in_force_on_the_process(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        unsigned long long soft;
    } limits[] = {{"Max file size", 64ull << 20}, {"Max cpu time", 2 * 7 + 5},
                  {"Max processes", 4}}; /* a thread of KVM's own among them */
    node_begin("good", MICROVM_WORKS);
    struct sandbox_spec spec = sandbox_spec_default();
    spec.vcpus = 2;
    spec.disk_mib = 64;
    spec.cpu_s = 7;
    spec.memory_mib = SANDBOX_MEMORY_MIB_MIN;
    int owner = start(1, &spec);
    (void)started(1);
    struct rlimit data; /* what it maps before it knows its guest fits, however small that is */
    assert_int_equal(prlimit(node.sandboxes.list->monitor->jail.pid, RLIMIT_DATA, NULL, &data), 0);
    assert_true(data.rlim_max > MIB(SANDBOX_MEMORY_MIB_DEFAULT));
    _cleanup_close_ int file = openat(node.sandboxes.list->monitor->jail.proc, "limits",
                                      O_RDONLY | O_CLOEXEC);
    char text[4096] = "";
    assert_true(file >= 0 && read(file, text, sizeof text - 1) > 0);
    cleanup_close(&file);
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        const char *line = strstr(text, limits[i].name);
        unsigned long long soft = 0, hard = 0;
        assert_non_null(line);
        assert_int_equal(sscanf(line + strlen(limits[i].name), "%llu %llu", &soft, &hard), 2);
        assert_int_equal(soft, limits[i].soft);
        assert_int_equal(hard, limits[i].soft);
    }
    close(owner);
    (void)gone();
    node_end();
}

static void a_stop_is_answered_when_nothing_is_left(void **state)
{
    (void)state;
    node_begin("good", MICROVM_WORKS);
    struct sandbox_spec spec = sandbox_spec_default();
    struct cursor result;
    int owner = start(1, &spec);
    uint64_t id = started(1);
    pid_t pid = node.sandboxes.list->monitor->jail.pid;
    stop(2, id);
    struct gone end_of = gone();
    assert_int_equal(end_of.end, SANDBOX_CLOSED);
    must(answered(&result, 2));
    assert_int_equal(kill(pid, 0), -1); /* reaped, too */
    stop(3, id); /* there is none any more */
    must(answered(&result, 3));
    close(owner);
    node_end();
}

static void a_lifetime_is_a_bound(void **state)
{
    (void)state;
    node_begin("good", MICROVM_WORKS);
    struct sandbox_spec spec = sandbox_spec_default();
    spec.lifetime_s = 1;
    int owner = start(1, &spec);
    uint64_t id = started(1);
    struct gone end_of = gone();
    assert_int_equal(end_of.id, id);
    assert_int_equal(end_of.end, SANDBOX_LIFETIME);
    assert_true(end_of.wall_us >= 1000000);
    close(owner);
    node_end();
}

static void cpu_time_is_a_bound(void **state)
{
    (void)state;
    node_begin("spin", MICROVM_WORKS);
    struct sandbox_spec spec = sandbox_spec_default();
    spec.cpu_s = 1;
    int owner = start(1, &spec);
    (void)started(1);
    struct gone end_of = gone();
    assert_int_equal(end_of.end, SANDBOX_CPU_TIME);
    assert_true(end_of.cpu_us >= 1000000);
    close(owner);
    node_end();
}

static void what_the_guest_came_to_is_told(void **state)
{
    (void)state;
    static const struct {
        const char *mode;
        enum sandbox_end end;
        const char *detail;
    } cases[] = {{"panics", SANDBOX_PANIC, "the guest's kernel panicked"},
                 {"hostile", SANDBOX_HOSTILE, "queue 1 of block: a chain without an end"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        node_begin(cases[i].mode, MICROVM_WORKS);
        struct sandbox_spec spec = sandbox_spec_default();
        int owner = start(1, &spec);
        (void)started(1);
        struct gone end_of = gone();
        assert_int_equal(end_of.end, cases[i].end);
        assert_string_equal(end_of.detail, cases[i].detail);
        close(owner);
        node_end();
    }
}

static void an_isolated_network_is_a_tap_in_the_monitors_own(void **state)
{
    (void)state;
    if (access("/dev/net/tun", R_OK | W_OK))
        skip();
    node_begin("good", MICROVM_WORKS);
    struct stat before, after;
    struct sandbox_spec spec = sandbox_spec_default();
    spec.net = SANDBOX_NET_ISOLATED;
    assert_int_equal(stat("/proc/self/ns/net", &before), 0);
    int owner = start(1, &spec);
    (void)started(1);
    assert_int_equal(stat("/proc/self/ns/net", &after), 0);
    assert_true(before.st_ino == after.st_ino);
    assert_int_equal(access("/sys/class/net/guest", F_OK), -1);
    _cleanup_close_ int devices = openat(node.sandboxes.list->monitor->jail.proc, "net/dev",
                                         O_RDONLY | O_CLOEXEC);
    char text[2048] = "";
    assert_true(devices >= 0 && read(devices, text, sizeof text - 1) > 0);
    assert_non_null(strstr(text, "guest:"));
    assert_null(strstr(text, "eth"));
    cleanup_close(&devices);
    close(owner);
    (void)gone();
    node_end();
}

/* ---- what is wrong ---- */

static void a_killed_monitor_leaves_nothing(void **state)
{
    (void)state;
    node_begin("good", MICROVM_WORKS);
    struct sandbox_spec spec = sandbox_spec_default();
    int owner = start(1, &spec);
    uint64_t id = started(1);
    assert_int_equal(kill(node.sandboxes.list->monitor->jail.pid, SIGKILL), 0);
    struct gone end_of = gone();
    assert_int_equal(end_of.id, id);
    assert_int_equal(end_of.end, SANDBOX_FAILED);
    assert_string_equal(end_of.detail, "its monitor died of signal 9");
    struct pollfd hung_up = {.fd = owner, .events = POLLIN};
    /* a blank between its clone and its exec may have it for a moment */
    assert_int_equal(poll(&hung_up, 1, PATIENCE_US / 1000), 1);
    assert_true(hung_up.revents & POLLHUP);
    close(owner);
    node_end();
}

/* At whatever it is at: the supervisor has just heard of nothing, or of everything. */
static void killed_at_any_moment(void **state)
{
    (void)state;
    for (int turns = 0; turns < 24; turns++) {
        node_begin("good", MICROVM_WORKS);
        struct sandbox_spec spec = sandbox_spec_default();
        int owner = start(1, &spec);
        for (int i = 0; i < turns; i++)
            must(loop_turn(node.loop, i % 4, &fault));
        for (struct child *at = node.sandboxes.monitors; at; at = at->next)
            assert_int_equal(kill(at->jail.pid, SIGKILL), 0);
        close(owner);
        turn_until(no_sandbox);
        close(control_end);
        control_end = open("/dev/null", O_RDONLY | O_CLOEXEC);
        node_end();
    }
}

static void control_that_ends_takes_them_with_it(void **state)
{
    (void)state;
    node_begin("good", MICROVM_WORKS);
    struct sandbox_spec spec = sandbox_spec_default();
    int first = start(1, &spec);
    uint64_t id = started(1);
    int second = start(2, &spec); /* not answered yet */
    node.services[1].state = CHILD_ABSENT;
    sandboxes_forget_requests(&node);
    turn_until(no_sandbox);
    assert_false(hears());
    node.services[1].state = CHILD_SERVING;
    sandboxes_tell_owed(&node); /* the ledger has a start: it gets the end, too */
    struct gone owed = gone();
    assert_int_equal(owed.id, id);
    assert_int_equal(owed.end, SANDBOX_CLOSED);
    assert_string_equal(owed.detail, "control ended");
    sandboxes_tell_owed(&node);
    assert_false(hears()); /* nor are the next control's ids answered for the other */
    close(first);
    close(second);
    node_end();
}

static void who_hangs_up_while_it_waits_starts_nothing(void **state)
{
    (void)state;
    node_begin("good", MICROVM_WORKS);
    struct sandbox_spec spec = sandbox_spec_default();
    close(start(1, &spec));
    refused(1, UNAVAILABLE, "who asked for it is gone");
    node_end();
}

/* Each is killed for what it does, and whoever waits is told. */
static void breaches_before_it_runs(void **state)
{
    (void)state;
    static const struct {
        const char *mode, *told;
    } cases[] = {
        {"dies-at-once", "its monitor exited with 3"},
        {"twice-blank", "message 0x901 is not permitted here"},
        {"early-running", "message 0x906 is not permitted here"},
        {"early-ended", ""}, /* by then it may have been told what to be, and may say so */
        {"early-jailed", "jail"},
        {"unknown", "message 0x7777 is not permitted here"},
        {"dies", "its monitor exited with 3"},
        {"faults", "KVM cannot run this"},
        {"running-unjailed", "message 0x906 is not permitted here"},
        {"unjailed", "jail: "},
        {"few-threads", "jail: 1 threads, expected 2"},
        {"unsealed", "seccomp filters, expected both stages"},
        {"calls-home", "a system call that its jail forbids"},
        {"backwards", "dialled before it was entered"},
        {"running-fd", "descriptor"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        node_begin(cases[i].mode, MICROVM_WORKS);
        struct sandbox_spec spec = sandbox_spec_default();
        int owner = start(9, &spec);
        print_message("  %s\n", cases[i].mode);
        refused(9, UNAVAILABLE, cases[i].told);
        assert_int_equal(atomic_load(&node.stats->slots[0].sandboxes_failed), 1);
        close(owner);
        node_end();
    }
}

static void breaches_while_it_runs(void **state)
{
    (void)state;
    static const char *const modes[] = {
        "running-twice", "ended-lifetime", "ended-memory", "ended-zero", "ended-long",
        "ended-escape", "ended-more", "control-gone", "control-start", "cell-ready",
        "jailed-again", "short-packet", "hangs-up"};
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        node_begin(modes[i], MICROVM_WORKS);
        struct sandbox_spec spec = sandbox_spec_default();
        int owner = start(9, &spec);
        print_message("  %s\n", modes[i]);
        uint64_t id = started(9);
        struct gone end_of = gone();
        assert_int_equal(end_of.id, id);
        assert_int_equal(end_of.end, SANDBOX_FAILED);
        assert_true(end_of.detail[0] != '\0');
        close(owner);
        node_end();
    }
}

/* GO may have crossed it on the way: either it is a breach, or it was told to run before. */
static void running_before_it_is_let_go(void **state)
{
    (void)state;
    node_begin("running-before-go", MICROVM_WORKS);
    struct sandbox_spec spec = sandbox_spec_default();
    int owner = start(9, &spec);
    turn_until(hears); /* the jail was verified when it was read: it said so first */
    close(owner);
    turn_until(no_sandbox);
    node_end();
}

static void a_start_that_is_none_ends_control(void **state)
{
    (void)state;
    node_begin("good", MICROVM_WORKS);
    from_control(MESSAGE_SANDBOX_START, 1, SPAN("no tenant"), &node.null, 1);
    assert_null(node.services[1].channel_source);
    assert_int_equal(node.sandboxes.list, NULL);
    node_end();
}

static void a_stream_that_is_none_is_refused(void **state)
{
    (void)state;
    node_begin("good", MICROVM_WORKS);
    uint8_t storage[256];
    struct sandbox_spec spec = sandbox_spec_default();
    struct buffer body = buffer_over(storage, sizeof storage);
    static const uint8_t nobody[TENANT_ID_BYTES];
    buffer_put(&body, SPAN_OF(nobody));
    sandbox_spec_put(&body, &spec);
    int packets[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, packets), 0);
    from_control(MESSAGE_SANDBOX_START, 1, buffer_span(&body), &node.null, 1);
    refused(1, BAD_REQUEST, "stream");
    from_control(MESSAGE_SANDBOX_START, 2, buffer_span(&body), &packets[0], 1);
    refused(2, BAD_REQUEST, "stream");
    /* who has one that listens is called by others, from inside the sandbox */
    const struct sockaddr_un any = {.sun_family = AF_UNIX};
    int listens = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listens, (const void *)&any, sizeof any.sun_family), 0);
    assert_int_equal(listen(listens, 1), 0);
    from_control(MESSAGE_SANDBOX_START, 3, buffer_span(&body), &listens, 1);
    refused(3, BAD_REQUEST, "stream");
    close(listens);
    close(packets[0]);
    close(packets[1]);
    node_end();
}

/* ---- images ---- */

static void an_image_that_others_could_change_is_refused(void **state)
{
    (void)state;
    node_begin("good", MICROVM_WORKS);
    struct sandbox_spec spec = sandbox_spec_default();
    int images = node.sandboxes.images;
    static const char *const broken[] = {"link", "links", "open", "mine", "small", "half"};
    for (size_t i = 1; i < sizeof broken / sizeof *broken; i++)
        make_image(broken[i]);
    assert_int_equal(symlinkat("base", images, "link"), 0);
    assert_int_equal(unlinkat(images, "links/vmlinux", 0), 0);
    assert_int_equal(symlinkat("../base/vmlinux", images, "links/vmlinux"), 0);
    assert_int_equal(fchmodat(images, "open/root.erofs", 0666, 0), 0);
    assert_int_equal(fchownat(images, "mine", 4711, 4711, 0), 0);
    assert_int_equal(unlinkat(images, "small/initramfs", 0), 0);
    write_file(images, "small/initramfs", "", 0644);
    assert_int_equal(unlinkat(images, "half/scratch.img", 0), 0);
    for (uint32_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        snprintf(spec.image, sizeof spec.image, "%s", broken[i]);
        close(start(i + 1, &spec));
        refused(i + 1, FORBIDDEN_POLICY, "image");
    }
    snprintf(spec.image, sizeof spec.image, "absent");
    close(start(50, &spec));
    refused(50, NOT_FOUND, "image absent: there is none");
    node_end();
}

static void too_little_memory_for_a_kernel_is_refused_before_it_boots(void **state)
{
    (void)state;
    node_begin("good", MICROVM_WORKS);
    struct sandbox_spec spec = sandbox_spec_default();
    make_image("large");
    _cleanup_close_ int kernel = openat(node.sandboxes.images, "large/vmlinux",
                                        O_WRONLY | O_CLOEXEC);
    assert_true(kernel >= 0);
    assert_int_equal(ftruncate(kernel, MIB(40)), 0);
    cleanup_close(&kernel);
    snprintf(spec.image, sizeof spec.image, "large");
    spec.memory_mib = 2 * 40 + 31;
    int owner = start(1, &spec);
    refused(1, BAD_FIELD, "a microVM of this image needs 112 MiB at least, not 111");
    close(owner);
    spec.memory_mib++;
    owner = start(2, &spec);
    (void)started(2);
    close(owner);
    (void)gone();
    node_end();
}

/* Sparse or not: guests that fill what they were given must not fill the silos' file system. */
static void no_more_disk_is_promised_than_there_is(void **state)
{
    enum { DISK_MIB = 60 * 1024, TRIED_MAX = 16 };
    struct statvfs room;
    int owners[TRIED_MAX];
    (void)state;
    node_begin("good", MICROVM_WORKS);
    assert_int_equal(fstatvfs(node.sandboxes.directory, &room), 0);
    uint64_t fit = ((uint64_t)room.f_bavail * room.f_frsize >> 20) / DISK_MIB;
    struct sandbox_spec spec = sandbox_spec_default();
    spec.disk_mib = DISK_MIB;
    if (fit + 1 >= TRIED_MAX || room.f_blocks == 0) {
        node_end();
        skip(); /* too large a disk to promise away */
    }
    for (uint32_t i = 0; i < fit; i++) {
        owners[i] = start(i + 1, &spec);
        started(i + 1);
    }
    int one_more = start(50, &spec);
    refused(50, OUT_OF_SPACE, "disk: ");
    close(one_more);
    for (uint32_t i = 0; i < fit; i++) {
        close(owners[i]);
        gone();
    }
    node_end();
}

/* On a small file system of its own; the descriptor alone keeps it. */
static int small_disk(const char *options)
{
    char path[] = "/tmp/bulkhead-disk-XXXXXX";
    assert_non_null(mkdtemp(path));
    assert_int_equal(mount("disk", path, "tmpfs", 0, options), 0);
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(umount2(path, MNT_DETACH), 0);
    assert_int_equal(rmdir(path), 0);
    return fd;
}

static void what_a_guest_has_used_is_not_promised_again(void **state)
{
    (void)state;
    node_begin("good", MICROVM_WORKS);
    struct sandbox_spec spec = sandbox_spec_default();
    int owners[3], before = node.sandboxes.directory;
    node.sandboxes.directory = small_disk("size=64m,mode=0700");
    spec.disk_mib = 40;
    owners[0] = start(1, &spec);
    started(1);
    assert_int_equal(fallocate(node.sandboxes.list->overlay, 0, 0, MIB(36)), 0);
    spec.disk_mib = 20; /* 28 are free, 4 promised */
    owners[1] = start(2, &spec);
    started(2);
    owners[2] = start(3, &spec);
    refused(3, OUT_OF_SPACE, "disk: 44 MiB would be promised to guests, 28 MiB are free");
    for (int i = 0; i < 3; i++)
        close(owners[i]);
    gone();
    gone();
    close(node.sandboxes.directory);
    node.sandboxes.directory = before;
    node_end();
}

/* ---- the probe ---- */

static void the_first_start_waits_until_it_is_found_out(void **state)
{
    (void)state;
    node_begin("good", MICROVM_UNKNOWN);
    struct sandbox_spec spec = sandbox_spec_default();
    int owner = start(1, &spec);
    (void)started(1);
    assert_int_equal(node.sandboxes.microvm.state, MICROVM_WORKS);
    close(owner);
    (void)gone();
    node_end();
}

static void a_host_that_boots_nothing_refuses_with_the_reason(void **state)
{
    (void)state;
    node_begin("faults", MICROVM_UNKNOWN);
    struct sandbox_spec spec = sandbox_spec_default();
    int owner = start(1, &spec);
    refused(1, FORBIDDEN_POLICY, "microvm: does not boot a stock kernel: faulted, KVM cannot run "
            "this; gvisor: absent");
    uint32_t made = node.sandboxes.monitors_made;
    spec.weakest = SANDBOX_MICROVM;
    int second = start(2, &spec); /* nothing boots for this one */
    refused(2, FORBIDDEN_POLICY, "does not boot a stock kernel");
    assert_int_equal(node.sandboxes.monitors_made, made);
    close(owner);
    close(second);
    node_end();
}

static void what_was_found_is_remembered_for_this_boot_and_image(void **state)
{
    (void)state;
    node_begin("faults", MICROVM_UNKNOWN);
    struct sandbox_spec spec = sandbox_spec_default();
    struct microvm recalled;
    int owner = start(1, &spec);
    refused(1, FORBIDDEN_POLICY, "does not boot");
    assert_true(verdict_recall(&recalled, &node));
    assert_int_equal(recalled.state, MICROVM_BROKEN);
    assert_string_equal(recalled.reason, node.sandboxes.microvm.reason);
    _cleanup_close_ int image = openat(node.sandboxes.images, "base", O_RDONLY | O_DIRECTORY);
    write_file(image, "vmlinux", "another kernel", 0644);
    cleanup_close(&image);
    close(owner);
    owner = start(2, &spec); /* another build: it is tried anew */
    refused(2, FORBIDDEN_POLICY, "does not boot");
    close(owner);
    assert_int_equal(node.sandboxes.monitors_made, 2);
    static const char *const forged[] = {"", "{}", "[]", "{\"works\":true}",
        ("{\"boot\":\"other\",\"image\":\"\",\"works\":true,\"reason\":\"\",\"found_us\":1}")};
    for (size_t i = 0; i < sizeof forged / sizeof *forged; i++) {
        write_file(node.silos.run, "microvm.json", forged[i], 0600);
        assert_false(verdict_recall(&recalled, &node));
    }
    node_end();
}

static void a_monitor_that_dies_says_nothing_lasting_about_the_host(void **state)
{
    (void)state;
    node_begin("dies", MICROVM_UNKNOWN);
    struct sandbox_spec spec = sandbox_spec_default();
    struct microvm recalled;
    int owner = start(1, &spec);
    refused(1, FORBIDDEN_POLICY, "failed when it was tried: failed, its monitor exited with 3");
    assert_false(verdict_recall(&recalled, &node));
    assert_true(node.sandboxes.microvm.again_us > 0);
    close(owner);
    node_end();
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_runs_until_its_owner_hangs_up),
        cmocka_unit_test(several_have_uids_of_their_own_and_more_vcpus_more_threads),
        cmocka_unit_test(a_spare_has_the_kernel_of_base_and_of_no_other_image),
        cmocka_unit_test(bounds_are_in_force_on_the_process),
        cmocka_unit_test(a_stop_is_answered_when_nothing_is_left),
        cmocka_unit_test(a_lifetime_is_a_bound),
        cmocka_unit_test(cpu_time_is_a_bound),
        cmocka_unit_test(what_the_guest_came_to_is_told),
        cmocka_unit_test(an_isolated_network_is_a_tap_in_the_monitors_own),
        cmocka_unit_test(a_killed_monitor_leaves_nothing),
        cmocka_unit_test(killed_at_any_moment),
        cmocka_unit_test(control_that_ends_takes_them_with_it),
        cmocka_unit_test(who_hangs_up_while_it_waits_starts_nothing),
        cmocka_unit_test(breaches_before_it_runs),
        cmocka_unit_test(breaches_while_it_runs),
        cmocka_unit_test(running_before_it_is_let_go),
        cmocka_unit_test(a_start_that_is_none_ends_control),
        cmocka_unit_test(a_stream_that_is_none_is_refused),
        cmocka_unit_test(an_image_that_others_could_change_is_refused),
        cmocka_unit_test(too_little_memory_for_a_kernel_is_refused_before_it_boots),
        cmocka_unit_test(the_first_start_waits_until_it_is_found_out),
        cmocka_unit_test(no_more_disk_is_promised_than_there_is),
        cmocka_unit_test(what_a_guest_has_used_is_not_promised_again),
        cmocka_unit_test(a_host_that_boots_nothing_refuses_with_the_reason),
        cmocka_unit_test(what_was_found_is_remembered_for_this_boot_and_image),
        cmocka_unit_test(a_monitor_that_dies_says_nothing_lasting_about_the_host),
    };
    int unable = node_needs(argc, argv);
    return unable ? unable : cmocka_run_group_tests(tests, node_set_up, node_tear_down);
}
