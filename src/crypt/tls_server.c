/* tls_server.c: what the sessions of a node share: certificate, key, ticket keys, what is spoken.
 *
 * The private key is read and tried in the heap, where OpenSSL also makes what it keeps of a first
 * use; then it is copied into secret memory (openssl.h) with what its first signature derives from
 * it, and the first one is freed, and wiped. There is room for a few keys only, so a session has
 * the key no longer than its handshake needs it: the context that it keeps has none. */
#include "crypt/tls_room.h"

#include "base/secret.h"

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/sslerr.h>
#include <openssl/x509.h>
#include <stdlib.h>

enum {
    RSA_BITS_MIN = 2048,
    RSA_BITS_MAX = 4096,
    SECURITY_LEVEL = 2, /* 112 bits: in the chain, in the peer's groups and signatures */
    SIGNATURE_MAX = RSA_BITS_MAX / 8,
};

static const char ciphers_12[] = "ECDHE+AESGCM:ECDHE+CHACHA20";
static const char ciphers_13[] =
    "TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256";
static const char groups[] = "X25519:P-256:P-384";

static EVP_CIPHER *ticket_cipher;

/* RFC 5077 section 4: name, IV, AES-CBC, then HMAC over all; OpenSSL calls for the keys. */
static int ticket_key(const uint8_t *key, const uint8_t *iv, EVP_CIPHER_CTX *cipher,
                      EVP_MAC_CTX *mac, int sealing)
{
    char digest[] = "SHA256";
    OSSL_PARAM parameters[] = {
        OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, (void *)(uintptr_t)(key + 48), 32),
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_end()};
    return EVP_CipherInit_ex2(cipher, ticket_cipher, key + 16, iv, sealing, NULL) == 1
        && EVP_MAC_CTX_set_params(mac, parameters) == 1;
}

static int on_ticket(SSL *ssl, unsigned char name[16], unsigned char iv[EVP_MAX_IV_LENGTH],
                     EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, int sealing)
{
    const struct tls_session *session = SSL_get_app_data(ssl);
    const struct ticket_keys *keys = session->server->tickets;
    if (keys->count == 0)
        return sealing ? -1 : 0;
    if (sealing) {
        crypt_random(iv, 16);
        for (size_t i = 0; i < 16; i++)
            name[i] = keys->key[0][i];
        return ticket_key(keys->key[0], iv, cipher, mac, 1) ? 1 : -1;
    }
    /* 2: the client gets a new one. One of TLS 1.3 shows each ticket once, so that nobody can tell
     * that two connections are its own (RFC 8446, C.4): it would resume every other time only. */
    bool once = SSL_version(ssl) == TLS1_3_VERSION;
    for (uint32_t i = 0; i < keys->count; i++)
        if (span_equal((struct span){keys->key[i], 16}, (struct span){name, 16}))
            return !ticket_key(keys->key[i], iv, cipher, mac, 0) ? -1 : i == 0 && !once ? 1 : 2;
    return 0; /* sealed under a key that is gone: a whole handshake */
}

static int refuse_password(char *buffer, int size, int writing, void *asked)
{
    (void)buffer, (void)size, (void)writing;
    *(bool *)asked = true;
    return -1;
}

static BIO *open_pem(struct span pem)
{
    return BIO_new_mem_buf(pem.length ? (const void *)pem.data : "", (int)pem.length);
}

static status check_strength(EVP_PKEY *key, struct fault *fault)
{
    char group[32] = "";
    size_t length;
    int bits = EVP_PKEY_get_bits(key);
    if (EVP_PKEY_is_a(key, "RSA"))
        return bits >= RSA_BITS_MIN && bits <= RSA_BITS_MAX
             ? OK : FAIL(BAD_FIELD, fault, "key: RSA of %d bits: %d to %d are allowed", bits,
                         RSA_BITS_MIN, RSA_BITS_MAX);
    if (EVP_PKEY_is_a(key, "ED25519"))
        return OK;
    if (EVP_PKEY_is_a(key, "EC")
        && EVP_PKEY_get_group_name(key, group, sizeof group, &length) == 1
        && (span_is(span_of_text(group), "prime256v1")
            || span_is(span_of_text(group), "secp384r1")))
        return OK;
    return FAIL(BAD_FIELD, fault, "key: neither RSA, P-256, P-384 nor Ed25519");
}

