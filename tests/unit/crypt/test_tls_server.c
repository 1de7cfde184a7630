/* test_tls_server.c: certificates and keys as operators hand them in: what is taken, and what is
 * refused in which words. */
#include "tls_support.h"

#include "crypt/openssl.h"

static struct pair ec, other;

static int start_with_pairs(void **state)
{
    if (start_tls(state))
        return -1;
    make_pair(&ec, "P-256", "one.example", 30);
    make_pair(&other, "P-256", "two.example", 30);
    return 0;
}

static void expect_fault(struct span certificate, struct span key, const char *words)
{
    struct fault fault = {0};
    struct tls_server *server = NULL;
    size_t before = secret_objects_bytes();
    assert_int_equal(tls_server_create(&server, certificate, key, &fault), BAD_FIELD);
    assert_null(server);
    if (!strstr(fault.detail, words))
        fail_msg("\"%s\" does not say \"%s\"", fault.detail, words);
    assert_int_equal(secret_objects_bytes(), before);
}

static void every_allowed_sort_of_key_serves(void **state)
{
    (void)state;
    static const char *const sorts[] = {"P-256", "P-384", "ED25519", "RSA2048"};
    for (size_t i = 0; i < sizeof sorts / sizeof *sorts; i++) {
        struct pair pair;
        struct meeting meeting;
        make_pair(&pair, sorts[i], "one.example", 30);
        size_t before = secret_objects_bytes();
        struct tls_server *server = serve(&pair);
        assert_true(secret_objects_bytes() > before); /* the key lives there */
        meet(&meeting, server);
        assert_int_equal(shake(&meeting), OK);
        assert_talks(&meeting);
        part(&meeting);
        assert_null(tls_server_free(server));
        assert_int_equal(secret_objects_bytes(), before);
    }
}

static void a_session_that_is_open_holds_no_key(void **state)
{
    (void)state;
    struct meeting meeting, late;
    size_t before = secret_objects_bytes();
    struct tls_server *server = serve(&ec);
    meet(&meeting, server);
    meet(&late, server);
    assert_int_equal(shake(&meeting), OK);
    tls_server_free(server);
    assert_true(secret_objects_bytes() > before); /* the other one still needs it */
    assert_int_equal(shake(&late), OK);
    assert_int_equal(secret_objects_bytes(), before);
    assert_talks(&meeting);
    assert_talks(&late);
    part(&meeting);
    part(&late);
}

static void the_largest_key_fits_the_secret_memory(void **state)
{
    (void)state;
    static struct pair big;
    struct tls_server *servers[3];
    make_pair(&big, "RSA4096", "one.example", 30);
    for (int i = 0; i < 3; i++) /* a second reload within the longest handshake */
        servers[i] = serve(&big);
    for (int i = 0; i < 3; i++)
        tls_server_free(servers[i]);
}

static void weak_and_strange_keys_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *sort, *words;
    } cases[] = {
        {"RSA1024", "key: RSA of 1024 bits"},
        {"P-224", "key: neither RSA"},
        {"P-521", "key: neither RSA"},
        {"ED448", "key: neither RSA"},
        {"X25519", "key: neither RSA"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct pem pem;
        EVP_PKEY *key = make_key(cases[i].sort);
        put_key(&pem, key);
        EVP_PKEY_free(key);
        expect_fault(pem_span(&ec.certificate), pem_span(&pem), cases[i].words);
    }
}

static void a_key_that_is_not_the_certificates_is_refused(void **state)
{
    (void)state;
    struct pair rsa;
    make_pair(&rsa, "RSA2048", "three.example", 30);
    expect_fault(pem_span(&ec.certificate), pem_span(&other.key), "not the key of the cert");
    expect_fault(pem_span(&ec.certificate), pem_span(&rsa.key), "not the key of the cert");
    expect_fault(pem_span(&rsa.certificate), pem_span(&ec.key), "not the key of the cert");
}

