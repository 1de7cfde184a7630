/* tls.h: TLS 1.3 and 1.2 for a server, over a non-blocking socket.
 *
 * TLS 1.2 only with ECDHE and an AEAD; no renegotiation (who asks for it is disconnected), no
 * compression, no early data. Tickets are sealed under keys that the caller shares among its
 * processes and rotates. ALPN: "h2" and "http/1.1"; a client that offers neither is refused, one
 * that offers nothing speaks HTTP/1.1. Only this room knows OpenSSL's TLS; errors never hold
 * content or key material. One thread. */
#pragma once

#include "crypt/crypt.h"

#include <sys/types.h>

enum {
    TLS_TICKET_KEY_BYTES = 16 + 32 + 32, /* name, AES-256, HMAC-SHA-256 */
    TLS_TICKET_KEYS_MAX = 2,
    TLS_TICKET_SECONDS = 3600, /* a client may use it so long, when its key is still known */
    TLS_PEM_MAX = 256 * 1024,
    TLS_CHAIN_MAX = 10, /* certificates */
    TLS_NAME_MAX = 255, /* bytes of a server name */
    TLS_HANDSHAKE_MAX = 32 * 1024, /* bytes that a client may send before it is done */
    /* About what a session holds, for a caller that bounds its memory: while it shakes hands or
     * has bytes under way, and when it is idle. */
    TLS_BUSY_BYTES = 64 * 1024,
    TLS_IDLE_BYTES = 16 * 1024,
};

enum tls_protocol { TLS_HTTP1, TLS_HTTP2 };

struct tls_server;  /* certificate, key, ticket keys: shared by sessions */
struct tls_session; /* one connection */

/* Loads what OpenSSL would load lazily: afterwards no file is opened. Makes the secret memory in
 * which private keys live, and from then on wipes whatever OpenSSL gives back. After crypt_start,
 * before the jail and before any other call here. INTERNAL when memory is refused. */
MUST_CHECK status tls_warm_up(struct fault *fault);

/* PEM: a chain, leaf first, and its key (RSA 2048 to 4096, P-256, P-384, Ed25519), not encrypted.
 * BAD_FIELD says what is wrong with them, "certificate: ..." or "key: ..."; that the certificate
 * has expired is only told by tls_server_expires. Without any ticket key nothing is resumed. */
MUST_CHECK status tls_server_create(struct tls_server **ret, struct span certificate_pem,
                                    struct span key_pem, struct fault *fault);
/* Sessions keep what they need of it; NULL; takes NULL. */
struct tls_server *tls_server_free(struct tls_server *server);
/* keys: count x TLS_TICKET_KEY_BYTES; the first seals, all open. Wiped by the caller. */
void tls_server_tickets(struct tls_server *server, const uint8_t *keys, uint32_t count);
int64_t tls_server_expires(const struct tls_server *server); /* seconds: notAfter of the leaf */
/* SHA-256 of the leaf, as browsers and openssl x509 -fingerprint show it. */
void tls_server_fingerprint(uint8_t ret[HASH_BYTES], const struct tls_server *server);

/* fd is borrowed, a non-blocking stream socket, and stays the caller's; free the session before
 * closing it. */
MUST_CHECK status tls_session_open(struct tls_session **ret, struct tls_server *server, int fd,
                                   struct fault *fault);
struct tls_session *tls_session_free(struct tls_session *session); /* NULL; takes NULL */

enum tls_want { TLS_WANT_NOTHING, TLS_WANT_READ, TLS_WANT_WRITE };

/* OK when done; AGAIN with want set: call again when the socket is ready. CLOSED: the peer left;
 * BAD_REQUEST: the reason, for counters and logs; UNAVAILABLE: it gave up for a reason of its own,
 * such as not trusting the certificate, or of ours. An alert was sent where one is due. */
MUST_CHECK status tls_handshake(struct tls_session *session, enum tls_want *want,
                                struct fault *fault);
/* Like recv and send, after the handshake. Bytes (> 0); 0: the peer closed properly (read), or
 * there was nothing to write; -1: see want, or, when it is TLS_WANT_NOTHING, the connection is
 * broken. A write that wanted something is repeated with the same bytes or more of them, from
 * anywhere; what it took it has sealed and, up to one record, sent. tls_pending: bytes that a read
 * would give without the socket: epoll does not tell of them. */
ssize_t tls_read(struct tls_session *session, uint8_t *bytes, size_t size, enum tls_want *want);
ssize_t tls_write(struct tls_session *session, struct span bytes, enum tls_want *want);
size_t tls_pending(const struct tls_session *session);
/* close_notify, once, best effort. */
void tls_shutdown(struct tls_session *session);

enum tls_protocol tls_protocol(const struct tls_session *session); /* after the handshake */
/* "TLSv1.3", and the name the client asked for (SNI) in this handshake, in lower case, "" when
 * none: constant, borrowed. */
const char *tls_version(const struct tls_session *session);
const char *tls_server_name(const struct tls_session *session);
bool tls_resumed(const struct tls_session *session);
