#include "crypt/foreign.h"

#include "base/buffer.h"
#include "base/cursor.h"
#include "crypt/openssl.h"

#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/param_build.h>
#include <openssl/rsa.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { SCALAR_BYTES = 32, PSS_SALT_BYTES = 32, ECDSA_DER_MAX = 80 };

struct foreign_verifier {
    enum foreign_alg alg;
    size_t signature_bytes;
    EVP_PKEY *key;
    EVP_MD_CTX *context;
};

static EVP_PKEY *key_from(const char *type, OSSL_PARAM *params)
{
    EVP_PKEY *key = NULL;
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
    if (context && EVP_PKEY_fromdata_init(context) == 1)
        (void)!EVP_PKEY_fromdata(context, &key, EVP_PKEY_PUBLIC_KEY, params);
    EVP_PKEY_CTX_free(context);
    return key;
}

/* In the curve, on it, of the right order: section 5.6.2.3 of NIST SP 800-56A. */
static bool is_sound(EVP_PKEY *key)
{
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL);
    bool sound = context && EVP_PKEY_public_check(context) == 1;
    EVP_PKEY_CTX_free(context);
    return sound;
}

static status load_ec(EVP_PKEY **ret, struct span bytes, struct fault *fault)
{
    uint8_t point[1 + FOREIGN_EC_BYTES] = {POINT_CONVERSION_UNCOMPRESSED};
    char group[] = "prime256v1";
    if (bytes.length != FOREIGN_EC_BYTES)
        return FAIL(BAD_FIELD, fault, "key: x and y of P-256 are %d bytes", FOREIGN_EC_BYTES);
    for (size_t i = 0; i < FOREIGN_EC_BYTES; i++)
        point[1 + i] = bytes.data[i];
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, group, 0),
        OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PUB_KEY, point, sizeof point),
        OSSL_PARAM_construct_end(),
    };
    EVP_PKEY *key = key_from("EC", params);
    if (!key || !is_sound(key)) {
        EVP_PKEY_free(key);
        ERR_clear_error();
        return FAIL(BAD_FIELD, fault, "key: not a point of P-256");
    }
    *ret = key;
    return OK;
}

static status read_rsa(uint32_t *ret_exponent, struct span *ret_modulus, struct span bytes,
                       struct fault *fault)
{
    struct cursor cursor = cursor_over(bytes);
    struct fault unused;
    uint32_t exponent;
    struct span modulus;
    if (cursor_u32(&exponent, &cursor, &unused)
        || cursor_bytes(&modulus, &cursor, cursor_left(&cursor), &unused)
        || modulus.length < FOREIGN_RSA_MIN_BYTES || modulus.length > FOREIGN_RSA_MAX_BYTES)
        return FAIL(BAD_FIELD, fault, "key: an RSA modulus of 2048 to 4096 bits");
    if (!(modulus.data[0] & 0x80) && modulus.length == FOREIGN_RSA_MIN_BYTES)
        return FAIL(BAD_FIELD, fault, "key: an RSA modulus has at least 2048 bits");
    if (modulus.data[0] == 0 || !(modulus.data[modulus.length - 1] & 1))
        return FAIL(BAD_FIELD, fault, "key: an RSA modulus is odd and begins with no zero");
    if (exponent < FOREIGN_RSA_EXPONENT_MIN || !(exponent & 1))
        return FAIL(BAD_FIELD, fault, "key: an RSA exponent is odd and at least %d",
                    FOREIGN_RSA_EXPONENT_MIN);
    *ret_exponent = exponent;
    *ret_modulus = modulus;
    return OK;
}

static status load_rsa(EVP_PKEY **ret, struct span bytes, struct fault *fault)
{
    uint32_t exponent;
    struct span modulus;
    TRY(read_rsa(&exponent, &modulus, bytes, fault));
    BIGNUM *n = BN_bin2bn(modulus.data, (int)modulus.length, NULL);
    OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
    OSSL_PARAM *params = NULL;
    EVP_PKEY *key = NULL;
    if (n && build && OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_N, n)
        && OSSL_PARAM_BLD_push_uint32(build, OSSL_PKEY_PARAM_RSA_E, exponent))
        params = OSSL_PARAM_BLD_to_param(build);
    if (params)
        key = key_from("RSA", params);
    OSSL_PARAM_free(params);
    OSSL_PARAM_BLD_free(build);
    BN_free(n);
    if (!key) {
        ERR_clear_error();
        return FAIL(BAD_FIELD, fault, "key: not an RSA key");
    }
    *ret = key;
    return OK;
}

status foreign_verifier_make(struct foreign_verifier **ret, enum foreign_alg alg, struct span key,
                             struct fault *fault)
{
    struct foreign_verifier *verifier = calloc(1, sizeof *verifier);
    if (!verifier)
        return FAIL(INTERNAL, fault, "no memory for a public key");
    verifier->alg = alg;
    status code = alg == FOREIGN_ES256 ? load_ec(&verifier->key, key, fault)
                                       : load_rsa(&verifier->key, key, fault);
    if (code == OK) {
        verifier->signature_bytes = alg == FOREIGN_ES256 ? FOREIGN_EC_BYTES : key.length - 4;
        verifier->context = EVP_MD_CTX_new();
        code = verifier->context ? OK : FAIL(INTERNAL, fault, "no memory for a public key");
    }
    if (code == OK)
        *ret = verifier;
    else
        foreign_verifier_free(verifier);
    return code;
}

