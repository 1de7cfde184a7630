#define _GNU_SOURCE
#include "wire/ipc.h"

#include "base/cleanup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include <cmocka.h>

static uint8_t storage[IPC_PACKET_MAX], body_bytes[IPC_BODY_MAX + 1];

/* Descriptors of this process: what a leak would change. */
static int open_fds(void)
{
    int count = 0;
    DIR *folder = opendir("/proc/self/fd");
    assert_non_null(folder);
    while (readdir(folder))
        count++;
    closedir(folder);
    return count;
}

static void pair(int ends[2])
{
    struct fault fault;
    assert_int_equal(ipc_pair(ends, &fault), OK);
}

static void close_pair(int ends[2])
{
    cleanup_close(&ends[0]);
    cleanup_close(&ends[1]);
}

/* Sends what ipc_send would never send. */
static void send_raw(int fd, const void *bytes, size_t length, const int *fds, size_t count)
{
    union {
        struct cmsghdr head;
        char bytes[CMSG_SPACE(sizeof(int) * 16)];
    } control = {0};
    struct iovec part = {(void *)bytes, length};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (count) {
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(sizeof(int) * count);
        control.head.cmsg_level = SOL_SOCKET;
        control.head.cmsg_type = SCM_RIGHTS;
        control.head.cmsg_len = CMSG_LEN(sizeof(int) * count);
        memcpy(CMSG_DATA(&control.head), fds, sizeof(int) * count);
    }
    assert_int_equal(sendmsg(fd, &message, MSG_DONTWAIT), length);
}

static void a_message_arrives_as_it_was_sent(void **state)
{
    (void)state;
    int ends[2];
    struct fault fault;
    struct ipc_message message;
    pair(ends);
    assert_int_equal(ipc_send(ends[0], 7, 0xFFFFFFFE, SPAN("hello"), NULL, 0, &fault), OK);
    assert_int_equal(ipc_send(ends[0], 8, 1, (struct span){0}, NULL, 0, &fault), OK);
    assert_int_equal(ipc_receive(&message, ends[1], storage, &fault), OK);
    assert_int_equal(message.type, 7);
    assert_int_equal(message.id, 0xFFFFFFFE);
    assert_true(span_is(message.body, "hello"));
    assert_int_equal(message.fd_count, 0);
    assert_int_equal(ipc_receive(&message, ends[1], storage, &fault), OK);
    assert_int_equal(message.type, 8);
    assert_int_equal(message.body.length, 0);
    assert_int_equal(ipc_receive(&message, ends[1], storage, &fault), AGAIN);
    close_pair(ends);
}

static void the_largest_body_passes_and_one_byte_more_is_refused(void **state)
{
    (void)state;
    int ends[2];
    struct fault fault;
    struct ipc_message message;
    pair(ends);
    body_bytes[IPC_BODY_MAX - 1] = 0xA5;
    struct span body = {body_bytes, IPC_BODY_MAX};
    for (int i = 0; i < 3; i++) /* several full packets wait without anybody reading */
        assert_int_equal(ipc_send(ends[0], 1, 2, body, NULL, 0, &fault), OK);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(ipc_receive(&message, ends[1], storage, &fault), OK);
        assert_true(span_equal(message.body, body));
    }
    body.length++;
    assert_int_equal(ipc_send(ends[0], 1, 2, body, NULL, 0, &fault), TOO_LARGE);
    assert_int_equal(ipc_receive(&message, ends[1], storage, &fault), AGAIN);
    close_pair(ends);
}

static void a_packet_over_the_maximum_is_refused_and_the_channel_goes_on(void **state)
{
    (void)state;
    static uint8_t packet[IPC_PACKET_MAX + 1];
    int ends[2], before = open_fds();
    struct fault fault;
    struct ipc_message message;
    pair(ends);
    send_raw(ends[0], packet, sizeof packet, ends, 2);
    assert_int_equal(ipc_receive(&message, ends[1], storage, &fault), BAD_REQUEST);
    send_raw(ends[0], packet, IPC_PACKET_MAX, NULL, 0);
    assert_int_equal(ipc_receive(&message, ends[1], storage, &fault), OK);
    assert_int_equal(message.body.length, IPC_BODY_MAX);
    close_pair(ends);
    assert_int_equal(open_fds(), before);
}

