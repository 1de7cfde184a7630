/* Streams: everything arrives, in order, within its window; one that is slow holds up no other. */
#define _GNU_SOURCE
#include "host.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

enum { LARGE = 100 * 1000 * 1000 };

static struct host host;
static struct outcome outcome;
static struct fault fault;

static int set_up(void **state)
{
    (void)state;
    host_start(&host);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    assert_int_equal(host_stop(&host), 0);
    return 0;
}

/* Bytes that show a gap, a swap or a repetition. */
static uint8_t pattern(uint64_t at)
{
    return (uint8_t)(at * 7 + at / 251 + at / 65521);
}

struct duplex { /* one end of a stream that is written and read at once */
    uint64_t put, got, most;
    uint32_t window, given; /* the agent's credit to us; ours held back */
    bool in_ended, over;
};

static void feed(struct duplex *duplex)
{
    uint8_t piece[AGENT_DATA_MAX];
    while (duplex->put < duplex->most && duplex->window > 0) {
        size_t length = sizeof piece;
        if (length > duplex->window)
            length = duplex->window;
        if (length > duplex->most - duplex->put)
            length = (size_t)(duplex->most - duplex->put);
        for (size_t i = 0; i < length; i++)
            piece[i] = pattern(duplex->put + i);
        host_put(&host, 1, AGENT_IN, (struct span){piece, length});
        duplex->put += length;
        duplex->window -= (uint32_t)length;
    }
    if (duplex->put == duplex->most && !duplex->in_ended) {
        host_end(&host, 1, AGENT_IN);
        duplex->in_ended = true;
    }
}

static void take(struct duplex *duplex, const struct agent_frame *frame)
{
    struct agent_piece piece;
    if (frame->type == AGENT_EXITED) {
        duplex->over = true;
        return;
    }
    assert_int_equal(agent_piece_get(&piece, frame, &fault), OK);
    if (frame->type == AGENT_CREDIT)
        duplex->window += piece.credit;
    if (frame->type != AGENT_DATA)
        return;
    for (size_t i = 0; i < piece.bytes.length; i++)
        if (piece.bytes.data[i] != pattern(duplex->got + i))
            fail_msg("another byte than was sent, at %zu", (size_t)duplex->got + i);
    duplex->got += piece.bytes.length;
    duplex->given += (uint32_t)piece.bytes.length;
    if (duplex->given >= AGENT_WINDOW / 2) {
        host_credit(&host, 1, AGENT_OUT, duplex->given);
        duplex->given = 0;
    }
}

static void a_hundred_megabytes_go_in_and_come_out(void **state)
{
    (void)state;
    struct duplex duplex = {.most = LARGE, .window = AGENT_WINDOW};
    /* a slow reader in between: it stops now and then */
    struct agent_exec exec = host_shell("dd bs=1M count=20 iflag=fullblock 2>/dev/null; sleep 0.3;"
                                        "cat");
    exec.flags = AGENT_EXEC_STDIN;
    host_exec(&host, 1, &exec);
    host_expect(&host, AGENT_STARTED, 1);
    while (!duplex.over) {
        feed(&duplex);
        struct agent_frame frame = host_next(&host);
        take(&duplex, &frame);
    }
    assert_int_equal(duplex.got, LARGE);
}

static void a_stream_that_is_not_read_does_not_stop_another(void **state)
{
    (void)state;
    struct agent_exec flood = host_shell("exec yes flood"), echo = host_shell("echo there");
    for (uint32_t id = 10; id < 20; id++)
        host_exec(&host, id, &flood);
    for (int flooded = 0; flooded < 10 * AGENT_WINDOW;) {
        struct agent_frame frame = host_next(&host);
        flooded += frame.type == AGENT_DATA ? (int)frame.payload.length - 1 : 0;
    }
    assert_true(host_is_quiet(&host, 50));
    host_run(&host, &echo, &outcome);
    assert_true(outcome_says(&outcome, "there\n"));
    outcome_free(&outcome);
}

static void a_command_that_does_not_read_its_input_gets_a_window_of_it(void **state)
{
    (void)state;
    static uint8_t piece[AGENT_DATA_MAX];
    struct agent_exec exec = host_shell("read line; sleep 0.3; exec true");
    exec.flags = AGENT_EXEC_STDIN;
    host_exec(&host, 1, &exec);
    host_expect(&host, AGENT_STARTED, 1);
    memset(piece, '\n', sizeof piece);
    for (uint32_t sent = 0; sent < AGENT_WINDOW; sent += sizeof piece)
        host_put(&host, 1, AGENT_IN, SPAN_OF(piece));
    host_gather(&host, 1, &outcome);
    assert_int_equal(outcome.exited.how, AGENT_EXIT_CODE);
    outcome_free(&outcome);
}

