#include "crypt/chunk.h"

#include "base/buffer.h"
#include "base/secret.h"
#include "crypt/openssl.h"

#include <assert.h>
#include <openssl/err.h>

enum { NONCE_BYTES = 12, PREFIX_BYTES = 7 };

struct chunk_key {
    uint64_t number; /* of all keys this process made: tells whether the cipher holds it */
    uint8_t bytes[KEY_BYTES];
};

struct chunk_cipher {
    EVP_CIPHER_CTX *gcm;
    uint64_t key; /* whose schedule it holds; 0: nobody's */
    bool sealing;
};

status chunk_cipher_create(struct chunk_cipher **ret, struct fault *fault)
{
    static const uint8_t none[KEY_BYTES];
    struct chunk_cipher *cipher = secret_object_take(sizeof *cipher);
    if (!cipher)
        return FAIL(INTERNAL, fault, "no secret memory left for a cipher");
    secret_objects_begin();
    cipher->gcm = EVP_CIPHER_CTX_new();
    bool made = cipher->gcm
             && EVP_EncryptInit_ex2(cipher->gcm, crypt_algorithms.gcm, none, NULL, NULL) == 1;
    secret_objects_end();
    if (!made) {
        chunk_cipher_free(cipher);
        ERR_clear_error();
        return FAIL(INTERNAL, fault, "no secret memory left for a cipher");
    }
    *ret = cipher;
    return OK;
}

struct chunk_cipher *chunk_cipher_free(struct chunk_cipher *cipher)
{
    if (!cipher)
        return NULL;
    EVP_CIPHER_CTX_free(cipher->gcm);
    secret_object_give(cipher);
    return NULL;
}

status chunk_key_create(struct chunk_key **ret, const uint8_t *bytes, struct fault *fault)
{
    static _Atomic uint64_t made;
    struct chunk_key *key = secret_object_take(sizeof *key);
    if (!key)
        return FAIL(INTERNAL, fault, "no secret memory left for a key");
    key->number = ++made;
    if (!bytes)
        crypt_random(key->bytes, sizeof key->bytes);
    for (size_t i = 0; bytes && i < KEY_BYTES; i++)
        key->bytes[i] = bytes[i];
    *ret = key;
    return OK;
}

struct chunk_key *chunk_key_free(struct chunk_key *key)
{
    if (!key)
        return NULL;
    secret_wipe(key, sizeof *key);
    secret_object_give(key);
    return NULL;
}

const uint8_t *chunk_key_bytes(const struct chunk_key *key)
{
    return key->bytes;
}

static void start(struct chunk_cipher *cipher, const struct chunk_key *key, bool sealing,
                  struct chunk_place place, struct span associated)
{
    assert(key->number != 0); /* else this is a forked child: it must not seal */
    assert(associated.length <= AEAD_TEXT_MAX);
    uint8_t nonce[NONCE_BYTES] = {0};
    struct buffer rest = buffer_over(nonce + PREFIX_BYTES, sizeof nonce - PREFIX_BYTES);
    int length;
    buffer_put_u32(&rest, place.number);
    buffer_put_u8(&rest, place.last);
    assert(!rest.failed && rest.length == NONCE_BYTES - PREFIX_BYTES);
    bool holds = cipher->key == key->number && cipher->sealing == sealing;
    demand(EVP_CipherInit_ex2(cipher->gcm, NULL, holds ? NULL : key->bytes, nonce, sealing, NULL)
           == 1);
    cipher->key = key->number;
    cipher->sealing = sealing;
    if (associated.length)
        demand(EVP_CipherUpdate(cipher->gcm, NULL, &length, associated.data,
                                (int)associated.length) == 1);
}

static void run(uint8_t *out, struct chunk_cipher *cipher, struct span in)
{
    int length;
    assert(in.length <= AEAD_TEXT_MAX);
    if (in.length)
        demand(EVP_CipherUpdate(cipher->gcm, out, &length, in.data, (int)in.length) == 1
               && (size_t)length == in.length);
}

void chunk_seal(uint8_t *out, uint8_t tag[AEAD_TAG_BYTES], struct chunk_cipher *cipher,
                const struct chunk_key *key, struct chunk_place place, struct span in,
                struct span associated)
{
    int length;
    start(cipher, key, true, place, associated);
    run(out, cipher, in);
    demand(EVP_EncryptFinal_ex(cipher->gcm, tag, &length) == 1 && length == 0);
    demand(EVP_CIPHER_CTX_ctrl(cipher->gcm, EVP_CTRL_AEAD_GET_TAG, AEAD_TAG_BYTES, tag) == 1);
}

status chunk_open(uint8_t *out, const uint8_t tag[AEAD_TAG_BYTES], struct chunk_cipher *cipher,
                  const struct chunk_key *key, struct chunk_place place, struct span in,
                  struct span associated, struct fault *fault)
{
    uint8_t expected[AEAD_TAG_BYTES], none[1];
    int length;
    for (size_t i = 0; i < sizeof expected; i++)
        expected[i] = tag[i]; /* the control call takes no const */
    start(cipher, key, false, place, associated);
    demand(EVP_CIPHER_CTX_ctrl(cipher->gcm, EVP_CTRL_AEAD_SET_TAG, sizeof expected, expected)
           == 1);
    run(out, cipher, in);
    if (EVP_DecryptFinal_ex(cipher->gcm, none, &length) == 1)
        return OK;
    if (in.length)
        secret_wipe(out, in.length);
    ERR_clear_error();
    return FAIL(CORRUPT, fault, "sealed bytes differ from what was sealed");
}
