/* tls_room.h: what the files behind tls.h share. */
#pragma once

#include "crypt/openssl.h"
#include "crypt/tls.h"

#include <openssl/bio.h>
#include <openssl/ssl.h>

struct ticket_keys { /* in secret memory */
    uint8_t key[TLS_TICKET_KEYS_MAX][TLS_TICKET_KEY_BYTES];
    uint32_t count;
};

/* The leaf and the certificates behind it. */
struct tls_chain {
    X509 *leaf;
    STACK_OF(X509) *others;
};

struct tls_server {
    SSL_CTX *context;
    struct tls_chain chain;
    EVP_PKEY *key; /* its parts live in secret memory */
    struct ticket_keys *tickets;
    int64_t expires_s;
    uint8_t fingerprint[HASH_BYTES];
    uint32_t holders; /* the owner, if it still has it, and the handshakes */
};

/* What a peer may send before it is known: see tls_socket.c. */
struct tls_guard {
    bool off;
    uint8_t record_head[5], message_head[4];
    uint8_t record_head_length, message_head_length;
    uint32_t record_left, message_left, received;
};

struct tls_session {
    SSL *ssl;
    struct tls_server *server; /* NULL once the handshake is done */
    struct tls_guard guard;
    const char *refused; /* why this room ends it, where OpenSSL would go on */
    char *name;          /* NULL: none */
    int fd;
    uint32_t key_updates;
    enum tls_protocol protocol;
    bool done, broken, ended, shut; /* ended: the peer has closed its side of the socket */
};

/* tls_server.c */
MUST_CHECK status tls_server_warm_up(struct fault *fault);

/* tls_socket.c: the way between OpenSSL and the socket. NULL: out of memory. */
MUST_CHECK status tls_socket_warm_up(struct fault *fault);
BIO *tls_socket_open(struct tls_session *session);

/* tls_hello.c: callbacks for the handshake: the client's hello, ALPN, alerts and key updates. */
void tls_hello_install(SSL_CTX *context);