static void a_packet_shorter_than_its_header_is_refused_with_its_descriptors_closed(void **state)
{
    (void)state;
    int ends[2], before = open_fds();
    struct fault fault;
    pair(ends);
    for (size_t length = 0; length < IPC_HEADER_BYTES; length++) {
        struct ipc_message message = {.type = 99};
        send_raw(ends[0], body_bytes, length, ends, 1);
        assert_int_equal(ipc_receive(&message, ends[1], storage, &fault), BAD_REQUEST);
        assert_int_equal(message.type, 99); /* untouched on failure */
    }
    close_pair(ends);
    assert_int_equal(open_fds(), before);
}

static void descriptors_arrive_close_on_exec_and_belong_to_the_receiver(void **state)
{
    (void)state;
    int ends[2], pipe_ends[2], before = open_fds();
    struct fault fault;
    struct ipc_message message;
    pair(ends);
    assert_int_equal(pipe(pipe_ends), 0);
    assert_int_equal(ipc_send(ends[0], 1, 1, SPAN("fd"), pipe_ends, 2, &fault), OK);
    close_pair(pipe_ends); /* what was sent stays open on its way */
    assert_int_equal(ipc_receive(&message, ends[1], storage, &fault), OK);
    assert_int_equal(ipc_need_fds(&message, 2, &fault), OK);
    assert_int_equal(ipc_need_fds(&message, 1, &fault), BAD_REQUEST);
    assert_int_equal(ipc_need_fds(&message, 3, &fault), BAD_REQUEST);
    assert_true(fcntl(message.fds[0], F_GETFD) & FD_CLOEXEC);
    int _cleanup_close_ reader = take_fd(&message.fds[0]);
    int writer = message.fds[1];
    assert_int_equal(write(writer, "x", 1), 1);
    ipc_message_close(&message);
    char byte = 0;
    assert_int_equal(read(reader, &byte, 1), 1);
    assert_int_equal(byte, 'x');
    assert_int_equal(read(reader, &byte, 1), 0); /* the writer not taken was closed */
    assert_int_equal(fcntl(writer, F_GETFD), -1);
    close_pair(ends);
    cleanup_close(&reader);
    assert_int_equal(open_fds(), before);
}

static void more_descriptors_than_allowed_are_refused_and_all_are_closed(void **state)
{
    (void)state;
    int ends[2], before = open_fds();
    struct fault fault;
    struct ipc_message message;
    pair(ends);
    int many[16];
    for (size_t i = 0; i < 16; i++)
        many[i] = ends[i % 2];
    assert_int_equal(ipc_send(ends[0], 1, 1, SPAN(""), many, IPC_FDS_MAX + 1, &fault), TOO_LARGE);
    for (size_t count = IPC_FDS_MAX + 1; count <= 16; count++) {
        send_raw(ends[0], body_bytes, 64, many, count);
        assert_int_equal(ipc_receive(&message, ends[1], storage, &fault), BAD_REQUEST);
        assert_int_equal(open_fds(), before + 2);
    }
    send_raw(ends[0], body_bytes, 64, many, IPC_FDS_MAX);
    assert_int_equal(ipc_receive(&message, ends[1], storage, &fault), OK);
    assert_int_equal(message.fd_count, IPC_FDS_MAX);
    ipc_message_close(&message);
    close_pair(ends);
    assert_int_equal(open_fds(), before);
}

