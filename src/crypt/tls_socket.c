/* tls_socket.c: the way between OpenSSL and the socket, and a bound on what a stranger may make it
 * allocate.
 *
 * OpenSSL makes room for a handshake message as soon as its header names a length, up to 128 KiB
 * for a ClientHello: nine bytes from a client would cost 175 KiB of touched memory. So until the
 * handshake is done the records are watched as they pass (RFC 8446 section 5.1, 4): a message that
 * announces more than MESSAGE_MAX ends the session before OpenSSL sees it. */
#include "crypt/tls_room.h"

#include <errno.h>
#include <sys/socket.h>

enum {
    MESSAGE_MAX = 16 * 1024,
    RECORD_CHANGE_CIPHER_SPEC = 20,
    RECORD_HANDSHAKE = 22,
    RECORD_APPLICATION_DATA = 23,
};

static BIO_METHOD *method;

/* False when no TLS of this century starts so: an SSLv2 hello, which OpenSSL would still take. */
static bool record_starts(struct tls_session *session)
{
    struct tls_guard *guard = &session->guard;
    const uint8_t *head = guard->record_head;
    if (head[0] & 0x80)
        return false;
    if (head[0] < RECORD_CHANGE_CIPHER_SPEC || head[0] > RECORD_APPLICATION_DATA) {
        guard->off = true; /* OpenSSL knows best what it is: "GET / HTTP/1.1" */
        return true;
    }
    /* what follows is sealed; under TLS 1.3 sealed records call themselves application data */
    if (head[0] == RECORD_CHANGE_CIPHER_SPEC && SSL_version(session->ssl) <= TLS1_2_VERSION)
        guard->off = true;
    guard->record_left = (uint32_t)head[3] << 8 | head[4];
    return true;
}

static bool message_starts(struct tls_guard *guard)
{
    const uint8_t *head = guard->message_head;
    guard->message_left = (uint32_t)head[1] << 16 | (uint32_t)head[2] << 8 | head[3];
    guard->message_head_length = 0;
    return guard->message_left <= MESSAGE_MAX;
}

static bool pass_byte(struct tls_session *session, uint8_t byte)
{
    struct tls_guard *guard = &session->guard;
    if (guard->record_left == 0) {
        guard->record_head[guard->record_head_length++] = byte;
        if (guard->record_head_length == 1 && byte & 0x80)
            return false;
        if (guard->record_head_length < sizeof guard->record_head)
            return true;
        guard->record_head_length = 0;
        return record_starts(session);
    }
    guard->record_left--;
    if (guard->record_head[0] != RECORD_HANDSHAKE)
        return true;
    if (guard->message_left) {
        guard->message_left--;
        return true;
    }
    guard->message_head[guard->message_head_length++] = byte;
    return guard->message_head_length < sizeof guard->message_head || message_starts(guard);
}

static bool pass(struct tls_session *session, struct span bytes)
{
    struct tls_guard *guard = &session->guard;
    guard->received += (uint32_t)bytes.length;
    if (guard->received > TLS_HANDSHAKE_MAX) {
        session->refused = "more bytes than any handshake needs";
        return false;
    }
    for (size_t i = 0; i < bytes.length && !guard->off; i++)
        if (!pass_byte(session, bytes.data[i])) {
            session->refused = guard->record_head[0] & 0x80 ? "no TLS record"
                                                            : "a handshake message too long";
            return false;
        }
    return true;
}

static int socket_read(BIO *bio, char *bytes, int size)
{
    struct tls_session *session = BIO_get_data(bio);
    ssize_t got;
    BIO_clear_retry_flags(bio);
    if (size <= 0)
        return 0;
    do
        got = recv(session->fd, bytes, (size_t)size, 0);
    while (got < 0 && errno == EINTR);
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        BIO_set_retry_read(bio);
    else if (got <= 0)
        session->ended = true;
    if (got > 0 && !session->done
        && !pass(session, (struct span){(const uint8_t *)bytes, (size_t)got}))
        return -1;
    return (int)got;
}

static int socket_write(BIO *bio, const char *bytes, int length)
{
    struct tls_session *session = BIO_get_data(bio);
    ssize_t sent;
    BIO_clear_retry_flags(bio);
    if (length <= 0)
        return 0;
    do
        sent = send(session->fd, bytes, (size_t)length, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        BIO_set_retry_write(bio);
    return (int)sent;
}

static long socket_control(BIO *bio, int command, long number, void *pointer)
{
    (void)number, (void)pointer;
    const struct tls_session *session = BIO_get_data(bio);
    return command == BIO_CTRL_FLUSH || (command == BIO_CTRL_EOF && session->ended);
}

status tls_socket_warm_up(struct fault *fault)
{
    method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "bulkhead socket");
    if (!method || !BIO_meth_set_read(method, socket_read)
        || !BIO_meth_set_write(method, socket_write) || !BIO_meth_set_ctrl(method, socket_control))
        return FAIL(INTERNAL, fault, "TLS: out of memory");
    return OK;
}

BIO *tls_socket_open(struct tls_session *session)
{
    BIO *bio = BIO_new(method);
    if (!bio)
        return NULL;
    BIO_set_data(bio, session);
    BIO_set_init(bio, 1);
    return bio;
}