/* Also makes now what OpenSSL derives from a key at its first use. */
static bool can_sign(EVP_PKEY *key)
{
    uint8_t signature[SIGNATURE_MAX];
    size_t length = sizeof signature;
    const char *digest = EVP_PKEY_is_a(key, "ED25519") ? NULL : "SHA256";
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    bool signs = context && EVP_DigestSignInit_ex(context, NULL, digest, NULL, NULL, key, NULL) == 1
              && EVP_DigestSign(context, signature, &length, (const uint8_t *)"bulkhead", 8) == 1;
    EVP_MD_CTX_free(context);
    return signs;
}

/* Of the older form, whose cipher OpenSSL knows only with its tables of names. */
static bool says_encrypted(struct span pem)
{
    for (; pem.length; pem.data++, pem.length--)
        if (span_starts_with(pem, SPAN("Proc-Type: 4,ENCRYPTED")))
            return true;
    return false;
}

static status read_key(EVP_PKEY **ret, struct span pem, struct fault *fault)
{
    bool asked = false;
    BIO *bio = open_pem(pem);
    EVP_PKEY *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, refuse_password, &asked) : NULL;
    BIO_free(bio);
    if (!key)
        return FAIL(BAD_FIELD, fault, "key: %s", asked || says_encrypted(pem)
                    ? "it is encrypted: decrypt it first" : "no private key in PEM");
    status result = check_strength(key, fault);
    if (result == OK && !can_sign(key))
        result = FAIL(BAD_FIELD, fault, "key: it does not sign");
    if (result != OK) {
        EVP_PKEY_free(key);
        return result;
    }
    *ret = key;
    return OK;
}

static status read_key_hidden(EVP_PKEY **ret, struct span pem, struct fault *fault)
{
    EVP_PKEY *key;
    TRY(read_key(&key, pem, fault));
    secret_objects_begin();
    EVP_PKEY *hidden = EVP_PKEY_dup(key);
    bool signs = hidden && can_sign(hidden);
    secret_objects_end();
    EVP_PKEY_free(key);
    if (!signs) {
        EVP_PKEY_free(hidden);
        return FAIL(INTERNAL, fault, "key: no secret memory left for it");
    }
    *ret = hidden;
    return OK;
}

static void chain_free(struct tls_chain *chain)
{
    X509_free(chain->leaf);
    sk_X509_pop_free(chain->others, X509_free);
}

static bool chain_put(struct tls_chain *chain, X509 *certificate)
{
    if (!chain->leaf)
        chain->leaf = certificate;
    else if (sk_X509_push(chain->others, certificate) <= 0)
        return false;
    return true;
}

static status read_certificates(struct tls_chain *chain, BIO *bio, struct fault *fault)
{
    for (int count = 0;; count++) {
        bool asked = false;
        ERR_clear_error();
        X509 *certificate = PEM_read_bio_X509(bio, NULL, refuse_password, &asked);
        if (!certificate && count && !asked
            && ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE)
            return OK;
        if (!certificate && count == 0)
            return FAIL(BAD_FIELD, fault, "certificate: no certificate in PEM");
        if (!certificate)
            return FAIL(BAD_FIELD, fault, "certificate: number %d of the chain is damaged",
                        count + 1);
        if (count == TLS_CHAIN_MAX || !chain_put(chain, certificate)) {
            X509_free(certificate);
            return FAIL(BAD_FIELD, fault, "certificate: a chain of more than %d", TLS_CHAIN_MAX);
        }
    }
}