static void a_gone_peer_is_closed_for_sender_and_receiver_without_a_signal(void **state)
{
    (void)state;
    int ends[2];
    struct fault fault;
    struct ipc_message message;
    pair(ends);
    assert_int_equal(ipc_send(ends[0], 5, 5, SPAN("last"), NULL, 0, &fault), OK);
    cleanup_close(&ends[0]);
    assert_int_equal(ipc_send(ends[1], 1, 1, SPAN("x"), NULL, 0, &fault), CLOSED);
    assert_int_equal(ipc_receive(&message, ends[1], storage, &fault), OK); /* sent before */
    assert_int_equal(ipc_receive(&message, ends[1], storage, &fault), CLOSED);
    assert_int_equal(ipc_await(&message, ends[1], storage, 1000, &fault), CLOSED);
    close_pair(ends);
}

static void a_full_queue_is_again_and_sending_in_time_or_not_at_all(void **state)
{
    (void)state;
    int ends[2], sent = 0;
    struct fault fault;
    struct ipc_message message;
    struct span body = {body_bytes, IPC_BODY_MAX};
    pair(ends);
    while (ipc_send(ends[0], 1, (uint32_t)sent, body, NULL, 0, &fault) == OK)
        sent++;
    assert_true(sent >= 3);
    assert_int_equal(ipc_send(ends[0], 1, 0, body, NULL, 0, &fault), AGAIN);
    assert_int_equal(ipc_send_wait(ends[0], 1, 0, body, NULL, 0, 20, &fault), TIMED_OUT);
    for (int i = 0; i < sent; i++) {
        assert_int_equal(ipc_receive(&message, ends[1], storage, &fault), OK);
        assert_int_equal(message.id, i);
    }
    assert_int_equal(ipc_send_wait(ends[0], 1, 0, body, NULL, 0, 20, &fault), OK);
    close_pair(ends);
}

static void waiting_ends_with_the_message_or_with_the_time(void **state)
{
    (void)state;
    int ends[2];
    struct fault fault;
    struct ipc_message message;
    pair(ends);
    assert_int_equal(ipc_await(&message, ends[1], storage, 0, &fault), TIMED_OUT);
    assert_int_equal(ipc_await(&message, ends[1], storage, 20, &fault), TIMED_OUT);
    pid_t child = fork();
    if (child == 0) {
        usleep(20000);
        _exit(ipc_send(ends[0], 9, 9, SPAN("late"), NULL, 0, &fault) != OK);
    }
    assert_true(child > 0);
    assert_int_equal(ipc_await(&message, ends[1], storage, -1, &fault), OK);
    assert_true(span_is(message.body, "late"));
    int exit_status = 1;
    assert_int_equal(waitpid(child, &exit_status, 0), child);
    assert_int_equal(exit_status, 0);
    close_pair(ends);
}

static void an_outbox_keeps_order_and_descriptors_while_the_peer_is_slow(void **state)
{
    (void)state;
    int ends[2], pipe_ends[2], before = open_fds();
    struct fault fault;
    struct ipc_message message;
    struct ipc_outbox *outbox = NULL;
    struct span body = {body_bytes, IPC_BODY_MAX};
    uint32_t count = 0;
    pair(ends);
    assert_int_equal(ipc_outbox_create(&outbox, ends[0], MIB(4), &fault), OK);
    while (!ipc_outbox_waiting(outbox))
        assert_int_equal(ipc_outbox_send(outbox, 1, count++, body, NULL, 0, &fault), OK);
    assert_int_equal(pipe(pipe_ends), 0);
    assert_int_equal(ipc_outbox_send(outbox, 2, count++, SPAN("x"), pipe_ends, 2, &fault), OK);
    close_pair(pipe_ends);
    for (uint32_t i = 0; i < count; i++) {
        assert_int_equal(ipc_receive(&message, ends[1], storage, &fault), OK);
        assert_int_equal(message.id, i);
        assert_int_equal(message.body.length, message.type == 1 ? IPC_BODY_MAX : 1);
        assert_int_equal(message.fd_count, message.type == 1 ? 0 : 2);
        ipc_message_close(&message);
        assert_int_equal(ipc_outbox_flush(outbox, &fault), OK);
    }
    assert_false(ipc_outbox_waiting(outbox));
    assert_int_equal(ipc_receive(&message, ends[1], storage, &fault), AGAIN);
    assert_null(ipc_outbox_free(outbox));
    close_pair(ends);
    assert_int_equal(open_fds(), before);
}