static void without_an_input_a_command_reads_nothing(void **state)
{
    (void)state;
    struct agent_exec exec = host_shell("cat; echo end");
    host_exec(&host, 1, &exec);
    host_put(&host, 1, AGENT_IN, SPAN("not for it"));
    host_gather(&host, 1, &outcome);
    assert_true(outcome_says(&outcome, "end\n"));
    outcome_free(&outcome);
}

/* ---- terminals ---- */

static void until(struct buffer *unread, const char *text)
{
    struct agent_piece piece;
    struct span wanted = span_of_text(text);
    const uint8_t *found;
    while (unread->length == 0
           || !(found = memmem(unread->data, unread->length, wanted.data, wanted.length))) {
        struct agent_frame frame = host_next(&host);
        if (frame.type == AGENT_CREDIT || frame.type == AGENT_END)
            continue;
        assert_int_equal(frame.type, AGENT_DATA);
        assert_int_equal(agent_piece_get(&piece, &frame, &fault), OK);
        assert_int_equal(piece.channel, AGENT_OUT);
        buffer_put(unread, piece.bytes);
    }
    buffer_consume(unread, (size_t)(found - unread->data) + wanted.length);
}

static void a_terminal_has_its_size_its_signals_and_its_end(void **state)
{
    struct buffer unread = buffer_of(1 << 20); /* several lines may come in one piece */
    (void)state;
    struct agent_exec exec = host_shell("test -t 0 && test -t 1 && test -t 2 && stty size; "
                                        "trap 'i=1; stty size' WINCH; trap 'i=1; echo caught' INT; "
                                        "echo ready; while read line || test \"$i\"; do i=; "
                                        "echo \"<$line>\"; done; echo \"<$line>\"; "
                                        "echo $TERM >/dev/tty");
    exec.flags = AGENT_EXEC_PTY;
    exec.rows = 33;
    exec.columns = 101;
    host_exec(&host, 1, &exec);
    host_expect(&host, AGENT_STARTED, 1);
    until(&unread, "33 101\r\n");
    until(&unread, "ready\r\n");
    host_put(&host, 1, AGENT_IN, SPAN("one\n"));
    until(&unread, "<one>\r\n");
    /* the line wakes a shell that looked for signals just before, and then began to read */
    host_put(&host, 1, AGENT_IN, SPAN("\x03\n"));
    until(&unread, "caught\r\n");
    uint8_t size[] = {0, 50, 0, 132};
    host_request(&host, AGENT_RESIZE, 1, SPAN_OF(size));
    host_put(&host, 1, AGENT_IN, SPAN("two\n"));
    until(&unread, "50 132\r\n");
    until(&unread, "<two>\r\n"); /* its shell reads again, and no trap is due */
    host_put(&host, 1, AGENT_IN, SPAN("last"));
    host_end(&host, 1, AGENT_IN);
    until(&unread, "<last>\r\nxterm-256color\r\n");
    host_expect(&host, AGENT_END, 1);
    struct agent_exited exited;
    assert_int_equal(agent_exited_get(&exited, host_expect(&host, AGENT_EXITED, 1).payload, &fault),
                     OK);
    assert_int_equal(exited.how, AGENT_EXIT_CODE);
    assert_int_equal(exited.code, 0);
    buffer_free(&unread);
}

static void a_terminal_that_hangs_up_ends_its_session(void **state)
{
    (void)state;
    struct agent_exec exec = host_shell("sleep 3111 & wait");
    exec.flags = AGENT_EXEC_PTY;
    host_exec(&host, 1, &exec);
    host_expect(&host, AGENT_STARTED, 1);
    host_cancel(&host, 1);
    host_gather(&host, 1, &outcome);
    assert_int_equal(outcome.exited.how, AGENT_EXIT_SIGNAL);
    assert_int_equal(outcome.error.length, 0);
    outcome_free(&outcome);
}

/* ---- ports ---- */

static int listen_here(uint16_t *port, int family)
{
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    struct sockaddr *address = family == AF_INET ? (void *)&four : (void *)&six;
    socklen_t length = family == AF_INET ? sizeof four : sizeof six;
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, address, length) || listen(fd, 8)
        || getsockname(fd, address, &length)) {
        close(fd);
        return -1;
    }
    *port = ntohs(family == AF_INET ? four.sin_port : six.sin6_port);
    return fd;
}

