/* test_tls_hostile.c: clients that are slow, leave, lie, or speak something else. */
#include "tls_support.h"

#include <malloc.h>
#include <openssl/sslerr.h>

static struct pair pair;
static struct tls_server *server;

static int begin(void **state)
{
    if (start_tls(state))
        return -1;
    make_pair(&pair, "P-256", "one.example", 30);
    server = serve(&pair);
    return 0;
}

static int end(void **state)
{
    (void)state;
    server = tls_server_free(server);
    return 0;
}

static void close_client(struct meeting *meeting)
{
    close(meeting->ends[0]);
    meeting->ends[0] = -1;
}

/* What OpenSSL would send first, taken out of a client that never gets an answer. */
static size_t first_flight(uint8_t *ret, size_t size, int version)
{
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    SSL *client = SSL_new(context);
    BIO *out = BIO_new(BIO_s_mem());
    SSL_set_max_proto_version(client, version);
    SSL_set_bio(client, BIO_new(BIO_s_mem()), out);
    SSL_set_connect_state(client);
    assert_int_equal(SSL_do_handshake(client), -1);
    int length = BIO_read(out, ret, (int)size);
    assert_in_range(length, 100, 2000);
    SSL_free(client);
    SSL_CTX_free(context);
    ERR_clear_error();
    return (size_t)length;
}

/* Bytes instead of a client; then the end of the stream, when closes. */
static status say(struct span bytes, bool closes, struct fault *fault)
{
    struct meeting meeting;
    meet(&meeting, server);
    for (size_t sent = 0; sent < bytes.length;) {
        ssize_t took = write(meeting.ends[0], bytes.data + sent, bytes.length - sent);
        if (took > 0)
            sent += (size_t)took;
        step_session(&meeting);
        if (meeting.outcome != AGAIN)
            break;
    }
    if (closes)
        close_client(&meeting);
    step_session(&meeting);
    status outcome = meeting.outcome;
    *fault = meeting.fault;
    part(&meeting);
    return outcome;
}

static void bytes_may_come_one_by_one(void **state)
{
    (void)state;
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    for (size_t i = 0; i < 2; i++) {
        struct meeting meeting;
        BIO *out = BIO_new(BIO_s_mem()), *in = BIO_new(BIO_s_mem());
        uint8_t byte, answer[4096];
        meet(&meeting, server);
        SSL_set_min_proto_version(meeting.client, versions[i]);
        SSL_set_max_proto_version(meeting.client, versions[i]);
        SSL_set_bio(meeting.client, in, out);
        for (int turn = 0; turn < 10 && meeting.outcome == AGAIN; turn++) {
            step_client(&meeting);
            while (BIO_read(out, &byte, 1) == 1) {
                assert_int_equal(write(meeting.ends[0], &byte, 1), 1);
                step_session(&meeting);
            }
            for (ssize_t got; (got = read(meeting.ends[0], answer, sizeof answer)) > 0;)
                BIO_write(in, answer, (int)got);
        }
        step_client(&meeting);
        assert_int_equal(meeting.outcome, OK);
        assert_true(meeting.client_done);
        part(&meeting);
    }
}

static void a_client_may_leave_at_any_byte(void **state)
{
    (void)state;
    uint8_t hello[2048];
    struct fault fault;
    size_t length = first_flight(hello, sizeof hello, TLS1_3_VERSION);
    for (size_t cut = 0; cut <= length; cut++) {
        assert_int_equal(say((struct span){hello, cut}, true, &fault), CLOSED);
        assert_int_equal(say((struct span){hello, cut}, false, &fault), AGAIN);
    }
    for (int turns = 1; turns < 4; turns++) { /* after each flight */
        struct meeting meeting;
        meet(&meeting, server);
        SSL_set_max_proto_version(meeting.client, TLS1_2_VERSION);
        for (int i = 0; i < turns; i++) {
            step_client(&meeting);
            if (i + 1 < turns)
                step_session(&meeting);
        }
        bool whole = meeting.client_done;
        close_client(&meeting);
        step_session(&meeting);
        assert_int_equal(meeting.outcome, whole ? OK : CLOSED);
        enum tls_want want;
        if (whole) {
            uint8_t byte;
            assert_int_equal(tls_read(meeting.session, &byte, 1, &want), -1);
            assert_int_equal(want, TLS_WANT_NOTHING); /* no close_notify: cut, not ended */
        }
        tls_shutdown(meeting.session);
        part(&meeting);
    }
}

