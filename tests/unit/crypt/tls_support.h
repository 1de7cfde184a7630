/* tls_support.h: certificates made on the spot, and a client that is OpenSSL's own, for the tests
 * of TLS. */
#pragma once

#include "crypt/tls.h"
#include "base/cleanup.h"
#include "support.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

struct pem {
    char text[16 * 1024];
    size_t length;
};

struct pair {
    struct pem certificate, key;
};

static inline struct span pem_span(const struct pem *pem)
{
    return (struct span){(const uint8_t *)pem->text, pem->length};
}

static inline void pem_take(struct pem *ret, BIO *bio)
{
    char *text;
    long length = BIO_get_mem_data(bio, &text);
    assert_in_range(length, 1, (long)sizeof ret->text - 1);
    memcpy(ret->text, text, (size_t)length);
    ret->text[length] = '\0';
    ret->length = (size_t)length;
    BIO_free(bio);
}

/* how: "RSA2048", "P-256", "ED25519" */
static inline EVP_PKEY *make_key(const char *how)
{
    EVP_PKEY *key = strncmp(how, "RSA", 3) == 0
                  ? EVP_PKEY_Q_keygen(NULL, NULL, "RSA", (size_t)strtoul(how + 3, NULL, 10))
                  : strncmp(how, "P-", 2) == 0 ? EVP_PKEY_Q_keygen(NULL, NULL, "EC", how)
                                               : EVP_PKEY_Q_keygen(NULL, NULL, how);
    assert_non_null(key);
    return key;
}

static inline X509 *make_certificate(EVP_PKEY *key, const char *name, int first_day, int last_day,
                                     const EVP_MD *digest)
{
    X509 *made = X509_new();
    X509_set_version(made, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(made), 1);
    X509_gmtime_adj(X509_getm_notBefore(made), first_day * 86400L);
    X509_gmtime_adj(X509_getm_notAfter(made), last_day * 86400L);
    X509_set_pubkey(made, key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(made), "CN", MBSTRING_ASC,
                               (const unsigned char *)name, -1, -1, 0);
    X509_set_issuer_name(made, X509_get_subject_name(made));
    assert_true(X509_sign(made, key, digest) > 0);
    return made;
}

static inline void put_key(struct pem *ret, EVP_PKEY *key)
{
    BIO *bio = BIO_new(BIO_s_mem());
    assert_int_equal(PEM_write_bio_PKCS8PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL), 1);
    pem_take(ret, bio);
}

static inline void put_certificate(struct pem *ret, X509 *certificate)
{
    BIO *bio = BIO_new(BIO_s_mem());
    assert_int_equal(PEM_write_bio_X509(bio, certificate), 1);
    pem_take(ret, bio);
}

static inline void make_pair(struct pair *ret, const char *how, const char *name, int last_day)
{
    EVP_PKEY *key = make_key(how);
    X509 *made = make_certificate(key, name, -2, last_day,
                                  strcmp(how, "ED25519") == 0 ? NULL : EVP_sha256());
    put_key(&ret->key, key);
    put_certificate(&ret->certificate, made);
    X509_free(made);
    EVP_PKEY_free(key);
}

static inline struct tls_server *serve(const struct pair *pair)
{
    struct fault fault = {0};
    struct tls_server *server = NULL;
    if (tls_server_create(&server, pem_span(&pair->certificate), pem_span(&pair->key), &fault))
        fail_msg("%s", fault.detail);
    return server;
}

/* A client and a session of ours, at the two ends of a pair of sockets. */
struct meeting {
    int ends[2]; /* client, session */
    SSL_CTX *context;
    SSL *client;
    struct tls_session *session;
    status outcome; /* of the session's handshake */
    struct fault fault;
    bool client_done;
    int client_reason; /* OpenSSL's, when the client's handshake failed */
};

static inline void meet(struct meeting *ret, struct tls_server *server)
{
    struct fault fault;
    *ret = (struct meeting){.outcome = AGAIN};
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ret->ends),
                     0);
    ret->context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_security_level(ret->context, 0); /* old versions are for the server to refuse */
    ret->client = SSL_new(ret->context);
    SSL_set_fd(ret->client, ret->ends[0]);
    SSL_set_connect_state(ret->client);
    assert_int_equal(tls_session_open(&ret->session, server, ret->ends[1], &fault), OK);
}

static inline void part(struct meeting *meeting)
{
    SSL_free(meeting->client);
    SSL_CTX_free(meeting->context);
    meeting->session = tls_session_free(meeting->session);
    for (int i = 0; i < 2; i++)
        if (meeting->ends[i] >= 0)
            close(meeting->ends[i]);
}

static inline void step_session(struct meeting *meeting)
{
    enum tls_want want;
    if (meeting->outcome == AGAIN) {
        meeting->outcome = tls_handshake(meeting->session, &want, &meeting->fault);
        assert_true((meeting->outcome == AGAIN) == (want != TLS_WANT_NOTHING));
    }
}

static inline void step_client(struct meeting *meeting)
{
    if (meeting->client_done || meeting->client_reason)
        return;
    ERR_clear_error();
    int result = SSL_do_handshake(meeting->client);
    int error = SSL_get_error(meeting->client, result);
    meeting->client_done = result == 1;
    if (result != 1 && error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE)
        meeting->client_reason = error == SSL_ERROR_SSL ? ERR_GET_REASON(ERR_peek_error()) : -1;
    ERR_clear_error();
}

/* Until both know how it ended, or nothing can come any more. */
static inline status shake(struct meeting *meeting)
{
    for (int i = 0; i < 20; i++) {
        step_client(meeting);
        step_session(meeting);
    }
    return meeting->outcome;
}

/* A read of the client's: also takes the tickets in. -1: nothing, or the end. */
static inline int client_read(struct meeting *meeting, char *bytes, int size)
{
    ERR_clear_error();
    return SSL_read(meeting->client, bytes, size);
}

static inline void assert_talks(struct meeting *meeting)
{
    enum tls_want want;
    uint8_t got[16];
    char back[16];
    assert_int_equal(SSL_write(meeting->client, "question", 8), 8);
    assert_int_equal(tls_read(meeting->session, got, sizeof got, &want), 8);
    assert_memory_equal(got, "question", 8);
    assert_int_equal(tls_read(meeting->session, got, sizeof got, &want), -1);
    assert_int_equal(want, TLS_WANT_READ);
    assert_int_equal(tls_write(meeting->session, SPAN("answer"), &want), 6);
    assert_int_equal(client_read(meeting, back, sizeof back), 6);
    assert_memory_equal(back, "answer", 6);
}

static inline int start_tls(void **state)
{
    struct fault fault;
    (void)state;
    return crypt_start(&fault) == OK && tls_warm_up(&fault) == OK ? 0 : -1;
}