/* At the first key of an algorithm, not at the start: most processes never see one, and what
 * OpenSSL makes for it would be time of every start and private memory of every cell. */
static status prove(enum foreign_alg alg, struct fault *fault)
{
    static atomic_bool proven[FOREIGN_ALG_COUNT];
    if (atomic_load(&proven[alg]))
        return OK;
    TRY(foreign_self_test(alg, fault));
    atomic_store(&proven[alg], true);
    return OK;
}

status foreign_verifier_create(struct foreign_verifier **ret, enum foreign_alg alg,
                               struct span key, struct fault *fault)
{
    TRY(prove(alg, fault));
    return foreign_verifier_make(ret, alg, key, fault);
}

struct foreign_verifier *foreign_verifier_free(struct foreign_verifier *verifier)
{
    if (!verifier)
        return NULL;
    EVP_MD_CTX_free(verifier->context);
    EVP_PKEY_free(verifier->key);
    free(verifier);
    return NULL;
}

/* 1..n-1, n being the order of P-256. */
static bool is_scalar(struct span bytes)
{
    static const uint8_t zero[SCALAR_BYTES];
    static const uint8_t order[SCALAR_BYTES] = {
        0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xff, 0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63,
        0x25, 0x51,
    };
    return !span_equal(bytes, SPAN_OF(zero)) && span_compare(bytes, SPAN_OF(order)) < 0;
}

/* A positive INTEGER of DER: no more bytes than it needs, and the first below 128. */
static void put_der_integer(struct buffer *out, struct span bytes)
{
    while (bytes.length > 1 && bytes.data[0] == 0)
        bytes = (struct span){bytes.data + 1, bytes.length - 1};
    bool high = bytes.data[0] & 0x80;
    buffer_put_u8(out, 0x02);
    buffer_put_u8(out, (uint8_t)(bytes.length + high));
    if (high)
        buffer_put_u8(out, 0);
    buffer_put(out, bytes);
}

/* SEQUENCE { r, s }, what OpenSSL reads. */
static bool ecdsa_to_der(struct buffer *out, struct span raw)
{
    const struct span r = {raw.data, SCALAR_BYTES}, s = {raw.data + SCALAR_BYTES, SCALAR_BYTES};
    if (!is_scalar(r) || !is_scalar(s))
        return false;
    uint8_t storage[ECDSA_DER_MAX];
    struct buffer body = buffer_over(storage, sizeof storage);
    put_der_integer(&body, r);
    put_der_integer(&body, s);
    buffer_put_u8(out, 0x30);
    buffer_put_u8(out, (uint8_t)body.length); /* below 128: one byte */
    buffer_put(out, buffer_span(&body));
    return !body.failed && !out->failed;
}

static bool set_padding(EVP_PKEY_CTX *context, enum foreign_alg alg)
{
    if (alg == FOREIGN_ES256)
        return true;
    if (alg == FOREIGN_RS256)
        return EVP_PKEY_CTX_set_rsa_padding(context, RSA_PKCS1_PADDING) == 1;
    return EVP_PKEY_CTX_set_rsa_padding(context, RSA_PKCS1_PSS_PADDING) == 1
        && EVP_PKEY_CTX_set_rsa_mgf1_md(context, crypt_algorithms.sha256) == 1
        && EVP_PKEY_CTX_set_rsa_pss_saltlen(context, PSS_SALT_BYTES) == 1;
}

static bool holds(struct foreign_verifier *verifier, struct span message, struct span signature)
{
    uint8_t storage[ECDSA_DER_MAX];
    struct buffer der = buffer_over(storage, sizeof storage);
    EVP_PKEY_CTX *settings = NULL; /* the digest context's own */
    if (signature.length != verifier->signature_bytes)
        return false;
    if (verifier->alg == FOREIGN_ES256) {
        if (!ecdsa_to_der(&der, signature))
            return false;
        signature = buffer_span(&der);
    }
    return EVP_DigestVerifyInit(verifier->context, &settings, crypt_algorithms.sha256, NULL,
                                verifier->key) == 1
        && set_padding(settings, verifier->alg)
        && EVP_DigestVerify(verifier->context, signature.data, signature.length, message.data,
                            message.length) == 1;
}

status foreign_verifier_check(struct foreign_verifier *verifier, struct span message,
                              struct span signature, struct fault *fault)
{
    bool held = holds(verifier, message, signature);
    EVP_MD_CTX_reset(verifier->context);
    if (held)
        return OK;
    ERR_clear_error();
    return FAIL(UNAUTHENTICATED, fault, "the signature does not verify");
}