static void an_encrypted_key_is_refused_in_clear_words(void **state)
{
    (void)state;
    static const char pkcs8[] = /* RFC 5958, PBES2, with nothing inside */
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\n"
        "MDEwDQYJKoZIhvcNAQUNBQAEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhsc\n"
        "HR4f\n"
        "-----END ENCRYPTED PRIVATE KEY-----\n";
    static const char traditional[] =
        "-----BEGIN EC PRIVATE KEY-----\n"
        "Proc-Type: 4,ENCRYPTED\n"
        "DEK-Info: AES-256-CBC,000102030405060708090A0B0C0D0E0F\n\n"
        "AAECAwQFBgcICQoLDA0ODw==\n"
        "-----END EC PRIVATE KEY-----\n";
    expect_fault(pem_span(&ec.certificate), SPAN(pkcs8), "encrypted");
    expect_fault(pem_span(&ec.certificate), SPAN(traditional), "encrypted");
}

static void what_is_no_pem_is_refused(void **state)
{
    (void)state;
    struct span certificate = pem_span(&ec.certificate), key = pem_span(&ec.key);
    static const char half[] = "-----BEGIN CERTIFICATE-----\nMIIB";
    static const char rubbish[] =
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    expect_fault((struct span){0}, key, "certificate: no certificate");
    expect_fault(SPAN("hello"), key, "certificate: no certificate");
    expect_fault(SPAN(half), key, "certificate: no certificate");
    expect_fault(SPAN(rubbish), key, "certificate: no certificate");
    expect_fault(key, key, "certificate: no certificate");
    expect_fault(certificate, (struct span){0}, "key: no private key");
    expect_fault(certificate, SPAN("hello"), "key: no private key");
    expect_fault(certificate, SPAN(rubbish), "key: no private key");
    expect_fault(certificate, certificate, "key: no private key");
    expect_fault(certificate, (struct span){key.data, key.length / 2}, "key: no private key");
}

static void a_chain_is_read_to_its_end(void **state)
{
    (void)state;
    static struct pem chain;
    struct fault fault;
    struct tls_server *server;
    chain = ec.certificate;
    for (int i = 1; i <= TLS_CHAIN_MAX; i++) {
        if (i < TLS_CHAIN_MAX) {
            assert_int_equal(tls_server_create(&server, pem_span(&chain), pem_span(&ec.key),
                                               &fault), OK);
            tls_server_free(server);
        }
        memcpy(chain.text + chain.length, other.certificate.text, other.certificate.length);
        chain.length += other.certificate.length;
    }
    expect_fault(pem_span(&chain), pem_span(&ec.key), "a chain of more than 10");
    chain.length = ec.certificate.length + other.certificate.length - 30;
    memcpy(chain.text, ec.certificate.text, ec.certificate.length);
    memcpy(chain.text + ec.certificate.length, other.certificate.text, other.certificate.length);
    expect_fault(pem_span(&chain), pem_span(&ec.key), "number 2 of the chain is damaged");
}

/* A leaf of a CA of its own: what is self-signed is not judged by its signature. */
static void sign_by_ca(struct pair *ret, const char *ca_sort, const EVP_MD *digest)
{
    EVP_PKEY *key = make_key("P-256"), *ca = make_key(ca_sort);
    X509 *leaf = make_certificate(key, "leaf.example", -1, 30, EVP_sha256());
    X509_NAME *issuer = X509_NAME_new();
    X509_NAME_add_entry_by_txt(issuer, "CN", MBSTRING_ASC, (const unsigned char *)"ca", -1, -1, 0);
    X509_set_issuer_name(leaf, issuer);
    assert_true(X509_sign(leaf, ca, digest) > 0);
    put_certificate(&ret->certificate, leaf);
    put_key(&ret->key, key);
    X509_NAME_free(issuer);
    X509_free(leaf);
    EVP_PKEY_free(key);
    EVP_PKEY_free(ca);
}

