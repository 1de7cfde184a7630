#include "crypt/aead.h"

#include "base/secret.h"
#include "crypt/openssl.h"

#include <assert.h>
#include <openssl/err.h>

enum {
    BLOCK_BYTES = 16,
    DERIVING_BYTES = 12, /* of the nonce: they choose the page's key; the rest is GCM's nonce */
    NONCES_AHEAD = 10,   /* 240 bytes: up to 256 the kernel gives in one piece */
};

/* Tells a prepared key from one that a forked child sees wiped. */
static const uint64_t PREPARED = 0x6b65795f72656164u;

struct aead {
    uint64_t prepared;
    EVP_CIPHER_CTX *block; /* holds the schedule of the long-term key */
    EVP_CIPHER_CTX *page;  /* takes a page's derived key, and keeps it until the next page */
    uint8_t subkey[BLOCK_BYTES]; /* K1 of CMAC */
    uint32_t nonces_left;
    uint8_t nonces[NONCES_AHEAD][AEAD_NONCE_BYTES];
};

/* Doubling in GF(2^128), SP 800-38B section 6.1, without a branch on the secret. */
static void double_block(uint8_t block[BLOCK_BYTES])
{
    uint8_t carry = block[0] >> 7;
    for (size_t i = 0; i + 1 < BLOCK_BYTES; i++)
        block[i] = (uint8_t)(block[i] << 1 | block[i + 1] >> 7);
    block[BLOCK_BYTES - 1] = (uint8_t)(block[BLOCK_BYTES - 1] << 1 ^ (0x87 & -carry));
}

static void encrypt_blocks(uint8_t *out, struct aead *aead, const uint8_t *in, int length)
{
    int written;
    demand(EVP_EncryptUpdate(aead->block, out, &written, in, length) == 1 && written == length);
}

/* Steps 3 to 5 of the specification. */
static void derive_page_key(uint8_t ret[KEY_BYTES], struct aead *aead,
                            const uint8_t nonce[AEAD_NONCE_BYTES])
{
    uint8_t blocks[2 * BLOCK_BYTES] = {[1] = 1, [2] = 'X', [17] = 2, [18] = 'X'};
    for (size_t i = 0; i < DERIVING_BYTES; i++)
        blocks[4 + i] = blocks[BLOCK_BYTES + 4 + i] = nonce[i];
    for (size_t i = 0; i < sizeof blocks; i++)
        blocks[i] ^= aead->subkey[i % BLOCK_BYTES];
    static_assert(sizeof blocks == KEY_BYTES, "two blocks make the page's key");
    encrypt_blocks(ret, aead, blocks, sizeof blocks);
    secret_wipe(blocks, sizeof blocks);
}

static void start_page(struct aead *aead, const uint8_t nonce[AEAD_NONCE_BYTES],
                       struct span associated, bool sealing)
{
    assert(aead->prepared == PREPARED); /* else this is a forked child: it must not seal */
    assert(associated.length <= AEAD_TEXT_MAX);
    uint8_t key[KEY_BYTES];
    int length;
    derive_page_key(key, aead, nonce);
    demand(EVP_CipherInit_ex2(aead->page, NULL, key, nonce + DERIVING_BYTES, sealing, NULL) == 1);
    secret_wipe(key, sizeof key);
    if (associated.length)
        demand(EVP_CipherUpdate(aead->page, NULL, &length, associated.data,
                                (int)associated.length) == 1);
}

static void run_page(uint8_t *out, struct aead *aead, struct span in)
{
    assert(in.length <= AEAD_TEXT_MAX);
    int length;
    if (in.length)
        demand(EVP_CipherUpdate(aead->page, out, &length, in.data, (int)in.length) == 1
               && (size_t)length == in.length);
}

static EVP_CIPHER_CTX *cipher_context(EVP_CIPHER *cipher, const uint8_t *key)
{
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    if (context && EVP_EncryptInit_ex2(context, cipher, key, NULL, NULL) == 1
        && EVP_CIPHER_CTX_set_padding(context, 0) == 1)
        return context;
    EVP_CIPHER_CTX_free(context);
    return NULL;
}