static status read_chain(struct tls_chain *ret, struct span pem, struct fault *fault)
{
    struct tls_chain chain = {.others = sk_X509_new_null()};
    BIO *bio = open_pem(pem);
    status result = INTERNAL;
    if (bio && chain.others)
        result = read_certificates(&chain, bio, fault);
    else
        (void)FAIL(INTERNAL, fault, "certificate: out of memory");
    BIO_free(bio);
    if (result == OK)
        *ret = chain;
    else
        chain_free(&chain);
    return result;
}

static status read_expiry(int64_t *ret, const X509 *leaf, struct fault *fault)
{
    int days, seconds;
    ASN1_TIME *epoch = ASN1_TIME_new();
    bool known = epoch && ASN1_TIME_set_string(epoch, "19700101000000Z") == 1
              && ASN1_TIME_diff(&days, &seconds, epoch, X509_get0_notAfter(leaf)) == 1;
    ASN1_TIME_free(epoch);
    if (!known)
        return FAIL(BAD_FIELD, fault, "certificate: its end of validity is no time");
    *ret = (int64_t)days * 86400 + seconds;
    return OK;
}

/* At each handshake, for this one session. */
static int on_certificate(SSL *ssl, void *argument)
{
    (void)argument;
    const struct tls_session *session = SSL_get_app_data(ssl);
    const struct tls_server *server = session->server;
    return SSL_use_cert_and_key(ssl, server->chain.leaf, server->key, server->chain.others, 1);
}

static status configure(SSL_CTX *context, struct fault *fault)
{
    const uint64_t options = SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION
                           | SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA
                           | SSL_OP_NO_TICKET; /* until there are keys for them */
    SSL_CTX_set_options(context, options);
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE
                                  | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_security_level(context, SECURITY_LEVEL);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_timeout(context, TLS_TICKET_SECONDS);
    SSL_CTX_set_verify(context, SSL_VERIFY_NONE, NULL);
    SSL_CTX_set_cert_cb(context, on_certificate, NULL);
    tls_hello_install(context);
    if (SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) != 1
        || SSL_CTX_set_max_proto_version(context, TLS1_3_VERSION) != 1
        || SSL_CTX_set_cipher_list(context, ciphers_12) != 1
        || SSL_CTX_set_ciphersuites(context, ciphers_13) != 1
        || SSL_CTX_set1_groups_list(context, groups) != 1
        || SSL_CTX_set_session_id_context(context, (const uint8_t *)"bulkhead", 8) != 1
        || SSL_CTX_set_max_early_data(context, 0) != 1
        || SSL_CTX_set_num_tickets(context, 0) != 1
        || SSL_CTX_set_tlsext_ticket_key_evp_cb(context, on_ticket) != 1)
        return FAIL(INTERNAL, fault, "TLS: this OpenSSL lacks what is needed");
    return OK;
}

/* By a session that never speaks: what on_certificate will do succeeds from now on. */
static status try_pair(const struct tls_server *server, struct fault *fault)
{
    const struct tls_chain *chain = &server->chain;
    if (X509_check_private_key(chain->leaf, server->key) != 1)
        return FAIL(BAD_FIELD, fault, "key: it is not the key of the certificate");
    SSL *ssl = SSL_new(server->context);
    if (!ssl)
        return FAIL(INTERNAL, fault, "TLS: out of memory");
    ERR_clear_error();
    int used = SSL_use_cert_and_key(ssl, chain->leaf, server->key, chain->others, 1);
    SSL_free(ssl);
    if (used != 1)
        return FAIL(BAD_FIELD, fault, "certificate: one of the chain has a key or a signature that "
                    "is too weak (reason %d)", ERR_GET_REASON(ERR_peek_error()));
    return OK;
}