static void nothing_overtakes_what_waits_in_an_outbox(void **state)
{
    (void)state;
    int ends[2];
    struct fault fault;
    struct ipc_message message;
    struct ipc_outbox *outbox = NULL;
    struct span body = {body_bytes, IPC_BODY_MAX};
    uint32_t count = 0;
    pair(ends);
    assert_int_equal(ipc_outbox_create(&outbox, ends[0], MIB(4), &fault), OK);
    while (!ipc_outbox_waiting(outbox))
        assert_int_equal(ipc_outbox_send(outbox, 1, count++, body, NULL, 0, &fault), OK);
    for (uint32_t i = 0; i < 2; i++) { /* now a small one would fit, past the one that waits */
        assert_int_equal(ipc_receive(&message, ends[1], storage, &fault), OK);
        assert_int_equal(message.id, i);
    }
    assert_int_equal(ipc_outbox_send(outbox, 1, count++, SPAN("small"), NULL, 0, &fault), OK);
    for (uint32_t i = 2; i < count; i++) {
        assert_int_equal(ipc_outbox_flush(outbox, &fault), OK);
        assert_int_equal(ipc_receive(&message, ends[1], storage, &fault), OK);
        assert_int_equal(message.id, i);
    }
    ipc_outbox_free(outbox);
    close_pair(ends);
}

static void an_outbox_is_bounded_and_frees_what_still_waits(void **state)
{
    (void)state;
    int ends[2], before = open_fds();
    struct fault fault;
    struct ipc_outbox *outbox = NULL;
    struct span body = {body_bytes, IPC_BODY_MAX};
    pair(ends);
    while (ipc_send(ends[0], 1, 0, body, NULL, 0, &fault) == OK)
        continue;
    assert_int_equal(ipc_outbox_create(&outbox, ends[0], 2 * IPC_PACKET_MAX, &fault), OK);
    assert_int_equal(ipc_outbox_send(outbox, 1, 0, body, ends, 2, &fault), OK);
    assert_int_equal(ipc_outbox_send(outbox, 1, 0, body, ends, 2, &fault), OK);
    assert_int_equal(open_fds(), before + 6);
    assert_int_equal(ipc_outbox_send(outbox, 1, 0, SPAN(""), NULL, 0, &fault), TOO_LARGE);
    assert_true(ipc_outbox_waiting(outbox));
    assert_null(ipc_outbox_free(outbox));
    assert_null(ipc_outbox_free(NULL));
    close_pair(ends);
    assert_int_equal(open_fds(), before);
}

static void descriptors_that_wait_for_a_slow_peer_are_bounded_and_given_back(void **state)
{
    (void)state;
    int ends[2], before = open_fds();
    struct fault fault;
    struct ipc_outbox *outbox;
    struct rlimit files;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &files), 0);
    files.rlim_cur = files.rlim_max; /* 1024 is a usual soft limit */
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &files), 0);
    pair(ends);
    assert_int_equal(ipc_outbox_create(&outbox, ends[0], MIB(64), &fault), OK);
    while (!ipc_outbox_waiting(outbox))
        assert_int_equal(ipc_outbox_send(outbox, 1, 0, SPAN(""), NULL, 0, &fault), OK);
    const int two[2] = {ends[0], ends[1]};
    for (int i = 0; i < IPC_WAITING_FDS_MAX / 2; i++)
        assert_int_equal(ipc_outbox_send(outbox, 2, 0, SPAN(""), two, 2, &fault), OK);
    assert_int_equal(ipc_outbox_send(outbox, 2, 0, SPAN(""), two, 1, &fault), TOO_LARGE);
    assert_int_equal(ipc_outbox_send(outbox, 2, 0, SPAN(""), NULL, 0, &fault), OK);
    ipc_outbox_free(outbox);
    close_pair(ends);
    assert_int_equal(open_fds(), before);
}