static void open_port(uint32_t id, uint16_t port)
{
    uint8_t payload[] = {(uint8_t)(port >> 8), (uint8_t)port};
    host_request(&host, AGENT_PORT_OPEN, id, SPAN_OF(payload));
}

static void talk_over(int family)
{
    uint16_t port;
    char bytes[64];
    int listener = listen_here(&port, family);
    if (listener < 0)
        return; /* this machine has no IPv6 */
    open_port(1, port);
    host_put(&host, 1, AGENT_IN, SPAN("early, ")); /* before it knows that it is open */
    host_expect(&host, AGENT_STARTED, 1);
    host_put(&host, 1, AGENT_IN, SPAN("question"));
    host_end(&host, 1, AGENT_IN);
    int peer = accept(listener, NULL, NULL);
    assert_true(peer >= 0);
    assert_int_equal(recv(peer, bytes, 15, MSG_WAITALL), 15);
    assert_memory_equal(bytes, "early, question", 15);
    assert_int_equal(recv(peer, bytes, 1, 0), 0); /* its half is closed, ours not */
    assert_int_equal(send(peer, "answer", 6, 0), 6);
    close(peer);
    struct agent_frame frame = host_expect(&host, AGENT_DATA, 1);
    assert_true(span_is(frame.payload, "\1" "answer"));
    host_expect(&host, AGENT_END, 1);
    assert_int_equal(host_done(&host, 1).code, OK);
    close(listener);
}

static void a_port_is_a_stream_with_two_halves(void **state)
{
    (void)state;
    talk_over(AF_INET);
    talk_over(AF_INET6);
}

static void a_port_where_nobody_listens_says_so_and_a_cancel_hangs_up(void **state)
{
    (void)state;
    uint16_t port;
    char byte;
    int listener = listen_here(&port, AF_INET);
    open_port(1, port);
    host_expect(&host, AGENT_STARTED, 1);
    int peer = accept(listener, NULL, NULL);
    host_cancel(&host, 1);
    host_expect(&host, AGENT_END, 1);
    assert_int_equal(host_done(&host, 1).code, OK);
    assert_true(recv(peer, &byte, 1, 0) <= 0);
    close(peer);
    close(listener);
    open_port(2, port);
    assert_int_equal(host_done(&host, 2).code, UNAVAILABLE);
    open_port(3, 0);
    assert_int_equal(host_done(&host, 3).code, BAD_FIELD);
}

static void many_ports_and_much_data_at_once(void **state)
{
    (void)state;
    enum { PORTS = 8, EACH = 3000000 };
    static uint8_t zeros[65536];
    uint16_t port;
    int listener = listen_here(&port, AF_INET), peers[PORTS];
    uint64_t left[PORTS], got = 0;
    for (uint32_t i = 0; i < PORTS; i++) {
        open_port(i + 1, port);
        host_expect(&host, AGENT_STARTED, i + 1);
        peers[i] = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
        left[i] = EACH;
    }
    for (uint32_t done = 0; done < PORTS;) {
        for (int i = 0; i < PORTS; i++) {
            size_t most = left[i] < sizeof zeros ? (size_t)left[i] : sizeof zeros;
            ssize_t sent = most ? send(peers[i], zeros, most, MSG_NOSIGNAL) : 0;
            left[i] -= sent > 0 ? (uint64_t)sent : 0;
            if (left[i] == 0 && most)
                shutdown(peers[i], SHUT_WR);
        }
        while (!host_is_quiet(&host, 0)) {
            struct agent_frame frame = host_next(&host);
            done += frame.type == AGENT_END;
            if (frame.type != AGENT_DATA)
                continue;
            got += frame.payload.length - 1;
            host_credit(&host, frame.id, AGENT_OUT, (uint32_t)frame.payload.length - 1);
        }
    }
    assert_int_equal(got, (uint64_t)PORTS * EACH);
    for (int i = 0; i < PORTS; i++)
        close(peers[i]);
    close(listener);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_hundred_megabytes_go_in_and_come_out, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_stream_that_is_not_read_does_not_stop_another, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_command_that_does_not_read_its_input_gets_a_window_of_it,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(without_an_input_a_command_reads_nothing, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_terminal_has_its_size_its_signals_and_its_end, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_terminal_that_hangs_up_ends_its_session, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_port_is_a_stream_with_two_halves, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_port_where_nobody_listens_says_so_and_a_cancel_hangs_up,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(many_ports_and_much_data_at_once, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
