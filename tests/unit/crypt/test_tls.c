/* test_tls.c: connections: who gets in, who is turned away and how, what is resumed. */
#include "tls_support.h"

#include <openssl/sslerr.h>

static struct pair pair, another;
static struct tls_server *server;
static uint8_t ticket_keys[3][TLS_TICKET_KEY_BYTES];

static int begin(void **state)
{
    if (start_tls(state))
        return -1;
    make_pair(&pair, "P-256", "one.example", 30);
    make_pair(&another, "P-256", "one.example", 30);
    for (int i = 0; i < 3; i++)
        crypt_random(ticket_keys[i], sizeof ticket_keys[i]);
    server = serve(&pair);
    tls_server_tickets(server, ticket_keys[0], 1);
    return 0;
}

static int end(void **state)
{
    (void)state;
    server = tls_server_free(server);
    return 0;
}

static void only_version(struct meeting *meeting, int version)
{
    assert_int_equal(SSL_set_min_proto_version(meeting->client, version), 1);
    assert_int_equal(SSL_set_max_proto_version(meeting->client, version), 1);
}

static void both_versions_serve(void **state)
{
    (void)state;
    static const struct {
        int version;
        const char *name;
    } cases[] = {{TLS1_3_VERSION, "TLSv1.3"}, {TLS1_2_VERSION, "TLSv1.2"}};
    for (size_t i = 0; i < 2; i++) {
        struct meeting meeting;
        meet(&meeting, server);
        only_version(&meeting, cases[i].version);
        assert_int_equal(shake(&meeting), OK);
        assert_true(meeting.client_done);
        assert_string_equal(tls_version(meeting.session), cases[i].name);
        assert_string_equal(tls_server_name(meeting.session), "");
        assert_int_equal(tls_protocol(meeting.session), TLS_HTTP1);
        assert_false(tls_resumed(meeting.session));
        assert_talks(&meeting);
        part(&meeting);
    }
}

static void older_versions_are_refused(void **state)
{
    (void)state;
    static const int versions[] = {TLS1_1_VERSION, TLS1_VERSION};
    for (size_t i = 0; i < 2; i++) {
        struct meeting meeting;
        meet(&meeting, server);
        only_version(&meeting, versions[i]);
        SSL_set_cipher_list(meeting.client, "ALL:@SECLEVEL=0");
        assert_int_equal(shake(&meeting), BAD_REQUEST);
        assert_non_null(strstr(meeting.fault.detail, "a TLS version below 1.2"));
        assert_int_equal(meeting.client_reason, SSL_R_TLSV1_ALERT_PROTOCOL_VERSION);
        part(&meeting);
    }
}

static void weak_ciphers_and_groups_are_refused(void **state)
{
    (void)state;
    static const char *const ciphers[] = {
        "ECDHE-ECDSA-AES128-SHA256", "ECDHE-ECDSA-AES256-SHA", "DHE-RSA-AES256-GCM-SHA384",
        "AES256-GCM-SHA384", "aNULL", "ECDHE-ECDSA-AES256-CCM", "PSK-AES256-GCM-SHA384"};
    struct meeting meeting;
    for (size_t i = 0; i < sizeof ciphers / sizeof *ciphers; i++) {
        meet(&meeting, server);
        only_version(&meeting, TLS1_2_VERSION);
        if (SSL_set_cipher_list(meeting.client, ciphers[i]) != 1)
            fail_msg("%s", ciphers[i]);
        assert_int_equal(shake(&meeting) == BAD_REQUEST || meeting.client_reason, 1);
        assert_false(meeting.client_done);
        part(&meeting);
    }
    meet(&meeting, server);
    assert_int_equal(SSL_set1_groups_list(meeting.client, "P-521"), 1);
    assert_int_equal(shake(&meeting), BAD_REQUEST);
    assert_non_null(strstr(meeting.fault.detail, "group in common"));
    part(&meeting);
    meet(&meeting, server); /* beside it a good one is found, by a second hello */
    assert_int_equal(SSL_set1_groups_list(meeting.client, "P-521:P-384"), 1);
    assert_int_equal(shake(&meeting), OK);
    part(&meeting);
}