static void an_outbox_says_that_its_peer_is_gone(void **state)
{
    (void)state;
    int ends[2];
    struct fault fault;
    struct ipc_outbox *outbox = NULL;
    struct span body = {body_bytes, IPC_BODY_MAX};
    pair(ends);
    assert_int_equal(ipc_outbox_create(&outbox, ends[0], MIB(1), &fault), OK);
    while (!ipc_outbox_waiting(outbox))
        assert_int_equal(ipc_outbox_send(outbox, 1, 0, body, NULL, 0, &fault), OK);
    cleanup_close(&ends[1]);
    assert_int_equal(ipc_outbox_flush(outbox, &fault), CLOSED);
    ipc_outbox_free(outbox);
    assert_int_equal(ipc_outbox_create(&outbox, ends[0], MIB(1), &fault), OK);
    assert_int_equal(ipc_outbox_send(outbox, 1, 0, SPAN("x"), NULL, 0, &fault), CLOSED);
    ipc_outbox_free(outbox);
    close_pair(ends);
}

/* Says its last word and is gone, as soon as it is given a channel. */
static void *say_and_leave(void *context)
{
    _Atomic int *given = context;
    struct fault fault;
    for (;;) {
        int fd = atomic_exchange(given, -1);
        if (fd == 0)
            return NULL;
        if (fd < 0) {
            sched_yield();
            continue;
        }
        status sent = ipc_send(fd, 7, 0, SPAN("last"), NULL, 0, &fault);
        close(fd);
        if (sent != OK)
            return given;
    }
}

static void the_last_message_of_a_peer_that_leaves_is_never_lost(void **state)
{
    (void)state;
    enum { ROUNDS = 5000 };
    _Atomic int given = -1;
    pthread_t peer;
    void *failed;
    assert_int_equal(pthread_create(&peer, NULL, say_and_leave, &given), 0);
    for (int i = 0; i < ROUNDS; i++) {
        int ends[2];
        struct fault fault;
        struct ipc_message message;
        status received;
        pair(ends);
        atomic_store(&given, ends[1]);
        while ((received = ipc_receive(&message, ends[0], storage, &fault)) == AGAIN)
            sched_yield(); /* where processors are few, the peer needs this one */
        assert_int_equal(received, OK);
        assert_int_equal(message.type, 7);
        assert_int_equal(ipc_await(&message, ends[0], storage, 5000, &fault), CLOSED);
        close(ends[0]);
    }
    atomic_store(&given, 0);
    assert_int_equal(pthread_join(peer, &failed), 0);
    assert_null(failed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_message_arrives_as_it_was_sent),
        cmocka_unit_test(the_largest_body_passes_and_one_byte_more_is_refused),
        cmocka_unit_test(a_packet_over_the_maximum_is_refused_and_the_channel_goes_on),
        cmocka_unit_test(a_packet_shorter_than_its_header_is_refused_with_its_descriptors_closed),
        cmocka_unit_test(descriptors_arrive_close_on_exec_and_belong_to_the_receiver),
        cmocka_unit_test(more_descriptors_than_allowed_are_refused_and_all_are_closed),
        cmocka_unit_test(a_gone_peer_is_closed_for_sender_and_receiver_without_a_signal),
        cmocka_unit_test(a_full_queue_is_again_and_sending_in_time_or_not_at_all),
        cmocka_unit_test(waiting_ends_with_the_message_or_with_the_time),
        cmocka_unit_test(an_outbox_keeps_order_and_descriptors_while_the_peer_is_slow),
        cmocka_unit_test(nothing_overtakes_what_waits_in_an_outbox),
        cmocka_unit_test(an_outbox_is_bounded_and_frees_what_still_waits),
        cmocka_unit_test(descriptors_that_wait_for_a_slow_peer_are_bounded_and_given_back),
        cmocka_unit_test(an_outbox_says_that_its_peer_is_gone),
        cmocka_unit_test(the_last_message_of_a_peer_that_leaves_is_never_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