static void what_a_ca_signed_well_serves(void **state)
{
    (void)state;
    const struct {
        const char *sort;
        const EVP_MD *digest;
    } cases[] = {{"P-256", EVP_sha256()}, {"P-384", EVP_sha384()}, {"RSA2048", EVP_sha256()},
                 {"RSA2048", EVP_sha512()}, {"ED25519", NULL}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct pair signed_pair;
        struct meeting meeting;
        sign_by_ca(&signed_pair, cases[i].sort, cases[i].digest);
        struct tls_server *server = serve(&signed_pair);
        meet(&meeting, server);
        assert_int_equal(shake(&meeting), OK);
        part(&meeting);
        tls_server_free(server);
    }
}

static void a_chain_signed_with_a_broken_hash_is_refused(void **state)
{
    (void)state;
    struct pair pair;
    sign_by_ca(&pair, "P-256", EVP_sha1());
    expect_fault(pem_span(&pair.certificate), pem_span(&pair.key), "too weak");
    sign_by_ca(&pair, "RSA2048", EVP_md5());
    expect_fault(pem_span(&pair.certificate), pem_span(&pair.key), "too weak");
    sign_by_ca(&pair, "RSA2048", EVP_sha1());
    expect_fault(pem_span(&pair.certificate), pem_span(&pair.key), "too weak");
}

static void more_than_the_bound_is_not_read(void **state)
{
    (void)state;
    static uint8_t big[TLS_PEM_MAX + 1];
    memset(big, '\n', sizeof big);
    expect_fault(SPAN_OF(big), pem_span(&ec.key), "certificate: more than");
    expect_fault(pem_span(&ec.certificate), SPAN_OF(big), "key: more than");
}

static void an_expired_certificate_serves_and_is_told(void **state)
{
    (void)state;
    struct pair old;
    struct meeting meeting;
    int64_t now_s = (int64_t)time(NULL);
    make_pair(&old, "P-256", "old.example", -1);
    struct tls_server *server = serve(&old), *fresh = serve(&ec);
    assert_in_range(tls_server_expires(server), now_s - 86400 - 600, now_s - 86400 + 600);
    assert_in_range(tls_server_expires(fresh), now_s + 30 * 86400 - 600, now_s + 30 * 86400 + 600);
    meet(&meeting, server);
    assert_int_equal(shake(&meeting), OK);
    part(&meeting);
    tls_server_free(server);
    tls_server_free(fresh);
}

static void the_fingerprint_is_that_of_the_leaf(void **state)
{
    (void)state;
    uint8_t fingerprint[HASH_BYTES], expected[EVP_MAX_MD_SIZE];
    unsigned length;
    struct tls_server *server = serve(&ec);
    BIO *bio = BIO_new_mem_buf(ec.certificate.text, (int)ec.certificate.length);
    X509 *leaf = PEM_read_bio_X509(bio, NULL, NULL, NULL);
    assert_int_equal(X509_digest(leaf, EVP_sha256(), expected, &length), 1);
    tls_server_fingerprint(fingerprint, server);
    assert_memory_equal(fingerprint, expected, HASH_BYTES);
    X509_free(leaf);
    BIO_free(bio);
    tls_server_free(server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_allowed_sort_of_key_serves),
        cmocka_unit_test(a_session_that_is_open_holds_no_key),
        cmocka_unit_test(the_largest_key_fits_the_secret_memory),
        cmocka_unit_test(weak_and_strange_keys_are_refused),
        cmocka_unit_test(a_key_that_is_not_the_certificates_is_refused),
        cmocka_unit_test(an_encrypted_key_is_refused_in_clear_words),
        cmocka_unit_test(what_is_no_pem_is_refused),
        cmocka_unit_test(a_chain_is_read_to_its_end),
        cmocka_unit_test(what_a_ca_signed_well_serves),
        cmocka_unit_test(a_chain_signed_with_a_broken_hash_is_refused),
        cmocka_unit_test(more_than_the_bound_is_not_read),
        cmocka_unit_test(an_expired_certificate_serves_and_is_told),
        cmocka_unit_test(the_fingerprint_is_that_of_the_leaf),
    };
    return cmocka_run_group_tests(tests, start_with_pairs, NULL);
}
