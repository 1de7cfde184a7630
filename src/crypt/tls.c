/* tls.c: one connection: handshake, bytes, end. */
#include "crypt/tls.h"

#include "crypt/tls_room.h"

#include <openssl/err.h>
#include <openssl/sslerr.h>
#include <stdlib.h>

enum { ALERT_REASONS = 1000 }; /* OpenSSL's reason for a peer's alert: this and the alert */

status tls_warm_up(struct fault *fault)
{
    static bool warm;
    if (warm)
        return OK;
    /* as crypt_start: no configuration file, no error strings */
    if (OPENSSL_init_ssl(OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_NO_LOAD_SSL_STRINGS, NULL) != 1)
        return FAIL(INTERNAL, fault, "TLS: OpenSSL did not start");
    TRY(tls_socket_warm_up(fault));
    TRY(tls_server_warm_up(fault));
    secret_objects_wipe_all();
    warm = true;
    return OK;
}

static status out_of_memory(struct tls_session *session, struct fault *fault)
{
    tls_session_free(session);
    return FAIL(UNAVAILABLE, fault, "TLS: out of memory");
}

status tls_session_open(struct tls_session **ret, struct tls_server *server, int fd,
                        struct fault *fault)
{
    struct tls_session *session = calloc(1, sizeof *session);
    if (!session)
        return FAIL(UNAVAILABLE, fault, "TLS: out of memory");
    *session = (struct tls_session){.fd = fd, .server = server, .protocol = TLS_HTTP1};
    server->holders++;
    session->ssl = SSL_new(server->context);
    if (!session->ssl || SSL_set_app_data(session->ssl, session) != 1)
        return out_of_memory(session, fault);
    BIO *bio = tls_socket_open(session);
    if (!bio)
        return out_of_memory(session, fault);
    SSL_set_bio(session->ssl, bio, bio);
    SSL_set_accept_state(session->ssl);
    *ret = session;
    return OK;
}

struct tls_session *tls_session_free(struct tls_session *session)
{
    if (!session)
        return NULL;
    SSL_free(session->ssl);
    tls_server_free(session->server);
    free(session->name);
    free(session);
    return NULL;
}

static const struct {
    int reason;
    const char *text;
} reasons[] = {
    {SSL_R_HTTP_REQUEST, "plain HTTP where TLS is spoken"},
    {SSL_R_HTTPS_PROXY_REQUEST, "plain HTTP where TLS is spoken"},
    {SSL_R_WRONG_VERSION_NUMBER, "no TLS record"},
    {SSL_R_UNSUPPORTED_PROTOCOL, "a TLS version below 1.2"},
    {SSL_R_VERSION_TOO_LOW, "a TLS version below 1.2"},
    {SSL_R_UNKNOWN_PROTOCOL, "a TLS version below 1.2"},
    {SSL_R_INAPPROPRIATE_FALLBACK, "a fallback that a newer version makes needless"},
    {SSL_R_NO_SHARED_CIPHER, "no cipher in common"},
    {SSL_R_NO_SHARED_GROUPS, "no group in common"},
    {SSL_R_NO_SUITABLE_KEY_SHARE, "no group in common"},
    {SSL_R_NO_SUITABLE_SIGNATURE_ALGORITHM, "no signature algorithm in common"},
    {SSL_R_NO_SHARED_SIGNATURE_ALGORITHMS, "no signature algorithm in common"},
    {SSL_R_NO_APPLICATION_PROTOCOL, "neither h2 nor http/1.1 (ALPN)"},
    {SSL_R_DECRYPTION_FAILED_OR_BAD_RECORD_MAC, "a record that does not open"},
};

