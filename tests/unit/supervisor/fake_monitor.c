/* fake_monitor.c: what the supervisor takes for a monitor: in a real jail, with threads, but
 * without a guest. What it does wrong, and when, is the last part of its file name: fake-MODE. */
#define _GNU_SOURCE
#include "jail/jail.h"
#include "wire/ipc.h"
#include "wire/messages.h"
#include "wire/sandbox.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PATIENCE_MS = 20000 };

static uint8_t packet[IPC_PACKET_MAX];
static char mode[64];
static struct fault fault;
static pthread_barrier_t sealed, never;
static int stream = -1, console = -1;

static bool is(const char *name)
{
    return strcmp(mode, name) == 0;
}

static void need(bool fine, int exit_code)
{
    if (!fine)
        _exit(exit_code);
}

static void say(uint32_t type, struct span body)
{
    need(ipc_send(JAIL_FD_SUPERVISOR, type, 0, body, NULL, 0, &fault) == OK, 20);
}

static void read_mode(void)
{
    char path[4096];
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
    need(length > 0, 21);
    path[length] = '\0';
    const char *last = strrchr(path, '/');
    need(last && strncmp(last, "/fake-", 6) == 0 && strlen(last + 6) < sizeof mode, 22);
    snprintf(mode, sizeof mode, "%s", last + 6);
}

/* All that comes up to VMM_STREAM. */
static void take_orders(struct sandbox_spec *spec)
{
    struct ipc_message message = {0};
    uint32_t seen = 0;
    while (message.type != MESSAGE_VMM_STREAM) {
        need(ipc_await(&message, JAIL_FD_SUPERVISOR, packet, PATIENCE_MS, &fault) == OK, 23);
        struct cursor body = cursor_over(message.body);
        uint8_t kind = 0;
        if (message.type == MESSAGE_VMM_FD) {
            need(message.fd_count == 1 && cursor_u8(&kind, &body, &fault) == OK, 24);
            need(kind > 0 && kind < VMM_FDS && !(seen & UINT32_C(1) << kind), 25);
            seen |= UINT32_C(1) << kind;
            if (kind == VMM_FD_CONSOLE)
                console = message.fds[0];
        } else if (message.type == MESSAGE_VMM_START) {
            need(sandbox_spec_get(spec, &body, &fault) == OK && cursor_left(&body) == 6, 26);
        } else {
            need(message.type == MESSAGE_VMM_STREAM && message.fd_count == 1, 27);
            stream = message.fds[0];
        }
    }
    uint32_t all = (1u << VMM_FD_OVERLAY << 1) - 2; /* of a sandbox with a disk */
    uint32_t tap = spec->net == SANDBOX_NET_ISOLATED ? 1u << VMM_FD_TAP : 0;
    if (spec->disk_mib == 0)
        all &= ~(1u << VMM_FD_OVERLAY | 1u << VMM_FD_SCRATCH);
    uint32_t wanted = spec->console ? 1u << VMM_FD_CONSOLE : 0;
    need(seen == (all | tap | wanted), 28);
}

static void *be_vcpu(void *unused)
{
    struct fault why;
    need(is("unsealed") || jail_seal(JAIL_THREAD_VCPU, &why) == OK, 29);
    pthread_barrier_wait(&sealed);
    for (volatile uint64_t spins = 0; is("spin"); spins++)
        ;
    pthread_barrier_wait(&never);
    return unused;
}

static void close_jail(const struct sandbox_spec *spec)
{
    struct jail_proof proof = {0};
    uint8_t storage[8];
    struct buffer body = buffer_over(storage, sizeof storage);
    uint32_t threads = is("few-threads") ? 0 : spec->vcpus;
    if (!is("unjailed"))
        need(jail_enter(&proof, JAIL_VMM, NULL, 0, &fault) == OK, 30);
    need(pthread_barrier_init(&sealed, NULL, threads + 1) == 0, 31);
    need(pthread_barrier_init(&never, NULL, threads + 1) == 0, 31);
    for (uint32_t i = 0; i < threads; i++) {
        pthread_t thread;
        need(is("unjailed") || pthread_create(&thread, NULL, be_vcpu, NULL) == 0, 32);
    }
    if (!is("unjailed")) {
        pthread_barrier_wait(&sealed);
        need(jail_seal(JAIL_THREAD_MAIN, &fault) == OK, 33);
    }
    buffer_put_u32(&body, is("unjailed") ? 2 : proof.landlock_abi);
    buffer_put_u8(&body, 1);
    say(MESSAGE_JAILED, buffer_span(&body));
}

static void say_running(uint64_t entered_us, uint64_t dialled_us)
{
    uint8_t storage[16];
    struct buffer body = buffer_over(storage, sizeof storage);
    buffer_put_u64(&body, entered_us);
    buffer_put_u64(&body, dialled_us);
    if (is("running-fd"))
        need(ipc_send(JAIL_FD_SUPERVISOR, MESSAGE_VMM_RUNNING, 0, buffer_span(&body), &stream, 1,
                      &fault) == OK, 34);
    else
        say(MESSAGE_VMM_RUNNING, buffer_span(&body));
}

