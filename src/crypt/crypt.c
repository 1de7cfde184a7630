#define _GNU_SOURCE
#include "crypt/crypt.h"

#include "base/secret.h"
#include "crypt/openssl.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

enum { HASH_BLOCK_BYTES = 64 }; /* SHA-256's */

struct algorithms crypt_algorithms;

/* One context a thread, made at its first hash and kept: a new one costs more than a short hash. */
static _Thread_local EVP_MD_CTX *digest;

void demand(bool held)
{
    if (!held)
        abort();
}

void crypt_random(void *bytes, size_t length)
{
    uint8_t *at = bytes;
    while (length > 0) {
        ssize_t got = getrandom(at, length, 0);
        demand(got > 0 || (got < 0 && errno == EINTR));
        if (got < 0)
            continue;
        at += got;
        length -= (size_t)got;
    }
}

static void digest_start(void)
{
    bool fresh = !digest;
    if (fresh)
        demand((digest = EVP_MD_CTX_new()) != NULL);
    demand(EVP_DigestInit_ex2(digest, fresh ? crypt_algorithms.sha256 : NULL, NULL) == 1);
}

static void digest_add(struct span bytes)
{
    if (bytes.length)
        demand(EVP_DigestUpdate(digest, bytes.data, bytes.length) == 1);
}

static void digest_end(uint8_t ret[HASH_BYTES])
{
    unsigned length;
    demand(EVP_DigestFinal_ex(digest, ret, &length) == 1 && length == HASH_BYTES);
}

void hash(uint8_t ret[HASH_BYTES], struct span bytes)
{
    hash_parts(ret, &bytes, 1);
}

void hash_parts(uint8_t ret[HASH_BYTES], const struct span *parts, size_t count)
{
    digest_start();
    for (size_t i = 0; i < count; i++)
        digest_add(parts[i]);
    digest_end(ret);
}

/* HMAC by RFC 2104, on the bare hash: OpenSSL's MAC object would keep a copy of the key. */
static void keyed_parts(uint8_t ret[HASH_BYTES], struct span key, const struct span *parts,
                        size_t count)
{
    uint8_t block[HASH_BLOCK_BYTES] = {0}, inner[HASH_BYTES];
    if (key.length > sizeof block)
        hash(block, key);
    else
        for (size_t i = 0; i < key.length; i++)
            block[i] = key.data[i];
    for (size_t i = 0; i < sizeof block; i++)
        block[i] ^= 0x36;
    digest_start();
    digest_add(SPAN_OF(block));
    for (size_t i = 0; i < count; i++)
        digest_add(parts[i]);
    digest_end(inner);
    for (size_t i = 0; i < sizeof block; i++)
        block[i] ^= 0x36 ^ 0x5c;
    hash_parts(ret, (struct span[]){SPAN_OF(block), SPAN_OF(inner)}, 2);
    secret_wipe(block, sizeof block);
    secret_wipe(inner, sizeof inner);
}

void hash_keyed(uint8_t ret[HASH_BYTES], struct span key, struct span bytes)
{
    keyed_parts(ret, key, &bytes, 1);
}

void key_derive(uint8_t ret[KEY_BYTES], const uint8_t key[KEY_BYTES], struct span salt,
                const char *purpose)
{
    static_assert((int)KEY_BYTES == (int)HASH_BYTES, "one block of HKDF's expansion is one key");
    uint8_t extracted[HASH_BYTES];
    hash_keyed(extracted, salt, (struct span){key, KEY_BYTES});
    keyed_parts(ret, SPAN_OF(extracted), (struct span[]){span_of_text(purpose), SPAN("\1")}, 2);
    secret_wipe(extracted, sizeof extracted);
}

static status fetch_algorithms(struct fault *fault)
{
    struct algorithms fetched = {
        .sha256 = EVP_MD_fetch(NULL, "SHA256", NULL),
        .block = EVP_CIPHER_fetch(NULL, "AES-256-ECB", NULL),
        .gcm = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL),
    };
    if (!fetched.sha256 || !fetched.block || !fetched.gcm) {
        EVP_MD_free(fetched.sha256);
        EVP_CIPHER_free(fetched.block);
        EVP_CIPHER_free(fetched.gcm);
        return FAIL(INTERNAL, fault, "this OpenSSL lacks SHA-256, AES-256-ECB or AES-256-GCM");
    }
    crypt_algorithms = fetched;
    return OK;
}

status crypt_start(struct fault *fault)
{
    static bool started;
    if (started)
        return OK;
    TRY(secret_objects_hook(fault));
    /* no configuration file; no error strings and no tables of legacy names, which nobody here
     * reads: they would be private memory of every cell */
    const uint64_t lean = OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_NO_LOAD_CRYPTO_STRINGS
                        | OPENSSL_INIT_NO_ADD_ALL_CIPHERS | OPENSSL_INIT_NO_ADD_ALL_DIGESTS;
    if (OPENSSL_init_crypto(lean, NULL) != 1)
        return FAIL(INTERNAL, fault, "OpenSSL did not start");
    TRY(fetch_algorithms(fault));
    /* The first round makes all that OpenSSL makes lazily, in the heap, where it stays; the second
     * then shows that prepared keys work from secret memory. */
    TRY(crypt_self_test(fault));
    TRY(secret_objects_start(fault));
    TRY(crypt_self_test_keys(fault));
    started = true;
    return OK;
}