static void what_is_no_tls_is_named(void **state)
{
    (void)state;
    static const struct {
        struct span bytes;
        const char *words;
    } cases[] = {
        {SPAN("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), "plain HTTP"},
        {SPAN("POST /v1/memories HTTP/1.1\r\n"), "plain HTTP"},
        {SPAN("CONNECT a:443 HTTP/1.1\r\n"), "plain HTTP"},
        {SPAN("DELETE / HTTP/1.1\r\n"), "TLS"},
        {SPAN("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), "TLS"},
        {SPAN("SSH-2.0-x\r\n"), "TLS"},
        {SPAN("\0\0\0\0\0\0\0\0\0\0\0"), "TLS"},
        /* an SSLv2 hello that offers TLS 1.2 */
        {SPAN("\x80\x2e\x01\x03\x03\0\x15\0\0\0\x10\0\0\x2f"), "no TLS record"},
        {SPAN("\xff\xff\xff\xff\xff\xff"), "no TLS record"},
        {SPAN("\x15\x03\x03\0\x02\x02\x28"), "TLS"},            /* an alert first */
        {SPAN("\x17\x03\x03\0\x05hello"), "TLS"},               /* data first */
        {SPAN("\x14\x03\x03\0\x01\x01\x14\x03\x03\0\x01\x01"), "TLS"},
        {SPAN("\x16\x03\x01\0\x04\x02\0\0\0"), "TLS"},          /* a ServerHello */
        {SPAN("\x16\x03\x01\0\x04\x01\0\0\0"), "TLS"},          /* an empty ClientHello */
        {SPAN("\x16\x03\x01\0\x04\x01\0\xff\xff"), "too long"}, /* that announces 64 KiB */
        {SPAN("\x16\x03\x01\0\x04\x01\xff\xff\xff"), "too long"},
        {SPAN("\x16\x03\x01\0\x02\x01\x01\x16\x03\x01\0\x02\0\0"), "too long"},
        {SPAN("\x16\x03\x01\x7f\xff\x01\0\x02\0\0"), "TLS"},    /* a record of 32 KiB */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct fault fault = {0};
        status outcome = say(cases[i].bytes, false, &fault);
        if (outcome == OK || outcome == AGAIN || !strstr(fault.detail, cases[i].words))
            fail_msg("case %zu: status %d, \"%s\"", i, outcome, fault.detail);
    }
}

static void random_bytes_never_get_in(void **state)
{
    (void)state;
    uint8_t hello[2048], copy[2048];
    struct fault fault;
    size_t length = first_flight(hello, sizeof hello, TLS1_3_VERSION);
    for (int round = 0; round < 500; round++) {
        uint16_t at[2];
        memcpy(copy, hello, length);
        for (int i = 0; i < 1 + round % 4; i++) {
            crypt_random(at, sizeof at);
            copy[at[0] % length] = (uint8_t)at[1];
        }
        assert_int_not_equal(say((struct span){copy, length}, true, &fault), OK);
        crypt_random(copy, sizeof copy);
        if (round % 2)
            memcpy(copy, "\x16\x03\x01", 3);
        assert_int_not_equal(say(SPAN_OF(copy), true, &fault), OK);
    }
}

static size_t heap_in_use(void)
{
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
}

/* OpenSSL would make room for what the header of a message announces. */
static void the_word_of_a_client_costs_no_memory(void **state)
{
    (void)state;
    enum { CLIENTS = 50 };
    static struct meeting meetings[CLIENTS];
    static const uint8_t liar[] = {0x16, 3, 1, 0, 4, 1, 1, 0xff, 0};
    static const uint8_t honest[] = {0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc};
    for (int i = 0; i < CLIENTS; i++)
        meet(&meetings[i], server);
    size_t before = heap_in_use();
    for (int i = 0; i < CLIENTS; i++) {
        assert_int_equal(write(meetings[i].ends[0], i % 2 ? liar : honest, 9), 9);
        step_session(&meetings[i]);
        assert_int_equal(meetings[i].outcome, i % 2 ? BAD_REQUEST : AGAIN);
    }
    assert_true(heap_in_use() - before < (size_t)CLIENTS * TLS_BUSY_BYTES);
    for (int i = 0; i < CLIENTS; i++)
        part(&meetings[i]);
}

static void a_handshake_without_end_is_ended(void **state)
{
    (void)state;
    static uint8_t empty[64 * 5]; /* records with nothing inside */
    struct fault fault = {0};
    for (size_t i = 0; i < sizeof empty; i += 5)
        memcpy(empty + i, "\x16\x03\x01\0\0", 5);
    assert_int_equal(say(SPAN_OF(empty), false, &fault), BAD_REQUEST);
    struct meeting meeting; /* a first hello is answered by a retry; the second one lies */
    uint8_t second[9] = {0x16, 3, 3, 0, 4, 1, 0, 0xf0, 0};
    meet(&meeting, server);
    SSL_set1_groups_list(meeting.client, "P-521:P-384");
    step_client(&meeting);
    step_session(&meeting);
    assert_int_equal(meeting.outcome, AGAIN);
    assert_int_equal(write(meeting.ends[0], "\x14\x03\x03\0\x01\x01", 6), 6);
    assert_int_equal(write(meeting.ends[0], second, sizeof second), sizeof second);
    step_session(&meeting);
    assert_int_equal(meeting.outcome, BAD_REQUEST);
    assert_non_null(strstr(meeting.fault.detail, "too long"));
    part(&meeting);
}

static void a_client_that_does_not_trust_us_says_so(void **state)
{
    (void)state;
    struct meeting meeting;
    meet(&meeting, server);
    SSL_set_verify(meeting.client, SSL_VERIFY_PEER, NULL);
    assert_int_equal(shake(&meeting), UNAVAILABLE);
    assert_non_null(strstr(meeting.fault.detail, "alert 48")); /* unknown_ca */
    enum tls_want want;
    uint8_t byte;
    assert_int_equal(tls_handshake(meeting.session, &want, &meeting.fault), CLOSED);
    assert_int_equal(tls_read(meeting.session, &byte, 1, &want), -1);
    assert_int_equal(tls_write(meeting.session, SPAN("x"), &want), -1);
    assert_int_equal(want, TLS_WANT_NOTHING);
    assert_int_equal(tls_pending(meeting.session), 0);
    tls_shutdown(meeting.session);
    part(&meeting);
}

static void a_forged_record_breaks_the_connection(void **state)
{
    (void)state;
    struct meeting meeting;
    enum tls_want want;
    uint8_t byte;
    meet(&meeting, server);
    assert_int_equal(shake(&meeting), OK);
    assert_talks(&meeting);
    assert_int_equal(write(meeting.ends[0], "\x17\x03\x03\0\x20" "01234567890123456789012345678901",
                           37), 37);
    assert_int_equal(tls_read(meeting.session, &byte, 1, &want), -1);
    assert_int_equal(want, TLS_WANT_NOTHING);
    assert_int_equal(tls_read(meeting.session, &byte, 1, &want), -1);
    assert_int_equal(tls_write(meeting.session, SPAN("x"), &want), -1);
    part(&meeting);
}

static void what_is_pending_is_told(void **state)
{
    (void)state;
    struct meeting meeting;
    enum tls_want want;
    uint8_t got[8];
    meet(&meeting, server);
    assert_int_equal(shake(&meeting), OK);
    assert_int_equal(SSL_write(meeting.client, "0123456789", 10), 10);
    assert_int_equal(tls_pending(meeting.session), 0); /* epoll tells of these */
    assert_int_equal(tls_read(meeting.session, got, 4, &want), 4);
    assert_int_equal(tls_pending(meeting.session), 6);
    assert_int_equal(tls_read(meeting.session, got, 8, &want), 6);
    assert_int_equal(tls_pending(meeting.session), 0);
    part(&meeting);
}

static void a_full_socket_is_waited_for_and_no_byte_is_lost(void **state)
{
    (void)state;
    enum { TOTAL = 4 * 1024 * 1024 };
    struct meeting meeting;
    enum tls_want want;
    size_t sent = 0, came = 0;
    int waits = 0;
    uint8_t *bytes = malloc(TOTAL), *moved = malloc(TOTAL);
    char got[32 * 1024];
    crypt_random(bytes, TOTAL);
    memcpy(moved, bytes, TOTAL);
    meet(&meeting, server);
    assert_int_equal(shake(&meeting), OK);
    while (came < TOTAL) {
        const uint8_t *from = waits % 2 ? moved : bytes; /* the same bytes, elsewhere */
        ssize_t took = sent < TOTAL
                     ? tls_write(meeting.session, (struct span){from + sent, TOTAL - sent}, &want)
                     : -1;
        if (took > 0) {
            sent += (size_t)took;
            continue;
        }
        assert_true(sent == TOTAL || want == TLS_WANT_WRITE);
        waits++;
        for (int length; (length = client_read(&meeting, got, sizeof got)) > 0;) {
            assert_memory_equal(got, bytes + came, (size_t)length);
            came += (size_t)length;
        }
    }
    assert_int_equal(came, TOTAL);
    assert_true(waits > 2);
    free(bytes);
    free(moved);
    part(&meeting);
}

static void both_may_close_properly(void **state)
{
    (void)state;
    struct meeting meeting;
    enum tls_want want;
    uint8_t byte;
    char back;
    meet(&meeting, server);
    assert_int_equal(shake(&meeting), OK);
    assert_int_equal(SSL_shutdown(meeting.client), 0);
    assert_int_equal(tls_read(meeting.session, &byte, 1, &want), 0);
    assert_int_equal(tls_read(meeting.session, &byte, 1, &want), 0);
    assert_int_equal(tls_write(meeting.session, SPAN("late"), &want), 4); /* half closed */
    tls_shutdown(meeting.session);
    tls_shutdown(meeting.session);
    assert_int_equal(tls_write(meeting.session, SPAN("x"), &want), -1);
    assert_int_equal(want, TLS_WANT_NOTHING);
    char late[8];
    assert_int_equal(client_read(&meeting, late, sizeof late), 4);
    assert_int_equal(client_read(&meeting, &back, 1), 0);
    assert_int_equal(SSL_get_error(meeting.client, 0), SSL_ERROR_ZERO_RETURN);
    part(&meeting);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_may_come_one_by_one),
        cmocka_unit_test(a_client_may_leave_at_any_byte),
        cmocka_unit_test(what_is_no_tls_is_named),
        cmocka_unit_test(random_bytes_never_get_in),
        cmocka_unit_test(the_word_of_a_client_costs_no_memory),
        cmocka_unit_test(a_handshake_without_end_is_ended),
        cmocka_unit_test(a_client_that_does_not_trust_us_says_so),
        cmocka_unit_test(a_forged_record_breaks_the_connection),
        cmocka_unit_test(what_is_pending_is_told),
        cmocka_unit_test(a_full_socket_is_waited_for_and_no_byte_is_lost),
        cmocka_unit_test(both_may_close_properly),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