static void say_ended(uint8_t end, const char *detail)
{
    static uint8_t storage[8192];
    struct buffer body = buffer_over(storage, sizeof storage);
    buffer_put_u8(&body, end);
    buffer_put_text_field(&body, detail);
    say(MESSAGE_VMM_ENDED, buffer_span(&body));
}

static void wait_for_ever(void) /* or until the supervisor is gone */
{
    struct pollfd channel = {.fd = JAIL_FD_SUPERVISOR};
    while (poll(&channel, 1, is("hangs-up") ? 1000 : -1) <= 0)
        ;
    _exit(38);
}

/* What is wrong before the jail is closed. */
static void misbehave_early(void)
{
    if (is("twice-blank"))
        say(MESSAGE_VMM_BLANK, (struct span){0});
    else if (is("early-running"))
        say_running(1, 2);
    else if (is("early-ended"))
        say_ended(SANDBOX_SHUTDOWN, "");
    else if (is("early-jailed"))
        say(MESSAGE_JAILED, SPAN("\0\0\0\1\1"));
    else if (is("unknown"))
        say(0x7777, SPAN("what"));
    else
        return;
    wait_for_ever();
}

static void misbehave_late(void)
{
    static char long_detail[4096];
    memset(long_detail, 'x', sizeof long_detail - 1);
    if (is("running-twice"))
        say_running(1, 2);
    else if (is("ended-lifetime"))
        say_ended(SANDBOX_LIFETIME, "");
    else if (is("ended-memory"))
        say_ended(SANDBOX_MEMORY, "");
    else if (is("ended-zero"))
        say_ended(0, "");
    else if (is("ended-long"))
        say_ended(SANDBOX_SHUTDOWN, long_detail);
    else if (is("ended-escape"))
        say_ended(SANDBOX_SHUTDOWN, "\x1b[2J");
    else if (is("ended-more"))
        say(MESSAGE_VMM_ENDED, SPAN("\1\0\0\0\0!"));
    else if (is("control-gone"))
        say(MESSAGE_SANDBOX_GONE, SPAN("\0\0\0\0\0\0\0\1\1"));
    else if (is("control-start"))
        say(MESSAGE_SANDBOX_START, (struct span){0});
    else if (is("cell-ready"))
        say(MESSAGE_CELL_READY, SPAN("\0\0\0\0\0\0\0\0"));
    else if (is("jailed-again"))
        say(MESSAGE_JAILED, SPAN("\0\0\0\1\1"));
    else if (is("short-packet"))
        need(send(JAIL_FD_SUPERVISOR, "abc", 3, 0) == 3, 35);
    else if (is("hangs-up"))
        shutdown(JAIL_FD_SUPERVISOR, SHUT_RDWR);
    else
        return;
    wait_for_ever();
}

static void end_honestly(void)
{
    struct pollfd both[2] = {{.fd = stream, .events = POLLIN},
                             {.fd = JAIL_FD_SUPERVISOR, .events = POLLIN}};
    if (is("panics")) {
        say_ended(SANDBOX_PANIC, "the guest's kernel panicked");
    } else if (is("hostile")) {
        say_ended(SANDBOX_HOSTILE, "queue 1 of block: a chain without an end");
    } else {
        poll(both, 2, -1); /* who runs it hangs up */
        say_ended(SANDBOX_CLOSED, "");
    }
    need(console < 0 || write(console, "last words", 10) == 10, 39);
    _exit(0);
}

int main(void)
{
    struct sandbox_spec spec;
    struct ipc_message message;
    read_mode();
    need(!is("dies-at-once"), 3);
    need(jail_blank(JAIL_VMM, &fault) == OK, 36);
    say(MESSAGE_VMM_BLANK, (struct span){0});
    misbehave_early();
    take_orders(&spec);
    need(!is("dies"), 3);
    if (is("faults"))
        say_ended(SANDBOX_FAULTED, "KVM cannot run this");
    need(!is("faults"), 0);
    if (is("running-unjailed"))
        say_running(1, 2);
    close_jail(&spec);
    if (is("running-before-go"))
        say_running(1, 2);
    need(ipc_await(&message, JAIL_FD_SUPERVISOR, packet, PATIENCE_MS, &fault) == OK
         && message.type == MESSAGE_VMM_GO, 37);
    if (is("calls-home"))
        (void)!socket(AF_UNIX, SOCK_STREAM, 0);
    if (is("stuck"))
        wait_for_ever();
    say_running(is("backwards") ? 3 : 1, 2);
    misbehave_late();
    if (is("lets-go")) /* of its stream, but of nothing else */
        close(stream);
    while (is("deaf") || is("lets-go"))
        poll(NULL, 0, -1);
    end_honestly();
}
