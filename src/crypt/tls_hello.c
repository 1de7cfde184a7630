/* tls_hello.c: what OpenSSL asks this room about during and after a handshake. */
#include "crypt/tls_room.h"

#include "base/cursor.h"

#include <stdlib.h>

enum {
    NAME_TYPE_HOST = 0,
    /* a client that asks for new keys oftener than every few gigabytes wants the work, not them */
    KEY_UPDATES_MAX = 64,
};

static bool is_host_byte(uint8_t byte)
{
    return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z')
        || (byte >= '0' && byte <= '9') || byte == '-' || byte == '.' || byte == '_';
}

/* RFC 6066 section 3: a list of names of which only one host name can be meant. */
static status read_name(struct span *ret, struct span extension, struct fault *fault)
{
    struct cursor cursor = cursor_over(extension);
    uint16_t list, length;
    uint8_t type;
    TRY(cursor_u16(&list, &cursor, fault));
    TRY(cursor_u8(&type, &cursor, fault));
    TRY(cursor_u16(&length, &cursor, fault));
    TRY(cursor_bytes(ret, &cursor, length, fault));
    TRY(cursor_end(&cursor, fault));
    if (list != length + 3 || type != NAME_TYPE_HOST || length == 0 || length > TLS_NAME_MAX)
        return FAIL(BAD_REQUEST, fault, "no single host name");
    for (size_t i = 0; i < ret->length; i++)
        if (!is_host_byte(ret->data[i]))
            return FAIL(BAD_REQUEST, fault, "a byte that no host name has");
    return OK;
}

static bool keep_name(struct tls_session *session, struct span name)
{
    char *kept = malloc(name.length + 1);
    if (!kept)
        return false;
    for (size_t i = 0; i < name.length; i++) {
        uint8_t byte = name.data[i];
        kept[i] = (char)(byte >= 'A' && byte <= 'Z' ? byte + 'a' - 'A' : byte);
    }
    kept[name.length] = '\0';
    free(session->name);
    session->name = kept;
    return true;
}

/* From the hello itself: what OpenSSL tells of a resumed session is the name of the first one. */
static int on_hello(SSL *ssl, int *alert, void *argument)
{
    (void)argument;
    struct tls_session *session = SSL_get_app_data(ssl);
    const unsigned char *data;
    size_t length;
    struct span name;
    struct fault fault;
    if (!SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_server_name, &data, &length))
        return SSL_CLIENT_HELLO_SUCCESS;
    if (read_name(&name, (struct span){data, length}, &fault) != OK) {
        session->refused = "a server name that is none";
        *alert = SSL_AD_UNRECOGNIZED_NAME;
        return SSL_CLIENT_HELLO_ERROR;
    }
    if (!keep_name(session, name)) {
        *alert = SSL_AD_INTERNAL_ERROR;
        return SSL_CLIENT_HELLO_ERROR;
    }
    return SSL_CLIENT_HELLO_SUCCESS;
}

static int on_protocols(SSL *ssl, const unsigned char **ret, unsigned char *ret_length,
                        const unsigned char *offered, unsigned offered_length, void *argument)
{
    (void)argument;
    static const unsigned char known[] = "\x02h2\x08http/1.1"; /* in our order */
    struct tls_session *session = SSL_get_app_data(ssl);
    unsigned char *chosen;
    if (SSL_select_next_proto(&chosen, ret_length, known, sizeof known - 1, offered,
                              offered_length) != OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    *ret = chosen;
    session->protocol = *ret_length == 2 ? TLS_HTTP2 : TLS_HTTP1;
    return SSL_TLSEXT_ERR_OK;
}

static void on_event(const SSL *ssl, int where, int value)
{
    struct tls_session *session = SSL_get_app_data(ssl);
    if (!session->done)
        return;
    if (where == SSL_CB_WRITE_ALERT && (value & 0xff) == SSL_AD_NO_RENEGOTIATION)
        session->broken = true; /* nobody who means well renegotiates, and each try is work */
    if (where == SSL_CB_ACCEPT_LOOP && SSL_get_state(ssl) == TLS_ST_SR_KEY_UPDATE
        && ++session->key_updates > KEY_UPDATES_MAX)
        session->broken = true;
}

void tls_hello_install(SSL_CTX *context)
{
    SSL_CTX_set_client_hello_cb(context, on_hello, NULL);
    SSL_CTX_set_alpn_select_cb(context, on_protocols, NULL);
    SSL_CTX_set_info_callback(context, on_event);
}