status aead_create(struct aead **ret, const uint8_t key[KEY_BYTES], struct fault *fault)
{
    struct aead *aead = secret_object_take(sizeof *aead);
    if (!aead)
        return FAIL(INTERNAL, fault, "no secret memory left for a key");
    secret_objects_begin();
    aead->block = cipher_context(crypt_algorithms.block, key);
    aead->page = cipher_context(crypt_algorithms.gcm, key); /* rekeyed before every use */
    secret_objects_end();
    if (!aead->block || !aead->page) {
        aead_free(aead);
        ERR_clear_error(); /* its texts were put into secret memory too */
        return FAIL(INTERNAL, fault, "no secret memory left for a key");
    }
    encrypt_blocks(aead->subkey, aead, (const uint8_t[BLOCK_BYTES]){0}, BLOCK_BYTES);
    double_block(aead->subkey);
    aead->prepared = PREPARED;
    *ret = aead;
    return OK;
}

struct aead *aead_free(struct aead *aead)
{
    if (!aead)
        return NULL;
    EVP_CIPHER_CTX_free(aead->block);
    EVP_CIPHER_CTX_free(aead->page);
    secret_wipe(aead, sizeof *aead);
    secret_object_give(aead);
    return NULL;
}

static void next_nonce(uint8_t ret[AEAD_NONCE_BYTES], struct aead *aead)
{
    assert(aead->prepared == PREPARED && aead->nonces_left <= NONCES_AHEAD);
    if (aead->nonces_left == 0) {
        crypt_random(aead->nonces, sizeof aead->nonces);
        aead->nonces_left = NONCES_AHEAD;
    }
    uint8_t *nonce = aead->nonces[--aead->nonces_left];
    for (size_t i = 0; i < AEAD_NONCE_BYTES; i++)
        ret[i] = nonce[i];
    secret_wipe(nonce, AEAD_NONCE_BYTES);
}

void aead_seal(uint8_t *out, uint8_t nonce[AEAD_NONCE_BYTES], uint8_t tag[AEAD_TAG_BYTES],
               struct aead *aead, struct span in, struct span associated)
{
    next_nonce(nonce, aead);
    aead_seal_with_nonce(out, nonce, tag, aead, in, associated);
}

void aead_seal_with_nonce(uint8_t *out, const uint8_t nonce[AEAD_NONCE_BYTES],
                          uint8_t tag[AEAD_TAG_BYTES], struct aead *aead, struct span in,
                          struct span associated)
{
    int length;
    start_page(aead, nonce, associated, true);
    run_page(out, aead, in);
    demand(EVP_EncryptFinal_ex(aead->page, tag, &length) == 1 && length == 0);
    demand(EVP_CIPHER_CTX_ctrl(aead->page, EVP_CTRL_AEAD_GET_TAG, AEAD_TAG_BYTES, tag) == 1);
}

status aead_open(uint8_t *out, struct aead *aead, const uint8_t nonce[AEAD_NONCE_BYTES],
                 const uint8_t tag[AEAD_TAG_BYTES], struct span in, struct span associated,
                 struct fault *fault)
{
    uint8_t expected[AEAD_TAG_BYTES], none[1];
    int length;
    for (size_t i = 0; i < sizeof expected; i++)
        expected[i] = tag[i]; /* the control call takes no const */
    start_page(aead, nonce, associated, false);
    demand(EVP_CIPHER_CTX_ctrl(aead->page, EVP_CTRL_AEAD_SET_TAG, sizeof expected, expected) == 1);
    run_page(out, aead, in);
    if (EVP_DecryptFinal_ex(aead->page, none, &length) == 1)
        return OK;
    if (in.length)
        secret_wipe(out, in.length);
    ERR_clear_error();
    return FAIL(CORRUPT, fault, "sealed bytes differ from what was sealed");
}