static status make(struct tls_server *server, struct span certificate_pem, struct span key_pem,
                   struct fault *fault)
{
    unsigned length = 0;
    server->context = SSL_CTX_new(TLS_server_method());
    server->tickets = secret_object_take(sizeof *server->tickets);
    if (!server->context || !server->tickets)
        return FAIL(INTERNAL, fault, "TLS: out of memory");
    TRY(configure(server->context, fault));
    TRY(read_chain(&server->chain, certificate_pem, fault));
    TRY(read_key_hidden(&server->key, key_pem, fault));
    TRY(try_pair(server, fault));
    if (X509_digest(server->chain.leaf, crypt_algorithms.sha256, server->fingerprint, &length) != 1
        || length != HASH_BYTES)
        return FAIL(INTERNAL, fault, "certificate: its fingerprint");
    return read_expiry(&server->expires_s, server->chain.leaf, fault);
}

struct tls_server *tls_server_free(struct tls_server *server)
{
    if (!server || --server->holders)
        return NULL;
    SSL_CTX_free(server->context);
    chain_free(&server->chain);
    EVP_PKEY_free(server->key);
    secret_object_give(server->tickets);
    free(server);
    return NULL;
}

status tls_server_create(struct tls_server **ret, struct span certificate_pem, struct span key_pem,
                         struct fault *fault)
{
    if (certificate_pem.length > TLS_PEM_MAX)
        return FAIL(BAD_FIELD, fault, "certificate: more than %d bytes", TLS_PEM_MAX);
    if (key_pem.length > TLS_PEM_MAX)
        return FAIL(BAD_FIELD, fault, "key: more than %d bytes", TLS_PEM_MAX);
    struct tls_server *server = calloc(1, sizeof *server);
    if (!server)
        return FAIL(INTERNAL, fault, "TLS: out of memory");
    server->holders = 1;
    status result = make(server, certificate_pem, key_pem, fault);
    ERR_clear_error();
    if (result == OK)
        *ret = server;
    else
        tls_server_free(server);
    return result;
}

void tls_server_tickets(struct tls_server *server, const uint8_t *keys, uint32_t count)
{
    struct ticket_keys *tickets = server->tickets;
    demand(count <= TLS_TICKET_KEYS_MAX);
    secret_wipe(tickets, sizeof *tickets);
    tickets->count = count;
    for (uint32_t i = 0; i < count; i++)
        for (uint32_t j = 0; j < TLS_TICKET_KEY_BYTES; j++)
            tickets->key[i][j] = keys[i * TLS_TICKET_KEY_BYTES + j];
    if (count)
        SSL_CTX_clear_options(server->context, SSL_OP_NO_TICKET);
    else
        SSL_CTX_set_options(server->context, SSL_OP_NO_TICKET);
    demand(SSL_CTX_set_num_tickets(server->context, count ? 1 : 0) == 1);
}

int64_t tls_server_expires(const struct tls_server *server)
{
    return server->expires_s;
}

void tls_server_fingerprint(uint8_t ret[HASH_BYTES], const struct tls_server *server)
{
    for (size_t i = 0; i < HASH_BYTES; i++)
        ret[i] = server->fingerprint[i];
}

status tls_server_warm_up(struct fault *fault)
{
    ticket_cipher = EVP_CIPHER_fetch(NULL, "AES-256-CBC", NULL);
    /* looked up by name where the strength of a certificate's signature is judged: without the
     * table of names, which crypt_start leaves out, all of them would be too weak */
    if (!EVP_add_digest(EVP_sha256()) || !EVP_add_digest(EVP_sha384())
        || !EVP_add_digest(EVP_sha512()))
        return FAIL(INTERNAL, fault, "TLS: out of memory");
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    if (!ticket_cipher || !context)
        return FAIL(INTERNAL, fault, "TLS: OpenSSL did not start");
    status result = configure(context, fault);
    SSL_CTX_free(context);
    return result;
}