static status explain(const struct tls_session *session, int error, struct fault *fault)
{
    unsigned long code = ERR_peek_error();
    int reason = ERR_GET_REASON(code);
    if (session->refused)
        return FAIL(BAD_REQUEST, fault, "TLS: %s", session->refused);
    if (ERR_GET_LIB(code) == ERR_LIB_SSL && reason >= ALERT_REASONS)
        return FAIL(UNAVAILABLE, fault, "TLS: the client gave up: alert %d",
                    reason - ALERT_REASONS);
    if (session->ended || error == SSL_ERROR_SYSCALL || error == SSL_ERROR_ZERO_RETURN)
        return FAIL(CLOSED, fault, "TLS: the client left");
    for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++)
        if (ERR_GET_LIB(code) == ERR_LIB_SSL && reasons[i].reason == reason)
            return FAIL(BAD_REQUEST, fault, "TLS: %s", reasons[i].text);
    return FAIL(BAD_REQUEST, fault, "TLS: refused (reason %d:%d)", ERR_GET_LIB(code), reason);
}

static enum tls_want wanted(int error)
{
    return error == SSL_ERROR_WANT_READ ? TLS_WANT_READ
         : error == SSL_ERROR_WANT_WRITE ? TLS_WANT_WRITE : TLS_WANT_NOTHING;
}

status tls_handshake(struct tls_session *session, enum tls_want *want, struct fault *fault)
{
    *want = TLS_WANT_NOTHING;
    if (session->done)
        return OK;
    if (session->broken)
        return FAIL(CLOSED, fault, "TLS: the handshake has failed");
    ERR_clear_error();
    int result = SSL_do_handshake(session->ssl);
    if (result == 1) {
        session->done = true;
        SSL_certs_clear(session->ssl);
        session->server = tls_server_free(session->server);
        return OK;
    }
    int error = SSL_get_error(session->ssl, result);
    *want = wanted(error);
    if (*want != TLS_WANT_NOTHING)
        return FAIL(AGAIN, fault, "TLS: the handshake goes on");
    session->broken = true;
    status why = explain(session, error, fault);
    ERR_clear_error();
    return why;
}

ssize_t tls_read(struct tls_session *session, uint8_t *bytes, size_t size, enum tls_want *want)
{
    size_t count = 0;
    *want = TLS_WANT_NOTHING;
    if (!session->done || session->broken || size == 0)
        return -1;
    ERR_clear_error();
    int result = SSL_read_ex(session->ssl, bytes, size, &count);
    if (session->broken)
        return -1;
    if (result == 1)
        return (ssize_t)count;
    int error = SSL_get_error(session->ssl, result);
    if (error == SSL_ERROR_ZERO_RETURN)
        return 0;
    *want = wanted(error);
    session->broken = *want == TLS_WANT_NOTHING;
    return -1;
}

ssize_t tls_write(struct tls_session *session, struct span bytes, enum tls_want *want)
{
    size_t count = 0;
    *want = TLS_WANT_NOTHING;
    if (!session->done || session->broken || session->shut)
        return -1;
    if (bytes.length == 0)
        return 0;
    ERR_clear_error();
    int result = SSL_write_ex(session->ssl, bytes.data, bytes.length, &count);
    if (result == 1)
        return (ssize_t)count;
    *want = wanted(SSL_get_error(session->ssl, result));
    session->broken = *want == TLS_WANT_NOTHING;
    return -1;
}

size_t tls_pending(const struct tls_session *session)
{
    return session->done && !session->broken ? (size_t)SSL_pending(session->ssl) : 0;
}

void tls_shutdown(struct tls_session *session)
{
    if (!session->done || session->broken || session->shut)
        return;
    session->shut = true;
    ERR_clear_error();
    (void)SSL_shutdown(session->ssl);
}

enum tls_protocol tls_protocol(const struct tls_session *session)
{
    return session->protocol;
}

const char *tls_version(const struct tls_session *session)
{
    return SSL_get_version(session->ssl);
}

const char *tls_server_name(const struct tls_session *session)
{
    return session->name ? session->name : "";
}

bool tls_resumed(const struct tls_session *session)
{
    return SSL_session_reused(session->ssl) == 1;
}
