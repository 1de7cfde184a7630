#include "crypt/sign.h"

#include "crypt/openssl.h"

#include <openssl/bn.h>
#include <openssl/err.h>
#include <stdlib.h>

struct signer {
    EVP_PKEY *key;
    EVP_MD_CTX *context;
};

struct verifier {
    EVP_PKEY *key;
    EVP_MD_CTX *context;
};

status signer_create(struct signer **ret, const uint8_t seed[SIGN_SEED_BYTES],
                     struct fault *fault)
{
    struct signer *signer = calloc(1, sizeof *signer);
    if (!signer)
        return FAIL(INTERNAL, fault, "no memory for a signing key");
    secret_objects_begin();
    signer->key = EVP_PKEY_new_raw_private_key_ex(NULL, "ED25519", NULL, seed, SIGN_SEED_BYTES);
    secret_objects_end();
    signer->context = EVP_MD_CTX_new();
    if (!signer->key || !signer->context) {
        signer_free(signer);
        ERR_clear_error(); /* its texts were put into secret memory too */
        return FAIL(INTERNAL, fault, "no secret memory left for a signing key");
    }
    *ret = signer;
    return OK;
}

struct signer *signer_free(struct signer *signer)
{
    if (!signer)
        return NULL;
    EVP_MD_CTX_free(signer->context);
    EVP_PKEY_free(signer->key);
    free(signer);
    return NULL;
}

void signer_public(uint8_t ret[SIGN_PUBLIC_BYTES], const struct signer *signer)
{
    size_t length = SIGN_PUBLIC_BYTES;
    demand(EVP_PKEY_get_raw_public_key(signer->key, ret, &length) == 1
           && length == SIGN_PUBLIC_BYTES);
}

status signer_sign(uint8_t ret[SIGNATURE_BYTES], struct signer *signer, struct span message,
                   struct fault *fault)
{
    uint8_t signature[SIGNATURE_BYTES];
    size_t length = sizeof signature;
    bool done = EVP_DigestSignInit_ex(signer->context, NULL, NULL, NULL, NULL, signer->key,
                                      NULL) == 1
             && EVP_DigestSign(signer->context, signature, &length, message.data,
                               message.length) == 1
             && length == sizeof signature;
    EVP_MD_CTX_reset(signer->context);
    if (!done) {
        ERR_clear_error();
        return FAIL(INTERNAL, fault, "signing failed");
    }
    for (size_t i = 0; i < sizeof signature; i++)
        ret[i] = signature[i];
    return OK;
}

/* The key without its sign bit: y, little-endian. */
static void y_of(uint8_t y[SIGN_PUBLIC_BYTES], const uint8_t key[SIGN_PUBLIC_BYTES])
{
    for (size_t i = 0; i < SIGN_PUBLIC_BYTES; i++)
        y[i] = key[i];
    y[SIGN_PUBLIC_BYTES - 1] &= 0x7f;
}

/* The eight points of the torsion group have five values of y: 0, 1, -1 and those of order 8. */
static bool is_small_order(const uint8_t y[SIGN_PUBLIC_BYTES])
{
    static const uint8_t values[][SIGN_PUBLIC_BYTES] = {
        {0},
        {1},
        {0xec, [1 ... 30] = 0xff, 0x7f},
        {0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98,
         0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53,
         0xfc, 0x05},
        {0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67,
         0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac,
         0x03, 0x7a},
    };
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++)
        if (span_equal((struct span){y, SIGN_PUBLIC_BYTES}, SPAN_OF(values[i])))
            return true;
    return false;
}

/* RFC 8032 section 5.1.3, steps 1 to 3: y < p, and (y^2 - 1) / (d y^2 + 1) is a square. The
 * quotient is one exactly when the product is. */
static bool is_on_curve(const uint8_t y_bytes[SIGN_PUBLIC_BYTES])
{
    BN_CTX *scratch = BN_CTX_new();
    demand(scratch != NULL);
    BN_CTX_start(scratch);
    BIGNUM *p = BN_CTX_get(scratch), *d = BN_CTX_get(scratch), *y = BN_CTX_get(scratch),
           *square = BN_CTX_get(scratch), *u = BN_CTX_get(scratch), *v = BN_CTX_get(scratch);
    demand(v != NULL);
    demand(BN_hex2bn(&p, "7fffffffffffffffffffffffffffffff"
                         "ffffffffffffffffffffffffffffffed") == 64);
    demand(BN_hex2bn(&d, "52036cee2b6ffe738cc740797779e898"
                         "00700a4d4141d8ab75eb4dca135978a3") == 64);
    demand(BN_lebin2bn(y_bytes, SIGN_PUBLIC_BYTES, y) != NULL);
    bool held = BN_cmp(y, p) < 0;
    if (held) {
        demand(BN_mod_sqr(square, y, p, scratch) && BN_copy(u, square) && BN_sub_word(u, 1)
               && BN_mod_mul(v, d, square, p, scratch) && BN_add_word(v, 1)
               && BN_mod_mul(u, u, v, p, scratch));
        int symbol = BN_kronecker(u, p, scratch);
        demand(symbol >= -1);
        held = symbol >= 0;
    }
    BN_CTX_end(scratch);
    BN_CTX_free(scratch);
    return held;
}

status verifier_create(struct verifier **ret, const uint8_t key[SIGN_PUBLIC_BYTES],
                       struct fault *fault)
{
    uint8_t y[SIGN_PUBLIC_BYTES];
    y_of(y, key);
    if (is_small_order(y))
        return FAIL(BAD_FIELD, fault, "public key: a point of small order");
    if (!is_on_curve(y))
        return FAIL(BAD_FIELD, fault, "public key: not a point of Ed25519");
    struct verifier *verifier = calloc(1, sizeof *verifier);
    if (!verifier)
        return FAIL(INTERNAL, fault, "no memory for a public key");
    verifier->key = EVP_PKEY_new_raw_public_key_ex(NULL, "ED25519", NULL, key, SIGN_PUBLIC_BYTES);
    verifier->context = EVP_MD_CTX_new();
    if (!verifier->key || !verifier->context) {
        verifier_free(verifier);
        ERR_clear_error();
        return FAIL(INTERNAL, fault, "no memory for a public key");
    }
    *ret = verifier;
    return OK;
}

struct verifier *verifier_free(struct verifier *verifier)
{
    if (!verifier)
        return NULL;
    EVP_MD_CTX_free(verifier->context);
    EVP_PKEY_free(verifier->key);
    free(verifier);
    return NULL;
}

status verifier_check(struct verifier *verifier, struct span message,
                      const uint8_t signature[SIGNATURE_BYTES], struct fault *fault)
{
    bool held = EVP_DigestVerifyInit_ex(verifier->context, NULL, NULL, NULL, NULL, verifier->key,
                                        NULL) == 1
             && EVP_DigestVerify(verifier->context, signature, SIGNATURE_BYTES, message.data,
                                 message.length) == 1;
    EVP_MD_CTX_reset(verifier->context);
    if (held)
        return OK;
    ERR_clear_error();
    return FAIL(UNAUTHENTICATED, fault, "the signature does not verify");
}