static void the_protocol_is_agreed_or_refused(void **state)
{
    (void)state;
    static const struct {
        const char *offered;
        unsigned length;
        int expected; /* -1: refused */
    } cases[] = {
        {"\x02h2\x08http/1.1", 12, TLS_HTTP2}, {"\x08http/1.1\x02h2", 12, TLS_HTTP2},
        {"\x08http/1.1", 9, TLS_HTTP1},        {"\x02h2", 3, TLS_HTTP2},
        {"\x02h3\x08http/1.1", 12, TLS_HTTP1}, {"\x02h3", 3, -1},
        {"\x08http/1.0", 9, -1},               {"\x03h2c", 4, -1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct meeting meeting;
        meet(&meeting, server);
        assert_int_equal(SSL_set_alpn_protos(meeting.client,
                                             (const unsigned char *)cases[i].offered,
                                             cases[i].length), 0);
        status outcome = shake(&meeting);
        if (cases[i].expected < 0) {
            assert_int_equal(outcome, BAD_REQUEST);
            assert_non_null(strstr(meeting.fault.detail, "ALPN"));
            assert_int_equal(meeting.client_reason, 1000 + SSL_AD_NO_APPLICATION_PROTOCOL);
        } else {
            assert_int_equal(outcome, OK);
            assert_int_equal(tls_protocol(meeting.session), cases[i].expected);
        }
        part(&meeting);
    }
}

static void the_name_that_was_asked_for_is_known(void **state)
{
    (void)state;
    struct meeting meeting;
    meet(&meeting, server);
    SSL_set_tlsext_host_name(meeting.client, "ACME.Example.com");
    assert_int_equal(shake(&meeting), OK);
    assert_string_equal(tls_server_name(meeting.session), "acme.example.com");
    part(&meeting);
    static const char *const bad[] = {"a b", "acme\x01", "a/b", "\xc3\xa9.example"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        meet(&meeting, server);
        SSL_set_tlsext_host_name(meeting.client, bad[i]);
        assert_int_equal(shake(&meeting), BAD_REQUEST);
        assert_non_null(strstr(meeting.fault.detail, "server name"));
        assert_int_equal(meeting.client_reason, 1000 + SSL_AD_UNRECOGNIZED_NAME);
        part(&meeting);
    }
}

static SSL_SESSION *kept;

static int keep(SSL *ssl, SSL_SESSION *session)
{
    (void)ssl;
    SSL_SESSION_free(kept);
    kept = session;
    return 1;
}

/* Not in the context itself, which would spoil them when it goes. */
static void keep_tickets(struct meeting *meeting)
{
    SSL_CTX_set_session_cache_mode(meeting->context,
                                   SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(meeting->context, keep);
}

/* A handshake with first, whose ticket is then shown to second; whether that one took it. */
static bool resumes(struct tls_server *first, struct tls_server *second, int version)
{
    struct meeting meeting;
    char byte;
    meet(&meeting, first);
    only_version(&meeting, version);
    keep_tickets(&meeting);
    SSL_set_tlsext_host_name(meeting.client, "first.example");
    assert_int_equal(shake(&meeting), OK);
    assert_int_equal(client_read(&meeting, &byte, 1), -1);
    SSL_shutdown(meeting.client);
    part(&meeting);
    if (!kept)
        return false;
    meet(&meeting, second);
    only_version(&meeting, version);
    assert_int_equal(SSL_set_session(meeting.client, kept), 1);
    SSL_set_tlsext_host_name(meeting.client, "second.example");
    assert_int_equal(shake(&meeting), OK);
    assert_talks(&meeting);
    bool resumed = tls_resumed(meeting.session);
    assert_int_equal(SSL_session_reused(meeting.client), resumed);
    assert_string_equal(tls_server_name(meeting.session), "second.example");
    part(&meeting);
    SSL_SESSION_free(take_ptr(kept));
    return resumed;
}

static void tickets_resume_wherever_their_key_is_known(void **state)
{
    (void)state;
    static const int versions[] = {TLS1_3_VERSION, TLS1_2_VERSION};
    struct tls_server *second = serve(&another);
    for (size_t i = 0; i < 2; i++) {
        tls_server_tickets(second, ticket_keys[0], 1);
        assert_true(resumes(server, server, versions[i]));
        assert_true(resumes(server, second, versions[i])); /* another gateway and certificate */
        uint8_t rotated[2 * TLS_TICKET_KEY_BYTES];
        memcpy(rotated, ticket_keys[1], TLS_TICKET_KEY_BYTES);
        memcpy(rotated + TLS_TICKET_KEY_BYTES, ticket_keys[0], TLS_TICKET_KEY_BYTES);
        tls_server_tickets(second, rotated, 2);
        assert_true(resumes(server, second, versions[i]));  /* by the former key */
        assert_false(resumes(second, server, versions[i])); /* sealed under the newer one */
        memcpy(rotated, ticket_keys[2], TLS_TICKET_KEY_BYTES);
        memcpy(rotated + TLS_TICKET_KEY_BYTES, ticket_keys[1], TLS_TICKET_KEY_BYTES);
        tls_server_tickets(second, rotated, 2);
        assert_false(resumes(server, second, versions[i])); /* rotated out: a whole handshake */
        tls_server_tickets(second, NULL, 0);
        assert_false(resumes(server, second, versions[i]));
        assert_false(resumes(second, server, versions[i])); /* it gave none */
    }
    tls_server_free(second);
}

static void a_client_that_shows_each_ticket_once_resumes_every_time(void **state)
{
    (void)state;
    struct meeting meeting;
    char byte;
    for (int i = 0; i < 4; i++) {
        SSL_SESSION *session = take_ptr(kept);
        assert_int_equal(session != NULL, i > 0);
        meet(&meeting, server);
        only_version(&meeting, TLS1_3_VERSION);
        keep_tickets(&meeting);
        if (session)
            assert_int_equal(SSL_set_session(meeting.client, session), 1);
        assert_int_equal(shake(&meeting), OK);
        assert_int_equal(client_read(&meeting, &byte, 1), -1);
        assert_int_equal(tls_resumed(meeting.session), i > 0);
        SSL_shutdown(meeting.client);
        part(&meeting);
        SSL_SESSION_free(session);
    }
    SSL_SESSION_free(take_ptr(kept));
}

static void a_ticket_of_the_former_key_is_renewed(void **state)
{
    (void)state;
    struct meeting meeting;
    SSL_SESSION *session = NULL;
    uint8_t rotated[2 * TLS_TICKET_KEY_BYTES];
    struct tls_server *second = serve(&pair);
    memcpy(rotated, ticket_keys[1], TLS_TICKET_KEY_BYTES);
    memcpy(rotated + TLS_TICKET_KEY_BYTES, ticket_keys[0], TLS_TICKET_KEY_BYTES);
    for (int i = 0; i < 3; i++) { /* the third time the former key is gone */
        tls_server_tickets(second, i == 0 ? ticket_keys[0] : rotated, i == 1 ? 2 : 1);
        meet(&meeting, second);
        only_version(&meeting, TLS1_2_VERSION);
        if (session)
            assert_int_equal(SSL_set_session(meeting.client, session), 1);
        assert_int_equal(shake(&meeting), OK);
        assert_int_equal(tls_resumed(meeting.session), i > 0);
        SSL_SESSION_free(session);
        session = SSL_get1_session(meeting.client);
        SSL_shutdown(meeting.client);
        part(&meeting);
    }
    SSL_SESSION_free(session);
    tls_server_free(second);
}

static void sessions_outlive_the_server_that_was_replaced(void **state)
{
    (void)state;
    struct meeting meeting, late;
    struct tls_server *first = serve(&pair);
    tls_server_tickets(first, ticket_keys[0], 1);
    meet(&meeting, first);
    meet(&late, first);
    assert_int_equal(shake(&meeting), OK);
    tls_server_free(first);
    assert_talks(&meeting);
    assert_int_equal(shake(&late), OK);
    assert_talks(&late);
    part(&meeting);
    part(&late);
}

static void renegotiation_ends_the_connection(void **state)
{
    (void)state;
    struct meeting meeting;
    enum tls_want want;
    uint8_t byte;
    meet(&meeting, server);
    only_version(&meeting, TLS1_2_VERSION);
    assert_int_equal(shake(&meeting), OK);
    assert_talks(&meeting);
    assert_int_equal(SSL_renegotiate(meeting.client), 1);
    (void)SSL_do_handshake(meeting.client);
    assert_int_equal(tls_read(meeting.session, &byte, 1, &want), -1);
    assert_int_equal(want, TLS_WANT_NOTHING);
    assert_int_equal(tls_write(meeting.session, SPAN("x"), &want), -1);
    part(&meeting);
}

static void new_keys_are_taken_but_not_without_end(void **state)
{
    (void)state;
    struct meeting meeting;
    enum tls_want want = TLS_WANT_READ;
    uint8_t byte;
    char back[16];
    int updates = 0;
    meet(&meeting, server);
    assert_int_equal(shake(&meeting), OK);
    assert_int_equal(SSL_key_update(meeting.client, SSL_KEY_UPDATE_REQUESTED), 1);
    assert_talks(&meeting);
    for (; updates < 200 && want == TLS_WANT_READ; updates++) {
        assert_int_equal(SSL_key_update(meeting.client, SSL_KEY_UPDATE_REQUESTED), 1);
        assert_int_equal(SSL_do_handshake(meeting.client), 1);
        assert_int_equal(tls_read(meeting.session, &byte, 1, &want), -1);
        (void)client_read(&meeting, back, sizeof back);
    }
    assert_in_range(updates, 10, 100);
    assert_int_equal(want, TLS_WANT_NOTHING);
    part(&meeting);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_versions_serve),
        cmocka_unit_test(older_versions_are_refused),
        cmocka_unit_test(weak_ciphers_and_groups_are_refused),
        cmocka_unit_test(the_protocol_is_agreed_or_refused),
        cmocka_unit_test(the_name_that_was_asked_for_is_known),
        cmocka_unit_test(tickets_resume_wherever_their_key_is_known),
        cmocka_unit_test(a_client_that_shows_each_ticket_once_resumes_every_time),
        cmocka_unit_test(a_ticket_of_the_former_key_is_renewed),
        cmocka_unit_test(sessions_outlive_the_server_that_was_replaced),
        cmocka_unit_test(renegotiation_ends_the_connection),
        cmocka_unit_test(new_keys_are_taken_but_not_without_end),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
